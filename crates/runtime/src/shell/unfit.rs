//! Runs that this process cannot drive because it lacks something they need: they are left for another worker, and
//! looked at again ever more rarely.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use windlass_core::contract::OnUnknown;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::machine::{Hook, HookKind, Machine, State};
use windlass_core::run::Run;
use windlass_core::time::Timestamp;
use windlass_ports::model::Model;
use windlass_ports::tool::Catalog;

/// The first pause before such a run is looked at again, in milliseconds.
const PAUSE_MS_MIN: u64 = 1_000;
/// The longest pause, in milliseconds.
const PAUSE_MS_MAX: u64 = 60_000;
/// Runs that are kept in mind at most.
const RUNS_MAX: usize = 10_000;

/// By how much this process comes later than others to a run that it left, in milliseconds: more than others take to
/// learn when the run is due.
const LATER_MS: u64 = 2_500;

#[derive(Debug, Default)]
struct Known {
    pauses: HashMap<RunId, u64>,
    told: HashSet<Digest>,
    /// When the runs that were left may be taken again.
    wakes: BTreeSet<Timestamp>,
}

/// The runs that were left for others.
#[derive(Debug, Default)]
pub(super) struct Unfit(Mutex<Known>);

impl Unfit {
    /// When this process looks at a run that is due then: later than others when it is one that it left for them.
    pub(super) fn look_at(&self, due: Timestamp) -> Timestamp {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The earliest one that is due is what is asked about: what was due before has been taken.
        known.wakes = known.wakes.split_off(&due);
        if known.wakes.contains(&due) { due.plus_ms(LATER_MS) } else { due }
    }

    /// A run is left for others: until when, and whether this is the first of its bundle, so that a person should be
    /// told.
    pub(super) fn leave(&self, run: &RunId, bundle: Digest, now: Timestamp, seed: u64) -> (Timestamp, bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.pauses.len() >= RUNS_MAX {
            known.pauses.clear();
            known.told.clear();
            known.wakes.clear();
        }
        let pause = known.pauses.entry(run.clone()).or_insert(PAUSE_MS_MIN);
        let ms = *pause;
        *pause = (ms * 2).min(PAUSE_MS_MAX);
        let first = known.told.insert(bundle);
        let wake_at = now.plus_ms(ms + seed % (ms / 2));
        known.wakes.insert(wake_at);
        (wake_at, first)
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
    let performs = |hook: &Hook| hook.events.contains(&HookKind::Action);
    let by_hook = |state: &State| state.arguments.is_none() && state.hooks.iter().any(performs);
    let known = |action: &Name| machine.tools.contains_key(action);
    let acting = |state: &State| machine.performed(state).cloned().filter(|action| !by_hook(state) && known(action));
    let declared = machine.agents.values().flat_map(|agent| &agent.tools).map(|declared| declared.name.clone());
    let used = machine.states.values().filter_map(acting).chain(machine.offered_tools.iter().cloned());
    let of_skills = machine.skills.known.values().flat_map(|skill| &skill.tools).cloned();
    let used = used.chain(of_skills);
    let mut used = used.chain(declared.filter(|name| machine.tools.contains_key(name)));
    used.find_map(|name| {
        let verifier = machine.tools.get(&name).and_then(|contract| match &contract.on_unknown {
            OnUnknown::Verify { tool: by } => tool(by),
            OnUnknown::Ask | OnUnknown::Fail => None,
        });
        tool(&name).or(verifier)
    })
}

/// The first thing that a process lacks for a model of a machine.
pub(super) fn missing_model(machine: &Machine, model: &dyn Model) -> Option<Name> {
    machine.agents.values().find_map(|agent| model.lacks(&agent.model))
}

/// The first model that somebody put in the place of a document's and that the catalog of this process does not have.
pub(super) fn unlisted(machine: &Machine, run: &Run, model: &dyn Model) -> Option<Name> {
    let replaced = machine.agents.values().filter_map(|agent| Some((agent, run.overrides.of(&agent.name)?)));
    let mut missing = replaced.filter(|(agent, instead)| model.chain(&instead.settings(agent)).is_none());
    missing
        .next()
        .map(|(_, instead)| format!("`{}/{}` in the model catalog", instead.to.provider, instead.to.model).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_looked_at_ever_more_rarely_and_told_of_once() {
        let unfit = Unfit::default();
        let run = RunId::stored("r");
        let now = Timestamp(5);
        let pauses: Vec<(Timestamp, bool)> = (0..8).map(|_| unfit.leave(&run, Digest::ZERO, now, 0)).collect();
        let at = |ms: u64| now.plus_ms(ms);
        assert_eq!(pauses[..3], [(at(1_000), true), (at(2_000), false), (at(4_000), false)]);
        assert_eq!(pauses[7], (at(60_000), false));
        let (wake_at, first) = unfit.leave(&RunId::stored("other"), Digest::ZERO, now, 7_777);
        assert!((1_000..1_500).contains(&wake_at.since_ms(now)) && !first);
    }

    #[test]
    fn whoever_left_a_run_comes_to_it_after_the_others() {
        let unfit = Unfit::default();
        let (left, _) = unfit.leave(&RunId::stored("r"), Digest::ZERO, Timestamp(5), 0);
        assert_eq!(unfit.look_at(Timestamp(7)), Timestamp(7));
        assert_eq!(unfit.look_at(left), left.plus_ms(LATER_MS));
        assert_eq!(unfit.look_at(Timestamp(9_999)), Timestamp(9_999));
    }
}
