//! The client side of the official conformance suite of MCP: does with a server what each scenario asks for, by the client
//! that tools use. `cargo xtask ci mcp` runs it.
//!
//! The address is the last argument; the suite says in the environment which scenario it plays and which revision it
//! speaks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use windlass_ports::BoxFuture;
use windlass_tools::mcp::{Client, Person, Server};
use windlass_tools::{CatalogConfig, Surroundings, WorkPools, build_servers};

type Failure = Box<dyn std::error::Error>;

/// How long a scenario may take in all; the suite waits for 30 s.
const TIME: Duration = Duration::from_secs(25);
/// How long the stream that a server offers is listened to where the scenario is about it.
const LISTEN: Duration = Duration::from_secs(5);

/// A person who consents to everything at once.
#[derive(Debug)]
struct Consenting(reqwest::Client);

impl Person for Consenting {
    fn redirect_uri(&self) -> String {
        "http://localhost:3000/callback".into()
    }

    fn client_metadata_url(&self) -> Option<String> {
        Some("https://conformance-test.local/client-metadata.json".into())
    }

    fn visit(&self, address: String) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move {
            let response = self.0.get(address).send().await.map_err(|error| error.to_string())?;
            let place = response.headers().get("location").and_then(|place| place.to_str().ok());
            place.map(str::to_owned).ok_or_else(|| format!("the issuer answered {}", response.status()))
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // Fails when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let address = std::env::args().next_back().ok_or("no address")?;
    let scenario = variable("MCP_CONFORMANCE_SCENARIO").unwrap_or_default();
    let context: Value = match variable("MCP_CONFORMANCE_CONTEXT") {
        Some(text) => serde_json::from_str(&text)?,
        None => Value::Null,
    };
    tokio::time::timeout(TIME, play(&address, &scenario, &context)).await.map_err(|_| "out of time")?
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The server as a table of the configuration would have it.
fn server(address: &str, context: &Value) -> Result<Arc<Server>, Failure> {
    let mut table = toml::Table::new();
    table.insert("url".into(), address.into());
    table.insert("elicitation".into(), "defaults".into());
    table.insert("protocol".into(), protocol().into());
    if let Some(id) = context.get("client_id").and_then(Value::as_str) {
        let mut oauth = toml::Table::new();
        oauth.insert("client_id".into(), id.into());
        if context.get("client_secret").is_some() {
            oauth.insert("client_secret".into(), "env:SECRET".into());
        }
        table.insert("oauth".into(), oauth.into());
    }
    let mut servers = toml::Table::new();
    servers.insert("suite".into(), table.into());
    let mut config = toml::Table::new();
    config.insert("mcp".into(), servers.into());
    let config: CatalogConfig = config.try_into()?;
    let secret = context.get("client_secret").and_then(Value::as_str).map(|text| text.to_owned().into());
    let pools = WorkPools::default();
    let surroundings = Surroundings {
        folder: Path::new("."),
        environment: &|name| std::env::var_os(name),
        secret: &|_| secret.clone(),
        require_contracts: false,
        require_guards: false,
        pools: &pools,
        quarantine: &windlass_tools::mcp::Quarantine::default(),
    };
    Ok(build_servers(&config, &surroundings)?.remove("suite").ok_or("no server")?)
}

fn protocol() -> &'static str {
    match variable("MCP_CONFORMANCE_PROTOCOL_VERSION").as_deref() {
        Some(version) if version < "2026" => "2025-11-25",
        _ => "auto",
    }
}

async fn play(address: &str, scenario: &str, context: &Value) -> Result<(), Failure> {
    let server = server(address, context)?;
    let client = &server.client;
    if !scenario.starts_with("auth/client-credentials") {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        client.meet(Arc::new(Consenting(http)));
    }
    // One list for what a scenario changes between two looks, and one for what it does not.
    let mut listing = client.list_tools().await?;
    if scenario == "auth/authorization-server-migration" {
        listing = client.list_tools().await?;
        client.list_tools().await?;
    }
    let asked = context.get("toolCalls").or_else(|| context.get("tool_calls")).and_then(Value::as_array);
    match asked {
        Some(calls) => {
            for call in calls {
                let name = call.get("name").and_then(Value::as_str).unwrap_or_default();
                let arguments = call.get("arguments").cloned().unwrap_or_else(|| Map::new().into());
                let tool = listing.tools.get(name).ok_or_else(|| format!("the server shows no tool `{name}`"))?;
                client.call_tool(tool, arguments).await?;
            }
        }
        None => {
            for tool in listing.tools.values() {
                if let Err(error) = client.call_tool(tool, arguments(tool.input_schema())).await {
                    // A scenario may be about a call that is refused; the suite judges what it saw.
                    tracing::warn!(tool = tool.name, %error, "a call failed");
                }
            }
        }
    }
    if scenario == "sse-retry" {
        tokio::time::sleep(LISTEN).await;
    }
    end(client).await;
    Ok(())
}

async fn end(client: &Client) {
    client.end().await;
}

/// Arguments that fit a schema: a value for everything that must be there.
fn arguments(schema: &Value) -> Value {
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let value = |name: &str| match schema.pointer(&format!("/properties/{name}/type")).and_then(Value::as_str) {
        Some("string") => "test".into(),
        Some("number") => 1.0.into(),
        Some("integer") => 1.into(),
        Some("boolean") => true.into(),
        Some("array") => Value::Array(Vec::new()),
        Some("object") => Map::new().into(),
        _ => Value::Null,
    };
    required.map(|name| (name.to_owned(), value(name))).collect::<Map<String, Value>>().into()
}
