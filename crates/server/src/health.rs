//! The routes about the process, `/healthz`, `/readyz` and `/metrics`, and the router that they share with the others.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use windlass_ports::store::StoreError;
use windlass_ports::store::escrow;
use windlass_runtime::{Engine, Stop};

use crate::backup;
use crate::calls::{self, Api};
use crate::metrics::{Metrics, Stored};
use crate::request;
use crate::writes::Writes;

/// How long the store may take to answer a question about its health.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a commit that was not answered says something about the store: longer than until it is sent again.
const UNANSWERED_MS: u64 = 15_000;
/// Bytes of a request's body: no route reads one.
const BODY_BYTES_MAX: usize = 1_024;

/// What the routes look at.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The engine of this process.
    pub engine: Engine,
    /// Its numbers.
    pub metrics: Arc<Metrics>,
    /// Whether this process drives runs, and so has to be a worker to be ready.
    pub works: bool,
    /// How it is told to stop: it is not ready from then on.
    pub stop: Stop,
}

/// What the routes look at, and what they remember.
#[derive(Clone, Debug)]
struct Watched {
    probe: Probe,
    writes: Arc<Writes>,
}

/// The routes of a process: those about itself, and its calls where it serves some. Those are behind one guard, which lets
/// everybody come to the paths of [`crate::calls::OPEN`] alone. Each request has an id.
pub fn router(probe: Probe, api: Option<Arc<Api>>) -> Router {
    let engine = probe.engine.clone();
    let open = open(probe);
    let all = match api {
        None => open,
        Some(api) => open.merge(calls::routes(Arc::clone(&api))).layer(from_fn_with_state(api, calls::guard)),
    };
    all.layer(from_fn_with_state(engine, request::identified))
}

fn open(probe: Probe) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Watched { probe, writes: Arc::default() })
}

/// The process is up.
async fn health() -> &'static str {
    "ok\n"
}

/// Whether decisions of this process wait for a store that does not take them. The probe alone would not tell: on a full disk
/// a small write still finds room where something was before.
fn leaves_commits(engine: &Engine) -> bool {
    let now = engine.parts().clock.now();
    engine.vitals().unanswered.is_some_and(|at| now.since_ms(at) < UNANSWERED_MS)
}

/// How the store is: `ok`, or what is wrong with it in one word.
async fn store_of(watched: &Watched) -> &'static str {
    let store = &watched.probe.engine.parts().store;
    match tokio::time::timeout(STORE_PATIENCE, store.next_due(None)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready: the store does not answer");
            return "unreachable";
        }
        Err(_) => return "slow",
    }
    if leaves_commits(&watched.probe.engine) {
        return "no_writes";
    }
    match tokio::time::timeout(STORE_PATIENCE, watched.writes.check(&**store)).await {
        Ok(Ok(())) => "ok",
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready: the store takes no writes");
            "no_writes"
        }
        Err(_) => "slow",
    }
}

/// The process can do its part: the store answers and takes writes, the worker counts, and nobody told it to stop.
async fn ready(State(watched): State<Watched>) -> Response {
    let store = store_of(&watched).await;
    let probe = watched.probe;
    let vitals = probe.engine.vitals();
    let worker = match (probe.works, &vitals.worker) {
        (false, _) => "none",
        (true, Some(_)) if vitals.is_current => "ok",
        (true, Some(_)) => "lapsed",
        (true, None) => "not_joined",
    };
    let draining = probe.stop.is_stopping() || vitals.load.draining;
    let is_ready = store == "ok" && matches!(worker, "ok" | "none") && !draining;
    let body = json!({ "ready": is_ready, "store": store, "worker": worker, "draining": draining });
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (status, format!("{body}\n")).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if !is_ready {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The numbers, as Prometheus reads them.
async fn metrics(State(Watched { probe, writes }): State<Watched>) -> Response {
    let store = Arc::clone(&probe.engine.parts().store);
    let asking = async {
        let (stats, backup) = (store.stats().await?, backup::last(&*store).await?);
        let budgets = escrow::budgets(&*store, probe.engine.parts().clock.now()).await?;
        let writable = writes.check(&*store).await;
        if let Err(error) = &writable {
            tracing::warn!(%error, "the store takes no writes");
        }
        let is_writable = writable.is_ok() && !leaves_commits(&probe.engine);
        Ok::<_, StoreError>(Stored { stats, backup, is_writable, budgets })
    };
    let stored = match tokio::time::timeout(STORE_PATIENCE, asking).await {
        Ok(Ok(stored)) => Some(stored),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the store gives no numbers");
            None
        }
        Err(_) => None,
    };
    let now = probe.engine.parts().clock.now();
    let text = probe.metrics.render(&probe.engine.vitals(), stored.as_ref(), now);
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
