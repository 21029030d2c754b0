//! A schedule as a value: what it starts, when, and where it stands. Decides what a tick leads to; reads no clock and
//! writes nothing.
//!
//! | it stands | what happens | it then |
//! |---|---|---|
//! | nothing due | time passes | the next tick falls due |
//! | due | `skip` and the last run is unfinished | the tick is counted as skipped |
//! | due | `queue` and the last run is unfinished | the tick waits |
//! | due | `cancel` and the last run is unfinished | the tick waits, the run is cancelled |
//! | due | otherwise | the tick is being started |
//! | waiting | the last run has ended | the oldest waiting tick is being started |
//! | being started | the run exists | the tick is the last one |
//!
//! A tick that is being started is stored before its run is made, and the run's id comes from the schedule and the tick:
//! whoever finds it goes on with it, and there is one run.

mod ticks;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::limits::RUN_ID_BYTES_MAX;
use windlass_core::time::Timestamp;
use windlass_ports::store::Priority;

pub use ticks::{EVERY_MS_MIN, Passed, Ticks, Timing, TimingError, in_zone};

/// The kind of object that a schedule is stored as.
pub const KIND: &str = "schedule";
/// The version of the stored form.
const VERSION: u32 = 2;
/// The version of one that starts what it was added with.
const VERSION_PINNED: u32 = 1;
/// Bytes of a schedule's name.
pub const NAME_BYTES_MAX: usize = 100;
/// Ticks that are caught up at most.
pub const CATCH_UP_MAX: usize = 1_000;
/// Ticks that wait for the run before them at most.
pub const WAITING_MAX: usize = 1_000;
/// How late a tick may be seen and still count as on time, in milliseconds.
pub const GRACE_MS: u64 = 60_000;
/// How far back ticks are caught up when nothing else is said, in milliseconds: a day.
pub const WINDOW_MS_DEFAULT: u64 = 86_400_000;
/// How often the run is looked at that a tick waits for, in milliseconds.
const BUSY_MS: u64 = 1_000;
/// How long the place of a removed schedule is kept, in milliseconds.
const REMOVED_MS: u64 = 3_600_000;
/// The tag by which the runs of a schedule are found.
pub const TAG: &str = "schedule";

/// What happens to a tick while the last run is unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It starts nothing.
    #[default]
    Skip,
    /// It waits until the run has ended.
    Queue,
    /// The run is cancelled; the tick waits until it has ended. Of several ticks the last one counts.
    Cancel,
    /// Its run starts beside the other.
    Allow,
}

impl Overlap {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Skip, Self::Queue, Self::Cancel, Self::Allow];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::Cancel => "cancel",
            Self::Allow => "allow",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|overlap| overlap.as_str() == text)
    }
}

/// What happens to ticks that passed while nobody was there to start their runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They start nothing.
    None,
    /// The last one starts its run, when it lies within the window.
    #[default]
    Last,
    /// Those within the window start their runs, the newest [`CATCH_UP_MAX`] of them.
    All,
}

impl CatchUp {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Last, Self::All];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Last => "last",
            Self::All => "all",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|catch_up| catch_up.as_str() == text)
    }
}

/// What a schedule starts, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub name: Name,
    /// What its runs are pinned to.
    pub bundle: Digest,
    /// Hash of what else a run needs.
    pub work: Digest,
    /// The machine's name.
    pub machine: Name,
    /// Whose its runs are.
    pub tenant: Name,
    /// When it ticks.
    pub timing: Timing,
    /// The time zone of a cron expression.
    pub zone: Name,
    /// What happens to a tick while the last run is unfinished.
    pub overlap: Overlap,
    /// What happens to ticks that passed while nobody was there.
    pub catch_up: CatchUp,
    /// How far back ticks are caught up, in milliseconds.
    pub window_ms: u64,
    /// Up to how much later than its tick a run is started, in milliseconds. The same for a tick wherever it is asked.
    pub jitter_ms: u64,
    /// The first tick is not before.
    pub start: Timestamp,
    /// Ticks are before.
    pub end: Option<Timestamp>,
    /// Tags of its runs.
    pub tags: BTreeMap<Name, Name>,
    /// The class of its runs.
    pub priority: Option<Priority>,
    /// The pool of its runs.
    pub pool: Option<Name>,
    /// The published version that its runs are of: `NAME@` for the one that the name points at when a run starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Name>,
}

/// A tick that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// The tick.
    pub tick: Timestamp,
    /// When its run starts: later than the tick by its jitter.
    pub due: Timestamp,
}

/// The last run that a schedule started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The run.
    pub run: RunId,
    /// Its tick; when it was asked for, for one that a person asked for.
    pub tick: Timestamp,
    /// When it was created.
    pub at: Timestamp,
    /// How much later than due that was, in milliseconds.
    pub late_ms: u64,
}

