//! The wire format of OpenAI chat completions, which most other servers speak too. Pure mapping.

mod stream;

use windlass_core::file::File;
use windlass_core::ids::Name;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, Message, ToolRequest, Usage};
use windlass_core::value::{Map, Value};

use crate::errors::{Fault, ProviderError};
use crate::files::{self, Turns};
use crate::prove;
use crate::schema;
use crate::wire::{self, Answer, Assemble, Place, StructuredOutput, Wire, count, text};

/// Body keys that parameters must not set.
const RESERVED: &[&str] = &["model", "messages", "tools", "functions", "stream", "stream_options", "max_tokens"];

/// Parts of a message that are sent back as they came: plain reasoning, and signed or encrypted blocks of it.
const REASONING: &str = "reasoning_content";
const REASONING_DETAILS: &str = "reasoning_details";

/// OpenAI chat completions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenAi;

impl Wire for OpenAi {
    fn place(&self, _: &ModelRequest) -> Place {
        Place::at("chat/completions")
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
        let messages = request.messages.iter().map(|m| message(m, &request.provider)).collect();
        body.insert("messages".into(), Value::list(messages));
        if !request.tools.is_empty() {
            body.insert("tools".into(), Value::list(request.tools.iter().map(tool).collect()));
        }
        if let Some(format) =
            request.output_schema.as_ref().and_then(|s| format(s, structured, !request.tools.is_empty()))
        {
            body.insert("response_format".into(), format);
        }
        if request.stream {
            body.insert("stream".into(), Value::Bool(true));
            body.insert("stream_options".into(), Value::object([("include_usage", Value::Bool(true))]));
        }
        wire::add_params(&mut body, &request.params, RESERVED)?;
        let asked = count(body.get("max_completion_tokens"));
        let by_name = wire::is_reasoning(model);
        let key =
            if by_name || body.contains_key("max_completion_tokens") { "max_completion_tokens" } else { "max_tokens" };
        if let Some(most) = asked.into_iter().chain(request.max_tokens).min() {
            body.insert(key.into(), Value::count(most));
        }
        Ok(Value::map(body))
    }

    fn attach(&self, body: Value, files: &[File]) -> Result<Value, Fault> {
        let parts = files.iter().map(files::chat).collect::<Result<_, _>>()?;
        files::attach(
            body,
            &Turns {
                turns: "messages",
                parts: "content",
                said: |text| Value::object([("type", Value::str("text")), ("text", Value::str(text))]),
            },
            parts,
        )
    }

    fn prove(&self, body: &Value) -> Result<(), Fault> {
        prove::chat(body)
    }

    fn answer(&self, body: &Value) -> Result<Answer, Fault> {
        if let Some(fault) = error_in(body) {
            return Err(fault);
        }
        let choice = body.get("choices").and_then(Value::as_list).and_then(<[Value]>::first);
        let Some(message) = choice.and_then(|c| c.get("message")).filter(|m| m.as_map().is_some()) else {
            return Err(Fault::Malformed("it has no `choices[0].message`".to_owned()));
        };
        let mut tool_calls = Vec::new();
        for call in message.get("tool_calls").and_then(Value::as_list).unwrap_or_default() {
            tool_calls.push(tool_request(call)?);
        }
        let content = content(message.get("content"));
        let mut parts = Parts {
            has_content: content.is_some(),
            content: content.unwrap_or_default(),
            refusal: text(message, "refusal").unwrap_or_default().to_owned(),
            tool_calls,
            finish: choice.and_then(|c| text(c, "finish_reason")).map(Into::into),
            usage: usage(body.get("usage")),
            attached: Map::new(),
            id: text(body, "id").map(Into::into),
            model: text(body, "model").map(Into::into),
            service_tier: text(body, "service_tier").map(Into::into),
        };
        for key in [REASONING, REASONING_DETAILS] {
            if let Some(value) = message.get(key).filter(|v| v.is_truthy()) {
                parts.attached.insert(key.into(), value.clone());
            }
        }
        Ok(parts.answer())
    }

    fn stream(&self) -> Box<dyn Assemble> {
        Box::new(stream::Assembler::default())
    }
}

/// What a whole or a streamed answer consists of.
#[derive(Debug, Default)]
struct Parts {
    content: String,
    has_content: bool,
    refusal: String,
    tool_calls: Vec<ToolRequest>,
    finish: Option<Name>,
    usage: Usage,
    attached: Map,
    id: Option<Name>,
    model: Option<Name>,
    service_tier: Option<Name>,
}

impl Parts {
    fn answer(self) -> Answer {
        let refused = !self.refusal.is_empty() && self.content.is_empty();
        let finish = match self.finish.as_deref() {
            _ if refused => Finish::ContentFilter,
            Some("length" | "max_tokens") => Finish::Length,
            Some("content_filter") => Finish::ContentFilter,
            _ if !self.tool_calls.is_empty() => Finish::ToolUse,
            _ => Finish::Stop,
        };
        Answer {
            has_content: self.has_content || refused,
            content: if refused { self.refusal } else { self.content },
            tool_calls: self.tool_calls,
            finish,
            finish_word: self.finish,
            usage: self.usage,
            attachments: if self.attached.is_empty() { Value::Null } else { Value::map(self.attached) },
            id: self.id,
            model: self.model,
            service_tier: self.service_tier,
        }
    }
}

