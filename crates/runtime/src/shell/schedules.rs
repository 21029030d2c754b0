//! Schedules in the store: adds and changes them, and starts the runs of their ticks.
//!
//! Any number of processes may do this for one store at the same time. A tick is stored as being started before its run
//! is made, by a change that one of them wins; the run's id comes from the tick, so that whoever goes on makes the same
//! run. What a schedule does is decided in [`crate::schedule`].

mod drive;
mod material;

use std::sync::Arc;
use std::time::Duration;

use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::input::Input;
use windlass_core::limits::VALUE_DEPTH_MAX;
use windlass_core::run::Start;
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::{Created, Head, Message, NewRun, Query, StoreError};

use super::engine::{Core, Engine};
use super::objects::{self, Record, TRIES_MAX};
use super::observe::{Span, Tally};
use super::submit::{Prepared, Submission, SubmitError};
use crate::schedule::{CatchUp, KIND, Overlap, ReadError, Schedule, Spec, SpecError, TAG, Timing, Wants};

pub use drive::{LATE_MS, Numbers};
use material::{Asked, Material, Work};

/// The kind of what their runs need.
pub(super) const WORK: &str = "schedule_work";
/// Bytes of a schedule's input and documents, as stored.
const WORK_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Objects that are read at a time.
const PAGE: usize = 500;

/// A schedule that is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name.
    pub name: Name,
    /// What its runs are: the run id is not used, and `not_before` neither.
    pub work: Submission,
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
    /// Up to how much later than its tick a run is started, in milliseconds.
    pub jitter_ms: u64,
    /// The first tick is not before; now when none. Intervals count from here.
    pub start: Option<Timestamp>,
    /// Ticks are before.
    pub end: Option<Timestamp>,
    /// The published version that its runs are of: `NAME@` for the one that the name points at when a run starts, which
    /// `work` is only checked by.
    pub version: Option<Name>,
}

/// Why a schedule cannot be made, found or changed.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It makes no sense.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Its runs could not be submitted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// There is one of this name.
    #[error("schedule `{0}` exists already")]
    Exists(Name),
    /// There is none of this name.
    #[error("there is no schedule `{0}`")]
    NotFound(Name),
    /// What is stored cannot be read.
    #[error("schedule `{name}` cannot be read")]
    Read {
        /// Its name.
        name: Name,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// Documents and input are too large.
    #[error("documents and input have {bytes} bytes, a schedule takes at most {WORK_BYTES_MAX}")]
    TooLarge {
        /// Their bytes.
        bytes: usize,
    },
    /// Its last run is unfinished.
    #[error("run `{run}` of schedule `{name}` is unfinished")]
    Busy {
        /// The schedule.
        name: Name,
        /// The run.
        run: RunId,
    },
    /// A run could not be made for it.
    #[error("schedule `{name}` starts no run: {why}")]
    Refused {
        /// The schedule.
        name: Name,
        /// Why.
        why: String,
    },
    /// Others changed it again and again.
    #[error("schedule `{0}` is being changed by others all the time")]
    Contended(Name),
}

/// The schedules of a store. Clones share their numbers.
#[derive(Clone, Debug)]
pub struct Schedules {
    core: Arc<Core>,
    numbers: Arc<Numbers>,
}

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub struct SchedulePage {
    /// The schedules, by name.
    pub schedules: Vec<Schedule>,
    /// Where the next page starts; none on the last.
    pub next: Option<Name>,
}

impl Schedules {
    /// The schedules of an engine's store.
    #[must_use]
    pub fn new(engine: &Engine) -> Self {
        Self { core: Arc::clone(&engine.core), numbers: Arc::default() }
    }

