//! The numbers of a process, counted as things happen and read from the store when they are asked for.

mod calls;
mod objectives;
mod requests;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use windlass_core::contract::Contract;
use windlass_core::journal::Entry;
use windlass_core::run::Run;
use windlass_core::time::Timestamp;
use windlass_ports::store::escrow::BudgetRow;
use windlass_ports::store::{POOL_DEFAULT, Priority, Stats};
use windlass_runtime::{Called, Leaving, Meter, Span, Tally, Vitals};

use calls::Calls;
use objectives::Objectives;
use requests::Requests;

pub use objectives::{CostBound, CostObjective};

/// Upper bounds of the latency histograms, in seconds.
const BUCKETS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Pools that are named; more are counted together, so that a name somebody makes up does not grow the output.
const POOLS_MAX: usize = 100;
/// Budgets that are told: those of which most is taken.
const BUDGETS_TOLD_MAX: usize = 100;
/// The name under which further pools are counted.
const OTHER: &str = "other";

/// Names and meanings of the counters, by what they count.
const TALLIES: &[(Tally, &str, &str)] = &[
    (Tally::Claimed, "windlass_runs_claimed_total", "Runs claimed by this process."),
    (Tally::Commit, "windlass_commits_total", "Decisions that this process made durable."),
    (Tally::Fenced, "windlass_fenced_total", "Decisions refused because someone else holds the run."),
    (Tally::Step, "windlass_steps_total", "States entered."),
    (Tally::Ended, "windlass_runs_ended_total", "Runs that ended, however they did."),
    (Tally::WorkerLost, "windlass_worker_lost_total", "Times this process no longer counted as a worker."),
    (Tally::Reaped, "windlass_leases_expired_total", "Runs taken back from workers that are gone, by this process."),
    (Tally::Quarantined, "windlass_runs_quarantined_total", "Runs that this process quarantined."),
    (Tally::Unfit, "windlass_runs_unfit_total", "Times a run was left for a worker that has what it needs."),
    (Tally::RateWaited, "windlass_rate_waits_total", "Calls of this process that waited for permits of a rate."),
    (
        Tally::RateShed,
        "windlass_rate_shed_total",
        "Calls that were turned away, because permits would have come too late.",
    ),
    (Tally::RampStopped, "windlass_ramps_stopped_total", "Ramps of tools that stopped, as this process wrote it down."),
    (Tally::Scheduled, "windlass_schedule_runs_total", "Runs that schedules started in this process."),
    (Tally::ScheduleFailed, "windlass_schedule_failures_total", "Times a schedule could not be dealt with."),
];

/// Statuses by which the ends of callers' runs are counted.
const ENDINGS: &[(Tally, &str)] =
    &[(Tally::Completed, "completed"), (Tally::Failed, "failed"), (Tally::Cancelled, "cancelled")];

/// Names and meanings of the histograms, by what they measure.
const SPANS: &[(Span, &str, &str)] = &[
    (Span::Start, "windlass_claim_to_start_seconds", "From a claim to the first decision."),
    (Span::Step, "windlass_step_seconds", "From an input to its decision being durable."),
    (Span::Commit, "windlass_commit_seconds", "From a commit being sent to its answer."),
    (Span::Late, "windlass_schedule_lateness_seconds", "From the time a scheduled run was due to its creation."),
];

/// Labels of what is told of budgets.
const BUDGET_LABELS: [&str; 2] = ["scope", "meter"];

/// What the store says of itself.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Its numbers.
    pub stats: Stats,
    /// When its last backup was begun, when one is known.
    pub backup: Option<Timestamp>,
    /// Whether it took the last write that it was asked for.
    pub is_writable: bool,
    /// Budgets, in any order.
    pub budgets: Vec<BudgetRow>,
}

/// A counter that is kept elsewhere and read when the numbers are asked for.
struct Elsewhere {
    shown: IntCounter,
    read: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elsewhere").field("shown", &self.shown).finish_non_exhaustive()
    }
}

