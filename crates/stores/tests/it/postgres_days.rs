//! Bad days of a database server: its disk is full, its clock goes back, another server takes its place, and somebody
//! else answers under its name.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use tempfile::TempDir;
use windlass_core::ids::Digest;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Claim, Committed, Keep, Load, Store, StoreError};
use windlass_stores::PostgresStore;
use windlass_testpg::{Database, Options, Server, Stop};

use crate::child::{audit_row, commit, sealing};
use crate::postgres_faults::{PATIENCE, begin, ready, under_fire, wait_for};

/// A folder for the marks of calls, and the address of a database with it.
fn with_marks(url: &str) -> (TempDir, String) {
    let marks = tempfile::tempdir().expect("a directory");
    let joint = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{joint}marks={}", marks.path().display());
    (marks, url)
}

async fn open(database: &Database, more: &str) -> (TempDir, PostgresStore) {
    let (marks, url) = with_marks(&database.url());
    let store = PostgresStore::open(&format!("{url}{more}")).await.expect("it opens");
    (marks, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_lets_reads_go_on_and_is_waited_out() {
    let server = Server::start(Options { fillable: true, ..Options::default() });
    let database = server.database();
    let (_marks, store) = open(&database, "").await;
    let worker = ready(&store).await;
    let (lease, other) = (begin(&store, &worker, "a").await, begin(&store, &worker, "b").await);
    store.commit(commit(&lease, &worker, 0)).await.expect("there is room");
    server.fill_disk(true);
    let mut large = commit(&lease, &worker, 1);
    // No two bytes in a row alike, so that packing makes it no smaller.
    large.record.bytes = (0..400_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for _ in 0..3 {
        match store.commit(large.clone()).await {
            Err(error) if error.is_disk_full() => {
                assert!(error.to_string().contains("the disk of the database server is full"), "{error}");
            }
            answer => panic!("{answer:?}"),
        }
        assert!(!store.was_committed(lease.run.clone(), large.op).await.expect("reads go on"));
    }
    let seen = store.load(lease.run.clone()).await.expect("reads go on").expect("it exists");
    assert_eq!((seen.head.version, seen.records.len()), (1, 1), "nothing half done");
    server.fill_disk(false);
    assert_ne!(store.commit(large).await.expect("there is room again"), Committed::Stale);
    assert_ne!(store.commit(commit(&other, &worker, 0)).await.expect("committed"), Committed::Stale);
    assert_eq!(store.load(lease.run).await.expect("read").expect("it exists").head.version, 2);
    assert_eq!(store.fsck().await.expect("checked"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_goes_back_fires_no_timer_twice_and_shortens_no_lease() {
    let server = Server::start(Options { faketime: Some("+0".into()), ..Options::default() });
    let database = server.database();
    let (_marks, one) = open(&database, "&lease_ms=4000").await;
    let (_marks_of_two, two) = open(&database, "&lease_ms=4000").await;
    let (alive, gone) = (ready(&one).await, ready(&two).await);
    let beat = one.beat(alive.clone(), Load::default()).await.expect("answered");
    let parked = async |id: &str, wake_at: u64| {
        let lease = begin(&one, &alive, id).await;
        let mut step = commit(&lease, &alive, 0);
        step.head.status = Status::Waiting;
        step.keep = Keep::Park { wake_at: Some(Timestamp(wake_at)) };
        one.commit(step).await.expect("parked");
    };
    parked("due", beat.now.0).await;
    parked("later", beat.now.0 + 60_000).await;
    let claimed = one.claim(Claim::any(alive.clone(), 9, beat.now)).await.expect("answered");
    assert_eq!(claimed.iter().map(|lease| lease.run.as_str()).collect::<Vec<_>>(), ["due"]);
    let held = begin(&two, &gone, "held").await;
    two.beat(gone.clone(), Load::default()).await.expect("answered");

    server.set_clock("-10m");
    let back = one.beat(alive.clone(), Load::default()).await.expect("answered");
    assert!(back.is_alive && beat.now.since_ms(back.now) > 500_000, "the database's clock went back");
    let again = one.claim(Claim::any(alive.clone(), 9, back.now)).await.expect("answered");
    assert!(again.is_empty(), "what fired does not fire again, and what is not due stays: {again:?}");
    assert!(one.reap().await.expect("answered").workers.is_empty(), "nobody's lease became shorter");
    assert_ne!(two.commit(commit(&held, &gone, 0)).await.expect("committed"), Committed::Stale);
    assert!(one.is_current(&alive) && two.is_current(&gone), "leases are counted by a clock that nobody sets");

    // Back where it was: one gives a sign of life in time, the other one's lease is over at last.
    server.set_clock("+0");
    assert!(one.beat(alive.clone(), Load::default()).await.expect("answered").is_alive);
    let began = Instant::now();
    while one.reap().await.expect("answered").workers.is_empty() {
        assert!(began.elapsed() < PATIENCE, "a silent worker is never missed");
        one.beat(alive.clone(), Load::default()).await.expect("answered");
    }
    let taken = one.claim(Claim::any(alive.clone(), 9, beat.now)).await.expect("answered").remove(0);
    assert_eq!((taken.run.as_str(), taken.taken_from.as_ref()), ("held", Some(&gone)));
    assert_eq!(two.commit(commit(&held, &gone, 1)).await.expect("answered"), Committed::Stale);
    assert_eq!(one.fsck().await.expect("checked"), []);
}

/// A server that others may follow.
fn followed() -> Options {
    let settings = [("wal_level", "replica"), ("max_wal_senders", "4")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Options { settings, ..Options::default() }
}

/// The address of a database on either of two servers.
fn either(primary: &Server, standby: &Server, database: &Database) -> String {
    let both = format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port());
    database.url().replace(&format!("127.0.0.1:{}", primary.port()), &both)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_kept_up_takes_over_and_nothing_acknowledged_is_lost() {
    let primary = Server::start(followed());
    let database = primary.database();
    let standby = Server::start(Options { standby_of: Some(primary.port()), ..followed() });
    let waits = "ALTER SYSTEM SET synchronous_standby_names = '*'";
    primary.execute(waits).expect("set");
    primary.execute("SELECT pg_reload_conf()").expect("read");
    let (_marks, url) = with_marks(&either(&primary, &standby, &database));
    // The standby stands first in one of the two addresses: either order finds the one that takes writes.
    let store = Arc::new(PostgresStore::open(&url).await.expect("it opens"));
    let lost = under_fire(&store, 8, 60, async |done| {
        wait_for(done, 150).await;
        tokio::task::block_in_place(|| {
            primary.stop(Stop::Kill);
            standby.execute("ALTER SYSTEM RESET synchronous_standby_names").expect("reset");
            standby.execute("SELECT pg_reload_conf()").expect("read");
            standby.execute("SELECT pg_promote()").expect("promoted");
        });
    })
    .await;
    assert!(lost > 0, "some answers were lost on the way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_was_behind_takes_over_and_workers_drop_what_it_does_not_know() {
    let primary = Server::start(followed());
    let database = primary.database();
    let (marks, store) = open(&database, "").await;
    let worker = ready(&store).await;
    let lease = begin(&store, &worker, "a").await;
    store.commit(commit(&lease, &worker, 0)).await.expect("committed");
    let standby = Server::start(Options { standby_of: Some(primary.port()), ..followed() });
    // What follows is acknowledged and never reaches the standby.
    standby.stop(Stop::Fast);
    store.commit(commit(&lease, &worker, 1)).await.expect("committed");
    let late = begin(&store, &worker, "b").await;
    primary.stop(Stop::Kill);
    standby.start_again();
    standby.execute("SELECT pg_promote()").expect("promoted");
    drop(store);
    let joint = if database.url().contains('?') { '&' } else { '?' };
    let url = format!("{}{joint}marks={}", either(&primary, &standby, &database), marks.path().display());
    let store = PostgresStore::open(&url).await.expect("it opens on the one that takes writes");
    assert_eq!(store.load(lease.run.clone()).await.expect("read").expect("it exists").head.version, 1);
    assert_eq!(store.commit(commit(&lease, &worker, 2)).await.expect("answered"), Committed::Stale);
    assert_eq!(store.commit(commit(&late, &worker, 0)).await.expect("answered"), Committed::Stale);
    assert_eq!(store.fence("a standby that was behind took over".into()).await.expect("fenced"), 1);
    assert_eq!(store.fsck().await.expect("checked"), []);
}

#[tokio::test]
async fn of_several_hosts_the_one_that_takes_writes_is_found_in_any_order() {
    let primary = Server::start(followed());
    let database = primary.database();
    let standby = Server::start(Options { standby_of: Some(primary.port()), ..followed() });
    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let dead = unused.local_addr().expect("bound").port();
    drop(unused);
    let (first, second) = (primary.port(), standby.port());
    for hosts in [[first, second, dead], [second, first, dead], [dead, second, first]] {
        let hosts = hosts.map(|port| format!("127.0.0.1:{port}")).join(",");
        let url = database.url().replace(&format!("127.0.0.1:{first}"), &hosts);
        let (_marks, url) = with_marks(&url);
        let store = PostgresStore::open(&url).await.unwrap_or_else(|error| panic!("{hosts}: {error}"));
        let worker = ready(&store).await;
        store.leave(worker).await.expect("it takes writes");
    }
    let none = format!("127.0.0.1:{second},127.0.0.1:{dead}");
    let url = database.url().replace(&format!("127.0.0.1:{first}"), &none);
    match PostgresStore::open(&url).await {
        Err(StoreError::Unavailable(text)) => assert!(text.contains(&none), "{text}"),
        other => panic!("{other:?}"),
    }
}

fn openssl(folder: &Path, args: &str) {
    let output = Command::new("openssl").args(args.split(' ')).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.expect("`openssl`, which the server's package needs too");
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and the certificate of a server that is called `127.0.0.1` and nothing else.
fn certificates() -> TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    let settings = "[req]\ndistinguished_name = dn\nx509_extensions = authority\n[dn]\n\
         [authority]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\n";
    std::fs::write(folder.path().join("settings"), settings).expect("written");
    std::fs::write(folder.path().join("names"), "subjectAltName=IP:127.0.0.1\n").expect("written");
    let key = "-config settings -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for name in ["ca", "other"] {
        openssl(folder.path(), &format!("req -x509 {key} -keyout {name}.key -out {name}.pem -subj /CN={name} -days 2"));
    }
    openssl(folder.path(), &format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
    openssl(
        folder.path(),
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
    );
    folder
}

#[tokio::test]
async fn a_server_must_prove_its_name_when_that_is_asked_for() {
    let server = Server::start(Options {
        hba: vec!["hostnossl all plain 127.0.0.1/32 reject".into(), "host all all 127.0.0.1/32 trust".into()],
        ..Options::default()
    });
    let folder = certificates();
    let file = |name: &str| folder.path().join(name);
    for name in ["server.pem", "server.key"] {
        server.give(name, &std::fs::read(file(name)).expect("read"));
    }
    for set in ["ssl_cert_file = 'server.pem'", "ssl_key_file = 'server.key'", "ssl = on"] {
        server.execute(&format!("ALTER SYSTEM SET {set}")).expect("set");
    }
    server.execute("SELECT pg_reload_conf()").expect("read");
    server.execute("CREATE ROLE plain LOGIN SUPERUSER").expect("made");
    let database = server.database();
    let url = |host: &str, more: &str| {
        let url = database.url().replace("windlass@", "plain:secret@").replace("127.0.0.1", host);
        with_marks(&format!("{url}?{more}"))
    };
    let checked = |name: &str| format!("sslmode=verify-full&sslrootcert={}", file(name).display());
    let began = Instant::now();
    while server.execute("SHOW ssl").expect("told")[0][0].as_deref() != Some("on") {
        assert!(began.elapsed() < PATIENCE, "it does not take its certificate: {}", server.log());
    }
    for more in [checked("ca.pem"), "sslmode=require".into(), "sslmode=prefer".into()] {
        let (_marks, url) = url("127.0.0.1", &more);
        let store = PostgresStore::open(&url).await.unwrap_or_else(|error| panic!("{more}: {error}"));
        let encrypted =
            "SELECT bool_and(ssl)::text FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'plain'";
        assert_eq!(database.value(encrypted), "true", "{more}");
        drop(store);
    }
    for (host, more, says) in [
        ("127.0.0.1", checked("other.pem"), "certificate"),
        ("localhost", checked("ca.pem"), "certificate"),
        ("127.0.0.1", "sslmode=disable".into(), "does not let `plain` in"),
        ("127.0.0.1", checked("server.key"), "root certificates"),
        ("127.0.0.1", checked("none.pem"), "root certificates"),
    ] {
        let (_marks, url) = url(host, &more);
        match PostgresStore::open(&url).await {
            Err(StoreError::Unavailable(text) | StoreError::Invalid(text)) => {
                assert!(text.contains(says) && !text.contains("secret"), "{host} {more}: {text}");
            }
            other => panic!("{host} {more}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_database_that_was_moved_to_another_server_is_sealed_once_more_and_only_once() {
    let database = windlass_testpg::database();
    let (_marks, store) = open(&database, "").await;
    let worker = ready(&store).await;
    let mut heads = Vec::new();
    for name in ["a", "b", "c"] {
        let lease = begin(&store, &worker, name).await;
        let mut step = commit(&lease, &worker, 0);
        step.audit = vec![audit_row(1, Digest::ZERO)];
        heads.push((lease, step.audit[0].hash()));
        store.commit(step).await.expect("committed");
    }
    let seal_all = || async {
        let (mut seen, mut lost) = (Vec::new(), 0);
        loop {
            let part = store.trail().unsealed(2).await.expect("read");
            seen.extend(part.chains.iter().map(|grown| (grown.run.to_string(), grown.chain.rows)));
            lost += usize::from(part.lost.is_some());
            assert!(store.trail().seal(sealing(&part)).await.expect("answered"));
            if !part.more {
                return (seen, lost);
            }
        }
    };
    let all = |rows: u64| ["a", "b", "c"].map(|name| (name.to_owned(), rows)).to_vec();
    assert_eq!(seal_all().await, (all(1), 0));
    // The other server was at a transaction that this one reaches in a thousand years.
    database
        .execute(
            "UPDATE journal SET xact = 5000000000000; \
             UPDATE audit_sealing SET snapshot = '5000000000001:5000000000001:'",
        )
        .expect("moved");
    let (lease, head) = &heads[0];
    let mut step = commit(lease, &worker, 1);
    step.audit = vec![audit_row(2, *head)];
    store.commit(step).await.expect("committed");
    let once = [("a".to_owned(), 2), ("b".to_owned(), 1), ("c".to_owned(), 1)].to_vec();
    assert_eq!(seal_all().await, (once, 1), "everything, with what this server added");
    assert_eq!(seal_all().await, (Vec::new(), 0), "and then only what is new");
    let (lease, head) = &heads[1];
    let mut step = commit(lease, &worker, 1);
    step.audit = vec![audit_row(2, *head)];
    (step.head.status, step.keep) = (Status::Completed, Keep::End);
    store.commit(step).await.expect("committed");
    assert_eq!(seal_all().await, (vec![("b".to_owned(), 2)], 0));
    assert_eq!(store.prune(windlass_ports::store::Retention::default()).await.expect("pruned").runs, 1);
}
