//! Tests of the whole crate: documents in, programs and findings out.

mod bundles;
mod diagnostics;
mod documents;
mod lowering;
mod parity;
mod refusals;
mod schemas;
