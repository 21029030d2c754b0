//! Attempts at models: what they send at most, what is reserved for them, what they are charged, and whether the policy
//! still allows them.

use std::collections::BTreeMap;

use windlass_core::budget::{Amounts, Ledger};
use windlass_core::file::File;
use windlass_core::ids::EffectId;
use windlass_core::limits::{AMOUNT_MAX, CALL_TOKENS_MAX, OUTPUT_TOKENS_DEFAULT};
use windlass_core::request::{ModelRequest, model_request};

use crate::scenario::Bench;

const MACHINE: &str = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: m
  settings: {tools: [look]}
  agents:
    a: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: q}, profile: main}}
  states:
    start: {type: initial, agent: a, EXTRA, transitions: [{to: end}]}
    end: {type: final, output: {r: output}}
"#;

const LOOK: &str = r#"[{"name":"look","description":"reads","input_schema":null,"output_schema":null,"class":"read",
"idempotency":"none","on_unknown":"fail","timeout_ms":1000,"output_bytes_max":1000}]"#;

const CHAINS: &str = r#"{"a": [
  {"name": "one", "on": ["provider.unavailable"], "price": 1},
  {"name": "two", "on": [], "price": 1}
]}"#;

const LOOPING: &str = "tool_loop: {max_turns: 4}";
const RETRYING: &str = "execution: {type: retry, backoffs: [1, 2, 3, 4, 5, 6], jitter: 0}";

/// A bench whose one agent has this profile.
fn bench(extra: &str, profile: &str) -> Bench {
    let profiles = format!(
        "spec: flatprofile\nspec_version: 4.2.1\ndata:\n  default: main\n  model_profiles:\n    main: {profile}\n"
    );
    let mut files = BTreeMap::from([
        ("machine.yml".to_owned(), MACHINE.replace("EXTRA", extra)),
        ("profiles.yml".to_owned(), profiles),
        ("tools.json".to_owned(), LOOK.to_owned()),
    ]);
    if profile.contains("chain") {
        files.insert("chains.json".to_owned(), CHAINS.to_owned());
    }
    Bench::new(files)
}

fn request(bench: &Bench, effect: u64) -> Option<ModelRequest> {
    model_request(&bench.program.machines[&bench.program.entry], &bench.run, EffectId(effect))
}

fn settled(bench: &Bench) -> &Ledger {
    &bench.run.ledger
}

const UNBOUNDED: &str = "{name: small, provider: scripted}";
const BOUNDED: &str = "{name: small, provider: scripted, max_tokens: 100}";
const CHAIN: &str = "{name: answers, provider: chain}";

