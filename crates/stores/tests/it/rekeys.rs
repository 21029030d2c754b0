//! Keys that are replaced while others write, and first rekeys: what a key that was replaced can still do, on both stores.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use windlass_core::effect::WaitKind;
use windlass_core::ids::{EffectId, RunId};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Claim, NewRun, Put, Registration, Store, StoreError, WaitRow};
use windlass_stores::{Keyring, Options, Progress, Rekeyed};

use crate::child::{self, commit, start};
use crate::encryption::{file, fill, keys, of_key, read_back, refused};
use crate::postgres::Fleet;

/// A store of either kind.
enum Home {
    File(tempfile::TempDir),
    Database(Fleet),
}

impl Home {
    fn both() -> [Self; 2] {
        [Self::File(file().0), Self::Database(Fleet::new())]
    }

    fn url(&self) -> String {
        match self {
            Self::File(dir) => format!("sqlite:{}", path(dir).display()),
            Self::Database(fleet) => fleet.url(),
        }
    }

    async fn try_open(&self, keys: Option<Keyring>) -> Result<Arc<dyn Store>, StoreError> {
        windlass_stores::open(&self.url(), Options { keys, ..Options::default() }).await
    }

    async fn open(&self, keys: Option<Keyring>) -> Arc<dyn Store> {
        self.try_open(keys).await.expect("it opens")
    }

    async fn rekey(&self, keys: Keyring) -> Result<Rekeyed, StoreError> {
        rekey(self.url(), keys, |_| ()).await
    }

    /// Changes tables by hand.
    fn sql(&self, sql: &str) {
        match self {
            Self::File(dir) => Connection::open(path(dir)).and_then(|file| file.execute_batch(sql)).expect("changed"),
            Self::Database(fleet) => drop(fleet.database.execute(sql).expect("changed")),
        }
    }

    /// The same, as whoever may do everything.
    fn forge(&self, sql: &str) {
        match self {
            Self::File(dir) => {
                let file = Connection::open(path(dir)).expect("it opens");
                drop_triggers(&file);
                file.execute_batch(sql).expect("forged");
            }
            Self::Database(_) => self.sql(&format!("SET session_replication_role = replica; {sql}")),
        }
    }

    fn number(&self, sql: &str) -> i64 {
        match self {
            Self::File(dir) => {
                let file = Connection::open(path(dir)).expect("it opens");
                file.query_row(sql, [], |row| row.get(0)).expect("a number")
            }
            Self::Database(fleet) => fleet.database.value(sql).parse().expect("a number"),
        }
    }

    /// Makes the schema the one before that which knows which keys may be written with.
    fn make_older(&self) {
        match self {
            Self::File(dir) => {
                drop_triggers(&Connection::open(path(dir)).expect("it opens"));
                self.sql("DROP TABLE encryption_writers; DELETE FROM refinery_schema_history WHERE version >= 8");
            }
            Self::Database(_) => self.sql(
                "DROP FUNCTION IF EXISTS refuse_unkeyed CASCADE; DROP TABLE encryption_writers; \
                 DELETE FROM schema_history WHERE version >= 8",
            ),
        }
    }

    /// Begins to encrypt it for the first time, and ends in the middle.
    async fn begin(&self, keys: Keyring) {
        let broken = |progress: Progress| assert!(progress.table != "journal", "in the middle, on purpose");
        let url = self.url();
        let broken = tokio::spawn(rekey(url, keys, broken)).await;
        assert!(!matches!(broken, Ok(Ok(_))), "it ended: {broken:?}");
    }
}

fn path(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("windlass.db")
}

async fn rekey(url: String, keys: Keyring, told: impl FnMut(Progress) + Send + 'static) -> Result<Rekeyed, StoreError> {
    windlass_stores::rekey(&url, Options { keys: Some(keys), ..Options::default() }, told).await
}

fn drop_triggers(file: &Connection) {
    let mut names = file.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'").expect("read");
    let names: Vec<String> = names.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("read");
    for name in names {
        file.execute_batch(&format!("DROP TRIGGER {name}")).expect("dropped");
    }
}

