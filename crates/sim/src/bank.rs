//! A budget that binds every run of a simulation, and what must be true of its books whatever struck: they add up, never
//! beyond the cap, and to what the journals say was used.

use std::collections::BTreeMap;

use futures::future::FutureExt;
use windlass_core::budget::{Amounts, Meter};
use windlass_core::escrow::books::Allotted;
use windlass_core::escrow::{Beyond, Budget, ENVIRONMENT, METERS, Period};
use windlass_core::journal::Entry;
use windlass_core::time::Timestamp;
use windlass_ports::fake::MemoryStore;
use windlass_ports::store::escrow::{ALLOTMENT, RETURNED, budget, put_budget};
use windlass_ports::store::{Store, StoreError};

use crate::history::{History, Violation};
use crate::store::at_once;

/// Room for every run, in parts so small that runs draw again and again.
const CAPS: [(Meter, u64); 3] = [(Meter::ModelCalls, 400), (Meter::ToolCalls, 400), (Meter::Tokens, 40_000_000)];
/// Objects read at a time: more than there are.
const ALL: usize = 10_000;

/// Sets the budget, before any run begins.
pub(crate) fn open(store: &MemoryStore) -> Result<(), StoreError> {
    let budget = Budget { caps: BTreeMap::from(CAPS), period: Period::None, near_percent: 100, beyond: Beyond::Fail };
    let put = put_budget(store, &ENVIRONMENT.into(), 0, Some(&budget)).now_or_never();
    put.unwrap_or(Ok(false)).map(|_| ())
}

/// Compares the account with what runs were granted, and with their journals.
pub(crate) fn check(store: &MemoryStore, history: &History, found: &mut Vec<Violation>) -> Result<(), StoreError> {
    let read = budget(store, &ENVIRONMENT.into(), Timestamp(0)).now_or_never();
    let Some(row) = read.transpose()?.flatten() else { return Ok(()) };
    let account = row.account;
    let mut find = |message: String| found.push(Violation { rule: "budget".into(), run: None, message });
    let (mut held, mut told) = (Amounts::ZERO, Amounts::ZERO);
    for kind in [ALLOTMENT, RETURNED] {
        for object in at_once(store.objects(kind.into(), None, ALL))? {
            let Ok(allotted) = serde_json::from_slice::<Allotted>(&object.bytes) else {
                find(format!("what `{}` has of budgets cannot be read", object.key));
                continue;
            };
            for part in allotted.parts.values() {
                held.add(&part.held);
                told.add(&part.spent);
            }
        }
    }
    let used = used(history);
    for meter in METERS {
        let Some(cap) = row.known.budget.caps.get(&meter) else { continue };
        let of = |amounts: &Amounts| amounts.get(meter);
        let (drawn, spent, over) = (of(&account.drawn), of(&account.spent), of(&account.overrun));
        let name = meter.as_str();
        if drawn + spent > cap + over {
            find(format!("{drawn} {name} drawn and {spent} spent of {cap}, {over} of it beyond what was held"));
        }
        if (drawn, spent) != (of(&held), of(&told)) {
            find(format!("{drawn} {name} drawn and {spent} spent, by what runs have {} and {}", of(&held), of(&told)));
        }
        // Tokens that were used beyond what was held may not have been told yet.
        let is_whole = meter == Meter::Tokens || of(&used) <= spent + drawn;
        if spent > of(&used) || !is_whole {
            find(format!("{} {name} used by the journals, {spent} spent and {drawn} drawn", of(&used)));
        }
    }
    Ok(())
}

/// What the journals say was used.
fn used(history: &History) -> Amounts {
    let mut sum = Amounts::ZERO;
    for entry in history.runs.iter().flat_map(|end| &end.rows).flat_map(|row| &row.record.entries) {
        if let Entry::CallSettled { used, .. } | Entry::AttemptFailed { used, .. } | Entry::CallAbandoned { used, .. } =
            entry
        {
            sum.add(used);
        }
    }
    sum
}
