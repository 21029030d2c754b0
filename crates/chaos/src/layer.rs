//! A layer over a store: everything goes through to the store below but what the layer does otherwise.

use std::fmt;
use std::path::Path;

use windlass_core::audit;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Sent;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::store::rates::Rates;
use windlass_ports::store::{
    Beat, Claim, Commit, Committed, Created, Delivered, Finding, InboxItem, JournalRow, Keep, Lease, Load, Message,
    NewRun, Object, OpId, Page, Pruned, Put, Query, Reaped, Registration, Retention, Signal, Signalled, Stats, Store,
    StoreError, Stored, Trail, WaitRow, WorkerId, WorkerRow,
};

/// What a store answers, in time.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// What a layer does otherwise than the store below it. What it does not say goes through.
pub trait Layer: Send + Sync + fmt::Debug {
    /// The store below.
    fn below(&self) -> &dyn Store;

    /// See [`Store::is_current`].
    fn is_current(&self, worker: &WorkerId) -> bool {
        self.below().is_current(worker)
    }

    /// See [`Store::beat`].
    fn beat(&self, worker: WorkerId, load: Load) -> Answer<'_, Beat> {
        self.below().beat(worker, load)
    }

    /// See [`Store::create`].
    fn create(&self, run: NewRun) -> Answer<'_, Created> {
        self.below().create(run)
    }

    /// See [`Store::claim`].
    fn claim(&self, claim: Claim) -> Answer<'_, Vec<Lease>> {
        self.below().claim(claim)
    }

    /// See [`Store::take_over`].
    fn take_over(&self, run: RunId, worker: WorkerId, expected: Option<Status>) -> Answer<'_, Option<Lease>> {
        self.below().take_over(run, worker, expected)
    }

    /// See [`Store::load`].
    fn load(&self, run: RunId) -> Answer<'_, Option<Stored>> {
        self.below().load(run)
    }

    /// See [`Store::commit`].
    fn commit(&self, commit: Commit) -> Answer<'_, Committed> {
        self.below().commit(commit)
    }

    /// See [`Store::deliver`].
    fn deliver(&self, message: Message) -> Answer<'_, Delivered> {
        self.below().deliver(message)
    }

    /// See [`Store::signal`].
    fn signal(&self, signal: Signal) -> Answer<'_, Signalled> {
        self.below().signal(signal)
    }

    /// See [`Store::mark_sent`].
    fn mark_sent(&self, run: &RunId, effect: EffectId, attempt: u32) -> Result<(), StoreError> {
        self.below().mark_sent(run, effect, attempt)
    }

    /// See [`Store::clear_sent`].
    fn clear_sent(&self, run: &RunId, effect: EffectId, attempt: u32) {
        self.below().clear_sent(run, effect, attempt);
    }

    /// See [`Store::was_sent`].
    fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent {
        self.below().was_sent(worker, run, effect, attempt)
    }

    /// See [`Store::object`].
    fn object(&self, kind: Name, key: Name) -> Answer<'_, Option<Object>> {
        self.below().object(kind, key)
    }

    /// See [`Store::put_object`].
    fn put_object(&self, put: Put) -> Answer<'_, bool> {
        self.below().put_object(put)
    }

    /// See [`Store::draw`].
    fn draw(&self, draw: Draw) -> Answer<'_, Drawn> {
        self.below().draw(draw)
    }
}

/// A store with a layer over it.
#[derive(Debug)]
pub struct Layered<L>(pub L);

