//! What a model can take: whether a conversation fits what it takes at once, whether its cost is known where money has a bound,
//! and what of money or tokens is so nearly used up that calls make do with less.
//!
//! How many tokens a conversation has is known only to the provider. A guess is enough to say that it is nearly too long; only
//! what is surely too long is not sent.

use std::borrow::Cow;

use super::Turn;
use crate::budget::{Meter, Unpriced};
use crate::effect::{Call, OpenCall};
use crate::escrow;
use crate::failure::{Code, Failure};
use crate::ids::Name;
use crate::input::Traits;
use crate::journal::Entry;
use crate::label::{Tags, path};
use crate::machine::Agent;
use crate::near::ON_NEAR;
use crate::request;
use crate::route::{Chain, Choice, Link};
use crate::transcript::Message;
use crate::value::Value;

/// The key of the context under which the state that shortens a conversation finds it.
const LAST_CONVERSATION: &str = "last_conversation";

/// Where a run goes instead of making a call whose conversation is too long, and what it takes along.
pub(super) struct Shortening {
    pub(super) to: Name,
    conversation: Value,
    tags: Tags,
}

impl Turn<'_> {
    /// Notes once that the conversation of a call fills most of what its model takes.
    ///
    /// # Errors
    /// It does, and the machine has a state that shortens it.
    pub(super) fn note_conversation(
        &mut self,
        agent: &Agent,
        call: &Call,
        route: Option<&Choice>,
    ) -> Result<(), Failure> {
        let conversation = &self.machine.conversation;
        let takes = self.traits(agent, route).context_tokens;
        let Some(most) = takes.into_iter().chain(conversation.tokens_max).min() else { return Ok(()) };
        let Call::Model { sample, .. } = call else { return Ok(()) };
        let tokens = request::conversation_tokens(self.run, agent, *sample).about;
        let fills = |percent: u8| tokens.saturating_mul(100) >= most.saturating_mul(percent.into());
        let saving = if fills(conversation.near_percent) {
            None
        } else {
            let saving = conversation.saving_percent.filter(|percent| fills(*percent)).and_then(|_| self.saving());
            let Some(saving) = saving else { return Ok(()) };
            Some(saving)
        };
        let model = route.map_or(&agent.model, |route| &route.settings).model.clone();
        if self.run.exec.as_ref().is_some_and(|exec| !exec.near) {
            let (agent, model) = (agent.name.clone(), model.clone());
            self.emit(Entry::ConversationNear { agent, model, tokens, context_tokens: most, saving });
        }
        if !self.shortens() {
            return Ok(());
        }
        let whose = if takes == Some(most) { takes_of(&model) } else { "that it should have".to_owned() };
        Err(too_long(&whose, "about", tokens, most))
    }

    /// Whether a call can be made by a route, or as its agent says.
    ///
    /// # Errors
    /// Its conversation is longer than the model takes; its cost is not known, and money has a bound.
    pub(super) fn can_take(&self, agent: &Agent, call: &Call, route: Option<&Choice>) -> Result<(), Failure> {
        let model = route.map_or(&agent.model, |route| &route.settings);
        let is_priced = self.quote(&agent.name, route).is_some();
        self.takes(agent, call, &model.model, is_priced, self.traits(agent, route))
    }

    /// Why another attempt at an open call cannot be made.
    pub(super) fn cannot_take(&self, open: &OpenCall) -> Option<Failure> {
        let Call::Model { agent, .. } = &open.call else { return None };
        let agent = self.machine.agents.get(agent)?;
        self.can_take(agent, &open.call, open.route.as_deref()).err()
    }

    /// The chain with the links shut that cannot take a call.
    pub(super) fn fitting<'c>(&self, chain: &'c Chain, agent: &Agent, call: &Call) -> Cow<'c, Chain> {
        let mut fitting = Cow::Borrowed(chain);
        for (at, link) in chain.links.iter().enumerate() {
            let Link { settings, quote, traits, shut, .. } = link;
            let fits = self.takes(agent, call, &settings.model, quote.is_some(), *traits);
            if let (None, Err(failure)) = (shut, fits) {
                fitting.to_mut().links[at].shut = Some(failure.message);
            }
        }
        fitting
    }

    fn takes(&self, agent: &Agent, call: &Call, model: &Name, is_priced: bool, traits: Traits) -> Result<(), Failure> {
        let Call::Model { sample, .. } = call else { return Ok(()) };
        if let Some(most) = traits.context_tokens {
            let tokens = request::conversation_tokens(self.run, agent, *sample).least;
            if tokens > most {
                return Err(too_long(&takes_of(model), "at least", tokens, most));
            }
        }
        let refuses = self.run.ledger.ceilings.unpriced == Unpriced::Refuse;
        match self.bound_of_money(call).filter(|_| refuses && !is_priced && !traits.is_free) {
            Some(bound) => Err(unpriced(model, &bound)),
            None => Ok(()),
        }
    }

    fn traits(&self, agent: &Agent, route: Option<&Choice>) -> Traits {
        let known = match route {
            Some(choice) => match self.facts.routes.get(&agent.name) {
                Some(chain) => chain.link(choice).map(|link| link.traits),
                None => self.facts.traits.get(&agent.name).copied(),
            },
            None => self.facts.traits.get(&agent.name).copied(),
        };
        known.unwrap_or_default()
    }

    /// What bounds the money that a call may cost, in words.
    fn bound_of_money(&self, call: &Call) -> Option<Name> {
        if self.run.ledger.ceilings.cost_micros.is_some() {
            return Some("its run has a ceiling of cost_micros".into());
        }
        let binds = |scope: &Name| {
            let known = self.facts.budgets.get(scope);
            known.is_some_and(|known| known.budget.caps.contains_key(&Meter::CostMicros))
        };
        let scope = escrow::scopes(&self.run.start.scope, call).into_iter().find(binds)?;
        Some(format!("the budget of `{scope}` has a cap of cost_micros").into())
    }

    /// What of money or tokens is nearly used up: a budget that binds many runs, or a ceiling of this one.
    pub(super) fn saving(&self) -> Option<Name> {
        if let Some(scope) = escrow::near(&self.facts.budgets, &self.run.start.scope) {
            return Some(format!("the budget of `{scope}`").into());
        }
        let near = [Meter::CostMicros, Meter::Tokens]
            .into_iter()
            .find(|meter| self.run.ledger.nearly_used(*meter, self.machine.near_percent));
        near.map(|meter| format!("the run's ceiling of {}", meter.as_str()).into())
    }

    /// Whether the machine has a state that shortens the conversation of this one, and it was not tried already.
    fn shortens(&self) -> bool {
        let Some(state) = &self.run.state else { return false };
        let to = self.machine.conversation.on_near.as_ref().filter(|to| *to != state);
        to.is_some() && self.run.exec.is_some() && !self.run.shortened.contains(state)
    }

    /// Where a failure leads because the conversation is too long.
    pub(super) fn shortening(&self, failure: &Failure) -> Option<Shortening> {
        let to = self.machine.conversation.on_near.clone()?;
        let applies = failure.code == Code::ProviderContextLength && self.run.failure.is_none() && self.shortens();
        applies.then(|| Shortening { to, conversation: self.conversation(), tags: self.agent_labels() })
    }

    /// Leaves the state for the one that shortens its conversation.
    pub(super) fn shorten(&mut self, shortening: Shortening) {
        let Shortening { to, conversation, tags } = shortening;
        self.set_context(vec![(LAST_CONVERSATION.into(), conversation)]);
        self.taint(path(["context", LAST_CONVERSATION]), tags);
        self.route(ON_NEAR.into(), to);
    }

    /// What was said in the state's conversation, without what one provider alone understands.
    fn conversation(&self) -> Value {
        let exec = self.run.exec.as_ref();
        let prompt = exec.into_iter().flat_map(|exec| &exec.prompt);
        let tail = exec.and_then(|exec| exec.samples.first()).into_iter().flat_map(|sample| &sample.tail);
        Value::list(prompt.chain(tail).map(said).collect())
    }
}

