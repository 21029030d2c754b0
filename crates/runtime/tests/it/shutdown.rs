//! Stopping, crashing and taking over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use windlass_core::contract::{Class, Idempotency};
use windlass_core::input::Input;
use windlass_core::run::Status;
use windlass_ports::store::{Registration, Store, WorkerId};
use windlass_runtime::{Driven, Scope, Stop};

use crate::kit::{Kit, acting, answer, contract, done, output, report, tree};
use crate::late;

/// A kit whose `main` calls a tool that takes ten seconds, then one that takes none.
pub(crate) struct Slow {
    pub(crate) kit: Kit,
    pub(crate) called: Arc<Notify>,
    pub(crate) calls: Arc<AtomicUsize>,
}

pub(crate) fn slow(class: Class, idempotency: Idempotency) -> Slow {
    let mut kit = Kit::new();
    let (called, calls) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (calling, count) = (Arc::clone(&called), Arc::clone(&calls));
    kit.tool(contract("slow", class, idempotency), move |_| {
        calling.notify_one();
        count.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            answer(1)
        }
    });
    kit.read("look");
    kit.machine("main", vec![acting("a", "slow", "b"), acting("b", "look", "done"), done()]);
    Slow { kit, called, calls }
}

#[tokio::test(start_paused = true)]
async fn a_graceful_stop_lets_calls_finish_and_gives_the_run_back() {
    let Slow { kit, called, calls } = slow(Class::Write, Idempotency::None);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let stop = Stop::new();
    let stopping = async {
        called.notified().await;
        stop.graceful.cancel();
    };
    let (driven, ()) = tokio::join!(engine.drive(Scope::All, stop.clone()), stopping);
    assert_eq!(driven.expect("driven"), Driven::Stopped);
    let left = report(&engine, &run).await;
    assert_eq!((left.head.status, left.head.owner), (Status::Queued, None));
    assert_eq!(left.run.state.as_deref(), Some("b"), "the result is kept, and nothing new was begun");
    kit.fsck().await;
    let other = kit.another();
    assert_eq!(tree(&other, &run).await, Driven::Ended);
    output(&other, &run).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_beyond_the_grace_is_lost_and_not_repeated_blindly() {
    let Slow { mut kit, called, calls } = slow(Class::Write, Idempotency::None);
    kit.settings.grace_ms = 1_000;
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let stop = Stop::new();
    let stopping = async {
        called.notified().await;
        stop.graceful.cancel();
    };
    let begun = tokio::time::Instant::now();
    let (driven, ()) = tokio::join!(engine.drive(Scope::All, stop.clone()), stopping);
    assert_eq!(driven.expect("driven"), Driven::Stopped);
    assert!(begun.elapsed().as_millis() < 1_500);
    assert_eq!(report(&engine, &run).await.head.status, Status::Attention);
    kit.fsck().await;
    assert!(matches!(tree(&kit.another(), &run).await, Driven::Parked { .. }));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_read_beyond_the_grace_is_repeated_by_the_next_worker() {
    let Slow { mut kit, called, calls } = slow(Class::Read, Idempotency::None);
    kit.settings.grace_ms = 1_000;
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let stop = Stop::new();
    let stopping = async {
        called.notified().await;
        stop.graceful.cancel();
    };
    let (driven, ()) = tokio::join!(engine.drive(Scope::All, stop.clone()), stopping);
    driven.expect("driven");
    assert_eq!(report(&engine, &run).await.head.status, Status::Queued);
    assert_eq!(tree(&kit.another(), &run).await, Driven::Ended);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_to_be_repeated_is_not_begun_by_whoever_only_cancels() {
    let Slow { mut kit, called, calls } = slow(Class::Read, Idempotency::None);
    kit.settings.grace_ms = 1_000;
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let stop = Stop::new();
    let stopping = async {
        called.notified().await;
        stop.graceful.cancel();
    };
    let (driven, ()) = tokio::join!(engine.drive(Scope::All, stop.clone()), stopping);
    driven.expect("driven");
    kit.deliver(&run, "cancel", Input::Cancel { reason: "no longer wanted".into() }).await;
    kit.another().settle(&run).await.expect("settled");
    assert_eq!(report(&engine, &run).await.head.status, Status::Cancelled);
    assert_eq!(calls.load(Ordering::SeqCst), 1, "nothing was begun in order to cancel it");
    kit.fsck().await;
}

/// Drives on an engine of its own until the slow tool is called, and lets that process die then.
async fn die_in_call(slow: &Slow, run: &str) -> windlass_core::ids::RunId {
    let engine = slow.kit.another();
    let run = slow.kit.submit(&engine, run).await;
    tokio::select! {
        driven = engine.drive(Scope::All, Stop::new()) => panic!("{driven:?}"),
        () = slow.called.notified() => {}
    }
    // The tasks of the worker are dropped when the runtime next looks.
    tokio::task::yield_now().await;
    run
}

#[tokio::test(start_paused = true)]
async fn a_dead_process_leaves_reads_to_be_repeated() {
    let slow = slow(Class::Read, Idempotency::None);
    let run = die_in_call(&slow, "r").await;
    let engine = slow.kit.engine();
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    assert_eq!(slow.calls.load(Ordering::SeqCst), 2);
    slow.kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_came_after_a_crash_is_heard_before_the_lost_call_is_made_again() {
    let slow = slow(Class::Read, Idempotency::None);
    let run = die_in_call(&slow, "r").await;
    slow.kit.deliver(&run, "cancel", Input::Cancel { reason: "no longer wanted".into() }).await;
    let engine = slow.kit.engine();
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    assert_eq!(report(&engine, &run).await.head.status, Status::Cancelled);
    assert_eq!(slow.calls.load(Ordering::SeqCst), 1, "what was cancelled is not made again");
    slow.kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_came_after_a_crash_holds_the_lost_call_until_it_ends() {
    let slow = slow(Class::Read, Idempotency::None);
    let run = die_in_call(&slow, "r").await;
    slow.kit.deliver(&run, "pause", Input::Pause { reason: "mine".into() }).await;
    let engine = slow.kit.engine();
    assert!(matches!(tree(&engine, &run).await, Driven::Parked { .. }));
    assert_eq!(report(&engine, &run).await.head.status, Status::Paused);
    assert_eq!(slow.calls.load(Ordering::SeqCst), 1, "what is held is not made again");
    slow.kit.deliver(&run, "unpause", Input::Unpause).await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    assert_eq!(slow.calls.load(Ordering::SeqCst), 2);
    slow.kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn each_attempt_at_a_call_that_changes_something_has_two_rows_with_their_workers_after_a_crash_too() {
    let slow = slow(Class::Write, Idempotency::Key);
    let run = die_in_call(&slow, "r").await;
    let engine = slow.kit.engine();
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    let rows = slow.kit.store.audit(run.clone()).await.expect("rows");
    let of_slow = rows.iter().filter(|row| &*row.target == "slow");
    let said: Vec<(u32, &str)> = of_slow.clone().map(|row| (row.attempt, &*row.stage)).collect();
    assert_eq!(said, [(1, "intended"), (1, "failed"), (2, "intended"), (2, "settled")]);
    let workers: Vec<_> = of_slow.map(|row| row.worker.clone().expect("a worker")).collect();
    assert_ne!(workers[0], workers[1], "whoever goes on writes what became of it");
    assert!(workers[1..].iter().all(|worker| *worker == workers[1]));
    assert!(rows.iter().all(|row| row.v == windlass_core::audit::VERSION && row.worker.is_some()), "{rows:?}");
    slow.kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_process_leaves_writes_in_doubt() {
    let slow = slow(Class::Write, Idempotency::None);
    let run = die_in_call(&slow, "r").await;
    let engine = slow.kit.engine();
    assert!(matches!(tree(&engine, &run).await, Driven::Parked { .. }));
    assert_eq!(report(&engine, &run).await.head.status, Status::Attention);
    assert_eq!(slow.calls.load(Ordering::SeqCst), 1);
    slow.kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_engine_goes_on_after_it_was_dropped_in_the_middle() {
    let slow = slow(Class::Read, Idempotency::None);
    let engine = slow.kit.engine();
    let run = slow.kit.submit(&engine, "r").await;
    tokio::select! {
        driven = engine.drive(Scope::All, Stop::new()) => panic!("{driven:?}"),
        () = slow.called.notified() => {}
    }
    tokio::task::yield_now().await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    assert_eq!(slow.calls.load(Ordering::SeqCst), 2);
    slow.kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn an_immediate_stop_returns_at_once() {
    let slow = slow(Class::Read, Idempotency::None);
    let engine = slow.kit.engine();
    slow.kit.submit(&engine, "r").await;
    let stop = Stop::new();
    let stopping = async {
        slow.called.notified().await;
        stop.graceful.cancel();
        stop.immediate.cancel();
    };
    let begun = tokio::time::Instant::now();
    let (driven, ()) = tokio::join!(engine.drive(Scope::All, stop.clone()), stopping);
    assert_eq!(driven.expect("driven"), Driven::Stopped);
    assert!(begun.elapsed().as_millis() < 100);
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_lease_is_gone_changes_nothing() {
    let slow = slow(Class::Read, Idempotency::None);
    let (first, second) = (slow.kit.engine(), slow.kit.another());
    let run = slow.kit.submit(&first, "r").await;
    let stop = Stop::new();
    let taking = async {
        slow.called.notified().await;
        assert_eq!(second.take_over(&run).await.expect("taken"), 1);
        let driven = tree(&second, &run).await;
        stop.graceful.cancel();
        driven
    };
    let (_, driven) = tokio::join!(first.drive(Scope::All, stop.clone()), taking);
    assert_eq!(driven, Driven::Ended);
    let stats = slow.kit.store.stats().await.expect("stats");
    assert_eq!(stats.stale, 1, "the first worker's result came too late");
    assert_eq!(late::acts(&slow.kit, "default").await, [late::said()]);
    output(&second, &run).await;
    slow.kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_another_process_works_on_is_waited_for() {
    let slow = slow(Class::Read, Idempotency::None);
    let (first, second) = (slow.kit.engine(), slow.kit.another());
    let run = slow.kit.submit(&first, "r").await;
    let stop = Stop::new();
    let watching = async {
        slow.called.notified().await;
        let driven = tree(&second, &run).await;
        stop.graceful.cancel();
        driven
    };
    let (_, driven) = tokio::join!(first.drive(Scope::All, stop.clone()), watching);
    assert_eq!(driven, Driven::Ended);
    assert_eq!(slow.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_tries_again() {
    let mut kit = Kit::new();
    let fails = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fails);
    kit.tool(contract("flaky", Class::Read, Idempotency::None), move |_| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                let code = windlass_core::failure::Code::ToolFailed;
                return Err(windlass_core::failure::Failure::new(code, "not yet"));
            }
            answer(1)
        }
    });
    kit.machine("main", vec![acting("a", "flaky", "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    assert_eq!(report(&engine, &run).await.head.status, Status::Failed);
    engine.retry(&run, false).await.expect("reopened");
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    output(&engine, &run).await;
    assert!(engine.retry(&run, false).await.is_err(), "it has not failed");
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn workers_of_one_store_have_names_of_their_own() {
    let kit = Kit::new();
    let me = Registration::default();
    let (one, two): (WorkerId, WorkerId) =
        (kit.store.join(me.clone()).await.expect("one"), kit.store.another().join(me).await.expect("two"));
    assert_ne!(one, two);
}
