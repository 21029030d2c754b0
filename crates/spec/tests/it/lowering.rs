//! What documents mean: the program that comes of them.

use windlass_core::limits::MODEL_TIMEOUT_MS_DEFAULT;
use windlass_core::machine::{Agent, Dialect, Engine, Execution, HookKind, Mode, State, Targets, Template};
use windlass_core::value::Value;
use windlass_spec::diagnostics::Rule;
use windlass_spec::load;
use windlass_spec::source::MemoryFiles;

use crate::documents::{bare, files, findings, load_with, lowered, machine, options};

const KID: &str = "{spec: flatmachine, spec_version: \"4.2\", data: {states: {e: {type: final}}}}";

/// The state `a` of a machine with the agent `x` and the children `kid` and `kid2`.
fn state(body: &str) -> State {
    let text = machine(&format!(
        "agents:\n  x: {{spec: flatagent, spec_version: \"4.2\", data: {{prompt: {{user: q}}, profile: main}}}}\nmachines: {{kid: {KID}, kid2: {KID}}}\nstates:\n  a: {body}\n  end: {{type: final}}"
    ));
    lowered(&text).states["a"].clone()
}

fn agent(data: &str, others: &[(&str, &str)]) -> Agent {
    let text = machine(&format!(
        "agents:\n  x: {{spec: flatagent, spec_version: \"4.2\", data: {data}}}\nstates: {{a: {{type: final, agent: x}}}}"
    ));
    let loaded = load_with(&text, others, &options()).expect("loads");
    (*loaded.program.machines["machine.yml"].agents["x"]).clone()
}

fn json(text: &str) -> Value {
    Value::from_json(text).expect("JSON")
}

fn text(source: &str) -> Template {
    Template::Text { dialect: Dialect::Machine, source: source.into() }
}

fn path(parts: &[&str]) -> Template {
    Template::Path(parts.iter().map(|p| (*p).into()).collect())
}

