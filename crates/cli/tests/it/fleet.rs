//! Processes of a fleet on one store: they share work, die, are told to stop, and are asked how they are.
//!
//! Slow on purpose: real processes are started, killed and waited for. What is waited for is a word of the store.

mod adversary;
mod away;
mod blocked;
mod calls;
mod family;
mod pools;
mod poison;
mod served;
mod stuck;
mod traces;
mod page;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value as Json, json};

use crate::kit::{Place, Ran, TestStore, command};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with machines, and a store of the kind that `WINDLASS_TEST_STORE` names.
struct Fleet {
    place: Place,
    store: TestStore,
}

/// A process that serves, killed when it is dropped.
struct Served {
    child: Child,
    /// What it said when it was up.
    said: Json,
}

impl Drop for Served {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _gone = self.child.kill();
        let _waited = self.child.wait();
    }
}

impl Fleet {
    fn new() -> Self {
        let place = Place::new();
        let store = TestStore::new(&place.path("fleet.db"), "?lease_ms=2000");
        Self { place, store }
    }

    /// One in this folder, on a store of its own.
    fn on(place: Place, postgres: bool) -> Self {
        let store = if postgres {
            let database = windlass_testpg::database();
            TestStore::of(format!("{}?lease_ms=2000", database.url()), database)
        } else {
            TestStore::file(&place.path("fleet.db"))
        };
        Self { place, store }
    }

    fn write(&self, name: &str, text: &str) {
        self.place.write(name, text);
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.place.with(args, |command| {
            command.env("WINDLASS_STORE", &self.store.url);
        })
    }

    /// Puts a run into the queue.
    fn submit(&self, machine: &str, id: &str, more: &[&str]) {
        let ran = self.run(&[&["run", machine, "--run-id", id, "--detach"], more].concat());
        assert_eq!(ran.code(), 0, "{}", ran.shown());
    }

    /// Starts a process that serves, and waits until it says that it does.
    fn start(&self, args: &[&str]) -> Served {
        self.start_with(args, |_| {})
    }

    /// The same with more said to it.
    fn start_with(&self, args: &[&str], more: impl FnOnce(&mut std::process::Command)) -> Served {
        let mut command = command(&self.place.path(""));
        command.args(args).env("WINDLASS_STORE", &self.store.url).stdout(Stdio::piped()).stderr(Stdio::null());
        more(&mut command);
        let mut child = command.spawn().expect("a process");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its stdout");
        BufReader::new(stdout).read_line(&mut line).expect("it says something");
        let said = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Served { child, said }
    }

    fn show(&self, run: &str) -> Json {
        self.run(&["runs", "show", run, "--json"]).json()
    }

    /// Waits until the store says this status of a run.
    fn until(&self, run: &str, status: &str) -> Json {
        self.until_all(&format!("run `{run}` is `{status}`"), || {
            let shown = self.show(run);
            (shown["status"] == status).then_some(shown)
        })
    }

    /// Waits until a run has completed, and gives its output.
    fn output(&self, run: &str) -> Json {
        self.until(run, "completed");
        self.run(&["resume", run]).json()
    }

    fn until_all<T>(&self, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = check() {
                return found;
            }
            if began.elapsed() >= PATIENCE {
                let (stuck, workers) = (self.run(&["runs", "stuck", "--older", "0s"]), self.run(&["workers", "list"]));
                panic!("waited in vain: {what}\n{}\n{}", stuck.shown(), workers.shown());
            }
        }
    }

    fn is_sound(&self) {
        let found = self.run(&["fsck", "--json"]);
        assert_eq!(found.json()["findings"], json!([]), "{}", found.shown());
    }
}

