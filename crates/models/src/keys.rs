//! Where keys come from, and how they are kept out of everything that is shown or stored.
//!
//! Reads no environment and no file: the caller hands everything in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use windlass_core::failure::Failure;
use windlass_core::value::{Map, Value};

/// Keys shorter than this are not looked for in texts: they would match by accident.
const REDACT_BYTES_MIN: usize = 8;

/// Values of one reference that are kept out of texts; the oldest is forgotten.
const REPLACED_MAX: usize = 16;

/// What stands in a text for a key.
const REDACTED: &str = "[redacted]";

/// Finds the secret behind a reference that a document holds.
pub type Lookup = dyn Fn(&str) -> Option<SecretString> + Send + Sync;

/// References that are looked up when a document needs them, and what was found so far.
#[derive(Clone, Default)]
struct Looked {
    up: Option<Arc<Lookup>>,
    /// Every value so far: what was replaced is still not to be shown.
    found: Arc<Mutex<BTreeMap<String, Vec<SecretString>>>>,
}

impl fmt::Debug for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Looked")
    }
}

impl Looked {
    fn found(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<SecretString>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn up(&self, reference: &str) -> Option<SecretString> {
        let secret = (self.up.as_ref()?)(reference).filter(|secret| given(Some(secret)).is_some())?;
        let mut found = self.found();
        let values = found.entry(reference.to_owned()).or_default();
        if !values.iter().any(|known| known.expose_secret() == secret.expose_secret()) {
            values.push(secret.clone());
            let excess = values.len().saturating_sub(REPLACED_MAX);
            values.drain(..excess);
        }
        Some(secret)
    }
}

/// Every key this process knows. `Debug` shows names only.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    secrets: BTreeMap<String, SecretString>,
    providers: BTreeMap<String, SecretString>,
    references: BTreeMap<String, String>,
    environment: BTreeMap<String, SecretString>,
    looked: Looked,
}

impl Keys {
    /// Adds a secret that documents refer to by `reference`.
    #[must_use]
    pub fn secret(mut self, reference: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.secrets.insert(reference.into(), value.into());
        self
    }

    /// Adds the key of a provider, as configured.
    #[must_use]
    pub fn provider(mut self, provider: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.providers.insert(provider.into(), value.into());
        self
    }

    /// Says by which reference the key of a provider is looked up, each time it is needed: it may change.
    #[must_use]
    pub fn provider_reference(mut self, provider: impl Into<String>, reference: impl Into<String>) -> Self {
        self.references.insert(provider.into(), reference.into());
        self
    }

    /// Adds the value of an environment variable that the caller read; [`variable`] names the one of a provider.
    #[must_use]
    pub fn environment(mut self, variable: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.environment.insert(variable.into(), value.into());
        self
    }

    /// Looks up references that are not known, each time a document needs one: for a process that runs documents it has
    /// not seen yet.
    #[must_use]
    pub fn lookup(mut self, lookup: Arc<Lookup>) -> Self {
        self.looked.up = Some(lookup);
        self
    }

    /// These keys, and those of another set that have no name here.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let add = |to: &mut BTreeMap<String, SecretString>, from: BTreeMap<String, SecretString>| {
            from.into_iter().for_each(|(name, value)| {
                to.entry(name).or_insert(value);
            });
        };
        for (provider, reference) in other.references {
            self.references.entry(provider).or_insert(reference);
        }
        add(&mut self.secrets, other.secrets);
        add(&mut self.providers, other.providers);
        add(&mut self.environment, other.environment);
        if self.looked.up.is_none() {
            self.looked = other.looked;
        }
        self
    }

    /// The key that a document refers to. Empty values count as absent.
    #[must_use]
    pub fn referred(&self, reference: &str) -> Option<SecretString> {
        let known = given(self.secrets.get(reference)).or_else(|| given(self.environment.get(reference)));
        known.cloned().or_else(|| self.looked.up(reference))
    }

    /// By which reference the key of a provider is looked up, where it is.
    pub(crate) fn reference(&self, provider: &str) -> Option<&str> {
        self.references.get(provider).map(String::as_str)
    }

    /// The key of a provider: what is configured, else what the environment says. Empty values count as absent.
    #[must_use]
    pub fn own(&self, provider: &str) -> Option<SecretString> {
        let configured = given(self.providers.get(provider)).cloned();
        let looked_up = || self.looked.up(self.references.get(provider)?);
        configured.or_else(looked_up).or_else(|| given(self.environment.get(&variable(provider))).cloned())
    }

    /// The text without any known key.
    #[must_use]
    pub fn redact(&self, text: &str) -> Option<String> {
        let found = self.looked.found();
        let values = self.secrets.values().chain(self.providers.values()).chain(self.environment.values());
        let values = values.chain(found.values().flatten());
        let mut out: Option<String> = None;
        for value in values.map(|v| v.expose_secret().trim()).filter(|v| v.len() >= REDACT_BYTES_MIN) {
            let current = out.as_deref().unwrap_or(text);
            if current.contains(value) {
                out = Some(current.replace(value, REDACTED));
            }
        }
        out
    }

    /// The failure without any known key in its message, its type or its detail.
    #[must_use]
    pub fn redact_failure(&self, mut failure: Failure) -> Failure {
        if let Some(message) = self.redact(&failure.message) {
            failure.message = message.into();
        }
        failure.error_type = failure.error_type.map(|t| self.redact(&t).map_or(t, Into::into));
        failure.detail = self.redact_value(&failure.detail);
        failure
    }

    fn redact_value(&self, value: &Value) -> Value {
        match value {
            Value::Str(text) => self.redact(text).map_or_else(|| value.clone(), Value::str),
            Value::List(items) => Value::list(items.iter().map(|item| self.redact_value(item)).collect()),
            Value::Map(map) => Value::map(map.iter().map(|(k, v)| (k.clone(), self.redact_value(v))).collect::<Map>()),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => value.clone(),
        }
    }
}

