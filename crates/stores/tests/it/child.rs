//! Other processes for tests: this test binary, started again with a part to play.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use windlass_core::audit;
use windlass_core::effect::WaitKind;
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::run::{Parent, Start, Status};
use windlass_core::seal::{Last, Leaf, Segment};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::{
    Claim, Commit, Committed, HeadUpdate, JournalRow, Keep, Lease, NewRun, OpId, Query, Registration, Sealing, Store,
    StoreError, Unsealed, WaitRow, WorkerId,
};
use windlass_stores::{Options, SqliteStore, Sync};

/// The part to play.
const PART: &str = "WINDLASS_TEST_PART";
/// The database.
const PATH: &str = "WINDLASS_TEST_DATABASE";

/// A process of this test binary that plays a part on a database.
pub(crate) fn command(part: &str, database: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command.args(["--exact", "child::play", "--nocapture", "--quiet"]);
    command.env(PART, part).env(PATH, database).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Not a test: where a started process begins. Does nothing in the test run itself.
#[test]
fn play() {
    let (Ok(part), Ok(path)) = (std::env::var(PART), std::env::var(PATH)) else { return };
    let path = PathBuf::from(path);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match part.as_str() {
            "open" => drop(SqliteStore::open(&path, Options::default()).await.expect("it opens")),
            "steps" => steps(&path, Sync::Full, 3).await,
            "many" => steps(&path, Sync::Full, 25).await,
            "many without sync" => steps(&path, Sync::Off, 25).await,
            "fail" => fail(&path).await,
            "work" => work(&path).await,
            "rekey" => crate::encryption::rekey_slowly(&format!("sqlite:{}", path.display())).await,
            "rekey a database" => crate::encryption::rekey_slowly(&path.to_string_lossy()).await,
            other => panic!("no part is called {other}"),
        }
    });
    // Without closing anything: a process ends as if it were killed.
    std::process::exit(0);
}

pub(crate) fn start(id: &str) -> Start {
    Start::new(RunId::stored(id), Digest::of(b"bundle"), "main".into(), "machine".into(), Value::str("an input"))
}

/// A decision that changes the version and keeps the lease.
pub(crate) fn commit(lease: &Lease, worker: &WorkerId, expected: u64) -> Commit {
    let version = expected + 1;
    Commit {
        op: OpId(u128::from(lease.epoch) << 64 | u128::from(version)),
        lease: lease.clone(),
        worker: worker.clone(),
        expected,
        head: HeadUpdate {
            status: Status::Running,
            state: Some("state".into()),
            step: version,
            tokens: 0,
            cost_micros: 0,
            bundle: Digest::of(b"bundle"),
            pool: None,
            strikes: 0,
        },
        record: JournalRow { version, bytes: format!("{worker} {version}").into_bytes(), blobs: Vec::new() },
        at: Timestamp(version),
        snapshot: None,
        blobs: Vec::new(),
        audit: Vec::new(),
        waits_opened: Vec::new(),
        waits_closed: Vec::new(),
        children: Vec::new(),
        messages: Vec::new(),
        taken: Vec::new(),
        keep: Keep::Hold,
        begins: None,
    }
}

/// An audit row.
pub(crate) fn audit_row(number: u64, previous: Digest) -> audit::Row {
    audit::Row {
        number,
        attempt: 1,
        kind: "tool".into(),
        target: "tool".into(),
        class: "write".into(),
        at: Timestamp(number),
        previous,
        ..audit::Row::blank(EffectId(number), "intended")
    }
}

/// What seals all of this, and no more.
pub(crate) fn sealing(unsealed: &Unsealed) -> Sealing {
    let leaf = |grown: &windlass_ports::store::Grown| Leaf::of(grown.run.clone(), grown.chain);
    let segment = |(tenant, last): &(Name, Last)| {
        let of = unsealed.chains.iter().filter(|grown| grown.tenant == *tenant);
        Segment::after(*last, tenant.clone(), unsealed.now, of.map(leaf).collect())
    };
    let mut tenants: Vec<(Name, Last)> = Vec::new();
    for grown in &unsealed.chains {
        let last = unsealed.last.iter().find(|(tenant, _)| *tenant == grown.tenant).map(|(_, last)| *last);
        if tenants.iter().all(|(tenant, _)| *tenant != grown.tenant) {
            tenants.push((grown.tenant.clone(), last.unwrap_or_default()));
        }
    }
    let segments = tenants.iter().map(segment).collect();
    Sealing { epoch: unsealed.epoch, mark: unsealed.mark.clone(), at: unsealed.now, segments }
}

/// A decision that writes to every table.
fn rich(lease: &Lease, worker: &WorkerId, expected: u64, previous: Digest) -> Commit {
    let mut commit = commit(lease, worker, expected);
    let version = commit.record.version;
    let blob: Vec<u8> =
        (0..6_000_u32).map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(version as u32) >> 11) as u8).collect();
    commit.record.blobs = vec![Digest::of(&blob)];
    commit.blobs = vec![(Digest::of(&blob), blob)];
    commit.snapshot = Some(format!("snapshot {version}").into_bytes());
    commit.audit = vec![audit_row(version, previous)];
    let channel = format!("channel {version}").into();
    commit.waits_opened = vec![WaitRow { effect: EffectId(version), channel, kind: WaitKind::Signal, due: None }];
    let parent = Some(Parent { run: lease.run.clone(), awaited: true });
    let child = lease.run.child(version, 0);
    let start = Start { parent, root: lease.run.clone(), depth: 1, ..start(child.as_str()) };
    commit.children = vec![NewRun::new(start, Timestamp(version))];
    commit
}

