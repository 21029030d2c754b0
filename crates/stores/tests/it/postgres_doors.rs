//! What a database must be like to be used, and what is said when it is not. Its schema, copies of it, and its rights.

use std::sync::Arc;

use windlass_core::effect::WaitKind;
use windlass_core::ids::{Digest, EffectId, RunId};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::{
    Claim, Keep, Load, NewRun, Query, Registration, Signal, Signalled, Store, StoreError, WaitRow,
};
use windlass_stores::{Options as SqliteOptions, PostgresStore, SqliteStore};
use windlass_testpg::{Cut, Options, Proxy, Server, Stop};

use crate::child::{commit, start};
use crate::postgres::Fleet;

async fn refused(url: &str) -> String {
    match PostgresStore::open(url).await {
        Err(StoreError::Unavailable(text) | StoreError::Invalid(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_keeps_a_database_from_being_used_is_said_without_the_password() {
    let server = Server::start(Options {
        hba: vec![
            "host all windlass 127.0.0.1/32 trust".into(),
            "host all shut 127.0.0.1/32 reject".into(),
            "host all all 127.0.0.1/32 scram-sha-256".into(),
        ],
        ..Options::default()
    });
    let database = server.database();
    server.execute("CREATE ROLE guest LOGIN PASSWORD 'right'; CREATE ROLE shut LOGIN").expect("made");
    let url = |user: &str, port: u16, name: &str| format!("postgres://{user}@127.0.0.1:{port}/{name}");
    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let dead = unused.local_addr().expect("bound").port();
    drop(unused);
    let (port, name) = (server.port(), database.name());
    for (url, says) in [
        (url("guest:sesame", port, name), "does not accept the password of `guest`"),
        (url("shut:sesame", port, name), "does not let `shut` in"),
        (url("windlass:sesame", port, "nowhere"), "make it with `createdb nowhere`"),
        (url("windlass:sesame", dead, name), "cannot be reached"),
        (url("windlass:sesame", port, name) + "?sslmode=require", "cannot be reached"),
    ] {
        let text = refused(&url).await;
        assert!(text.contains(says) && !text.contains("sesame"), "{text}");
    }
    let set = |text: &str| database.execute_outside(&format!("ALTER DATABASE {name} {text}")).expect("set");
    for (change, says) in [
        ("SET synchronous_commit = off", "synchronous_commit = off"),
        ("SET default_transaction_read_only = on", "read only"),
    ] {
        set(change);
        assert!(refused(&database.url()).await.contains(says), "{change}");
        set("RESET ALL");
    }
    PostgresStore::open(&database.url()).await.expect("it opens");
}

#[tokio::test]
async fn a_standby_is_refused() {
    let server = Server::start(Options { durable: true, ..Options::default() });
    let database = server.database();
    drop(PostgresStore::open(&database.url()).await.expect("it opens"));
    server.stop(Stop::Fast);
    std::fs::write(server.data().join("standby.signal"), b"").expect("written");
    server.start_again();
    assert!(refused(&database.url()).await.contains("is a standby"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_takes_no_writes_is_read_and_recovers() {
    let fleet = Fleet::new();
    let store = fleet.store().await;
    let worker = store.join(Registration::default()).await.expect("joined");
    store.put_bundle(Digest::of(b"bundle"), b"bundle".to_vec()).await.expect("stored");
    store.create(NewRun::new(start("a"), Timestamp(0))).await.expect("created");
    let lease = store.claim(Claim::any(worker.clone(), 1, Timestamp(0))).await.expect("claimed").remove(0);
    let name = fleet.database.name();
    let set = |text: &str| fleet.database.execute_outside(&format!("ALTER DATABASE {name} {text}")).expect("set");
    set("SET default_transaction_read_only = on");
    assert!(fleet.database.disconnect_all() > 0);
    loop {
        match store.commit(commit(&lease, &worker, 0)).await {
            Err(StoreError::Unavailable(text)) if text.contains("takes no writes") => break,
            // The connection that was ended.
            Err(StoreError::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let mut seen = store.load(lease.run.clone()).await;
    while seen.is_err() {
        seen = store.load(lease.run.clone()).await;
    }
    assert_eq!(seen.expect("read").expect("it exists").head.version, 0, "nothing half done");
    set("RESET default_transaction_read_only");
    assert!(fleet.database.disconnect_all() > 0);
    let mut applied = store.commit(commit(&lease, &worker, 0)).await;
    while matches!(applied, Err(StoreError::Unavailable(_))) {
        applied = store.commit(commit(&lease, &worker, 0)).await;
    }
    applied.expect("it takes writes again");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let fleet = Fleet::new();
    drop(fleet.store().await);
    let newer = "INSERT INTO schema_history (version, name, checksum) SELECT max(version) + 1, 'later', 'x' FROM schema_history";
    fleet.database.execute(newer).expect("noted");
    match PostgresStore::open(&fleet.url()).await {
        Err(StoreError::NewerSchema { found, known }) => assert_eq!(found, known + 1),
        other => panic!("{other:?}"),
    }
    let status = PostgresStore::schema_status(&fleet.url()).await.expect("told");
    assert_eq!(status.found, status.known + 1);
    assert_eq!(fleet.database.value("SELECT max(version) FROM schema_history"), status.found.to_string());
    let changed = "DELETE FROM schema_history WHERE name = 'later'; UPDATE schema_history SET checksum = 'other'";
    fleet.database.execute(changed).expect("changed");
    assert!(matches!(PostgresStore::open(&fleet.url()).await, Err(StoreError::Corrupt(_))));
}

#[tokio::test]
async fn a_worker_is_told_when_the_schema_became_newer() {
    let fleet = Fleet::new();
    let store = fleet.store().await;
    let worker = store.join(Registration::default()).await.expect("joined");
    assert!(store.beat(worker.clone(), Load::default()).await.expect("answered").is_alive);
    let newer = "INSERT INTO schema_history (version, name, checksum) SELECT max(version) + 1, 'later', 'x' FROM schema_history";
    fleet.database.execute(newer).expect("noted");
    match store.beat(worker.clone(), Load::default()).await {
        Err(StoreError::NewerSchema { found, known }) => assert_eq!(found, known + 1),
        other => panic!("{other:?}"),
    }
    assert!(store.is_current(&worker), "what it holds is its own");
    let seen = format!("SELECT until_us > joined_us AND alive FROM workers WHERE id = '{worker}'");
    assert_eq!(fleet.database.value(&seen), "t");
}

#[tokio::test]
async fn a_migration_cut_at_any_place_leaves_nothing_behind() {
    let fleet = Fleet::new();
    let proxy = Proxy::start(fleet.database.port());
    let url = fleet.url().replace(&format!(":{}/", fleet.database.port()), &format!(":{}/", proxy.port()));
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    for place in [
        "SET LOCAL lock_timeout",
        "schema_history (version integer",
        "CREATE TABLE runs",
        "CREATE TABLE object_floors",
        "INSERT INTO schema_history",
        "INSERT INTO store",
        "COMMIT",
    ] {
        proxy.cut(Cut::Before(place.as_bytes().to_vec()));
        let before = proxy.cuts();
        assert!(matches!(PostgresStore::migrate(&url).await, Err(StoreError::Unavailable(_))), "{place}");
        assert_eq!(proxy.cuts(), before + 1, "{place}");
        // The server notices that its client is gone when it has read what came.
        while fleet.database.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'windlass' AND datname = current_database()") != "0" {
            tokio::task::yield_now().await;
        }
        assert_eq!(fleet.database.value(tables), "0", "{place}");
        assert_eq!(PostgresStore::schema_status(&url).await.expect("told").found, 0);
    }
    let known = PostgresStore::schema_status(&url).await.expect("told").known;
    assert_eq!(PostgresStore::migrate(&url).await.expect("migrated"), known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_open_an_empty_database_at_once_agree() {
    let fleet = Fleet::new();
    let openers = (0..8).map(|_| fleet.store());
    let stores = futures::future::join_all(openers).await;
    let status = PostgresStore::schema_status(&fleet.url()).await.expect("read");
    assert_eq!(status.found, status.known);
    assert_eq!(fleet.database.value("SELECT count(*) FROM store"), "1");
    drop(stores);
}

/// What a hostile caller puts into every text there is.
const HOSTILE: [&str; 8] = [
    "\0",
    "a\0b\u{1}\u{1}\u{2}",
    "'; DROP TABLE runs; --",
    "\\x00 \\u0000 %s $1 {0}",
    "\u{202e}\u{feff}\u{fffd}\u{10ffff}",
    "\"],}{[\n\r\t",
    "NULL",
    "{a,\"b\"}",
];

#[tokio::test]
async fn hostile_texts_read_the_same_from_both_stores() {
    let fleet = Fleet::new();
    let dir = tempfile::tempdir().expect("a directory");
    let sqlite = SqliteStore::open(&dir.path().join("windlass.db"), SqliteOptions::default()).await.expect("opened");
    let mut pictures = Vec::new();
    for store in [Arc::new(fleet.store().await) as Arc<dyn Store>, Arc::new(sqlite)] {
        let worker = store.join(Registration::default()).await.expect("joined");
        store.put_bundle(Digest::of(b"bundle"), b"bundle".to_vec()).await.expect("stored");
        let mut picture = String::new();
        for (n, text) in HOSTILE.iter().enumerate() {
            let id = RunId::stored(&format!("{n}{text}"));
            let mut new = NewRun::new(start(id.as_str()), Timestamp(n as u64));
            new.start.machine_name = (*text).into();
            new.start.scope.tenant = (*text).into();
            new.start.input = Value::str(*text);
            new.queueing.pool = Some((*text).into());
            new.queueing.tags = [((*text).into(), (*text).into()), ("k=v".into(), "1:x".into())].into();
            store.create(new).await.expect("created");
            let mut claim = Claim::any(worker.clone(), 9, Timestamp(0));
            claim.pools = vec![(*text).into()];
            let lease = store.claim(claim).await.expect("claimed").remove(0);
            let mut step = commit(&lease, &worker, 0);
            step.head.state = Some((*text).into());
            step.head.status = Status::Waiting;
            step.keep = Keep::Park { wake_at: None };
            let wait = WaitRow { effect: EffectId(1), channel: (*text).into(), kind: WaitKind::Signal, due: None };
            step.waits_opened = vec![wait];
            store.commit(step).await.expect("committed");
            let tags = vec![((*text).into(), None), ("k=v".into(), Some("1:x".into()))];
            let found = store.list(Query { tags, limit: 9, ..Query::default() }).await.expect("listed");
            let tenant = Some((*text).into());
            let of_tenant = store.list(Query { tenant, limit: 9, ..Query::default() }).await.expect("listed");
            assert_eq!((found.heads.len(), of_tenant.heads.len()), (1, 1), "{text:?}");
            let channel = (*text).into();
            let signal =
                Signal { id: format!("s{text}").into(), channel, run: None, data: Value::str(*text), at: Timestamp(1) };
            assert_eq!(store.signal(signal).await.expect("sent"), Signalled::Delivered(vec![id.clone()]));
            let head = store.load(id.clone()).await.expect("read").expect("it exists").head;
            assert_eq!(head.id, id);
            let (waits, inbox) = (store.waits(id.clone(), true).await, store.inbox(id).await);
            let inbox: Vec<_> = inbox.expect("read").into_iter().map(|item| (item.id, item.input)).collect();
            picture += &format!("{head:?} {:?} {inbox:?}\n", waits.expect("read"));
        }
        assert_eq!(store.fsck().await.expect("checked"), []);
        pictures.push(picture);
    }
    assert_eq!(pictures[0], pictures[1]);
}

#[tokio::test]
async fn a_role_without_rights_to_change_history_runs_a_fleet() {
    let fleet = Fleet::new();
    drop(fleet.store().await);
    let name = fleet.database.name();
    let role = format!("app_{name}");
    let script = include_str!("../../../../docs/operations/postgresql.md");
    let script =
        script.split("```sql").nth(2).and_then(|rest| rest.split("```").next()).expect("the page has a script");
    let made = format!(
        "CREATE ROLE {role} LOGIN; {}",
        script.replace("windlass_app", &role).replace("DATABASE fleet", &format!("DATABASE {name}"))
    );
    fleet.database.execute(&made).expect("the script of the page runs");
    let store = PostgresStore::open(&fleet.url().replace("windlass@", &format!("{role}@"))).await.expect("it opens");
    let worker = store.join(Registration::default()).await.expect("joined");
    store.put_bundle(Digest::of(b"bundle"), b"bundle".to_vec()).await.expect("stored");
    store.create(NewRun::new(start("a"), Timestamp(0))).await.expect("created");
    let lease = store.claim(Claim::any(worker.clone(), 1, Timestamp(0))).await.expect("claimed").remove(0);
    store.commit(commit(&lease, &worker, 0)).await.expect("committed");
    for change in [
        "UPDATE journal SET audit = NULL",
        "DELETE FROM journal",
        "TRUNCATE journal",
        "DELETE FROM audit_segments",
        "UPDATE audit_acts SET number = 9",
        "DELETE FROM audit_kept",
    ] {
        let refused = fleet.database.execute(&format!("SET ROLE {role}; {change}")).expect_err("no right");
        assert_eq!(refused.code(), Some("42501"), "{change}");
    }
    let mut last = commit(&lease, &worker, 1);
    last.head.status = Status::Completed;
    last.keep = Keep::End;
    store.commit(last).await.expect("committed");
    assert!(matches!(store.prune(Default::default()).await, Err(StoreError::Unavailable(_))), "nor to prune");
    drop(store);
    fleet.database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).expect("removed");
}
