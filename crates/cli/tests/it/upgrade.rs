//! Old and new programs on one database: a schema that is newer than a program knows is refused clearly, and nothing is
//! touched, and what an earlier schema holds goes on. The newer program is stood in for by the note that it would have
//! left, the older one by stores that it wrote.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use windlass_testpg::database;

use crate::kit::{Place, Ran, command};

const NEWER: &str = "INSERT INTO schema_history (version, name, checksum) VALUES (999, 'of the future', '-')";

fn on(place: &Place, url: &str, args: &[&str]) -> Ran {
    place.windlass(&[args, &["--store", url]].concat())
}

#[test]
fn a_program_refuses_a_newer_schema_and_touches_nothing() {
    let (place, database) = (Place::new(), database());
    let url = database.url();
    let ask = ["run", "asks.yml", "--input", "{}", "--run-id", "old"];
    assert_eq!(on(&place, &url, &ask).code(), 0);
    assert_eq!(on(&place, &url, &["store", "status"]).json()["schema"]["migration_due"], false);
    let _rows = database.execute(NEWER).expect("noted");
    let before = database.value("SELECT sum(version)::text || count(*)::text FROM runs");
    let commands: [&[&str]; 5] = [
        &["store", "status"],
        &["store", "migrate"],
        &["fsck"],
        &["resume", "old"],
        &["run", "asks.yml", "--input", "{}", "--run-id", "new"],
    ];
    for args in commands {
        let ran = on(&place, &url, args);
        assert_eq!(ran.code(), 6, "{args:?}: {}", ran.shown());
        assert!(ran.stderr().contains("schema 999, this build knows up to"), "{args:?}: {}", ran.shown());
        assert!(ran.stderr().contains("use the build that wrote this store, or a newer one"), "{}", ran.shown());
    }
    assert_eq!(database.value("SELECT sum(version)::text || count(*)::text FROM runs"), before);
    let _rows = database.execute("DELETE FROM schema_history WHERE version = 999").expect("back");
    assert_eq!(on(&place, &url, &["resume", "old"]).code(), 0);
}

