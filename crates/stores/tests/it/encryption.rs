//! Encrypted stores: nothing that somebody said is in the file or the database, nothing can be put in another's place, and
//! keys are replaced.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use windlass_core::audit::Act;
use windlass_core::effect::WaitKind;
use windlass_core::hidden::Hidden;
use windlass_core::ids::{Digest, EffectId, RunId};
use windlass_core::input::Input;
use windlass_core::run::{Start, Status};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::{
    Claim, Keep, Message, NewRun, Put, Registration, Retention, Signal, Store, StoreError, WaitRow,
};
use windlass_stores::{Held, Keyring, Options, RestoreError, SqliteStore};

use crate::child::{self, audit_row, commit, sealing, start};
use crate::postgres::Fleet;

/// What must not be found in a store.
const CANARY: &str = "xyzzy-what-somebody-said";

/// Keys of these ids, of which the first argument encrypts.
pub(crate) fn keys(active: &str, ids: &[&str]) -> Keyring {
    let key = |id: &&str| ((*id).to_owned(), Digest::of(id.as_bytes()).to_string().into());
    Keyring::new(active, ids.iter().map(key)).expect("keys")
}

fn options(active: &str, ids: &[&str]) -> Options {
    Options { keys: Some(keys(active, ids)), ..Options::default() }
}

/// Writes what somebody said into everything that can hold it.
pub(crate) async fn fill(store: &dyn Store, names: std::ops::Range<usize>) {
    let said = || Value::str(CANARY);
    store.put_bundle(Digest::of(b"bundle"), b"bundle".to_vec()).await.expect("stored");
    let worker = store.join(Registration::default()).await.expect("joined");
    for name in names {
        let id = format!("run-{name}");
        let begun = Start { input: said(), hidden: Hidden::default(), ..start(&id) };
        store.create(NewRun::new(begun, Timestamp(0))).await.expect("created");
        let run = RunId::stored(&id);
        let claim = Claim { within: Some(run.clone()), ..Claim::any(worker.clone(), 1, Timestamp(0)) };
        let lease = store.claim(claim).await.expect("claimed").remove(0);
        let mut step = commit(&lease, &worker, 0);
        let blob = format!("{CANARY} in blob {name}").into_bytes();
        step.record.bytes = format!("{{\"said\":\"{CANARY}\"}}").into_bytes();
        step.record.blobs = vec![Digest::of(&blob)];
        step.blobs = vec![(Digest::of(&blob), blob)];
        step.snapshot = Some(CANARY.as_bytes().to_vec());
        step.audit = vec![windlass_core::audit::Row { target: CANARY.into(), ..audit_row(1, Digest::ZERO) }];
        step.waits_opened = vec![WaitRow {
            effect: EffectId(2),
            channel: format!("question {name}").into(),
            kind: WaitKind::Approval { effect: EffectId(1), shown: Digest::of(b"shown") },
            due: None,
        }];
        store.commit(step).await.expect("committed");
        let input = Input::Signalled { wait: EffectId(9), signal: "s".into(), data: said() };
        store.deliver(Message { to: run.clone(), id: "m".into(), input }).await.expect("delivered");
        let signal = |to: &str| Signal {
            id: format!("{to} {name}").into(),
            channel: format!("{to} {name}").into(),
            run: None,
            data: said(),
            at: Timestamp(1),
        };
        store.signal(signal("buffered")).await.expect("sent");
        let put = Put { kind: "kept".into(), key: id.as_str().into(), expected: 0, bytes: Some(CANARY.into()) };
        assert!(store.put_object(put).await.expect("put"));
    }
    let act = Act {
        number: 1,
        at: Timestamp(1),
        actor: "anna".into(),
        action: "run.cancel".into(),
        subject: "run-0".into(),
        detail: Some(CANARY.into()),
        previous: Digest::ZERO,
    };
    if store.trail().last_act("default".into()).await.expect("read").is_none() {
        assert!(store.trail().act("default".into(), act).await.expect("noted"));
    }
    store.leave(worker).await.expect("left");
}

