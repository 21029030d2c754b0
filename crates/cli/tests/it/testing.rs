//! `windlass test`: passes, differences, JUnit, updates, and speed.

use serde_json::json;

use crate::kit::Place;

const TESTS: &str = "machine: asks.yml
script: script.yml
cases:
  # a comment that stays
  - name: it writes
    input: { topic: tides }
    expect:
      output: { text: Tides turn twice a day. }
      states: [write, done]
      effects: { model.writer: 1 }
      tokens_max: 28
  - name: it is wrong
    input: { topic: tides }
    expect:
      output: { text: No. }
      states: [write]
";

#[test]
fn differences_are_named_and_can_be_taken_over() {
    let place = Place::new();
    place.write("tests.yml", TESTS);
    let ran = place.windlass(&["test", "--junit", "report.xml"]);
    assert_eq!(ran.code(), 3, "{}", ran.shown());
    assert_eq!((&ran.json()["passed"], &ran.json()["failed"]), (&json!(1), &json!(1)));
    assert!(ran.stderr().contains("output.text: expected \"No.\""), "{}", ran.stderr());
    let junit = std::fs::read_to_string(place.path("report.xml")).expect("report");
    assert!(junit.contains("tests=\"2\" failures=\"1\""), "{junit}");
    assert_eq!(place.windlass(&["test", "--filter", "writes"]).code(), 0);
    assert_eq!(place.windlass(&["test", "--update"]).code(), 0);
    let text = std::fs::read_to_string(place.path("tests.yml")).expect("tests");
    assert!(text.contains("# a comment that stays"), "{text}");
    let again = place.windlass(&["test"]);
    assert_eq!(again.code(), 0, "{}{text}", again.shown());
}

#[test]
fn signals_and_timers_need_no_real_time() {
    let place = Place::new();
    place.write(
        "waits.test.yml",
        "cases:
  - name: approved
    input: { order: 3 }
    signals: [{ channel: approvals/3, data: { approved: true } }]
    expect: { output: { approved: true } }
  - name: nobody answers
    input: { order: 3 }
    expect: { status: waiting, waits: [approvals/3] }
",
    );
    let ran = place.windlass(&["test", "waits.test.yml"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
}

#[test]
fn a_hundred_cases_are_quick() {
    let place = Place::new();
    let mut text = String::from("machine: asks.yml\nscript: script.yml\ncases:\n");
    for n in 0..100 {
        text.push_str(&format!(
            "  - name: case {n}\n    input: {{ topic: t{n} }}\n    expect: {{ states: [write, done] }}\n"
        ));
    }
    place.write("tests.yml", &text);
    let begun = std::time::Instant::now();
    let ran = place.windlass(&["test"]);
    assert_eq!((ran.code(), &ran.json()["passed"]), (0, &json!(100)), "{}", ran.shown());
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}

#[test]
fn a_test_file_with_a_mistake_is_refused() {
    let place = Place::new();
    place.write("tests.yml", "cases:\n  - name: a\n    expcet: {}\n");
    let ran = place.windlass(&["test"]);
    assert_eq!(ran.code(), 2);
    assert!(ran.stderr().contains("expcet"), "{}", ran.stderr());
    assert_eq!(place.windlass(&["test", "nowhere"]).code(), 2);
}
