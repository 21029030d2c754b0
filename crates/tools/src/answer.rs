//! Reading what the other side said: values, errors in the common shapes, and the answers of hooks.

use windlass_core::failure::{Code, Failure};
use windlass_core::json::{self, Unread};
use windlass_core::limits::VALUE_DEPTH_MAX;
use windlass_core::machine::HookKind;
use windlass_core::spawn;
use windlass_core::value::Value;

use crate::role::Caller;

/// Characters of a foreign text that a message quotes.
const QUOTE_CHARS_MAX: usize = 400;

/// An error that the other side named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its type, when it gave one.
    pub(crate) error_type: Option<String>,
    /// Its text.
    pub(crate) message: String,
}

/// Text as a value: nothing is null, a JSON document is its value, anything else is text.
///
/// # Errors
/// Bytes that are no text, and nesting beyond the engine's bound.
pub(crate) fn value_of(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("it is not UTF-8 at byte {}", e.valid_up_to()))?;
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(Value::Null);
    }
    match json::read(trimmed) {
        Ok(value) => shallow(value),
        Err(error @ Unread::Inexact { .. }) => Err(error.to_string()),
        Err(Unread::Malformed(_)) => Ok(Value::str(text.strip_suffix('\n').unwrap_or(text))),
    }
}

/// Text that must be JSON, or nothing, which is null.
///
/// # Errors
/// Anything else, with the place.
pub(crate) fn json_of(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("it is not UTF-8 at byte {}", e.valid_up_to()))?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    json::read(text).map_err(|e| format!("it is not JSON that can be kept: {e}")).and_then(shallow)
}

fn shallow(value: Value) -> Result<Value, String> {
    if value.depth() > VALUE_DEPTH_MAX {
        return Err(format!("it is nested more than {VALUE_DEPTH_MAX} levels deep"));
    }
    Ok(value)
}

/// The error in `{"error": {"type", "message"}}`, `{"error": "text"}` and `{"message": "text"}`.
pub(crate) fn named_error(body: &Value) -> Option<Named> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(printable);
    match body.get("error") {
        None | Some(Value::Null) => {
            text(body.get("message")).map(|message| Named { error_type: text(body.get("type")), message })
        }
        Some(Value::Str(message)) => Some(Named { error_type: None, message: printable(message) }),
        Some(error) => Some(Named {
            error_type: text(error.get("type")),
            message: text(error.get("message")).unwrap_or_else(|| quote(error.to_json().as_bytes())),
        }),
    }
}

/// The failure for a named error.
pub(crate) fn failure_of(caller: &Caller, named: Named) -> Failure {
    let failure = caller.failed(&named.message);
    match named.error_type {
        Some(name) => failure.error_type(name),
        None => failure,
    }
}

/// Checks the answer of a hook to an event of this kind. Null changes nothing.
///
/// # Errors
/// An `error` in the answer, and an answer of the wrong shape.
pub(crate) fn hook_answer(caller: &Caller, kind: HookKind, body: Value) -> Result<Value, Failure> {
    let bad = |why: String| {
        let message = format!("the answer of `{}` to `{}` is no answer of a hook: {why}", caller.name, kind.as_str());
        Failure::new(Code::HookBadAnswer, message)
    };
    if body.is_null() {
        return Ok(body);
    }
    if body.as_map().is_none() {
        return Err(bad(format!("it is a {}, not a mapping", body.type_name())));
    }
    if body.get(spawn::SAID).is_some() {
        return Err(bad(format!("`{}` is not for hooks from outside", spawn::SAID)));
    }
    if body.get("error").is_some_and(|error| !error.is_null())
        && let Some(named) = named_error(&body)
    {
        return Err(failure_of(caller, named));
    }
    for (key, wanted, fits) in SHAPES {
        if let Some(value) = body.get(key)
            && !value.is_null()
            && !fits(value)
        {
            return Err(bad(format!("`{key}` is a {}, not a {wanted}", value.type_name())));
        }
    }
    Ok(body)
}

/// A key, the word for its type, and the test for it.
type Shape = (&'static str, &'static str, fn(&Value) -> bool);

