//! Documents that are refused, with the place of the mistake.

use windlass_spec::diagnostics::Rule;
use windlass_spec::source::MemoryFiles;
use windlass_spec::{LoadOptions, load};

use crate::documents::{bare, findings, load_with, machine, only_error, options, shown};

/// A machine with one agent, one child and two states; `state` is the body of the first.
fn with_state(state: &str) -> String {
    let lines: String = state.lines().map(|line| format!("\n    {line}")).collect();
    machine(&format!(
        "agents:\n  x: {{spec: flatagent, spec_version: \"4.2\", data: {{prompt: {{user: q}}, profile: main}}}}\n\
         machines:\n  kid: {{spec: flatmachine, spec_version: \"4.2\", data: {{states: {{e: {{type: final}}}}}}}}\n\
         states:\n  a:{lines}\n    transitions: [{{to: end}}]\n  end: {{type: final}}"
    ))
}

#[test]
fn mistakes_in_a_state_are_found_where_they_are() {
    for (state, rule, column) in [
        ("agnt: x", Rule::UnknownKey, 7),
        ("agent: y", Rule::UnknownAgent, 14),
        ("agent: [x]", Rule::WrongType, 14),
        ("type: start", Rule::WrongValue, 13),
        ("machine: kit", Rule::UnknownMachine, 16),
        ("machine: [kid, kit]", Rule::UnknownMachine, 22),
        ("machine: [kid, kid]", Rule::DuplicateName, 22),
        ("machine: []", Rule::WrongValue, 16),
        ("machine: [{name: kid, inputs: {}}]", Rule::UnknownKey, 29),
        ("machine: [{input: {}}]", Rule::MissingKey, 17),
        ("launch: kit", Rule::UnknownMachine, 15),
        ("launch: []", Rule::WrongValue, 15),
        ("foreach: context.l", Rule::MissingKey, 7),
        ("foreach: items\n    machine: kid", Rule::WrongValue, 16),
        ("foreach: context.l\n    machine: [kid, kid]", Rule::WrongType, 16),
        ("foreach: context.l\n    machine: kid\n    as: context", Rule::WrongValue, 11),
        ("foreach: context.l\n    machine: kid\n    as: my item", Rule::WrongValue, 11),
        ("agent: x\n    execution: {type: quorum}", Rule::WrongValue, 25),
        ("agent: x\n    execution: retry", Rule::WrongType, 18),
        ("agent: x\n    execution: {type: retry, jitter: 3}", Rule::WrongValue, 40),
        ("agent: x\n    execution: {type: retry, backoffs: [-1]}", Rule::WrongType, 43),
        ("agent: x\n    execution: {type: parallel, n_samples: 0}", Rule::WrongValue, 46),
        ("agent: x\n    execution: {type: parallel, n_samples: 101}", Rule::WrongValue, 46),
        ("agent: x\n    execution: {backoffs: [1]}", Rule::MissingKey, 18),
        ("agent: x\n    sampling: multi", Rule::Blocked, 17),
        ("agent: x\n    tool_loop: {max_turns: many}", Rule::WrongType, 30),
        ("agent: x\n    tool_loop: 5", Rule::WrongType, 18),
        ("agent: x\n    execution: {type: parallel}\n    tool_loop: true", Rule::WrongValue, 7),
        ("on_error: nowhere", Rule::UnknownState, 17),
        ("on_error: {default: nowhere}", Rule::UnknownState, 27),
        ("on_error: [end]", Rule::WrongType, 17),
        ("action: look_up", Rule::UnknownAction, 15),
        ("timeout: 5s", Rule::WrongType, 16),
        ("timeout: -5", Rule::WrongType, 16),
        ("input: \"{{ context }}\"", Rule::WrongType, 14),
        ("agent: x\n    input: {q: \"{{ input.a\"}", Rule::BadTemplate, 28),
        ("agent: x\n    input: {q: [{r: \"{% if %}\"}]}", Rule::BadTemplate, 30),
        ("wait_for: \"{{\"", Rule::BadTemplate, 18),
    ] {
        let text = with_state(&state.replace("\n    ", "\n"));
        let (found, line, at) = only_error(&text, &[]);
        assert_eq!((found, at), (rule, column), "{state}");
        assert!((10..=10 + state.matches('\n').count()).contains(&(line as usize)), "{state}: {line}");
    }
}

