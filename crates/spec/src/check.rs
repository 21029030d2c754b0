//! Checks a tree against the feature table: unknown and refused keys, missing keys, types, words.
//!
//! Knows no names of states or agents; that is lowering's part, which may rely on nothing but what fits here.

use std::sync::Arc;

use windlass_core::ids::Name;

use crate::diagnostics::{Rule, Sink, Span, suggest};
use crate::features::{Feature, Origin, Others, Section, Shape, Tier};
use crate::yaml::{Data, Node, boolean_word};

/// The highest major version of the format that this build reads.
const VERSION_MAJOR: u64 = 4;
/// The highest minor version of that major version that this build knows.
const VERSION_MINOR: u64 = 2;

/// Checks a mapping as one section, and everything below it.
pub(crate) fn section(node: &Node, section: &'static Section, sink: &mut Sink) {
    let Some(entries) = node.as_map() else {
        let message = format!("{} is a mapping, not {}", section.noun, node.kind());
        sink.error(Rule::WrongType, node.span, message, usual_advice(Shape::Section(section)));
        return;
    };
    for entry in entries {
        match section.feature(&entry.key) {
            Some(feature) => field(feature, section, entry.key_span, &entry.value, sink),
            None => unknown(section, &entry.key, entry.key_span, sink),
        }
    }
    for feature in section.features.iter().filter(|f| f.required && node.entry(f.key).is_none()) {
        let message = format!("{} needs the key `{}`", section.noun, feature.key);
        let span = Span { end_line: node.span.line, end_column: node.span.column + 1, ..node.span };
        sink.error(Rule::MissingKey, span, message, feature.about);
    }
}

fn field(feature: &'static Feature, section: &'static Section, span: Span, value: &Arc<Node>, sink: &mut Sink) {
    let name = feature.key;
    match (feature.tier, feature.origin) {
        (Tier::Blocked, _) => {
            let message = format!("`{name}` of {} is refused", section.noun);
            sink.error(Rule::Blocked, span, message, feature.about);
            return;
        }
        (Tier::Experimental, Origin::Compatibility) => {
            let message = format!("`{name}` is not part of {} in the format", section.noun);
            sink.warn(Rule::Compatibility, span, message, feature.about);
        }
        (Tier::Experimental, Origin::Format | Origin::Legacy | Origin::Windlass) => {
            sink.warn(Rule::Experimental, span, format!("`{name}` is accepted only"), feature.about);
        }
        (Tier::Supported, _) => {}
    }
    // The kind of a document is checked where it is used, with what is expected there.
    let wanted = if name == "spec" { Shape::Text } else { feature.shape };
    if !value.is_null() {
        shape(value, wanted, name, sink);
    }
}

fn unknown(section: &'static Section, key: &Name, span: Span, sink: &mut Sink) {
    let known = section.features.iter().filter(|f| f.tier != Tier::Blocked).map(|f| f.key);
    let advice = suggest(key, known).unwrap_or_else(|| EXPLAINED.to_owned());
    match section.others {
        Others::Passed => {}
        Others::Warned => {
            let message = format!("`{key}` is no setting of Windlass and has no effect");
            sink.warn(Rule::UnknownKey, span, message, advice);
        }
        Others::Refused => {
            let message = format!("unknown key `{key}` in {}", section.noun);
            sink.error(Rule::UnknownKey, span, message, advice);
        }
    }
}

/// Where more is known than an advice can list.
const EXPLAINED: &str = "`windlass explain-schema` lists what can stand here";

/// Checks a value against what may stand in its place.
pub(crate) fn shape(node: &Node, wanted: Shape, name: &str, sink: &mut Sink) {
    match wanted {
        Shape::Any | Shape::WhenUsed(_) => {}
        Shape::Templates => words(node, sink),
        Shape::TemplateMap | Shape::Mapping => {
            if kind(node, wanted, name, sink) {
                words(node, sink);
            }
        }
        Shape::Text => {
            if kind(node, wanted, name, sink) {
                words(node, sink);
            }
        }
        Shape::Version => version(node, name, sink),
        Shape::Number | Shape::Count | Shape::NumberTemplate | Shape::Condition => {
            kind(node, wanted, name, sink);
        }
        Shape::Flag => flag(node, name, sink),
        Shape::Word(allowed) => word(node, allowed, name, sink),
        Shape::List(inner) => {
            if kind(node, wanted, name, sink) {
                for item in node.as_list().unwrap_or_default() {
                    shape(item, *inner, name, sink);
                }
            }
        }
        Shape::MapOf(inner) => {
            if kind(node, wanted, name, sink) {
                for entry in node.as_map().unwrap_or_default() {
                    shape(&entry.value, *inner, &entry.key, sink);
                }
            }
        }
        Shape::Section(wanted) => section(node, wanted, sink),
        Shape::OneOf(choices) => match choices.iter().find(|choice| accepts(node, **choice)) {
            Some(choice) => shape(node, *choice, name, sink),
            None => mismatch(node, wanted, name, sink),
        },
    }
}

