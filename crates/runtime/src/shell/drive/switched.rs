//! What the read-only switches ask of a held run. The store compares them with each decision that begins a call which
//! changes something.

use std::sync::Arc;

use windlass_core::contract::Class;
use windlass_core::effect::{Effect, OpenCall};
use windlass_core::input::Input;
use windlass_core::journal::Entry;
use windlass_core::run::Hold;
use windlass_core::time::Timestamp;
use windlass_ports::store::Keep;

use super::{Fault, Parting, Work};
use crate::lease::Standing;
use crate::shell::send::patiently;
use crate::{recover, switch};

impl Work<'_> {
    /// The epoch of the switches, when a decision begins calls that change something and none of them is known to be on.
    pub(super) fn begins(&self, effects: &[Effect], entries: &[Entry], leaving: bool) -> Option<u64> {
        let (switches, tenant) = (&self.claimed.core.switches, &self.run.start.scope.tenant);
        if self.comparing {
            return Some(switches.epoch(tenant));
        }
        if leaving || self.run.hold.is_some() {
            return None;
        }
        let asked = effects.iter().any(|effect| match effect {
            Effect::Call(id) => self.run.calls.get(id).is_some_and(|open| open.class != Class::Read),
            _ => false,
        });
        let freed = lifts(entries) && self.has_unsent_writes();
        if !(asked || freed) {
            return None;
        }
        switches.held(tenant, Class::Write).is_none().then(|| switches.epoch(tenant))
    }

    /// Looks at the switches when the store says that they were changed since a decision began calls.
    pub(super) async fn look_at_switches(&mut self, standing: Standing, begins: Option<u64>) -> Result<(), Fault> {
        if let (Standing::Held { switched: true, .. }, Some(_)) = (standing, begins) {
            let core = Arc::clone(&self.claimed.core);
            let looking = patiently(&core, || core.look_at_switches());
            super::during(&mut self.calls, self.ready, looking).await?;
        }
        Ok(())
    }

    /// Whether a call that changes something is open and not out.
    pub(super) fn has_unsent_writes(&self) -> bool {
        self.has_unsent(|open| open.class != Class::Read)
    }

    /// Whether such a call is open and not out.
    pub(super) fn has_unsent(&self, such: impl Fn(&OpenCall) -> bool) -> bool {
        let mut calls = self.run.calls.iter();
        calls.any(|(effect, open)| {
            such(open) && open.is_out() && !self.calls.contains(*effect) && !self.is_told(*effect)
        })
    }

    /// What a switch asks of the run: to hold, or to go on.
    pub(super) fn switched(&self) -> Option<Input> {
        let held = || self.claimed.core.switches.held(&self.run.start.scope.tenant, Class::Write);
        match &self.run.hold {
            Some(Hold::ReadOnly { .. }) => held().is_none().then_some(Input::FreeWrites),
            Some(Hold::Paused { .. } | Hold::Attention { .. }) => None,
            None if self.run.calls.is_empty() || !self.has_unsent_writes() => None,
            None => held().map(|reason| Input::HoldWrites { reason }),
        }
    }

    /// When the run is looked at again, if nothing else happens.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        match &self.run.hold {
            Some(Hold::ReadOnly { since, .. }) => {
                Some(switch::look_at(*since, self.now(), self.claimed.core.parts.clock.seed()))
            }
            _ => self.timers.next(&self.run),
        }
    }

    /// Has the store compare the switches before calls leave that change something or are charged for, and that no commit
    /// of this worker asked for.
    pub(super) async fn compare(&mut self) -> Result<Option<Parting>, Fault> {
        let decision = recover::nothing(&mut self.run, self.claimed.core.parts.clock.now());
        self.comparing = true;
        let parted = self.commit_as(decision, Vec::new(), Keep::Hold, false, None).await;
        self.comparing = false;
        if let Ok(None) = parted {
            self.start_unsent(true);
        }
        parted
    }
}

/// Whether a hold ends.
pub(super) fn lifts(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| matches!(entry, Entry::HoldLifted))
}
