//! The store as one simulated process sees it: the store in memory, behind a network and a server that fail.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::FutureExt;
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

use crate::bug::Bug;
use crate::faults::Fault;
use crate::history::{Granted, Op, Result as Ended};
use crate::world::{Liveness, World};

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// One process's way to the store.
#[derive(Clone, Debug)]
pub(crate) struct SimStore {
    pub(crate) world: Arc<World>,
    pub(crate) process: usize,
    pub(crate) bug: Option<Bug>,
    pub(crate) inner: Arc<MemoryStore>,
    /// Until when this process may believe in its leases, on its own monotonic clock.
    believes_until: Arc<AtomicU64>,
}

/// The answer of a store in memory, which never waits.
pub(crate) fn at_once<T>(answer: BoxFuture<'_, T>) -> T {
    answer.now_or_never().expect("a store in memory answers at once")
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("the connection is gone".into())
}

impl SimStore {
    pub(crate) fn new(world: &Arc<World>, process: usize, bug: Option<Bug>) -> Self {
        let inner = world.handle();
        Self { world: Arc::clone(world), process, bug, inner, believes_until: Arc::default() }
    }

    /// The way to the store. It may be the last that this process does.
    async fn before(&self) -> Result<(), StoreError> {
        let world = &self.world;
        world.gate(self.process).await;
        world.sleep(self.latency_ms()).await;
        if world.strikes(Fault::FailStore) {
            return Err(unavailable());
        }
        self.may_die("on the way to the store").await;
        Ok(())
    }

    /// The way back from a read.
    async fn after_read(&self) {
        self.world.sleep(self.latency_ms()).await;
        self.world.gate(self.process).await;
    }

    /// The way back from a write.
    async fn after_write(&self) -> Result<(), StoreError> {
        self.world.progress.notify_waiters();
        self.may_die("before the answer of the store").await;
        self.world.sleep(self.latency_ms()).await;
        let is_lost = self.world.strikes(Fault::AmbiguousCommit);
        self.world.gate(self.process).await;
        if is_lost { Err(unavailable()) } else { Ok(()) }
    }

    fn latency_ms(&self) -> u64 {
        let world = &self.world;
        if world.strikes(Fault::SlowStore) {
            world.draw(|rng| rng.u64(50..6_000))
        } else if world.may(Fault::SlowStore) || world.may(Fault::Delay) {
            world.draw(|rng| rng.u64(0..4))
        } else {
            0
        }
    }

    async fn may_die(&self, place: &str) {
        if self.world.strikes(Fault::Crash) {
            self.world.note_fault(Some(self.process), &format!("crash {place}"));
            self.world.doom(self.process);
            self.world.gate(self.process).await;
        }
    }

    fn note(&self, op: Op, start: u64, result: Ended) {
        self.world.note(self.process, op, None, start, result);
    }

