//! One tool as a server shows it: the whole object as it came over the wire, its hash, and what is wrong with it.

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use windlass_core::ids::Digest;

use crate::mcp::canonical::{canonical, indented};
use crate::mcp::params::{self, Mirrored};
use crate::mcp::suspicious;

/// Bytes of a definition.
pub const DEFINITION_BYTES_MAX: usize = 64 * 1024;
/// Characters of a tool's name on its server.
pub const NAME_CHARS_MAX: usize = 128;
/// Values in a schema.
const SCHEMA_VALUES_MAX: usize = 5_000;
/// Nesting of a schema.
const SCHEMA_DEPTH_MAX: usize = 32;
/// Characters of one regular expression in a schema.
const PATTERN_CHARS_MAX: usize = 1_000;

/// One tool of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its name on the server.
    pub name: String,
    /// The hash of its canonical text.
    pub hash: Digest,
    /// The object as it came.
    pub wire: Map<String, Value>,
    /// Signs that a person should look at, each with its place.
    pub signs: Vec<String>,
    /// Its canonical text, from which the hash is.
    pub(crate) text: String,
    pub(crate) mirrored: Vec<Mirrored>,
}

/// A tool that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name, made fit for a message.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

impl Definition {
    /// Reads one entry of a list of tools.
    ///
    /// # Errors
    /// Anything that cannot be used safely: no usable name, too large, a schema with addresses elsewhere, without
    /// bounds, or with marks that the protocol forbids.
    pub(crate) fn read(raw: &RawValue) -> Result<Self, Refused> {
        let text = raw.get();
        let nameless = |why: String| Refused { name: "?".into(), why };
        if text.len() > DEFINITION_BYTES_MAX {
            return Err(nameless(format!("its definition has more than {DEFINITION_BYTES_MAX} bytes")));
        }
        let canonical = canonical(text).map_err(nameless)?;
        let wire: Map<String, Value> =
            serde_json::from_str(&canonical).map_err(|_| nameless("its definition is no mapping".into()))?;
        let name = wire.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let shown = || suspicious::visible(&name).chars().take(NAME_CHARS_MAX).collect::<String>();
        let refuse = |why: String| Refused { name: shown(), why };
        check_name(&name).map_err(refuse)?;
        let input = wire.get("inputSchema").filter(|schema| schema.is_object());
        let input = input.ok_or_else(|| refuse("it has no `inputSchema`".into()))?;
        check_schema(input).map_err(|why| refuse(format!("its `inputSchema` {why}")))?;
        if let Some(output) = wire.get("outputSchema") {
            check_schema(output).map_err(|why| refuse(format!("its `outputSchema` {why}")))?;
        }
        let mirrored = params::mirrored(input).map_err(refuse)?;
        let hash = Digest::of(canonical.as_bytes());
        let signs = suspicious::signs(&Value::Object(wire.clone()));
        Ok(Self { name, hash, wire, signs, text: canonical, mirrored })
    }

    /// What it says it does.
    #[must_use]
    pub fn description(&self) -> &str {
        let text = |key: &str| self.wire.get(key).and_then(Value::as_str);
        text("description").or_else(|| text("title")).unwrap_or_default()
    }

    /// The schema of its arguments.
    #[must_use]
    pub fn input_schema(&self) -> &Value {
        self.wire.get("inputSchema").unwrap_or(&Value::Null)
    }

    /// The schema of its structured result; null without one.
    #[must_use]
    pub fn output_schema(&self) -> &Value {
        self.wire.get("outputSchema").unwrap_or(&Value::Null)
    }

    /// The definition with everything hidden made visible, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        suspicious::visible(&indented(&self.text))
    }
}

/// A name is plain text that looks like what it is: letters, digits and `_-./` of ASCII, so that no two names can look
/// the same.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        return Err(format!("its name has not 1 to {NAME_CHARS_MAX} characters"));
    }
    match name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '.' | '/')) {
        Some(c) => Err(format!("its name holds `{}`, which can be mistaken for something else", c.escape_unicode())),
        None => Ok(()),
    }
}

fn check_schema(schema: &Value) -> Result<(), String> {
    let mut values = 0;
    bounded(schema, 0, &mut values)
}

