//! Cases: a decision is written whole or not at all.

use std::sync::Arc;

use futures::future::{join, join_all};
use windlass_core::audit;
use windlass_core::effect::WaitKind;
use windlass_core::ids::{Digest, EffectId};
use windlass_core::input::Input;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_core::value::Value;

use super::Harness;
use super::setup::{BUNDLE, NOW, Process, audit_row, child, commit, end, id, message, park, run, signal, start, wait};
use crate::store::{Commit, Committed, JournalRow, Keep, Lease, Message, NewRun, OpId, Query, StoreError, WorkerId};

const HELD: Committed = Committed::Applied { held: true, inbox: false, switched: false };

pub(super) async fn a_commit_is_read_back(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let lease = one.begin("a").await;
    let first = commit(&lease, &one.worker, 0);
    assert_eq!(one.apply(first.clone()).await, HELD);
    let mut last = end(&lease, &one.worker, 1);
    last.head.state = None;
    last.head.bundle = Digest::of(b"another bundle");
    assert_eq!(one.apply(last.clone()).await, Committed::Applied { held: false, inbox: false, switched: false });
    for process in [&one, &two] {
        let stored = process.store.load(id("a")).await.expect("read").expect("it exists");
        assert_eq!(stored.records, [first.record.clone(), last.record.clone()]);
        let head = stored.head;
        assert_eq!((head.status, head.state, head.step, head.version), (Status::Completed, None, 2, 2));
        assert_eq!((head.tokens, head.cost_micros, head.bundle), (20, 200, Digest::of(b"another bundle")));
        assert_eq!((head.owner, head.created_at, head.updated_at), (None, NOW, Timestamp(NOW.0 + 2)));
    }
}

/// A commit that changes everything a commit can change.
fn full(lease: &Lease, worker: &WorkerId, expected: u64) -> Commit {
    let mut full = park(lease, worker, expected, Some(2_000));
    let blob = vec![7; 100_000];
    full.record.blobs = vec![Digest::of(&blob)];
    full.blobs = vec![(Digest::of(&blob), blob)];
    full.snapshot = Some(b"a snapshot".to_vec());
    full.audit = vec![audit_row(1, Digest::ZERO)];
    full.waits_opened = vec![wait(9, "buffered"), wait(10, "other")];
    full.waits_closed = vec![EffectId(1)];
    full.children = vec![child("a~5.0", "a", "a")];
    full.messages = vec![message("other", "told")];
    full
}

/// Checks that nothing of [`full`] was written to run `a`, whose one wait is open and whose inbox has one thing.
async fn untouched(one: &Process, version: u64, owner: &WorkerId) {
    let stored = one.store.load(id("a")).await.expect("read").expect("it exists");
    assert_eq!(stored.head.version, version, "the version");
    assert_eq!(stored.head.owner.as_ref(), Some(owner), "the lease");
    assert_eq!((stored.head.status, stored.head.wake_at), (Status::Running, None), "the hot row");
    assert_eq!(stored.records.len() as u64, version, "the journal");
    assert_eq!(stored.snapshot, None, "the snapshot");
    assert!(one.store.audit(id("a")).await.expect("read").is_empty(), "the audit rows");
    assert_eq!(one.store.blob(Digest::of(&[7; 100_000])).await.expect("read"), None, "the blobs");
    let waits = one.store.waits(id("a"), false).await.expect("read");
    assert_eq!(waits.iter().map(|(_, row)| row.effect).collect::<Vec<_>>(), [EffectId(1)], "the waits");
    assert!(one.store.load(id("a~5.0")).await.expect("read").is_none(), "the children");
    assert!(one.inbox_ids("other").await.is_empty(), "the messages");
    assert_eq!(one.inbox_ids("a").await.len(), 1, "the inbox, and no buffered signal taken");
}

/// Run `a` held at version 1 with an open wait and something in its inbox, run `other` held, a signal buffered.
async fn prepared(one: &Process) -> (Lease, u64) {
    let lease = one.begin("a").await;
    one.begin("other").await;
    let mut first = commit(&lease, &one.worker, 0);
    first.waits_opened = vec![wait(1, "one")];
    one.apply(first).await;
    one.store.deliver(message("a", "m")).await.expect("delivered");
    one.store.signal(signal("s", "buffered")).await.expect("sent");
    let inbox = one.store.inbox(id("a")).await.expect("read");
    (lease, inbox[0].number)
}

