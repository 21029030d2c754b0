//! Rebuilds a run from what is stored: the latest snapshot, then every record after it.
//!
//! Also keeps count of what has come after the last snapshot, so that the next one is taken when it pays.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::ids::Digest;
use windlass_core::journal::{DecodeError, Record};
use windlass_core::limits::SNAPSHOT_ENTRIES_MAX;
use windlass_core::run::{Run, Start};
use windlass_core::{apply, snapshot};
use windlass_ports::store::JournalRow;

use crate::payload::{self, PayloadError};

/// Why stored bytes do not make a run.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// A record or snapshot that this build cannot read.
    #[error("version {version} of the run cannot be read: {source}")]
    Decode {
        /// The run's version after the record.
        version: u64,
        /// Why.
        source: DecodeError,
    },
    /// A record that is not complete.
    #[error("version {version} of the run is not complete: {source}")]
    Payload {
        /// The run's version after the record.
        version: u64,
        /// Why.
        source: PayloadError,
    },
    /// A record is missing.
    #[error("the journal goes from version {from} to {to}")]
    Gap {
        /// The version before.
        from: u64,
        /// The version after.
        to: u64,
    },
}

/// What has been committed since the last snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Entries.
    pub entries: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Bytes of the snapshot before them; 0 without one.
    pub snapshot_bytes: u64,
}

impl Tail {
    /// Counts a record.
    pub fn add(&mut self, entries: usize, bytes: usize) {
        self.entries = self.entries.saturating_add(entries as u64);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Whether a snapshot pays: enough entries, and at least as many bytes of them as the last snapshot had. So the
    /// snapshots of a run whose context is large do not outweigh its journal.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.entries >= SNAPSHOT_ENTRIES_MAX && self.bytes >= self.snapshot_bytes
    }

    /// A snapshot of so many bytes was taken.
    pub fn cut(&mut self, bytes: usize) {
        *self = Self { entries: 0, bytes: 0, snapshot_bytes: bytes as u64 };
    }
}

/// A run as it was after its last record.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The run.
    pub run: Run,
    /// What came after its last snapshot.
    pub tail: Tail,
}

/// Hashes of the blobs that these records need.
#[must_use]
pub fn references(records: &[JournalRow]) -> BTreeSet<Digest> {
    records.iter().flat_map(|row| row.blobs.iter().copied()).collect()
}

/// Folds `records` over `snapshot`, or over the blank run of `start`.
///
/// # Errors
/// Bytes that cannot be read, a missing blob, a gap between versions.
pub fn fold(
    start: Start,
    snapshot: Option<&[u8]>,
    records: &[JournalRow],
    blobs: &BTreeMap<Digest, Vec<u8>>,
) -> Result<Folded, FoldError> {
    let mut tail = Tail::default();
    let mut run = match snapshot {
        Some(bytes) => {
            tail.cut(bytes.len());
            snapshot::decode(bytes).map_err(|source| FoldError::Decode { version: 0, source })?
        }
        None => Run::blank(start),
    };
    for row in records {
        if row.version != run.version + 1 {
            return Err(FoldError::Gap { from: run.version, to: row.version });
        }
        let record = read(row, blobs)?;
        tail.add(record.entries.len(), row.bytes.len());
        for entry in &record.entries {
            let _ = apply(&mut run, entry);
        }
        if run.version != row.version {
            return Err(FoldError::Gap { from: run.version, to: row.version });
        }
    }
    Ok(Folded { run, tail })
}

/// The record of a journal row, large values in place.
///
/// # Errors
/// Bytes that cannot be read, or a missing blob.
pub fn read(row: &JournalRow, blobs: &BTreeMap<Digest, Vec<u8>>) -> Result<Record, FoldError> {
    let whole = payload::internalize(&row.bytes, &row.blobs, &|digest| blobs.get(digest).cloned())
        .map_err(|source| FoldError::Payload { version: row.version, source })?;
    Record::decode(&whole).map_err(|source| FoldError::Decode { version: row.version, source })
}

#[cfg(test)]
mod tests {

    use windlass_core::ids::RunId;
    use windlass_core::journal::{self, Entry};

    use windlass_core::time::Timestamp;
    use windlass_core::value::Value;

    use super::*;

    fn start() -> Start {
        let id = RunId::stored("r");
        Start::new(id, Digest::ZERO, "m".into(), "m".into(), Value::Null)
    }

    fn row(version: u64, entries: Vec<Entry>) -> (JournalRow, Vec<(Digest, Vec<u8>)>) {
        let record = Record { format: journal::FORMAT, version, entries };
        let external = payload::externalize(record.encode());
        let blobs = external.blobs.iter().map(|(d, _)| *d).collect();
        (JournalRow { version, bytes: external.bytes, blobs }, external.blobs)
    }

    fn decided(at: u64) -> Entry {
        Entry::Decided { at: Timestamp(at), input: "started".into(), by: None, basis: None, verdicts: Vec::new() }
    }

    #[test]
    fn large_values_come_back() {
        let text = "x".repeat(100_000);
        let set = vec![("big".into(), Value::str(text.as_str()))];
        let (first, blobs) = row(1, vec![decided(5), Entry::ContextChanged { set, removed: Vec::new() }]);
        assert!(!first.blobs.is_empty());
        let blobs = blobs.into_iter().collect();
        let folded = fold(start(), None, &[first], &blobs).expect("folds");
        assert_eq!(folded.run.context.get("big").and_then(Value::as_str), Some(&*text));
        assert_eq!((folded.run.version, folded.tail.entries), (1, 2));
    }

    #[test]
    fn a_gap_is_found() {
        let (first, _) = row(1, vec![decided(5)]);
        let (third, _) = row(3, vec![decided(6)]);
        let failed = fold(start(), None, &[first, third], &BTreeMap::new());
        assert!(matches!(failed, Err(FoldError::Gap { from: 1, to: 3 })));
    }

    #[test]
    fn a_snapshot_is_a_start() {
        let (first, _) = row(1, vec![decided(5)]);
        let (second, _) = row(2, vec![decided(6)]);
        let one = fold(start(), None, std::slice::from_ref(&first), &BTreeMap::new()).expect("folds");
        let bytes = snapshot::encode(&one.run);
        let whole = fold(start(), None, &[first, second.clone()], &BTreeMap::new()).expect("folds");
        let cut = fold(start(), Some(&bytes), &[second], &BTreeMap::new()).expect("folds");
        assert_eq!(snapshot::encode(&whole.run), snapshot::encode(&cut.run));
    }

    #[test]
    fn snapshots_of_large_runs_are_rarer() {
        let mut tail = Tail::default();
        tail.add(200, 1_000);
        assert!(tail.is_due());
        tail.cut(50_000);
        tail.add(200, 1_000);
        assert!(!tail.is_due());
        tail.add(1, 49_000);
        assert!(tail.is_due());
    }
}