/// Makes decisions on one run, and writes the version of each that was acknowledged to `acks`.
async fn steps(path: &Path, sync: Sync, count: u64) {
    let acks = path.with_file_name("acks");
    let mut acks = std::fs::OpenOptions::new().create(true).append(true).open(acks).expect("a file for answers");
    let store = SqliteStore::open(path, Options { sync, ..Options::default() }).await.expect("it opens");
    let worker = store.join(Registration::default()).await.expect("it joins");
    store.put_bundle(Digest::of(b"bundle"), b"bundle".to_vec()).await.expect("stored");
    store.create(NewRun::new(start("a"), Timestamp(0))).await.expect("created");
    acks.write_all(b"0\n").expect("told");
    let within = Some(RunId::stored("a"));
    let claim = Claim { within, ..Claim::any(worker.clone(), 1, Timestamp(0)) };
    let lease = store.claim(claim).await.expect("claimed").remove(0);
    let mut previous = Digest::ZERO;
    for expected in 0..count {
        let commit = rich(&lease, &worker, expected, previous);
        previous = commit.audit[0].hash();
        let committed = store.commit(commit).await.expect("committed");
        assert!(matches!(committed, Committed::Applied { held: true, .. }), "{committed:?}");
        acks.write_all(format!("{}\n", expected + 1).as_bytes()).expect("told");
        if expected % 10 == 7 {
            // What the writer does when the log is long, or when nothing is asked of it.
            let other = rusqlite::Connection::open(path).expect("it opens");
            let pragma = if sync == Sync::Full { "PRAGMA synchronous=FULL" } else { "PRAGMA synchronous=OFF" };
            other.execute_batch(pragma).expect("set");
            let mode = if expected == 7 { "RESTART" } else { "TRUNCATE" };
            other.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())).expect("copied back");
        }
    }
}

/// Makes decisions while the device fails once. A decision whose outcome is unknown is looked up, never guessed.
async fn fail(path: &Path) {
    let acks = path.with_file_name("acks");
    let mut acks = std::fs::OpenOptions::new().create(true).append(true).open(acks).expect("a file for answers");
    let Ok(store) = SqliteStore::open(path, Options::default()).await else { return };
    let Ok(worker) = store.join(Registration::default()).await else { return };
    let Ok(()) = store.put_bundle(Digest::of(b"bundle"), b"bundle".to_vec()).await else { return };
    let created = store.create(NewRun::new(start("a"), Timestamp(0))).await;
    let claim = Claim { within: Some(RunId::stored("a")), ..Claim::any(worker.clone(), 1, Timestamp(0)) };
    let (Ok(_), Ok(mut leases)) = (created, store.claim(claim).await) else { return };
    let lease = leases.remove(0);
    acks.write_all(b"0\n").expect("told");
    let mut previous = Digest::ZERO;
    for expected in 0..3 {
        let commit = rich(&lease, &worker, expected, previous);
        previous = commit.audit[0].hash();
        loop {
            match store.commit(commit.clone()).await {
                Ok(committed) => {
                    assert!(matches!(committed, Committed::Applied { held: true, .. }), "{committed:?}");
                    break;
                }
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
            match store.was_committed(lease.run.clone(), commit.op).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(StoreError::Unavailable(_)) => {
                    // Stopped for good, and still readable.
                    assert!(store.commit(commit).await.is_err());
                    assert!(store.load(lease.run.clone()).await.expect("read").is_some());
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
        acks.write_all(format!("{}\n", expected + 1).as_bytes()).expect("told");
    }
    acks.write_all(b"3\n").expect("told");
}

/// Claims runs and drives each through five decisions, until all are done. Tells `run version` of each acknowledged.
async fn work(path: &Path) {
    let store = SqliteStore::open(path, Options::default()).await.expect("it opens");
    let worker = store.join(Registration::default()).await.expect("it joins");
    let mut out = std::io::stdout();
    loop {
        let claim = Claim::any(worker.clone(), 2, Timestamp(0));
        let leases = store.claim(claim).await.expect("claimed");
        if leases.is_empty() {
            let statuses = vec![Status::Queued, Status::Running];
            if store.list(Query { statuses, limit: 1, ..Query::default() }).await.expect("listed").heads.is_empty() {
                return;
            }
            // The death of another process gives no hint, so look again from time to time.
            let _told = tokio::time::timeout(std::time::Duration::from_millis(10), store.changed()).await;
        }
        for lease in leases {
            let from = store.load(lease.run.clone()).await.expect("read").expect("it exists").head.version;
            for expected in from..5 {
                let mut next = commit(&lease, &worker, expected);
                if expected == 4 {
                    next.head.status = Status::Completed;
                    next.keep = Keep::End;
                }
                let (op, run) = (next.op, lease.run.clone());
                let committed = match store.commit(next).await {
                    Ok(committed) => committed,
                    Err(StoreError::Unavailable(_)) if store.was_committed(run, op).await.expect("told") => continue,
                    Err(error) => panic!("{error}"),
                };
                assert_ne!(committed, Committed::Stale, "a live worker's run is its own");
                writeln!(out, "{} {} {worker}", lease.run, expected + 1).and_then(|()| out.flush()).expect("told");
            }
        }
    }
}
