//! Streamed answers of Gemini: pieces of the whole shape to one answer. The stream has no end marker: it is over when it
//! ends after a finish reason.

use windlass_core::transcript::Usage;

use super::Parts;
use crate::errors::Fault;
use crate::frames::{self, Event};
use crate::wire::{self, Answer, Assemble};

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
        wire::bounded(self.parts.tool_calls.len())?;
        Ok(false)
    }

    fn is_whole(&self) -> bool {
        self.parts.is_over()
    }

    fn usage(&self) -> Usage {
        self.parts.usage
    }

    fn finish(self: Box<Self>) -> Result<Answer, Fault> {
        self.parts.answer()
    }
}
