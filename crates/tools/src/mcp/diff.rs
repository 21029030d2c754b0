//! What changed between two definitions, place by place.

use serde_json::{Map, Value};

use crate::mcp::suspicious::visible;

/// Characters of a value that a difference quotes.
const QUOTE_CHARS_MAX: usize = 2_000;

/// One place that differs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Change {
    /// The place, as a JSON pointer.
    pub place: String,
    /// What was accepted there, hidden characters made visible; none when there was nothing.
    pub accepted: Option<String>,
    /// What is shown there now; none when there is nothing.
    pub shown: Option<String>,
}

/// Every place in which two definitions differ.
#[must_use]
pub fn diff(accepted: &Map<String, Value>, shown: &Map<String, Value>) -> Vec<Change> {
    let mut changes = Vec::new();
    members("", accepted, shown, &mut changes);
    changes
}

fn members(place: &str, old: &Map<String, Value>, new: &Map<String, Value>, changes: &mut Vec<Change>) {
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let place = format!("{place}/{}", visible(&key.replace('~', "~0").replace('/', "~1")));
        compare(&place, old.get(key), new.get(key), changes);
    }
}

fn compare(place: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    match (old, new) {
        (Some(old), Some(new)) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => members(place, old, new, changes),
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                compare(&format!("{place}/{index}"), old.get(index), new.get(index), changes);
            }
        }
        (old, new) => {
            changes.push(Change { place: place.to_owned(), accepted: old.map(quote), shown: new.map(quote) });
        }
    }
}

fn quote(value: &Value) -> String {
    let text = visible(&value.to_string());
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_place_is_named_once() {
        let map = |value: Value| value.as_object().unwrap().clone();
        let old = map(json!({ "name": "a", "description": "Adds.", "s": { "p": [1, 2], "gone": true } }));
        let new = map(json!({ "name": "a", "description": "Adds.\u{200b}", "s": { "p": [1, 3, 4] }, "b/c": null }));
        let changes = diff(&old, &new);
        let lines: Vec<_> =
            changes.iter().map(|c| (c.place.as_str(), c.accepted.as_deref(), c.shown.as_deref())).collect();
        assert_eq!(
            lines,
            [
                ("/b~1c", None, Some("null")),
                ("/description", Some(r#""Adds.""#), Some(r#""Adds.\u{200b}""#)),
                ("/s/gone", Some("true"), None),
                ("/s/p/1", Some("2"), Some("3")),
                ("/s/p/2", None, Some("4")),
            ]
        );
        assert_eq!(diff(&old, &old), []);
    }
}
