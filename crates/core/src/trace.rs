//! Where a run and its calls stand in a trace, as W3C trace context names it.
//!
//! Everything comes from ids that last: whoever goes on with a run, in whichever process and after whichever pause, and
//! whichever run it started, is in the same trace.

use serde::{Deserialize, Serialize};

use crate::ids::{Name, RunId};

/// The header, the variable and the `_meta` key that carries it.
pub const TRACEPARENT: &str = "traceparent";
/// That of what others on the way add.
pub const TRACESTATE: &str = "tracestate";

/// Bytes of a `traceparent` of the first version.
const PARENT_BYTES: usize = 55;
/// Of its flags, that spans are recorded.
const SAMPLED: u8 = 1;
/// Flags that are passed on: [`SAMPLED`], and that the trace's id is random.
const FLAGS: u8 = 3;
/// Members of a `tracestate`.
const MEMBERS_MAX: usize = 32;
/// Bytes of a `tracestate` that are kept.
const STATE_BYTES_MAX: usize = 512;

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

    /// The trace of a run that was started within another one: that one.
    #[must_use]
    pub fn within(incoming: Option<&Incoming>, run: &RunId) -> Self {
        incoming.map_or_else(|| Self::of(run), |incoming| incoming.trace)
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

/// Why a `traceparent` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is not `VERSION-TRACE-SPAN-FLAGS` of 2, 32, 16 and 2 hexadecimal digits in lower case, trace and span not all zero"
)]
pub struct NoParent;

/// The place in a trace at which somebody else started a run: the span below which the run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Incoming {
    trace: TraceId,
    span: SpanId,
    flags: u8,
    state: Option<Name>,
}

/// An [`Incoming`] as it is stored.
#[derive(Serialize, Deserialize)]
struct Written {
    parent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<Name>,
}

impl TryFrom<Written> for Incoming {
    type Error = NoParent;

    fn try_from(written: Written) -> Result<Self, NoParent> {
        Self::parse(&written.parent, written.state.as_deref())
    }
}

impl From<Incoming> for Written {
    fn from(incoming: Incoming) -> Self {
        let Incoming { trace, span, flags, state } = incoming;
        Self { parent: format!("00-{trace}-{span}-{flags:02x}"), state }
    }
}

impl Incoming {
    /// Reads a `traceparent`, and the `tracestate` that came with it: one that is none is dropped, as W3C trace context says.
    /// Of a version to come the part that is known counts.
    ///
    /// # Errors
    /// It is no `traceparent`; then the `tracestate` counts for nothing either.
    pub fn parse(parent: &str, state: Option<&str>) -> Result<Self, NoParent> {
        let text = parent.trim();
        let (known, rest) = text.split_at_checked(PARENT_BYTES).ok_or(NoParent)?;
        let mut parts = known.split('-');
        let mut part = || parts.next().ok_or(NoParent);
        let [version] = unhex(part()?).ok_or(NoParent)?;
        let trace = TraceId(unhex(part()?).ok_or(NoParent)?);
        let span = SpanId(unhex(part()?).ok_or(NoParent)?);
        let [flags] = unhex(part()?).ok_or(NoParent)?;
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        if !fits || trace.0 == [0; 16] || span.0 == [0; 8] {
            return Err(NoParent);
        }
        Ok(Self { trace, span, flags: flags & FLAGS, state: state.and_then(listed) })
    }

    /// The span below which the run stands.
    #[must_use]
    pub fn span(&self) -> SpanId {
        self.span
    }

