//! The wire format of OpenAI responses. Pure mapping. Stateless: nothing is kept at the provider, and what it reasoned
//! goes back encrypted.

mod stream;

use windlass_core::file::File;
use windlass_core::machine::ToolDefinition;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, Message, ToolRequest, Usage};
use windlass_core::value::{Map, Value};

use crate::errors::Fault;
use crate::files::{self, Turns};
use crate::prove;
use crate::schema;
use crate::wire::{self, Answer, Assemble, CallIds, Place, StructuredOutput, Wire, count, text};

/// Body keys that parameters must not set.
const RESERVED: &[&str] = &[
    "model",
    "input",
    "instructions",
    "tools",
    "stream",
    "stream_options",
    "max_output_tokens",
    "max_tokens",
    "store",
    "background",
    "conversation",
    "previous_response_id",
    "stop",
];

/// OpenAI responses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Responses;

impl Wire for Responses {
    fn place(&self, _: &ModelRequest) -> Place {
        Place::at("responses")
    }

    fn structured_output(&self) -> StructuredOutput {
        StructuredOutput::Object
    }

    fn headers(&self, key: Option<&str>) -> Vec<(&'static str, String)> {
        wire::bearer(key)
    }

    fn body(&self, request: &ModelRequest, structured: StructuredOutput) -> Result<Value, Fault> {
        wire::check(&request.messages)?;
        let model = &*request.model;
        let mut body = Map::new();
        body.insert("model".into(), Value::str(model));
        body.insert("input".into(), input(&request.messages, &request.provider));
        if !request.tools.is_empty() {
            body.insert("tools".into(), Value::list(request.tools.iter().map(tool).collect()));
        }
        body.insert("store".into(), Value::Bool(false));
        if wire::is_reasoning(model) {
            body.insert("include".into(), Value::list(vec![Value::str("reasoning.encrypted_content")]));
        }
        if request.stream {
            body.insert("stream".into(), Value::Bool(true));
        }
        wire::add_params(&mut body, &request.params, RESERVED)?;
        let asked = ["max_completion_tokens"].map(|key| count(body.shift_remove(key).as_ref()));
        if let Some(most) = asked.into_iter().flatten().chain(request.max_tokens).min() {
            body.insert("max_output_tokens".into(), Value::count(most));
        }
        for (from, to, key) in [("reasoning_effort", "reasoning", "effort"), ("verbosity", "text", "verbosity")] {
            if let Some(value) = body.shift_remove(from) {
                put(&mut body, to, key, value);
            }
        }
        let format = request.output_schema.as_ref().and_then(|s| format(s, structured, !request.tools.is_empty()));
        if let Some(format) = format {
            put(&mut body, "text", "format", format);
        }
        Ok(Value::map(body))
    }

    fn attach(&self, body: Value, files: &[File]) -> Result<Value, Fault> {
        let parts = files.iter().map(files::responses).collect::<Result<_, _>>()?;
        files::attach(
            body,
            &Turns {
                turns: "input",
                parts: "content",
                said: |text| Value::object([("type", Value::str("input_text")), ("text", Value::str(text))]),
            },
            parts,
        )
    }

    fn prove(&self, body: &Value) -> Result<(), Fault> {
        prove::responses(body)
    }

    fn answer(&self, body: &Value) -> Result<Answer, Fault> {
        wire::unrefused(body)?;
        let Some(output) = body.get("output").and_then(Value::as_list) else {
            return Err(Fault::Malformed("it has no `output`".to_owned()));
        };
        let mut parts = Parts::default();
        for item in output {
            parts.item(item);
        }
        parts.answer(body)
    }

    fn stream(&self) -> Box<dyn Assemble> {
        Box::new(stream::Assembler::default())
    }
}

/// What the output items of an answer add up to.
#[derive(Debug, Default)]
struct Parts {
    content: String,
    has_content: bool,
    refusal: String,
    tool_calls: Vec<ToolRequest>,
    attached: Vec<Value>,
}

impl Parts {
    fn item(&mut self, item: &Value) {
        match text(item, "type") {
            Some("message") => {
                for part in item.get("content").and_then(Value::as_list).unwrap_or_default() {
                    match text(part, "type") {
                        Some("refusal") => self.refusal.push_str(text(part, "refusal").unwrap_or_default()),
                        _ => {
                            self.has_content = true;
                            self.content.push_str(text(part, "text").unwrap_or_default());
                        }
                    }
                }
            }
            Some("function_call") => {
                let part = |key: &str| text(item, key).unwrap_or_default().into();
                let arguments = wire::whole_arguments(item.get("arguments"));
                self.tool_calls.push(ToolRequest { id: part("call_id"), name: part("name"), arguments });
            }
            // An item that the provider does not keep can be told again only when it carries its content.
            Some("reasoning") if text(item, "encrypted_content").is_some() => self.attached.push(item.clone()),
            _ => {}
        }
    }

