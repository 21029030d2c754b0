//! Evidence as it is stored: one object for each version of an agent, changed by whoever read it last; and the scores that are
//! set by it.

use std::collections::BTreeMap;

use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Put, Store, StoreError};

use super::{Counts, Evidence, Incident, TrustConfig, reckon};
use crate::trust::{self, Change};

/// The kind of the objects.
pub const EVIDENCE: &str = "trust_evidence";
/// Who scores are set by that are computed.
pub const COMPUTED_BY: &str = "evidence";
/// How often a change is tried that others come before.
const TRIES_MAX: u32 = 100;
/// Objects that are read at a time.
const PAGE: usize = 200;

/// A score that was set by evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computed {
    /// `AGENT@VERSION`.
    pub agent: Name,
    /// The score before, when there was one.
    pub before: Option<u32>,
    /// The score from here on.
    pub after: u32,
    /// What gave it.
    pub cause: String,
}

/// The evidence about a version of an agent; none is empty.
///
/// # Errors
/// The store fails, or holds what is no evidence.
pub async fn read(store: &dyn Store, agent: &Name) -> Result<Evidence, StoreError> {
    let found = store.object(EVIDENCE.into(), agent.clone()).await?;
    found.map_or_else(|| Ok(Evidence::default()), |object| decode(agent, &object.bytes))
}

/// All evidence, by `AGENT@VERSION`.
///
/// # Errors
/// The store fails, or holds what is no evidence.
pub async fn all(store: &dyn Store) -> Result<BTreeMap<Name, Evidence>, StoreError> {
    let (mut found, mut after) = (BTreeMap::new(), None);
    loop {
        let objects = store.objects(EVIDENCE.into(), after, PAGE).await?;
        let is_last = objects.len() < PAGE;
        after = objects.last().map(|object| object.key.clone());
        for object in objects {
            let evidence = decode(&object.key, &object.bytes)?;
            found.insert(object.key, evidence);
        }
        if is_last {
            return Ok(found);
        }
    }
}

/// Adds counts of now to the evidence about a version of an agent.
///
/// # Errors
/// The store fails, or others change it all the time.
pub async fn add(store: &dyn Store, agent: &Name, counts: &Counts, now: Timestamp) -> Result<(), StoreError> {
    change(store, agent, |evidence| evidence.count(counts, now)).await
}

/// Adds an incident to the evidence about a version of an agent.
///
/// # Errors
/// The store fails, or others change it all the time.
pub async fn report(store: &dyn Store, agent: &Name, incident: &Incident) -> Result<(), StoreError> {
    change(store, agent, |evidence| evidence.report(incident.clone())).await
}

/// Sets the scores of these versions of agents by what is known of them. A score that a person set stays. One whose evidence has
/// become too little is 0.
///
/// # Errors
/// The store fails, or others change a score all the time.
pub async fn compute(
    store: &dyn Store,
    agents: &BTreeMap<Name, Evidence>,
    config: &TrustConfig,
    now: Timestamp,
) -> Result<Vec<Computed>, StoreError> {
    let mut changed = Vec::new();
    for (agent, evidence) in agents {
        let reckoning = reckon(evidence, config, now);
        let cause = reckoning.cause();
        let mut before = None;
        let next = |last: Option<&Change>| {
            before = last.map(|last| last.score);
            let is_by_hand = last.is_some_and(|last| !last.computed);
            let score = match (reckoning.score, before) {
                _ if is_by_hand => return None,
                (None, None) => return None,
                (score, before) if score.unwrap_or_default() == before.unwrap_or(u32::MAX) => return None,
                (score, _) => score.unwrap_or_default(),
            };
            let (by, reason) = (COMPUTED_BY.into(), cause.as_str().into());
            Some(Change { score, by, reason, at: now, computed: true })
        };
        if let Some(after) = trust::change(store, agent, next).await? {
            changed.push(Computed { agent: agent.clone(), before, after: after.score, cause: cause.clone() });
        }
    }
    Ok(changed)
}

async fn change(store: &dyn Store, agent: &Name, with: impl Fn(&mut Evidence)) -> Result<(), StoreError> {
    for _ in 0..TRIES_MAX {
        let found = store.object(EVIDENCE.into(), agent.clone()).await?;
        let (expected, mut evidence) = match &found {
            Some(object) => (object.revision, decode(agent, &object.bytes)?),
            None => (0, Evidence::default()),
        };
        with(&mut evidence);
        let bytes = serde_json::to_vec(&evidence).map_err(|error| StoreError::Invalid(error.to_string()))?;
        let put = Put { kind: EVIDENCE.into(), key: agent.clone(), expected, bytes: Some(bytes) };
        if store.put_object(put).await? {
            return Ok(());
        }
    }
    Err(StoreError::Unavailable(format!("the evidence about `{agent}` is changed by others all the time")))
}

fn decode(agent: &str, bytes: &[u8]) -> Result<Evidence, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Corrupt(format!("the evidence about `{agent}` cannot be read: {error}")))
}
