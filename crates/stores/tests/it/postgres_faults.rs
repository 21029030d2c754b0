//! What PostgreSQL and the way to it do to a fleet: cut connections, restarts, ended backends, locks, lost hints.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use windlass_core::ids::{Digest, RunId};
use windlass_core::input::Input;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::store::{
    Claim, Commit, Committed, Delivered, Keep, Lease, Load, Message, NewRun, Query, Registration, Store, StoreError,
    WorkerId,
};
use windlass_stores::{Held, Options as SqliteOptions, PostgresStore};
use windlass_testpg::{Bouncer, Cut, Options, Proxy, Server, Stop};

use crate::child::{commit, start};
use crate::postgres::Fleet;

/// No object is held back.
pub(crate) const NOTHING: Held<'static> = Held { kind: "", change: &|_| None };

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The address of a database by another port: that of a proxy or a pooler.
fn by_port(fleet: &Fleet, port: u16) -> String {
    fleet.url().replace(&format!(":{}/", fleet.database.port()), &format!(":{port}/"))
}

pub(crate) async fn ready(store: &PostgresStore) -> WorkerId {
    store.put_bundle(Digest::of(b"bundle"), b"bundle".to_vec()).await.expect("stored");
    store.join(Registration::default()).await.expect("joined")
}

pub(crate) async fn begin(store: &PostgresStore, worker: &WorkerId, id: &str) -> Lease {
    store.create(NewRun::new(start(id), Timestamp(0))).await.expect("created");
    let within = Some(RunId::stored(id));
    let claim = Claim { within, ..Claim::any(worker.clone(), 1, Timestamp(0)) };
    store.claim(claim).await.expect("claimed").remove(0)
}

fn message(to: &str, id: &str) -> Message {
    Message { to: RunId::stored(to), id: id.into(), input: Input::Cancel { reason: id.into() } }
}

