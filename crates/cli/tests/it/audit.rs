//! The audit trail from outside: what is listed, what is sealed, and what a check finds after somebody was at the store.
//! On both stores.

use serde_json::{Value as Json, json};
use windlass_core::audit::Row;
use windlass_runtime::audit::CallLine;

use crate::kit::{Place, Ran};

mod decided;
mod erasing;
mod pruning;

/// A store and a way into it past every check.
struct Victim {
    place: Place,
    url: String,
    database: Option<windlass_testpg::Database>,
}

impl Victim {
    fn sqlite() -> Self {
        let place = Place::new();
        let url = format!("sqlite:{}", place.path("w.db").display());
        Self { place, url, database: None }
    }

    fn postgres() -> Self {
        let database = windlass_testpg::database();
        Self { place: Place::new(), url: database.url(), database: Some(database) }
    }

    fn both() -> [Self; 2] {
        [Self::sqlite(), Self::postgres()]
    }

    fn windlass(&self, args: &[&str]) -> Ran {
        self.place.with(args, |command| {
            command.env("WINDLASS_STORE", &self.url).env("USER", "olga");
        })
    }

    fn ok(&self, args: &[&str]) -> Json {
        let ran = self.windlass(args);
        assert_eq!(ran.code(), 0, "{args:?}: {}", ran.shown());
        ran.json()
    }

    fn asked(&self, run: &str) {
        self.ok(&["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", run]);
    }

    /// Statements for a file, and for a database.
    fn execute(&self, sqlite: &str, postgres: &str) {
        match &self.database {
            Some(database) => {
                database.execute(postgres).expect("executed");
            }
            None => {
                let connection = rusqlite::Connection::open(self.place.path("w.db")).expect("the file opens");
                connection.execute_batch(sqlite).expect("executed");
            }
        }
    }

    /// Whether there is an object of a kind.
    fn has_object(&self, kind: &str) -> bool {
        let sql = format!("SELECT count(*) FROM objects WHERE kind = '{kind}'");
        match &self.database {
            Some(database) => database.value(&sql) != "0",
            None => {
                let connection = rusqlite::Connection::open(self.place.path("w.db")).expect("the file opens");
                connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).expect("counted") > 0
            }
        }
    }

    /// Whether the file of the store, or the log beside it, holds a text.
    fn holds(&self, text: &str) -> bool {
        ["w.db", "w.db-wal"].iter().any(|name| {
            let bytes = std::fs::read(self.place.path(name)).unwrap_or_default();
            bytes.windows(text.len()).any(|part| part == text.as_bytes())
        })
    }

    fn rows(&self, run: &str) -> Vec<CallLine> {
        let listed = self.ok(&["audit", "list", "--run", run]);
        let rows = listed["rows"].as_array().expect("rows").clone();
        rows.into_iter().map(|row| serde_json::from_value(row).expect("a row")).collect()
    }

    /// Puts other rows in the place of those of a decision.
    fn replace(&self, run: &str, version: u64, rows: &[Row]) {
        let bytes = serde_json::to_vec(rows).expect("JSON");
        let sum = blake3::Hasher::new().update(&[0]).update(&bytes).finalize();
        let hex: String = [0].iter().chain(&sum.as_bytes()[..4]).chain(&bytes).map(|b| format!("{b:02x}")).collect();
        self.execute(
            &format!("UPDATE journal SET audit = x'{hex}' WHERE version = {version} AND {}", of_sqlite(run)),
            &format!("UPDATE journal SET audit = '\\x{hex}' WHERE version = {version} AND run = '{run}'"),
        );
    }

    fn remove(&self, run: &str, versions: &str) {
        self.execute(
            &format!("UPDATE journal SET audit = NULL WHERE version {versions} AND {}", of_sqlite(run)),
            &format!("UPDATE journal SET audit = NULL WHERE version {versions} AND run = '{run}'"),
        );
    }

    /// What the first row of a table holds, in hexadecimal digits.
    fn first(&self, column: &str, table: &str) -> String {
        let of = format!("FROM {table} ORDER BY number LIMIT 1");
        match &self.database {
            Some(database) => database.value(&format!("SELECT encode({column}, 'hex') {of}")),
            None => {
                let connection = rusqlite::Connection::open(self.place.path("w.db")).expect("the file opens");
                let sql = format!("SELECT hex({column}) {of}");
                connection.query_row(&sql, [], |row| row.get(0)).expect("a row")
            }
        }
    }

    /// Puts rows there as those of a removed run.
    fn keep_rows(&self, number: u64, run: &str, rows: &str) {
        let insert =
            format!("INSERT INTO audit_kept (number, run, tenant, rows) VALUES ({number}, '{run}', 'default', ");
        self.execute(&format!("{insert}x'{rows}')"), &format!("{insert}'\\x{rows}')"));
    }

    /// What a check finds wrong.
    fn findings(&self, args: &[&str]) -> Vec<Json> {
        let mut line = vec!["audit", "verify"];
        line.extend(args);
        let ran = self.windlass(&line);
        let found = ran.json();
        let of = |tenant: &Json| tenant["findings"].as_array().expect("findings").clone();
        let findings: Vec<Json> = found["tenants"].as_array().expect("tenants").iter().flat_map(of).collect();
        assert_eq!(ran.code(), if findings.is_empty() { 0 } else { 3 }, "{}", ran.shown());
        assert_eq!(found["ok"], findings.is_empty());
        findings
    }
}

