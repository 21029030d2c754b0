//! The wire format of Gemini (`generateContent`). Pure mapping.

mod stream;

use std::collections::BTreeMap;

use windlass_core::file::File;
use windlass_core::ids::Name;
use windlass_core::machine::ToolDefinition;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, Message, ToolRequest, Usage};
use windlass_core::value::{Map, Value};

use crate::errors::Fault;
use crate::files::{self, Turns};
use crate::prove;
use crate::schema;
use crate::wire::{self, Answer, Assemble, Place, StructuredOutput, Wire, count, text};

/// Body keys that parameters must not set.
const RESERVED: &[&str] =
    &["model", "contents", "systemInstruction", "tools", "stream", "maxOutputTokens", "max_tokens"];

/// Parameters of the whole request; every other one belongs to `generationConfig`.
const TOP: &[&str] = &["safetySettings", "cachedContent", "toolConfig", "labels", "serviceTier", "generationConfig"];

/// Parameters under the name that most profiles give them, and under the one that they have here.
const NAMES: &[(&str, &str)] = &[
    ("top_p", "topP"),
    ("top_k", "topK"),
    ("stop", "stopSequences"),
    ("presence_penalty", "presencePenalty"),
    ("frequency_penalty", "frequencyPenalty"),
];

/// Why an answer was stopped by a filter.
const FILTERS: &[&str] = &[
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
];

/// Stands for the signature of a call that another provider's model made, where every call must have one.
const UNSIGNED: &str = "skip_thought_signature_validator";

/// Gemini.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gemini;

impl Wire for Gemini {
    fn place(&self, request: &ModelRequest) -> Place {
        let model = &*request.model;
        let path = if model.contains('/') { model.to_owned() } else { format!("models/{model}") };
        if request.stream {
            Place { query: Some(("alt", "sse")), ..Place::at(&format!("{path}:streamGenerateContent")) }
        } else {
            Place::at(&format!("{path}:generateContent"))
        }
    }

    fn structured_output(&self) -> StructuredOutput {
        StructuredOutput::Schema
    }

    fn headers(&self, key: Option<&str>) -> Vec<(&'static str, String)> {
        key.map(|key| ("x-goog-api-key", key.to_owned())).into_iter().collect()
    }

    fn body(&self, request: &ModelRequest, structured: StructuredOutput) -> Result<Value, Fault> {
        wire::check(&request.messages)?;
        let mut body = Map::new();
        let system: Vec<Value> = wire::instructions(&request.messages).map(said).collect();
        if !system.is_empty() {
            body.insert("systemInstruction".into(), Value::object([("parts", Value::list(system))]));
        }
        body.insert("contents".into(), contents(request));
        if !request.tools.is_empty() {
            let tools = request.tools.iter().map(tool).collect();
            body.insert(
                "tools".into(),
                Value::list(vec![Value::object([("functionDeclarations", Value::list(tools))])]),
            );
        }
        let config = config(request, structured, &mut body)?;
        if !config.is_empty() {
            body.insert("generationConfig".into(), Value::map(config));
        }
        Ok(Value::map(body))
    }

    fn attach(&self, body: Value, files: &[File]) -> Result<Value, Fault> {
        let parts = files.iter().map(files::gemini).collect::<Result<_, _>>()?;
        files::attach(body, &Turns { turns: "contents", parts: "parts", said }, parts)
    }

    fn prove(&self, body: &Value) -> Result<(), Fault> {
        prove::gemini(body)
    }

    fn answer(&self, body: &Value) -> Result<Answer, Fault> {
        wire::unrefused(body)?;
        let mut parts = Parts::default();
        parts.add(body);
        parts.answer()
    }

    fn stream(&self) -> Box<dyn Assemble> {
        Box::new(stream::Assembler::default())
    }
}

/// What the pieces of an answer add up to.
#[derive(Debug, Default)]
struct Parts {
    content: String,
    has_content: bool,
    tool_calls: Vec<ToolRequest>,
    /// The signature of the text, and those of the calls in their order.
    signature: Value,
    signatures: Vec<Value>,
    /// Whether the calls came with ids, which are then to be sent back.
    identified: bool,
    finish: Option<Name>,
    blocked: Option<Name>,
    usage: Usage,
    id: Option<Name>,
    model: Option<Name>,
}

