//! What a tool, action or hook promises: whether it changes the world, and whether a repeat is harmless.

use serde::{Deserialize, Serialize};

use crate::approval::Terms;
use crate::bounded;
use crate::ids::{Digest, Name, RunId};
use crate::time::Timestamp;
use crate::value::Value;

/// Attempts at most of which a ramp remembers how they ended.
pub const OF_CALLS_MAX: u32 = 1_000;

/// What an effect does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Changes nothing; may be repeated.
    Read,
    /// Changes something that can be lived with or undone.
    Write,
    /// Changes something that cannot be undone.
    Danger,
}

impl Class {
    /// The word: `read`, `write`, `danger`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Danger => "danger",
        }
    }
}

/// Why a repeat of an effect is harmless, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idempotency {
    /// It is not: a repeat acts twice.
    None,
    /// The other side drops a repeat that carries the same key.
    Key,
    /// The same arguments have the same result however often they are applied.
    Natural,
}

/// What to do when a call may or may not have happened and must not be repeated blindly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Ask a `read` tool, which gets `{effect_id, tool, arguments}` and answers `{"happened": bool, "result"?: any}`.
    Verify {
        /// The name of the read tool.
        tool: Name,
    },
    /// Wait for a person's decision.
    Ask,
    /// Fail the call with `tool.outcome_unknown`.
    Fail,
}

/// The contract of a tool, an action or a hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contract {
    /// The name by which machines and models call it.
    pub name: Name,
    /// What it does, as a model reads it.
    pub description: Name,
    /// JSON Schema of the arguments; null accepts any.
    pub input_schema: Value,
    /// JSON Schema of the result; null accepts any.
    pub output_schema: Value,
    /// What it does to the world.
    pub class: Class,
    /// Whether a repeat is harmless.
    pub idempotency: Idempotency,
    /// What to do when the outcome is unknown.
    pub on_unknown: OnUnknown,
    /// Time for one attempt in milliseconds.
    pub timeout_ms: u64,
    /// Bytes of the result.
    pub output_bytes_max: u64,
    /// When a person has to agree to a call before it leaves.
    #[serde(default, skip_serializing_if = "Terms::is_default")]
    pub approval: Terms,
    /// How a plan of a call is made; calls leave without one where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Planning>,
    /// What a call costs beside others, 1 for an ordinary one. Only the order in which tools are shown depends on it.
    #[serde(default = "ordinary", skip_serializing_if = "is_ordinary")]
    pub cost_weight: u32,
    /// How long a call usually takes, in milliseconds, as its operator says. Only the order in which tools are shown depends
    /// on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// What its answers mean for the labels of values.
    #[serde(default, skip_serializing_if = "Flow::is_default")]
    pub flow: Flow,
    /// What of its calls is not shown.
    #[serde(default, skip_serializing_if = "Redact::is_default")]
    pub redact: Redact,
    /// The arguments that are the ids of what a call touches, as keys inwards, for the audit trail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Vec<Name>>,
    /// The kinds of errors that it may answer with, as its operator names them. Nothing depends on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Name>,
    /// Which runs make its calls, and what the others read; every run makes them where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Box<Shadow>>,
}

/// A tool whose calls some runs do not make: what they would have sent is in the journal, and they read a stub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// How many of a hundred runs make the calls, 0 for none.
    pub ramp_percent: u32,
    /// What the others read.
    pub answer: Value,
    /// What the calls that are made may use up, all runs together; then none is made until a person resumes them. Where there
    /// is none, they go on whatever becomes of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<RampBudget>,
}

/// What the calls of a ramp may use up, all runs together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RampBudget {
    /// The most attempts that leave; none for any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// The most of the latest `of_calls` that may fail; none for any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_calls: Option<u32>,
    /// The latest attempts that are looked at, 1 to [`OF_CALLS_MAX`].
    pub of_calls: u32,
}

impl Shadow {
    /// What a run reads in place of the answer of this tool; none when it makes the call. The same for every call of the
    /// tool in that run, and what is made at one percentage is made at every higher one; no run makes it while the ramp
    /// `is_stopped`.
    #[must_use]
    pub fn stub(&self, run: &RunId, tool: &str, is_stopped: bool) -> Option<&Value> {
        if is_stopped && self.budget.is_some() {
            return Some(&self.answer);
        }
        let of = Value::list(vec![Value::str("windlass.ramp.v1"), Value::str(run.as_str()), Value::str(tool)]);
        let [a, b, c, d, e, f, g, h, ..] = of.digest().0;
        let share = u64::from_be_bytes([a, b, c, d, e, f, g, h]) % 100;
        (share >= u64::from(self.ramp_percent)).then_some(&self.answer)
    }
}

/// Parts of the calls of a tool or action that are not shown to people and other systems, as keys inwards; `*` stands for
/// each item of a list and each value of a mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Redact {
    /// Of its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Vec<Name>>,
    /// Of its results.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub result: Vec<Vec<Name>>,
}

