//! Durable stores. The only crate with SQL.
//!
//! Owns how runs are kept on disk. What a store has to do is said, and checked, in `windlass-ports`.

mod cipher;
mod encryption;
pub mod floor;
mod floors;
mod fsck;
mod keys;
mod pack;
pub mod postgres;
mod restore;
pub mod sqlite;
mod trail;

use std::path::Path;
use std::sync::Arc;

use windlass_core::machine::Priority;
use windlass_core::redact;
use windlass_core::time::Timestamp;
use windlass_ports::fake::MemoryStore;
use windlass_ports::store::{Store, StoreError};

pub use encryption::{Counted, Encryption, Progress, Rekeyed};
pub use keys::{KEY_BYTES, KEY_ID_BYTES_MAX, KeyError, Keyring, is_encrypted, is_key_id};
pub use postgres::PostgresStore;
use postgres::SchemaStatus;
pub use restore::{Held, RestoreError, Restored, Schema};
pub use sqlite::{Options, SqliteStore, Sync};

/// Opens the store of a URL: `sqlite:PATH`, made when it is not there; `postgres://…`, an empty database or one with a
/// store; or `memory:`, which dies with the process.
///
/// # Errors
/// [`StoreError::Invalid`] for another kind of URL, otherwise why the store cannot be used.
pub async fn open(url: &str, options: Options) -> Result<Arc<dyn Store>, StoreError> {
    match url.split_once(':') {
        Some(("sqlite", "")) => Err(StoreError::Invalid(format!("`{url}` names no file"))),
        Some(("sqlite", path)) => Ok(Arc::new(SqliteStore::open(Path::new(path), options).await?)),
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(PostgresStore::open_with(url, options.keys).await?)),
        Some(("memory", "")) => Ok(Arc::new(MemoryStore::new())),
        Some(("memory", _)) => Err(StoreError::Invalid("a store in memory has no name: write `memory:`".into())),
        Some((kind, _)) => Err(StoreError::Invalid(format!(
            "there is no store of kind `{}`; use `sqlite:PATH`, `postgres://HOST/DATABASE` or `memory:`",
            redact::address(kind)
        ))),
        None => {
            let shown = redact::address(url);
            Err(StoreError::Invalid(format!("`{shown}` is no URL of a store; write `sqlite:{shown}`")))
        }
    }
}

/// Opens the store of a URL to read it. Nothing is written, made or migrated, so it may be one that takes no writes: a
/// file without the right to write it, a standby. None when there is no store.
///
/// # Errors
/// As [`open`]; [`StoreError::Invalid`] when its schema is older than this build's.
pub async fn open_to_read(url: &str, options: Options) -> Result<Option<Arc<dyn Store>>, StoreError> {
    match url.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => {
            let store = SqliteStore::open_to_read(Path::new(path), options).await?;
            Ok(store.map(|store| Arc::new(store) as Arc<dyn Store>))
        }
        Some(("postgres" | "postgresql", _)) => {
            let store = PostgresStore::open_to_read(url, options.keys).await?;
            Ok(store.map(|store| Arc::new(store) as Arc<dyn Store>))
        }
        _ => open(url, options).await.map(Some),
    }
}

/// Reading needs the schema of this build, and does not bring it up to date.
fn migration_due(found: u32, known: u32) -> StoreError {
    StoreError::Invalid(format!(
        "the store has schema {found}, this build reads {known}; `windlass store migrate` brings it up to date"
    ))
}

/// The schema of the store of a URL, which is not changed and not made. None when there is no store.
///
/// # Errors
/// [`StoreError::Invalid`] for a URL that names no store that lasts, otherwise why it cannot be read.
pub async fn schema(url: &str) -> Result<Option<Schema>, StoreError> {
    match url.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => sqlite::schema(Path::new(path)).await,
        Some(("postgres" | "postgresql", _)) => {
            let SchemaStatus { found, known } = PostgresStore::schema_status(url).await?;
            Ok((found > 0).then_some(Schema { found, known }))
        }
        _ => Err(not_kept(url)),
    }
}

/// Brings the schema of the store of a URL up to date; makes the store when there is none. Gives back what was found.
///
/// # Errors
/// As [`open`].
pub async fn migrate(url: &str, options: Options) -> Result<Schema, StoreError> {
    let found = schema(url).await?;
    drop(open(url, options).await?);
    let known = schema(url).await?.map_or(0, |schema| schema.known);
    Ok(found.unwrap_or(Schema { found: 0, known }))
}

