//! Runs made by this process, kept in memory from their making to their first claim, which then need not be read.
//!
//! A cache: whatever is missing from it is read from the file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use windlass_core::ids::RunId;
use windlass_core::run::Start;

/// Runs kept at most.
const RUNS_MAX: usize = 1_024;
/// Larger starts are read again.
const START_BYTES_MAX: usize = 16_384;

/// The start of a run and its stored text.
#[derive(Clone, Debug)]
pub(super) struct Newborn {
    pub(super) start: Arc<Start>,
    pub(super) text: Arc<[u8]>,
}

/// Runs in the queue, by their keys. Keys are never used twice, so a run made again under an id has another one.
#[derive(Debug, Default)]
pub(super) struct Queued(BTreeMap<i64, Newborn>);

impl Queued {
    /// A run was made.
    pub(super) fn made(&mut self, key: i64, newborn: Newborn) {
        if newborn.text.len() > START_BYTES_MAX {
            return;
        }
        if self.0.len() >= RUNS_MAX {
            self.0.pop_first();
        }
        self.0.insert(key, newborn);
    }

    /// A run was claimed under an epoch. One that was claimed before may have gone on since it was made.
    pub(super) fn claimed(&mut self, key: i64, epoch: i64) -> Option<Newborn> {
        self.0.remove(&key).filter(|_| epoch == 1)
    }
}

/// Claimed runs, until their workers ask for them.
#[derive(Debug, Default)]
pub(super) struct Claimed(HashMap<RunId, (u64, Newborn)>);

impl Claimed {
    pub(super) fn keep(&mut self, run: RunId, epoch: u64, newborn: Newborn) {
        if self.0.len() >= RUNS_MAX {
            self.0.clear();
        }
        self.0.insert(run, (epoch, newborn));
    }

    pub(super) fn take(&mut self, run: &RunId, epoch: u64) -> Option<Newborn> {
        self.0.remove(run).filter(|(kept, _)| *kept == epoch).map(|(_, newborn)| newborn)
    }
}

#[cfg(test)]
mod tests {

    use windlass_core::ids::Digest;

    use windlass_core::value::Value;

    use super::*;

    fn newborn(bytes: usize) -> Newborn {
        let id = RunId::stored("r");
        let start = Start::new(id, Digest::ZERO, "m".into(), "m".into(), Value::Null);
        Newborn { start: Arc::new(start), text: vec![b'x'; bytes].into() }
    }

    #[test]
    fn only_the_first_claim_gets_the_start() {
        let mut queued = Queued::default();
        queued.made(7, newborn(10));
        assert!(queued.claimed(8, 1).is_none());
        assert!(queued.claimed(7, 1).is_some());
        assert!(queued.claimed(7, 1).is_none());
        // Another process had it in between.
        queued.made(9, newborn(10));
        assert!(queued.claimed(9, 2).is_none());
    }

    #[test]
    fn starts_are_bounded_in_size_and_number() {
        let mut queued = Queued::default();
        queued.made(1, newborn(START_BYTES_MAX + 1));
        assert!(queued.claimed(1, 1).is_none());
        for key in 0..=RUNS_MAX as i64 {
            queued.made(key, newborn(10));
        }
        assert!(queued.claimed(0, 1).is_none() && queued.claimed(1, 1).is_some());
    }

    #[test]
    fn a_worker_gets_what_came_with_its_own_lease() {
        let (mut claimed, run) = (Claimed::default(), RunId::stored("r"));
        claimed.keep(run.clone(), 1, newborn(10));
        assert!(claimed.take(&run, 2).is_none());
        claimed.keep(run.clone(), 1, newborn(10));
        assert!(claimed.take(&run, 1).is_some());
        assert!(claimed.take(&run, 1).is_none());
    }
}
