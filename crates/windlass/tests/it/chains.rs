//! Chains of the catalog through the whole engine, with real adapters against servers on this host: what breaks in the
//! middle leads on, every link is journaled and charged, and the decision table says where a call begins.

pub(crate) mod desk;
mod cuts;
mod swap;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass::Outcome;
use windlass::wire::ProviderConfig;
use windlass_core::failure::Code;
use windlass_core::journal::Entry;
use windlass_core::value::Value;

use desk::{Act, Desk, Server, anthropic, openai, openai_stream};

/// Four kinds of links: a stream of one provider, another provider, an answer from before, and rules.
const FOUR: &str = "
version: house-1
models:
- {name: main, provider: one, model: gpt-4o, base_url: 'URL', tier: strong, output_tokens: 50, rates: {input: 2500000, output: 10000000}}
- {name: other, provider: two, model: claude-haiku-4-5, base_url: 'URL', tier: fast, output_tokens: 50, rates: {input: 1000000, output: 5000000}}
chains:
- name: answers
  cache_ttl_ms: 600000
  links:
  - {model: main, timeout_ms: 9000, breaker: {calls_min: 4, rest_ms: 600000}}
  - {model: other, timeout_ms: TIMEOUT}
  - {cached: true}
  - {script: rules.yml}
";

fn desk(server: &Server, catalog: &str) -> Desk {
    let two = ProviderConfig { kind: Some(windlass::wire::ProviderKind::Anthropic), ..ProviderConfig::default() };
    let providers = BTreeMap::from([("one".to_owned(), ProviderConfig::default()), ("two".to_owned(), two)]);
    Desk::new(&catalog.replace("URL", &server.url), providers)
}

fn content(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed { output, .. } => output.get("r").and_then(Value::as_str).unwrap_or_default().to_owned(),
        other => panic!("{other:?}"),
    }
}

/// What became of every attempt: the link, and the code of its failure, or none for the answer.
fn links(entries: &[Entry]) -> Vec<(String, Option<Code>)> {
    let mut current = String::new();
    let mut out = Vec::new();
    for entry in entries {
        match entry {
            Entry::CallIntended { call, .. } => current = call.route.as_ref().expect("a route").name.to_string(),
            Entry::AttemptStarted { route: Some(route), .. } => current = route.name.to_string(),
            Entry::AttemptFailed { failure, .. } => out.push((current.clone(), Some(failure.code))),
            Entry::CallSettled { outcome, .. } => {
                let code = match outcome {
                    windlass_core::effect::Outcome::Failed(failure) => Some(failure.code),
                    _ => None,
                };
                out.push((current.clone(), code));
            }
            _ => {}
        }
    }
    out
}

fn failed(name: &str, code: Code) -> (String, Option<Code>) {
    (name.to_owned(), Some(code))
}

