//! MCP servers: pins, both eras, both transports, and what hostile ones try.

mod hostile;
mod stdio;
mod web;

use std::path::Path;
use std::sync::Arc;

use windlass_core::failure::Failure;
use windlass_core::value::Value;
use windlass_ports::tool::Tool;
use windlass_tools::CatalogConfig;
use windlass_tools::mcp::{Pins, Standing};

use crate::{call, catalog_in, with_surroundings};

/// The definition of the tool `subject`.
pub(crate) const SUBJECT: &str = r#"{"name":"subject","description":"Does it.","inputSchema":{"type":"object"}}"#;

/// Accepts everything that the servers of a configuration show, as `windlass tools accept` does.
pub(crate) async fn accept(folder: &Path, toml: &str) {
    let config: CatalogConfig = toml::from_str(toml).expect("a configuration");
    let servers = with_surroundings(folder, false, |surroundings| {
        windlass_tools::build_servers(&config, surroundings).expect("servers")
    });
    let mut pins = Pins::load(folder).expect("pins");
    for (name, server) in servers {
        let standings = server.standings(&pins, 20_000).await.expect("a list of tools");
        for (tool, standing) in standings {
            if let Standing::New(definition) | Standing::Changed(definition, _) = standing {
                pins.servers.entry(name.clone()).or_default().insert(tool, definition);
            }
        }
        server.client.end().await;
    }
    pins.save(folder).expect("a file");
}

/// A tool of a configuration whose servers' tools were accepted.
pub(crate) async fn accepted(folder: &Path, toml: &str, name: &str) -> Arc<dyn Tool> {
    accept(folder, toml).await;
    crate::tool(&catalog_in(folder, toml).expect("a catalog"), name)
}

pub(crate) async fn ask(tool: &Arc<dyn Tool>) -> Result<Value, Failure> {
    tool.call(call(r#"{"a":1}"#)).await
}
