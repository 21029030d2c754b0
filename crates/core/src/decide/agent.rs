//! Asking an agent: prompt, samples, structured output with one repair, and what the samples add up to.

use super::voting::{Ballot, candidate};
use super::{Flow, Turn};
use crate::eval::Scope;
use crate::failure::{Code, Failure};
use crate::file;
use crate::ids::Name;
use crate::journal::Entry;
use crate::label::{Marks, Tags, View, path};
use crate::limits;
use crate::machine::{Agent, AgentCall, Execution, State, Template};
use crate::output::extract_json;
use crate::run::{Exec, Sample, SampleState};
use crate::transcript::{Finish, Message, Reply};
use crate::value::{Map, Value};

impl<'a> Turn<'a> {
    /// Starts asking the agent of a state, or looks how far its samples are.
    pub(super) fn ask_agent(&mut self, state: &'a State, call: &'a AgentCall) -> Result<Flow, Failure> {
        let Some(agent) = self.machine.agents.get(&call.agent) else {
            return Err(Failure::new(Code::InternalInvariant, format!("agent `{}` is not in the machine", call.agent)));
        };
        if self.run.exec.is_none() {
            let exec = self.open_exec(agent, call)?;
            let tags = self.prompt_labels(agent, call, !exec.files.is_empty());
            self.emit(Entry::AgentStarted { exec: Box::new(exec) });
            self.taint(path(["asked"]), tags);
        }
        if call.tool_loop.is_some() {
            return self.tool_loop(state, call, agent);
        }
        loop {
            self.advance_samples(agent, &call.execution)?;
            if let Some(result) = self.add_up(agent, &call.execution) {
                return self.finish_agent(state, result?);
            }
            let Some(exec) = &self.run.exec else { return Ok(Flow::Rest) };
            if exec.samples.iter().any(|s| matches!(s.state, SampleState::Calling(_))) {
                return Ok(Flow::Rest);
            }
        }
    }

    /// The agent's result becomes the state's, unless an action of the same state has answered one.
    pub(super) fn finish_agent(&mut self, state: &State, output: Value) -> Result<Flow, Failure> {
        let tags = self.agent_labels();
        self.emit(Entry::AgentEnded);
        let action_answered = state.action.is_some() && state.call.is_none() && !self.run.output.is_null();
        if !action_answered {
            self.emit(Entry::OutputProduced { output });
            self.label(path(["output"]), Marks::whole(tags));
        }
        Ok(Flow::Go)
    }

    /// The labels of everything that goes into a prompt. Files go along whether or not a text names them.
    fn prompt_labels(&self, agent: &Agent, call: &AgentCall, with_files: bool) -> Tags {
        let view = View::default().with("input", self.labels_of(&call.input, &self.view()));
        let mut marks = Marks::default();
        for text in [&agent.system, &agent.user, &agent.instruction_suffix] {
            marks.join(self.labels_of(text, &view));
        }
        if with_files {
            marks.join(self.labels_of(&call.input, &self.view()));
        }
        let view = view.with("context", self.run.labels.marks.below(&path(["context"])));
        marks.join(self.labels_of(&agent.post_history, &view));
        marks.all()
    }

