//! Documents to machines: parsing, validation, lowering, with diagnostics that point at lines.
//!
//! Never prints, never opens a file by itself: files come through [`source::Files`].

pub mod eval;
pub mod source;
pub mod diagnostics;
pub mod features;
pub mod compile;
pub mod schema;
pub mod skill;
mod yaml;
mod check;
mod syntax;
mod documents;
mod lower;

pub use compile::{LoadOptions, Loaded, ModelNames, SpecCompiler, check_skill, compile, load, skill_names};
