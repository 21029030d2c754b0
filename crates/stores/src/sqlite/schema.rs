//! Opens connections and brings the schema up to date. Owns every pragma.

use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
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
    make_dir(dir).map_err(|error| failed("make the directory of", error))?;
    // Opened for writing, so that a file that cannot be written is refused here, in words.
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path);
    open.map_err(|error| failed("open", error))?;
    // Also for a file that was there: whoever made it may have died before this.
    sync_dir(dir).map_err(|error| failed("make", error))?;
    FileId::of(path).ok_or_else(|| StoreError::Unavailable(format!("`{}` is gone", path.display())))
}

/// Makes a directory and all above it. Each lasts once its name is in the one above it.
fn make_dir(dir: &Path) -> std::io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    let above = dir.parent().unwrap_or(Path::new(""));
    make_dir(above)?;
    match fs::create_dir(dir) {
        // Another process was quicker.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        made => made?,
    }
    sync_dir(above)
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

/// How connections to a file are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// To write, or to read what this process writes.
    Write,
    /// To read a file that others may write.
    Read,
    /// To read a file that nobody can write here: its folder has no log, and none can be made.
    Still,
}

/// A connection with the pragmas that every connection has.
pub(super) fn connect(path: &Path, options: &Options) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    prepared(Connection::open_with_flags(path, flags).map_err(super::failed)?, options)
}

/// A connection to a file of its own, set as those of the store are.
pub(crate) fn connect_plain(path: &Path, options: &Options) -> Result<Connection, StoreError> {
    make_file(path)?;
    connect(path, options)
}

/// A connection of a reader.
pub(super) fn connect_as(path: &Path, access: Access, options: &Options) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = match access {
        Access::Write => return connect_reader(path, options),
        Access::Read => Connection::open_with_flags(path, flags),
        Access::Still => {
            let path = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)
        }
    };
    prepared(opened.map_err(super::failed)?, options)
}

/// A connection that needs no right to write, and how it was made.
pub(super) fn connect_to_read(path: &Path, options: &Options) -> Result<(Connection, Access), StoreError> {
    let looked = |access| {
        let connection = connect_as(path, access, options)?;
        let look = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        look.map_err(super::failed).map(|_| (connection, access))
    };
    match looked(Access::Read) {
        Err(StoreError::Unavailable(_)) => {}
        other => return other,
    }
    // Readers share an index of the log in a file beside it. Where that can neither be found nor made, what is in the log
    // cannot be read; without a log everything is in the file.
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if fs::metadata(&log).is_ok_and(|meta| meta.len() > 0) {
        return Err(StoreError::Unavailable(format!(
            "`{}` cannot be read where its folder cannot be written: the log beside it holds a part of it; copy the file \
             with its `-wal` to a folder of yours",
            path.display()
        )));
    }
    looked(Access::Still)
}

fn prepared(mut connection: Connection, options: &Options) -> Result<Connection, StoreError> {
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
///
/// # Errors
/// [`StoreError::Invalid`] for a database of something else.
pub(super) fn found(connection: &Connection) -> Result<u32, StoreError> {
    let tables = "SELECT count(*), coalesce(sum(name = 'refinery_schema_history'), 0), \
         (SELECT count(*) FROM pragma_table_info('runs') WHERE name IN ('quarantine', 'cost_micros', 'epoch')) \
         FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let (all, history, columns): (i64, i64, i64) = connection.query_row(tables, [], read).map_err(super::failed)?;
    if all == 0 {
        return Ok(0);
    }
    if history == 0 || (columns < 3 && all > 1) {
        let text = "it is a database of something else: its tables are not those of Windlass; name another file";
        return Err(StoreError::Invalid(text.into()));
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
