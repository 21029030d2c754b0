//! Many runs at once, tags, and run keys.

use serde_json::{Value as Json, json};

use crate::kit::{Place, Ran, assert_shown};

fn windlass(place: &Place, args: &[&str]) -> Ran {
    place.windlass(&[args, &["--store", place.store()]].concat())
}

/// Three runs that wait, two of the night and one of the day, and one that has failed.
fn four() -> Place {
    let place = Place::new();
    for (id, team) in [("a", "team=night"), ("b", "team=night"), ("c", "team=day")] {
        windlass(&place, &["run", "waits.yml", "--input", r#"{"order":1}"#, "--run-id", id, "--tag", team]);
    }
    place.write("script.yml", "rules: []\ndefault: {status: 401, error: {message: no such key}}\n");
    windlass(&place, &["run", "asks.yml", "--input", "{}", "--run-id", "f", "--tag", "team=night"]);
    place
}

fn ids(place: &Place, filter: &[&str]) -> Vec<String> {
    let page = windlass(place, &[&["runs", "list"], filter].concat()).json();
    let mut ids: Vec<String> =
        page["runs"].as_array().expect("runs").iter().filter_map(|run| run["id"].as_str().map(str::to_owned)).collect();
    ids.sort();
    ids
}

#[test]
fn runs_are_found_by_tags_and_attributes() {
    let place = four();
    assert_eq!(ids(&place, &["--tag", "team=night"]), ["a", "b", "f"]);
    assert_eq!(ids(&place, &["--tag", "team"]), ["a", "b", "c", "f"]);
    assert_eq!(ids(&place, &["--tag", "team=night", "--status", "failed"]), ["f"]);
    assert_eq!(ids(&place, &["--tenant", "default", "--pool", "default", "--machine", "asks"]), ["f"]);
    assert_eq!(ids(&place, &["--tenant", "other"]), Vec::<String>::new());
    assert_eq!(ids(&place, &["--since", "1h"]).len(), 4);
    assert_eq!(ids(&place, &["--until", "1h"]), Vec::<String>::new());
    assert_eq!(windlass(&place, &["runs", "show", "a"]).json()["tags"], json!({"team": "night"}));
    assert_eq!(windlass(&place, &["runs", "list", "--since", "soon"]).code(), 2);
}

#[test]
fn many_runs_are_shown_first_and_cancelled_when_told() {
    let place = four();
    let order = ["runs", "cancel", "--where", "tag=team=night", "--reason", "no longer wanted"];
    let preview = windlass(&place, &order).json();
    assert_eq!((&preview["matched"], &preview["preview"]), (&json!(2), &json!(true)));
    assert_eq!(preview["by_status"], json!({"waiting": 2}));
    let all = windlass(&place, &["runs", "cancel", "--where", "status=waiting,failed"]).json();
    assert_eq!((&all["matched"], &all["would_do"], &all["would_skip"]), (&json!(4), &json!(3), &json!(1)), "{all}");
    assert_eq!(ids(&place, &["--status", "waiting"]).len(), 3, "nothing was done");
    let done = windlass(&place, &[&order[..], &["--yes"]].concat());
    assert_eq!(done.code(), 0, "{}", done.shown());
    let report = done.json();
    assert_eq!((&report["done"], &report["skipped"], &report["failed"]), (&json!(2), &json!(0), &json!(0)));
    assert_eq!(ids(&place, &["--status", "cancelled"]), ["a", "b"], "{}", done.shown());
    let again = windlass(&place, &[&order[..], &["--yes"]].concat()).json();
    assert_eq!((&again["matched"], &again["done"]), (&json!(0), &json!(0)));
    assert_eq!(windlass(&place, &["fsck"]).json()["ok"], true);
}

#[test]
fn many_runs_are_paused_unpaused_retried_and_sent_signals() {
    let place = four();
    let all =
        |verb: &[&str], filter: &str| windlass(&place, &[&["runs"], verb, &["--where", filter, "--yes"]].concat());
    assert_eq!(all(&["pause"], "machine=waits").json()["done"], 3);
    assert_eq!(ids(&place, &["--status", "paused"]), ["a", "b", "c"]);
    assert_eq!(all(&["pause"], "machine=waits status=paused").json()["skipped"], 3);
    assert_eq!(all(&["unpause"], "machine=waits tag=team=day").json()["done"], 1);
    assert_eq!(all(&["unpause"], "machine=waits").json()["done"], 2);
    for id in ["a", "b", "c"] {
        assert_eq!(windlass(&place, &["resume", id]).code(), 7);
    }
    let data = [r"signal", "approvals/1", "--data", r#"{"approved":true}"#, "--id", "s1"];
    assert_eq!(all(&data, "machine=waits").json()["done"], 3);
    assert_eq!(all(&data, "machine=waits").json()["skipped"], 3, "a repeat sends nothing");
    assert_eq!(windlass(&place, &["resume", "a"]).json(), json!({"approved": true}));
    place.write("script.yml", "rules: []\ndefault: {content: better}\n");
    let retried = all(&["retry"], "machine=asks");
    assert_eq!(retried.json()["done"], 1, "{}", retried.shown());
    assert_eq!(windlass(&place, &["resume", "f"]).json(), json!({"text": "better"}));
    let odd = all(&["retry"], "machine=asks status=completed");
    assert_eq!((odd.code(), &odd.json()["skipped"]), (0, &json!(1)), "{}", odd.shown());
    let none = all(&["requeue"], "machine=waits");
    assert_eq!((none.code(), &none.json()["matched"]), (0, &json!(0)));
}

#[test]
fn finished_runs_are_removed_by_tag() {
    let place = four();
    let order = ["runs", "prune", "--where", "tag=team=night"];
    let preview = windlass(&place, &order).json();
    assert_eq!((&preview["runs"], &preview["dry_run"]), (&json!(1), &json!(true)));
    assert_eq!(windlass(&place, &[&order[..], &["--yes"]].concat()).json()["runs"], 1);
    assert_eq!(ids(&place, &[]), ["a", "b", "c"]);
    let odd = windlass(&place, &["runs", "prune", "--where", "status=failed"]);
    assert_eq!(odd.code(), 2, "{}", odd.shown());
}

#[test]
fn a_report_for_people_names_reasons() {
    let place = four();
    let order = ["runs", "retry", "--where", "status=waiting", "--plain"];
    assert_shown!(windlass(&place, &order));
    assert_shown!(windlass(&place, &[&order[..], &["--yes"]].concat()));
}

#[test]
fn what_is_no_filter_is_refused() {
    let place = four();
    for filter in ["", "everything", "status=odd", "colour=red"] {
        let ran = windlass(&place, &["runs", "cancel", "--where", filter, "--yes"]);
        assert_eq!(ran.code(), 2, "{filter}: {}", ran.shown());
    }
    assert_eq!(windlass(&place, &["runs", "cancel"]).code(), 2, "neither a run nor a filter");
    assert_eq!(windlass(&place, &["runs", "cancel", "a", "--where", "machine=waits"]).code(), 2, "both");
    assert_eq!(windlass(&place, &["runs", "cancel", "a", "--yes"]).code(), 2, "a run needs no `--yes`");
    assert_eq!(ids(&place, &["--status", "cancelled"]), Vec::<String>::new());
}

#[test]
fn a_key_has_one_unfinished_run() {
    let place = Place::new();
    let run = |id: &str, more: &[&str]| {
        let args = ["run", "waits.yml", "--input", r#"{"order":5}"#, "--run-id", id, "--key", "order-5"];
        windlass(&place, &[&args[..], more].concat())
    };
    assert_eq!(run("one", &[]).code(), 7);
    let refused = run("two", &[]);
    assert_eq!((refused.code(), &refused.json()["error"]["run_id"]), (4, &json!("one")), "{}", refused.shown());
    let same = run("three", &["--if-running", "return"]);
    assert_eq!((same.code(), &same.json()["run_id"]), (7, &json!("one")), "{}", same.shown());
    let told = run("three", &["--if-running", "return", "--detach"]).json();
    assert_eq!(told, json!({"run_id": "one", "status": "waiting"}));
    windlass(&place, &["signal", "approvals/5", "--data", r#"{"approved":true}"#]);
    assert_eq!(windlass(&place, &["resume", "one"]).code(), 0);
    assert_eq!(run("two", &[]).code(), 7, "the key is free");
}

#[test]
fn a_debounced_run_begins_by_itself_with_the_last_input() {
    let place = Place::new();
    let run = |topic: &str, more: &[&str]| {
        let input = json!({ "topic": topic }).to_string();
        let args = ["run", "asks.yml", "--input", &input, "--key", "k", "--debounce", "400ms"];
        windlass(&place, &[&args[..], more].concat())
    };
    let first = run("tides", &["--detach"]).json();
    assert_eq!((&first["status"], &first["replaced"]), (&json!("debounced"), &json!(0)));
    let id = first["run_id"].as_str().expect("an id").to_owned();
    assert_eq!(windlass(&place, &["runs", "show", &id]).code(), 4, "it has not begun");
    let done = run("moons", &[]);
    assert_eq!((done.code(), done.json()), (0, json!({"text": "Tides turn twice a day."})), "{}", done.shown());
    let runs: Json = windlass(&place, &["runs", "list"]).json()["runs"].clone();
    assert_eq!((runs.as_array().map(Vec::len), &runs[0]["id"]), (Some(1), &json!(id)));
    let shown = windlass(&place, &["runs", "show", &id]).json();
    assert_eq!(shown["run"]["context"]["topic"], "moons");
}
