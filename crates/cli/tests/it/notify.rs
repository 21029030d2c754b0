//! Notices over real HTTP: the signature as the documented recipe checks it, the messages of Slack and Teams, a server that is
//! down, and processes that are killed.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::http::{Request, serve};
use super::kit::{Killed, Place, command};
use super::policy;

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: payer
  states:
    pay: {type: initial, action: pay, transitions: [{to: done}]}
    done: {type: final, output: {}}
"#;

const CONFIG: &str = r#"[actions.pay]
type = "command"
command = ["true"]
class = "write"
idempotency = "none"
approval = "always"
[notify.ops]
type = "webhook"
url = "http://127.0.0.1:PORT/hook"
signing_key = "env:NOTIFY_KEY"
[notify.chat]
type = "slack"
secret_url = "env:CHAT_URL"
kinds = ["failed"]
"#;

/// The recipe of `docs/notifications.md`.
const VERIFY: &str = r#"
import base64, hashlib, hmac, json, sys
key, headers, body = sys.argv[1], json.loads(sys.argv[2]), sys.stdin.buffer.read()
key = base64.b64decode(key[6:]) if key.startswith("whsec_") else key.encode()
signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
assert hmac.compare_digest(expected, headers["webhook-signature"]), "forged"
assert json.loads(body)["id"] == headers["webhook-id"]
"#;

const KEY: &str = "a key that nobody else has";

fn headers(request: &Request) -> BTreeMap<String, &str> {
    let pairs = request.head.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim())).collect()
}

fn id_of(request: &Request) -> String {
    headers(request)["webhook-id"].to_owned()
}

fn body_of(request: &Request) -> Json {
    serde_json::from_slice(&request.body).expect("JSON")
}

fn verify(request: &Request, key: &str) -> bool {
    let headers = serde_json::to_string(&headers(request)).expect("JSON");
    let mut python = Command::new("python3")
        .args(["-c", VERIFY, key, &headers])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("python3");
    python.stdin.take().expect("a pipe").write_all(&request.body).expect("written");
    python.wait().expect("an end").success()
}

/// Requests to a listener, each to be answered by the test.
fn requests(listener: TcpListener) -> Receiver<Request> {
    let (send, receive) = channel();
    // Nobody takes what comes after the test.
    serve(listener, move |request| drop(send.send(request)));
    receive
}

fn place(port: u16) -> Place {
    let place = Place::new();
    place.write("payer.yml", MACHINE);
    place.write("windlass.toml", &CONFIG.replace("PORT", &port.to_string()));
    place
}

/// A worker that ends with the test.
fn working(place: &Place) -> Killed {
    working_on(place, &["--store", place.store()])
}

fn working_on(place: &Place, more: &[&str]) -> Killed {
    let mut command = command(place.path("").as_path());
    command.arg("worker").args(more).env("NOTIFY_KEY", KEY).env("CHAT_URL", "http://127.0.0.1:1/x");
    Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a worker"))
}

fn next(requests: &Receiver<Request>) -> Request {
    requests.recv_timeout(Duration::from_secs(120)).expect("a notice")
}

fn asks(place: &Place, run: &str) {
    let ran = place.with(&["run", "payer.yml", "--run-id", run, "--store", place.store()], |command| {
        command.env("NOTIFY_KEY", KEY).env("CHAT_URL", "http://127.0.0.1:1/x");
    });
    assert_eq!(ran.code(), 7, "{}", ran.shown());
}

