//! Policy decisions as values: questions that a decision needs answered, and the verdicts it records.
//!
//! Rules are evaluated behind a port; a missing answer counts as denied.

use serde::{Deserialize, Serialize};

use crate::approval::Asking;
use crate::ids::{Digest, Name};
use crate::label::{LabelSet, Mark};

/// What a run wants to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Question {
    /// Call the model of an agent.
    CallModel {
        /// The agent.
        agent: Name,
        /// The model.
        model: Name,
    },
    /// Call a tool, or perform an action of a state.
    CallTool {
        /// The tool.
        tool: Name,
        /// Hash of the canonical arguments. Those of an action are the run itself: all zeroes.
        arguments: Digest,
        /// The agent whose model asks for it; none for an action.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Name>,
        /// The labels of the arguments. Those of an action are the labels of all data of the run.
        #[serde(default, skip_serializing_if = "LabelSet::is_empty")]
        labels: LabelSet,
    },
    /// Start a child machine or a launch.
    StartMachine {
        /// Key of the machine.
        machine: Name,
    },
    /// Take a transition.
    TakeTransition {
        /// From this state.
        from: Name,
        /// To this state.
        to: Name,
    },
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Go on.
    Allow,
    /// A person decides.
    Ask,
    /// Do not.
    Deny,
}

/// An answer with its reason, journaled with the decision that used it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What was asked.
    pub question: Question,
    /// What the rules say.
    pub answer: Answer,
    /// The rule that decided.
    pub rule: Name,
    /// Why, for people.
    pub reason: Name,
    /// Version of the rule set.
    pub version: Name,
    /// What brought the labels of the arguments, filled in by the decision that used it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<Mark>,
    /// What the rule says about the question, when it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asking: Option<Box<Asking>>,
    /// The trust score of the agent's version that the rules saw, when one was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<u32>,
}
