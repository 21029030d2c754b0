//! What the other side answers: a pure function of the request, so that a run that was disturbed gets what an undisturbed
//! one gets.

use serde_json::{Value, json};

use super::http::Request;
use super::{Fate, Kind, World};

/// Status and body of an answer; none when the connection is closed instead.
pub(super) fn of(world: &World, request: &Request, fate: Fate) -> Option<(u16, Value)> {
    match fate {
        Fate::ClosedBefore | Fate::ClosedAfter => None,
        Fate::Refused => Some((503, json!({"error": {"type": "unavailable", "message": "nothing was done"}}))),
        Fate::Done | Fate::Repeat => {
            let body = match request.kind {
                Kind::Tool => tool(world, &request.what),
                Kind::Verify => verdict(world, &request.body),
                Kind::Hook => json!({}),
                Kind::Model => model(world, &request.body),
            };
            Some((200, body))
        }
    }
}

fn tool(world: &World, name: &str) -> Value {
    world.manners.answers.get(name).cloned().unwrap_or_else(|| json!({"done": name}))
}

/// Whether the call that is asked about happened, and what it answered.
fn verdict(world: &World, asked: &Value) -> Value {
    let key = asked["effect_id"].as_str().unwrap_or_default();
    let name = asked["tool"].as_str().unwrap_or_default();
    json!({"happened": world.has_happened(key), "result": tool(world, name)})
}

/// A model that asks for every tool once, then says that it is done.
fn model(world: &World, body: &Value) -> Value {
    let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let offers = body["tools"].as_array().is_some_and(|tools| !tools.is_empty());
    let answered = messages.iter().any(|message| message["role"] == "tool");
    let asked = messages.iter().rev().find(|message| message["role"] == "user").map(|message| &message["content"]);
    let message = if offers && !answered {
        let calls = world.manners.model_asks.iter().map(|tool| {
            let arguments = json!({"order": asked, "tool": tool}).to_string();
            json!({"id": format!("call-{tool}"), "type": "function", "function": {"name": tool, "arguments": arguments}})
        });
        json!({"role": "assistant", "content": null, "tool_calls": calls.collect::<Vec<_>>()})
    } else {
        json!({"role": "assistant", "content": format!("done after {} messages", messages.len())})
    };
    let finish = if message.get("tool_calls").is_some() { "tool_calls" } else { "stop" };
    json!({
        "id": "reply", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    })
}
