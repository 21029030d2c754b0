//! What the mappings of all providers share: the answer they read, the request they write, and checks on both.
//!
//! Pure: [`crate::sender`] does the I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use windlass_core::file::File;
use windlass_core::ids::Name;
use windlass_core::json;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, Message, ToolRequest, Usage};
use windlass_core::value::{Map, Value};

use crate::errors::{Fault, ProviderError};
use crate::frames::Event;

/// Keys of a model profile that are settings of the client, not of the request: retries and times are the engine's.
const CLIENT_KEYS: &[&str] = &["max_retries", "timeout", "timeout_seconds", "script"];

/// How a provider is asked for an answer that fits a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StructuredOutput {
    /// The schema is sent, where the provider can take it.
    Schema,
    /// Only that JSON is wanted is sent, and nothing beside tools, which many servers refuse together with it.
    #[default]
    Object,
    /// Nothing is sent.
    Off,
}

/// A provider's answer, before prices.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// Text; empty when there was none.
    pub(crate) content: String,
    /// Whether there was a text at all.
    pub(crate) has_content: bool,
    /// Tools asked for.
    pub(crate) tool_calls: Vec<ToolRequest>,
    /// Why it stopped.
    pub(crate) finish: Finish,
    /// The same in the provider's word.
    pub(crate) finish_word: Option<Name>,
    /// Tokens.
    pub(crate) usage: Usage,
    /// Parts to be sent back to this provider only.
    pub(crate) attachments: Value,
    /// The provider's id of the answer.
    pub(crate) id: Option<Name>,
    /// The model that answered.
    pub(crate) model: Option<Name>,
    /// The service tier by which it is billed, in the provider's word; none where it does not say.
    pub(crate) service_tier: Option<Name>,
}

/// Where below the base address a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Path segments, not yet encoded.
    pub(crate) segments: Vec<String>,
    /// A pair of the query.
    pub(crate) query: Option<(&'static str, &'static str)>,
}

impl Place {
    /// A path as it is written.
    pub(crate) fn at(path: &str) -> Self {
        Self { segments: path.split('/').map(str::to_owned).collect(), query: None }
    }
}

/// One wire format.
pub(crate) trait Wire: Send + Sync + fmt::Debug {
    /// Appended to the base address.
    fn place(&self, request: &ModelRequest) -> Place;

    /// How output schemas are sent to a server of this format that nothing is known about.
    fn structured_output(&self) -> StructuredOutput;

    /// Headers that carry the key, and fixed ones: name to value.
    fn headers(&self, key: Option<&str>) -> Vec<(&'static str, String)>;

    /// The body of a request.
    fn body(&self, request: &ModelRequest, structured: StructuredOutput) -> Result<Value, Fault>;

    /// The body with files in the first turn of the user.
    fn attach(&self, body: Value, files: &[File]) -> Result<Value, Fault>;

    /// Proves that a body is what the provider takes: roles in order, every tool call answered once and in its place.
    fn prove(&self, body: &Value) -> Result<(), Fault>;

    /// Reads a whole answer.
    fn answer(&self, body: &Value) -> Result<Answer, Fault>;

    /// Reads a streamed answer.
    fn stream(&self) -> Box<dyn Assemble>;
}

/// Puts a streamed answer together.
pub(crate) trait Assemble: Send {
    /// Takes the next event. True when the stream said that it is over.
    fn event(&mut self, event: &Event) -> Result<bool, Fault>;

    /// Whether the answer is whole where a stream ends that has no end marker of its own.
    fn is_whole(&self) -> bool {
        false
    }

    /// Tokens as far as the stream has said them.
    fn usage(&self) -> Usage;

