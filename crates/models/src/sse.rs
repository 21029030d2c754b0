//! Server-sent events: bytes in any pieces to whole events.
//!
//! An event counts only with the blank line that ends it, so a stream cut anywhere never yields half an event.

use crate::errors::Fault;
use crate::frames::Event;

/// Collects bytes until an event is whole. The caller bounds how many bytes it feeds.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    line: Vec<u8>,
    name: Option<String>,
    data: Option<String>,
    started: bool,
}

impl Decoder {
    /// Takes the next bytes and gives the events that they complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<Event>, Fault> {
        let mut events = Vec::new();
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            events.extend(self.line(&line)?);
        }
        self.line.extend_from_slice(bytes);
        Ok(events)
    }

    /// Whether no part of an event is left over.
    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty() && self.data.is_none()
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Event>, Fault> {
        let text = std::str::from_utf8(line).map_err(|e| Fault::Malformed(format!("the stream is not UTF-8: {e}")))?;
        let text = text.strip_suffix('\r').unwrap_or(text);
        let text = if self.started { text } else { text.strip_prefix('\u{feff}').unwrap_or(text) };
        self.started = true;
        if text.is_empty() {
            let name = self.name.take().unwrap_or_else(|| "message".to_owned());
            return Ok(self.data.take().map(|data| Event { name, data }));
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        ": hello\r\nevent: a\r\ndata: ä1\r\ndata: 2\r\n\r\ndata:x\n\nevent: empty\n\ndata: end\n\n".as_bytes();

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_split() {
        let want = vec![event("a", "ä1\n2"), event("message", "x"), event("message", "end")];
        for size in 1..STREAM.len() {
            let mut decoder = Decoder::default();
            let got: Vec<Event> = STREAM.chunks(size).flat_map(|c| decoder.push(c).expect("valid")).collect();
            assert_eq!(got, want, "pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_its_blank_line_does_not_count() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(b"data: x\n").expect("valid"), vec![]);
        assert_eq!(decoder.push(b"\n").expect("valid"), vec![event("message", "x")]);
    }

    #[test]
    fn bytes_that_are_no_text_are_malformed() {
        let mut decoder = Decoder::default();
        assert!(matches!(decoder.push(b"data: \xff\n\n"), Err(Fault::Malformed(_))));
    }
}
