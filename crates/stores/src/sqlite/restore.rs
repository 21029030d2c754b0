//! Backups: made while the store is in use, and brought back: checked, fenced, and put where nothing is, or in place of
//! a store that is kept aside.
//!
//! Until the very end of a restore everything happens in a file of its own beside the target, so a restore that fails, or is killed,
//! has changed nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::Notify;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Store, StoreError};

use super::schema::{self, FileId};
use super::workers::Workers;
use super::{Options, SqliteStore};
use crate::restore::{Held, RestoreError, Restored, Schema, check_free, unwritten};

/// The first bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Copies a store, all of one moment, to a file that must not be there.
pub(super) fn copy(connection: &Connection, to: &Path) -> Result<(), StoreError> {
    check_free(to)?;
    let failed_io = |error: io::Error| unwritten(to, &error);
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let made = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&partial);
    made.map_err(failed_io)?;
    {
        let mut target = Connection::open(&partial).map_err(|error| of_copy(to, error))?;
        let backup = rusqlite::backup::Backup::new(connection, &mut target).map_err(|error| of_copy(to, error))?;
        // In one go: a reader of the log holds up nobody, and copies one state.
        backup.step(-1).map_err(|error| of_copy(to, error))?;
    }
    let written = File::open(&partial).and_then(|file| file.sync_all());
    written.and_then(|()| fs::rename(&partial, to)).map_err(failed_io)
}

/// What SQLite says of a file that it copies to.
fn of_copy(to: &Path, error: rusqlite::Error) -> StoreError {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => io::ErrorKind::StorageFull,
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            io::ErrorKind::PermissionDenied
        }
        _ => return super::failed(error),
    };
    unwritten(to, &io::Error::new(kind, error))
}

/// The schema of a file, which is not changed. None when there is no file, or an empty one.
pub(crate) async fn schema(path: &Path) -> Result<Option<Schema>, StoreError> {
    let path = path.to_path_buf();
    let looked = tokio::task::spawn_blocking(move || found(&path)).await;
    looked.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("reading was given up: {error}"))))
}

fn found(path: &Path) -> Result<Option<Schema>, StoreError> {
    if !is_there(path)? {
        return Ok(None);
    }
    let (connection, _) = schema::connect_to_read(path, &Options::default())?;
    let found = schema::found(&connection)?;
    Ok((found > 0).then(|| Schema { found, known: schema::known() }))
}

/// Whether there is a file with something in it.
pub(super) fn is_there(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        // What was never copied back is all in the log.
        Ok(_) => Ok(is_taken(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::Unavailable(format!("cannot read `{}`: {error}", path.display()))),
    }
}

/// Makes the store at `to` from the backup at `from`. `reason` is given the time of the last change in the backup, and
/// says why unfinished runs are held back.
pub(crate) async fn restore(
    from: &Path,
    to: &Path,
    options: Options,
    replace: bool,
    reason: impl FnOnce(Option<Timestamp>) -> String,
    held: Held<'_>,
) -> Result<Restored, RestoreError> {
    if !replace && is_taken(to) {
        return Err(RestoreError::NotEmpty { target: to.display().to_string() });
    }
    let staged = stage(from, to)?;
    let prepared = prepare(&staged, options, reason, held).await;
    let placed = prepared.and_then(|restored| Ok(Restored { aside: place(&staged, to, replace)?, ..restored }));
    discard(&staged);
    placed
}

fn is_taken(path: &Path) -> bool {
    let has_bytes = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    has_bytes(path) || has_bytes(&beside(path, "-wal"))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn trouble(what: &str, path: &Path, error: &io::Error) -> RestoreError {
    RestoreError::Store(StoreError::Unavailable(format!("cannot {what} `{}`: {error}", path.display())))
}

fn refused(text: String) -> RestoreError {
    RestoreError::Store(StoreError::Invalid(text))
}

/// Copies the backup to a file of this restore's own.
fn stage(from: &Path, to: &Path) -> Result<PathBuf, RestoreError> {
    let mut source = File::open(from).map_err(|error| trouble("read", from, &error))?;
    let mut magic = [0; 16];
    if source.read_exact(&mut magic).is_err() || magic != *MAGIC {
        return Err(refused(format!("`{}` is no backup of a SQLite store", from.display())));
    }
    if fs::metadata(beside(from, "-wal")).is_ok_and(|meta| meta.len() > 0) {
        let from = from.display();
        return Err(refused(format!("`{from}` is a store in use and no backup: `{from}-wal` holds a part of it")));
    }
    if FileId::of(from) == FileId::of(to) {
        return Err(refused(format!("`{}` is the store itself", from.display())));
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| trouble("make the directory", folder, &error))?;
    let staged = beside(to, &format!(".restoring-{}", std::process::id()));
    discard(&staged);
    let open = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&staged);
    let mut target = open.map_err(|error| trouble("make", &staged, &error))?;
    let copied = File::open(from).and_then(|mut source| io::copy(&mut source, &mut target));
    let copied = copied.and_then(|_| target.sync_all());
    copied.map_err(|error| {
        discard(&staged);
        trouble("write", &staged, &error)
    })?;
    Ok(staged)
}

