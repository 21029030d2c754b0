//! The bank test: a thousand calls on a budget for a hundred of them, with workers killed in the middle, once all wanted at
//! the same moment, once of a tool, once over a chain, once over every format of providers and over streams, and for tokens and
//! money.
//! What the counting server saw is what was charged, and at no commit is more than the cap drawn or spent: all journals are
//! folded together in the order of their commits.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use windlass_core::apply;
use windlass_core::budget::{Amounts, Meter};
use windlass_core::effect::Outcome;
use windlass_core::escrow::{Allotment, Beyond, Budget, Period};
use windlass_core::ids::{Name, RunId};
use windlass_core::journal::{Entry, Record};
use windlass_core::run::{Run, Status};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::{Query, Store, escrow};
use windlass_runtime::{Scope, Stop};

use super::cuts::block_on;
use super::machine::table;
use super::place::{Place, Written};
use super::wires;
use super::worker::{self, BROKEN, End, FOLDER, GRANTS, RUN, WIDE, engine, store, wait};
use super::world::World;

/// How large a bank is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Runs, each of which makes one call.
    pub(super) runs: u64,
    /// What the budget has room for.
    pub(super) cap: u64,
    /// Of what.
    pub(super) meter: Meter,
    /// Workers that are killed.
    pub(super) kills: usize,
}

/// The whole bank.
pub(super) const WHOLE: Size = Size { runs: 1_000, cap: CAP, meter: Meter::ModelCalls, kills: 8 };
/// A branch, of which there is one for every format of providers. What differs between them is how one call is sent, so
/// fewer kills show it, in a time that all of them together may take.
pub(super) const BRANCH: Size = Size { kills: 3, ..WHOLE };
/// A branch in which each run makes a call that fails and one that is to follow it. While less than two hundred are left, a run
/// draws one at a time, so that nobody is refused for what another one holds and does not use.
const CHAIN: Size = Size { cap: 200, ..BRANCH };
/// A branch in which each run calls a tool.
const TOOL: Size = Size { meter: Meter::ToolCalls, ..BRANCH };
/// Banks of tokens and of money, in which a call is held at many times what it turns out to use: a hundred fit as they are
/// used, and of tokens as they are held too. A hundred held amounts of money would be enough for all thousand.
const AMOUNTS: [Size; 3] = [
    Size { cap: 1_700, meter: Meter::Tokens, ..BRANCH },
    Size { cap: 12_400, meter: Meter::Tokens, ..BRANCH },
    Size { cap: 12_500, meter: Meter::CostMicros, ..BRANCH },
];
/// Calls that the budget of the whole bank has room for.
const CAP: u64 = 100;
/// Workers at a time.
const WORKERS: usize = 2;
/// How much longer a worker lives than the one before, in milliseconds. The first is killed with the first answer.
const LIFE_MS: u64 = 180;
/// How long an answer of the server takes, in milliseconds: many calls are out when a worker is killed.
const DELAY_MS: u64 = 60;
/// When there is something wrong with the test.
const PATIENCE: Duration = Duration::from_secs(240);

const SCOPES: [&str; 3] = ["environment", "tenant:default", "user:default/ada"];
/// What only calls of the tool count against.
const TOOL_SCOPE: &str = "tool:default/till";

impl Size {
    /// The budgets of the bank.
    fn scopes(self) -> impl Iterator<Item = &'static str> {
        let of_tool = (self.meter == Meter::ToolCalls).then_some(TOOL_SCOPE);
        SCOPES.into_iter().chain(of_tool)
    }

    /// Whether calls are counted, and not what they use.
    fn counts_calls(self) -> bool {
        matches!(self.meter, Meter::ModelCalls | Meter::ToolCalls)
    }
}

const MACHINE: &str = r##"
spec: flatmachine
spec_version: 4.2.1
data:
  name: bank
  context: {n: "{{ input.n }}"}
  agents:
    teller: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: "take {{ input.n }}"}, profile: main}}
  states:
    ask: {type: initial, agent: teller, input: {n: context.n}, output_to_context: {r: output.content}, transitions: [{to: end}]}
    end: {type: final, output: {r: context.r}}
"##;

/// Calls a tool that must not be called twice, and of which nobody can tell whether it was called.
const TOOL_MACHINE: &str = r##"
spec: flatmachine
spec_version: 4.2.1
data:
  name: bank
  states:
    take: {type: initial, action: till, transitions: [{to: end}]}
    end: {type: final}
"##;

