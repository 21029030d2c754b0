//! Names of things: runs, effects, operations. Parsing checks; display is the stored form.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits;

/// A short shared text, used for names that are cloned often.
pub type Name = Arc<str>;

/// Separates a run's id from the step and ordinal of a child.
const CHILD_MARK: char = '~';

/// The id of a run: given by a caller, made by the engine, or derived from a parent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Name);

/// Why a text cannot be a run id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunIdError {
    /// No character at all.
    #[error("a run id must not be empty")]
    Empty,
    /// Longer than the bound.
    #[error("a run id has at most {} bytes", limits::RUN_ID_BYTES_MAX)]
    TooLong,
    /// A character outside the allowed set.
    #[error("a run id has letters, digits, `.`, `_` and `-` only, not `{0}`")]
    Character(char),
}

impl RunId {
    /// Checks an id that a caller chose.
    ///
    /// # Errors
    /// Empty, too long, or a character other than ASCII letters, digits, `.`, `_`, `-`.
    pub fn new(text: &str) -> Result<Self, RunIdError> {
        if text.is_empty() {
            return Err(RunIdError::Empty);
        }
        if text.len() > limits::RUN_ID_BYTES_MAX {
            return Err(RunIdError::TooLong);
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
            Some(bad) => Err(RunIdError::Character(bad)),
            None => Ok(Self(text.into())),
        }
    }

    /// Takes an id as stored, derived ids of children included, unchecked: an id that names nothing finds nothing.
    #[must_use]
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The id of the child that this run starts at `step` as its `ordinal`-th of that step. The same place gives the
    /// same id, so a repeated decision cannot start a second child.
    #[must_use]
    pub fn child(&self, step: u64, ordinal: u32) -> Self {
        Self(format!("{}{CHILD_MARK}{step}.{ordinal}", self.0).into())
    }

    /// Whether this is that run or one below it, by the ids that children are given.
    #[must_use]
    pub fn is_within(&self, tree: &Self) -> bool {
        let rest = self.0.strip_prefix(&*tree.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(CHILD_MARK))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for RunId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// An effect within its run: calls, children, waits and timers share one sequence that starts at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EffectId(pub u64);

impl EffectId {
    /// The text by which the world knows this effect: the idempotency key sent with a call.
    #[must_use]
    pub fn key(self, run: &RunId) -> String {
        format!("{run}#{}", self.0)
    }
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A BLAKE3 hash, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Bytes that are hashed at a time.
const PIECE_BYTES: usize = 64 * 1024;

impl Digest {
    /// The digest of all zeroes: the head of an empty chain.
    pub const ZERO: Self = Self([0; 32]);

    /// Hashes bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Hashes what is written piece by piece, without keeping it.
    pub(crate) fn of_written(write: impl FnOnce(&mut dyn std::io::Write)) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut pieces = std::io::BufWriter::with_capacity(PIECE_BYTES, &mut hasher);
        write(&mut pieces);
        drop(pieces);
        Self(*hasher.finalize().as_bytes())
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|h| Self(*h.as_bytes()))
    }

    /// The first 12 hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a 64-digit hexadecimal hash"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_checked_and_derived_ids_cannot_be_chosen() {
        let id = RunId::new("run-1").expect("valid");
        assert_eq!(id.child(3, 0).as_str(), "run-1~3.0");
        assert_eq!(RunId::new("run-1~3.0"), Err(RunIdError::Character('~')));
        assert_eq!(RunId::new(""), Err(RunIdError::Empty));
        assert_eq!(RunId::new(&"a".repeat(500)), Err(RunIdError::TooLong));
        assert_eq!(EffectId(7).key(&id), "run-1#7");
    }

    #[test]
    fn digests_read_back() {
        let d = Digest::of(b"abc");
        assert_eq!(Digest::parse(&d.to_string()), Some(d));
        assert_eq!(Digest::parse("zz"), None);
        assert_eq!(serde_json::from_str::<Digest>(&serde_json::to_string(&d).expect("json")).expect("json"), d);
    }
}
