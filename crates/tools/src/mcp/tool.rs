//! A tool of a server as a tool of the engine, and the servers of a configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use reqwest::header::HeaderMap;
use serde_json::Map;
use windlass_core::contract::{Class, Contract, Flow, Idempotency, OnUnknown, TIMEOUT_MS_DEFAULT};
use windlass_core::failure::{Code, Failure};
use windlass_core::limits::VALUE_BYTES_MAX;
use windlass_core::trace::carried;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Invocation, Permit, Tool};

use crate::address;
use crate::build::{COST_WEIGHT_MAX, Site, TIMEOUT_MS_MAX, declassified, paths, pointers};
use crate::command;
use crate::config::{RedactConfig, SecretRef};
use crate::headers::headers;
use crate::limits::{self, OnLarge};
use crate::mcp::client::{Asking, Client, Wire};
use crate::mcp::definition::Definition;
use crate::mcp::exchange::{Local, Trouble};
use crate::mcp::heard::Asked;
use crate::mcp::http::Http;
use crate::mcp::listing::PAGE_BYTES_MAX;
use crate::mcp::oauth::{self, Oauth};
use crate::mcp::params::Mirrored;
use crate::mcp::protocol::IDEMPOTENCY_KEY;
use crate::mcp::result;
use crate::mcp::server::Server;
use crate::mcp::settings::{ContractConfig, McpConfig};
use crate::mcp::stdio::Stdio;
use crate::mcp::told::Told;
use crate::mcp::{McpError, suspicious};
use crate::role::{Caller, Role};
use crate::sandbox::SandboxConfig;
use crate::terms::Said;

/// Characters of a server's name.
const SERVER_NAME_CHARS_MAX: usize = 32;
/// Bytes of a line beside the result in it.
const ENVELOPE_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug)]
struct McpTool {
    contract: Contract,
    caller: Caller,
    accepted: Definition,
    server: Arc<Server>,
}

impl Tool for McpTool {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        async move {
            let timeout_ms = invocation.timeout_ms.min(self.contract.timeout_ms);
            let asked = Arc::new(AtomicBool::new(false));
            let work = self.attempt(invocation, asked.clone());
            match tokio::time::timeout(Duration::from_millis(timeout_ms), work).await {
                Ok(result) => result,
                Err(_) if asked.load(Ordering::Acquire) => Err(self.caller.timed_out(timeout_ms)),
                Err(_) => Err(McpError(Trouble::TimedOut(timeout_ms)).before(&self.caller)),
            }
        }
        .boxed()
    }
}

impl McpTool {
    async fn attempt(&self, invocation: Invocation, asked: Arc<AtomicBool>) -> Result<Value, Failure> {
        let arguments = match &invocation.arguments {
            Value::Null => serde_json::Value::Object(Map::new()),
            Value::Map(_) => serde_json::to_value(&invocation.arguments).unwrap_or_default(),
            other => {
                let message = format!("the arguments are a {}, not a mapping", other.type_name());
                return Err(Failure::new(Code::ToolBadArguments, message));
            }
        };
        self.server.check(&self.caller, &self.accepted, invocation.attempt).await?;
        let (whose, mut meta) = (Asked::by(&invocation), Map::new());
        for (name, value) in carried(&invocation.idempotency_key, invocation.trace.as_ref()) {
            meta.insert(name.into(), value.into());
        }
        meta.insert(IDEMPOTENCY_KEY.into(), invocation.idempotency_key.into());
        let bytes_max = invocation.output_bytes_max.min(self.contract.output_bytes_max);
        let permit = invocation.permit;
        // Asked right before the first byte: from then on the call may have happened.
        let permit = Permit::new(move || {
            let holds = permit.holds();
            asked.fetch_or(holds, Ordering::AcqRel);
            holds
        });
        let (repeatable, headers) = (self.caller.repeatable, HeaderMap::new());
        let asking = Asking { permit, bytes_max, repeatable, headers, asked: Some(whose) };
        let answered = self.server.client.call(&self.accepted, arguments, meta, asking).await;
        let raw = answered.map_err(|trouble| McpError(trouble).failure(&self.caller, bytes_max))?;
        result::value(&self.caller, &raw)
    }
}

