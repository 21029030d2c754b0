//! One HTTP exchange: bounded time and bytes, no proxy from the environment, no redirect to another host. What nobody who
//! runs this process wrote goes through the [`Guard`].
//!
//! Owns sending and reading. What a status means is decided here once for all callers; bodies are theirs.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body::{Body, Frame, SizeHint};
use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::value::Value;
use windlass_ports::tool::Permit;

use crate::answer;
use crate::guard::{Guard, Passage, Refused, refusal};
use crate::role::Caller;

/// Time for a connection to be made, in milliseconds; the call's own time bounds it too.
const CONNECT_MS_MAX: u64 = 10_000;
/// Redirects followed within one host.
const REDIRECTS_MAX: usize = 5;
/// The rule that refuses addresses.
const OUTBOUND: &str = "outbound";
/// Bytes of an error's body that are read.
const ERROR_BYTES_MAX: u64 = 16 * 1024;

/// The clients of one catalog, made when first used.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    pooled: OnceLock<Result<Client, String>>,
    fresh: OnceLock<Result<Client, String>>,
    guarded: OnceLock<Result<Client, String>>,
    guard: Guard,
}

/// Who wrote the address of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Author<'a> {
    /// Who runs this process, in its configuration.
    Operator,
    /// Anyone else: a document, a tenant, a model. In a run of this tenant.
    Anyone(&'a str),
}

impl Clients {
    /// Clients behind a guard.
    pub(crate) fn new(guard: Guard) -> Self {
        Self { guard, ..Self::default() }
    }

    /// A client for an address that anyone wrote. Its connections are not kept: whose they are is not known.
    fn guarded(&self, url: &Url, tenant: &str, repeatable: bool) -> Result<&Client, Trouble> {
        let made = match self.guard.check(url, tenant).map_err(Trouble::Refused)? {
            Passage::Written => return self.client(repeatable).map_err(Trouble::Unmade),
            Passage::Checked => self.guarded.get_or_init(|| make(false, Some(&self.guard))),
        };
        made.as_ref().map_err(|why| Trouble::Unmade(why.clone()))
    }

    /// A client. Calls that may not be repeated get a connection of their own, so that a connection which the other
    /// side was about to close cannot put them in doubt.
    pub(crate) fn client(&self, repeatable: bool) -> Result<&Client, String> {
        let slot = if repeatable { &self.pooled } else { &self.fresh };
        slot.get_or_init(|| make(repeatable, None)).as_ref().map_err(Clone::clone)
    }
}

fn make(pooled: bool, guard: Option<&Guard>) -> Result<Client, String> {
    // Fails when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder().http1_only();
    if let Some(guard) = guard {
        builder = builder.dns_resolver(guard.resolver());
    }
    builder
        .no_proxy()
        .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
        .pool_max_idle_per_host(if pooled { usize::MAX } else { 0 })
        .build()
        .map_err(|error| chain(&error))
}

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Method.
    pub(crate) method: Method,
    /// Address.
    pub(crate) url: Url,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// Body.
    pub(crate) body: Option<Vec<u8>>,
    /// Whether it may still leave.
    pub(crate) permit: Permit,
    /// How long the parts of its answer may take.
    pub(crate) waits: Waits,
}

/// How long the parts of an answer may take, in milliseconds; none for as long as the whole may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    /// Its head.
    pub(crate) header_ms: Option<u64>,
    /// A piece of its body.
    pub(crate) idle_ms: Option<u64>,
}

/// Waits so long at most.
async fn within<T>(most_ms: Option<u64>, what: &'static str, work: impl Future<Output = T>) -> Result<T, Trouble> {
    match most_ms {
        None => Ok(work.await),
        Some(ms) => {
            let ended = tokio::time::timeout(Duration::from_millis(ms), work).await;
            ended.map_err(|_| Trouble::Slow(what, ms))
        }
    }
}

/// The permit of a call is gone: it did not leave.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this worker may no longer send it")]
pub(crate) struct Withdrawn;

/// A body that is given out only while its call may leave. It is asked for after the connection has been made, when
/// nothing has been written to it yet.
pub(crate) struct Guarded {
    bytes: Option<Bytes>,
    permit: Permit,
}

impl Guarded {
    /// A body of these bytes.
    pub(crate) fn new(bytes: &[u8], permit: &Permit) -> Self {
        let bytes = Some(Bytes::copy_from_slice(bytes)).filter(|bytes| !bytes.is_empty());
        Self { bytes, permit: permit.clone() }
    }
}

