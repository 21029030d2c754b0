//! The wire format of Amazon Bedrock (`Converse`). Pure mapping. Keys are API keys of Bedrock, sent as bearer tokens;
//! requests with access keys are signed elsewhere.

mod stream;

use windlass_core::file::File;
use windlass_core::limits::OUTPUT_TOKENS_DEFAULT;
use windlass_core::machine::ToolDefinition;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, Message, ToolRequest, Usage};
use windlass_core::value::{Map, Value};

use crate::errors::{Fault, ProviderError};
use crate::files::{self, Turns};
use crate::prove;
use crate::schema;
use crate::wire::{self, Answer, Assemble, Blocks, CallIds, Place, StructuredOutput, Wire, count, text};

/// Body keys that parameters must not set.
const RESERVED: &[&str] = &["model", "modelId", "messages", "system", "toolConfig", "tools", "stream", "max_tokens"];

/// Parameters of the whole request. What is neither here nor in [`INFERENCE`] goes to the model itself.
const TOP: &[&str] = &[
    "additionalModelRequestFields",
    "additionalModelResponseFieldPaths",
    "guardrailConfig",
    "performanceConfig",
    "promptVariables",
    "requestMetadata",
    "serviceTier",
];

/// Parameters of `inferenceConfig`: under the name that profiles give them, and under the one that they have here.
const INFERENCE: &[(&str, &str)] = &[
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("topP", "topP"),
    ("stop", "stopSequences"),
    ("stopSequences", "stopSequences"),
];

/// Bedrock Converse.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bedrock;

impl Wire for Bedrock {
    fn place(&self, request: &ModelRequest) -> Place {
        let verb = if request.stream { "converse-stream" } else { "converse" };
        // The name of a model may be a whole ARN with slashes in it, and is one segment.
        Place { segments: vec!["model".to_owned(), request.model.to_string(), verb.to_owned()], query: None }
    }

    fn structured_output(&self) -> StructuredOutput {
        // Only some models take a schema, and the name does not say which.
        StructuredOutput::Off
    }

    fn headers(&self, key: Option<&str>) -> Vec<(&'static str, String)> {
        wire::bearer(key)
    }

    fn body(&self, request: &ModelRequest, structured: StructuredOutput) -> Result<Value, Fault> {
        wire::check(&request.messages)?;
        let mut body = Map::new();
        let system: Vec<Value> = wire::instructions(&request.messages).map(said).collect();
        if !system.is_empty() {
            body.insert("system".into(), Value::list(system));
        }
        body.insert("messages".into(), messages(&request.messages, &request.provider));
        let tools = tools(request);
        if !tools.is_empty() {
            body.insert("toolConfig".into(), Value::object([("tools", Value::list(tools))]));
        }
        params(request, &mut body)?;
        match (structured, &request.output_schema) {
            (StructuredOutput::Object, Some(_)) => {
                let text = "Bedrock takes an output schema or none: set `structured_output` to `schema` or `off`";
                return Err(Fault::Unsayable(text.to_owned()));
            }
            (StructuredOutput::Schema, Some(schema)) if schema::is_object(schema) => {
                let named = [("name", Value::str("output")), ("schema", Value::str(schema.to_json()))];
                let structure = Value::object([("jsonSchema", Value::object(named))]);
                let format = Value::object([("type", Value::str("json_schema")), ("structure", structure)]);
                body.insert("outputConfig".into(), Value::object([("textFormat", format)]));
            }
            (StructuredOutput::Schema | StructuredOutput::Off | StructuredOutput::Object, _) => {}
        }
        Ok(Value::map(body))
    }

    fn attach(&self, body: Value, files: &[File]) -> Result<Value, Fault> {
        let parts = files.iter().map(files::bedrock).collect::<Result<_, _>>()?;
        files::attach(body, &Turns { turns: "messages", parts: "content", said }, parts)
    }

    fn prove(&self, body: &Value) -> Result<(), Fault> {
        prove::bedrock(body)
    }

    fn answer(&self, body: &Value) -> Result<Answer, Fault> {
        let message = body.get("output").and_then(|output| output.get("message"));
        let Some(blocks) = message.and_then(|m| m.get("content")).and_then(Value::as_list) else {
            let error = ProviderError::from_value(None, body);
            let is_error = error.kind.is_some() || body.get("error").is_some_and(Value::is_truthy);
            let none = Fault::Malformed("it has no `output.message.content`".to_owned());
            return Err(if is_error { Fault::Refused(Box::new(error)) } else { none });
        };
        let Some(reason) = text(body, "stopReason") else {
            return Err(Fault::Truncated("it has no stop reason".to_owned()));
        };
        let mut parts = Blocks::default();
        for block in blocks {
            add(&mut parts, block, None);
        }
        Ok(answer(parts, reason, usage(body.get("usage"))))
    }

