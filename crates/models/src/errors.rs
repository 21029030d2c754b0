//! How provider failures are classified: one table as data, `Retry-After`, and the faults of our own side.
//!
//! Owns the mapping to [`Failure`] and to what an attempt cost. Does no I/O and reads no clock.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use windlass_core::effect::Spent;
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::value::Value;

use crate::keys::Keys;

/// The longest pause a provider may ask for, in milliseconds: one hour. A longer wish is cut to this.
pub const RETRY_AFTER_MS_MAX: u64 = 3_600_000;

/// Bytes of a provider's own message that are kept.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// Headers in which providers name a request.
pub(crate) const REQUEST_IDS: &[&str] = &["x-request-id", "request-id", "x-amzn-requestid"];

/// Failures that no row of the table matched, since this process started.
static UNCLASSIFIED: AtomicU64 = AtomicU64::new(0);

/// How many provider errors matched no row of [`TABLE`] since this process started.
#[must_use]
pub fn unclassified() -> u64 {
    UNCLASSIFIED.load(Ordering::Relaxed)
}

/// Which HTTP statuses a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Any, and errors that came without one.
    Any,
    /// One of these.
    Statuses(&'static [u16]),
    /// Every status from the first to the second, both included.
    Range(u16, u16),
}

/// What the error says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Anything.
    Any,
    /// Its `type` or `code` is one of these, in any letter case.
    Named(&'static [&'static str]),
    /// Its message contains one of these, in any letter case.
    Says(&'static [&'static str]),
}

/// One row of the error table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Statuses it is for.
    pub on: On,
    /// What the error must say.
    pub sign: Sign,
    /// The failure's code.
    pub code: Code,
    /// Whether another attempt may help.
    pub transient: bool,
    /// Whether the provider may have done the work all the same.
    pub charged: bool,
}

const fn row(on: On, sign: Sign, code: Code, transient: bool, charged: bool) -> Row {
    Row { on, sign, code, transient, charged }
}

