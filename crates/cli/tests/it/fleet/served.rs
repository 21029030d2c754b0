//! What a process of a fleet says about itself, and how it refuses to begin.
//!
//! Slow on purpose: real processes are waited for.

use serde_json::json;

use super::{Fleet, LEAF};

#[test]
fn a_process_that_serves_answers_health_checks_and_gives_its_numbers() {
    let fleet = Fleet::new();
    fleet.write("leaf.yml", LEAF);
    let served = fleet.start(&["serve", "--listen", "127.0.0.1:0", "--preset", "staging"]);
    assert_eq!(served.said["role"], "all");
    assert_eq!(served.get("/healthz"), (200, "ok\n".into()));
    fleet.until_all("it is ready", || (served.get("/readyz").0 == 200).then_some(()));
    fleet.submit("leaf.yml", "leaf", &[]);
    fleet.until("leaf", "completed");
    for (name, least) in [
        ("windlass_runs_claimed_total", 1.0),
        ("windlass_steps_total", 3.0),
        ("windlass_commits_total", 1.0),
        ("windlass_claim_to_start_seconds_count", 1.0),
        ("windlass_commit_seconds_count", 1.0),
        ("windlass_workers", 1.0),
        ("windlass_worker_joined", 1.0),
        ("windlass_runs{status=\"completed\"}", 1.0),
    ] {
        assert!(served.number(name) >= least, "{name}");
    }
    assert_eq!(served.number("windlass_fenced_total"), 0.0);
    assert_eq!(served.get("/").0, 404);
    let taken = served.said["listen"].as_str().expect("an address").replace("http://", "");
    let refused = fleet.run(&["serve", "--listen", &taken]);
    assert_eq!((refused.code(), &refused.json()["error"]["code"]), (6, &json!("cli.listen")), "{}", refused.shown());
    assert_eq!(served.stop().code(), Some(0));
}

#[test]
fn a_server_and_a_reaper_drive_nothing() {
    let fleet = Fleet::new();
    fleet.write("leaf.yml", LEAF);
    let server = fleet.start(&["serve", "--role", "server", "--listen", "127.0.0.1:0"]);
    let reaper = fleet.start(&["serve", "--role", "reaper", "--listen", "127.0.0.1:0"]);
    fleet.submit("leaf.yml", "leaf", &[]);
    for process in [&server, &reaper] {
        assert_eq!(process.get("/readyz").0, 200);
        assert_eq!(process.number("windlass_runs_claimed_total"), 0.0);
    }
    assert_eq!(server.number("windlass_queue_depth{pool=\"default\",priority=\"normal\"}"), 1.0);
    let _worker = fleet.start(&["worker"]);
    fleet.until("leaf", "completed");
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(reaper.stop().code(), Some(0));
}

#[test]
fn what_is_wrong_is_said_before_anything_begins() {
    let fleet = Fleet::new();
    let pool = fleet.run(&["worker", "--pool", "a b"]);
    assert_eq!(pool.code(), 2, "{}", pool.shown());
    let address = fleet.run(&["serve", "--listen", "somewhere"]);
    assert_eq!(address.code(), 2, "{}", address.shown());
    fleet.write("windlass.toml", "[hooks.mine]\ntype = \"nothing\"\n");
    let hook = fleet.run(&["worker"]);
    assert_eq!(hook.code(), 2, "{}", hook.shown());
    fleet.write("windlass.toml", "[worker]\nslots = 3\n");
    let key = fleet.run(&["worker"]);
    assert_eq!(key.code(), 2, "{}", key.shown());
    assert!(!fleet.place.path("fleet.db").exists(), "no store was made");
}
