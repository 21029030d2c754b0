//! Published versions as values: what a name, a version and its sources are, and what can be a name. Reads and writes nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use windlass_core::ids::{Digest, Name};
use windlass_core::time::Timestamp;
use windlass_ports::compile::Bundle;

/// Bytes of a name.
pub const NAME_BYTES_MAX: usize = 100;
/// Bytes of a note, and of who publishes.
pub const NOTE_BYTES_MAX: usize = 1_000;
/// Bytes of the sources of one version, as stored.
pub const SOURCES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The highest number of a version: it has ten digits in its key.
pub const NUMBER_MAX: u64 = 9_999_999_999;
/// The tag by which the runs of a version are found.
pub const TAG: &str = "version";

/// Documents and packs of skills as they were published. What is configured is not among them: it is what it is when a run
/// starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Path of the machine document, within `files`.
    pub entry: String,
    /// Documents by path.
    pub files: BTreeMap<String, String>,
    /// The files of the packs of skills, by `NAME@VERSION` and by their paths within it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skills: BTreeMap<String, BTreeMap<String, String>>,
}

impl Sources {
    /// Those of a bundle.
    #[must_use]
    pub fn of(bundle: &Bundle) -> Self {
        let Bundle { entry, files, skills, .. } = bundle.clone();
        Self { entry, files, skills }
    }

    /// A bundle of them, with what is configured as that of another bundle.
    #[must_use]
    pub fn bundled_as(self, other: &Bundle) -> Bundle {
        let Self { entry, files, skills } = self;
        Bundle { entry, files, skills, ..other.clone() }
    }

    /// The stored form: canonical, so that equal sources have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A published version. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The name that it was published under.
    pub name: Name,
    /// Its number: 1 for the first of a name, then one more each time.
    pub number: u64,
    /// What the name meant when it was published; none for the first of a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// Hash of its sources.
    pub sources: Digest,
    /// The machine's own name.
    pub machine: Name,
    /// Hashes of its agents, by the key of their machine and by their names, as they were when it was published.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<Name, BTreeMap<Name, Digest>>,
    /// Why it was published; empty where it was not said.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub note: Name,
    /// Who published it.
    pub by: Name,
    /// When.
    pub at: Timestamp,
}

impl Version {
    /// `NAME@NUMBER`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.number)
    }
}

/// Where a name points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The name.
    pub name: Name,
    /// The version that `NAME@` means.
    pub current: u64,
    /// The highest version that was published.
    pub latest: u64,
    /// Who moved it last.
    pub by: Name,
    /// When.
    pub at: Timestamp,
}

impl Pointer {
    /// The same after version `number` was published. One that it has already moves nothing.
    #[must_use]
    pub fn published(before: Option<&Self>, version: &Version) -> Option<Self> {
        if before.is_some_and(|before| before.latest >= version.number) {
            return None;
        }
        let Version { name, number, by, at, .. } = version.clone();
        Some(Self { name, current: number, latest: number, by, at })
    }
}

/// How a version is named: `NAME@` for the one that the name points at, `NAME@NUMBER` for this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The name.
    pub name: Name,
    /// The number; none for the one that the name points at.
    pub number: Option<u64>,
}

impl Reference {
    /// Reads one. None for everything else, such as the path of a file.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, number) = text.rsplit_once('@')?;
        let number = match number {
            "" => None,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number))?)
            }
            _ => return None,
        };
        is_name(name).then(|| Self { name: name.into(), number })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.name)?;
        self.number.map_or(Ok(()), |number| write!(f, "{number}"))
    }
}

/// Whether a text can be the name of versions: a letter or digit, then letters, digits, `.`, `_` and `-`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let follows = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.len() <= NAME_BYTES_MAX
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(follows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_name_with_or_without_a_number_and_no_path() {
        let of = |name: &str, number| Some(Reference { name: name.into(), number });
        assert_eq!(Reference::parse("triage@"), of("triage", None));
        assert_eq!(Reference::parse("my.tri-age_2@17"), of("my.tri-age_2", Some(17)));
        let paths =
            ["triage", "@3", "./triage@3", "a/b@3", "triage@x", "triage@3.yml", "triage@0", "a@b@3", "-x@1", ".x@1"];
        for path in paths {
            assert_eq!(Reference::parse(path), None, "{path}");
        }
        assert_eq!(Reference::parse(&format!("triage@{}", NUMBER_MAX + 1)), None);
        assert_eq!(Reference::parse("triage@99999999999999999999"), None);
        for text in ["triage@", "triage@17"] {
            assert_eq!(Reference::parse(text).expect("a reference").to_string(), text);
        }
        assert!(is_name(&"a".repeat(NAME_BYTES_MAX)) && !is_name(&"a".repeat(NAME_BYTES_MAX + 1)) && !is_name("ü"));
    }

    #[test]
    fn sources_are_what_of_a_bundle_is_not_configured() {
        let mut bundle = Bundle { entry: "m.yml".into(), strict: true, ..Bundle::default() };
        bundle.files.insert("m.yml".into(), "text".into());
        bundle.hooks.insert("*".into(), Vec::new());
        let sources = Sources::of(&bundle);
        assert_eq!(sources.encode(), br#"{"entry":"m.yml","files":{"m.yml":"text"}}"#);
        assert_eq!(sources.clone().bundled_as(&bundle), bundle);
        let plain = sources.bundled_as(&Bundle::default());
        assert_eq!((plain.files, plain.strict, plain.hooks.len()), (bundle.files, false, 0));
    }
}
