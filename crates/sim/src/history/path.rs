//! Whether the journal of a run is a way that its machine allows: entry by entry over the fold, with nothing evaluated.

use windlass_core::apply;
use windlass_core::budget::Meter;
use windlass_core::effect::OpenCall;
use windlass_core::ids::{EffectId, Name, RunId};
use windlass_core::journal::Entry;
use windlass_core::machine::{Machine, Program};
use windlass_core::run::{Run, Stage};

use super::RunEnd;

/// What is wrong with a journal: the version at which it shows, the rule, and why.
pub(super) struct Wrong {
    pub(super) version: u64,
    pub(super) rule: &'static str,
    pub(super) why: String,
}

/// Folds a journal and holds every entry against the run before it. Ends at the first thing that is wrong.
pub(super) fn follow(end: &RunEnd, program: Option<&Program>) -> Result<Run, Wrong> {
    let mut path = Path { run: Run::blank(end.start.clone()), expected: None, program };
    for row in &end.rows {
        let version = path.run.version + 1;
        let wrong = |rule, why| Wrong { version, rule, why };
        if row.record.version != version {
            let why = format!("its journal goes from version {} to {}", version - 1, row.record.version);
            return Err(wrong("legal_path", why));
        }
        for entry in &row.record.entries {
            path.check(entry).map_err(|why| wrong("legal_path", why))?;
            let _row = apply(&mut path.run, entry);
        }
        if let Some(to) = &path.expected {
            return Err(wrong("legal_path", format!("it was to go to `{to}` and did not")));
        }
        if path.run.version != version {
            return Err(wrong("legal_path", "a record has not one decision".to_owned()));
        }
        budget(&path.run).map_err(|why| wrong("budget", why))?;
    }
    if path.run.version != end.version {
        let why = format!("its row says version {}, its journal ends with {}", end.version, path.run.version);
        return Err(Wrong { version: path.run.version, rule: "legal_path", why });
    }
    Ok(path.run)
}

/// What is used, held and granted stays below every ceiling, but for overruns that were declared.
fn budget(run: &Run) -> Result<(), String> {
    let ledger = &run.ledger;
    for meter in Meter::ALL {
        let Some(ceiling) = ledger.ceilings.get(meter) else { continue };
        let held = ledger.inherited.get(meter)
            + ledger.settled.get(meter)
            + ledger.reserved.get(meter)
            + ledger.granted.get(meter);
        let bound = ceiling + ledger.overrun.get(meter);
        if held > bound {
            let word = meter.as_str();
            return Err(format!(
                "{held} {word} are used, held or granted, of {ceiling} with an overrun of {}",
                bound - ceiling
            ));
        }
    }
    Ok(())
}

struct Path<'a> {
    run: Run,
    /// The state that a transition chose and that has not been entered.
    expected: Option<Name>,
    program: Option<&'a Program>,
}

