//! What follows from the death of the process that held a run: calls whose end nobody saw, children whose end did not
//! arrive, and the hold on a run that this build cannot go on with.
//!
//! A run that comes from the queue has no lost calls: whoever gives a run back has sent none of those it leaves open.

use std::collections::BTreeSet;

use windlass_core::contract::Class;
use windlass_core::effect::{Call, OpenCall};
use windlass_core::ids::{EffectId, Name, RunId};
use windlass_core::input::{Input, Sent};
use windlass_core::journal::Entry;
use windlass_core::run::{Hold, Run};
use windlass_core::time::Timestamp;
use windlass_core::{Decision, apply};
use windlass_ports::store::InboxItem;

/// Whether it is noted that a call leaves: where it matters after a crash whether it may have. That is so for model
/// calls, which cost money, and for calls that may not be repeated.
#[must_use]
pub fn is_marked(call: &OpenCall) -> bool {
    matches!(call.call, Call::Model { .. }) || !call.may_repeat()
}

/// Whether a call may leave by a claim alone. A crash of the store may take a claim back that nothing durable followed, and
/// the next worker knows nothing of what left by it: for a model that would be a charge that nobody counts.
#[must_use]
pub fn leaves_at_once(call: &OpenCall) -> bool {
    call.class == Class::Read && !is_marked(call)
}

/// The inputs that tell a taken-over run about the calls that were out, oldest first. `was_sent` is asked about marked
/// calls; any other may have left.
pub fn lost<'a>(run: &'a Run, was_sent: impl Fn(EffectId, u32) -> Sent + 'a) -> impl Iterator<Item = Input> + 'a {
    run.calls.iter().filter(|(_, call)| call.is_out()).map(move |(effect, call)| {
        let sent = if is_marked(call) { was_sent(*effect, call.attempt) } else { Sent::Maybe };
        Input::Lost { effect: *effect, sent }
    })
}

/// Calls that are to be performed when a run is claimed, once its lost ones are dealt with.
pub fn unsent(run: &Run) -> impl Iterator<Item = EffectId> + '_ {
    run.calls.iter().filter(|(_, call)| call.is_out()).map(|(effect, _)| *effect)
}

/// Children that the run believes to be open although they ended and no message about it is in its inbox.
#[must_use]
pub fn missed(run: &Run, ended: impl IntoIterator<Item = RunId>, inbox: &[InboxItem]) -> Vec<RunId> {
    let told: BTreeSet<&RunId> = inbox
        .iter()
        .filter_map(|item| if let Input::ChildEnded { child, .. } = &item.input { Some(child) } else { None })
        .collect();
    ended.into_iter().filter(|child| run.children.contains_key(child) && !told.contains(child)).collect()
}

/// Holds a run until a person decides, because this build cannot go on with it.
pub fn hold(run: &mut Run, now: Timestamp, reason: Name) -> Decision {
    record(
        run,
        now,
        "hold",
        vec![Entry::HoldPlaced { hold: Hold::Attention { reason, since: Some(now.max(run.now)) } }],
    )
}

/// Records that inputs were taken which change nothing, so that they leave the inbox.
pub fn nothing(run: &mut Run, now: Timestamp) -> Decision {
    record(run, now, "rejected", Vec::new())
}

fn record(run: &mut Run, now: Timestamp, input: &str, more: Vec<Entry>) -> Decision {
    let mut entries =
        vec![Entry::Decided { at: now.max(run.now), input: input.into(), by: None, basis: None, verdicts: Vec::new() }];
    entries.extend(more);
    let audit = entries.iter().filter_map(|entry| apply(run, entry)).collect();
    Decision { entries, audit, ..Decision::default() }
}

#[cfg(test)]
pub(crate) mod tests {
    use windlass_core::budget::Amounts;
    use windlass_core::contract::{Class, Idempotency};
    use windlass_core::ids::Digest;
    use windlass_core::input::Ending;
    use windlass_core::run::{OpenChild, Start, Status};
    use windlass_core::value::Value;

    use super::*;

    pub(crate) fn run() -> Run {
        let id = RunId::stored("r");
        Run::blank(Start::new(id, Digest::ZERO, "m".into(), "m".into(), Value::Null))
    }

    pub(crate) fn call(call: Call, class: Class, idempotency: Idempotency) -> OpenCall {
        OpenCall {
            call,
            attempt: 2,
            class,
            idempotency,
            arguments: Digest::ZERO,
            reserved: Amounts::ZERO,
            timeout_ms: 1_000,
            output_bytes_max: 1_000,
            at: Timestamp(1),
            backoff: None,
            doubt: None,
            losses: 0,
            cached_expected: None,
            agreed: None,
            output_max: None,
            veiled: Vec::new(),
            ruled: None,
            resources: Vec::new(),
            shadow: None,
            approval: None,
            held: Vec::new(),
            draws: false,
            wants: Amounts::ZERO,
            route: None,
        }
    }

    fn action() -> Call {
        Call::Action { action: "a".into() }
    }

    #[test]
    fn only_marked_calls_are_looked_up() {
        let mut run = run();
        run.calls.insert(EffectId(1), call(action(), Class::Read, Idempotency::None));
        run.calls.insert(EffectId(2), call(action(), Class::Write, Idempotency::None));
        run.calls
            .insert(EffectId(3), call(Call::Model { agent: "a".into(), sample: 0 }, Class::Read, Idempotency::None));
        let mut resting = call(action(), Class::Write, Idempotency::None);
        resting.backoff = Some(EffectId(9));
        run.calls.insert(EffectId(4), resting);
        let asked = std::cell::RefCell::new(Vec::new());
        let inputs: Vec<Input> = lost(&run, |effect, attempt| {
            asked.borrow_mut().push((effect.0, attempt));
            Sent::No
        })
        .collect();
        assert_eq!(*asked.borrow(), vec![(2, 2), (3, 2)]);
        assert_eq!(
            inputs,
            vec![
                Input::Lost { effect: EffectId(1), sent: Sent::Maybe },
                Input::Lost { effect: EffectId(2), sent: Sent::No },
                Input::Lost { effect: EffectId(3), sent: Sent::No },
            ]
        );
    }

    #[test]
    fn a_child_that_was_told_about_is_not_missed() {
        let mut run = run();
        let ids: Vec<RunId> = (0..3).map(|i| run.id().child(1, i)).collect();
        for id in &ids[..2] {
            run.children.insert(
                id.clone(),
                OpenChild {
                    slot: None,
                    allotment: Amounts::ZERO,
                    awaited: true,
                    cancelled: false,
                    machine: "".into(),
                    at: Timestamp::default(),
                },
            );
        }
        let ending = Ending::Cancelled { reason: "x".into() };
        let inbox = [InboxItem {
            number: 1,
            id: "x".into(),
            input: Input::ChildEnded {
                child: ids[0].clone(),
                ending,
                used: Amounts::ZERO,
                labels: None,
                hidden: windlass_core::hidden::Hidden::default(),
            },
        }];
        assert_eq!(missed(&run, ids.clone(), &inbox), vec![ids[1].clone()]);
    }

    #[test]
    fn a_held_run_asks_for_attention() {
        let mut run = run();
        let decision = hold(&mut run, Timestamp(7), "broken".into());
        assert_eq!((run.version, run.status()), (1, Status::Attention));
        assert_eq!(decision.entries.len(), 2);
        assert!(!run.started, "it begins, with its bounds, once the hold is lifted");
        assert_eq!(hold(&mut run, Timestamp(8), "again".into()).entries.len(), 2);
    }
}
