//! Faults of the store and of this build: nothing is guessed, and no run hurts another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use windlass_core::contract::{Class, Idempotency};
use windlass_core::ids::RunId;
use windlass_core::machine::{Condition, Engine as Language, State, Transition};
use windlass_core::run::Status;
use windlass_ports::store::Store;
use windlass_runtime::{Driven, Scope, Stop};

use crate::kit::{Kit, acting, answer, contract, done, output, report, tree};
use crate::unreliable::{Lose, Unreliable};

/// A kit whose tool counts its calls.
fn counting() -> (Kit, Arc<AtomicUsize>) {
    let mut kit = Kit::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    kit.tool(contract("pay", Class::Write, Idempotency::None), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { answer(1) }
    });
    kit.machine("main", vec![acting("a", "pay", "b"), acting("b", "pay", "done"), done()]);
    (kit, calls)
}

async fn survives(plan: &[Lose], deaf: usize) {
    let (kit, calls) = counting();
    let store = Arc::new(Unreliable::new(kit.store.another()));
    let engine = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
    let run = kit.submit(&engine, "r").await;
    store.plan(plan);
    store.deaf(deaf);
    assert_eq!(tree(&engine, &run).await, Driven::Ended, "{plan:?}");
    output(&engine, &run).await;
    assert_eq!(calls.load(Ordering::SeqCst), 2, "{plan:?}");
    assert_eq!(kit.store.stats().await.expect("stats").commits, 3, "{plan:?}");
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_without_an_answer_is_settled_by_its_name() {
    let (n, r, a) = (Lose::Nothing, Lose::Request, Lose::Answer);
    for plan in [
        vec![r],
        vec![a],
        vec![n, r],
        vec![n, a],
        vec![n, n, a],
        vec![r, a],
        vec![r, r, r, n],
        vec![a, a, a],
        vec![r, a, r, a],
    ] {
        for deaf in [0, 3] {
            survives(&plan, deaf).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_says_while_the_store_takes_no_commit() {
    let (kit, _) = counting();
    let store = Arc::new(Unreliable::new(kit.store.another()));
    let engine = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
    let run = kit.submit(&engine, "r").await;
    assert_eq!(engine.vitals().unanswered, None);
    store.plan(&[Lose::Request; 5]);
    let driving = tree(&engine, &run);
    let seen = async {
        while engine.vitals().unanswered.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    let (driven, ()) = tokio::join!(driving, seen);
    assert_eq!((driven, engine.vitals().unanswered), (Driven::Ended, None));
}

#[tokio::test(start_paused = true)]
async fn a_parking_commit_without_an_answer_is_not_left_behind() {
    let mut kit = Kit::new();
    kit.machine("main", vec![crate::signals::waiting("w", "c", None, "done"), done()]);
    let store = Arc::new(Unreliable::new(kit.store.another()));
    let engine = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
    kit.signal("c", windlass_core::value::Value::Null).await;
    let run = kit.submit(&engine, "r").await;
    store.plan(&[Lose::Answer, Lose::Answer]);
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_breaks_an_invariant_is_held_and_the_others_go_on() {
    let mut kit = Kit::new();
    kit.read("look");
    let condition = Condition { engine: Language::Simple, source: "panic".into() };
    let exit = vec![Transition { condition: Some(condition), to: "done".into() }];
    kit.machine("main", vec![State { transitions: exit, ..acting("a", "look", "done") }, done()]);
    let bad = kit.engine();
    let run = kit.submit(&bad, "bad").await;
    let Driven::Parked { waits } = tree(&bad, &run).await else { panic!("should be on hold") };
    assert_eq!(&*waits[0].kind, "attention");
    let held = report(&bad, &run).await;
    assert_eq!(held.head.status, Status::Attention);
    let reason = format!("{:?}", held.run.hold);
    assert!(reason.contains("internal.invariant") && reason.contains("asked to panic"), "{reason}");
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_breaks_an_invariant_does_not_come_again() {
    let mut kit = Kit::new();
    let condition = Condition { engine: Language::Simple, source: "panic".into() };
    let exit = vec![Transition { condition: Some(condition), to: "done".into() }];
    let wait = State { transitions: exit, ..crate::signals::waiting("w", "c", None, "done") };
    kit.machine("main", vec![wait, done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    kit.signal("c", windlass_core::value::Value::Null).await;
    assert!(matches!(tree(&engine, &run).await, Driven::Parked { .. }));
    let held = report(&engine, &run).await;
    assert_eq!(held.head.status, Status::Attention);
    assert_eq!(kit.store.inbox(run).await.expect("inbox"), Vec::new());
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_is_an_error() {
    let (mut kit, _) = counting();
    kit.settings.store_patience_ms = 1_000;
    let store = Arc::new(Unreliable::new(kit.store.another()));
    let engine = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
    for i in 0..3 {
        kit.submit(&engine, &format!("r{i}")).await;
    }
    store.go_away();
    let begun = tokio::time::Instant::now();
    assert!(engine.drive(Scope::Tree(RunId::stored("r0")), Stop::new()).await.is_err());
    assert!(begun.elapsed().as_secs() < 20);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_start_is_held() {
    let mut kit = Kit::new();
    let condition = Condition { engine: Language::Simple, source: "panic".into() };
    let exit = vec![Transition { condition: Some(condition), to: "done".into() }];
    kit.machine("main", vec![State { transitions: exit, ..crate::kit::state("a") }, done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    assert!(matches!(tree(&engine, &run).await, Driven::Parked { .. }));
    let held = report(&engine, &run).await;
    assert_eq!(held.head.status, Status::Attention);
    assert!(!held.run.started, "what it would have begun with is not recorded");
    kit.fsck().await;
}