/// Makes a folder's runs call the tool.
fn with_tool(folder: &Path, world: &World) {
    let text = table(&world.address, "till", "write", "none", "\"fail\"");
    std::fs::write(folder.join("windlass.toml"), format!("[providers]\n{text}")).expect("a writable folder");
    std::fs::write(folder.join("machine.yml"), TOOL_MACHINE).expect("a writable folder");
}

fn spawn(folder: &Path, broken: bool, wide: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "proof::bank::a_bank_worker", "--nocapture"]).env(FOLDER, folder);
    if broken {
        command.env(BROKEN, GRANTS);
    }
    if wide {
        command.env(WIDE, "1");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a worker starts")
}

/// Not a test by itself: does nothing unless [`spawn`] started it.
#[test]
fn a_bank_worker() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    runtime.block_on(async {
        let (engine, _) = engine(Path::new(&folder), None).await;
        engine.drive(Scope::Idle, Stop::new()).await.expect("driven");
        engine.leave().await;
    });
}

/// Fills the bank: the budgets, and every run in the queue.
async fn open(folder: &Path, size: Size) {
    let store = store(folder).await;
    for scope in size.scopes() {
        let caps = [(size.meter, size.cap)].into();
        let budget = Budget { caps, period: Period::None, near_percent: 80, beyond: Beyond::Fail };
        assert!(escrow::put_budget(&*store, &scope.into(), 0, Some(&budget)).await.expect("set"));
    }
    drop(store);
    let (engine, submission) = engine(folder, None).await;
    let submit = |n: u64| {
        let mut submission = submission.clone();
        submission.run_id = Some(RunId::new(&format!("b{n}")).expect("an id"));
        submission.input = Value::object([("n", Value::Int(n as i64))]);
        submission.scope.user = Some("ada".into());
        engine.submit(submission)
    };
    for created in join_all((0..size.runs).map(submit)).await {
        created.expect("submitted");
    }
}

/// What is drawn and what was spent of the budgets at this moment: never more than the caps.
async fn within(store: &dyn Store, size: Size) -> Result<(), String> {
    let Size { cap, meter, .. } = size;
    for scope in size.scopes() {
        let row = escrow::budget(store, &scope.into(), Timestamp(1)).await.expect("read").expect("there");
        let (drawn, spent) = (row.account.drawn.get(meter), row.account.spent.get(meter));
        if drawn + spent > cap {
            return Err(format!("beyond {cap}: of `{scope}` {drawn} are drawn and {spent} spent"));
        }
    }
    Ok(())
}

async fn left(store: &dyn Store) -> usize {
    let statuses = Status::ALL.into_iter().filter(|status| !status.is_final()).collect();
    store.list(Query { statuses, limit: 1, ..Query::default() }).await.expect("listed").heads.len()
}

/// Whether so many calls were answered so far that a worker may be killed. Until then one that is loses nothing but its
/// start, or all that there is of an amount.
async fn is_answered(store: &dyn Store, size: Size) -> bool {
    let limit = if size.counts_calls() { 1 } else { 5 };
    let query = Query { statuses: vec![Status::Completed], limit, ..Query::default() };
    store.list(query).await.expect("listed").heads.len() == limit
}

/// Drives all runs to their ends, with workers killed on the way.
fn drive(folder: &Path, size: Size, broken: bool) -> Result<usize, String> {
    let (mut workers, mut kills, began) = (Vec::new(), 0, Instant::now());
    block_on(async {
        let store = store(folder).await;
        while left(&*store).await > 0 {
            assert!(began.elapsed() < PATIENCE, "the runs do not end");
            within(&*store, size).await?;
            while workers.len() < WORKERS {
                let life_ms = LIFE_MS * kills as u64;
                workers.push((spawn(folder, broken, false), Instant::now() + Duration::from_millis(life_ms)));
            }
            let (child, dies_at) = workers.remove(0);
            workers.push((child, dies_at));
            if let Some((child, dies_at)) = workers.last_mut() {
                let ended = child.try_wait().expect("a status").is_some();
                if !ended && kills < size.kills && Instant::now() >= *dies_at && is_answered(&*store, size).await {
                    child.kill().expect("killed");
                    child.wait().expect("gone");
                    kills += 1;
                    workers.pop();
                } else if ended {
                    workers.pop();
                }
            }
            // Slow on purpose: other processes do the work.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        within(&*store, size).await
    })?;
    for (mut child, _) in workers {
        child.wait().expect("it ends by itself");
    }
    Ok(kills)
}

/// What one run was charged, and the most that it ever held or had spent, from every commit of its journal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Charged {
    /// Attempts whose end is known.
    pub(super) known: u64,
    /// Attempts that were lost with their worker, charged in full.
    pub(super) lost: u64,
    /// What is charged for the former, of the meter of the bank.
    billed: u64,
    /// The same for the latter.
    held: u64,
    /// The most that was spent and reserved at any commit.
    most: u64,
}

