//! The composition root: turns settings into the parts of an engine. Reads files that settings name; reads no
//! environment, that is handed in.

mod capture;
mod checked;
mod in_force;
mod known;
mod opened;
mod outward;
mod people;
mod trial;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use windlass_core::contract::Contract;
use windlass_core::eval::Evaluator;
use windlass_core::file::Medium;
use windlass_core::machine::{HookKind, Program};
use windlass_core::time::Timestamp;
use windlass_models::keys::Keys;
use windlass_models::prices::PriceBook;
use windlass_models::scripted::{Script, Scripts};
use windlass_models::{AwsKeys, Kind, Models, ProviderSettings, StructuredOutput};
use windlass_policy::redact::{redacted_catalog, redacted_model};
use windlass_policy::scan::{ScanConfig, Scanner, scanned_catalog, scanned_model};
use windlass_policy::{CandidateConfig, TrustBook};
use windlass_ports::clock::Clock;
use windlass_ports::compile::{Bundle, CompileError, Compiler};
use windlass_ports::model::Model;
use windlass_ports::policy::Policy;
use windlass_ports::tool::Catalog;
use windlass_runtime::{Engine, SharedQuotas, SystemClock};
use windlass_spec::ModelNames;
use windlass_tools::mcp::{Quarantine, Server};
use windlass_tools::{
    CatalogConfig, ConfigError, NotifyConfig, Surroundings, WorkPools, build_agents, build_catalog, build_servers,
};

use crate::renewed::renewed;
use crate::secrets::{SCHEME, SecretFile, is_name};

/// The name that stands for every provider.
pub const EVERY: &str = "*";
/// Bytes of a file that holds one key.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// One provider of models, as configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderConfig {
    /// What it speaks: `openai` (chat completions, as most servers do), `openai_responses`, `anthropic`, `gemini`,
    /// `bedrock`, `ollama`, or `scripted` (answers from a script, without network). Default: by its name, else
    /// `openai`. With the name `"*"` only `scripted`, which then answers for every provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ProviderKind>,
    /// Its address, up to `/v1`. An address in a document goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The environment variable that holds its key. Default: `NAME_API_KEY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// A file that holds its key and nothing else, relative to the configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The operator's own secret that is its key: the name that `windlass secrets set` got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_secret: Option<String>,
    /// How it takes output schemas: `schema`, `object` (only that JSON is wanted) or `off`. Default: by its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub structured_output: Option<StructuredOutput>,
    /// The files that its models take: `image`, `pdf`. Default: by its name or its format.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<String>>")]
    pub takes: Option<Vec<Medium>>,
    /// Headers sent with every request. Not for keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// `scripted`: the script, relative to the configuration file, for models whose document names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<PathBuf>,
}

/// What a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// Answers from a script.
    Scripted,
    /// OpenAI chat completions, which most servers speak.
    #[serde(rename = "openai")]
    OpenAi,
    /// Anthropic messages.
    Anthropic,
    /// OpenAI responses.
    #[serde(rename = "openai_responses")]
    OpenAiResponses,
    /// Gemini `generateContent`.
    Gemini,
    /// Amazon Bedrock `Converse`, with an API key of Bedrock.
    Bedrock,
    /// Ollama's own API.
    Ollama,
}

impl ProviderKind {
    fn lower(self) -> Kind {
        match self {
            Self::Scripted => Kind::Scripted,
            Self::OpenAi => Kind::OpenAi,
            Self::Anthropic => Kind::Anthropic,
            Self::OpenAiResponses => Kind::OpenAiResponses,
            Self::Gemini => Kind::Gemini,
            Self::Bedrock => Kind::Bedrock,
            Self::Ollama => Kind::Ollama,
        }
    }
}

