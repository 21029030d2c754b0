//! The public view of a journal: one JSON object for each thing that happened, made from entries.
//!
//! Events carry names, numbers and codes. Prompts, arguments and outputs stay in the journal.

use schemars::JsonSchema;
use serde::Serialize;
use windlass_core::audit;
use windlass_core::budget::Amounts;
use windlass_core::effect::{Doubt, OpenCall, Outcome, TimerPurpose};
use windlass_core::failure::Failure;
use windlass_core::ids::{EffectId, Name};
use windlass_core::input::Ending;
use windlass_core::journal::Entry;
use windlass_core::label;
use windlass_core::run::{Hold, Run};
use windlass_core::time::Timestamp;
use windlass_core::took::Took;

use crate::commit::target_of;

mod parts;

pub use parts::{CallIntended, CallSettled, FailureSeen, Totals};

/// What one commit did to a run.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The run after it.
    pub run: &'a Run,
    /// What it recorded.
    pub entries: &'a [Entry],
    /// The audit rows that belong to the entries.
    pub audit: &'a [audit::Row],
}

/// One thing that happened in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Event {
    /// What happened.
    #[serde(flatten)]
    pub what: What,
    /// The run.
    pub run_id: Name,
    /// The run that started it; null for a caller's run.
    pub parent_run_id: Option<Name>,
    /// Name of its machine.
    pub machine: Name,
    /// The state it was in; null before the first.
    pub state: Option<Name>,
    /// Number of its step; 0 before the first.
    pub step: u64,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at: u64,
}

