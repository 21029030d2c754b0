//! Buckets of rates in a database: those who make the same ones at the same time, and what a crash of the server forgets.

use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use tokio_postgres::NoTls;
use windlass_core::machine::Priority;
use windlass_ports::store::rates::{Ask, Part, Rate, Rates, Take, Taken};
use windlass_stores::PostgresStore;
use windlass_testpg::{Options, Server, Stop};

use crate::postgres::Fleet;

const FAST: Rate = Rate { amount: 1_000, per_ms: 1_000, burst: 1_000 };

/// A trip that asks for calls, each of all these buckets.
fn trip(by: &str, buckets: &[&str], rate: Rate, calls: u64) -> Take {
    let parts: Vec<Part> = buckets.iter().map(|bucket| Part { bucket: (*bucket).into(), rate, need: 1 }).collect();
    let ask = Ask { class: Priority::Normal, parts, more: calls.saturating_sub(1) };
    Take { by: by.into(), asks: vec![ask], words: Vec::new(), tidy: true }
}

fn calls(taken: &Taken) -> u64 {
    taken.granted.iter().map(|granted| granted.calls).sum()
}

#[tokio::test]
async fn whoever_makes_a_bucket_holds_no_other_meanwhile() {
    let fleet = Fleet::new();
    let store = Arc::new(fleet.store().await);
    store.take(trip("p", &["b"], FAST, 1)).await.expect("taken");
    let (client, connection) = tokio_postgres::connect(&fleet.database.url(), NoTls).await.expect("connected");
    let driven = tokio::spawn(connection);
    // Another one is about to make the first of two that a trip takes of.
    client.batch_execute("BEGIN; INSERT INTO rates (bucket, idle_at, bytes) VALUES ('a', 0, '')").await.expect("begun");
    let taking = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.take(trip("p", &["a", "b"], FAST, 1)).await }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while fleet.database.value(waits) == "0" {
        assert!(!taking.is_finished(), "it did not wait");
        tokio::task::yield_now().await;
    }
    let free = client.batch_execute("SELECT 1 FROM rates WHERE bucket = 'b' FOR UPDATE NOWAIT").await;
    free.expect("who waits for the first holds not the second");
    client.batch_execute("COMMIT").await.expect("committed");
    let taken = taking.await.expect("not broken").expect("taken");
    assert_eq!(taken.granted.len(), 1);
    driven.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_make_the_same_buckets_at_once_lose_none_to_each_other() {
    let fleet = Fleet::new();
    let stores: Vec<PostgresStore> = join_all((0..4).map(|_| fleet.store())).await;
    for round in 0..40 {
        let names: Vec<String> = (0..4).map(|n| format!("r{round}-{n}")).collect();
        let of = |turn: usize| -> Vec<&str> {
            let picked = (0..4).filter(|n| (turn + 1) & (1 << n) != 0 || *n == turn % 4);
            picked.map(|n| names[n].as_str()).collect()
        };
        let takes = (0..8).map(|turn| {
            let (store, by) = (&stores[turn % stores.len()], format!("p{turn}"));
            let take = trip(&by, &of(turn), FAST, 1);
            async move { store.take(take).await }
        });
        for taken in join_all(takes).await {
            assert_eq!(taken.expect("taken").granted.len(), 1);
        }
    }
    assert!(!fleet.database.value("SELECT count(*) FROM rates WHERE bucket = ''").starts_with('0'));
}

/// A server that crashes forgets what was taken, and that it had given anything: so nothing is there until it has come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_server_hands_out_nothing_twice() {
    let server = Server::start(Options::default());
    let database = server.database();
    // Nothing to speak of comes back while this runs, so that what is handed out is counted exactly.
    let rate = Rate { amount: 1, per_ms: 60_000, burst: 20 };
    let store = PostgresStore::open(&database.url()).await.expect("it opens");
    drop(database.execute("UPDATE rates SET idle_at = 0 WHERE bucket = ''").expect("known for long"));
    assert_eq!(calls(&store.take(trip("p", &["a"], rate, 15)).await.expect("taken")), 15);
    let other = trip("p", &["full"], rate, 1);
    assert_eq!(calls(&store.take(other).await.expect("taken")), 1, "another bucket is nearly full");
    tokio::task::block_in_place(|| server.restart(Stop::Kill));
    let store = PostgresStore::open(&database.url()).await.expect("it opens");
    assert_eq!(database.value("SELECT count(*) FROM rates"), "0", "the crash emptied it");
    let began = Instant::now();
    let (mut after, mut full) = (0, 0);
    for _ in 0..20 {
        after += calls(&store.take(trip("p", &["a"], rate, 20)).await.expect("taken"));
        full += calls(&store.take(trip("p", &["full"], rate, 20)).await.expect("taken"));
    }
    let came = u64::try_from(began.elapsed().as_millis()).expect("short") * rate.amount / rate.per_ms + 1;
    assert!(after <= came && full <= came, "{after} and {full} were handed out, where {came} may have come back");
    // Without the word of the crash what is not there counts as full since long: this is what would have been handed out.
    drop(database.execute("UPDATE rates SET idle_at = 0 WHERE bucket = ''; DELETE FROM rates WHERE bucket <> ''"));
    assert_eq!(calls(&store.take(trip("p", &["a"], rate, 20)).await.expect("taken")), 20, "the check can fail");
}

/// A stop in good order keeps what is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_in_good_order_forgets_nothing() {
    let server = Server::start(Options::default());
    let database = server.database();
    let rate = Rate { amount: 1, per_ms: 60_000, burst: 20 };
    let store = PostgresStore::open(&database.url()).await.expect("it opens");
    drop(database.execute("UPDATE rates SET idle_at = 0 WHERE bucket = ''").expect("known for long"));
    assert_eq!(calls(&store.take(trip("p", &["a"], rate, 15)).await.expect("taken")), 15);
    drop(store);
    tokio::task::block_in_place(|| server.restart(Stop::Fast));
    let store = PostgresStore::open(&database.url()).await.expect("it opens");
    let left = calls(&store.take(trip("p", &["a"], rate, 20)).await.expect("taken"));
    assert!((5..=7).contains(&left), "{left} are left of five and what came back");
}
