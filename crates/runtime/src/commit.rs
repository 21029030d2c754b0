//! Turns a decision into the one commit that makes it durable, and says what becomes of the lease with it.
//!
//! Messages to other runs are part of the commit: the store delivers them in the same transaction, so there is nothing
//! between a decision and its delivery that could be lost, and no outbox beside it.

use windlass_core::Decision;
use windlass_core::effect::Effect;
use windlass_core::ids::{EffectId, Name};
use windlass_core::journal::{self, Entry, Record};
use windlass_core::machine::{Machine, Placement, Program};
use windlass_core::run::{Hold, Run, Stage, Status};
use windlass_core::snapshot;
use windlass_core::time::Timestamp;
use windlass_core::{audit, limits};
use windlass_ports::store::{
    Commit, HeadUpdate, JournalRow, Keep, Lease, Message, NewRun, OpId, Queueing, WaitRow, WorkerId,
};

use crate::fold::Tail;
use crate::payload;

/// What a worker still has to do for a run once a decision is durable.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ahead {
    /// Calls are out, or will be with the effects of this decision.
    pub calls: bool,
    /// Results of calls wait in memory; they would be lost with it.
    pub results: bool,
    /// Something else can be decided now: an inbox item, a timer that is due.
    pub inputs: bool,
    /// The worker wants to let the run go.
    pub leaving: bool,
    /// The earliest timer.
    pub wake_at: Option<Timestamp>,
}

/// A run that has not ended, waits for nothing and asks for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the run has not ended and waits for nothing")]
pub struct Stuck;

/// What becomes of the lease of a run that was decided on.
///
/// # Errors
/// The run would never be looked at again.
pub fn keep(run: &Run, ahead: Ahead) -> Result<Keep, Stuck> {
    if run.stage == Stage::Ended {
        return Ok(Keep::End);
    }
    if ahead.calls || ahead.results {
        return Ok(Keep::Hold);
    }
    let unsent = (run.has_calls_out() || run.escrow.asked.is_some()) && run.hold.is_none();
    if ahead.leaving && (unsent || ahead.inputs) {
        return Ok(Keep::HandBack);
    }
    if unsent || ahead.inputs {
        return Ok(Keep::Hold);
    }
    let parked = run.hold.is_some() || !(run.waits.is_empty() && run.timers.is_empty() && run.children.is_empty());
    if parked { Ok(Keep::Park { wake_at: ahead.wake_at }) } else { Err(Stuck) }
}

/// Under which right a commit is made.
#[derive(Clone, Copy, Debug)]
pub struct Under<'a> {
    /// Its name.
    pub op: OpId,
    /// The lease.
    pub lease: &'a Lease,
    /// Who holds it.
    pub worker: &'a WorkerId,
    /// The pool that the run is in by the store, when that is known.
    pub pool: Option<&'a Name>,
    /// Losses of its worker that count on after it.
    pub strikes: u32,
    /// The epoch of the read-only switches, when it begins calls that change something.
    pub begins: Option<u64>,
}

/// A commit, and what is left of its decision.
#[derive(Debug)]
pub struct Draft {
    /// The commit.
    pub commit: Commit,
    /// The entries it records.
    pub entries: Vec<Entry>,
    /// The effects to perform once it is durable.
    pub effects: Vec<Effect>,
}

/// Drafts the commit of a decision that has been applied to `run`. `taken` are the inbox rows it used.
#[must_use]
pub fn draft(
    under: Under<'_>,
    program: &Program,
    run: &Run,
    decision: Decision,
    taken: Vec<u64>,
    keep: Keep,
    tail: &mut Tail,
) -> Draft {
    let Decision { entries, effects, audit, .. } = decision;
    let record = Record { format: journal::FORMAT, version: run.version, entries };
    let external = payload::externalize(record.encode());
    tail.add(record.entries.len(), external.bytes.len());
    let snapshot = (tail.is_due() && keep != Keep::End).then(|| snapshot::encode(run));
    if let Some(bytes) = &snapshot {
        tail.cut(bytes.len());
    }
    let row = JournalRow {
        version: run.version,
        bytes: external.bytes,
        blobs: external.blobs.iter().map(|(digest, _)| *digest).collect(),
    };
    let commit = Commit {
        op: under.op,
        lease: under.lease.clone(),
        worker: under.worker.clone(),
        expected: run.version - 1,
        head: HeadUpdate {
            pool: moved(program, run, &record.entries, under.pool),
            strikes: under.strikes,
            ..head(run, keep)
        },
        record: row,
        at: run.now,
        snapshot,
        blobs: external.blobs,
        audit,
        waits_opened: Vec::new(),
        waits_closed: Vec::new(),
        children: Vec::new(),
        messages: Vec::new(),
        taken,
        keep,
        begins: under.begins,
    };
    Draft { commit: with_effects(commit, program, run, &effects), entries: record.entries, effects }
}

