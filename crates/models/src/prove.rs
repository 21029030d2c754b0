//! Proofs that a rendered body is what its provider takes, made on the body itself just before it is sent: roles in
//! order, nothing empty where text is wanted, every tool call answered once and in its place.
//!
//! Independent of the renderers: a mistake there is a refusal here, not an error of the provider.

use std::collections::BTreeSet;

use windlass_core::value::Value;

use crate::errors::Fault;
use crate::wire::text;

fn refuse(why: impl AsRef<str>) -> Fault {
    Fault::Unsayable(format!("the request is not valid for this provider: {}", why.as_ref()))
}

fn list<'a>(body: &'a Value, key: &str) -> Result<&'a [Value], Fault> {
    let list = body.get(key).and_then(Value::as_list).unwrap_or_default();
    if list.is_empty() { Err(refuse(format!("`{key}` is empty"))) } else { Ok(list) }
}

/// Tool calls that are not answered yet, and those that were made so far.
#[derive(Debug, Default)]
struct Open<'a>(BTreeSet<&'a str>, BTreeSet<&'a str>);

impl<'a> Open<'a> {
    /// A call with an id that no call before it had.
    fn asked_anew(&mut self, id: Option<&'a str>, name: Option<&str>) -> Result<(), Fault> {
        self.asked(id, name)?;
        let id = id.unwrap_or_default();
        if self.1.insert(id) { Ok(()) } else { Err(refuse(format!("two tool calls have the id `{id}`"))) }
    }

    fn asked(&mut self, id: Option<&'a str>, name: Option<&str>) -> Result<(), Fault> {
        let id = id.filter(|id| !id.is_empty()).ok_or_else(|| refuse("a tool call has no id"))?;
        if name.is_none_or(str::is_empty) {
            return Err(refuse(format!("the tool call `{id}` names no tool")));
        }
        if !self.0.insert(id) {
            return Err(refuse(format!("two open tool calls have the id `{id}`")));
        }
        Ok(())
    }

    fn answered(&mut self, id: Option<&str>) -> Result<(), Fault> {
        let id = id.unwrap_or_default();
        if self.0.remove(id) { Ok(()) } else { Err(refuse(format!("`{id}` answers no open tool call"))) }
    }

    fn none(&self) -> Result<(), Fault> {
        self.0.first().map_or(Ok(()), |id| Err(refuse(format!("the tool call `{id}` is not answered in its place"))))
    }
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_list).unwrap_or_default()
}

/// OpenAI chat completions.
pub(crate) fn chat(body: &Value) -> Result<(), Fault> {
    let mut open = Open::default();
    for message in list(body, "messages")? {
        let role = text(message, "role").unwrap_or_default();
        if role == "tool" {
            open.answered(text(message, "tool_call_id"))?;
            continue;
        }
        open.none()?;
        match role {
            "system" | "developer" | "user" => {}
            "assistant" => {
                for call in items(message, "tool_calls") {
                    open.asked(text(call, "id"), call.get("function").and_then(|f| text(f, "name")))?;
                }
            }
            other => return Err(refuse(format!("`{other}` is no role"))),
        }
    }
    open.none()
}

/// OpenAI responses: a reasoning item stands before what it led to, and every function call has one output after it.
pub(crate) fn responses(body: &Value) -> Result<(), Fault> {
    let (mut open, mut reasoned) = (Open::default(), false);
    for item in list(body, "input")? {
        match text(item, "type") {
            Some("reasoning") => {
                open.none()?;
                reasoned = true;
                continue;
            }
            Some("function_call") => open.asked_anew(text(item, "call_id"), text(item, "name"))?,
            Some("function_call_output") if !reasoned => open.answered(text(item, "call_id"))?,
            None | Some("message") => {
                let role = text(item, "role").unwrap_or_default();
                if !matches!(role, "system" | "developer" | "user" | "assistant") {
                    return Err(refuse(format!("`{role}` is no role")));
                }
                if role != "assistant" {
                    open.none()?;
                }
                if reasoned && role != "assistant" {
                    return Err(refuse("reasoning stands before no answer"));
                }
            }
            Some(other) => return Err(refuse(format!("an item `{other}` does not stand here"))),
        }
        reasoned = false;
    }
    if reasoned {
        return Err(refuse("reasoning stands before no answer"));
    }
    open.none()
}

