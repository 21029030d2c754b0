//! Numbers about calls, runs, money and refusals, by the names that dashboards know. Labels are names that somebody made
//! up, so each is capped.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use windlass_core::breakers;
use windlass_core::contract::{Class, Contract};
use windlass_core::effect::{Outcome, Said, Spent, WaitKind};
use windlass_core::failure::Code;
use windlass_core::input::Ending;
use windlass_core::journal::Entry;
use windlass_core::policy::{Answer, Question, Verdict};
use windlass_core::run::Run;
use windlass_runtime::{Called, Leaving};

use super::{BUCKETS, OTHER, register, sure};

/// Names that are kept for one label; what comes after is counted together.
pub(super) const NAMES_MAX: usize = 100;
/// Upper bounds of the time of a run, in seconds.
const RUN_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0];
/// Upper bounds of the cost of a run, in USD.
const COST_BUCKETS: &[f64] = &[0.000_1, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0];
/// Upper bounds of the steps of a run.
const STEP_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];
/// Micro-USD in a USD.
const MICROS: f64 = 1_000_000.0;

/// The names of one label that are kept, first come, first served.
#[derive(Debug, Default)]
struct Names(Mutex<BTreeSet<String>>);

impl Names {
    fn capped<'a>(&self, name: &'a str) -> &'a str {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(name) {
            return name;
        }
        if names.len() >= NAMES_MAX {
            return OTHER;
        }
        names.insert(name.to_owned());
        name
    }
}

/// The numbers.
#[derive(Debug)]
pub(super) struct Calls {
    tools: Names,
    models: Names,
    tool_calls: IntCounterVec,
    tool_latency: HistogramVec,
    timeouts: IntCounterVec,
    retries: IntCounterVec,
    in_flight: IntGauge,
    danger: IntCounterVec,
    tokens: IntCounterVec,
    cache_expected: IntCounter,
    cache_read: IntCounter,
    model_cost: CounterVec,
    outbound: HistogramVec,
    auth_failures: IntCounterVec,
    rate_limited: IntCounterVec,
    policy_denied: IntCounterVec,
    candidate: IntCounterVec,
    run_cost: Histogram,
    run_latency: Histogram,
    run_steps: Histogram,
    steps: IntCounter,
    breakers: IntCounterVec,
    exceeded: IntCounterVec,
    conversations: IntCounter,
    at_limit: IntCounter,
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, sure(IntCounterVec::new(Opts::new(name, help), labels)))
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
    register(registry, sure(HistogramVec::new(options, labels)))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    register(registry, sure(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))))
}

fn is_tool(kind: &str) -> bool {
    matches!(kind, "tool" | "action" | "verify")
}

fn money(micros: u64) -> f64 {
    // Beyond 2^53 micro-USD a cent does not matter.
    micros as f64 / MICROS
}

/// Every kind of call.
const KINDS: [&str; 5] = ["model", "tool", "action", "hook", "verify"];
/// Everything that [`action`] gives.
const ACTIONS: [&str; 4] = ["call_model", "call_tool", "start_machine", "take_transition"];

fn action(question: &Question) -> &'static str {
    match question {
        Question::CallModel { .. } => "call_model",
        Question::CallTool { .. } => "call_tool",
        Question::StartMachine { .. } => "start_machine",
        Question::TakeTransition { .. } => "take_transition",
    }
}

