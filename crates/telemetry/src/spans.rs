//! What becomes a span, and where it stands in a trace.
//!
//! A span of a run goes from its first decision to its end, whatever pauses and processes are in between; those of its calls
//! and of the runs it started are below it. Ids come from ids of runs and calls, so that every process makes the same.

use std::time::Duration;

use windlass_core::effect::Outcome;
use windlass_core::journal::Entry;
use windlass_core::policy::{Answer, Question, Verdict};
use windlass_core::run::Run;
use windlass_core::time::Timestamp;
use windlass_core::trace::{Incoming, SpanId, TraceId};
use windlass_core::transcript::Finish;
use windlass_runtime::{Called, Meter, Span, Tally};

use crate::export::Exporter;
use crate::names;

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A text: a name, a code or a hash.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Field {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its trace.
    pub trace: TraceId,
    /// Its id.
    pub id: SpanId,
    /// The span it is below.
    pub parent: Option<SpanId>,
    /// Its name.
    pub name: &'static str,
    /// Whether it is a call that leaves the process.
    pub leaves: bool,
    /// When it began, in nanoseconds since 1970-01-01 UTC.
    pub began_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// What is known of it.
    pub fields: Vec<(&'static str, Field)>,
    /// The code of the failure it ended with.
    pub failed: Option<String>,
}

fn nanos(at: Timestamp) -> u64 {
    at.0.saturating_mul(1_000_000)
}

/// A span of no length within a run.
fn moment(run: &Run, name: &'static str, part: &str, fields: Vec<(&'static str, Field)>) -> Taken {
    let at = nanos(run.now);
    Taken {
        trace: TraceId::within(run.start.caller.trace.as_ref(), run.id()),
        id: SpanId::of_part(run.id(), part),
        parent: Some(SpanId::of_run(run.id())),
        name,
        leaves: false,
        began_ns: at,
        ended_ns: at,
        fields,
        failed: None,
    }
}

/// The span of a run that has ended.
fn of_run(run: &Run) -> Taken {
    let (start, used) = (&run.start, run.used());
    let incoming = start.caller.trace.as_ref();
    let status = run.status();
    let fields = vec![
        (names::OPERATION, "invoke_workflow".into()),
        (names::WORKFLOW, (&*start.machine_name).into()),
        (names::CONVERSATION, run.id().as_str().into()),
        (names::TENANT, (&*start.scope.tenant).into()),
        (names::STATUS, status.as_str().into()),
        (names::STEPS, run.step.into()),
        (names::DECISIONS, run.version.into()),
        (names::COST, used.cost_micros.into()),
    ];
    let failed = match &run.ending {
        Some(windlass_core::input::Ending::Failed { failure, .. }) => Some(failure.code.as_str().to_owned()),
        _ => None,
    };
    Taken {
        trace: TraceId::within(incoming, run.id()),
        id: SpanId::of_run(run.id()),
        parent: match &start.parent {
            Some(parent) => Some(SpanId::of_run(&parent.run)),
            None => incoming.map(Incoming::span),
        },
        name: names::RUN,
        leaves: false,
        began_ns: nanos(run.started_at),
        ended_ns: nanos(run.now),
        fields,
        failed,
    }
}

fn of_verdict(run: &Run, place: usize, verdict: &Verdict) -> Taken {
    let (action, about) = match &verdict.question {
        Question::CallModel { model, .. } => ("call_model", (names::REQUEST_MODEL, Field::from(&**model))),
        Question::CallTool { tool, .. } => ("call_tool", (names::TOOL_NAME, Field::from(&**tool))),
        Question::StartMachine { machine } => ("start_machine", (names::WORKFLOW, Field::from(&**machine))),
        Question::TakeTransition { to, .. } => ("take_transition", (names::STATE, Field::from(&**to))),
    };
    let answer = match verdict.answer {
        Answer::Allow => "allow",
        Answer::Ask => "ask",
        Answer::Deny => "deny",
    };
    let fields = vec![
        (names::ACTION, action.into()),
        about,
        (names::ANSWER, answer.into()),
        (names::RULE, (&*verdict.rule).into()),
        (names::RULES, (&*verdict.version).into()),
    ];
    moment(run, names::POLICY, &format!("policy {} {place}", run.version), fields)
}

