//! Model providers behind one port: mappings of the providers' wire formats, the scripted provider, keys, prices, and
//! one table of errors. Mapping is pure; one sender does I/O; nothing here retries, and nothing reads the environment.

pub mod catalog;
pub mod errors;
pub mod keys;
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
mod prove;
mod registry;
mod responses;
mod schema;
mod sender;
mod sse;
mod wire;

pub use health::{Breaker, Patience, RetryBudget};
pub use registry::{ALL, Builder, Kind, Models, Provider, ProviderSettings, key_variables};
pub use sender::Bounds;
pub use wire::StructuredOutput;
