//! A tenant with a hundred thousand runs in the queue beside one with ten: the ten are done without waiting for the many.
//!
//! Slow on purpose: that many runs are really stored.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::StreamExt;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::run::{Start, Status, TenantScope};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Claim, Created, Keep, NewRun, Registration, Store};
use windlass_stores::{Options, SqliteStore};

use crate::child;
use crate::postgres::Fleet;

/// Runs of the tenant with many.
const MANY: usize = 100_000;
/// Runs of the tenant with few.
const FEW: usize = 10;
/// Runs claimed at a time.
const SLOTS: usize = 8;

fn of(tenant: &str, number: usize) -> NewRun {
    let scope = TenantScope { tenant: tenant.into(), user: None };
    NewRun::new(Start { scope, ..child::start(&format!("{tenant}-{number:06}")) }, Timestamp(0))
}

/// Stores the many first, so that they are all in front.
async fn fill(store: &dyn Store) {
    store.put_bundle(Digest::of(b"bundle"), b"bundle".to_vec()).await.expect("stored");
    for (tenant, runs) in [("many", MANY), ("few", FEW)] {
        let mut made = futures::stream::iter(0..runs).map(|n| store.create(of(tenant, n))).buffer_unordered(512);
        while let Some(created) = made.next().await {
            assert_eq!(created.expect("created"), Created::New);
        }
    }
}

/// Takes runs and ends them, until the few are done. Gives how many of each tenant were, and the longest claim.
async fn work(store: &dyn Store) -> (BTreeMap<Name, usize>, u128) {
    let worker = store.join(Registration::default()).await.expect("it joins");
    let mut done: BTreeMap<Name, usize> = BTreeMap::new();
    let mut longest = 0;
    while done.get("few").copied().unwrap_or_default() < FEW {
        let began = Instant::now();
        let leases = store.claim(Claim::any(worker.clone(), SLOTS, Timestamp(0))).await.expect("claimed");
        longest = longest.max(began.elapsed().as_millis());
        assert!(!leases.is_empty(), "there is work");
        for lease in leases {
            let mut last = child::commit(&lease, &worker, 0);
            (last.head.status, last.keep) = (Status::Completed, Keep::End);
            store.commit(last).await.expect("committed");
            let (tenant, _) = lease.run.as_str().split_once('-').expect("a tenant");
            *done.entry(tenant.into()).or_default() += 1;
        }
    }
    (done, longest)
}

async fn the_ten_do_not_wait(store: &dyn Store) {
    fill(store).await;
    let (done, longest) = work(store).await;
    // In turn: as many of the one as of the other, and what was taken in the same claims.
    let many = done.get("many").copied().unwrap_or_default();
    assert!(many <= FEW + SLOTS, "{many} of the many came before the last of the few: {done:?}");
    assert!(longest < 2_000, "a claim took {longest} ms");
    let last = store.load(RunId::stored("many-099999")).await.expect("read").expect("it is there");
    assert_eq!(last.head.status, Status::Queued, "and the many still wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_ten_runs_does_not_wait_for_one_with_a_hundred_thousand_in_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&dir.path().join("windlass.db"), Options::default()).await.expect("it opens");
    the_ten_do_not_wait(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_ten_runs_does_not_wait_for_one_with_a_hundred_thousand_in_a_database() {
    let fleet = Fleet::new();
    the_ten_do_not_wait(&fleet.store().await).await;
}
