//! Notices that no one run is the cause of: stored by whoever finds the cause, sent as those that are derived from runs.

use windlass_core::time::Timestamp;
use windlass_ports::notify::Notice;
use windlass_ports::store::{Put, Store, StoreError};

use super::objects::decode;

/// The kind of their objects.
pub const ALARMS: &str = "alarm";
/// How long one is kept, in milliseconds: longer than a notice is tried.
const KEPT_MS: u64 = 7 * 86_400_000;
/// Objects that are read at a time.
const PAGE: usize = 200;

/// Has people told of something. Durable when it returns; the same notice again changes nothing.
///
/// # Errors
/// The store fails.
pub async fn alarm(store: &dyn Store, notice: &Notice) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(notice).map_err(|error| StoreError::Invalid(error.to_string()))?;
    let put = Put { kind: ALARMS.into(), key: notice.id.clone(), expected: 0, bytes: Some(bytes) };
    // Where it is there already, nothing is put.
    store.put_object(put).await.map(|_| ())
}

/// Everything that people are told, without what is too old, which is removed.
///
/// # Errors
/// The store fails.
pub(super) async fn all(store: &dyn Store, now: Timestamp) -> Result<Vec<Notice>, StoreError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let objects = store.objects(ALARMS.into(), after, PAGE).await?;
        let is_last = objects.len() < PAGE;
        after = objects.last().map(|object| object.key.clone());
        for object in objects {
            match decode::<Notice>(ALARMS, &object.key, &object.bytes) {
                Ok(notice) if now.since_ms(Timestamp(notice.at_ms)) <= KEPT_MS => found.push(notice),
                Ok(_) => {
                    let put = Put { kind: ALARMS.into(), key: object.key, expected: object.revision, bytes: None };
                    store.put_object(put).await?;
                }
                Err(error) => tracing::error!(alarm = &*object.key, %error, "a notice cannot be read"),
            }
        }
        if is_last {
            return Ok(found);
        }
    }
}

/// Whether it is still stored. What cannot be read may be.
pub(super) async fn stands(store: &dyn Store, notice: &Notice) -> bool {
    store.object(ALARMS.into(), notice.id.clone()).await.map_or(true, |object| object.is_some())
}