    /// Whether the caller records its spans.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// A `tracestate` that can be sent on: its members, as many as have to be kept. None for one that is none.
fn listed(text: &str) -> Option<Name> {
    let members: Vec<&str> = text.split(',').map(str::trim).filter(|member| !member.is_empty()).collect();
    let is_member = |member: &&str| {
        let Some((key, value)) = member.split_once('=') else { return false };
        let is_key = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_-*/@".contains(&c);
        let is_value = |c: u8| (b' '..=b'~').contains(&c) && c != b'=';
        !key.is_empty()
            && key.len() <= 256
            && key.bytes().all(is_key)
            && value.len() <= 256
            && value.bytes().all(is_value)
    };
    if members.is_empty() || members.len() > MEMBERS_MAX || !members.iter().all(is_member) {
        return None;
    }
    let mut kept = String::new();
    for member in members {
        if kept.len() + member.len() < STATE_BYTES_MAX {
            let comma = if kept.is_empty() { "" } else { "," };
            kept = format!("{kept}{comma}{member}");
        }
    }
    Some(kept.into())
}

/// Hexadecimal digits in lower case.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let digits = text.as_bytes();
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

/// The value of `traceparent` for a call of this key, by which whoever is called continues the trace; `incoming` is that
/// within which the run was started.
#[must_use]
pub fn traceparent(key: &str, incoming: Option<&Incoming>) -> String {
    let run = RunId::stored(key.rsplit_once(CALL_MARK).map_or(key, |(run, _)| run));
    let flags = incoming.map_or(SAMPLED, |incoming| incoming.flags);
    format!("00-{}-{}-{flags:02x}", TraceId::within(incoming, &run), SpanId::of_call(key))
}

/// What a call of this key carries, by the names of headers and of `_meta`.
#[must_use]
pub fn carried(key: &str, incoming: Option<&Incoming>) -> Vec<(&'static str, String)> {
    let state = incoming.and_then(|incoming| incoming.state.as_deref());
    let state = state.map(|state| (TRACESTATE, state.to_owned()));
    std::iter::once((TRACEPARENT, traceparent(key, incoming))).chain(state).collect()
}

/// The same by the names of variables.
#[must_use]
pub fn carried_in_environment(key: &str, incoming: Option<&Incoming>) -> Vec<(&'static str, String)> {
    let named = |(name, value)| (if name == TRACESTATE { "TRACESTATE" } else { "TRACEPARENT" }, value);
    carried(key, incoming).into_iter().map(named).collect()
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
        let parent = traceparent(&EffectId(4).key(&child), None);
        let parts: Vec<&str> = parent.split('-').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len(), parts[3]), ("00", 32, 16, "01"));
        assert_eq!(parts[1], TraceId::of(&root).to_string());
        assert_eq!(parts[2], SpanId::of_call(&EffectId(4).key(&child)).to_string());
    }
    #[test]
    fn the_trace_of_a_caller_is_read_and_carried_on() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let incoming = Incoming::parse(parent, Some("a=1, b@x=2")).expect("a parent");
        let carried = carried("r~1.0#4", Some(&incoming));
        assert_eq!(carried[0].1, format!("{}-{}-01", &parent[..35], SpanId::of_call("r~1.0#4")));
        assert_eq!(carried[1], (TRACESTATE, "a=1,b@x=2".to_owned()));
        assert_eq!(incoming.span().to_string(), "b7ad6b7169203331");
        assert!(incoming.is_sampled());
        let text = serde_json::to_string(&incoming).expect("JSON");
        assert_eq!(serde_json::from_str::<Incoming>(&text).expect("read"), incoming);

        let unsampled = Incoming::parse(&parent.replace("-01", "-00"), None).expect("a parent");
        assert!(!unsampled.is_sampled() && traceparent("r#1", Some(&unsampled)).ends_with("-00"));
        let later = format!("cc{}-what-comes", &parent[2..]);
        assert!(Incoming::parse(&later, None).is_ok(), "a version to come");
        for wrong in [
            "",
            "00",
            &parent[..54],
            &format!("{parent}-x"),
            &format!("cc{}x", &parent[2..]),
            &parent.replacen("00", "ff", 1),
            &parent.to_uppercase(),
            &parent.replace('-', "_"),
            &parent.replace("b7ad6b7169203331", "0000000000000000"),
            &parent.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-1",
        ] {
            assert_eq!(Incoming::parse(wrong, Some("a=1")), Err(NoParent), "{wrong}");
        }
    }

    #[test]
    fn a_state_that_is_none_is_dropped_and_a_long_one_is_cut_between_members() {
        for wrong in ["", " , ", "a", "A=1", "a=1=2", "a=\u{e9}", &vec!["a=1"; 33].join(",")] {
            assert_eq!(listed(wrong), None, "{wrong}");
        }
        let long = format!("a={},b={},c={}", "x".repeat(250), "y".repeat(250), "z".repeat(250));
        let kept = listed(&long).expect("kept");
        assert!(kept.len() <= STATE_BYTES_MAX && kept.ends_with('y'), "{kept}");
    }
}