    fn answer(self, body: &Value) -> Result<Answer, Fault> {
        let status = text(body, "status").unwrap_or_default();
        let reason = body.get("incomplete_details").and_then(|d| text(d, "reason"));
        let refused = !self.refusal.is_empty() && self.content.is_empty();
        let finish = match (status, reason) {
            _ if refused => Finish::ContentFilter,
            ("incomplete", Some("content_filter")) => Finish::ContentFilter,
            ("incomplete", _) => Finish::Length,
            ("completed", _) if self.tool_calls.is_empty() => Finish::Stop,
            ("completed", _) => Finish::ToolUse,
            (other, _) => return Err(Fault::Truncated(format!("the response is `{other}`, not completed"))),
        };
        Ok(Answer {
            has_content: self.has_content || refused,
            content: if refused { self.refusal } else { self.content },
            tool_calls: self.tool_calls,
            finish,
            finish_word: Some(reason.unwrap_or(status).into()),
            usage: usage(body.get("usage")),
            attachments: if self.attached.is_empty() { Value::Null } else { Value::list(self.attached) },
            id: text(body, "id").map(Into::into),
            model: text(body, "model").map(Into::into),
            service_tier: text(body, "service_tier").map(Into::into),
        })
    }
}

fn put(body: &mut Map, group: &str, key: &str, value: Value) {
    let mut map = body.get(group).and_then(Value::as_map).cloned().unwrap_or_default();
    map.entry(key.into()).or_insert(value);
    body.insert(group.into(), Value::map(map));
}

fn input(messages: &[Message], provider: &str) -> Value {
    let ids = CallIds::of(messages);
    let mut items = Vec::with_capacity(messages.len());
    let said = |role: &str, content: &str| Value::object([("role", role.into()), ("content", Value::str(content))]);
    for (place, message) in messages.iter().enumerate() {
        match message {
            Message::System { content } => items.push(said("system", content)),
            Message::User { content } => items.push(said("user", content)),
            Message::Assistant { content, tool_calls, attachments } => {
                if content.is_empty() && tool_calls.is_empty() {
                    continue;
                }
                items.extend_from_slice(attachments.get(provider).and_then(Value::as_list).unwrap_or_default());
                if !content.is_empty() {
                    items.push(said("assistant", content));
                }
                items.extend(tool_calls.iter().map(|c| call(c, ids.accepted(place, &c.id))));
            }
            Message::Tool { call_id, content, is_error: _ } => items.push(Value::object([
                ("type", Value::str("function_call_output")),
                ("call_id", ids.accepted(place, call_id)),
                ("output", content.clone().into()),
            ])),
        }
    }
    Value::list(items)
}

fn call(call: &ToolRequest, id: Value) -> Value {
    let arguments = call.arguments.as_str().map_or_else(|| call.arguments.to_json(), str::to_owned);
    Value::object([
        ("type", Value::str("function_call")),
        ("call_id", id),
        ("name", call.name.clone().into()),
        ("arguments", arguments.into()),
    ])
}

fn tool(tool: &ToolDefinition) -> Value {
    let mut map = Map::new();
    map.insert("type".into(), "function".into());
    map.insert("name".into(), tool.name.clone().into());
    if !tool.description.is_empty() {
        map.insert("description".into(), tool.description.clone().into());
    }
    let empty = || Value::object([("type", Value::str("object")), ("properties", Value::empty_map())]);
    map.insert("parameters".into(), if tool.parameters.is_null() { empty() } else { tool.parameters.clone() });
    // Strict is the default here, and refuses most schemas that people write.
    map.insert("strict".into(), Value::Bool(false));
    Value::map(map)
}

fn format(schema: &Value, structured: StructuredOutput, tools: bool) -> Option<Value> {
    if !schema::is_object(schema) {
        return None;
    }
    match structured {
        StructuredOutput::Off => None,
        StructuredOutput::Object if tools => None,
        StructuredOutput::Object => Some(Value::object([("type", Value::str("json_object"))])),
        StructuredOutput::Schema => Some(Value::object([
            ("type", Value::str("json_schema")),
            ("name", Value::str("output")),
            ("strict", Value::Bool(schema::is_strict(schema))),
            ("schema", schema.clone()),
        ])),
    }
}

fn usage(value: Option<&Value>) -> Usage {
    let Some(value) = value else { return Usage::default() };
    let detail = |group: &str, key: &str| count(value.get(group).and_then(|g| g.get(key)));
    let cache_read = detail("input_tokens_details", "cached_tokens");
    let cache_write = detail("input_tokens_details", "cache_write_tokens");
    let cached = cache_read.unwrap_or(0).saturating_add(cache_write.unwrap_or(0));
    Usage {
        input: count(value.get("input_tokens")).map(|all| all.saturating_sub(cached)),
        cache_read,
        cache_write,
        output: count(value.get("output_tokens")),
        reasoning: detail("output_tokens_details", "reasoning_tokens"),
    }
}

#[cfg(test)]
mod tests;
