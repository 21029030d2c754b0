//! Tests of the whole crate: documents in, programs and findings out.

mod bundles;
mod diagnostics;
mod documents;
mod drive;
mod lowering;
mod parity;
mod refusals;
mod schemas;
mod tables;
mod skills;
