//! Cases: workers as others see them, and what becomes of their runs when they are gone.

use std::sync::Arc;

use windlass_core::ids::EffectId;
use windlass_core::input::Sent;
use windlass_core::run::Status;

use super::Harness;
use super::setup::{NOW, Process, commit, end, id, park, run};
use crate::store::{Claim, Committed, Load, Reaped, Registration, StoreError, WorkerId, WorkerRow};

fn registration() -> Registration {
    Registration {
        host: "host ä\u{1}".into(),
        pid: 4_711,
        build: "1.2.3".into(),
        pools: vec!["gpu".into(), "other".into()],
        claim_slots: 8,
        call_slots: 64,
        keys: Vec::new(),
    }
}

async fn row(process: &Process, worker: &WorkerId) -> Option<WorkerRow> {
    let rows = process.store.workers().await.expect("listed");
    let alive: Vec<_> = rows.iter().map(|row| row.is_alive).collect();
    assert!(alive.is_sorted_by(|first, second| first >= second), "workers alive come first: {rows:?}");
    // The keys of an encrypted store are said by the store.
    let said = |row: WorkerRow| {
        let registration = Registration { keys: Vec::new(), ..row.registration };
        WorkerRow { registration, ..row }
    };
    rows.into_iter().find(|row| row.id == *worker).map(said)
}

pub(super) async fn workers_are_listed_with_what_they_said(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let worker = two.store.join(registration()).await.expect("joined");
    for name in ["a", "b"] {
        one.store.create(run(name)).await.expect("created");
    }
    two.store.claim(Claim::any(worker.clone(), 2, NOW)).await.expect("claimed");
    let found = row(&one, &worker).await.expect("a worker that joined is listed");
    assert_eq!(
        (found.registration, found.load, found.is_alive, found.runs),
        (registration(), Load::default(), true, 2)
    );
    let load = Load { held: 2, calls: 4_000_000_000, draining: true };
    let beat = two.store.beat(worker.clone(), load).await.expect("answered");
    let found = row(&one, &worker).await.expect("it is listed");
    assert_eq!(found.load, load, "what it said last");
    assert!(found.seen_at <= two.store.beat(worker.clone(), load).await.expect("answered").now);
    assert!(beat.again_ms > 0);
    let idle = row(&one, &one.worker).await.expect("the first is listed");
    assert_eq!((idle.registration, idle.is_alive, idle.runs), (Registration::default(), true, 0));
    drop(two);
    let found = row(&one, &worker).await.expect("a worker that holds runs is listed");
    assert_eq!((found.is_alive, found.runs), (false, 2));
}

pub(super) async fn a_heartbeat_tells_who_lives(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let first = one.store.beat(one.worker.clone(), Load::default()).await.expect("answered");
    let second = one.store.beat(one.worker.clone(), Load::default()).await.expect("answered");
    assert!(first.is_alive && second.is_alive && first.now <= second.now, "{first:?} {second:?}");
    assert!(one.store.is_current(&one.worker));
    assert!(!one.store.is_current(&two.worker), "a worker of another process is nothing to this one");
    let unknown = WorkerId("nobody".into());
    assert!(!one.store.is_current(&unknown));
    assert!(!one.store.beat(unknown.clone(), Load::default()).await.expect("answered").is_alive);
    assert!(matches!(one.store.leave(unknown).await, Err(StoreError::Invalid(_))));
}

pub(super) async fn a_worker_that_leaves_gives_back_what_it_holds(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let held = one.begin("a").await;
    one.apply(commit(&held, &one.worker, 0)).await;
    one.store.mark_sent(&id("a"), EffectId(1), 1).expect("marked");
    let parked = one.begin("b").await;
    one.apply(park(&parked, &one.worker, 0, Some(9_000))).await;
    let other = one.store.join(Registration::default()).await.expect("joined");
    one.store.create(run("c")).await.expect("created");
    one.store.claim(Claim::any(other.clone(), 1, NOW)).await.expect("claimed");
    two.store.create(run("queued before")).await.expect("created");
    one.store.leave(one.worker.clone()).await.expect("left");
    assert!(!one.store.is_current(&one.worker) && one.store.is_current(&other));
    assert!(!one.store.beat(one.worker.clone(), Load::default()).await.expect("answered").is_alive);
    assert!(row(&two, &one.worker).await.is_none_or(|row| !row.is_alive && row.runs == 0));
    assert_eq!(one.commit(commit(&held, &one.worker, 1)).await, Committed::Stale);
    let first = two.store.claim(two.wanted(1, NOW.0)).await.expect("claimed").remove(0);
    assert_eq!((first.run.clone(), first.strikes), (id("a"), 0), "it comes first, and no loss is counted");
    assert_eq!(first.taken_from.as_ref(), Some(&one.worker), "its calls have to be dealt with");
    assert_eq!(two.store.was_sent(&one.worker, &id("a"), EffectId(1), 1), Sent::Maybe);
    assert_eq!(two.claim_names(NOW.0).await, ["queued before"], "the other worker of the process goes on");
    let again = one.store.join(Registration::default()).await.expect("a process may join again");
    assert_ne!(again, one.worker);
    two.apply(end(&first, &two.worker, 1)).await;
    assert_eq!(one.store.fsck().await.expect("checked"), []);
}

