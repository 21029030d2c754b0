//! What decisions of a run follow from beside its documents and what happened to it: which rules, models, prices and
//! configuration. Versions and hashes only, never contents.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, Name};

/// What a decision was taken under.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Basis {
    /// Version of the rule set in force; none where there are no rules. A verdict names the version that gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Name>,
    /// Hash of the model catalog; none where none is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Digest>,
    /// Hash of the price books.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prices: Option<Digest>,
    /// Hash of the part of the configuration that says what runs do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_written_and_what_is_reads_back() {
        assert_eq!(serde_json::to_string(&Basis::default()).expect("json"), "{}");
        let some = Basis { policy: Some("v".into()), prices: Some(Digest::of(b"p")), ..Basis::default() };
        let text = serde_json::to_string(&some).expect("json");
        assert_eq!(serde_json::from_str::<Basis>(&text).expect("reads back"), some);
    }
}
