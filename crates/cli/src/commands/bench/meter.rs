//! An observer that takes times: of every step, and of the runs whose arrival it was told.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use windlass_core::ids::RunId;
use windlass_core::journal::Entry;
use windlass_core::run::Run;
use windlass_runtime::{Observer, Span, Tally};

use super::micros;

/// Parts of the table of times: runs of different parts do not wait for each other.
const SHARDS: usize = 64;

/// What became of a run that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// When it was to be submitted.
    pub wanted: Instant,
    /// When its submission was acknowledged.
    pub accepted: Option<Instant>,
    /// When its first decision was durable and its first call left.
    pub started: Option<Instant>,
    /// When it ended.
    pub ended: Option<Instant>,
}

/// Counts steps and runs, and takes the time of each step.
#[derive(Debug)]
pub(crate) struct Meter {
    steps: AtomicU64,
    ended: AtomicU64,
    room: Arc<Semaphore>,
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
    /// From claims to first decisions, in microseconds.
    claimed: Mutex<Vec<u32>>,
}

#[derive(Debug, Default)]
struct Shard {
    last: HashMap<RunId, Instant>,
    micros: Vec<u32>,
    arrivals: HashMap<RunId, Arrival>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meter {
    /// A meter that gives room for another run whenever one ends.
    #[must_use]
    pub(crate) fn new(room: Arc<Semaphore>) -> Self {
        Self {
            steps: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            room,
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            claimed: Mutex::default(),
        }
    }

    /// Steps so far.
    #[must_use]
    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Runs that have ended.
    #[must_use]
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Forgets the times taken so far.
    pub(crate) fn reset(&self) {
        for shard in &self.shards {
            locked(shard).micros.clear();
        }
        locked(&self.claimed).clear();
    }

    /// The times of all steps in microseconds, shortest first.
    #[must_use]
    pub(crate) fn sorted_micros(&self) -> Vec<u32> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.append(&mut locked(shard).micros);
        }
        all.sort_unstable();
        all
    }

    /// The times from claims to first decisions in microseconds, shortest first.
    #[must_use]
    pub(crate) fn sorted_claims(&self) -> Vec<u32> {
        let mut all = std::mem::take(&mut *locked(&self.claimed));
        all.sort_unstable();
        all
    }

    /// A run is about to be submitted that was to be submitted at this moment.
    pub(crate) fn arrives(&self, run: RunId, wanted: Instant) {
        let arrival = Arrival { wanted, accepted: None, started: None, ended: None };
        locked(self.shard(&run)).arrivals.insert(run, arrival);
    }

    /// Its submission was acknowledged.
    pub(crate) fn accepted(&self, run: &RunId) {
        if let Some(arrival) = locked(self.shard(run)).arrivals.get_mut(run) {
            arrival.accepted = Some(Instant::now());
        }
    }

    /// Its submission was refused.
    pub(crate) fn refused(&self, run: &RunId) {
        locked(self.shard(run)).arrivals.remove(run);
    }

    /// What became of all that arrived.
    #[must_use]
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.shards.iter().flat_map(|shard| locked(shard).arrivals.values().copied().collect::<Vec<_>>()).collect()
    }

    fn shard(&self, run: &RunId) -> &Mutex<Shard> {
        let at = usize::try_from(self.hasher.hash_one(run) % SHARDS as u64).unwrap_or_default();
        &self.shards[at]
    }
}

impl Observer for Meter {
    fn committed(&self, run: &Run, entries: &[Entry]) {
        let settled = entries.iter().filter(|entry| matches!(entry, Entry::CallSettled { .. })).count() as u64;
        let ended = matches!(entries.last(), Some(Entry::RunEnded));
        let now = Instant::now();
        let mut shard = locked(self.shard(run.id()));
        let before = if ended { shard.last.remove(run.id()) } else { shard.last.insert(run.id().clone(), now) };
        if let (Some(before), true) = (before, settled > 0) {
            shard.micros.push(micros(now.duration_since(before)));
        }
        if let Some(arrival) = shard.arrivals.get_mut(run.id()) {
            arrival.started.get_or_insert(now);
            if ended {
                arrival.ended = Some(now);
            }
        }
        drop(shard);
        self.steps.fetch_add(settled, Ordering::Relaxed);
        if ended {
            self.ended.fetch_add(1, Ordering::Relaxed);
            self.room.add_permits(1);
        }
    }
}

impl windlass_runtime::Meter for Meter {
    fn count(&self, _: Tally, _: u64) {}

    fn took(&self, what: Span, time: Duration) {
        if what == Span::Start {
            locked(&self.claimed).push(micros(time));
        }
    }
}

/// The times between two moments of arrivals that had both, in microseconds, shortest first.
#[must_use]
pub(crate) fn sorted_between(
    arrivals: &[Arrival],
    from: impl Fn(&Arrival) -> Option<Instant>,
    to: impl Fn(&Arrival) -> Option<Instant>,
) -> Vec<u32> {
    let time = |arrival: &Arrival| Some(micros(to(arrival)?.saturating_duration_since(from(arrival)?)));
    let mut times: Vec<u32> = arrivals.iter().filter_map(time).collect();
    times.sort_unstable();
    times
}
