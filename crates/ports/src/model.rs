//! Models as a port.

use windlass_core::effect::Spent;
use windlass_core::failure::Failure;
use windlass_core::ids::Name;
use windlass_core::input::{Quote, Traits};
use windlass_core::machine::ModelSettings;
use windlass_core::request::ModelRequest;
use windlass_core::route::Chain;
use windlass_core::transcript::Reply;

use crate::BoxFuture;
use crate::tool::Permit;

/// How one attempt at a model call ended, and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelResult {
    /// The answer, or why there is none.
    pub outcome: Result<Reply, Failure>,
    /// What was used. [`Spent::Unknown`] when the request may have been served and nobody said what it cost.
    pub spent: Spent,
}

impl ModelResult {
    /// An attempt that never left.
    #[must_use]
    pub fn unsent(failure: Failure) -> Self {
        Self { outcome: Err(failure), spent: Spent::Unsent }
    }
}

/// Calls models. Never retries on its own: retries belong to the engine, which journals them.
pub trait Model: Send + Sync + std::fmt::Debug {
    /// Makes one attempt. Ends by itself within the request's timeout; dropping the future cancels the attempt.
    fn call(&self, request: ModelRequest) -> BoxFuture<'_, ModelResult>;

    /// [`Model::call`], with the word that the call leaves. Whoever makes calls wait gives that word itself, by
    /// [`Permit::depart`], when they have waited.
    fn attempt(&self, request: ModelRequest, permit: Permit) -> BoxFuture<'_, ModelResult> {
        match permit.depart() {
            Ok(()) => self.call(request),
            Err(failure) => Box::pin(std::future::ready(ModelResult::unsent(failure))),
        }
    }

    /// What this process lacks for any call of this model to succeed here, where another process may have it: a key, a
    /// script, an address. In words that follow "this process has no".
    fn lacks(&self, _: &ModelSettings) -> Option<Name> {
        None
    }

    /// The price of a model, when the price book has one.
    fn quote(&self, settings: &ModelSettings) -> Option<Quote>;

    /// What else is known of a model.
    fn traits(&self, _settings: &ModelSettings) -> Traits {
        Traits::default()
    }

    /// The links by which such a model is called, as they can be used now; none for a model that is called directly.
    fn chain(&self, _settings: &ModelSettings) -> Option<Chain> {
        None
    }
}
