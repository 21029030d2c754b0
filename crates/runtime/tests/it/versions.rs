//! Published versions over the store in memory: races of publishers, deaths at every request, names that move, and runs that
//! say what they were decided under.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::basis::Basis;
use windlass_core::ids::Digest;
use windlass_core::journal::{Entry, Record};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::{Put, Store};
use windlass_runtime::versions::{NOTE_BYTES_MAX, Pointer, Reference, SOURCES_BYTES_MAX, Sources};
use windlass_runtime::{Parts, Publication, Published, Settings, VersionError, Versions};

use crate::interleaved::Interleaved;
use crate::kit::{Kit, done, tree};
use crate::signals::waiting;

fn publication(text: &str) -> Publication {
    let files = BTreeMap::from([("m.yml".to_owned(), text.to_owned())]);
    Publication {
        name: "triage".into(),
        sources: Sources { entry: "m.yml".into(), files, skills: BTreeMap::new() },
        machine: "m".into(),
        agents: BTreeMap::new(),
        note: "".into(),
        by: "ann".into(),
        at: Timestamp(1),
    }
}

fn versions(kit: &Kit) -> Versions {
    Versions::new(Arc::new(kit.store.another()))
}

async fn new(versions: &Versions, text: &str) -> u64 {
    match versions.publish(publication(text)).await.expect("published") {
        Published::New(version) => version.number,
        Published::Same(version) => panic!("{} has this content", version.id()),
    }
}

/// Every version of the name with its text, the lowest first, and where the name points.
async fn all(versions: &Versions) -> (Vec<(u64, String)>, u64) {
    let (pointer, page) = versions.of_name("triage", None, 100).await.expect("versions");
    let mut found = Vec::new();
    for version in page.found.iter().rev() {
        let sources = versions.sources(version).await.expect("sources");
        found.push((version.number, sources.files["m.yml"].clone()));
    }
    let numbers: Vec<u64> = found.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=pointer.latest).collect::<Vec<_>>(), "each number is there once");
    (found, pointer.current)
}

#[tokio::test]
async fn publishers_at_one_moment_get_a_number_each() {
    for seed in 0..200 {
        let kit = Kit::new();
        let all_of_them: Vec<Versions> =
            (0..3).map(|i| Versions::new(Arc::new(Interleaved::new(kit.store.another(), seed * 3 + i)))).collect();
        let [a, b, c] = [0, 1, 2].map(|i| all_of_them[i].publish(publication(&format!("text {i}"))));
        let (a, b, c) = tokio::join!(a, b, c);
        let mut told = Vec::new();
        for (i, published) in [a, b, c].into_iter().enumerate() {
            match published.expect("published") {
                Published::New(version) => told.push((version.number, format!("text {i}"))),
                Published::Same(version) => panic!("seed {seed}: {} has this content", version.id()),
            }
        }
        told.sort();
        assert_eq!(all(&versions(&kit)).await, (told, 3), "seed {seed}");
    }
}

