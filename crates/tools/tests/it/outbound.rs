//! Addresses that documents name: what may not be reached is not connected to, however it is written.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use reqwest::dns::Name;
use windlass_core::failure::{Code, Failure};
use windlass_core::machine::HookKind;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Catalog, HookEvent};
use windlass_tools::guard::{Guard, Lookup, Refused};

use crate::catalog;
use crate::corpus::CORPUS;
use crate::server::{Reply, Server};

async fn call(catalog: &Catalog, url: &str) -> Result<Value, Failure> {
    let args = Value::object([("url", Value::from(url))]);
    let event = HookEvent {
        hook: "webhook".into(),
        kind: HookKind::Action,
        body: Value::object([("event", Value::from("action")), ("args", args)]),
        idempotency_key: "run-1#7".into(),
        trace: None,
        tenant: "t".into(),
        labels: None,
        hidden: Default::default(),
        timeout_ms: 5_000,
        output_bytes_max: 10_000,
        permit: Default::default(),
    };
    catalog.hook("webhook").expect("built in").call(event).await
}

#[tokio::test]
async fn nothing_of_the_corpus_is_connected_to() {
    assert!(CORPUS.len() >= 60, "{}", CORPUS.len());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    let connected = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&connected);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counting.fetch_add(1, Ordering::AcqRel);
        }
    });
    let catalog = catalog("");
    for address in CORPUS {
        let url = address.replace("{port}", &port);
        let failure = call(&catalog, &url).await.expect_err(&url);
        assert!(matches!(failure.code, Code::PolicyDenied | Code::SpecInvalid), "{url}: {failure}");
    }
    // The listener is there: what is let through does reach it.
    let open = crate::catalog(&format!("[outbound]\nallow = ['127.0.0.1:{port}']"));
    let before = connected.load(Ordering::Acquire);
    let reached = tokio::spawn(async move { call(&open, &format!("http://127.0.0.1:{port}/")).await });
    reached.await.expect("no panic").expect_err("it never answers");
    assert_eq!((before, connected.load(Ordering::Acquire) > 0), (0, true));
}

#[tokio::test]
async fn a_redirect_leads_nowhere_else() {
    let hidden = Server::start(|_| Reply::Full(200, "", "{}".into())).await;
    let to = hidden.url.clone();
    let server = Server::start(move |request| {
        let head = match request.target.as_str() {
            "/same" => "HTTP/1.1 307 x\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/there" => "HTTP/1.1 200 x\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
            "/file" => "HTTP/1.1 307 x\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n".to_owned(),
            _ => format!("HTTP/1.1 307 x\r\nlocation: {to}/x\r\ncontent-length: 0\r\n\r\n"),
        };
        Reply::Raw(head.into_bytes())
    })
    .await;
    let catalog = catalog(&format!("[outbound]\nallow = ['{}']", server.url.trim_start_matches("http://")));
    assert!(call(&catalog, &format!("{}/same", server.url)).await.is_ok());
    for path in ["file", "other"] {
        let failure = call(&catalog, &format!("{}/{path}", server.url)).await.expect_err(path);
        assert!(failure.message.contains("redirected"), "{failure}");
    }
    assert!(hidden.seen().is_empty());
}

/// Answers with one list of addresses after the other, and counts how often it is asked.
struct Flipping {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Lookup for Flipping {
    fn lookup(&self, _: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::AcqRel);
        let mut answers = self.answers.lock().expect("the answers");
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        async move { Ok(answer) }.boxed()
    }
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_checked_whenever_it_is_resolved() {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let answers = vec![vec![ip("93.184.215.14")], vec![ip("93.184.215.14"), ip("127.0.0.1")], vec![ip("::1")]];
    let lookup = Arc::new(Flipping { answers: Mutex::new(answers), asked: AtomicUsize::new(0) });
    let resolver = Guard::default().resolving(Arc::clone(&lookup) as Arc<dyn Lookup>).resolver();
    let resolve = || resolver.resolve("rebind.acme.io".parse::<Name>().expect("a name"));
    // What is connected to is what was checked: the addresses come from the same answer, and nobody asks again.
    let given: Vec<_> = resolve().await.expect("public").map(|address| address.ip()).collect();
    assert_eq!((given, lookup.asked.load(Ordering::Acquire)), (vec![ip("93.184.215.14")], 1));
    for _ in 0..2 {
        let error = match resolve().await {
            Ok(_) => panic!("a private address was given out"),
            Err(error) => error,
        };
        assert!(matches!(error.downcast_ref::<Refused>(), Some(Refused::Private { .. })), "{error}");
    }
}

#[tokio::test]
async fn a_client_does_not_connect_to_a_name_that_leads_to_a_private_address() {
    let server = Server::start(|_| Reply::Full(200, "", "{}".into())).await;
    let port = server.url.rsplit(':').next().expect("a port").to_owned();
    let answers = vec![vec!["127.0.0.1".parse::<IpAddr>().expect("an address")]];
    let lookup = Arc::new(Flipping { answers: Mutex::new(answers), asked: AtomicUsize::new(0) });
    let guard = Guard::default().resolving(lookup);
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().dns_resolver(guard.resolver()).build().expect("a client");
    let error = client.get(format!("http://rebind.acme.io:{port}/")).send().await.expect_err("refused");
    assert!(error.is_connect(), "{error:?}");
    assert!(server.seen().is_empty());
}

#[test]
fn what_is_let_through_is_a_host_with_a_port() {
    for wrong in ["localhost", "http://localhost:80", "localhost:0", "localhost:99999", "a@b:80", "h:80/x"] {
        let error = crate::catalog_in(std::path::Path::new("/"), &format!("[outbound]\nallow = ['{wrong}']"));
        assert!(error.is_err(), "{wrong}");
    }
    crate::catalog("[outbound]\nallow = ['localhost:80', '[::1]:8080', 'wiki.acme.io:443']");
}

#[tokio::test]
async fn documents_of_a_tenant_name_its_hosts_alone() {
    let server = Server::start(|_| Reply::Full(200, "", "{}".into())).await;
    let place = server.url.trim_start_matches("http://").to_owned();
    let config = |lists: &str| format!("[outbound]\nallow = ['{place}']\n{lists}");
    // Events are of the tenant `t`.
    for (lists, is_called) in [
        (String::new(), true),
        (format!("hosts = ['{place}']"), true),
        ("hosts = ['*.acme.com']".to_owned(), false),
        ("hosts = []".to_owned(), false),
        (format!("hosts = []\n[outbound.tenants]\nt = ['{place}']"), true),
        (format!("hosts = ['{place}']\n[outbound.tenants]\nt = []"), false),
        (format!("hosts = ['{place}']\n[outbound.tenants]\nother = []"), true),
    ] {
        let before = server.seen().len();
        let called = call(&catalog(&config(&lists)), &server.url).await;
        assert_eq!(called.is_ok(), is_called, "{lists}");
        if let Err(failure) = called {
            assert_eq!(failure.code, Code::PolicyDenied, "{failure}");
            assert!(failure.message.contains("`hosts` or `tenants` under `[outbound]`"), "{failure}");
        }
        assert_eq!(server.seen().len(), before + usize::from(is_called), "{lists}");
    }
    for wrong in ["hosts = ['http://a.com']", "hosts = ['*']", "[outbound.tenants]\nacme = ['a:0']"] {
        let error = crate::catalog_in(std::path::Path::new("/"), &config(wrong));
        assert!(error.expect_err(wrong).to_string().contains("is no host"), "{wrong}");
    }
}
