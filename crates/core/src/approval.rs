//! Approvals: the question that a call puts to a person before it leaves, and what an answer is bound to.
//!
//! A question is a wait of the run. It is answered once, by somebody who names the hash of what was shown; a call with
//! other arguments, or asked about again, has another hash.

use serde::{Deserialize, Serialize};

use crate::budget::{Amounts, CALL_METERS, Meter};
use crate::effect::{Call, OpenCall, TimerPurpose, WaitKind};
use crate::hidden;
use crate::ids::{Digest, EffectId, Name, RunId};
use crate::policy::Ruled;
use crate::redact::REDACTED;
use crate::run::{Hold, Run};
use crate::time::Timestamp;
use crate::value::Value;

/// When a person has to agree to a call before it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// Every call is asked about, whatever the policy says.
    pub always: bool,
    /// How long an answer is waited for, in milliseconds. The call then fails with `approval.rejected`.
    pub expires_ms: u64,
    /// Who else is asked when nobody answers; nobody without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalation: Option<Escalation>,
}

/// Who else is asked when nobody answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    /// How long each is waited for before the next is asked, in milliseconds.
    pub after_ms: u64,
    /// Groups or channels, in the order in which they are asked. At most [`ESCALATIONS_MAX`].
    pub to: Vec<Name>,
}

impl Escalation {
    /// When the last is asked, in milliseconds after the question is put.
    #[must_use]
    pub fn last_ms(&self) -> u64 {
        self.after_ms.saturating_mul(self.to.len() as u64)
    }
}

/// How often a question is escalated at most.
pub const ESCALATIONS_MAX: usize = 10;

/// A question that may be escalated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalating {
    /// To whom, and when.
    pub terms: Escalation,
    /// How often it was.
    pub level: u32,
}

impl Escalating {
    /// To whom it was escalated last.
    #[must_use]
    pub fn to(&self) -> Option<&Name> {
        self.terms.to.get(self.level.checked_sub(1)? as usize)
    }

    /// To whom it is escalated next.
    #[must_use]
    pub fn next(&self) -> Option<&Name> {
        self.terms.to.get(self.level as usize).filter(|_| (self.level as usize) < ESCALATIONS_MAX)
    }
}

/// What a rule that asks says about its question. What it leaves out is as the contract says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// How long an answer is waited for, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Who else is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalation: Option<Escalation>,
}

/// How long an answer is waited for unless the contract says otherwise: one day, in milliseconds.
pub const EXPIRES_MS_DEFAULT: u64 = 86_400_000;

/// Longest time that an answer is waited for: a year, in milliseconds.
pub const EXPIRES_MS_MAX: u64 = 365 * EXPIRES_MS_DEFAULT;

impl Default for Terms {
    fn default() -> Self {
        Self { always: false, expires_ms: EXPIRES_MS_DEFAULT, escalation: None }
    }
}

impl Terms {
    /// Whether nothing differs from the default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A question that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The wait that carries it.
    pub wait: EffectId,
    /// The rule that asks, or `contract`.
    pub rule: Name,
    /// Version of its rule set; empty where there is none, or it was not kept.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub version: Name,
    /// Why it asks.
    pub reason: Name,
    /// Somebody agreed while the run was held: the call leaves when the run goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub granted: bool,
}

impl Question {
    /// The rule that asks.
    #[must_use]
    pub fn ruled(&self) -> Ruled {
        Ruled { rule: self.rule.clone(), version: self.version.clone() }
    }
}

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The call may leave.
    Approved,
    /// It may not.
    Rejected,
    /// Nobody answered in time: it may not.
    Expired,
}

impl Answer {
    /// The word: `approved`, `rejected`, `expired`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }
}

/// The hash of what is shown: the run, the question, and the call with its arguments.
#[must_use]
pub fn shown(run: &RunId, wait: EffectId, effect: EffectId, open: &OpenCall) -> Digest {
    let text = |text: &str| Value::str(text);
    let plan = match &open.call {
        Call::Tool { plan, .. } => plan.as_ref(),
        Call::Model { .. } | Call::Hook { .. } | Call::Action { .. } | Call::Verify { .. } => None,
    };
    let mut parts = vec![
        text("windlass.approval.v1"),
        text(run.as_str()),
        text(&wait.key(run)),
        text(&effect.key(run)),
        text(open.call.kind()),
        text(open.call.target()),
        text(open.class.as_str()),
        text(&open.arguments.to_string()),
    ];
    parts.extend(plan.map(|plan| text(plan)));
    Value::list(parts).digest()
}

