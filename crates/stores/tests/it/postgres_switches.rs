//! Read-only switches on PostgreSQL: a change and the commits that look at it come one after the other, also where their
//! transactions overlap.

use std::sync::Arc;
use std::time::Instant;

use tokio_postgres::{Client, NoTls};
use windlass_ports::store::{Commit, Committed, Put, SWITCHES, Store, StoreError, switch_key};

use crate::child::commit;
use crate::postgres::Fleet;
use crate::postgres_faults::{PATIENCE, begin, ready};

async fn client(fleet: &Fleet) -> Client {
    let (client, connection) = tokio_postgres::connect(&fleet.database.url(), NoTls).await.expect("connected");
    tokio::spawn(connection);
    client
}

/// Waits until somebody waits for the lock of the switches.
async fn until_one_waits(client: &Client) {
    let began = Instant::now();
    loop {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        let row = client.query_one(waiting, &[]).await.expect("answered");
        if row.get::<_, i64>(0) > 0 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "nobody waits");
    }
}

fn on() -> Put {
    Put { kind: SWITCHES.into(), key: switch_key(None), expected: 0, bytes: Some(b"{}".to_vec()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_switch_waits_for_commits_that_have_looked_at_it() {
    let fleet = Fleet::new();
    let store = Arc::new(fleet.store().await);
    let (looking, other) = (client(&fleet).await, client(&fleet).await);
    looking.batch_execute("BEGIN; SELECT switch_epoch('default')").await.expect("it looks");
    let changing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.put_object(on()).await }
    });
    until_one_waits(&other).await;
    assert!(!changing.is_finished());
    let before = store.object(SWITCHES.into(), switch_key(None)).await.expect("read");
    assert_eq!(before, None, "it is not changed while a commit that has looked may still be written");
    looking.batch_execute("COMMIT").await.expect("written");
    assert!(changing.await.expect("a task").expect("changed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_began_before_a_change_was_written_sees_it() {
    let fleet = Fleet::new();
    let store = Arc::new(fleet.store().await);
    let worker = ready(&store).await;
    let lease = begin(&store, &worker, "a").await;
    let (changing, other) = (client(&fleet).await, client(&fleet).await);
    let change = "BEGIN; SELECT pg_advisory_xact_lock(7812738460179); \
         INSERT INTO objects (kind, key, revision, bytes) VALUES ('read_only', 'environment', 1, '\\x7b7d')";
    changing.batch_execute(change).await.expect("it changes");
    let committing = tokio::spawn({
        let (store, step) = (Arc::clone(&store), Commit { begins: Some(0), ..commit(&lease, &worker, 0) });
        async move { store.commit(step).await }
    });
    // Its statement has begun, so what it sees by itself is from before the change.
    until_one_waits(&other).await;
    changing.batch_execute("COMMIT").await.expect("written");
    let committed: Result<Committed, StoreError> = committing.await.expect("a task");
    assert_eq!(committed.expect("answered"), Committed::Applied { held: true, inbox: false, switched: true });
}
