//! Cases: who gets which run next.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use windlass_core::ids::Name;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;

use super::Harness;
use super::setup::{NOW, Process, child, commit, end, id, message, park, run};
use crate::store::{Claim, Created, Depth, Head, Lease, NewRun, POOL_DEFAULT, Priority, Query, Queueing, Registration};

/// Runs of the tenant that has most of them.
const MANY: usize = 10_000;
/// Runs created at once.
const AT_ONCE: usize = 500;

fn queued(text: &str, queueing: Queueing) -> NewRun {
    NewRun { queueing, ..run(text) }
}

fn in_pool(text: &str, pool: &str) -> NewRun {
    queued(text, Queueing { pool: Some(pool.into()), ..Queueing::default() })
}

fn of_class(text: &str, priority: Priority) -> NewRun {
    queued(text, Queueing { priority: Some(priority), ..Queueing::default() })
}

fn tags<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (Name, Name)> + 'a {
    pairs.iter().map(|(key, value)| (Name::from(*key), Name::from(*value)))
}

fn of_tenant(text: &str, tenant: &str) -> NewRun {
    let mut new = run(text);
    new.start.scope.tenant = tenant.into();
    new
}

async fn head(process: &Process, name: &str) -> Head {
    process.store.load(id(name)).await.expect("read").expect("it exists").head
}

async fn claimed(process: &Process, claim: Claim) -> Vec<Lease> {
    process.store.claim(claim).await.expect("answered")
}

async fn names(process: &Process, claim: Claim) -> Vec<String> {
    claimed(process, claim).await.into_iter().map(|lease| lease.run.to_string()).collect()
}

/// How many of these runs each tenant has, by the first letter of their names.
fn shares(names: &[String]) -> BTreeMap<char, usize> {
    let mut shares = BTreeMap::new();
    for name in names {
        *shares.entry(name.chars().next().expect("a name")).or_default() += 1;
    }
    shares
}

pub(super) async fn classes_are_claimed_in_order(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let of = [Priority::Low, Priority::Normal, Priority::High];
    for (n, class) in (0..9).zip(of.into_iter().cycle()) {
        one.store.create(of_class(&format!("{n}"), class)).await.expect("created");
    }
    assert_eq!(head(&one, "2").await.priority, Priority::High);
    assert_eq!(names(&one, one.wanted(2, NOW.0)).await, ["2", "5"]);
    assert_eq!(names(&one, one.wanted(3, NOW.0)).await, ["8", "1", "4"], "the next class fills what is left");
    let lowest = Claim { lowest_first: true, ..one.wanted(2, NOW.0) };
    assert_eq!(names(&one, lowest).await, ["0", "3"]);
    assert_eq!(names(&one, one.wanted(9, NOW.0)).await, ["7", "6"]);
}

pub(super) async fn workers_of_a_pool_get_its_runs(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for new in [run("a"), in_pool("b", "gpu"), in_pool("c", "gpu"), in_pool("d", "other")] {
        one.store.create(new).await.expect("created");
    }
    assert_eq!((&*head(&one, "a").await.pool, &*head(&one, "b").await.pool), (POOL_DEFAULT, "gpu"));
    let of = |pools: &[&str]| {
        let pools = pools.iter().map(|pool| Name::from(*pool)).collect();
        Claim { pools, ..one.wanted(9, NOW.0) }
    };
    assert!(names(&one, of(&["unknown"])).await.is_empty());
    assert_eq!(names(&one, of(&["gpu", "unknown"])).await, ["b", "c"]);
    let mut rest = names(&one, of(&["other", POOL_DEFAULT])).await;
    rest.sort();
    assert_eq!(rest, ["a", "d"]);
    let lease = Lease { run: id("b"), epoch: 1, taken_from: None, strikes: 0, priority: Priority::Normal };
    let mut step = park(&lease, &one.worker, 0, Some(2_000));
    step.head.pool = Some("other".into());
    one.apply(step).await;
    assert_eq!(&*head(&one, "b").await.pool, "other", "its next step asks for another pool");
    assert!(names(&one, Claim { now: Timestamp(2_000), ..of(&["gpu"]) }).await.is_empty());
    assert_eq!(one.store.next_due(None).await.expect("read"), None, "it is in the queue of its pool, not due again");
    assert_eq!(head(&one, "b").await.status, Status::Queued);
    assert_eq!(names(&one, of(&["other"])).await, ["b"]);
    let dead = one.worker.clone();
    let two = Process::open(&harness).await;
    drop(one);
    let of_gpu = Claim { pools: vec!["gpu".into()], ..two.wanted(9, NOW.0) };
    let taken = claimed(&two, of_gpu).await;
    assert_eq!(taken.len(), 1, "a dead worker's runs go to workers of their pool");
    assert_eq!((taken[0].run.clone(), taken[0].taken_from.as_ref()), (id("c"), Some(&dead)));
    assert_eq!(two.claim_names(NOW.0).await, ["a", "b", "d"], "a worker without pools serves all of them");
}

