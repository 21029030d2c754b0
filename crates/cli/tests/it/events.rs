//! The public view of a run: every event fits the published schema, what ends something says how long it took, and whoever
//! reads the journal later is told the same.

use serde_json::Value as Json;

use super::kit::Place;

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: busy
  settings:
    tables:
      ways: {inputs: {n: {type: number, from: input.n}}, outputs: {next: state}, rows: [{n: "< 3", next: ask}, {next: done}]}
  agents:
    writer: {spec: flatagent, spec_version: "4.2.1", data: {name: writer, model: {provider: scripted, name: small}, user: Write.}}
    flaky: {spec: flatagent, spec_version: "4.2.1", data: {name: flaky, model: {provider: scripted, name: small}, user: Fail.}}
  machines:
    child: {spec: flatmachine, spec_version: "4.2.1", data: {name: child, states: {s: {type: final, output: {r: 1}}}}}
  states:
    begin: {type: initial, agent: writer, transitions: [{to: route}]}
    route: {action: ways, transitions: [{to: ask}, {to: done}]}
    ask: {agent: flaky, execution: {type: retry, backoffs: [0.01], jitter: 0}, on_error: below}
    below: {machine: child, transitions: [{to: wait}]}
    wait: {wait_for: go, transitions: [{to: done}]}
    done: {type: final}
"#;

const SCRIPT: &str = "rules:\n  - agent: writer\n    reply: {content: Done.}\n  - agent: flaky\n    reply: {status: 503, error: {message: busy}}\n";

fn read(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).expect("one event a line")).collect()
}

#[test]
fn every_event_of_a_whole_run_fits_the_published_schema_and_ends_say_how_long_it_took() {
    let place = Place::new();
    place.write("busy.yml", MACHINE);
    place.write("script.yml", SCRIPT);
    let run = ["run", "busy.yml", "--run-id", "one", "--input", r#"{"n":1}"#];
    let parked = place.windlass(&[&run[..], &["--events", "first.jsonl"]].concat());
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    assert_eq!(place.windlass(&["signal", "go", "--data", "{}"]).code(), 0);
    let resumed = place.windlass(&["resume", "one", "--events", "second.jsonl"]);
    assert_eq!(resumed.code(), 0, "{}", resumed.shown());
    let file = |name: &str| std::fs::read_to_string(place.path(name)).expect("events");
    let events = read(&(file("first.jsonl") + &file("second.jsonl")));

    let published = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schemas/events.schema.json");
    let schema: Json = serde_json::from_str(&std::fs::read_to_string(published).expect("the schema")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for event in &events {
        let wrong: Vec<String> = validator.iter_errors(event).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{event}: {wrong:?}");
    }
    let mut bare = events[0].clone();
    bare.as_object_mut().expect("an event").remove("run_id");
    assert!(!validator.is_valid(&bare), "the schema asks for something");

    let of_one: Vec<&Json> = events.iter().filter(|event| event["run_id"] == "one").collect();
    let has = |kind: &str| of_one.iter().any(|event| event["event"] == kind);
    let ends = ["call_settled", "attempt_failed", "transition", "child_settled", "signal_received", "run_completed"];
    for kind in ends.iter().chain(&["row_fired", "failure_raised"]) {
        assert!(has(kind), "{kind}: {events:#?}");
    }
    for event in events.iter().filter(|event| ends.contains(&event["event"].as_str().expect("a kind"))) {
        assert!(event["duration_ms"].is_u64(), "{event}");
    }
    let at = |kind: &str, key: &str| {
        of_one.iter().find(|event| event["event"] == kind).and_then(|event| event[key].as_u64()).expect("a number")
    };
    assert_eq!(at("run_completed", "duration_ms"), at("run_completed", "at") - at("run_started", "at"));
    assert_eq!(at("signal_received", "duration_ms"), at("signal_received", "at") - at("wait_opened", "at"));

    let told = place.windlass(&["runs", "watch", "one", "--once", "--json"]);
    assert_eq!(told.code(), 0, "{}", told.shown());
    let told = read(&told.stdout());
    let told: Vec<&Json> = told.iter().collect();
    assert_eq!(told, of_one, "who reads the journal later is told the same");
}