impl<L: Layer> Store for Layered<L> {
    fn join(&self, registration: Registration) -> Answer<'_, WorkerId> {
        self.0.below().join(registration)
    }

    fn beat(&self, worker: WorkerId, load: Load) -> Answer<'_, Beat> {
        self.0.beat(worker, load)
    }

    fn rates(&self) -> &dyn Rates {
        self.0.below().rates()
    }

    fn trail(&self) -> &dyn Trail {
        self.0.below().trail()
    }

    fn leases(&self, worker: WorkerId) -> Answer<'_, Vec<Lease>> {
        self.0.below().leases(worker)
    }

    fn is_current(&self, worker: &WorkerId) -> bool {
        self.0.is_current(worker)
    }

    fn leave(&self, worker: WorkerId) -> Answer<'_, ()> {
        self.0.below().leave(worker)
    }

    fn reap(&self) -> Answer<'_, Reaped> {
        self.0.below().reap()
    }

    fn workers(&self) -> Answer<'_, Vec<WorkerRow>> {
        self.0.below().workers()
    }

    fn put_bundle(&self, digest: Digest, bytes: Vec<u8>) -> Answer<'_, ()> {
        self.0.below().put_bundle(digest, bytes)
    }

    fn blob(&self, digest: Digest) -> Answer<'_, Option<Vec<u8>>> {
        self.0.below().blob(digest)
    }

    fn create(&self, run: NewRun) -> Answer<'_, Created> {
        self.0.create(run)
    }

    fn claim(&self, claim: Claim) -> Answer<'_, Vec<Lease>> {
        self.0.claim(claim)
    }

    fn take_over(&self, run: RunId, worker: WorkerId, expected: Option<Status>) -> Answer<'_, Option<Lease>> {
        self.0.take_over(run, worker, expected)
    }

    fn load(&self, run: RunId) -> Answer<'_, Option<Stored>> {
        self.0.load(run)
    }

    fn commit(&self, commit: Commit) -> Answer<'_, Committed> {
        self.0.commit(commit)
    }

    fn was_committed(&self, run: RunId, op: OpId) -> Answer<'_, bool> {
        self.0.below().was_committed(run, op)
    }

    fn requeue(&self, run: RunId) -> Answer<'_, bool> {
        self.0.below().requeue(run)
    }

    fn fence(&self, reason: Name) -> Answer<'_, u64> {
        self.0.below().fence(reason)
    }

    fn release(&self, lease: Lease, worker: WorkerId, keep: Keep) -> Answer<'_, ()> {
        self.0.below().release(lease, worker, keep)
    }

    fn inbox(&self, run: RunId) -> Answer<'_, Vec<InboxItem>> {
        self.0.below().inbox(run)
    }

    fn deliver(&self, message: Message) -> Answer<'_, Delivered> {
        self.0.deliver(message)
    }

    fn signal(&self, signal: Signal) -> Answer<'_, Signalled> {
        self.0.signal(signal)
    }

    fn next_due(&self, within: Option<RunId>) -> Answer<'_, Option<Timestamp>> {
        self.0.below().next_due(within)
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        self.0.below().changed()
    }

    fn mark_sent(&self, run: &RunId, effect: EffectId, attempt: u32) -> Result<(), StoreError> {
        self.0.mark_sent(run, effect, attempt)
    }

    fn clear_sent(&self, run: &RunId, effect: EffectId, attempt: u32) {
        self.0.clear_sent(run, effect, attempt);
    }

    fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent {
        self.0.was_sent(worker, run, effect, attempt)
    }

    fn object(&self, kind: Name, key: Name) -> Answer<'_, Option<Object>> {
        self.0.object(kind, key)
    }

    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> Answer<'_, Vec<Object>> {
        self.0.below().objects(kind, after, limit)
    }

    fn put_object(&self, put: Put) -> Answer<'_, bool> {
        self.0.put_object(put)
    }

    fn draw(&self, draw: Draw) -> Answer<'_, Drawn> {
        self.0.draw(draw)
    }

    fn journal(&self, run: RunId, after: u64, limit: usize) -> Answer<'_, Vec<JournalRow>> {
        self.0.below().journal(run, after, limit)
    }

    fn audit(&self, run: RunId) -> Answer<'_, Vec<audit::Row>> {
        self.0.below().audit(run)
    }

    fn waits(&self, run: RunId, tree: bool) -> Answer<'_, Vec<(RunId, WaitRow)>> {
        self.0.below().waits(run, tree)
    }

    fn ids(&self, after: Option<RunId>, limit: usize) -> Answer<'_, Vec<RunId>> {
        self.0.below().ids(after, limit)
    }

    fn list(&self, query: Query) -> Answer<'_, Page> {
        self.0.below().list(query)
    }

    fn prune(&self, retention: Retention) -> Answer<'_, Pruned> {
        self.0.below().prune(retention)
    }

    fn fsck(&self) -> Answer<'_, Vec<Finding>> {
        self.0.below().fsck()
    }

    fn stats(&self) -> Answer<'_, Stats> {
        self.0.below().stats()
    }

    fn backup(&self, to: &Path) -> Answer<'_, ()> {
        self.0.below().backup(to)
    }
}