    /// What was done in this process.
    #[must_use]
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Adds a schedule, or with `replace` gives the one of this name another plan.
    ///
    /// # Errors
    /// A plan that cannot work, a name that is taken, a store that fails.
    pub async fn add(&self, plan: Plan, replace: bool) -> Result<Schedule, ScheduleError> {
        let engine = Engine { core: Arc::clone(&self.core) };
        let now = self.core.parts.clock.now();
        let bundle = plan.work.bundle.clone();
        let asked = Asked {
            ceilings: plan.work.ceilings,
            pool: plan.work.queueing.pool.clone(),
            priority: plan.work.queueing.priority,
        };
        let asked = plan.version.as_ref().is_some_and(|version| version.ends_with('@')).then_some(asked);
        let Prepared { digest, bytes, run } = engine.prepare(Submission { run_id: None, ..plan.work })?;
        let NewRun { start, queueing, .. } = run;
        let start = Start { id: RunId::stored(""), root: RunId::stored(""), ..start };
        let work = Work { bundle, start, asked };
        let stored = serde_json::to_vec(&work).unwrap_or_default();
        if stored.len() > WORK_BYTES_MAX {
            return Err(ScheduleError::TooLarge { bytes: stored.len() });
        }
        let spec = Spec {
            name: plan.name.clone(),
            bundle: digest,
            work: Digest::of(&stored),
            machine: work.start.machine_name.clone(),
            tenant: work.start.scope.tenant.clone(),
            timing: plan.timing,
            zone: plan.zone,
            overlap: plan.overlap,
            catch_up: plan.catch_up,
            window_ms: plan.window_ms,
            jitter_ms: plan.jitter_ms,
            start: plan.start.unwrap_or(now),
            end: plan.end,
            tags: queueing.tags,
            priority: queueing.priority,
            pool: queueing.pool,
            version: plan.version,
        };
        let new = Schedule::new(spec.clone(), now)?;
        engine.stow(digest, bytes).await?;
        self.keep_work(&spec, &work).await?;
        for _ in 0..TRIES_MAX {
            let record = self.read(&plan.name).await?;
            let schedule = match &record.value {
                None => new.clone(),
                Some(old) if old.removed_at.is_some() && old.starting.is_empty() => new.clone(),
                Some(_) if !replace => return Err(ScheduleError::Exists(plan.name)),
                Some(old) => {
                    let mut changed = old.clone();
                    changed.removed_at = None;
                    changed.replace(spec.clone(), now)?;
                    changed
                }
            };
            if record.put(&self.core, &schedule).await? {
                if let Some(old) = record.value.filter(|old| old.spec.work != spec.work) {
                    self.drop_work(&old.spec).await?;
                }
                return Ok(schedule);
            }
        }
        Err(ScheduleError::Contended(plan.name))
    }

    /// A schedule.
    ///
    /// # Errors
    /// There is none of this name, or the store fails.
    pub async fn find(&self, name: &str) -> Result<Schedule, ScheduleError> {
        let found = self.read(&name.into()).await?.value.filter(|schedule| schedule.removed_at.is_none());
        found.ok_or_else(|| ScheduleError::NotFound(name.into()))
    }

    /// Schedules by name, after a name. A schedule that this build cannot read is left out and logged.
    ///
    /// # Errors
    /// The store fails.
    pub async fn list(&self, after: Option<Name>, limit: usize) -> Result<SchedulePage, StoreError> {
        let mut page = SchedulePage { schedules: Vec::new(), next: after };
        loop {
            let wanted = limit.saturating_sub(page.schedules.len()).min(PAGE);
            let objects = self.core.parts.store.objects(KIND.into(), page.next.clone(), wanted).await?;
            let last = objects.len() < wanted;
            for object in objects {
                page.next = Some(object.key.clone());
                match Schedule::decode(&object.bytes) {
                    Ok(schedule) if schedule.removed_at.is_none() => page.schedules.push(schedule),
                    Ok(_) => {}
                    Err(error) => tracing::error!(schedule = &*object.key, %error, "a schedule cannot be read"),
                }
            }
            if last {
                page.next = None;
                return Ok(page);
            }
            if page.schedules.len() >= limit {
                return Ok(page);
            }
        }
    }

    /// Lets a schedule start nothing until it is resumed. One that is paused stays as it is.
    ///
    /// # Errors
    /// There is none of this name, or the store fails.
    pub async fn pause(&self, name: &str, reason: &str) -> Result<Schedule, ScheduleError> {
        self.change(name, |schedule, now| {
            schedule.pause(now, reason);
            Ok(())
        })
        .await
    }

    /// Lets a schedule go on with its next tick.
    ///
    /// # Errors
    /// There is none of this name, or the store fails.
    pub async fn resume(&self, name: &str) -> Result<Schedule, ScheduleError> {
        self.change(name, |schedule, now| schedule.resume(now).map_err(|error| ScheduleError::Spec(error.into()))).await
    }

    /// Removes a schedule. Its runs stay as they are.
    ///
    /// # Errors
    /// There is none of this name, or the store fails.
    pub async fn remove(&self, name: &str) -> Result<Schedule, ScheduleError> {
        self.change(name, |schedule, now| {
            schedule.remove(now);
            Ok(())
        })
        .await
    }

