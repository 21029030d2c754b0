//! The budget of a ramp as data: what the calls of a tool have used of it, and when that takes the tool back to shadows. Reads
//! and writes nothing.

use serde::{Deserialize, Serialize};
use windlass_core::contract::{OF_CALLS_MAX, RampBudget};
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;

/// What an attempt that failed is written as.
const FAILED: char = 'x';
/// What any other attempt is written as.
const DONE: char = '.';

/// What all runs together have used of the budget of a ramp.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ramp {
    /// Attempts that were let go since it began or was resumed.
    pub calls: u64,
    /// How the latest of them ended, oldest first: `x` for a failure, `.` for anything else.
    pub ended: String,
    /// Set while no run makes the calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// Who let the calls be made again last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
}

/// That a ramp has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub why: Name,
    /// Whether the audit trail has it.
    pub told: bool,
}

/// That a person resumed a ramp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: Name,
    /// Why.
    pub reason: Name,
}

impl Ramp {
    /// Takes an attempt from the budget; false when none may leave. The last one that there is stops the ramp.
    pub fn take(&mut self, budget: &RampBudget, now: Timestamp) -> bool {
        if self.stopped.is_some() {
            return false;
        }
        let most = budget.calls.unwrap_or(u64::MAX);
        let may_leave = self.calls < most;
        self.calls = self.calls.saturating_add(u64::from(may_leave));
        if self.calls >= most {
            self.stop(format!("its {most} calls are used up"), now);
        }
        may_leave
    }

    /// Gives back an attempt that did not leave. One that stopped it by being the last stays used.
    pub fn give_back(&mut self) {
        if self.stopped.is_none() {
            self.calls = self.calls.saturating_sub(1);
        }
    }

    /// Notes how an attempt ended that had left. One failure too many stops the ramp.
    pub fn end(&mut self, budget: &RampBudget, failed: bool, now: Timestamp) {
        self.ended.push(if failed { FAILED } else { DONE });
        let surplus = self.ended.len().saturating_sub(OF_CALLS_MAX as usize);
        self.ended.drain(..surplus);
        let (found, of) = self.failed(budget.of_calls);
        if let Some(most) = budget.failed_calls.filter(|most| found > *most as usize) {
            self.stop(format!("{found} of its last {of} calls failed, and {most} may"), now);
        }
    }

    /// How many of the latest attempts failed, and of how many.
    #[must_use]
    pub fn failed(&self, of_calls: u32) -> (usize, usize) {
        let latest = self.ended.chars().rev().take(of_calls as usize);
        latest.fold((0, 0), |(failed, of), end| (failed + usize::from(end == FAILED), of + 1))
    }

    /// Begins anew.
    pub fn resume(&mut self, resumed: Resumed) {
        *self = Self { resumed: Some(resumed), ..Self::default() };
    }

    fn stop(&mut self, why: String, at: Timestamp) {
        self.stopped.get_or_insert_with(|| Stopped { at, why: why.into(), told: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(7);

    fn why(ramp: &Ramp) -> Option<&str> {
        ramp.stopped.as_ref().map(|stopped| &*stopped.why)
    }

    #[test]
    fn the_last_call_stops_it_and_no_more_leave() {
        let budget = RampBudget { calls: Some(3), failed_calls: None, of_calls: 10 };
        let mut ramp = Ramp::default();
        assert_eq!([0; 5].map(|_| ramp.take(&budget, NOW)), [true, true, true, false, false]);
        assert_eq!((ramp.calls, why(&ramp)), (3, Some("its 3 calls are used up")));
        ramp.resume(Resumed { at: NOW, by: "ann".into(), reason: "mended".into() });
        assert!(ramp.take(&budget, NOW) && ramp.stopped.is_none());
        ramp.give_back();
        assert_eq!((ramp.calls, ramp.take(&budget, NOW), ramp.calls), (0, true, 1));
        // One that was lowered below what is used takes nothing more.
        let lowered = RampBudget { calls: Some(1), ..budget };
        assert!(!ramp.take(&lowered, NOW));
        assert_eq!((ramp.calls, why(&ramp)), (1, Some("its 1 calls are used up")));
    }

    #[test]
    fn one_failure_too_many_of_the_latest_calls_stops_it() {
        let budget = RampBudget { calls: None, failed_calls: Some(2), of_calls: 5 };
        let mut ramp = Ramp::default();
        for failed in [true, true, false, false, false, true, true] {
            ramp.end(&budget, failed, NOW);
        }
        assert_eq!((ramp.failed(5), why(&ramp)), ((2, 5), None), "the first two are too long ago");
        ramp.end(&budget, true, NOW);
        assert_eq!(why(&ramp), Some("3 of its last 5 calls failed, and 2 may"));
        // What it was stopped for stays, and how many it remembers is bounded.
        for _ in 0..2 * OF_CALLS_MAX {
            ramp.end(&budget, true, NOW);
        }
        assert_eq!(
            (ramp.ended.len(), why(&ramp)),
            (OF_CALLS_MAX as usize, Some("3 of its last 5 calls failed, and 2 may"))
        );
        let none_may = RampBudget { failed_calls: Some(0), ..budget };
        let mut ramp = Ramp::default();
        ramp.end(&none_may, true, NOW);
        assert_eq!(why(&ramp), Some("1 of its last 1 calls failed, and 0 may"));
    }
}
