//! Calls: intended, settled, tried again, lost with their process, and in doubt.

use super::Turn;
use super::approval::{labels_now, question_of};
use super::permit::{About, Terms};
use crate::audit::RULED_VERSION;
use crate::budget::{Amounts, Meter};
use crate::contract::{Class, Contract, Idempotency, OnUnknown};
use crate::effect::{Call, Doubt, Effect, OpenCall, OpenWait, Outcome, Said, Spent, TimerPurpose, WaitKind};
use crate::escrow;
use crate::failure::{Code, Failure, Retry};
use crate::ids::{Digest, EffectId, Name};
use crate::input::{Input, Quote};
use crate::journal::Entry;
use crate::label::{LabelSet, Tags};
use crate::limits::{CALL_COST_MICROS_MAX, CALL_TOKENS_MAX, LOSSES_MAX, OUTPUT_TOKENS_DEFAULT};
use crate::machine::{Agent, Execution};
use crate::policy::{Question, Ruled};
use crate::request;
use crate::resource::Resource;
use crate::retry::pause_ms;
use crate::route::Choice;
use crate::run::Run;
use crate::value::Value;

/// The questions that calls put to the policy once more before they are made again: one that was lost, and those in doubt.
pub(super) fn questions<'a>(run: &'a Run, input: &'a Input) -> impl Iterator<Item = Question> + 'a {
    let lost = if let Input::Lost { effect, .. } = input { Some(*effect) } else { None };
    let again = run.calls.iter().filter(move |(effect, open)| lost == Some(**effect) || open.doubt.is_some());
    again.flat_map(|(_, open)| {
        LabelSet::ALL.into_iter().filter_map(|labels| question_of(run, &open.call, None, labels, true))
    })
}

