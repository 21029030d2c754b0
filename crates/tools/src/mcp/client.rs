//! A client of one server: finds out which era it is of, keeps the session where there is one, and asks.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::trace::{TRACEPARENT, TRACESTATE};
use windlass_ports::tool::Permit;

use crate::answer;
use crate::mcp::definition::Definition;
use crate::mcp::exchange::{Answered, Local, Outgoing, Trouble};
use crate::mcp::heard::Asked;
use crate::mcp::http::Http;
use crate::mcp::listing::{Listing, PAGE_BYTES_MAX, PAGES_MAX};
use crate::mcp::negotiate::{self, Era, Verdict};
use crate::mcp::oauth::{AUTHORIZATIONS_MAX, Oauth, Person};
use crate::mcp::params;
use crate::mcp::protocol::{self, LEGACY, MODERN};
use crate::mcp::settings::ProtocolConfig;
use crate::mcp::stdio::Stdio;
use crate::mcp::told::Told;
use crate::role::Caller;

/// How long a server over stdio may take to show that it is of the modern era, in milliseconds.
const PROBE_MS: u64 = 3_000;
/// How often one call may be sent again with answers to the server's questions.
const ROUNDS_MAX: usize = 10;
/// Bytes of the answer to `server/discover` and `initialize`.
const HELLO_BYTES_MAX: u64 = 1024 * 1024;

/// A client of one server. It connects when it is first used.
#[derive(Debug)]
pub struct Client {
    local: Arc<Local>,
    wire: Wire,
    protocol: ProtocolConfig,
    ids: AtomicU64,
    session: tokio::sync::Mutex<Option<Session>>,
    listener: Mutex<Option<tokio::task::JoinHandle<()>>>,
    oauth: Option<Oauth>,
    told: Told,
}

/// The way to a server.
#[derive(Clone, Debug)]
pub(crate) enum Wire {
    /// Over HTTP.
    Http(Arc<Http>),
    /// A child process.
    Stdio(Arc<Stdio>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    era: Era,
    /// Of the process, over stdio.
    generation: u64,
}

/// What a request needs beside method and parameters.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    pub(crate) permit: Permit,
    pub(crate) bytes_max: u64,
    pub(crate) repeatable: bool,
    pub(crate) headers: HeaderMap,
    /// For which call of which run.
    pub(crate) asked: Option<Arc<Asked>>,
}

/// A request without the answer that was hoped for.
#[derive(Debug)]
pub struct McpError(pub(crate) Trouble);

impl fmt::Display for McpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Trouble::NotSent(why) => write!(f, "it cannot be reached: {why}"),
            Trouble::Broken(why) => write!(f, "the connection broke: {why}"),
            Trouble::TooLarge => f.write_str("its answer is too large"),
            Trouble::Status(answer) => match answer.status.as_u16() {
                401 | 403 => write!(f, "it answered {}: it does not accept our credentials", answer.status),
                _ => write!(f, "it answered {}: {}", answer.status, answer::quote(&answer.body)),
            },
            Trouble::Rpc(error, _) => {
                write!(f, "it answered with the error {}: {}", error.code, answer::quote(error.message.as_bytes()))
            }
            Trouble::SessionLost => f.write_str("it does not know the session"),
            Trouble::Malformed(why) => write!(f, "its answer cannot be read: {why}"),
            Trouble::TimedOut(ms) => write!(f, "it did not answer within {ms} ms"),
        }
    }
}

impl std::error::Error for McpError {}

