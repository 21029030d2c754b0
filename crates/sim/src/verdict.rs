//! What a simulation knows beyond its history: how the machine goes when nothing disturbs it, that everything ends once
//! faults have stopped, and what time it truly was.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::contract::Class;
use windlass_core::effect::{Outcome, TimerPurpose};
use windlass_core::ids::{EffectId, Name, RunId};
use windlass_core::input::Ending;
use windlass_core::journal::Entry;
use windlass_core::run::{Hold, Status};
use windlass_ports::store::Head;

use crate::clock::BEGIN_MS;
use crate::history::{History, Op, Result, RunEnd, Violation};
use crate::world::World;

/// What becomes of the machine when nothing disturbs it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reference {
    pub(crate) usual_ms: u64,
    summary: Option<Summary>,
}

/// One tree of runs at a glance.
#[derive(Clone, Debug, PartialEq)]
struct Summary {
    ending: Option<Ending>,
    /// Calls that changed the world, by kind and target.
    changes: BTreeMap<Name, usize>,
    /// Things that may send a run another way, by their kind: failures, timeouts, stops.
    turns: BTreeMap<(&'static str, &'static str), u64>,
}

impl Reference {
    pub(crate) fn of(history: &History, root: &RunId, usual_ms: u64) -> Self {
        Self { usual_ms: usual_ms.max(1), summary: summary(history, root) }
    }

    /// How the machine ends when nothing disturbs it.
    pub(crate) fn ending(&self) -> Option<&Ending> {
        self.summary.as_ref().and_then(|summary| summary.ending.as_ref())
    }

    /// A run that nothing sent another way ends as an undisturbed one does, and changes the world as often.
    pub(crate) fn compare(&self, history: &History, root: &RunId, found: &mut Vec<Violation>) {
        let (Some(usual), Some(seen)) = (&self.summary, summary(history, root)) else { return };
        if seen.turns != usual.turns || !history.runs.iter().any(|end| end.start.id == *root && end.status.is_final()) {
            return;
        }
        if seen.ending != usual.ending {
            let message = format!("it ended with {}, undisturbed with {}", text(&seen.ending), text(&usual.ending));
            found.push(Violation::of("reference", root, message));
        }
        if seen.changes != usual.changes {
            let message = format!("it changed the world by {:?}, undisturbed by {:?}", seen.changes, usual.changes);
            found.push(Violation::of("reference", root, message));
        }
    }
}

fn text(ending: &Option<Ending>) -> String {
    serde_json::to_string(ending).unwrap_or_default()
}

fn summary(history: &History, root: &RunId) -> Option<Summary> {
    let tree: Vec<&RunEnd> = history.runs.iter().filter(|end| end.start.root == *root).collect();
    let ids: BTreeSet<&RunId> = tree.iter().map(|end| &end.start.id).collect();
    let changing = history.effects.iter().filter(|effect| {
        ids.contains(&effect.run) && effect.happened && effect.class != Class::Read && &*effect.kind != "hook"
    });
    let keys: BTreeSet<(&Name, &Name)> = changing.map(|effect| (&effect.target, &effect.key)).collect();
    let mut changes = BTreeMap::new();
    for (target, _) in keys {
        *changes.entry(target.clone()).or_default() += 1;
    }
    let ending = tree.iter().find(|end| end.start.id == *root)?.rows.iter().flat_map(|row| &row.record.entries);
    let mut ending = ending.filter_map(|entry| match entry {
        Entry::EndingDecided { ending } => Some(ending.clone()),
        _ => None,
    });
    let mut seen = BTreeMap::new();
    tree.iter().for_each(|end| turns(end, &mut seen));
    Some(Summary { ending: ending.next_back(), changes, turns: seen })
}

