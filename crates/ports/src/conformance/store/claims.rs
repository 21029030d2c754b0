//! Cases: who holds a run.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use windlass_core::ids::EffectId;
use windlass_core::input::Sent;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;

use super::Harness;
use super::setup::{NOW, Process, child, commit, end, id, message, park, run};
use crate::store::{Claim, Committed, Keep, Load, Registration, StoreError};

pub(super) async fn claim_is_exclusive(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for n in 0..20 {
        one.store.create(run(&format!("r{n}"))).await.expect("created");
    }
    let claims = (0..30).map(|_| one.store.claim(one.wanted(1, NOW.0)));
    let leases: Vec<_> = join_all(claims).await.into_iter().flat_map(|got| got.expect("answered")).collect();
    let runs: BTreeSet<_> = leases.iter().map(|lease| lease.run.clone()).collect();
    assert_eq!((leases.len(), runs.len()), (20, 20), "every run is claimed, and claimed once");
    assert!(leases.iter().all(|lease| lease.taken_from.is_none() && lease.epoch == 1));
    assert!(one.claim_all(NOW.0).await.is_empty());
}

pub(super) async fn claim_is_exclusive_between_processes(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    for n in 0..20 {
        one.store.create(run(&format!("r{n}"))).await.expect("created");
    }
    let claims = (0..40).map(|n| {
        let process = if n % 2 == 0 { &one } else { &two };
        process.store.claim(process.wanted(1, NOW.0))
    });
    let leases: Vec<_> = join_all(claims).await.into_iter().flat_map(|got| got.expect("answered")).collect();
    let runs: BTreeSet<_> = leases.iter().map(|lease| lease.run.clone()).collect();
    assert_eq!((leases.len(), runs.len()), (20, 20), "every run is claimed, and claimed once");
}

pub(super) async fn claim_respects_its_limit_and_the_order_of_the_queue(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for name in ["c", "a", "b", "d"] {
        one.store.create(run(name)).await.expect("created");
    }
    assert!(one.store.claim(one.wanted(0, NOW.0)).await.expect("answered").is_empty());
    let first = one.store.claim(one.wanted(3, NOW.0)).await.expect("answered");
    let names: Vec<_> = first.iter().map(|lease| lease.run.as_str()).collect();
    assert_eq!(names, ["c", "a", "b"], "first come, first served");
    one.store.release(first[0].clone(), one.worker.clone(), Keep::HandBack).await.expect("released");
    let rest = one.store.claim(one.wanted(9, NOW.0)).await.expect("answered");
    let names: Vec<_> = rest.iter().map(|lease| lease.run.as_str()).collect();
    assert_eq!(names, ["d", "c"], "a run handed back goes to the end");
    assert_eq!(rest[1].epoch, first[0].epoch + 1, "the epoch grows with every claim");
}

pub(super) async fn what_a_worker_holds_is_told_again(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let leases = async |process: &Process| process.store.leases(process.worker.clone()).await.expect("told");
    for name in ["a", "b", "c"] {
        one.store.create(run(name)).await.expect("created");
    }
    assert!(leases(&one).await.is_empty());
    let lost = two.store.claim(two.wanted(1, NOW.0)).await.expect("answered").remove(0);
    let two_was = two.worker.clone();
    drop(two);
    let mut claimed = one.store.claim(one.wanted(9, NOW.0)).await.expect("answered");
    claimed.sort_by(|a, b| a.run.cmp(&b.run));
    let mut told = leases(&one).await;
    told.sort_by(|a, b| a.run.cmp(&b.run));
    assert_eq!(told, claimed, "as if they were just claimed");
    let taken = told.iter().find(|lease| lease.run == lost.run).expect("it was taken over");
    assert_eq!((taken.epoch, taken.taken_from.as_ref(), taken.strikes), (lost.epoch + 1, Some(&two_was), 1));
    let beat = one.store.beat(one.worker.clone(), Load::default()).await.expect("answered");
    assert!(beat.held.is_none_or(|held| held == 3), "{beat:?}");
    for lease in claimed {
        one.store.release(lease, one.worker.clone(), Keep::HandBack).await.expect("released");
    }
    assert!(leases(&one).await.is_empty());
}

