//! The one loop of a worker: claims runs, gives each its task, wakes them, and knows when there is nothing left to do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use windlass_core::Rejected;
use windlass_core::ids::RunId;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Claim, Keep, Lease, StoreError};

use super::drive::{self, Claimed, Parting};
use super::engine::{Bell, Core, EngineError, Scope};
use super::member::Member;
use super::observe::Tally;
use super::reap::{self, Round};
use super::rest::{Driven, Rest, Resting};
use super::send::patiently;
use super::shutdown::Stop;
use crate::claim::{Claims, Look, Room};
use crate::suspect::{Next, Suspects};

/// Between looks when the store gave no hint although something is held, in milliseconds: not more often than for runs of
/// workers that are gone.
const SAFETY_MS: u64 = 30_000;
/// Shortest pause between two rounds of looking into the inboxes of held runs, in milliseconds.
const SWEEP_MS_MIN: u64 = 5;
/// Held runs for each millisecond of that pause.
const SWEEP_RUNS_PER_MS: u64 = 10;
/// For so many pauses between two looks for runs of workers that are gone, what a claim saw is not doubted.
const SURE_ROUNDS: u64 = 2;
/// By how much a look at runs whose time comes is put off at most, so that workers that wait for the same moment spread
/// out, in milliseconds.
const DUE_JITTER_MS: u64 = 10;
/// The same for the first look of a worker.
const START_JITTER_MS: u64 = 100;
/// How long a worker that stops waits for the answer to a claim that is out. What it would have got goes back when the
/// worker leaves, or when its lease ends.
const CLAIM_PATIENCE: Duration = Duration::from_secs(2);

type Ended = (RunId, Parting, Option<Rejected>);
type Suspect = (Lease, Option<OwnedSemaphorePermit>);
type Claiming = Pin<Box<dyn Future<Output = Taken> + Send>>;
type Reaping = Pin<Box<dyn Future<Output = Result<Round, StoreError>> + Send>>;
type Counting = Pin<Box<dyn Future<Output = Result<Vec<Lease>, StoreError>> + Send>>;

/// The answer to a claim.
struct Taken {
    asked: usize,
    leases: Result<Vec<Lease>, StoreError>,
    permits: Option<OwnedSemaphorePermit>,
}

/// Drives the runs of a scope until it is done.
pub(super) async fn drive(core: Arc<Core>, scope: Scope, stop: Stop) -> Result<Driven, EngineError> {
    let Some(member) = unless_stopped(&stop, patiently(&core, || core.member())).await.transpose()? else {
        return Ok(Driven::Stopped);
    };
    let settings = &core.parts.settings;
    let serving = !scope.ends();
    if serving {
        core.membership.draining.store(false, Ordering::Relaxed);
        let pause = Duration::from_millis(core.parts.clock.seed() % START_JITTER_MS);
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = stop.graceful.cancelled() => {}
            () = stop.immediate.cancelled() => {}
        }
    }
    let worker = Worker {
        bell: core.enlist(),
        claims: Claims::new(settings.claim_slots.max(1), settings.held_max, settings.call_slots),
        suspects: Suspects::default(),
        resting: Resting::new(scope),
        actors: JoinSet::new(),
        stopping: false,
        claim_until: None,
        leaving: Arc::default(),
        claiming: None,
        reaping: None,
        counting: None,
        reap_at: serving.then(|| core.parts.clock.now()),
        alone: false,
        told: false,
        failed: None,
        sweep: None,
        swept_at: Timestamp(0),
        member,
        stop,
        core,
    };
    worker.run().await
}

