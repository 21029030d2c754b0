//! Debug captures: off until somebody asks, bounded in time and number, without secrets, told in the audit trail. On both stores.

use serde_json::{Value as Json, json};

use crate::kit::{Place, Ran};

/// What nobody wrote: the form alone tells what it is.
const KEY: &str = "AKIAQX7EXAMPLE3KEY4Z";

struct Scene {
    place: Place,
    url: String,
    database: Option<windlass_testpg::Database>,
}

impl Scene {
    fn both() -> [Self; 2] {
        let place = Place::new();
        let url = format!("sqlite:{}", place.path("w.db").display());
        let database = windlass_testpg::database();
        [
            Self { place, url, database: None },
            Self { place: Place::new(), url: database.url(), database: Some(database) },
        ]
    }

    fn windlass(&self, args: &[&str]) -> Ran {
        self.place.with(args, |command| {
            command.env("WINDLASS_STORE", &self.url).env("USER", "olga").env("OPENAI_API_KEY", "canary-of-the-model");
        })
    }

    fn ok(&self, args: &[&str]) -> Json {
        let ran = self.windlass(args);
        assert_eq!(ran.code(), 0, "{args:?}: {}", ran.shown());
        ran.json()
    }

    fn asked(&self, run: &str, tenant: &str) {
        let input =
            json!({ "topic": format!("{KEY} and canary-of-the-model, asks anna@kestrel-works.co") }).to_string();
        self.ok(&["run", "asks.yml", "--input", &input, "--run-id", run, "--tenant", tenant, "--user", "ann"]);
    }

    fn capture(&self, more: &[&str]) -> String {
        let args: Vec<&str> =
            ["debug", "capture", "--reason", "the total is wrong"].iter().chain(more).copied().collect();
        self.ok(&args)["capture"].as_str().expect("a name").to_owned()
    }

    fn calls(&self, capture: &str) -> Vec<Json> {
        self.ok(&["debug", "show", capture])["calls"].as_array().expect("calls").clone()
    }

    fn kept(&self) -> i64 {
        let sql = "SELECT count(*) FROM objects WHERE kind LIKE 'debug%' AND bytes IS NOT NULL";
        match &self.database {
            Some(database) => database.value(sql).parse().expect("a number"),
            None => {
                let connection = rusqlite::Connection::open(self.place.path("w.db")).expect("the file opens");
                connection.query_row(sql, [], |row| row.get(0)).expect("counted")
            }
        }
    }
}

fn runs(calls: &[Json]) -> Vec<&str> {
    calls.iter().map(|call| call["run"].as_str().expect("a run")).collect()
}

