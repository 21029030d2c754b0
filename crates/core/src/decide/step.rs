//! Driving a run through its states: stages, parts of a body, transitions, the end.

use super::{About, Flow, Permit, Turn, exceeded, labels};
use crate::budget::{Amounts, Meter};
use crate::effect::{Call, Effect, OpenWait, TimerPurpose, WaitKind};
use crate::failure::{Code, Failure};
use crate::handoff;
use crate::ids::{Digest, Name};
use crate::input::Ending;
use crate::journal::Entry;
use crate::label::{LabelSet, path};
use crate::limits;
use crate::machine::{HookKind, State};
use crate::policy::Question;
use crate::run::{Part, Run, Stage};
use crate::value::Value;

/// The question that an action puts to the policy, whoever performs it.
pub(super) fn question(action: &Name, labels: LabelSet) -> Question {
    Question::CallTool { tool: action.clone(), arguments: Digest::ZERO, agent: None, labels }
}

/// The question that the call of a tool by a state puts to the policy where rules look at its arguments.
pub(super) fn question_with(tool: &Name, arguments: &Value, labels: LabelSet) -> Question {
    Question::CallTool { tool: tool.clone(), arguments: arguments.digest(), agent: None, labels }
}

/// The call of a tool by a state. No model has asked for it, so it answers no request of one.
pub(super) fn call(tool: &Name, arguments: Value) -> Call {
    Call::Tool { tool: tool.clone(), call_id: "".into(), arguments, hook: None, plan: None }
}

/// Whether an open call of a tool is one that the state makes, and not one of a tool loop.
pub(super) fn is_by_state(run: &Run) -> bool {
    run.exec.is_none()
}

impl<'a> Turn<'a> {
    /// Moves on until the world is needed.
    pub(super) fn drive(&mut self) {
        while (self.run.started && self.run.hold.is_none()) || self.run.ending.is_some() {
            self.moves += 1;
            if self.moves > limits::MOVES_PER_DECISION_MAX {
                // A machine may visit many states without asking for anything. Its ceiling of steps bounds that;
                // this bounds one decision, and the timer carries on in the next.
                self.set_timer(self.facts.now, TimerPurpose::Continue);
                return;
            }
            match self.advance() {
                Ok(Flow::Go) => {}
                Ok(Flow::Rest) => return,
                Err(failure) => self.raise(failure),
            }
        }
    }

    fn advance(&mut self) -> Result<Flow, Failure> {
        match self.stage.clone() {
            Stage::Starting => {
                if self.hooks(HookKind::MachineStart, || Value::Null)?.is_none() {
                    return Ok(Flow::Rest);
                }
                let first = match &self.run.start.origin {
                    Some(origin) if self.run.state.is_none() => origin.state.clone(),
                    _ => self.machine.initial.clone(),
                };
                self.enter(&first);
                Ok(Flow::Go)
            }
            Stage::Entering => {
                if self.hooks(HookKind::StateEnter, || Value::Null)?.is_none() {
                    return Ok(Flow::Rest);
                }
                self.goto(Stage::Working(Part::Wait));
                Ok(Flow::Go)
            }
            Stage::Working(part) => self.work(part),
            Stage::Exiting => self.exit(),
            Stage::Choosing => self.choose(),
            Stage::Moving { to, index } => self.pass(to, index),
            Stage::Failing => self.recover(),
            Stage::Ending => self.conclude(),
            Stage::Draining => Ok(self.drain()),
            Stage::Ended => Ok(Flow::Rest),
        }
    }

    /// Enters a state, or ends the run when its ceiling of steps is reached.
    pub(super) fn enter(&mut self, name: &Name) {
        if let Err(over) = self.run.ledger.check(&Amounts::ZERO.with(Meter::Steps, 1)) {
            let state = self.run.state.clone();
            return self.end(Ending::Failed { failure: exceeded(self.run, over), state });
        }
        let Some(state) = self.machine.states.get(name) else {
            let failure = Failure::new(Code::RunUnknownState, format!("`{name}` is no state of this machine"));
            return self.end(Ending::Failed { failure, state: self.run.state.clone() });
        };
        self.cancel_timers(|purpose| purpose == TimerPurpose::StateTimeout);
        self.emit(Entry::StateEntered { state: name.clone() });
        self.goto(Stage::Entering);
        if let Some(ms) = state.timeout_ms {
            self.set_timer(self.facts.now.plus_ms(ms), TimerPurpose::StateTimeout);
        }
    }

