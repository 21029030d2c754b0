//! The one place that talks to providers: one request out, one bounded answer in, no retries, no proxy, no redirect.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use windlass_core::request::ModelRequest;
use windlass_core::trace::carried;
use windlass_core::transcript::Usage;
use windlass_core::value::{Map, Value};

use crate::errors::{Fault, ProviderError, REQUEST_IDS};
use crate::frames::Frames;
use crate::keys::Keys;
use crate::outward::{Outward, Passage};
use crate::wire::{self, Answer, Place, Wire};

/// Bytes of an error body that are read.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Milliseconds that an error body may take.
const ERROR_BODY_MS: u64 = 2_000;

/// Milliseconds of silence after which a connection is probed: a call may take minutes, and its peer may be gone.
const KEEPALIVE_MS: u64 = 30_000;

/// Bounds of one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Milliseconds to connect.
    pub connect_timeout_ms: u64,
    /// Milliseconds that a stream may stand still. Models that reason are silent for minutes.
    pub idle_timeout_ms: u64,
    /// Bytes of an answer.
    pub answer_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connect_timeout_ms: 10_000, idle_timeout_ms: 300_000, answer_bytes_max: 16 * 1024 * 1024 }
    }
}

/// A request as it leaves.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) url: reqwest::Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) timeout_ms: u64,
    /// How a connection to its address is made.
    pub(crate) passage: Passage,
}

/// Sends requests over a pool of connections, which is made with the first: one for addresses as they are written, one for
/// those whose hosts are looked at.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    bounds: Bounds,
    keys: Arc<Keys>,
    outward: Option<Arc<dyn Outward>>,
    free: OnceLock<Result<reqwest::Client, String>>,
    resolved: OnceLock<Result<reqwest::Client, String>>,
}

impl Sender {
    pub(crate) fn new(bounds: Bounds, keys: Arc<Keys>, outward: Option<Arc<dyn Outward>>) -> Self {
        Self { bounds, keys, outward, free: OnceLock::new(), resolved: OnceLock::new() }
    }

    /// How a request to an address goes that a document wrote.
    pub(crate) fn passage(&self, url: &reqwest::Url, tenant: &str) -> Result<Passage, Fault> {
        let Some(outward) = &self.outward else { return Ok(Passage::Free) };
        outward.check(url, tenant).map_err(Fault::Forbidden)
    }

    /// One exchange: the answer, and what the headers say about it; or why there is none, and what the start of an answer
    /// said that it used.
    pub(crate) async fn exchange(
        &self,
        outgoing: Outgoing,
        wire: &dyn Wire,
    ) -> Result<(Answer, Value), (Fault, Usage)> {
        let after_ms = outgoing.timeout_ms;
        let so_far = Arc::new(SoFar::default());
        let client = self.client(outgoing.passage).map_err(|fault| (fault, Usage::default()))?;
        let work = self.attempt(client, outgoing, wire, &so_far);
        let fault = match tokio::time::timeout(Duration::from_millis(after_ms), work).await {
            Ok(Ok(answered)) => return Ok(answered),
            Ok(Err(fault)) => fault.redacted(&self.keys),
            Err(_) => Fault::TimedOut { after_ms, sent: so_far.is_sent() },
        };
        Err((fault, so_far.usage()))
    }

    async fn attempt(
        &self,
        client: &reqwest::Client,
        outgoing: Outgoing,
        wire: &dyn Wire,
        so_far: &Arc<SoFar>,
    ) -> Result<(Answer, Value), Fault> {
        let body = Watched { bytes: Some(outgoing.body.into()), so_far: Arc::clone(so_far) };
        let request = client.post(outgoing.url).headers(outgoing.headers).body(reqwest::Body::wrap(body));
        let mut response = request.send().await.map_err(|error| {
            let error = error.without_url();
            if let Some(why) = self.outward.as_ref().and_then(|outward| outward.refusal(&error)) {
                return Fault::Forbidden(why);
            }
            let why = chain(error);
            if so_far.is_sent() { Fault::Lost(why) } else { Fault::Unreachable(why) }
        })?;
        let headers = response.headers().clone();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let status = response.status();
        if !status.is_success() {
            let bytes = error_body(&mut response).await;
            let error = ProviderError::from_body(Some(status.as_u16()), &String::from_utf8_lossy(&bytes));
            return Err(Fault::Refused(Box::new(error.with_headers(header, jiff::Timestamp::now()))));
        }
        let answer = match header(CONTENT_TYPE.as_str()).and_then(Frames::of) {
            Some(frames) => self.streamed(&mut response, wire, frames, so_far).await?,
            None => {
                let bytes = self.whole(&mut response).await?;
                wire.answer(&parsed(&bytes, &self.keys)?)?
            }
        };
        wire::bounded(answer.tool_calls.len())?;
        Ok((answer, said_by(header, &headers)))
    }