#[test]
fn a_program_goes_on_with_what_the_migration_of_a_newer_one_may_leave() {
    let (place, database) = (Place::new(), database());
    let url = database.url();
    let parked = on(&place, &url, &["run", "waits.yml", "--input", r#"{"order":7}"#, "--run-id", "w"]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    // Migrations add; what they remove was not used by the release before.
    let _rows = database.execute("ALTER TABLE runs ADD COLUMN of_the_future text").expect("changed");
    let sent = on(&place, &url, &["signal", "approvals/7", "--data", r#"{"approved":true}"#]);
    assert_eq!(sent.code(), 0, "{}", sent.shown());
    let done = on(&place, &url, &["resume", "w"]);
    assert_eq!(done.code(), 0, "{}", done.shown());
    assert_eq!(on(&place, &url, &["fsck"]).json()["ok"], true);
}

/// Stores of schema 1 with a run that has ended, one that waits for a signal, and a schedule.
const SCHEMA_1: [(&str, &[u8]); 2] =
    [("schema-1.db", include_bytes!("fixtures/schema-1.db")), ("schema-1.wl", include_bytes!("fixtures/schema-1.wl"))];

/// What was begun under an older schema goes on, and what had ended reads as before.
fn assert_goes_on(place: &Place, store: &str) {
    assert_eq!(on(place, store, &["resume", "done-1"]).json()["text"], "Tides turn twice a day.");
    assert_eq!(on(place, store, &["replay", "done-1"]).code(), 0);
    let sent = on(place, store, &["signal", "approvals/7", "--data", r#"{"approved":true}"#]);
    assert_eq!(sent.code(), 0, "{}", sent.shown());
    let done = on(place, store, &["resume", "waits-1"]);
    assert_eq!((done.code(), &done.json()["approved"]), (0, &true.into()), "{}", done.shown());
    for args in [&["remove", "nightly"][..], &["add", "nightly", "waits.yml", "--cron", "@daily"]] {
        let ran = on(place, store, &[&["schedules"], args].concat());
        assert_eq!(ran.code(), 0, "{}", ran.shown());
    }
    assert_eq!(on(place, store, &["store", "status"]).json()["schema"]["migration_due"], false);
    assert_eq!(on(place, store, &["fsck"]).json()["ok"], true);
}

#[test]
fn a_file_of_an_earlier_schema_is_migrated_and_its_runs_go_on() {
    let place = Place::new();
    std::fs::write(place.path(SCHEMA_1[0].0), SCHEMA_1[0].1).expect("written");
    let store = format!("sqlite:{}", SCHEMA_1[0].0);
    let due = on(&place, &store, &["store", "status"]);
    assert_eq!((due.code(), &due.json()["schema"]["found"]), (3, &1.into()), "{}", due.shown());
    let migrated = on(&place, &store, &["store", "migrate"]);
    assert_eq!((migrated.code(), &migrated.json()["from"]), (0, &1.into()), "{}", migrated.shown());
    assert_goes_on(&place, &store);
}

#[test]
fn backups_of_an_earlier_schema_are_restored() {
    let database = database();
    for ((name, bytes), store) in SCHEMA_1.into_iter().zip(["sqlite:restored.db".to_owned(), database.url()]) {
        let place = Place::new();
        std::fs::write(place.path(name), bytes).expect("written");
        let restored = on(&place, &store, &["store", "restore", name]);
        let told = restored.json();
        assert_eq!((&told["quarantined"], &told["schedules_paused"]), (&1.into(), &1.into()), "{}", restored.shown());
        assert_eq!(on(&place, &store, &["runs", "requeue", "waits-1"]).code(), 0);
        assert_goes_on(&place, &store);
    }
}

/// The schema of a database as the first release left it.
const BACK_TO_1: &str = "DROP INDEX signals_unnamed; DROP FUNCTION switch_epoch; DROP TABLE object_floors, audit_sealing, audit_segments, audit_acts, audit_kept, \
     rates, encryption, encryption_keys, encryption_writers; \
     ALTER TABLE journal DROP COLUMN xact; DELETE FROM schema_history WHERE version > 1";

#[test]
fn a_database_of_an_earlier_schema_is_migrated_below_its_runs() {
    let (place, database) = (Place::new(), database());
    let url = database.url();
    on(&place, &url, &["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", "done-1"]);
    on(&place, &url, &["run", "waits.yml", "--input", r#"{"order":7}"#, "--run-id", "waits-1"]);
    on(&place, &url, &["schedules", "add", "nightly", "waits.yml", "--cron", "@daily"]);
    let _rows = database.execute(BACK_TO_1).expect("as it was");
    assert_eq!(on(&place, &url, &["store", "status"]).code(), 3, "a migration is due");
    assert_goes_on(&place, &url);
}

// Slow on purpose: what other processes do to the schema is looked for every few seconds.
#[test]
fn servers_and_reapers_end_once_the_schema_is_newer_and_say_so() {
    let (place, database) = (Place::new(), database());
    let start = |role: &str| {
        let mut process = command(&place.path(""));
        process.args(["serve", "--role", role, "--listen", "127.0.0.1:0", "--store", &database.url()]);
        let mut process = process.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
        let mut said = String::new();
        BufReader::new(process.stdout.as_mut().expect("its stdout")).read_line(&mut said).expect("it is up");
        process
    };
    let processes = ["server", "reaper"].map(start);
    let _rows = database.execute(NEWER).expect("noted");
    for process in processes {
        let ended = process.wait_with_output().expect("it ends by itself");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(6), "{stderr}");
        assert!(stderr.contains("schema 999, this build knows up to"), "{stderr}");
    }
}

#[test]
fn a_worker_claims_no_more_once_the_schema_is_newer_and_says_so() {
    let (place, database) = (Place::new(), database());
    let url = format!("{}?lease_ms=600", database.url());
    let mut worker = command(&place.path(""));
    worker.args(["worker", "--store", &url]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut worker = worker.spawn().expect("a worker");
    let mut said = String::new();
    BufReader::new(worker.stdout.as_mut().expect("its stdout")).read_line(&mut said).expect("it is up");
    let _rows = database.execute(NEWER).expect("noted");
    let ended = worker.wait_with_output().expect("it ends by itself");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("schema 999, this build knows up to"), "{stderr}");
    assert!(stderr.contains("use the build that wrote this store, or a newer one"), "{stderr}");
    assert_eq!(database.value("SELECT count(*) FROM workers WHERE alive"), "0", "it has left");
}
