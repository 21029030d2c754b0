//! Servers over Streamable HTTP.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use windlass_core::contract::{PlanStep, Planning, Shadow};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::value::Value;
use windlass_ports::tool::Tool;

use crate::mcp::{SUBJECT, accept, accepted, ask};
use crate::server::{Reply, Request, Server};
use crate::{build_guarded, call, catalog_in, json};

pub(super) fn document(body: String) -> Reply {
    Reply::Full(200, "content-type: application/json\r\n", body)
}

fn events(body: String) -> Reply {
    Reply::Full(200, "content-type: text/event-stream\r\n", body)
}

pub(super) fn result(request: &Value, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, request.get("id").cloned().unwrap_or_default())
}

fn error(request: &Value, code: i64) -> String {
    let id = request.get("id").cloned().unwrap_or_default();
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"no"}}}}"#)
}

/// The contract of a tool that changes nothing.
const READ: &str = "[mcp.web.tools.subject]\nclass = 'read'";

/// What the server answers to a call.
type Calls = dyn Fn(&Request, &Value) -> Reply + Send + Sync;

/// A server of the modern era that shows these tools.
async fn modern(tools: Arc<Mutex<String>>, ttl_ms: u64, calls: Arc<Calls>) -> Server {
    Server::start(move |request| {
        let message = json(&request.body);
        match message.get("method").and_then(Value::as_str).unwrap_or_default() {
            "server/discover" => document(result(
                &message,
                r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}"#,
            )),
            "tools/list" => {
                let tools = tools.lock().expect("the tools").clone();
                document(result(
                    &message,
                    &format!(r#"{{"resultType":"complete","ttlMs":{ttl_ms},"tools":[{tools}]}}"#),
                ))
            }
            "tools/call" => calls(request, &message),
            _ => Reply::Full(404, "content-type: application/json\r\n", error(&message, -32601)),
        }
    })
    .await
}

struct Case {
    folder: TempDir,
    server: Server,
    tools: Arc<Mutex<String>>,
    tool: Arc<dyn Tool>,
}

