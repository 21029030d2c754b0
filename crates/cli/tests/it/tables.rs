//! Decision tables as a user sees them: what a run prints and records, what a drawing shows, what the validator says.

use super::kit::Place;

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: sorter
  context: {n: input.n}
  settings:
    tables:
      sizes: {file: ./sizes.csv, inputs: {n: number}, outputs: {next: state}}
  states:
    start: {type: initial, action: sizes, transitions: [{to: small}, {to: large}]}
    small: {type: final, output: {row: context.sizes.row}}
    large: {type: final, output: {row: context.sizes.row}}
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("sorter.yml", MACHINE);
    place.write("sizes.csv", "id,n,next\ntiny,< 3,small\n,3..5,large\nrest,-,large\n");
    place
}

#[test]
fn a_run_says_which_row_it_went_by() {
    let place = place();
    let args = ["run", "sorter.yml", "--run-id", "one", "--input", r#"{"n": 2}"#, "--events", "events.jsonl"];
    let ran = place.windlass(&args);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    assert!(ran.shown().contains("table sizes: row 1 (tiny) leads to small"), "{}", ran.shown());
    let events = std::fs::read_to_string(place.path("events.jsonl")).expect("events");
    let events: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let fired = events.iter().find(|event| event["event"] == "row_fired").expect("the event");
    let said = ["table", "row", "id", "to", "state"].map(|key| fired[key].clone());
    assert_eq!(serde_json::Value::from(said.to_vec()), serde_json::json!(["sizes", 1, "tiny", "small", "start"]));
    let journal = place.windlass(&["runs", "journal", "one", "--json"]).shown();
    assert!(journal.contains("row_fired") && journal.contains(r#""tiny""#), "{journal}");
    let replayed = place.windlass(&["replay", "one"]);
    assert_eq!(replayed.code(), 0, "{}", replayed.shown());
}

#[test]
fn a_run_keeps_the_table_that_it_began_with() {
    let place = place();
    let parked = MACHINE.replace(
        "    start: {type: initial,",
        "    wait: {type: initial, wait_for: go, transitions: [{to: start}]}\n    start: {",
    );
    place.write("sorter.yml", &parked);
    let parked = place.windlass(&["run", "sorter.yml", "--run-id", "one", "--input", r#"{"n": 2}"#]);
    assert_eq!(parked.code(), 7, "it waits: {}", parked.shown());
    place.write("sizes.csv", "id,n,next\nrest,-,large\n");
    let sent = place.windlass(&["signal", "go", "--data", "{}"]);
    assert_eq!(sent.code(), 0, "{}", sent.shown());
    let resumed = place.windlass(&["resume", "one"]);
    assert_eq!(resumed.code(), 0, "{}", resumed.shown());
    let shown = place.windlass(&["runs", "show", "one", "--json"]).json();
    assert_eq!(shown["run"]["ending"]["completed"]["output"]["row"], 1, "{shown}");
    assert_eq!(shown["run"]["state"], "small", "{shown}");
}

#[test]
fn a_drawing_shows_the_rows_beside_the_ways() {
    let drawn = place().windlass(&["graph", "sorter.yml", "--json"]).json();
    let edges = &drawn["drawing"]["edges"];
    let labels: Vec<_> = edges.as_array().expect("edges").iter().map(|edge| (&edge["to"], &edge["label"])).collect();
    assert_eq!(labels, [(&"small".into(), &"row 1".into()), (&"large".into(), &"row 2, 3".into())]);
    assert_eq!(drawn["drawing"]["nodes"][0]["does"], "table sizes");
}

#[test]
fn a_drawing_shows_where_a_long_conversation_leads() {
    let place = Place::new();
    let machine = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: talker
  settings: {conversation: {on_near: shorten}}
  agents:
    a: {spec: flatagent, spec_version: "4.2.1", data: {prompt: {user: hi}, profile: main}}
  states:
    talk: {type: initial, agent: a, tool_loop: true, transitions: [{to: done}]}
    shorten: {agent: a, transitions: [{to: talk}]}
    done: {type: final}
"#;
    place.write("talker.yml", machine);
    place.write("profiles.yml", "spec: flatprofile\nspec_version: \"4.2.1\"\ndata:\n  default: main\n  model_profiles:\n    main: {provider: scripted, name: m}\n");
    let drawn = place.windlass(&["graph", "talker.yml", "--json"]).json();
    let near: Vec<_> = drawn["drawing"]["edges"]
        .as_array()
        .expect("edges")
        .iter()
        .filter(|edge| edge["kind"] == "near")
        .map(|edge| (edge["from"].clone(), edge["to"].clone(), edge["label"].clone()))
        .collect();
    assert_eq!(near, [("talk".into(), "shorten".into(), "on_near".into())], "{drawn}");
}

#[test]
fn a_cell_that_cannot_be_read_is_shown_with_its_line() {
    let place = place();
    place.write("sizes.csv", "id,n,next\ntiny,small,small\nrest,-,large\n");
    let checked = place.windlass(&["validate", "sorter.yml"]);
    assert_eq!(checked.code(), 2, "{}", checked.shown());
    assert!(checked.shown().contains("sizes.csv:2:6"), "{}", checked.shown());
    assert!(checked.shown().contains("`small` is no number"), "{}", checked.shown());
}
