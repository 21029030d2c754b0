//! What all simulated processes share: virtual time, the one source of chance, who is up, what was written down.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use windlass_core::ids::Name;
use windlass_ports::clock::Clock;
use windlass_ports::fake::MemoryStore;
use windlass_ports::store::WorkerId;

use crate::clock::TrueClock;
use crate::faults::{Fault, Rates};
use crate::history::{Effect, Op, Record, Result};

/// How long a lease lasts at least after a sign of life, in milliseconds.
const LEASE_MS_MIN: u64 = 10_000;
/// How long it lasts at most.
const LEASE_MS_MAX: u64 = 6 * 3_600_000;
/// Leases in the life of an undisturbed run at most, so that one of a month does not give signs of life all the time.
const LEASES_MAX: u64 = 200;
/// Operations after which a seed is given up: nothing that ends needs as many.
const OPS_MAX: u64 = 500_000;

/// How the store knows that a worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// By a lock of the operating system, which dies with the process.
    Lock,
    /// By its silence for as long as a lease lasts.
    Lease,
}

/// A process, from its start to its death.
#[derive(Debug)]
struct Process {
    name: Name,
    /// Nothing it does reaches anyone any more.
    is_doomed: bool,
    paused_until: u64,
    /// How far its clock is ahead.
    ahead_ms: i64,
    doom: Arc<Notify>,
    /// As what the store knows it.
    workers: Vec<WorkerId>,
}

#[derive(Debug)]
struct Joined {
    until: u64,
    is_gone: bool,
}

struct State {
    rng: fastrand::Rng,
    rates: Rates,
    is_healed: bool,
    processes: Vec<Process>,
    /// Workers and until when the store believes in them.
    workers: BTreeMap<WorkerId, Joined>,
    records: Vec<Record>,
    effects: Vec<Effect>,
    landed: BTreeMap<Fault, u64>,
    ops: u64,
    store_ahead_ms: i64,
    /// Kept, so that a worker dies when the store notices and not when its engine is dropped.
    handles: Vec<Arc<MemoryStore>>,
}

/// The shared part of one simulation.
pub(crate) struct World {
    begun: Instant,
    pub(crate) liveness: Liveness,
    /// How long a lease lasts after a sign of life, in milliseconds.
    pub(crate) lease_ms: u64,
    /// Notes of calls that left do not outlive their process.
    pub(crate) forgets_marks: bool,
    pub(crate) store: MemoryStore,
    /// Something was written.
    pub(crate) progress: Notify,
    state: Mutex<State>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("liveness", &self.liveness).finish_non_exhaustive()
    }
}