    fn client(&self, passage: Passage) -> Result<&reqwest::Client, Fault> {
        let (client, resolver) = match (passage, &self.outward) {
            (Passage::Resolved, Some(outward)) => (&self.resolved, Some(outward.resolver())),
            (Passage::Free | Passage::Resolved, _) => (&self.free, None),
        };
        let made = client.get_or_init(|| {
            // Fails only when the process has chosen a provider before, which is as good.
            let _chosen_before = rustls::crypto::ring::default_provider().install_default();
            let builder = reqwest::Client::builder().http1_only();
            let builder = match resolver {
                Some(resolver) => builder.dns_resolver(resolver),
                None => builder,
            };
            builder
                .no_proxy()
                .retry(reqwest::retry::never())
                .redirect(reqwest::redirect::Policy::none())
                .tcp_keepalive(Duration::from_millis(KEEPALIVE_MS))
                .connect_timeout(Duration::from_millis(self.bounds.connect_timeout_ms))
                .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(chain)
        });
        made.as_ref().map_err(|why| Fault::Unreachable(why.clone()))
    }

    async fn whole(&self, response: &mut reqwest::Response) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Fault::Truncated(chain(error.without_url())))? {
            if bytes.len() + chunk.len() > self.bounds.answer_bytes_max {
                return Err(Fault::TooLarge(self.bounds.answer_bytes_max));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn streamed(
        &self,
        response: &mut reqwest::Response,
        wire: &dyn Wire,
        mut frames: Frames,
        so_far: &SoFar,
    ) -> Result<Answer, Fault> {
        let idle_ms = self.bounds.idle_timeout_ms;
        let (mut assembler, mut total) = (wire.stream(), 0_usize);
        loop {
            let next = tokio::time::timeout(Duration::from_millis(idle_ms), response.chunk()).await;
            let chunk = match next {
                Err(_) => return Err(Fault::Stalled { idle_ms }),
                Ok(Err(error)) => return Err(Fault::Truncated(chain(error.without_url()))),
                Ok(Ok(None)) if frames.is_empty() && assembler.is_whole() => return assembler.finish(),
                Ok(Ok(None)) => return Err(Fault::Truncated("the stream has no end marker".to_owned())),
                Ok(Ok(Some(chunk))) => chunk,
            };
            total = total.saturating_add(chunk.len());
            if total > self.bounds.answer_bytes_max {
                return Err(Fault::TooLarge(self.bounds.answer_bytes_max));
            }
            for event in frames.push(&chunk)? {
                let is_over = assembler.event(&event);
                so_far.used(assembler.usage());
                if is_over? {
                    return assembler.finish();
                }
            }
        }
    }
}

/// The start of an error body; what cannot be read in time is left out, since the status says enough.
async fn error_body(response: &mut reqwest::Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes.extend_from_slice(&chunk[..chunk.len().min(ERROR_BYTES_MAX - bytes.len())]);
            if bytes.len() == ERROR_BYTES_MAX {
                break;
            }
        }
    };
    // What came in time is enough.
    let _in_time = tokio::time::timeout(Duration::from_millis(ERROR_BODY_MS), read).await;
    bytes
}

/// Reads a whole answer as JSON; text that ends too early is a truncated answer.
fn parsed(bytes: &[u8], keys: &Keys) -> Result<Value, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|e| Fault::Malformed(format!("it is not UTF-8: {e}")))?;
    Value::from_json(text).map_err(|error| {
        if error.is_eof() {
            Fault::Truncated(format!("the JSON ends too early: {error}"))
        } else {
            let clean = keys.redact(text);
            let text = clean.as_deref().unwrap_or(text);
            let start = &text[..text.floor_char_boundary(120)];
            Fault::Malformed(format!("it is not JSON: {error}; it starts with `{}`", start.escape_debug()))
        }
    })
}

