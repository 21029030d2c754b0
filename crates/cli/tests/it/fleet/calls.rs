//! Calls of tools from outside, over HTTP on the loopback: who is let in, what is allowed, what is written down, and what
//! an attacker may try. Tokens are signed here, byte by byte, so that nothing is checked by what made it.
//!
//! Slow on purpose: real processes are started and waited for.

mod client;
mod issuers;
mod keys;
mod matrix;

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::{Fleet, Place, Served};
use client::Answer;
use keys::{By, Keys, RSA_PUBLIC, SHARED};

const TOOLS: &str = r#"
[auth.issuers.ed]
issuer = "https://ed.example"
audience = "windlass"
algorithm = "EdDSA"
key = "file:ed.pem"
tenants = ["acme", "umbrella"]

[auth.issuers.ec]
issuer = "https://ec.example"
audience = "windlass"
algorithm = "ES256"
key = "file:ec.json"

[auth.issuers.rsa]
issuer = "https://rsa.example"
audience = "windlass"
algorithm = "RS256"
key = "file:rsa.pem"

[auth.issuers.hmac]
issuer = "https://hmac.example"
audience = "windlass"
algorithm = "HS256"
key = "env:SHARED"
lifetime_max = "5m"

[auth.signing]
issuer = "hmac"
key = "env:SHARED"

[tools.search]
type = "command"
command = ["sh", "-c", "echo x >> searched; cat"]
description = "finds"
class = "read"
idempotency = "natural"
input_schema = { type = "object", properties = { q = { type = "string" } }, required = ["q"], additionalProperties = false }

[tools.pay]
type = "command"
command = ["sh", "-c", "echo x >> paid; echo '{\"paid\": true}'"]
description = "pays"
class = "write"
idempotency = "key"

[tools.wipe]
type = "command"
command = ["sh", "-c", "echo x >> wiped; echo '{\"wiped\": true}'"]
description = "wipes"
class = "danger"
idempotency = "none"
approval = "always"

[tools.mail]
type = "command"
command = ["sh", "-c", "echo x >> mailed; echo '{\"sent\": true}'"]
description = "sends mail"
class = "write"
idempotency = "key"

[tools.planned]
type = "command"
command = ["true"]
description = "goes by plans"
class = "danger"
idempotency = "none"
plan = { argument = "dry_run" }

[tools.secretive]
type = "command"
command = ["true"]
description = "nobody may"
class = "read"
idempotency = "natural"

[actions.act]
type = "command"
command = ["true"]
class = "read"
idempotency = "natural"

[policy]
path = "policies"
"#;

const RULES: &str = r#"@id("tools") @reason("what is listed")
permit (principal, action == Action::"CallTool", resource);

@id("never.secretive") @reason("not from anywhere")
forbid (principal, action == Action::"CallTool", resource == Tool::"secretive");

@id("some.secretive")
forbid (principal, action == Action::"CallTool", resource == Tool::"secretive") when { context.args has to };

@id("mail.known") @reason("mail goes to people of the house")
forbid (principal, action == Action::"CallTool", resource == Tool::"mail")
unless { context.args has to && context.args.to == "ann" };
"#;
/// A server and the keys of its issuers.
struct World {
    fleet: Fleet,
    keys: Keys,
    served: Served,
}

impl World {
    fn new(postgres: bool) -> Self {
        Self::serving(postgres, &["serve", "--listen", "127.0.0.1:0"])
    }

    fn serving(postgres: bool, args: &[&str]) -> Self {
        Self::configured(postgres, args, "")
    }

    /// The same with more configuration before the tables. What it logs is in the file `log`.
    fn configured(postgres: bool, args: &[&str], more: &str) -> Self {
        let (place, keys) = (Place::new(), Keys::new());
        keys.write(&place);
        std::fs::create_dir(place.path("policies")).expect("a folder");
        place.write("policies/rules.cedar", RULES);
        place.write("policies/arguments.cedarschema", "type Arguments = { to?: String };\n");
        place.write("windlass.toml", &format!("{more}{TOOLS}"));
        let log = std::fs::File::create(place.path("log")).expect("a file");
        let fleet = Fleet::on(place, postgres);
        let served = fleet.start_with(args, |command| {
            command.env("SHARED", SHARED).stderr(log);
        });
        Self { fleet, keys, served }
    }