/// The error table. The first row that matches decides; an error without a row is final and counted.
pub const TABLE: &[Row] = &[
    row(
        On::Any,
        Sign::Named(&["context_length_exceeded", "model_context_window_exceeded", "request_too_large"]),
        Code::ProviderContextLength,
        false,
        false,
    ),
    row(
        On::Statuses(&[400, 413, 422]),
        Sign::Says(&[
            "maximum context length",
            "context length exceeded",
            "context window",
            "prompt is too long",
            "too many tokens",
            "input is too long",
            "exceeds the maximum number of tokens",
            "exceeds the available context size",
            "exceeds the context length",
        ]),
        Code::ProviderContextLength,
        false,
        false,
    ),
    row(On::Statuses(&[413]), Sign::Any, Code::ProviderContextLength, false, false),
    row(
        On::Any,
        Sign::Named(&[
            "content_filter",
            "content_policy_violation",
            "responsible_ai_policy_violation",
            "responsibleaipolicyviolation",
            "moderation_blocked",
        ]),
        Code::ProviderRefused,
        false,
        false,
    ),
    row(
        On::Statuses(&[400, 403, 422]),
        Sign::Says(&["content management policy", "content policy", "safety system", "flagged by moderation"]),
        Code::ProviderRefused,
        false,
        false,
    ),
    row(
        On::Any,
        Sign::Named(&["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"]),
        Code::ProviderRateLimited,
        false,
        false,
    ),
    row(On::Statuses(&[429]), Sign::Any, Code::ProviderRateLimited, true, false),
    row(
        On::Any,
        Sign::Named(&["api_key_invalid", "api_key_service_blocked", "unrecognizedclientexception"]),
        Code::ProviderAuth,
        false,
        false,
    ),
    row(On::Statuses(&[401, 402, 403, 407]), Sign::Any, Code::ProviderAuth, false, false),
    row(On::Statuses(&[408, 504, 524]), Sign::Any, Code::ProviderTimeout, true, true),
    row(On::Statuses(&[409, 425]), Sign::Any, Code::ProviderUnavailable, true, false),
    row(On::Statuses(&[424]), Sign::Any, Code::ProviderUnavailable, true, true),
    row(On::Statuses(&[501, 505]), Sign::Any, Code::ProviderInvalidRequest, false, false),
    row(On::Statuses(&[502, 520, 522]), Sign::Any, Code::ProviderUnavailable, true, true),
    row(On::Range(500, 599), Sign::Any, Code::ProviderUnavailable, true, false),
    row(
        On::Statuses(&[400, 404, 405, 406, 410, 411, 414, 415, 422]),
        Sign::Any,
        Code::ProviderInvalidRequest,
        false,
        false,
    ),
    row(
        On::Any,
        Sign::Named(&[
            "rate_limit_error",
            "rate_limit_exceeded",
            "rate_limit",
            "too_many_requests",
            "resource_exhausted",
            "throttlingexception",
            "toomanyrequestsexception",
            "servicequotaexceededexception",
        ]),
        Code::ProviderRateLimited,
        true,
        false,
    ),
    row(
        On::Any,
        Sign::Named(&["overloaded_error", "overloaded", "engine_overloaded_error", "server_overloaded"]),
        Code::ProviderUnavailable,
        true,
        false,
    ),
    row(
        On::Any,
        Sign::Named(&["timeout_error", "timeout", "deadline_exceeded", "modeltimeoutexception"]),
        Code::ProviderTimeout,
        true,
        true,
    ),
    row(
        On::Any,
        Sign::Named(&[
            "authentication_error",
            "invalid_api_key",
            "permission_error",
            "billing_error",
            "permission_denied",
            "unauthenticated",
            "accessdeniedexception",
            "expiredtokenexception",
        ]),
        Code::ProviderAuth,
        false,
        false,
    ),
    row(
        On::Any,
        Sign::Named(&[
            "server_error",
            "api_error",
            "internal_server_error",
            "internal_error",
            "internal",
            "unavailable",
            "service_unavailable",
            "internalserverexception",
            "modelerrorexception",
            "modelnotreadyexception",
            "modelstreamerrorexception",
            "serviceunavailableexception",
        ]),
        Code::ProviderUnavailable,
        true,
        true,
    ),
    row(
        On::Any,
        Sign::Named(&[
            "invalid_request_error",
            "invalid_request",
            "invalid_prompt",
            "bad_request",
            "badrequesterror",
            "not_found_error",
            "invalid_argument",
            "failed_precondition",
            "not_found",
            "validationexception",
            "resourcenotfoundexception",
        ]),
        Code::ProviderInvalidRequest,
        false,
        false,
    ),
];

impl Row {
    fn matches(&self, error: &ProviderError) -> bool {
        let status = match (self.on, error.status) {
            (On::Any, _) => true,
            (On::Statuses(list), Some(status)) => list.contains(&status),
            (On::Range(low, high), Some(status)) => (low..=high).contains(&status),
            (On::Statuses(_) | On::Range(..), None) => false,
        };
        let named = |name: &Option<String>, list: &[&str]| {
            name.as_deref().is_some_and(|n| list.iter().any(|item| item.eq_ignore_ascii_case(n)))
        };
        status
            && match self.sign {
                Sign::Any => true,
                Sign::Named(list) => named(&error.kind, list) || named(&error.code, list),
                Sign::Says(list) => {
                    let message = error.message.to_lowercase();
                    list.iter().any(|part| message.contains(part))
                }
            }
    }
}

/// An error as the provider told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderError {
    /// HTTP status; none for an error inside a stream or a 200 body.
    pub status: Option<u16>,
    /// Its `type`.
    pub kind: Option<String>,
    /// Its `code`.
    pub code: Option<String>,
    /// Its message, or the start of a body that is no error body.
    pub message: String,
    /// How long to wait in milliseconds, from the headers.
    pub retry_after_ms: Option<u64>,
    /// What the header `x-should-retry` says.
    pub should_retry: Option<bool>,
    /// The provider's id of the request.
    pub request_id: Option<String>,
}