// Slow on purpose: a claim on a notice ends with time alone when its process was killed.
#[test]
fn a_notice_survives_a_server_that_is_down_and_a_worker_that_is_killed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let place = place(port);
    asks(&place, "r");
    let requests = requests(listener);
    let worker = working(&place);
    let first = next(&requests);
    assert!(verify(&first, KEY), "the signature is that of the recipe");
    assert!(!verify(&first, "another key that nobody has"), "and of no other key");
    let id = id_of(&first);
    let body = body_of(&first);
    assert_eq!((&body["kind"], &body["question"]["target"]), (&"approval".into(), &"pay".into()), "{body}");
    assert!(body.get("arguments").is_none() && body["question"].get("arguments").is_none(), "{body}");
    first.answer("503 Service Unavailable", "");
    let second = next(&requests);
    assert_eq!(id_of(&second), id, "it is tried again under the same id");
    // The other side took it, and the process dies before it hears that.
    drop(worker);
    second.answer("200 OK", "");
    let (_one, _two) = (working(&place), working(&place));
    let third = next(&requests);
    assert_eq!(id_of(&third), id);
    assert!(verify(&third, KEY));
    third.answer("200 OK", "");
    // A second run is the next thing heard of: the first is told no more, by neither.
    asks(&place, "s");
    let other = next(&requests);
    assert_ne!(id_of(&other), id);
    other.answer("200 OK", "");
}

#[test]
fn a_channel_can_be_tried_and_what_waits_is_listed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = place(listener.local_addr().expect("an address").port());
    let requests = requests(listener);
    let serving = std::thread::spawn(move || {
        let request = next(&requests);
        let verified = verify(&request, KEY);
        request.answer("200 OK", "");
        next(&requests).answer("500 Internal Server Error", "");
        verified
    });
    let with_secrets = |args: &[&str]| {
        place.with(args, |command| {
            command.env("NOTIFY_KEY", KEY).env("CHAT_URL", "http://127.0.0.1:1/x");
        })
    };
    let taken = with_secrets(&["notify", "test", "ops"]);
    assert_eq!(taken.code(), 0, "{}", taken.shown());
    let refused = with_secrets(&["notify", "test", "ops"]);
    assert!(refused.code() != 0 && refused.stderr().contains("500"), "{}", refused.shown());
    assert!(serving.join().expect("the server"), "the signature is that of the recipe");
    let secret = with_secrets(&["notify", "test", "chat"]);
    assert!(secret.code() != 0 && !secret.shown().contains("127.0.0.1:1"), "{}", secret.shown());
    assert_eq!(with_secrets(&["notify", "test", "nobody"]).code(), 4);
    assert_eq!(place.windlass(&["notify", "list"]).json(), json!({"notices": []}));
}

#[test]
fn a_channel_that_cannot_be_used_is_named_before_anything_starts() {
    let place = place(1);
    let ran = place.windlass(&["worker", "--store", place.store()]);
    assert_eq!(ran.code(), 2, "{}", ran.shown());
    assert!(ran.stderr().contains("notify.ops.signing_key"), "{}", ran.shown());
    place.write("windlass.toml", "[notify.ops]\ntype = \"pager\"\nurl = \"ftp://x\"\n");
    let ran = place.windlass(&["worker", "--store", place.store()]);
    assert!(ran.stderr().contains("known types are `webhook`, `slack` and `teams`"), "{}", ran.shown());
    place.write("windlass.toml", "[notify.ops]\ntype = \"webhook\"\nurl = \"http://x/\"\nsigning_key = \"hunter2\"\n");
    let ran = place.windlass(&["worker", "--store", place.store()]);
    assert!(!ran.shown().contains("hunter2"), "a key that was written here is not shown: {}", ran.shown());
    assert_eq!(ran.code(), 2, "{}", ran.shown());
}

/// The address of a channel that is a secret, as those of Slack and Teams are.
const SECRET_PATH: &str = "/services/T000/canary-4f1";

fn is_keys(value: &Json, keys: &[&str]) -> bool {
    value.as_object().is_some_and(|map| map.keys().map(String::as_str).eq(keys.iter().copied()))
}

