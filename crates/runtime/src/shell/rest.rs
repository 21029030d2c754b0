//! When a worker that has nothing to do is done, and what it leaves waiting.

use std::collections::BTreeMap;

use windlass_core::approval;
use windlass_core::ids::{Name, RunId};
use windlass_core::run::{Run, Status};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, Query, StoreError, WaitRow};

use super::drive::look;
use super::engine::{Core, EngineError, Scope};
use super::send::patiently;

/// Waiting runs that are named at most.
const NAMED_MAX: usize = 1_000;
/// How often a worker looks again while another process works on its tree, in milliseconds. Nothing tells when that
/// process dies.
const OTHERS_MS: u64 = 1_000;

/// How driving ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driven {
    /// Every run of the tree has ended.
    Ended,
    /// What is left of the tree waits.
    Parked {
        /// For what.
        waits: Vec<Waiting>,
    },
    /// No run can go on now.
    Idle,
    /// It was stopped.
    Stopped,
}

/// Something that a run waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The run.
    pub run: RunId,
    /// `signal`, `outcome`, `tool_changed`, `approval`, `budget`, `timer`, `paused`, `attention` or `quarantined`.
    pub kind: Name,
    /// The channel, where a signal ends the wait.
    pub channel: Option<Name>,
    /// The id of the question, where a person has to approve a call, or more of a budget for it.
    pub approval: Option<Name>,
    /// When the wait ends by itself.
    pub at: Option<Timestamp>,
}

impl Scope {
    pub(super) fn within(&self) -> Option<RunId> {
        match self {
            Self::Tree(root) => Some(root.clone()),
            Self::Idle | Self::All => None,
        }
    }

    /// Whether a run belongs to the scope. Ids of children begin with those of their parents.
    pub(super) fn includes(&self, run: &RunId) -> bool {
        match self {
            Self::Tree(root) => run.is_within(root),
            Self::Idle | Self::All => true,
        }
    }

    /// Whether the scope is done at some point without being stopped.
    pub(super) fn ends(&self) -> bool {
        match self {
            Self::Tree(_) | Self::Idle => true,
            Self::All => false,
        }
    }
}

/// What a worker without work does.
#[derive(Debug)]
pub(super) enum Rest {
    /// It is done.
    Done(Driven),
    /// It waits for a change, until then at the latest.
    Until {
        then: Option<Timestamp>,
        /// Whether to claim then although nothing said so.
        looks: bool,
    },
}

/// The patience of a worker.
#[derive(Debug)]
pub(super) struct Resting {
    scope: Scope,
    /// Since when nothing was decided, and what stood there then: run and version. A run that is looked at, because a
    /// switch holds it, and waits on as it was is no reason for more patience.
    since: Option<(Timestamp, Vec<(RunId, u64)>)>,
}

impl Resting {
    pub(super) fn new(scope: Scope) -> Self {
        Self { scope, since: None }
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(super) async fn rest(
        &mut self,
        core: &Core,
        now: Timestamp,
        due: Option<Timestamp>,
    ) -> Result<Rest, EngineError> {
        let root = match &self.scope {
            Scope::All => return Ok(Rest::Until { then: None, looks: false }),
            Scope::Idle => return Ok(Rest::Done(Driven::Idle)),
            Scope::Tree(root) => root.clone(),
        };
        let left = unfinished(core, &root).await?;
        if left.is_empty() {
            return Ok(Rest::Done(Driven::Ended));
        }
        if left.iter().any(|head| matches!(head.status, Status::Queued | Status::Running)) {
            return Ok(Rest::Until { then: Some(now.plus_ms(OTHERS_MS)), looks: true });
        }
        let since = self.quiet_since(now, &left);
        let settings = &core.parts.settings;
        if let Some(due) = due.filter(|due| *due <= since.plus_ms(settings.wait_ms)) {
            return Ok(Rest::Until { then: Some(due), looks: true });
        }
        let patience = since.plus_ms(settings.signal_wait_ms);
        if now < patience {
            return Ok(Rest::Until { then: Some(patience), looks: true });
        }
        let rows = patiently(core, || core.parts.store.waits(root.clone(), true)).await?;
        Ok(Rest::Done(Driven::Parked { waits: waits(core, &left, rows).await? }))
    }

    fn quiet_since(&mut self, now: Timestamp, left: &[Head]) -> Timestamp {
        let stands: Vec<_> = left.iter().map(|head| (head.id.clone(), head.version)).collect();
        match &self.since {
            Some((since, before)) if *before == stands => *since,
            _ => self.since.insert((now, stands)).0,
        }
    }
}

/// Runs of a tree that have not ended, those that can go on first.
async fn unfinished(core: &Core, root: &RunId) -> Result<Vec<Head>, StoreError> {
    let some = |statuses: &[Status], limit| {
        let query = Query { statuses: statuses.to_vec(), root: Some(root.clone()), limit, ..Query::default() };
        patiently(core, move || core.parts.store.list(query.clone()))
    };
    let active = some(&[Status::Queued, Status::Running], 1).await?.heads;
    if !active.is_empty() {
        return Ok(active);
    }
    let parked = [Status::Waiting, Status::Paused, Status::Attention, Status::Quarantined];
    Ok(some(&parked, NAMED_MAX).await?.heads)
}

/// Gives questions the time at which they expire: what a run was held for is added to it, and not to the row of its wait.
async fn move_due(core: &Core, left: &[Head], rows: &mut [(RunId, WaitRow)]) -> Result<(), EngineError> {
    let wakes: BTreeMap<&RunId, Option<Timestamp>> = left.iter().map(|head| (&head.id, head.wake_at)).collect();
    let mut known: Option<(RunId, Option<Run>)> = None;
    for (id, row) in rows {
        // A run that goes on at just this time was not held since.
        let is_moved = row.kind.is_question() && row.due.is_some() && wakes.get(id).is_some_and(|at| *at != row.due);
        if !is_moved {
            continue;
        }
        if known.as_ref().is_none_or(|(last, _)| last != id) {
            let stored = patiently(core, || core.parts.store.load(id.clone())).await?;
            let run = match stored {
                // Of one that cannot be read the time is that of the row.
                Some(stored) => look(core, stored).await.ok(),
                None => None,
            };
            known = Some((id.clone(), run));
        }
        if let Some((_, Some(run))) = &known {
            row.due = approval::due(run, row.effect);
        }
    }
    Ok(())
}

/// What the runs of a tree wait for: signals and people, then times, then holds.
pub(super) async fn waits(
    core: &Core,
    left: &[Head],
    mut rows: Vec<(RunId, WaitRow)>,
) -> Result<Vec<Waiting>, EngineError> {
    move_due(core, left, &mut rows).await?;
    let mut waits: Vec<Waiting> = rows
        .into_iter()
        .map(|(run, row)| {
            let is_approval = row.kind.is_question();
            let approval = is_approval.then(|| row.effect.key(&run).into());
            let channel = (!is_approval).then_some(row.channel);
            Waiting { run, kind: row.kind.as_str().into(), channel, approval, at: row.due }
        })
        .collect();
    let known: Vec<RunId> = waits.iter().map(|wait| wait.run.clone()).collect();
    for head in left.iter().filter(|head| !known.contains(&head.id)) {
        let kind = match head.status {
            Status::Waiting if head.wake_at.is_some() => "timer",
            Status::Paused | Status::Attention | Status::Quarantined => head.status.as_str(),
            _ => continue,
        };
        waits.push(Waiting {
            run: head.id.clone(),
            kind: kind.into(),
            channel: None,
            approval: None,
            at: head.wake_at,
        });
    }
    Ok(waits)
}
