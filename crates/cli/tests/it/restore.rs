//! Backups and what may follow from one: nothing that was done is done again, and who still works on the old store
//! changes nothing in the new one.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::kit::{Place, Ran};

/// Three effects, one after another; the second one waits until the file `go` is there.
const SHIPS: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: ships
  states:
    one:
      type: initial
      action: one
      transitions:
        - to: two
    two:
      action: two
      transitions:
        - to: three
    three:
      action: three
      transitions:
        - to: done
    done:
      type: final
      output:
        shipped: true
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("ships.yml", SHIPS);
    place.write("one.sh", "echo one >> effects; echo '{}'\n");
    place.write("two.sh", "echo two >> effects; while ! test -e go; do :; done; echo '{}'\n");
    place.write("three.sh", "echo three >> effects; echo '{}'\n");
    let action = |name: &str| {
        format!(
            "[actions.{name}]\ntype = \"command\"\ncommand = [\"/bin/sh\", \"{name}.sh\"]\nclass = \"write\"\n\
             idempotency = \"none\"\non_unknown = \"ask\"\n"
        )
    };
    place.write("windlass.toml", &["one", "two", "three"].map(action).concat());
    place
}

fn effects(place: &Place) -> String {
    std::fs::read_to_string(place.path("effects")).unwrap_or_default()
}

