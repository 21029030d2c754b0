//! Breakers of a run: a tool that fails, is slow, or is asked for the same again and again is shut off for the run, and
//! attempts at models that fail again and again are not made any more. Owns the counts and the rules; both follow from the
//! journal alone.
//!
//! | breaker | trips when | then |
//! |---|---|---|
//! | `same_call` | one tool loop got alike answers to alike calls of one tool so many times | the tool is shut off |
//! | `retry_storm` | so many calls of one tool failed within a minute | the tool is shut off |
//! | `latency` | so many calls of one tool in a row took most of their time or ran out of it | the tool is shut off |
//! | `retry_storm` | so many attempts at models of the run failed within a minute | no more attempts, `run.breaker` |
//!
//! Beside them a tool loop whose turns are all the same stops with `no_progress`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::effect::{Call, OpenCall, Outcome};
use crate::failure::Code;
use crate::ids::Name;
use crate::limits::{FAILED_ATTEMPTS_MAX, FAILED_CALLS_MAX, SAME_CALLS_MAX, SLOW_CALLS_MAX, SLOW_PERCENT, STORM_MS};
use crate::time::Timestamp;
use crate::transcript::{Message, ToolRequest};
use crate::value::Value;

/// From when on breakers trip. `None` is the default of [`crate::limits`], 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breakers {
    /// Alike calls of a tool with alike answers in one tool loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_calls: Option<u32>,
    /// Failed calls of a tool within a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_calls: Option<u32>,
    /// Slow calls of a tool in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_calls: Option<u32>,
    /// Failed attempts at models within a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_attempts: Option<u32>,
}

impl Breakers {
    /// Whether nothing differs from the default.
    #[must_use]
    pub fn are_default(&self) -> bool {
        *self == Self::default()
    }

    /// The stricter of both, for each.
    #[must_use]
    pub fn stricter(&self, other: &Self) -> Self {
        let never = |n: &u32| if *n == 0 { u32::MAX } else { *n };
        let low = |a: Option<u32>, b: Option<u32>| a.into_iter().chain(b).min_by_key(never);
        Self {
            same_calls: low(self.same_calls, other.same_calls),
            failed_calls: low(self.failed_calls, other.failed_calls),
            slow_calls: low(self.slow_calls, other.slow_calls),
            failed_attempts: low(self.failed_attempts, other.failed_attempts),
        }
    }
}

/// The names of breakers, as entries and metrics have them.
pub const NAMES: [&str; 3] = ["same_call", "retry_storm", "latency"];

/// A breaker that trips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trip {
    /// Which, of [`NAMES`].
    pub breaker: &'static str,
    /// How often it happened.
    pub count: u32,
    /// What happened so often, for people and models.
    pub why: String,
}

/// How the calls of a run go. Only what goes wrong is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pulse {
    /// Tools and actions, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<Name, ToolPulse>,
    /// When attempts at models failed, oldest first, within the last minute.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Timestamp>,
}

/// How the calls of one tool go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolPulse {
    /// When calls failed, oldest first, within the last minute.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Timestamp>,
    /// Slow calls in a row.
    pub slow: u32,
    /// Why it is shut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shut: Option<Name>,
}

impl Pulse {
    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Why a tool is shut off, if it is.
    #[must_use]
    pub fn shut(&self, tool: &str) -> Option<&Name> {
        self.tools.get(tool)?.shut.as_ref()
    }

    /// Shuts a tool off.
    pub fn shut_off(&mut self, tool: &Name, why: &Name) {
        self.tools.insert(tool.clone(), ToolPulse { shut: Some(why.clone()), ..ToolPulse::default() });
    }

    /// Begins anew to count attempts at models, because the breaker has tripped.
    pub fn calm(&mut self) {
        self.failed.clear();
    }

    /// Takes note of an attempt at a model that failed.
    pub fn attempt_failed(&mut self, now: Timestamp) {
        keep(&mut self.failed, now);
    }

    /// Takes note of how a call ended. Of models only what failed counts.
    pub fn settled(&mut self, open: &OpenCall, outcome: &Outcome, now: Timestamp) {
        let failed = matches!(outcome, Outcome::Failed(failure) if !is_refusal(failure.code));
        let tool = match &open.call {
            Call::Model { .. } if failed => return self.attempt_failed(now),
            Call::Tool { tool, .. } => tool,
            Call::Action { action } => action,
            Call::Model { .. } | Call::Hook { .. } | Call::Verify { .. } => return,
        };
        if matches!(outcome, Outcome::Failed(_)) && !failed {
            return;
        }
        let slow = now.since_ms(open.at).saturating_mul(100) >= open.timeout_ms.saturating_mul(SLOW_PERCENT);
        if !failed && !slow {
            if let Some(pulse) = self.tools.get_mut(tool) {
                pulse.slow = 0;
                pulse.failed.retain(|at| now.since_ms(*at) < STORM_MS);
            }
            return self.tools.retain(|_, pulse| *pulse != ToolPulse::default());
        }
        let pulse = self.tools.entry(tool.clone()).or_default();
        pulse.slow = if slow { pulse.slow.saturating_add(1) } else { 0 };
        if failed {
            keep(&mut pulse.failed, now);
        }
    }

