//! Policy decisions as values: questions that a decision needs answered, and the verdicts it records.
//!
//! Rules are evaluated behind a port; a missing answer counts as denied.

use serde::{Deserialize, Serialize};

use crate::approval::Asking;
use crate::contract::Class;
use crate::failure::Code;
use crate::ids::{Digest, EffectId, Name};
use crate::label::{LabelSet, Mark};
use crate::resource::Resource;

/// The id of the rule that denies a call while a rule looks at its arguments and they are not known.
pub const ARGUMENTS_UNKNOWN: &str = "windlass.arguments_unknown";

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
        /// Hash of the canonical arguments. Those of an action are the run itself: all zeroes, and so is that of a tool
        /// which a state calls where no rule looks at arguments.
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
    /// How it was chosen which of two rule sets judges, where there was a candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Box<Choice>>,
    /// What the set that did not judge says to the same question, where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<Box<Other>>,
}

/// On which side of a rule set that is tried a run is. It stays there for as long as that candidate is tried.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Choice {
    /// Version of the candidate.
    pub candidate: Name,
    /// What is done with the share.
    pub mode: Mode,
    /// What is in the share or not as a whole.
    pub sticky: Sticky,
    /// Size of the share in percent when this was chosen.
    pub percent: u32,
    /// Whether it is in the share.
    pub chosen: bool,
}

impl Choice {
    /// Whether the candidate judges.
    #[must_use]
    pub fn is_candidates(&self) -> bool {
        self.chosen && self.mode == Mode::Enforce
    }
}

/// What is done with the share of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The set in force judges, and the candidate is asked beside it.
    #[default]
    Shadow,
    /// The candidate judges, and the set in force is asked beside it.
    Enforce,
}

impl Mode {
    /// The mode as a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Enforce => "enforce",
        }
    }
}

/// What is in the share of a candidate or not as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sticky {
    /// A run with all that it starts.
    #[default]
    Run,
    /// All runs of a user; those without one by their tenant.
    User,
    /// All runs of a tenant.
    Tenant,
}

impl Sticky {
    /// What is sticky, as a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::User => "user",
            Self::Tenant => "tenant",
        }
    }
}

/// What the rule set that did not judge says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Its answer.
    pub answer: Answer,
    /// The rule that decided.
    pub rule: Name,
    /// Version of that set.
    pub version: Name,
}

/// The rule that decided something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruled {
    /// The rule; `contract`, `budget` or `ceiling` where one of these asked.
    pub rule: Name,
    /// Version of the rule set; empty where no rule set did.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub version: Name,
}

/// That something was not let happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// What the run wanted to do.
    pub question: Question,
    /// `policy.denied`, or `tool.denied` where the contract of the run or its state does not allow it.
    pub code: Code,
    /// The rule; none where none was asked, or a contract denied it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ruled: Option<Ruled>,
    /// The call, where one had been committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectId>,
    /// What it would do to the world, of a tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// What it would touch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
}

impl Verdict {
    /// The rule that decided.
    #[must_use]
    pub fn ruled(&self) -> Ruled {
        Ruled { rule: self.rule.clone(), version: self.version.clone() }
    }

    /// What the set in force and the candidate say, in this order, where both were asked.
    #[must_use]
    pub fn sides(&self) -> Option<(Side<'_>, Side<'_>)> {
        let (choice, other) = (self.choice.as_deref()?, self.other.as_deref()?);
        let judge = Side { answer: self.answer, rule: &self.rule, version: &self.version };
        let other = Side { answer: other.answer, rule: &other.rule, version: &other.version };
        Some(if choice.is_candidates() { (other, judge) } else { (judge, other) })
    }
}

/// What one of two sets says to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side<'a> {
    /// Its answer.
    pub answer: Answer,
    /// The rule that decided.
    pub rule: &'a Name,
    /// Version of the set.
    pub version: &'a Name,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_of_before_there_were_candidates_is_read_and_written_as_it_was() {
        let old = r#"{"question":{"action":"take_transition","from":"a","to":"b"},"answer":"allow","rule":"r","reason":"w","version":"v"}"#;
        let verdict: Verdict = serde_json::from_str(old).expect("read");
        assert_eq!((&verdict.choice, verdict.sides()), (&None, None));
        assert_eq!(serde_json::to_string(&verdict).expect("written"), old);
    }

    #[test]
    fn the_sides_of_a_verdict_are_told_by_who_judged() {
        let old = r#"{"question":{"action":"take_transition","from":"a","to":"b"},"answer":"allow","rule":"r","reason":"w","version":"v"}"#;
        let verdict: Verdict = serde_json::from_str(old).expect("read");
        let (sticky, candidate) = (Sticky::Run, Name::from("c"));
        for (mode, in_force) in [(Mode::Shadow, "r"), (Mode::Enforce, "s")] {
            let choice = Choice { candidate: candidate.clone(), mode, sticky, percent: 5, chosen: true };
            let other = Other { answer: Answer::Deny, rule: "s".into(), version: "c".into() };
            let verdict = Verdict { choice: Some(Box::new(choice)), other: Some(Box::new(other)), ..verdict.clone() };
            let (one, two) = verdict.sides().expect("both");
            assert_eq!((&**one.rule, one.rule != two.rule), (in_force, true));
            let text = serde_json::to_string(&verdict).expect("written");
            assert_eq!(serde_json::from_str::<Verdict>(&text).expect("read"), verdict);
        }
    }
}
