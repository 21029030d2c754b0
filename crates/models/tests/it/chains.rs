//! Chains of the catalog: links with their breakers, quotas, repeats, and answers from before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_core::effect::Spent;
use windlass_core::failure::{Code, Retry};
use windlass_core::machine::{ModelSettings, Priority};
use windlass_core::request::ModelRequest;
use windlass_core::route::{Chain, Link};
use windlass_core::value::Value;
use windlass_models::Models;
use windlass_models::catalog::Catalog;
use windlass_models::scripted::{Script, Scripts};
use windlass_ports::model::{Model, ModelResult};

use crate::formats::{Format, Why};
use crate::http::request;
use crate::server::{Act, Server};
use crate::streams::openai_text;

fn models(catalog: &str) -> Models {
    let script = Script::parse("default: {content: by rules}\n").expect("a script");
    let catalog = Catalog::parse(catalog).expect("a catalog");
    Models::builder().catalog(catalog).scripts(Scripts::default().default_script(script)).build()
}

fn settings(chain: &str) -> ModelSettings {
    ModelSettings {
        provider: "chain".into(),
        model: chain.into(),
        base_url: None,
        key: None,
        max_tokens: Some(100),
        stream: false,
        params: Value::Null,
        timeout_ms: 9_000,
    }
}

fn chain(models: &Models) -> Chain {
    models.chain(&settings("answers")).expect("a chain")
}

/// The request that the engine makes at a link.
fn at(link: &Link, said: &str) -> ModelRequest {
    let mut out = request(&link.settings.provider, "");
    out.messages = vec![windlass_core::transcript::Message::User { content: said.into() }];
    (out.model, out.base_url) = (link.settings.model.clone(), link.settings.base_url.clone());
    (out.params, out.timeout_ms) = (link.settings.params.clone(), link.settings.timeout_ms);
    out.link = Some(("answers".into(), link.name.clone()));
    out
}

async fn ask(models: &Models, place: usize, said: &str) -> ModelResult {
    models.call(at(&chain(models).links[place], said)).await
}

fn code(result: &ModelResult) -> Option<Code> {
    result.outcome.as_ref().err().map(|failure| failure.code)
}

const LINKS: &str = "
version: house-1
models:
- {name: main, provider: openai, model: gpt-4o, base_url: 'URL', tier: strong, output_tokens: 50}
chains:
- name: answers
  cache_ttl_ms: 60000
  links:
  - {model: main, timeout_ms: 4000, breaker: {calls_min: 3, rest_ms: 600000}}
  - {cached: true}
  - {script: rules.yml, on: []}
";

fn of(server: &Server) -> String {
    LINKS.replace("URL", &server.url)
}

#[tokio::test]
async fn links_say_how_they_are_called_and_what_they_cost() {
    let models = models(&LINKS.replace("URL", "http://localhost:1/v1"));
    let links = chain(&models).links;
    let names: Vec<(&str, &str)> = links.iter().map(|link| (&*link.name, &*link.tier)).collect();
    assert_eq!(names, [("main", "strong"), ("cached", "cached"), ("rules.yml", "rules")]);
    let main = &links[0];
    assert_eq!((main.settings.timeout_ms, main.settings.max_tokens), (4_000, Some(50)));
    assert_eq!(main.quote.as_ref().map(|quote| quote.output), Some(10_000_000));
    assert!(main.on.contains(&Code::ProviderTruncated) && !main.on.contains(&Code::ProviderAuth));
    assert_eq!(links[1].settings.provider.as_ref(), "cached");
    assert!(links[2].on.is_empty());
    assert_eq!(models.chain(&settings("nobody")), None);
    let unknown = models.call(request("chain", "")).await;
    assert_eq!((code(&unknown), unknown.spent), (Some(Code::ProviderUnknown), Spent::Unsent));
}