impl ProviderError {
    /// Reads an error body: the shapes of OpenAI, Anthropic, Google, AWS and FastAPI servers; else its first bytes as
    /// text.
    #[must_use]
    pub fn from_body(status: Option<u16>, body: &str) -> Self {
        match Value::from_json(body) {
            Ok(value) => Self::from_value(status, &value),
            Err(_) => Self { status, message: body.trim().to_owned(), ..Self::default() },
        }
    }

    /// The same from a body that has been read already.
    #[must_use]
    pub fn from_value(status: Option<u16>, value: &Value) -> Self {
        let value = value.as_list().and_then(<[Value]>::first).unwrap_or(value);
        let error = value.get("error").filter(|e| e.is_truthy()).unwrap_or(value);
        let text = |key: &str| match error.get(key) {
            Some(Value::Str(text)) => Some(text.to_string()),
            Some(Value::Int(number)) => Some(number.to_string()),
            _ => None,
        };
        let message = match (error.as_str(), text("message"), value.get("detail")) {
            (Some(message), ..) => message.to_owned(),
            (None, Some(message), _) => message,
            (None, None, Some(detail)) => detail.as_str().map_or_else(|| detail.to_json(), str::to_owned),
            (None, None, None) => error.to_json(),
        };
        let kind = text("type").or_else(|| text("__type").map(|name| bare(&name))).or_else(|| text("status"));
        let details = error.get("details").and_then(Value::as_list).unwrap_or_default();
        let detail = |key: &str| details.iter().find_map(|detail| detail.get(key)).and_then(Value::as_str);
        let (retry_after_ms, reason) = (detail("retryDelay").and_then(seconds_ms), detail("reason"));
        let code = text("code");
        let status = status.filter(|s| *s >= 400).or_else(|| {
            let number = code.as_deref().and_then(|c| c.parse::<u16>().ok());
            number.filter(|n| (400..600).contains(n)).or(status)
        });
        let code = reason.map(str::to_owned).or(code);
        Self { status, kind, code, message, retry_after_ms, ..Self::default() }
    }

    /// Adds what the headers say.
    #[must_use]
    pub fn with_headers<'a>(mut self, header: impl Fn(&str) -> Option<&'a str>, now: Timestamp) -> Self {
        let millis = header("retry-after-ms").and_then(|text| text.trim().parse::<f64>().ok()).and_then(whole_ms);
        let said = millis.or_else(|| header("retry-after").and_then(|text| retry_after_ms(text, now)));
        self.retry_after_ms = said.or(self.retry_after_ms);
        self.should_retry = header("x-should-retry").and_then(|text| text.trim().parse().ok());
        self.request_id = REQUEST_IDS.iter().find_map(|name| header(name)).map(str::to_owned);
        if self.kind.is_none() {
            self.kind = header("x-amzn-errortype").map(bare);
        }
        self
    }

    /// The same without any known key. To be done before anything is cut, so that no part of a key is left over.
    #[must_use]
    pub fn redacted(mut self, keys: &Keys) -> Self {
        let texts = [&mut self.kind, &mut self.code, &mut self.request_id].into_iter().flatten();
        for text in texts.chain([&mut self.message]) {
            if let Some(clean) = keys.redact(text) {
                *text = clean;
            }
        }
        self
    }

    /// The failure, and what the attempt cost.
    #[must_use]
    pub fn classify(&self) -> (Failure, Spent) {
        let found = TABLE.iter().find(|row| row.matches(self));
        let Row { code, transient, charged, .. } = found.copied().unwrap_or_else(|| self.unknown());
        let retry = match (self.should_retry.unwrap_or(transient), self.retry_after_ms) {
            (false, _) => Retry::Never,
            (true, None) => Retry::Backoff,
            (true, Some(ms)) => Retry::After(ms),
        };
        let said = shortened(&self.message);
        let message = match self.status {
            Some(status) if said.is_empty() => format!("the provider answered with status {status}"),
            Some(status) => format!("the provider answered with status {status}: {said}"),
            None => format!("the provider answered with an error: {said}"),
        };
        let mut failure = Failure::new(code, message).retry(retry).detail(self.detail());
        failure.status = self.status.map(i64::from);
        if let Some(name) = self.conventional() {
            failure = failure.error_type(name);
        }
        (failure, if charged { Spent::Unknown } else { Spent::Nothing })
    }

    fn unknown(&self) -> Row {
        let count = UNCLASSIFIED.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::warn!(
            status = self.status,
            kind = self.kind,
            code = self.code,
            count,
            "provider error without a class"
        );
        let refused = self.status.is_some_and(|status| (300..500).contains(&status));
        let code = if refused { Code::ProviderInvalidRequest } else { Code::ProviderMalformed };
        row(On::Any, Sign::Any, code, false, !refused)
    }

    /// The class name by which SDK users know this error, where the provider or the status gives one.
    fn conventional(&self) -> Option<&str> {
        let is_class = |name: &&String| {
            name.starts_with(|c: char| c.is_ascii_uppercase())
                && name.bytes().all(|b| b.is_ascii_alphanumeric())
                && (name.ends_with("Error") || name.ends_with("Exception"))
        };
        self.kind.as_ref().filter(is_class).map(String::as_str).or(match self.status {
            Some(403) => Some("PermissionDeniedError"),
            Some(404) => Some("NotFoundError"),
            Some(409) => Some("ConflictError"),
            Some(422) => Some("UnprocessableEntityError"),
            _ => None,
        })
    }

    fn detail(&self) -> Value {
        let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, |t| Value::str(shortened(t)));
        Value::object([("type", text(&self.kind)), ("code", text(&self.code)), ("request_id", text(&self.request_id))])
    }
}

