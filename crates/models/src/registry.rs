//! How a request finds its own, and what every answer gets on its way back: cost,
//! provider data, and no key.

mod takes;

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use windlass_core::budget::Amounts;
use windlass_core::effect::Spent;
use windlass_core::file::Medium;
use windlass_core::ids::Name;
use windlass_core::input::{Quote, Traits};
use windlass_core::machine::ModelSettings;
use windlass_core::request::ModelRequest;
use windlass_core::route::Chain;
use windlass_core::transcript::Usage;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::model::{Model, ModelResult};
use windlass_ports::quota::Quotas;
use windlass_ports::tool::Permit;

use crate::catalog::{CHAIN, Catalog, MODEL, Retirement};
use crate::chains;
use crate::errors::Fault;
use crate::guard::{CACHED, Guard};
use crate::keys::{Keys, variable};
use crate::openai::OpenAi;
use crate::outward::{Outward, Passage};
use crate::prices::{PriceBook, Rates};
use crate::providers::{ALL, Kind, Provider, REGION, SERVICE_TIER};
use crate::scripted::{Live, Scripts};
use crate::sender::{self, Bounds, Outgoing, Sender};
use crate::settle::{SCRIPT_PRICES, at_least, settled, spent};
use crate::signing::{self, AwsKeys};
use crate::wire::{StructuredOutput, Wire};

/// What is configured about a provider.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderSettings {
    /// What it speaks; OpenAI chat completions for a name that is not known.
    pub kind: Option<Kind>,
    /// Its address, up to `/v1`. An address in a document goes before it.
    pub base_url: Option<String>,
    /// Its key.
    pub api_key: Option<SecretString>,
    /// How it takes output schemas.
    pub structured_output: Option<StructuredOutput>,
    /// Headers sent with every request.
    pub headers: BTreeMap<String, String>,
    /// The files that it takes; as it is known by its name or its format without this.
    pub takes: Option<Vec<Medium>>,
}

/// Builds [`Models`].
#[derive(Debug)]
pub struct Builder {
    providers: BTreeMap<String, ProviderSettings>,
    keys: Keys,
    prices: PriceBook,
    scripts: Scripts,
    script_everything: bool,
    bounds: Bounds,
    catalog: Catalog,
    others: BTreeMap<String, Arc<dyn Model>>,
    aws: Option<AwsKeys>,
    outward: Option<Arc<dyn Outward>>,
    quotas: Option<Arc<dyn Quotas>>,
}

impl Builder {
    /// What is known of quotas beyond this process; without this each process knows what it has seen itself.
    #[must_use]
    pub fn quotas(mut self, quotas: Arc<dyn Quotas>) -> Self {
        self.quotas = Some(quotas);
        self
    }

    /// Access keys for requests to Bedrock without an API key. A build without the feature `sigv4` refuses such requests.
    #[must_use]
    pub fn aws(mut self, keys: AwsKeys) -> Self {
        self.aws = Some(keys);
        self
    }

    /// A provider that is no wire format of this crate, under its name in documents. Breakers, quotas, repeats and prices
    /// apply to it as to every other.
    #[must_use]
    pub fn other(mut self, name: impl Into<String>, model: Arc<dyn Model>) -> Self {
        self.others.insert(name.into(), model);
        self
    }

    /// Configures a provider; its key is used after the keys that documents name.
    #[must_use]
    pub fn provider(mut self, name: impl Into<String>, settings: ProviderSettings) -> Self {
        let name = name.into();
        if let Some(key) = &settings.api_key {
            self.keys = self.keys.provider(name.clone(), key.clone());
        }
        self.providers.insert(name, settings);
        self
    }

    /// Adds keys: secrets that documents name, and values of environment variables.
    #[must_use]
    pub fn keys(mut self, keys: Keys) -> Self {
        self.keys = keys.and(self.keys);
        self
    }

