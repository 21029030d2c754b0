//! The store in memory: the plain statement of what every store must do. Its content dies with its last handle.
//!
//! Owns handles, liveness of workers and hints. What a change does to the data is in `data`, who gets which run in
//! `queue`, upkeep in `upkeep`.

mod data;
mod queue;
mod rates;
mod trail;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use windlass_core::audit;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Sent;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;

use crate::BoxFuture;
use crate::clock::Clock;
use crate::conformance::store::Damage;
use crate::fake::hint::Hint;
use crate::store::rates::Rates;
use crate::store::{
    Beat, Claim, Commit, Committed, Created, Delivered, Finding, InboxItem, JournalRow, Keep, Lease, Load, Message,
    NewRun, Object, OpId, Page, Pruned, Put, Query, Reaped, Registration, Retention, Signal, Signalled, Stats, Store,
    StoreError, Stored, Trail, WaitRow, WorkerId, WorkerRow,
};
use data::Data;

/// A call that is about to leave, or has left.
type Mark = (RunId, EffectId, u32);

/// How soon the next heartbeat is wanted. Workers die with their handle, so that it matters little.
const BEAT_MS: u64 = 10_000;

#[derive(Debug)]
struct Worker {
    handle: u64,
    marks: BTreeSet<Mark>,
    registration: Registration,
    load: Load,
    seen_at: Timestamp,
    /// It left, or was declared dead while its handle lives.
    gone: bool,
}

/// What all handles share.
#[derive(Debug, Default)]
struct Shared {
    data: Mutex<Data>,
    /// Workers that ever joined; those whose handle is gone are dead.
    workers: Mutex<BTreeMap<WorkerId, Worker>>,
    handles: Mutex<(u64, BTreeMap<u64, Weak<Hint>>)>,
    /// Where the store's time comes from; the system when there is none.
    clock: Option<Arc<dyn Clock>>,
}

impl Shared {
    fn now(&self) -> Timestamp {
        let system = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        self.clock.as_ref().map_or_else(|| Timestamp(system()), |clock| clock.now())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is checked before it is begun, so that a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One handle on a store in memory. [`MemoryStore::another`] gives what another process would have.
#[derive(Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    handle: u64,
    hint: Arc<Hint>,
    claims: AtomicU64,
    reaped: AtomicU64,
    /// What claims took back and nobody was told of.
    untold: Mutex<Reaped>,
    /// Objects are refused.
    refuses: AtomicBool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        lock(&self.shared.handles).1.remove(&self.handle);
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::attached(Arc::default())
    }