/// Reads `Retry-After`: seconds or an HTTP date, in milliseconds from `now`, cut to [`RETRY_AFTER_MS_MAX`]. None for
/// anything else.
#[must_use]
pub fn retry_after_ms(text: &str, now: Timestamp) -> Option<u64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return whole_ms(seconds * 1_000.0);
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let ms = date.as_millisecond().saturating_sub(now.as_millisecond()).max(0);
    Some(u64::try_from(ms).unwrap_or(0).min(RETRY_AFTER_MS_MAX))
}

/// A duration as Google writes it: `34.5s`.
fn seconds_ms(text: &str) -> Option<u64> {
    text.strip_suffix('s')?.parse::<f64>().ok().and_then(|seconds| whole_ms(seconds * 1_000.0))
}

/// The name of an AWS error without its namespace before it and its address after it.
fn bare(name: &str) -> String {
    let name = name.split(':').next().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default().to_owned()
}

fn whole_ms(ms: f64) -> Option<u64> {
    (ms.is_finite() && ms >= 0.0).then(|| ms.ceil().min(RETRY_AFTER_MS_MAX as f64) as u64)
}

fn shortened(text: &str) -> String {
    if text.len() <= MESSAGE_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)])
}

/// Why an attempt gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The provider answered with an error.
    Refused(Box<ProviderError>),
    /// The provider broke off an answer with an error.
    Broken(Box<ProviderError>),
    /// No connection: nothing was sent.
    Unreachable(String),
    /// The connection was lost after something was sent.
    Lost(String),
    /// The attempt's time was over.
    TimedOut {
        /// The time in milliseconds.
        after_ms: u64,
        /// Whether anything was sent.
        sent: bool,
    },
    /// Nothing came for too long in the middle of a stream.
    Stalled {
        /// The time in milliseconds.
        idle_ms: u64,
    },
    /// The answer ended before its end.
    Truncated(String),
    /// The answer is none.
    Malformed(String),
    /// The answer is larger than the bound in bytes.
    TooLarge(usize),
    /// The address is none.
    BadAddress(String),
    /// Nothing may be sent to the address.
    Forbidden(String),
    /// The request cannot be said to this provider.
    Unsayable(String),
    /// There is no usable key.
    NoKey(String),
    /// Provider, model or script is not configured.
    Unknown(String),
    /// A breaker is open.
    Shut {
        /// What is shut.
        why: String,
        /// Until then, in milliseconds from now.
        after_ms: u64,
    },
    /// The quota of a model is used up, for longer than the call may wait.
    Shed {
        /// The model.
        model: String,
        /// Until then, in milliseconds from now.
        after_ms: u64,
    },
    /// Too many calls were repeats of failed ones.
    Exhausted(String),
    /// No answer from before fits.
    NotCached,
}

