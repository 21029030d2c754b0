//! The file format of scripts for the scripted provider: YAML or JSON, closed, checked as a whole when it is read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;
use windlass_core::ids::Name;
use windlass_core::transcript::{Finish, Usage};
use windlass_core::value::Value;

use crate::prices::Rates;

/// Bytes of a script that are read.
pub const SCRIPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a script cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", at(*.line, *.column))]
pub struct ScriptError {
    /// Line, from 1; 0 when unknown.
    pub line: u64,
    /// Column, from 1; 0 when unknown.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

fn at(line: u64, column: u64) -> String {
    if line == 0 { String::new() } else { format!("line {line}, column {column}: ") }
}

/// A script: rules in order, and what to answer when none applies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Prices by model name, `*` for every other model, in micro-USD per million tokens.
    #[serde(default)]
    pub prices: BTreeMap<Name, Rates>,
    /// The first rule that applies answers.
    #[serde(default)]
    pub rules: Vec<Spanned<Rule>>,
    /// The answer when no rule applies; without one the call fails and says so.
    #[serde(default)]
    pub default: Option<Spanned<Response>>,
}

/// One rule: its conditions must all hold.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// The agent's name.
    pub agent: Option<Name>,
    /// The model's name.
    pub model: Option<Name>,
    /// Which turn of its conversation the request asks for: one more than the assistant messages in it. The same after
    /// a restart, so it is to be preferred over counting.
    pub turn: Option<u64>,
    /// Texts that must all occur.
    #[serde(rename = "match")]
    pub contains: Texts,
    /// Texts of which none must occur.
    pub not: Texts,
    /// A regular expression that must match.
    pub regex: Option<Pattern>,
    /// Where texts are looked for.
    #[serde(rename = "in")]
    pub place: Place,
    /// Whether the request offers tools.
    pub has_tools: Option<bool>,
    /// Whether the request asks for a stream.
    pub stream: Option<bool>,
    /// Which request of the script this is, from 1. Counts within one process.
    pub call: Option<u64>,
    /// Which request of its agent this is, from 1. Counts within one process.
    pub agent_call: Option<u64>,
    /// How often the rule applies at most. Counts within one process.
    pub times: Option<u64>,
    /// What picks an entry of `replies`.
    pub by: By,
    /// The answer.
    pub reply: Option<Response>,
    /// Answers, one after the other; the last one repeats.
    pub replies: Vec<Response>,
}

/// What picks an entry of `replies`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// How often the rule applied before, in this process.
    #[default]
    Hit,
    /// The turn of the conversation: the same after a restart.
    Turn,
}

/// Which messages are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// All.
    #[default]
    All,
    /// System messages.
    System,
    /// User messages.
    User,
    /// Answers of tools.
    Tool,
    /// The last message.
    Last,
}

/// One answer, or one failure.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Response {
    /// Text.
    pub content: Option<Name>,
    /// A value, answered as compact JSON text.
    pub json: Option<Value>,
    /// Answer with the text of the last message.
    pub echo: bool,
    /// Answer with these keys of the request as an OpenAI-compatible server would see it, as JSON text; all when empty.
    pub echo_request: Option<Vec<Name>>,
    /// Do what everything that was read says, and try every tool with every secret that was seen: a model as an attacker
    /// wants it.
    pub obey: bool,
    /// Tools to ask for.
    pub tool_calls: Vec<ToolCall>,
    /// Why it stops; `stop`, or `tool_use` with tool calls, when absent.
    pub finish: Option<Finish>,
    /// Tokens: what is named is known, the rest is not. Without it, four characters count as a token.
    pub usage: Option<Tokens>,
    /// No usage at all.
    pub no_usage: bool,
    /// The cost in micro-USD, whatever the prices say.
    pub cost_micros: Option<u64>,
    /// Milliseconds before the answer, or before the failure.
    pub delay_ms: u64,
    /// Fail with this HTTP status.
    pub status: Option<u16>,
    /// The `Retry-After` header of the failure: seconds or an HTTP date.
    pub retry_after: Option<Header>,
    /// The body of the failure.
    pub error: ErrorBody,
    /// Fail in another way.
    pub fault: Option<FaultKind>,
    /// Where in the bytes of the stream `cut` and `stalled` happen; in the middle when absent.
    pub after_bytes: Option<usize>,
}

