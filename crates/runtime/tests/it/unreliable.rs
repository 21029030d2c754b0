//! A store that counts what it is asked, and loses requests or answers when told to.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use windlass_core::audit;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Sent;
use windlass_core::run::Status;
use windlass_core::seal::Segment;
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::fake::MemoryStore;
use windlass_ports::store::rates::{BucketRow, Rates, Take, Taken};
use windlass_ports::store::{
    Beat, Claim, Commit, Committed, Created, Delivered, Finding, InboxItem, JournalRow, Keep, Kept, Lease, Load,
    Message, NewRun, Object, OpId, Page, Pruned, Pruning, Put, Query, Reaped, Registration, Removed, Retention,
    Sealing, Signal, Signalled, Stats, Store, StoreError, Stored, Trail, Unsealed, WaitRow, WorkerId, WorkerRow,
};

/// What happens to the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lose {
    /// Nothing.
    Nothing,
    /// It does not arrive.
    Request,
    /// It arrives, and the answer does not.
    Answer,
    /// It does not arrive, and nothing ever says so.
    Word,
}

/// Wraps the store in memory.
#[derive(Debug)]
pub(crate) struct Unreliable {
    inner: MemoryStore,
    calls: AtomicUsize,
    loads: AtomicUsize,
    plan: Mutex<VecDeque<Lose>>,
    deaf: AtomicUsize,
    away: AtomicBool,
    lapsed: AtomicBool,
    unheard: AtomicUsize,
    outdated: AtomicBool,
    trail_writes: AtomicUsize,
    broken_trips: AtomicUsize,
}

impl Unreliable {
    pub(crate) fn new(inner: MemoryStore) -> Self {
        Self {
            inner,
            calls: AtomicUsize::new(0),
            loads: AtomicUsize::new(0),
            plan: Mutex::default(),
            deaf: AtomicUsize::new(0),
            away: AtomicBool::new(false),
            lapsed: AtomicBool::new(false),
            unheard: AtomicUsize::new(0),
            outdated: AtomicBool::new(false),
            trail_writes: AtomicUsize::new(usize::MAX),
            broken_trips: AtomicUsize::new(0),
        }
    }

    /// So many trips for permits break, in such a way that whoever makes them breaks with them.
    pub(crate) fn break_trips(&self, trips: usize) {
        self.broken_trips.store(trips, Ordering::SeqCst);
    }

    /// What happens to the commits to come.
    pub(crate) fn plan(&self, plan: &[Lose]) {
        *self.plan.lock().expect("lock") = plan.iter().copied().collect();
    }

    /// Whether everything that was planned has happened.
    pub(crate) fn is_done(&self) -> bool {
        self.plan.lock().expect("lock").is_empty()
    }

    /// How many requests after a lost commit are not answered either.
    pub(crate) fn deaf(&self, requests: usize) {
        self.deaf.store(requests, Ordering::SeqCst);
    }

    /// Nothing can be claimed from here on.
    pub(crate) fn go_away(&self) {
        self.away.store(true, Ordering::SeqCst);
    }

    /// No heartbeat arrives, and the leases of this process run out, or that ends.
    pub(crate) fn lapse(&self, lapsed: bool) {
        self.lapsed.store(lapsed, Ordering::SeqCst);
    }

    /// The answers to so many claims that give something do not arrive.
    pub(crate) fn lose_claims(&self, claims: usize) {
        self.unheard.store(claims, Ordering::SeqCst);
    }

    /// Another process brings the schema beyond what this build knows.
    pub(crate) fn outdate(&self) {
        self.outdated.store(true, Ordering::SeqCst);
    }

    /// Only so many more writes of the audit trail arrive: the process is dead then.
    pub(crate) fn stop_trail_after(&self, writes: usize) {
        self.trail_writes.store(writes, Ordering::SeqCst);
    }

    fn written(&self) -> bool {
        self.trail_writes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    /// How often it was asked for anything.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// How often a run was read.
    pub(crate) fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }

    fn asked(&self) -> &MemoryStore {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &self.inner
    }
}

