//! Calls for which a ceiling of the run has too little: put to a person when the ceilings say so, let go when there is enough,
//! and the failure that names the ceiling and what used most.

use super::Turn;
use super::approval::Asked;
use crate::approval::shown;
use crate::budget::{Amounts, Beyond, Exceeded};
use crate::effect::{Effect, OpenWait, WaitKind};
use crate::failure::{Code, Failure};
use crate::ids::{EffectId, Name, RunId};
use crate::input::Input;
use crate::journal::Entry;
use crate::run::Run;
use crate::value::Value;

impl Turn<'_> {
    /// What a call that takes `wanted` holds from the beginning, and what it still wants because the ceilings have too
    /// little and may be raised.
    ///
    /// # Errors
    /// Too little, and nobody is to be asked.
    pub(super) fn hold_or_want(&self, wanted: Amounts) -> Result<(Amounts, Amounts), Failure> {
        match self.run.ledger.check(&wanted) {
            Ok(()) => Ok((wanted, Amounts::ZERO)),
            Err(_) if self.run.ledger.ceilings.beyond == Beyond::Ask => Ok((Amounts::ZERO, wanted)),
            Err(over) => Err(exceeded(self.run, over)),
        }
    }

    /// Whether what a call takes is held: at once, or now that there is enough. Otherwise a person is asked.
    pub(super) fn has_room(&mut self, effect: EffectId) -> bool {
        let Some(open) = self.run.calls.get(&effect) else { return false };
        if open.wants.is_zero() {
            return true;
        }
        match self.run.ledger.check(&open.wants) {
            Ok(()) => {
                self.emit(Entry::RoomHeld { effect });
                true
            }
            Err(over) => {
                self.ask_ceiling(effect, over);
                false
            }
        }
    }

    fn ask_ceiling(&mut self, effect: EffectId, over: Exceeded) {
        let wait = self.next_effect();
        let Some(open) = self.run.calls.get(&effect) else { return };
        let kind = WaitKind::Ceiling { effect, shown: shown(self.run.id(), wait, effect, open), over };
        let why = Asked::new("ceiling", exceeded(self.run, over).message);
        self.emit(Entry::WaitOpened { effect: wait, wait: OpenWait::new("".into(), kind, None) });
        self.ask(Effect::OpenWait(wait));
        self.emit(Entry::ApprovalAsked {
            effect,
            wait,
            rule: why.rule,
            version: why.version,
            reason: why.reason,
            escalation: None,
        });
    }

    /// Lets calls go for which there is enough by now, because a ceiling was raised or others used less than was held.
    pub(super) fn refit(&mut self) {
        if self.run.ending.is_some() || self.run.hold.is_some() {
            return;
        }
        let asking = self.run.waits.iter().filter_map(|(wait, open)| match open.kind {
            WaitKind::Ceiling { effect, .. } => Some((*wait, effect)),
            WaitKind::Signal
            | WaitKind::Outcome { .. }
            | WaitKind::ToolChanged { .. }
            | WaitKind::Approval { .. }
            | WaitKind::Budget { .. }
            | WaitKind::Transition { .. } => None,
        });
        for (wait, effect) in asking.collect::<Vec<_>>() {
            let fits = self.run.calls.get(&effect).is_some_and(|open| self.run.ledger.check(&open.wants).is_ok());
            if fits {
                self.close_wait(wait, None);
                if self.may_still(effect) {
                    self.leave(effect);
                }
            }
        }
    }

    /// Raises the ceilings by what somebody said, or by what the call lacks, here and in every run above: what a run was
    /// given is a part of what its parent may use.
    pub(super) fn raise_ceilings(&mut self, effect: EffectId, said: Amounts, by: &Name) {
        let Some(open) = self.run.calls.get(&effect) else { return };
        let lacking = self.run.ledger.lacking(&open.wants);
        let amounts = if said.is_zero() { lacking } else { said };
        if !amounts.is_zero() {
            let ceilings = self.run.ledger.raised(&amounts);
            self.emit(Entry::CeilingsChanged { ceilings, by: by.clone() });
            self.tell_raised(amounts);
        }
    }

    pub(super) fn child_raised(&mut self, child: RunId, amounts: Amounts) {
        self.emit(Entry::ChildRaised { child, amounts });
        self.tell_raised(amounts);
    }

    fn tell_raised(&mut self, amounts: Amounts) {
        if let Some(parent) = &self.run.start.parent {
            let child = self.run.id().clone();
            // A run can be raised any number of times, so its version is a part of the message's name.
            let id: Name = format!("raised:{child}:{}", self.run.version).into();
            let input = Box::new(Input::ChildRaised { child, amounts });
            self.decision.effects.push(Effect::Tell { to: parent.run.clone(), id, input });
        }
    }
}

/// The failure for a ceiling that would be passed, with what used most of it.
pub(super) fn exceeded(run: &Run, over: Exceeded) -> Failure {
    let Exceeded { meter, ceiling, left, wanted } = over;
    let word = meter.as_str();
    let before = match run.ledger.inherited.get(meter) {
        0 => String::new(),
        used => format!("; {used} were used before the fork"),
    };
    let message = format!("the ceiling of {ceiling} {word} is reached: {left} left, {wanted} wanted{before}");
    let top = crate::budget::top(&run.ledger.drivers, meter);
    Failure::new(Code::BudgetExceeded, message + &most(&top)).detail(Value::object([
        ("meter", Value::str(word)),
        ("ceiling", Value::count(ceiling)),
        ("left", Value::count(left)),
        ("wanted", Value::count(wanted)),
        ("drivers", drivers(&top)),
    ]))
}

/// What used most, as the end of a sentence.
pub(super) fn most(top: &[(&Name, u64)]) -> String {
    let most: Vec<String> = top.iter().map(|(name, used)| format!("`{name}` {used}")).collect();
    if most.is_empty() { String::new() } else { format!("; in this run most was used by {}", most.join(", ")) }
}

/// What used most, for programs.
pub(super) fn drivers(top: &[(&Name, u64)]) -> Value {
    let driver = |(name, used): &(&Name, u64)| {
        Value::object([("name", Value::Str((*name).clone())), ("used", Value::count(*used))])
    };
    Value::list(top.iter().map(driver).collect())
}
