//! Chains of the catalog as the engine's decision sees them: each link with how it is called, what it costs at most, and
//! whether it can be used now.

use jiff::civil::Date;
use windlass_core::ids::Name;
use windlass_core::input::{Quote, Traits};
use windlass_core::machine::ModelSettings;
use windlass_core::route::table::Rules;
use windlass_core::route::{Chain, Link};
use windlass_core::value::{Map, Value};

use crate::catalog::{CHAIN, Catalog, Entry, LinkEntry, MODEL, ON_DEFAULT};
use crate::guard::{CACHED, Guard};

impl LinkEntry {
    /// The link's name: that of its model or script.
    pub(crate) fn name(&self) -> &str {
        self.model.as_deref().or(self.script.as_deref()).unwrap_or(CACHED)
    }
}

/// Whether the catalog says how such a model is called.
pub(crate) fn is_listed(settings: &ModelSettings) -> bool {
    matches!(&*settings.provider, CHAIN | MODEL)
}

/// The links by which a model of the catalog is called today; none for any other model, and for a name that the catalog
/// does not have.
pub(crate) fn chain(
    guard: &Guard,
    settings: &ModelSettings,
    today: Date,
    known: impl Fn(&ModelSettings) -> (Option<Quote>, Traits),
) -> Option<Chain> {
    let catalog = guard.catalog();
    let mut rules = Rules::default();
    let links: Vec<Link> = match &*settings.provider {
        MODEL => {
            let entry = catalog.serving(&settings.model, today)?;
            let called = called(entry, settings, None);
            let (quote, traits) = known(&called);
            vec![Link {
                name: entry.name.clone(),
                tier: entry.tier.clone(),
                quote,
                traits,
                settings: called,
                on: Vec::new(),
                shut: None,
                instead: instead(catalog, &settings.model, today),
            }]
        }
        CHAIN => {
            let chain = catalog.chain(&settings.model)?;
            // Checked when the catalog was read.
            rules = chain.rules().unwrap_or_default();
            let links = chain.links.iter().map(|entry| link(guard, &chain.name, entry, settings, today, &known));
            links.collect::<Option<Vec<Link>>>()?
        }
        _ => return None,
    };
    Some(Chain { name: settings.model.clone(), links, rules })
}

fn link(
    guard: &Guard,
    chain: &Name,
    entry: &LinkEntry,
    settings: &ModelSettings,
    today: Date,
    known: &impl Fn(&ModelSettings) -> (Option<Quote>, Traits),
) -> Option<Link> {
    let called = self::settings(guard.catalog(), chain, entry, settings, today)?;
    let tier = match (&entry.model, &entry.script) {
        (Some(name), _) => guard.catalog().serving(name, today)?.tier.clone(),
        (None, Some(_)) => "rules".into(),
        (None, None) => CACHED.into(),
    };
    let name: Name = entry.name().into();
    let (quote, traits) = known(&called);
    Some(Link {
        shut: guard.shut(chain, &name, &called),
        instead: entry.model.as_ref().and_then(|model| instead(guard.catalog(), model, today)),
        name,
        tier,
        quote,
        traits,
        settings: called,
        on: entry.on.clone().unwrap_or_else(|| ON_DEFAULT.to_vec()),
    })
}

/// Why another model is called than the one of a name; none when it is that one.
fn instead(catalog: &Catalog, name: &str, today: Date) -> Option<Name> {
    let entry = catalog.entry(name)?;
    let day = entry.retires.filter(|_| catalog.serving(name, today).is_some_and(|other| other.name != entry.name))?;
    Some(format!("`{name}` retired on {day}").into())
}

/// How a link of a chain is called on a day for a document that says so; none where its model is not served.
pub(crate) fn settings(
    catalog: &Catalog,
    chain: &Name,
    entry: &LinkEntry,
    settings: &ModelSettings,
    today: Date,
) -> Option<ModelSettings> {
    Some(match (&entry.model, &entry.script) {
        (Some(name), _) => called(catalog.serving(name, today)?, settings, entry.timeout_ms),
        (None, Some(script)) => by_rules(script, settings, entry.timeout_ms),
        (None, None) => from_before(chain, settings),
    })
}

fn called(entry: &Entry, settings: &ModelSettings, timeout_ms: Option<u64>) -> ModelSettings {
    let most = settings.max_tokens.into_iter().chain(entry.output_tokens).min();
    ModelSettings {
        provider: entry.provider.clone(),
        model: entry.model.clone(),
        base_url: entry.base_url.clone(),
        key: None,
        max_tokens: most,
        stream: settings.stream,
        params: entry.params(&settings.params),
        timeout_ms: timeout_ms.unwrap_or(settings.timeout_ms),
    }
}

fn by_rules(script: &Name, settings: &ModelSettings, timeout_ms: Option<u64>) -> ModelSettings {
    let mut params: Map = settings.params.as_map().cloned().unwrap_or_default();
    params.insert("script".into(), Value::Str(script.clone()));
    ModelSettings {
        provider: "scripted".into(),
        model: "rules".into(),
        base_url: None,
        key: None,
        params: Value::map(params),
        timeout_ms: timeout_ms.unwrap_or(settings.timeout_ms),
        ..settings.clone()
    }
}

fn from_before(chain: &Name, settings: &ModelSettings) -> ModelSettings {
    ModelSettings { provider: CACHED.into(), model: chain.clone(), base_url: None, key: None, ..settings.clone() }
}

/// Why a model of the catalog cannot be called.
pub(crate) fn missing(catalog: &Catalog, provider: &str, model: &str) -> String {
    let (kind, names): (_, Vec<&str>) = match provider {
        CHAIN => ("chain", catalog.chains.iter().map(|chain| &*chain.name).collect()),
        _ => ("model", catalog.models.iter().map(|entry| &*entry.name).collect()),
    };
    if names.is_empty() {
        return format!(
            "the model catalog of this process has no {kind} `{model}`; `models` in the configuration names it"
        );
    }
    format!("the model catalog has no {kind} `{model}`; it has `{}`", names.join("`, `"))
}
