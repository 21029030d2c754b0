//! Streamable HTTP: every message a POST, every answer a document or a stream of events.
//!
//! A request lives in one future: dropping it closes its stream, which is how a server learns that it was cancelled.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;
use windlass_ports::tool::Permit;

use crate::client::{self, Answer, Clients, Guarded};
use crate::mcp::exchange::{Answered, Local, Outgoing, Trouble};
use crate::mcp::protocol::{self, Incoming};
use crate::mcp::sse::{Event, Reader};

const BOTH: &str = "application/json, text/event-stream";
const EVENTS: &str = "text/event-stream";
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
/// Bytes of the body of an error.
const ERROR_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of an event beside the result that it carries.
const ENVELOPE_BYTES_MAX: u64 = 64 * 1024;
/// Characters of a session's id.
const SESSION_CHARS_MAX: usize = 1_024;
/// The pause before a new connection when the server names none, in milliseconds.
const RETRY_MS_DEFAULT: u64 = 1_000;
/// The longest pause that a server may ask for, in milliseconds.
const RETRY_MS_MAX: u64 = 60_000;
/// New connections for one answer.
const RESUMES_MAX: u32 = 20;

/// What makes up a session of the earlier era, and the revision of either.
#[derive(Clone, Debug, Default)]
struct Place {
    version: Option<HeaderValue>,
    session: Option<HeaderValue>,
}

/// The connection to one server.
#[derive(Debug)]
pub(crate) struct Http {
    clients: Arc<Clients>,
    url: Url,
    headers: HeaderMap,
    local: Arc<Local>,
    place: Mutex<Place>,
    /// The token of the server's authorization, where it asked for one.
    token: Mutex<Option<HeaderValue>>,
}

impl Http {
    pub(crate) fn new(clients: Arc<Clients>, url: Url, headers: HeaderMap, local: Arc<Local>) -> Self {
        Self { clients, url, headers, local, place: Mutex::default(), token: Mutex::default() }
    }

    /// The revision that all further messages say they are of.
    pub(crate) fn speak(&self, version: Option<&'static str>) {
        self.place().version = version.map(HeaderValue::from_static);
    }

    /// Forgets the session.
    pub(crate) fn forget(&self) {
        *self.place() = Place::default();
    }

