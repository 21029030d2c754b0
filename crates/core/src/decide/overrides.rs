//! Another model in the place of what a document names, for a run in flight.
//!
//! | what | where it goes |
//! |---|---|
//! | a call that is decided on from here on | to the new one |
//! | one that is out or waits to leave | as it was decided on |
//! | one that fails for a while, or whose process was lost | its next attempt to the new one |

use super::{Rejected, Turn};
use crate::effect::{Call, OpenCall};
use crate::failure::{Code, Failure, Retry};
use crate::ids::EffectId;
use crate::input::Input;
use crate::journal::Entry;
use crate::machine::{Agent, Machine};
use crate::overrides::ModelChange;
use crate::policy::Question;
use crate::route::Choice;
use crate::run::Run;

/// Refuses what is about an agent that the machine does not have, and what comes too late.
pub(super) fn admit(machine: &Machine, run: &Run, change: &ModelChange) -> Result<(), Rejected> {
    match &change.agent {
        _ if run.ending.is_some() => Err(Rejected::NotNow("the run is ending already".into())),
        Some(agent) if !machine.agents.contains_key(agent) => {
            Err(Rejected::NotNow(format!("machine `{}` has no agent `{agent}`", machine.name)))
        }
        Some(_) if change.below => Err(Rejected::NotNow("the agents of the runs below have names of their own".into())),
        Some(_) | None => Ok(()),
    }
}

/// The questions of agents that call another model than their documents name, or will after the input.
pub(super) fn questions(machine: &Machine, run: &Run, input: &Input) -> Vec<Question> {
    match input {
        Input::ModelChanged(change) => run.overrides.changed(change).questions(machine.agents.keys()).collect(),
        _ => run.overrides.questions(machine.agents.keys()).collect(),
    }
}

impl Turn<'_> {
    /// Notes which model agents call from here on, and tells the runs below.
    pub(super) fn change_model(&mut self, change: ModelChange) {
        if self.run.overrides.changed(&change) != self.run.overrides {
            self.emit(Entry::ModelChanged(Box::new(change.clone())));
        }
        if change.below {
            self.tell_children("model", || Input::ModelChanged(Box::new(change.clone())));
        }
    }

    /// The question that a call of an agent puts to the policy before a link is chosen.
    pub(super) fn model_question(&self, agent: &Agent) -> Question {
        let model = self.run.overrides.of(&agent.name).map_or(&agent.model.model, |instead| &instead.to.model);
        Question::CallModel { agent: agent.name.clone(), model: model.clone() }
    }

    /// Whether an agent may be called without a chain: not when somebody named one that this process does not know.
    pub(super) fn unrouted(&self, agent: &Agent) -> Result<(), Failure> {
        let Some(instead) = self.run.overrides.of(&agent.name) else { return Ok(()) };
        let message = format!(
            "the model catalog of this process has no `{}/{}`, which {} put in the place of the model of agent `{}`",
            instead.to.provider, instead.to.model, instead.by, agent.name
        );
        Err(Failure::new(Code::ProviderUnknown, message))
    }

    /// Whether somebody named another model since a call was decided on, or took one back.
    pub(super) fn is_replaced(&self, open: &OpenCall) -> bool {
        let Call::Model { agent, .. } = &open.call else { return false };
        let by_override = open.route.as_ref().filter(|route| route.by.is_some());
        match (self.run.overrides.of(agent), by_override) {
            (Some(instead), Some(route)) => instead.to.model != route.chain,
            (Some(_), None) => true,
            (None, by_override) => by_override.is_some(),
        }
    }

    /// The route after a failure that may be over in a while, where another model was named since the call was decided on.
    pub(super) fn replaced_route(&mut self, effect: EffectId, failure: &Failure) -> Option<Choice> {
        let open = self.run.calls.get(&effect)?;
        let may_pass = matches!(failure.retry, Retry::Backoff | Retry::After(_));
        if may_pass && self.is_replaced(open) { self.renewed_route(effect) } else { None }
    }
}