fn given(key: Option<&SecretString>) -> Option<&SecretString> {
    key.filter(|key| !key.expose_secret().trim().is_empty())
}

/// The environment variable that conventionally holds a provider's key: `OPENAI_API_KEY` for `openai`.
#[must_use]
pub fn variable(provider: &str) -> String {
    match provider {
        "bedrock" => return "AWS_BEARER_TOKEN_BEDROCK".to_owned(),
        "openai-responses" => return variable("openai"),
        _ => {}
    }
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("{}_API_KEY", provider.chars().map(upper).collect::<String>())
}

#[cfg(test)]
mod tests {
    use windlass_core::failure::Code;

    use super::*;

    fn keys() -> Keys {
        Keys::default()
            .secret("doc", "sk-document-1")
            .secret("empty", "  ")
            .provider("openai", "sk-configured-2")
            .environment("OPENAI_API_KEY", "sk-environment-3")
            .environment("MY_PROXY_API_KEY", "sk-environment-4")
    }

    #[test]
    fn keys_are_found_by_reference_then_configuration_then_environment() {
        let keys = keys();
        let shown = |key: Option<&SecretString>| key.map(|k| k.expose_secret().to_owned());
        assert_eq!(shown(keys.referred("doc").as_ref()).as_deref(), Some("sk-document-1"));
        assert_eq!(shown(keys.referred("MY_PROXY_API_KEY").as_ref()).as_deref(), Some("sk-environment-4"));
        assert_eq!(shown(keys.referred("empty").as_ref()), None);
        assert_eq!(shown(keys.own("openai").as_ref()).as_deref(), Some("sk-configured-2"));
        assert_eq!(shown(keys.own("my-proxy").as_ref()).as_deref(), Some("sk-environment-4"));
        assert_eq!(shown(keys.own("other").as_ref()), None);
    }

    #[test]
    fn references_are_looked_up_when_they_are_needed() {
        let keys = keys().lookup(Arc::new(|reference| (reference == "env:LATE").then(|| "sk-looked-up-5".into())));
        assert!(keys.redact("sk-looked-up-5").is_none());
        assert!(keys.referred("env:LATE").is_some() && keys.referred("env:OTHER").is_none());
        assert_eq!(keys.redact("sk-looked-up-5").as_deref(), Some(REDACTED));
    }

    #[test]
    fn the_key_of_a_provider_is_looked_up_each_time_and_every_value_stays_hidden() {
        let now = Arc::new(Mutex::new("sk-first-value"));
        let held = Arc::clone(&now);
        let lookup =
            move |reference: &str| (reference == "secret:a").then(|| SecretString::from(*held.lock().expect("held")));
        let keys = Keys::default().lookup(Arc::new(lookup)).provider_reference("acme", "secret:a");
        let shown = || keys.own("acme").map(|key| key.expose_secret().to_owned());
        assert_eq!(shown().as_deref(), Some("sk-first-value"));
        *now.lock().expect("held") = "sk-second-value";
        assert_eq!(shown().as_deref(), Some("sk-second-value"));
        assert_eq!(keys.redact("sk-first-value sk-second-value").as_deref(), Some("[redacted] [redacted]"));
    }

    #[test]
    fn keys_are_not_shown() {
        let keys = keys();
        assert!(!format!("{keys:?}").contains("sk-"));
        let failure = Failure::new(Code::ProviderAuth, "bad key sk-environment-3!")
            .detail(Value::object([("code", Value::list(vec!["sk-document-1".into(), Value::Int(1)]))]));
        let shown = format!("{:?}", keys.redact_failure(failure));
        assert!(!shown.contains("sk-") && shown.contains(REDACTED), "{shown}");
    }
}
