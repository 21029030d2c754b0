//! Hooks of an event, called one after another, each seeing what the ones before changed.

use super::permit::Terms;
use super::{About, Permit, Turn, labels, step};
use crate::apply::is_lifecycle;
use crate::contract::Contract;
use crate::effect::{Call, Outcome};
use crate::failure::{Code, Failure};
use crate::hidden;
use crate::ids::Name;
use crate::journal::Entry;
use crate::machine::{Hook, HookKind, State};
use crate::policy::Ruled;
use crate::value::Value;

impl Turn<'_> {
    /// Calls the hooks of `event`. Gives what the event carries after the last of them, or none while one is out.
    pub(super) fn hooks(&mut self, event: HookKind, detail: impl FnOnce() -> Value) -> Result<Option<Value>, Failure> {
        let participants = self.participants(event);
        if self.run.hooks.is_none() {
            if participants.is_empty() {
                return Ok(Some(detail()));
            }
            self.emit(Entry::HooksStarted { event, detail: detail() });
        }
        loop {
            let Some(chain) = &self.run.hooks else { return Ok(None) };
            let (passed, answer, carried) = (chain.passed as usize, chain.answer.clone(), chain.detail.clone());
            if let Some(outcome) = answer {
                let outcome = self.spawned(participants.get(passed), outcome)?;
                let by = participants.get(passed).map(|call| self.hook_contract(call));
                let carried = self.absorb(event, by.as_ref(), outcome, carried)?;
                if passed + 1 >= participants.len() {
                    self.emit(Entry::HooksEnded);
                    return Ok(Some(carried));
                }
                self.emit(Entry::HookPassed { detail: carried });
                continue;
            }
            if chain.call.is_some() {
                return Ok(None);
            }
            match participants.get(passed) {
                Some(call) => {
                    let (call, contract) = (call.clone(), self.hook_contract(call));
                    let (call, terms) = match call {
                        Call::Tool { tool, .. } => self.tool_of_state(&tool, &contract)?,
                        call => {
                            let terms = Permit::Granted(self.action_ruled(&call)).terms(&contract);
                            (call, terms)
                        }
                    };
                    self.intend(call, &contract, contract.timeout_ms, terms)?;
                    return Ok(None);
                }
                None => {
                    self.emit(Entry::HooksEnded);
                    return Ok(Some(carried));
                }
            }
        }
    }

    fn hook_contract(&self, call: &Call) -> Contract {
        match call {
            Call::Action { action: name } | Call::Tool { tool: name, .. } => {
                self.machine.tools.get(name).map_or_else(|| Contract::undeclared(name), |c| Contract::clone(c))
            }
            Call::Hook { .. } | Call::Model { .. } | Call::Verify { .. } => Contract::hook(call.target()),
        }
    }

    /// The hooks of the machine or of the current state.
    pub(super) fn declared_hooks(&self, event: HookKind) -> &[Hook] {
        if is_lifecycle(event) {
            return &self.machine.lifecycle;
        }
        self.state().map_or(&[], |state| &state.hooks)
    }

    /// The call of a tool that a state makes, and what lets it go.
    fn tool_of_state(&mut self, tool: &Name, contract: &Contract) -> Result<(Call, Terms), Failure> {
        let Some(template) = self.state().and_then(|state| state.arguments.as_ref()) else {
            return Err(Failure::new(
                Code::InternalInvariant,
                "a call of a tool by a state that has no arguments for it",
            ));
        };
        let denied =
            |why: String| Err(Failure::new(Code::ToolDenied, format!("the tool `{tool}` was not called: {why}")));
        if contract.plan.is_some() {
            return denied("it goes by plans, which only a model reads".into());
        }
        let arguments = self.fill("arguments", template)?;
        if arguments.as_map().is_none() {
            return denied(format!("its arguments are a mapping, not {}", arguments.type_name()));
        }
        if !contract.input_schema.is_null()
            && let Err(problems) = self.evaluator.fit(&contract.input_schema, &arguments)
        {
            return denied(format!("the arguments do not fit its schema: {}", problems.join("; ")));
        }
        let labels = labels::arguments(self.run, false);
        let question = if self.facts.reads_arguments {
            let question = step::question_with(tool, &arguments, labels);
            if self.facts.verdict(&question).is_none() {
                self.decision.unanswered.push((question.clone(), arguments.clone()));
            }
            question
        } else {
            step::question(tool, labels)
        };
        let terms = self.permit(&question, About::Arguments(&arguments))?.terms(contract);
        Ok((step::call(tool, arguments), terms))
    }

    /// The rule that let the action of the state be performed, by whomever it is.
    fn action_ruled(&self, call: &Call) -> Option<Ruled> {
        let action = match call {
            Call::Action { action } => action,
            Call::Hook { event: HookKind::Action, .. } => self.state()?.action.as_ref()?,
            Call::Hook { .. } | Call::Model { .. } | Call::Tool { .. } | Call::Verify { .. } => return None,
        };
        let verdict = self.facts.verdict(&step::question(action, labels::arguments(self.run, false)))?;
        Some(verdict.ruled())
    }

    fn participants(&self, event: HookKind) -> Vec<Call> {
        if event == HookKind::Action
            && let Some(State { action: Some(tool), arguments: Some(_), .. }) = self.state()
        {
            // What it is called with is filled in once, when it is called.
            return vec![step::call(tool, Value::Null)];
        }
        let calls: Vec<_> = self
            .declared_hooks(event)
            .iter()
            .filter(|hook| hook.events.contains(&event))
            .map(|hook| Call::Hook { hook: hook.name.clone(), event })
            .collect();
        if event == HookKind::Action && calls.is_empty() {
            return self
                .state()
                .and_then(|state| state.action.clone())
                .map(|action| Call::Action { action })
                .into_iter()
                .collect();
        }
        calls
    }

    /// What an answer changes; gives what the event carries from here on.
    fn absorb(
        &mut self,
        event: HookKind,
        by: Option<&Contract>,
        outcome: Outcome,
        carried: Value,
    ) -> Result<Value, Failure> {
        let answer = match outcome {
            Outcome::Returned(value) => value,
            // A hook that fails while handling an error must not hide that error.
            Outcome::Failed(_) if event == HookKind::Error => return Ok(carried),
            Outcome::Failed(failure) => return Err(failure),
            Outcome::Replied(_) => Value::Null,
        };
        if answer.is_null() {
            return Ok(carried);
        }
        // A tool says what it found, and nothing of the run that it is called by.
        let is_tool = event == HookKind::Action && self.state().is_some_and(|state| state.arguments.is_some());
        let is_reply = !is_tool && is_structured(&answer);
        if let Some(by) = by {
            self.label_hook_answer(event, by, &answer, is_reply);
        }
        if !is_reply && event == HookKind::Action {
            self.emit(Entry::OutputProduced { output: answer });
            return Ok(carried);
        }
        if answer.as_map().is_none() {
            return Err(Failure::new(
                Code::HookBadAnswer,
                format!("a hook answers a mapping, not {}", answer.type_name()),
            ));
        }
        if let Some(context) = answer.get("context").filter(|c| !c.is_null()) {
            match context {
                Value::Map(map) => self.replace_context(&map.clone()),
                other => {
                    let message = format!("`context` in a hook's answer is a mapping, not {}", other.type_name());
                    return Err(Failure::new(Code::HookBadAnswer, message));
                }
            }
        }
        self.absorb_event(event, &answer, carried)
    }

    fn absorb_event(&mut self, event: HookKind, answer: &Value, carried: Value) -> Result<Value, Failure> {
        let part = |key: &str| answer.get(key).filter(|v| !v.is_null()).cloned();
        match event {
            HookKind::Action => {
                if let Some(output) = part("output") {
                    self.emit(Entry::OutputProduced { output });
                }
                Ok(carried)
            }
            HookKind::StateExit | HookKind::MachineEnd => Ok(part("output").unwrap_or(carried)),
            HookKind::Transition => self.target(part("to_state"), carried),
            HookKind::Error => match part("recovery_state") {
                Some(Value::Str(state)) if self.machine.states.contains_key(&state) => Ok(Value::Str(state)),
                _ => Ok(carried),
            },
            HookKind::ToolsList => {
                let mut tools = carried.as_list().unwrap_or_default().to_vec();
                let hook = self.run.hooks.as_ref().map_or(0, |chain| chain.passed as usize);
                let name = self.declared_hooks(event).iter().filter(|h| h.events.contains(&event)).nth(hook);
                let name = name.map(|h| h.name.clone()).unwrap_or_default();
                for tool in answer.get("tools").and_then(Value::as_list).unwrap_or_default() {
                    tools.push(Value::object([("hook", Value::Str(name.clone())), ("tool", tool.clone())]));
                }
                Ok(Value::list(tools))
            }
            HookKind::MachineStart
            | HookKind::StateEnter
            | HookKind::ToolCalls
            | HookKind::ToolCall
            | HookKind::ToolResult => Ok(carried),
        }
    }

    fn target(&self, asked: Option<Value>, carried: Value) -> Result<Value, Failure> {
        match asked {
            None => Ok(carried),
            Some(Value::Str(state)) if self.machine.states.contains_key(&state) => Ok(Value::Str(state)),
            Some(other) => Err(Failure::new(
                Code::RunUnknownState,
                format!("a hook sent the run to {other}, which is no state of this machine"),
            )),
        }
    }

    /// Takes a key out of the context, where hooks leave instructions for the tool loop.
    pub(super) fn take_from_context(&mut self, key: &str) -> Option<Value> {
        let value = self.run.context.get(key).cloned()?;
        self.emit(Entry::ContextChanged { set: Vec::new(), removed: vec![Name::from(key)] });
        Some(value)
    }
}

/// Whether an action's answer is `{context?, output?}` rather than an output itself.
fn is_structured(answer: &Value) -> bool {
    let said = |key: &str| matches!(key, "context" | "output" | "to_state" | "error");
    let beside = |key: &str, value: &Value| match key {
        "secret" => value.as_list().is_some(),
        hidden::SAID => hidden::says(value),
        _ => false,
    };
    answer.as_map().is_some_and(|map| {
        map.keys().any(|key| said(key)) && map.iter().all(|(key, value)| said(key) || beside(key, value))
    })
}
