//! Calls and the budgets that bind many runs: held from what the run drew, drawn for when that is too little, refused, and
//! returned when the run rests.
//!
//! One draw is out at a time. Calls that need one wait for their turn, in the order in which they were made.

use super::approval::{self, Asked};
use super::{About, Permit, Turn, ceiling, hold};
use crate::approval::shown;
use crate::effect::{Call, Effect, OpenCall, OpenWait, TimerPurpose, WaitKind};
use crate::escrow::{self, Beyond, Drawn, Refusal, Share, rests};
use crate::failure::{Code, Failure};
use crate::ids::{EffectId, Name};
use crate::journal::Entry;
use crate::label::LabelSet;
use crate::policy::Question;
use crate::run::Run;
use crate::value::Value;

/// The questions that calls put to the policy once there is room for them in a budget or a ceiling, or once enough was drawn
/// for them, which any input may bring about, and once a hold ends.
pub(super) fn questions(run: &Run) -> impl Iterator<Item = Question> {
    let waiting = run.waits.values().filter_map(|open| match open.kind {
        WaitKind::Budget { effect, .. } | WaitKind::Ceiling { effect, .. } | WaitKind::ToolChanged { effect, .. } => {
            Some(&run.calls.get(&effect)?.call)
        }
        WaitKind::Signal | WaitKind::Outcome { .. } | WaitKind::Approval { .. } | WaitKind::Transition { .. } => None,
    });
    let drawing = run.calls.values().filter(|open| open.draws).map(|open| &open.call);
    waiting.chain(drawing).chain(hold::granted(run).map(|(_, open)| &open.call)).flat_map(|call| {
        LabelSet::ALL.into_iter().filter_map(|labels| approval::question_of(run, call, None, labels, true))
    })
}

