//! What a request is answered that is refused: problem details (RFC 9457). The inside of a fault goes to the log alone.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value as Json, json};
use windlass_core::failure::Code;
use windlass_ports::store::StoreError;
use windlass_runtime::{EngineError, SubmitError};

use crate::auth::{Refusal, Scopes};

/// A refusal.
#[derive(Clone, Debug)]
pub(crate) struct Problem(Box<Refused>);

#[derive(Clone, Debug)]
struct Refused {
    status: StatusCode,
    code: &'static str,
    detail: String,
    more: Map<String, Json>,
    challenge: Option<String>,
    retry_after_s: Option<u64>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let (detail, more) = (detail.into(), Map::new());
        Self(Box::new(Refused { status, code, detail, more, challenge: None, retry_after_s: None }))
    }

    /// A request that makes no sense.
    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "request.invalid", detail)
    }

    /// What is not there, or is not this caller's: nobody can tell which.
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "request.not_found", "there is nothing of this name for you")
    }

    pub(crate) fn with(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.0.more.insert(key.into(), value.into());
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    fn challenged(mut self, challenge: String) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    /// Who it is was not shown.
    pub(crate) fn unauthenticated(refusal: Refusal) -> Self {
        let said = refusal.said();
        let challenge = match refusal {
            Refusal::Missing => "Bearer realm=\"windlass\"".to_owned(),
            _ => format!("Bearer realm=\"windlass\", error=\"invalid_token\", error_description=\"{said}\""),
        };
        Self::new(StatusCode::UNAUTHORIZED, "auth.unauthenticated", said).challenged(challenge)
    }

    /// The same with where it says whose tokens are taken, when the answer asks for one.
    pub(crate) fn naming(mut self, metadata: &str) -> Self {
        if let Some(challenge) = self.0.challenge.as_mut() {
            challenge.push_str(&format!(", resource_metadata=\"{metadata}\""));
        }
        self
    }

    /// The token does not allow the tool.
    pub(crate) fn scope(tool: &str) -> Self {
        let scope = Scopes::needed(tool);
        let problem = Self::new(StatusCode::FORBIDDEN, "auth.scope", "the token does not allow this tool");
        // A name in a path can be anything; what cannot stand in a header is not said there.
        let is_plain = scope.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
        let named = if is_plain { format!(", scope=\"{scope}\"") } else { String::new() };
        let challenge = format!("Bearer realm=\"windlass\", error=\"insufficient_scope\"{named}");
        problem.challenged(challenge).with("scope", scope)
    }

    /// The rules do not let it happen.
    pub(crate) fn policy(rule: &str, reason: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, Code::PolicyDenied.as_str(), reason).with("rule", rule)
    }

    /// Too much at once.
    pub(crate) fn busy(status: StatusCode, detail: &str) -> Self {
        Self::new(status, "request.busy", detail).retry_after(1)
    }

    /// The store cannot be used now. What is wrong with it is logged.
    pub(crate) fn store(error: &StoreError) -> Self {
        tracing::warn!(%error, "a request was refused: the store cannot be used");
        Self::away()
    }

    /// The same when it says nothing in time.
    pub(crate) fn away() -> Self {
        let detail = "the store cannot be used now; nothing is known to have been done";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store.unavailable", detail).retry_after(1)
    }

    pub(crate) fn engine(error: &EngineError) -> Self {
        match error {
            EngineError::Store(error) => Self::store(error),
            EngineError::NotFound(_) => Self::not_found(),
            EngineError::Fold { .. } | EngineError::Stranded { .. } | EngineError::Rejected { .. } => {
                tracing::error!(%error, "a run cannot be read");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::InternalInvariant.as_str(), "the run cannot be read")
            }
        }
    }

    pub(crate) fn submit(error: &SubmitError) -> Self {
        match error {
            SubmitError::Store(error) => Self::store(error),
            SubmitError::Conflict { .. } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "request.key_reused",
                "this `Idempotency-Key` was used with other arguments",
            ),
            SubmitError::Full { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::QueueFull.as_str(), "too many of your runs wait")
                    .retry_after(5)
            }
            SubmitError::TooLarge { .. } | SubmitError::TooDeep { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::RunTooLarge.as_str(), error.to_string())
            }
            SubmitError::File(_) => Self::bad(error.to_string()),
            SubmitError::Id { .. } | SubmitError::Pool { .. } | SubmitError::NoEntry(_) => {
                tracing::error!(%error, "a call cannot become a run");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    Code::InternalInvariant.as_str(),
                    "the call cannot be made",
                )
            }
        }
    }

    /// The answer, under the id of its request.
    pub(crate) fn answer(self, request: &str) -> Response {
        let Refused { status, code, detail, more, challenge, retry_after_s } = *self.0;
        let mut body = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "code": code,
            "detail": detail,
            "request_id": request,
        });
        if let Json::Object(body) = &mut body {
            body.extend(more);
        }
        let mut response = (status, format!("{body}\n")).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(challenge) = challenge.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT) {
            // What is left of the body is not waited for.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
