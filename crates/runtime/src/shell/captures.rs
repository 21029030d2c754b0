//! Debug captures in a store: asked for, ended, read and removed. One object for each, and one for each call they took.

use windlass_core::ids::{Name, RunId};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Object, Store, StoreError};

use super::objects::{self, TRIES_MAX, put};
use crate::capture::{Capture, Captured, ON_MAX};

/// The kind of the objects that are captures.
const CAPTURES: &str = "debug_capture";
/// The kind of the objects that are calls which captures took.
pub(super) const CAPTURED: &str = "debug_captured";
/// Objects read at a time.
const PAGE: usize = 200;

/// Every capture of which anything is left, by name.
///
/// # Errors
/// The store fails.
pub async fn captures(store: &dyn Store) -> Result<Vec<Capture>, StoreError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.objects(CAPTURES.into(), after.take(), PAGE).await?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|object| object.key.clone());
        for object in &page {
            found.push(objects::decode("debug capture", &object.key, &object.bytes)?);
        }
        if is_last {
            return Ok(found);
        }
    }
}

/// Asks for a capture: every worker of the store follows within seconds.
///
/// # Errors
/// The store fails; [`StoreError::Invalid`] when too many are on, or there is one of its name.
pub async fn start(store: &dyn Store, capture: &Capture) -> Result<(), StoreError> {
    forget_expired(store, capture.at).await?;
    let on = captures(store).await?.iter().filter(|one| one.is_on(capture.at)).count();
    if on >= ON_MAX {
        return Err(StoreError::Invalid(format!("{on} captures are on, which is all that may be")));
    }
    if put(store, CAPTURES, &capture.id, 0, Some(encoded(capture)?)).await? {
        return Ok(());
    }
    Err(StoreError::Invalid(format!("there is a capture `{}`", capture.id)))
}

/// Ends a capture; what it took stays until its time. None when there is none of this name.
///
/// # Errors
/// The store fails, or others change it all the time.
pub async fn stop(store: &dyn Store, id: &Name, now: Timestamp) -> Result<Option<Capture>, StoreError> {
    for _ in 0..TRIES_MAX {
        let Some(Object { bytes, revision, .. }) = store.object(CAPTURES.into(), id.clone()).await? else {
            return Ok(None);
        };
        let mut capture: Capture = objects::decode("debug capture", id, &bytes)?;
        if !capture.is_on(now) {
            return Ok(Some(capture));
        }
        capture.until = now;
        if put(store, CAPTURES, id, revision, Some(encoded(&capture)?)).await? {
            return Ok(Some(capture));
        }
    }
    Err(StoreError::Unavailable(format!("the debug capture `{id}` is changed by others all the time")))
}

/// Keeps a call under the first number from `number` on that nobody has, below the bound of its capture. Gives the number
/// back; none when the capture has all that it may, has ended, or is gone.
///
/// # Errors
/// The store fails.
pub async fn keep(
    store: &dyn Store,
    captured: &Captured,
    mut number: u32,
    calls_max: u32,
) -> Result<Option<u32>, StoreError> {
    let bytes = encoded(captured)?;
    if !takes(store, captured).await? {
        return Ok(None);
    }
    while number < calls_max {
        let key = key(&captured.capture, number);
        if put(store, CAPTURED, &key, 0, Some(bytes.clone())).await? {
            if takes(store, captured).await? {
                return Ok(Some(number));
            }
            // It was removed in between, and whoever did that may not have seen this.
            if let Some(object) = store.object(CAPTURED.into(), key.clone()).await? {
                put(store, CAPTURED, &key, object.revision, None).await?;
            }
            return Ok(None);
        }
        number += 1;
    }
    Ok(None)
}

/// Whether the capture of a call is there and on.
async fn takes(store: &dyn Store, captured: &Captured) -> Result<bool, StoreError> {
    let Some(object) = store.object(CAPTURES.into(), captured.capture.clone()).await? else { return Ok(false) };
    let capture: Capture = objects::decode("debug capture", &captured.capture, &object.bytes)?;
    Ok(capture.is_on(captured.at))
}

/// Calls that a capture took, after a number of them, in the order in which they ended.
///
/// # Errors
/// The store fails.
pub async fn captured(store: &dyn Store, id: &Name, after: u32, limit: usize) -> Result<Vec<Captured>, StoreError> {
    let after = if after == 0 { format!("{id}/").into() } else { key(id, after - 1) };
    let page = of(store, id, after, limit).await?;
    page.iter().map(|object| objects::decode("captured call", &object.key, &object.bytes)).collect()
}

/// Objects of calls that a capture took, after a key.
async fn of(store: &dyn Store, id: &Name, after: Name, limit: usize) -> Result<Vec<Object>, StoreError> {
    let mut page = store.objects(CAPTURED.into(), Some(after), limit).await?;
    let prefix = format!("{id}/");
    page.retain(|object| object.key.starts_with(&prefix));
    Ok(page)
}

/// Removes a capture and everything it took. False when there is none of this name.
///
/// # Errors
/// The store fails.
pub async fn forget(store: &dyn Store, capture: &Name) -> Result<bool, StoreError> {
    forget_calls(store, capture).await?;
    // After them, so that whoever is stopped in between leaves what says that there is more.
    let is_gone = match store.object(CAPTURES.into(), capture.clone()).await? {
        Some(object) => put(store, CAPTURES, capture, object.revision, None).await?,
        None => false,
    };
    // What a worker kept in between.
    forget_calls(store, capture).await?;
    Ok(is_gone)
}

async fn forget_calls(store: &dyn Store, capture: &Name) -> Result<(), StoreError> {
    loop {
        let page = of(store, capture, format!("{capture}/").into(), PAGE).await?;
        if page.is_empty() {
            return Ok(());
        }
        for object in page {
            put(store, CAPTURED, &object.key, object.revision, None).await?;
        }
    }
}

/// Removes captures whose time is over. Gives back how many.
///
/// # Errors
/// The store fails.
pub async fn forget_expired(store: &dyn Store, now: Timestamp) -> Result<u64, StoreError> {
    let mut gone = 0;
    for capture in captures(store).await?.into_iter().filter(|capture| capture.is_expired(now)) {
        gone += u64::from(forget(store, &capture.id).await?);
    }
    Ok(gone)
}

/// Whose a captured call is.
pub(super) fn owner(value: &serde_json::Value) -> Option<(Name, RunId)> {
    Some((value["tenant"].as_str()?.into(), RunId::stored(value["run"].as_str()?)))
}

fn key(capture: &str, number: u32) -> Name {
    format!("{capture}/{number:06}").into()
}

fn encoded<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Invalid(error.to_string()))
}
