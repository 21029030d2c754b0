//! Streamed responses: events to one answer. The last event carries the whole answer; without it there is none.

use std::collections::BTreeMap;

use windlass_core::transcript::Usage;
use windlass_core::value::Value;

use super::{Responses, usage};
use crate::errors::{Fault, ProviderError};
use crate::frames::{self, Event};
use crate::wire::{Answer, Assemble, Wire};

/// Output items that one answer may hold: more is no answer but a fault.
const ITEMS_MAX: usize = 4_096;

/// Collects events.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Items that are done, by their place.
    items: BTreeMap<i64, Value>,
    response: Option<Value>,
}

impl Assemble for Assembler {
    fn event(&mut self, event: &Event) -> Result<bool, Fault> {
        let data = event.mapping()?;
        match frames::kind(&data)? {
            "response.output_item.done" => {
                let place = data.get("output_index").and_then(Value::as_int).unwrap_or(self.items.len() as i64);
                self.items.insert(place, data.get("item").cloned().unwrap_or_default());
                if self.items.len() > ITEMS_MAX {
                    return Err(Fault::Malformed(format!("it has more than {ITEMS_MAX} output items")));
                }
                Ok(false)
            }
            "response.completed" | "response.incomplete" => {
                let response = data.get("response").filter(|r| r.as_map().is_some()).cloned();
                let missing = || Fault::Malformed("the last event has no `response`".to_owned());
                self.response = Some(response.ok_or_else(missing)?);
                Ok(true)
            }
            "response.failed" => {
                let response = data.get("response").cloned().unwrap_or_default();
                self.response = Some(response.clone());
                Err(Fault::Broken(Box::new(ProviderError::from_value(None, &response))))
            }
            "error" => Err(Fault::Broken(Box::new(ProviderError::from_value(None, &data)))),
            // Deltas repeat what the items hold.
            _ => Ok(false),
        }
    }

    fn usage(&self) -> Usage {
        self.response.as_ref().map(|response| usage(response.get("usage"))).unwrap_or_default()
    }

    fn finish(self: Box<Self>) -> Result<Answer, Fault> {
        let Self { items, response } = *self;
        let Some(response) = response else {
            return Err(Fault::Truncated("the stream ended without its last event".to_owned()));
        };
        let said = response.get("output").and_then(Value::as_list).is_some_and(|list| !list.is_empty());
        let whole = match response.as_map() {
            Some(map) if !said => {
                let mut map = map.clone();
                map.insert("output".into(), Value::list(items.into_values().collect()));
                Value::map(map)
            }
            _ => response,
        };
        Responses.answer(&whole)
    }
}
