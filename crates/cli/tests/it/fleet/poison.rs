//! A run whose call takes its worker down every time.
//!
//! Slow on purpose: real processes die and are waited for.

use serde_json::json;
use windlass_core::limits::LOSSES_MAX;

use super::{ACTS, Fleet, LEAF, action};

#[test]
fn a_call_that_kills_its_workers_fails_in_the_end_and_others_go_on() {
    let fleet = Fleet::new();
    fleet.write("acts.yml", ACTS);
    fleet.write("leaf.yml", LEAF);
    fleet.write("windlass.toml", &action("[ -e mended ] || kill -9 $PPID; echo 7"));
    fleet.submit("acts.yml", "poison", &[]);
    let mut deaths = 0;
    while fleet.show("poison")["status"] != "failed" {
        let mut worker = fleet.start(&["worker"]);
        let died = fleet.until_all("the worker dies or the run fails", || {
            let dead = worker.child.try_wait().expect("a status");
            dead.map(|_| true).or_else(|| (fleet.show("poison")["status"] == "failed").then_some(false))
        });
        deaths += u32::from(died);
        assert!(deaths <= LOSSES_MAX, "the call is given up");
    }
    assert_eq!(deaths, LOSSES_MAX);
    let failed = fleet.run(&["resume", "poison"]);
    assert_eq!(failed.json()["error"]["code"], "run.attempt_lost", "{}", failed.shown());
    fleet.submit("leaf.yml", "healthy", &[]);
    let worker = fleet.start(&["worker"]);
    fleet.until("healthy", "completed");
    fleet.write("mended", "");
    let retried = fleet.run(&["runs", "retry", "poison"]);
    assert_eq!(retried.json(), json!({ "answer": 7 }), "{}", retried.shown());
    let requeued = fleet.run(&["runs", "requeue", "poison"]);
    assert_eq!(requeued.code(), 4, "it is not quarantined: {}", requeued.shown());
    assert_eq!(worker.stop().code(), Some(0));
    fleet.is_sound();
}
