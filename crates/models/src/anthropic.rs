//! The wire format of Anthropic messages. Pure mapping.

mod stream;

use windlass_core::file::File;
use windlass_core::limits::OUTPUT_TOKENS_DEFAULT;
use windlass_core::machine::ToolDefinition;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, Message, ToolRequest, Usage};
use windlass_core::value::{Map, Value};

use crate::errors::Fault;
use crate::files::{self, Turns};
use crate::prove;
use crate::schema;
use crate::wire::{self, Answer, Assemble, Blocks, CallIds, Place, StructuredOutput, Wire, count, text};

/// The version of the API that this mapping speaks.
const VERSION: &str = "2023-06-01";

/// Body keys that parameters must not set.
const RESERVED: &[&str] = &["model", "messages", "system", "tools", "stream", "max_tokens"];

/// Models without structured outputs, by the start of their name.
const WITHOUT_SCHEMA: &[&str] = &[
    "claude-2",
    "claude-3",
    "claude-instant",
    "claude-opus-4-0",
    "claude-opus-4-2",
    "claude-sonnet-4-0",
    "claude-sonnet-4-2",
];

/// Anthropic messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anthropic;

impl Wire for Anthropic {
    fn place(&self, _: &ModelRequest) -> Place {
        Place::at("messages")
    }

    fn structured_output(&self) -> StructuredOutput {
        StructuredOutput::Schema
    }

    fn headers(&self, key: Option<&str>) -> Vec<(&'static str, String)> {
        let key = key.map(|key| ("x-api-key", key.to_owned()));
        key.into_iter().chain([("anthropic-version", VERSION.to_owned())]).collect()
    }

    fn body(&self, request: &ModelRequest, structured: StructuredOutput) -> Result<Value, Fault> {
        wire::check(&request.messages)?;
        let model = &*request.model;
        let mut body = Map::new();
        body.insert("model".into(), Value::str(model));
        body.insert("max_tokens".into(), Value::count(request.max_tokens.unwrap_or(OUTPUT_TOKENS_DEFAULT)));
        let system: Vec<&str> = wire::instructions(&request.messages).collect();
        if !system.is_empty() {
            body.insert("system".into(), Value::str(system.join("\n\n")));
        }
        body.insert("messages".into(), messages(&request.messages, &request.provider));
        if !request.tools.is_empty() {
            body.insert("tools".into(), Value::list(request.tools.iter().map(tool).collect()));
        }
        if request.stream {
            body.insert("stream".into(), Value::Bool(true));
        }
        wire::add_params(&mut body, &request.params, RESERVED)?;
        if let Some(stop) = body.shift_remove("stop") {
            body.insert("stop_sequences".into(), wire::listed(stop));
        }
        let takes_schema =
            structured == StructuredOutput::Schema && !WITHOUT_SCHEMA.iter().any(|s| model.starts_with(s));
        let schema = request.output_schema.as_ref().filter(|_| takes_schema).and_then(schema::for_anthropic);
        if let Some(schema) = schema {
            let mut config = body.get("output_config").and_then(Value::as_map).cloned().unwrap_or_default();
            let format = Value::object([("type", Value::str("json_schema")), ("schema", schema)]);
            config.entry("format".into()).or_insert(format);
            body.insert("output_config".into(), Value::map(config));
        }
        Ok(Value::map(body))
    }

    fn attach(&self, body: Value, files: &[File]) -> Result<Value, Fault> {
        let parts = files.iter().map(files::anthropic).collect::<Result<_, _>>()?;
        files::attach(body, &Turns { turns: "messages", parts: "content", said }, parts)
    }

    fn prove(&self, body: &Value) -> Result<(), Fault> {
        prove::anthropic(body)
    }

    fn answer(&self, body: &Value) -> Result<Answer, Fault> {
        wire::unrefused(body)?;
        let Some(blocks) = body.get("content").and_then(Value::as_list) else {
            return Err(Fault::Malformed("it has no `content`".to_owned()));
        };
        let Some(reason) = text(body, "stop_reason") else {
            return Err(Fault::Truncated("it has no stop reason".to_owned()));
        };
        let mut parts = Blocks::default();
        for block in blocks {
            add(&mut parts, block, None);
        }
        let tier = service_tier(body.get("usage"));
        let whole = answer(parts, reason, usage(body.get("usage")), text(body, "id"), text(body, "model"));
        Ok(Answer { service_tier: tier, ..whole })
    }

