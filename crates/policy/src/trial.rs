//! How a candidate does: what it and the set in force said to the same questions, counted over all processes of a store, and
//! when it is withdrawn for it.

use serde::{Deserialize, Serialize};
use windlass_core::ids::{Name, RunId};
use windlass_core::policy::{Answer, Verdict};
use windlass_core::run::Run;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Put, Store, StoreError};

use crate::candidate::CandidateConfig;

/// The kind of the objects, one for each candidate, under its version.
pub const TRIALS: &str = "policy_trial";
/// How often a change is tried that others come before.
const TRIES_MAX: u32 = 100;

/// What both sets were asked, and how they answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Questions that decisions used and that both were asked.
    pub decisions: u64,
    /// Of these, with different answers.
    pub differ: u64,
    /// Of these, denied by the candidate.
    pub denied: u64,
    /// Of these, denied by the set in force.
    pub denied_in_force: u64,
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            decisions: self.decisions.saturating_add(other.decisions),
            differ: self.differ.saturating_add(other.differ),
            denied: self.denied.saturating_add(other.denied),
            denied_in_force: self.denied_in_force.saturating_add(other.denied_in_force),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            decisions: self.decisions.saturating_sub(other.decisions),
            differ: self.differ.saturating_sub(other.differ),
            denied: self.denied.saturating_sub(other.denied),
            denied_in_force: self.denied_in_force.saturating_sub(other.denied_in_force),
        }
    }

    /// The answers of decisions that asked `candidate` too.
    pub fn of(candidate: &str, verdicts: &[Verdict]) -> Self {
        let mut counts = Self::default();
        for verdict in verdicts {
            if verdict.choice.as_ref().is_none_or(|choice| &*choice.candidate != candidate) {
                continue;
            }
            let Some((in_force, candidate)) = verdict.sides() else { continue };
            counts.decisions += 1;
            counts.differ += u64::from(in_force.answer != candidate.answer);
            counts.denied += u64::from(candidate.answer == Answer::Deny);
            counts.denied_in_force += u64::from(in_force.answer == Answer::Deny);
        }
        counts
    }

    /// Why a candidate is withdrawn that did so, when it is.
    #[must_use]
    pub fn breach(&self, config: &CandidateConfig) -> Option<String> {
        let apart = u128::from(self.denied.abs_diff(self.denied_in_force)) * 100;
        if self.decisions < config.decisions_min.max(1)
            || apart <= u128::from(config.differ_max) * u128::from(self.decisions)
        {
            return None;
        }
        Some(format!(
            "it denied {} of {} questions and the set in force {}, which is more than {} percentage points apart",
            self.denied, self.decisions, self.denied_in_force, config.differ_max
        ))
    }
}

/// That a candidate no longer judges and is no longer asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// When.
    pub at: Timestamp,
    /// Who: a person, or the process that found that it differs too much.
    pub by: Name,
    /// Why.
    pub reason: String,
    /// Whether it was found by counting.
    pub by_itself: bool,
    /// A run of the last decisions that were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<LastRun>,
    /// Whether it was written down and told, when it was found by counting.
    #[serde(default)]
    pub told: bool,
}

/// A run of the decisions that were counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// The run.
    pub id: RunId,
    /// The run that a caller started.
    pub root: RunId,
    /// Its tenant.
    pub tenant: Name,
    /// Name of its machine.
    pub machine: Name,
    /// The state it was in.
    pub state: Option<Name>,
}

impl LastRun {
    pub(crate) fn of(run: &Run) -> Self {
        Self {
            id: run.id().clone(),
            root: run.start.root.clone(),
            tenant: run.start.scope.tenant.clone(),
            machine: run.start.machine_name.clone(),
            state: run.state.clone(),
        }
    }
}

/// How a candidate does, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// What was counted since it was tried first, or again.
    #[serde(default)]
    pub counts: Counts,
    /// Set while it is withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Withdrawn>,
}

/// What a process knows of the trial of one candidate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// As last read.
    stored: Trial,
    /// Counted here and not stored yet.
    own: Counts,
    /// The last run of what was counted here.
    last: Option<LastRun>,
    /// Withdrawn here, which is not stored yet.
    pending: Option<String>,
}

impl Ledger {
    /// Whether the candidate may be asked.
    pub(crate) fn is_open(&self) -> bool {
        self.pending.is_none() && self.stored.withdrawn.is_none()
    }

    /// Counts answers. True when the candidate is withdrawn for them.
    pub(crate) fn count(&mut self, config: &CandidateConfig, counts: Counts, run: &Run) -> bool {
        self.own = self.own.plus(counts);
        self.last = Some(LastRun::of(run));
        if !self.is_open() {
            return false;
        }
        self.pending = self.stored.counts.plus(self.own).breach(config);
        self.pending.is_some()
    }

    /// What there is to store.
    pub(crate) fn draft(&self) -> Draft {
        Draft { own: self.own, pending: self.pending.clone(), last: self.last.clone() }
    }

