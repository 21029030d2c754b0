//! Secrets that are named by reference are nowhere but where they are sent: not in a table, a file, a log, a span, an error
//! or an export, also when whoever gets them sends them back. On both stores.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use windlass_testpg::{Options, Server};

use crate::http::listen;
use crate::kit::{Place, Ran};

/// What is looked for: nothing else has it.
const SECRETS: [(&str, &str); 14] = [
    ("MODEL_KEY", "sk-canary7f3a91c2model"),
    ("HTTP_KEY", "canary7f3a91c2header"),
    ("COMMAND_KEY", "canary7f3a91c2command"),
    ("KEPT_KEY", "canary7f3a91c2kept"),
    ("ROTATED_KEY", "canary7f3a91c2rotated"),
    ("PIPE_KEY", "canary7f3a91c2pipe"),
    ("WEB_KEY", "canary7f3a91c2web"),
    ("WEB_HEADER", "canary7f3a91c2webheader"),
    ("CLIENT_KEY", "canary7f3a91c2client"),
    ("AGENT_KEY", "canary7f3a91c2agent"),
    ("SIGNING_KEY", "canary7f3a91c2signing"),
    ("SLACK_URL", "http://ADDRESS/chat/canary7f3a91c2slack"),
    ("TEAMS_URL", "http://ADDRESS/chat/canary7f3a91c2teams?sig=canary7f3a91c2sig"),
    ("LOST_STORE", "postgres://me:canary7f3a91c2password@127.0.0.1:1/nowhere"),
];
/// What an issuer gives a client.
const TOKEN: &str = "canary7f3a91c2token";
/// Secrets that arrive at the server in the heads of requests.
const SENT: [&str; 11] = [
    "canary7f3a91c2model",
    "canary7f3a91c2header",
    "canary7f3a91c2kept",
    "canary7f3a91c2rotated",
    "canary7f3a91c2web",
    "canary7f3a91c2webheader",
    TOKEN,
    "canary7f3a91c2slack",
    "canary7f3a91c2teams",
    "canary7f3a91c2sig",
    "webhook-signature",
];
/// Who sends secrets back, each with the beacon: the journal has what was left of it.
const TELLERS: [&str; 6] =
    ["over HTTP", "with a command", "over a pipe", "over the web", "with a token", "an agent's program"];
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
    &["secrets", "list", "--check"],
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
    &["notify", "test", "ops"],
    &["notify", "test", "chat"],
    &["notify", "test", "teams"],
    &["notify", "list", "--json"],
    &["tools", "list"],
    &["tools", "diff"],
    &["tools", "blocked"],
    &["preflight", "leaky.yml"],
    &["store", "status", "--json"],
];

