//! Sends notices to people: of what this process commits at once, and of everything that is stored now and then, so that
//! what a process left undone when it died is done by another.
//!
//! A record of the store for each notice and channel keeps two processes from sending the same one, and says when it is
//! tried again. A run never waits for any of this.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use windlass_core::ids::{Name, RunId};
use windlass_core::journal::Entry;
use windlass_core::run::{Run, Status};
use windlass_core::time::Timestamp;
use windlass_ports::notify::{Channel, Notice, NoticeKind};
use windlass_ports::store::{Head, Put, Query, StoreError};

use super::alarm;
use super::drive;
use super::engine::{Core, Engine};
use super::objects;
use super::observe::{Meter, Span, Tally};
use super::shutdown::Stop;
use crate::notice::{self, Delivery, Standing};

/// The kind of the records of notices.
pub const NOTICES: &str = "notice";
/// The kind and key of the record of the last look at everything.
const SWEEP: (&str, &str) = ("notifier", "sweep");
/// Runs and records that are read at a time.
const PAGE: usize = 200;
/// Pause between two looks at everything that is stored, in milliseconds, unless one takes long.
const SWEEP_MS: u64 = 60_000;
/// How many times as long as a look takes the pause after it is.
const SWEEP_SHARE: u64 = 20;
/// Failures this much older than the last look are not looked at again, in milliseconds.
const MARGIN_MS: u64 = 10 * 60_000;
/// How long the record of a notice is kept after its cause is gone, in milliseconds. More than [`MARGIN_MS`].
const KEPT_MS: u64 = 60 * 60_000;
/// How long a notice that was derived from what is stored is sent without another look at that, in milliseconds.
const FRESH_MS: u64 = 1_000;
/// Pause after the store failed, in milliseconds.
const RETRY_MS: u64 = 1_000;
/// Notices that are sent at the same time over one channel.
const AT_ONCE: usize = 8;
/// Runs whose notices this process has yet to look at; with more it looks at everything.
const NEWS_MAX: usize = 10_000;

/// Sends notices through channels. As a meter it hears of what this process commits.
#[derive(Debug)]
pub struct Notifier {
    lanes: Vec<Lane>,
    news: Mutex<BTreeSet<RunId>>,
    sweep: AtomicBool,
    rung: Notify,
}

/// When everything was looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Swept {
    /// Failures of before are not told.
    since: Timestamp,
    /// When the last look began.
    at: Timestamp,
}

/// What one channel has to send. A channel that hangs keeps no other waiting.
#[derive(Debug)]
struct Lane {
    channel: Arc<dyn Channel>,
    /// By the keys of their records.
    wanted: Mutex<BTreeMap<Name, Wanted>>,
    rung: Notify,
}

/// A notice to be sent.
#[derive(Clone, Debug)]
struct Wanted {
    /// Not before this.
    at: Timestamp,
    /// None when its record is there already.
    notice: Option<Derived>,
}

/// A notice, and when what is stored gave cause to it.
#[derive(Clone, Debug)]
struct Derived {
    notice: Notice,
    at: Timestamp,
}

impl Lane {
    fn new(channel: Arc<dyn Channel>) -> Self {
        Self { channel, wanted: Mutex::default(), rung: Notify::new() }
    }

    fn wanted(&self) -> MutexGuard<'_, BTreeMap<Name, Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, key: Name, wanted: Wanted) {
        self.wanted().entry(key).or_insert(wanted);
        self.rung.notify_one();
    }

    /// Takes what is to be sent now.
    fn due(&self, now: Timestamp) -> Option<(Name, Option<Derived>)> {
        let mut wanted = self.wanted();
        let due = wanted.iter().filter(|(_, one)| one.at <= now).min_by_key(|(_, one)| one.at);
        let key = due.map(|(key, _)| key.clone())?;
        wanted.remove(&key).map(|one| (key, one.notice))
    }

    /// Waits until there is something to send, or word of it.
    async fn wait(&self, now: Timestamp) {
        let next = self.wanted().values().map(|one| one.at).min();
        let due = async {
            match next {
                Some(at) => tokio::time::sleep(Duration::from_millis(at.since_ms(now))).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = self.rung.notified() => {}
        }
    }
}

/// What one process has looked at, and when it looks again.
#[derive(Debug, Default)]
struct Agenda {
    sweep_at: Timestamp,
    /// What was derived from which state of a run, so that it is not read again.
    derived: BTreeMap<RunId, (Seen, Vec<Name>)>,
}

/// What a run's notices depend on.
type Seen = (u64, Status, u32);

impl Meter for Notifier {
    fn count(&self, what: Tally, _: u64) {
        if what == Tally::Quarantined {
            self.sweep.store(true, Ordering::Relaxed);
            self.rung.notify_one();
        }
    }

