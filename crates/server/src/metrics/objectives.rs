//! What runs that ended did to the objectives of their cost.

use std::sync::OnceLock;

use prometheus::{Counter, CounterVec, GaugeVec, IntCounter, IntCounterVec, Opts, Registry};
use windlass_core::ids::Name;
use windlass_core::journal::Entry;
use windlass_core::run::Run;

use super::{register, sure};

/// What runs are to cost at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostObjective {
    /// What the operator calls it.
    pub name: String,
    /// Runs of this machine, whoever started them. None: callers' runs of every machine, each with all below it.
    pub machine: Option<Name>,
    /// Runs of this tenant; none: of every tenant.
    pub tenant: Option<Name>,
    /// How much.
    pub bound: CostBound,
}

/// A bound in millionths of a US dollar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostBound {
    /// 95 of 100 runs cost at most so much.
    P95(u64),
    /// All runs of a day cost at most so much.
    Day(u64),
}

impl CostObjective {
    fn counts(&self, run: &Run) -> bool {
        let is_machine = match &self.machine {
            Some(machine) => *machine == run.start.machine_name,
            None => run.start.parent.is_none(),
        };
        is_machine && self.tenant.as_ref().is_none_or(|tenant| *tenant == run.start.scope.tenant)
    }
}

/// An objective beside its counters.
#[derive(Debug)]
struct Watched {
    objective: CostObjective,
    within: IntCounter,
    over: IntCounter,
    cost: Counter,
}

/// The objectives of a process; none until they are told.
#[derive(Debug, Default)]
pub(super) struct Objectives(OnceLock<Vec<Watched>>);

impl Objectives {
    /// Begins to count. Only the first telling counts.
    pub(super) fn watch(&self, registry: &Registry, objectives: Vec<CostObjective>) {
        self.0.get_or_init(|| {
            let vec = |name, help, labels: &[&str]| {
                register(registry, sure(IntCounterVec::new(Opts::new(name, help), labels)))
            };
            let help =
                "Runs that ended and that an objective is about, by whether they cost more than its bound; each once.";
            let runs: IntCounterVec = vec("windlass_objective_runs_total", help, &["objective", "over"]);
            let help = "What ended runs have cost that an objective is about, in USD.";
            let cost = CounterVec::new(Opts::new("windlass_objective_cost_usd_total", help), &["objective"]);
            let cost = register(registry, sure(cost));
            let help = "The bound of an objective in USD, by what it bounds.";
            let bounds = GaugeVec::new(Opts::new("windlass_objective_bound_usd", help), &["objective", "kind"]);
            let bounds = register(registry, sure(bounds));
            let one = |objective: CostObjective| {
                let name = objective.name.as_str();
                let (kind, most) = match objective.bound {
                    CostBound::P95(most) => ("p95", most),
                    CostBound::Day(most) => ("day", most),
                };
                bounds.with_label_values(&[name, kind]).set(usd(most));
                let (within, over) = (runs.with_label_values(&[name, "no"]), runs.with_label_values(&[name, "yes"]));
                Watched { within, over, cost: cost.with_label_values(&[name]), objective }
            };
            objectives.into_iter().map(one).collect()
        });
    }

    pub(super) fn decided(&self, run: &Run, entries: &[Entry]) {
        let Some(watched) = self.0.get().filter(|watched| !watched.is_empty()) else { return };
        if !entries.iter().any(|entry| matches!(entry, Entry::RunEnded)) {
            return;
        }
        // A run that was reopened ends more than once: it counts once, and what it cost since counts beside.
        let cost = run.used().cost_micros;
        let since = cost.saturating_sub(run.cost_when_reopened.unwrap_or_default());
        for one in watched.iter().filter(|one| one.objective.counts(run)) {
            one.cost.inc_by(usd(since));
            if run.cost_when_reopened.is_some() {
                continue;
            }
            // Of a day no single run is too much.
            let is_over = matches!(one.objective.bound, CostBound::P95(most) if cost > most);
            if is_over { one.over.inc() } else { one.within.inc() }
        }
    }
}

fn usd(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, TextEncoder};
    use windlass_core::budget::{Amounts, Meter};

    use windlass_core::ids::{Digest, RunId};
    use windlass_core::run::{Parent, Start, TenantScope};
    use windlass_core::value::Value;

    use super::*;

    fn run(machine: &str, tenant: &str, cost_micros: u64, is_child: bool) -> Run {
        let mut run = Run::blank(Start {
            parent: is_child.then(|| Parent { run: RunId::stored("p"), awaited: true }),
            root: RunId::stored("p"),
            scope: TenantScope { tenant: tenant.into(), user: None },
            ..Start::new(RunId::stored("r"), Digest::ZERO, machine.into(), machine.into(), Value::empty_map())
        });
        run.ledger.settled = Amounts::ZERO.with(Meter::CostMicros, cost_micros);
        run
    }

    #[test]
    fn runs_count_where_an_objective_is_about_them_once_they_end() {
        let (registry, objectives) = (Registry::new(), Objectives::default());
        let ended = [Entry::RunEnded];
        objectives.decided(&run("triage", "acme", 300, false), &ended);
        let objective = |name: &str, machine: Option<&str>, tenant: Option<&str>, bound| CostObjective {
            name: name.to_owned(),
            machine: machine.map(Into::into),
            tenant: tenant.map(Into::into),
            bound,
        };
        let each = objective("each", Some("triage"), None, CostBound::P95(200));
        objectives.watch(&registry, vec![each, objective("acme", None, Some("acme"), CostBound::Day(1_000_000))]);
        objectives.decided(&run("triage", "acme", 900, false), &[]);
        for (machine, tenant, cost, is_child) in [
            ("triage", "acme", 200, false),
            ("triage", "other", 250_000, true),
            ("answer", "acme", 500_000, false),
            ("answer", "acme", 500_000, true),
        ] {
            objectives.decided(&run(machine, tenant, cost, is_child), &ended);
        }
        let mut again = run("triage", "other", 300_000, false);
        again.cost_when_reopened = Some(300_000);
        objectives.decided(&again, &ended);
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).expect("text");
        let text = String::from_utf8(text).expect("text");
        for line in [
            "windlass_objective_runs_total{objective=\"each\",over=\"no\"} 1",
            "windlass_objective_runs_total{objective=\"each\",over=\"yes\"} 1",
            "windlass_objective_runs_total{objective=\"acme\",over=\"no\"} 2",
            "windlass_objective_runs_total{objective=\"acme\",over=\"yes\"} 0",
            "windlass_objective_cost_usd_total{objective=\"each\"} 0.2502",
            "windlass_objective_cost_usd_total{objective=\"acme\"} 0.5002",
            "windlass_objective_bound_usd{kind=\"p95\",objective=\"each\"} 0.0002",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
