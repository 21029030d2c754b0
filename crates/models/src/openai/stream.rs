//! Streamed chat completions: chunks to one answer. Over only with a finish reason and `[DONE]`.

use windlass_core::transcript::{ToolRequest, Usage};
use windlass_core::value::Value;

use super::{Parts, REASONING, REASONING_DETAILS, content, error_in, usage};
use crate::errors::Fault;
use crate::frames::Event;
use crate::wire::{self, Answer, Assemble, text};

#[derive(Debug, Default)]
struct Call {
    index: Option<i64>,
    id: String,
    name: String,
    arguments: String,
}

/// Collects chunks.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    parts: Parts,
    calls: Vec<Call>,
    reasoning: String,
    details: Vec<Value>,
}

impl Assemble for Assembler {
    fn event(&mut self, event: &Event) -> Result<bool, Fault> {
        if event.data.trim() == "[DONE]" {
            return match self.parts.finish {
                Some(_) => Ok(true),
                None => Err(Fault::Truncated("the stream ended without a finish reason".to_owned())),
            };
        }
        let chunk = Value::from_json(&event.data).map_err(|e| Fault::Malformed(format!("a chunk is not JSON: {e}")))?;
        if let Some(fault) = error_in(&chunk) {
            return Err(match fault {
                Fault::Refused(error) => Fault::Broken(error),
                other => other,
            });
        }
        if chunk.as_map().is_none() {
            return Err(Fault::Malformed("a chunk is no mapping".to_owned()));
        }
        self.parts.id = self.parts.id.take().or_else(|| text(&chunk, "id").map(Into::into));
        self.parts.model = self.parts.model.take().or_else(|| text(&chunk, "model").map(Into::into));
        if let Some(tier) = text(&chunk, "service_tier") {
            self.parts.service_tier = Some(tier.into());
        }
        if let Some(counts) = chunk.get("usage").filter(|u| u.as_map().is_some()) {
            self.parts.usage = usage(Some(counts));
        }
        if let Some(choice) = chunk.get("choices").and_then(Value::as_list).and_then(<[Value]>::first) {
            if let Some(delta) = choice.get("delta") {
                self.delta(delta)?;
            }
            if let Some(reason) = text(choice, "finish_reason").filter(|r| !r.is_empty()) {
                self.parts.finish = Some(reason.into());
            }
        }
        Ok(false)
    }

    fn usage(&self) -> Usage {
        self.parts.usage
    }

    fn finish(mut self: Box<Self>) -> Result<Answer, Fault> {
        self.parts.tool_calls = self
            .calls
            .into_iter()
            .map(|call| ToolRequest {
                id: call.id.into(),
                name: call.name.into(),
                arguments: wire::arguments(&call.arguments),
            })
            .collect();
        if !self.reasoning.is_empty() {
            self.parts.attached.insert(REASONING.into(), self.reasoning.into());
        }
        if !self.details.is_empty() {
            self.parts.attached.insert(REASONING_DETAILS.into(), self.details.into());
        }
        Ok(self.parts.answer())
    }
}

impl Assembler {
    fn delta(&mut self, delta: &Value) -> Result<(), Fault> {
        if let Some(piece) = content(delta.get("content")) {
            self.parts.has_content = true;
            self.parts.content.push_str(&piece);
        }
        self.parts.refusal.push_str(text(delta, "refusal").unwrap_or_default());
        self.reasoning.push_str(text(delta, REASONING).unwrap_or_default());
        self.details.extend_from_slice(delta.get(REASONING_DETAILS).and_then(Value::as_list).unwrap_or_default());
        for piece in delta.get("tool_calls").and_then(Value::as_list).unwrap_or_default() {
            self.call(piece)?;
        }
        Ok(())
    }

    fn call(&mut self, piece: &Value) -> Result<(), Fault> {
        let index = piece.get("index").and_then(Value::as_int);
        let id = text(piece, "id").unwrap_or_default();
        // Servers without an index start a new call with each new id.
        let known = match index {
            Some(index) => self.calls.iter().position(|call| call.index == Some(index)),
            None if id.is_empty() => self.calls.len().checked_sub(1),
            None => self.calls.iter().position(|call| call.id == id),
        };
        let at = known.unwrap_or(self.calls.len());
        wire::bounded(at + 1)?;
        if known.is_none() {
            self.calls.push(Call { index, ..Call::default() });
        }
        let call = &mut self.calls[at];
        if call.id.is_empty() {
            id.clone_into(&mut call.id);
        }
        let Some(function) = piece.get("function") else { return Ok(()) };
        if call.name.is_empty() {
            text(function, "name").unwrap_or_default().clone_into(&mut call.name);
        }
        match function.get("arguments") {
            Some(Value::Str(text)) => call.arguments.push_str(text),
            Some(whole @ Value::Map(_)) => call.arguments.push_str(&whole.to_json()),
            _ => {}
        }
        Ok(())
    }
}
