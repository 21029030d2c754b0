//! Short runs of chaos with real worker processes: clean on the stores as they are, and found out on stores that break a
//! promise on purpose.

mod broken;
mod worker;
mod zombie;

use std::sync::Arc;
use std::time::Duration;

use windlass::wire;
use windlass_chaos::plan::Kind;
use windlass_chaos::{Cast, Options, Report, Scene, Verdict, machine};
use windlass_spec::source::MemoryFiles;

use broken::Breach;

/// A short run of chaos on a store. `breach` is what its workers' store breaks.
async fn chaos(url: &str, options: Options, breach: Option<Breach>) -> Report {
    chaos_by(url, options, worker::spawn(breach, false)).await
}

/// The same with workers started this way.
async fn chaos_by(url: &str, options: Options, spawn: windlass_chaos::Spawn) -> Report {
    chaos_of(&machine::tools(), url, options, spawn).await
}

/// The same with other contracts of the tools.
async fn chaos_of(tools: &str, url: &str, options: Options, spawn: windlass_chaos::Spawn) -> Report {
    let folder = tempfile::tempdir().expect("a folder");
    let wiring = worker::wiring(tools);
    let catalog = wiring.catalog().expect("the catalog");
    let files = machine::documents().into_iter().fold(MemoryFiles::new(), |files, (path, text)| files.with(path, text));
    let load_options =
        windlass_spec::LoadOptions { tools: wire::contracts(&catalog), strict: true, ..Default::default() };
    let loaded = windlass_spec::load(&files, machine::ENTRY, &load_options).unwrap_or_else(|found| panic!("{found:?}"));
    let scene = Scene {
        store_url: url.to_owned(),
        store: wire::open_store(url).await.expect("the store"),
        engine: Box::new(|store| worker::engine(store, &windlass::wire::Wiring::default())),
        spawn,
        folder: folder.path().to_owned(),
        database: None,
    };
    let cast = Cast::shipped(loaded.bundle, Arc::clone(&loaded.program));
    windlass_chaos::run(cast, scene, options, &|_| {}).await.expect("chaos can be made")
}

/// Slow on purpose: faults need work that is in flight when they land.
fn short(kinds: &[Kind]) -> Options {
    Options {
        seed: 7,
        runs: 150,
        duration: Duration::from_secs(10),
        every: Duration::from_millis(600),
        kinds: kinds.to_vec(),
        lease: Duration::from_secs(1),
        delay_ms: (100, 400),
        ..Options::default()
    }
}

fn rules(report: &Report) -> Vec<&str> {
    let mut rules: Vec<&str> = report.violations.iter().map(|violation| &*violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

/// A run that says something: on a busy host too few faults may meet work, and then it is made again. A broken promise is
/// never tried again.
async fn conclusive(run: impl AsyncFn() -> Report) -> Report {
    let mut report = run().await;
    for _ in 0..2 {
        if !matches!(report.verdict, Verdict::Inconclusive { .. }) {
            break;
        }
        report = run().await;
    }
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_its_promises() {
    let report = conclusive(async || {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("store.db").display());
        chaos(&url, short(&[Kind::Kill, Kind::Stop, Kind::Restart]), None).await
    });
    let report = report.await;
    assert_eq!(report.verdict, Verdict::Good, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_keeps_its_promises() {
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Database).collect();
    let report = conclusive(async || {
        let database = windlass_testpg::database();
        chaos(&database.url(), short(&kinds), None).await
    });
    let report = report.await;
    assert_eq!(report.verdict, Verdict::Good, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_forgets_what_was_sent_is_found_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("store.db").display());
    let report = chaos(&url, short(&[Kind::Kill]), Some(Breach::ForgetsSent)).await;
    assert_eq!(report.verdict, Verdict::Broken, "{report}");
    assert!(rules(&report).contains(&"effect"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_waits_for_a_person_is_a_finding_unless_it_may() {
    let folder = tempfile::tempdir().expect("a folder");
    // Nobody can tell whether a call that was out when its worker died has happened, so somebody is asked.
    let tools = machine::tools().replace("{ verify = \"happened\" }", "\"ask\"");
    for may_park in [false, true] {
        let url = format!("sqlite:{}", folder.path().join(format!("{may_park}.db")).display());
        let options = Options { may_park, completed_min: 0, ..short(&[Kind::Kill]) };
        let report = chaos_of(&tools, &url, options, worker::spawn(None, false)).await;
        assert!(report.runs.attention > 0, "{report}");
        assert!(report.waits.keys().any(|why| why.contains("whose `on_unknown` is to ask")), "{report}");
        let expected = if may_park { &[][..] } else { &["person"] };
        assert_eq!(rules(&report), expected, "{report}");
    }
}

/// One worker sleeps through its lease with a decision in its hand, and wakes well after another one has the run: the only
/// fault, so that nothing depends on a schedule. Runs last long enough to be under way then.
fn one_zombie() -> Options {
    Options { runs: 20, duration: Duration::from_secs(3), delay_ms: (400, 600), ..short(&[]) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_a_fence_is_found_out() {
    let mut tried = Vec::new();
    // On a busy host the other worker may be done with the run before the zombie wakes: it has nothing left to spoil then.
    for _ in 0..3 {
        let database = windlass_testpg::database();
        let spawn = worker::spawn(Some(Breach::NoFence), true);
        let report = chaos_by(&database.url(), one_zombie(), spawn).await;
        if report.verdict == Verdict::Broken {
            let rules = rules(&report);
            assert!(rules.iter().any(|rule| ["fence", "zombie", "legal_path"].contains(rule)), "{report}");
            return;
        }
        tried.push(report.to_string());
    }
    panic!("{}", tried.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_slept_through_its_lease_changes_nothing_where_there_is_a_fence() {
    let database = windlass_testpg::database();
    let report = chaos_by(&database.url(), one_zombie(), worker::spawn(None, true)).await;
    assert_eq!(rules(&report), [""; 0], "{report}");
    assert!(report.recoveries.taken_over > 0, "another one had its runs: {report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_chaos_that_does_not_hurt_says_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("store.db").display());
    let options = Options { runs: 1, duration: Duration::from_secs(1), ..short(&[Kind::Kill]) };
    let report = chaos(&url, Options { every: Duration::from_secs(2), ..options }, None).await;
    assert!(matches!(report.verdict, Verdict::Inconclusive { .. }), "{report}");
}
