//! Run keys as values: who has a key, and what waits for its last word. Decides what a submission leads to; reads no
//! clock and writes nothing.
//!
//! | the key | a `singleton` submission | a `debounce` submission |
//! |---|---|---|
//! | free | takes it; its run begins | waits for the window to pass |
//! | its run is unfinished | is refused, or gives that run | — |
//! | its run has ended | takes it; its run begins | — |
//! | a submission waits | — | takes its place and moves the start |
//! | a run is being made | that run is made first | that run is made first, then as if free |
//!
//! What is to be made is stored with the key before it is made: whoever finds it makes the same run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_core::ids::{Name, RunId};
use windlass_core::run::Start;
use windlass_core::time::Timestamp;
use windlass_ports::compile::Bundle;
use windlass_ports::store::{NewRun, Priority, Queueing};

/// Longest window, in milliseconds: a day.
pub const WINDOW_MS_MAX: u64 = 86_400_000;
/// How many windows a debounced run waits at most when nothing else is said.
pub const WAIT_WINDOWS_DEFAULT: u64 = 10;
/// How long the place of a key is kept that nobody uses, in milliseconds.
const KEPT_MS: u64 = 3_600_000;

/// What a key means for a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyMode {
    /// At most one unfinished run of the key.
    Singleton,
    /// The last submission within the window counts.
    Debounce {
        /// How long nothing new must have come, in milliseconds.
        window_ms: u64,
        /// How long the first one waits at most, in milliseconds.
        max_wait_ms: u64,
    },
}

/// A run that is to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    start: Start,
    bundle: Bundle,
    pool: Option<Name>,
    priority: Option<Priority>,
    not_before: Option<Timestamp>,
    tags: BTreeMap<Name, Name>,
    queued_max: Option<u32>,
}

impl Wanted {
    /// What makes this run.
    #[must_use]
    pub fn new(run: NewRun, bundle: Bundle) -> Self {
        let Queueing { pool, priority, not_before, tags, queued_max } = run.queueing;
        Self { start: run.start, bundle, pool, priority, not_before, tags, queued_max }
    }

    /// The run's id.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.start.id
    }

    /// The bundle it is pinned to.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The run, made at this time.
    #[must_use]
    pub fn made(&self, at: Timestamp) -> NewRun {
        let queueing = Queueing {
            pool: self.pool.clone(),
            priority: self.priority,
            not_before: self.not_before,
            tags: self.tags.clone(),
            queued_max: self.queued_max,
        };
        NewRun { start: self.start.clone(), at, queueing }
    }

    /// The same under another id.
    #[must_use]
    fn named(mut self, id: &RunId) -> Self {
        self.start.id = id.clone();
        self.start.root = id.clone();
        self
    }
}

/// Who has the key of a singleton.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Single {
    /// The run.
    pub run: RunId,
    /// What makes it, until it is made.
    pub wanted: Option<Box<Wanted>>,
    /// Since when.
    pub at: Timestamp,
}

impl Single {
    /// The key is taken by the run that is wanted.
    #[must_use]
    pub fn taken(wanted: Wanted, now: Timestamp) -> Self {
        Self { run: wanted.run().clone(), wanted: Some(Box::new(wanted)), at: now }
    }

    /// The run is made, or can never be.
    #[must_use]
    pub fn settled(self) -> Self {
        Self { wanted: None, ..self }
    }

    /// Whether its place may be given up, once its run is known to have ended.
    #[must_use]
    pub fn is_old(&self, now: Timestamp) -> bool {
        self.wanted.is_none() && now.since_ms(self.at) > KEPT_MS
    }
}

/// What waits under the key of a debounce.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Debounced {
    /// The run.
    pub run: RunId,
    /// What makes it: the last word so far, until it is made.
    pub wanted: Option<Box<Wanted>>,
    /// When the first one came.
    pub first_at: Timestamp,
    /// When the run begins if nothing else comes.
    pub due: Timestamp,
    /// Submissions that were replaced.
    pub replaced: u64,
    /// Set when the last word is spoken: what is wanted now is what is made.
    pub begun_at: Option<Timestamp>,
}

impl Debounced {
    /// The first submission of a key.
    #[must_use]
    pub fn first(wanted: Wanted, now: Timestamp, window_ms: u64, max_wait_ms: u64) -> Self {
        Self {
            run: wanted.run().clone(),
            wanted: Some(Box::new(wanted)),
            first_at: now,
            due: now.plus_ms(window_ms.min(max_wait_ms)),
            replaced: 0,
            begun_at: None,
        }
    }

