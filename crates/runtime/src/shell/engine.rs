//! The engine: what is wired together, and what all workers of a process share.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, Semaphore};
use windlass_core::basis::Basis;
use windlass_core::eval::Evaluator;
use windlass_core::ids::{Name, RunId};
use windlass_core::machine::Priority;
use windlass_core::run::Run;
use windlass_core::time::Timestamp;
use windlass_ports::clock::Clock;
use windlass_ports::compile::Compiler;
use windlass_ports::model::Model;
use windlass_ports::policy::Policy;
use windlass_ports::store::{Lease, Load, OpId, Registration, Store, StoreError, WorkerId};
use windlass_ports::tool::Catalog;

use super::clock::StoreClock;
use super::member::Membership;
use super::missed::Missed;
use super::observe::{Failpoint, Meter, Observer, Point, Tally};
use super::programs::{Loaded, Programs};
use super::rates::Gate;
use super::rest::Driven;
use super::shutdown::Stop;
use super::switches::Switches;
use super::unfit::Unfit;
use super::worker;
use crate::fold::{FoldError, Tail};
use crate::rates::Limits;

/// Parked runs kept in memory at most, so that one that waits for many children is not read again for each.
const WARM_MAX: usize = 64;

/// What an engine is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where runs live.
    pub store: Arc<dyn Store>,
    /// Compiles the bundles of runs.
    pub compiler: Arc<dyn Compiler>,
    /// Calls models.
    pub model: Arc<dyn Model>,
    /// Tools, actions and hooks.
    pub catalog: Arc<Catalog>,
    /// Answers policy questions.
    pub policy: Arc<dyn Policy>,
    /// Tells the time. Its milliseconds must pass as those of the async runtime's timers do.
    pub clock: Arc<dyn Clock>,
    /// Is told what is committed.
    pub observer: Arc<dyn Observer>,
    /// Numbers.
    pub settings: Settings,
}

impl Parts {
    /// What this process decides under now; none where nobody keeps it.
    pub(super) fn basis(&self) -> Option<Basis> {
        self.settings.basis.clone().map(|basis| Basis { policy: self.policy.version(), ..basis })
    }
}

/// Numbers of an engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Runs that are decided on at the same time. A run that only waits for its calls has no slot.
    pub claim_slots: usize,
    /// Calls that are out at the same time.
    pub call_slots: usize,
    /// Runs that are held at the same time, those that wait for their calls included.
    pub held_max: usize,
    /// How long calls may go on after a graceful stop, in milliseconds.
    pub grace_ms: u64,
    /// With [`Scope::Tree`]: how long a timer is waited for when nothing else is left to do, in milliseconds.
    pub wait_ms: u64,
    /// With [`Scope::Tree`]: how long a signal or a person is waited for then, in milliseconds.
    pub signal_wait_ms: u64,
    /// How long a store that is unavailable is tried before a worker gives up, in milliseconds. A commit whose outcome
    /// is unknown is asked about for as long as it takes.
    pub store_patience_ms: u64,
    /// Pause between two looks for runs of workers that are gone, in milliseconds; up to half of it more.
    pub reap_ms: u64,
    /// Pause between two looks at the read-only switches while runs are held, in milliseconds; 0 looks only when the
    /// store says that they have changed.
    pub switches_ms: u64,
    /// The pools it works for; every pool when empty.
    pub pools: Vec<Name>,
    /// Runs of one tenant that all workers together hold at most, as far as those that claim at the same moment see
    /// one another.
    pub tenant_held_max: Option<u32>,
    /// Runs of one tenant that wait in the queue at most. Submissions of a lower class are refused before that.
    pub queued_max: Option<u32>,
    /// Limits of rates, which all workers of the store meet together.
    pub rates: Arc<Limits>,
    /// What this process decides under beside its rules, for the journals of runs; none where nobody keeps it.
    pub basis: Option<Basis>,
    /// The host's name, as others see it in the list of workers.
    pub host: String,
    /// The build, as others see it there.
    pub build: String,
    /// Is told how often things happen and how long they take.
    pub meter: Option<Arc<dyn Meter>>,
    /// Is called at every point where a process may die.
    pub failpoint: Option<Failpoint>,
}

