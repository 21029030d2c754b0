//! Drives one held run: takes what happened, decides, commits, performs. One task for each held run.
//!
//! The order of every step is: input, facts, decision, commit, observer, effects. Nothing is performed that is not
//! durable, and a fault of the run never touches another one.

pub(super) use load::look;
use perform::{during, settled};

mod late;
mod facts;
mod load;
mod perform;
mod rescue;
mod switched;
mod tally;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::FutureExt;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;
use windlass_core::effect::Effect;
use windlass_core::ids::{EffectId, Name, RunId};
use windlass_core::input::Input;
use windlass_core::run::Run;
use windlass_core::time::Timestamp;
use windlass_core::{Decision, Rejected, decide_asking};
use windlass_ports::store::{Keep, Lease, StoreError, WorkerId};

use super::engine::{Core, EngineError, Warm};
use super::execute::Calls;
use super::member::Member;
use super::observe::{Point, Tally};
use super::programs::Loaded;
use super::send::{patiently, send};
use super::shutdown::Stop;
use crate::commit::{self, Ahead, Draft, SLICE_COMMITS, Under};
use crate::events::Seen;
use crate::fold::{FoldError, Tail};
use crate::lease::Standing;
use crate::recover;
use crate::timers::Timers;

/// How a worker and a run parted.
#[derive(Debug)]
pub(super) enum Parting {
    /// The run is over.
    Ended,
    /// It waits; until then at the latest.
    Parked(Option<Timestamp>),
    /// It is left for a worker that has what it needs, at least until then.
    Unfit(Option<Timestamp>),
    /// It is in the queue again.
    HandedBack,
    /// Someone else holds it.
    Lost,
    /// This build cannot go on with it. It keeps the lease, so that no other worker of this process tries.
    Stranded(EngineError),
}

/// A run that a worker has claimed.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) core: Arc<Core>,
    pub(super) worker: WorkerId,
    pub(super) lease: Lease,
    pub(super) nudge: Arc<Notify>,
    pub(super) stop: Stop,
    /// Set when the worker claims no more.
    pub(super) leaving: Arc<AtomicBool>,
    /// The life of this process under which it was claimed.
    pub(super) member: Arc<Member>,
    /// Whether it is one of many: what this process cannot drive is left for another one.
    pub(super) serving: bool,
    /// Set once progress is durable, for a run that is driven alone until then.
    pub(super) alone: Option<Arc<AtomicBool>>,
    /// Whether it only decides what lies in its inbox, and makes no call.
    pub(super) quiet: bool,
    /// Inputs that came with the claim.
    pub(super) extra: Vec<Input>,
    at: Instant,
    parted: bool,
}

impl Claimed {
    /// None when another worker of this process holds the run.
    pub(super) fn new(core: &Arc<Core>, worker: &WorkerId, lease: Lease, stop: &Stop) -> Option<Self> {
        let nudge = core.hold(&lease.run)?;
        Some(Self {
            core: Arc::clone(core),
            worker: worker.clone(),
            lease,
            nudge,
            stop: stop.clone(),
            leaving: Arc::default(),
            member: core.member_of(worker),
            serving: false,
            alone: None,
            quiet: false,
            extra: Vec::new(),
            at: Instant::now(),
            parted: false,
        })
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.core.let_go(&self.lease.run);
        if self.core.hungry.swap(false, Ordering::AcqRel) {
            self.core.wake(false);
        }
        if !self.parted && !self.member.lost.is_cancelled() && !std::thread::panicking() {
            // The worker was dropped in the middle. The next one of this process goes on as after a crash.
            let taken_from = Some(self.worker.clone());
            self.core.orphan(Lease { taken_from, ..self.lease.clone() });
        }
    }
}

/// Drives a claimed run until it is let go. Also gives back why an extra input was rejected.
pub(super) async fn drive(
    mut claimed: Claimed,
    permit: Option<OwnedSemaphorePermit>,
) -> (RunId, Parting, Option<Rejected>) {
    let (mut rejected, mut ready) = (None, VecDeque::new());
    let lost = claimed.member.lost.clone();
    let parting = tokio::select! {
        biased;
        () = lost.cancelled() => Parting::Lost,
        parting = rescue::guarded(&claimed, permit, &mut ready, &mut rejected) => parting,
    };
    // A store that stayed away says nothing about the run: its lease is taken up again by the next claim.
    claimed.parted = !matches!(parting, Parting::Stranded(EngineError::Store(_)));
    let (core, run) = (Arc::clone(&claimed.core), claimed.lease.run.clone());
    drop(claimed);
    late::record(&core, &run, late::left(&run, &ready)).await;
    (run, parting, rejected)
}

