//! The process that is cut: this test binary, started again with an environment that makes it a worker.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use windlass::wire::{ProviderConfig, Wiring};
use windlass_core::budget::Ceilings;
use windlass_core::ids::RunId;
use windlass_core::value::Value;
use windlass_ports::store::Store;
use windlass_runtime::{Engine, Failpoint, Parts, Point, Scope, Settings, Silent, Stop, Submission, SystemClock};
use windlass_spec::compile::{LoadOptions, SpecCompiler, load};
use windlass_spec::source::DirFiles;
use windlass_tools::CatalogConfig;

use super::forgetful::{Breach, Forgetful};
use super::place::store_url;
use super::signature;

pub(super) const FOLDER: &str = "WINDLASS_PROOF_FOLDER";
pub(super) const CUT: &str = "WINDLASS_PROOF_CUT";
pub(super) const BROKEN: &str = "WINDLASS_PROOF_BROKEN";
/// The way of being broken in which every draw on a budget is granted.
pub(super) const GRANTS: &str = "grants";
/// The way of being broken in which there are no read-only switches.
pub(super) const BLIND: &str = "blind";

/// Makes a worker take as many runs and make as many calls at once as there are.
pub(super) const WIDE: &str = "WINDLASS_PROOF_WIDE";
const WIDE_SLOTS: usize = 2_000;

/// The file that makes a folder have access keys of AWS and no other ones.
pub(super) const SIGNED: &str = "signed";
/// The folder of rules, where there are some.
pub(super) const POLICY: &str = "policy";

/// The run of the proof.
pub(super) const RUN: &str = "proof";

/// The tables of the proof's configuration file.
#[derive(serde::Deserialize)]
struct Tables {
    providers: std::collections::BTreeMap<String, ProviderConfig>,
    #[serde(flatten)]
    catalog: CatalogConfig,
}

/// How a worker process ended.
#[derive(Debug)]
pub(super) enum End {
    /// It had nothing left to do.
    Done,
    /// It was cut at a point of this name.
    Cut(String),
    /// It was killed from outside.
    Killed,
}

/// Starts a worker on a folder. With `cut` it aborts at that point.
pub(super) fn spawn(folder: &Path, cut: Option<u64>) -> std::process::Child {
    command(folder, cut).spawn().expect("a worker starts")
}

/// The same with an engine that keeps no effect records.
pub(super) fn spawn_broken(folder: &Path, cut: u64) -> std::process::Child {
    command(folder, Some(cut)).env(BROKEN, "1").spawn().expect("a worker starts")
}

