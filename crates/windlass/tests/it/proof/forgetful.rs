//! An engine without effect records: what a decision intends is written only together with the next decision, so a
//! call leaves before there is a record of it. The proof must notice. Or a store that grants every draw on a budget,
//! which the bank test must notice, or one without read-only switches, which the race for them must notice.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};

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
    NewRun, Object, OpId, Page, Pruned, Put, Query, Reaped, Registration, Retention, SWITCHES, Signal, Signalled,
    Stats, Store, StoreError, Stored, Trail, WaitRow, WorkerId, WorkerRow,
};

use super::cuts::{compare, finish};
use super::lost::{Known, in_flight};
use super::place::Place;
use super::worker::{End, spawn_broken, wait};
use super::world::World;

/// Cuts at most before the proof must have noticed.
const CUTS_MAX: u64 = 40;

type Reply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Acknowledges a commit that intends a call without writing it, and writes it before the next one of its run.
#[derive(Debug)]
pub(super) struct Forgetful {
    inner: Arc<dyn Store>,
    kept: Mutex<BTreeMap<RunId, Commit>>,
    breach: Breach,
}

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// It forgets what was intended.
    Forgets,
    /// It grants every draw.
    Grants,
    /// It knows no read-only switch.
    Blind,
}

impl Forgetful {
    pub(super) fn new(inner: Arc<dyn Store>, breach: Breach) -> Self {
        Self { inner, kept: Mutex::default(), breach }
    }
}

impl Store for Forgetful {
    fn rates(&self) -> &dyn Rates {
        self.inner.rates()
    }

    fn trail(&self) -> &dyn Trail {
        self.inner.trail()
    }

