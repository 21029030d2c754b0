//! Cases: removing, checking, counting.

use std::sync::Arc;

use windlass_core::ids::{Digest, Name};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;

use super::setup::{NOW, Process, audit_row, child, commit, end, id, message, park, run, wait};
use super::{Damage, Harness};
use crate::store::{Pruned, Query, Retention};

/// Creates a run of a machine and ends it at a time.
async fn ended(one: &Process, name: &str, machine: &str, at: u64) {
    let mut new = run(name);
    new.start.machine_name = machine.into();
    one.store.create(new).await.expect("created");
    let lease = one.claim_one(NOW.0).await;
    let mut last = end(&lease, &one.worker, 0);
    last.at = Timestamp(at);
    one.apply(last).await;
}

async fn left(one: &Process) -> Vec<String> {
    let page = one.store.list(Query { limit: 100, ..Query::default() }).await.expect("listed");
    let mut names: Vec<_> = page.heads.into_iter().map(|head| head.id.to_string()).collect();
    names.sort();
    names
}

pub(super) async fn prune_removes_whole_trees_only(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for root in ["a", "b"] {
        let lease = one.begin(root).await;
        let mut step = commit(&lease, &one.worker, 0);
        step.children = vec![child(&format!("{root}~1.0"), root, root)];
        step.audit = vec![audit_row(1, Digest::ZERO)];
        step.waits_opened = vec![wait(1, "x")];
        step.snapshot = Some(b"s".to_vec());
        one.apply(step).await;
        one.store.deliver(message(root, "m")).await.expect("delivered");
        one.apply(end(&lease, &one.worker, 1)).await;
    }
    let leases = one.claim_all(NOW.0).await;
    one.apply(end(&leases[0], &one.worker, 0)).await;
    let dry = one.store.prune(Retention { dry_run: true, ..Retention::default() }).await.expect("reported");
    assert_eq!((dry.runs, dry.records, dry.blobs), (2, 3, 0));
    assert_eq!(left(&one).await.len(), 4, "a dry run removes nothing");
    super::trail::seal_all(&*one.store).await;
    let pruned = one.store.prune(Retention::default()).await.expect("pruned");
    assert_eq!(pruned, dry, "what was reported is what is removed");
    assert_eq!(left(&one).await, ["b", "b~1.0"], "the tree with an unfinished run stays whole");
    for gone in ["a", "a~1.0"] {
        assert!(one.store.load(id(gone)).await.expect("read").is_none());
        assert!(one.store.journal(id(gone), 0, 9).await.expect("read").is_empty());
        assert!(one.store.audit(id(gone)).await.expect("read").is_empty());
        assert!(one.store.inbox(id(gone)).await.expect("read").is_empty());
        assert!(one.store.waits(id(gone), true).await.expect("read").is_empty());
    }
    assert_eq!(one.store.prune(Retention::default()).await.expect("pruned"), Pruned::default());
    assert!(one.store.fsck().await.expect("checked").is_empty());
    let lease = one.begin("a").await;
    one.apply(commit(&lease, &one.worker, 0)).await;
    assert_eq!(one.store.journal(id("a"), 0, 9).await.expect("read").len(), 1, "the name can be used again, from new");
}

pub(super) async fn prune_keeps_what_it_is_told_to_keep(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for (name, machine, at) in
        [("a1", "a", 2_000), ("a2", "a", 3_000), ("b1", "b", 2_500), ("a3", "a", 4_000), ("b2", "b", 5_000)]
    {
        ended(&one, name, machine, at).await;
    }
    one.begin("a-running").await;
    let none = Retention { ended_before: Some(Timestamp(2_000)), ..Retention::default() };
    assert_eq!(one.store.prune(none).await.expect("pruned").runs, 0, "ended at that time is not before it");
    let old = Retention { ended_before: Some(Timestamp(3_000)), machine: Some("a".into()), ..Retention::default() };
    assert_eq!(one.store.prune(old).await.expect("pruned").runs, 1);
    assert_eq!(left(&one).await, ["a-running", "a2", "a3", "b1", "b2"]);
    let both = Retention { ended_before: Some(Timestamp(4_500)), keep_per_machine: Some(2), ..Retention::default() };
    assert_eq!(one.store.prune(both).await.expect("pruned").runs, 0, "both have to agree");
    let others = Retention { trees: Some(vec![id("nobody"), id("a-running")]), ..Retention::default() };
    assert_eq!(one.store.prune(others).await.expect("pruned").runs, 0, "nothing that is there, or ended");
    let newest = Retention { keep_per_machine: Some(1), ..Retention::default() };
    assert_eq!(one.store.prune(newest).await.expect("pruned").runs, 2);
    assert_eq!(left(&one).await, ["a-running", "a3", "b2"], "the newest of each machine stay");
}

