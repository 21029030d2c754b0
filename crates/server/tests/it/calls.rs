//! Requests that stand still, a store that has something else than it should, and a process that is about to end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use windlass_core::budget::Ceilings;
use windlass_ports::store::{Put, Store};
use windlass_runtime::Stop;
use windlass_server::auth::{Algorithm, Authority, ClaimNames, Issuer, Keys, Signer, Wanted};
use windlass_server::calls::{Api, Calls};
use windlass_server::{Metrics, Probe};

use crate::kit::process;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn claims() -> ClaimNames {
    ClaimNames { tenant: "tenant".into(), user: "sub".into(), scope: "scope".into() }
}

fn issuer() -> Issuer {
    Issuer {
        issuer: "i".into(),
        audience: "a".into(),
        keys: Keys::read(Algorithm::Hs256, SECRET, None).expect("a key"),
        leeway_s: 0,
        lifetime_max_s: 900,
        claims: claims(),
        tenants: BTreeSet::new(),
    }
}

fn token() -> String {
    let names = claims();
    let signer = Signer::new(Algorithm::Hs256, &SecretString::from(SECRET), None, ("i", "a", &names)).expect("a key");
    let made_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let (tenant, user, id) = ("acme".into(), "ann".into(), "1".into());
    let wanted = Wanted { tenant, user, scopes: vec!["tools:*".into()], id, made_s, lifetime_s: 900 };
    signer.mint(&wanted).expect("a token").token.expose_secret().to_owned()
}

/// A process that serves calls of no tool.
struct Serving {
    address: std::net::SocketAddr,
    stop: Stop,
    base: crate::kit::Process,
}

async fn serving() -> Serving {
    let base = process(false).await;
    let (metrics, stop) = (Arc::new(Metrics::new()), Stop::new());
    let authority = Authority::new([issuer()]);
    let calls = Calls { authority, tools: BTreeMap::new(), ceilings: Ceilings::default(), ..Calls::default() };
    let api = Api::new(base.engine.clone(), Arc::clone(&metrics), calls, stop.clone());
    let probe = Probe { engine: base.engine.clone(), metrics, works: false, stop: stop.clone() };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = windlass_server::router(probe, Some(api));
    tokio::spawn(windlass_server::serve(listener, router, CancellationToken::new()));
    Serving { address, stop, base }
}

impl Serving {
    async fn sends(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("answered");
        (text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default(), text.to_lowercase())
    }

    fn post(&self, more: &str) -> String {
        let auth = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", token());
        format!("POST /v1/tools/x/call HTTP/1.1\r\nhost: a\r\n{auth}{more}")
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let serving = serving().await;
    let (status, text) = serving.sends(&serving.post("content-length: 10\r\n\r\n{\"a")).await;
    assert!(status == 408 && text.contains("connection: close"), "{text}");
}

#[tokio::test]
async fn nobody_is_let_in_while_nobody_knows_what_is_revoked() {
    let serving = serving().await;
    let get =
        format!("GET /v1/tools HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n", token());
    assert_eq!(serving.sends(&get).await.0, 200);
    let bytes = Some(b"no list".to_vec());
    let put = Put { kind: "auth".into(), key: "revoked".into(), expected: 0, bytes };
    assert!(serving.base.store.put_object(put).await.expect("put"));
    let (status, text) = serving.sends(&get).await;
    assert!(status == 503 && text.contains("retry-after: 1") && text.contains("store.unavailable"), "{text}");
}

#[tokio::test]
async fn a_process_that_is_about_to_end_takes_no_calls() {
    let serving = serving().await;
    serving.stop.graceful.cancel();
    let request = serving.post("content-length: 2\r\nconnection: close\r\n\r\n{}");
    let (status, text) = serving.sends(&request).await;
    assert!(status == 503 && text.contains("retry-after: 1"), "{text}");
}
