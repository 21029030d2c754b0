//! Workers that lost a run send nothing for it any more: every request of a history is held against the leases that were
//! given.

use std::collections::BTreeMap;

use windlass_core::ids::{Name, RunId};
use windlass_sim::history::{Effect, Granted, History, Op, Record, Result as Ended, Violation};

use crate::fleet::Sleep;

/// How long a request may be under way, in milliseconds: one that arrives later than this after its worker lost the run
/// left after that. Requests of this host take far less; a busy host is slow to read them.
const LAG_MS: u64 = 500;

/// A lease, and the process that got it.
struct Given<'a> {
    record: &'a Record,
    lease: &'a Granted,
}

/// Requests that left after their worker had lost the run.
pub(super) fn check(history: &History, sleeps: &[Sleep]) -> Vec<Violation> {
    let mut given: BTreeMap<&RunId, Vec<Given<'_>>> = BTreeMap::new();
    for record in history.records.iter().filter(|record| record.result == Ended::Ok) {
        let leases = match &record.op {
            Op::Claim { leases, .. } => leases.as_slice(),
            Op::TakeOver { lease } => std::slice::from_ref(lease),
            _ => &[],
        };
        for lease in leases {
            given.entry(&lease.run).or_default().push(Given { record, lease });
        }
    }
    let mut woken: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for sleep in sleeps {
        woken.entry(&sleep.worker).or_default().push(sleep.woken_at);
    }
    let late = |effect: &Effect| {
        let leases = given.get(&effect.run)?;
        let of = |process: &Name, given: &Given<'_>| given.record.process == *process;
        let own = leases.iter().filter(|given| of(&effect.process, given) && given.record.start <= effect.at);
        // A crash of the database may take a claim back: its epoch is then given once more, later.
        let place = |given: &Given<'_>| (given.lease.epoch, given.record.end);
        let own = own.map(place).max();
        let others = leases.iter().filter(|given| !of(&effect.process, given) && Some(place(given)) > own);
        let lost = others.min_by_key(|given| given.record.end)?;
        let woken = woken.get(&*effect.process).into_iter().flatten();
        // Whoever slept while the run was taken had nothing under way when it woke.
        let slept = woken.clone().any(|woken| lost.record.end < *woken && *woken <= effect.at);
        let margin = if slept { 0 } else { LAG_MS };
        (effect.at > lost.record.end + margin).then(|| {
            format!(
                "{effect} after the run had gone to `{}` with epoch {} at {} ms",
                lost.record.process, lost.lease.epoch, lost.record.end
            )
        })
    };
    history
        .effects
        .iter()
        .filter_map(|effect| late(effect).map(|message| Violation::of("zombie", &effect.run, message)))
        .collect()
}

#[cfg(test)]
mod tests {
    use windlass_core::contract::{Class, Idempotency};
    use windlass_core::ids::{Digest, EffectId};

    use super::*;

    fn claim(process: &str, epoch: u64, at: u64) -> Record {
        let lease = Granted { run: RunId::stored("r"), epoch, taken_from: None };
        let op = Op::Claim { worker: process.into(), leases: vec![lease] };
        Record { process: process.into(), op, op_id: None, start: at, end: at, result: Ended::Ok }
    }

    fn sent(process: &str, at: u64) -> Effect {
        Effect {
            process: process.into(),
            key: "r#1".into(),
            run: RunId::stored("r"),
            effect: EffectId(1),
            attempt: 0,
            kind: "tool".into(),
            target: "pay".into(),
            class: Class::Write,
            idempotency: Idempotency::None,
            arguments: Digest::ZERO,
            at,
            happened: true,
            result: Ended::Ok,
        }
    }

    fn found(records: Vec<Record>, effect: Effect, woken: &[u64]) -> usize {
        let sleeps: Vec<Sleep> = woken.iter().map(|at| Sleep { worker: "1.0".into(), woken_at: *at }).collect();
        check(&History { records, effects: vec![effect], runs: Vec::new() }, &sleeps).len()
    }

    #[test]
    fn a_request_of_a_worker_that_lost_the_run_is_found() {
        let records = || vec![claim("1.0", 1, 0), claim("2.0", 2, 1_000)];
        assert_eq!(found(records(), sent("1.0", 900), &[]), 0, "it had it");
        assert_eq!(found(records(), sent("1.0", 1_100), &[]), 0, "it may have been under way");
        assert_eq!(found(records(), sent("1.0", 1_600), &[]), 1);
        assert_eq!(found(records(), sent("1.0", 1_100), &[1_050]), 1, "nothing is under way from a sleeper");
        assert_eq!(found(records(), sent("2.0", 1_600), &[]), 0, "it has it now");
    }

    #[test]
    fn a_worker_that_got_it_again_may_send() {
        let records = vec![claim("1.0", 1, 0), claim("2.0", 2, 1_000), claim("1.0", 3, 1_500)];
        assert_eq!(found(records, sent("1.0", 3_000), &[]), 0);
    }
}
