//! The error table row by row, and `Retry-After`.

use super::*;

fn now() -> Timestamp {
    "1994-11-06T08:49:00Z".parse().expect("a time")
}

fn error(status: u16, kind: &str, message: &str) -> ProviderError {
    ProviderError { status: Some(status), kind: Some(kind.into()), message: message.into(), ..Default::default() }
}

#[test]
fn retry_after_is_seconds_or_a_date_and_capped() {
    assert_eq!(retry_after_ms("0", now()), Some(0));
    assert_eq!(retry_after_ms(" 7 ", now()), Some(7_000));
    assert_eq!(retry_after_ms("1.5", now()), Some(1_500));
    assert_eq!(retry_after_ms("1000000000", now()), Some(RETRY_AFTER_MS_MAX));
    assert_eq!(retry_after_ms("Sun, 06 Nov 1994 08:49:37 GMT", now()), Some(37_000));
    assert_eq!(retry_after_ms("Sun, 06 Nov 1994 08:00:00 GMT", now()), Some(0));
    assert_eq!(retry_after_ms("Fri, 06 Nov 2093 08:49:37 GMT", now()), Some(RETRY_AFTER_MS_MAX));
    for junk in ["", "soon", "-1", "NaN", "inf", "1 hour", "Sun, 99 Nov 1994"] {
        assert_eq!(retry_after_ms(junk, now()), None, "{junk}");
    }
}

#[test]
fn statuses_map_to_their_class() {
    let cases = [
        (400, Code::ProviderInvalidRequest, false, Spent::Nothing),
        (401, Code::ProviderAuth, false, Spent::Nothing),
        (402, Code::ProviderAuth, false, Spent::Nothing),
        (403, Code::ProviderAuth, false, Spent::Nothing),
        (404, Code::ProviderInvalidRequest, false, Spent::Nothing),
        (408, Code::ProviderTimeout, true, Spent::Unknown),
        (409, Code::ProviderUnavailable, true, Spent::Nothing),
        (413, Code::ProviderContextLength, false, Spent::Nothing),
        (422, Code::ProviderInvalidRequest, false, Spent::Nothing),
        (429, Code::ProviderRateLimited, true, Spent::Nothing),
        (500, Code::ProviderUnavailable, true, Spent::Nothing),
        (502, Code::ProviderUnavailable, true, Spent::Unknown),
        (503, Code::ProviderUnavailable, true, Spent::Nothing),
        (504, Code::ProviderTimeout, true, Spent::Unknown),
        (529, Code::ProviderUnavailable, true, Spent::Nothing),
    ];
    for (status, code, transient, spent) in cases {
        let (failure, cost) = error(status, "x", "y").classify();
        assert_eq!((failure.code, failure.is_transient(), cost), (code, transient, spent), "{status}");
        assert_eq!(failure.status, Some(i64::from(status)));
    }
}

#[test]
fn every_row_of_the_table_can_decide() {
    for (index, row) in TABLE.iter().enumerate() {
        let statuses: Vec<Option<u16>> = match row.on {
            On::Any => vec![None, Some(400), Some(429), Some(500)],
            On::Statuses(list) => list.iter().copied().map(Some).collect(),
            On::Range(low, high) => vec![Some(low), Some(high)],
        };
        let (kind, message) = match row.sign {
            Sign::Any => (None, String::new()),
            Sign::Named(list) => (Some(list[0].to_uppercase()), String::new()),
            Sign::Says(list) => (None, format!("Sorry: {}!", list[0].to_uppercase())),
        };
        let decides = statuses.into_iter().any(|status| {
            let error = ProviderError { status, kind: kind.clone(), message: message.clone(), ..Default::default() };
            TABLE.iter().position(|r| r.matches(&error)) == Some(index)
        });
        assert!(decides, "row {index} is shadowed: {row:?}");
    }
}

#[test]
fn an_unknown_error_is_final_and_counted() {
    let before = unclassified();
    let (failure, spent) = error(418, "teapot", "short and stout").classify();
    assert_eq!((failure.code, failure.retry, spent), (Code::ProviderInvalidRequest, Retry::Never, Spent::Nothing));
    let (failure, spent) = ProviderError { message: "?".into(), ..Default::default() }.classify();
    assert_eq!((failure.code, failure.retry, spent), (Code::ProviderMalformed, Retry::Never, Spent::Unknown));
    assert!(unclassified() >= before + 2);
}

