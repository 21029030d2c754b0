//! `windlass signal`: whom it is for, and what it may say.

use serde_json::json;

use crate::kit::Place;

const PARENT: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: parent
  machines: {a: ./child.yml, b: ./child.yml}
  states:
    a: {type: initial, machine: [a, b], output_to_context: {all: output}, transitions: [{to: end}]}
    end: {type: final, output: {all: context.all}}
"#;
const CHILD: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: child
  states:
    a: {type: initial, wait_for: "c/1", output_to_context: {got: output}, transitions: [{to: end}]}
    end: {type: final, output: {got: context.got}}
"#;

#[test]
fn a_signal_for_a_run_reaches_the_one_below_it_that_waits() {
    let place = Place::new();
    place.write("parent.yml", &PARENT.replace("[a, b]", "a"));
    place.write("child.yml", CHILD);
    assert_eq!(place.windlass(&["run", "parent.yml", "--run-id", "p", "--wait", "0s"]).code(), 7);
    let sent = place.windlass(&["signal", "c/1", "--run", "p", "--data", "{\"v\":1}"]);
    assert_eq!(sent.json()["signal"], json!("delivered"), "{}", sent.shown());
    assert_eq!(place.windlass(&["resume", "p"]).json(), json!({ "all": { "got": { "v": 1 } } }));
}

#[test]
fn a_signal_that_several_wait_for_below_a_run_names_them() {
    let place = Place::new();
    place.write("parent.yml", PARENT);
    place.write("child.yml", CHILD);
    assert_eq!(place.windlass(&["run", "parent.yml", "--run-id", "p", "--wait", "0s"]).code(), 7);
    let sent = place.windlass(&["signal", "c/1", "--run", "p", "--data", "1"]);
    assert_eq!(sent.code(), 4, "{}", sent.shown());
    assert!(sent.stderr().contains("2 runs below `p` wait on `c/1`: p~1.0, p~1.1"), "{}", sent.shown());
}

#[test]
fn an_answer_about_a_call_in_doubt_says_whether_it_happened() {
    let place = Place::new();
    for data in ["{\"what\":1}", "true", "{\"happened\":\"yes\"}"] {
        let sent = place.windlass(&["signal", "outcome/r#1", "--data", data]);
        assert_eq!(sent.code(), 2, "{}", sent.shown());
        assert!(sent.stderr().contains("happened"), "{}", sent.shown());
    }
}