/// What keeps a worker from going on with a run.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fold(#[from] FoldError),
    #[error("{0}")]
    Program(String),
    #[error("this process has no {0}")]
    Unfit(Name),
    #[error("{0}")]
    Invariant(String),
}

/// Where an input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A row of the inbox.
    Inbox(u64),
    /// Derived from what is stored: it can be derived again.
    Stored,
    /// Only here: it would be lost with this process.
    Memory,
}

#[derive(Debug)]
struct Ready {
    input: Input,
    source: Source,
}

/// A held run with everything that is known about it.
struct Work<'a> {
    claimed: &'a Claimed,
    permit: Option<OwnedSemaphorePermit>,
    run: Run,
    loaded: Loaded,
    tail: Tail,
    /// The pool that it is in by the store, when that is known.
    pool: Option<Name>,
    calls: Calls,
    timers: Timers,
    /// Losses of calls, decided on before anything else.
    recovering: VecDeque<Input>,
    /// What came and is not decided on. It outlives the work: what is left of it is late.
    ready: &'a mut VecDeque<Ready>,
    /// Inbox rows that were rejected and leave with the next commit.
    dropped: Vec<u64>,
    inbox_seen: u64,
    /// Inbox rows in `ready`.
    inbox_left: usize,
    /// The inbox may have rows that have not been read.
    inbox_flag: bool,
    commits: u64,
    /// Losses of its worker in a row, until there is progress.
    strikes: u32,
    /// The worker wants to let go: calls that are out may end, nothing new is begun.
    leaving: bool,
    grace_ends: Option<Instant>,
    /// The run will be put on hold: it is not let go before.
    rescuing: bool,
    /// The inbox row that is being decided on.
    deciding: Option<u64>,
    /// The call whose result is being decided on.
    settling: Option<EffectId>,
    /// It parked and may be claimed again soon.
    warm: bool,
    /// The switches are compared with the commit that is being made, whatever it begins.
    comparing: bool,
    rejected: Option<Rejected>,
}