impl Path<'_> {
    fn machine(&self) -> Option<&Machine> {
        self.program?.machines.get(&self.run.start.machine).map(AsRef::as_ref)
    }

    fn check(&mut self, entry: &Entry) -> Result<(), String> {
        let is_over = self.run.stage == Stage::Ended;
        if is_over && !matches!(entry, Entry::Decided { .. } | Entry::RunReopened) {
            return Err(format!("`{}` after the run ended", entry.kind()));
        }
        match entry {
            Entry::Decided { at, .. } => holds(*at >= self.run.now, "a decision is older than the one before"),
            Entry::RunStarted(start) => {
                holds(!self.run.started, "the run started twice")?;
                holds(start.id == self.run.start.id, "it started as another run")
            }
            Entry::StateEntered { state } => self.entered(state),
            Entry::TransitionTaken { from, to, index } => self.moved(from, to, *index),
            Entry::FailureRouted { from, to, .. } => {
                holds(self.run.failure.is_some(), "a failure was handled that was not raised")?;
                holds(self.run.state.as_ref() == Some(from), "a failure of another state was handled")?;
                self.expected = Some(to.clone());
                Ok(())
            }
            Entry::EndingDecided { .. } => holds(self.run.ending.is_none(), "the ending was decided twice"),
            Entry::RunEnded => {
                holds(self.run.ending.is_some(), "it ended without an ending")?;
                holds(self.run.calls.is_empty(), "it ended with calls that are open")
            }
            Entry::RunReopened => holds(is_over, "it was reopened before it ended"),
            Entry::ChildStarted { child, .. } => self.absent(&child.id),
            Entry::ChildSettled { child, .. } | Entry::ChildCancelled { child, .. } => {
                holds(self.run.children.contains_key(child), &format!("child `{child}` is not open"))
            }
            _ => self.check_effect(entry),
        }
    }

    /// Entries about calls, waits and timers.
    fn check_effect(&self, entry: &Entry) -> Result<(), String> {
        match entry {
            Entry::CallIntended { effect, .. } | Entry::WaitOpened { effect, .. } | Entry::TimerSet { effect, .. } => {
                holds(effect.0 > self.run.effects, &format!("effect {effect} was named before"))
            }
            Entry::AttemptStarted { effect, attempt, .. } => {
                let open = self.open(*effect, "tried again")?;
                holds(*attempt == open.attempt + 1, &format!("attempt {attempt} of {effect} follows {}", open.attempt))
            }
            Entry::AttemptFailed { effect, attempt, .. } | Entry::CallSettled { effect, attempt, .. } => {
                let open = self.open(*effect, "settled")?;
                holds(
                    *attempt == open.attempt,
                    &format!("attempt {attempt} of {effect} ended, {} is out", open.attempt),
                )
            }
            Entry::CallAllowed { effect, .. } => self.open(*effect, "allowed").map(|_| ()),
            Entry::CallAbandoned { effect, .. } => self.open(*effect, "abandoned").map(|_| ()),
            Entry::DoubtRaised { effect, .. } => self.open(*effect, "doubted").map(|_| ()),
            Entry::DoubtResolved { effect, .. } => {
                let open = self.open(*effect, "resolved")?;
                holds(open.doubt.is_some(), &format!("{effect} is resolved and was not in doubt"))
            }
            Entry::WaitClosed { effect, .. } => {
                holds(self.run.waits.contains_key(effect), &format!("wait {effect} ended and is not open"))
            }
            Entry::TimerEnded { effect, fired } => match self.run.timers.get(effect) {
                None => Err(format!("timer {effect} ended and is not set")),
                Some(timer) if *fired && timer.due > self.run.now => {
                    Err(format!("timer {effect} fired before its time"))
                }
                Some(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn open(&self, effect: EffectId, what: &str) -> Result<&OpenCall, String> {
        self.run.calls.get(&effect).ok_or_else(|| format!("call {effect} was {what} and is not open"))
    }

    fn absent(&self, child: &RunId) -> Result<(), String> {
        holds(!self.run.children.contains_key(child), &format!("child `{child}` was started twice"))
    }

    fn entered(&mut self, state: &Name) -> Result<(), String> {
        if let Some(expected) = self.expected.take() {
            holds(expected == *state, &format!("it entered `{state}` and was to go to `{expected}`"))?;
        } else {
            // The first state, and one that is tried again.
            holds(self.run.stage == Stage::Starting, &format!("it entered `{state}` without a transition"))?;
        }
        let known = self.machine().is_none_or(|machine| machine.states.contains_key(state));
        holds(known, &format!("its machine has no state `{state}`"))
    }

    fn moved(&mut self, from: &Name, to: &Name, index: Option<u32>) -> Result<(), String> {
        holds(self.run.state.as_ref() == Some(from), &format!("it left `{from}` and was not there"))?;
        let state = self.machine().and_then(|machine| machine.states.get(from));
        if let (Some(state), Some(index)) = (state, index) {
            // A hook may send a run elsewhere, which leaves no index.
            let chosen = state.transitions.get(index as usize);
            let fits = chosen.is_some_and(|transition| transition.to == *to);
            holds(fits, &format!("transition {index} of `{from}` does not lead to `{to}`"))?;
        }
        self.expected = Some(to.clone());
        Ok(())
    }
}

fn holds(condition: bool, why: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(why.to_owned()) }
}
