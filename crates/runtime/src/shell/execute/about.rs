//! What meters are told of a call beside what it is given and gives back. Noted when it starts, since it may end long after.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;
use windlass_core::contract::Contract;
use windlass_core::effect::{Call, OpenCall, Outcome, Spent};
use windlass_core::failure::{Code, Failure};
use windlass_core::hidden::Hidden;
use windlass_core::ids::{Digest, EffectId, Name};
use windlass_core::machine::Machine;
use windlass_core::run::Run;
use windlass_core::time::Timestamp;
use windlass_core::trace::Incoming;
use windlass_core::value::Value;

use crate::shell::observe::{Called, Leaving, Meter};

/// What meters are told of a call.
pub(super) struct About {
    pub(super) machine: Name,
    pub(super) user: Option<Name>,
    pub(super) key: String,
    pub(super) trace: Option<Incoming>,
    pub(super) target: Name,
    pub(super) arguments: Digest,
    pub(super) unshown: Unshown,
}

/// What contracts say is not shown of a call.
pub(super) struct Unshown {
    /// Of the run so far, and of what the call is given.
    hidden: Hidden,
    /// Tools that hide something.
    tools: BTreeMap<Name, Arc<Contract>>,
    call: Call,
}

impl Unshown {
    /// With what is hidden of how it ended.
    pub(super) fn with(&self, outcome: &Outcome) -> Hidden {
        let mut hidden = self.hidden.clone();
        Hidden::of_answer(&self.tools, &self.call, outcome).into_iter().for_each(|found| hidden.join(found));
        hidden
    }
}

impl About {
    pub(super) fn of(machine: &Machine, run: &Run, effect: EffectId, open: &OpenCall) -> Self {
        let hides = |tool: &(&Name, &Arc<Contract>)| !tool.1.redact.is_default();
        let tools = machine.tools.iter().filter(hides).map(|(name, tool)| (name.clone(), Arc::clone(tool))).collect();
        Self {
            machine: run.start.machine_name.clone(),
            user: run.start.scope.user.clone(),
            key: effect.key(run.id()),
            trace: run.start.caller.trace.clone(),
            target: open.call.target().clone(),
            arguments: open.arguments,
            unshown: Unshown { hidden: run.hidden.clone(), tools, call: open.call.clone() },
        }
    }
}

/// A call that is out.
pub(super) struct Flight<'a> {
    pub(super) meter: &'a dyn Meter,
    pub(super) leaving: &'a Leaving<'a>,
    pub(super) unshown: &'a Unshown,
    pub(super) began: Timestamp,
    pub(super) since: Instant,
    pub(super) told: bool,
    pub(super) asked: Option<Value>,
}

impl Flight<'_> {
    pub(super) fn tell(&mut self, outcome: &Outcome, spent: &Spent) {
        self.told = true;
        let took = self.since.elapsed();
        let (call, began, asked) = (self.leaving, self.began, self.asked.as_ref());
        let hidden = asked.map(|_| self.unshown.with(outcome));
        self.meter.called(&Called { call, began, took, outcome, spent, asked, hidden: hidden.as_ref() });
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.told {
            let failure = Failure::new(Code::RunAttemptLost, "the call was given up");
            self.tell(&Outcome::Failed(failure), &Spent::Unknown);
        }
    }
}