impl Turn<'_> {
    /// Lets a call leave, once enough is held for it of the run's ceilings and of every budget that applies.
    pub(super) fn leave(&mut self, effect: EffectId) {
        if !self.has_room(effect) {
            return;
        }
        let Some(open) = self.run.calls.get(&effect) else { return };
        let shares = self.shares(open);
        if shares.is_empty() {
            if open.draws {
                // The budget that it waited for is gone: it waits for nothing any more.
                self.emit(Entry::ShareHeld { effect, shares });
            }
            return self.ask(Effect::Call(effect));
        }
        let is_first = !self.run.calls.values().any(|other| other.draws);
        if is_first && self.run.escrow.covers(&shares) {
            self.emit(Entry::ShareHeld { effect, shares });
            return self.ask(Effect::Call(effect));
        }
        self.emit(Entry::DrawAwaited { effect });
        self.draw_next(Some(effect));
    }

    fn shares(&self, open: &OpenCall) -> Vec<Share> {
        let priced = match &open.call {
            Call::Model { agent, .. } => self.quote(agent, open.route.as_deref()).is_some(),
            Call::Tool { .. } | Call::Hook { .. } | Call::Action { .. } | Call::Verify { .. } => true,
        };
        escrow::needs(&self.facts.budgets, &self.run.start.scope, open, priced)
    }

    /// Draws for the first call that waits for it. One that needs no draw any more leaves, if the rules of now let it:
    /// they have just been asked about the one that is `judged`.
    fn draw_next(&mut self, judged: Option<EffectId>) {
        while self.run.escrow.asked.is_none() {
            let mut waiting = self.run.calls.iter().filter(|(_, open)| open.draws && open.approval.is_none());
            let Some((effect, open)) = waiting.next().map(|(effect, open)| (*effect, open)) else { return };
            let shares = self.shares(open);
            if self.run.escrow.covers(&shares) {
                if judged == Some(effect) || self.may_still(effect) {
                    self.emit(Entry::ShareHeld { effect, shares });
                    self.ask(Effect::Call(effect));
                }
                continue;
            }
            let number = self.next_effect();
            self.emit(Entry::DrawAsked { number, call: effect, shares });
            self.ask(Effect::Draw(number));
        }
    }

    pub(super) fn on_drawn(&mut self, number: EffectId, answer: Drawn) {
        let Some(asked) = self.run.escrow.asked.clone() else { return };
        self.emit(Entry::DrawAnswered { number, answer: answer.clone() });
        let effect = asked.call;
        let waits = self.run.calls.get(&effect).is_some_and(|open| open.draws && open.approval.is_none());
        // The rules may have changed since it was decided on: what was drawn is returned then, when the run rests.
        let leaves = waits && matches!(answer, Drawn::Granted(_)) && self.may_still(effect);
        match answer {
            Drawn::Granted(free) if leaves => {
                // By what it was asked for: a budget that came since binds the next call, and one that is gone none.
                let mut shares = asked.shares;
                for share in &mut shares {
                    let free = free.get(&share.scope).copied().unwrap_or_default();
                    share.amounts = share.amounts.at_most(&free);
                }
                self.emit(Entry::ShareHeld { effect, shares });
                self.ask(Effect::Call(effect));
            }
            Drawn::Refused(refusal) if waits => self.too_little(effect, refusal),
            Drawn::Granted(_) | Drawn::Refused(_) | Drawn::Stale => {}
        }
        self.draw_next(None);
    }

    fn too_little(&mut self, effect: EffectId, refusal: Refusal) {
        let Some(open) = self.run.calls.get(&effect).cloned() else { return };
        match refusal.beyond {
            Beyond::Fail => self.settle_refused(effect, &open, exceeded(self.run, &refusal)),
            Beyond::Ask => self.ask_budget(effect, refusal),
        }
    }

    /// Puts a call for which a budget has too little to people.
    fn ask_budget(&mut self, effect: EffectId, refusal: Refusal) {
        let wait = self.next_effect();
        let Some(open) = self.run.calls.get(&effect) else { return };
        let due = refusal.until;
        let why = Asked::new("budget", exceeded(self.run, &refusal).message);
        let shown = shown(self.run.id(), wait, effect, open);
        let channel = escrow::channel(&refusal.scope);
        let kind = WaitKind::Budget { effect, shown, refusal: Box::new(refusal) };
        self.emit(Entry::WaitOpened { effect: wait, wait: OpenWait::new(channel, kind, due) });
        self.ask(Effect::OpenWait(wait));
        let Asked { rule, version, reason, .. } = why;
        self.emit(Entry::ApprovalAsked { effect, wait, rule, version, reason, escalation: None });
        if let Some(due) = due {
            self.set_timer(due, TimerPurpose::WaitTimeout { wait });
        }
    }

    /// A budget may have more: its cap was raised, or a new period has begun.
    pub(super) fn budget_moved(&mut self, wait: EffectId, signal: Option<Name>) {
        let Some(WaitKind::Budget { effect, .. }) = self.run.waits.get(&wait).map(|open| open.kind.clone()) else {
            return;
        };
        self.close_wait(wait, signal);
        if self.may_still(effect) {
            self.emit(Entry::DrawAwaited { effect });
            self.draw_next(Some(effect));
        }
    }

    /// Whether the policy still allows a call that waited for room: the rules may have changed in the meantime. Refuses the
    /// call, or puts it to a person, where it does not.
    pub(super) fn may_still(&mut self, effect: EffectId) -> bool {
        let Some(open) = self.run.calls.get(&effect).cloned() else { return false };
        if let Some(why) = self.stale_plan(&open) {
            self.settle_refused(effect, &open, Failure::new(Code::ToolDenied, why));
            return false;
        }
        if let Err(failure) = self.model_permitted(effect, &open) {
            self.settle_refused(effect, &open, failure);
            return false;
        }
        let permit = self.question_now(&open.call).map(|question| self.permit(&question, About::Call(effect)));
        match permit {
            None | Some(Ok(Permit::Granted(_))) => {
                self.note_allowed(effect);
                return true;
            }
            Some(Ok(Permit::Asks(why))) if open.agreed.as_ref() == Some(&why.rule) => {
                self.note_allowed(effect);
                return true;
            }
            Some(Ok(Permit::Asks(why))) => {
                let contract = self.contract_of(&open.call);
                self.ask_approval(effect, why, &contract.approval);
            }
            Some(Err(failure)) => self.settle_refused(effect, &open, failure),
        }
        false
    }

    /// Why a wait for more of a budget or a ceiling is there, as the failure that its call would have.
    pub(super) fn short_budget(&self, wait: EffectId) -> Option<Failure> {
        match &self.run.waits.get(&wait)?.kind {
            WaitKind::Budget { refusal, .. } => Some(exceeded(self.run, refusal)),
            WaitKind::Ceiling { over, .. } => Some(ceiling::exceeded(self.run, *over)),
            WaitKind::Signal
            | WaitKind::Outcome { .. }
            | WaitKind::ToolChanged { .. }
            | WaitKind::Approval { .. }
            | WaitKind::Transition { .. } => None,
        }
    }

    /// A run that rests, or is about to end, holds nothing that others could use.
    pub(super) fn give_back(&mut self, ends: bool) {
        if self.run.escrow.untold && (ends || rests(self.run)) {
            let number = self.next_effect();
            self.emit(Entry::SharesReturned { number });
            self.ask(Effect::GiveBack(number));
        }
    }
}

/// The failure for a budget that has too little, with what used most of it in this run.
fn exceeded(run: &Run, refusal: &Refusal) -> Failure {
    let Refusal { scope, meter, cap, left, wanted, .. } = refusal;
    let top = run.escrow.top(*meter);
    let meter = meter.as_str();
    let message = format!("the budget of `{scope}` has {left} of {cap} {meter} left, the call needs {wanted}");
    let message = message + &ceiling::most(&top);
    Failure::new(Code::BudgetExceeded, message).detail(Value::object([
        ("scope", Value::Str(scope.clone())),
        ("meter", Value::str(meter)),
        ("cap", Value::count(*cap)),
        ("left", Value::count(*left)),
        ("wanted", Value::count(*wanted)),
        ("drivers", ceiling::drivers(&top)),
    ]))
}
