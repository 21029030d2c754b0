//! Approvals and rules that change between one commit and the next: arguments that a person changed to what the tool's
//! schema or the rules refuse, and rules that deny the call by the time it is approved, at any point before it leaves, and
//! before it is made again.

use std::collections::BTreeMap;
use std::path::Path;

use windlass_core::approval::{Answer, Reply};
use windlass_core::failure::Code;
use windlass_core::ids::RunId;
use windlass_core::value::Value;
use windlass_ports::store::Store;

use super::answers::{Scene, TOOL, deliver, failed, prove, right, rule, spawn, write};
use super::course::Course;
use super::cuts::block_on;
use super::place::Place;
use super::unknown::outcomes;
use super::worker::{RUN, store};
use super::world::World;

/// Rules that allow everything but tools.
const FORBID: &str = "@id(\"all\") permit (principal, action, resource);\n\
    @id(\"closed\") @reason(\"nothing more today\")\nforbid (principal, action == Action::\"CallTool\", resource);\n";

/// What the tool takes.
const SCHEMA: &str = "input_schema = { type = \"object\", properties = { order = { type = \"integer\", maximum = 1000 } }, \
    required = [\"order\"] }\n";

fn forbid(folder: &Path) {
    rule(folder, FORBID);
}

fn edited(reply: &Reply, by: &str, arguments: Value) -> Reply {
    Reply { arguments: Some(arguments), by: by.into(), ..reply.clone() }
}

fn order(number: i64) -> Value {
    Value::object([("order", Value::Int(number))])
}

#[test]
fn changed_arguments_that_the_schema_refuses_count_nowhere_and_those_it_takes_leave() {
    prove(&Scene {
        table: SCHEMA,
        answers: |reply| {
            let wrong = Value::object([("order", Value::str("many"))]);
            let refused = [wrong, order(5_000), Value::object([("tool", Value::str("x"))])];
            let refused = refused.into_iter().map(|arguments| edited(reply, "mallory", arguments));
            refused.chain([edited(reply, "ann", order(5))]).collect()
        },
        ends: (Answer::Approved, "ann"),
        order: 5,
        ..Scene::asked()
    });
}

#[test]
fn changed_arguments_that_the_rules_deny_by_now_count_nowhere() {
    prove(&Scene {
        table: SCHEMA,
        before: forbid,
        answers: |reply| vec![edited(reply, "mallory", order(5)), Reply { approve: false, ..right(reply) }],
        leaves: false,
        ends: (Answer::Rejected, "ann"),
        ..Scene::asked()
    });
}

#[test]
fn a_call_that_the_rules_deny_by_the_time_it_is_approved_does_not_leave() {
    prove(&Scene { before: forbid, leaves: false, ends: (Answer::Approved, "ann"), ..Scene::asked() });
}

/// Stages that the audit trail has of the call.
async fn stages(store: &dyn Store) -> Vec<String> {
    let rows = store.audit(RunId::stored(RUN)).await.expect("audit rows");
    rows.iter().filter(|row| &*row.kind == "tool").map(|row| row.stage.to_string()).collect()
}

/// Cuts a worker at every point and lets rules come into force there that deny the call: from then on it does not leave,
/// neither for the first time nor again, and what the run says of it is what the world saw, or that it is not known.
#[expect(clippy::print_stdout, reason = "the counts are part of the proof")]
fn close_at_every_point(idempotency: &str) {
    let (world, scene) = (World::start(), Scene::asked());
    let answer = |folder: &Path| deliver(folder, &scene);
    // By how often the call had left, whether somebody had agreed, and what the call came to.
    let mut seen: BTreeMap<(u64, bool, Vec<Option<Code>>), u64> = BTreeMap::new();
    for cut in 1.. {
        let place = Place::new(&world);
        write(place.path(), &world, &scene);
        let path = place.path().join("windlass.toml");
        let text = std::fs::read_to_string(&path).expect("the configuration");
        let (before, after) = text.split_once(&format!("[tools.{TOOL}]")).expect("the tool");
        let after = after.replacen("\"none\"", &format!("\"{idempotency}\""), 1);
        std::fs::write(&path, format!("{before}[tools.{TOOL}]{after}")).expect("written");
        let course = Course { folder: place.path(), world: &world, spawn, answer: &answer };
        let Some(point) = course.cut(cut) else { break };
        world.settle();
        forbid(place.path());
        let times = || world.counts().get(TOOL).copied().unwrap_or(0);
        let left = times();
        let said = block_on(async { stages(&*store(place.path()).await).await });
        let agreed = said.iter().any(|stage| stage == "approved");
        assert!(left == 0 || (said[0] == "intended" && agreed), "{left} calls, and the audit trail has {said:?}");
        course.finish();
        world.settle();
        let what = format!("cut {cut} at {point}, {said:?}");
        assert_eq!(times(), left, "nothing leaves that the rules deny, {what}");
        let came_to = block_on(async {
            let store = store(place.path()).await;
            assert_eq!(store.fsck().await.expect("fsck"), Vec::new(), "{what}");
            outcomes(&*store).await.iter().map(failed).collect::<Vec<_>>()
        });
        match (left, came_to.as_slice()) {
            // Before anybody had decided on the call, the model is told that it is denied.
            (0, [] | [Some(Code::PolicyDenied)]) | (1, [None]) => {}
            (0 | 1, [Some(Code::ToolOutcomeUnknown)]) if idempotency != "none" && agreed => {}
            other => panic!("{other:?}, {what}"),
        }
        *seen.entry((left, agreed, came_to)).or_default() += 1;
        world.take();
    }
    world.take();
    println!("{idempotency}: {seen:?}");
    let denied = |agreed| seen.contains_key(&(0, agreed, vec![Some(Code::PolicyDenied)]));
    assert!(denied(false), "it is denied before somebody agreed: {seen:?}");
    // Whether a call that may be repeated has left is not noted: once it was to leave, nobody knows.
    assert_eq!(
        denied(true),
        idempotency == "none",
        "it is denied after somebody agreed, where it had not left: {seen:?}"
    );
    assert!(seen.contains_key(&(1, true, vec![None])), "it left before the rules came: {seen:?}");
    let is_unknown = seen.keys().any(|(.., came_to)| came_to.contains(&Some(Code::ToolOutcomeUnknown)));
    assert_eq!(is_unknown, idempotency != "none", "{seen:?}");
}

#[test]
fn rules_that_come_at_any_point_stop_a_call_that_is_made_once() {
    close_at_every_point("none");
}

#[test]
fn rules_that_come_at_any_point_stop_a_call_that_may_be_repeated() {
    close_at_every_point("key");
}