/// Ends one run and removes it, so that its audit rows are kept.
async fn remove_one(store: &dyn Store) {
    let worker = store.join(Registration::default()).await.expect("joined");
    store.create(NewRun::new(start("gone"), Timestamp(0))).await.expect("created");
    let claim = Claim { within: Some(RunId::stored("gone")), ..Claim::any(worker.clone(), 1, Timestamp(0)) };
    let lease = store.claim(claim).await.expect("claimed").remove(0);
    let mut step = commit(&lease, &worker, 0);
    step.audit = vec![windlass_core::audit::Row { target: CANARY.into(), ..audit_row(1, Digest::ZERO) }];
    (step.head.status, step.keep) = (Status::Completed, Keep::End);
    store.commit(step).await.expect("ended");
    loop {
        let unsealed = store.trail().unsealed(1_000).await.expect("read");
        if unsealed.chains.is_empty() && !unsealed.more {
            break;
        }
        store.trail().seal(sealing(&unsealed)).await.expect("sealed");
    }
    let retention = Retention { trees: Some(vec![RunId::stored("gone")]), ..Retention::default() };
    assert_eq!(store.prune(retention).await.expect("removed").runs, 1);
    store.leave(worker).await.expect("left");
}

/// Everything that `fill` and `remove_one` wrote comes back.
pub(crate) async fn read_back(store: &dyn Store, names: std::ops::Range<usize>) {
    for name in names {
        let run = RunId::stored(&format!("run-{name}"));
        let stored = store.load(run.clone()).await.expect("loads").expect("is there");
        assert_eq!(stored.start.input, Value::str(CANARY));
        assert_eq!(stored.snapshot.as_deref(), Some(CANARY.as_bytes()));
        let journal = store.journal(run.clone(), 0, 10).await.expect("read");
        assert!(String::from_utf8_lossy(&journal[0].bytes).contains(CANARY));
        let blob = store.blob(journal[0].blobs[0]).await.expect("read").expect("is there");
        assert!(String::from_utf8_lossy(&blob).starts_with(CANARY));
        assert_eq!(&*store.audit(run.clone()).await.expect("read")[0].target, CANARY);
        assert_eq!(store.inbox(run.clone()).await.expect("read").len(), 1);
        let waits = store.waits(run.clone(), false).await.expect("read");
        assert!(matches!(waits[0].1.kind, WaitKind::Approval { .. }));
        let object = store.object("kept".into(), run.as_str().into()).await.expect("read").expect("is there");
        assert_eq!(object.bytes, CANARY.as_bytes());
    }
    let act = store.trail().last_act("default".into()).await.expect("read").expect("is there");
    assert_eq!(act.detail.as_deref(), Some(CANARY));
    let kept = windlass_ports::store::Removed::Tenant("default".into());
    for kept in store.trail().kept(kept, 0, 100).await.expect("read") {
        assert_eq!(&*kept.rows.expect("readable")[0].target, CANARY);
    }
    assert_eq!(store.fsck().await.expect("checked"), Vec::new());
}

/// Whether what was said is anywhere in a folder, as text or in what is packed: those bytes are packed too.
fn says(folder: &Path) -> bool {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let bytes = std::fs::read(&path).unwrap_or_default();
                    if bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()) {
                        return true;
                    }
                }
            }
        }
    }
    false
}

pub(crate) fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("windlass.db");
    (dir, path)
}

async fn sqlite(path: &Path, options: &Options) -> SqliteStore {
    SqliteStore::open(path, options.clone()).await.expect("it opens")
}

pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Key(text)) => text,
        other => panic!("not refused for its keys: {other:?}"),
    }
}

#[tokio::test]
async fn nothing_that_was_said_is_in_an_encrypted_file() {
    for (encrypted, options) in [(false, Options::default()), (true, options("a", &["a"]))] {
        let (dir, path) = file();
        let store = sqlite(&path, &options).await;
        fill(&store, 0..3).await;
        remove_one(&store).await;
        read_back(&store, 0..3).await;
        assert_eq!(says(dir.path()), !encrypted, "while it is open, with its log");
        store.backup(&dir.path().join("copy")).await.expect("copied");
        drop(store);
        assert_eq!(says(dir.path()), !encrypted, "closed, and in its copy");
        read_back(&sqlite(&path, &options).await, 0..3).await;
    }
}