impl World {
    /// A world in which nothing has happened. Called within an async runtime whose time is paused. `usual_ms` is how
    /// long the runs take when nothing disturbs them, and 0 to find that out.
    pub(crate) fn new(mut rng: fastrand::Rng, rates: Rates, usual_ms: u64) -> Arc<Self> {
        let is_calm = usual_ms == 0;
        let lease = !is_calm && (rates.of(Fault::Zombie) > 0.0 || rng.bool());
        let forgets_marks = lease && rng.bool();
        Arc::new_cyclic(|world: &Weak<Self>| Self {
            begun: Instant::now(),
            liveness: if lease { Liveness::Lease } else { Liveness::Lock },
            forgets_marks,
            lease_ms: if is_calm { LEASE_MS_MAX } else { (usual_ms / LEASES_MAX).clamp(LEASE_MS_MIN, LEASE_MS_MAX) },
            store: MemoryStore::with_clock(Arc::new(TrueClock(Weak::clone(world))) as Arc<dyn Clock>),
            progress: Notify::new(),
            state: Mutex::new(State {
                rng,
                rates,
                is_healed: false,
                processes: Vec::new(),
                workers: BTreeMap::new(),
                records: Vec::new(),
                effects: Vec::new(),
                landed: BTreeMap::new(),
                ops: 0,
                store_ahead_ms: 0,
                handles: Vec::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // One thread: nobody else can have left it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another way to what is stored.
    pub(crate) fn handle(&self) -> Arc<MemoryStore> {
        let handle = Arc::new(self.store.another());
        self.state().handles.push(Arc::clone(&handle));
        handle
    }

    /// Milliseconds since the beginning.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How far the store's clock is ahead of true time.
    pub(crate) fn store_ahead_ms(&self) -> i64 {
        self.state().store_ahead_ms
    }

    /// Sets the store's clock.
    pub(crate) fn jump_store(&self, ahead_ms: i64) {
        self.state().store_ahead_ms = ahead_ms;
    }

    pub(crate) async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.state().rng)
    }

    /// Whether a fault strikes here. None does once the world is healed.
    pub(crate) fn strikes(&self, fault: Fault) -> bool {
        let mut state = self.state();
        let rate = state.rates.of(fault);
        if state.is_healed || rate == 0.0 || state.rng.f64() >= rate {
            return false;
        }
        *state.landed.entry(fault).or_default() += 1;
        true
    }

    /// Whether a fault may strike under this seed.
    pub(crate) fn may(&self, fault: Fault) -> bool {
        let state = self.state();
        !state.is_healed && state.rates.of(fault) > 0.0
    }

    /// A fault was made to happen without [`World::strikes`].
    pub(crate) fn landed(&self, fault: Fault) {
        *self.state().landed.entry(fault).or_default() += 1;
    }

    /// From here on no fault strikes, and everyone goes on.
    pub(crate) fn heal(&self) {
        self.state().is_healed = true;
    }

    pub(crate) fn is_healed(&self) -> bool {
        self.state().is_healed
    }

    /// How often each fault struck.
    pub(crate) fn faults_landed(&self) -> BTreeMap<Fault, u64> {
        self.state().landed.clone()
    }

    /// Counts an operation. False when there have been too many.
    pub(crate) fn count(&self) -> bool {
        let mut state = self.state();
        state.ops += 1;
        state.ops <= OPS_MAX
    }

    pub(crate) fn is_runaway(&self) -> bool {
        self.state().ops > OPS_MAX
    }

    /// Writes down an operation that ends now.
    pub(crate) fn note(&self, process: usize, op: Op, op_id: Option<Name>, start: u64, result: Result) {
        let end = self.now_ms();
        let mut state = self.state();
        let process = state.processes[process].name.clone();
        state.records.push(Record { process, op, op_id, start, end, result });
    }

    /// Writes down what befell a process, or the store when there is none.
    pub(crate) fn note_fault(&self, process: Option<usize>, what: &str) {
        let now = self.now_ms();
        let mut state = self.state();
        let process = process.map_or_else(|| "world".into(), |process| state.processes[process].name.clone());
        let op = Op::Fault { what: what.into() };
        state.records.push(Record { process, op, op_id: None, start: now, end: now, result: Result::Ok });
    }

    /// Writes down a call that reached the world.
    pub(crate) fn reached(&self, effect: Effect) {
        self.state().effects.push(effect);
    }

    /// Whether a call of this key has changed the world.
    pub(crate) fn has_happened(&self, key: &str) -> bool {
        self.state().effects.iter().any(|effect| &*effect.key == key && effect.happened)
    }

    /// Whom a call of this key reached.
    pub(crate) fn target_of(&self, key: &str) -> Option<Name> {
        self.state().effects.iter().find(|effect| &*effect.key == key).map(|effect| effect.target.clone())
    }

    /// What was written down so far, taken away.
    pub(crate) fn take_notes(&self) -> (Vec<Record>, Vec<Effect>) {
        let mut state = self.state();
        (std::mem::take(&mut state.records), std::mem::take(&mut state.effects))
    }

    /// A new process. Its clock may be wrong.
    pub(crate) fn spawn(&self, name: &str) -> usize {
        let ahead_ms = if self.strikes(Fault::ClockJump) || self.strikes(Fault::ClockJump) {
            self.draw(|rng| rng.i64(-3_600_000..=3_600_000))
        } else {
            0
        };
        let mut state = self.state();
        state.processes.push(Process {
            name: name.into(),
            is_doomed: false,
            paused_until: 0,
            ahead_ms,
            doom: Arc::default(),
            workers: Vec::new(),
        });
        state.processes.len() - 1
    }

    pub(crate) fn name(&self, process: usize) -> Name {
        self.state().processes[process].name.clone()
    }

    pub(crate) fn ahead_ms(&self, process: usize) -> i64 {
        self.state().processes[process].ahead_ms
    }

    /// Moves the clock of a process forward; it never goes back within one process.
    pub(crate) fn jump(&self, process: usize, ms: i64) {
        self.state().processes[process].ahead_ms += ms;
    }

    /// From now on nothing that the process does reaches anyone. Whoever runs it is told to drop it.
    pub(crate) fn doom(&self, process: usize) {
        let mut state = self.state();
        let process = &mut state.processes[process];
        process.is_doomed = true;
        process.doom.notify_one();
    }

    pub(crate) fn is_doomed(&self, process: usize) -> bool {
        self.state().processes[process].is_doomed
    }

    /// Resolves when the process is doomed.
    pub(crate) async fn doomed(&self, process: usize) {
        let doom = Arc::clone(&self.state().processes[process].doom);
        if !self.is_doomed(process) {
            doom.notified().await;
        }
    }

    /// The process stands still for so long.
    pub(crate) fn pause(&self, process: usize, ms: u64) {
        let until = self.now_ms() + ms;
        let mut state = self.state();
        let paused = &mut state.processes[process].paused_until;
        *paused = (*paused).max(until);
    }

    /// Passes when the process runs; never when it is doomed.
    pub(crate) async fn gate(&self, process: usize) {
        loop {
            let (is_doomed, until) = {
                let state = self.state();
                (state.processes[process].is_doomed, state.processes[process].paused_until)
            };
            if is_doomed || !self.count() {
                return std::future::pending().await;
            }
            match until.saturating_sub(self.now_ms()) {
                0 => return,
                ms => self.sleep(ms).await,
            }
        }
    }

    /// A sign of life of a worker reached the store. Gives back until when it is believed in, or nothing when it is not
    /// any more.
    pub(crate) fn sign_of_life(&self, worker: &WorkerId) -> Option<u64> {
        let until = match self.liveness {
            Liveness::Lock => u64::MAX,
            Liveness::Lease => self.now_ms() + self.lease_ms,
        };
        let mut state = self.state();
        let joined = state.workers.entry(worker.clone()).or_insert(Joined { until, is_gone: false });
        joined.until = joined.until.max(until);
        (!joined.is_gone).then_some(joined.until)
    }

    /// A process is known to the store as a worker.
    pub(crate) fn joined(&self, process: usize, worker: &WorkerId) {
        self.state().processes[process].workers.push(worker.clone());
    }

    /// A process has died. The store knows at once where a lock tells, and by silence otherwise. Gives back when it
    /// knows.
    pub(crate) fn died(&self, process: usize) -> u64 {
        let workers = std::mem::take(&mut self.state().processes[process].workers);
        match self.liveness {
            Liveness::Lock => {
                workers.iter().for_each(|worker| self.gone(worker));
                self.now_ms()
            }
            Liveness::Lease => self.now_ms() + self.lease_ms,
        }
    }

    /// A worker is gone: it left, died, or was silent for too long.
    pub(crate) fn gone(&self, worker: &WorkerId) {
        match self.state().workers.get_mut(worker) {
            Some(joined) if !joined.is_gone => joined.is_gone = true,
            Some(_) | None => return,
        }
        self.store.forget(worker);
        let now = self.now_ms();
        let op = Op::Down { worker: worker.0.clone() };
        let record = Record { process: "store".into(), op, op_id: None, start: now, end: now, result: Result::Ok };
        self.state().records.push(record);
    }

    /// Declares workers dead whose time is over.
    pub(crate) fn expire(&self) {
        let now = self.now_ms();
        let over: Vec<WorkerId> = {
            let state = self.state();
            let over = state.workers.iter().filter(|(_, joined)| !joined.is_gone && joined.until <= now);
            over.map(|(worker, _)| worker.clone()).collect()
        };
        for worker in over {
            self.gone(&worker);
        }
    }
}
