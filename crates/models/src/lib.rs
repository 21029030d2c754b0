//! Model providers behind one port: mappings of the providers' wire formats, the scripted provider, keys, prices, and
//! one table of errors. Mapping is pure; one sender does I/O; nothing here retries, and nothing reads the environment.

pub mod catalog;
pub mod errors;
pub mod keys;
pub mod outward;
pub mod prices;
pub mod scripted;
mod anthropic;
mod aws;
mod bedrock;
mod cache;
mod chains;
mod frames;
mod gemini;
mod guard;
mod health;
mod ollama;
mod openai;
mod files;
mod prove;
mod providers;
mod registry;
mod responses;
mod schema;
mod sender;
mod settle;
mod signing;
mod sse;
mod wire;

pub use health::{Breaker, Patience, RetryBudget};
pub use providers::{ALL, Kind, Provider, key_variables};
pub use registry::{Builder, Models, ProviderSettings};
pub use sender::Bounds;
pub use signing::AwsKeys;
pub use wire::StructuredOutput;

/// Whether a provider's name stands for something that is not a provider: the catalog, its chains, answers from before.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    matches!(name, catalog::MODEL | catalog::CHAIN | guard::CACHED)
}
