//! `windlass diagnostics`: what someone needs to help, without keys, prompts or data of runs.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};
use windlass::wire::Wiring;
use windlass_core::journal;
use windlass_core::machine::Machine;
use windlass_core::redact;
use windlass_core::snapshot;
use windlass_spec::diagnostics::Diagnostic;

use crate::app::App;
use crate::args;
use crate::config::unknown_variables;
use crate::documents;
use crate::exit::{Exit, Problem};
use crate::process;
use crate::session;

/// Prints one document.
pub(crate) async fn diagnostics(app: &App, args: args::Diagnostics) -> Result<Exit, Problem> {
    let config = &app.loaded.config;
    let store = match app.readable_store().await {
        Ok(None) => json!({ "url": app.shown_store(), "exists": false }),
        Ok(Some(store)) => match store.stats().await {
            Ok(stats) => json!({ "url": app.shown_store(), "exists": true, "stats": stats }),
            Err(error) => json!({ "url": app.shown_store(), "exists": true, "error": error.to_string() }),
        },
        Err(problem) => json!({ "url": app.shown_store(), "error": problem.message }),
    };
    let secrets = session::secrets(app);
    let providers: BTreeMap<&str, Json> = config
        .providers
        .iter()
        .map(|(name, provider)| {
            let key = provider.key_env.clone().unwrap_or_else(|| windlass_models::keys::variable(name));
            let kept = || provider.key_secret.as_ref().is_some_and(|name| secrets.value(name).is_some());
            let is_set = provider.key_file.is_some()
                || kept()
                || std::env::var_os(&key).is_some_and(|value| !value.is_empty());
            (name.as_str(), json!({ "kind": provider.kind, "base_url": provider.base_url.as_deref().map(redact::address), "has_key": is_set }))
        })
        .collect();
    let wiring = Wiring { needs_secrets: false, ..session::wiring(app, Path::new("")) };
    let catalog = match wiring.catalog() {
        Ok(catalog) => json!({
            "hooks": windlass::wire::hook_events(&catalog),
            "tools": windlass::wire::contracts(&catalog).iter().map(|tool| json!({
                "name": &*tool.name, "class": tool.class, "idempotency": tool.idempotency, "timeout_ms": tool.timeout_ms,
            })).collect::<Vec<_>>(),
        }),
        Err(error) => json!({ "error": error.message }),
    };
    let machine = args.machine.as_ref().map(|path| summary(app, path, &wiring));
    app.output.document(&json!({
        "windlass": env!("CARGO_PKG_VERSION"),
        "formats": { "journal": journal::FORMAT, "snapshot": snapshot::FORMAT },
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "processors": std::thread::available_parallelism().map(std::num::NonZero::get).ok(),
        "rss_mb": process::resident_bytes_peak().map(process::megabytes),
        "config": {
            "file": app.loaded.file.as_ref().map(|file| file.display().to_string()),
            "values": redacted(app),
            "unknown_variables": unknown_variables(),
        },
        "store": store,
        "providers": providers,
        "catalog": catalog,
        "machine": machine,
    }));
    Ok(Exit::Ok)
}

/// The configuration, without values that people put secrets into although they should not.
fn redacted(app: &App) -> Vec<Json> {
    app.loaded
        .origins()
        .into_iter()
        .map(|origin| {
            let parts: Vec<&str> = origin.key.split('.').collect();
            let secret = parts.iter().any(|part| matches!(*part, "headers" | "env" | "command"));
            let is_address = parts.last().is_some_and(|part| matches!(*part, "url" | "endpoint"));
            let value = match origin.value {
                _ if secret => json!("[redacted]"),
                // The path of a webhook is often what lets one in.
                Json::String(address) if is_address => json!(host_of(&address)),
                value => value,
            };
            json!({ "key": origin.key, "value": value, "source": origin.source })
        })
        .collect()
}

/// An address up to its host.
fn host_of(address: &str) -> &str {
    let start = address.find("://").map_or(0, |at| at + 3);
    let end = address[start..].find(['/', '?', '#']).map_or(address.len(), |at| start + at);
    &address[..end]
}

fn summary(app: &App, path: &Path, wiring: &Wiring) -> Json {
    let Ok(catalog) = wiring.catalog() else { return Json::Null };
    let Ok(read) = documents::read(app, path, &documents::options(app, &catalog, false)) else { return Json::Null };
    match read {
        Err(found) => json!({ "path": path.display().to_string(), "valid": false, "diagnostics": places(&found) }),
        Ok(loaded) => json!({
            "path": path.display().to_string(),
            "valid": true,
            "bundle": loaded.program.bundle.to_string(),
            "files": loaded.bundle.files.keys().collect::<Vec<_>>(),
            "skills": loaded.bundle.skills.keys().collect::<Vec<_>>(),
            "warnings": places(&loaded.diagnostics),
            "machines": loaded.program.machines.values().map(|machine| shape(machine)).collect::<Vec<_>>(),
        }),
    }
}

/// Findings without the lines they are about, which may hold a key.
fn places(found: &[Diagnostic]) -> Vec<Json> {
    let place = |d: &Diagnostic| json!({ "code": d.code, "file": d.file, "line": d.line, "column": d.column });
    found.iter().map(place).collect()
}

fn shape(machine: &Machine) -> Json {
    json!({
        "key": &*machine.key,
        "name": &*machine.name,
        "spec_version": &*machine.spec_version,
        "states": machine.states.keys().map(|name| &**name).collect::<Vec<_>>(),
        "initial": &*machine.initial,
        "agents": machine.agents.values().map(|agent| json!({
            "name": &*agent.name, "provider": &*agent.model.provider, "model": &*agent.model.model,
        })).collect::<Vec<_>>(),
        "machines": machine.machines.keys().map(|name| &**name).collect::<Vec<_>>(),
        "ceilings": machine.ceilings,
    })
}