/// Percent of [`Settings::queued_max`] up to which runs of a class are taken: what can wait is refused first.
const SHARES: [(Priority, u64); 3] = [(Priority::High, 100), (Priority::Normal, 90), (Priority::Low, 50)];

impl Settings {
    /// What a process says about itself when it becomes a worker.
    pub(super) fn registration(&self) -> Registration {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Registration {
            host: self.host.clone(),
            pid: std::process::id(),
            build: self.build.clone(),
            pools: self.pools.clone(),
            claim_slots: small(self.claim_slots),
            call_slots: small(self.call_slots),
            keys: Vec::new(),
        }
    }

    /// How many runs of a tenant may wait when one of this class is submitted.
    #[must_use]
    pub fn queued_max_of(&self, class: Priority) -> Option<u32> {
        let share = SHARES.iter().find(|(of, _)| *of == class).map_or(100, |(_, share)| *share);
        self.queued_max.map(|max| u32::try_from(u64::from(max) * share / 100).unwrap_or(max).max(1))
    }

    /// Whether this worker takes runs of a pool.
    #[must_use]
    pub fn serves(&self, pool: &str) -> bool {
        self.pools.is_empty() || self.pools.iter().any(|served| **served == *pool)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            claim_slots: 256,
            call_slots: 128,
            held_max: 4_096,
            grace_ms: 20_000,
            wait_ms: 60_000,
            signal_wait_ms: 0,
            store_patience_ms: 30_000,
            reap_ms: super::reap::PACE_MS,
            switches_ms: 400,
            pools: Vec::new(),
            tenant_held_max: None,
            queued_max: None,
            rates: Arc::default(),
            basis: None,
            host: String::new(),
            build: String::new(),
            meter: None,
            failpoint: None,
        }
    }
}

/// Which runs a worker drives, and when it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This caller's run and everything below it, until all of it has ended or waits beyond the settings' patience.
    Tree(RunId),
    /// Every run, until none can go on now. Runs that wait for a time or a signal are left waiting.
    Idle,
    /// Every run, until stopped.
    All,
}

/// Why an engine cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A run cannot be read.
    #[error("run `{run}` cannot be read")]
    Fold {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: FoldError,
    },
    /// A run cannot be driven by this process. It keeps its lease and can be taken over by another one.
    #[error("run `{run}` cannot be driven: {message}")]
    Stranded {
        /// The run.
        run: RunId,
        /// Why.
        message: String,
    },
    /// An input does not apply to a run as it is.
    #[error("run `{run}` does not take this: {reason}")]
    Rejected {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        reason: windlass_core::Rejected,
    },
    /// There is no such run.
    #[error("there is no run `{0}`")]
    NotFound(RunId),
}

/// How an engine is doing, without asking the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// This process as a worker, when it has joined and counts.
    pub worker: Option<WorkerId>,
    /// Whether its leases are surely its own.
    pub is_current: bool,
    /// What it does.
    pub load: Load,
    /// Calls that wait for a slot.
    pub backlog: usize,
    /// Calls that wait for permits of rates.
    pub limited: usize,
    /// When the store last left a commit unanswered, when none was answered since.
    pub unanswered: Option<Timestamp>,
}

/// Submits runs and drives them. Clones share everything.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) core: Arc<Core>,
}

impl Engine {
    /// An engine that has claimed nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { core: Arc::new(Core::new(parts)) }
    }

    /// What it is made of.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.core.parts
    }

    /// Works until the scope is done or `stop` says so. Dropping the future drops the calls that are out.
    ///
    /// # Errors
    /// The store stays unavailable, or a run of a tree cannot be driven by this build.
    pub async fn drive(&self, scope: Scope, stop: Stop) -> Result<Driven, EngineError> {
        worker::drive(Arc::clone(&self.core), scope, stop).await
    }

    /// Puts runs of workers that are gone into the queue again, now and then, until `stop` says so.
    pub async fn reap(&self, stop: Stop) {
        super::reap::until(&self.core, &stop).await;
    }

    /// Seals audit rows beside the work until `stop` says so. One that is `for_all` looks for those of other processes
    /// too; another one sleeps while this process commits none.
    pub async fn seal(&self, for_all: bool, stop: Stop) {
        super::seal::until(&self.core, for_all, &stop).await;
    }

    /// Seals the audit rows that this process committed, if any. What cannot be sealed is left to the next seal.
    pub async fn seal_now(&self) {
        super::seal::now(&self.core).await;
    }

    /// How it is doing.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let member = self.core.present();
        Vitals {
            is_current: member.as_ref().is_some_and(|member| self.core.parts.store.is_current(&member.id)),
            worker: member.map(|member| member.id.clone()),
            load: self.core.load(),
            backlog: self.core.backlog.load(Ordering::Relaxed),
            limited: self.core.gate.waiting(),
            unanswered: Some(Timestamp(self.core.unanswered.load(Ordering::Relaxed))).filter(|at| at.0 > 0),
        }
    }

    /// Tells the store that this process is no longer a worker. What it still holds goes into the queue, and what it took of
    /// rates and did not use goes back.
    pub async fn leave(&self) {
        super::rates::flush(&self.core).await;
        self.core.leave().await;
    }
}

