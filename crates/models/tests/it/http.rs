//! What reaches the wire, and how answers and refusals come back.

use windlass_core::effect::Spent;
use windlass_core::failure::{Code, Retry};
use windlass_core::machine::ModelSettings;
use windlass_core::transcript::Message;
use windlass_core::value::Value;
use windlass_models::{ALL, Models, ProviderSettings};
pub(crate) use windlass_ports::conformance::model::question as request;
use windlass_ports::model::{Model, ModelResult};

use crate::server::{Act, End, Server};
use crate::streams::{anthropic_text, openai_text};

/// One call of a server that always does the same.
pub(crate) async fn ask(provider: &str, act: Act, stream: bool) -> ModelResult {
    let server = Server::always(act);
    let mut request = request(provider, &server.url);
    request.stream = stream;
    Models::builder().build().call(request).await
}

#[tokio::test]
async fn requests_go_to_the_base_address_with_the_path_of_the_format() {
    for (provider, path, answer) in [
        ("openai", "/v1/chat/completions", openai_text("x", "stop", true, false)),
        ("my-own-server", "/v1/chat/completions", openai_text("x", "stop", true, false)),
        ("anthropic", "/v1/messages", anthropic_text("x", "end_turn", true, false)),
    ] {
        let server = Server::always(answer);
        let models = Models::builder().build();
        for slash in ["", "/"] {
            let result = models.call(request(provider, &format!("{}{slash}", server.url))).await;
            assert_eq!(result.outcome.map(|r| r.content.to_string()).as_deref(), Ok("x"));
        }
        let seen = server.seen();
        assert_eq!(seen.iter().map(|s| s.path.as_str()).collect::<Vec<_>>(), [path, path]);
        assert_eq!(seen[0].body, seen[1].body);
        assert_eq!(seen[0].headers.get("content-type").map(String::as_str), Some("application/json"));
        assert_eq!(seen[0].headers.get("authorization"), None, "no key, no header");
        let version = seen[0].headers.get("anthropic-version").map(String::as_str);
        assert_eq!(version, (provider == "anthropic").then_some("2023-06-01"));
    }
}

#[tokio::test]
async fn configured_addresses_headers_and_kinds_are_used() {
    let server = Server::always(anthropic_text("x", "end_turn", true, false));
    let text = format!("kind: anthropic\nbase_url: {}\nheaders: {{anthropic-beta: one}}\n", server.url);
    let settings: ProviderSettings = serde_saphyr::from_str(&text).expect("settings");
    let models = Models::builder().provider("house", settings).build();
    let mut call = request("house", "");
    call.base_url = None;
    assert!(models.call(call).await.outcome.is_ok());
    let seen = server.seen();
    assert_eq!(seen[0].path, "/v1/messages");
    assert_eq!(seen[0].headers.get("anthropic-beta").map(String::as_str), Some("one"));
    assert!(serde_saphyr::from_str::<ProviderSettings>("base: x").is_err(), "unknown keys are refused");
}

#[tokio::test]
async fn what_headers_say_is_kept() {
    let answer = openai_text("x", "stop", true, false)
        .header("x-request-id", "req_1")
        .header("x-ratelimit-remaining-tokens", "9")
        .header("x-ratelimit-limit-tokens", "10");
    let data = ask("openai", answer, false).await.outcome.expect("an answer").provider_data;
    assert_eq!(
        data.to_json(),
        r#"{"request_id":"req_1","response_id":"chatcmpl-1","model":"m-2024","finish_reason":"stop","rate_limits":{"limit-tokens":"10","remaining-tokens":"9"}}"#
    );
}

#[tokio::test]
async fn refusals_are_classified_by_status_body_and_headers() {
    let body = r#"{"error":{"message":"m","type":"rate_limit","code":"c"}}"#;
    for (header, retry) in [
        ("0", Retry::After(0)),
        ("1", Retry::After(1_000)),
        ("1000000000", Retry::After(3_600_000)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Retry::After(0)),
        ("junk", Retry::Backoff),
    ] {
        let result = ask("openai", Act::json(429, body).header("retry-after", header), false).await;
        let failure = result.outcome.expect_err("a refusal");
        assert_eq!((failure.code, failure.retry, result.spent), (Code::ProviderRateLimited, retry, Spent::Nothing));
        assert_eq!(failure.status, Some(429));
        assert_eq!(failure.detail.get("type"), Some(&Value::str("rate_limit")));
    }
    let once = ask("openai", Act::json(503, body).header("x-should-retry", "false"), false).await;
    assert_eq!(once.outcome.expect_err("a refusal").retry, Retry::Never);
    let redirect = ask("openai", Act::json(307, "").header("location", "http://127.0.0.1:1/"), false).await;
    let failure = redirect.outcome.expect_err("a refusal");
    assert_eq!((failure.status, failure.retry), (Some(307), Retry::Never), "redirects are not followed");
}

