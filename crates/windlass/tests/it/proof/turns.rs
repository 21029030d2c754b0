//! Calls that wait for their turn in a worker that is killed: none of them has left, so that none is in doubt, charged, or
//! made twice. Only the one that was out is.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use windlass_core::budget::Meter;
use windlass_core::effect::WaitKind;
use windlass_core::ids::RunId;
use windlass_core::journal::{Entry, Record};
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::Store;
use windlass_runtime::fold::fold;

use super::bank::charged;
use super::cuts::block_on;
use super::place::Place;
use super::switch::{Workers, spawn};
use super::worker::{engine, store};
use super::world::World;

/// Runs, each of which makes one call.
const RUNS: u64 = 8;
/// How long those that wait are watched, in milliseconds: none of them leaves.
const WATCH_MS: u64 = 500;
/// When there is something wrong with the test.
const PATIENCE: Duration = Duration::from_secs(120);

const PAYS: &str = "spec: flatmachine\nspec_version: 4.2.1\ndata:\n  name: payer\n  states:\n    \
    pay: {type: initial, action: pay, transitions: [{to: end}]}\n    end: {type: final, output: {paid: true}}\n";

const ASKS: &str = r##"
spec: flatmachine
spec_version: 4.2.1
data:
  name: asker
  context: {n: "{{ input.n }}"}
  agents:
    teller: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: "take {{ input.n }}"}, profile: main}}
  states:
    ask: {type: initial, agent: teller, input: {n: context.n}, output_to_context: {r: output.content}, transitions: [{to: end}]}
    end: {type: final, output: {r: context.r}}
"##;

/// One call of the tool at a time; the others wait for as long as the test lasts.
const ONE_AT_A_TIME: &str = "idempotency = \"none\"\non_unknown = \"ask\"\ntimeout_ms = 240000\n\
    limits = { concurrent = 1, queue_ms = 120000 }\n";

fn run(number: u64) -> RunId {
    RunId::new(&format!("q{number}")).expect("an id")
}

async fn submit(folder: &Path, numbers: std::ops::Range<u64>) {
    let (engine, submission) = engine(folder, None).await;
    let submit = |number: u64| {
        let mut submission = submission.clone();
        submission.run_id = Some(run(number));
        submission.input = Value::object([("n", Value::Int(number as i64))]);
        engine.submit(submission)
    };
    for created in join_all(numbers.map(submit)).await {
        created.expect("submitted");
    }
}