    fn begin(&self, op: Op, op_id: Option<Name>) -> Begun<'_> {
        Begun { store: self, start: self.world.now_ms(), op: Some((op, op_id)) }
    }

    async fn read<'a, T>(&'a self, ask: impl FnOnce(&'a MemoryStore) -> Answer<'a, T>) -> Result<T, StoreError> {
        self.before().await?;
        let answer = at_once(ask(&self.inner));
        self.after_read().await;
        answer
    }

    async fn write<'a, T>(&'a self, ask: impl FnOnce(&'a MemoryStore) -> Answer<'a, T>) -> Result<T, StoreError> {
        self.before().await?;
        let answer = at_once(ask(&self.inner));
        self.after_write().await?;
        answer
    }

    /// Something that an outsider brings: it may take long, and come twice.
    async fn bring<'a, T>(&'a self, ask: impl Fn(&'a MemoryStore) -> Answer<'a, T>) -> Result<T, StoreError> {
        if self.world.strikes(Fault::Delay) {
            self.world.sleep(self.world.draw(|rng| rng.u64(10..20_000))).await;
        }
        self.before().await?;
        let answer = at_once(ask(&self.inner));
        if self.world.strikes(Fault::Duplicate) {
            let _duplicate = at_once(ask(&self.inner));
        }
        self.after_write().await?;
        answer
    }

    fn believe(&self, worker: &WorkerId, start: u64, until: u64) {
        let lasts = match self.world.liveness {
            Liveness::Lock => u64::MAX,
            Liveness::Lease => start + self.world.lease_ms,
        };
        self.believes_until.store(lasts, Ordering::Relaxed);
        self.note(Op::Alive { worker: worker.0.clone(), until }, start, Ended::Ok);
    }

    async fn join_now(&self, registration: Registration) -> Result<WorkerId, StoreError> {
        let start = self.world.now_ms();
        self.before().await?;
        let worker = at_once(self.inner.join(registration))?;
        let until = self.world.sign_of_life(&worker);
        self.world.joined(self.process, &worker);
        self.after_read().await;
        if let Some(until) = until {
            self.believe(&worker, start, until);
        }
        Ok(worker)
    }

    async fn beat_now(&self, worker: WorkerId, load: Load) -> Result<Beat, StoreError> {
        let start = self.world.now_ms();
        self.before().await?;
        self.world.expire();
        let beat = at_once(self.inner.beat(worker.clone(), load))?;
        let until = self.world.sign_of_life(&worker).filter(|_| beat.is_alive);
        self.after_write().await?;
        if let Some(until) = until {
            self.believe(&worker, start, until);
        } else {
            self.believes_until.store(0, Ordering::Relaxed);
        }
        let held = self.tells(beat.held);
        Ok(Beat { is_alive: until.is_some(), again_ms: self.world.lease_ms / 3, held, ..beat })
    }

    async fn claim_now(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        let start = self.world.now_ms();
        self.before().await?;
        self.world.expire();
        let mut leases = at_once(self.inner.claim(claim.clone()))?;
        if self.bug == Some(Bug::EarlyTakeOver) {
            leases.extend(self.steal(&claim));
        }
        let granted = leases.iter().map(granted).collect();
        self.note(Op::Claim { worker: claim.worker.0, leases: granted }, start, Ended::Ok);
        self.after_write().await?;
        Ok(leases)
    }

    async fn take_over_now(
        &self,
        run: RunId,
        worker: WorkerId,
        expected: Option<Status>,
    ) -> Result<Option<Lease>, StoreError> {
        let start = self.world.now_ms();
        self.before().await?;
        let lease = at_once(self.inner.take_over(run, worker, expected))?;
        if let Some(lease) = &lease {
            self.note(Op::TakeOver { lease: granted(lease) }, start, Ended::Ok);
        }
        self.after_write().await?;
        Ok(lease)
    }

    async fn load_now(&self, run: RunId) -> Result<Option<Stored>, StoreError> {
        let start = self.world.now_ms();
        self.before().await?;
        let stored = at_once(self.inner.load(run))?;
        self.after_read().await;
        if let Some(stored) = &stored {
            let (run, version) = (stored.head.id.clone(), stored.head.version);
            self.note(Op::Read { run, version }, start, Ended::Ok);
        }
        Ok(stored)
    }

    async fn commit_now(&self, commit: Commit) -> Result<Committed, StoreError> {
        let op = Op::Commit {
            run: commit.lease.run.clone(),
            epoch: commit.lease.epoch,
            version: commit.record.version,
            row: Digest::of(&commit.record.bytes),
        };
        let begun = self.begin(op, Some(format!("{:032x}", commit.op.0).into()));
        self.world.gate(self.process).await;
        if self.world.strikes(Fault::FailStore) {
            self.world.sleep(self.latency_ms()).await;
            return Err(unavailable());
        }
        self.may_die("on the way to the store").await;
        let answer = self.sent(commit).await;
        self.after_write().await?;
        let answer = answer?;
        begun.ended(match answer {
            Committed::Applied { .. } => Ended::Ok,
            Committed::Stale => Ended::Fail,
        });
        Ok(answer)
    }

    /// A commit on its way: it arrives whatever becomes of whoever sent it, and perhaps twice.
    async fn sent(&self, commit: Commit) -> Result<Committed, StoreError> {
        let latency_ms = self.latency_ms();
        if latency_ms == 0 {
            return self.apply(commit);
        }
        let server = self.clone();
        let arriving = tokio::spawn(async move {
            server.world.sleep(latency_ms).await;
            let answer = server.apply(commit.clone());
            if server.world.strikes(Fault::Duplicate) {
                // The second answer reaches nobody.
                let _second = at_once(server.inner.commit(commit));
            }
            server.world.progress.notify_waiters();
            answer
        });
        arriving.await.unwrap_or_else(|_| Err(unavailable()))
    }

    async fn put_object_now(&self, put: Put) -> Result<bool, StoreError> {
        let object = format!("{}/{}", put.kind, put.key).into();
        let begun = self.begin(Op::Put { object, expected: put.expected }, None);
        let changed = self.write(|store| store.put_object(put)).await?;
        begun.ended(if changed { Ended::Ok } else { Ended::Fail });
        Ok(changed)
    }

    async fn object_now(&self, kind: Name, key: Name) -> Result<Option<Object>, StoreError> {
        let start = self.world.now_ms();
        let object: Name = format!("{kind}/{key}").into();
        let answer = self.read(|store| store.object(kind, key)).await?;
        let revision = answer.as_ref().map_or(0, |object| object.revision);
        self.note(Op::Get { object, revision }, start, Ended::Ok);
        Ok(answer)
    }

    async fn create_now(&self, new: NewRun) -> Result<Created, StoreError> {
        let begun = self.begin(Op::Create { run: new.start.id.clone() }, None);
        let created = self.bring(|store| store.create(new.clone())).await?;
        begun.ended(match created {
            Created::New | Created::Exists(_) => Ended::Ok,
            Created::Full => Ended::Fail,
        });
        Ok(created)
    }

    async fn deliver_now(&self, message: Message) -> Result<Delivered, StoreError> {
        let begun = self.begin(Op::Deliver { run: message.to.clone(), id: message.id.clone() }, None);
        let delivered = if self.loses_inbox() {
            self.before().await.map(|()| Delivered::Accepted)?
        } else {
            self.bring(|store| store.deliver(message.clone())).await?
        };
        begun.ended(match delivered {
            Delivered::Accepted | Delivered::Duplicate => Ended::Ok,
            Delivered::NotFound | Delivered::Finished => Ended::Fail,
        });
        Ok(delivered)
    }

    async fn signal_now(&self, signal: Signal) -> Result<Signalled, StoreError> {
        let begun = self.begin(Op::Signal { id: signal.id.clone(), channel: signal.channel.clone() }, None);
        let signalled = if self.loses_inbox() {
            let runs = signal.run.into_iter().collect();
            self.before().await.map(|()| Signalled::Delivered(runs))?
        } else {
            self.bring(|store| store.signal(signal.clone())).await?
        };
        begun.ended(match signalled {
            Signalled::Delivered(_) | Signalled::Buffered | Signalled::Duplicate => Ended::Ok,
            Signalled::NotFound | Signalled::Finished => Ended::Fail,
        });
        Ok(signalled)
    }

    /// A hint that is lost is made good by a look at the store, later.
    async fn changed_now(&self) {
        let world = &self.world;
        if world.strikes(Fault::Reorder) {
            // One that comes for nothing.
            world.sleep(world.draw(|rng| rng.u64(1..2_000))).await;
            return world.gate(self.process).await;
        }
        self.inner.changed().await;
        if world.strikes(Fault::Reorder) {
            world.sleep(world.draw(|rng| rng.u64(1..5_000))).await;
        }
        world.gate(self.process).await;
    }
}

