//! The store in memory: the plain statement of what every store must do. Its content dies with its last handle.
//!
//! Owns handles, liveness of workers and hints. What a change does to the data is in `data`, upkeep in `upkeep`.

mod data;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use windlass_core::audit;
use windlass_core::ids::{Digest, EffectId, RunId};
use windlass_core::input::Sent;
use windlass_core::time::Timestamp;

use crate::BoxFuture;
use crate::conformance::store::Damage;
use crate::fake::hint::Hint;
use crate::store::{
    Claim, Commit, Committed, Created, Delivered, Finding, InboxItem, JournalRow, Keep, Lease, Message, NewRun, Page,
    Pruned, Query, Retention, Signal, Signalled, Stats, Store, StoreError, Stored, WaitRow, WorkerId,
};
use data::Data;

/// A call that is about to leave, or has left.
type Mark = (RunId, EffectId, u32);

#[derive(Debug)]
struct Worker {
    handle: u64,
    marks: BTreeSet<Mark>,
}

/// What all handles share.
#[derive(Debug, Default)]
struct Shared {
    data: Mutex<Data>,
    /// Workers that ever joined; those whose handle is gone are dead.
    workers: Mutex<BTreeMap<WorkerId, Worker>>,
    handles: Mutex<(u64, BTreeMap<u64, Weak<Hint>>)>,
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
        Self { shared, handle, hint }
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

    fn dead_workers(&self) -> BTreeSet<WorkerId> {
        let alive: BTreeSet<u64> = lock(&self.shared.handles).1.keys().copied().collect();
        let workers = lock(&self.shared.workers);
        workers.iter().filter(|(_, worker)| !alive.contains(&worker.handle)).map(|(id, _)| id.clone()).collect()
    }

    fn workers_alive(&self) -> u64 {
        let dead = self.dead_workers().len();
        (lock(&self.shared.workers).len() - dead) as u64
    }

    fn read<T>(&self, read: impl FnOnce(&Data) -> T) -> T {
        read(&lock(&self.shared.data))
    }

    /// Makes a change, and tells everyone when something came into the queue or an inbox.
    fn write<T>(&self, write: impl FnOnce(&mut Data) -> T) -> T {
        let (answer, woke) = {
            let mut data = lock(&self.shared.data);
            let answer = write(&mut data);
            (answer, std::mem::take(&mut data.woke))
        };
        if woke {
            self.tell_all();
        }
        answer
    }

    fn mark(&self, change: impl FnOnce(&mut BTreeSet<Mark>)) -> Result<(), StoreError> {
        let mut workers = lock(&self.shared.workers);
        match workers.values_mut().find(|worker| worker.handle == self.handle) {
            Some(worker) => {
                change(&mut worker.marks);
                Ok(())
            }
            None => Err(StoreError::Invalid("this process has not joined the store".into())),
        }
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Store for MemoryStore {
    fn join(&self) -> BoxFuture<'_, Result<WorkerId, StoreError>> {
        let mut workers = lock(&self.shared.workers);
        let id = WorkerId(format!("memory-{}", workers.len() + 1).into());
        workers.insert(id.clone(), Worker { handle: self.handle, marks: BTreeSet::new() });
        ready(Ok(id))
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
        ready(Ok(self.write(|data| data.claim(&claim, &dead))))
    }

    fn take_over(&self, run: RunId, worker: WorkerId) -> BoxFuture<'_, Result<Option<Lease>, StoreError>> {
        ready(Ok(self.write(|data| data.take_over(&run, &worker))))
    }

    fn load(&self, run: RunId) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        ready(Ok(self.read(|data| data.load(&run))))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        ready(self.write(|data| data.commit(commit)))
    }

    fn was_committed(&self, run: RunId, op: crate::store::OpId) -> BoxFuture<'_, Result<bool, StoreError>> {
        ready(Ok(self.read(|data| data.was_committed(&run, op))))
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

    fn journal(&self, run: RunId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<JournalRow>, StoreError>> {
        ready(Ok(self.read(|data| data.journal(&run, after, limit))))
    }

    fn audit(&self, run: RunId) -> BoxFuture<'_, Result<Vec<audit::Row>, StoreError>> {
        ready(Ok(self.read(|data| data.audit(&run))))
    }

    fn waits(&self, run: RunId, tree: bool) -> BoxFuture<'_, Result<Vec<(RunId, WaitRow)>, StoreError>> {
        ready(Ok(self.read(|data| data.waits(&run, tree))))
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Page, StoreError>> {
        ready(self.read(|data| data.list(&query)))
    }

    fn prune(&self, retention: Retention) -> BoxFuture<'_, Result<Pruned, StoreError>> {
        ready(Ok(self.write(|data| data.prune(&retention))))
    }

    fn fsck(&self) -> BoxFuture<'_, Result<Vec<Finding>, StoreError>> {
        ready(Ok(self.read(Data::fsck)))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        let workers = self.workers_alive();
        ready(Ok(Stats { workers, ..self.read(Data::stats) }))
    }

    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(Err(StoreError::Invalid(format!("a store in memory cannot be copied to `{}`", to.display()))))
    }
}
