//! Decisions: one handler for each input, then the run is driven as far as it goes without the world.
//!
//! Everything a decision changes goes through [`Turn::emit`], which applies the entry at once, so the run after a
//! decision is by construction what folding its entries gives.

mod agent;
mod approval;
mod arguments;
mod breaking;
mod call;
mod changed;
mod ceiling;
mod circles;
mod conversation;
mod doubt;
mod escrow;
mod failing;
mod finding;
mod hold;
mod hooks;
mod join;
mod hidden;
mod labels;
mod overrides;
mod permit;
mod plan;
mod route;
mod scope;
mod spawn;
mod skills;
mod step;
mod table;
mod tool_loop;
mod voting;

pub use arguments::{Filled, arguments, decide_asking};
pub(crate) use scope::with_metadata;

use ceiling::exceeded;
use permit::{About, Permit};

use crate::apply::apply;
use crate::audit;
use crate::basis::Basis;
use crate::budget::Meter;
use crate::effect::{Call, Effect, OpenTimer, Outcome, TimerPurpose, WaitKind};
use crate::eval::{Evaluator, Scope};
use crate::failure::{Code, Failure};
use crate::ids::{EffectId, Name};
use crate::input::{Ending, Facts, Input, Sent};
use crate::journal::Entry;
use crate::label::{LabelSet, Mark};
use crate::limits;
use crate::machine::{Machine, State};
use crate::policy::{Question, Verdict};
use crate::run::{Hold, Part, Run, Stage, Start};
use crate::time::Timestamp;
use crate::value::{Map, Value};

/// What a decision asks to be recorded and done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Entries, in order; the run has been advanced by exactly these.
    pub entries: Vec<Entry>,
    /// Effects, in order, to be performed after the entries are durable.
    pub effects: Vec<Effect>,
    /// Audit rows of the entries, in order.
    pub audit: Vec<audit::Row>,
    /// What it asked about arguments that it filled in itself and had no answer to, so that it is none to go by:
    /// [`decide_asking`] sees to it. Empty where [`Facts::reads_arguments`] is false.
    pub unanswered: Vec<Filled>,
}

/// Why an input does not apply to a run as it is. Nothing is recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The run is over.
    #[error("the run has ended")]
    Ended,
    /// The input refers to something that is not open.
    #[error("{0} is not open in this run")]
    NotOpen(String),
    /// The run is not in a state for this.
    #[error("{0}")]
    NotNow(String),
}

/// The questions for the policy that any decision of a machine's runs may need answered, whatever the run and the input.
#[must_use]
pub fn standing(machine: &Machine) -> Vec<Question> {
    let mut questions: Vec<Question> = machine
        .agents
        .values()
        .map(|agent| Question::CallModel { agent: agent.name.clone(), model: agent.model.model.clone() })
        .chain(machine.machines.values().map(|key| Question::StartMachine { machine: key.clone() }))
        .collect();
    for state in machine.states.values() {
        questions.extend(
            state.transitions.iter().map(|to| Question::TakeTransition { from: state.name.clone(), to: to.to.clone() }),
        );
        questions.extend(failing::questions(state));
        questions.extend(machine.performed(state).into_iter().flat_map(|action| {
            labels::reachable(LabelSet::default()).map(move |labels| step::question(action, labels))
        }));
    }
    questions
}

/// The questions for the policy that must be answered before `input` can be decided, beside the [`standing`] ones.
#[must_use]
pub fn plan(machine: &Machine, run: &Run, input: &Input) -> Vec<Question> {
    let mut questions = Vec::new();
    match input {
        Input::Settled { effect, outcome: crate::effect::Outcome::Replied(reply), .. } => {
            if let Some(crate::effect::Call::Model { agent, .. }) = run.calls.get(effect).map(|open| &open.call) {
                let have = labels::arguments(run, true);
                questions.extend(tool_loop::questions(machine, have, agent, &reply.tool_calls));
            }
        }
        Input::Approved(reply) => questions.extend(approval::questions(run, reply)),
        _ => {}
    }
    questions.extend(escrow::questions(run));
    questions.extend(overrides::questions(machine, run, input));
    questions.extend(route::questions(run, input));
    questions.extend(doubt::questions(machine, run));
    questions.extend(call::questions(run, input));
    if let Some(exec) = &run.exec {
        questions.extend(tool_loop::open_questions(machine, labels::arguments(run, true), exec));
    }
    questions
}

