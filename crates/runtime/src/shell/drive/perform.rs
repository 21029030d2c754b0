//! What stands around a durable decision: the routes that it may take; then others are woken, calls begin and are given
//! up. Decides nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use windlass_core::contract::Class;
use windlass_core::effect::{Effect, OpenCall, WaitKind};
use windlass_core::ids::{EffectId, Name};
use windlass_core::input::{Input, Sent};
use windlass_core::journal::Entry;
use windlass_core::machine::Agent;
use windlass_core::route::table::Rules;
use windlass_core::route::{Chain, Link};
use windlass_ports::store::{Commit, Keep};

use super::switched::lifts;
use super::{Ready, Source, Work};
use crate::recover;
use crate::shell::execute::{Calls, Done};
use crate::shell::{budgets, rates};

impl Work<'_> {
    /// The chains of the machine's agents, as they can be used now. An agent that calls another model than its document
    /// names is called by a chain too, and so is one for which that was taken back while a call of it is open.
    pub(super) fn routes(&self, input: &Input) -> BTreeMap<Name, Chain> {
        let overrides = match input {
            Input::ModelChanged(change) => Cow::Owned(self.run.overrides.changed(change)),
            _ => Cow::Borrowed(&self.run.overrides),
        };
        let replaced = |open: &OpenCall| open.route.as_ref().is_some_and(|route| route.by.is_some());
        let is_replaced = !overrides.is_empty() || self.run.calls.values().any(replaced);
        if !self.loaded.is_chained && !is_replaced {
            return BTreeMap::new();
        }
        let agents = &self.loaded.machine.agents;
        let model = &self.claimed.core.parts.model;
        let chain = |agent: &Agent| {
            let back = || self.run.calls.values().any(|open| replaced(open) && *open.call.target() == agent.name);
            let listed = model.chain(&overrides.settings(agent));
            let own = || (overrides.of(&agent.name).is_none() && back()).then(|| self.own_model(agent));
            let mut chain = listed.or_else(own)?;
            for link in chain.links.iter_mut().filter(|link| link.shut.is_none()) {
                link.shut = rates::dry(&self.claimed.core, &self.run, self.claimed.lease.priority, &link.settings);
            }
            Some(chain)
        };
        agents.iter().filter_map(|(name, agent)| Some((name.clone(), chain(agent)?))).collect()
    }

    /// The model that an agent's document names, as a chain of one link.
    fn own_model(&self, agent: &Agent) -> Chain {
        let link = Link {
            name: agent.model.model.clone(),
            tier: "".into(),
            settings: agent.model.clone(),
            on: Vec::new(),
            quote: self.loaded.quotes.get(&agent.name).cloned(),
            traits: self.loaded.traits.get(&agent.name).copied().unwrap_or_default(),
            shut: None,
            instead: None,
        };
        Chain { name: agent.model.model.clone(), links: vec![link], rules: Rules::default() }
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
                Effect::Draw(_) if !leaving && self.run.hold.is_none() => self.start_draw(),
                // A return is made on its own, when the decision is durable. The rest are rows of the commit.
                Effect::Call(_)
                | Effect::Draw(_)
                | Effect::GiveBack(_)
                | Effect::Start(_)
                | Effect::Tell { .. }
                | Effect::OpenWait(_)
                | Effect::CloseWait(_)
                | Effect::SetTimer(_)
                | Effect::CancelTimer(_) => {}
            }
        }
        if !leaving && lifts(entries) {
            self.start_unsent(true);
        }
    }

    /// Makes the draw that is open, unless it is under way.
    fn start_draw(&mut self) {
        let Some(number) = self.run.escrow.asked.as_ref().map(|asked| asked.number) else { return };
        if !self.calls.contains(number) {
            let draw = self.run.escrow.draw(self.run.id(), self.now());
            self.calls.start_draw(&self.claimed.core, number, draw);
        }
    }

    /// Returns what the run drew and holds for nothing, when its decision asks for that, and looks once more at budgets
    /// that it waits for from here on.
    pub(super) async fn give_back(&mut self, effects: &[Effect]) {
        if effects.iter().any(|effect| matches!(effect, Effect::GiveBack(_))) {
            let draw = self.run.escrow.draw(self.run.id(), self.now());
            let core = Arc::clone(&self.claimed.core);
            during(&mut self.calls, self.ready, budgets::give_back(&*core.parts.store, draw)).await;
        }
        for effect in effects {
            if let Effect::OpenWait(wait) = effect
                && let Some(WaitKind::Budget { refusal, .. }) = self.run.waits.get(wait).map(|open| &open.kind)
            {
                // Whoever raised it before the wait was stored found nobody who waits.
                let looking = budgets::look_again(&self.claimed.core, self.run.id(), *wait, refusal);
                during(&mut self.calls, self.ready, looking).await;
            }
        }
    }

    fn start(&mut self, effect: EffectId) {
        let class = self.run.calls.get(&effect).map_or(Class::Read, |open| open.class);
        // What a switch holds is started when the hold is lifted.
        let held = self.claimed.core.switches.held(&self.run.start.scope.tenant, class);
        if !self.calls.contains(effect) && held.is_none() {
            let run = (&self.run, self.claimed.lease.priority);
            self.calls.start(&self.claimed.core, &self.claimed.member, &self.loaded.machine, run, effect);
        }
    }

    /// Whether what became of a call or a draw waits to be decided on.
    pub(super) fn is_told(&self, effect: EffectId) -> bool {
        let is_of = |input: &Input| match input {
            Input::Settled { effect: of, .. } | Input::Lost { effect: of, .. } | Input::Drawn { number: of, .. } => {
                *of == effect
            }
            _ => false,
        };
        self.recovering.iter().any(is_of) || self.ready.iter().any(|ready| is_of(&ready.input))
    }

    /// A call that was decided on before and has not left, where there are rules: they may have changed since, so it is
    /// decided on once more before it leaves, after all that was said since, such as a cancel or a pause.
    pub(super) fn unjudged(&self) -> Option<Ready> {
        if self.run.hold.is_some() || !self.has_rules() {
            return None;
        }
        let mut unsent = recover::unsent(&self.run);
        let effect = unsent.find(|effect| !self.calls.contains(*effect) && !self.is_told(*effect))?;
        Some(Ready { input: Input::Lost { effect, sent: Sent::No }, source: Source::Stored })
    }

    fn has_rules(&self) -> bool {
        !self.claimed.core.parts.policy.allow_unasked()
    }

    /// Starts every call that is open, not out, and of which nothing is known yet, unless rules are asked about it first.
    /// Those that change something or are charged for only when a decision of this worker is durable, and the store has
    /// compared the switches: `compared`.
    pub(super) fn start_unsent(&mut self, compared: bool) {
        let effects: Vec<EffectId> = recover::unsent(&self.run)
            .filter(|effect| !self.has_rules() && !self.is_told(*effect))
            .filter(|effect| compared || self.run.calls.get(effect).is_some_and(recover::leaves_at_once))
            .collect();
        for effect in effects {
            self.start(effect);
        }
        if let Some(asked) = &self.run.escrow.asked
            && !self.is_told(asked.number)
        {
            self.start_draw();
        }
    }
}

/// An answer as what happened.
pub(super) fn settled(done: Done) -> Ready {
    Ready { input: done.into_input(), source: Source::Memory }
}

/// Waits for `future` while the calls make progress.
pub(super) async fn during<T>(calls: &mut Calls, ready: &mut VecDeque<Ready>, future: impl Future<Output = T>) -> T {
    tokio::pin!(future);
    loop {
        tokio::select! {
            biased;
            answer = &mut future => return answer,
            done = calls.next(), if !calls.is_empty() => ready.push_back(settled(done)),
        }
    }
}
