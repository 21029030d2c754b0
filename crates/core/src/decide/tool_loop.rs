//! The tool loop: a model asks for tools turn by turn. Every call is answered before the model is asked again, and a
//! loop resumes at its last settled effect.

use super::circles::goes_in_circles;
use super::{About, Flow, Permit, Turn, finding, labels, plan};
use crate::contract::Contract;
use crate::effect::{Call, Outcome};
use crate::failure::{Code, Failure};
use crate::file;
use crate::ids::Name;
use crate::journal::Entry;
use crate::json;
use crate::label::LabelSet;
use crate::limits;
use crate::machine::{Agent, AgentCall, HookKind, Machine, State, Template, ToolDefinition, ToolLoop};
use crate::policy::Question;
use crate::run::{Exec, LoopBounds, LoopState, OfferedTool, PendingState, PendingTool, SampleState};
use crate::time::seconds_to_ms;
use crate::transcript::{Finish, Message, Reply, ToolRequest};
use crate::value::Value;

/// The question that a tool call puts to the policy.
fn question(agent: &Name, call: &ToolRequest, labels: LabelSet) -> Question {
    let (tool, arguments) = (call.name.clone(), call.arguments.digest());
    Question::CallTool { tool, arguments, agent: Some(agent.clone()), labels }
}

/// The questions of tool calls, with every set of labels that the conversation may have when they are made.
pub(super) fn questions<'a>(
    machine: &'a Machine,
    have: LabelSet,
    agent: &'a Name,
    calls: impl IntoIterator<Item = &'a ToolRequest>,
) -> impl Iterator<Item = Question> {
    calls.into_iter().flat_map(move |call| {
        let contract = machine.tools.get(&call.name);
        let planner = contract.and_then(|contract| plan::planner(contract, call));
        let showing = contract.and_then(|contract| plan::showing(contract, call));
        labels::reachable(have).flat_map(move |labels| {
            let by_other = planner.map(|tool| plan::question(agent, tool, &call.arguments, labels));
            let by_itself = showing.as_ref().map(|with| plan::question(agent, &call.name, with, labels));
            [question(agent, call, labels)].into_iter().chain(by_other).chain(by_itself)
        })
    })
}

/// The questions of tool calls that a model has asked for and that were not made yet. They come up whatever happens
/// next: the calls of a turn are made one after another, and a hook or a hold may stand between.
pub(super) fn open_questions(machine: &Machine, have: LabelSet, exec: &Exec) -> Vec<Question> {
    let wanted = exec.tools.iter().flat_map(|looping| &looping.pending);
    let wanted = wanted.filter(|pending| pending.state == PendingState::Wanted).map(|pending| &pending.request);
    let answered = exec.samples.iter().flat_map(|sample| match &sample.state {
        SampleState::Answered(reply) => reply.tool_calls.as_slice(),
        SampleState::Wanted
        | SampleState::Calling(_)
        | SampleState::Broken(_)
        | SampleState::Done(_)
        | SampleState::Failed(_) => &[],
    });
    questions(machine, have, &exec.agent, wanted.chain(answered)).collect()
}

/// How the loop goes on after one look at it.
pub(super) enum Next {
    /// Look again.
    Again,
    /// The world is needed.
    Rest,
    /// The loop is over.
    Over,
}

impl<'a> Turn<'a> {
    /// Rendered bounds of a loop that begins.
    pub(super) fn open_loop(&mut self, config: &ToolLoop) -> Result<LoopState, Failure> {
        let turns = self.bound(&config.max_turns, "max_turns")? as u64;
        Ok(LoopState {
            bounds: LoopBounds {
                tool_calls: self.bound(&config.max_tool_calls, "max_tool_calls")? as u64,
                turns,
                cost_micros: (self.bound(&config.max_cost, "max_cost")? * 1e6).round() as u64,
                tool_timeout_ms: seconds_to_ms(self.bound(&config.tool_timeout, "tool_timeout")?),
                total_timeout_ms: seconds_to_ms(self.bound(&config.total_timeout, "total_timeout")?),
            },
            offered: None,
            turns: 0,
            calls: 0,
            cost_micros: 0,
            content: "".into(),
            pending: Vec::new(),
            seen: false,
            skip: Vec::new(),
            steering: Vec::new(),
            stop: None,
        })
    }