    fn open_exec(&mut self, agent: &Agent, call: &AgentCall) -> Result<Exec, Failure> {
        let input = self.fill("input", &call.input)?;
        // The files of a caller's input were looked into when it came.
        let checked = if self.run.start.parent.is_none() { self.run.start.input.clone() } else { Value::Null };
        let files = file::found(&input, &checked)?;
        let input = if files.is_empty() { input } else { file::without_contents(&input) };
        let scope = Scope::new()
            .with("input", input)
            .with("tools_prompt", Value::str(""))
            .with("tools", Value::list(Vec::new()))
            .with("model", model_view(agent));
        let text = |turn: &Self, field: &str, template: &Template, scope: &Scope| -> Result<Name, Failure> {
            Ok(match turn.fill_agent(agent, field, template, scope)? {
                Value::Str(text) => text,
                Value::Null => "".into(),
                other => other.to_json().into(),
            })
        };
        let system = text(self, "system", &agent.system, &scope)?;
        let system = self.with_skills(&agent.name, system);
        let mut user = text(self, "user", &agent.user, &scope)?;
        let suffix = text(self, "instruction_suffix", &agent.instruction_suffix, &scope)?;
        if !suffix.trim().is_empty() {
            user = format!("{user}\n\n{suffix}").into();
        }
        let context = self.scope().get("context").cloned().unwrap_or_default();
        let context = if file::is_in(&context) { file::without_contents(&context) } else { context };
        let post_history =
            text(self, "post_history_instructions", &agent.post_history, &scope.clone().with("context", context))?;
        let mut prompt = Vec::with_capacity(2);
        if !system.is_empty() {
            prompt.push(Message::System { content: system });
        }
        prompt.push(Message::User { content: user });
        let samples = match call.execution {
            Execution::Once | Execution::Retry { .. } | Execution::Voting { .. } => 1,
            Execution::Parallel { samples } => samples.clamp(1, limits::SAMPLES_MAX),
        };
        let tools = match &call.tool_loop {
            Some(tool_loop) => Some(self.open_loop(tool_loop)?),
            None => None,
        };
        Ok(Exec {
            agent: agent.name.clone(),
            prompt,
            files,
            post_history: post_history.trim().into(),
            samples: vec![Sample::default(); samples as usize],
            tools,
            at: self.facts.now,
            near: false,
        })
    }

    /// Starts calls that are wanted and deals with answers that came.
    fn advance_samples(&mut self, agent: &Agent, execution: &Execution) -> Result<(), Failure> {
        let count = self.run.exec.as_ref().map_or(0, |exec| exec.samples.len() as u32);
        for sample in 0..count {
            let Some(state) = self.sample_state(sample) else { continue };
            match state {
                SampleState::Answered(reply) => self.judge(agent, execution, sample, &reply),
                SampleState::Broken(failure) => self.emit(Entry::SampleFailed { sample, failure }),
                SampleState::Wanted | SampleState::Calling(_) | SampleState::Done(_) | SampleState::Failed(_) => {}
            }
            if matches!(self.sample_state(sample), Some(SampleState::Wanted)) {
                self.intend_model(agent, sample)?;
            }
        }
        Ok(())
    }

    pub(super) fn sample_state(&self, sample: u32) -> Option<SampleState> {
        self.run.exec.as_ref()?.samples.get(sample as usize).map(|s| s.state.clone())
    }

    /// Turns an answer into a result, a repair, or a failure.
    fn judge(&mut self, agent: &Agent, execution: &Execution, sample: u32, reply: &Reply) {
        if reply.finish == Finish::ContentFilter {
            let failure = Failure::new(Code::ProviderRefused, "the provider's filter stopped the answer");
            return self.not_good_enough(agent, sample, failure);
        }
        if let Execution::Voting { .. } = execution {
            let entry = match candidate(agent, reply, self.evaluator) {
                Ok(output) => Entry::SampleDone { sample, output },
                Err(failure) => Entry::SampleFailed { sample, failure },
            };
            return self.emit(entry);
        }
        match result(agent, reply, self.evaluator) {
            Ok(output) => self.emit(Entry::SampleDone { sample, output }),
            Err(problem) => {
                let repaired = self.run.exec.as_ref().is_some_and(|e| e.samples[sample as usize].repaired);
                if repaired {
                    let failure = Failure::new(Code::ProviderBadOutput, problem);
                    return self.not_good_enough(agent, sample, failure);
                }
                let messages = repair(reply, &problem);
                self.emit(Entry::MessagesAdded { sample, messages, repair: true });
            }
        }
    }

    /// A sample fails, or is asked for anew at a better tier.
    fn not_good_enough(&mut self, agent: &Agent, sample: u32, failure: Failure) {
        match self.raised(agent, sample, failure.code) {
            Some(raised) => self.emit(Entry::Escalated { sample, raised }),
            None => self.emit(Entry::SampleFailed { sample, failure }),
        }
    }

