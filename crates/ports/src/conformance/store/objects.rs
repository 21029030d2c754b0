//! Cases: small things that are changed by whoever read them last.

use std::sync::Arc;

use futures::future::join_all;

use super::Harness;
use super::setup::Process;
use crate::store::{Object, Put, Store};

/// Times that several writers change the same object at once.
const ROUNDS: u64 = 20;

fn put(key: &str, expected: u64, bytes: Option<&[u8]>) -> Put {
    Put { kind: "schedule".into(), key: key.into(), expected, bytes: bytes.map(Into::into) }
}

async fn read(store: &Arc<dyn Store>, key: &str) -> Option<(u64, Vec<u8>)> {
    let object = store.object("schedule".into(), key.into()).await.expect("read");
    object.map(|object| {
        assert_eq!(&*object.key, key);
        (object.revision, object.bytes)
    })
}

pub(super) async fn an_object_changes_only_as_expected(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let change = async |put: Put| one.store.put_object(put).await.expect("answered");
    assert_eq!(read(&one.store, "a").await, None);
    assert!(!change(put("a", 1, Some(b"x"))).await, "there is none to be replaced");
    assert!(!change(put("a", 1, None)).await);
    assert!(change(put("a", 0, None)).await, "there is none, as expected");
    assert!(change(put("a", 0, Some(b"first"))).await);
    assert_eq!(read(&two.store, "a").await, Some((1, b"first".to_vec())));
    assert!(!change(put("a", 0, Some(b"x"))).await, "there is one");
    assert!(!change(put("a", 0, None)).await);
    assert!(change(put("a", 1, Some(b"\0\xff"))).await);
    assert!(!change(put("a", 1, Some(b"x"))).await, "it was changed since");
    assert!(!change(put("a", 1, None)).await);
    assert!(!change(put("a", 3, Some(b"x"))).await);
    assert_eq!(read(&two.store, "a").await, Some((2, b"\0\xff".to_vec())));
    assert!(change(put("a", 2, Some(b""))).await);
    assert_eq!(read(&two.store, "a").await, Some((3, Vec::new())));
    assert!(change(put("a", 3, None)).await);
    assert_eq!(read(&two.store, "a").await, None);
    assert!(!change(put("a", 3, Some(b"x"))).await, "it was removed since");
    // Whoever still has a revision of the one before in hand does not change the one that came again.
    assert!(change(put("a", 0, Some(b"again"))).await);
    let (again, _) = read(&two.store, "a").await.expect("it exists");
    assert!(again > 3, "revision {again} comes a second time");
    for before in 1..=3 {
        assert!(!change(put("a", before, Some(b"x"))).await && !change(put("a", before, None)).await);
    }
    assert!(change(put("a", again, None)).await && change(put("a", 0, Some(b"third"))).await);
    assert!(read(&one.store, "a").await.is_some_and(|(third, _)| third > again));
}

pub(super) async fn objects_are_listed_by_key(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let keys = ["b", "a/ä ' \" \\ \u{1}", "c", "B", "a"];
    for key in keys {
        assert!(one.store.put_object(put(key, 0, Some(key.as_bytes()))).await.expect("answered"));
    }
    let other = Put { kind: "run key".into(), ..put("a2", 0, Some(b"other")) };
    assert!(one.store.put_object(other).await.expect("answered"));
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    let listed = async |after: Option<&str>, limit: usize| -> Vec<Object> {
        one.store.objects("schedule".into(), after.map(Into::into), limit).await.expect("listed")
    };
    let all = listed(None, 9).await;
    let found: Vec<_> = all.iter().map(|object| &*object.key).collect();
    assert_eq!(found, sorted, "by the bytes of their keys");
    assert!(all.iter().all(|object| object.revision == 1 && object.bytes == object.key.as_bytes()));
    let page: Vec<_> = listed(Some("a"), 2).await.into_iter().map(|object| object.key.to_string()).collect();
    assert_eq!(page, &sorted[2..4]);
    assert!(listed(Some("c"), 9).await.is_empty() && listed(None, 0).await.is_empty());
    let others = one.store.objects("run key".into(), None, 9).await.expect("listed");
    assert_eq!(others.len(), 1);
    assert!(one.store.objects("unknown".into(), None, 9).await.expect("listed").is_empty());
}

pub(super) async fn no_change_of_an_object_is_lost(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    for round in 0..ROUNDS {
        let (revision, bytes) = read(&one.store, "counter").await.unwrap_or_default();
        assert_eq!(revision, round);
        let changes = (0..4).map(|writer| {
            let process = if writer % 2 == 0 { &one } else { &two };
            let next = [&bytes[..], &[writer]].concat();
            process.store.put_object(put("counter", revision, Some(&next)))
        });
        let made = join_all(changes).await.into_iter().map(|made| made.expect("answered"));
        let made: Vec<_> = made.enumerate().filter(|(_, made)| *made).map(|(writer, _)| writer as u8).collect();
        let (_, after) = read(&two.store, "counter").await.expect("it exists");
        assert_eq!((made.len(), after.last()), (1, made.first()), "one of them, and what it wrote is there");
        assert_eq!(after.len() as u64, round + 1);
    }
}
