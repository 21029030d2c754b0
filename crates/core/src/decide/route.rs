//! Which link of an agent's fallback chain an attempt takes. A link that the policy forbids is passed over, and the
//! verdict is recorded; one that is shut is passed over with the reason.

use super::{About, Turn};
use crate::effect::{Call, OpenCall};
use crate::failure::{Code, Failure};
use crate::ids::{EffectId, Name};
use crate::input::Input;
use crate::machine::{Agent, ModelSettings};
use crate::policy::{Answer, Question, Verdict};
use crate::route::{Chain, Choice, Link, Wanted};
use crate::run::{Raised, Run};

/// The question that a model call puts to the policy.
pub(super) fn question(agent: &Agent, model: &ModelSettings) -> Question {
    Question::CallModel { agent: agent.name.clone(), model: model.model.clone() }
}

/// The questions of calls that were made by the links of a chain and may leave once more: the chain may have changed.
pub(super) fn questions(run: &Run, input: &Input) -> impl Iterator<Item = Question> {
    let lost = if let Input::Lost { effect, .. } = input { Some(*effect) } else { None };
    let leaving = run.calls.iter().filter(move |(effect, open)| !open.is_out() || lost == Some(**effect));
    leaving.flat_map(|(_, open)| {
        let (Call::Model { agent, .. }, Some(route)) = (&open.call, &open.route) else { return Vec::new() };
        let named = route.by.is_some().then(|| route.chain.clone());
        let models = named.into_iter().chain([route.settings.model.clone()]);
        models.map(|model| Question::CallModel { agent: agent.clone(), model }).collect()
    })
}