    /// Sends this token with every message from now on.
    pub(crate) fn authorize(&self, token: Option<HeaderValue>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn request(&self, outgoing: &Outgoing) -> Answered {
        let body = outgoing.message.to_string();
        let response = self.post(body.as_bytes(), &outgoing.headers, &outgoing.permit, outgoing.repeatable).await?;
        let had_session = self.place().session.is_some();
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(response, had_session).await);
        }
        if outgoing.message.get("method").and_then(Value::as_str) == Some("initialize") {
            self.begin(&response);
        }
        match kind(&response) {
            Kind::Json => match Incoming::parse(&whole(response, outgoing.bytes_max).await?) {
                Ok(Incoming::Answer { id, answer }) if id.is_none_or(|id| id == outgoing.id) => {
                    answer.map_err(|error| Trouble::Rpc(error, Some(status.as_u16())))
                }
                Ok(_) => Err(Trouble::Malformed("it is not the answer to the request".into())),
                Err(why) => Err(Trouble::Malformed(why)),
            },
            Kind::Events => self.follow(response, outgoing).await,
            Kind::Other => Err(Trouble::Malformed(format!("it answered {status} without a document"))),
        }
    }

    /// Sends a notification or an answer.
    pub(crate) async fn tell(&self, message: &Value, headers: &HeaderMap) -> Result<(), Trouble> {
        let response = self.post(message.to_string().as_bytes(), headers, &Permit::default(), true).await?;
        if response.status().is_success() { Ok(()) } else { Err(refusal(response, false).await) }
    }

    async fn post(
        &self,
        body: &[u8],
        headers: &HeaderMap,
        permit: &Permit,
        repeatable: bool,
    ) -> Result<Response, Trouble> {
        let client = self.clients.client(repeatable).map_err(Trouble::NotSent)?;
        let request = client
            .post(self.url.clone())
            .headers(self.common())
            .headers(headers.clone())
            .header(ACCEPT, BOTH)
            .header(CONTENT_TYPE, "application/json")
            .body(reqwest::Body::wrap(Guarded::new(body, permit)));
        request.send().await.map_err(|error| sort(&error))
    }

    /// The headers of every message.
    fn common(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        let place = self.place().clone();
        for (name, value) in [(VERSION, place.version), (SESSION, place.session)] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        if let Some(token) = &*self.token.lock().unwrap_or_else(PoisonError::into_inner) {
            headers.insert(reqwest::header::AUTHORIZATION, token.clone());
        }
        headers
    }

    fn begin(&self, response: &Response) {
        let fits = |value: &&HeaderValue| {
            value.len() <= SESSION_CHARS_MAX && value.as_bytes().iter().all(|byte| matches!(byte, b'!'..=b'~'))
        };
        let mut session = response.headers().get(SESSION).filter(fits).cloned();
        if let Some(session) = &mut session {
            session.set_sensitive(true);
        }
        self.place().session = session;
    }

    /// Reads events until the answer comes; where the stream breaks off at a known place, goes on from there.
    async fn follow(&self, mut response: Response, outgoing: &Outgoing) -> Answered {
        let mut last: Option<String> = None;
        let mut pause_ms = RETRY_MS_DEFAULT;
        for _ in 0..=RESUMES_MAX {
            let bytes_max = outgoing.bytes_max.saturating_add(ENVELOPE_BYTES_MAX);
            let mut events = Events::new(response, bytes_max);
            let cut = loop {
                let event = match events.next().await {
                    Ok(Some(event)) => event,
                    Ok(None) => break "its stream ended before the answer".to_owned(),
                    Err(Trouble::Broken(why)) => break why,
                    Err(trouble) => return Err(trouble),
                };
                last = event.id.or(last);
                pause_ms = event.retry_ms.unwrap_or(pause_ms);
                if let Some(answered) = self.take(&event.data, outgoing).await {
                    return answered;
                }
            };
            let Some(id) = last.as_deref().filter(|_| self.is_legacy()) else { return Err(Trouble::Broken(cut)) };
            tokio::time::sleep(Duration::from_millis(pause_ms.min(RETRY_MS_MAX))).await;
            response = self.open(Some(id)).await.map_err(|_| Trouble::Broken(cut))?;
        }
        Err(Trouble::Broken("its stream broke off too often".into()))
    }

    /// Takes one event of a stream; the answer, if it was that.
    async fn take(&self, data: &str, outgoing: &Outgoing) -> Option<Answered> {
        if data.trim().is_empty() {
            return None;
        }
        match Incoming::parse(data) {
            Ok(Incoming::Answer { id, answer }) if id.is_none_or(|id| id == outgoing.id) => {
                Some(answer.map_err(|error| Trouble::Rpc(error, None)).and_then(|result| {
                    let fits = result.get().len() as u64 <= outgoing.bytes_max;
                    if fits { Ok(result) } else { Err(Trouble::TooLarge) }
                }))
            }
            Ok(message) => {
                self.heard(message).await;
                None
            }
            Err(why) => Some(Err(Trouble::Malformed(why))),
        }
    }

    /// Takes a message that is no answer to what is waited for.
    async fn heard(&self, message: Incoming) {
        match message {
            Incoming::Answer { id, answer } => self.local.late(id, &answer),
            Incoming::Notification { method, .. } => self.local.notified(&method),
            Incoming::Request { id, method, params } if self.is_legacy() => {
                let reply = protocol::reply(&id, self.local.answer(&method, &params));
                if let Err(trouble) = self.tell(&reply, &HeaderMap::new()).await {
                    tracing::warn!(server = self.local.name, ?trouble, "an MCP server did not take an answer");
                }
            }
            // The protocol of this revision has no requests of servers.
            Incoming::Request { method, .. } => {
                tracing::warn!(server = self.local.name, method, "an MCP server sent a request where it may not");
            }
        }
    }

    fn is_legacy(&self) -> bool {
        self.place().version.as_ref().is_some_and(|version| version != protocol::MODERN)
    }

    /// Opens the stream of what the server says on its own, or goes on with one after an event.
    async fn open(&self, last: Option<&str>) -> Result<Response, Trouble> {
        let client = self.clients.client(true).map_err(Trouble::NotSent)?;
        let mut request = client.get(self.url.clone()).headers(self.common()).header(ACCEPT, EVENTS);
        if let Some(value) = last.and_then(|id| HeaderValue::from_str(id).ok()) {
            request = request.header(LAST_EVENT, value);
        }
        let response = request.send().await.map_err(|error| sort(&error))?;
        match (response.status().is_success(), kind(&response)) {
            (true, Kind::Events) => Ok(response),
            (true, _) => Err(Trouble::Malformed("it is no stream of events".into())),
            (false, _) => Err(refusal(response, true).await),
        }
    }

    /// Listens to what the server says on its own, for as long as it lets us. Ends when the server has no such stream or
    /// the session is over.
    pub(crate) async fn listen(&self) {
        let mut last: Option<String> = None;
        let mut pause_ms = RETRY_MS_DEFAULT;
        loop {
            match self.open(last.as_deref()).await {
                Ok(response) => {
                    let mut events = Events::new(response, ENVELOPE_BYTES_MAX);
                    while let Ok(Some(event)) = events.next().await {
                        last = event.id.or(last);
                        pause_ms = event.retry_ms.unwrap_or(pause_ms);
                        if let Ok(message) = Incoming::parse(&event.data) {
                            self.heard(message).await;
                        }
                    }
                }
                Err(Trouble::NotSent(_) | Trouble::Broken(_)) => {}
                Err(_) => return,
            }
            tokio::time::sleep(Duration::from_millis(pause_ms.min(RETRY_MS_MAX))).await;
        }
    }

    /// Tells the server that the session is over.
    pub(crate) async fn end(&self) {
        if self.place().session.is_none() {
            return;
        }
        let Ok(client) = self.clients.client(true) else { return };
        // Whether it heard or not, we are gone.
        let _ = client.delete(self.url.clone()).headers(self.common()).send().await;
        self.forget();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Events,
    Other,
}

