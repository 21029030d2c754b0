//! Draws on budgets of PostgreSQL: whoever holds one account keeps back the draws on it, and no others.

use std::sync::Arc;

use futures::future::{Either, join_all, select};
use tokio_postgres::NoTls;
use windlass_core::budget::{Amounts, Meter};
use windlass_core::escrow::{Beyond, Budget, Draw, Drawn, Line, Period};
use windlass_core::ids::RunId;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Store, escrow};

use crate::postgres::Fleet;

/// Draws on each account at a time.
const DRAWS: u64 = 8;

fn draw(run: &str, scope: &str) -> Draw {
    let need = Amounts::ZERO.with(Meter::ModelCalls, 1);
    let line = Line { scope: scope.into(), spent: Amounts::ZERO, reserved: Amounts::ZERO, need };
    Draw { run: RunId::stored(run), number: 1, at: Timestamp(1), lines: vec![line] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_account_keeps_back_no_draws_on_others() {
    let fleet = Fleet::new();
    let store = Arc::new(fleet.store().await);
    for tenant in ["held", "free"] {
        let caps = [(Meter::ModelCalls, 1_000)].into();
        let budget = Budget { caps, period: Period::None, near_percent: 80, beyond: Beyond::Fail };
        let scope = format!("tenant:{tenant}").as_str().into();
        assert!(escrow::put_budget(&*store, &scope, 0, Some(&budget)).await.expect("put"));
        store.draw(draw(&format!("first-{tenant}"), &scope)).await.expect("drawn, so that there is an account");
    }
    let (holder, connection) = tokio_postgres::connect(&fleet.database.url(), NoTls).await.expect("connected");
    tokio::spawn(connection);
    holder.batch_execute("BEGIN").await.expect("begun");
    let lock = "SELECT 1 FROM objects WHERE kind = 'account' AND key = 'tenant:held' FOR UPDATE";
    assert_eq!(holder.query(lock, &[]).await.expect("locked").len(), 1, "the account is held");

    let ask = |tenant: &str| {
        let draws: Vec<Draw> =
            (0..DRAWS).map(|n| draw(&format!("{tenant}-{n}"), &format!("tenant:{tenant}"))).collect();
        let store = Arc::clone(&store);
        async move { join_all(draws.into_iter().map(|draw| store.draw(draw))).await }
    };
    // One task, which asks for the free ones first: one of those then draws for the others, held ones among them.
    let Either::Left((free, held)) = select(Box::pin(ask("free")), Box::pin(ask("held"))).await else {
        panic!("somebody drew on an account that was held");
    };
    for drawn in free {
        assert!(matches!(drawn, Ok(Drawn::Granted(_))), "{drawn:?}");
    }
    holder.batch_execute("COMMIT").await.expect("let go");
    for drawn in held.await {
        assert!(matches!(drawn, Ok(Drawn::Granted(_))), "{drawn:?}");
    }
}
