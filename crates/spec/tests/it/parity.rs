//! Every field of the published schema is in the feature table, and a change of it is seen: in the program or as a
//! finding.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use windlass_spec::features::{Origin, Tier, rows};
use windlass_spec::load;
use windlass_spec::source::MemoryFiles;

use crate::documents::{options, shown};
use crate::drive::{Manner, trace};

const FIELDS: &str = include_str!("fixtures/schema-fields.txt");

fn published() -> BTreeSet<String> {
    FIELDS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| {
            let (name, fields) = line.split_once(": ").expect("a declaration and its fields");
            fields.split(' ').map(move |field| format!("{name}.{field}"))
        })
        .collect()
}

#[test]
fn the_table_has_every_field_of_the_published_schema_and_no_other() {
    let table: BTreeSet<String> =
        rows().into_iter().filter(|row| row.origin == Origin::Format).map(|row| row.field).collect();
    let published = published();
    let missing: Vec<_> = published.difference(&table).collect();
    let invented: Vec<_> = table.difference(&published).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing: {missing:?}, invented: {invented:?}");
}

#[test]
fn no_field_is_described_twice_or_without_words() {
    let rows = rows();
    let distinct: BTreeSet<&String> = rows.iter().map(|row| &row.field).collect();
    assert_eq!(distinct.len(), rows.len());
    assert!(rows.iter().all(|row| row.about.ends_with(['.', ':']) && !row.about.contains('\n')));
}

type Documents = BTreeMap<&'static str, Value>;

fn base() -> Documents {
    BTreeMap::from([
        ("machine.yml", machine()),
        (
            "other.yml",
            json!({"spec": "flatmachine", "spec_version": "4.2", "data": {"states": {"end": {"type": "final"}}}}),
        ),
        (
            "x.yml",
            json!({"spec": "flatagent", "spec_version": "4.2", "data": {"prompt": "./p.yml", "profile": "main"}}),
        ),
        (
            "p.yml",
            json!({"spec": "prompt", "spec_version": "4.2", "data": {
                "user": "{{ input.q }}",
                "output": {"a": {"type": "str"}, "l": {"type": "list"}, "o": {"type": "object"}},
                "tools": [{"type": "function", "function": {"name": "t"}}],
            }}),
        ),
        (
            "old.yml",
            json!({"spec": "flatagent", "spec_version": "2.0", "data": {"model": "wrapped", "user": "u",
                "mcp": {"servers": {"s": {}}, "tool_filter": {}}}}),
        ),
        (
            "profiles.yml",
            json!({"spec": "flatprofile", "spec_version": "4.2", "data": {"model_profiles": {
                "main": {"provider": "openai", "name": "small"},
                "second": {"seed": 1},
                "wrapped": {"type": "llm", "model": {"provider": "p", "name": "w"}},
            }}}),
        ),
    ])
}

