//! Cut at every point: for k = 1, 2, … until a run ends untouched, a worker aborts at its k-th point and another one
//! carries on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use windlass_core::budget::Amounts;
use windlass_core::failure::Code;
use windlass_core::ids::RunId;
use windlass_core::input::Ending;
use windlass_core::journal::{Entry, Record};
use windlass_core::run::{Run, Status};
use windlass_core::value::Value;
use windlass_ports::store::{Query, Signal, Store};
use windlass_runtime::trail::{self, Asked};

use super::course::Course;
use super::lost::{Known, Lost, in_flight};
use super::machine::{CHANNEL, SIDE, TOOLS, UNREPEATABLE};
use super::place::Place;
use super::worker::{RUN, engine, spawn, store};
use super::world::{Deed, World};

/// What the outside can see of a finished proof.
#[derive(Debug, PartialEq)]
pub(super) struct Trace {
    pub(super) output: Value,
    /// Used and estimated, by run.
    pub(super) ledgers: BTreeMap<String, (Amounts, Amounts)>,
    /// Attempts at model calls, by the audit rows of all runs.
    pub(super) attempts: usize,
    /// Calls that a journal says were lost or in doubt: run and effect.
    pub(super) losses: BTreeSet<(String, u64)>,
    pub(super) deeds: Vec<Deed>,
}

/// The run of the proof, which asks nothing that [`answer_waits`] does not answer.
fn course<'a>(folder: &'a Path, world: &'a World) -> Course<'a> {
    Course { folder, world, spawn, answer: &|_| () }
}

/// Carries on, untouched, to the end.
pub(super) fn finish(folder: &Path, world: &World) -> Trace {
    course(folder, world).finish();
    trace(folder, world)
}

/// What the outside sees of a run that has ended.
pub(super) fn trace(folder: &Path, world: &World) -> Trace {
    let mut trace = outcome(folder);
    trace.deeds = world.take();
    trace.deeds.sort();
    trace
}

/// Where every run of a folder stands.
pub(super) fn standing(folder: &Path) -> String {
    block_on(async {
        let store = store(folder).await;
        let root = RunId::stored(RUN);
        let query = Query { root: Some(root.clone()), limit: 100, ..Query::default() };
        let heads = store.list(query).await.expect("a list").heads;
        let waits = store.waits(root, true).await.expect("waits");
        format!("{heads:?}, {waits:?}")
    })
}

/// Answers what the tree waits for. True when all of it has ended.
pub(super) fn answer_waits(folder: &Path, world: &World) -> bool {
    block_on(async {
        let store = store(folder).await;
        let root = RunId::stored(RUN);
        let page =
            store.list(Query { root: Some(root.clone()), limit: 100, ..Query::default() }).await.expect("a list");
        if !page.heads.is_empty() && page.heads.iter().all(|head| head.status.is_final()) {
            return true;
        }
        // Workers that die three times before they can decide anything look like the fault of the run.
        for head in page.heads.iter().filter(|head| head.status == Status::Quarantined) {
            assert!(store.requeue(head.id.clone()).await.expect("an answer"), "`{}` is quarantined", head.id);
        }
        for (run, wait) in store.waits(root.clone(), true).await.expect("waits") {
            let data = if &*wait.channel == CHANNEL {
                Value::object([("approved", Value::Bool(true))])
            } else if let Some(effect) = wait.channel.strip_prefix("outcome/") {
                let happened = world.has(effect);
                let result = Value::object([("done", Value::str("erase"))]);
                Value::object([("happened", Value::Bool(happened)), ("result", result)])
            } else {
                continue;
            };
            // A call that is lost twice is asked about twice, on the same channel.
            let id = format!("answer-{run}{}", wait.effect).into();
            let at = windlass::wire::now();
            let signal = Signal { id, channel: wait.channel, run: Some(run), data, at };
            store.signal(signal).await.expect("a signal");
        }
        false
    })
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio").block_on(future)
}

