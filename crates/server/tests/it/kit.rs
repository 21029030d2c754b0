//! An engine on a store in memory, and a listener on a free port of this computer.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use windlass_core::effect::Spent;
use windlass_core::eval::{Evaluator, Scope as Names};
use windlass_core::failure::{Code, Failure};
use windlass_core::ids::Name;
use windlass_core::input::Quote;
use windlass_core::machine::{Condition, Dialect, ModelSettings, Program};
use windlass_core::request::ModelRequest;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::compile::{Bundle, CompileError, Compiler};
use windlass_ports::fake::MemoryStore;
use windlass_ports::model::{Model, ModelResult};
use windlass_ports::policy::AllowAll;
use windlass_ports::store::Store;
use windlass_ports::tool::Catalog;
use windlass_runtime::{Engine, Meter, Parts, Settings, Silent, Stop, SystemClock};
use windlass_server::{Metrics, Probe};

/// Knows no document, no condition and no model: no run is driven here.
#[derive(Clone, Copy, Debug)]
struct Nothing;

impl Evaluator for Nothing {
    fn render(&self, _: Dialect, source: &Name, _: &Names) -> Result<Value, Failure> {
        Ok(Value::Str(source.clone()))
    }

    fn holds(&self, _: &Condition, _: &Names) -> Result<bool, Failure> {
        Ok(true)
    }

    fn fit(&self, _: &Value, value: &Value) -> Result<Value, Vec<String>> {
        Ok(value.clone())
    }

    fn capture(&self, _: &str, _: &str) -> Result<Option<String>, Failure> {
        Ok(None)
    }
}

impl Compiler for Nothing {
    fn compile(&self, _: &Bundle) -> Result<Arc<Program>, CompileError> {
        Err(CompileError { message: "there are no documents".into() })
    }

    fn evaluator(&self) -> Arc<dyn Evaluator> {
        Arc::new(*self)
    }
}

impl Model for Nothing {
    fn call(&self, _: ModelRequest) -> BoxFuture<'_, ModelResult> {
        let outcome = Err(Failure::new(Code::ProviderUnknown, "no model"));
        Box::pin(async { ModelResult { outcome, spent: Spent::Nothing } })
    }

    fn quote(&self, _: &ModelSettings) -> Option<Quote> {
        None
    }
}

/// A process that listens.
pub(crate) struct Process {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) stop: Stop,
    pub(crate) address: SocketAddr,
    pub(crate) ended: CancellationToken,
    pub(crate) listening: tokio::task::JoinHandle<()>,
}

pub(crate) async fn process(works: bool) -> Process {
    let metrics = Arc::new(Metrics::new());
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::new(Parts {
        store: Arc::clone(&store) as Arc<dyn Store>,
        compiler: Arc::new(Nothing),
        model: Arc::new(Nothing),
        catalog: Arc::new(Catalog::default()),
        policy: Arc::new(AllowAll),
        clock: Arc::new(SystemClock::new()),
        observer: Arc::new(Silent),
        settings: Settings { meter: Some(Arc::clone(&metrics) as Arc<dyn Meter>), ..Settings::default() },
    });
    let stop = Stop::new();
    let probe = Probe { engine: engine.clone(), metrics, works, stop: stop.clone() };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let ended = CancellationToken::new();
    let router = windlass_server::router(probe, None);
    let listening = tokio::spawn(windlass_server::serve(listener, router, ended.clone()));
    Process { engine, store, stop, address, ended, listening }
}

/// What was answered: the status line's code, the head and the body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Process {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: anything.example\r\nconnection: close\r\n\r\n")).await
    }

    /// Sends a request as it is and reads until the other side closes.
    pub(crate) async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("answered");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }
}
