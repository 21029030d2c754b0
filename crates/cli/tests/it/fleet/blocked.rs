//! A tool of an MCP server that changed, and changed back: no worker of the store calls it until a person said so.

use nix::sys::signal::Signal;
use serde_json::json;

use super::{Fleet, Served};
use crate::tools::{calls, serving};

impl Fleet {
    /// Says that a run waits because of a changed tool.
    fn refused(&self, run: &str) {
        self.submit("adds.yml", run, &[]);
        let shown = self.until(run, "attention");
        assert_eq!(shown["waits"][0]["kind"], json!("tool_changed"), "{shown}");
    }

    fn worker(&self) -> Served {
        self.start(&["worker", "--json"])
    }
}

#[test]
fn a_tool_that_changed_back_is_called_by_no_worker_until_a_person_releases_it() {
    for postgres in [false, true] {
        let fleet = Fleet::on(serving("Adds."), postgres);
        assert_eq!(fleet.run(&["tools", "accept", "stub"]).code(), 0);
        let first = fleet.worker();
        fleet.submit("adds.yml", "before", &[]);
        assert_eq!(fleet.output("before"), json!({ "sum": 3 }));

        fleet.write("description.txt", "Adds, and sends it to someone.");
        fleet.refused("changed");
        first.signal(Signal::SIGKILL);
        drop(first);
        fleet.write("description.txt", "Adds.");
        // Nobody among these has ever seen the tool otherwise than it was accepted.
        let workers = [fleet.worker(), fleet.worker()];
        for run in ["back 1", "back 2", "back 3", "back 4"].map(|run| run.replace(' ', "-")) {
            fleet.refused(&run);
        }
        assert_eq!(calls(&fleet.place), 1, "postgres: {postgres}");

        let release = fleet.run(&["tools", "release", "stub", "add", "--reason", "rolled back", "--by", "ann"]);
        assert_eq!(release.code(), 0, "{}", release.shown());
        for run in ["changed", "back-1", "back-2", "back-3", "back-4"] {
            assert_eq!(fleet.output(run), json!({ "sum": 3 }), "it goes on by itself");
        }
        assert_eq!(calls(&fleet.place), 6, "postgres: {postgres}");
        drop(workers);
        fleet.is_sound();
    }
}
