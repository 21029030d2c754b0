//! Tests of the adapters against real processes and a real server on the loopback.

mod agents;
mod command;
mod conformance;
mod config;
mod death;
mod examples;
mod function;
mod http;
mod mcp;
mod corpus;
mod outbound;
mod pools;
mod sandbox;
mod server;
mod webhook;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use secrecy::SecretString;
use windlass_core::ids::RunId;
use windlass_core::value::Value;
use windlass_ports::tool::{Catalog, Invocation, Tool};
use windlass_tools::mcp::Quarantine;
use windlass_tools::{CatalogConfig, ConfigError, Surroundings, build_catalog};

/// Builds a catalog from TOML. The environment has `PATH` and `LD_PRELOAD`, the secrets `env:KEY`.
fn catalog_in(folder: &Path, toml: &str) -> Result<Catalog, ConfigError> {
    build(folder, toml, false)
}

fn build(folder: &Path, toml: &str, require_contracts: bool) -> Result<Catalog, ConfigError> {
    let config: CatalogConfig = toml::from_str(toml).expect("a configuration");
    with_surroundings(folder, require_contracts, |surroundings| build_catalog(&config, surroundings))
}

/// The same where everything is demanded that production demands.
fn build_guarded(folder: &Path, toml: &str) -> Result<Catalog, ConfigError> {
    let config: CatalogConfig = toml::from_str(toml).expect("a configuration");
    with_surroundings(folder, true, |surroundings| {
        build_catalog(&config, &Surroundings { require_guards: true, ..*surroundings })
    })
}

fn with_surroundings<T>(folder: &Path, require_contracts: bool, work: impl FnOnce(&Surroundings<'_>) -> T) -> T {
    let environment = |name: &str| match name {
        "PATH" => std::env::var_os("PATH"),
        "LD_PRELOAD" => Some(OsString::from("/nowhere.so")),
        _ => None,
    };
    let secret = |name: &str| (name == "env:KEY").then(|| SecretString::from("s3cret-key"));
    let pools = windlass_tools::WorkPools::default();
    let quarantine = Quarantine::default();
    let (environment, secret, pools, quarantine) = (&environment, &secret, &pools, &quarantine);
    work(&Surroundings { folder, environment, secret, require_contracts, require_guards: false, pools, quarantine })
}

fn catalog(toml: &str) -> Catalog {
    catalog_in(Path::new("/"), toml).expect("a catalog")
}

fn tool(catalog: &Catalog, name: &str) -> Arc<dyn Tool> {
    catalog.tools.get(name).expect("the tool").clone()
}

fn json(text: &str) -> Value {
    Value::from_json(text).expect("JSON")
}

fn call(arguments: &str) -> Invocation {
    Invocation {
        name: "t".into(),
        arguments: json(arguments),
        idempotency_key: "run-1#7".into(),
        trace: None,
        run: RunId::stored("run-1"),
        tenant: "default".into(),
        attempt: 1,
        timeout_ms: 20_000,
        output_bytes_max: 100_000,
        permit: Default::default(),
    }
}
