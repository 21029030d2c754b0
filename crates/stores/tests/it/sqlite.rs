//! What is particular to SQLite: its file, its schema, its statements.

use std::path::Path;

use rusqlite::Connection;
use windlass_core::ids::{Digest, RunId};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::store::{
    Claim, Finding, Keep, Lease, Load, NewRun, Put, Queueing, Registration, Retention, Store, StoreError, WorkerId,
};
use windlass_stores::{Options, SqliteStore};

use crate::child;

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, Options::default()).await.expect("it opens")
}

async fn begin(store: &SqliteStore, id: &str) -> (Lease, WorkerId) {
    let worker = store.join(Registration::default()).await.expect("joined");
    store.put_bundle(Digest::of(b"bundle"), b"bundle".to_vec()).await.expect("stored");
    store.create(NewRun::new(child::start(id), Timestamp(0))).await.expect("created");
    let within = Some(RunId::stored(id));
    let claim = Claim { within, ..Claim::any(worker.clone(), 1, Timestamp(0)) };
    (store.claim(claim).await.expect("claimed").remove(0), worker)
}

#[tokio::test]
async fn an_ordinary_step_is_at_most_three_statements() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("windlass.db")).await;
    let (lease, worker) = begin(&store, "a").await;
    store.commit(child::commit(&lease, &worker, 0)).await.unwrap();
    let before = store.stats().await.unwrap();
    for expected in 1..101 {
        let mut commit = child::commit(&lease, &worker, expected);
        commit.audit = vec![child::audit_row(expected, Digest::ZERO)];
        store.commit(commit).await.unwrap();
    }
    let after = store.stats().await.unwrap();
    assert_eq!(after.commits - before.commits, 100);
    let statements = after.statements - before.statements;
    assert!(statements <= 300, "{statements} statements for 100 steps");
}

#[tokio::test]
async fn decisions_that_wait_share_one_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("windlass.db")).await;
    let mut leases = Vec::new();
    for n in 0..100 {
        leases.push(begin(&store, &format!("r{n}")).await);
    }
    let commits = leases.iter().map(|(lease, worker)| store.commit(child::commit(lease, worker, 0)));
    for committed in futures::future::join_all(commits).await {
        committed.unwrap();
    }
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.commits, 100);
    assert!(stats.transactions < 50, "{} transactions for 100 decisions at once", stats.transactions);
}