/// Waits for something that another process does.
async fn until(what: &str, is_done: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_done().await {
        assert!(began.elapsed() < PATIENCE, "{what} takes too long");
        // Slow on purpose: another process does the work.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn entries(store: &dyn Store, number: u64) -> Vec<Entry> {
    let rows = store.journal(run(number), 0, 1_000).await.expect("read");
    rows.iter().flat_map(|row| Record::decode(&row.bytes).expect("a record").entries).collect()
}

/// Runs whose call is decided on, and of these those whose call has ended.
async fn calls(store: &dyn Store) -> (u64, u64) {
    let (mut intended, mut settled) = (0, 0);
    for number in 0..RUNS {
        for entry in entries(store, number).await {
            intended += u64::from(matches!(entry, Entry::CallIntended { .. }));
            settled += u64::from(matches!(entry, Entry::CallSettled { .. }));
        }
    }
    (intended, settled)
}

async fn with_status(store: &dyn Store, wanted: Status) -> Vec<u64> {
    let mut found = Vec::new();
    for number in 0..RUNS {
        let stored = store.load(run(number)).await.expect("read").expect("there");
        found.extend((stored.head.status == wanted).then_some(number));
    }
    found
}

/// Watches calls that wait, and kills the worker in which they do.
async fn kill_while_waiting(worker: Workers, world: &World, what: &str) {
    let before = world.arrivals(what);
    // Slow on purpose: what waits for its turn does not leave, however long it is watched.
    tokio::time::sleep(Duration::from_millis(WATCH_MS)).await;
    assert_eq!(world.arrivals(what), before, "a call left before its turn");
    // By SIGKILL.
    drop(worker);
}

#[test]
fn of_calls_that_wait_for_a_tool_only_the_one_that_left_is_in_doubt() {
    let world = World::start();
    world.shut(true);
    let place = Place::new(&world);
    let path = place.path().join("windlass.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let (before, after) = text.split_once("[tools.pay]").expect("the tool");
    let (old, rest) = after.split_once("idempotency").expect("its contract");
    let rest = rest.split_once("\n\n").expect("the next one").1;
    std::fs::write(&path, format!("{before}[tools.pay]{old}{ONE_AT_A_TIME}\n{rest}")).expect("written");
    std::fs::write(place.path().join("machine.yml"), PAYS).expect("a writable folder");
    block_on(async {
        submit(place.path(), 0..RUNS).await;
        let store = store(place.path()).await;
        let worker = Workers(vec![spawn(place.path(), false)]);
        until("the first call", async || world.arrivals("pay") == 1 && calls(&*store).await == (RUNS, 0)).await;
        kill_while_waiting(worker, &world, "pay").await;
        world.shut(false);
        world.settle();
        let _worker = Workers(vec![spawn(place.path(), false)]);
        until("the second worker", async || with_status(&*store, Status::Completed).await.len() as u64 == RUNS - 1)
            .await;
        let paid: Vec<String> = world.take().into_iter().map(|deed| deed.key).collect();
        let different: BTreeSet<&String> = paid.iter().collect();
        assert_eq!((paid.len() as u64, different.len() as u64), (RUNS, RUNS), "each call was made once: {paid:?}");
        // The one that left first is asked about, and no other.
        for number in 0..RUNS {
            let stored = store.load(run(number)).await.expect("read").expect("there");
            let is_first = paid[0].starts_with(&format!("{}#", run(number)));
            let folded = fold(stored.start, stored.snapshot.as_deref(), &stored.records, &Default::default());
            let folded = folded.expect("a run").run;
            let doubts = folded.waits.values().filter(|wait| matches!(wait.kind, WaitKind::Outcome { .. })).count();
            assert_eq!((doubts > 0, stored.head.status == Status::Completed), (is_first, !is_first), "run {number}");
        }
        assert_eq!(store.fsck().await.expect("fsck"), Vec::new());
    });
}

#[test]
fn calls_that_wait_for_quota_are_not_charged_until_they_are_sent() {
    let world = World::start();
    let place = Place::new(&world);
    std::fs::write(place.path().join("machine.yml"), ASKS).expect("a writable folder");
    let models = "version: proof\nquota_wait: {high_ms: 600000, normal_ms: 600000, low_ms: 600000}\n";
    std::fs::write(place.path().join("models.yml"), models).expect("a writable folder");
    // The first answer says that nothing is left for longer than the test watches.
    world.say("x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 20s\r\n");
    block_on(async {
        submit(place.path(), 0..1).await;
        let store = store(place.path()).await;
        let worker = Workers(vec![spawn(place.path(), false)]);
        until("the first call", async || calls_of_first(&*store).await).await;
        submit(place.path(), 1..RUNS).await;
        until("the others", async || calls(&*store).await == (RUNS, 1)).await;
        kill_while_waiting(worker, &world, "model").await;
        assert_eq!(world.arrivals("model"), 1);
        world.say("");
        world.settle();
        let _worker = Workers(vec![spawn(place.path(), false)]);
        until("the second worker", async || with_status(&*store, Status::Completed).await.len() as u64 == RUNS).await;
        assert_eq!(world.take().len() as u64, RUNS, "each call was made once");
        for number in 0..RUNS {
            let one = charged(&*store, &run(number), Meter::ModelCalls).await;
            assert_eq!((one.known, one.lost), (1, 0), "run {number} is charged for what was sent, and for no more");
        }
        assert_eq!(store.fsck().await.expect("fsck"), Vec::new());
    });
}

async fn calls_of_first(store: &dyn Store) -> bool {
    store.load(run(0)).await.expect("read").expect("there").head.status == Status::Completed
}