/// What a block of a turn is to the proof.
enum Block<'a> {
    Text(&'a str),
    Ask(Option<&'a str>, Option<&'a str>),
    Answer(Option<&'a str>),
    Other,
}

/// Turns of `user` and `assistant` in alternation that begin with the user; answers come first in the turn right after
/// their calls.
fn turns<'a>(turns: &'a [Value], block: impl Fn(&'a Value) -> Block<'a>) -> Result<(), Fault> {
    let (mut open, mut last) = (Open::default(), "assistant");
    for turn in turns {
        let role = text(turn, "role").unwrap_or_default();
        if !matches!((last, role), ("assistant", "user") | ("user", "assistant")) {
            let first = if std::ptr::eq(turn, &raw const turns[0]) { "the first turn" } else { "a turn" };
            return Err(refuse(format!("{first} is `{role}` where the other side is to speak")));
        }
        last = role;
        for part in list(turn, "content")? {
            match block(part) {
                Block::Answer(id) if role == "user" => open.answered(id)?,
                Block::Answer(_) => return Err(refuse("the assistant answers a tool call")),
                Block::Ask(id, name) if role == "assistant" => open.asked_anew(id, name)?,
                Block::Ask(..) => return Err(refuse("the user calls a tool")),
                Block::Text(text) if text.trim().is_empty() => {
                    return Err(refuse(format!("a text of the {role} is blank")));
                }
                Block::Text(_) | Block::Other if role == "user" => open.none()?,
                Block::Text(_) | Block::Other => {}
            }
        }
        if role == "user" {
            open.none()?;
        }
    }
    open.none()
}

/// Anthropic messages.
pub(crate) fn anthropic(body: &Value) -> Result<(), Fault> {
    turns(list(body, "messages")?, |part| match text(part, "type") {
        Some("text") => Block::Text(text(part, "text").unwrap_or_default()),
        Some("tool_use") => Block::Ask(text(part, "id"), text(part, "name")),
        Some("tool_result") => Block::Answer(text(part, "tool_use_id")),
        _ => Block::Other,
    })
}

/// Bedrock Converse.
pub(crate) fn bedrock(body: &Value) -> Result<(), Fault> {
    let messages = list(body, "messages")?;
    turns(messages, |part| {
        let at = |key: &str| part.get(key);
        match (at("text"), at("toolUse"), at("toolResult")) {
            (Some(said), ..) => Block::Text(said.as_str().unwrap_or_default()),
            (_, Some(call), _) => Block::Ask(text(call, "toolUseId"), text(call, "name")),
            (_, _, Some(result)) => Block::Answer(text(result, "toolUseId")),
            (None, None, None) => Block::Other,
        }
    })?;
    let calls = messages.iter().flat_map(|m| items(m, "content")).any(|part| part.get("toolUse").is_some());
    let tools = body.get("toolConfig").is_some_and(|config| !items(config, "tools").is_empty());
    if calls && !tools {
        return Err(refuse("tool calls without `toolConfig`"));
    }
    Ok(())
}

/// Gemini: a turn with calls stands after the user, and the next one answers all of them in order.
pub(crate) fn gemini(body: &Value) -> Result<(), Fault> {
    let names = |turn, key: &str| -> Vec<String> {
        let named = items(turn, "parts").iter().filter_map(|part| part.get(key)?.get("name")?.as_str());
        named.map(str::to_owned).collect()
    };
    let contents = list(body, "contents")?;
    if text(&contents[0], "role") != Some("user") {
        return Err(refuse("the first turn is not the user's"));
    }
    let (mut open, mut last) = (Vec::new(), "user");
    for turn in contents {
        let role = text(turn, "role").unwrap_or_default();
        let (asked, answered) = (names(turn, "functionCall"), names(turn, "functionResponse"));
        if answered != open {
            let text = format!("the tool calls {open:?} are followed by the answers {answered:?}");
            return Err(refuse(text));
        }
        if !matches!(role, "user" | "model") || (role == "user" && !asked.is_empty()) {
            return Err(refuse(format!("`{role}` is no role, or calls tools")));
        }
        if role == "model" && (!answered.is_empty() || (last == "model" && !asked.is_empty())) {
            return Err(refuse("the model answers itself"));
        }
        for part in list(turn, "parts")? {
            if part.get("text").is_some_and(|said| said.as_str().is_none_or(|said| said.trim().is_empty())) {
                return Err(refuse(format!("a text of the {role} is blank")));
            }
        }
        (open, last) = (asked, role);
    }
    if open.is_empty() { Ok(()) } else { Err(refuse(format!("the tool calls {open:?} are not answered"))) }
}

/// Ollama: answers have no id and stand in the order of their calls, named by tool.
pub(crate) fn ollama(body: &Value) -> Result<(), Fault> {
    let mut open: std::collections::VecDeque<&str> = std::collections::VecDeque::new();
    for message in list(body, "messages")? {
        let role = text(message, "role").unwrap_or_default();
        if role == "tool" {
            let tool = text(message, "tool_name");
            if tool.is_none() || open.pop_front() != tool {
                return Err(refuse(format!("the answer of `{}` has no open tool call", tool.unwrap_or_default())));
            }
            continue;
        }
        if let Some(name) = open.front() {
            return Err(refuse(format!("the tool call of `{name}` is not answered in its place")));
        }
        if !matches!(role, "system" | "user" | "assistant") {
            return Err(refuse(format!("`{role}` is no role")));
        }
        for call in items(message, "tool_calls") {
            let name = call.get("function").and_then(|f| text(f, "name")).filter(|name| !name.is_empty());
            open.push_back(name.ok_or_else(|| refuse("a tool call names no tool"))?);
        }
    }
    open.front().map_or(Ok(()), |name| Err(refuse(format!("the tool call of `{name}` is not answered"))))
}

#[cfg(test)]
mod tests;
