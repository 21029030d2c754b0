//! What a request says, read within bounds: its body, its key, how long it waits.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use windlass_core::json;
use windlass_core::value::Value;

use super::problem::Problem;

/// Bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a body may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// How long a request waits for the end of its run when it does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest that it may say.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Bytes of an `Idempotency-Key`.
const KEY_BYTES_MAX: usize = 200;

/// What a header says that may come once only.
pub(super) fn once<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let mut all = headers.get_all(name).iter();
    let (first, second) = (all.next(), all.next());
    if second.is_some() {
        return Err(Problem::bad(format!("the header `{name}` is given more than once")));
    }
    let text = |value: &'h axum::http::HeaderValue| {
        value.to_str().map_err(|_| Problem::bad(format!("the header `{name}` is no plain text")))
    };
    first.map(text).transpose()
}

/// The `Idempotency-Key` of a request.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(key) = once(headers, &HeaderName::from_static("idempotency-key"))? else { return Ok(None) };
    let fits = !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        return Ok(Some(key));
    }
    Err(Problem::bad(format!("`Idempotency-Key` has 1 to {KEY_BYTES_MAX} visible ASCII characters, without blanks")))
}

/// How long a request waits: `wait` of its query, such as `30s` or `500ms`.
pub(super) fn wait(query: Option<&str>) -> Result<Duration, Problem> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(WAIT_DEFAULT) };
    let bad = || Problem::bad("the query is `wait=TIME`, such as `30s` or `500ms`, of 60 s at most");
    let text = query.strip_prefix("wait=").ok_or_else(bad)?;
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').unwrap_or(text), 1_000),
    };
    let is_number = !number.is_empty() && number.len() <= 6 && number.bytes().all(|byte| byte.is_ascii_digit());
    let wait = is_number.then(|| number.parse::<u64>().ok()).flatten().map(|n| Duration::from_millis(n * unit));
    wait.filter(|wait| *wait <= WAIT_MAX).ok_or_else(bad)
}

/// The arguments of a call: `{"arguments": {…}}` and nothing else.
pub(super) async fn arguments(request: Request) -> Result<Value, Problem> {
    let (head, body) = request.into_parts();
    let kind = once(&head.headers, &header::CONTENT_TYPE)?.unwrap_or_default().to_ascii_lowercase();
    let is_json = kind.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
    if !is_json || head.headers.contains_key(header::CONTENT_ENCODING) {
        let detail = "the body is `application/json`, and is not compressed";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "request.media_type", detail));
    }
    let said = once(&head.headers, &header::CONTENT_LENGTH)?.and_then(|length| length.parse::<u64>().ok());
    if said.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let text = read(body).await?;
    let value = json::read_unique(&text).map_err(|error| {
        let problem = Problem::bad(format!("the body is no JSON that is taken: {error}"));
        error.hint().map_or(problem.clone(), |hint| problem.with("hint", hint))
    })?;
    let shape = || Problem::bad("the body is `{\"arguments\": {…}}`, and nothing else stands beside `arguments`");
    let map = value.as_map().ok_or_else(shape)?;
    if map.keys().any(|key| &**key != "arguments") {
        return Err(shape());
    }
    match map.get("arguments") {
        None => Ok(Value::empty_map()),
        Some(arguments @ Value::Map(_)) => Ok(arguments.clone()),
        Some(_) => Err(shape()),
    }
}

async fn read(body: Body) -> Result<String, Problem> {
    let reading = axum::body::to_bytes(body, BODY_BYTES_MAX);
    let bytes = match tokio::time::timeout(BODY_PATIENCE, reading).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            let source = std::error::Error::source(&error);
            let is_long = source.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>);
            return Err(if is_long { too_large() } else { Problem::bad("the body did not come as it was announced") });
        }
        Err(_) => {
            let detail = "the body did not come in time";
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "request.slow", detail));
        }
    };
    String::from_utf8(bytes.into()).map_err(|_| Problem::bad("the body is not UTF-8"))
}

fn too_large() -> Problem {
    let detail = format!("a body has at most {BODY_BYTES_MAX} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request.too_large", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_time_of_a_minute_at_most() {
        for (query, ms) in [
            (None, 10_000),
            (Some(""), 10_000),
            (Some("wait=0s"), 0),
            (Some("wait=30s"), 30_000),
            (Some("wait=5ms"), 5),
        ] {
            assert_eq!(wait(query).expect("a time").as_millis(), ms, "{query:?}");
        }
        for query in
            ["wait=61s", "wait=", "wait=s", "wait=-1s", "wait=1h", "tenant=a", "wait=1s&tenant=a", "wait=9999999s"]
        {
            assert!(wait(Some(query)).is_err(), "{query}");
        }
    }
}