impl Body for Guarded {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        if self.bytes.is_some() && !self.permit.holds() {
            return Poll::Ready(Some(Err(Withdrawn)));
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status.
    pub(crate) status: StatusCode,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// Body; of an error only its beginning.
    pub(crate) body: Vec<u8>,
}

enum Trouble {
    Refused(Refused),
    Unmade(String),
    NotSent(String),
    Broken(String),
    TooLarge,
    Elsewhere(String),
    Slow(&'static str, u64),
}

/// Sends a message and reads the answer, whatever its status.
///
/// # Errors
/// Not sent, no answer in time, an answer cut off or too large, a redirect to another host.
pub(crate) async fn exchange(
    clients: &Clients,
    caller: &Caller,
    message: Message,
    timeout_ms: u64,
    bytes_max: u64,
) -> Result<Answer, Failure> {
    exchange_for(Author::Operator, clients, caller, message, timeout_ms, bytes_max).await
}

/// The same to an address that somebody else may have written.
///
/// # Errors
/// The same, and `policy.denied` for an address that nobody else may name; nothing was connected to then.
pub(crate) async fn exchange_for(
    author: Author<'_>,
    clients: &Clients,
    caller: &Caller,
    message: Message,
    timeout_ms: u64,
    bytes_max: u64,
) -> Result<Answer, Failure> {
    let work = follow(author, clients, caller.repeatable, message, bytes_max);
    let result = match tokio::time::timeout(Duration::from_millis(timeout_ms), work).await {
        Ok(result) => result,
        Err(_) => return Err(caller.timed_out(timeout_ms)),
    };
    result.map_err(|trouble| match trouble {
        Trouble::Refused(refused) => denied(caller, &refused),
        Trouble::Unmade(why) => caller.unreachable(why).retry(Retry::Never),
        Trouble::NotSent(why) => caller.unreachable(why),
        Trouble::Broken(why) => {
            caller.failed(format!("the connection to `{}` broke: {why}", caller.name)).retry(caller.in_doubt())
        }
        Trouble::TooLarge => caller.too_large(bytes_max),
        Trouble::Elsewhere(why) => caller.failed(format!("`{}` {why}", caller.name)),
        Trouble::Slow(what, ms) => {
            let late = caller.timed_out(timeout_ms);
            Failure::new(late.code, format!("{what} of `{}` took more than {ms} ms", caller.name)).retry(late.retry)
        }
    })
}

/// The failure of a call to an address that it may not go to.
fn denied(caller: &Caller, refused: &Refused) -> Failure {
    let message = format!("rule `{OUTBOUND}`: `{}` was not called: {refused}; {}", caller.name, refused.way_out());
    Failure::new(Code::PolicyDenied, message).detail(Value::object([("rule", Value::str(OUTBOUND))]))
}

async fn follow(
    author: Author<'_>,
    clients: &Clients,
    repeatable: bool,
    mut message: Message,
    bytes_max: u64,
) -> Result<Answer, Trouble> {
    for _ in 0..=REDIRECTS_MAX {
        let client = match author {
            Author::Operator => clients.client(repeatable).map_err(Trouble::Unmade)?,
            Author::Anyone(tenant) => clients.guarded(&message.url, tenant, repeatable)?,
        };
        let mut request = client.request(message.method.clone(), message.url.clone()).headers(message.headers.clone());
        if !message.permit.holds() {
            return Err(Trouble::NotSent(Withdrawn.to_string()));
        }
        if let Some(body) = &message.body {
            request = request.body(reqwest::Body::wrap(Guarded::new(body, &message.permit)));
        }
        let sent = within(message.waits.header_ms, "the head of the answer", request.send()).await?;
        let response = sent.map_err(|error| sort(&error))?;
        match next(&message, &response)? {
            Some(url) => message.url = url,
            None => return read(response, bytes_max, message.waits.idle_ms).await,
        }
    }
    Err(Trouble::Elsewhere(format!("redirected more than {REDIRECTS_MAX} times")))
}

/// Where a redirect leads, if this is one. One that would change what is asked of whom is refused.
fn next(message: &Message, response: &Response) -> Result<Option<Url>, Trouble> {
    let status = response.status();
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(place) = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()) else { return Ok(None) };
    let url = message.url.join(place).map_err(|_| Trouble::Elsewhere("redirected to an invalid address".into()))?;
    if url.origin() != message.url.origin() {
        let host = answer::printable(url.host_str().unwrap_or("nowhere"));
        return Err(Trouble::Elsewhere(format!("redirected to another host, `{host}`, which is refused")));
    }
    if message.method.is_safe() || matches!(status.as_u16(), 307 | 308) {
        return Ok(Some(url));
    }
    Err(Trouble::Elsewhere(format!("answered {} with {status}, which would change the request", message.method)))
}

async fn read(response: Response, bytes_max: u64, idle_ms: Option<u64>) -> Result<Answer, Trouble> {
    let (status, headers) = (response.status(), response.headers().clone());
    let success = status.is_success();
    let most = if success { bytes_max } else { bytes_max.min(ERROR_BYTES_MAX) };
    if success && response.content_length().is_some_and(|length| length > most) {
        return Err(Trouble::TooLarge);
    }
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = within(idle_ms, "a piece of the answer", chunks.next()).await? {
        match chunk {
            Ok(chunk) => body.extend_from_slice(&chunk),
            // The status of an error says enough.
            Err(_) if !success => break,
            Err(error) => return Err(Trouble::Broken(chain(&error))),
        }
        if body.len() as u64 > most {
            if success {
                return Err(Trouble::TooLarge);
            }
            body.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            break;
        }
    }
    Ok(Answer { status, headers, body })
}

fn sort(error: &reqwest::Error) -> Trouble {
    if let Some(refused) = refusal(error) {
        return match refused {
            Refused::Unresolved { why, .. } => Trouble::NotSent(why),
            refused => Trouble::Refused(refused),
        };
    }
    if is_unsent(error) { Trouble::NotSent(chain(error)) } else { Trouble::Broken(chain(error)) }
}

/// Whether a request that failed like this certainly did not leave.
pub(crate) fn is_unsent(error: &reqwest::Error) -> bool {
    error.is_connect() || error.is_builder() || is_withdrawn(error)
}

fn is_withdrawn(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(next) = cause {
        if next.is::<Withdrawn>() {
            return true;
        }
        cause = next.source();
    }
    false
}

/// The causes of an error in one line, without the address, whose query may hold what nobody should read.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(next) = cause {
        causes.push(answer::printable(&next.to_string()));
        cause = next.source();
    }
    if causes.is_empty() { "the request could not be made".to_owned() } else { causes.join(": ") }
}

