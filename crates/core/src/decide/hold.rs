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

use super::{Rejected, Turn};
use crate::effect::{Effect, OpenCall};
use crate::ids::Name;
use crate::input::Input;
use crate::journal::Entry;
use crate::run::{Hold, Run};

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
            self.emit(Entry::HoldPlaced { hold: Hold::Paused { reason: reason.clone() } });
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

    /// Ends the hold of the run alone.
    pub(super) fn lift(&mut self) {
        if self.run.hold.is_some() {
            let granted = |open: &OpenCall| open.approval.as_ref().is_some_and(|asked| asked.granted);
            let leaving: Vec<_> = self.run.calls.iter().filter(|(_, open)| granted(open)).map(|(id, _)| *id).collect();
            self.emit(Entry::HoldLifted);
            for effect in leaving {
                self.leave(effect);
            }
        }
    }

    /// Passes an order on to every child that has not ended, launches included. A run can be held and let go any number
    /// of times, so the version of the run that passes it on is a part of the message's name.
    fn tell_children(&mut self, order: &str, input: impl Fn() -> Input) {
        let id: Name = format!("{order}:{}", self.run.version).into();
        let children: Vec<_> = self.run.children.keys().cloned().collect();
        for child in children {
            self.ask(Effect::Tell { to: child, id: id.clone(), input: Box::new(input()) });
        }
    }
}
