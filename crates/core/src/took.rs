//! How long what an entry ends has taken, by the times of the journal: whoever folds it again finds the same.
//!
//! Of the last decision only, and no part of what a run is: two runs are not told apart by it, and no snapshot has it.

use std::collections::VecDeque;

use crate::journal::Entry;
use crate::run::Run;
use crate::time::Timestamp;

/// The times that the entries of the last decision took which end something, in their order.
#[derive(Clone, Debug, Default)]
pub struct Took(VecDeque<Option<u64>>);

impl PartialEq for Took {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Took {
    /// Whether an entry ends something that takes time: a call or an attempt, a wait, a child, a state, the run.
    #[must_use]
    pub fn is_end(entry: &Entry) -> bool {
        matches!(
            entry,
            Entry::CallSettled { .. }
                | Entry::AttemptFailed { .. }
                | Entry::CallAbandoned { .. }
                | Entry::WaitClosed { .. }
                | Entry::ChildSettled { .. }
                | Entry::TransitionTaken { .. }
                | Entry::FailureRouted { .. }
                | Entry::RunEnded
        )
    }

    /// The next of them, in milliseconds; none where it is not known when that began.
    pub fn next_ms(&mut self) -> Option<u64> {
        self.0.pop_front().flatten()
    }
}

/// Notes what an entry ends, before it is applied.
pub(crate) fn note(run: &mut Run, entry: &Entry) {
    if let Entry::Decided { .. } = entry {
        run.took.0.clear();
    }
    if Took::is_end(entry) {
        let since = since(run, entry).filter(|since| *since != Timestamp::default());
        let took = since.map(|since| run.now.since_ms(since));
        run.took.0.push_back(took);
    }
}

fn since(run: &Run, entry: &Entry) -> Option<Timestamp> {
    match entry {
        Entry::CallSettled { effect, .. }
        | Entry::AttemptFailed { effect, .. }
        | Entry::CallAbandoned { effect, .. } => run.calls.get(effect).map(|call| call.at),
        Entry::WaitClosed { effect, .. } => run.waits.get(effect).map(|wait| wait.at),
        Entry::ChildSettled { child, .. } => run.children.get(child).map(|child| child.at),
        Entry::TransitionTaken { .. } | Entry::FailureRouted { .. } => Some(run.entered_at),
        Entry::RunEnded => Some(run.started_at),
        _ => None,
    }
}