fn machine() -> Value {
    json!({
        "spec": "flatmachine",
        "spec_version": "4.2",
        "data": {
            "name": "base",
            "context": {"n": 1, "text": "1", "list": [{"id": "a"}, {"id": "b"}], "other": [5]},
            "agents": {
                "x": "./x.yml",
                "old": "./old.yml",
                "typed": {"type": "flatagent", "ref": "./x.yml"},
                "own": {"spec": "flatagent", "data": {"prompt": {"user": "u"}, "profile": {
                    "spec": "flatprofile", "data": {"model_profiles": {"a": {"provider": "p", "name": "m"}}}
                }}},
            },
            "machines": {
                "kid": {"spec": "flatmachine", "spec_version": "4.2",
                    "data": {"states": {"end": {"type": "final"}}}},
                "other": {"path": "./other.yml"},
            },
            "settings": {"max_steps": 9},
            "states": {
                "ask": {"type": "initial", "agent": "x", "input": {"q": "1"},
                    "execution": {"type": "retry", "backoffs": [1]},
                    "transitions": [{"condition": "context.n == 1", "to": "loop"}, {"to": "loop"}]},
                "loop": {"agent": "x", "tool_loop": {"max_turns": 3}, "on_error": "many",
                    "transitions": [{"condition": "context.text == 1", "to": "many"}, {"to": "many"}]},
                "many": {"machine": [{"name": "kid", "input": {"a": 1}}, {"name": "other"}],
                    "input": {"b": 2}, "transitions": [{"to": "each"}]},
                "each": {"foreach": "context.list", "machine": "kid", "input": {"it": "{{ item.id }}"}, "transitions": [{"to": "sample"}]},
                "sample": {"agent": "typed", "on_error": "vote", "execution": {"type": "parallel", "n_samples": 2},
                    "transitions": [{"to": "vote"}]},
                "vote": {"agent": "old", "execution": {"type": "mdap_voting"}, "transitions": [{"to": "wait"}]},
                "wait": {"wait_for": "ch", "transitions": [{"to": "start"}]},
                "start": {"launch": "kid", "hooks": {"name": "h"}, "transitions": [{"to": "end"}]},
                "end": {"type": "final", "output": {"n": "context.n"}},
            },
        },
    })
}

/// What a load shows: the program without hashes of documents, and the findings.
fn seen(documents: &Documents) -> String {
    let files = documents.iter().fold(MemoryFiles::new(), |files, (path, value)| {
        files.with(path, serde_json::to_vec_pretty(value).expect("JSON"))
    });
    match load(&files, "machine.yml", &options()) {
        Ok(loaded) => {
            let hash = loaded.program.bundle.to_string();
            format!("{:?}\n{}", loaded.program, shown(&loaded.diagnostics)).replace(&hash, "-")
        }
        Err(found) => shown(&found),
    }
}

/// The base documents with one value set. A pointer's last part may be a key that is not there yet; `null` removes.
fn changed(file: &str, pointer: &str, value: &Value) -> Documents {
    let mut documents = base();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let document = documents.get_mut(file).expect("a document");
    let place = document.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent} in {file}"));
    match (place, value) {
        (Value::Object(map), Value::Null) => {
            map.remove(key).expect("something to remove");
        }
        (Value::Object(map), value) => {
            map.insert(key.to_owned(), value.clone());
        }
        (Value::Array(items), value) => items[key.parse::<usize>().expect("an index")] = value.clone(),
        (other, _) => panic!("{parent} is {other}"),
    }
    documents
}