    fn work(&mut self, part: Part) -> Result<Flow, Failure> {
        let Some(state) = self.state() else {
            return Err(Failure::new(Code::InternalInvariant, "the run works in no state"));
        };
        let next = match part {
            Part::Wait => match &state.wait {
                Some(_) => return self.await_signal(state),
                None => Part::Action,
            },
            Part::Action => {
                match self.machine.table_of(state) {
                    Some(table) => self.fire(table)?,
                    None if self.act(state)?.is_none() => return Ok(Flow::Rest),
                    None => {}
                }
                Part::Launch
            }
            Part::Launch => {
                if let Some(launch) = &state.launch {
                    self.launch(launch)?;
                }
                Part::Call
            }
            Part::Call => {
                if let Some(call) = &state.call
                    && let Flow::Rest = self.join(call)?
                {
                    return Ok(Flow::Rest);
                }
                Part::Agent
            }
            Part::Agent => {
                if let Some(call) = &state.agent
                    && let Flow::Rest = self.ask_agent(state, call)?
                {
                    return Ok(Flow::Rest);
                }
                Part::Output
            }
            Part::Output => {
                self.map_output(state)?;
                self.goto(Stage::Exiting);
                return Ok(Flow::Go);
            }
        };
        self.goto(Stage::Working(next));
        Ok(Flow::Go)
    }

    /// The action of a state, performed by its hooks or by the tool of that name. None while it is out.
    fn act(&mut self, state: &'a State) -> Result<Option<Value>, Failure> {
        let Some(action) = &state.action else { return Ok(Some(Value::Null)) };
        if self.run.hooks.is_none() {
            if !self.run.start.terms.allow(action) {
                let asking = question(action, labels::arguments(self.run, false));
                self.deny(&asking, Code::ToolDenied, None, About::Action);
                let message = format!("the contract of this run does not allow the action `{action}`");
                return Err(Failure::new(Code::ToolDenied, message));
            }
            if let Some(why) = self.run.pulse.shut(action) {
                let message = format!("the action `{action}` is shut off for this run, because {why}");
                return Err(Failure::new(Code::RunBreaker, message));
            }
            // The call of a tool can wait for a person: what the rules say of it is looked at when it is made.
            if state.arguments.is_none() {
                self.permitted(&question(action, labels::arguments(self.run, false)), About::Action)?;
            }
        }
        self.hooks(HookKind::Action, || Value::Null)
    }

    fn await_signal(&mut self, state: &'a State) -> Result<Flow, Failure> {
        let Some(wait) = &state.wait else { return Ok(Flow::Go) };
        if self.run.waits.values().any(|open| open.kind == WaitKind::Signal) {
            return Ok(Flow::Rest);
        }
        let channel = match self.fill("wait_for", &wait.channel)? {
            Value::Str(text) => text,
            Value::Null => "".into(),
            other => other.to_json().into(),
        };
        if channel.is_empty() || channel.len() > limits::CHANNEL_BYTES_MAX {
            let message = format!(
                "wait_for: a channel has 1 to {} bytes, this one has {}",
                limits::CHANNEL_BYTES_MAX,
                channel.len()
            );
            return Err(Failure::new(Code::TemplateType, self.placed(&message)));
        }
        let effect = self.next_effect();
        let due = wait.timeout_ms.map(|ms| self.facts.now.plus_ms(ms));
        self.emit(Entry::WaitOpened { effect, wait: OpenWait::new(channel, WaitKind::Signal, due) });
        self.ask(Effect::OpenWait(effect));
        if let Some(due) = due {
            self.set_timer(due, TimerPurpose::WaitTimeout { wait: effect });
        }
        Ok(Flow::Rest)
    }

    /// `output_to_context`, then the output of a final state.
    fn map_output(&mut self, state: &'a State) -> Result<(), Failure> {
        // An action that answered no output produced nothing to map.
        let only_action = state.action.is_some() && state.call.is_none() && state.agent.is_none();
        if !(only_action && self.run.output.is_null()) {
            for (key, template) in &state.output_to_context {
                let scope = self.scope_with_output();
                let value = self.fill_with(&format!("output_to_context.{key}"), template, &scope)?;
                let labels = self.labels_of(template, &self.view());
                self.set_context(vec![(key.clone(), value)]);
                self.label_context(vec![(key.clone(), labels)]);
            }
        }
        if state.is_final
            && let Some(template) = &state.output
        {
            let scope = self.scope_with_output();
            let output = self.fill_with("output", template, &scope)?;
            let labels = self.labels_of(template, &self.view());
            self.emit(Entry::OutputProduced { output });
            self.label(path(["output"]), labels);
        }
        Ok(())
    }

    fn exit(&mut self) -> Result<Flow, Failure> {
        let output = self.run.output.clone();
        let Some(carried) = self.hooks(HookKind::StateExit, || output)? else { return Ok(Flow::Rest) };
        if carried != self.run.output {
            self.emit(Entry::OutputProduced { output: carried });
        }
        let is_final = self.state().is_some_and(|state| state.is_final);
        self.goto(if is_final { Stage::Ending } else { Stage::Choosing });
        Ok(Flow::Go)
    }

