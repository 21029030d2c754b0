//! Cases: seals over audit rows, acts, rows of removed runs.

use std::sync::Arc;

use windlass_core::audit::{Act, Chain};
use windlass_core::ids::{Digest, Name};
use windlass_core::seal::{ACTS, Segment};

use super::Harness;
use super::setup::{NOW, Process, audit_row, commit, end, id};
use crate::store::{Lease, Pruning, Removed, Retention, Sealing, Store, Unsealed};

fn act(number: u64, previous: Digest) -> Act {
    Act {
        number,
        at: NOW,
        actor: "anna".into(),
        action: "run.cancel".into(),
        subject: "a".into(),
        detail: None,
        previous,
    }
}

/// Audit rows up to `last` after the one of this hash, one decision for each.
async fn write(one: &Process, lease: &Lease, numbers: std::ops::RangeInclusive<u64>, mut previous: Digest) -> Digest {
    for number in numbers {
        let mut step = commit(lease, &one.worker, number - 1);
        step.audit = vec![audit_row(number, previous)];
        previous = step.audit[0].hash();
        one.apply(step).await;
    }
    previous
}

/// What is not sealed: everything, however it is dealt out.
async fn unsealed(store: &dyn Store) -> Unsealed {
    let mut unsealed = store.trail().unsealed(1_000).await.expect("read");
    while unsealed.more && unsealed.chains.is_empty() {
        assert!(store.trail().seal(sealing(&unsealed)).await.expect("answered"));
        unsealed = store.trail().unsealed(1_000).await.expect("read");
    }
    unsealed
}

fn sealing(unsealed: &Unsealed) -> Sealing {
    let mut tenants: Vec<Name> = unsealed.chains.iter().map(|one| one.tenant.clone()).collect();
    tenants.dedup();
    let segment = |tenant: Name| {
        let last = unsealed.last.iter().find(|(of, _)| *of == tenant).map(|(_, last)| *last).unwrap_or_default();
        let of = unsealed.chains.iter().filter(|one| one.tenant == tenant);
        let chains = of.map(|one| windlass_core::seal::Leaf::of(one.run.clone(), one.chain)).collect();
        Segment::after(last, tenant, unsealed.now, chains)
    };
    let segments = tenants.into_iter().map(segment).collect();
    Sealing { epoch: unsealed.epoch, mark: unsealed.mark.clone(), at: unsealed.now, segments }
}

/// Seals what there is.
pub(super) async fn seal_all(store: &dyn Store) {
    loop {
        let part = store.trail().unsealed(1_000).await.expect("read");
        let is_sealed = store.trail().seal(sealing(&part)).await.expect("answered");
        if is_sealed && !part.more {
            return;
        }
    }
}

fn shown(unsealed: &Unsealed) -> Vec<(String, u64)> {
    unsealed.chains.iter().map(|one| (one.run.to_string(), one.chain.rows)).collect()
}

pub(super) async fn chains_that_grew_are_sealed_once(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    assert_eq!(shown(&unsealed(&*one.store).await), []);
    let (a, b) = (one.begin("a").await, one.begin("b").await);
    let head = write(&one, &a, 1..=3, Digest::ZERO).await;
    write(&one, &b, 1..=1, Digest::ZERO).await;
    one.apply(commit(&b, &one.worker, 1)).await;
    let first = unsealed(&*one.store).await;
    assert_eq!(shown(&first), [("a".into(), 3), ("b".into(), 1)]);
    assert_eq!(first.chains[0].chain, Chain { rows: 3, head });
    assert!(first.last.iter().all(|(_, last)| last.number == 0), "nothing is sealed yet");
    let trail = one.store.trail();
    assert!(trail.seal(sealing(&first)).await.expect("answered"));
    assert!(!trail.seal(sealing(&first)).await.expect("answered"), "the epoch is another one");
    assert_eq!(shown(&unsealed(&*one.store).await), []);
    write(&one, &a, 4..=4, head).await;
    let other = harness.open().await;
    let second = unsealed(&*other).await;
    assert_eq!(shown(&second), [("a".into(), 4)]);
    assert_eq!(second.last[0].1.number, 1);
    assert!(other.trail().seal(sealing(&second)).await.expect("answered"));
    let tenant = second.chains[0].tenant.clone();
    let segments = trail.segments(tenant.clone(), 0, 10).await.expect("read");
    let mut last = windlass_core::seal::Last::default();
    for segment in &segments {
        last = segment.check(&tenant, last).expect("whole and in order");
    }
    assert_eq!(last.number, 2);
    assert_eq!(segments[0].chains.len(), 2);
    assert_eq!(trail.segments(tenant.clone(), 1, 10).await.expect("read"), segments[1..]);
    assert_eq!(trail.segments(tenant.clone(), 0, 1).await.expect("read"), segments[..1]);
    assert_eq!(trail.tenants().await.expect("read"), [tenant]);
}