#[tokio::test]
async fn publishers_of_the_same_make_one_version() {
    for seed in 0..100 {
        let kit = Kit::new();
        let two: Vec<Versions> =
            (0..2).map(|i| Versions::new(Arc::new(Interleaved::new(kit.store.another(), seed * 2 + i)))).collect();
        let (a, b) = tokio::join!(two[0].publish(publication("text")), two[1].publish(publication("text")));
        let mut made: Vec<bool> =
            [a, b].into_iter().map(|one| matches!(one.expect("published"), Published::New(_))).collect();
        made.sort_unstable();
        assert_eq!(made, [false, true], "seed {seed}");
        assert_eq!(all(&versions(&kit)).await, (vec![(1, "text".into())], 1), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_dies_at_any_request_leaves_a_version_or_none() {
    let mut seen = std::collections::BTreeSet::new();
    for at in 0.. {
        let kit = Kit::new();
        let others = versions(&kit);
        assert_eq!(new(&others, "first").await, 1);
        let store = Arc::new(Interleaved::hanging(kit.store.another(), at));
        let dies = Versions::new(Arc::clone(&store) as Arc<dyn Store>);
        let ended = tokio::time::timeout(Duration::from_secs(1), dies.publish(publication("lost"))).await;
        assert_eq!(ended.is_err(), store.hung(), "point {at}");
        let next = new(&others, "next").await;
        let (found, current) = all(&others).await;
        assert_eq!((current, found.last()), (next, Some(&(next, "next".to_owned()))), "point {at}");
        let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
        assert!(texts == ["first", "next"] || texts == ["first", "lost", "next"], "point {at}: {texts:?}");
        seen.insert(texts.len());
        if !store.hung() {
            assert!(at > 8 && seen.len() == 2, "{at} {seen:?}");
            break;
        }
    }
}

#[tokio::test]
async fn a_name_is_moved_back_and_on_and_only_to_what_there_is() {
    let kit = Kit::new();
    let versions = versions(&kit);
    let nothing = versions.rollback("triage", None, "ann", Timestamp(5)).await;
    assert!(matches!(nothing, Err(VersionError::Unknown(_))), "{nothing:?}");
    for text in ["one", "two", "three"] {
        new(&versions, text).await;
    }
    let moved = async |to| {
        let (from, pointer) = versions.rollback("triage", to, "bob", Timestamp(5)).await.expect("moved");
        (from, pointer.current, pointer.latest)
    };
    assert_eq!(moved(None).await, (3, 2, 3));
    assert_eq!(moved(None).await, (2, 1, 3));
    let first = versions.rollback("triage", None, "bob", Timestamp(5)).await;
    assert!(matches!(first, Err(VersionError::First(_))), "{first:?}");
    new(&versions, "four").await;
    assert_eq!(moved(None).await, (4, 1, 4), "what it meant before, and none that was taken back");
    assert_eq!(moved(Some(3)).await, (1, 3, 4));
    for wrong in [0, 5] {
        let none = versions.rollback("triage", Some(wrong), "bob", Timestamp(5)).await;
        assert!(matches!(none, Err(VersionError::NoVersion { latest: 4, .. })), "{none:?}");
    }
    assert_eq!(moved(Some(2)).await, (3, 2, 4));
    let same = versions.publish(publication("two")).await.expect("nothing to do");
    assert!(matches!(&same, Published::Same(version) if version.number == 2), "{same:?}");
    assert_eq!(new(&versions, "three").await, 5, "what the name does not mean is published");
    let find = async |number| {
        let found = versions.find(&Reference { name: "triage".into(), number }).await;
        found.map(|version| version.number).map_err(|error| error.to_string())
    };
    assert_eq!((find(None).await, find(Some(1)).await), (Ok(5), Ok(1)));
    assert_eq!(find(Some(6)).await, Err("`triage` has no version 6: the highest is 5".into()));
}

#[tokio::test]
async fn what_cannot_be_published_is_refused_and_pages_go_on_where_the_last_ended() {
    let kit = Kit::new();
    let versions = versions(&kit);
    let refused = async |change: fn(&mut Publication)| {
        let mut wrong = publication("text");
        change(&mut wrong);
        versions.publish(wrong).await.expect_err("refused").to_string()
    };
    assert!(refused(|new| new.name = "a b".into()).await.contains("cannot name versions"));
    assert!(refused(|new| new.by = " ".into()).await.contains("by somebody"));
    assert!(refused(|new| new.note = "x".repeat(NOTE_BYTES_MAX + 1).into()).await.contains("at most 1000 bytes"));
    assert!(refused(|new| new.note = "\u{1b}[2J".into()).await.contains("control characters"));
    let large = refused(|new| _ = new.sources.files.insert("l".into(), "x".repeat(SOURCES_BYTES_MAX))).await;
    assert!(large.contains("a version takes at most"), "{large}");
    assert!(versions.names(None, 10).await.expect("names").found.is_empty());

    for name in ["a", "b", "c"] {
        versions.publish(Publication { name: name.into(), ..publication("text") }).await.expect("published");
    }
    let page = versions.names(None, 2).await.expect("names");
    assert_eq!((page.found.iter().map(|one| &*one.name).collect::<Vec<_>>(), page.more), (vec!["a", "b"], true));
    let rest = versions.names(Some("b".into()), 2).await.expect("names");
    assert_eq!((rest.found.len(), rest.more), (1, false));
    for i in 0..25 {
        new(&versions, &format!("text {i}")).await;
    }
    let (mut below, mut seen) = (None, Vec::new());
    loop {
        let (_, page) = versions.of_name("triage", below, 10).await.expect("versions");
        seen.extend(page.found.iter().map(|version| version.number));
        below = seen.last().copied();
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, (1..=25).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn sources_that_were_changed_in_the_store_are_not_given() {
    let kit = Kit::new();
    let versions = versions(&kit);
    new(&versions, "one").await;
    new(&versions, "two").await;
    let first = versions.find(&Reference { name: "triage".into(), number: Some(1) }).await.expect("found");
    let (kind, key) = ("machine_sources".into(), first.sources.to_string().into());
    let bytes = Some(publication("other").sources.encode());
    assert!(kit.store.put_object(Put { kind, key, expected: 1, bytes }).await.expect("changed"));
    assert!(matches!(versions.sources(&first).await, Err(VersionError::Damaged(_))));
    let back = versions.rollback("triage", None, "ann", Timestamp(5)).await;
    assert!(matches!(back, Err(VersionError::Damaged(_))), "a name never points at what cannot be run: {back:?}");
    versions.publish(publication("one")).await.expect("published");
    versions.sources(&first).await.expect("whoever publishes them again mends them");
}

#[tokio::test]
async fn what_is_wrong_with_versions_is_found() {
    let kit = Kit::new();
    let versions = versions(&kit);
    assert_eq!(versions.check().await.expect("checked"), []);
    for text in ["one", "two", "three"] {
        new(&versions, text).await;
    }
    assert_eq!(versions.check().await.expect("checked"), []);
    let found = || async {
        let findings = versions.check().await.expect("checked");
        assert!(findings.iter().all(|finding| &*finding.rule == "version" && finding.run.is_none()), "{findings:?}");
        findings.into_iter().map(|finding| finding.message).collect::<Vec<_>>()
    };
    // Puts something else in the place of an object, or nothing, and gives back what was there.
    let exchange = |kind: &'static str, key: String, bytes: Option<Vec<u8>>| {
        let store = kit.store.another();
        async move {
            let object = store.object(kind.into(), key.as_str().into()).await.expect("read").expect("there");
            let put = Put { kind: kind.into(), key: key.as_str().into(), expected: object.revision, bytes };
            assert!(store.put_object(put).await.expect("changed"));
            object.bytes
        }
    };
    let first = versions.find(&Reference { name: "triage".into(), number: Some(1) }).await.expect("found");
    exchange("machine_sources", first.sources.to_string(), Some(b"other".to_vec())).await;
    let damaged = found().await;
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert!(damaged[0].contains("the sources of `triage@1`") && damaged[0].contains(&first.sources.to_string()));
    exchange("machine_sources", first.sources.to_string(), None).await;
    assert_eq!(found().await, damaged, "one that is gone is as bad");
    versions.publish(Publication { name: "copy".into(), ..publication("one") }).await.expect("published");
    assert_eq!(found().await, [""; 0], "it is put back under another name too");

    let second = exchange("machine_version", "triage@0000000002".into(), Some(b"{".to_vec())).await;
    let unread = found().await;
    assert!(unread[0].contains("`triage@0000000002` cannot be read"), "{unread:?}");
    assert_eq!(unread[1..], ["version 2 of `triage` is gone, and it has 3"]);
    exchange("machine_version", "triage@0000000002".into(), Some(second.clone())).await;
    exchange("machine_version", "triage@0000000003".into(), Some(second)).await;
    let moved = found().await;
    assert!(moved[0].contains("`triage@0000000003` says that it is `triage@2`"), "{moved:?}");
    let pointer = versions.pointer("copy").await.expect("found");
    let beyond = serde_json::to_vec(&Pointer { current: 7, ..pointer }).expect("JSON");
    exchange("machine_name", "copy".into(), Some(beyond)).await;
    assert!(found().await.contains(&"`copy` points at version 7, and it has 1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_run_says_what_it_was_decided_under_and_when_that_changed() {
    let mut kit = Kit::new();
    kit.machine("main", vec![waiting("w", "c", None, "x"), waiting("x", "d", None, "done"), done()]);
    let under = |config: &[u8]| {
        let parts = kit.another().parts().clone();
        let basis = Some(Basis { config: Some(Digest::of(config)), ..Basis::default() });
        windlass_runtime::Engine::new(Parts { settings: Settings { basis, ..parts.settings.clone() }, ..parts })
    };
    let first = under(b"a");
    let run = kit.submit(&first, "r").await;
    tree(&first, &run).await;
    kit.signal("c", Value::Null).await;
    tree(&first, &run).await;
    kit.signal("d", Value::Null).await;
    tree(&under(b"b"), &run).await;
    let rows = kit.store.journal(run.clone(), 0, 100).await.expect("journal");
    let mut told = Vec::new();
    for row in &rows {
        for entry in Record::decode(&row.bytes).expect("a record").entries {
            if let Entry::Decided { input, basis, .. } = entry {
                told.push((input.to_string(), basis.and_then(|basis| basis.config)));
            }
        }
    }
    let known: Vec<_> = told.iter().filter(|(_, config)| config.is_some()).cloned().collect();
    let [a, b] = [b"a", b"b"].map(|config| Some(Digest::of(config)));
    assert_eq!(known, [("started".to_owned(), a), ("signalled".to_owned(), b)], "{told:?}");
    assert!(told.len() > 2, "a decision under what is known says nothing: {told:?}");
    kit.fsck().await;
}
