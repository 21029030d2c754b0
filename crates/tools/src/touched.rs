//! `resources` of a table: which arguments are the ids of what a call touches, checked against the schema of the arguments.
//!
//! Owns no meaning of them: what a contract names is put into audit rows by the core.

use serde_json::Value as Json;
use windlass_core::hidden::EACH;
use windlass_core::ids::Name;
use windlass_core::label::pointer;
use windlass_core::resource::RESOURCES_MAX;

use crate::build::{Site, pointers};
use crate::role::Role;

/// What the arguments of an action are made of.
const OF_ACTION: [&str; 5] = ["action", "state", "machine", "run_id", "context"];

/// Says which of them cannot name an id.
pub(crate) fn check(site: &mut Site<'_>, role: Role, given: Option<&[String]>, schema: Option<&Json>) {
    let Some(given) = given else { return };
    if given.is_empty() || given.len() > RESOURCES_MAX {
        let hint = "name arguments that are ids, such as `/customer_id`, or leave it out";
        site.wrong("resources", format!("names 1 to {RESOURCES_MAX} arguments"), Some(hint));
    }
    pointers(site, "", "resources", Some(given));
    for text in given {
        let Some(path) = pointer(text) else { continue };
        let lacks = match (role, path.first()) {
            (_, None) => Err("it is all of the arguments, and no id".to_owned()),
            (Role::Hook, Some(first)) if !OF_ACTION.contains(&&**first) => {
                Err(format!("the arguments of an action are {}", OF_ACTION.join(", ")))
            }
            (Role::Hook, Some(_)) => Ok(()),
            (Role::Tool, Some(_)) => schema.map_or(Ok(()), |schema| leads(schema, &path)),
        };
        if let Err(why) = lacks {
            site.wrong("resources", format!("`{text}` names no id: {why}"), None);
        }
    }
}

/// Whether a path can lead to an id by what the schema says. What it leaves open may be one.
fn leads(schema: &Json, path: &[Name]) -> Result<(), String> {
    let is_of = |kind: &str| schema.get("type").and_then(Json::as_str) == Some(kind);
    let Some((key, rest)) = path.split_first() else {
        return if is_of("object") { Err("it is an object (`input_schema`)".into()) } else { Ok(()) };
    };
    if let Some(items) = schema.get("items").filter(|_| is_of("array")) {
        // A key beside a list counts for each of its items.
        return leads(items, if **key == *EACH { rest } else { path });
    }
    let (properties, other) = (schema.get("properties"), schema.get("additionalProperties"));
    let says_more = ["$ref", "allOf", "anyOf", "oneOf", "patternProperties", "if"];
    if **key == *EACH || says_more.iter().any(|word| schema.get(word).is_some()) {
        return Ok(());
    }
    match (properties.and_then(|known| known.get(&**key)), other) {
        (Some(inner), _) => leads(inner, rest),
        (None, Some(Json::Object(_) | Json::Bool(true))) => Ok(()),
        (None, _) if properties.is_some() || other == Some(&Json::Bool(false)) => {
            Err(format!("there is no argument `{key}` (`input_schema`)"))
        }
        (None, _) if ["string", "number", "integer", "boolean"].into_iter().any(is_of) => {
            Err(format!("there is no `{key}` in it (`input_schema`)"))
        }
        (None, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_where_the_schema_lets_an_id_be() {
        let schema = json!({"type": "object", "properties": {
            "id": {"type": "string"},
            "of": {"type": "object", "properties": {"order": {"type": "integer"}}},
            "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}},
            "any": {}, "open": {"type": "object"}, "one": {"$ref": "#/x"},
            "tags": {"type": "array", "items": {"type": "string"}}
        }});
        let at = |text: &str| leads(&schema, &pointer(text).expect("a pointer"));
        for good in
            ["/id", "/of/order", "/lines/*/sku", "/lines/sku", "/any/x", "/open/x", "/one/x", "/tags", "/tags/*"]
        {
            assert_eq!(at(good), Ok(()), "{good}");
        }
        for bad in ["/ids", "/of", "/of/orders", "/lines/*/name", "/lines/*", "/id/x", "/tags/*/x"] {
            assert!(at(bad).is_err(), "{bad}");
        }
        let open = json!({"type": "object", "properties": {"id": {}}, "additionalProperties": true});
        assert_eq!(leads(&open, &pointer("/other").expect("a pointer")), Ok(()));
    }
}
