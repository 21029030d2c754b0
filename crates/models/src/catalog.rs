//! The model catalog: models by a name of one's own, with tier, price, limits, tags and the day they retire, and the
//! fallback chains made of them. Reads text; knows no clock and no health.

use std::collections::BTreeSet;

use jiff::civil::Date;
use serde::Deserialize;
use windlass_core::failure::Code;
use windlass_core::file::Medium;
use windlass_core::ids::Name;
use windlass_core::machine::ModelSettings;
use windlass_core::route::table::{Compare, Escalation, Row, Rules, Test};
use windlass_core::value::Value;

use crate::health::{Breaker, Patience, RetryBudget};
use crate::prices::{BookError, Rates};

/// Bytes of a catalog that are read.
const CATALOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The provider under which documents name a model of the catalog.
pub const MODEL: &str = "catalog";

/// The provider under which documents name a chain of the catalog.
pub const CHAIN: &str = "chain";

/// Failures after which the next link is tried where a link lists none: those that another provider may not have.
pub const ON_DEFAULT: &[Code] = &[
    Code::ProviderRateLimited,
    Code::ProviderUnavailable,
    Code::ProviderUnreachable,
    Code::ProviderTimeout,
    Code::ProviderTruncated,
    Code::ProviderMalformed,
];

/// A model under a name of one's own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name here.
    pub name: Name,
    /// Who serves it.
    pub provider: Name,
    /// Its name there.
    pub model: Name,
    /// Address, for a server of one's own.
    #[serde(default)]
    pub base_url: Option<Name>,
    /// A word for its class: `fast`, `strong`.
    #[serde(default)]
    pub tier: Name,
    /// Words to find it by.
    #[serde(default)]
    pub tags: Vec<Name>,
    /// Tokens of a conversation that it takes. A call with more is not sent.
    #[serde(default)]
    pub context_tokens: Option<u64>,
    /// Output tokens that it gives at most; a higher maximum is lowered to this.
    #[serde(default)]
    pub output_tokens: Option<u64>,
    /// Its price, before those of the price book.
    #[serde(default)]
    pub rates: Option<Rates>,
    /// The first day on which its provider no longer serves it.
    #[serde(default)]
    pub retires: Option<Date>,
    /// The name of the entry that takes its place from that day on.
    #[serde(default)]
    pub replacement: Option<Name>,
    /// The files that it takes: `image`, `pdf`; as its provider does without this.
    #[serde(default)]
    pub takes: Option<Vec<Medium>>,
    /// Parameters, before those of the document.
    #[serde(default)]
    pub params: Option<std::collections::BTreeMap<String, serde_json::Value>>,
}

/// One link of a chain: exactly one of `model`, `tagged`, `cached` and `script`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkEntry {
    /// An entry of the catalog.
    #[serde(default)]
    pub model: Option<Name>,
    /// Every model of the catalog that has all of these tags, in the catalog's order: as many links, all but those that
    /// the chain names otherwise.
    #[serde(default)]
    pub tagged: Option<Vec<Name>>,
    /// An answer that was given before to the same request of the same tenant.
    #[serde(default)]
    pub cached: bool,
    /// A script of rules.
    #[serde(default)]
    pub script: Option<Name>,
    /// Milliseconds for one attempt; the document's when absent.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Failures after which the next link is tried, by code; [`ON_DEFAULT`] when absent.
    #[serde(default)]
    pub on: Option<Vec<Code>>,
    /// When it is left alone.
    #[serde(default)]
    pub breaker: Breaker,
}

/// A row of a decision table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowEntry {
    /// Its name, as it is journaled.
    pub row: Name,
    /// Values of the run's context, by their keys with dots between: a value that it must be, or a mapping of one of
    /// `is`, `at_least`, `above`, `at_most`, `below`, `one_of`. Without any, the row fits always.
    #[serde(default)]
    pub when: std::collections::BTreeMap<String, serde_json::Value>,
    /// The tier of the links that are taken then.
    pub tier: Name,
}

