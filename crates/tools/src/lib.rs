//! Tools, actions and hooks: over HTTP, as commands, of MCP servers, and as functions of the embedding program.
//!
//! Every tool declares a contract. Nothing here retries, journals or decides: an attempt is made, bounded in time and
//! bytes, and its failure says whether the call may have happened.

pub mod config;
pub mod build;
pub mod agents;
pub mod kind;
pub mod function;
pub mod http;
pub mod command;
pub mod webhook;
pub mod command_hook;
pub mod observer;
pub mod pools;
pub mod mcp;
pub mod limits;
pub mod sandbox;
pub mod guard;
pub mod notify;
mod addressed;
mod answer;
mod address;
mod headers;
mod client;
mod group;
mod process;
mod role;
mod terms;
mod touched;

pub use build::{Surroundings, build_agents, build_catalog, build_servers};
pub use config::{CatalogConfig, ConfigError};
pub use function::{FnHook, FnTool};
pub use kind::{ALL, Kind};
pub use notify::{NotifyConfig, build_channels};
pub use pools::WorkPools;