#[tokio::test]
async fn urls_name_the_kind_of_store() {
    for (url, says) in [
        ("mysql://x", "no store of kind `mysql`"),
        ("windlass.db", "write `sqlite:windlass.db`"),
        ("sqlite:", "names no file"),
        ("memory:x", "write `memory:`"),
    ] {
        match windlass_stores::open(url, Options::default()).await {
            Err(StoreError::Invalid(text)) => assert!(text.contains(says), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    windlass_stores::open("memory:", Options::default()).await.unwrap();
}

#[tokio::test]
async fn a_path_that_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"this is no database, and longer than the header of one, so that it is looked at").unwrap();
    match SqliteStore::open(&file.join("windlass.db"), Options::default()).await {
        Err(StoreError::Unavailable(text)) => assert!(text.contains("file/windlass.db"), "{text}"),
        other => panic!("{other:?}"),
    }
    match SqliteStore::open(&file, Options::default()).await {
        Err(StoreError::Corrupt(text)) => assert!(text.contains("not a database"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("windlass.db");
    drop(open(&path).await);
    let sql = "INSERT INTO refinery_schema_history SELECT max(version) + 1, name, applied_on, checksum FROM refinery_schema_history";
    assert!(Connection::open(&path).unwrap().execute(sql, []).unwrap() > 0);
    let before = std::fs::read(&path).unwrap();
    match SqliteStore::open(&path, Options::default()).await {
        Err(StoreError::NewerSchema { found, known }) => assert_eq!(found, known + 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_worker_is_told_when_the_schema_became_newer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("windlass.db");
    let store = open(&path).await;
    let (_lease, worker) = begin(&store, "a").await;
    assert!(store.beat(worker.clone(), Load::default()).await.unwrap().is_alive);
    let sql = "INSERT INTO refinery_schema_history SELECT max(version) + 1, name, applied_on, checksum FROM refinery_schema_history";
    Connection::open(&path).unwrap().execute(sql, []).unwrap();
    match store.beat(worker.clone(), Load::default()).await {
        Err(StoreError::NewerSchema { found, known }) => assert_eq!(found, known + 1),
        other => panic!("{other:?}"),
    }
    assert!(store.is_current(&worker), "what it holds is its own");
}

#[test]
fn processes_that_open_a_new_file_at_once_agree() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/below/windlass.db");
    let openers: Vec<_> = (0..8).map(|_| child::command("open", &path).spawn().unwrap()).collect();
    for opener in openers {
        let output = opener.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let connection = Connection::open(&path).unwrap();
    let each_once = "SELECT count(*) > 1 AND count(*) = count(DISTINCT version) FROM refinery_schema_history";
    assert!(connection.query_row(each_once, [], |row| row.get::<_, bool>(0)).unwrap());
}

#[tokio::test]
async fn a_file_that_was_replaced_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("windlass.db");
    let store = open(&path).await;
    let (lease, worker) = begin(&store, "a").await;
    std::fs::rename(&path, dir.path().join("elsewhere.db")).unwrap();
    for expected in 0..2 {
        match store.commit(child::commit(&lease, &worker, expected)).await {
            Err(StoreError::Unavailable(text)) => assert!(text.contains("removed or replaced"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(store.load(RunId::stored("a")).await, Err(StoreError::Unavailable(_))));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(store.load(RunId::stored("a")).await, Err(StoreError::Unavailable(_))), "nor is it the new one");
}

#[tokio::test]
async fn a_copy_is_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("windlass.db")).await;
    let (lease, worker) = begin(&store, "a").await;
    let copy = dir.path().join("copy.db");
    let busy = async {
        for expected in 0..50 {
            store.commit(child::commit(&lease, &worker, expected)).await.unwrap();
        }
    };
    let (copied, ()) = futures::future::join(store.backup(&copy), busy).await;
    copied.unwrap();
    assert!(matches!(store.backup(&copy).await, Err(StoreError::Invalid(_))), "nothing is written over");
    let copied = open(&copy).await;
    assert_eq!(copied.fsck().await.unwrap(), []);
    let other = copied.join(Registration::default()).await.unwrap();
    let claim = Claim::any(other.clone(), 9, Timestamp(0));
    let lease = copied.claim(claim).await.unwrap().remove(0);
    assert_eq!(lease.taken_from, Some(worker), "in the copy its holder is dead");
    let head = copied.load(RunId::stored("a")).await.unwrap().unwrap().head;
    copied.commit(child::commit(&lease, &other, head.version)).await.unwrap();
}

#[tokio::test]
async fn damage_on_disk_is_told_and_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("windlass.db");
    let store = open(&path).await;
    let (lease, worker) = begin(&store, "a").await;
    store.commit(child::commit(&lease, &worker, 0)).await.unwrap();
    let connection = Connection::open(&path).unwrap();
    let record: Vec<u8> = connection.query_row("SELECT record FROM journal", [], |row| row.get(0)).unwrap();
    let mut bad = record;
    *bad.last_mut().unwrap() ^= 1;
    connection.execute("UPDATE journal SET record = ?1", [bad]).unwrap();
    assert!(matches!(store.load(RunId::stored("a")).await, Err(StoreError::Corrupt(_))));
    assert!(matches!(store.journal(RunId::stored("a"), 0, 9).await, Err(StoreError::Corrupt(_))));
    let findings = store.fsck().await.unwrap();
    assert!(findings.iter().any(|finding| &*finding.rule == "integrity"), "{findings:?}");
}

#[tokio::test]
async fn a_long_reader_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("windlass.db");
    let store = open(&path).await;
    let (lease, worker) = begin(&store, "a").await;
    let reader = Connection::open(&path).unwrap();
    let transaction = reader.unchecked_transaction().unwrap();
    let count = || transaction.query_row("SELECT count(*) FROM journal", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 0);
    for expected in 0..200 {
        store.commit(child::commit(&lease, &worker, expected)).await.unwrap();
    }
    assert_eq!(count(), 0, "it sees the state it began with");
    assert_eq!(store.journal(RunId::stored("a"), 0, 999).await.unwrap().len(), 200);
}

#[tokio::test]
async fn another_writer_is_waited_for_and_then_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("windlass.db");
    let store = SqliteStore::open(&path, Options { busy_ms: 50, ..Options::default() }).await.unwrap();
    let (lease, worker) = begin(&store, "a").await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let commit = child::commit(&lease, &worker, 0);
    assert!(matches!(store.commit(commit.clone()).await, Err(StoreError::Unavailable(_))));
    other.execute_batch("ROLLBACK").unwrap();
    assert!(!store.was_committed(commit.lease.run.clone(), commit.op).await.unwrap(), "and nothing was written");
    store.commit(commit).await.unwrap();
}

#[tokio::test]
async fn a_store_at_a_long_path_tells_other_processes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d".repeat(120)).join("windlass.db");
    let (one, two) = (open(&path).await, open(&path).await);
    one.join(Registration::default()).await.unwrap();
    let told = one.changed();
    two.create(NewRun::new(child::start("a"), Timestamp(0))).await.unwrap();
    told.await;
}

#[tokio::test]
async fn a_worker_that_is_alone_hears_of_one_that_joins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("windlass.db");
    let (one, two) = (open(&path).await, open(&path).await);
    one.join(Registration::default()).await.unwrap();
    assert!(one.reap().await.unwrap().alone);
    let told = one.changed();
    let other = two.join(Registration::default()).await.unwrap();
    told.await;
    assert!(!one.reap().await.unwrap().alone, "the other one may be lost");
    two.leave(other).await.unwrap();
    assert!(one.reap().await.unwrap().alone);
}

