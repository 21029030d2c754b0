//! Signals, cancels and other messages, to parked and to held runs.

use std::sync::Arc;

use tokio::sync::Notify;
use windlass_core::contract::{Class, Idempotency};
use windlass_core::input::Input;
use windlass_core::machine::{State, Template, Wait};
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::{Signalled, Store};
use windlass_runtime::{Driven, Scope, Stop};

use crate::kit::{Kit, acting, contract, done, output, report, state, to, tree};

pub(crate) fn waiting(name: &str, channel: &str, timeout_ms: Option<u64>, next: &str) -> State {
    let wait = Wait { channel: Template::Literal(Value::str(channel)), timeout_ms };
    let kept = ("answer".into(), Template::Path(vec!["output".into()]));
    State { wait: Some(wait), output_to_context: vec![kept], transitions: to(next), ..state(name) }
}

#[tokio::test(start_paused = true)]
async fn a_run_parks_until_its_signal_comes() {
    let mut kit = Kit::new();
    kit.machine("main", vec![waiting("w", "c", None, "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let Driven::Parked { waits } = tree(&engine, &run).await else { panic!("should wait") };
    assert_eq!((&*waits[0].kind, waits[0].channel.as_deref()), ("signal", Some("c")));
    assert_eq!(report(&engine, &run).await.waits, waits);
    kit.fsck().await;
    assert_eq!(kit.signal("c", Value::Int(7)).await, Signalled::Delivered(vec![run.clone()]));
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    let answer = output(&engine, &run).await;
    assert_eq!(answer.get("answer").and_then(|a| a.get("value")), Some(&Value::Int(7)));
    assert!(kit.kinds(&run).contains(&"signal_received".to_owned()));
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_signal_before_the_wait_is_kept() {
    let mut kit = Kit::new();
    kit.machine("main", vec![waiting("w", "c", None, "done"), done()]);
    let engine = kit.engine();
    assert_eq!(kit.signal("c", Value::Int(7)).await, Signalled::Buffered);
    let run = kit.submit(&engine, "r").await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_hears_a_signal_from_another_process() {
    let mut kit = Kit::new();
    kit.settings.signal_wait_ms = 60_000;
    kit.machine("main", vec![waiting("w", "c", None, "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let driving = tokio::spawn({
        let (engine, run) = (engine.clone(), run.clone());
        async move { (tree(&engine, &run).await, tokio::time::Instant::now()) }
    });
    let begun = tokio::time::Instant::now();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let other = kit.store.another();
    let signal = windlass_ports::store::Signal {
        id: "s".into(),
        channel: "c".into(),
        run: None,
        data: Value::Null,
        at: windlass_core::time::Timestamp(1),
    };
    other.signal(signal).await.expect("signal");
    let (driven, ended) = driving.await.expect("joined");
    assert_eq!(driven, Driven::Ended);
    assert!(ended.duration_since(begun).as_millis() < 5_100);
}

/// A kit whose `main` calls a tool that never answers.
fn stuck() -> (Kit, Arc<Notify>) {
    let mut kit = Kit::new();
    let called = Arc::new(Notify::new());
    let calling = Arc::clone(&called);
    kit.tool(contract("never", Class::Read, Idempotency::None), move |_| {
        calling.notify_one();
        std::future::pending()
    });
    kit.machine("main", vec![acting("a", "never", "done"), done()]);
    (kit, called)
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_a_run_whose_call_is_out() {
    let (kit, called) = stuck();
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let cancelling = async {
        called.notified().await;
        let begun = tokio::time::Instant::now();
        kit.deliver(&run, "x", Input::Cancel { reason: "enough".into() }).await;
        begun
    };
    let (driven, begun) = tokio::join!(tree(&engine, &run), cancelling);
    assert_eq!(driven, Driven::Ended);
    assert!(begun.elapsed().as_millis() < 100, "{:?}", begun.elapsed());
    assert_eq!(report(&engine, &run).await.head.status, Status::Cancelled);
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn an_input_that_does_not_apply_is_consumed() {
    let mut kit = Kit::new();
    kit.machine("main", vec![waiting("w", "c", None, "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    kit.deliver(&run, "x", Input::Unpause).await;
    assert!(matches!(tree(&engine, &run).await, Driven::Parked { .. }));
    assert_eq!(kit.store.inbox(run.clone()).await.expect("inbox"), Vec::new());
    kit.fsck().await;
    kit.signal("c", Value::Null).await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
}

#[tokio::test(start_paused = true)]
async fn a_paused_run_rests_until_it_is_let_go() {
    let mut kit = Kit::new();
    kit.machine("main", vec![waiting("w", "c", None, "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    kit.deliver(&run, "p", Input::Pause { reason: "hold on".into() }).await;
    assert!(matches!(tree(&engine, &run).await, Driven::Parked { .. }));
    assert_eq!(report(&engine, &run).await.head.status, Status::Paused);
    kit.signal("c", Value::Null).await;
    assert!(matches!(tree(&engine, &run).await, Driven::Parked { .. }));
    assert_eq!(report(&engine, &run).await.head.status, Status::Paused);
    kit.fsck().await;
    kit.deliver(&run, "u", Input::Unpause).await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
}

#[tokio::test(start_paused = true)]
async fn one_tree_leaves_the_others_alone() {
    let mut kit = Kit::new();
    kit.read("look");
    kit.machine("main", vec![acting("a", "look", "done"), done()]);
    let engine = kit.engine();
    let (mine, other) = (kit.submit(&engine, "mine").await, kit.submit(&engine, "mine2").await);
    assert_eq!(tree(&engine, &mine).await, Driven::Ended);
    assert_eq!(report(&engine, &other).await.head.status, Status::Queued);
    engine.drive(Scope::Idle, Stop::new()).await.expect("driven");
    assert_eq!(report(&engine, &other).await.head.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_came_goes_before_the_timeout_that_is_due() {
    let mut kit = Kit::new();
    kit.settings.wait_ms = 1_000;
    // A timeout would fail the run: nothing handles it.
    kit.machine("main", vec![waiting("w", "c", Some(30_000), "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    assert!(matches!(tree(&engine, &run).await, Driven::Parked { .. }));
    tokio::time::advance(std::time::Duration::from_secs(40)).await;
    kit.signal("c", Value::Int(7)).await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    let answer = output(&engine, &run).await;
    assert_eq!(answer.get("answer").and_then(|a| a.get("value")), Some(&Value::Int(7)));
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_run_whose_process_died_begins_no_call() {
    let (kit, called) = stuck();
    let first = kit.another();
    let run = kit.submit(&first, "r").await;
    let pausing = async {
        called.notified().await;
        kit.deliver(&run, "p", Input::Pause { reason: "hold on".into() }).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    };
    tokio::select! {
        driven = first.drive(Scope::All, Stop::new()) => panic!("{driven:?}"),
        () = pausing => {}
    }
    drop(first);
    // The tasks of the worker are dropped when the runtime next looks.
    tokio::task::yield_now().await;
    let engine = kit.engine();
    assert!(matches!(tree(&engine, &run).await, Driven::Parked { .. }));
    let left = report(&engine, &run).await;
    assert_eq!((left.head.status, left.run.has_calls_out()), (Status::Paused, true));
    kit.fsck().await;
    let again = tokio::time::timeout(std::time::Duration::from_secs(1), called.notified()).await;
    assert!(again.is_err(), "a call was begun");
    kit.deliver(&run, "u", Input::Unpause).await;
    tokio::select! {
        driven = engine.drive(Scope::All, Stop::new()) => panic!("{driven:?}"),
        () = called.notified() => {}
    }
}
