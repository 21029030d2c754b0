//! Bounds of one decision: how many tools one reply may call, how many children one state may start; and that a text
//! which looks like a template or a condition stays a text, wherever it comes from.

use std::collections::BTreeMap;

use windlass_core::ids::EffectId;
use windlass_core::limits::{CALLS_PER_TURN_MAX, FAN_OUT_MAX};
use windlass_core::request::model_request;
use windlass_core::transcript::Message;
use windlass_core::value::Value;

use crate::scenario::Bench;

const PROFILES: &str = "
spec: flatprofile
spec_version: 4.2.1
data:
  default: main
  model_profiles:
    main: {name: small, provider: scripted, max_tokens: 100}
";

fn bench(files: &[(&str, &str)]) -> Bench {
    let files: BTreeMap<String, String> =
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Bench::new(files)
}

const LOOPING: &str = r"
spec: flatmachine
spec_version: 4.2.1
data:
  name: m
  settings: {tools: [look]}
  agents:
    a: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: q}, profile: main}}
  states:
    start: {type: initial, agent: a, tool_loop: {max_turns: 4}, output_to_context: {r: output.content}, transitions: [{to: end}]}
    end: {type: final, output: {r: context.r}}
";

const LOOK: &str = r#"[{"name":"look","description":"reads","input_schema":null,"output_schema":null,"class":"read",
"idempotency":"none","on_unknown":"fail","timeout_ms":1000,"output_bytes_max":1000}]"#;

/// What the journal shows of a call of a tool.
const TOOL: &str = r#""call":{"tool":{"#;

