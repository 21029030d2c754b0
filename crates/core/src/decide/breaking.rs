//! Breakers that trip in a decision: tools are shut off for the run, and attempts at models are given up.

use super::Turn;
use crate::breakers::{Trip, same_call};
use crate::effect::{Call, OpenCall, Outcome};
use crate::failure::{Code, Failure, Retry};
use crate::ids::Name;
use crate::journal::Entry;

impl Turn<'_> {
    /// A failure that would be tried again, unless too many attempts of the run have failed.
    pub(super) fn break_storm(&mut self, open: &OpenCall, outcome: Outcome) -> Outcome {
        let (Call::Model { agent, .. }, Outcome::Failed(failure)) = (&open.call, &outcome) else { return outcome };
        let tries_again = matches!(failure.retry, Retry::Backoff | Retry::After(_)) || open.route.is_some();
        let trip = self.run.pulse.models_trip(&self.run.ledger.ceilings.breakers, self.facts.now);
        let Some(trip) = trip.filter(|_| tries_again && self.run.start.watched) else { return outcome };
        let message = format!("no more attempts are made: {}; the last failure: {}", trip.why, failure.message);
        let agent = agent.clone();
        self.trip(agent, trip, true);
        Outcome::Failed(Failure::new(Code::RunBreaker, message))
    }

    /// Shuts a tool or action off whose calls fail or are slow again and again.
    pub(super) fn break_tool(&mut self, name: &Name) {
        if let Some(trip) = self.run.pulse.tool_trips(name, &self.run.ledger.ceilings.breakers) {
            self.trip(name.clone(), trip, false);
        }
    }

    /// Shuts a tool off that gave the tool loop the same answer to the same call again and again.
    pub(super) fn break_circle(&mut self) {
        if !self.run.start.watched {
            return;
        }
        let sample = self.run.exec.as_ref().and_then(|exec| exec.samples.first());
        let found = sample.and_then(|one| same_call(&one.tail, &self.run.ledger.ceilings.breakers));
        if let Some((name, trip)) = found.filter(|(name, _)| self.run.pulse.shut(name).is_none()) {
            self.trip(name, trip, false);
        }
    }

    fn trip(&mut self, target: Name, trip: Trip, is_agent: bool) {
        let Trip { breaker, count, why } = trip;
        self.emit(Entry::BreakerTripped { breaker: breaker.into(), target, count, why: why.into(), is_agent });
    }
}