fn with_effects(mut commit: Commit, program: &Program, run: &Run, effects: &[Effect]) -> Commit {
    for effect in effects {
        match effect {
            Effect::Start(child) => {
                let machine = program.machines.get(&child.machine);
                let name = machine.map_or(&child.machine, |machine| &machine.name);
                let start = run.child_start(child, name.clone());
                let queueing = machine.map_or_else(Queueing::default, |machine| queueing(machine));
                commit.children.push(NewRun { start, at: run.now, queueing });
            }
            Effect::Tell { to, id, input } => {
                let message = Message { to: to.clone(), id: id.clone(), input: (**input).clone() };
                commit.messages.push(message);
            }
            // A wait that the same decision closed again was never there.
            Effect::OpenWait(id) => commit.waits_opened.extend(wait_row(run, *id)),
            Effect::CloseWait(id) => commit.waits_closed.push(*id),
            Effect::Call(_)
            | Effect::Abandon(_)
            | Effect::Draw(_)
            | Effect::GiveBack(_)
            | Effect::SetTimer(_)
            | Effect::CancelTimer(_) => {}
        }
    }
    commit
}

fn wait_row(run: &Run, id: EffectId) -> Option<WaitRow> {
    let wait = run.waits.get(&id)?;
    Some(WaitRow { effect: id, channel: wait.channel.clone(), kind: wait.kind.clone(), due: wait.due })
}

/// How a new run of a machine waits for a worker, as far as the machine says.
#[must_use]
pub fn queueing(machine: &Machine) -> Queueing {
    let pool = machine.pool_of(Some(&machine.initial)).cloned();
    Queueing { pool, priority: machine.placement.priority, ..Queueing::default() }
}

fn head(run: &Run, keep: Keep) -> HeadUpdate {
    let used = run.used();
    HeadUpdate {
        status: status(run, keep),
        state: run.state.clone(),
        step: run.step,
        tokens: used.tokens,
        cost_micros: used.cost_micros,
        bundle: run.start.bundle,
        pool: None,
        strikes: 0,
    }
}

/// The pool that the next step asks for, when it is another one than before.
fn moved(program: &Program, run: &Run, entries: &[Entry], before: Option<&Name>) -> Option<Name> {
    let placement = &program.machines.get(&run.start.machine)?.placement;
    let entered = || entries.iter().any(|entry| matches!(entry, Entry::StateEntered { .. }));
    // Where no state has a pool of its own, the run stays in the one it was made in.
    let asks = !placement.pools.is_empty() && entered();
    other_pool(placement, run.state.as_deref(), before).filter(|_| asks).cloned()
}

fn other_pool<'a>(placement: &'a Placement, state: Option<&str>, before: Option<&Name>) -> Option<&'a Name> {
    placement.pool_of(state).filter(|asked| before != Some(*asked))
}

/// The status of a run: a parked one is not running, although calls that were never sent may be open.
fn status(run: &Run, keep: Keep) -> Status {
    match (keep, &run.hold) {
        (Keep::Park { .. }, Some(Hold::Paused { .. } | Hold::ReadOnly { .. })) => Status::Paused,
        (Keep::Park { .. }, Some(Hold::Attention { .. })) => Status::Attention,
        (Keep::Park { .. } | Keep::Hold | Keep::HandBack | Keep::End, _) => run.status(),
    }
}

/// What the `settled` row of a call says about it: kind and target.
#[must_use]
pub fn target_of(audit: &[audit::Row], effect: EffectId) -> Option<(&Name, &Name)> {
    audit.iter().rev().find(|row| row.effect == effect).map(|row| (&row.kind, &row.target))
}

