//! The result of a call as a value.

use serde_json::value::RawValue;
use windlass_core::failure::Failure;
use windlass_core::json;
use windlass_core::limits::VALUE_DEPTH_MAX;
use windlass_core::value::Value;

use crate::answer;
use crate::role::Caller;

/// Characters of an error that a failure quotes.
const ERROR_CHARS_MAX: usize = 2_000;

/// What a tool answered: its structured result where it gave one, else its text, else its blocks as they are.
///
/// # Errors
/// The tool's own error, and an answer that is no result.
pub(crate) fn value(caller: &Caller, raw: &RawValue) -> Result<Value, Failure> {
    let bad = |why: String| caller.failed(format!("the answer of `{}` cannot be read: {why}", caller.name));
    let result = json::read(raw.get()).map_err(|error| bad(error.to_string()))?;
    if result.depth() > VALUE_DEPTH_MAX {
        return Err(bad(format!("it is nested more than {VALUE_DEPTH_MAX} levels deep")));
    }
    let empty = Vec::new();
    let content = match result.get("content") {
        None => empty.as_slice(),
        Some(content) => content.as_list().ok_or_else(|| bad("`content` is no list".into()))?,
    };
    if result.get("isError").is_some_and(Value::is_truthy) {
        let text = match text(content) {
            Some(text) => answer::printable(&text.chars().take(ERROR_CHARS_MAX).collect::<String>()),
            None => format!("`{}` answered with an error", caller.name),
        };
        return Err(caller.failed(text));
    }
    match result.get("structuredContent") {
        Some(structured) if !structured.is_null() => Ok(structured.clone()),
        _ if content.is_empty() => Ok(Value::Null),
        _ => Ok(text(content).map_or_else(|| Value::list(content.to_vec()), Value::str)),
    }
}

/// The text of blocks that are all text.
fn text(content: &[Value]) -> Option<String> {
    let block = |block: &Value| match block.get("type").and_then(Value::as_str) {
        Some("text") => block.get("text").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    let texts: Option<Vec<String>> = content.iter().map(block).collect();
    texts.filter(|texts| !texts.is_empty()).map(|texts| texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use windlass_core::contract::Contract;
    use windlass_core::failure::Code;

    use super::*;
    use crate::role::Role;

    fn read(text: &str) -> Result<Value, Failure> {
        let caller = Caller::of(&Contract::undeclared("t"), Role::Tool);
        value(&caller, &RawValue::from_string(text.into()).unwrap())
    }

    #[test]
    fn structure_comes_before_text_and_text_before_blocks() {
        let both = r#"{"content":[{"type":"text","text":"{}"}],"structuredContent":{"a":1}}"#;
        assert_eq!(read(both), Ok(Value::object([("a", Value::Int(1))])));
        let text = r#"{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#;
        assert_eq!(read(text), Ok(Value::str("a\nb")));
        let image = r#"{"content":[{"type":"text","text":"a"},{"type":"image","data":"","mimeType":"x"}]}"#;
        assert_eq!(read(image).unwrap().as_list().unwrap().len(), 2);
        assert_eq!(read(r#"{"content":[]}"#), Ok(Value::Null));
    }

    #[test]
    fn errors_of_the_tool_are_failures() {
        let failure = read(r#"{"content":[{"type":"text","text":"no\u001b[2J"}],"isError":true}"#).unwrap_err();
        assert_eq!((failure.code, &*failure.message), (Code::ToolFailed, "no\u{fffd}[2J"));
        assert_eq!(&*read(r#"{"isError":true}"#).unwrap_err().message, "`t` answered with an error");
        assert!(read(r#"{"content":3}"#).is_err());
        assert!(read("3").is_ok_and(|value| value.is_null()));
    }
}
