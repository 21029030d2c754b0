//! The worker processes: this test binary, started again with an environment that makes it one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use windlass::wire::{self, ProviderConfig, Wiring};
use windlass_chaos::record::{Journalist, Recorded};
use windlass_chaos::{Place, Spawn};
use windlass_ports::policy::AllowAll;
use windlass_ports::store::Store;
use windlass_runtime::{Engine, Parts, Scope, Settings, Silent, Stop, SystemClock};
use windlass_tools::CatalogConfig;

use super::broken::{Breach, Broken};
use super::zombie::Zombie;

const NAME: &str = "WINDLASS_CHAOS_NAME";
const CONFIG: &str = "WINDLASS_CHAOS_CONFIG";
const STORE: &str = "WINDLASS_CHAOS_STORE";
const HISTORY: &str = "WINDLASS_CHAOS_HISTORY";
const BREACH: &str = "WINDLASS_CHAOS_BREACH";
const ZOMBIE: &str = "WINDLASS_CHAOS_ZOMBIE";
/// The worker that sleeps through its lease when one is to.
const SLEEPER: &str = "1.0";

/// The tables of a worker's configuration that count here.
#[derive(serde::Deserialize)]
struct Tables {
    #[serde(default)]
    providers: BTreeMap<String, ProviderConfig>,
    #[serde(default)]
    tools: BTreeMap<String, windlass_tools::config::ToolConfig>,
}

/// What a configuration says about models and tools.
pub(super) fn wiring(text: &str) -> Wiring {
    let Tables { providers, tools } = toml::from_str(text).expect("its tables");
    Wiring {
        providers,
        catalog: CatalogConfig { tools, ..CatalogConfig::default() },
        environment: Arc::new(|name| name.ends_with("_API_KEY").then(|| "key".into())),
        ..Wiring::default()
    }
}

/// An engine over a store.
pub(super) fn engine(store: Arc<dyn Store>, wiring: &Wiring) -> Engine {
    Engine::new(Parts {
        store,
        compiler: wire::compiler(),
        model: Arc::new(wiring.models(&BTreeMap::new(), None).expect("the models")),
        catalog: Arc::new(wiring.catalog().expect("the catalog")),
        policy: Arc::new(AllowAll),
        clock: Arc::new(SystemClock::new()),
        observer: Arc::new(Silent),
        settings: Settings { grace_ms: 5_000, store_patience_ms: u64::MAX, ..Settings::default() },
    })
}

/// Starts workers whose store breaks a promise, or none. With `zombie` one of them sleeps through its lease, once.
pub(super) fn spawn(breach: Option<Breach>, zombie: bool) -> Spawn {
    let binary = std::env::current_exe().expect("this binary");
    Spawn::new(move |place: &Place| {
        let mut command = Command::new(&binary);
        command.args(["--exact", "fleet::worker::a_worker_process", "--nocapture"]);
        command.env(NAME, &place.name).env(CONFIG, &place.config).env(STORE, &place.store_url);
        command.env(HISTORY, &place.history).env(BREACH, breach.map_or("", Breach::as_str));
        if zombie && place.name == SLEEPER {
            command.env(ZOMBIE, "1");
        }
        command
    })
}

/// Does nothing unless it is started by [`spawn`].
#[test]
fn a_worker_process() {
    let (Ok(name), Ok(url)) = (std::env::var(NAME), std::env::var(STORE)) else { return };
    let file = |variable| std::env::var_os(variable).expect("a worker is told");
    let wiring = wiring(&std::fs::read_to_string(file(CONFIG)).expect("its configuration"));
    let journalist = Journalist::new(name.as_str(), Path::new(&file(HISTORY))).expect("its history");
    let breach = std::env::var(BREACH).ok().and_then(|word| Breach::of(&word));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    runtime.block_on(async {
        // What a worker of the binary does that finds no store.
        let Ok(mut store) = wire::open_store(&url).await else { std::process::exit(6) };
        if let Some(breach) = breach {
            store = Arc::new(Broken::over(store, breach));
        }
        let mut store: Arc<dyn Store> = Arc::new(Recorded::over(store, journalist));
        if std::env::var_os(ZOMBIE).is_some() {
            store = Arc::new(Zombie::over(store));
        }
        let engine = engine(store, &wiring);
        let stop = Stop::new();
        let mut terminate = signal(SignalKind::terminate()).expect("signals");
        let graceful = stop.graceful.clone();
        tokio::spawn(async move {
            terminate.recv().await;
            graceful.cancel();
        });
        engine.drive(Scope::All, stop).await.expect("driven");
        engine.leave().await;
    });
}
