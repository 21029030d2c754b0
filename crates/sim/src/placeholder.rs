//! A value that fits a JSON Schema, always the same: what a model without a script and a tool with a declared result
//! answer.

use windlass_core::value::Value;

/// Levels of a schema that are followed.
const DEPTH_MAX: u32 = 16;
/// Text where nothing else is asked for.
const TEXT: &str = "placeholder";

/// A value that fits. Patterns of text are not looked at.
#[must_use]
pub fn placeholder(schema: &Value) -> Value {
    fit(schema, schema, 0)
}

fn fit(root: &Value, schema: &Value, depth: u32) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    let deeper = |schema: &Value| fit(root, schema, depth + 1);
    if let Some(value) = schema.get("const").or_else(|| schema.get("default")) {
        return value.clone();
    }
    if let Some(first) = schema.get("enum").and_then(Value::as_list).and_then(<[Value]>::first) {
        return first.clone();
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|reference| resolve(root, reference)) {
        return deeper(&target);
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(first) = schema.get(choice).and_then(Value::as_list).and_then(<[Value]>::first) {
            return deeper(first);
        }
    }
    if let Some(parts) = schema.get("allOf").and_then(Value::as_list) {
        let mut merged = Vec::new();
        for part in parts {
            if let Value::Map(map) = deeper(part) {
                merged.extend(map.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
        }
        return Value::map(merged.into_iter().collect());
    }
    match kind(schema) {
        Some("object") => object(schema, &deeper),
        Some("array") => array(schema, &deeper),
        Some("integer") => Value::Int(number(schema)),
        Some("number") => Value::float(number_f64(schema)).unwrap_or(Value::Int(1)),
        Some("boolean") => Value::Bool(true),
        Some("null") => Value::Null,
        Some(_) | None => text(schema),
    }
}

fn kind(schema: &Value) -> Option<&str> {
    let of = |value: &Value| match value.as_str() {
        Some("object") => Some("object"),
        Some("array") => Some("array"),
        Some("integer") => Some("integer"),
        Some("number") => Some("number"),
        Some("boolean") => Some("boolean"),
        Some("null") => Some("null"),
        Some("string") => Some("string"),
        _ => None,
    };
    match schema.get("type") {
        Some(Value::List(types)) => types.iter().find_map(of),
        Some(one) => of(one),
        None if schema.get("properties").is_some() => Some("object"),
        None if schema.get("items").is_some() => Some("array"),
        None => None,
    }
}

fn object(schema: &Value, deeper: &dyn Fn(&Value) -> Value) -> Value {
    let properties = schema.get("properties").and_then(Value::as_map);
    let known = properties.into_iter().flat_map(|map| map.iter().map(|(key, of)| (key.clone(), deeper(of))));
    let mut map: windlass_core::value::Map = known.collect();
    for name in schema.get("required").and_then(Value::as_list).unwrap_or_default().iter().filter_map(Value::as_str) {
        if !map.contains_key(name) {
            map.insert(name.into(), Value::str(TEXT));
        }
    }
    Value::map(map)
}

fn array(schema: &Value, deeper: &dyn Fn(&Value) -> Value) -> Value {
    let bound = |key: &str| schema.get(key).and_then(Value::as_int);
    let length = bound("minItems").unwrap_or(1).min(bound("maxItems").unwrap_or(i64::MAX)).clamp(0, 100);
    let item = schema.get("items").map_or_else(|| Value::str(TEXT), deeper);
    Value::list((0..length).map(|_| item.clone()).collect())
}

fn number(schema: &Value) -> i64 {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    #[expect(clippy::cast_possible_truncation, reason = "a bound beyond i64 gives the nearest number")]
    let low = bound("minimum").map(|n| n.ceil() as i64).or(bound("exclusiveMinimum").map(|n| n.floor() as i64 + 1));
    #[expect(clippy::cast_possible_truncation, reason = "a bound beyond i64 gives the nearest number")]
    let high = bound("maximum").map(|n| n.floor() as i64).or(bound("exclusiveMaximum").map(|n| n.ceil() as i64 - 1));
    1.clamp(low.unwrap_or(i64::MIN), high.unwrap_or(i64::MAX).max(low.unwrap_or(i64::MIN)))
}

fn number_f64(schema: &Value) -> f64 {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let low = bound("minimum").or(bound("exclusiveMinimum").map(|n| n + 0.5));
    let high = bound("maximum").or(bound("exclusiveMaximum").map(|n| n - 0.5));
    match (low, high) {
        (Some(low), Some(high)) => f64::midpoint(low, high),
        (Some(low), None) => low.max(1.0),
        (None, Some(high)) => high.min(1.0),
        (None, None) => 1.0,
    }
}

fn text(schema: &Value) -> Value {
    let bound = |key: &str| schema.get(key).and_then(Value::as_int).and_then(|n| usize::try_from(n).ok());
    let known = match schema.get("format").and_then(Value::as_str) {
        Some("date-time") => "2026-01-01T00:00:00Z",
        Some("date") => "2026-01-01",
        Some("time") => "00:00:00Z",
        Some("email") => "someone@example.com",
        Some("uri" | "url") => "https://example.com/",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        _ => TEXT,
    };
    let mut text: String = known.chars().take(bound("maxLength").unwrap_or(usize::MAX)).collect();
    let missing = bound("minLength").unwrap_or(0).saturating_sub(text.chars().count());
    text.extend(std::iter::repeat_n('x', missing.min(10_000)));
    Value::str(text)
}

fn resolve(root: &Value, reference: &str) -> Option<Value> {
    let path: Vec<&str> = reference.strip_prefix("#/")?.split('/').collect();
    let found = root.at_path(&path);
    (!found.is_null()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schema: &str) -> String {
        placeholder(&Value::from_json(schema).expect("JSON")).to_json()
    }

    #[test]
    fn what_is_asked_for_comes_back() {
        let schema = r##"{"type": "object", "required": ["more"], "properties": {
            "kind": {"enum": ["a", "b"]}, "score": {"type": "integer", "minimum": 3, "maximum": 9},
            "share": {"type": "number", "minimum": 0, "maximum": 1}, "tags": {"type": "array", "items": {"type": "string"}},
            "who": {"$ref": "#/$defs/person"}, "at": {"type": ["string", "null"], "format": "date"}},
            "$defs": {"person": {"properties": {"name": {"type": "string", "minLength": 14}}}}}"##;
        let value = r#"{"kind":"a","score":3,"share":0.5,"tags":["placeholder"],"who":{"name":"placeholderxxx"},"at":"2026-01-01","more":"placeholder"}"#;
        let sorted = |text: &str| {
            serde_json::from_str::<std::collections::BTreeMap<String, serde_json::Value>>(text).expect("JSON")
        };
        let (got, wanted) = (sorted(&of(schema)), sorted(value));
        assert_eq!(got, wanted);
    }

    #[test]
    fn a_schema_that_never_ends_does_not_hang() {
        assert!(of(r##"{"properties": {"again": {"$ref": "#"}}}"##).len() < 1_000);
        assert_eq!(of("{}"), "\"placeholder\"");
    }
}
