//! Output schemas as providers take them. The engine validates every answer against the whole schema itself, so what
//! is sent may be wider than the schema, and never narrower.

use windlass_core::value::{Map, Value};

/// Keywords that OpenAI takes in strict schemas.
const STRICT_KEYWORDS: &[&str] = &[
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "anyOf",
    "description",
    "title",
    "$ref",
    "$defs",
    "definitions",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minItems",
    "maxItems",
    "pattern",
    "format",
];

/// Keywords that Anthropic refuses, and that only narrow a schema.
const NARROWING_KEYWORDS: &[&str] = &[
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "pattern",
    "default",
    "examples",
    "$schema",
];

/// Keywords that Anthropic takes.
const ANTHROPIC_KEYWORDS: &[&str] = &[
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "anyOf",
    "allOf",
    "description",
    "title",
    "$ref",
    "$defs",
    "definitions",
    "format",
];

/// Whether a schema describes a JSON object: the only root that providers take.
pub(crate) fn is_object(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("object")
}

/// Whether OpenAI's strict mode takes the schema as it is: every object is closed and requires all its properties.
pub(crate) fn is_strict(schema: &Value) -> bool {
    let Some(map) = schema.as_map() else { return false };
    if !map.keys().all(|key| STRICT_KEYWORDS.contains(&&**key)) {
        return false;
    }
    if map.contains_key("properties") || is_object(schema) {
        let closed = map.get("additionalProperties") == Some(&Value::Bool(false));
        let required = map.get("required").and_then(Value::as_list).unwrap_or_default();
        let properties = map.get("properties").and_then(Value::as_map);
        let all = properties.is_none_or(|p| p.keys().all(|key| required.contains(&Value::Str(key.clone()))));
        if !closed || !all {
            return false;
        }
    }
    children(map).all(is_strict)
}

fn children(map: &Map) -> impl Iterator<Item = &Value> {
    let named = ["properties", "$defs", "definitions"].into_iter();
    let listed = ["anyOf", "allOf"].into_iter();
    let named = named.filter_map(|key| map.get(key).and_then(Value::as_map)).flat_map(Map::values);
    let listed = listed.filter_map(|key| map.get(key).and_then(Value::as_list)).flatten();
    named.chain(listed).chain(map.get("items"))
}

/// The schema for Anthropic's structured outputs: objects closed, narrowing keywords left to our own validation. None
/// for a schema that cannot be said there without refusing answers that the schema allows.
pub(crate) fn for_anthropic(schema: &Value) -> Option<Value> {
    if !is_object(schema) {
        return None;
    }
    closed(schema)
}

fn closed(schema: &Value) -> Option<Value> {
    let map = schema.as_map()?;
    let mut out = Map::new();
    for (key, value) in map {
        let value = match &**key {
            key if NARROWING_KEYWORDS.contains(&key) => continue,
            key if !ANTHROPIC_KEYWORDS.contains(&key) => return None,
            "properties" | "$defs" | "definitions" => {
                let entries = value.as_map()?.iter().map(|(name, part)| Some((name.clone(), closed(part)?)));
                Value::map(entries.collect::<Option<Map>>()?)
            }
            "anyOf" | "allOf" => Value::list(value.as_list()?.iter().map(closed).collect::<Option<Vec<_>>>()?),
            "items" => closed(value)?,
            "additionalProperties" if *value != Value::Bool(false) => return None,
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    if is_object(schema) && !map.contains_key("additionalProperties") {
        if !map.contains_key("properties") {
            return None;
        }
        out.insert("additionalProperties".into(), Value::Bool(false));
    }
    Some(Value::map(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::from_json(text).expect("JSON")
    }

    #[test]
    fn strict_needs_closed_objects_and_all_properties_required() {
        let strict = r#"{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"array","items":{"type":"integer"}}},"required":["a","b"],"additionalProperties":false}"#;
        assert!(is_strict(&json(strict)));
        assert!(!is_strict(&json(&strict.replace(r#","additionalProperties":false"#, ""))));
        assert!(!is_strict(&json(&strict.replace(r#"["a","b"]"#, r#"["a"]"#))));
        assert!(!is_strict(&json(&strict.replace(r#"{"type":"string"}"#, r#"{"oneOf":[]}"#))));
    }

    #[test]
    fn anthropic_gets_closed_objects_without_narrowing_keywords() {
        let schema = r#"{"type":"object","properties":{"n":{"type":"integer","minimum":1},"o":{"type":"object","properties":{}}},"required":["n"]}"#;
        let want = r#"{"type":"object","properties":{"n":{"type":"integer"},"o":{"type":"object","properties":{},"additionalProperties":false}},"required":["n"],"additionalProperties":false}"#;
        assert_eq!(for_anthropic(&json(schema)).map(|s| s.to_json()).as_deref(), Some(want));
        for open in [
            r#"{"type":"object"}"#,
            r#"{"type":"array","items":{"type":"string"}}"#,
            r#"{"type":"object","properties":{"x":{"type":"object","additionalProperties":true}}}"#,
            r#"{"type":"object","properties":{"x":{"not":{}}}}"#,
        ] {
            assert_eq!(for_anthropic(&json(open)), None, "{open}");
        }
    }
}