/// Makes the store of a URL from a backup, with every unfinished run quarantined and objects held as `held` says. `reason`
/// is given the time of the last change in the backup. With `replace` a store that is there is kept aside.
///
/// # Errors
/// Why nothing was restored.
pub async fn restore(
    from: &Path,
    url: &str,
    options: Options,
    replace: bool,
    reason: impl FnOnce(Option<Timestamp>) -> String,
    held: Held<'_>,
) -> Result<Restored, RestoreError> {
    match url.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => {
            sqlite::restore(from, Path::new(path), options, replace, reason, held).await
        }
        Some(("postgres" | "postgresql", _)) => PostgresStore::restore(url, options.keys, from, reason, held).await,
        _ => Err(not_kept(url).into()),
    }
}

/// How far the store of a URL is encrypted, which needs no keys. With `count` its values are counted by their keys, which
/// reads all of them. None when there is no store.
///
/// # Errors
/// As [`schema`].
pub async fn encryption(url: &str, count: bool) -> Result<Option<Encryption>, StoreError> {
    if schema(url).await?.is_none() {
        return Ok(None);
    }
    match url.split_once(':') {
        Some(("sqlite", path)) => {
            let path = Path::new(path).to_path_buf();
            let looked = tokio::task::spawn_blocking(move || sqlite::encryption::status(&path, count)).await;
            looked
                .unwrap_or_else(|error| Err(StoreError::Unavailable(format!("reading was given up: {error}"))))
                .map(Some)
        }
        _ => PostgresStore::encryption(url, count).await.map(Some),
    }
}

/// Encrypts every value of the store of a URL with the active key of `options`: what is plain, and what is of another key.
/// In parts, each of which lasts, so that one that was interrupted goes on where it was. `progress` is told after each. A
/// schema that is older than this build's is brought up to date first.
///
/// # Errors
/// [`StoreError::Key`] for keys that are not those of the store, [`StoreError::Invalid`] while workers are at work that
/// would not survive it, [`StoreError::Corrupt`] for a value that is not what was written: it and what comes after it are
/// as before.
pub async fn rekey(
    url: &str,
    options: Options,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Rekeyed, StoreError> {
    let schema = schema(url).await?.ok_or_else(|| not_kept(url))?;
    if schema.found < schema.known && options.keys.is_some() {
        let is_plain = encryption(url, false).await?.is_none_or(|found| found.began_at.is_none());
        let keys = if is_plain { None } else { options.keys.clone() };
        drop(open(url, Options { keys, ..options.clone() }).await?);
    }
    match url.split_once(':') {
        Some(("sqlite", path)) => {
            let path = Path::new(path).to_path_buf();
            let workers = sqlite::workers_of(&path)?;
            let done = move || sqlite::encryption::rekey(&path, &options, &workers, progress);
            let done = tokio::task::spawn_blocking(done).await;
            done.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("it was given up: {error}"))))
        }
        _ => PostgresStore::rekey(url, options.keys, progress).await,
    }
}

/// What came of writing a store anew. Sizes in bytes, of the file without its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// What it had.
    pub before: u64,
    /// What it has.
    pub after: u64,
    /// Why the file or its log may still hold what was removed. None when they do not.
    pub remains: Option<String>,
}

/// Writes the file of a store of SQLite anew, so that it takes no more room than it needs and holds nothing of what was
/// removed.
///
/// # Errors
/// [`StoreError::Invalid`] for a store of another kind, for one that is not there, and for one whose schema is not this
/// build's, otherwise why it cannot be used.
pub async fn compact(url: &str, options: Options) -> Result<Compacted, StoreError> {
    let Some(("sqlite", path)) = url.split_once(':') else {
        return Err(StoreError::Invalid(
            "only a file of SQLite is compacted from here: on PostgreSQL `VACUUM` frees what was removed, and `VACUUM FULL` \
             gives it back to the system"
                .into(),
        ));
    };
    let found = schema(url).await?.ok_or_else(|| StoreError::Invalid(format!("there is no store at `{path}`")))?;
    if found.found != found.known {
        return Err(migration_due(found.found, found.known));
    }
    let path = Path::new(path).to_path_buf();
    let done = tokio::task::spawn_blocking(move || sqlite::compact::compact(&path, &options)).await;
    done.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("it was given up: {error}"))))
}

/// A class as it is stored.
fn priority_of(code: i64) -> Priority {
    usize::try_from(code).ok().and_then(|place| Priority::ALL.get(place).copied()).unwrap_or_default()
}

fn not_kept(url: &str) -> StoreError {
    let kind = redact::address(url.split_once(':').map_or(url, |(kind, _)| kind));
    StoreError::Invalid(format!("`{kind}` is no store that is kept; use `sqlite:PATH` or `postgres://HOST/DATABASE`"))
}