/// A reply to a model call that asks for so many calls, numbered from `first`.
fn calls(effect: usize, first: usize, count: usize) -> String {
    let calls: Vec<String> =
        (first..first + count).map(|n| format!(r#"{{"id":"c{n}","name":"look","arguments":{{"n":{n}}}}}"#)).collect();
    format!("reply #{effect} tools [{}]", calls.join(","))
}

#[test]
fn one_turn_makes_only_so_many_calls_and_the_next_turn_may_call_again() {
    let mut bench = bench(&[("machine.yml", LOOPING), ("profiles.yml", PROFILES), ("tools.json", LOOK)]);
    bench.line("start {}");
    let beyond = 3;
    let mut said = bench.line(&calls(1, 0, CALLS_PER_TURN_MAX + beyond));
    for n in 0..CALLS_PER_TURN_MAX {
        said.push_str(&bench.line(&format!("return #{} {{\"seen\":{n}}}", n + 2)));
    }
    assert_eq!(said.matches(TOOL).count(), CALLS_PER_TURN_MAX);
    let refused = format!("Tool 'look' was not called: one turn makes at most {CALLS_PER_TURN_MAX} calls");
    let answers = said.lines().filter(|line| line.starts_with("tool_answered") && line.contains(&refused));
    assert_eq!(answers.count(), beyond, "each of the rest is answered: {said}");
    // The model is asked again by itself, and may call again.
    let effect = CALLS_PER_TURN_MAX + 2;
    assert_eq!(bench.run.calls.len(), 1);
    let again = bench.line(&calls(effect, 1_000, 1));
    assert_eq!(again.matches(TOOL).count(), 1, "{again}");
    bench.line(&format!("return #{} {{}}", effect + 1));
    assert_eq!(bench.run.ledger.settled.tool_calls, CALLS_PER_TURN_MAX as u64 + 1, "what was refused costs nothing");
    let effect = effect + 2;
    let end = bench.line(&format!("reply #{effect} done"));
    assert!(end.contains("= completed"), "{end}");
}

const EACH: &str = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: each
  machines: {c: ./child.yml}
  context: {items: "{{ input.items }}"}
  states:
    start: {type: initial, machine: c, foreach: "{{ context.items }}", as: i, output_to_context: {r: output}, on_error: bad, transitions: [{to: end}]}
    bad: {type: final, output: {e: context.last_error}}
    end: {type: final, output: {r: context.r}}
"#;

const CHILD: &str = "
spec: flatmachine
spec_version: 4.2.1
data:
  name: child
  states:
    s: {type: final, output: {}}
";

#[test]
fn a_state_starts_only_so_many_children_and_none_where_there_would_be_more() {
    let started = |count: usize| {
        let mut bench = bench(&[("machine.yml", EACH), ("child.yml", CHILD)]);
        let items: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let said = bench.line(&format!(r#"start {{"items":[{}]}}"#, items.join(",")));
        (said.matches("\nchild_started ").count(), bench.run.ledger.settled.launches, said)
    };
    let (children, launches, said) = started(FAN_OUT_MAX);
    assert_eq!((children, launches), (FAN_OUT_MAX, FAN_OUT_MAX as u64));
    assert!(said.ends_with("= waiting\n"));
    let (children, launches, said) = started(FAN_OUT_MAX + 1);
    assert_eq!((children, launches), (0, 0), "not one of them");
    let refused = format!(
        r#"{{"code":"run.too_large","retry":"never","message":"a state starts at most {FAN_OUT_MAX} children"}}"#
    );
    assert!(said.contains(&refused) && said.ends_with("= completed\n"), "the state fails, and its `on_error` goes on");
}

/// ATK-28: texts that would do something if they were taken for a template, a path or a condition.
const INJECTIONS: &[&str] = &[
    "{{ 7 * 191 }}",
    "{{ context.secret }}",
    "{{ input.secret }}",
    "{% set x = context.secret %}{{ x }}",
    "{# {{ context.secret }} #}",
    "{{ '{{ context.secret }}' }}",
    "{{",
    "context.secret",
    "input.secret",
    "context.secret == 's3cret'",
    "' or 'a' == 'a",
    "true || context.secret == \"s3cret\"",
    "\"{{ context.secret }}\"",
];

const TWICE: &str = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: twice
  expression_engine: ENGINE
  context: {secret: s3cret, first: "{{ input.v }}", second: "", third: ""}
  agents:
    a: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: "<{{ input.v }}>"}, profile: main}}
  states:
    start: {type: initial, agent: a, input: {v: "{{ context.first }}"}, output_to_context: {second: output.content}, transitions: [{to: again}]}
    again:
      agent: a
      input: {v: "{{ context.second }}"}
      output_to_context: {third: "{{ output.content }}"}
      transitions:
      - {condition: "context.first == 's3cret' || context.second == 's3cret'", to: leaked}
      - {condition: "context.first == context.second", to: end}
    leaked: {type: final, output: {leaked: true}}
    end: {type: final, output: {first: "{{ context.first }}", second: "{{ context.second }}", third: context.third, said: "<{{ context.third }}>"}}
"#;

/// A text from the input and from a model goes through two renders and a condition, and is the same text at the end.
#[test]
fn what_comes_from_the_input_or_a_model_is_never_a_template_or_a_condition() {
    for engine in ["simple", "cel"] {
        let or = if engine == "cel" { "||" } else { "or" };
        let machine = TWICE.replace("ENGINE", engine).replace("||", or);
        for text in INJECTIONS {
            let mut bench = bench(&[("machine.yml", &machine), ("profiles.yml", PROFILES)]);
            let quoted = Value::str(*text).to_json();
            let mut said = bench.line(&format!(r#"start {{"v":{quoted},"secret":"s3cret"}}"#));
            for effect in [1, 2] {
                let machine = &bench.program.machines[&bench.program.entry];
                let request = model_request(machine, &bench.run, EffectId(effect)).expect("a call");
                let prompt = Message::User { content: format!("<{text}>").into() };
                assert_eq!(request.messages.last(), Some(&prompt), "{engine} {text}");
                said.push_str(&bench.line(&format!("reply #{effect} {text}")));
            }
            let output = format!(
                r#"{{"first":{quoted},"second":{quoted},"third":{quoted},"said":{}}}"#,
                Value::str(format!("<{text}>")).to_json()
            );
            assert!(
                said.contains(&format!(r#"ending_decided {{"ending":{{"completed":{{"output":{output}}}}}}}"#)),
                "{engine} {text}: {said}"
            );
            assert!(!said.contains("1337"), "{engine} {text}: {said}");
        }
    }
}
