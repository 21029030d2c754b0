//! Who may do what, and which requests and tokens are taken by no route.

use std::collections::BTreeSet;

use serde_json::json;
use windlass_server::calls::{BODY_BYTES_MAX, OPEN, ROUTES};

use super::World;
use super::keys::{By, bad_tokens};

/// The matrix: no token, a wrong tenant, the right tenant and a wrong tool, and what is right.
#[test]
fn who_may_do_what_is_decided_by_token_tenant_tool_and_rule() {
    let world = World::new(false);
    let (served, keys) = (&world.served, &world.keys);
    let q = json!({ "q": "x" });
    let wrong_tenant = keys.with(By::Ed, "tools:*", &json!({ "tenant": "initech" }));
    let cases = [
        ("no token", served.asks("POST", "/v1/tools/search/call", &[], "{}"), 401, "auth.unauthenticated"),
        ("wrong tenant", served.calls(&wrong_tenant, "search", "", &q), 403, "auth.tenant"),
        ("wrong tool", served.calls(&keys.token(By::Ed, "tools:pay"), "search", "", &q), 403, "auth.scope"),
        ("no scope", served.calls(&keys.token(By::Ed, "openid"), "search", "", &q), 403, "auth.scope"),
        ("a beginning", served.calls(&keys.token(By::Ed, "tools:sea"), "search", "", &q), 403, "auth.scope"),
        ("rule", served.calls(&keys.token(By::Ed, "tools:*"), "secretive", "", &json!({})), 403, "policy.denied"),
        ("no tool", served.calls(&keys.token(By::Ed, "tools:*"), "nothing", "", &q), 404, "request.not_found"),
        ("an action", served.calls(&keys.token(By::Ed, "tools:*"), "act", "", &q), 404, "request.not_found"),
        (
            "arguments",
            served.calls(&keys.token(By::Ed, "tools:*"), "search", "", &json!({ "q": 1 })),
            422,
            "tool.bad_arguments",
        ),
        ("plans", served.calls(&keys.token(By::Ed, "tools:*"), "planned", "k", &json!({})), 422, "tool.denied"),
        ("no key", served.calls(&keys.token(By::Ed, "tools:*"), "pay", "", &json!({})), 400, "request.invalid"),
    ];
    for (name, answer, status, code) in &cases {
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (*status, &json!(code)),
            "{name}: {} {}",
            answer.head,
            answer.body
        );
        assert!(answer.head.contains("content-type: application/problem+json"), "{name}: {}", answer.head);
        let challenge = answer.head.contains("www-authenticate: bearer");
        assert_eq!(challenge, *status == 401 || *code == "auth.scope", "{name}: {}", answer.head);
    }
    assert!(cases[2].1.head.contains("error=\"insufficient_scope\", scope=\"tools:search\""), "{}", cases[2].1.head);
    assert_eq!(cases[5].1.body["rule"], "never.secretive");
    assert_eq!(world.lines("searched"), 0, "nothing of this was done");
    let right = served.calls(&keys.token(By::Ed, "tools:sea*"), "search", "", &q);
    assert_eq!(right.status, 200, "{}", right.body);
    let acts = world.acts("acme");
    for (action, subject, detail) in [
        ("call.deny", "search", "the token has no scope for it: tools:search"),
        ("call.deny", "secretive", "rule never.secretive: not from anywhere"),
        ("call.allow", "search", "rule tools"),
    ] {
        let act = (action.to_owned(), subject.to_owned(), detail.to_owned());
        assert!(acts.contains(&act), "{act:?} in {acts:?}");
    }
    assert!(world.acts("initech").is_empty(), "nobody writes into what is kept of a tenant it may not speak for");
    assert!(
        world.acts("default").iter().any(|(action, _, detail)| action == "call.deny" && detail.contains("initech"))
    );
    let listed = |scope: &str| -> Vec<String> {
        let tools = served.gets(&keys.token(By::Ed, scope), "/v1/tools").body["tools"].as_array().cloned();
        tools.unwrap_or_default().iter().map(|tool| tool["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(listed("tools:*"), ["mail", "pay", "search", "wipe"], "what may not be called is not shown");
    assert_eq!(listed("tools:search"), ["search"]);
    assert!(listed("openid").is_empty());
    for (name, least) in [
        ("windlass_requests_total{token=\"missing\"}", 1.0),
        ("windlass_request_decisions_total{decision=\"scope\"}", 3.0),
        ("windlass_request_decisions_total{decision=\"policy\"}", 1.0),
        ("windlass_request_decisions_total{decision=\"tenant\"}", 1.0),
        ("windlass_request_decisions_total{decision=\"allow\"}", 1.0),
    ] {
        assert!(served.number(name) >= least, "{name}");
    }
}

#[test]
fn a_tool_that_some_arguments_are_allowed_for_is_listed_and_each_call_is_decided() {
    let world = World::new(false);
    let (token, served) = (world.keys.token(By::Ed, "tools:*"), &world.served);
    let tools = served.gets(&token, "/v1/tools").body["tools"].clone();
    assert_eq!((&tools[0]["by_arguments"], &tools[1]["by_arguments"]), (&json!(true), &json!(false)), "{tools}");
    let mails = |to: &str| served.calls(&token, "mail", to, &json!({ "to": to })).status;
    assert_eq!((mails("ann"), mails("eve")), (200, 403), "each call is decided by its arguments");
}

#[test]
fn no_bad_token_is_taken_by_any_route() {
    let world = World::new(false);
    let served = &world.served;
    let mut counted = BTreeSet::new();
    for (name, token, reason) in bad_tokens(&world.keys) {
        let metric = format!("windlass_requests_total{{token=\"{reason}\"}}");
        let before = served.number(&metric);
        let answer = served.gets(&token, "/v1/tools");
        assert_eq!(answer.status, 401, "{name}: {} {}", answer.head, answer.body);
        assert!(answer.head.contains("www-authenticate: bearer realm=\"windlass\", error=\"invalid_token\""), "{name}");
        assert_eq!(served.number(&metric), before + 1.0, "{name} is counted as {reason}");
        let call = served.calls(&token, "search", "k", &json!({ "q": "x" }));
        assert_eq!(call.status, 401, "{name}: {}", call.body);
        counted.insert(reason);
    }
    assert!(counted.len() >= 11, "{counted:?}");
    assert_eq!(world.lines("searched"), 0);
    let good = format!("Bearer {}", world.keys.token(By::Ed, "tools:*"));
    for (headers, status) in [
        (vec![("authorization", &*good), ("authorization", &*good)], 401),
        (vec![("authorization", "Basic YTpi")], 401),
        (vec![("proxy-authorization", &*good)], 401),
        (vec![("x-tenant-id", "acme"), ("x-forwarded-user", "ann")], 401),
        (vec![("authorization", &*good)], 200),
    ] {
        assert_eq!(served.asks("GET", "/v1/tools", &headers, "").status, status, "{headers:?}");
    }
    assert_eq!(served.asks("GET", &format!("/v1/tools?access_token={}", &good[7..]), &[], "").status, 401);
    // What was refused is written down once for all, when the process ends at the latest, with nothing of a token.
    let acts = world.acts("default");
    assert!(!acts.iter().any(|(action, _, _)| action == "request.refuse"), "not one by one: {acts:?}");
    let World { fleet, served, .. } = world;
    assert_eq!(served.stop().code(), Some(0));
    let acts = fleet.run(&["audit", "acts", "--json", "--action", "request.refuse"]).json();
    let detail = acts["rows"][0]["detail"].as_str().expect("written down").to_owned();
    assert!(detail.contains("expired 2") && detail.contains("signature 6") && detail.contains("missing 3"), "{detail}");
    assert_eq!(acts["rows"].as_array().map(Vec::len), Some(1), "{acts}");
}

#[test]
fn every_route_but_those_about_the_process_needs_a_token() {
    let world = World::new(false);
    for route in ROUTES {
        let path = route.path.replace("{name}", "search").replace("{id}", "x");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"] {
            let answer = world.served.asks(method, &path, &[], "");
            assert_eq!(answer.status, 401, "{method} {path}: {}", answer.head);
            assert!(answer.head.contains("www-authenticate: bearer"), "{method} {path}: {}", answer.head);
        }
        let answer = world.served.gets(&world.keys.token(By::Ed, "tools:*"), &path);
        let status = if route.method == "GET" { 401 } else { 404 };
        assert!(answer.status != status, "{path} is a route: {}", answer.body);
    }
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/tools",
        "/v1/tools/",
        "//v1/tools",
        "/V1/tools",
        "/v1/tools;x",
        "/metrics/x",
        "/healthz/",
    ] {
        assert_eq!(world.served.asks("GET", path, &[], "").status, 401, "{path}");
        let known = world.served.gets(&world.keys.token(By::Ed, "tools:*"), path);
        assert_eq!((known.status, &known.body["code"]), (404, &json!("request.not_found")), "{path}");
    }
    for path in OPEN {
        assert!(world.served.asks("GET", path, &[], "").status != 401, "{path}");
    }
}

