//! The moment at which a call leaves: its mark in the store, and the word that it may have happened from here on. When that
//! moment comes is known to whoever makes calls wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::ids::{EffectId, RunId};

use super::engine::Core;
use super::observe::Point;

/// What is noted when a call leaves.
pub(super) struct Departure {
    pub(super) core: Arc<Core>,
    pub(super) kind: &'static str,
    pub(super) run: RunId,
    pub(super) effect: EffectId,
    pub(super) number: u32,
    pub(super) marked: bool,
    pub(super) sent: Arc<AtomicBool>,
}

impl Departure {
    /// Between the mark and the call there is nothing: a process that dies after it leaves a call that may have left.
    pub(super) fn note(&self) -> Result<(), Failure> {
        if self.marked
            && let Err(error) = self.core.parts.store.mark_sent(&self.run, self.effect, self.number)
        {
            let message = format!("the call could not be noted before it leaves: {error}");
            return Err(Failure::new(Code::StoreUnavailable, message).retry(Retry::Backoff));
        }
        self.sent.store(true, Ordering::Release);
        self.core.pass(Point::Departing(self.kind));
        Ok(())
    }
}
