//! The race for the read-only switch: many runs pay one call after another on real workers while the switch is turned on,
//! again and again. No call leaves that was decided on after the switch was acknowledged, none at all a second later, and
//! once the switch is off every call is made, and none twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use windlass_core::ids::RunId;
use windlass_core::journal::{Entry, Record};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::Store;
use windlass_runtime::switch::Change;
use windlass_runtime::{Scope, Stop, set_switch, tell_held};

use super::cuts::block_on;
use super::place::Place;
use super::worker::{BLIND, BROKEN, FOLDER, engine, store};
use super::world::World;

/// Runs, each of which pays so many times, one after another.
const RUNS: u64 = 40;
const PAYMENTS: u64 = 12;
/// Workers at a time.
const WORKERS: usize = 2;
/// How often the switch is turned on.
const ROUNDS: u64 = 3;
/// Payments that arrive before the switch is turned on, and again before it is turned on once more.
const BETWEEN: u64 = 60;
/// How long an answer of the server takes, in milliseconds.
const DELAY_MS: u64 = 25;
/// How soon nothing leaves any more.
const A_SECOND: Duration = Duration::from_secs(1);
/// When there is something wrong with the test.
const PATIENCE: Duration = Duration::from_secs(120);

fn machine() -> String {
    let mut text = "spec: flatmachine\nspec_version: 4.2.1\ndata:\n  name: payer\n  states:\n".to_owned();
    for number in 0..PAYMENTS {
        let kind = if number == 0 { "type: initial, " } else { "" };
        text.push_str(&format!("    p{number}: {{{kind}action: pay, transitions: [{{to: p{}}}]}}\n", number + 1));
    }
    text.push_str(&format!("    p{PAYMENTS}: {{type: final, output: {{paid: true}}}}\n"));
    text
}

pub(super) fn spawn(folder: &Path, blind: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "proof::switch::a_paying_worker", "--nocapture"]).env(FOLDER, folder);
    if blind {
        command.env(BROKEN, BLIND);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a worker starts")
}

/// Not a test by itself: does nothing unless [`spawn`] started it.
#[test]
fn a_paying_worker() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    runtime.block_on(async {
        let (engine, _) = engine(Path::new(&folder), None).await;
        engine.drive(Scope::All, Stop::new()).await.expect("driven");
    });
}

/// Processes that are killed when this is dropped, however the test ended.
pub(super) struct Workers(pub(super) Vec<Child>);

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _gone = child.kill().and_then(|()| child.wait());
        }
    }
}

fn run(number: u64) -> RunId {
    RunId::new(&format!("s{number}")).expect("an id")
}

async fn submit(folder: &Path) {
    let (engine, submission) = engine(folder, None).await;
    let submit = |number: u64| {
        let mut submission = submission.clone();
        submission.run_id = Some(run(number));
        submission.input = Value::object([("n", Value::Int(number as i64))]);
        engine.submit(submission)
    };
    for created in join_all((0..RUNS).map(submit)).await {
        created.expect("submitted");
    }
}

/// The keys of all payments that were decided on.
async fn decided(store: &dyn Store) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for number in 0..RUNS {
        let id = run(number);
        for row in store.journal(id.clone(), 0, 1_000).await.expect("read") {
            let entries = Record::decode(&row.bytes).expect("a record").entries;
            keys.extend(entries.iter().filter_map(|entry| match entry {
                Entry::CallIntended { effect, .. } => Some(effect.key(&id)),
                _ => None,
            }));
        }
    }
    keys
}

/// Waits until so many payments have arrived, or all of them.
async fn until_paid(world: &World, count: u64) {
    let began = Instant::now();
    while world.arrivals("pay") < count.min(RUNS * PAYMENTS) {
        assert!(began.elapsed() < PATIENCE, "only {} of {count} payments arrive", world.arrivals("pay"));
        // Slow on purpose: other processes do the work.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn change(on: bool) -> Change {
    Change { on, by: "ann".into(), reason: "a leak".into(), at: Timestamp(1) }
}

/// Turns the switch on while runs pay, and looks at what leaves. Gives back how many payments had been decided on before
/// and left after.
async fn hold(store: &dyn Store, world: &World, before: &mut BTreeMap<String, u64>) -> Result<u64, String> {
    let (_, changed) = set_switch(store, None, change(true)).await.expect("switched");
    assert!(changed);
    let allowed = decided(store).await;
    let mut late = 0;
    let mut look = |why: &str| {
        for deed in world.take() {
            let first = before.insert(deed.key.clone(), 1).is_none();
            if !first {
                return Err(format!("`{}` was paid twice", deed.key));
            }
            if !allowed.contains(&deed.key) {
                return Err(format!("`{}` was decided on after the switch, and left {why}", deed.key));
            }
            late += 1;
        }
        Ok(())
    };
    // Slow on purpose: the promise is that nothing leaves after a second, and then nothing leaves.
    tokio::time::sleep(A_SECOND).await;
    look("within a second")?;
    let settled = world.arrivals("pay");
    // Slow on purpose: as above.
    tokio::time::sleep(A_SECOND).await;
    look("later")?;
    match world.arrivals("pay") - settled {
        0 => Ok(late),
        more => Err(format!("{more} payments left more than a second after the switch")),
    }
}

async fn race(blind: bool) -> Result<u64, String> {
    let world = World::start();
    world.delay(DELAY_MS);
    let place = Place::new(&world);
    std::fs::write(place.path().join("machine.yml"), machine()).expect("a writable folder");
    submit(place.path()).await;
    let store = store(place.path()).await;
    let workers = Workers((0..WORKERS).map(|_| spawn(place.path(), blind)).collect());
    let (mut paid, mut late) = (BTreeMap::new(), 0);
    for _ in 0..ROUNDS {
        until_paid(&world, world.arrivals("pay") + BETWEEN).await;
        late += hold(&*store, &world, &mut paid).await?;
        set_switch(&*store, None, change(false)).await.expect("switched");
        tell_held(&*store, None).await.expect("told");
    }
    until_paid(&world, RUNS * PAYMENTS).await;
    world.settle();
    for deed in world.take() {
        *paid.entry(deed.key).or_default() += 1;
    }
    drop(workers);
    let twice: Vec<&String> = paid.iter().filter(|(_, times)| **times > 1).map(|(key, _)| key).collect();
    assert!(twice.is_empty() && paid.len() as u64 == RUNS * PAYMENTS, "{} payments, twice: {twice:?}", paid.len());
    Ok(late)
}

#[test]
fn no_payment_leaves_that_was_decided_on_after_the_switch() {
    let late = block_on(race(false)).unwrap_or_else(|why| panic!("{why}"));
    assert!(late > 0, "no payment was under way when the switch was turned on: there was no race");
}

#[test]
fn workers_that_do_not_look_at_the_switch_are_noticed() {
    let why = block_on(race(true)).expect_err("workers that know no switch pass");
    assert!(why.contains("decided on after the switch"), "{why}");
}
