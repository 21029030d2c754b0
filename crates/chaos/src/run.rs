//! One run of chaos: starts a fleet, sees how the machine goes undisturbed, submits runs while faults are made, heals,
//! waits until everything has ended, and hands what was seen to the judge.

mod calm;
mod load;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use windlass_core::contract::Idempotency;
use windlass_core::ids::{Name, RunId};
use windlass_ports::store::Store;
use windlass_runtime::Engine;
use windlass_sim::history::{Op, Result as Ended};

use crate::effects::{Effects, Manners};
use crate::fleet::{Configuration, Fleet, Ground};
use crate::judge;
use crate::plan::{Fault, Kind, Outline, Plan, Planned};
use crate::proxy::{Address, Counts, Proxy, Tls};
use crate::record::{Journalist, Recorded, now_ms};
use crate::report::Report;
use crate::setup::{Cast, ChaosError, Options, Restart, Scene};
use crate::stand_in;

pub(crate) use calm::{Calm, ending, root_of};

/// The name under which this process is in the history.
pub(crate) const CALLER: &str = "caller";
/// Between looks at places whose workers may have ended.
const TEND: Duration = Duration::from_millis(100);

/// What was seen, for the judge.
pub(crate) struct Seen {
    pub(crate) plan: Plan,
    /// Faults that met work, by kind.
    pub(crate) landed: BTreeMap<Kind, u64>,
    /// Ids of runs that were submitted, with the number of their input.
    pub(crate) submitted: Vec<(RunId, usize)>,
    pub(crate) calm: Vec<Calm>,
    pub(crate) chaos_ms: u64,
    pub(crate) drain_ms: Option<u64>,
    pub(crate) began_ms: u64,
}

/// What all parts of one run of chaos share.
pub(crate) struct Stage {
    pub(crate) cast: Cast,
    pub(crate) options: Options,
    pub(crate) database: Option<Restart>,
    pub(crate) fleet: Fleet,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) engine: Engine,
    pub(crate) to: Journalist,
    /// The beginning of the ids of its runs.
    pub(crate) prefix: String,
}

