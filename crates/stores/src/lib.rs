//! Durable stores. The only crate with SQL.
//!
//! Owns how runs are kept on disk. What a store has to do is said, and checked, in `windlass-ports`.

pub mod floor;
mod pack;
pub mod sqlite;

use std::path::Path;
use std::sync::Arc;

use windlass_ports::fake::MemoryStore;
use windlass_ports::store::{Store, StoreError};

pub use sqlite::{Options, SqliteStore, Sync};

/// Opens the store of a URL: `sqlite:PATH`, made when it is not there, or `memory:`, which dies with the process.
///
/// # Errors
/// [`StoreError::Invalid`] for another kind of URL, otherwise why the store cannot be used.
pub async fn open(url: &str, options: Options) -> Result<Arc<dyn Store>, StoreError> {
    match url.split_once(':') {
        Some(("sqlite", "")) => Err(StoreError::Invalid(format!("`{url}` names no file"))),
        Some(("sqlite", path)) => Ok(Arc::new(SqliteStore::open(Path::new(path), options).await?)),
        Some(("memory", "")) => Ok(Arc::new(MemoryStore::new())),
        Some(("memory", _)) => Err(StoreError::Invalid("a store in memory has no name: write `memory:`".into())),
        Some((kind, _)) => {
            Err(StoreError::Invalid(format!("there is no store of kind `{kind}`; use `sqlite:PATH` or `memory:`")))
        }
        None => Err(StoreError::Invalid(format!("`{url}` is no URL of a store; write `sqlite:{url}`"))),
    }
}
