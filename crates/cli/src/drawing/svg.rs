//! The picture: places from the layout library, lines and boxes written by hand. No script, no font, no link.

use std::fmt::Write;

use dagre::graph::{Graph, GraphOptions};
use dagre::{EdgeLabel, LayoutOptions, NodeLabel, Point, layout};

use super::{Drawing, Edge, EdgeKind, Node, shortened};

const CHAR_WIDTH: f64 = 7.4;
const LABEL_CHAR_WIDTH: f64 = 6.2;
const PADDING: f64 = 14.0;
const MARGIN: f64 = 24.0;
const LABEL_CHARS_MAX: usize = 40;
const START: &str = "\u{0}start";

const STYLE: &str = "text{font-family:system-ui,sans-serif;fill:#1d2733}\
.name{font-size:14px;font-weight:600}.does,.label{font-size:11px;fill:#51606f}\
.state{fill:#f5f8fb;stroke:#56718c;stroke-width:1.5}.state.final{fill:#e8f3ea;stroke:#4b8557;stroke-width:2.5}\
.state.initial{fill:#e6f0fb;stroke:#2f6fb0;stroke-width:2.5}.start{fill:#2f6fb0}\
.way{fill:none;stroke:#56718c;stroke-width:1.4}.way.error{stroke:#b3452f;stroke-dasharray:5 4}.way.near{stroke-dasharray:2 3}\
.label{paint-order:stroke;stroke:#fff;stroke-width:3px}";

