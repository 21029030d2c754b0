//! What contracts hide is in nothing that people or other systems see: views, events, logs, spans, notices, exports. Where
//! nothing is declared, the same looks show it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::http::listen;
use super::kit::{Killed, Place, command};

/// A part of everything that is declared.
const CANARY: &str = "canary5d1e";

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: payer
  context: {asked: "{{ input.asked }}"}
  settings: {tools: [pay]}
  machines: {below: ./below.yml}
  agents:
    clerk:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: clerk
        model: { provider: scripted, name: small, max_tokens: 100 }
        user: "Pay from {{ input.account }}."
  states:
    look:
      type: initial
      action: look
      output_to_context: {account: "{{ output.accounts[0].iban }}", pin: "{{ output.pin }}"}
      transitions: [{to: pay}]
    pay:
      agent: clerk
      input: {account: context.account}
      tool_loop: {max_turns: 4}
      output_to_context: {said: output.content}
      transitions: [{to: broken}]
    broken:
      action: broken
      on_error: below
      transitions: [{to: below}]
    below:
      machine: below
      input: {account: context.account}
      output_to_context: {child: output.found}
      transitions: [{to: done}]
    done: {type: final, output: {account: context.account, said: context.said, child: context.child, why: context.last_error}}
"#;

const BELOW: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: below
  context: {account: input.account}
  states:
    keep:
      type: initial
      action: keep
      output_to_context: {found: output.found}
      transitions: [{to: done}]
    done: {type: final, output: {found: context.found}}
"#;

const SCRIPT: &str = r"rules:
  - {agent: clerk, turn: 1, reply: {tool_calls: [{name: pay, arguments: {card: {number: canary5d1e-card, cvv: 123}, cents: 500}}]}}
  - {agent: clerk, turn: 2, reply: {content: 'Card canary5d1e-card paid, receipt canary5d1e-receipt.'}}
";

const CONFIG: &str = r#"[providers.scripted]
script = "script.yml"
[actions.look]
type = "command"
command = ["sh", "-c", "echo '{\"accounts\": [{\"iban\": \"canary5d1e-iban-1\"}, {\"iban\": \"canary5d1e-iban-2\"}], \"pin\": \"9137\"}'"]
class = "read"
idempotency = "natural"
redact = { arguments = ["/context/asked"], result = ["/accounts/*/iban", "/pin"] }
[tools.pay]
type = "command"
command = ["sh", "-c", "cat > paid.json; echo '{\"receipt\": {\"code\": \"canary5d1e-receipt\"}, \"ok\": true}'"]
class = "write"
approval = "always"
redact = { arguments = ["/card"], result = ["/receipt/code"] }
[actions.broken]
type = "command"
command = ["sh", "-c", "echo 'no: canary5d1e-stderr' >&2; exit 3"]
class = "read"
redact = { result = ["/token"] }
[actions.keep]
type = "command"
command = ["sh", "-c", "cat > kept.json; echo '{\"found\": \"canary5d1e-below\"}'"]
class = "read"
redact = { result = ["/found"] }
[notify.ops]
type = "webhook"
url = "http://ADDRESS/hook"
signing_key = "env:NOTIFY_KEY"
[notify.chat]
type = "slack"
secret_url = "env:CHAT_URL"
[notify.office]
type = "teams"
secret_url = "env:CHAT_URL"
"#;

/// A server that takes everything and keeps what it was sent.
fn taker() -> (String, Arc<Mutex<Vec<u8>>>) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&taken);
    let address = listen(move |request| {
        kept.lock().expect("kept").extend([request.head.as_bytes(), &request.body].concat());
        request.answer("200 OK", "");
    });
    (address, taken)
}

/// One story of a run, and everything that was seen of it.
struct Story {
    place: Place,
    seen: BTreeMap<String, String>,
    collector: String,
}

impl Story {
    fn ran(&mut self, args: &[&str]) -> super::kit::Ran {
        let ran = self.place.with(args, |command| {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.collector).env("USER", "olga").env("NOTIFY_KEY", KEY);
            command.env("CHAT_URL", format!("{}/chat", self.collector));
        });
        self.seen.insert(args.join(" "), ran.shown());
        ran
    }

    fn file(&mut self, name: &str) {
        let text = std::fs::read(self.place.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        self.seen.insert(name.to_owned(), String::from_utf8_lossy(&text).into_owned());
    }
}

const RUN: &str = "order-1";
const KEY: &str = "a key of notices that is long enough";