    /// An empty store whose time is that of a clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self::attached(Arc::new(Shared { clock: Some(clock), ..Shared::default() }))
    }

    /// Another handle on the same data. Workers of a dropped handle are dead.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::attached(Arc::clone(&self.shared))
    }

    fn attached(shared: Arc<Shared>) -> Self {
        let hint = Arc::new(Hint::default());
        let handle = {
            let mut handles = lock(&shared.handles);
            handles.0 += 1;
            let handle = handles.0;
            handles.1.insert(handle, Arc::downgrade(&hint));
            handle
        };
        Self {
            shared,
            handle,
            hint,
            claims: AtomicU64::new(0),
            reaped: AtomicU64::new(0),
            untold: Mutex::default(),
            refuses: AtomicBool::new(false),
        }
    }

    /// Refuses every object that is put by this handle, or takes them again, as a database that went read only does.
    pub fn refuse_objects(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Declares a worker dead while its handle lives, as when its process was stopped for longer than a lease lasts.
    pub fn forget(&self, worker: &WorkerId) {
        if let Some(worker) = lock(&self.shared.workers).get_mut(worker) {
            worker.gone = true;
        }
    }

    /// Breaks what is stored, to see whether it is noticed.
    pub fn damage(&self, damage: &Damage) {
        lock(&self.shared.data).damage(damage);
    }

    fn tell_all(&self) {
        let hints: Vec<_> = lock(&self.shared.handles).1.values().filter_map(Weak::upgrade).collect();
        for hint in hints {
            hint.tell();
        }
    }

    fn is_alive(&self, worker: &Worker) -> bool {
        !worker.gone && lock(&self.shared.handles).1.contains_key(&worker.handle)
    }

    fn dead_workers(&self) -> BTreeSet<WorkerId> {
        let workers = lock(&self.shared.workers);
        workers.iter().filter(|(_, worker)| !self.is_alive(worker)).map(|(id, _)| id.clone()).collect()
    }

    fn workers_alive(&self) -> u64 {
        lock(&self.shared.workers).values().filter(|worker| self.is_alive(worker)).count() as u64
    }

    fn rows_of_workers(&self) -> Vec<WorkerRow> {
        let workers = lock(&self.shared.workers);
        let row = |(id, worker): (&WorkerId, &Worker)| WorkerRow {
            id: id.clone(),
            registration: worker.registration.clone(),
            load: worker.load,
            seen_at: worker.seen_at,
            is_alive: self.is_alive(worker),
            runs: self.read(|data| data.runs.values().filter(|row| row.owner.as_ref() == Some(id)).count() as u64),
        };
        let mut rows: Vec<_> = workers.iter().map(row).collect();
        rows.sort_by_key(|row| !row.is_alive);
        rows
    }

    fn read<T>(&self, read: impl FnOnce(&Data) -> T) -> T {
        read(&lock(&self.shared.data))
    }

    /// Makes a change, and tells everyone when something came into the queue or an inbox.
    fn write<T>(&self, write: impl FnOnce(&mut Data) -> T) -> T {
        let (answer, woke) = {
            let mut data = lock(&self.shared.data);
            data.now = self.shared.now();
            let answer = write(&mut data);
            (answer, std::mem::take(&mut data.woke))
        };
        if woke {
            self.tell_all();
        }
        answer
    }

    fn mark(&self, change: impl Fn(&mut BTreeSet<Mark>)) -> Result<(), StoreError> {
        let mut workers = lock(&self.shared.workers);
        let mine = workers.values_mut().filter(|worker| worker.handle == self.handle && !worker.gone);
        match mine.map(|worker| change(&mut worker.marks)).count() {
            0 => Err(StoreError::Invalid("this process has not joined the store".into())),
            _ => Ok(()),
        }
    }

    fn beat_now(&self, worker: &WorkerId, load: Load) -> Beat {
        let now = self.shared.now();
        let held = self.read(|data| data.runs.values().filter(|row| row.owner.as_ref() == Some(worker)).count() as u64);
        let mut workers = lock(&self.shared.workers);
        let mine = workers.get_mut(worker).filter(|worker| worker.handle == self.handle && !worker.gone);
        let is_alive = mine.is_some();
        if let Some(worker) = mine {
            (worker.load, worker.seen_at) = (load, now);
        }
        Beat { now, is_alive, again_ms: BEAT_MS, held: Some(held) }
    }

    fn leave_now(&self, worker: &WorkerId) -> Result<(), StoreError> {
        match lock(&self.shared.workers).get_mut(worker).filter(|worker| worker.handle == self.handle) {
            Some(mine) => mine.gone = true,
            None => return Err(StoreError::Invalid(format!("`{worker}` is no worker of this process"))),
        }
        self.write(|data| data.leave(worker));
        Ok(())
    }

    fn took_back(&self, reaped: &Reaped) {
        self.reaped.fetch_add(reaped.runs + reaped.quarantined.len() as u64, Ordering::Relaxed);
    }

    fn fence_now(&self, reason: &Name) -> u64 {
        for worker in lock(&self.shared.workers).values_mut() {
            worker.gone = true;
        }
        self.write(|data| data.fence(reason))
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Store for MemoryStore {
    fn join(&self, registration: Registration) -> BoxFuture<'_, Result<WorkerId, StoreError>> {
        let mut workers = lock(&self.shared.workers);
        let id = WorkerId(format!("memory-{}", workers.len() + 1).into());
        let (load, seen_at) = (Load::default(), self.shared.now());
        let worker = Worker { handle: self.handle, marks: BTreeSet::new(), registration, load, seen_at, gone: false };
        workers.insert(id.clone(), worker);
        ready(Ok(id))
    }

    fn beat(&self, worker: WorkerId, load: Load) -> BoxFuture<'_, Result<Beat, StoreError>> {
        ready(Ok(self.beat_now(&worker, load)))
    }

    fn leases(&self, worker: WorkerId) -> BoxFuture<'_, Result<Vec<Lease>, StoreError>> {
        ready(Ok(self.read(|data| data.leases(&worker))))
    }

    fn is_current(&self, worker: &WorkerId) -> bool {
        lock(&self.shared.workers).get(worker).is_some_and(|worker| worker.handle == self.handle && !worker.gone)
    }

    fn leave(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.leave_now(&worker))
    }

    fn reap(&self) -> BoxFuture<'_, Result<Reaped, StoreError>> {
        let dead = self.dead_workers();
        let reaped = self.write(|data| {
            let reaped = data.reap(&dead, None);
            data.woke |= reaped.runs > 0;
            reaped
        });
        self.took_back(&reaped);
        ready(Ok(std::mem::take(&mut *lock(&self.untold)).then(reaped)))
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<WorkerRow>, StoreError>> {
        ready(Ok(self.rows_of_workers()))
    }

    fn put_bundle(&self, digest: Digest, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.write(|data| data.put_bundle(digest, bytes)))
    }

    fn blob(&self, digest: Digest) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        ready(self.read(|data| data.blob(digest)))
    }

    fn create(&self, run: NewRun) -> BoxFuture<'_, Result<Created, StoreError>> {
        ready(self.write(|data| data.create(&run)))
    }

    fn claim(&self, claim: Claim) -> BoxFuture<'_, Result<Vec<Lease>, StoreError>> {
        let dead = self.dead_workers();
        if dead.contains(&claim.worker) {
            return ready(Ok(Vec::new()));
        }
        let (leases, reaped) = self.write(|data| data.claim(&claim, &dead));
        self.claims.fetch_add(leases.len() as u64, Ordering::Relaxed);
        self.took_back(&reaped);
        let mut untold = lock(&self.untold);
        *untold = std::mem::take(&mut *untold).then(reaped);
        ready(Ok(leases))
    }

    fn take_over(
        &self,
        run: RunId,
        worker: WorkerId,
        expected: Option<Status>,
    ) -> BoxFuture<'_, Result<Option<Lease>, StoreError>> {
        ready(Ok(self.write(|data| data.take_over(&run, &worker, expected))))
    }

    fn load(&self, run: RunId) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        ready(Ok(self.read(|data| data.load(&run))))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        ready(self.write(|data| data.commit(commit)))
    }

    fn was_committed(&self, run: RunId, op: OpId) -> BoxFuture<'_, Result<bool, StoreError>> {
        ready(Ok(self.read(|data| data.was_committed(&run, op))))
    }

    fn requeue(&self, run: RunId) -> BoxFuture<'_, Result<bool, StoreError>> {
        ready(Ok(self.write(|data| data.requeue(&run))))
    }

    fn fence(&self, reason: Name) -> BoxFuture<'_, Result<u64, StoreError>> {
        ready(Ok(self.fence_now(&reason)))
    }

    fn release(&self, lease: Lease, worker: WorkerId, keep: Keep) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.write(|data| data.release(&lease, &worker, keep)))
    }

    fn inbox(&self, run: RunId) -> BoxFuture<'_, Result<Vec<InboxItem>, StoreError>> {
        ready(Ok(self.read(|data| data.inbox(&run))))
    }

    fn deliver(&self, message: Message) -> BoxFuture<'_, Result<Delivered, StoreError>> {
        ready(Ok(self.write(|data| data.deliver(message))))
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'_, Result<Signalled, StoreError>> {
        ready(Ok(self.write(|data| data.signal(signal))))
    }

    fn next_due(&self, within: Option<RunId>) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        ready(Ok(self.read(|data| data.next_due(within.as_ref()))))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.hint.changed())
    }

    fn mark_sent(&self, run: &RunId, effect: EffectId, attempt: u32) -> Result<(), StoreError> {
        self.mark(|marks| {
            marks.insert((run.clone(), effect, attempt));
        })
    }

    fn clear_sent(&self, run: &RunId, effect: EffectId, attempt: u32) {
        // Without a worker there is no mark to clear.
        let _none = self.mark(|marks| {
            marks.remove(&(run.clone(), effect, attempt));
        });
    }

    fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent {
        let dead = self.dead_workers().contains(worker);
        match lock(&self.shared.workers).get(worker) {
            Some(known) if dead && !known.marks.contains(&(run.clone(), effect, attempt)) => Sent::No,
            Some(_) | None => Sent::Maybe,
        }
    }

    fn object(&self, kind: Name, key: Name) -> BoxFuture<'_, Result<Option<Object>, StoreError>> {
        ready(Ok(self.read(|data| data.object(kind, key))))
    }

    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<Object>, StoreError>> {
        ready(Ok(self.read(|data| data.objects(&kind, after.as_ref(), limit))))
    }

    fn put_object(&self, put: Put) -> BoxFuture<'_, Result<bool, StoreError>> {
        if self.refuses.load(Ordering::Relaxed) {
            return ready(Err(StoreError::Unavailable("it takes no objects".into())));
        }
        ready(Ok(self.write(|data| data.put_object(put))))
    }

    fn draw(&self, draw: Draw) -> BoxFuture<'_, Result<Drawn, StoreError>> {
        ready(self.write(|data| data.draw(&draw)))
    }

    fn journal(&self, run: RunId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<JournalRow>, StoreError>> {
        ready(Ok(self.read(|data| data.journal(&run, after, limit))))
    }

    fn audit(&self, run: RunId) -> BoxFuture<'_, Result<Vec<audit::Row>, StoreError>> {
        ready(Ok(self.read(|data| data.audit(&run))))
    }

    fn waits(&self, run: RunId, tree: bool) -> BoxFuture<'_, Result<Vec<(RunId, WaitRow)>, StoreError>> {
        ready(Ok(self.read(|data| data.waits(&run, tree))))
    }

    fn ids(&self, after: Option<RunId>, limit: usize) -> BoxFuture<'_, Result<Vec<RunId>, StoreError>> {
        ready(Ok(self.read(|data| data.ids(after.as_ref(), limit))))
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Page, StoreError>> {
        ready(self.read(|data| data.list(&query)))
    }

    fn rates(&self) -> &dyn Rates {
        self
    }

    fn trail(&self) -> &dyn Trail {
        self
    }

    fn prune(&self, retention: Retention) -> BoxFuture<'_, Result<Pruned, StoreError>> {
        ready(self.write(|data| data.prune(&retention)))
    }

    fn fsck(&self) -> BoxFuture<'_, Result<Vec<Finding>, StoreError>> {
        ready(Ok(self.read(Data::fsck)))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        let workers = self.workers_alive();
        let (claims, reaped) = (self.claims.load(Ordering::Relaxed), self.reaped.load(Ordering::Relaxed));
        ready(Ok(Stats { workers, claims, reaped, ..self.read(Data::stats) }))
    }

    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(Err(StoreError::Invalid(format!("a store in memory cannot be copied to `{}`", to.display()))))
    }
}
