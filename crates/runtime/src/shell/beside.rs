//! What somebody has in a store beside runs: submissions that wait, run keys, what schedules start, what was captured, and
//! jobs of work pools. Finds it and removes it; whether it may go is decided by whoever asks.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use windlass_core::escrow::escaped;
use windlass_core::ids::{Name, RunId};
use windlass_ports::store::{Object, Put, Store, StoreError};

use super::captures::{self, CAPTURED};
use super::keys::{DEBOUNCED, SINGLE};
use super::schedules::{WORK, work_key};
use crate::schedule::{KIND, Schedule};

/// Objects read at a time.
const PAGE: usize = 200;

/// Whose it is to be.
#[derive(Clone, Debug)]
pub struct Owned {
    /// The tenant.
    pub tenant: Name,
    /// Only of this user; then also what only names runs that are theirs.
    pub user: Option<Name>,
    /// Only what belongs to `runs`.
    pub only_runs: bool,
    /// Their runs.
    pub runs: BTreeSet<RunId>,
}

/// What something beside runs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A schedule that starts runs.
    Schedule,
    /// What is left of a removed schedule.
    RemovedSchedule,
    /// What a schedule starts: documents and input.
    Work,
    /// A submission that waits for the last word, or the place of one.
    Submission,
    /// Who has a run key.
    Key,
    /// What a call said, that a debug capture took.
    Captured,
    /// A job of a work pool, whatever became of it.
    Job,
    /// Which job a call has pushed or claimed.
    JobNote,
    /// A worker machine of work pools.
    PoolWorker,
    /// That there is a work pool.
    Pool,
}

impl What {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::RemovedSchedule => "removed_schedule",
            Self::Work => "schedule_work",
            Self::Submission => "submission",
            Self::Key => "run_key",
            Self::Captured => "captured_call",
            Self::Job => "pool_job",
            Self::JobNote => "pool_note",
            Self::PoolWorker => "pool_worker",
            Self::Pool => "pool",
        }
    }
}

/// Something of somebody that is no run.
#[derive(Clone, Debug)]
pub struct Beside {
    /// What it is.
    pub what: What,
    /// Its name: that of the schedule, or the tenant and the key.
    pub name: Name,
    /// As it is stored.
    pub value: Json,
    kind: Name,
    revision: u64,
}

/// Everything of somebody that is no run. What cannot be read is left out and logged.
///
/// # Errors
/// The store fails.
pub async fn beside(store: &dyn Store, owned: &Owned) -> Result<Vec<Beside>, StoreError> {
    let mut found = Vec::new();
    if !owned.only_runs {
        let mut theirs = BTreeSet::new();
        for (object, value) in all(store, WORK).await? {
            if is_theirs(owned, &value["start"]) {
                theirs.insert(object.key.clone());
                found.push(Beside::of(What::Work, WORK, object, value));
            }
        }
        for (object, value) in all(store, KIND).await? {
            let Ok(schedule) = Schedule::decode(&object.bytes) else { continue };
            let of_tenant = schedule.spec.tenant == owned.tenant && owned.user.is_none();
            if of_tenant || theirs.contains(&work_key(&schedule.spec)) {
                let what = if schedule.removed_at.is_some() { What::RemovedSchedule } else { What::Schedule };
                found.push(Beside::of(what, KIND, object, value));
            }
        }
    }
    for (what, kind) in [(What::Submission, DEBOUNCED), (What::Key, SINGLE)] {
        for (object, value) in all(store, kind).await? {
            let run = value["run"].as_str().map(RunId::stored);
            // No key has a colon.
            let of_tenant = object.key.rsplit_once(':').is_some_and(|(tenant, _)| *tenant == *owned.tenant);
            let whole = !owned.only_runs && owned.user.is_none();
            let waits_for = !owned.only_runs && is_theirs(owned, &value["wanted"]["start"]);
            if of_tenant && (whole || waits_for || run.is_some_and(|run| owned.runs.contains(&run))) {
                found.push(Beside::of(what, kind, object, value));
            }
        }
    }
    for (object, value) in all(store, CAPTURED).await? {
        let Some((tenant, run)) = captures::owner(&value) else { continue };
        let whole = !owned.only_runs && owned.user.is_none();
        if tenant == owned.tenant && (whole || owned.runs.contains(&run)) {
            found.push(Beside::of(What::Captured, CAPTURED, object, value));
        }
    }
    found.extend(pooled(store, owned).await?);
    Ok(found)
}