/// What happened. New kinds may be added; readers skip those they do not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The run began.
    RunStarted,
    /// A state was entered.
    StateEntered,
    /// The run goes from one state to another.
    Transition {
        /// From this state.
        from: Name,
        /// To this state.
        to: Name,
        /// Which of the state's transitions, from 0; null when an error led there.
        index: Option<u32>,
        /// The name in `on_error` that led there; null otherwise.
        on_error: Option<Name>,
        /// Milliseconds since the state that it leaves was entered, by the times of the journal; null where that is not known.
        duration_ms: Option<u64>,
    },
    /// An agent is asked.
    AgentStarted {
        /// The agent.
        agent: Name,
    },
    /// A call is about to leave.
    CallIntended(CallIntended),
    /// A call ended.
    CallSettled(CallSettled),
    /// An attempt failed; the call is tried again.
    AttemptFailed(CallSettled),
    /// A call no longer matters.
    CallAbandoned {
        /// The call.
        effect: u64,
        /// Milliseconds since its last attempt was decided on, by the times of the journal; null where that is not known.
        duration_ms: Option<u64>,
    },
    /// A call waits for a person before it leaves.
    ApprovalAsked {
        /// The call.
        effect: u64,
        /// The id of the question, as `windlass approvals` takes it.
        approval: Name,
        /// The rule that asks, or `contract`.
        rule: Name,
    },
    /// Nobody answered a question: somebody else is asked too.
    ApprovalEscalated {
        /// The id of the question, as `windlass approvals` takes it.
        approval: Name,
        /// The how manieth time, from 1.
        level: u32,
        /// Who: a group or a channel.
        to: Name,
    },
    /// A question about a transition is closed.
    TransitionAnswered {
        /// From this state.
        from: Name,
        /// To this state.
        to: Name,
        /// `approved`, `rejected`, `expired`.
        answer: Name,
        /// Who answered; empty when nobody did.
        by: Name,
    },
    /// What a call would do was shown.
    PlanMade {
        /// The id of the plan.
        plan: Name,
        /// The tool.
        tool: Name,
        /// When it can no longer be applied, in milliseconds since 1970-01-01 UTC.
        expires_at: u64,
    },
    /// A plan is applied.
    PlanApplied {
        /// The id of the plan.
        plan: Name,
    },
    /// A question about a call is closed.
    ApprovalAnswered {
        /// The call.
        effect: u64,
        /// `approved`, `rejected`, `expired`.
        answer: Name,
        /// Who answered; empty when nobody did.
        by: Name,
    },
    /// It is not known whether a call happened.
    DoubtRaised {
        /// The call.
        effect: u64,
        /// `verifying` by a tool, `asking` a person, or `failing` the call.
        by: Name,
    },
    /// A signal is waited for.
    WaitOpened {
        /// The wait.
        effect: u64,
        /// `signal`, `outcome`, `approval`, `budget`, `transition`.
        kind: Name,
        /// The channel.
        channel: Name,
        /// When it gives up, in milliseconds since 1970-01-01 UTC.
        due: Option<u64>,
    },
    /// A signal ended a wait.
    SignalReceived {
        /// The wait.
        effect: u64,
        /// The signal.
        signal: Name,
        /// Milliseconds since the wait was opened, by the times of the journal; null where that is not known.
        duration_ms: Option<u64>,
    },
    /// A wait ended without a signal.
    WaitClosed {
        /// The wait.
        effect: u64,
        /// Milliseconds since it was opened, by the times of the journal; null where that is not known.
        duration_ms: Option<u64>,
    },
    /// A timer runs.
    TimerSet {
        /// The timer.
        effect: u64,
        /// `run_deadline`, `state_timeout`, `wait_timeout`, `join_timeout`, `backoff`, `continue`.
        purpose: Name,
        /// When it fires, in milliseconds since 1970-01-01 UTC.
        due: u64,
    },
    /// A timer fired.
    TimerFired {
        /// The timer.
        effect: u64,
    },
    /// A child or a launch was started.
    ChildStarted {
        /// The child.
        child_run_id: Name,
        /// Key of its machine.
        child_machine: Name,
        /// Whether the run waits for it.
        awaited: bool,
    },
    /// A child ended.
    ChildSettled {
        /// The child.
        child_run_id: Name,
        /// `completed`, `failed`, `cancelled`.
        status: Name,
        /// Whether its output is a part of what it gave, because the whole is larger than its contract allows.
        truncated: bool,
        /// Milliseconds since it was started, by the times of the journal; null where that is not known.
        duration_ms: Option<u64>,
    },
    /// The state failed.
    FailureRaised(FailureSeen),
    /// The run holds.
    HoldPlaced {
        /// `paused` or `attention`.
        hold: Name,
        /// Why.
        reason: Name,
    },
    /// The run goes on.
    HoldLifted,
    /// A stop was asked for.
    CancelRequested {
        /// Why.
        reason: Name,
    },
    /// A ceiling is nearly reached.
    CeilingNear {
        /// Which.
        meter: Name,
        /// Used or held.
        used: u64,
        /// The bound.
        ceiling: u64,
    },
    /// A row of a decision table fitted.
    RowFired {
        /// The table.
        table: Name,
        /// Number of the row, from 1.
        row: u32,
        /// Name of the row; null where it has none.
        id: Option<Name>,
        /// The state that the run goes to; null where the row names none.
        to: Option<Name>,
    },
    /// A conversation is nearly as long as its model takes.
    ConversationNear {
        /// The agent.
        agent: Name,
        /// The model that is to be called.
        model: Name,
        /// About how many tokens it has.
        tokens: u64,
        /// How many the model takes, or how many it should have at most where that is less.
        context_tokens: u64,
        /// Of what so much is used up that a shorter one counts as long; null where it would at any time.
        saving: Option<Name>,
    },
    /// The run ended with an output.
    RunCompleted(Totals),
    /// The run ended with a failure.
    RunFailed {
        /// Why.
        #[serde(flatten)]
        failure: FailureSeen,
        /// What it used.
        #[serde(flatten)]
        totals: Totals,
    },
    /// The run ended by request.
    RunCancelled {
        /// Why.
        reason: Name,
        /// What it used.
        #[serde(flatten)]
        totals: Totals,
    },
    /// A failed run tries its last state again, or goes past it.
    RunReopened,
    /// A reopened run goes past its last state.
    StateSkipped {
        /// The state.
        state: Name,
        /// Who wanted it.
        by: Name,
        /// Why; empty when it was not said.
        reason: Name,
    },
}

/// The JSON Schema of one line of an events file.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Event).to_value()
}