    /// The answer, once it is whole.
    fn finish(self: Box<Self>) -> Result<Answer, Fault>;
}

/// Adds every parameter of the profile to the body.
pub(crate) fn add_params(body: &mut Map, params: &Value, reserved: &[&str]) -> Result<(), Fault> {
    let Some(params) = params.as_map() else { return Ok(()) };
    for (key, value) in params {
        if CLIENT_KEYS.contains(&&**key) || value.is_null() {
            continue;
        }
        if reserved.contains(&&**key) {
            let text = format!("the model parameter `{key}` is written by the engine and cannot be set");
            return Err(Fault::Unsayable(text));
        }
        body.insert(key.clone(), value.clone());
    }
    match params.get("n").map(Value::as_int) {
        None | Some(Some(1)) => Ok(()),
        Some(_) => Err(Fault::Unsayable("the model parameter `n` must be 1: use `parallel` for samples".to_owned())),
    }
}

/// Proves that every tool call of the conversation is answered before the next turn, and nothing else is.
pub(crate) fn check(messages: &[Message]) -> Result<(), Fault> {
    let mut open: BTreeSet<&str> = BTreeSet::new();
    for message in messages {
        if let Message::Tool { call_id, .. } = message {
            if !open.remove(&**call_id) {
                return Err(Fault::Unsayable(format!("the tool message for `{call_id}` answers no open tool call")));
            }
            continue;
        }
        if let Some(id) = open.first() {
            return Err(Fault::Unsayable(format!("the tool call `{id}` is not answered before the next message")));
        }
        if let Message::Assistant { tool_calls, .. } = message {
            open = tool_calls.iter().map(|call| &*call.id).collect();
        }
    }
    match open.first() {
        Some(id) => Err(Fault::Unsayable(format!("the tool call `{id}` is not answered"))),
        None => Ok(()),
    }
}

/// A tool call's arguments: a mapping when the text is one, `{}` for no text, else the text as it is.
pub(crate) fn arguments(text: &str) -> Value {
    if text.trim().is_empty() {
        return Value::empty_map();
    }
    match json::read(text) {
        Ok(value @ Value::Map(_)) => value,
        Ok(_) | Err(_) => Value::str(text),
    }
}

/// Tool calls that one answer may hold: more is no answer but a fault.
const CALLS_MAX: usize = 4_096;

/// Refuses an answer, or what there is of one, that asks for too many tool calls.
///
/// # Errors
/// More than [`CALLS_MAX`] calls.
pub(crate) fn bounded(calls: usize) -> Result<(), Fault> {
    if calls > CALLS_MAX {
        return Err(Fault::Malformed(format!("it has more than {CALLS_MAX} tool calls")));
    }
    Ok(())
}

/// Gives every tool call an id of its own, since answers find their call by it. Some servers send none, some repeat.
pub(crate) fn distinct_ids(calls: &mut [ToolRequest], prefix: &str) {
    let mut taken = Taken::default();
    for (index, call) in calls.iter_mut().enumerate() {
        if call.id.is_empty() {
            call.id = format!("{prefix}_{index}").into();
        }
        let first = call.id.clone();
        call.id = taken.distinct(&first, |copy| format!("{first}_{copy}"));
    }
}

/// Ids that are taken, and for each of them the number that its next copy gets.
#[derive(Debug, Default)]
struct Taken(BTreeMap<Name, u32>);

impl Taken {
    /// The id, or its first copy that is free.
    fn distinct(&mut self, id: &str, copied: impl Fn(u32) -> String) -> Name {
        let first: Name = id.into();
        let Some(mut copy) = self.0.get(&first).copied() else {
            self.0.insert(first.clone(), 2);
            return first;
        };
        loop {
            let other: Name = copied(copy).into();
            copy += 1;
            if !self.0.contains_key(&other) {
                self.0.insert(other.clone(), 2);
                self.0.insert(first, copy);
                return other;
            }
        }
    }
}

/// Ids of tool calls as a provider takes them: letters, digits, `_` and `-`, at most 64, distinct in the whole
/// conversation. For calls that another provider made earlier in it, and for servers that count from zero in each turn.
#[derive(Debug, Default)]
pub(crate) struct CallIds(BTreeMap<usize, BTreeMap<Name, Name>>);

/// Bytes of an id of a tool call that every provider takes.
const CALL_ID_BYTES_MAX: usize = 64;

impl CallIds {
    /// The ids of all calls of a conversation, in its order: the same conversation gives the same ids.
    pub(crate) fn of(messages: &[Message]) -> Self {
        let mut turns = BTreeMap::new();
        let mut taken = Taken::default();
        for (place, message) in messages.iter().enumerate() {
            let Message::Assistant { tool_calls, .. } = message else { continue };
            let mut ids: BTreeMap<Name, Name> = BTreeMap::new();
            for call in tool_calls {
                ids.entry(call.id.clone()).or_insert_with(|| acceptable(&call.id, &mut taken));
            }
            turns.insert(place, ids);
        }
        Self(turns)
    }