/// A message of Slack's incoming webhooks: a text, and blocks of plain text with what the notice says.
fn assert_slack(body: &Json, facts: &[(&str, &str)]) {
    assert!(is_keys(body, &["text", "blocks"]), "{body}");
    let (head, fields) = (&body["blocks"][0], &body["blocks"][1]);
    assert_eq!(body["blocks"].as_array().map(Vec::len), Some(2), "{body}");
    assert!(is_keys(head, &["type", "text"]) && is_keys(fields, &["type", "fields"]), "{body}");
    assert!(head["type"] == "section" && fields["type"] == "section", "{body}");
    let fields = fields["fields"].as_array().expect("fields");
    // Slack refuses a section with more.
    assert!(fields.len() <= 10, "{body}");
    for text in fields.iter().chain([&head["text"]]) {
        assert!(is_keys(text, &["type", "emoji", "text"]), "{text}");
        assert_eq!((&text["type"], &text["emoji"]), (&json!("plain_text"), &json!(false)), "{text}");
    }
    assert_eq!(head["text"]["text"], body["text"]);
    for (name, value) in facts {
        assert!(fields.iter().any(|field| field["text"] == format!("{name}\n{value}")), "{name} in {body}");
    }
}

/// A message of Teams' incoming webhooks: one adaptive card of text runs.
fn assert_teams(body: &Json, facts: &[(&str, &str)]) {
    assert!(is_keys(body, &["type", "attachments"]) && body["type"] == "message", "{body}");
    let attachment = &body["attachments"][0];
    assert_eq!(body["attachments"].as_array().map(Vec::len), Some(1), "{body}");
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    let card = &attachment["content"];
    assert_eq!((&card["type"], &card["version"]), (&json!("AdaptiveCard"), &json!("1.4")), "{card}");
    let blocks = card["body"].as_array().expect("blocks");
    let line = |block: &Json| {
        assert_eq!(block["type"], "RichTextBlock", "{block}");
        let runs = block["inlines"].as_array().expect("runs");
        assert!(runs.iter().all(|run| run["type"] == "TextRun"), "{block}");
        runs.iter().map(|run| run["text"].as_str().expect("a text")).collect::<String>()
    };
    let lines: Vec<String> = blocks.iter().map(line).collect();
    for (name, value) in facts {
        assert!(lines.contains(&format!("{name}: {value}")), "{name} in {lines:?}");
    }
}

// Slow on purpose: a channel that failed is tried again after two seconds.
#[test]
fn slack_and_teams_get_their_messages_and_get_them_again_when_they_fail() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}{SECRET_PATH}", listener.local_addr().expect("an address"));
    let channels = ["slack", "teams"].map(|kind| {
        format!("[notify.{kind}]\ntype = \"{kind}\"\nsecret_url = \"file:{kind}\"\nkinds = [\"approval\"]\n")
    });
    let place = Place::new();
    place.write("payer.yml", MACHINE);
    let (action, _) = CONFIG.split_once("[notify.").expect("channels");
    place.write("windlass.toml", &format!("{action}{}[log]\nfilter = \"info\"\n", channels.concat()));
    for kind in ["slack", "teams"] {
        place.write(kind, &format!("{address}/{kind}"));
    }
    asks(&place, "r");
    let requests = requests(listener);
    let log = std::fs::File::create(place.path("log")).expect("a file");
    let mut worker = command(place.path("").as_path());
    let worker = worker.args(["worker", "--store", place.store()]).stdout(Stdio::null()).stderr(log);
    let worker = Killed(worker.spawn().expect("a worker"));
    let mut first: BTreeMap<&str, (String, Vec<u8>)> = BTreeMap::new();
    let mut taken = BTreeMap::new();
    while taken.len() < 2 {
        let request = next(&requests);
        let kind = if request.head.contains(&format!("POST {SECRET_PATH}/slack ")) { "slack" } else { "teams" };
        assert!(request.head.contains(&format!("POST {SECRET_PATH}/{kind} ")), "{}", request.head);
        let headers = headers(&request);
        assert_eq!(headers["content-type"], "application/json");
        assert!(!headers.contains_key("webhook-signature") && !headers.contains_key("authorization"), "{headers:?}");
        let (id, body) = (id_of(&request), request.body.clone());
        match first.get(kind) {
            // The first time nobody takes it.
            None => {
                first.insert(kind, (id, body));
                request.answer("502 Bad Gateway", "");
            }
            Some(before) => {
                assert_eq!(before, &(id.clone(), body), "the same message under the same id");
                let call = "pay (action, write)";
                let facts =
                    [("kind", "approval"), ("run", "r"), ("machine", "payer"), ("state", "pay"), ("notice", &*id)];
                match kind {
                    "slack" => assert_slack(&body_of(&request), &[&facts[..], &[("call", call)]].concat()),
                    _ => assert_teams(&body_of(&request), &[&facts[..], &[("call", call)]].concat()),
                }
                assert!(taken.insert(kind, id).is_none(), "what was taken is not sent again");
                request.answer("200 OK", "");
            }
        }
    }
    assert_eq!(taken["slack"], taken["teams"], "one notice");
    // The next notice is that of another question: what was taken is not sent again.
    asks(&place, "s");
    for _ in 0..2 {
        let other = next(&requests);
        assert_ne!(id_of(&other), taken["slack"]);
        other.answer("200 OK", "");
    }
    drop(worker);
    let log = std::fs::read_to_string(place.path("log")).expect("read");
    assert!(!log.contains("canary"), "an address that is a secret is in no log: {log}");
}

