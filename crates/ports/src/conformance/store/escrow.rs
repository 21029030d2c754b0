//! Cases: budgets, what is drawn from them, and what comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use windlass_core::budget::{Amounts, Meter};
use windlass_core::escrow::{Beyond, Budget, Draw, Drawn, Line, Period};
use windlass_core::ids::Name;

use super::Harness;
use super::setup::{NOW, Process, end, id};
use crate::store::escrow::{self, BudgetRow, RETURNED};
use crate::store::{Retention, Store, StoreError};

/// Runs that draw at once.
const RUNS: u64 = 40;
/// What all of them may use together.
const CAP: u64 = 25;

fn budget(meter: Meter, cap: u64) -> Budget {
    Budget { caps: [(meter, cap)].into(), period: Period::None, near_percent: 80, beyond: Beyond::Fail }
}

fn calls(calls: u64) -> Amounts {
    Amounts::ZERO.with(Meter::ModelCalls, calls)
}

fn line(scope: &str, spent: u64, reserved: u64, need: u64) -> Line {
    Line { scope: scope.into(), spent: calls(spent), reserved: calls(reserved), need: calls(need) }
}

fn draw(run: &str, number: u64, lines: Vec<Line>) -> Draw {
    Draw { run: id(run), number, at: NOW, lines }
}

async fn put(store: &Arc<dyn Store>, scope: &str, budget: &Budget) {
    let put = escrow::put_budget(&**store, &scope.into(), 0, Some(budget)).await;
    assert!(put.expect("put"), "`{scope}` is new");
}

async fn row(store: &Arc<dyn Store>, scope: &str) -> BudgetRow {
    escrow::budget(&**store, &scope.into(), NOW).await.expect("read").expect("it exists")
}

/// What is drawn and what was spent.
async fn taken(store: &Arc<dyn Store>, scope: &str) -> (u64, u64) {
    let account = row(store, scope).await.account;
    (account.drawn.model_calls, account.spent.model_calls)
}

async fn asked(store: &Arc<dyn Store>, draw: Draw) -> Drawn {
    store.draw(draw).await.expect("answered")
}

fn granted(scope: &str, free: u64) -> Drawn {
    Drawn::Granted([(scope.into(), calls(free))].into())
}

pub(super) async fn budgets_are_kept_with_their_versions(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    put(&one.store, "tenant:acme", &budget(Meter::Tokens, 5)).await;
    put(&one.store, "environment", &budget(Meter::Tokens, 9)).await;
    let rows = escrow::budgets(&*two.store, NOW).await.expect("listed");
    let found: Vec<_> = rows.iter().map(|row| (&*row.scope, row.known.budget.caps[&Meter::Tokens])).collect();
    assert_eq!(found, [("environment", 9), ("tenant:acme", 5)]);
    let (scope, seen): (Name, _) = ("environment".into(), rows[0].known.revision);
    let change = async |expected, budget: Option<&Budget>| {
        escrow::put_budget(&*one.store, &scope, expected, budget).await.expect("answered")
    };
    assert!(!change(0, Some(&budget(Meter::Tokens, 1))).await, "there is one");
    assert!(change(seen, Some(&budget(Meter::Tokens, 10))).await);
    assert!(!change(seen, None).await, "it was changed since");
    let now = row(&two.store, "environment").await.known.revision;
    assert!(now > seen && change(now, None).await);
    assert_eq!(escrow::budget(&*two.store, &scope, NOW).await.expect("read"), None);
    let steps = escrow::put_budget(&*one.store, &scope, 0, Some(&budget(Meter::Steps, 1))).await;
    assert!(matches!(steps, Err(StoreError::Invalid(_))));
}