struct Worker {
    core: Arc<Core>,
    member: Arc<Member>,
    stop: Stop,
    bell: Arc<Bell>,
    claims: Claims,
    /// Runs that took workers down before.
    suspects: Suspects<Suspect>,
    resting: Resting,
    actors: JoinSet<Ended>,
    /// It claims no more and is done when nothing is held.
    stopping: bool,
    /// Until when a worker that stops waits for a claim that is out.
    claim_until: Option<Instant>,
    /// Shared with the tasks of held runs: they let go when they can.
    leaving: Arc<AtomicBool>,
    claiming: Option<Claiming>,
    reaping: Option<Reaping>,
    /// A look at the leases that the store has for this process.
    counting: Option<Counting>,
    /// When to look for runs of workers that are gone. A worker that drives a tree leaves that to others.
    reap_at: Option<Timestamp>,
    /// The last round saw no other worker, so that the next one waits until the store tells of something new.
    alone: bool,
    /// The store told of something new since the round of now began.
    told: bool,
    /// The first run of this scope that cannot be driven.
    failed: Option<EngineError>,
    /// When to look into the inboxes of held runs.
    sweep: Option<Timestamp>,
    swept_at: Timestamp,
}

impl Worker {
    async fn run(mut self) -> Result<Driven, EngineError> {
        let store = Arc::clone(&self.core.parts.store);
        let bell = Arc::clone(&self.bell);
        let stop = self.stop.clone();
        let mut changed = store.changed();
        loop {
            let now = self.core.parts.clock.now();
            if self.core.outdated().is_some() && !self.stopping {
                self.leave();
            }
            self.adopt();
            self.recount();
            self.sweep(now);
            self.reap(now);
            self.confine(now).await?;
            let wake = self.look(now).await?;
            let wake = match self.settle(now).await? {
                Some(Rest::Done(driven)) => return Ok(driven),
                Some(Rest::Until { then, looks }) => earlier(wake, then.map(|then| (then, looks))),
                None => wake,
            };
            let pause = wake.map(|(then, _)| Duration::from_millis(then.since_ms(self.core.parts.clock.now())));
            let lost = self.member.lost.clone();
            tokio::select! {
                biased;
                () = stop.immediate.cancelled() => return Ok(Driven::Stopped),
                () = stop.graceful.cancelled(), if !self.stopping => self.leave(),
                () = lost.cancelled(), if !self.stopping => self.rejoin().await?,
                () = &mut changed => {
                    changed = store.changed();
                    self.changed(now);
                }
                Some(ended) = self.actors.join_next() => self.ended(ended),
                taken = poll(&mut self.claiming) => self.taken(taken)?,
                () = until(self.claim_until), if self.claiming.is_some() => self.claiming = None,
                reaped = poll(&mut self.reaping) => self.reaped(reaped),
                counted = poll(&mut self.counting) => self.counted(counted),
                () = bell.rung.notified() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {
                    if wake.is_some_and(|(_, looks)| looks) {
                        self.changed(now);
                    }
                }
            }
            while let Some(ended) = self.actors.try_join_next() {
                self.ended(ended);
            }
        }
    }

    fn leave(&mut self) {
        self.stopping = true;
        self.claim_until = Some(Instant::now() + CLAIM_PATIENCE);
        self.leaving.store(true, Ordering::Release);
        if !self.resting.scope().ends() {
            self.core.membership.draining.store(true, Ordering::Relaxed);
        }
    }

    /// Goes on under another name: what was held is void, and its tasks end by themselves.
    async fn rejoin(&mut self) -> Result<(), EngineError> {
        (self.claiming, self.counting) = (None, None);
        self.suspects = Suspects::default();
        // What was to be let go for a suspect is gone with it; what is claimed from here on is to be driven.
        self.leaving = Arc::default();
        let joining = unless_stopped(&self.stop, patiently(&self.core, || self.core.member()));
        if let Some(member) = joining.await {
            self.member = member?;
        }
        self.claims.hinted();
        Ok(())
    }

    /// The store, or time, says that there may be something new.
    fn changed(&mut self, now: Timestamp) {
        self.claims.hinted();
        self.told = true;
        if std::mem::take(&mut self.alone) {
            let soon = now.plus_ms(reap::pause_ms(&self.core));
            self.reap_at = self.reap_at.map(|then| then.min(soon));
        }
        let held = self.core.held() as u64;
        if held > 0 {
            let pause = SWEEP_MS_MIN.max(held / SWEEP_RUNS_PER_MS);
            self.sweep.get_or_insert(self.swept_at.plus_ms(pause).max(now));
        }
    }

