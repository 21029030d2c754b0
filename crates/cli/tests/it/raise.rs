//! A run's ceilings, raised by a person before the run comes to them.

use serde_json::json;

use super::kit::{Place, Ran};

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

/// Forks a run, lets the fork go on, and says how that ended.
fn forked(place: &Place, of: &str, fork: &str, more: &[&str]) -> Ran {
    let parked = place.windlass(&[&["runs", "fork", of, "--run-id", fork], more].concat());
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    assert_eq!(place.windlass(&["signal", "go", "--run", fork]).code(), 0);
    place.windlass(&["resume", fork])
}

#[test]
fn what_was_used_before_the_step_counts_in_a_fork_until_somebody_raises_it() {
    let place = place();
    waiting(&place, "old");
    let failed = forked(&place, "old", "same", &["--at", "2"]);
    assert_eq!((failed.code(), &failed.json()["error"]["code"]), (3, &json!("budget.exceeded")), "{}", failed.shown());
    assert!(failed.stderr().contains("1 were used before the fork"), "{}", failed.shown());
    let again = forked(&place, "same", "fork-of-a-fork", &["--at", "2"]);
    assert_eq!(again.code(), 3, "what a fork brought it passes on: {}", again.shown());

    let refused = |to: &str, says: &str| {
        let refused = place.windlass(&["runs", "fork", "old", "--at", "2", "--run-id", "none", "--raise", to]);
        assert_eq!(refused.code(), 4, "{}", refused.shown());
        assert!(refused.stderr().contains(says), "{}", refused.shown());
    };
    refused("model_calls=1", "is 1 without it");
    refused("tokens=5", "no ceiling of tokens");
    let ended = forked(&place, "old", "more", &["--at", "2", "--raise", "model_calls=2"]);
    assert_eq!(ended.code(), 0, "{}", ended.shown());
    let shown = place.windlass(&["runs", "show", "more"]).json();
    assert_eq!(shown["run"]["ledger"]["settled"]["model_calls"], 1, "its own use is its own: {shown}");
    let inherits = forked(&place, "more", "of-more", &["--at", "2"]);
    assert_eq!(inherits.code(), 0, "what was raised for a run holds for its fork: {}", inherits.shown());
    let acts = place.windlass(&["audit", "acts"]).stdout();
    assert!(acts.contains("at step 2, model_calls raised to 2"), "{acts}");

    let raise = ["runs", "raise", "old", "model_calls=3", "--by", "ann"];
    assert_eq!(place.windlass(&raise).code(), 0);
    assert_eq!(place.windlass(&["signal", "go", "--run", "old"]).code(), 0);
    assert_eq!(place.windlass(&["resume", "old"]).code(), 0);
    let late = place.windlass(&["runs", "fork", "old", "--at", "3", "--run-id", "late"]);
    assert_eq!(late.code(), 0, "it was raised before that step: {}", late.shown());
}