impl McpError {
    /// The failure of a call that was made.
    pub(crate) fn failure(self, caller: &Caller, bytes_max: u64) -> Failure {
        let named = |why: &dyn fmt::Display| caller.failed(format!("`{}`: {why}", caller.name));
        match &self.0 {
            Trouble::NotSent(why) => caller.unreachable(why),
            Trouble::SessionLost => caller.unreachable(&self),
            Trouble::TimedOut(ms) => caller.timed_out(*ms),
            Trouble::TooLarge => caller.too_large(bytes_max),
            Trouble::Broken(_) => named(&self).retry(caller.in_doubt()),
            Trouble::Status(answer) => answer.failure(caller),
            // The server said itself that it did not do it, or that it could not.
            Trouble::Rpc(error, _) if matches!(error.code, -32602) => {
                Failure::new(Code::ToolBadArguments, named(&self).message)
            }
            Trouble::Rpc(..) => named(&self),
            // Something was answered, but what it was nobody knows.
            Trouble::Malformed(_) => named(&self).retry(caller.in_doubt()),
        }
    }

    /// The failure of a call that was never made, because what has to come before it failed.
    pub(crate) fn before(self, caller: &Caller) -> Failure {
        let lasting = match &self.0 {
            Trouble::Status(answer) => matches!(answer.status.as_u16(), 401 | 403 | 404),
            Trouble::Rpc(..) | Trouble::Malformed(_) | Trouble::TooLarge => true,
            Trouble::NotSent(_) | Trouble::Broken(_) | Trouble::SessionLost | Trouble::TimedOut(_) => false,
        };
        let failure = caller.unreachable(&self);
        if lasting { failure.retry(Retry::Never) } else { failure }
    }
}

impl Client {
    /// `told` are the secrets that it is sent.
    pub(crate) fn new(
        local: Arc<Local>,
        wire: Wire,
        protocol: ProtocolConfig,
        oauth: Option<Oauth>,
        told: Told,
    ) -> Self {
        Self {
            told,
            local,
            wire,
            protocol,
            ids: AtomicU64::new(0),
            session: tokio::sync::Mutex::new(None),
            listener: Mutex::new(None),
            oauth,
        }
    }

    /// Whoever can be asked for consent when the server wants some. Without a person, a server that gives tokens for
    /// consent only is refused.
    pub fn meet(&self, person: Arc<dyn Person>) {
        if let Some(oauth) = &self.oauth {
            oauth.meet(person);
        }
    }

