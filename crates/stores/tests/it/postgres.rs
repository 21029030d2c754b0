//! The cases of every store, on a PostgreSQL database.

use std::sync::Arc;

use windlass_ports::BoxFuture;
use windlass_ports::conformance::store::{Case, Damage, Harness};
use windlass_ports::store::{Store, WorkerId};
use windlass_stores::{Keyring, PostgresStore};
use windlass_testpg::Database;

use crate::encryption::keys;

/// Bytes that are sound in themselves, and tell of another row: those of a later decision.
const OTHER_AUDIT: &str = r#"[{"number":1,"effect":1,"attempt":1,"stage":"intended","kind":"tool","target":"x","class":"read","arguments":"0000000000000000000000000000000000000000000000000000000000000000","at":1,"previous":"1111111111111111111111111111111111111111111111111111111111111111"}]"#;

/// A database, and what its workers on this host know of each other.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) database: Database,
    pub(crate) marks: tempfile::TempDir,
    pub(crate) keys: Option<Keyring>,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        Self { database: windlass_testpg::database(), marks: tempfile::tempdir().expect("a directory"), keys: None }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}?marks={}", self.database.url(), self.marks.path().display())
    }

    pub(crate) async fn store(&self) -> PostgresStore {
        PostgresStore::open_with(&self.url(), self.keys.clone()).await.expect("the store opens")
    }
}

impl Harness for Fleet {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>> {
        Box::pin(async {
            let store: Arc<dyn Store> = Arc::new(self.store().await);
            store
        })
    }

    fn damage(&self, damage: &Damage) {
        let sql = match damage {
            Damage::Wake(id) => format!(
                "DELETE FROM waits WHERE run = '{id}'; UPDATE runs SET wake_at = NULL, ready = NULL WHERE id = '{id}'"
            ),
            Damage::Queue(id) => format!("UPDATE runs SET ready = 99 WHERE id = '{id}'"),
            Damage::Quarantine(id) => format!("UPDATE runs SET quarantine = 'on purpose' WHERE id = '{id}'"),
            Damage::Journal(id) => format!("DELETE FROM journal WHERE run = '{id}' AND version = 1"),
            Damage::Audit(id) => {
                let hash = blake3::Hasher::new().update(&[0]).update(OTHER_AUDIT.as_bytes()).finalize();
                let packed = [&[0], &hash.as_bytes()[..4], OTHER_AUDIT.as_bytes()].concat();
                let hex: String = packed.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("UPDATE journal SET audit = '\\x{hex}' WHERE run = '{id}' AND audit IS NOT NULL")
            }
            Damage::Blob(digest) => format!("DELETE FROM blobs WHERE digest = '\\x{digest}'"),
            Damage::Parent(id) => format!("DELETE FROM runs WHERE id = (SELECT parent FROM runs WHERE id = '{id}')"),
        };
        // What keeps rows together is off: this is what a broken disk or a careless hand does.
        let sql = format!("SET session_replication_role = replica; {sql}");
        self.database.execute(&sql).expect("the damage is done");
    }

    fn forget(&self, worker: &WorkerId) -> bool {
        let sql = format!("UPDATE workers SET until_us = 0 WHERE id = '{worker}'");
        self.database.execute(&sql).expect("its lease ran out");
        true
    }
}

fn run_with(case: &Case, keys: Option<Keyring>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let harness = Arc::new(Fleet { keys, ..Fleet::new() });
    runtime.block_on((case.run)(harness));
}

fn run(case: Case) {
    run_with(&case, None);
}

windlass_ports::store_conformance!(run);

/// The same cases on an encrypted database.
mod encrypted {
    use super::{Case, keys, run_with};

    fn run(case: Case) {
        run_with(&case, Some(keys("a", &["a"])));
    }

    windlass_ports::store_conformance!(run);
}