fn unavailable<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, StoreError>> {
    Box::pin(async { Err(StoreError::Unavailable("on purpose".into())) })
}

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl Rates for Unreliable {
    fn take(&self, take: Take) -> Answer<'_, Taken> {
        let breaks = self.broken_trips.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(breaks.is_err(), "a trip breaks on purpose");
        self.inner.rates().take(take)
    }

    fn buckets(&self, after: Option<Name>, limit: usize) -> Answer<'_, Vec<BucketRow>> {
        self.inner.rates().buckets(after, limit)
    }
}

impl Store for Unreliable {
    fn rates(&self) -> &dyn Rates {
        self
    }

    fn trail(&self) -> &dyn Trail {
        self
    }

    fn join(&self, registration: Registration) -> Answer<'_, WorkerId> {
        self.asked().join(registration)
    }

    fn beat(&self, worker: WorkerId, load: Load) -> Answer<'_, Beat> {
        if self.outdated.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::NewerSchema { found: 3, known: 2 }) });
        }
        if self.lapsed.load(Ordering::SeqCst) { unavailable() } else { self.asked().beat(worker, load) }
    }

    fn leases(&self, worker: WorkerId) -> Answer<'_, Vec<Lease>> {
        self.asked().leases(worker)
    }

    fn is_current(&self, worker: &WorkerId) -> bool {
        !self.lapsed.load(Ordering::SeqCst) && self.inner.is_current(worker)
    }

    fn leave(&self, worker: WorkerId) -> Answer<'_, ()> {
        self.asked().leave(worker)
    }

    fn reap(&self) -> Answer<'_, Reaped> {
        self.asked().reap()
    }

    fn workers(&self) -> Answer<'_, Vec<WorkerRow>> {
        self.asked().workers()
    }

    fn requeue(&self, run: RunId) -> Answer<'_, bool> {
        self.asked().requeue(run)
    }

    fn fence(&self, reason: Name) -> Answer<'_, u64> {
        self.asked().fence(reason)
    }

    fn object(&self, kind: Name, key: Name) -> Answer<'_, Option<Object>> {
        self.asked().object(kind, key)
    }

    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> Answer<'_, Vec<Object>> {
        self.asked().objects(kind, after, limit)
    }

    fn put_object(&self, put: Put) -> Answer<'_, bool> {
        self.asked().put_object(put)
    }

    fn draw(&self, draw: Draw) -> Answer<'_, Drawn> {
        self.asked().draw(draw)
    }

    fn put_bundle(&self, digest: Digest, bytes: Vec<u8>) -> Answer<'_, ()> {
        self.asked().put_bundle(digest, bytes)
    }

    fn blob(&self, digest: Digest) -> Answer<'_, Option<Vec<u8>>> {
        self.asked().blob(digest)
    }

    fn create(&self, run: NewRun) -> Answer<'_, Created> {
        self.asked().create(run)
    }

    fn claim(&self, claim: Claim) -> Answer<'_, Vec<Lease>> {
        if self.away.load(Ordering::SeqCst) {
            return unavailable();
        }
        let loses = self.unheard.load(Ordering::SeqCst);
        if loses == 0 {
            return self.asked().claim(claim);
        }
        Box::pin(async move {
            let leases = self.asked().claim(claim).await?;
            if leases.is_empty() {
                return Ok(leases);
            }
            self.unheard.store(loses - 1, Ordering::SeqCst);
            Err(StoreError::Unavailable("the answer is lost on purpose".into()))
        })
    }

    fn take_over(&self, run: RunId, worker: WorkerId, expected: Option<Status>) -> Answer<'_, Option<Lease>> {
        self.asked().take_over(run, worker, expected)
    }

    fn load(&self, run: RunId) -> Answer<'_, Option<Stored>> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.asked().load(run)
    }

    fn commit(&self, commit: Commit) -> Answer<'_, Committed> {
        let lose = self.plan.lock().expect("lock").pop_front().unwrap_or(Lose::Nothing);
        match lose {
            Lose::Nothing => self.asked().commit(commit),
            Lose::Request => unavailable(),
            Lose::Word => Box::pin(std::future::pending()),
            Lose::Answer => Box::pin(async move {
                self.asked().commit(commit).await?;
                Err(StoreError::Unavailable("on purpose".into()))
            }),
        }
    }

    fn was_committed(&self, run: RunId, op: OpId) -> Answer<'_, bool> {
        if self.deaf.load(Ordering::SeqCst) > 0 {
            self.deaf.fetch_sub(1, Ordering::SeqCst);
            return unavailable();
        }
        self.asked().was_committed(run, op)
    }

    fn release(&self, lease: Lease, worker: WorkerId, keep: Keep) -> Answer<'_, ()> {
        self.asked().release(lease, worker, keep)
    }

    fn inbox(&self, run: RunId) -> Answer<'_, Vec<InboxItem>> {
        self.asked().inbox(run)
    }

    fn deliver(&self, message: Message) -> Answer<'_, Delivered> {
        self.asked().deliver(message)
    }

    fn signal(&self, signal: Signal) -> Answer<'_, Signalled> {
        self.asked().signal(signal)
    }

    fn next_due(&self, within: Option<RunId>) -> Answer<'_, Option<Timestamp>> {
        self.asked().next_due(within)
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        self.inner.changed()
    }

    fn mark_sent(&self, run: &RunId, effect: EffectId, attempt: u32) -> Result<(), StoreError> {
        self.asked().mark_sent(run, effect, attempt)
    }

    fn clear_sent(&self, run: &RunId, effect: EffectId, attempt: u32) {
        self.asked().clear_sent(run, effect, attempt);
    }

    fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent {
        self.asked().was_sent(worker, run, effect, attempt)
    }

    fn journal(&self, run: RunId, after: u64, limit: usize) -> Answer<'_, Vec<JournalRow>> {
        self.asked().journal(run, after, limit)
    }

    fn audit(&self, run: RunId) -> Answer<'_, Vec<audit::Row>> {
        self.asked().audit(run)
    }

    fn waits(&self, run: RunId, tree: bool) -> Answer<'_, Vec<(RunId, WaitRow)>> {
        self.asked().waits(run, tree)
    }

    fn ids(&self, after: Option<RunId>, limit: usize) -> Answer<'_, Vec<RunId>> {
        self.asked().ids(after, limit)
    }

    fn list(&self, query: Query) -> Answer<'_, Page> {
        self.asked().list(query)
    }

    fn prune(&self, retention: Retention) -> Answer<'_, Pruned> {
        self.asked().prune(retention)
    }

    fn fsck(&self) -> Answer<'_, Vec<Finding>> {
        self.asked().fsck()
    }

    fn stats(&self) -> Answer<'_, Stats> {
        self.asked().stats()
    }

    fn backup(&self, to: &Path) -> Answer<'_, ()> {
        self.asked().backup(to)
    }
}