impl Case {
    async fn new(ttl_ms: u64, more: &str, calls: impl Fn(&Request, &Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::showing(SUBJECT, ttl_ms, more, calls).await
    }

    async fn showing(
        shown: &str,
        ttl_ms: u64,
        more: &str,
        calls: impl Fn(&Request, &Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tools = Arc::new(Mutex::new(shown.to_owned()));
        let server = modern(tools.clone(), ttl_ms, Arc::new(calls)).await;
        let toml = format!("[mcp.web]\nurl = '{}/mcp'\n{more}", server.url);
        let tool = accepted(folder.path(), &toml, "web__subject").await;
        Self { folder, server, tools, tool }
    }

    async fn ask(&self) -> Result<Value, Failure> {
        ask(&self.tool).await
    }

    fn seen(&self, method: &str) -> Vec<Request> {
        let is = |request: &Request| json(&request.body).get("method").and_then(Value::as_str) == Some(method);
        self.server.seen().into_iter().filter(is).collect()
    }
}

#[tokio::test]
async fn a_modern_request_says_everything_about_itself() {
    let more = "api_key = 'env:KEY'\nheaders = { x-team = 'a' }";
    let case = Case::new(0, more, |_, message| {
        document(result(message, r#"{"resultType":"complete","content":[{"type":"text","text":"done"}]}"#))
    })
    .await;
    assert_eq!(case.ask().await, Ok(Value::str("done")));
    let seen = &case.seen("tools/call")[0];
    let header = |name: &str| seen.headers[name].as_str();
    assert_eq!(
        (header("mcp-protocol-version"), header("mcp-method"), header("mcp-name")),
        ("2026-07-28", "tools/call", "subject")
    );
    assert_eq!((header("authorization"), header("x-team")), ("Bearer s3cret-key", "a"));
    assert!(header("accept").contains("text/event-stream"));
    assert!(!seen.headers.contains_key("mcp-session-id"));
    let meta = json(&seen.body).at_path(&["params", "_meta"]);
    assert_eq!(meta.get("io.modelcontextprotocol/protocolVersion"), Some(&Value::str("2026-07-28")));
    assert_eq!(meta.get("io.modelcontextprotocol/clientCapabilities"), Some(&Value::empty_map()));
    assert_eq!(meta.get("io.windlass/idempotency-key"), Some(&Value::str("run-1#7")));
    assert!(header("traceparent").starts_with("00-"));
    assert_eq!(meta.get("traceparent"), Some(&Value::str(header("traceparent"))));
}

#[tokio::test]
async fn a_stream_gives_the_answer_at_every_cut_and_a_cut_stream_none() {
    let stream = |message: &Value| {
        let note = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#;
        let answer = result(message, r#"{"content":[{"type":"text","text":"ü"}]}"#);
        format!(": hi\nid: 1\ndata: {note}\n\nevent: message\ndata: {answer}\n\n")
    };
    let whole = Case::new(60_000, "", move |_, message| events(stream(message))).await;
    assert_eq!(whole.ask().await, Ok(Value::str("ü")));
    let cut = Arc::new(AtomicUsize::new(0));
    let at = cut.clone();
    let case = Case::new(60_000, "", move |_, message| {
        let text = stream(message);
        let end = at.load(Ordering::Relaxed).min(text.len() - 1);
        let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_vec();
        bytes.extend_from_slice(&text.as_bytes()[..end]);
        Reply::Raw(bytes)
    })
    .await;
    for end in 0..160 {
        cut.store(end, Ordering::Relaxed);
        let failure = case.ask().await.expect_err("a stream that ends early");
        assert_eq!((failure.code, failure.retry), (Code::ToolFailed, Retry::Unknown), "cut at {end}: {failure}");
    }
}

#[tokio::test]
async fn a_list_counts_for_its_time_to_live_and_no_longer_than_configured() {
    let reply = |_: &Request, message: &Value| document(result(message, r#"{"content":[]}"#));
    let case = Case::new(60_000, READ, reply).await;
    for _ in 0..3 {
        case.ask().await.expect("an answer");
    }
    assert_eq!(case.seen("tools/list").len(), 2, "one to accept, one to call");
    // Before what changes something the list is asked for anew, whatever the server says about it.
    let case = Case::new(3_600_000, "", reply).await;
    case.ask().await.expect("an answer");
    *case.tools.lock().expect("the tools") = SUBJECT.replace("Does", "Did");
    assert_eq!(case.ask().await.expect_err("a refusal").code, Code::ToolChanged);
    assert_eq!((case.seen("tools/list").len(), case.seen("tools/call").len()), (3, 1));
    let case = Case::new(60_000, "list_ttl_ms_max = 0", reply).await;
    for _ in 0..3 {
        case.ask().await.expect("an answer");
    }
    assert_eq!(case.seen("tools/list").len(), 4);
    *case.tools.lock().expect("the tools") = SUBJECT.replace("Does", "Did");
    assert_eq!(case.ask().await.expect_err("a refusal").code, Code::ToolChanged);
    assert_eq!(case.seen("tools/call").len(), 3);
}

/// A server with two tools that read, and a kept list in which the first was changed.
async fn kept_with_a_change() -> (TempDir, Server, Arc<Mutex<String>>, Arc<dyn Tool>) {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), SUBJECT.replace("subject", "other"));
    let tools = Arc::new(Mutex::new(format!("{SUBJECT},{other}")));
    let reply = |_: &Request, message: &Value| document(result(message, r#"{"content":[]}"#));
    let server = modern(tools.clone(), 60_000, Arc::new(reply)).await;
    let toml = format!("[mcp.web]\nurl = '{}/mcp'\n{READ}\n[mcp.web.tools.other]\nclass = 'read'", server.url);
    accept(folder.path(), &toml).await;
    let catalog = crate::catalog_in(folder.path(), &toml).expect("a catalog");
    *tools.lock().expect("the tools") = format!("{},{other}", SUBJECT.replace("Does", "Did"));
    ask(&crate::tool(&catalog, "web__other")).await.expect("an answer");
    let subject = crate::tool(&catalog, "web__subject");
    (folder, server, tools, subject)
}

#[tokio::test]
async fn a_kept_list_is_looked_at_anew_before_it_blocks_a_tool() {
    let lists = |server: &Server| {
        let is_list =
            |request: &Request| json(&request.body).get("method").and_then(Value::as_str) == Some("tools/list");
        server.seen().iter().filter(|request| is_list(request)).count()
    };
    let (_folder, server, tools, subject) = kept_with_a_change().await;
    let other = SUBJECT.replace("subject", "other");
    *tools.lock().expect("the tools") = format!("{SUBJECT},{other}");
    assert_eq!(lists(&server), 2, "one to accept, one that is kept");
    ask(&subject).await.expect("it was put right since");
    assert_eq!(lists(&server), 3);

    let (_folder, server, tools, subject) = kept_with_a_change().await;
    assert_eq!(ask(&subject).await.expect_err("a refusal").code, Code::ToolChanged);
    assert_eq!(lists(&server), 3, "it is still changed when it is looked at anew");
    *tools.lock().expect("the tools") = format!("{SUBJECT},{other}");
    assert_eq!(ask(&subject).await.expect_err("a refusal").code, Code::ToolChanged, "it stays blocked");
}

#[tokio::test]
async fn questions_are_answered_as_configured_and_with_a_new_id() {
    let calls = |_: &Request, message: &Value| {
        let params = message.get("params").expect("parameters");
        if params.get("inputResponses").is_some() {
            let said = format!(
                r#"{{"structuredContent":{{"said":{},"state":{},"id":{}}}}}"#,
                params.at_path(&["inputResponses", "q"]),
                params.at_path(&["requestState"]),
                message.at_path(&["id"]),
            );
            return document(result(message, &said));
        }
        let schema = r#"{"type":"object","properties":{"n":{"type":"integer","default":7}},"required":["n"]}"#;
        let ask = format!(r#"{{"method":"elicitation/create","params":{{"message":"?","requestedSchema":{schema}}}}}"#);
        document(result(
            message,
            &format!(r#"{{"resultType":"input_required","inputRequests":{{"q":{ask}}},"requestState":"a b"}}"#),
        ))
    };
    let case = Case::new(60_000, "elicitation = 'defaults'", calls).await;
    let said = case.ask().await.expect("an answer");
    assert_eq!(said.get("said"), Some(&json(r#"{"action":"accept","content":{"n":7}}"#)));
    assert_eq!(said.get("state"), Some(&Value::str("a b")));
    let first = json(&case.seen("tools/call")[0].body);
    assert_ne!(first.get("id"), said.get("id"));
    let case = Case::new(60_000, "", calls).await;
    assert_eq!(case.ask().await.expect("an answer").get("said"), Some(&json(r#"{"action":"decline"}"#)));
    let endless = |_: &Request, message: &Value| {
        document(result(message, r#"{"resultType":"input_required","requestState":"x"}"#))
    };
    let case = Case::new(60_000, "", endless).await;
    assert!(case.ask().await.expect_err("a failure").message.contains("asked more than"));
    assert_eq!(case.seen("tools/call").len(), 11);
}

#[tokio::test]
async fn marked_arguments_go_into_headers_and_tools_with_bad_marks_are_left_out() {
    let marked = |header: &str| {
        format!(
            r#"{{"name":"subject","inputSchema":{{"properties":{{"a":{{"type":"integer","x-mcp-header":"{header}"}}}}}}}}"#
        )
    };
    let reply = |_: &Request, message: &Value| document(result(message, r#"{"content":[]}"#));
    let case = Case::showing(&marked("Token"), 60_000, "", reply).await;
    case.ask().await.expect("an answer");
    assert_eq!(case.seen("tools/call")[0].headers["mcp-param-token"], "1");
    for header in ["a b", "a\\r\\nb", ""] {
        // Nothing but the mark is another than what was accepted.
        let case = Case::showing(&marked("Token"), 0, "", reply).await;
        *case.tools.lock().expect("the tools") = marked(header);
        let failure = case.ask().await.expect_err("a refusal");
        assert_eq!(failure.code, Code::ToolChanged, "{header:?}");
        let change = &failure.detail.at_path(&["changes"]).as_list().expect("a list")[0].clone();
        let why = change.get("shown").and_then(Value::as_str).unwrap_or_default();
        assert!(why.contains("`x-mcp-header` of `a` is no name"), "{header:?}: {change:?}");
        assert!(case.seen("tools/call").is_empty(), "{header:?}");
    }
}

#[tokio::test]
async fn no_mark_replaces_a_header_of_ours() {
    let marked =
        r#"{"name":"subject","inputSchema":{"properties":{"a":{"type":"integer","x-mcp-header":"Authorization"}}}}"#;
    let reply = |_: &Request, message: &Value| document(result(message, r#"{"content":[]}"#));
    let case = Case::showing(marked, 60_000, "api_key = 'env:KEY'", reply).await;
    case.ask().await.expect("an answer");
    let seen = &case.seen("tools/call")[0];
    assert_eq!(
        (&*seen.headers["authorization"], &*seen.headers["mcp-param-authorization"]),
        ("Bearer s3cret-key", "1")
    );
}

#[tokio::test]
async fn what_is_secret_goes_into_no_header() {
    let shown = |name: &str, more: &str| {
        let property = format!(r#""{name}":{{"type":"string","x-mcp-header":"Region"{more}}}"#);
        format!(r#"{{"name":"subject","inputSchema":{{"properties":{{"a":{{"type":"integer"}},{property}}}}}}}"#)
    };
    let reply = |_: &Request, message: &Value| document(result(message, r#"{"content":[]}"#));
    // What its schema shows to be secret: the tool is left out.
    for (name, more) in
        [("api_key", ""), ("password", ""), ("p", r#","format":"password""#), ("p", r#","writeOnly":true"#)]
    {
        let case = Case::showing(&shown("region", ""), 0, "", reply).await;
        *case.tools.lock().expect("the tools") = shown(name, more);
        let failure = case.ask().await.expect_err("a refusal");
        assert_eq!(failure.code, Code::ToolChanged, "{name}");
        let change = &failure.detail.at_path(&["changes"]).as_list().expect("a list")[0].clone();
        let why = change.get("shown").and_then(Value::as_str).unwrap_or_default();
        assert!(why.contains("is secret") && why.contains(name), "{name}: {change:?}");
        assert!(case.seen("tools/call").is_empty(), "{name}");
    }
    // What its contract hides: the contract is refused, whichever of the two is the larger part.
    for hidden in ["'/region'", "'/region/name'", "''", "'/*'"] {
        let case = Case::showing(&shown("region", ""), 0, "", reply).await;
        let more = format!("[mcp.web.tools.subject.redact]\narguments = [{hidden}]");
        let toml = format!("[mcp.web]\nurl = '{}/mcp'\n{more}", case.server.url);
        let error = catalog_in(case.folder.path(), &toml).expect_err("a refusal");
        let problem = &error.problems[0];
        assert_eq!(problem.key, "mcp.web.tools.subject.redact.arguments", "{hidden}");
        assert!(problem.message.contains("`region` goes into the header `mcp-param-region`"), "{}", problem.message);
    }
    let case =
        Case::showing(&shown("region", ""), 0, "[mcp.web.tools.subject.redact]\narguments = ['/a']", reply).await;
    case.tool.call(call(r#"{"a":77,"region":"eu"}"#)).await.expect("an answer");
    let seen = &case.seen("tools/call")[0];
    assert_eq!(seen.headers["mcp-param-region"], "eu");
    assert!(seen.headers.iter().all(|(name, value)| name == "content-length" || !value.contains("77")), "{seen:?}");
}

#[tokio::test]
async fn a_server_that_says_that_its_tools_changed_is_asked_for_its_list_anew() {
    let says = Arc::new(AtomicUsize::new(0));
    let told = says.clone();
    let case = Case::new(60_000, READ, move |_, message| {
        let note = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
        let note = if told.load(Ordering::Relaxed) > 0 { format!("data: {note}\n\n") } else { String::new() };
        events(format!("{note}data: {}\n\n", result(message, r#"{"content":[]}"#)))
    })
    .await;
    for _ in 0..3 {
        case.ask().await.expect("an answer");
    }
    assert_eq!(case.seen("tools/list").len(), 2, "one to accept, one to call: the list is kept");
    says.store(1, Ordering::Relaxed);
    case.ask().await.expect("an answer");
    assert_eq!(case.seen("tools/list").len(), 2, "it said so while it answered");
    says.store(0, Ordering::Relaxed);
    for _ in 0..2 {
        case.ask().await.expect("an answer");
    }
    assert_eq!(case.seen("tools/list").len(), 3, "asked for once more, and kept again");
    says.store(1, Ordering::Relaxed);
    case.ask().await.expect("an answer");
    *case.tools.lock().expect("the tools") = SUBJECT.replace("Does", "Did");
    assert_eq!(case.ask().await.expect_err("a refusal").code, Code::ToolChanged);
    // The second time to be sure that it was no list from before somebody looked.
    assert_eq!((case.seen("tools/list").len(), case.seen("tools/call").len()), (5, 7));
}

/// What a server does with a call.
type Fault = fn(&Value) -> Reply;

#[tokio::test]
async fn faults_of_a_server_are_told_apart() {
    let faults: &[(Fault, Code, Retry)] = &[
        (|message| document(error(message, -32602)), Code::ToolBadArguments, Retry::Never),
        (|message| document(error(message, -32603)), Code::ToolFailed, Retry::Never),
        (|_| Reply::Full(503, "", "busy".into()), Code::ToolFailed, Retry::Backoff),
        (|_| Reply::Full(502, "", "gone".into()), Code::ToolFailed, Retry::Unknown),
        (|_| Reply::Full(302, "location: http://127.0.0.1:1/\r\n", String::new()), Code::ToolFailed, Retry::Unknown),
        (|_| Reply::Close, Code::ToolFailed, Retry::Unknown),
        (|_| document("nonsense".into()), Code::ToolFailed, Retry::Unknown),
        (|message| document(result(message, "{}").replace("\"id\":", "\"id\":9")), Code::ToolFailed, Retry::Unknown),
        (|_| Reply::Flood, Code::ToolFailed, Retry::Unknown),
    ];
    for (index, (fault, code, retry)) in faults.iter().enumerate() {
        let case = Case::new(60_000, "", move |_, message| fault(message)).await;
        let failure = case.ask().await.expect_err("a failure");
        assert_eq!((failure.code, failure.retry), (*code, *retry), "fault {index}: {failure}");
    }
    let large = |_: &Request, message: &Value| {
        document(result(message, &format!(r#"{{"content":[{{"type":"text","text":"{}"}}]}}"#, "x".repeat(200_000))))
    };
    let case = Case::new(60_000, "", large).await;
    assert_eq!(case.ask().await.expect_err("a failure").code, Code::ToolOutputTooLarge);
}

#[tokio::test]
async fn dropping_a_call_closes_its_stream() {
    let case = Case::new(60_000, "", |_, _| Reply::Hang).await;
    let mut short = call("{}");
    short.timeout_ms = 300;
    let failure = case.tool.call(short).await.expect_err("a failure");
    assert_eq!((failure.code, failure.retry), (Code::ToolTimeout, Retry::Unknown));
    case.server.given_up(1).await;
    // The same where nobody waits for the answer any more.
    let mut asked = case.tool.call(call("{}"));
    tokio::select! {
        answer = &mut asked => panic!("nobody answered: {answer:?}"),
        () = case.server.left(2) => {}
    }
    drop(asked);
    case.server.given_up(2).await;
    assert_eq!(case.seen("tools/call").len(), 2, "neither was sent again");
}

#[tokio::test]
async fn a_session_of_the_earlier_era_is_kept_and_begun_again_when_it_is_lost() {
    let sessions = Arc::new(AtomicUsize::new(0));
    let lost = Arc::new(AtomicUsize::new(usize::MAX));
    let (count, forgotten) = (sessions.clone(), lost.clone());
    let server = Server::start(move |request| {
        if request.method != "POST" {
            return Reply::Full(405, "", String::new());
        }
        let message = json(&request.body);
        let known = request.headers.get("mcp-session-id").cloned();
        match message.get("method").and_then(Value::as_str).unwrap_or_default() {
            "initialize" => {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let headers = [
                    "content-type: application/json\r\nmcp-session-id: s0\r\n",
                    "content-type: application/json\r\nmcp-session-id: s1\r\n",
                    "content-type: application/json\r\nmcp-session-id: s2\r\n",
                ];
                let body = result(
                    &message,
                    r#"{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"x","version":"1"}}"#,
                );
                Reply::Full(200, headers[number.min(2)], body)
            }
            _ if known.is_none() => Reply::Full(400, "", "no session".into()),
            _ if known == Some(format!("s{}", forgotten.load(Ordering::Relaxed))) => {
                Reply::Full(404, "", String::new())
            }
            "notifications/initialized" => Reply::Full(202, "", String::new()),
            "tools/list" => document(result(&message, &format!(r#"{{"tools":[{SUBJECT}]}}"#))),
            "tools/call" => document(result(&message, r#"{"content":[{"type":"text","text":"done"}]}"#)),
            _ => Reply::Full(400, "", String::new()),
        }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let toml = format!("[mcp.web]\nurl = '{}/mcp'", server.url);
    let tool = accepted(folder.path(), &toml, "web__subject").await;
    assert_eq!(ask(&tool).await, Ok(Value::str("done")));
    assert_eq!(ask(&tool).await, Ok(Value::str("done")));
    assert_eq!(sessions.load(Ordering::Relaxed), 2, "one to accept, one to call");
    let seen = server.seen();
    let call = seen.iter().rfind(|request| request.body.contains("tools/call")).expect("a call");
    assert_eq!(
        (call.headers["mcp-session-id"].as_str(), call.headers["mcp-protocol-version"].as_str()),
        ("s1", "2025-06-18")
    );
    assert!(!call.headers.contains_key("mcp-method"), "headers of the modern era");
    let meta = json(&call.body).at_path(&["params", "_meta"]);
    assert_eq!(meta.get("traceparent"), Some(&Value::str(call.headers["traceparent"].as_str())));
    lost.store(1, Ordering::Relaxed);
    assert_eq!(ask(&tool).await, Ok(Value::str("done")));
    assert_eq!(sessions.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn tools_of_servers_have_limits_like_all_others() {
    let reply = |_: &Request, message: &Value| document(result(message, r#"{"content":[]}"#));
    let fails = "[mcp.web.tools.subject.limits]\nper_minute = 2\noverload = 'fail'";
    let case = Case::new(60_000, fails, reply).await;
    for _ in 0..2 {
        case.ask().await.expect("an answer");
    }
    let failure = case.ask().await.expect_err("the third of the minute");
    assert_eq!(failure.code, Code::ToolOverloaded, "{failure}");
    assert_eq!(case.seen("tools/call").len(), 2);

    let degrades = "[mcp.web.tools.subject]\nclass = 'read'\n[mcp.web.tools.subject.limits]\nper_minute = 1\n\
                    overload = 'degrade'\ndegraded = 'none known'";
    let case = Case::new(60_000, degrades, reply).await;
    case.ask().await.expect("an answer");
    assert_eq!(case.ask().await, Ok(Value::str("none known")));
    assert_eq!(case.seen("tools/call").len(), 1);

    let rests = "[mcp.web.tools.subject]\ntimeout_ms = 2000\n[mcp.web.tools.subject.limits]\nbreaker_failures = 1";
    let case = Case::new(60_000, rests, |_, _| Reply::Hang).await;
    assert_eq!(case.ask().await.expect_err("no answer").code, Code::ToolTimeout);
    assert_eq!(case.ask().await.expect_err("left alone").code, Code::ToolOverloaded);
    assert_eq!(case.seen("tools/call").len(), 1);
}

#[tokio::test]
async fn tools_of_servers_go_by_plans_ask_one_after_another_and_cast_shadows() {
    let more = "[mcp.web.tools.subject]\nclass = 'danger'\nplan = { argument = 'dry_run' }\nplan_expires_ms = 1000\n\
                approval_escalate_to = ['leads']\napproval_escalate_after_ms = 5000\nramp_percent = 10\n\
                shadow_answer = 'not done'\nerrors = ['gone']\ndescription = 'Drops it.'";
    let case = Case::new(0, more, |_, message| document(result(message, r#"{"content":[]}"#))).await;
    let contract = case.tool.contract();
    let step = PlanStep::Argument("dry_run".into());
    assert_eq!(contract.plan, Some(Planning { step, expires_ms: 1_000 }));
    let escalation = contract.approval.escalation.clone().expect("an escalation");
    assert_eq!((escalation.after_ms, escalation.to), (5_000, vec!["leads".into()]));
    assert_eq!(
        contract.shadow,
        Some(Box::new(Shadow { ramp_percent: 10, answer: Value::str("not done"), budget: None }))
    );
    assert_eq!((&*contract.description, &*contract.errors), ("Drops it.", &["gone".into()][..]));

    // Where contracts are demanded, nothing of this may be missing.
    let toml = |more: &str| format!("[mcp.web]\nurl = '{}/mcp'\n{more}", case.server.url);
    let folder = tempfile::tempdir().expect("a folder");
    accept(folder.path(), &toml("")).await;
    let refused = |more: &str| {
        let error = build_guarded(folder.path(), &toml(more)).expect_err("a refusal");
        error.problems.into_iter().map(|problem| problem.key).collect::<Vec<_>>()
    };
    assert_eq!(refused(""), ["mcp.web.tools.subject.class", "mcp.web.tools.subject.idempotency"]);
    let danger = "[mcp.web.tools.subject]\nclass = 'danger'\nidempotency = 'none'\n";
    assert_eq!(refused(danger), ["mcp.web.tools.subject.plan"]);
    build_guarded(folder.path(), &toml(&format!("{danger}plan = {{ argument = 'dry_run' }}"))).expect("accepted");
}
