//! `windlass versions`: published, compared, run by name, rolled back while runs go on, and what a run says it is made of.
//! On the store that `WINDLASS_TEST_STORE` names.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use serde_json::{Value as Json, json};

use crate::kit::{Place, Ran, assert_shown, command};

/// Asks, waits, and asks again: what it says tells which prompt it has.
const DESK: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: desk
  agents: {clerk: agents/clerk.yml}
  states:
    ask: {type: initial, agent: clerk, output_to_context: {first: output.content}, transitions: [{to: wait}]}
    wait: {wait_for: "go/{{ context.machine.execution_id }}", transitions: [{to: again}]}
    again: {agent: clerk, output_to_context: {second: output.content}, transitions: [{to: done}]}
    done: {type: final, output: {first: context.first, second: context.second}}
"#;

const SCRIPT: &str = r"rules:
  - {agent: clerk, match: Be kind, reply: {content: kind}}
  - {agent: clerk, match: Be short, reply: {content: short}}
";

const OPEN: &str = "permit (principal, action, resource);\n";

fn place() -> Place {
    let place = Place::new();
    place.write("desk.yml", DESK);
    place.write("script.yml", SCRIPT);
    place.write("windlass.toml", "[providers.scripted]\nscript = \"script.yml\"\n");
    std::fs::create_dir(place.path("agents")).expect("a folder");
    prompt(&place, "Be kind.");
    place
}

fn prompt(place: &Place, text: &str) {
    let agent = format!(
        "spec: flatagent\nspec_version: \"4.2.1\"\ndata:\n  name: clerk\n  model: {{provider: scripted, name: small, max_tokens: \
         100}}\n  user: {text}\n"
    );
    place.write("agents/clerk.yml", &agent);
}

fn windlass(place: &Place, args: &[&str]) -> Ran {
    place.windlass(&[args, &["--store", place.store()]].concat())
}

fn ok(place: &Place, args: &[&str]) -> Json {
    let ran = windlass(place, args);
    assert_eq!(ran.code(), 0, "{args:?}\n{}", ran.shown());
    ran.json()
}

/// The code and the message of a refused command.
fn refused(place: &Place, args: &[&str], exit: i32) -> (String, String) {
    let ran = windlass(place, args);
    assert_eq!(ran.code(), exit, "{args:?}\n{}", ran.shown());
    let error = ran.json()["error"].clone();
    (error["code"].as_str().expect("a code").to_owned(), error["message"].as_str().expect("text").to_owned())
}

/// Publishes the desk with a prompt.
fn publish(place: &Place, text: &str) -> Json {
    prompt(place, text);
    ok(place, &["versions", "publish", "desk", "desk.yml", "--by", "ann", "--note", text])
}

/// Begins a run, which waits then.
fn begin(place: &Place, machine: &str, run: &str) {
    let ran = windlass(place, &["run", machine, "--run-id", run, "--wait", "0s"]);
    assert_eq!(ran.code(), 7, "{}", ran.shown());
}

fn go_on(place: &Place, run: &str) -> Json {
    ok(place, &["signal", &format!("go/{run}")]);
    ok(place, &["resume", run])
}

#[test]
fn a_rollback_is_for_runs_that_start_then_and_touches_none_in_flight() {
    let place = place();
    assert_eq!(publish(&place, "Be kind.")["id"], "desk@1");
    begin(&place, "desk@", "old");
    assert_eq!(publish(&place, "Be short.")["id"], "desk@2");
    begin(&place, "desk@", "new");
    begin(&place, "desk@1", "pinned");
    let moved = ok(&place, &["versions", "rollback", "desk", "--by", "bob"]);
    assert_eq!((&moved["from"], &moved["current"], &moved["latest"]), (&json!(2), &json!(1), &json!(2)));
    begin(&place, "desk@", "back");
    prompt(&place, "Nobody knows what to say.");
    std::fs::remove_file(place.path("desk.yml")).expect("gone");
    let said = |word: &str| json!({"first": word, "second": word});
    for (run, word, version) in [
        ("old", "kind", "desk@1"),
        ("new", "short", "desk@2"),
        ("pinned", "kind", "desk@1"),
        ("back", "kind", "desk@1"),
    ] {
        assert_eq!(go_on(&place, run), said(word), "{run}");
        let shown = ok(&place, &["runs", "show", run]);
        assert_eq!((&shown["hashes"]["published"], &shown["tags"]["version"]), (&json!(version), &json!(version)));
    }
    let of_two = ok(&place, &["runs", "list", "--tag", "version=desk@2"]);
    assert_eq!(of_two["runs"].as_array().map(Vec::len), Some(1), "{of_two}");

    let acts = ok(&place, &["audit", "acts"]);
    let text = |act: &Json, key: &str| act[key].as_str().unwrap_or_default().to_owned();
    let told: Vec<String> = acts["rows"]
        .as_array()
        .expect("acts")
        .iter()
        .map(|act| ["action", "subject", "actor", "detail"].map(|key| text(act, key)).join(" | "))
        .collect();
    for act in [
        "version.publish | desk | ann | desk.yml: Be short.; before: 1",
        "version.rollback | desk | bob | to the one before; before: 2",
    ] {
        assert!(told.iter().any(|it| it == act), "{told:?}");
    }
}

