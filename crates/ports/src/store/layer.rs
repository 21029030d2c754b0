//! A layer over a store: everything goes through to the store below but what the layer does otherwise.

use std::fmt;
use std::path::Path;

use windlass_core::audit;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Sent;
use windlass_core::run::{Start, Status};
use windlass_core::time::Timestamp;

use super::rates::Rates;
use super::{
    Beat, Claim, Commit, Committed, Created, Delivered, Finding, InboxItem, JournalRow, Keep, Lease, Load, Message,
    NewRun, Object, OpId, Page, Pruned, Put, Query, Reaped, Registration, Retention, Signal, Signalled, Stats, Store,
    StoreError, Stored, Trail, WaitRow, WorkerId, WorkerRow,
};
use crate::BoxFuture;

/// What a store answers, in time.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// What a layer does otherwise than the store below it. What it does not say goes through. Each layer is a [`Store`].
pub trait Layer: Send + Sync + fmt::Debug {
    /// The store below.
    fn below(&self) -> &dyn Store;

    /// See [`Store::join`].
    fn join(&self, registration: Registration) -> Answer<'_, WorkerId> {
        self.below().join(registration)
    }

    /// See [`Store::beat`].
    fn beat(&self, worker: WorkerId, load: Load) -> Answer<'_, Beat> {
        self.below().beat(worker, load)
    }

    /// See [`Store::leases`].
    fn leases(&self, worker: WorkerId) -> Answer<'_, Vec<Lease>> {
        self.below().leases(worker)
    }

    /// See [`Store::is_current`].
    fn is_current(&self, worker: &WorkerId) -> bool {
        self.below().is_current(worker)
    }

    /// See [`Store::leave`].
    fn leave(&self, worker: WorkerId) -> Answer<'_, ()> {
        self.below().leave(worker)
    }

    /// See [`Store::reap`].
    fn reap(&self) -> Answer<'_, Reaped> {
        self.below().reap()
    }

    /// See [`Store::workers`].
    fn workers(&self) -> Answer<'_, Vec<WorkerRow>> {
        self.below().workers()
    }

    /// See [`Store::put_bundle`].
    fn put_bundle(&self, digest: Digest, bytes: Vec<u8>) -> Answer<'_, ()> {
        self.below().put_bundle(digest, bytes)
    }

    /// See [`Store::blob`].
    fn blob(&self, digest: Digest) -> Answer<'_, Option<Vec<u8>>> {
        self.below().blob(digest)
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

    /// See [`Store::newborn`].
    fn newborn(&self, lease: &Lease) -> Option<Start> {
        self.below().newborn(lease)
    }

    /// See [`Store::commit`].
    fn commit(&self, commit: Commit) -> Answer<'_, Committed> {
        self.below().commit(commit)
    }

    /// See [`Store::was_committed`].
    fn was_committed(&self, run: RunId, op: OpId) -> Answer<'_, bool> {
        self.below().was_committed(run, op)
    }

    /// See [`Store::requeue`].
    fn requeue(&self, run: RunId) -> Answer<'_, bool> {
        self.below().requeue(run)
    }

    /// See [`Store::fence`].
    fn fence(&self, reason: Name) -> Answer<'_, u64> {
        self.below().fence(reason)
    }

    /// See [`Store::release`].
    fn release(&self, lease: Lease, worker: WorkerId, keep: Keep) -> Answer<'_, ()> {
        self.below().release(lease, worker, keep)
    }

    /// See [`Store::inbox`].
    fn inbox(&self, run: RunId) -> Answer<'_, Vec<InboxItem>> {
        self.below().inbox(run)
    }

    /// See [`Store::deliver`].
    fn deliver(&self, message: Message) -> Answer<'_, Delivered> {
        self.below().deliver(message)
    }

    /// See [`Store::signal`].
    fn signal(&self, signal: Signal) -> Answer<'_, Signalled> {
        self.below().signal(signal)
    }

    /// See [`Store::next_due`].
    fn next_due(&self, within: Option<RunId>) -> Answer<'_, Option<Timestamp>> {
        self.below().next_due(within)
    }

    /// See [`Store::changed`].
    fn changed(&self) -> BoxFuture<'_, ()> {
        self.below().changed()
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

    /// See [`Store::objects`].
    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> Answer<'_, Vec<Object>> {
        self.below().objects(kind, after, limit)
    }

    /// See [`Store::put_object`].
    fn put_object(&self, put: Put) -> Answer<'_, bool> {
        self.below().put_object(put)
    }

    /// See [`Store::draw`].
    fn draw(&self, draw: Draw) -> Answer<'_, Drawn> {
        self.below().draw(draw)
    }

    /// See [`Store::journal`].
    fn journal(&self, run: RunId, after: u64, limit: usize) -> Answer<'_, Vec<JournalRow>> {
        self.below().journal(run, after, limit)
    }

    /// See [`Store::audit`].
    fn audit(&self, run: RunId) -> Answer<'_, Vec<audit::Row>> {
        self.below().audit(run)
    }

    /// See [`Store::rates`].
    fn rates(&self) -> &dyn Rates {
        self.below().rates()
    }

    /// See [`Store::trail`].
    fn trail(&self) -> &dyn Trail {
        self.below().trail()
    }

    /// See [`Store::waits`].
    fn waits(&self, run: RunId, tree: bool) -> Answer<'_, Vec<(RunId, WaitRow)>> {
        self.below().waits(run, tree)
    }

    /// See [`Store::ids`].
    fn ids(&self, after: Option<RunId>, limit: usize) -> Answer<'_, Vec<RunId>> {
        self.below().ids(after, limit)
    }

    /// See [`Store::list`].
    fn list(&self, query: Query) -> Answer<'_, Page> {
        self.below().list(query)
    }

    /// See [`Store::prune`].
    fn prune(&self, retention: Retention) -> Answer<'_, Pruned> {
        self.below().prune(retention)
    }

    /// See [`Store::fsck`].
    fn fsck(&self) -> Answer<'_, Vec<Finding>> {
        self.below().fsck()
    }

    /// See [`Store::stats`].
    fn stats(&self) -> Answer<'_, Stats> {
        self.below().stats()
    }

    /// See [`Store::backup`].
    fn backup(&self, to: &Path) -> Answer<'_, ()> {
        self.below().backup(to)
    }
}