pub(super) async fn claim_stays_within_a_tree(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    for new in [run("a"), run("b"), child("a~1.0", "a", "a"), child("a~1.0~1.0", "a~1.0", "a")] {
        one.store.create(new).await.expect("created");
    }
    let within = |process: &Process| Claim { within: Some(id("a")), ..process.wanted(10, NOW.0) };
    let mut names: Vec<_> =
        one.store.claim(within(&one)).await.expect("answered").into_iter().map(|lease| lease.run).collect();
    names.sort();
    assert_eq!(names, [id("a"), id("a~1.0"), id("a~1.0~1.0")]);
    drop(one);
    let taken = two.store.claim(within(&two)).await.expect("answered");
    assert_eq!(taken.len(), 3, "the runs of a dead worker too");
    assert_eq!(two.claim_names(NOW.0).await, ["b"]);
}

pub(super) async fn parked_runs_are_claimed_when_due(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    assert_eq!(
        one.apply(park(&lease, &one.worker, 0, Some(5_000))).await,
        Committed::Applied { held: false, inbox: false, switched: false }
    );
    let head = one.store.load(id("a")).await.expect("read").expect("it exists").head;
    assert_eq!((head.status, head.owner, head.wake_at), (Status::Waiting, None, Some(Timestamp(5_000))));
    assert!(one.claim_all(4_999).await.is_empty(), "it is not due");
    let lease = one.claim_one(5_000).await;
    assert_eq!((lease.epoch, lease.taken_from.as_ref()), (2, None));
    let head = one.store.load(id("a")).await.expect("read").expect("it exists").head;
    assert_eq!((head.owner, head.wake_at), (Some(one.worker.clone()), None));
    assert!(one.claim_all(9_000).await.is_empty(), "it is held");
    one.apply(park(&lease, &one.worker, 1, None)).await;
    assert!(one.claim_all(u64::MAX >> 1).await.is_empty(), "a run without a timer is never due");
}

pub(super) async fn next_due_is_the_earliest_parked_run(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    assert_eq!(one.store.next_due(None).await.expect("read"), None);
    for new in [run("a"), run("b"), child("b~1.0", "b", "b"), run("c")] {
        one.store.create(new).await.expect("created");
    }
    let leases = one.claim_all(NOW.0).await;
    assert_eq!(one.store.next_due(None).await.expect("read"), None, "held runs are not due");
    for (lease, at) in leases.iter().zip([Some(3_000), Some(2_000), Some(4_000), None]) {
        one.apply(park(lease, &one.worker, 0, at)).await;
    }
    assert_eq!(one.store.next_due(None).await.expect("read"), Some(Timestamp(2_000)));
    assert_eq!(one.store.next_due(Some(id("a"))).await.expect("read"), Some(Timestamp(3_000)));
    assert_eq!(one.store.next_due(Some(id("b"))).await.expect("read"), Some(Timestamp(2_000)));
    assert_eq!(one.store.next_due(Some(id("c"))).await.expect("read"), None);
    assert_eq!(one.claim_names(2_000).await, ["b"]);
    assert_eq!(one.store.next_due(Some(id("b"))).await.expect("read"), Some(Timestamp(4_000)));
    assert_eq!(one.store.next_due(None).await.expect("read"), Some(Timestamp(3_000)));
    one.store.deliver(message("a", "m")).await.expect("delivered");
    assert_eq!(one.store.next_due(None).await.expect("read"), Some(Timestamp(4_000)), "a run in the queue is not due");
}

pub(super) async fn runs_of_a_dead_worker_are_taken_over_at_once(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let lease = one.begin("a").await;
    one.apply(commit(&lease, &one.worker, 0)).await;
    assert!(two.claim_all(NOW.0).await.is_empty());
    let dead = one.worker.clone();
    drop(one);
    let taken = two.claim_one(NOW.0).await;
    assert_eq!((taken.epoch, taken.taken_from), (lease.epoch + 1, Some(dead.clone())));
    let taken = crate::store::Lease {
        run: id("a"),
        epoch: lease.epoch + 1,
        taken_from: None,
        strikes: 0,
        priority: crate::store::Priority::Normal,
    };
    assert_eq!(two.commit(commit(&lease, &dead, 1)).await, Committed::Stale, "the dead one's decisions are void");
    two.apply(commit(&taken, &two.worker, 1)).await;
    assert!(two.claim_all(NOW.0).await.is_empty(), "it is held again");
}

