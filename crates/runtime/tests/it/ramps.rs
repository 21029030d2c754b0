//! Budgets of ramps: they bound the calls of all workers together, and a ramp that has stopped stays so until it is resumed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use windlass_core::contract::{Class, Contract, Idempotency, RampBudget, Shadow};
use windlass_core::failure::Code;
use windlass_core::ids::RunId;
use windlass_core::input::Ending;
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::Store;
use windlass_runtime::ramp::Resumed;
use windlass_runtime::{Engine, ramps, resume_ramp};

use crate::interleaved::Interleaved;
use crate::kit::{Kit, acting, answer, contract, done, report, tree};
use crate::switches::serve;

const CALLS: u64 = 10;
const RUNS: usize = 40;

/// A kit whose machine calls `pay`, which takes a moment and is counted, within a ramp of so many calls.
fn paying() -> (Kit, Arc<AtomicU64>) {
    let mut kit = Kit::new();
    let pays = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&pays);
    let budget = Some(RampBudget { calls: Some(CALLS), failed_calls: None, of_calls: 100 });
    let shadow = Some(Box::new(Shadow { ramp_percent: 100, answer: Value::str("stub"), budget }));
    let pay = Contract { shadow, ..contract("pay", Class::Write, Idempotency::None) };
    kit.tool(pay, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_millis(7)).await;
            answer(1)
        }
    });
    kit.machine("main", vec![acting("a", "pay", "done"), done()]);
    (kit, pays)
}

async fn ended(engine: &Engine, run: &RunId) -> Result<(), Code> {
    tree(engine, run).await;
    match report(engine, run).await.run.ending {
        Some(Ending::Completed { .. }) => Ok(()),
        Some(Ending::Failed { failure, .. }) => Err(failure.code),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_leave_than_a_ramp_has_whichever_workers_make_them() {
    let (kit, pays) = paying();
    let slow = |seed| Arc::new(Interleaved::new(kit.store.another(), seed)) as Arc<dyn Store>;
    let engines = [1, 2, 3].map(|seed| kit.engine_on(slow(seed)));
    let mut runs = Vec::new();
    for number in 0..RUNS {
        runs.push(kit.submit(&engines[0], &format!("r{number}")).await);
    }
    let serving: Vec<_> = engines.iter().map(serve).collect();
    let mut refused = 0;
    for run in &runs {
        while !report(&engines[0], run).await.head.status.is_final() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if let Err(code) = ended(&engines[0], run).await {
            assert_eq!(code, Code::BudgetExceeded, "what was decided on before it stopped");
            refused += 1;
        }
    }
    for (stop, driving) in serving {
        stop.graceful.cancel();
        driving.await.expect("not broken");
    }
    assert_eq!(pays.load(Ordering::SeqCst), CALLS, "{refused} of {RUNS} runs were refused");
    let ramp = ramps(&*kit.store).await.expect("read").remove("pay").expect("counted");
    assert_eq!((ramp.calls, ramp.stopped.expect("stopped").told), (CALLS, true));

    // It does not begin again by itself, and runs complete with the stub.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let later = kit.another();
    let run = kit.submit(&later, "later").await;
    assert_eq!(ended(&later, &run).await, Ok(()));
    assert_eq!(pays.load(Ordering::SeqCst), CALLS);

    let resumed = Resumed { at: Timestamp(1), by: "ann".into(), reason: "mended".into() };
    let pay = "pay".into();
    let stopped = resume_ramp(&*kit.store, &pay, &resumed).await.expect("written").expect("it had stopped");
    assert_eq!(&*stopped.why, "its 10 calls are used up");
    assert_eq!(resume_ramp(&*kit.store, &pay, &resumed).await.expect("read"), None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let run = kit.submit(&later, "resumed").await;
    assert_eq!(ended(&later, &run).await, Ok(()));
    assert_eq!(pays.load(Ordering::SeqCst), CALLS + 1);
    kit.fsck().await;
}
