//! What models thought, in what is shown of a run: its size and hash instead of it. Providers send it in parts that they
//! alone understand, and get it back as it was; so every such part is covered, whatever its form.

use serde_json::{Value as Json, json};

use crate::ids::Digest;

/// The key of those parts in a reply and in what an assistant said.
const PARTS: &str = "attachments";
/// Keys that a reply always has.
const OF_REPLY: [&str; 3] = ["finish", "has_content", "usage"];

/// The key of a body that was cut off, as text, where it was kept.
const CUT: &str = "cut_text";

/// Puts size and hash in the place of the thinking of every reply and every message of an assistant.
pub(super) fn cover(json: &mut Json) {
    match json {
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        Json::Array(items) => items.iter_mut().for_each(cover),
        Json::Object(map) => {
            let is_said = map.get("role").is_some_and(|role| role == "assistant");
            if is_said || OF_REPLY.iter().all(|key| map.contains_key(*key)) {
                match map.get_mut(PARTS) {
                    None | Some(Json::Null) => {}
                    Some(Json::Object(of)) => of.values_mut().for_each(cover_part),
                    Some(other) => cover_part(other),
                }
            }
            if let Some(Json::String(text)) = map.get_mut(CUT) {
                cut(text);
            }
            map.values_mut().for_each(cover);
        }
    }
}

/// Of a body that was cut off nobody knows where its parts end: everything from the first one on is covered. Within texts
/// quotation marks are escaped, so what people wrote is not taken for a key.
fn cut(text: &mut String) {
    if let Some(at) = text.find(&format!("\"{PARTS}\":")) {
        let part = json!({ "hidden": "thinking", "bytes": text.len() - at });
        text.truncate(at);
        text.push_str(&part.to_string());
    }
}

fn cover_part(part: &mut Json) {
    let text = part.to_string();
    let digest = Digest::of(text.as_bytes()).to_string();
    *part = json!({ "hidden": "thinking", "bytes": text.len(), "hash": digest });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hidden::Hidden;

    #[test]
    fn thinking_is_covered_where_it_can_stand_and_nothing_else_is() {
        let parts = json!({ "anthropic": [{ "type": "thinking", "thinking": "canary" }] });
        let reply = json!({
            "content": "4", "has_content": true, "finish": "stop", "usage": {}, "attachments": parts,
        });
        let said = json!({ "role": "assistant", "content": "4", "attachments": parts });
        let mail = json!({ "attachments": { "report.pdf": "canary" } });
        let shown = json!({ "outcome": { "replied": reply }, "tail": [said], "context": { "mail": mail } });
        let veiled = Hidden::default().veil().document(&shown);
        assert_eq!(veiled["context"]["mail"], mail, "data of users is theirs");
        for at in ["/outcome/replied/attachments/anthropic", "/tail/0/attachments/anthropic"] {
            let part = veiled.pointer(at).expect("a part");
            assert_eq!(part["hidden"], "thinking", "{at}");
            assert_eq!(part["bytes"], parts["anthropic"].to_string().len(), "{at}");
            assert_eq!(part["hash"].as_str().map(str::len), Some(64), "{at}");
        }
        assert_eq!(Hidden::default().veil().with_thinking(true).document(&shown), shown);
    }

    #[test]
    fn what_was_cut_off_is_shown_up_to_the_first_part() {
        let kept =
            json!({ "bytes": 9_999, "cut_text": r#"[{"content":"\"attachments\": 1"},{"attachments":{"x":"canary"#});
        let shown = Hidden::default().veil().document(&kept);
        let text = shown["cut_text"].as_str().expect("text");
        assert!(text.starts_with(r#"[{"content":"\"attachments\": 1"},{{"hidden":"#), "{text}");
        assert!(text.contains("thinking") && !text.contains("canary"), "{text}");
    }

    #[test]
    fn where_nothing_may_be_shown_thinking_is_not_either() {
        let said = json!({ "role": "assistant", "content": "4", "attachments": "canary" });
        let all = Hidden { all: true, ..Hidden::default() };
        let shown = all.veil().with_thinking(true).document(&said).to_string();
        assert!(!shown.contains("canary"), "{shown}");
    }
}