    fn bound(&mut self, template: &Template, name: &str) -> Result<f64, Failure> {
        let value = self.fill(&format!("tool_loop.{name}"), template)?;
        let number = match &value {
            Value::Null => Some(0.0),
            Value::Str(text) if text.trim().is_empty() => Some(0.0),
            Value::Str(text) => text.trim().parse::<f64>().ok().filter(|n| n.is_finite()),
            Value::Int(_) | Value::Float(_) => value.as_f64(),
            Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
        };
        number.filter(|n| *n >= 0.0).ok_or_else(|| {
            Failure::new(Code::TemplateType, format!("`{name}` of a tool loop is a number from 0, not {value}"))
        })
    }

    pub(super) fn tool_loop(
        &mut self,
        state: &'a State,
        call: &'a AgentCall,
        agent: &'a Agent,
    ) -> Result<Flow, Failure> {
        loop {
            match self.turn_once(state, call, agent)? {
                Next::Again => {}
                Next::Rest => return Ok(Flow::Rest),
                Next::Over => {
                    let output = self.loop_output();
                    return self.finish_agent(state, output);
                }
            }
        }
    }

    fn turn_once(&mut self, state: &'a State, call: &'a AgentCall, agent: &'a Agent) -> Result<Next, Failure> {
        let Some(looping) = self.looping() else {
            return Err(Failure::new(Code::InternalInvariant, "a tool loop without its state"));
        };
        if looping.offered.is_none() {
            return self.list_tools(agent, call);
        }
        let stopped = looping.stop.clone();
        match self.sample_state(0) {
            Some(SampleState::Calling(_)) | None => Ok(Next::Rest),
            Some(SampleState::Broken(_)) if stopped.is_some() => Ok(Next::Over),
            Some(SampleState::Broken(failure) | SampleState::Failed(failure)) => Err(failure),
            Some(SampleState::Answered(reply)) if reply.finish == Finish::ContentFilter && stopped.is_none() => {
                Err(Failure::new(Code::ProviderRefused, "the provider's filter stopped the answer"))
            }
            Some(SampleState::Answered(reply)) => Ok(self.take_reply(&reply, stopped.is_some())),
            Some(SampleState::Done(_)) => Ok(Next::Over),
            Some(SampleState::Wanted) => {
                if let Some(index) = looping.pending.iter().position(|p| p.state != PendingState::Done) {
                    return self.take_call(state, call, index as u32);
                }
                self.next_turn(agent, stopped)
            }
        }
    }

    fn looping(&self) -> Option<LoopState> {
        self.run.exec.as_ref()?.tools.clone()
    }

    /// Asks the hooks which tools they provide, and adds what the agent and the machine declare.
    fn list_tools(&mut self, agent: &Agent, call: &AgentCall) -> Result<Next, Failure> {
        let Some(listed) = self.hooks(HookKind::ToolsList, || Value::list(Vec::new()))? else { return Ok(Next::Rest) };
        let mut tools: Vec<OfferedTool> = Vec::new();
        for item in listed.as_list().unwrap_or_default() {
            let hook = item.get("hook").and_then(|h| if let Value::Str(s) = h { Some(s.clone()) } else { None });
            if let Some(definition) = item.get("tool").and_then(definition_of) {
                finding::add(&mut tools, OfferedTool { definition, hook });
            }
        }
        let provider = self.declared_hooks(HookKind::ToolCall).iter().find(|h| h.events.contains(&HookKind::ToolCall));
        let provider = provider.map(|h| h.name.clone());
        for definition in &agent.tools {
            let hook = if self.machine.tools.contains_key(&definition.name) { None } else { provider.clone() };
            finding::add(&mut tools, OfferedTool { definition: definition.clone(), hook });
        }
        for name in &self.machine.offered_tools {
            if let Some(contract) = self.machine.tools.get(name) {
                finding::add(&mut tools, finding::offered(contract));
            }
        }
        self.skill_tools(call, &mut tools);
        tools.retain(|tool| self.may_call(call, &tool.definition.name));
        self.select_tools(call, &mut tools);
        self.offer(tools);
        Ok(Next::Again)
    }

