//! Cases: runs that lose their workers, quarantine and its end, the fence after a restore.

use std::sync::Arc;

use windlass_core::ids::EffectId;
use windlass_core::input::Sent;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;

use super::Harness;
use super::setup::{NOW, Process, child, commit, end, id, message, park, run, signal, wait};
use crate::store::{
    Committed, Delivered, Head, Keep, Lease, Load, Query, Registration, Retention, STRIKES_MAX, STRIKES_SUSPECT,
    Signalled,
};

/// Losses of workers with nothing else that end in quarantine.
const LOSSES: u32 = 3;

async fn head(process: &Process, name: &str) -> Head {
    process.store.load(id(name)).await.expect("read").expect("it exists").head
}

/// The run is taken by one process after another, each of which dies before it decides anything, with nothing else. Gives back a process
/// that lives, and the first worker that was lost.
async fn lose(harness: &Arc<dyn Harness>, name: &str, times: u32) -> (Process, crate::store::WorkerId) {
    let first = Process::open(harness).await;
    first.begin(name).await;
    let lost = first.worker.clone();
    drop(first);
    for losses in 1..times {
        let next = Process::open(harness).await;
        let strikes = if losses == 1 { 1 } else { STRIKES_MAX - 1 };
        assert_eq!(next.claim_one(NOW.0).await.strikes, strikes);
    }
    (Process::open(harness).await, lost)
}

pub(super) async fn losses_are_counted_until_the_next_decision(harness: Arc<dyn Harness>) {
    let (one, _) = lose(&harness, "a", LOSSES - 1).await;
    let lease = one.claim_one(NOW.0).await;
    assert_eq!((lease.strikes, head(&one, "a").await.strikes), (STRIKES_MAX - 1, STRIKES_MAX - 1));
    one.store.release(lease, one.worker.clone(), Keep::HandBack).await.expect("released");
    let lease = one.claim_one(NOW.0).await;
    assert_eq!(lease.strikes, STRIKES_MAX - 1, "giving it back is no decision");
    let (mut held, mut parked) = (commit(&lease, &one.worker, 0), park(&lease, &one.worker, 1, None));
    for no_progress in [&mut held, &mut parked] {
        no_progress.head.strikes = lease.strikes;
    }
    parked.messages = vec![message("a", "m")];
    one.apply(held).await;
    assert_eq!(head(&one, "a").await.strikes, STRIKES_MAX - 1, "nor is a decision that is no progress");
    one.apply(parked).await;
    assert_eq!(head(&one, "a").await.strikes, STRIKES_MAX - 1, "however it is written");
    one.apply(commit(&lease, &one.worker, 2)).await;
    assert_eq!(head(&one, "a").await.strikes, 0);
    let two = Process::open(&harness).await;
    drop(one);
    assert_eq!(two.claim_one(NOW.0).await.strikes, 1, "losses before a decision count no more");
    let taken = two.store.take_over(id("a"), two.worker.clone(), None).await.expect("answered").expect("taken");
    assert_eq!(taken.strikes, 1, "to be taken over is no loss");
}

pub(super) async fn a_run_that_loses_worker_after_worker_is_quarantined(harness: Arc<dyn Harness>) {
    let (one, _) = lose(&harness, "a", LOSSES).await;
    assert!(one.claim_all(NOW.0).await.is_empty(), "nobody gets it");
    let found = head(&one, "a").await;
    assert_eq!((found.status, found.owner.as_ref(), found.wake_at), (Status::Quarantined, None, None));
    assert_eq!((found.strikes, found.version), (STRIKES_MAX, 0));
    let why = found.quarantine.expect("a reason");
    assert!(
        why.starts_with(
            "its workers were lost one after another, at last with no other run, with no progress in between, last `"
        ),
        "{why}"
    );
    let query = Query { statuses: vec![Status::Quarantined], limit: 9, ..Query::default() };
    assert_eq!(one.store.list(query).await.expect("listed").heads.len(), 1);
    let counted = one.store.stats().await.expect("counted");
    assert_eq!((counted.runs, counted.queue), (vec![("quarantined".to_owned(), 1)], Vec::new()));
    assert_eq!(one.store.fsck().await.expect("checked"), [], "a person has to look at it, and nothing is wrong");
    assert_eq!(one.store.prune(Retention::default()).await.expect("pruned").runs, 0);
    let told = one.store.reap().await.expect("answered");
    assert_eq!((told.runs, told.quarantined), (0, vec![id("a")]), "what the claim found is told");
    assert_eq!(one.store.reap().await.expect("answered").quarantined, [], "once");
}

