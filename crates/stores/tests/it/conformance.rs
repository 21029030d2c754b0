//! The cases of every store, on a SQLite file.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, params};
use windlass_ports::BoxFuture;
use windlass_ports::conformance::store::{Case, Damage, Harness};
use windlass_ports::store::Store;
use windlass_stores::{Options, SqliteStore};

use crate::encryption::keys;

#[derive(Debug)]
struct File {
    dir: tempfile::TempDir,
    options: Options,
}

impl File {
    fn path(&self) -> PathBuf {
        self.dir.path().join("windlass.db")
    }
}

impl Harness for File {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>> {
        Box::pin(async {
            let store = SqliteStore::open(&self.path(), self.options.clone()).await.expect("the store opens");
            let store: Arc<dyn Store> = Arc::new(store);
            store
        })
    }

    fn damage(&self, damage: &Damage) {
        let connection = Connection::open(self.path()).expect("the file opens");
        // What a broken disk or a careless hand does, no trigger sees.
        connection.execute_batch("DROP TRIGGER IF EXISTS journal_audit_set").expect("the trigger is gone");
        let key = |run: &windlass_core::ids::RunId| {
            let key = connection.query_row("SELECT key FROM runs WHERE id = ?1", [run.as_str()], |row| row.get(0));
            key.expect("the run exists")
        };
        let run = |sql: &str, key: i64| connection.execute(sql, [key]).expect("the damage is done");
        match damage {
            Damage::Wake(id) => {
                run("DELETE FROM waits WHERE run = ?1", key(id));
                run("UPDATE runs SET wake_at = NULL, ready = NULL WHERE key = ?1", key(id))
            }
            Damage::Queue(id) => run("UPDATE runs SET ready = 99 WHERE key = ?1", key(id)),
            Damage::Quarantine(id) => run("UPDATE runs SET quarantine = 'on purpose' WHERE key = ?1", key(id)),
            Damage::Journal(id) => run("DELETE FROM journal WHERE run = ?1 AND version = 1", key(id)),
            Damage::Audit(id) => {
                // Bytes that are sound in themselves, and tell of another row: those of a later decision.
                let sql = "UPDATE journal SET audit = ?2 WHERE run = ?1 AND audit IS NOT NULL";
                let other = br#"[{"number":1,"effect":1,"attempt":1,"stage":"intended","kind":"tool","target":"x","class":"read","arguments":"0000000000000000000000000000000000000000000000000000000000000000","at":1,"previous":"1111111111111111111111111111111111111111111111111111111111111111"}]"#;
                let mut packed = vec![0];
                let hash = blake3::Hasher::new().update(&[0]).update(other).finalize();
                packed.extend_from_slice(&hash.as_bytes()[..4]);
                packed.extend_from_slice(other);
                connection.execute(sql, params![key(id), packed]).expect("the damage is done")
            }
            Damage::Blob(digest) => {
                connection.execute("DELETE FROM blobs WHERE digest = ?1", [digest.0]).expect("the damage is done")
            }
            Damage::Parent(id) => run("DELETE FROM runs WHERE key = (SELECT parent FROM runs WHERE key = ?1)", key(id)),
        };
    }
}

fn run_with(case: &Case, options: Options) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let harness = Arc::new(File { dir: tempfile::tempdir().expect("a directory"), options });
    runtime.block_on((case.run)(harness));
}

fn run(case: Case) {
    run_with(&case, Options::default());
}

windlass_ports::store_conformance!(run);

/// The same cases on an encrypted file.
mod encrypted {
    use super::{Case, Options, keys, run_with};

    fn run(case: Case) {
        run_with(&case, Options { keys: Some(keys("a", &["a"])), ..Options::default() });
    }

    windlass_ports::store_conformance!(run);
}
