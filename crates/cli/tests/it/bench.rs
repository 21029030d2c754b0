//! Every measurement at a tiny size on both stores: what it counts is right, and what it made is gone afterwards. How
//! fast anything is, is no matter here.
//!
//! Slow on purpose: measurements take their time, and some start real processes.

use serde_json::Value as Json;
use windlass_testpg::Database;

use crate::kit::{Place, Ran};

/// Measures on a store and gives what was found. Nothing is left behind.
fn bench(database: Option<&Database>, args: &[&str]) -> Json {
    let place = Place::new();
    let ran = run(&place, database, args);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    let left: Vec<_> = std::fs::read_dir(place.path("")).expect("the folder").flatten().collect();
    let left: Vec<_> = left.iter().filter(|entry| entry.file_name().to_string_lossy().contains("bench")).collect();
    assert!(left.is_empty(), "{left:?}");
    if let Some(database) = database {
        assert_eq!(database.value("SELECT to_regnamespace('windlass_bench') IS NULL"), "t");
        assert_eq!(database.value("SELECT to_regclass('runs') IS NULL"), "t");
    }
    let found = ran.json();
    assert_eq!(found["store"], if database.is_some() { "postgres" } else { "sqlite" });
    found
}

fn run(place: &Place, database: Option<&Database>, args: &[&str]) -> Ran {
    let url = database.map(Database::url);
    let store: Vec<&str> = url.iter().flat_map(|url| ["--store", url.as_str()]).collect();
    place.windlass(&[&["bench"], args, &["--json"], &store].concat())
}

/// Measures on both stores.
fn on_both(args: &[&str], check: impl Fn(&Json)) {
    let database = windlass_testpg::database();
    for database in [None, Some(&database)] {
        let found = bench(database, args);
        assert_eq!(found["bench"], args[0], "{found}");
        check(&found);
    }
}

fn number(found: &Json, name: &str) -> f64 {
    found[name].as_f64().unwrap_or_else(|| panic!("no number `{name}` in {found}"))
}

#[test]
fn steps_are_counted_beside_a_floor_of_the_same_store() {
    on_both(&["floor", "--duration", "200ms", "--concurrency", "4"], |found| {
        assert!(number(found, "steps_per_second") > 0.0);
    });
    let args = ["steps", "--steps", "3", "--concurrency", "8", "--duration", "300ms", "--workers", "2"];
    on_both(&args, |found| {
        assert!(number(found, "steps_per_second") > 0.0 && number(found, "runs") > 0.0, "{found}");
        let ratio = number(found, "steps_per_second") / number(found, "floor_steps_per_second");
        assert!((number(found, "floor_ratio") - ratio).abs() < 0.02, "{found}");
        assert_eq!(found["encrypted"], false, "{found}");
    });
    on_both(&[&args[..], &["--encrypted"]].concat(), |found| {
        assert!(number(found, "steps_per_second") > 0.0 && number(found, "runs") > 0.0, "{found}");
        assert_eq!(found["encrypted"], true, "{found}");
    });
}

#[test]
fn calls_with_everything_on_are_timed_beside_calls_with_nothing_on() {
    let args = ["governed", "--runs", "2", "--calls", "3", "--floor", "100ms"];
    on_both(&args, |found| {
        assert_eq!(number(found, "calls"), 9.0, "those of the first run only warm up, those of the last are counted");
        let added = number(found, "p50_ms") - number(found, "plain_p50_ms");
        assert!((number(found, "added_p50_ms") - added).abs() < 0.01, "{found}");
        assert!(number(found, "statements_per_commit") <= 3.0, "{found}");
    });
    on_both(&[&args[..], &["--binding"]].concat(), |found| {
        assert_eq!((&found["binding"], number(found, "calls")), (&Json::Bool(true), 9.0), "{found}");
        let [with, plain] = ["transactions_per_call", "plain_transactions_per_call"].map(|name| number(found, name));
        assert!(number(found, "draws_per_call") >= 2.0, "each call draws, and each question to the model: {found}");
        assert!(number(found, "plain_draws_per_call") < 2.0 && with > plain + 2.0, "{found}");
    });
    let steps = ["steps", "--governed", "--steps", "3", "--concurrency", "4", "--duration", "200ms", "--no-floor"];
    on_both(&steps, |found| {
        assert_eq!((&found["governed"], number(found, "runs") > 0.0), (&Json::Bool(true), true), "{found}");
    });
}

#[test]
fn every_run_of_a_steady_load_is_timed() {
    let args = ["latency", "--steps", "2", "--rate", "50", "--duration", "400ms", "--workers", "2"];
    on_both(&args, |found| {
        assert_eq!(number(found, "runs"), 20.0);
        assert!(number(found, "p99_ms") >= number(found, "p50_ms"));
        assert!(number(found, "claim_to_decision_p99_ms") > 0.0);
        assert_eq!(found["capacity_runs_per_second"], Json::Null);
    });
    let found = bench(None, &["latency", "--steps", "2", "--duration", "200ms", "--concurrency", "4"]);
    assert!(number(&found, "capacity_runs_per_second") > 0.0, "{found}");
}

