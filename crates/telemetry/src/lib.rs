//! Spans of runs and their calls, sent over OTLP to whoever collects them. They may be lost, and nothing waits for them.
//!
//! What becomes a span is in `spans`, the names in `names`, sending in `export` and `carrier`. Spans hold names, numbers, codes and hashes;
//! prompts, arguments and outputs are never in them.

mod carrier;
mod export;
mod names;
mod spans;

pub use carrier::Protocol;
pub use export::{Config, Exporter, QUEUE_MAX, SetupError, Told};
pub use spans::{Field, Spans, Taken};