/// The server of a table.
pub(crate) fn server(site: &mut Site<'_>, table: &McpConfig) -> Option<Arc<Server>> {
    check_name(site);
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if table.prefix.as_ref().is_some_and(|prefix| !prefix.chars().all(fits)) {
        site.wrong("prefix", "a prefix has letters, digits, `_` and `-`", None);
    }
    for (name, contract) in &table.tools {
        bounds(site, name, contract);
    }
    let local = Arc::new(Local::new(site.name, table.elicitation.unwrap_or_default(), site.quarantine()));
    let (wire, oauth) = match (&table.command, &table.url) {
        (Some(_), None) => (stdio(site, table, local.clone())?, None),
        (None, Some(_)) => http(site, table, local.clone())?,
        (None, None) => {
            site.wrong("command", "`command` or `url` is missing", None);
            return None;
        }
        (Some(_), Some(_)) => {
            site.wrong("url", "`command` and `url` exclude each other", None);
            return None;
        }
    };
    let client =
        Client::new(local, wire, table.protocol.unwrap_or_default(), oauth, Told::new(&site.known(&secrets(table))));
    Some(Arc::new(Server::new(site.name, client, table.list_ttl_ms_max, site.quarantine())))
}

/// Every secret that a table names.
fn secrets(table: &McpConfig) -> Vec<&SecretRef> {
    let maps = [&table.secret_env, &table.secret_headers].into_iter().flatten().flat_map(BTreeMap::values);
    let of_client = table.oauth.as_ref().and_then(|oauth| oauth.client_secret.as_ref());
    maps.chain(&table.api_key).chain(of_client).collect()
}

fn check_name(site: &mut Site<'_>) {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if site.name.is_empty() || site.name.len() > SERVER_NAME_CHARS_MAX || !site.name.chars().all(fits) {
        let message = format!("a server's name has 1 to {SERVER_NAME_CHARS_MAX} small letters, digits, `_` and `-`");
        site.wrong("", message, None);
    }
}

fn bounds(site: &mut Site<'_>, name: &str, contract: &ContractConfig) {
    let name = suspicious::visible(name);
    let before = format!("tools.{name}.");
    pointers(site, &before, "secret", contract.secret.as_deref());
    pointers(site, &before, "declassified", contract.declassified.as_deref());
    RedactConfig::check(site, &before, contract.redact.as_ref());
    for (key, given, most) in [
        ("timeout_ms", contract.timeout_ms, TIMEOUT_MS_MAX),
        ("output_bytes_max", contract.output_bytes_max, VALUE_BYTES_MAX as u64),
        ("cost_weight", contract.cost_weight.map(Into::into), COST_WEIGHT_MAX.into()),
        ("latency_ms", contract.latency_ms, contract.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT)),
    ] {
        if given.is_some_and(|number| !(1..=most).contains(&number)) {
            site.wrong(&format!("tools.{name}.{key}"), format!("must be from 1 to {most}"), None);
        }
    }
    let mut below = site.below(&before);
    Said::by_mcp(contract).check(&mut below);
    limits::check(&mut below, contract.limits.as_ref(), contract.class.unwrap_or(Class::Write));
}

fn stdio(site: &mut Site<'_>, table: &McpConfig, local: Arc<Local>) -> Option<Wire> {
    let given = [
        ("api_key", table.api_key.is_some()),
        ("headers", table.headers.is_some()),
        ("secret_headers", table.secret_headers.is_some()),
        ("oauth", table.oauth.is_some()),
    ];
    misplaced(site, "url", &given);
    let default = SandboxConfig::server();
    let sandbox = table.sandbox.as_ref();
    let program = command::program(site, &command::Table::from(table), sandbox.or(Some(&default)), sandbox.is_some())?;
    let results = table.tools.values().filter_map(|contract| contract.output_bytes_max);
    let most = results.max().unwrap_or(0).max(Contract::undeclared("").output_bytes_max).max(PAGE_BYTES_MAX);
    Some(Wire::Stdio(Arc::new(Stdio::new(program, local, most + ENVELOPE_BYTES_MAX))))
}

fn http(site: &mut Site<'_>, table: &McpConfig, local: Arc<Local>) -> Option<(Wire, Option<Oauth>)> {
    let given = [
        ("dir", table.dir.is_some()),
        ("pass_env", table.pass_env.is_some()),
        ("env", table.env.is_some()),
        ("secret_env", table.secret_env.is_some()),
        ("sandbox", table.sandbox.is_some()),
    ];
    misplaced(site, "command", &given);
    let headers = headers(site, table.api_key.as_ref(), table.headers.as_ref(), table.secret_headers.as_ref(), &[]);
    let url = address::address(site, table.url.as_deref()?)?;
    let oauth = Oauth::new(site.clients(), url.clone(), oauth(site, table));
    Some((Wire::Http(Arc::new(Http::new(site.clients(), url, headers, local))), Some(oauth)))
}

fn oauth(site: &mut Site<'_>, table: &McpConfig) -> oauth::Settings {
    let Some(given) = &table.oauth else { return oauth::Settings::default() };
    if given.client_secret.is_some() && given.client_id.is_none() {
        site.wrong("oauth.client_id", "`client_id` is missing", None);
    }
    if table.api_key.is_some() {
        site.wrong("oauth", "`api_key` and `oauth` exclude each other", None);
    }
    oauth::Settings {
        client_id: given.client_id.clone(),
        client_secret: given.client_secret.as_ref().and_then(|secret| site.secret("oauth.client_secret", secret)),
        issuer: given.issuer.clone(),
        hosts: given.hosts.clone().unwrap_or_default(),
        scopes: given.scopes.clone().unwrap_or_default(),
    }
}