#[tokio::test]
async fn a_file_is_opened_with_its_keys_only_and_nothing_is_changed_before() {
    let (_dir, path) = file();
    fill(&sqlite(&path, &options("a", &["a"])).await, 0..1).await;
    let before = std::fs::read(&path).expect("the file");
    let open = |options: Options| SqliteStore::open(&path, options);
    assert!(refused(open(Options::default()).await).contains("encrypted with key `a`, and there are no keys"));
    assert!(refused(open(options("b", &["b"])).await).contains("key `a`, which is not among the keys"));
    let wrong = [("a".to_owned(), "00".repeat(32).into())];
    let wrong = Options { keys: Some(Keyring::new("a", wrong).expect("keys")), ..Options::default() };
    assert!(refused(open(wrong).await).contains("key `a` is not the one"));
    let read = |options| SqliteStore::open_to_read(&path, options);
    assert!(refused(read(Options::default()).await).contains("there are no keys"));
    assert_eq!(std::fs::read(&path).expect("the file"), before);
    read_back(&sqlite(&path, &options("a", &["a"])).await, 0..1).await;

    let (_dir, plain) = file();
    fill(&sqlite(&plain, &Options::default()).await, 0..1).await;
    let text = refused(SqliteStore::open(&plain, options("a", &["a"])).await);
    assert!(text.contains("not encrypted") && text.contains("rekey"), "{text}");
    assert!(refused(SqliteStore::open_to_read(&plain, options("a", &["a"])).await).contains("not encrypted"));
    read_back(&sqlite(&plain, &Options::default()).await, 0..1).await;
}

/// What somebody does to a file, and what is said of it.
const FORGERIES: &[(&str, &str, &str)] = &[
    (
        "a byte of a record",
        "UPDATE journal SET record = substr(record, 1, 60) || x'00' || substr(record, 62) WHERE run = 1",
        "record 1",
    ),
    (
        "the record of another run",
        "UPDATE journal SET record = (SELECT record FROM journal WHERE run = 2) WHERE run = 1",
        "does not authenticate",
    ),
    (
        "the audit rows of another run",
        "UPDATE journal SET audit = (SELECT audit FROM journal WHERE run = 2) WHERE run = 1",
        "audit",
    ),
    (
        "the start of another run",
        "UPDATE starts SET start = (SELECT start FROM starts WHERE run = 2) WHERE run = 1",
        "start",
    ),
    (
        "the snapshot of another run",
        "UPDATE snapshots SET bytes = (SELECT bytes FROM snapshots WHERE run = 2) WHERE run = 1",
        "snapshot",
    ),
    ("a snapshot of another version", "UPDATE snapshots SET version = 0 WHERE run = 1", "snapshot"),
    (
        "the object of another key",
        "UPDATE objects SET bytes = (SELECT bytes FROM objects WHERE key = 'run-1') WHERE key = 'run-0'",
        "object",
    ),
    ("another question", "UPDATE waits SET kind = (SELECT kind FROM waits WHERE run = 2) WHERE run = 1", "wait"),
    ("another input", "UPDATE inbox SET input = (SELECT input FROM inbox WHERE run = 2) WHERE run = 1", "input"),
    (
        "the data of another signal",
        "UPDATE signals SET data = (SELECT data FROM signals WHERE id = 'buffered 1') WHERE id = 'buffered 0'",
        "signal",
    ),
    ("another blob", "UPDATE blobs SET bytes = (SELECT bytes FROM blobs WHERE key = 2) WHERE key = 1", "blob"),
    ("a plain object", "UPDATE objects SET bytes = x'0000000000' WHERE key = 'run-0'", "is not encrypted"),
    ("a plain question", "UPDATE waits SET kind = CAST('\"signal\"' AS BLOB) WHERE run = 1", "wait"),
    ("another act", "UPDATE audit_acts SET number = 2", "act"),
];

