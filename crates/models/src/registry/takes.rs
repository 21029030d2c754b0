//! Which files and which service tiers a model takes, as far as anybody said.

use windlass_core::file::{File, Medium};
use windlass_core::machine::ModelSettings;
use windlass_core::request::ModelRequest;
use windlass_core::value::Value;

use super::Models;
use crate::errors::Fault;
use crate::guard::CACHED;
use crate::providers::{ALL, Kind, SERVICE_TIER, TAKES_BOTH, TAKES_DEFAULT};

impl Models {
    fn takes(&self, provider: &str, model: &str, base_url: Option<&str>, kind: Kind) -> &[Medium] {
        let listed = self.guard.catalog().takes(provider, model, base_url);
        let configured = || self.providers.get(provider).and_then(|settings| settings.takes.as_deref());
        let known = || ALL.iter().find(|known| known.name == provider).map(|known| known.takes);
        let by_format = || if matches!(kind, Kind::OpenAi | Kind::Ollama) { TAKES_DEFAULT } else { TAKES_BOTH };
        listed.or_else(configured).or_else(known).unwrap_or_else(by_format)
    }

    /// Whether a model is known to take such a file. Scripts take every one.
    #[must_use]
    pub fn takes_file(&self, settings: &ModelSettings, file: &File) -> bool {
        let ModelSettings { provider, model, base_url, .. } = settings;
        if self.is_scripted(provider) || &**provider == CACHED {
            return true;
        }
        let kind = self.kind(provider).unwrap_or(Kind::OpenAi);
        file.medium().is_some_and(|medium| self.takes(provider, model, base_url.as_deref(), kind).contains(&medium))
    }

    /// Refuses files that the model is not known to take, before anything is sent.
    pub(super) fn check_files(&self, request: &ModelRequest, kind: Kind) -> Result<(), Fault> {
        let provider = &*request.provider;
        let takes = self.takes(provider, &request.model, request.base_url.as_deref(), kind);
        let refused = request.files.iter().find(|file| file.medium().is_none_or(|medium| !takes.contains(&medium)));
        let Some(File { name, mime, .. }) = refused else { return Ok(()) };
        Err(Fault::Unsayable(format!(
            "the model `{}` of `{provider}` is not known to take the file `{name}` of type `{mime}`; `takes` of the \
             provider or of the model in the catalog says what it takes",
            request.model
        )))
    }
}

/// Refuses a service tier that is none, or is asked of a provider that has none.
pub(super) fn check_tier(kind: Kind, provider: &str, params: &Value) -> Result<(), Fault> {
    let Some(tier) = params.get(SERVICE_TIER).filter(|tier| !tier.is_null()) else { return Ok(()) };
    let has_tiers = matches!(kind, Kind::OpenAi | Kind::OpenAiResponses | Kind::Anthropic);
    match tier.as_str() {
        _ if !has_tiers => Err(Fault::Unsayable(format!(
            "`{provider}` has no service tiers that can be asked for by `{SERVICE_TIER}`"
        ))),
        Some(_) => Ok(()),
        None => Err(Fault::Unsayable(format!("the model parameter `{SERVICE_TIER}` is no text: {}", tier.to_json()))),
    }
}
