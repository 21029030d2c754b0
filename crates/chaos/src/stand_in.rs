//! The configuration of a worker in which every tool, action and hook of a bundle is played by the counting server, under
//! the contract that the bundle has. Nothing outside of this host is called.

use std::path::PathBuf;

use serde_json::{Map, Value as Json, json};
use windlass_core::contract::{Contract, OnUnknown};
use windlass_ports::compile::Bundle;
use windlass_ports::tool::Catalog;

use crate::machine::PROVIDER;

/// Hooks that every worker has without configuration.
const BUILT_IN: [&str; 3] = ["logging", "metrics", "distributed-worker"];

/// Who answers for models.
#[derive(Clone, Debug)]
pub enum Models {
    /// The counting server, for the provider of the machine that comes with this crate.
    Counted,
    /// A script, for every provider.
    Scripted(PathBuf),
}

/// The text of a worker's configuration. `base` is where the counting server takes this worker's calls.
#[must_use]
pub fn configuration(bundle: &Bundle, models: &Models, base: &str) -> String {
    let tools: Map<String, Json> =
        bundle.tools.iter().map(|contract| (contract.name.to_string(), tool(contract, base))).collect();
    let hooks =
        bundle.hooks.iter().filter(|(name, _)| !BUILT_IN.contains(&name.as_str()) && *name != Catalog::ADDRESSED);
    let hooks: Map<String, Json> = hooks
        .map(|(name, events)| {
            let events: Vec<&str> = events.iter().map(|event| event.as_str()).collect();
            let place = if name == "*" { "every" } else { name };
            (name.clone(), json!({"type": "webhook", "url": format!("{base}/hooks/{place}"), "events": events}))
        })
        .collect();
    let providers = match models {
        Models::Counted => json!({PROVIDER: {"kind": "openai", "base_url": format!("{base}/v1")}}),
        Models::Scripted(script) => json!({"*": {"kind": "scripted", "script": script}}),
    };
    let table = json!({"providers": providers, "tools": tools, "hooks": hooks, "worker": {"grace": "5s"}});
    // Tables of plain values can be written as TOML, whatever their keys are.
    toml::to_string(&table).unwrap_or_default()
}

fn tool(contract: &Contract, base: &str) -> Json {
    let on_unknown = match &contract.on_unknown {
        OnUnknown::Ask => json!("ask"),
        OnUnknown::Fail => json!("fail"),
        OnUnknown::Verify { tool } => json!({"verify": tool}),
    };
    json!({
        "type": "http",
        "method": "POST",
        "url": format!("{base}/tools/{}", contract.name),
        "arguments": "body",
        "class": contract.class,
        "idempotency": contract.idempotency,
        "on_unknown": on_unknown,
        "timeout_ms": contract.timeout_ms,
        "output_bytes_max": contract.output_bytes_max,
    })
}

/// The tools of a bundle that say whether another call happened.
pub fn verifiers(bundle: &Bundle) -> impl Iterator<Item = &str> {
    bundle.tools.iter().filter_map(|contract| match &contract.on_unknown {
        OnUnknown::Verify { tool } => Some(&**tool),
        OnUnknown::Ask | OnUnknown::Fail => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_sends_everything_to_the_counting_server() {
        let contract =
            Contract { on_unknown: OnUnknown::Verify { tool: "sure".into() }, ..Contract::undeclared("pay") };
        let mut bundle = Bundle { tools: vec![contract, Contract::undeclared("sure")], ..Bundle::default() };
        bundle.hooks.insert("*".into(), Vec::new());
        bundle.hooks.insert("logging".into(), Vec::new());
        let text = configuration(&bundle, &Models::Counted, "http://127.0.0.1:5/w/1.0");
        let table: toml::Table = text.parse().expect("TOML");
        assert_eq!(table["tools"]["pay"]["url"].as_str(), Some("http://127.0.0.1:5/w/1.0/tools/pay"));
        assert_eq!(table["tools"]["pay"]["on_unknown"]["verify"].as_str(), Some("sure"));
        assert_eq!(table["hooks"]["*"]["url"].as_str(), Some("http://127.0.0.1:5/w/1.0/hooks/every"));
        assert!(table["hooks"].get("logging").is_none(), "every worker has it");
        assert_eq!(verifiers(&bundle).collect::<Vec<_>>(), ["sure"]);
    }
}
