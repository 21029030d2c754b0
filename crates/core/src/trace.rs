//! Where a run and its calls stand in a trace, as W3C trace context names it.
//!
//! Everything comes from ids that last: whoever goes on with a run, in whichever process and after whichever pause, and
//! whichever run it started, is in the same trace.

use crate::ids::RunId;

/// The header, the variable and the `_meta` key that carries it.
pub const TRACEPARENT: &str = "traceparent";

/// Separates a run from the number of a call in a call's key.
const CALL_MARK: char = '#';

/// A trace: 16 bytes, not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A span within it: 8 bytes, not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

fn hashed<const N: usize>(kind: &str, of: &str) -> [u8; N] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind.as_bytes());
    hasher.update(&[0]);
    hasher.update(of.as_bytes());
    let mut bytes = [0; N];
    hasher.finalize_xof().fill(&mut bytes);
    // All zeroes would mean that there is none.
    bytes[N - 1] |= u8::from(bytes == [0; N]);
    bytes
}

impl TraceId {
    /// The trace of a run: that of the first run of its tree.
    #[must_use]
    pub fn of(run: &RunId) -> Self {
        let run = run.as_str();
        Self(hashed("trace", run.split_once('~').map_or(run, |(root, _)| root)))
    }
}

impl SpanId {
    /// The span of a run, from its beginning to its end.
    #[must_use]
    pub fn of_run(run: &RunId) -> Self {
        Self(hashed("run", run.as_str()))
    }

    /// The span of a call of this key.
    #[must_use]
    pub fn of_call(key: &str) -> Self {
        Self(hashed("call", key))
    }

    /// The span of something else within a run.
    #[must_use]
    pub fn of_part(run: &RunId, part: &str) -> Self {
        Self(hashed("part", &format!("{run} {part}")))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl std::fmt::Display for SpanId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// The value of `traceparent` for a call of this key, by which whoever is called continues the trace.
#[must_use]
pub fn traceparent(key: &str) -> String {
    let run = RunId::stored(key.rsplit_once(CALL_MARK).map_or(key, |(run, _)| run));
    format!("00-{}-{}-01", TraceId::of(&run), SpanId::of_call(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::EffectId;

    #[test]
    fn a_tree_is_one_trace_and_its_calls_are_spans_of_it() {
        let root = RunId::stored("order-1");
        let child = root.child(3, 0).child(1, 2);
        assert_eq!(TraceId::of(&root), TraceId::of(&child));
        assert_ne!(TraceId::of(&root), TraceId::of(&RunId::stored("order-2")));
        assert_ne!(SpanId::of_run(&root), SpanId::of_run(&child));
        let parent = traceparent(&EffectId(4).key(&child));
        let parts: Vec<&str> = parent.split('-').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len(), parts[3]), ("00", 32, 16, "01"));
        assert_eq!(parts[1], TraceId::of(&root).to_string());
        assert_eq!(parts[2], SpanId::of_call(&EffectId(4).key(&child)).to_string());
    }
}