pub(super) async fn a_stale_version_writes_nothing(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let (lease, number) = prepared(&one).await;
    for expected in [0, 2, 7] {
        let mut stale = full(&lease, &one.worker, expected);
        stale.taken = vec![number];
        assert_eq!(one.commit(stale).await, Committed::Stale);
        untouched(&one, 1, &one.worker).await;
    }
    assert_eq!(one.commit(end(&lease, &one.worker, 0)).await, Committed::Stale);
    untouched(&one, 1, &one.worker).await;
    let mut right = full(&lease, &one.worker, 1);
    right.taken = vec![number];
    let held = Committed::Applied { held: true, inbox: true, switched: false };
    assert_eq!(one.apply(right).await, held, "the buffered signal of the new wait is in the inbox");
    assert_eq!(one.inbox_ids("other").await.len(), 1);
    assert!(one.store.load(id("a~5.0")).await.expect("read").is_some());
}

pub(super) async fn a_stale_epoch_writes_nothing(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let (lease, number) = prepared(&one).await;
    let newer = one.store.take_over(id("a"), one.worker.clone(), None).await.expect("answered").expect("taken");
    for epoch in [lease.epoch, newer.epoch + 1, 0] {
        let mut stale = full(&Lease { epoch, ..lease.clone() }, &one.worker, 1);
        stale.taken = vec![number];
        assert_eq!(one.commit(stale).await, Committed::Stale);
        untouched(&one, 1, &one.worker).await;
    }
    one.apply(commit(&newer, &one.worker, 1)).await;
}

pub(super) async fn another_worker_writes_nothing(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let (lease, number) = prepared(&one).await;
    let mut foreign = full(&lease, &two.worker, 1);
    foreign.taken = vec![number];
    assert_eq!(two.commit(foreign.clone()).await, Committed::Stale);
    foreign.worker = WorkerId("nobody".into());
    assert_eq!(two.commit(foreign).await, Committed::Stale);
    let mut unknown = full(&Lease { run: id("unknown"), ..lease.clone() }, &one.worker, 1);
    unknown.children.clear();
    assert_eq!(one.commit(unknown).await, Committed::Stale);
    untouched(&one, 1, &one.worker).await;
    one.store.release(lease.clone(), one.worker.clone(), Keep::HandBack).await.expect("released");
    assert_eq!(one.commit(full(&lease, &one.worker, 1)).await, Committed::Stale, "a run in the queue has no holder");
}

pub(super) async fn a_commit_is_written_once(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    let first = commit(&lease, &one.worker, 0);
    assert_eq!(one.apply(first.clone()).await, HELD);
    assert_eq!(one.commit(first).await, Committed::Stale);
    assert_eq!(one.store.journal(id("a"), 0, 10).await.expect("read").len(), 1);
}

pub(super) async fn the_same_decision_twice_at_once_is_written_once(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let lease = one.begin("a").await;
    for expected in 0..20 {
        let mut racers: Vec<_> = (0..4).map(|_| commit(&lease, &one.worker, expected)).collect();
        for (n, racer) in racers.iter_mut().enumerate() {
            racer.op = OpId((n as u128 + 1) << 96 | u128::from(expected));
            racer.record.bytes = format!("racer {n}").into_bytes();
        }
        let ops: Vec<_> = racers.iter().map(|racer| racer.op).collect();
        let stores = [&one, &two, &one, &two];
        let answers = join_all(stores.iter().zip(racers).map(|(process, racer)| process.store.commit(racer))).await;
        let winners: Vec<_> = (0..4).filter(|n| !matches!(answers[*n], Ok(Committed::Stale))).collect();
        assert_eq!(winners.len(), 1, "one of four decisions on the same version counts: {answers:?}");
        let row = one.store.journal(id("a"), expected, 9).await.expect("read");
        assert_eq!(row.len(), 1);
        assert_eq!(row[0].bytes, format!("racer {}", winners[0]).into_bytes(), "and it is the one that was told so");
        for (n, op) in ops.into_iter().enumerate() {
            assert_eq!(one.store.was_committed(id("a"), op).await.expect("answered"), winners[0] == n);
        }
    }
}

pub(super) async fn refused_commits_write_nothing_and_spare_the_others(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let (lease, _) = prepared(&one).await;
    one.store.create(run("b")).await.expect("created");
    let mut good_lease = one.claim_one(NOW.0).await;
    let mut version = 0;
    let base = full(&lease, &one.worker, 1);
    let mut wrong = vec![base.clone(); 5];
    wrong[0].record.version = 9;
    wrong[1].head.status = Status::Completed;
    wrong[2].keep = Keep::End;
    wrong[3].blobs[0].1 = b"other bytes".to_vec();
    wrong[4].record.blobs.push(Digest::of(b"a blob that nobody stored"));
    let mut orphan = base;
    orphan.children.push(child("x~1.0", "x", "x"));
    wrong.push(orphan);
    for bad in wrong {
        let good = commit(&good_lease, &one.worker, version);
        let (refused, applied) = join(one.store.commit(bad), one.store.commit(good)).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
        assert_eq!(applied.expect("answered"), HELD, "what was committed at the same time is not harmed");
        version += 1;
        untouched(&one, 1, &one.worker).await;
    }
    one.apply(park(&good_lease, &one.worker, version, None)).await;
    good_lease.epoch += 1;
    assert_eq!(one.commit(commit(&good_lease, &one.worker, version + 1)).await, Committed::Stale);
}

