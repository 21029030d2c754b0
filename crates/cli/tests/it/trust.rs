//! Trust scores of versions of agents: set by a person, seen by rules, in the journal and in the audit trail.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::kit::{Killed, Place, command};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

const SCRIPT: &str = r"rules:
  - {agent: clerk, turn: 1, reply: {tool_calls: [{name: pay, arguments: {}}]}}
  - {agent: clerk, turn: 2, match: 'not allowed', reply: {content: I was refused.}}
  - {agent: clerk, turn: 2, reply: {content: Paid.}}
";

const RULES: &str = r#"
permit (principal, action, resource);
@id("trusted") @reason("only agents that passed")
forbid (principal, action == Action::"CallTool", resource) unless { context has agent && context.agent.trust >= 50 };
"#;

const CONFIG: &str = r#"[providers.scripted]
script = "script.yml"
[policy]
path = "policies"
[tools.pay]
type = "command"
command = ["echo", "{}"]
class = "write"
idempotency = "natural"
"#;

fn place() -> Place {
    let place = Place::paying(SCRIPT, CONFIG);
    std::fs::create_dir(place.path("policies")).expect("a folder");
    place.write("policies/rules.cedar", RULES);
    place
}

fn said(place: &Place, run: &str) -> Value {
    let ran = place.windlass(&["run", "payer.yml", "--run-id", run]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    ran.json()["said"].clone()
}

/// The agent of a run and its version, as rules see it, and the score of its tool calls.
fn seen(place: &Place, run: &str) -> (String, Value) {
    let why = place.windlass(&["policy", "why", run]).json();
    let rows = why["decisions"].as_array().expect("decisions");
    let call = rows.iter().find(|row| row["question"]["action"] == "call_tool").expect("a call");
    let agent = &call["explanation"]["attributes"]["agent"];
    let version = format!("{}@{}", agent["name"].as_str().expect("a name"), agent["version"].as_str().expect("one"));
    (version, call["trust"].clone())
}

#[test]
fn a_score_opens_and_closes_tools_and_leaves_a_trail() {
    let place = place();
    assert_eq!(said(&place, "one"), "I was refused.", "nobody trusts an agent without a score");
    let (agent, trust) = seen(&place, "one");
    assert_eq!(trust, Value::Null);
    let set =
        |score: &str, reason: &str| place.windlass(&["trust", "set", &agent, score, "--by", "ada", "--reason", reason]);
    assert_eq!(set("80", "passed the evals").json()["trust"], 80);
    assert_eq!(said(&place, "two"), "Paid.");
    assert_eq!(seen(&place, "two"), (agent.clone(), json!(80)), "the journal has the score with the verdict");
    assert_eq!(set("10", "incident 12").code(), 0);
    assert_eq!(said(&place, "three"), "I was refused.");
    assert_eq!(seen(&place, "two").1, 80, "what was decided stays as it was");
    let listed = place.windlass(&["trust", "list"]).json();
    assert_eq!((&listed["scores"][0]["agent"], &listed["scores"][0]["trust"]), (&json!(agent), &json!(10)));
    let shown = place.windlass(&["trust", "show", &agent]).json();
    let scores: Vec<&Value> = shown["changes"].as_array().expect("changes").iter().map(|one| &one["trust"]).collect();
    assert_eq!(scores, [&json!(80), &json!(10)]);
    let trail = place.windlass(&["audit", "acts"]).stdout();
    assert_eq!(trail.matches("trust.set").count(), 2, "{trail}");
}

/// What the agent said in a run that another process drives.
fn said_there(place: &Place, run: &str) -> Value {
    let store = ["--store", place.store()];
    let windlass = |args: &[&str]| place.windlass(&[args, &store].concat());
    assert_eq!(windlass(&["run", "payer.yml", "--run-id", run, "--detach"]).code(), 0);
    let begun = Instant::now();
    loop {
        let shown = windlass(&["runs", "show", run]).json();
        if shown["status"] == "completed" {
            return shown["run"]["context"]["said"].clone();
        }
        assert!(begun.elapsed() < PATIENCE, "it does not end: {shown}");
        // Slow on purpose: another process does the work.
        std::thread::sleep(Duration::from_millis(20));
    }
}

// Slow on purpose: a process that serves looks once a second.
#[test]
fn a_score_counts_in_a_process_that_serves_already() {
    let place = place();
    let mut serve = command(&place.path(""));
    serve.args(["serve", "--listen", "127.0.0.1:0", "--store", place.store()]);
    let mut serve = Killed(serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server"));
    assert_eq!(said_there(&place, "before"), "I was refused.", "nobody trusts an agent without a score");
    let why = place.windlass(&["policy", "why", "before", "--store", place.store()]).json();
    let rows = why["decisions"].as_array().expect("decisions");
    let call = rows.iter().find(|row| row["question"]["action"] == "call_tool").expect("a call");
    let agent = &call["explanation"]["attributes"]["agent"];
    let agent = format!("{}@{}", agent["name"].as_str().expect("a name"), agent["version"].as_str().expect("one"));
    for (score, wanted) in [("80", "Paid."), ("10", "I was refused.")] {
        let set = ["trust", "set", &agent, score, "--by", "ada", "--reason", "r", "--store", place.store()];
        assert_eq!(place.windlass(&set).code(), 0);
        let begun = Instant::now();
        let mut runs = 0;
        while said_there(&place, &format!("at-{score}-{runs}")) != wanted {
            runs += 1;
            assert!(begun.elapsed() < PATIENCE, "the score {score} does not count");
        }
        for later in 0..3 {
            assert_eq!(said_there(&place, &format!("after-{score}-{later}")), wanted);
        }
    }
    assert!(serve.0.try_wait().expect("a status").is_none(), "it is the same process all the time");
}

#[test]
fn what_is_no_score_is_refused() {
    let place = place();
    let version = "clerk@0123456789ab";
    let refused: [&[&str]; 4] = [
        &["trust", "set", "clerk", "10", "--by", "ada", "--reason", "r"],
        &["trust", "set", version, "101", "--by", "ada", "--reason", "r"],
        &["trust", "set", version, "10", "--by", "ada", "--reason", " "],
        &["trust", "show", "clerk"],
    ];
    for args in refused {
        assert_eq!(place.windlass(args).code(), 2, "{args:?}");
    }
    assert_eq!(place.windlass(&["trust", "show", version]).code(), 4);
}

const CASE: &str = "machine: payer.yml\nscript: script.yml\nanswers:\n  pay: {returns: {}}\ncases:\n- name: it pays\n  expect:\n    \
     output: {said: Paid.}\n";

#[test]
fn evidence_sets_the_score_of_a_version_and_says_why() {
    let place = place();
    let config = "[trust]\ncomputed = true\nevidence_min = 2\nuntested = 40\ndenied = 0\n";
    place.write("windlass.toml", &format!("{CONFIG}{config}"));
    place.write("payer.test.yml", CASE);
    let store = ["--store", place.store()];
    let windlass = |args: &[&str]| place.windlass(&[args, &store].concat());
    let said = |run: &str| {
        let ran = windlass(&["run", "payer.yml", "--run-id", run]);
        assert_eq!(ran.code(), 0, "{}", ran.shown());
        ran.json()["said"].clone()
    };
    let seen = |run: &str| {
        let why = windlass(&["policy", "why", run]).json();
        let rows = why["decisions"].as_array().expect("decisions");
        let call = rows.iter().find(|row| row["question"]["action"] == "call_tool").expect("a call");
        let agent = &call["explanation"]["attributes"]["agent"];
        format!("{}@{}", agent["name"].as_str().expect("a name"), agent["version"].as_str().expect("a version"))
    };
    assert_eq!(said("one"), "I was refused.", "a version without evidence has no score");
    let agent = seen("one");
    let explained = || windlass(&["trust", "explain", &agent]).json();
    let first = explained();
    assert_eq!((&first["trust"], &first["computed"]), (&json!(40), &json!(true)), "{first}");
    let denied = first["reckoning"]["runs"][0].clone();
    assert_eq!(
        (&denied["what"], &denied["count"], &first["reckoning"]["evidence"]),
        (&json!("denied"), &json!(1), &json!(2))
    );
    let tested = windlass(&["test", "payer.test.yml", "--record"]);
    assert_eq!(tested.code(), 0, "{}", tested.shown());
    assert_eq!(tested.json()["recorded"][&agent]["passed"], 1, "{}", tested.shown());
    assert_eq!(explained()["trust"], 100);
    assert_eq!(said("two"), "Paid.");
    let incident = |severity: &str| {
        windlass(&["trust", "incident", &agent, "--severity", severity, "--reason", "paid twice", "--by", "ada"]).json()
    };
    let major = incident("major");
    assert_eq!((&major["changed"][0]["before"], &major["changed"][0]["after"]), (&json!(100), &json!(75)), "{major}");
    incident("critical");
    assert_eq!(said("three"), "I was refused.");
    assert_eq!(explained()["incidents"].as_array().map(Vec::len), Some(2));
    // What a person sets stays, until a person gives it back.
    assert_eq!(windlass(&["trust", "set", &agent, "90", "--by", "ada", "--reason", "mended"]).code(), 0);
    assert_eq!(incident("minor")["changed"], json!([]));
    assert_eq!(said("four"), "Paid.");
    assert_eq!(windlass(&["trust", "compute"]).json()["changed"], json!([]));
    assert_eq!(windlass(&["trust", "auto", &agent, "--by", "ada", "--reason", "over"]).json()["trust"], 0);
    assert_eq!(said("five"), "I was refused.");
    let acts = windlass(&["audit", "acts"]).json();
    let rows = acts["rows"].as_array().expect("acts");
    let of = |action: &str| {
        let mut of: Vec<&str> =
            rows.iter().filter(|act| act["action"] == action).filter_map(|act| act["detail"].as_str()).collect();
        of.sort_unstable();
        of
    };
    let computed = of("trust.compute");
    assert_eq!(computed.len(), 4, "{computed:?}");
    assert!(computed.iter().any(|detail| detail.starts_with("75; before: 100; ")), "{computed:?}");
    assert!(computed.iter().any(|detail| detail.starts_with("40; before: none; ")), "{computed:?}");
    assert_eq!(
        (of("trust.incident").len(), of("trust.record"), of("trust.auto").len()),
        (3, vec!["1 cases passed, 0 failed"], 1)
    );
    // Another prompt is another version, which nobody knows anything about.
    let machine = std::fs::read_to_string(place.path("payer.yml")).expect("read");
    place.write("payer.yml", &machine.replacen("user: ", "user: Please ", 1));
    assert_eq!(said("six"), "I was refused.");
    assert_ne!(seen("six"), agent);
    assert_eq!(windlass(&["trust", "explain", &seen("six")]).json()["reckoning"]["tests"][0]["count"], 0);
}

#[test]
fn what_is_no_evidence_is_refused() {
    let place = place();
    let version = "clerk@0123456789ab";
    let refused: [&[&str]; 4] = [
        &["trust", "explain", "clerk"],
        &["trust", "incident", version, "--severity", "bad", "--reason", "r", "--by", "ada"],
        &["trust", "incident", version, "--severity", "minor", "--reason", " ", "--by", "ada"],
        &["trust", "auto", "clerk", "--reason", "r", "--by", "ada"],
    ];
    for args in refused {
        assert_eq!(place.windlass(args).code(), 2, "{args:?}");
    }
    place.write("windlass.toml", &format!("{CONFIG}[trust]\nhalf_life_days = 0\n"));
    assert!(place.windlass(&["trust", "list"]).stderr().contains("trust.half_life_days"));
}
