//! Runs that this process holds by the store and knows nothing of, because the answer to a claim was lost on its way.
//! Heartbeats tell that there are some; a look at the leases then tells which.
//!
//! Such a run is driven under the lease that the store has. A lease that is known to anyone here, or was let go while
//! the look went on, is left alone: going on with it would be going on with somebody else's run.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_core::ids::RunId;
use windlass_ports::store::Lease;

/// Heartbeats in a row that tell of more runs than are known here before a look is worth it: one alone may have met a
/// claim on its way.
const SURPLUS_BEATS: u32 = 2;

#[derive(Debug, Default)]
struct State {
    /// Heartbeats in a row that told of more runs than are known.
    surplus: u32,
    /// A look is due.
    due: bool,
    /// A look goes on.
    looking: bool,
    /// Claims whose answers are on their way.
    out: usize,
    /// Something was claimed while the look went on: what it shows may be on its way here as well.
    disturbed: bool,
    /// Runs that were let go while the look went on.
    parted: HashSet<RunId>,
    /// Runs whose leases are kept without driving them.
    kept: HashSet<RunId>,
}

/// What one process knows about leases that it may have missed.
#[derive(Debug, Default)]
pub(super) struct Missed(Mutex<State>);

/// A claim on its way, from before it is sent until what it gave is known here.
#[derive(Debug)]
pub(super) struct Asking<'a>(&'a Missed);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.out = state.out.saturating_sub(1);
    }
}

/// A look that goes on.
#[derive(Debug)]
pub(super) struct Looking(Arc<Missed>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.state().looking = false;
    }
}

impl Looking {
    /// Of what the look showed, the leases that nobody here knows. None of them when it was disturbed; then another
    /// look is due.
    pub(super) fn end(self, shown: Vec<Lease>, is_known: impl Fn(&RunId) -> bool) -> Vec<Lease> {
        let mut state = self.0.state();
        if state.disturbed {
            state.due = true;
            return Vec::new();
        }
        let is_new = |lease: &Lease| {
            !(is_known(&lease.run) || state.parted.contains(&lease.run) || state.kept.contains(&lease.run))
        };
        shown.into_iter().filter(is_new).collect()
    }
}

impl Missed {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store says how many runs this process holds, which knows of so many. True when a look became due.
    pub(super) fn told(&self, by_store: u64, known: u64) -> bool {
        let mut state = self.state();
        state.surplus = if by_store > known + state.kept.len() as u64 { state.surplus + 1 } else { 0 };
        if state.surplus < SURPLUS_BEATS {
            return false;
        }
        (state.surplus, state.due) = (0, true);
        true
    }

    /// A claim is about to be sent.
    pub(super) fn asking(&self) -> Asking<'_> {
        let mut state = self.state();
        state.out += 1;
        state.disturbed = true;
        Asking(self)
    }

    /// Whether nothing is to be claimed until a look is over.
    pub(super) fn holds_off(&self) -> bool {
        let state = self.state();
        state.due || state.looking
    }

    /// Begins a look when one is due and no claim is on its way.
    pub(super) fn begin(self: &Arc<Self>) -> Option<Looking> {
        let mut state = self.state();
        if !state.due || state.looking || state.out > 0 {
            return None;
        }
        (state.due, state.looking, state.disturbed) = (false, true, false);
        state.parted.clear();
        Some(Looking(Arc::clone(self)))
    }

    /// A run was let go.
    pub(super) fn parted(&self, run: &RunId) {
        let mut state = self.state();
        state.kept.remove(run);
        if state.looking {
            state.parted.insert(run.clone());
        }
    }

    /// The lease of a run is kept without driving it.
    pub(super) fn kept(&self, run: &RunId) {
        self.state().kept.insert(run.clone());
    }

    /// A run whose lease was kept is driven.
    pub(super) fn driven(&self, run: &RunId) {
        self.state().kept.remove(run);
    }

    /// Every lease is void.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        *state = State { out: state.out, disturbed: true, ..State::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(run: &str) -> Lease {
        Lease {
            run: RunId::stored(run),
            epoch: 1,
            taken_from: None,
            strikes: 0,
            priority: windlass_core::machine::Priority::Normal,
        }
    }

    fn shown(looking: Looking, runs: &[&str], known: &[&str]) -> Vec<String> {
        let leases = looking.end(runs.iter().map(|run| lease(run)).collect(), |run| known.contains(&run.as_str()));
        leases.into_iter().map(|lease| lease.run.to_string()).collect()
    }

    fn due() -> Arc<Missed> {
        let missed = Arc::new(Missed::default());
        assert!(!missed.told(3, 2) && missed.told(3, 2));
        missed
    }

    #[test]
    fn a_look_is_due_when_the_store_says_more_again_and_again() {
        let missed = Missed::default();
        assert!(!missed.told(3, 3) && !missed.told(4, 3) && !missed.told(2, 3) && !missed.told(4, 3));
        assert!(!missed.holds_off());
        assert!(missed.told(4, 3) && missed.holds_off());
        let kept = Missed::default();
        kept.kept(&RunId::stored("a"));
        assert!(!kept.told(1, 0) && !kept.told(1, 0), "a lease that is kept is known");
    }

    #[test]
    fn what_nobody_knows_is_found() {
        let missed = due();
        missed.kept(&RunId::stored("kept"));
        let looking = missed.begin().expect("it is due");
        assert!(missed.begin().is_none() && missed.holds_off());
        missed.parted(&RunId::stored("gone"));
        assert_eq!(shown(looking, &["a", "held", "gone", "kept", "b"], &["held"]), ["a", "b"]);
        assert!(!missed.holds_off());
    }

    #[test]
    fn a_claim_on_its_way_puts_a_look_off() {
        let missed = due();
        let asking = missed.asking();
        assert!(missed.begin().is_none());
        drop(asking);
        let looking = missed.begin().expect("it is due");
        drop(missed.asking());
        assert!(shown(looking, &["a"], &[]).is_empty(), "what it showed may be on its way");
        assert_eq!(shown(missed.begin().expect("again"), &["a"], &[]), ["a"]);
    }

    #[test]
    fn nothing_is_found_once_every_lease_is_void() {
        let missed = due();
        let looking = missed.begin().expect("it is due");
        missed.forget();
        assert!(shown(looking, &["a"], &[]).is_empty());
    }

    #[test]
    fn a_look_that_is_given_up_holds_nobody_off() {
        let missed = due();
        drop(missed.begin());
        assert!(!missed.holds_off());
    }
}