    /// Whether a breaker trips for a tool.
    #[must_use]
    pub fn tool_trips(&self, tool: &str, at: &Breakers) -> Option<Trip> {
        let pulse = self.tools.get(tool).filter(|pulse| pulse.shut.is_none())?;
        let failed = count(&pulse.failed);
        if reached(failed, at.failed_calls, FAILED_CALLS_MAX) {
            let why = format!("{failed} calls of it failed within a minute");
            return Some(Trip { breaker: "retry_storm", count: failed, why });
        }
        let slow = pulse.slow;
        reached(slow, at.slow_calls, SLOW_CALLS_MAX).then(|| {
            let why = format!("{slow} calls of it in a row took {SLOW_PERCENT} % of their time or more");
            Trip { breaker: "latency", count: slow, why }
        })
    }

    /// Whether one more attempt at a model that fails would be too many.
    #[must_use]
    pub fn models_trip(&self, at: &Breakers, now: Timestamp) -> Option<Trip> {
        let before = self.failed.iter().filter(|then| now.since_ms(**then) < STORM_MS).count();
        let failed = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
        reached(failed, at.failed_attempts, FAILED_ATTEMPTS_MAX).then(|| {
            let why = format!("{failed} attempts at models failed within a minute");
            Trip { breaker: "retry_storm", count: failed, why }
        })
    }
}

fn count(failed: &[Timestamp]) -> u32 {
    u32::try_from(failed.len()).unwrap_or(u32::MAX)
}

/// Failures that are counted of one tool or model; a bound beyond this would never be reached.
pub const FAILURES_KEPT_MAX: u32 = 1_000;

fn keep(failed: &mut Vec<Timestamp>, now: Timestamp) {
    failed.retain(|at| now.since_ms(*at) < STORM_MS);
    if failed.len() >= FAILURES_KEPT_MAX as usize {
        failed.remove(0);
    }
    failed.push(now);
}

fn reached(count: u32, configured: Option<u32>, default: u32) -> bool {
    let most = configured.unwrap_or(default);
    most > 0 && count >= most
}

/// Whether the call was never made: it says nothing about its tool.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::ApprovalRejected
            | Code::BudgetExceeded
            | Code::PolicyDenied
            | Code::ToolDenied
            | Code::ToolOverloaded
            | Code::HookOverloaded
            | Code::RunAttemptLost
    )
}

/// Whether the last answer of a tool loop is one too many of the same: calls of the same tool, with alike arguments, that
/// got alike answers. Anything that a hook or a person said in between begins the count anew.
#[must_use]
pub fn same_call(tail: &[Message], at: &Breakers) -> Option<(Name, Trip)> {
    let since = tail.iter().rposition(|message| matches!(message, Message::User { .. })).map_or(0, |place| place + 1);
    let tail = &tail[since..];
    let (last, answer) = answers(tail).last()?;
    let same = answers(tail).filter(|(call, text)| {
        call.name == last.name && alike(&call.arguments, &last.arguments) && alike_texts(text, answer)
    });
    let count = u32::try_from(same.count()).unwrap_or(u32::MAX);
    reached(count, at.same_calls, SAME_CALLS_MAX).then(|| {
        let why = format!("{count} calls of it with such arguments had the same answer");
        (last.name.clone(), Trip { breaker: "same_call", count, why })
    })
}

/// Every call that was answered, with its answer, oldest first.
fn answers(tail: &[Message]) -> impl Iterator<Item = (&ToolRequest, &str)> {
    let mut asked: &[ToolRequest] = &[];
    tail.iter().filter_map(move |message| match message {
        Message::Assistant { tool_calls, .. } => {
            asked = tool_calls;
            None
        }
        Message::Tool { call_id, content, .. } => {
            asked.iter().find(|call| call.id == *call_id).map(|call| (call, &**content))
        }
        Message::System { .. } | Message::User { .. } => None,
    })
}

/// Whether two values are the same but for the case, space and punctuation of their texts.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Str(one), Value::Str(other)) => alike_texts(one, other),
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other.iter()).all(|(one, other)| alike(one, other))
        }
        (Value::Map(one), Value::Map(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| alike(value, other)))
        }
        (one, other) => one == other,
    }
}

fn folded(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase)
}

fn alike_texts(one: &str, other: &str) -> bool {
    // Texts without letters and digits are told apart by what they are.
    one == other || (folded(one).next().is_some() && folded(one).eq(folded(other)))
}

#[cfg(test)]
mod tests;