/// What every answer of the server uses, as the server says and the prices of the folder have it.
fn used_by_one(meter: Meter) -> u64 {
    match meter {
        Meter::Tokens => 15,
        Meter::CostMicros => 10 * 3 + 5 * 15,
        _ => 1,
    }
}

/// How often a call left, of those that the bank is about.
fn calls(of: &Amounts, meter: Meter) -> u64 {
    if meter == Meter::ToolCalls { of.tool_calls } else { of.model_calls }
}

pub(super) async fn charged(store: &dyn Store, id: &RunId, meter: Meter) -> Charged {
    let stored = store.load(id.clone()).await.expect("read").expect("there");
    let mut run = Run::blank(stored.start);
    let mut charged = Charged::default();
    for row in store.journal(id.clone(), 0, 1_000).await.expect("read") {
        for entry in Record::decode(&row.bytes).expect("a record").entries {
            let (count, amount, is_lost) = match &entry {
                // Every call of a tool that the server saw was answered well, and one costs the same whether or not it was lost.
                Entry::CallSettled { used, outcome, .. } if meter == Meter::ToolCalls => {
                    (used.tool_calls, used.tool_calls, matches!(outcome, Outcome::Failed(_)))
                }
                Entry::CallSettled { used, estimated, .. }
                | Entry::AttemptFailed { used, estimated, .. }
                | Entry::CallAbandoned { used, estimated, .. } => (calls(used, meter), used.get(meter), *estimated),
                _ => (0, 0, false),
            };
            *(if is_lost { &mut charged.lost } else { &mut charged.known }) += count;
            *(if is_lost { &mut charged.held } else { &mut charged.billed }) += amount;
            apply(&mut run, &entry);
        }
        for scope in SCOPES.into_iter().chain((meter == Meter::ToolCalls).then_some(TOOL_SCOPE)) {
            let allotment = run.escrow.allotments.get(scope).cloned().unwrap_or_default();
            charged.most = charged.most.max(allotment.spent.get(meter) + allotment.reserved.get(meter));
        }
    }
    assert_eq!(calls(&run.ledger.settled, meter), charged.known + charged.lost, "the ledger of `{id}`");
    assert_eq!(run.ledger.settled.get(meter), charged.billed + charged.held, "the ledger of `{id}`");
    charged
}

/// What a run holds of a budget, or has spent of it.
fn had(run: &Run, scope: &str, meter: Meter) -> u64 {
    let had = |of: &Allotment| of.free.get(meter) + of.reserved.get(meter) + of.spent.get(meter);
    run.escrow.allotments.get(scope).map_or(0, had)
}

/// Folds the journals of all runs together: after no commit do they have more than the caps. Tells how many records there were.
async fn at_each_commit(place: &Place, store: &dyn Store, size: Size) -> Result<usize, String> {
    let written = place.written();
    let (mut runs, mut all) = (BTreeMap::new(), BTreeMap::<&str, u64>::new());
    for commit in written.chunk_by(|one, next| one.transaction == next.transaction) {
        for Written { run: id, version, .. } in commit {
            if !runs.contains_key(id) {
                let start = store.load(id.clone()).await.expect("read").expect("there").start;
                let rows = store.journal(id.clone(), 0, 1_000).await.expect("read").into_iter();
                runs.insert(id.clone(), (Run::blank(start), rows));
            }
            let (run, rows) = runs.get_mut(id).expect("it is there");
            let row = rows.next().filter(|row| row.version == *version).expect("versions follow one another");
            let before: Vec<u64> = size.scopes().map(|scope| had(run, scope, size.meter)).collect();
            for entry in Record::decode(&row.bytes).expect("a record").entries {
                apply(run, &entry);
            }
            for (scope, before) in size.scopes().zip(before) {
                let sum = all.entry(scope).or_default();
                *sum = *sum + had(run, scope, size.meter) - before;
            }
        }
        if let Some((scope, sum)) = all.iter().find(|(_, sum)| **sum > size.cap) {
            let (cap, last) = (size.cap, commit.last().map(|last| &last.run));
            return Err(format!("beyond {cap}: {sum} of `{scope}` after a commit of {last:?}"));
        }
    }
    if all.values().any(|sum| *sum == 0) {
        return Err(format!("nothing was ever held: {all:?}"));
    }
    Ok(written.len())
}