/// Makes chaos, and judges what came of it. `tell` hears how it goes.
///
/// # Errors
/// Chaos could not be made. What the machine or the fleet did wrong is in the report.
pub async fn run(
    cast: Cast,
    scene: Scene,
    options: Options,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Report, ChaosError> {
    let outline = Outline {
        seed: options.seed,
        duration: options.duration,
        every: options.every,
        workers: options.workers,
        kinds: options.kinds.clone(),
        lease: options.lease,
    };
    let plan = Plan::draw(&outline);
    let (stage, began_ms) = open(cast, scene, options).await?;
    let stage = Arc::new(stage);
    stage.fleet.start().await?;
    tell("undisturbed runs");
    let calm = calm::observe(&stage).await?;
    tell(&format!("{} runs and {} faults over {:?}", stage.options.runs, plan.faults.len(), stage.options.duration));
    let began = Instant::now();
    let (landed, submitted) = disturb(&stage, &plan, tell).await?;
    let chaos_ms = millis(began.elapsed());
    stage.fleet.heal().await?;
    tell("faults are over; waiting until everything has ended");
    let drain_ms = drain(&stage, tell).await;
    stage.fleet.finish().await;
    tell("checking");
    let seen = Seen { plan, landed, submitted, calm, chaos_ms, drain_ms, began_ms };
    judge::judge(&stage, seen).await
}

/// The counting server, the proxies and the fleet, which is not started yet.
async fn open(cast: Cast, scene: Scene, options: Options) -> Result<(Stage, u64), ChaosError> {
    let began_ms = now_ms();
    let keyed = cast.bundle.tools.iter().filter(|contract| contract.idempotency == Idempotency::Key);
    let manners = Manners {
        delay_ms: options.delay_ms,
        verifiers: stand_in::verifiers(&cast.bundle).map(str::to_owned).collect(),
        keyed: keyed.map(|contract| contract.name.to_string()).collect(),
        answers: cast.answers.clone(),
        model_asks: cast.model_asks.clone(),
        seed: options.seed,
        ..Manners::default()
    };
    let effects = Effects::start(manners, Instant::now())?;
    let (urls, proxies) = ways(&scene, &options).await?;
    let (bundle, models) = (cast.bundle.clone(), cast.models.clone());
    let configuration = Configuration(Box::new(move |base| stand_in::configuration(&bundle, &models, base)));
    let history = scene.folder.join(format!("{CALLER}.jsonl"));
    let ground = Ground { spawn: scene.spawn, folder: scene.folder, effects, configuration };
    let store: Arc<dyn Store> = Arc::new(Recorded::over(scene.store, Journalist::new(CALLER, &history)?));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stage = Stage {
        cast,
        fleet: Fleet::new(ground, urls, proxies),
        engine: (scene.engine)(Arc::clone(&store)),
        store,
        to: Journalist::new(CALLER, &history)?,
        prefix: format!("chaos-{:x}", since.as_millis()),
        options,
        database: scene.database,
    };
    Ok((stage, began_ms))
}

/// The address of the store for each place, through a proxy of its own where there can be one.
async fn ways(scene: &Scene, options: &Options) -> Result<(Vec<String>, Vec<Proxy>), ChaosError> {
    let needs_proxy = options.kinds.iter().find(|kind| kind.needs_proxy());
    if scene.database.is_none() && options.kinds.contains(&Kind::Database) {
        return Err(ChaosError::Impossible(Kind::Database, "nobody said how the database is restarted"));
    }
    if !scene.store_url.starts_with("postgres") {
        return match needs_proxy {
            Some(kind) => Err(ChaosError::Impossible(*kind, "the store is no PostgreSQL server")),
            None => Ok((vec![scene.store_url.clone(); options.workers], Vec::new())),
        };
    }
    let address = Address::parse(&scene.store_url)?.with("lease_ms", &millis(options.lease).to_string());
    let (mut urls, mut proxies) = (Vec::new(), Vec::new());
    for _ in 0..options.workers {
        let proxy = Proxy::start(address.upstream(), Tls::Refuse).await?;
        urls.push(address.through(proxy.address()));
        proxies.push(proxy);
    }
    Ok((urls, proxies))
}

type Landed = BTreeMap<Kind, u64>;
type Submitted = Vec<(RunId, usize)>;

/// Makes the faults of the plan while runs are submitted.
async fn disturb(
    stage: &Arc<Stage>,
    plan: &Plan,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<(Landed, Submitted), ChaosError> {
    let mut load = JoinSet::new();
    load.spawn(load::submit(Arc::clone(stage)));
    let care = spawned(load::care(Arc::clone(stage)));
    let tending = spawned(tend(Arc::clone(stage)));
    let mut landed = Landed::new();
    let mut strikes = JoinSet::new();
    let began = Instant::now();
    for planned in &plan.faults {
        tokio::time::sleep(Duration::from_millis(planned.at_ms).saturating_sub(began.elapsed())).await;
        tell(&format!("{:>7.1} s  {}", planned.at_ms as f64 / 1000.0, planned.fault));
        strikes.spawn(strike(Arc::clone(stage), *planned));
    }
    tokio::time::sleep(stage.options.duration.saturating_sub(began.elapsed())).await;
    while let Some(struck) = strikes.join_next().await {
        let (kind, met) = struck.map_err(io::Error::other)??;
        *landed.entry(kind).or_default() += u64::from(met);
    }
    let submitted = match load.join_next().await {
        Some(submitted) => submitted.map_err(io::Error::other)??,
        None => Vec::new(),
    };
    // A cut says itself whether it landed.
    let counts = total(&stage.fleet.proxies);
    for (kind, cuts) in [(Kind::CutBeforeCommit, counts.cut_before), (Kind::CutAfterCommit, counts.cut_after)] {
        if landed.contains_key(&kind) {
            landed.insert(kind, cuts);
        }
    }
    drop((care, tending));
    Ok((landed, submitted))
}

/// A task that ends when the value is dropped.
fn spawned(task: impl Future<Output = ()> + Send + 'static) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    tasks
}

async fn strike(stage: Arc<Stage>, planned: Planned) -> io::Result<(Kind, bool)> {
    let kind = planned.fault.kind();
    let start = now_ms();
    let met = match (planned.fault, &stage.database) {
        (Fault::Database, Some(Restart(restart))) => {
            restart().await?;
            true
        }
        (fault, _) => stage.fleet.strike(fault).await?,
    };
    stage.to.note(Op::Fault { what: Name::from(planned.fault.to_string()) }, None, start, Ended::Ok);
    Ok((kind, met))
}

/// Fills the places of workers that have ended by themselves, for as long as it is not dropped.
async fn tend(stage: Arc<Stage>) {
    loop {
        tokio::time::sleep(TEND).await;
        if let Err(error) = stage.fleet.tend().await {
            tracing::error!(%error, "a worker could not be started");
        }
    }
}

/// Waits until everything has ended. Gives how long that took; none when it did not within its time.
async fn drain(stage: &Arc<Stage>, tell: &(dyn Fn(&str) + Sync)) -> Option<u64> {
    let _care = spawned(load::care(Arc::clone(stage)));
    let _tending = spawned(tend(Arc::clone(stage)));
    let began = Instant::now();
    let mut told = Instant::now();
    loop {
        let left = load::unfinished(stage).await;
        if left == Some(0) {
            return Some(millis(began.elapsed()));
        }
        if began.elapsed() > stage.options.drain_max {
            return None;
        }
        if told.elapsed() > Duration::from_secs(2) {
            tell(&format!("{} runs have not ended", left.unwrap_or_default()));
            told = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn total(proxies: &[Proxy]) -> Counts {
    let mut total = Counts::default();
    for counts in proxies.iter().map(Proxy::counts) {
        total.connections += counts.connections;
        total.refused += counts.refused;
        total.open += counts.open;
        total.commits += counts.commits;
        total.cut_before += counts.cut_before;
        total.cut_after += counts.cut_after;
        total.missed += counts.missed;
        total.cut_open += counts.cut_open;
    }
    total
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