pub(super) async fn prune_keeps_shared_blobs(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let (shared, own) = (vec![1; 50_000], vec![2; 50_000]);
    for name in ["a", "b"] {
        let lease = one.begin(name).await;
        let mut step = commit(&lease, &one.worker, 0);
        step.blobs = vec![(Digest::of(&shared), shared.clone())];
        step.record.blobs = vec![Digest::of(&shared)];
        if name == "a" {
            step.blobs.push((Digest::of(&own), own.clone()));
            step.record.blobs.push(Digest::of(&own));
        }
        one.apply(step).await;
        if name == "a" {
            one.apply(end(&lease, &one.worker, 1)).await;
        }
    }
    let pruned = one.store.prune(Retention::default()).await.expect("pruned");
    assert_eq!((pruned.runs, pruned.records, pruned.blobs), (1, 2, 1));
    assert_eq!(one.store.blob(Digest::of(&own)).await.expect("read"), None);
    assert_eq!(one.store.blob(Digest::of(&shared)).await.expect("read"), Some(shared));
    assert!(one.store.fsck().await.expect("checked").is_empty());
}

/// A store with runs in every condition: queued, held, parked on a wait, a timer, a child and a hold, and ended.
async fn varied(one: &Process) -> Digest {
    let lease = one.begin("parked").await;
    let mut step = park(&lease, &one.worker, 0, None);
    step.waits_opened = vec![wait(1, "x")];
    one.apply(step).await;
    let lease = one.begin("timed").await;
    one.apply(park(&lease, &one.worker, 0, Some(9_000))).await;
    let lease = one.begin("paused").await;
    let mut step = park(&lease, &one.worker, 0, None);
    step.head.status = Status::Paused;
    one.apply(step).await;
    let lease = one.begin("parent").await;
    let mut step = park(&lease, &one.worker, 0, None);
    step.children = vec![child("parent~1.0", "parent", "parent")];
    one.apply(step).await;
    one.claim_one(NOW.0).await;
    let lease = one.begin("held").await;
    let blob = vec![3; 40_000];
    let mut step = commit(&lease, &one.worker, 0);
    step.blobs = vec![(Digest::of(&blob), blob.clone())];
    step.record.blobs = vec![Digest::of(&blob)];
    let first = audit_row(1, Digest::ZERO);
    let second = audit_row(2, first.hash());
    step.audit = vec![first, second];
    one.apply(step).await;
    let lease = one.begin("ended").await;
    one.apply(commit(&lease, &one.worker, 0)).await;
    one.apply(end(&lease, &one.worker, 1)).await;
    one.store.create(run("queued")).await.expect("created");
    Digest::of(&blob)
}

pub(super) async fn fsck_finds_nothing_in_a_sound_store(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    varied(&one).await;
    assert_eq!(one.store.fsck().await.expect("checked"), []);
}

pub(super) async fn fsck_finds_every_planted_damage(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let blob = varied(&one).await;
    let planted = [
        (Damage::Wake(id("parked")), "liveness", Some("parked")),
        (Damage::Queue(id("held")), "lease_and_queue", Some("held")),
        (Damage::Quarantine(id("queued")), "liveness", Some("queued")),
        (Damage::Journal(id("ended")), "journal_gap", Some("ended")),
        (Damage::Audit(id("held")), "audit", Some("held")),
        (Damage::Blob(blob), "blob", None),
        (Damage::Parent(id("parent~1.0")), "orphan", Some("parent~1.0")),
    ];
    for (damage, rule, run) in planted {
        harness.damage(&damage);
        let findings = one.store.fsck().await.expect("checked");
        let found = findings.iter().any(|finding| {
            &*finding.rule == rule
                && run.is_none_or(|run| finding.run.as_ref().is_some_and(|found| found.as_str() == run))
        });
        assert!(found, "{damage:?} is not found: {findings:?}");
    }
    let rules: Vec<Name> = one.store.fsck().await.expect("checked").into_iter().map(|finding| finding.rule).collect();
    for rule in ["liveness", "lease_and_queue", "journal_gap", "audit", "blob", "orphan"] {
        assert!(rules.iter().any(|found| &**found == rule), "{rule} is still found: {rules:?}");
    }
}

pub(super) async fn stats_count(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let (a, b) = (one.begin("a").await, one.begin("b").await);
    one.store.create(run("c")).await.expect("created");
    one.apply(commit(&a, &one.worker, 0)).await;
    one.apply(end(&b, &one.worker, 0)).await;
    one.commit(commit(&b, &one.worker, 1)).await;
    let stats = one.store.stats().await.expect("counted");
    let mut runs = stats.runs.clone();
    runs.sort();
    assert_eq!(runs, [("completed".to_owned(), 1), ("queued".to_owned(), 1), ("running".to_owned(), 1)]);
    assert_eq!((stats.commits, stats.stale, stats.workers), (2, 1, 2));
    assert!(stats.schema >= 1 && stats.transactions >= 1);
    drop(two);
    assert_eq!(one.store.stats().await.expect("counted").workers, 1);
}