    fn lines(&self, file: &str) -> usize {
        std::fs::read_to_string(self.fleet.place.path(file)).map_or(0, |text| text.lines().count())
    }

    fn run(&self, args: &[&str]) -> crate::kit::Ran {
        self.fleet.place.with(args, |command| {
            command.env("WINDLASS_STORE", &self.fleet.store.url).env("SHARED", SHARED);
        })
    }

    /// What is written down of a tenant, newest last: action, subject, detail.
    fn acts(&self, tenant: &str) -> Vec<(String, String, String)> {
        let acts = self.run(&["audit", "acts", "--tenant", tenant, "--json"]).json();
        let text = |act: &Json, key: &str| act[key].as_str().unwrap_or_default().to_owned();
        let acts = acts["rows"].as_array().cloned().unwrap_or_default();
        acts.iter().map(|act| (text(act, "action"), text(act, "subject"), text(act, "detail"))).collect()
    }
}

/// The main path: who is let in, what a call is, that it is one, and that it is written down.
fn a_call_is_a_run(postgres: bool) {
    let world = World::new(postgres);
    for by in By::ALL {
        let token = world.keys.token(by, "openid tools:search");
        let answer = world.served.calls(&token, "search", &format!("k-{by:?}"), &json!({ "q": "tides" }));
        assert_eq!((answer.status, &answer.body["result"]), (200, &json!({ "q": "tides" })), "{by:?}: {}", answer.body);
        assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
        let run = answer.body["run_id"].as_str().expect("a run").to_owned();
        let shown = world.fleet.show(&run);
        assert_eq!((&shown["tenant"], &shown["status"]), (&json!("acme"), &json!("completed")), "{shown}");
        let again = world.served.gets(&token, &format!("/v1/runs/{run}"));
        assert_eq!((again.status, &again.body["result"]), (200, &json!({ "q": "tides" })));
    }
    // Each issuer is another one, and the user of all of them is the same: so are the keys of requests.
    let (token, paid) = (world.keys.token(By::Ed, "tools:pay"), json!({ "to": "bob" }));
    let first = world.served.calls(&token, "pay", "once", &paid);
    let second = world.served.calls(&token, "pay", "once", &paid);
    assert_eq!((first.status, &first.body["result"]), (200, &json!({ "paid": true })), "{}", first.body);
    assert_eq!(first.body["run_id"], second.body["run_id"]);
    assert_eq!(world.lines("paid"), 1, "a request that is sent again does nothing again");
    let other = world.served.calls(&token, "pay", "once", &json!({ "to": "eve" }));
    assert_eq!((other.status, &other.body["code"]), (422, &json!("request.key_reused")), "{}", other.body);
    let umbrella = world.keys.with(By::Ed, "tools:pay", &json!({ "tenant": "umbrella" }));
    let theirs = world.served.calls(&umbrella, "pay", "once", &json!({ "to": "eve" }));
    assert_eq!(theirs.status, 200, "the key of another tenant is another one: {}", theirs.body);
    assert_eq!(world.lines("paid"), 2);
    let acts = world.acts("acme");
    let allowed = acts.iter().filter(|(action, subject, _)| action == "call.allow" && subject == "search").count();
    assert_eq!(allowed, 4, "{acts:?}");
    assert_eq!(world.run(&["audit", "verify"]).code(), 0);
}

#[test]
fn a_call_from_outside_is_a_run_on_sqlite() {
    a_call_is_a_run(false);
}

#[test]
fn a_call_from_outside_is_a_run_on_postgresql() {
    a_call_is_a_run(true);
}

