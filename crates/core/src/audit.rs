//! Audit rows: two for each call, `intended` before and `settled` after, chained by hash within a run.
//!
//! Rows are derived from entries and written in the same transaction, so they cannot tell another story.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, EffectId, Name};
use crate::time::Timestamp;

/// The end of a run's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Rows so far.
    pub rows: u64,
    /// Hash of the last one.
    pub head: Digest,
}

impl Default for Chain {
    fn default() -> Self {
        Self { rows: 0, head: Digest::ZERO }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Number within the run, from 1.
    pub number: u64,
    /// The call.
    pub effect: EffectId,
    /// The attempt.
    pub attempt: u32,
    /// `intended`, `asked`, `approved`, `rejected`, `expired`, `settled`, `failed`, `lost`, `abandoned`.
    pub stage: Name,
    /// `model`, `tool`, `hook`, `action`, `verify`.
    pub kind: Name,
    /// Agent, tool, hook or action.
    pub target: Name,
    /// `read`, `write`, `danger`.
    pub class: Name,
    /// Hash of the arguments.
    pub arguments: Digest,
    /// Hash of the result, once settled; the failure's code when it failed; the rule that asked for an approval, or who
    /// answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Name>,
    /// When.
    pub at: Timestamp,
    /// Hash of the row before.
    pub previous: Digest,
}

impl Row {
    /// The hash of this row: over every field, in order, each ended by a line feed.
    #[must_use]
    pub fn hash(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let result = self.result.as_deref().unwrap_or_default();
        for part in [&self.stage as &str, &self.kind, &self.target, &self.class, result] {
            hasher.update(part.as_bytes());
            hasher.update(b"\n");
        }
        for number in [self.number, self.effect.0, u64::from(self.attempt), self.at.0] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&self.arguments.0);
        hasher.update(&self.previous.0);
        Digest(*hasher.finalize().as_bytes())
    }
}
