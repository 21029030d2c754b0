//! Model providers behind one port: mappings of two wire formats, the scripted provider, keys, prices, and one table
//! of errors. Mapping is pure; one sender does I/O; nothing here retries, and nothing reads the environment.

pub mod errors;
pub mod keys;
pub mod prices;
pub mod scripted;
mod anthropic;
mod openai;
mod registry;
mod schema;
mod sender;
mod sse;
mod wire;

pub use registry::{ALL, Builder, Kind, Models, Provider, ProviderSettings, key_variables};
pub use sender::Bounds;
pub use wire::StructuredOutput;
