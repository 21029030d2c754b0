//! Builds the catalog from the configuration and reports every mistake at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use reqwest::Url;
use secrecy::SecretString;
use windlass_core::bounded;
use windlass_core::contract::{Class, Contract, Flow, Idempotency, OnUnknown, TIMEOUT_MS_DEFAULT};
use windlass_core::ids::Name;
use windlass_core::label::pointer;
use windlass_core::limits::VALUE_BYTES_MAX;
use windlass_core::value::Value;
use windlass_ports::model::Model;
use windlass_ports::tool::{Catalog, Hook, Tool};

use crate::addressed::Addressed;
use crate::agents;
use crate::client::Clients;
use crate::config::{CatalogConfig, ConfigError, HookConfig, PlanConfig, Problem, RedactConfig, SecretRef, ToolConfig};
use crate::guard::{Guard, Host, Hosts, place};
use crate::kind::{ALL, Kind, Make};
use crate::limits;
use crate::mcp::{self, Pins, Quarantine, Server};
use crate::observer::Observer;
use crate::pools::{PoolHook, WorkPools};
use crate::role::Role;
use crate::terms::Said;

/// Time for one attempt at most, in milliseconds: a day.
pub const TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// What a call costs at most beside others.
pub(crate) const COST_WEIGHT_MAX: u32 = 1_000;
/// Length of a tool's name that providers take, in bytes.
const TOOL_NAME_BYTES_MAX: usize = 64;

/// What the configuration is read against. The caller owns the environment and the secrets.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The folder of the configuration file; relative paths start here.
    pub folder: &'a Path,
    /// An environment variable of this process, by name.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// The secret behind a reference `env:NAME`, `file:PATH` or `secret:NAME`.
    pub secret: &'a dyn Fn(&str) -> Option<SecretString>,
    /// Whether a tool or action without a class and an idempotency is refused, and a tool without a description or a schema
    /// of its arguments.
    pub require_contracts: bool,
    /// Whether a tool or action of class `danger` is refused that has no plan and asks nobody.
    pub require_guards: bool,
    /// The work pools of this process.
    pub pools: &'a WorkPools,
    /// What the processes of a store know about blocked tools of MCP servers.
    pub quarantine: &'a Quarantine,
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("folder", &self.folder)
            .field("require_contracts", &self.require_contracts)
            .field("require_guards", &self.require_guards)
            .finish_non_exhaustive()
    }
}

/// Builds every configured tool, action and hook, and the built-in observers.
///
/// # Errors
/// Every unknown type, misplaced key, missing key, wrong value and missing secret.
pub fn build_catalog(config: &CatalogConfig, surroundings: &Surroundings<'_>) -> Result<Catalog, ConfigError> {
    let mut problems = Vec::new();
    let clients = Arc::new(Clients::new(guarded(config, &mut problems)));
    let mut catalog = Catalog::default();
    for name in [crate::observer::LOGGING.name, crate::observer::METRICS.name] {
        catalog.hooks.insert(name.into(), Arc::new(Observer));
    }
    catalog.hooks.insert(crate::pools::KIND.name.into(), Arc::new(PoolHook(surroundings.pools.clone())));
    for (name, table) in &config.hooks {
        let mut site = Site::new("hooks", name, surroundings, &clients, &mut problems);
        if let Some(hook) = hook(&mut site, table) {
            catalog.hooks.insert(name.as_str().into(), hook);
        }
    }
    let addressed = Addressed::new(clients.clone(), catalog.hooks.get("*").cloned());
    catalog.hooks.insert(Catalog::ADDRESSED.into(), Arc::new(addressed));
    for (group, tables, role) in [("tools", &config.tools, Role::Tool), ("actions", &config.actions, Role::Hook)] {
        for (name, table) in tables {
            let mut site = Site::new(group, name, surroundings, &clients, &mut problems);
            if role == Role::Hook && config.tools.contains_key(name) {
                site.wrong(
                    "",
                    format!("`{name}` is the name of a tool too"),
                    Some("actions and tools share their names"),
                );
            }
            if let Some(tool) = tool(&mut site, table, role) {
                catalog.tools.insert(name.as_str().into(), tool);
            }
        }
    }
    mcp_tools(config, surroundings, &clients, &mut catalog, &mut problems);
    check_verifiers(config, &catalog, &mut problems);
    check_look_alikes(&catalog, &mut problems);
    if problems.is_empty() { Ok(catalog) } else { Err(ConfigError { problems }) }
}