/// FLT-N5: where a provider is down, its breaker opens, one call at a time looks again, and nothing more is sent. Whatever
/// the provider speaks.
#[tokio::test]
async fn a_provider_that_is_down_is_left_alone() {
    for format in Format::ALL {
        let down = Arc::new(AtomicBool::new(true));
        let state = Arc::clone(&down);
        let server = Server::start(move |_| match state.load(Ordering::SeqCst) {
            true => Act::json(500, "{}"),
            false => format.says("x", Why::Done, true, false).expect("an answer"),
        });
        let called = format!("provider: {}, model: '{}'", format.provider(), format.model());
        let catalog = LINKS.replace("provider: openai, model: gpt-4o", &called).replace("URL", &format.base(&server));
        let models = models(&catalog.replace("rest_ms: 600000", "rest_ms: 40"));
        for _ in 0..3 {
            assert_eq!(code(&ask(&models, 0, "q").await), Some(Code::ProviderUnavailable), "{format:?}");
        }
        let calls = (0..50).map(|n| ask(&models, 0, if n == 0 { "q" } else { "r" }));
        let results = futures::future::join_all(calls).await;
        assert!(results.iter().all(|result| code(result) == Some(Code::ProviderUnavailable)), "{format:?}");
        let looked = results.iter().filter(|result| result.spent != Spent::Unsent).count();
        assert!(looked <= 1, "{format:?}: {looked} were sent");
        let sent = server.seen().len();
        assert!(sent <= 4, "{format:?}: three to open it, and one to look again: {sent}");
        assert!(chain(&models).links[0].shut.as_ref().is_some_and(|why| why.contains("breaker")), "{format:?}");
        down.store(false, Ordering::SeqCst);
        // Slow on purpose: a breaker rests by the clock.
        let answered = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while ask(&models, 0, "q").await.outcome.is_err() {
                tokio::task::yield_now().await;
            }
        });
        answered.await.unwrap_or_else(|_| panic!("{format:?}: it is not asked again"));
        assert_eq!(chain(&models).links[0].shut, None, "{format:?}");
    }
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_waited_for_or_sheds_by_class() {
    let server = Server::always(Act::json(429, r#"{"error":{"message":"slow"}}"#).header("retry-after", "30"));
    let models = models(&of(&server));
    assert_eq!(code(&ask(&models, 0, "q").await), Some(Code::ProviderRateLimited));
    let calls = (0..100).map(|_| ask(&models, 0, "q"));
    for result in futures::future::join_all(calls).await {
        let failure = result.outcome.expect_err("shed");
        assert!(matches!(failure.retry, Retry::After(ms) if ms > 20_000), "{failure:?}");
        assert_eq!((failure.code, result.spent), (Code::ProviderRateLimited, Spent::Unsent));
    }
    assert_eq!(server.seen().len(), 1, "no storm");
    assert!(chain(&models).links[0].shut.as_ref().is_some_and(|why| why.contains("quota")));
}

#[tokio::test]
async fn a_short_rest_is_waited_for_by_those_who_may() {
    let first = AtomicBool::new(true);
    let server = Server::start(move |_| {
        if first.swap(false, Ordering::SeqCst) {
            return Act::json(429, "{}").header("retry-after-ms", "1000");
        }
        openai_text("x", "stop", true, false)
    });
    let models = models(&of(&server));
    assert_eq!(code(&ask(&models, 0, "q").await), Some(Code::ProviderRateLimited));
    let mut low = at(&chain(&models).links[0], "q");
    low.priority = Priority::Low;
    let shed = models.call(low).await;
    assert_eq!(code(&shed), Some(Code::ProviderRateLimited), "a low class does not wait");
    // Slow on purpose: a quota rests by the clock.
    assert!(ask(&models, 0, "q").await.outcome.is_ok(), "a normal one does");
}

#[tokio::test]
async fn repeats_are_bounded() {
    let server = Server::always(Act::json(500, "{}"));
    let text = of(&server).replace("calls_min: 3", "calls_min: 1000, window: 1000");
    let models = models(&format!("retry_budget: {{percent: 0, reserve: 5}}\n{text}"));
    for _ in 0..20 {
        let mut again = at(&chain(&models).links[0], "q");
        again.repeat = true;
        let result = models.call(again).await;
        assert_eq!(code(&result), Some(Code::ProviderUnavailable));
    }
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn an_answer_from_before_costs_nothing_and_stays_with_its_tenant() {
    let server = Server::always(openai_text("x", "stop", true, false));
    let models = models(&of(&server));
    assert_eq!(code(&ask(&models, 1, "q").await), Some(Code::ProviderUnavailable), "nothing is kept yet");
    let paid = ask(&models, 0, "q").await.outcome.expect("an answer").cost_micros;
    let result = ask(&models, 1, "q").await;
    let reply = result.outcome.expect("a kept answer");
    assert_eq!((&*reply.content, reply.cost_micros), ("x", Some(0)));
    assert_eq!(result.spent, Spent::Known { tokens: 0, cost_micros: 0 });
    let saved = reply.provider_data.get("cache").and_then(|c| c.get("saved_micros")).cloned();
    assert_eq!(saved, paid.map(Value::count));
    let mut foreign = at(&chain(&models).links[1], "q");
    foreign.tenant = "someone else".into();
    assert_eq!(code(&models.call(foreign).await), Some(Code::ProviderUnavailable), "no answer crosses tenants");
    assert_eq!(code(&ask(&models, 1, "another question").await), Some(Code::ProviderUnavailable));
    assert_eq!(server.seen().len(), 1);
}

/// A model of one's own, served by a compatible server: priced and bounded by the catalog, without a chain.
#[tokio::test]
async fn a_model_of_the_catalog_is_called_by_its_name() {
    let server = Server::always(openai_text("x", "stop", true, false));
    let text = format!(
        "version: v7\nmodels:\n- {{name: ours, provider: house, model: tuned-1, base_url: '{}', rates: {{input: 1000000, output: 2000000}}, params: {{top_k: 3}}}}\n",
        server.url
    );
    let models = models(&text);
    let listed = ModelSettings { provider: "catalog".into(), ..settings("ours") };
    let links = models.chain(&listed).expect("one link").links;
    assert_eq!(links.len(), 1);
    let reply = models.call(at(&links[0], "q")).await.outcome.expect("an answer");
    // 200 x $1.00 + 30 x $2.00 per million
    assert_eq!((reply.cost_micros, reply.prices.as_deref()), (Some(260), Some("v7")));
    let body = &server.seen()[0].body;
    assert_eq!((body.get("model"), body.get("top_k")), (Some(&Value::str("tuned-1")), Some(&Value::Int(3))));
}

/// PRM-8: what a model answered to one who may ask it is no answer for one who may not, nor for another question.
#[tokio::test]
async fn an_answer_from_before_is_of_a_model_that_may_be_asked_with_the_same_parameters() {
    let server = Server::always(openai_text("x", "stop", true, false));
    let models = models(&of(&server));
    assert!(ask(&models, 0, "q").await.outcome.is_ok());
    let kept = at(&chain(&models).links[1], "q");
    assert!(models.call(kept.clone()).await.outcome.is_ok(), "the same question");
    let forbidden = ModelRequest { denied: vec!["main".into()], ..kept.clone() };
    assert_eq!(code(&models.call(forbidden).await), Some(Code::ProviderUnavailable));
    let hotter = ModelRequest { params: Value::object([("temperature", Value::Int(1))]), ..kept };
    assert_eq!(code(&models.call(hotter).await), Some(Code::ProviderUnavailable));
    assert_eq!(server.seen().len(), 1);
}

/// What one server says about its quota is so of no other, and holds for an hour at most.
#[tokio::test]
async fn a_server_cannot_use_up_the_quota_of_another() {
    let empty = |reset: &str| {
        let answer = openai_text("x", "stop", true, false);
        answer.header("x-ratelimit-remaining-requests", "0").header("x-ratelimit-reset-requests", reset)
    };
    let (bad, good) = (Server::always(empty("999999")), Server::always(openai_text("x", "stop", true, false)));
    let models = Models::builder().build();
    let of = |server: &Server| request("openai", &server.url);
    assert!(models.call(of(&bad)).await.outcome.is_ok());
    let shed = models.call(of(&bad)).await.outcome.expect_err("its quota is used up");
    assert!(matches!(shed.retry, Retry::After(ms) if ms <= 3_600_000), "{shed:?}");
    assert!(models.call(of(&good)).await.outcome.is_ok(), "another address");
    let keyed = ModelRequest { key: Some("OTHER_KEY".into()), ..of(&bad) };
    assert!(models.call(keyed).await.outcome.is_ok(), "another key");
    let epoch = Server::always(empty("1790000000"));
    for _ in 0..2 {
        assert!(models.call(of(&epoch)).await.outcome.is_ok(), "a time says nothing of how long");
    }
}