impl Turn<'_> {
    /// The route of a first attempt; none for an agent without a chain. The chain's decision table says the tier, and
    /// after a step to a better one that step does.
    pub(super) fn first_route(&mut self, agent: &Agent, sample: u32) -> Result<Option<Choice>, Failure> {
        let facts = self.facts;
        let Some(chain) = facts.routes.get(&agent.name) else { return self.unrouted(agent).map(|()| None) };
        let call = Call::Model { agent: agent.name.clone(), sample };
        let raised = self.run.exec.as_ref().and_then(|exec| exec.samples.get(sample as usize)?.raised.clone());
        let choice = match raised {
            Some(raised) => {
                let wanted = Wanted { tier: Some(raised.to), row: None, escalated: false };
                self.choose_route(&call, raised.from, &raised.reason, true, &wanted)
            }
            None => self.choose_route(&call, 0, "first", true, &self.wanted(chain)),
        };
        let none = || {
            let message = format!("the policy forbids every link of the chain of agent `{}`", agent.name);
            Failure::new(Code::PolicyDenied, message)
        };
        choice.map(Some).ok_or_else(none)
    }

    /// The route after a failure that leads on in the chain; none when there is none, or none that can be used.
    pub(super) fn next_route(&mut self, open: &OpenCall, failure: &Failure) -> Option<Choice> {
        let Call::Model { agent, .. } = &open.call else { return None };
        let (facts, current) = (self.facts, open.route.as_ref()?);
        let chain = facts.routes.get(agent)?;
        let reason = format!("`{}` failed with {}", current.name, failure.code);
        let rule = chain.escalation(current.link, failure.code).filter(|_| chain.link(current).is_some());
        if let Some((rule, from)) = rule {
            if self.run.escalations < rule.at_most {
                let wanted = Wanted { tier: Some(rule.to.clone()), row: None, escalated: true };
                return self.choose_route(&open.call, from, &reason, false, &wanted);
            }
            // What leads to a better tier does not lead there by another name.
            let next = chain.links.get(from as usize).filter(|next| next.tier != rule.to);
            next?;
        }
        let from = chain.after(current, failure)?;
        self.choose_route(&open.call, from, &reason, false, &Wanted::default())
    }

    /// The step to a better tier after an answer that failed so; none when no rule says so, or it was made often enough.
    pub(super) fn raised(&self, agent: &Agent, sample: u32, code: Code) -> Option<Raised> {
        let chain = self.facts.routes.get(&agent.name)?;
        let at = self.run.exec.as_ref()?.samples.get(sample as usize)?.link?;
        let (rule, from) = chain.escalation(at, code)?;
        let name = &chain.links.get(at as usize)?.name;
        let reason = format!("`{name}` failed with {code}").into();
        (self.run.escalations < rule.at_most).then(|| Raised { to: rule.to.clone(), from, reason })
    }

    /// The tier that the chain's decision table says for this run.
    fn wanted(&self, chain: &Chain) -> Wanted {
        let row = chain.rules.row(&self.run.context);
        row.map_or_else(Wanted::default, |row| Wanted {
            tier: Some(row.tier.clone()),
            row: Some(row.name.clone()),
            escalated: false,
        })
    }

    /// The route after a pause, or since another model was named: the chain begins anew.
    pub(super) fn renewed_route(&mut self, effect: EffectId) -> Option<Choice> {
        let open = self.run.calls.get(&effect)?;
        let reason = if self.is_replaced(open) { "another model was named" } else { "again after a pause" };
        let call = open.call.clone();
        let Call::Model { agent, .. } = &call else { return None };
        let wanted = self.wanted(self.facts.routes.get(agent)?);
        self.choose_route(&call, 0, reason, true, &wanted)
    }

    fn choose_route(
        &mut self,
        call: &Call,
        from: u32,
        reason: &str,
        last_resort: bool,
        wanted: &Wanted,
    ) -> Option<Choice> {
        let (machine, facts) = (self.machine, self.facts);
        let Call::Model { agent, .. } = call else { return None };
        let agent = machine.agents.get(agent)?;
        let chain = self.fitting(facts.routes.get(&agent.name)?, agent, call);
        let saving = self.saving();
        let denied = |link: &Link| self.denied(agent, link);
        let choice = chain.choose(from, reason, last_resort, saving.as_ref(), wanted, denied);
        // Where none can be taken, each was passed over.
        let looked_at = choice.as_ref().map_or(chain.links.len(), |choice| choice.link as usize + 1);
        for (at, link) in chain.links.iter().take(looked_at).enumerate() {
            let asked = question(agent, &link.settings);
            let verdict = facts.verdict(&asked);
            if let Some(verdict) = verdict.filter(|_| choice.is_some()) {
                self.note(verdict);
            }
            if at >= from as usize && self.denied(agent, link).is_some() {
                self.deny(&asked, Code::PolicyDenied, verdict.map(Verdict::ruled), About::Nothing);
            }
        }
        let mut choice = choice?;
        choice.by = self.run.overrides.of(&agent.name).map(|instead| instead.by.clone());
        Some(choice)
    }

    /// Whether the policy allows an attempt at a model now: what the call was intended for may be long ago.
    pub(super) fn model_permitted(&mut self, effect: EffectId, open: &OpenCall) -> Result<(), Failure> {
        let (Call::Model { agent, .. }, machine) = (&open.call, self.machine) else { return Ok(()) };
        let Some(agent) = machine.agents.get(agent) else { return Ok(()) };
        let about = About::Call(effect);
        match &open.route {
            Some(route) if route.by.is_some() => {
                let named = Question::CallModel { agent: agent.name.clone(), model: route.chain.clone() };
                self.permitted(&named, about)?;
                self.permitted(&question(agent, &route.settings), about)
            }
            Some(route) => {
                self.permitted(&question(agent, &agent.model), about)?;
                self.permitted(&question(agent, &route.settings), about)
            }
            None => self.permitted(&question(agent, &agent.model), about),
        }
    }

    fn denied(&self, agent: &Agent, link: &Link) -> Option<Name> {
        let asked = question(agent, &link.settings);
        match self.facts.verdict(&asked) {
            Some(verdict) if verdict.answer == Answer::Allow => None,
            Some(verdict) => Some(format!("rule `{}`: {}", verdict.rule, verdict.reason).into()),
            None if self.facts.allow_unasked => None,
            None => Some("no rule was asked, so it is denied".into()),
        }
    }
}
