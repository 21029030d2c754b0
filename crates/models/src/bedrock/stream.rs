//! Streamed answers of Bedrock: messages of the event stream to one answer. Over only with a stop reason and the
//! `metadata` that follows it.

use std::collections::BTreeMap;

use windlass_core::ids::Name;
use windlass_core::transcript::Usage;
use windlass_core::value::{Map, Value};

use super::{add, answer, usage};
use crate::errors::Fault;
use crate::frames::{self, Event};
use crate::wire::{Answer, Assemble, Blocks, text};

#[derive(Debug, Default)]
struct Block {
    start: Map,
    text: Option<String>,
    input: String,
    reasoning: BTreeMap<&'static str, String>,
}

/// Collects messages.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    blocks: BTreeMap<i64, Block>,
    stop: Option<Name>,
    usage: Value,
}

impl Assemble for Assembler {
    fn event(&mut self, event: &Event) -> Result<bool, Fault> {
        let data = event.mapping()?;
        match event.name.as_str() {
            "exception" => {
                let unnamed = || Fault::Malformed("an exception says nothing".to_owned());
                return Err(frames::error_in(&data).unwrap_or_else(unnamed));
            }
            "contentBlockStart" => {
                let start = data.get("start").and_then(Value::as_map).cloned().unwrap_or_default();
                self.blocks.entry(index(&data)?).or_default().start = start;
            }
            "contentBlockDelta" => {
                let block = self.blocks.entry(index(&data)?).or_default();
                if let Some(delta) = data.get("delta") {
                    block.add(delta);
                }
            }
            "messageStop" => self.stop = text(&data, "stopReason").map(Into::into),
            "metadata" => {
                self.usage = data.get("usage").cloned().unwrap_or_default();
                return match self.stop {
                    Some(_) => Ok(true),
                    None => Err(Fault::Truncated("the stream ended without a stop reason".to_owned())),
                };
            }
            // `messageStart`, `contentBlockStop`, and kinds that are added later.
            _ => {}
        }
        Ok(false)
    }

    fn usage(&self) -> Usage {
        usage(Some(&self.usage))
    }

    fn finish(self: Box<Self>) -> Result<Answer, Fault> {
        let Some(stop) = self.stop else {
            return Err(Fault::Truncated("the stream ended without a stop reason".to_owned()));
        };
        let mut parts = Blocks::default();
        for block in self.blocks.into_values() {
            let input = block.input.clone();
            add(&mut parts, &block.whole(), Some(&input));
        }
        Ok(answer(parts, &stop, usage(Some(&self.usage))))
    }
}

impl Block {
    fn add(&mut self, delta: &Value) {
        if let Some(piece) = text(delta, "text") {
            self.text.get_or_insert_default().push_str(piece);
        }
        self.input.push_str(delta.get("toolUse").and_then(|call| text(call, "input")).unwrap_or_default());
        if let Some(reasoning) = delta.get("reasoningContent") {
            for key in ["text", "signature", "redactedContent"] {
                if let Some(piece) = text(reasoning, key) {
                    self.reasoning.entry(key).or_default().push_str(piece);
                }
            }
        }
    }

    /// The block as a whole answer has it.
    fn whole(mut self) -> Value {
        if let Some(redacted) = self.reasoning.remove("redactedContent") {
            let inner = Value::object([("redactedContent", Value::str(redacted))]);
            return Value::object([("reasoningContent", inner)]);
        }
        if !self.reasoning.is_empty() {
            let inner = self.reasoning.into_iter().map(|(key, value)| (key.into(), value.into())).collect::<Map>();
            let inner = Value::object([("reasoningText", Value::map(inner))]);
            return Value::object([("reasoningContent", inner)]);
        }
        if let Some(text) = self.text {
            return Value::object([("text", Value::str(text))]);
        }
        Value::map(self.start)
    }
}

fn index(data: &Value) -> Result<i64, Fault> {
    let missing = || Fault::Malformed("a content block has no index".to_owned());
    data.get("contentBlockIndex").and_then(Value::as_int).ok_or_else(missing)
}
