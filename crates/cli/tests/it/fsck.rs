//! What a store says of its runs is compared with their journals: every damaged column is found and named, on both
//! stores, and nothing that cannot be read ends the check.

use serde_json::Value as Json;

use crate::kit::Place;

/// A machine that starts another one and waits for it.
const PARENT: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: parent
  machines:
    child: ./waits.yml
  states:
    call:
      type: initial
      machine: child
      input:
        order: 9
      output_to_context:
        approved: output.approved
      transitions:
        - to: done
    done:
      type: final
      output:
        approved: context.approved
"#;

/// A store and a way to damage it.
struct Victim {
    place: Place,
    url: String,
    database: Option<windlass_testpg::Database>,
}

impl Victim {
    fn sqlite() -> Self {
        let place = Place::new();
        let url = format!("sqlite:{}", place.path("w.db").display());
        Self { place, url, database: None }.filled()
    }

    fn postgres() -> Self {
        let database = windlass_testpg::database();
        Self { place: Place::new(), url: database.url(), database: Some(database) }.filled()
    }

    /// A run that ended, one that waits, and one that waits for another.
    fn filled(self) -> Self {
        self.place.write("parent.yml", PARENT);
        for (args, code) in [
            (["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", "done-1"], 0),
            (["run", "waits.yml", "--input", r#"{"order":7}"#, "--run-id", "order-1"], 7),
            (["run", "parent.yml", "--input", "{}", "--run-id", "top-1"], 7),
        ] {
            let ran = self.windlass(&args);
            assert_eq!(ran.code(), code, "{}", ran.shown());
        }
        self
    }

    fn windlass(&self, args: &[&str]) -> crate::kit::Ran {
        self.place.with(args, |command| {
            command.env("WINDLASS_STORE", &self.url);
        })
    }

    /// Runs statements. `{run NAME}` stands for how the tables beside `runs` name a run.
    fn execute(&self, sql: &str) {
        let mut text = sql.to_owned();
        for name in ["done-1", "order-1", "top-1"] {
            let key = match self.database {
                Some(_) => format!("'{name}'"),
                None => format!("(SELECT key FROM runs WHERE id = '{name}')"),
            };
            text = text.replace(&format!("{{run {name}}}"), &key);
        }
        match &self.database {
            Some(database) => {
                let all = format!("SET session_replication_role = replica; {text}");
                database.execute(&all).unwrap_or_else(|error| panic!("{text}: {error}"));
            }
            None => {
                let connection = rusqlite::Connection::open(self.place.path("w.db")).expect("the file");
                connection.execute_batch(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            }
        }
    }

    fn findings(&self, what: &str) -> Vec<Json> {
        let ran = self.windlass(&["fsck", "--json"]);
        let found = ran.json();
        let findings = found["findings"].as_array().expect("findings").clone();
        let code = if findings.is_empty() { 0 } else { 3 };
        assert_eq!((ran.code(), &found["ok"]), (code, &Json::Bool(findings.is_empty())), "{what}: {}", ran.shown());
        findings
    }

    fn assert_sound(&self, what: &str) {
        assert_eq!(self.findings(what), [Json::Null; 0], "{what}");
    }

    /// Damages, looks, and puts everything back.
    fn assert_found(&self, damage: &str, back: &str, run: &str, words: &str) {
        self.execute(damage);
        let findings = self.findings(damage);
        let is_told = |finding: &Json| {
            let message = finding["message"].as_str().unwrap_or_default();
            finding["run"] == run && finding["rule"] == "derived" && message.contains(words)
        };
        assert!(findings.iter().any(is_told), "{damage}: wanted {words}: {findings:?}");
        let verified = self.windlass(&["verify", run, "--json"]);
        let told = verified.json();
        assert_eq!((verified.code(), &told["ok"]), (3, &Json::Bool(false)), "{damage}: {}", verified.shown());
        let message = told["difference"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{damage}: {message}");
        assert!(told["difference"]["expected"].is_string() && told["difference"]["actual"].is_string(), "{told}");
        self.execute(back);
    }
}

/// Of each: what is done, how it is undone, to which run, and what is said.
const DAMAGES: &[(&str, &str, &str, &str)] = &[
    (
        "UPDATE runs SET status = 7 WHERE id = 'done-1'",
        "UPDATE runs SET status = 6 WHERE id = 'done-1'",
        "done-1",
        "`status` is `failed`, and the journal says `completed`",
    ),
    (
        "UPDATE runs SET status = 1 WHERE id = 'order-1'",
        "UPDATE runs SET status = 2 WHERE id = 'order-1'",
        "order-1",
        "`status` is `running`, and the journal says `waiting`",
    ),
    (
        "UPDATE runs SET state = 'other' WHERE id = 'order-1'",
        "UPDATE runs SET state = 'ask' WHERE id = 'order-1'",
        "order-1",
        "`state` is `other`, and the journal says `ask`",
    ),
    (
        "UPDATE runs SET state = NULL WHERE id = 'order-1'",
        "UPDATE runs SET state = 'ask' WHERE id = 'order-1'",
        "order-1",
        "`state` is none, and the journal says `ask`",
    ),
    (
        "UPDATE runs SET step = step + 40 WHERE id = 'done-1'",
        "UPDATE runs SET step = step - 40 WHERE id = 'done-1'",
        "done-1",
        "`step` is 4",
    ),
    (
        "UPDATE runs SET tokens = tokens + 7 WHERE id = 'done-1'",
        "UPDATE runs SET tokens = tokens - 7 WHERE id = 'done-1'",
        "done-1",
        "`tokens` is 35, and the journal says 28",
    ),
    (
        "UPDATE runs SET cost_micros = cost_micros + 7 WHERE id = 'done-1'",
        "UPDATE runs SET cost_micros = cost_micros - 7 WHERE id = 'done-1'",
        "done-1",
        "`cost_micros` is",
    ),
    (
        "UPDATE runs SET updated_at = updated_at - 1 WHERE id = 'done-1'",
        "UPDATE runs SET updated_at = updated_at + 1 WHERE id = 'done-1'",
        "done-1",
        "`updated_at` is",
    ),
    (
        "UPDATE runs SET parent = NULL WHERE id LIKE 'top-1~%'",
        "UPDATE runs SET parent = {run top-1} WHERE id LIKE 'top-1~%'",
        "top-1~1.0",
        "`parent` is none, and the journal says `top-1`",
    ),
    (
        "UPDATE starts SET depth = depth + 1 WHERE run = {run order-1}",
        "UPDATE starts SET depth = depth - 1 WHERE run = {run order-1}",
        "order-1",
        "`depth` is 1, and the journal says 0",
    ),
    (
        "UPDATE starts SET machine = 'other' WHERE run = {run order-1}",
        "UPDATE starts SET machine = 'waits' WHERE run = {run order-1}",
        "order-1",
        "`machine` is `other`, and the journal says `waits`",
    ),
    (
        "UPDATE waits SET channel = 'x' WHERE run = {run order-1}",
        "UPDATE waits SET channel = 'approvals/7' WHERE run = {run order-1}",
        "order-1",
        "is channel `x`",
    ),
    (
        "UPDATE waits SET due = 5 WHERE run = {run order-1}",
        "UPDATE waits SET due = NULL WHERE run = {run order-1}",
        "order-1",
        "and the journal says channel `approvals/7`",
    ),
    (
        "UPDATE waits SET effect = effect + 100 WHERE run = {run order-1}",
        "UPDATE waits SET effect = effect - 100 WHERE run = {run order-1}",
        "order-1",
        "is missing, and the journal says channel",
    ),
    (
        "UPDATE runs SET wake_at = coalesce(wake_at, 0) + 99999999999999 WHERE id = 'order-1'",
        "UPDATE runs SET wake_at = nullif(wake_at - 99999999999999, 0) WHERE id = 'order-1'",
        "order-1",
        "`wake_at` is",
    ),
];

fn every_column(victim: &Victim) {
    victim.assert_sound("as it was written");
    for (damage, back, run, words) in DAMAGES {
        victim.assert_found(damage, back, run, words);
    }
    victim.assert_sound("with everything put back");
    victim.execute("UPDATE runs SET version = version + 1 WHERE id = 'done-1'");
    let findings = victim.findings("a version more");
    assert!(findings.iter().any(|finding| finding["rule"] == "journal_gap"), "{findings:?}");
    victim.execute("UPDATE runs SET version = version - 1 WHERE id = 'done-1'");
}

#[test]
fn every_damaged_column_is_found_in_a_file() {
    every_column(&Victim::sqlite());
}

#[test]
fn every_damaged_column_is_found_in_a_database() {
    every_column(&Victim::postgres());
}

#[test]
fn what_cannot_be_read_is_a_finding_and_the_rest_is_checked() {
    let victim = Victim::sqlite();
    victim.execute(
        "UPDATE journal SET record = CAST(record AS TEXT) WHERE run = {run order-1} AND version = 1; \
         UPDATE starts SET tags = x'7b' WHERE run = {run top-1}; \
         UPDATE snapshots SET bytes = 'text'; UPDATE blobs SET bytes = 5 WHERE key = (SELECT min(key) FROM blobs); \
         UPDATE runs SET priority = 'high' WHERE id = 'order-1'; UPDATE runs SET tokens = tokens + 7 WHERE id = 'done-1'",
    );
    let findings = victim.findings("texts where bytes belong");
    let told = |run: Option<&str>, rule: &str, words: &str| {
        let is = |finding: &Json| {
            finding["run"].as_str() == run
                && finding["rule"] == rule
                && finding["message"].as_str().is_some_and(|message| message.contains(words))
        };
        assert!(findings.iter().any(is), "{run:?} {rule} {words}: {findings:?}");
    };
    told(Some("order-1"), "integrity", "record 1: ");
    told(Some("order-1"), "integrity", "its row cannot be read");
    told(Some("top-1"), "integrity", "its tags are not those");
    told(None, "blob", "it is stored as integer and not as bytes");
    told(Some("done-1"), "derived", "`tokens` is 35, and the journal says 28");
}

#[test]
fn damaged_payloads_of_a_database_are_findings_and_the_rest_is_checked() {
    let victim = Victim::postgres();
    victim.execute(
        "UPDATE journal SET record = '' WHERE run = 'order-1' AND version = 1; \
         UPDATE journal SET blobs = '\\x01' WHERE run = 'top-1' AND version = 1; \
         UPDATE runs SET priority = 9 WHERE id = 'order-1'; UPDATE runs SET tokens = tokens + 7 WHERE id = 'done-1'",
    );
    let findings = victim.findings("empty records");
    for (run, rule) in [("order-1", "integrity"), ("top-1", "blob"), ("done-1", "derived")] {
        assert!(findings.iter().any(|finding| finding["run"] == run && finding["rule"] == rule), "{run}: {findings:?}");
    }
}

#[test]
fn a_child_that_is_gone_is_missed() {
    for victim in [Victim::sqlite(), Victim::postgres()] {
        victim.execute("DELETE FROM runs WHERE id LIKE 'top-1~%'");
        let findings = victim.findings("a child is gone");
        let is = |finding: &Json| {
            finding["run"] == "top-1"
                && finding["message"].as_str().is_some_and(|message| message.starts_with("child `top-1~"))
        };
        assert!(findings.iter().any(is), "{findings:?}");
    }
}

#[test]
fn the_sources_of_published_versions_are_checked_on_both_stores() {
    for victim in [Victim::sqlite(), Victim::postgres()] {
        let publish = || assert_eq!(victim.windlass(&["versions", "publish", "asks", "asks.yml"]).code(), 0);
        publish();
        victim.assert_sound("published");
        victim.execute("DELETE FROM objects WHERE kind = 'machine_sources'");
        let findings = victim.findings("sources are gone");
        assert_eq!(findings.len(), 1, "{findings:?}");
        let message = findings[0]["message"].as_str().unwrap_or_default();
        assert_eq!(findings[0]["rule"], "version");
        assert!(message.contains("the sources of `asks@1`"), "{message}");
        publish();
        victim.assert_sound("published again");
    }
}
