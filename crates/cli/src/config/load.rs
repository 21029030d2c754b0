//! Finds and merges the sources of the configuration, and keeps which one each value comes from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};
use serde::Serialize;
use windlass_core::breakers::FAILURES_KEPT_MAX;
use windlass_core::redact;

use super::{AUDIT_KEPT_MIN, Config, Preset, rate_limits};
use crate::args::Global;
use crate::exit::Problem;
use crate::places;

/// The file that is looked for.
const FILE_NAME: &str = "windlass.toml";
/// How long a command may take that tells a secret.
const SECRETS_TIMEOUT_MS_MAX: u64 = 60_000;
const PREFIX: &str = "WINDLASS_";
/// Variables that are read elsewhere: by the command line.
const NOT_KEYS: &[&str] = &["actor", "config"];

/// One value and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Origin {
    /// The key, parts joined by `.`.
    pub key: String,
    /// The value.
    pub value: serde_json::Value,
    /// `default`, `preset NAME`, a file's path, `environment NAME` or `flag`.
    pub source: String,
}

/// The configuration as loaded.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// The folder that paths in the file are relative to: absolute, the working directory without a file.
    pub folder: PathBuf,
    figment: Figment,
}

impl Loaded {
    /// Every value with its source, in the order of keys, as it may be shown: without credentials.
    #[must_use]
    pub(crate) fn origins(&self) -> Vec<Origin> {
        let json = serde_json::to_value(&self.config).unwrap_or_default();
        let mut found = Vec::new();
        self.collect("", &json, &mut found);
        found
    }

    fn collect(&self, key: &str, value: &serde_json::Value, found: &mut Vec<Origin>) {
        match value {
            serde_json::Value::Object(map) if !map.is_empty() => {
                for (name, inner) in map {
                    let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    self.collect(&path, inner, found);
                }
            }
            serde_json::Value::Null => {}
            _ => {
                let source = self.figment.find_metadata(key).map_or_else(|| "default".to_owned(), |m| source(m, key));
                found.push(Origin { key: key.to_owned(), value: shown(key, value), source });
            }
        }
    }
}

/// A value without the credentials that may be in it: addresses lose theirs, and a key that is one is not shown.
fn shown(key: &str, value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::String(text) => {
            let mut parts = key.rsplit('.');
            let name = parts.next().unwrap_or_default();
            // Which headers hold credentials is up to those who read them.
            let is_header = parts.next() == Some("headers");
            // Classes of what is looked for are named after secrets; their values are words such as `mask`.
            let is_mode = key.strip_prefix("scan.").is_some_and(|class| class == name);
            let is_secret = (is_header || redact::is_secret_name(name)) && !is_mode && !redact::is_reference(text);
            if is_secret { "***".into() } else { option(text).unwrap_or_else(|| redact::address(text)).into() }
        }
        serde_json::Value::Array(items) => items.iter().map(|item| shown(key, item)).collect(),
        other => other.clone(),
    }
}

/// A word of a command line such as `--token=VALUE`, without the value.
fn option(text: &str) -> Option<String> {
    let (name, value) = text.split_once('=')?;
    let is_secret = name.starts_with('-') && redact::is_secret_name(name) && !redact::is_reference(value);
    is_secret.then(|| format!("{name}=***"))
}

fn source(metadata: &Metadata, key: &str) -> String {
    match (&metadata.source, &*metadata.name) {
        (Some(Source::File(path)), _) => path.display().to_string(),
        (_, "environment") => format!("environment {}", variable(key)),
        (_, name) => name.to_owned(),
    }
}

/// The environment variable of a key.
#[must_use]
pub(crate) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Loads the configuration for a command. `beside` is the machine document that the command is about.
///
/// # Errors
/// A file that cannot be read, or a key or value that is not valid, each with its place.
pub(crate) fn load(global: &Global, beside: Option<&Path>) -> Result<Loaded, Problem> {
    let file = find(global, beside)?;
    let text = match &file {
        Some(path) => Some(read(path)?),
        None => None,
    };
    let mut figment = Figment::new();
    if let (Some(path), Some(text)) = (&file, &text) {
        figment = figment.merge(FileText { path: path.clone(), text: text.clone() });
    }
    figment = figment.merge(Variables).merge(Flags::of(global));
    let preset: Preset = match figment.contains("preset") {
        true => figment.extract_inner("preset").map_err(problem)?,
        false => Preset::default(),
    };
    let figment = figment
        .join(Named { name: format!("preset {}", preset.as_str()), inner: Toml::string(preset.keys()) })
        .join(Named { name: "default".into(), inner: Serialized::defaults(Config::default()) });
    let config: Config = figment.extract().map_err(problem)?;
    check(&config)?;
    if preset == Preset::ProdSafe {
        check_what_is_kept(&config)?;
    }
    // Absolute, for programs are started with it as their working directory, and a file name alone has an empty parent.
    let folder = places::absolute(file.as_deref().and_then(Path::parent).unwrap_or_else(|| Path::new("")));
    Ok(Loaded { config, file, folder, figment })
}

