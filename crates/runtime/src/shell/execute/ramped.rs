//! Attempts at tools whose ramp has a budget.

use std::sync::atomic::Ordering;

use windlass_core::contract::RampBudget;
use windlass_core::effect::{Call, OpenCall, Outcome, Spent};
use windlass_core::failure::Code;
use windlass_core::ids::Name;
use windlass_core::machine::Machine;
use windlass_ports::tool::Catalog;

use super::{Attempt, Job, unsent};
use crate::shell::ramps;

/// The tool and the budget of its ramp, when the call is one that is taken from it. How much that is says the catalog as it is
/// configured: runs that began under another budget are not to stop the ramp of all.
pub(super) fn budget(catalog: &Catalog, machine: &Machine, open: &OpenCall) -> Option<(Name, RampBudget)> {
    let tool = match &open.call {
        Call::Tool { tool, hook: None, .. } | Call::Action { action: tool } | Call::Verify { tool, .. } => tool,
        // Agents and hooks may be called like a tool.
        Call::Tool { .. } | Call::Model { .. } | Call::Hook { .. } => return None,
    };
    let pinned = machine.tools.get(tool).filter(|_| open.shadow.is_none())?.shadow.as_ref()?.budget.as_ref()?;
    let configured = catalog.tools.get(tool).and_then(|tool| tool.contract().shadow.as_ref()?.budget.clone());
    Some((tool.clone(), configured.unwrap_or_else(|| pinned.clone())))
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
            // What a caller got wrong says nothing about the tool.
            let failed = matches!(&ended.0, Outcome::Failed(failure) if failure.code != Code::ToolBadArguments);
            ramps::ended(&self.core, tool, budget, failed).await;
        } else {
            ramps::left_out(&self.core, tool).await;
        }
        ended
    }
}
