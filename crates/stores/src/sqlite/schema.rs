//! Opens connections and brings the schema up to date. Owns every pragma.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use windlass_ports::store::StoreError;

use super::{Options, Sync};

mod migrations {
    refinery::embed_migrations!("src/sqlite/migrations");
}

/// Which file a path names, to notice that another one took its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl FileId {
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|meta| Self(meta.dev(), meta.ino()))
    }
}

/// Makes the file when it is not there, for this user only.
pub(super) fn make_file(path: &Path) -> Result<FileId, StoreError> {
    let failed = |what: &str, error: std::io::Error| {
        StoreError::Unavailable(format!("cannot {what} `{}`: {error}", path.display()))
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(|error| failed("make the directory of", error))?;
    let is_new = !path.exists();
    // Opened for writing, so that a file that cannot be written is refused here, in words.
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path);
    open.map_err(|error| failed("open", error))?;
    if is_new {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| failed("make", error))?;
    }
    FileId::of(path).ok_or_else(|| StoreError::Unavailable(format!("`{}` is gone", path.display())))
}

/// A connection with the pragmas that every connection has.
pub(super) fn connect(path: &Path, options: &Options) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(super::failed)?;
    let patience = Duration::from_millis(options.busy_ms);
    let mut since = Instant::now();
    let wait = move |tries: i32| {
        if tries == 0 {
            since = Instant::now();
        }
        // Short at first: the other writer is done after one sync. There is no queue, so persistence is fairness.
        std::thread::sleep(Duration::from_micros(200 << tries.clamp(0, 5)));
        since.elapsed() < patience
    };
    connection.busy_handler(Some(wait)).map_err(super::failed)?;
    let sync = match options.sync {
        Sync::Full => "FULL",
        Sync::Off => "OFF",
    };
    let pragmas = format!("PRAGMA synchronous={sync}; PRAGMA wal_autocheckpoint=0; PRAGMA temp_store=MEMORY;");
    connection.execute_batch(&pragmas).map_err(super::failed)?;
    // Plans do not depend on bound values, so no statement is planned again when they change.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(super::failed)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// Closes a connection. The last one of a database empties the log and removes it by its name, which must not happen
/// when another database has that name.
pub(super) fn close(connection: Connection, path: &Path, file: FileId) {
    if FileId::of(path) != Some(file) {
        // A connection that cannot be set so is left open until the process ends.
        if connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).is_err() {
            std::mem::forget(connection);
        }
    }
}

/// A connection that only reads.
pub(super) fn connect_reader(path: &Path, options: &Options) -> Result<Connection, StoreError> {
    let connection = connect(path, options)?;
    connection.execute_batch("PRAGMA query_only=1").map_err(super::failed)?;
    Ok(connection)
}

/// The newest schema this build knows.
pub(super) fn known() -> u32 {
    let migrations = migrations::migrations::runner();
    let versions = migrations.get_migrations().iter().map(|migration| migration.version());
    versions.max().and_then(|version| u32::try_from(version).ok()).unwrap_or_default()
}

/// The schema of a file; 0 of an empty one.
pub(super) fn found(connection: &Connection) -> Result<u32, StoreError> {
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'refinery_schema_history'";
    let has_history: i64 = connection.query_row(tables, [], |row| row.get(0)).map_err(super::failed)?;
    if has_history == 0 {
        return Ok(0);
    }
    let latest = "SELECT coalesce(max(version), 0) FROM refinery_schema_history";
    connection.query_row(latest, [], |row| row.get(0)).map_err(super::failed)
}

/// Brings the schema up to date, for one process at a time. All migrations and the note that they are done are one
/// transaction, so a process killed in between leaves the schema before them or after them.
pub(super) fn migrate(connection: &mut Connection) -> Result<u32, StoreError> {
    let known = known();
    let refuse_newer = |found: u32| match found {
        found if found > known => Err(StoreError::NewerSchema { found, known }),
        found => Ok(found),
    };
    if refuse_newer(found(connection)?)? < known {
        let mode: String =
            connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).map_err(super::failed)?;
        if mode != "wal" {
            return Err(StoreError::Unavailable(format!("the file system does not take a write-ahead log: {mode}")));
        }
        let run = migrations::migrations::runner().set_grouped(true).run(connection);
        run.map_err(|error| StoreError::Unavailable(format!("the schema cannot be brought up to date: {error}")))?;
    }
    Ok(known)
}