    /// The id of a call that the message at `place` makes or answers.
    pub(crate) fn accepted(&self, place: usize, id: &Name) -> Value {
        let turn = self.0.range(..=place).next_back();
        Value::Str(turn.and_then(|(_, ids)| ids.get(id)).unwrap_or(id).clone())
    }
}

fn acceptable(id: &str, taken: &mut Taken) -> Name {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    let text: String = id.chars().map(plain).take(CALL_ID_BYTES_MAX).collect();
    taken.distinct(&text, |copy| {
        let suffix = format!("_{copy}");
        format!("{}{suffix}", &text[..text.len().min(CALL_ID_BYTES_MAX - suffix.len())])
    })
}

/// Arguments for a provider that takes a mapping only; text that was none goes under a name.
pub(crate) fn mapping(arguments: &Value) -> Value {
    match arguments {
        map @ Value::Map(_) => map.clone(),
        other => Value::object([("invalid_arguments", other.clone())]),
    }
}

/// The arguments of a tool call in a whole answer, of whatever type they came.
pub(crate) fn whole_arguments(value: Option<&Value>) -> Value {
    match value {
        Some(map @ Value::Map(_)) if json::is_exact(map) => map.clone(),
        Some(map @ Value::Map(_)) => Value::from(format!("{map} (a whole number beyond 64 bits; write it as text)")),
        Some(Value::Str(text)) => arguments(text),
        None | Some(Value::Null) => Value::empty_map(),
        Some(other) => Value::str(other.to_json()),
    }
}

/// A key of a profile as a list: one text stands for a list of one.
pub(crate) fn listed(value: Value) -> Value {
    if value.as_list().is_some() { value } else { Value::list(vec![value]) }
}

/// Later counts replace earlier ones: they are sums, not steps.
pub(crate) fn newer(old: Usage, new: Usage) -> Usage {
    Usage {
        input: new.input.or(old.input),
        cache_read: new.cache_read.or(old.cache_read),
        cache_write: new.cache_write.or(old.cache_write),
        output: new.output.or(old.output),
        reasoning: new.reasoning.or(old.reasoning),
    }
}

/// Models that reason before they answer and name their maximum of output differently, by the start of their name.
const REASONING_MODELS: &[&str] = &["gpt-5", "gpt-6", "o1", "o3", "o4"];

/// Whether a model of OpenAI reasons before it answers.
pub(crate) fn is_reasoning(model: &str) -> bool {
    REASONING_MODELS.iter().any(|start| model.starts_with(start))
}

/// A count of tokens; none for anything that is no whole number from zero. One beyond 64 bits is the largest there is,
/// which no usage can be.
pub(crate) fn count(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    let whole = value.as_int().and_then(|n| u64::try_from(n).ok());
    whole.or_else(|| value.as_f64().filter(|n| *n >= i64::MAX as f64).map(|_| u64::MAX))
}

/// A text at `key`, unless it is absent, null or no text.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// The header of a key that is borne.
pub(crate) fn bearer(key: Option<&str>) -> Vec<(&'static str, String)> {
    key.map(|key| ("authorization", format!("Bearer {key}"))).into_iter().collect()
}

/// The texts of system messages that say something.
pub(crate) fn instructions(messages: &[Message]) -> impl Iterator<Item = &str> {
    messages.iter().filter_map(|message| match message {
        Message::System { content } => Some(&**content).filter(|text| !text.is_empty()),
        Message::User { .. } | Message::Assistant { .. } | Message::Tool { .. } => None,
    })
}

/// An answer whose body says that it is none is refused.
pub(crate) fn unrefused(body: &Value) -> Result<(), Fault> {
    if body.get("error").is_some_and(Value::is_truthy) {
        return Err(Fault::Refused(Box::new(ProviderError::from_value(None, body))));
    }
    Ok(())
}

/// What the content blocks of an answer add up to.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    content: String,
    has_content: bool,
    tool_calls: Vec<ToolRequest>,
    /// Blocks that only their provider understands.
    pub(crate) attached: Vec<Value>,
}

