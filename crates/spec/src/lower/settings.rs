//! `data.settings` to ceilings and the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use windlass_core::breakers::Breakers;
use windlass_core::budget::{Beyond, Ceilings, Unpriced};
use windlass_core::contract::Contract;
use windlass_core::ids::Name;
use windlass_core::label::pointer;
use windlass_core::limits::CUT_OUTPUT_BYTES_MIN;
use windlass_core::machine::{ChildContract, Placement, Priority, Provenance, State};
use windlass_core::near::{Conversation, NEAR_PERCENT};
use windlass_core::value::Value;

use crate::diagnostics::{Rule, Sink, suggest};
use crate::eval;
use crate::yaml::Node;

use super::{handoff, texts};

/// Milliseconds of a number of seconds; saturates.
pub(crate) fn millis(seconds: f64) -> u64 {
    (seconds * 1_000.0).round() as u64
}

/// Whether a machine document asks for warnings to be errors.
pub(crate) fn is_strict(root: &Node) -> bool {
    root.get("data")
        .and_then(|data| data.get("settings"))
        .and_then(|settings| settings.get("strict"))
        .and_then(|strict| strict.as_bool())
        .unwrap_or_default()
}

/// The ceilings that a document sets.
pub(crate) fn ceilings(settings: Option<&Arc<Node>>, sink: &mut Sink) -> Ceilings {
    let count = |key: &str| settings.and_then(|s| s.get(key)).and_then(|n| n.as_u64());
    let number = |key: &str| settings.and_then(|s| s.get(key)).and_then(|n| n.as_f64());
    if let Some(entry) = settings.and_then(|s| s.entry("max_steps"))
        && entry.value.as_u64() == Some(0)
    {
        let advice = "leave it out for the default of 1000 steps";
        sink.error(Rule::WrongValue, entry.value.span, "`max_steps` of 0 lets no run begin", advice);
    }
    if let Some(entry) = settings.and_then(|s| s.entry("timeout"))
        && entry.value.as_f64().is_some_and(|seconds| seconds <= 0.0)
    {
        let advice = "leave it out where there is no deadline";
        sink.error(Rule::WrongValue, entry.value.span, "`timeout` is a number of seconds above 0", advice);
    }
    Ceilings {
        steps: count("max_steps"),
        launches: count("max_launches"),
        model_calls: count("max_model_calls"),
        tool_calls: count("max_tool_calls"),
        tokens: count("max_tokens"),
        cost_micros: number("max_cost").map(|dollars| (dollars * 1_000_000.0).round() as u64),
        depth: count("max_depth").map(|depth| u32::try_from(depth).unwrap_or(u32::MAX)),
        wall_ms: number("timeout").filter(|seconds| *seconds > 0.0).map(millis),
        beyond: settings.and_then(|s| s.text("beyond")).and_then(|word| Beyond::parse(word)).unwrap_or_default(),
        unpriced: Unpriced::Allow,
        breakers: Breakers::default(),
    }
}

/// The catalog tools of a machine.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    /// Offered to every tool loop: those named in full.
    pub(crate) offered: Vec<Name>,
    /// Searched by every tool loop: those that a pattern names.
    pub(crate) searched: Vec<Name>,
}

/// The catalog tools that a machine names, one by one or by the beginning of their names and `*`.
pub(crate) fn tools(settings: Option<&Arc<Node>>, known: &BTreeMap<Name, Arc<Contract>>, sink: &mut Sink) -> Tools {
    let mut tools = Tools::default();
    for (name, span) in texts(settings.and_then(|s| s.get("tools"))) {
        if let Some(start) = name.strip_suffix('*') {
            let found: Vec<Name> = known.keys().filter(|known| known.starts_with(start)).cloned().collect();
            if found.is_empty() {
                let advice = "configure such tools in `windlass.toml`, or accept them with `windlass tools accept`";
                sink.error(Rule::UnknownTool, span, format!("no configured tool begins with `{start}`"), advice);
            }
            tools.searched.extend(found);
            continue;
        }
        if !known.contains_key(&name) {
            let advice = suggest(&name, known.keys().map(|k| &**k)).unwrap_or_else(|| match name.split_once("__") {
                Some((server, _)) => format!(
                    "configure it in `windlass.toml` under `[tools]`; a tool of an MCP server `{server}` is accepted \
                         with `windlass tools accept {server}`"
                ),
                None => "configure it in `windlass.toml` under `[tools]`".to_owned(),
            });
            sink.error(Rule::UnknownTool, span, format!("the tool `{name}` is not configured"), advice);
        }
        tools.offered.push(name);
    }
    tools.searched.retain(|name| !tools.offered.contains(name));
    tools.searched.sort_unstable();
    tools.searched.dedup();
    tools
}

