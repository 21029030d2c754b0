//! HTTP requests as tools and actions.

use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::value::Value;

use crate::server::{Reply, Request, Server};
use crate::{call, catalog, json, tool};

fn ok(body: &str) -> Reply {
    Reply::Full(200, "content-type: application/json\r\n", body.into())
}

async fn send(server: &Server, table: &str, arguments: &str) -> Result<Value, Failure> {
    let toml = format!("[tools.t]\ntype = 'http'\n{}", table.replace("BASE", &server.url));
    tool(&catalog(&toml), "t").call(call(arguments)).await
}

async fn once(reply: Reply, table: &str) -> (Result<Value, Failure>, Vec<Request>) {
    let server = Server::start(move |_| reply.clone()).await;
    let result = send(&server, table, r#"{"id":"a/b","n":2}"#).await;
    (result, server.seen())
}

#[tokio::test]
async fn a_read_puts_arguments_in_the_address() {
    let (result, seen) = once(ok(r#"{"stock":4}"#), "class = 'read'\nurl = 'BASE/items/{id}?lang=en'").await;
    assert_eq!(result, Ok(json(r#"{"stock":4}"#)));
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("GET", "/items/a%2Fb?lang=en&n=2"));
    assert_eq!(seen[0].headers["idempotency-key"], "run-1#7");
    assert_eq!(seen[0].headers["user-agent"], concat!("windlass/", env!("CARGO_PKG_VERSION")));
    assert_eq!(seen[0].body, "");
}

#[tokio::test]
async fn a_write_puts_arguments_in_the_body() {
    let table = "url = 'BASE/items/{id}'\nheaders = { x-team = 'support' }\nsecret_headers = { x-token = 'env:KEY' }\napi_key = 'env:KEY'";
    let (result, seen) = once(Reply::Full(201, "", "made".into()), table).await;
    assert_eq!(result, Ok(Value::str("made")));
    assert_eq!(
        (seen[0].method.as_str(), seen[0].target.as_str(), seen[0].body.as_str()),
        ("POST", "/items/a%2Fb", r#"{"n":2}"#)
    );
    let header = |name: &str| seen[0].headers[name].as_str();
    assert_eq!((header("content-type"), header("x-team")), ("application/json", "support"));
    assert_eq!((header("x-token"), header("authorization")), ("s3cret-key", "Bearer s3cret-key"));
}

#[tokio::test]
async fn statuses_are_mapped() {
    let retry = |status, headers, table: &'static str| async move {
        let body = r#"{"error":{"type":"Busy","message":"no"}}"#.into();
        let failure = once(Reply::Full(status, headers, body), table).await.0.unwrap_err();
        assert_eq!((failure.code, failure.error_type.as_deref()), (Code::ToolFailed, Some("Busy")));
        assert_eq!(failure.status, Some(status.into()));
        failure.retry
    };
    assert_eq!(retry(429, "retry-after: 3\r\n", "url = 'BASE'").await, Retry::After(3_000));
    assert_eq!(retry(503, "", "url = 'BASE'").await, Retry::Backoff);
    assert_eq!(retry(500, "", "url = 'BASE'\nclass = 'read'").await, Retry::Backoff);
    assert_eq!(retry(500, "", "url = 'BASE'\nidempotency = 'key'").await, Retry::Backoff);
    assert_eq!(retry(500, "", "url = 'BASE'").await, Retry::Never);
    assert_eq!(retry(504, "", "url = 'BASE'").await, Retry::Unknown);
    assert_eq!(retry(404, "", "url = 'BASE'").await, Retry::Never);
}

#[tokio::test]
async fn a_broken_answer_leaves_the_outcome_open() {
    let cut = Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"half\":".to_vec());
    for reply in [Reply::Close, cut, Reply::Raw(b"nonsense\r\n\r\n".to_vec())] {
        let failure = once(reply.clone(), "url = 'BASE'").await.0.unwrap_err();
        assert_eq!((failure.code, failure.retry), (Code::ToolFailed, Retry::Unknown), "{reply:?}");
        let failure = once(reply.clone(), "url = 'BASE'\nclass = 'read'").await.0.unwrap_err();
        assert_eq!(failure.retry, Retry::Backoff, "{reply:?}");
    }
}

#[tokio::test]
async fn an_answer_that_stands_still_ends_by_its_own_times() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"half\":".to_vec();
    let no_head = ("header_timeout_ms = 40", "the head of the answer");
    let no_body = ("idle_timeout_ms = 40", "a piece of the answer");
    for (reply, (bound, what)) in [
        (Reply::Hang, no_head),
        (Reply::Still(b"HTTP/1.1 200 OK\r\nx-half:".to_vec()), no_head),
        (Reply::Still(half.clone()), no_body),
        (Reply::Still(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n".to_vec()), no_body),
    ] {
        // The whole call may take much longer than this test does.
        let table = |class: &str| format!("url = 'BASE'\nclass = '{class}'\ntimeout_ms = 600000\n{bound}");
        for (class, retry) in [("read", Retry::Backoff), ("write", Retry::Unknown)] {
            let failure = once(reply.clone(), &table(class)).await.0.unwrap_err();
            assert_eq!((failure.code, failure.retry), (Code::ToolTimeout, retry), "{reply:?}: {failure}");
            assert!(failure.message.contains(what), "{reply:?}: {failure}");
        }
    }
    // A body that stands still has nothing to do with the head, and the other way round.
    let failure =
        once(Reply::Still(half), "url = 'BASE'\nheader_timeout_ms = 40\nidle_timeout_ms = 80").await.0.unwrap_err();
    assert!(failure.message.contains("a piece of the answer"), "{failure}");
}

#[tokio::test]
async fn answers_are_bounded_and_checked() {
    let length = Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n".to_vec());
    let failure = once(length, "url = 'BASE'").await.0.unwrap_err();
    assert_eq!(failure.code, Code::ToolOutputTooLarge);
    let failure = once(ok("not json"), "url = 'BASE'").await.0.unwrap_err();
    assert!(failure.message.contains("not JSON"), "{}", failure.message);
    let plain = Reply::Full(200, "content-type: text/plain\r\n", "not json".into());
    assert_eq!(once(plain, "url = 'BASE'").await.0, Ok(Value::str("not json")));
    let error = Reply::Full(500, "", format!("\x1b[2J{}", "x".repeat(50_000)));
    let failure = once(error, "url = 'BASE'").await.0.unwrap_err();
    assert!(failure.message.len() < 2_000 && !failure.message.contains('\x1b'), "{}", failure.message);
}

#[tokio::test]
async fn redirects_stay_on_the_host_and_keep_the_request() {
    let elsewhere = Server::start(|_| ok("\"stolen\"")).await;
    let place: &'static str = Box::leak(format!("location: {}/x\r\n", elsewhere.url).into_boxed_str());
    let (result, _) = once(Reply::Full(307, place, String::new()), "url = 'BASE'\napi_key = 'env:KEY'").await;
    let failure = result.unwrap_err();
    assert!(failure.message.contains("another host"), "{}", failure.message);
    assert!(elsewhere.seen().is_empty());

    let server = Server::start(|request| match request.target.as_str() {
        "/old" => Reply::Full(308, "location: /new\r\n", String::new()),
        "/moved" => Reply::Full(302, "location: /new\r\n", String::new()),
        "/loop" => Reply::Full(307, "location: /loop\r\n", String::new()),
        _ => ok("\"here\""),
    })
    .await;
    assert_eq!(send(&server, "url = 'BASE/old'", r#"{"n":2}"#).await, Ok(Value::str("here")));
    assert_eq!(server.seen()[1].body, r#"{"n":2}"#);
    assert_eq!(send(&server, "url = 'BASE/moved'\nclass = 'read'", "{}").await, Ok(Value::str("here")));
    assert!(send(&server, "url = 'BASE/moved'", "{}").await.unwrap_err().message.contains("change the request"));
    assert!(send(&server, "url = 'BASE/loop'", "{}").await.unwrap_err().message.contains("more than 5 times"));
}

#[tokio::test]
async fn arguments_that_have_no_place_never_leave() {
    let server = Server::start(|_| ok("1")).await;
    for arguments in [r#"{"id":".."}"#, "{}", "[1]", r#"{"id":1,"m":{"deep":1}}"#] {
        let failure = send(&server, "class = 'read'\nurl = 'BASE/a/{id}'", arguments).await.unwrap_err();
        assert_eq!((failure.code, failure.retry), (Code::ToolBadArguments, Retry::Never), "{arguments}");
    }
    let long = format!("{{\"id\":\"{}\"}}", "a".repeat(70_000));
    for table in ["url = 'BASE/a/{id}'", "url = 'BASE/a'"] {
        let failure = send(&server, &format!("class = 'read'\n{table}"), &long).await.unwrap_err();
        assert_eq!((failure.code, failure.retry), (Code::ToolBadArguments, Retry::Never), "{table}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_host_that_does_not_listen_was_not_called() {
    let table = "[actions.t]\ntype = 'http'\nurl = 'http://127.0.0.1:1/x'";
    let failure = tool(&catalog(table), "t").call(call("{}")).await.unwrap_err();
    assert_eq!((failure.code, failure.retry), (Code::HookUnreachable, Retry::Backoff));
}

/// More than any socket keeps of what nobody reads.
const UNREAD_BYTES: usize = 32 * 1024 * 1024;

#[tokio::test]
async fn a_server_that_does_not_read_the_request_holds_the_call_for_its_time_and_no_longer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let arguments = format!("{{\"n\":\"{}\"}}", "x".repeat(UNREAD_BYTES));
    let toml = format!("[tools.t]\ntype = 'http'\nurl = 'http://{address}/'\nclass = 'write'\ntimeout_ms = 300\n");
    let catalog = catalog(&toml);
    // The system takes the connection, and nobody takes it from there: what was read nobody knows.
    let failure = tool(&catalog, "t").call(call(&arguments)).await.expect_err("nobody reads");
    assert_eq!((failure.code, failure.retry), (Code::ToolTimeout, Retry::Unknown), "{failure:?}");
    drop(listener);
}
