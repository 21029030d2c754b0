//! Envelopes of child machines: what a contract names, and what states hand over that it does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_core::handoff::{FACTS, GOAL, Handoff, LIMITS, REFS};
use windlass_core::ids::Name;
use windlass_core::limits::HANDOFF_BYTES_DEFAULT;
use windlass_core::machine::ChildContract;

use crate::diagnostics::{Rule, Sink, Span, suggest};
use crate::yaml::{Entry, Node};

use super::{pairs, texts};

/// What a contract says of its envelope.
pub(super) fn of(node: &Node) -> Handoff {
    let names = |key: &str| texts(node.get(key)).into_iter().map(|(name, _)| name).collect();
    let bytes = node.get("max_bytes").and_then(|n| n.as_u64()).unwrap_or(HANDOFF_BYTES_DEFAULT);
    Handoff { facts: names(FACTS), refs: names(REFS), bytes }
}

/// Reports what states write into the input of a child that its envelope does not name. What templates give is known when
/// the child is started.
pub(super) fn check(data: &Node, contracts: &BTreeMap<Name, ChildContract>, sink: &mut Sink) {
    let handoff = |name: &Name| contracts.get(name).and_then(|contract| contract.handoff.as_ref());
    for state in pairs(data, "states") {
        for (key, input) in [("machine", "input"), ("launch", "launch_input")] {
            for (name, span, own) in targets(&state.value, key) {
                let Some(handoff) = handoff(&name) else { continue };
                let inputs: Vec<&Arc<Node>> = state.value.get(input).into_iter().chain(own.as_ref()).collect();
                check_input(&name, span, handoff, &inputs, sink);
            }
        }
    }
}

/// The machines that a state starts, and the input that each has for itself.
fn targets(state: &Node, key: &str) -> Vec<(Name, Span, Option<Arc<Node>>)> {
    let Some(found) = state.get(key) else { return Vec::new() };
    let single = [found.clone()];
    let items = found.as_list().unwrap_or(&single);
    let target = |item: &Arc<Node>| match item.as_str() {
        Some(name) => Some((name.clone(), item.span, None)),
        None => item.text("name").map(|name| (name.clone(), item.span, item.get("input").cloned())),
    };
    items.iter().filter_map(target).collect()
}

fn check_input(name: &Name, span: Span, handoff: &Handoff, inputs: &[&Arc<Node>], sink: &mut Sink) {
    let entries = || inputs.iter().flat_map(|input| input.as_map().unwrap_or_default());
    for entry in entries() {
        match &*entry.key {
            GOAL => {}
            FACTS => check_names(entry, &handoff.facts, sink),
            REFS => check_names(entry, &handoff.refs, sink),
            LIMITS => {
                let message = "`limits` of an envelope are what the child was given";
                sink.error(Rule::UnknownKey, entry.key_span, message, "remove them; the child reads `input.limits`");
            }
            other => {
                let message = format!("`{other}` does not cross to `{name}`: its contract has an envelope");
                let advice = "hand over `goal`, `facts` and `refs`, and name facts and references in the contract";
                sink.error(Rule::UnknownKey, entry.key_span, message, advice);
            }
        }
    }
    if !entries().any(|entry| &*entry.key == GOAL) {
        let message = format!("what is handed to `{name}` has no `goal`");
        sink.error(Rule::MissingKey, span, message, "say in `input` what it is to do");
    }
}

fn check_names(part: &Entry, names: &[Name], sink: &mut Sink) {
    for entry in part.value.as_map().unwrap_or_default().iter().filter(|entry| !names.contains(&entry.key)) {
        let message = format!("`{}` is not among the `{}` that the contract names", entry.key, part.key);
        let advice = suggest(&entry.key, names.iter().map(|name| &**name))
            .unwrap_or_else(|| format!("add it to `{}` of the envelope", part.key));
        sink.error(Rule::UnknownKey, entry.key_span, message, advice);
    }
}
