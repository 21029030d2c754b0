//! What the cases start from: small runs, and commits with everything in its ordinary place.

use std::sync::Arc;

use windlass_core::audit;
use windlass_core::effect::WaitKind;
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Input;
use windlass_core::run::{Parent, Start, Status};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;

use super::Harness;
use crate::store::{
    Claim, Commit, Committed, HeadUpdate, JournalRow, Keep, Lease, Message, NewRun, OpId, Registration, Signal, Store,
    WaitRow, WorkerId,
};

/// The bundle of every run here.
pub(super) const BUNDLE: &[u8] = b"a bundle";

/// When everything happens, unless a case says otherwise.
pub(super) const NOW: Timestamp = Timestamp(1_000);

pub(super) fn id(text: &str) -> RunId {
    RunId::stored(text)
}

pub(super) fn start(text: &str) -> Start {
    Start::new(
        id(text),
        Digest::of(BUNDLE),
        "main".into(),
        "machine".into(),
        Value::object([("text", Value::str(text))]),
    )
}

pub(super) fn run(text: &str) -> NewRun {
    NewRun::new(start(text), NOW)
}

/// A run below another one of the tree of `root`.
pub(super) fn child(text: &str, parent: &str, root: &str) -> NewRun {
    let start =
        Start { parent: Some(Parent { run: id(parent), awaited: true }), root: id(root), depth: 1, ..start(text) };
    NewRun::new(start, NOW)
}

pub(super) fn message(to: &str, text: &str) -> Message {
    Message { to: id(to), id: text.into(), input: Input::Cancel { reason: text.into() } }
}

pub(super) fn signal(text: &str, channel: &str) -> Signal {
    Signal { id: text.into(), channel: channel.into(), run: None, data: Value::str(text), at: NOW }
}

pub(super) fn wait(effect: u64, channel: &str) -> WaitRow {
    WaitRow { effect: EffectId(effect), channel: channel.into(), kind: WaitKind::Signal, due: None }
}

/// Audit row `number`, after the row of the given hash.
pub(super) fn audit_row(number: u64, previous: Digest) -> audit::Row {
    audit::Row {
        number,
        attempt: 1,
        kind: "tool".into(),
        target: "search".into(),
        class: "read".into(),
        arguments: Digest::of(b"{}"),
        at: NOW,
        previous,
        ..audit::Row::blank(EffectId(number), "intended")
    }
}

/// A decision on version `expected` that changes nothing but the version and keeps the lease.
pub(super) fn commit(lease: &Lease, worker: &WorkerId, expected: u64) -> Commit {
    let version = expected + 1;
    Commit {
        op: OpId(u128::from(Digest::of(format!("{lease:?} {expected}").as_bytes()).0[0]) << 64 | u128::from(version)),
        lease: lease.clone(),
        worker: worker.clone(),
        expected,
        head: HeadUpdate {
            status: Status::Running,
            state: Some(format!("state-{version}").into()),
            step: version,
            tokens: version * 10,
            cost_micros: version * 100,
            bundle: Digest::of(BUNDLE),
            pool: None,
            strikes: 0,
        },
        record: JournalRow {
            version,
            bytes: format!("{{\"v\":1,\"version\":{version},\"entries\":[]}}").into_bytes(),
            blobs: Vec::new(),
        },
        at: Timestamp(NOW.0 + version),
        snapshot: None,
        blobs: Vec::new(),
        audit: Vec::new(),
        waits_opened: Vec::new(),
        waits_closed: Vec::new(),
        children: Vec::new(),
        messages: Vec::new(),
        taken: Vec::new(),
        keep: Keep::Hold,
        begins: None,
    }
}

/// The same decision, after which the run waits.
pub(super) fn park(lease: &Lease, worker: &WorkerId, expected: u64, wake_at: Option<u64>) -> Commit {
    let mut commit = commit(lease, worker, expected);
    commit.head.status = Status::Waiting;
    commit.keep = Keep::Park { wake_at: wake_at.map(Timestamp) };
    commit
}

/// The same decision, after which the run is over.
pub(super) fn end(lease: &Lease, worker: &WorkerId, expected: u64) -> Commit {
    let mut commit = commit(lease, worker, expected);
    commit.head.status = Status::Completed;
    commit.keep = Keep::End;
    commit
}

/// One process: a handle and its worker.
pub(super) struct Process {
    pub(super) store: Arc<dyn Store>,
    pub(super) worker: WorkerId,
}

impl Process {
    pub(super) async fn open(harness: &Arc<dyn Harness>) -> Self {
        let store = harness.open().await;
        let worker = store.join(Registration::default()).await.expect("a process can join");
        store.put_bundle(Digest::of(BUNDLE), BUNDLE.to_vec()).await.expect("a bundle can be stored");
        Self { store, worker }
    }

    pub(super) fn wanted(&self, limit: usize, now: u64) -> Claim {
        Claim::any(self.worker.clone(), limit, Timestamp(now))
    }

    /// Claims everything claimable, in order of run ids.
    pub(super) async fn claim_all(&self, now: u64) -> Vec<Lease> {
        let mut leases = self.store.claim(self.wanted(10_000, now)).await.expect("a claim is answered");
        leases.sort_by(|a, b| a.run.cmp(&b.run));
        leases
    }

    pub(super) async fn claim_names(&self, now: u64) -> Vec<String> {
        self.claim_all(now).await.into_iter().map(|lease| lease.run.to_string()).collect()
    }

    /// Creates a run and claims it.
    pub(super) async fn begin(&self, text: &str) -> Lease {
        self.store.create(run(text)).await.expect("a run can be created");
        let claim = Claim { within: Some(id(text)), ..self.wanted(1, NOW.0) };
        let mut leases = self.store.claim(claim).await.expect("a claim is answered");
        assert_eq!(leases.len(), 1, "a new run is claimable");
        leases.remove(0)
    }

    pub(super) async fn claim_one(&self, now: u64) -> Lease {
        let mut leases = self.claim_all(now).await;
        assert_eq!(leases.len(), 1, "exactly one run is claimable");
        leases.remove(0)
    }

    pub(super) async fn commit(&self, commit: Commit) -> Committed {
        self.store.commit(commit).await.expect("a commit is answered")
    }

    /// Commits, and checks that it was applied.
    pub(super) async fn apply(&self, commit: Commit) -> Committed {
        let committed = self.commit(commit).await;
        assert_ne!(committed, Committed::Stale, "a decision on the current version under the current lease counts");
        committed
    }

    pub(super) async fn inbox_ids(&self, text: &str) -> Vec<Name> {
        self.store.inbox(id(text)).await.expect("an inbox can be read").into_iter().map(|item| item.id).collect()
    }
}
