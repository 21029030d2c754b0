//! Tables of keys from a JSON Schema: one table for each mapping, parents before what they hold.

use std::fmt::Write;

use serde_json::Value as Json;

use super::cell;

/// The tables of a schema's own keys and of everything below them.
pub(super) fn tables(schema: &Json, prefix: &str) -> String {
    let mut out = String::new();
    table(&mut out, schema, schema, prefix, 0);
    out
}

/// Nesting below which a type that holds itself is not followed.
const DEPTH_MAX: usize = 6;

fn table(out: &mut String, root: &Json, schema: &Json, prefix: &str, depth: usize) {
    let Some(properties) = schema.get("properties").and_then(Json::as_object) else { return };
    if depth > DEPTH_MAX {
        return;
    }
    if !prefix.is_empty() {
        let _ = writeln!(out, "### `{prefix}`\n");
    }
    out.push_str("| key | type | meaning |\n|---|---|---|\n");
    for (name, property) in properties {
        let _ = writeln!(
            out,
            "| `{name}` | {} | {} |",
            cell(&kind(root, property)),
            cell(property.get("description").and_then(Json::as_str).unwrap_or_default())
        );
    }
    out.push('\n');
    for (name, property) in properties {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let (suffix, inner) = below(root, property);
        if let Some(inner) = inner {
            table(out, root, inner, &format!("{path}{suffix}"), depth + 1);
        }
    }
}

/// The mapping that a property holds: itself, its values (`.NAME`) or its items (`[]`).
fn below<'a>(root: &'a Json, property: &'a Json) -> (&'static str, Option<&'a Json>) {
    let schema = resolve(root, property);
    if schema.get("properties").is_some() {
        return ("", Some(schema));
    }
    if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
        let inner = resolve(root, values);
        return (".NAME", inner.get("properties").is_some().then_some(inner));
    }
    if let Some(items) = schema.get("items") {
        let inner = resolve(root, items);
        return ("[]", inner.get("properties").is_some().then_some(inner));
    }
    ("", None)
}

/// Follows references and the choice between something and null.
fn resolve<'a>(root: &'a Json, schema: &'a Json) -> &'a Json {
    if let Some(name) = schema.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix("#/$defs/")) {
        return root.get("$defs").and_then(|defs| defs.get(name)).map_or(schema, |inner| resolve(root, inner));
    }
    let choices = schema.get("anyOf").and_then(Json::as_array);
    let real: Vec<&Json> = choices
        .into_iter()
        .flatten()
        .filter(|choice| choice.get("type").and_then(Json::as_str) != Some("null"))
        .collect();
    match real.as_slice() {
        [one] => resolve(root, one),
        _ => schema,
    }
}

/// Whether a property is of the type for durations, or may be missing.
fn is_duration(property: &Json) -> bool {
    let refers = |schema: &Json| schema.get("$ref").and_then(Json::as_str).is_some_and(|r| r.ends_with("/Duration"));
    refers(property) || property.get("anyOf").and_then(Json::as_array).into_iter().flatten().any(refers)
}

fn kind(root: &Json, property: &Json) -> String {
    let schema = resolve(root, property);
    if let Some(words) = schema.get("enum").and_then(Json::as_array) {
        return words.iter().map(|w| format!("`{}`", w.as_str().unwrap_or_default())).collect::<Vec<_>>().join(" or ");
    }
    if let Some(choices) = schema.get("oneOf").and_then(Json::as_array) {
        let words: Vec<String> = choices
            .iter()
            .filter_map(|c| c.get("const"))
            .map(|w| format!("`{}`", w.as_str().unwrap_or_default()))
            .collect();
        if words.len() == choices.len() {
            return words.join(" or ");
        }
        return "one of several".into();
    }
    let word = match schema.get("type") {
        Some(Json::String(word)) => word.clone(),
        Some(Json::Array(words)) => {
            words.iter().filter_map(Json::as_str).find(|word| *word != "null").unwrap_or("any").to_owned()
        }
        _ => return if schema.get("anyOf").is_some() { "one of several".into() } else { "any".into() },
    };
    match word.as_str() {
        "object" if schema.get("additionalProperties").is_some_and(Json::is_object) => "table by name".into(),
        "object" => "table".into(),
        "array" => "list".into(),
        "string" if is_duration(property) => "duration".into(),
        "string" => "text".into(),
        "integer" => "whole number".into(),
        other => other.to_owned(),
    }
}
