//! Durable stores. The only crate with SQL.
//!
//! Owns how runs are kept on disk. What a store has to do is said, and checked, in `windlass-ports`.

pub mod floor;
mod floors;
mod pack;
pub mod postgres;
mod restore;
pub mod sqlite;
mod trail;

use std::path::Path;
use std::sync::Arc;

use windlass_core::redact;
use windlass_core::time::Timestamp;
use windlass_ports::fake::MemoryStore;
use windlass_ports::store::{Store, StoreError};

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
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(PostgresStore::open(url).await?)),
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
            let store = PostgresStore::open_to_read(url).await?;
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
pub async fn migrate(url: &str) -> Result<Schema, StoreError> {
    let found = schema(url).await?;
    drop(open(url, Options::default()).await?);
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
    replace: bool,
    reason: impl FnOnce(Option<Timestamp>) -> String,
    held: Held<'_>,
) -> Result<Restored, RestoreError> {
    match url.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => {
            sqlite::restore(from, Path::new(path), replace, reason, held).await
        }
        Some(("postgres" | "postgresql", _)) => PostgresStore::restore(url, from, reason, held).await,
        _ => Err(not_kept(url).into()),
    }
}

fn not_kept(url: &str) -> StoreError {
    let kind = redact::address(url.split_once(':').map_or(url, |(kind, _)| kind));
    StoreError::Invalid(format!("`{kind}` is no store that is kept; use `sqlite:PATH` or `postgres://HOST/DATABASE`"))
}