    fn stream(&self) -> Box<dyn Assemble> {
        Box::new(stream::Assembler::default())
    }
}

/// The service tier, which stands beside the tokens.
fn service_tier(usage: Option<&Value>) -> Option<windlass_core::ids::Name> {
    usage.and_then(|usage| text(usage, "service_tier")).map(Into::into)
}

/// Adds a block; `input` is the streamed text of a tool call's arguments.
fn add(parts: &mut Blocks, block: &Value, input: Option<&str>) {
    match text(block, "type") {
        Some("text") => parts.say(text(block, "text").unwrap_or_default()),
        Some("tool_use") => parts.ask(text(block, "id"), text(block, "name"), input, block.get("input")),
        _ => parts.attached.push(block.clone()),
    }
}

fn answer(parts: Blocks, reason: &str, usage: Usage, id: Option<&str>, model: Option<&str>) -> Answer {
    let cut = match reason {
        "max_tokens" | "model_context_window_exceeded" => Some(Finish::Length),
        "refusal" => Some(Finish::ContentFilter),
        _ => None,
    };
    Answer { id: id.map(Into::into), model: model.map(Into::into), ..parts.answer(cut, reason, usage) }
}

/// Turns of two roles in alternation: what follows in the same role joins the turn before it.
fn messages(messages: &[Message], provider: &str) -> Value {
    let ids = CallIds::of(messages);
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    for (place, message) in messages.iter().enumerate() {
        let (role, blocks) = match message {
            Message::System { .. } => continue,
            Message::User { content } => ("user", vec![said(content)]),
            Message::Assistant { content, tool_calls, attachments } => {
                let attached = attachments.get(provider).and_then(Value::as_list).unwrap_or_default();
                let text = Some(said(content)).filter(|_| !content.is_empty());
                (
                    "assistant",
                    attached
                        .iter()
                        .cloned()
                        .chain(text)
                        .chain(tool_calls.iter().map(|c| call(c, ids.accepted(place, &c.id))))
                        .collect(),
                )
            }
            Message::Tool { call_id, content, is_error } => {
                ("user", vec![result(ids.accepted(place, call_id), content, *is_error)])
            }
        };
        match turns.last_mut() {
            _ if blocks.is_empty() => {}
            Some((last, all)) if *last == role => all.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    let turn = |(role, blocks): (&str, Vec<Value>)| {
        Value::object([("role", Value::str(role)), ("content", Value::list(blocks))])
    };
    Value::list(turns.into_iter().map(turn).collect())
}

fn said(content: &str) -> Value {
    Value::object([("type", Value::str("text")), ("text", Value::str(content))])
}

fn call(call: &ToolRequest, id: Value) -> Value {
    Value::object([
        ("type", Value::str("tool_use")),
        ("id", id),
        ("name", call.name.clone().into()),
        ("input", wire::mapping(&call.arguments)),
    ])
}

fn result(id: Value, content: &str, is_error: bool) -> Value {
    let mut map = Map::new();
    map.insert("type".into(), "tool_result".into());
    map.insert("tool_use_id".into(), id);
    map.insert("content".into(), content.into());
    if is_error {
        map.insert("is_error".into(), Value::Bool(true));
    }
    Value::map(map)
}

fn tool(tool: &ToolDefinition) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), tool.name.clone().into());
    if !tool.description.is_empty() {
        map.insert("description".into(), tool.description.clone().into());
    }
    let schema =
        if tool.parameters.is_null() { Value::object([("type", "object".into())]) } else { tool.parameters.clone() };
    map.insert("input_schema".into(), schema);
    Value::map(map)
}

fn usage(value: Option<&Value>) -> Usage {
    let Some(value) = value else { return Usage::default() };
    Usage {
        input: count(value.get("input_tokens")),
        cache_read: count(value.get("cache_read_input_tokens")),
        cache_write: count(value.get("cache_creation_input_tokens")),
        output: count(value.get("output_tokens")),
        reasoning: count(value.get("output_tokens_details").and_then(|d| d.get("thinking_tokens"))),
    }
}

#[cfg(test)]
mod tests;