/// Commits, and looks up what became of a commit whose answer was lost. Tells how often that was needed.
pub(crate) async fn settle(store: &PostgresStore, commit: Commit) -> Result<(Committed, u64), StoreError> {
    let began = Instant::now();
    let mut lost = 0;
    loop {
        let error = match store.commit(commit.clone()).await {
            Ok(committed) => return Ok((committed, lost)),
            Err(StoreError::Unavailable(text)) => text,
            Err(error) => return Err(error),
        };
        lost += 1;
        loop {
            assert!(began.elapsed() < PATIENCE, "it never settles: {error}");
            match store.was_committed(commit.lease.run.clone(), commit.op).await {
                Ok(true) => return Ok((Committed::Applied { held: true, inbox: false, switched: false }, lost)),
                Ok(false) => break,
                // Slow on purpose: a database that is being restarted needs a moment.
                Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Drives runs to their end while `trouble` goes on, and checks that nothing acknowledged is lost or written twice.
pub(crate) async fn under_fire(
    store: &Arc<PostgresStore>,
    runs: usize,
    steps: u64,
    trouble: impl AsyncFnOnce(&AtomicU64),
) -> u64 {
    let worker = ready(store).await;
    let mut leases = Vec::new();
    for n in 0..runs {
        leases.push(begin(store, &worker, &format!("r{n}")).await);
    }
    let done = Arc::new(AtomicU64::new(0));
    let drivers: Vec<_> = leases
        .into_iter()
        .map(|lease| {
            let (store, worker, done) = (Arc::clone(store), worker.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut lost = 0;
                for expected in 0..steps {
                    let mut next = commit(&lease, &worker, expected);
                    if expected + 1 == steps {
                        next.head.status = Status::Completed;
                        next.keep = Keep::End;
                    }
                    let (committed, times) = settle(&store, next).await.expect("settled");
                    assert_ne!(committed, Committed::Stale, "a live worker's run is its own");
                    lost += times;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                lost
            })
        })
        .collect();
    trouble(&done).await;
    let mut lost = 0;
    for driver in drivers {
        lost += driver.await.expect("driven to its end");
    }
    let page = store.list(Query { limit: runs * 2, ..Query::default() }).await.expect("listed");
    assert_eq!(page.heads.len(), runs);
    assert!(page.heads.iter().all(|head| head.status == Status::Completed && head.version == steps));
    assert_eq!(store.fsck().await.expect("checked"), []);
    lost
}

pub(crate) async fn wait_for(done: &AtomicU64, count: u64) {
    let began = Instant::now();
    while done.load(Ordering::Relaxed) < count {
        assert!(began.elapsed() < PATIENCE, "no progress");
        // Slow on purpose: trouble has to come in the middle of work.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_before_or_after_the_commit_is_settled_right_both_times() {
    let fleet = Fleet::new();
    let proxy = Proxy::start(fleet.database.port());
    let store = PostgresStore::open(&format!("{}&lanes=1", by_port(&fleet, proxy.port()))).await.expect("opened");
    let worker = ready(&store).await;
    let (lease, _other) = (begin(&store, &worker, "a").await, begin(&store, &worker, "b").await);
    let mut expected = 0;
    for rich in [false, true] {
        for (after, mark) in [(false, "cut me"), (true, "cut me"), (false, "COMMIT"), (true, "COMMIT")] {
            if mark == "COMMIT" && !rich {
                continue;
            }
            let mut step = commit(&lease, &worker, expected);
            step.head.state = Some("cut me".into());
            if rich {
                step.messages = vec![message("b", &format!("m{expected}"))];
            }
            let bytes = mark.as_bytes().to_vec();
            proxy.cut(if after { Cut::After(bytes) } else { Cut::Before(bytes) });
            let before = proxy.cuts();
            match store.commit(step.clone()).await {
                Err(StoreError::Unavailable(_)) => {}
                other => panic!("the answer of a cut commit is {other:?}"),
            }
            assert_eq!(proxy.cuts(), before + 1, "it was cut");
            let there = store.was_committed(lease.run.clone(), step.op).await.expect("told");
            assert_eq!(there, after, "rich: {rich}, after: {after}, at {mark}");
            let again = store.commit(step).await.expect("answered");
            assert_eq!(again == Committed::Stale, after, "done once, whatever is sent again");
            expected += 1;
        }
    }
    assert_eq!(store.journal(lease.run.clone(), 0, 99).await.expect("read").len() as u64, expected);
    assert_eq!(store.inbox(RunId::stored("b")).await.expect("read").len(), 4, "each message once");
    assert_eq!(store.fsck().await.expect("checked"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_under_load_loses_nothing() {
    let server = Server::start(Options::default());
    let database = server.database();
    let marks = tempfile::tempdir().expect("a directory");
    let url = format!("{}?marks={}", database.url(), marks.path().display());
    let store = Arc::new(PostgresStore::open(&url).await.expect("opened"));
    let lost = under_fire(&store, 12, 60, async |done| {
        for (at, how) in [(100, Stop::Immediate), (300, Stop::Kill), (500, Stop::Fast)] {
            wait_for(done, at).await;
            tokio::task::block_in_place(|| server.restart(how));
        }
    })
    .await;
    assert!(lost > 0, "some answers were lost on the way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_a_crash_of_the_server_took_back_lets_nobody_write() {
    // The log is written to the disk with the next commit, and by nothing else.
    let settings = [("wal_writer_delay".to_owned(), "10s".to_owned())].into();
    let server = Server::start(Options { settings, ..Options::default() });
    let database = server.database();
    let marks = tempfile::tempdir().expect("a directory");
    let url = format!("{}?marks={}&poll_ms=50", database.url(), marks.path().display());
    let store = PostgresStore::open(&url).await.expect("opened");
    let one = ready(&store).await;
    let two = store.join(Registration::default()).await.expect("joined");
    let lost = begin(&store, &one, "a").await;
    tokio::task::block_in_place(|| server.restart(Stop::Immediate));
    let began = Instant::now();
    let held = loop {
        assert!(began.elapsed() < PATIENCE, "the run is not in the queue again");
        match store.claim(Claim::any(two.clone(), 1, Timestamp(0))).await {
            Ok(mut leases) if !leases.is_empty() => break leases.remove(0),
            // Slow on purpose: a database that starts needs a moment.
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(held.epoch, lost.epoch, "nothing is left of the first claim");
    let (stale, _) = settle(&store, commit(&lost, &one, 0)).await.expect("answered");
    assert_eq!(stale, Committed::Stale, "the first one writes nothing");
    let (applied, _) = settle(&store, commit(&held, &two, 0)).await.expect("answered");
    assert_ne!(applied, Committed::Stale);
    assert_eq!(store.journal(held.run.clone(), 0, 99).await.expect("read").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_ended_at_random_lose_nothing() {
    let fleet = Fleet::new();
    let store = Arc::new(fleet.store().await);
    let ended = AtomicU64::new(0);
    under_fire(&store, 12, 200, async |done| {
        for at in (40..2_300).step_by(40) {
            wait_for(done, at).await;
            let one = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid() \
                 ORDER BY random() LIMIT 4",
                fleet.database.name()
            );
            let end = || tokio::task::block_in_place(|| fleet.database.execute(&one)).expect("ended").len() as u64;
            // Those that were ended a moment ago may not have come back yet.
            let mut count = end();
            while count < 2 && done.load(Ordering::Relaxed) < 12 * 200 {
                count += end();
            }
            ended.fetch_add(count, Ordering::Relaxed);
        }
    })
    .await;
    assert!(ended.load(Ordering::Relaxed) >= 20, "enough were ended: {ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_workers_on_two_connections_stay_alive() {
    let fleet = Fleet::new();
    let url = format!("{}&readers=1&lanes=1&lease_ms=3000", fleet.url());
    let store = Arc::new(PostgresStore::open(&url).await.expect("opened"));
    store.put_bundle(Digest::of(b"bundle"), b"bundle".to_vec()).await.expect("stored");
    let workers = (0..50).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let worker = store.join(Registration::default()).await.expect("joined");
            let lease = begin(&store, &worker, &format!("r{n}")).await;
            for expected in 0..10 {
                let applied = store.commit(commit(&lease, &worker, expected)).await.expect("committed");
                assert_ne!(applied, Committed::Stale);
                store.load(lease.run.clone()).await.expect("read");
                let beat = store.beat(worker.clone(), Load::default()).await.expect("a sign of life finds its way");
                assert!(beat.is_alive && store.is_current(&worker));
            }
        })
    });
    for worker in join_all(workers).await {
        worker.expect("it worked");
    }
    assert_eq!(store.fsck().await.expect("checked"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_deadlocks_are_waited_out_with_the_same_decision() {
    let fleet = Fleet::new();
    let url = format!("{}&lanes=1&options=-c%20lock_timeout%3D100ms%20-c%20deadlock_timeout%3D20ms", fleet.url());
    let store = PostgresStore::open(&url).await.expect("opened");
    let worker = ready(&store).await;
    let (a, b) = (begin(&store, &worker, "a").await, begin(&store, &worker, "b").await);
    let (mut other, connection) =
        tokio_postgres::connect(&fleet.database.url(), tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    // A lock that lasts longer than the store waits at once.
    let held = other.transaction().await.expect("begun");
    held.execute("SELECT 1 FROM runs WHERE id = 'a' FOR UPDATE", &[]).await.expect("locked");
    let let_go = async {
        // Slow on purpose: the lock has to outlast the store's first try.
        tokio::time::sleep(Duration::from_millis(250)).await;
        held.rollback().await.expect("let go");
    };
    let (committed, ()) = futures::future::join(store.commit(commit(&a, &worker, 0)), let_go).await;
    assert_ne!(committed.expect("committed"), Committed::Stale);
    // Another transaction that takes the rows in the other order, and is patient.
    let setup = "SET deadlock_timeout = '30s'; SET lock_timeout = 0";
    other.batch_execute(setup).await.expect("set");
    let crossing = other.transaction().await.expect("begun");
    crossing.execute("SELECT 1 FROM runs WHERE id = 'b' FOR UPDATE", &[]).await.expect("locked");
    let mut step = commit(&a, &worker, 1);
    step.messages = vec![message("b", "m")];
    let cross = async {
        loop {
            let waiting = fleet.database.value("SELECT count(*) FROM pg_locks WHERE NOT granted");
            if waiting != "0" {
                break;
            }
            tokio::task::yield_now().await;
        }
        crossing.execute("SELECT 1 FROM runs WHERE id = 'a' FOR UPDATE", &[]).await.expect("locked");
        crossing.commit().await.expect("done");
    };
    let (committed, ()) = futures::future::join(store.commit(step), cross).await;
    assert_ne!(committed.expect("committed"), Committed::Stale);
    assert_eq!(store.inbox(b.run.clone()).await.expect("read").len(), 1);
    assert_eq!(store.journal(a.run.clone(), 0, 9).await.expect("read").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_hint_costs_one_look_and_the_listener_comes_back() {
    let fleet = Fleet::new();
    let one = PostgresStore::open(&format!("{}&poll_ms=60000", fleet.url())).await.expect("opened");
    let two = PostgresStore::open(&format!("{}&poll_ms=200", fleet.url())).await.expect("opened");
    let listeners =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN windlass'";
    let listening = async |count: &str| {
        let began = Instant::now();
        while fleet.database.value(listeners) != count {
            assert!(began.elapsed() < PATIENCE, "nobody listens");
            tokio::task::yield_now().await;
        }
    };
    listening("2").await;
    let worker = ready(&one).await;
    // Hints left from the start.
    while tokio::time::timeout(Duration::from_millis(50), one.changed()).await.is_ok() {}
    let other = ready(&two).await;
    two.create(NewRun::new(start("a"), Timestamp(0))).await.expect("created");
    tokio::time::timeout(Duration::from_secs(10), one.changed()).await.expect("told long before it would look");
    assert_eq!(one.claim(Claim::any(worker, 9, Timestamp(0))).await.expect("claimed").len(), 1);
    // Everyone who listens is cut off; what happens now is not told.
    let end = listeners.replace("count(*)", "pg_terminate_backend(pid)");
    assert_eq!(fleet.database.execute(&end).expect("ended").len(), 2);
    one.create(NewRun::new(start("b"), Timestamp(0))).await.expect("created");
    let found = async {
        while two.claim(Claim::any(other.clone(), 9, Timestamp(0))).await.expect("claimed").is_empty() {
            two.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found).await.expect("found by looking");
    listening("2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_transaction_mode_is_noticed_and_lived_with() {
    let fleet = Fleet::new();
    let bouncer = Bouncer::start(fleet.database.port());
    let direct = fleet.store().await;
    let store = Arc::new(PostgresStore::open(&by_port(&fleet, bouncer.port())).await.expect("opened"));
    under_fire(&store, 12, 20, async |_| {}).await;
    let worker = ready(&store).await;
    let lease = begin(&store, &worker, "x").await;
    let mut step = commit(&lease, &worker, 0);
    step.head.status = Status::Waiting;
    step.keep = Keep::Park { wake_at: None };
    store.commit(step).await.expect("parked");
    assert_eq!(direct.deliver(message("x", "m")).await.expect("delivered"), Delivered::Accepted);
    let found = async {
        while store.claim(Claim::any(worker.clone(), 9, Timestamp(0))).await.expect("claimed").is_empty() {
            store.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found).await.expect("found by looking");
    assert!(store.beat(worker, Load::default()).await.expect("a sign of life").is_alive);
    let named = fleet.database.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'windlass'");
    assert_ne!(named, "0");
    assert_eq!(store.fsck().await.expect("checked"), []);
}

#[tokio::test]
async fn a_worker_whose_lease_ran_out_changes_nothing() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.store().await, fleet.store().await);
    let (zombie, worker) = (ready(&one).await, ready(&two).await);
    let lease = begin(&one, &zombie, "a").await;
    let expire = format!("UPDATE workers SET until_us = 0 WHERE id = '{zombie}'");
    fleet.database.execute(&expire).expect("its lease ran out");
    let taken = two.claim(Claim::any(worker.clone(), 9, Timestamp(0))).await.expect("claimed").remove(0);
    assert_eq!((taken.epoch, taken.taken_from.as_ref()), (lease.epoch + 1, Some(&zombie)));
    assert_eq!(one.commit(commit(&lease, &zombie, 0)).await.expect("answered"), Committed::Stale);
    one.release(lease, zombie.clone(), Keep::HandBack).await.expect("answered");
    assert_eq!(fleet.database.value("SELECT count(*) FROM journal"), "0");
    let beat = one.beat(zombie.clone(), Load::default()).await.expect("answered");
    assert!(!beat.is_alive && !one.is_current(&zombie));
    assert!(one.claim(Claim::any(zombie, 9, Timestamp(0))).await.expect("answered").is_empty());
    assert_ne!(two.commit(commit(&taken, &worker, 0)).await.expect("committed"), Committed::Stale);
}

#[tokio::test]
async fn a_worker_that_slept_through_its_lease_sends_nothing() {
    let fleet = Fleet::new();
    let store = PostgresStore::open(&format!("{}&lease_ms=200", fleet.url())).await.expect("opened");
    let worker = ready(&store).await;
    assert!(store.is_current(&worker));
    // Slow on purpose: a lease is a length of time.
    tokio::time::sleep(Duration::from_millis(170)).await;
    assert!(!store.is_current(&worker), "with a margin before the lease ends");
    let beat = store.beat(worker.clone(), Load::default()).await.expect("answered");
    assert_eq!(beat.is_alive, store.is_current(&worker));
    assert!(beat.now.0 > 1_600_000_000_000, "the time is that of the database");
}

#[tokio::test]
async fn a_clock_an_hour_off_changes_no_lease_and_no_timer() {
    let server = Server::start(Options { faketime: Some("-1h".into()), ..Options::default() });
    let database = server.database();
    let marks = tempfile::tempdir().expect("a directory");
    let store =
        PostgresStore::open(&format!("{}?marks={}", database.url(), marks.path().display())).await.expect("opened");
    let worker = ready(&store).await;
    let beat = store.beat(worker.clone(), Load::default()).await.expect("answered");
    let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_millis() as u64;
    assert!((3_500_000..3_700_000).contains(&here.saturating_sub(beat.now.0)), "the database's time is an hour behind");
    let lease = begin(&store, &worker, "a").await;
    let mut step = commit(&lease, &worker, 0);
    step.head.status = Status::Waiting;
    step.keep = Keep::Park { wake_at: Some(Timestamp(beat.now.0 + 60_000)) };
    store.commit(step).await.expect("parked");
    assert!(
        store.claim(Claim::any(worker.clone(), 9, beat.now)).await.expect("answered").is_empty(),
        "it is not due there"
    );
    let due = Timestamp(beat.now.0 + 60_000);
    assert_eq!(store.claim(Claim::any(worker.clone(), 9, due)).await.expect("answered").len(), 1);
    assert!(store.reap().await.expect("answered").workers.is_empty(), "nobody's lease ran out");
    assert!(store.is_current(&worker));
}

#[tokio::test]
async fn a_copy_of_one_moment_is_restored_and_held_back() {
    let fleet = Fleet::new();
    let store = fleet.store().await;
    let worker = ready(&store).await;
    let (lease, _other) = (begin(&store, &worker, "a").await, begin(&store, &worker, "b").await);
    for expected in 0..20 {
        store.commit(commit(&lease, &worker, expected)).await.expect("committed");
    }
    let copy = fleet.marks.path().join("copy");
    let busy = async {
        for expected in 20..40 {
            store.commit(commit(&lease, &worker, expected)).await.expect("committed");
        }
    };
    let (copied, ()) = futures::future::join(store.backup(&copy), busy).await;
    copied.expect("copied");
    assert!(matches!(store.backup(&copy).await, Err(StoreError::Invalid(_))), "nothing is written over");
    let other = Fleet::new();
    let mut damaged = std::fs::read(&copy).expect("read");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let bad = fleet.marks.path().join("bad");
    std::fs::write(&bad, damaged).expect("written");
    assert!(
        windlass_stores::restore(&bad, &other.url(), SqliteOptions::default(), false, |_| "restored".into(), NOTHING)
            .await
            .is_err()
    );
    assert_eq!(other.database.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    let restored =
        windlass_stores::restore(&copy, &other.url(), SqliteOptions::default(), false, |_| "restored".into(), NOTHING)
            .await
            .expect("restored");
    assert_eq!(restored.quarantined, 2);
    let copied = other.store().await;
    let stored = copied.load(lease.run.clone()).await.expect("read").expect("it exists");
    assert!(stored.records.len() as u64 == stored.head.version && stored.head.version >= 20, "all of one moment");
    assert_eq!(stored.head.status, Status::Quarantined);
    assert_eq!(copied.fsck().await.expect("checked"), []);
    assert!(
        windlass_stores::restore(&copy, &other.url(), SqliteOptions::default(), false, |_| "again".into(), NOTHING)
            .await
            .is_err(),
        "it is not empty"
    );
}
