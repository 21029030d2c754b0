//! Calls that wait for a person: asking, the answer, and what happens when nobody answers.

use super::{About, Permit, Rejected, Turn, labels, step};
use crate::approval::{
    Answer, Asking, Escalation, Reply, Terms, asked, asked_transition, refusal, shown, shown_transition,
};
use crate::budget::Amounts;
use crate::contract::Contract;
use crate::effect::{Call, Effect, OpenCall, OpenWait, Outcome, TimerPurpose, WaitKind};
use crate::eval::Evaluator;
use crate::failure::{Code, Failure};
use crate::ids::{EffectId, Name};
use crate::input::Facts;
use crate::journal::Entry;
use crate::label::LabelSet;
use crate::machine::Machine;
use crate::policy::{self, Question, Ruled, Verdict};
use crate::run::{Run, Stage};
use crate::value::Value;

/// Why a call asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The rule, or `contract`.
    pub(super) rule: Name,
    /// Version of its rule set; empty where there is none.
    pub(super) version: Name,
    /// Why, for people.
    pub(super) reason: Name,
    /// What the rule says about the question.
    pub(super) asking: Asking,
}

impl Asked {
    /// Asked by a rule that says nothing about the question.
    pub(super) fn new(rule: &str, reason: Name) -> Self {
        Self { rule: rule.into(), version: "".into(), reason, asking: Asking::default() }
    }

    /// The rule that asks.
    pub(super) fn ruled(&self) -> Ruled {
        Ruled { rule: self.rule.clone(), version: self.version.clone() }
    }

    /// The reason that lies in a contract, if one does.
    pub(super) fn by_contract(contract: &Contract) -> Option<Self> {
        contract.approval.always.then(|| {
            let reason = format!("the contract of `{}` asks for an approval of every call", contract.name);
            Self::new("contract", reason.into())
        })
    }
}

/// The question that an approved call puts to the policy, with the arguments that it would leave with.
fn question(run: &Run, reply: &Reply, labels: LabelSet, by_value: bool) -> Option<Question> {
    let (_, open) = asked(run, reply.wait)?;
    question_of(run, &open.call, reply.arguments.as_ref(), labels, by_value)
}

/// The same for every set of labels that its arguments may have by then.
pub(super) fn questions(run: &Run, reply: &Reply) -> impl Iterator<Item = Question> {
    LabelSet::ALL.into_iter().filter_map(|labels| question(run, reply, labels, true))
}

/// The question that a call which waited puts to the policy once more before it leaves, with other arguments than its own
/// when there are some. `by_value` says whether those of a state's call are part of it.
pub(super) fn question_of(
    run: &Run,
    call: &Call,
    edited: Option<&Value>,
    labels: LabelSet,
    by_value: bool,
) -> Option<Question> {
    match call {
        Call::Tool { tool, arguments, .. } if step::is_by_state(run) => {
            let arguments = edited.unwrap_or(arguments);
            Some(if by_value { step::question_with(tool, arguments, labels) } else { step::question(tool, labels) })
        }
        Call::Tool { tool, arguments, .. } => {
            let arguments = edited.unwrap_or(arguments).digest();
            Some(Question::CallTool { tool: tool.clone(), arguments, agent: agent(run), labels })
        }
        Call::Action { action } => Some(step::question(action, labels)),
        Call::Model { .. } | Call::Hook { .. } | Call::Verify { .. } => None,
    }
}

/// The labels that the arguments of a call have now.
pub(super) fn labels_now(run: &Run, call: &Call) -> LabelSet {
    labels::arguments(run, matches!(call, Call::Tool { .. }) && !step::is_by_state(run))
}

/// The agent whose model asked for the calls that are open.
fn agent(run: &Run) -> Option<Name> {
    run.exec.as_ref().map(|exec| exec.agent.clone())
}

/// Refuses answers that do not fit their question. Nothing is recorded, and the question stays open. Gives what the rules
/// say of changed arguments that they deny, which is recorded; the question stays open as well.
pub(super) fn admit<'f>(
    machine: &Machine,
    evaluator: &dyn Evaluator,
    run: &Run,
    reply: &Reply,
    facts: &'f Facts,
) -> Result<Option<(Question, &'f Verdict)>, Rejected> {
    let not_now = |text: String| Err(Rejected::NotNow(text));
    if asked(run, reply.wait).is_none() && asked_transition(run, reply.wait).is_none() {
        return Err(Rejected::NotOpen(format!("approval {}", reply.wait)));
    }
    if let Some(why) = refusal(run, reply, facts.now) {
        return not_now(why);
    }
    let (Some((_, open)), Some(arguments)) = (asked(run, reply.wait), &reply.arguments) else { return Ok(None) };
    let tool = open.call.target();
    if let Some(contract) = machine.tools.get(tool).filter(|contract| !contract.input_schema.is_null())
        && let Err(problems) = evaluator.fit(&contract.input_schema, arguments)
    {
        return not_now(format!("the changed arguments do not fit the schema of `{tool}`: {}", problems.join("; ")));
    }
    let labels = labels_now(run, &open.call);
    let Some(question) = question_of(run, &open.call, Some(arguments), labels, facts.reads_arguments) else {
        return Ok(None);
    };
    let denied = facts.verdict(&question).filter(|verdict| verdict.answer == policy::Answer::Deny);
    Ok(denied.map(|verdict| (question, verdict)))
}