/// What of it is in work pools: the jobs that they pushed, and their worker machines. The pools of a tenant are listed by
/// whoever pushes into one.
async fn pooled(store: &dyn Store, owned: &Owned) -> Result<Vec<Beside>, StoreError> {
    let tenant = escaped(&owned.tenant);
    let whole = !owned.only_runs && owned.user.is_none();
    let is_of_run = |value: &Json| value["run"].as_str().is_some_and(|run| owned.runs.contains(run));
    let is_of_user = |value: &Json| {
        let user = owned.user.as_deref().filter(|_| !owned.only_runs);
        user.is_some_and(|user| value["user"].as_str() == Some(user))
    };
    let mut found = Vec::new();
    let names = format!("pool.names/{tenant}");
    for (pool, named) in all(store, &names).await? {
        let (mut jobs, mut ids) = (Vec::new(), BTreeSet::new());
        for list in ["jobs", "done", "poisoned"] {
            let kind = format!("pool.{list}/{tenant}/{}", pool.key);
            for (object, value) in all(store, &kind).await? {
                if whole || is_of_user(&value) || is_of_run(&value) {
                    ids.insert(object.key.clone());
                    jobs.push(Beside::of(What::Job, &kind, object, value));
                }
            }
        }
        for list in ["pushes", "claims"] {
            let kind = format!("pool.{list}/{tenant}/{}", pool.key);
            for (object, value) in all(store, &kind).await? {
                if whole || value.as_str().is_some_and(|id| ids.contains(id)) {
                    found.push(Beside::of(What::JobNote, &kind, object, value));
                }
            }
        }
        found.extend(jobs);
        if whole {
            found.push(Beside::of(What::Pool, &names, pool, named));
        }
    }
    let kind = format!("pool.workers/{tenant}/");
    for (object, value) in all(store, &kind).await? {
        if whole || is_of_run(&value) {
            found.push(Beside::of(What::PoolWorker, &kind, object, value));
        }
    }
    Ok(found)
}

/// Removes it. False when somebody changed it since it was read.
///
/// # Errors
/// The store fails.
pub async fn forget(store: &dyn Store, beside: &Beside) -> Result<bool, StoreError> {
    let (kind, key) = (beside.kind.clone(), beside.name.clone());
    store.put_object(Put { kind, key, expected: beside.revision, bytes: None }).await
}

impl Beside {
    fn of(what: What, kind: &str, object: Object, value: Json) -> Self {
        Self { what, name: object.key, value, kind: kind.into(), revision: object.revision }
    }
}

fn is_theirs(owned: &Owned, start: &Json) -> bool {
    let scope = &start["scope"];
    let is = |found: &Json, wanted: &str| found.as_str() == Some(wanted);
    is(&scope["tenant"], &owned.tenant) && owned.user.as_deref().is_none_or(|user| is(&scope["user"], user))
}

async fn all(store: &dyn Store, kind: &str) -> Result<Vec<(Object, Json)>, StoreError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let objects = store.objects(kind.into(), after.clone(), PAGE).await?;
        let Some(last) = objects.last() else { return Ok(found) };
        after = Some(last.key.clone());
        for object in objects {
            match serde_json::from_slice(&object.bytes) {
                Ok(value) => found.push((object, value)),
                Err(error) => tracing::error!(kind, key = &*object.key, %error, "an object cannot be read"),
            }
        }
    }
}