fn put(key: &str) -> Put {
    Put { kind: "kept".into(), key: key.into(), expected: 0, bytes: Some(b"what somebody said".to_vec()) }
}

#[tokio::test]
async fn nothing_is_written_with_a_key_that_was_replaced() {
    for home in Home::both() {
        // No worker: nothing says that it is there.
        let old = home.open(Some(keys("a", &["a", "b"]))).await;
        fill(&*old, 0..3).await;
        let done = home.rekey(keys("b", &["a", "b"])).await.expect("rekeyed");
        assert_eq!(done.retired, ["a"]);
        let text = refused(old.put_object(put("late")).await);
        assert!(text.contains("was replaced"), "{text}");
        read_back(&*old, 0..3).await;
        assert_eq!(of_key(&home.url(), Some("a")).await, 0);
        drop(old);
        let text = refused(home.try_open(Some(keys("a", &["a", "b"]))).await);
        assert!(text.contains("key `a` was replaced by `b`"), "{text}");
        // Whoever wants to, goes back.
        let done = home.rekey(keys("a", &["a", "b"])).await.expect("rekeyed");
        assert_eq!(done.retired, ["b"]);
        let again = home.open(Some(keys("a", &["a"]))).await;
        fill(&*again, 3..4).await;
        read_back(&*again, 0..4).await;
    }
}

#[tokio::test]
async fn a_rekey_waits_for_whoever_is_about_to_write_with_the_old_key() {
    let fleet = Fleet { keys: Some(keys("a", &["a", "b"])), ..Fleet::new() };
    fill(&fleet.store().await, 0..2).await;
    let address = fleet.database.url();
    let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await.expect("connected");
    let driven = tokio::spawn(connection);
    let taken_out =
        "CREATE TEMP TABLE late AS SELECT * FROM objects WHERE key = 'run-0'; DELETE FROM objects WHERE key = 'run-0'";
    client.batch_execute(taken_out).await.expect("taken out");
    client.batch_execute("BEGIN; INSERT INTO objects SELECT * FROM late").await.expect("not yet committed");
    let rekeyed = tokio::spawn(rekey(fleet.url(), keys("b", &["a", "b"]), |_| ()));
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'encryption_writers'::regclass";
    while fleet.database.value(waits) == "0" {
        assert!(!rekeyed.is_finished(), "it did not wait");
        tokio::task::yield_now().await;
    }
    client.batch_execute("COMMIT").await.expect("committed");
    let done = rekeyed.await.expect("not given up").expect("rekeyed");
    assert_eq!(done.retired, ["a"]);
    assert_eq!(of_key(&fleet.url(), Some("a")).await, 0);
    let fleet = Fleet { keys: Some(keys("b", &["b"])), ..fleet };
    read_back(&fleet.store().await, 0..2).await;
    driven.abort();
}

#[tokio::test]
async fn a_signal_of_the_old_key_arrives_while_keys_are_replaced() {
    let fleet = Fleet { keys: Some(keys("a", &["a", "b"])), ..Fleet::new() };
    fill(&fleet.store().await, 0..1).await;
    let fleet = Fleet { keys: Some(keys("b", &["a", "b"])), ..fleet };
    let store = fleet.store().await;
    drop(fleet.database.execute("UPDATE encryption_writers SET closed_at = 1 WHERE id = 'a'").expect("closed"));
    let worker = store.join(Registration::default()).await.expect("joined");
    store.create(NewRun::new(start("waits"), Timestamp(0))).await.expect("created");
    let claim = Claim { within: Some(RunId::stored("waits")), ..Claim::any(worker.clone(), 1, Timestamp(0)) };
    let lease = store.claim(claim).await.expect("claimed").remove(0);
    let mut step = commit(&lease, &worker, 0);
    step.waits_opened =
        vec![WaitRow { effect: EffectId(1), channel: "buffered 0".into(), kind: WaitKind::Signal, due: None }];
    store.commit(step).await.expect("the signal is brought");
    assert_eq!(store.inbox(RunId::stored("waits")).await.expect("read").len(), 1);
    store.leave(worker).await.expect("left");
    let done = rekey(fleet.url(), keys("b", &["a", "b"]), |_| ()).await.expect("rekeyed");
    assert_eq!((done.retired, of_key(&fleet.url(), Some("a")).await), (vec!["a".to_owned()], 0));
}

