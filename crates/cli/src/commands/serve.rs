//! `windlass serve`, `worker` and `workers`: this process as one of a fleet.

mod calls;
mod issuers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use windlass::wire;
use windlass_chaos::record::{Journalist, Recorded};
use windlass_core::ids::Name;
use windlass_core::machine::Placement;
use windlass_ports::store::{Store, StoreError, WorkerRow};
use windlass_ports::tool::Catalog;
use windlass_runtime::{Driven, Engine, Meters, Notifier, Parts, Schedules, Scope, Settings, Stop, SystemClock};
use windlass_server::{CostObjective, Metrics, Probe};
use windlass_stores::Schema;
use windlass_telemetry::{Exporter, Spans};

use crate::app::App;
use crate::args::{self, Role};
use crate::caller::actor;
use crate::config::Objective;
use crate::exit::{Exit, Problem};
use crate::outcome;
use crate::output::time;
use crate::session;
use crate::telemetry;
use calls::Serving;

/// How much longer than the grace a process that was told to stop may take before it is cut off.
const GRACE_SLACK: Duration = Duration::from_secs(5);
/// How often a process without a worker looks which schema the store has.
const SCHEMA_EVERY: Duration = Duration::from_secs(5);
/// How long a process that ends waits for its spans to be taken.
const FLUSH: Duration = Duration::from_secs(2);
/// How long the store may take to answer before it counts as away.
const STORE_PATIENCE: Duration = Duration::from_secs(1);

/// Serves with the role that was asked for.
pub(crate) async fn serve(app: &App, args: args::Serve) -> Result<Exit, Problem> {
    process(app, args.role, args.place).await
}

/// Drives runs.
pub(crate) async fn worker(app: &App, args: args::Worker) -> Result<Exit, Problem> {
    process(app, Role::Worker, args.place).await
}

/// Sends notices where channels are configured, until the process is to stop.
fn notify(notifier: Arc<Notifier>, engine: &Engine, stop: &Stop, is_wanted: bool) -> tokio::task::JoinHandle<()> {
    let (engine, stop) = (engine.clone(), stop.clone());
    tokio::spawn(async move {
        if is_wanted {
            notifier.drive(&engine, &stop).await;
        }
    })
}

/// Spans of what is measured, with the numbers of those that were sent and dropped.
fn spans(exporter: &Exporter, metrics: &Metrics) -> Arc<dyn windlass_runtime::Meter> {
    let (sent, dropped) = (exporter.clone(), exporter.clone());
    metrics.spans(move || sent.told().sent, move || dropped.told().dropped);
    Arc::new(Spans::new(exporter.clone()))
}

/// Lets a task end in its time, and ends it then.
async fn let_end(mut task: tokio::task::JoinHandle<()>, grace: Duration) {
    if tokio::time::timeout(grace, &mut task).await.is_err() {
        task.abort();
    }
}

/// What is counted, with what begins at zero.
fn numbers(catalog: &Catalog, objectives: &BTreeMap<String, Objective>) -> Arc<Metrics> {
    let metrics = Metrics::new();
    metrics.unclassified(windlass_models::errors::unclassified);
    metrics.tools(&wire::contracts(catalog));
    let objectives = objectives.iter().map(|(name, objective)| CostObjective {
        name: name.clone(),
        machine: objective.machine.as_deref().map(Into::into),
        tenant: objective.tenant.as_deref().map(Into::into),
        bound: objective.bound(),
    });
    metrics.objectives(objectives.collect());
    Arc::new(metrics)
}

