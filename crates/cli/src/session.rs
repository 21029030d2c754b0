//! An engine for one command: wired from the configuration, watched, stopped by the signals of the terminal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use windlass::secrets::{Commands, SecretFile};
use windlass::wire::{self, Capturing, Wiring};
use windlass_core::basis::Basis;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::machine::Program;
use windlass_core::redact;
use windlass_policy::{LivePolicy, Load, TrustBook, TrustConfig};
use windlass_ports::compile::Bundle;
use windlass_ports::policy::{AllowAll, Policy};
use windlass_ports::store::Store;
use windlass_ports::tool::Catalog;
use windlass_runtime::{Driven, Engine, Meter, Meters, Parts, Scope, Settings, Stop, SystemClock};
use windlass_telemetry::{Exporter, Spans};

use crate::app::App;
use crate::args::Follow;
use crate::caller::actor;
use crate::config::rate_limits;
use crate::exit::{Exit, Problem};
use crate::outcome;
use crate::output;
use crate::places;
use crate::process;
use crate::telemetry;
use crate::watcher::Watcher;

/// How long a command that is done waits for its spans to be taken.
const FLUSH: Duration = Duration::from_secs(2);

/// The engine of one command.
#[derive(Debug)]
pub(crate) struct Session {
    /// The engine.
    pub engine: Engine,
    watcher: Arc<Watcher>,
    exporter: Option<Exporter>,
    capturing: Arc<Capturing>,
    /// What decides; none without rules.
    rules: Option<Rules>,
    /// Who gave the command.
    actor: Name,
}

/// The rules of a process, and the scores that they may look at.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    policy: Arc<LivePolicy>,
    trust: TrustBook,
    config: TrustConfig,
}

/// What an engine needs beside the configuration.
#[derive(Debug)]
pub(crate) struct Materials<'a> {
    /// Where runs live.
    pub store: Arc<dyn Store>,
    /// Tools, actions and hooks.
    pub catalog: Catalog,
    /// Keys that documents held, by reference.
    pub secrets: BTreeMap<String, SecretString>,
    /// The program that is run.
    pub program: Option<&'a Program>,
    /// What decides.
    pub rules: Option<Rules>,
}

impl Session {
    /// Wires an engine.
    ///
    /// # Errors
    /// A setting that cannot be used, or an events file that cannot be written.
    pub(crate) fn new(app: &App, wiring: &Wiring, materials: Materials<'_>, follow: &Follow) -> Result<Self, Problem> {
        let models = wiring.models(&materials.secrets, materials.program).map_err(setting)?;
        for retirement in models.retirements() {
            tracing::warn!("{retirement}");
        }
        let watcher = Arc::new(Watcher::new(app.output, follow.events.as_deref())?);
        let exporter = telemetry::exporter(app)?;
        let capturing = Capturing::new(wiring, materials.secrets.values().cloned().collect());
        let spans = exporter.clone().map(|exporter| Arc::new(Spans::new(exporter)) as Arc<dyn Meter>);
        let meter: Arc<dyn Meter> = Arc::new(Meters(spans.into_iter().chain(counting(&capturing, wiring)).collect()));
        let wait = follow.wait.unwrap_or(app.loaded.config.run.wait);
        let basis = basis(app, wiring)?;
        let engine = Engine::new(Parts {
            store: materials.store,
            compiler: wire::compiler(),
            model: wiring.scanned(Arc::new(models)),
            catalog: Arc::new(materials.catalog),
            policy: answering(materials.rules.as_ref()),
            clock: Arc::new(SystemClock::new()),
            observer: Arc::clone(&watcher) as Arc<dyn windlass_runtime::Observer>,
            settings: Settings { wait_ms: wait.0, meter: Some(meter), basis: Some(basis), ..settings(app) },
        });
        wiring.bind(&engine);
        Ok(Self { engine, watcher, exporter, capturing, rules: materials.rules, actor: actor().into() })
    }

    /// Lets a run and everything below it take up what was sent to them. No call is made.
    ///
    /// # Errors
    /// The store fails, or a run cannot be read by this build.
    pub(crate) async fn settle(&self, run: &RunId) -> Result<(), Problem> {
        let _following = follow_rules(self.rules.as_ref(), &self.engine.parts().store, &self.actor).await?;
        let settled = self.engine.settle(run).await;
        settle_counts(self.rules.as_ref(), &self.engine.parts().store, &self.actor).await;
        self.engine.leave().await;
        self.watcher.finish();
        settled.map_err(outcome::engine_problem)
    }

