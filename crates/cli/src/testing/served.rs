//! The models of a test case: scripts answer for all of them, by the names of a catalog where one is given, and none for
//! those that are taken as gone.

use std::sync::Arc;

use windlass_core::failure::{Code, Failure};
use windlass_core::ids::Name;
use windlass_core::input::{Quote, Traits};
use windlass_core::machine::ModelSettings;
use windlass_core::request::ModelRequest;
use windlass_core::route::Chain;
use windlass_models::Models;
use windlass_models::catalog::Catalog;
use windlass_models::scripted::Scripts;
use windlass_ports::BoxFuture;
use windlass_ports::model::{Model, ModelResult};
use windlass_ports::tool::Permit;

/// Which models there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    /// The catalog; an empty one where documents are taken as they are.
    pub catalog: Catalog,
    /// Models that are gone: the provider, or none for any, and the name there.
    pub gone: Vec<(Option<String>, String)>,
}

impl Served {
    /// Whether a model is gone.
    #[must_use]
    pub(crate) fn is_gone(&self, provider: &str, model: &str) -> bool {
        self.gone.iter().any(|(of, name)| name == model && of.as_deref().is_none_or(|of| of == provider))
    }

    /// The models, with what answers for them.
    #[must_use]
    pub(super) fn models(&self, scripts: Scripts) -> Arc<dyn Model> {
        let models = Models::builder().scripts(scripts).catalog(self.catalog.clone()).script_everything(true).build();
        if self.gone.is_empty() { Arc::new(models) } else { Arc::new(Thinned { models, served: self.clone() }) }
    }
}

/// Models without those that are gone.
#[derive(Debug)]
struct Thinned {
    models: Models,
    served: Served,
}

impl Model for Thinned {
    fn call(&self, request: ModelRequest) -> BoxFuture<'_, ModelResult> {
        self.attempt(request, Permit::default())
    }

    fn attempt(&self, request: ModelRequest, permit: Permit) -> BoxFuture<'_, ModelResult> {
        if !self.served.is_gone(&request.provider, &request.model) {
            return self.models.attempt(request, permit);
        }
        let message = format!("`{}` does not serve the model `{}` any more", request.provider, request.model);
        let failure = Failure::new(Code::ProviderInvalidRequest, message);
        Box::pin(std::future::ready(ModelResult::unsent(failure)))
    }

    fn lacks(&self, settings: &ModelSettings) -> Option<Name> {
        self.models.lacks(settings)
    }

    fn quote(&self, settings: &ModelSettings) -> Option<Quote> {
        self.models.quote(settings)
    }

    fn traits(&self, settings: &ModelSettings) -> Traits {
        self.models.traits(settings)
    }

    fn chain(&self, settings: &ModelSettings) -> Option<Chain> {
        self.models.chain(settings)
    }
}