impl<'a> Turn<'a> {
    /// Records that the rules deny the arguments that an answer changed. Its question stays open.
    pub(super) fn deny_changed(&mut self, arguments: &Value, question: &Question, verdict: &'a Verdict) {
        self.note(verdict);
        self.deny(question, Code::PolicyDenied, Some(verdict.ruled()), About::Arguments(arguments));
    }
}

impl Turn<'_> {
    /// The question that an open call puts to the policy as it is.
    pub(super) fn question_now(&self, call: &Call) -> Option<Question> {
        question_of(self.run, call, None, labels_now(self.run, call), self.facts.reads_arguments)
    }

    /// Puts a call that has just been committed to a person.
    pub(super) fn ask_approval(&mut self, effect: EffectId, why: Asked, terms: &Terms) {
        let wait = self.next_effect();
        let Some(open) = self.run.calls.get(&effect) else { return };
        let Asked { rule, version, reason, asking } = why;
        let due = Some(self.facts.now.plus_ms(asking.expires_ms.unwrap_or(terms.expires_ms)));
        let escalation = asking.escalation.or_else(|| terms.escalation.clone());
        let kind = WaitKind::Approval { effect, shown: shown(self.run.id(), wait, effect, open) };
        // Without a channel no signal can reach it: an answer comes from whoever may give one.
        self.emit(Entry::WaitOpened { effect: wait, wait: OpenWait::new("".into(), kind, due) });
        self.ask(Effect::OpenWait(wait));
        self.emit(Entry::ApprovalAsked { effect, wait, rule, version, reason, escalation });
        self.await_answer(wait);
    }

    /// Sets the timers of a question that was just put: when it expires, and when somebody else is asked.
    fn await_answer(&mut self, wait: EffectId) {
        if let Some(due) = self.run.waits.get(&wait).and_then(|open| open.due) {
            self.set_timer(due, TimerPurpose::WaitTimeout { wait });
        }
        self.plan_escalation(wait);
    }

    /// Sets the timer after which the next is asked, unless the question expires before.
    fn plan_escalation(&mut self, wait: EffectId) {
        let Some(escalating) = self.run.escalating.get(&wait) else { return };
        let at = self.facts.now.plus_ms(escalating.terms.after_ms);
        let due = self.run.waits.get(&wait).and_then(|open| open.due);
        if escalating.next().is_some() && due.is_none_or(|due| at < due) {
            self.set_timer(at, TimerPurpose::Escalation { wait });
        }
    }

    /// Nobody has answered in the time of this level.
    pub(super) fn escalate(&mut self, wait: EffectId) {
        let Some(escalating) = self.run.escalating.get(&wait) else { return };
        let Some(to) = escalating.next().cloned() else { return };
        let level = escalating.level + 1;
        self.emit(Entry::ApprovalEscalated { wait, level, to });
        self.plan_escalation(wait);
    }

    /// Puts a transition to a person. The run stays where it is.
    pub(super) fn ask_transition(&mut self, from: &Name, to: &Name, index: u32, why: Asked) {
        let wait = self.next_effect();
        let Asked { rule, version, reason, asking } = why;
        let Asking { expires_ms, escalation } = asking;
        let due = Some(self.facts.now.plus_ms(expires_ms.unwrap_or(Terms::default().expires_ms)));
        let shown = shown_transition(self.run, wait, from, to);
        let (from, to) = (from.clone(), to.clone());
        let escalation: Option<Escalation> = escalation;
        let kind = WaitKind::Transition { from, to, index, rule, version, reason, shown, escalation };
        self.emit(Entry::WaitOpened { effect: wait, wait: OpenWait::new("".into(), kind, due) });
        self.ask(Effect::OpenWait(wait));
        self.await_answer(wait);
    }

    /// A person answered about a transition, or nobody did in time.
    fn on_transition(&mut self, wait: EffectId, answer: Answer, by: Name, reason: Name) {
        let Some(WaitKind::Transition { from, to, index, shown, .. }) =
            self.run.waits.get(&wait).map(|open| open.kind.clone())
        else {
            return;
        };
        self.close_wait(wait, None);
        let (at, what) = ((from.clone(), to.clone()), (by.clone(), reason.clone()));
        self.emit(Entry::TransitionAnswered { wait, from: at.0, to: at.1, answer, by: what.0, reason: what.1, shown });
        let refused = |why: String| {
            let message = format!("the transition from `{from}` to `{to}` was not taken: {why}");
            Failure::new(Code::PolicyDenied, message)
        };
        match answer {
            Answer::Rejected => self.raise(refused(format!("refused by {by}: {reason}"))),
            Answer::Expired => self.raise(refused("nobody approved it in time".into())),
            // The rules may have changed since the question was put.
            Answer::Approved => {
                let question = Question::TakeTransition { from: from.clone(), to: to.clone() };
                match self.permit(&question, About::Nothing) {
                    Ok(_) => self.goto(Stage::Moving { to, index }),
                    Err(failure) => self.raise(failure),
                }
            }
        }
    }

    pub(super) fn on_approval(&mut self, reply: Reply) {
        if asked_transition(self.run, reply.wait).is_some() {
            let answer = if reply.approve { Answer::Approved } else { Answer::Rejected };
            return self.on_transition(reply.wait, answer, reply.by, reply.reason);
        }
        let Some((effect, open)) = asked(self.run, reply.wait).map(|(effect, open)| (effect, open.clone())) else {
            return;
        };
        let question = question(self.run, &reply, labels_now(self.run, &open.call), self.facts.reads_arguments);
        let short = self.short_budget(reply.wait);
        let is_room = short.is_some();
        let is_ceiling = !open.wants.is_zero() && is_room;
        self.close_wait(reply.wait, None);
        let Reply { approve, by, reason, arguments, raise, .. } = reply;
        let answer = if approve { Answer::Approved } else { Answer::Rejected };
        let resources = arguments.as_ref().map(|arguments| {
            self.label_person(&by);
            self.hide_chosen(open.call.target(), arguments);
            self.touched(open.call.target(), arguments, labels_now(self.run, &open.call))
        });
        let (said, resources) = ((by.clone(), reason.clone()), resources.unwrap_or_default());
        self.emit(Entry::ApprovalAnswered { effect, answer, by: said.0, reason: said.1, arguments, resources });
        if let (false, Some(mut failure)) = (approve, short) {
            failure.message = format!("{}; {by} refused more: {reason}", failure.message).into();
            return self.settle_refused(effect, &open, failure);
        }
        if !approve {
            return self.refuse(effect, &open, format!("refused by {by}: {reason}"));
        }
        if let Some(why) = self.stale_plan(&open) {
            return self.settle_refused(effect, &open, Failure::new(Code::ToolDenied, why));
        }
        // The rules may have changed since the question was put.
        let allowed = self.model_permitted(effect, &open);
        let ask = |turn: &mut Self, question| turn.permit(&question, About::Call(effect));
        let asked = |turn: &mut Self| question.map_or(Ok(Permit::Granted(None)), |question| ask(turn, question));
        let permit = match allowed.and_then(|()| asked(self)) {
            Ok(permit) => permit,
            Err(failure) => return self.settle_refused(effect, &open, failure),
        };
        if is_ceiling {
            self.raise_ceilings(effect, raise, &by);
        }
        match permit {
            // Whoever gave it room was not asked whether it may leave.
            Permit::Asks(why) if is_room && open.agreed.as_ref() != Some(&why.rule) => {
                let contract = self.contract_of(&open.call);
                self.ask_approval(effect, why, &contract.approval);
            }
            Permit::Granted(_) | Permit::Asks(_) if self.run.hold.is_some() => {}
            Permit::Granted(_) | Permit::Asks(_) => {
                self.note_allowed(effect);
                self.leave(effect);
            }
        }
    }

    /// Nobody answered in time.
    pub(super) fn approval_expired(&mut self, wait: EffectId) {
        if asked_transition(self.run, wait).is_some() {
            return self.on_transition(wait, Answer::Expired, "".into(), "nobody answered in time".into());
        }
        let Some((effect, open)) = asked(self.run, wait).map(|(effect, open)| (effect, open.clone())) else {
            return;
        };
        self.close_wait(wait, None);
        let reason: Name = "nobody answered in time".into();
        let (answer, resources) = (Answer::Expired, Vec::new());
        self.emit(Entry::ApprovalAnswered { effect, answer, by: "".into(), reason, arguments: None, resources });
        self.refuse(effect, &open, "nobody approved it in time".into());
    }

    fn refuse(&mut self, effect: EffectId, open: &OpenCall, why: String) {
        let message = format!("the call of `{}` was not made: {why}", open.call.target());
        self.settle_refused(effect, open, Failure::new(Code::ApprovalRejected, message));
    }

    pub(super) fn settle_refused(&mut self, effect: EffectId, open: &OpenCall, failure: Failure) {
        let (attempt, outcome) = (open.attempt, Outcome::Failed(failure));
        self.emit(Entry::CallSettled { effect, attempt, outcome, used: Amounts::ZERO, estimated: false });
    }
}

/// Whether a wait is a question that a person answers.
pub(super) fn asks_approval(run: &Run, wait: EffectId) -> bool {
    let is_answered = |kind: &WaitKind| {
        matches!(kind, WaitKind::Approval { .. } | WaitKind::Ceiling { .. } | WaitKind::Transition { .. })
    };
    run.waits.get(&wait).is_some_and(|open| is_answered(&open.kind))
}

/// Whether a wait is for room in a budget.
pub(super) fn asks_budget(run: &Run, wait: EffectId) -> bool {
    run.waits.get(&wait).is_some_and(|open| matches!(open.kind, WaitKind::Budget { .. }))
}