#[test]
fn tags_that_windlass_gives_and_what_is_no_name_are_refused_with_what_to_write() {
    let place = place();
    publish(&place, "Be kind.");
    // Runs of a file neither: who looks for the runs of a version finds those alone.
    for (machine, tag) in [("desk@", "version=mine"), ("desk.yml", "version=desk@2"), ("desk.yml", "schedule=x")] {
        let (_, why) = refused(&place, &["run", machine, "--tag", tag], 2);
        assert!(why.contains("is given by windlass alone"), "{why}");
    }
    let (_, why) = refused(&place, &["run", "desk.yml", "--tag", "windlass.call=pay"], 2);
    assert!(why.contains("`windlass.call` is given by windlass alone"), "{why}");
    for (args, hint) in [
        (vec!["versions", "list", "desk@"], "write the name alone: `desk`"),
        (vec!["versions", "diff", "desk@1", "2"], "windlass versions rollback desk --to 1"),
        (vec!["versions", "rollback", "desk@1", "--by", "ann"], "windlass versions rollback desk --to 1"),
        (vec!["versions", "list", "./desk.yml"], "`windlass versions list` shows the names"),
    ] {
        let ran = windlass(&place, &args);
        assert_eq!(ran.code(), 2, "{args:?}: {}", ran.shown());
        assert!(ran.shown().contains(hint), "{args:?}: {}", ran.shown());
    }
}

#[test]
fn versions_are_listed_shown_and_compared() {
    let place = place();
    let first = publish(&place, "Be kind.");
    let again = ok(&place, &["versions", "publish", "desk", "desk.yml"]);
    assert_eq!(
        (&again["published"], &again["id"], &again["sources"]),
        (&json!(false), &json!("desk@1"), &first["sources"])
    );
    publish(&place, "Be short.");
    ok(&place, &["versions", "publish", "live", "desk@1", "--by", "ann"]);
    let names = ok(&place, &["versions", "list", "--limit", "1"]);
    assert_eq!((&names["names"][0]["name"], &names["next"]), (&json!("desk"), &json!("desk")));
    let rest = ok(&place, &["versions", "list", "--cursor", "desk"]);
    assert_eq!((&rest["names"][0]["name"], &rest["next"]), (&json!("live"), &Json::Null));
    let page = ok(&place, &["versions", "list", "desk", "--limit", "1"]);
    assert_eq!((&page["versions"][0]["number"], &page["next"]), (&json!(2), &json!("2")));
    let page = ok(&place, &["versions", "list", "desk", "--cursor", "2"]);
    assert_eq!((&page["versions"][0]["note"], &page["next"]), (&json!("Be kind."), &Json::Null));

    let shown = ok(&place, &["versions", "show", "desk@1"]);
    assert_eq!((&shown["current"], &shown["latest"], &shown["entry"]), (&json!(false), &json!(2), &json!("desk.yml")));
    assert_eq!(shown["files"]["desk.yml"]["text"], DESK);
    assert_eq!(ok(&place, &["versions", "show", "live"])["sources"], first["sources"], "the content is the same");
    let (_, why) = refused(&place, &["versions", "show", "desk@1", "--file", "no.yml"], 4);
    assert!(why.contains("has no document"), "{why}");

    let diff = ok(&place, &["versions", "diff", "desk", "1", "2"]);
    assert_eq!((&diff["same"], diff["files"].as_array().map(Vec::len)), (&json!(false), Some(1)));
    assert_eq!(diff["files"][0]["path"], "agents/clerk.yml");
    let lines = diff["files"][0]["diff"].as_str().expect("lines");
    assert!(lines.contains("-  user: Be kind.\n+  user: Be short.\n"), "{lines}");
    assert_eq!((&diff["agents"][0]["agent"], &diff["agents"][0]["change"]), (&json!("clerk"), &json!("changed")));
    assert_eq!(ok(&place, &["versions", "diff", "desk", "2"])["same"], true, "with the one that the name means");
    let text = |args: &[&str]| place.with(&[args, &["--store", place.store(), "--plain"]].concat(), |_| {});
    assert_shown!(text(&["versions", "diff", "desk", "1", "2"]));
    let listed = text(&["versions", "list", "desk"]).stdout();
    let current: Vec<&str> = listed.lines().filter(|line| line.contains(" current ")).collect();
    assert!(current.len() == 1 && current[0].starts_with("desk@2"), "{listed}");
    assert_shown!(text(&["versions", "show", "desk@1"]));
}