pub(super) async fn the_worker_that_lost_a_run_is_known_until_the_next_decision(harness: Arc<dyn Harness>) {
    let (one, two, three) =
        (Process::open(&harness).await, Process::open(&harness).await, Process::open(&harness).await);
    let lease = one.begin("a").await;
    one.apply(commit(&lease, &one.worker, 0)).await;
    let dead = one.worker.clone();
    drop(one);
    let taken = two.claim_one(NOW.0).await;
    assert_eq!(taken.taken_from.as_ref(), Some(&dead));
    drop(two);
    let taken = three.claim_one(NOW.0).await;
    assert_eq!(taken.taken_from.as_ref(), Some(&dead), "the second died before it decided anything");
    three.store.release(taken, three.worker.clone(), Keep::HandBack).await.expect("answered");
    let taken = three.claim_one(NOW.0).await;
    assert_eq!(taken.taken_from.as_ref(), Some(&dead), "it was given back without a decision");
    three.apply(park(&taken, &three.worker, 1, Some(2_000))).await;
    assert_eq!(three.claim_one(2_000).await.taken_from, None, "a decision has dealt with it");
}

pub(super) async fn runs_of_a_live_worker_are_not_claimed(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let second = one.store.join(Registration::default()).await.expect("a process may join twice");
    assert_ne!(second, one.worker, "every worker has its own id");
    one.begin("a").await;
    for _ in 0..3 {
        assert!(two.claim_all(u64::MAX >> 1).await.is_empty());
        assert!(one.claim_all(u64::MAX >> 1).await.is_empty());
    }
}

pub(super) async fn take_over_fences_the_old_holder(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let old = one.begin("a").await;
    one.apply(commit(&old, &one.worker, 0)).await;
    let new = two.store.take_over(id("a"), two.worker.clone(), None).await.expect("answered").expect("it can be taken");
    assert_eq!((new.epoch, new.taken_from.clone()), (old.epoch + 1, Some(one.worker.clone())));
    assert_eq!(one.commit(commit(&old, &one.worker, 1)).await, Committed::Stale);
    assert_eq!(one.commit(end(&old, &one.worker, 1)).await, Committed::Stale);
    assert_eq!(
        one.store.was_sent(&one.worker, &id("a"), EffectId(1), 1),
        Sent::Maybe,
        "a live process may be about to send"
    );
    one.store.release(old, one.worker.clone(), Keep::HandBack).await.expect("answered");
    assert!(one.claim_all(NOW.0).await.is_empty(), "the old holder cannot give away what it lost");
    two.apply(commit(&new, &two.worker, 1)).await;
    let head = two.store.load(id("a")).await.expect("read").expect("it exists").head;
    assert_eq!((head.version, head.epoch, head.owner), (2, new.epoch, Some(two.worker.clone())));
}

pub(super) async fn take_over_of_a_run_nobody_holds(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    one.store.create(run("a")).await.expect("created");
    let lease =
        one.store.take_over(id("a"), one.worker.clone(), None).await.expect("answered").expect("it can be taken");
    assert_eq!((lease.epoch, lease.taken_from.as_ref()), (1, None));
    assert!(one.claim_all(NOW.0).await.is_empty(), "it is no longer in the queue");
    one.apply(park(&lease, &one.worker, 0, Some(2_000))).await;
    let lease =
        one.store.take_over(id("a"), one.worker.clone(), None).await.expect("answered").expect("it can be taken");
    assert_eq!(lease.epoch, 2);
    assert_eq!(one.store.next_due(None).await.expect("read"), None);
    assert!(one.claim_all(2_000).await.is_empty(), "it is no longer parked");
}