    /// The revision of the protocol that is spoken; connects where that is not yet known.
    ///
    /// # Errors
    /// The server cannot be reached, or speaks none of ours.
    pub async fn revision(&self) -> Result<&'static str, McpError> {
        match self.session().await.map_err(McpError)?.era {
            Era::Modern => Ok(MODERN),
            Era::Legacy(version) => Ok(version),
        }
    }

    /// Every tool that the server shows.
    ///
    /// # Errors
    /// It cannot be reached, or its list cannot be read.
    pub async fn list_tools(&self) -> Result<Listing, McpError> {
        let mut listing = Listing::default();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut params = Map::new();
            if let Some(cursor) = cursor {
                params.insert("cursor".into(), cursor.into());
            }
            let asking = Asking { bytes_max: PAGE_BYTES_MAX, repeatable: true, ..Asking::default() };
            let page = self.request("tools/list", params, asking).await.map_err(McpError)?;
            cursor = listing.add(&page).map_err(|why| McpError(Trouble::Malformed(why)))?;
            if cursor.is_none() {
                self.local.heard.excluded(&listing.refused).await;
                return Ok(listing);
            }
        }
        Err(McpError(Trouble::Malformed(format!("its list of tools has more than {PAGES_MAX} pages"))))
    }

    /// Calls a tool once, without comparing its definition with anything, and gives the whole result as JSON. For programs
    /// that look at servers; machines call tools through their catalog.
    ///
    /// # Errors
    /// It was not called, or did not answer.
    pub async fn call_tool(&self, tool: &Definition, arguments: Value) -> Result<Value, McpError> {
        let asking = Asking { bytes_max: PAGE_BYTES_MAX, ..Asking::default() };
        let raw = self.call(tool, arguments, Map::new(), asking).await.map_err(McpError)?;
        serde_json::from_str(raw.get()).map_err(|error| McpError(Trouble::Malformed(error.to_string())))
    }

    /// Calls a tool. What the server asks on the way is answered as configured.
    pub(crate) async fn call(
        &self,
        tool: &Definition,
        arguments: Value,
        meta: Map<String, Value>,
        asking: Asking,
    ) -> Answered {
        let mut mirrored = HeaderMap::new();
        params::add(&mut mirrored, &tool.mirrored, &arguments).map_err(Trouble::NotSent)?;
        let mut params = Map::new();
        params.insert("name".into(), tool.name.clone().into());
        params.insert("arguments".into(), arguments);
        params.insert("_meta".into(), meta.into());
        let mut more = Map::new();
        for _ in 0..=ROUNDS_MAX {
            let mut params = params.clone();
            params.append(&mut more);
            let (permit, headers, asked) = (asking.permit.clone(), mirrored.clone(), asking.asked.clone());
            let asking = Asking { permit, headers, asked, ..asking };
            let result = self.request("tools/call", params, asking).await?;
            match questions(&result)? {
                None => return Ok(result),
                Some(asked) => more = self.answers(asked)?,
            }
        }
        Err(Trouble::Malformed(format!("it asked more than {ROUNDS_MAX} times before it answered")))
    }

    fn answers(&self, asked: InputRequired) -> Result<Map<String, Value>, Trouble> {
        let mut more = Map::new();
        if let Some(requests) = asked.input_requests {
            let mut responses = Map::new();
            for (key, request) in requests {
                let method = request.get("method").and_then(Value::as_str).unwrap_or_default();
                let params = request.get("params").unwrap_or(&Value::Null);
                let answered = self.local.answer(method, params);
                // A question that cannot be answered at all ends the call: the server gets no made-up answer.
                let answered = answered.map_err(|error| Trouble::Malformed(error.message))?;
                responses.insert(key, answered);
            }
            more.insert("inputResponses".into(), responses.into());
        }
        if let Some(state) = asked.request_state {
            more.insert("requestState".into(), state.into());
        }
        Ok(more)
    }

    /// Sends a request, in a new session where the server has forgotten the old one.
    async fn request(&self, method: &str, params: Map<String, Value>, asking: Asking) -> Answered {
        let session = self.session().await?;
        let (permit, headers, asked) = (asking.permit.clone(), asking.headers.clone(), asking.asked.clone());
        let again = Asking { permit, headers, asked, ..asking };
        match self.send(session, method, params.clone(), asking).await {
            // The server said that it did nothing with it.
            Err(Trouble::SessionLost) => {
                self.forget(session).await;
                let session = self.session().await?;
                self.send(session, method, params, again).await
            }
            Err(Trouble::Rpc(error, status)) if error.code == protocol::UNSUPPORTED_VERSION => {
                self.forget(session).await;
                Err(Trouble::Rpc(error, status))
            }
            answered => answered,
        }
    }

    async fn forget(&self, session: Session) {
        let mut slot = self.session.lock().await;
        if *slot == Some(session) {
            *slot = None;
        }
    }

    /// The session, begun where there is none.
    async fn session(&self) -> Result<Session, Trouble> {
        let mut slot = self.session.lock().await;
        let generation = match &self.wire {
            Wire::Http(_) => 0,
            Wire::Stdio(stdio) => stdio.connect().await?,
        };
        if let Some(session) = *slot
            && session.generation == generation
        {
            return Ok(session);
        }
        *slot = None;
        self.listen(false);
        let era = match self.protocol {
            ProtocolConfig::Modern => self.discover(generation).await?.unwrap_or(Era::Modern),
            ProtocolConfig::Legacy => self.initialize(generation).await?,
            ProtocolConfig::Auto => match self.discover(generation).await? {
                Some(era) => era,
                None => self.initialize(generation).await?,
            },
        };
        let session = Session { era, generation };
        *slot = Some(session);
        tracing::info!(server = self.local.name, ?era, "connected to an MCP server");
        Ok(session)
    }

    /// Asks which revisions the server speaks. None when it expects `initialize`.
    async fn discover(&self, generation: u64) -> Result<Option<Era>, Trouble> {
        let session = Session { era: Era::Modern, generation };
        let silence = matches!(self.wire, Wire::Stdio(_));
        self.speak(Some(MODERN));
        for _ in 0..2 {
            let asking = Asking { bytes_max: HELLO_BYTES_MAX, repeatable: true, ..Asking::default() };
            let asked = self.send(session, "server/discover", Map::new(), asking);
            let answered = if silence && self.protocol == ProtocolConfig::Auto {
                let probe = tokio::time::timeout(Duration::from_millis(PROBE_MS), asked).await;
                probe.unwrap_or(Err(Trouble::TimedOut(PROBE_MS)))
            } else {
                asked.await
            };
            let answered = answered.map(|raw| serde_json::from_str::<Value>(raw.get()).unwrap_or_default());
            let verdict = match answered {
                Ok(result) => negotiate::judge(Ok(&result), silence),
                Err(trouble) => negotiate::judge(Err(trouble), silence),
            };
            match verdict {
                Verdict::Modern => return Ok(Some(Era::Modern)),
                Verdict::Again => {}
                Verdict::Legacy if self.protocol == ProtocolConfig::Auto => return Ok(None),
                Verdict::Legacy => {
                    return Err(Trouble::Malformed(format!("it is no server of the revision {MODERN}")));
                }
                Verdict::Unclear(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Malformed(format!("it names the revision {MODERN} and refuses it")))
    }

    async fn initialize(&self, generation: u64) -> Result<Era, Trouble> {
        if let Wire::Http(http) = &self.wire {
            http.forget();
        }
        let version = LEGACY[0];
        let session = Session { era: Era::Legacy(version), generation };
        let mut params = Map::new();
        params.insert("protocolVersion".into(), version.into());
        params.insert("capabilities".into(), self.local.capabilities());
        params.insert("clientInfo".into(), protocol::client_info());
        let asking = Asking { bytes_max: HELLO_BYTES_MAX, repeatable: true, ..Asking::default() };
        let raw = self.send(session, "initialize", params, asking).await?;
        let result: Value = serde_json::from_str(raw.get()).unwrap_or_default();
        let version = negotiate::chosen(&result)?;
        self.speak(Some(version));
        let ready = protocol::message(None, "notifications/initialized", None);
        match &self.wire {
            Wire::Http(http) => http.tell(&ready, &HeaderMap::new()).await?,
            Wire::Stdio(stdio) => stdio.tell(&ready).await,
        }
        self.listen(true);
        Ok(Era::Legacy(version))
    }

    fn speak(&self, version: Option<&'static str>) {
        if let Wire::Http(http) = &self.wire {
            http.speak(version);
        }
    }

    /// Starts or stops listening to what a server of the earlier era says on its own.
    fn listen(&self, on: bool) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = listener.take() {
            task.abort();
        }
        if let (true, Wire::Http(http)) = (on, &self.wire) {
            let http = http.clone();
            *listener = Some(tokio::spawn(async move { http.listen().await }));
        }
    }

    async fn send(&self, session: Session, method: &str, mut params: Map<String, Value>, asking: Asking) -> Answered {
        let id = self.ids.fetch_add(1, Ordering::Relaxed) + 1;
        let mut headers = asking.headers;
        if session.era == Era::Modern {
            let meta = params.entry("_meta").or_insert_with(|| json!({}));
            if let Some(meta) = meta.as_object_mut() {
                meta.append(&mut protocol::modern_meta(&self.local.capabilities()));
            }
            headers.insert(HeaderName::from_static("mcp-method"), params::value_of(method));
            if let Some(name) = params.get("name").and_then(Value::as_str) {
                headers.insert(HeaderName::from_static("mcp-name"), params::value_of(name));
            }
        } else {
            // Headers of arguments belong to the modern era.
            headers.clear();
        }
        // What stands between this side and the server reads headers, and not `_meta`.
        for name in [TRACEPARENT, TRACESTATE] {
            if let Some(value) = params.get("_meta").and_then(|meta| meta.get(name)).and_then(Value::as_str) {
                headers.insert(HeaderName::from_static(name), params::value_of(value));
            }
        }
        let message = protocol::message(Some(id), method, Some(params.into()));
        let outgoing = Outgoing {
            id,
            message,
            headers,
            permit: asking.permit,
            bytes_max: asking.bytes_max,
            repeatable: asking.repeatable,
        };
        let out = self.local.heard.begins(id, asking.asked);
        let answered = match &self.wire {
            Wire::Http(http) => self.authorized(http, outgoing).await,
            Wire::Stdio(stdio) => stdio.request(session.generation, outgoing).await,
        };
        match &answered {
            // An answer may still come.
            Err(Trouble::Broken(_) | Trouble::TimedOut(_)) => drop(out),
            _ => out.ended(),
        }
        match answered {
            Ok(result) if result.get().len() as u64 > asking.bytes_max => Err(Trouble::TooLarge),
            answered => self.told.answered(answered),
        }
    }

    /// Sends a request, and again with a token where the server refused it for want of one. A request that is refused so
    /// was not carried out.
    async fn authorized(&self, http: &Http, outgoing: Outgoing) -> Answered {
        for _ in 0..AUTHORIZATIONS_MAX {
            let (status, headers) = match http.request(&outgoing).await {
                Err(Trouble::Status(answer)) if matches!(answer.status.as_u16(), 401 | 403) => {
                    match self.oauth.as_ref().filter(|oauth| oauth.is_possible()) {
                        Some(_) => (answer.status.as_u16(), answer.headers),
                        None => return Err(Trouble::Status(answer)),
                    }
                }
                answered => return answered,
            };
            let Some(oauth) = &self.oauth else { break };
            let token = oauth.authorize(status, &headers).await;
            let token = token.map_err(|why| Trouble::NotSent(format!("no authorization: {why}")))?;
            if let Some(token) = token.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")) {
                self.told.token(token);
            }
            http.authorize(Some(token));
        }
        http.request(&outgoing).await
    }

    /// How often the server said that its tools changed.
    pub(crate) fn changes(&self) -> u64 {
        self.local.changes()
    }

    /// Ends the session and the process, if there are any.
    pub async fn end(&self) {
        self.listen(false);
        *self.session.lock().await = None;
        match &self.wire {
            Wire::Http(http) => http.end().await,
            Wire::Stdio(stdio) => stdio.end().await,
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.listen(false);
    }
}