/// What all workers of a process share.
pub(super) struct Core {
    pub(super) parts: Parts,
    pub(super) evaluator: Arc<dyn Evaluator>,
    pub(super) programs: Programs,
    pub(super) claim_slots: Arc<Semaphore>,
    pub(super) call_slots: Semaphore,
    /// Calls that wait for a slot.
    pub(super) backlog: AtomicUsize,
    /// When a commit was last left unanswered, in milliseconds; 0 when one was answered since.
    pub(super) unanswered: AtomicU64,
    /// A worker found no free claim slot although the queue may have something.
    pub(super) hungry: AtomicBool,
    /// The clock of `parts`, to be told the store's time.
    pub(super) clock: Arc<StoreClock>,
    pub(super) membership: Membership,
    pub(super) shelf: super::budgets::Shelf,
    pub(super) ramps: super::ramps::Ramps,
    pub(super) unfit: Unfit,
    pub(super) missed: Arc<Missed>,
    pub(super) switches: Switches,
    pub(super) gate: Gate,
    /// Audit rows were committed.
    pub(super) audited: Notify,
    /// The same, until they are sealed here.
    pub(super) unsealed: AtomicBool,
    /// In an order, so that runs are woken in one.
    held: Mutex<BTreeMap<RunId, Arc<Notify>>>,
    /// Leases of this process that nobody works on.
    orphans: Mutex<Vec<Lease>>,
    warm: Mutex<VecDeque<Warm>>,
    workers: Mutex<Vec<Weak<Bell>>>,
    op_base: u128,
    ops: AtomicU64,
}

/// A parked run that is still in memory.
#[derive(Debug)]
pub(super) struct Warm {
    /// The epoch under which it was parked. Nobody has changed the run when it is claimed with the next one.
    pub(super) epoch: u64,
    pub(super) run: Run,
    pub(super) tail: Tail,
    /// The pool that it is in by the store, when that is known.
    pub(super) pool: Option<Name>,
    pub(super) loaded: Loaded,
}

/// Wakes a worker.
#[derive(Debug, Default)]
pub(super) struct Bell {
    pub(super) rung: Notify,
    /// The queue has something new.
    pub(super) queued: AtomicBool,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("parts", &self.parts).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No change of these maps can be left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    fn new(mut parts: Parts) -> Self {
        let clock = Arc::new(StoreClock::over(parts.clock));
        parts.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let settings = &parts.settings;
        Self {
            evaluator: parts.compiler.evaluator(),
            programs: Programs::default(),
            claim_slots: Arc::new(Semaphore::new(settings.claim_slots.max(1))),
            call_slots: Semaphore::new(settings.call_slots.max(1)),
            backlog: AtomicUsize::new(0),
            unanswered: AtomicU64::new(0),
            hungry: AtomicBool::new(false),
            clock,
            membership: Membership::default(),
            shelf: super::budgets::Shelf::default(),
            ramps: super::ramps::Ramps::default(),
            unfit: Unfit::default(),
            missed: Arc::default(),
            switches: Switches::default(),
            gate: Gate::default(),
            audited: Notify::new(),
            unsealed: AtomicBool::new(false),
            held: Mutex::default(),
            orphans: Mutex::default(),
            warm: Mutex::default(),
            workers: Mutex::default(),
            op_base: u128::from(parts.clock.seed()) << 64,
            ops: AtomicU64::new(parts.clock.seed()),
            parts,
        }
    }