fn message(message: &Message, provider: &str) -> Value {
    let said = |role: &str, content: &Name| Value::object([("role", role.into()), ("content", content.clone().into())]);
    match message {
        Message::System { content } => said("system", content),
        Message::User { content } => said("user", content),
        Message::Assistant { content, tool_calls, attachments } => {
            let mut map = Map::new();
            map.insert("role".into(), "assistant".into());
            let silent = content.is_empty() && !tool_calls.is_empty();
            map.insert("content".into(), if silent { Value::Null } else { content.clone().into() });
            if !tool_calls.is_empty() {
                map.insert("tool_calls".into(), Value::list(tool_calls.iter().map(call).collect()));
            }
            let attached = attachments.get(provider).and_then(Value::as_map);
            for (key, value) in attached.into_iter().flatten() {
                // Reasoning is wanted back inside a tool loop only.
                if &**key != REASONING || !tool_calls.is_empty() {
                    map.insert(key.clone(), value.clone());
                }
            }
            Value::map(map)
        }
        Message::Tool { call_id, content, is_error: _ } => Value::object([
            ("role", Value::str("tool")),
            ("tool_call_id", call_id.clone().into()),
            ("content", content.clone().into()),
        ]),
    }
}

fn call(call: &ToolRequest) -> Value {
    let arguments = call.arguments.as_str().map_or_else(|| call.arguments.to_json(), str::to_owned);
    let function = Value::object([("name", call.name.clone().into()), ("arguments", arguments.into())]);
    Value::object([("id", call.id.clone().into()), ("type", "function".into()), ("function", function)])
}

fn tool(tool: &windlass_core::machine::ToolDefinition) -> Value {
    let mut function = Map::new();
    function.insert("name".into(), tool.name.clone().into());
    if !tool.description.is_empty() {
        function.insert("description".into(), tool.description.clone().into());
    }
    if !tool.parameters.is_null() {
        function.insert("parameters".into(), tool.parameters.clone());
    }
    Value::object([("type", "function".into()), ("function", Value::map(function))])
}

fn format(schema: &Value, structured: StructuredOutput, tools: bool) -> Option<Value> {
    if !schema::is_object(schema) {
        return None;
    }
    match structured {
        StructuredOutput::Off => None,
        StructuredOutput::Object if tools => None,
        StructuredOutput::Object => Some(Value::object([("type", Value::str("json_object"))])),
        StructuredOutput::Schema => {
            let named = Value::object([
                ("name", Value::str("output")),
                ("strict", Value::Bool(schema::is_strict(schema))),
                ("schema", schema.clone()),
            ]);
            Some(Value::object([("type", Value::str("json_schema")), ("json_schema", named)]))
        }
    }
}

/// An error in the place of an answer.
fn error_in(body: &Value) -> Option<Fault> {
    body.get("error").filter(|error| error.is_truthy())?;
    Some(Fault::Refused(Box::new(ProviderError::from_value(None, body))))
}

/// Text, or a list of text parts. None when it is null or absent.
fn content(value: Option<&Value>) -> Option<String> {
    match value {
        Some(Value::Str(text)) => Some(text.to_string()),
        Some(Value::List(parts)) => Some(parts.iter().filter_map(|part| text(part, "text")).collect()),
        _ => None,
    }
}

fn tool_request(call: &Value) -> Result<ToolRequest, Fault> {
    let Some(function) = call.get("function").filter(|f| f.as_map().is_some()) else {
        return Err(Fault::Malformed("a tool call has no `function`".to_owned()));
    };
    let arguments = wire::whole_arguments(function.get("arguments"));
    let id = text(call, "id").unwrap_or_default();
    Ok(ToolRequest { id: id.into(), name: text(function, "name").unwrap_or_default().into(), arguments })
}

fn usage(value: Option<&Value>) -> Usage {
    let Some(value) = value else { return Usage::default() };
    let detail = |group: &str, key: &str| count(value.get(group).and_then(|g| g.get(key)));
    let cache_read =
        detail("prompt_tokens_details", "cached_tokens").or_else(|| count(value.get("prompt_cache_hit_tokens")));
    let cache_write = detail("prompt_tokens_details", "cache_write_tokens");
    let cached = cache_read.unwrap_or(0).saturating_add(cache_write.unwrap_or(0));
    Usage {
        input: count(value.get("prompt_tokens")).map(|all| all.saturating_sub(cached)),
        cache_read,
        cache_write,
        output: count(value.get("completion_tokens")),
        reasoning: detail("completion_tokens_details", "reasoning_tokens"),
    }
}

#[cfg(test)]
mod tests;