#[test]
fn what_cannot_be_named_or_found_is_told_with_the_way_out() {
    let place = place();
    let (code, why) = refused(&place, &["run", "desk@"], 4);
    assert_eq!((code.as_str(), why.as_str()), ("cli.not_found", "nothing is published as `desk`"));
    publish(&place, "Be kind.");
    for (args, exit, says) in [
        (&["run", "desk@2"][..], 4, "`desk` has no version 2"),
        (&["versions", "publish", "a b", "desk.yml"], 2, "cannot name versions"),
        (&["versions", "publish", "desk", "desk.yml", "--by", " "], 2, "by somebody"),
        (&["versions", "publish", "desk", "no.yml"], 2, "not valid"),
        (&["versions", "rollback", "desk"], 4, "its first version"),
        (&["versions", "rollback", "desk", "--to", "7"], 4, "no version 7"),
        (&["versions", "rollback", "none"], 4, "nothing is published"),
        (&["versions", "show", "a b"], 2, "names no version"),
        (&["versions", "list", "desk", "--cursor", "x"], 2, "no number"),
        (&["schedules", "add", "s", "none@", "--every", "1h"], 4, "nothing is published"),
    ] {
        let (_, why) = refused(&place, args, exit);
        assert!(why.contains(says), "{args:?}: {why}");
    }
    let key = DESK.replace("agents/clerk.yml", "{spec: flatagent, spec_version: \"4.2.1\", data: {name: clerk, model: {provider: openai, name: m, api_key: sk-1234567890}, user: x}}");
    place.write("key.yml", &key);
    refused(&place, &["versions", "publish", "key", "key.yml"], 2);
    assert_eq!(ok(&place, &["validate", "desk@1"])["valid"], true);
    ok(&place, &["graph", "desk@1", "--json"]);
}

#[test]
fn a_version_is_held_to_what_is_configured_where_it_runs() {
    let place = place();
    // The second way is never taken, of which the validator warns.
    place.write("desk.yml", &DESK.replace("transitions: [{to: wait}]", "transitions: [{to: wait}, {to: done}]"));
    ok(&place, &["versions", "publish", "desk", "desk.yml"]);
    begin(&place, "desk@", "lax");
    let strict = "[documents]\nstrict = true\n[providers.scripted]\nscript = \"script.yml\"\n";
    place.write("windlass.toml", strict);
    let (code, _) = refused(&place, &["run", "desk@"], 2);
    assert_eq!(code, "spec.invalid", "warnings are errors here, wherever it was published");
}

#[test]
fn each_run_of_a_schedule_is_of_the_version_that_its_name_means_then() {
    let place = place();
    publish(&place, "Be kind.");
    let add = ["schedules", "add", "desk", "desk@", "--every", "1h", "--paused", "--overlap", "allow"];
    assert_eq!(ok(&place, &add)["version"], "desk@");
    ok(&place, &["schedules", "add", "pinned", "desk@1", "--every", "1h", "--paused", "--overlap", "allow"]);
    let run = |schedule: &str| -> String {
        let started = ok(&place, &["schedules", "run-now", schedule]);
        let id = started["run_id"].as_str().expect("an id").to_owned();
        assert_eq!(windlass(&place, &["resume", &id, "--wait", "0s"]).code(), 7);
        id
    };
    let first = run("desk");
    publish(&place, "Be short.");
    let (second, pinned) = (run("desk"), run("pinned"));
    ok(&place, &["versions", "rollback", "desk"]);
    let third = run("desk");
    for (id, word, version) in [(&first, "kind", 1), (&second, "short", 2), (&pinned, "kind", 1), (&third, "kind", 1)] {
        assert_eq!(go_on(&place, id)["second"], word, "{id}");
        let shown = ok(&place, &["runs", "show", id]);
        assert_eq!(shown["hashes"]["published"], format!("desk@{version}"), "{id}");
    }
    assert_eq!(ok(&place, &["fsck"])["ok"], true);
}