/// The schema of the machine's input or output, by its key.
pub(crate) fn schema(settings: Option<&Arc<Node>>, key: &str, sink: &mut Sink) -> Option<Value> {
    let node = settings?.get(key).filter(|n| n.as_map().is_some())?;
    let schema = node.to_value();
    if let Err(failure) = eval::check_schema(&schema) {
        sink.error(Rule::BadSchema, node.span, format!("`{key}` is no JSON Schema: {}", failure.message), ());
    }
    Some(schema)
}

/// What the contract of a child machine says.
pub(crate) fn contract<T>(node: &Arc<Node>, known: &BTreeMap<Name, T>, sink: &mut Sink) -> ChildContract {
    let listed = node.entry("tools").map(|entry| texts(Some(&entry.value)));
    for (name, span) in listed.iter().flatten() {
        let (start, is_pattern) = name.strip_suffix('*').map_or((&**name, false), |start| (start, true));
        if start.contains('*') {
            let message = format!("`{name}` stands for no tool: only a `*` at the end does for others");
            sink.warn(Rule::NoEffect, *span, message, "name the tools, or write `NAME*`");
        } else if !known.is_empty()
            && !known.keys().any(|tool| if is_pattern { tool.starts_with(start) } else { **tool == *start })
        {
            let advice = suggest(start, known.keys().map(|name| &**name));
            sink.warn(Rule::NoEffect, *span, format!("there is no tool or action `{name}`"), advice);
        }
    }
    let cut_output = node.text("larger_output").is_some_and(|word| &**word == "cut");
    let output_bytes = node.get("max_output_bytes").and_then(|n| n.as_u64());
    if let Some(entry) = node.entry("larger_output").filter(|_| output_bytes.is_none()) {
        let message = "`larger_output` has no effect without `max_output_bytes`";
        sink.warn(Rule::NoEffect, entry.key_span, message, "add `max_output_bytes`");
    }
    if let Some(entry) = node.entry("max_output_bytes").filter(|_| cut_output)
        && output_bytes.is_some_and(|bytes| bytes < CUT_OUTPUT_BYTES_MIN)
    {
        let message = format!("an output that is cut needs {CUT_OUTPUT_BYTES_MIN} bytes");
        sink.error(Rule::WrongValue, entry.value.span, message, "allow more, or write `larger_output: fail`");
    }
    ChildContract {
        ceilings: ceilings(Some(node), sink),
        tools: listed.map(|names| names.into_iter().map(|(name, _)| name).collect()),
        output_bytes,
        cut_output,
        handoff: node.get("handoff").map(|envelope| handoff::of(envelope)),
        declassified: pointers(node.get("declassified"), sink),
        output_schema: Value::Null,
    }
}

/// What a machine says about where what it is given comes from.
pub(crate) fn provenance(settings: Option<&Arc<Node>>, sink: &mut Sink) -> Provenance {
    let labels = settings.and_then(|s| s.get("labels"));
    let is_trusted = |key: &str| labels.and_then(|l| l.text(key)).is_some_and(|word| &**word == "trusted");
    Provenance {
        input_trusted: is_trusted("input"),
        signals_trusted: is_trusted("signals"),
        secret_input: pointers(labels.and_then(|l| l.get("secret")), sink),
    }
}

/// Share of each ceiling from which it is nearly used up.
pub(crate) fn near_percent(settings: Option<&Arc<Node>>, sink: &mut Sink) -> u8 {
    percent(settings, "near_percent", sink).unwrap_or(NEAR_PERCENT)
}

/// A share of something, in percent. One that is none is an error.
fn percent(node: Option<&Arc<Node>>, key: &str, sink: &mut Sink) -> Option<u8> {
    let given = node?.get(key)?;
    let percent = given.as_u64().and_then(|n| u8::try_from(n).ok()).filter(|n| (1..=100).contains(n));
    if percent.is_none() {
        sink.error(Rule::WrongValue, given.span, format!("`{key}` is a number from 1 to 100"), ());
    }
    percent
}

