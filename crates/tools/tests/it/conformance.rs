//! The conformance suite of the tool port on each adapter.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::Mutex;
use windlass_core::contract::{Class, Contract};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::conformance::tool::{self as suite, BYTES_MAX, Behaviour, Subject};
use windlass_ports::tool::{Invocation, Tool};
use windlass_tools::FnTool;

use crate::server::{Reply, Server};
use crate::{catalog, catalog_in};

fn class(contract: &Contract) -> &'static str {
    match contract.class {
        Class::Read => "read",
        Class::Write => "write",
        Class::Danger => "danger",
    }
}

/// Commands. A process that hangs holds a pipe open, and so does the child that it starts: the end of the pipe is the end
/// of both.
struct Commands {
    folder: TempDir,
    pipe: Mutex<BufReader<pipe::Receiver>>,
    keep: std::sync::Mutex<Option<pipe::Sender>>,
}

impl Commands {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = fifo(folder.path());
        let receiver = pipe::OpenOptions::new().open_receiver(&path).expect("a reader");
        let sender = pipe::OpenOptions::new().open_sender(&path).expect("a writer");
        Self { folder, pipe: Mutex::new(BufReader::new(receiver)), keep: std::sync::Mutex::new(Some(sender)) }
    }
}

fn fifo(folder: &Path) -> PathBuf {
    let path = folder.join("alive");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a named pipe");
    path
}

impl Subject for Commands {
    fn tool(&self, behaviour: Behaviour, contract: Contract) -> Option<Arc<dyn Tool>> {
        let script = match behaviour {
            Behaviour::Answers => r#"printf '{"key":"%s","arguments":%s}' "$WINDLASS_IDEMPOTENCY_KEY" "$(cat)""#,
            Behaviour::Hangs => r#"trap "" TERM; exec 3>alive; echo up >&3; sleep 600 & sleep 600"#,
            Behaviour::Floods => "while :; do echo 0123456789; done",
            Behaviour::Fails => "echo out of stock >&2; exit 4",
            Behaviour::Absent => "",
        };
        let argv = if behaviour == Behaviour::Absent { vec!["./missing"] } else { vec!["/bin/sh", "-c", script] };
        let toml = format!(
            "[tools.subject]\ntype = 'command'\nclass = '{}'\ncommand = {}",
            class(&contract),
            serde_json::to_string(&argv).expect("JSON")
        );
        Some(crate::tool(&catalog_in(self.folder.path(), &toml).expect("a catalog"), "subject"))
    }

    fn arrived(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut line = String::new();
            self.pipe.lock().await.read_line(&mut line).await.expect("a line");
            assert_eq!(line, "up\n");
        })
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.keep.lock().expect("the writer").take();
            let mut line = String::new();
            while self.pipe.lock().await.read_line(&mut line).await.expect("the end") > 0 {}
        })
    }
}

#[tokio::test]
async fn commands_conform() {
    suite::exercise(Commands::new).await;
}

/// HTTP tools.
struct Web {
    server: Server,
}

impl Web {
    async fn new() -> Self {
        let server = Server::start(|request| match request.target.as_str() {
            "/answers" => Reply::Full(
                200,
                "content-type: application/json\r\n",
                format!(r#"{{"key":"{}","arguments":{}}}"#, request.headers["idempotency-key"], request.body),
            ),
            "/floods" => Reply::Flood,
            "/fails" => Reply::Full(409, "", r#"{"error":{"type":"Stock","message":"out of stock"}}"#.into()),
            _ => Reply::Hang,
        })
        .await;
        Self { server }
    }
}

impl Subject for Web {
    fn tool(&self, behaviour: Behaviour, contract: Contract) -> Option<Arc<dyn Tool>> {
        let url = match behaviour {
            Behaviour::Answers => format!("{}/answers", self.server.url),
            Behaviour::Hangs => format!("{}/hangs", self.server.url),
            Behaviour::Floods => format!("{}/floods", self.server.url),
            Behaviour::Fails => format!("{}/fails", self.server.url),
            // Port 1 of the loopback is not served.
            Behaviour::Absent => "http://127.0.0.1:1/".into(),
        };
        let toml =
            format!("[tools.subject]\ntype = 'http'\nmethod = 'POST'\nclass = '{}'\nurl = '{url}'", class(&contract));
        Some(crate::tool(&catalog(&toml), "subject"))
    }

    fn arrived(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.server.arrived())
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.server.quiet())
    }
}