#[test]
fn a_candidate_that_is_withdrawn_by_itself_is_told_over_a_channel() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let channel = format!(
        "[notify.ops]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{port}/hook\"\nsigning_key = \"file:key\"\n\
         kinds = [\"policy\"]\n"
    );
    let place = policy::trying(&format!("mode = \"enforce\"\ndecisions_min = 3\ndiffer_max = 10\n{channel}"));
    place.write("key", KEY);
    for (run, code) in [("one", 3), ("two", 3), ("three", 3), ("four", 0)] {
        let ran = policy::asks(&place, run);
        assert_eq!(ran.code(), code, "{run}: {}", ran.shown());
    }
    let requests = requests(listener);
    let worker = working_on(&place, &[]);
    let told = next(&requests);
    assert!(verify(&told, KEY), "the signature is that of the recipe");
    let (body, id) = (body_of(&told), id_of(&told));
    let candidate = place.windlass(&["policy", "candidate", "status"]).json()["candidate"].clone();
    let begins = format!("the candidate rule set {} was withdrawn: ", candidate.as_str().expect("a version"));
    assert_eq!((&body["kind"], &body["tenant"]), (&json!("policy"), &json!("default")), "{body}");
    let text = body["text"].as_str().expect("a text");
    assert!(text.starts_with(&begins) && text.contains("denied 3 of 3 questions"), "{text}");
    assert_eq!(
        (&body["run_id"], &body["machine"]),
        (&json!("three"), &json!("asks")),
        "the run that led to it: {body}"
    );
    told.answer("500 Internal Server Error", "");
    let again = next(&requests);
    assert_eq!(id_of(&again), id, "it is tried again under the same id");
    again.answer("200 OK", "");
    // It is told once: all that is kept of it is that it was taken, whichever process looks.
    let listed = || place.windlass(&["notify", "list", "--waiting"]).json()["notices"].clone();
    while listed() != json!([]) {
        std::thread::yield_now();
    }
    drop(worker);
    let version = candidate.as_str().expect("a version");
    let resumed = place.windlass(&["policy", "candidate", "resume", version, "--by", "ada", "--reason", "fine"]);
    assert_eq!(resumed.code(), 0, "{}", resumed.shown());
    for run in ["five", "six", "seven"] {
        assert_eq!(policy::asks(&place, run).code(), 3);
    }
    let _another = working_on(&place, &[]);
    let next = next(&requests);
    assert_ne!(id_of(&next), id, "the next that is heard of is another one");
    assert_eq!(body_of(&next)["run_id"], "seven");
    next.answer("200 OK", "");
}