pub(super) async fn much_is_sealed_in_parts(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for name in ["a", "b", "c", "d", "e"] {
        let lease = one.begin(name).await;
        write(&one, &lease, 1..=3, Digest::ZERO).await;
    }
    let (mut seen, trail) = (Vec::new(), one.store.trail());
    for _ in 0..40 {
        let part = trail.unsealed(4).await.expect("read");
        seen.extend(shown(&part));
        assert!(trail.seal(sealing(&part)).await.expect("answered"));
        if !part.more {
            break;
        }
    }
    for name in ["a", "b", "c", "d", "e"] {
        assert!(seen.contains(&(name.to_owned(), 3)), "the end of {name} is in a part: {seen:?}");
    }
    assert_eq!(shown(&unsealed(&*one.store).await), []);
}

pub(super) async fn acts_follow_one_another(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let trail = one.store.trail();
    let tenant = || Name::from("t");
    let first = act(1, Digest::ZERO);
    assert!(trail.act(tenant(), first.clone()).await.expect("answered"));
    assert!(!trail.act(tenant(), first.clone()).await.expect("answered"), "there is one of that number");
    assert!(!trail.act(tenant(), act(3, first.hash())).await.expect("answered"), "one is missing before it");
    assert!(!trail.act(tenant(), act(2, Digest::ZERO)).await.expect("answered"), "it follows another one");
    let second = act(2, first.hash());
    let other = harness.open().await;
    assert!(other.trail().act(tenant(), second.clone()).await.expect("answered"));
    assert_eq!(trail.acts(tenant(), 0, 9).await.expect("read"), [first.clone(), second.clone()]);
    assert_eq!(trail.acts(tenant(), 1, 9).await.expect("read"), std::slice::from_ref(&second));
    assert_eq!(trail.last_act(tenant()).await.expect("read"), Some(second.clone()));
    assert_eq!(trail.last_act("u".into()).await.expect("read"), None);
    let grown = unsealed(&*one.store).await;
    assert_eq!(shown(&grown), [(ACTS.to_owned(), 2)]);
    assert_eq!(grown.chains[0].chain.head, second.hash());
    assert!(trail.seal(sealing(&grown)).await.expect("answered"));
    assert_eq!(shown(&unsealed(&*one.store).await), []);
    assert_eq!(trail.tenants().await.expect("read"), [tenant()]);
}

pub(super) async fn audit_rows_outlive_their_run(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for name in ["a", "b"] {
        let lease = one.begin(name).await;
        write(&one, &lease, 1..=2, Digest::ZERO).await;
        one.apply(end(&lease, &one.worker, 2)).await;
    }
    let trail = one.store.trail();
    let all = unsealed(&*one.store).await;
    assert!(trail.seal(sealing(&all)).await.expect("answered"));
    let rows = one.store.audit(id("a")).await.expect("read");
    one.store.prune(Retention::default()).await.expect("pruned");
    assert!(one.store.audit(id("a")).await.expect("read").is_empty());
    let kept = trail.kept(Removed::Run(id("a")), 0, 9).await.expect("read");
    assert_eq!(kept.iter().map(|kept| &kept.rows).collect::<Vec<_>>(), [&Ok(rows)]);
    let of = || Removed::Tenant(all.chains[0].tenant.clone());
    let every = trail.kept(of(), 0, 9).await.expect("read");
    assert_eq!(every.len(), 2);
    assert_eq!(trail.kept(of(), every[0].number, 9).await.expect("read").len(), 1);
    assert_eq!(trail.kept(Removed::Tenant("nobody".into()), 0, 9).await.expect("read"), []);
    // A run of the same name is another one, and its rows are found although others were removed.
    let lease = one.begin("a").await;
    write(&one, &lease, 1..=1, Digest::ZERO).await;
    assert_eq!(shown(&unsealed(&*one.store).await), [("a".into(), 1)]);
}

