//! Hooks over HTTP.

use std::sync::Arc;

use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::machine::HookKind;
use windlass_core::value::Value;
use windlass_ports::tool::{Hook, HookEvent};

use crate::server::{Reply, Server};
use crate::{catalog, json};

fn hook(toml: &str) -> Arc<dyn Hook> {
    catalog(toml).hook("crm").expect("the hook").clone()
}

fn event(kind: HookKind) -> HookEvent {
    HookEvent {
        hook: "crm".into(),
        kind,
        body: json(r#"{"event":"action","run_id":"run-1","state":"book","context":{"n":1}}"#),
        idempotency_key: "run-1#7".into(),
        trace: None,
        tenant: "t".into(),
        labels: None,
        hidden: Default::default(),
        timeout_ms: 20_000,
        output_bytes_max: 10_000,
        permit: Default::default(),
    }
}

async fn answer(kind: HookKind, reply: Reply) -> Result<Value, Failure> {
    let server = Server::start(move |_| reply.clone()).await;
    hook(&format!("[hooks.'*']\ntype = 'webhook'\nurl = '{}/hook'", server.url)).call(event(kind)).await
}

fn full(status: u16, body: &str) -> Reply {
    Reply::Full(status, "", body.into())
}

#[tokio::test]
async fn an_event_is_posted_as_json_with_its_key() {
    let server = Server::start(|_| full(200, r#"{"context":{"n":2}}"#)).await;
    let toml = format!("[hooks.crm]\ntype = 'webhook'\nendpoint = '{}/hook'\napi_key = 'env:KEY'", server.url);
    let hook = hook(&toml);
    assert_eq!(hook.events(), HookKind::ALL);
    assert!(!hook.include_machine());
    assert_eq!(hook.call(event(HookKind::Action)).await, Ok(json(r#"{"context":{"n":2}}"#)));
    let request = &server.seen()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/hook"));
    assert_eq!(json(&request.body), event(HookKind::Action).body);
    let header = |name: &str| request.headers[name].as_str();
    assert_eq!((header("idempotency-key"), header("authorization")), ("run-1#7", "Bearer s3cret-key"));
    assert_eq!((header("content-type"), header("accept")), ("application/json", "application/json"));
    assert_eq!(header("user-agent"), concat!("windlass/", env!("CARGO_PKG_VERSION")));
    assert!(!format!("{hook:?}").contains("s3cret"), "a hook never shows its key");
}

#[tokio::test]
async fn an_empty_answer_changes_nothing() {
    assert_eq!(answer(HookKind::StateEnter, Reply::Raw(b"HTTP/1.1 204 x\r\n\r\n".to_vec())).await, Ok(Value::Null));
    assert_eq!(answer(HookKind::StateEnter, full(200, "")).await, Ok(Value::Null));
}

#[tokio::test]
async fn errors_keep_their_type() {
    let body = r#"{"error":{"type":"SoldOut","message":"no seat"}}"#;
    for (kind, status, code) in [
        (HookKind::Action, 200, Code::HookFailed),
        (HookKind::StateEnter, 422, Code::HookFailed),
        (HookKind::ToolCall, 200, Code::ToolFailed),
        (HookKind::ToolCall, 422, Code::ToolFailed),
    ] {
        let failure = answer(kind, full(status, body)).await.unwrap_err();
        assert_eq!((failure.code, failure.error_type.as_deref()), (code, Some("SoldOut")), "{kind:?} {status}");
        assert_eq!((&*failure.message, failure.retry), ("no seat", Retry::Never));
    }
}

#[tokio::test]
async fn statuses_say_whether_to_try_again() {
    let retry = |reply| async { answer(HookKind::Transition, reply).await.unwrap_err() };
    assert_eq!(retry(full(500, "oops")).await.retry, Retry::Backoff);
    assert_eq!(retry(full(400, "oops")).await.retry, Retry::Never);
    let failure = retry(Reply::Full(429, "retry-after: 2\r\n", String::new())).await;
    assert_eq!((failure.code, failure.retry, failure.status), (Code::HookFailed, Retry::After(2_000), Some(429)));
}

#[tokio::test]
async fn answers_that_are_none_are_refused() {
    for body in ["nonsense", "[1]", r#"{"context":"text"}"#, r#"{"to_state":1}"#] {
        let failure = answer(HookKind::Transition, full(200, body)).await.unwrap_err();
        assert_eq!(failure.code, Code::HookBadAnswer, "{body}");
    }
    let failure = answer(HookKind::Transition, Reply::Flood).await.unwrap_err();
    assert_eq!(failure.code, Code::HookBadAnswer);
}

#[tokio::test]
async fn silence_and_absence_are_told_apart() {
    let server = Server::start(|_| Reply::Hang).await;
    let toml = format!("[hooks.crm]\ntype = 'webhook'\nurl = '{}'\ntimeout_ms = 200", server.url);
    let failure = hook(&toml).call(event(HookKind::StateExit)).await.unwrap_err();
    assert_eq!((failure.code, failure.retry), (Code::HookTimeout, Retry::Unknown));
    server.quiet().await;
    let failure =
        hook("[hooks.crm]\ntype = 'webhook'\nurl = 'http://127.0.0.1:1/'").call(event(HookKind::Action)).await;
    let failure = failure.unwrap_err();
    assert_eq!((failure.code, failure.retry), (Code::HookUnreachable, Retry::Backoff));
}

#[tokio::test]
async fn a_table_may_take_some_events_and_the_metadata() {
    let hook = hook(
        "[hooks.crm]\ntype = 'webhook'\nurl = 'http://h/'\nevents = ['action', 'machine_start']\ninclude_machine = true",
    );
    assert_eq!(hook.events(), [HookKind::MachineStart, HookKind::Action]);
    assert!(hook.include_machine());
}

#[tokio::test]
async fn logging_and_metrics_are_built_in_and_take_no_event() {
    let catalog = catalog("[hooks.'*']\ntype = 'webhook'\nurl = 'http://h/'");
    for name in ["logging", "metrics"] {
        assert!(catalog.hook(name).expect("built in").events().is_empty());
    }
    assert_eq!(catalog.hook("anything").expect("the catch-all").events(), HookKind::ALL);
}

#[tokio::test]
async fn a_document_may_address_a_webhook() {
    let server = Server::start(|request| match request.target.as_str() {
        "/doc" => full(200, r#"{"context":{"from":"document"}}"#),
        _ => full(200, r#"{"context":{"from":"catch-all"}}"#),
    })
    .await;
    let bare = catalog(&format!("[outbound]\nallow = ['{}']", server.url.trim_start_matches("http://")));
    let caught = catalog(&format!("[hooks.'*']\ntype = 'webhook'\nurl = '{}/all'", server.url));
    let call = |catalog: &windlass_ports::tool::Catalog, args: String| {
        let hook = catalog.hook("webhook").expect("built in").clone();
        let body = json(&format!(r#"{{"event":"action","run_id":"run-1","args":{args}}}"#));
        async move { hook.call(HookEvent { body, ..event(HookKind::Action) }).await }
    };
    let addressed = format!(r#"{{"endpoint":"{}/doc","timeout":5}}"#, server.url);
    assert_eq!(call(&bare, addressed.clone()).await, Ok(json(r#"{"context":{"from":"document"}}"#)));
    assert_eq!(json(&server.seen()[0].body), json(r#"{"event":"action","run_id":"run-1"}"#));
    assert_eq!(call(&caught, addressed).await, Ok(json(r#"{"context":{"from":"document"}}"#)));
    assert_eq!(call(&caught, "{}".into()).await, Ok(json(r#"{"context":{"from":"catch-all"}}"#)));
    for args in
        ["{}", r#"{"url":"file:///etc"}"#, r#"{"url":"http://h/","api_key":"ref"}"#, r#"{"url":"http://h/","x":1}"#]
    {
        assert_eq!(call(&bare, args.into()).await.unwrap_err().code, Code::SpecInvalid, "{args}");
    }
}

#[tokio::test]
async fn a_call_whose_permit_is_gone_when_the_connection_is_there_does_not_leave() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let catalog = crate::catalog(&format!("[hooks.h]\ntype = \"webhook\"\nurl = \"{url}\"\n"));
    let hook = catalog.hook("h").expect("the hook").clone();
    // It holds when the call begins, and not any more once there is a connection.
    let looks = std::sync::atomic::AtomicU64::new(0);
    let permit =
        windlass_ports::tool::Permit::new(move || looks.fetch_add(1, std::sync::atomic::Ordering::AcqRel) == 0);
    let calling = tokio::spawn(async move { hook.call(HookEvent { permit, ..event(HookKind::Action) }).await });
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut bytes = Vec::new();
    // A reset is as good as an end.
    let _over = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await;
    assert_eq!(String::from_utf8_lossy(&bytes), "", "not a byte of it");
    let failure = calling.await.expect("no panic").expect_err("it did not leave");
    assert_eq!(failure.retry, Retry::Backoff, "{failure}");
}