impl Calls {
    pub(super) fn new(r: &Registry) -> Self {
        let in_flight =
            IntGauge::new("in_flight_tool_calls", "Calls of tools and actions of this process that are out.");
        let cost = CounterVec::new(Opts::new("llm_cost_usd_total", "Cost of models in USD."), &["model"]);
        let labels = &["tool", "class", "status"];
        let single = |name, help| register(r, sure(IntCounter::new(name, help)));
        let one = Self {
            tools: Names::default(),
            models: Names::default(),
            tool_calls: counters(r, "tool_calls_total", "Attempts at tools and actions that ended.", labels),
            tool_latency: histograms(r, "tool_latency_seconds", "Time of an attempt at a tool or action.", &["tool"]),
            timeouts: counters(r, "timeouts_total", "Attempts that had no answer in time.", &["kind"]),
            retries: counters(r, "retries_total", "Attempts after the first.", &["kind"]),
            in_flight: register(r, sure(in_flight)),
            danger: counters(r, "danger_tool_attempt_total", "Attempts of class `danger` that left.", &["tool"]),
            tokens: counters(r, "llm_tokens_total", "Tokens of models.", &["model", "direction"]),
            cache_expected: single(
                "llm_cache_expected_tokens_total",
                "Input tokens that the same conversation had sent to the same model before.",
            ),
            cache_read: single("llm_cache_read_tokens_total", "Input tokens that providers read from a cache."),
            model_cost: register(r, sure(cost)),
            outbound: histograms(r, "outbound_latency_seconds", "Time of an attempt at any call.", &["kind"]),
            auth_failures: counters(r, "auth_failures_total", "Calls refused for want of a key or right.", &["kind"]),
            rate_limited: counters(r, "rate_limited_total", "Calls refused as there were too many.", &["kind"]),
            candidate: counters(
                r,
                "policy_candidate_decisions_total",
                "Questions that a candidate rule set was asked beside the one in force.",
                &["result"],
            ),
            policy_denied: counters(r, "policy_denied_total", "Questions that rules answered with no.", &["action"]),
            run_cost: histogram(r, "run_cost_usd", "Cost of a caller's run with all below it, in USD.", COST_BUCKETS),
            run_latency: histogram(
                r,
                "run_latency_seconds",
                "From the first decision of a caller's run to its end, waits included.",
                RUN_BUCKETS,
            ),
            run_steps: histogram(r, "run_steps", "Steps of a caller's run.", STEP_BUCKETS),
            steps: register(r, sure(IntCounter::new("agent_steps_total", "States entered."))),
            breakers: counters(r, "windlass_breakers_tripped_total", "Breakers of runs that tripped.", &["breaker"]),
            exceeded: counters(
                r,
                "windlass_budget_refusals_total",
                "Calls for which a budget or a ceiling had too little, by whether they failed or ask a person.",
                &["beyond"],
            ),
            conversations: single(
                "windlass_conversations_near_total",
                "Conversations that became nearly as long as their models take.",
            ),
            at_limit: single("windlass_runs_at_limit_total", "Callers' runs that ended at a ceiling or budget."),
        };
        // What has never happened counts zero: a rate needs a beginning.
        for breaker in breakers::NAMES.into_iter().chain(["no_progress"]) {
            one.breakers.with_label_values(&[breaker]).inc_by(0);
        }
        for beyond in ["ask", "fail"] {
            one.exceeded.with_label_values(&[beyond]).inc_by(0);
        }
        for action in ACTIONS {
            one.policy_denied.with_label_values(&[action]).inc_by(0);
        }
        for counted in [&one.timeouts, &one.retries, &one.auth_failures, &one.rate_limited] {
            KINDS.iter().for_each(|kind| counted.with_label_values(&[*kind]).inc_by(0));
        }
        one
    }

    /// Counts zero for what a tool or an action will be counted by.
    pub(super) fn begin(&self, contract: &Contract) {
        let (tool, class) = (self.tools.capped(&contract.name), contract.class);
        for status in ["ok", "failed"] {
            self.tool_calls.with_label_values(&[tool, class.as_str(), status]).inc_by(0);
        }
        if class == Class::Danger {
            self.danger.with_label_values(&[tool]).inc_by(0);
        }
    }