pub(super) async fn a_draw_is_granted_once_and_returned(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    put(&one.store, "environment", &budget(Meter::ModelCalls, 1_000)).await;
    let first = || draw("r", 3, vec![line("environment", 0, 0, 2)]);
    assert_eq!(asked(&one.store, first()).await, granted("environment", 10), "a hundredth of what is left");
    assert_eq!(asked(&two.store, first()).await, granted("environment", 10), "the same one again, elsewhere");
    assert_eq!(taken(&two.store, "environment").await, (10, 0));
    let held = escrow::allotments(&*two.store).await.expect("listed");
    assert_eq!((held.len(), held[0].1.number), (1, 3));
    // Four were used, one is out, the rest comes back; and that is told twice.
    for _ in 0..2 {
        asked(&one.store, draw("r", 5, vec![line("environment", 4, 1, 0)])).await;
        assert_eq!(taken(&one.store, "environment").await, (1, 4));
    }
    assert_eq!(asked(&two.store, first()).await, Drawn::Stale, "it comes after what followed it");
    asked(&one.store, draw("r", 9, vec![line("environment", 5, 0, 0)])).await;
    assert_eq!(taken(&one.store, "environment").await, (0, 5));
    assert!(escrow::allotments(&*one.store).await.expect("listed").is_empty());
    // Whoever never drew has nothing to return.
    asked(&one.store, draw("other", 4, vec![line("environment", 7, 0, 0)])).await;
    assert_eq!(taken(&one.store, "environment").await, (0, 5));
}

pub(super) async fn a_draw_is_refused_as_a_whole(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    put(&one.store, "environment", &budget(Meter::ModelCalls, 50)).await;
    put(&one.store, "tenant:acme", &budget(Meter::ModelCalls, 3)).await;
    let both = |number, need| {
        draw(
            "r",
            number,
            vec![line("environment", 0, 0, need), line("none:x", 0, 0, need), line("tenant:acme", 0, 0, need)],
        )
    };
    let Drawn::Refused(refusal) = asked(&one.store, both(1, 4)).await else { panic!("granted beyond the cap") };
    assert_eq!((&*refusal.scope, refusal.meter, refusal.cap), ("tenant:acme", Meter::ModelCalls, 3));
    assert_eq!((refusal.left, refusal.wanted), (3, 4));
    assert_eq!((taken(&one.store, "environment").await, taken(&one.store, "tenant:acme").await), ((0, 0), (0, 0)));
    let answer = asked(&one.store, both(2, 3)).await;
    let free: BTreeMap<Name, Amounts> =
        [("environment".into(), calls(3)), ("none:x".into(), calls(0)), ("tenant:acme".into(), calls(3))].into();
    assert_eq!(answer, Drawn::Granted(free), "a scope without a budget bounds nothing");
    assert_eq!(taken(&one.store, "tenant:acme").await, (3, 0));
    assert!(row(&one.store, "tenant:acme").await.known.is_near);
}

pub(super) async fn draws_at_once_never_exceed_a_cap(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    put(&one.store, "environment", &budget(Meter::ModelCalls, CAP)).await;
    put(&one.store, "tenant:acme", &budget(Meter::ModelCalls, CAP + 5)).await;
    let want = |n: u64| {
        let process = if n.is_multiple_of(2) { &one } else { &two };
        let lines = vec![line("environment", 0, 0, 1), line("tenant:acme", 0, 0, 1)];
        process.store.draw(draw(&format!("r{n}"), 1, lines))
    };
    let answers = join_all((0..RUNS).map(want)).await.into_iter().map(|answer| answer.expect("answered"));
    let granted = answers.filter(|answer| matches!(answer, Drawn::Granted(_))).count() as u64;
    assert_eq!(granted, CAP, "as many as there is room for");
    for scope in ["environment", "tenant:acme"] {
        assert_eq!(taken(&two.store, scope).await, (CAP, 0), "{scope}");
    }
    // Each used one and returns; whoever was refused finds nothing.
    let give = |n: u64| {
        let lines = vec![line("environment", 1, 0, 0), line("tenant:acme", 1, 0, 0)];
        one.store.draw(draw(&format!("r{n}"), 2, lines))
    };
    let held = escrow::allotments(&*one.store).await.expect("listed");
    assert_eq!(held.len() as u64, CAP);
    let holders = held.iter().filter_map(|(run, _)| run.as_str().strip_prefix('r')?.parse().ok());
    join_all(holders.map(give)).await.into_iter().for_each(|answer| drop(answer.expect("answered")));
    assert_eq!(taken(&one.store, "environment").await, (0, CAP));
    let late = asked(&two.store, draw("late", 1, vec![line("environment", 0, 0, 1)])).await;
    assert!(matches!(late, Drawn::Refused(_)));
}