/// By what the server knows the call of a run.
async fn known_as(store: &dyn Store, n: u64, meter: Meter) -> String {
    if meter != Meter::ToolCalls {
        return format!("\"take {n}\"/2");
    }
    let id = RunId::stored(&format!("b{n}"));
    let rows = store.journal(id.clone(), 0, 1_000).await.expect("read");
    let entries = rows.iter().flat_map(|row| Record::decode(&row.bytes).expect("a record").entries);
    let intended = |entry| if let Entry::CallIntended { effect, .. } = entry { Some(effect.key(&id)) } else { None };
    entries.into_iter().find_map(intended).unwrap_or_else(|| format!("nothing of `{id}`"))
}

/// Compares journals, accounts and what the server saw.
async fn audit(place: &Place, world: &World, size: Size) -> Result<Charged, String> {
    let Size { runs, cap, meter, .. } = size;
    let store = store(place.path()).await;
    let records = at_each_commit(place, &*store, size).await?;
    assert!(records as u64 > runs, "only {records} records");
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for deed in world.take() {
        *seen.entry(deed.key).or_default() += 1;
    }
    let (mut all, mut refused) = (Charged::default(), 0);
    for n in 0..runs {
        let id = RunId::stored(&format!("b{n}"));
        let one = charged(&*store, &id, meter).await;
        let arrived = seen.remove(&known_as(&*store, n, meter).await).unwrap_or(0);
        if arrived < one.known || arrived > one.known + one.lost {
            return Err(format!("run `{id}` was charged {one:?}, and the server saw {arrived}"));
        }
        if one.billed != one.known * used_by_one(meter) {
            return Err(format!("run `{id}` was charged {one:?}, which is not what the server said"));
        }
        refused += u64::from(one.known + one.lost == 0);
        all.known += one.known;
        all.lost += one.lost;
        all.billed += one.billed;
        all.held += one.held;
        all.most += one.most;
    }
    if !seen.is_empty() {
        return Err(format!("calls that no run was charged for: {seen:?}"));
    }
    let charged = all.billed + all.held;
    let is_calls = size.counts_calls();
    // Calls that are spent and reserved never shrink in a run here, so their sums at any moment are at most these.
    if charged > cap || (is_calls && all.most > cap) {
        return Err(format!("beyond {cap}: {all:?}"));
    }
    let is_short = (is_calls && charged < cap) || (cap < runs && refused < runs - cap);
    if is_short || (!is_calls && refused == 0) {
        return Err(format!("what there was has not been used: {all:?}, {refused} refused"));
    }
    for scope in size.scopes() {
        let scope: Name = scope.into();
        let account = escrow::budget(&*store, &scope, Timestamp(1)).await.expect("read").expect("there").account;
        let (drawn, spent) = (account.drawn.get(meter), account.spent.get(meter));
        // What a killed worker had drawn may not have come back yet.
        let agrees = if is_calls { drawn + spent == cap } else { spent <= charged && charged <= spent + drawn };
        if !agrees || account.overrun.get(meter) > 0 {
            return Err(format!("the account of `{scope}` says {account:?}, the journals {all:?}"));
        }
    }
    Ok(all)
}

/// Runs a bank in a folder that `prepare` has changed.
pub(super) fn bank(
    world: &World,
    size: Size,
    broken: bool,
    prepare: impl FnOnce(&Path),
) -> Result<(Charged, usize), String> {
    world.delay(DELAY_MS);
    world.spread(DELAY_MS);
    let place = Place::in_order(world);
    std::fs::write(place.path().join("machine.yml"), MACHINE).expect("a writable folder");
    prepare(place.path());
    block_on(open(place.path(), size));
    let kills = drive(place.path(), size, broken)?;
    world.settle();
    block_on(audit(&place, world, size)).map(|charged| (charged, kills))
}

/// A bank whose provider speaks this format.
#[expect(clippy::print_stdout, reason = "the counts are part of the proof")]
fn branch(kind: &str) {
    let world = World::start();
    let (charged, kills) =
        bank(&world, BRANCH, false, |folder| wires::speak(folder, &world, kind)).unwrap_or_else(|why| panic!("{why}"));
    println!("{kind}: {kills} workers killed: {charged:?}");
    assert!(charged.known > 0, "no call was answered: {charged:?}");
    assert!(kills > 0, "no worker was killed");
}