/// Everything that can be wrong is found before the store is touched; then the process does its part until it is told
/// to stop.
async fn process(app: &App, role: Role, place: args::Placed) -> Result<Exit, Problem> {
    let config = &app.loaded.config;
    let pools = pools(if place.pool.is_empty() { &config.worker.pools } else { &place.pool })?;
    let wiring = session::wiring(app, &app.loaded.folder);
    if let Some(Err(error)) = wiring.secrets.as_ref().map(|file| file.forget(app.now())) {
        tracing::warn!(%error, "secrets that were replaced a while ago could not be removed");
    }
    let catalog = wiring.catalog().map_err(session::setting)?;
    let models = wiring.models(&std::collections::BTreeMap::new(), None).map_err(session::setting)?;
    let rules = session::rules(app, &wiring).await?;
    let notifier = Arc::new(Notifier::new(wiring.channels().map_err(session::setting)?));
    let address = place.listen.or_else(|| role.listens().then_some(config.serve.listen.0));
    let calls = calls::configured(app, &wiring, &catalog, address.filter(|_| role.listens()))?;
    let listener = match address {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let metrics = numbers(&catalog, &config.objectives);
    let exporter = telemetry::exporter(app)?;
    let mut meters = vec![Arc::clone(&metrics) as Arc<dyn windlass_runtime::Meter>];
    meters.extend(exporter.as_ref().map(|exporter| spans(exporter, &metrics)));
    let capturing = wire::Capturing::new(&wiring, Vec::new());
    meters.extend(session::counting(&capturing, &wiring));
    if !config.notify.is_empty() {
        meters.push(Arc::clone(&notifier) as Arc<dyn windlass_runtime::Meter>);
    }
    let meter = Arc::new(Meters(meters)) as Arc<dyn windlass_runtime::Meter>;
    // A process of a fleet waits for its store, however long that takes.
    let basis = Some(session::basis(app, &wiring)?);
    let settings = Settings { pools, meter: Some(meter), store_patience_ms: u64::MAX, basis, ..session::settings(app) };
    let engine = Engine::new(Parts {
        store: store(app, &place).await?,
        compiler: wire::compiler(),
        model: wiring.scanned(Arc::new(models)),
        catalog: Arc::new(catalog),
        policy: session::answering(rules.as_ref()),
        clock: Arc::new(SystemClock::new()),
        observer: calls::observer(calls.as_ref()),
        settings,
    });
    wiring.bind(&engine);
    let stop = Stop::new();
    let signals = tokio::spawn(session::interrupts(stop.clone()));
    let heard = announce(app, role, listener.as_ref());
    let probe = Probe { engine: engine.clone(), metrics, works: role.works(), stop: stop.clone() };
    let ended = tokio_util::sync::CancellationToken::new();
    // Calls over HTTP are decided by what runs are decided by.
    let _following = session::follow_rules(rules.as_ref(), &engine.parts().store, &actor().into()).await?;
    let _capturing = session::follow_captures(&capturing, &engine.parts().store).await?;
    let serving = Serving::begin(&engine, &probe.metrics, calls, &stop);
    let router = windlass_server::router(probe, serving.api.clone());
    let listening = listener.map(|listener| tokio::spawn(windlass_server::serve(listener, router, ended.clone())));
    heard?;
    let notifying = notify(notifier, &engine, &stop, !config.notify.is_empty());
    let result = worked(app, &engine, (role, rules.as_ref()), &stop).await;
    capturing.flush(FLUSH).await;
    // What is being sent is ended, so that nobody is told twice.
    stop.graceful.cancel();
    let grace = Duration::from_millis(engine.parts().settings.grace_ms);
    let_end(notifying, grace).await;
    if let Some(exporter) = exporter {
        exporter.flush(FLUSH).await;
    }
    signals.abort();
    ended.cancel();
    serving.end().await;
    if let Some(listening) = listening {
        // It ends within its own patience.
        let _ended = listening.await;
    }
    result
}

/// The store, with what is asked of it written down when that is wanted.
async fn store(app: &App, place: &args::Placed) -> Result<Arc<dyn Store>, Problem> {
    let store = app.store().await?;
    let Some(path) = &place.history else { return Ok(store) };
    let journalist = Journalist::new(place.history_name.as_str(), path).map_err(|error| {
        Problem::new(Exit::Unreachable, "cli.io", format!("cannot write `{}`: {error}", path.display()))
    })?;
    Ok(Arc::new(Recorded::over(store, journalist)))
}

/// Does the part of a role, and stores what was counted meanwhile.
async fn worked(
    app: &App,
    engine: &Engine,
    (role, rules): (Role, Option<&session::Rules>),
    stop: &Stop,
) -> Result<Exit, Problem> {
    let result = work(app, engine, role, stop).await;
    session::settle_counts(rules, &engine.parts().store, &actor().into()).await;
    result
}

/// Does the part of a role until it is told to stop.
async fn work(app: &App, engine: &Engine, role: Role, stop: &Stop) -> Result<Exit, Problem> {
    let reaping = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move {
            if !role.works() {
                engine.reap(stop).await;
            }
        }
    });
    let sealing = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.seal(!role.works(), stop).await }
    });
    let schedules = Schedules::new(engine);
    let starting = tokio::spawn({
        let (schedules, stop) = (schedules.clone(), stop.clone());
        async move {
            if role.schedules() {
                schedules.drive(stop).await;
            }
        }
    });
    let driven = async {
        if role.works() {
            return engine.drive(Scope::All, stop.clone()).await.map_err(outcome::engine_problem);
        }
        tokio::select! {
            () = stop.graceful.cancelled() => Ok(Driven::Stopped),
            newer = outdated(app.store_url()) => {
                tracing::error!(error = %newer, "the schema of the store became newer than this build: it ends");
                Err(newer.into())
            }
        }
    };
    let grace = Duration::from_millis(engine.parts().settings.grace_ms);
    let mut is_away = false;
    let result = tokio::select! {
        biased;
        () = stop.immediate.cancelled() => Ok(Exit::Interrupted),
        () = away(engine, stop, grace) => {
            is_away = true;
            tracing::warn!("the store is away; what is held is taken over by others when its lease ends");
            Ok(Exit::Ok)
        }
        () = overdue(stop, grace + GRACE_SLACK) => {
            tracing::error!("not done within the grace; what is held is left to be taken over");
            Ok(Exit::Interrupted)
        }
        // The second word may have come while the work was being looked at.
        driven = driven => driven.map(|_| if stop.immediate.is_cancelled() { Exit::Interrupted } else { Exit::Ok }),
    };
    reaping.abort();
    starting.abort();
    sealing.abort();
    if !stop.immediate.is_cancelled() && !is_away {
        tokio::select! {
            () = stop.immediate.cancelled() => {}
            () = async {
                engine.leave().await;
                engine.seal_now().await;
            } => {}
        }
    }
    result
}

