//! What calls touch: the ids of things among their arguments, as contracts name them, for the audit trail.
//!
//! Owns how they are found and bounded. Which arguments are ids is said by [`crate::contract::Contract::resources`].

use serde::{Deserialize, Serialize};

use crate::hidden::{EACH, Hidden};
use crate::ids::Name;
use crate::redact::REDACTED;
use crate::value::Value;

/// Ids that are kept of one call.
pub const RESOURCES_MAX: usize = 16;
/// Bytes of an id that are kept; the rest is cut with a mark.
pub const RESOURCE_BYTES_MAX: usize = 128;

/// The id of one thing that a call touches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// The argument, as keys inwards with dots between them.
    pub name: Name,
    /// Its value; `[redacted]` where that is not shown.
    pub id: Name,
}

/// The ids that these paths lead to, at most [`RESOURCES_MAX`]. What is hidden, and everything where `is_secret`, is there
/// without its value; what is no text, number or truth value is no id.
#[must_use]
pub fn of(arguments: &Value, paths: &[Vec<Name>], hidden: &Hidden, is_secret: bool) -> Vec<Resource> {
    let mut found = Vec::new();
    if paths.is_empty() {
        return found;
    }
    let shown = hidden.veil().document(arguments);
    for path in paths {
        let name: Name = path.join(".").into();
        reach(&shown, path, &mut |value| {
            if found.len() < RESOURCES_MAX
                && let Some(id) = id(value)
            {
                let id = if is_secret { REDACTED.into() } else { id };
                found.push(Resource { name: name.clone(), id });
            }
        });
    }
    found
}

fn reach(value: &serde_json::Value, path: &[Name], take: &mut impl FnMut(&serde_json::Value)) {
    use serde_json::Value as Json;
    match (path.split_first(), value) {
        (None, Json::Array(items)) => items.iter().for_each(take),
        (None, value) => take(value),
        (Some((key, rest)), Json::Array(items)) if **key == *EACH => items.iter().for_each(|it| reach(it, rest, take)),
        (Some((key, rest)), Json::Object(map)) if **key == *EACH => map.values().for_each(|it| reach(it, rest, take)),
        // A key beside a list counts for each of its items, as in what contracts hide.
        (Some(_), Json::Array(items)) => items.iter().for_each(|item| reach(item, path, take)),
        (Some((key, rest)), value) => {
            if let Some(inner) = value.get(&**key) {
                reach(inner, rest, take);
            }
        }
    }
}

fn id(value: &serde_json::Value) -> Option<Name> {
    use serde_json::Value as Json;
    let text = match value {
        Json::String(text) => text.clone(),
        Json::Number(_) | Json::Bool(_) => value.to_string(),
        Json::Null | Json::Array(_) | Json::Object(_) => return None,
    };
    let cut = text.floor_char_boundary(RESOURCE_BYTES_MAX);
    Some(if cut < text.len() { format!("{}…", &text[..cut]).into() } else { text.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(arguments: &str, paths: &[&str], hidden: &[&str], is_secret: bool) -> Vec<(String, String)> {
        let parts = |path: &&str| path.split('.').map(Name::from).collect::<Vec<_>>();
        let paths: Vec<_> = paths.iter().map(parts).collect();
        let arguments = Value::from_json(arguments).expect("JSON");
        let hidden = Hidden::of(&arguments, &hidden.iter().map(parts).collect::<Vec<_>>());
        let pair = |one: Resource| (one.name.to_string(), one.id.to_string());
        of(&arguments, &paths, &hidden, is_secret).into_iter().map(pair).collect()
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect()
    }

    #[test]
    fn ids_are_found_where_the_paths_lead() {
        let arguments = r#"{"id":7,"of":{"order":"o-1"},"lines":[{"sku":"a"},{"sku":"b"}],"tags":["x","y"],"no":null}"#;
        assert_eq!(
            found(
                arguments,
                &["id", "of.order", "lines.*.sku", "lines.sku", "tags", "no", "missing", "of"],
                &[],
                false
            ),
            pairs(&[
                ("id", "7"),
                ("of.order", "o-1"),
                ("lines.*.sku", "a"),
                ("lines.*.sku", "b"),
                ("lines.sku", "a"),
                ("lines.sku", "b"),
                ("tags", "x"),
                ("tags", "y"),
            ])
        );
    }

    #[test]
    fn what_is_not_shown_is_not_there_in_clear() {
        let arguments = r#"{"id":"cus-1234567","iban":"DE02120300000000202051"}"#;
        assert_eq!(
            found(arguments, &["id", "iban"], &["iban"], false),
            pairs(&[("id", "cus-1234567"), ("iban", "[redacted]")])
        );
        assert_eq!(
            found(arguments, &["id", "iban"], &[], true),
            pairs(&[("id", "[redacted]"), ("iban", "[redacted]")])
        );
    }

    #[test]
    fn ids_are_bounded_in_number_and_length() {
        let many = format!("{{\"ids\":{:?}}}", (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(found(&many, &["ids"], &[], false).len(), RESOURCES_MAX);
        let long = found(&format!("{{\"id\":\"{}\"}}", "é".repeat(300)), &["id"], &[], false);
        assert!(long[0].1.ends_with("é…") && long[0].1.len() <= RESOURCE_BYTES_MAX + "…".len(), "{long:?}");
    }
}
