//! Tools of MCP servers: over stdio and Streamable HTTP, in both eras of the protocol.
//!
//! Owns the wire, the pins and the tools made of them. The revision of 2026-07-28 knows no session: every request says
//! what it is. Earlier ones begin with `initialize`. What a server says about its tools is text of a stranger: a tool
//! exists here only as the definition that a person accepted, and runs only while the server still shows that one.

pub mod definition;
pub mod pins;
pub mod quarantine;
pub mod server;
mod canonical;
mod client;
mod diff;
mod elicitation;
mod excluded;
mod exchange;
mod heard;
mod http;
mod listing;
mod negotiate;
mod oauth;
mod params;
mod protocol;
mod result;
mod settings;
mod sse;
mod stdio;
mod suspicious;
mod told;
pub(crate) mod tool;

pub use client::{Client, McpError};
pub use definition::Definition;
pub use diff::{Change, diff};
pub use elicitation::ElicitationConfig;
pub use listing::Listing;
pub use oauth::{OauthConfig, Person};
pub use pins::{Pins, PinsError};
pub use quarantine::Quarantine;
pub use server::{Server, Standing};
pub use settings::{ContractConfig, McpConfig, ProtocolConfig};
