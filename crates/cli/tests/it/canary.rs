//! Secrets that are named by reference are nowhere but where they are sent: not in a table, a file, a log, a span, an error
//! or an export, also when whoever gets them sends them back. On both stores.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::http::listen;
use crate::kit::{Place, Ran};

/// What is looked for: nothing else has it.
const SECRETS: [(&str, &str); 5] = [
    ("MODEL_KEY", "sk-canary7f3a91c2model"),
    ("HTTP_KEY", "canary7f3a91c2header"),
    ("COMMAND_KEY", "canary7f3a91c2command"),
    ("KEPT_KEY", "canary7f3a91c2kept"),
    ("ROTATED_KEY", "canary7f3a91c2rotated"),
];
/// A part of each.
const CANARY: &str = "canary7f3a91c2";

/// No secret, and beside the secrets wherever somebody sends them back: what finds this would find them.
const BEACON: &str = "beacon9c41e7d2";
/// Where the beacon is found at least, on every store.
const LIT: [&str; 8] =
    ["runs show", "runs journal", "replay", "copy.backup", "debug show", "events.jsonl", "data.jsonl", "the store"];

/// Commands that show or copy what is stored.
const LOOKS: &[&[&str]] = &[
    &["runs", "show", "leaky", "--json"],
    &["runs", "journal", "leaky", "--json"],
    &["replay", "leaky", "--json"],
    &["secrets", "list"],
    &["runs", "show", "rotated", "--json"],
    &["audit", "acts", "--json"],
    &["audit", "list", "--json"],
    &["audit", "export", "--out", "audit.jsonl"],
    &["export", "--run", "leaky", "--out", "data.jsonl"],
    &["diagnostics", "leaky.yml"],
    &["config"],
    &["debug", "list", "--json"],
    &["verify", "leaky"],
    &["store", "backup", "copy.backup"],
];

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: leaky
  agents:
    writer:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: writer
        model: { provider: echo, name: small, max_tokens: 100 }
        user: Say something.
  states:
    ask:
      type: initial
      agent: writer
      on_error: call
      transitions: [{to: call}]
    call:
      action: over_http
      on_error: command
      transitions: [{to: command}]
    command:
      action: with_command
      on_error: good
      transitions: [{to: good}]
    good:
      action: takes_it
      output_to_context: {answer: output}
      transitions: [{to: done}]
    done: {type: final, output: {last: "{{ context.last_error }}"}}
"#;

fn config(address: &str) -> String {
    format!(
        r#"[providers.echo]
kind = "openai"
base_url = "http://{address}/v1"
key_env = "MODEL_KEY"
[actions.over_http]
type = "http"
url = "http://{address}/act"
method = "POST"
secret_headers = {{ "x-key" = "env:HTTP_KEY", "x-kept" = "secret:kept" }}
class = "read"
[actions.takes_it]
type = "http"
url = "http://{address}/good"
method = "POST"
secret_headers = {{ "x-key" = "env:HTTP_KEY", "x-kept" = "secret:kept" }}
class = "read"
[actions.with_command]
type = "command"
command = ["sh", "-c", "echo \"beacon9c41e7d2: the key is $KEY\" >&2; exit 3"]
secret_env = {{ KEY = "env:COMMAND_KEY" }}
class = "read"
"#
    )
}

/// A server that says back what it was told, in its errors too. Keeps the heads of requests.
fn echo() -> (String, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    let address = listen(move |request| {
        let head = request.head.clone();
        let said = head.replace("\r\n", "; ").replace('"', "'");
        let refused = format!(r#"{{"error": {{"message": "{BEACON}: you sent {said}"}}}}"#);
        let (status, body) = if head.starts_with("POST /v1") {
            ("401 Unauthorized", &*refused)
        } else if head.starts_with("POST /good") {
            ("200 OK", r#"{"output": {"fine": true}}"#)
        } else {
            ("500 Internal Server Error", &*refused)
        };
        kept.lock().expect("kept").push(head);
        request.answer(status, body);
    });
    (address, heads)
}

/// Every file below a folder.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => files(&path, found),
            path => found.push(path),
        }
    }
}

/// Says whether the beacon is there, where no secret is.
fn assert_clean(what: &str, bytes: &[u8]) -> bool {
    let find = |text: &str| bytes.windows(text.len()).position(|part| part == text.as_bytes());
    let place = find(CANARY);
    if let Some(place) = place {
        let around = &bytes[place.saturating_sub(80)..bytes.len().min(place + 60)];
        panic!("a secret is in {what}: {}", String::from_utf8_lossy(around));
    }
    find(BEACON).is_some()
}