/// What no single value shows to be wrong.
fn check(config: &Config) -> Result<(), Problem> {
    let wrong = |message: String| Problem::new(crate::exit::Exit::Invalid, "cli.config", message);
    for (name, objective) in &config.objectives {
        if objective.p95_cost_micros.is_some() == objective.day_cost_micros.is_some() {
            return Err(wrong(format!("`objectives.{name}` has one of `p95_cost_micros` and `day_cost_micros`")));
        }
    }
    if let Err((key, why)) = rate_limits(&config.limits.rates) {
        let hint = "docs/limits.md has examples of `[[limits.rates]]`";
        return Err(wrong(format!("`{key}` {why}")).detail("key", key).hint(hint));
    }
    if let Some(candidate) = &config.policy.candidate {
        let (key, why) = match candidate.check() {
            Err((key, why)) => (format!("policy.candidate.{key}"), why),
            Ok(()) if config.policy.path.is_none() => {
                ("policy.path".into(), "names the rule set in force, beside which a candidate is tried")
            }
            Ok(()) => (String::new(), ""),
        };
        if !key.is_empty() {
            let hint = "docs/policy.md has an example of `[policy.candidate]`";
            return Err(wrong(format!("`{key}` {why}")).detail("key", key).hint(hint));
        }
    }
    for (name, program) in &config.secrets.commands {
        let why = match program.first() {
            _ if !windlass::secrets::is_name(name) => {
                "names no secret: use up to 128 letters, digits, `.`, `_` and `-`"
            }
            None => "is the program that tells the secret, and its arguments: `[\"pass\", \"show\", \"crm\"]`",
            Some(first) if first.is_empty() => "names no program",
            Some(_) => continue,
        };
        let key = format!("secrets.commands.{name}");
        let hint = "docs/secrets.md has recipes for keychains and vaults";
        return Err(wrong(format!("`{key}` {why}")).detail("key", key).hint(hint));
    }
    if !(1..=SECRETS_TIMEOUT_MS_MAX).contains(&config.secrets.timeout.0) {
        return Err(wrong("`secrets.timeout` is from `1ms` to `1m`".into()).detail("key", "secrets.timeout"));
    }
    if let Err((key, why)) = config.trust.check() {
        let key = format!("trust.{key}");
        return Err(wrong(format!("`{key}` {why}")).detail("key", key).hint("docs/policy.md says what each is"));
    }
    let at = &config.limits.breakers;
    for (name, bound) in [("failed_calls", at.failed_calls), ("failed_attempts", at.failed_attempts)] {
        if bound.is_some_and(|bound| bound > FAILURES_KEPT_MAX) {
            return Err(wrong(format!("`limits.breakers.{name}` is at most {FAILURES_KEPT_MAX}: no more are counted")));
        }
    }
    Ok(())
}

/// Where it counts, what happened is kept for some time, whatever else the configuration says.
fn check_what_is_kept(config: &Config) -> Result<(), Problem> {
    let wrong = |key: &str, message: String, hint: &str| {
        Err(Problem::new(crate::exit::Exit::Invalid, "cli.config", message).detail("key", key).hint(hint))
    };
    if config.store.0 == "memory:" {
        let message = "`store`: the preset `prod-safe` takes no store that forgets what happened";
        return wrong(
            "store",
            message.into(),
            "name a file (`sqlite:PATH`) or a database (`postgres://HOST/DATABASE`)",
        );
    }
    if config.audit.keep.0 < AUDIT_KEPT_MIN.0 {
        let message = format!("`audit.keep`: the preset `prod-safe` keeps audit rows for {AUDIT_KEPT_MIN} at least");
        return wrong("audit.keep", message, "leave `keep` out under `[audit]`: rows are kept for 180 days then");
    }
    Ok(())
}

/// Environment variables with our prefix that name no key. Names that container platforms make up are left out.
#[must_use]
pub(crate) fn unknown_variables() -> Vec<String> {
    let known = top_level_keys();
    std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| {
            name.strip_prefix(PREFIX).is_some_and(|rest| {
                let lower = rest.to_ascii_lowercase();
                let first = lower.split("__").next().unwrap_or_default();
                !(known.contains(first) || NOT_KEYS.contains(&first) || is_injected(rest))
            })
        })
        .collect()
}

/// A service called `windlass` makes platforms inject `WINDLASS_PORT`, `WINDLASS_SERVICE_HOST` and the like.
fn is_injected(rest: &str) -> bool {
    rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_")
}

fn top_level_keys() -> BTreeSet<String> {
    let schema = Config::schema();
    schema.get("properties").and_then(|p| p.as_object()).map(|p| p.keys().cloned().collect()).unwrap_or_default()
}