pub(super) async fn what_a_run_returned_is_known_until_it_is_pruned(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    put(&one.store, "environment", &budget(Meter::ModelCalls, 9)).await;
    let mut leases = Vec::new();
    for run in ["gone", "stays"] {
        leases.push(one.begin(run).await);
        asked(&one.store, draw(run, 1, vec![line("environment", 0, 0, 1)])).await;
        asked(&one.store, draw(run, 2, vec![line("environment", 1, 0, 0)])).await;
    }
    let known = async || {
        let objects = one.store.objects(RETURNED.into(), None, 9).await.expect("listed");
        objects.into_iter().map(|object| object.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(known().await, ["gone", "stays"]);
    one.apply(end(&leases[0], &one.worker, 0)).await;
    one.store.prune(Retention { dry_run: true, ..Retention::default() }).await.expect("reported");
    assert_eq!(known().await, ["gone", "stays"]);
    assert_eq!(one.store.prune(Retention::default()).await.expect("pruned").runs, 1);
    assert_eq!(known().await, ["stays"]);
    assert_eq!(taken(&one.store, "environment").await, (0, 2));
}

pub(super) async fn what_a_removed_run_holds_counts_as_used(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    put(&one.store, "environment", &budget(Meter::ModelCalls, 9)).await;
    for (used, round) in [(3, "first"), (6, "second")] {
        let lease = one.begin("r").await;
        let answer = asked(&one.store, draw("r", 1, vec![line("environment", 0, 0, 3)])).await;
        assert_eq!(answer, granted("environment", 3), "{round}: a run that gets the name of another one draws anew");
        one.apply(end(&lease, &one.worker, 0)).await;
        assert_eq!(one.store.prune(Retention::default()).await.expect("pruned").runs, 1);
        assert_eq!(taken(&one.store, "environment").await, (0, used), "{round}");
        assert!(escrow::allotments(&*one.store).await.expect("listed").is_empty());
        assert!(one.store.objects(RETURNED.into(), None, 9).await.expect("listed").is_empty());
    }
}

pub(super) async fn draws_that_come_together_see_each_other(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    put(&one.store, "environment", &budget(Meter::ModelCalls, 9)).await;
    let lease = one.begin("gone").await;
    asked(&one.store, draw("gone", 1, vec![line("environment", 0, 0, 3)])).await;
    one.apply(end(&lease, &one.worker, 0)).await;
    let draws = [
        draw("a", 1, vec![line("environment", 0, 0, 2)]),
        draw("b", 1, vec![line("environment", 0, 0, 2)]),
        draw("a", 2, vec![line("environment", 1, 0, 1)]),
        draw("c", 1, vec![line("environment", 0, 0, 4)]),
        draw("b", 2, vec![line("environment", 2, 0, 0)]),
    ];
    let prune = |dry_run| one.store.prune(Retention { dry_run, ..Retention::default() });
    let draws = join_all(draws.into_iter().map(|draw| one.store.draw(draw)));
    let (tried, answers, pruned) = futures::join!(prune(true), draws, prune(false));
    // Whether it was still there to be tried with is nobody's promise.
    assert!(tried.expect("tried").runs <= 1);
    assert_eq!(pruned.expect("pruned").runs, 1);
    let answers: Vec<Drawn> = answers.into_iter().map(|answer| answer.expect("answered")).collect();
    assert_eq!(answers[..3], [granted("environment", 2), granted("environment", 2), granted("environment", 1)]);
    // Three of the removed run, of `a` one that it used and one that it holds, and two that `b` holds.
    assert!(matches!(&answers[3], Drawn::Refused(refusal) if refusal.left == 2), "{answers:?}");
    assert_eq!(taken(&one.store, "environment").await, (1, 6));
    let held = escrow::allotments(&*one.store).await.expect("listed");
    assert_eq!(held.iter().map(|(run, held)| (run.as_str(), held.number)).collect::<Vec<_>>(), [("a", 2)]);
    let returned = one.store.objects(RETURNED.into(), None, 9).await.expect("listed");
    let returned: Vec<_> = returned.iter().map(|object| &*object.key).collect();
    assert_eq!(returned, ["b", "c"], "nothing is left of the run that was removed");
}
