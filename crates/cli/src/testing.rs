//! `windlass test`: cases beside a machine, run in memory on a clock of their own.

pub(crate) mod case;
pub(crate) mod compare;
pub(crate) mod report;
mod perform;
mod served;

pub(crate) use perform::perform;
pub(crate) use served::Served;

use serde_json::Value as Json;

/// The JSON Schema of a test file.
#[must_use]
pub(crate) fn schema() -> schemars::Schema {
    schemars::schema_for!(case::TestFile)
}

/// A case as it ran.
#[derive(Clone, Debug)]
pub(crate) struct Performed {
    /// What came out.
    pub seen: compare::Seen,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// JSON as text that script and document parsers read.
#[must_use]
pub(crate) fn as_text(json: &Json) -> String {
    json.to_string()
}
