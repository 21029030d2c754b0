//! Streamed messages: events to one answer. Over only with a stop reason and `message_stop`.

use std::collections::BTreeMap;

use windlass_core::ids::Name;
use windlass_core::transcript::Usage;
use windlass_core::value::{Map, Value};

use super::{add, answer, service_tier, usage};
use crate::errors::{Fault, ProviderError};
use crate::frames::Event;
use crate::wire::{Answer, Assemble, Blocks, newer, text};

#[derive(Debug, Default)]
struct Block {
    start: Map,
    /// Streamed text by the key of the block that it belongs to: `text`, `thinking`, `signature`.
    texts: BTreeMap<&'static str, String>,
    input: String,
}

/// Collects events.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    blocks: BTreeMap<i64, Block>,
    stop: Option<Name>,
    usage: Usage,
    id: Option<Name>,
    model: Option<Name>,
    tier: Option<Name>,
}

impl Assemble for Assembler {
    fn event(&mut self, event: &Event) -> Result<bool, Fault> {
        let data = Value::from_json(&event.data).map_err(|e| Fault::Malformed(format!("an event is not JSON: {e}")))?;
        match text(&data, "type") {
            Some("message_start") => {
                let message = data.get("message").cloned().unwrap_or_default();
                self.id = text(&message, "id").map(Into::into);
                self.model = text(&message, "model").map(Into::into);
                self.usage = usage(message.get("usage"));
                self.tier = service_tier(message.get("usage"));
            }
            Some("content_block_start") => {
                let start = data.get("content_block").and_then(Value::as_map).cloned().unwrap_or_default();
                self.blocks.insert(index(&data)?, Block { start, ..Block::default() });
            }
            Some("content_block_delta") => {
                let block = self.blocks.entry(index(&data)?).or_default();
                if let Some(delta) = data.get("delta") {
                    block.add(delta);
                }
            }
            Some("message_delta") => {
                if let Some(reason) = data.get("delta").and_then(|delta| text(delta, "stop_reason")) {
                    self.stop = Some(reason.into());
                }
                self.usage = newer(self.usage, usage(data.get("usage")));
                self.tier = service_tier(data.get("usage")).or(self.tier.take());
            }
            Some("message_stop") => {
                return match self.stop {
                    Some(_) => Ok(true),
                    None => Err(Fault::Truncated("the stream ended without a stop reason".to_owned())),
                };
            }
            Some("error") => return Err(Fault::Broken(Box::new(ProviderError::from_value(None, &data)))),
            // `ping`, `content_block_stop`, and kinds that are added later.
            Some(_) => {}
            None => return Err(Fault::Malformed("an event has no type".to_owned())),
        }
        Ok(false)
    }

    fn usage(&self) -> Usage {
        self.usage
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
        let whole = answer(parts, &stop, self.usage, self.id.as_deref(), self.model.as_deref());
        Ok(Answer { service_tier: self.tier, ..whole })
    }
}

impl Block {
    fn add(&mut self, delta: &Value) {
        for key in ["text", "thinking", "signature"] {
            if let Some(piece) = text(delta, key) {
                self.texts.entry(key).or_default().push_str(piece);
            }
        }
        self.input.push_str(text(delta, "partial_json").unwrap_or_default());
    }

    fn whole(mut self) -> Value {
        for (key, added) in self.texts {
            let first = self.start.get(key).and_then(Value::as_str).unwrap_or_default();
            let joined = format!("{first}{added}");
            self.start.insert(key.into(), joined.into());
        }
        Value::map(self.start)
    }
}

fn index(data: &Value) -> Result<i64, Fault> {
    let missing = || Fault::Malformed("a content block has no index".to_owned());
    data.get("index").and_then(Value::as_int).ok_or_else(missing)
}