/// Looks up an environment variable.
pub type Environment = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// Everything that the models, tools and hooks of an engine are built from.
#[derive(Clone)]
pub struct Wiring {
    /// The folder that relative paths in settings start from.
    pub folder: PathBuf,
    /// The folder that scripts named in documents are read from.
    pub scripts: PathBuf,
    /// Providers by name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// A price book, before the one that comes with this build.
    pub prices: Option<PathBuf>,
    /// A model catalog: models under names of one's own, and fallback chains.
    pub models: Option<PathBuf>,
    /// Tools, actions and hooks.
    pub catalog: CatalogConfig,
    /// Channels for notices to people.
    pub notify: BTreeMap<String, NotifyConfig>,
    /// Whether a tool or action without a class and an idempotency is refused.
    pub require_contracts: bool,
    /// Whether a tool or action of class `danger` is refused that has no plan and asks nobody.
    pub require_guards: bool,
    /// Whether secrets must be there. Without, a secret that is missing is empty: for checks that call nothing.
    pub needs_secrets: bool,
    /// A folder with a rule set; without, everything is allowed.
    pub policy: Option<PathBuf>,
    /// A rule set that is tried beside it.
    pub candidate: Option<CandidateConfig>,
    /// Whether tools and actions are refused where there is no rule set.
    pub require_policy: bool,
    /// Trust scores of versions of agents, as this process knows them: whoever drives reads them from the store.
    pub trust: TrustBook,
    /// What is looked for in prompts and arguments before they leave.
    pub scan: ScanConfig,
    /// The environment.
    pub environment: Arc<Environment>,
    /// The operator's own secrets, named as `secret:NAME`.
    pub secrets: Option<Arc<SecretFile>>,
    /// References to further secrets that must not be shown, which no call is made with.
    pub private: Vec<String>,
    /// The work pools of this process; see [`Wiring::bind`].
    pub pools: WorkPools,
    /// What is known about blocked tools of MCP servers; see [`Wiring::bind`].
    pub quarantine: Quarantine,
    /// Quotas of providers, shared with other processes once they are bound; see [`Wiring::bind`].
    pub quotas: SharedQuotas,
}

impl Default for Wiring {
    fn default() -> Self {
        Self {
            folder: PathBuf::new(),
            scripts: PathBuf::new(),
            providers: BTreeMap::new(),
            prices: None,
            models: None,
            catalog: CatalogConfig::default(),
            notify: BTreeMap::new(),
            require_contracts: false,
            require_guards: false,
            needs_secrets: true,
            policy: None,
            candidate: None,
            require_policy: false,
            trust: TrustBook::default(),
            scan: ScanConfig::new(),
            environment: Arc::new(|_| None),
            secrets: None,
            private: Vec::new(),
            pools: WorkPools::default(),
            quarantine: Quarantine::default(),
            quotas: SharedQuotas::default(),
        }
    }
}

impl fmt::Debug for Wiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiring")
            .field("folder", &self.folder)
            .field("providers", &self.providers)
            .field("prices", &self.prices)
            .field("models", &self.models)
            .field("catalog", &self.catalog)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// The key of the setting, when it is one.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

impl WireError {
    fn new(key: impl Into<String>, message: impl fmt::Display) -> Self {
        let key = key.into();
        Self { message: format!("`{key}`: {message}"), key: Some(key), hint: None }
    }

    fn hint(self, hint: &str) -> Self {
        Self { hint: Some(hint.to_owned()), ..self }
    }
}

pub use capture::{Capturing, follow_captures};
pub use in_force::{answering, note_load, record_loads};
pub use opened::{open_store, open_store_to_read, open_store_with};
pub use people::{Counting, follow_trust, settle_trust};
pub use trial::{follow_trial, settle_trial};

/// Compiles documents.
#[must_use]
pub fn compiler() -> Arc<dyn Compiler> {
    Arc::new(Documents::default())
}

/// The events of each configured hook, as a bundle records them.
#[must_use]
pub fn hook_events(catalog: &Catalog) -> BTreeMap<String, Vec<HookKind>> {
    catalog.hooks.iter().map(|(name, hook)| (name.to_string(), hook.events().to_vec())).collect()
}

/// The contracts of configured tools and actions, as a bundle records them.
#[must_use]
pub fn contracts(catalog: &Catalog) -> Vec<Contract> {
    catalog.tools.values().map(|tool| tool.contract().clone()).collect()
}

/// Compiles bundles of documents.
#[derive(Debug, Default)]
struct Documents {
    evaluator: windlass_spec::eval::Engine,
}

