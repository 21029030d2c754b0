//! Read-only switches as data: what one says, who changed it when, and how long a run that it holds waits until it is
//! looked at again. Reads and writes nothing.

use serde::{Deserialize, Serialize};
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;

/// Changes that a switch remembers.
const CHANGES_MAX: usize = 100;
/// How soon a run that a switch holds is looked at again, in milliseconds: for as long as it waited already, within
/// these bounds. Whoever turns the switch off tells every run; this is for those that could not be told.
const LOOK_MS: (u64, u64) = (1_000, 45_000);

/// One change of a switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Whether it was turned on.
    pub on: bool,
    /// By whom.
    pub by: Name,
    /// Why.
    pub reason: Name,
    /// When.
    pub at: Timestamp,
}

/// A read-only switch: while it is on, no call of class `write` or `danger` leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// What was done with it, oldest first; the oldest ones are forgotten. The last one says how it is.
    pub changes: Vec<Change>,
}

impl Switch {
    /// The change that turned it on; none when it is off.
    #[must_use]
    pub fn on(&self) -> Option<&Change> {
        self.changes.last().filter(|change| change.on)
    }

    /// Remembers a change.
    pub fn change(&mut self, change: Change) {
        self.changes.push(change);
        let old = self.changes.len().saturating_sub(CHANGES_MAX);
        self.changes.drain(..old);
    }
}

impl Change {
    /// What runs that it holds say.
    #[must_use]
    pub fn words(&self, tenant: Option<&Name>) -> Name {
        let what = tenant.map_or_else(|| "the environment".to_owned(), |tenant| format!("tenant `{tenant}`"));
        let why = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        format!("{what} is read-only, by `{}`{why}", self.by).into()
    }
}

/// When a run that a switch holds is looked at again. `seed` spreads many runs.
#[must_use]
pub fn look_at(since: Timestamp, now: Timestamp, seed: u64) -> Timestamp {
    let waited = now.since_ms(since).clamp(LOOK_MS.0, LOOK_MS.1);
    now.plus_ms(waited + seed % (waited / 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(on: bool) -> Change {
        Change { on, by: "ann".into(), reason: "a leak".into(), at: Timestamp(7) }
    }

    #[test]
    fn the_last_change_counts_and_the_oldest_ones_are_forgotten() {
        let mut switch = Switch::default();
        assert_eq!(switch.on(), None);
        switch.change(change(true));
        assert_eq!(switch.on(), Some(&change(true)));
        for _ in 0..CHANGES_MAX {
            switch.change(change(false));
        }
        assert_eq!((switch.on(), switch.changes.len()), (None, CHANGES_MAX));
    }

    #[test]
    fn a_held_run_says_who_and_why() {
        assert_eq!(&*change(true).words(None), "the environment is read-only, by `ann`: a leak");
        assert_eq!(&*change(true).words(Some(&"acme".into())), "tenant `acme` is read-only, by `ann`: a leak");
    }

    #[test]
    fn a_held_run_is_looked_at_less_and_less_often() {
        let again = |now: u64| look_at(Timestamp(0), Timestamp(now), 0).0 - now;
        assert_eq!([again(0), again(5_000), again(1_000_000)], [1_000, 5_000, 45_000]);
        assert!(look_at(Timestamp(0), Timestamp(9), 999_999).0 < 9 + 1_250);
    }
}
