//! Requests as they are on the wire, and their answers.

use serde_json::{Value as Json, json};

use super::super::Served;

/// What was answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Json,
}

impl Served {
    fn address(&self) -> &str {
        self.said["listen"].as_str().and_then(|url| url.strip_prefix("http://")).expect("it listens")
    }

    /// Sends a request as it is.
    pub(super) fn raw(&self, request: &[u8]) -> Answer {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.address()).expect("a connection");
        // It may answer, and close, before all of a body was sent.
        let _sent = stream.write_all(request);
        let mut bytes = Vec::new();
        let _read = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        let body = serde_json::from_str(body).unwrap_or(Json::Null);
        Answer { status, head: head.to_lowercase(), body }
    }

    pub(super) fn asks(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        self.raw(format!("{head}\r\n{body}").as_bytes())
    }

    pub(super) fn gets(&self, token: &str, path: &str) -> Answer {
        self.asks("GET", path, &[("authorization", &format!("Bearer {token}"))], "")
    }

    pub(super) fn calls(&self, token: &str, tool: &str, key: &str, arguments: &Json) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer), ("content-type", "application/json"), ("idempotency-key", key)];
        let headers = if key.is_empty() { &headers[..2] } else { &headers };
        let body = json!({ "arguments": arguments }).to_string();
        self.asks("POST", &format!("/v1/tools/{tool}/call?wait=30s"), headers, &body)
    }
}
