//! Spans against a collector of the test's own: one that takes them, one that is away, one that never answers.

mod collector;
mod http;
mod export;
mod grpc;
