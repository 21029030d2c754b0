//! Headers that repeat parts of a request: its method, its name, and the arguments that a tool's schema marks with
//! `x-mcp-header`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use windlass_core::ids::Name;
use windlass_core::{hidden, redact};

const MARK: &str = "x-mcp-header";
const PREFIX: &str = "mcp-param-";
/// The largest integer that every reader of JSON keeps.
const SAFE_INTEGER_MAX: i64 = (1 << 53) - 1;

/// An argument that goes into a header too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirrored {
    /// The way to the argument.
    path: Vec<String>,
    /// The header.
    header: HeaderName,
}

impl Mirrored {
    /// Whether what a path leads to, as in `redact` of a contract, is this argument, a part of it, or holds it.
    pub(crate) fn is_reached(&self, path: &[Name]) -> bool {
        self.path.iter().zip(path).all(|(own, other)| &**other == hidden::EACH || **own == **other)
    }

    /// What it says about itself: `ARGUMENT` goes into the header `HEADER`.
    pub(crate) fn said(&self) -> String {
        format!("`{}` goes into the header `{}`", self.path.join("."), self.header)
    }
}

/// The arguments that a schema marks.
///
/// # Errors
/// A mark that the protocol forbids: the tool must not be used.
pub(crate) fn mirrored(schema: &Value) -> Result<Vec<Mirrored>, String> {
    let mut found = Vec::new();
    walk(schema, &mut Vec::new(), true, &mut found)?;
    for (index, one) in found.iter().enumerate() {
        // Names of headers compare without case.
        if found[..index].iter().any(|earlier| earlier.header == one.header) {
            return Err(format!("two arguments go into the header `{}`", one.header));
        }
    }
    Ok(found)
}

fn walk(schema: &Value, path: &mut Vec<String>, reachable: bool, found: &mut Vec<Mirrored>) -> Result<(), String> {
    match schema {
        Value::Object(members) => {
            if let Some(mark) = members.get(MARK) {
                found.push(marked(members, mark, path, reachable)?);
            }
            for (key, value) in members {
                match (key.as_str(), value) {
                    ("properties", Value::Object(properties)) if reachable => {
                        for (name, property) in properties {
                            path.push(name.clone());
                            walk(property, path, true, found)?;
                            path.pop();
                        }
                    }
                    // Values that are data, not schemas.
                    ("const" | "default" | "enum" | "examples", _) => {}
                    _ => walk(value, path, false, found)?,
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| walk(item, path, false, found)),
        _ => Ok(()),
    }
}

fn marked(schema: &Map<String, Value>, mark: &Value, path: &[String], reachable: bool) -> Result<Mirrored, String> {
    let place = path.join(".");
    if !reachable || path.is_empty() {
        return Err(format!("`{MARK}` stands where no argument of its own is"));
    }
    let name = mark.as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| format!("`{MARK}` of `{place}` is no name"))?;
    let header = HeaderName::try_from(format!("{PREFIX}{name}")).ok();
    let header = header.ok_or_else(|| format!("`{MARK}` of `{place}` is no name of a header"))?;
    // Headers are read and logged by everything on the way.
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    let shown_secret = text("format") == Some("password") || schema.get("writeOnly") == Some(&Value::Bool(true));
    if shown_secret || path.last().is_some_and(|name| redact::is_secret_name(name)) {
        return Err(format!("`{place}` is secret, and `{MARK}` would send it in a header"));
    }
    match text("type") {
        Some("string" | "integer" | "boolean") => Ok(Mirrored { path: path.to_vec(), header }),
        _ => Err(format!("`{MARK}` of `{place}` needs the type `string`, `integer` or `boolean`")),
    }
}

/// Adds the headers of a call's arguments. What is absent or null has none.
///
/// # Errors
/// An argument whose header would not be what the body says.
pub(crate) fn add(headers: &mut HeaderMap, mirrored: &[Mirrored], arguments: &Value) -> Result<(), String> {
    for one in mirrored {
        let value = one.path.iter().try_fold(arguments, |value, key| value.get(key));
        let text = match value {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(word)) => word.to_string(),
            Some(Value::Number(number)) if number.as_i64().is_some_and(|n| n.abs() <= SAFE_INTEGER_MAX) => {
                number.to_string()
            }
            Some(_) => return Err(format!("the argument `{}` cannot go into a header", one.path.join("."))),
        };
        headers.insert(one.header.clone(), value_of(&text));
    }
    Ok(())
}

/// A text as the value of a header: as it is, or in the protocol's base64 form.
pub(crate) fn value_of(text: &str) -> HeaderValue {
    let cut = text.starts_with(' ') || text.ends_with(' ');
    let looks_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    let plain = !cut && !looks_encoded && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let encoded = || format!("=?base64?{}?=", BASE64_STANDARD.encode(text));
    let value = if plain { HeaderValue::from_str(text) } else { HeaderValue::from_str(&encoded()) };
    value.unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_encoded_as_the_protocol_says() {
        for (text, encoded) in [
            ("us-west1", "us-west1"),
            ("a b c", "a b c"),
            ("", ""),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            assert_eq!(value_of(text), encoded);
        }
    }

    #[test]
    fn marked_arguments_become_headers() {
        let schema = json!({ "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "deep": { "properties": { "n": { "type": "integer", "x-mcp-header": "N" } } },
            "absent": { "type": "boolean", "x-mcp-header": "Absent" },
        }});
        let marked = mirrored(&schema).unwrap();
        let mut headers = HeaderMap::new();
        add(&mut headers, &marked, &json!({ "region": "a\r\nEvil: 1", "deep": { "n": 42 }, "absent": null })).unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["mcp-param-region"], "=?base64?YQ0KRXZpbDogMQ==?=");
        assert_eq!(headers["mcp-param-n"], "42");
        assert!(add(&mut headers, &marked, &json!({ "deep": { "n": 1u64 << 60 } })).is_err());
    }

    #[test]
    fn forbidden_marks_are_refused() {
        let property = |schema: Value| mirrored(&json!({ "properties": { "a": schema } })).is_err();
        assert!(property(json!({ "type": "string", "x-mcp-header": "" })));
        assert!(property(json!({ "type": "string", "x-mcp-header": "a b" })));
        assert!(property(json!({ "type": "string", "x-mcp-header": "a\r\nb" })));
        assert!(property(json!({ "type": "number", "x-mcp-header": "N" })));
        assert!(property(json!({ "type": "object", "x-mcp-header": "O" })));
        assert!(property(json!({ "type": "array", "items": { "type": "string", "x-mcp-header": "I" } })));
        assert!(property(json!({ "anyOf": [{ "type": "string", "x-mcp-header": "I" }] })));
        for secret in ["api_key", "X-Auth-Token", "password"] {
            assert!(mirrored(&json!({ "properties": { secret: { "type": "string", "x-mcp-header": "A" } } })).is_err());
        }
        assert!(property(json!({ "type": "string", "format": "password", "x-mcp-header": "A" })));
        assert!(!property(json!({ "type": "string", "x-mcp-header": "A" })));
        let twice = json!({ "properties": {
            "a": { "type": "string", "x-mcp-header": "Same" }, "b": { "type": "string", "x-mcp-header": "sAME" },
        }});
        assert!(mirrored(&twice).is_err());
    }
}
