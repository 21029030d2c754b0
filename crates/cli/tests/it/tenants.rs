//! Whose runs are: named on the command line, in the environment or in the configuration, and kept.

use serde_json::json;

use crate::kit::Place;

const MACHINE: &str = "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: plain\n  states:\n    \
                       a: {type: initial, transitions: [{to: end}]}\n    end: {type: final, output: {ok: true}}\n";

fn place() -> Place {
    let place = Place::new();
    place.write("plain.yml", MACHINE);
    place
}

#[test]
fn a_run_belongs_to_whom_the_caller_names() {
    let place = place();
    let ran = place.windlass(&["run", "plain.yml", "--run-id", "r1", "--tenant", "acme", "--user", "bob"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    place.windlass(&["run", "plain.yml", "--run-id", "r2"]);
    let shown = place.windlass(&["runs", "show", "r1", "--json"]).json();
    assert_eq!((&shown["tenant"], &shown["run"]["start"]["scope"]["user"]), (&json!("acme"), &json!("bob")));
    let text = place.windlass(&["runs", "show", "r1", "--plain"]).stdout();
    assert!(text.contains("tenant") && text.contains("acme") && text.contains("bob"), "{text}");
    let listed = place.windlass(&["runs", "list", "--tenant", "acme", "--all", "--json"]).json();
    let ids: Vec<_> = listed["runs"].as_array().expect("runs").iter().map(|run| run["id"].clone()).collect();
    assert_eq!(ids, [json!("r1")]);
    let other = place.windlass(&["runs", "show", "r2", "--json"]).json();
    assert_eq!((&other["tenant"], &other["run"]["start"]["scope"]["user"]), (&json!("default"), &json!(null)));
}

#[test]
fn the_flag_wins_over_the_environment_and_that_over_the_file() {
    let place = place();
    place.write("windlass.toml", "[run]\ntenant = \"file\"\nuser = \"ann\"\n");
    let tenant_of = |run: &str| place.windlass(&["runs", "show", run, "--json"]).json()["tenant"].clone();
    place.windlass(&["run", "plain.yml", "--run-id", "a"]);
    place.with(&["run", "plain.yml", "--run-id", "b"], |command| {
        command.env("WINDLASS_RUN__TENANT", "environment");
    });
    place.with(&["run", "plain.yml", "--run-id", "c", "--tenant", "flag"], |command| {
        command.env("WINDLASS_RUN__TENANT", "environment");
    });
    assert_eq!(["a", "b", "c"].map(tenant_of), [json!("file"), json!("environment"), json!("flag")]);
}

#[test]
fn a_run_id_is_not_shared_between_tenants_and_a_fork_stays_with_its_tenant() {
    let place = place();
    place.windlass(&["run", "plain.yml", "--run-id", "r", "--tenant", "acme", "--user", "bob"]);
    let ran = place.windlass(&["run", "plain.yml", "--run-id", "r", "--tenant", "other"]);
    assert_eq!(ran.code(), 4, "{}", ran.shown());
    assert!(ran.stderr().contains("is not of the tenant `other`"), "{}", ran.shown());
    let forked = place.windlass(&["runs", "fork", "r", "--at", "1", "--run-id", "f"]);
    assert_eq!(forked.code(), 0, "{}", forked.shown());
    let shown = place.windlass(&["runs", "show", "f", "--json"]).json();
    assert_eq!((&shown["tenant"], &shown["run"]["start"]["scope"]["user"]), (&json!("acme"), &json!("bob")));
}

#[test]
fn the_runs_of_a_schedule_belong_to_whom_it_was_added_for() {
    let place = place();
    let added = place.windlass(&["schedules", "add", "daily", "plain.yml", "--every", "1h", "--tenant", "acme"]);
    assert_eq!(added.code(), 0, "{}", added.shown());
    let shown = place.windlass(&["schedules", "show", "daily", "--json"]).json();
    assert_eq!(shown["tenant"], json!("acme"), "{shown}");
}

#[test]
fn a_name_that_cannot_be_used_is_refused() {
    let place = place();
    let long = "x".repeat(129);
    for (flag, name) in [("--tenant", ""), ("--tenant", " a"), ("--user", "a\u{7}"), ("--tenant", &long)] {
        let ran = place.windlass(&["run", "plain.yml", flag, name]);
        assert_eq!(ran.code(), 2, "{}", ran.shown());
        assert!(ran.stderr().contains(flag), "{}", ran.shown());
    }
    let listed = place.windlass(&["runs", "list", "--all", "--json"]).json();
    assert_eq!(listed["runs"], json!([]), "nothing was begun");
}