impl Fault {
    /// The same without any known key in what the provider said.
    #[must_use]
    pub fn redacted(self, keys: &Keys) -> Self {
        match self {
            Self::Refused(error) => Self::Refused(Box::new(error.redacted(keys))),
            Self::Broken(error) => Self::Broken(Box::new(error.redacted(keys))),
            other => other,
        }
    }

    /// The failure, and what the attempt cost.
    #[must_use]
    pub fn failure(&self) -> (Failure, Spent) {
        let with = |code, text: String, retry, spent| (Failure::new(code, text).retry(retry), spent);
        match self {
            Self::Refused(error) => error.classify(),
            Self::Broken(error) => (error.classify().0, Spent::Unknown),
            Self::Unreachable(why) => {
                let text = format!("the provider cannot be reached: {why}");
                with(Code::ProviderUnreachable, text, Retry::Backoff, Spent::Unsent)
            }
            Self::Lost(why) => {
                let text = format!("the connection was lost before an answer came: {why}");
                with(Code::ProviderUnreachable, text, Retry::Backoff, Spent::Unknown)
            }
            Self::TimedOut { after_ms, sent } => {
                let text = format!("no whole answer within {after_ms} ms");
                let spent = if *sent { Spent::Unknown } else { Spent::Unsent };
                with(Code::ProviderTimeout, text, Retry::Backoff, spent)
            }
            Self::Stalled { idle_ms } => {
                let text = format!("the answer stood still for {idle_ms} ms");
                with(Code::ProviderTimeout, text, Retry::Backoff, Spent::Unknown)
            }
            Self::Truncated(why) => {
                let text = format!("the answer broke off: {why}");
                with(Code::ProviderTruncated, text, Retry::Backoff, Spent::Unknown)
            }
            Self::Malformed(why) => {
                let text = format!("the answer cannot be read: {why}");
                with(Code::ProviderMalformed, text, Retry::Backoff, Spent::Unknown)
            }
            Self::TooLarge(bytes) => {
                let text = format!("the answer has more than {bytes} bytes");
                with(Code::ProviderMalformed, text, Retry::Never, Spent::Unknown)
            }
            Self::BadAddress(why) => with(Code::ProviderInvalidRequest, why.clone(), Retry::Never, Spent::Unsent),
            Self::Unsayable(why) => with(Code::ProviderInvalidRequest, why.clone(), Retry::Never, Spent::Unsent),
            Self::Forbidden(why) => {
                let failure = Failure::new(Code::PolicyDenied, why.clone()).retry(Retry::Never);
                (failure.detail(Value::object([("rule", Value::str("outbound"))])), Spent::Unsent)
            }
            Self::NoKey(why) => with(Code::ProviderAuth, why.clone(), Retry::Never, Spent::Unsent),
            Self::Unknown(why) => with(Code::ProviderUnknown, why.clone(), Retry::Never, Spent::Unsent),
            Self::Shut { why, after_ms } => {
                with(Code::ProviderUnavailable, why.clone(), Retry::After(*after_ms), Spent::Unsent)
            }
            Self::Shed { model, after_ms } => {
                let text = format!("the quota of `{model}` is used up for {after_ms} ms more");
                with(Code::ProviderRateLimited, text, Retry::After(*after_ms), Spent::Unsent)
            }
            Self::Exhausted(why) => with(Code::ProviderUnavailable, why.clone(), Retry::Never, Spent::Unsent),
            Self::NotCached => {
                let text = "nothing was answered before to the same request".to_owned();
                with(Code::ProviderUnavailable, text, Retry::Never, Spent::Unsent)
            }
        }
    }
}

#[cfg(test)]
mod tests;