    fn choose(&mut self) -> Result<Flow, Failure> {
        let Some(state) = self.state() else {
            return Err(Failure::new(Code::InternalInvariant, "the run chooses in no state"));
        };
        if self.run.waits.values().any(|open| matches!(open.kind, WaitKind::Transition { .. })) {
            return Ok(Flow::Rest);
        }
        if let Some(to) = self.run.jump.clone() {
            let index = state.transitions.iter().position(|t| t.to == to).unwrap_or_default();
            return self.chosen(&state.name, to, index as u32);
        }
        let scope = self.scope_with_output();
        for (index, transition) in state.transitions.iter().enumerate() {
            let holds = match &transition.condition {
                Some(condition) => self.holds(index, condition, &scope)?,
                None => true,
            };
            if holds {
                return self.chosen(&state.name, transition.to.clone(), index as u32);
            }
        }
        Err(Failure::new(Code::RunDeadEnd, format!("no transition of state `{}` applies", state.name)))
    }

    /// A transition applies: it is taken, or put to a person.
    fn chosen(&mut self, from: &Name, to: Name, index: u32) -> Result<Flow, Failure> {
        match self.permit(&Question::TakeTransition { from: from.clone(), to: to.clone() }, About::Nothing)? {
            Permit::Granted(_) => {
                self.goto(Stage::Moving { to, index });
                Ok(Flow::Go)
            }
            Permit::Asks(asked) => {
                self.ask_transition(from, &to, index, asked);
                Ok(Flow::Rest)
            }
        }
    }

    fn pass(&mut self, to: Name, index: u32) -> Result<Flow, Failure> {
        let Some(from) = self.run.state.clone() else {
            return Err(Failure::new(Code::InternalInvariant, "the run moves from no state"));
        };
        let Some(target) = self.hooks(HookKind::Transition, || Value::Str(to.clone()))? else {
            return Ok(Flow::Rest);
        };
        let target = match target {
            Value::Str(name) => name,
            _ => to.clone(),
        };
        let index = (target == to).then_some(index);
        self.emit(Entry::TransitionTaken { from, to: target.clone(), index });
        self.enter(&target);
        Ok(Flow::Go)
    }

    /// The output is known: bounded, checked against its schema, and offered to the hooks.
    fn conclude(&mut self) -> Result<Flow, Failure> {
        let output = if self.run.output.is_null() && self.state().is_some_and(|s| s.output.is_none()) {
            Value::empty_map()
        } else {
            self.run.output.clone()
        };
        let Some(output) = self.hooks(HookKind::MachineEnd, || output)? else { return Ok(Flow::Rest) };
        if output.size_bytes() > limits::VALUE_BYTES_MAX || output.depth() > limits::VALUE_DEPTH_MAX {
            return Err(Failure::new(Code::RunTooLarge, "the output is larger or deeper than a run may give"));
        }
        let too_large = |output: &Value| {
            let terms = &self.run.start.terms;
            let size = terms.output_bytes.map(|most| (output.to_json().len() as u64, most));
            size.filter(|(size, most)| size > most)
        };
        let cuts = self.run.start.terms.cut_output;
        if let Some((size, most)) = too_large(&output).filter(|_| !cuts) {
            let message = format!("the output has {size} bytes, and the contract of this run allows {most}");
            return Err(Failure::new(Code::RunTooLarge, message));
        }
        let output = match &self.machine.output_schema {
            None => output,
            Some(schema) => self.evaluator.fit(schema, &output).map_err(|problems| {
                Failure::new(Code::RunBadOutput, format!("the output does not fit its schema: {}", problems.join("; ")))
            })?,
        };
        let output = match too_large(&output).filter(|_| cuts) {
            None => output,
            Some((_, most)) => {
                let cut = handoff::cut_output(&output, most, self.run.id());
                if output != self.run.output {
                    // The run keeps the whole of it.
                    self.emit(Entry::OutputProduced { output });
                }
                cut
            }
        };
        self.end(Ending::Completed { output });
        Ok(Flow::Go)
    }

    /// Once no awaited child is left, the run is over and its parent is told.
    fn drain(&mut self) -> Flow {
        if self.run.awaits_children() {
            return Flow::Rest;
        }
        self.give_back(true);
        self.emit(Entry::RunEnded);
        self.goto(Stage::Ended);
        if let Some(ending) = self.run.ending.clone()
            && let Some((to, id, input)) = super::join::farewell(self.run, ending)
        {
            self.ask(Effect::Tell { to, id, input: Box::new(input) });
        }
        Flow::Rest
    }
}