/// Keys whose type is fixed, whatever the event.
const SHAPES: &[Shape] = &[
    ("context", "mapping", |v| v.as_map().is_some()),
    ("to_state", "text", |v| v.as_str().is_some()),
    ("recovery_state", "text", |v| v.as_str().is_some()),
    ("tools", "list", |v| v.as_list().is_some()),
];

/// The beginning of a foreign text, fit for a message.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * QUOTE_CHARS_MAX)]);
    let mut quoted: String = text.trim().chars().take(QUOTE_CHARS_MAX).collect();
    if quoted.len() < text.trim().len() {
        quoted.push('…');
    }
    printable(&quoted)
}

/// Text without the control characters that could move a terminal's cursor or forge a line of a log.
pub(crate) fn printable(text: &str) -> String {
    let hidden = |c: char| {
        (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Value {
        Value::from_json(text).unwrap()
    }

    #[test]
    fn a_json_document_is_its_value_and_the_rest_is_text() {
        assert_eq!(value_of(b" {\"a\": 1}\n"), Ok(parse(r#"{"a":1}"#)));
        assert_eq!(value_of(b"two words\n"), Ok(Value::str("two words")));
        assert_eq!(value_of(b"NaN"), Ok(Value::str("NaN")));
        assert_eq!(value_of(b" \n"), Ok(Value::Null));
        assert!(value_of(b"\xff\xfe").unwrap_err().contains("byte 0"));
        let deep = format!("{}{}", "[".repeat(110), "]".repeat(110));
        assert!(value_of(deep.as_bytes()).unwrap_err().contains("levels"));
    }

    #[test]
    fn errors_are_found_in_the_common_shapes() {
        let named = |text: &str| named_error(&parse(text)).map(|n| (n.error_type, n.message));
        assert_eq!(
            named(r#"{"error":{"type":"NoStock","message":"none left"}}"#),
            Some((Some("NoStock".into()), "none left".into()))
        );
        assert_eq!(named(r#"{"error":"none left"}"#), Some((None, "none left".into())));
        assert_eq!(named(r#"{"error":{"code":7}}"#), Some((None, r#"{"code":7}"#.into())));
        assert_eq!(named(r#"{"message":"gone"}"#), Some((None, "gone".into())));
        assert_eq!(named(r#"{"ok":true}"#), None);
    }

    #[test]
    fn hook_answers_are_checked() {
        let caller = Caller::hook("crm", HookKind::Action);
        let answer = |text: &str| hook_answer(&caller, HookKind::Action, parse(text));
        assert_eq!(answer(r#"{"context":{"a":1}}"#), Ok(parse(r#"{"context":{"a":1}}"#)));
        assert_eq!(answer(r#"{"error":null,"output":1}"#), Ok(parse(r#"{"error":null,"output":1}"#)));
        assert_eq!(answer("[1]").unwrap_err().code, Code::HookBadAnswer);
        assert_eq!(answer(r#"{"context":[1]}"#).unwrap_err().code, Code::HookBadAnswer);
        assert_eq!(answer(r#"{"to_state":3}"#).unwrap_err().code, Code::HookBadAnswer);
        let asks = answer(r#"{"windlass.spawn":{"machine":"m.yml","count":9,"input":{}}}"#).unwrap_err();
        assert_eq!(asks.code, Code::HookBadAnswer, "nobody outside starts machines: {asks}");
        let failure = answer(r#"{"error":{"type":"ValueError","message":"no"}}"#).unwrap_err();
        assert_eq!((failure.code, failure.error_type.as_deref()), (Code::HookFailed, Some("ValueError")));
        let tool = Caller::hook("crm", HookKind::ToolCall);
        let failure = hook_answer(&tool, HookKind::ToolCall, parse(r#"{"error":"no"}"#)).unwrap_err();
        assert_eq!(failure.code, Code::ToolFailed);
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        assert_eq!(printable("a\x1b[2Jb\r\nc\u{202e}"), "a\u{fffd}[2Jb\u{fffd}\nc\u{fffd}");
        assert!(quote("x".repeat(5_000).as_bytes()).chars().count() <= QUOTE_CHARS_MAX + 1);
    }
}
