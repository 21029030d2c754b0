//! The binary event stream of AWS (`application/vnd.amazon.eventstream`): bytes in any pieces to whole messages, each
//! with its checksums checked.

use windlass_core::value::Value;

use crate::errors::Fault;
use crate::frames::Event;

/// Bytes of one message: what the format allows.
const MESSAGE_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Bytes before the headers: both lengths and their checksum.
const PRELUDE_BYTES: usize = 12;

/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 4;

/// Collects bytes until a message is whole.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
}

/// The headers that say what a message is.
#[derive(Debug, Default)]
struct Headers {
    message: String,
    event: String,
    exception: String,
    error_code: String,
    error_message: String,
}

impl Decoder {
    /// Takes the next bytes and gives the messages that they complete. An exception becomes an event `exception` with
    /// the data `{"error": {"type", "message"}}`.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Fault> {
        self.bytes.extend_from_slice(bytes);
        let (mut events, mut at) = (Vec::new(), 0);
        while let Some((event, length)) = message(&self.bytes[at..])? {
            events.push(event);
            at += length;
        }
        self.bytes.drain(..at);
        Ok(events)
    }

    /// Whether no part of a message is left over.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

fn malformed(why: &str) -> Fault {
    Fault::Malformed(format!("the event stream is damaged: {why}"))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The first message and its length. None while it is not whole.
fn message(bytes: &[u8]) -> Result<Option<(Event, usize)>, Fault> {
    let (Some(total), Some(headers), Some(check)) = (number(bytes, 0), number(bytes, 4), number(bytes, 8)) else {
        return Ok(None);
    };
    if crc32fast::hash(&bytes[..8]) != check {
        return Err(malformed("the checksum of a prelude is wrong"));
    }
    let (total, headers) = (total as usize, headers as usize);
    if total > MESSAGE_BYTES_MAX || headers.saturating_add(PRELUDE_BYTES + CHECKSUM_BYTES) > total {
        return Err(malformed("a message has an impossible length"));
    }
    let Some(whole) = bytes.get(..total) else { return Ok(None) };
    let end = total - CHECKSUM_BYTES;
    if number(whole, end) != Some(crc32fast::hash(&whole[..end])) {
        return Err(malformed("the checksum of a message is wrong"));
    }
    let said = read_headers(&whole[PRELUDE_BYTES..PRELUDE_BYTES + headers])?;
    let payload = std::str::from_utf8(&whole[PRELUDE_BYTES + headers..end])
        .map_err(|e| Fault::Malformed(format!("the stream is not UTF-8: {e}")))?;
    Ok(Some((event(said, payload), total)))
}

fn event(said: Headers, payload: &str) -> Event {
    match said.message.as_str() {
        "exception" => {
            let body = Value::from_json(payload).unwrap_or_default();
            let message = body.get("message").and_then(Value::as_str).unwrap_or(payload).to_owned();
            failure(said.exception, message)
        }
        "error" => failure(said.error_code, said.error_message),
        _ => Event { name: said.event, data: payload.to_owned() },
    }
}

fn failure(kind: String, message: String) -> Event {
    let error = Value::object([("type", Value::str(kind)), ("message", Value::str(message))]);
    Event { name: "exception".to_owned(), data: Value::object([("error", error)]).to_json() }
}

fn read_headers(mut bytes: &[u8]) -> Result<Headers, Fault> {
    let mut headers = Headers::default();
    let short = || malformed("a header is cut short");
    let mut take = |count: usize| -> Result<&[u8], Fault> {
        let (part, rest) = bytes.split_at_checked(count).ok_or_else(short)?;
        bytes = rest;
        Ok(part)
    };
    while let Ok(length) = take(1) {
        let name = take(usize::from(length[0]))?;
        let kind = take(1)?[0];
        let length = match kind {
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => 4,
            5 | 8 => 8,
            9 => 16,
            6 | 7 => {
                let length = take(2)?;
                usize::from(u16::from_be_bytes([length[0], length[1]]))
            }
            _ => return Err(malformed("a header has an unknown type")),
        };
        let value = take(length)?;
        let slot = match name {
            b":message-type" => &mut headers.message,
            b":event-type" => &mut headers.event,
            b":exception-type" => &mut headers.exception,
            b":error-code" => &mut headers.error_code,
            b":error-message" => &mut headers.error_message,
            _ => continue,
        };
        *slot = String::from_utf8_lossy(value).into_owned();
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(headers: &[(&str, &str)], payload: &str) -> Vec<u8> {
        let mut head = Vec::new();
        for (name, value) in headers {
            head.push(name.len() as u8);
            head.extend_from_slice(name.as_bytes());
            head.push(7);
            head.extend_from_slice(&(value.len() as u16).to_be_bytes());
            head.extend_from_slice(value.as_bytes());
        }
        let total = PRELUDE_BYTES + head.len() + payload.len() + CHECKSUM_BYTES;
        let mut out = (total as u32).to_be_bytes().to_vec();
        out.extend_from_slice(&(head.len() as u32).to_be_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(payload.as_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out
    }

    fn two() -> Vec<u8> {
        let mut bytes = frame(
            &[(":message-type", "event"), (":event-type", "contentBlockDelta"), (":content-type", "application/json")],
            r#"{"delta":{"text":"ä"}}"#,
        );
        bytes.extend(frame(
            &[(":message-type", "exception"), (":exception-type", "throttlingException")],
            r#"{"message":"slow"}"#,
        ));
        bytes
    }

    #[test]
    fn messages_are_the_same_however_the_bytes_are_split() {
        let bytes = two();
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::default();
            let got: Vec<Event> = bytes.chunks(size).flat_map(|c| decoder.push(c).expect("valid")).collect();
            assert_eq!(got[0], Event { name: "contentBlockDelta".into(), data: r#"{"delta":{"text":"ä"}}"#.into() });
            assert_eq!(got[1].data, r#"{"error":{"type":"throttlingException","message":"slow"}}"#);
            assert!(decoder.is_empty() && got.len() == 2);
        }
    }

    #[test]
    fn any_damaged_byte_is_noticed() {
        let bytes = two();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let mut decoder = Decoder::default();
            let whole = decoder.push(&damaged).map(|events| events.len() == 2 && decoder.is_empty());
            assert_ne!(whole.ok(), Some(true), "byte {at}");
        }
    }
}
