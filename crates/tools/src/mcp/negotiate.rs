//! Which era a server is of, told from how it answers the first request. Pure: it sends nothing.
//!
//! A server of the modern era gives itself away by its answer to `server/discover` or by an error that only it knows.
//! Anything else comes from one that expects `initialize`.

use serde_json::Value;

use crate::mcp::exchange::Trouble;
use crate::mcp::protocol::{self, MODERN, RpcError, UNSUPPORTED_VERSION};

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// It takes requests without a session.
    Modern,
    /// It takes them after `initialize`, in this revision.
    Legacy(&'static str),
}

/// What to do after `server/discover`.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The server is modern.
    Modern,
    /// It says that it speaks our revision although it refused it: ask once more.
    Again,
    /// It expects `initialize`.
    Legacy,
    /// The answer says nothing about the era.
    Unclear(Trouble),
}

/// Judges the answer to `server/discover`. `silence` is set where no answer at all comes from a server of the earlier
/// era, as over stdio; over HTTP it is a fault.
pub(crate) fn judge(answer: Result<&Value, Trouble>, silence: bool) -> Verdict {
    match answer {
        Ok(result) => match versions(result.get("supportedVersions")) {
            Some(versions) if versions.contains(&MODERN) => Verdict::Modern,
            Some(versions) => Verdict::Unclear(no_common(&versions)),
            None => Verdict::Legacy,
        },
        Err(Trouble::Rpc(error, _)) if error.code == UNSUPPORTED_VERSION => {
            match versions(error.data.get("supported")) {
                Some(versions) if versions.contains(&MODERN) => Verdict::Again,
                Some(versions) if versions.iter().any(|version| protocol::LEGACY.contains(version)) => Verdict::Legacy,
                Some(versions) => Verdict::Unclear(no_common(&versions)),
                None => Verdict::Legacy,
            }
        }
        Err(Trouble::Rpc(error, status)) if protocol::is_modern_code(error.code) => {
            Verdict::Unclear(Trouble::Rpc(error, status))
        }
        // An error of the protocol inside a status that says more about the way than about the era.
        Err(Trouble::Rpc(error, status @ Some(401 | 403 | 429 | 500..=599))) => {
            Verdict::Unclear(Trouble::Rpc(error, status))
        }
        Err(Trouble::Rpc(..)) => Verdict::Legacy,
        Err(Trouble::Status(answer)) if matches!(answer.status.as_u16(), 400 | 404 | 405 | 406 | 415 | 422) => {
            Verdict::Legacy
        }
        Err(Trouble::SessionLost) => Verdict::Legacy,
        Err(Trouble::Malformed(_)) => Verdict::Legacy,
        Err(Trouble::TimedOut(_) | Trouble::Broken(_)) if silence => Verdict::Legacy,
        Err(trouble) => Verdict::Unclear(trouble),
    }
}

/// The revision that a server chose in its answer to `initialize`.
///
/// # Errors
/// It is none of ours.
pub(crate) fn chosen(result: &Value) -> Result<&'static str, Trouble> {
    let version = result.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
    let known = protocol::LEGACY.iter().find(|known| **known == version);
    known.copied().ok_or_else(|| no_common(&[version]))
}

fn versions(value: Option<&Value>) -> Option<Vec<&str>> {
    let versions: Vec<&str> = value?.as_array()?.iter().filter_map(Value::as_str).collect();
    (!versions.is_empty()).then_some(versions)
}

fn no_common(theirs: &[&str]) -> Trouble {
    let shown: Vec<String> = theirs.iter().take(8).map(|version| version.chars().take(40).collect()).collect();
    let message = format!("it speaks none of our revisions of the protocol, only {}", shown.join(", "));
    Trouble::Rpc(RpcError { code: UNSUPPORTED_VERSION, message, data: Value::Null }, None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rpc(code: i64, data: Value, status: Option<u16>) -> Trouble {
        Trouble::Rpc(RpcError { code, message: String::new(), data }, status)
    }

    #[test]
    fn modern_servers_are_known_by_what_only_they_say() {
        let supported = json!({ "supportedVersions": ["2026-07-28", "2025-11-25"] });
        assert!(matches!(judge(Ok(&supported), false), Verdict::Modern));
        let again = rpc(UNSUPPORTED_VERSION, json!({ "supported": ["2026-07-28"] }), Some(400));
        assert!(matches!(judge(Err(again), false), Verdict::Again));
        let future = json!({ "supportedVersions": ["2099-01-01"] });
        assert!(matches!(judge(Ok(&future), false), Verdict::Unclear(Trouble::Rpc(..))));
        let header = rpc(protocol::HEADER_MISMATCH, Value::Null, Some(400));
        assert!(matches!(judge(Err(header), true), Verdict::Unclear(_)));
    }

    #[test]
    fn everything_else_is_the_earlier_era() {
        for trouble in [
            rpc(-32601, Value::Null, None),
            rpc(-32602, Value::Null, Some(200)),
            rpc(-32000, Value::Null, Some(400)),
            rpc(UNSUPPORTED_VERSION, Value::Null, Some(400)),
            rpc(UNSUPPORTED_VERSION, json!({ "supported": ["2025-11-25"] }), Some(400)),
            Trouble::Malformed(String::new()),
        ] {
            assert!(matches!(judge(Err(trouble), false), Verdict::Legacy));
        }
        assert!(matches!(judge(Ok(&json!({})), false), Verdict::Legacy));
        assert!(matches!(judge(Err(Trouble::TimedOut(1)), true), Verdict::Legacy));
    }

    #[test]
    fn faults_of_the_way_say_nothing() {
        for trouble in [
            Trouble::TimedOut(1),
            Trouble::Broken(String::new()),
            rpc(-32603, Value::Null, Some(500)),
            Trouble::TooLarge,
        ] {
            assert!(matches!(judge(Err(trouble), false), Verdict::Unclear(_)));
        }
    }

    #[test]
    fn the_answer_to_initialize_names_a_revision_of_ours() {
        assert!(matches!(chosen(&json!({ "protocolVersion": "2025-06-18" })), Ok("2025-06-18")));
        assert!(chosen(&json!({ "protocolVersion": "1999-01-01" })).is_err());
        assert!(chosen(&json!({})).is_err());
    }
}
