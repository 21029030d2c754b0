//! A run whose call takes its worker down every time.
//!
//! Slow on purpose: real processes die and are waited for.

use serde_json::json;

use super::{ACTS, Fleet, action};

/// What the action does: that of `poison` kills the worker, once the others are at work, until it is mended; those of
/// the others last until they are let go.
const SCRIPT: &str = "if [ $WINDLASS_RUN_ID != poison ]; then \
     touch at-work-$WINDLASS_RUN_ID; until [ -e let-go ]; do sleep 0.02; done; \
     else until [ -e at-work-one ] && [ -e at-work-two ]; do sleep 0.02; done; [ -e mended ] || kill -9 $PPID; fi; echo 7";
/// Workers that are lost while they hold others too.
const IN_COMPANY: u32 = 2;
/// Workers that are lost with nothing else after that, the last of them before the quarantine.
const ALONE: u32 = 3;

#[test]
fn a_call_that_kills_its_workers_is_driven_alone_and_then_quarantined() {
    let fleet = Fleet::new();
    fleet.write("acts.yml", ACTS);
    fleet.write("windlass.toml", &action(SCRIPT));
    for run in ["poison", "one", "two"] {
        fleet.submit("acts.yml", run, &[]);
    }
    let mut deaths = 0;
    while fleet.show("poison")["status"] != "quarantined" {
        let mut worker = fleet.start(&["worker"]);
        let died = fleet.until_all("the worker dies or the run is quarantined", || {
            let dead = worker.child.try_wait().expect("a status");
            dead.map(|_| true).or_else(|| (fleet.show("poison")["status"] == "quarantined").then_some(false))
        });
        deaths += u32::from(died);
        if deaths == IN_COMPANY {
            fleet.write("let-go", "");
        }
        assert!(deaths <= IN_COMPANY + ALONE, "it is quarantined in the end");
    }
    assert_eq!(deaths, IN_COMPANY + ALONE);
    let worker = fleet.start(&["worker"]);
    for run in ["one", "two"] {
        assert_eq!(fleet.output(run), json!({ "answer": 7 }), "it had bad company and is in order");
    }
    fleet.write("mended", "");
    let requeued = fleet.run(&["runs", "requeue", "poison"]);
    assert_eq!(requeued.code(), 0, "{}", requeued.shown());
    assert_eq!(fleet.output("poison"), json!({ "answer": 7 }));
    assert_eq!(worker.stop().code(), Some(0));
    fleet.is_sound();
}
