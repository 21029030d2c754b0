//! What a candidate set would have said to recorded decisions.

use serde::Serialize;
use windlass_core::policy::{ARGUMENTS_UNKNOWN, Answer, Verdict};

use crate::question::{Asked, Subject};
use crate::set::RuleSet;

/// A decision that would be another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The action's name.
    pub action: &'static str,
    /// On what: the tool, the model, the machine, or `FROM->TO`.
    pub on: String,
    /// What was answered.
    pub was: Answer,
    /// By this rule.
    pub was_by: String,
    /// What the candidate answers.
    pub would_be: Answer,
    /// By this rule.
    pub would_be_by: String,
    /// Why, for people.
    pub reason: String,
}

/// What comes of asking another set the same question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The same answer.
    Same,
    /// Another one.
    Other(Change),
    /// A rule of it looks at arguments that are not known any more.
    Unknown,
}

/// Compares a recorded verdict with what `candidate` says to the same question.
#[must_use]
pub fn compare(candidate: &RuleSet, subject: &Subject, asked: &Asked, recorded: &Verdict) -> Compared {
    // The agent is trusted as it was then.
    let scores = recorded.trust.and_then(|score| Some((asked.agent_version()?, score))).into_iter().collect();
    let ruling = candidate.rule_on(subject, asked, &scores);
    if &*ruling.rule == ARGUMENTS_UNKNOWN {
        return Compared::Unknown;
    }
    if ruling.answer == recorded.answer {
        return Compared::Same;
    }
    Compared::Other(Change {
        action: asked.action(),
        on: asked.target(),
        was: recorded.answer,
        was_by: recorded.rule.to_string(),
        would_be: ruling.answer,
        would_be_by: ruling.rule.to_string(),
        reason: ruling.reason.to_string(),
    })
}
