//! Calls of tools from outside, over HTTP on the loopback: who is let in, what is allowed, what is written down, and what
//! an attacker may try. Tokens are signed here, byte by byte, so that nothing is checked by what made it.
//!
//! Slow on purpose: real processes are started and waited for.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value as Json, json};
use windlass_server::calls::{BODY_BYTES_MAX, OPEN, ROUTES};

use super::{Fleet, Place, Served};

/// A secret that both sides know, which nothing may say.
const SHARED: &str = "canary-shared-0123456789abcdef0123456789abcdef";
/// The private key of the RSA issuer, of this test alone, and its public one.
const RSA: &[u8] = include_bytes!("../fixtures/auth/rsa.der");
const RSA_PUBLIC: &str = include_str!("../fixtures/auth/rsa.pub.pem");

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
"#;

/// The keys of issuers.
struct Keys {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
}

/// One issuer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Ed,
    Ec,
    Rsa,
    Hmac,
}

impl By {
    const ALL: [Self; 4] = [Self::Ed, Self::Ec, Self::Rsa, Self::Hmac];

    fn issuer(self) -> &'static str {
        match self {
            Self::Ed => "https://ed.example",
            Self::Ec => "https://ec.example",
            Self::Rsa => "https://rsa.example",
            Self::Hmac => "https://hmac.example",
        }
    }

    fn header(self) -> Json {
        match self {
            Self::Ed => json!({ "alg": "EdDSA", "typ": "JWT" }),
            Self::Ec => json!({ "alg": "ES256", "kid": "ec-1" }),
            Self::Rsa => json!({ "alg": "RS256" }),
            Self::Hmac => json!({ "alg": "HS256" }),
        }
    }
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