    /// Lets held runs look into their inboxes, not more often than that pays.
    fn sweep(&mut self, now: Timestamp) {
        if self.sweep.is_some_and(|then| then <= now) {
            self.sweep = None;
            self.swept_at = now;
            self.core.nudge_all();
        }
    }

    /// Goes on with leases of this process that nobody works on.
    fn adopt(&mut self) {
        if self.stopping || self.suspects.are_there() {
            return;
        }
        for lease in self.core.adopt(|run| self.resting.scope().includes(run)) {
            let permit = Arc::clone(&self.core.claim_slots).try_acquire_owned().ok();
            self.begin(lease, permit);
        }
    }

    /// Looks for leases whose claim was answered, and the answer lost.
    fn recount(&mut self) {
        if self.stopping || self.counting.is_some() {
            return;
        }
        let Some(looking) = self.core.missed.begin() else { return };
        let (core, worker) = (Arc::clone(&self.core), self.member.id.clone());
        self.counting = Some(Box::pin(async move {
            let shown = patiently(&core, || core.parts.store.leases(worker.clone())).await?;
            Ok(looking.end(shown, |run| core.knows(run)))
        }));
    }

    fn counted(&mut self, counted: Result<Vec<Lease>, StoreError>) {
        self.counting = None;
        let found = counted.unwrap_or_else(|error| {
            tracing::warn!(%error, "the leases of this worker could not be looked at");
            Vec::new()
        });
        for lease in found {
            tracing::warn!(run_id = %lease.run, "the answer to the claim of this run was lost; it is driven from here on");
            self.core.orphan(lease);
        }
        // Those who held off claim again, and whose scope has what was found drives it.
        self.core.wake(true);
    }

    /// Looks for runs of workers that are gone.
    fn reap(&mut self, now: Timestamp) {
        if self.stopping || self.reaping.is_some() || self.reap_at.is_none_or(|then| then > now) {
            return;
        }
        self.told = false;
        let core = Arc::clone(&self.core);
        self.reaping = Some(Box::pin(async move { reap::round(&core).await }));
    }

    fn reaped(&mut self, reaped: Result<Round, StoreError>) {
        self.reaping = None;
        self.alone = false;
        match reaped {
            Ok(Round { runs, alone }) => {
                self.alone = alone && !self.told;
                if runs > 0 {
                    self.claims.hinted();
                }
            }
            Err(error) => tracing::warn!(%error, "runs of lost workers could not be looked for"),
        }
        let now = self.core.parts.clock.now();
        // Others park runs too, and not every hint arrives. A store that is looked at all the time is not asked once more.
        let lately = self.core.parts.settings.reap_ms.saturating_mul(SURE_ROUNDS);
        self.claims.doubt(Timestamp(now.0.saturating_sub(lately)));
        if self.alone {
            // Rounds are rare then, and a hint that was lost would wait for one.
            self.claims.hinted();
        }
        let pause = if self.alone { reap::alone_ms(&self.core) } else { reap::pause_ms(&self.core) };
        self.reap_at = Some(now.plus_ms(pause));
    }

    /// Drives a run that took workers down while nothing else is held, so that it takes nothing else with it.
    async fn confine(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let others = self.actors.len() + usize::from(self.claiming.is_some());
        if self.stopping {
            return Ok(());
        }
        match self.suspects.next(now, others) {
            Next::Nothing => {}
            Next::Drive((lease, permit)) => {
                tracing::warn!(run_id = %lease.run, strikes = lease.strikes, "driven alone: it took workers down before");
                self.leaving = Arc::default();
                self.start_as(lease, permit, true);
            }
            Next::GiveUp(suspects) => {
                self.leaving = Arc::default();
                let (pause, clock) = (self.core.parts.settings.grace_ms, &self.core.parts.clock);
                let wake_at = Some(now.plus_ms(pause + clock.seed() % pause.max(1)));
                let_go(&self.core, &self.member, suspects, Keep::Park { wake_at }).await?;
                self.claims.parked(wake_at);
            }
        }
        Ok(())
    }

