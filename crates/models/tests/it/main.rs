//! The adapters against servers of this process, and the scripted provider.

mod chains;
mod conformance;
mod faults;
mod formats;
mod garbage;
mod files;
mod fixtures;
mod http;
mod keys;
mod scripted;
mod server;
mod streams;