fn told(place: &Place, url: &str, collector: &str, args: &[&str]) -> Ran {
    place.with(args, |command| {
        command.env("WINDLASS_STORE", url).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector).env("USER", "olga");
        for (name, value) in SECRETS {
            command.env(name, value);
        }
    })
}

/// Looks through every table, what is stored as bytes too. Says whether the beacon is in one.
fn tables_are_lit(database: &windlass_testpg::Database) -> bool {
    let names = database
        .value("SELECT string_agg(table_name, ',') FROM information_schema.tables WHERE table_schema = 'public'");
    let mut is_lit = false;
    for table in names.split(',') {
        let rows = database.value(&format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t"));
        is_lit |= assert_clean(&format!("table {table}"), rows.as_bytes());
        for part in rows.split(|c: char| !c.is_ascii_hexdigit()).filter(|part| part.len() > 20) {
            let pairs = part.as_bytes().chunks_exact(2);
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let raw: Vec<u8> = pairs.filter_map(byte).collect();
            is_lit |= assert_clean(&format!("bytes of table {table}"), &raw);
        }
    }
    is_lit
}

#[test]
fn secrets_are_nowhere_but_where_they_are_sent() {
    for database in [None, Some(windlass_testpg::database())] {
        let place = Place::new();
        let (address, heads) = echo();
        let (collector, spans) = echo();
        place.write("leaky.yml", MACHINE);
        place.write("windlass.toml", &config(&address));
        let url = match &database {
            Some(database) => database.url(),
            None => format!("sqlite:{}", place.path("w.db").display()),
        };
        let collector = format!("http://{collector}");
        let lit = std::cell::RefCell::new(BTreeSet::new());
        let ran = |args: &[&str]| {
            let ran = told(&place, &url, &collector, args);
            let in_stdout = assert_clean(&format!("stdout of {args:?}"), ran.stdout().as_bytes());
            let in_stderr = assert_clean(&format!("stderr of {args:?}"), ran.stderr().as_bytes());
            if in_stdout || in_stderr {
                lit.borrow_mut().extend([args[0].to_owned(), args[..args.len().min(2)].join(" ")]);
            }
            ran
        };
        assert_eq!(ran(&["secrets", "set", "kept", "--from-env", "KEPT_KEY"]).code(), 0);
        let capture = ran(&["debug", "capture", "--machine", "leaky", "--reason", "to see"]).json();
        let capture = capture["capture"].as_str().expect("a name").to_owned();
        let first = ran(&["run", "leaky.yml", "--run-id", "leaky", "--events", "events.jsonl", "--log", "trace"]);
        assert_eq!(first.code(), 0, "{}", first.shown());
        assert_eq!(ran(&["secrets", "rotate", "kept", "--from-env", "ROTATED_KEY"]).code(), 0);
        assert_eq!(ran(&["run", "leaky.yml", "--run-id", "rotated", "--log", "trace"]).code(), 0);
        let sent = heads.lock().expect("kept").join("\n");
        for (name, value) in SECRETS.iter().filter(|(name, _)| *name != "COMMAND_KEY") {
            assert!(sent.contains(value), "{name} was sent, or this test shows nothing: {sent}");
        }
        assert!(!spans.lock().expect("kept").is_empty(), "spans were sent");
        let taken = ran(&["debug", "show", &capture, "--limit", "100"]).json();
        let taken = taken["calls"].as_array().expect("calls").len();
        assert!(taken >= 8, "{taken} calls were captured");
        for args in LOOKS {
            ran(args);
        }
        let mut all = Vec::new();
        files(place.path("").as_path(), &mut all);
        assert!(all.iter().any(|path| path.ends_with("events.jsonl")));
        // The file itself, and nothing beside it.
        let kept = all.iter().position(|path| path.ends_with(".windlass/secrets.json")).expect("the file of secrets");
        let kept = std::fs::read_to_string(all.swap_remove(kept)).expect("the file of secrets");
        assert!(kept.contains("canary7f3a91c2kept") && kept.contains("canary7f3a91c2rotated"));
        for path in all {
            if assert_clean(&path.display().to_string(), &std::fs::read(&path).expect("a file")) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                lit.borrow_mut().insert(if name.starts_with("w.db") { "the store".to_owned() } else { name });
            }
        }
        if database.as_ref().is_some_and(tables_are_lit) {
            lit.borrow_mut().insert("the store".to_owned());
        }
        let lit = lit.into_inner();
        let dark: Vec<_> = LIT.into_iter().filter(|place| !lit.contains(*place)).collect();
        assert!(dark.is_empty(), "this test does not see what is in {dark:?}, only in {lit:?}");
    }
}