/// Why and since when a schedule starts nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub reason: Name,
}

/// How often things happened to the ticks of a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Started a run.
    pub started: u64,
    /// Started nothing because of the overlap policy.
    pub skipped: u64,
    /// Started nothing because nobody was there, at least so many.
    pub missed: u64,
    /// Could not start a run.
    pub refused: u64,
}

/// A schedule as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Version of the stored form.
    v: u32,
    /// What it starts, and when.
    pub spec: Spec,
    /// When it was added.
    pub created_at: Timestamp,
    /// The last tick that was dealt with. Nothing up to it is started again, whatever a clock says.
    pub dealt_with: Timestamp,
    /// The tick that comes next.
    pub next: Option<Next>,
    /// Ticks whose runs are being made, with the time at which they were due.
    pub starting: Vec<Next>,
    /// Ticks that wait for the last run to end.
    pub waiting: VecDeque<Next>,
    /// The last run it started.
    pub last: Option<Last>,
    /// Set while it starts nothing.
    pub paused: Option<Paused>,
    /// Set when it was removed: the place of its name is kept for a while, so that nobody who has it still in hand
    /// brings it back.
    pub removed_at: Option<Timestamp>,
    /// How often things happened.
    pub counts: Counts,
    /// What went wrong last.
    pub problem: Option<Name>,
}

/// Why a schedule cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Its name.
    #[error("`{0}` cannot name a schedule: up to {NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`")]
    Name(String),
    /// Its timing.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// Its start and end.
    #[error("the schedule ends before it starts")]
    Ends,
}

/// Why a stored schedule cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is no schedule.
    #[error("it cannot be read: {0}")]
    Broken(#[from] serde_json::Error),
    /// It was written by a newer build.
    #[error("it has version {found}, this build knows up to {VERSION}")]
    Newer {
        /// Its version.
        found: u32,
    },
}

/// What a schedule wants now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Nothing before then; nothing at all when none.
    Nothing(Option<Timestamp>),
    /// It has changed and wants to be stored as it is.
    Stored,
    /// The runs of [`Schedule::starting`] are to be made.
    Runs,
    /// This run is to be cancelled, for the tick that waits. Then nothing before the time.
    Cancelled(RunId, Timestamp),
}

impl Spec {
    /// Its ticks.
    ///
    /// # Errors
    /// An expression, zone or interval that cannot be used.
    pub fn ticks(&self) -> Result<Ticks, TimingError> {
        Ticks::new(&self.timing, &self.zone, self.start, self.end)
    }

    /// How much later than a tick its run starts, in milliseconds. From 0 to the jitter, spread by the tick.
    #[must_use]
    pub fn jitter(&self, tick: Timestamp) -> u64 {
        if self.jitter_ms == 0 {
            return 0;
        }
        let spread = Digest::of(format!("{}@{}", self.name, tick.0).as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&spread.0[..8]);
        u64::from_le_bytes(first) % self.jitter_ms.saturating_add(1)
    }

    /// The id of the run of a tick.
    #[must_use]
    pub fn run(&self, tick: Timestamp) -> RunId {
        RunId::stored(&format!("{}-{}", self.name, compact(tick)))
    }

    /// The name that its runs are of the version of at which it points.
    #[must_use]
    pub fn follows(&self) -> Option<&str> {
        self.version.as_ref()?.strip_suffix('@')
    }

    /// The version of the stored form: a build that knows no published versions would start something else.
    fn form(&self) -> u32 {
        if self.follows().is_some() { VERSION } else { VERSION_PINNED }
    }

    fn next(&self, tick: Timestamp) -> Next {
        Next { tick, due: tick.plus_ms(self.jitter(tick)) }
    }
}

/// What a stored schedule becomes in a store that is older than what was done since: one that starts nothing until a
/// person has looked. None when it starts nothing as it is, or cannot be read, so that no process starts anything of it.
#[must_use]
pub fn held_back(bytes: &[u8], now: Timestamp, reason: &str) -> Option<Vec<u8>> {
    let mut schedule = Schedule::decode(bytes).ok()?;
    schedule.hold_back(now, reason).then(|| schedule.encode())
}

