//! The pieces of a streamed answer, however the provider frames them: server-sent events, JSON lines, or the binary
//! event stream of AWS. A piece counts only when it is whole, so a stream cut anywhere never yields half of one.

use windlass_core::value::Value;

use crate::aws;
use crate::errors::Fault;
use crate::sse;
use crate::wire::text;

/// One piece of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its name; `message` when the stream gave none.
    pub(crate) name: String,
    /// Its data; lines joined by `\n`.
    pub(crate) data: String,
}

impl Event {
    /// Its data as JSON.
    pub(crate) fn json(&self) -> Result<Value, Fault> {
        Value::from_json(&self.data).map_err(|e| Fault::Malformed(format!("a piece of the stream is not JSON: {e}")))
    }

    /// Its data as a JSON mapping.
    pub(crate) fn mapping(&self) -> Result<Value, Fault> {
        let value = self.json()?;
        if value.as_map().is_none() {
            return Err(Fault::Malformed("a piece of the stream is no mapping".to_owned()));
        }
        Ok(value)
    }
}

/// Takes a stream apart. The caller bounds how many bytes it feeds.
#[derive(Debug)]
pub(crate) enum Frames {
    /// Server-sent events.
    Sse(sse::Decoder),
    /// One JSON value a line.
    Lines(Vec<u8>),
    /// The binary event stream of AWS.
    Aws(aws::Decoder),
}

impl Frames {
    /// The framing of a content type; none for an answer in one piece.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        match kind.to_ascii_lowercase().as_str() {
            "text/event-stream" => Some(Self::Sse(sse::Decoder::default())),
            "application/x-ndjson" | "application/jsonl" | "application/x-jsonlines" => Some(Self::Lines(Vec::new())),
            "application/vnd.amazon.eventstream" => Some(Self::Aws(aws::Decoder::default())),
            _ => None,
        }
    }

    /// Takes the next bytes and gives the pieces that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Fault> {
        match self {
            Self::Sse(decoder) => decoder.push(bytes),
            Self::Lines(left) => lines(left, bytes),
            Self::Aws(decoder) => decoder.push(bytes),
        }
    }

    /// Whether no part of a piece is left over.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Sse(decoder) => decoder.is_empty(),
            Self::Lines(left) => left.is_empty(),
            Self::Aws(decoder) => decoder.is_empty(),
        }
    }
}

fn lines(left: &mut Vec<u8>, mut bytes: &[u8]) -> Result<Vec<Event>, Fault> {
    let mut events = Vec::new();
    while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
        left.extend_from_slice(&bytes[..end]);
        bytes = &bytes[end + 1..];
        let line = String::from_utf8(std::mem::take(left))
            .map_err(|e| Fault::Malformed(format!("the stream is not UTF-8: {e}")))?;
        if !line.trim().is_empty() {
            events.push(Event { name: "message".to_owned(), data: line.trim().to_owned() });
        }
    }
    left.extend_from_slice(bytes);
    Ok(events)
}

/// An error in the place of a piece: `{"error": …}`.
pub(crate) fn error_in(value: &Value) -> Option<Fault> {
    value.get("error").filter(|error| error.is_truthy())?;
    Some(Fault::Broken(Box::new(crate::errors::ProviderError::from_value(None, value))))
}

/// The `type` of a piece.
pub(crate) fn kind(value: &Value) -> Result<&str, Fault> {
    text(value, "type").ok_or_else(|| Fault::Malformed("an event has no type".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_the_bytes_are_split() {
        let stream = "{\"a\":\"ä\"}\r\n\n{\"b\":1}\n".as_bytes();
        for size in 1..=stream.len() {
            let mut frames = Frames::of("application/x-ndjson; charset=utf-8").expect("a stream");
            let got: Vec<String> =
                stream.chunks(size).flat_map(|c| frames.push(c).expect("valid")).map(|e| e.data).collect();
            assert_eq!(got, ["{\"a\":\"ä\"}", "{\"b\":1}"], "pieces of {size}");
            assert!(frames.is_empty());
        }
    }

    #[test]
    fn a_line_without_its_end_does_not_count() {
        let mut frames = Frames::of("application/x-ndjson").expect("a stream");
        assert_eq!(frames.push(b"{\"a\":1}").expect("valid"), vec![]);
        assert!(!frames.is_empty());
        assert!(matches!(frames.push(b"\xff\n"), Err(Fault::Malformed(_))));
    }

    #[test]
    fn other_types_are_whole_answers() {
        assert!(Frames::of("application/json").is_none() && Frames::of("").is_none());
        assert!(Frames::of(" Text/Event-Stream; charset=utf-8").is_some());
    }
}
