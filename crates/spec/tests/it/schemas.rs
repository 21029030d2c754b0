//! The schemas for editors agree with what is loaded.

use serde_json::Value;
use windlass_spec::schema::{Kind, json_schema};

use crate::documents::{PROFILES, machine};

fn json(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).expect("YAML")
}

fn fits(kind: Kind, yaml: &str) -> bool {
    jsonschema::validator_for(&json_schema(kind)).expect("a schema").is_valid(&json(yaml))
}

const MACHINES: [&str; 4] = [
    "states: {a: {type: final, output: {x: 1}}}",
    "name: demo\nexpression_engine: cel\ncontext: {a: null, b: [1, {c: \"{{ input.c }}\"}]}\nsettings: {max_steps: 5, max_cost: 0.5, tools: [t], other: 1}\nstates:\n  a: {type: initial, wait_for: \"ch/{{ context.a }}\", timeout: 3.5, transitions: [{condition: a, to: b}, {to: b}]}\n  b: {type: final}",
    "agents: {x: ./x.yml, y: {type: flatagent, ref: ./x.yml, config: {data: {}}}, z: {spec: flatagent, data: {model: m, user: u}}}\nmachines: {k: ./k.yml, l: {spec: flatmachine, data: {states: {a: {type: final}}}}}\nstates:\n  a: {agent: x, execution: {type: retry, backoffs: [1, 2.5], jitter: 0.2}, tool_loop: {max_turns: \"{{ 3 }}\"}, on_error: {default: b}, hooks: [h, {name: g, args: {}}], transitions: [{to: b}]}\n  b: {machine: [{name: k, input: {a: 1}}, {name: l}], mode: any, launch: k, launch_input: {}, transitions: [{to: c}]}\n  c: {foreach: context.l, as: row, key: \"{{ row }}\", machine: k, type: final}",
    "lifecycle_hooks: logging\npersistence: {enabled: true, backend: sqlite}\nstates: {a: {action: x, type: final}}",
];

#[test]
fn valid_documents_fit() {
    for data in MACHINES {
        assert!(fits(Kind::Machine, &machine(data)), "{data}");
    }
    assert!(fits(Kind::Profile, PROFILES));
    assert!(fits(
        Kind::Prompt,
        "spec: prompt\nspec_version: \"4.2\"\ndata: {user: q, output: {a: {type: list, items: {type: str}}}}"
    ));
    assert!(fits(Kind::Agent, "spec: flatagent\nspec_version: 4.2\ndata: {prompt: ./p.yml, profile: main}"));
    assert!(fits(
        Kind::Agent,
        "spec: flatagent\nspec_version: 2.0.0\ndata: {model: {profile: main, seed: 1}, system: s, user: u}"
    ));
}

#[test]
fn unknown_and_refused_keys_do_not_fit() {
    for data in MACHINES {
        assert!(!fits(Kind::Machine, &machine(&format!("{data}\nstats: {{}}"))), "{data}");
    }
    assert!(!fits(Kind::Machine, &machine("states: {a: {type: final, agnt: x}}")));
    assert!(!fits(Kind::Machine, &machine("states: {a: {type: finale}}")));
    assert!(!fits(Kind::Machine, &machine("states: {a: {transitions: [{when: x}]}}")));
    assert!(!fits(Kind::Prompt, "spec: prompt\ndata: {usr: q}"));
    assert!(!fits(Kind::Agent, "spec: flatagent\ndata: {prompt: p, profile: m, extra: 1}"));
}

#[test]
fn every_kind_has_a_schema_that_names_its_fields() {
    for kind in Kind::ALL {
        let schema = json_schema(kind);
        assert!(jsonschema::meta::is_valid(&schema), "{kind:?}");
    }
    insta::assert_json_snapshot!(json_schema(Kind::Prompt)["$defs"]["PromptData"]);
}