#[test]
fn calls_are_kept_in_full_while_somebody_asks_and_without_secrets() {
    for scene in Scene::both() {
        scene.asked("before", "acme");
        assert_eq!(scene.kept(), 0, "it is off until somebody asks");
        let refused = scene.windlass(&["debug", "capture", "--for", "15m"]);
        assert_eq!(refused.code(), 2, "of which calls has to be said: {}", refused.shown());
        assert_eq!(scene.windlass(&["debug", "capture", "--run", "a", "--for", "48h"]).code(), 2);
        let capture = scene.capture(&["--machine", "asks", "--tenant", "acme", "--for", "15m", "--calls", "2"]);
        let one = scene.capture(&["--run", "other", "--user", "ann"]);
        let nobody = scene.capture(&["--user", "bob"]);
        scene.asked("a", "acme");
        scene.asked("other", "beta");
        let calls = scene.calls(&capture);
        assert_eq!(runs(&calls), ["a"]);
        assert_eq!((&calls[0]["kind"], &calls[0]["target"]), (&json!("model"), &json!("writer")));
        let asked = calls[0]["asked"]["messages"].to_string();
        assert!(asked.contains("You write one line.") && asked.contains("Write about"), "{asked}");
        assert_eq!(calls[0]["answered"]["replied"]["content"], "Tides turn twice a day.");
        for secret in [KEY, "canary-of-the-model", "anna@kestrel-works.co"] {
            assert!(!json!(calls).to_string().contains(secret), "{secret} is in {calls:?}");
        }
        assert_eq!(runs(&scene.calls(&one)), ["other"]);
        assert_eq!(scene.calls(&nobody), Vec::<Json>::new());
        for run in ["b", "c"] {
            scene.asked(run, "acme");
        }
        assert_eq!(runs(&scene.calls(&capture)), ["a", "b"], "as many as were asked for");

        let second = scene.capture(&["--tenant", "acme"]);
        let stopped = scene.ok(&["debug", "stop", &second]);
        assert_eq!(stopped["on"], false);
        scene.asked("d", "acme");
        assert_eq!(scene.calls(&second), Vec::<Json>::new());
        let listed = scene.ok(&["debug", "list"]);
        let states = |listed: &Json| listed["captures"].as_array().expect("captures").len();
        assert_eq!(states(&listed), 4);
        let acts = scene.ok(&["audit", "acts", "--tenant", "acme"])["rows"].clone();
        assert_eq!((&acts[0]["action"], &acts[0]["actor"]), (&json!("debug.capture"), &json!("olga")), "{acts}");
        assert!(acts[0]["detail"].as_str().is_some_and(|detail| detail.contains("the total is wrong")), "{acts}");
        let looked = scene.ok(&["audit", "acts", "--action", "debug.show"])["rows"].clone();
        assert!(looked.as_array().is_some_and(|acts| acts.len() >= 3), "{looked}");

        // What was taken of a run goes with it.
        scene.ok(&["erase", "--run", "b", "--yes"]);
        assert_eq!(runs(&scene.calls(&capture)), ["a"]);
        for capture in [&capture, &one, &second, &nobody] {
            scene.ok(&["debug", "remove", capture]);
        }
        assert_eq!(scene.kept(), 0);
        assert_eq!(scene.windlass(&["debug", "show", &capture]).code(), 4);
    }
}

#[test]
fn a_capture_ends_and_what_it_took_is_removed_by_itself() {
    for scene in Scene::both() {
        let capture = scene.capture(&["--machine", "asks", "--for", "1ms", "--keep", "1ms"]);
        assert_eq!(scene.kept(), 1);
        scene.asked("a", "default");
        assert_eq!(scene.kept(), 0, "the next process that works removes it");
        assert_eq!(scene.windlass(&["debug", "show", &capture]).code(), 4);
        assert_eq!(scene.ok(&["debug", "list"])["captures"], json!([]));
    }
}

/// An action that gives back 200 KiB, with short values under `pin` before and after what is kept of it.
const LOOKS: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: looks
  states:
    look: {type: initial, action: look, transitions: [{to: done}]}
    done: {type: final}
"#;
const LOOK: &str = r#"[providers.scripted]
script = "script.yml"
[actions.look]
type = "command"
command = ["sh", "-c", """x() { head -c "$1" /dev/zero | tr '\\0' x; }
printf '{"items": [{"pin": "zq1"}, {"fill": "'; x 60000
printf '"}, {"pin": "zq2"}, {"fill": "'; x 145000; printf '"}, {"pin": "zq3"}]}'"""]
class = "read"
idempotency = "natural"
redact = { result = ["/items/*/pin"] }
"#;

#[test]
fn what_is_not_shown_is_not_in_the_part_of_a_body_that_is_kept() {
    for scene in Scene::both() {
        scene.place.write("looks.yml", LOOKS);
        scene.place.write("windlass.toml", LOOK);
        let capture = scene.capture(&["--machine", "looks"]);
        scene.ok(&["run", "looks.yml", "--input", "{}"]);
        let calls = scene.calls(&capture);
        let answered = &calls[0]["answered"];
        assert!(answered["bytes"].as_u64().is_some_and(|bytes| bytes > 200_000), "{}", answered["bytes"]);
        let text = answered["cut_text"].as_str().expect("the beginning of it");
        assert!(!text.contains("zq") && text.matches(r#""pin":"[redacted]""#).count() == 2, "{}", &text[..100]);
    }
}
