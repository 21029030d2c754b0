//! Which link of an agent's fallback chain an attempt takes. A link that the policy forbids is passed over, and the
//! verdict is recorded; one that is shut is passed over with the reason.

use super::Turn;
use crate::effect::{Call, OpenCall};
use crate::escrow::near;
use crate::failure::{Code, Failure};
use crate::ids::{EffectId, Name};
use crate::machine::{Agent, ModelSettings};
use crate::policy::{Answer, Question};
use crate::route::{Choice, Link};

/// The question that a model call puts to the policy.
pub(super) fn question(agent: &Agent, model: &ModelSettings) -> Question {
    Question::CallModel { agent: agent.name.clone(), model: model.model.clone() }
}

impl Turn<'_> {
    /// The route of a first attempt; none for an agent without a chain.
    pub(super) fn first_route(&mut self, agent: &Agent) -> Result<Option<Choice>, Failure> {
        if !self.facts.routes.contains_key(&agent.name) {
            return Ok(None);
        }
        let choice = self.choose_route(agent, 0, "first", true);
        let none = || {
            let message = format!("the policy forbids every link of the chain of agent `{}`", agent.name);
            Failure::new(Code::PolicyDenied, message)
        };
        choice.map(Some).ok_or_else(none)
    }

    /// The route after a failure that leads on in the chain; none when there is none, or none that can be used.
    pub(super) fn next_route(&mut self, open: &OpenCall, failure: &Failure) -> Option<Choice> {
        let Call::Model { agent, .. } = &open.call else { return None };
        let (machine, current) = (self.machine, open.route.as_ref()?);
        let from = self.facts.routes.get(agent)?.after(current, failure)?;
        let reason = format!("`{}` failed with {}", current.name, failure.code);
        self.choose_route(machine.agents.get(agent)?, from, &reason, false)
    }

    /// The route after a pause: the chain begins anew.
    pub(super) fn renewed_route(&mut self, effect: EffectId) -> Option<Choice> {
        let Call::Model { agent, .. } = &self.run.calls.get(&effect)?.call else { return None };
        let agent = self.machine.agents.get(agent)?;
        self.choose_route(agent, 0, "again after a pause", true)
    }

    fn choose_route(&mut self, agent: &Agent, from: u32, reason: &str, last_resort: bool) -> Option<Choice> {
        let facts = self.facts;
        let chain = facts.routes.get(&agent.name)?;
        let saving = near(&facts.budgets, &self.run.start.scope);
        let choice = chain.choose(from, reason, last_resort, saving, |link| self.denied(agent, link))?;
        for link in chain.links.iter().take(choice.link as usize + 1) {
            let asked = question(agent, &link.settings);
            let verdict = facts.verdicts.iter().find(|verdict| verdict.question == asked);
            if let Some(verdict) = verdict {
                self.note(verdict);
            }
        }
        Some(choice)
    }

    fn denied(&self, agent: &Agent, link: &Link) -> Option<Name> {
        let asked = question(agent, &link.settings);
        match self.facts.verdicts.iter().find(|verdict| verdict.question == asked) {
            Some(verdict) if verdict.answer == Answer::Allow => None,
            Some(verdict) => Some(format!("rule `{}`: {}", verdict.rule, verdict.reason).into()),
            None if self.facts.allow_unasked => None,
            None => Some("no rule was asked, so it is denied".into()),
        }
    }
}