impl<L: Layer> Store for L {
    fn join(&self, registration: Registration) -> Answer<'_, WorkerId> {
        Layer::join(self, registration)
    }

    fn beat(&self, worker: WorkerId, load: Load) -> Answer<'_, Beat> {
        Layer::beat(self, worker, load)
    }

    fn leases(&self, worker: WorkerId) -> Answer<'_, Vec<Lease>> {
        Layer::leases(self, worker)
    }

    fn is_current(&self, worker: &WorkerId) -> bool {
        Layer::is_current(self, worker)
    }

    fn leave(&self, worker: WorkerId) -> Answer<'_, ()> {
        Layer::leave(self, worker)
    }

    fn reap(&self) -> Answer<'_, Reaped> {
        Layer::reap(self)
    }

    fn workers(&self) -> Answer<'_, Vec<WorkerRow>> {
        Layer::workers(self)
    }

    fn put_bundle(&self, digest: Digest, bytes: Vec<u8>) -> Answer<'_, ()> {
        Layer::put_bundle(self, digest, bytes)
    }

    fn blob(&self, digest: Digest) -> Answer<'_, Option<Vec<u8>>> {
        Layer::blob(self, digest)
    }

    fn create(&self, run: NewRun) -> Answer<'_, Created> {
        Layer::create(self, run)
    }

    fn claim(&self, claim: Claim) -> Answer<'_, Vec<Lease>> {
        Layer::claim(self, claim)
    }

    fn take_over(&self, run: RunId, worker: WorkerId, expected: Option<Status>) -> Answer<'_, Option<Lease>> {
        Layer::take_over(self, run, worker, expected)
    }

    fn load(&self, run: RunId) -> Answer<'_, Option<Stored>> {
        Layer::load(self, run)
    }

    fn newborn(&self, lease: &Lease) -> Option<Start> {
        Layer::newborn(self, lease)
    }

    fn commit(&self, commit: Commit) -> Answer<'_, Committed> {
        Layer::commit(self, commit)
    }

    fn was_committed(&self, run: RunId, op: OpId) -> Answer<'_, bool> {
        Layer::was_committed(self, run, op)
    }

    fn requeue(&self, run: RunId) -> Answer<'_, bool> {
        Layer::requeue(self, run)
    }

    fn fence(&self, reason: Name) -> Answer<'_, u64> {
        Layer::fence(self, reason)
    }

    fn release(&self, lease: Lease, worker: WorkerId, keep: Keep) -> Answer<'_, ()> {
        Layer::release(self, lease, worker, keep)
    }

    fn inbox(&self, run: RunId) -> Answer<'_, Vec<InboxItem>> {
        Layer::inbox(self, run)
    }

    fn deliver(&self, message: Message) -> Answer<'_, Delivered> {
        Layer::deliver(self, message)
    }

    fn signal(&self, signal: Signal) -> Answer<'_, Signalled> {
        Layer::signal(self, signal)
    }

    fn next_due(&self, within: Option<RunId>) -> Answer<'_, Option<Timestamp>> {
        Layer::next_due(self, within)
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Layer::changed(self)
    }

    fn mark_sent(&self, run: &RunId, effect: EffectId, attempt: u32) -> Result<(), StoreError> {
        Layer::mark_sent(self, run, effect, attempt)
    }

    fn clear_sent(&self, run: &RunId, effect: EffectId, attempt: u32) {
        Layer::clear_sent(self, run, effect, attempt);
    }

    fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent {
        Layer::was_sent(self, worker, run, effect, attempt)
    }

    fn object(&self, kind: Name, key: Name) -> Answer<'_, Option<Object>> {
        Layer::object(self, kind, key)
    }

    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> Answer<'_, Vec<Object>> {
        Layer::objects(self, kind, after, limit)
    }

    fn put_object(&self, put: Put) -> Answer<'_, bool> {
        Layer::put_object(self, put)
    }

    fn draw(&self, draw: Draw) -> Answer<'_, Drawn> {
        Layer::draw(self, draw)
    }

    fn journal(&self, run: RunId, after: u64, limit: usize) -> Answer<'_, Vec<JournalRow>> {
        Layer::journal(self, run, after, limit)
    }

    fn audit(&self, run: RunId) -> Answer<'_, Vec<audit::Row>> {
        Layer::audit(self, run)
    }

    fn rates(&self) -> &dyn Rates {
        Layer::rates(self)
    }

    fn trail(&self) -> &dyn Trail {
        Layer::trail(self)
    }

    fn waits(&self, run: RunId, tree: bool) -> Answer<'_, Vec<(RunId, WaitRow)>> {
        Layer::waits(self, run, tree)
    }

    fn ids(&self, after: Option<RunId>, limit: usize) -> Answer<'_, Vec<RunId>> {
        Layer::ids(self, after, limit)
    }

    fn list(&self, query: Query) -> Answer<'_, Page> {
        Layer::list(self, query)
    }

    fn prune(&self, retention: Retention) -> Answer<'_, Pruned> {
        Layer::prune(self, retention)
    }

    fn fsck(&self) -> Answer<'_, Vec<Finding>> {
        Layer::fsck(self)
    }

    fn stats(&self) -> Answer<'_, Stats> {
        Layer::stats(self)
    }

    fn backup(&self, to: &Path) -> Answer<'_, ()> {
        Layer::backup(self, to)
    }
}