fn of_sqlite(run: &str) -> String {
    format!("run = (SELECT key FROM runs WHERE id = '{run}')")
}

#[test]
fn every_call_has_two_rows_that_are_sealed() {
    for victim in Victim::both() {
        victim.asked("a");
        victim.ok(&["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--tenant", "acme", "--user", "anna"]);
        let rows = victim.rows("a");
        let shown: Vec<_> = rows.iter().map(|row| (&*row.stage, &*row.kind, &*row.target, row.effect)).collect();
        assert_eq!(
            shown,
            [("started", "run", "asks", 0), ("intended", "model", "writer", 1), ("settled", "model", "writer", 1)]
        );
        assert_eq!((rows[1].idempotency_key.as_deref(), &*rows[1].class), (Some("a#1"), "read"));
        assert!(rows[2].result.as_deref().is_some_and(|result| result.len() == 64), "the hash of the answer");
        assert_eq!(rows[2].previous, rows[1].hash);
        let verified = victim.ok(&["audit", "verify"]);
        for (tenant, name) in verified["tenants"].as_array().expect("tenants").iter().zip(["acme", "default"]) {
            assert_eq!(tenant["tenant"], name);
            assert_eq!((&tenant["rows"], &tenant["sealed"], &tenant["tail"]), (&json!(3), &json!(3), &json!(0)));
        }
        let of = |args: &[&str]| {
            let args: Vec<&str> = ["audit", "list"].iter().chain(args).copied().collect();
            victim.ok(&args)["rows"].as_array().expect("rows").len()
        };
        assert_eq!(of(&[]), 6);
        assert_eq!(of(&["--tenant", "acme"]), 3);
        assert_eq!(of(&["--actor", "anna"]), 3);
        assert_eq!(of(&["--actor", "nobody"]), 0);
        assert_eq!(of(&["--tool", "writer", "--class", "read", "--since", "1h"]), 4);
        assert_eq!(of(&["--class", "danger"]), 0);
        assert_eq!(of(&["--since", "2099-01-01T00:00:00Z"]), 0);
        let (mut paged, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let mut args = vec!["audit", "list", "--limit", "4"];
            if let Some(cursor) = &cursor {
                args.extend(["--cursor", cursor.as_str()]);
            }
            let page = victim.ok(&args);
            paged.extend(page["rows"].as_array().expect("rows").clone());
            match page["next"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        assert_eq!(json!(paged), victim.ok(&["audit", "list"])["rows"]);
    }
}

#[test]
fn an_edit_a_delete_a_reorder_and_a_cut_are_found() {
    for victim in Victim::both() {
        for run in ["edited", "deleted", "moved", "cut", "forged", "sound"] {
            victim.asked(run);
        }
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        let noted = victim.ok(&["audit", "verify"])["tenants"][0]["last"].clone();
        let anchor = format!("default:{}:{}", noted["number"], noted["hash"].as_str().expect("a hash"));
        let rows = |run: &str| victim.rows(run).iter().map(CallLine::row).collect::<Vec<_>>();
        let mut edited = rows("edited");
        edited[1].target = "other".into();
        victim.replace("edited", 1, &edited[..2]);
        victim.remove("deleted", "= 1");
        let moved = rows("moved");
        victim.replace("moved", 1, &moved[2..]);
        victim.replace("moved", 2, &moved[..2]);
        victim.remove("cut", "= 2");
        let mut forged = rows("forged");
        forged[1].target = "other".into();
        forged[2].previous = forged[1].hash();
        victim.replace("forged", 1, &forged[..2]);
        victim.replace("forged", 2, &forged[2..]);
        let findings = victim.findings(&["--anchor", &anchor]);
        let first = |run: &str| {
            let found = findings.iter().find(|finding| finding["run"] == run);
            found.unwrap_or_else(|| panic!("{run}: {findings:?}"))["row"].clone()
        };
        assert_eq!(first("edited"), 2);
        assert_eq!(first("deleted"), 1);
        assert_eq!(first("moved"), 1);
        assert_eq!(first("cut"), 3);
        assert_eq!(first("forged"), 1);
        assert!(findings.iter().all(|finding| finding["run"] != "sound"), "{findings:?}");
        assert_eq!(victim.findings(&["--run", "sound"]), Vec::<Json>::new());
        assert!(!victim.findings(&["--run", "cut"]).is_empty());
        // Whoever cuts the seals as well is found by what was noted.
        let cut = "DELETE FROM audit_segments WHERE number > 1";
        victim.execute(cut, cut);
        assert!(
            victim
                .findings(&["--anchor", &anchor])
                .iter()
                .any(|finding| { finding["message"].as_str().is_some_and(|message| message.contains("cut off")) })
        );
        let gap = "DELETE FROM audit_segments WHERE number = 1";
        victim.asked("later");
        victim.execute(gap, gap);
        assert!(!victim.findings(&[]).is_empty());
    }
}

#[test]
fn whose_a_run_was_cannot_be_changed() {
    for victim in Victim::both() {
        victim.ok(&["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", "a", "--user", "anna"]);
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        let mut rows: Vec<Row> = victim.rows("a").iter().map(CallLine::row).collect();
        let owner = rows[0].owner.as_mut().expect("the first row says whose it is");
        assert_eq!((&*owner.tenant, owner.user.as_deref(), &*owner.machine), ("default", Some("anna"), "asks"));
        owner.user = Some("eve".into());
        victim.replace("a", 1, &rows[..2]);
        assert_eq!(victim.findings(&[])[0]["row"], 1);
        rows[0].owner.as_mut().expect("an owner").user = Some("anna".into());
        victim.replace("a", 1, &rows[..2]);
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        let edit = "UPDATE starts SET machine = 'other'";
        victim.execute(edit, edit);
        let findings = victim.findings(&[]);
        assert!(findings[0]["message"].as_str().is_some_and(|text| text.contains("the table of runs")), "{findings:?}");
        // The trail says what it was, whatever the tables say.
        assert_eq!(victim.rows("a")[1].machine.as_deref(), Some("asks"));
    }
}

#[test]
fn rows_that_no_seal_covers_for_long_are_found() {
    for victim in Victim::both() {
        victim.asked("a");
        // Nobody seals what comes now.
        victim.execute(
            "UPDATE audit_sealing SET rows = 1000000000",
            "UPDATE audit_sealing SET snapshot = '1000000000:1000000000:'",
        );
        let findings = victim.findings(&[]);
        assert!(findings[0]["message"].as_str().is_some_and(|text| text.contains("is not known")), "{findings:?}");
        victim.asked("b");
        assert_eq!(victim.findings(&[]), Vec::<Json>::new(), "who works next seals everything");
        let acts = victim.ok(&["audit", "acts", "--action", "audit.reseal"]);
        assert_eq!(acts["rows"].as_array().expect("acts").len(), 1, "and it stands in the trail");
        // As an hour after a seal that left something out.
        let mut rows: Vec<Row> = victim.rows("b").iter().map(CallLine::row).collect();
        let old = Row {
            v: 2,
            number: 4,
            previous: rows[2].hash(),
            at: windlass_core::time::Timestamp(rows[2].at.0 - 3_600_000),
            ..rows[2].clone()
        };
        rows.push(old);
        victim.replace("b", 2, &rows[2..]);
        let findings = victim.findings(&[]);
        assert_eq!((&findings[0]["run"], &findings[0]["row"]), (&json!("b"), &json!(4)), "{findings:?}");
        // A fabricated row of a removed run is under no seal.
        victim.ok(&["runs", "prune", "--keep", "1"]);
        let insert = "INSERT INTO audit_kept (number, run, tenant, rows) SELECT 1, 'x', tenant, rows FROM audit_kept WHERE run = 'a'";
        victim.execute(
            "INSERT INTO audit_kept (run, tenant, rows) SELECT 'x', tenant, rows FROM audit_kept WHERE run = 'a'",
            insert,
        );
        assert!(victim.findings(&[]).iter().any(|finding| finding["run"] == "x"));
    }
}

#[test]
fn one_row_that_cannot_be_read_holds_up_nobody_else() {
    for victim in Victim::both() {
        victim.asked("bad");
        victim.execute(
            &format!("UPDATE journal SET audit = x'00112233' WHERE version = 2 AND {}", of_sqlite("bad")),
            "UPDATE journal SET audit = '\\x00112233' WHERE version = 2 AND run = 'bad'",
        );
        victim
            .execute("UPDATE audit_sealing SET rows = 0", "UPDATE audit_sealing SET snapshot = '1:1:', backlog = NULL");
        victim.ok(&["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", "b", "--tenant", "acme"]);
        victim.asked("c");
        let ran = victim.windlass(&["audit", "verify"]);
        let tenants = ran.json()["tenants"].clone();
        assert_eq!((&tenants[0]["tenant"], &tenants[0]["sealed"]), (&json!("acme"), &json!(3)), "{}", ran.shown());
        assert_eq!((&tenants[1]["runs"], &tenants[1]["sealed"]), (&json!(1), &json!(3)), "{}", ran.shown());
        let listed = victim.windlass(&["audit", "list"]);
        assert_eq!(listed.code(), 3, "something is left out: {}", listed.shown());
        assert_eq!(listed.json()["rows"].as_array().expect("rows").len(), 6);
        let unread = listed.json()["unread"].clone();
        assert_eq!((unread.as_array().map(Vec::len), &unread[0]["run"]), (Some(1), &json!("bad")), "{unread}");
        assert!(unread[0]["message"].as_str().is_some_and(|text| text.contains("after audit row 2")), "{unread}");
        let findings = victim.findings(&[]);
        assert_eq!((findings.len(), &findings[0]["run"]), (1, &json!("bad")), "{findings:?}");
        assert!(findings[0]["message"].as_str().is_some_and(|text| text.contains("after audit row 2")), "{findings:?}");
        assert_eq!(
            victim.windlass(&["audit", "export", "--out", "all.jsonl"]).code(),
            3,
            "it says that something is left out"
        );
        let read = victim.findings(&["all.jsonl"]);
        assert_eq!((read.len(), &read[0]["run"]), (1, &json!("bad")), "{read:?}");
        victim.ok(&["audit", "export", "--tenant", "acme", "--out", "acme.jsonl"]);
        assert_eq!(victim.findings(&["acme.jsonl"]), Vec::<Json>::new());
        // Nor does one of a removed run.
        victim.ok(&["erase", "--tenant", "acme", "--yes"]);
        let edit = "UPDATE audit_kept SET rows = ";
        victim.execute(&format!("{edit}x'00'"), &format!("{edit}'\\x00'"));
        assert_eq!(victim.findings(&["--tenant", "acme"])[0]["run"], "b");
        assert_eq!(victim.findings(&["--tenant", "default"]).len(), 1);
    }
}

/// As `openssl genpkey -algorithm ed25519` writes them.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
const OTHER: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";

#[test]
fn an_export_is_checked_without_the_store() {
    let victim = Victim::sqlite();
    for (name, text) in [("key.pem", KEY), ("public.pem", PUBLIC), ("other.pem", OTHER)] {
        victim.place.write(name, text);
    }
    victim.asked("a");
    victim.asked("b");
    victim.ok(&["audit", "export", "--out", "all.jsonl", "--sign", "key.pem"]);
    victim.ok(&["audit", "export", "--run", "b", "--out", "b.jsonl"]);
    assert_ne!(victim.windlass(&["audit", "export", "--out", "all.jsonl"]).code(), 0, "nothing is overwritten");
    let text = std::fs::read_to_string(victim.place.path("all.jsonl")).expect("a file");
    std::fs::remove_file(victim.place.path("w.db")).expect("the store is gone");
    let checked = victim.ok(&["audit", "verify", "all.jsonl", "--public-key", "public.pem"]);
    assert_eq!(checked["signed_by"], "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
    assert_eq!(checked["tenants"][0]["sealed"], 6);
    let one = victim.ok(&["audit", "verify", "b.jsonl"]);
    assert_eq!((&one["tenants"][0]["sealed"], &one["signed_by"]), (&json!(3), &Json::Null));
    assert!(!victim.findings(&["all.jsonl", "--public-key", "other.pem"]).is_empty());
    assert!(!victim.findings(&["b.jsonl", "--public-key", "public.pem"]).is_empty());
    let lines: Vec<&str> = text.lines().collect();
    let written = |lines: &[&str]| victim.place.write("bad.jsonl", &format!("{}\n", lines.join("\n")));
    for (what, place) in [("segment", 1), ("call", 3)] {
        assert!(lines[place].contains(&format!(r#""type":"{what}""#)), "{}", lines[place]);
        let mut bad = lines.clone();
        bad.remove(place);
        written(&bad);
        assert!(!victim.findings(&["bad.jsonl"]).is_empty(), "without a {what}");
    }
    let edited = text.replace(r#""target":"writer""#, r#""target":"editor""#);
    victim.place.write("bad.jsonl", &edited);
    assert!(!victim.findings(&["bad.jsonl"]).is_empty());
    written(&lines[..lines.len() - 2]);
    assert!(!victim.findings(&["bad.jsonl"]).is_empty(), "cut off");
    victim.place.write("bad.jsonl", "{}\n");
    assert_eq!(victim.windlass(&["audit", "verify", "bad.jsonl"]).code(), 2);
}

#[test]
fn what_people_do_stands_in_the_trail_with_their_names() {
    for victim in Victim::both() {
        let ran =
            victim.windlass(&["run", "waits.yml", "--input", r#"{"order":7}"#, "--run-id", "w", "--tenant", "acme"]);
        assert_eq!(ran.code(), 7, "{}", ran.shown());
        victim.ok(&["runs", "pause", "w", "--reason", "lunch"]);
        victim.ok(&["runs", "unpause", "w"]);
        victim.ok(&["runs", "cancel", "--where", "tenant=acme"]);
        victim.ok(&["runs", "cancel", "w", "--reason", "no longer wanted"]);
        assert_ne!(victim.windlass(&["runs", "cancel", "nobody"]).code(), 0);
        victim.ok(&["runs", "prune", "--keep", "0"]);
        let acts = |args: &[&str]| {
            let args: Vec<&str> = ["audit", "acts"].iter().chain(args).copied().collect();
            let listed = victim.ok(&args);
            let shown = |act: &Json| format!("{} {} {}", act["actor"], act["action"], act["detail"]).replace('"', "");
            listed["rows"].as_array().expect("rows").iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(
            acts(&["--tenant", "acme"]),
            ["olga run.pause lunch", "olga run.unpause null", "olga run.cancel no longer wanted"]
        );
        assert_eq!(acts(&[]), ["olga runs.prune beyond the newest 0"]);
        assert_eq!(acts(&["--actor", "anna"]), Vec::<String>::new());
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        let edit = "UPDATE audit_acts SET bytes = (SELECT bytes FROM audit_acts WHERE number = 3) WHERE number = 2";
        victim.execute(edit, edit);
        assert!(!victim.findings(&[]).is_empty());
    }
}

#[test]
fn acts_say_what_was_changed_from_what_to_what_and_in_whose_trail() {
    for victim in Victim::both() {
        let acts = |tenant: &str| {
            let listed = victim.ok(&["audit", "acts", "--tenant", tenant]);
            let shown = |act: &Json| format!("{} {} {}", act["action"], act["subject"], act["detail"]).replace('"', "");
            listed["rows"].as_array().expect("rows").iter().map(shown).collect::<Vec<_>>()
        };
        // The first command on a store makes it.
        victim.ok(&["budgets", "set", "tenant:acme", "--cost-micros", "50", "--period", "day"]);
        victim.ok(&["budgets", "raise", "tenant:acme", "--cost-micros", "10"]);
        victim.ok(&["budgets", "remove", "tenant:acme", "--by", "eva"]);
        let removed = victim.ok(&["audit", "acts", "--tenant", "acme", "--actor", "eva"]);
        assert_eq!(removed["rows"].as_array().expect("rows").len(), 1, "{removed}");
        assert_eq!(
            acts("acme"),
            [
                "budget.set tenant:acme cost_micros 50; period day, beyond fail, near 80; before: none",
                "budget.raise tenant:acme cost_micros +10; before: cost_micros 50",
                "budget.remove tenant:acme removed; before: cost_micros 60"
            ]
        );
        assert_eq!(acts("default"), Vec::<String>::new());
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        for args in [
            &["readonly", "on", "--tenant", "", "--by", "olga", "--reason", "x"][..],
            &["readonly", "on", "--by", "olga\nboss", "--reason", "x"],
            &["approvals", "approve", "x#1", "--by", "olga\nboss"],
        ] {
            let refused = victim.windlass(args);
            assert_eq!(refused.code(), 2, "{args:?}: {}", refused.shown());
        }
    }
}

/// Acts twice. The first action takes its process down the first time.
const KILLER: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: killer
  states:
    first:
      type: initial
      action: fatal
      transitions: [{to: second}]
    second:
      action: plain
      transitions: [{to: done}]
    done: {type: final}
"#;

const KILLER_CONFIG: &str = r#"[actions.fatal]
type = "command"
command = ["sh", "-c", "cat > /dev/null; test -e died || { touch died; kill -9 $PPID; sleep 60; }; echo '{}'"]
class = "write"
idempotency = "key"
[actions.plain]
type = "command"
command = ["sh", "-c", "cat > /dev/null; echo '{}'"]
class = "write"
idempotency = "key"
"#;

#[test]
fn every_side_effecting_call_has_one_intended_and_one_settled_row_also_after_a_crash() {
    for victim in Victim::both() {
        victim.place.write("killer.yml", KILLER);
        victim.place.write("windlass.toml", KILLER_CONFIG);
        let ran = victim.windlass(&["run", "killer.yml", "--run-id", "k"]);
        assert_eq!(ran.code(), -1, "killed: {}", ran.shown());
        let rows = victim.rows("k");
        let last = rows.last().expect("a row");
        assert_eq!((&*last.stage, &*last.target), ("intended", "fatal"), "it was written down before it left");
        let tail = victim.ok(&["audit", "verify"]);
        assert_eq!(tail["tenants"][0]["findings"], json!([]));
        victim.ok(&["resume", "k", "--takeover"]);
        let rows = victim.rows("k");
        let of = |target: &str, stage: &str| {
            rows.iter().filter(|row| *row.target == *target && *row.stage == *stage).count()
        };
        assert_eq!((of("plain", "intended"), of("plain", "settled")), (1, 1));
        assert_eq!(of("fatal", "settled"), 1, "{rows:#?}");
        let calls: std::collections::BTreeSet<u64> =
            rows.iter().filter(|row| *row.target == *"fatal").map(|row| row.effect).collect();
        assert_eq!(calls.len(), 1, "one call, whatever its attempts");
        let attempts: Vec<u32> = rows
            .iter()
            .filter(|row| *row.target == *"fatal" && *row.stage == *"intended")
            .map(|row| row.attempt)
            .collect();
        let different: std::collections::BTreeSet<u32> = attempts.iter().copied().collect();
        assert_eq!(different.len(), attempts.len(), "one row before each attempt: {attempts:?}");
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
    }
}

#[test]
fn who_started_a_run_and_which_rules_came_into_force_stands_in_the_trail() {
    let rules = |victim: &Victim, reason: &str| {
        std::fs::create_dir_all(victim.place.path("policies")).expect("a folder");
        let text = format!("@id(\"all\") @reason(\"{reason}\")\npermit (principal, action, resource);\n");
        victim.place.write("policies/rules.cedar", &text);
        let config = "[providers.scripted]\nscript = \"script.yml\"\n[policy]\npath = \"policies\"\n";
        victim.place.write("windlass.toml", config);
    };
    for victim in Victim::both() {
        let loads = || {
            let acts = victim.ok(&["audit", "acts"])["rows"].as_array().expect("acts").clone();
            let text = |act: &Json, key: &str| act[key].as_str().unwrap_or_default().to_owned();
            let shown =
                |act: &Json| (text(act, "action"), text(act, "subject"), text(act, "actor"), text(act, "detail"));
            acts.iter().map(shown).filter(|act| act.0.starts_with("policy.")).collect::<Vec<_>>()
        };
        rules(&victim, "one");
        victim.asked("a");
        let first = &victim.rows("a")[0];
        assert_eq!((&*first.stage, first.actor.as_deref()), ("started", Some("olga")));
        let hers = victim.ok(&["audit", "list", "--actor", "olga"])["rows"].as_array().expect("rows").len();
        assert_eq!(hers, 1);
        victim.asked("b");
        let loaded = loads();
        assert_eq!(loaded.len(), 1, "what is in force already is not repeated: {loaded:?}");
        let (action, subject, actor, detail) = &loaded[0];
        assert_eq!((&**action, &**subject, &**actor), ("policy.load", "policies", "olga"));
        let version = victim.ok(&["policy", "check"])["version"].as_str().expect("a version").to_owned();
        assert_eq!(*detail, format!("version {version}; before: none"));

        rules(&victim, "two");
        victim.asked("c");
        assert!(loads()[1].3.ends_with(&format!("before: {version}")), "{:?}", loads());
        victim.place.write("policies/rules.cedar", "permit (principal");
        for run in ["d", "e"] {
            assert_eq!(
                victim.windlass(&["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", run]).code(),
                2
            );
        }
        assert_eq!((loads().len(), &*loads()[2].0), (3, "policy.refuse"), "{:?}", loads());
        rules(&victim, "two");
        victim.asked("f");
        assert_eq!((loads().len(), &*loads()[3].0), (4, "policy.load"), "{:?}", loads());
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        // Somebody who puts another name there is found.
        let mut started: Vec<Row> = victim.rows("a").iter().map(CallLine::row).collect();
        started[0].owner.as_mut().expect("an owner").by = Some("nobody".into());
        victim.replace("a", 1, &started[..2]);
        assert!(!victim.findings(&["--run", "a"]).is_empty());
    }
}
