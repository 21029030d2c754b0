//! How work fails: a stable code, whether to try again, and what a person needs to know.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::value::Value;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal),+ $(,)?) => {
        /// A stable code: `family.cause`. Each has a page in `docs/errors/`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $variant),+ }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text of the code.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// One sentence that says what happened.
            #[must_use]
            pub fn summary(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii()),+ }
            }
        }
    };
}

codes! {
    /// The provider asked to slow down (HTTP 429).
    ProviderRateLimited = "provider.rate_limited",
    /// The provider is overloaded or broken (HTTP 5xx).
    ProviderUnavailable = "provider.unavailable",
    /// The provider could not be reached.
    ProviderUnreachable = "provider.unreachable",
    /// The provider did not answer in time.
    ProviderTimeout = "provider.timeout",
    /// The provider refused the credentials (HTTP 401 or 403).
    ProviderAuth = "provider.auth",
    /// The provider refused the request as malformed (HTTP 400, 404, 422).
    ProviderInvalidRequest = "provider.invalid_request",
    /// The request is longer than the model takes.
    ProviderContextLength = "provider.context_length",
    /// The provider refused for reasons of content.
    ProviderRefused = "provider.refused",
    /// The answer stopped at the maximum number of tokens.
    ProviderLength = "provider.length",
    /// The answer broke off before its end.
    ProviderTruncated = "provider.truncated",
    /// The answer was not what the output schema asks for, also after one repair.
    ProviderBadOutput = "provider.bad_output",
    /// The answer could not be read as an answer of this provider.
    ProviderMalformed = "provider.malformed",
    /// The provider or model is not configured.
    ProviderUnknown = "provider.unknown",
    /// The tool answered with an error.
    ToolFailed = "tool.failed",
    /// The tool did not answer in time.
    ToolTimeout = "tool.timeout",
    /// The tool is not allowed here.
    ToolDenied = "tool.denied",
    /// No tool of that name exists here.
    ToolUnknown = "tool.unknown",
    /// The tool is not what was accepted: its server shows another definition of it.
    ToolChanged = "tool.changed",
    /// The arguments do not fit the tool's schema.
    ToolBadArguments = "tool.bad_arguments",
    /// The tool's answer is larger than its contract allows.
    ToolOutputTooLarge = "tool.output_too_large",
    /// The tool cannot be reached.
    ToolUnreachable = "tool.unreachable",
    /// There is no room for the call, or the tool is left alone for a while: it was not sent.
    ToolOverloaded = "tool.overloaded",
    /// The call may or may not have happened, and its contract does not allow a repeat.
    ToolOutcomeUnknown = "tool.outcome_unknown",
    /// The hook or action answered with an error.
    HookFailed = "hook.failed",
    /// The hook or action did not answer in time.
    HookTimeout = "hook.timeout",
    /// The hook cannot be reached.
    HookUnreachable = "hook.unreachable",
    /// There is no room for the action, or it is left alone for a while: it was not sent.
    HookOverloaded = "hook.overloaded",
    /// The hook answered with something that is no answer of a hook.
    HookBadAnswer = "hook.bad_answer",
    /// A template is not valid.
    TemplateSyntax = "template.syntax",
    /// A template went below a value that does not exist.
    TemplateUndefined = "template.undefined",
    /// A template used a value of the wrong type.
    TemplateType = "template.type",
    /// A template ran over its bound of fuel or of output bytes.
    TemplateLimit = "template.limit",
    /// A condition is not valid.
    ConditionSyntax = "condition.syntax",
    /// A condition compared values that do not compare, or used a missing one.
    ConditionType = "condition.type",
    /// A condition ran over its bound.
    ConditionLimit = "condition.limit",
    /// No transition of the state applies.
    RunDeadEnd = "run.dead_end",
    /// A hook sent the run to a state that does not exist.
    RunUnknownState = "run.unknown_state",
    /// No row of a decision table fits its inputs.
    TableNoRow = "table.no_row",
    /// An input of a decision table is not what its column takes.
    TableBadInput = "table.bad_input",
    /// The run, or a state of it, ran out of time.
    RunTimeout = "run.timeout",
    /// The run was cancelled.
    RunCancelled = "run.cancelled",
    /// Every sample or child of an `any`, parallel or voting state failed.
    RunAllFailed = "run.all_failed",
    /// A child machine failed.
    RunChildFailed = "run.child_failed",
    /// The process that made an attempt ended before its result was recorded.
    RunAttemptLost = "run.attempt_lost",
    /// Calls of the run failed again and again: a breaker has tripped.
    RunBreaker = "run.breaker",
    /// `foreach` did not produce a list.
    RunNotAList = "run.not_a_list",
    /// A value is larger, deeper or more numerous than the engine takes.
    RunTooLarge = "run.too_large",
    /// The input does not fit the schema that the machine declares for it.
    RunBadInput = "run.bad_input",
    /// The machine's output does not fit its declared schema.
    RunBadOutput = "run.bad_output",
    /// Two items of a `foreach` have the same key.
    RunDuplicateKey = "run.duplicate_key",
    /// A ceiling of steps, calls, tokens, cost, launches or depth is reached.
    BudgetExceeded = "budget.exceeded",
    /// A policy rule forbids the call.
    PolicyDenied = "policy.denied",
    /// The approval was refused or has expired.
    ApprovalRejected = "approval.rejected",
    /// The document is not valid.
    SpecInvalid = "spec.invalid",
    /// Too many runs of the tenant wait for a worker.
    QueueFull = "queue.full",
    /// The request conflicts with what is stored.
    StoreConflict = "store.conflict",
    /// The store cannot be reached or cannot be written.
    StoreUnavailable = "store.unavailable",
    /// The store's content is damaged.
    StoreCorrupt = "store.corrupt",
    /// A fault of Windlass itself.
    InternalInvariant = "internal.invariant",
}