impl Parts {
    fn add(&mut self, piece: &Value) {
        self.id = self.id.take().or_else(|| text(piece, "responseId").map(Into::into));
        self.model = self.model.take().or_else(|| text(piece, "modelVersion").map(Into::into));
        if let Some(counts) = piece.get("usageMetadata") {
            self.usage = wire::newer(self.usage, usage(counts));
        }
        if let Some(reason) = piece.get("promptFeedback").and_then(|feedback| text(feedback, "blockReason")) {
            self.blocked = Some(reason.into());
        }
        let Some(candidate) = piece.get("candidates").and_then(Value::as_list).and_then(<[Value]>::first) else {
            return;
        };
        if let Some(reason) = text(candidate, "finishReason") {
            self.finish = Some(reason.into());
        }
        let parts = candidate.get("content").and_then(|c| c.get("parts")).and_then(Value::as_list);
        for part in parts.unwrap_or_default() {
            self.part(part);
        }
    }

    fn part(&mut self, part: &Value) {
        let signature = part.get("thoughtSignature").cloned().unwrap_or_default();
        if let Some(call) = part.get("functionCall") {
            let of = |key: &str| text(call, key).unwrap_or_default().into();
            self.identified |= text(call, "id").is_some_and(|id| !id.is_empty());
            let arguments = wire::whole_arguments(call.get("args"));
            self.tool_calls.push(ToolRequest { id: of("id"), name: of("name"), arguments });
            self.signatures.push(signature);
            return;
        }
        if part.get("thought").is_some_and(Value::is_truthy) {
            return;
        }
        if let Some(piece) = text(part, "text") {
            self.has_content |= !piece.is_empty();
            self.content.push_str(piece);
        }
        if !signature.is_null() {
            self.signature = signature;
        }
    }

    /// Whether the provider said why it stopped.
    fn is_over(&self) -> bool {
        self.finish.is_some() || self.blocked.is_some()
    }

    fn answer(self) -> Result<Answer, Fault> {
        let word = match (&self.finish, &self.blocked) {
            (Some(word), _) | (None, Some(word)) => word.clone(),
            (None, None) => return Err(Fault::Truncated("it has no finish reason".to_owned())),
        };
        let finish = match &*word {
            _ if self.finish.is_none() => Finish::ContentFilter,
            "STOP" if self.tool_calls.is_empty() => Finish::Stop,
            "STOP" => Finish::ToolUse,
            "MAX_TOKENS" => Finish::Length,
            other if FILTERS.contains(&other) => Finish::ContentFilter,
            other => return Err(Fault::Malformed(format!("the model stopped for `{other}`"))),
        };
        let mut usage = self.usage;
        if self.finish.is_none() {
            // A prompt that was blocked was not answered with anything.
            usage.output.get_or_insert(0);
        }
        let mut attached = Map::new();
        if !self.signature.is_null() {
            attached.insert("text".into(), self.signature);
        }
        if self.signatures.iter().any(|signature| !signature.is_null()) {
            attached.insert("calls".into(), Value::list(self.signatures));
        }
        if self.identified {
            attached.insert("ids".into(), Value::Bool(true));
        }
        Ok(Answer {
            content: self.content,
            has_content: self.has_content,
            tool_calls: self.tool_calls,
            finish,
            finish_word: Some(word),
            usage,
            attachments: if attached.is_empty() { Value::Null } else { Value::map(attached) },
            id: self.id,
            model: self.model,
            service_tier: None,
        })
    }
}

fn config(request: &ModelRequest, structured: StructuredOutput, body: &mut Map) -> Result<Map, Fault> {
    let mut params = Map::new();
    wire::add_params(&mut params, &request.params, RESERVED)?;
    let mut config = params.shift_remove("generationConfig").and_then(|c| c.as_map().cloned()).unwrap_or_default();
    let asked = params.shift_remove("max_output_tokens").as_ref().and_then(|n| count(Some(n)));
    for (key, value) in params {
        if TOP.contains(&&*key) {
            body.insert(key, value);
            continue;
        }
        let key = NAMES.iter().find(|(from, _)| *from == &*key).map_or(key, |(_, to)| (*to).into());
        let value = if &*key == "stopSequences" { wire::listed(value) } else { value };
        config.insert(key, value);
    }
    let own = count(config.get("maxOutputTokens"));
    if let Some(most) = asked.into_iter().chain(own).chain(request.max_tokens).min() {
        config.insert("maxOutputTokens".into(), Value::count(most));
    }
    // A schema beside tools is refused by most models.
    let schema = request.output_schema.as_ref().filter(|schema| schema::is_object(schema) && request.tools.is_empty());
    if let Some(schema) = schema.filter(|_| structured != StructuredOutput::Off) {
        config.insert("responseMimeType".into(), "application/json".into());
        if structured == StructuredOutput::Schema {
            config.insert("responseJsonSchema".into(), schema.clone());
        }
    }
    Ok(config)
}

fn said(content: &str) -> Value {
    Value::object([("text", Value::str(content))])
}

