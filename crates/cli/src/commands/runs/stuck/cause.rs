//! Why a run does not go on. Pure: a run, the workers and the time come as arguments.

use std::collections::BTreeMap;

use windlass_core::approval;
use windlass_core::effect::{OpenCall, WaitKind};
use windlass_core::ids::{Name, RunId};
use windlass_core::run::{Hold, Run, Status};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, WorkerRow};

use crate::outcome::quoted;
use crate::output::time;

/// How long after its time a timer may fire, in milliseconds.
const TIMER_SLACK_MS: u64 = 5_000;

/// The causes, each with a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// It took workers down.
    Quarantined,
    /// A person paused it.
    Paused,
    /// A person has to say whether a call happened.
    OutcomeUnknown,
    /// A person has to decide about a tool that is not what was accepted.
    ToolChanged,
    /// It is held for a person, for another reason.
    Attention,
    /// A person has to approve a call.
    Approval,
    /// A budget has too little for a call.
    Budget,
    /// Nobody sent the signal.
    Signal,
    /// Its time has come, and nobody woke it.
    TimerOverdue,
    /// A call failed and is made again later.
    Retrying,
    /// No worker lives.
    NoWorker,
    /// No worker that lives serves its pool.
    NoWorkerForPool,
    /// All workers that serve its pool are about to end.
    WorkersDraining,
    /// All workers that serve its pool have their hands full.
    WorkersBusy,
    /// Workers with room do not take it.
    NotTaken,
    /// The worker that held it is gone.
    WorkerLost,
    /// A call waits for permits of a rate.
    RateLimited,
    /// A call is out, within its time.
    CallOut,
    /// A call is out, beyond its time.
    CallOverdue,
    /// It is held, and does nothing.
    NoProgress,
}

impl Cause {
    /// The word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::Paused => "paused",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::ToolChanged => "tool_changed",
            Self::Attention => "attention",
            Self::Approval => "approval",
            Self::Budget => "budget",
            Self::Signal => "signal",
            Self::TimerOverdue => "timer_overdue",
            Self::Retrying => "retrying",
            Self::NoWorker => "no_worker",
            Self::NoWorkerForPool => "no_worker_for_pool",
            Self::WorkersDraining => "workers_draining",
            Self::WorkersBusy => "workers_busy",
            Self::NotTaken => "not_taken",
            Self::WorkerLost => "worker_lost",
            Self::RateLimited => "rate_limited",
            Self::CallOut => "call_out",
            Self::CallOverdue => "call_overdue",
            Self::NoProgress => "no_progress",
        }
    }
}

/// Why a run does not go on, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) cause: Cause,
    /// What is known about it.
    pub(super) detail: String,
    /// The next step, a command where there is one.
    pub(super) next: String,
}

fn finding(cause: Cause, detail: impl Into<String>, next: impl Into<String>) -> Option<Finding> {
    Some(Finding { cause, detail: detail.into(), next: next.into() })
}

/// What a run waits for whose call waits for permits.
#[derive(Clone, Debug)]
pub(super) struct Limited {
    /// The bucket.
    pub(super) bucket: Name,
    /// Since when the call at the front waits there.
    pub(super) since: Timestamp,
}

/// The workers, and the runs whose calls they make wait.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    workers: Vec<WorkerRow>,
    limited: BTreeMap<RunId, Limited>,
}

impl Fleet {
    pub(super) fn new(workers: Vec<WorkerRow>, limited: BTreeMap<RunId, Limited>) -> Self {
        Self { workers, limited }
    }

    fn alive(&self) -> impl Iterator<Item = &WorkerRow> {
        self.workers.iter().filter(|worker| worker.is_alive)
    }
}

