//! The wire format of Ollama (`/api/chat`). Pure mapping.

use std::collections::BTreeMap;

use windlass_core::file::File;
use windlass_core::ids::Name;
use windlass_core::machine::ToolDefinition;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, Message, ToolRequest, Usage};
use windlass_core::value::{Map, Value};

use crate::errors::Fault;
use crate::files;
use crate::frames::{self, Event};
use crate::prove;
use crate::schema;
use crate::wire::{self, Answer, Assemble, Place, StructuredOutput, Wire, count, text};

/// Body keys that parameters must not set.
const RESERVED: &[&str] = &["model", "messages", "tools", "stream", "num_predict", "max_tokens"];

/// Parameters of the whole request; every other one belongs to `options`.
const TOP: &[&str] = &["format", "keep_alive", "think", "logprobs", "top_logprobs"];

/// Ollama.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ollama;

impl Wire for Ollama {
    fn place(&self, _: &ModelRequest) -> Place {
        Place::at("api/chat")
    }

    fn structured_output(&self) -> StructuredOutput {
        StructuredOutput::Schema
    }

    fn headers(&self, key: Option<&str>) -> Vec<(&'static str, String)> {
        wire::bearer(key)
    }

    fn body(&self, request: &ModelRequest, structured: StructuredOutput) -> Result<Value, Fault> {
        wire::check(&request.messages)?;
        let mut body = Map::new();
        body.insert("model".into(), Value::Str(request.model.clone()));
        body.insert("messages".into(), messages(request));
        if !request.tools.is_empty() {
            body.insert("tools".into(), Value::list(request.tools.iter().map(tool).collect()));
        }
        // A stream is what this server sends unless it is told not to.
        body.insert("stream".into(), Value::Bool(request.stream));
        let mut params = Map::new();
        wire::add_params(&mut params, &request.params, RESERVED)?;
        let mut options = params.shift_remove("options").and_then(|o| o.as_map().cloned()).unwrap_or_default();
        for (key, value) in params {
            if TOP.contains(&&*key) {
                body.insert(key, value);
            } else {
                let value = if &*key == "stop" { wire::listed(value) } else { value };
                options.insert(key, value);
            }
        }
        if let Some(most) = count(options.get("num_predict")).into_iter().chain(request.max_tokens).min() {
            options.insert("num_predict".into(), Value::count(most));
        }
        if !options.is_empty() {
            body.insert("options".into(), Value::map(options));
        }
        let schema = request.output_schema.as_ref().filter(|schema| schema::is_object(schema));
        // A format beside tools keeps the model from calling any.
        if let (Some(schema), true, false) = (schema, request.tools.is_empty(), body.contains_key("format")) {
            match structured {
                StructuredOutput::Schema => drop(body.insert("format".into(), schema.clone())),
                StructuredOutput::Object => drop(body.insert("format".into(), "json".into())),
                StructuredOutput::Off => {}
            }
        }
        Ok(Value::map(body))
    }

    fn attach(&self, body: Value, files: &[File]) -> Result<Value, Fault> {
        files::attach_images(body, files)
    }

    fn prove(&self, body: &Value) -> Result<(), Fault> {
        prove::ollama(body)
    }

    fn answer(&self, body: &Value) -> Result<Answer, Fault> {
        wire::unrefused(body)?;
        if body.get("message").and_then(Value::as_map).is_none() {
            return Err(Fault::Malformed("it has no `message`".to_owned()));
        }
        let mut parts = Parts::default();
        parts.add(body);
        parts.answer()
    }

    fn stream(&self) -> Box<dyn Assemble> {
        Box::new(Parts::default())
    }
}

/// What the pieces of an answer add up to. A whole answer is one piece.
#[derive(Debug, Default)]
struct Parts {
    content: String,
    thinking: String,
    tool_calls: Vec<ToolRequest>,
    done: bool,
    reason: Option<Name>,
    usage: Usage,
    model: Option<Name>,
}

