//! The bodies of calls, rebuilt from a run: the same run gives the same bytes, so what is sent again is what was sent.

use serde::{Deserialize, Serialize};

use crate::apply::is_lifecycle;
use crate::decide::with_metadata;
use crate::effect::{Call, OpenCall};
use crate::file::File;
use crate::ids::{Digest, EffectId, Name};
use crate::limits;
use crate::machine::{Agent, HookKind, Machine, Priority, ToolDefinition};
use crate::route::Choice;
use crate::run::{Exec, Run};
use crate::trace::Incoming;
use crate::transcript::{Message, ToolRequest};
use crate::value::{Map, Value};

/// A request to a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRequest {
    /// The agent that asks, for matching in scripts and for messages.
    pub agent: Name,
    /// The provider's name.
    pub provider: Name,
    /// The model's name.
    pub model: Name,
    /// Address, when the document names one.
    pub base_url: Option<Name>,
    /// Reference to a key, when the document named one.
    pub key: Option<Name>,
    /// The conversation.
    pub messages: Vec<Message>,
    /// Files that go with the first message of the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// Tools the model may call.
    pub tools: Vec<ToolDefinition>,
    /// JSON Schema that the answer must fit.
    pub output_schema: Option<Value>,
    /// Output tokens at most. None leaves it to the provider: only where no ceiling of tokens or cost needs a bound.
    pub max_tokens: Option<u64>,
    /// `temperature`, `top_p`, `seed` and every further key of the profile.
    pub params: Value,
    /// Whether to ask for a stream.
    pub stream: bool,
    /// Time for the attempt in milliseconds.
    pub timeout_ms: u64,
    /// The effect's key.
    pub idempotency_key: String,
    /// Whose run asks. Not sent, and not part of what is hashed.
    #[serde(skip)]
    pub tenant: Name,
    /// The class of its run. Not sent either.
    #[serde(skip)]
    pub priority: Priority,
    /// The trace within which the run was started, when it was. Not part of what is hashed.
    #[serde(skip)]
    pub trace: Option<Incoming>,
    /// Whether a call that failed is made once more, rather than a first time or first at a link of a chain. Not sent.
    #[serde(skip)]
    pub repeat: bool,
    /// Links of the chain whose models the policy forbids to this call. Not sent.
    #[serde(skip)]
    pub denied: Vec<Name>,
    /// The chain and the link of it that this attempt takes. Not sent.
    #[serde(skip)]
    pub link: Option<(Name, Name)>,
}

/// The request of an open model call. None when `effect` is no open model call of this run.
#[must_use]
pub fn model_request(machine: &Machine, run: &Run, effect: EffectId) -> Option<ModelRequest> {
    let open = run.calls.get(&effect)?;
    build_model_request(machine, run, effect, open)
}

fn build_model_request(machine: &Machine, run: &Run, effect: EffectId, open: &OpenCall) -> Option<ModelRequest> {
    let Call::Model { agent, sample } = &open.call else { return None };
    let (agent, route) = (machine.agents.get(agent)?, open.route.as_deref());
    let model = route.map_or(&agent.model, |route| &route.settings);
    let exec = run.exec.as_ref()?;
    let tools = tools_shown(agent, exec);
    Some(ModelRequest {
        agent: agent.name.clone(),
        provider: model.provider.clone(),
        model: model.model.clone(),
        base_url: model.base_url.clone(),
        key: model.key.clone(),
        messages: conversation(exec, *sample)?,
        files: exec.files.clone(),
        output_schema: if tools.is_empty() { agent.output_schema.clone() } else { None },
        tools,
        max_tokens: model.max_tokens.or(open.output_max).or_else(|| of_ceilings(run)),
        params: model.params.clone(),
        stream: model.stream,
        timeout_ms: model.timeout_ms,
        idempotency_key: effect.key(run.id()),
        tenant: run.start.scope.tenant.clone(),
        priority: machine.placement.priority.unwrap_or_default(),
        trace: run.start.caller.trace.clone(),
        repeat: is_repeat(open),
        denied: route.map(Choice::denied).unwrap_or_default(),
        link: route.map(|route| (route.chain.clone(), route.name.clone())),
    })
}

/// Whether an attempt goes where one of this call went before.
fn is_repeat(open: &OpenCall) -> bool {
    match &open.route {
        Some(route) => open.losses > 0 || route.tried.contains(&route.name),
        None => open.attempt > 1,
    }
}

/// The bound of the output, where the run has a ceiling that holds only when every call has one.
fn of_ceilings(run: &Run) -> Option<u64> {
    let ceilings = &run.ledger.ceilings;
    let needs = ceilings.tokens.is_some() || ceilings.cost_micros.is_some();
    needs.then_some(limits::OUTPUT_TOKENS_DEFAULT)
}

/// The tools that a call shows to the model. The forced last turn of a tool loop shows none.
fn tools_shown(agent: &Agent, exec: &Exec) -> Vec<ToolDefinition> {
    match &exec.tools {
        None => agent.tools.clone(),
        Some(state) if state.stop.is_some() => Vec::new(),
        Some(state) => state.offered.iter().flatten().map(|tool| tool.definition.clone()).collect(),
    }
}