/// Who decides about addresses that nobody who runs this process wrote. Entries that are none are named by
/// [`build_catalog`].
#[must_use]
pub fn guard(config: &CatalogConfig) -> Guard {
    guarded(config, &mut Vec::new())
}

fn guarded(config: &CatalogConfig, problems: &mut Vec<Problem>) -> Guard {
    let written = written(config, problems);
    let mut parsed = |key: &str, entries: &[String]| {
        let mut hosts = Vec::new();
        for entry in entries {
            match Host::parse(entry) {
                Some(host) => hosts.push(host),
                None => problems.push(Problem {
                    key: key.to_owned(),
                    message: format!("`{}` is no host", crate::answer::printable(entry)),
                    hint: Some("write `api.acme.com`, `api.acme.com:8443` or `*.acme.com`".into()),
                }),
            }
        }
        hosts
    };
    let outbound = &config.outbound;
    let all = outbound.hosts.as_deref().map(|entries| parsed("outbound.hosts", entries));
    let of_tenant = |(tenant, entries): (&String, &Vec<String>)| {
        (tenant.as_str().into(), parsed(&format!("outbound.tenants.{tenant}"), entries))
    };
    let of_tenants = outbound.tenants.iter().map(of_tenant).collect();
    Guard::default().allowing(written).among(Hosts { all, of_tenants })
}

/// The configured MCP servers, whether or not a tool of theirs was accepted. Nothing is connected.
///
/// # Errors
/// Every mistake in their tables.
pub fn build_servers(
    config: &CatalogConfig,
    surroundings: &Surroundings<'_>,
) -> Result<BTreeMap<String, Arc<Server>>, ConfigError> {
    let clients = Arc::new(Clients::default());
    let mut problems = Vec::new();
    let mut servers = BTreeMap::new();
    for (name, table) in &config.mcp {
        let mut site = Site::new("mcp", name, surroundings, &clients, &mut problems);
        if let Some(server) = mcp::tool::server(&mut site, table) {
            servers.insert(name.clone(), server);
        }
    }
    if problems.is_empty() { Ok(servers) } else { Err(ConfigError { problems }) }
}

/// The configured agents that are programs, as models. Nothing is started.
///
/// # Errors
/// Every mistake in their tables.
pub fn build_agents(
    config: &CatalogConfig,
    surroundings: &Surroundings<'_>,
) -> Result<BTreeMap<String, Arc<dyn Model>>, ConfigError> {
    let clients = Arc::new(Clients::default());
    let mut problems = Vec::new();
    let mut made = BTreeMap::new();
    for (name, table) in &config.agents_cli {
        let mut site = Site::new("agents_cli", name, surroundings, &clients, &mut problems);
        if let Some(agent) = agents::make(&mut site, table) {
            made.insert(name.clone(), agent);
        }
    }
    if problems.is_empty() { Ok(made) } else { Err(ConfigError { problems }) }
}

/// The accepted tools of the configured servers.
fn mcp_tools(
    config: &CatalogConfig,
    surroundings: &Surroundings<'_>,
    clients: &Arc<Clients>,
    catalog: &mut Catalog,
    problems: &mut Vec<Problem>,
) {
    if config.mcp.is_empty() {
        return;
    }
    let pins = match Pins::load(surroundings.folder) {
        Ok(pins) => pins,
        Err(error) => {
            let hint = "bring it back from version control; nothing runs on definitions that nobody accepted";
            problems.push(Problem { key: "mcp".into(), message: error.to_string(), hint: Some(hint.into()) });
            return;
        }
    };
    let none = BTreeMap::new();
    for (name, table) in &config.mcp {
        let mut site = Site::new("mcp", name, surroundings, clients, problems);
        let Some(server) = mcp::tool::server(&mut site, table) else { continue };
        let accepted = pins.servers.get(name).unwrap_or(&none);
        for (visible, tool) in mcp::tool::tools(&mut site, table, &server, accepted) {
            if !is_tool_name(&visible) {
                let message = format!("`{visible}` is no name that providers take: {}", tool_name_rule());
                site.wrong("tools", message, Some("give the tool another `name`"));
            } else if catalog.tools.contains_key(visible.as_str()) {
                let hint = "give one of them another `name`";
                site.wrong("tools", format!("another tool or action has the name `{visible}`"), Some(hint));
            } else {
                catalog.tools.insert(visible.as_str().into(), tool);
            }
        }
    }
}