fn looks(story: &mut Story, when: &str) {
    for args in [
        &["runs", "show", RUN][..],
        &["runs", "journal", RUN],
        &["runs", "watch", RUN, "--tree", "--once"],
        &["replay", RUN],
        &["approvals", "list"],
        &["policy", "why", RUN],
        &["runs", "list", "--all"],
        &["audit", "list", "--run", RUN],
        &["notify", "list"],
    ] {
        for form in ["--json", "--plain"] {
            let args: Vec<&str> = args.iter().copied().chain([form]).collect();
            story.ran(&args);
            let shown = story.seen.remove(&args.join(" ")).expect("seen");
            story.seen.insert(format!("{when}: {}", args.join(" ")), shown);
        }
    }
}

fn story(config: &str) -> Story {
    let (collector, spans) = taker();
    let (hook, notices) = taker();
    let place = Place::new();
    for (name, text) in [("payer.yml", MACHINE), ("below.yml", BELOW), ("script.yml", SCRIPT)] {
        place.write(name, text);
    }
    place.write("windlass.toml", &config.replace("ADDRESS", &hook));
    let mut story = Story { place, seen: BTreeMap::new(), collector: format!("http://{collector}") };
    let input = r#"{"asked": "canary5d1e-asked"}"#;
    let first = story.ran(&[
        "run",
        "payer.yml",
        "--run-id",
        RUN,
        "--input",
        input,
        "--events",
        "events.jsonl",
        "--log",
        "trace",
    ]);
    assert_eq!(first.code(), 7, "{}", first.shown());
    looks(&mut story, "waiting");
    let listed = story.ran(&["approvals", "list", "--json"]).json();
    let question = listed["approvals"][0]["id"].as_str().expect("a question").to_owned();
    let shown = story.ran(&["approvals", "show", &question, "--json"]).json();
    story.ran(&["approvals", "show", &question, "--plain"]);
    notified(&mut story, &notices);
    let hash = shown["shown"].as_str().expect("a hash");
    let answered = story.ran(&["approvals", "approve", &question, "--by", "ann", "--reason", "fine", "--shown", hash]);
    assert_eq!(answered.code(), 0, "{}", answered.shown());
    let last = story.ran(&["resume", RUN, "--events", "events.jsonl", "--log", "trace"]);
    assert_eq!(last.code(), 0, "{}", last.shown());
    looks(&mut story, "done");
    let child = story.ran(&["runs", "list", "--all", "--json"]).json();
    let child = child["runs"].as_array().expect("runs").iter().find(|run| run["id"] != RUN).expect("a child");
    let child = child["id"].as_str().expect("an id").to_owned();
    story.ran(&["runs", "show", &child, "--json"]);
    story.ran(&["runs", "journal", &child, "--json"]);
    assert_eq!(story.ran(&["runs", "fork", RUN, "--at", "2", "--run-id", "forked", "--detach"]).code(), 0);
    story.ran(&["runs", "show", "forked", "--json"]);
    assert_eq!(story.ran(&["runs", "cancel", "forked", "--reason", "done"]).code(), 0);
    story.ran(&["audit", "acts", "--json"]);
    assert_eq!(story.ran(&["audit", "export", "--out", "audit.jsonl"]).code(), 0);
    assert_eq!(story.ran(&["export", "--run", RUN, "--out", "data.jsonl"]).code(), 0);
    assert_eq!(story.ran(&["verify", RUN, "--tree"]).code(), 0);
    assert_eq!(story.ran(&["audit", "verify", "audit.jsonl"]).code(), 0);
    for name in ["events.jsonl", "audit.jsonl", "data.jsonl"] {
        story.file(name);
    }
    assert_eq!(story.ran(&["erase", "--run", RUN, "--yes"]).code(), 0);
    assert_eq!(story.ran(&["audit", "verify"]).code(), 0);
    let spans = String::from_utf8_lossy(&spans.lock().expect("kept")).into_owned();
    assert!(spans.contains("tool.call"), "spans were sent");
    story.seen.insert("spans".into(), spans);
    story
}