/// Spans of what a decision recorded.
fn of_entries(run: &Run, entries: &[Entry]) -> Vec<Taken> {
    let mut spans = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        let part = |name: &str| format!("{name} {} {place}", run.version);
        match entry {
            Entry::Decided { verdicts, .. } => {
                spans.extend(verdicts.iter().enumerate().map(|(place, verdict)| of_verdict(run, place, verdict)));
            }
            Entry::ToolsListed { tools } => {
                let fields = vec![(names::TOOLS, (tools.len() as u64).into())];
                spans.push(moment(run, names::SELECT, &part("select"), fields));
            }
            Entry::TurnTaken { pending, cost_micros, .. } => {
                let fields = vec![(names::TOOLS, (pending.len() as u64).into()), (names::COST, (*cost_micros).into())];
                spans.push(moment(run, names::PLAN, &part("plan"), fields));
            }
            Entry::RunEnded => spans.push(of_run(run)),
            _ => {}
        }
    }
    spans
}

/// The span of an attempt at a call.
fn of_call(called: &Called<'_>) -> Taken {
    let call = called.call;
    let (name, operation) = match call.kind {
        "model" => (names::MODEL, "chat"),
        "hook" => (names::HOOK, "hook"),
        _ => (names::TOOL, "execute_tool"),
    };
    let arguments = call.arguments.to_string();
    let mut fields = vec![
        (names::OPERATION, operation.into()),
        (names::CONVERSATION, call.run.as_str().into()),
        (names::WORKFLOW, (&**call.machine).into()),
        (names::TENANT, (&**call.tenant).into()),
        (names::KEY, call.key.into()),
        (names::ATTEMPT, u64::from(call.attempt).into()),
        (names::CLASS, call.class.as_str().into()),
        (names::ARGUMENTS, arguments.as_str().into()),
    ];
    match call.model {
        Some((provider, model)) => {
            fields.push((names::AGENT, (&**call.target).into()));
            fields.push((names::PROVIDER, (&**provider).into()));
            fields.push((names::REQUEST_MODEL, (&**model).into()));
        }
        None => {
            fields.push((names::TOOL_NAME, (&**call.target).into()));
            fields.push((names::CALL_ID, call.key.into()));
        }
    }
    let failed = answered(called, &mut fields);
    let began_ns = nanos(called.began);
    let took = u64::try_from(called.took.as_nanos()).unwrap_or(u64::MAX);
    // Every attempt is a span; the first has the id that the other side was told.
    let id = if call.attempt == 1 {
        SpanId::of_call(call.key)
    } else {
        SpanId::of_part(call.run, &format!("{} {}", call.key, call.attempt))
    };
    Taken {
        trace: TraceId::within(call.trace, call.run),
        id,
        parent: Some(SpanId::of_run(call.run)),
        name,
        leaves: true,
        began_ns,
        ended_ns: began_ns.saturating_add(took),
        fields,
        failed,
    }
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ToolUse => "tool_calls",
        Finish::ContentFilter => "content_filter",
    }
}

/// What the outcome tells: numbers, and the code of a failure.
fn answered(called: &Called<'_>, fields: &mut Vec<(&'static str, Field)>) -> Option<String> {
    match called.outcome {
        Outcome::Replied(reply) => {
            let usage = &reply.usage;
            for (name, tokens) in [
                (names::INPUT_TOKENS, usage.input),
                (names::OUTPUT_TOKENS, usage.output),
                (names::CACHED_TOKENS, usage.cache_read),
                (names::COST, reply.cost_micros),
            ] {
                fields.extend(tokens.map(|tokens| (name, tokens.into())));
            }
            fields.push((names::FINISH, finish(reply.finish).into()));
            fields.push((names::ANSWER_BYTES, (reply.content.len() as u64).into()));
            None
        }
        Outcome::Returned(value) => {
            fields.push((names::ANSWER_BYTES, (value.to_json().len() as u64).into()));
            None
        }
        Outcome::Failed(failure) => {
            let code = failure.code.as_str();
            fields.push((names::ERROR, code.into()));
            Some(code.to_owned())
        }
    }
}

/// Makes spans of what an engine does. Give it to the engine as a meter.
#[derive(Clone, Debug)]
pub struct Spans(Exporter);

impl Spans {
    /// Spans go to this exporter.
    #[must_use]
    pub fn new(exporter: Exporter) -> Self {
        Self(exporter)
    }
}

impl Meter for Spans {
    fn count(&self, _: Tally, _: u64) {}

    fn took(&self, _: Span, _: Duration) {}

    fn called(&self, call: &Called<'_>) {
        if self.0.wants(call.call.trace) {
            self.0.send(of_call(call));
        }
    }

    fn decided(&self, run: &Run, entries: &[Entry]) {
        if !self.0.wants(run.start.caller.trace.as_ref()) {
            return;
        }
        for span in of_entries(run, entries) {
            self.0.send(span);
        }
    }
}