#[test]
fn a_fan_out_counts_the_commits_of_each_child() {
    on_both(&["fan-out", "--children", "12", "--times", "2", "--workers", "2"], |found| {
        assert!(number(found, "p50_ms") > 0.0);
        let commits = number(found, "commits_per_child");
        assert!((2.0..4.0).contains(&commits), "a child decides twice, its parent adds to that: {found}");
    });
}

#[test]
fn the_runs_of_killed_workers_complete_and_nothing_settled_is_repeated() {
    let args = ["recovery", "--runs", "6", "--steps", "3", "--step-time", "20ms", "--kills", "2"];
    on_both(&args, |found| {
        assert_eq!(number(found, "recovered_percent"), 100.0, "{found}");
        assert_eq!(number(found, "recovered"), number(found, "in_flight"));
        assert!(number(found, "in_flight") > 0.0, "{found}");
        assert_eq!(number(found, "settled_steps_repeated"), 0.0, "{found}");
        assert!(number(found, "p50_ms") > 0.0);
    });
}

#[test]
fn parked_runs_are_all_resumed_after_a_restart() {
    on_both(&["park", "--runs", "40", "--watch", "50ms", "--signal"], |found| {
        for name in ["runs", "signals_delivered", "completed"] {
            assert_eq!(number(found, name), 40.0, "{found}");
        }
        assert_eq!((number(found, "lost"), number(found, "duplicated")), (0.0, 0.0), "{found}");
        assert!(number(found, "worker_rss_mb") > 0.0);
    });
}

#[test]
fn workers_without_work_are_watched() {
    let args = ["idle", "--workers", "2", "--duration", "300ms"];
    assert_eq!(bench(None, &args)["queries_per_second_per_worker"], Json::Null);
    on_both(&args, |found| {
        assert!(number(found, "cpu_percent_max") >= number(found, "cpu_percent_per_worker"), "{found}");
    });
}

#[test]
fn a_surge_is_refused_in_part_and_what_was_accepted_completes() {
    let args = [
        "surge",
        "--factor",
        "20",
        "--duration",
        "1s",
        "--queue",
        "2",
        "--slots",
        "2",
        "--steps",
        "2",
        "--step-time",
        "20ms",
    ];
    on_both(&args, |found| {
        let [offered, accepted, shed] = ["offered", "accepted", "shed"].map(|name| number(found, name));
        assert_eq!(offered, accepted + shed, "{found}");
        assert!(accepted > 0.0 && shed > 0.0, "{found}");
        assert_eq!(number(found, "completed"), accepted, "{found}");
        assert_eq!((number(found, "lost"), number(found, "ended_twice")), (0.0, 0.0), "{found}");
    });
}

#[test]
fn processes_are_started_one_after_another() {
    assert!(number(&bench(None, &["start", "--times", "2"]), "p50_ms") > 0.0);
}

#[test]
fn a_store_of_somebodys_runs_is_not_measured() {
    let place = Place::new();
    let ran = place.windlass(&["bench", "floor", "--store", "sqlite:mine.db"]);
    assert_eq!(ran.code(), 2, "{}", ran.shown());
    assert!(ran.stderr().contains("--dir"), "{}", ran.shown());
    let database = windlass_testpg::database();
    let url = database.url();
    let made = place.windlass(&["run", "waits.yml", "--input", r#"{"order":1}"#, "--detach", "--store", &url]);
    assert_eq!(made.code(), 0, "{}", made.shown());
    let refused = run(&place, Some(&database), &["steps", "--duration", "100ms"]);
    assert_eq!(refused.code(), 2, "{}", refused.shown());
    assert!(refused.stderr().contains("it holds runs already"), "{}", refused.shown());
    assert_eq!(database.value("SELECT count(*) FROM runs"), "1");
    assert_eq!(database.value("SELECT to_regnamespace('windlass_bench') IS NULL"), "t");
}

#[test]
fn a_tenant_with_a_few_runs_does_not_wait_for_one_with_many() {
    let args = ["fairness", "--runs", "600", "--few", "5", "--slots", "2", "--step-time", "5ms"];
    on_both(&args, |found| {
        assert_eq!((number(found, "runs_of_many"), number(found, "runs_of_few")), (600.0, 5.0), "{found}");
        assert!(number(found, "p99_ms") >= number(found, "alone_ms"), "{found}");
        assert!(number(found, "of_many_meanwhile") < 200.0, "{found}");
    });
}