#[test]
fn transitions_are_checked() {
    let text = |transition: &str| {
        machine(&format!("states:\n  a:\n    transitions:\n    - {transition}\n  end: {{type: final}}"))
    };
    assert_eq!(only_error(&text("{to: ende}"), &[]), (Rule::UnknownState, 7, 14));
    assert_eq!(only_error(&text("{condition: true}"), &[]).0, Rule::MissingKey);
    assert_eq!(only_error(&text("{to: end, if: x}"), &[]).0, Rule::UnknownKey);
    assert_eq!(only_error(&text("{to: end, condition: \"context.a ==\"}"), &[]), (Rule::BadCondition, 7, 43));
    assert_eq!(only_error(&text("{to: end, condition: 5}"), &[]).0, Rule::WrongType);
}

#[test]
fn the_shape_of_a_machine_is_checked() {
    for (data, rule) in [
        ("name: x", Rule::MissingKey),
        ("states: {}", Rule::NoStates),
        ("states: []", Rule::WrongType),
        (
            "states:\n  a: {type: initial, transitions: [{to: b}]}\n  b: {type: initial, transitions: [{to: c}]}\n  c: {type: final}",
            Rule::TwoInitial,
        ),
        ("expression_engine: js\nstates: {a: {type: final}}", Rule::WrongValue),
        ("persistence: {backend: redis}\nstates: {a: {type: final}}", Rule::WrongValue),
        ("settings: {max_steps: 0}\nstates: {a: {type: final}}", Rule::WrongValue),
        ("settings: {max_steps: ten}\nstates: {a: {type: final}}", Rule::WrongType),
        ("settings: {max_cost: -1}\nstates: {a: {type: final}}", Rule::WrongType),
        ("settings: {tools: [lookup, look]}\nstates: {a: {type: final}}", Rule::UnknownTool),
        ("settings: {output_schema: {type: nothing}}\nstates: {a: {type: final}}", Rule::BadSchema),
        ("settings: {input_schema: {type: nothing}}\nstates: {a: {type: final}}", Rule::BadSchema),
        ("machines: {c: {path: ./c.yml, contract: {max_token: 5}}}\nstates: {a: {type: final}}", Rule::UnknownKey),
        ("machines: {c: {path: ./c.yml, contract: {max_tokens: many}}}\nstates: {a: {type: final}}", Rule::WrongType),
        ("settings: {conversation: {on_near: b}}\nstates: {a: {type: final}}", Rule::UnknownState),
        ("settings: {conversation: {near_percent: 0}}\nstates: {a: {type: final}}", Rule::WrongValue),
        ("settings: {conversation: {saving_percent: 101}}\nstates: {a: {type: final}}", Rule::WrongValue),
        ("settings: {timeout: 0}\nstates: {a: {type: final}}", Rule::WrongValue),
        ("settings: {conversation: {max_tokens: 0}}\nstates: {a: {type: final}}", Rule::WrongValue),
        ("settings: {near_percent: 0}\nstates: {a: {type: final}}", Rule::WrongValue),
        ("settings: {conversation: {nearly: 80}}\nstates: {a: {type: final}}", Rule::UnknownKey),
        ("settings: {pool: a b}\nstates: {a: {type: final}}", Rule::WrongValue),
        ("settings: {pools: {a: gpu}}\nstates: {a: {type: final}}", Rule::MissingKey),
        ("settings: {pool: cpu, pools: {b: gpu}}\nstates: {a: {type: final}}", Rule::UnknownState),
        ("settings: {priority: urgent}\nstates: {a: {type: final}}", Rule::WrongValue),
        ("settings: {parallel_fallback: maybe}\nstates: {a: {type: final}}", Rule::WrongValue),
        ("state: {a: {type: final}}\nstates: {a: {type: final}}", Rule::UnknownKey),
        ("context: [1]\nstates: {a: {type: final}}", Rule::WrongType),
        ("context: {a: \"{{ b\"}\nstates: {a: {type: final}}", Rule::BadTemplate),
        ("context: {a: .nan}\nstates: {a: {type: final}}", Rule::NotFinite),
        ("lifecycle_hooks: [{args: {}}]\nstates: {a: {type: final}}", Rule::MissingKey),
    ] {
        assert_eq!(only_error(&machine(data), &[]).0, rule, "{data}");
    }
}

