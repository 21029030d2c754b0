//! Who watches: the observer of commits, the points at which a test can interfere, and the names of spans.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::contract::Class;
use windlass_core::effect::{Call, Outcome, Spent};
use windlass_core::hidden::Hidden;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::journal::Entry;
use windlass_core::run::{Run, Status};
use windlass_core::time::Timestamp;
use windlass_core::trace::Incoming;
use windlass_core::value::Value;

use crate::events::Seen;

/// Is told what was committed, before the effects of the commit are performed. Called on the path of every step:
/// it must not wait.
pub trait Observer: Send + Sync + fmt::Debug {
    /// A decision of this run is durable; the run is as it is after it.
    fn committed(&self, run: &Run, entries: &[Entry]);

    /// The same with the audit rows. What [`crate::events::of`] makes events from.
    fn seen(&self, seen: Seen<'_>) {
        self.committed(seen.run, seen.entries);
    }
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn committed(&self, _: &Run, _: &[Entry]) {}
}

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tally {
    /// A run was claimed.
    Claimed,
    /// A decision became durable.
    Commit,
    /// A decision was refused because someone else holds the run.
    Fenced,
    /// A state was entered.
    Step,
    /// A run ended.
    Ended,
    /// A caller's run completed.
    Completed,
    /// A caller's run failed.
    Failed,
    /// A caller's run was cancelled.
    Cancelled,
    /// A worker of this process no longer counted.
    WorkerLost,
    /// A run was taken back from a worker that is gone.
    Reaped,
    /// A run was quarantined.
    Quarantined,
    /// A run was left for another worker, because this one lacks what it needs.
    Unfit,
    /// A call waited for permits of a rate.
    RateWaited,
    /// A call was turned away, because permits of a rate would have come too late.
    RateShed,
    /// The ramp of a tool has stopped.
    RampStopped,
    /// A schedule started a run.
    Scheduled,
    /// A schedule could not be dealt with.
    ScheduleFailed,
}

impl Tally {
    /// What the end of a caller's run is counted as.
    pub(super) fn of_ending(status: Status) -> Self {
        match status {
            Status::Completed => Self::Completed,
            Status::Cancelled => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

/// Something that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    /// From a claim to the first thing decided.
    Start,
    /// From an input to its decision being durable.
    Step,
    /// From a commit being sent to its answer.
    Commit,
    /// From the time a scheduled run was due to its creation.
    Late,
}

/// Is told how often things happen and how long they take. Called on the path of every step: it must not wait.
pub trait Meter: Send + Sync + fmt::Debug {
    /// It happened so many times more.
    fn count(&self, what: Tally, by: u64);

    /// It took so long.
    fn took(&self, what: Span, time: Duration);

    /// Whether what a call is given is wanted with its end, as [`Called::asked`].
    fn wants(&self, _call: &Leaving<'_>) -> bool {
        false
    }

    /// A call is about to leave.
    fn leaves(&self, _call: &Leaving<'_>) {}

    /// A call has ended, whatever becomes of its result. A process that dies tells nothing of those that were out.
    fn called(&self, _call: &Called<'_>) {}

    /// A decision is durable.
    fn decided(&self, _run: &Run, _entries: &[Entry]) {}
}

/// Tells several meters.
#[derive(Clone, Debug, Default)]
pub struct Meters(pub Vec<Arc<dyn Meter>>);

impl Meter for Meters {
    fn count(&self, what: Tally, by: u64) {
        self.0.iter().for_each(|meter| meter.count(what, by));
    }

    fn took(&self, what: Span, time: Duration) {
        self.0.iter().for_each(|meter| meter.took(what, time));
    }

    fn wants(&self, call: &Leaving<'_>) -> bool {
        self.0.iter().any(|meter| meter.wants(call))
    }

    fn leaves(&self, call: &Leaving<'_>) {
        self.0.iter().for_each(|meter| meter.leaves(call));
    }

    fn called(&self, call: &Called<'_>) {
        self.0.iter().for_each(|meter| meter.called(call));
    }

    fn decided(&self, run: &Run, entries: &[Entry]) {
        self.0.iter().for_each(|meter| meter.decided(run, entries));
    }
}

/// Whose call it is, and which.
#[derive(Clone, Debug)]
pub struct Leaving<'a> {
    /// The run.
    pub run: &'a RunId,
    /// Its tenant.
    pub tenant: &'a Name,
    /// Its user, when it has one.
    pub user: Option<&'a Name>,
    /// Name of its machine.
    pub machine: &'a Name,
    /// The effect's key.
    pub key: &'a str,
    /// The trace within which the run was started, when it was.
    pub trace: Option<&'a Incoming>,
    /// The attempt, from 1.
    pub attempt: u32,
    /// `model`, `tool`, `hook`, `action`, `verify`.
    pub kind: &'static str,
    /// Agent, tool, hook or action.
    pub target: &'a Name,
    /// What it may do.
    pub class: Class,
    /// Hash of the arguments.
    pub arguments: Digest,
    /// Of a model call: the provider and the model.
    pub model: Option<(&'a Name, &'a Name)>,
}

/// A call that has ended.
#[derive(Clone, Debug)]
pub struct Called<'a> {
    /// The call.
    pub call: &'a Leaving<'a>,
    /// When it began to be sent.
    pub began: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// What it cost.
    pub spent: &'a Spent,
    /// What it was given, when somebody wants that.
    pub asked: Option<&'a Value>,
    /// What of both is not shown to anybody, then.
    pub hidden: Option<&'a Hidden>,
}

/// A place in the life of a run at which a process may be made to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// A decision is about to be committed.
    BeforeCommit,
    /// It is durable; nobody has been told and no effect has been performed.
    AfterCommit,
    /// A call of this kind is about to leave; that has not been noted yet.
    BeforeSend(&'static str),
    /// It is noted that a call of this kind leaves, where that is noted; nothing of it has been sent.
    Departing(&'static str),
    /// A call of this kind has ended; its result is in memory only.
    AfterSend(&'static str),
    /// The result of a call is about to be decided on.
    BeforeSettle(&'static str),
}

/// Is called at every [`Point`] that is passed.
#[derive(Clone)]
pub struct Failpoint(Arc<dyn Fn(Point) + Send + Sync>);

impl Failpoint {
    /// Calls `hook` at every point.
    pub fn new(hook: impl Fn(Point) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(super) fn pass(&self, point: Point) {
        (self.0)(point);
    }
}

impl fmt::Debug for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Failpoint")
    }
}

/// The span of a call, named as the OpenTelemetry conventions for generative AI name it.
pub(super) fn span(call: &Call, run: &str) -> tracing::Span {
    let target = &**call.target();
    match call {
        Call::Model { .. } => tracing::debug_span!("chat", run_id = run, agent = target),
        Call::Tool { .. } | Call::Action { .. } | Call::Verify { .. } => {
            tracing::debug_span!("execute_tool", run_id = run, tool = target)
        }
        Call::Hook { .. } => tracing::debug_span!("hook", run_id = run, hook = target),
    }
}

/// How many entries are of a kind.
pub(super) fn count(entries: &[Entry], is_one: impl Fn(&Entry) -> bool) -> u64 {
    entries.iter().filter(|entry| is_one(entry)).count() as u64
}