    /// Sets the prices; the built-in book without this.
    #[must_use]
    pub fn prices(mut self, prices: PriceBook) -> Self {
        self.prices = prices;
        self
    }

    /// Sets the catalog of models and chains; an empty one without this.
    #[must_use]
    pub fn catalog(mut self, catalog: Catalog) -> Self {
        self.catalog = catalog;
        self
    }

    /// Sets the scripts of the scripted provider.
    #[must_use]
    pub fn scripts(mut self, scripts: Scripts) -> Self {
        self.scripts = scripts;
        self
    }

    /// Answers requests to every provider from the scripts: nothing leaves the process.
    #[must_use]
    pub fn script_everything(mut self, yes: bool) -> Self {
        self.script_everything = yes;
        self
    }

    /// Sets who decides about addresses that documents name; without this requests go wherever they say.
    #[must_use]
    pub fn outward(mut self, outward: Arc<dyn Outward>) -> Self {
        self.outward = Some(outward);
        self
    }

    /// Sets the bounds of exchanges.
    #[must_use]
    pub fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// The models.
    #[must_use]
    pub fn build(self) -> Models {
        let Self { providers, keys, prices, scripts, script_everything, bounds, catalog, others, aws, outward, quotas } =
            self;
        let keys = Arc::new(keys);
        let sender = Sender::new(bounds, Arc::clone(&keys), outward);
        let guard = Guard::new(catalog, quotas);
        Models { providers, keys, prices, scripts, script_everything, sender, guard, others, aws }
    }
}

/// Every model that can be called.
#[derive(Debug)]
pub struct Models {
    providers: BTreeMap<String, ProviderSettings>,
    keys: Arc<Keys>,
    prices: PriceBook,
    scripts: Scripts,
    script_everything: bool,
    sender: Sender,
    guard: Guard,
    others: BTreeMap<String, Arc<dyn Model>>,
    aws: Option<AwsKeys>,
}

/// Why the key of a provider does not go along.
const WITHHELD: &str = "its key is not sent to an address that only the document names; write that address as `base_url` \
    of the provider in the configuration, or into the model catalog";

/// Where a request goes.
enum Route {
    Script(Arc<Live>),
    Wire(Box<Target>),
}

struct Target {
    wire: &'static dyn Wire,
    outgoing: Outgoing,
}