impl Trail for Unreliable {
    fn unsealed(&self, limit: usize) -> Answer<'_, Unsealed> {
        self.inner.trail().unsealed(limit)
    }

    fn seal(&self, sealing: Sealing) -> Answer<'_, bool> {
        if self.written() { self.inner.trail().seal(sealing) } else { unavailable() }
    }

    fn segments(&self, tenant: Name, after: u64, limit: usize) -> Answer<'_, Vec<Segment>> {
        self.inner.trail().segments(tenant, after, limit)
    }

    fn tenants(&self) -> Answer<'_, Vec<Name>> {
        self.inner.trail().tenants()
    }

    fn kept(&self, of: Removed, after: u64, limit: usize) -> Answer<'_, Vec<Kept>> {
        self.inner.trail().kept(of, after, limit)
    }

    fn act(&self, tenant: Name, act: audit::Act) -> Answer<'_, bool> {
        if self.written() { self.inner.trail().act(tenant, act) } else { unavailable() }
    }

    fn acts(&self, tenant: Name, after: u64, limit: usize) -> Answer<'_, Vec<audit::Act>> {
        self.inner.trail().acts(tenant, after, limit)
    }

    fn cut(&self, pruning: Pruning) -> Answer<'_, ()> {
        if self.written() { self.inner.trail().cut(pruning) } else { unavailable() }
    }

    fn last_act(&self, tenant: Name) -> Answer<'_, Option<audit::Act>> {
        self.inner.trail().last_act(tenant)
    }
}
