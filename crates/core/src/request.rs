//! The bodies of calls, rebuilt from a run: the same run gives the same bytes, so what is sent again is what was sent.

use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::machine::ToolDefinition;
use crate::transcript::Message;
use crate::value::Value;

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
    /// Tools the model may call.
    pub tools: Vec<ToolDefinition>,
    /// JSON Schema that the answer must fit.
    pub output_schema: Option<Value>,
    /// Output tokens at most.
    pub max_tokens: u64,
    /// `temperature`, `top_p`, `seed` and every further key of the profile.
    pub params: Value,
    /// Whether to ask for a stream.
    pub stream: bool,
    /// Time for the attempt in milliseconds.
    pub timeout_ms: u64,
    /// The effect's key.
    pub idempotency_key: String,
}

/// The request of an open model call. None when `effect` is no open model call of this run.
#[must_use]
pub fn model_request(
    _machine: &crate::machine::Machine,
    _run: &crate::run::Run,
    _effect: crate::ids::EffectId,
) -> Option<ModelRequest> {
    None
}

/// The body of an open hook call, or of a tool call that a hook provides.
#[must_use]
pub fn hook_body(
    _machine: &crate::machine::Machine,
    _run: &crate::run::Run,
    _effect: crate::ids::EffectId,
    _include_machine: bool,
) -> Option<Value> {
    None
}

/// The arguments of an open tool, action or verify call.
#[must_use]
pub fn arguments(
    _machine: &crate::machine::Machine,
    _run: &crate::run::Run,
    _effect: crate::ids::EffectId,
) -> Option<Value> {
    None
}