    /// Takes over what is stored by now, with this draft in it.
    pub(crate) fn stored(&mut self, draft: &Draft, trial: Trial) {
        self.own = self.own.minus(draft.own);
        if self.pending == draft.pending {
            self.pending = None;
        }
        self.stored = trial;
    }
}

/// What a process adds to a trial.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    own: Counts,
    pending: Option<String>,
    last: Option<LastRun>,
}

impl Draft {
    fn is_empty(&self) -> bool {
        self.own == Counts::default() && self.pending.is_none()
    }

    /// Adds it to what is stored of the trial of `candidate`.
    pub(crate) async fn store(
        &self,
        store: &dyn Store,
        (candidate, config): (&Name, &CandidateConfig),
        (by, at): (&Name, Timestamp),
    ) -> Result<Trial, StoreError> {
        let add = |trial: &mut Trial| {
            trial.counts = trial.counts.plus(self.own);
            let why = trial.counts.breach(config).or_else(|| self.pending.clone());
            if trial.withdrawn.is_none()
                && let Some(reason) = why
            {
                let (by, run) = (by.clone(), self.last.clone());
                trial.withdrawn = Some(Withdrawn { at, by, reason, by_itself: true, run, told: false });
            }
        };
        match self.is_empty() {
            true => read(store, candidate).await,
            false => change(store, candidate, add).await,
        }
    }
}

/// How a candidate does, over all processes of a store.
///
/// # Errors
/// The store fails, or holds what is no trial.
pub async fn read(store: &dyn Store, candidate: &Name) -> Result<Trial, StoreError> {
    let found = store.object(TRIALS.into(), candidate.clone()).await?;
    found.map_or_else(|| Ok(Trial::default()), |object| decode(candidate, &object.bytes))
}

/// Withdraws a candidate. Gives back what it was before.
///
/// # Errors
/// The store fails, or others change it all the time.
pub async fn withdraw(
    store: &dyn Store,
    candidate: &Name,
    by: Name,
    reason: String,
    at: Timestamp,
) -> Result<Trial, StoreError> {
    let withdrawn = Withdrawn { at, by, reason, by_itself: false, run: None, told: true };
    change(store, candidate, |trial| {
        trial.withdrawn.get_or_insert_with(|| withdrawn.clone());
    })
    .await
}

/// Tries a candidate again that was withdrawn: everything is counted anew.
///
/// # Errors
/// The store fails, or others change it all the time.
pub async fn resume(store: &dyn Store, candidate: &Name) -> Result<Trial, StoreError> {
    change(store, candidate, |trial| *trial = Trial::default()).await
}

/// Notes that it was written down and told that a candidate was withdrawn.
///
/// # Errors
/// The store fails, or others change it all the time.
pub async fn told(store: &dyn Store, candidate: &Name) -> Result<Trial, StoreError> {
    change(store, candidate, |trial| {
        if let Some(withdrawn) = &mut trial.withdrawn {
            withdrawn.told = true;
        }
    })
    .await
}

async fn change(store: &dyn Store, candidate: &Name, with: impl Fn(&mut Trial)) -> Result<Trial, StoreError> {
    for _ in 0..TRIES_MAX {
        let found = store.object(TRIALS.into(), candidate.clone()).await?;
        let (expected, before) = match &found {
            Some(object) => (object.revision, decode(candidate, &object.bytes)?),
            None => (0, Trial::default()),
        };
        let mut trial = before.clone();
        with(&mut trial);
        if trial == before {
            return Ok(trial);
        }
        let bytes = serde_json::to_vec(&trial).map_err(|error| StoreError::Invalid(error.to_string()))?;
        let put = Put { kind: TRIALS.into(), key: candidate.clone(), expected, bytes: Some(bytes) };
        if store.put_object(put).await? {
            return Ok(trial);
        }
    }
    Err(StoreError::Unavailable(format!("the trial of the candidate `{candidate}` is changed by others all the time")))
}

fn decode(candidate: &str, bytes: &[u8]) -> Result<Trial, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| {
        StoreError::Corrupt(format!("the trial of the candidate `{candidate}` cannot be read: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_withdrawn_when_its_denials_differ_over_enough_questions() {
        let config = CandidateConfig { differ_max: 5, decisions_min: 100, ..CandidateConfig::default() };
        let counts = |decisions, denied, denied_in_force| Counts { decisions, differ: 0, denied, denied_in_force };
        for (given, is_withdrawn) in [
            (counts(99, 99, 0), false),
            (counts(100, 5, 0), false),
            (counts(100, 6, 0), true),
            (counts(100, 0, 6), true),
            (counts(1_000, 450, 400), false),
            (counts(1_000, 451, 400), true),
            (counts(u64::MAX, u64::MAX, 0), true),
        ] {
            assert_eq!(given.breach(&config).is_some(), is_withdrawn, "{given:?}");
        }
        let never = CandidateConfig { differ_max: 100, ..config };
        assert_eq!(counts(1_000, 1_000, 0).breach(&never), None);
    }
}