fn said(message: &Message) -> Value {
    let (role, content, asked) = match message {
        Message::System { content } => ("system", content, &[][..]),
        Message::User { content } => ("user", content, &[][..]),
        Message::Tool { content, .. } => ("tool", content, &[][..]),
        Message::Assistant { content, tool_calls, .. } => ("assistant", content, &tool_calls[..]),
    };
    let asked = asked
        .iter()
        .map(|call| Value::object([("name", Value::Str(call.name.clone())), ("arguments", call.arguments.clone())]));
    let (role, content) = (("role", Value::str(role)), ("content", Value::Str(content.clone())));
    match asked.len() {
        0 => Value::object([role, content]),
        _ => Value::object([role, content, ("tool_calls", Value::list(asked.collect()))]),
    }
}

fn takes_of(model: &Name) -> String {
    format!("that `{model}` takes")
}

fn too_long(whose: &str, sure: &str, tokens: u64, most: u64) -> Failure {
    let message = format!("the conversation has {sure} {tokens} tokens, of {most} {whose}");
    Failure::new(Code::ProviderContextLength, message)
        .detail(Value::object([("tokens", Value::count(tokens)), ("context_tokens", Value::count(most))]))
}

fn unpriced(model: &Name, bound: &Name) -> Failure {
    let message =
        format!("the model `{model}` has no price, and {bound}: its `rates` are missing in the model catalog");
    let meter = Meter::CostMicros.as_str();
    Failure::new(Code::BudgetExceeded, message)
        .detail(Value::object([("meter", Value::str(meter)), ("unpriced", Value::Str(model.clone()))]))
}