#[test]
fn a_document_of_another_kind_is_refused() {
    for (text, rule) in [
        ("spec: flatagent\nspec_version: \"4.2\"\ndata: {}", Rule::WrongKind),
        ("spec: flatagents-runtime\nspec_version: \"4.2\"", Rule::WrongKind),
        ("spec: flatmachines\ndata: {states: {a: {type: final}}}", Rule::WrongKind),
        ("spec: flatmachine\nspec_version: \"5.0\"\ndata: {states: {a: {type: final}}}", Rule::UnsupportedVersion),
        ("spec: flatmachine\nspec_version: new\ndata: {states: {a: {type: final}}}", Rule::WrongValue),
        ("data: {states: {a: {type: final}}}", Rule::MissingKey),
        ("spec: flatmachine\nspec_version: \"4.2\"", Rule::MissingKey),
        ("- a\n- b", Rule::WrongType),
        ("just text", Rule::WrongType),
        ("spec: flatmachine\nspec: flatmachine\ndata: {states: {a: {type: final}}}", Rule::DuplicateKey),
    ] {
        assert_eq!(only_error(text, &[]).0, rule, "{text}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let agent = |path: &str| machine(&format!("agents: {{x: {path}}}\nstates: {{a: {{type: final, agent: x}}}}"));
    let child = |path: &str| machine(&format!("machines: {{x: {path}}}\nstates: {{a: {{type: final, machine: x}}}}"));
    assert_eq!(only_error(&agent("./none.yml"), &[]), (Rule::FileMissing, 4, 15));
    assert_eq!(only_error(&child("./none.yml"), &[]), (Rule::FileMissing, 4, 17));
    assert_eq!(only_error(&agent("/etc/passwd"), &[]).0, Rule::BadPath);
    assert_eq!(only_error(&agent("profiles.yml"), &[]).0, Rule::WrongKind);
    assert_eq!(only_error(&child("profiles.yml"), &[]).0, Rule::WrongKind);
    let missing_prompt = "spec: flatagent\nspec_version: \"4.2\"\ndata: {prompt: ./p.yml, profile: main}";
    assert_eq!(only_error(&agent("./x.yml"), &[("x.yml", missing_prompt)]), (Rule::FileMissing, 3, 16));
    let found = findings("", &[], &bare());
    assert_eq!(found[0].code, Rule::Syntax);
    let nothing = load(&MemoryFiles::new(), "machine.yml", &bare()).expect_err("no file");
    assert_eq!((nothing[0].code, nothing[0].file.as_str()), (Rule::FileMissing, "machine.yml"));
}

#[test]
fn bytes_that_are_no_text_and_sizes_beyond_the_bounds_are_refused() {
    let load = |bytes: Vec<u8>| {
        let files = MemoryFiles::new().with("machine.yml", bytes);
        load(&files, "machine.yml", &bare()).expect_err("refused")
    };
    let found = load(b"spec: flatmachine\nname: \xff\xfe\n".to_vec());
    assert_eq!((found[0].code, found[0].line, found[0].column), (Rule::NotUtf8, 2, 7));
    let found = load(vec![b'a'; 5 * 1024 * 1024]);
    assert_eq!((found[0].code, found[0].file.as_str()), (Rule::TooLarge, "machine.yml"));
    let mut bomb = String::from("spec: flatmachine\ndata:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..40 {
        let items = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("  a{i}: &a{i} [{items}]\n"));
    }
    assert_eq!(load(bomb.into_bytes())[0].code, Rule::TooLarge);
    let deep = format!("spec: flatmachine\ndata: {}1{}", "{a: ".repeat(500), "}".repeat(500));
    assert!(matches!(load(deep.into_bytes())[0].code, Rule::TooLarge | Rule::Syntax));
}

#[test]
fn agents_and_prompts_are_checked() {
    let agent = |data: &str| {
        machine(&format!(
            "agents:\n  x:\n    spec: flatagent\n    spec_version: \"4.2\"\n    data: {data}\nstates: {{a: {{type: final, agent: x}}}}"
        ))
    };
    for (data, rule) in [
        ("{prompt: {user: q}}", Rule::MissingKey),
        ("{profile: main}", Rule::MissingKey),
        ("{prompt: {user: q}, profile: mian, model: main}", Rule::UnknownKey),
        ("{prompt: {user: q, usr: q}, profile: main}", Rule::UnknownKey),
        ("{prompt: {user: \"{{ a b }}\"}, profile: main}", Rule::BadTemplate),
        ("{prompt: {user: q, output: {a: {type: string}}}, profile: main}", Rule::WrongValue),
        ("{prompt: {user: q, output: {a: str}}, profile: main}", Rule::WrongType),
        ("{prompt: {user: q, tools: [{type: function, function: {}}]}, profile: main}", Rule::MissingKey),
        (
            "{prompt: {user: q, tools: [{type: function, function: {name: t, parameters: {type: 5}}}]}, profile: main}",
            Rule::BadSchema,
        ),
        (
            "{prompt: {user: q, tools: [{type: function, function: {name: t}}, {type: function, function: {name: t}}]}, profile: main}",
            Rule::DuplicateName,
        ),
        (
            "{prompt: {user: q}, profile: {spec: flatprofile, data: {model_profiles: {a: {name: m}, b: {name: n}}}}}",
            Rule::UnknownProfile,
        ),
        ("{model: {name: m, oauth: {}}, user: q}", Rule::Blocked),
    ] {
        let found = findings(&agent(data), &[], &options());
        assert!(found.iter().any(|d| d.code == rule), "{data}: {}", shown(&found));
        load_with(&agent(data), &[], &options()).expect_err(data);
    }
}

#[test]
fn profiles_are_resolved_or_refused() {
    let agent = machine(
        "agents: {x: {spec: flatagent, spec_version: \"4.2\", data: {prompt: {user: q}, profile: fast}}}\nstates: {a: {type: final, agent: x}}",
    );
    let refused = |catalog: &str| only_error(&agent, &[("profiles.yml", catalog)]).0;
    assert_eq!(
        refused("spec: flatprofile\ndata: {model_profiles: {slow: {name: m, provider: p}}}"),
        Rule::UnknownProfile
    );
    assert_eq!(refused("spec: flatprofile\ndata: {model_profiles: {fast: {provider: p}}}"), Rule::MissingKey);
    assert_eq!(
        refused("spec: flatprofile\ndata: {model_profiles: {fast: {name: m, provider: p}}, override: gone}"),
        Rule::UnknownProfile
    );
    assert_eq!(refused("spec: flatprofile\ndata: {model_profiles: {fast: {type: codex-cli}}}"), Rule::Blocked);
    assert_eq!(
        refused("spec: flatprofile\ndata: {model_profiles: {fast: {name: m, provider: p, backend: codex}}}"),
        Rule::Blocked
    );
    assert_eq!(refused("spec: flatagent\ndata: {}").as_str(), Rule::WrongKind.as_str());
    let no_catalog = load(&MemoryFiles::new().with("machine.yml", agent.as_str()), "machine.yml", &bare());
    assert_eq!(no_catalog.expect_err("refused")[0].code, Rule::UnknownProfile);
}

#[test]
fn hooks_must_be_known() {
    let text = machine("states: {a: {type: final, hooks: [logging, metrics, mine]}}");
    let found = findings(&text, &[], &bare());
    assert_eq!((found.len(), found[0].code), (1, Rule::UnknownHook));
    load_with(&text, &[], &options()).expect("the catch-all has it");
    let webhook = machine("lifecycle_hooks: webhook\nstates: {a: {type: final}}");
    assert_eq!(findings(&webhook, &[], &bare())[0].code, Rule::UnknownHook);
    let action = machine("states: {a: {type: final, action: greet, hooks: logging}}");
    assert_eq!(findings(&action, &[], &bare())[0].code, Rule::UnknownAction);
}

#[test]
fn machines_that_never_end_are_refused_and_recursion_that_can_stop_is_not() {
    let endless = machine(
        "machines: {me: ./machine.yml}\nstates:\n  a: {machine: me, transitions: [{to: b}]}\n  b: {type: final}",
    );
    assert_eq!(only_error(&endless, &[]), (Rule::MachineCycle, 6, 18));
    let launching = endless.replace("machine: me", "launch: me");
    assert_eq!(only_error(&launching, &[]).0, Rule::MachineCycle);
    let guarded = machine(
        "machines: {me: ./machine.yml}\nstates:\n  a: {transitions: [{condition: context.stop, to: b}, {to: c}]}\n  c: {machine: me, transitions: [{to: b}]}\n  b: {type: final}",
    );
    load_with(&guarded, &[], &options()).expect("it can stop");
    let each = machine(
        "machines: {me: ./machine.yml}\nstates:\n  a: {foreach: context.l, machine: me, transitions: [{to: b}]}\n  b: {type: final}",
    );
    load_with(&each, &[], &options()).expect("the list may be empty");
    let first = machine("machines: {other: ./other.yml}\nstates: {a: {type: final, machine: other}}");
    let second = machine("machines: {first: ./machine.yml}\nstates: {a: {type: final, machine: first}}");
    let both = findings(&first, &[("other.yml", &second)], &options());
    assert_eq!(both.iter().filter(|d| d.code == Rule::MachineCycle).count(), 2, "{}", shown(&both));
    let forever = machine("states:\n  a: {wait_for: x, transitions: [{to: a}]}");
    load_with(&forever, &[], &options()).expect("a machine that waits forever is no circle of machines");
}

#[test]
fn inline_keys_are_refused_on_request() {
    let text = machine("states: {a: {type: final}}");
    let catalog = "spec: flatprofile\ndata: {model_profiles: {a: {name: m, provider: p, api_key: sk-123}}}";
    let strict = LoadOptions { refuse_inline_keys: true, ..bare() };
    let found = load_with(&text, &[("profiles.yml", catalog)], &strict).expect_err("refused");
    assert_eq!((found[0].code, found[0].line), (Rule::InlineKey, 2));
    assert!(!shown(&found).contains("sk-123"), "the key is not repeated");
    let fine = catalog.replace("sk-123", "env:MY_KEY");
    load_with(&text, &[("profiles.yml", &fine)], &strict).expect("a reference");
}

#[test]
fn credentials_that_cannot_be_taken_out_are_refused() {
    let text = machine("states: {a: {type: final}}");
    let catalog = |settings: &str| {
        format!("spec: flatprofile\ndata: {{model_profiles: {{a: {{name: m, provider: p, {settings}}}}}}}")
    };
    for settings in [
        "base_url: 'https://me:hush-12345@host/v1'",
        "base_url: 'https://host/v1?api_key=hush-12345'",
        "base_url: 'https://host/v1?key=hush-12345'",
        "extra_headers: {Authorization: Bearer hush-12345}",
        "extra_headers: {x-api-key: hush-12345}",
        "aws_secret_access_key: hush-12345",
    ] {
        let found = load_with(&text, &[("profiles.yml", &catalog(settings))], &bare()).expect_err(settings);
        assert_eq!((found[0].code, found[0].line), (Rule::InlineKey, 2), "{settings}");
        assert!(!shown(&found).contains("hush"), "{}", shown(&found));
    }
    for settings in
        ["extra_headers: {x-api-key: env:KEY}", "base_url: 'https://host:1/v1?version=2'", "eos_token: <end>"]
    {
        load_with(&text, &[("profiles.yml", &catalog(settings))], &bare()).expect(settings);
    }
    let hook = machine(
        "lifecycle_hooks: {name: webhook, args: {url: 'https://me:hush-12345@host/'}}\nstates: {a: {type: final}}",
    );
    let found = load_with(&hook, &[], &bare()).expect_err("refused");
    assert!(found.iter().any(|d| d.code == Rule::InlineKey) && !shown(&found).contains("hush"), "{}", shown(&found));
}

#[test]
fn lines_are_quoted_without_credentials() {
    let text = machine("states: {a: {type: final}}");
    for catalog in [
        "spec: flatprofile\ndata: {model_profiles: {a: {name: m, provider: p, api_key: hush-12345, type: [1]}}}",
        "spec: flatprofile\ndata:\n  model_profiles:\n    a:\n      name: m\n      api_key:\n        hush-12345: x: y\n",
    ] {
        let found = load_with(&text, &[("profiles.yml", catalog)], &bare()).expect_err("refused");
        assert!(!found.iter().any(|d| d.excerpt.contains("hush")), "{}", shown(&found));
        assert!(found.iter().any(|d| d.excerpt.contains("**********")), "{}", shown(&found));
    }
}

const WHOLE: &str = "\
spec: flatmachine
spec_version: \"4.2\"
data:
  context: {a: &a [1, 2.5, ~], b: \"{{ input.b | upper }}\", c: *a}
  agents: {x: {spec: flatagent, data: {model: {profile: main, api_key: 'sk-1'}, user: \"é {{ input.q }}\"}}}
  machines: {kid: {spec: flatmachine, data: {states: {e: {type: final}}}}}
  states:
    s:
      agent: x
      tool_loop: {max_turns: 3}
      execution: {type: retry, backoffs: [1]}
      on_error: {default: e}
      transitions:
        - condition: context.a == 1
          to: t
        - to: e
    t: {foreach: context.c, machine: kid, as: i, key: \"{{ i }}\", transitions: [{to: e}]}
    e: {type: final, output: {x: |
        text
    }}
";

#[test]
fn the_document_that_is_damaged_below_is_valid() {
    load_with(WHOLE, &[], &options()).unwrap_or_else(|found| panic!("{}", shown(&found)));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    #[test]
    fn prop_damaged_documents_never_panic(
        cuts in proptest::collection::vec((0..WHOLE.len(), 0..40usize, "[ \n:{}\\[\\],&*<|'\"%a-f0-9é-]{0,6}"), 1..4)
    ) {
        let mut text = WHOLE.to_owned();
        for (at, length, with) in cuts {
            let start = text.floor_char_boundary(at.min(text.len()));
            let end = text.floor_char_boundary((start + length).min(text.len()));
            text.replace_range(start..end, &with);
        }
        for found in findings(&text, &[], &options()) {
            let _ = found.render();
        }
    }
}

#[test]
fn a_wrong_type_comes_with_advice() {
    for state in [
        "agent: [x]",
        "agent: x\nexecution: retry",
        "agent: x\nexecution: {type: retry, backoffs: [-1]}",
        "agent: x\ntool_loop: 5",
        "on_error: [end]",
        "timeout: 5s",
        "input: \"{{ context }}\"",
        "foreach: context.l\nmachine: [kid, kid]",
        "output_to_context: [a]",
        "action: 5",
    ] {
        let found = findings(&with_state(state), &[], &options());
        let wrong: Vec<_> = found.iter().filter(|finding| finding.code == Rule::WrongType).collect();
        assert!(!wrong.is_empty(), "{state}: {}", shown(&found));
        assert!(
            wrong.iter().all(|f| f.advice.as_deref().is_some_and(|text| text.len() > 5)),
            "{state}: {}",
            shown(&found)
        );
    }
    let itself = findings("a: &x\n  b: *x\n", &[], &options());
    assert!(itself[0].advice.as_deref().is_some_and(|text| text.contains("anchor")), "{}", shown(&itself));
}

#[test]
fn what_a_child_declassifies_is_bounded_by_its_schema() {
    let desk = |schema: &str, parts: &str| {
        machine(&format!(
            "machines:\n  kid:\n    contract: {{declassified: {parts}}}\n    inline: {{spec: flatmachine, spec_version: \"4.2\", \
             data: {{name: kid, settings: {{{schema}}}, states: {{e: {{type: final}}}}}}}}\n\
             states:\n  a: {{type: initial, machine: kid, transitions: [{{to: end}}]}}\n  end: {{type: final}}"
        ))
    };
    let bounded = "output_schema: {properties: {kind: {enum: [refund]}, text: {type: string, maxLength: 20}}}";
    let loaded = load_with(&desk(bounded, "[/kind]"), &[], &options()).expect("loads");
    let contract = &loaded.program.machines["machine.yml"].child_contracts["kid"];
    assert!(contract.output_schema.get("properties").is_some(), "{contract:?}");
    for (schema, parts, why) in [
        (bounded, "[/kind, /text]", "its schema allows free text"),
        (bounded, "[\"\"]", "no schema says what it is"),
        ("", "[/kind]", "no schema says what it is"),
    ] {
        let found = findings(&desk(schema, parts), &[], &options());
        assert_eq!(found.len(), 1, "{}", shown(&found));
        assert_eq!((found[0].code, found[0].line), (Rule::WrongValue, 6), "{}", shown(&found));
        assert!(found[0].message.contains(why) && found[0].message.contains("`kid`"), "{}", shown(&found));
    }
}
