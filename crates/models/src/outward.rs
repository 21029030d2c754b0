//! Addresses that documents name: whether a request may go there, as whoever builds the models decides.

use std::fmt;
use std::sync::Arc;

pub use reqwest::Url;
pub use reqwest::dns::Resolve;

/// How a connection to an address is made that may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// As it is written.
    Free,
    /// To the addresses that [`Outward::resolver`] gives for its host.
    Resolved,
}

/// Decides about addresses that neither the operator wrote nor a provider is known by.
pub trait Outward: Send + Sync + fmt::Debug {
    /// Looks at an address that a run of a tenant has, before anything is connected to.
    ///
    /// # Errors
    /// Why nothing may be sent there, for people.
    fn check(&self, url: &Url, tenant: &str) -> Result<Passage, String>;

    /// Resolves hosts, and fails for those that may not be connected to.
    fn resolver(&self) -> Arc<dyn Resolve>;

    /// The reason of a refusal by [`Outward::resolver`] behind the error of a connection.
    fn refusal(&self, error: &(dyn std::error::Error + 'static)) -> Option<String>;
}