impl Models {
    /// Starts with the built-in prices, no key and no script.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            providers: BTreeMap::new(),
            keys: Keys::default(),
            prices: PriceBook::builtin(),
            scripts: Scripts::default(),
            script_everything: false,
            bounds: Bounds::default(),
            catalog: Catalog::default(),
            others: BTreeMap::new(),
            aws: None,
            outward: None,
            quotas: None,
        }
    }

    /// Those of [`Models::retirements`] that are called by such settings.
    #[must_use]
    pub fn retirements_of(&self, settings: &ModelSettings) -> Vec<Retirement> {
        self.guard.catalog().retirements_of(settings, today())
    }

    /// Models of the catalog that are gone, or soon will be.
    #[must_use]
    pub fn retirements(&self) -> Vec<Retirement> {
        self.guard.catalog().retirements(today())
    }

    fn is_scripted(&self, provider: &str) -> bool {
        self.script_everything || self.kind(provider) == Some(Kind::Scripted)
    }

    /// The provider of another kind behind a name, unless a script answers for it.
    fn other(&self, provider: &str) -> Option<&Arc<dyn Model>> {
        if self.script_everything { None } else { self.others.get(provider) }
    }

    fn kind(&self, provider: &str) -> Option<Kind> {
        let known = || ALL.iter().find(|p| p.name == provider).map(|p| p.kind);
        match self.providers.get(provider) {
            Some(settings) => settings.kind.or_else(known).or(Some(Kind::OpenAi)),
            None => known(),
        }
    }

    fn route(&self, request: &ModelRequest) -> Result<Route, Fault> {
        let provider = &*request.provider;
        if self.is_scripted(provider) {
            return self.scripts.find(&request.model, &request.params).map(Route::Script);
        }
        if matches!(provider, CHAIN | MODEL) {
            return Err(Fault::Unknown(chains::missing(self.guard.catalog(), provider, &request.model)));
        }
        let settings = self.providers.get(provider);
        let known = ALL.iter().find(|p| p.name == provider);
        let kind = self.kind(provider).unwrap_or(Kind::OpenAi);
        takes::check_tier(kind, provider, &request.params)?;
        let configured = settings.and_then(|s| s.base_url.as_deref());
        let regional = if kind == Kind::Bedrock && configured.is_none() { regional(&request.params)? } else { None };
        let own = configured.or(regional.as_deref()).or(known.and_then(|p| p.base_url));
        let address = request.base_url.as_deref().or(own).ok_or_else(|| unknown(provider))?;
        let chosen = settings.is_some_and(|s| s.kind.is_some());
        let wire = if kind == Kind::Ollama && !chosen && speaks_openai(address) {
            &OpenAi
        } else {
            kind.wire().ok_or_else(|| unknown(provider))?
        };
        // What is known about a provider holds at its public address only.
        let at_home = known.filter(|p| {
            let regional = regional.as_deref();
            p.base_url.into_iter().chain(regional).any(|url| same(url, address))
        });
        let catalogued = || self.guard.catalog().has_address(provider, address);
        let own_address = own.is_some_and(|own| same(own, address)) || catalogued();
        let key = self.key(request, own_address, at_home)?;
        let structured = settings.and_then(|s| s.structured_output).or(at_home.map(|p| p.structured_output));
        let mut body = wire.body(request, structured.unwrap_or_else(|| wire.structured_output()))?;
        if !request.files.is_empty() {
            self.check_files(request, kind)?;
            body = wire.attach(body, &request.files)?;
        }
        wire.prove(&body)?;
        let url = sender::address(address, &wire.place(request))?;
        let passage = if own_address { Passage::Free } else { self.sender.passage(&url, &request.tenant)? };
        let mut outgoing = Outgoing {
            url,
            // What the operator sends to the provider may be secret too.
            headers: headers(wire, key.as_ref(), settings.filter(|_| own_address))?,
            body: body.to_json(),
            timeout_ms: request.timeout_ms,
            passage,
        };
        if let Some(keys) = self.aws.as_ref().filter(|_| kind == Kind::Bedrock && key.is_none() && own_address) {
            signing::sign(&mut outgoing, keys, request.params.get(REGION))?;
        }
        outgoing.headers = sender::traced(outgoing.headers, request);
        Ok(Route::Wire(Box::new(Target { wire, outgoing })))
    }

    /// The key for a request. The provider's own key is sent only where it belongs: never to another address that a
    /// document gives.
    fn key(
        &self,
        request: &ModelRequest,
        own_address: bool,
        at_home: Option<&Provider>,
    ) -> Result<Option<SecretString>, Fault> {
        let provider = &*request.provider;
        let referred = request.key.as_deref().map(|reference| self.keys.referred(reference));
        let key = match referred {
            Some(Some(key)) => Some(key),
            Some(None) if !own_address => {
                tracing::warn!(provider, "the key that the document names is not set; the request goes without one");
                None
            }
            None if !own_address => {
                if self.keys.own(provider).is_some() {
                    let address = request.base_url.as_deref().unwrap_or_default();
                    tracing::warn!(provider, address, "{WITHHELD}");
                }
                None
            }
            Some(None) | None => self.keys.own(provider),
        };
        let is_bedrock = at_home.is_some_and(|p| p.kind == Kind::Bedrock);
        let is_signed = is_bedrock && self.aws.is_some() && signing::SIGNS;
        if key.is_none() && !is_signed && at_home.is_some_and(|p| p.needs_key) {
            if !own_address && self.keys.own(provider).is_some() {
                return Err(Fault::NoKey(format!("no key for `{provider}`: {WITHHELD}")));
            }
            let variable = variable(provider);
            let only = match (is_bedrock, signing::SIGNS) {
                (true, true) => "; or access keys of AWS, with which requests are signed",
                (true, false) => {
                    "; this build signs no requests with access keys (SigV4), which the feature `sigv4` does"
                }
                (false, _) => "",
            };
            let model = &request.model;
            let way = match (request.key.as_deref(), self.keys.reference(provider)) {
                (Some(named), _) => format!("the document names `{named}`, which is not set"),
                (None, Some(kept)) => {
                    let name = kept.strip_prefix("secret:").unwrap_or(kept);
                    format!("the secret `{name}` is not there: `windlass secrets set {name}` sets it")
                }
                (None, None) => format!("set `{variable}`, or the key of the provider in the configuration{only}"),
            };
            return Err(Fault::NoKey(format!("no key for `{provider}`, which serves the model `{model}`; {way}")));
        }
        Ok(key)
    }

    /// One call behind the guard: breakers, quotas, repeats, answers from before.
    async fn guarded(&self, mut request: ModelRequest, permit: Permit) -> ModelResult {
        if &*request.provider == CACHED {
            return self.kept(&request);
        }
        let counted = request.link.is_some() || !self.is_scripted(&request.provider);
        match self.guard.enter(&request, counted).await {
            Err(fault) => self.failed(&fault),
            Ok((pass, waited_ms)) => {
                // It has its turn: a process that died while it waited has sent nothing.
                if let Err(failure) = permit.depart() {
                    return ModelResult::unsent(failure);
                }
                request.timeout_ms = request.timeout_ms.saturating_sub(waited_ms).max(1);
                let result = self.perform(&request).await;
                pass.ended(&result);
                self.guard.keep(&request, &result);
                result
            }
        }
    }

    /// The answer that was given before to the same request of the same tenant.
    fn kept(&self, request: &ModelRequest) -> ModelResult {
        let Some((answer, saved)) = self.guard.find(request, today()) else { return self.failed(&Fault::NotCached) };
        let mut result = settled(request, answer, &Value::Null, None, None);
        if let Ok(reply) = &mut result.outcome {
            let mut data = reply.provider_data.as_map().cloned().unwrap_or_default();
            data.insert("cache".into(), saved);
            (reply.provider_data, reply.cost_micros) = (Value::map(data), Some(0));
        }
        result
    }

    fn failed(&self, fault: &Fault) -> ModelResult {
        let (failure, spent) = fault.failure();
        ModelResult { outcome: Err(self.keys.redact_failure(failure)), spent }
    }

    /// The prices of a model: the catalog's, else those of the price book.
    fn rates(&self, provider: &str, model: &str, base_url: Option<&str>) -> Option<(Rates, Name)> {
        let catalog = self.guard.catalog();
        let listed = catalog.rates(provider, model, base_url).map(|rates| (rates, catalog.version.clone()));
        listed.or_else(|| self.prices.find(priced_as(provider), model))
    }

    fn rates_of(&self, request: &ModelRequest) -> Option<(Rates, Name)> {
        self.rates(&request.provider, &request.model, request.base_url.as_deref())
    }

    /// One call of a provider of another kind, priced where it does not say what it cost.
    async fn delegate(&self, other: &dyn Model, request: &ModelRequest) -> ModelResult {
        let mut result = other.call(request.clone()).await;
        if let Ok(reply) = &mut result.outcome {
            reply.usage = reply.usage.plausible();
        }
        if let Ok(reply) = &mut result.outcome
            && reply.cost_micros.is_none()
            && let Some((rates, version)) = self.rates_of(request)
            && let Some(cost) = rates.cost_micros(&reply.usage)
        {
            (reply.cost_micros, reply.prices) = (Some(cost), Some(version));
            result.spent = spent(&reply.usage, Some(cost));
        }
        result.outcome = result.outcome.map_err(|failure| self.keys.redact_failure(failure));
        result
    }

    async fn perform(&self, request: &ModelRequest) -> ModelResult {
        if let Some(other) = self.other(&request.provider) {
            return self.delegate(&**other, request).await;
        }
        let unused = |fault| (fault, Usage::default());
        let (result, cost, heads, rates) = match self.route(request) {
            Err(fault) => (Err(unused(fault)), None, Value::Null, None),
            Ok(Route::Script(live)) => {
                let played = live.play(request).await;
                let rates = live.rates(&request.model).map(|rates| (rates, SCRIPT_PRICES.into()));
                (played.result.map_err(unused), played.cost_micros, Value::Null, rates)
            }
            Ok(Route::Wire(target)) => match self.sender.exchange(target.outgoing, target.wire).await {
                Ok((answer, heads)) => (Ok(answer), None, heads, None),
                Err(fault) => (Err(fault), None, Value::Null, None),
            },
        };
        match result {
            Ok(answer) => {
                let rates = rates.or_else(|| self.rates_of(request));
                settled(request, answer, &heads, cost, rates)
            }
            Err((fault, usage)) => self.broken(request, &fault, usage.plausible()),
        }
    }

    /// An attempt without an answer. What the start of one said that it used is charged at least.
    fn broken(&self, request: &ModelRequest, fault: &Fault, usage: Usage) -> ModelResult {
        let result = self.failed(fault);
        if result.spent != Spent::Unknown {
            return result;
        }
        let known = |count: Option<u64>| Some(count.unwrap_or(0));
        let least = Usage { input: known(usage.input), output: known(usage.output), ..usage };
        let cost = self.rates_of(request).and_then(|(rates, _)| rates.cost_micros(&least));
        ModelResult { spent: at_least(&usage, cost), ..result }
    }
}

