//! Audit rows: two for each call, `intended` before and `settled` after, chained by hash within a run.
//!
//! Rows are derived from entries and written in the same transaction, so they cannot tell another story. What people do
//! beside runs has rows of its own, chained per tenant.

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
    /// `model`, `tool`, `hook`, `action`, `verify`; `transition` for a question about one.
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

/// Something that a person or a process did to runs, rules or the store, or an attempt at it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// Number within the tenant, from 1.
    pub number: u64,
    /// When, by the clock of whoever did it.
    pub at: Timestamp,
    /// Who: the name given, else the user of the operating system.
    pub actor: Name,
    /// What, as `noun.verb`: `run.cancel`, `tenant.erase`, `policy.load`.
    pub action: Name,
    /// To what: a run, a tenant, a file's name.
    pub subject: Name,
    /// More about it, such as a reason or a hash. No body of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Name>,
    /// Hash of the row before.
    pub previous: Digest,
}

impl Act {
    /// The hash of this row: over every field, each text with its length before it.
    #[must_use]
    pub fn hash(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[3]);
        for number in [self.number, self.at.0] {
            hasher.update(&number.to_le_bytes());
        }
        let detail = self.detail.as_deref().unwrap_or_default();
        for part in [&*self.actor, &*self.action, &*self.subject, detail] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&self.previous.0);
        Digest(*hasher.finalize().as_bytes())
    }
}

/// What a check of a chain found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A row is not the next one.
    #[error("row {expected} is missing, row {found} comes next")]
    Gap {
        /// The number that was to come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// A row does not follow the one before, which was another one when it was written.
    #[error("row {0} does not follow the row before it, which is not what was written")]
    Order(u64),
}

impl Chain {
    /// The chain with one row more.
    ///
    /// # Errors
    /// The row is not the next one.
    pub fn then(self, number: u64, previous: Digest, hash: Digest) -> Result<Self, Broken> {
        if number != self.rows + 1 {
            return Err(Broken::Gap { expected: self.rows + 1, found: number });
        }
        if previous != self.head {
            return Err(Broken::Order(number));
        }
        Ok(Self { rows: number, head: hash })
    }
}
