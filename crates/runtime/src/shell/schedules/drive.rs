//! The loop that starts the runs of ticks: what is due, when to look again, and how late it was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_ports::store::StoreError;

use super::{PAGE, ScheduleError, Schedules};
use crate::schedule::{KIND, Schedule};
use crate::shell::engine::Engine;
use crate::shell::keys::Sweep;
use crate::shell::observe::Tally;
use crate::shell::shutdown::Stop;

/// How often everything is read again, so that what others added or changed is seen, in milliseconds.
const REFRESH_MS: u64 = 5_000;
/// Schedules for each millisecond more between two of these.
const SCHEDULES_PER_MS: u64 = 1;
/// How often submissions that wait for their last word are looked for, in milliseconds.
const DEBOUNCED_MS: u64 = 1_000;
/// Pause after something failed, or while a queue is full, in milliseconds.
pub(super) const RETRY_MS: u64 = 1_000;
/// Schedules that are dealt with at the same time.
const AT_ONCE: usize = 16;

/// Upper bounds of the classes in which lateness is counted, in milliseconds; the last class has none.
pub const LATE_MS: [u64; 10] = [10, 50, 100, 250, 500, 1_000, 5_000, 30_000, 60_000, 600_000];

/// What the schedules of this process did.
#[derive(Debug, Default)]
pub struct Numbers {
    started: AtomicU64,
    failed: AtomicU64,
    known: AtomicU64,
    late_ms: AtomicU64,
    late: [AtomicU64; LATE_MS.len() + 1],
}

impl Numbers {
    pub(super) fn started(&self, late_ms: u64) {
        let class = LATE_MS.iter().position(|bound| late_ms <= *bound).unwrap_or(LATE_MS.len());
        self.started.fetch_add(1, Ordering::Relaxed);
        self.late_ms.fetch_add(late_ms, Ordering::Relaxed);
        self.late[class].fetch_add(1, Ordering::Relaxed);
    }

    /// Runs that were started.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Times that a schedule could not be dealt with.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Schedules that have something to do at some time, as last seen.
    #[must_use]
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// How late runs were started: the sum in milliseconds, and how many lie in each class of [`LATE_MS`] and beyond.
    #[must_use]
    pub fn lateness(&self) -> (u64, [u64; LATE_MS.len() + 1]) {
        let mut counts = [0; LATE_MS.len() + 1];
        for (count, class) in counts.iter_mut().zip(&self.late) {
            *count = class.load(Ordering::Relaxed);
        }
        (self.late_ms.load(Ordering::Relaxed), counts)
    }
}

/// When the loop looks at what.
struct Agenda {
    /// Schedules that have something to do, and when.
    schedules: BTreeMap<Name, Timestamp>,
    /// Keys whose submission waits for its last word, and until when.
    debounced: BTreeMap<Name, Timestamp>,
    refresh_at: Timestamp,
    debounced_at: Timestamp,
    sweep: Sweep,
}

impl Agenda {
    fn next(&self) -> Timestamp {
        let due = self.schedules.values().chain(self.debounced.values()).copied();
        due.chain([self.refresh_at, self.debounced_at]).min().unwrap_or(self.refresh_at)
    }
}

impl Schedules {
    /// Starts the runs of ticks, and those of debounced submissions, until `stop` says so. Safe to be done by any
    /// number of processes at once. A store that fails is tried again for as long as it takes.
    pub async fn drive(&self, stop: Stop) {
        let mut agenda = Agenda {
            schedules: BTreeMap::new(),
            debounced: BTreeMap::new(),
            refresh_at: Timestamp(0),
            debounced_at: Timestamp(0),
            sweep: Sweep::default(),
        };
        while !stop.is_stopping() {
            self.look(&mut agenda).await;
            let pause = agenda.next().since_ms(self.core.parts.clock.now());
            tokio::select! {
                biased;
                () = stop.graceful.cancelled() => {}
                () = stop.immediate.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            }
        }
    }

    /// Does everything that is due now, once. What [`Schedules::drive`] does again and again.
    pub async fn settle(&self) {
        let mut agenda = Agenda {
            schedules: BTreeMap::new(),
            debounced: BTreeMap::new(),
            refresh_at: Timestamp(0),
            debounced_at: Timestamp(0),
            sweep: Sweep::default(),
        };
        self.look(&mut agenda).await;
    }