    /// Every call is answered: ends the loop, or asks the model again.
    fn next_turn(&mut self, agent: &Agent, stopped: Option<Name>) -> Result<Next, Failure> {
        let Some(looping) = self.looping() else { return Ok(Next::Rest) };
        if !looping.steering.is_empty() {
            let messages = looping.steering.clone();
            self.emit(Entry::MessagesAdded { sample: 0, messages, repair: false });
        }
        if let Some(reason) = stopped {
            return self.last_words(agent, &reason, &looping);
        }
        if let Some(reason) = self.limit_reached(&looping) {
            self.emit(Entry::LoopStopped { reason: reason.into(), to: None });
            return Ok(Next::Again);
        }
        self.intend_model(agent, 0)?;
        Ok(Next::Rest)
    }

    fn limit_reached(&self, looping: &LoopState) -> Option<&'static str> {
        let bounds = &looping.bounds;
        let since = self.run.exec.as_ref().map_or(0, |exec| self.facts.now.since_ms(exec.at));
        let turns = if bounds.turns == 0 { limits::TURNS_DEFAULT } else { bounds.turns };
        if bounds.total_timeout_ms > 0 && since >= bounds.total_timeout_ms {
            Some("timeout")
        } else if looping.turns >= turns {
            Some("max_turns")
        } else if bounds.cost_micros > 0 && looping.cost_micros >= bounds.cost_micros {
            Some("cost_limit")
        } else if self
            .run
            .exec
            .as_ref()
            .and_then(|exec| exec.samples.first())
            .is_some_and(|one| goes_in_circles(&one.tail))
        {
            Some("no_progress")
        } else {
            None
        }
    }

    /// A loop that ran into a limit without having said anything gets one more call, without tools.
    fn last_words(&mut self, agent: &Agent, reason: &Name, looping: &LoopState) -> Result<Next, Failure> {
        let limited = matches!(&**reason, "max_turns" | "max_tool_calls" | "cost_limit" | "timeout" | "no_progress");
        if !limited || !looping.content.trim().is_empty() {
            return Ok(Next::Over);
        }
        let note = format!("The limit of this tool loop is reached ({reason}). Answer now, without calling tools.");
        self.emit(Entry::MessagesAdded {
            sample: 0,
            messages: vec![Message::User { content: note.into() }],
            repair: false,
        });
        match self.intend_model(agent, 0) {
            Ok(()) => Ok(Next::Rest),
            Err(_) => Ok(Next::Over),
        }
    }

    fn take_reply(&mut self, reply: &Reply, last: bool) -> Next {
        if last {
            self.emit(Entry::SampleDone { sample: 0, output: Value::Str(reply.content.clone()) });
            return Next::Over;
        }
        let asks = reply.finish == Finish::ToolUse && !reply.tool_calls.is_empty();
        let pending = if asks { reply.tool_calls.clone() } else { Vec::new() };
        let message = Message::Assistant {
            content: reply.content.clone(),
            tool_calls: pending.clone(),
            attachments: reply.attachments.clone(),
        };
        self.emit(Entry::TurnTaken { message, pending, cost_micros: reply.cost_micros.unwrap_or(0) });
        if asks {
            return Next::Again;
        }
        self.emit(Entry::LoopStopped { reason: "complete".into(), to: None });
        Next::Over
    }

    /// Deals with the first call of the turn that is not done.
    fn take_call(&mut self, state: &'a State, call: &'a AgentCall, index: u32) -> Result<Next, Failure> {
        let Some(looping) = self.looping() else { return Ok(Next::Rest) };
        if looping.stop.is_some() {
            self.answer_rest("was not called: the tool loop has ended");
            return Ok(Next::Again);
        }
        if !looping.seen {
            return self.show_calls(&looping);
        }
        let Some(pending) = looping.pending.get(index as usize) else { return Ok(Next::Again) };
        match &pending.state {
            PendingState::Calling(_) => Ok(Next::Rest),
            PendingState::Done => Ok(Next::Again),
            PendingState::Wanted if self.run.join.is_some() => Ok(self.skill_ended(index)),
            PendingState::Wanted => self.start_call(call, &looping, index, pending),
            PendingState::Settled(outcome) => {
                let (content, is_error) =
                    self.plan_made(&pending.request, outcome).unwrap_or_else(|| answer_text(outcome));
                let whole = self.wants_plan(&pending.request);
                self.label_tool_answer(&self.asked_tool(&pending.request), outcome, whole);
                self.emit(Entry::ToolAnswered { index, content, is_error, counted: true });
                self.break_circle();
                Ok(Next::Again)
            }
            PendingState::Answered => self.pass_call(state, index, pending),
        }
    }

    /// Before any tool of the turn runs: the limit, then the hooks.
    fn show_calls(&mut self, looping: &LoopState) -> Result<Next, Failure> {
        let most = looping.bounds.tool_calls;
        if most > 0 && looping.calls + looping.pending.len() as u64 > most {
            self.answer_rest("was not called: the limit of tool calls is reached");
            self.emit(Entry::LoopStopped { reason: "max_tool_calls".into(), to: None });
            return Ok(Next::Again);
        }
        let shown: Vec<_> = looping.pending.iter().map(|p| request_view(&p.request)).collect();
        if self.hooks(HookKind::ToolCalls, || Value::list(shown))?.is_none() {
            return Ok(Next::Rest);
        }
        let skip = match self.take_from_context("_skip_tools") {
            Some(Value::List(names)) => names.iter().filter_map(|n| n.as_str().map(Name::from)).collect(),
            _ => Vec::new(),
        };
        self.emit(Entry::ToolCallsSeen { skip });
        self.check_abort();
        Ok(Next::Again)
    }

    fn check_abort(&mut self) {
        if self.take_from_context("_abort_tool_loop").is_some_and(|flag| flag.is_truthy()) {
            self.emit(Entry::LoopStopped { reason: "aborted".into(), to: None });
        }
    }

    /// Answers every call of the turn that has not been answered, without calling anything.
    fn answer_rest(&mut self, why: &str) {
        let Some(looping) = self.looping() else { return };
        for (index, pending) in looping.pending.iter().enumerate() {
            let index = index as u32;
            match pending.state {
                PendingState::Wanted => {
                    let content = format!("Tool '{}' {why}", pending.request.name).into();
                    self.emit(Entry::ToolAnswered { index, content, is_error: true, counted: false });
                }
                PendingState::Answered => self.emit(Entry::ToolPassed { index, steering: Vec::new() }),
                PendingState::Calling(_) | PendingState::Settled(_) | PendingState::Done => {}
            }
        }
    }

    fn start_call(
        &mut self,
        call: &AgentCall,
        looping: &LoopState,
        index: u32,
        pending: &PendingTool,
    ) -> Result<Next, Failure> {
        let since = self.run.exec.as_ref().map_or(0, |exec| self.facts.now.since_ms(exec.at));
        if looping.bounds.total_timeout_ms > 0 && since >= looping.bounds.total_timeout_ms {
            self.answer_rest("was not called: the tool loop is out of time");
            self.emit(Entry::LoopStopped { reason: "timeout".into(), to: None });
            return Ok(Next::Again);
        }
        let request = &pending.request;
        let asking = question(&call.agent, request, labels::arguments(self.run, true));
        let permit = match self.refusal(call, looping, index, request) {
            Some(refusal) => {
                if self.is_forbidden(call, &request.name) {
                    self.deny(&asking, Code::ToolDenied, None, About::Arguments(&request.arguments));
                }
                Err(refusal)
            }
            None if self.is_search(&request.name) => {
                // It reads what the run has anyway: nothing leaves, so there is nothing to permit.
                self.search_tools(call, looping, index, request);
                return Ok(Next::Again);
            }
            None if let Some(skill) = self.skill(&request.name) => {
                return self.call_skill(call, looping, index, request, skill);
            }
            None => self
                .permit(&asking, About::Arguments(&request.arguments))
                .map_err(|failure| format!("Tool '{}' is not allowed: {}", request.name, failure.message)),
        };
        match permit {
            Err(content) => {
                self.emit(Entry::ToolAnswered { index, content: content.into(), is_error: true, counted: false });
                Ok(Next::Again)
            }
            Ok(permit) => {
                if self.wants_plan(request) {
                    let ruled = permit.terms(&Contract::undeclared(&request.name)).ruled;
                    return match self.intend_plan(&call.agent, looping, request, ruled) {
                        Ok(()) => Ok(Next::Rest),
                        Err(failure) if failure.code == Code::PolicyDenied => {
                            let content = format!("Tool '{}' cannot be planned: {}", request.name, failure.message);
                            let content = content.into();
                            self.emit(Entry::ToolAnswered { index, content, is_error: true, counted: false });
                            Ok(Next::Again)
                        }
                        Err(failure) => Err(failure),
                    };
                }
                self.call_tool(looping, request, permit)?;
                Ok(Next::Rest)
            }
        }
    }

    /// Whether a loop may call a tool, by its state and by the contract of the run.
    pub(super) fn may_call(&self, call: &AgentCall, name: &Name) -> bool {
        let is_shut = self.run.pulse.shut(name).is_some();
        let is_listed = call.tool_loop.as_ref().is_none_or(|config| is_allowed(config, name));
        // A skill changes nothing but by its tools, which have to be allowed themselves.
        !is_shut && is_listed && (self.skill(name).is_some() || self.run.start.terms.allow(name))
    }

    /// Whether the state or the contract of the run does not allow a tool that is neither unknown nor shut off.
    fn is_forbidden(&self, call: &AgentCall, name: &Name) -> bool {
        let is_known = self.contract_named(name).is_some() && !self.is_search(name);
        is_known && self.run.pulse.shut(name).is_none() && !self.may_call(call, name)
    }

    /// Why a call cannot be made, whatever the policy says; the model reads it as the call's answer.
    fn refusal(&self, call: &AgentCall, looping: &LoopState, index: u32, request: &ToolRequest) -> Option<String> {
        let name = &request.name;
        if looping.skip.iter().any(|s| *s == request.id || s == name) {
            return Some(format!("Tool '{name}' was skipped by policy"));
        }
        if let Some(why) = self.run.pulse.shut(name) {
            return Some(format!("Tool '{name}' was not called: it is shut off, because {why}. Go on without it"));
        }
        if !self.is_search(name) && !self.may_call(call, name) {
            return Some(format!("Tool '{name}' is not allowed"));
        }
        if index as usize >= limits::CALLS_PER_TURN_MAX {
            return Some(format!(
                "Tool '{name}' was not called: one turn makes at most {} calls",
                limits::CALLS_PER_TURN_MAX
            ));
        }
        let offered = looping.offered.iter().flatten().find(|tool| tool.definition.name == *name);
        let Some(offered) = offered else { return Some(format!("Unknown tool: {name}")) };
        if offered.hook.is_none() && self.contract_named(name).is_none() && !self.is_search(name) {
            return Some(format!("Unknown tool: {name}: nothing implements it here"));
        }
        let Value::Map(_) = &request.arguments else {
            let why = match request.arguments.as_str().map(json::read) {
                Some(Err(error @ json::Unread::Inexact { .. })) => format!("{error}; write it as text"),
                _ => format!("the arguments are not a JSON object: {}", request.arguments),
            };
            return Some(format!("Tool '{name}': {why}"));
        };
        if let Some(contract) = self.contract_named(name).filter(|c| !c.input_schema.is_null())
            && let Err(problems) = self.evaluator.fit(&contract.input_schema, &plan::plain(contract, request))
        {
            return Some(format!("Tool '{name}': the arguments do not fit its schema: {}", problems.join("; ")));
        }
        self.plan_refusal(request).map(|why| format!("Tool '{name}' was not called: {why}"))
    }

    fn call_tool(&mut self, looping: &LoopState, request: &ToolRequest, permit: Permit) -> Result<(), Failure> {
        let name = &request.name;
        let hook = looping
            .offered
            .iter()
            .flatten()
            .find(|tool| tool.definition.name == *name)
            .and_then(|tool| tool.hook.clone());
        let contract = match &hook {
            Some(_) => Contract::undeclared(name),
            None => self.machine.tools.get(name).map_or_else(|| Contract::undeclared(name), |c| Contract::clone(c)),
        };
        let timeout = match looping.bounds.tool_timeout_ms {
            0 => contract.timeout_ms,
            ms => ms.min(contract.timeout_ms),
        };
        let plan = plan::named(&contract, request);
        let arguments = plan::plain(&contract, request);
        if let Some(id) = &plan {
            self.emit(Entry::PlanApplied { id: id.clone() });
        }
        let call = Call::Tool { tool: name.clone(), call_id: request.id.clone(), arguments, hook, plan };
        let terms = permit.terms(&contract);
        self.intend(call, &contract, timeout, terms)
    }

    /// The hooks see the answer; then a conditional transition may end the loop.
    fn pass_call(&mut self, state: &'a State, index: u32, pending: &PendingTool) -> Result<Next, Failure> {
        let answer = self.answer_of(&pending.request.id);
        let mut shown = request_view(&pending.request);
        if let (Value::Map(map), Some((content, is_error))) = (&mut shown, answer) {
            let map = std::sync::Arc::make_mut(map);
            map.insert("tool_call_id".into(), Value::Str(pending.request.id.clone()));
            map.insert("content".into(), Value::Str(content));
            map.insert("is_error".into(), Value::Bool(is_error));
        }
        if self.hooks(HookKind::ToolResult, || shown)?.is_none() {
            return Ok(Next::Rest);
        }
        self.label_steering();
        let steering = self.take_from_context("_steering_messages").map(|v| steering(&v)).unwrap_or_default();
        self.emit(Entry::ToolPassed { index, steering });
        self.check_abort();
        if self.looping().is_some_and(|looping| looping.stop.is_none()) {
            self.check_transitions(state)?;
        }
        Ok(Next::Again)
    }

    fn answer_of(&self, id: &Name) -> Option<(Name, bool)> {
        let tail = &self.run.exec.as_ref()?.samples.first()?.tail;
        tail.iter().rev().find_map(|message| match message {
            Message::Tool { call_id, content, is_error } if call_id == id => Some((content.clone(), *is_error)),
            Message::Tool { .. } | Message::System { .. } | Message::User { .. } | Message::Assistant { .. } => None,
        })
    }

    fn check_transitions(&mut self, state: &State) -> Result<(), Failure> {
        let scope = self.scope_with_output();
        for (index, transition) in state.transitions.iter().enumerate() {
            if let Some(condition) = &transition.condition
                && self.holds(index, condition, &scope)?
            {
                let to = Some(transition.to.clone());
                self.emit(Entry::LoopStopped { reason: "transition".into(), to });
                return Ok(());
            }
        }
        Ok(())
    }

    /// The documented result of a tool loop.
    fn loop_output(&self) -> Value {
        let Some(looping) = self.looping() else { return Value::Null };
        let content = match self.sample_state(0) {
            Some(SampleState::Done(Value::Str(text))) => text,
            _ => looping.content.clone(),
        };
        Value::object([
            ("content", Value::Str(content)),
            ("_tool_calls_count", Value::count(looping.calls)),
            ("_tool_loop_turns", Value::count(looping.turns)),
            ("_tool_loop_cost", super::scope::dollars(looping.cost_micros)),
            ("_tool_loop_stop", Value::Str(looping.stop.unwrap_or_else(|| "complete".into()))),
        ])
    }
}