/// Whether a value has the outer type of a shape.
fn accepts(node: &Node, shape: Shape) -> bool {
    match shape {
        Shape::Any | Shape::Templates | Shape::WhenUsed(_) => true,
        Shape::TemplateMap | Shape::Mapping | Shape::MapOf(_) => node.as_map().is_some(),
        Shape::Text => node.as_str().is_some(),
        Shape::Version => node.scalar_text().is_some(),
        Shape::Number => node.as_f64().is_some_and(|n| n >= 0.0),
        Shape::Count => node.as_u64().is_some(),
        Shape::NumberTemplate => accepts(node, Shape::Number) || node.as_str().is_some_and(|t| is_dynamic(t)),
        Shape::Flag => node.as_bool().is_some(),
        Shape::Condition => matches!(node.data, Data::Str { .. } | Data::Bool(_)),
        Shape::Word(words) => node.as_str().is_some_and(|text| words.contains(&&**text)),
        Shape::List(_) => node.as_list().is_some(),
        Shape::Section(section) => node.as_map().is_some() && section.is_meant(node),
        Shape::OneOf(choices) => choices.iter().any(|choice| accepts(node, *choice)),
    }
}

/// Whether a text is a template or a bare path.
fn is_dynamic(text: &str) -> bool {
    crate::eval::is_template(text) || crate::eval::bare_path(text).is_some()
}

fn kind(node: &Node, wanted: Shape, name: &str, sink: &mut Sink) -> bool {
    let fits = accepts(node, wanted);
    if !fits {
        mismatch(node, wanted, name, sink);
    }
    fits
}

fn mismatch(node: &Node, wanted: Shape, name: &str, sink: &mut Sink) {
    let advice = match (wanted, &node.data) {
        (Shape::Text, Data::Bool(_) | Data::Int(_) | Data::Float(_)) => Some("put it in quotes".to_owned()),
        (Shape::Number | Shape::Count, Data::Str { text, .. }) if text.contains('_') => {
            Some("write the number without `_`".to_owned())
        }
        (Shape::Number | Shape::Count, Data::Str { text, .. }) if text.parse::<f64>().is_ok() => {
            Some("remove the quotes".to_owned())
        }
        (Shape::List(_), Data::Str { .. }) => Some("write a list: `[...]`".to_owned()),
        _ => None,
    };
    let advice = advice.unwrap_or_else(|| usual_advice(wanted));
    let message = format!("`{name}` is {}, not {}", noun(wanted), node.kind());
    sink.error(Rule::WrongType, node.span, message, advice);
}

/// What to write where a shape is expected.
fn usual_advice(wanted: Shape) -> String {
    match wanted {
        Shape::Any | Shape::Templates | Shape::WhenUsed(_) => "write any value".to_owned(),
        Shape::Section(section) => match section.features.first() {
            Some(first) => format!("write a mapping, such as `{}: ...` indented below it", first.key),
            None => "write a mapping: `name: value` indented below it".to_owned(),
        },
        Shape::TemplateMap | Shape::Mapping | Shape::MapOf(_) => {
            "write a mapping: `name: value` indented below it".to_owned()
        }
        Shape::Text => "write text, in quotes where YAML would read something else".to_owned(),
        Shape::Version => "write it as \"4.2\"".to_owned(),
        Shape::Number => "write a number from 0, such as `1.5`, without quotes and units".to_owned(),
        Shape::Count => "write a whole number from 0, such as `3`, without quotes and units".to_owned(),
        Shape::NumberTemplate => "write a number from 0, or a template such as `\"{{ context.n }}\"`".to_owned(),
        Shape::Flag => "write `true` or `false`".to_owned(),
        Shape::Condition => "write a condition such as `context.n > 1`, in quotes".to_owned(),
        Shape::Word(words) => format!("write {}", words.first().map_or_else(String::new, |word| format!("`{word}`"))),
        Shape::List(_) => "write a list: `[...]`, or one item a line after `- `".to_owned(),
        Shape::OneOf(choices) => choices.first().map_or_else(String::new, |first| usual_advice(*first)),
    }
}