    /// Claims when there is a reason and room. Gives back when to look again, and whether that is a look at everything.
    async fn look(&mut self, now: Timestamp) -> Result<Option<(Timestamp, bool)>, EngineError> {
        let mut wake = self.sweep.map(|then| (then, false));
        if !self.actors.is_empty() {
            let pause = SAFETY_MS.max(self.core.parts.settings.reap_ms);
            wake = earlier(wake, Some((now.plus_ms(pause), true)));
        }
        if let (Some(then), false) = (self.reap_at, self.reaping.is_some() || self.stopping) {
            wake = earlier(wake, Some((then, false)));
        }
        wake = earlier(wake, self.suspects.gives_up_at().map(|then| (then, false)));
        let holds_off = self.counting.is_some() || self.core.missed.holds_off();
        if self.stopping || self.claiming.is_some() || self.suspects.are_there() || holds_off {
            return Ok(wake);
        }
        if self.bell.queued.swap(false, Ordering::AcqRel) {
            self.claims.hinted();
        }
        let mut look = self.claims.look(now, self.room());
        if look == Look::Idle && !self.claims.is_quiet() {
            // A slot that became free since is seen here; one that becomes free later wakes this worker.
            self.core.hungry.store(true, Ordering::Release);
            look = self.claims.look(now, self.room());
        }
        if look == Look::Idle && self.claims.asks() {
            let within = self.resting.scope().within();
            let due = patiently(&self.core, || self.core.parts.store.next_due(within.clone())).await?;
            self.claims.told(due.map(|due| self.put_off(due, now)));
            look = self.claims.look(now, self.room());
        }
        match look {
            Look::Now(room) => {
                self.claims.claiming();
                self.claiming = self.claim(room, now);
            }
            Look::At(then) => wake = earlier(wake, Some((then, false))),
            Look::Idle => {}
        }
        Ok(wake)
    }

    /// A time at which many workers may look, moved a little for each of them.
    fn put_off(&self, due: Timestamp, now: Timestamp) -> Timestamp {
        if due <= now || self.resting.scope().ends() {
            return due;
        }
        self.core.unfit.look_at(due).plus_ms(self.core.parts.clock.seed() % DUE_JITTER_MS)
    }

    fn room(&self) -> Room {
        Room {
            free: self.core.claim_slots.available_permits(),
            held: self.core.held(),
            backlog: self.core.backlog.load(Ordering::Relaxed),
        }
    }

    fn claim(&self, room: usize, now: Timestamp) -> Option<Claiming> {
        let slots = Arc::clone(&self.core.claim_slots);
        let permits = slots.try_acquire_many_owned(u32::try_from(room).unwrap_or(u32::MAX)).ok()?;
        let settings = &self.core.parts.settings;
        let claim = Claim {
            worker: self.member.id.clone(),
            limit: room,
            within: self.resting.scope().within(),
            now,
            pools: settings.pools.clone(),
            tenant_held_max: settings.tenant_held_max.filter(|_| !self.resting.scope().ends()),
            lowest_first: self.claims.lowest_first(),
        };
        let core = Arc::clone(&self.core);
        Some(Box::pin(async move {
            let _asking = core.missed.asking();
            let leases = patiently(&core, || core.parts.store.claim(claim.clone())).await;
            Taken { asked: room, leases, permits: Some(permits) }
        }))
    }

    fn taken(&mut self, taken: Taken) -> Result<(), EngineError> {
        self.claiming = None;
        let Taken { asked, leases, mut permits } = taken;
        let leases = leases?;
        self.claims.claimed(asked, leases.len(), self.core.parts.clock.now());
        if leases.iter().any(Lease::is_suspect) {
            // It comes with nothing else, whatever the queue has.
            self.claims.hinted();
        }
        self.core.count(Tally::Claimed, leases.len() as u64);
        for lease in leases {
            let permit = permits.as_mut().and_then(|permits| permits.split(1));
            self.begin(lease, permit);
        }
        Ok(())
    }

    fn begin(&mut self, lease: Lease, permit: Option<OwnedSemaphorePermit>) {
        if lease.is_suspect() {
            self.suspect(lease, permit);
        } else {
            self.start_as(lease, permit, false);
        }
    }

