//! Cases: finding runs by words, tenants, pools and times.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_core::ids::Name;
use windlass_core::time::Timestamp;

use super::Harness;
use super::setup::{NOW, Process, child, commit, end, id, run};
use crate::store::{NewRun, Query, Queueing, Retention};

type Tags<'a> = &'a [(&'a str, &'a str)];

fn tagged(text: &str, tags: Tags<'_>) -> NewRun {
    let tags: BTreeMap<Name, Name> = tags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    NewRun { queueing: Queueing { tags, ..Queueing::default() }, ..run(text) }
}

fn with(tags: &[(&str, Option<&str>)]) -> Query {
    let tags = tags.iter().map(|(key, value)| ((*key).into(), value.map(Name::from))).collect();
    Query { tags, ..Query::default() }
}

/// Runs found, page by page.
async fn found(one: &Process, query: Query) -> Vec<String> {
    let (mut names, mut cursor) = (Vec::new(), None);
    loop {
        let page = one.store.list(Query { cursor, limit: 2, ..query.clone() }).await.expect("listed");
        names.extend(page.heads.into_iter().map(|head| head.id.to_string()));
        cursor = page.next;
        if cursor.is_none() {
            return names;
        }
    }
}

pub(super) async fn runs_are_found_by_their_tags(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let hostile = ("key ' \" \\ %", "value \u{1} ä 🦀 ' ; --");
    for (name, tags) in [
        ("a", &[("team", "x"), ("env", "test")] as Tags<'_>),
        ("b", &[("team", "x"), ("env", "live")]),
        ("c", &[("team", "y"), hostile]),
        ("d", &[]),
        ("e", &[("team", "x"), ("env", "test"), ("", "")]),
    ] {
        one.store.create(tagged(name, tags)).await.expect("created");
    }
    assert_eq!(found(&one, with(&[("team", Some("x"))])).await, ["e", "b", "a"]);
    assert_eq!(found(&one, with(&[("team", None)])).await, ["e", "c", "b", "a"], "whatever its value");
    assert_eq!(found(&one, with(&[("team", Some("x")), ("env", Some("test"))])).await, ["e", "a"], "all of them");
    assert_eq!(found(&one, with(&[("env", None), ("team", Some("y"))])).await, [""; 0]);
    assert_eq!(found(&one, with(&[("team", Some("X"))])).await, [""; 0]);
    assert_eq!(found(&one, with(&[("", Some(""))])).await, ["e"]);
    assert_eq!(found(&one, with(&[(hostile.0, Some(hostile.1))])).await, ["c"]);
    let loaded = one.store.load(id("c")).await.expect("read").expect("it exists").head;
    assert_eq!(loaded.tags.get(hostile.0).map(|value| &**value), Some(hostile.1));
    assert_eq!(one.store.fsck().await.expect("checked"), []);
}

pub(super) async fn runs_are_found_by_tenant_pool_and_time(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for (name, tenant, pool, at) in
        [("a", "t", "default", 10), ("b", "u", "gpu", 20), ("c", "t", "gpu", 30), ("d", "t", "gpu", 40)]
    {
        let mut new = NewRun { at: Timestamp(at), ..run(name) };
        new.start.scope.tenant = tenant.into();
        new.queueing.pool = Some(pool.into());
        one.store.create(new).await.expect("created");
    }
    let tenant = |name: &str| Query { tenant: Some(name.into()), ..Query::default() };
    assert_eq!(found(&one, tenant("t")).await, ["d", "c", "a"]);
    assert_eq!(found(&one, tenant("nobody")).await, [""; 0]);
    assert_eq!(found(&one, Query { pool: Some("gpu".into()), ..tenant("t") }).await, ["d", "c"]);
    assert_eq!(found(&one, Query { pool: Some("unknown".into()), ..Query::default() }).await, [""; 0]);
    let between = Query { created_from: Some(Timestamp(20)), created_before: Some(Timestamp(40)), ..Query::default() };
    assert_eq!(found(&one, between).await, ["c", "b"], "from the first on, up to the second without it");
}

pub(super) async fn prune_goes_by_tags(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for (name, tags) in [("a", &[("env", "test")] as Tags<'_>), ("b", &[("env", "live")]), ("c", &[])] {
        one.store.create(tagged(name, tags)).await.expect("created");
        let lease = one.claim_one(NOW.0).await;
        let mut step = commit(&lease, &one.worker, 0);
        step.children = vec![child(&format!("{name}~1.0"), name, name)];
        one.apply(step).await;
        one.apply(end(&lease, &one.worker, 1)).await;
        let lease = one.claim_one(NOW.0).await;
        one.apply(end(&lease, &one.worker, 0)).await;
    }
    let of =
        |value: Option<&str>| Retention { tags: vec![("env".into(), value.map(Name::from))], ..Retention::default() };
    assert_eq!(one.store.prune(of(Some("nothing"))).await.expect("pruned").runs, 0);
    let dry = Retention { dry_run: true, ..of(None) };
    assert_eq!(one.store.prune(dry).await.expect("reported").runs, 4);
    assert_eq!(one.store.prune(of(Some("test"))).await.expect("pruned").runs, 2, "whole trees");
    assert_eq!(found(&one, with(&[("env", None)])).await, ["b~1.0", "b"]);
    assert_eq!(one.store.prune(of(None)).await.expect("pruned").runs, 2);
    assert_eq!(found(&one, Query::default()).await, ["c~1.0", "c"]);
    assert_eq!(one.store.fsck().await.expect("checked"), [], "no tag is left behind");
}