#[tokio::test]
async fn damaged_tags_objects_and_queue_names_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("windlass.db");
    let store = open(&path).await;
    let put = Put { kind: "schedule".into(), key: "k".into(), expected: 0, bytes: Some(b"sound".to_vec()) };
    assert!(store.put_object(put).await.unwrap());
    let tags = [("team".into(), "a".into())].into();
    let queueing = Queueing { tags, ..Queueing::default() };
    store.put_bundle(Digest::of(b"bundle"), b"bundle".to_vec()).await.unwrap();
    for name in ["a", "b"] {
        let queueing = queueing.clone();
        store.create(NewRun { queueing, ..NewRun::new(child::start(name), Timestamp(0)) }).await.unwrap();
    }
    assert_eq!(store.fsck().await.unwrap(), []);
    let connection = Connection::open(&path).unwrap();
    for (damage, rule, run) in [
        ("INSERT INTO tags (key, value, run) VALUES ('team', 'a', 77)", "orphan", None),
        ("DELETE FROM tags WHERE run = (SELECT key FROM runs WHERE id = 'a')", "integrity", Some("a")),
        ("UPDATE runs SET pool = 99 WHERE id = 'b'", "orphan", Some("b")),
        ("UPDATE objects SET bytes = x'0001020304'", "integrity", None),
    ] {
        connection.execute(damage, []).unwrap();
        let found = store.fsck().await.unwrap();
        let told = |finding: &Finding| &*finding.rule == rule && finding.run.as_ref().map(RunId::as_str) == run;
        assert!(found.iter().any(told), "{damage}: {found:?}");
    }
    assert!(matches!(store.object("schedule".into(), "k".into()).await, Err(StoreError::Corrupt(_))));
}

#[tokio::test]
async fn a_seal_that_was_read_before_a_removal_is_void() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("windlass.db")).await;
    let (a, worker) = begin(&store, "a").await;
    let mut first = child::commit(&a, &worker, 0);
    first.audit = vec![child::audit_row(1, Digest::ZERO)];
    let head = first.audit[0].hash();
    store.commit(first).await.unwrap();
    let (b, other) = begin(&store, "b").await;
    let mut last = child::commit(&b, &other, 0);
    (last.head.status, last.keep) = (Status::Completed, Keep::End);
    store.commit(last).await.unwrap();
    let read = store.trail().unsealed(100).await.unwrap();
    assert_eq!(store.prune(Retention::default()).await.unwrap().runs, 1);
    // Gets the key of a row that was removed.
    let mut second = child::commit(&a, &worker, 1);
    second.audit = vec![child::audit_row(2, head)];
    store.commit(second).await.unwrap();
    assert!(
        !store.trail().seal(child::sealing(&read)).await.unwrap(),
        "it would move the mark over a row it never saw"
    );
    let again = store.trail().unsealed(100).await.unwrap();
    assert_eq!(again.chains.iter().map(|grown| grown.chain.rows).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_file_that_was_compacted_holds_nothing_of_what_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("windlass.db");
    let url = format!("sqlite:{}", path.display());
    let store = open(&path).await;
    let put =
        |key: usize, expected, bytes| Put { kind: "kept".into(), key: format!("{key:05}").into(), expected, bytes };
    let said = |key: usize| format!("{}{}", "canary-".repeat(key % 90), key).into_bytes();
    // Out of order, so that pages are split and values moved.
    let keys: Vec<usize> = (0..500).map(|n| n * 7 % 500).collect();
    for key in &keys {
        assert!(store.put_object(put(*key, 0, Some(said(*key)))).await.unwrap());
    }
    for key in &keys {
        assert!(store.put_object(put(*key, 1, (*key == 0).then(|| b"stays".to_vec()))).await.unwrap());
    }
    let compacted = windlass_stores::compact(&url, Options::default()).await.unwrap();
    assert_eq!(compacted.remains, None);
    assert!(compacted.after < compacted.before, "{compacted:?}");
    for name in ["windlass.db", "windlass.db-wal"] {
        let bytes = std::fs::read(dir.path().join(name)).unwrap_or_default();
        assert!(!bytes.windows(7).any(|part| part == b"canary-"), "something is left in `{name}`");
    }
    let stays = store.object("kept".into(), "00000".into()).await.unwrap();
    assert_eq!(stays.map(|object| object.bytes), Some(b"stays".to_vec()), "a store that is open goes on");
}

#[tokio::test]
async fn a_file_that_others_read_is_said_to_hold_what_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("windlass.db");
    let store = open(&path).await;
    begin(&store, "a").await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN; SELECT count(*) FROM runs").unwrap();
    let url = format!("sqlite:{}", path.display());
    let compacted = windlass_stores::compact(&url, Options::default()).await.unwrap();
    assert_eq!(compacted.remains.as_deref(), Some("another process reads it"));
    other.execute_batch("COMMIT").unwrap();
    let compacted = windlass_stores::compact(&url, Options::default()).await.unwrap();
    assert_eq!(compacted.remains, None);
}
