//! When the store was last copied: noted in the store itself, so that every process that serves can tell how long ago
//! that was. Copies that are made by other means are not known.

use windlass_core::time::Timestamp;
use windlass_ports::store::{Object, Put, Store, StoreError};

/// The object that holds the note.
const KIND: &str = "backup";
const KEY: &str = "last";
/// How often a note that others write at the same moment is tried again.
const TRIES_MAX: u32 = 5;

fn read(object: &Object) -> Timestamp {
    let text = std::str::from_utf8(&object.bytes).unwrap_or_default();
    Timestamp(text.parse().unwrap_or_default())
}

/// When the last copy was begun; none when none is known.
///
/// # Errors
/// The store fails.
pub async fn last(store: &dyn Store) -> Result<Option<Timestamp>, StoreError> {
    Ok(store.object(KIND.into(), KEY.into()).await?.as_ref().map(read))
}

/// Notes that a copy was begun at this time and is complete. A later one that is noted already stays.
///
/// # Errors
/// The store fails.
pub async fn note(store: &dyn Store, at: Timestamp) -> Result<(), StoreError> {
    for _ in 0..TRIES_MAX {
        let there = store.object(KIND.into(), KEY.into()).await?;
        if there.as_ref().is_some_and(|there| read(there) >= at) {
            return Ok(());
        }
        let expected = there.map_or(0, |there| there.revision);
        let bytes = Some(at.0.to_string().into_bytes());
        if store.put_object(Put { kind: KIND.into(), key: KEY.into(), expected, bytes }).await? {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use windlass_ports::fake::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn the_last_copy_is_noted_and_no_earlier_one_after_it() {
        let store = MemoryStore::new();
        assert_eq!(last(&store).await.expect("read"), None);
        for at in [5, 9, 7] {
            note(&store, Timestamp(at)).await.expect("noted");
        }
        assert_eq!(last(&store).await.expect("read"), Some(Timestamp(9)));
    }
}