pub(super) async fn children_wait_as_their_parent_does(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let queueing = Queueing {
        pool: Some("gpu".into()),
        priority: Some(Priority::Low),
        tags: tags(&[("team", "a"), ("env", "test")]).collect(),
        ..Queueing::default()
    };
    one.store.create(queued("a", queueing)).await.expect("created");
    let lease = one.claim_one(NOW.0).await;
    let mut step = commit(&lease, &one.worker, 0);
    step.head.pool = Some("moved".into());
    let own = Queueing {
        pool: Some("cpu".into()),
        priority: Some(Priority::High),
        tags: tags(&[("team", "b"), ("own", "x")]).collect(),
        queued_max: Some(0),
        ..Queueing::default()
    };
    step.children = vec![child("a~1.0", "a", "a"), NewRun { queueing: own, ..child("a~1.1", "a", "a") }];
    one.apply(step).await;
    let seen = async |name: &str| {
        let head = head(&one, name).await;
        (head.pool.to_string(), head.priority, head.tags.into_iter().collect::<Vec<_>>())
    };
    let inherited: Vec<_> = tags(&[("env", "test"), ("team", "a")]).collect();
    assert_eq!(seen("a~1.0").await, ("gpu".to_owned(), Priority::Low, inherited.clone()));
    let own: Vec<_> = tags(&[("env", "test"), ("own", "x"), ("team", "b")]).collect();
    assert_eq!(seen("a~1.1").await, ("cpu".to_owned(), Priority::High, own.clone()));
    assert_eq!(seen("a").await, ("moved".to_owned(), Priority::Low, inherited));
    one.store.create(child("a~9.9", "a", "a")).await.expect("created");
    one.store.create(child("a~1.1~1.0", "a~1.1", "a")).await.expect("created");
    assert_eq!(seen("a~1.1~1.0").await, ("cpu".to_owned(), Priority::High, own));
    assert_eq!(seen("a~9.9").await.0, "moved");
}

pub(super) async fn a_tenant_with_many_runs_holds_up_nobody(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for from in (0..MANY).step_by(AT_ONCE) {
        let created = (from..from + AT_ONCE).map(|n| one.store.create(of_tenant(&format!("m{n}"), "many")));
        assert!(join_all(created).await.into_iter().all(|created| created.expect("created") == Created::New));
    }
    for n in 0..10 {
        one.store.create(of_tenant(&format!("f{n}"), "few")).await.expect("created");
    }
    let mut single = Vec::new();
    for _ in 0..8 {
        single.extend(names(&one, one.wanted(1, NOW.0)).await);
    }
    let share = shares(&single);
    assert!(share[&'f'] >= 3 && share[&'m'] >= 3, "they take turns: {single:?}");
    let left = 10 - share[&'f'];
    let share = shares(&names(&one, one.wanted(30, NOW.0)).await);
    assert_eq!((share[&'f'], share[&'m']), (left, 30 - left), "in one claim too; who has more gets the rest");
    let rest = names(&one, one.wanted(20, NOW.0)).await;
    assert_eq!(shares(&rest), BTreeMap::from([('m', 20)]));
    let number = |name: &String| name[1..].parse::<u64>().expect("a number");
    assert!(rest.is_sorted_by_key(number), "first come, first served: {rest:?}");
}