    fn commit(&self, mut commit: Commit) -> Reply<'_, Committed> {
        if self.breach == Breach::Blind {
            commit.begins = None;
        }
        if self.breach != Breach::Forgets {
            return self.inner.commit(commit);
        }
        Box::pin(async move {
            let run = commit.lease.run.clone();
            let kept = self.kept.lock().expect("kept").remove(&run);
            if let Some(earlier) = kept {
                self.inner.commit(earlier).await?;
            }
            let intends = String::from_utf8_lossy(&commit.record.bytes).contains("\"call_intended\"");
            if intends && commit.keep == Keep::Hold && commit.taken.is_empty() {
                self.kept.lock().expect("kept").insert(run, commit);
                return Ok(Committed::Applied { held: true, inbox: false, switched: false });
            }
            self.inner.commit(commit).await
        })
    }

    fn join(&self, registration: Registration) -> Reply<'_, WorkerId> {
        self.inner.join(registration)
    }
    fn beat(&self, worker: WorkerId, load: Load) -> Reply<'_, Beat> {
        self.inner.beat(worker, load)
    }
    fn leases(&self, worker: WorkerId) -> Reply<'_, Vec<Lease>> {
        self.inner.leases(worker)
    }
    fn is_current(&self, worker: &WorkerId) -> bool {
        self.inner.is_current(worker)
    }
    fn leave(&self, worker: WorkerId) -> Reply<'_, ()> {
        self.inner.leave(worker)
    }
    fn reap(&self) -> Reply<'_, Reaped> {
        self.inner.reap()
    }
    fn workers(&self) -> Reply<'_, Vec<WorkerRow>> {
        self.inner.workers()
    }
    fn requeue(&self, run: RunId) -> Reply<'_, bool> {
        self.inner.requeue(run)
    }
    fn fence(&self, reason: Name) -> Reply<'_, u64> {
        self.inner.fence(reason)
    }
    fn object(&self, kind: Name, key: Name) -> Reply<'_, Option<Object>> {
        self.inner.object(kind, key)
    }
    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> Reply<'_, Vec<Object>> {
        if self.breach == Breach::Blind && &*kind == SWITCHES {
            return Box::pin(async { Ok(Vec::new()) });
        }
        self.inner.objects(kind, after, limit)
    }
    fn put_object(&self, put: Put) -> Reply<'_, bool> {
        self.inner.put_object(put)
    }
    fn draw(&self, draw: Draw) -> Reply<'_, Drawn> {
        let needs = draw.lines.iter().map(|line| (line.scope.clone(), line.need)).collect();
        Box::pin(async move {
            Ok(match self.inner.draw(draw).await? {
                Drawn::Refused(_) if self.breach == Breach::Grants => Drawn::Granted(needs),
                answer => answer,
            })
        })
    }
    fn put_bundle(&self, digest: Digest, bytes: Vec<u8>) -> Reply<'_, ()> {
        self.inner.put_bundle(digest, bytes)
    }
    fn blob(&self, digest: Digest) -> Reply<'_, Option<Vec<u8>>> {
        self.inner.blob(digest)
    }
    fn create(&self, run: NewRun) -> Reply<'_, Created> {
        self.inner.create(run)
    }
    fn claim(&self, claim: Claim) -> Reply<'_, Vec<Lease>> {
        self.inner.claim(claim)
    }
    fn take_over(&self, run: RunId, worker: WorkerId, expected: Option<Status>) -> Reply<'_, Option<Lease>> {
        self.inner.take_over(run, worker, expected)
    }
    fn load(&self, run: RunId) -> Reply<'_, Option<Stored>> {
        self.inner.load(run)
    }
    fn was_committed(&self, run: RunId, op: OpId) -> Reply<'_, bool> {
        self.inner.was_committed(run, op)
    }
    fn release(&self, lease: Lease, worker: WorkerId, keep: Keep) -> Reply<'_, ()> {
        self.inner.release(lease, worker, keep)
    }
    fn inbox(&self, run: RunId) -> Reply<'_, Vec<InboxItem>> {
        self.inner.inbox(run)
    }
    fn deliver(&self, message: Message) -> Reply<'_, Delivered> {
        self.inner.deliver(message)
    }
    fn signal(&self, signal: Signal) -> Reply<'_, Signalled> {
        self.inner.signal(signal)
    }
    fn next_due(&self, within: Option<RunId>) -> Reply<'_, Option<Timestamp>> {
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
    fn journal(&self, run: RunId, after: u64, limit: usize) -> Reply<'_, Vec<JournalRow>> {
        self.inner.journal(run, after, limit)
    }
    fn audit(&self, run: RunId) -> Reply<'_, Vec<audit::Row>> {
        self.inner.audit(run)
    }
    fn waits(&self, run: RunId, tree: bool) -> Reply<'_, Vec<(RunId, WaitRow)>> {
        self.inner.waits(run, tree)
    }
    fn ids(&self, after: Option<RunId>, limit: usize) -> Reply<'_, Vec<RunId>> {
        self.inner.ids(after, limit)
    }
    fn list(&self, query: Query) -> Reply<'_, Page> {
        self.inner.list(query)
    }
    fn prune(&self, retention: Retention) -> Reply<'_, Pruned> {
        self.inner.prune(retention)
    }
    fn fsck(&self) -> Reply<'_, Vec<Finding>> {
        self.inner.fsck()
    }
    fn stats(&self) -> Reply<'_, Stats> {
        self.inner.stats()
    }
    fn backup(&self, to: &Path) -> Reply<'_, ()> {
        self.inner.backup(to)
    }
}

#[test]
fn the_proof_notices_an_engine_without_effect_records() {
    let world = World::start();
    let calm = Place::new(&world);
    let expected = finish(calm.path(), &world);
    let noticed = (1..=CUTS_MAX).any(|cut| {
        let folder = Place::new(&world);
        let End::Cut(point) = wait(folder.path(), spawn_broken(folder.path(), cut)) else { return false };
        let lost = in_flight(folder.path(), &world, &mut Known::default());
        let trace = finish(folder.path(), &world);
        let what = format!("cut {cut} at {point}");
        catch_unwind(AssertUnwindSafe(|| compare(&expected, &trace, &lost, &what))).is_err()
    });
    assert!(noticed, "no cut of the first {CUTS_MAX} is told from one with effect records");
}
