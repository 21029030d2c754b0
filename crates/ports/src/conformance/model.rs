//! What every model adapter must do: fill every field or say null, never take half an answer for a whole one, end in
//! time, leave nothing behind, and say truthfully what an attempt may have cost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use windlass_core::effect::{Said, Spent};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::machine::{ModelSettings, Priority, ToolDefinition};
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, Message, Reply, Usage};
use windlass_core::value::Value;

use crate::BoxFuture;
use crate::model::{Model, ModelResult};

/// What the provider of a model under test does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers [`TEXT`] with [`USAGE`], and stops.
    Says,
    /// Calls the tool [`TOOL`] twice, with the ids `one` and `two` and the arguments `{"n":1}` and `{"n":2}`; no text.
    CallsTools,
    /// Calls the tool [`TOOL`] with [`BROKEN_ARGUMENTS`].
    BreaksArguments,
    /// Answers [`TEXT`] without any usage.
    CountsNothing,
    /// Answers [`TEXT`], cut off at the maximum number of tokens.
    RunsOut,
    /// Answers [`TEXT`], stopped by its filter.
    Filters,
    /// Refuses with status 429 and `Retry-After: 7`.
    Limits,
    /// Fails with status 500.
    Fails,
    /// Refuses the key with status 401.
    Locks,
    /// Refuses the request with status 400.
    Refuses,
    /// Refuses the request as too long.
    FindsTooLong,
    /// Breaks off in the middle of an answer.
    BreaksOff,
    /// Sends what is no answer.
    Babbles,
    /// Takes the request and never answers.
    Hangs,
    /// Cannot be reached.
    Absent,
}

/// The text of an answer.
pub const TEXT: &str = "It holds: 5 \u{2212} 2 = 3.\n";
/// The tool that a model calls.
pub const TOOL: &str = "hoist";
/// Arguments that are no JSON.
pub const BROKEN_ARGUMENTS: &str = "{\"n\": 1,";
/// The tokens of an answer, as most providers can tell them.
pub const USAGE: Usage =
    Usage { input: Some(120), cache_read: Some(80), cache_write: None, output: Some(30), reasoning: None };
/// Time that the suite gives a call that never answers, in milliseconds.
pub const TIMEOUT_MS: u64 = 300;
/// Time beyond a call's own within which it must have ended, in milliseconds; generous, for loaded hosts.
const SLACK_MS: u64 = 10_000;

/// An adapter under test together with its provider.
pub trait Subject: Send + Sync {
    /// The adapter, and the settings that reach a provider that behaves so. None where it cannot behave so.
    fn model(&self, behaviour: Behaviour) -> Option<(Arc<dyn Model>, ModelSettings)>;

    /// The tokens of an answer, as far as this provider can tell them. Their sum is that of [`USAGE`].
    fn usage(&self) -> Usage {
        USAGE
    }

    /// Ends when a request has arrived at a provider that [`Behaviour::Hangs`].
    fn arrived(&self) -> BoxFuture<'_, ()>;

    /// Ends when nothing of that request is left: the provider sees nobody wait.
    fn quiet(&self) -> BoxFuture<'_, ()>;
}

/// Runs every check of this suite, each on a subject of its own, as a whole answer and as a stream.
pub async fn exercise<S: Subject>(mut make: impl FnMut() -> S) {
    for stream in [false, true] {
        says_what_the_provider_said(&make(), stream).await;
        keeps_tool_calls(&make(), stream).await;
        keeps_broken_arguments(&make(), stream).await;
        does_not_guess_usage(&make(), stream).await;
        tells_why_it_stopped(&make(), stream).await;
        classifies_refusals(&make(), stream).await;
        half_an_answer_is_a_failure(&make(), stream).await;
        babble_is_a_failure(&make(), stream).await;
        ends_in_time(&make(), stream).await;
        tells_not_sent_from_unknown(&make(), stream).await;
        leaves_nothing_when_dropped(&make(), stream).await;
    }
}

/// Text, finish, tokens, cost and provider data arrive; what costs is what is charged.
pub async fn says_what_the_provider_said(subject: &impl Subject, stream: bool) {
    let Some((model, settings)) = subject.model(Behaviour::Says) else { return };
    let result = model.call(request(&settings, stream, SLACK_MS)).await;
    let reply = replied(&result);
    assert_eq!(&*reply.content, TEXT, "the text is not touched");
    assert!(reply.has_content);
    assert_eq!(reply.finish, Finish::Stop);
    assert_eq!(known(reply.usage), known(subject.usage()));
    assert_eq!(reply.tool_calls, vec![]);
    for key in ["request_id", "response_id", "model", "finish_reason", "rate_limits"] {
        assert!(reply.provider_data.get(key).is_some(), "`provider_data.{key}` is a value or null");
    }
    let priced = model.quote(&settings);
    assert_eq!(reply.cost_micros.is_some(), priced.is_some(), "what has a price has a cost");
    assert_eq!(reply.prices, priced.map(|quote| quote.version), "the version of the prices is told");
    let tokens = USAGE.total().unwrap_or_default();
    assert_eq!(result.spent, Spent::Known { tokens, cost_micros: reply.cost_micros.unwrap_or(0) });
}

