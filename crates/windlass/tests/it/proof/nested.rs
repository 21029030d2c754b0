//! Questions of a whole tree, four deep and three wide: every node asks before it starts its children and after they have
//! ended, every leaf asks, and all that are open are answered in random order, with the worker killed after each answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use windlass_core::approval::Reply;
use windlass_core::budget::Amounts;
use windlass_core::effect::WaitKind;
use windlass_core::ids::{EffectId, RunId};
use windlass_core::input::{Ending, Input};
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::{Message, Query, Store};
use windlass_runtime::store_time;

use super::cuts::block_on;
use super::machine::configuration;
use super::place::Place;
use super::switch::{Workers, spawn};
use super::worker::{RUN, engine, store};
use super::world::World;

/// Levels below the root, each of which is three wide.
const DEPTH: usize = 3;
/// Runs of the tree: 1 + 3 + 9 + 27.
const RUNS: usize = 40;
/// Within how long of an answer the worker is killed, in milliseconds.
const MOMENT_MS: u64 = 60;
/// When there is something wrong with the test.
const PATIENCE: Duration = Duration::from_secs(120);

const LEAF: &str = "spec: flatmachine\nspec_version: 4.2.1\ndata:\n  name: leaf\n  states:\n    \
    pay: {type: initial, action: pay, on_error: {approval.rejected: refused}, transitions: [{to: done}]}\n    \
    done: {type: final, output: {said: paid}}\n    refused: {type: final, output: {said: refused}}\n";

/// Writes the machines: those of inner nodes pay, start three children, and pay once more.
fn write(folder: &Path, world: &World) {
    let text = configuration(&world.address).replace("[tools.pay]\n", "[tools.pay]\napproval = \"always\"\n");
    std::fs::write(folder.join("windlass.toml"), text).expect("a writable folder");
    std::fs::write(folder.join("level0.yml"), LEAF).expect("a writable folder");
    for level in 1..=DEPTH {
        let mut text = String::new();
        write!(
            text,
            "spec: flatmachine\nspec_version: 4.2.1\ndata:\n  name: level{level}\n  context: {{items: [1, 2, 3]}}\n  \
             machines: {{below: ./level{}.yml}}\n  states:\n    \
             before: {{type: initial, action: pay, on_error: {{approval.rejected: refused}}, transitions: [{{to: all}}]}}\n    \
             all: {{foreach: context.items, as: n, machine: below, output_to_context: {{all: output}}, transitions: [{{to: after}}]}}\n    \
             after: {{action: pay, on_error: {{approval.rejected: late}}, transitions: [{{to: done}}]}}\n    \
             done: {{type: final, output: {{said: paid, all: context.all}}}}\n    \
             late: {{type: final, output: {{said: refused, all: context.all}}}}\n    \
             refused: {{type: final, output: {{said: refused}}}}\n",
            level - 1
        )
        .expect("text");
        let name = if level == DEPTH { "machine.yml".to_owned() } else { format!("level{level}.yml") };
        std::fs::write(folder.join(name), text).expect("a writable folder");
    }
}

/// A question that is open.
struct Question {
    run: RunId,
    /// The call that it is about.
    effect: EffectId,
    reply: Reply,
}

/// The questions of the tree that nobody has answered, once nothing else is going on; none when all of it has ended.
async fn open(store: &dyn Store, given: &BTreeMap<(RunId, EffectId), bool>) -> Option<Vec<Question>> {
    let root = RunId::stored(RUN);
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "the tree stands still");
        let query = Query { root: Some(root.clone()), limit: 100, ..Query::default() };
        let heads = store.list(query).await.expect("a list").heads;
        if heads.iter().all(|head| head.status.is_final()) {
            return None;
        }
        // Workers that die three times before they can decide anything look like the fault of the run.
        for head in heads.iter().filter(|head| head.status == Status::Quarantined) {
            assert!(store.requeue(head.id.clone()).await.expect("an answer"), "`{}` is quarantined", head.id);
        }
        let mut found = Vec::new();
        let mut untaken = 0;
        for (run, row) in store.waits(root.clone(), true).await.expect("waits") {
            let WaitKind::Approval { shown, effect } = row.kind else { continue };
            if given.contains_key(&(run.clone(), effect)) {
                untaken += 1;
                continue;
            }
            let (by, reason, raise) = ("ann".into(), "".into(), Amounts::ZERO);
            let reply = Reply { wait: row.effect, approve: true, by, reason, shown, arguments: None, raise, at: None };
            found.push(Question { run, effect, reply });
        }
        let parked = |status: Status| status.is_final() || matches!(status, Status::Waiting | Status::Attention);
        if untaken == 0 && !found.is_empty() && heads.iter().all(|head| parked(head.status)) {
            return Some(found);
        }
        // Slow on purpose: another process does the work.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Delivers an answer and, after it, the opposite one, which is too late.