#[tokio::test]
async fn what_was_forged_is_refused_and_found() {
    let (dir, path) = file();
    let options = options("a", &["a"]);
    fill(&sqlite(&path, &options).await, 0..2).await;
    for (what, sql, said) in FORGERIES {
        let forged = dir.path().join("forged.db");
        std::fs::copy(&path, &forged).expect("copied");
        let connection = Connection::open(&forged).expect("it opens");
        without_triggers(&connection);
        assert!(connection.execute(sql, []).expect("forged") > 0, "{what}");
        drop(connection);
        let store = sqlite(&forged, &options).await;
        let findings = store.fsck().await.expect("checked");
        assert!(findings.iter().any(|finding| finding.message.contains(said)), "{what}: {findings:?}");
        drop(store);
        let _gone = std::fs::remove_file(&forged);
    }
}

fn without_triggers(connection: &Connection) {
    let mut names = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'").expect("read");
    let names: Vec<String> = names.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("read");
    assert!(!names.is_empty());
    for name in names {
        connection.execute_batch(&format!("DROP TRIGGER {name}")).expect("dropped");
    }
}

#[tokio::test]
async fn a_store_cannot_be_made_plain_again() {
    let (_dir, path) = file();
    let options = options("a", &["a"]);
    fill(&sqlite(&path, &options).await, 0..1).await;
    let connection = Connection::open(&path).expect("it opens");
    let plain = connection.execute("UPDATE objects SET bytes = x'0000000000'", []).expect_err("refused");
    assert!(plain.to_string().contains("the store is encrypted"), "{plain}");
    // Whoever may write the file may say that a rekey is under way: what is encrypted says otherwise.
    connection.execute("UPDATE encryption SET complete_at = NULL", []).expect("changed");
    without_triggers(&connection);
    connection.execute("UPDATE objects SET bytes = x'0000000000' WHERE key = 'run-0'", []).expect("forged");
    let store = sqlite(&path, &options).await;
    let read = store.object("kept".into(), "run-0".into()).await;
    assert!(matches!(&read, Err(StoreError::Corrupt(text)) if text.contains("not encrypted")), "{read:?}");
    drop(store);
    connection.execute("DELETE FROM encryption", []).expect("removed");
    assert!(refused(SqliteStore::open(&path, options).await).contains("not encrypted"));
}

