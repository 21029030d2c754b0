//! The failures that the pages are about, made to happen before their steps are executed.

use std::process::{Command, Stdio};

use windlass_testpg::{Options, Server, Stop, database};

use super::book::Book;
use crate::kit::{Place, Ran};

const STORE: &str = "sqlite:windlass.db";

/// A machine that performs one action, and gives back one member of its answer.
const ACTS: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: acts
  states:
    act:
      type: initial
      action: act
      output_to_context:
        KEY: output.KEY
      transitions:
        - to: done
    done:
      type: final
      output:
        KEY: context.KEY
"#;

fn windlass(place: &Place, args: &[&str]) -> Ran {
    on(place, STORE, args)
}

fn on(place: &Place, store: &str, args: &[&str]) -> Ran {
    place.windlass(&[args, &["--store", store]].concat())
}

fn configure(place: &Place, key: &str, action: &str) {
    let config = format!("[providers.scripted]\nscript = \"script.yml\"\n[actions.act]\ntype = \"command\"\n{action}");
    place.write("windlass.toml", &config);
    place.write("acts.yml", &ACTS.replace("KEY", key));
}

fn asks(place: &Place, run: &str, more: &[&str]) -> Ran {
    windlass(place, &[&["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", run], more].concat())
}

/// A run that waits for an answer on `approvals/ORDER`.
fn waits(place: &Place, run: &str, order: u32) {
    let input = format!("{{\"order\":{order}}}");
    let ran = windlass(place, &["run", "waits.yml", "--input", &input, "--run-id", run]);
    assert_eq!(ran.code(), 7, "{}", ran.shown());
}

/// A process that is killed while its call is out.
fn killed_at_work(place: &Place, run: &str) {
    let answers = std::fs::read_to_string(place.path("script.yml")).expect("script");
    place.write("script.yml", "rules: []\ndefault: {content: late, delay_ms: 60000}\n");
    let mut command: Command = crate::kit::command(&place.path(""));
    command.args(["run", "asks.yml", "--input", "{}", "--run-id", run, "--events", "events", "--store", STORE]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    while !std::fs::read_to_string(place.path("events")).is_ok_and(|text| text.contains("call_intended")) {
        assert!(child.try_wait().expect("state").is_none(), "it ended too soon");
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    place.write("script.yml", &answers);
}

pub(crate) fn overview(book: &Book) {
    let place = Place::new();
    for number in 0..20 {
        asks(&place, &format!("r{number}"), &[]);
    }
    book.play(&place, &[], |_| {});
}

pub(crate) fn stuck_runs(book: &Book) {
    let place = Place::new();
    book.play(&place, &[], |heading| match heading {
        "Where is it stuck" => {
            asks(&place, "order-4711", &["--detach"]);
        }
        "The worker was lost" => {
            windlass(&place, &["runs", "prune", "--older-than", "0"]);
            killed_at_work(&place, "order-4711");
        }
        "A person has to decide" => {
            // The first call is made, and takes its caller down before it answers.
            configure(
                &place,
                "receipt",
                "command = [\"/bin/sh\", \"-c\", \"test -e paid && exit 1; touch paid; kill -9 $PPID; sleep 60\"]\n\
                 class = \"write\"\nidempotency = \"none\"\non_unknown = \"ask\"\n",
            );
            windlass(&place, &["run", "acts.yml", "--run-id", "pay-1"]);
            let parked = windlass(&place, &["resume", "pay-1"]);
            assert_eq!(parked.code(), 7, "{}", parked.shown());
        }
        "It waits" => waits(&place, "order-4712", 7),
        "It was paused" => {
            waits(&place, "order-4713", 8);
            windlass(&place, &["runs", "pause", "order-4713"]);
        }
        _ => {}
    });
}

/// Workers that a run takes down, with nothing else in hand, before nobody gets it any more.
const LOSSES: u32 = 3;

pub(crate) fn poisoned_work(book: &Book) {
    let (place, database) = (Place::new(), database());
    let url = database.url();
    let contract = "class = \"read\"\nidempotency = \"natural\"\n";
    configure(&place, "by", &format!("command = [\"/bin/sh\", \"-c\", \"kill -9 $PPID; sleep 60\"]\n{contract}"));
    for run in ["order-4711", "order-4712"] {
        let ran = on(&place, &url, &["run", "acts.yml", "--run-id", run]);
        assert_eq!(ran.code(), -1, "its worker is killed: {}", ran.shown());
        for _ in 1..LOSSES {
            let resumed = on(&place, &url, &["resume", run]);
            assert_eq!(resumed.code(), -1, "so is the next one: {}", resumed.shown());
        }
        let resumed = on(&place, &url, &["resume", run]);
        assert_eq!(resumed.code(), 7, "nobody gets it any more: {}", resumed.shown());
    }
    book.play(&place, &[("WINDLASS_STORE", &url)], |heading| {
        if heading == "Repair the cause" {
            place.write("answers.sh", "echo '{\"by\": \"sh\"}'\n");
            configure(&place, "by", &format!("command = [\"/bin/sh\", \"answers.sh\"]\n{contract}"));
        }
    });
}

pub(crate) fn restore(book: &Book) {
    let place = Place::new();
    asks(&place, "done-1", &[]);
    waits(&place, "order-4712", 7);
    waits(&place, "order-4713", 8);
    book.play(&place, &[], |heading| {
        if heading == "Is it damaged" {
            damage(&place, "windlass.db");
        }
    });
}

/// Changes the id of a run in one of the places that have it.
fn damage(place: &Place, name: &str) {
    let mut bytes = std::fs::read(place.path(name)).expect("the store");
    let at = bytes.windows(6).position(|part| part == b"done-1").expect("the run's id is somewhere");
    bytes[at] = b'x';
    std::fs::write(place.path(name), bytes).expect("damaged");
}

pub(crate) fn upgrade(book: &Book) {
    let place = Place::new();
    asks(&place, "order-4711", &["--detach"]);
    book.play(&place, &[], |_| {});
}

pub(crate) fn service_level(book: &Book) {
    let place = Place::new();
    for number in 0..20 {
        asks(&place, &format!("r{number}"), &[]);
    }
    book.play(&place, &[], |_| {});
}

pub(crate) fn database_failover(book: &Book) {
    let place = Place::new();
    let server = Server::start(Options::default());
    let database = server.database();
    let url = database.url();
    let queued = ["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", "order-4711", "--detach"];
    let ran = on(&place, &url, &queued);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    let parked = on(&place, &url, &["run", "waits.yml", "--input", r#"{"order":7}"#, "--run-id", "order-4712"]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    book.play(&place, &[("WINDLASS_STORE", &url)], |heading| match heading {
        "Is it away" => server.stop(Stop::Kill),
        "It came back by itself" => server.start_again(),
        _ => {}
    });
}