/// One change for each field: the file, where, and the value.
fn changes() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    const M: &str = "machine.yml";
    let mut all = vec![
        ("MachineWrapper.spec", M, "/spec", json!("flatagent")),
        ("MachineWrapper.spec_version", M, "/spec_version", json!("4.0")),
        ("MachineWrapper.data", M, "/data", Value::Null),
        ("MachineWrapper.metadata", M, "/metadata", json!(5)),
        ("MachineData.name", M, "/data/name", json!("changed")),
        ("MachineData.expression_engine", M, "/data/expression_engine", json!("cel")),
        ("MachineData.context", M, "/data/context", json!({"n": 2})),
        ("MachineData.agents", M, "/data/agents/x", json!("./old.yml")),
        ("MachineData.machines", M, "/data/machines/kid", json!("./other.yml")),
        ("MachineData.states", M, "/data/states/end", json!({"type": "final", "output": {"n": 9}})),
        ("MachineData.settings", M, "/data/settings", json!({})),
        ("MachineData.persistence", M, "/data/persistence", json!({"backend": "redis"})),
        ("MachineData.lifecycle_hooks", M, "/data/lifecycle_hooks", json!("h")),
        ("AgentRefConfig.type", M, "/data/agents/typed/type", json!("codex-cli")),
        ("AgentRefConfig.ref", M, "/data/agents/typed/ref", json!("./old.yml")),
        ("AgentRefConfig.config", M, "/data/agents/typed/config", json!({"data": {"profile": "second"}})),
        ("MachineReference.path", M, "/data/machines/other/path", json!("./x.yml")),
        (
            "MachineReference.inline",
            M,
            "/data/machines/other",
            json!({"inline": {"spec": "flatmachine",
            "data": {"name": "inline", "states": {"end": {"type": "final"}}}}}),
        ),
        ("MachineSettings.max_steps", M, "/data/settings/max_steps", json!(7)),
        ("MachineSettings.parallel_fallback", M, "/data/settings/parallel_fallback", json!("never")),
        ("MachineSettings.max_depth", M, "/data/settings/max_depth", json!(2)),
        ("StateDefinition.type", M, "/data/states/start/type", json!("initial")),
        ("StateDefinition.on_error", M, "/data/states/loop/on_error", json!("end")),
        ("StateDefinition.timeout", M, "/data/states/ask/timeout", json!(1.5)),
        ("StateDefinition.transitions", M, "/data/states/ask/transitions", json!([{"to": "end"}])),
        ("StateDefinition.input", M, "/data/states/ask/input", json!({"q": "2"})),
        ("StateDefinition.output", M, "/data/states/end/output", json!({"n": 5})),
        ("StateDefinition.output_to_context", M, "/data/states/ask/output_to_context", json!({"a": "output.a"})),
        ("StateDefinition.agent", M, "/data/states/ask/agent", json!("old")),
        ("StateDefinition.execution", M, "/data/states/ask/execution", Value::Null),
        ("StateDefinition.sampling", M, "/data/states/ask/sampling", json!("multi")),
        ("StateDefinition.tool_loop", M, "/data/states/ask/tool_loop", json!(true)),
        ("StateDefinition.as", M, "/data/states/each/as", json!("row")),
        ("StateDefinition.foreach", M, "/data/states/each/foreach", json!("context.other")),
        ("StateDefinition.key", M, "/data/states/each/key", json!("{{ item.id }}")),
        ("StateDefinition.machine", M, "/data/states/each/machine", json!("other")),
        ("StateDefinition.mode", M, "/data/states/each/mode", json!("any")),
        ("StateDefinition.action", M, "/data/states/ask/action", json!("lookup")),
        ("StateDefinition.hooks", M, "/data/states/ask/hooks", json!("h")),
        ("StateDefinition.wait_for", M, "/data/states/wait/wait_for", json!("ch2")),
        ("StateDefinition.launch", M, "/data/states/start/launch", json!(["other"])),
        ("StateDefinition.launch_input", M, "/data/states/start/launch_input", json!({"a": 1})),
        ("Transition.condition", M, "/data/states/ask/transitions/0/condition", json!("context.n == 2")),
        ("Transition.to", M, "/data/states/ask/transitions/0/to", json!("end")),
        ("MachineInput.name", M, "/data/states/many/machine/0/name", json!("nobody")),
        ("MachineInput.input", M, "/data/states/many/machine/0/input", json!({"a": 2})),
        ("HooksRefConfig.name", M, "/data/states/start/hooks/name", json!("g")),
        ("HooksRefConfig.args", M, "/data/states/start/hooks/args", json!({"a": 1})),
        ("PersistenceConfig.enabled", M, "/data/persistence", json!({"enabled": false})),
        ("PersistenceConfig.backend", M, "/data/persistence", json!({"backend": "redis"})),
        ("PersistenceConfig.db_path", M, "/data/persistence", json!({"db_path": "x.db"})),
        ("PersistenceConfig.checkpoint_on", M, "/data/persistence", json!({"checkpoint_on": ["execute"]})),
    ];
    all.extend(execution_changes());
    all.extend(agent_changes());
    all
}

