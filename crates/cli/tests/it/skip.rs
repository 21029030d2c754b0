//! A failed run that a person lets go past its last state.

use super::kit::Place;

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: booker
  context: {invoice: none}
  agents:
    clerk:
      spec: flatagent
      spec_version: "4.2.1"
      data: {name: clerk, model: {provider: scripted, name: small}, user: Book it.}
  states:
    book: {type: initial, agent: clerk, output_to_context: {invoice: output.invoice}, transitions: [{to: done}]}
    done: {type: final, output: {invoice: context.invoice}}
"#;

fn failed() -> Place {
    let place = Place::new();
    place.write("booker.yml", MACHINE);
    place.write("script.yml", "rules:\n  - {agent: clerk, reply: {status: 400}}\n");
    place.write("windlass.toml", "[providers.scripted]\nscript = \"script.yml\"\n");
    let ran = place.windlass(&["run", "booker.yml", "--run-id", "one"]);
    assert_eq!(ran.code(), 3, "{}", ran.shown());
    place
}

#[test]
fn a_failed_run_goes_on_with_what_a_person_gives() {
    let place = failed();
    let skip = ["runs", "skip", "one", "--output", r#"{"invoice": 4711}"#, "--by", "ann", "--reason", "by hand"];
    let skipped = place.windlass(&skip);
    assert_eq!(skipped.code(), 0, "{}", skipped.shown());
    let run = place.windlass(&["runs", "show", "one", "--json"]).json();
    assert_eq!(run["run"]["ending"]["completed"]["output"]["invoice"], 4711, "{run}");
    let journal = place.windlass(&["runs", "journal", "one"]).stdout();
    assert!(journal.contains("state_skipped") && journal.contains("by hand"), "{journal}");
    let acts = place.windlass(&["audit", "acts"]).stdout();
    assert!(acts.contains("run.skip") && acts.contains("ann"), "{acts}");
    let again = place.windlass(&skip);
    assert_eq!(again.code(), 4, "{}", again.shown());
    assert!(again.stderr().contains("it has not failed"), "{}", again.shown());
    let report = place.windlass(&["slo", "report", "--min-runs", "1", "--json"]).stdout();
    assert!(report.contains("retried"), "a person helped: {report}");
}

#[test]
fn an_output_that_is_no_json_changes_nothing() {
    let place = failed();
    let refused = place.windlass(&["runs", "skip", "one", "--output", "{no", "--by", "ann"]);
    assert_eq!(refused.code(), 2, "{}", refused.shown());
    assert!(refused.stderr().contains("`--output`"), "{}", refused.shown());
    let run = place.windlass(&["runs", "show", "one", "--json"]).json();
    assert_eq!(run["status"], "failed", "{run}");
}