    /// It happened so many times more.
    pub(super) fn count(&self, what: Tally, by: u64) {
        if let (Some(meter), true) = (&self.parts.settings.meter, by > 0) {
            meter.count(what, by);
        }
    }

    /// Audit rows became durable.
    pub(super) fn audited(&self) {
        self.unsealed.store(true, Ordering::Release);
        self.audited.notify_one();
    }

    /// A name for a commit.
    pub(super) fn op(&self) -> OpId {
        OpId(self.op_base | u128::from(self.ops.fetch_add(1, Ordering::Relaxed)))
    }

    pub(super) fn pass(&self, point: Point) {
        if let Some(failpoint) = &self.parts.settings.failpoint {
            failpoint.pass(point);
        }
    }

    /// A run is held from here on. None when it already is.
    pub(super) fn hold(&self, run: &RunId) -> Option<Arc<Notify>> {
        let mut held = lock(&self.held);
        if held.contains_key(run) {
            return None;
        }
        let nudge = Arc::new(Notify::new());
        held.insert(run.clone(), Arc::clone(&nudge));
        Some(nudge)
    }

    /// A run is no longer held.
    pub(super) fn let_go(&self, run: &RunId) {
        lock(&self.held).remove(run);
        self.missed.parted(run);
        if !lock(&self.orphans).is_empty() {
            self.wake(false);
        }
    }

    pub(super) fn held(&self) -> usize {
        lock(&self.held).len()
    }

    /// The inbox of a run has something. False when the run is not held here.
    pub(super) fn nudge(&self, run: &RunId) -> bool {
        let held = lock(&self.held);
        held.get(run).inspect(|nudge| nudge.notify_one()).is_some()
    }

    /// The inboxes of held runs may have something.
    pub(super) fn nudge_all(&self) {
        for nudge in lock(&self.held).values() {
            nudge.notify_one();
        }
    }

    /// Drops what is kept under leases that are void.
    pub(super) fn forget_held(&self) {
        lock(&self.orphans).clear();
        lock(&self.warm).clear();
        self.missed.forget();
    }

    pub(super) fn orphan(&self, lease: Lease) {
        lock(&self.orphans).push(lease);
    }

    /// Whether a run is driven here, or about to be.
    pub(super) fn knows(&self, run: &RunId) -> bool {
        lock(&self.orphans).iter().any(|lease| lease.run == *run) || lock(&self.held).contains_key(run)
    }

    /// How many these are, at least.
    pub(super) fn known(&self) -> u64 {
        let orphans = lock(&self.orphans).len();
        (orphans + lock(&self.held).len()) as u64
    }

    /// Leases without work, of those that `wanted` picks and whose run is not held.
    pub(super) fn adopt(&self, wanted: impl Fn(&RunId) -> bool) -> Vec<Lease> {
        let mut orphans = lock(&self.orphans);
        if orphans.is_empty() {
            return Vec::new();
        }
        let held = lock(&self.held);
        orphans.extract_if(.., |lease| wanted(&lease.run) && !held.contains_key(&lease.run)).collect()
    }

    pub(super) fn keep_warm(&self, warm: Warm) {
        let mut kept = lock(&self.warm);
        if kept.len() >= WARM_MAX {
            kept.pop_front();
        }
        kept.push_back(warm);
    }

    /// The run of a lease, when it is in memory and nobody else can have changed it.
    pub(super) fn warm(&self, lease: &Lease) -> Option<Warm> {
        let mut kept = lock(&self.warm);
        let place = kept.iter().position(|warm| *warm.run.id() == lease.run)?;
        kept.remove(place).filter(|warm| warm.epoch + 1 == lease.epoch && lease.taken_from.is_none())
    }

    /// A worker that wants to be woken.
    pub(super) fn enlist(&self) -> Arc<Bell> {
        let bell = Arc::new(Bell::default());
        let mut workers = lock(&self.workers);
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Arc::downgrade(&bell));
        bell
    }

    /// Wakes the workers: a slot is free, or, with `queued`, the queue has something new.
    pub(super) fn wake(&self, queued: bool) {
        for bell in lock(&self.workers).iter().filter_map(Weak::upgrade) {
            if queued {
                bell.queued.store(true, Ordering::Release);
            }
            bell.rung.notify_one();
        }
    }
}
