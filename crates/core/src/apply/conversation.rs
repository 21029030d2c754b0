//! Conversations that get too long: what a run keeps of that.

use super::{leave_agent, with_loop};
use crate::ids::Name;
use crate::near::ON_NEAR;
use crate::run::Run;

/// The agent of a state is done: its conversation may be shortened again.
pub(super) fn ended(run: &mut Run) {
    let state = run.state.clone();
    run.shortened.retain(|shortened| Some(shortened) != state.as_ref());
    leave_agent(run);
}

/// A failure leads on to another state.
pub(super) fn routed(run: &mut Run, from: &Name, by: &Name) {
    run.failure = None;
    if &**by == ON_NEAR && !run.shortened.contains(from) {
        run.shortened.push(from.clone());
    }
}

/// It was noted that the conversation is nearly as long as its model takes.
pub(super) fn near(run: &mut Run) {
    if let Some(exec) = &mut run.exec {
        exec.near = true;
    }
}

/// A tool is shut off for the run, and shown to its model no longer.
pub(super) fn shut_off(run: &mut Run, tool: &Name, why: &Name) {
    run.pulse.shut_off(tool, why);
    with_loop(run, |state, _| {
        if let Some(offered) = &mut state.offered {
            offered.retain(|offered| offered.definition.name != *tool);
        }
    });
}