pub(super) async fn what_a_claim_takes_back_is_told_once(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    for name in ["a", "b"] {
        one.begin(name).await;
    }
    let dead = one.worker.clone();
    drop(one);
    assert_eq!(two.claim_all(NOW.0).await.len(), 2);
    let counted = two.store.stats().await.expect("counted").reaped;
    let told = two.store.reap().await.expect("answered");
    assert_eq!((told.workers, told.runs, told.quarantined), (vec![dead], 2, Vec::new()));
    let again = two.store.reap().await.expect("answered");
    assert_eq!((again.workers, again.runs, again.quarantined), (Vec::new(), 0, Vec::new()), "once");
    assert_eq!((counted, two.store.stats().await.expect("counted").reaped), (2, 2));
}

pub(super) async fn reaping_puts_runs_of_dead_workers_first(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let held = [one.begin("a").await, one.begin("b").await];
    one.apply(commit(&held[0], &one.worker, 0)).await;
    two.store.create(run("waits longer")).await.expect("created");
    let mine = two.begin("mine").await;
    assert_eq!(two.store.reap().await.expect("answered"), Reaped::default(), "nobody is gone");
    let dead = one.worker.clone();
    drop(one);
    let reaped = two.store.reap().await.expect("answered");
    assert_eq!((reaped.runs, reaped.quarantined.len()), (2, 0));
    assert!(reaped.workers.contains(&dead), "{reaped:?}");
    assert_eq!(two.store.reap().await.expect("answered").runs, 0, "once");
    for name in ["a", "b"] {
        let head = two.store.load(id(name)).await.expect("read").expect("it exists").head;
        assert_eq!((head.status, head.owner, head.strikes), (Status::Queued, None, 1), "{name}");
    }
    assert_eq!(two.store.fsck().await.expect("checked"), []);
    let first = two.store.claim(two.wanted(2, NOW.0)).await.expect("claimed");
    let mut names: Vec<_> = first.iter().map(|lease| lease.run.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b"], "they come before what was in the queue");
    assert!(first.iter().all(|lease| lease.taken_from.as_ref() == Some(&dead) && lease.strikes == 1));
    two.apply(commit(&mine, &two.worker, 0)).await;
    assert_eq!(two.claim_names(NOW.0).await, ["waits longer"]);
    assert!(two.store.stats().await.expect("counted").reaped >= 2);
}

pub(super) async fn a_worker_believed_gone_can_do_nothing_more(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let lease = one.begin("a").await;
    one.apply(commit(&lease, &one.worker, 0)).await;
    if !harness.forget(&one.worker) {
        // Here the worker of a live process cannot be believed gone.
        return;
    }
    let taken = two.claim_one(NOW.0).await;
    assert_eq!((taken.taken_from.as_ref(), taken.strikes), (Some(&one.worker), 1));
    assert_eq!(one.commit(commit(&lease, &one.worker, 1)).await, Committed::Stale, "it woke up too late");
    assert!(!one.store.beat(one.worker.clone(), Load::default()).await.expect("answered").is_alive);
    assert!(!one.store.is_current(&one.worker), "after that it knows");
    one.store.create(run("b")).await.expect("created");
    assert!(one.claim_all(NOW.0).await.is_empty(), "it has to join again");
    let again = one.store.join(Registration::default()).await.expect("joined");
    assert_eq!(one.store.claim(Claim::any(again, 9, NOW)).await.expect("claimed").len(), 1);
    two.apply(commit(&taken, &two.worker, 1)).await;
}