/// After which failures a call is made again at a better tier.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscalateEntry {
    /// The failures, by code.
    pub on: Vec<Code>,
    /// The better tier.
    pub to: Name,
    /// How often in one run.
    pub at_most: u32,
}

/// Ways in which calls can be made, first choice first.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainEntry {
    /// Its name.
    pub name: Name,
    /// Its links.
    pub links: Vec<LinkEntry>,
    /// The decision table: which tier a call begins with, by the run's context.
    #[serde(default)]
    pub table: Vec<RowEntry>,
    /// After which failures a call is made again at a better tier.
    #[serde(default)]
    pub escalate: Option<EscalateEntry>,
    /// Milliseconds for which answers are kept for `cached` links; zero keeps none.
    #[serde(default)]
    pub cache_ttl_ms: u64,
}

/// The catalog.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// Version under which its prices are journaled.
    #[serde(default = "unversioned")]
    pub version: Name,
    /// Models.
    #[serde(default)]
    pub models: Vec<Entry>,
    /// Chains.
    #[serde(default)]
    pub chains: Vec<ChainEntry>,
    /// Days before a model retires from which on it is warned of.
    #[serde(default = "warn_days")]
    pub warn_days: u32,
    /// How long calls wait for quota.
    #[serde(default)]
    pub quota_wait: Patience,
    /// How many repeats of failed calls are allowed.
    #[serde(default)]
    pub retry_budget: RetryBudget,
}

fn unversioned() -> Name {
    "catalog".into()
}

fn warn_days() -> u32 {
    30
}

impl ChainEntry {
    /// The rules by which its links are chosen.
    ///
    /// # Errors
    /// A comparison that is none.
    pub(crate) fn rules(&self) -> Result<Rules, String> {
        let table = self.table.iter().map(|entry| {
            let when = entry.when.iter().map(|(path, with)| test(&entry.row, path, with)).collect::<Result<_, _>>()?;
            Ok(Row { name: entry.row.clone(), when, tier: entry.tier.clone() })
        });
        let escalation = self.escalate.as_ref();
        let escalation = escalation.map(|e| Escalation { on: e.on.clone(), to: e.to.clone(), at_most: e.at_most });
        Ok(Rules { table: table.collect::<Result<_, String>>()?, escalation })
    }
}

fn test(row: &str, path: &str, with: &serde_json::Value) -> Result<Test, String> {
    let of = |compare, with: &serde_json::Value| Test { path: path.into(), compare, with: with.clone().into() };
    let Some(map) = with.as_object() else { return Ok(of(Compare::Is, with)) };
    match map.iter().next().filter(|_| map.len() == 1).and_then(|(word, with)| Some((Compare::parse(word)?, with))) {
        Some((Compare::OneOf, with)) if !with.is_array() => Err(format!("has a row `{row}` with no list in `one_of`")),
        Some((compare, with)) => Ok(of(compare, with)),
        None => Err(format!("has a row `{row}` that compares `{path}` in no known way")),
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            version: unversioned(),
            models: Vec::new(),
            chains: Vec::new(),
            warn_days: warn_days(),
            quota_wait: Patience::default(),
            retry_budget: RetryBudget::default(),
        }
    }
}

/// A model that is or soon will be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retirement {
    /// Its name in the catalog.
    pub name: Name,
    /// The model as its provider knows it.
    pub model: Name,
    /// The first day without it.
    pub day: Date,
    /// Whole days until then; zero or less once it is gone.
    pub days_left: i32,
    /// What takes its place.
    pub replacement: Option<Name>,
}

impl std::fmt::Display for Retirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, model, day, days_left, replacement } = self;
        match days_left {
            ..=0 => write!(f, "the model `{name}` (`{model}`) retired on {day}")?,
            days => write!(f, "the model `{name}` (`{model}`) retires on {day}, in {days} days")?,
        }
        match replacement {
            Some(other) => write!(f, "; `{other}` takes its place"),
            None => write!(f, "; the catalog names no replacement"),
        }
    }
}

