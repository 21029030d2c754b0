//! Runs that go through without waiting for anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use windlass_core::contract::{Class, Idempotency};
use windlass_core::ids::RunId;
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::Store;
use windlass_runtime::{Driven, Scope, Stop, Submission, SubmitError};

use crate::kit::{Kit, acting, answer, contract, done, output, report, state, to, tree};

fn two_steps() -> Kit {
    let mut kit = Kit::new();
    kit.read("look");
    kit.machine("main", vec![acting("a", "look", "b"), acting("b", "look", "done"), done()]);
    kit
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_through_its_states() {
    let kit = two_steps();
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    assert!(output(&engine, &run).await.as_map().is_some());
    let kinds = kit.kinds(&run);
    assert_eq!(kinds.first().map(String::as_str), Some("run_started"));
    assert_eq!(kinds.last().map(String::as_str), Some("run_completed"));
    assert_eq!(kinds.iter().filter(|kind| *kind == "state_entered").count(), 3);
    let settled = kit.events.0.lock().expect("lock").iter().find(|e| e["event"] == "call_settled").cloned();
    assert_eq!(settled.expect("settled")["target"], "look");
    kit.fsck().await;
    let stats = kit.store.stats().await.expect("stats");
    assert_eq!((stats.commits, stats.stale), (3, 0), "one commit for each step, and one for the start");
}

#[tokio::test(start_paused = true)]
async fn the_same_id_and_input_is_the_same_run() {
    let kit = two_steps();
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    let submission = |input| Submission {
        run_id: Some(RunId::stored("r")),
        ..Submission::new(windlass_ports::compile::Bundle::default(), kit.program(), input)
    };
    let again = engine.submit(submission(Value::Null)).await.expect("the same");
    assert_eq!(again.existing.map(|head| head.status), Some(Status::Completed));
    let other = engine.submit(submission(Value::Int(1))).await;
    assert!(matches!(other, Err(SubmitError::Conflict { .. })));
    let mut bad = submission(Value::Null);
    bad.run_id = Some(RunId::stored("a~1.0"));
    assert!(matches!(engine.submit(bad).await, Err(SubmitError::Id { .. })));
    let mut fresh = submission(Value::Null);
    fresh.run_id = None;
    let (one, two) = (engine.submit(fresh.clone()).await, engine.submit(fresh).await);
    assert_ne!(one.expect("one").run_id, two.expect("two").run_id);
}

#[tokio::test(start_paused = true)]
async fn many_runs_go_through_few_slots() {
    let mut kit = two_steps();
    kit.settings.claim_slots = 3;
    kit.settings.call_slots = 2;
    let engine = kit.engine();
    for i in 0..200 {
        kit.submit(&engine, &format!("r{i}")).await;
    }
    assert_eq!(engine.drive(Scope::Idle, Stop::new()).await.expect("driven"), Driven::Idle);
    for i in 0..200 {
        let run = RunId::stored(&format!("r{i}"));
        assert_eq!(report(&engine, &run).await.head.status, Status::Completed);
    }
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_holds_no_claim_slot() {
    let out = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let mut kit = Kit::new();
    let (now, peak) = (Arc::clone(&out), Arc::clone(&most));
    kit.tool(contract("slow", Class::Read, Idempotency::None), move |_| {
        let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            answer(1)
        }
    });
    kit.machine("main", vec![acting("a", "slow", "done"), done()]);
    kit.settings.claim_slots = 1;
    kit.settings.call_slots = 5;
    let engine = kit.engine();
    for i in 0..20 {
        kit.submit(&engine, &format!("r{i}")).await;
    }
    engine.drive(Scope::Idle, Stop::new()).await.expect("driven");
    assert_eq!(most.load(Ordering::SeqCst), 5, "as many calls at once as there are call slots");
    assert_eq!(report(&engine, &RunId::stored("r19")).await.head.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_long_run_leaves_snapshots_and_folds_to_the_same() {
    let mut kit = Kit::new();
    kit.read("look");
    kit.machine("main", vec![acting("a", "look", "a")]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    let report = report(&engine, &run).await;
    assert_eq!(report.head.status, Status::Failed, "the ceiling of steps ends it");
    let stored = kit.store.load(run.clone()).await.expect("load").expect("exists");
    assert!(stored.snapshot.is_some());
    let all = kit.store.journal(run.clone(), 0, 100_000).await.expect("journal");
    let blank = windlass_runtime::fold::fold(stored.start, None, &all, &std::collections::BTreeMap::new());
    let bytes = |run: &windlass_core::run::Run| windlass_core::snapshot::encode(run);
    assert_eq!(bytes(&blank.expect("folds").run), bytes(&report.run));
}

#[tokio::test(start_paused = true)]
async fn a_large_context_lives_in_blobs() {
    let mut kit = Kit::new();
    let large = "x".repeat(100_000);
    let text = large.clone();
    kit.tool(contract("large", Class::Read, Idempotency::None), move |_| {
        let text = text.clone();
        async move { Ok(Value::object([("output", Value::str(text))])) }
    });
    kit.machine("main", vec![acting("a", "large", "b"), acting("b", "large", "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    let output = output(&engine, &run).await;
    assert_eq!(output.get("a").and_then(Value::as_str), Some(&*large));
    let rows = kit.store.journal(run, 0, 100).await.expect("journal");
    assert!(rows.iter().all(|row| row.bytes.len() < 20_000));
    assert!(rows.iter().any(|row| !row.blobs.is_empty()));
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_spins_is_stopped_by_its_ceiling() {
    let mut kit = Kit::new();
    let spin = |name: &str, next: &str| windlass_core::machine::State { transitions: to(next), ..state(name) };
    kit.machine("main", vec![spin("a", "b"), spin("b", "a")]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    assert_eq!(report(&engine, &run).await.head.status, Status::Failed);
}
