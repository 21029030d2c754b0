//! Framing of the PostgreSQL wire protocol, version 3: whole messages out of bytes, in both directions. Knows nothing
//! of what messages mean.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of one message at most. A longer one is no conversation that a fault proxy has to carry.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of a message before authentication at most, as in the server.
const STARTUP_BYTES_MAX: usize = 10_000;

/// One message, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its type; 0 for the messages without one that open a connection.
    pub(crate) tag: u8,
    /// All of it, type and length included.
    pub(crate) bytes: Bytes,
}

impl Frame {
    /// What follows type and length.
    pub(crate) fn body(&self) -> &[u8] {
        let head = if self.tag == 0 { 4 } else { 5 };
        self.bytes.get(head..).unwrap_or_default()
    }
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {0} bytes is none of the protocol")]
pub(crate) struct Malformed(usize);

/// Cuts a stream of bytes into messages.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    buffer: BytesMut,
    /// Whether messages have a type, as all have but those that open a connection.
    typed: bool,
}

impl Framer {
    /// For the side that a client hears.
    pub(crate) fn typed() -> Self {
        Self { buffer: BytesMut::new(), typed: true }
    }

    /// For the side that opens the connection.
    pub(crate) fn opening() -> Self {
        Self::default()
    }

    /// From here on messages have a type.
    pub(crate) fn opened(&mut self) {
        self.typed = true;
    }

    /// Where the next bytes go.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Everything that is not a whole message yet.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }

    /// The next message, when all of it is there.
    ///
    /// # Errors
    /// A length that no message has.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Malformed> {
        let (head, max) = if self.typed { (1, MESSAGE_BYTES_MAX) } else { (0, STARTUP_BYTES_MAX) };
        let Some(mut field) = self.buffer.get(head..head + 4) else { return Ok(None) };
        let length = field.get_u32() as usize;
        if length < 4 || length > max {
            return Err(Malformed(length));
        }
        if self.buffer.len() < head + length {
            return Ok(None);
        }
        let tag = if self.typed { self.buffer[0] } else { 0 };
        Ok(Some(Frame { tag, bytes: self.buffer.split_to(head + length).freeze() }))
    }
}

/// The text up to the next zero byte, and what follows it.
pub(crate) fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), bytes.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn messages_come_out_whole_however_they_arrive() {
        let mut stream = message(b'Q', b"SELECT 1\0");
        stream.extend(message(b'S', b""));
        for cut in 0..stream.len() {
            let mut framer = Framer::typed();
            let mut found = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                framer.buffer().extend_from_slice(part);
                while let Some(frame) = framer.next().expect("messages") {
                    found.push((frame.tag, frame.body().to_vec()));
                }
            }
            assert_eq!(found, [(b'Q', b"SELECT 1\0".to_vec()), (b'S', Vec::new())], "cut at {cut}");
        }
    }

    #[test]
    fn the_opening_has_no_type() {
        let mut framer = Framer::opening();
        framer.buffer().extend_from_slice(&[0, 0, 0, 8, 4, 210, 22, 47]);
        framer.buffer().extend_from_slice(&message(b'p', b"x\0"));
        let opening = framer.next().expect("a message").expect("all of it");
        assert_eq!((opening.tag, opening.body()), (0, &[4, 210, 22, 47][..]));
        framer.opened();
        assert_eq!(framer.next().expect("a message").expect("all of it").tag, b'p');
    }

    #[test]
    fn a_length_that_cannot_be_is_refused() {
        let mut framer = Framer::typed();
        framer.buffer().extend_from_slice(&[b'Q', 0, 0, 0, 3]);
        assert_eq!(framer.next(), Err(Malformed(3)));
        let mut framer = Framer::opening();
        framer.buffer().extend_from_slice(b"GET / HTTP/1.1\r\n");
        assert!(framer.next().is_err());
    }
}
