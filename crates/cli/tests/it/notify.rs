//! Notices over real HTTP: the signature as the documented recipe checks it, a server that is down, and processes that
//! are killed.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::http::{Request, serve};
use super::kit::{Killed, Place, command};

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
    let mut command = command(place.path("").as_path());
    command.args(["worker", "--store", place.store()]).env("NOTIFY_KEY", KEY).env("CHAT_URL", "http://127.0.0.1:1/x");
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
    let body: serde_json::Value = serde_json::from_slice(&first.body).expect("JSON");
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
    assert_eq!(with_secrets(&["notify", "test", "nobody"]).code(), 2);
    assert_eq!(place.windlass(&["notify", "list"]).json(), serde_json::json!({"notices": []}));
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
