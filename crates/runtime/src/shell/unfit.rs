//! Runs that this process cannot drive because it lacks something they need: they are left for another worker, and
//! looked at again ever more rarely.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use windlass_core::contract::OnUnknown;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::machine::{HookKind, Machine, State};
use windlass_ports::tool::Catalog;

/// The first pause before such a run is looked at again, in milliseconds.
const PAUSE_MS_MIN: u64 = 1_000;
/// The longest pause, in milliseconds.
const PAUSE_MS_MAX: u64 = 60_000;
/// Runs that are kept in mind at most.
const RUNS_MAX: usize = 10_000;

#[derive(Debug, Default)]
struct Known {
    pauses: HashMap<RunId, u64>,
    told: HashSet<Digest>,
}

/// The runs that were left for others.
#[derive(Debug, Default)]
pub(super) struct Unfit(Mutex<Known>);

impl Unfit {
    /// A run is left for others: for how long, in milliseconds, and whether this is the first of its bundle, so that a
    /// person should be told.
    pub(super) fn leave(&self, run: &RunId, bundle: Digest, seed: u64) -> (u64, bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.pauses.len() >= RUNS_MAX {
            known.pauses.clear();
            known.told.clear();
        }
        let pause = known.pauses.entry(run.clone()).or_insert(PAUSE_MS_MIN);
        let ms = *pause;
        *pause = (ms * 2).min(PAUSE_MS_MAX);
        let first = known.told.insert(bundle);
        (ms + seed % (ms / 2), first)
    }
}

/// The first thing that a machine needs and a catalog does not have.
pub(super) fn missing(machine: &Machine, catalog: &Catalog) -> Option<Name> {
    let hook = |name: &str| catalog.hook(name).is_none().then(|| format!("hook `{name}`").into());
    let tool = |name: &str| (!catalog.tools.contains_key(name)).then(|| format!("tool `{name}`").into());
    let hooks = machine.lifecycle.iter().chain(machine.states.values().flat_map(|state| &state.hooks));
    let mut hooks = hooks.filter(|named| !named.events.is_empty());
    if let Some(found) = hooks.find_map(|named| hook(&named.name)) {
        return Some(found);
    }
    let by_hook = |state: &State| state.hooks.iter().any(|hook| hook.events.contains(&HookKind::Action));
    let known = |action: &Name| machine.tools.contains_key(action);
    let acting = |state: &State| state.action.clone().filter(|action| !by_hook(state) && known(action));
    let declared = machine.agents.values().flat_map(|agent| &agent.tools).map(|declared| declared.name.clone());
    let used = machine.states.values().filter_map(acting).chain(machine.offered_tools.iter().cloned());
    let mut used = used.chain(declared.filter(|name| machine.tools.contains_key(name)));
    used.find_map(|name| {
        let verifier = machine.tools.get(&name).and_then(|contract| match &contract.on_unknown {
            OnUnknown::Verify { tool: by } => tool(by),
            OnUnknown::Ask | OnUnknown::Fail => None,
        });
        tool(&name).or(verifier)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_looked_at_ever_more_rarely_and_told_of_once() {
        let unfit = Unfit::default();
        let run = RunId::stored("r");
        let pauses: Vec<(u64, bool)> = (0..8).map(|_| unfit.leave(&run, Digest::ZERO, 0)).collect();
        assert_eq!(pauses[..3], [(1_000, true), (2_000, false), (4_000, false)]);
        assert_eq!(pauses[7], (60_000, false));
        let (pause, first) = unfit.leave(&RunId::stored("other"), Digest::ZERO, 7_777);
        assert!((1_000..1_500).contains(&pause) && !first);
    }
}
