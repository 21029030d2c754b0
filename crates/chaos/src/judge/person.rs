//! Runs that wait for a person: which, and what for.

use std::collections::BTreeMap;

use windlass_core::effect::Doubt;
use windlass_core::ids::{EffectId, Name, RunId};
use windlass_core::journal::Entry;
use windlass_core::run::{Hold, Status};
use windlass_sim::history::{History, RunEnd};

/// What each caller's run waits for a person for, itself or one below it.
pub(super) fn asking(history: &History) -> BTreeMap<&RunId, String> {
    let asks = history.runs.iter().filter(|end| end.status == Status::Attention);
    asks.map(|end| (&end.start.root, why(end))).collect()
}

/// The same by what for.
pub(super) fn reasons(asking: &BTreeMap<&RunId, String>) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for why in asking.values() {
        *reasons.entry(why.clone()).or_default() += 1;
    }
    reasons
}

/// The last question of a journal.
fn why(end: &RunEnd) -> String {
    let mut calls: BTreeMap<EffectId, Name> = BTreeMap::new();
    let mut why = "nothing in its journal says what for".to_owned();
    for entry in end.rows.iter().flat_map(|row| &row.record.entries) {
        let target = |effect| calls.get(effect).map_or("a call", |name| &**name);
        match entry {
            Entry::CallIntended { effect, call } => {
                calls.insert(*effect, call.call.target().clone());
            }
            Entry::DoubtRaised { effect, doubt: Doubt::Asking(_) } => {
                why = format!("whether `{}` happened, whose `on_unknown` is to ask", target(effect));
            }
            Entry::WaitOpened { wait, .. } if wait.kind.as_str() == "transition" => {
                why = "whether a transition may be taken".into();
            }
            Entry::ApprovalAsked { effect, .. } => why = format!("whether `{}` may be called", target(effect)),
            Entry::HoldPlaced { hold: Hold::Attention { reason, .. } } => why = format!("it is on hold: {reason}"),
            _ => {}
        }
    }
    why
}