#[test]
fn a_hundred_requests_of_one_key_are_one_run() {
    let world = World::new(false);
    let (served, token) = (&world.served, world.keys.token(By::Ed, "tools:pay"));
    // As many at once as one tenant has places for, again and again.
    let runs: BTreeSet<String> = (0..5)
        .flat_map(|_| {
            std::thread::scope(|scope| {
                let asks = || served.calls(&token, "pay", "same", &json!({}));
                let all: Vec<_> = (0..20).map(|_| scope.spawn(asks)).collect();
                all.into_iter().map(|one| one.join().expect("an answer")).collect::<Vec<_>>()
            })
        })
        .map(|answer| {
            assert_eq!(answer.status, 200, "{}", answer.body);
            answer.body["run_id"].as_str().expect("a run").to_owned()
        })
        .collect();
    assert_eq!((runs.len(), world.lines("paid")), (1, 1), "{runs:?}");
}

#[test]
fn a_run_is_shown_to_nobody_but_its_caller() {
    let world = World::new(false);
    let (served, keys) = (&world.served, &world.keys);
    let mine = served.calls(&keys.token(By::Ed, "tools:search"), "search", "", &json!({ "q": "secret plan" }));
    let run = mine.body["run_id"].as_str().expect("a run").to_owned();
    world.fleet.submit("waits.yml", "other", &["--tenant", "acme", "--user", "ann", "--input", "{\"order\":\"1\"}"]);
    let unknown = served.gets(&keys.token(By::Ed, "tools:*"), "/v1/runs/nothing-of-the-kind");
    let plain = |answer: &Answer| {
        let mut body = answer.body.clone();
        body["request_id"] = Json::Null;
        (answer.status, body)
    };
    for (name, token, id) in [
        ("another tenant", keys.with(By::Ed, "tools:*", &json!({ "tenant": "umbrella" })), &*run),
        ("another user", keys.with(By::Ed, "tools:*", &json!({ "sub": "bob" })), &*run),
        ("another tool", keys.token(By::Ed, "tools:pay"), &*run),
        ("a run that is no call", keys.token(By::Ed, "tools:*"), "other"),
        ("a path", keys.token(By::Ed, "tools:*"), "..%2f..%2fetc"),
        ("SQL", keys.token(By::Ed, "tools:*"), "x'%20OR%20'1'='1"),
    ] {
        let answer = served.gets(&token, &format!("/v1/runs/{id}"));
        assert_eq!(plain(&answer), plain(&unknown), "{name}");
    }
    let own = || served.gets(&keys.token(By::Ed, "tools:search"), &format!("/v1/runs/{run}"));
    assert_eq!(own().status, 200);

    // That a run cannot be read is a matter of its caller and of the log, and nothing to others.
    let store = rusqlite::Connection::open(world.fleet.place.path("fleet.db")).expect("the file opens");
    let of = format!("WHERE run = (SELECT key FROM runs WHERE id = '{run}')");
    store.execute(&format!("DELETE FROM snapshots {of}"), []).expect("executed");
    store.execute(&format!("UPDATE journal SET record = x'00112233' {of}"), []).expect("executed");
    let other = served.gets(&keys.with(By::Ed, "tools:*", &json!({ "sub": "bob" })), &format!("/v1/runs/{run}"));
    assert_eq!(plain(&other), plain(&unknown));
    let broken = own();
    assert!(broken.status == 500 || broken.status == 503, "{}", broken.body);
    let id = broken.body["request_id"].as_str().expect("an id");
    assert!(broken.head.contains(&format!("x-request-id: {id}")), "{}", broken.head);
    let log = std::fs::read_to_string(world.fleet.place.path("log")).expect("read");
    let said = |line: &&str| line.contains(&format!("request_id={id}")) && line.contains("cannot be");
    assert_eq!(log.lines().filter(said).count(), 1, "{log}");
    assert!(!log.contains(other.body["request_id"].as_str().expect("an id")), "{log}");
}