fn conversation(exec: &Exec, sample: u32) -> Option<Vec<Message>> {
    let tail = &exec.samples.get(sample as usize)?.tail;
    let mut messages: Vec<Message> = exec.prompt.iter().chain(tail).cloned().collect();
    if exec.post_history.is_empty() {
        return Some(messages);
    }
    let joined = |text: &Name| -> Name { format!("{text}\n\nSystem:\n\n{}", exec.post_history).into() };
    match messages.last_mut() {
        Some(Message::User { content } | Message::Tool { content, .. }) => *content = joined(content),
        Some(Message::System { .. } | Message::Assistant { .. }) | None => {
            messages.push(Message::User { content: exec.post_history.clone() });
        }
    }
    Some(messages)
}

/// Bytes of everything a call sends to the model: the bound of its input tokens. Files count as the tokens that they are
/// at most. Of the parts that only one provider understands, those of `provider` are sent.
#[must_use]
pub fn input_bytes(run: &Run, agent: &Agent, sample: u32, provider: &str) -> u64 {
    let files = run.exec.iter().flat_map(|exec| &exec.files).map(File::tokens_max).fold(0, u64::saturating_add);
    files.saturating_add(text_bytes(run, agent, sample, Some(provider)))
}

/// How many tokens the conversation of a call has. Only its provider knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// About so many: what the provider counted last and a guess of what was said since, or a guess of all.
    pub about: u64,
    /// Surely so many: what the provider counted last, or the bytes over more than any token has.
    pub least: u64,
}

/// How many tokens the conversation of a call has. Files are counted only once a provider did, and what providers keep
/// beside a conversation is not counted.
#[must_use]
pub fn conversation_tokens(run: &Run, agent: &Agent, sample: u32) -> Length {
    let counted = run.exec.as_ref().and_then(|exec| exec.samples.get(sample as usize)?.prefix.as_ref());
    let Some(counted) = counted.map(|prefix| prefix.tokens) else {
        let bytes = text_bytes(run, agent, sample, None);
        let about = bytes.div_ceil(limits::BYTES_PER_TOKEN_USUAL);
        return Length { about, least: bytes / limits::BYTES_PER_TOKEN_MOST };
    };
    let messages = run.exec.as_ref().and_then(|exec| conversation(exec, sample)).unwrap_or_default();
    let answered = messages.iter().rposition(|message| matches!(message, Message::Assistant { .. }));
    let since = messages.iter().skip(answered.unwrap_or(messages.len()));
    let bytes: usize = since.map(|message| message_bytes(message, None)).sum();
    Length { about: counted.saturating_add((bytes as u64).div_ceil(limits::BYTES_PER_TOKEN_USUAL)), least: counted }
}

fn message_bytes(message: &Message, provider: Option<&str>) -> usize {
    let bytes = match message {
        Message::System { content } | Message::User { content } => content.len(),
        Message::Tool { call_id, content, .. } => call_id.len() + content.len(),
        Message::Assistant { content, tool_calls, attachments } => {
            let of = |call: &ToolRequest| call.id.len() + call.name.len() + call.arguments.size_bytes() + 16;
            let own = provider.and_then(|provider| attachments.get(provider)).map_or(0, Value::size_bytes);
            content.len() + tool_calls.iter().map(of).sum::<usize>() + own
        }
    };
    bytes + 8
}

/// Bytes of the texts of a call, with what `provider` keeps beside the conversation.
fn text_bytes(run: &Run, agent: &Agent, sample: u32, provider: Option<&str>) -> u64 {
    let Some(exec) = &run.exec else { return 0 };
    let messages = conversation(exec, sample).unwrap_or_default();
    let text: usize = messages.iter().map(|message| message_bytes(message, provider)).sum();
    let tools: usize = tools_shown(agent, exec)
        .iter()
        .map(|tool| tool.name.len() + tool.description.len() + tool.parameters.size_bytes() + 32)
        .sum();
    let schema = agent.output_schema.as_ref().map_or(0, Value::size_bytes);
    (text + tools + schema) as u64
}

/// The body of an open hook call, or of a tool call that a hook provides. None when `effect` is neither.
#[must_use]
pub fn hook_body(machine: &Machine, run: &Run, effect: EffectId, include_machine: bool) -> Option<Value> {
    build_hook_body(machine, run, effect, &run.calls.get(&effect)?.call, include_machine)
}