/// Turns of `user` and `model`. Answers of tools are one turn, in the order of their calls.
fn contents(request: &ModelRequest) -> Value {
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    let mut messages = request.messages.iter().peekable();
    let signed = request.model.contains("gemini-3");
    while let Some(message) = messages.next() {
        match message {
            Message::System { .. } | Message::Tool { .. } => {}
            Message::User { content } => turns.push(("user", vec![said(content)])),
            Message::Assistant { content, tool_calls, attachments } => {
                let attached = attachments.get(&request.provider).cloned().unwrap_or_default();
                let parts = model_parts(content, tool_calls, &attached, signed);
                match turns.last_mut() {
                    _ if parts.is_empty() => {}
                    Some(("model", all)) => all.extend(parts),
                    _ => turns.push(("model", parts)),
                }
                let mut answers: BTreeMap<&Name, (&Name, bool)> = BTreeMap::new();
                while let Some(Message::Tool { call_id, content, is_error }) = messages.peek() {
                    answers.insert(call_id, (content, *is_error));
                    messages.next();
                }
                let identified = attached.get("ids").is_some();
                let answered = tool_calls.iter().filter_map(|call| {
                    let (content, is_error) = answers.get(&call.id)?;
                    Some(response(call, content, *is_error, identified))
                });
                let answered: Vec<Value> = answered.collect();
                if !answered.is_empty() {
                    turns.push(("user", answered));
                }
            }
        }
    }
    let turn =
        |(role, parts): (&str, Vec<Value>)| Value::object([("role", Value::str(role)), ("parts", Value::list(parts))]);
    Value::list(turns.into_iter().map(turn).collect())
}

fn model_parts(content: &Name, tool_calls: &[ToolRequest], attached: &Value, signed: bool) -> Vec<Value> {
    let with = |mut part: Map, signature: Option<&Value>| {
        if let Some(signature) = signature.filter(|s| !s.is_null()) {
            part.insert("thoughtSignature".into(), signature.clone());
        }
        Value::map(part)
    };
    let mut parts = Vec::with_capacity(tool_calls.len() + 1);
    if !content.is_empty() {
        let part = [("text".into(), content.clone().into())].into_iter().collect();
        parts.push(with(part, attached.get("text")));
    }
    let signatures = attached.get("calls").and_then(Value::as_list).filter(|list| list.len() == tool_calls.len());
    let unsigned = Value::str(UNSIGNED);
    for (index, call) in tool_calls.iter().enumerate() {
        let mut inner = Map::new();
        if attached.get("ids").is_some() {
            inner.insert("id".into(), call.id.clone().into());
        }
        inner.insert("name".into(), call.name.clone().into());
        inner.insert("args".into(), wire::mapping(&call.arguments));
        let part = [("functionCall".into(), Value::map(inner))].into_iter().collect();
        let signature = match signatures {
            Some(list) => list.get(index),
            None => Some(&unsigned).filter(|_| signed && index == 0),
        };
        parts.push(with(part, signature));
    }
    parts
}

fn response(call: &ToolRequest, content: &Name, is_error: bool, identified: bool) -> Value {
    let mut map = Map::new();
    if identified {
        map.insert("id".into(), call.id.clone().into());
    }
    map.insert("name".into(), call.name.clone().into());
    let key = if is_error { "error" } else { "result" };
    map.insert("response".into(), Value::object([(key, content.clone().into())]));
    Value::object([("functionResponse", Value::map(map))])
}

fn tool(tool: &ToolDefinition) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), tool.name.clone().into());
    map.insert("description".into(), tool.description.clone().into());
    let empty = tool.parameters.get("properties").and_then(Value::as_map).is_none_or(Map::is_empty);
    if !empty {
        map.insert("parametersJsonSchema".into(), tool.parameters.clone());
    }
    Value::map(map)
}

/// Tokens of thoughts are output; tokens of the cache are part of the prompt.
fn usage(value: &Value) -> Usage {
    let of = |key: &str| count(value.get(key));
    let cached = of("cachedContentTokenCount");
    let (said, thought) = (of("candidatesTokenCount"), of("thoughtsTokenCount"));
    let input = of("promptTokenCount")
        .map(|all| all.saturating_add(of("toolUsePromptTokenCount").unwrap_or(0)).saturating_sub(cached.unwrap_or(0)));
    let output = match (said, thought) {
        (None, None) => None,
        (said, thought) => Some(said.unwrap_or(0).saturating_add(thought.unwrap_or(0))),
    };
    Usage { input, cache_read: cached, cache_write: None, output, reasoning: thought }
}

#[cfg(test)]
mod tests;