impl Catalog {
    /// Reads a catalog: YAML or JSON.
    ///
    /// # Errors
    /// Text that is no catalog, with line and column; names that are given twice or that nothing has; links that are
    /// none.
    pub fn parse(text: &str) -> Result<Self, BookError> {
        let whole = |message| BookError { line: 0, column: 0, message };
        if text.len() > CATALOG_BYTES_MAX {
            return Err(whole(format!("has more than {CATALOG_BYTES_MAX} bytes")));
        }
        let mut catalog: Self = serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location();
            let (line, column) = place.map_or((0, 0), |p| (p.line(), p.column()));
            BookError { line, column, message: error.without_snippet().to_string() }
        })?;
        catalog.check().map_err(whole)?;
        catalog.select().map_err(whole)?;
        Ok(catalog)
    }

    /// Puts links of single models in the place of those that name tags.
    fn select(&mut self) -> Result<(), String> {
        for chain in &mut self.chains {
            let mut named: BTreeSet<Name> = chain.links.iter().filter_map(|link| link.model.clone()).collect();
            let mut links = Vec::with_capacity(chain.links.len());
            for link in std::mem::take(&mut chain.links) {
                let Some(tags) = &link.tagged else {
                    links.push(link);
                    continue;
                };
                let before = links.len();
                for entry in self.models.iter().filter(|entry| tags.iter().all(|tag| entry.tags.contains(tag))) {
                    if named.insert(entry.name.clone()) {
                        links.push(LinkEntry { model: Some(entry.name.clone()), tagged: None, ..link.clone() });
                    }
                }
                if links.len() == before {
                    return Err(format!(
                        "the chain `{}` asks for the tags {tags:?}, which no further model has",
                        chain.name
                    ));
                }
            }
            chain.links = links;
        }
        self.chains.iter().try_for_each(|chain| self.check_rules(chain))
    }

    fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for entry in &self.models {
            if !names.insert(&entry.name) {
                return Err(format!("names the model `{}` twice", entry.name));
            }
            if crate::is_reserved(&entry.provider) {
                return Err(format!("the model `{}` cannot be served by `{}`", entry.name, entry.provider));
            }
        }
        for entry in &self.models {
            self.replacements(entry)?;
        }
        if self.retry_budget.percent > 100 {
            let percent = self.retry_budget.percent;
            return Err(format!(
                "has a `retry_budget` of {percent} percent: at most every call is repeated, which is 100"
            ));
        }
        self.check_same()?;
        let mut chains = BTreeSet::new();
        for chain in &self.chains {
            if !chains.insert(&chain.name) {
                return Err(format!("names the chain `{}` twice", chain.name));
            }
            self.check_links(chain)?;
        }
        Ok(())
    }

    fn check_links(&self, chain: &ChainEntry) -> Result<(), String> {
        let of = |why: String| format!("the chain `{}` {why}", chain.name);
        if chain.links.is_empty() {
            return Err(of("has no links".to_owned()));
        }
        for link in &chain.links {
            let kinds = [link.model.is_some(), link.tagged.is_some(), link.cached, link.script.is_some()];
            if kinds.iter().filter(|kind| **kind).count() != 1 {
                let why = "has a link that is not exactly one of `model`, `tagged`, `cached` and `script`";
                return Err(of(why.to_owned()));
            }
            if let Some(name) = link.model.as_ref().filter(|name| self.entry(name).is_none()) {
                return Err(of(format!("names the model `{name}`, which the catalog does not have")));
            }
            link.breaker.check().map_err(|why| of(format!("has a link whose breaker {why}")))?;
            if link.cached && chain.cache_ttl_ms == 0 {
                return Err(of("has a `cached` link and keeps no answers: set `cache_ttl_ms`".to_owned()));
            }
        }
        Ok(())
    }

    /// Every tier that the rules of a chain name is one of its links, what they lead to stands behind another tier, and
    /// every comparison is one.
    fn check_rules(&self, chain: &ChainEntry) -> Result<(), String> {
        let of = |why: String| format!("the chain `{}` {why}", chain.name);
        let rules = chain.rules().map_err(of)?;
        let has = |tier: &Name| chain.links.iter().any(|link| self.tier(link) == *tier);
        let named = rules.table.iter().map(|row| &row.tier).chain(rules.escalation.iter().map(|rule| &rule.to));
        for tier in named {
            if !has(tier) {
                return Err(of(format!("has no link of the tier `{tier}`, which its rules ask for")));
            }
        }
        if let Some(Escalation { to, .. }) = &rules.escalation {
            let first = chain.links.iter().position(|link| self.tier(link) != *to);
            let leads = first.is_some_and(|first| chain.links.iter().skip(first).any(|link| self.tier(link) == *to));
            if !leads {
                let why = "calls go on with links behind the one that failed; put those of this tier after the others";
                return Err(of(format!("escalates to the tier `{to}`, whose links stand before all others: {why}")));
            }
        }
        Ok(())
    }

    /// The tier of a link: that of its model.
    pub(crate) fn tier(&self, link: &LinkEntry) -> Name {
        match (&link.model, &link.script) {
            (Some(name), _) => self.entry(name).map_or_else(|| "".into(), |entry| entry.tier.clone()),
            (None, Some(_)) => "rules".into(),
            (None, None) => "cached".into(),
        }
    }

    fn replacements(&self, entry: &Entry) -> Result<(), String> {
        let (mut at, mut seen) = (entry, BTreeSet::from([&entry.name]));
        while let Some(name) = &at.replacement {
            at = self
                .entry(name)
                .ok_or_else(|| format!("`{}` is to be replaced by `{name}`, which is not there", at.name))?;
            if !seen.insert(&at.name) {
                return Err(format!("the replacements of `{}` go in a circle", entry.name));
            }
        }
        Ok(())
    }

    /// The same catalog as if a model had retired long ago, by its name here or as its provider knows it, with another entry
    /// in its place where one is given.
    ///
    /// # Errors
    /// An entry that is not there, or replacements that go in a circle.
    pub fn retired(&self, model: &str, to: Option<&str>) -> Result<Self, String> {
        let mut catalog = self.clone();
        if let Some(name) = to.filter(|name| catalog.entry(name).is_none()) {
            return Err(format!("the model catalog has no model `{name}`"));
        }
        for entry in catalog.models.iter_mut().filter(|entry| *entry.name == *model || *entry.model == *model) {
            entry.retires = Some(Date::ZERO);
            entry.replacement = to.map(Into::into).or_else(|| entry.replacement.take());
        }
        catalog.models.iter().try_for_each(|entry| catalog.replacements(entry))?;
        Ok(catalog)
    }

    /// The entry of a name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.models.iter().find(|entry| &*entry.name == name)
    }

    /// The chain of a name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&ChainEntry> {
        self.chains.iter().find(|chain| &*chain.name == name)
    }

    /// The entry that stands for a name on a day: a retired model is taken over by its replacement, if it has one.
    #[must_use]
    pub fn serving(&self, name: &str, today: Date) -> Option<&Entry> {
        let mut entry = self.entry(name)?;
        while let (Some(day), Some(next)) = (entry.retires, &entry.replacement) {
            if day > today {
                break;
            }
            entry = self.entry(next)?;
        }
        Some(entry)
    }

    /// Whether an entry says that a provider is to be called at this address.
    pub(crate) fn has_address(&self, provider: &str, address: &str) -> bool {
        let is = |url: &Name| url.trim().trim_end_matches('/') == address.trim().trim_end_matches('/');
        self.models.iter().any(|entry| &*entry.provider == provider && entry.base_url.as_ref().is_some_and(is))
    }

    /// The price of a model at a provider, when an entry says it: one with this address before one with another.
    #[must_use]
    pub fn rates(&self, provider: &str, model: &str, base_url: Option<&str>) -> Option<Rates> {
        self.served(provider, model, base_url).find_map(|entry| entry.rates)
    }

    /// The tokens of a conversation that a model at a provider takes, when an entry says it: one with this address before one
    /// with another.
    #[must_use]
    pub fn context_tokens(&self, provider: &str, model: &str, base_url: Option<&str>) -> Option<u64> {
        self.served(provider, model, base_url).find_map(|entry| entry.context_tokens)
    }

    /// The files that a model at a provider takes, when an entry says it: one with this address before one with another.
    #[must_use]
    pub fn takes(&self, provider: &str, model: &str, base_url: Option<&str>) -> Option<&[Medium]> {
        self.served(provider, model, base_url).find_map(|entry| entry.takes.as_deref())
    }

    /// The entries of a model at a provider, those with this address first.
    fn served(&self, provider: &str, model: &str, base_url: Option<&str>) -> impl Iterator<Item = &Entry> {
        let is = move |entry: &&Entry| &*entry.provider == provider && &*entry.model == model;
        let here = move |entry: &&Entry| entry.base_url.as_deref() == base_url;
        let all = move || self.models.iter().filter(is);
        all().filter(here).chain(all().filter(move |entry| !here(entry)))
    }

    /// Two entries of one model at one address have one price and take the same files: a call names the model, not the
    /// entry.
    fn check_same(&self) -> Result<(), String> {
        for (place, one) in self.models.iter().enumerate() {
            let place_of = |entry: &Entry| (entry.provider.clone(), entry.model.clone(), entry.base_url.clone());
            let same = self.models.iter().skip(place + 1).filter(|other| place_of(other) == place_of(one));
            for other in same {
                let of = |what| {
                    format!(
                        "`{}` and `{}` are one model of `{}` with different {what}",
                        one.name, other.name, one.provider
                    )
                };
                if one.rates.zip(other.rates).is_some_and(|(one, other)| one != other) {
                    return Err(of("`rates`"));
                }
                if one.context_tokens.zip(other.context_tokens).is_some_and(|(one, other)| one != other) {
                    return Err(of("`context_tokens`"));
                }
                if one.takes.as_ref().zip(other.takes.as_ref()).is_some_and(|(one, other)| one != other) {
                    return Err(of("`takes`"));
                }
            }
        }
        Ok(())
    }

    /// Those of [`Catalog::retirements`] that are called by such settings, by name, by a chain, or as their provider knows
    /// them.
    #[must_use]
    pub fn retirements_of(&self, settings: &ModelSettings, today: Date) -> Vec<Retirement> {
        let links = self.chain(&settings.model).filter(|_| &*settings.provider == CHAIN);
        let linked =
            |name: &Name| links.is_some_and(|chain| chain.links.iter().any(|l| l.model.as_ref() == Some(name)));
        let is_used = |entry: &Entry| match &*settings.provider {
            MODEL => entry.name == settings.model,
            CHAIN => linked(&entry.name),
            provider => *entry.provider == *provider && entry.model == settings.model,
        };
        let mut found = self.retirements(today);
        found.retain(|retirement| self.entry(&retirement.name).is_some_and(is_used));
        found
    }

    /// Models that are gone or will be within [`Catalog::warn_days`], the most urgent first.
    #[must_use]
    pub fn retirements(&self, today: Date) -> Vec<Retirement> {
        let mut out: Vec<Retirement> = self
            .models
            .iter()
            .filter_map(|entry| {
                let day = entry.retires?;
                let days_left = today.until(day).ok()?.get_days();
                (days_left <= i32::try_from(self.warn_days).unwrap_or(i32::MAX)).then(|| Retirement {
                    name: entry.name.clone(),
                    model: entry.model.clone(),
                    day,
                    days_left,
                    replacement: entry.replacement.clone(),
                })
            })
            .collect();
        out.sort_by_key(|retirement| retirement.days_left);
        out
    }
}

