//! The first audit row of a run, and what it goes on under.

use super::rows::next;
use crate::audit;
use crate::ids::{Digest, EffectId, Name};
use crate::run::{Origin, Run, Stage};

/// The first audit row: whose the run is.
pub(super) fn first_row(run: &mut Run) -> audit::Row {
    let start = &run.start;
    let owner = audit::Owner {
        tenant: start.scope.tenant.clone(),
        user: start.scope.user.clone(),
        machine: start.machine_name.clone(),
        bundle: start.bundle,
        by: start.caller.by.clone(),
    };
    let row = audit::Row {
        kind: "run".into(),
        target: start.machine_name.clone(),
        arguments: start.input.digest(),
        owner: Some(Box::new(owner)),
        ..audit::Row::blank(EffectId(0), "started")
    };
    next(run, row)
}

/// The run begins where another one was, with what that one had used by then.
pub(super) fn forked(run: &mut Run, origin: &Origin) {
    run.context = origin.context.clone();
    run.step = origin.step.saturating_sub(1);
    run.ledger.inherited = origin.used;
    run.ledger.rebound(&origin.raised);
}

/// The run goes on under another bundle.
pub(super) fn migrated(run: &mut Run, bundle: Digest, machine: &Name) {
    run.start.bundle = bundle;
    run.start.machine = machine.clone();
}

pub(super) fn reopened(run: &mut Run) {
    run.cost_when_reopened = Some(run.used().cost_micros);
    run.ending = None;
    run.failure = None;
    run.cancel = None;
    run.stage = Stage::Starting;
}