impl Turn<'_> {
    /// Commits to a call and asks for it, or for the approval of a person.
    pub(super) fn intend(
        &mut self,
        call: Call,
        contract: &Contract,
        timeout_ms: u64,
        terms: Terms,
    ) -> Result<(), Failure> {
        let reserved = match &call {
            Call::Tool { .. } | Call::Action { .. } => Amounts::ZERO.with(Meter::ToolCalls, 1),
            Call::Model { .. } | Call::Hook { .. } | Call::Verify { .. } => Amounts::ZERO,
        };
        let Terms { ruled, asked } = terms;
        let effect = self.intend_reserved(call, contract, (timeout_ms, reserved), None, ruled)?;
        // Nobody is asked about what is not done.
        let is_shadow = self.run.calls.get(&effect).is_some_and(|open| open.shadow.is_some());
        match asked.filter(|_| !is_shadow) {
            Some(asked) => self.ask_approval(effect, asked, &contract.approval),
            None => self.leave(effect),
        }
        Ok(())
    }

    /// Commits to a model call, holding its worst case.
    pub(super) fn intend_model(&mut self, agent: &Agent, sample: u32) -> Result<(), Failure> {
        self.permitted(&self.model_question(agent), About::Nothing)?;
        let route = self.first_route(agent, sample)?;
        let call = Call::Model { agent: agent.name.clone(), sample };
        self.note_conversation(agent, &call, route.as_ref())?;
        self.can_take(agent, &call, route.as_ref())?;
        let reserved = self.worst_case(agent, sample, route.as_ref());
        let timeout_ms = route.as_ref().map_or(agent.model.timeout_ms, |route| route.settings.timeout_ms);
        let contract = Contract {
            class: Class::Read,
            idempotency: Idempotency::None,
            output_bytes_max: crate::limits::VALUE_BYTES_MAX as u64,
            ..Contract::undeclared(&agent.name)
        };
        let ruled = self.model_ruled(agent, route.as_ref());
        let effect = self.intend_reserved(call, &contract, (timeout_ms, reserved), route, ruled)?;
        self.leave(effect);
        Ok(())
    }

    fn intend_reserved(
        &mut self,
        call: Call,
        contract: &Contract,
        (timeout_ms, reserved): (u64, Amounts),
        route: Option<Choice>,
        ruled: Option<Ruled>,
    ) -> Result<EffectId, Failure> {
        let (reserved, wants) = self.hold_or_want(reserved)?;
        let effect = self.next_effect();
        let mut open = OpenCall {
            call,
            attempt: 1,
            class: contract.class,
            idempotency: contract.idempotency,
            arguments: Digest::ZERO,
            reserved,
            timeout_ms,
            output_bytes_max: contract.output_bytes_max,
            at: self.facts.now,
            backoff: None,
            doubt: None,
            losses: 0,
            approval: None,
            route: route.map(Box::new),
            held: Vec::new(),
            draws: false,
            wants,
            cached_expected: None,
            agreed: None,
            output_max: None,
            veiled: contract.redact.arguments.clone(),
            ruled: ruled.map(Box::new),
            resources: Vec::new(),
            shadow: None,
        };
        open.shadow = self.stub(&open.call, contract);
        open.cached_expected = self.cached_expected(&open);
        self.hide_sent(&open.call);
        open.resources = self.resources_of(&open.call);
        open.output_max = self.output_max(&open);
        open.arguments = request::digest(self.machine, self.run, effect, &open);
        self.emit(Entry::CallIntended { effect, call: Box::new(open) });
        Ok(effect)
    }

    /// The ids of what a call touches, as its contract says.
    fn resources_of(&self, call: &Call) -> Vec<Resource> {
        let name = match call {
            Call::Tool { tool: name, hook: None, .. } | Call::Action { action: name } => name,
            Call::Tool { .. } | Call::Model { .. } | Call::Hook { .. } | Call::Verify { .. } => return Vec::new(),
        };
        if self.machine.tools.get(name).is_none_or(|contract| contract.resources.is_empty()) {
            return Vec::new();
        }
        let arguments = request::arguments_of(self.machine, self.run, call);
        arguments.map(|arguments| self.touched(name, &arguments, labels_now(self.run, call))).unwrap_or_default()
    }

    /// What a call reads that this run does not make.
    fn stub(&self, call: &Call, contract: &Contract) -> Option<Value> {
        match call {
            Call::Tool { hook: None, .. } | Call::Action { .. } | Call::Verify { .. } => {
                let shadow = contract.shadow.as_ref()?;
                let tool = call.target();
                shadow.stub(self.run.id(), tool, self.facts.stopped_ramps.contains(tool)).cloned()
            }
            Call::Tool { .. } | Call::Model { .. } | Call::Hook { .. } => None,
        }
    }

    /// The price of an agent's model, or of the link of its chain; none when it has none.
    pub(super) fn quote(&self, agent: &str, route: Option<&Choice>) -> Option<&Quote> {
        match route {
            Some(choice) => match self.facts.routes.get(agent) {
                Some(chain) => chain.link(choice)?.quote.as_ref(),
                // Its own model, since another one was taken back.
                None => self.facts.quotes.get(agent),
            },
            None => self.facts.quotes.get(agent),
        }
    }

    /// The bound of the output that a model call needs although its profile names none: what a budget holds for it counts on
    /// it, and so does a ceiling that it waits for. Other ceilings of the run say so themselves.
    fn output_max(&self, open: &OpenCall) -> Option<u64> {
        let Call::Model { .. } = &open.call else { return None };
        let of = |meter| move |known: &escrow::Known| known.budget.caps.contains_key(&meter);
        let binds = |scope| {
            let known = self.facts.budgets.get(&scope);
            known.is_some_and(|known| of(Meter::Tokens)(known) || of(Meter::CostMicros)(known))
        };
        let scopes = escrow::scopes(&self.run.start.scope, &open.call);
        (!open.wants.is_zero() || scopes.into_iter().any(binds)).then_some(OUTPUT_TOKENS_DEFAULT)
    }

    /// What the conversation of a model call has sent to the same model before.
    fn cached_expected(&self, open: &OpenCall) -> Option<u64> {
        let Call::Model { sample, .. } = &open.call else { return None };
        let link = open.route.as_ref().map(|route| &route.name);
        let prefix = self.run.exec.as_ref()?.samples.get(*sample as usize)?.prefix.as_ref();
        Some(prefix.filter(|prefix| prefix.link.as_ref() == link).map_or(0, |prefix| prefix.tokens))
    }

    /// The most that one attempt can use: every byte a token, every output token used, at the quoted price.
    fn worst_case(&self, agent: &Agent, sample: u32, route: Option<&Choice>) -> Amounts {
        let model = route.map_or(&agent.model, |route| &route.settings);
        let bytes = request::input_bytes(self.run, agent, sample, &model.provider);
        let input = bytes / crate::limits::BYTES_PER_TOKEN_MIN;
        let output = model.max_tokens.unwrap_or(OUTPUT_TOKENS_DEFAULT);
        let quote = self.quote(&agent.name, route);
        let mut beyond = quote.map_or(Amounts::ZERO, |quote| quote.beyond);
        let cost = quote.map_or(0, |quote| {
            let part = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
            let micros = (part(input, quote.input) + part(output, quote.output)).div_ceil(1_000_000);
            u64::try_from(micros).unwrap_or(u64::MAX)
        });
        let own = Amounts::ZERO.with(Meter::Tokens, input.saturating_add(output)).with(Meter::CostMicros, cost);
        beyond.add(&own);
        beyond.with(Meter::ModelCalls, 1)
    }

    pub(super) fn on_settled(&mut self, effect: EffectId, outcome: Outcome, spent: Spent) {
        let Some(open) = self.run.calls.get(&effect).cloned() else { return };
        let (used, estimated) = charge(&open, spent);
        let outcome = charged(outcome, &used);
        self.hide_outcome(&open.call, &outcome);
        if self.awaits_tool(effect, &open, &outcome) {
            return;
        }
        let outcome = self.break_storm(&open, outcome);
        if let Outcome::Failed(failure) = &outcome {
            if let Some(route) = self.next_route(&open, failure).or_else(|| self.replaced_route(effect, failure)) {
                let (attempt, failure) = (open.attempt, failure.clone());
                self.emit(Entry::AttemptFailed { effect, attempt, failure, used, estimated, backoff: None });
                return self.attempt_by(effect, Some(route));
            }
            if let Call::Model { agent, .. } = &open.call
                && let Some(pause) = pause_ms(self.execution_of(agent), open.attempt, failure, self.facts.seed)
            {
                let failure = failure.clone();
                return self.back_off(effect, &open, failure, used, estimated, pause);
            }
            if failure.retry == Retry::Unknown && !open.may_repeat() {
                return self.doubt(effect, &open);
            }
        }
        let attempt = open.attempt;
        match &open.call {
            Call::Verify { about, tool } => {
                let about = *about;
                let answer = match &outcome {
                    Outcome::Returned(value) => value.clone(),
                    Outcome::Replied(_) | Outcome::Failed(_) => Value::Null,
                };
                let tags = self.verified_labels(about, tool, &answer);
                let by = Some(tool.clone());
                self.emit(Entry::CallSettled { effect, attempt, outcome, used, estimated });
                self.resolve_doubt(about, &answer, by, tags);
            }
            Call::Model { .. } | Call::Hook { .. } => {
                self.emit(Entry::CallSettled { effect, attempt, outcome, used, estimated });
            }
            Call::Tool { tool: name, .. } | Call::Action { action: name } => {
                self.emit(Entry::CallSettled { effect, attempt, outcome, used, estimated });
                self.break_tool(name);
            }
        }
    }

    fn execution_of(&self, agent: &str) -> &Execution {
        self.state()
            .and_then(|state| state.agent.as_ref())
            .filter(|call| &*call.agent == agent)
            .map_or(&Execution::Once, |call| &call.execution)
    }

    pub(super) fn back_off(
        &mut self,
        effect: EffectId,
        open: &OpenCall,
        failure: Failure,
        used: Amounts,
        estimated: bool,
        pause: u64,
    ) {
        let timer = self.set_timer(self.facts.now.plus_ms(pause), TimerPurpose::Backoff { call: effect });
        let attempt = open.attempt;
        self.emit(Entry::AttemptFailed { effect, attempt, failure, used, estimated, backoff: Some(timer) });
    }

    /// The pause is over, or the process that made the last attempt is gone: one more attempt, or the ceiling.
    pub(super) fn attempt_again(&mut self, effect: EffectId) {
        let paused = self.run.calls.get(&effect).is_some_and(|open| open.backoff.is_some());
        // After a pause a chain begins anew; what was lost is sent again as it was, unless somebody named another model.
        let route = match self.run.calls.get(&effect) {
            Some(open) if paused || self.is_replaced(open) => self.renewed_route(effect),
            Some(_) | None => None,
        };
        self.attempt_by(effect, route);
    }

    /// One more attempt, by another route or by the one it had.
    fn attempt_by(&mut self, effect: EffectId, route: Option<Choice>) {
        let Some(mut open) = self.run.calls.get(&effect).cloned() else { return };
        let (is_rerouted, had_max) = (route.is_some(), open.output_max);
        if let Some(route) = route {
            open.route = Some(Box::new(route.after(open.route.as_deref())));
        }
        if let Err(failure) = self.model_permitted(effect, &open) {
            return self.settle_refused(effect, &open, failure);
        }
        if let Some(failure) = self.cannot_take(&open) {
            return self.settle_refused(effect, &open, failure);
        }
        let reserved = match &open.call {
            Call::Model { agent, sample } => match self.machine.agents.get(agent) {
                Some(agent) => self.worst_case(agent, *sample, open.route.as_deref()),
                None => Amounts::ZERO,
            },
            Call::Tool { .. } | Call::Action { .. } => Amounts::ZERO.with(Meter::ToolCalls, 1),
            Call::Hook { .. } | Call::Verify { .. } => Amounts::ZERO,
        };
        let (reserved, wants) = match self.hold_or_want(reserved) {
            Ok(parts) => parts,
            Err(failure) => return self.settle_refused(effect, &open, failure),
        };
        open.wants = wants;
        let output_max = if had_max.is_none() { self.output_max(&open) } else { None };
        open.output_max = had_max.or(output_max);
        let changes = is_rerouted || output_max.is_some();
        let arguments = changes.then(|| request::digest(self.machine, self.run, effect, &open));
        let ruled = self.ruled_anew(&open);
        let (attempt, route) = (open.attempt + 1, open.route.filter(|_| is_rerouted));
        self.emit(Entry::AttemptStarted { effect, attempt, reserved, route, arguments, wants, output_max, ruled });
        self.leave(effect);
    }

    /// The rule that lets a call go once more, where that is another one than before.
    pub(super) fn ruled_anew(&self, open: &OpenCall) -> Option<Box<Ruled>> {
        let ruled = match &open.call {
            Call::Model { agent, .. } => self.model_ruled(self.machine.agents.get(agent)?, open.route.as_deref())?,
            call => {
                let question = self.question_now(call)?;
                self.facts.verdict(&question)?.ruled()
            }
        };
        (open.ruled.as_deref() != Some(&ruled)).then(|| Box::new(ruled))
    }

    /// The process that held this call is gone.
    pub(super) fn on_lost(&mut self, effect: EffectId, maybe_sent: bool) {
        let Some(open) = self.run.calls.get(&effect).cloned() else { return };
        if let Call::Verify { about, tool } = &open.call
            && !self.may_tell(*about, tool)
        {
            let message = format!("the rules do not let `{tool}` tell by now whether the call happened");
            self.settle_refused(effect, &open, Failure::new(Code::PolicyDenied, message));
            return self.resolve_doubt(*about, &Value::Null, None, Tags::new());
        }
        if !maybe_sent {
            return match self.still_permitted(effect, &open) {
                Ok(()) => {
                    self.note_allowed(effect);
                    self.ask(Effect::Call(effect));
                }
                Err(failure) => self.settle_refused(effect, &open, failure),
            };
        }
        let is_model = matches!(open.call, Call::Model { .. });
        if !is_model && !open.may_repeat() {
            return self.doubt(effect, &open);
        }
        if !is_model && let Err(failure) = self.still_permitted(effect, &open) {
            return self.settle_unknown(effect, "policy", &format!("it is not made again: {}", failure.message));
        }
        // Nobody will ever say what a lost model attempt cost, so it is charged in full. A tool that may repeat is
        // the same call made once more.
        let used = if is_model { open.reserved } else { Amounts::ZERO };
        let failure = Failure::new(Code::RunAttemptLost, "the process that made this attempt ended before its result");
        let attempt = open.attempt;
        if open.losses + 1 >= LOSSES_MAX {
            // The call may be what ends its processes: the next one is spared.
            let outcome = Outcome::Failed(failure);
            self.emit(Entry::CallSettled { effect, attempt, outcome, used, estimated: is_model });
            if let Call::Verify { about, .. } = open.call {
                self.resolve_doubt(about, &Value::Null, None, Tags::new());
            }
            return;
        }
        self.emit(Entry::AttemptFailed { effect, attempt, failure, used, estimated: is_model, backoff: None });
        self.attempt_again(effect);
    }

    /// Whether nothing denies by now a call that was decided on before: the rules may have changed since. What asks a
    /// person by now was let go when it was decided on. A plan that has expired since is not applied.
    pub(super) fn still_permitted(&mut self, effect: EffectId, open: &OpenCall) -> Result<(), Failure> {
        if let Some(why) = self.expired_plan(open) {
            return Err(Failure::new(Code::ToolDenied, why));
        }
        self.model_permitted(effect, open)?;
        let question = self.question_now(&open.call);
        question.map_or(Ok(()), |question| self.permit(&question, About::Call(effect)).map(|_| ()))
    }

    /// A call that must not be repeated may or may not have happened.
    fn doubt(&mut self, effect: EffectId, open: &OpenCall) {
        let contract = self.contract_of(&open.call);
        match &contract.on_unknown {
            OnUnknown::Fail => self.settle_unknown(effect, "contract", "its contract says to fail"),
            OnUnknown::Verify { tool } => {
                let Some(reader) = self.machine.tools.get(tool).filter(|reader| reader.class == Class::Read).cloned()
                else {
                    return self.ask_person(effect);
                };
                let Some(ruled) = self.may_verify(open, tool) else { return self.ask_person(effect) };
                let verify = self.next_effect();
                self.emit(Entry::DoubtRaised { effect, doubt: Doubt::Verifying(verify) });
                let call = Call::Verify { tool: tool.clone(), about: effect };
                if self.intend(call, &reader, reader.timeout_ms, Terms { ruled, asked: None }).is_err() {
                    self.ask_person(effect);
                }
            }
            OnUnknown::Ask => self.ask_person(effect),
        }
    }

    fn ask_person(&mut self, effect: EffectId) {
        let wait = self.next_effect();
        let channel = format!("outcome/{}", effect.key(self.run.id())).into();
        let open = OpenWait::new(channel, WaitKind::Outcome { effect }, None);
        self.emit(Entry::WaitOpened { effect: wait, wait: open });
        self.ask(Effect::OpenWait(wait));
        self.emit(Entry::DoubtRaised { effect, doubt: Doubt::Asking(wait) });
    }

    pub(super) fn contract_of(&self, call: &Call) -> Contract {
        match call {
            Call::Tool { tool: name, hook: None, .. } | Call::Action { action: name } => self.machine.tools.get(name),
            Call::Tool { .. } | Call::Model { .. } | Call::Hook { .. } | Call::Verify { .. } => None,
        }
        .map_or_else(|| Contract::undeclared(call.target()), |contract| Contract::clone(contract))
    }

    /// Someone says whether the call happened: `{"happened": bool, "result"?: any}`. Its result has the labels of whoever
    /// said it beside its own.
    pub(super) fn resolve_doubt(&mut self, effect: EffectId, answer: &Value, by: Option<Name>, tags: Tags) {
        let Some(open) = self.run.calls.get(&effect).cloned() else { return };
        if let Some(Value::Bool(happened)) = answer.get("happened") {
            self.found(effect, if *happened { "happened" } else { "not_happened" }, by);
        }
        match answer.get("happened") {
            Some(Value::Bool(true)) => {
                let result = answer.get("result").cloned().unwrap_or_default();
                let used = open.reserved;
                if !result.is_null() {
                    self.label_doubt(&open, tags);
                }
                let outcome = Outcome::Returned(result);
                self.hide_outcome(&open.call, &outcome);
                self.emit(Entry::CallSettled { effect, attempt: open.attempt, outcome, used, estimated: false });
            }
            Some(Value::Bool(false)) => {
                if let Err(failure) = self.still_permitted(effect, &open) {
                    return self.settle_refused(effect, &open, failure);
                }
                let attempt = open.attempt;
                let failure = Failure::new(Code::ToolOutcomeUnknown, "the call turned out not to have happened");
                let used = Amounts::ZERO;
                self.emit(Entry::AttemptFailed { effect, attempt, failure, used, estimated: false, backoff: None });
                self.attempt_again(effect);
            }
            // Neither a tool that cannot tell nor a person who answers something else settles the doubt.
            Some(_) | None => self.ask_person(effect),
        }
    }

    /// Records what was said of a doubt. A run that an older build began goes on without.
    fn found(&mut self, effect: EffectId, found: &str, by: Option<Name>) {
        if self.run.start.audit >= RULED_VERSION {
            self.emit(Entry::DoubtResolved { effect, found: found.into(), by });
        }
    }

    fn settle_unknown(&mut self, effect: EffectId, by: &str, why: &str) {
        if self.run.start.audit >= RULED_VERSION {
            self.emit(Entry::DoubtRaised { effect, doubt: Doubt::Failing });
        }
        self.found(effect, "unknown", Some(by.into()));
        let Some(open) = self.run.calls.get(&effect) else { return };
        let (attempt, used) = (open.attempt, open.reserved);
        let message = format!("`{}` may or may not have been called: {why}", open.call.target());
        let outcome = Outcome::Failed(Failure::new(Code::ToolOutcomeUnknown, message));
        self.emit(Entry::CallSettled { effect, attempt, outcome, used, estimated: false });
    }
}