/// What the stored runs of a folder say at the end.
fn outcome(folder: &Path) -> Trace {
    block_on(async {
        let (engine, _) = engine(folder, None).await;
        let store = &engine.parts().store;
        let query = Query { root: Some(RunId::stored(RUN)), limit: 100, ..Query::default() };
        let mut trace = Trace {
            output: Value::Null,
            ledgers: BTreeMap::new(),
            attempts: 0,
            losses: BTreeSet::new(),
            deeds: Vec::new(),
        };
        let mut told = false;
        for head in store.list(query).await.expect("a list").heads {
            let report = engine.status(&head.id).await.expect("a report").expect("the run");
            if head.id.as_str() == RUN {
                trace.output = ending_of(&report.run);
                told = !report.run.children.contains_key(SIDE);
            }
            let ledger = &report.run.ledger;
            assert!(ledger.reserved.is_zero(), "{}: nothing stays reserved", head.id);
            trace.ledgers.insert(head.id.to_string(), (ledger.settled, ledger.estimated));
            trace.losses.extend(losses(&**store, &head.id).await);
            let rows = store.audit(head.id).await.expect("audit rows");
            trace.attempts += rows.iter().filter(|row| &*row.kind == "model" && &*row.stage == "intended").count();
        }
        // A launch goes on by itself: whether it ends before the run that launched it, which then counts what it used,
        // is a matter of time.
        if let Some((side, _)) = trace.ledgers.get(SIDE).copied().filter(|_| told)
            && let Some((settled, _)) = trace.ledgers.get_mut(RUN)
        {
            let steps = settled.steps;
            settled.subtract(&side);
            settled.steps = steps;
        }
        let findings = store.fsck().await.expect("fsck");
        assert!(findings.is_empty(), "{findings:?}");
        trace
    })
}

/// Calls of a run whose attempts were lost, or in doubt, by its journal.
async fn losses(store: &dyn Store, run: &RunId) -> BTreeSet<(String, u64)> {
    let rows = store.journal(run.clone(), 0, usize::MAX).await.expect("a journal");
    let entries = rows.iter().flat_map(|row| Record::decode(&row.bytes).expect("a record").entries);
    let lost = entries.filter_map(|entry| match entry {
        Entry::AttemptFailed { effect, failure, .. } if failure.code == Code::RunAttemptLost => Some(effect),
        Entry::DoubtRaised { effect, .. } => Some(effect),
        _ => None,
    });
    lost.map(|effect| (run.to_string(), effect.0)).collect()
}