fn execution_changes() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    const M: &str = "machine.yml";
    vec![
        ("ExecutionConfig.type", M, "/data/states/ask/execution/type", json!("default")),
        ("ExecutionConfig.backoffs", M, "/data/states/ask/execution/backoffs", json!([2])),
        ("ExecutionConfig.jitter", M, "/data/states/ask/execution/jitter", json!(0.5)),
        ("ExecutionConfig.n_samples", M, "/data/states/sample/execution/n_samples", json!(4)),
        ("ExecutionConfig.k_margin", M, "/data/states/vote/execution/k_margin", json!(2)),
        ("ExecutionConfig.max_candidates", M, "/data/states/vote/execution/max_candidates", json!(5)),
        ("ToolLoopStateConfig.max_tool_calls", M, "/data/states/loop/tool_loop/max_tool_calls", json!(4)),
        ("ToolLoopStateConfig.max_turns", M, "/data/states/loop/tool_loop/max_turns", json!(4)),
        ("ToolLoopStateConfig.allowed_tools", M, "/data/states/loop/tool_loop/allowed_tools", json!(["u"])),
        ("ToolLoopStateConfig.denied_tools", M, "/data/states/loop/tool_loop/denied_tools", json!(["t"])),
        ("ToolLoopStateConfig.tool_timeout", M, "/data/states/loop/tool_loop/tool_timeout", json!(4)),
        ("ToolLoopStateConfig.total_timeout", M, "/data/states/loop/tool_loop/total_timeout", json!(4)),
        ("ToolLoopStateConfig.max_cost", M, "/data/states/loop/tool_loop/max_cost", json!(0.4)),
    ]
}

