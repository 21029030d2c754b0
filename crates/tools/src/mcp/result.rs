//! The result of a call as a value.

use serde_json::value::RawValue;
use windlass_core::failure::Failure;
use windlass_core::file;
use windlass_core::json;
use windlass_core::limits::VALUE_DEPTH_MAX;
use windlass_core::value::{Map, Value};

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
        _ => Ok(text(content).map_or_else(
            || Value::list(content.iter().enumerate().map(|(at, block)| file_of(at, block)).collect()),
            Value::str,
        )),
    }
}

/// A block that carries bytes as the file that it is; any other block, and one whose bytes are not what it says, as it is.
fn file_of(at: usize, block: &Value) -> Value {
    let said = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).map(str::to_owned);
    let kind = said(block, "type").unwrap_or_default();
    let (data, mime, name) = match (&*kind, block.get("resource")) {
        ("image" | "audio", _) => (said(block, "data"), said(block, "mimeType"), None),
        ("resource", Some(resource)) => {
            let name = said(resource, "uri").and_then(|uri| uri.rsplit(['/', ':']).next().map(str::to_owned));
            (said(resource, "blob"), said(resource, "mimeType"), name)
        }
        _ => (None, None, None),
    };
    let Some(data) = data.filter(|data| !data.is_empty()) else { return block.clone() };
    let end = mime.as_deref().and_then(|mime| mime.split_once('/')).map_or("bin", |(_, end)| end);
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("{kind}-{}.{end}", at + 1));
    let mut inner = Map::from_iter([("name".into(), Value::str(name)), ("data".into(), Value::str(data))]);
    inner.extend(mime.map(|mime| ("mime".into(), Value::str(mime))));
    let file = Value::object([(file::KEY, Value::map(inner))]);
    if file::completed(&file).is_ok() { file } else { block.clone() }
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
    fn blocks_that_carry_bytes_are_files() {
        let blocks = r#"{"content":[{"type":"text","text":"a"},
            {"type":"image","data":"iVBORw0KGgo=","mimeType":"image/png"},
            {"type":"resource","resource":{"uri":"file:///reports/a.pdf","blob":"JVBERi0=","mimeType":"application/pdf"}},
            {"type":"image","data":"YWJj","mimeType":"image/png"},
            {"type":"audio","data":"not base64","mimeType":"audio/wav"}]}"#;
        let value = read(blocks).unwrap();
        let files = file::all(&value).unwrap();
        let names: Vec<(&str, &str, u64)> = files.iter().map(|file| (&*file.name, &*file.mime, file.bytes)).collect();
        assert_eq!(names, [("image-2.png", "image/png", 8), ("a.pdf", "application/pdf", 5)]);
        let kinds = value.as_list().unwrap().iter().map(|block| block.get("type").and_then(Value::as_str));
        assert_eq!(kinds.collect::<Vec<_>>(), [Some("text"), None, None, Some("image"), Some("audio")]);
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
