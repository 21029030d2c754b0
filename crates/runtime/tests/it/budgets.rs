//! What runs hold of budgets comes back, whoever died before it returned that.

use std::time::Duration;

use windlass_core::budget::{Amounts, Meter};
use windlass_core::escrow::{Beyond, Budget, Draw, Drawn, Line, Period};
use windlass_core::ids::RunId;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Store, escrow};
use windlass_runtime::Stop;

use super::kit::{Kit, acting, done, tree};

const SCOPE: &str = "environment";

async fn drawn(kit: &Kit, run: &str, calls: u64) {
    let need = Amounts::ZERO.with(Meter::ModelCalls, calls);
    let line = Line { scope: SCOPE.into(), spent: Amounts::ZERO, reserved: Amounts::ZERO, need };
    let draw = Draw { run: RunId::stored(run), number: 1, at: Timestamp(1), lines: vec![line] };
    assert!(matches!(kit.store.draw(draw).await.expect("answered"), Drawn::Granted(_)));
}

async fn taken(kit: &Kit) -> (u64, u64) {
    let account = escrow::budget(&*kit.store, &SCOPE.into(), Timestamp(1)).await.expect("read").expect("there").account;
    (account.drawn.model_calls, account.spent.model_calls)
}

#[tokio::test(start_paused = true)]
async fn what_ended_and_lost_runs_hold_is_returned() {
    let mut kit = Kit::new();
    kit.read("look");
    kit.machine("main", vec![acting("one", "look", "done"), done()]);
    let caps = [(Meter::ModelCalls, 20)].into();
    let budget = Budget { caps, period: Period::None, near_percent: 80, beyond: Beyond::Fail };
    assert!(escrow::put_budget(&*kit.store, &SCOPE.into(), 0, Some(&budget)).await.expect("set"));
    let engine = kit.engine();
    let run = kit.submit(&engine, "ended").await;
    tree(&engine, &run).await;
    // An answer that the run never heard of, and a run of which nothing is left.
    drawn(&kit, "ended", 3).await;
    drawn(&kit, "pruned", 4).await;
    assert_eq!(taken(&kit).await, (7, 0));
    let stop = Stop::new();
    // By a process that has decided nothing itself.
    let other = kit.another();
    let reaping = other.reap(stop.clone());
    let waiting = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(taken(&kit).await, (7, 0), "it may be about to be told");
        tokio::time::sleep(Duration::from_secs(60)).await;
        stop.graceful.cancel();
    };
    tokio::join!(reaping, waiting);
    assert_eq!(taken(&kit).await, (0, 4), "of the one nothing was used, of the other nobody can say");
    assert!(escrow::allotments(&*kit.store).await.expect("listed").is_empty());
    kit.fsck().await;
}