#[test]
fn a_budget_bounds_the_output_of_a_model_that_names_no_maximum() {
    let asked = |first: &[&str], start: &str| {
        let mut bench = bench(LOOPING, UNBOUNDED);
        for line in first {
            bench.line(line);
        }
        bench.line(start);
        request(&bench, 1).and_then(|request| request.max_tokens)
    };
    let budget =
        |meter: &str| format!(r#"budgets {{"tenant:default":{{"caps":{{"{meter}":90000}},"near_percent":80}}}}"#);
    assert_eq!(asked(&[], "start {}"), None, "nothing counts on it");
    assert_eq!(asked(&[&budget("model_calls")], "start {}"), None);
    assert_eq!(asked(&[&budget("tokens")], "start {}"), Some(OUTPUT_TOKENS_DEFAULT));
    assert_eq!(asked(&[&budget("cost_micros")], "start {}"), Some(OUTPUT_TOKENS_DEFAULT));
    assert_eq!(asked(&[], r#"start {} {"tokens":90000}"#), Some(OUTPUT_TOKENS_DEFAULT));
}

#[test]
fn a_budget_that_comes_between_two_attempts_bounds_the_second() {
    let mut bench = bench(RETRYING, UNBOUNDED);
    bench.line("start {}");
    let before = bench.run.calls[&EffectId(1)].arguments;
    bench.line("fail #1 provider.unavailable backoff down");
    bench.line(r#"budgets {"environment":{"caps":{"tokens":90000},"near_percent":80}}"#);
    bench.line("fire #2");
    assert_eq!(request(&bench, 1).and_then(|request| request.max_tokens), Some(OUTPUT_TOKENS_DEFAULT));
    assert_ne!(bench.run.calls[&EffectId(1)].arguments, before, "the bound is a part of what is sent");
}

#[test]
fn what_a_provider_gets_back_of_its_own_is_reserved() {
    let mut bench = bench(LOOPING, BOUNDED);
    bench.line("start {}");
    bench.line(r#"reasoned #1 300000 tools [{"id":"a-long-id-of-a-call","name":"look","arguments":{}}]"#);
    bench.line("return #2 \"seen\"");
    let request = request(&bench, 3).expect("a second turn");
    let sent = serde_json::to_vec(&request.messages).expect("JSON").len() as u64;
    let reserved = settled(&bench).reserved.tokens;
    assert!(reserved > 300_000 && reserved < sent + 1_000, "{reserved} for {sent} bytes");
}

#[test]
fn no_template_of_a_prompt_sees_the_content_of_a_file() {
    let machine = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: m
  context: {photo: "{{ input.photo }}"}
  agents:
    a:
      spec: flatagent
      spec_version: 4.2.1
      data: {prompt: {system: S, user: q, post_history_instructions: "Look at {{ context.photo }}"}, profile: main}
  states:
    start: {type: initial, agent: a, transitions: [{to: end}]}
    end: {type: final}
"#;
    let profiles = "spec: flatprofile\nspec_version: 4.2.1\ndata:\n  default: main\n  model_profiles:\n    main: {name: small, provider: scripted}\n";
    let files = [("machine.yml", machine), ("profiles.yml", profiles)];
    let mut bench = Bench::new(files.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect());
    let file = File::new("x.txt", b"abc");
    bench.line(&format!(r#"start {{"photo":{}}}"#, file.to_value().to_json()));
    let said = serde_json::to_string(&request(&bench, 1).expect("a request").messages).expect("JSON");
    assert!(said.contains("x.txt") && !said.contains("YWJj"), "{said}");
}

#[test]
fn a_call_that_waited_is_asked_about_again() {
    let denied = |lines: &[&str], extra: &str, profile: &str| {
        let mut bench = bench(extra, profile);
        let printed: Vec<String> = lines.iter().map(|line| bench.line(line)).collect();
        assert!(printed.last().is_some_and(|out| out.contains("policy.denied")), "{printed:#?}");
        assert_eq!(bench.run.status().as_str(), "failed", "{printed:#?}");
    };
    let parks = r#"start {} {"model_calls":0,"beyond":"ask"}"#;
    denied(&["policy {}", parks, r#"policy {"model small":"deny"}"#, r#"raise {"model_calls":5}"#], LOOPING, BOUNDED);
    denied(&["policy {}", parks, r#"policy {"model small":"deny"}"#, "approve #2 finance"], LOOPING, BOUNDED);
    denied(&["policy {}", parks, r#"policy {"model model-one":"deny"}"#, r#"raise {"model_calls":5}"#], LOOPING, CHAIN);
    let fails = "fail #1 provider.unavailable backoff down";
    denied(&["policy {}", "start {}", fails, r#"policy {"model small":"deny"}"#, "fire #2"], RETRYING, BOUNDED);
    denied(&["policy {}", "start {}", r#"policy {"model small":"deny"}"#, "lost #1 maybe"], RETRYING, BOUNDED);
    denied(&["policy {}", "start {}", r#"policy {"model small":"deny"}"#, "lost #1 no"], RETRYING, BOUNDED);
}

#[test]
fn a_second_attempt_at_any_link_is_a_repeat() {
    let mut bench = bench(RETRYING, CHAIN);
    let mut seen = Vec::new();
    let mut note = |bench: &Bench| {
        let request = request(bench, 1).expect("a request");
        seen.push(format!("{} {}", request.model, request.repeat));
    };
    bench.line("start {}");
    note(&bench);
    for timer in ["fire #2", "fire #3"] {
        bench.line("fail #1 provider.unavailable backoff down");
        note(&bench);
        bench.line("fail #1 provider.unavailable backoff down");
        bench.line(timer);
        note(&bench);
    }
    assert_eq!(seen, ["model-one false", "model-two false", "model-one true", "model-two true", "model-one true"]);
}

#[test]
fn a_link_that_the_policy_forbids_is_named_to_whoever_answers_from_before() {
    let mut bench = bench(RETRYING, CHAIN);
    bench.line(r#"policy {"model model-one":"deny"}"#);
    bench.line("start {}");
    let request = request(&bench, 1).expect("a request");
    assert_eq!((&*request.model, request.denied), ("model-two", vec!["one".into()]));
}

#[test]
fn each_meter_is_charged_by_what_was_said_of_it() {
    let charged = |spent: &str| {
        let mut bench = bench(LOOPING, BOUNDED);
        bench.line("start {}");
        let held = settled(&bench).reserved;
        bench.line(&format!("spent {spent}"));
        bench.line("reply #1 a");
        (settled(&bench).settled, held, !settled(&bench).estimated.is_zero())
    };
    let (used, held, estimated) = charged(r#"{"metered":{"tokens":{"exactly":90000},"cost_micros":{"at_least":0}}}"#);
    assert_eq!((used.tokens, used.cost_micros, estimated), (90_000, held.cost_micros, true));
    let (used, _, estimated) = charged(r#"{"metered":{"tokens":{"exactly":3},"cost_micros":{"exactly":4}}}"#);
    assert_eq!((used.tokens, used.cost_micros, estimated), (3, 4, false));
    let (used, held, _) = charged(r#"{"metered":{"tokens":{"at_least":3},"cost_micros":{"at_least":90000}}}"#);
    assert_eq!((used.tokens, used.cost_micros), (held.tokens, 90_000));
}

#[test]
fn what_no_call_can_have_used_is_charged_at_the_reservation() {
    for tokens in [CALL_TOKENS_MAX * 4 + 1, u64::MAX] {
        let mut bench = bench(LOOPING, BOUNDED);
        bench.line("start {}");
        let held = settled(&bench).reserved.tokens;
        bench.line(&format!(r#"spent {{"known":{{"tokens":{tokens},"cost_micros":{tokens}}}}}"#));
        bench.line("reply #1 a");
        assert_eq!((settled(&bench).settled.tokens, settled(&bench).estimated.tokens), (held, held));
    }
    let mut sum = Amounts { tokens: AMOUNT_MAX, ..Amounts::ZERO };
    sum.add(&Amounts { tokens: u64::MAX, ..Amounts::ZERO });
    assert_eq!(sum.tokens, AMOUNT_MAX, "what a store can hold is what a journal says");
}
