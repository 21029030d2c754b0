//! Which timer of a held run is due, and when the next one is.
//!
//! The timers of a run on hold fire once it goes on. A timer whose firing was rejected is left alone while the run is held, so that it cannot come again and again.

use std::collections::BTreeSet;

use windlass_core::ids::EffectId;
use windlass_core::run::Run;
use windlass_core::time::Timestamp;

/// The timers of one held run.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    refused: BTreeSet<EffectId>,
}

impl Timers {
    /// The timer that is due by `now`, the earliest first.
    #[must_use]
    pub fn due(&self, run: &Run, now: Timestamp) -> Option<EffectId> {
        self.earliest(run).filter(|(due, _)| *due <= now).map(|(_, timer)| timer)
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next(&self, run: &Run) -> Option<Timestamp> {
        self.earliest(run).map(|(due, _)| due)
    }

    /// The run did not take the firing of this timer.
    pub fn refuse(&mut self, timer: EffectId) {
        self.refused.insert(timer);
    }

    fn earliest(&self, run: &Run) -> Option<(Timestamp, EffectId)> {
        if run.hold.is_some() && run.ending.is_none() {
            return None;
        }
        run.timers.iter().filter(|(id, _)| !self.refused.contains(id)).map(|(id, timer)| (timer.due, *id)).min()
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::effect::{OpenTimer, TimerPurpose};

    use super::*;
    use crate::recover::tests::run;

    #[test]
    fn the_earliest_timer_fires_first_and_a_refused_one_not_again() {
        let mut run = run();
        for (id, due) in [(1, 30), (2, 10), (3, 20)] {
            run.timers.insert(EffectId(id), OpenTimer { due: Timestamp(due), purpose: TimerPurpose::StateTimeout });
        }
        let mut timers = Timers::default();
        assert_eq!(timers.due(&run, Timestamp(9)), None);
        assert_eq!(timers.next(&run), Some(Timestamp(10)));
        assert_eq!(timers.due(&run, Timestamp(99)), Some(EffectId(2)));
        timers.refuse(EffectId(2));
        assert_eq!(timers.due(&run, Timestamp(99)), Some(EffectId(3)));
    }
}
