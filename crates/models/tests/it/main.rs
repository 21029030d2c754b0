//! The adapters against servers of this process, and the scripted provider.

mod conformance;
mod http;
mod keys;
mod scripted;
mod server;
mod streams;