    pub(super) fn leaves(&self, call: &Leaving<'_>) {
        if is_tool(call.kind) {
            self.in_flight.inc();
        }
        if call.class == Class::Danger {
            self.danger.with_label_values(&[self.tools.capped(call.target)]).inc();
        }
        if call.attempt > 1 {
            self.retries.with_label_values(&[call.kind]).inc();
        }
    }

    pub(super) fn called(&self, called: &Called<'_>) {
        let call = called.call;
        let seconds = called.took.as_secs_f64();
        self.outbound.with_label_values(&[call.kind]).observe(seconds);
        if is_tool(call.kind) {
            self.in_flight.dec();
            let tool = self.tools.capped(call.target);
            self.tool_latency.with_label_values(&[tool]).observe(seconds);
            let status = if matches!(called.outcome, Outcome::Failed(_)) { "failed" } else { "ok" };
            self.tool_calls.with_label_values(&[tool, call.class.as_str(), status]).inc();
        }
        if let Some((_, model)) = call.model {
            self.spent(model, called);
        }
        if let Outcome::Failed(failure) = called.outcome {
            self.failed(call.kind, failure.code);
        }
    }

    fn spent(&self, model: &str, called: &Called<'_>) {
        let model = self.models.capped(model);
        if let Outcome::Replied(reply) = called.outcome {
            let usage = &reply.usage;
            let parts = [usage.input, usage.cache_read, usage.cache_write].into_iter().flatten();
            let input = parts.fold(0, u64::saturating_add);
            self.tokens.with_label_values(&[model, "input"]).inc_by(input);
            self.tokens.with_label_values(&[model, "output"]).inc_by(usage.output.unwrap_or_default());
            self.cache_read.inc_by(usage.cache_read.unwrap_or_default());
        }
        let cost_micros = match called.spent {
            Spent::Known { cost_micros, .. } => *cost_micros,
            Spent::Metered { cost_micros: Said::Exactly(said) | Said::AtLeast(said), .. } => *said,
            Spent::Unsent | Spent::Nothing | Spent::Unknown => 0,
        };
        if cost_micros > 0 {
            self.model_cost.with_label_values(&[model]).inc_by(money(cost_micros));
        }
    }

    fn failed(&self, kind: &str, code: Code) {
        let counted = match code {
            Code::ProviderTimeout | Code::ToolTimeout | Code::HookTimeout => &self.timeouts,
            Code::ProviderAuth | Code::ToolDenied => &self.auth_failures,
            Code::ProviderRateLimited => &self.rate_limited,
            _ => return,
        };
        counted.with_label_values(&[kind]).inc();
    }

    pub(super) fn decided(&self, run: &Run, entries: &[Entry]) {
        for entry in entries {
            match entry {
                Entry::Decided { verdicts, .. } => {
                    for verdict in verdicts.iter().filter(|verdict| verdict.answer == Answer::Deny) {
                        self.policy_denied.with_label_values(&[action(&verdict.question)]).inc();
                    }
                    for (in_force, candidate) in verdicts.iter().filter_map(Verdict::sides) {
                        let result = if in_force.answer == candidate.answer { "same" } else { "differs" };
                        self.candidate.with_label_values(&[result]).inc();
                    }
                }
                Entry::StateEntered { .. } => self.steps.inc(),
                Entry::CallIntended { call, .. } => {
                    self.cache_expected.inc_by(call.cached_expected.unwrap_or_default());
                }
                Entry::BreakerTripped { breaker, .. } => self.breakers.with_label_values(&[breaker]).inc(),
                Entry::ConversationNear { .. } => self.conversations.inc(),
                Entry::LoopStopped { reason, .. } if &**reason == "no_progress" => {
                    self.breakers.with_label_values(&["no_progress"]).inc();
                }
                Entry::WaitOpened { wait, .. }
                    if matches!(wait.kind, WaitKind::Budget { .. } | WaitKind::Ceiling { .. }) =>
                {
                    self.exceeded.with_label_values(&["ask"]).inc();
                }
                Entry::CallSettled { outcome: Outcome::Failed(failure), .. } | Entry::FailureRaised { failure }
                    if failure.code == Code::BudgetExceeded =>
                {
                    self.exceeded.with_label_values(&["fail"]).inc();
                }
                Entry::RunEnded if run.start.parent.is_none() => self.ended(run),
                _ => {}
            }
        }
    }

