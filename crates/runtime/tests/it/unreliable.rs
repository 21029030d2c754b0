//! A store that counts what it is asked, and loses requests or answers when told to.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use windlass_core::audit;
use windlass_core::ids::{Name, RunId};
use windlass_core::seal::Segment;
use windlass_ports::BoxFuture;
use windlass_ports::fake::MemoryStore;
use windlass_ports::store::rates::{BucketRow, Rates, Take, Taken};
use windlass_ports::store::{
    Answer, Beat, Claim, Commit, Committed, Kept, Layer, Lease, Load, OpId, Pruning, Removed, Sealing, Store,
    StoreError, Stored, Trail, Unsealed, WorkerId,
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

impl Layer for Unreliable {
    fn below(&self) -> &dyn Store {
        self.asked()
    }

    fn rates(&self) -> &dyn Rates {
        self
    }

    fn trail(&self) -> &dyn Trail {
        self
    }

    fn beat(&self, worker: WorkerId, load: Load) -> Answer<'_, Beat> {
        if self.outdated.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::NewerSchema { found: 3, known: 2 }) });
        }
        if self.lapsed.load(Ordering::SeqCst) { unavailable() } else { self.asked().beat(worker, load) }
    }

    fn is_current(&self, worker: &WorkerId) -> bool {
        !self.lapsed.load(Ordering::SeqCst) && self.inner.is_current(worker)
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

    fn changed(&self) -> BoxFuture<'_, ()> {
        self.inner.changed()
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