    /// Starts a run now, beside the ticks and whether the schedule is paused or not.
    ///
    /// # Errors
    /// There is none of this name, its last run is unfinished and the policy is not to overlap, or the store fails.
    pub async fn run_now(&self, name: &str) -> Result<RunId, ScheduleError> {
        for _ in 0..TRIES_MAX {
            let record = self.read(&name.into()).await?;
            let Some(mut schedule) = record.value.clone().filter(|schedule| schedule.removed_at.is_none()) else {
                return Err(ScheduleError::NotFound(name.into()));
            };
            if let (Some(last), false) = (&schedule.last, schedule.spec.overlap == Overlap::Allow)
                && self.unfinished(&last.run).await?.is_some()
            {
                return Err(ScheduleError::Busy { name: name.into(), run: last.run.clone() });
            }
            let tick = self.core.parts.clock.now();
            if !schedule.start_now(tick) {
                // Another process is just making the run of a tick.
                self.turn(&name.into()).await?;
                continue;
            }
            if !record.put(&self.core, &schedule).await? {
                continue;
            }
            let run = schedule.spec.run(tick);
            self.turn(&name.into()).await?;
            return match self.head(&run).await? {
                Some(_) => Ok(run),
                None => {
                    let why = self.find(name).await?.problem;
                    let why = why.map_or_else(|| "the queue is full, it is tried again".into(), |why| why.to_string());
                    Err(ScheduleError::Refused { name: name.into(), why })
                }
            };
        }
        Err(ScheduleError::Contended(name.into()))
    }

    async fn change(
        &self,
        name: &str,
        change: impl Fn(&mut Schedule, Timestamp) -> Result<(), ScheduleError>,
    ) -> Result<Schedule, ScheduleError> {
        for _ in 0..TRIES_MAX {
            let record = self.read(&name.into()).await?;
            let Some(mut schedule) = record.value.clone().filter(|schedule| schedule.removed_at.is_none()) else {
                return Err(ScheduleError::NotFound(name.into()));
            };
            change(&mut schedule, self.core.parts.clock.now())?;
            if record.put(&self.core, &schedule).await? {
                return Ok(schedule);
            }
        }
        Err(ScheduleError::Contended(name.into()))
    }

    /// Does for one schedule what is due. Gives back when to look again.
    ///
    /// # Errors
    /// The store fails, or the schedule cannot be read by this build.
    async fn turn(&self, name: &Name) -> Result<Option<Timestamp>, ScheduleError> {
        for _ in 0..TRIES_MAX {
            let record = self.read(name).await?;
            let Some(mut schedule) = record.value.clone() else { return Ok(None) };
            let now = self.core.parts.clock.now();
            if schedule.is_gone(now) {
                if record.remove(&self.core).await? {
                    self.drop_work(&schedule.spec).await?;
                }
                return Ok(None);
            }
            let is_busy = match schedule.depends_on(now) {
                Some(run) => self.unfinished(&run).await?.is_some(),
                None => false,
            };
            match schedule.advance(now, is_busy).map_err(SpecError::from)? {
                Wants::Nothing(then) => return Ok(then),
                Wants::Cancelled(run, then) => {
                    self.cancel(&schedule, &run).await?;
                    return Ok(Some(then));
                }
                Wants::Stored => {
                    record.put(&self.core, &schedule).await?;
                }
                Wants::Runs => {
                    if !self.start(&record, &mut schedule).await? {
                        return Ok(Some(now.plus_ms(drive::RETRY_MS)));
                    }
                }
            }
        }
        Err(ScheduleError::Contended(name.clone()))
    }