/// A process that works on the run, at the moment when its second effect is being done.
fn at_work(place: &Place, store: &str) -> Child {
    let mut command: Command = crate::kit::command(&place.path(""));
    command.args(["run", "ships.yml", "--run-id", "ship", "--store", store]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    while effects(place) != "one\ntwo\n" {
        std::thread::yield_now();
    }
    child
}

fn on(place: &Place, store: &str, args: &[&str]) -> Ran {
    let url = if store.contains("://") { store.to_owned() } else { format!("sqlite:{store}") };
    place.windlass(&[args, &["--store", &url]].concat())
}

/// Restored runs are held back, and say why.
fn assert_held(place: &Place, store: &str) {
    let listed = on(place, store, &["runs", "list", "--status", "quarantined"]).json();
    assert_eq!(listed["runs"][0]["id"], "ship", "{listed}");
    let shown = on(place, store, &["runs", "show", "ship"]).json();
    let reason = shown["quarantine"].as_str().unwrap_or_default();
    assert!(reason.starts_with("restored from a backup of 20") && reason.ends_with("is not known"), "{shown}");
    let before = effects(place);
    let resumed = on(place, store, &["resume", "ship"]);
    assert_eq!(resumed.code(), 7, "{}", resumed.shown());
    assert_eq!(effects(place), before, "a worker does nothing with it");
    assert_eq!(on(place, store, &["fsck"]).json(), json!({"ok": true, "findings": []}));
}

/// A person lets it go on: the call that was open is asked about, and nothing is done a second time.
fn assert_goes_on(place: &Place, store: &str) {
    let before = effects(place);
    assert_eq!(on(place, store, &["runs", "requeue", "ship"]).code(), 0);
    let asked = on(place, store, &["resume", "ship"]);
    assert_eq!(asked.code(), 7, "{}", asked.shown());
    assert_eq!(effects(place), before, "what may have been done is not done again");
    let channel = asked.json()["waits"][0]["channel"].as_str().expect("a question").to_owned();
    let answered = on(place, store, &["signal", &channel, "--data", r#"{"happened": true, "result": {}}"#]);
    assert_eq!(answered.code(), 0, "{}", answered.shown());
    let done = on(place, store, &["resume", "ship"]);
    assert_eq!((done.code(), done.json()), (0, json!({"shipped": true})), "{}", done.shown());
}

#[test]
fn what_was_done_after_a_backup_is_not_done_again_from_it() {
    let place = place();
    let worker = at_work(&place, "sqlite:w.db");
    let backup = on(&place, "w.db", &["store", "backup", "copy.db"]);
    assert_eq!(backup.code(), 0, "{}", backup.shown());
    assert_eq!(on(&place, "w.db", &["store", "backup", "copy.db"]).code(), 4, "a backup replaces nothing");
    place.write("go", "");
    let ended = worker.wait_with_output().expect("ended");
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(effects(&place), "one\ntwo\nthree\n");

    let restored = on(&place, "new.db", &["store", "restore", "copy.db"]);
    assert_eq!(restored.code(), 0, "{}", restored.shown());
    assert_eq!((&restored.json()["quarantined"], &restored.json()["aside"]), (&json!(1), &json!(null)));
    assert_held(&place, "new.db");
    assert_eq!(effects(&place), "one\ntwo\nthree\n");
    let again = on(&place, "new.db", &["store", "restore", "copy.db"]);
    assert_eq!((again.code(), &again.json()["error"]["code"]), (4, &json!("store.conflict")), "{}", again.shown());
    let old = on(&place, "w.db", &["runs", "show", "ship"]).json();
    assert_eq!(old["status"], "completed", "the old store is as it was");
}

#[test]
fn a_worker_that_lives_through_a_restore_changes_nothing() {
    let place = place();
    let mut worker = at_work(&place, "sqlite:w.db");
    assert_eq!(on(&place, "w.db", &["store", "backup", "copy.db"]).code(), 0);
    let restored = on(&place, "w.db", &["store", "restore", "copy.db", "--replace"]);
    assert_eq!(restored.code(), 0, "{}", restored.shown());
    let aside = restored.json()["aside"].as_str().expect("the old store is kept").to_owned();
    let store = std::fs::metadata(place.path("w.db")).expect("the new store").len();
    place.write("go", "");
    // It says so, and would try for a while longer.
    let told = BufReader::new(worker.stderr.take().expect("stderr"));
    let noticed = told.lines().map_while(Result::ok).any(|line| line.contains("was removed or replaced while it was"));
    assert!(noticed, "it ended without a word");
    let id = Pid::from_raw(i32::try_from(worker.id()).expect("a process id"));
    while worker.try_wait().expect("state").is_none() {
        kill(id, Signal::SIGINT).expect("sent");
        std::thread::yield_now();
    }
    assert_eq!(effects(&place), "one\ntwo\n", "it did not go on to the third");
    assert!(std::fs::metadata(place.path("w.db")).is_ok_and(|meta| meta.len() == store), "nobody wrote to it");
    assert_held(&place, "w.db");
    assert_goes_on(&place, "w.db");
    assert_eq!(effects(&place), "one\ntwo\nthree\n");
    let old = place.windlass(&["runs", "show", "ship", "--store", &format!("sqlite:{aside}")]);
    assert_eq!(old.json()["id"], "ship", "{}", old.shown());
}

#[test]
fn a_backup_that_is_none_or_is_damaged_is_refused() {
    let place = Place::new();
    place.windlass(&["run", "asks.yml", "--input", "{}", "--run-id", "done-1", "--store", "sqlite:w.db"]);
    assert_eq!(on(&place, "w.db", &["store", "backup", "copy.db"]).code(), 0);
    let bytes = std::fs::read(place.path("copy.db")).expect("the copy");
    let restore = |file: &str| on(&place, "new.db", &["store", "restore", file]);
    place.write("text.db", "this is no database at all");
    assert_eq!(restore("text.db").code(), 2);
    assert_eq!(restore("gone.db").code(), 6);
    assert_eq!(restore("new.db").code(), 6);
    let cut = bytes.len() / 2;
    std::fs::write(place.path("cut.db"), &bytes[..cut]).expect("cut");
    let ran = restore("cut.db");
    assert_eq!((ran.code(), &ran.json()["error"]["code"]), (3, &json!("store.corrupt")), "{}", ran.shown());
    let mut bent = bytes;
    let at = bent.windows(6).position(|part| part == b"done-1").expect("the run's id");
    bent[at] = b'x';
    std::fs::write(place.path("bent.db"), bent).expect("bent");
    let ran = restore("bent.db");
    assert_eq!(ran.code(), 3, "{}", ran.shown());
    assert_eq!(ran.json()["error"]["findings"][0]["rule"], "integrity", "{}", ran.shown());
    assert!(!place.path("new.db").exists(), "nothing was made");
    let left: Vec<_> = std::fs::read_dir(place.path(""))
        .expect("folder")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("restoring"))
        .collect();
    assert_eq!(left, [""; 0], "and nothing is left over");
}

#[test]
fn an_empty_target_is_no_store_and_a_store_without_runs_has_nothing_to_hold() {
    let place = Place::new();
    assert_eq!(on(&place, "w.db", &["store", "migrate"]).json()["from"], 0);
    assert_eq!(on(&place, "w.db", &["store", "backup", "copy.db"]).code(), 0);
    place.write("new.db", "");
    let restored = on(&place, "new.db", &["store", "restore", "copy.db"]);
    assert_eq!((restored.code(), &restored.json()["quarantined"]), (0, &json!(0)), "{}", restored.shown());
    assert_eq!(restored.json()["taken_at"], json!(null));
    let status = on(&place, "new.db", &["store", "status"]);
    assert_eq!((status.code(), &status.json()["schema"]["migration_due"]), (0, &json!(false)), "{}", status.shown());
    assert_eq!(on(&place, "none.db", &["store", "status"]).code(), 4, "looking makes no store");
    assert!(!place.path("none.db").exists());
}

#[test]
fn a_fence_voids_leases_and_holds_every_unfinished_run() {
    let place = place();
    let worker = at_work(&place, "sqlite:w.db");
    let fenced = on(&place, "w.db", &["store", "fence", "--reason", "a drill"]);
    assert_eq!((fenced.code(), &fenced.json()["quarantined"]), (0, &json!(1)), "{}", fenced.shown());
    place.write("go", "");
    let ended = worker.wait_with_output().expect("ended");
    assert_ne!(ended.status.code(), Some(0), "what it did after the fence does not count");
    assert_eq!(effects(&place), "one\ntwo\n");
    let shown = on(&place, "w.db", &["runs", "show", "ship"]).json();
    assert_eq!((&shown["status"], &shown["quarantine"]), (&json!("quarantined"), &json!("a drill")));
    assert_goes_on(&place, "w.db");
    assert_eq!(effects(&place), "one\ntwo\nthree\n");
    assert_eq!(on(&place, "w.db", &["store", "fence", "--reason", " "]).code(), 2);
}

#[test]
fn a_worker_that_lives_through_the_restore_of_its_database_changes_nothing() {
    let (place, database) = (place(), windlass_testpg::database());
    let url = database.url();
    let worker = at_work(&place, &url);
    let backup = on(&place, &url, &["store", "backup", "copy.wl"]);
    assert_eq!(backup.code(), 0, "{}", backup.shown());
    let taken = on(&place, &url, &["store", "restore", "copy.wl"]);
    assert_eq!((taken.code(), &taken.json()["error"]["code"]), (4, &json!("store.conflict")), "{}", taken.shown());
    let _rows = database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").expect("lost");
    let restored = on(&place, &url, &["store", "restore", "copy.wl"]);
    assert_eq!((restored.code(), &restored.json()["quarantined"]), (0, &json!(1)), "{}", restored.shown());
    place.write("go", "");
    let ended = worker.wait_with_output().expect("ended");
    assert_ne!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(effects(&place), "one\ntwo\n", "it did not go on to the third");
    assert_held(&place, &url);
    assert_goes_on(&place, &url);
    assert_eq!(effects(&place), "one\ntwo\nthree\n");
    let mut bent = std::fs::read(place.path("copy.wl")).expect("the copy");
    let middle = bent.len() / 2;
    bent[middle] ^= 1;
    std::fs::write(place.path("bent.wl"), bent).expect("bent");
    let empty = windlass_testpg::database();
    let refused = on(&place, &empty.url(), &["store", "restore", "bent.wl"]);
    assert_eq!((refused.code(), &refused.json()["error"]["code"]), (3, &json!("store.corrupt")), "{}", refused.shown());
}

#[test]
fn schedules_of_a_restored_store_start_nothing_until_a_person_says_so() {
    let (database, target) = (windlass_testpg::database(), windlass_testpg::database());
    for (from, to) in [("w.db".to_owned(), "new.db".to_owned()), (database.url(), target.url())] {
        let place = Place::new();
        for (name, more) in [("often", &["--every", "1s"][..]), ("paused", &["--cron", "@daily", "--paused"])] {
            let added = on(&place, &from, &[&["schedules", "add", name, "waits.yml"], more].concat());
            assert_eq!(added.code(), 0, "{}", added.shown());
        }
        assert_eq!(on(&place, &from, &["store", "backup", "copy"]).code(), 0);
        let restored = on(&place, &to, &["store", "restore", "copy"]);
        assert_eq!(restored.json()["schedules_paused"], 1, "{}", restored.shown());
        assert_eq!(restored.json()["next"], json!(["windlass schedules list", "windlass schedules resume NAME"]));
        let shown = on(&place, &to, &["schedules", "show", "often"]).json();
        assert_eq!((&shown["state"], &shown["paused"]["reason"]), (&json!("paused"), &json!("restored from a backup")));
        assert_eq!(on(&place, &to, &["schedules", "resume", "often"]).json()["state"], "active");
        let fenced = on(&place, &to, &["store", "fence", "--reason", "a drill"]);
        assert_eq!(fenced.json()["schedules_paused"], 1, "{}", fenced.shown());
        assert_eq!(on(&place, &to, &["schedules", "show", "often"]).json()["paused"]["reason"], "a drill");
        assert_eq!(on(&place, &from, &["schedules", "show", "often"]).json()["state"], "active");
    }
}
