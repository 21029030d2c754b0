//! Names and numbers of the protocol, and its messages as JSON.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// The revision without sessions.
pub(crate) const MODERN: &str = "2026-07-28";
/// The revisions that begin with `initialize`, newest first.
pub(crate) const LEGACY: &[&str] = &["2025-11-25", "2025-06-18", "2025-03-26"];

/// The server does not speak the revision of a request; it says which ones it speaks.
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;
/// The headers of a request do not repeat what its body says.
pub(crate) const HEADER_MISMATCH: i64 = -32020;
/// A request needs a capability that the client did not declare.
pub(crate) const MISSING_CAPABILITY: i64 = -32021;
/// There is no such method.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;

/// Under this key of `_meta` every attempt of a call carries the same text, so that a server can drop a repeat.
pub(crate) const IDEMPOTENCY_KEY: &str = "io.windlass/idempotency-key";

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// Whether an error code can only come from a server of the modern era.
pub(crate) fn is_modern_code(code: i64) -> bool {
    matches!(code, UNSUPPORTED_VERSION | HEADER_MISMATCH | MISSING_CAPABILITY)
}

/// Who we are.
pub(crate) fn client_info() -> Value {
    json!({ "name": "windlass", "version": env!("CARGO_PKG_VERSION") })
}

/// What every request of the modern era says about itself.
pub(crate) fn modern_meta(capabilities: &Value) -> Map<String, Value> {
    let mut meta = Map::new();
    meta.insert(META_VERSION.into(), MODERN.into());
    meta.insert(META_CLIENT.into(), client_info());
    meta.insert(META_CAPABILITIES.into(), capabilities.clone());
    meta
}

/// A request or, without an id, a notification.
pub(crate) fn message(id: Option<u64>, method: &str, params: Option<Value>) -> Value {
    let mut message = Map::new();
    message.insert("jsonrpc".into(), "2.0".into());
    if let Some(id) = id {
        message.insert("id".into(), id.into());
    }
    message.insert("method".into(), method.into());
    if let Some(params) = params {
        message.insert("params".into(), params);
    }
    Value::Object(message)
}

/// The answer to a request of the server.
pub(crate) fn reply(id: &Value, answer: Result<Value, RpcError>) -> Value {
    match answer {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => {
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": error.code, "message": error.message } })
        }
    }
}

/// An error as the other side put it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RpcError {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Value,
}

/// A message of the server.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// The answer to one of our requests; an error may come without an id.
    Answer { id: Option<u64>, answer: Result<Box<RawValue>, RpcError> },
    /// A request to us.
    Request { id: Value, method: String, params: Value },
    /// A notification.
    Notification { method: String },
}

#[derive(serde::Deserialize)]
struct Envelope {
    jsonrpc: Option<String>,
    #[serde(default)]
    id: Value,
    method: Option<String>,
    #[serde(default)]
    params: Value,
    result: Option<Box<RawValue>>,
    error: Option<WireError>,
}

#[derive(serde::Deserialize)]
struct WireError {
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    data: Value,
}

impl Incoming {
    /// Reads one message. Nesting is bounded by the parser; a key that comes twice is refused.
    ///
    /// # Errors
    /// Text that is no message of JSON-RPC 2.0, with the reason.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let envelope: Envelope = serde_json::from_str(text).map_err(|error| format!("it is no message: {error}"))?;
        if envelope.jsonrpc.as_deref() != Some("2.0") {
            return Err("it does not say `\"jsonrpc\": \"2.0\"`".into());
        }
        match (envelope.method, envelope.result, envelope.error) {
            (Some(method), None, None) if envelope.id.is_null() => Ok(Self::Notification { method }),
            (Some(method), None, None) => Ok(Self::Request { id: envelope.id, method, params: envelope.params }),
            (None, Some(result), None) => match envelope.id.as_u64() {
                Some(id) => Ok(Self::Answer { id: Some(id), answer: Ok(result) }),
                None => Err("it answers no request of ours".into()),
            },
            (None, None, Some(error)) => {
                let WireError { code, message, data } = error;
                Ok(Self::Answer { id: envelope.id.as_u64(), answer: Err(RpcError { code, message, data }) })
            }
            _ => Err("it is neither a request nor a notification nor an answer".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let parse = Incoming::parse;
        assert!(matches!(
            parse(r#"{"jsonrpc":"2.0","id":3,"result":{"a":1}}"#),
            Ok(Incoming::Answer { id: Some(3), answer: Ok(raw) }) if raw.get() == r#"{"a":1}"#
        ));
        assert!(matches!(
            parse(r#"{"jsonrpc":"2.0","error":{"code":-32601,"message":"no"}}"#),
            Ok(Incoming::Answer { id: None, answer: Err(RpcError { code: METHOD_NOT_FOUND, .. }) })
        ));
        assert!(matches!(
            parse(r#"{"jsonrpc":"2.0","id":"x","method":"ping"}"#),
            Ok(Incoming::Request { method, .. }) if method == "ping"
        ));
        assert!(matches!(parse(r#"{"jsonrpc":"2.0","method":"n"}"#), Ok(Incoming::Notification { .. })));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in [
            "",
            "[]",
            r#"{"id":1,"result":{}}"#,
            r#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1}}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
        ] {
            assert!(Incoming::parse(text).is_err(), "{text}");
        }
        let deep = format!(r#"{{"jsonrpc":"2.0","method":"n","params":{}1{}}}"#, "[".repeat(300), "]".repeat(300));
        assert!(Incoming::parse(&deep).is_err());
    }
}