async fn deliver(store: &dyn Store, question: &Question, approve: bool) {
    for approve in [approve, !approve] {
        let at = Some(store_time(store).await.expect("the time"));
        let reply = Reply { approve, at, ..question.reply.clone() };
        let (id, input) = (reply.delivery_id(), Input::Approved(Box::new(reply)));
        store.deliver(Message { to: question.run.clone(), id, input }).await.expect("delivered");
    }
}

/// How often each word was said at the end of a run of the tree.
fn said(output: &Value, found: &mut BTreeMap<String, usize>) {
    match output {
        Value::Map(map) => {
            if let Some(word) = map.get("said").and_then(Value::as_str) {
                *found.entry(word.to_owned()).or_default() += 1;
            }
            map.values().for_each(|value| said(value, found));
        }
        Value::List(list) => list.iter().for_each(|value| said(value, found)),
        _ => {}
    }
}

/// What the tree came to: the answers, the calls that left, and the words of every run.
async fn check(folder: &Path, world: &World, given: &BTreeMap<(RunId, EffectId), bool>, what: &str) {
    let approved: BTreeSet<String> =
        given.iter().filter(|(_, approve)| **approve).map(|((run, effect), _)| effect.key(run)).collect();
    let paid: Vec<String> = world.take().into_iter().filter(|deed| deed.what == "pay").map(|deed| deed.key).collect();
    let different: BTreeSet<String> = paid.iter().cloned().collect();
    assert_eq!((&different, paid.len()), (&approved, approved.len()), "each approved call leaves once, {what}");
    let (engine, _) = engine(folder, None).await;
    let report = engine.status(&RunId::stored(RUN)).await.expect("a report").expect("the run");
    let Some(Ending::Completed { output }) = report.run.ending else { panic!("{:?}, {what}", report.run.ending) };
    let mut words = BTreeMap::new();
    said(&output, &mut words);
    let mut runs: BTreeMap<&RunId, bool> = BTreeMap::new();
    for ((run, _), approve) in given {
        *runs.entry(run).or_insert(true) &= approve;
    }
    let count = |all| runs.values().filter(|agreed| **agreed == all).count();
    let of = |word: &str| words.get(word).copied().unwrap_or(0);
    assert_eq!((of("paid"), of("refused")), (count(true), count(false)), "{what}");
    assert_eq!(engine.parts().store.fsck().await.expect("fsck"), Vec::new(), "{what}");
}

#[test]
#[expect(clippy::print_stdout, reason = "the seed and the counts are part of the proof")]
fn a_tree_of_questions_is_answered_in_random_order_with_a_kill_after_each() {
    let seed =
        std::env::var("WINDLASS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::start();
    let place = Place::new(&world);
    write(place.path(), &world);
    block_on(async {
        let (engine, submission) = engine(place.path(), None).await;
        engine.submit(submission).await.expect("submitted");
        drop(engine);
        let store = store(place.path()).await;
        let mut given = BTreeMap::new();
        let mut widest = 0;
        let mut worker = Workers(vec![spawn(place.path(), false)]);
        while let Some(mut questions) = open(&*store, &given).await {
            widest = widest.max(questions.len());
            let question = questions.swap_remove(rng.usize(..questions.len()));
            // The upper levels always begin, so that there is a tree.
            let begins = !given.keys().any(|(run, _)| *run == question.run);
            let is_upper = question.run.as_str().matches('~').count() + 1 < DEPTH;
            let approve = (begins && is_upper) || rng.u8(..6) > 0;
            deliver(&*store, &question, approve).await;
            given.insert((question.run, question.effect), approve);
            // Slow on purpose: the worker is somewhere in what follows from the answer.
            tokio::time::sleep(Duration::from_millis(rng.u64(..MOMENT_MS))).await;
            // By SIGKILL.
            drop(worker);
            worker = Workers(vec![spawn(place.path(), false)]);
        }
        drop(worker);
        world.settle();
        let (answers, runs) = (given.len(), given.keys().map(|(run, _)| run).collect::<BTreeSet<_>>().len());
        println!("{answers} answers to {runs} runs, each followed by a kill; {widest} questions open at once");
        assert!(runs <= RUNS && answers > 3 * DEPTH && widest >= 3, "seed {seed}: {answers} of {runs} runs, {widest}");
        check(place.path(), &world, &given, &format!("seed {seed}")).await;
    });
}
