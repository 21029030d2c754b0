//! Notices to people outside the store, and the channels that carry them, as a port.
//!
//! What a notice is about is said by names and numbers. No prompt, argument, output or message of a failure is in one.

use serde::{Deserialize, Serialize};
use windlass_core::failure::Failure;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::time::Timestamp;

use crate::BoxFuture;

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A call or a transition waits for an approval.
    Approval,
    /// Nobody has answered a question in the time that its escalation gives.
    Escalation,
    /// A call waits for more of a budget.
    Budget,
    /// A person has to say whether a call happened.
    Outcome,
    /// A run is held until a person looks at it.
    Attention,
    /// A run is quarantined: its workers were lost again and again, or the store was restored.
    Quarantined,
    /// A run has failed.
    Failed,
    /// A candidate rule set was withdrawn, because it differs too much from the one in force.
    Policy,
}

impl NoticeKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Approval,
        Self::Escalation,
        Self::Budget,
        Self::Outcome,
        Self::Attention,
        Self::Quarantined,
        Self::Failed,
        Self::Policy,
    ];

    /// The kind as a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Escalation => "escalation",
            Self::Budget => "budget",
            Self::Outcome => "outcome",
            Self::Attention => "attention",
            Self::Quarantined => "quarantined",
            Self::Failed => "failed",
            Self::Policy => "policy",
        }
    }
}

/// The question of a notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeQuestion {
    /// Its id, as `windlass approvals` takes it.
    pub id: Name,
    /// What is asked about: `tool`, `action`, `model`, `transition`.
    pub about: Name,
    /// The tool, action or agent, or `FROM->TO`.
    pub target: Name,
    /// What the call does to the world; none for a transition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Name>,
    /// The rule that asks, or `contract`.
    pub rule: Name,
    /// Hash of what is shown to whoever answers; none for an outcome, which is answered by a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Digest>,
    /// When the question expires, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// How often it was escalated.
    pub level: u32,
    /// To whom it was escalated last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalated_to: Option<Name>,
}

/// Something that a person should hear of. Its JSON is the body that webhooks get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The same each time it is sent: who gets it twice drops the second.
    pub id: Name,
    /// What it is about.
    pub kind: NoticeKind,
    /// When the run last changed, in milliseconds since 1970; when it happened, for what is about no one run.
    pub at_ms: u64,
    /// The run's tenant.
    pub tenant: Name,
    /// Name of the run's machine.
    pub machine: Name,
    /// The run; for what is about no one run, one that led to it.
    pub run_id: RunId,
    /// The run that a caller started, of which this one is a part.
    pub root_run_id: RunId,
    /// The state it is in.
    pub state: Option<Name>,
    /// One sentence for people.
    pub text: String,
    /// The question, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<NoticeQuestion>,
    /// The code of the failure, when the run has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Name>,
}

impl Notice {
    /// Whether it is about something that a person can still answer: it is not sent once that is over.
    #[must_use]
    pub fn is_question(&self) -> bool {
        self.question.is_some()
    }
}

/// A way to people.
pub trait Channel: Send + Sync + std::fmt::Debug {
    /// Its name in the configuration.
    fn name(&self) -> &Name;

    /// Whether it carries this notice.
    fn wants(&self, notice: &Notice) -> bool;

    /// Sends a notice once. The id of the notice goes with it, so that a repeat can be dropped. Ends within its own bound
    /// of time.
    ///
    /// # Errors
    /// Why it was not taken, and whether to try again.
    fn send<'a>(&'a self, notice: &'a Notice, now: Timestamp) -> BoxFuture<'a, Result<(), Failure>>;
}
