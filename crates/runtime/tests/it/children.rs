//! Children and launches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use windlass_core::budget::Ceilings;
use windlass_core::contract::{Class, Idempotency};
use windlass_core::failure::Code;
use windlass_core::ids::{Name, RunId};
use windlass_core::input::{Ending, Input};
use windlass_core::machine::{Call, Launch, Mode, State, Targets, Template};
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::{Query, Store};
use windlass_runtime::{Driven, Engine};

use crate::kit::{Kit, acting, answer, contract, done, output, report, state, to, tree};
use crate::signals::waiting;
use crate::unreliable::Unreliable;

fn foreach(count: i64) -> State {
    let items = Value::list((0..count).map(Value::Int).collect());
    let targets = Targets::Foreach {
        machine: "child".into(),
        items: Template::Literal(items),
        binding: "item".into(),
        input: Template::Map(vec![("n".into(), Template::Path(vec!["item".into()]))]),
        key: None,
    };
    let kept = ("all".into(), Template::Path(vec!["output".into()]));
    State {
        call: Some(Call { targets, mode: Mode::Settled, timeout_ms: None }),
        output_to_context: vec![kept],
        transitions: to("done"),
        ..state("each")
    }
}

/// A machine that gives back its input.
fn echo(kit: &mut Kit) {
    let end = State { output: Some(Template::Path(vec!["input".into(), "n".into()])), ..done() };
    kit.machine("child", vec![acting("a", "look", "done"), end]);
}

#[tokio::test(start_paused = true)]
async fn a_parent_gets_what_its_children_gave() {
    let mut kit = Kit::new();
    kit.read("look");
    kit.machine("main", vec![foreach(5), done()]);
    echo(&mut kit);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    let all = output(&engine, &run).await;
    let expected = Value::list((0..5).map(Value::Int).collect());
    assert_eq!(all.get("all"), Some(&expected));
    assert_eq!(kit.kinds(&run).iter().filter(|kind| *kind == "child_settled").count(), 5);
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_children_are_joined() {
    let mut kit = Kit::new();
    kit.read("look");
    kit.machine("main", vec![foreach(1_000), done()]);
    echo(&mut kit);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    let all = output(&engine, &run).await;
    assert_eq!(all.get("all").and_then(Value::as_list).map(<[Value]>::len), Some(1_000));
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_launch_is_waited_for_by_the_worker_and_not_by_its_parent() {
    let mut kit = Kit::new();
    kit.read("look");
    let launch = Launch { machines: vec!["child".into()], input: Template::Literal(Value::Int(1)) };
    kit.machine("main", vec![State { launch: Some(launch), transitions: to("done"), ..state("l") }, done()]);
    kit.machine("child", vec![waiting("w", "c", None, "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let Driven::Parked { waits } = tree(&engine, &run).await else { panic!("the launch waits") };
    assert_ne!(waits[0].run, run);
    assert_eq!(report(&engine, &run).await.head.status, Status::Completed);
    kit.signal("c", Value::Null).await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_goes_down_the_tree() {
    let mut kit = Kit::new();
    kit.machine("main", vec![foreach(3), done()]);
    kit.machine("child", vec![waiting("w", "c", None, "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    assert!(matches!(tree(&engine, &run).await, Driven::Parked { .. }));
    kit.deliver(&run, "x", Input::Cancel { reason: "enough".into() }).await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    let page = kit.store.list(Query { root: Some(run), limit: 10, ..Query::default() }).await.expect("list");
    assert_eq!(page.heads.len(), 4);
    assert!(page.heads.iter().all(|head| head.status == Status::Cancelled), "{:?}", page.heads);
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_parent_is_not_read_again_for_each_child() {
    let mut kit = Kit::new();
    let ended = Arc::new(std::sync::atomic::AtomicU64::new(0));
    kit.tool(contract("look", Class::Read, Idempotency::None), move |_| {
        // Each child ends at another time, so that each end is an input of its own.
        let nth = ended.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(100 * nth)).await;
            answer(1)
        }
    });
    kit.machine("main", vec![foreach(50), done()]);
    echo(&mut kit);
    let store = Arc::new(Unreliable::new(kit.store.another()));
    let engine = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
    let run = kit.submit(&engine, "r").await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    assert_eq!(store.loads(), 51, "each run once");
    kit.fsck().await;
}

/// A machine that asks `child` and `other` at once, and performs an action once both have ended.
fn asks_both(kit: &mut Kit) -> Arc<AtomicUsize> {
    let after = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&after);
    kit.tool(contract("after", Class::Write, Idempotency::None), move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { answer(7) }
    });
    let targets = ["child", "other"].map(|name| (Name::from(name), Template::Literal(Value::Null)));
    let call = Call { targets: Targets::Many(targets.to_vec()), mode: Mode::Settled, timeout_ms: None };
    let kept = ("both".into(), Template::Path(vec!["output".into()]));
    let both = State { call: Some(call), output_to_context: vec![kept], transitions: to("go_on"), ..state("both") };
    kit.machine("main", vec![both, acting("go_on", "after", "done"), done()]);
    kit.read("look");
    kit.machine("other", vec![acting("a", "look", "done"), done()]);
    after
}

/// The child failed with this code, the other one did not, and the parent went on.
async fn only_the_child_failed(kit: &Kit, engine: &Engine, run: &RunId, code: Code) {
    let child = report(engine, &RunId::stored("r~1.0")).await.run;
    let Some(Ending::Failed { failure, .. }) = &child.ending else { panic!("{:?}", child.ending) };
    assert_eq!(failure.code, code, "{failure}");
    assert!(child.calls.is_empty() && child.waits.is_empty() && child.timers.is_empty());
    let all = output(engine, run).await;
    let error = all.at_path(&["both", "child", "_error"]);
    assert_eq!(error.as_str(), Some(&*failure.message));
    assert_eq!(all.at_path(&["both", "other", "a"]), Value::Int(1));
    assert_eq!(all.get("go_on"), Some(&Value::Int(7)));
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_goes_in_circles_leaves_its_parent_runnable() {
    let mut kit = Kit::new();
    let after = asks_both(&mut kit);
    let circle =
        vec![State { transitions: to("back"), ..state("there") }, State { transitions: to("there"), ..state("back") }];
    kit.machine("child", circle);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    only_the_child_failed(&kit, &engine, &run, Code::BudgetExceeded).await;
    assert_eq!(after.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_child_past_its_deadline_leaves_its_parent_runnable() {
    for is_calling in [false, true] {
        let mut kit = Kit::new();
        let after = asks_both(&mut kit);
        kit.tool(contract("never", Class::Read, Idempotency::None), |_| std::future::pending());
        let stuck = if is_calling { acting("s", "never", "done") } else { waiting("s", "nobody", None, "done") };
        let bounded = Ceilings { wall_ms: Some(5_000), ..Ceilings::default() };
        kit.machine_with("child", vec![stuck, done()], bounded);
        let engine = kit.engine();
        let run = kit.submit(&engine, "r").await;
        assert_eq!(tree(&engine, &run).await, Driven::Ended, "calling: {is_calling}");
        only_the_child_failed(&kit, &engine, &run, Code::RunTimeout).await;
        assert_eq!(after.load(Ordering::SeqCst), 1);
    }
}