fn kind(response: &Response) -> Kind {
    let word = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match word.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Kind::Json,
        EVENTS => Kind::Events,
        _ => Kind::Other,
    }
}

fn sort(error: &reqwest::Error) -> Trouble {
    let why = client::chain(error);
    if client::is_unsent(error) { Trouble::NotSent(why) } else { Trouble::Broken(why) }
}

/// What a status other than 2xx means.
async fn refusal(response: Response, had_session: bool) -> Trouble {
    let (status, headers) = (response.status(), response.headers().clone());
    let redirect = status.is_redirection();
    let body = whole(response, ERROR_BYTES_MAX).await.unwrap_or_default();
    if matches!(status.as_u16(), 401 | 403) {
        return Trouble::Status(Box::new(Answer { status, headers, body: body.into_bytes() }));
    }
    if let Ok(Incoming::Answer { answer: Err(error), .. }) = Incoming::parse(&body) {
        if had_session && status == StatusCode::NOT_FOUND {
            return Trouble::SessionLost;
        }
        return Trouble::Rpc(error, Some(status.as_u16()));
    }
    if had_session && status == StatusCode::NOT_FOUND {
        return Trouble::SessionLost;
    }
    if redirect {
        return Trouble::Malformed(format!("it answered {status}: redirects are not followed"));
    }
    Trouble::Status(Box::new(Answer { status, headers, body: body.into_bytes() }))
}

/// The whole body as text.
async fn whole(response: Response, bytes_max: u64) -> Result<String, Trouble> {
    let bytes_max = bytes_max.saturating_add(ENVELOPE_BYTES_MAX);
    let mut bytes = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| Trouble::Broken(client::chain(&error)))?);
        if bytes.len() as u64 > bytes_max {
            return Err(Trouble::TooLarge);
        }
    }
    String::from_utf8(bytes).map_err(|_| Trouble::Malformed("it is not UTF-8".into()))
}

/// The events of a stream.
struct Events {
    response: Response,
    reader: Reader,
    ready: std::collections::VecDeque<Event>,
}

impl Events {
    fn new(response: Response, bytes_max: u64) -> Self {
        let reader = Reader::new(usize::try_from(bytes_max).unwrap_or(usize::MAX));
        Self { response, reader, ready: std::collections::VecDeque::new() }
    }

    /// The next event; none at the end of the stream.
    async fn next(&mut self) -> Result<Option<Event>, Trouble> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.ready.extend(self.reader.push(&bytes).map_err(|_| Trouble::TooLarge)?),
                Ok(None) => return Ok(None),
                Err(error) => return Err(Trouble::Broken(client::chain(&error))),
            }
        }
    }
}
