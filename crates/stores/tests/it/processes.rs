//! Several processes on one file: all work, none gets in another's way, and a killed one is replaced at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{Sender, channel};

use windlass_core::ids::{Digest, RunId};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::store::{NewRun, Query, Store};
use windlass_stores::{Options, SqliteStore};

use crate::child;

const RUNS: usize = 150;
const WORKERS: usize = 4;
const KILLS: usize = 8;

/// Starts a worker and sends on what it tells; none when it has ended.
fn start_worker(path: &std::path::Path, number: usize, told: &Sender<(usize, Option<String>)>) -> Child {
    let mut worker = child::command("work", path).spawn().expect("a process starts");
    let out = worker.stdout.take().expect("its output");
    let told = told.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            // The test may have failed and gone.
            let _gone = told.send((number, Some(line)));
        }
        let _gone = told.send((number, None));
    });
    worker
}

#[test]
fn killed_processes_lose_nothing_and_are_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("windlass.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = runtime.block_on(async {
        let store = SqliteStore::open(&path, Options::default()).await.expect("it opens");
        store.put_bundle(Digest::of(b"bundle"), b"bundle".to_vec()).await.expect("stored");
        for n in 0..RUNS {
            let start = child::start(&format!("r{n}"));
            store.create(NewRun::new(start, Timestamp(0))).await.expect("created");
        }
        store
    });
    let (told, hear) = channel();
    let mut workers: BTreeMap<usize, Child> =
        (0..WORKERS).map(|number| (number, start_worker(&path, number, &told))).collect();
    let (mut acknowledged, mut heard, mut kills) = (Vec::new(), 0, 0);
    while !workers.is_empty() {
        let (number, line) = hear.recv().expect("a worker tells something");
        match line {
            Some(line) if line.split(' ').count() == 3 && line.contains(" w-") => {
                acknowledged.push(line);
                heard += 1;
                if heard % 60 == 0 && kills < KILLS && workers.contains_key(&number) {
                    // In the middle of its work, as it has just told.
                    workers.get_mut(&number).expect("a worker").kill().expect("killed");
                    kills += 1;
                    let next = 1_000 + kills;
                    workers.insert(next, start_worker(&path, next, &told));
                }
            }
            // A line of the test harness, or one cut off by the death of its process.
            Some(_) => {}
            None => {
                let mut ended = workers.remove(&number).expect("a worker that was started");
                ended.wait().expect("it has ended");
            }
        }
    }
    assert_eq!(kills, KILLS, "enough processes were killed at work");
    runtime.block_on(async {
        let page = store.list(Query { limit: RUNS * 2, ..Query::default() }).await.expect("listed");
        assert_eq!(page.heads.len(), RUNS);
        assert!(page.heads.iter().all(|head| head.status == Status::Completed && head.version == 5));
        let taken_over = page.heads.iter().filter(|head| head.epoch > 1).count();
        assert!(taken_over > 0, "runs of killed processes were taken over");
        let mut writers = BTreeSet::new();
        for line in acknowledged {
            let parts: Vec<_> = line.split(' ').collect();
            let version: u64 = parts[1].parse().expect("a version");
            let rows = store.journal(RunId::stored(parts[0]), version - 1, 1).await.expect("read");
            let expected = format!("{} {version}", parts[2]);
            assert_eq!(String::from_utf8_lossy(&rows[0].bytes), expected, "what was acknowledged is what is there");
            writers.insert(parts[2].to_owned());
        }
        assert!(writers.len() > WORKERS, "replaced processes worked too: {}", writers.len());
        assert_eq!(store.fsck().await.expect("checked"), []);
    });
}
