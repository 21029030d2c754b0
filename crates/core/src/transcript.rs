//! A conversation with a model in provider-neutral form.

use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::limits::CALL_TOKENS_MAX;
use crate::value::Value;

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// Instructions.
    System {
        /// Text.
        content: Name,
    },
    /// What the user says.
    User {
        /// Text.
        content: Name,
    },
    /// What the model said.
    Assistant {
        /// Text; empty when it only called tools.
        content: Name,
        /// Tools it asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ToolRequest>,
        /// Parts only one provider understands (thinking signatures, cache marks): provider name to value.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        attachments: Value,
    },
    /// What a tool answered.
    Tool {
        /// The call that is answered.
        call_id: Name,
        /// Text.
        content: Name,
        /// Whether the tool failed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

/// A tool call that a model asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolRequest {
    /// The provider's id of the call, answered by a [`Message::Tool`].
    pub id: Name,
    /// The tool's name, as the model wrote it.
    pub name: Name,
    /// Arguments; text when they are not a JSON object.
    pub arguments: Value,
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It was done.
    Stop,
    /// It reached the maximum number of tokens.
    Length,
    /// It wants tools called.
    ToolUse,
    /// The provider's filter stopped it.
    ContentFilter,
}

/// Tokens of one call; `None` where the provider did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
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

impl Usage {
    /// All tokens in and out; `None` when nothing is known.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        let parts = [self.input, self.cache_read, self.cache_write, self.output];
        parts.into_iter().flatten().reduce(u64::saturating_add)
    }

    /// The same where every count can be one; nothing is known where one of them is beyond [`CALL_TOKENS_MAX`].
    #[must_use]
    pub fn plausible(self) -> Self {
        let counts = [self.input, self.cache_read, self.cache_write, self.output, self.reasoning];
        if counts.into_iter().flatten().all(|count| count <= CALL_TOKENS_MAX) { self } else { Self::default() }
    }
}

/// What a model call gave back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Text.
    pub content: Name,
    /// Whether the provider sent a content at all; some send null.
    #[serde(default)]
    pub has_content: bool,
    /// Tools it asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolRequest>,
    /// Why it stopped.
    pub finish: Finish,
    /// Tokens.
    pub usage: Usage,
    /// Cost from the price book in micro-USD; `None` when the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// Version of the price book used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<Name>,
    /// Parts only one provider understands.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub attachments: Value,
    /// Request id, served model, rate-limit windows.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub provider_data: Value,
}
