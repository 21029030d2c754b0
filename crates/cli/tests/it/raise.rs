//! A run's ceilings, raised by a person before the run comes to them.

use serde_json::json;

use super::kit::Place;

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: asker
  settings: {max_model_calls: 1}
  agents:
    clerk:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: clerk
        model: { provider: scripted, name: small, max_tokens: 100 }
        user: Go on.
  states:
    first: {type: initial, agent: clerk, transitions: [{to: wait}]}
    wait: {wait_for: go, transitions: [{to: second}]}
    second: {agent: clerk, output_to_context: {said: output.content}, transitions: [{to: done}]}
    done: {type: final, output: {said: context.said}}
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("asker.yml", MACHINE);
    place.write("script.yml", "rules:\n  - {agent: clerk, reply: {content: Done.}}\n");
    place.write("windlass.toml", "[providers.scripted]\nscript = \"script.yml\"\n");
    place
}

/// Starts a run that waits after its first model call.
fn waiting(place: &Place, run: &str) {
    let parked = place.windlass(&["run", "asker.yml", "--run-id", run]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
}

#[test]
fn a_run_goes_beyond_what_it_was_allowed_after_somebody_raised_it() {
    let place = place();
    for (run, code) in [("as-it-was", 3), ("raised", 0)] {
        waiting(&place, run);
        if code == 0 {
            let raise = ["runs", "raise", run, "model_calls=2", "--by", "ann", "--reason", "month end"];
            let raised = place.windlass(&raise);
            assert_eq!(raised.code(), 0, "{}", raised.shown());
        }
        assert_eq!(place.windlass(&["signal", "go", "--run", run]).code(), 0);
        let ended = place.windlass(&["resume", run]);
        assert_eq!(ended.code(), code, "{run}: {}", ended.shown());
    }
    let journal = place.windlass(&["runs", "journal", "raised"]).stdout();
    assert!(journal.contains("ceilings_changed") && journal.contains("ann"), "{journal}");
    let acts = place.windlass(&["audit", "acts"]).stdout();
    assert!(acts.contains("run.raise") && acts.contains("model_calls=2 month end"), "{acts}");
}

#[test]
fn what_raises_nothing_is_refused() {
    let place = place();
    waiting(&place, "one");
    let refused = |args: &[&str], code: i32, says: &str| {
        let refused = place.windlass(&[&["runs", "raise"], args, &["--by", "ann"]].concat());
        assert_eq!(refused.code(), code, "{}", refused.shown());
        assert!(refused.stderr().contains(says), "{}", refused.shown());
    };
    refused(&["one", "model_calls=1"], 4, "is 1 already");
    refused(&["one", "tokens=5"], 4, "has no ceiling of tokens");
    refused(&["one", "tokens"], 2, "looks like");
    refused(&["one", "words=5"], 2, "`words` is no ceiling");
    refused(&["two", "tokens=5"], 4, "two");
    assert_eq!(place.windlass(&["runs", "show", "one"]).json()["status"], json!("waiting"));
}
