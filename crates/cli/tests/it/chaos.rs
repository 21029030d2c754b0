//! `windlass chaos run`: this binary as a fleet, and what cannot be done to it.

use crate::kit::Place;

#[test]
fn faults_that_cannot_be_made_are_refused_before_anything_starts() {
    let place = Place::new();
    let ran = place.windlass(&["chaos", "run", "--faults", "kill,tea"]);
    assert_eq!(ran.code(), 2);
    assert!(ran.shown().contains("`tea` is no kind of fault"), "{}", ran.shown());
    let ran = place.windlass(&["chaos", "run", "--faults", "cut-after-commit"]);
    assert_eq!(ran.code(), 2, "{}", ran.shown());
    assert!(ran.shown().contains("the store is no PostgreSQL server"), "{}", ran.shown());
    let ran = place.windlass(&["chaos", "run", "--faults", "database"]);
    assert_eq!(ran.code(), 2, "{}", ran.shown());
    assert!(ran.shown().contains("nobody said how the database is restarted"), "{}", ran.shown());
}

#[test]
fn a_machine_of_ones_own_is_killed_and_ends_as_before() {
    let place = Place::new();
    let ran = place.windlass(&[
        "chaos",
        "run",
        "waits.yml",
        "--input",
        r#"{"order": "A-17"}"#,
        "--signal",
        r#"approvals/A-17={"approved": true}"#,
        "--runs",
        "20",
        "--duration",
        "2s",
        "--every",
        "500ms",
        "--faults",
        "kill",
        "--seed",
        "1",
        "--json",
    ]);
    // Nobody calls anything here, so that no fault can meet a call in flight.
    assert_eq!(ran.code(), 3, "{}", ran.shown());
    let report = ran.json();
    assert_eq!((&report["verdict"], &report["violations"]), (&"inconclusive".into(), &serde_json::json!([])));
    assert_eq!((&report["runs"]["submitted"], &report["runs"]["completed"]), (&20.into(), &20.into()));
    assert!(!place.path(".windlass").exists(), "its store is its own");
}