    /// Another one takes the place of what waits: with its input, under the id that was told before.
    #[must_use]
    pub fn replaced_by(&self, wanted: Wanted, now: Timestamp, window_ms: u64, max_wait_ms: u64) -> Self {
        let last = self.first_at.plus_ms(max_wait_ms);
        Self {
            run: self.run.clone(),
            wanted: Some(Box::new(wanted.named(&self.run))),
            first_at: self.first_at,
            // Never beyond what was promised to the one before by more than the wait of the first allows.
            due: now.plus_ms(window_ms).min(last.max(now)),
            replaced: self.replaced + 1,
            begun_at: None,
        }
    }

    /// The last word is spoken.
    #[must_use]
    pub fn begun(self, now: Timestamp) -> Self {
        Self { begun_at: Some(now), ..self }
    }

    /// The run is made, or can never be.
    #[must_use]
    pub fn settled(self) -> Self {
        Self { wanted: None, ..self }
    }

    /// When there is something to do for it. None when it is done with.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Timestamp> {
        match (&self.wanted, self.begun_at) {
            (Some(_), None) => Some(self.due),
            (Some(_), Some(_)) => Some(Timestamp(0)),
            (None, begun) => begun.map(|at| at.plus_ms(KEPT_MS)),
        }
    }

    /// Whether its place may be given up.
    #[must_use]
    pub fn is_old(&self, now: Timestamp) -> bool {
        self.wanted.is_none() && self.begun_at.is_none_or(|at| now.since_ms(at) >= KEPT_MS)
    }
}

#[cfg(test)]
mod tests {

    use windlass_core::ids::Digest;

    use windlass_core::value::Value;

    use super::*;

    fn wanted(id: &str, input: i64) -> Wanted {
        let id = RunId::stored(id);
        let start = Start::new(id, Digest::ZERO, "m".into(), "m".into(), Value::Int(input));
        Wanted::new(NewRun { start, at: Timestamp(0), queueing: Queueing::default() }, Bundle::default())
    }

    #[test]
    fn the_last_word_counts_and_the_start_moves_up_to_the_longest_wait() {
        let first = Debounced::first(wanted("a", 1), Timestamp(100), 50, 120);
        assert_eq!(first.due, Timestamp(150));
        let second = first.replaced_by(wanted("b", 2), Timestamp(140), 50, 120);
        assert_eq!((second.run.as_str(), second.due), ("a", Timestamp(190)));
        let made = second.wanted.clone().expect("wanted").made(Timestamp(1));
        assert_eq!((made.start.id.as_str(), made.start.root.as_str(), made.start.input), ("a", "a", Value::Int(2)));
        let third = second.replaced_by(wanted("c", 3), Timestamp(185), 50, 120);
        assert_eq!((third.due, third.replaced), (Timestamp(220), 2));
        let late = third.replaced_by(wanted("d", 4), Timestamp(230), 50, 120);
        assert_eq!(late.due, Timestamp(230), "the longest wait is over");
    }

    #[test]
    fn a_stored_key_reads_back() {
        let single = Single::taken(wanted("a", 1), Timestamp(5));
        let bytes = serde_json::to_vec(&single).expect("json");
        assert_eq!(serde_json::from_slice::<Single>(&bytes).expect("reads back"), single);
        assert!(!single.is_old(Timestamp(u64::MAX)), "its run is yet to be made");
        assert!(single.settled().is_old(Timestamp(KEPT_MS + 6)));
    }

    #[test]
    fn a_debounced_key_is_kept_for_a_while_after_its_run_began() {
        let waiting = Debounced::first(wanted("a", 1), Timestamp(0), 50, 120);
        assert_eq!(waiting.wakes_at(), Some(Timestamp(50)));
        let begun = waiting.begun(Timestamp(60));
        assert_eq!(begun.wakes_at(), Some(Timestamp(0)), "its run is to be made at once");
        let done = begun.settled();
        assert_eq!(done.wakes_at(), Some(Timestamp(60 + KEPT_MS)));
        assert!(!done.is_old(Timestamp(KEPT_MS)) && done.is_old(Timestamp(60 + KEPT_MS)));
    }
}