/// The SVG document.
#[must_use]
pub(crate) fn svg(drawing: &Drawing) -> String {
    let mut graph = place(drawing);
    layout(&mut graph, Some(LayoutOptions { nodesep: 48.0, ranksep: 44.0, edgesep: 24.0, ..LayoutOptions::default() }));
    let (left, top, right, bottom) = bounds(drawing, &graph);
    let (width, height) = (right - left + 2.0 * MARGIN, bottom - top + 2.0 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"{:.1} {:.1} {width:.1} {height:.1}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" role=\"img\" aria-label=\"machine {}\">\n<style>{STYLE}</style>\n",
        left - MARGIN,
        top - MARGIN,
        escaped(&drawing.machine)
    );
    out.push_str(
        "<defs><marker id=\"tip\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto-start-reverse\"><path d=\"M0 0L10 5L0 10z\" fill=\"#56718c\"/></marker></defs>\n",
    );
    for (index, edge) in drawing.edges.iter().enumerate() {
        if let Some(label) = graph.edge(&edge.from, &edge.to, Some(&index.to_string())) {
            draw_edge(&mut out, edge, label);
        }
    }
    for node in &drawing.nodes {
        if let Some(label) = graph.node(&node.state) {
            draw_node(&mut out, node, label);
        }
        if node.initial {
            draw_start(&mut out, &graph, node);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn place(drawing: &Drawing) -> Graph<NodeLabel, EdgeLabel> {
    let mut graph = Graph::with_options(GraphOptions { directed: true, multigraph: true, compound: false });
    for node in &drawing.nodes {
        let chars = node.state.chars().count().max(node.does.chars().count().min(LABEL_CHARS_MAX));
        let height = if node.does.is_empty() { 36.0 } else { 52.0 };
        let width = chars as f64 * CHAR_WIDTH + 2.0 * PADDING;
        graph.set_node(node.state.as_str(), Some(NodeLabel { width, height, ..NodeLabel::default() }));
        if node.initial {
            graph.set_node(START, Some(NodeLabel { width: 14.0, height: 14.0, ..NodeLabel::default() }));
            graph.set_edge(START, node.state.as_str(), Some(EdgeLabel::default()), Some("start"));
        }
    }
    for (index, edge) in drawing.edges.iter().enumerate() {
        let chars = edge.label.chars().count().min(LABEL_CHARS_MAX);
        let size = if chars == 0 { (0.0, 0.0) } else { (chars as f64 * LABEL_CHAR_WIDTH, 14.0) };
        let label = EdgeLabel { width: size.0, height: size.1, ..EdgeLabel::default() };
        graph.set_edge(edge.from.as_str(), edge.to.as_str(), Some(label), Some(&index.to_string()));
    }
    graph
}

/// Left, top, right and bottom of everything that is drawn.
fn bounds(drawing: &Drawing, graph: &Graph<NodeLabel, EdgeLabel>) -> (f64, f64, f64, f64) {
    let mut box_ = (0.0_f64, 0.0_f64, 1.0_f64, 1.0_f64);
    let mut include = |x: f64, y: f64, half_width: f64, half_height: f64| {
        box_.0 = box_.0.min(x - half_width);
        box_.1 = box_.1.min(y - half_height);
        box_.2 = box_.2.max(x + half_width);
        box_.3 = box_.3.max(y + half_height);
    };
    for name in drawing.nodes.iter().map(|n| n.state.as_str()).chain([START]) {
        if let Some(label) = graph.node(name) {
            include(label.x.unwrap_or_default(), label.y.unwrap_or_default(), label.width / 2.0, label.height / 2.0);
        }
    }
    for (index, edge) in drawing.edges.iter().enumerate() {
        if let Some(label) = graph.edge(&edge.from, &edge.to, Some(&index.to_string())) {
            for point in &label.points {
                include(point.x, point.y, 0.0, 0.0);
            }
            if let (Some(x), Some(y)) = (label.x, label.y) {
                include(x, y, label.width / 2.0, label.height / 2.0);
            }
        }
    }
    box_
}

fn draw_node(out: &mut String, node: &Node, label: &NodeLabel) {
    let (x, y) = (label.x.unwrap_or_default(), label.y.unwrap_or_default());
    let class = match (node.initial, node.is_final) {
        (true, _) => " initial",
        (false, true) => " final",
        (false, false) => "",
    };
    let _ = writeln!(
        out,
        "<rect class=\"state{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"9\"/>",
        x - label.width / 2.0,
        y - label.height / 2.0,
        label.width,
        label.height
    );
    let name_y = if node.does.is_empty() { y + 5.0 } else { y - 3.0 };
    let name = escaped(&node.state);
    let _ = writeln!(out, "<text class=\"name\" x=\"{x:.1}\" y=\"{name_y:.1}\" text-anchor=\"middle\">{name}</text>");
    if !node.does.is_empty() {
        let _ = writeln!(
            out,
            "<text class=\"does\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            y + 14.0,
            escaped(&shortened(&node.does, LABEL_CHARS_MAX))
        );
    }
}

fn draw_start(out: &mut String, graph: &Graph<NodeLabel, EdgeLabel>, node: &Node) {
    if let Some(dot) = graph.node(START) {
        let (x, y) = (dot.x.unwrap_or_default(), dot.y.unwrap_or_default());
        let _ = writeln!(out, "<circle class=\"start\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\"/>");
    }
    if let Some(edge) = graph.edge(START, &node.state, Some("start")) {
        let _ = writeln!(out, "<path class=\"way\" d=\"{}\" marker-end=\"url(#tip)\"/>", path(&edge.points));
    }
}

fn draw_edge(out: &mut String, edge: &Edge, label: &EdgeLabel) {
    let class = match edge.kind {
        EdgeKind::Transition => "",
        EdgeKind::Error => " error",
        EdgeKind::Near => " near",
    };
    let _ = writeln!(out, "<path class=\"way{class}\" d=\"{}\" marker-end=\"url(#tip)\"/>", path(&label.points));
    if let (false, Some(x), Some(y)) = (edge.label.is_empty(), label.x, label.y) {
        let _ = writeln!(
            out,
            "<text class=\"label\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\"><title>{}</title>{}</text>",
            y + 4.0,
            escaped(&edge.label),
            escaped(&shortened(&edge.label, LABEL_CHARS_MAX))
        );
    }
}

/// A smooth line through the points: a curve to the middle of each pair, with the point between as its control.
fn path(points: &[Point]) -> String {
    let mut out = String::new();
    let Some((first, rest)) = points.split_first() else { return out };
    let _ = write!(out, "M{:.1} {:.1}", first.x, first.y);
    let Some((last, inner)) = rest.split_last() else { return out };
    for (index, point) in inner.iter().enumerate() {
        let next = inner.get(index + 1).unwrap_or(last);
        let end = if index + 1 == inner.len() {
            (last.x, last.y)
        } else {
            ((point.x + next.x) / 2.0, (point.y + next.y) / 2.0)
        };
        let _ = write!(out, "Q{:.1} {:.1} {:.1} {:.1}", point.x, point.y, end.0, end.1);
    }
    if inner.is_empty() {
        let _ = write!(out, "L{:.1} {:.1}", last.x, last.y);
    }
    out
}

/// Text as XML: escaped, without the characters that XML cannot hold.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
