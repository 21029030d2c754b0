//! A machine as a drawing: its states and the ways between them, as SVG, Mermaid or Graphviz text.

mod svg;

use std::fmt::Write;

use serde::Serialize;
use windlass_core::machine::{Machine, State, Targets};
use windlass_core::near::ON_NEAR;

pub(crate) use svg::svg;

/// A machine's states and the ways between them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Drawing {
    /// The machine's name.
    pub machine: String,
    /// Its states, in document order.
    pub nodes: Vec<Node>,
    /// The ways between them.
    pub edges: Vec<Edge>,
}

/// One state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Node {
    /// The state's name.
    pub state: String,
    /// What it does: `agent writer`, `action save`; empty for a state that only decides.
    pub does: String,
    /// Whether a run begins here.
    pub initial: bool,
    /// Whether a run ends here.
    pub is_final: bool,
}

/// A way from one state to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Edge {
    /// From this state.
    pub from: String,
    /// To this state.
    pub to: String,
    /// When: the condition, the failure, or empty.
    pub label: String,
    /// Why it is taken.
    pub kind: EdgeKind,
}

/// Why a way is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EdgeKind {
    /// A transition.
    Transition,
    /// A failure.
    Error,
    /// A conversation that is nearly too long.
    Near,
}

impl Drawing {
    /// The drawing of a machine.
    #[must_use]
    pub(crate) fn of(machine: &Machine) -> Self {
        let nodes = machine
            .states
            .values()
            .map(|state| Node {
                state: state.name.to_string(),
                does: does(machine, state),
                initial: state.name == machine.initial,
                is_final: state.is_final,
            })
            .collect();
        Self {
            machine: machine.name.to_string(),
            nodes,
            edges: machine.states.values().flat_map(|state| ways_out(machine, state)).collect(),
        }
    }
}

fn does(machine: &Machine, state: &State) -> String {
    let mut parts: Vec<String> = Vec::new();
    if state.wait.is_some() {
        parts.push("wait".into());
    }
    if let Some(action) = &state.action {
        let kind = match machine.table_of(state) {
            Some(_) => "table",
            None if state.arguments.is_some() => "tool",
            None => "action",
        };
        parts.push(format!("{kind} {action}"));
    }
    if let Some(launch) = &state.launch {
        parts.push(format!("launch {}", launch.machines.join(", ")));
    }
    if let Some(call) = &state.call {
        parts.push(match &call.targets {
            Targets::One { machine, .. } => format!("machine {machine}"),
            Targets::Many(many) => {
                format!("machines {}", many.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(", "))
            }
            Targets::Foreach { machine, .. } => format!("foreach {machine}"),
        });
    }
    if let Some(agent) = &state.agent {
        let tools = if agent.tool_loop.is_some() { " with tools" } else { "" };
        parts.push(format!("agent {}{tools}", agent.agent));
    }
    parts.join(" · ")
}

fn ways_out(machine: &Machine, state: &State) -> Vec<Edge> {
    let rows = machine.table_of(state).map(|table| table.ways()).unwrap_or_default();
    let edge = |to: &str, label: String, kind| Edge { from: state.name.to_string(), to: to.to_owned(), label, kind };
    let mut edges: Vec<Edge> = state
        .transitions
        .iter()
        .map(|way| {
            let condition = || way.condition.as_ref().map(|c| c.source.to_string()).unwrap_or_default();
            let label = rows.get(&way.to).map_or_else(condition, |rows| row_label(rows));
            edge(&way.to, label, EdgeKind::Transition)
        })
        .collect();
    edges.extend(state.on_error.by_name.iter().map(|(name, to)| edge(to, name.to_string(), EdgeKind::Error)));
    edges.extend(state.on_error.default.iter().map(|to| edge(to, "error".into(), EdgeKind::Error)));
    let shortens = machine.conversation.on_near.iter().filter(|to| state.agent.is_some() && **to != state.name);
    edges.extend(shortens.map(|to| edge(to, ON_NEAR.into(), EdgeKind::Near)));
    edges
}

/// The rows of a decision table by which a way is taken.
fn row_label(rows: &[u32]) -> String {
    let numbers: Vec<String> = rows.iter().map(ToString::to_string).collect();
    format!("row {}", numbers.join(", "))
}

