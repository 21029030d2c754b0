//! Servers over stdio: real processes that speak either era.

use std::path::Path;
use std::sync::Arc;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use windlass_core::audit::Act;
use windlass_core::contract::{Class, Contract};
use windlass_core::failure::{Code, Retry};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::conformance::tool::{self as suite, Behaviour, Subject};
use windlass_ports::fake::{ManualClock, MemoryStore};
use windlass_ports::store::Store;
use windlass_ports::tool::{Permit, Tool};
use windlass_tools::mcp::Quarantine;
use windlass_tools::{CatalogConfig, Surroundings, build_catalog};

use crate::mcp::{SUBJECT, accept, accepted, ask};
use crate::{call, catalog_in, json, tool, with_surroundings};

const STUB: &str = include_str!("stub.py");

fn folder(tools: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("stub.py"), STUB).expect("a file");
    show(folder.path(), tools);
    folder
}

/// What the server shows from now on.
fn show(folder: &Path, tools: &str) {
    std::fs::write(folder.join("tools.json"), format!(r#"{{"tools":[{tools}]}}"#)).expect("a file");
}

fn table(era: &str, behaviour: &str, more: &str) -> String {
    format!("[mcp.stub]\ncommand = ['python3', 'stub.py', '{era}', '{behaviour}']\n{more}\n")
}

/// The messages of a method that the server got.
fn got(folder: &Path, method: &str) -> Vec<Value> {
    let log = std::fs::read_to_string(folder.join("log.jsonl")).unwrap_or_default();
    log.lines().map(json).filter(|message| message.get("method").and_then(Value::as_str) == Some(method)).collect()
}

/// Ends when the server has written something that fits. Looks again and again: a process tells nobody.
async fn wait_for(fits: impl Fn() -> bool) {
    while !fits() {
        // Slow on purpose: another process has to act.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A server that is there already: the time of a call is not spent on starting it.
struct Stdio {
    folder: TempDir,
    behaviour: Behaviour,
    tool: Arc<dyn Tool>,
}

impl Stdio {
    async fn new(era: &str, behaviour: Behaviour, class: Class) -> Self {
        // The suite compares contracts: what is shown is what it gives.
        let shown = r#"{"name":"subject","inputSchema":{}}"#;
        let folder = folder(shown);
        let class = match class {
            Class::Read => "read",
            Class::Write => "write",
            Class::Danger => "danger",
        };
        let word = match behaviour {
            Behaviour::Answers => "answers",
            Behaviour::Hangs => "hangs",
            Behaviour::Floods => "floods",
            Behaviour::Fails => "fails",
            Behaviour::Absent => "absent",
        };
        let contract = format!("[mcp.stub.tools.subject]\nname = 'subject'\nclass = '{class}'\n");
        let toml = table(era, word, &contract);
        accept(folder.path(), &toml).await;
        std::fs::remove_file(folder.path().join("log.jsonl")).expect("a log");
        let toml = if behaviour == Behaviour::Absent { toml.replace("'python3'", "'./missing'") } else { toml };
        let tool = tool(&catalog_in(folder.path(), &toml).expect("a catalog"), "subject");
        connect(&tool).await;
        Self { folder, behaviour, tool }
    }
}

/// Starts the server of a tool: a call that may not leave does everything else.
async fn connect(tool: &Arc<dyn Tool>) {
    let mut denied = call("{}");
    denied.permit = Permit::new(|| false);
    let _ = tool.call(denied).await;
}

impl Subject for Stdio {
    fn tool(&self, behaviour: Behaviour, contract: Contract) -> Option<Arc<dyn Tool>> {
        assert_eq!((behaviour, contract.class), (self.behaviour, self.tool.contract().class));
        Some(self.tool.clone())
    }

    fn arrived(&self) -> BoxFuture<'_, ()> {
        Box::pin(wait_for(|| !got(self.folder.path(), "tools/call").is_empty()))
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(wait_for(|| {
            got(self.folder.path(), "tools/call").len() == got(self.folder.path(), "notifications/cancelled").len()
        }))
    }
}

/// One server for each check of the suite, in its order.
async fn exercise(era: &str) {
    let mut subjects = Vec::new();
    for (behaviour, class) in [
        (Behaviour::Answers, Class::Write),
        (Behaviour::Hangs, Class::Write),
        (Behaviour::Hangs, Class::Read),
        (Behaviour::Floods, Class::Write),
        (Behaviour::Fails, Class::Write),
        (Behaviour::Absent, Class::Write),
        (Behaviour::Hangs, Class::Write),
    ] {
        subjects.push(Stdio::new(era, behaviour, class).await);
    }
    let mut subjects = subjects.into_iter();
    suite::exercise(|| subjects.next().expect("one for each check")).await;
}

#[tokio::test]
async fn servers_over_stdio_conform_in_the_modern_era() {
    exercise("modern").await;
}

#[tokio::test]
async fn servers_over_stdio_conform_in_the_earlier_era() {
    exercise("legacy").await;
}

#[tokio::test]
async fn the_era_is_found_out_and_the_process_is_kept() {
    for (era, first) in [("modern", "server/discover"), ("legacy", "initialize")] {
        let folder = folder(SUBJECT);
        let tool = accepted(folder.path(), &table(era, "answers", ""), "stub__subject").await;
        std::fs::remove_file(folder.path().join("log.jsonl")).expect("a log");
        for _ in 0..3 {
            assert_eq!(ask(&tool).await.expect("an answer").get("arguments"), Some(&json(r#"{"a":1}"#)));
        }
        assert_eq!(got(folder.path(), first).len(), 1, "{era}");
        assert_eq!(got(folder.path(), "tools/list").len(), 3, "without a time to live each call looks again");
        let meta = got(folder.path(), "tools/call")[0].at_path(&["params", "_meta"]);
        assert_eq!(meta.get("io.windlass/idempotency-key"), Some(&Value::str("run-1#7")));
        assert_eq!(meta.get("io.modelcontextprotocol/protocolVersion").is_some(), era == "modern");
    }
}

#[tokio::test]
async fn a_process_that_says_that_its_tools_changed_is_asked_for_its_list_anew() {
    for era in ["modern", "legacy"] {
        let folder = folder(SUBJECT);
        let kept = format!(r#"{{"ttlMs":60000,"tools":[{SUBJECT}]}}"#);
        std::fs::write(folder.path().join("tools.json"), &kept).expect("a file");
        let toml = table(era, "changes", "[mcp.stub.tools.subject]\nclass = 'read'");
        let tool = accepted(folder.path(), &toml, "stub__subject").await;
        std::fs::remove_file(folder.path().join("log.jsonl")).expect("a log");
        for _ in 0..3 {
            assert_eq!(ask(&tool).await, Ok(Value::str("done")));
        }
        assert_eq!(got(folder.path(), "tools/list").len(), 1, "{era}: the list is kept");
        let flag = folder.path().join("changed");
        std::fs::write(&flag, "").expect("a file");
        ask(&tool).await.expect("an answer");
        std::fs::remove_file(&flag).expect("the file");
        for _ in 0..2 {
            ask(&tool).await.expect("an answer");
        }
        assert_eq!(got(folder.path(), "tools/list").len(), 2, "{era}: asked for once more, and kept again");
        std::fs::write(&flag, "").expect("a file");
        ask(&tool).await.expect("an answer");
        std::fs::write(folder.path().join("tools.json"), kept.replace("Does", "Did")).expect("a file");
        assert_eq!(ask(&tool).await.expect_err("a refusal").code, Code::ToolChanged, "{era}");
        // The second time to be sure that it was no list from before somebody looked.
        assert_eq!((got(folder.path(), "tools/list").len(), got(folder.path(), "tools/call").len()), (4, 7), "{era}");
    }
}

#[tokio::test]
async fn one_byte_of_a_definition_blocks_the_tool_for_good() {
    for changed in [
        SUBJECT.replace("Does it.", "Does it!"),
        SUBJECT.replace(r#"{"type":"object"}"#, r#"{"type":"object","additionalProperties":false}"#),
        SUBJECT.replace(r#""name""#, r#""annotations":{"readOnlyHint":true},"name""#),
        SUBJECT.replace(r#""name""#, r#""_meta":{"a":1},"name""#),
        SUBJECT.replace(r#"{"type":"object"}"#, r#"{"$ref":"http://127.0.0.1:1/"}"#),
    ] {
        let folder = folder(SUBJECT);
        let toml = table("modern", "answers", "");
        let tool = accepted(folder.path(), &toml, "stub__subject").await;
        assert!(ask(&tool).await.is_ok());
        show(folder.path(), &changed);
        let failure = ask(&tool).await.expect_err("a refusal");
        assert_eq!((failure.code, failure.retry), (Code::ToolChanged, Retry::Never), "{changed}");
        assert!(!failure.detail.at_path(&["changes"]).as_list().expect("a list").is_empty());
        show(folder.path(), SUBJECT);
        assert_eq!(ask(&tool).await.expect_err("a refusal").code, Code::ToolChanged, "it stays blocked");
        assert_eq!(got(folder.path(), "tools/call").len(), 1, "no call left");
        // Accepted anew, in a new process, it works.
        show(folder.path(), &SUBJECT.replace("Does it.", "Does it well."));
        let tool = accepted(folder.path(), &toml, "stub__subject").await;
        assert!(ask(&tool).await.is_ok());
    }
}

#[tokio::test]
async fn keys_in_another_order_are_the_same_definition() {
    let folder = folder(SUBJECT);
    let tool = accepted(folder.path(), &table("modern", "answers", ""), "stub__subject").await;
    show(folder.path(), r#"{"inputSchema": {"type": "object"}, "name": "subject", "description": "Does it."}"#);
    assert!(ask(&tool).await.is_ok());
}

#[tokio::test]
async fn a_tool_that_was_never_accepted_does_not_exist() {
    let folder = folder(&format!("{SUBJECT},{}", SUBJECT.replace("subject", "other")));
    let toml = table("modern", "answers", "");
    let catalog = catalog_in(folder.path(), &toml).expect("a catalog");
    assert!(catalog.tools.is_empty());
    accept(folder.path(), &toml).await;
    let catalog = catalog_in(folder.path(), &toml).expect("a catalog");
    assert_eq!(catalog.tools.keys().map(|name| &**name).collect::<Vec<_>>(), ["stub__other", "stub__subject"]);
    show(folder.path(), SUBJECT);
    let failure = ask(&tool(&catalog, "stub__other")).await.expect_err("a refusal");
    assert_eq!(failure.code, Code::ToolUnknown);
}

#[tokio::test]
async fn damaged_pins_stop_everything() {
    let folder = folder(SUBJECT);
    let toml = table("modern", "answers", "");
    accept(folder.path(), &toml).await;
    let path = folder.path().join("windlass.pins.json");
    let text = std::fs::read_to_string(&path).expect("pins");
    std::fs::write(&path, text.replace("Does it.", "Does that.")).expect("a file");
    let error = catalog_in(folder.path(), &toml).expect_err("a refusal").to_string();
    assert!(error.contains("the hash is not that of the definition"), "{error}");
}

#[tokio::test]
async fn a_process_that_dies_leaves_the_outcome_open_and_is_started_again() {
    let folder = folder(SUBJECT);
    let tool = accepted(folder.path(), &table("modern", "dies", ""), "stub__subject").await;
    let failure = ask(&tool).await.expect_err("a failure");
    assert_eq!((failure.code, failure.retry), (Code::ToolFailed, Retry::Unknown), "{failure}");
    let failure = ask(&tool).await.expect_err("a failure");
    assert_eq!((failure.code, failure.retry), (Code::ToolUnreachable, Retry::Backoff), "the pause: {failure}");
    // Slow on purpose: the pause before the next process is real time.
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    assert_eq!(ask(&tool).await.expect_err("a failure").retry, Retry::Unknown);
}

#[tokio::test]
async fn answers_that_come_twice_late_or_unasked_are_dropped() {
    let folder = folder(SUBJECT);
    let tool = accepted(folder.path(), &table("modern", "twice", ""), "stub__subject").await;
    for _ in 0..3 {
        assert_eq!(ask(&tool).await, Ok(Value::str("first")));
    }
    let folder = self::folder(SUBJECT);
    let tool = accepted(folder.path(), &table("modern", "late", ""), "stub__subject").await;
    connect(&tool).await;
    let mut short = call("{}");
    short.timeout_ms = 300;
    for _ in 0..2 {
        let failure = tool.call(short.clone()).await.expect_err("a failure");
        assert_eq!((failure.code, failure.retry), (Code::ToolTimeout, Retry::Unknown));
    }
}

/// The tool of a process that has this store.
fn recorded(folder: &Path, toml: &str, store: &Arc<MemoryStore>) -> Arc<dyn Tool> {
    recorded_at(folder, toml, store, Timestamp(7))
}

fn recorded_at(folder: &Path, toml: &str, store: &Arc<MemoryStore>, now: Timestamp) -> Arc<dyn Tool> {
    let quarantine = Quarantine::default();
    quarantine.bind(Arc::clone(store) as _, Arc::new(ManualClock::new(now, 0)));
    let config: CatalogConfig = toml::from_str(toml).expect("a configuration");
    let catalog = with_surroundings(folder, false, |surroundings| {
        build_catalog(&config, &Surroundings { quarantine: &quarantine, ..*surroundings })
    });
    tool(&catalog.expect("a catalog"), "stub__subject")
}

/// At least so many acts of the trail, once they are there.
async fn acts(store: &MemoryStore, tenant: &str, count: usize) -> Vec<String> {
    loop {
        let acts = store.trail().acts(tenant.into(), 0, 100).await.expect("acts");
        if acts.len() >= count {
            let said = |act: &Act| {
                format!("{} {} {} {}", act.actor, act.action, act.subject, act.detail.as_deref().unwrap_or_default())
            };
            return acts.iter().map(said).collect();
        }
        // Slow on purpose: another process has to act.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn answers_that_come_twice_or_unasked_are_recorded_once_in_a_while() {
    let (folder, store) = (folder(SUBJECT), Arc::new(MemoryStore::new()));
    let toml = table("modern", "twice", "");
    accept(folder.path(), &toml).await;
    let tool = recorded(folder.path(), &toml, &store);
    for _ in 0..3 {
        assert_eq!(ask(&tool).await, Ok(Value::str("first")));
    }
    let mut said = acts(&store, "default", 2).await;
    said.sort();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("windlass mcp.answer stub answered again what it had answered ("), "{said:?}");
    assert!(said[1].starts_with("windlass mcp.answer stub answered what it was not asked ("), "{said:?}");
}

#[tokio::test]
async fn an_answer_to_a_call_that_was_given_up_is_recorded_as_late() {
    let (folder, store) = (folder(SUBJECT), Arc::new(MemoryStore::new()));
    let toml = table("modern", "late", "");
    accept(folder.path(), &toml).await;
    let tool = recorded(folder.path(), &toml, &store);
    connect(&tool).await;
    let calling = tokio::spawn({
        let tool = tool.clone();
        let invocation = windlass_ports::tool::Invocation { tenant: "acme".into(), ..call("{}") };
        async move { tool.call(invocation).await }
    });
    wait_for(|| !got(folder.path(), "tools/call").is_empty()).await;
    calling.abort();
    assert!(calling.await.expect_err("given up").is_cancelled());
    let said = acts(&store, "acme", 1).await;
    assert!(said[0].starts_with("windlass call.late run-1 run-1#7 attempt 1, tool t of stub: result "), "{said:?}");
    assert_eq!(said.len(), 1, "{said:?}");
}

#[tokio::test]
async fn a_tool_that_is_left_out_is_recorded_once_for_each_reason() {
    let (folder, store) = (folder(SUBJECT), Arc::new(MemoryStore::new()));
    let toml = table("modern", "answers", "");
    accept(folder.path(), &toml).await;
    let bad = |at: &str| format!(r#"{SUBJECT},{{"name":"bad","inputSchema":{{"$ref":"{at}"}}}}"#);
    show(folder.path(), &bad("http://elsewhere/schema.json"));
    for _ in 0..2 {
        let tool = recorded(folder.path(), &toml, &store);
        ask(&tool).await.expect("an answer");
        ask(&tool).await.expect("an answer");
    }
    let said = acts(&store, "default", 1).await;
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("windlass mcp.exclude stub `bad`: its `inputSchema` "), "{said:?}");
    show(folder.path(), &format!(r#"{SUBJECT},{{"name":"bad"}}"#));
    ask(&recorded(folder.path(), &toml, &store)).await.expect("an answer");
    assert_eq!(acts(&store, "default", 1).await.len(), 1, "another reason, told of once an hour at most");
    ask(&recorded_at(folder.path(), &toml, &store, Timestamp(3_600_007))).await.expect("an answer");
    assert_eq!(acts(&store, "default", 2).await.len(), 2, "another reason");
}

#[tokio::test]
async fn requests_of_a_server_are_answered_with_no() {
    let folder = folder(SUBJECT);
    let tool = accepted(folder.path(), &table("legacy", "asks", ""), "stub__subject").await;
    let answer = ask(&tool).await.expect("an answer");
    assert_eq!(answer.at_path(&["error", "code"]), Value::Int(-32601));
}

#[tokio::test]
async fn a_call_without_a_permit_does_not_leave() {
    let folder = folder(SUBJECT);
    let tool = accepted(folder.path(), &table("modern", "answers", ""), "stub__subject").await;
    let mut denied = call("{}");
    denied.permit = Permit::new(|| false);
    let failure = tool.call(denied).await.expect_err("a refusal");
    assert_eq!((failure.code, failure.retry), (Code::ToolUnreachable, Retry::Backoff));
    assert!(got(folder.path(), "tools/call").is_empty());
}

#[tokio::test]
async fn a_server_sees_what_is_listed_and_opens_no_more_than_it_may() {
    let folder = folder(SUBJECT);
    let more = "pass_env = ['PATH']\nenv = { REGION = \"a\\nLD_PRELOAD=/x\" }\nsandbox = { files_max = 64 }";
    let toml = table("modern", "env", more).replace("'env']", "'env', '--flag; $(x)', \"two\\nlines\"]");
    let tool = accepted(folder.path(), &toml, "stub__subject").await;
    let seen = ask(&tool).await.expect("an answer");
    let env: Vec<_> = seen.at_path(&["env"]).as_list().expect("names").to_vec();
    // What a shell or a starter of python adds by itself.
    let added = ["LC_", "PWD", "OLDPWD", "SHLVL", "_", "PYENV_"];
    let python = |name: &Value| name.as_str().is_some_and(|name| added.iter().any(|start| name.starts_with(start)));
    let names: Vec<_> = env.iter().filter(|name| !python(name)).filter_map(Value::as_str).collect();
    assert_eq!(names, ["PATH", "REGION"]);
    assert_eq!(seen.at_path(&["argv"]), json(r#"["--flag; $(x)", "two\nlines"]"#));
    assert!(seen.at_path(&["opened"]).as_int().is_some_and(|opened| opened < 64));
}

#[tokio::test]
async fn everything_that_a_server_started_ends_with_it() {
    let folder = folder(SUBJECT);
    let alive = folder.path().join("alive");
    mkfifo(&alive, Mode::S_IRUSR | Mode::S_IWUSR).expect("a named pipe");
    let mut reader = pipe::OpenOptions::new().open_receiver(&alive).expect("a reader");
    let keep = pipe::OpenOptions::new().open_sender(&alive).expect("a writer");
    let tool = accepted(folder.path(), &table("modern", "spawns", ""), "stub__subject").await;
    let calling = tokio::spawn({
        let tool = tool.clone();
        async move { ask(&tool).await }
    });
    wait_for(|| !got(folder.path(), "tools/call").is_empty()).await;
    calling.abort();
    let _ = calling.await;
    drop(tool);
    drop(keep);
    // The end of the pipe is the end of the last process that holds it.
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).await.expect("the end");
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_had_is_refused() {
    let toml = "[tools.t]\ntype = 'command'\ncommand = ['x']\nsandbox = { isolate = 'never', network = true }";
    let error = catalog_in(Path::new("/"), toml).expect_err("a refusal").to_string();
    assert!(error.contains("tools.t.sandbox.network"), "{error}");
    let toml = "[tools.t]\ntype = 'command'\ncommand = ['/bin/sh', '-c', 'ulimit -n; ulimit -c']\nsandbox = { files_max = 77 }";
    let tool = tool(&catalog_in(Path::new("/"), toml).expect("a catalog"), "t");
    assert_eq!(tool.call(call("{}")).await, Ok(Value::str("77\n0")));
}