#[tokio::test]
async fn http_tools_conform() {
    let mut webs = Vec::new();
    for _ in 0..7 {
        webs.push(Web::new().await);
    }
    suite::exercise(|| webs.pop().expect("one for each check")).await;
}

/// Functions.
#[derive(Clone, Default)]
struct Functions {
    running: Arc<tokio::sync::watch::Sender<usize>>,
}

struct Running(Arc<tokio::sync::watch::Sender<usize>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

impl Subject for Functions {
    fn tool(&self, behaviour: Behaviour, contract: Contract) -> Option<Arc<dyn Tool>> {
        let running = self.running.clone();
        let tool = match behaviour {
            Behaviour::Answers => FnTool::sync(contract, |call| {
                Ok(Value::object([("key", Value::str(call.idempotency_key)), ("arguments", call.arguments)]))
            }),
            Behaviour::Hangs => FnTool::new(contract, move |_| {
                running.send_modify(|n| *n += 1);
                let running = Running(running.clone());
                async move {
                    std::future::pending::<()>().await;
                    drop(running);
                    Ok(Value::Null)
                }
            }),
            Behaviour::Floods => {
                FnTool::sync(contract, |_| Ok(Value::str("x".repeat(usize::try_from(BYTES_MAX).expect("small") + 1))))
            }
            Behaviour::Fails => FnTool::sync(contract, |_| Err(Failure::new(Code::ToolFailed, "out of stock"))),
            Behaviour::Absent => return None,
        };
        Some(Arc::new(tool))
    }

    fn arrived(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.running.subscribe().wait_for(|n| *n > 0).await.expect("a sender");
        })
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.running.subscribe().wait_for(|n| *n == 0).await.expect("a sender");
        })
    }
}

#[tokio::test]
async fn functions_conform() {
    suite::exercise(Functions::default).await;
}

/// A tool that is wrong in one way.
#[derive(Debug)]
struct Wrong {
    contract: Contract,
    answer: Result<Value, Failure>,
}

impl Tool for Wrong {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn call(&self, _invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        Box::pin(std::future::ready(self.answer.clone()))
    }
}

/// What every call of a wrong tool comes to.
struct Always(Result<Value, Failure>);

impl Subject for Always {
    fn tool(&self, _behaviour: Behaviour, contract: Contract) -> Option<Arc<dyn Tool>> {
        Some(Arc::new(Wrong { contract, answer: self.0.clone() }))
    }

    fn arrived(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test]
async fn the_suite_fails_on_tools_that_are_wrong() {
    let fails = async |check: BoxFuture<'_, ()>| AssertUnwindSafe(check).catch_unwind().await.is_err();
    let drops_the_key = Always(Ok(Value::empty_map()));
    assert!(fails(Box::pin(suite::passes_arguments_and_key(&drops_the_key))).await);
    let hides_doubt = Always(Err(Failure::new(Code::ToolTimeout, "no")));
    assert!(fails(Box::pin(suite::ends_in_time(&hides_doubt, Class::Write, Retry::Unknown))).await);
    let reads_everything = Always(Ok(Value::str("x".repeat(10_000))));
    assert!(fails(Box::pin(suite::keeps_to_the_bytes(&reads_everything))).await);
    let doubts_an_answer = Always(Err(Failure::new(Code::ToolFailed, "no").retry(Retry::Unknown)));
    assert!(fails(Box::pin(suite::reports_errors(&doubts_an_answer))).await);
    let doubts_what_never_left = Always(Err(Failure::new(Code::ToolUnreachable, "no").retry(Retry::Unknown)));
    assert!(fails(Box::pin(suite::tells_not_sent_from_unknown(&doubts_what_never_left))).await);
}