fn agent_changes() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    vec![
        ("AgentWrapper.spec", "x.yml", "/spec", json!("flatmachine")),
        ("AgentWrapper.spec_version", "x.yml", "/spec_version", json!("5.0")),
        ("AgentWrapper.data", "x.yml", "/data", Value::Null),
        ("AgentWrapper.metadata", "old.yml", "/metadata", json!({"mdap": {"k_margin": 5}})),
        ("AgentData.prompt", "x.yml", "/data/prompt", json!({"user": "changed"})),
        ("AgentData.profile", "x.yml", "/data/profile", json!("wrapped")),
        ("PromptWrapper.spec", "p.yml", "/spec", json!("flatagent")),
        ("PromptWrapper.spec_version", "p.yml", "/spec_version", json!("5.0")),
        ("PromptWrapper.data", "p.yml", "/data", json!({"user": "changed"})),
        ("PromptWrapper.metadata", "p.yml", "/metadata", json!(5)),
        ("PromptData.name", "p.yml", "/data/name", json!(["no text"])),
        ("PromptData.system", "p.yml", "/data/system", json!("changed")),
        ("PromptData.user", "p.yml", "/data/user", json!("changed")),
        ("PromptData.instruction_suffix", "p.yml", "/data/instruction_suffix", json!("changed")),
        ("PromptData.post_history_instructions", "p.yml", "/data/post_history_instructions", json!("changed")),
        ("PromptData.output", "p.yml", "/data/output", Value::Null),
        ("PromptData.mcp", "p.yml", "/data/mcp", json!({})),
        ("PromptData.tools", "p.yml", "/data/tools", json!([])),
        ("OutputFieldDef.type", "p.yml", "/data/output/a/type", json!("int")),
        ("OutputFieldDef.description", "p.yml", "/data/output/a/description", json!("changed")),
        ("OutputFieldDef.enum", "p.yml", "/data/output/a/enum", json!(["b"])),
        ("OutputFieldDef.required", "p.yml", "/data/output/a/required", json!(true)),
        ("OutputFieldDef.items", "p.yml", "/data/output/l/items", json!({"type": "int"})),
        ("OutputFieldDef.properties", "p.yml", "/data/output/o/properties", json!({"b": {"type": "int"}})),
        ("ToolDefinition.type", "p.yml", "/data/tools/0/type", json!("retrieval")),
        ("ToolDefinition.function", "p.yml", "/data/tools/0/function", json!({"name": "u"})),
        ("ToolDefinition.function.name", "p.yml", "/data/tools/0/function/name", json!("u")),
        ("ToolDefinition.function.description", "p.yml", "/data/tools/0/function/description", json!("changed")),
        ("ToolDefinition.function.parameters", "p.yml", "/data/tools/0/function/parameters", json!({"type": "object"})),
        ("MCPConfig.servers", "old.yml", "/data/mcp/servers", Value::Null),
        ("MCPConfig.tool_filter", "old.yml", "/data/mcp/tool_filter", Value::Null),
        ("MCPConfig.tool_prompt", "old.yml", "/data/mcp/tool_prompt", json!("x")),
        ("MCPServerDef.command", "old.yml", "/data/mcp/servers/s/command", json!("x")),
        ("MCPServerDef.args", "old.yml", "/data/mcp/servers/s/args", json!(["x"])),
        ("MCPServerDef.env", "old.yml", "/data/mcp/servers/s/env", json!({"A": "x"})),
        ("MCPServerDef.server_url", "old.yml", "/data/mcp/servers/s/server_url", json!("x")),
        ("MCPServerDef.headers", "old.yml", "/data/mcp/servers/s/headers", json!({"A": "x"})),
        ("MCPServerDef.timeout", "old.yml", "/data/mcp/servers/s/timeout", json!(1)),
        ("ToolFilter.allow", "old.yml", "/data/mcp/tool_filter/allow", json!(["x"])),
        ("ToolFilter.deny", "old.yml", "/data/mcp/tool_filter/deny", json!(["x"])),
        ("ProfileWrapper.spec", "profiles.yml", "/spec", json!("flatmachine")),
        ("ProfileWrapper.spec_version", "profiles.yml", "/spec_version", json!("5.0")),
        ("ProfileWrapper.data", "profiles.yml", "/data", json!({"model_profiles": {}})),
        ("ProfileWrapper.metadata", "profiles.yml", "/metadata", json!(5)),
        ("ProfileWrapper.data.model_profiles", "profiles.yml", "/data/model_profiles", json!({})),
        ("ProfileWrapper.data.default", "profiles.yml", "/data/default", json!("second")),
        ("ProfileWrapper.data.override", "profiles.yml", "/data/override", json!("second")),
        ("LLMProfile.type", "profiles.yml", "/data/model_profiles/wrapped/type", json!("codex-cli")),
        (
            "LLMProfile.model",
            "profiles.yml",
            "/data/model_profiles/wrapped/model",
            json!({"provider": "p", "name": "v"}),
        ),
        ("ModelConfig.name", "profiles.yml", "/data/model_profiles/main/name", json!("large")),
        ("ModelConfig.provider", "profiles.yml", "/data/model_profiles/main/provider", json!("anthropic")),
        ("ModelConfig.oauth", "profiles.yml", "/data/model_profiles/main/oauth", json!({})),
        ("ModelConfig.backend", "profiles.yml", "/data/model_profiles/main/backend", json!("codex")),
        ("ModelConfig.stream", "profiles.yml", "/data/model_profiles/main/stream", json!(true)),
        ("ModelConfig.base_url", "profiles.yml", "/data/model_profiles/main/base_url", json!("http://x")),
        ("ModelConfig.api", "profiles.yml", "/data/model_profiles/main/api", json!("responses")),
        ("ModelConfig.temperature", "profiles.yml", "/data/model_profiles/main/temperature", json!(0.1)),
        ("ModelConfig.max_tokens", "profiles.yml", "/data/model_profiles/main/max_tokens", json!(5)),
        ("ModelConfig.top_p", "profiles.yml", "/data/model_profiles/main/top_p", json!(0.5)),
        ("ModelConfig.top_k", "profiles.yml", "/data/model_profiles/main/top_k", json!(5)),
        ("ModelConfig.frequency_penalty", "profiles.yml", "/data/model_profiles/main/frequency_penalty", json!(-1)),
        ("ModelConfig.presence_penalty", "profiles.yml", "/data/model_profiles/main/presence_penalty", json!(1)),
        ("ModelConfig.seed", "profiles.yml", "/data/model_profiles/main/seed", json!(5)),
    ]
}