/// Decides what follows from `input`. On `Ok` the run has been advanced by the decision's entries, exactly as
/// [`crate::apply`] would; on `Err` it is unchanged.
///
/// # Errors
/// The input does not apply to the run as it is.
pub fn decide(
    machine: &Machine,
    evaluator: &dyn Evaluator,
    run: &mut Run,
    input: Input,
    facts: &Facts,
) -> Result<Decision, Rejected> {
    let denied = match &input {
        Input::Approved(reply) if run.stage != Stage::Ended => approval::admit(machine, evaluator, run, reply, facts)?,
        other => {
            admit(machine, run, other)?;
            None
        }
    };
    let stage = run.stage.clone();
    let (decision, used) = (Decision::default(), Vec::new());
    let mut turn = Turn { machine, evaluator, facts, run, decision, moves: 0, used, stage, scope: None };
    let (by, basis) = (turn.worker(), turn.basis());
    turn.emit(Entry::Decided { at: facts.now, input: input.kind().into(), by, basis, verdicts: Vec::new() });
    turn.keep_labels();
    match (denied, input) {
        (Some((question, verdict)), Input::Approved(reply)) => {
            turn.deny_changed(&reply.arguments.unwrap_or_default(), &question, verdict);
        }
        (_, input) => turn.take(input),
    }
    turn.refit();
    turn.drive();
    turn.settle_stage();
    if turn.run.ending.is_none() {
        turn.warn();
    }
    turn.give_back(false);
    Ok(turn.decided())
}

/// Refuses inputs that do not apply, before anything is recorded.
fn admit(machine: &Machine, run: &Run, input: &Input) -> Result<(), Rejected> {
    let open = |is_open: bool, what: String| if is_open { Ok(()) } else { Err(Rejected::NotOpen(what)) };
    if run.stage == Stage::Ended && !matches!(input, Input::Retry { .. } | Input::Skip { .. }) {
        return Err(Rejected::Ended);
    }
    let not_now = |text: &str| Err(Rejected::NotNow(text.into()));
    match input {
        Input::Started(_) if run.started => not_now("the run has started already"),
        Input::Settled { effect, attempt, .. } => open(
            run.calls.get(effect).is_some_and(|call| call.attempt == *attempt && call.is_out()),
            format!("attempt {attempt} of call {effect}"),
        ),
        Input::Lost { effect, .. } => {
            open(run.calls.get(effect).is_some_and(crate::effect::OpenCall::is_out), format!("call {effect}"))
        }
        Input::Drawn { number, .. } => {
            open(run.escrow.asked.as_ref().is_some_and(|asked| asked.number == *number), format!("draw {number}"))
        }
        Input::Signalled { wait, .. } if approval::asks_approval(run, *wait) => {
            not_now("an approval is not given by a signal")
        }
        Input::Signalled { wait, .. } => open(run.waits.contains_key(wait), format!("wait {wait}")),
        Input::TimerFired { timer } => open(run.timers.contains_key(timer), format!("timer {timer}")),
        Input::ChildEnded { child, .. } | Input::ChildRaised { child, .. } => {
            open(run.children.contains_key(child), format!("child {child}"))
        }
        Input::Cancel { .. } if run.ending.is_some() => not_now("the run is ending already"),
        Input::Pause { .. } => hold::admit_pause(run),
        Input::Unpause => hold::admit_unpause(run),
        Input::HoldWrites { .. } if run.hold.is_some() => not_now("the run is held already"),
        Input::FreeWrites if !run.hold.as_ref().is_some_and(Hold::is_read_only) => {
            not_now("no read-only switch holds the run")
        }
        Input::Skip { .. } if run.state.is_none() => not_now("the run failed before its first state"),
        Input::Retry { .. } | Input::Skip { .. } => match (&run.ending, run.stage == Stage::Ended, &run.start.parent) {
            (_, false, _) => not_now("only a run that has failed can be tried again"),
            (_, true, Some(_)) => {
                not_now("the run that started this one has been told of its failure; try that one again instead")
            }
            (Some(Ending::Failed { failure, .. }), true, _) => match (input, failure.code) {
                (Input::Retry { anyway: false }, Code::ToolOutcomeUnknown) => not_now(
                    "nobody knows whether the call that it failed of happened, and to try again may do it twice",
                ),
                _ => Ok(()),
            },
            (_, true, _) => not_now("only a run that has failed can be tried again"),
        },
        Input::ModelChanged(change) => overrides::admit(machine, run, change),
        Input::Migrated { .. } if run.state.as_ref().is_some_and(|state| !machine.states.contains_key(state)) => {
            not_now("the new machine does not have the state that the run is in")
        }
        Input::Started(_)
        | Input::Approved(_)
        | Input::Cancel { .. }
        | Input::BudgetRaised { .. }
        | Input::HoldWrites { .. }
        | Input::FreeWrites
        | Input::Migrated { .. } => Ok(()),
    }
}