/// What a shape is called in messages.
fn noun(shape: Shape) -> String {
    match shape {
        Shape::Any | Shape::Templates | Shape::WhenUsed(_) => "anything".to_owned(),
        Shape::TemplateMap | Shape::Mapping | Shape::MapOf(_) => "a mapping".to_owned(),
        Shape::Text | Shape::Version => "text".to_owned(),
        Shape::Number => "a number from 0".to_owned(),
        Shape::Count => "a whole number from 0".to_owned(),
        Shape::NumberTemplate => "a number from 0 or a template that gives one".to_owned(),
        Shape::Flag => "true or false".to_owned(),
        Shape::Condition => "a condition".to_owned(),
        Shape::Word(words) => format!("one of {}", quoted(words)),
        Shape::List(inner) => format!("a list, each item {}", noun(*inner)),
        Shape::Section(section) => format!("a mapping for {}", section.noun),
        Shape::OneOf(choices) => {
            let mut nouns: Vec<String> = choices.iter().map(|choice| noun(*choice)).collect();
            nouns.dedup();
            nouns.join(" or ")
        }
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
}

fn flag(node: &Node, name: &str, sink: &mut Sink) {
    if kind(node, Shape::Flag, name, sink)
        && let Data::Str { text, .. } = &node.data
    {
        let read = boolean_word(text).unwrap_or_default();
        let message = format!("`{text}` is read as {read} here; YAML 1.2 has only `true` and `false`");
        sink.warn(Rule::Ambiguous, node.span, message, format!("write `{read}`"));
    }
}

fn word(node: &Node, allowed: &'static [&'static str], name: &str, sink: &mut Sink) {
    let Some(text) = node.as_str() else {
        return mismatch(node, Shape::Word(allowed), name, sink);
    };
    if !allowed.contains(&&**text) {
        let message = format!("`{name}` cannot be `{text}`");
        let advice = suggest(text, allowed.iter().copied());
        sink.error(Rule::WrongValue, node.span, message, advice);
    }
}

fn version(node: &Node, name: &str, sink: &mut Sink) {
    let Some(text) = node.scalar_text() else {
        return mismatch(node, Shape::Version, name, sink);
    };
    let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
    let (major, minor) = (parts.next().flatten(), parts.next().flatten());
    match (major, minor) {
        (Some(major), _) if major > VERSION_MAJOR => {
            let message = format!("version `{text}` of the format is newer than this build reads");
            let advice = format!("this build reads up to {VERSION_MAJOR}.x; use a newer build");
            sink.error(Rule::UnsupportedVersion, node.span, message, advice);
        }
        (Some(VERSION_MAJOR), Some(minor)) if minor > VERSION_MINOR => {
            let message = format!("version `{text}` of the format is newer than this build knows");
            sink.warn(Rule::UnsupportedVersion, node.span, message, "fields that are new in it are refused");
        }
        (Some(_), _) => {}
        (None, _) => {
            let message = format!("`{text}` is no version");
            sink.error(Rule::WrongValue, node.span, message, "write it as \"4.2\"");
        }
    }
}

/// Warns of words and numbers in free text that YAML 1.1 reads as something else.
pub(crate) fn words(node: &Node, sink: &mut Sink) {
    match &node.data {
        Data::Str { text, plain: true } => {
            if boolean_word(text).is_some() {
                let message = format!("`{text}` is text here; YAML 1.1 reads it as a boolean");
                sink.warn(
                    Rule::Ambiguous,
                    node.span,
                    message,
                    format!("write \"{text}\" in quotes, or `true`/`false`"),
                );
            } else if text.contains('_') && is_number(&text.replace('_', "")) {
                let message = format!("`{text}` is text here; YAML 1.1 reads it as a number");
                sink.warn(Rule::Ambiguous, node.span, message, "write the number without `_`, or the text in quotes");
            }
        }
        Data::List(items) => items.iter().for_each(|item| words(item, sink)),
        Data::Map(entries) => entries.iter().for_each(|entry| words(&entry.value, sink)),
        Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Str { .. } => {}
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) && text.parse::<f64>().is_ok()
}