impl Blocks {
    /// Adds text.
    pub(crate) fn say(&mut self, text: &str) {
        self.has_content = true;
        self.content.push_str(text);
    }

    /// Adds a tool call, its arguments as text that was streamed or else as a whole value.
    pub(crate) fn ask(&mut self, id: Option<&str>, name: Option<&str>, streamed: Option<&str>, whole: Option<&Value>) {
        let streamed = streamed.filter(|text| !text.is_empty()).map(arguments);
        let arguments = streamed.unwrap_or_else(|| whole_arguments(whole));
        let (id, name) = (id.unwrap_or_default().into(), name.unwrap_or_default().into());
        self.tool_calls.push(ToolRequest { id, name, arguments });
    }

    /// The answer; `cut` says how it ended when it did not end by itself.
    pub(crate) fn answer(self, cut: Option<Finish>, reason: &str, usage: Usage) -> Answer {
        let whole = if self.tool_calls.is_empty() { Finish::Stop } else { Finish::ToolUse };
        Answer {
            content: self.content,
            has_content: self.has_content,
            tool_calls: self.tool_calls,
            finish: cut.unwrap_or(whole),
            finish_word: Some(reason.into()),
            usage,
            attachments: if self.attached.is_empty() { Value::Null } else { Value::list(self.attached) },
            id: None,
            model: None,
            service_tier: None,
        }
    }
}

/// A request for tests of the mappings.
#[cfg(test)]
pub(crate) fn request_of(provider: &str, model: &str, messages: Vec<Message>) -> ModelRequest {
    use windlass_core::machine::Priority;
    ModelRequest {
        agent: "a".into(),
        provider: provider.into(),
        model: model.into(),
        base_url: None,
        key: None,
        messages,
        files: vec![],
        tools: vec![],
        output_schema: None,
        max_tokens: Some(77),
        params: Value::Null,
        stream: false,
        timeout_ms: 1_000,
        idempotency_key: String::new(),
        tenant: "default".into(),
        priority: Priority::Normal,
        trace: None,
        repeat: false,
        denied: Vec::new(),
        link: None,
    }
}