/// The hash of what is shown of a transition: the run, the question, and the move at this step.
#[must_use]
pub fn shown_transition(run: &Run, wait: EffectId, from: &str, to: &str) -> Digest {
    let text = |text: &str| Value::str(text);
    Value::list(vec![
        text("windlass.approval.transition.v1"),
        text(run.id().as_str()),
        text(&wait.key(run.id())),
        text(&run.start.machine_name),
        text(from),
        text(to),
        Value::count(run.step),
    ])
    .digest()
}

/// The transition that a wait asks about: from where, and to where.
#[must_use]
pub fn asked_transition(run: &Run, wait: EffectId) -> Option<(&Name, &Name)> {
    match &run.waits.get(&wait)?.kind {
        WaitKind::Transition { from, to, .. } => Some((from, to)),
        WaitKind::Signal
        | WaitKind::Outcome { .. }
        | WaitKind::ToolChanged { .. }
        | WaitKind::Approval { .. }
        | WaitKind::Budget { .. }
        | WaitKind::Ceiling { .. } => None,
    }
}

/// The hash that an answer has to name.
fn expected(run: &Run, wait: EffectId) -> Option<Digest> {
    match (asked(run, wait), asked_transition(run, wait)) {
        (Some((effect, open)), _) => Some(shown(run.id(), wait, effect, open)),
        (None, Some((from, to))) => Some(shown_transition(run, wait, from, to)),
        (None, None) => None,
    }
}

/// The call that a wait asks about.
#[must_use]
pub fn asked(run: &Run, wait: EffectId) -> Option<(EffectId, &OpenCall)> {
    let effect = match run.waits.get(&wait)?.kind {
        WaitKind::Approval { effect, .. } | WaitKind::Budget { effect, .. } | WaitKind::Ceiling { effect, .. } => {
            effect
        }
        WaitKind::Signal | WaitKind::Outcome { .. } | WaitKind::ToolChanged { .. } | WaitKind::Transition { .. } => {
            return None;
        }
    };
    run.calls.get(&effect).map(|open| (effect, open))
}

/// The arguments that are shown: those of a tool, or the state and the context that an action gets.
#[must_use]
pub fn arguments(run: &Run, open: &OpenCall) -> Value {
    match &open.call {
        Call::Tool { arguments, .. } => arguments.clone(),
        Call::Action { .. } => Value::object([
            ("state", run.state.clone().map_or(Value::Null, Value::Str)),
            ("context", run.context.clone()),
        ]),
        Call::Model { .. } | Call::Hook { .. } | Call::Verify { .. } => Value::Null,
    }
}

/// Why an answer does not fit its question, as far as the run itself says. Changed arguments have to fit the schema of
/// the tool and the policy as well.
#[must_use]
pub fn refusal(run: &Run, reply: &Reply, now: Timestamp) -> Option<String> {
    let Some(expected) = expected(run, reply.wait) else {
        return Some("it is not open: somebody has answered, or the run went on without it".into());
    };
    if due(run, reply.wait).is_some_and(|due| due <= given(run, reply, now)) {
        return Some("the question has expired".into());
    }
    if reply.shown != expected {
        return Some("the answer is for something else than what the run asks: look at it again".into());
    }
    if reply.by.trim().is_empty() {
        return Some("an answer says who gives it".into());
    }
    if reply.by.chars().any(char::is_control) {
        return Some("the name of who answers has control characters".into());
    }
    if !reply.approve {
        return None;
    }
    let owners = [&run.start.scope.user, &run.start.caller.by];
    if owners.into_iter().flatten().any(|owner| is_same(owner, &reply.by)) {
        let why = "started the run or is whom it works for, and nobody approves their own calls: another person has to";
        return Some(format!("`{}` {why}", reply.by));
    }
    if reply.arguments.as_ref().is_some_and(hidden::holds_mark) {
        return Some(format!("the arguments hold `{REDACTED}` in place of a value: write the value itself"));
    }
    let kind = run.waits.get(&reply.wait).map(|wait| &wait.kind);
    let is_ceiling = matches!(kind, Some(WaitKind::Ceiling { .. }));
    if (is_ceiling || matches!(kind, Some(WaitKind::Budget { .. }))) && reply.arguments.is_some() {
        return Some("more of a budget changes no arguments".into());
    }
    if let Some(why) = unraised(run, &reply.raise, is_ceiling) {
        return Some(why);
    }
    let Some(new) = &reply.arguments else { return None };
    let call = asked(run, reply.wait).map(|(_, open)| &open.call);
    if matches!(call, Some(Call::Tool { plan: Some(_), .. })) {
        return Some("the arguments are those of the plan: reject it, and another plan can be made".into());
    }
    if !matches!((call, new), (Some(Call::Tool { .. }), Value::Map(_))) {
        return Some("only the arguments of a tool can be changed, to other JSON objects".into());
    }
    None
}