/// Counts for one process. Give it to the engine as its meter.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    elsewhere: Mutex<Vec<Elsewhere>>,
    tallies: Vec<(Tally, IntCounter)>,
    spans: Vec<(Span, Histogram)>,
    held: IntGauge,
    calls_out: IntGauge,
    backlog: IntGauge,
    limited: IntGauge,
    is_worker: IntGauge,
    draining: IntGauge,
    store_up: IntGauge,
    workers: IntGauge,
    store_bytes: IntGauge,
    /// Without a label, and without a value while no backup is known.
    backup_age: IntGaugeVec,
    runs: IntGaugeVec,
    queue_depth: IntGaugeVec,
    /// The same under the name that dashboards know.
    queue_depth_short: IntGaugeVec,
    calls: Calls,
    objectives: Objectives,
    pub(crate) requests: Requests,
    queue_age: IntGaugeVec,
    held_unchanged: IntGauge,
    budget_cap: IntGaugeVec,
    budget_used: IntGaugeVec,
    budget_held: IntGaugeVec,
}

/// A collector whose name and help are constants of this file.
fn sure<T>(made: Result<T, prometheus::Error>) -> T {
    made.expect("names of metrics are valid")
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, sure(IntGauge::new(name, help)))
}

fn labelled(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, sure(IntGaugeVec::new(Opts::new(name, help), labels)))
}