fn ending_of(run: &Run) -> Value {
    match &run.ending {
        Some(Ending::Completed { output }) => output.clone(),
        other => panic!("the run ended by {other:?}"),
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the count and the seed are part of the proof")]
fn a_cut_at_any_point_changes_nothing_that_was_promised() {
    let world = World::start();
    let calm = Place::new(&world);
    let expected = finish(calm.path(), &world);
    assert!(expected.ledgers[RUN].0.cost_micros > 0, "calls have a price");
    assert_eq!(expected.deeds.iter().filter(|deed| TOOLS.contains(&&*deed.what)).count(), TOOLS.len());

    let mut cuts: BTreeMap<String, u64> = BTreeMap::new();
    let mut lost_tools: BTreeSet<String> = BTreeSet::new();
    let mut unsent: BTreeMap<String, u64> = BTreeMap::new();
    let (mut cut, mut lost_models) = (0, 0);
    loop {
        cut += 1;
        let folder = Place::new(&world);
        let Some(point) = course(folder.path(), &world).cut(cut) else { break };
        let lost = in_flight(folder.path(), &world, &mut Known::default());
        if let Some(kind) = point.strip_prefix("BeforeSend(\"").and_then(|rest| rest.strip_suffix("\")")) {
            block_on(intended_and_not_done(folder.path(), &world, kind));
            *unsent.entry(kind.to_owned()).or_default() += 1;
        }
        let trace = finish(folder.path(), &world);
        compare(&expected, &trace, &lost, &format!("cut {cut} at {point}, lost {lost:?}"));
        lost_models += lost.models.len();
        lost_tools.extend(lost.tools.into_values().filter(|loss| loss.reached).map(|loss| loss.tool));
        *cuts.entry(point).or_default() += 1;
    }
    world.take();
    println!("{} points cut: {cuts:?}; lost: {lost_models} model attempts, tools {lost_tools:?}", cut - 1);
    assert!(cut > 40, "only {} points", cut - 1);
    assert!(lost_models > 0, "no model attempt was lost");
    assert!(unsent.get("model") > Some(&3) && unsent.get("tool") > Some(&4), "cut right before a call: {unsent:?}");
    assert_eq!(lost_tools.len(), TOOLS.len(), "every tool is lost once: {lost_tools:?}");
}

/// FLT-A1, PRM-7: a worker that died right before a call left had written down that it would make it, and did not. What
/// stands in the audit by then is as it was written.
async fn intended_and_not_done(folder: &Path, world: &World, kind: &str) {
    world.settle();
    let (engine, _) = engine(folder, None).await;
    let store = &engine.parts().store;
    let query = Query { root: Some(RunId::stored(RUN)), limit: 100, ..Query::default() };
    let (mut intended, mut undone) = (0, 0);
    for head in store.list(query).await.expect("a list").heads {
        let run = engine.status(&head.id).await.expect("a report").expect("the run").run;
        let rows = store.audit(head.id.clone()).await.expect("audit rows");
        let is_before = |row: &&windlass_core::audit::Row| &*row.kind == kind && &*row.stage == "intended";
        intended += rows.iter().filter(is_before).count() as u64;
        for (effect, open) in run.calls.iter().filter(|(_, open)| open.call.kind() == kind) {
            let is_of = |row: &&windlass_core::audit::Row| row.effect == *effect && row.attempt == open.attempt;
            let stages: Vec<&str> = rows.iter().filter(is_of).map(|row| &*row.stage).collect();
            assert_eq!(stages, ["intended"], "{effect:?} of `{}`", head.id);
            undone += u64::from(!world.has(&effect.key(&head.id)));
        }
    }
    if kind == "model" {
        // The world knows calls of models by what they ask, not by their keys.
        undone = intended - world.counts().get("model").copied().unwrap_or(0);
    }
    assert!(undone > 0, "a call of a {kind} left before it was to leave");
    for verdict in trail::verify(&**store, &Asked::default()).await.expect("verified") {
        assert!(verdict.findings.is_empty(), "the audit of `{}`: {:?}", verdict.tenant, verdict.findings);
    }
}

/// Checks what the promises say of a run that lost these calls on its way.
pub(super) fn compare(expected: &Trace, trace: &Trace, lost: &Lost, what: &str) {
    assert_eq!(expected.output, trace.output, "output, {what}");
    let (before, after) = (counts(&expected.deeds), counts(&trace.deeds));
    for (deed, times) in &before {
        let (most, now) = (times + lost.times(deed), after.get(deed).copied().unwrap_or(0));
        let most = if *deed == "model" { times + lost.models.len() } else { most };
        let most = if UNREPEATABLE.contains(deed) { 1 } else { most };
        assert!((*times..=most).contains(&now), "`{deed}` {now} times for {times} to {most}, {what}");
    }
    let unknown = after.keys().find(|deed| **deed != "happened" && !before.contains_key(*deed));
    assert_eq!(unknown, None, "a deed nobody asked for, {what}");
    for tool in before.keys().filter(|deed| !["model", "happened"].contains(deed)) {
        let keys: BTreeSet<&String> = trace.deeds.iter().filter(|d| d.what == *tool).map(|d| &d.key).collect();
        assert_eq!(keys.len(), 1, "`{tool}` always carries the same key, {what}");
    }
    if !lost.is_doubted() {
        let keys = |trace: &Trace| trace.deeds.iter().map(|deed| deed.key.clone()).collect::<BTreeSet<_>>();
        assert_eq!(keys(expected), keys(trace), "keys, {what}");
    }
    assert_eq!(trace.attempts, expected.attempts + lost.models.len(), "one attempt for each that was lost, {what}");
    let untold: Vec<_> = trace.losses.difference(&lost.calls()).cloned().collect();
    assert_eq!(untold, [], "nothing is called lost that was not in flight, {what}");
    assert_eq!(charged(expected, lost), trace.ledgers, "ledger, {what}");
    if lost.is_empty() {
        assert_eq!(expected.deeds, trace.deeds, "effects, {what}");
    }
}

/// The ledgers of an undisturbed run with one charge more for each lost model attempt: all that it had reserved, marked as
/// an estimate in its own run, and as used by the run that waits for that one as well.
fn charged(expected: &Trace, lost: &Lost) -> BTreeMap<String, (Amounts, Amounts)> {
    let mut ledgers = expected.ledgers.clone();
    for (run, (settled, estimated)) in &mut ledgers {
        settled.add(&lost.charge(run));
        estimated.add(&lost.charge(run));
    }
    let awaited: Vec<String> = ledgers.keys().filter(|run| ![RUN, SIDE].contains(&run.as_str())).cloned().collect();
    for child in awaited {
        let charge = lost.charge(&child);
        ledgers.entry(RUN.to_owned()).and_modify(|(settled, _)| settled.add(&charge));
    }
    ledgers
}

fn counts(deeds: &[Deed]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for deed in deeds {
        *counts.entry(&*deed.what).or_default() += 1;
    }
    counts
}