pub(super) async fn many_tenants_take_turns(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let tenants: Vec<String> = ('a'..='t').map(String::from).collect();
    for n in 0..3 {
        for tenant in &tenants {
            one.store.create(of_tenant(&format!("{tenant}{n}"), tenant)).await.expect("created");
        }
    }
    let mut served = BTreeMap::new();
    for _ in 0..4 {
        let claim = names(&one, one.wanted(5, NOW.0)).await;
        assert_eq!((claim.len(), shares(&claim).len()), (5, 5), "one of each: {claim:?}");
        for name in shares(&claim).into_keys() {
            *served.entry(name).or_insert(0) += 1;
        }
    }
    assert_eq!(served.len(), 20, "who was served waits for the others: {served:?}");
    let claim = names(&one, one.wanted(40, NOW.0)).await;
    assert_eq!(shares(&claim), tenants.iter().map(|name| (name.chars().next().expect("a letter"), 2)).collect());
}

pub(super) async fn a_tenant_holds_no_more_than_it_may(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    for name in ["a1", "a2", "a3", "a4", "a5", "b1"] {
        one.store.create(of_tenant(name, &name[..1])).await.expect("created");
    }
    one.store
        .create(NewRun {
            queueing: Queueing { priority: Some(Priority::High), ..Queueing::default() },
            ..of_tenant("a6", "a")
        })
        .await
        .expect("created");
    let bounded = |process: &Process, most: u32| Claim { tenant_held_max: Some(most), ..process.wanted(9, NOW.0) };
    assert!(claimed(&one, bounded(&one, 0)).await.is_empty());
    let mut first = claimed(&one, bounded(&one, 2)).await;
    first.sort_by(|a, b| a.run.cmp(&b.run));
    let held: Vec<_> = first.iter().map(|lease| lease.run.as_str()).collect();
    assert_eq!(held, ["a1", "a6", "b1"], "in all classes together");
    assert!(claimed(&two, bounded(&two, 2)).await.is_empty(), "what others hold counts");
    assert_eq!(names(&two, bounded(&two, 3)).await, ["a2"]);
    one.apply(end(&first[0], &one.worker, 0)).await;
    assert!(claimed(&two, bounded(&two, 2)).await.is_empty(), "two are held still");
    one.apply(park(&first[1], &one.worker, 0, None)).await;
    assert_eq!(names(&two, bounded(&two, 2)).await, ["a3"], "a parked run is not held");
    assert_eq!(names(&two, two.wanted(9, NOW.0)).await, ["a4", "a5"], "without a bound");
}

pub(super) async fn a_run_is_not_claimed_before_its_time(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let at = |name: &str, then: u64| {
        queued(name, Queueing { not_before: Some(Timestamp(then)), queued_max: Some(3), ..Queueing::default() })
    };
    for new in [at("later", 5_000), at("past", NOW.0), at("called", 9_000), at("latest", 9_000)] {
        assert_eq!(one.store.create(new).await.expect("created"), Created::New);
    }
    let found = head(&one, "later").await;
    assert_eq!((found.status, found.wake_at, found.version), (Status::Queued, Some(Timestamp(5_000)), 0));
    assert_eq!(one.claim_names(4_999).await, ["past"]);
    assert_eq!(one.store.next_due(None).await.expect("read"), Some(Timestamp(5_000)));
    let queued = Query { statuses: vec![Status::Queued], limit: 9, ..Query::default() };
    assert_eq!(one.store.list(queued).await.expect("listed").heads.len(), 3);
    let running = Query { statuses: vec![Status::Running], limit: 9, ..Query::default() };
    assert_eq!(one.store.list(running).await.expect("listed").heads.len(), 1);
    let mut counted = one.store.stats().await.expect("counted").runs;
    counted.sort();
    assert_eq!(counted, [("queued".to_owned(), 3), ("running".to_owned(), 1)]);
    assert_eq!(one.store.fsck().await.expect("checked"), []);
    one.store.deliver(message("called", "m")).await.expect("delivered");
    assert_eq!(one.claim_names(4_999).await, ["called"], "something came for it");
    assert_eq!(one.claim_names(5_000).await, ["later"]);
    let lease = one.store.take_over(id("latest"), one.worker.clone(), Some(Status::Queued)).await.expect("answered");
    assert_eq!(lease.expect("it may be taken over").epoch, 1);
    assert_eq!(one.store.next_due(None).await.expect("read"), None);
}