fn command(folder: &Path, cut: Option<u64>) -> Command {
    let binary = std::env::current_exe().expect("this binary");
    let mut command = Command::new(binary);
    command.args(["--exact", "proof::worker::a_worker_process", "--nocapture"]).env(FOLDER, folder);
    command.env(CUT, cut.unwrap_or(0).to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // The abort is meant: no report of it is wanted.
    command.env_remove("RUST_BACKTRACE");
    command
}

/// Waits for a worker and says how it ended.
pub(super) fn wait(folder: &Path, child: std::process::Child) -> End {
    let output = child.wait_with_output().expect("a worker ends");
    if output.status.success() {
        let text = std::fs::read_to_string(folder.join("points")).expect("the worker counted");
        // A worker that finds everything parked passes no point.
        text.trim().parse::<u64>().expect("a number");
        return End::Done;
    }
    match std::fs::read_to_string(folder.join("cut")) {
        Ok(point) => {
            std::fs::remove_file(folder.join("cut")).expect("removable");
            End::Cut(point)
        }
        Err(_) if std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9) => End::Killed,
        Err(_) => panic!("the worker failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)),
    }
}

/// The engine of the proof on a folder.
pub(super) async fn engine(folder: &Path, failpoint: Option<Failpoint>) -> (Engine, Submission) {
    let text = std::fs::read_to_string(folder.join("windlass.toml")).expect("the configuration");
    let tables: Tables = toml::from_str(&text).expect("its tables");
    let wiring = Wiring {
        folder: folder.to_owned(),
        providers: tables.providers,
        catalog: tables.catalog,
        prices: Some("prices.yml".into()),
        models: folder.join("models.yml").is_file().then(|| "models.yml".into()),
        policy: Some(folder.join(POLICY)).filter(|policy| policy.is_dir()),
        environment: match folder.join(SIGNED).is_file() {
            true => Arc::new(|name| match name {
                "AWS_ACCESS_KEY_ID" => Some(signature::ID.into()),
                "AWS_SECRET_ACCESS_KEY" => Some(signature::SECRET.into()),
                _ => None,
            }),
            false => Arc::new(|name| (name == "FAKE_API_KEY").then(|| "key".into())),
        },
        ..Wiring::default()
    };
    let catalog = wiring.catalog().expect("the catalog");
    let options = LoadOptions {
        tools: catalog.tools.values().map(|tool| tool.contract().clone()).collect(),
        ..LoadOptions::default()
    };
    let loaded = load(&DirFiles::new(folder), "machine.yml", &options).unwrap_or_else(|d| panic!("{d:?}"));
    let models = wiring.models(&loaded.secrets, Some(&loaded.program)).expect("the models");
    let parts = Parts {
        store: match std::env::var_os(BROKEN) {
            Some(how) => {
                let breach = if how == GRANTS {
                    Breach::Grants
                } else if how == BLIND {
                    Breach::Blind
                } else {
                    Breach::Forgets
                };
                Arc::new(Forgetful::new(store(folder).await, breach))
            }
            None => store(folder).await,
        },
        compiler: Arc::new(SpecCompiler::default()),
        model: Arc::new(models),
        catalog: Arc::new(catalog),
        policy: wiring.policy().expect("the rules"),
        clock: Arc::new(SystemClock::new()),
        observer: Arc::new(Silent),
        settings: match std::env::var_os(WIDE) {
            Some(_) => Settings { failpoint, claim_slots: WIDE_SLOTS, call_slots: WIDE_SLOTS, ..Settings::default() },
            None => Settings { failpoint, ..Settings::default() },
        },
    };
    let submission = Submission {
        run_id: Some(RunId::new(RUN).expect("an id")),
        ceilings: Ceilings { tokens: Some(1_000_000), model_calls: Some(1_000), ..Ceilings::default() },
        ..Submission::new(loaded.bundle, loaded.program, Value::object([("order", Value::Int(7))]))
    };
    (Engine::new(parts), submission)
}

/// The store of a folder.
pub(super) async fn store(folder: &Path) -> Arc<dyn Store> {
    windlass::wire::open_store(&store_url(folder)).await.expect("the store opens")
}

/// Aborts at the `cut`-th point, having noted which one it is.
pub(super) fn cutter(folder: &Path, cut: u64, count: Arc<AtomicU64>) -> Failpoint {
    let note = folder.join("cut");
    Failpoint::new(move |point: Point| {
        if count.fetch_add(1, Ordering::SeqCst) + 1 == cut {
            std::fs::write(&note, format!("{point:?}")).expect("a note");
            std::process::abort();
        }
    })
}

/// Not a test by itself: does nothing unless [`spawn`] started it.
#[test]
fn a_worker_process() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let cut = std::env::var(CUT).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    let count = Arc::new(AtomicU64::new(0));
    let points = Arc::clone(&count);
    runtime.block_on(async {
        let (engine, submission) = engine(folder, Some(cutter(folder, cut, points))).await;
        let run = engine.submit(submission).await.expect("submitted").run_id;
        engine.drive(Scope::Tree(run), Stop::new()).await.expect("driven");
    });
    std::fs::write(folder.join("points"), count.load(Ordering::SeqCst).to_string()).expect("a count");
}