#[tokio::test]
async fn a_plain_store_of_an_older_schema_is_refused_before_it_is_changed() {
    for home in Home::both() {
        fill(&*home.open(None).await, 0..2).await;
        home.make_older();
        let found = || async { windlass_stores::schema(&home.url()).await.expect("read").expect("is there").found };
        assert_eq!(found().await, 7);
        let text = refused(home.try_open(Some(keys("a", &["a"]))).await);
        assert!(text.contains("not encrypted") && text.contains("rekey"), "{text}");
        assert_eq!(found().await, 7, "nothing was changed");
        // What it says does all of it.
        let done = home.rekey(keys("a", &["a"])).await.expect("encrypted");
        assert!(done.from_plain, "{done:?}");
        read_back(&*home.open(Some(keys("a", &["a"]))).await, 0..2).await;
    }
}

#[tokio::test]
async fn an_encrypted_store_of_an_older_schema_learns_which_keys_may_write() {
    for home in Home::both() {
        fill(&*home.open(Some(keys("a", &["a", "b"]))).await, 0..2).await;
        home.make_older();
        let old = home.open(Some(keys("a", &["a", "b"]))).await;
        assert!(old.put_object(put("fine")).await.expect("put"));
        let plain = home.number("SELECT count(*) FROM encryption_writers WHERE closed_at IS NULL");
        assert_eq!(plain, 1);
        home.rekey(keys("b", &["a", "b"])).await.expect("rekeyed");
        assert!(refused(old.put_object(put("late")).await).contains("was replaced"));
    }
}

#[tokio::test]
async fn two_that_encrypt_a_store_for_the_first_time_do_it_once() {
    for home in Home::both() {
        fill(&*home.open(None).await, 0..10).await;
        let (one, other) = futures::future::join(home.rekey(keys("a", &["a"])), home.rekey(keys("a", &["a"]))).await;
        assert!(one.is_ok() || other.is_ok(), "{one:?} {other:?}");
        // The second may have begun when the first had: it goes on with it only when it is told that plain values are to be.
        for done in [one, other] {
            assert!(matches!(&done, Ok(_) | Err(StoreError::Key(_))), "{done:?}");
        }
        assert_eq!(home.number("SELECT count(*) FROM encryption"), 1);
        assert_eq!(of_key(&home.url(), None).await, 0);
        read_back(&*home.open(Some(keys("a", &["a"]))).await, 0..10).await;
    }
}

#[tokio::test]
async fn plain_values_are_read_only_while_they_are_and_by_whoever_was_told_to() {
    for home in Home::both() {
        fill(&*home.open(None).await, 0..5).await;
        home.begin(keys("a", &["a"])).await;
        let text = refused(home.try_open(Some(keys("a", &["a"]))).await);
        assert!(text.contains("`plain = true`"), "{text}");
        assert!(refused(home.rekey(keys("a", &["a"])).await).contains("--from-plain"));
        // A server that was opened meanwhile.
        let meanwhile = home.open(Some(keys("a", &["a"]).with_plain())).await;
        read_back(&*meanwhile, 0..5).await;
        home.sql("CREATE TABLE noted AS SELECT state FROM encryption");
        let done = home.rekey(keys("a", &["a"]).with_plain()).await.expect("encrypted");
        assert!(done.from_plain && of_key(&home.url(), None).await == 0, "{done:?}");
        let zeros = if matches!(home, Home::File(..)) { "x'0000000000'" } else { "'\\x0000000000'" };
        home.forge(&format!("UPDATE objects SET bytes = {zeros} WHERE key = 'run-0'"));
        let read = meanwhile.object("kept".into(), "run-0".into()).await;
        assert!(matches!(&read, Err(StoreError::Corrupt(text)) if text.contains("not encrypted")), "{read:?}");
        drop(meanwhile);
        // The note of that time put back.
        home.forge("UPDATE encryption SET complete_at = NULL, state = (SELECT state FROM noted)");
        let text = refused(home.try_open(Some(keys("a", &["a"]))).await);
        assert!(text.contains("plain"), "{text}");
    }
}

