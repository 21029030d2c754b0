//! As much of HTTP/1.1 as a client of one's own needs: requests with a length, one after another on a connection.

use serde_json::Value;

use super::Kind;

/// Bytes of a request at most.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// A request, whole.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    /// What it is for.
    pub(super) kind: Kind,
    /// The last part of its address.
    pub(super) what: String,
    /// What follows `/w/` in its address.
    pub(super) worker: String,
    /// Its idempotency key, or nothing.
    pub(super) key: String,
    /// Its JSON body; null when it is none.
    pub(super) body: Value,
}

/// Bytes that are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Takes the next whole request off the front of what was read.
pub(super) fn next(buffer: &mut Vec<u8>) -> Result<Option<Request>, Malformed> {
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if buffer.len() > REQUEST_BYTES_MAX { Err(Malformed) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&buffer[..end]).map_err(|_| Malformed)?;
    let mut lines = head.split("\r\n");
    let target = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or(Malformed)?;
    let (mut length, mut key) = (0, String::new());
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Malformed)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok().filter(|length| *length <= REQUEST_BYTES_MAX).ok_or(Malformed)?;
        } else if name.eq_ignore_ascii_case("idempotency-key") {
            value.clone_into(&mut key);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Malformed);
        }
    }
    let (kind, what, worker) = parts(target);
    if buffer.len() < end + 4 + length {
        return Ok(None);
    }
    let body = serde_json::from_slice(&buffer[end + 4..end + 4 + length]).unwrap_or(Value::Null);
    buffer.drain(..end + 4 + length);
    Ok(Some(Request { kind, what, worker, key, body }))
}

/// What is asked for, and by whom.
fn parts(target: &str) -> (Kind, String, String) {
    let path = target.split('?').next().unwrap_or_default();
    let mut parts = path.split('/').skip(1);
    let worker = if parts.next() == Some("w") { parts.next().unwrap_or_default() } else { "" };
    let kind = match parts.next() {
        Some("hooks") => Kind::Hook,
        Some("v1") => Kind::Model,
        _ => Kind::Tool,
    };
    let what = if kind == Kind::Model { "model" } else { path.rsplit('/').next().unwrap_or_default() };
    (kind, what.to_owned(), worker.to_owned())
}

/// An answer, whole.
pub(super) fn answer(status: u16, body: &Value) -> Vec<u8> {
    let reason = if status == 200 { "OK" } else { "Service Unavailable" };
    let text = body.to_string();
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_come_out_whole_however_they_arrive() {
        let one = b"POST /w/1.4/tools/pay HTTP/1.1\r\nIdempotency-Key: r#7\r\nContent-Length: 11\r\n\r\n{\"order\":7}";
        for cut in 0..one.len() {
            let mut buffer = one[..cut].to_vec();
            assert_eq!(next(&mut buffer), Ok(None), "cut at {cut}");
            buffer.extend_from_slice(&one[cut..]);
            buffer.extend_from_slice(b"POST /w/a/v1/chat/completions HTTP/1.1\r\n\r\n");
            let found = next(&mut buffer).expect("a request").expect("all of it");
            assert_eq!((&*found.what, &*found.worker, &*found.key), ("pay", "1.4", "r#7"));
            assert_eq!(found.body, json!({"order": 7}));
            assert_eq!(next(&mut buffer).expect("a request").expect("all of it").kind, Kind::Model);
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn what_it_does_not_speak_is_refused() {
        for bad in [
            "GET\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        ] {
            assert_eq!(next(&mut bad.as_bytes().to_vec()), Err(Malformed), "{bad}");
        }
    }
}