/// Why a run does not go on; none when it has a reason not to, such as a time that has not come or a child that works.
pub(super) fn find(head: &Head, run: &Run, fleet: &Fleet, now: Timestamp) -> Option<Finding> {
    let id = quoted(head.id.as_str());
    match head.status {
        Status::Completed | Status::Failed | Status::Cancelled => None,
        Status::Quarantined => finding(
            Cause::Quarantined,
            head.quarantine.as_deref().unwrap_or("it took its workers down"),
            format!("windlass runs requeue {id}"),
        ),
        Status::Paused => {
            let reason = run.hold.as_ref().map(|hold| hold.reason().to_string()).unwrap_or_default();
            let next = match &run.hold {
                Some(Hold::ReadOnly { .. }) => "windlass readonly status".to_owned(),
                Some(Hold::Paused { .. } | Hold::Attention { .. }) | None => format!("windlass runs unpause {id}"),
            };
            finding(Cause::Paused, reason, next)
        }
        Status::Attention | Status::Waiting => tool_changed(run).or_else(|| waits(head, run, fleet, now)),
        Status::Queued if head.wake_at.is_some_and(|due| due > now) => None,
        Status::Queued => queued(head, fleet),
        Status::Running => match &head.owner {
            None => queued(head, fleet),
            Some(owner) if !fleet.alive().any(|worker| worker.id == *owner) => finding(
                Cause::WorkerLost,
                format!("`{owner}` held it and is gone"),
                format!("start a worker: windlass worker; or: windlass resume {}", quoted(head.root.as_str())),
            ),
            Some(owner) => match fleet.limited.get(&head.id).filter(|_| run.calls.values().any(OpenCall::is_out)) {
                Some(Limited { bucket, since }) => finding(
                    Cause::RateLimited,
                    format!("a call waits for permits of `{bucket}`, the first there since {}", time(*since)),
                    "windlass limits --waiting; raise the limit under `[[limits.rates]]`, or wait",
                ),
                None => held(run, owner.0.as_ref(), now),
            },
        },
    }
}

/// A call waits for a decision about its tool.
fn tool_changed(run: &Run) -> Option<Finding> {
    let (server, tool) = run.waits.values().find_map(|wait| match &wait.kind {
        WaitKind::ToolChanged { server, tool, .. } => Some((server, tool)),
        _ => None,
    })?;
    let detail = format!(
        "`{tool}` of `{server}` is not what was accepted; `windlass tools accept` takes it as it is, `windlass tools release` \
         lets the accepted one run again"
    );
    finding(Cause::ToolChanged, detail, format!("windlass tools blocked {}", quoted(server)))
}