impl Code {
    /// The part before the dot.
    #[must_use]
    pub fn family(self) -> &'static str {
        self.as_str().split('.').next().unwrap_or_default()
    }

    /// Reads the text of a code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("unknown code `{text}`")))
    }
}

/// Whether another attempt may help. Decided by the adapter that saw the failure; acted on only in [`crate::retry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// The same call would fail again.
    Never,
    /// The fault is transient: try again after a pause.
    Backoff,
    /// The other side said when, in milliseconds from now.
    After(u64),
    /// The effect may have happened: repeat only if its contract allows it.
    Unknown,
}

/// One failure, as journaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The stable code.
    pub code: Code,
    /// Whether another attempt may help.
    pub retry: Retry,
    /// What happened, for people; bounded.
    pub message: Name,
    /// The conventional error name of the format (`RateLimitError`, `ValueError`), when the source named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<Name>,
    /// HTTP status or exit code, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i64>,
    /// More about it, bounded and redacted.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

impl Failure {
    /// A failure that no repeat would mend.
    #[must_use]
    pub fn new(code: Code, message: impl AsRef<str>) -> Self {
        Self {
            code,
            retry: Retry::Never,
            message: bounded(message.as_ref()),
            error_type: None,
            status: None,
            detail: Value::Null,
        }
    }

    /// The same with another retry class.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// The same with the conventional error name.
    #[must_use]
    pub fn error_type(self, name: impl Into<Name>) -> Self {
        Self { error_type: Some(name.into()), ..self }
    }

    /// The same with an HTTP status or exit code.
    #[must_use]
    pub fn status(self, status: i64) -> Self {
        Self { status: Some(status), ..self }
    }

    /// The same with more detail.
    #[must_use]
    pub fn detail(self, detail: Value) -> Self {
        Self { detail, ..self }
    }

    /// The same with other words.
    #[must_use]
    pub fn reworded(self, message: &str) -> Self {
        Self { message: bounded(message), ..self }
    }