/// An answer that does not say what it cost has cost what is charged for it: bounds of money count on that.
fn charged(mut outcome: Outcome, used: &Amounts) -> Outcome {
    if let Outcome::Replied(reply) = &mut outcome {
        reply.cost_micros = reply.cost_micros.filter(|cost| *cost <= CALL_COST_MICROS_MAX);
        if used.cost_micros > 0 {
            reply.cost_micros.get_or_insert(used.cost_micros);
        }
    }
    outcome
}

/// What an attempt is charged, and whether that is an estimate.
fn charge(open: &OpenCall, spent: Spent) -> (Amounts, bool) {
    let exactly = |tokens, cost| metered(open, Said::Exactly(tokens), Said::Exactly(cost));
    match (&open.call, spent) {
        (Call::Model { .. }, Spent::Known { tokens, cost_micros }) => exactly(tokens, cost_micros),
        (Call::Model { .. }, Spent::Metered { tokens, cost_micros }) => metered(open, tokens, cost_micros),
        // What was turned away before it left counts as none.
        (_, Spent::Unsent) => (Amounts::ZERO, false),
        (Call::Model { .. }, Spent::Nothing) => (Amounts::ZERO.with(Meter::ModelCalls, 1), false),
        (Call::Model { .. }, Spent::Unknown) => (open.reserved, true),
        (Call::Tool { .. } | Call::Hook { .. } | Call::Action { .. } | Call::Verify { .. }, _) => {
            (open.reserved, false)
        }
    }
}

/// The charge of a model call of which each meter was said on its own. What was not said, or cannot be, is charged at the
/// reservation.
fn metered(open: &OpenCall, tokens: Said, cost_micros: Said) -> (Amounts, bool) {
    let of = |said: Said, meter: Meter, most: u64| match (said, open.reserved.get(meter)) {
        (Said::Exactly(used), _) if used <= most => (used, false),
        (Said::AtLeast(used), reserved) if used <= most => (used.max(reserved), used.max(reserved) > 0),
        (Said::Exactly(_) | Said::AtLeast(_), reserved) => (reserved, true),
    };
    // A call has four kinds of tokens: input, read from a cache, written to one, output.
    let (tokens, guessed) = of(tokens, Meter::Tokens, CALL_TOKENS_MAX * 4);
    let (cost, guessed_cost) = of(cost_micros, Meter::CostMicros, CALL_COST_MICROS_MAX);
    let used = Amounts::ZERO.with(Meter::ModelCalls, 1).with(Meter::Tokens, tokens).with(Meter::CostMicros, cost);
    (used, guessed || guessed_cost)
}