impl Entry {
    /// The parameters of a call: the entry's, and over them the document's.
    pub(crate) fn params(&self, of_document: &Value) -> Value {
        let own = self.params.iter().flatten().map(|(key, value)| (key.as_str().into(), Value::from(value.clone())));
        let mut params: windlass_core::value::Map = own.collect();
        for (key, value) in of_document.as_map().into_iter().flatten() {
            params.insert(key.clone(), value.clone());
        }
        if params.is_empty() { of_document.clone() } else { Value::map(params) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
version: house-1
models:
- {name: fast, provider: openai, model: gpt-5-mini, tier: fast, retires: 2026-12-01, replacement: faster}
- {name: faster, provider: local, model: ours, base_url: 'http://localhost:8000/v1', rates: {input: 1, output: 2}}
chains:
- name: answers
  cache_ttl_ms: 1000
  links:
  - {model: fast, timeout_ms: 2000, on: [provider.timeout], breaker: {percent: 10}}
  - {cached: true}
  - {script: rules.yml}
";

    #[test]
    fn a_catalog_is_read_and_its_retirements_are_known() {
        let catalog = Catalog::parse(TEXT).expect("valid");
        let day = |text: &str| text.parse::<Date>().expect("a day");
        assert_eq!(catalog.retirements(day("2026-10-31")), vec![]);
        let soon = catalog.retirements(day("2026-11-21"));
        assert_eq!(soon[0].days_left, 10);
        assert_eq!(
            soon[0].to_string(),
            "the model `fast` (`gpt-5-mini`) retires on 2026-12-01, in 10 days; `faster` takes its place"
        );
        assert!(catalog.retirements(day("2027-01-01"))[0].days_left < 0);
        let serving = |text: &str| catalog.serving("fast", day(text)).map(|entry| &*entry.name);
        assert_eq!((serving("2026-11-30"), serving("2026-12-01")), (Some("fast"), Some("faster")));
        assert_eq!(catalog.rates("local", "ours", None).map(|r| r.output), Some(2));
        assert_eq!(catalog.chain("answers").map(|chain| chain.links[0].breaker.percent), Some(10));
    }

    #[test]
    fn mistakes_are_named() {
        let says = |text: &str, part: &str| {
            let error = Catalog::parse(text).expect_err(part);
            assert!(error.message.contains(part), "{error}");
        };
        let model = "models: [{name: a, provider: p, model: m}";
        says(&format!("{model}, {{name: a, provider: p, model: n}}]"), "twice");
        says(&format!("{model}]\nchains: [{{name: c, links: [{{model: b}}]}}]"), "does not have");
        says(&format!("{model}]\nchains: [{{name: c, links: [{{model: a, cached: true}}]}}]"), "exactly one");
        says(&format!("{model}]\nchains: [{{name: c, links: [{{cached: true}}]}}]"), "cache_ttl_ms");
        says("models: [{name: a, provider: cached, model: m}]", "cannot be served by `cached`");
        says(&format!("{model}]\nretry_budget: {{percent: 101}}"), "101 percent");
        let breaker = |rules: &str, part: &str| {
            says(&format!("{model}]\nchains: [{{name: c, links: [{{model: a, breaker: {rules}}}]}}]"), part);
        };
        breaker("{window: 3}", "looks at 3 calls and needs 5");
        breaker("{window: 0, calls_min: 0}", "`window` is 1 to");
        breaker("{percent: 500}", "opens at 500 percent");
        says(&format!("{model}]\nchains: [{{name: c, links: [{{model: a, on: [nonsense]}}]}}]"), "nonsense");
        says(&format!("{model}]\nchains: [{{name: c, links: []}}]"), "no links");
        says("models: [{name: a, provider: p, model: m, replacement: a}]", "circle");
        says("models: [{name: a, provider: p, model: m, colour: red}]", "colour");
        let priced =
            "models: [{name: a, provider: p, model: m, rates: {input: 1, output: 1}}, {name: b, provider: p, model: m";
        says(&format!("{priced}, rates: {{input: 2, output: 1}}}}]"), "different `rates`");
        let taking = "models: [{name: a, provider: p, model: m, takes: [pdf]}, {name: b, provider: p, model: m, takes: [image]}]";
        says(taking, "different `takes`");
        let apart = format!("{priced}, base_url: 'http://h/v1', rates: {{input: 2, output: 1}}}}]");
        let catalog = Catalog::parse(&apart).expect("two servers have two prices");
        let price = |url| catalog.rates("p", "m", url).map(|rates| rates.input);
        assert_eq!([price(None), price(Some("http://h/v1")), price(Some("http://i/v1"))], [Some(1), Some(2), Some(1)]);
    }
}
