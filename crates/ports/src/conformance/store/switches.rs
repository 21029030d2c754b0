//! Read-only switches: a decision that begins calls which change something is told when they were changed since.

use std::sync::Arc;

use windlass_core::ids::Name;
use windlass_core::run::{Start, TenantScope};

use super::Harness;
use super::setup::{NOW, Process, commit, end, message, park, start};
use crate::store::{Commit, Committed, Keep, Lease, NewRun, Put, SWITCHES, Store, switch_epoch, switch_key};

/// Changes a switch, and gives back its revision.
async fn turn(store: &dyn Store, tenant: Option<&str>) -> u64 {
    let (kind, key): (Name, Name) = (SWITCHES.into(), switch_key(tenant));
    let revision = |found: Option<crate::store::Object>| found.map_or(0, |object| object.revision);
    let expected = revision(store.object(kind.clone(), key.clone()).await.expect("read"));
    let put = Put { kind: kind.clone(), key: key.clone(), expected, bytes: Some(b"{}".to_vec()) };
    assert!(store.put_object(put).await.expect("answered"), "nobody else changes it");
    revision(store.object(kind, key).await.expect("read"))
}

fn begins(commit: Commit, epoch: u64) -> Commit {
    Commit { begins: Some(epoch), ..commit }
}

fn is_switched(committed: Committed) -> bool {
    match committed {
        Committed::Applied { switched, .. } => switched,
        Committed::Stale => panic!("the decision is on the current version"),
    }
}

async fn of_tenant(process: &Process, name: &str, tenant: &str) -> Lease {
    let scope = TenantScope { tenant: tenant.into(), ..TenantScope::default() };
    process.store.create(NewRun::new(Start { scope, ..start(name) }, NOW)).await.expect("created");
    process.claim_one(NOW.0).await
}

pub(super) async fn a_decision_that_begins_calls_is_told_of_a_changed_switch(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    let step = |expected| commit(&lease, &one.worker, expected);
    assert!(!is_switched(one.apply(begins(step(0), 0)).await), "there is no switch");
    let on = turn(&*one.store, None).await;
    assert!(on > 0, "a revision of a switch is never that of none");
    assert!(!is_switched(one.apply(step(1)).await), "it begins nothing");
    assert!(is_switched(one.apply(begins(step(2), 0)).await), "it was changed since");
    assert!(!is_switched(one.apply(begins(step(3), on)).await), "what was known is how it is");
    let off = turn(&*one.store, None).await;
    assert!(is_switched(one.apply(begins(step(4), on)).await), "every change counts");
    assert_eq!(one.store.journal(lease.run.clone(), 0, 99).await.expect("read").len(), 5, "all of them are durable");
    assert!(!is_switched(one.apply(begins(step(5), off)).await));
}

pub(super) async fn the_switch_of_a_tenant_is_for_its_runs(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let lease = of_tenant(&one, "a", "acme").await;
    let other = of_tenant(&one, "b", "umbrella").await;
    let tenant = turn(&*two.store, Some("acme")).await;
    assert!(is_switched(one.apply(begins(commit(&lease, &one.worker, 0), 0)).await));
    assert!(!is_switched(one.apply(begins(commit(&other, &one.worker, 0), 0)).await), "it is another tenant's");
    let environment = turn(&*two.store, None).await;
    let both = switch_epoch(environment, tenant);
    assert!(!is_switched(one.apply(begins(commit(&lease, &one.worker, 1), both)).await));
    assert!(is_switched(one.apply(begins(commit(&lease, &one.worker, 2), tenant)).await), "that of all is for all");
    assert!(!is_switched(one.apply(begins(commit(&other, &one.worker, 1), environment)).await));
}

pub(super) async fn every_kind_of_decision_is_told_of_a_switch(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    turn(&*one.store, None).await;
    let mut with_messages = commit(&lease, &one.worker, 0);
    with_messages.messages.push(message("a", "to itself"));
    assert!(is_switched(one.apply(begins(with_messages, 0)).await));
    let items = one.store.inbox(lease.run.clone()).await.expect("read");
    let taking = Commit { taken: vec![items[0].number], ..commit(&lease, &one.worker, 1) };
    assert!(is_switched(one.apply(begins(taking, 0)).await));
    let back = Commit { keep: Keep::HandBack, ..commit(&lease, &one.worker, 2) };
    one.apply(begins(back, 0)).await;
    let lease = one.claim_one(NOW.0).await;
    one.apply(begins(park(&lease, &one.worker, 3, Some(NOW.0)), 0)).await;
    let lease = one.claim_one(NOW.0).await;
    one.apply(begins(end(&lease, &one.worker, 4), 0)).await;
}