/// Tool calls arrive in order, with their ids and arguments.
pub async fn keeps_tool_calls(subject: &impl Subject, stream: bool) {
    let Some((model, settings)) = subject.model(Behaviour::CallsTools) else { return };
    let result = model.call(request(&settings, stream, SLACK_MS)).await;
    let reply = replied(&result);
    let calls: Vec<(&str, &str, String)> =
        reply.tool_calls.iter().map(|call| (&*call.id, &*call.name, call.arguments.to_json())).collect();
    assert_eq!(calls, [("one", TOOL, r#"{"n":1}"#.to_owned()), ("two", TOOL, r#"{"n":2}"#.to_owned())]);
    assert_eq!(reply.finish, Finish::ToolUse);
    assert_eq!((&*reply.content, reply.has_content), ("", false), "no content is no text");
}

/// Arguments that are no JSON are kept as text, for the model to be told, and the answer counts.
pub async fn keeps_broken_arguments(subject: &impl Subject, stream: bool) {
    let Some((model, settings)) = subject.model(Behaviour::BreaksArguments) else { return };
    let result = model.call(request(&settings, stream, SLACK_MS)).await;
    let arguments: Vec<&Value> = replied(&result).tool_calls.iter().map(|call| &call.arguments).collect();
    assert_eq!(arguments, [&Value::str(BROKEN_ARGUMENTS)]);
}

/// Tokens that nobody counted are unknown, and so is the charge.
pub async fn does_not_guess_usage(subject: &impl Subject, stream: bool) {
    let Some((model, settings)) = subject.model(Behaviour::CountsNothing) else { return };
    let result = model.call(request(&settings, stream, SLACK_MS)).await;
    let reply = replied(&result);
    assert_eq!((reply.usage, reply.cost_micros), (Usage::default(), None));
    assert_eq!(result.spent, Spent::Unknown);
}

/// The maximum of tokens and the filter are told apart from a normal end.
pub async fn tells_why_it_stopped(subject: &impl Subject, stream: bool) {
    for (behaviour, finish) in [(Behaviour::RunsOut, Finish::Length), (Behaviour::Filters, Finish::ContentFilter)] {
        let Some((model, settings)) = subject.model(behaviour) else { continue };
        let result = model.call(request(&settings, stream, SLACK_MS)).await;
        assert_eq!(replied(&result).finish, finish);
    }
}

/// Refusals get their code and retry class, and cost nothing.
pub async fn classifies_refusals(subject: &impl Subject, stream: bool) {
    let cases = [
        (Behaviour::Limits, Code::ProviderRateLimited, Retry::After(7_000), Some(429)),
        (Behaviour::Fails, Code::ProviderUnavailable, Retry::Backoff, Some(500)),
        (Behaviour::Locks, Code::ProviderAuth, Retry::Never, Some(401)),
        (Behaviour::Refuses, Code::ProviderInvalidRequest, Retry::Never, Some(400)),
        (Behaviour::FindsTooLong, Code::ProviderContextLength, Retry::Never, Some(400)),
    ];
    for (behaviour, code, retry, status) in cases {
        let Some((model, settings)) = subject.model(behaviour) else { continue };
        let result = model.call(request(&settings, stream, SLACK_MS)).await;
        let failure = failed(&result);
        assert_eq!((failure.code, failure.retry, failure.status), (code, retry, status), "{behaviour:?}: {failure}");
        assert_eq!(result.spent, Spent::Nothing, "{behaviour:?}");
    }
}

/// Whether nobody knows what an attempt cost, but for what was said before it broke.
fn may_have_cost(spent: Spent) -> bool {
    let at_least = |said| matches!(said, Said::AtLeast(_));
    match spent {
        Spent::Unknown => true,
        Spent::Metered { tokens, cost_micros } => at_least(tokens) && at_least(cost_micros),
        Spent::Known { .. } | Spent::Nothing | Spent::Unsent => false,
    }
}

/// An answer without its end is a failure, and may have been charged.
pub async fn half_an_answer_is_a_failure(subject: &impl Subject, stream: bool) {
    let Some((model, settings)) = subject.model(Behaviour::BreaksOff) else { return };
    let result = model.call(request(&settings, stream, SLACK_MS)).await;
    assert_eq!(failed(&result).code, Code::ProviderTruncated);
    assert!(may_have_cost(result.spent), "{:?}", result.spent);
}

/// What cannot be read is a failure, and may have been charged.
pub async fn babble_is_a_failure(subject: &impl Subject, stream: bool) {
    let Some((model, settings)) = subject.model(Behaviour::Babbles) else { return };
    let result = model.call(request(&settings, stream, SLACK_MS)).await;
    assert_eq!(failed(&result).code, Code::ProviderMalformed);
    assert!(may_have_cost(result.spent), "{:?}", result.spent);
}

/// A call that is never answered ends in its own time, and may have been charged.
pub async fn ends_in_time(subject: &impl Subject, stream: bool) {
    let Some((model, settings)) = subject.model(Behaviour::Hangs) else { return };
    let start = Instant::now();
    let result = model.call(request(&settings, stream, TIMEOUT_MS)).await;
    assert!(start.elapsed() < Duration::from_millis(TIMEOUT_MS + SLACK_MS), "the call ends in its time");
    assert_eq!(failed(&result).code, Code::ProviderTimeout);
    assert!(may_have_cost(result.spent), "{:?}", result.spent);
    subject.quiet().await;
}

/// A provider that cannot be reached was sent nothing.
pub async fn tells_not_sent_from_unknown(subject: &impl Subject, stream: bool) {
    let Some((model, settings)) = subject.model(Behaviour::Absent) else { return };
    let result = model.call(request(&settings, stream, SLACK_MS)).await;
    let failure = failed(&result);
    assert_eq!((failure.code, failure.retry), (Code::ProviderUnreachable, Retry::Backoff), "{failure}");
    assert_eq!(result.spent, Spent::Unsent);
}

/// A call that is dropped leaves nobody waiting at the provider.
pub async fn leaves_nothing_when_dropped(subject: &impl Subject, stream: bool) {
    let Some((model, settings)) = subject.model(Behaviour::Hangs) else { return };
    let call = model.call(request(&settings, stream, SLACK_MS));
    match select(call, subject.arrived()).await {
        Either::Left((result, _)) => panic!("a provider that hangs does not answer: {result:?}"),
        Either::Right(((), call)) => drop(call),
    }
    subject.quiet().await;
}

/// The question `q` to the model `m` of a provider at an address, and nothing else.
#[must_use]
pub fn question(provider: &str, base_url: &str) -> ModelRequest {
    ModelRequest {
        agent: "writer".into(),
        provider: provider.into(),
        model: "m".into(),
        base_url: Some(base_url.into()),
        key: None,
        messages: vec![Message::User { content: "q".into() }],
        files: vec![],
        tools: vec![],
        output_schema: None,
        max_tokens: Some(100),
        params: Value::Null,
        stream: false,
        timeout_ms: 10_000,
        idempotency_key: "run/1".into(),
        tenant: "default".into(),
        priority: Priority::Normal,
        trace: None,
        repeat: false,
        denied: Vec::new(),
        link: None,
    }
}

/// A conversation with every kind of message in it, and a tool.
#[must_use]
pub fn request(settings: &ModelSettings, stream: bool, timeout_ms: u64) -> ModelRequest {
    ModelRequest {
        agent: "rigger".into(),
        provider: settings.provider.clone(),
        model: settings.model.clone(),
        base_url: settings.base_url.clone(),
        key: settings.key.clone(),
        messages: vec![
            Message::System { content: "You hoist loads.".into() },
            Message::User { content: "How much is 5 \u{2212} 2?".into() },
        ],
        files: vec![],
        tools: vec![ToolDefinition {
            name: TOOL.into(),
            description: "Hoists n loads.".into(),
            parameters: Value::object([("type", Value::str("object"))]),
        }],
        output_schema: None,
        max_tokens: settings.max_tokens,
        params: settings.params.clone(),
        stream,
        timeout_ms,
        idempotency_key: String::new(),
        tenant: "default".into(),
        priority: Priority::Normal,
        trace: None,
        repeat: false,
        denied: Vec::new(),
        link: None,
    }
}

/// Zero and unknown are one for counts that not every provider tells.
fn known(usage: Usage) -> Usage {
    let some = |count: Option<u64>| Some(count.unwrap_or(0));
    Usage { cache_write: some(usage.cache_write), reasoning: some(usage.reasoning), ..usage }
}

fn replied(result: &ModelResult) -> &Reply {
    result.outcome.as_ref().unwrap_or_else(|failure| panic!("an answer was expected, not {failure:?}"))
}

fn failed(result: &ModelResult) -> &Failure {
    result.outcome.as_ref().err().unwrap_or_else(|| panic!("a failure was expected, not {result:?}"))
}
