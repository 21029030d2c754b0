//! What a run may do and will probably use, told before it is started; and how well that was told.

use serde_json::{Value as Json, json};

use crate::kit::Place;

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: letters
  settings: {tools: [look_up, send], max_steps: 40}
  context: {rounds: input.rounds}
  agents:
    clerk: {spec: flatagent, spec_version: "4.2.1", data: {model: {provider: scripted, name: small, max_tokens: 100}, system: s, user: u}}
  machines: {stamp: ./stamp.yml}
  states:
    draft:
      type: initial
      agent: clerk
      execution: {type: retry, backoffs: [1, 2]}
      tool_loop: {max_turns: 3, max_tool_calls: 5, denied_tools: [send]}
      transitions:
        - {condition: "context.rounds == 2", to: again}
        - {to: stamped}
    again: {agent: clerk, transitions: [{to: stamped}]}
    stamped: {machine: stamp, transitions: [{to: asked}]}
    asked: {action: send, transitions: [{to: end}], on_error: end}
    end: {type: final, output: {ok: true}}
"#;
const STAMP: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: stamp
  states:
    a: {type: initial, transitions: [{to: b}]}
    b: {type: final, output: {ok: true}}
"#;
const CONFIGURATION: &str = r#"[tools.look_up]
type = "command"
command = ["/bin/true"]
class = "read"
idempotency = "natural"

[tools.send]
type = "command"
command = ["/bin/echo", "{}"]
class = "write"
idempotency = "key"
approval = "always"
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("letters.yml", MACHINE);
    place.write("stamp.yml", STAMP);
    place.write("windlass.toml", CONFIGURATION);
    place
}

#[test]
fn what_a_machine_may_do_is_read_from_its_documents() {
    let place = place();
    let ran = place.windlass(&["preview", "letters.yml", "--json"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    let told = ran.json();
    assert_eq!(told["bounds"]["steps"], json!({ "min": 4, "max": 5 }), "{told}");
    assert_eq!(told["bounds"]["model_calls"], json!({ "min": 1, "max": 10 }), "three attempts of three turns, and one");
    assert_eq!(told["bounds"]["tool_calls"], json!({ "min": 1, "max": 6 }));
    assert_eq!(told["bounds"]["launches"], json!({ "min": 1, "max": 1 }));
    let names: Vec<&Json> = told["tools"].as_array().expect("tools").iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, [&json!("look_up"), &json!("send")]);
    assert_eq!(told["approvals"], json!(["send"]));
    assert_eq!(told["models"][0]["model"], json!("small"));
    assert_eq!((&told["runs"], &told["expected"]["steps"]), (&json!(0), &Json::Null));
    let text = place.windlass(&["preview", "letters.yml", "--plain"]).stdout();
    assert!(text.contains("cannot be told from fewer than 5 runs") && text.contains("asks about   send"), "{text}");
}

#[test]
fn what_runs_used_says_what_the_next_one_will() {
    let place = Place::new();
    let loops = STAMP.replace("name: stamp", "name: stamp\n  context: {left: input.left}").replace(
        "a: {type: initial, transitions: [{to: b}]}",
        "a: {type: initial, output_to_context: {left: \"{{ context.left - 1 }}\"}, transitions: [{condition: \"context.left > 0\", to: a}, {to: b}]}",
    );
    place.write("stamp.yml", &loops);
    for run in 0..7 {
        let left = if run == 6 { 7 } else { 3 };
        let ran = place.windlass(&[
            "run",
            "stamp.yml",
            "--input",
            &format!("{{\"left\":{left}}}"),
            "--run-id",
            &format!("r{run}"),
        ]);
        assert_eq!(ran.code(), 0, "{}", ran.shown());
    }
    let told = place.windlass(&["preview", "stamp.yml", "--json"]).json();
    assert_eq!((&told["runs"], &told["bounds"]["steps"]), (&json!(7), &json!({ "min": 2, "max": null })), "{told}");
    assert_eq!(told["expected"]["steps"], json!({ "low": 4, "middle": 4, "high": 8 }));
    assert_eq!(told["error"]["steps"]["previews"], json!(2));
    let looked_back = place.windlass(&["preview", "--run", "r6", "--json"]).json();
    assert_eq!(looked_back["runs"], json!(6), "only what was there before it: {looked_back}");
    assert_eq!(looked_back["run"]["used"]["steps"], json!(8));
    assert_eq!(looked_back["run"]["percent_off"]["steps"], json!(50));
    let text = place.windlass(&["preview", "--run", "r6", "--plain"]).stdout();
    assert!(text.contains("used 8, 50 % off"), "{text}");
}

#[test]
fn what_cannot_be_previewed_is_refused() {
    let place = place();
    place.write("waits.yml", &STAMP.replace("a: {type: initial,", "a: {type: initial, wait_for: go,"));
    assert_eq!(place.windlass(&["run", "waits.yml", "--run-id", "w", "--wait", "0s"]).code(), 7);
    let open = place.windlass(&["preview", "--run", "w"]);
    assert_eq!(open.code(), 4, "{}", open.shown());
    assert!(open.stderr().contains("has not ended"), "{}", open.shown());
    assert_eq!(place.windlass(&["preview"]).code(), 2);
    assert_eq!(place.windlass(&["preview", "letters.yml", "--run", "w"]).code(), 2);
}

#[test]
fn the_budgets_that_would_bind_the_run_are_named() {
    let place = place();
    for (scope, meter, cap) in [
        ("environment", "--model-calls", "1"),
        ("tenant:default", "--tool-calls", "900"),
        ("tenant:other", "--tool-calls", "1"),
        ("tool:default/send", "--tool-calls", "1"),
        ("tool:default/unused", "--tool-calls", "1"),
    ] {
        assert_eq!(place.windlass(&["budgets", "set", scope, meter, cap]).code(), 0);
    }
    let told = place.windlass(&["preview", "letters.yml"]).json();
    let of = |budget: &Json| (budget["scope"].clone(), budget["left"].clone(), budget["most_fits"].clone());
    let budgets: Vec<_> = told["budgets"].as_array().expect("budgets").iter().map(of).collect();
    let wanted = [
        (json!("environment"), json!(1), json!(false)),
        (json!("tenant:default"), json!(900), json!(true)),
        (json!("tool:default/send"), json!(1), json!(false)),
    ];
    assert_eq!(budgets, wanted, "{told}");
}
