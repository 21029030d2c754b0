//! What stands around a durable decision: the routes that it may take; then others are woken, calls begin and are given
//! up. Decides nothing.

use std::collections::BTreeMap;

use windlass_core::effect::Effect;
use windlass_core::ids::{EffectId, Name};
use windlass_core::input::Input;
use windlass_core::journal::Entry;
use windlass_core::route::Chain;
use windlass_ports::store::{Commit, Keep};

use super::Work;
use crate::recover;

impl Work<'_> {
    /// The chains of the machine's agents, as they can be used now.
    pub(super) fn routes(&self) -> BTreeMap<Name, Chain> {
        if !self.loaded.is_chained {
            return BTreeMap::new();
        }
        let agents = &self.loaded.machine.agents;
        let model = &self.claimed.core.parts.model;
        agents.iter().filter_map(|(name, agent)| Some((name.clone(), model.chain(&agent.model)?))).collect()
    }

    /// Wakes whoever a commit concerns.
    pub(super) fn spread(&self, commit: &Commit) {
        let core = &self.claimed.core;
        let elsewhere = commit.messages.iter().filter(|message| !core.nudge(&message.to)).count();
        if elsewhere > 0 || !commit.children.is_empty() || commit.keep == Keep::HandBack {
            core.wake(true);
        }
    }

    pub(super) fn perform(&mut self, effects: &[Effect], entries: &[Entry], leaving: bool) {
        for effect in effects {
            match effect {
                // A run that is held begins nothing; what is open begins when the hold is lifted.
                Effect::Call(effect) if !leaving && self.run.hold.is_none() => self.start(*effect),
                Effect::Abandon(effect) => {
                    let marked = self.calls.abandon(*effect);
                    self.clear(marked.map(|attempt| (*effect, attempt)));
                }
                // Rows of the commit.
                Effect::Call(_)
                | Effect::Start(_)
                | Effect::Tell { .. }
                | Effect::OpenWait(_)
                | Effect::CloseWait(_)
                | Effect::SetTimer(_)
                | Effect::CancelTimer(_) => {}
            }
        }
        if !leaving && entries.iter().any(|entry| matches!(entry, Entry::HoldLifted)) {
            self.start_unsent();
        }
    }

    fn start(&mut self, effect: EffectId) {
        if !self.calls.contains(effect) {
            self.calls.start(&self.claimed.core, &self.claimed.member, &self.loaded.machine, &self.run, effect);
        }
    }

    /// Starts every call that is open, not out, and of which nothing is known yet.
    pub(super) fn start_unsent(&mut self) {
        let known = |effect: EffectId, input: &Input| match input {
            Input::Settled { effect: of, .. } | Input::Lost { effect: of, .. } => *of == effect,
            _ => false,
        };
        let effects: Vec<EffectId> = recover::unsent(&self.run)
            .filter(|effect| !self.recovering.iter().any(|input| known(*effect, input)))
            .filter(|effect| !self.ready.iter().any(|ready| known(*effect, &ready.input)))
            .collect();
        for effect in effects {
            self.start(effect);
        }
    }
}
