//! Whether the store takes writes: a small object is written again from time to time, and what became of it is
//! remembered. A database that went read only, or whose disk is full, goes on answering questions.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use windlass_ports::store::{Put, Store, StoreError};

/// The object that is written. What it says is of no use to anyone.
const KIND: &str = "probe";
const KEY: &str = "write";
/// How long a write that succeeded is taken for granted. One that was refused is tried again when asked next.
const TRUST: Duration = Duration::from_secs(10);

/// When the store last took a write of this process; none when it refused the last one.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    taken: Mutex<Option<Instant>>,
}

impl Writes {
    /// Makes sure that the store takes writes, by one when the last is too long ago.
    ///
    /// # Errors
    /// Why it takes none.
    pub(crate) async fn check(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut taken = self.taken.lock().await;
        if taken.is_some_and(|at| at.elapsed() < TRUST) {
            return Ok(());
        }
        // Whoever stops waiting for the answer leaves it unknown.
        *taken = None;
        let there = store.object(KIND.into(), KEY.into()).await?;
        let expected = there.map_or(0, |there| there.revision);
        // Where another process wrote meanwhile the store takes writes as well.
        let _ours =
            store.put_object(Put { kind: KIND.into(), key: KEY.into(), expected, bytes: Some(b"1".to_vec()) }).await?;
        *taken = Some(Instant::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use windlass_ports::fake::MemoryStore;

    use super::*;

    async fn revision(store: &MemoryStore) -> u64 {
        store.object(KIND.into(), KEY.into()).await.expect("read").map_or(0, |object| object.revision)
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_is_written_to_now_and_then() {
        let (store, writes) = (MemoryStore::new(), Writes::default());
        for _ in 0..3 {
            writes.check(&store).await.expect("written");
        }
        assert_eq!(revision(&store).await, 1);
        tokio::time::advance(TRUST).await;
        writes.check(&store).await.expect("written");
        assert_eq!(revision(&store).await, 2);
        tokio::time::advance(TRUST).await;
        store.refuse_objects(true);
        for _ in 0..2 {
            assert!(matches!(writes.check(&store).await, Err(StoreError::Unavailable(_))), "asked again each time");
        }
        store.refuse_objects(false);
        writes.check(&store).await.expect("it takes writes again");
    }
}