#[test]
fn a_call_that_asks_a_person_is_answered_when_somebody_has_decided() {
    let world = World::serving(false, &["serve", "--role", "server", "--listen", "127.0.0.1:0"]);
    let _worker = world.fleet.start_with(&["worker"], |command| {
        command.env("SHARED", SHARED);
    });
    let (served, token) = (&world.served, world.keys.token(By::Ed, "tools:wipe"));
    for (key, verb, status) in [("yes", "approve", "completed"), ("no", "reject", "failed")] {
        let asked = served.calls(&token, "wipe", key, &json!({ "disk": "a" }));
        assert_eq!((asked.status, &asked.body["status"]), (202, &json!("attention")), "{}", asked.body);
        assert_eq!(asked.body["waits"][0]["kind"], "approval");
        let run = asked.body["run_id"].as_str().expect("a run").to_owned();
        assert!(asked.head.contains(&format!("location: /v1/runs/{run}")), "{}", asked.head);
        let listed = world.run(&["approvals", "list", "--json"]).json();
        let id = listed["approvals"][0]["id"].as_str().unwrap_or_else(|| panic!("{listed}")).to_owned();
        let own = world.run(&["approvals", verb, &id, "--by", "ann", "--reason", "mine"]);
        assert_eq!(own.code() == 0, verb == "reject", "nobody approves what they asked for: {}", own.shown());
        if own.code() != 0 {
            let answered = world.run(&["approvals", verb, &id, "--by", "boss", "--reason", "looked"]);
            assert_eq!(answered.code(), 0, "{}", answered.shown());
        }
        let ended = served.gets(&token, &format!("/v1/runs/{run}?wait=60s"));
        assert_eq!((ended.status, &ended.body["status"]), (200, &json!(status)), "{}", ended.body);
        let again = served.calls(&token, "wipe", key, &json!({ "disk": "a" }));
        match verb {
            "approve" => assert_eq!((again.status, &again.body["result"]), (200, &json!({ "wiped": true }))),
            _ => assert_eq!((again.status, &again.body["code"]), (403, &json!("approval.rejected"))),
        }
    }
    assert_eq!(world.lines("wiped"), 1);
}

#[test]
fn tokens_are_made_shown_and_revoked_and_are_nowhere_else() {
    let world = World::new(false);
    let issue = |args: &[&str]| {
        world.run(&[&["tokens", "issue", "--json", "--tenant", "acme", "--user", "ann"], args].concat())
    };
    let made = issue(&["--tool", "search", "--lifetime", "1m"]).json();
    let (token, id) = (made["token"].as_str().expect("a token"), made["token_id"].as_str().expect("an id"));
    assert_eq!(made["claims"]["exp"].as_u64(), made["claims"]["iat"].as_u64().map(|at| at + 60));
    let good = || world.served.calls(token, "search", "", &json!({ "q": "canary-argument" })).status;
    assert_eq!(good(), 200);
    let show = |token: &str| {
        world.fleet.place.write("token.txt", token);
        let shown = world.run(&["tokens", "show", "--file", "token.txt"]);
        std::fs::remove_file(world.fleet.place.path("token.txt")).expect("removed");
        shown
    };
    assert_eq!(show(token).json()["tools"], json!(["search"]));
    let by = ["--by", "ops", "--reason", "left"];
    let other = issue(&["--tool", "search"]).json()["token"].as_str().expect("a token").to_owned();
    // A key without an id goes by the name of its issuer.
    for (what, name, hits_other) in [("token", id, false), ("user", "ann", true), ("key", "https://hmac.example", true)]
    {
        let revoked = world.run(&[&["tokens", "revoke", what, name], &by[..]].concat());
        assert_eq!(revoked.code(), 0, "{}", revoked.shown());
        assert_eq!(good(), 401, "{what}");
        assert_eq!(world.served.gets(&other, "/v1/tools").status, if hits_other { 401 } else { 200 }, "{what}");
        assert_eq!(show(token).code(), 5);
        assert_eq!(world.run(&["tokens", "revoked"]).json()["revoked"][0]["name"], name);
        assert_eq!(world.run(&[&["tokens", "restore", what, name], &by[..]].concat()).code(), 0);
        assert_eq!(world.run(&[&["tokens", "restore", what, name], &by[..]].concat()).code(), 4);
        assert_eq!(good(), 200);
    }
    // A key is revoked by its id.
    let keyed = world.keys.token(By::Ec, "tools:search");
    assert_eq!(world.served.gets(&keyed, "/v1/tools").status, 200);
    assert_eq!(world.run(&[&["tokens", "revoke", "key", "ec-1"], &by[..]].concat()).code(), 0);
    assert_eq!(world.served.gets(&keyed, "/v1/tools").status, 401);
    for args in [vec!["--tool", "search", "--lifetime", "1h"], vec!["--tool", "a b"]] {
        assert_eq!(issue(&args).code(), 2, "{args:?}");
    }
    let acts = world.acts("acme");
    assert!(acts.iter().any(|(action, subject, _)| action == "token.issue" && subject == "ann"), "{acts:?}");
    // What the store has, whole and as it is shown, has neither a token nor the key; what must be found shows that it is read.
    let runs = world.run(&["runs", "list", "--json"]).json();
    let mut all = Vec::new();
    for run in runs["runs"].as_array().unwrap_or_else(|| panic!("{runs}")) {
        let run = run["id"].as_str().unwrap_or_else(|| panic!("{runs}"));
        all.extend(world.run(&["runs", "journal", run, "--json"]).stdout().into_bytes());
    }
    all.extend(world.run(&["audit", "acts", "--tenant", "acme", "--json"]).stdout().into_bytes());
    let World { fleet, served, .. } = world;
    assert_eq!(served.stop().code(), Some(0));
    for file in std::fs::read_dir(fleet.place.path("")).expect("a folder").flatten() {
        if file.path().is_file() && file.file_name().to_string_lossy().starts_with("fleet.db") {
            all.extend(std::fs::read(file.path()).expect("read"));
        }
    }
    let found = |text: &str| all.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(found("canary-argument") && found(id), "what is kept is looked through");
    let signature = token.rsplit('.').next().expect("a signature");
    assert!(!found(token) && !found(signature) && !found(SHARED), "no token and no key is kept");
}