pub(super) async fn was_committed_knows_every_commit(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let lease = one.begin("a").await;
    let mut ops = Vec::new();
    for expected in 0..5 {
        let mut step = commit(&lease, &one.worker, expected);
        step.op = OpId(u128::MAX - u128::from(expected));
        ops.push(step.op);
        one.apply(step).await;
    }
    let mut stale = commit(&lease, &one.worker, 2);
    stale.op = OpId(77);
    one.commit(stale).await;
    drop(one);
    for op in ops {
        assert!(two.store.was_committed(id("a"), op).await.expect("answered"));
    }
    assert!(!two.store.was_committed(id("a"), OpId(77)).await.expect("answered"), "a stale one is not committed");
    assert!(!two.store.was_committed(id("b"), OpId(u128::MAX)).await.expect("answered"));
}

pub(super) async fn journals_are_paged_in_order(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    let other = one.begin("b").await;
    for expected in 0..25 {
        one.apply(commit(&lease, &one.worker, expected)).await;
        one.apply(commit(&other, &one.worker, expected)).await;
    }
    let mut seen = Vec::new();
    while let Some(last) = {
        let page = one.store.journal(id("a"), seen.len() as u64, 7).await.expect("read");
        assert!(page.len() <= 7);
        seen.extend(page.iter().map(|row| row.version));
        page.last().map(|row| row.version)
    } {
        assert_eq!(last, seen.len() as u64);
    }
    assert!(seen.into_iter().eq(1..=25));
    assert!(one.store.journal(id("a"), 0, 0).await.expect("read").is_empty());
    assert!(one.store.journal(id("a"), 25, 9).await.expect("read").is_empty());
}

pub(super) async fn snapshots_shorten_loading(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    for expected in 0..10 {
        let mut step = commit(&lease, &one.worker, expected);
        step.snapshot = match expected {
            3 => Some(b"after four".to_vec()),
            6 => Some(vec![9; 300_000]),
            _ => None,
        };
        one.apply(step).await;
        let stored = one.store.load(id("a")).await.expect("read").expect("it exists");
        let (bytes, from) = match expected {
            0..=2 => (None, 0),
            3..=5 => (Some(b"after four".to_vec()), 4),
            _ => (Some(vec![9; 300_000]), 7),
        };
        assert_eq!(stored.snapshot, bytes);
        assert!(stored.records.iter().map(|row| row.version).eq(from + 1..=expected + 1));
        assert_eq!(stored.head.version, expected + 1);
    }
    assert_eq!(one.store.journal(id("a"), 0, 99).await.expect("read").len(), 10, "the journal keeps everything");
}

pub(super) async fn blobs_are_kept_once(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let (a, b) = (one.begin("a").await, one.begin("b").await);
    let blob: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let digest = Digest::of(&blob);
    let mut bytes_before = None;
    for (lease, expected) in [(&a, 0), (&b, 0), (&a, 1)] {
        let mut step = commit(lease, &one.worker, expected);
        step.record.blobs = vec![digest];
        step.blobs = vec![(digest, blob.clone())];
        one.apply(step).await;
        bytes_before.get_or_insert(one.store.stats().await.expect("counted").bytes);
    }
    let mut step = commit(&b, &one.worker, 1);
    step.record.blobs = vec![digest];
    one.apply(step).await;
    assert_eq!(one.store.blob(digest).await.expect("read"), Some(blob.clone()));
    let rows = one.store.journal(id("b"), 0, 9).await.expect("read");
    assert_eq!(rows.iter().map(|row| row.blobs.clone()).collect::<Vec<_>>(), [[digest], [digest]]);
    let grown = one.store.stats().await.expect("counted").bytes.saturating_sub(bytes_before.unwrap_or_default());
    assert!(grown < blob.len() as u64 / 2, "a blob stored again takes no more room, but {grown} bytes came");
}

pub(super) async fn audit_rows_keep_their_order(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    let mut chain = audit::Chain::default();
    let mut written = Vec::new();
    for expected in 0..6 {
        let mut step = commit(&lease, &one.worker, expected);
        for _ in 0..expected {
            let mut row = audit_row(chain.rows + 1, chain.head);
            row.target = "quote \" and zero \0".into();
            row.result = Some("ok".into());
            chain = audit::Chain { rows: row.number, head: row.hash() };
            step.audit.push(row.clone());
            written.push(row);
        }
        one.apply(step).await;
    }
    assert_eq!(one.store.audit(id("a")).await.expect("read"), written);
}

