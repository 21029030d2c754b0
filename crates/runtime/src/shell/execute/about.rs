//! What meters are told of a call beside what it is given and gives back. Noted when it starts, since it may end long after.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_core::contract::Contract;
use windlass_core::effect::{Call, OpenCall, Outcome};
use windlass_core::hidden::Hidden;
use windlass_core::ids::{Digest, EffectId, Name};
use windlass_core::machine::Machine;
use windlass_core::run::Run;
use windlass_core::trace::Incoming;

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