/// The base address with a place appended to its own path; a query stays.
pub(crate) fn address(base: &str, place: &Place) -> Result<reqwest::Url, Fault> {
    let bad = |why: String| Fault::BadAddress(format!("`base_url` is no address: {why}"));
    let mut url = reqwest::Url::parse(base.trim()).map_err(|e| bad(e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(format!("it starts with `{}`, not with `http` or `https`", url.scheme())));
    }
    url.path_segments_mut().map_err(|()| bad("it has no path".to_owned()))?.pop_if_empty().extend(&place.segments);
    if let Some((name, value)) = place.query {
        url.query_pairs_mut().append_pair(name, value);
    }
    Ok(url)
}

/// A header that is never shown.
pub(crate) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Fault> {
    let bad = || Fault::NoKey(format!("the header `{name}` or the key in it has characters that no header may have"));
    let mut out = HeaderValue::from_str(value).map_err(|_| bad())?;
    out.set_sensitive(true);
    Ok((HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?, out))
}

/// Request id and rate-limit windows, null where the provider says nothing.
fn said_by<'a>(header: impl Fn(&str) -> Option<&'a str>, headers: &HeaderMap) -> Value {
    let id = REQUEST_IDS.iter().find_map(|name| header(name)).map_or(Value::Null, Value::str);
    let mut limits = Map::new();
    for (name, value) in headers {
        let name = name.as_str();
        let known =
            ["x-ratelimit-", "anthropic-ratelimit-", "ratelimit-"].iter().find_map(|start| name.strip_prefix(start));
        if let (Some(name), Ok(value)) = (known, value.to_str()) {
            limits.insert(name.into(), Value::str(value));
        }
    }
    limits.sort_unstable_keys();
    let limits = if limits.is_empty() { Value::Null } else { Value::map(limits) };
    Value::object([("request_id", id), ("rate_limits", limits)])
}

/// An error with all its causes on one line.
fn chain(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// How far an exchange has come, for what it costs if it ends there.
#[derive(Debug, Default)]
struct SoFar {
    sent: AtomicBool,
    usage: Mutex<Usage>,
}

impl SoFar {
    fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Acquire)
    }

    fn used(&self, usage: Usage) {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = usage;
    }

    fn usage(&self) -> Usage {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body of one piece that notes when it is asked for, which is when a connection stands and is written to.
struct Watched {
    bytes: Option<Bytes>,
    so_far: Arc<SoFar>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.so_far.sent.store(true, Ordering::Release);
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Headers with the place of a call in its trace.
pub(crate) fn traced(mut headers: HeaderMap, request: &ModelRequest) -> HeaderMap {
    for (name, value) in carried(&request.idempotency_key, request.trace.as_ref()) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.entry(name).or_insert(value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined() {
        let join = |base: &str| address(base, &Place::at("chat/completions")).map(|url| url.to_string());
        assert_eq!(join("http://h:1/v1").as_deref(), Ok("http://h:1/v1/chat/completions"));
        assert_eq!(join(" http://h:1/v1/ ").as_deref(), Ok("http://h:1/v1/chat/completions"));
        assert_eq!(join("https://h").as_deref(), Ok("https://h/chat/completions"));
        assert_eq!(join("https://h/a?api-version=2").as_deref(), Ok("https://h/a/chat/completions?api-version=2"));
        for bad in ["", "h/v1", "file:///etc/passwd", "mailto:x@y"] {
            assert!(matches!(join(bad), Err(Fault::BadAddress(_))), "{bad}");
        }
    }

    #[test]
    fn a_model_is_one_segment_whatever_it_holds() {
        let segments = ["model", "arn:aws:bedrock:eu:1:p/x y", "converse"].map(str::to_owned).to_vec();
        let url = address("https://h", &Place { segments, query: Some(("alt", "sse")) }).expect("an address");
        assert_eq!(url.as_str(), "https://h/model/arn:aws:bedrock:eu:1:p%2Fx%20y/converse?alt=sse");
    }

    #[test]
    fn json_that_ends_early_is_truncated_and_other_text_is_malformed() {
        assert!(matches!(parsed(b"{\"a\":", &Keys::default()), Err(Fault::Truncated(_))));
        assert!(matches!(parsed(b"", &Keys::default()), Err(Fault::Truncated(_))));
        assert!(matches!(parsed(b"<html>", &Keys::default()), Err(Fault::Malformed(_))));
        assert!(matches!(parsed(b"\"\xff\"", &Keys::default()), Err(Fault::Malformed(_))));
    }
}