fn is_allowed(config: &ToolLoop, name: &Name) -> bool {
    let listed = config.allowed_tools.is_empty() || config.allowed_tools.contains(name);
    listed && !config.denied_tools.contains(name)
}

/// A tool definition in the shape `{type: function, function: {name, description, parameters}}`, or bare.
fn definition_of(value: &Value) -> Option<ToolDefinition> {
    let function = value.get("function").unwrap_or(value);
    Some(ToolDefinition {
        name: function.get("name")?.as_str()?.into(),
        description: function.get("description").and_then(Value::as_str).unwrap_or_default().into(),
        parameters: function.get("parameters").cloned().unwrap_or_else(finding::no_parameters),
    })
}

fn request_view(request: &ToolRequest) -> Value {
    Value::object([
        ("id", Value::Str(request.id.clone())),
        ("name", Value::Str(request.name.clone())),
        ("arguments", request.arguments.clone()),
    ])
}

/// What a model reads as a tool's answer. Of a file it reads what it is, and not its content as base64.
fn answer_text(outcome: &Outcome) -> (Name, bool) {
    let text = |value: &Value| match value {
        Value::Str(text) => text.clone(),
        Value::Null => "".into(),
        other if file::is_in(other) => file::without_contents(other).to_json().into(),
        other => other.to_json().into(),
    };
    match outcome {
        Outcome::Returned(value) => (value.get("content").map_or_else(|| text(value), text), false),
        Outcome::Replied(reply) => (reply.content.clone(), false),
        Outcome::Failed(failure) => (failure.message.clone(), true),
    }
}

fn steering(value: &Value) -> Vec<Message> {
    value
        .as_list()
        .unwrap_or_default()
        .iter()
        .filter_map(|item| {
            let content: Name = item.get("content")?.as_str()?.into();
            match item.get("role").and_then(Value::as_str) {
                Some("system") => Some(Message::System { content }),
                Some("assistant") => {
                    Some(Message::Assistant { content, tool_calls: Vec::new(), attachments: Value::Null })
                }
                _ => Some(Message::User { content }),
            }
        })
        .collect()
}