    /// Drives a run and everything below it, and prints how it ended.
    ///
    /// # Errors
    /// The store fails, or the run cannot be driven by this build.
    pub(crate) async fn follow(&self, app: &App, run: &RunId) -> Result<Exit, Problem> {
        let _following = follow_rules(self.rules.as_ref(), &self.engine.parts().store, &self.actor).await?;
        let _capturing = follow_captures(&self.capturing, &self.engine.parts().store).await?;
        let stop = Stop::new();
        let interrupts = tokio::spawn(interrupts(stop.clone()));
        let sealing = tokio::spawn({
            let (engine, stop) = (self.engine.clone(), stop.clone());
            async move { engine.seal(false, stop).await }
        });
        let driven = self.engine.drive(Scope::Tree(run.clone()), stop).await;
        interrupts.abort();
        sealing.abort();
        self.engine.seal_now().await;
        settle_counts(self.rules.as_ref(), &self.engine.parts().store, &self.actor).await;
        self.capturing.flush(FLUSH).await;
        if let Some(exporter) = &self.exporter {
            exporter.flush(FLUSH).await;
        }
        self.engine.leave().await;
        self.watcher.finish();
        let stopped = driven.map_err(outcome::engine_problem)? == Driven::Stopped;
        let report = self.engine.status(run).await.map_err(outcome::engine_problem)?;
        let report = report.ok_or_else(|| Problem::unknown_run(run.as_str()))?;
        if stopped && !report.head.status.is_final() {
            app.output.note(&format!("interrupted; go on with: windlass resume {run}{}", flags(app)));
            app.output.document(&outcome::interrupted(run));
            return Ok(Exit::Interrupted);
        }
        let (document, exit) = outcome::of(&report);
        if exit == Exit::Parked && !app.output.quiet() {
            for wait in &report.waits {
                output::note(&format!("waits: {}", outcome::described(wait)));
            }
            output::note(&output::printable(&outcome::advice(&report, &flags(app))));
        }
        app.output.document(&document);
        Ok(exit)
    }
}