pub(super) async fn runs_that_lose_workers_in_company_are_driven_alone_first(harness: Arc<dyn Harness>) {
    let first = Process::open(&harness).await;
    for name in ["a", "b"] {
        first.store.create(run(name)).await.expect("created");
    }
    assert_eq!(first.claim_all(NOW.0).await.len(), 2);
    drop(first);
    for strikes in 1..STRIKES_SUSPECT {
        let next = Process::open(&harness).await;
        let leases = next.claim_all(NOW.0).await;
        assert_eq!(leases.iter().map(|lease| lease.strikes).collect::<Vec<_>>(), [strikes; 2]);
    }
    let company = Process::open(&harness).await;
    for name in ["a", "b"] {
        let lease = company.claim_one(NOW.0).await;
        assert_eq!((&lease.run, lease.strikes), (&id(name), STRIKES_SUSPECT), "one at a time");
    }
    drop(company);
    for losses in 0..STRIKES_MAX - STRIKES_SUSPECT {
        let alone = Process::open(&harness).await;
        let mut lease = alone.claim_one(NOW.0).await;
        if lease.run == id("b") {
            alone.store.release(lease, alone.worker.clone(), Keep::HandBack).await.expect("released");
            lease = alone.claim_one(NOW.0).await;
        }
        assert_eq!((&lease.run, lease.strikes), (&id("a"), STRIKES_SUSPECT + losses), "in company no loss counts more");
    }
    let last = Process::open(&harness).await;
    let lease = last.claim_one(NOW.0).await;
    assert_eq!((&lease.run, lease.strikes), (&id("b"), STRIKES_SUSPECT));
    assert_eq!((head(&last, "a").await.status, head(&last, "a").await.strikes), (Status::Quarantined, STRIKES_MAX));
    last.apply(commit(&lease, &last.worker, 0)).await;
    assert_eq!(head(&last, "b").await.strikes, 0);
}

pub(super) async fn reaping_quarantines_too(harness: Arc<dyn Harness>) {
    let (one, _) = lose(&harness, "a", LOSSES).await;
    let reaped = one.store.reap().await.expect("answered");
    assert_eq!((reaped.runs, reaped.quarantined), (0, vec![id("a")]));
    assert_eq!(head(&one, "a").await.status, Status::Quarantined);
}

pub(super) async fn what_comes_for_a_quarantined_run_is_kept(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    let mut step = park(&lease, &one.worker, 0, Some(2_000));
    step.waits_opened = vec![wait(1, "x")];
    one.apply(step).await;
    for _ in 0..LOSSES {
        let dies = Process::open(&harness).await;
        assert_eq!(dies.claim_all(2_000).await.len(), 1);
    }
    assert!(one.claim_all(2_000).await.is_empty());
    assert_eq!(one.store.deliver(message("a", "m")).await.expect("answered"), Delivered::Accepted);
    assert_eq!(one.store.deliver(message("a", "m")).await.expect("answered"), Delivered::Duplicate);
    assert_eq!(one.store.signal(signal("s", "x")).await.expect("answered"), Signalled::Delivered(vec![id("a")]));
    assert!(one.claim_all(u64::MAX >> 1).await.is_empty(), "it stays where it is");
    assert_eq!(one.store.next_due(None).await.expect("read"), None);
    assert_eq!(head(&one, "a").await.status, Status::Quarantined);
    assert_eq!(one.store.fsck().await.expect("checked"), []);
    assert_eq!(one.inbox_ids("a").await.len(), 2);
    assert!(one.store.requeue(id("a")).await.expect("answered"));
    let lease = one.claim_one(NOW.0).await;
    let mut step = commit(&lease, &one.worker, 1);
    step.taken = one.store.inbox(id("a")).await.expect("read").iter().map(|item| item.number).collect();
    assert_eq!(one.apply(step).await, Committed::Applied { held: true, inbox: false, switched: false });
}

pub(super) async fn a_quarantine_ends_by_requeueing(harness: Arc<dyn Harness>) {
    let (one, lost) = lose(&harness, "a", LOSSES).await;
    one.store.reap().await.expect("answered");
    assert!(one.store.requeue(id("a")).await.expect("answered"));
    let found = head(&one, "a").await;
    assert_eq!((found.status, found.strikes, found.quarantine, found.helped), (Status::Queued, 0, None, 1));
    assert!(!one.store.requeue(id("a")).await.expect("answered"), "it is in the queue");
    let lease = one.claim_one(NOW.0).await;
    assert_eq!((lease.strikes, lease.taken_from.as_ref()), (0, Some(&lost)), "whose calls nobody has dealt with");
    assert!(!one.store.requeue(id("a")).await.expect("answered"), "it is held");
    one.apply(end(&lease, &one.worker, 0)).await;
    for name in ["a", "nobody"] {
        assert!(!one.store.requeue(id(name)).await.expect("answered"), "{name}");
    }
}

