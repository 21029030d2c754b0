//! Trust scores of versions of agents: objects of the store that people change, and what a process last read of them.
//!
//! A score is about one version, the hash of an agent's resolved definition: another prompt or model is another version,
//! which nobody has a score for yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Put, Store, StoreError};

/// The kind of the objects.
pub const TRUST: &str = "trust";
/// The highest score.
pub const SCORE_MAX: u32 = 100;
/// Changes that are kept of one score.
const CHANGES_MAX: usize = 100;
/// How often a change is tried that others come before.
const TRIES_MAX: u32 = 100;
/// Scores that are read at a time.
const PAGE: usize = 500;
/// Digits of a version.
const VERSION_DIGITS: usize = 12;

/// One change of a score.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The new score, 0 to [`SCORE_MAX`].
    pub score: u32,
    /// Who.
    pub by: Name,
    /// Why.
    pub reason: Name,
    /// When.
    pub at: Timestamp,
}

/// The score of one version, as it was changed; the last is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Changes, oldest first; at least one.
    pub changes: Vec<Change>,
}

impl Score {
    /// The change in force.
    #[must_use]
    pub fn last(&self) -> Option<&Change> {
        self.changes.last()
    }
}

/// Scores by `AGENT@VERSION`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scores(BTreeMap<Name, u32>);

impl Scores {
    /// The score of a version of an agent.
    #[must_use]
    pub fn of(&self, agent: &str, version: &str) -> Option<u32> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(format!("{agent}@{version}").as_str()).copied()
    }
}

impl FromIterator<(Name, u32)> for Scores {
    fn from_iter<T: IntoIterator<Item = (Name, u32)>>(scores: T) -> Self {
        Self(scores.into_iter().collect())
    }
}

/// The scores that a process knows, shared by all who ask and by who reads them from the store.
#[derive(Clone, Debug, Default)]
pub struct TrustBook(Arc<ArcSwap<Scores>>);

impl TrustBook {
    /// The scores as last read.
    #[must_use]
    pub fn scores(&self) -> Arc<Scores> {
        self.0.load_full()
    }

    /// Reads the scores of a store. True when they are others than before.
    ///
    /// # Errors
    /// The store fails; what was read last stays in force.
    pub async fn refresh(&self, store: &dyn Store) -> Result<bool, StoreError> {
        let read: Scores =
            all(store).await?.into_iter().filter_map(|(key, score)| Some((key, score.last()?.score))).collect();
        if *self.scores() == read {
            return Ok(false);
        }
        self.0.store(Arc::new(read));
        Ok(true)
    }
}

/// Whether a text names a version of an agent: `AGENT@` and 12 digits of its hash.
#[must_use]
pub fn is_version(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(agent, version)| {
        !agent.is_empty()
            && version.len() == VERSION_DIGITS
            && version.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// Every score, by `AGENT@VERSION`.
///
/// # Errors
/// The store fails, or holds what is no score.
pub async fn all(store: &dyn Store) -> Result<BTreeMap<Name, Score>, StoreError> {
    let (mut found, mut after) = (BTreeMap::new(), None);
    loop {
        let objects = store.objects(TRUST.into(), after, PAGE).await?;
        let is_last = objects.len() < PAGE;
        after = objects.last().map(|object| object.key.clone());
        for object in objects {
            let score = decode(&object.key, &object.bytes)?;
            found.insert(object.key, score);
        }
        if is_last {
            return Ok(found);
        }
    }
}

/// Changes the score of a version of an agent. Gives back all its changes.
///
/// # Errors
/// The store fails, or others change it all the time.
pub async fn set(store: &dyn Store, agent: &str, change: Change) -> Result<Score, StoreError> {
    let key: Name = agent.into();
    for _ in 0..TRIES_MAX {
        let found = store.object(TRUST.into(), key.clone()).await?;
        let (expected, mut score) = match &found {
            Some(object) => (object.revision, decode(&key, &object.bytes)?),
            None => (0, Score::default()),
        };
        score.changes.push(change.clone());
        let surplus = score.changes.len().saturating_sub(CHANGES_MAX);
        score.changes.drain(..surplus);
        let bytes = serde_json::to_vec(&score).map_err(|error| StoreError::Invalid(error.to_string()))?;
        if store.put_object(Put { kind: TRUST.into(), key: key.clone(), expected, bytes: Some(bytes) }).await? {
            return Ok(score);
        }
    }
    Err(StoreError::Unavailable(format!("the trust score `{key}` is changed by others all the time")))
}

fn decode(key: &str, bytes: &[u8]) -> Result<Score, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Corrupt(format!("the trust score `{key}` cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_by_twelve_digits() {
        assert!(is_version("clerk@0123456789ab"));
        for wrong in ["clerk", "@0123456789ab", "clerk@0123", "clerk@0123456789AB", "clerk@0123456789abc"] {
            assert!(!is_version(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_score_is_of_one_version() {
        let scores: Scores = [("clerk@0123456789ab".into(), 80)].into_iter().collect();
        assert_eq!(scores.of("clerk", "0123456789ab"), Some(80));
        assert_eq!(scores.of("clerk", "ba9876543210"), None);
    }
}