fn turns(end: &RunEnd, seen: &mut BTreeMap<(&'static str, &'static str), u64>) {
    let mut timers: BTreeMap<EffectId, TimerPurpose> = BTreeMap::new();
    for entry in end.rows.iter().flat_map(|row| &row.record.entries) {
        let is_turn = match entry {
            Entry::TimerSet { effect, timer } => {
                timers.insert(*effect, timer.purpose);
                false
            }
            Entry::TimerEnded { effect, fired: true } => match timers.get(effect) {
                Some(TimerPurpose::Backoff { .. } | TimerPurpose::Continue) | None => false,
                Some(
                    TimerPurpose::RunDeadline
                    | TimerPurpose::StateTimeout
                    | TimerPurpose::WaitTimeout { .. }
                    | TimerPurpose::Escalation { .. }
                    | TimerPurpose::JoinTimeout,
                ) => true,
            },
            Entry::ToolAnswered { is_error, .. } => *is_error,
            Entry::CallSettled { outcome: Outcome::Failed(_), .. }
            | Entry::FailureRaised { .. }
            | Entry::SampleFailed { .. }
            | Entry::CancelRequested { .. }
            | Entry::ChildCancelled { .. }
            | Entry::LoopStopped { to: Some(_), .. } => true,
            Entry::ChildSettled { ending, .. } => !matches!(ending, Ending::Completed { .. }),
            _ => false,
        };
        if is_turn {
            *seen.entry((entry.kind(), code(entry))).or_default() += 1;
        }
    }
}

fn code(entry: &Entry) -> &'static str {
    match entry {
        Entry::CallSettled { outcome: Outcome::Failed(failure), .. }
        | Entry::FailureRaised { failure }
        | Entry::SampleFailed { failure, .. }
        | Entry::ChildSettled { ending: Ending::Failed { failure, .. }, .. } => failure.code.as_str(),
        _ => "",
    }
}

/// Once faults have stopped every run ends, with no person doing more than answering what it asks.
pub(crate) fn liveness(unfinished: &[Head], world: &World, deadline_ms: u64, found: &mut Vec<Violation>) {
    if world.is_runaway() {
        let message = "far too many operations: something goes round in circles".into();
        found.push(Violation { rule: "liveness".into(), run: None, message });
    }
    for head in unfinished {
        let status = head.status.as_str();
        let owner = head.owner.as_ref().map_or_else(String::new, |owner| format!(", held by `{owner}`"));
        let message = format!("at {deadline_ms} ms it is `{status}` at version {}{owner}", head.version);
        let rule = if head.status == Status::Attention { "attention" } else { "liveness" };
        found.push(Violation::of(rule, &head.id, message));
    }
}

/// A run that is held begins no child and no state. Attempts at open calls may be recorded; they leave once it goes on.
pub(crate) fn holds(history: &History, found: &mut Vec<Violation>) {
    for end in &history.runs {
        let (mut is_held, mut is_ending) = (false, false);
        for entry in end.rows.iter().flat_map(|row| &row.record.entries) {
            match entry {
                Entry::HoldPlaced { .. } => is_held = true,
                Entry::HoldLifted => is_held = false,
                Entry::EndingDecided { .. } => is_ending = true,
                Entry::RunReopened => is_ending = false,
                Entry::ChildStarted { .. } | Entry::StateEntered { .. } if is_held && !is_ending => {
                    let message = format!("`{}` while it was held", entry.kind());
                    found.push(Violation::of("hold", &end.start.id, message));
                }
                _ => {}
            }
        }
    }
}

/// Timers fire at or after their time, on the true clock; and no run is held because a decision could not be made.
pub(crate) fn timers(history: &History, found: &mut Vec<Violation>) {
    let mut written: BTreeMap<(&RunId, u64), u64> = BTreeMap::new();
    for record in history.records.iter().filter(|record| record.result == Result::Ok) {
        if let Op::Commit { run, version, .. } = &record.op {
            written.insert((run, *version), record.end);
        }
    }
    for end in &history.runs {
        let mut due = BTreeMap::new();
        for row in &end.rows {
            for entry in &row.record.entries {
                match entry {
                    Entry::TimerSet { effect, timer } => {
                        due.insert(*effect, timer.due);
                    }
                    Entry::TimerEnded { effect, fired: true } => {
                        let at = written.get(&(&end.start.id, row.record.version));
                        let early = at.zip(due.get(effect)).filter(|(at, due)| BEGIN_MS + **at < due.0);
                        if let Some((at, due)) = early {
                            let message =
                                format!("timer {effect} fired at {at} ms, {} ms early", due.0 - BEGIN_MS - at);
                            found.push(Violation::of("timer", &end.start.id, message));
                        }
                    }
                    Entry::HoldPlaced { hold: Hold::Attention { reason, .. } } => {
                        found.push(Violation::of("attention", &end.start.id, reason.to_string()));
                    }
                    _ => {}
                }
            }
        }
    }
}
