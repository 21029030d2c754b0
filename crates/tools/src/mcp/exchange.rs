//! What the two transports have in common: a request that goes out, how it can fail, and our side of what a server asks.

use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::header::HeaderMap;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use windlass_ports::tool::Permit;

use crate::answer;
use crate::client::Answer;
use crate::mcp::elicitation::{self, ElicitationConfig};
use crate::mcp::heard::Heard;
use crate::mcp::protocol::{METHOD_NOT_FOUND, RpcError};
use crate::mcp::quarantine::Quarantine;

/// A request on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: u64,
    /// The message.
    pub(crate) message: Value,
    /// Headers of this request, where the transport has some.
    pub(crate) headers: HeaderMap,
    /// Whether it may still leave.
    pub(crate) permit: Permit,
    /// Bytes of the answer.
    pub(crate) bytes_max: u64,
    /// Whether it may be sent on a connection that the other side could be about to close.
    pub(crate) repeatable: bool,
}

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Nothing left.
    NotSent(String),
    /// It may have arrived; no answer came.
    Broken(String),
    /// The answer is larger than allowed.
    TooLarge,
    /// An answer of HTTP that is no answer of the protocol.
    Status(Box<Answer>),
    /// The server answered with an error; with the status of HTTP where there is one.
    Rpc(RpcError, Option<u16>),
    /// The server does not know the session any more: it did nothing.
    SessionLost,
    /// An answer that cannot be read.
    Malformed(String),
    /// No answer in time, in milliseconds.
    TimedOut(u64),
}

/// Our side of a server: what it may ask, and what it told.
#[derive(Debug)]
pub(crate) struct Local {
    /// The server's name in the configuration, for the log.
    pub(crate) name: String,
    elicitation: ElicitationConfig,
    /// What it says that nobody waits for.
    pub(crate) heard: Heard,
    /// Grows when the server says that its tools changed.
    changes: AtomicU64,
}

impl Local {
    /// Our side of a server.
    pub(crate) fn new(name: &str, elicitation: ElicitationConfig, trail: Quarantine) -> Self {
        Self { name: name.to_owned(), elicitation, heard: Heard::new(name, trail), changes: AtomicU64::new(0) }
    }

    /// What we can do for a server.
    pub(crate) fn capabilities(&self) -> Value {
        match self.elicitation {
            ElicitationConfig::Decline => json!({}),
            ElicitationConfig::Defaults => json!({ "elicitation": { "form": {} } }),
        }
    }

    /// Answers a request of the server. Models and files are not its business.
    ///
    /// # Errors
    /// A method that is not offered.
    pub(crate) fn answer(&self, method: &str, params: &Value) -> Result<Value, RpcError> {
        match method {
            "ping" => Ok(json!({})),
            "elicitation/create" => Ok(elicitation::answer(&self.name, self.elicitation, params)),
            _ => {
                let method = answer::printable(&method.chars().take(100).collect::<String>());
                tracing::warn!(server = self.name, method, "an MCP server asked for something that is not offered");
                let message = format!("the method `{method}` is not offered");
                Err(RpcError { code: METHOD_NOT_FOUND, message, data: Value::Null })
            }
        }
    }

    /// Takes note of a notification.
    pub(crate) fn notified(&self, method: &str) {
        if method == "notifications/tools/list_changed" {
            tracing::info!(server = self.name, "an MCP server says that its tools changed");
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// How often the server said that its tools changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// An answer came that nobody waits for: too late, twice, or to something that was never asked.
    pub(crate) fn late(&self, id: Option<u64>, answer: &Result<Box<RawValue>, RpcError>) {
        self.heard.late(id, &answer.as_ref().map(|raw| raw.get()).map_err(|error| error.code));
    }
}

/// The answer of a request.
pub(crate) type Answered = Result<Box<RawValue>, Trouble>;
