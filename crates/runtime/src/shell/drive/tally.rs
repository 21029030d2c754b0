//! Counts what a held run does: decisions that are durable, and how long they took.

use std::sync::atomic::Ordering;

use tokio::time::Instant;
use windlass_core::journal::Entry;

use super::Work;
use crate::shell::observe::{Span, Tally, count};

impl Work<'_> {
    /// Tells how long a step took, and the first one how long it had to wait after the claim.
    pub(super) fn timed(&self, began: Instant) {
        if let Some(meter) = &self.claimed.core.parts.settings.meter {
            meter.took(Span::Step, began.elapsed());
            if self.commits == 1 {
                meter.took(Span::Start, began.duration_since(self.claimed.at));
            }
        }
    }

    /// Counts a decision that is durable.
    pub(super) fn committed(&mut self, began: Instant, entries: &[Entry]) {
        let core = &self.claimed.core;
        self.commits += 1;
        if let Some(alone) = self.claimed.alone.as_ref().filter(|_| self.strikes == 0)
            && !alone.swap(true, Ordering::AcqRel)
        {
            core.wake(false);
        }
        for entry in entries {
            if let Entry::Decided { verdicts, .. } = entry
                && !verdicts.is_empty()
            {
                core.parts.policy.judged(&self.run, verdicts);
            }
        }
        if let Some(meter) = &core.parts.settings.meter {
            meter.decided(&self.run, entries);
            meter.took(Span::Commit, began.elapsed());
            meter.count(Tally::Commit, 1);
            meter.count(Tally::Step, count(entries, |entry| matches!(entry, Entry::StateEntered { .. })));
            let ended = count(entries, |entry| matches!(entry, Entry::RunEnded));
            meter.count(Tally::Ended, ended);
            if self.run.start.parent.is_none() {
                meter.count(Tally::of_ending(self.run.status()), ended);
            }
        }
    }
}
