//! What runs of a machine used before, and how well that tells what the next one uses.

use serde::Serialize;
use windlass_core::ids::Name;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, Query, Store, StoreError};

/// Runs that are needed to say anything.
pub(crate) const RUNS_MIN: usize = 5;
/// Runs before another one from which its preview is made, at most.
const BEFORE_MAX: usize = 100;
/// Runs read from the store at a time.
const PAGE_RUNS: usize = 500;

/// What is foretold of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Visits to states, of the run itself.
    Steps,
    /// Tokens in and out, of the run and all below it.
    Tokens,
    /// Cost, of the run and all below it.
    CostMicros,
    /// From submission to end.
    DurationMs,
}

impl Measure {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Steps, Self::Tokens, Self::CostMicros, Self::DurationMs];

    /// The key.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Tokens => "tokens",
            Self::CostMicros => "cost_micros",
            Self::DurationMs => "duration_ms",
        }
    }

    /// What a run that has ended used.
    pub(crate) fn of(self, head: &Head) -> u64 {
        match self {
            Self::Steps => head.step,
            Self::Tokens => head.tokens,
            Self::CostMicros => head.cost_micros,
            Self::DurationMs => head.updated_at.since_ms(head.created_at),
        }
    }
}

/// Runs of the machine that ended, oldest first.
pub(crate) async fn ended(
    store: &dyn Store,
    machine: &Name,
    tenant: Option<Name>,
    before: Option<Timestamp>,
    last: usize,
) -> Result<Vec<Head>, StoreError> {
    let statuses = Status::ALL.into_iter().filter(|status| status.is_final()).collect();
    let mut query = Query {
        statuses,
        machine: Some(machine.clone()),
        roots_only: true,
        tenant,
        created_before: before,
        limit: last.min(PAGE_RUNS),
        ..Query::default()
    };
    let mut heads = Vec::new();
    while heads.len() < last {
        let page = store.list(query.clone()).await?;
        heads.extend(page.heads);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    heads.truncate(last);
    heads.sort_by_key(|head| head.created_at);
    Ok(heads)
}

/// What is to be expected: 5 %, half and 95 % of the runs used at most so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Expected {
    /// 5 %.
    pub low: u64,
    /// Half.
    pub middle: u64,
    /// 95 %.
    pub high: u64,
}

/// What runs that used so much let one expect; none of too few.
pub(crate) fn expected(used: &[u64]) -> Option<Expected> {
    if used.len() < RUNS_MIN {
        return None;
    }
    let mut sorted = used.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    let high = sorted[((sorted.len() - 1) * 95).div_ceil(100)];
    Some(Expected { low: at(5), middle: at(50), high })
}

/// How far previews were off that could have been made before each of the runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Missed {
    /// Runs with enough runs before them.
    pub previews: u64,
    /// Half of them used at most so many percent more or less than the middle that was expected.
    pub percent_off: u64,
    /// How many percent of them used something from low to high.
    pub percent_within: u64,
}

/// Looks back: foretells each run from those before it, and compares.
pub(crate) fn missed(used: &[u64]) -> Option<Missed> {
    let (mut off, mut within) = (Vec::new(), 0);
    for (place, actual) in used.iter().enumerate() {
        let Some(expected) = expected(&used[place.saturating_sub(BEFORE_MAX)..place]) else { continue };
        off.push(percent_off(expected.middle, *actual));
        within += u64::from((expected.low..=expected.high).contains(actual));
    }
    let previews = off.len() as u64;
    off.sort_unstable();
    let middle = *off.get(off.len().checked_sub(1)? / 2)?;
    Some(Missed { previews, percent_off: middle, percent_within: 100 * within / previews })
}

/// By how many percent of what was used the expectation was wrong.
pub(crate) fn percent_off(expected: u64, actual: u64) -> u64 {
    if expected == actual {
        return 0;
    }
    let difference = u128::from(expected.abs_diff(actual)) * 100;
    u64::try_from(difference / u128::from(actual.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_runs_tell_nothing() {
        assert_eq!(expected(&[1, 2, 3, 4]), None);
        assert_eq!(missed(&[1, 2, 3, 4, 5]), None, "none of them has enough before it");
    }

    #[test]
    fn the_range_holds_nine_tenths_of_what_was_used() {
        let used: Vec<u64> = (1..=100).collect();
        assert_eq!(expected(&used), Some(Expected { low: 5, middle: 50, high: 96 }));
        assert_eq!(expected(&[7; 5]), Some(Expected { low: 7, middle: 7, high: 7 }));
    }

    #[test]
    fn a_steady_machine_is_foretold_and_a_change_is_seen() {
        assert_eq!(missed(&[10; 9]), Some(Missed { previews: 4, percent_off: 0, percent_within: 100 }));
        let changed = [10, 10, 10, 10, 10, 20, 20];
        assert_eq!(missed(&changed), Some(Missed { previews: 2, percent_off: 50, percent_within: 50 }));
    }

    #[test]
    fn an_error_is_a_share_of_what_was_used() {
        assert_eq!((percent_off(0, 0), percent_off(5, 0), percent_off(15, 10), percent_off(5, 10)), (0, 500, 50, 50));
    }
}
