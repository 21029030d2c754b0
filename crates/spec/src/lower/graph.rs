//! What follows from the shape of a machine: states that nothing leads to, dead ends, and machines that start each
//! other without end.
//!
//! Recursion is allowed: a machine may start itself, directly or through others, bounded by `max_depth`. What is
//! refused is recursion that cannot stop by itself: a machine whose every way to an end waits for, or launches, a
//! machine of the same kind. A way counts if its conditions might let it be taken; a `foreach` may have an empty list.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use windlass_core::ids::Name;
use windlass_core::machine::{Hook, HookKind, Machine, Mode, State, Targets};

use crate::diagnostics::{Rule, Sink, Span};
use crate::yaml::Node;

use super::pairs;

/// Warns of states that cannot be reached and of states that lead nowhere.
pub(crate) fn check_reach<'s>(
    data: &Node,
    states: &'s IndexMap<Name, State>,
    ways_in: impl Iterator<Item = &'s Name>,
    lifecycle: &[Hook],
    sink: &mut Sink,
) {
    let place = |name: &Name| pairs(data, "states").find(|e| e.key == *name).map(|e| e.key_span).unwrap_or_default();
    let redirects = |hooks: &[Hook]| {
        hooks.iter().any(|h| h.events.contains(&HookKind::Transition) || h.events.contains(&HookKind::Error))
    };
    let hooked = redirects(lifecycle) || states.values().any(|s| redirects(&s.hooks));
    let mut reached: BTreeSet<&Name> = BTreeSet::new();
    let mut open: Vec<&Name> = ways_in.collect();
    while let Some(name) = open.pop() {
        if reached.insert(name)
            && let Some(state) = states.get(name)
        {
            open.extend(ways_out(state));
        }
    }
    for (name, state) in states {
        if !hooked && !reached.contains(name) {
            let message = format!("nothing leads to the state `{name}`");
            sink.warn(Rule::Unreachable, place(name), message, "add a transition to it, or remove it");
        }
        if state.is_final || !state.transitions.is_empty() || redirects(&state.hooks) {
            continue;
        }
        let kind = pairs(data, "states").find(|e| e.key == *name).and_then(|e| e.value.text("type"));
        if kind.is_none_or(|kind| &**kind == "initial") {
            let message = format!("the state `{name}` is not final and has no transitions: a run fails there");
            sink.warn(Rule::DeadEnd, place(name), message, "add `type: final` or a transition");
        }
    }
}

fn ways_out(state: &State) -> impl Iterator<Item = &Name> {
    let transitions = state.transitions.iter().filter(|_| !state.is_final).map(|t| &t.to);
    transitions.chain(state.on_error.by_name.iter().map(|(_, to)| to)).chain(&state.on_error.default)
}

/// Refuses machines that start each other without end.
pub(crate) fn check_cycles(machines: &BTreeMap<Name, Machine>, starts: &BTreeMap<(Name, Name), Span>, sink: &mut Sink) {
    let all: BTreeSet<&Name> = machines.keys().collect();
    // Machines with a way to an end, if whatever they start ends.
    let possible: BTreeSet<&Name> =
        machines.iter().filter(|(_, machine)| can_end(machine, &all)).map(|(key, _)| key).collect();
    let mut ending: BTreeSet<&Name> = all.difference(&possible).copied().collect();
    loop {
        let more: Vec<&Name> = possible
            .iter()
            .filter(|key| !ending.contains(**key) && machines.get(**key).is_some_and(|m| can_end(m, &ending)))
            .copied()
            .collect();
        if more.is_empty() {
            break;
        }
        ending.extend(more);
    }
    for key in all.difference(&ending) {
        let Some((_, span)) = starts.iter().find(|((from, to), _)| from == *key && !ending.contains(to)) else {
            continue;
        };
        let message = format!("`{key}` always starts itself again, directly or through others, and never ends");
        let advice = "give it a way to a final state that starts no machine of this circle";
        sink.error(Rule::MachineCycle, *span, message, advice);
    }
}

/// Whether a run of the machine may end when only the machines of `ending` do.
fn can_end(machine: &Machine, ending: &BTreeSet<&Name>) -> bool {
    let ends = |name: &Name| machine.machines.get(name).is_some_and(|key| ending.contains(key));
    let passable = |state: &State| {
        let launched = state.launch.iter().all(|launch| launch.machines.iter().all(&ends));
        let called = state.call.as_ref().is_none_or(|call| match &call.targets {
            Targets::One { machine, .. } => ends(machine),
            Targets::Many(targets) => match call.mode {
                Mode::Any => targets.iter().any(|(name, _)| ends(name)),
                Mode::Settled => targets.iter().all(|(name, _)| ends(name)),
            },
            Targets::Foreach { .. } => true,
        });
        state.wait.is_some() || (launched && called)
    };
    let mut seen: BTreeSet<&Name> = BTreeSet::new();
    let mut open = vec![&machine.initial];
    while let Some(name) = open.pop() {
        let Some(state) = machine.states.get(name).filter(|state| seen.insert(&state.name) && passable(state)) else {
            continue;
        };
        if state.is_final || state.transitions.is_empty() {
            return true;
        }
        open.extend(ways_out(state));
    }
    false
}
