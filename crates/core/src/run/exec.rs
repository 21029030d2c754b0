//! An agent being asked: its samples, and its tool loop.

use serde::{Deserialize, Serialize};

use crate::effect::Outcome;
use crate::failure::Failure;
use crate::file::File;
use crate::ids::{EffectId, Name};
use crate::machine::ToolDefinition;
use crate::time::Timestamp;
use crate::transcript::{Message, Reply, ToolRequest};
use crate::value::Value;

/// An agent that is being asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// The agent.
    pub agent: Name,
    /// System and user messages, shared by all samples.
    pub prompt: Vec<Message>,
    /// Files that go with the user message, from the agent's input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// Text added to the last message of what is sent; empty for none.
    #[serde(default)]
    pub post_history: Name,
    /// The answers wanted.
    pub samples: Vec<Sample>,
    /// Tool loop, of a state that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<LoopState>,
    /// When the agent was started.
    pub at: Timestamp,
    /// Whether it was noted that its conversation is nearly as long as its model takes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub near: bool,
}

/// One answer of an agent, wanted or had.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Messages after the prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<Message>,
    /// Whether an answer that did not fit has been sent back once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repaired: bool,
    /// The place in the agent's chain of the link that was called last; none without a chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<u32>,
    /// The step to a better tier that it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised: Option<Raised>,
    /// What its last answered call sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
    /// How far it is.
    pub state: SampleState,
}

/// What a call sent to a model, which the next call of the conversation sends again before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// The link that it went to; none without a chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Name>,
    /// Its input tokens, as its provider counted them.
    pub tokens: u64,
}

/// A step to a better tier, after an answer that was not good enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// The tier.
    pub to: Name,
    /// The place in the chain from which on a link of it is taken.
    pub from: u32,
    /// What happened.
    pub reason: Name,
}

/// How far a sample is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleState {
    /// A call is to be made.
    #[default]
    Wanted,
    /// A call is out.
    Calling(EffectId),
    /// The model answered; not yet dealt with.
    Answered(Box<Reply>),
    /// The call failed; not yet dealt with.
    Broken(Failure),
    /// It has its result.
    Done(Value),
    /// It failed for good.
    Failed(Failure),
}

/// A tool loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoopState {
    /// Bounds, rendered.
    pub bounds: LoopBounds,
    /// Tools the model may call; none until they have been listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<Vec<OfferedTool>>,
    /// Model turns taken.
    pub turns: u64,
    /// Tools called.
    pub calls: u64,
    /// Cost of the turns in micro-USD.
    pub cost_micros: u64,
    /// What the model said last.
    #[serde(default)]
    pub content: Name,
    /// Tool calls of this turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<PendingTool>,
    /// Whether the hooks have seen them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seen: bool,
    /// Calls of this turn that the hooks want skipped, by id or tool name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<Name>,
    /// Messages to be said after this turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steering: Vec<Message>,
    /// Why the loop ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Name>,
}

/// Bounds of a tool loop; zero is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopBounds {
    /// Tool calls.
    pub tool_calls: u64,
    /// Model turns.
    pub turns: u64,
    /// Micro-USD.
    pub cost_micros: u64,
    /// Milliseconds for one tool call.
    pub tool_timeout_ms: u64,
    /// Milliseconds for the loop.
    pub total_timeout_ms: u64,
}

/// A tool that the model may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfferedTool {
    /// What the model sees.
    pub definition: ToolDefinition,
    /// The hook that provides it; none for a tool of the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Name>,
}

/// A tool call of the current turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingTool {
    /// What the model asked for.
    pub request: ToolRequest,
    /// How far it is.
    pub state: PendingState,
}

/// How far a tool call of the current turn is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingState {
    /// To be called.
    #[default]
    Wanted,
    /// Out.
    Calling(EffectId),
    /// The tool answered; not yet dealt with.
    Settled(Outcome),
    /// Its answer is in the conversation; the hooks are to see it.
    Answered,
    /// Dealt with.
    Done,
}