/// One decision being made.
struct Turn<'a> {
    machine: &'a Machine,
    evaluator: &'a dyn Evaluator,
    facts: &'a Facts,
    run: &'a mut Run,
    decision: Decision,
    /// Moves so far; bounded.
    moves: u32,
    /// Policy answers used so far.
    used: Vec<(&'a Verdict, Vec<Mark>)>,
    /// Where the run is; recorded when the decision rests.
    stage: Stage,
    /// `context` and `input` as templates see them, while nothing they are made of has changed.
    scope: Option<Scope>,
}

/// Whether the run can be driven on.
enum Flow {
    Go,
    Rest,
}

impl<'a> Turn<'a> {
    fn emit(&mut self, entry: Entry) {
        if matches!(
            entry,
            Entry::ContextChanged { .. }
                | Entry::StateEntered { .. }
                | Entry::CallSettled { .. }
                | Entry::CallAbandoned { .. }
                | Entry::AttemptFailed { .. }
                | Entry::ChildSettled { .. }
                | Entry::Migrated { .. }
                | Entry::RunStarted(_)
        ) {
            self.scope = None;
        }
        if let Some(row) = apply(self.run, &entry) {
            self.decision.audit.push(row);
        }
        self.decision.entries.push(entry);
    }

    /// The worker that decides, where the run does not know it yet. A run whose rows do not say it goes on without.
    fn worker(&self) -> Option<Name> {
        let says = !self.run.started || self.run.start.audit >= crate::audit::WHERE_VERSION;
        self.facts.worker.clone().filter(|worker| says && self.run.worker.as_ref() != Some(worker))
    }

    /// What is decided under, where the run does not know it yet.
    fn basis(&self) -> Option<Box<Basis>> {
        self.facts.basis.as_ref().filter(|basis| self.run.basis.as_deref() != Some(*basis)).cloned().map(Box::new)
    }

    /// The decision, with the policy answers that it used. They change nothing in the run that a decision looks at, so they
    /// are added last.
    fn decided(self) -> Decision {
        let Self { mut decision, used, run, .. } = self;
        if let Some(Entry::Decided { verdicts, .. }) = decision.entries.first_mut() {
            let with = |(verdict, origins): (&Verdict, _)| Verdict { origins, ..verdict.clone() };
            verdicts.extend(used.into_iter().map(with));
            run.keep_choice(verdicts);
        }
        decision
    }

    fn ask(&mut self, effect: Effect) {
        self.decision.effects.push(effect);
    }

    fn next_effect(&self) -> EffectId {
        EffectId(self.run.effects + 1)
    }

    fn goto(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// The current state, when the run is in one.
    fn state(&self) -> Option<&'a State> {
        self.run.state.as_ref().and_then(|name| self.machine.states.get(name))
    }

    fn settle_stage(&mut self) {
        if self.run.stage != self.stage {
            self.emit(Entry::StageReached { stage: self.stage.clone() });
        }
    }

    fn set_timer(&mut self, due: Timestamp, purpose: TimerPurpose) -> EffectId {
        let effect = self.next_effect();
        self.emit(Entry::TimerSet { effect, timer: OpenTimer { due, purpose } });
        self.ask(Effect::SetTimer(effect));
        effect
    }

    fn cancel_timers(&mut self, which: impl Fn(TimerPurpose) -> bool) {
        let ended: Vec<_> =
            self.run.timers.iter().filter(|(_, timer)| which(timer.purpose)).map(|(id, _)| *id).collect();
        for effect in ended {
            self.emit(Entry::TimerEnded { effect, fired: false });
            self.ask(Effect::CancelTimer(effect));
        }
    }

    fn close_wait(&mut self, effect: EffectId, signal: Option<Name>) {
        self.emit(Entry::WaitClosed { effect, signal });
        self.ask(Effect::CloseWait(effect));
        self.cancel_timers(|purpose| {
            [TimerPurpose::WaitTimeout { wait: effect }, TimerPurpose::Escalation { wait: effect }].contains(&purpose)
        });
    }