#[test]
fn values_become_literals_paths_and_texts_at_any_depth() {
    let machine = lowered(&machine(
        "context:\n  a: input.x.y\n  b: \"{{ input.z }}\"\n  c: [1, input.q, {d: \"{% if a %}1{% endif %}\"}]\n  e: {f: plain, g: null}\n  h: input\n  i: input.0\n  j: \"{# note #}\"\nstates: {a: {type: final}}",
    ));
    let context = machine.context;
    assert_eq!(context[0], ("a".into(), path(&["input", "x", "y"])));
    assert_eq!(context[1].1, text("{{ input.z }}"));
    assert_eq!(
        context[2].1,
        Template::List(vec![
            Template::Literal(Value::Int(1)),
            path(&["input", "q"]),
            Template::Map(vec![("d".into(), text("{% if a %}1{% endif %}"))]),
        ])
    );
    assert_eq!(context[3].1, Template::Literal(json(r#"{"f":"plain","g":null}"#)));
    assert_eq!(context[4].1, path(&["input"]));
    assert_eq!(context[5].1, Template::Literal(Value::str("input.0")));
    assert_eq!(context[6].1, Template::Literal(Value::str("{# note #}")));
}

#[test]
fn the_initial_state_is_the_marked_one_else_start_else_the_first() {
    let initial = |states: &str| lowered(&machine(&format!("states: {{{states}}}"))).initial.to_string();
    assert_eq!(initial("start: {type: final}, x: {type: initial, transitions: [{to: start}]}"), "x");
    assert_eq!(initial("x: {type: final}, start: {transitions: [{to: x}]}"), "start");
    assert_eq!(initial("x: {transitions: [{to: y}]}, y: {type: final}"), "x");
}

#[test]
fn settings_become_ceilings() {
    let machine = lowered(&machine(
        "settings: {max_steps: 5, max_depth: 2, max_model_calls: 3, max_tool_calls: 4, max_tokens: 1000, max_cost: 0.25, max_launches: 6, timeout: 1.5, tools: [lookup], output_schema: {type: object}, parallel_fallback: error}\nstates: {a: {type: final}}",
    ));
    let c = machine.ceilings;
    assert_eq!((c.steps, c.depth, c.model_calls, c.tool_calls), (Some(5), Some(2), Some(3), Some(4)));
    assert_eq!((c.tokens, c.cost_micros, c.launches, c.wall_ms), (Some(1000), Some(250_000), Some(6), Some(1500)));
    assert_eq!(machine.offered_tools, ["lookup".into()]);
    assert_eq!(machine.output_schema, Some(json(r#"{"type":"object"}"#)));
    assert!(machine.tools.contains_key("lookup"));
}

#[test]
fn a_child_has_the_contract_of_its_reference() {
    let inline = "{spec: flatmachine, spec_version: 4.2.1, data: {name: c, states: {s: {type: final}}}}";
    let machine = lowered(&machine(&format!(
        "settings: {{input_schema: {{type: object}}}}\nmachines:\n  free: {{inline: {inline}}}\n  bound:\n    inline: {inline}\n    \
         contract: {{max_tokens: 20, max_cost: 0.5, max_depth: 1, timeout: 2, tools: [lookup, \"doc.*\"], max_output_bytes: 99}}\n  \
         none: {{inline: {inline}, contract: {{tools: []}}}}\nstates: {{a: {{type: initial, machine: [free, bound, none], \
         transitions: [{{to: b}}]}}, b: {{type: final}}}}"
    )));
    assert_eq!(machine.input_schema, Some(json(r#"{"type":"object"}"#)));
    let names: Vec<&str> = machine.child_contracts.keys().map(|name| &**name).collect();
    assert_eq!(names, ["bound", "none"]);
    let bound = &machine.child_contracts["bound"];
    let c = bound.ceilings;
    assert_eq!((c.tokens, c.cost_micros, c.depth, c.wall_ms), (Some(20), Some(500_000), Some(1), Some(2_000)));
    assert_eq!(bound.tools, Some(vec!["lookup".into(), "doc.*".into()]));
    assert_eq!(bound.output_bytes, Some(99));
    assert_eq!(machine.child_contracts["none"].tools, Some(Vec::new()), "none at all");
}

#[test]
fn a_machine_and_a_state_may_ask_for_a_pool() {
    let placed = |settings: &str| {
        lowered(&machine(&format!(
            "settings: {settings}\nstates: {{a: {{transitions: [{{to: b}}]}}, b: {{type: final}}}}"
        )))
    };
    let bare = placed("{}");
    assert_eq!((bare.pool_of(None), bare.pool_of(Some("a")), bare.placement.priority), (None, None, None));
    let one = placed("{pool: cpu, pools: {b: gpu-1}, priority: low}");
    let pools = [None, Some("a"), Some("b")].map(|state| one.pool_of(state).map(|pool| &**pool));
    assert_eq!(pools, [Some("cpu"), Some("cpu"), Some("gpu-1")]);
    assert_eq!(one.placement.priority, Some(windlass_core::machine::Priority::Low));
}

#[test]
fn a_timeout_belongs_to_the_wait_to_the_join_or_to_the_state() {
    let wait = state("{wait_for: ch, timeout: 2, transitions: [{to: end}]}");
    assert_eq!((wait.wait.expect("wait").timeout_ms, wait.timeout_ms), (Some(2000), None));
    let many = state("{machine: [kid, kid2], timeout: 2, transitions: [{to: end}]}");
    assert_eq!((many.call.expect("call").timeout_ms, many.timeout_ms), (Some(2000), None));
    let each = state("{foreach: context.l, machine: kid, timeout: 0.25, transitions: [{to: end}]}");
    assert_eq!((each.call.expect("call").timeout_ms, each.timeout_ms), (Some(250), None));
    let one = state("{machine: kid, timeout: 2, transitions: [{to: end}]}");
    assert_eq!((one.call.expect("call").timeout_ms, one.timeout_ms), (None, Some(2000)));
    let agent = state("{agent: x, timeout: 2, transitions: [{to: end}]}");
    assert_eq!(agent.timeout_ms, Some(2000));
}

#[test]
fn machine_lists_have_their_own_inputs_over_the_shared_one() {
    let state = state(
        "{machine: [{name: kid, input: {a: 1, c: context.c}}, {name: kid2}], input: {a: 0, b: 2}, mode: any, transitions: [{to: end}]}",
    );
    let call = state.call.expect("call");
    assert_eq!(call.mode, Mode::Any);
    let Targets::Many(targets) = call.targets else { panic!("not a list") };
    assert_eq!(targets[0].0, "kid".into());
    assert_eq!(
        targets[0].1,
        Template::Map(vec![
            ("a".into(), Template::Literal(Value::Int(1))),
            ("b".into(), Template::Literal(Value::Int(2))),
            ("c".into(), path(&["context", "c"])),
        ])
    );
    assert_eq!(targets[1].0, "kid2".into());
}

#[test]
fn foreach_has_an_item_a_key_and_a_list() {
    let call = state(
        "{foreach: \"{{ context.l }}\", as: row, key: \"{{ row.id }}\", machine: kid, input: {r: \"{{ row }}\"}, transitions: [{to: end}]}",
    )
    .call
    .expect("call");
    let Targets::Foreach { machine, items, binding, key, .. } = call.targets else { panic!("no foreach") };
    assert_eq!((&*machine, &*binding), ("kid", "row"));
    assert_eq!((items, key), (text("{{ context.l }}"), Some(text("{{ row.id }}"))));
    assert_eq!(call.mode, Mode::Settled);
}

#[test]
fn executions_have_the_formats_defaults() {
    let execution = |e: &str| {
        state(&format!("{{agent: x, execution: {e}, transitions: [{{to: end}}]}}")).agent.expect("agent").execution
    };
    assert_eq!(execution("{type: default}"), Execution::Once);
    assert_eq!(
        execution("{type: retry}"),
        Execution::Retry { backoffs_ms: vec![2000, 8000, 16000, 35000], jitter: 0.1 }
    );
    assert_eq!(
        execution("{type: retry, backoffs: [0.5], jitter: 0}"),
        Execution::Retry { backoffs_ms: vec![500], jitter: 0.0 }
    );
    assert_eq!(execution("{type: parallel}"), Execution::Parallel { samples: 3 });
    assert_eq!(execution("{type: mdap_voting}"), Execution::Voting { margin: 3, candidates: 10 });
    let text = machine(
        "agents: {x: {spec: flatagent, spec_version: \"4.2\", data: {prompt: {user: q}, profile: main}}}\nstates: {a: {type: final, agent: x, execution: {type: retry, retry_on_empty: true, n_samples: 2}}}",
    );
    let codes: Vec<Rule> = findings(&text, &[], &bare()).iter().map(|d| d.code).collect();
    assert_eq!(codes, [Rule::Compatibility, Rule::NoEffect]);
}

#[test]
fn tool_loops_take_numbers_paths_and_templates() {
    let tool_loop = |e: &str| {
        state(&format!("{{agent: x, tool_loop: {e}, transitions: [{{to: end}}]}}")).agent.expect("agent").tool_loop
    };
    assert!(tool_loop("false").is_none());
    let bare = tool_loop("true").expect("loop");
    assert_eq!((bare.max_turns, bare.max_cost), (Template::Literal(Value::Null), Template::Literal(Value::Null)));
    let full = tool_loop("{max_turns: \"{{ context.n | int }}\", max_tool_calls: context.n, max_cost: 1.5, allowed_tools: [a], denied_tools: [b]}").expect("loop");
    assert_eq!((full.max_turns, full.max_tool_calls), (text("{{ context.n | int }}"), path(&["context", "n"])));
    assert_eq!(full.max_cost, Template::Literal(Value::Float(1.5)));
    assert_eq!((full.allowed_tools, full.denied_tools), (vec!["a".into()], vec!["b".into()]));
}

#[test]
fn errors_transitions_and_conditions_are_lowered() {
    let state = state(
        "{on_error: {default: end, provider.rate_limited: a}, transitions: [{condition: \"context.n > 1\", to: a}, {condition: \" \", to: end}]}",
    );
    assert_eq!(state.on_error.default.as_deref(), Some("end"));
    assert_eq!(state.on_error.by_name, [("provider.rate_limited".into(), "a".into())]);
    let condition = state.transitions[0].condition.as_ref().expect("condition");
    assert_eq!((condition.engine, &*condition.source), (Engine::Simple, "context.n > 1"));
    assert!(state.transitions[1].condition.is_none());
}

#[test]
fn hooks_know_their_events() {
    let mut options = bare();
    options.hooks.insert("mine".into(), vec![HookKind::Action]);
    let text = machine(
        "lifecycle_hooks: [logging, {name: webhook, args: {endpoint: http://x}}]\nstates: {a: {type: final, action: go, hooks: {name: mine, args: {k: 1}}}}",
    );
    let loaded = load_with(&text, &[], &options).expect("loads");
    let machine = &loaded.program.machines["machine.yml"];
    assert!(machine.lifecycle[0].events.is_empty());
    assert!(machine.lifecycle[1].events.contains(&HookKind::MachineEnd));
    let hook = &machine.states["a"].hooks[0];
    assert_eq!((hook.events.as_slice(), &hook.args), ([HookKind::Action].as_slice(), &json(r#"{"k":1}"#)));
}

#[test]
fn hooks_of_old_machines_are_lifecycle_hooks_and_hooks_of_every_state_without_its_own() {
    let text =
        machine("hooks: old\nstates:\n  a: {action: go, transitions: [{to: b}]}\n  b: {type: final, hooks: new}");
    let loaded = load_with(&text, &[], &options()).expect("loads");
    assert_eq!(loaded.diagnostics[0].code, Rule::Compatibility);
    let machine = &loaded.program.machines["machine.yml"];
    let names = |hooks: &[windlass_core::machine::Hook]| hooks.iter().map(|h| h.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&machine.lifecycle), ["old"]);
    assert_eq!(names(&machine.states["a"].hooks), ["old"]);
    assert_eq!(names(&machine.states["b"].hooks), ["new"]);
}

#[test]
fn profiles_are_laid_over_each_other() {
    let named = agent("{prompt: {user: q}, profile: big}", &[]);
    assert_eq!((&*named.model.provider, &*named.model.model), ("openai", "anthropic/large"));
    assert_eq!((named.model.max_tokens, &named.model.params), (Some(99), &json(r#"{"temperature":0.5}"#)));
    let default = agent("{model: {temperature: null, seed: 7}, user: q}", &[]);
    assert_eq!((&*default.model.model, &default.model.params), ("small", &json(r#"{"temperature":0.5,"seed":7}"#)));
    assert_eq!((default.model.max_tokens, default.model.timeout_ms), (None, MODEL_TIMEOUT_MS_DEFAULT));
    let over = agent("{model: {profile: big, top_p: 0.5, timeout: 2, stop: [x], max_retries: 0}, user: q}", &[]);
    assert_eq!(over.model.params, json(r#"{"temperature":0.5,"top_p":0.5,"stop":["x"]}"#));
    assert_eq!(over.model.timeout_ms, 2000);
    let catalog =
        "spec: flatprofile\ndata: {model_profiles: {main: {name: prov/m}, top: {temperature: 1}}, override: top}";
    let overridden = agent("{model: {profile: main, temperature: 0}, user: q}", &[("profiles.yml", catalog)]);
    assert_eq!((&*overridden.model.provider, &*overridden.model.model), ("prov", "m"));
    assert_eq!(overridden.model.params, json(r#"{"temperature":1}"#));
    let wrapped = "spec: flatprofile\ndata: {model_profiles: {a: {type: llm, model: {name: m, provider: p, seed: 1}}, b: {type: llm, model: {name: n, provider: p}}}, default: a}";
    let replaced = agent("{prompt: {user: q}, profile: b}", &[("profiles.yml", wrapped)]);
    assert_eq!((&*replaced.model.model, &replaced.model.params), ("n", &json("{}")));
    let own = agent(
        "{prompt: {user: q}, profile: {spec: flatprofile, data: {model_profiles: {only: {name: p/m, provider: p}}}}}",
        &[],
    );
    assert_eq!((&*own.model.provider, &*own.model.model), ("p", "m"));
}

#[test]
fn a_missing_profile_falls_back_to_the_default_with_a_warning() {
    let text = machine(
        "agents: {x: {spec: flatagent, spec_version: \"4.2\", data: {prompt: {user: q}, profile: bigg}}}\nstates: {a: {type: final, agent: x}}",
    );
    let loaded = load_with(&text, &[], &bare()).expect("loads");
    assert_eq!(loaded.diagnostics[0].code, Rule::UnknownProfile);
    assert_eq!(loaded.diagnostics[0].advice.as_deref(), Some("did you mean `big`?"));
}

#[test]
fn prompts_have_defaults_and_lose_one_line_end() {
    let bundle = agent("{prompt: {user: \"Hi {{ input.q }}\"}, profile: main}", &[]);
    assert_eq!(bundle.system, Template::Literal(Value::str("You are a helpful assistant.")));
    assert_eq!(bundle.user, Template::Text { dialect: Dialect::Prompt, source: "Hi {{ input.q }}".into() });
    let prompt = "spec: prompt\nspec_version: \"4.2\"\ndata:\n  system: |\n    Be brief.\n  user: q\n  post_history_instructions: x\n";
    let filed = agent("{prompt: ./p.yml, profile: main}", &[("p.yml", prompt)]);
    assert_eq!(filed.system, Template::Literal(Value::str("Be brief.")));
    assert_eq!(filed.post_history, Template::Literal(Value::str("x")));
}

#[test]
fn output_fields_become_a_schema() {
    let agent = agent(
        "{prompt: {user: q, output: {s: {type: str, required: true, enum: [a, b]}, n: {type: float, description: d}, j: {type: json}, l: {type: list, items: {type: int, required: true}}, o: {type: object, required: true, properties: {p: {type: bool, required: true}}}}}, profile: main}",
        &[],
    );
    let expected = json(
        r#"{"type":"object","properties":{"s":{"type":"string","enum":["a","b"]},"n":{"type":["number","null"],"description":"d"},"j":{},"l":{"type":["array","null"],"items":{"type":"integer"}},"o":{"type":"object","properties":{"p":{"type":"boolean"}},"required":["p"]}},"required":["s","o"]}"#,
    );
    assert_eq!(agent.output_schema, Some(expected));
    assert_eq!(crate::lowering::agent("{prompt: {user: q}, profile: main}", &[]).output_schema, None);
}

#[test]
fn voting_rules_come_from_the_agents_metadata() {
    let text = "spec: flatagent\nspec_version: \"2.0\"\ndata: {model: main, user: q}\nmetadata:\n  parsing: {a: {pattern: \"a=(.*)\", type: int}}\n  validation: {type: object}\n  mdap: {k_margin: 2, max_candidates: 4, max_response_tokens: 100}\n";
    let machine = machine("agents: {x: ./x.yml}\nstates: {a: {type: final, agent: x}}");
    let loaded = load_with(&machine, &[("x.yml", text)], &bare()).expect("loads");
    let voting = loaded.program.machines["machine.yml"].agents["x"].voting.clone();
    assert_eq!(voting.parsing, [("a".into(), "a=(.*)".into(), "int".into())]);
    assert_eq!((voting.margin, voting.candidates, voting.max_tokens), (Some(2), Some(4), Some(100)));
    let broken = text.replace("a=(.*)", "a=(");
    assert_eq!(findings(&machine, &[("x.yml", &broken)], &bare())[0].code, Rule::BadSchema);
}

#[test]
fn children_have_keys_folders_and_catalogs() {
    let parent = machine(&format!(
        "machines: {{file: ./sub/kid.yml, inline: {KID}}}\nstates: {{a: {{type: final, machine: [file, inline]}}}}"
    ));
    let kid = machine(
        "agents: {x: ./agents/x.yml}\nmachines: {deep: {inline: {spec: flatmachine, spec_version: \"4.2\", data: {states: {e: {type: final}}}}}}\nstates: {a: {type: final, agent: x, launch: deep}}",
    );
    let agent = "spec: flatagent\nspec_version: \"4.2\"\ndata: {prompt: ./p.yml, profile: main}";
    let own = "spec: flatprofile\ndata: {model_profiles: {main: {name: sub, provider: p}}}";
    let documents = [("sub/kid.yml", kid.as_str()), ("sub/agents/x.yml", agent), ("sub/p.yml", "user: q")];
    let inherited = load(&files(&parent, &documents), "machine.yml", &bare()).expect("loads");
    let keys: Vec<String> = inherited.program.machines.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["machine.yml", "machine.yml#inline", "sub/kid.yml", "sub/kid.yml#deep"]);
    assert_eq!(&*inherited.program.machines["sub/kid.yml"].agents["x"].model.model, "small");
    let shadowed =
        load(&files(&parent, &documents).with("sub/profiles.yml", own), "machine.yml", &bare()).expect("loads");
    assert_eq!(&*shadowed.program.machines["sub/kid.yml"].agents["x"].model.model, "sub");
}

#[test]
fn two_parents_with_different_catalogs_for_one_child_are_told() {
    let entry = machine("machines: {a: ./a/m.yml, b: ./b/m.yml}\nstates: {s: {type: final, machine: [a, b]}}");
    let parent = machine("machines: {c: ../c/m.yml}\nstates: {s: {type: final, machine: c}}");
    let child = machine("states: {s: {type: final}}");
    let catalog = "spec: flatprofile\ndata: {model_profiles: {m: {name: m, provider: p}}}";
    let documents = MemoryFiles::new()
        .with("machine.yml", entry)
        .with("a/m.yml", parent.as_str())
        .with("b/m.yml", parent.as_str())
        .with("c/m.yml", child)
        .with("a/profiles.yml", catalog)
        .with("b/profiles.yml", catalog);
    let found = load(&documents, "machine.yml", &bare()).expect_err("ambiguous");
    assert_eq!(found[0].code, Rule::UnknownProfile);
}

#[test]
fn agent_references_are_laid_over_their_document() {
    let document = "spec: flatagent\nspec_version: \"4.2\"\ndata: {prompt: {user: base}, profile: main}";
    let text = machine(
        "agents: {x: {type: flatagent, ref: ./x.yml, config: {data: {prompt: {user: over}}}}}\nstates: {a: {type: final, agent: x}}",
    );
    let loaded = load_with(&text, &[("x.yml", document)], &bare()).expect("loads");
    let agent = loaded.program.machines["machine.yml"].agents["x"].clone();
    assert_eq!((agent.user.clone(), &*agent.model.model), (Template::Literal(Value::str("over")), "small"));
}

#[test]
fn words_that_yaml_versions_read_differently_are_warned_of() {
    let text = machine(
        "context: {a: yes, b: 1_000, c: \"no\", d: 010}\nstates: {a: {type: final, agent: x, tool_loop: on}}\nagents: {x: {spec: flatagent, spec_version: \"4.2\", data: {prompt: {user: q}, profile: main}}}",
    );
    let loaded = load_with(&text, &[], &bare()).expect("loads");
    let codes: Vec<(Rule, u32)> = loaded.diagnostics.iter().map(|d| (d.code, d.line)).collect();
    assert_eq!(codes, [(Rule::Ambiguous, 4), (Rule::Ambiguous, 4), (Rule::Ambiguous, 4), (Rule::Ambiguous, 5)]);
    let machine = &loaded.program.machines["machine.yml"];
    assert_eq!(machine.context[0].1, Template::Literal(Value::str("yes")));
    assert_eq!(machine.context[3].1, Template::Literal(Value::Int(10)));
    assert!(machine.states["a"].agent.as_ref().expect("agent").tool_loop.is_some());
}

#[test]
fn keys_without_effect_and_states_without_way_are_warned_of() {
    let text = machine(
        "states:\n  a: {wait_for: x, action: y, as: z, output: {b: 1}, transitions: [{to: end}, {to: a}]}\n  end: {type: final, transitions: [{to: a}]}\n  lost: {input: {a: 1}}",
    );
    let mut found: Vec<(Rule, u32)> = findings(&text, &[], &bare()).iter().map(|d| (d.code, d.line)).collect();
    found.retain(|(rule, _)| *rule != Rule::UnknownAction);
    assert_eq!(
        found,
        [
            (Rule::NoEffect, 5),
            (Rule::NoEffect, 5),
            (Rule::NoEffect, 5),
            (Rule::NoEffect, 5),
            (Rule::NoEffect, 6),
            (Rule::Unreachable, 7),
            (Rule::DeadEnd, 7),
            (Rule::NoEffect, 7),
        ]
    );
}

#[test]
fn json_documents_and_merge_keys_work() {
    let json_text = r#"{"spec": "flatmachine", "spec_version": "4.2", "data": {"states": {"a": {"type": "final", "output": {"x": 1}}}}}"#;
    let loaded = load(&MemoryFiles::new().with("machine.json", json_text), "machine.json", &bare()).expect("loads");
    assert_eq!(&*loaded.program.entry, "machine.json");
    let merged = lowered(
        "spec: flatmachine\nspec_version: \"4.2\"\nmetadata: {s: &b {type: final}}\ndata:\n  states:\n    a: {<<: *b, output: {x: 1}}",
    );
    assert!(merged.states["a"].is_final && merged.states["a"].output.is_some());
}

#[test]
fn a_share_for_saving_that_never_does_anything_is_warned_of() {
    let codes = |conversation: &str| {
        let text = machine(&format!(
            "settings: {{conversation: {conversation}}}\nstates: {{a: {{type: initial, transitions: [{{to: b}}]}}, s: \
             {{transitions: [{{to: a}}]}}, b: {{type: final}}}}"
        ));
        let found = findings(&text, &[], &bare());
        found.iter().filter(|one| one.code == Rule::NoEffect).map(|one| one.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(codes("{near_percent: 80, saving_percent: 40, on_near: s}"), [""; 0]);
    for (conversation, said) in [
        ("{near_percent: 40, saving_percent: 60, on_near: s}", "is not below `near_percent`, which is 40"),
        ("{saving_percent: 80, on_near: s}", "is not below `near_percent`, which is 80"),
        ("{saving_percent: 40}", "shortens nothing without `on_near`"),
    ] {
        let found = codes(conversation);
        assert!(found.len() == 1 && found[0].contains(said), "{conversation}: {found:?}");
    }
}
