//! Envelopes of child machines, with real children: what crosses, and what comes back when it is too large.

use super::kit::Place;

const PARENT: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: parent
  context: {password: s3cret-42, region: north, task: look}
  machines:
    child:
      path: ./child.yml
      contract:
        max_output_bytes: 1024
        larger_output: cut
        handoff: {facts: [region], refs: [report]}
  states:
    start:
      type: initial
      machine: child
      input: {goal: context.task, facts: FACTS, refs: {report: s3://reports/7}}
      output_to_context: {found: output}
      on_error: {run.bad_input: refused}
      transitions: [{condition: context.found.truncated == true, to: short}, {to: whole}]
    refused: {type: final, output: {why: context.last_error}}
    short: {type: final, output: {found: context.found}}
    whole: {type: final, output: {found: context.found}}
"#;

/// Gives back everything that it can read.
const CHILD: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: child
  context: {size: "PADDING"}
  states:
    s: {type: final, output: {input: "{{ input }}", context: "{{ context }}", size: context.size}}
"#;

fn ran(facts: &str, padding: usize) -> (Place, serde_json::Value) {
    let place = Place::new();
    place.write("parent.yml", &PARENT.replace("FACTS", facts));
    place.write("child.yml", &CHILD.replace("PADDING", &"x".repeat(padding)));
    let ran = place.windlass(&["run", "parent.yml", "--run-id", "p"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    let output = ran.json();
    (place, output)
}

#[test]
fn a_child_gets_its_envelope_and_nothing_else_of_its_parent() {
    let (place, output) = ran("{region: context.region}", 0);
    let input = &output["found"]["input"];
    assert_eq!((&input["goal"], &input["facts"]["region"]), (&"look".into(), &"north".into()), "{output}");
    assert_eq!(input["refs"]["report"], "s3://reports/7");
    assert_eq!(input["limits"]["max_output_bytes"], 1024, "{output}");
    let journal = place.windlass(&["runs", "journal", "p~1.0", "--json"]).shown();
    assert!(!journal.contains("s3cret-42") && journal.contains("north"), "{journal}");
}

#[test]
fn what_the_contract_does_not_name_starts_no_child() {
    let (place, output) = ran(r#""{{ context }}""#, 0);
    assert!(output["why"].as_str().is_some_and(|why| why.contains("`password`")), "{output}");
    let children = place.windlass(&["runs", "list", "--below", "p", "--json"]).shown();
    assert!(!children.contains("p~1.0"), "{children}");
}

#[test]
fn an_output_that_is_too_large_is_cut_and_says_so() {
    let (place, output) = ran("{region: context.region}", 5_000);
    let found = &output["found"];
    assert_eq!(found["truncated"], true, "{output}");
    assert!(found["bytes"].as_u64().is_some_and(|bytes| bytes > 5_000) && found["bytes_max"] == 1024, "{found}");
    assert!(found.to_string().len() <= 1_024, "{found}");
    let child = found["run"].as_str().expect("the child");
    let whole = place.windlass(&["runs", "show", child, "--json"]).json();
    assert_eq!(whole["run"]["output"]["size"].as_str().map(str::len), Some(5_000), "{whole}");
    let events = place.windlass(&["runs", "watch", "p", "--once", "--json"]).shown();
    assert!(events.contains(r#""truncated":true"#), "{events}");
}

#[test]
fn what_is_written_out_and_does_not_cross_is_an_error_of_the_document() {
    let place = Place::new();
    place.write("child.yml", CHILD);
    for (from, to, said) in [
        ("goal: context.task", "goal: context.task, password: context.password", "`password` does not cross"),
        ("facts: FACTS", "facts: {password: context.password}", "`password` is not among the `facts`"),
        ("facts: FACTS", "limits: {max_tokens: 5}", "`limits` of an envelope"),
        ("goal: context.task, facts: FACTS", "facts: {}", "has no `goal`"),
        ("max_output_bytes: 1024", "max_output_bytes: 100", "needs 1024 bytes"),
    ] {
        place.write("parent.yml", &PARENT.replace(from, to).replace("FACTS", "{}"));
        let checked = place.windlass(&["validate", "parent.yml"]);
        assert_eq!(checked.code(), 2, "{to}: {}", checked.shown());
        assert!(checked.shown().contains(said), "{to}: {}", checked.shown());
    }
}
