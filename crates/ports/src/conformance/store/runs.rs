//! Cases: creating runs and storing bundles.

use std::sync::Arc;

use windlass_core::ids::Digest;
use windlass_core::run::Status;

use super::Harness;
use super::setup::{BUNDLE, NOW, Process, child, id, run};
use crate::store::{Created, Query, StoreError};

pub(super) async fn create_is_idempotent(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    assert_eq!(one.store.create(run("a")).await.expect("created"), Created::New);
    let lease = one.claim_one(NOW.0).await;
    one.apply(super::setup::commit(&lease, &one.worker, 0)).await;
    let mut again = run("a");
    again.start.machine_name = "another".into();
    match one.store.create(again).await.expect("answered") {
        Created::Exists(head) => {
            assert_eq!(head.version, 1, "the head is that of the run as it is");
            assert_eq!(&*head.machine, "machine");
        }
        other => panic!("a run of the same id was created twice: {other:?}"),
    }
    let page = one.store.list(Query { limit: 10, ..Query::default() }).await.expect("listed");
    assert_eq!(page.heads.len(), 1);
}

pub(super) async fn a_new_run_is_in_the_queue(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let new = run("a");
    one.store.create(new.clone()).await.expect("created");
    let stored = one.store.load(id("a")).await.expect("read").expect("it exists");
    assert_eq!(stored.start, new.start, "the start comes back as given");
    assert!(stored.records.is_empty() && stored.snapshot.is_none());
    let head = stored.head;
    assert_eq!((head.status, head.version, head.step), (Status::Queued, 0, 0));
    assert_eq!((head.owner, head.parent, head.root.as_str()), (None, None, "a"));
    assert_eq!((head.created_at, head.updated_at, head.wake_at), (NOW, NOW, None));
    assert_eq!((head.bundle, head.input), (Digest::of(BUNDLE), new.start.input.digest()));
    assert_eq!((&*head.machine, &*head.tenant, head.depth), ("machine", "default", 0));
    one.claim_one(NOW.0).await;
    let head = one.store.load(id("a")).await.expect("read").expect("it exists").head;
    assert_eq!((head.status, head.owner), (Status::Running, Some(one.worker.clone())));
}

pub(super) async fn a_run_below_an_unknown_one_is_refused(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let refused = one.store.create(child("a~1.0", "a", "a")).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    assert!(one.store.load(id("a~1.0")).await.expect("read").is_none());
    one.store.create(run("a")).await.expect("created");
    assert_eq!(one.store.create(child("a~1.0", "a", "a")).await.expect("created"), Created::New);
    let head = one.store.load(id("a~1.0")).await.expect("read").expect("it exists").head;
    assert_eq!((head.parent, head.root, head.depth), (Some(id("a")), id("a"), 1));
}

pub(super) async fn bundles_are_kept_by_hash(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::of(&bytes);
    assert_eq!(one.store.blob(digest).await.expect("read"), None);
    for process in [&one, &two, &one] {
        process.store.put_bundle(digest, bytes.clone()).await.expect("stored");
    }
    assert_eq!(two.store.blob(digest).await.expect("read"), Some(bytes));
    let refused = one.store.put_bundle(Digest::of(b"x"), b"y".to_vec()).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "bytes under a wrong hash are refused: {refused:?}");
    assert_eq!(one.store.blob(Digest::of(b"x")).await.expect("read"), None);
}

pub(super) async fn unknown_runs_are_empty(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    assert!(one.store.load(id("x")).await.expect("read").is_none());
    assert!(one.store.inbox(id("x")).await.expect("read").is_empty());
    assert!(one.store.journal(id("x"), 0, 10).await.expect("read").is_empty());
    assert!(one.store.audit(id("x")).await.expect("read").is_empty());
    assert!(one.store.waits(id("x"), true).await.expect("read").is_empty());
    assert!(one.store.take_over(id("x"), one.worker.clone(), None).await.expect("answered").is_none());
    assert!(!one.store.was_committed(id("x"), crate::store::OpId(1)).await.expect("answered"));
    assert_eq!(one.store.next_due(None).await.expect("read"), None);
    assert_eq!(one.store.next_due(Some(id("x"))).await.expect("read"), None);
    assert!(one.claim_all(NOW.0).await.is_empty());
}
