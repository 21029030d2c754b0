//! Draws on budgets of PostgreSQL: whoever holds one account keeps back the draws on it, and no others, and the draws that
//! wait leave a connection to others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures::future::{Either, join_all, select};
use tokio_postgres::{Client, NoTls};
use windlass_core::budget::{Amounts, Meter};
use windlass_core::escrow::{Beyond, Budget, Draw, Drawn, Line, Period};
use windlass_core::ids::{Name, RunId};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Store, StoreError, escrow};
use windlass_stores::PostgresStore;
use windlass_testpg::{Options, Server};

use crate::postgres::Fleet;
use crate::postgres_faults::PATIENCE;

/// Draws on each account at a time.
const DRAWS: u64 = 8;
/// How often they are made.
const ROUNDS: usize = 12;
/// Accounts that are held one after another.
const TENANTS: usize = 6;

/// What everybody draws on.
const ALL: &str = "environment";

fn scope_of(tenant: &str) -> Name {
    format!("tenant:{tenant}").as_str().into()
}

/// A draw on the account of a tenant, and on that of all of them.
fn draw(run: &str, tenant: &str) -> Draw {
    let need = Amounts::ZERO.with(Meter::ModelCalls, 1);
    let line = |scope: Name| Line { scope, spent: Amounts::ZERO, reserved: Amounts::ZERO, need };
    let lines = vec![line(ALL.into()), line(scope_of(tenant))];
    Draw { run: RunId::stored(run), number: 1, at: Timestamp(1), lines }
}

/// Draws of as many runs on the account of a tenant.
async fn ask(store: Arc<PostgresStore>, tenant: String, round: usize) -> Vec<Result<Drawn, StoreError>> {
    let draws: Vec<Draw> = (0..DRAWS).map(|n| draw(&format!("{tenant}-{round}-{n}"), &tenant)).collect();
    join_all(draws.into_iter().map(|draw| store.draw(draw))).await
}

fn all_granted(drawn: Vec<Result<Drawn, StoreError>>) {
    for drawn in drawn {
        assert!(matches!(drawn, Ok(Drawn::Granted(_))), "{drawn:?}");
    }
}

/// Budgets with accounts.
async fn open_accounts(store: &PostgresStore, tenants: &[String]) {
    for scope in std::iter::once(ALL.into()).chain(tenants.iter().map(|tenant| scope_of(tenant))) {
        let caps = [(Meter::ModelCalls, 10_000)].into();
        let budget = Budget { caps, period: Period::None, near_percent: 80, beyond: Beyond::Fail };
        assert!(escrow::put_budget(store, &scope, 0, Some(&budget)).await.expect("put"));
    }
    for tenant in tenants {
        store.draw(draw(&format!("first-{tenant}"), tenant)).await.expect("drawn, so that there is an account");
    }
}

async fn client(fleet: &Fleet) -> Client {
    let (client, connection) = tokio_postgres::connect(&fleet.database.url(), NoTls).await.expect("connected");
    tokio::spawn(connection);
    client
}

/// Somebody who holds the accounts of these tenants.
async fn hold(fleet: &Fleet, tenants: &[String]) -> Client {
    let holder = client(fleet).await;
    holder.batch_execute("BEGIN").await.expect("begun");
    for tenant in tenants {
        let lock = format!("SELECT 1 FROM objects WHERE kind = 'account' AND key = 'tenant:{tenant}' FOR UPDATE");
        assert_eq!(holder.query(&lock, &[]).await.expect("locked").len(), 1, "the account is held");
    }
    holder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_account_keeps_back_no_draws_on_others() {
    let fleet = Fleet::new();
    let store = Arc::new(fleet.store().await);
    open_accounts(&store, &["held".into(), "free".into()]).await;
    let holder = hold(&fleet, &["held".into()]).await;
    let ask = |tenant: &str| Box::pin(ask(Arc::clone(&store), tenant.into(), 0));
    // One task, which asks for the free ones first: one of those then draws for the others, held ones among them.
    let Either::Left((free, held)) = select(ask("free"), ask("held")).await else {
        panic!("somebody drew on an account that was held");
    };
    all_granted(free);
    holder.batch_execute("COMMIT").await.expect("let go");
    all_granted(held.await);
}

/// Every draw on the held account stands before those on the other one, round after round.
#[tokio::test]
async fn free_draws_wait_for_a_held_account_once_at_most() {
    let settings = vec![("log_parameter_max_length_on_error".to_owned(), "-1".to_owned())];
    let server = Server::start(Options { settings, ..Options::default() });
    let marks = tempfile::tempdir().expect("a directory");
    let fleet = Fleet { database: server.database(), marks, keys: None };
    let store = Arc::new(fleet.store().await);
    open_accounts(&store, &["held".into(), "free".into()]).await;
    let holder = hold(&fleet, &["held".into()]).await;
    let mut held = Vec::new();
    for round in 0..ROUNDS {
        held.push(tokio::spawn(ask(Arc::clone(&store), "held".into(), round)));
        // The only thread goes on here when all of them have asked.
        tokio::task::yield_now().await;
        all_granted(ask(Arc::clone(&store), "free".into(), round).await);
        assert!(held.iter().all(|held| !held.is_finished()), "somebody drew on an account that was held");
    }
    holder.batch_execute("COMMIT").await.expect("let go");
    for held in held {
        all_granted(held.await.expect("a task"));
    }
    let log = server.log();
    assert!(log.contains("canceling statement due to lock timeout"), "somebody waited: {log}");
    // What a statement that failed was about is in the log.
    let waits = log.lines().filter(|line| line.contains("parameters:") && line.contains("tenant:free")).count();
    assert!(waits <= 1, "draws on the free account waited {waits} times for the held one: {log}");
}

/// Who waits for a lock, and since when.
async fn waiting(client: &Client) -> Vec<String> {
    let sql = "SELECT pid || ' since ' || query_start FROM pg_stat_activity \
        WHERE wait_event_type = 'Lock' AND datname = current_database()";
    client.query(sql, &[]).await.expect("answered").iter().map(|row| row.get(0)).collect()
}

/// Accounts that are known to be held, and one after another of which it is not known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draws_that_wait_leave_a_connection_to_others() {
    let fleet = Fleet::new();
    let store = PostgresStore::open(&format!("{}&readers=2", fleet.url())).await.expect("the store opens");
    let store = Arc::new(store);
    let tenants: Vec<String> = (0..TENANTS).map(|n| format!("held-{n}")).collect();
    open_accounts(&store, &tenants).await;
    let (holder, looking) = (hold(&fleet, &tenants).await, client(&fleet).await);
    let (mut seen, mut held, began) = (BTreeSet::new(), Vec::new(), Instant::now());
    for tenant in &tenants {
        held.push(tokio::spawn(ask(Arc::clone(&store), tenant.clone(), 0)));
        let wanted = seen.len() + 2;
        while seen.len() < wanted {
            let now = waiting(&looking).await;
            assert!(now.len() <= 1, "both connections wait: {now:?}");
            seen.extend(now);
            assert!(began.elapsed() < PATIENCE, "nobody waits");
        }
    }
    holder.batch_execute("COMMIT").await.expect("let go");
    for held in held {
        all_granted(held.await.expect("a task"));
    }
}
