//! Results that come when no run waits for them any more: recorded, and nothing else.

use std::sync::Arc;

use tokio::sync::Notify;
use windlass_core::budget::Meter;
use windlass_core::contract::{Class, Idempotency};
use windlass_core::ids::RunId;
use windlass_core::input::Input;
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::Store;
use windlass_runtime::{Driven, Engine, Stop};

use crate::kit::{Kit, acting, answer, contract, done, report};
use crate::switches::{serve, until};
use crate::unreliable::{Lose, Unreliable};

/// What the acts of a tenant say.
pub(crate) async fn acts(kit: &Kit, tenant: &str) -> Vec<String> {
    let acts = kit.store.trail().acts(tenant.into(), 0, 100).await.expect("acts");
    let said = |act: &windlass_core::audit::Act| {
        format!("{} {} {} {}", act.actor, act.action, act.subject, act.detail.as_deref().unwrap_or_default())
    };
    acts.iter().map(said).collect()
}

/// What is said of `answer(1)` for the first call of the run `r`.
pub(crate) fn said() -> String {
    let value = answer(1).expect("a value");
    let what = format!("result {}, {} bytes, after it was given up", value.digest(), value.size_bytes());
    format!("windlass call.late r r#1 attempt 1: {what}")
}

/// A run whose call is answered while the commit that gives it up is on its way.
struct Late {
    kit: Kit,
    engine: Engine,
    run: RunId,
    stop: Stop,
    driving: tokio::task::JoinHandle<Driven>,
}

/// `lose` is what happens to the commit of the cancel.
async fn cancelled(lose: Lose) -> Late {
    let mut kit = Kit::new();
    let (called, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (calling, released) = (Arc::clone(&called), Arc::clone(&release));
    kit.tool(contract("pay", Class::Write, Idempotency::None), move |_| {
        calling.notify_one();
        let released = Arc::clone(&released);
        async move {
            released.notified().await;
            answer(1)
        }
    });
    kit.machine("main", vec![acting("a", "pay", "done"), done()]);
    let store = Arc::new(Unreliable::new(kit.store.another()));
    let engine = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
    let run = kit.submit(&engine, "r").await;
    let (stop, driving) = serve(&engine);
    called.notified().await;
    store.plan(&[lose]);
    kit.deliver(&run, "cancel", Input::Cancel { reason: "enough".into() }).await;
    while !store.is_done() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    release.notify_one();
    Late { kit, engine, run, stop, driving }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_while_its_call_is_given_up_is_recorded_and_changes_nothing() {
    let Late { kit, engine, run, stop, driving } = cancelled(Lose::Request).await;
    until(&kit, &run, Status::Cancelled).await;
    stop.graceful.cancel();
    driving.await.expect("a task");
    assert_eq!(acts(&kit, "default").await, [said()]);
    let rows = kit.store.audit(run.clone()).await.expect("rows");
    let stages: Vec<&str> = rows.iter().map(|row| &*row.stage).collect();
    assert_eq!(stages, ["started", "intended", "abandoned"]);
    let kinds = kit.kinds(&run);
    assert!(!kinds.iter().any(|kind| kind.contains("transition")), "{kinds:?}");
    let run = report(&engine, &run).await.run;
    assert!(run.calls.is_empty(), "it is settled: {:?}", run.calls);
    assert_eq!((run.context, run.ledger.settled.get(Meter::ToolCalls)), (Value::empty_map(), 1));
    assert_eq!(run.ledger.reserved.get(Meter::ToolCalls), 0);
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_waits_for_a_worker_that_no_longer_counts_is_recorded() {
    let Late { kit, run, stop, driving, .. } = cancelled(Lose::Word).await;
    tokio::task::yield_now().await;
    assert_eq!(kit.store.fence("a restore".into()).await.expect("fenced"), 1);
    until(&kit, &run, Status::Quarantined).await;
    while acts(&kit, "default").await.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(acts(&kit, "default").await, [said()]);
    stop.graceful.cancel();
    driving.await.expect("a task");
}