impl Compiler for Documents {
    fn compile(&self, bundle: &Bundle) -> Result<Arc<Program>, CompileError> {
        windlass_spec::compile(bundle).map_err(|found| {
            let message = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            CompileError { message }
        })
    }

    fn evaluator(&self) -> Arc<dyn Evaluator> {
        Arc::new(self.evaluator.clone())
    }
}

/// The file of a store's address; `None` for one in memory.
#[must_use]
pub fn store_path(url: &str) -> Option<PathBuf> {
    url.strip_prefix("sqlite:").map(PathBuf::from)
}

/// The present, by this computer's clock.
#[must_use]
pub fn now() -> Timestamp {
    SystemClock::new().now()
}

impl Wiring {
    /// Gives the catalog the store and the clock of an engine. Without it the hook of work pools fails, and a tool of an MCP
    /// server that changed is blocked, and what is known of quotas is known, in this process only.
    pub fn bind(&self, engine: &Engine) {
        let parts = engine.parts();
        self.pools.bind(Arc::clone(&parts.store), Arc::clone(&parts.clock));
        self.quarantine.bind(Arc::clone(&parts.store), Arc::clone(&parts.clock));
        self.quotas.bind(Arc::clone(&parts.store), Arc::clone(&parts.clock));
    }

    /// The policy: the configured rule set, which follows its files from here on, or none.
    ///
    /// # Errors
    /// A rule set that is not good, or none where tools need one.
    pub fn policy(&self) -> Result<Arc<dyn Policy>, WireError> {
        Ok(answering(self.rules()?.as_ref()))
    }

    /// Models behind the scanner that is configured, and what they answer without any secret that settings name.
    #[must_use]
    pub fn scanned(&self, model: Arc<dyn Model>) -> Arc<dyn Model> {
        redacted_model(scanned_model(model, &Scanner::new(&self.scan)), self.present())
    }

    /// Tools and actions behind the scanner that is configured.
    pub(crate) fn scanned_tools(&self, catalog: Catalog) -> Catalog {
        scanned_catalog(catalog, &Scanner::new(&self.scan))
    }

    /// The configured tools, actions and hooks, tools and actions behind the scanner that is configured. Those whose
    /// secrets are the operator's own follow every change of these.
    ///
    /// # Errors
    /// Every mistake in their tables, and a file of secrets that cannot be used.
    pub fn catalog(&self) -> Result<Catalog, WireError> {
        self.checked_secrets()?;
        self.checked_schemas()?;
        let (catalog, follows) = self.catalog_of_now()?;
        match (&self.secrets, follows) {
            (Some(file), Some(generation)) => {
                let wiring = self.clone();
                let build = move || wiring.catalog_of_now().map(|(catalog, _)| catalog);
                Ok(renewed(catalog, Arc::clone(file), generation, build))
            }
            (Some(_), None) | (None, _) => Ok(catalog),
        }
    }

    /// The catalog with the secrets of now, and their generation where any of them is the operator's own.
    fn catalog_of_now(&self) -> Result<(Catalog, Option<u64>), WireError> {
        let (catalog, secrets, follows) = self.surrounded(|surroundings| build_catalog(&self.catalog, surroundings))?;
        Ok((self.scanned_tools(redacted_catalog(catalog, &self.redactor(&secrets))), follows))
    }

    /// The configured MCP servers, whether or not a tool of theirs was accepted.
    ///
    /// # Errors
    /// Every mistake in their tables.
    pub fn servers(&self) -> Result<BTreeMap<String, Arc<Server>>, WireError> {
        Ok(self.surrounded(|surroundings| build_servers(&self.catalog, surroundings))?.0)
    }

