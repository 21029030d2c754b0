//! Streamed answers of Gemini: pieces of the whole shape to one answer. The stream has no end marker: it is over when it
//! ends after a finish reason.

use super::Parts;
use crate::errors::Fault;
use crate::frames::{self, Event};
use crate::wire::{Answer, Assemble};

/// Tool calls that one answer may hold: more is no answer but a fault.
const CALLS_MAX: usize = 4_096;

/// Collects pieces.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    parts: Parts,
}

impl Assemble for Assembler {
    fn event(&mut self, event: &Event) -> Result<bool, Fault> {
        let piece = event.mapping()?;
        if let Some(fault) = frames::error_in(&piece) {
            return Err(fault);
        }
        self.parts.add(&piece);
        if self.parts.tool_calls.len() > CALLS_MAX {
            return Err(Fault::Malformed(format!("it has more than {CALLS_MAX} tool calls")));
        }
        Ok(false)
    }

    fn is_whole(&self) -> bool {
        self.parts.is_over()
    }

    fn finish(self: Box<Self>) -> Result<Answer, Fault> {
        self.parts.answer()
    }
}