impl Redact {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What the answers of a tool, action or hook mean for the labels of values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flow {
    /// Nobody outside writes its answers: they are not `untrusted` by themselves.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trusted: bool,
    /// Its description and schema were written by whoever provides it, and not by the operator.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
    /// Parts of its answers that are `secret`, as keys from the answer inwards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret: Vec<Vec<Name>>,
    /// Parts of its answers that have no label where its output schema bounds them, whatever it was sent. In a machine only
    /// such that it bounds: see [`Contract::bounded`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub declassified: Vec<Vec<Name>>,
}

impl Flow {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A tool that goes by plans: what a call would do is shown first, and only what was shown is done, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planning {
    /// What shows it.
    pub step: PlanStep,
    /// How long a plan may be applied, in milliseconds.
    pub expires_ms: u64,
}

/// What shows what a call would do. It changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanStep {
    /// Another tool, of class `read`, with the same arguments.
    Tool(Name),
    /// The same tool with this argument set to true.
    Argument(Name),
}

/// What a call would do, as it was shown. Nothing of it changes but that it was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The tool.
    pub tool: Name,
    /// Hash of the arguments that it was made for.
    pub arguments: Digest,
    /// Hash of what was shown.
    pub preview: Digest,
    /// When it can no longer be applied.
    pub expires_at: Timestamp,
    /// Whether it was applied, or a call that was to apply it was refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub applied: bool,
}

/// The argument by which a model names the plan that it applies.
pub const PLAN_ID: &str = "plan_id";
/// How long a plan may be applied unless the contract says otherwise: a quarter of an hour, in milliseconds.
pub const PLAN_MS_DEFAULT: u64 = 15 * 60_000;
/// Longest time that a plan may be applied: a week, in milliseconds.
pub const PLAN_MS_MAX: u64 = 7 * 86_400_000;

fn ordinary() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_ordinary(weight: &u32) -> bool {
    *weight == ordinary()
}

/// Time for one attempt of a tool, action or hook without a contract, in milliseconds.
pub const TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// Bytes of a result without a contract.
pub const OUTPUT_BYTES_DEFAULT: u64 = 1024 * 1024;

impl Contract {
    /// The same as a machine has it: without what is declassified and not bounded by the schema of answers, which keeps its
    /// labels.
    #[must_use]
    pub fn bounded(&self) -> Self {
        let mut contract = self.clone();
        contract.flow.declassified.retain(|path| bounded::check(&self.output_schema, path).is_ok());
        contract
    }

    /// The contract of a tool that declares none: a write that must not be repeated, and asks when in doubt.
    #[must_use]
    pub fn undeclared(name: &str) -> Self {
        Self {
            name: name.into(),
            description: "".into(),
            input_schema: Value::Null,
            output_schema: Value::Null,
            class: Class::Write,
            idempotency: Idempotency::None,
            on_unknown: OnUnknown::Ask,
            timeout_ms: TIMEOUT_MS_DEFAULT,
            output_bytes_max: OUTPUT_BYTES_DEFAULT,
            approval: Terms::default(),
            plan: None,
            cost_weight: ordinary(),
            latency_ms: None,
            flow: Flow::default(),
            redact: Redact::default(),
            resources: Vec::new(),
            errors: Vec::new(),
            shadow: None,
        }
    }

    /// The contract of a hook: a write that the other side recognises by its key, called at least once.
    #[must_use]
    pub fn hook(name: &str) -> Self {
        Self {
            class: Class::Write,
            idempotency: Idempotency::Key,
            on_unknown: OnUnknown::Fail,
            ..Self::undeclared(name)
        }
    }

    /// Whether a call whose outcome is unknown may simply be sent again, with the same key.
    #[must_use]
    pub fn may_repeat(&self) -> bool {
        may_repeat(self.class, self.idempotency)
    }
}

/// Whether an effect of this class and idempotency may be sent again when its outcome is unknown.
#[must_use]
pub fn may_repeat(class: Class, idempotency: Idempotency) -> bool {
    match (class, idempotency) {
        (Class::Read, _) | (Class::Write | Class::Danger, Idempotency::Key | Idempotency::Natural) => true,
        (Class::Write | Class::Danger, Idempotency::None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_takes_its_share_of_the_runs_and_keeps_what_it_took() {
        let at = |ramp_percent| Shadow { ramp_percent, answer: Value::Null, budget: None };
        let runs: Vec<RunId> = (0..2_000).map(|n| RunId::stored(&format!("run-{n}"))).collect();
        let real = |percent: u32| -> Vec<&RunId> {
            runs.iter().filter(|run| at(percent).stub(run, "pay", false).is_none()).collect()
        };
        assert_eq!((real(0).len(), real(100).len()), (0, runs.len()));
        let (few, many) = (real(10), real(40));
        assert!((140..260).contains(&few.len()) && (700..900).contains(&many.len()), "{} {}", few.len(), many.len());
        assert!(few.iter().all(|run| many.contains(run)), "a higher percentage keeps the runs of a lower one");
        let other = runs.iter().filter(|run| at(40).stub(run, "refund", false).is_none()).collect::<Vec<_>>();
        assert_ne!(many, other, "each tool has a share of its own");
        // One without a budget is not concerned.
        assert!(at(100).stub(&runs[0], "pay", true).is_none());
        let budget = Some(RampBudget { calls: Some(1), failed_calls: None, of_calls: 1 });
        assert!(Shadow { budget, ..at(100) }.stub(&runs[0], "pay", true).is_some());
    }
}