/// Resolves when a process that was told to stop has had its grace and the store, without which nothing more can be done,
/// does not answer.
async fn away(engine: &Engine, stop: &Stop, grace: Duration) {
    stop.graceful.cancelled().await;
    tokio::time::sleep(grace.saturating_sub(STORE_PATIENCE)).await;
    loop {
        let began = tokio::time::Instant::now();
        match tokio::time::timeout(STORE_PATIENCE, engine.parts().store.next_due(None)).await {
            Ok(Ok(_)) => tokio::time::sleep_until(began + STORE_PATIENCE).await,
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Resolves when another process has brought the schema of the store beyond what this build knows.
async fn outdated(url: &str) -> StoreError {
    loop {
        tokio::time::sleep(SCHEMA_EVERY).await;
        match windlass_stores::schema(url).await {
            Ok(Some(Schema { found, known })) if found > known => return StoreError::NewerSchema { found, known },
            // A store that cannot be asked now is asked again.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Resolves when a process that was told to stop has had its time.
async fn overdue(stop: &Stop, grace: Duration) {
    stop.graceful.cancelled().await;
    tokio::time::sleep(grace).await;
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Problem> {
    TcpListener::bind(address).await.map_err(|error| {
        let message = format!("cannot listen on `{address}`: {error}");
        Problem::new(Exit::Unreachable, "cli.listen", message)
            .hint("`--listen ADDRESS:PORT` names another address; port 0 takes a free one")
    })
}

/// Says that the process is up, and where: one document on stdout.
fn announce(app: &App, role: Role, listener: Option<&TcpListener>) -> Result<(), Problem> {
    let listen = match listener.map(TcpListener::local_addr) {
        None => None,
        Some(Ok(address)) => Some(format!("http://{address}")),
        Some(Err(error)) => return Err(Problem::new(Exit::Unreachable, "cli.listen", error.to_string())),
    };
    let at = listen.as_ref().map(|listen| format!(", listening on {listen}")).unwrap_or_default();
    let value = json!({ "role": role.as_str(), "listen": listen, "pid": std::process::id() });
    app.output.sentence(&value, &format!("serving as {}{at}", role.as_str()));
    Ok(())
}

fn pools(given: &[String]) -> Result<Vec<Name>, Problem> {
    given.iter().map(|name| pool(name)).collect()
}

/// A pool's name as a person gave it.
///
/// # Errors
/// A text that cannot name a pool.
pub(crate) fn pool(name: &str) -> Result<Name, Problem> {
    if Placement::is_pool_name(name) {
        return Ok(name.into());
    }
    Err(Problem::invalid(format!("`{name}` cannot name a pool")).hint("use up to 64 letters, digits, `.`, `_` and `-`"))
}

/// Lists workers, alive ones first.
pub(crate) async fn workers(app: &App, args: args::Workers) -> Result<Exit, Problem> {
    let mut rows = match app.unless_named(app.store_as_it_is().await?)? {
        Some(store) => store.workers().await?,
        None => Vec::new(),
    };
    rows.retain(|row| args.all || row.is_alive || row.runs > 0);
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let header = ["worker", "state", "host", "pid", "pools", "held", "calls", "runs", "seen"];
    app.output.table(&json!({ "workers": rows.iter().map(row).collect::<Vec<_>>() }), &header, &cells);
    Ok(Exit::Ok)
}

fn state(row: &WorkerRow) -> &'static str {
    match (row.is_alive, row.load.draining) {
        (true, false) => "alive",
        (true, true) => "draining",
        (false, _) => "gone",
    }
}

fn row(row: &WorkerRow) -> serde_json::Value {
    json!({
        "id": row.id,
        "state": state(row),
        "is_alive": row.is_alive,
        "host": row.registration.host,
        "pid": row.registration.pid,
        "build": row.registration.build,
        "pools": row.registration.pools,
        "claim_slots": row.registration.claim_slots,
        "call_slots": row.registration.call_slots,
        "held": row.load.held,
        "calls": row.load.calls,
        "draining": row.load.draining,
        "runs": row.runs,
        "seen_at": time(row.seen_at),
    })
}

fn cells(row: &WorkerRow) -> Vec<String> {
    let pools: Vec<&str> = row.registration.pools.iter().map(|pool| &**pool).collect();
    vec![
        row.id.to_string(),
        state(row).into(),
        row.registration.host.clone(),
        row.registration.pid.to_string(),
        if pools.is_empty() { "all".into() } else { pools.join(",") },
        row.load.held.to_string(),
        row.load.calls.to_string(),
        row.runs.to_string(),
        time(row.seen_at),
    ]
}
