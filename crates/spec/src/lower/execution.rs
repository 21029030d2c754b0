//! How an agent is asked: `execution`, `sampling` and `tool_loop`.

use windlass_core::limits::SAMPLES_MAX;
use windlass_core::machine::{Execution, Template, ToolLoop};
use windlass_core::value::Value;

use crate::diagnostics::{Rule, Sink};
use crate::yaml::Node;

use super::settings::millis;
use super::{template, texts};

/// Seconds between attempts.
const BACKOFFS_DEFAULT: [f64; 4] = [2.0, 8.0, 16.0, 35.0];
const JITTER_DEFAULT: f64 = 0.1;
const SAMPLES_DEFAULT: u32 = 3;
const MARGIN_DEFAULT: u32 = 3;
const CANDIDATES_DEFAULT: u32 = 10;

/// The execution of a state.
pub(crate) fn execution(state: &Node, sink: &mut Sink) -> Execution {
    let Some(node) = state.get("execution").filter(|n| n.as_map().is_some()) else {
        sampling(state, &Execution::Once, sink);
        return Execution::Once;
    };
    let kind = node.text("type").map_or("default", |kind| &**kind);
    let execution = match kind {
        "retry" => retry(node, sink),
        "parallel" => Execution::Parallel { samples: samples(node, "n_samples", SAMPLES_DEFAULT, sink) },
        "mdap_voting" => Execution::Voting {
            margin: samples(node, "k_margin", MARGIN_DEFAULT, sink),
            candidates: samples(node, "max_candidates", CANDIDATES_DEFAULT, sink),
        },
        _ => Execution::Once,
    };
    let used: &[&str] = match kind {
        "retry" => &["backoffs", "jitter"],
        "parallel" => &["n_samples"],
        "mdap_voting" => &["k_margin", "max_candidates"],
        _ => &[],
    };
    for key in ["backoffs", "jitter", "n_samples", "k_margin", "max_candidates"] {
        if let Some(entry) = node.entry(key).filter(|_| !used.contains(&key)) {
            let message = format!("`{key}` has no effect with `type: {kind}`");
            sink.warn(Rule::NoEffect, entry.key_span, message, "remove it");
        }
    }
    sampling(state, &execution, sink);
    execution
}

fn retry(node: &Node, sink: &mut Sink) -> Execution {
    let jitter = match node.get("jitter") {
        None => JITTER_DEFAULT,
        Some(found) => match found.as_f64() {
            Some(share) if share <= 1.0 => share,
            Some(_) => {
                sink.error(Rule::WrongValue, found.span, "`jitter` is a share from 0 to 1", "write 0.1 for 10 %");
                JITTER_DEFAULT
            }
            None => JITTER_DEFAULT,
        },
    };
    let pauses: Vec<f64> = match node.get("backoffs").and_then(|n| n.as_list()) {
        Some(items) => items.iter().filter_map(|item| item.as_f64()).collect(),
        None => BACKOFFS_DEFAULT.to_vec(),
    };
    Execution::Retry { backoffs_ms: pauses.into_iter().map(millis).collect(), jitter }
}

fn samples(node: &Node, key: &str, default: u32, sink: &mut Sink) -> u32 {
    let Some(found) = node.get(key) else { return default };
    match found.as_u64().and_then(|n| u32::try_from(n).ok()) {
        Some(n) if (1..=SAMPLES_MAX).contains(&n) => n,
        _ if found.as_f64().is_none() => default,
        _ => {
            let message = format!("`{key}` is a whole number from 1 to {SAMPLES_MAX}");
            sink.error(Rule::WrongValue, found.span, message, ());
            default
        }
    }
}

/// `sampling` is a hint that must agree with what `execution` does.
fn sampling(state: &Node, execution: &Execution, sink: &mut Sink) {
    let Some(entry) = state.entry("sampling") else { return };
    let many = matches!(execution, Execution::Parallel { .. } | Execution::Voting { .. });
    match entry.value.as_str().map(|s| &**s) {
        Some("multi") if !many => {
            let advice = "add `execution: {type: parallel}` or `{type: mdap_voting}`";
            sink.error(Rule::Blocked, entry.value.span, "`sampling: multi` without an execution that samples", advice);
        }
        Some("single") if many => {
            let advice = "remove `sampling`";
            sink.error(Rule::Blocked, entry.value.span, "`sampling: single` with an execution that samples", advice);
        }
        _ => {}
    }
}

/// The tool loop of a state.
pub(crate) fn tool_loop(state: &Node, execution: &Execution, sink: &mut Sink) -> Option<ToolLoop> {
    let node = state.get("tool_loop")?;
    if node.as_bool() == Some(false) {
        return None;
    }
    if node.as_bool().is_none() && node.as_map().is_none() {
        return None;
    }
    if matches!(execution, Execution::Parallel { .. } | Execution::Voting { .. }) {
        let span = state.entry("tool_loop").map_or(node.span, |e| e.key_span);
        let advice = "put the tool loop into a child machine and sample that";
        sink.error(Rule::WrongValue, span, "a tool loop cannot be sampled in parallel or by voting", advice);
    }
    let mut bound = |key: &str| match node.get(key) {
        None => Template::Literal(Value::Null),
        Some(found) => template::value(found, sink),
    };
    let (max_tool_calls, max_turns, max_cost) = (bound("max_tool_calls"), bound("max_turns"), bound("max_cost"));
    let (tool_timeout, total_timeout) = (bound("tool_timeout"), bound("total_timeout"));
    let names = |key: &str| texts(node.get(key)).into_iter().map(|(name, _)| name).collect();
    Some(ToolLoop {
        max_tool_calls,
        max_turns,
        max_cost,
        tool_timeout,
        total_timeout,
        allowed_tools: names("allowed_tools"),
        denied_tools: names("denied_tools"),
    })
}
