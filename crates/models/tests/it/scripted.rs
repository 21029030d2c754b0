//! The scripted provider: matching, sequences, faults, prices, and mistakes in scripts.

use windlass_core::effect::{Said, Spent};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::machine::ModelSettings;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, Message, Reply, Usage};
use windlass_core::value::Value;
use windlass_models::Models;
use windlass_models::prices::PriceBook;
use windlass_models::scripted::{Script, Scripts};
use windlass_ports::model::{Model, ModelResult};

fn models(script: &str) -> Models {
    let script = Script::parse(script).unwrap_or_else(|e| panic!("{e}"));
    Models::builder().scripts(Scripts::default().default_script(script)).build()
}

fn request(agent: &str, said: &str) -> ModelRequest {
    let mut request = crate::http::request("scripted", "");
    (request.agent, request.base_url) = (agent.into(), None);
    request.messages = vec![Message::System { content: "sys".into() }, Message::User { content: said.into() }];
    request.idempotency_key = String::new();
    request
}

/// The same conversation one turn later.
fn next(mut request: ModelRequest, answer: &str) -> ModelRequest {
    request.messages.push(Message::Assistant { content: answer.into(), tool_calls: vec![], attachments: Value::Null });
    request.messages.push(Message::User { content: "go on".into() });
    request
}

async fn says(models: &Models, request: ModelRequest) -> String {
    match models.call(request).await.outcome {
        Ok(reply) => reply.content.to_string(),
        Err(failure) => failure.code.to_string(),
    }
}

async fn reply(script: &str) -> (Reply, Spent) {
    let result = models(script).call(request("a", "u")).await;
    (result.outcome.unwrap_or_else(|f| panic!("{f}")), result.spent)
}

async fn failure(script: &str) -> (Failure, Spent) {
    let result: ModelResult = models(script).call(request("a", "u")).await;
    (result.outcome.expect_err("a failure"), result.spent)
}

#[tokio::test]
async fn the_first_rule_whose_conditions_all_hold_answers() {
    let models = models(
        r#"
rules:
- {agent: critic, match: [one, two], reply: {content: both}}
- {agent: critic, not: one, reply: {content: without one}}
- {regex: "^n(o+)$", in: last, reply: {content: regex}}
- {match: sys, in: user, reply: {content: never}}
- {match: sys, in: system, has_tools: true, reply: {content: tools}}
- {model: other, reply: {content: model}}
- {turn: 2, reply: {content: second}}
default: {echo: true}
"#,
    );
    assert_eq!(says(&models, request("critic", "two one")).await, "both");
    assert_eq!(says(&models, request("critic", "two")).await, "without one");
    assert_eq!(says(&models, request("critic", "one")).await, "one");
    assert_eq!(says(&models, request("a", "nooo")).await, "regex");
    let mut tools = request("a", "x");
    tools.tools = windlass_ports::conformance::model::request(&settings("m"), false, 1).tools;
    assert_eq!(says(&models, tools).await, "tools");
    let mut other = request("a", "x");
    other.model = "other".into();
    assert_eq!(says(&models, other).await, "model");
    assert_eq!(says(&models, next(request("a", "x"), "y")).await, "second");
}

#[tokio::test]
async fn answers_by_turn_are_the_same_in_a_new_process() {
    let script = "rules:\n- {agent: w, by: turn, replies: [{content: a}, {content: b}, {content: c}]}\n";
    let first = request("w", "u");
    let (second, fifth) = (next(first.clone(), "a"), (0..4).fold(first.clone(), |r, _| next(r, "x")));
    let undisturbed = models(script);
    for (call, want) in [(first, "a"), (second, "b"), (fifth, "c")] {
        assert_eq!(says(&undisturbed, call.clone()).await, want);
        assert_eq!(says(&undisturbed, call.clone()).await, want, "sent again");
        assert_eq!(says(&models(script), call).await, want, "in a new process");
    }
}

#[tokio::test]
async fn counts_go_up_per_script_per_agent_and_per_rule() {
    let models = models(
        "rules:\n- {call: 2, reply: {content: second}}\n- {agent: b, agent_call: 2, reply: {content: b2}}\n- {times: 1, reply: {content: once}}\n- {replies: [{content: x}, {content: y}]}\n",
    );
    let mut got = Vec::new();
    for agent in ["a", "a", "b", "b", "b", "b"] {
        got.push(says(&models, request(agent, "u")).await);
    }
    assert_eq!(got, ["once", "second", "x", "b2", "y", "y"]);
}