    fn ended(&self, run: &Run) {
        self.run_cost.observe(money(run.used().cost_micros));
        self.run_latency.observe(run.now.since_ms(run.started_at) as f64 / 1_000.0);
        self.run_steps.observe(run.step as f64);
        if matches!(&run.ending, Some(Ending::Failed { failure, .. }) if failure.code == Code::BudgetExceeded) {
            self.at_limit.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::{Encoder, TextEncoder};
    use windlass_core::failure::Failure;
    use windlass_core::ids::{Digest, Name, RunId};
    use windlass_core::time::Timestamp;

    use super::*;

    fn leaving<'a>(target: &'a Name, other: &'a Name, run: &'a RunId, model: Option<&'a Name>) -> Leaving<'a> {
        Leaving {
            run,
            tenant: other,
            user: None,
            machine: other,
            key: "r#1",
            trace: None,
            attempt: 2,
            kind: if model.is_some() { "model" } else { "tool" },
            target,
            class: Class::Danger,
            arguments: Digest::ZERO,
            model: model.map(|model| (other, model)),
        }
    }

    fn text(registry: &Registry) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).expect("text");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn calls_are_counted_by_the_names_that_dashboards_know() {
        let registry = Registry::new();
        let calls = Calls::new(&registry);
        let (pay, gpt, other): (Name, Name, Name) = ("pay".into(), "gpt".into(), "x".into());
        let run = RunId::stored("r");
        for (call, code) in [
            (leaving(&pay, &other, &run, None), Code::ToolTimeout),
            (leaving(&pay, &other, &run, Some(&gpt)), Code::ProviderRateLimited),
            (leaving(&pay, &other, &run, Some(&gpt)), Code::ProviderAuth),
        ] {
            calls.leaves(&call);
            let outcome = Outcome::Failed(Failure::new(code, "x"));
            let spent = Spent::Known { tokens: 3, cost_micros: 250_000 };
            let took = Duration::from_millis(3);
            calls.called(&Called {
                call: &call,
                began: Timestamp(1),
                took,
                outcome: &outcome,
                spent: &spent,
                asked: None,
                hidden: None,
            });
        }
        let text = text(&registry);
        for line in [
            "tool_calls_total{class=\"danger\",status=\"failed\",tool=\"pay\"} 1",
            "tool_latency_seconds_bucket{tool=\"pay\",le=\"0.005\"} 1",
            "timeouts_total{kind=\"tool\"} 1",
            "retries_total{kind=\"model\"} 2",
            "rate_limited_total{kind=\"model\"} 1",
            "auth_failures_total{kind=\"model\"} 1",
            "danger_tool_attempt_total{tool=\"pay\"} 3",
            "llm_cost_usd_total{model=\"gpt\"} 0.5",
            "in_flight_tool_calls 0",
            "outbound_latency_seconds_count{kind=\"model\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_hundred_thousand_names_are_a_hundred_and_one_rows() {
        let registry = Registry::new();
        let calls = Calls::new(&registry);
        let (other, run): (Name, RunId) = ("x".into(), RunId::stored("r"));
        for number in 0..100_000 {
            let tool: Name = format!("t{number}").into();
            calls.leaves(&leaving(&tool, &other, &run, None));
        }
        let text = text(&registry);
        let rows = text.lines().filter(|line| line.starts_with("danger_tool_attempt_total{")).count();
        assert_eq!(rows, NAMES_MAX + 1);
        assert!(text.contains("danger_tool_attempt_total{tool=\"other\"} 99900"), "{text}");
    }
}