/// A worker tells the channels that somebody is asked.
fn notified(story: &mut Story, notices: &Mutex<Vec<u8>>) {
    let mut worker = command(story.place.path("").as_path());
    worker.args(["worker", "--log", "trace"]);
    worker.env("CHAT_URL", format!("{}/chat", story.collector)).env("NOTIFY_KEY", KEY).stdout(Stdio::null());
    let log = std::fs::File::create(story.place.path("worker.log")).expect("a file");
    let worker = Killed(worker.stderr(log).spawn().expect("a worker"));
    let begun = std::time::Instant::now();
    let told = |notices: &Mutex<Vec<u8>>| String::from_utf8_lossy(&notices.lock().expect("kept")).into_owned();
    while !told(notices).contains(RUN) {
        assert!(begun.elapsed() < Duration::from_secs(120), "no notice came");
        // Slow on purpose: the notice comes from another process.
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(worker);
    story.seen.insert("notices".into(), told(notices));
    story.file("worker.log");
}

#[test]
fn what_contracts_hide_is_seen_nowhere() {
    let declared = story(CONFIG);
    for (what, text) in &declared.seen {
        if let Some(at) = text.find(CANARY) {
            panic!(
                "{what} shows it: {}",
                &text[text.floor_char_boundary(at.saturating_sub(200))..at + CANARY.len() + 10]
            );
        }
        for pin in ["\"9137\"", "\"cvv\":123", "\\\"cvv\\\":123"] {
            assert!(!text.contains(pin), "{what} shows {pin}");
        }
    }
    let text = |what: &str| declared.seen.get(what).unwrap_or_else(|| panic!("{what} of {:?}", declared.seen.keys()));
    for what in ["waiting: approvals list --plain", "done: runs show order-1 --json", "data.jsonl", "events.jsonl"] {
        assert!(text(what).contains("[redacted]"), "{what}: {}", text(what));
    }
    // Whoever is called and whoever goes on has the values.
    let sent = |name: &str| std::fs::read_to_string(declared.place.path(name)).expect("sent");
    assert!(sent("paid.json").contains("canary5d1e-card") && sent("paid.json").contains("123"));
    assert!(sent("kept.json").contains("canary5d1e-iban-1"), "{}", sent("kept.json"));
}

#[test]
fn what_no_contract_hides_is_seen() {
    let config: Vec<&str> = CONFIG.lines().filter(|line| !line.starts_with("redact")).collect();
    let open = story(&config.join("\n"));
    let shows = |start: &str| open.seen.iter().any(|(what, text)| what.starts_with(start) && text.contains(CANARY));
    for what in [
        "waiting: approvals list --json",
        "waiting: approvals list --plain",
        "approvals show",
        "waiting: runs show order-1 --json",
        "done: runs show order-1 --json",
        "done: runs show order-1 --plain",
        "done: runs journal order-1 --json",
        "done: runs journal order-1 --plain",
        "done: runs watch order-1 --tree --once --json",
        "done: runs watch order-1 --tree --once --plain",
        "done: replay order-1 --json",
        "done: replay order-1 --plain",
        "runs show order-1~",
        "runs journal order-1~",
        "runs show forked",
        "resume",
        "data.jsonl",
        "events.jsonl",
    ] {
        assert!(shows(what), "{what} shows nothing, so the other test proves nothing of it");
    }
    assert!(!open.seen["waiting: approvals list --plain"].contains("[redacted]"));
}

/// A value that stood in the context before a contract said that it is not to be seen.
const LATER: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: later
  context: {asked: "{{ input.asked }}"}
  states:
    first:
      type: initial
      transitions: [{to: look}]
    look:
      action: look
      transitions: [{to: done}]
    done: {type: final, output: {ok: true}}
"#;

#[test]
fn a_fork_from_before_a_value_was_hidden_hides_it() {
    let place = Place::new();
    place.write("later.yml", LATER);
    place.write("windlass.toml", CONFIG.split_once("[tools.pay]").expect("a tool").0);
    place.write("script.yml", "rules: []\n");
    let input = r#"{"asked": "canary5d1e-asked"}"#;
    assert_eq!(place.windlass(&["run", "later.yml", "--run-id", "old", "--input", input]).code(), 0);
    let forked = place.windlass(&["runs", "fork", "old", "--at", "1", "--run-id", "new", "--detach"]);
    assert_eq!(forked.code(), 0, "{}", forked.shown());
    for args in [&["runs", "show", "new", "--json"][..], &["replay", "old", "--to", "1", "--json"]] {
        let shown = place.windlass(args).shown();
        assert!(shown.contains("[redacted]") && !shown.contains(CANARY), "{args:?}: {shown}");
    }
    assert_eq!(place.windlass(&["runs", "fork", "old", "--at", "9"]).code(), 4);
}
