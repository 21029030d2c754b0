//! Output fields of a prompt to a JSON Schema, and the tools it declares.

use std::collections::BTreeSet;
use std::sync::Arc;

use windlass_core::machine::ToolDefinition;
use windlass_core::value::{Map, Value};

use crate::diagnostics::{Rule, Sink};
use crate::eval;
use crate::yaml::{Entry, Node};

/// The JSON Schema of an answer; none when no field is declared.
pub(crate) fn schema(output: Option<&Arc<Node>>, sink: &mut Sink) -> Option<Value> {
    let fields = output?.as_map().filter(|fields| !fields.is_empty())?;
    Some(object(fields, sink))
}

fn object(fields: &[Entry], sink: &mut Sink) -> Value {
    let properties: Map = fields.iter().map(|e| (e.key.clone(), field(&e.value, sink))).collect();
    let required: Vec<Value> =
        fields.iter().filter(|e| is_required(&e.value)).map(|e| Value::Str(e.key.clone())).collect();
    let mut schema = Map::new();
    schema.insert("type".into(), Value::str("object"));
    schema.insert("properties".into(), Value::map(properties));
    if !required.is_empty() {
        schema.insert("required".into(), Value::list(required));
    }
    Value::map(schema)
}

fn is_required(field: &Node) -> bool {
    field.get("required").and_then(|n| n.as_bool()).unwrap_or_default()
}

/// One field. A field that is not required may be null as well as absent.
fn field(node: &Node, sink: &mut Sink) -> Value {
    let kind = node.text("type").map(|t| &**t);
    let mut schema = Map::new();
    let json_type = match kind {
        Some("str") => Some("string"),
        Some("int") => Some("integer"),
        Some("float") => Some("number"),
        Some("bool") => Some("boolean"),
        Some("list") => Some("array"),
        Some("object") => Some("object"),
        _ => None,
    };
    if let Some(json_type) = json_type {
        let named = Value::str(json_type);
        let one = if is_required(node) { named } else { Value::list(vec![named, Value::str("null")]) };
        schema.insert("type".into(), one);
    }
    if let Some(description) = node.text("description") {
        schema.insert("description".into(), Value::Str(description.clone()));
    }
    if let Some(words) = node.get("enum").filter(|n| n.as_list().is_some()) {
        let mut words = words.to_value().as_list().unwrap_or_default().to_vec();
        if !is_required(node) {
            words.push(Value::Null);
        }
        schema.insert("enum".into(), Value::list(words));
    }
    nested(node, kind, &mut schema, sink);
    Value::map(schema)
}

fn nested(node: &Node, kind: Option<&str>, schema: &mut Map, sink: &mut Sink) {
    if let Some(items) = node.entry("items") {
        if kind == Some("list") {
            schema.insert("items".into(), field(&items.value, sink));
        } else {
            sink.warn(Rule::NoEffect, items.key_span, "`items` has no effect but for `type: list`", ());
        }
    }
    if let Some(properties) = node.entry("properties") {
        match (kind, properties.value.as_map()) {
            (Some("object"), Some(fields)) => {
                if let Value::Map(inner) = object(fields, sink) {
                    schema.extend(inner.iter().filter(|(k, _)| &***k != "type").map(|(k, v)| (k.clone(), v.clone())));
                }
            }
            (Some("object"), None) => {}
            _ => {
                sink.warn(Rule::NoEffect, properties.key_span, "`properties` has no effect but for `type: object`", ())
            }
        }
    }
}

/// The tools that a prompt declares.
pub(crate) fn tools(prompt: &Node, sink: &mut Sink) -> Vec<ToolDefinition> {
    let mut seen = BTreeSet::new();
    let mut tools = Vec::new();
    for item in prompt.get("tools").and_then(|n| n.as_list()).unwrap_or_default() {
        let Some(function) = item.get("function") else { continue };
        let Some(name) = function.get("name").filter(|n| n.as_str().is_some()) else { continue };
        let Some(text) = name.as_str() else { continue };
        if !seen.insert(text.clone()) {
            let message = format!("the tool `{text}` is declared twice");
            sink.error(Rule::DuplicateName, name.span, message, "remove one of them");
        }
        let parameters = function.get("parameters").map_or_else(no_parameters, |node| {
            let schema = node.to_value();
            if let Err(failure) = eval::check_schema(&schema) {
                let message = format!("`parameters` of `{text}` is no JSON Schema: {}", failure.message);
                sink.error(Rule::BadSchema, node.span, message, ());
            }
            schema
        });
        let description = function.text("description").cloned().unwrap_or_else(|| "".into());
        tools.push(ToolDefinition { name: text.clone(), description, parameters });
    }
    tools
}

fn no_parameters() -> Value {
    Value::object([("type", Value::str("object")), ("properties", Value::empty_map())])
}
