//! Small records in the store that are changed by whoever read them last, as JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Object, Put, Store, StoreError};

use super::engine::Core;

/// Whoever holds what it read longer than this reads it again before it acts on it, in milliseconds. Removed records
/// are kept much longer, so that nobody can take a new record for the one it read.
const FRESH_MS: u64 = 10_000;
/// How often a change is tried that others come before.
pub(super) const TRIES_MAX: u32 = 100;

/// Objects that are read at a time.
const PAGE: usize = 500;

/// A record as it was read.
#[derive(Debug)]
pub(super) struct Record<T> {
    kind: &'static str,
    key: Name,
    revision: u64,
    read_at: Timestamp,
    /// What it is; none when there is none.
    pub(super) value: Option<T>,
}

/// Reads a record as its bytes.
///
/// # Errors
/// A store that fails.
pub(super) async fn bytes(core: &Core, kind: &'static str, key: &Name) -> Result<Record<Vec<u8>>, StoreError> {
    let read_at = core.parts.clock.now();
    let object = core.parts.store.object(kind.into(), key.clone()).await?;
    let revision = object.as_ref().map_or(0, |object| object.revision);
    Ok(Record { kind, key: key.clone(), revision, read_at, value: object.map(|object| object.bytes) })
}

/// Reads a record.
///
/// # Errors
/// A store that fails; [`StoreError::Corrupt`] for what cannot be read.
pub(super) async fn read<T: DeserializeOwned>(
    core: &Core,
    kind: &'static str,
    key: &Name,
) -> Result<Record<T>, StoreError> {
    bytes(core, kind, key).await?.try_map(|bytes| decode(kind, key, bytes))
}

/// Every object of a kind, in the order of their keys.
///
/// # Errors
/// A store that fails.
pub(super) async fn every(store: &dyn Store, kind: &'static str) -> Result<Vec<Object>, StoreError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.objects(kind.into(), after.take(), PAGE).await?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|object| object.key.clone());
        found.extend(page);
        if is_last {
            return Ok(found);
        }
    }
}

/// A record from its bytes.
///
/// # Errors
/// [`StoreError::Corrupt`] for what cannot be read.
pub(super) fn decode<T: DeserializeOwned>(kind: &str, key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Corrupt(format!("the {kind} `{key}` cannot be read: {error}")))
}

impl<T> Record<T> {
    /// The same record with its value read as something else.
    ///
    /// # Errors
    /// What the reading says.
    pub(super) fn try_map<U, E>(self, read: impl FnOnce(&T) -> Result<U, E>) -> Result<Record<U>, E> {
        let Self { kind, key, revision, read_at, value } = self;
        Ok(Record { value: value.as_ref().map(read).transpose()?, kind, key, revision, read_at })
    }

    /// Whether it may be acted on.
    pub(super) fn is_fresh(&self, core: &Core) -> bool {
        core.parts.clock.now().since_ms(self.read_at) <= FRESH_MS
    }

    /// Replaces it, when nobody else has meanwhile. False when somebody has.
    ///
    /// # Errors
    /// A store that fails.
    pub(super) async fn put<V: Serialize>(&self, core: &Core, value: &V) -> Result<bool, StoreError> {
        if !self.is_fresh(core) {
            return Ok(false);
        }
        let bytes = serde_json::to_vec(value).map_err(|error| StoreError::Invalid(error.to_string()))?;
        put(&*core.parts.store, self.kind, &self.key, self.revision, Some(bytes)).await
    }

    /// Removes it, when nobody else has changed it meanwhile.
    ///
    /// # Errors
    /// A store that fails.
    pub(super) async fn remove(&self, core: &Core) -> Result<bool, StoreError> {
        if self.revision == 0 || !self.is_fresh(core) {
            return Ok(false);
        }
        put(&*core.parts.store, self.kind, &self.key, self.revision, None).await
    }
}

/// Writes or removes an object that is as expected. False when it is not.
pub(super) async fn put(
    store: &dyn Store,
    kind: &'static str,
    key: &Name,
    expected: u64,
    bytes: Option<Vec<u8>>,
) -> Result<bool, StoreError> {
    store.put_object(Put { kind: kind.into(), key: key.clone(), expected, bytes }).await
}
