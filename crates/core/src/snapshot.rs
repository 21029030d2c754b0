//! The stored form of a run, to shorten replay.

use serde::{Deserialize, Serialize};

use crate::journal::DecodeError;
use crate::run::Run;

/// Version of the snapshot format that this build writes.
pub const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Out<'a> {
    v: u32,
    run: &'a Run,
}

#[derive(Deserialize)]
struct In {
    v: u32,
    run: Run,
}

/// The stored form: equal runs have equal bytes.
#[must_use]
pub fn encode(run: &Run) -> Vec<u8> {
    serde_json::to_vec(&Out { v: FORMAT, run }).unwrap_or_default()
}

/// Reads the stored form.
///
/// # Errors
/// Bytes that are no snapshot, or one of a newer build.
pub fn decode(bytes: &[u8]) -> Result<Run, DecodeError> {
    #[derive(Deserialize)]
    struct Probe {
        v: u32,
    }
    match serde_json::from_slice::<In>(bytes) {
        Ok(stored) if stored.v <= FORMAT => Ok(stored.run),
        Ok(stored) => Err(DecodeError::Newer { found: stored.v }),
        Err(error) => match serde_json::from_slice::<Probe>(bytes) {
            Ok(probe) if probe.v > FORMAT => Err(DecodeError::Newer { found: probe.v }),
            _ => Err(DecodeError::Malformed(error)),
        },
    }
}