/// The events of a commit, in order.
#[must_use]
pub fn of(seen: Seen<'_>) -> Vec<Event> {
    let mut place = Place::before(&seen);
    let mut took = seen.run.took.clone();
    let mut events = Vec::new();
    for entry in seen.entries {
        if let Entry::StateEntered { state } = entry {
            place.state = Some(state.clone());
            place.step += 1;
        }
        if let Entry::Decided { at, .. } = entry {
            place.at = *at;
        }
        let took = if Took::is_end(entry) { took.next_ms() } else { None };
        if let Some(what) = what(entry, &seen, took) {
            events.push(Event {
                what,
                run_id: seen.run.id().as_str().into(),
                parent_run_id: seen.run.start.parent.as_ref().map(|parent| parent.run.as_str().into()),
                machine: seen.run.start.machine_name.clone(),
                state: place.state.clone(),
                step: place.step,
                at: place.at.0,
            });
        }
    }
    events
}

/// Where the run was when an entry was recorded.
struct Place {
    state: Option<Name>,
    step: u64,
    at: Timestamp,
}

impl Place {
    /// The place before the first entry, worked out from the run after the last one.
    fn before(seen: &Seen<'_>) -> Self {
        let entered = seen.entries.iter().filter(|entry| matches!(entry, Entry::StateEntered { .. })).count() as u64;
        let first = seen.entries.iter().find_map(|entry| match entry {
            Entry::TransitionTaken { from, .. } | Entry::FailureRouted { from, .. } => Some(Some(from.clone())),
            Entry::StateEntered { .. } => Some(None),
            _ => None,
        });
        let state = if entered == 0 { seen.run.state.clone() } else { first.flatten() };
        Self { state, step: seen.run.step.saturating_sub(entered), at: seen.run.now }
    }
}

/// What an entry tells, and how long that took which it ends.
fn what(entry: &Entry, seen: &Seen<'_>, took: Option<u64>) -> Option<What> {
    flow(entry, seen.run, took).or_else(|| work(entry, seen.audit, took)).or_else(|| waiting(entry, took))
}

/// Entries about the run's way through its states.
fn flow(entry: &Entry, run: &Run, duration_ms: Option<u64>) -> Option<What> {
    Some(match entry {
        Entry::RunStarted(_) => What::RunStarted,
        Entry::StateEntered { .. } => What::StateEntered,
        Entry::ApprovalAsked { effect, wait, rule, .. } => {
            What::ApprovalAsked { effect: effect.0, approval: wait.key(run.id()).into(), rule: rule.clone() }
        }
        Entry::ApprovalAnswered { effect, answer, by, .. } => {
            What::ApprovalAnswered { effect: effect.0, answer: answer.as_str().into(), by: by.clone() }
        }
        Entry::ApprovalEscalated { wait, level, to } => {
            What::ApprovalEscalated { approval: wait.key(run.id()).into(), level: *level, to: to.clone() }
        }
        Entry::TransitionAnswered { from, to, answer, by, .. } => {
            let answer = answer.as_str().into();
            What::TransitionAnswered { from: from.clone(), to: to.clone(), answer, by: by.clone() }
        }
        Entry::PlanMade { id, plan } => {
            What::PlanMade { plan: id.clone(), tool: plan.tool.clone(), expires_at: plan.expires_at.0 }
        }
        Entry::PlanApplied { id } => What::PlanApplied { plan: id.clone() },
        Entry::TransitionTaken { from, to, index } => {
            What::Transition { from: from.clone(), to: to.clone(), index: *index, on_error: None, duration_ms }
        }
        Entry::FailureRouted { from, to, by } => What::Transition {
            from: from.clone(),
            to: to.clone(),
            index: None,
            on_error: Some(by.clone()),
            duration_ms,
        },
        Entry::FailureRaised { failure } => What::FailureRaised(failure_seen(failure)),
        Entry::HoldPlaced { hold } => {
            let (kind, reason) = match hold {
                Hold::Paused { reason, .. } => ("paused", reason),
                Hold::Attention { reason, .. } => ("attention", reason),
                Hold::ReadOnly { reason, .. } => ("read_only", reason),
            };
            What::HoldPlaced { hold: kind.into(), reason: reason.clone() }
        }
        Entry::HoldLifted => What::HoldLifted,
        Entry::CancelRequested { reason } => What::CancelRequested { reason: reason.clone() },
        Entry::RowFired { table, row, id, to, .. } => {
            What::RowFired { table: table.clone(), row: *row, id: id.clone(), to: to.clone() }
        }
        Entry::ConversationNear { agent, model, tokens, context_tokens, saving } => What::ConversationNear {
            agent: agent.clone(),
            model: model.clone(),
            tokens: *tokens,
            context_tokens: *context_tokens,
            saving: saving.clone(),
        },
        Entry::CeilingNear { meter, used, ceiling } => {
            What::CeilingNear { meter: meter.as_str().into(), used: *used, ceiling: *ceiling }
        }
        Entry::RunReopened => What::RunReopened,
        Entry::StateSkipped { state, by, reason } => {
            What::StateSkipped { state: state.clone(), by: by.clone(), reason: reason.clone() }
        }
        Entry::RunEnded => ended(run, duration_ms),
        _ => return None,
    })
}