#[tokio::test]
async fn a_request_sent_again_counts_once_until_it_was_answered_with_a_failure() {
    let models = models("rules:\n- {replies: [{status: 503}, {content: x}, {content: y}]}\n");
    let keyed = |key: &str| {
        let mut request = request("a", "u");
        request.idempotency_key = key.into();
        request
    };
    assert_eq!(says(&models, keyed("k1")).await, "provider.unavailable");
    assert_eq!(says(&models, keyed("k1")).await, "x", "the next attempt gets the next entry");
    assert_eq!(says(&models, keyed("k1")).await, "x", "the same request sent again gets the same answer");
    assert_eq!(says(&models, keyed("k2")).await, "y");
    assert_eq!(says(&models, keyed("k1")).await, "x");
}

#[tokio::test(start_paused = true)]
async fn delays_take_their_time_and_end_with_the_call() {
    let models = models("default: {content: late, delay_ms: 3000}");
    let start = tokio::time::Instant::now();
    assert_eq!(says(&models, request("a", "u")).await, "late");
    assert_eq!(start.elapsed().as_millis(), 3_000);
    let mut hurried = request("a", "u");
    hurried.timeout_ms = 500;
    let start = tokio::time::Instant::now();
    let result = models.call(hurried).await;
    assert_eq!(start.elapsed().as_millis(), 500);
    assert_eq!((result.outcome.expect_err("late").code, result.spent), (Code::ProviderTimeout, Spent::Unknown));
    let dropped = tokio::time::timeout(std::time::Duration::from_millis(10), models.call(request("a", "u"))).await;
    assert!(dropped.is_err(), "a dropped call ends");
}

