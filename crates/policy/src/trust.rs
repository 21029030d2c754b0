//! Trust scores of versions of agents: objects of the store that people and evidence change, and what a process last read of them.
//!
//! A score is about one version, the hash of an agent's resolved definition: another prompt or model is another version,
//! which nobody has a score for yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use windlass_core::ids::{Digest, Name};
use windlass_core::journal::Entry;
use windlass_core::machine::Machine;
use windlass_core::run::Run;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Put, Store, StoreError};

use crate::evidence::{self, Counts, Versions};

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
/// Machines whose agents a process knows for counting; more are looked up again.
const MACHINES_MAX: usize = 1_000;
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
    /// Whether evidence gave it. A score that a person set stays until a person changes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub computed: bool,
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

/// The scores that a process knows, shared by all who ask and by who reads them from the store; and the evidence that it
/// counts.
#[derive(Clone, Debug, Default)]
pub struct TrustBook {
    scores: Arc<ArcSwap<Scores>>,
    /// What was counted and is not stored yet; none where nothing is.
    counted: Option<Arc<Mutex<Counted>>>,
    /// Held while what was counted is stored: whoever comes last finds all of it stored.
    storing: Arc<futures::lock::Mutex<()>>,
}

/// Evidence that a process counted.
#[derive(Debug, Default)]
struct Counted {
    /// By `AGENT@VERSION`.
    agents: BTreeMap<Name, Counts>,
    /// The agents of machines whose runs asked, by bundle and key.
    versions: BTreeMap<(Digest, Name), Versions>,
}

impl TrustBook {
    /// One that counts evidence.
    #[must_use]
    pub fn counting() -> Self {
        Self { counted: Some(Arc::default()), ..Self::default() }
    }

    /// The scores as last read.
    #[must_use]
    pub fn scores(&self) -> Arc<Scores> {
        self.scores.load_full()
    }

    fn counted(&self) -> Option<MutexGuard<'_, Counted>> {
        self.counted.as_ref().map(|counted| counted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes the versions of the agents of a machine whose run asks.
    pub(crate) fn know(&self, machine: &Machine) {
        let Some(mut counted) = self.counted() else { return };
        let key = (machine.bundle, machine.key.clone());
        if counted.versions.contains_key(&key) {
            return;
        }
        if counted.versions.len() >= MACHINES_MAX {
            counted.versions.clear();
        }
        let version = |agent: &Name| {
            let known = machine.agents.get(agent)?;
            Some((agent.clone(), format!("{agent}@{}", known.hash.short()).into()))
        };
        let versions = machine.agents.keys().filter_map(version).collect();
        counted.versions.insert(key, versions);
    }

    /// Counts what a decision that is durable says about agents. The run is as it is after it.
    pub fn count(&self, run: &Run, entries: &[Entry]) {
        let Some(mut counted) = self.counted() else { return };
        let key = (run.start.bundle, run.start.machine.clone());
        let Some(versions) = counted.versions.get(&key) else { return };
        let observed = evidence::observed(run, versions, entries);
        observed.into_iter().for_each(|(agent, counts)| merge(&mut counted.agents, agent, counts));
    }

    /// Stores what was counted. Gives back the versions of agents that it is about.
    ///
    /// # Errors
    /// The store fails; what was not stored is stored the next time.
    pub async fn flush(&self, store: &dyn Store, now: Timestamp) -> Result<BTreeSet<Name>, StoreError> {
        let _alone = self.storing.lock().await;
        let mut left = self.counted().map(|mut counted| std::mem::take(&mut counted.agents)).unwrap_or_default();
        let mut stored = BTreeSet::new();
        while let Some((agent, counts)) = left.pop_first() {
            if let Err(error) = evidence::add(store, &agent, &counts, now).await {
                left.insert(agent, counts);
                if let Some(mut counted) = self.counted() {
                    left.into_iter().for_each(|(agent, counts)| merge(&mut counted.agents, agent, counts));
                }
                return Err(error);
            }
            stored.insert(agent);
        }
        Ok(stored)
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
        self.scores.store(Arc::new(read));
        Ok(true)
    }
}

fn merge(into: &mut BTreeMap<Name, Counts>, agent: Name, counts: Counts) {
    let known = into.entry(agent).or_default();
    for (kind, n) in counts {
        let count = known.entry(kind).or_default();
        *count = count.saturating_add(n);
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
    Ok(edit(store, agent, |_| Some(change.clone())).await?.0)
}

/// Changes the score of a version of an agent by what it was, or leaves it. Gives back the change that was made.
///
/// # Errors
/// As [`set`].
pub(crate) async fn change(
    store: &dyn Store,
    agent: &str,
    mut next: impl FnMut(Option<&Change>) -> Option<Change>,
) -> Result<Option<Change>, StoreError> {
    let (score, is_changed) = edit(store, agent, |score| next(score.last())).await?;
    Ok(score.last().filter(|_| is_changed).cloned())
}

async fn edit(
    store: &dyn Store,
    agent: &str,
    mut next: impl FnMut(&Score) -> Option<Change>,
) -> Result<(Score, bool), StoreError> {
    let key: Name = agent.into();
    for _ in 0..TRIES_MAX {
        let found = store.object(TRUST.into(), key.clone()).await?;
        let (expected, mut score) = match &found {
            Some(object) => (object.revision, decode(&key, &object.bytes)?),
            None => (0, Score::default()),
        };
        let Some(change) = next(&score) else { return Ok((score, false)) };
        score.changes.push(change);
        let surplus = score.changes.len().saturating_sub(CHANGES_MAX);
        score.changes.drain(..surplus);
        let bytes = serde_json::to_vec(&score).map_err(|error| StoreError::Invalid(error.to_string()))?;
        if store.put_object(Put { kind: TRUST.into(), key: key.clone(), expected, bytes: Some(bytes) }).await? {
            return Ok((score, true));
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