/// The name under which price books know a provider that has several.
fn priced_as(provider: &str) -> &str {
    match provider {
        "openai-responses" => "openai",
        "google" => "gemini",
        other => other,
    }
}

/// The day, in UTC: models retire by it.
fn today() -> jiff::civil::Date {
    jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// The address of Bedrock in the region that a profile names.
fn regional(params: &Value) -> Result<Option<String>, Fault> {
    let Some(region) = params.get(REGION).filter(|region| !region.is_null()) else { return Ok(None) };
    let plain = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match region.as_str().filter(plain) {
        Some(region) => Ok(Some(format!("https://bedrock-runtime.{region}.amazonaws.com"))),
        None => Err(Fault::Unsayable(format!("the model parameter `{REGION}` is no region: {}", region.to_json()))),
    }
}

/// Whether an address of Ollama is that of its OpenAI-compatible side.
fn speaks_openai(address: &str) -> bool {
    address.trim().trim_end_matches('/').ends_with("/v1")
}

/// Whether two addresses are one, but for a slash at the end.
fn same(one: &str, other: &str) -> bool {
    one.trim().trim_end_matches('/') == other.trim().trim_end_matches('/')
}

fn headers(
    wire: &dyn Wire,
    key: Option<&SecretString>,
    settings: Option<&ProviderSettings>,
) -> Result<HeaderMap, Fault> {
    let fixed = wire.headers(key.map(|k| k.expose_secret().trim()));
    let fixed = fixed.iter().map(|(name, value)| (*name, value.as_str()));
    let configured = settings.into_iter().flat_map(|s| &s.headers).map(|(n, v)| (n.as_str(), v.as_str()));
    let mut headers = HeaderMap::new();
    for (name, value) in [("content-type", "application/json")].into_iter().chain(fixed).chain(configured) {
        let (name, value) = sender::header(name, value)?;
        headers.insert(name, value);
    }
    Ok(headers)
}

fn unknown(provider: &str) -> Fault {
    let names: Vec<&str> = ALL.iter().map(|p| p.name).collect();
    let names = names.join("`, `");
    Fault::Unknown(format!(
        "the provider `{provider}` is not known; known are `{names}`; give any other OpenAI-compatible server a `base_url`"
    ))
}

impl Model for Models {
    fn call(&self, request: ModelRequest) -> BoxFuture<'_, ModelResult> {
        Box::pin(self.guarded(request, Permit::default()))
    }

    fn attempt(&self, request: ModelRequest, permit: Permit) -> BoxFuture<'_, ModelResult> {
        Box::pin(self.guarded(request, permit))
    }

    fn lacks(&self, settings: &ModelSettings) -> Option<Name> {
        // A chain goes on with its next link where one of them lacks something.
        if chains::is_listed(settings) {
            return None;
        }
        let provider = &*settings.provider;
        if let Some(other) = self.other(provider) {
            return other.lacks(settings);
        }
        if self.is_scripted(provider) {
            let found = self.scripts.find(&settings.model, &settings.params);
            return found.err().map(|_| format!("script for the model `{}`", settings.model).into());
        }
        let known = ALL.iter().find(|known| known.name == provider);
        let configured = self.providers.get(provider).and_then(|settings| settings.base_url.as_deref());
        let is_regional = self.kind(provider) == Some(Kind::Bedrock) && configured.is_none();
        let regional = is_regional.then(|| regional(&settings.params).ok().flatten()).flatten();
        let own = configured.or(regional.as_deref()).or(known.and_then(|known| known.base_url));
        let Some(address) = settings.base_url.as_deref().or(own) else {
            return Some(format!("address of the provider `{provider}`").into());
        };
        let at_home =
            |known: &&Provider| known.base_url.into_iter().chain(regional.as_deref()).any(|url| same(url, address));
        let needs_key = known.filter(at_home).is_some_and(|known| known.needs_key);
        let own_address =
            own.is_some_and(|own| same(own, address)) || self.guard.catalog().has_address(provider, address);
        let is_there = || {
            let referred = settings.key.as_deref().and_then(|reference| self.keys.referred(reference));
            let is_signed = self.kind(provider) == Some(Kind::Bedrock) && self.aws.is_some() && signing::SIGNS;
            referred.is_some() || (own_address && self.keys.own(provider).is_some()) || is_signed
        };
        (needs_key && !is_there()).then(|| format!("key for the provider `{provider}`").into())
    }

    fn quote(&self, settings: &ModelSettings) -> Option<Quote> {
        let asked = settings.params.get(SERVICE_TIER).and_then(Value::as_str);
        if self.is_scripted(&settings.provider) {
            let live = self.scripts.find(&settings.model, &settings.params).ok();
            let rates = live.and_then(|live| live.rates(&settings.model));
            if let Some(rates) = rates {
                return Some(rates.of_request(asked).quote(SCRIPT_PRICES.into()));
            }
        }
        let other = self.other(&settings.provider).and_then(|other| other.quote(settings));
        let rates = self.rates(&settings.provider, &settings.model, settings.base_url.as_deref());
        let Some((rates, version)) = rates else { return other };
        let beyond = other.map_or(Amounts::ZERO, |other| other.beyond);
        Some(Quote { beyond, ..rates.of_request(asked).quote(version) })
    }

    fn traits(&self, settings: &ModelSettings) -> Traits {
        let ModelSettings { provider, model, base_url, .. } = settings;
        let context_tokens = self.guard.catalog().context_tokens(provider, model, base_url.as_deref());
        Traits { context_tokens, is_free: self.is_scripted(provider) || &**provider == CACHED }
    }

    fn chain(&self, settings: &ModelSettings) -> Option<Chain> {
        if !chains::is_listed(settings) {
            return None;
        }
        chains::chain(&self.guard, settings, today(), |called| (self.quote(called), self.traits(called)))
    }
}
