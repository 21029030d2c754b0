//! Source bundles and their compilation as a port, so that the runtime needs no parser.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windlass_core::contract::Contract;
use windlass_core::eval::Evaluator;
use windlass_core::ids::Digest;
use windlass_core::machine::{HookKind, Program};

/// Everything a run is pinned to: the documents it was started with, and what was known about hooks and tools then.
/// Holds no key: inline keys are replaced by references when documents are read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// Path of the machine document that a caller's run starts with, within `files`.
    pub entry: String,
    /// Documents by path, relative to the entry's folder, with `/` between parts; `../x` stays as it is.
    pub files: BTreeMap<String, String>,
    /// Configured hooks: name to the events it takes part in. `*` catches names that are not configured.
    pub hooks: BTreeMap<String, Vec<HookKind>>,
    /// Contracts of configured tools and actions.
    pub tools: Vec<Contract>,
    /// Whether warnings are errors.
    pub strict: bool,
    /// The files of the packs of skills that are used, by `NAME@VERSION` and by their paths within it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skills: BTreeMap<String, BTreeMap<String, String>>,
}

impl Bundle {
    /// The stored form: canonical, so that equal bundles have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The hash of the stored form.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// Bytes that are no bundle.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// A bundle that this build cannot compile. It compiled when the run started, so this is an incompatible build.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the machine of this run cannot be compiled by this build: {message}")]
pub struct CompileError {
    /// The diagnostics as text.
    pub message: String,
}

/// Compiles bundles.
pub trait Compiler: Send + Sync + std::fmt::Debug {
    /// The program of a bundle.
    ///
    /// # Errors
    /// A bundle that is not valid for this build.
    fn compile(&self, bundle: &Bundle) -> Result<Arc<Program>, CompileError>;

    /// The engine for templates, conditions and schemas of compiled programs.
    fn evaluator(&self) -> Arc<dyn Evaluator>;
}
