//! Attempts at tools whose ramp has a budget.

use std::sync::atomic::Ordering;

use windlass_core::contract::RampBudget;
use windlass_core::effect::{Call, OpenCall, Outcome, Spent};
use windlass_core::ids::Name;
use windlass_core::machine::Machine;

use super::{Attempt, Job, unsent};
use crate::shell::ramps;

/// The tool and the budget of its ramp, when the call is one that is taken from it.
pub(super) fn budget(machine: &Machine, open: &OpenCall) -> Option<(Name, RampBudget)> {
    let tool = match &open.call {
        Call::Tool { tool, hook: None, .. } | Call::Action { action: tool } | Call::Verify { tool, .. } => tool,
        // Agents and hooks may be called like a tool.
        Call::Tool { .. } | Call::Model { .. } | Call::Hook { .. } => return None,
    };
    let contract = machine.tools.get(tool).filter(|_| open.shadow.is_none())?;
    Some((tool.clone(), contract.shadow.as_ref()?.budget.clone()?))
}

impl Attempt {
    /// Sends the call when the budget of its ramp lets it, and has counted how it ended.
    pub(super) async fn send_ramped(&self, job: Job) -> (Outcome, Spent) {
        let Some((tool, budget)) = &self.ramp else { return self.send_in_turn(job).await };
        if let Err(failure) = ramps::enter(&self.core, tool, budget).await {
            return unsent(failure);
        }
        let ended = self.send_in_turn(job).await;
        if self.sent.load(Ordering::Acquire) {
            ramps::ended(&self.core, tool, budget, matches!(ended.0, Outcome::Failed(_))).await;
        }
        ended
    }
}
