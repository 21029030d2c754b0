//! What a child was allowed beyond what it was given. Owns that one change.

use crate::budget::{Amounts, CALL_METERS, Meter};
use crate::ids::RunId;
use crate::run::Run;

/// The bound rises with what is granted, so that what is left stays the same.
pub(super) fn child(run: &mut Run, child: &RunId, amounts: &Amounts) {
    let Some(open) = run.children.get_mut(child) else { return };
    let bounded = |meter: &Meter| run.ledger.ceilings.get(*meter).is_some();
    let bounded = CALL_METERS.into_iter().filter(bounded);
    let amounts = bounded.fold(Amounts::ZERO, |sum, meter| sum.with(meter, amounts.get(meter)));
    open.allotment.add(&amounts);
    run.ledger.rebound(&run.ledger.raised(&amounts));
    run.ledger.grant(&amounts);
}