    /// Keeps a run back until nothing else is held; the others let go when they can.
    fn suspect(&mut self, lease: Lease, permit: Option<OwnedSemaphorePermit>) {
        let patience = self.core.parts.settings.grace_ms;
        self.core.missed.kept(&lease.run);
        self.suspects.push((lease, permit), self.core.parts.clock.now(), patience);
        self.leaving.store(true, Ordering::Release);
        self.core.nudge_all();
    }

    fn start_as(&mut self, lease: Lease, permit: Option<OwnedSemaphorePermit>, alone: bool) {
        self.core.missed.driven(&lease.run);
        match Claimed::new(&self.core, &self.member.id, lease.clone(), &self.stop) {
            Some(mut claimed) => {
                claimed.leaving = Arc::clone(&self.leaving);
                claimed.serving = !self.resting.scope().ends();
                claimed.alone = alone.then(|| self.suspects.progress());
                self.actors.spawn(drive::drive(claimed, permit));
            }
            // The task that held it before has not quite ended. It wakes this worker when it has.
            None => {
                self.core.orphan(lease);
                self.suspects.ended();
            }
        }
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) {
        if self.actors.is_empty() {
            self.suspects.ended();
        }
        match ended {
            Ok((_, Parting::Parked(wake_at), _)) => self.claims.parked(wake_at),
            Ok((_, Parting::Unfit(wake_at), _)) => {
                self.claims.parked(wake_at.map(|at| self.core.unfit.look_at(at)));
            }
            Ok((_, Parting::HandedBack, _)) => self.claims.hinted(),
            Ok((_, Parting::Ended | Parting::Lost, _)) => {}
            Ok((run, Parting::Stranded(error), _)) => {
                self.core.missed.kept(&run);
                tracing::error!(run_id = %run, error = &error as &dyn std::error::Error, "a run was given up");
                self.failed.get_or_insert(error);
            }
            Err(error) => tracing::error!(%error, "the task of a run ended badly"),
        }
    }

    /// What to do when nothing is held and nothing can be claimed.
    async fn settle(&mut self, now: Timestamp) -> Result<Option<Rest>, EngineError> {
        let asks = self.claiming.is_some() || (self.counting.is_some() && !self.stopping);
        if !self.actors.is_empty() || asks || (self.suspects.are_there() && !self.stopping) {
            return Ok(None);
        }
        if self.stopping {
            let suspects = self.suspects.take();
            let_go(&self.core, &self.member, suspects, Keep::HandBack).await?;
            return self.core.outdated().map_or(Ok(Some(Rest::Done(Driven::Stopped))), |error| Err(error.into()));
        }
        if !self.claims.is_quiet() || self.claims.due().is_some_and(|due| due <= now) {
            return Ok(None);
        }
        if let Some(error) = self.failed.take_if(|_| self.resting.scope().ends()) {
            return Err(error);
        }
        self.resting.rest(&self.core, now, self.claims.due()).await.map(Some)
    }
}

/// Lets go of suspects that were not driven.
async fn let_go(core: &Core, member: &Member, suspects: Vec<Suspect>, keep: Keep) -> Result<(), EngineError> {
    for (lease, _) in suspects {
        patiently(core, || core.parts.store.release(lease.clone(), member.id.clone(), keep)).await?;
        core.missed.parted(&lease.run);
    }
    Ok(())
}

/// The earlier of two times to wake, and whether everything is looked at then.
fn earlier(a: Option<(Timestamp, bool)>, b: Option<(Timestamp, bool)>) -> Option<(Timestamp, bool)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a.0 <= b.0 { a } else { b }),
        (one, None) | (None, one) => one,
    }
}

/// None when the worker is told to stop first.
async fn unless_stopped<T>(stop: &Stop, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.immediate.cancelled() => None,
        () = stop.graceful.cancelled() => None,
        done = work => Some(done),
    }
}

/// Resolves at a time; never without one.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

/// The answer of what is on its way; pending when nothing is.
async fn poll<T>(way: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match way {
        Some(way) => way.await,
        None => std::future::pending().await,
    }
}
