//! What the loader asks of the engine: does this text parse, and if not, where in it and why.

use windlass_core::failure::Failure;
use windlass_core::value::Value;

use crate::diagnostics::{Rule, Sink, Span};

/// Reports a text of the document that the engine does not take: at the mistake, where that can be told.
pub(crate) fn report(rule: Rule, what: &str, span: Span, failure: &Failure, hint: Option<&str>, sink: &mut Sink) {
    let number = |key: &str| failure.detail.get(key).and_then(Value::as_int).and_then(|n| u32::try_from(n).ok());
    let place = match (number("line"), number("column")) {
        (Some(line), Some(column)) => sink.inside(span, line, column),
        _ => span,
    };
    let fallback = match rule {
        Rule::BadTemplate => "close `{{` with `}}` and `{%` with `%}`; quote text inside of them",
        _ => "compare with `==`, `!=`, `<`, `>=`; join with `and`, `or`, `not`",
    };
    let hint = hint.or_else(|| failure.detail.get("hint").and_then(Value::as_str)).unwrap_or(fallback);
    sink.error(rule, place, format!("{what}: {}", failure.message), hint);
}