/// A tick as it stands in a run id: `20261121T083000Z`, with milliseconds where it has some.
fn compact(tick: Timestamp) -> String {
    let at = i64::try_from(tick.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    match (at, tick.0 % 1_000) {
        (None, _) => tick.0.to_string(),
        (Some(at), 0) => at.strftime("%Y%m%dT%H%M%SZ").to_string(),
        (Some(at), ms) => format!("{}.{ms:03}Z", at.strftime("%Y%m%dT%H%M%S")),
    }
}

impl Schedule {
    /// A schedule that begins now.
    ///
    /// # Errors
    /// A name, timing or range of time that cannot be used, or that never ticks.
    pub fn new(spec: Spec, now: Timestamp) -> Result<Self, SpecError> {
        const { assert!(NAME_BYTES_MAX + 40 < RUN_ID_BYTES_MAX) };
        if spec.name.len() > NAME_BYTES_MAX || RunId::new(&spec.name).is_err() {
            return Err(SpecError::Name(spec.name.chars().take(NAME_BYTES_MAX + 20).collect()));
        }
        if spec.end.is_some_and(|end| end <= spec.start) {
            return Err(SpecError::Ends);
        }
        let ticks = spec.ticks()?;
        let dealt_with = Timestamp(now.0.max(spec.start.0.saturating_sub(1)));
        let next = ticks.after(dealt_with).ok_or(TimingError::Never)?;
        Ok(Self {
            v: spec.form(),
            next: Some(spec.next(next)),
            created_at: now,
            dealt_with,
            starting: Vec::new(),
            waiting: VecDeque::new(),
            last: None,
            paused: None,
            removed_at: None,
            counts: Counts::default(),
            problem: None,
            spec,
        })
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// Bytes that are no schedule, or one of a newer build.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let version: Version = serde_json::from_slice(bytes)?;
        if version.v > VERSION {
            return Err(ReadError::Newer { found: version.v });
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// When there may be something to do.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Timestamp> {
        if !self.starting.is_empty() {
            return Some(Timestamp(0));
        }
        if let Some(at) = self.removed_at {
            return Some(at.plus_ms(REMOVED_MS));
        }
        if self.paused.is_some() {
            return None;
        }
        if self.waiting.is_empty() { self.next.map(|next| next.due) } else { Some(Timestamp(0)) }
    }

    /// The run whose status [`Schedule::advance`] has to be told.
    #[must_use]
    pub fn depends_on(&self, now: Timestamp) -> Option<RunId> {
        let idle = self.paused.is_some() || self.removed_at.is_some() || !self.starting.is_empty();
        let due = !self.waiting.is_empty() || self.next.is_some_and(|next| next.due <= now);
        if idle || !due || self.spec.overlap == Overlap::Allow {
            return None;
        }
        self.last.as_ref().map(|last| last.run.clone())
    }

    /// Wants a run now that belongs to no tick. False while the run of a tick is being made.
    pub fn start_now(&mut self, now: Timestamp) -> bool {
        if !self.starting.is_empty() {
            return false;
        }
        self.starting.push(Next { tick: now, due: now });
        true
    }

    /// Goes on as far as it can without the world. `is_busy` says whether the last run is unfinished.
    ///
    /// # Errors
    /// A timing that this build cannot use.
    pub fn advance(&mut self, now: Timestamp, is_busy: bool) -> Result<Wants, TimingError> {
        if !self.starting.is_empty() {
            return Ok(Wants::Runs);
        }
        if self.removed_at.is_some() || self.paused.is_some() {
            return Ok(Wants::Nothing(None));
        }
        let due = self.take_due(now)?;
        let changed = due.is_some();
        let mut ticks = std::mem::take(&mut self.waiting);
        let waited = !ticks.is_empty();
        ticks.extend(due.unwrap_or_default());
        self.place(ticks, is_busy);
        if !self.starting.is_empty() || changed {
            return Ok(Wants::Stored);
        }
        let next = self.next.map(|next| next.due);
        if !waited {
            return Ok(Wants::Nothing(next));
        }
        let again = next.map_or(now.plus_ms(BUSY_MS), |next| next.min(now.plus_ms(BUSY_MS)));
        Ok(match &self.last {
            Some(last) if self.spec.overlap == Overlap::Cancel => Wants::Cancelled(last.run.clone(), again),
            _ => Wants::Nothing(Some(again)),
        })
    }

    /// The ticks that are due by now and are to be started. None when no tick is due; moves on to the next one.
    fn take_due(&mut self, now: Timestamp) -> Result<Option<Vec<Next>>, TimingError> {
        if self.next.is_none_or(|next| next.due > now) {
            return Ok(None);
        }
        let Some(first) = self.next else { return Ok(None) };
        let ticks = self.spec.ticks()?;
        // The stored next tick counts as it was stored, even where the rules of its zone have changed since.
        let passed = ticks.passed(first.tick, now, CATCH_UP_MAX);
        // A tick whose jitter is not over holds up those after it.
        let newest = passed.newest.iter().map(|tick| self.spec.next(*tick)).take_while(|next| next.due <= now);
        let mut due = vec![first];
        due.extend(newest);
        let dealt_with = due[due.len() - 1].tick;
        let seen = due.len() as u64 + passed.before;
        let wanted = |next: &Next| now.since_ms(next.tick) <= self.spec.window_ms.saturating_add(self.spec.jitter_ms);
        let taken: Vec<Next> = match self.spec.catch_up {
            CatchUp::All => due.into_iter().filter(wanted).collect(),
            CatchUp::Last => due.into_iter().next_back().filter(wanted).into_iter().collect(),
            CatchUp::None => {
                due.into_iter().next_back().filter(|next| now.since_ms(next.due) <= GRACE_MS).into_iter().collect()
            }
        };
        self.counts.missed += seen - taken.len() as u64;
        self.dealt_with = self.dealt_with.max(dealt_with);
        self.next = ticks.after(self.dealt_with).map(|tick| self.spec.next(tick));
        Ok(Some(taken))
    }

    /// Puts ticks where the overlap policy wants them.
    fn place(&mut self, mut ticks: VecDeque<Next>, is_busy: bool) {
        let count = ticks.len() as u64;
        match self.spec.overlap {
            Overlap::Allow => self.starting = ticks.into(),
            Overlap::Skip => {
                if !is_busy {
                    self.starting = ticks.pop_front().into_iter().collect();
                }
                self.counts.skipped += count - self.starting.len() as u64;
            }
            Overlap::Queue => {
                if !is_busy {
                    self.starting = ticks.pop_front().into_iter().collect();
                }
                self.counts.skipped += ticks.len().saturating_sub(WAITING_MAX) as u64;
                ticks.truncate(WAITING_MAX);
                self.waiting = ticks;
            }
            Overlap::Cancel => {
                let last: Option<Next> = ticks.pop_back();
                self.counts.skipped += count.saturating_sub(1);
                if is_busy {
                    self.waiting = last.into_iter().collect();
                } else {
                    self.starting = last.into_iter().collect();
                }
            }
        }
    }

    /// The run of the first tick of [`Schedule::starting`] exists.
    pub fn started(&mut self, at: Timestamp) {
        if self.starting.is_empty() {
            return;
        }
        let next = self.starting.remove(0);
        self.last = Some(Last { run: self.spec.run(next.tick), tick: next.tick, at, late_ms: at.since_ms(next.due) });
        self.counts.started += 1;
        self.problem = None;
    }

    /// The first tick of [`Schedule::starting`] can have no run.
    pub fn refused(&mut self, why: &str) {
        if !self.starting.is_empty() {
            self.starting.remove(0);
            self.counts.refused += 1;
            self.problem = Some(why.into());
        }
    }

    /// Starts nothing from here on. Ticks that wait are dropped.
    pub fn pause(&mut self, now: Timestamp, reason: &str) {
        self.counts.skipped += self.waiting.len() as u64;
        self.waiting.clear();
        self.paused.get_or_insert(Paused { at: now, reason: reason.into() });
    }

    /// Starts nothing from here on, not even what was about to be started: what became of its ticks is not known. True
    /// when that changed anything.
    pub fn hold_back(&mut self, now: Timestamp, reason: &str) -> bool {
        let starts_nothing = self.removed_at.is_some() || self.paused.is_some();
        if starts_nothing && self.starting.is_empty() {
            return false;
        }
        self.counts.missed += self.starting.len() as u64;
        self.starting.clear();
        self.pause(now, reason);
        true
    }

    /// Goes on with the first tick after now: those of the pause are not caught up.
    ///
    /// # Errors
    /// A timing that this build cannot use.
    pub fn resume(&mut self, now: Timestamp) -> Result<(), TimingError> {
        self.paused = None;
        self.dealt_with = self.dealt_with.max(now);
        self.next = self.spec.ticks()?.after(self.dealt_with).map(|tick| self.spec.next(tick));
        Ok(())
    }

    /// Is no more. What was being started is left to be finished.
    pub fn remove(&mut self, now: Timestamp) {
        self.waiting.clear();
        self.next = None;
        self.removed_at.get_or_insert(now);
    }

    /// Whether nothing is left of it but its place.
    #[must_use]
    pub fn is_gone(&self, now: Timestamp) -> bool {
        self.starting.is_empty() && self.removed_at.is_some_and(|at| now >= at.plus_ms(REMOVED_MS))
    }

    /// Takes another spec under the same name, and keeps what happened so far. Ticks that wait are kept.
    ///
    /// # Errors
    /// See [`Schedule::new`].
    pub fn replace(&mut self, spec: Spec, now: Timestamp) -> Result<(), SpecError> {
        let new = Self::new(spec, now)?;
        self.dealt_with = self.dealt_with.max(new.dealt_with);
        self.next = new.spec.ticks()?.after(self.dealt_with).map(|tick| new.spec.next(tick));
        (self.v, self.spec) = (new.v, new.spec);
        self.problem = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
