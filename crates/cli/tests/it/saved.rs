//! Files that go through a run: given at its start, checked, and written from its output.

use super::kit::Place;

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: copier
  context: {photo: "{{ input.photo }}"}
  states:
    start: {type: initial, transitions: [{to: done}]}
    done: {type: final, output: {copy: context.photo}}
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("copier.yml", MACHINE);
    place
}

#[test]
fn a_file_of_an_output_is_written_to_disk_once() {
    let place = place();
    place.write("photo.csv", "a,b\n");
    let ran = place.windlass(&["run", "copier.yml", "--run-id", "one", "--file", "photo=photo.csv"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    for _ in 0..2 {
        let saved = place.windlass(&["runs", "show", "one", "--save", "out", "--json"]).json();
        let file = &saved["saved"][0];
        assert_eq!((&file["path"], &file["bytes"]), (&"out/photo.csv".into(), &4.into()), "{saved}");
        assert_eq!(file["sha256"], saved["run"]["ending"]["completed"]["output"]["copy"]["$file"]["sha256"], "{saved}");
        assert_eq!(std::fs::read_to_string(place.path("out/photo.csv")).expect("written"), "a,b\n");
    }
    let shown = place.windlass(&["runs", "show", "one", "--save", "photo.csv"]);
    assert_eq!(shown.code(), 4, "a file is no folder: {}", shown.shown());
}

#[test]
fn an_input_with_a_file_that_is_another_is_refused() {
    let place = place();
    for said in [r#""sha256": "00""#, r#""bytes": 9"#, r#""mime": "image/png""#] {
        let input = format!(r#"{{"photo": {{"$file": {{"name": "a.txt", "data": "YWJj", {said}}}}}}}"#);
        let refused = place.windlass(&["run", "copier.yml", "--input", &input]);
        assert_eq!(refused.code(), 2, "{}", refused.shown());
        assert!(refused.stderr().contains("the input holds the file `a.txt`"), "{}", refused.shown());
    }
    let listed = place.windlass(&["runs", "list", "--json"]).json();
    assert!(listed["runs"].as_array().is_some_and(Vec::is_empty), "{listed}");
}
