//! Where one proof takes place: a folder with the machine, and a store of the kind that `WINDLASS_TEST_STORE` names.

use std::path::Path;

use tempfile::TempDir;
use windlass_testpg::Database;

use super::world::World;

/// The file that tells the processes of a folder where the store is.
const STORE: &str = "store.url";
/// How long the machine's timer runs, in milliseconds.
const PAUSE_MS: u64 = 20;

/// A folder and its store. Both are gone when it is dropped.
pub(super) struct Place {
    dir: TempDir,
    _database: Option<Database>,
}

impl Place {
    pub(super) fn new(world: &World) -> Self {
        Self::with_pause(world, PAUSE_MS)
    }

    /// With another length of the machine's timer.
    pub(super) fn with_pause(world: &World, pause_ms: u64) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        super::machine::write(dir.path(), &world.address, pause_ms);
        let (url, database) = match std::env::var("WINDLASS_TEST_STORE").as_deref() {
            Err(_) | Ok("sqlite") => (format!("sqlite:{}", dir.path().join("store.db").display()), None),
            Ok("postgres") => {
                let database = windlass_testpg::database();
                // So long that no worker loses it on a busy host, which would be a loss that no cut made; one that was
                // killed on this host is noticed without it.
                (format!("{}?lease_ms=60000&marks={}", database.url(), dir.path().display()), Some(database))
            }
            Ok(other) => panic!("WINDLASS_TEST_STORE is `{other}`; `sqlite` or `postgres` is wanted"),
        };
        std::fs::write(dir.path().join(STORE), url).expect("a writable folder");
        Self { dir, _database: database }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// The address of the store of a folder.
pub(super) fn store_url(folder: &Path) -> String {
    std::fs::read_to_string(folder.join(STORE)).expect("the folder names its store")
}