impl Answer {
    /// Whether the body is declared to be JSON.
    pub(crate) fn is_json(&self) -> bool {
        let kind = self.headers.get(reqwest::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")
    }

    /// The failure that a status other than 2xx means.
    pub(crate) fn failure(&self, caller: &Caller) -> Failure {
        let named = answer::json_of(&self.body).ok().as_ref().and_then(answer::named_error);
        let failure = match named {
            Some(named) => answer::failure_of(caller, named),
            None if self.body.is_empty() => caller.failed(format!("`{}` answered {}", caller.name, self.status)),
            None => caller.failed(format!("`{}` answered {}: {}", caller.name, self.status, answer::quote(&self.body))),
        };
        failure.status(self.status.as_u16().into()).retry(self.retry(caller))
    }

    /// Whether to try again. A server that says it did nothing (408, 425, 429, 503) may be asked again by anyone; other
    /// faults of a server may come after the deed, so only a call that may be repeated is, and for one that may not a
    /// gateway's word (502, 504) leaves the outcome unknown.
    fn retry(&self, caller: &Caller) -> Retry {
        let again = retry_after_ms(&self.headers).map_or(Retry::Backoff, Retry::After);
        match self.status.as_u16() {
            408 | 425 | 429 | 503 => again,
            501 | 505 => Retry::Never,
            500..=599 if caller.repeatable => again,
            502 | 504 => Retry::Unknown,
            _ => Retry::Never,
        }
    }
}

/// `Retry-After` in milliseconds: a number of seconds, or a date, which is compared with the server's own clock.
fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let after = text(RETRY_AFTER)?;
    if let Ok(seconds) = after.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000));
    }
    let time = |text| jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok();
    let wait = time(after)?.duration_since(time(text(DATE)?)?);
    Some(u64::try_from(wait.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        assert_eq!(retry_after_ms(&headers(&[("retry-after", "7")])), Some(7_000));
        let date = [("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT"), ("date", "Wed, 21 Oct 2026 07:28:00 GMT")];
        assert_eq!(retry_after_ms(&headers(&date)), Some(30_000));
        assert_eq!(retry_after_ms(&headers(&date[..1])), None);
        assert_eq!(retry_after_ms(&headers(&[("retry-after", "soon")])), None);
        assert_eq!(retry_after_ms(&headers(&[])), None);
    }

    #[test]
    fn a_status_says_whether_to_try_again() {
        let caller = |repeatable| Caller { name: "t".into(), role: crate::role::Role::Tool, repeatable, read: false };
        let retry = |status: u16, repeatable| {
            let status = StatusCode::from_u16(status).unwrap();
            Answer { status, headers: HeaderMap::new(), body: Vec::new() }.failure(&caller(repeatable)).retry
        };
        for status in [408, 429, 503] {
            assert_eq!(retry(status, false), Retry::Backoff);
        }
        assert_eq!((retry(500, true), retry(500, false)), (Retry::Backoff, Retry::Never));
        assert_eq!((retry(502, true), retry(502, false)), (Retry::Backoff, Retry::Unknown));
        assert_eq!((retry(501, true), retry(404, true)), (Retry::Never, Retry::Never));
    }
}