/// What a machine says about conversations that get long.
pub(crate) fn conversation(
    settings: Option<&Arc<Node>>,
    states: &IndexMap<Name, State>,
    sink: &mut Sink,
) -> Conversation {
    let mut conversation = Conversation::default();
    let Some(node) = settings.and_then(|s| s.get("conversation")) else { return conversation };
    conversation.near_percent = percent(Some(node), "near_percent", sink).unwrap_or(NEAR_PERCENT);
    conversation.saving_percent = percent(Some(node), "saving_percent", sink);
    if let Some(most) = node.get("max_tokens") {
        conversation.tokens_max = most.as_u64().filter(|most| *most > 0);
        if conversation.tokens_max.is_none() {
            sink.error(Rule::WrongValue, most.span, "`max_tokens` is a number from 1", ());
        }
    }
    let named = node.get("on_near").and_then(|n| n.as_str().map(|name| (name.clone(), n.span)));
    if let Some((name, span)) = named {
        if !states.contains_key(&name) {
            let advice = suggest(&name, states.keys().map(|name| &**name));
            sink.error(Rule::UnknownState, span, format!("the state `{name}` does not exist"), advice);
        }
        conversation.on_near = Some(name);
    }
    check_saving(&conversation, node, sink);
    conversation
}

/// A share while something is nearly used up shortens a conversation sooner, by the state that does so.
fn check_saving(conversation: &Conversation, node: &Node, sink: &mut Sink) {
    let (Some(saving), Some(given)) = (conversation.saving_percent, node.get("saving_percent")) else { return };
    let near = conversation.near_percent;
    if saving >= near {
        let message = format!("`saving_percent` is not below `near_percent`, which is {near}: it never comes first");
        sink.warn(Rule::NoEffect, given.span, message, "make it smaller, or remove it");
    } else if conversation.on_near.is_none() {
        let message = "`saving_percent` shortens nothing without `on_near`: that the conversation is near is only told";
        sink.warn(Rule::NoEffect, given.span, message, "name the state that shortens it with `on_near`, or remove it");
    }
}

/// The paths that JSON Pointers name.
fn pointers(node: Option<&Arc<Node>>, sink: &mut Sink) -> Vec<Vec<Name>> {
    let mut paths = Vec::new();
    for (text, span) in texts(node) {
        match pointer(&text) {
            Some(path) => paths.push(path),
            None => {
                let message = format!("`{text}` is no JSON Pointer");
                sink.error(
                    Rule::WrongValue,
                    span,
                    message,
                    "write it as `/KEY/KEY`, or as an empty text for all of it",
                );
            }
        }
    }
    paths
}

/// Which workers take the machine's runs.
pub(crate) fn placement(settings: Option<&Arc<Node>>, states: &IndexMap<Name, State>, sink: &mut Sink) -> Placement {
    let pool = settings.and_then(|s| s.get("pool")).and_then(|node| pool_name(node, sink));
    let mut pools = BTreeMap::new();
    let listed = settings.and_then(|s| s.get("pools")).and_then(|n| n.as_map()).unwrap_or_default();
    for entry in listed {
        if !states.contains_key(&entry.key) {
            let advice = suggest(&entry.key, states.keys().map(|name| &**name));
            let message = format!("the state `{}` does not exist", entry.key);
            sink.error(Rule::UnknownState, entry.key_span, message, advice);
        }
        if let Some(name) = pool_name(&entry.value, sink) {
            pools.insert(entry.key.clone(), name);
        }
    }
    if let (Some(first), true) = (listed.first(), settings.is_some_and(|s| s.entry("pool").is_none())) {
        let advice = "add `pool`: the pool of all other states, such as `pool: default`";
        sink.error(Rule::MissingKey, first.key_span, "`pools` needs `pool` beside it", advice);
    }
    let priority = settings.and_then(|s| s.text("priority")).and_then(|word| Priority::parse(word));
    Placement { pool, pools, priority }
}

fn pool_name(node: &Node, sink: &mut Sink) -> Option<Name> {
    let name = node.as_str()?;
    if !Placement::is_pool_name(name) {
        let message = format!("`{name}` cannot name a pool");
        sink.error(Rule::WrongValue, node.span, message, "use up to 64 letters, digits, `.`, `_` and `-`");
    }
    Some(name.clone())
}

/// What `persistence` says that does not hold here.
pub(crate) fn persistence(data: &Node, sink: &mut Sink) {
    let Some(enabled) = data.get("persistence").and_then(|p| p.entry("enabled")) else { return };
    if enabled.value.as_bool() == Some(false) {
        let advice = "use a store of its own, as `--store sqlite:PATH`, for runs that need not be kept";
        sink.warn(Rule::NoEffect, enabled.key_span, "runs are kept whatever `enabled` says", advice);
    }
}