/// Two tools whose names a reader could take for each other are refused, wherever they come from.
fn check_look_alikes(catalog: &Catalog, problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for name in catalog.tools.keys() {
        let shape: String = name
            .chars()
            .map(|c| match c.to_ascii_lowercase() {
                '0' => 'o',
                '1' | 'i' => 'l',
                '-' => '_',
                c => c,
            })
            .collect();
        if let Some(other) = seen.insert(shape, name) {
            let message = format!("the names `{other}` and `{name}` can be taken for each other");
            problems.push(Problem { key: format!("tools.{name}"), message, hint: Some("rename one of them".into()) });
        }
    }
}

/// Hosts and ports that the configuration names.
fn written(config: &CatalogConfig, problems: &mut Vec<Problem>) -> Vec<(String, u16)> {
    let hooks = config.hooks.values().filter_map(|table| table.url.as_deref().or(table.endpoint.as_deref()));
    let tools = config.tools.values().chain(config.actions.values()).filter_map(|table| table.url.as_deref());
    // A placeholder is never in the host or the port.
    let mut places: Vec<_> = hooks.chain(tools).filter_map(|url| place(&Url::parse(url).ok()?)).collect();
    for entry in &config.outbound.allow {
        let url = Url::parse(&format!("http://{entry}")).ok().filter(|url| url.path() == "/" && url.query().is_none());
        // The port of the scheme is dropped by the parser, so it is looked for in the text.
        let has_port = entry.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
        match url.and_then(|url| place(&url)).filter(|_| has_port && !entry.contains('@')) {
            Some(place) => places.push(place),
            None => problems.push(Problem {
                key: "outbound.allow".into(),
                message: format!("`{}` is no host with a port", crate::answer::printable(entry)),
                hint: Some("write `localhost:3000` or `[::1]:3000`".into()),
            }),
        }
    }
    places
}

fn hook(site: &mut Site<'_>, table: &HookConfig) -> Option<Arc<dyn Hook>> {
    let kind = site.kind(&table.kind, true)?;
    let most = Contract::hook(site.name);
    site.bounds(table.timeout_ms, most.timeout_ms, table.output_bytes_max, most.output_bytes_max);
    site.keys(kind, &table.special());
    match kind.make {
        Make::Hook(make) => make(site, table),
        Make::Tool(_) => None,
    }
}