#[test]
fn error_bodies_of_several_servers_are_read() {
    let read = |body: &str| ProviderError::from_body(Some(400), body);
    let openai = read(r#"{"error":{"message":"m","type":"t","param":null,"code":"c"}}"#);
    assert_eq!((openai.message.as_str(), openai.kind.as_deref(), openai.code.as_deref()), ("m", Some("t"), Some("c")));
    let anthropic = read(r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#);
    assert_eq!((anthropic.message.as_str(), anthropic.kind.as_deref()), ("Overloaded", Some("overloaded_error")));
    assert_eq!(read(r#"{"error":"plain"}"#).message, "plain");
    assert_eq!(read(r#"{"detail":"fast"}"#).message, "fast");
    assert_eq!(read(r#"{"object":"error","message":"v","type":"BadRequestError","code":400}"#).message, "v");
    assert_eq!(read(r#"[{"error":{"code":400,"message":"g"}}]"#).message, "g");
    assert_eq!(read("<html>no</html>").message, "<html>no</html>");
    let long = read(&"x".repeat(1 << 20)).classify().0;
    assert!(long.message.len() < 2_000, "what is shown is short");
}

#[test]
fn a_status_inside_a_200_body_counts() {
    let error = ProviderError::from_body(Some(200), r#"{"error":{"message":"slow down","code":429}}"#);
    assert_eq!(error.status, Some(429));
    assert_eq!(error.classify().0.code, Code::ProviderRateLimited);
}

#[test]
fn headers_decide_over_the_table() {
    let headers = |pairs: &'static [(&'static str, &'static str)]| {
        move |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    };
    let limited = error(429, "x", "y").with_headers(headers(&[("retry-after", "3")]), now());
    assert_eq!(limited.classify().0.retry, Retry::After(3_000));
    let exact = error(429, "x", "y").with_headers(headers(&[("retry-after", "3"), ("retry-after-ms", "250")]), now());
    assert_eq!(exact.classify().0.retry, Retry::After(250));
    let junk = error(429, "x", "y").with_headers(headers(&[("retry-after", "later")]), now());
    assert_eq!(junk.classify().0.retry, Retry::Backoff);
    let no = error(409, "x", "y").with_headers(headers(&[("x-should-retry", "false")]), now());
    assert_eq!(no.classify().0.retry, Retry::Never);
    let yes = error(400, "x", "y").with_headers(headers(&[("x-should-retry", "true")]), now());
    assert_eq!(yes.classify().0.retry, Retry::Backoff);
    let final_one = error(400, "x", "y").with_headers(headers(&[("retry-after", "3")]), now());
    assert_eq!(final_one.classify().0.retry, Retry::Never);
}

#[test]
fn quota_and_length_and_filter_are_told_apart_by_what_the_error_says() {
    assert_eq!(error(429, "insufficient_quota", "no money").classify().0.retry, Retry::Never);
    let long = error(400, "invalid_request_error", "This model's maximum context length is 8192 tokens.");
    assert_eq!(long.classify().0.code, Code::ProviderContextLength);
    let filtered = error(400, "x", "triggering Azure OpenAI's content management policy");
    assert_eq!(filtered.classify().0.code, Code::ProviderRefused);
}

#[test]
fn only_class_names_become_error_types() {
    assert_eq!(error(400, "BadRequestError", "m").classify().0.error_type.as_deref(), Some("BadRequestError"));
    assert_eq!(error(400, "invalid_request_error", "m").classify().0.error_type, None);
    assert_eq!(error(404, "x", "m").classify().0.error_type.as_deref(), Some("NotFoundError"));
}

#[test]
fn a_key_at_the_place_where_a_message_is_cut_leaves_nothing_over() {
    let keys = Keys::default().provider("p", "sk-canary-0123456789");
    for filler in 1_000..1_030 {
        let body = format!("{}sk-canary-0123456789 {}", "x".repeat(filler), "y".repeat(2_000));
        let (failure, _) = ProviderError::from_body(Some(400), &body).redacted(&keys).classify();
        assert!(!failure.message.contains("sk-"), "{filler}");
    }
}
