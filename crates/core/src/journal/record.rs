//! What one decision recorded, as it is stored.

use serde::{Deserialize, Serialize};

use super::Entry;

/// Version of the entry format that this build writes.
pub const FORMAT: u32 = 1;

/// What one decision recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the format.
    #[serde(rename = "v")]
    pub format: u32,
    /// The run's version after it: 1 for the first.
    pub version: u64,
    /// The entries, in order.
    pub entries: Vec<Entry>,
}

/// Why stored bytes are no record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer build.
    #[error("the record has format {found}, this build reads up to {FORMAT}")]
    Newer {
        /// The format found.
        found: u32,
    },
    /// Not a record at all.
    #[error("the record cannot be read")]
    Malformed(#[source] serde_json::Error),
}

impl Record {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Every type inside is plain data with text keys, for which serialisation cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// Bytes that are no record, or one of a newer build.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        #[derive(Deserialize)]
        struct Probe {
            v: u32,
        }
        match serde_json::from_slice::<Self>(bytes) {
            Ok(record) if record.format <= FORMAT => Ok(record),
            Ok(record) => Err(DecodeError::Newer { found: record.format }),
            Err(error) => match serde_json::from_slice::<Probe>(bytes) {
                Ok(probe) if probe.v > FORMAT => Err(DecodeError::Newer { found: probe.v }),
                _ => Err(DecodeError::Malformed(error)),
            },
        }
    }
}
