//! Holding a run and everything below it, and letting it go on. Children are told through their inboxes, as they are of a
//! cancel; what was told reaches the whole tree because each run passes it on.
//!
//! | the run | pause | unpause |
//! |---|---|---|
//! | goes on | holds, children are told | refused; with children: they are told |
//! | is held | stays held; with children: they are told, otherwise refused | goes on, children are told |
//! | ends or has ended | refused | its hold no longer counts: as above |
//!
//! A read-only switch holds each run by itself, when a call of it that changes something is to leave, and lets it go on.
//! Somebody who pauses such a run holds it beyond that.

use super::{About, Rejected, Turn};
use crate::effect::{Effect, OpenCall, TimerPurpose, WaitKind};
use crate::ids::{EffectId, Name};
use crate::input::Input;
use crate::journal::Entry;
use crate::policy::Question;
use crate::run::{Hold, Run, Stage};

/// The calls that somebody agreed to while the run is held.
pub(super) fn granted(run: &Run) -> impl Iterator<Item = (EffectId, &OpenCall)> {
    let granted = |open: &OpenCall| open.approval.as_ref().is_some_and(|asked| asked.granted);
    run.calls.iter().filter(move |(_, open)| granted(open)).map(|(effect, open)| (*effect, open))
}

/// Whether a pause says anything to the run or to what is below it.
pub(super) fn admit_pause(run: &Run) -> Result<(), Rejected> {
    match () {
        () if run.ending.is_some() => Err(Rejected::NotNow("the run is ending already".into())),
        () if is_held(run) && run.children.is_empty() => Err(Rejected::NotNow("the run is held already".into())),
        () => Ok(()),
    }
}

/// Whether somebody holds the run, and not a switch.
fn is_held(run: &Run) -> bool {
    run.hold.as_ref().is_some_and(|hold| !hold.is_read_only())
}

/// Whether an unpause says anything to the run or to what is below it.
pub(super) fn admit_unpause(run: &Run) -> Result<(), Rejected> {
    if run.hold.is_none() && run.children.is_empty() {
        return Err(Rejected::NotNow("the run is not held".into()));
    }
    Ok(())
}

impl Turn<'_> {
    /// Holds the run and what is below it. A hold that is there already keeps its reason.
    pub(super) fn pause(&mut self, reason: &Name) {
        if !is_held(self.run) {
            // A switch that held it before began what is one hold.
            let since = self.run.hold.as_ref().and_then(Hold::since).or(Some(self.facts.now));
            self.emit(Entry::HoldPlaced { hold: Hold::Paused { reason: reason.clone(), since } });
        }
        self.tell_children("pause", || Input::Pause { reason: reason.clone() });
    }

    /// Lets the run and what is below it go on, and with them the calls that somebody agreed to meanwhile.
    pub(super) fn unpause(&mut self) {
        self.lift();
        self.tell_children("unpause", || Input::Unpause);
    }

    /// Holds the run alone, until a read-only switch is off.
    pub(super) fn hold_writes(&mut self, reason: Name) {
        let since = self.facts.now;
        self.emit(Entry::HoldPlaced { hold: Hold::ReadOnly { reason, since } });
    }

    /// Ends the hold of the run alone. Plans may have expired and rules may have changed while it stood, so the calls that
    /// somebody agreed to are judged again.
    pub(super) fn lift(&mut self) {
        let Some(hold) = &self.run.hold else { return };
        let since = hold.since();
        let leaving: Vec<_> = granted(self.run).map(|(effect, _)| effect).collect();
        self.emit(Entry::HoldLifted);
        if let Some(since) = since {
            self.move_questions(self.facts.now.since_ms(since));
        }
        for effect in leaving {
            if self.may_still(effect) {
                self.leave(effect);
            }
        }
        self.judge_move();
    }

    /// Fails the state when the transition that it is about to leave by is denied by now.
    fn judge_move(&mut self) {
        let (Stage::Moving { to, .. }, Some(from)) = (&self.stage, &self.run.state) else { return };
        if self.run.hooks.is_some() || self.run.ending.is_some() {
            return;
        }
        let question = Question::TakeTransition { from: from.clone(), to: to.clone() };
        if let Err(failure) = self.permit(&question, About::Nothing) {
            self.raise(failure);
        }
    }

    /// Gives those who are asked the time in which the run stood.
    fn move_questions(&mut self, stood_ms: u64) {
        let timed = self.run.timers.iter().filter(|(_, timer)| match timer.purpose {
            TimerPurpose::WaitTimeout { wait } | TimerPurpose::Escalation { wait } => {
                let kind = self.run.waits.get(&wait).map(|open| &open.kind);
                matches!(kind, Some(WaitKind::Approval { .. } | WaitKind::Transition { .. }))
            }
            _ => false,
        });
        let moved: Vec<_> = timed.filter(|_| stood_ms > 0).map(|(id, timer)| (*id, *timer)).collect();
        for (effect, timer) in moved {
            self.emit(Entry::TimerEnded { effect, fired: false });
            self.ask(Effect::CancelTimer(effect));
            self.set_timer(timer.due.plus_ms(stood_ms), timer.purpose);
        }
    }

    /// Passes an order on to every child that has not ended, launches included. A run can be held and let go any number
    /// of times, so the version of the run that passes it on is a part of the message's name.
    pub(super) fn tell_children(&mut self, order: &str, input: impl Fn() -> Input) {
        let id: Name = format!("{order}:{}", self.run.version).into();
        let children: Vec<_> = self.run.children.keys().cloned().collect();
        for child in children {
            self.ask(Effect::Tell { to: child, id: id.clone(), input: Box::new(input()) });
        }
    }
}