/// An operation that changes something. One that is cut off is on record too: nobody knows its end.
struct Begun<'a> {
    store: &'a SimStore,
    start: u64,
    op: Option<(Op, Option<Name>)>,
}

impl Begun<'_> {
    fn ended(mut self, result: Ended) {
        self.note(result);
    }

    fn note(&mut self, result: Ended) {
        if let Some((op, op_id)) = self.op.take() {
            self.store.world.note(self.store.process, op, op_id, self.start, result);
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.note(Ended::Info);
    }
}

fn granted(lease: &Lease) -> Granted {
    let taken_from = lease.taken_from.as_ref().map(|worker| worker.0.clone());
    Granted { run: lease.run.clone(), epoch: lease.epoch, taken_from }
}

impl Store for SimStore {
    fn join(&self, registration: Registration) -> Answer<'_, WorkerId> {
        Box::pin(self.join_now(registration))
    }

    fn beat(&self, worker: WorkerId, load: Load) -> Answer<'_, Beat> {
        Box::pin(self.beat_now(worker, load))
    }

    fn rates(&self) -> &dyn Rates {
        self.inner.rates()
    }

    fn trail(&self) -> &dyn Trail {
        self.inner.trail()
    }

    fn leases(&self, worker: WorkerId) -> Answer<'_, Vec<Lease>> {
        Box::pin(self.read(move |store| store.leases(worker)))
    }

    fn is_current(&self, worker: &WorkerId) -> bool {
        let _same = worker;
        !self.world.is_doomed(self.process) && self.world.now_ms() < self.believes_until.load(Ordering::Relaxed)
    }

    fn leave(&self, worker: WorkerId) -> Answer<'_, ()> {
        Box::pin(async move {
            self.before().await?;
            at_once(self.inner.leave(worker.clone()))?;
            self.world.gone(&worker);
            self.after_write().await
        })
    }

    fn reap(&self) -> Answer<'_, Reaped> {
        Box::pin(async move {
            self.before().await?;
            self.world.expire();
            let reaped = at_once(self.inner.reap());
            self.after_write().await?;
            reaped
        })
    }

    fn workers(&self) -> Answer<'_, Vec<WorkerRow>> {
        Box::pin(self.read(|store| store.workers()))
    }

    fn put_bundle(&self, digest: Digest, bytes: Vec<u8>) -> Answer<'_, ()> {
        Box::pin(self.write(move |store| store.put_bundle(digest, bytes)))
    }

    fn blob(&self, digest: Digest) -> Answer<'_, Option<Vec<u8>>> {
        Box::pin(self.read(move |store| store.blob(digest)))
    }

    fn create(&self, run: NewRun) -> Answer<'_, Created> {
        Box::pin(self.create_now(run))
    }

    fn claim(&self, claim: Claim) -> Answer<'_, Vec<Lease>> {
        Box::pin(self.claim_now(claim))
    }

    fn take_over(&self, run: RunId, worker: WorkerId, expected: Option<Status>) -> Answer<'_, Option<Lease>> {
        Box::pin(self.take_over_now(run, worker, expected))
    }

    fn load(&self, run: RunId) -> Answer<'_, Option<Stored>> {
        Box::pin(self.load_now(run))
    }

    fn commit(&self, commit: Commit) -> Answer<'_, Committed> {
        Box::pin(self.commit_now(commit))
    }

    fn was_committed(&self, run: RunId, op: OpId) -> Answer<'_, bool> {
        Box::pin(self.read(move |store| store.was_committed(run, op)))
    }

    fn requeue(&self, run: RunId) -> Answer<'_, bool> {
        Box::pin(self.write(move |store| store.requeue(run)))
    }

    fn fence(&self, reason: Name) -> Answer<'_, u64> {
        Box::pin(self.write(move |store| store.fence(reason)))
    }

    fn release(&self, lease: Lease, worker: WorkerId, keep: Keep) -> Answer<'_, ()> {
        Box::pin(self.write(move |store| store.release(lease, worker, keep)))
    }

    fn inbox(&self, run: RunId) -> Answer<'_, Vec<InboxItem>> {
        Box::pin(self.read(move |store| store.inbox(run)))
    }

    fn deliver(&self, message: Message) -> Answer<'_, Delivered> {
        Box::pin(self.deliver_now(message))
    }

    fn signal(&self, signal: Signal) -> Answer<'_, Signalled> {
        Box::pin(self.signal_now(signal))
    }

    fn next_due(&self, within: Option<RunId>) -> Answer<'_, Option<Timestamp>> {
        Box::pin(self.read(move |store| store.next_due(within)))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.changed_now())
    }

    fn mark_sent(&self, run: &RunId, effect: EffectId, attempt: u32) -> Result<(), StoreError> {
        if self.world.is_doomed(self.process) {
            return Err(unavailable());
        }
        self.inner.mark_sent(run, effect, attempt)
    }

    fn clear_sent(&self, run: &RunId, effect: EffectId, attempt: u32) {
        if !self.world.is_doomed(self.process) {
            self.inner.clear_sent(run, effect, attempt);
        }
    }

    fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent {
        if self.world.forgets_marks {
            return Sent::Maybe;
        }
        self.inner.was_sent(worker, run, effect, attempt)
    }

    fn object(&self, kind: Name, key: Name) -> Answer<'_, Option<Object>> {
        Box::pin(self.object_now(kind, key))
    }

    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> Answer<'_, Vec<Object>> {
        Box::pin(self.read(move |store| store.objects(kind, after, limit)))
    }

    fn put_object(&self, put: Put) -> Answer<'_, bool> {
        Box::pin(self.put_object_now(put))
    }

    fn draw(&self, draw: Draw) -> Answer<'_, Drawn> {
        Box::pin(self.bring(move |store| store.draw(draw.clone())))
    }

    fn journal(&self, run: RunId, after: u64, limit: usize) -> Answer<'_, Vec<JournalRow>> {
        Box::pin(self.read(move |store| store.journal(run, after, limit)))
    }

    fn audit(&self, run: RunId) -> Answer<'_, Vec<audit::Row>> {
        Box::pin(self.read(move |store| store.audit(run)))
    }

    fn waits(&self, run: RunId, tree: bool) -> Answer<'_, Vec<(RunId, WaitRow)>> {
        Box::pin(self.read(move |store| store.waits(run, tree)))
    }

    fn ids(&self, after: Option<RunId>, limit: usize) -> Answer<'_, Vec<RunId>> {
        Box::pin(self.read(move |store| store.ids(after, limit)))
    }

    fn list(&self, query: Query) -> Answer<'_, Page> {
        Box::pin(self.read(move |store| store.list(query)))
    }

    fn prune(&self, retention: Retention) -> Answer<'_, Pruned> {
        Box::pin(self.write(move |store| store.prune(retention)))
    }

    fn fsck(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(self.read(|store| store.fsck()))
    }

    fn stats(&self) -> Answer<'_, Stats> {
        Box::pin(self.read(|store| store.stats()))
    }

    fn backup(&self, to: &Path) -> Answer<'_, ()> {
        self.inner.backup(to)
    }
}
