//! Cases: lists of runs.

use std::sync::Arc;

use windlass_core::run::Status;

use super::Harness;
use super::setup::{NOW, Process, child, end, id, park, run};
use crate::store::{Query, StoreError};

async fn names(one: &Process, query: Query) -> Vec<String> {
    let page = one.store.list(Query { limit: 100, ..query }).await.expect("listed");
    assert_eq!(page.next, None);
    page.heads.into_iter().map(|head| head.id.to_string()).collect()
}

pub(super) async fn ids_are_told_in_order(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for name in ["b", "A", "c/1", "a", "\u{e9}"] {
        one.store.create(run(name)).await.expect("created");
    }
    let mut seen: Vec<String> = Vec::new();
    loop {
        let ids = one.store.ids(seen.last().map(|last| id(last)), 2).await.expect("told");
        assert!(ids.len() <= 2);
        seen.extend(ids.iter().map(ToString::to_string));
        if ids.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["A", "a", "b", "c/1", "\u{e9}"]);
}

pub(super) async fn lists_are_newest_first_and_paged(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    assert!(names(&one, Query::default()).await.is_empty());
    for n in 0..10 {
        one.store.create(run(&format!("r{n}"))).await.expect("created");
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = one.store.list(Query { cursor, limit: 3, ..Query::default() }).await.expect("listed");
        assert!(page.heads.len() <= 3 && !page.heads.is_empty());
        seen.extend(page.heads.iter().map(|head| head.id.to_string()));
        // A run created between two pages is not seen, and moves nothing.
        one.store.create(run(&format!("later{}", seen.len()))).await.expect("created");
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..10).rev().map(|n| format!("r{n}")).collect();
    assert_eq!(seen, expected);
    let exact = one.store.list(Query { limit: 14, ..Query::default() }).await.expect("listed");
    assert_eq!((exact.heads.len(), exact.next), (14, None), "a full last page is the last");
    let refused = one.store.list(Query { cursor: Some("no cursor".into()), limit: 3, ..Query::default() }).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
}

pub(super) async fn lists_are_filtered(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let mut other = run("other");
    other.start.machine_name = "another".into();
    for new in [run("a"), child("a~1.0", "a", "a"), child("a~1.0~1.0", "a~1.0", "a"), other] {
        one.store.create(new).await.expect("created");
    }
    for lease in one.claim_all(NOW.0).await {
        match lease.run.as_str() {
            "a" => one.apply(park(&lease, &one.worker, 0, None)).await,
            "a~1.0" => one.apply(end(&lease, &one.worker, 0)).await,
            _ => continue,
        };
    }
    one.store.create(run("fresh")).await.expect("created");
    let statuses = |statuses: &[Status]| Query { statuses: statuses.to_vec(), ..Query::default() };
    assert_eq!(names(&one, statuses(&[Status::Queued])).await, ["fresh"]);
    assert_eq!(names(&one, statuses(&[Status::Running])).await, ["other", "a~1.0~1.0"]);
    assert_eq!(names(&one, statuses(&[Status::Waiting, Status::Completed])).await, ["a~1.0", "a"]);
    assert_eq!(names(&one, statuses(&[Status::Failed])).await, [""; 0]);
    let machine = Query { machine: Some("another".into()), ..Query::default() };
    assert_eq!(names(&one, machine).await, ["other"]);
    assert_eq!(names(&one, Query { parent: Some(id("a")), ..Query::default() }).await, ["a~1.0"]);
    assert_eq!(names(&one, Query { parent: Some(id("nobody")), ..Query::default() }).await, [""; 0]);
    assert_eq!(names(&one, Query { root: Some(id("a")), ..Query::default() }).await, ["a~1.0~1.0", "a~1.0", "a"]);
    assert_eq!(names(&one, Query { root: Some(id("other")), ..Query::default() }).await, ["other"]);
    assert_eq!(names(&one, Query { roots_only: true, ..Query::default() }).await, ["fresh", "other", "a"]);
    let both = Query { roots_only: true, ..statuses(&[Status::Waiting]) };
    assert_eq!(names(&one, both).await, ["a"]);
}
