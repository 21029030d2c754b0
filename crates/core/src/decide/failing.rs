//! Failures and endings: what is open is closed first, so nothing outlives the state that asked for it.

use super::permit::{About, Permit};
use super::{Flow, Turn};
use crate::budget::Amounts;
use crate::effect::{Effect, OpenCall, TimerPurpose};
use crate::failure::{Code, Failure};
use crate::ids::Name;
use crate::input::{Ending, Input};
use crate::journal::Entry;
use crate::machine::{HookKind, State};
use crate::policy::Question;
use crate::run::Stage;
use crate::value::Value;

/// The questions that the failures of a state put to the policy.
pub(super) fn questions(state: &State) -> impl Iterator<Item = Question> {
    let recoveries = state.on_error.by_name.iter().map(|(_, to)| to).chain(&state.on_error.default);
    recoveries.map(|to| Question::TakeTransition { from: state.name.clone(), to: to.clone() })
}

impl Turn<'_> {
    /// The current state has failed.
    pub(super) fn raise(&mut self, failure: Failure) {
        if self.run.ending.is_some() {
            return;
        }
        let in_failure = self.run.failure.is_some();
        let shortening = self.shortening(&failure);
        self.failure_labels();
        self.close_all(false);
        self.cancel_children("the state that waited for it failed", false);
        self.emit(Entry::FailureRaised { failure: failure.clone() });
        let (Some(state), false) = (self.state(), in_failure) else {
            return self.end(Ending::Failed { failure, state: self.run.state.clone() });
        };
        self.set_context(vec![
            ("last_error".into(), Value::Str(failure.message.clone())),
            ("last_error_type".into(), Value::Str(failure.display_type())),
        ]);
        if let Some(shortening) = shortening {
            return self.shorten(shortening);
        }
        let matched = failure
            .names()
            .into_iter()
            .find_map(|name| state.on_error.by_name.iter().find(|(key, _)| *key == name))
            .map(|(key, to)| (key.clone(), to.clone()));
        match matched.or_else(|| state.on_error.default.clone().map(|to| ("default".into(), to))) {
            Some((by, to)) => self.recover_to(by, to, &failure),
            None => self.goto(Stage::Failing),
        }
    }

    /// A failure leads elsewhere, where the policy allows that transition. Where it does not the run is over: nothing else
    /// was meant to come of the failure.
    fn recover_to(&mut self, by: Name, to: Name, failure: &Failure) {
        let from = self.run.state.clone().unwrap_or_default();
        let question = Question::TakeTransition { from: from.clone(), to: to.clone() };
        let mut denied = match self.permit(&question, About::Nothing) {
            Ok(Permit::Granted(_)) => return self.route(by, to),
            Ok(Permit::Asks(asked)) => {
                self.deny(&question, Code::PolicyDenied, Some(asked.ruled()), About::Nothing);
                let message = format!("rule `{}` asks for an approval, which `on_error` does not wait for", asked.rule);
                Failure::new(Code::PolicyDenied, message).detail(Value::object([("rule", Value::Str(asked.rule))]))
            }
            Err(denied) => denied,
        };
        let why =
            format!("{}; so the failure of `{from}` does not lead to `{to}`: {}", denied.message, failure.message);
        denied.message = why.into();
        self.end(Ending::Failed { failure: denied, state: Some(from) });
    }

    pub(super) fn route(&mut self, by: Name, to: Name) {
        let from = self.run.state.clone().unwrap_or_default();
        self.emit(Entry::FailureRouted { from, to: to.clone(), by });
        self.enter(&to);
    }

    /// The error hooks have the last word.
    pub(super) fn recover(&mut self) -> Result<Flow, Failure> {
        let Some(failure) = self.run.failure.clone() else { return Ok(Flow::Rest) };
        let Some(answer) = self.hooks(HookKind::Error, || Value::Null)? else { return Ok(Flow::Rest) };
        match answer {
            Value::Str(to) => self.route("hook".into(), to),
            _ => self.end(Ending::Failed { failure, state: self.run.state.clone() }),
        }
        Ok(Flow::Go)
    }

    /// The ending is decided.
    pub(super) fn end(&mut self, ending: Ending) {
        if self.run.ending.is_some() {
            return;
        }
        let asked = matches!(ending, Ending::Cancelled { .. });
        self.close_all(true);
        self.cancel_children("its parent has ended", asked);
        self.emit(Entry::EndingDecided { ending });
        self.goto(Stage::Draining);
    }

    /// Abandons calls and closes waits and timers; the run's own deadline only when the run is over.
    fn close_all(&mut self, over: bool) {
        // A call in doubt may have happened as well.
        let may_have_left = |call: &OpenCall| call.is_out() || call.doubt.is_some();
        let calls: Vec<_> = self.run.calls.iter().map(|(id, call)| (*id, may_have_left(call), call.reserved)).collect();
        for (effect, out, reserved) in calls {
            let asked = self.decision.effects.len();
            self.decision.effects.retain(|other| *other != Effect::Call(effect));
            let unsent = self.decision.effects.len() < asked;
            // A call that is out may be served and billed although nobody listens any more.
            let used = if out && !unsent { reserved } else { Amounts::ZERO };
            self.emit(Entry::CallAbandoned { effect, used, estimated: !used.is_zero() });
            if !unsent {
                self.ask(Effect::Abandon(effect));
            }
        }
        let waits: Vec<_> = self.run.waits.keys().copied().collect();
        for wait in waits {
            self.close_wait(wait, None);
        }
        self.cancel_timers(|purpose| over || purpose != TimerPurpose::RunDeadline);
    }

    /// Asks children to stop: those that are waited for, and with `all` also the launched ones.
    pub(super) fn cancel_children(&mut self, reason: &str, all: bool) {
        let open: Vec<_> = self
            .run
            .children
            .iter()
            .filter(|(_, child)| !child.cancelled && (all || child.awaited))
            .map(|(id, _)| id.clone())
            .collect();
        for child in open {
            let reason: Name = reason.into();
            self.emit(Entry::ChildCancelled { child: child.clone(), reason: reason.clone() });
            let input = Box::new(Input::Cancel { reason });
            self.ask(Effect::Tell { to: child, id: "cancel".into(), input });
        }
    }
}
