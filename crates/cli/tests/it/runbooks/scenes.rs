//! The failures that the pages are about, made to happen before their steps are executed.

use std::process::{Command, Stdio};

use windlass_testpg::{Options, Server, Stop};

use super::book::{Book, Kind};
use crate::kit::{Place, Ran};

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

/// A folder, and a store of one kind. Its server is its own, since pages break servers and make databases.
pub(crate) struct Scene {
    place: Place,
    url: String,
    server: Option<(Server, windlass_testpg::Database)>,
}

impl Scene {
    pub(crate) fn new(kind: Kind) -> Self {
        let server = (kind == Kind::Postgres).then(|| {
            let server = Server::start(Options::default());
            let database = server.database();
            (server, database)
        });
        let url = server.as_ref().map(|(_, database)| database.url());
        Self { place: Place::new(), url: url.unwrap_or_else(|| "sqlite:windlass.db".to_owned()), server }
    }

    fn server(&self) -> &Server {
        &self.server.as_ref().expect("this page is about a server").0
    }

    fn windlass(&self, args: &[&str]) -> Ran {
        self.place.windlass(&[args, &["--store", &self.url]].concat())
    }

    fn play(&self, book: &Book, before: impl FnMut(&str)) {
        book.play(&self.place, &[("WINDLASS_STORE", &self.url)], before);
    }

    fn configure(&self, key: &str, action: &str) {
        let config =
            format!("[providers.scripted]\nscript = \"script.yml\"\n[actions.act]\ntype = \"command\"\n{action}");
        self.place.write("windlass.toml", &config);
        self.place.write("acts.yml", &ACTS.replace("KEY", key));
    }

    fn asks(&self, run: &str, more: &[&str]) -> Ran {
        self.windlass(&[&["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", run], more].concat())
    }

    /// A run that waits for an answer on `approvals/ORDER`.
    fn waits(&self, run: &str, order: u32) {
        let input = format!("{{\"order\":{order}}}");
        let ran = self.windlass(&["run", "waits.yml", "--input", &input, "--run-id", run]);
        assert_eq!(ran.code(), 7, "{}", ran.shown());
    }

    /// A process that is killed while its call is out.
    fn killed_at_work(&self, run: &str) {
        let place = &self.place;
        let answers = std::fs::read_to_string(place.path("script.yml")).expect("script");
        place.write("script.yml", "rules: []\ndefault: {content: late, delay_ms: 60000}\n");
        let mut command: Command = crate::kit::command(&place.path(""));
        command.args(["run", "asks.yml", "--input", "{}", "--run-id", run, "--events", "events", "--store", &self.url]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        while !std::fs::read_to_string(place.path("events")).is_ok_and(|text| text.contains("call_intended")) {
            assert!(child.try_wait().expect("state").is_none(), "it ended too soon");
            std::thread::yield_now();
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        place.write("script.yml", &answers);
    }

    /// Changes what is stored of a run in one of the places that have it.
    fn damage(&self) {
        if let Some((_, database)) = &self.server {
            let _rows = database.execute("UPDATE runs SET tokens = tokens + 1 WHERE id = 'done-1'").expect("damaged");
            return;
        }
        let path = self.place.path("windlass.db");
        let mut bytes = std::fs::read(&path).expect("the store");
        let at = bytes.windows(6).position(|part| part == b"done-1").expect("the run's id is somewhere");
        bytes[at] = b'x';
        std::fs::write(path, bytes).expect("damaged");
    }
}

pub(crate) fn overview(scene: &Scene, book: &Book) {
    for number in 0..20 {
        scene.asks(&format!("r{number}"), &[]);
    }
    scene.play(book, |_| {});
}

pub(crate) fn stuck_runs(scene: &Scene, book: &Book) {
    scene.play(book, |heading| match heading {
        "Where is it stuck" => {
            scene.asks("order-4711", &["--detach"]);
        }
        "The worker was lost" => {
            scene.windlass(&["runs", "prune", "--older-than", "0"]);
            scene.killed_at_work("order-4711");
        }
        "A person has to decide" => {
            // The first call is made, and takes its caller down before it answers.
            scene.configure(
                "receipt",
                "command = [\"/bin/sh\", \"-c\", \"test -e paid && exit 1; touch paid; kill -9 $PPID; sleep 60\"]\n\
                 class = \"write\"\nidempotency = \"none\"\non_unknown = \"ask\"\n",
            );
            scene.windlass(&["run", "acts.yml", "--run-id", "pay-1"]);
            let parked = scene.windlass(&["resume", "pay-1"]);
            assert_eq!(parked.code(), 7, "{}", parked.shown());
        }
        "It waits" => scene.waits("order-4712", 7),
        "It was paused" => {
            scene.waits("order-4713", 8);
            scene.windlass(&["runs", "pause", "order-4713"]);
        }
        _ => {}
    });
}

/// Workers that a run takes down, with nothing else in hand, before nobody gets it any more.
const LOSSES: u32 = 3;

pub(crate) fn poisoned_work(scene: &Scene, book: &Book) {
    let contract = "class = \"read\"\nidempotency = \"natural\"\n";
    scene.configure("by", &format!("command = [\"/bin/sh\", \"-c\", \"kill -9 $PPID; sleep 60\"]\n{contract}"));
    for run in ["order-4711", "order-4712"] {
        let ran = scene.windlass(&["run", "acts.yml", "--run-id", run]);
        assert_eq!(ran.code(), -1, "its worker is killed: {}", ran.shown());
        for _ in 1..LOSSES {
            let resumed = scene.windlass(&["resume", run]);
            assert_eq!(resumed.code(), -1, "so is the next one: {}", resumed.shown());
        }
        let resumed = scene.windlass(&["resume", run]);
        assert_eq!(resumed.code(), 7, "nobody gets it any more: {}", resumed.shown());
    }
    scene.play(book, |heading| {
        if heading == "Repair the cause" {
            scene.place.write("answers.sh", "echo '{\"by\": \"sh\"}'\n");
            scene.configure("by", &format!("command = [\"/bin/sh\", \"answers.sh\"]\n{contract}"));
        }
    });
}

pub(crate) fn restore(scene: &Scene, book: &Book) {
    scene.asks("done-1", &[]);
    scene.waits("order-4712", 7);
    scene.waits("order-4713", 8);
    let restored = scene.server.as_ref().map_or_else(String::new, |(server, _)| server.url("windlass_restored"));
    let mut url = scene.url.as_str();
    for section in &book.sections {
        match section.heading.as_str() {
            "Is it damaged" => scene.damage(),
            "Decide about what was going on" if scene.server.is_some() => url = &restored,
            _ => {}
        }
        section.play(&scene.place, &[("WINDLASS_STORE", url), ("RESTORED", &restored)]);
    }
}

pub(crate) fn upgrade(scene: &Scene, book: &Book) {
    scene.asks("order-4711", &["--detach"]);
    scene.play(book, |_| {});
}

pub(crate) fn service_level(scene: &Scene, book: &Book) {
    for number in 0..20 {
        scene.asks(&format!("r{number}"), &[]);
    }
    scene.play(book, |_| {});
}

pub(crate) fn database_failover(scene: &Scene, book: &Book) {
    let queued = scene.asks("order-4711", &["--detach"]);
    assert_eq!(queued.code(), 0, "{}", queued.shown());
    scene.waits("order-4712", 7);
    scene.play(book, |heading| match heading {
        "Is it away" => scene.server().stop(Stop::Kill),
        "It came back by itself" => scene.server().start_again(),
        _ => {}
    });
}
