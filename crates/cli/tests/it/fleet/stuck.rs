//! Runs that do not go on, for every reason that can be made to happen: `windlass runs stuck` names it.

use std::fs;

use serde_json::{Value as Json, json};

use super::Fleet;

const CONFIGURATION: &str = r#"[providers.scripted]
script = "script.yml"

[actions.ask]
type = "command"
command = ["/bin/echo", "{}"]
class = "write"
idempotency = "key"
approval = "always"

[actions.hang]
type = "command"
command = ["/bin/sh", "-c", "touch hangs; exec sleep 600"]
timeout_ms = 600000
class = "read"
idempotency = "natural"

[actions.doubt]
type = "command"
command = ["/bin/sh", "-c", "kill -9 $PPID; sleep 600"]
class = "write"
idempotency = "none"
on_unknown = "ask"

[actions.poison]
type = "command"
command = ["/bin/sh", "-c", "kill -9 $PPID; sleep 600"]
class = "read"
idempotency = "natural"
"#;

fn fleet() -> Fleet {
    let fleet = Fleet::new();
    fleet.write("windlass.toml", CONFIGURATION);
    fleet.write("script.yml", "default: {status: 503}\n");
    let machine = |name: &str, start: &str| {
        let text = format!(
            "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: {name}\n  agents:\n    a: {{spec: flatagent, \
             spec_version: \"4.2.1\", data: {{model: {{provider: scripted, name: m}}, system: s, user: u}}}}\n  states:\n    \
             start: {{type: initial, {start}, transitions: [{{to: end}}]}}\n    end: {{type: final, output: {{ok: true}}}}\n"
        );
        fleet.write(&format!("{name}.yml"), &text);
    };
    for action in ["ask", "hang", "doubt", "poison"] {
        machine(action, &format!("action: {action}"));
    }
    machine("waits", "wait_for: go/1");
    machine("limited", "wait_for: go/2, timeout: 3600");
    machine("retries", "agent: a, execution: {type: retry, backoffs: [3600]}");
    fleet
}

/// The cause that is named for a run, and the next step.
fn stuck(fleet: &Fleet, run: &str) -> Option<(String, String)> {
    let told = fleet.run(&["runs", "stuck", "--older", "0s", "--json"]);
    let found = told.json()["runs"].as_array().expect("runs").iter().find(|found| found["run_id"] == run).cloned()?;
    let word = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    assert!(!word("next_step").is_empty() && !word("since").is_empty(), "{found}");
    Some((word("cause"), word("next_step")))
}

fn cause(fleet: &Fleet, run: &str) -> Option<String> {
    stuck(fleet, run).map(|(cause, _)| cause)
}

fn parks(fleet: &Fleet, machine: &str) {
    let ran = fleet.run(&["run", &format!("{machine}.yml"), "--run-id", machine, "--wait", "0s"]);
    assert_eq!(ran.code(), 7, "{}", ran.shown());
}

#[test]
fn what_waits_for_people_says_for_whom() {
    let fleet = fleet();
    for machine in ["waits", "limited", "ask", "retries"] {
        parks(&fleet, machine);
    }
    let expected = [("waits", "signal", "windlass signal go/1"), ("ask", "approval", "windlass approvals show")];
    for (run, cause, next) in expected {
        let (found, step) = stuck(&fleet, run).expect("stuck");
        assert_eq!(found, cause);
        assert!(step.starts_with(next), "{step}");
    }
    assert_eq!(cause(&fleet, "retries").as_deref(), Some("retrying"));
    assert_eq!(cause(&fleet, "limited"), None, "it goes on by itself");
    fleet.run(&["runs", "pause", "waits"]);
    let (paused, step) = stuck(&fleet, "waits").expect("stuck");
    assert_eq!((paused.as_str(), step.as_str()), ("paused", "windlass runs unpause waits"));
    let old = fleet.run(&["runs", "stuck", "--older", "1h", "--json"]).json();
    assert_eq!(old["runs"], json!([]), "all have changed within the hour");
}

#[test]
fn what_took_its_worker_down_is_told_from_what_is_in_doubt() {
    let fleet = fleet();
    assert_eq!(fleet.run(&["run", "doubt.yml", "--run-id", "doubt"]).code(), -1, "its process is killed");
    assert_eq!(fleet.run(&["resume", "doubt"]).code(), 7);
    let (found, step) = stuck(&fleet, "doubt").expect("stuck");
    assert_eq!(found, "outcome_unknown");
    assert!(step.contains("happened"), "{step}");
    fleet.submit("poison.yml", "poison", &[]);
    let quarantined = fleet.until_all("the run is quarantined", || {
        fleet.run(&["resume", "poison"]);
        stuck(&fleet, "poison").filter(|(cause, _)| cause == "quarantined")
    });
    assert_eq!(quarantined.1, "windlass runs requeue poison");
    let parked = fleet.run(&["resume", "poison"]);
    assert!(parked.stderr().contains("go on with: windlass runs requeue poison"), "{}", parked.shown());
    let unpaused = fleet.run(&["runs", "unpause", "poison"]);
    assert_eq!(unpaused.code(), 4, "{}", unpaused.shown());
}

#[test]
fn what_nobody_takes_says_what_workers_lack() {
    let fleet = fleet();
    fleet.submit("hang.yml", "first", &[]);
    assert_eq!(cause(&fleet, "first").as_deref(), Some("no_worker"));
    let elsewhere = fleet.start(&["worker", "--pool", "gpu"]);
    assert_eq!(cause(&fleet, "first").as_deref(), Some("no_worker_for_pool"));
    drop(elsewhere);
    // With one claim slot it claims one run at a time, and so none beyond what it knows that it can call for.
    fleet.write("windlass.toml", &format!("{CONFIGURATION}\n[worker]\ncall_slots = 1\nclaim_slots = 1\n"));
    let worker = fleet.start(&["worker"]);
    fleet.until_all("the call is out", || fs::exists(fleet.place.path("hangs")).expect("the folder").then_some(()));
    let out = |run: &str, wanted: &str| {
        fleet.until_all(&format!("`{run}` is stuck by `{wanted}`"), || {
            cause(&fleet, run).filter(|found| found == wanted)
        })
    };
    out("first", "call_out");
    // It claims a few more, whose calls wait for the slot, and leaves the rest in the queue.
    let more: Vec<String> = (0..8).map(|number| format!("more-{number}")).collect();
    more.iter().for_each(|run| fleet.submit("hang.yml", run, &[]));
    fleet.until_all("a run is left because its worker is busy", || {
        more.iter().any(|run| cause(&fleet, run).as_deref() == Some("workers_busy")).then_some(())
    });
    drop(worker);
    out("first", "worker_lost");
}

#[test]
fn pages_and_filters() {
    let fleet = fleet();
    for run in 0..5 {
        fleet.submit("waits.yml", &format!("r{run}"), &["--tenant", if run == 0 { "a" } else { "b" }]);
    }
    let listed =
        |more: &[&str]| -> Json { fleet.run(&[&["runs", "stuck", "--older", "0s", "--json"], more].concat()).json() };
    let first = listed(&["--limit", "2"]);
    assert_eq!(first["runs"].as_array().map(Vec::len), Some(2));
    let next = first["next"].as_str().expect("another page");
    let rest = listed(&["--limit", "10", "--cursor", next]);
    assert_eq!((rest["runs"].as_array().map(Vec::len), &rest["next"]), (Some(3), &Json::Null));
    assert_eq!(listed(&["--tenant", "a"])["runs"].as_array().map(Vec::len), Some(1));
    assert_eq!(listed(&["--machine", "other"])["runs"], json!([]));
}