#[tokio::test]
async fn answers_have_every_shape() {
    let (json, _) = reply(r#"default: {json: {b: 1, a: [x]}, finish: length}"#).await;
    assert_eq!((&*json.content, json.finish), (r#"{"b":1,"a":["x"]}"#, Finish::Length));
    let (echo, _) = reply("default: {echo_request: [model, max_tokens, seed]}").await;
    assert_eq!(&*echo.content, r#"{"model":"m","max_tokens":100,"seed":null}"#);
    let (calls, _) = reply(r#"default: {content: "", tool_calls: [{name: t, arguments: {n: 1}}, {name: t, arguments: "{\"n\":"}, {id: x, name: t}, {id: x, name: u}]}"#).await;
    let got: Vec<String> = calls.tool_calls.iter().map(|c| format!("{} {} {:?}", c.id, c.name, c.arguments)).collect();
    assert_eq!(got, ["call_1_0 t {\"n\":1}", "call_1_1 t \"{\\\"n\\\":\"", "x t {}", "x_2 u {}"]);
    assert_eq!((calls.finish, calls.has_content), (Finish::ToolUse, true));
    let (silent, _) = reply("default: {finish: stop}").await;
    assert_eq!((&*silent.content, silent.has_content), ("", false));
}

#[tokio::test]
async fn usage_and_cost_have_every_shape() {
    let prices = "prices: {m: {input: 1000000, output: 2000000}, \"*\": {input: 5, output: 5}}\n";
    let (full, spent) =
        reply(&format!("{prices}default: {{content: x, usage: {{input: 10, cache_read: 2, output: 3}}}}")).await;
    assert_eq!((full.cost_micros, full.prices.as_deref()), (Some(18), Some("script")));
    assert_eq!(spent, Spent::Known { tokens: 15, cost_micros: 18 });
    let (partial, spent) = reply(&format!("{prices}default: {{content: x, usage: {{output: 3}}}}")).await;
    assert_eq!(partial.usage, Usage { output: Some(3), ..Usage::default() });
    let least = Spent::Metered { tokens: Said::AtLeast(3), cost_micros: Said::AtLeast(0) };
    assert_eq!((partial.cost_micros, spent), (None, least));
    let (none, spent) = reply("default: {content: x, no_usage: true}").await;
    assert_eq!((none.usage, spent), (Usage::default(), Spent::Unknown));
    let (counted, spent) = reply("default: {content: 12345}").await;
    assert_eq!((counted.usage.input, counted.usage.output, counted.cost_micros), (Some(1), Some(2), None));
    assert_eq!(spent, Spent::Known { tokens: 3, cost_micros: 0 });
    let (dear, spent) = reply("default: {content: x, cost_micros: 999, usage: {input: 1, output: 1}}").await;
    assert_eq!((dear.cost_micros, spent), (Some(999), Spent::Known { tokens: 2, cost_micros: 999 }));
    let quote = models(&format!("{prices}default: {{echo: true}}")).quote(&settings("m")).expect("a price");
    assert_eq!((quote.input, quote.output, &*quote.version), (1_000_000, 2_000_000, "script"));
}

#[tokio::test(start_paused = true)]
async fn failures_have_every_shape() {
    let cases = [
        ("{status: 429, retry_after: 2}", Code::ProviderRateLimited, Retry::After(2_000), Spent::Nothing),
        ("{status: 429, retry_after: junk}", Code::ProviderRateLimited, Retry::Backoff, Spent::Nothing),
        ("{status: 503}", Code::ProviderUnavailable, Retry::Backoff, Spent::Nothing),
        ("{status: 400, error: {code: insufficient_quota}}", Code::ProviderRateLimited, Retry::Never, Spent::Nothing),
        ("{fault: context_length}", Code::ProviderContextLength, Retry::Never, Spent::Nothing),
        ("{fault: content_filter}", Code::ProviderRefused, Retry::Never, Spent::Nothing),
        ("{fault: timeout}", Code::ProviderTimeout, Retry::Backoff, Spent::Unknown),
        ("{fault: connection_refused}", Code::ProviderUnreachable, Retry::Backoff, Spent::Unsent),
        ("{fault: connection_lost}", Code::ProviderUnreachable, Retry::Backoff, Spent::Unknown),
        ("{content: abc, fault: stalled}", Code::ProviderTimeout, Retry::Backoff, Spent::Unknown),
        ("{content: abc, fault: no_end}", Code::ProviderTruncated, Retry::Backoff, Spent::Unknown),
        ("{content: abc, fault: malformed}", Code::ProviderMalformed, Retry::Backoff, Spent::Unknown),
        ("{content: abc, fault: invalid_utf8}", Code::ProviderMalformed, Retry::Backoff, Spent::Unknown),
    ];
    for (text, code, retry, spent) in cases {
        let (failure, cost) = failure(&format!("default: {text}")).await;
        assert_eq!((failure.code, failure.retry, cost), (code, retry, spent), "{text}");
    }
    let (shown, _) = failure("default: {status: 400, error: {type: BadRequestError, message: bad arg}}").await;
    assert!(shown.message.contains("bad arg"));
    assert_eq!(shown.error_type.as_deref(), Some("BadRequestError"));
}

#[tokio::test]
async fn an_answer_cut_after_any_byte_is_truncated_and_the_whole_is_whole() {
    let script = |k: usize| {
        format!(
            "default: {{content: two words, tool_calls: [{{name: t, arguments: {{n: 1}}}}], usage: {{input: 5, cache_read: 1, output: 2, reasoning: 1}}, fault: cut, after_bytes: {k}}}"
        )
    };
    let (whole, _) = reply(&script(1_000_000)).await;
    assert_eq!((&*whole.content, whole.tool_calls.len(), whole.finish), ("two words", 1, Finish::ToolUse));
    let want = Usage { input: Some(5), cache_read: Some(1), cache_write: None, output: Some(2), reasoning: Some(1) };
    assert_eq!(whole.usage, want);
    for k in 0..200 {
        assert_eq!(failure(&script(k)).await.0.code, Code::ProviderTruncated, "{k}");
    }
}

#[tokio::test]
async fn a_call_without_a_rule_says_what_was_asked() {
    let (failure, spent) = failure("rules:\n- {agent: b, reply: {content: x}}\n").await;
    assert_eq!((failure.code, spent), (Code::ProviderUnknown, Spent::Unsent));
    assert!(failure.message.contains("turn 1 of agent `a`") && failure.message.contains("`u`"), "{failure}");
}

#[tokio::test]
async fn scripts_are_found_by_parameter_by_model_and_in_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file.yml"), "default: {content: file}").expect("a file");
    std::fs::write(folder.path().join("bad.yml"), "defaul: {content: file}").expect("a file");
    let script = |text: &str| Script::parse(&format!("default: {{content: {text}}}")).expect("a script");
    let scripts =
        Scripts::default().default_script(script("default")).named("m2", script("named")).folder(folder.path());
    let models = Models::builder().scripts(scripts).build();
    let with = |model: &str, name: Option<&str>| {
        let mut request = request("a", "u");
        request.model = model.into();
        request.params = name.map_or(Value::Null, |n| Value::object([("script", Value::str(n))]));
        request
    };
    assert_eq!(says(&models, with("m", None)).await, "default");
    assert_eq!(says(&models, with("m2", None)).await, "named");
    assert_eq!(says(&models, with("m", Some("m2"))).await, "named");
    assert_eq!(says(&models, with("m", Some("file.yml"))).await, "file");
    for (name, part) in [("none.yml", "none.yml"), ("bad.yml", "defaul")] {
        let failure = models.call(with("m", Some(name))).await.outcome.expect_err("no script");
        assert_eq!(failure.code, Code::ProviderUnknown);
        assert!(failure.message.contains(part), "{failure}");
    }
    let none = Models::builder().build().call(with("m", None)).await.outcome.expect_err("no script");
    assert_eq!(none.code, Code::ProviderUnknown);
}

#[tokio::test]
async fn a_script_can_stand_for_every_provider() {
    let script = Script::parse("default: {content: scripted}").expect("a script");
    let scripts = Scripts::default().default_script(script);
    let models = Models::builder().scripts(scripts).script_everything(true).build();
    assert_eq!(says(&models, crate::http::request("openai", "http://127.0.0.1:1/v1")).await, "scripted");
}

#[test]
fn mistakes_in_scripts_name_their_place() {
    let cases = [
        ("rules:\n- match: a\n  replay: {content: x}\n", 3, "replay"),
        ("rules:\n- match: a\n", 2, "`reply` or `replies`"),
        ("rules:\n- {reply: {content: x}, replies: [{content: y}]}\n", 2, "either"),
        ("rules:\n- {call: 0, reply: {content: x}}\n", 2, "counts from 1"),
        ("rules:\n- regex: '('\n  reply: {content: x}\n", 2, "regex"),
        ("default: {content: x, json: 1}\n", 1, "only one of"),
        ("default: {content: x, status: 500}\n", 1, "failure before"),
        ("default: {status: 200}\n", 1, "300 to 599"),
        ("default: {content: x, retry_after: 1}\n", 1, "`status`"),
        ("default: {fault: exploded}\n", 1, "exploded"),
        ("default: {content: x, after_bytes: 3}\n", 1, "after_bytes"),
        ("default: {}\n", 1, "needs `content`"),
        ("default: {content: x, usage: {input: 1}, no_usage: true}\n", 1, "no_usage"),
        ("rules:\n- {match: [1], reply: {content: x}}\n", 2, "text"),
    ];
    for (text, line, part) in cases {
        let error = Script::parse(text).expect_err(text);
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
    assert!(Script::parse("default: {content: x, usage: {inputs: 3}}").is_err(), "unknown keys are refused everywhere");
}

#[tokio::test]
async fn the_example_of_the_documentation_is_a_script() {
    let page = include_str!("../../../../docs/scripts.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let models = models(example);
    assert_eq!(says(&models, request("critic", "first draft")).await, r#"{"score":4,"advice":"Be bold."}"#);
    assert_eq!(says(&models, request("other", "hello")).await, "hello");
}

#[test]
fn the_example_of_the_documentation_is_a_price_book() {
    let page = include_str!("../../../../docs/prices.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let book = PriceBook::parse(example).expect("a book");
    assert_eq!(book.find("openai", "our-gpt").map(|(rates, _)| rates.input), Some(2_500_000));
}

fn settings(model: &str) -> ModelSettings {
    ModelSettings {
        provider: "scripted".into(),
        model: model.into(),
        base_url: None,
        key: None,
        max_tokens: Some(1),
        stream: false,
        params: Value::Null,
        timeout_ms: 1,
    }
}
