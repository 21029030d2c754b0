//! The accounts of budgets, compared with what runs hold of them and with what their journals say they used.

use std::collections::BTreeMap;

use windlass_core::budget::{Amounts, Meter};
use windlass_core::escrow::books::Allotted;
use windlass_core::ids::Name;
use windlass_core::run::Run;
use windlass_ports::store::{Finding, Store, StoreError, escrow};

/// The rule of what is wrong with accounts.
pub(super) const BUDGET: &str = "budget";
/// How often accounts that move while they are compared are looked at again.
const TRIES_MAX: u32 = 5;

/// What is drawn of each account is what runs hold of it. What differs only because runs went on is looked at again.
pub(super) async fn compare(store: &dyn Store) -> Result<Vec<Finding>, StoreError> {
    for _ in 0..TRIES_MAX {
        let before = escrow::accounts(store).await?;
        let held = held(&escrow::allotments(store).await?);
        let differs = |(scope, drawn): (&Name, &Amounts)| {
            let held = held.get(scope).copied().unwrap_or_default();
            let meter = Meter::ALL.into_iter().find(|meter| held.get(*meter) != drawn.get(*meter))?;
            let (held, drawn, meter) = (held.get(meter), drawn.get(meter), meter.as_str());
            let message = format!("the account of `{scope}` says that {drawn} {meter} are drawn, and runs hold {held}");
            Some(Finding { run: None, rule: BUDGET.into(), message })
        };
        let mut drawn: BTreeMap<Name, Amounts> = held.keys().map(|scope| (scope.clone(), Amounts::ZERO)).collect();
        drawn.extend(before.iter().map(|(scope, account)| (scope.clone(), account.drawn)));
        let found: Vec<Finding> = drawn.iter().filter_map(differs).collect();
        if found.is_empty() || escrow::accounts(store).await? == before {
            return Ok(found);
        }
    }
    tracing::debug!("accounts of budgets moved every time they were looked at");
    Ok(Vec::new())
}

fn held(allotments: &[(windlass_core::ids::RunId, Allotted)]) -> BTreeMap<Name, Amounts> {
    let mut held: BTreeMap<Name, Amounts> = BTreeMap::new();
    for (scope, part) in allotments.iter().flat_map(|(_, allotted)| &allotted.parts) {
        if !part.held.is_zero() {
            held.entry(scope.clone()).or_default().add(&part.held);
        }
    }
    held
}

/// Where the books say that a run used more than its journal, folded after the books were read, does.
pub(super) fn overtold(run: &Run, told: &Allotted) -> Option<String> {
    told.parts.iter().find_map(|(scope, part)| {
        let spent = run.escrow.allotments.get(scope).map_or(Amounts::ZERO, |allotment| allotment.spent);
        let meter = Meter::ALL.into_iter().find(|meter| part.spent.get(*meter) > spent.get(*meter))?;
        let (told, spent, meter) = (part.spent.get(meter), spent.get(meter), meter.as_str());
        Some(format!("the books have {told} {meter} of `{scope}` used by it, and the journal says {spent}"))
    })
}