pub(super) async fn a_quarantined_run_can_be_taken_over(harness: Arc<dyn Harness>) {
    let (one, lost) = lose(&harness, "a", LOSSES).await;
    one.store.reap().await.expect("answered");
    let taking = one.store.take_over(id("a"), one.worker.clone(), Some(Status::Quarantined));
    let lease = taking.await.expect("answered").expect("taken");
    assert_eq!((lease.strikes, lease.taken_from.as_ref()), (0, Some(&lost)));
    let found = head(&one, "a").await;
    assert_eq!((found.status, found.strikes, found.quarantine, found.helped), (Status::Running, 0, None, 1));
    one.apply(commit(&lease, &one.worker, 0)).await;
}

pub(super) async fn take_over_of_a_run_that_is_no_longer_as_expected(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let lease = one.begin("a").await;
    let mut failed = end(&lease, &one.worker, 0);
    failed.head.status = Status::Failed;
    one.apply(failed).await;
    let take = async |process: &Process, expected: Status| -> Option<Lease> {
        process.store.take_over(id("a"), process.worker.clone(), Some(expected)).await.expect("answered")
    };
    assert!(take(&two, Status::Running).await.is_none());
    let lease = take(&one, Status::Failed).await.expect("it has failed");
    one.apply(commit(&lease, &one.worker, 1)).await;
    assert!(take(&two, Status::Failed).await.is_none(), "it was reopened in between");
    one.apply(park(&lease, &one.worker, 2, None)).await;
    assert!(take(&two, Status::Failed).await.is_none() && take(&two, Status::Queued).await.is_none());
    let lease = take(&two, Status::Waiting).await.expect("it waits");
    two.store.release(lease, two.worker.clone(), Keep::HandBack).await.expect("released");
    assert!(take(&two, Status::Waiting).await.is_none());
    assert!(take(&two, Status::Queued).await.is_some());
}

pub(super) async fn a_fence_voids_everything(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let held = one.begin("held").await;
    let mut step = commit(&held, &one.worker, 0);
    step.children = vec![child("held~1.0", "held", "held")];
    one.apply(step).await;
    let parked = two.begin("parked").await;
    let mut step = park(&parked, &two.worker, 0, Some(2_000));
    step.waits_opened = vec![wait(1, "x")];
    two.apply(step).await;
    let ended = one.begin("ended").await;
    one.apply(end(&ended, &one.worker, 0)).await;
    let fenced = one.store.fence("restored from a backup".into()).await.expect("fenced");
    assert_eq!(fenced, 3, "every unfinished run");
    for name in ["held", "held~1.0", "parked"] {
        let found = head(&one, name).await;
        assert_eq!((found.status, found.owner, found.wake_at), (Status::Quarantined, None, None), "{name}");
        assert_eq!(found.quarantine.as_deref(), Some("restored from a backup"));
    }
    assert_eq!(head(&one, "ended").await.status, Status::Completed);
    assert!(head(&one, "held").await.epoch > held.epoch, "a lease of before is one of the past");
    assert_eq!(one.commit(commit(&held, &one.worker, 1)).await, Committed::Stale);
    for process in [&one, &two] {
        let beat = process.store.beat(process.worker.clone(), Load::default()).await.expect("answered");
        assert!(!beat.is_alive, "every worker has to join again");
        assert!(!process.store.is_current(&process.worker));
        process.store.create(run(&format!("after {}", process.worker))).await.expect("created");
        assert!(process.claim_all(NOW.0).await.is_empty());
    }
    assert_eq!(one.store.next_due(None).await.expect("read"), None);
    assert_eq!(one.store.fsck().await.expect("checked"), []);
    let one = Process { worker: one.store.join(Registration::default()).await.expect("joined"), ..one };
    assert_eq!(one.claim_all(NOW.0).await.len(), 2, "only what came after it");
    assert!(one.store.requeue(id("held")).await.expect("answered"));
    let lease = one.claim_one(NOW.0).await;
    let before = crate::store::WorkerId(crate::store::FENCED.into());
    assert_eq!(lease.taken_from.as_ref(), Some(&before), "what it had out may have been done");
    assert_eq!(one.store.was_sent(&before, &id("held"), EffectId(1), 1), Sent::Maybe);
    one.apply(commit(&lease, &one.worker, 1)).await;
    assert!(one.store.requeue(id("parked")).await.expect("answered"));
    let lease = one.claim_one(NOW.0).await;
    assert_eq!((lease.epoch, lease.taken_from.as_ref()), (parked.epoch + 2, Some(&before)), "or since it was parked");
    one.apply(park(&lease, &one.worker, 1, Some(3_000))).await;
    assert_eq!(one.store.next_due(None).await.expect("read"), Some(Timestamp(3_000)));
}