fn tool(site: &mut Site<'_>, table: &ToolConfig, role: Role) -> Option<Arc<dyn Tool>> {
    let kind = site.kind(&table.kind, false)?;
    site.tool_name();
    site.bounds(table.timeout_ms, TIMEOUT_MS_MAX, table.output_bytes_max, VALUE_BYTES_MAX as u64);
    site.keys(kind, &table.special());
    if table.cost_weight.is_some_and(|weight| !(1..=COST_WEIGHT_MAX).contains(&weight)) {
        site.wrong("cost_weight", format!("must be from 1 to {COST_WEIGHT_MAX}"), None);
    }
    let most = table.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT);
    if table.latency_ms.is_some_and(|usual| !(1..=most).contains(&usual)) {
        site.wrong("latency_ms", format!("must be from 1 to {most}, its `timeout_ms`"), None);
    }
    let said = Said::by(table, role);
    if site.requires_contracts() {
        let describes = table.description.as_ref().is_some_and(|text| !text.trim().is_empty());
        said.check_declared(site, describes, table.input_schema.is_some());
    }
    if site.requires_guards() {
        said.check_guarded(site);
    }
    for (key, schema) in [("input_schema", &table.input_schema), ("output_schema", &table.output_schema)] {
        if schema.as_ref().is_some_and(|schema| !schema.is_object()) {
            site.wrong(key, "a JSON Schema is a table", None);
        }
    }
    pointers(site, "", "secret", table.secret.as_deref());
    pointers(site, "", "declassified", table.declassified.as_deref());
    let schema = table.output_schema.clone().map(Value::from).unwrap_or_default();
    declassified(site, "", table.declassified.as_deref(), &schema);
    RedactConfig::check(site, "", table.redact.as_ref());
    said.check(site);
    said.check_plan_argument(site, "input_schema", table.input_schema.as_ref());
    said.check_resources(site, table.input_schema.as_ref());
    let contract = contract(site.name, table, &said);
    match kind.make {
        Make::Tool(make) => {
            let on_large = table.on_large.unwrap_or_default();
            limits::limited(site, table.limits.as_ref(), contract, on_large, role, |site, contract| {
                make(site, table, contract, role)
            })
        }
        Make::Hook(_) => None,
    }
}

/// Says which texts of a list are no JSON Pointers.
pub(crate) fn pointers(site: &mut Site<'_>, before: &str, key: &str, given: Option<&[String]>) {
    for text in given.unwrap_or_default().iter().filter(|text| pointer(text).is_none()) {
        let hint = "write it as `/KEY/KEY`, or as an empty text for all of it";
        site.wrong(&format!("{before}{key}"), format!("`{text}` is no JSON Pointer"), Some(hint));
    }
}

/// Says which parts of a result the schema of it does not bound, so that they keep their labels.
pub(crate) fn declassified(site: &mut Site<'_>, before: &str, given: Option<&[String]>, schema: &Value) {
    for text in given.unwrap_or_default() {
        if let Some(why) = pointer(text).and_then(|path| bounded::check(schema, &path).err()) {
            let message = format!("`{text}` cannot be declassified: {why} (`output_schema`)");
            site.wrong(&format!("{before}declassified"), message, Some(bounded::ADVICE));
        }
    }
}

/// The paths that JSON Pointers name.
pub(crate) fn paths(given: Option<&[String]>) -> Vec<Vec<Name>> {
    given.unwrap_or_default().iter().filter_map(|text| pointer(text)).collect()
}

fn contract(name: &str, table: &ToolConfig, said: &Said<'_>) -> Contract {
    let base = Contract::undeclared(name);
    Contract {
        description: table.description.as_deref().unwrap_or_default().into(),
        input_schema: table.input_schema.clone().map(Into::into).unwrap_or_default(),
        output_schema: table.output_schema.clone().map(Into::into).unwrap_or_default(),
        class: table.class.unwrap_or(Class::Write),
        idempotency: table.idempotency.unwrap_or(Idempotency::None),
        on_unknown: table.on_unknown.as_ref().map_or(OnUnknown::Ask, |rule| rule.lower()),
        timeout_ms: table.timeout_ms.unwrap_or(base.timeout_ms),
        output_bytes_max: table.output_bytes_max.unwrap_or(base.output_bytes_max),
        cost_weight: table.cost_weight.unwrap_or(base.cost_weight),
        latency_ms: table.latency_ms,
        flow: Flow {
            trusted: table.trusted.unwrap_or_default(),
            foreign: false,
            secret: paths(table.secret.as_deref()),
            declassified: paths(table.declassified.as_deref()),
        },
        redact: RedactConfig::lower(table.redact.as_ref()),
        approval: said.approval(),
        plan: said.planning(),
        shadow: said.shadow(),
        errors: said.errors(),
        resources: said.resources(),
        ..base
    }
}

