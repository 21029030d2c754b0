//! Calls that wait for a slot, counted.

use std::sync::atomic::Ordering;

use crate::shell::engine::Core;

/// Counts a call that waits for a slot.
pub(super) struct Waiting<'a>(&'a Core);

impl<'a> Waiting<'a> {
    pub(super) fn new(core: &'a Core) -> Self {
        core.backlog.fetch_add(1, Ordering::Relaxed);
        Self(core)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // The first that no longer waits may be what a worker waits for.
        if self.0.backlog.fetch_sub(1, Ordering::Relaxed) == self.0.parts.settings.call_slots.saturating_add(1) {
            self.0.wake(false);
        }
    }
}
