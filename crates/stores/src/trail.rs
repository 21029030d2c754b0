//! The stored forms of the audit trail, the same in every store.

use windlass_core::audit::{Act, Chain, Row};
use windlass_core::seal::Segment;
use windlass_ports::store::StoreError;

use crate::pack::unpack;

fn damaged(what: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read: {error}"))
}

/// A segment as stored.
pub(crate) fn segment_of(packed: &[u8]) -> Result<Segment, StoreError> {
    serde_json::from_slice(&unpack(packed)?).map_err(|error| damaged("a segment of the audit trail", &error))
}

/// An act as stored.
pub(crate) fn act_of(packed: &[u8]) -> Result<Act, StoreError> {
    serde_json::from_slice(&unpack(packed)?).map_err(|error| damaged("an act of the audit trail", &error))
}

/// The chain after the packed audit rows of a decision.
pub(crate) fn chain_of(packed: &[u8]) -> Result<Chain, StoreError> {
    let rows: Vec<Row> = serde_json::from_slice(&unpack(packed)?).map_err(|error| damaged("audit rows", &error))?;
    Ok(rows.last().map_or_else(Chain::default, |row| Chain { rows: row.number, head: row.hash() }))
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