    /// Whether a retrying state may try again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.retry, Retry::Backoff | Retry::After(_))
    }

    /// The names under which `on_error` finds this failure, most specific first: the source's own name, the code,
    /// conventional names, the code's family.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        let mut names: Vec<Name> = Vec::with_capacity(8);
        names.extend(self.error_type.clone());
        names.push(self.code.as_str().into());
        names.extend(conventional(self.code).iter().map(|n| Name::from(*n)));
        names.push(self.code.family().into());
        if self.is_transient() {
            names.push("RetryableError".into());
        }
        names.push("RuntimeError".into());
        names
    }

    /// The value of `context.last_error_type`: the source's own name, else the first conventional one.
    #[must_use]
    pub fn display_type(&self) -> Name {
        self.error_type
            .clone()
            .unwrap_or_else(|| conventional(self.code).first().copied().unwrap_or("RuntimeError").into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// The class names by which authors of FlatMachine documents know a failure.
fn conventional(code: Code) -> &'static [&'static str] {
    match code {
        Code::ProviderRateLimited => &["RateLimitError"],
        Code::ProviderUnavailable => &["ServerError", "InternalServerError", "ServiceUnavailableError", "APIError"],
        Code::ProviderUnreachable => &["APIConnectionError", "ConnectionError"],
        Code::ProviderTimeout | Code::ToolTimeout | Code::HookTimeout | Code::RunTimeout => &["TimeoutError"],
        Code::ProviderAuth => &["AuthenticationError", "PermissionDeniedError"],
        Code::ProviderInvalidRequest => &["BadRequestError"],
        Code::ProviderContextLength => &["ContextWindowExceededError", "BadRequestError"],
        Code::ProviderRefused => &["ContentPolicyViolationError"],
        Code::ProviderLength | Code::ProviderTruncated | Code::ProviderMalformed => &["APIError"],
        Code::ProviderBadOutput => &["OutputValidationError", "ValueError"],
        Code::ToolBadArguments
        | Code::TableBadInput
        | Code::RunNotAList
        | Code::RunDuplicateKey
        | Code::RunTooLarge
        | Code::RunBadInput
        | Code::RunBadOutput => &["ValueError"],
        Code::ToolDenied | Code::ToolChanged | Code::PolicyDenied | Code::ApprovalRejected => &["PermissionError"],
        Code::ToolUnknown | Code::RunUnknownState => &["KeyError"],
        Code::HookUnreachable | Code::ToolUnreachable | Code::HookOverloaded | Code::ToolOverloaded => {
            &["ConnectionError"]
        }
        Code::TemplateSyntax => &["TemplateSyntaxError"],
        Code::TemplateUndefined => &["UndefinedError"],
        Code::TemplateType | Code::ConditionType => &["TypeError"],
        Code::ConditionSyntax | Code::SpecInvalid => &["ValueError"],
        Code::RunCancelled => &["CancelledError"],
        Code::BudgetExceeded => &["BudgetExceededError"],
        Code::ProviderUnknown
        | Code::ToolFailed
        | Code::ToolOutputTooLarge
        | Code::ToolOutcomeUnknown
        | Code::HookFailed
        | Code::HookBadAnswer
        | Code::TemplateLimit
        | Code::ConditionLimit
        | Code::RunDeadEnd
        | Code::TableNoRow
        | Code::RunAllFailed
        | Code::RunChildFailed
        | Code::RunAttemptLost
        | Code::QueueFull
        | Code::StoreConflict
        | Code::StoreUnavailable
        | Code::StoreCorrupt
        | Code::RunBreaker
        | Code::InternalInvariant => &[],
    }
}

fn bounded(message: &str) -> Name {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.into();
    }
    let cut = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    format!("{}… ({} bytes in all)", &message[..cut], message.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
            assert!(!code.summary().is_empty());
        }
        assert_eq!(Code::parse("provider.nonsense"), None);
    }

    #[test]
    fn the_most_specific_name_comes_first() {
        let names = Failure::new(Code::ProviderRateLimited, "slow down").retry(Retry::Backoff).names();
        let at = |n: &str| names.iter().position(|x| &**x == n).expect(n);
        assert!(at("provider.rate_limited") < at("RateLimitError"));
        assert!(at("RateLimitError") < at("provider"));
        assert!(at("provider") < at("RetryableError"));
        assert!(at("RetryableError") < at("RuntimeError"));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let failure = Failure::new(Code::ToolFailed, "ä".repeat(MESSAGE_BYTES_MAX));
        assert!(failure.message.len() < MESSAGE_BYTES_MAX + 64);
        assert!(failure.message.ends_with("bytes in all)"));
    }
}