    /// Replaces or adds top-level keys of the context.
    fn set_context(&mut self, set: Vec<(Name, Value)>) {
        if !set.is_empty() {
            self.emit(Entry::ContextChanged { set, removed: Vec::new() });
        }
    }

    /// Makes `new` the context, recording only what differs.
    fn replace_context(&mut self, new: &Map) {
        let Value::Map(old) = self.run.context.clone() else { return };
        let set: Vec<_> = new
            .iter()
            .filter(|(key, value)| &***key != "machine" && old.get(*key) != Some(*value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let removed: Vec<_> = old.keys().filter(|key| !new.contains_key(*key)).cloned().collect();
        if !(set.is_empty() && removed.is_empty()) {
            self.emit(Entry::ContextChanged { set, removed });
        }
    }

    /// Records each ceiling of which most is used, once.
    fn warn(&mut self) {
        for meter in Meter::ALL {
            if let Some((used, ceiling)) = self.run.ledger.near(meter, self.machine.near_percent)
                && !self.run.warned.contains(&meter)
            {
                self.emit(Entry::CeilingNear { meter, used, ceiling });
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Started(start) => self.start(*start),
            Input::Settled { effect, outcome, spent, .. } => self.on_settled(effect, outcome, spent),
            Input::Lost { effect, sent } => self.on_lost(effect, sent == Sent::Maybe),
            Input::Drawn { number, answer } => self.on_drawn(number, answer),
            Input::Signalled { wait, signal, data } => self.on_signal(wait, signal, data),
            Input::TimerFired { timer } => self.on_timer(timer),
            Input::ChildRaised { child, amounts } => self.child_raised(child, amounts),
            Input::ChildEnded { child, ending, used, labels, hidden } => {
                let slot = self.run.children.get(&child).and_then(|open| open.slot);
                self.label_child(slot, &ending, labels);
                self.hide(hidden);
                self.emit(Entry::ChildSettled { child, ending, used });
            }
            Input::Cancel { reason } => {
                self.emit(Entry::CancelRequested { reason: reason.clone() });
                self.end(Ending::Cancelled { reason });
            }
            Input::Pause { reason } => self.pause(&reason),
            Input::Unpause => self.unpause(),
            Input::HoldWrites { reason } => self.hold_writes(reason),
            Input::FreeWrites => self.lift(),
            Input::Retry { .. } => self.reopen(),
            Input::Skip { output, by, reason } => self.skip(output, by, reason),
            Input::Approved(reply) => self.on_approval(*reply),
            Input::BudgetRaised { ceilings, by } => {
                // Somebody else may have raised them further meanwhile.
                let ceilings = ceilings.at_least(&self.run.ledger.ceilings);
                self.emit(Entry::CeilingsChanged { ceilings, by });
                if let (Some(_), Some(due)) = (ceilings.wall_ms, self.run.ledger.deadline) {
                    self.cancel_timers(|purpose| purpose == TimerPurpose::RunDeadline);
                    self.set_timer(due, TimerPurpose::RunDeadline);
                }
            }
            Input::ModelChanged(change) => self.change_model(*change),
            Input::Migrated { bundle, machine } => self.emit(Entry::Migrated { bundle, machine }),
        }
    }

    fn start(&mut self, mut start: Start) {
        start.ceilings = start.ceilings.tighter(&self.machine.ceilings);
        start.ceilings.steps.get_or_insert(limits::STEPS_DEFAULT);
        start.ceilings.depth.get_or_insert(limits::DEPTH_DEFAULT);
        start.watched = true;
        start.audit = crate::audit::VERSION;
        let resumes = start.origin.is_some();
        self.emit(Entry::RunStarted(Box::new(start)));
        self.note_own_skill();
        self.label_start();
        if let Some(due) = self.run.ledger.deadline {
            self.set_timer(due, TimerPurpose::RunDeadline);
        }
        if !resumes {
            match self.fit_input() {
                Ok(()) => self.initial_context(),
                Err(failure) => self.raise(failure),
            }
        }
    }

    /// The input is checked before anything is done with it.
    fn fit_input(&self) -> Result<(), Failure> {
        let Some(schema) = &self.machine.input_schema else { return Ok(()) };
        self.evaluator.fit(schema, &self.run.start.input).map(|_| ()).map_err(|problems| {
            let message = format!("the input does not fit the machine's schema: {}", problems.join("; "));
            Failure::new(Code::RunBadInput, message)
        })
    }

    fn initial_context(&mut self) {
        let scope = Scope::new().with("input", self.run.start.input.clone());
        let (view, mut labels) = (self.first_view(), Vec::new());
        let mut set = Vec::with_capacity(self.machine.context.len());
        for (key, template) in &self.machine.context {
            match self.fill_with(&format!("context.{key}"), template, &scope) {
                Ok(value) => set.push((key.clone(), value)),
                Err(failure) => return self.raise(failure),
            }
            labels.push((key.clone(), self.labels_of(template, &view)));
        }
        self.set_context(set);
        self.label_context(labels);
    }

    fn reopen(&mut self) {
        let state = self.run.state.clone();
        self.emit(Entry::RunReopened);
        self.goto(Stage::Starting);
        if let Some(due) = self.run.ledger.deadline {
            self.set_timer(due, TimerPurpose::RunDeadline);
        }
        match state {
            Some(state) => self.enter(&state),
            None if self.run.start.origin.is_none() => self.initial_context(),
            None => {}
        }
    }

    /// The state is entered again, so that its step counts, but nothing of its body is done.
    fn skip(&mut self, output: Value, by: Name, reason: Name) {
        self.reopen();
        let Some(state) = self.run.state.clone().filter(|_| self.run.ending.is_none()) else { return };
        let action = self.machine.states.get(&state).and_then(|state| state.action.clone());
        self.emit(Entry::StateSkipped { state, by: by.clone(), reason });
        if let Some(action) = action {
            let given = Outcome::Returned(Value::object([("output", output.clone())]));
            self.hide_outcome(&Call::Action { action }, &given);
        }
        self.label_given(&by);
        self.emit(Entry::OutputProduced { output });
        self.goto(Stage::Working(Part::Output));
    }

    fn on_timer(&mut self, timer: EffectId) {
        let Some(open) = self.run.timers.get(&timer).copied() else { return };
        self.emit(Entry::TimerEnded { effect: timer, fired: true });
        match open.purpose {
            TimerPurpose::RunDeadline => {
                let failure = Failure::new(Code::RunTimeout, "the run is out of time");
                self.end(Ending::Failed { failure, state: self.run.state.clone() });
            }
            TimerPurpose::StateTimeout => {
                self.raise(Failure::new(Code::RunTimeout, "the state is out of time"));
            }
            TimerPurpose::WaitTimeout { wait } if approval::asks_approval(self.run, wait) => {
                self.approval_expired(wait)
            }
            TimerPurpose::WaitTimeout { wait } if approval::asks_budget(self.run, wait) => {
                self.budget_moved(wait, None)
            }
            TimerPurpose::WaitTimeout { wait } => {
                let channel = self.run.waits.get(&wait).map(|open| open.channel.clone()).unwrap_or_default();
                self.close_wait(wait, None);
                self.raise(Failure::new(Code::RunTimeout, format!("no signal came on `{channel}` in time")));
            }
            TimerPurpose::Escalation { wait } => self.escalate(wait),
            TimerPurpose::JoinTimeout => {
                self.raise(Failure::new(Code::RunTimeout, "the children are out of time"));
            }
            TimerPurpose::Backoff { call } if self.changed_wait(call).is_some() => self.judge_again(call),
            TimerPurpose::Backoff { call } => self.attempt_again(call),
            TimerPurpose::Continue => {}
        }
    }

    fn on_signal(&mut self, wait: EffectId, signal: Name, data: Value) {
        let Some(open) = self.run.waits.get(&wait).cloned() else { return };
        if approval::asks_budget(self.run, wait) {
            return self.budget_moved(wait, Some(signal));
        }
        self.close_wait(wait, Some(signal));
        match open.kind {
            WaitKind::Signal => {
                let output = if data.as_map().is_some() { data } else { Value::object([("value", data)]) };
                self.emit(Entry::OutputProduced { output });
                self.on_signal_labels(self.run.state.clone());
                self.goto(Stage::Working(Part::Output));
            }
            WaitKind::Outcome { effect } => {
                let tags = self.signal_labels(self.run.state.clone());
                let by = data.get("by").and_then(Value::as_str).filter(|by| !by.trim().is_empty()).map(Name::from);
                self.resolve_doubt(effect, &data, by, tags);
            }
            WaitKind::ToolChanged { effect, .. } => self.judge_again(effect),
            WaitKind::Approval { .. }
            | WaitKind::Budget { .. }
            | WaitKind::Ceiling { .. }
            | WaitKind::Transition { .. } => {}
        }
    }
}
