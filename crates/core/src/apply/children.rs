//! How entries about children change a run: started, ended.

use super::{kept_time, note};
use crate::budget::{Amounts, Meter};
use crate::effect::ChildStart;
use crate::ids::{Name, RunId};
use crate::input::Ending;
use crate::run::{OpenChild, Run};

pub(super) fn child_started(run: &mut Run, child: &ChildStart, slot: Option<u32>) {
    run.ordinal += 1;
    let launch = Amounts::ZERO.with(Meter::Launches, 1);
    run.ledger.charge(&launch);
    note(run, &child.machine, &launch);
    run.ledger.grant(&child.allotment);
    let machine = if run.start.watched { child.machine.clone() } else { Name::default() };
    let open = OpenChild {
        slot,
        awaited: child.awaited,
        allotment: child.allotment,
        cancelled: false,
        machine,
        at: kept_time(run),
    };
    run.children.insert(child.id.clone(), open);
}

pub(super) fn child_settled(run: &mut Run, child: &RunId, ending: &Ending, used: &Amounts) {
    let Some(open) = run.children.remove(child) else { return };
    // Steps are of one run only; those of a child never count against its parent's ceiling.
    let used = used.with(Meter::Steps, 0);
    run.ledger.reclaim(&open.allotment, &used);
    note(run, &open.machine, &used);
    let (Some(slot), Some(join)) = (open.slot, &mut run.join) else { return };
    if let Some(place @ None) = join.slots.get_mut(slot as usize) {
        *place = Some(ending.clone());
        join.open = join.open.saturating_sub(1);
        if join.any && join.winner.is_none() && matches!(ending, Ending::Completed { .. }) {
            join.winner = Some(slot);
        }
    }
}