fn bounded(schema: &Value, depth: usize, values: &mut usize) -> Result<(), String> {
    *values += 1;
    if *values > SCHEMA_VALUES_MAX {
        return Err(format!("has more than {SCHEMA_VALUES_MAX} values"));
    }
    if depth > SCHEMA_DEPTH_MAX {
        return Err(format!("is nested more than {SCHEMA_DEPTH_MAX} levels deep"));
    }
    match schema {
        Value::Array(items) => items.iter().try_for_each(|item| bounded(item, depth + 1, values)),
        Value::Object(members) => members.iter().try_for_each(|(key, value)| {
            match (key.as_str(), value) {
                ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(place)) if !place.starts_with('#') => {
                    return Err("refers to a schema elsewhere, which is never fetched".into());
                }
                // A schema that renames itself makes `#` an address elsewhere.
                ("$id" | "id", Value::String(_)) if depth > 0 => {
                    return Err("gives a part of itself another address".into());
                }
                ("pattern", Value::String(pattern)) => check_pattern(pattern)?,
                ("patternProperties", Value::Object(patterns)) => {
                    patterns.keys().try_for_each(|pattern| check_pattern(pattern))?;
                }
                _ => {}
            }
            bounded(value, depth + 1, values)
        }),
        _ => Ok(()),
    }
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.chars().count() > PATTERN_CHARS_MAX {
        return Err(format!("has a pattern of more than {PATTERN_CHARS_MAX} characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Definition, Refused> {
        Definition::read(&serde_json::value::to_raw_value(value).unwrap())
    }

    fn with_schema(schema: Value) -> Result<Definition, Refused> {
        read(&json!({ "name": "t", "inputSchema": schema }))
    }

    #[test]
    fn every_byte_of_a_definition_is_in_its_hash() {
        let base = json!({
            "name": "send", "title": "Send", "description": "Sends.", "inputSchema": { "type": "object" },
            "outputSchema": { "type": "object" }, "annotations": { "readOnlyHint": false }, "icons": [{ "src": "x" }],
            "execution": { "taskSupport": "optional" }, "_meta": { "a": 1 }, "unheardOf": [1.5],
        });
        let hash = read(&base).unwrap().hash;
        assert_eq!(read(&base).unwrap().hash, hash);
        for key in base.as_object().unwrap().keys().filter(|key| *key != "name") {
            let mut changed = base.clone();
            changed[key] = json!({ "type": "object", "x": 1 });
            if let Ok(definition) = read(&changed) {
                assert_ne!(definition.hash, hash, "{key}");
            }
            changed.as_object_mut().unwrap().remove(key);
            if let Ok(definition) = read(&changed) {
                assert_ne!(definition.hash, hash, "{key}");
            }
        }
    }

    #[test]
    fn names_that_look_like_others_are_refused() {
        for name in ["", "s\u{435}nd_email", "send email", "a\u{200b}", "ａ", "a\n", &"x".repeat(200)] {
            assert!(read(&json!({ "name": name, "inputSchema": {} })).is_err(), "{name:?}");
        }
        assert!(read(&json!({ "name": "admin.users/list-all_1", "inputSchema": {} })).is_ok());
        assert!(read(&json!({ "name": "a" })).is_err());
    }

    #[test]
    fn hostile_schemas_are_refused() {
        let why = |schema: Value| with_schema(schema).unwrap_err().why;
        assert!(why(json!({ "properties": { "a": { "$ref": "http://127.0.0.1/x" } } })).contains("elsewhere"));
        assert!(why(json!({ "$ref": "file:///etc/passwd" })).contains("elsewhere"));
        assert!(why(json!({ "properties": { "a": { "$id": "http://h/", "$ref": "#/b" } } })).contains("address"));
        assert!(why(json!({ "anyOf": vec![json!({ "const": 1 }); 10_000] })).contains("bytes"));
        assert!(why(json!({ "enum": vec![json!(1); 10_000] })).contains("values"));
        let deep = (0..40).fold(json!({}), |inner, _| json!({ "not": inner }));
        assert!(why(deep).contains("levels"));
        assert!(why(json!({ "properties": { "a": { "pattern": "a".repeat(2_000) } } })).contains("pattern"));
        let recursive =
            json!({ "properties": { "child": { "$ref": "#" } }, "$defs": { "a": { "$ref": "#/$defs/a" } } });
        assert!(with_schema(recursive).is_ok(), "a schema may refer to itself");
    }
}
