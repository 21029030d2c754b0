//! Reading connections, and handles that only read.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{Notify, Semaphore};
use windlass_ports::store::{StoreError, WorkerRow};

use super::schema::{self, Access, FileId};
use super::workers::Workers;
use super::{Options, READERS_MAX, SqliteStore, failed};
use crate::cipher::Cipher;

/// One state of the store, and how to read what is in it.
pub(super) struct View<'a> {
    connection: &'a Connection,
    pub(super) cipher: &'a Cipher,
}

impl Deref for View<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

/// What readers share.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) path: PathBuf,
    pub(super) file: FileId,
    access: Access,
    options: Options,
    pub(super) cipher: Cipher,
    idle: Mutex<Vec<Connection>>,
    pub(super) room: Semaphore,
}

impl Readers {
    pub(super) fn new(path: PathBuf, file: FileId, access: Access, options: Options, cipher: Cipher) -> Self {
        Self { path, file, access, options, cipher, idle: Mutex::default(), room: Semaphore::new(READERS_MAX) }
    }

    pub(super) fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one state of the store, on the thread that calls.
    pub(super) fn read<T>(&self, read: impl FnOnce(&View<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if FileId::of(&self.path) != Some(self.file) {
            let path = self.path.display();
            return Err(StoreError::Unavailable(format!("`{path}` was removed or replaced while it was in use")));
        }
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::connect_as(&self.path, self.access, &self.options)?,
        };
        let answer = {
            let transaction = connection.unchecked_transaction().map_err(failed)?;
            let refreshed = super::encryption::refresh(&transaction, &self.cipher);
            let answer = refreshed.and_then(|()| read(&View { connection: &transaction, cipher: &self.cipher }));
            transaction.finish().map_err(failed)?;
            answer
        };
        self.idle().push(connection);
        answer
    }
}

impl Readers {
    /// Copies the log into the file and makes it empty. False when others read it.
    pub(super) fn empty_log(&self) -> Result<bool, StoreError> {
        let connection = schema::connect_as(&self.path, self.access, &self.options)?;
        let emptied = match connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE) {
            Ok(_) => Ok(true),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(false),
            Err(error) => Err(failed(error)),
        };
        schema::close(connection, &self.path, self.file);
        emptied
    }
}

impl SqliteStore {
    /// Opens a file to read it: nothing is written, made or migrated, and the file and its folder need not be writable.
    /// None when there is no store.
    ///
    /// # Errors
    /// As [`SqliteStore::open`]; [`StoreError::Invalid`] for a database of something else and for a schema that is older
    /// than this build's.
    pub async fn open_to_read(path: &Path, options: Options) -> Result<Option<Self>, StoreError> {
        let path = path.to_path_buf();
        let opened = tokio::task::spawn_blocking(move || Self::open_to_read_now(&path, options)).await;
        opened.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("opening was given up: {error}"))))
    }

    fn open_to_read_now(path: &Path, options: Options) -> Result<Option<Self>, StoreError> {
        if !super::restore::is_there(path)? {
            return Ok(None);
        }
        let path = path
            .canonicalize()
            .map_err(|error| StoreError::Unavailable(format!("cannot find `{}`: {error}", path.display())))?;
        let file = FileId::of(&path).ok_or_else(|| StoreError::Unavailable(format!("`{}` is gone", path.display())))?;
        let hint = Arc::new(Notify::new());
        let workers = Arc::new(Workers::beside(&path, Arc::clone(&hint)));
        let opening = workers.closing_lock();
        let (connection, access) = schema::connect_to_read(&path, &options)?;
        let (found, known) = (schema::found(&connection)?, schema::known());
        drop(opening);
        let keys = options.keys.clone();
        match found {
            0 => return Ok(None),
            found if found > known => return Err(StoreError::NewerSchema { found, known }),
            found if found < known => return Err(crate::migration_due(found, known)),
            _ => {}
        }
        let cipher = super::encryption::cipher_to_read(&connection, keys.as_ref())?;
        let readers = Readers::new(path, file, access, options, cipher);
        readers.idle().push(connection);
        Ok(Some(Self {
            readers: Arc::new(readers),
            workers,
            counters: Arc::default(),
            hint,
            primers: Mutex::default(),
            newborns: Mutex::default(),
            schema: found,
            jobs: None,
            writer: None,
        }))
    }
}

/// The workers of a file, as far as they can be seen without it.
pub(crate) fn workers_of(path: &Path) -> Result<Vec<WorkerRow>, StoreError> {
    let path = path
        .canonicalize()
        .map_err(|error| StoreError::Unavailable(format!("cannot find `{}`: {error}", path.display())))?;
    let workers = Workers::beside(&path, Arc::new(Notify::new()));
    Ok(workers.all().into_iter().map(|id| workers.row(id, 0)).collect())
}