    fn took(&self, _: Span, _: Duration) {}

    fn decided(&self, run: &Run, entries: &[Entry]) {
        if notice::concerns(entries) {
            let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
            if news.len() < NEWS_MAX {
                news.insert(run.id().clone());
            } else {
                self.sweep.store(true, Ordering::Relaxed);
            }
            self.rung.notify_one();
        }
    }
}

impl Notifier {
    /// One for these channels.
    #[must_use]
    pub fn new(channels: Vec<Arc<dyn Channel>>) -> Self {
        let lanes = channels.into_iter().map(Lane::new).collect();
        Self { lanes, news: Mutex::default(), sweep: AtomicBool::new(false), rung: Notify::new() }
    }

    /// Sends what there is to send until `stop` says so; what is being sent then is ended first. Safe to be done by any
    /// number of processes at once. A store that fails is tried again for as long as it takes.
    pub async fn drive(&self, engine: &Engine, stop: &Stop) {
        let core = &engine.core;
        let lanes = join_all(self.lanes.iter().map(|lane| self.deliver(core, lane, stop, false)));
        tokio::join!(self.watch(core, stop), lanes);
    }

    /// Does everything that is due now, once.
    pub async fn settle(&self, engine: &Engine) {
        let (core, stop) = (&engine.core, Stop::new());
        self.look(core, &mut Agenda::default(), true).await;
        join_all(self.lanes.iter().map(|lane| self.deliver(core, lane, &stop, true))).await;
    }

    /// Looks for what there is to send, again and again.
    async fn watch(&self, core: &Arc<Core>, stop: &Stop) {
        let mut agenda = Agenda::default();
        let mut is_first = true;
        while !stop.is_stopping() {
            tokio::select! {
                biased;
                () = stop.graceful.cancelled() => return,
                () = stop.immediate.cancelled() => return,
                () = self.look(core, &mut agenda, is_first) => {}
            }
            is_first = false;
            let pause = agenda.sweep_at.since_ms(core.parts.clock.now());
            tokio::select! {
                biased;
                () = stop.graceful.cancelled() => return,
                () = stop.immediate.cancelled() => return,
                () = self.rung.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            }
        }
    }