fn answered(name: &str) -> (String, Option<Code>) {
    (name.to_owned(), None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_four_kinds_answers_whatever_breaks() {
    let (broken, hanging) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (cut, still) = (Arc::clone(&broken), Arc::clone(&hanging));
    let server = Server::start(move |path, _| match (path.ends_with("messages"), cut.load(Ordering::SeqCst)) {
        (false, true) => openai_stream("by main").cut(150),
        (false, false) => openai_stream("by main"),
        (true, _) if still.load(Ordering::SeqCst) => Act::Hang,
        (true, true) => Act::json(500, "{}"),
        (true, false) => anthropic("by other"),
    });
    let desk = desk(&server, &FOUR.replace("TIMEOUT", "150"));
    // The stream breaks in the middle, the second provider fails, nothing was answered before: rules answer.
    let (outcome, entries, run) = desk.ask(Value::empty_map()).await;
    assert_eq!(content(&outcome), "by rules");
    let down = Code::ProviderUnavailable;
    let broke = failed("main", Code::ProviderTruncated);
    assert_eq!(links(&entries), [broke.clone(), failed("other", down), failed("cached", down), answered("rules.yml")]);
    // What broke off is charged at its reservation; what was refused costs nothing; each by its tier.
    let strong = run.tiers.get("strong").copied().unwrap_or_default();
    assert!(strong.cost_micros > 0 && strong.tokens > 50, "{strong:?}");
    assert_eq!(run.tiers.get("fast").map(|fast| (fast.model_calls, fast.tokens, fast.cost_micros)), Some((1, 0, 0)));
    assert_eq!(run.ledger.settled.model_calls, 3, "the missed answer from before is no call");
    assert_eq!(run.ledger.settled.cost_micros, run.tiers.values().map(|tier| tier.cost_micros).sum::<u64>());
    assert!(run.ledger.estimated.tokens >= strong.tokens, "the broken stream is an estimate");
    // The second provider does not answer in the time of its link.
    hanging.store(true, Ordering::SeqCst);
    let (_, entries, _) = desk.ask(Value::empty_map()).await;
    assert_eq!(links(&entries)[1], failed("other", Code::ProviderTimeout));
    hanging.store(false, Ordering::SeqCst);
    // The first provider works again, and its answer is kept.
    broken.store(false, Ordering::SeqCst);
    let (outcome, entries, _) = desk.ask(Value::empty_map()).await;
    assert_eq!((content(&outcome).as_str(), links(&entries)), ("by main", vec![answered("main")]));
    broken.store(true, Ordering::SeqCst);
    let (outcome, entries, run) = desk.ask(Value::empty_map()).await;
    assert_eq!(content(&outcome), "by main", "the answer from before");
    assert_eq!(links(&entries), [broke, failed("other", down), answered("cached")]);
    assert_eq!(run.tiers.get("cached").map(|tier| tier.cost_micros), Some(0));
    // Three of four calls at the first link failed: its breaker is open, and nothing more is sent there.
    let before = server.count("completions");
    let (outcome, entries, _) = desk.ask(Value::empty_map()).await;
    assert_eq!(content(&outcome), "by main");
    let Entry::CallIntended { call, .. } = desk::first_call(&entries) else { unreachable!() };
    let route = call.route.as_ref().expect("a route");
    assert!(route.candidates[0].passed.as_ref().is_some_and(|why| why.contains("breaker")), "{route:?}");
    assert_eq!((&*route.name, server.count("completions")), ("other", before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_in_a_row_are_bounded_for_all_runs_together() {
    let server = Server::start(|_, _| Act::json(500, "{}"));
    let catalog = "
retry_budget: {percent: 0, reserve: 4}
models: [{name: main, provider: one, model: gpt-4o, base_url: 'URL', tier: strong}]
chains: [{name: answers, links: [{model: main, breaker: {calls_min: 1000, window: 1000}}]}]
";
    let desk = desk(&server, catalog).retrying();
    for _ in 0..4 {
        let (outcome, ..) = desk.ask(Value::empty_map()).await;
        assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    }
    assert_eq!(server.count("completions"), 4 + 4, "a first attempt of each run, and four repeats of all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_costs_more_than_is_left_is_not_called() {
    let server = Server::start(|_, _| openai_stream("by main"));
    let desk = desk(&server, &FOUR.replace("TIMEOUT", "1000")).within(1);
    let (outcome, ..) = desk.ask(Value::empty_map()).await;
    assert!(matches!(&outcome, Outcome::Failed { failure, .. } if failure.code == Code::BudgetExceeded), "{outcome:?}");
    assert_eq!(server.count(""), 0);
}

const TIERS: &str = "
models:
- {name: small, provider: one, model: small-1, base_url: 'URL', tier: fast, rates: {input: 1000000, output: 1000000}}
- {name: large, provider: one, model: large-1, base_url: 'URL', tier: strong, rates: {input: 9000000, output: 9000000}}
chains:
- name: answers
  links: [{model: small}, {model: large}]
  table:
  - {row: hard, when: {task.complexity: {at_least: 7}}, tier: strong}
  - {row: disputed, when: {disagreement: {above: 0.5}, risk: {one_of: [high, critical]}}, tier: strong}
  - {row: rest, tier: fast}
  escalate: {on: [provider.bad_output, provider.unavailable], to: strong, at_most: 2}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_decision_table_says_where_a_call_begins() {
    let server = Server::start(|_, body| {
        openai(&format!("{{\"by\":\"{}\"}}", body.get("model").and_then(Value::as_str).expect("a model")))
    });
    let desk = desk(&server, TIERS).answering("by");
    let cases = [
        (r#"{"task":{"complexity":8}}"#, "hard", "strong"),
        (r#"{"task":{"complexity":2},"disagreement":0.7,"risk":"critical"}"#, "disputed", "strong"),
        (r#"{"disagreement":0.7,"risk":"low"}"#, "rest", "fast"),
        ("{}", "rest", "fast"),
    ];
    for (context, row, tier) in cases {
        let context = Value::from_json(context).expect("JSON");
        let (_, entries, run) = desk.ask(context).await;
        let Entry::CallIntended { call, .. } = desk::first_call(&entries) else { unreachable!() };
        let route = call.route.as_ref().expect("a route");
        assert_eq!((route.row.as_deref(), &*route.tier), (Some(row), tier));
        assert_eq!(run.tiers.keys().map(|tier| &**tier).collect::<Vec<_>>(), [tier], "the cost by tier");
    }
}

/// The small model never fits the schema: the large one is asked, but only so often in one run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cascade_of_escalations_stops_at_its_cap() {
    let server = Server::start(|_, body| match body.get("model").and_then(Value::as_str) {
        Some("large-1") => openai(r#"{"by":"large"}"#),
        _ => openai("I would rather not"),
    });
    let desk = desk(&server, TIERS).answering("by").rounds(4);
    let (outcome, entries, run) = desk.ask(Value::empty_map()).await;
    assert!(
        matches!(&outcome, Outcome::Failed { failure, .. } if failure.code == Code::ProviderBadOutput),
        "{outcome:?}"
    );
    let raised = entries.iter().filter_map(|entry| match entry {
        Entry::Escalated { raised, .. } => Some((&*raised.to, &*raised.reason)),
        _ => None,
    });
    let step = ("strong", "`small` failed with provider.bad_output");
    assert_eq!(raised.collect::<Vec<_>>(), [step, step], "twice, and not a third time");
    assert_eq!(run.escalations, 2);
    // Each round asks the small model twice (once more to mend its answer), and the first two ask the large one.
    let calls = |tier: &str| run.tiers.get(tier).map(|tier| tier.model_calls);
    assert_eq!((calls("fast"), calls("strong")), (Some(6), Some(2)));
    let cost = |tier: &str| run.tiers.get(tier).map_or(0, |tier| tier.cost_micros);
    assert!(cost("fast") > 0 && cost("strong") > 0);
    assert_eq!(run.ledger.settled.cost_micros, cost("fast") + cost("strong"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_attempts_escalate_within_the_same_cap() {
    let server = Server::start(|_, body| match body.get("model").and_then(Value::as_str) {
        Some("large-1") => openai(r#"{"by":"large"}"#),
        _ => Act::json(500, "{}"),
    });
    let desk = desk(&server, TIERS).answering("by").rounds(3);
    let (outcome, entries, run) = desk.ask(Value::empty_map()).await;
    assert!(
        matches!(&outcome, Outcome::Failed { failure, .. } if failure.code == Code::ProviderUnavailable),
        "{outcome:?}"
    );
    let down = failed("small", Code::ProviderUnavailable);
    let round = [down.clone(), answered("large")];
    assert_eq!(links(&entries), [round.as_slice(), &round, &[down]].concat());
    assert_eq!(run.escalations, 2);
}

#[tokio::test]
async fn a_chain_that_nobody_has_is_refused_before_a_run_begins() {
    let server = Server::start(|_, _| Act::Hang);
    let desk = desk(&server, &TIERS.replace("name: answers", "name: replies"));
    let refused = desk.refused().await;
    assert!(refused.contains("the model catalog has no chain `answers`"), "{refused}");
}