#[tokio::test]
async fn another_tenant_of_a_run_is_noticed() {
    let (_dir, path) = file();
    let options = options("a", &["a"]);
    fill(&sqlite(&path, &options).await, 0..1).await;
    let connection = Connection::open(&path).expect("it opens");
    connection
        .execute("UPDATE names SET name = 'another' WHERE name = 'default' AND key = (SELECT tenant FROM runs)", [])
        .expect("renamed");
    let loaded = sqlite(&path, &options).await.load(RunId::stored("run-0")).await;
    assert!(matches!(&loaded, Err(StoreError::Corrupt(text)) if text.contains("of tenant `default`")), "{loaded:?}");
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

/// How many values there are of a key.
pub(crate) async fn of_key(url: &str, key: Option<&str>) -> u64 {
    let found = windlass_stores::encryption(url, true).await.expect("read").expect("is there");
    let values = found.values.expect("counted");
    values.iter().find(|counted| counted.key.as_deref() == key).map_or(0, |counted| counted.values)
}

#[tokio::test]
async fn a_plain_file_is_encrypted_and_gets_another_key() {
    let (dir, path) = file();
    let plain = sqlite(&path, &Options::default()).await;
    fill(&plain, 0..20).await;
    remove_one(&plain).await;
    let refused_now = refused_invalid(windlass_stores::rekey(&url(&path), Options::default(), |_| ()).await);
    assert!(refused_now.contains("no key"), "{refused_now}");
    let worker = plain.join(Registration::default()).await.expect("joined");
    let at_work = refused_invalid(windlass_stores::rekey(&url(&path), options("a", &["a"]), |_| ()).await);
    assert!(at_work.contains(&format!("stop `{worker}`")), "{at_work}");
    assert_eq!(of_key(&url(&path), Some("a")).await, 0, "nothing was changed");
    plain.leave(worker).await.expect("left");

    let done = windlass_stores::rekey(&url(&path), options("a", &["a"]), |_| ()).await.expect("encrypted");
    assert!(done.from_plain && done.values > 100, "{done:?}");
    // A handle from before writes nothing plain.
    let put = Put { kind: "kept".into(), key: "late".into(), expected: 0, bytes: Some(CANARY.into()) };
    assert!(refused(plain.put_object(put).await).contains("start it again with the keys"));
    drop(plain);
    let again = windlass_stores::rekey(&url(&path), options("a", &["a"]), |_| ()).await.expect("nothing to do");
    assert_eq!((again.values, again.from_plain, again.remains), (0, false, None));
    assert!(!says(dir.path()), "nothing plain is left in free pages and logs");
    assert_eq!((of_key(&url(&path), None).await, of_key(&url(&path), Some("a")).await), (0, done.values));
    read_back(&sqlite(&path, &options("a", &["a"])).await, 0..20).await;

    // Everybody gets both keys, then the new one is made the active one, then everything is of it.
    let both = sqlite(&path, &options("a", &["a", "b"])).await;
    let old = both.join(Registration::default()).await.expect("joined");
    let at_work = refused_invalid(windlass_stores::rekey(&url(&path), options("b", &["a", "b"]), |_| ()).await);
    assert!(at_work.contains("make `b` the active key"), "{at_work}");
    both.leave(old).await.expect("left");
    drop(both);
    let new = sqlite(&path, &options("b", &["a", "b"])).await;
    let worker = new.join(Registration::default()).await.expect("joined");
    let lost = windlass_stores::rekey(&url(&path), options("b", &["b"]), |_| ()).await;
    assert!(refused(lost).contains("`a`, which is not among the keys"));
    let done = windlass_stores::rekey(&url(&path), options("b", &["a", "b"]), |_| ()).await.expect("rekeyed");
    assert_eq!((done.retired, done.from_plain), (vec!["a".to_owned()], false));
    read_back(&new, 0..20).await;
    new.leave(worker).await.expect("left");
    drop(new);
    assert_eq!(of_key(&url(&path), Some("a")).await, 0);
    read_back(&sqlite(&path, &options("b", &["b"])).await, 0..20).await;
    assert!(refused(SqliteStore::open(&path, options("a", &["a"])).await).contains("key `b`"));
}

fn refused_invalid<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Invalid(text) | StoreError::Key(text)) => text,
        other => panic!("not refused: {other:?}"),
    }
}

/// The part of a process that is killed in the middle: it tells of each part that lasts.
pub(crate) async fn rekey_slowly(url: &str) {
    let told = |progress: windlass_stores::Progress| {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{} {}", progress.table, progress.values).and_then(|()| stdout.flush()).expect("told");
    };
    windlass_stores::rekey(url, options("a", &["a"]), told).await.expect("encrypted");
}

#[tokio::test]
async fn a_rekey_that_is_killed_goes_on_where_it_was() {
    let (dir, path) = file();
    fill(&sqlite(&path, &Options::default()).await, 0..400).await;
    let all = of_key(&url(&path), None).await;
    let mut process = child::command("rekey", &path).spawn().expect("started");
    let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
    let begun = lines.map_while(Result::ok).find(|line| line.starts_with("journal "));
    assert!(begun.is_some(), "it ended before it was killed");
    process.kill().expect("killed");
    process.wait().expect("ended");
    let (plain, encrypted) = (of_key(&url(&path), None).await, of_key(&url(&path), Some("a")).await);
    assert!(plain > 0 && encrypted > 0 && plain + encrypted == all, "{plain} plain, {encrypted} encrypted of {all}");
    // Both kinds are read meanwhile, and what is written is encrypted.
    assert!(refused(SqliteStore::open(&path, Options::default()).await).contains("there are no keys"));
    let with_plain = Options { keys: Some(keys("a", &["a"]).with_plain()), ..Options::default() };
    let meanwhile = sqlite(&path, &with_plain).await;
    read_back(&meanwhile, 0..400).await;
    fill(&meanwhile, 400..401).await;
    drop(meanwhile);
    assert_eq!(of_key(&url(&path), None).await, plain);
    let done = windlass_stores::rekey(&url(&path), with_plain, |_| ()).await.expect("encrypted");
    assert_eq!((done.values, done.from_plain), (plain, true));
    assert_eq!(of_key(&url(&path), None).await, 0);
    assert!(!says(dir.path()));
    read_back(&sqlite(&path, &options("a", &["a"])).await, 0..401).await;
}