#[test]
fn a_version_outlives_the_runs_that_were_made_of_it() {
    let place = place();
    publish(&place, "Be kind.");
    begin(&place, "desk@", "old");
    go_on(&place, "old");
    publish(&place, "Be short.");
    ok(&place, &["runs", "prune", "--older-than", "0s"]);
    assert_eq!(windlass(&place, &["runs", "show", "old"]).code(), 4, "it is gone");
    begin(&place, "desk@1", "again");
    assert_eq!(go_on(&place, "again")["second"], "kind");
}

#[test]
fn processes_that_publish_at_one_moment_get_a_number_each() {
    let place = place();
    publish(&place, "Be kind.");
    let mut made: Vec<Child> = Vec::new();
    for i in 0..6 {
        place.write(&format!("desk{i}.yml"), &DESK.replace("name: desk", &format!("name: desk{i}")));
        let mut publish = command(&place.path(""));
        publish.args(["versions", "publish", "desk", &format!("desk{i}.yml"), "--json", "--store", place.store()]);
        made.push(publish.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process"));
    }
    let mut numbers = BTreeSet::new();
    for (i, child) in made.into_iter().enumerate() {
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let version: Json = serde_json::from_slice(&output.stdout).expect("a version");
        let number = version["number"].as_u64().expect("a number");
        let shown = ok(&place, &["versions", "show", &format!("desk@{number}")]);
        assert_eq!(shown["machine"], format!("desk{i}"), "what was told is what is there");
        numbers.insert(number);
    }
    assert_eq!(numbers, (2..=7).collect());
    assert_eq!(ok(&place, &["versions", "list", "desk"])["latest"], 7);
}

#[test]
fn a_run_says_what_it_is_made_of_and_decided_under() {
    let place = place();
    std::fs::create_dir(place.path("rules")).expect("a folder");
    place.write("rules/open.cedar", OPEN);
    let config = "[policy]\npath = \"rules\"\n[providers.scripted]\nscript = \"script.yml\"\n";
    place.write("windlass.toml", config);
    begin(&place, "desk.yml", "r");
    let before = ok(&place, &["runs", "show", "r"])["hashes"].clone();
    assert_eq!(before["published"], Json::Null);
    let hex = |value: &Json| value.as_str().is_some_and(|hash| hash.len() == 64);
    assert_eq!(before["machine"], "desk.yml");
    for path in ["desk.yml", "agents/clerk.yml"] {
        assert!(hex(&before["files"][path]), "{before}");
    }
    assert!(hex(&before["bundle"]) && hex(&before["agents"]["desk.yml"]["clerk"]), "{before}");
    let under = &before["began_under"];
    assert!(hex(&under["prices"]) && hex(&under["config"]) && under["policy"].is_string(), "{before}");
    assert_eq!((under, under.get("models")), (&before["under"], None));

    place.write("rules/open.cedar", &format!("{OPEN}// another set\n"));
    place.write("models.yml", "models: []\n");
    place.write("windlass.toml", &format!("models = \"models.yml\"\n{config}[limits]\nsteps = 50\n"));
    go_on(&place, "r");
    let after = ok(&place, &["runs", "show", "r"])["hashes"].clone();
    for same in ["bundle", "files", "agents", "began_under"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    assert_ne!(after["under"]["policy"], under["policy"]);
    assert_ne!(after["under"]["config"], under["config"]);
    assert_eq!((hex(&after["under"]["models"]), &after["under"]["prices"]), (true, &under["prices"]));
    let journal = windlass(&place, &["runs", "journal", "r"]).stdout();
    let noted = journal.lines().filter(|line| line.contains("\"basis\"")).count();
    assert_eq!(noted, 2, "once when it began, and once when it changed\n{journal}");
}