/// What ends with it.
#[derive(Debug)]
pub(crate) struct Following(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Opens the configured rules. That they are not good is written down, when there is a store.
///
/// # Errors
/// Rules that are not good, or none where tools need some.
pub(crate) async fn rules(app: &App, wiring: &Wiring) -> Result<Option<Rules>, Problem> {
    match wiring.rules() {
        Ok(rules) => Ok(rules.map(|policy| {
            let (trust, config) = (wiring.trust.clone(), app.loaded.config.trust.clone());
            Rules { policy, trust, config }
        })),
        Err(error) => {
            if let Some(folder) = &wiring.policy
                && app.store_url() != "memory:"
                && let Ok(Some(store)) = app.existing_store().await
            {
                let folder: Name = folder.file_name().unwrap_or_default().to_string_lossy().into();
                let load = Load::Refused(error.message.clone());
                if let Err(error) = wire::note_load(&*store, &actor().into(), &folder, &load).await {
                    tracing::warn!(%error, "that rules were refused could not be written down");
                }
            }
            Err(setting(error))
        }
    }
}

/// What answers by these rules.
#[must_use]
pub(crate) fn answering(rules: Option<&Rules>) -> Arc<dyn Policy> {
    wire::answering(rules.map(|rules| &rules.policy))
}

/// Writes down which rules are in force and reads the trust scores of agents, before anything is decided, and follows both
/// until the answer is dropped.
///
/// # Errors
/// The store fails.
pub(crate) async fn follow_rules(
    rules: Option<&Rules>,
    store: &Arc<dyn Store>,
    actor: &Name,
) -> Result<Option<Following>, Problem> {
    let Some(Rules { policy, trust, config }) = rules else { return Ok(None) };
    let recording = tokio::spawn(wire::record_loads(policy, store, actor.clone()).await?);
    let trusting = tokio::spawn(wire::follow_trust(trust, store, config.clone()).await?);
    let trying = tokio::spawn(wire::follow_trial(policy, store, actor.clone()).await?);
    Ok(Some(Following(vec![recording, trusting, trying])))
}

/// Stores what was counted of a candidate and of agents. A command that did its work is not failed for it.
pub(crate) async fn settle_counts(rules: Option<&Rules>, store: &Arc<dyn Store>, actor: &Name) {
    let Some(Rules { policy, trust, config }) = rules else { return };
    if config.computed
        && let Err(error) = wire::settle_trust(trust, &**store, config, false).await
    {
        tracing::warn!(%error, "evidence about agents could not be stored");
    }
    if let Err(error) = wire::settle_trial(policy, &**store, actor).await {
        tracing::warn!(%error, "what was counted of the candidate rule set could not be stored");
    }
}

/// What keeps calls for tests, and what counts evidence about agents.
#[must_use]
pub(crate) fn counting(capturing: &Arc<Capturing>, wiring: &Wiring) -> [Arc<dyn Meter>; 2] {
    [Arc::clone(capturing) as _, Arc::new(wire::Counting(wiring.trust.clone()))]
}

/// Reads what is to be captured of calls before any is made, and follows it until the answer is dropped.
///
/// # Errors
/// The store fails.
pub(crate) async fn follow_captures(capturing: &Arc<Capturing>, store: &Arc<dyn Store>) -> Result<Following, Problem> {
    Ok(Following(vec![tokio::spawn(wire::follow_captures(capturing, store).await?)]))
}

/// The numbers of an engine, as configured.
#[must_use]
pub(crate) fn settings(app: &App) -> Settings {
    let config = &app.loaded.config;
    Settings {
        claim_slots: config.worker.claim_slots,
        call_slots: config.worker.call_slots,
        grace_ms: config.worker.grace.0,
        queued_max: config.queue.max,
        tenant_held_max: config.queue.tenant_held_max,
        // Checked when the configuration was read.
        rates: Arc::new(rate_limits(&config.limits.rates).unwrap_or_default()),
        host: process::host(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        ..Settings::default()
    }
}

/// What is decided under this configuration.
///
/// # Errors
/// A file that the configuration names and that cannot be read.
pub(crate) fn basis(app: &App, wiring: &Wiring) -> Result<Basis, Problem> {
    let config = app.loaded.config.behaviour();
    let config = config.map_err(|error| Problem::bug(format!("the configuration has no hash: {error}")))?;
    wiring.basis(Some(config)).map_err(setting)
}

/// The flags that another command needs to find the same store and configuration.
fn flags(app: &App) -> String {
    let url = app.store_url();
    let in_environment = std::env::var(crate::config::variable("store")).is_ok_and(|value| value == url);
    store_flag(url, app.global.store.is_some() && !in_environment)
}

/// The flag for a store. A password is not shown: it is left out, and so is the whole flag when the store was not named
/// by one, for then another command finds it in the environment or the configuration as well.
fn store_flag(url: &str, named: bool) -> String {
    let shown = redact::address(url);
    if url == crate::config::StoreUrl::default().0 || (shown != url && !named) {
        return String::new();
    }
    format!(" --store {}", outcome::quoted(&shown))
}

/// A setting that cannot be used.
#[must_use]
pub(crate) fn setting(error: wire::WireError) -> Problem {
    let problem = Problem::new(Exit::Invalid, "cli.config", error.message);
    let problem = match error.key {
        Some(key) => problem.detail("key", key),
        None => problem,
    };
    problem.hint(error.hint.unwrap_or_else(|| "`windlass config` shows every value and where it comes from".into()))
}

/// The operator's own secrets.
#[must_use]
pub(crate) fn secrets(app: &App) -> SecretFile {
    let config = &app.loaded.config.secrets;
    let file = SecretFile::new(app.loaded.folder.join(&config.file)).asking(Commands {
        programs: config.commands.clone(),
        folder: app.loaded.folder.clone(),
        timeout: Duration::from_millis(config.timeout.0),
        fresh: Duration::from_millis(config.fresh.0),
    });
    file.encrypted(app.keys().map_err(|problem| problem.message))
}

/// The wiring of a command about a machine in `folder`.
#[must_use]
pub(crate) fn wiring(app: &App, folder: &Path) -> Wiring {
    let config = &app.loaded.config;
    Wiring {
        folder: app.loaded.folder.clone(),
        scripts: folder.to_owned(),
        providers: config.providers.clone(),
        prices: config.prices.clone(),
        models: config.models.clone(),
        catalog: windlass_tools::CatalogConfig {
            hooks: config.hooks.clone(),
            tools: config.tools.clone(),
            actions: config.actions.clone(),
            mcp: config.mcp.clone(),
            agents_cli: config.agents_cli.clone(),
            outbound: config.outbound.clone(),
        },
        notify: config.notify.clone(),
        require_contracts: !config.documents.undeclared_tools,
        require_guards: !config.documents.unguarded_danger,
        needs_secrets: true,
        policy: config.policy.path.clone(),
        candidate: config.policy.candidate.clone(),
        require_policy: config.policy.required,
        trust: if config.trust.computed { TrustBook::counting() } else { TrustBook::default() },
        scan: config.scan.clone(),
        environment: Arc::new(|name| std::env::var_os(name)),
        secrets: Some(Arc::new(secrets(app))),
        private: config.auth.private(),
        pools: windlass_tools::WorkPools::default(),
        quarantine: windlass_tools::mcp::Quarantine::default(),
        quotas: windlass_runtime::SharedQuotas::default(),
    }
}

/// A session for a run that exists: with the program it is pinned to, and the configuration it was started with unless
/// another one is given.
///
/// # Errors
/// The bundle is missing or cannot be compiled, or a provider or hook that it needs is not configured.
pub(crate) async fn of_run(
    app: &mut App,
    store: Arc<dyn Store>,
    bundle: Digest,
    follow: &Follow,
) -> Result<Session, Problem> {
    let Pinned { bundle, program, wiring } = pinned(app, &*store, bundle).await?;
    let catalog = wiring.catalog().map_err(setting)?;
    check_configured(&bundle, &catalog)?;
    let rules = rules(app, &wiring).await?;
    let materials = Materials { store, catalog, secrets: BTreeMap::new(), program: Some(&program), rules };
    Session::new(app, &wiring, materials, follow)
}

/// What a run is pinned to, and the wiring of the place where it was started.
pub(crate) struct Pinned {
    /// Its documents.
    pub bundle: Bundle,
    /// What they say.
    pub program: Arc<Program>,
    /// The configuration that it was started with, unless another one is given.
    pub wiring: Wiring,
}

/// Finds what a run is pinned to.
///
/// # Errors
/// The bundle is missing or cannot be compiled.
pub(crate) async fn pinned(app: &mut App, store: &dyn Store, bundle: Digest) -> Result<Pinned, Problem> {
    let mut folder = PathBuf::new();
    if let Some(place) = places::recall(app.store_url(), bundle) {
        folder = place.folder;
        if app.loaded.file.is_none()
            && let Some(config) = place.config.filter(|path| path.is_file())
        {
            let store = Some(app.store_url().to_owned());
            let global = crate::args::Global { config: Some(config), store, ..app.global.clone() };
            *app = App::load(app.output, &global, None)?;
        }
    }
    let bytes = store.blob(bundle).await?;
    let bundle = bytes.and_then(|bytes| Bundle::decode(&bytes).ok()).ok_or_else(|| {
        Problem::new(Exit::Unreachable, "store.corrupt", format!("the bundle {} is missing", bundle.short()))
    })?;
    let program = wire::compiler()
        .compile(&bundle)
        .map_err(|error| Problem::new(Exit::Rejected, "spec.invalid", error.to_string()))?;
    Ok(Pinned { bundle, program, wiring: wiring(app, &folder) })
}

/// A run that needs a hook or tool which is not configured here would fail for good: refused before it goes on.
fn check_configured(bundle: &Bundle, catalog: &Catalog) -> Result<(), Problem> {
    let hooks = bundle.hooks.keys().filter(|name| catalog.hook(name).is_none());
    let tools = bundle.tools.iter().map(|tool| &*tool.name).filter(|name| !catalog.tools.contains_key(*name));
    let missing: Vec<&str> = hooks.map(String::as_str).chain(tools).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        Exit::Invalid,
        "cli.config",
        format!("the run was started with {}, which the configuration here does not have", missing.join(", ")),
    )
    .hint("`--config FILE` names the configuration that the run was started with"))
}