/// Mermaid text of a state diagram.
#[must_use]
pub(crate) fn mermaid(drawing: &Drawing) -> String {
    let mut out = String::from("stateDiagram-v2\n");
    let id = |state: &str| format!("s{}", drawing.nodes.iter().position(|n| n.state == state).unwrap_or_default());
    for node in &drawing.nodes {
        let does = if node.does.is_empty() { String::new() } else { format!("<br/>{}", mermaid_text(&node.does)) };
        let _ = writeln!(out, "  state \"{}{does}\" as {}", mermaid_text(&node.state), id(&node.state));
    }
    for node in drawing.nodes.iter().filter(|node| node.initial) {
        let _ = writeln!(out, "  [*] --> {}", id(&node.state));
    }
    for edge in &drawing.edges {
        let label = if edge.label.is_empty() { String::new() } else { format!(" : {}", mermaid_text(&edge.label)) };
        let _ = writeln!(out, "  {} --> {}{label}", id(&edge.from), id(&edge.to));
    }
    for node in drawing.nodes.iter().filter(|node| node.is_final) {
        let _ = writeln!(out, "  {} --> [*]", id(&node.state));
    }
    out
}

/// Text without the characters that mean something to Mermaid, which has no escapes but entities.
fn mermaid_text(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' => "#quot;".to_owned(),
            ';' => "#59;".to_owned(),
            ':' => "#58;".to_owned(),
            '<' => "#lt;".to_owned(),
            '>' => "#gt;".to_owned(),
            '{' => "#123;".to_owned(),
            '}' => "#125;".to_owned(),
            '#' => "#35;".to_owned(),
            c if c.is_control() => " ".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

/// Graphviz text.
#[must_use]
pub(crate) fn dot(drawing: &Drawing) -> String {
    let mut out = format!(
        "digraph \"{}\" {{\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\", fontsize=10];\n",
        dot_text(&drawing.machine)
    );
    for node in &drawing.nodes {
        let does = if node.does.is_empty() { String::new() } else { format!("\\n{}", dot_text(&node.does)) };
        let shape = match (node.initial, node.is_final) {
            (true, _) => ", penwidth=2",
            (false, true) => ", peripheries=2",
            (false, false) => "",
        };
        let name = dot_text(&node.state);
        let _ = writeln!(out, "  \"{name}\" [label=\"{name}{does}\"{shape}];");
    }
    for edge in &drawing.edges {
        let style = match edge.kind {
            EdgeKind::Transition => "",
            EdgeKind::Error => ", style=dashed, color=red",
            EdgeKind::Near => ", style=dashed",
        };
        let _ = writeln!(
            out,
            "  \"{}\" -> \"{}\" [label=\"{}\"{style}];",
            dot_text(&edge.from),
            dot_text(&edge.to),
            dot_text(&edge.label)
        );
    }
    out.push_str("}\n");
    out
}

fn dot_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A label short enough to be drawn beside a line.
fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing() -> Drawing {
        let node = |state: &str, initial, is_final| Node {
            state: state.into(),
            does: "agent \"x\"".into(),
            initial,
            is_final,
        };
        let edge = |from: &str, to: &str, label: &str, kind| Edge {
            from: from.into(),
            to: to.into(),
            label: label.into(),
            kind,
        };
        Drawing {
            machine: "loop \"1\"".into(),
            nodes: vec![node("write", true, false), node("review <b>", false, false), node("done", false, true)],
            edges: vec![
                edge("write", "review <b>", "", EdgeKind::Transition),
                edge("review <b>", "review <b>", "context.again: yes", EdgeKind::Transition),
                edge("review <b>", "write", "context.score < 8", EdgeKind::Transition),
                edge("review <b>", "done", "", EdgeKind::Transition),
                edge("write", "done", "error", EdgeKind::Error),
            ],
        }
    }

    #[test]
    fn mermaid_and_dot_escape_names() {
        let mermaid = mermaid(&drawing());
        assert!(mermaid.contains("state \"review #lt;b#gt;<br/>agent #quot;x#quot;\" as s1"), "{mermaid}");
        assert!(mermaid.contains("s1 --> s0 : context.score #lt; 8"), "{mermaid}");
        let dot = dot(&drawing());
        assert!(dot.contains("\"write\" [label=\"write\\nagent \\\"x\\\"\", penwidth=2]"), "{dot}");
        assert!(dot.contains("style=dashed"), "{dot}");
    }

    #[test]
    fn the_picture_shows_every_state_and_way_once() {
        let svg = svg(&drawing());
        assert_eq!(svg.matches("<rect class=\"state").count(), 3, "{svg}");
        assert_eq!(svg.matches("<path class=\"way").count(), 5 + 1, "{svg}");
        assert!(svg.contains("review &lt;b&gt;"));
        assert!(!svg.contains("<b>"));
        assert_eq!(svg, super::svg(&drawing()), "the same drawing gives the same bytes");
    }
}
