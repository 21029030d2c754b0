//! Large values of journals, read beside them.

use std::collections::BTreeMap;

use windlass_core::ids::Digest;
use windlass_ports::store::{JournalRow, Store, StoreError};

use crate::fold;

/// The large values that rows of a journal refer to, as far as the store has them.
///
/// # Errors
/// A store that fails.
pub async fn blobs(store: &dyn Store, rows: &[JournalRow]) -> Result<BTreeMap<Digest, Vec<u8>>, StoreError> {
    let mut found = BTreeMap::new();
    for digest in fold::references(rows) {
        if let Some(bytes) = store.blob(digest).await? {
            found.insert(digest, bytes);
        }
    }
    Ok(found)
}