pub(super) async fn what_is_not_sealed_is_not_removed(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for (name, rows) in [("a", 1), ("b", 0)] {
        let lease = one.begin(name).await;
        write(&one, &lease, 1..=rows, Digest::ZERO).await;
        one.apply(end(&lease, &one.worker, rows)).await;
    }
    let reported = one.store.prune(Retention { dry_run: true, ..Retention::default() }).await.expect("reported");
    assert_eq!((reported.runs, reported.unsealed), (2, 0), "what would be removed once it is sealed");
    let pruned = one.store.prune(Retention::default()).await.expect("pruned");
    assert_eq!((pruned.runs, pruned.unsealed), (1, 1), "no sealer looks at rows that are kept");
    seal_all(&*one.store).await;
    let pruned = one.store.prune(Retention::default()).await.expect("pruned");
    assert_eq!((pruned.runs, pruned.unsealed), (1, 0));
}

pub(super) async fn what_is_pruned_is_gone_and_the_rest_stays(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let trail = one.store.trail();
    for name in ["a", "b", "c"] {
        let lease = one.begin(name).await;
        write(&one, &lease, 1..=1, Digest::ZERO).await;
        one.apply(end(&lease, &one.worker, 1)).await;
        seal_all(&*one.store).await;
        one.store.prune(Retention::default()).await.expect("removed");
    }
    let tenant = trail.tenants().await.expect("read").pop().expect("a tenant");
    let mut previous = Digest::ZERO;
    for number in 1..=3 {
        let next = act(number, previous);
        previous = next.hash();
        for tenant in [tenant.clone(), "other".into()] {
            assert!(trail.act(tenant, next.clone()).await.expect("answered"));
        }
    }
    seal_all(&*one.store).await;
    let segments = trail.segments(tenant.clone(), 0, 99).await.expect("read");
    let kept = trail.kept(Removed::Tenant(tenant.clone()), 0, 9).await.expect("read");
    assert_eq!(kept.len(), 3);
    let gone = kept[1].number;
    let pruning = Pruning { tenant: tenant.clone(), segments: 2, acts: 1, kept: vec![gone] };
    // Once more is harmless.
    for _ in 0..2 {
        trail.cut(pruning.clone()).await.expect("pruned");
    }
    assert_eq!(trail.segments(tenant.clone(), 0, 99).await.expect("read"), segments[2..]);
    assert_eq!(trail.acts(tenant.clone(), 0, 9).await.expect("read").len(), 2);
    assert_eq!(trail.acts("other".into(), 0, 9).await.expect("read").len(), 3, "that of others is left alone");
    let left = trail.kept(Removed::Tenant(tenant.clone()), 0, 9).await.expect("read");
    assert_eq!(left, [kept[0].clone(), kept[2].clone()]);
    // What comes next is the next.
    assert!(trail.act(tenant.clone(), act(4, previous)).await.expect("answered"));
    assert_eq!(shown(&unsealed(&*one.store).await), [(ACTS.to_owned(), 4)]);
    // Numbers of removals are not given again.
    let lease = one.begin("d").await;
    write(&one, &lease, 1..=1, Digest::ZERO).await;
    one.apply(end(&lease, &one.worker, 1)).await;
    seal_all(&*one.store).await;
    one.store.prune(Retention::default()).await.expect("removed");
    let left = trail.kept(Removed::Tenant(tenant), 0, 9).await.expect("read");
    assert!(left.last().is_some_and(|last| last.number > kept[2].number), "{left:?}");
}