impl Served {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal).expect("signalled");
    }

    /// Told to stop, and waited for.
    fn stop(self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// Waited for. A second word would end it at once.
    fn ended(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    fn get(&self, path: &str) -> (u16, String) {
        let address = self.said["listen"].as_str().and_then(|url| url.strip_prefix("http://")).expect("it listens");
        let mut stream = TcpStream::connect(address).expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status"), body.to_owned())
    }

    /// One of its numbers.
    fn number(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_default();
        line.parse().unwrap_or_else(|_| panic!("no `{name}` in\n{text}"))
    }
}

const FAN: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: fan
  context: {items: input.items}
  settings: {max_launches: 2000}
  machines: {leaf: ./leaf.yml}
  states:
    go:
      type: initial
      foreach: context.items
      machine: leaf
      output_to_context: {results: output}
      transitions: [{to: done}]
    done:
      type: final
      output: {count: "{{ context.results | length }}"}
"#;

const LEAF: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: leaf
  states:
    a: {type: initial, transitions: [{to: b}]}
    b: {transitions: [{to: done}]}
    done: {type: final, output: {ok: true}}
"#;

/// A machine that performs one action and ends with its output.
const ACTS: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: acts
  states:
    act:
      type: initial
      action: act
      output_to_context: {answer: output}
      transitions: [{to: done}]
    done: {type: final, output: {answer: context.answer}}
"#;

/// The action of [`ACTS`] as a shell script.
fn action(script: &str) -> String {
    format!(
        "[actions.act]\ntype = \"command\"\nclass = \"read\"\nidempotency = \"natural\"\n\
         command = [\"sh\", \"-c\", '{script}']\n[worker]\ngrace = \"20s\"\n"
    )
}

#[test]
fn two_workers_share_a_thousand_children_and_end_when_they_are_told() {
    let fleet = Fleet::new();
    fleet.write("fan.yml", FAN);
    fleet.write("leaf.yml", LEAF);
    let items: Vec<u32> = (0..1_000).collect();
    fleet.write("input.json", &json!({ "items": items }).to_string());
    let workers = [(); 2].map(|()| fleet.start(&["worker", "--listen", "127.0.0.1:0"]));
    fleet.submit("fan.yml", "fan", &["--input", "@input.json"]);
    assert_eq!(fleet.output("fan"), json!({ "count": 1_000 }));
    let runs = |worker: &Served| worker.number("windlass_runs_ended_total");
    assert!(workers.iter().all(|worker| runs(worker) > 0.0), "both had a part");
    assert_eq!(workers.iter().map(runs).sum::<f64>(), 1_001.0, "each run ended once");
    assert_eq!(fleet.run(&["workers", "--json"]).json()["workers"].as_array().map(Vec::len), Some(2));
    for worker in workers {
        assert_eq!(worker.stop().code(), Some(0));
    }
    assert_eq!(fleet.run(&["workers", "--json"]).json()["workers"], json!([]));
    fleet.is_sound();
}

#[test]
fn the_runs_of_a_killed_worker_go_on_with_the_other() {
    let fleet = Fleet::new();
    fleet.write("acts.yml", ACTS);
    fleet.write("windlass.toml", &action("echo x >> begun; [ $(wc -l < begun) -gt 1 ] || exec sleep 600; echo 7"));
    let first = fleet.start(&["worker"]);
    fleet.submit("acts.yml", "held", &[]);
    fleet.until_all("the call is out", || fleet.place.path("begun").exists().then_some(()));
    let second = fleet.start(&["worker"]);
    first.signal(Signal::SIGKILL);
    assert_eq!(fleet.output("held"), json!({ "answer": 7 }));
    assert_eq!(second.stop().code(), Some(0));
    fleet.is_sound();
}

#[test]
fn a_worker_that_is_told_to_stop_lets_its_calls_end_and_gives_its_runs_back() {
    for word in [Signal::SIGTERM, Signal::SIGHUP] {
        gives_back(word);
    }
}

fn gives_back(word: Signal) {
    let fleet = Fleet::new();
    let two = ACTS.replace("transitions: [{to: done}]", "transitions: [{to: again}]").replace(
        "    done:",
        "    again: {action: act, output_to_context: {second: output}, transitions: [{to: done}]}\n    done:",
    );
    fleet.write("acts.yml", &two);
    fleet.write("windlass.toml", &action("echo x >> begun; while [ ! -e go ]; do sleep 0.05; done; wc -l < begun"));
    let worker = fleet.start(&["serve", "--listen", "127.0.0.1:0"]);
    fleet.submit("acts.yml", "held", &[]);
    fleet.until_all("the call is out", || fleet.place.path("begun").exists().then_some(()));
    worker.signal(word);
    if word == Signal::SIGHUP {
        // A terminal that is closed says so more than once.
        worker.signal(word);
    }
    fleet.until_all("it is not ready", || (worker.get("/readyz").0 == 503).then_some(()));
    fleet.write("go", "");
    assert_eq!(worker.ended().code(), Some(0));
    let shown = fleet.show("held");
    assert_eq!((&shown["status"], &shown["state"]), (&json!("queued"), &json!("again")), "{shown}");
    let resumed = fleet.run(&["resume", "held"]);
    assert_eq!(resumed.json(), json!({ "answer": 1 }), "what was settled was not done again: {}", resumed.shown());
}

#[test]
fn a_second_word_ends_a_worker_at_once() {
    let fleet = Fleet::new();
    fleet.write("acts.yml", ACTS);
    fleet.write("windlass.toml", &action("touch begun; exec sleep 600"));
    let mut worker = fleet.start(&["worker"]);
    fleet.submit("acts.yml", "held", &[]);
    fleet.until_all("the call is out", || fleet.place.path("begun").exists().then_some(()));
    worker.signal(Signal::SIGTERM);
    fleet.until_all("the second word is heard", || {
        worker.signal(Signal::SIGTERM);
        worker.child.try_wait().expect("a status").map(|status| assert_eq!(status.code(), Some(130)))
    });
}

#[test]
fn a_thousand_timers_that_are_due_at_once_fire_when_workers_come_back() {
    let fleet = Fleet::new();
    let waits = LEAF.replace(
        "a: {type: initial, transitions: [{to: b}]}",
        "a: {type: initial, wait_for: never, timeout: 12, on_error: b, transitions: [{to: b}]}",
    );
    fleet.write("fan.yml", FAN);
    fleet.write("leaf.yml", &waits);
    let items: Vec<u32> = (0..1_000).collect();
    fleet.write("input.json", &json!({ "items": items }).to_string());
    let first = fleet.start(&["worker"]);
    fleet.submit("fan.yml", "fan", &["--input", "@input.json"]);
    fleet.until_all("all children exist", || {
        let waiting =
            fleet.run(&["runs", "list", "--below", "fan", "--status", "waiting", "--all", "--limit", "1000", "--json"]);
        (waiting.json()["runs"].as_array().map(Vec::len) == Some(1_000)).then_some(())
    });
    first.signal(Signal::SIGKILL);
    let workers = [(); 3].map(|()| fleet.start(&["worker"]));
    assert_eq!(fleet.output("fan"), json!({ "count": 1_000 }));
    for worker in workers {
        assert_eq!(worker.stop().code(), Some(0));
    }
    fleet.is_sound();
}