fn build_hook_body(
    machine: &Machine,
    run: &Run,
    effect: EffectId,
    call: &Call,
    include_machine: bool,
) -> Option<Value> {
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| {
        body.insert(key.into(), value);
    };
    let (event, hook) = match call {
        Call::Hook { event, hook } => (*event, hook),
        Call::Tool { hook: Some(hook), .. } => (HookKind::ToolCall, hook),
        Call::Tool { .. } | Call::Model { .. } | Call::Action { .. } | Call::Verify { .. } => return None,
    };
    put("event", Value::str(event.as_str()));
    put("run_id", Value::str(run.id().as_str()));
    put("machine", Value::Str(run.start.machine_name.clone()));
    put("effect_id", Value::str(effect.key(run.id())));
    if let Some(args) = declared_args(machine, run, hook, event) {
        put("args", args);
    }
    let state = run.state.clone().map_or(Value::Null, Value::Str);
    let detail = run.hooks.as_ref().map_or(Value::Null, |chain| chain.detail.clone());
    match event {
        HookKind::MachineStart | HookKind::StateEnter | HookKind::ToolsList => {}
        HookKind::MachineEnd | HookKind::StateExit => put("output", detail),
        HookKind::Transition => {
            put("from", state.clone());
            put("to", detail);
        }
        HookKind::Error => {
            if let Some(failure) = &run.failure {
                put("error", Value::Str(failure.message.clone()));
                put("error_type", Value::Str(failure.display_type()));
            }
        }
        HookKind::Action => {
            let action = run.state.as_ref().and_then(|name| machine.states.get(name)).and_then(|s| s.action.clone());
            put("action", action.map_or(Value::Null, Value::Str));
        }
        HookKind::ToolCalls => put("tool_calls", detail),
        HookKind::ToolResult => put("tool_result", detail),
        HookKind::ToolCall => {
            if let Call::Tool { tool, arguments, .. } = call {
                put("name", Value::Str(tool.clone()));
                put("arguments", arguments.clone());
            }
        }
    }
    put("state", state);
    if !matches!(event, HookKind::ToolCall | HookKind::ToolsList) {
        let context = if include_machine { with_metadata(run, &machine.spec_version) } else { run.context.clone() };
        put("context", context);
    }
    Some(Value::map(body))
}

/// The arguments that the document gives a hook; none when it gives none.
fn declared_args(machine: &Machine, run: &Run, hook: &Name, event: HookKind) -> Option<Value> {
    let of_state = || run.state.as_ref().and_then(|name| machine.states.get(name)).map(|state| &state.hooks);
    let hooks = if is_lifecycle(event) { Some(&machine.lifecycle) } else { of_state() };
    let mut named = hooks?.iter().filter(|declared| declared.events.contains(&event));
    // Hooks of one name may be declared with several arguments; the place in the chain tells them apart.
    let place = run.hooks.as_ref().map_or(0, |chain| chain.passed as usize);
    let declared = named.clone().nth(place).filter(|declared| declared.name == *hook);
    let declared = declared.or_else(|| named.find(|declared| declared.name == *hook))?;
    declared.args.is_truthy().then(|| declared.args.clone())
}

/// The arguments of an open tool, action or verify call. None for the other kinds.
#[must_use]
pub fn arguments(machine: &Machine, run: &Run, effect: EffectId) -> Option<Value> {
    build_arguments(machine, run, &run.calls.get(&effect)?.call)
}

/// The arguments of a tool, action or verify call that is not open yet.
pub(crate) fn arguments_of(machine: &Machine, run: &Run, call: &Call) -> Option<Value> {
    build_arguments(machine, run, call)
}

fn build_arguments(machine: &Machine, run: &Run, call: &Call) -> Option<Value> {
    match call {
        Call::Tool { arguments, .. } => Some(arguments.clone()),
        Call::Action { action } => Some(Value::object([
            ("action", Value::Str(action.clone())),
            ("state", run.state.clone().map_or(Value::Null, Value::Str)),
            ("machine", Value::Str(machine.name.clone())),
            ("run_id", Value::str(run.id().as_str())),
            ("context", run.context.clone()),
        ])),
        Call::Verify { about, .. } => {
            let doubted = &run.calls.get(about)?.call;
            Some(Value::object([
                ("effect_id", Value::str(about.key(run.id()))),
                ("tool", Value::Str(doubted.target().clone())),
                ("arguments", build_arguments(machine, run, doubted).unwrap_or_default()),
            ]))
        }
        Call::Model { .. } | Call::Hook { .. } => None,
    }
}

/// The hash of what an open call sends, recorded when it is intended.
#[must_use]
pub fn open_digest(machine: &Machine, run: &Run, effect: EffectId) -> Option<Digest> {
    run.calls.get(&effect).map(|open| digest(machine, run, effect, open))
}

/// The hash of what a call sends. Hook bodies are hashed without the metadata that configuration may add.
pub(crate) fn digest(machine: &Machine, run: &Run, effect: EffectId, open: &OpenCall) -> Digest {
    let call = &open.call;
    match call {
        Call::Model { .. } => build_model_request(machine, run, effect, open)
            .and_then(|request| serde_json::to_vec(&request).ok())
            .map_or(Digest::ZERO, |bytes| Digest::of(&bytes)),
        Call::Hook { .. } => build_hook_body(machine, run, effect, call, false).unwrap_or_default().digest(),
        Call::Tool { .. } | Call::Action { .. } | Call::Verify { .. } => {
            build_arguments(machine, run, call).unwrap_or_default().digest()
        }
    }
}