/// Fields that are supported and change no run, with the reason.
const WITHOUT_EFFECT: &[(&str, &str)] =
    &[("PersistenceConfig.enabled", "every run is journaled, so it can only be said that it is")];

/// What runs of documents show, however the world behaves. None for documents that are refused.
fn driven(documents: &Documents) -> Option<Vec<String>> {
    let files = documents.iter().fold(MemoryFiles::new(), |files, (path, value)| {
        files.with(path, serde_json::to_vec_pretty(value).expect("JSON"))
    });
    let program = load(&files, "machine.yml", &options()).ok()?.program;
    Some(Manner::ALL.map(|manner| trace(&program, manner)).to_vec())
}

#[test]
fn every_supported_field_changes_what_a_run_does() {
    let unchanged = driven(&base()).expect("the base documents load");
    let rows: BTreeMap<String, Tier> = rows().into_iter().map(|row| (row.field, row.tier)).collect();
    let (mut silent, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (field, file, pointer, value) in changes() {
        match driven(&changed(file, pointer, &value)) {
            Some(traces) if traces == unchanged => silent.insert(field),
            _ => seen.insert(field),
        };
    }
    let supported = |field: &&str| rows.get(*field) == Some(&Tier::Supported);
    let silent: Vec<&str> = silent.difference(&seen).copied().filter(supported).collect();
    let known: Vec<&str> = WITHOUT_EFFECT.iter().map(|(field, _)| *field).collect();
    assert_eq!(silent, known, "no run shows a change of these");
    assert!(WITHOUT_EFFECT.iter().all(|(_, why)| !why.is_empty()));
}

#[test]
fn every_field_changes_the_program_or_is_refused() {
    let unchanged = seen(&base());
    assert!(unchanged.starts_with("Program"), "{unchanged}");
    let mut tested = BTreeSet::new();
    for (field, file, pointer, value) in changes() {
        assert_ne!(seen(&changed(file, pointer, &value)), unchanged, "{field}: nothing shows a change");
        tested.insert(field.to_owned());
    }
    for row in rows().iter().filter(|row| row.origin == Origin::Format) {
        let (section, key) = row.field.rsplit_once('.').expect("a field");
        if tested.contains(&row.field) {
            continue;
        }
        let documents = refused(section, key);
        assert_ne!(seen(&documents), unchanged, "{}: nothing refuses it", row.field);
        tested.insert(row.field.clone());
    }
    assert_eq!(tested, published());
}

/// The base documents with a field in a place where it is refused or warned of.
fn refused(section: &str, key: &str) -> Documents {
    let kind = match section {
        "ClaudeCodeProfile" => Some("claude-code"),
        "CodexCliProfile" => Some("codex-cli"),
        "SmolagentsProfile" => Some("smolagents"),
        "PiAgentProfile" => Some("pi-agent"),
        _ => None,
    };
    if let Some(kind) = kind {
        let mut profile = json!({"type": kind});
        if key != "type" {
            profile[key] = json!("x");
        }
        return changed("profiles.yml", "/data/model_profiles/main", &profile);
    }
    match section {
        "OAuthConfig" => changed("profiles.yml", "/data/model_profiles/main/oauth", &json!({key: "x"})),
        "MachineRuntimeMetadata" => changed("machine.yml", "/data/context/machine", &json!({key: "x"})),
        "SDKRuntimeWrapper" => {
            let mut document = json!({"spec": "flatagents-runtime", "spec_version": "4.2"});
            document[key] = json!("flatagents-runtime");
            BTreeMap::from([("machine.yml", document)])
        }
        // An interface or a wire format: no document has a place for it.
        _ => changed("machine.yml", &format!("/data/{section}"), &json!({key: {}})),
    }
}
