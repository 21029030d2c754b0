//! Whether what several processes saw of one object that is compared and set can be put into one order: each operation
//! takes effect at one moment between its start and its end, and one whose end is not known at any later moment or never.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::ids::Name;

use super::{Op, Record, Result};

/// Operations on one object at most: the search is over sets of them.
const OPS_MAX: usize = 63;

/// What an operation does to a revision.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Sees it.
    Get(u64),
    /// Replaces `expected`, and says it did.
    Put(u64),
    /// Finds another one.
    Refused(u64),
    /// May have replaced `expected`.
    Unsure(u64),
}

#[derive(Clone, Copy, Debug)]
struct Timed {
    step: Step,
    start: u64,
    end: u64,
}

/// Objects whose history has no order, with why.
pub(super) fn check(records: &[Record]) -> Vec<(Name, String)> {
    let mut objects: BTreeMap<&Name, Vec<Timed>> = BTreeMap::new();
    for record in records {
        let (object, step) = match (&record.op, record.result) {
            (Op::Get { object, revision }, Result::Ok) => (object, Step::Get(*revision)),
            (Op::Put { object, expected }, Result::Ok) => (object, Step::Put(*expected)),
            (Op::Put { object, expected }, Result::Fail) => (object, Step::Refused(*expected)),
            (Op::Put { object, expected }, Result::Info) => (object, Step::Unsure(*expected)),
            _ => continue,
        };
        let end = if record.result == Result::Info { u64::MAX } else { record.end };
        objects.entry(object).or_default().push(Timed { step, start: record.start, end });
    }
    let broken = objects.into_iter().filter(|(_, ops)| !is_linear(ops));
    broken.map(|(object, ops)| (object.clone(), format!("no order explains its {} operations", ops.len()))).collect()
}

/// Whether the operations on an object that is not there at first have an order. Those of an object with very many are
/// looked at in their first part.
fn is_linear(ops: &[Timed]) -> bool {
    let mut ops = ops.to_vec();
    ops.sort_by_key(|op| (op.start, op.end));
    let cut = ops.len().min(OPS_MAX);
    let ops = &ops[..cut];
    // What comes after the cut may have been begun before: only what surely ended before it is held against the order.
    let all: u64 = ops
        .iter()
        .enumerate()
        .filter(|(_, op)| !matches!(op.step, Step::Unsure(_)))
        .fold(0, |set, (place, _)| set | (1 << place));
    let mut seen = BTreeSet::new();
    let mut left = vec![(0_u64, 0_u64)];
    while let Some((done, revision)) = left.pop() {
        if done & all == all {
            return true;
        }
        if !seen.insert((done, revision)) {
            continue;
        }
        let open = || ops.iter().enumerate().filter(|(place, _)| done & (1 << place) == 0);
        // Whatever is next began before every other open one ended.
        let first_end = open().map(|(_, op)| op.end).min().unwrap_or(u64::MAX);
        for (place, op) in open().filter(|(_, op)| op.start <= first_end) {
            let after = done | (1 << place);
            match op.step {
                Step::Get(found) if found == revision => left.push((after, revision)),
                Step::Put(expected) | Step::Unsure(expected) if expected == revision => {
                    left.push((after, revision + 1));
                }
                Step::Refused(expected) if expected != revision => left.push((after, revision)),
                // One that was lost may never take effect.
                Step::Unsure(_) => left.push((after, revision)),
                Step::Get(_) | Step::Put(_) | Step::Refused(_) => {}
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(step: Step, start: u64, end: u64) -> Timed {
        Timed { step, start, end }
    }

    #[test]
    fn two_winners_of_one_revision_have_no_order() {
        assert!(is_linear(&[op(Step::Put(0), 0, 5), op(Step::Refused(0), 1, 6), op(Step::Get(1), 7, 8)]));
        assert!(!is_linear(&[op(Step::Put(0), 0, 5), op(Step::Put(0), 1, 6)]));
    }

    #[test]
    fn a_read_does_not_go_back() {
        assert!(is_linear(&[op(Step::Put(0), 0, 9), op(Step::Get(0), 1, 2), op(Step::Get(1), 3, 4)]));
        assert!(!is_linear(&[op(Step::Put(0), 0, 9), op(Step::Get(1), 1, 2), op(Step::Get(0), 3, 4)]));
    }

    #[test]
    fn one_that_was_lost_may_or_may_not_have_happened() {
        let lost = op(Step::Unsure(0), 0, u64::MAX);
        assert!(is_linear(&[lost, op(Step::Put(1), 3, 4)]));
        assert!(is_linear(&[lost, op(Step::Put(0), 3, 4)]));
        assert!(!is_linear(&[lost, op(Step::Get(2), 3, 4)]));
    }
}