#[test]
fn the_bank_holds_over_streams() {
    let world = World::start();
    let (charged, kills) = bank(&world, BRANCH, false, wires::stream).unwrap_or_else(|why| panic!("{why}"));
    assert!(charged.known > 0 && kills > 0, "{kills} kills: {charged:?}");
    assert!(world.streamed() >= charged.known, "the answers are streams");
}

#[test]
#[expect(clippy::print_stdout, reason = "the counts are part of the proof")]
fn the_bank_holds_for_tokens_and_money() {
    for size in AMOUNTS {
        let world = World::start();
        let (charged, kills) = bank(&world, size, false, |_| ()).unwrap_or_else(|why| panic!("{why}"));
        println!("{size:?}, {kills} workers killed: {charged:?}");
        assert!(charged.known > 0 && kills > 0, "{kills} kills: {charged:?}");
    }
}

#[test]
fn the_bank_holds_over_openai_chat() {
    branch("openai");
}

#[test]
fn the_bank_holds_over_openai_responses() {
    branch("openai_responses");
}

#[test]
fn the_bank_holds_over_anthropic() {
    branch("anthropic");
}

#[test]
fn the_bank_holds_over_gemini() {
    branch("gemini");
}

#[test]
fn the_bank_holds_over_bedrock() {
    branch("bedrock");
}

#[test]
fn the_bank_holds_over_ollama() {
    branch("ollama");
}

#[test]
fn the_bank_holds_over_a_chain_whose_first_link_is_down() {
    let world = World::start();
    let (charged, kills) =
        bank(&world, CHAIN, false, |folder| wires::chain(folder, &world)).unwrap_or_else(|why| panic!("{why}"));
    assert!(charged.known > 0 && kills > 0, "{kills} kills: {charged:?}");
}

#[test]
#[expect(clippy::print_stdout, reason = "the counts are part of the proof")]
fn the_bank_holds_for_calls_of_a_tool() {
    let world = World::start();
    let (charged, kills) =
        bank(&world, TOOL, false, |folder| with_tool(folder, &world)).unwrap_or_else(|why| panic!("{why}"));
    println!("{TOOL:?}, {kills} workers killed: {charged:?}");
    assert!(charged.known > 0 && kills > 0, "{kills} kills: {charged:?}");
}

/// Waits for something that other processes do.
async fn until(what: &str, store: &dyn Store, is_done: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_done().await {
        assert!(began.elapsed() < PATIENCE, "{what} takes too long");
        within(store, WHOLE).await.unwrap_or_else(|why| panic!("{why}"));
        // Slow on purpose: other processes do the work.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn failed(store: &dyn Store) -> usize {
    let query = Query { statuses: vec![Status::Failed], limit: 1_000, ..Query::default() };
    store.list(query).await.expect("listed").heads.len()
}

/// All thousand calls are wanted before the first is answered: a hundred are out, nine hundred are refused meanwhile. Then
/// the worker is killed, and each call that was out is charged in full and not made again: nothing is left for it.
#[test]
fn a_thousand_calls_wanted_at_the_same_moment_cost_a_hundred() {
    let world = World::start();
    world.shut(true);
    let place = Place::in_order(&world);
    std::fs::write(place.path().join("machine.yml"), MACHINE).expect("a writable folder");
    let refused = usize::try_from(WHOLE.runs - CAP).expect("a number");
    block_on(async {
        open(place.path(), WHOLE).await;
        let store = store(place.path()).await;
        let mut worker = spawn(place.path(), false, true);
        until("the first worker", &*store, async || world.arrivals("model") == CAP && failed(&*store).await == refused)
            .await;
        worker.kill().expect("killed");
        worker.wait().expect("gone");
        world.shut(false);
        let mut worker = spawn(place.path(), false, true);
        until("the second worker", &*store, async || left(&*store).await == 0).await;
        worker.wait().expect("it ends by itself");
    });
    world.settle();
    let charged = block_on(audit(&place, &world, WHOLE)).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!((charged.known, charged.lost), (0, CAP), "every call that was out is charged in full");
}

/// Two calls one after another, with a wait in between, so that what was drawn is returned and drawn anew.
const TWICE: &str = r##"
spec: flatmachine
spec_version: 4.2.1
data:
  name: bank
  context: {n: "7"}
  agents:
    teller: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: "take {{ input.n }}"}, profile: main}}
  states:
    first: {type: initial, agent: teller, input: {n: context.n}, output_to_context: {a: output.content}, transitions: [{to: rest}]}
    rest: {wait_for: nobody, timeout: 0.02, on_error: {TimeoutError: second}, transitions: [{to: second}]}
    second: {agent: teller, input: {n: context.n}, output_to_context: {b: output.content}, transitions: [{to: end}]}
    end: {type: final, output: {a: context.a, b: context.b}}