/// Whether two names stand for one person: neither case nor blanks around a name tell people apart, nor who vouches for it,
/// which stands behind it in parentheses wherever a caller over HTTP is named.
fn is_same(one: &str, other: &str) -> bool {
    let alone =
        |name: &str| name.strip_suffix(')').and_then(|name| name.rsplit_once(" (")).map(|(name, _)| name.to_owned());
    let plain = |name: &str| alone(name.trim()).unwrap_or_else(|| name.to_owned()).trim().to_lowercase();
    plain(one) == plain(other)
}

/// When a question expires. What the run was held for is no time to answer in, so its timer may say later than its wait.
#[must_use]
pub fn due(run: &Run, wait: EffectId) -> Option<Timestamp> {
    let timer = run.timers.values().find(|timer| timer.purpose == TimerPurpose::WaitTimeout { wait });
    timer.map(|timer| timer.due).or_else(|| run.waits.get(&wait)?.due)
}

/// The time that counts for an answer: when it was delivered, or taken up where nobody noted that, and the beginning of a
/// hold that is still on.
fn given(run: &Run, reply: &Reply, now: Timestamp) -> Timestamp {
    let at = reply.at.map_or(now, |at| at.min(now));
    run.hold.as_ref().and_then(Hold::since).map_or(at, |since| at.min(since))
}

/// Why an answer cannot raise what it says.
fn unraised(run: &Run, raise: &Amounts, is_ceiling: bool) -> Option<String> {
    if !raise.is_zero() && !is_ceiling {
        return Some("the question is not whether a ceiling of the run is raised".into());
    }
    let mut others = Meter::ALL.into_iter().filter(|meter| raise.get(*meter) > 0);
    let fits = |meter: &Meter| CALL_METERS.contains(meter) && run.ledger.ceilings.get(*meter).is_some();
    let other = others.find(|meter| !fits(meter))?;
    Some(format!("the run has no ceiling of {} that an answer can raise", other.as_str()))
}

/// What a person answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The wait that carries the question.
    pub wait: EffectId,
    /// Whether the call may leave.
    pub approve: bool,
    /// Who answers. Never the user who started the run, when the call is to leave.
    pub by: Name,
    /// Why.
    pub reason: Name,
    /// The hash of what was shown, see [`shown`].
    pub shown: Digest,
    /// Other arguments for the call, to be checked like those of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// By what the ceilings of the run are raised, when that is the question; by what the call lacks when zero.
    #[serde(default, skip_serializing_if = "Amounts::is_zero")]
    pub raise: Amounts,
    /// When it was delivered, by the store's clock: an answer in time counts whenever the run takes it up. Without it, the
    /// time of taking it up counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl Reply {
    /// The id under which it is delivered: the same answer counts once, whenever it is given,
    /// and a wrong one does not shut out the right one.
    #[must_use]
    pub fn delivery_id(&self) -> Name {
        let arguments = self.arguments.as_ref().map(|arguments| Value::str(arguments.digest().to_string()));
        let mut parts = vec![
            Value::Bool(self.approve),
            Value::Str(self.by.clone()),
            Value::Str(self.reason.clone()),
            Value::str(self.shown.to_string()),
            arguments.unwrap_or_default(),
        ];
        parts.extend(CALL_METERS.into_iter().map(|meter| self.raise.get(meter)).filter(|n| *n > 0).map(Value::count));
        let digest = Value::list(parts).digest();
        format!("approval:{}:{digest}", self.wait.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_the_same_whoever_vouches_for_the_name() {
        for (one, other) in
            [("ann", " Ann "), ("ann", "ann (here)"), ("ann (here)", "ANN"), ("ann (here)", "ann (there)")]
        {
            assert!(is_same(one, other), "{one} and {other}");
        }
        for (one, other) in [("ann", "bob (here)"), ("ann", "ann (a) b"), ("ann", "(ann)"), ("", "ann (x)")] {
            assert!(!is_same(one, other), "{one} and {other}");
        }
    }
}
