//! The one loop of a worker: claims runs, gives each its task, wakes them, and knows when there is nothing left to do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinSet};
use windlass_core::Rejected;
use windlass_core::ids::RunId;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Claim, Lease, StoreError, WorkerId};

use super::drive::{self, Claimed, Parting};
use super::engine::{Bell, Core, EngineError, Scope};
use super::rest::{Driven, Rest, Resting};
use super::send::patiently;
use super::shutdown::Stop;
use crate::claim::{Claims, Look, Room};

/// Between looks when the store gave no hint although something is held, in milliseconds.
const SAFETY_MS: u64 = 30_000;
/// Shortest pause between two rounds of looking into the inboxes of held runs, in milliseconds.
const SWEEP_MS_MIN: u64 = 5;
/// Held runs for each millisecond of that pause.
const SWEEP_RUNS_PER_MS: u64 = 10;

type Ended = (RunId, Parting, Option<Rejected>);
type Claiming = Pin<Box<dyn Future<Output = Taken> + Send>>;

/// The answer to a claim.
struct Taken {
    asked: usize,
    leases: Result<Vec<Lease>, StoreError>,
    permits: Option<OwnedSemaphorePermit>,
}

/// Drives the runs of a scope until it is done.
pub(super) async fn drive(core: Arc<Core>, scope: Scope, stop: Stop) -> Result<Driven, EngineError> {
    let id = patiently(&core, || core.worker()).await?.clone();
    let settings = &core.parts.settings;
    let worker = Worker {
        bell: core.enlist(),
        claims: Claims::new(settings.claim_slots.max(1), settings.held_max, settings.call_slots),
        resting: Resting::new(scope),
        actors: JoinSet::new(),
        leaving: Arc::default(),
        claiming: None,
        failed: None,
        sweep: None,
        swept_at: Timestamp(0),
        id,
        stop,
        core,
    };
    worker.run().await
}

struct Worker {
    core: Arc<Core>,
    id: WorkerId,
    stop: Stop,
    bell: Arc<Bell>,
    claims: Claims,
    resting: Resting,
    actors: JoinSet<Ended>,
    leaving: Arc<AtomicBool>,
    claiming: Option<Claiming>,
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
            self.adopt();
            self.sweep(now);
            let wake = self.look(now).await?;
            let wake = match self.settle(now).await? {
                Some(Rest::Done(driven)) => return Ok(driven),
                Some(Rest::Until { then, looks }) => earlier(wake, then.map(|then| (then, looks))),
                None => wake,
            };
            let pause = wake.map(|(then, _)| Duration::from_millis(then.since_ms(self.core.parts.clock.now())));
            tokio::select! {
                biased;
                () = stop.immediate.cancelled() => return Ok(Driven::Stopped),
                () = stop.graceful.cancelled(), if !self.is_leaving() => self.leave(),
                () = &mut changed => {
                    changed = store.changed();
                    self.changed(now);
                }
                Some(ended) = self.actors.join_next() => self.ended(ended),
                taken = poll_claim(&mut self.claiming) => self.taken(taken)?,
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

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// The store, or time, says that there may be something new.
    fn changed(&mut self, now: Timestamp) {
        self.claims.hinted();
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
        if self.is_leaving() {
            return;
        }
        for lease in self.core.adopt(|run| self.resting.scope().includes(run)) {
            let permit = Arc::clone(&self.core.claim_slots).try_acquire_owned().ok();
            self.start(lease, permit);
        }
    }

    /// Claims when there is a reason and room. Gives back when to look again, and whether that is a look at everything.
    async fn look(&mut self, now: Timestamp) -> Result<Option<(Timestamp, bool)>, EngineError> {
        let mut wake = self.sweep.map(|then| (then, false));
        if !self.actors.is_empty() {
            wake = earlier(wake, Some((now.plus_ms(SAFETY_MS), true)));
        }
        if self.is_leaving() || self.claiming.is_some() {
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
            self.claims.told(due);
            look = self.claims.look(now, self.room());
        }
        match look {
            Look::Now(room) => self.claiming = self.claim(room, now),
            Look::At(then) => wake = earlier(wake, Some((then, false))),
            Look::Idle => {}
        }
        Ok(wake)
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
        let within = self.resting.scope().within();
        let claim = Claim { within, ..Claim::any(self.id.clone(), room, now) };
        let core = Arc::clone(&self.core);
        Some(Box::pin(async move {
            let leases = patiently(&core, || core.parts.store.claim(claim.clone())).await;
            Taken { asked: room, leases, permits: Some(permits) }
        }))
    }

    fn taken(&mut self, taken: Taken) -> Result<(), EngineError> {
        self.claiming = None;
        let Taken { asked, leases, mut permits } = taken;
        let leases = leases?;
        self.claims.claimed(asked, leases.len(), self.core.parts.clock.now());
        if !leases.is_empty() {
            self.resting.disturbed();
        }
        for lease in leases {
            let permit = permits.as_mut().and_then(|permits| permits.split(1));
            self.start(lease, permit);
        }
        Ok(())
    }

    fn start(&mut self, lease: Lease, permit: Option<OwnedSemaphorePermit>) {
        match Claimed::new(&self.core, &self.id, lease.clone(), &self.stop) {
            Some(mut claimed) => {
                claimed.leaving = Arc::clone(&self.leaving);
                self.actors.spawn(drive::drive(claimed, permit));
            }
            // The task that held it before has not quite ended. It wakes this worker when it has.
            None => self.core.orphan(lease),
        }
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) {
        match ended {
            Ok((_, Parting::Parked(wake_at), _)) => self.claims.parked(wake_at),
            Ok((_, Parting::HandedBack, _)) => self.claims.hinted(),
            Ok((_, Parting::Ended | Parting::Lost, _)) => {}
            Ok((run, Parting::Stranded(error), _)) => {
                tracing::error!(run_id = %run, error = &error as &dyn std::error::Error, "a run was given up");
                self.failed.get_or_insert(error);
            }
            Err(error) => tracing::error!(%error, "the task of a run ended badly"),
        }
    }

    /// What to do when nothing is held and nothing can be claimed.
    async fn settle(&mut self, now: Timestamp) -> Result<Option<Rest>, EngineError> {
        if !self.actors.is_empty() || self.claiming.is_some() {
            return Ok(None);
        }
        if self.is_leaving() {
            return Ok(Some(Rest::Done(Driven::Stopped)));
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

/// The earlier of two times to wake, and whether everything is looked at then.
fn earlier(a: Option<(Timestamp, bool)>, b: Option<(Timestamp, bool)>) -> Option<(Timestamp, bool)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a.0 <= b.0 { a } else { b }),
        (one, None) | (None, one) => one,
    }
}

/// The answer of the claim on its way; pending when there is none.
async fn poll_claim(claiming: &mut Option<Claiming>) -> Taken {
    match claiming {
        Some(claiming) => claiming.await,
        None => std::future::pending().await,
    }
}