pub(super) async fn a_queue_that_is_full_takes_no_more(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let bounded = |name: &str, tenant: &str| {
        let queueing =
            Queueing { queued_max: Some(3), tags: BTreeMap::from([("k".into(), "v".into())]), ..Queueing::default() };
        NewRun { queueing, ..of_tenant(name, tenant) }
    };
    one.store.create(of_tenant("a1", "a")).await.expect("created");
    let mut elsewhere = bounded("a2", "a");
    elsewhere.queueing.pool = Some("gpu".into());
    elsewhere.queueing.priority = Some(Priority::Low);
    for new in [elsewhere, bounded("a3", "a"), bounded("b1", "b")] {
        assert_eq!(one.store.create(new).await.expect("answered"), Created::New);
    }
    assert_eq!(one.store.create(bounded("a4", "a")).await.expect("answered"), Created::Full);
    assert!(one.store.load(id("a4")).await.expect("read").is_none(), "nothing was written");
    let tagged = Query { tags: vec![("k".into(), None)], limit: 9, ..Query::default() };
    assert_eq!(one.store.list(tagged).await.expect("listed").heads.len(), 3);
    assert!(matches!(one.store.create(bounded("a3", "a")).await.expect("answered"), Created::Exists(_)));
    assert_eq!(one.store.create(of_tenant("a5", "a")).await.expect("answered"), Created::New, "it asks for no bound");
    let none = queued("c1", Queueing { queued_max: Some(0), ..Queueing::default() });
    assert_eq!(one.store.create(none).await.expect("answered"), Created::Full);
    let mut leases = claimed(&one, one.wanted(9, NOW.0)).await;
    assert_eq!(leases.len(), 5);
    assert_eq!(one.store.create(bounded("a4", "a")).await.expect("answered"), Created::New, "held runs do not wait");
    let parent = leases.remove(0);
    let mut step = commit(&parent, &one.worker, 0);
    step.children = (0..4)
        .map(|n| {
            let parent = parent.run.as_str();
            let queueing = Queueing { queued_max: Some(3), ..Queueing::default() };
            NewRun { queueing, ..child(&format!("{parent}~1.{n}"), parent, parent) }
        })
        .collect();
    one.apply(step).await;
    assert_eq!(one.claim_all(NOW.0).await.len(), 5, "children are created with their parent's decision in any case");
}

pub(super) async fn the_depth_of_the_queue_is_known(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let worker = one.store.join(Registration::default()).await.expect("joined");
    let before = one.store.beat(worker.clone(), crate::store::Load::default()).await.expect("answered").now;
    for new in [run("a"), run("b"), of_class("c", Priority::High), in_pool("d", "gpu")] {
        one.store.create(new).await.expect("created");
    }
    let depths = async || -> Vec<Depth> {
        let mut depths = one.store.stats().await.expect("counted").queue;
        depths.sort_by(|a, b| (&a.pool, a.priority).cmp(&(&b.pool, b.priority)));
        depths
    };
    let now = one.store.beat(worker, crate::store::Load::default()).await.expect("answered").now;
    let found = depths().await;
    assert!(found.iter().all(|depth| before <= depth.oldest && depth.oldest <= now), "{before:?} {found:?} {now:?}");
    let found: Vec<_> = found.iter().map(|depth| (&*depth.pool, depth.priority, depth.runs)).collect();
    let expected =
        [(POOL_DEFAULT, Priority::High, 1), (POOL_DEFAULT, Priority::Normal, 2), ("gpu", Priority::Normal, 1)];
    assert_eq!(found, expected);
    assert_eq!(one.store.stats().await.expect("counted").held_since, None);
    assert_eq!(one.claim_all(NOW.0).await.len(), 4);
    assert_eq!(depths().await, []);
    let counted = one.store.stats().await.expect("counted");
    assert_eq!(
        (counted.claims, counted.held_since),
        (4, Some(run("a").at)),
        "nothing was recorded since they were made"
    );
    let two = Process::open(&harness).await;
    drop(one);
    two.store.reap().await.expect("answered");
    let counted = two.store.stats().await.expect("counted");
    assert_eq!(counted.held_since, None);
    let found = counted.queue;
    let after = two.store.beat(two.worker.clone(), crate::store::Load::default()).await.expect("answered").now;
    assert!(
        found.iter().all(|depth| before <= depth.oldest && depth.oldest <= after),
        "{before:?} {found:?} {after:?}"
    );
}
