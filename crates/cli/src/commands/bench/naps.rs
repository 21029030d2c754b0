//! The server that the steps of worker processes call: it takes its time to answer, and remembers every call by its key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::load::ACTION;
use crate::exit::{Exit, Problem};

/// Calls of one effect.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calls {
    /// Calls that came in.
    pub made: u32,
    /// When the last one was answered.
    pub answered: Option<Instant>,
}

#[derive(Debug, Default)]
struct Log {
    calls: HashMap<String, Calls>,
    answered: u64,
    /// When the first call of each worker came in.
    first: HashMap<u32, Instant>,
}

/// The server. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Naps {
    log: Arc<Mutex<Log>>,
    port: u16,
    serving: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Served {
    log: Arc<Mutex<Log>>,
    time: Duration,
}

fn locked(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Naps {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Naps {
    /// Starts it on a free port of the loopback address. Each call takes so long.
    ///
    /// # Errors
    /// It cannot listen.
    pub(crate) async fn start(time: Duration) -> Result<Self, Problem> {
        let failed = |error: std::io::Error| Problem::new(Exit::Unreachable, "cli.listen", error.to_string());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let log = Arc::new(Mutex::default());
        let served = Served { log: Arc::clone(&log), time };
        let router = Router::new().route("/{worker}", post(nap)).with_state(served);
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the server of the measurement ended");
            }
        });
        Ok(Self { log, port, serving })
    }

    /// The configuration of a worker with this number, which works on so many runs at the same time.
    #[must_use]
    pub(crate) fn configuration(&self, worker: u32, runs: u32) -> String {
        let port = self.port;
        format!(
            "[worker]\nclaim_slots = {runs}\ncall_slots = {runs}\n\n[actions.{ACTION}]\ntype = \"http\"\n\
             method = \"POST\"\nurl = \"http://127.0.0.1:{port}/{worker}\"\nclass = \"read\"\nidempotency = \"natural\"\n"
        )
    }

    /// Calls that were answered so far.
    #[must_use]
    pub(crate) fn answered(&self) -> u64 {
        locked(&self.log).answered
    }

    /// When the first call of a worker came in.
    #[must_use]
    pub(crate) fn first(&self, worker: u32) -> Option<Instant> {
        locked(&self.log).first.get(&worker).copied()
    }

    /// Calls by key, forgotten here.
    #[must_use]
    pub(crate) fn take(&self) -> HashMap<String, Calls> {
        std::mem::take(&mut locked(&self.log).calls)
    }
}

async fn nap(State(served): State<Served>, Path(worker): Path<u32>, headers: HeaderMap) -> &'static str {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
    {
        let mut log = locked(&served.log);
        log.first.entry(worker).or_insert_with(Instant::now);
        log.calls.entry(key.clone()).or_default().made += 1;
    }
    tokio::time::sleep(served.time).await;
    let mut log = locked(&served.log);
    log.answered += 1;
    log.calls.entry(key).or_default().answered = Some(Instant::now());
    "{}"
}