fn ended(run: &Run, duration_ms: Option<u64>) -> What {
    let used = run.used();
    let totals = Totals {
        steps: run.step,
        model_calls: used.model_calls,
        tool_calls: used.tool_calls,
        tokens: used.tokens,
        cost_micros: used.cost_micros,
        duration_ms,
    };
    match &run.ending {
        Some(Ending::Completed { .. }) => What::RunCompleted(totals),
        Some(Ending::Failed { failure, .. }) => What::RunFailed { failure: failure_seen(failure), totals },
        Some(Ending::Cancelled { reason }) => What::RunCancelled { reason: reason.clone(), totals },
        None => What::RunCancelled { reason: "".into(), totals },
    }
}

/// Entries about agents, calls and children.
fn work(entry: &Entry, audit: &[audit::Row], duration_ms: Option<u64>) -> Option<What> {
    Some(match entry {
        Entry::AgentStarted { exec } => What::AgentStarted { agent: exec.agent.clone() },
        Entry::CallIntended { effect, call } => What::CallIntended(intended(*effect, call)),
        Entry::AttemptStarted { effect, attempt, .. } => {
            let (kind, target) = target_of(audit, *effect)?;
            What::CallIntended(CallIntended {
                effect: effect.0,
                kind: kind.clone(),
                target: target.clone(),
                attempt: *attempt,
            })
        }
        Entry::CallSettled { effect, attempt, outcome, used, estimated } => {
            let failure = if let Outcome::Failed(failure) = outcome { Some(failure) } else { None };
            What::CallSettled(CallSettled {
                duration_ms,
                ..settled(*effect, *attempt, failure, used, *estimated, audit)
            })
        }
        Entry::AttemptFailed { effect, attempt, failure, used, estimated, .. } => What::AttemptFailed(CallSettled {
            duration_ms,
            ..settled(*effect, *attempt, Some(failure), used, *estimated, audit)
        }),
        Entry::CallAbandoned { effect, .. } => What::CallAbandoned { effect: effect.0, duration_ms },
        Entry::DoubtRaised { effect, doubt } => {
            let by = match doubt {
                Doubt::Verifying(_) => "verifying",
                Doubt::Asking(_) => "asking",
                Doubt::Failing => "failing",
            };
            What::DoubtRaised { effect: effect.0, by: by.into() }
        }
        Entry::ChildStarted { child, .. } => What::ChildStarted {
            child_run_id: child.id.as_str().into(),
            child_machine: child.machine.clone(),
            awaited: child.awaited,
        },
        Entry::ChildSettled { child, ending, .. } => {
            let status = match ending {
                Ending::Completed { .. } => "completed",
                Ending::Failed { .. } => "failed",
                Ending::Cancelled { .. } => "cancelled",
            };
            let truncated = matches!(ending, Ending::Completed { output } if label::is_cut(output));
            What::ChildSettled { child_run_id: child.as_str().into(), status: status.into(), truncated, duration_ms }
        }
        _ => return None,
    })
}

fn intended(effect: EffectId, call: &OpenCall) -> CallIntended {
    CallIntended {
        effect: effect.0,
        kind: call.call.kind().into(),
        target: call.call.target().clone(),
        attempt: call.attempt,
    }
}

fn settled(
    effect: EffectId,
    attempt: u32,
    failure: Option<&Failure>,
    used: &Amounts,
    estimated: bool,
    audit: &[audit::Row],
) -> CallSettled {
    let (kind, target) = target_of(audit, effect).unzip();
    CallSettled {
        effect: effect.0,
        kind: kind.cloned(),
        target: target.cloned(),
        attempt,
        ok: failure.is_none(),
        code: failure.map(|failure| failure.code.as_str().into()),
        message: failure.map(|failure| failure.message.clone()),
        tokens: used.tokens,
        cost_micros: used.cost_micros,
        estimated,
        duration_ms: None,
    }
}