    /// What the samples add up to; none while more is to come.
    fn add_up(&mut self, agent: &Agent, execution: &Execution) -> Option<Result<Value, Failure>> {
        let samples = &self.run.exec.as_ref()?.samples;
        let settled = |s: &Sample| matches!(s.state, SampleState::Done(_) | SampleState::Failed(_));
        match execution {
            Execution::Once | Execution::Retry { .. } => samples.first().and_then(|sample| match &sample.state {
                SampleState::Done(output) => Some(Ok(output.clone())),
                SampleState::Failed(failure) => Some(Err(failure.clone())),
                SampleState::Wanted | SampleState::Calling(_) | SampleState::Answered(_) | SampleState::Broken(_) => {
                    None
                }
            }),
            Execution::Parallel { .. } => samples.iter().all(settled).then(|| all_of(samples)),
            Execution::Voting { margin, candidates } => {
                let margin = agent.voting.margin.unwrap_or(*margin).max(1);
                let most = agent.voting.candidates.unwrap_or(*candidates).clamp(1, limits::SAMPLES_MAX);
                if !samples.iter().all(settled) {
                    return None;
                }
                let ballot = Ballot::count(samples);
                if let Some(winner) = ballot.decided(margin) {
                    return Some(Ok(winner));
                }
                if (samples.len() as u32) < most {
                    self.emit(Entry::SampleAdded);
                    return None;
                }
                Some(ballot.leader().ok_or_else(|| none_of(&self.run.exec.as_ref().map_or(&[][..], |e| &e.samples))))
            }
        }
    }
}

/// The agent's model as prompts see it.
fn model_view(agent: &Agent) -> Value {
    let model = &agent.model;
    let mut view = model.params.as_map().cloned().unwrap_or_default();
    view.insert("name".into(), Value::Str(model.model.clone()));
    view.insert("provider".into(), Value::Str(model.provider.clone()));
    if let Some(most) = model.max_tokens {
        view.insert("max_tokens".into(), Value::count(most));
    }
    if let Some(url) = &model.base_url {
        view.insert("base_url".into(), Value::Str(url.clone()));
    }
    Value::map(view)
}

/// What an answer is worth to the machine: the value that fits the schema, else the text.
pub(super) fn result(agent: &Agent, reply: &Reply, evaluator: &dyn crate::eval::Evaluator) -> Result<Value, String> {
    match &agent.output_schema {
        Some(schema) => {
            let value = extract_json(&reply.content)?;
            evaluator.fit(schema, &value).map_err(|problems| problems.join("; "))
        }
        None if !reply.has_content => Ok(Value::empty_map()),
        None => Ok(Value::object([("content", Value::Str(reply.content.clone()))])),
    }
}

/// The messages that send an answer back once.
fn repair(reply: &Reply, problem: &str) -> Vec<Message> {
    let request = format!(
        "Your last answer does not fit the required output: {problem}. Answer again with only the corrected JSON."
    );
    let mut messages = Vec::with_capacity(2);
    if !reply.content.is_empty() {
        messages.push(Message::Assistant {
            content: reply.content.clone(),
            tool_calls: Vec::new(),
            attachments: Value::Null,
        });
    }
    messages.push(Message::User { content: request.into() });
    messages
}

fn all_of(samples: &[Sample]) -> Result<Value, Failure> {
    let results: Vec<_> = samples
        .iter()
        .filter_map(|sample| if let SampleState::Done(output) = &sample.state { Some(output.clone()) } else { None })
        .collect();
    if results.is_empty() {
        return Err(none_of(&samples));
    }
    let count = Value::count(results.len() as u64);
    let mut output = Map::new();
    output.insert("results".into(), Value::list(results));
    output.insert("count".into(), count);
    Ok(Value::map(output))
}

/// The failure of samples none of which has a result: theirs when they agree on the code.
fn none_of(samples: &&[Sample]) -> Failure {
    let failures: Vec<&Failure> = samples
        .iter()
        .filter_map(|sample| if let SampleState::Failed(failure) = &sample.state { Some(failure) } else { None })
        .collect();
    let reasons = failures.iter().map(|f| Value::str(f.to_string())).collect();
    let first = failures.first().map(|f| f.message.to_string()).unwrap_or_default();
    Failure::new(Code::RunAllFailed, format!("all {} samples failed; the first: {first}", samples.len()))
        .detail(Value::object([("failures", Value::list(reasons))]))
}