    /// Makes the runs that are to be made, and notes that they are. False when the queue is full.
    async fn start(&self, record: &Record<Schedule>, schedule: &mut Schedule) -> Result<bool, ScheduleError> {
        let spec = schedule.spec.clone();
        let material = self.material(&spec).await?;
        let mut done = Vec::new();
        let mut is_full = false;
        while let (Some(next), true) = (schedule.starting.first().copied(), record.is_fresh(&self.core)) {
            let material = match &material {
                Ok(material) => material,
                Err(why) => {
                    schedule.refused(why);
                    continue;
                }
            };
            let at = self.core.parts.clock.now();
            let run = run_of(&spec, material, next.tick, at);
            let id = run.start.id.clone();
            self.core.parts.store.put_bundle(material.digest, material.bytes.clone()).await?;
            match self.core.parts.store.create(run).await? {
                Created::New => {
                    schedule.started(at);
                    done.push((id, at.since_ms(next.due)));
                }
                Created::Exists(head) if head.tags.get(TAG).is_some_and(|tag| *tag == spec.name) => {
                    schedule.started(head.created_at.max(next.due));
                }
                Created::Exists(_) => schedule.refused(&format!("another run has the id `{id}`")),
                Created::Full => {
                    is_full = true;
                    break;
                }
            }
        }
        for (run, late_ms) in done {
            self.numbers.started(late_ms);
            self.core.count(Tally::Scheduled, 1);
            if let Some(meter) = &self.core.parts.settings.meter {
                meter.took(Span::Late, Duration::from_millis(late_ms));
            }
            tracing::info!(schedule = &*spec.name, run_id = %run, late_ms, "a schedule started a run");
        }
        record.put(&self.core, schedule).await?;
        Ok(!is_full)
    }

    /// Asks a run to stop, for the tick that waits for it. The same question again is dropped.
    async fn cancel(&self, schedule: &Schedule, run: &RunId) -> Result<(), StoreError> {
        let Some(next) = schedule.waiting.front() else { return Ok(()) };
        let id = format!("schedule:{}:{}", schedule.spec.name, next.tick.0).as_str().into();
        let reason = format!("schedule `{}` starts its next run", schedule.spec.name).as_str().into();
        self.core.parts.store.deliver(Message { to: run.clone(), id, input: Input::Cancel { reason } }).await?;
        Ok(())
    }

    /// The run, when it has not ended.
    async fn unfinished(&self, run: &RunId) -> Result<Option<Head>, StoreError> {
        Ok(self.head(run).await?.filter(|head| !head.status.is_final()))
    }

    async fn head(&self, run: &RunId) -> Result<Option<Head>, StoreError> {
        self.core.head(run).await
    }

    async fn read(&self, name: &Name) -> Result<Record<Schedule>, ScheduleError> {
        let record = objects::bytes(&self.core, KIND, name).await?;
        record
            .try_map(|bytes| Schedule::decode(bytes))
            .map_err(|source| ScheduleError::Read { name: name.clone(), source })
    }

    async fn keep_work(&self, spec: &Spec, work: &Work) -> Result<(), ScheduleError> {
        for _ in 0..TRIES_MAX {
            let record: Record<Work> = objects::read(&self.core, WORK, &work_key(spec)).await?;
            if record.value.is_some() || record.put(&self.core, work).await? {
                return Ok(());
            }
        }
        Err(ScheduleError::Contended(spec.name.clone()))
    }

    async fn drop_work(&self, spec: &Spec) -> Result<(), StoreError> {
        let record: Record<Work> = objects::read(&self.core, WORK, &work_key(spec)).await?;
        record.remove(&self.core).await?;
        Ok(())
    }
}

impl Core {
    /// A caller's run at a glance.
    pub(super) async fn head(&self, run: &RunId) -> Result<Option<Head>, StoreError> {
        let query = Query { root: Some(run.clone()), roots_only: true, limit: 1, ..Query::default() };
        Ok(self.parts.store.list(query).await?.heads.into_iter().find(|head| head.id == *run))
    }
}

/// The content makes the key: what a schedule's runs are made from never changes under it.
pub(super) fn work_key(spec: &Spec) -> Name {
    format!("{}@{}", spec.name, spec.work).as_str().into()
}

/// The run of a tick. Its input says which tick it is for, unless it has something of that name.
fn run_of(spec: &Spec, material: &Material, tick: Timestamp, at: Timestamp) -> NewRun {
    let id = spec.run(tick);
    let mut queueing = material.queueing.clone();
    queueing.tags.insert(TAG.into(), spec.name.clone());
    let mut start = material.start.clone();
    if let Value::Map(input) = &start.input
        && !input.contains_key("schedule")
        && start.input.depth() < VALUE_DEPTH_MAX - 1
    {
        let mut input = (**input).clone();
        let of = Value::object([
            ("name", Value::str(spec.name.clone())),
            ("tick", Value::str(crate::schedule::in_zone(tick, &spec.zone).as_str())),
            ("zone", Value::str(spec.zone.clone())),
        ]);
        input.insert("schedule".into(), of);
        start.input = Value::map(input);
    }
    start.caller.by = Some(format!("schedule {}", spec.name).into());
    NewRun { start: Start { root: id.clone(), id, ..start }, at, queueing }
}
