//! What `windlass serve` serves to whoever shows a token: the configured tools, each by a machine that calls it and nothing
//! else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use windlass::wire::{self, Wiring};
use windlass_core::contract::{Contract, OnUnknown};
use windlass_core::ids::Name;
use windlass_ports::tool::Catalog;
use windlass_runtime::{Engine, Observer, Silent, Stop};
use windlass_server::Metrics;
use windlass_server::calls::{Api, Callable, Calls, Commits, hosts_of};
use windlass_spec::diagnostics::render_all;
use windlass_spec::source::MemoryFiles;
use windlass_spec::{LoadOptions, load};

use super::issuers::{Issuers, LOOK_EVERY};
use crate::app::App;
use crate::exit::{Exit, Problem};

/// The document of such a machine, within its bundle.
const ENTRY: &str = "call.yml";

/// The calls that are served, when some are: where issuers are configured, unless `serve.calls` says otherwise.
///
/// # Errors
/// An issuer that cannot be used, calls that are wanted where nobody could make one, or a tool that no machine can call.
pub(super) fn configured(
    app: &App,
    wiring: &Wiring,
    catalog: &Catalog,
    address: Option<SocketAddr>,
) -> Result<Option<(Calls, Issuers)>, Problem> {
    let config = &app.loaded.config;
    let Some(address) = address else { return Ok(None) };
    if !config.serve.calls.unwrap_or(!config.auth.issuers.is_empty()) {
        return Ok(None);
    }
    let mut issuers = Issuers::new(config.auth.issuers.clone(), wiring.clone());
    let authority = issuers.look()?.unwrap_or_default();
    if authority.is_empty() {
        let message = "`serve.calls` is true, and there is nobody whose token would be taken";
        return Err(Problem::new(Exit::Invalid, "cli.config", message)
            .detail("key", "serve.calls")
            .hint("configure `[auth.issuers]`; there are no calls without a token, on the loopback neither"));
    }
    let contracts: BTreeMap<Name, Contract> =
        wire::contracts(catalog).into_iter().map(|contract| (contract.name.clone(), contract)).collect();
    let is_tool = |name: &Name| !config.actions.contains_key(&**name);
    let tools = contracts.iter().filter(|(name, _)| is_tool(name));
    let tools = tools.map(|(name, contract)| Ok((name.clone(), callable(contract, &contracts)?)));
    let hosts = match config.serve.hosts.is_empty() {
        true => hosts_of(address.ip()),
        false => config.serve.hosts.clone(),
    };
    let calls = Calls {
        authority,
        tools: tools.collect::<Result<_, Problem>>()?,
        ceilings: config.limits.ceilings(),
        hosts,
        url: config.serve.url.as_deref().map(url).transpose()?,
        commits: Arc::new(Commits::default()),
    };
    Ok(Some((calls, issuers)))
}

/// What observes the engine of a process that serves these calls.
pub(super) fn observer(calls: Option<&(Calls, Issuers)>) -> Arc<dyn Observer> {
    calls.map_or_else(|| Arc::new(Silent) as Arc<dyn Observer>, |(calls, _)| Arc::clone(&calls.commits) as _)
}

/// An address of this server: scheme and host, and a port where it has one.
fn url(text: &str) -> Result<String, Problem> {
    let url = text.strip_suffix('/').unwrap_or(text);
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    if !host.is_empty() && host.bytes().all(is_host) {
        return Ok(url.to_owned());
    }
    Err(Problem::new(Exit::Invalid, "cli.config", "`serve.url` is no address of a server")
        .detail("key", "serve.url")
        .hint("write scheme and host, such as `https://tools.acme.io`, without a path"))
}

/// A tool with the machine that calls it.
fn callable(contract: &Contract, contracts: &BTreeMap<Name, Contract>) -> Result<Callable, Problem> {
    let document = json!({
        "spec": "flatmachine",
        "spec_version": "4.2.1",
        "data": {
            "name": format!("call {}", contract.name),
            // One state, so that nothing but the call itself is put to the rules.
            "states": {
                "call": {
                    "type": "final",
                    "action": &*contract.name,
                    "arguments": "input.arguments",
                    "output": { "result": "output" },
                },
            },
        },
    });
    let verifier = match &contract.on_unknown {
        OnUnknown::Verify { tool } => contracts.get(tool),
        OnUnknown::Ask | OnUnknown::Fail => None,
    };
    let tools = [contract].into_iter().chain(verifier.filter(|verifier| verifier.name != contract.name));
    let options = LoadOptions { tools: tools.cloned().collect(), ..LoadOptions::default() };
    let files = MemoryFiles::new().with(ENTRY, document.to_string());
    let loaded = load(&files, ENTRY, &options).map_err(|found| {
        Problem::bug(format!("no machine can call the tool `{}`: {}", contract.name, render_all(&found)))
    })?;
    Ok(Callable { contract: contract.clone(), bundle: loaded.bundle, program: loaded.program })
}

/// What is served, and what keeps its records until the process is told to stop.
pub(super) struct Serving {
    /// For the router.
    pub(super) api: Option<Arc<Api>>,
    keeping: Option<tokio::task::JoinHandle<()>>,
    following: Option<tokio::task::JoinHandle<()>>,
}

impl Serving {
    pub(super) fn begin(engine: &Engine, metrics: &Arc<Metrics>, calls: Option<(Calls, Issuers)>, stop: &Stop) -> Self {
        let Some((calls, issuers)) = calls else { return Self { api: None, keeping: None, following: None } };
        let api = Api::new(engine.clone(), Arc::clone(metrics), calls, stop.clone());
        let keeping = tokio::spawn({
            let api = Arc::clone(&api);
            async move { api.keep_records().await }
        });
        let following = tokio::spawn({
            let api = Arc::clone(&api);
            issuers.follow(LOOK_EVERY, move |authority| api.trust(authority))
        });
        Self { api: Some(api), keeping: Some(keeping), following: Some(following) }
    }

    /// Waits until what was refused is written down. It bounds its own time.
    pub(super) async fn end(self) {
        if let Some(following) = self.following {
            following.abort();
        }
        if let Some(keeping) = self.keeping {
            let _ended = keeping.await;
        }
    }
}