/// A run that is parked.
fn waits(head: &Head, run: &Run, fleet: &Fleet, now: Timestamp) -> Option<Finding> {
    let late = run.timers.values().find(|timer| timer.due.plus_ms(TIMER_SLACK_MS) < now);
    if let Some(timer) = late {
        let detail = format!("it was to go on at {}", time(timer.due));
        return match queued(head, fleet) {
            Some(Finding { cause: cause @ (Cause::NoWorker | Cause::NoWorkerForPool), next, .. }) => {
                finding(cause, detail, next)
            }
            _ => finding(Cause::TimerOverdue, detail, format!("windlass resume {}", quoted(head.root.as_str()))),
        };
    }
    let of = |wanted: fn(&WaitKind) -> bool| run.waits.iter().find(|(_, wait)| wanted(&wait.kind));
    if let Some((_, wait)) = of(|kind| matches!(kind, WaitKind::Outcome { .. })) {
        return finding(
            Cause::OutcomeUnknown,
            "a call left, and nobody knows whether it happened: look there, then say `true` or `false`",
            format!("windlass signal {} --data '{{\"happened\": true|false}}'", quoted(&wait.channel)),
        );
    }
    if let Some((effect, wait)) = of(|kind| matches!(kind, WaitKind::Approval { .. } | WaitKind::Transition { .. })) {
        let until = approval::due(run, *effect).map(|due| format!(", until {}", time(due))).unwrap_or_default();
        let question = quoted(&format!("{}#{}", head.id, effect.0));
        return finding(
            Cause::Approval,
            format!(
                "a person has to approve a {}{until}",
                if wait.kind.as_str() == "transition" { "transition" } else { "call" }
            ),
            format!("windlass approvals show {question}"),
        );
    }
    if let Some((effect, wait)) = of(|kind| matches!(kind, WaitKind::Ceiling { .. }))
        && let WaitKind::Ceiling { over, .. } = &wait.kind
    {
        let (left, ceiling, wanted, meter) = (over.left, over.ceiling, over.wanted, over.meter.as_str());
        return finding(
            Cause::Budget,
            format!("the run has {left} of {ceiling} {meter} left, a call needs {wanted}"),
            format!("windlass approvals show {}", quoted(&format!("{}#{}", head.id, effect.0))),
        );
    }
    if let Some((_, wait)) = of(|kind| matches!(kind, WaitKind::Budget { .. }))
        && let WaitKind::Budget { refusal, .. } = &wait.kind
    {
        let (scope, meter) = (&refusal.scope, refusal.meter.as_str());
        let (left, cap, wanted) = (refusal.left, refusal.cap, refusal.wanted);
        return finding(
            Cause::Budget,
            format!("the budget of `{scope}` has {left} of {cap} {meter} left, a call needs {wanted}"),
            format!("windlass budgets raise {} --{} N", quoted(scope), meter.replace('_', "-")),
        );
    }
    if head.status == Status::Attention {
        let reason = run.hold.as_ref().map(|hold| hold.reason().to_string()).unwrap_or_default();
        return finding(Cause::Attention, reason, format!("windlass runs show {}", quoted(head.id.as_str())));
    }
    // A wait with a time ends by itself.
    if let Some((_, wait)) = of(|kind| *kind == WaitKind::Signal).filter(|(_, wait)| wait.due.is_none()) {
        return finding(
            Cause::Signal,
            format!("nothing came on `{}`", wait.channel),
            format!("windlass signal {} --data JSON", quoted(&wait.channel)),
        );
    }
    let again = run.calls.values().find_map(|call| Some((call, run.timers.get(&call.backoff?)?)));
    let (call, timer) = again?;
    finding(
        Cause::Retrying,
        format!("{} failed {} times; the next attempt is due at {}", named(call), call.attempt, time(timer.due)),
        format!("windlass runs journal {} --plain", quoted(head.id.as_str())),
    )
}

/// A run that is in the queue.
fn queued(head: &Head, fleet: &Fleet) -> Option<Finding> {
    let run = quoted(head.root.as_str());
    if fleet.alive().next().is_none() {
        return finding(Cause::NoWorker, "no worker lives", format!("windlass worker; or: windlass resume {run}"));
    }
    let pools = |worker: &WorkerRow| worker.registration.pools.clone();
    let serving: Vec<&WorkerRow> =
        fleet.alive().filter(|worker| pools(worker).is_empty() || pools(worker).contains(&head.pool)).collect();
    if serving.is_empty() {
        return finding(
            Cause::NoWorkerForPool,
            format!("no worker serves the pool `{}`", head.pool),
            format!("windlass worker --pool {}", quoted(&head.pool)),
        );
    }
    let (count, open): (usize, Vec<_>) = (serving.len(), serving.into_iter().filter(|w| !w.load.draining).collect());
    if open.is_empty() {
        return finding(Cause::WorkersDraining, format!("{count} workers are about to end"), "windlass worker");
    }
    if open.iter().all(|worker| worker.load.calls >= worker.registration.call_slots) {
        let calls: u64 = open.iter().map(|worker| u64::from(worker.load.calls)).sum();
        let detail = format!("{calls} calls fill the slots of {} workers", open.len());
        return finding(Cause::WorkersBusy, detail, "add workers, or raise `worker.call_slots`");
    }
    finding(
        Cause::NotTaken,
        format!("{} workers have room and do not take it", open.len()),
        "read their logs: one that lacks a model or a tool of the run says so; `queue.tenant_held_max` may bound its tenant",
    )
}