    /// What is made of the tables, the secrets that were resolved for it, and where any is the operator's own their generation.
    /// That is the one after it was made, so that what a command told for the first time is no change to it.
    fn surrounded<T>(
        &self,
        work: impl FnOnce(&Surroundings<'_>) -> Result<T, ConfigError>,
    ) -> Result<(T, Vec<SecretString>, Option<u64>), WireError> {
        let before = self.secrets.as_ref().map(|file| (file.changes(), file.generation()));
        let secrets: Mutex<Vec<SecretString>> = Mutex::default();
        let follows = AtomicBool::new(false);
        let surroundings = Surroundings {
            folder: &self.folder,
            environment: &*self.environment,
            secret: &|reference| {
                let found = if self.needs_secrets || !self.is_asked(reference) { self.secret(reference) } else { None };
                follows.fetch_or(reference.starts_with(SCHEME), Ordering::Relaxed);
                secrets.lock().unwrap_or_else(PoisonError::into_inner).extend(found.clone());
                found.or_else(|| (!self.needs_secrets).then(|| SecretString::from("")))
            },
            require_contracts: self.require_contracts,
            require_guards: self.require_guards,
            pools: &self.pools,
            quarantine: &self.quarantine,
        };
        let made = work(&surroundings).map_err(|error| {
            let key = error.problems.first().map(|problem| problem.key.clone());
            WireError { key, message: error.to_string(), hint: None }
        })?;
        let mut secrets = secrets.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (Some(file), Some((changes, generation)), true) = (&self.secrets, before, follows.into_inner()) else {
            return Ok((made, secrets, None));
        };
        let after = file.generation();
        let follows = if file.changes() == changes { after } else { generation };
        // What was replaced a while ago is still one.
        secrets.extend(file.values());
        Ok((made, secrets, Some(follows)))
    }

    /// The configured models. `secrets` are the keys that documents held, by reference; `program` names further ones.
    ///
    /// # Errors
    /// A file that cannot be read or is not what it should be.
    pub fn models(
        &self,
        secrets: &BTreeMap<String, SecretString>,
        program: Option<&Program>,
    ) -> Result<Models, WireError> {
        let mut keys = Keys::default();
        for (reference, secret) in secrets {
            keys = keys.secret(reference.clone(), secret.clone());
        }
        self.checked_secrets()?;
        // The operator's own are looked up for each request, since they change while a process runs.
        let fixed = |reference: &String| !reference.starts_with(SCHEME);
        for reference in program.into_iter().flat_map(known::references).filter(fixed) {
            if let Some(secret) = self.secret(&reference) {
                keys = keys.secret(reference, secret);
            }
        }
        let configured = self.providers.keys().map(|name| windlass_models::keys::variable(name));
        for variable in windlass_models::key_variables().chain(configured) {
            if let Some(value) = self.variable(&variable) {
                keys = keys.environment(variable, value);
            }
        }
        for (name, provider) in &self.providers {
            if let Some(secret) = &provider.key_secret {
                keys = keys.provider_reference(name.clone(), format!("{SCHEME}{secret}"));
            }
        }
        let finder = Self {
            folder: self.folder.clone(),
            environment: Arc::clone(&self.environment),
            secrets: self.secrets.clone(),
            ..Self::default()
        };
        keys = keys.lookup(Arc::new(move |reference| finder.secret(reference)));
        let catalog = self.model_catalog()?;
        let chains = catalog.chains.clone();
        let outward = outward::guarded(&self.catalog);
        let mut builder = Models::builder().outward(outward).keys(keys).prices(self.price_book()?).catalog(catalog);
        builder = builder.quotas(Arc::new(self.quotas.clone()));
        let variable = |name: &str| (self.environment)(name)?.into_string().ok();
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        if cfg!(feature = "sigv4")
            && let Some(keys) = AwsKeys::find(&variable, &read)
        {
            builder = builder.aws(keys);
        }
        self.check_names()?;
        let (agents, ..) = self.surrounded(|surroundings| build_agents(&self.catalog, surroundings))?;
        for (name, agent) in agents {
            if self.providers.contains_key(&name) || windlass_models::ALL.iter().any(|known| known.name == name) {
                let key = format!("agents_cli.{name}");
                return Err(WireError::new(key, "a provider has that name already").hint("give the agent another name"));
            }
            builder = builder.other(name, agent);
        }
        for (name, provider) in self.providers.iter().filter(|(name, _)| *name != EVERY) {
            builder = builder.provider(name.clone(), self.provider(name, provider)?);
        }
        let every = self.providers.get(EVERY);
        if every.is_some_and(|every| every.kind != Some(ProviderKind::Scripted)) {
            return Err(WireError::new("providers.*.kind", "only a scripted provider can answer for every provider")
                .hint("write `kind = \"scripted\"`, or name the provider"));
        }
        let scripts = self.scripts()?;
        if every.is_none() {
            checked::check_scripts(&scripts, &chains)?;
        }
        Ok(builder.script_everything(every.is_some()).scripts(scripts).build())
    }

    fn provider(&self, name: &str, config: &ProviderConfig) -> Result<ProviderSettings, WireError> {
        let key = |part: &str| format!("providers.{name}.{part}");
        let api_key = match (&config.key_env, &config.key_file, &config.key_secret) {
            (Some(variable), None, None) => self.variable(variable),
            (None, Some(path), None) => Some(self.key_file(&key("key_file"), path)?),
            (None, None, Some(name)) if !is_name(name) => {
                return Err(WireError::new(key("key_secret"), format!("`{name}` names no secret")));
            }
            (None, None, Some(_) | None) => None,
            (Some(_), _, _) | (_, Some(_), _) => {
                let message = "`key_env`, `key_file` and `key_secret` exclude each other";
                return Err(WireError::new(key("key_env"), message));
            }
        };
        Ok(ProviderSettings {
            kind: config.kind.map(ProviderKind::lower),
            base_url: config.base_url.clone(),
            api_key,
            structured_output: config.structured_output,
            headers: config.headers.clone(),
            takes: config.takes.clone(),
        })
    }

    fn scripts(&self) -> Result<Scripts, WireError> {
        let mut scripts = Scripts::default().folder(self.scripts.clone());
        let mut used: Option<(&str, &Path)> = None;
        for (name, provider) in &self.providers {
            let Some(path) = provider.script.as_deref() else { continue };
            let key = format!("providers.{name}.script");
            if provider.kind != Some(ProviderKind::Scripted) && name != "scripted" {
                return Err(WireError::new(key, "only a provider of kind `scripted` has a script"));
            }
            if let Some((other, _)) = used.filter(|(_, other)| *other != path) {
                return Err(WireError::new(key, format!("`{other}` has another script already"))
                    .hint("one script answers for all scripted providers; documents may name more with `script`"));
            }
            let text = self.read(&key, path)?;
            let script = Script::parse(&text).map_err(|error| {
                WireError::new(key, format!("`{}`, line {}: {}", path.display(), error.line, error.message))
            })?;
            scripts = scripts.default_script(script);
            used = Some((name, path));
        }
        Ok(scripts)
    }

    fn price_book(&self) -> Result<PriceBook, WireError> {
        let Some(path) = &self.prices else { return Ok(PriceBook::builtin()) };
        let text = self.read("prices", path)?;
        let book = PriceBook::parse(&text).map_err(|error| {
            WireError::new("prices", format!("`{}`, line {}: {}", path.display(), error.line, error.message))
        })?;
        Ok(book.or(PriceBook::builtin()))
    }

    /// The names that documents may use of the model catalog; none where a script answers for every provider, and so for
    /// every name.
    ///
    /// # Errors
    /// A catalog that cannot be read or is not what it should be.
    pub fn model_names(&self) -> Result<Option<ModelNames>, WireError> {
        if self.providers.contains_key(EVERY) {
            return Ok(None);
        }
        let catalog = self.model_catalog()?;
        Ok(Some(ModelNames {
            models: catalog.models.iter().map(|entry| entry.name.to_string()).collect(),
            chains: catalog.chains.iter().map(|chain| chain.name.to_string()).collect(),
        }))
    }

    /// Models of the catalog that are gone or soon will be, each as a sentence.
    ///
    /// # Errors
    /// A catalog that cannot be read or is not what it should be.
    pub fn retirements(&self) -> Result<Vec<String>, WireError> {
        let models = Models::builder().catalog(self.model_catalog()?).build();
        Ok(models.retirements().iter().map(ToString::to_string).collect())
    }

    fn read(&self, key: &str, path: &Path) -> Result<String, WireError> {
        let path = self.folder.join(path);
        std::fs::read_to_string(&path)
            .map_err(|error| WireError::new(key, format!("cannot read `{}`: {error}", path.display())))
    }

    fn key_file(&self, key: &str, path: &Path) -> Result<SecretString, WireError> {
        let path = self.folder.join(path);
        let size = std::fs::metadata(&path).map(|meta| meta.len());
        match size {
            Ok(bytes) if bytes > KEY_BYTES_MAX => {
                Err(WireError::new(key, format!("`{}` is too large to be a key", path.display())))
            }
            _ => self.read(key, &path).map(|text| text.trim().into()),
        }
    }

    fn variable(&self, name: &str) -> Option<SecretString> {
        let value = (self.environment)(name)?.into_string().ok()?;
        (!value.trim().is_empty()).then(|| value.into())
    }

    /// Whether a command tells the secret behind a reference.
    fn is_asked(&self, reference: &str) -> bool {
        let name = reference.strip_prefix(SCHEME);
        name.is_some_and(|name| self.secrets.as_ref().is_some_and(|file| file.is_asked(name)))
    }

    /// The secret behind `env:NAME`, `file:PATH` or `secret:NAME`; none when there is nothing that can be read.
    #[must_use]
    pub fn secret(&self, reference: &str) -> Option<SecretString> {
        match reference.split_once(':')? {
            ("env", name) => self.variable(name),
            ("file", path) => self.key_file("", Path::new(path)).ok(),
            ("secret", name) => self.secrets.as_ref()?.value(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_store() {
        assert_eq!(store_path("sqlite:a/b.db"), Some(PathBuf::from("a/b.db")));
        assert_eq!(store_path("sqlite:/a/b.db"), Some(PathBuf::from("/a/b.db")));
        assert_eq!(store_path("memory:"), None);
    }

    #[test]
    fn mistakes_name_their_key() {
        let provider = |provider: ProviderConfig| Wiring {
            providers: BTreeMap::from([("x".to_owned(), provider)]),
            ..Wiring::default()
        };
        let both = provider(ProviderConfig {
            key_env: Some("A".into()),
            key_file: Some("b".into()),
            ..ProviderConfig::default()
        });
        let error = both.models(&BTreeMap::new(), None).expect_err("both");
        assert_eq!(error.key.as_deref(), Some("providers.x.key_env"));
        let script = provider(ProviderConfig { script: Some("s.yml".into()), ..ProviderConfig::default() });
        let error = script.models(&BTreeMap::new(), None).expect_err("kind");
        assert_eq!(error.key.as_deref(), Some("providers.x.script"));
    }

    #[test]
    fn no_debug_output_holds_a_key() {
        let wiring = Wiring { environment: Arc::new(|_| Some("sk-secret-value".into())), ..Wiring::default() };
        let models = wiring.models(&BTreeMap::new(), None).expect("models");
        assert!(!format!("{wiring:?} {models:?}").contains("sk-secret"));
    }

    #[test]
    fn a_catalog_is_of_the_secrets_that_commands_told_for_it_and_not_of_those_told_later() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("kept"), "one-value").expect("written");
        let commands = crate::secrets::Commands {
            programs: BTreeMap::from([("crm".to_owned(), vec!["cat".to_owned(), "kept".to_owned()])]),
            folder: folder.path().to_owned(),
            timeout: std::time::Duration::from_secs(60),
            fresh: std::time::Duration::ZERO,
        };
        let file = Arc::new(SecretFile::new(folder.path().join("secrets.json")).asking(commands));
        let tool = toml::toml! {
            type = "http"
            url = "http://127.0.0.1:1/"
            class = "read"
            secret_headers = { x-api-key = "secret:crm" }
        };
        let tools = BTreeMap::from([("crm".to_owned(), tool.try_into().expect("a tool"))]);
        let catalog = CatalogConfig { tools, ..CatalogConfig::default() };
        let wiring = Wiring { catalog, secrets: Some(Arc::clone(&file)), needs_secrets: true, ..Wiring::default() };
        let (_, follows) = wiring.catalog_of_now().expect("a catalog");
        assert_eq!((follows, file.changes()), (Some(2), 1), "it has the first answer in it, beside the file");
        std::fs::write(folder.path().join("kept"), "another-value").expect("written");
        while file.generation() == 2 {
            std::thread::yield_now();
        }
        assert_eq!((file.generation(), file.changes()), (3, 2), "it is to be built again");
        let (_, follows) = wiring.catalog_of_now().expect("a catalog");
        assert_eq!(follows, Some(3));
    }
}
