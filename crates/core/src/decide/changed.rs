//! Calls of tools that are not what was accepted: they wait for the person who decides about the tool, and are judged again.
//!
//! Whoever decides sends a signal. A process that began to wait while they did so hears nothing, and one may know of the
//! decision only once it was started again: so a call is also judged again by itself, after longer and longer pauses.

use super::Turn;
use crate::budget::Amounts;
use crate::effect::{Call, Effect, OpenCall, OpenWait, Outcome, TimerPurpose, WaitKind, tool_channel};
use crate::failure::{Code, Failure};
use crate::ids::{EffectId, Name};
use crate::journal::Entry;
use crate::limits::{TOOL_LOOKS_MAX, TOOL_PAUSE_MS_MAX, TOOL_PAUSE_MS_MIN};
use crate::value::Value;

/// How often the pause is doubled: until it is as long as it may be.
const DOUBLINGS_MAX: u32 = 8;

impl Turn<'_> {
    /// Whether a call was stopped because its tool changed, and waits for a person by now.
    pub(super) fn awaits_tool(&mut self, effect: EffectId, open: &OpenCall, outcome: &Outcome) -> bool {
        let (Outcome::Failed(failure), Call::Tool { .. } | Call::Action { .. }) = (outcome, &open.call) else {
            return false;
        };
        if failure.code != Code::ToolChanged || open.attempt >= TOOL_LOOKS_MAX {
            return false;
        }
        let said = |key: &str| failure.detail.get(key).and_then(Value::as_str).map(Name::from);
        let (server, tool) = (said("server").unwrap_or_default(), said("tool"));
        let tool = tool.unwrap_or_else(|| open.call.target().clone());
        let wait = self.next_effect();
        let channel = tool_channel(&server, &tool);
        let kind = WaitKind::ToolChanged { effect, server, tool };
        self.emit(Entry::WaitOpened { effect: wait, wait: OpenWait::new(channel, kind, None) });
        self.ask(Effect::OpenWait(wait));
        let doubled = TOOL_PAUSE_MS_MIN << (open.attempt - 1).min(DOUBLINGS_MAX);
        // It did not leave, so that it counts as no call.
        self.back_off(
            effect,
            open,
            failure.clone(),
            Amounts::ZERO,
            false,
            doubled.clamp(TOOL_PAUSE_MS_MIN, TOOL_PAUSE_MS_MAX),
        );
        true
    }

    /// The wait for a decision about the tool of a call.
    pub(super) fn changed_wait(&self, call: EffectId) -> Option<EffectId> {
        let is_its = |kind: &WaitKind| matches!(kind, WaitKind::ToolChanged { effect, .. } if *effect == call);
        self.run.waits.iter().find(|(_, open)| is_its(&open.kind)).map(|(wait, _)| *wait)
    }

    /// Somebody has decided about the tool, or it is time to look: the call is made, unless it must not be made by now.
    pub(super) fn judge_again(&mut self, effect: EffectId) {
        if let Some(wait) = self.changed_wait(effect) {
            self.close_wait(wait, None);
        }
        self.cancel_timers(|purpose| purpose == TimerPurpose::Backoff { call: effect });
        let Some(open) = self.run.calls.get(&effect).cloned() else { return };
        let refused = match self.stale_plan(&open) {
            Some(why) => Err(Failure::new(Code::ToolDenied, why)),
            None => self.still_permitted(effect, &open),
        };
        match refused {
            Ok(()) => self.attempt_again(effect),
            Err(failure) => self.settle_refused(effect, &open, failure),
        }
    }
}