#[test]
fn what_is_no_request_is_refused_within_bounds() {
    let world = World::new(false);
    let (served, token) = (&world.served, world.keys.token(By::Ed, "tools:*"));
    let bearer = format!("Bearer {token}");
    let post = |headers: &[(&str, &str)], body: &str| {
        let all: Vec<(&str, &str)> = [("authorization", &*bearer)].into_iter().chain(headers.iter().copied()).collect();
        served.asks("POST", "/v1/tools/search/call", &all, body).status
    };
    const JSON: (&str, &str) = ("content-type", "application/json");
    let good = r#"{"arguments": {"q": "x"}}"#;
    let deep = format!("{{\"arguments\": {{\"q\": {}{}}}}}", "[".repeat(5_000), "]".repeat(5_000));
    for (name, headers, body, status) in [
        ("good", vec![JSON], good, 200),
        ("no JSON", vec![JSON], "{", 400),
        ("a list", vec![JSON], "[]", 400),
        ("a mark before it", vec![JSON], "\u{feff}{}", 400),
        ("a key twice", vec![JSON], r#"{"arguments": {"q": "x", "q": "y"}}"#, 400),
        ("arguments twice", vec![JSON], r#"{"arguments": {"q": "x"}, "arguments": {}}"#, 400),
        ("a tenant", vec![JSON], r#"{"arguments": {"q": "x"}, "tenant": "umbrella"}"#, 400),
        ("another case", vec![JSON], r#"{"Arguments": {"q": "x"}}"#, 400),
        ("arguments that are a text", vec![JSON], r#"{"arguments": "{}"}"#, 400),
        ("a huge number", vec![JSON], r#"{"arguments": {"q": 123456789012345678901234567890}}"#, 400),
        ("deep", vec![JSON], &deep, 400),
        ("a form", vec![("content-type", "application/x-www-form-urlencoded")], good, 415),
        ("no type", vec![], good, 415),
        ("packed", vec![JSON, ("content-encoding", "gzip")], good, 415),
        ("two keys", vec![JSON, ("idempotency-key", "a"), ("idempotency-key", "b")], good, 400),
        ("a key with a blank", vec![JSON, ("idempotency-key", "a b")], good, 400),
        ("a page", vec![JSON, ("origin", "http://evil.example")], good, 403),
        ("a page of nowhere", vec![JSON, ("origin", "null")], good, 403),
        ("two hosts", vec![JSON, ("host", "localhost")], good, 400),
        ("a tenant in a header", vec![JSON, ("x-tenant-id", "umbrella")], good, 200),
    ] {
        assert_eq!(post(&headers, body), status, "{name}");
    }
    let long = "k".repeat(300);
    assert_eq!(post(&[JSON, ("idempotency-key", &long)], good), 400);
    let large = format!("{{\"arguments\": {{\"q\": \"{}\"}}}}", "x".repeat(BODY_BYTES_MAX));
    assert_eq!(post(&[JSON], &large), 413);
    assert_eq!(world.lines("searched"), 2, "only what is good was done");
}

#[test]
fn requests_that_are_malformed_on_the_wire_are_refused() {
    let world = World::new(false);
    let (served, bearer) = (&world.served, format!("Bearer {}", world.keys.token(By::Ed, "tools:*")));
    let large = "x".repeat(BODY_BYTES_MAX + 1);
    let head = |more: &str| {
        let auth = format!("authorization: {bearer}\r\ncontent-type: application/json\r\n");
        format!("POST /v1/tools/search/call HTTP/1.1\r\n{more}{auth}")
    };
    let ends = "connection: close\r\n\r\n";
    for (name, request, statuses) in [
        (
            "announced as huge",
            format!("{}content-length: 10000000000\r\n{ends}", head("host: localhost\r\n")),
            &[413][..],
        ),
        (
            "pieces without an end",
            format!("{}transfer-encoding: chunked\r\n{ends}{:x}\r\n{large}", head("host: localhost\r\n"), large.len()),
            &[413],
        ),
        (
            "two lengths",
            format!("{}content-length: 2\r\ncontent-length: 3\r\n{ends}{{}}", head("host: localhost\r\n")),
            &[400],
        ),
        (
            "both lengths",
            format!(
                "{}content-length: 5\r\ntransfer-encoding: chunked\r\n{ends}0\r\n\r\n",
                head("host: localhost\r\n")
            ),
            &[400],
        ),
        ("another host", format!("{}{ends}", head("host: evil.example\r\n")), &[421]),
        ("no host", format!("{}{ends}", head("")), &[400]),
        (
            "an address that is another host",
            format!(
                "GET http://evil.example/v1/tools HTTP/1.1\r\nhost: localhost\r\nauthorization: {bearer}\r\n{ends}"
            ),
            &[400, 421],
        ),
        ("a huge head", format!("{}x: {}\r\n{ends}", head("host: localhost\r\n"), "y".repeat(64 * 1024)), &[431]),
    ] {
        let answer = served.raw(request.as_bytes());
        assert!(statuses.contains(&answer.status), "{name}: {} {} {}", answer.status, answer.head, answer.body);
    }
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let wait = served.asks("POST", "/v1/tools/search/call?wait=1d", &headers, "{}");
    assert_eq!((wait.status, &wait.body["code"]), (400, &json!("request.invalid")));
    assert_eq!(world.lines("searched"), 0, "nothing was done");
}