/// A run that a living worker holds.
fn held(run: &Run, owner: &str, now: Timestamp) -> Option<Finding> {
    let out = run.calls.values().filter(|call| call.is_out()).min_by_key(|call| call.at);
    let Some(call) = out else {
        return finding(
            Cause::NoProgress,
            format!("`{owner}` holds it, and no call is out"),
            "read the log of that worker",
        );
    };
    let since = format!("{} is out since {}", named(call), time(call.at));
    if call.at.plus_ms(call.timeout_ms).plus_ms(TIMER_SLACK_MS) < now {
        let detail = format!("{since}, longer than its {} ms", call.timeout_ms);
        return finding(Cause::CallOverdue, detail, format!("look at the process of `{owner}`"));
    }
    finding(Cause::CallOut, since, format!("wait, or look at what {} calls", call.call.target()))
}

fn named(call: &OpenCall) -> String {
    format!("{} `{}`", call.call.kind(), call.call.target())
}

#[cfg(test)]
mod tests {
    use windlass_core::ids::Digest;
    use windlass_core::machine::Priority;
    use windlass_ports::store::{Load, Registration, WorkerId};

    use super::*;

    fn head(status: Status) -> Head {
        Head {
            id: RunId::stored("r"),
            status,
            machine: "m".into(),
            state: None,
            step: 1,
            version: 1,
            epoch: 1,
            owner: None,
            parent: None,
            root: RunId::stored("r"),
            depth: 0,
            tenant: "default".into(),
            bundle: Digest::ZERO,
            input: Digest::ZERO,
            wake_at: None,
            pool: "default".into(),
            priority: Priority::Normal,
            tags: std::collections::BTreeMap::new(),
            strikes: 0,
            quarantine: None,
            helped: 0,
            tokens: 0,
            cost_micros: 0,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    fn worker(calls: u32, draining: bool) -> WorkerRow {
        WorkerRow {
            id: WorkerId("w".into()),
            registration: Registration {
                host: "h".into(),
                pid: 1,
                build: "1".into(),
                pools: Vec::new(),
                claim_slots: 2,
                call_slots: 2,
                keys: Vec::new(),
            },
            load: Load { held: calls, calls, draining },
            seen_at: Timestamp(0),
            is_alive: true,
            runs: u64::from(calls),
        }
    }

    #[test]
    fn workers_that_do_not_take_a_run_are_told_apart() {
        let of = |workers: Vec<WorkerRow>| {
            queued(&head(Status::Queued), &Fleet::new(workers, BTreeMap::new())).map(|found| found.cause)
        };
        assert_eq!(of(Vec::new()), Some(Cause::NoWorker));
        assert_eq!(of(vec![WorkerRow { is_alive: false, ..worker(0, false) }]), Some(Cause::NoWorker));
        assert_eq!(of(vec![worker(0, true)]), Some(Cause::WorkersDraining));
        assert_eq!(of(vec![worker(2, false), worker(0, true)]), Some(Cause::WorkersBusy));
        assert_eq!(of(vec![worker(2, false), worker(1, false)]), Some(Cause::NotTaken));
    }

    #[test]
    fn a_time_that_has_passed_is_told_from_one_that_has_not() {
        let fleet = Fleet::new(vec![worker(0, false)], BTreeMap::new());
        let start = windlass_core::run::Start::new(
            RunId::stored("r"),
            Digest::ZERO,
            "m".into(),
            "m".into(),
            windlass_core::value::Value::Null,
        );
        let mut run = Run::blank(start);
        let timer = windlass_core::effect::OpenTimer {
            due: Timestamp(10_000),
            purpose: windlass_core::effect::TimerPurpose::StateTimeout,
        };
        run.timers.insert(windlass_core::ids::EffectId(1), timer);
        let at = |now: u64, fleet: &Fleet| {
            find(&head(Status::Waiting), &run, fleet, Timestamp(now)).map(|found| found.cause)
        };
        assert_eq!(at(9_000, &fleet), None);
        assert_eq!(at(20_000, &fleet), Some(Cause::TimerOverdue));
        assert_eq!(at(20_000, &Fleet::new(Vec::new(), BTreeMap::new())), Some(Cause::NoWorker));
    }
}