/// Checks the copy and holds its runs back. Gives back how many, and when it last changed.
async fn prepare(
    staged: &Path,
    options: Options,
    reason: impl FnOnce(Option<Timestamp>) -> String,
    held: Held<'_>,
) -> Result<Restored, RestoreError> {
    let store = SqliteStore::open(staged, options).await?;
    let findings = store.fsck().await?;
    if !findings.is_empty() {
        return Err(RestoreError::Damaged(findings));
    }
    let latest = store.read(|connection| {
        let sql = "SELECT max(updated_at) FROM runs";
        connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).map_err(super::failed)
    });
    let taken_at = latest.await?.and_then(|at| u64::try_from(at).ok()).map(Timestamp);
    let quarantined = store.fence(reason(taken_at).as_str().into()).await?;
    let held = held.apply(&store).await?;
    drop(store);
    // Everything has to be in the one file that is put into place.
    let connection = schema::connect(staged, &Options::default())?;
    let emptied: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(super::failed)?;
    drop(connection);
    if emptied != 0 || fs::metadata(beside(staged, "-wal")).is_ok_and(|meta| meta.len() > 0) {
        let text = format!("another process uses `{}`", staged.display());
        return Err(RestoreError::Store(StoreError::Unavailable(text)));
    }
    File::open(staged).and_then(|file| file.sync_all()).map_err(|error| trouble("write", staged, &error))?;
    Ok(Restored { aside: None, quarantined, held, taken_at })
}

/// Puts the copy into place. Gives back where the old store is kept.
fn place(staged: &Path, to: &Path, replace: bool) -> Result<Option<PathBuf>, RestoreError> {
    let workers = Workers::beside(to, Arc::new(Notify::new()));
    // Nobody opens or closes the old store meanwhile.
    let _lock = workers.opening_lock()?;
    let mut aside = None;
    if is_taken(to) {
        if !replace {
            return Err(RestoreError::NotEmpty { target: to.display().to_string() });
        }
        aside = Some(set_aside(to)?);
    }
    // Only now is nothing at the path: whoever looks there finds no store, and nobody an old log beside a new file.
    for suffix in ["", "-wal", "-shm"] {
        let path = beside(to, suffix);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(trouble("remove", &path, &error)),
            _ => {}
        }
    }
    fs::rename(staged, to).map_err(|error| trouble("make", to, &error))?;
    // What workers of the old store noted about calls says nothing about the time after the backup.
    forget_workers(&beside(to, ".workers"));
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| trouble("write", folder, &error))?;
    Ok(aside)
}

fn forget_workers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("w-") {
            // A note that stays is asked about only by name, and no run was lost by a worker of that name.
            let _gone = fs::remove_file(entry.path());
        }
    }
}

/// A second name for the old file and its log, so that both stay whatever happens.
fn set_aside(to: &Path) -> Result<PathBuf, RestoreError> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let name = |turn: u32| match turn {
        0 => format!(".replaced-{seconds}"),
        turn => format!(".replaced-{seconds}-{turn}"),
    };
    let aside = (0..).map(|turn| beside(to, &name(turn))).find(|path| !path.exists()).unwrap_or_default();
    for suffix in ["-wal", ""] {
        let (old, new) = (beside(to, suffix), beside(&aside, suffix));
        match fs::hard_link(&old, &new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(trouble("keep the old store as", &new, &error)),
            Ok(()) => {}
        }
    }
    Ok(aside)
}

/// Removes what a restore leaves, in whatever state.
fn discard(staged: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        // What is not there need not be removed; what cannot be removed is in nobody's way.
        let _gone = fs::remove_file(beside(staged, suffix));
    }
    let _gone = fs::remove_dir_all(beside(staged, ".workers"));
}
