//! Five calls of one turn, cut at every point: the pairs of class and idempotency that the machine of the proof has not, two
//! of which ask a person before they leave, and one about which a person is asked when nobody knows whether it happened.
//! What has a key, or is harmless to repeat, is repeated under its key and nobody is bothered; what has not is done once,
//! and never again without a person who says that it did not happen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use windlass_core::approval::{Answer, Reply};
use windlass_core::budget::Amounts;
use windlass_core::effect::WaitKind;
use windlass_core::ids::{EffectId, RunId};
use windlass_core::input::Input;
use windlass_core::journal::{Entry, Record};
use windlass_ports::store::Message;

use super::course::Course;
use super::cuts::{Trace, block_on, compare, trace};
use super::lost::{Known, Lost, in_flight};
use super::machine::{configuration, table, turn};
use super::place::Place;
use super::worker::{RUN, spawn, store};
use super::world::World;

/// One tool: name, class, idempotency, and whether a person is asked before it is called.
type Pair = (&'static str, &'static str, &'static str, bool);

const PAIRS: [Pair; 5] = [
    ("check", "read", "key", false),
    ("count", "read", "natural", false),
    ("wipe", "danger", "key", true),
    ("void", "danger", "natural", true),
    ("send", "write", "none", false),
];
/// The one that is not repeated: a person says what became of it.
const ONCE: &str = "send";

fn place(world: &World) -> Place {
    let place = Place::new(world);
    let mut text = configuration(&world.address);
    for (name, class, idempotency, asks) in PAIRS {
        let table = table(&world.address, name, class, idempotency, "\"ask\"");
        text.push_str(table.trim_end());
        text.push_str(if asks { "\napproval = \"always\"\n\n" } else { "\n\n" });
    }
    std::fs::write(place.path().join("windlass.toml"), text).expect("a writable folder");
    std::fs::write(place.path().join("machine.yml"), turn(&PAIRS.map(|(name, ..)| name))).expect("a writable folder");
    place
}

/// Agrees to every call that asks.
fn approve(folder: &Path) {
    block_on(async {
        let store = store(folder).await;
        for (run, row) in store.waits(RunId::stored(RUN), true).await.expect("waits") {
            let WaitKind::Approval { shown, .. } = row.kind else { continue };
            let (by, reason) = ("ann".into(), "".into());
            let raise = Amounts::ZERO;
            let reply = Reply { wait: row.effect, approve: true, by, reason, shown, arguments: None, raise, at: None };
            let (id, input) = (reply.delivery_id(), Input::Approved(Box::new(reply)));
            store.deliver(Message { to: run, id, input }).await.expect("delivered");
        }
    });
}

/// What the journal says about the calls of one tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    /// Questions before it left, and those that were answered by a person who agreed.
    asked: usize,
    agreed: usize,
    /// Questions whether it had happened.
    doubts: usize,
}

/// The same for every tool.
fn told(folder: &Path) -> BTreeMap<String, Told> {
    block_on(async {
        let store = store(folder).await;
        let rows = store.journal(RunId::stored(RUN), 0, usize::MAX).await.expect("a journal");
        let mut tools: BTreeMap<EffectId, String> = BTreeMap::new();
        let mut told: BTreeMap<String, Told> = BTreeMap::new();
        for entry in rows.iter().flat_map(|row| Record::decode(&row.bytes).expect("a record").entries) {
            let (effect, count): (_, fn(&mut Told)) = match entry {
                Entry::CallIntended { effect, call } => {
                    tools.insert(effect, call.call.target().to_string());
                    continue;
                }
                Entry::ApprovalAsked { effect, .. } => (effect, |told| told.asked += 1),
                Entry::ApprovalAnswered { effect, answer: Answer::Approved, .. } => (effect, |told| told.agreed += 1),
                Entry::DoubtRaised { effect, .. } => (effect, |told| told.doubts += 1),
                _ => continue,
            };
            count(told.entry(tools[&effect].clone()).or_default());
        }
        told
    })
}

/// What the contracts promise of one run, beside what [`compare`] looks at.
fn promised(trace: &Trace, told: &BTreeMap<String, Told>, lost: &Lost, what: &str) {
    for (tool, _, idempotency, asks) in PAIRS {
        let told = told.get(tool).cloned().unwrap_or_default();
        let (once, keyed) = (usize::from(asks), idempotency != "none");
        assert_eq!((told.asked, told.agreed), (once, once), "`{tool}` asks once before it leaves, {what}");
        let in_doubt = lost.tools.values().filter(|loss| loss.tool == tool && !keyed).count();
        assert_eq!(told.doubts, in_doubt, "`{tool}`: a person is asked what became of it where nobody knows, {what}");
        let deeds: Vec<&String> = trace.deeds.iter().filter(|deed| deed.what == tool).map(|deed| &deed.key).collect();
        let done = deeds.iter().collect::<BTreeSet<_>>().len();
        assert_eq!(done, 1, "`{tool}` is done once by whoever looks at keys, {what}");
        let most = if keyed { 1 + lost.times(tool) } else { 1 };
        assert!(deeds.len() <= most, "`{tool}` was called {} times for {most}, {what}", deeds.len());
    }
}

/// How calls were lost in all cuts together.
#[derive(Debug, Default)]
struct Seen {
    /// Tools that were reached by a call whose result was lost.
    reached: BTreeSet<String>,
    /// Whether such a call of [`ONCE`] had happened, for each that was asked about.
    happened: BTreeSet<bool>,
    points: BTreeMap<String, u64>,
}

fn course<'a>(folder: &'a Path, world: &'a World) -> Course<'a> {
    Course { folder, world, spawn, answer: &approve }
}

#[test]
#[expect(clippy::print_stdout, reason = "the counts are part of the proof")]
fn a_turn_of_five_calls_is_cut_at_every_point() {
    let world = World::start();
    let calm = place(&world);
    course(calm.path(), &world).finish();
    let expected = trace(calm.path(), &world);
    promised(&expected, &told(calm.path()), &Lost::default(), "untouched");
    let mut seen = Seen::default();
    for cut in 1.. {
        let place = place(&world);
        let Some(point) = course(place.path(), &world).cut(cut) else { break };
        let lost = in_flight(place.path(), &world, &mut Known::default());
        course(place.path(), &world).finish();
        let (trace, what) = (trace(place.path(), &world), format!("cut {cut} at {point}, lost {lost:?}"));
        compare(&expected, &trace, &lost, &what);
        promised(&trace, &told(place.path()), &lost, &what);
        for loss in lost.tools.into_values() {
            seen.happened.extend((loss.tool == ONCE).then_some(loss.reached));
            seen.reached.extend(loss.reached.then_some(loss.tool));
        }
        *seen.points.entry(point).or_default() += 1;
    }
    println!("{seen:?}");
    assert_eq!(seen.reached.len(), PAIRS.len(), "every tool is lost once after it was reached: {seen:?}");
    assert_eq!(seen.happened.len(), 2, "a person says that it happened, and that it did not: {seen:?}");
    assert!(seen.points.values().sum::<u64>() > 40, "too few points: {seen:?}");
}
