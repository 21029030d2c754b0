//! The lifecycle word of a run, and why one is held.

use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::time::Timestamp;

/// The lifecycle of a run as one word. The last three are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Ready to be worked on, held by no worker.
    Queued,
    /// Being worked on: a call is out, or a decision is due.
    Running,
    /// Parked: waiting for a signal, a time, a child or a person.
    Waiting,
    /// Held by request.
    Paused,
    /// Held until a person decides.
    Attention,
    /// Held by the store because it took workers down, whatever its journal says last.
    Quarantined,
    /// Ended with an output.
    Completed,
    /// Ended with a failure.
    Failed,
    /// Ended by request.
    Cancelled,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Running,
        Self::Waiting,
        Self::Paused,
        Self::Attention,
        Self::Quarantined,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Attention => "attention",
            Self::Quarantined => "quarantined",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether the run is over.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// Why a run holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Hold {
    /// Someone asked.
    Paused {
        /// Why.
        reason: Name,
        /// Since when; none in a journal that does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// A person must decide.
    Attention {
        /// Why.
        reason: Name,
        /// Since when; none in a journal that does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// A call that changes something is to leave, and a read-only switch is on. It goes on when that is off.
    ReadOnly {
        /// Why the switch is on, and who turned it on.
        reason: Name,
        /// Since when.
        since: Timestamp,
    },
}

impl Hold {
    /// Whether it ends by itself.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::ReadOnly { .. })
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &Name {
        match self {
            Self::Paused { reason, .. } | Self::Attention { reason, .. } | Self::ReadOnly { reason, .. } => reason,
        }
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        match self {
            Self::Paused { since, .. } | Self::Attention { since, .. } => *since,
            Self::ReadOnly { since, .. } => Some(*since),
        }
    }
}