/// A conversation with a tool call of another provider in it, for tests of the mappings.
#[cfg(test)]
pub(crate) fn tool_turn(attachments: Value) -> Vec<Message> {
    let call = |id: &str, name: &str| ToolRequest { id: id.into(), name: name.into(), arguments: Value::empty_map() };
    let answer = |id: &str, is_error| Message::Tool { call_id: id.into(), content: "r".into(), is_error };
    vec![
        Message::System { content: "s".into() },
        Message::User { content: "u".into() },
        Message::Assistant { content: "".into(), tool_calls: vec![call("a.1", "x"), call("b", "y")], attachments },
        answer("b", true),
        answer("a.1", false),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> ToolRequest {
        ToolRequest { id: id.into(), name: "t".into(), arguments: Value::empty_map() }
    }

    fn asks(ids: &[&str]) -> Message {
        let tool_calls = ids.iter().map(|id| call(id)).collect();
        Message::Assistant { content: "".into(), tool_calls, attachments: Value::Null }
    }

    fn answers(id: &str) -> Message {
        Message::Tool { call_id: id.into(), content: "".into(), is_error: false }
    }

    fn user() -> Message {
        Message::User { content: "u".into() }
    }

    #[test]
    fn every_tool_call_is_answered_once_before_the_next_turn() {
        assert_eq!(check(&[user(), asks(&["a", "b"]), answers("b"), answers("a"), user()]), Ok(()));
        assert!(check(&[asks(&["a"]), user()]).is_err());
        assert!(check(&[asks(&["a"])]).is_err());
        assert!(check(&[answers("a")]).is_err());
        assert!(check(&[asks(&["a"]), answers("a"), answers("a")]).is_err());
    }

    #[test]
    fn arguments_are_a_mapping_or_the_text() {
        assert_eq!(arguments(r#"{"a":1}"#), Value::object([("a", Value::Int(1))]));
        assert_eq!(arguments(" "), Value::empty_map());
        for text in ["{\"a\":", "[1]", "null", "\"x\"", "{} {}"] {
            assert_eq!(arguments(text), Value::str(text));
        }
    }

    #[test]
    fn ids_become_distinct() {
        let mut calls = vec![call("x"), call("x"), call(""), call("x_2"), call("x")];
        distinct_ids(&mut calls, "call_4");
        let ids: Vec<&str> = calls.iter().map(|c| &*c.id).collect();
        assert_eq!(ids, ["x", "x_2", "call_4_2", "x_2_2", "x_3"]);
    }

    #[test]
    fn a_thousand_calls_with_one_id_are_told_apart_at_once() {
        let mut calls = vec![call("x"); CALLS_MAX];
        distinct_ids(&mut calls, "call_0");
        let ids: BTreeSet<&str> = calls.iter().map(|call| &*call.id).collect();
        assert_eq!((ids.len(), &*calls[CALLS_MAX - 1].id), (CALLS_MAX, "x_4096"));
        assert!(bounded(CALLS_MAX).is_ok() && bounded(CALLS_MAX + 1).is_err());
    }

    #[test]
    fn a_count_that_no_call_can_have_is_not_taken_for_none() {
        let of = |text: &str| count(Some(&Value::from_json(text).expect("JSON")));
        assert_eq!([of("7"), of("-1"), of("1.5"), of("null")], [Some(7), None, None, None]);
        assert_eq!([of("18446744073709551615"), of("1e30")], [Some(u64::MAX); 2]);
    }

    #[test]
    fn ids_of_other_providers_become_acceptable_and_stay_distinct() {
        let (long, longer) = ("x".repeat(80), "x".repeat(81));
        let ids = CallIds::of(&[asks(&["a.b", "a:b", &long]), answers("a.b"), asks(&[&longer, "ok", "a.b"])]);
        let at = |place, id: &str| ids.accepted(place, &id.into()).as_str().unwrap_or_default().to_owned();
        assert_eq!([at(0, "a.b"), at(0, "a:b"), at(1, "a.b")], ["a_b", "a_b_2", "a_b"]);
        assert_eq!([at(2, "ok"), at(3, "a.b")], ["ok", "a_b_3"], "an id that comes again is another call");
        assert!(at(0, &long).len() == 64 && at(2, &longer).len() == 64 && at(0, &long) != at(2, &longer));
    }

    #[test]
    fn reserved_parameters_are_refused_and_client_settings_stay_here() {
        let params =
            Value::from_json(r#"{"seed":5,"max_retries":0,"logit_bias":{"1":-1},"top_k":null}"#).expect("JSON");
        let mut body = Map::new();
        assert_eq!(add_params(&mut body, &params, &["messages"]), Ok(()));
        assert_eq!(Value::map(body).to_json(), r#"{"seed":5,"logit_bias":{"1":-1}}"#);
        let bad =
            |text: &str| add_params(&mut Map::new(), &Value::from_json(text).expect("JSON"), &["messages"]).is_err();
        assert!(bad(r#"{"messages":[]}"#) && bad(r#"{"n":2}"#));
        assert!(!bad(r#"{"n":1}"#));
    }
}
