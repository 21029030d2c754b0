//! Profile catalogs, and the settings of a model from the layers that define it.
//!
//! Later layers win, key by key: the catalog's default, the named profile, the keys of the reference, the override.

use std::sync::Arc;

use windlass_core::ids::Name;
use windlass_core::limits::MODEL_TIMEOUT_MS_DEFAULT;
use windlass_core::machine::ModelSettings;
use windlass_core::value::{Map, Value};

use crate::check;
use crate::diagnostics::{Rule, Span, suggest};
use crate::features::{LLM_PROFILE, PROFILE_KINDS, PROFILES, PROFILES_DATA, Shape};
use crate::source::resolve;
use crate::yaml::{Data, Entry, Node};

use super::settings::millis;
use super::{Lowering, pairs};

/// The provider of a model whose document names none but gives an address.
const PROVIDER_DEFAULT: &str = "openai";
/// Keys that are read here and not passed on.
const CONSUMED: [&str; 10] =
    ["name", "provider", "base_url", "api_key", "max_tokens", "stream", "timeout", "backend", "max_retries", "type"];

/// A profile catalog.
#[derive(Debug)]
pub(crate) struct Catalog {
    /// Where it stands; empty for one inside of an agent.
    pub(crate) path: String,
    data: Arc<Node>,
}

impl Catalog {
    fn profile(&self, name: &str) -> Option<&Arc<Node>> {
        self.data.get("model_profiles").and_then(|profiles| profiles.get(name))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        pairs(&self.data, "model_profiles").map(|e| &*e.key)
    }

    /// The name under `default` or `override`, with its place.
    fn designated(&self, key: &str) -> Option<(Name, Span)> {
        self.data.get(key).and_then(|n| n.as_str().map(|name| (name.clone(), n.span)))
    }
}