impl Parts {
    fn add(&mut self, piece: &Value) {
        self.model = self.model.take().or_else(|| text(piece, "model").map(Into::into));
        if let Some(message) = piece.get("message") {
            self.content.push_str(text(message, "content").unwrap_or_default());
            self.thinking.push_str(text(message, "thinking").unwrap_or_default());
            for call in message.get("tool_calls").and_then(Value::as_list).unwrap_or_default() {
                let function = call.get("function").cloned().unwrap_or_default();
                self.tool_calls.push(ToolRequest {
                    id: text(call, "id").unwrap_or_default().into(),
                    name: text(&function, "name").unwrap_or_default().into(),
                    arguments: wire::whole_arguments(function.get("arguments")),
                });
            }
        }
        if piece.get("done") == Some(&Value::Bool(true)) {
            self.done = true;
            self.reason = text(piece, "done_reason").map(Into::into);
            self.usage = Usage {
                input: count(piece.get("prompt_eval_count")),
                output: count(piece.get("eval_count")),
                ..Usage::default()
            };
        }
    }

    fn answer(self) -> Result<Answer, Fault> {
        if !self.done {
            return Err(Fault::Truncated("it does not say that it is done".to_owned()));
        }
        let finish = match self.reason.as_deref() {
            Some("length") => Finish::Length,
            Some("load" | "unload") => {
                return Err(Fault::Malformed("the server loaded the model and asked it nothing".to_owned()));
            }
            _ if !self.tool_calls.is_empty() => Finish::ToolUse,
            _ => Finish::Stop,
        };
        let thinking = Some(self.thinking).filter(|text| !text.is_empty());
        Ok(Answer {
            has_content: !self.content.is_empty(),
            content: self.content,
            tool_calls: self.tool_calls,
            finish,
            finish_word: self.reason,
            usage: self.usage,
            attachments: thinking.map_or(Value::Null, |text| Value::object([("thinking", Value::str(text))])),
            id: None,
            model: self.model,
            service_tier: None,
        })
    }
}

impl Assemble for Parts {
    fn event(&mut self, event: &Event) -> Result<bool, Fault> {
        let piece = event.mapping()?;
        if let Some(fault) = frames::error_in(&piece) {
            return Err(fault);
        }
        self.add(&piece);
        wire::bounded(self.tool_calls.len())?;
        Ok(self.done)
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn finish(self: Box<Self>) -> Result<Answer, Fault> {
        self.answer()
    }
}

/// Messages in order; answers of tools have no id here, and follow their calls in the calls' order.
fn messages(request: &ModelRequest) -> Value {
    let mut out = Vec::with_capacity(request.messages.len());
    let said = |role: &str, content: &Name| Value::object([("role", role.into()), ("content", content.clone().into())]);
    let mut messages = request.messages.iter().peekable();
    while let Some(message) = messages.next() {
        match message {
            Message::Tool { .. } => {}
            Message::System { content } => out.push(said("system", content)),
            Message::User { content } => out.push(said("user", content)),
            Message::Assistant { content, tool_calls, attachments } => {
                let mut map = Map::new();
                map.insert("role".into(), "assistant".into());
                map.insert("content".into(), content.clone().into());
                // What the model thought is wanted back inside a tool loop only.
                let thinking = attachments.get(&request.provider).and_then(|a| a.get("thinking"));
                if let (Some(thinking), false) = (thinking, tool_calls.is_empty()) {
                    map.insert("thinking".into(), thinking.clone());
                }
                if !tool_calls.is_empty() {
                    map.insert("tool_calls".into(), Value::list(tool_calls.iter().map(call).collect()));
                }
                out.push(Value::map(map));
                let mut answers: BTreeMap<&Name, &Name> = BTreeMap::new();
                while let Some(Message::Tool { call_id, content, is_error: _ }) = messages.peek() {
                    answers.insert(call_id, content);
                    messages.next();
                }
                for call in tool_calls {
                    if let Some(content) = answers.get(&call.id) {
                        out.push(Value::object([
                            ("role", Value::str("tool")),
                            ("tool_name", call.name.clone().into()),
                            ("content", (*content).clone().into()),
                        ]));
                    }
                }
            }
        }
    }
    Value::list(out)
}

fn call(call: &ToolRequest) -> Value {
    let function = Value::object([("name", call.name.clone().into()), ("arguments", wire::mapping(&call.arguments))]);
    Value::object([("function", function)])
}

fn tool(tool: &ToolDefinition) -> Value {
    let parameters = match &tool.parameters {
        Value::Null => Value::object([("type", Value::str("object")), ("properties", Value::empty_map())]),
        schema => schema.clone(),
    };
    let function = Value::object([
        ("name", tool.name.clone().into()),
        ("description", tool.description.clone().into()),
        ("parameters", parameters),
    ]);
    Value::object([("type", Value::str("function")), ("function", function)])
}

#[cfg(test)]
mod tests;