#[tokio::test]
async fn a_status_counts_although_its_body_breaks_off() {
    let result = ask("openai", Act::json(429, r#"{"error":{"message":"slow"}}"#).end(End::Cut(5)), false).await;
    let failure = result.outcome.expect_err("a refusal");
    assert_eq!((failure.code, failure.status), (Code::ProviderRateLimited, Some(429)));
}

#[tokio::test]
async fn large_error_bodies_are_cut() {
    let result = ask("openai", Act::json(400, &"x".repeat(1 << 20)), false).await;
    assert!(result.outcome.expect_err("a refusal").message.len() < 4_096);
}

#[tokio::test]
async fn a_lost_connection_may_have_cost_something() {
    for act in [Act::Drop, Act::Reset] {
        let result = ask("openai", act, false).await;
        let failure = result.outcome.expect_err("no answer");
        assert_eq!((failure.code, failure.retry), (Code::ProviderUnreachable, Retry::Backoff), "{failure}");
        assert_eq!(result.spent, Spent::Unknown);
    }
}

/// Error bodies as the providers document them: provider, status, type, code, message, and what becomes of them.
const ERRORS: &[(&str, u16, &str, &str, &str, Code, bool)] = &[
    ("openai", 400, "invalid_request_error", "null", "Unknown parameter", Code::ProviderInvalidRequest, false),
    ("openai", 400, "invalid_request_error", "\"context_length_exceeded\"", "x", Code::ProviderContextLength, false),
    ("openai", 400, "invalid_request_error", "\"content_policy_violation\"", "x", Code::ProviderRefused, false),
    ("openai", 401, "invalid_request_error", "\"invalid_api_key\"", "Incorrect API key", Code::ProviderAuth, false),
    ("openai", 403, "permission_error", "null", "x", Code::ProviderAuth, false),
    ("openai", 404, "invalid_request_error", "\"model_not_found\"", "x", Code::ProviderInvalidRequest, false),
    ("openai", 408, "timeout", "null", "x", Code::ProviderTimeout, true),
    ("openai", 409, "conflict", "null", "x", Code::ProviderUnavailable, true),
    ("openai", 422, "invalid_request_error", "null", "x", Code::ProviderInvalidRequest, false),
    ("openai", 429, "requests", "\"rate_limit_exceeded\"", "x", Code::ProviderRateLimited, true),
    ("openai", 429, "insufficient_quota", "\"insufficient_quota\"", "x", Code::ProviderRateLimited, false),
    ("openai", 500, "server_error", "null", "x", Code::ProviderUnavailable, true),
    ("openai", 503, "service_unavailable", "null", "x", Code::ProviderUnavailable, true),
    ("anthropic", 400, "invalid_request_error", "null", "max_tokens: must be set", Code::ProviderInvalidRequest, false),
    ("anthropic", 400, "invalid_request_error", "null", "prompt is too long", Code::ProviderContextLength, false),
    ("anthropic", 401, "authentication_error", "null", "x", Code::ProviderAuth, false),
    ("anthropic", 402, "billing_error", "null", "x", Code::ProviderAuth, false),
    ("anthropic", 403, "permission_error", "null", "x", Code::ProviderAuth, false),
    ("anthropic", 404, "not_found_error", "null", "model: x", Code::ProviderInvalidRequest, false),
    ("anthropic", 413, "request_too_large", "null", "x", Code::ProviderContextLength, false),
    ("anthropic", 429, "rate_limit_error", "null", "x", Code::ProviderRateLimited, true),
    ("anthropic", 500, "api_error", "null", "x", Code::ProviderUnavailable, true),
    ("anthropic", 504, "timeout_error", "null", "x", Code::ProviderTimeout, true),
    ("anthropic", 529, "overloaded_error", "null", "Overloaded", Code::ProviderUnavailable, true),
];

#[tokio::test]
async fn every_error_class_of_every_provider_has_its_failure() {
    for (provider, status, kind, code, message, want, transient) in ERRORS {
        let error = format!(r#"{{"type":"error","error":{{"message":"{message}","type":"{kind}","code":{code}}}}}"#);
        for streamed in [false, true] {
            let failure = ask(provider, Act::json(*status, &error), streamed).await.outcome.expect_err("a refusal");
            let got = (failure.code, failure.is_transient(), failure.status);
            assert_eq!(got, (*want, *transient, Some(i64::from(*status))), "{provider} {error}");
            assert!(failure.message.contains(message), "{failure}");
        }
    }
}

#[tokio::test]
async fn time_that_runs_out_before_anything_is_sent_costs_nothing() {
    // A full queue of connections: the next one is neither taken nor refused.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listener = socket.listen(1).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let mut waiting = Vec::new();
    loop {
        let connect = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(std::time::Duration::from_millis(30), connect).await {
            Ok(connection) => waiting.push(connection.expect("a connection")),
            // A queue of one holds two; a connection that was merely late is tried again.
            Err(_) if waiting.len() >= 2 => break,
            Err(_) => {}
        }
    }
    let mut request = request("openai", &format!("http://{address}/v1"));
    request.timeout_ms = 30;
    let result = Models::builder().build().call(request).await;
    let failure = result.outcome.expect_err("nobody there");
    assert_eq!((failure.code, result.spent), (Code::ProviderTimeout, Spent::Unsent), "{failure}");
}

#[tokio::test]
async fn no_request_is_sent_twice() {
    let server = Server::always(Act::json(500, "{}"));
    let result = Models::builder().build().call(request("openai", &server.url)).await;
    assert!(result.outcome.is_err());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn requests_that_cannot_be_said_do_not_leave() {
    let server = Server::always(openai_text("x", "stop", true, false));
    let models = Models::builder().build();
    let unanswered = Message::Tool { call_id: "x".into(), content: "y".into(), is_error: false };
    let mut orphan = request("openai", &server.url);
    orphan.messages.push(unanswered);
    let mut reserved = request("openai", &server.url);
    reserved.params = Value::object([("messages", Value::list(vec![]))]);
    let mut nowhere = request("openai", &server.url);
    nowhere.base_url = Some("ftp://x".into());
    for request in [orphan, reserved, nowhere] {
        let result = models.call(request).await;
        let failure = result.outcome.expect_err("unsayable");
        assert_eq!(
            (failure.code, failure.retry, result.spent),
            (Code::ProviderInvalidRequest, Retry::Never, Spent::Unsent)
        );
    }
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn unknown_providers_are_named_with_advice() {
    let mut unknown = request("acme", "");
    unknown.base_url = None;
    let result = Models::builder().build().call(unknown).await;
    let failure = result.outcome.expect_err("unknown");
    assert_eq!((failure.code, result.spent), (Code::ProviderUnknown, Spent::Unsent));
    assert!(failure.message.contains("`acme`") && failure.message.contains("base_url"), "{failure}");
}

#[test]
fn providers_have_distinct_names_and_whole_addresses() {
    for (index, provider) in ALL.iter().enumerate() {
        assert!(!ALL[..index].iter().any(|p| p.name == provider.name), "{}", provider.name);
        assert!(provider.base_url.is_none_or(|url| !url.ends_with('/')), "{}", provider.name);
    }
}

#[tokio::test]
async fn costs_come_from_the_price_book() {
    let server = Server::always(openai_text("x", "stop", true, false));
    let models = Models::builder().build();
    let mut priced = request("openai", &server.url);
    priced.model = "gpt-4o-2024-08-06".into();
    let reply = models.call(priced).await.outcome.expect("an answer");
    // 120 x $2.50 + 80 x $1.25 + 30 x $10.00 per million
    assert_eq!(reply.cost_micros, Some(700));
    assert!(reply.prices.is_some_and(|version| version.starts_with("builtin-")));
    let result = models.call(request("openai", &server.url)).await;
    assert_eq!(result.spent, Spent::Known { tokens: 230, cost_micros: 0 });
    assert_eq!(result.outcome.map(|r| (r.cost_micros, r.prices)), Ok((None, None)));
    let settings = ModelSettings {
        provider: "openai".into(),
        model: "m".into(),
        base_url: None,
        key: None,
        max_tokens: Some(1),
        stream: false,
        params: Value::Null,
        timeout_ms: 1,
    };
    assert_eq!(models.quote(&settings), None);
    let settings = ModelSettings { model: "gpt-4o".into(), ..settings };
    assert_eq!(models.quote(&settings).map(|q| (q.input, q.output)), Some((2_500_000, 10_000_000)));
}