/// The first signal stops gracefully, the second at once.
pub(crate) async fn interrupts(stop: Stop) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    // Of a process that is to outlive its terminal, it stays ignored.
    let mut hangup = (!ignores_hangup()).then(|| signal(SignalKind::hangup()).ok()).flatten();
    for token in [stop.graceful, stop.immediate] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            Some(_) = async { hangup.as_mut()?.recv().await } => {}
        }
        // A terminal that is closed says so more than once, and means no more by it.
        hangup = None;
        token.cancel();
        tracing::info!("stopping; calls that are out may finish, a second signal drops them");
    }
}

/// Whether this process was started to go on when its terminal is closed, as by `nohup`.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// An engine that only looks at runs.
#[must_use]
pub(crate) fn observer(store: Arc<dyn Store>) -> Engine {
    Engine::new(Parts {
        store,
        compiler: wire::compiler(),
        model: Arc::new(windlass_models::Models::builder().build()),
        catalog: Arc::new(Catalog::default()),
        policy: Arc::new(AllowAll),
        clock: Arc::new(SystemClock::new()),
        observer: Arc::new(windlass_runtime::Silent),
        settings: Settings::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_for_a_store_has_no_password_and_is_for_a_shell() {
        assert_eq!(store_flag("sqlite:my runs.db", true), " --store 'sqlite:my runs.db'");
        assert_eq!(
            store_flag("postgres://me:p/w@h/d?lanes=1&readers=2", true),
            " --store 'postgres://me@h/d?lanes=1&readers=2'"
        );
        assert_eq!(store_flag("postgres://me:pw@h/d", false), "");
        assert_eq!(store_flag("postgres://me@h/d", false), " --store postgres://me@h/d");
        assert_eq!(store_flag(&crate::config::StoreUrl::default().0, true), "");
    }
}