/// What an agent says about its model.
pub(crate) enum Wanted<'n> {
    /// A profile by name.
    Named(Name, Span),
    /// Keys of its own, over a profile if they name one.
    Keys(&'n Arc<Node>),
    /// A catalog of its own.
    Own(&'n Arc<Node>),
    /// Nothing: the catalog's default.
    Default,
}

impl Lowering<'_, '_> {
    /// The catalog of a folder, or else the one that a machine there names by `profiles`.
    pub(super) fn catalog_of(&mut self, folder: &str, machine: &Node) -> Option<Arc<Catalog>> {
        let own = resolve(folder, "profiles.yml").ok().and_then(|path| self.catalog(&path));
        if own.is_some() {
            return own;
        }
        let named = machine.get("data").and_then(|data| data.get("profiles"))?.clone();
        let path = self.docs.path(folder, named.as_str()?, named.span)?;
        self.docs.document(&path, named.span)?;
        self.catalog(&path)
    }

    fn catalog(&mut self, path: &str) -> Option<Arc<Catalog>> {
        if let Some(known) = self.catalogs.get(path) {
            return known.clone();
        }
        let catalog = self.docs.optional(path).and_then(|root| self.read_catalog(path, &root));
        self.catalog_broken |= catalog.is_none() && self.docs.was_read(path);
        self.catalogs.insert(path.to_owned(), catalog.clone());
        catalog
    }

    fn read_catalog(&mut self, path: &str, root: &Arc<Node>) -> Option<Arc<Catalog>> {
        let data = if root.entry("spec").is_some() || root.entry("data").is_some() {
            if root.text("spec").is_some_and(|spec| &**spec == "flatprofiles") {
                let span = root.get("spec").map_or(root.span, |n| n.span);
                let message = "`flatprofiles` is the spelling of versions until 2.x of the format";
                self.docs.sink.warn(Rule::Compatibility, span, message, "write `flatprofile`");
            } else if !self.is_kind(root, "flatprofile") {
                return None;
            }
            self.check_once(path, root, &PROFILES);
            root.get("data")?.clone()
        } else {
            check::section(root, &PROFILES_DATA, &mut self.docs.sink);
            root.clone()
        };
        let catalog = Arc::new(Catalog { path: path.to_owned(), data });
        self.check_profiles(&catalog);
        Some(catalog)
    }

    /// Checks every profile; those of runtimes that this build does not have only matter when they are used.
    fn check_profiles(&mut self, catalog: &Catalog) {
        for entry in pairs(&catalog.data, "model_profiles") {
            if is_other_runtime(&entry.value) {
                let message = format!("the profile `{}` is for a runtime that this build does not have", entry.key);
                self.docs.sink.warn(Rule::Experimental, entry.key_span, message, "no agent may use it");
                continue;
            }
            check::shape(&entry.value, Shape::OneOf(PROFILE_KINDS), &entry.key, &mut self.docs.sink);
            let settings =
                if LLM_PROFILE.is_meant(&entry.value) { entry.value.get("model") } else { Some(&entry.value) };
            if let Some(settings) = settings.cloned() {
                self.docs.refuse_credentials(&settings);
            }
            if let Some(key) = settings.and_then(|s| s.get("api_key")).cloned() {
                self.docs.key(&key);
            }
        }
    }

    /// The settings of an agent's model. `span` is where the agent says, or fails to say, which.
    pub(super) fn model(
        &mut self,
        wanted: Wanted<'_>,
        catalog: Option<&Arc<Catalog>>,
        span: Span,
    ) -> Option<ModelSettings> {
        let layers = match wanted {
            Wanted::Own(document) => {
                if !self.is_kind(document, "flatprofile") {
                    return None;
                }
                let own = Catalog { path: String::new(), data: document.get("data")?.clone() };
                self.check_profiles(&own);
                self.own_layers(&own, document.span)?
            }
            Wanted::Named(name, place) => self.layers(Some((name, place)), None, catalog, span)?,
            Wanted::Keys(keys) => {
                self.docs.refuse_credentials(keys);
                let named = keys.get("profile").and_then(|n| n.as_str().map(|name| (name.clone(), n.span)));
                self.layers(named, Some(keys), catalog, span)?
            }
            Wanted::Default => self.layers(None, None, catalog, span)?,
        };
        if let Some(layer) = layers.iter().find(|layer| is_other_runtime(layer)) {
            check::shape(layer, Shape::OneOf(PROFILE_KINDS), "profile", &mut self.docs.sink);
            return None;
        }
        let merged = merged(&layers);
        self.settings(&merged, span)
    }

    /// The layers of a catalog inside of an agent: its default and override, or its only profile.
    fn own_layers(&mut self, own: &Catalog, span: Span) -> Option<Vec<Arc<Node>>> {
        if own.designated("default").is_some() || own.designated("override").is_some() {
            let mut layers = Vec::new();
            for key in ["default", "override"] {
                if let Some((name, place)) = own.designated(key) {
                    layers.push(self.profile(own, &name, place)?);
                }
            }
            return Some(layers);
        }
        let mut all = pairs(&own.data, "model_profiles");
        match (all.next(), all.next()) {
            (Some(only), None) => Some(vec![only.value.clone()]),
            _ => {
                let message = "the inline catalog does not say which of its profiles to use";
                self.docs.sink.error(Rule::UnknownProfile, span, message, "add `default: NAME` to its data");
                None
            }
        }
    }

    fn layers(
        &mut self,
        named: Option<(Name, Span)>,
        keys: Option<&Arc<Node>>,
        catalog: Option<&Arc<Catalog>>,
        span: Span,
    ) -> Option<Vec<Arc<Node>>> {
        let mut layers = Vec::new();
        let Some(catalog) = catalog else {
            if self.catalog_broken {
                return None;
            }
            if let Some((name, place)) = &named {
                let message = format!("the profile `{name}` cannot be found: there is no profile catalog");
                let advice = "add a `profiles.yml` beside the machine document";
                self.docs.sink.error(Rule::UnknownProfile, *place, message, advice);
                return None;
            }
            if keys.is_none() {
                let message = "the agent names no model, and there is no profile catalog with a default";
                let advice = "add a `profiles.yml` beside the machine document";
                self.docs.sink.error(Rule::UnknownProfile, span, message, advice);
                return None;
            }
            return Some(keys.into_iter().map(given).collect());
        };
        let default = catalog.designated("default").and_then(|(name, place)| {
            let found = catalog.profile(&name).cloned();
            if found.is_none() {
                let message = format!("the default profile `{name}` does not exist");
                self.docs.sink.warn(Rule::UnknownProfile, place, message, suggest(&name, catalog.names()));
            }
            found
        });
        layers.extend(default.clone());
        match named {
            Some((name, place)) => match (catalog.profile(&name), &default) {
                (Some(profile), _) => layers.push(profile.clone()),
                (None, Some(_)) => {
                    let message = format!("the profile `{name}` does not exist; the default is used");
                    self.docs.sink.warn(Rule::UnknownProfile, place, message, suggest(&name, catalog.names()));
                }
                (None, None) => {
                    self.profile(catalog, &name, place);
                    return None;
                }
            },
            None if default.is_none() && keys.is_none() => {
                let message = "the agent names no profile, and the catalog has no default";
                self.docs.sink.error(Rule::UnknownProfile, span, message, "name one of the catalog's profiles");
                return None;
            }
            None => {}
        }
        layers.extend(keys.map(given));
        if let Some((name, place)) = catalog.designated("override") {
            layers.push(self.profile(catalog, &name, place)?);
        }
        Some(layers)
    }

    fn profile(&mut self, catalog: &Catalog, name: &Name, span: Span) -> Option<Arc<Node>> {
        let found = catalog.profile(name).cloned();
        if found.is_none() {
            let message = format!("the profile `{name}` does not exist");
            self.docs.sink.error(Rule::UnknownProfile, span, message, suggest(name, catalog.names()));
        }
        found
    }

    fn settings(&mut self, merged: &[Entry], span: Span) -> Option<ModelSettings> {
        let get = |key: &str| merged.iter().find(|e| *e.key == *key).map(|e| &e.value);
        let text = |key: &str| get(key).and_then(|n| n.as_str().cloned());
        if let Some(kind) = get("type").filter(|n| n.as_str().is_none_or(|kind| &**kind != "llm")) {
            let message = "this build runs no agents of that type";
            self.docs.sink.error(Rule::Blocked, kind.span, message, "use `type: llm`");
            return None;
        }
        for key in ["oauth", "backend"] {
            let refused =
                get(key).filter(|n| key == "oauth" || n.as_str().is_some_and(|b| matches!(&**b, "codex" | "copilot")));
            if let Some(node) = refused {
                let message = format!("`{key}` asks for a sign-in that this build does not have");
                self.docs.sink.error(Rule::Blocked, node.span, message, "use a provider with an API key");
            }
        }
        let Some(name) = text("name") else {
            let message = "the model has no `name`";
            self.docs.sink.error(Rule::MissingKey, span, message, "add `name` to the profile it uses");
            return None;
        };
        if let Some(node) = get("max_retries").filter(|n| n.as_u64() != Some(0)) {
            let message = "`max_retries` has no effect: retries are the engine's";
            let advice = "use `execution: {type: retry}` in the state";
            self.docs.sink.warn(Rule::NoEffect, node.span, message, advice);
        }
        let (provider, model) = self.provider(text("provider"), &name, get("base_url").is_some(), span);
        if let Some(known) = self.around.models.as_ref().and_then(|names| names.behind(&provider))
            && !known.iter().any(|known| **known == *model)
        {
            let kind = if &*provider == "chain" { "chain" } else { "model" };
            let message = format!("the model catalog has no {kind} `{model}`");
            let advice = suggest(&model, known.iter().map(String::as_str))
                .unwrap_or_else(|| "`models` in the configuration names the catalog; add it there".to_owned());
            self.docs.sink.error(Rule::UnknownModel, span, message, advice);
        }
        let params: Map = merged
            .iter()
            .filter(|e| !CONSUMED.contains(&&*e.key) && &*e.key != "profile")
            .map(|e| (e.key.clone(), e.value.to_value()))
            .collect();
        let key = get("api_key").cloned().and_then(|node| self.docs.key(&node));
        let timeout = get("timeout").and_then(|n| n.as_f64()).filter(|seconds| *seconds > 0.0);
        Some(ModelSettings {
            provider,
            model,
            base_url: text("base_url"),
            key,
            max_tokens: get("max_tokens").and_then(|n| n.as_u64()),
            stream: get("stream").and_then(|n| n.as_bool()).unwrap_or_default(),
            params: Value::map(params),
            timeout_ms: timeout.map_or(MODEL_TIMEOUT_MS_DEFAULT, millis),
        })
    }

    /// The provider and the model's name there.
    fn provider(&mut self, provider: Option<Name>, name: &Name, addressed: bool, span: Span) -> (Name, Name) {
        if let Some(provider) = provider {
            let bare = name.strip_prefix(&*provider).and_then(|rest| rest.strip_prefix('/'));
            let model = bare.map_or_else(|| name.clone(), Name::from);
            return (provider, model);
        }
        if let Some((provider, model)) = name.split_once('/') {
            return (provider.into(), model.into());
        }
        if !addressed {
            let message = format!("the model `{name}` names no provider; `{PROVIDER_DEFAULT}` is taken");
            self.docs.sink.warn(Rule::MissingKey, span, message, "add `provider` to the profile it uses");
        }
        (PROVIDER_DEFAULT.into(), name.clone())
    }
}

/// The keys of a reference that it gives a value.
fn given(keys: &Arc<Node>) -> Arc<Node> {
    let entries = keys.as_map().unwrap_or_default().iter().filter(|e| !e.value.is_null()).cloned().collect();
    Arc::new(Node::new(keys.span, Data::Map(entries)))
}

/// Whether a profile is for something else than a model behind an API.
fn is_other_runtime(profile: &Node) -> bool {
    profile.text("type").is_some_and(|kind| &**kind != "llm")
}

/// The layers as one. Profiles that hold their keys under `model` are opened when any layer does not.
fn merged(layers: &[Arc<Node>]) -> Vec<Entry> {
    let wrapped =
        |layer: &Node| LLM_PROFILE.is_meant(layer) && layer.get("model").is_some_and(|m| m.as_map().is_some());
    let keys = |layer: &Arc<Node>| -> Vec<Entry> {
        let inner = if wrapped(layer) { layer.get("model") } else { Some(layer) };
        inner.and_then(|n| n.as_map()).unwrap_or_default().to_vec()
    };
    // Wrapped profiles replace each other as a whole: `model` is one key of theirs.
    let layers =
        if layers.iter().all(|layer| wrapped(layer)) { &layers[layers.len().saturating_sub(1)..] } else { layers };
    let mut merged: Vec<Entry> = Vec::new();
    for layer in layers {
        for entry in keys(layer) {
            match merged.iter_mut().find(|e| e.key == entry.key) {
                Some(known) => *known = entry,
                None => merged.push(entry),
            }
        }
    }
    merged.retain(|entry| !entry.value.is_null());
    merged
}