"##;

/// The account, what the run was charged, and what the server saw, once the run has ended.
async fn settled(folder: &Path, world: &World, cut: &str) -> u64 {
    let store = store(folder).await;
    let one = charged(&*store, &RunId::stored(RUN), Meter::ModelCalls).await;
    let arrived = world.take().len() as u64;
    let (least, most) = (one.known, one.known + one.lost);
    assert_eq!((one.known, one.lost <= 1), (2, true), "{cut}: {one:?}");
    assert!((least..=most).contains(&arrived), "{cut}: {one:?}, and the server saw {arrived}");
    let row = escrow::budget(&*store, &SCOPES[0].into(), Timestamp(1)).await.expect("read").expect("there");
    let (drawn, spent) = (row.account.drawn.model_calls, row.account.spent.model_calls);
    assert!(spent <= most && most <= spent + drawn && spent + drawn <= CAP, "{cut}: {one:?}, {:?}", row.account);
    drawn
}

#[test]
fn a_cut_at_any_point_is_charged_for_what_left() {
    let world = World::start();
    let (mut cut, mut unreturned, mut points) = (0, 0, BTreeMap::<String, u64>::new());
    loop {
        cut += 1;
        let place = Place::new(&world);
        std::fs::write(place.path().join("machine.yml"), TWICE).expect("a writable folder");
        block_on(async {
            let caps = [(Meter::ModelCalls, CAP)].into();
            let budget = Budget { caps, period: Period::None, near_percent: 80, beyond: Beyond::Fail };
            let store = store(place.path()).await;
            assert!(escrow::put_budget(&*store, &SCOPES[0].into(), 0, Some(&budget)).await.expect("set"));
        });
        let ended = wait(place.path(), worker::spawn(place.path(), Some(cut)));
        let End::Cut(point) = ended else {
            assert_eq!(block_on(settled(place.path(), &world, "no cut")), 0, "everything was returned");
            break;
        };
        world.settle();
        assert!(matches!(wait(place.path(), worker::spawn(place.path(), None)), End::Done), "cut {cut} at {point}");
        world.settle();
        unreturned += u64::from(block_on(settled(place.path(), &world, &format!("cut {cut} at {point}"))) > 0);
        *points.entry(point).or_default() += 1;
    }
    assert!(cut > 10, "only {points:?}");
    assert!(unreturned <= 1, "{unreturned} cuts leave something that nobody returned: {points:?}");
}

#[test]
#[expect(clippy::print_stdout, reason = "the counts are part of the proof")]
fn a_thousand_calls_on_a_budget_for_a_hundred_cost_a_hundred() {
    let world = World::start();
    let (charged, kills) = bank(&world, WHOLE, false, |_| ()).unwrap_or_else(|why| panic!("{why}"));
    println!("{WHOLE:?}, {kills} workers killed: {charged:?}");
    assert!(kills >= WHOLE.kills / 2, "too few kills: {kills}");
}

#[test]
fn a_grant_that_is_not_checked_is_noticed_by_the_bank() {
    for size in std::iter::once(WHOLE).chain(AMOUNTS) {
        let world = World::start();
        let why = bank(&world, size, true, |_| ()).expect_err("a store that grants whatever is asked passes");
        assert!(why.contains("beyond"), "{size:?}: {why}");
    }
}

/// The journals alone say so too, and nobody looks at the accounts on the way.
#[test]
fn a_grant_that_is_not_checked_is_noticed_in_the_journals() {
    let world = World::start();
    let place = Place::in_order(&world);
    std::fs::write(place.path().join("machine.yml"), MACHINE).expect("a writable folder");
    let why = block_on(async {
        open(place.path(), WHOLE).await;
        let ended = spawn(place.path(), true, true).wait().expect("it ends by itself");
        assert!(ended.success(), "{ended}");
        at_each_commit(&place, &*store(place.path()).await, WHOLE).await.expect_err("all of it was granted")
    });
    assert!(why.contains("after a commit"), "{why}");
}