/// A tool that settles doubts must exist and must change nothing itself.
fn check_verifiers(config: &CatalogConfig, catalog: &Catalog, problems: &mut Vec<Problem>) {
    let class = |name: &str| match config.tools.get(name) {
        Some(table) => Some(table.class.unwrap_or(Class::Write)),
        None if config.actions.contains_key(name) => None,
        None => catalog.tools.get(name).map(|tool| tool.contract().class),
    };
    let tables = |group: &'static str, tables: &BTreeMap<String, ToolConfig>| {
        let rules = tables.iter().map(|(name, table)| (format!("{group}.{name}"), table.on_unknown.clone()));
        rules.collect::<Vec<_>>()
    };
    let mut rules = tables("tools", &config.tools);
    rules.extend(tables("actions", &config.actions));
    for (server, table) in &config.mcp {
        let named = table.tools.iter();
        rules.extend(named.map(|(name, tool)| (format!("mcp.{server}.tools.{name}"), tool.on_unknown.clone())));
    }
    for (place, rule) in rules {
        let Some(crate::config::OnUnknownConfig::Verify(verifier)) = rule else { continue };
        let message = match class(&verifier) {
            None => format!("there is no tool `{verifier}`"),
            Some(Class::Read) => continue,
            Some(Class::Write | Class::Danger) => {
                format!("the tool `{verifier}` is not of class `read`, so it cannot say whether a call happened")
            }
        };
        problems.push(Problem { key: format!("{place}.on_unknown"), message, hint: None });
    }
    let mut plans: Vec<_> = config.tools.iter().map(|(name, table)| (format!("tools.{name}"), &table.plan)).collect();
    for (server, table) in &config.mcp {
        plans.extend(table.tools.iter().map(|(name, tool)| (format!("mcp.{server}.tools.{name}"), &tool.plan)));
    }
    for (place, plan) in plans {
        let Some(PlanConfig::Tool(planner)) = plan else { continue };
        let message = match class(planner) {
            None => format!("there is no tool `{planner}`"),
            Some(Class::Read) => continue,
            Some(Class::Write | Class::Danger) => {
                format!("the tool `{planner}` is not of class `read`, so it cannot show what a call would do")
            }
        };
        problems.push(Problem { key: format!("{place}.plan"), message, hint: None });
    }
}

/// One table while it is read.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    group: &'static str,
    /// Name of the table.
    pub(crate) name: &'a str,
    surroundings: &'a Surroundings<'a>,
    clients: &'a Arc<Clients>,
    problems: &'a mut Vec<Problem>,
    /// What stands before every key, with its dot.
    before: String,
}

impl<'a> Site<'a> {
    /// One of `[GROUP.NAME]`.
    pub(crate) fn new(
        group: &'static str,
        name: &'a str,
        surroundings: &'a Surroundings<'a>,
        clients: &'a Arc<Clients>,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self { group, name, surroundings, clients, problems, before: String::new() }
    }