pub(super) async fn only_a_failed_run_can_be_taken_over_after_its_end(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for (name, status) in [("a", Status::Completed), ("b", Status::Cancelled), ("c", Status::Failed)] {
        let lease = one.begin(name).await;
        let mut last = end(&lease, &one.worker, 0);
        last.head.status = status;
        one.apply(last).await;
    }
    for over in ["a", "b"] {
        assert!(one.store.take_over(id(over), one.worker.clone(), None).await.expect("answered").is_none());
    }
    assert!(one.claim_all(u64::MAX >> 1).await.is_empty());
    let lease =
        one.store.take_over(id("c"), one.worker.clone(), None).await.expect("answered").expect("to be tried again");
    one.store.release(lease, one.worker.clone(), Keep::HandBack).await.expect("released");
    assert!(one.claim_all(u64::MAX >> 1).await.is_empty(), "a failed run let go is not in the queue");
    let lease =
        one.store.take_over(id("c"), one.worker.clone(), None).await.expect("answered").expect("to be tried again");
    one.apply(commit(&lease, &one.worker, 1)).await;
    one.store.release(lease, one.worker.clone(), Keep::HandBack).await.expect("released");
    assert_eq!(one.claim_names(NOW.0).await, ["c"], "it goes on");
}

pub(super) async fn release_hands_back_or_parks(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    for keep in [Keep::Hold, Keep::End] {
        let refused = one.store.release(lease.clone(), one.worker.clone(), keep).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
    one.apply(commit(&lease, &one.worker, 0)).await;
    one.store.release(lease.clone(), one.worker.clone(), Keep::HandBack).await.expect("released");
    let head = one.store.load(id("a")).await.expect("read").expect("it exists").head;
    assert_eq!((head.status, head.owner, head.version), (Status::Queued, None, 1));
    assert_eq!(one.commit(commit(&lease, &one.worker, 1)).await, Committed::Stale, "what is released is lost");
    let lease = one.claim_one(NOW.0).await;
    one.store
        .release(lease, one.worker.clone(), Keep::Park { wake_at: Some(Timestamp(7_000)) })
        .await
        .expect("released");
    assert!(one.claim_all(6_999).await.is_empty());
    assert_eq!(one.store.next_due(None).await.expect("read"), Some(Timestamp(7_000)));
    let lease = one.claim_one(7_000).await;
    one.store.deliver(message("a", "m")).await.expect("delivered");
    one.store.release(lease, one.worker.clone(), Keep::Park { wake_at: None }).await.expect("released");
    assert_eq!(one.claim_names(NOW.0).await, ["a"], "a run with something in its inbox is not parked");
}

pub(super) async fn release_by_a_fenced_worker_changes_nothing(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let old = one.begin("a").await;
    let new = two.store.take_over(id("a"), two.worker.clone(), None).await.expect("answered").expect("taken");
    for keep in [Keep::HandBack, Keep::Park { wake_at: Some(Timestamp(1)) }] {
        one.store.release(old.clone(), one.worker.clone(), keep).await.expect("answered");
        one.store.release(new.clone(), one.worker.clone(), keep).await.expect("answered");
    }
    let head = two.store.load(id("a")).await.expect("read").expect("it exists").head;
    assert_eq!((head.owner, head.epoch, head.wake_at), (Some(two.worker.clone()), new.epoch, None));
    assert!(one.claim_all(NOW.0).await.is_empty());
}

pub(super) async fn sent_marks_outlive_their_worker(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let (a, b) = (id("a"), id("b"));
    for n in 1..=500 {
        one.store.mark_sent(&a, EffectId(n), 1).expect("marked");
    }
    for n in 1..=400 {
        one.store.clear_sent(&a, EffectId(n), 1);
    }
    one.store.mark_sent(&b, EffectId(1), 2).expect("marked");
    one.store.mark_sent(&b, EffectId(1), 2).expect("marking twice is harmless");
    let dead = one.worker.clone();
    assert_eq!(two.store.was_sent(&dead, &b, EffectId(9), 1), Sent::Maybe, "a live worker may send at any time");
    drop(one);
    assert_eq!(two.store.was_sent(&dead, &b, EffectId(1), 2), Sent::Maybe);
    for n in 401..=500 {
        assert_eq!(two.store.was_sent(&dead, &a, EffectId(n), 1), Sent::Maybe, "a mark once made is found: {n}");
    }
    for (run, effect, attempt) in [(&b, 1, 1), (&b, 1, 3), (&b, 2, 2), (&a, 501, 1), (&id("c"), 1, 2)] {
        assert_eq!(two.store.was_sent(&dead, run, EffectId(effect), attempt), Sent::No, "{run} {effect} {attempt}");
    }
    let unknown = crate::store::WorkerId("nobody".into());
    assert_eq!(two.store.was_sent(&unknown, &a, EffectId(1), 1), Sent::Maybe, "nothing is known of it");
}