#[tokio::test]
async fn a_key_that_the_store_has_not_is_damage_and_one_that_a_process_has_not_is_none() {
    for home in Home::both() {
        let old = home.open(Some(keys("a", &["a"]))).await;
        fill(&*old, 0..2).await;
        let run = if matches!(home, Home::File(..)) { "1" } else { "'run-0'" };
        let forged = if matches!(home, Home::File(..)) {
            "x'457a7a' || zeroblob(14) || substr(audit, 18)"
        } else {
            "'\\x457a7a'::bytea || decode(repeat('00', 14), 'hex') || substring(audit FROM 18)"
        };
        let forged = if matches!(home, Home::File(..)) { format!("CAST({forged} AS BLOB)") } else { forged.to_owned() };
        home.forge(&format!("UPDATE journal SET audit = {forged} WHERE run = {run}"));
        let read = old.audit(RunId::stored("run-0")).await;
        assert!(matches!(&read, Err(StoreError::Corrupt(text)) if text.contains("`zz`")), "{read:?}");
        let unsealed = old.trail().unsealed(1_000).await.expect("the others are sealed");
        assert_eq!(unsealed.unread.len(), 1);
        // A key that somebody brought since.
        let new = home.open(Some(keys("b", &["a", "b"]))).await;
        fill(&*new, 2..3).await;
        assert!(refused(old.audit(RunId::stored("run-2")).await).contains("key `b`"));
        assert!(refused(old.trail().unsealed(1_000).await).contains("key `b`"), "it seals past nothing");
    }
}

#[tokio::test]
async fn a_plain_handle_seals_nothing_that_was_encrypted_since() {
    for home in Home::both() {
        let plain = home.open(None).await;
        fill(&*plain, 0..2).await;
        let unsealed = plain.trail().unsealed(1_000).await.expect("read");
        home.rekey(keys("a", &["a"])).await.expect("encrypted");
        assert!(refused(plain.trail().unsealed(1_000).await).contains("there are no keys"));
        assert!(refused(plain.trail().seal(child::sealing(&unsealed)).await).contains("start it again with the keys"));
        let keyed = home.open(Some(keys("a", &["a"]))).await;
        let unsealed = keyed.trail().unsealed(1_000).await.expect("read");
        assert_eq!((unsealed.unread.len(), unsealed.chains.len()), (0, 3), "two runs and the acts");
        assert!(keyed.trail().seal(child::sealing(&unsealed)).await.expect("sealed"));
    }
}

/// A first rekey of a database that is killed goes on where it was, as one of a file does.
#[tokio::test]
async fn a_rekey_of_a_database_that_is_killed_goes_on_where_it_was() {
    let home = Home::Database(Fleet::new());
    // By one worker after another: none lives long without a sign of life.
    for first in (0..400).step_by(25) {
        fill(&*home.open(None).await, first..first + 25).await;
    }
    let all = of_key(&home.url(), None).await;
    let mut process = child::command("rekey a database", Path::new(&home.url())).spawn().expect("started");
    let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
    let begun = lines.map_while(Result::ok).find(|line| line.starts_with("journal "));
    assert!(begun.is_some(), "it ended before it was killed");
    process.kill().expect("killed");
    process.wait().expect("ended");
    let (plain, encrypted) = (of_key(&home.url(), None).await, of_key(&home.url(), Some("a")).await);
    assert!(plain > 0 && encrypted > 0 && plain + encrypted == all, "{plain} plain, {encrypted} encrypted of {all}");
    let meanwhile = home.open(Some(keys("a", &["a"]).with_plain())).await;
    read_back(&*meanwhile, 0..400).await;
    fill(&*meanwhile, 400..401).await;
    drop(meanwhile);
    let done = home.rekey(keys("a", &["a"]).with_plain()).await.expect("encrypted");
    assert!(done.from_plain && of_key(&home.url(), None).await == 0, "{done:?}");
    read_back(&*home.open(Some(keys("a", &["a"]))).await, 0..401).await;
}
