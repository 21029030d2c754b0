//! What is stored as JSON below its packing: audit rows, segments, acts and waits, the same in every store.

use windlass_core::audit::{Act, Chain, Row};
use windlass_core::effect::WaitKind;
use windlass_core::run::Start;
use windlass_core::seal::Segment;
use windlass_ports::store::{Head, StoreError};

use crate::cipher::{Cipher, Place};

fn damaged(what: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read: {error}"))
}

/// A segment as stored.
pub(crate) fn segment_of(cipher: &Cipher, tenant: &str, number: i64, stored: &[u8]) -> Result<Segment, StoreError> {
    serde_json::from_slice(&cipher.unpack(Place::Segment { tenant, number }, stored)?)
        .map_err(|error| damaged("a segment of the audit trail", &error))
}

/// An act as stored.
pub(crate) fn act_of(cipher: &Cipher, tenant: &str, number: i64, stored: &[u8]) -> Result<Act, StoreError> {
    serde_json::from_slice(&cipher.unpack(Place::Act { tenant, number }, stored)?)
        .map_err(|error| damaged("an act of the audit trail", &error))
}

/// Audit rows as stored.
pub(crate) fn rows_of(cipher: &Cipher, place: Place<'_>, stored: &[u8]) -> Result<Vec<Row>, StoreError> {
    serde_json::from_slice(&cipher.unpack(place, stored)?).map_err(|error| damaged("audit rows", &error))
}

/// The chain after the stored audit rows of a decision.
pub(crate) fn chain_of(cipher: &Cipher, place: Place<'_>, stored: &[u8]) -> Result<Chain, StoreError> {
    let rows = rows_of(cipher, place, stored)?;
    Ok(rows.last().map_or_else(Chain::default, |row| Chain { rows: row.number, head: row.hash() }))
}

/// What a wait is for, as stored.
pub(crate) fn wait_of(cipher: &Cipher, run: &str, effect: i64, stored: &[u8]) -> Result<WaitKind, StoreError> {
    let text = cipher.decrypt(Place::Wait { run, effect }, stored)?;
    serde_json::from_slice(&text).map_err(|error| damaged("a wait", &error))
}

/// A run's row is not encrypted, and its start is: what both say is the same.
pub(crate) fn check_tenant(head: &Head, start: &Start) -> Result<(), StoreError> {
    if head.tenant != start.scope.tenant {
        let (run, tenant, other) = (&head.id, &head.tenant, &start.scope.tenant);
        return Err(StoreError::Corrupt(format!("run `{run}` is of tenant `{other}`, and its row says `{tenant}`")));
    }
    Ok(())
}

/// The error, with the audit row after which it comes.
pub(crate) fn after(last: Option<&Row>, error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt(text) => {
            StoreError::Corrupt(format!("after audit row {}: {text}", last.map_or(0, |row| row.number)))
        }
        other => other,
    }
}