/// What a server wants to know before it answers.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct InputRequired {
    #[serde(default)]
    input_requests: Option<Map<String, Value>>,
    #[serde(default)]
    request_state: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    result_type: Option<String>,
}

/// The questions in a result; none when it is complete.
fn questions(result: &RawValue) -> Result<Option<InputRequired>, Trouble> {
    let bad = |error: serde_json::Error| Trouble::Malformed(error.to_string());
    let kind: Kind = serde_json::from_str(result.get()).map_err(bad)?;
    match kind.result_type.as_deref() {
        None | Some("complete") => Ok(None),
        Some("input_required") => {
            let asked: InputRequired = serde_json::from_str(result.get()).map_err(bad)?;
            if asked.input_requests.is_none() && asked.request_state.is_none() {
                return Err(Trouble::Malformed("it asks for something without saying what".into()));
            }
            Ok(Some(asked))
        }
        Some(_) => Err(Trouble::Malformed("its result is of a kind that is not known here".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_says_whether_it_is_complete() {
        let read = |text: &str| questions(&RawValue::from_string(text.into()).expect("JSON"));
        assert!(matches!(read(r#"{"content":[]}"#), Ok(None)));
        assert!(matches!(read(r#"{"resultType":"complete"}"#), Ok(None)));
        let asked = read(r#"{"resultType":"input_required","requestState":"s"}"#).unwrap().unwrap();
        assert_eq!(asked.request_state.as_deref(), Some("s"));
        for bad in [r#"{"resultType":"input_required"}"#, r#"{"resultType":"task"}"#, "3"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