    fn stream(&self) -> Box<dyn Assemble> {
        Box::new(stream::Assembler::default())
    }
}

/// Adds a block; `input` is the streamed text of a tool call's arguments.
fn add(parts: &mut Blocks, block: &Value, input: Option<&str>) {
    if let Some(piece) = text(block, "text") {
        parts.say(piece);
    } else if let Some(call) = block.get("toolUse") {
        parts.ask(text(call, "toolUseId"), text(call, "name"), input, call.get("input"));
    } else if block.get("reasoningContent").is_some() {
        parts.attached.push(block.clone());
    }
}

fn answer(parts: Blocks, reason: &str, usage: Usage) -> Answer {
    let cut = match reason {
        "max_tokens" | "model_context_window_exceeded" => Some(Finish::Length),
        "guardrail_intervened" | "content_filtered" => Some(Finish::ContentFilter),
        _ => None,
    };
    parts.answer(cut, reason, usage)
}

fn params(request: &ModelRequest, body: &mut Map) -> Result<(), Fault> {
    let mut given = Map::new();
    wire::add_params(&mut given, &request.params, RESERVED)?;
    given.shift_remove("region");
    let mut inference = given.shift_remove("inferenceConfig").and_then(|c| c.as_map().cloned()).unwrap_or_default();
    let mut fields =
        given.shift_remove("additionalModelRequestFields").and_then(|f| f.as_map().cloned()).unwrap_or_default();
    for (key, value) in given {
        if let Some((_, name)) = INFERENCE.iter().find(|(from, _)| *from == &*key) {
            let value = if *name == "stopSequences" { wire::listed(value) } else { value };
            inference.insert((*name).into(), value);
        } else if TOP.contains(&&*key) {
            body.insert(key, value);
        } else {
            fields.insert(key, value);
        }
    }
    let own = count(inference.get("maxTokens"));
    let most = own.into_iter().chain(request.max_tokens).min().unwrap_or(OUTPUT_TOKENS_DEFAULT);
    inference.insert("maxTokens".into(), Value::count(most));
    body.insert("inferenceConfig".into(), Value::map(inference));
    if !fields.is_empty() {
        body.insert("additionalModelRequestFields".into(), Value::map(fields));
    }
    Ok(())
}

/// The tools that are offered. Calls that were made earlier need their tools declared, also where none is offered.
fn tools(request: &ModelRequest) -> Vec<Value> {
    if !request.tools.is_empty() {
        return request.tools.iter().map(tool).collect();
    }
    let mut names: Vec<&str> = Vec::new();
    for message in &request.messages {
        if let Message::Assistant { tool_calls, .. } = message {
            names.extend(tool_calls.iter().map(|call| &*call.name));
        }
    }
    names.sort_unstable();
    names.dedup();
    let declared = |name: &str| ToolDefinition {
        name: name.into(),
        description: "Called earlier in this conversation; not available any more.".into(),
        parameters: Value::Null,
    };
    names.into_iter().map(|name| tool(&declared(name))).collect()
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
                let calls = tool_calls.iter().map(|c| call(c, ids.accepted(place, &c.id)));
                ("assistant", attached.iter().cloned().chain(text).chain(calls).collect())
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
    Value::object([("text", Value::str(content))])
}

fn call(call: &ToolRequest, id: Value) -> Value {
    let inner = [("toolUseId", id), ("name", call.name.clone().into()), ("input", wire::mapping(&call.arguments))];
    Value::object([("toolUse", Value::object(inner))])
}

fn result(id: Value, content: &str, is_error: bool) -> Value {
    // A blank text is refused here.
    let said = if content.trim().is_empty() { Value::object([("json", Value::empty_map())]) } else { said(content) };
    let mut map = Map::new();
    map.insert("toolUseId".into(), id);
    map.insert("content".into(), Value::list(vec![said]));
    map.insert("status".into(), if is_error { "error" } else { "success" }.into());
    Value::object([("toolResult", Value::map(map))])
}

fn tool(tool: &ToolDefinition) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), tool.name.clone().into());
    if !tool.description.is_empty() {
        map.insert("description".into(), tool.description.clone().into());
    }
    let schema =
        if tool.parameters.is_null() { Value::object([("type", "object".into())]) } else { tool.parameters.clone() };
    map.insert("inputSchema".into(), Value::object([("json", schema)]));
    Value::object([("toolSpec", Value::map(map))])
}

fn usage(value: Option<&Value>) -> Usage {
    let Some(value) = value else { return Usage::default() };
    let of = |key: &str| count(value.get(key));
    Usage {
        input: of("inputTokens"),
        cache_read: of("cacheReadInputTokens"),
        cache_write: of("cacheWriteInputTokens"),
        output: of("outputTokens"),
        reasoning: None,
    }
}

#[cfg(test)]
mod tests;