fn misplaced(site: &mut Site<'_>, with: &str, given: &[(&str, bool)]) {
    for (key, _) in given.iter().filter(|(_, is_given)| *is_given) {
        site.wrong(key, format!("has a meaning for a server with `{with}` only"), None);
    }
}

/// The tools of a server, one for each definition that was accepted, by the names under which machines know them.
pub(crate) fn tools(
    site: &mut Site<'_>,
    table: &McpConfig,
    server: &Arc<Server>,
    accepted: &BTreeMap<String, Definition>,
) -> Vec<(String, Arc<dyn Tool>)> {
    let undeclared = ContractConfig::default();
    let mut tools: Vec<(String, Arc<dyn Tool>)> = Vec::new();
    for (name, definition) in accepted {
        let declared = table.tools.get(name).unwrap_or(&undeclared);
        if let Some(given) = declared.declassified.as_deref() {
            let before = format!("tools.{}.", suspicious::visible(name));
            declassified(site, &before, Some(given), &schema(definition.output_schema()));
        }
        let visible = visible_name(site.name, table, name);
        let contract = contract(&visible, definition, declared);
        let said = Said::by_mcp(declared);
        let mut below = site.below(&format!("tools.{}.", suspicious::visible(name)));
        let is_hidden = |one: &&Mirrored| contract.redact.arguments.iter().any(|path| one.is_reached(path));
        for one in definition.mirrored.iter().filter(is_hidden) {
            let hint = "do not hide it, or do not accept the tool";
            below.wrong("redact.arguments", format!("{}, which is not hidden", one.said()), Some(hint));
        }
        said.check_plan_argument(&mut below, "plan", Some(definition.input_schema()));
        said.check_resources(&mut below, Some(definition.input_schema()));
        if below.requires_contracts() {
            said.check_declared(&mut below, !contract.description.trim().is_empty(), true);
        }
        if below.requires_guards() {
            said.check_guarded(&mut below);
        }
        let caller = Caller::of(&contract, Role::Tool);
        let (accepted, server) = (definition.clone(), server.clone());
        let tool = Arc::new(McpTool { contract: contract.clone(), caller, accepted, server });
        let config = declared.limits.clone().unwrap_or_default();
        tools.push((visible, limits::wrapped(tool, contract, &config, OnLarge::Refuse, Role::Tool)));
    }
    tools
}

/// The name under which machines know a tool of a server.
pub(crate) fn visible_name(server: &str, table: &McpConfig, tool: &str) -> String {
    if let Some(name) = table.tools.get(tool).and_then(|contract| contract.name.as_ref()) {
        return name.clone();
    }
    let prefix = table.prefix.clone().unwrap_or_else(|| format!("{server}__"));
    format!("{prefix}{}", tool.replace(['.', '/'], "_"))
}

fn contract(name: &str, definition: &Definition, declared: &ContractConfig) -> Contract {
    let (base, said) = (Contract::undeclared(name), Said::by_mcp(declared));
    let shown = || suspicious::visible(definition.description());
    Contract {
        description: declared.description.clone().unwrap_or_else(shown).into(),
        input_schema: schema(definition.input_schema()),
        output_schema: schema(definition.output_schema()),
        class: declared.class.unwrap_or(Class::Write),
        idempotency: declared.idempotency.unwrap_or(Idempotency::None),
        on_unknown: declared.on_unknown.as_ref().map_or(OnUnknown::Ask, |rule| rule.lower()),
        timeout_ms: declared.timeout_ms.unwrap_or(base.timeout_ms),
        output_bytes_max: declared.output_bytes_max.unwrap_or(base.output_bytes_max),
        cost_weight: declared.cost_weight.unwrap_or(base.cost_weight),
        latency_ms: declared.latency_ms,
        flow: Flow {
            trusted: declared.trusted.unwrap_or_default(),
            foreign: !declared.trusted.unwrap_or_default(),
            secret: paths(declared.secret.as_deref()),
            declassified: paths(declared.declassified.as_deref()),
        },
        redact: RedactConfig::lower(declared.redact.as_ref()),
        approval: said.approval(),
        plan: said.planning(),
        shadow: said.shadow(),
        errors: said.errors(),
        resources: said.resources(),
        ..base
    }
}

/// A schema as a contract has it: one that accepts anything is null.
fn schema(schema: &serde_json::Value) -> Value {
    if schema.as_object().is_some_and(Map::is_empty) { Value::Null } else { schema.clone().into() }
}