/// A server over stdio that tells everybody what its environment holds.
const PIPE: &str = r#"
import json, os, sys
told = "beacon9c41e7d2 over a pipe: " + os.environ["PIPE_KEY"]
print(told, file=sys.stderr, flush=True)
for text in sys.stdin:
    request = json.loads(text)
    method = request.get("method")
    if method == "server/discover":
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
    elif method == "tools/list":
        result = {"tools": [{"name": "leak", "description": "Leaks.", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        result = {"content": [{"type": "text", "text": told}], "isError": True}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
"#;

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
    program:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: program
        model: { provider: coder, name: small, max_tokens: 100 }
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
      on_error: pipe
      transitions: [{to: pipe}]
    pipe: {action: pipe__leak, on_error: web, transitions: [{to: web}]}
    web: {action: web__leak, on_error: token, transitions: [{to: token}]}
    token: {action: token__leak, on_error: program, transitions: [{to: program}]}
    program: {agent: program, on_error: good, transitions: [{to: good}]}
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
command = ["sh", "-c", "echo \"beacon9c41e7d2 with a command: the key is $KEY\" >&2; exit 3"]
secret_env = {{ KEY = "env:COMMAND_KEY" }}
class = "read"
[mcp.pipe]
command = ["python3", "pipe.py"]
secret_env = {{ PIPE_KEY = "env:PIPE_KEY" }}
tools = {{ leak = {{ class = "read" }} }}
[secrets.commands]
more = ["sh", "-c", "echo \"$WEB_HEADER\""]
[mcp.web]
url = "http://{address}/web"
api_key = "env:WEB_KEY"
secret_headers = {{ "x-more" = "secret:more" }}
tools = {{ leak = {{ class = "read" }} }}
[mcp.token]
url = "http://{address}/token-web"
oauth = {{ client_id = "windlass", client_secret = "env:CLIENT_KEY" }}
tools = {{ leak = {{ class = "read" }} }}
[agents_cli.coder]
format = "json"
command = ["sh", "-c", "cat > /dev/null; echo \"{{\\\"error\\\": {{\\\"message\\\": \\\"beacon9c41e7d2 an agent's program: $KEY\\\"}}}}\""]
budget_micros = 1000
tokens_max = 1000
secret_env = {{ KEY = "env:AGENT_KEY" }}
[notify.ops]
type = "webhook"
url = "http://{address}/hook"
signing_key = "env:SIGNING_KEY"
[notify.chat]
type = "slack"
secret_url = "env:SLACK_URL"
[notify.teams]
type = "teams"
secret_url = "env:TEAMS_URL"
"#
    )
}

/// A server that says back what it was told, in its errors too. Keeps the heads of requests.
fn echo() -> (String, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    let address = listen(move |request| {
        let head = request.head.clone();
        let said = format!("{}; {}", head, String::from_utf8_lossy(&request.body));
        let said = said.replace("\r\n", "; ").replace(['"', '\\'], "'");
        let refused = |who: &str| format!(r#"{{"error": {{"message": "{BEACON} {who}: you sent {said}"}}}}"#);
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (status, body) = match path {
            "/good" => ("200 OK", r#"{"output": {"fine": true}}"#.to_owned()),
            "/token" => ("200 OK", format!(r#"{{"access_token": "{TOKEN}", "token_type": "Bearer"}}"#)),
            "/token-web" if !head.contains(TOKEN) => ("401 Unauthorized", refused("a server")),
            "/web" => mcp(&request.body, &format!("{BEACON} over the web: {said}")),
            "/token-web" => mcp(&request.body, &format!("{BEACON} with a token: {said}")),
            _ if path.starts_with("/v1") => ("401 Unauthorized", refused("a provider")),
            _ if path.starts_with("/.well-known") => ("404 Not Found", "{}".to_owned()),
            _ => ("500 Internal Server Error", refused("over HTTP")),
        };
        kept.lock().expect("kept").push(head.clone());
        request.answer(status, &body);
    });
    (address, heads)
}

/// The answer of an MCP server whose tool fails with a text.
fn mcp(body: &[u8], said: &str) -> (&'static str, String) {
    let request: Json = serde_json::from_slice(body).expect("a request");
    let result = match request["method"].as_str() {
        Some("server/discover") => json!({ "supportedVersions": ["2026-07-28"], "capabilities": {} }),
        Some("tools/list") => {
            json!({ "tools": [{ "name": "leak", "description": "Leaks.", "inputSchema": { "type": "object" } }] })
        }
        _ => json!({ "content": [{ "type": "text", "text": said }], "isError": true }),
    };
    ("200 OK", json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }).to_string())
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

/// The address of a database with a password, which a server that asks for none does not look at.
fn with_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("an address");
    let (user, host) = rest.split_once('@').unwrap_or(("windlass", rest));
    let user = user.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}:canary7f3a91c2database@{host}")
}

fn told(place: &Place, url: &str, (address, collector): (&str, &str), args: &[&str]) -> Ran {
    place.with(args, |command| {
        command.env("WINDLASS_STORE", url).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector).env("USER", "olga");
        for (name, value) in SECRETS {
            command.env(name, value.replace("ADDRESS", address));
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

/// What a database logs as it comes, about a store in it: no secret, nothing that somebody said, and no document.
fn log_is_silent(server: &windlass_testpg::Server, database: &windlass_testpg::Database) {
    // A statement that fails is logged as it was sent, or this would show nothing.
    database.execute(&format!("SELECT '{BEACON}'::integer")).expect_err("no number");
    let log = server.log();
    let (before, after) = log.split_once(BEACON).expect("the log has the statement");
    for text in ["Say something.", "over HTTP", "leaky", BEACON] {
        assert!(!before.contains(text), "`{text}` is in the log of the database: {before}");
    }
    assert!(!assert_clean("the log of the database", before.as_bytes()) && assert_clean("its end", after.as_bytes()));
    let connected = before.matches("connection authorized").count();
    assert!(connected > LOOKS.len(), "every command was logged as it came: {connected}");
}

/// Looks through every file but that of secrets, which has them. Gives the names of those that the beacon is in.
fn lit_files(place: &Place) -> Vec<String> {
    let mut all = Vec::new();
    files(place.path("").as_path(), &mut all);
    assert!(all.iter().any(|path| path.ends_with("events.jsonl")));
    // The file itself, and nothing beside it.
    let kept = all.iter().position(|path| path.ends_with(".windlass/secrets.json")).expect("the file of secrets");
    let kept = std::fs::read_to_string(all.swap_remove(kept)).expect("the file of secrets");
    assert!(kept.contains("canary7f3a91c2kept") && kept.contains("canary7f3a91c2rotated"));
    all.retain(|path| assert_clean(&path.display().to_string(), &std::fs::read(path).expect("a file")));
    let name = |path: &std::path::PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let shown = |name: String| if name.starts_with("w.db") { "the store".to_owned() } else { name };
    all.iter().map(name).map(shown).collect()
}

#[test]
fn secrets_are_nowhere_but_where_they_are_sent() {
    // A server of its own, which tells more than one as it is installed.
    let settings =
        ["log_connections", "log_disconnections", "log_lock_waits"].map(|name| (name.to_owned(), "on".to_owned()));
    let server = Server::start(Options { settings: settings.to_vec(), ..Options::default() });
    for database in [None, Some(server.database())] {
        let place = Place::new();
        let (address, heads) = echo();
        let (collector, spans) = echo();
        place.write("leaky.yml", MACHINE);
        place.write("windlass.toml", &config(&address));
        let url = match &database {
            Some(database) => with_password(&database.url()),
            None => format!("sqlite:{}", place.path("w.db").display()),
        };
        place.write("pipe.py", PIPE);
        let collector = format!("http://{collector}");
        let lit = std::cell::RefCell::new(BTreeSet::new());
        let ran = |args: &[&str]| {
            let ran = told(&place, &url, (&address, &collector), args);
            let in_stdout = assert_clean(&format!("stdout of {args:?}"), ran.stdout().as_bytes());
            let in_stderr = assert_clean(&format!("stderr of {args:?}"), ran.stderr().as_bytes());
            if in_stdout || in_stderr {
                lit.borrow_mut().extend([args[0].to_owned(), args[..args.len().min(2)].join(" ")]);
            }
            ran
        };
        assert_eq!(ran(&["secrets", "set", "kept", "--from-env", "KEPT_KEY"]).code(), 0);
        for server in ["pipe", "web", "token"] {
            let accepted = ran(&["tools", "accept", server]);
            assert_eq!(accepted.code(), 0, "{}", accepted.shown());
        }
        let capture = ran(&["debug", "capture", "--machine", "leaky", "--reason", "to see"]).json();
        let capture = capture["capture"].as_str().expect("a name").to_owned();
        let first = ran(&["run", "leaky.yml", "--run-id", "leaky", "--events", "events.jsonl", "--log", "trace"]);
        assert_eq!(first.code(), 0, "{}", first.shown());
        assert_eq!(ran(&["secrets", "rotate", "kept", "--from-env", "ROTATED_KEY"]).code(), 0);
        assert_eq!(ran(&["run", "leaky.yml", "--run-id", "rotated", "--log", "trace"]).code(), 0);
        for told in TELLERS {
            let journal = ran(&["runs", "journal", "leaky", "--json"]);
            assert!(journal.stdout().contains(&format!("{BEACON} {told}")), "{told}: {}", journal.stdout());
        }
        assert!(!spans.lock().expect("kept").is_empty(), "spans were sent");
        let taken = ran(&["debug", "show", &capture, "--limit", "100"]).json();
        let taken = taken["calls"].as_array().expect("calls").len();
        assert!(taken >= 8, "{taken} calls were captured");
        for args in LOOKS {
            ran(args);
        }
        let lost = ran(&["runs", "list", "--store", SECRETS[13].1]);
        assert_ne!(lost.code(), 0, "nobody is there");
        let sent = heads.lock().expect("kept").join("\n");
        for value in SENT {
            assert!(sent.contains(value), "{value} was sent, or this test shows nothing: {sent}");
        }
        lit.borrow_mut().extend(lit_files(&place));
        if database.as_ref().is_some_and(tables_are_lit) {
            lit.borrow_mut().insert("the store".to_owned());
        }
        if let Some(database) = &database {
            log_is_silent(&server, database);
        }
        let lit = lit.into_inner();
        let dark: Vec<_> = LIT.into_iter().filter(|place| !lit.contains(*place)).collect();
        assert!(dark.is_empty(), "this test does not see what is in {dark:?}, only in {lit:?}");
    }
}
