//! Answers that break in the middle: the answer is written as a stream, the stream is damaged, and the damaged bytes
//! go through the same decoder that reads real providers.

use windlass_core::transcript::{Finish, Usage};
use windlass_core::value::Value;

use super::script::FaultKind;
use crate::errors::Fault;
use crate::openai::OpenAi;
use crate::sse::Decoder;
use crate::wire::{Answer, Wire};

/// What comes of an answer whose stream is damaged. `Err(None)` when it stands still.
pub(super) fn damaged(answer: &Answer, kind: FaultKind, after_bytes: Option<usize>) -> Result<Answer, Option<Fault>> {
    let frames = frames(answer);
    let whole: Vec<u8> = frames.concat();
    let at = after_bytes.unwrap_or(whole.len() / 2).min(whole.len());
    let (bytes, stalls) = match kind {
        FaultKind::Cut => (whole[..at].to_vec(), false),
        FaultKind::Stalled => (whole[..at].to_vec(), true),
        FaultKind::NoEnd => (frames[..frames.len() - 1].concat(), false),
        FaultKind::Malformed => ([b"data: {oops\n\n".to_vec(), whole].concat(), false),
        FaultKind::InvalidUtf8 => ([b"data: \"\xff\"\n\n".to_vec(), whole].concat(), false),
        FaultKind::Timeout
        | FaultKind::ConnectionRefused
        | FaultKind::ConnectionLost
        | FaultKind::ContextLength
        | FaultKind::ContentFilter => (whole, false),
    };
    match read(&bytes) {
        Ok(Some(read)) => Ok(Answer { attachments: answer.attachments.clone(), ..read }),
        Ok(None) if stalls => Err(None),
        Ok(None) => Err(Some(Fault::Truncated("the stream has no end marker".to_owned()))),
        Err(fault) => Err(Some(fault)),
    }
}

fn read(bytes: &[u8]) -> Result<Option<Answer>, Fault> {
    let (mut decoder, mut assembler) = (Decoder::default(), OpenAi.stream());
    for event in decoder.push(bytes)? {
        if assembler.event(&event)? {
            return assembler.finish().map(Some);
        }
    }
    Ok(None)
}

/// The answer as the frames of a stream; the last one is the end marker.
fn frames(answer: &Answer) -> Vec<Vec<u8>> {
    let half = answer.content.floor_char_boundary(answer.content.len() / 2);
    let (first, second) = answer.content.split_at(half);
    let said = |text: &str| Value::object([("role", Value::str("assistant")), ("content", Value::str(text))]);
    let mut deltas = Vec::new();
    if answer.has_content {
        deltas.extend([said(first), said(second)]);
    }
    for (index, call) in answer.tool_calls.iter().enumerate() {
        let arguments = call.arguments.as_str().map_or_else(|| call.arguments.to_json(), str::to_owned);
        let function = Value::object([("name", call.name.clone().into()), ("arguments", Value::str(arguments))]);
        let call = Value::object([
            ("index", Value::count(index as u64)),
            ("id", call.id.clone().into()),
            ("type", Value::str("function")),
            ("function", function),
        ]);
        deltas.push(Value::object([("tool_calls", Value::list(vec![call]))]));
    }
    let mut frames: Vec<Vec<u8>> = deltas.into_iter().map(|delta| frame(delta, Value::Null, Value::Null)).collect();
    frames.push(frame(Value::empty_map(), Value::str(word(answer.finish)), usage(&answer.usage)));
    frames.push(b"data: [DONE]\n\n".to_vec());
    frames
}

fn frame(delta: Value, finish: Value, usage: Value) -> Vec<u8> {
    let choice = Value::object([("index", Value::Int(0)), ("delta", delta), ("finish_reason", finish)]);
    let chunk = Value::object([("choices", Value::list(vec![choice])), ("usage", usage)]);
    format!("data: {}\n\n", chunk.to_json()).into_bytes()
}

fn word(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ToolUse => "tool_calls",
        Finish::ContentFilter => "content_filter",
    }
}

fn usage(usage: &Usage) -> Value {
    let number = |n: Option<u64>| n.map_or(Value::Null, Value::count);
    let cached = usage.cache_read.unwrap_or(0).saturating_add(usage.cache_write.unwrap_or(0));
    Value::object([
        ("prompt_tokens", number(usage.input.map(|n| n.saturating_add(cached)))),
        ("completion_tokens", number(usage.output)),
        (
            "prompt_tokens_details",
            Value::object([
                ("cached_tokens", number(usage.cache_read)),
                ("cache_write_tokens", number(usage.cache_write)),
            ]),
        ),
        ("completion_tokens_details", Value::object([("reasoning_tokens", number(usage.reasoning))])),
    ])
}