    /// A table within this one; `before` stands before its keys and ends with a dot.
    pub(crate) fn below(&mut self, before: &str) -> Site<'_> {
        let before = format!("{}{before}", self.before);
        let Self { group, name, surroundings, clients, problems, .. } = self;
        Site { group, name, surroundings, clients, problems, before }
    }

    /// Whether tools without a contract are refused.
    pub(crate) fn requires_contracts(&self) -> bool {
        self.surroundings.require_contracts
    }

    /// Whether tools are refused that do at once what cannot be undone.
    pub(crate) fn requires_guards(&self) -> bool {
        self.surroundings.require_guards
    }

    /// Notes a mistake.
    pub(crate) fn wrong(&mut self, key: &str, message: impl Into<String>, hint: Option<&str>) {
        let key = format!("{}{key}", self.before);
        let dot = if key.is_empty() { "" } else { "." };
        let key = format!("{}.{}{dot}{key}", self.group, self.name);
        self.problems.push(Problem { key, message: message.into(), hint: hint.map(str::to_owned) });
    }

    /// A key that must be given.
    pub(crate) fn need<'v, T: ?Sized>(&mut self, key: &str, value: Option<&'v T>) -> Option<&'v T> {
        if value.is_none() {
            self.wrong(key, format!("`{key}` is missing"), None);
        }
        value
    }

    /// The folder that relative paths start from.
    pub(crate) fn folder(&self) -> &'a Path {
        self.surroundings.folder
    }

    /// The work pools of this process.
    pub(crate) fn pools(&self) -> WorkPools {
        self.surroundings.pools.clone()
    }

    /// What is known about blocked tools.
    pub(crate) fn quarantine(&self) -> Quarantine {
        self.surroundings.quarantine.clone()
    }

    /// A variable of this process' environment.
    pub(crate) fn environment(&self, name: &str) -> Option<OsString> {
        (self.surroundings.environment)(name)
    }

    /// The clients for HTTP.
    pub(crate) fn clients(&self) -> Arc<Clients> {
        self.clients.clone()
    }

    /// The secret of a reference.
    pub(crate) fn secret(&mut self, key: &str, reference: &SecretRef) -> Option<SecretString> {
        let secret = (self.surroundings.secret)(reference.as_str());
        if secret.is_none() {
            let (message, hint) = (format!("the secret `{}` is not there", reference.as_str()), to_set(reference));
            self.wrong(key, message, Some(&hint));
        }
        secret
    }

    /// Those of some secrets that are there; what is missing was said where it is needed.
    pub(crate) fn known(&self, references: &[&SecretRef]) -> Vec<SecretString> {
        references.iter().filter_map(|reference| (self.surroundings.secret)(reference.as_str())).collect()
    }

    fn kind(&mut self, word: &str, hook: bool) -> Option<&'static Kind> {
        let fitting = || ALL.iter().filter(|kind| kind.is_hook() == hook);
        let found = fitting().find(|kind| kind.name == word);
        if found.is_none() {
            let known: Vec<_> = fitting().map(|kind| format!("`{}`", kind.name)).collect();
            let hint = format!("known types are {}", known.join(", "));
            self.wrong("type", format!("the type `{word}` is not known here"), Some(&hint));
        }
        found
    }

    fn keys(&mut self, kind: &Kind, given: &[&'static str]) {
        for key in given.iter().filter(|key| !kind.keys.contains(*key)) {
            self.wrong(key, format!("the type `{}` has no key `{key}`", kind.name), None);
        }
    }

    fn bounds(&mut self, timeout_ms: Option<u64>, timeout_max: u64, bytes: Option<u64>, bytes_max: u64) {
        for (key, given, most) in [("timeout_ms", timeout_ms, timeout_max), ("output_bytes_max", bytes, bytes_max)] {
            if given.is_some_and(|number| !(1..=most).contains(&number)) {
                self.wrong(key, format!("must be from 1 to {most}"), None);
            }
        }
    }

    fn tool_name(&mut self) {
        if !is_tool_name(self.name) {
            self.wrong("", format!("a tool's name has {}", tool_name_rule()), None);
        }
    }
}

fn is_tool_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !name.is_empty() && name.len() <= TOOL_NAME_BYTES_MAX && name.chars().all(fits)
}

fn tool_name_rule() -> String {
    format!("1 to {TOOL_NAME_BYTES_MAX} letters, digits, `_` and `-`, as providers ask")
}

/// Bounds that a table sets, or the defaults.
pub(crate) fn hook_bounds(table: &HookConfig) -> (u64, u64) {
    let base = Contract::hook("");
    (table.timeout_ms.unwrap_or(base.timeout_ms), table.output_bytes_max.unwrap_or(base.output_bytes_max))
}

/// The events that a table names, each once, or all.
pub(crate) fn hook_events(table: &HookConfig) -> Vec<windlass_core::machine::HookKind> {
    let all = windlass_core::machine::HookKind::ALL;
    match &table.events {
        Some(named) => all.into_iter().filter(|kind| named.contains(kind)).collect(),
        None => all.to_vec(),
    }
}

/// How a secret is set that a reference names.
fn to_set(reference: &SecretRef) -> String {
    match reference.as_str().split_once(':') {
        Some(("secret", name)) => format!("`windlass secrets set {name}` sets it"),
        Some(("env", name)) => format!("set the environment variable `{name}` of this process"),
        Some(("file", path)) => format!("write it to the file `{path}`, which this process has to be able to read"),
        _ => "write `secret:NAME`, `env:NAME` or `file:PATH`".to_owned(),
    }
}