#[test]
fn calls_are_served_to_nobody_where_nobody_is_known() {
    let place = Place::new();
    let fleet = Fleet::on(place, false);
    let served = fleet.start(&["serve", "--listen", "127.0.0.1:0"]);
    for path in ["/v1/tools", "/v1/runs/x"] {
        assert_eq!(served.asks("GET", path, &[], "").status, 404, "{path}");
    }
    drop(served);
    let canary = "canary-key-0123456789abcdef0123456789";
    let issuer = "[auth.issuers.a]\nissuer = \"a\"\naudience = \"b\"\n";
    for (config, said) in [
        ("[serve]\ncalls = true\n".to_owned(), "nobody whose token"),
        (format!("{issuer}algorithm = \"HS256\"\nkey = \"env:NOTHING\"\n"), "names nothing"),
        (format!("{issuer}algorithm = \"HS256\"\nkey = \"{canary}\"\n"), "names nothing"),
        (format!("{issuer}algorithm = \"HS256\"\nkey = \"file:short\"\n"), "at least 32 bytes"),
        (format!("{issuer}algorithm = \"HS256\"\nkey = \"file:rsa.pem\"\n"), "no key of this algorithm"),
        (format!("{issuer}algorithm = \"HS256\"\nkey = \"file:set.json\"\n"), "no key of this algorithm"),
        (format!("{issuer}algorithm = \"EdDSA\"\nkey = \"file:rsa.pem\"\n"), "no key of this algorithm"),
        (format!("{issuer}algorithm = \"ES256\"\nkey = \"file:set.json\"\n"), "key 1 of the set"),
        (format!("{issuer}algorithm = \"none\"\nkey = \"file:rsa.pem\"\n"), "EdDSA"),
        (
            format!("{issuer}algorithm = \"RS256\"\nkey = \"file:rsa.pem\"\nlifetime_max = \"2d\"\n"),
            "from a second to a day",
        ),
    ] {
        fleet.write("short", canary.get(..12).expect("a part"));
        fleet.write("rsa.pem", RSA_PUBLIC);
        fleet.write("set.json", r#"{"keys": [{"kty": "oct", "k": "YWJj", "kid": "a"}]}"#);
        fleet.write("windlass.toml", &config);
        let refused = fleet.run(&["serve", "--listen", "127.0.0.1:0"]);
        assert_eq!(refused.code(), 2, "{config}: {}", refused.shown());
        assert!(refused.shown().contains(said), "{said}: {}", refused.shown());
        assert!(!refused.shown().contains(canary), "{}", refused.shown());
    }
}
