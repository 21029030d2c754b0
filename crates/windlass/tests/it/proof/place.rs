//! Where one proof takes place: a folder with the machine, and a store of the kind that `WINDLASS_TEST_STORE` names.

use std::path::Path;

use tempfile::TempDir;
use windlass_core::ids::RunId;
use windlass_testpg::{Database, Options, Server};

use super::world::World;

/// The file that tells the processes of a folder where the store is.
const STORE: &str = "store.url";
/// How long the machine's timer runs, in milliseconds.
const PAUSE_MS: u64 = 20;

/// A folder and its store. Both are gone when it is dropped.
pub(super) struct Place {
    dir: TempDir,
    database: Option<Database>,
}

/// A record of a run, and the transaction that wrote it.
pub(super) struct Written {
    pub(super) transaction: String,
    pub(super) run: RunId,
    pub(super) version: u64,
}

impl Place {
    pub(super) fn new(world: &World) -> Self {
        Self::with_pause(world, PAUSE_MS)
    }

    /// One whose store keeps in which order it was written, for [`Place::written`].
    pub(super) fn in_order(world: &World) -> Self {
        let settings = vec![("track_commit_timestamp".to_owned(), "on".to_owned())];
        let database = || Server::start(Options { settings, ..Options::default() }).database();
        Self::open(world, PAUSE_MS, database)
    }

    /// With another length of the machine's timer.
    pub(super) fn with_pause(world: &World, pause_ms: u64) -> Self {
        Self::open(world, pause_ms, windlass_testpg::database)
    }

    fn open(world: &World, pause_ms: u64, database: impl FnOnce() -> Database) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        super::machine::write(dir.path(), &world.address, pause_ms);
        let (url, database) = match std::env::var("WINDLASS_TEST_STORE").as_deref() {
            Err(_) | Ok("sqlite") => (format!("sqlite:{}", dir.path().join("store.db").display()), None),
            Ok("postgres") => {
                let database = database();
                // So long that no worker loses it on a busy host, which would be a loss that no cut made; one that was
                // killed on this host is noticed without it.
                (format!("{}?lease_ms=60000&marks={}", database.url(), dir.path().display()), Some(database))
            }
            Ok(other) => panic!("WINDLASS_TEST_STORE is `{other}`; `sqlite` or `postgres` is wanted"),
        };
        std::fs::write(dir.path().join(STORE), url).expect("a writable folder");
        Self { dir, database }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// All records in the order in which they became durable.
    ///
    /// PostgreSQL has no order of its own, but the time of each commit. Of two transactions at the same time either may stand
    /// first. One that began after the other was acknowledged has a later time, and so has each that took from an account
    /// after what the other gave back to it: draws lock accounts, and a run notes what it gives back before it does, and what
    /// it takes after it did.
    pub(super) fn written(&self) -> Vec<Written> {
        let Some(database) = &self.database else { return self.written_to_file() };
        let sql =
            "SELECT xmin, run, version FROM journal ORDER BY pg_xact_commit_timestamp(xmin), xmin::text, run, version";
        let rows = database.execute(sql).expect("a server that keeps the times of commits").into_iter();
        let row = |row: Vec<Option<String>>| {
            let [transaction, run, version] = row.try_into().ok()?;
            Some(Written { transaction: transaction?, run: RunId::stored(&run?), version: version?.parse().ok()? })
        };
        rows.map(|one| row(one).expect("three values")).collect()
    }

    fn written_to_file(&self) -> Vec<Written> {
        let path = windlass::wire::store_path(&store_url(self.path())).expect("a store in a file");
        let connection = rusqlite::Connection::open(path).expect("the file opens");
        let sql = "SELECT journal.key, runs.id, journal.version FROM journal JOIN runs ON runs.key = journal.run \
            ORDER BY journal.key";
        let mut rows = connection.prepare(sql).expect("prepared");
        let row = |row: &rusqlite::Row<'_>| {
            let (key, run, version) = (row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?);
            Ok(Written { transaction: key.to_string(), run: RunId::stored(&run), version: version as u64 })
        };
        rows.query_map([], row).expect("asked").map(|row| row.expect("a row")).collect()
    }
}

/// The address of the store of a folder.
pub(super) fn store_url(folder: &Path) -> String {
    std::fs::read_to_string(folder.join(STORE)).expect("the folder names its store")
}