fn part(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

impl Keys {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        Self {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).expect("a key"),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).expect("a key"),
            rsa: RsaKeyPair::from_der(RSA).expect("a key"),
        }
    }

    /// The public ones where the configuration looks for them.
    fn write(&self, place: &Place) {
        let spki =
            [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], self.ed.public_key().as_ref()];
        place.write("ed.pem", &pem(&spki.concat()));
        let point = self.ec.public_key().as_ref();
        let (x, y) = (part(&point[1..33]), part(&point[33..]));
        let set = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "ec-1", "use": "sig" }] });
        place.write("ec.json", &set.to_string());
        place.write("rsa.pem", RSA_PUBLIC);
    }

    fn sign(&self, by: By, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match by {
            By::Ed => self.ed.sign(message).as_ref().to_vec(),
            By::Ec => self.ec.sign(&random, message).expect("signed").as_ref().to_vec(),
            By::Rsa => {
                let mut made = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut made).expect("signed");
                made
            }
            By::Hmac => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SHARED.as_bytes()), message).as_ref().to_vec(),
        }
    }

    fn token_of(&self, by: By, header: &Json, claims: &str) -> String {
        let message = format!("{}.{}", part(header.to_string()), part(claims));
        format!("{message}.{}", part(self.sign(by, message.as_bytes())))
    }

    /// A token with these claims beside or instead of the usual ones; null takes one away.
    fn with(&self, by: By, scope: &str, more: &Json) -> String {
        let mut claims = json!({
            "iss": by.issuer(), "aud": "windlass", "iat": now(), "exp": now() + 240,
            "tenant": "acme", "sub": "ann", "scope": scope, "jti": "t1",
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        if let Json::Object(claims) = &mut claims {
            claims.retain(|_, value| !value.is_null());
        }
        self.token_of(by, &by.header(), &claims.to_string())
    }

    fn token(&self, by: By, scope: &str) -> String {
        self.with(by, scope, &json!({}))
    }
}

/// What was answered.
struct Answer {
    status: u16,
    head: String,
    body: Json,
}

impl Served {
    fn address(&self) -> &str {
        self.said["listen"].as_str().and_then(|url| url.strip_prefix("http://")).expect("it listens")
    }

    /// Sends a request as it is.
    fn raw(&self, request: &[u8]) -> Answer {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.address()).expect("a connection");
        // It may answer, and close, before all of a body was sent.
        let _sent = stream.write_all(request);
        let mut bytes = Vec::new();
        let _read = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        let body = serde_json::from_str(body).unwrap_or(Json::Null);
        Answer { status, head: head.to_lowercase(), body }
    }

    fn asks(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        self.raw(format!("{head}\r\n{body}").as_bytes())
    }

    fn gets(&self, token: &str, path: &str) -> Answer {
        self.asks("GET", path, &[("authorization", &format!("Bearer {token}"))], "")
    }

    fn calls(&self, token: &str, tool: &str, key: &str, arguments: &Json) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer), ("content-type", "application/json"), ("idempotency-key", key)];
        let headers = if key.is_empty() { &headers[..2] } else { &headers };
        let body = json!({ "arguments": arguments }).to_string();
        self.asks("POST", &format!("/v1/tools/{tool}/call?wait=30s"), headers, &body)
    }
}

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
        let (place, keys) = (Place::new(), Keys::new());
        keys.write(&place);
        std::fs::create_dir(place.path("policies")).expect("a folder");
        place.write("policies/rules.cedar", RULES);
        place.write("windlass.toml", TOOLS);
        let fleet = Fleet::on(place, postgres);
        let served = fleet.start_with(args, |command| {
            command.env("SHARED", SHARED);
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

/// The matrix: no token, a wrong tenant, the right tenant and a wrong tool, and what is right.
#[test]
fn who_may_do_what_is_decided_by_token_tenant_tool_and_rule() {
    let world = World::new(false);
    let (served, keys) = (&world.served, &world.keys);
    let q = json!({ "q": "x" });
    let wrong_tenant = keys.with(By::Ed, "tools:*", &json!({ "tenant": "initech" }));
    let cases = [
        ("no token", served.asks("POST", "/v1/tools/search/call", &[], "{}"), 401, "auth.unauthenticated"),
        ("wrong tenant", served.calls(&wrong_tenant, "search", "", &q), 403, "auth.tenant"),
        ("wrong tool", served.calls(&keys.token(By::Ed, "tools:pay"), "search", "", &q), 403, "auth.scope"),
        ("no scope", served.calls(&keys.token(By::Ed, "openid"), "search", "", &q), 403, "auth.scope"),
        ("a beginning", served.calls(&keys.token(By::Ed, "tools:sea"), "search", "", &q), 403, "auth.scope"),
        ("rule", served.calls(&keys.token(By::Ed, "tools:*"), "secretive", "", &json!({})), 403, "policy.denied"),
        ("no tool", served.calls(&keys.token(By::Ed, "tools:*"), "nothing", "", &q), 404, "request.not_found"),
        ("an action", served.calls(&keys.token(By::Ed, "tools:*"), "act", "", &q), 404, "request.not_found"),
        (
            "arguments",
            served.calls(&keys.token(By::Ed, "tools:*"), "search", "", &json!({ "q": 1 })),
            422,
            "tool.bad_arguments",
        ),
        ("plans", served.calls(&keys.token(By::Ed, "tools:*"), "planned", "k", &json!({})), 422, "tool.denied"),
        ("no key", served.calls(&keys.token(By::Ed, "tools:*"), "pay", "", &json!({})), 400, "request.invalid"),
    ];
    for (name, answer, status, code) in &cases {
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (*status, &json!(code)),
            "{name}: {} {}",
            answer.head,
            answer.body
        );
        assert!(answer.head.contains("content-type: application/problem+json"), "{name}: {}", answer.head);
        let challenge = answer.head.contains("www-authenticate: bearer");
        assert_eq!(challenge, *status == 401 || *code == "auth.scope", "{name}: {}", answer.head);
    }
    assert!(cases[2].1.head.contains("error=\"insufficient_scope\", scope=\"tools:search\""), "{}", cases[2].1.head);
    assert_eq!(cases[5].1.body["rule"], "never.secretive");
    assert_eq!(world.lines("searched"), 0, "nothing of this was done");
    let right = served.calls(&keys.token(By::Ed, "tools:sea*"), "search", "", &q);
    assert_eq!(right.status, 200, "{}", right.body);
    let acts = world.acts("acme");
    for (action, subject, detail) in [
        ("call.deny", "search", "the token has no scope for it: tools:search"),
        ("call.deny", "secretive", "rule never.secretive: not from anywhere"),
        ("call.allow", "search", "rule tools"),
    ] {
        let act = (action.to_owned(), subject.to_owned(), detail.to_owned());
        assert!(acts.contains(&act), "{act:?} in {acts:?}");
    }
    assert!(world.acts("initech").is_empty(), "nobody writes into what is kept of a tenant it may not speak for");
    assert!(
        world.acts("default").iter().any(|(action, _, detail)| action == "call.deny" && detail.contains("initech"))
    );
    let listed = |scope: &str| -> Vec<String> {
        let tools = served.gets(&keys.token(By::Ed, scope), "/v1/tools").body["tools"].as_array().cloned();
        tools.unwrap_or_default().iter().map(|tool| tool["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(listed("tools:*"), ["pay", "search", "wipe"], "what may not be called is not shown");
    assert_eq!(listed("tools:search"), ["search"]);
    assert!(listed("openid").is_empty());
    for (name, least) in [
        ("windlass_requests_total{token=\"missing\"}", 1.0),
        ("windlass_request_decisions_total{decision=\"scope\"}", 3.0),
        ("windlass_request_decisions_total{decision=\"policy\"}", 1.0),
        ("windlass_request_decisions_total{decision=\"tenant\"}", 1.0),
        ("windlass_request_decisions_total{decision=\"allow\"}", 1.0),
    ] {
        assert!(served.number(name) >= least, "{name}");
    }
}

/// Every token that must not be taken, by the reason that is counted.
fn bad_tokens(keys: &Keys) -> Vec<(&'static str, String, &'static str)> {
    let good = keys.token(By::Rsa, "tools:*");
    let (head, rest) = good.split_once('.').expect("a token");
    let (claims, signature) = rest.split_once('.').expect("a token");
    let with = |by, more: Json| keys.with(by, "tools:*", &more);
    let under = |by: By, header: &Json, claims: &str| keys.token_of(by, header, claims);
    let said = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("text");
    let none = |alg: &str| format!("{}.{claims}.", part(json!({ "alg": alg }).to_string()));
    let by_public_key = {
        let message = format!("{}.{claims}", part(json!({ "alg": "HS256" }).to_string()));
        let made = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, RSA_PUBLIC.as_bytes()), message.as_bytes());
        format!("{message}.{}", part(made.as_ref()))
    };
    let ec =
        |kid: Json| under(By::Ec, &json!({ "alg": "ES256", "kid": kid }), &said.replace("rsa.example", "ec.example"));
    let mut forged = signature.to_owned();
    forged.replace_range(..4, if forged.starts_with("AAAA") { "BBBB" } else { "AAAA" });
    let richer = part(said.replace("\"ann\"", "\"root\""));
    vec![
        ("expired", with(By::Ed, json!({ "iat": now() - 600, "exp": now() - 120 })), "expired"),
        ("none", none("none"), "algorithm"),
        ("None", none("NONE"), "algorithm"),
        ("no signature", format!("{head}.{claims}."), "signature"),
        ("the public key as a secret", by_public_key, "algorithm"),
        ("another algorithm of the key", under(By::Rsa, &json!({ "alg": "RS512" }), &said), "algorithm"),
        ("another audience", with(By::Ed, json!({ "aud": "others" })), "audience"),
        ("no audience", with(By::Ed, json!({ "aud": null })), "claims"),
        ("another issuer", with(By::Ed, json!({ "iss": "https://evil.example" })), "issuer"),
        ("a list of issuers", with(By::Ed, json!({ "iss": ["https://ed.example"] })), "issuer"),
        ("the key of another issuer", with(By::Ed, json!({ "iss": By::Rsa.issuer() })), "algorithm"),
        ("not yet", with(By::Ed, json!({ "nbf": now() + 3_600 })), "not_yet"),
        ("made tomorrow", with(By::Ed, json!({ "iat": now() + 3_600, "exp": now() + 3_700 })), "not_yet"),
        ("no end", with(By::Ed, json!({ "exp": null })), "claims"),
        ("no beginning", with(By::Ed, json!({ "iat": null })), "claims"),
        ("an end that is a text", with(By::Ed, json!({ "exp": "tomorrow" })), "claims"),
        ("too long", with(By::Ed, json!({ "exp": now() + 3_600 })), "lifetime"),
        ("longer than its issuer may", with(By::Hmac, json!({ "exp": now() + 600 })), "lifetime"),
        ("no tenant", with(By::Ed, json!({ "tenant": null })), "claims"),
        ("a tenant with a line end", with(By::Ed, json!({ "tenant": "acme\nroot" })), "claims"),
        ("a tenant that is no text", with(By::Ed, json!({ "tenant": ["acme"] })), "claims"),
        ("no user", with(By::Ed, json!({ "sub": "" })), "claims"),
        ("scopes that are none", with(By::Ed, json!({ "scope": { "tools": "*" } })), "claims"),
        ("huge", with(By::Ed, json!({ "more": "x".repeat(9_000) })), "too_large"),
        ("a key by a path", ec(json!("../../etc/passwd")), "key"),
        ("a key by an address", ec(json!("http://evil.example/key")), "key"),
        ("no key", under(By::Ec, &json!({ "alg": "ES256" }), &said.replace("rsa.example", "ec.example")), "key"),
        ("forged", format!("{head}.{claims}.{forged}"), "signature"),
        ("changed", format!("{head}.{richer}.{signature}"), "signature"),
        ("critical", under(By::Ed, &json!({ "alg": "EdDSA", "crit": ["b64"], "b64": false }), &said), "malformed"),
        ("a claim twice", under(By::Ed, &By::Ed.header(), r#"{"iss":"https://ed.example","iss":"x"}"#), "malformed"),
        ("no token", "canary-token".to_owned(), "malformed"),
        ("two parts", format!("{head}.{claims}"), "malformed"),
        ("empty", String::new(), "malformed"),
    ]
}

#[test]
fn no_bad_token_is_taken_by_any_route() {
    let world = World::new(false);
    let served = &world.served;
    let mut counted = BTreeSet::new();
    for (name, token, reason) in bad_tokens(&world.keys) {
        let metric = format!("windlass_requests_total{{token=\"{reason}\"}}");
        let before = served.number(&metric);
        let answer = served.gets(&token, "/v1/tools");
        assert_eq!(answer.status, 401, "{name}: {} {}", answer.head, answer.body);
        assert!(answer.head.contains("www-authenticate: bearer realm=\"windlass\", error=\"invalid_token\""), "{name}");
        assert_eq!(served.number(&metric), before + 1.0, "{name} is counted as {reason}");
        let call = served.calls(&token, "search", "k", &json!({ "q": "x" }));
        assert_eq!(call.status, 401, "{name}: {}", call.body);
        counted.insert(reason);
    }
    assert!(counted.len() >= 11, "{counted:?}");
    assert_eq!(world.lines("searched"), 0);
    let good = format!("Bearer {}", world.keys.token(By::Ed, "tools:*"));
    for (headers, status) in [
        (vec![("authorization", &*good), ("authorization", &*good)], 401),
        (vec![("authorization", "Basic YTpi")], 401),
        (vec![("proxy-authorization", &*good)], 401),
        (vec![("x-tenant-id", "acme"), ("x-forwarded-user", "ann")], 401),
        (vec![("authorization", &*good)], 200),
    ] {
        assert_eq!(served.asks("GET", "/v1/tools", &headers, "").status, status, "{headers:?}");
    }
    assert_eq!(served.asks("GET", &format!("/v1/tools?access_token={}", &good[7..]), &[], "").status, 401);
    // What was refused is written down once for all, when the process ends at the latest, with nothing of a token.
    let acts = world.acts("default");
    assert!(!acts.iter().any(|(action, _, _)| action == "request.refuse"), "not one by one: {acts:?}");
    let World { fleet, served, .. } = world;
    assert_eq!(served.stop().code(), Some(0));
    let acts = fleet.run(&["audit", "acts", "--json", "--action", "request.refuse"]).json();
    let detail = acts["rows"][0]["detail"].as_str().expect("written down").to_owned();
    assert!(detail.contains("expired 2") && detail.contains("signature 6") && detail.contains("missing 3"), "{detail}");
    assert_eq!(acts["rows"].as_array().map(Vec::len), Some(1), "{acts}");
}

#[test]
fn every_route_but_those_about_the_process_needs_a_token() {
    let world = World::new(false);
    for route in ROUTES {
        let path = route.path.replace("{name}", "search").replace("{id}", "x");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"] {
            let answer = world.served.asks(method, &path, &[], "");
            assert_eq!(answer.status, 401, "{method} {path}: {}", answer.head);
            assert!(answer.head.contains("www-authenticate: bearer"), "{method} {path}: {}", answer.head);
        }
        let answer = world.served.gets(&world.keys.token(By::Ed, "tools:*"), &path);
        let status = if route.method == "GET" { 401 } else { 404 };
        assert!(answer.status != status, "{path} is a route: {}", answer.body);
    }
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/tools",
        "/v1/tools/",
        "//v1/tools",
        "/V1/tools",
        "/v1/tools;x",
        "/metrics/x",
        "/healthz/",
    ] {
        assert_eq!(world.served.asks("GET", path, &[], "").status, 401, "{path}");
        let known = world.served.gets(&world.keys.token(By::Ed, "tools:*"), path);
        assert_eq!((known.status, &known.body["code"]), (404, &json!("request.not_found")), "{path}");
    }
    for path in OPEN {
        assert!(world.served.asks("GET", path, &[], "").status != 401, "{path}");
    }
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
    assert_eq!(served.gets(&keys.token(By::Ed, "tools:search"), &format!("/v1/runs/{run}")).status, 200);
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
fn what_is_no_request_is_refused_within_bounds() {
    let world = World::new(false);
    let (served, token) = (&world.served, world.keys.token(By::Ed, "tools:*"));
    let bearer = format!("Bearer {token}");
    let post = |headers: &[(&str, &str)], body: &str| {
        let all: Vec<(&str, &str)> = [("authorization", &*bearer)].into_iter().chain(headers.iter().copied()).collect();
        served.asks("POST", "/v1/tools/search/call", &all, body).status
    };
    const JSON: (&str, &str) = ("content-type", "application/json");
    let good = r#"{"arguments": {"q": "x"}}"#;
    let deep = format!("{{\"arguments\": {{\"q\": {}{}}}}}", "[".repeat(5_000), "]".repeat(5_000));
    for (name, headers, body, status) in [
        ("good", vec![JSON], good, 200),
        ("no JSON", vec![JSON], "{", 400),
        ("a list", vec![JSON], "[]", 400),
        ("a mark before it", vec![JSON], "\u{feff}{}", 400),
        ("a key twice", vec![JSON], r#"{"arguments": {"q": "x", "q": "y"}}"#, 400),
        ("arguments twice", vec![JSON], r#"{"arguments": {"q": "x"}, "arguments": {}}"#, 400),
        ("a tenant", vec![JSON], r#"{"arguments": {"q": "x"}, "tenant": "umbrella"}"#, 400),
        ("another case", vec![JSON], r#"{"Arguments": {"q": "x"}}"#, 400),
        ("arguments that are a text", vec![JSON], r#"{"arguments": "{}"}"#, 400),
        ("a huge number", vec![JSON], r#"{"arguments": {"q": 123456789012345678901234567890}}"#, 400),
        ("deep", vec![JSON], &deep, 400),
        ("a form", vec![("content-type", "application/x-www-form-urlencoded")], good, 415),
        ("no type", vec![], good, 415),
        ("packed", vec![JSON, ("content-encoding", "gzip")], good, 415),
        ("two keys", vec![JSON, ("idempotency-key", "a"), ("idempotency-key", "b")], good, 400),
        ("a key with a blank", vec![JSON, ("idempotency-key", "a b")], good, 400),
        ("a page", vec![JSON, ("origin", "http://evil.example")], good, 403),
        ("a page of nowhere", vec![JSON, ("origin", "null")], good, 403),
        ("two hosts", vec![JSON, ("host", "localhost")], good, 400),
        ("a tenant in a header", vec![JSON, ("x-tenant-id", "umbrella")], good, 200),
    ] {
        assert_eq!(post(&headers, body), status, "{name}");
    }
    let long = "k".repeat(300);
    assert_eq!(post(&[JSON, ("idempotency-key", &long)], good), 400);
    let large = format!("{{\"arguments\": {{\"q\": \"{}\"}}}}", "x".repeat(BODY_BYTES_MAX));
    assert_eq!(post(&[JSON], &large), 413);
    assert_eq!(world.lines("searched"), 2, "only what is good was done");
}

#[test]
fn requests_that_are_malformed_on_the_wire_are_refused() {
    let world = World::new(false);
    let (served, bearer) = (&world.served, format!("Bearer {}", world.keys.token(By::Ed, "tools:*")));
    let large = "x".repeat(BODY_BYTES_MAX + 1);
    let head = |more: &str| {
        let auth = format!("authorization: {bearer}\r\ncontent-type: application/json\r\n");
        format!("POST /v1/tools/search/call HTTP/1.1\r\n{more}{auth}")
    };
    let ends = "connection: close\r\n\r\n";
    for (name, request, statuses) in [
        (
            "announced as huge",
            format!("{}content-length: 10000000000\r\n{ends}", head("host: localhost\r\n")),
            &[413][..],
        ),
        (
            "pieces without an end",
            format!("{}transfer-encoding: chunked\r\n{ends}{:x}\r\n{large}", head("host: localhost\r\n"), large.len()),
            &[413],
        ),
        (
            "two lengths",
            format!("{}content-length: 2\r\ncontent-length: 3\r\n{ends}{{}}", head("host: localhost\r\n")),
            &[400],
        ),
        (
            "both lengths",
            format!(
                "{}content-length: 5\r\ntransfer-encoding: chunked\r\n{ends}0\r\n\r\n",
                head("host: localhost\r\n")
            ),
            &[400],
        ),
        ("another host", format!("{}{ends}", head("host: evil.example\r\n")), &[421]),
        ("no host", format!("{}{ends}", head("")), &[400]),
        (
            "an address that is another host",
            format!(
                "GET http://evil.example/v1/tools HTTP/1.1\r\nhost: localhost\r\nauthorization: {bearer}\r\n{ends}"
            ),
            &[400, 421],
        ),
        ("a huge head", format!("{}x: {}\r\n{ends}", head("host: localhost\r\n"), "y".repeat(64 * 1024)), &[431]),
    ] {
        let answer = served.raw(request.as_bytes());
        assert!(statuses.contains(&answer.status), "{name}: {} {} {}", answer.status, answer.head, answer.body);
    }
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let wait = served.asks("POST", "/v1/tools/search/call?wait=1d", &headers, "{}");
    assert_eq!((wait.status, &wait.body["code"]), (400, &json!("request.invalid")));
    assert_eq!(world.lines("searched"), 0, "nothing was done");
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
