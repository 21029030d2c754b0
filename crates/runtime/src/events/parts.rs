//! What several kinds of events have in common.

use schemars::JsonSchema;
use serde::Serialize;
use windlass_core::ids::Name;

/// A call that is about to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CallIntended {
    /// The call.
    pub effect: u64,
    /// `model`, `tool`, `hook`, `action`, `verify`.
    pub kind: Name,
    /// Agent, tool, hook or action.
    pub target: Name,
    /// 1 for the first try.
    pub attempt: u32,
}

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CallSettled {
    /// The call.
    pub effect: u64,
    /// `model`, `tool`, `hook`, `action`, `verify`.
    pub kind: Option<Name>,
    /// Agent, tool, hook or action.
    pub target: Option<Name>,
    /// 1 for the first try.
    pub attempt: u32,
    /// Whether it succeeded.
    pub ok: bool,
    /// The failure's code.
    pub code: Option<Name>,
    /// The failure's message.
    pub message: Option<Name>,
    /// Tokens used.
    pub tokens: u64,
    /// Cost in micro-USD.
    pub cost_micros: u64,
    /// Whether tokens and cost are the reservation, because nobody said what was used.
    pub estimated: bool,
    /// Milliseconds since the attempt was decided on, by the times of the journal; null where that is not known.
    pub duration_ms: Option<u64>,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FailureSeen {
    /// Its code.
    pub code: Name,
    /// What happened, for people.
    pub message: Name,
}

/// What a run used, finished children included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Totals {
    /// Steps of the run itself.
    pub steps: u64,
    /// Model calls.
    pub model_calls: u64,
    /// Tool calls.
    pub tool_calls: u64,
    /// Tokens.
    pub tokens: u64,
    /// Cost in micro-USD.
    pub cost_micros: u64,
    /// Milliseconds since the run began, by the times of the journal; null where that is not known.
    pub duration_ms: Option<u64>,
}