    /// Sends what there is for one channel: until `stop` says so, or `once` what is due now.
    async fn deliver(&self, core: &Arc<Core>, lane: &Lane, stop: &Stop, once: bool) {
        let mut out = FuturesUnordered::new();
        loop {
            let (now, stopping) = (core.parts.clock.now(), stop.is_stopping());
            while !stopping
                && out.len() < AT_ONCE
                && let Some((key, notice)) = lane.due(now)
            {
                out.push(async move {
                    let then = self.attempt(core, lane, &key, notice.clone()).await;
                    (key, notice, then)
                });
            }
            if out.is_empty() && (once || stopping) {
                return;
            }
            let has_room = !stopping && out.len() < AT_ONCE;
            tokio::select! {
                biased;
                () = stop.immediate.cancelled() => return,
                () = stop.graceful.cancelled(), if !stopping => {}
                Some((key, notice, then)) = out.next(), if !out.is_empty() => match then {
                    Ok(Some(at)) => lane.want(key, Wanted { at, notice: None }),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(notice = &*key, %error, "a notice could not be recorded");
                        lane.want(key, Wanted { at: core.parts.clock.now().plus_ms(RETRY_MS), notice });
                    }
                },
                () = lane.wait(now), if has_room => {}
            }
        }
    }

    async fn look(&self, core: &Arc<Core>, agenda: &mut Agenda, is_first: bool) {
        let news = std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
        for run in news {
            match self.of_run(core, &run).await {
                Ok(notices) => self.want_all(core, notices),
                Err(error) => {
                    tracing::warn!(run_id = %run, error, "the notices of a run could not be derived");
                    agenda.sweep_at = agenda.sweep_at.min(core.parts.clock.now().plus_ms(RETRY_MS));
                }
            }
        }
        let now = core.parts.clock.now();
        let asked = self.sweep.swap(false, Ordering::Relaxed);
        if asked || is_first || now >= agenda.sweep_at {
            agenda.sweep_at = match self.sweep(core, agenda, asked || is_first).await {
                Ok(()) => {
                    let ended = core.parts.clock.now();
                    ended.plus_ms(SWEEP_MS.max(ended.since_ms(now).saturating_mul(SWEEP_SHARE)))
                }
                Err(error) => {
                    tracing::warn!(%error, "runs could not be looked through for notices");
                    core.parts.clock.now().plus_ms(RETRY_MS)
                }
            };
        }
    }

    fn lane(&self, name: &str) -> Option<&Lane> {
        self.lanes.iter().find(|lane| &**lane.channel.name() == name)
    }

    /// The notices of a run as it is stored.
    async fn of_run(&self, core: &Arc<Core>, run: &RunId) -> Result<Vec<Notice>, String> {
        let stored = core.parts.store.load(run.clone()).await.map_err(|error| error.to_string())?;
        let Some(stored) = stored else { return Ok(Vec::new()) };
        let head = stored.head.clone();
        let run = drive::look(core, stored).await.map_err(|error| error.to_string())?;
        Ok(notice::of(&head, &run))
    }

    /// Puts notices into the lanes of all channels that want them.
    fn want_all(&self, core: &Arc<Core>, notices: Vec<Notice>) {
        let at = core.parts.clock.now();
        for notice in notices {
            for lane in self.lanes.iter().filter(|lane| lane.channel.wants(&notice)) {
                let key = Delivery::key(lane.channel.name(), &notice.id);
                lane.want(key, Wanted { at, notice: Some(Derived { notice: notice.clone(), at }) });
            }
        }
    }

    /// Claims a notice, sends it, and records what became of it. Gives back when to look at it again, if at all.
    async fn attempt(
        &self,
        core: &Arc<Core>,
        lane: &Lane,
        key: &Name,
        derived: Option<Derived>,
    ) -> Result<Option<Timestamp>, StoreError> {
        let channel = &lane.channel;
        let now = core.parts.clock.now();
        let by = core.parts.clock.seed() | 1;
        let record = objects::read::<Delivery>(core, NOTICES, key).await?;
        let claimed = match (&record.value, &derived) {
            (None, None) => return Ok(None),
            (None, Some(derived)) => Delivery::first(channel.name(), &derived.notice, now, by),
            (Some(delivery), _) => match delivery.clone().again(now, by) {
                Ok(Some(claimed)) => claimed,
                Ok(None) => return Ok(None),
                Err(until) => return Ok(Some(until)),
            },
        };
        if !record.put(core, &claimed).await? {
            // Somebody else was faster: its claim says when to look again.
            return Ok(Some(now.plus_ms(RETRY_MS)));
        }
        let is_fresh = derived.is_some_and(|derived| now.since_ms(derived.at) < FRESH_MS);
        let then = if !is_fresh && self.is_over(core, &claimed.notice).await {
            Delivery { standing: Standing::Dropped { at: now, why: "it was answered".into() }, ..claimed }
        } else {
            match channel.send(&claimed.notice, now).await {
                Ok(()) => Delivery { standing: Standing::Sent { at: core.parts.clock.now() }, ..claimed },
                Err(failure) => {
                    let error = failure.message.to_string();
                    tracing::warn!(
                        channel = &**channel.name(),
                        notice = &*claimed.notice.id,
                        error,
                        "a notice was not taken"
                    );
                    claimed.refused(core.parts.clock.now(), &error, failure.retry)
                }
            }
        };
        let record = objects::read::<Delivery>(core, NOTICES, key).await?;
        if record.value.as_ref().is_some_and(|delivery| delivery.is_claimed_by(by)) {
            record.put(core, &then).await?;
        }
        match then.standing {
            Standing::Pending { until, .. } => Ok(Some(until)),
            Standing::Sent { .. } => Ok(None),
            Standing::Dropped { why, .. } => {
                tracing::info!(
                    channel = &**channel.name(),
                    notice = &*then.notice.id,
                    why,
                    "a notice is no longer sent"
                );
                Ok(None)
            }
        }
    }

    /// Whether a question that waited to be sent has been answered since.
    async fn is_over(&self, core: &Arc<Core>, notice: &Notice) -> bool {
        notice.is_question() && !self.has_cause(core, notice).await
    }

    /// Whether what is stored still gives cause to a notice. What cannot be read may. A failure stays one and is told once.
    async fn has_cause(&self, core: &Arc<Core>, notice: &Notice) -> bool {
        if notice.kind == NoticeKind::Failed {
            return false;
        }
        if notice.kind == NoticeKind::Policy {
            return alarm::stands(&*core.parts.store, notice).await;
        }
        match self.of_run(core, &notice.run_id).await {
            Ok(notices) => notices.iter().any(|other| other.id == notice.id),
            Err(_) => true,
        }
    }

    /// Looks at every run that may give cause to a notice, and at every record.
    async fn sweep(&self, core: &Arc<Core>, agenda: &mut Agenda, at_any_rate: bool) -> Result<(), StoreError> {
        let now = core.parts.clock.now();
        let key: Name = SWEEP.1.into();
        let record = objects::read::<Swept>(core, SWEEP.0, &key).await?;
        let swept = record.value.clone();
        // A failure that was stored right before the first look is told too.
        let since = swept.as_ref().map_or(Timestamp(now.0.saturating_sub(10_000)), |swept| swept.since);
        if !at_any_rate && swept.is_some_and(|swept| now.since_ms(swept.at) < SWEEP_MS / 2) {
            return Ok(());
        }
        // What changes while this looks is looked at again by the next.
        let begun = Swept { since, at: now };
        let mine = record.put(core, &begun).await?;
        let mut derived = self.troubled(core, agenda, since).await?;
        derived.extend(self.alarmed(core).await?);
        self.records(core, &derived).await?;
        if mine {
            let since = since.max(Timestamp(now.0.saturating_sub(MARGIN_MS)));
            let record = objects::read::<Swept>(core, SWEEP.0, &key).await?;
            if record.value.as_ref().is_some_and(|last| last.at == now) {
                record.put(core, &Swept { since, at: now }).await?;
            }
        }
        Ok(())
    }

    /// Puts what stored runs give cause to into the lanes. Gives back the ids of all of it.
    async fn troubled(
        &self,
        core: &Arc<Core>,
        agenda: &mut Agenda,
        since: Timestamp,
    ) -> Result<BTreeSet<Name>, StoreError> {
        let mut known = std::mem::take(&mut agenda.derived);
        let mut ids = BTreeSet::new();
        let mut cursor = None;
        loop {
            let query = Query { statuses: notice::TROUBLED.to_vec(), limit: PAGE, cursor, ..Query::default() };
            let page = core.parts.store.list(query).await?;
            for head in page.heads {
                let seen = (head.version, head.status, head.helped);
                if !may_tell(&head, since) {
                    continue;
                }
                if let Some((_, found)) = known.remove(&head.id).filter(|(before, _)| *before == seen) {
                    ids.extend(found.iter().cloned());
                    agenda.derived.insert(head.id, (seen, found));
                    continue;
                }
                match self.of_run(core, &head.id).await {
                    Ok(notices) => {
                        let found: Vec<Name> = notices.iter().map(|notice| notice.id.clone()).collect();
                        ids.extend(found.iter().cloned());
                        self.want_all(core, notices);
                        agenda.derived.insert(head.id, (seen, found));
                    }
                    Err(error) => tracing::warn!(run_id = %head.id, error, "the notices of a run could not be derived"),
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(ids);
            }
        }
    }

    /// Puts what no one run is the cause of into the lanes. Gives back the ids of all of it.
    async fn alarmed(&self, core: &Arc<Core>) -> Result<Vec<Name>, StoreError> {
        let alarms = alarm::all(&*core.parts.store, core.parts.clock.now()).await?;
        let ids = alarms.iter().map(|notice| notice.id.clone()).collect();
        self.want_all(core, alarms);
        Ok(ids)
    }

    /// Takes up what others left, and removes records whose cause is gone.
    async fn records(&self, core: &Arc<Core>, derived: &BTreeSet<Name>) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let objects = core.parts.store.objects(NOTICES.into(), after, PAGE).await?;
            let is_last = objects.len() < PAGE;
            after = objects.last().map(|object| object.key.clone());
            for object in objects {
                let now = core.parts.clock.now();
                let delivery = match objects::decode::<Delivery>(NOTICES, &object.key, &object.bytes) {
                    Ok(delivery) => delivery,
                    Err(error) => {
                        tracing::error!(notice = &*object.key, %error, "the record of a notice cannot be read");
                        continue;
                    }
                };
                match &delivery.standing {
                    Standing::Pending { until, .. } => match self.lane(&delivery.channel) {
                        Some(lane) => lane.want(object.key, Wanted { at: *until, notice: None }),
                        // Another process may still have the channel, so only what nobody needs any more is dropped.
                        None if delivery.is_old(now) || !self.has_cause(core, &delivery.notice).await => {
                            let why = "there is no such channel any more".into();
                            let dropped = Delivery { standing: Standing::Dropped { at: now, why }, ..delivery };
                            objects::read::<Delivery>(core, NOTICES, &object.key).await?.put(core, &dropped).await?;
                        }
                        None => {}
                    },
                    Standing::Sent { at } | Standing::Dropped { at, .. } => {
                        if now.since_ms(*at) > KEPT_MS
                            && !derived.contains(&delivery.notice.id)
                            && !self.has_cause(core, &delivery.notice).await
                        {
                            let (kind, key) = (NOTICES.into(), object.key);
                            let put = Put { kind, key, expected: object.revision, bytes: None };
                            core.parts.store.put_object(put).await?;
                        }
                    }
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// Whether a run may give cause to a notice that was not sent long ago.
fn may_tell(head: &Head, since: Timestamp) -> bool {
    head.status != Status::Failed || head.updated_at >= since
}
