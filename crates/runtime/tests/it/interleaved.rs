//! A store in memory whose answers take their time: others come in between, and a caller can be made to hang at any
//! request, before or after it is done, as when its process dies.

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use windlass_core::audit;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Sent;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::fake::MemoryStore;
use windlass_ports::store::rates::Rates;
use windlass_ports::store::{
    Beat, Claim, Commit, Committed, Created, Delivered, Finding, InboxItem, JournalRow, Keep, Lease, Load, Message,
    NewRun, Object, OpId, Page, Pruned, Put, Query, Reaped, Registration, Retention, Signal, Signalled, Stats, Store,
    StoreError, Stored, Trail, WaitRow, WorkerId, WorkerRow,
};

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Wraps the store in memory.
#[derive(Debug)]
pub(crate) struct Interleaved {
    inner: MemoryStore,
    random: AtomicU64,
    asked: AtomicUsize,
    hangs_at: usize,
}

impl Interleaved {
    /// A store whose delays follow from a seed.
    pub(crate) fn new(inner: MemoryStore, seed: u64) -> Self {
        Self { inner, random: AtomicU64::new(seed), asked: AtomicUsize::new(0), hangs_at: usize::MAX }
    }

    /// A store that does not answer from a point on: two points for each request, before and after it is done.
    pub(crate) fn hanging(inner: MemoryStore, at: usize) -> Self {
        Self { hangs_at: at, ..Self::new(inner, 0) }
    }

    /// Whether the point at which it hangs was reached.
    pub(crate) fn hung(&self) -> bool {
        self.asked.load(Ordering::SeqCst) > self.hangs_at
    }

    async fn pass(&self) {
        if self.asked.fetch_add(1, Ordering::SeqCst) >= self.hangs_at {
            return std::future::pending().await;
        }
        let step = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        let spread = (step ^ (step >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 61;
        for _ in 0..spread {
            tokio::task::yield_now().await;
        }
    }

    /// Performs a request between two points. The store in memory does it when it is asked, not when it is waited for.
    fn slowly<'a, T: Send + 'a>(
        &'a self,
        ask: impl FnOnce(&'a MemoryStore) -> Answer<'a, T> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            self.pass().await;
            let answer = ask(&self.inner).await;
            self.pass().await;
            answer
        })
    }
}

impl Store for Interleaved {
    fn rates(&self) -> &dyn Rates {
        self.inner.rates()
    }

    fn trail(&self) -> &dyn Trail {
        self.inner.trail()
    }

    fn join(&self, registration: Registration) -> Answer<'_, WorkerId> {
        self.inner.join(registration)
    }

    fn beat(&self, worker: WorkerId, load: Load) -> Answer<'_, Beat> {
        self.inner.beat(worker, load)
    }

    fn leases(&self, worker: WorkerId) -> Answer<'_, Vec<Lease>> {
        self.inner.leases(worker)
    }

    fn is_current(&self, worker: &WorkerId) -> bool {
        self.inner.is_current(worker)
    }

    fn leave(&self, worker: WorkerId) -> Answer<'_, ()> {
        self.inner.leave(worker)
    }

    fn reap(&self) -> Answer<'_, Reaped> {
        self.inner.reap()
    }

    fn workers(&self) -> Answer<'_, Vec<WorkerRow>> {
        self.inner.workers()
    }

    fn requeue(&self, run: RunId) -> Answer<'_, bool> {
        self.inner.requeue(run)
    }

    fn fence(&self, reason: Name) -> Answer<'_, u64> {
        self.inner.fence(reason)
    }

    fn object(&self, kind: Name, key: Name) -> Answer<'_, Option<Object>> {
        self.slowly(|inner| inner.object(kind, key))
    }

    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> Answer<'_, Vec<Object>> {
        self.slowly(move |inner| inner.objects(kind, after, limit))
    }

    fn put_object(&self, put: Put) -> Answer<'_, bool> {
        self.slowly(|inner| inner.put_object(put))
    }

    fn draw(&self, draw: Draw) -> Answer<'_, Drawn> {
        self.slowly(|inner| inner.draw(draw))
    }

    fn put_bundle(&self, digest: Digest, bytes: Vec<u8>) -> Answer<'_, ()> {
        self.slowly(move |inner| inner.put_bundle(digest, bytes))
    }

    fn blob(&self, digest: Digest) -> Answer<'_, Option<Vec<u8>>> {
        self.inner.blob(digest)
    }

    fn create(&self, run: NewRun) -> Answer<'_, Created> {
        self.slowly(|inner| inner.create(run))
    }

    fn claim(&self, claim: Claim) -> Answer<'_, Vec<Lease>> {
        self.inner.claim(claim)
    }

    fn take_over(&self, run: RunId, worker: WorkerId, expected: Option<Status>) -> Answer<'_, Option<Lease>> {
        self.inner.take_over(run, worker, expected)
    }

    fn load(&self, run: RunId) -> Answer<'_, Option<Stored>> {
        self.inner.load(run)
    }

    fn commit(&self, commit: Commit) -> Answer<'_, Committed> {
        self.inner.commit(commit)
    }

    fn was_committed(&self, run: RunId, op: OpId) -> Answer<'_, bool> {
        self.inner.was_committed(run, op)
    }

    fn release(&self, lease: Lease, worker: WorkerId, keep: Keep) -> Answer<'_, ()> {
        self.inner.release(lease, worker, keep)
    }

    fn inbox(&self, run: RunId) -> Answer<'_, Vec<InboxItem>> {
        self.inner.inbox(run)
    }

    fn deliver(&self, message: Message) -> Answer<'_, Delivered> {
        self.slowly(|inner| inner.deliver(message))
    }

    fn signal(&self, signal: Signal) -> Answer<'_, Signalled> {
        self.inner.signal(signal)
    }

    fn next_due(&self, within: Option<RunId>) -> Answer<'_, Option<Timestamp>> {
        self.inner.next_due(within)
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        self.inner.changed()
    }

    fn mark_sent(&self, run: &RunId, effect: EffectId, attempt: u32) -> Result<(), StoreError> {
        self.inner.mark_sent(run, effect, attempt)
    }

    fn clear_sent(&self, run: &RunId, effect: EffectId, attempt: u32) {
        self.inner.clear_sent(run, effect, attempt);
    }

    fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent {
        self.inner.was_sent(worker, run, effect, attempt)
    }

    fn journal(&self, run: RunId, after: u64, limit: usize) -> Answer<'_, Vec<JournalRow>> {
        self.inner.journal(run, after, limit)
    }

    fn audit(&self, run: RunId) -> Answer<'_, Vec<audit::Row>> {
        self.inner.audit(run)
    }

    fn waits(&self, run: RunId, tree: bool) -> Answer<'_, Vec<(RunId, WaitRow)>> {
        self.inner.waits(run, tree)
    }

    fn ids(&self, after: Option<RunId>, limit: usize) -> Answer<'_, Vec<RunId>> {
        self.slowly(move |inner| inner.ids(after, limit))
    }

    fn list(&self, query: Query) -> Answer<'_, Page> {
        self.slowly(|inner| inner.list(query))
    }

    fn prune(&self, retention: Retention) -> Answer<'_, Pruned> {
        self.inner.prune(retention)
    }

    fn fsck(&self) -> Answer<'_, Vec<Finding>> {
        self.inner.fsck()
    }

    fn stats(&self) -> Answer<'_, Stats> {
        self.inner.stats()
    }

    fn backup(&self, to: &Path) -> Answer<'_, ()> {
        self.inner.backup(to)
    }
}