/// Tokens of an answer; what is not named is not known.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tokens {
    /// Input tokens that no cache served.
    pub input: Option<u64>,
    /// Input tokens read from a cache.
    pub cache_read: Option<u64>,
    /// Input tokens written to a cache.
    pub cache_write: Option<u64>,
    /// Output tokens, reasoning included.
    pub output: Option<u64>,
    /// Output tokens spent on reasoning.
    pub reasoning: Option<u64>,
}

impl From<Tokens> for Usage {
    fn from(tokens: Tokens) -> Self {
        let Tokens { input, cache_read, cache_write, output, reasoning } = tokens;
        Self { input, cache_read, cache_write, output, reasoning }
    }
}

/// A tool call of an answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// Its id; derived from turn and place when absent.
    #[serde(default)]
    pub id: Option<Name>,
    /// The tool.
    pub name: Name,
    /// Its arguments: a mapping, or the text that the model wrote, malformed or not.
    #[serde(default)]
    pub arguments: Value,
}

/// The body of a failure.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorBody {
    /// Its `type`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its `code`.
    pub code: Option<String>,
    /// Its message.
    pub message: Option<String>,
}

/// Ways to fail that are no HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// No answer until the attempt's time is over.
    Timeout,
    /// Nobody listens.
    ConnectionRefused,
    /// The connection is lost after the request was sent.
    ConnectionLost,
    /// The request is longer than the model takes.
    ContextLength,
    /// The provider's filter refuses the request.
    ContentFilter,
    /// The stream ends after `after_bytes`.
    Cut,
    /// The stream stands still after `after_bytes` until the attempt's time is over.
    Stalled,
    /// A chunk of the stream is no JSON.
    Malformed,
    /// The stream ends without its end marker.
    NoEnd,
    /// A chunk of the stream is no UTF-8.
    InvalidUtf8,
}

impl FaultKind {
    /// Whether an answer begins before it.
    #[must_use]
    pub fn is_mid_answer(self) -> bool {
        match self {
            Self::Cut | Self::Stalled | Self::Malformed | Self::NoEnd | Self::InvalidUtf8 => true,
            Self::Timeout
            | Self::ConnectionRefused
            | Self::ConnectionLost
            | Self::ContextLength
            | Self::ContentFilter => false,
        }
    }
}

/// One text or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<Name>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let item = |value: &Value| value.as_str().map(Name::from);
        let value = Value::deserialize(deserializer)?;
        let texts = value.as_list().map_or_else(|| item(&value).map(|t| vec![t]), |l| l.iter().map(item).collect());
        texts.map(Self).ok_or_else(|| serde::de::Error::custom("a text or a list of texts is needed here"))
    }
}

/// A header's value: text or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header(pub String);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Str(text) => Ok(Self(text.to_string())),
            number @ (Value::Int(_) | Value::Float(_)) => Ok(Self(number.to_json())),
            _ => Err(serde::de::Error::custom("a text or a number is needed here")),
        }
    }
}

