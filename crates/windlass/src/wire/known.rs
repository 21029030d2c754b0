//! Everything that must not be shown, in one redactor: the secrets of tools, hooks, models and channels, whoever sends them
//! back. Finds them where settings name them; which of them a call is made with is not known here.

use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value as Json;
use windlass_core::machine::Program;
use windlass_policy::redact::{Present, Redactor};

use super::Wiring;
use crate::secrets::SCHEME;

/// Variables that hold credentials of a cloud, which no setting names.
const CLOUD: [&str; 3] = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"];
/// Secrets that are remembered after they were replaced; the oldest is forgotten.
const REMEMBERED_MAX: usize = 1_000;

impl Wiring {
    /// What is looked for in whatever comes back: every secret that settings name, and these.
    pub(super) fn redactor(&self, more: &[SecretString]) -> Redactor {
        Redactor::new(self.named_secrets().iter().chain(more))
    }

    /// The same for models, which are built once: it follows the operator's own secrets, and knows those that were
    /// replaced meanwhile.
    pub(super) fn present(&self) -> Arc<Present> {
        let wiring = self.clone();
        let known: Mutex<Known> = Mutex::default();
        Arc::new(move || {
            let generation = wiring.secrets.as_ref().map_or(0, |file| file.generation());
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.generation != Some(generation) {
                known.learn(wiring.named_secrets(), generation);
            }
            known.redactor.clone()
        })
    }

    /// Every secret that settings name, as it is now, and all of the operator's own.
    fn named_secrets(&self) -> Vec<SecretString> {
        let mut found = Vec::new();
        let catalog = &self.catalog;
        self.look(&catalog.hooks, &mut found);
        self.look(&catalog.tools, &mut found);
        self.look(&catalog.actions, &mut found);
        self.look(&catalog.mcp, &mut found);
        self.look(&catalog.agents_cli, &mut found);
        self.look(&self.notify, &mut found);
        self.look(&self.providers, &mut found);
        let configured = self.providers.keys().map(|name| windlass_models::keys::variable(name));
        let variables = windlass_models::key_variables().chain(configured).chain(CLOUD.map(str::to_owned));
        found.extend(variables.filter_map(|variable| self.variable(&variable)));
        found.extend(self.private.iter().filter_map(|reference| self.told(reference)));
        found.extend(self.secrets.iter().flat_map(|file| file.values()));
        found
    }

    /// A secret as far as it is known: what is to be kept out of texts asks no command for a value that nobody has yet.
    fn told(&self, reference: &str) -> Option<SecretString> {
        if self.is_asked(reference) { None } else { self.secret(reference) }
    }

    fn look(&self, settings: &impl Serialize, found: &mut Vec<SecretString>) {
        if let Ok(settings) = serde_json::to_value(settings) {
            self.look_in(&settings, "", found);
        }
    }

    fn look_in(&self, settings: &Json, key: &str, found: &mut Vec<SecretString>) {
        match settings {
            Json::Object(map) => map.iter().for_each(|(key, part)| self.look_in(part, key, found)),
            Json::Array(items) => items.iter().for_each(|item| self.look_in(item, key, found)),
            Json::String(text) => {
                // A provider names the variable, the file or the secret alone.
                let reference = match key {
                    "key_env" => format!("env:{text}"),
                    "key_file" => format!("file:{text}"),
                    "key_secret" => format!("{SCHEME}{text}"),
                    _ => text.clone(),
                };
                found.extend(self.told(&reference));
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }
}

/// Secrets that were seen so far.
#[derive(Default)]
struct Known {
    generation: Option<u64>,
    secrets: Vec<SecretString>,
    redactor: Redactor,
}

impl Known {
    fn learn(&mut self, secrets: Vec<SecretString>, generation: u64) {
        for secret in secrets {
            if !self.secrets.iter().any(|known| known.expose_secret() == secret.expose_secret()) {
                self.secrets.push(secret);
            }
        }
        let excess = self.secrets.len().saturating_sub(REMEMBERED_MAX);
        self.secrets.drain(..excess);
        self.redactor = Redactor::new(&self.secrets);
        self.generation = Some(generation);
    }
}

/// References to keys in the agents of a program.
pub(super) fn references(program: &Program) -> Vec<String> {
    let agents = program.machines.values().flat_map(|machine| machine.agents.values());
    agents.filter_map(|agent| agent.model.key.as_deref().map(str::to_owned)).collect()
}
