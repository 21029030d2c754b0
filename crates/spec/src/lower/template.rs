//! Values of documents to templates: bare paths, texts with expressions, and what is taken as it is.

use windlass_core::ids::Name;
use windlass_core::machine::{Dialect, Template};
use windlass_core::value::Value;

use crate::diagnostics::{Rule, Sink, Span};
use crate::eval;
use crate::syntax;
use crate::yaml::{Data, Entry, Node};

/// A value of a machine document, rendered at any depth.
pub(crate) fn value(node: &Node, sink: &mut Sink) -> Template {
    match &node.data {
        Data::Str { text, .. } => text_value(text, node.span, sink),
        Data::List(items) => {
            let items: Vec<Template> = items.iter().map(|item| value(item, sink)).collect();
            if items.iter().all(|item| matches!(item, Template::Literal(_))) {
                return Template::Literal(node.to_value());
            }
            Template::List(items)
        }
        Data::Map(entries) => {
            let pairs = mapping(entries, sink);
            if pairs.iter().all(|(_, item)| matches!(item, Template::Literal(_))) {
                return Template::Literal(node.to_value());
            }
            Template::Map(pairs)
        }
        Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) => Template::Literal(node.to_value()),
    }
}

/// The pairs of a mapping.
pub(crate) fn mapping(entries: &[Entry], sink: &mut Sink) -> Vec<(Name, Template)> {
    entries.iter().map(|entry| (entry.key.clone(), value(&entry.value, sink))).collect()
}

/// The mapping under a key, as pairs; empty when there is none.
pub(crate) fn mapping_at(node: &Node, key: &str, sink: &mut Sink) -> Vec<(Name, Template)> {
    mapping(node.get(key).and_then(|n| n.as_map()).unwrap_or_default(), sink)
}

/// The text under a key as a template of the machine's rules.
pub(crate) fn text_at(node: &Node, key: &str, sink: &mut Sink) -> Option<Template> {
    let found = node.get(key)?;
    found.as_str().map(|text| text_value(text, found.span, sink))
}

fn text_value(text: &Name, span: Span, sink: &mut Sink) -> Template {
    if eval::is_template(text) {
        check(Dialect::Machine, text, span, sink);
        return Template::Text { dialect: Dialect::Machine, source: text.clone() };
    }
    match eval::bare_path(text) {
        Some(path) => Template::Path(path),
        None => Template::Literal(Value::Str(text.clone())),
    }
}

/// A text of a prompt: always text, with one line end at its end dropped.
pub(crate) fn prompt(node: Option<&Node>, default: &str, sink: &mut Sink) -> Template {
    let Some((text, span)) = node.and_then(|n| n.as_str().map(|text| (text, n.span))) else {
        return Template::Literal(Value::str(default));
    };
    if ["{{", "{%", "{#", "\r"].iter().any(|mark| text.contains(mark)) {
        check(Dialect::Prompt, text, span, sink);
        return Template::Text { dialect: Dialect::Prompt, source: text.clone() };
    }
    Template::Literal(Value::str(text.strip_suffix('\n').unwrap_or(text)))
}

fn check(dialect: Dialect, text: &Name, span: Span, sink: &mut Sink) {
    if let Err(failure) = eval::check_template(dialect, text) {
        syntax::report(Rule::BadTemplate, "the template does not parse", span, &failure, None, sink);
    }
}
