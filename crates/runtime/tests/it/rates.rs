//! Limits of rates as an engine keeps them: whose class counts, what goes back when a process ends, and what breaks.

use std::sync::Arc;
use std::time::Duration;

use windlass_core::ids::RunId;
use windlass_core::machine::Priority;
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::rates::{Rate, Rates};
use windlass_ports::store::{Queueing, Store};
use windlass_runtime::rates::{Limit, Limits, Pick, Picks, Unit};
use windlass_runtime::{Engine, Scope, Stop};

use super::kit::{Kit, acting, done, report, tree};
use super::unreliable::Unreliable;

/// A kit whose machine calls a limited tool so many times.
fn kit(rate: Rate, calls: usize) -> Kit {
    let mut kit = Kit::new();
    kit.read("look");
    let name = |n: usize| format!("s{n}");
    let next = |n: usize| if n + 1 == calls { "done".to_owned() } else { name(n + 1) };
    let mut states: Vec<_> = (0..calls).map(|n| acting(&name(n), "look", &next(n))).collect();
    states.push(done());
    kit.machine("main", states);
    let picks = Picks { tool: Some(Pick::Each), ..Picks::default() };
    let limit = Limit { picks, unit: Unit::Calls, rate, wait_ms: Some(3_600_000) };
    kit.settings.rates = Arc::new(Limits::new(vec![limit]).expect("limits"));
    kit
}

async fn submit(kit: &Kit, engine: &Engine, id: &str, priority: Option<Priority>) {
    let queueing = Queueing { priority, ..Queueing::default() };
    let submission = windlass_runtime::Submission { queueing, ..kit.submission(id, Value::Null) };
    engine.submit(submission).await.expect("submitted");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_in_the_class_of_its_run_whatever_its_machine_says() {
    let kit = kit(Rate { amount: 1, per_ms: 3_600_000, burst: 1 }, 1);
    let engine = kit.engine();
    submit(&kit, &engine, "high", Some(Priority::High)).await;
    submit(&kit, &engine, "low", Some(Priority::Low)).await;
    submit(&kit, &engine, "plain", None).await;
    let stop = Stop::new();
    let driving = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.drive(Scope::All, stop).await }
    });
    let permits = loop {
        let rows = kit.store.buckets(None, 10).await.expect("read");
        let waiting: Vec<_> = rows.iter().flat_map(|row| row.waiting.values()).map(|waiting| waiting.permits).collect();
        match waiting[..] {
            [permits] if permits.iter().sum::<u64>() == 3 => break permits,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!(permits, [1, 1, 1], "one of each class");
    stop.immediate.cancel();
    drop(driving.await.expect("not broken"));
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_ahead_goes_back_when_a_process_ends() {
    let kit = kit(Rate { amount: 100, per_ms: 1_000, burst: 100 }, 8);
    tokio::time::advance(Duration::from_secs(10)).await;
    let engine = kit.engine();
    submit(&kit, &engine, "a", None).await;
    tree(&engine, &RunId::stored("a")).await;
    engine.leave().await;
    let rows = kit.store.buckets(None, 10).await.expect("read");
    let row = rows.first().expect("a bucket");
    assert!(row.left >= 100 - 8, "eight were used, and {} are left", row.left);
    assert!(row.waiting.is_empty(), "nobody waits any more: {:?}", row.waiting);
}

#[tokio::test(start_paused = true)]
async fn a_trip_that_breaks_stops_no_call_for_good() {
    let kit = kit(Rate { amount: 100, per_ms: 1_000, burst: 100 }, 2);
    let store = Arc::new(Unreliable::new(kit.store.another()));
    store.break_trips(2);
    let engine = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
    submit(&kit, &engine, "a", None).await;
    tree(&engine, &RunId::stored("a")).await;
    assert_eq!(report(&engine, &RunId::stored("a")).await.head.status, Status::Completed);
}