/// Inputs that one worker decides for a run before it lets others have a turn, when others wait.
pub const SLICE_COMMITS: u64 = limits::SNAPSHOT_ENTRIES_MAX;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use windlass_core::budget::{Amounts, Ceilings};
    use windlass_core::contract::{Class, Idempotency};
    use windlass_core::effect::{Call, ChildStart, OpenTimer, OpenWait, TimerPurpose, WaitKind};
    use windlass_core::ids::{Digest, RunId};
    use windlass_core::input::{Ending, Input};
    use windlass_core::value::Value;

    use super::*;
    use crate::recover::tests::{call, run};

    fn program() -> Program {
        Program { bundle: Digest::ZERO, entry: "m".into(), machines: BTreeMap::new(), tools: BTreeMap::new() }
    }

    fn lease() -> Lease {
        Lease {
            run: RunId::stored("r"),
            epoch: 3,
            taken_from: None,
            strikes: 0,
            priority: windlass_core::machine::Priority::Normal,
        }
    }

    #[test]
    fn the_lease_follows_what_is_left_to_do() {
        let mut run = run();
        let nothing = Ahead::default();
        assert_eq!(keep(&run, nothing), Err(Stuck));
        assert_eq!(keep(&run, Ahead { inputs: true, ..nothing }), Ok(Keep::Hold));
        run.timers.insert(EffectId(1), OpenTimer { due: Timestamp(9), purpose: TimerPurpose::StateTimeout });
        let due = Ahead { wake_at: Some(Timestamp(9)), ..nothing };
        assert_eq!(keep(&run, due), Ok(Keep::Park { wake_at: Some(Timestamp(9)) }));
        assert_eq!(keep(&run, Ahead { leaving: true, ..due }), Ok(Keep::Park { wake_at: Some(Timestamp(9)) }));
        assert_eq!(keep(&run, Ahead { leaving: true, inputs: true, ..due }), Ok(Keep::HandBack));
        assert_eq!(keep(&run, Ahead { leaving: true, results: true, ..due }), Ok(Keep::Hold));
        let action = Call::Action { action: "a".into() };
        run.calls.insert(EffectId(2), call(action, Class::Read, Idempotency::None));
        assert_eq!(keep(&run, Ahead { calls: true, ..due }), Ok(Keep::Hold));
        assert_eq!(keep(&run, Ahead { leaving: true, ..due }), Ok(Keep::HandBack));
        run.hold = Some(Hold::Attention { reason: "x".into(), since: None });
        assert_eq!(keep(&run, due), Ok(Keep::Park { wake_at: Some(Timestamp(9)) }));
        assert_eq!(status(&run, Keep::Park { wake_at: None }), Status::Attention);
        run.stage = Stage::Ended;
        assert_eq!(keep(&run, Ahead { calls: true, ..due }), Ok(Keep::End));
    }

    #[test]
    fn a_draft_has_everything_that_the_decision_changes() {
        let mut run = run();
        run.version = 4;
        let wait = OpenWait::new("c".into(), WaitKind::Signal, None);
        run.waits.insert(EffectId(1), wait);
        let child = ChildStart {
            id: run.id().child(1, 0),
            machine: "child".into(),
            input: Value::Null,
            ceilings: Ceilings::default(),
            allotment: Amounts::ZERO,
            awaited: true,
            depth: 1,
            deadline: None,
            terms: windlass_core::run::Terms::default(),
            labels: None,
            hidden: windlass_core::hidden::Hidden::default(),
            ruled: None,
        };
        let told = Input::ChildEnded {
            child: run.id().clone(),
            ending: Ending::Completed { output: Value::Null },
            used: Amounts::ZERO,
            labels: None,
            hidden: windlass_core::hidden::Hidden::default(),
        };
        let effects = vec![
            Effect::OpenWait(EffectId(1)),
            Effect::OpenWait(EffectId(2)),
            Effect::CloseWait(EffectId(2)),
            Effect::Start(Box::new(child)),
            Effect::Tell { to: RunId::stored("parent"), id: "x".into(), input: Box::new(told) },
            Effect::Call(EffectId(7)),
        ];
        let decision = Decision { entries: vec![Entry::RunEnded], effects, ..Decision::default() };
        let under =
            Under { op: OpId(1), lease: &lease(), worker: &WorkerId("w".into()), pool: None, strikes: 0, begins: None };
        let mut tail = Tail::default();
        let draft = draft(under, &program(), &run, decision, vec![9], Keep::Hold, &mut tail);
        let commit = &draft.commit;
        assert_eq!((commit.expected, commit.record.version, commit.lease.epoch), (3, 4, 3));
        assert_eq!(commit.waits_opened.len(), 1);
        assert_eq!(commit.waits_closed, vec![EffectId(2)]);
        assert_eq!(&*commit.children[0].start.machine_name, "child");
        assert_eq!(commit.messages.len(), 1);
        assert_eq!(commit.taken, vec![9]);
        assert_eq!((draft.entries.len(), draft.effects.len()), (1, 6));
        assert_eq!(tail.entries, 1);
        assert!(commit.snapshot.is_none());
    }

    #[test]
    fn a_pool_is_named_when_it_is_another_one() {
        let pools = [("big one".into(), "big".into())].into();
        let placement = Placement { pool: Some("small".into()), pools, priority: None };
        let named = |state: &str, before: Option<&str>| {
            other_pool(&placement, Some(state), before.map(Name::from).as_ref()).map(ToString::to_string)
        };
        assert_eq!(named("s", None).as_deref(), Some("small"), "nobody knows where it is");
        assert_eq!(named("s", Some("small")), None, "it is there");
        assert_eq!(named("big one", Some("small")).as_deref(), Some("big"));
        assert_eq!(named("big one", Some("big")), None);
        assert_eq!(named("s", Some("big")).as_deref(), Some("small"));
    }

    #[test]
    fn a_snapshot_is_taken_when_it_is_due() {
        let mut run = run();
        run.version = 1;
        let under =
            Under { op: OpId(1), lease: &lease(), worker: &WorkerId("w".into()), pool: None, strikes: 0, begins: None };
        let mut tail = Tail { entries: limits::SNAPSHOT_ENTRIES_MAX - 1, bytes: 5_000, snapshot_bytes: 0 };
        let decision = Decision { entries: vec![Entry::HooksEnded], ..Decision::default() };
        let draft = draft(under, &program(), &run, decision, Vec::new(), Keep::Hold, &mut tail);
        assert!(draft.commit.snapshot.is_some());
        assert_eq!((tail.entries, tail.bytes), (0, 0));
    }
}