fn budgets(registry: &Registry, name: &str, help: &str) -> IntGaugeVec {
    labelled(registry, name, help, &BUDGET_LABELS)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    sure(registry.register(Box::new(collector.clone())));
    collector
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let counter =
            |(what, name, help): &(Tally, &str, &str)| (*what, register(r, sure(IntCounter::new(*name, *help))));
        let histogram = |(what, name, help): &(Span, &str, &str)| {
            let options = HistogramOpts::new(*name, *help).buckets(BUCKETS.to_vec());
            (*what, register(r, sure(Histogram::with_opts(options))))
        };
        let endings = Opts::new("agent_runs_total", "Callers' runs that ended, by how they did.");
        let endings = register(r, sure(IntCounterVec::new(endings, &["status"])));
        let ending = |(what, status): &(Tally, &str)| (*what, endings.with_label_values(&[*status]));
        let queue = |name, help| labelled(r, name, help, &["pool", "priority"]);
        Self {
            elsewhere: Mutex::default(),
            tallies: TALLIES.iter().map(counter).chain(ENDINGS.iter().map(ending)).collect(),
            spans: SPANS.iter().map(histogram).collect(),
            held: gauge(r, "windlass_runs_held", "Runs that this process holds."),
            calls_out: gauge(r, "windlass_calls_out", "Calls of this process that are out."),
            backlog: gauge(r, "windlass_calls_waiting", "Calls of this process that wait for a slot."),
            limited: gauge(r, "windlass_calls_limited", "Calls of this process that wait for permits of a rate."),
            is_worker: gauge(r, "windlass_worker_joined", "1 while this process counts as a worker."),
            draining: gauge(r, "windlass_worker_draining", "1 while this process claims no more."),
            store_up: gauge(
                r,
                "windlass_store_up",
                "1 when the store answered the last question about its numbers and takes writes.",
            ),
            workers: gauge(r, "windlass_workers", "Workers alive, all processes together."),
            store_bytes: gauge(r, "windlass_store_bytes", "Bytes of the store."),
            backup_age: labelled(
                r,
                "windlass_backup_age_seconds",
                "How long ago the last `windlass store backup` was begun that is complete.",
                &[],
            ),
            runs: labelled(r, "windlass_runs", "Runs in the store by status.", &["status"]),
            queue_depth: queue("windlass_queue_depth", "Runs that wait for a worker, by pool and class."),
            queue_depth_short: queue(
                "queue_depth",
                "Runs that wait for a worker, by pool and class: `windlass_queue_depth` once more.",
            ),
            calls: Calls::new(r),
            objectives: Objectives::default(),
            requests: Requests::new(r),
            queue_age: queue(
                "windlass_queue_oldest_seconds",
                "How long the run that waits longest has waited, by pool and class.",
            ),
            held_unchanged: gauge(
                r,
                "windlass_held_unchanged_seconds",
                "For how long the run has not changed that has not changed for longest of those that a worker holds.",
            ),
            budget_cap: budgets(r, "windlass_budget_cap", "The cap of a budget, by scope and meter."),
            budget_used: budgets(
                r,
                "windlass_budget_used",
                "What was used of a budget in its present period, by scope and meter.",
            ),
            budget_held: budgets(
                r,
                "windlass_budget_held",
                "What runs hold of a budget and have not used, by scope and meter.",
            ),
            registry,
        }
    }

    /// Shows how many spans were sent and dropped, as whoever sends them counts.
    pub fn spans(
        &self,
        sent: impl Fn() -> u64 + Send + Sync + 'static,
        dropped: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let counter = |name, help, read: Box<dyn Fn() -> u64 + Send + Sync>| Elsewhere {
            shown: register(&self.registry, sure(IntCounter::new(name, help))),
            read,
        };
        let told = [
            counter("windlass_spans_sent_total", "Spans that the collector took.", Box::new(sent)),
            counter(
                "windlass_spans_dropped_total",
                "Spans that were dropped: too many waited, or they were not taken.",
                Box::new(dropped),
            ),
        ];
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
    }

    /// Shows how many errors of providers were of a kind that nobody knows, as whoever classes them counts.
    pub fn unclassified(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        let (name, help) = ("windlass_provider_unclassified_total", "Errors of providers that no rule classes.");
        let shown = register(&self.registry, sure(IntCounter::new(name, help)));
        let one = Elsewhere { shown, read: Box::new(read) };
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }

    /// Counts zero for what these tools and actions will be counted by.
    pub fn tools<'t>(&self, contracts: impl IntoIterator<Item = &'t Contract>) {
        contracts.into_iter().for_each(|contract| self.calls.begin(contract));
    }

    /// Counts what ended runs do to these objectives. Only the first call counts.
    pub fn objectives(&self, objectives: Vec<CostObjective>) {
        self.objectives.watch(&self.registry, objectives);
    }

    /// Everything as text, with what the store says now. Without an answer of the store its numbers are left out.
    #[must_use]
    pub fn render(&self, vitals: &Vitals, stored: Option<&Stored>, now: Timestamp) -> String {
        for one in &*self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) {
            one.shown.inc_by((one.read)().saturating_sub(one.shown.get()));
        }
        self.held.set(i64::from(vitals.load.held));
        self.calls_out.set(i64::from(vitals.load.calls));
        self.backlog.set(whole(vitals.backlog as u64));
        self.limited.set(whole(vitals.limited as u64));
        self.is_worker.set(i64::from(vitals.worker.is_some() && vitals.is_current));
        self.draining.set(i64::from(vitals.load.draining));
        self.store_up.set(i64::from(stored.is_some_and(|stored| stored.is_writable)));
        let budgets = [&self.budget_cap, &self.budget_used, &self.budget_held];
        let depths = [&self.queue_depth, &self.queue_depth_short];
        let gauges = [&self.runs, &self.queue_age, &self.backup_age].into_iter().chain(budgets).chain(depths);
        for gauges in gauges {
            gauges.reset();
        }
        if let Some(Stored { stats, backup, budgets, .. }) = stored {
            self.stored(stats, now);
            self.budgets(budgets);
            if let Some(at) = backup {
                let none: [&str; 0] = [];
                self.backup_age.with_label_values(&none).set(whole(now.since_ms(*at) / 1_000));
            }
        }
        let mut text = Vec::new();
        // Writing to memory cannot fail, and every family has its labels.
        let written = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        if let Err(error) = written {
            tracing::error!(%error, "the numbers cannot be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    fn budgets(&self, budgets: &[BudgetRow]) {
        let share = |row: &BudgetRow| {
            let used = row.known.budget.caps.iter().map(|(meter, cap)| {
                let taken = u128::from(row.account.spent.get(*meter)) + u128::from(row.account.drawn.get(*meter));
                taken * 1_000_000 / u128::from(*cap).max(1)
            });
            used.max().unwrap_or(0)
        };
        let mut told: Vec<&BudgetRow> = budgets.iter().collect();
        told.sort_by_cached_key(|row| (std::cmp::Reverse(share(row)), row.scope.clone()));
        for row in told.into_iter().take(BUDGETS_TOLD_MAX) {
            for (meter, cap) in &row.known.budget.caps {
                let labels = [&*row.scope, meter.as_str()];
                self.budget_cap.with_label_values(&labels).set(whole(*cap));
                self.budget_used.with_label_values(&labels).set(whole(row.account.spent.get(*meter)));
                self.budget_held.with_label_values(&labels).set(whole(row.account.drawn.get(*meter)));
            }
        }
    }

    fn stored(&self, stats: &Stats, now: Timestamp) {
        self.workers.set(whole(stats.workers));
        self.store_bytes.set(whole(stats.bytes));
        self.held_unchanged.set(stats.held_since.map_or(0, |since| whole(now.since_ms(since) / 1_000)));
        for (status, runs) in &stats.runs {
            self.runs.with_label_values(&[status.as_str()]).set(whole(*runs));
        }
        for class in Priority::ALL {
            let labels = [POOL_DEFAULT, class.as_str()];
            for gauges in [&self.queue_depth, &self.queue_depth_short, &self.queue_age] {
                gauges.with_label_values(&labels).set(0);
            }
        }
        let mut named: Vec<&str> = Vec::new();
        for depth in &stats.queue {
            let known = named.contains(&&*depth.pool);
            if !known && named.len() < POOLS_MAX {
                named.push(&depth.pool);
            }
            let pool = if known || named.contains(&&*depth.pool) { &*depth.pool } else { OTHER };
            let labels = [pool, depth.priority.as_str()];
            self.queue_depth.with_label_values(&labels).add(whole(depth.runs));
            self.queue_depth_short.with_label_values(&labels).add(whole(depth.runs));
            let age = self.queue_age.with_label_values(&labels);
            age.set(age.get().max(whole(now.since_ms(depth.oldest) / 1_000)));
        }
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Meter for Metrics {
    fn count(&self, what: Tally, by: u64) {
        if let Some((_, counter)) = self.tallies.iter().find(|(of, _)| *of == what) {
            counter.inc_by(by);
        }
    }

    fn took(&self, what: Span, time: Duration) {
        if let Some((_, histogram)) = self.spans.iter().find(|(of, _)| *of == what) {
            histogram.observe(time.as_secs_f64());
        }
    }

    fn leaves(&self, call: &Leaving<'_>) {
        self.calls.leaves(call);
    }

    fn called(&self, call: &Called<'_>) {
        self.calls.called(call);
    }

    fn decided(&self, run: &Run, entries: &[Entry]) {
        self.calls.decided(run, entries);
        self.objectives.decided(run, entries);
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::budget::{self, Amounts};
    use windlass_core::escrow::books::Account;
    use windlass_core::escrow::{Beyond, Budget, Known, Period};
    use windlass_ports::store::{Depth, Load};

    use windlass_core::contract::Class;

    use super::*;

    fn vitals() -> Vitals {
        let load = Load { held: 3, calls: 2, draining: false };
        Vitals { worker: None, is_current: false, load, backlog: 4, limited: 2, unanswered: None }
    }

    fn depth(pool: &str, runs: u64) -> Depth {
        Depth { pool: pool.into(), priority: Priority::Normal, runs, oldest: Timestamp(5_000) }
    }

    fn budget() -> BudgetRow {
        let tokens = |tokens| Amounts::ZERO.with(budget::Meter::Tokens, tokens);
        let budget = Budget {
            caps: [(budget::Meter::Tokens, 100)].into(),
            period: Period::None,
            near_percent: 80,
            beyond: Beyond::Fail,
        };
        BudgetRow {
            scope: "tenant:acme".into(),
            known: Known { budget, revision: 1, is_near: false },
            account: Account { spent: tokens(30), drawn: tokens(5), ..Account::default() },
        }
    }

    #[test]
    fn what_happens_is_counted() {
        let metrics = Metrics::new();
        for (what, ..) in TALLIES {
            metrics.count(*what, 2);
        }
        for (what, ..) in SPANS {
            metrics.took(*what, Duration::from_millis(3));
        }
        metrics.count(Tally::Completed, 1);
        let held_since = Some(Timestamp(3_000));
        let queue = vec![depth("gpu", 7)];
        let stats = Stats { runs: vec![("queued".into(), 7)], queue, held_since, ..Stats::default() };
        let stored = Stored { stats, backup: Some(Timestamp(2_000)), is_writable: true, budgets: vec![budget()] };
        let text = metrics.render(&vitals(), Some(&stored), Timestamp(9_500));
        for line in [
            "windlass_steps_total 2",
            "windlass_fenced_total 2",
            "windlass_commit_seconds_count 1",
            "windlass_commit_seconds_bucket{le=\"0.005\"} 1",
            "windlass_runs_held 3",
            "windlass_calls_out 2",
            "windlass_runs{status=\"queued\"} 7",
            "windlass_queue_depth{pool=\"gpu\",priority=\"normal\"} 7",
            "windlass_queue_oldest_seconds{pool=\"gpu\",priority=\"normal\"} 4",
            "queue_depth{pool=\"default\",priority=\"high\"} 0",
            "windlass_queue_oldest_seconds{pool=\"default\",priority=\"low\"} 0",
            "windlass_store_up 1",
            "windlass_budget_cap{meter=\"tokens\",scope=\"tenant:acme\"} 100",
            "windlass_budget_used{meter=\"tokens\",scope=\"tenant:acme\"} 30",
            "windlass_budget_held{meter=\"tokens\",scope=\"tenant:acme\"} 5",
            "windlass_backup_age_seconds 7",
            "windlass_held_unchanged_seconds 6",
            "agent_runs_total{status=\"completed\"} 1",
            "agent_runs_total{status=\"failed\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let text = metrics.render(&vitals(), None, Timestamp(9_500));
        assert!(text.contains("windlass_store_up 0") && !text.contains("windlass_queue_depth{"), "{text}");
    }

    #[test]
    fn every_number_is_described() {
        let page = include_str!("../../../docs/metrics.md");
        let stats = Stats { runs: vec![("queued".into(), 7)], queue: vec![depth("gpu", 7)], ..Stats::default() };
        let stored = Stored { stats, backup: Some(Timestamp(2_000)), is_writable: true, budgets: vec![budget()] };
        let metrics = Metrics::new();
        metrics.unclassified(|| 3);
        let contract = Contract { class: Class::Danger, ..Contract::undeclared("drop") };
        metrics.tools([&contract]);
        let objective = |name: &str, bound| CostObjective { name: name.to_owned(), machine: None, tenant: None, bound };
        metrics.objectives(vec![objective("each", CostBound::P95(500)), objective("daily", CostBound::Day(2_000_000))]);
        let text = metrics.render(&vitals(), Some(&stored), Timestamp(9_500));
        for line in [
            "windlass_provider_unclassified_total 3",
            "tool_calls_total{class=\"danger\",status=\"failed\",tool=\"drop\"} 0",
            "danger_tool_attempt_total{tool=\"drop\"} 0",
            "timeouts_total{kind=\"model\"} 0",
            "policy_denied_total{action=\"call_tool\"} 0",
            "windlass_conversations_near_total 0",
            "windlass_objective_runs_total{objective=\"each\",over=\"yes\"} 0",
            "windlass_objective_cost_usd_total{objective=\"daily\"} 0",
            "windlass_objective_bound_usd{kind=\"day\",objective=\"daily\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        for name in names {
            assert!(page.contains(&format!("| `{name}` |")), "`{name}` is not in docs/metrics.md");
        }
    }

    #[test]
    fn names_that_somebody_makes_up_do_not_grow_the_output() {
        let metrics = Metrics::new();
        let queue = (0..1_000).map(|n| depth(&format!("p{n}"), 1)).collect();
        let stored = Stored { stats: Stats { queue, ..Stats::default() }, is_writable: true, ..Stored::default() };
        let text = metrics.render(&vitals(), Some(&stored), Timestamp(9_500));
        assert!(!text.contains("windlass_backup_age_seconds "), "no backup is known");
        assert_eq!(text.lines().filter(|line| line.starts_with("windlass_queue_depth{")).count(), POOLS_MAX + 1 + 3);
        assert!(text.contains("windlass_queue_depth{pool=\"other\",priority=\"normal\"} 900"), "{text}");
    }
}