/// A regular expression.
#[derive(Clone, Debug)]
pub struct Pattern(pub regex::Regex);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        regex::Regex::new(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// Text that is no script, with line and column.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        if text.len() > SCRIPT_BYTES_MAX {
            let message = format!("it has more than {SCRIPT_BYTES_MAX} bytes");
            return Err(ScriptError { line: 0, column: 0, message });
        }
        let script: Self = serde_saphyr::from_str(text).map_err(|error| {
            let (line, column) = error.location().map_or((0, 0), |p| (p.line(), p.column()));
            ScriptError { line, column, message: error.without_snippet().to_string() }
        })?;
        for rule in &script.rules {
            rule.value.check().map_err(|message| placed(rule, message))?;
        }
        if let Some(response) = &script.default {
            response.value.check().map_err(|message| placed(response, message))?;
        }
        Ok(script)
    }

    /// Whether an answer may depend on what was asked before.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.rules.iter().map(|rule| &rule.value).any(|rule| {
            let sequence = rule.replies.len() > 1 && rule.by == By::Hit;
            rule.call.is_some() || rule.agent_call.is_some() || rule.times.is_some() || sequence
        })
    }

    /// The prices of a model.
    #[must_use]
    pub fn rates(&self, model: &str) -> Option<Rates> {
        self.prices.get(model).or_else(|| self.prices.get("*")).copied()
    }
}

fn placed<T>(spanned: &Spanned<T>, message: String) -> ScriptError {
    ScriptError { line: spanned.defined.line(), column: spanned.defined.column(), message }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        match (&self.reply, self.replies.is_empty()) {
            (None, true) => return Err("a rule needs `reply` or `replies`".to_owned()),
            (Some(_), false) => return Err("a rule has either `reply` or `replies`".to_owned()),
            (Some(_), true) | (None, false) => {}
        }
        let counts = [("turn", self.turn), ("call", self.call), ("agent_call", self.agent_call), ("times", self.times)];
        if let Some((name, _)) = counts.iter().find(|(_, number)| *number == Some(0)) {
            return Err(format!("`{name}` counts from 1"));
        }
        self.responses().iter().try_for_each(Response::check)
    }

    /// Its answers in order.
    #[must_use]
    pub fn responses(&self) -> &[Response] {
        self.reply.as_ref().map_or(&self.replies, std::slice::from_ref)
    }
}

impl Response {
    fn check(&self) -> Result<(), String> {
        let texts = [self.content.is_some(), self.json.is_some(), self.echo, self.echo_request.is_some(), self.obey];
        if texts.iter().filter(|given| **given).count() > 1 {
            return Err("only one of `content`, `json`, `echo`, `echo_request` and `obey` can be the text".to_owned());
        }
        if self.obey && !self.tool_calls.is_empty() {
            return Err("`obey` finds its `tool_calls` by itself".to_owned());
        }
        let answers = texts.contains(&true) || !self.tool_calls.is_empty();
        let mid_answer = self.fault.is_some_and(FaultKind::is_mid_answer);
        let fails = self.status.is_some() || self.fault.is_some();
        if self.status.is_some() && self.fault.is_some() {
            return Err("only one of `status` and `fault` can be the failure".to_owned());
        }
        if answers && fails && !mid_answer {
            return Err("an answer together with a failure before it makes no sense".to_owned());
        }
        if self.status.is_some_and(|status| !(300..600).contains(&status)) {
            return Err("`status` is for failures: 300 to 599".to_owned());
        }
        let described = self.error.kind.is_some() || self.error.code.is_some() || self.error.message.is_some();
        if self.status.is_none() && (self.retry_after.is_some() || described) {
            return Err("`retry_after` and `error` need a `status`".to_owned());
        }
        let placed = matches!(self.fault, Some(FaultKind::Cut | FaultKind::Stalled));
        if self.after_bytes.is_some() && !placed {
            return Err("`after_bytes` needs `fault: cut` or `fault: stalled`".to_owned());
        }
        if self.usage.is_some() && self.no_usage {
            return Err("only one of `usage` and `no_usage` can hold".to_owned());
        }
        if !answers && !fails && self.finish.is_none() {
            return Err("an answer needs `content`, `json`, `echo`, `echo_request`, `obey`, `tool_calls` or `finish`"
                .to_owned());
        }
        Ok(())
    }
}