pub(super) async fn zero_characters_survive(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let text = "a\0b\u{1}\u{fffd}\u{10ffff}'\"";
    let mut new = NewRun::new(start("a"), NOW);
    new.start.input = Value::str(text);
    new.start.machine_name = text.into();
    new.start.scope.tenant = text.into();
    one.store.create(new.clone()).await.expect("created");
    let lease = one.claim_one(NOW.0).await;
    let mut step = commit(&lease, &one.worker, 0);
    step.head.state = Some(text.into());
    step.record.bytes = text.as_bytes().to_vec();
    step.snapshot = None;
    step.waits_opened = vec![wait(1, text)];
    step.messages = vec![Message { to: id("a"), id: text.into(), input: Input::Cancel { reason: text.into() } }];
    assert_eq!(one.apply(step.clone()).await, Committed::Applied { held: true, inbox: true, switched: false });
    let stored = one.store.load(id("a")).await.expect("read").expect("it exists");
    assert_eq!(stored.start, new.start);
    assert_eq!(stored.records[0].bytes, text.as_bytes());
    assert_eq!((stored.head.state.as_deref(), &*stored.head.machine), (Some(text), text));
    let inbox = one.store.inbox(id("a")).await.expect("read");
    assert_eq!((&*inbox[0].id, &inbox[0].input), (text, &Input::Cancel { reason: text.into() }));
    assert_eq!(one.store.waits(id("a"), false).await.expect("read")[0].1.channel, text.into());
    let page =
        one.store.list(Query { machine: Some(text.into()), limit: 9, ..Query::default() }).await.expect("listed");
    assert_eq!(page.heads.len(), 1);
    assert!(
        one.store
            .list(Query { machine: Some("a".into()), limit: 9, ..Query::default() })
            .await
            .expect("listed")
            .heads
            .is_empty()
    );
    let mut sent = signal("with a zero \0", text);
    sent.data = Value::str(text);
    one.store.signal(sent).await.expect("sent");
    let inbox = one.store.inbox(id("a")).await.expect("read");
    assert!(matches!(&inbox[1].input, Input::Signalled { data, .. } if *data == Value::str(text)), "{inbox:?}");
}

pub(super) async fn large_records_survive(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    let mut rows = Vec::new();
    for (expected, size) in [0_usize, 1, 100, 5_000, 70_000, 3_000_000].into_iter().enumerate() {
        let mut step = commit(&lease, &one.worker, expected as u64);
        step.record.bytes = match expected % 2 {
            0 => vec![b'x'; size],
            _ => (0..size).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        };
        rows.push(JournalRow { ..step.record.clone() });
        one.apply(step).await;
    }
    assert_eq!(one.store.load(id("a")).await.expect("read").expect("it exists").records, rows);
}

pub(super) async fn children_are_created_with_the_commit_and_once(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    let mut step = commit(&lease, &one.worker, 0);
    let first = child("a~1.0", "a", "a");
    step.children = vec![first.clone(), child("a~1.1", "a", "a")];
    one.apply(step).await;
    let stored = one.store.load(id("a~1.0")).await.expect("read").expect("it exists");
    assert_eq!((stored.start, stored.head.status), (first.start, Status::Queued));
    let leases = one.claim_all(NOW.0).await;
    assert_eq!(leases.len(), 2);
    one.apply(commit(&leases[0], &one.worker, 0)).await;
    let mut again = commit(&lease, &one.worker, 1);
    again.children = vec![child("a~1.0", "a", "a"), child("a~2.0", "a", "a")];
    one.apply(again).await;
    let head = one.store.load(id("a~1.0")).await.expect("read").expect("it exists").head;
    assert_eq!((head.version, head.epoch), (1, leases[0].epoch), "a child that exists is left alone");
    assert_eq!(one.claim_names(NOW.0).await, ["a~2.0"]);
    one.apply(end(&leases[1], &one.worker, 0)).await;
    let mut wait = park(&lease, &one.worker, 2, None);
    wait.waits_opened =
        vec![crate::store::WaitRow { kind: WaitKind::Outcome { effect: EffectId(3) }, ..super::setup::wait(4, "q") }];
    one.apply(wait).await;
}

pub(super) async fn a_thousand_children_in_one_commit(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    let mut step = park(&lease, &one.worker, 0, None);
    step.children = (0..1_000).map(|n| child(&format!("a~1.{n}"), "a", "a")).collect();
    one.apply(step).await;
    let leases = one.claim_all(NOW.0).await;
    assert_eq!(leases.len(), 1_000);
    let page = one.store.list(Query { parent: Some(id("a")), limit: 2_000, ..Query::default() }).await.expect("listed");
    assert_eq!(page.heads.len(), 1_000);
    assert!(page.heads.iter().all(|head| head.bundle == Digest::of(BUNDLE)));
    assert!(one.store.fsck().await.expect("checked").is_empty());
}
