//! Opens stores.

use std::sync::Arc;

use windlass_ports::store::{Store, StoreError};
use windlass_stores::{Keyring, Options};

/// Opens a store: `sqlite:PATH`, `postgres://HOST/DATABASE`, or `memory:` for one that lasts as long as the process.
///
/// # Errors
/// An address of another form, or a store that cannot be opened.
pub async fn open_store(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    open_store_with(url, None).await
}

/// The same with the keys that its values are encrypted with. A store that holds nothing is encrypted from then on.
///
/// # Errors
/// As [`open_store`]; [`StoreError::Key`] when these are not the keys of the store.
pub async fn open_store_with(url: &str, keys: Option<Keyring>) -> Result<Arc<dyn Store>, StoreError> {
    windlass_stores::open(url, Options { keys, ..Options::default() }).await
}

/// Opens the store of a URL to read it: nothing is written, made or migrated. None when there is no store.
///
/// # Errors
/// As [`open_store_with`]; also when its schema is older than this build's.
pub async fn open_store_to_read(url: &str, keys: Option<Keyring>) -> Result<Option<Arc<dyn Store>>, StoreError> {
    windlass_stores::open_to_read(url, Options { keys, ..Options::default() }).await
}
