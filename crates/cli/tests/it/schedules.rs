//! Schedules as a person sees them, and started by a server.

use std::process::Child;

use serde_json::{Value as Json, json};

use crate::kit::{Place, assert_shown, command};

/// A machine that ends at once.
const ENDS: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: ends
  states:
    only:
      type: initial
      transitions:
        - to: done
    done:
      type: final
      output:
        tick: input.schedule.tick
        of: input.schedule.name
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("ends.yml", ENDS);
    place
}

fn windlass(place: &Place, args: &[&str]) -> crate::kit::Ran {
    place.windlass(&[args, &["--store", place.store()]].concat())
}

/// A server that is killed when the test is over.
struct Server(Child);

impl Server {
    fn start(place: &Place) -> Self {
        let mut serve = command(&place.path(""));
        serve.args(["serve", "--listen", "127.0.0.1:0", "--store", place.store()]);
        Self(serve.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("a server"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again and again until the answer is as wanted.
fn until(place: &Place, args: &[&str], wanted: impl Fn(&Json) -> bool) -> Json {
    let begun = std::time::Instant::now();
    loop {
        let ran = windlass(place, args);
        let answer = ran.json();
        if wanted(&answer) {
            return answer;
        }
        assert!(begun.elapsed().as_secs() < 60, "{}", ran.shown());
    }
}

#[test]
fn a_schedule_is_added_shown_steered_and_removed() {
    let place = place();
    let add = ["schedules", "add", "nightly", "ends.yml", "--cron", "30 2 * * *", "--zone", "Europe/Berlin"];
    let added = windlass(&place, &[&add[..], &["--tag", "team=night"]].concat());
    assert_eq!(added.code(), 0, "{}", added.shown());
    assert_eq!((&added.json()["state"], &added.json()["tags"]), (&json!("active"), &json!({"team": "night"})));
    let again = windlass(&place, &add);
    assert_eq!((again.code(), &again.json()["error"]["code"]), (4, &json!("store.conflict")), "{}", again.shown());
    let replaced = windlass(&place, &[&add[..], &["--overlap", "queue", "--replace"]].concat());
    assert_eq!((replaced.code(), &replaced.json()["overlap"]), (0, &json!("queue")));
    windlass(&place, &["schedules", "add", "poll", "ends.yml", "--every", "5m", "--paused"]);
    let page = windlass(&place, &["schedules", "list", "--limit", "1"]).json();
    assert_eq!((&page["schedules"][0]["name"], &page["next"]), (&json!("nightly"), &json!("nightly")));
    let rest = windlass(&place, &["schedules", "list", "--cursor", "nightly"]).json();
    assert_eq!((&rest["schedules"][0]["state"], &rest["next"]), (&json!("paused"), &Json::Null));
    assert_eq!(windlass(&place, &["schedules", "pause", "nightly", "--reason", "audit"]).json()["state"], "paused");
    assert_eq!(windlass(&place, &["schedules", "show", "nightly"]).json()["paused"]["reason"], "audit");
    assert_eq!(windlass(&place, &["schedules", "resume", "--all"]).json(), json!({"schedules": 2}));
    assert_eq!(windlass(&place, &["schedules", "remove", "nightly"]).code(), 0);
    let gone = windlass(&place, &["schedules", "show", "nightly"]);
    assert_eq!((gone.code(), &gone.json()["error"]["code"]), (4, &json!("cli.not_found")));
}

#[test]
fn a_run_of_a_schedule_can_be_had_at_once() {
    let place = place();
    windlass(&place, &["schedules", "add", "nightly", "ends.yml", "--cron", "@daily", "--paused"]);
    let run = windlass(&place, &["schedules", "run-now", "nightly"]).json();
    assert_eq!((&run["status"], &run["schedule"]), (&json!("queued"), &json!("nightly")));
    let id = run["run_id"].as_str().expect("an id").to_owned();
    let busy = windlass(&place, &["schedules", "run-now", "nightly"]);
    assert_eq!((busy.code(), &busy.json()["error"]["run_id"]), (4, &run["run_id"]), "{}", busy.shown());
    let done = windlass(&place, &["resume", &id]);
    assert_eq!((done.code(), &done.json()["of"]), (0, &json!("nightly")), "{}", done.shown());
    let shown = windlass(&place, &["schedules", "show", "nightly"]).json();
    assert_eq!(shown["last"]["status"], "completed");
    let listed = windlass(&place, &["runs", "list", "--tag", "schedule=nightly"]).json();
    assert_eq!(listed["runs"][0]["id"], run["run_id"]);
    assert_eq!(windlass(&place, &["fsck"]).json()["ok"], true);
}

#[test]
fn a_server_starts_the_runs_of_ticks() {
    let place = place();
    windlass(&place, &["schedules", "add", "often", "ends.yml", "--every", "1s", "--overlap", "allow"]);
    let servers = [Server::start(&place), Server::start(&place)];
    let enough = |page: &Json| {
        let runs = page["runs"].as_array().expect("runs");
        runs.iter().filter(|run| run["status"] == "completed").count() >= 3
    };
    let page = until(&place, &["runs", "list", "--tag", "schedule=often"], enough);
    drop(servers);
    let mut ids: Vec<&str> =
        page["runs"].as_array().expect("runs").iter().filter_map(|run| run["id"].as_str()).collect();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "each tick has one run");
    let shown = windlass(&place, &["schedules", "show", "often"]).json();
    let runs = windlass(&place, &["runs", "list", "--tag", "schedule=often", "--limit", "1000"]).json();
    let made = runs["runs"].as_array().map(Vec::len).unwrap_or_default() as u64;
    let started = shown["counts"]["started"].as_u64().expect("a count");
    assert!(made == started || made == started + 1, "{made} runs, {started} counted");
}

#[test]
fn ticks_of_an_expression_are_printed_without_a_store() {
    let place = Place::new();
    let gap = ["schedules", "next", "--cron", "30 2 * * *", "--zone", "Europe/Berlin"];
    let ran = place.windlass(&[&gap[..], &["--from", "2027-03-27T02:00:00Z", "--count", "3", "--plain"]].concat());
    assert_shown!(ran);
    assert!(!place.path(".windlass").exists());
}

#[test]
fn a_schedule_that_cannot_work_is_refused() {
    let place = place();
    let add = |more: &[&str]| windlass(&place, &[&["schedules", "add", "x", "ends.yml"], more].concat());
    for (more, part) in [
        (&["--cron", "61 * * * *"][..], "is no cron expression"),
        (&["--cron", "* * *"], "has 3 fields"),
        (&["--cron", "0 0 30 2 *"], "never ticks"),
        (&["--cron", "@daily", "--zone", "Berlin"], "no time zone"),
        (&["--every", "10ms"], "too short"),
        (&["--cron", "@daily", "--overlap", "wait"], "is no policy"),
        (&["--cron", "@daily", "--start", "soon"], "is no time"),
        (&["--cron", "@daily", "--tag", "x"], "is no tag"),
    ] {
        let ran = add(more);
        assert_eq!(ran.code(), 2, "{}", ran.shown());
        assert!(ran.stderr().contains(part), "{part}: {}", ran.shown());
        assert!(ran.stderr().contains("hint"), "{part}: {}", ran.shown());
    }
    assert_eq!(add(&["--cron", "@daily", "--every", "1h"]).code(), 2);
    assert_eq!(windlass(&place, &["schedules", "add", "a b", "ends.yml", "--cron", "@daily"]).code(), 2);
}
