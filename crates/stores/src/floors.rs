//! Revisions of objects that were removed: one that comes again under the same name begins above them, so that whoever
//! still has an old revision in hand changes nothing.
//!
//! Names share a few floors, by a hash of them: what is kept does not grow with what is removed.

/// The floor of an object: the same in every release, as it is stored.
pub(crate) fn slot(kind: &str, key: &str) -> i16 {
    let mut hash = blake3::Hasher::new();
    hash.update(&(kind.len() as u64).to_le_bytes()).update(kind.as_bytes()).update(key.as_bytes());
    i16::from(hash.finalize().as_bytes()[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_floor_in_every_release() {
        assert_eq!(slot("schedule", "nightly"), slot("schedule", "nightly"));
        assert_ne!(slot("a", "bc"), slot("ab", "c"));
        let all: std::collections::BTreeSet<i16> = (0..5_000).map(|n| slot("schedule", &n.to_string())).collect();
        assert_eq!((all.first(), all.last(), all.len()), (Some(&0), Some(&255), 256));
    }
}
