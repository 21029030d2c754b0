//! Server-sent events: bytes in, events out. Bounded, and indifferent to how the bytes are cut.

/// One event. An event without data says only where the stream is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its data, lines joined.
    pub(crate) data: String,
    /// The id to resume after.
    pub(crate) id: Option<String>,
    /// How long to wait before a new connection, in milliseconds.
    pub(crate) retry_ms: Option<u64>,
}

/// The stream has a line or an event beyond its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// Reads a stream.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes_max: usize,
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed right after it belongs to it.
    returned: bool,
    started: bool,
    event: Event,
    has_data: bool,
    touched: bool,
}

impl Reader {
    /// One that takes events of this size.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            returned: false,
            started: false,
            event: Event::default(),
            has_data: false,
            touched: false,
        }
    }

    /// Takes the next bytes and gives the events that they complete.
    ///
    /// # Errors
    /// An event beyond the bound; the stream is of no use any more.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_return = std::mem::replace(&mut self.returned, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => {
                    self.line.push(byte);
                    if self.line.len() + self.event.data.len() > self.bytes_max {
                        return Err(TooLarge);
                    }
                }
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let mut line: &str = &text;
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            self.has_data = false;
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.touched).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.touched = true;
            }
            "id" if !value.contains('\0') => {
                self.event.id = Some(value.to_owned());
                self.touched = true;
            }
            "retry" => {
                if let Ok(ms) = value.parse() {
                    self.event.retry_ms = Some(ms);
                    self.touched = true;
                }
            }
            // A comment, the kind of the event, or something of a later version.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "\u{feff}: hello\r\nid: 1\nretry: 20\ndata: \n\nevent: message\r\nid: 2\r\ndata: {\"a\":\r\ndata: \"ü\"}\r\n\r\n\rdata:x\r\rdata: cut";

    #[test]
    fn every_cut_of_the_bytes_gives_the_same_events() {
        let bytes = STREAM.as_bytes();
        let whole = Reader::new(1_000).push(bytes).unwrap();
        let data: Vec<_> = whole.iter().map(|event| (event.data.as_str(), event.id.as_deref())).collect();
        assert_eq!(data, [("", Some("1")), ("{\"a\":\n\"ü\"}", Some("2")), ("x", None)]);
        assert_eq!(whole[0].retry_ms, Some(20));
        for cut in 0..bytes.len() {
            let mut reader = Reader::new(1_000);
            let mut events = reader.push(&bytes[..cut]).unwrap();
            events.extend(reader.push(&bytes[cut..]).unwrap());
            assert_eq!(events, whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_event_is_bounded() {
        let mut reader = Reader::new(100);
        assert_eq!(reader.push(&[b'x'; 101]), Err(TooLarge));
        let mut reader = Reader::new(100);
        let line = format!("data: {}\n", "x".repeat(60));
        assert!(reader.push(line.as_bytes()).unwrap().is_empty());
        assert_eq!(reader.push(line.as_bytes()), Err(TooLarge));
    }
}
