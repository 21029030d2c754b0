//! Old and new programs on one database: a schema that is newer than a program knows is refused clearly, and nothing is
//! touched. The newer program is stood in for by the note that it would have left.

use windlass_testpg::database;

use crate::kit::{Place, Ran};

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
