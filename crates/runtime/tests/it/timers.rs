//! Timers of parked and of held runs.

use std::sync::Arc;
use std::time::Duration;

use windlass_core::contract::{Class, Idempotency};
use windlass_core::machine::{OnError, State};
use windlass_core::run::Status;
use windlass_ports::store::Store;
use windlass_runtime::Driven;

use crate::kit::{Kit, acting, contract, done, output, report, tree};
use crate::signals::waiting;
use crate::unreliable::Unreliable;

fn rescued(state: State) -> State {
    State { on_error: OnError { by_name: Vec::new(), default: Some("done".into()) }, ..state }
}

#[tokio::test(start_paused = true)]
async fn a_wait_gives_up_in_time() {
    let mut kit = Kit::new();
    kit.machine("main", vec![rescued(waiting("w", "c", Some(30_000), "w")), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let begun = tokio::time::Instant::now();
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    let took = begun.elapsed().as_millis();
    assert!((30_000..30_300).contains(&took), "{took}");
    output(&engine, &run).await;
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_time_beyond_patience_is_not_waited_for() {
    let mut kit = Kit::new();
    kit.settings.wait_ms = 1_000;
    kit.machine("main", vec![rescued(waiting("w", "c", Some(30_000), "w")), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let begun = tokio::time::Instant::now();
    let Driven::Parked { waits } = tree(&engine, &run).await else { panic!("should wait") };
    assert!(waits[0].at.is_some());
    assert!(begun.elapsed().as_millis() < 100);
    tokio::time::advance(Duration::from_secs(40)).await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
}

#[tokio::test(start_paused = true)]
async fn a_state_runs_out_of_time_while_its_call_is_out() {
    let mut kit = Kit::new();
    kit.tool(contract("never", Class::Read, Idempotency::None), |_| std::future::pending());
    let never = State { timeout_ms: Some(2_000), ..rescued(acting("a", "never", "done")) };
    kit.machine("main", vec![never, done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let begun = tokio::time::Instant::now();
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    assert!((2_000..2_100).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert!(kit.kinds(&run).contains(&"call_abandoned".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_does_not_end_is_cut_off() {
    let mut kit = Kit::new();
    kit.tool(contract("never", Class::Read, Idempotency::None), |_| std::future::pending());
    kit.machine("main", vec![acting("a", "never", "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let begun = tokio::time::Instant::now();
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    assert!(begun.elapsed().as_millis() < 31_000);
    let report = report(&engine, &run).await;
    assert_eq!(report.head.status, Status::Failed);
    let text = format!("{:?}", report.run.ending);
    assert!(text.contains("Timeout"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn parked_runs_make_few_wakeups() {
    let mut kit = Kit::new();
    kit.machine("main", vec![waiting("w", "c", None, "done"), done()]);
    let store = Arc::new(Unreliable::new(kit.store.another()));
    let engine = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
    for i in 0..20 {
        kit.submit(&engine, &format!("r{i}")).await;
    }
    let stop = windlass_runtime::Stop::new();
    let driving = engine.drive(windlass_runtime::Scope::All, stop.clone());
    let watching = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = store.calls();
        tokio::time::sleep(Duration::from_secs(10_000)).await;
        stop.graceful.cancel();
        (before, store.calls())
    };
    let (driven, (before, after)) = tokio::join!(driving, watching);
    assert_eq!(driven.expect("driven"), Driven::Stopped);
    // One look for lost workers and one for runs whose time comes, each second or more.
    assert!(after - before < 2 * 10_000, "{before} {after}");
    assert_eq!(kit.store.stats().await.expect("stats").commits, 20);
}