/// Entries about waits and timers.
fn waiting(entry: &Entry, duration_ms: Option<u64>) -> Option<What> {
    Some(match entry {
        Entry::WaitOpened { effect, wait } => What::WaitOpened {
            effect: effect.0,
            kind: wait.kind.as_str().into(),
            channel: wait.channel.clone(),
            due: wait.due.map(|due| due.0),
        },
        Entry::WaitClosed { effect, signal: Some(signal) } => {
            What::SignalReceived { effect: effect.0, signal: signal.clone(), duration_ms }
        }
        Entry::WaitClosed { effect, signal: None } => What::WaitClosed { effect: effect.0, duration_ms },
        Entry::TimerSet { effect, timer } => {
            What::TimerSet { effect: effect.0, purpose: purpose(timer.purpose).into(), due: timer.due.0 }
        }
        Entry::TimerEnded { effect, fired: true } => What::TimerFired { effect: effect.0 },
        _ => return None,
    })
}

fn purpose(purpose: TimerPurpose) -> &'static str {
    match purpose {
        TimerPurpose::RunDeadline => "run_deadline",
        TimerPurpose::StateTimeout => "state_timeout",
        TimerPurpose::WaitTimeout { .. } => "wait_timeout",
        TimerPurpose::Escalation { .. } => "escalation",
        TimerPurpose::JoinTimeout => "join_timeout",
        TimerPurpose::Backoff { .. } => "backoff",
        TimerPurpose::Continue => "continue",
    }
}

fn failure_seen(failure: &Failure) -> FailureSeen {
    FailureSeen { code: failure.code.as_str().into(), message: failure.message.clone() }
}

#[cfg(test)]
mod tests {
    use windlass_core::failure::Code;

    use super::*;
    use crate::recover::tests::run;

    fn lines(run: &Run, entries: &[Entry]) -> Vec<serde_json::Value> {
        of(Seen { run, entries, audit: &[] }).iter().map(|event| serde_json::to_value(event).expect("JSON")).collect()
    }

    #[test]
    fn every_event_says_where_the_run_was() {
        let mut run = run();
        run.step = 3;
        run.state = Some("c".into());
        let entries = [
            Entry::Decided { at: Timestamp(42), input: "settled".into(), by: None, basis: None, verdicts: Vec::new() },
            Entry::TransitionTaken { from: "a".into(), to: "b".into(), index: Some(0) },
            Entry::StateEntered { state: "b".into() },
            Entry::FailureRaised { failure: Failure::new(Code::ToolFailed, "no") },
            Entry::FailureRouted { from: "b".into(), to: "c".into(), by: "default".into() },
            Entry::StateEntered { state: "c".into() },
        ];
        let lines = lines(&run, &entries);
        let places: Vec<_> = lines
            .iter()
            .map(|e| format!("{} {} {}", e["event"].as_str().expect("kind"), e["state"], e["step"]))
            .collect();
        assert_eq!(
            places,
            [
                "transition \"a\" 1",
                "state_entered \"b\" 2",
                "failure_raised \"b\" 2",
                "transition \"b\" 2",
                "state_entered \"c\" 3"
            ]
        );
        assert_eq!(
            lines[1],
            serde_json::json!({"event": "state_entered", "run_id": "r", "parent_run_id": null, "machine": "m",
                "state": "b", "step": 2, "at": 42})
        );
    }

    #[test]
    fn the_end_of_a_run_is_one_flat_object() {
        let mut run = run();
        run.ending = Some(Ending::Failed { failure: Failure::new(Code::ToolFailed, "no"), state: None });
        let lines = lines(&run, &[Entry::RunEnded]);
        assert_eq!(lines[0]["event"], "run_failed");
        assert_eq!(lines[0]["code"], "tool.failed");
        assert_eq!(lines[0]["cost_micros"], 0);
    }

    #[test]
    fn the_schema_names_every_kind() {
        let text = schema().to_string();
        for kind in ["run_started", "state_entered", "call_settled", "ceiling_near", "run_cancelled"] {
            assert!(text.contains(kind), "{kind}");
        }
    }
}