fn find(global: &Global, beside: Option<&Path>) -> Result<Option<PathBuf>, Problem> {
    if let Some(path) = &global.config {
        return Ok(Some(path.clone()));
    }
    let here = PathBuf::from(FILE_NAME);
    if here.is_file() {
        return Ok(Some(here));
    }
    Ok(beside.and_then(Path::parent).map(|folder| folder.join(FILE_NAME)).filter(|path| path.is_file()))
}

fn read(path: &Path) -> Result<String, Problem> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Problem::new(crate::exit::Exit::Invalid, "cli.config", format!("cannot read `{}`: {error}", path.display()))
            .hint("`--config FILE` names the configuration file")
    })?;
    // Read once on its own, so that a mistake is shown with line, column and excerpt.
    match toml::from_str::<Config>(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            let line = error.span().map(|span| line_of(&text, span.start));
            let place = line.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
            let message = format!("`{}{place}` is not valid: {}", path.display(), error.message().trim_end());
            let mut problem = Problem::new(crate::exit::Exit::Invalid, "cli.config", message)
                .hint("the keys are described in docs/reference/configuration.md")
                .detail("file", path.display().to_string());
            if let Some((line, column)) = line {
                problem = problem.detail("line", line).detail("column", column);
            }
            Err(problem)
        }
    }
}

/// Line and column of a byte, both from 1.
fn line_of(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn problem(error: figment::Error) -> Problem {
    let key = error.path.join(".");
    let at = if key.is_empty() { String::new() } else { format!(" for `{key}`") };
    let from = error.metadata.as_ref().map(|m| format!(" in {}", source(m, &key))).unwrap_or_default();
    Problem::new(
        crate::exit::Exit::Invalid,
        "cli.config",
        format!("the configuration is not valid{at}: {}{from}", error.kind),
    )
    .hint("`windlass config` shows every value and where it comes from")
}

/// A TOML file whose text has been read, named by its path.
struct FileText {
    path: PathBuf,
    text: String,
}

impl Provider for FileText {
    fn metadata(&self) -> Metadata {
        Metadata::named("file").source(Source::File(self.path.clone()))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Toml::string(&self.text).data()
    }
}

/// `WINDLASS_*`, with `__` between the parts of a key. Only names of keys are taken.
struct Variables;

impl Provider for Variables {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let known = top_level_keys();
        let wanted = move |name: &figment::value::UncasedStr| {
            let lower = name.as_str().to_ascii_lowercase();
            let mut parts = lower.split("__");
            let first = parts.next().unwrap_or_default().to_owned();
            known.contains(&first) && !is_injected(name.as_str())
        };
        let mut data = Env::prefixed(PREFIX).filter(wanted).split("__").data()?;
        // `WINDLASS_LOG=debug` is short for `WINDLASS_LOG__FILTER=debug`.
        for dict in data.values_mut() {
            if let Some(Value::String(tag, filter)) = dict.get("log").cloned() {
                let mut log = Dict::new();
                log.insert("filter".into(), Value::String(tag, filter));
                dict.insert("log".into(), Value::Dict(tag, log));
            }
        }
        Ok(data)
    }
}

/// Flags that set keys.
struct Flags(Dict);

impl Flags {
    fn of(global: &Global) -> Self {
        let mut dict = Dict::new();
        if let Some(store) = &global.store {
            dict.insert("store".into(), Value::from(store.clone()));
        }
        if let Some(preset) = global.preset {
            dict.insert("preset".into(), Value::from(preset.as_str()));
        }
        if let Some(log) = &global.log {
            dict.insert("log".into(), Value::from(Dict::from([("filter".to_owned(), Value::from(log.clone()))])));
        }
        Self(dict)
    }
}

impl Provider for Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named("flag")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.0.clone())]))
    }
}

/// Another provider under a name for people.
struct Named<P> {
    name: String,
    inner: P,
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        self.inner.data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_without_credentials() {
        for (key, value, expected) in [
            ("store", "postgres://me:p/w@h/d", "postgres://me@h/d"),
            ("providers.p.base_url", "https://me:pw@h/v1?key=x", "https://h/v1"),
            ("hooks.h.headers.Authorization", "Bearer x", "***"),
            ("tools.t.api_key", "env:KEY", "env:KEY"),
            ("providers.p.headers.Cookie", "session=x", "***"),
            ("providers.p.headers.X-Key", "env:KEY", "env:KEY"),
            ("tools.t.command", "--token=x", "--token=***"),
            ("tools.t.command", "--verbose=x", "--verbose=x"),
            ("store", "sqlite:a.db", "sqlite:a.db"),
        ] {
            assert_eq!(shown(key, &value.into()), serde_json::Value::from(expected), "{key}");
        }
    }
}