#[tokio::test]
async fn a_backup_is_encrypted_and_comes_back_with_its_keys() {
    let (dir, path) = file();
    let store = sqlite(&path, &options("a", &["a"])).await;
    fill(&store, 0..2).await;
    let copy = dir.path().join("copy");
    store.backup(&copy).await.expect("copied");
    drop(store);
    let hold = |_: &[u8]| Some(b"held".to_vec());
    let target = url(&dir.path().join("restored.db"));
    let restore = |options| {
        let held = Held { kind: "kept", change: &hold };
        windlass_stores::restore(&copy, &target, options, false, |_| "restored".into(), held)
    };
    let lost = restore(Options::default()).await;
    assert!(matches!(lost, Err(RestoreError::Store(StoreError::Key(_)))), "{lost:?}");
    let restored = restore(options("a", &["a"])).await.expect("restored");
    assert_eq!((restored.quarantined, restored.held), (2, 2));
    assert!(!says(dir.path()));
    let store = sqlite(&dir.path().join("restored.db"), &options("a", &["a"])).await;
    assert_eq!(store.fsck().await.expect("checked"), Vec::new());
    let object = store.object("kept".into(), "run-0".into()).await.expect("read").expect("is there");
    assert_eq!(object.bytes, b"held");
}

/// Everything that is in the tables of a database, as text: bytes as their hexadecimal digits.
fn says_database(fleet: &Fleet) -> bool {
    let digits: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let tables = "SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = current_schema()";
    let tables = fleet.database.value(tables);
    assert!(tables.split(' ').count() > 15, "{tables}");
    tables.split(' ').any(|table| {
        let all = fleet.database.value(&format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t"));
        all.contains(&digits) || all.contains(CANARY)
    })
}

#[tokio::test]
async fn nothing_that_was_said_is_in_an_encrypted_database() {
    for keys in [None, Some(keys("a", &["a"]))] {
        let encrypted = keys.is_some();
        let fleet = Fleet { keys, ..Fleet::new() };
        let store = fleet.store().await;
        fill(&store, 0..3).await;
        remove_one(&store).await;
        read_back(&store, 0..3).await;
        assert_eq!(says_database(&fleet), !encrypted);
        let dir = tempfile::tempdir().expect("a folder");
        store.backup(&dir.path().join("copy")).await.expect("copied");
        assert_eq!(says(dir.path()), !encrypted, "in its copy");
    }
}

#[tokio::test]
async fn a_plain_database_is_encrypted_and_gets_another_key() {
    let mut fleet = Fleet::new();
    let plain = fleet.store().await;
    fill(&plain, 0..20).await;
    remove_one(&plain).await;
    let worker = plain.join(Registration::default()).await.expect("joined");
    let at_work = refused_invalid(windlass_stores::rekey(&fleet.url(), options("a", &["a"]), |_| ()).await);
    assert!(at_work.contains(&format!("stop `{worker}`")), "{at_work}");
    plain.leave(worker).await.expect("left");
    let text = refused(windlass_stores::PostgresStore::open_with(&fleet.url(), Some(keys("a", &["a"]))).await);
    assert!(text.contains("not encrypted"), "{text}");
    let done = windlass_stores::rekey(&fleet.url(), options("a", &["a"]), |_| ()).await.expect("encrypted");
    assert!(done.from_plain && done.values > 100 && done.remains.is_some(), "{done:?}");
    let put = Put { kind: "kept".into(), key: "late".into(), expected: 0, bytes: Some(CANARY.into()) };
    assert!(refused(plain.put_object(put).await).contains("start it again with the keys"));
    drop(plain);
    assert!(!says_database(&fleet));
    assert_eq!((of_key(&fleet.url(), None).await, of_key(&fleet.url(), Some("a")).await), (0, done.values));
    let address = fleet.url();
    let open = |keys| windlass_stores::PostgresStore::open_with(&address, keys);
    assert!(refused(open(None).await).contains("there are no keys"));
    assert!(refused(open(Some(keys("b", &["b"]))).await).contains("key `a`, which is not among the keys"));
    fleet.keys = Some(keys("b", &["a", "b"]));
    let store = fleet.store().await;
    let worker = store.join(Registration::default()).await.expect("joined");
    read_back(&store, 0..20).await;
    let done = windlass_stores::rekey(&fleet.url(), options("b", &["a", "b"]), |_| ()).await.expect("rekeyed");
    assert_eq!((done.retired, done.from_plain, done.remains), (vec!["a".to_owned()], false, None));
    read_back(&store, 0..20).await;
    store.leave(worker).await.expect("left");
    drop(store);
    assert_eq!(of_key(&fleet.url(), Some("a")).await, 0);
    fleet.keys = Some(keys("b", &["b"]));
    read_back(&fleet.store().await, 0..20).await;
}

#[tokio::test]
async fn what_was_forged_in_a_database_is_refused_and_found() {
    let fleet = Fleet { keys: Some(keys("a", &["a"])), ..Fleet::new() };
    let store = fleet.store().await;
    fill(&store, 0..2).await;
    let plain = fleet.database.execute("UPDATE objects SET bytes = '\\x0000000000'").expect_err("refused");
    assert!(plain.to_string().contains("the store is encrypted"), "{plain}");
    for (what, sql, said) in [
        (
            "another record",
            "UPDATE journal SET record = (SELECT record FROM journal WHERE run = 'run-1') WHERE run = 'run-0'",
            "record 1",
        ),
        (
            "another start",
            "UPDATE starts SET start = (SELECT start FROM starts WHERE run = 'run-1') WHERE run = 'run-0'",
            "start",
        ),
        (
            "another question",
            "UPDATE waits SET kind = (SELECT kind FROM waits WHERE run = 'run-1') WHERE run = 'run-0'",
            "wait",
        ),
        ("a plain object", "UPDATE objects SET bytes = '\\x0000000000' WHERE key = 'run-0'", "is not encrypted"),
        (
            "a changed input",
            "UPDATE inbox SET input = set_byte(input, 60, 255 - get_byte(input, 60)) WHERE run = 'run-0'",
            "input",
        ),
    ] {
        let sql = format!("SET session_replication_role = replica; {sql}");
        fleet.database.execute(&sql).expect("forged");
        let findings = store.fsck().await.expect("checked");
        assert!(findings.iter().any(|finding| finding.message.contains(said)), "{what}: {findings:?}");
    }
    let loaded = store.load(RunId::stored("run-0")).await;
    assert!(matches!(&loaded, Err(StoreError::Corrupt(text)) if text.contains("does not authenticate")), "{loaded:?}");
}

#[tokio::test]
async fn a_copy_of_a_database_comes_back_with_its_keys() {
    let fleet = Fleet { keys: Some(keys("a", &["a"])), ..Fleet::new() };
    let store = fleet.store().await;
    fill(&store, 0..2).await;
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("copy");
    store.backup(&copy).await.expect("copied");
    let other = Fleet { keys: Some(keys("a", &["a"])), ..Fleet::new() };
    let hold = |_: &[u8]| Some(b"held".to_vec());
    let target = other.url();
    let restore = |options| {
        let held = Held { kind: "kept", change: &hold };
        windlass_stores::restore(&copy, &target, options, false, |_| "restored".into(), held)
    };
    let lost = restore(Options::default()).await;
    assert!(matches!(lost, Err(RestoreError::Store(StoreError::Key(_)))), "{lost:?}");
    let restored = restore(options("a", &["a"])).await.expect("restored");
    assert_eq!((restored.quarantined, restored.held), (2, 2));
    assert!(!says_database(&other));
    assert!(other.database.execute("UPDATE objects SET bytes = '\\x0000000000'").is_err(), "plain values are refused");
    let object = other.store().await.object("kept".into(), "run-0".into()).await.expect("read").expect("is there");
    assert_eq!(object.bytes, b"held");
}