impl Work<'_> {
    async fn go(&mut self) -> Result<Parting, Fault> {
        loop {
            self.collect();
            // What came before a timer fires goes before it: an answer in time is not lost to its deadline.
            if (self.inbox_flag || self.is_due()) && self.inbox_left == 0 && !self.is_leaving() {
                self.read_inbox().await?;
            }
            let parted = match self.next() {
                Some(ready) => {
                    self.take_slot().await;
                    self.step(ready).await?
                }
                None if self.calls.is_empty() => self.rest().await?,
                None => {
                    self.wait().await;
                    None
                }
            };
            if let Some(parting) = parted {
                return Ok(parting);
            }
        }
    }

    fn is_leaving(&self) -> bool {
        self.leaving || self.claimed.leaving.load(Ordering::Acquire)
    }

    fn now(&self) -> Timestamp {
        self.claimed.core.parts.clock.now().max(self.run.now)
    }

    /// Takes the results of calls that have ended, without waiting.
    fn collect(&mut self) {
        while !self.calls.is_empty() {
            match self.calls.next().now_or_never() {
                Some(done) => self.ready.push_back(settled(done)),
                None => return,
            }
        }
    }

    fn next(&mut self) -> Option<Ready> {
        if let Some(recovered) = self.recovered() {
            return Some(recovered);
        }
        if self.is_leaving() || (self.claimed.quiet && self.inbox_left == 0) {
            let place = self.ready.iter().position(|ready| ready.source == Source::Memory)?;
            return self.ready.remove(place);
        }
        if self.inbox_left == 0 {
            // A cancel or a pause that came before the run was begun is heard before that.
            if self.is_unbegun() {
                let input = Input::Started(Box::new(self.run.start.clone()));
                return Some(Ready { input, source: Source::Stored });
            }
            if let Some(input) = self.switched() {
                return Some(Ready { input, source: Source::Stored });
            }
            if self.is_due()
                && let Some(timer) = self.timers.due(&self.run, self.now())
            {
                return Some(Ready { input: Input::TimerFired { timer }, source: Source::Stored });
            }
        }
        let ready = self.ready.pop_front().or_else(|| self.unjudged())?;
        if matches!(ready.source, Source::Inbox(_)) {
            self.inbox_left -= 1;
        }
        Some(ready)
    }

    fn is_due(&self) -> bool {
        !self.run.timers.is_empty() && self.timers.due(&self.run, self.now()).is_some()
    }

    /// Whether the run is to be begun.
    fn is_unbegun(&self) -> bool {
        !self.run.started && self.run.hold.is_none() && self.run.ending.is_none()
    }

    async fn step(&mut self, ready: Ready) -> Result<Option<Parting>, Fault> {
        let Ready { input, source } = ready;
        let began = Instant::now();
        let about = self.about(&input);
        // That a call was lost says nothing about whether the next worker survives it.
        let strikes = if matches!(input, Input::Lost { .. }) { self.strikes } else { 0 };
        let timer = if let Input::TimerFired { timer } = &input { Some(*timer) } else { None };
        let core = Arc::clone(&self.claimed.core);
        let facts = self.facts(&core, &input).await?;
        let (policy, loaded) = (&*core.parts.policy, &self.loaded);
        let judged = |facts, run: &Run, input: &Input, with: &[_]| loaded.judged(policy, facts, (run, input), with);
        self.deciding = if let Source::Inbox(number) = source { Some(number) } else { None };
        self.settling = if let Input::Settled { effect, .. } = input { Some(effect) } else { None };
        let late = late::unawaited(&self.run, &input);
        match decide_asking(&loaded.machine, &*core.evaluator, &mut self.run, input, facts, judged) {
            Ok(decision) => {
                self.strikes = strikes;
                let parted = self.commit(decision, source, about).await;
                self.timed(began);
                parted
            }
            Err(rejected) => {
                tracing::debug!(run_id = %self.run.id(), %rejected, "an input was dropped");
                if let Source::Inbox(number) = source {
                    self.dropped.push(number);
                }
                if let Some(timer) = timer {
                    self.timers.refuse(timer);
                }
                if late.is_some() {
                    during(&mut self.calls, self.ready, late::record(&core, self.run.id(), late)).await;
                }
                self.clear(about);
                self.rejected = Some(rejected);
                Ok(None)
            }
        }
    }

    /// The marked attempt that an input is about.
    fn about(&self, input: &Input) -> Option<(EffectId, u32)> {
        let (Input::Settled { effect, .. } | Input::Lost { effect, .. }) = input else { return None };
        let open = self.run.calls.get(effect)?;
        if let Input::Settled { .. } = input {
            self.claimed.core.pass(Point::BeforeSettle(open.call.kind()));
        }
        recover::is_marked(open).then_some((*effect, open.attempt))
    }

    /// Makes a decision durable and performs its effects.
    async fn commit(
        &mut self,
        decision: Decision,
        source: Source,
        about: Option<(EffectId, u32)>,
    ) -> Result<Option<Parting>, Fault> {
        self.leaving |= self.is_elsewhere();
        let leaving = self.is_leaving() || self.claimed.quiet || self.slice_is_over();
        let ahead = self.ahead(&decision.effects, leaving);
        let keep = commit::keep(&self.run, ahead).map_err(|stuck| Fault::Invariant(stuck.to_string()))?;
        let mut taken = std::mem::take(&mut self.dropped);
        if let Source::Inbox(number) = source {
            taken.push(number);
        }
        self.commit_as(decision, taken, keep, leaving, about).await
    }

    async fn commit_as(
        &mut self,
        decision: Decision,
        taken: Vec<u64>,
        keep: Keep,
        leaving: bool,
        about: Option<(EffectId, u32)>,
    ) -> Result<Option<Parting>, Fault> {
        let core = Arc::clone(&self.claimed.core);
        let Claimed { lease, worker, .. } = self.claimed;
        let begins = self.begins(&decision.effects, &decision.entries, leaving);
        let under = Under { op: core.op(), lease, worker, pool: self.pool.as_ref(), strikes: self.strikes, begins };
        let Draft { commit, entries, effects } =
            commit::draft(under, &self.loaded.program, &self.run, decision, taken, keep, &mut self.tail);
        core.pass(Point::BeforeCommit);
        let began = Instant::now();
        let sending = send(&core, &commit);
        let standing = during(&mut self.calls, self.ready, sending).await?;
        core.pass(Point::AfterCommit);
        if standing == Standing::Lost {
            tracing::warn!(run_id = %self.run.id(), epoch = self.claimed.lease.epoch, "fenced: someone else holds the run");
            core.count(Tally::Fenced, 1);
            let late = self.settling.and_then(|effect| late::undone(self.run.id(), effect, &entries));
            during(&mut self.calls, self.ready, late::record(&core, self.run.id(), late)).await;
            return Ok(Some(Parting::Lost));
        }
        self.pool = commit.head.pool.clone().or(self.pool.take());
        self.committed(began, &entries);
        if !commit.audit.is_empty() {
            core.audited();
        }
        core.parts.observer.seen(Seen { run: &self.run, entries: &entries, audit: &commit.audit });
        self.clear(about);
        self.spread(&commit);
        self.look_at_switches(standing, begins).await?;
        self.perform(&effects, &entries, leaving);
        self.give_back(&effects).await;
        self.stand(standing, keep).await
    }

    async fn stand(&mut self, standing: Standing, keep: Keep) -> Result<Option<Parting>, Fault> {
        Ok(match standing {
            Standing::Held { inbox, .. } => {
                self.inbox_flag |= inbox;
                None
            }
            Standing::Parted => Some(match keep {
                Keep::End => Parting::Ended,
                Keep::Park { wake_at } => {
                    self.warm = true;
                    Parting::Parked(wake_at)
                }
                Keep::HandBack | Keep::Hold => Parting::HandedBack,
            }),
            Standing::Unsure => {
                release(self.claimed, Keep::HandBack).await?;
                Some(Parting::HandedBack)
            }
            Standing::Lost => Some(Parting::Lost),
        })
    }

    /// A run that waits for children is likely to be claimed again soon, once for each of them.
    fn into_warm(self) -> Option<Warm> {
        (self.warm && !self.run.children.is_empty()).then(|| Warm {
            epoch: self.claimed.lease.epoch,
            run: self.run,
            tail: self.tail,
            pool: self.pool,
            loaded: self.loaded,
        })
    }

    /// Whether the next step asks for a pool that this worker does not serve.
    fn is_elsewhere(&self) -> bool {
        let pool = self.loaded.machine.pool_of(self.run.state.as_deref());
        pool.is_some_and(|pool| !self.claimed.core.parts.settings.serves(pool))
    }

    /// Whether others should have a turn: nothing of this run is in memory only, and the queue waits for a slot.
    fn slice_is_over(&self) -> bool {
        self.commits >= SLICE_COMMITS
            && self.calls.is_empty()
            && self.recovering.is_empty()
            && self.ready.is_empty()
            && self.claimed.core.hungry.load(Ordering::Relaxed)
    }

    fn ahead(&self, effects: &[Effect], leaving: bool) -> Ahead {
        let begun = effects.iter().any(|effect| match effect {
            Effect::Call(id) => !leaving && self.run.hold.is_none() && self.run.calls.contains_key(id),
            Effect::Draw(_) => !leaving && self.run.hold.is_none(),
            _ => false,
        });
        let abandoned = effects.iter().filter(|effect| match effect {
            Effect::Abandon(id) => self.calls.contains(*id),
            _ => false,
        });
        let results = self.rescuing
            || !self.recovering.is_empty()
            || self.ready.iter().any(|ready| ready.source == Source::Memory);
        Ahead {
            calls: begun || self.calls.len() > abandoned.count(),
            results,
            inputs: !self.ready.is_empty() || self.inbox_flag || self.is_due() || self.is_unbegun(),
            leaving,
            wake_at: self.wake_at(),
        }
    }

    fn clear(&self, about: Option<(EffectId, u32)>) {
        if let Some((effect, attempt)) = about {
            self.claimed.core.parts.store.clear_sent(self.run.id(), effect, attempt);
        }
    }

    async fn read_inbox(&mut self) -> Result<(), Fault> {
        self.inbox_flag = false;
        let core = Arc::clone(&self.claimed.core);
        let asking = patiently(&core, || core.parts.store.inbox(self.claimed.lease.run.clone()));
        let items = during(&mut self.calls, self.ready, asking).await?;
        let seen = self.inbox_seen;
        for item in items.into_iter().filter(|item| item.number > seen) {
            self.inbox_seen = item.number;
            self.inbox_left += 1;
            self.ready.push_back(Ready { input: item.input, source: Source::Inbox(item.number) });
        }
        Ok(())
    }

    async fn take_slot(&mut self) {
        if self.permit.is_some() {
            return;
        }
        let slots = Arc::clone(&self.claimed.core.claim_slots);
        // The semaphore is never closed.
        self.permit = during(&mut self.calls, self.ready, slots.acquire_owned()).await.ok();
    }

    /// Waits for whatever comes first, without a claim slot.
    async fn wait(&mut self) {
        let core = &self.claimed.core;
        if self.permit.take().is_some() && core.hungry.swap(false, Ordering::AcqRel) {
            core.wake(false);
        }
        let leaving = self.is_leaving();
        let mut switches = core.switches.changes();
        if !leaving && self.calls.take_back(&core.switches, &self.run.start.scope.tenant) {
            return;
        }
        // Whoever only makes room for others lets calls end; only an end of the process cuts them off.
        let stopping = self.claimed.stop.graceful.is_cancelled();
        let timer = if leaving { None } else { self.timers.next(&self.run) };
        let pause = timer.map(|due| Duration::from_millis(due.since_ms(core.parts.clock.now())));
        let grace = Duration::from_millis(core.parts.settings.grace_ms);
        let grace_ends =
            if stopping { *self.grace_ends.get_or_insert_with(|| Instant::now() + grace) } else { Instant::now() };
        tokio::select! {
            biased;
            done = self.calls.next() => self.ready.push_back(settled(done)),
            _ = switches.changed(), if !leaving => {}
            () = self.claimed.nudge.notified(), if !leaving => self.inbox_flag = true,
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            () = self.claimed.stop.graceful.cancelled(), if !stopping => self.leaving = true,
            () = tokio::time::sleep_until(grace_ends), if stopping => self.cut(),
        }
    }

    /// Drops the calls that are out, as a crash would.
    fn cut(&mut self) {
        for (effect, sent) in self.calls.cut() {
            self.recovering.push_back(Input::Lost { effect, sent });
        }
    }

    /// Nothing is out and nothing is ready: consumes what was rejected, or lets the run go.
    async fn rest(&mut self) -> Result<Option<Parting>, Fault> {
        let leaving = self.is_leaving() || self.claimed.quiet;
        if !self.dropped.is_empty() && !self.is_leaving() {
            let decision = recover::nothing(&mut self.run, self.claimed.core.parts.clock.now());
            return self.commit(decision, Source::Stored, None).await;
        }
        if !leaving && self.run.hold.is_none() {
            self.start_unsent(false);
            if !self.calls.is_empty() {
                return Ok(None);
            }
            if self.has_unsent(|open| !recover::leaves_at_once(open)) {
                return self.compare().await;
            }
        }
        let ahead = Ahead { inputs: self.is_unbegun() || !self.ready.is_empty(), ..self.ahead(&[], leaving) };
        let keep = match commit::keep(&self.run, ahead) {
            Ok(Keep::HandBack) => Keep::HandBack,
            Ok(Keep::Park { .. } | Keep::Hold | Keep::End) => Keep::Park { wake_at: self.wake_at() },
            Err(stuck) => return Err(Fault::Invariant(stuck.to_string())),
        };
        release(self.claimed, keep).await?;
        Ok(Some(match keep {
            Keep::Park { wake_at } => Parting::Parked(wake_at),
            Keep::HandBack | Keep::Hold | Keep::End => Parting::HandedBack,
        }))
    }
}

/// Lets the run go without a decision.
async fn release(claimed: &Claimed, keep: Keep) -> Result<(), Fault> {
    let Claimed { core, worker, lease, .. } = claimed;
    patiently(core, || core.parts.store.release(lease.clone(), worker.clone(), keep)).await?;
    Ok(())
}