    async fn look(&self, agenda: &mut Agenda) {
        self.refresh(agenda).await;
        let now = self.core.parts.clock.now();
        let due: Vec<Name> =
            agenda.schedules.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        let mut turns = futures::stream::iter(due)
            .map(|name| async move {
                let then = self.turn(&name).await;
                (name, then)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((name, then)) = turns.next().await {
            match then {
                Ok(Some(then)) => {
                    agenda.schedules.insert(name, then);
                }
                Ok(None) => {
                    agenda.schedules.remove(&name);
                }
                Err(error) => {
                    self.failed(&name, &error);
                    let pause = if matches!(error, ScheduleError::Store(_)) { RETRY_MS } else { REFRESH_MS };
                    agenda.schedules.insert(name, self.core.parts.clock.now().plus_ms(pause));
                }
            }
        }
        drop(turns);
        self.begin_debounced(agenda).await;
    }

    fn failed(&self, name: &Name, error: &ScheduleError) {
        self.numbers.failed.fetch_add(1, Ordering::Relaxed);
        self.core.count(Tally::ScheduleFailed, 1);
        tracing::warn!(schedule = &**name, error = error as &dyn std::error::Error, "a schedule was not dealt with");
    }

    /// Reads again what others may have changed.
    async fn refresh(&self, agenda: &mut Agenda) {
        let now = self.core.parts.clock.now();
        let engine = Engine { core: self.core.clone() };
        if now >= agenda.refresh_at {
            agenda.refresh_at = match self.scan().await {
                Ok(found) => {
                    self.numbers.known.store(found.len() as u64, Ordering::Relaxed);
                    agenda.schedules = found;
                    now.plus_ms(REFRESH_MS + agenda.schedules.len() as u64 / SCHEDULES_PER_MS)
                }
                Err(error) => {
                    tracing::warn!(%error, "schedules cannot be read");
                    now.plus_ms(RETRY_MS)
                }
            };
            if let Err(error) = engine.sweep_keys(&mut agenda.sweep).await {
                tracing::warn!(%error, "run keys cannot be read");
            }
        }
        if now >= agenda.debounced_at {
            match engine.debounced().await {
                Ok(found) => agenda.debounced = found,
                Err(error) => tracing::warn!(%error, "debounced submissions cannot be read"),
            }
            agenda.debounced_at = now.plus_ms(DEBOUNCED_MS);
        }
    }

    /// Schedules that have something to do at some time.
    async fn scan(&self) -> Result<BTreeMap<Name, Timestamp>, StoreError> {
        let mut found = BTreeMap::new();
        let mut after = None;
        loop {
            let objects = self.core.parts.store.objects(KIND.into(), after.clone(), PAGE).await?;
            let is_last = objects.len() < PAGE;
            for object in objects {
                after = Some(object.key.clone());
                match Schedule::decode(&object.bytes) {
                    Ok(schedule) => found.extend(schedule.wakes_at().map(|at| (object.key, at))),
                    Err(error) => tracing::error!(schedule = &*object.key, %error, "a schedule cannot be read"),
                }
            }
            if is_last {
                return Ok(found);
            }
        }
    }

    /// Begins the runs of debounced submissions whose time has come.
    async fn begin_debounced(&self, agenda: &mut Agenda) {
        let now = self.core.parts.clock.now();
        let due: Vec<Name> =
            agenda.debounced.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        let engine = Engine { core: self.core.clone() };
        let engine = &engine;
        let mut begun = futures::stream::iter(due)
            .map(|key| async move {
                let then = engine.begin_debounced(&key).await;
                (key, then)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((key, then)) = begun.next().await {
            match then {
                Ok(None) => {
                    agenda.debounced.remove(&key);
                }
                Ok(Some(then)) => {
                    agenda.debounced.insert(key, then);
                }
                Err(error) => {
                    tracing::warn!(key = &*key, %error, "a debounced run was not begun");
                    agenda.debounced.insert(key, now.plus_ms(RETRY_MS));
                }
            }
        }
    }
}
