//! The counting server: a model, tools and their log. Runs in the test's process, so no crash of a worker loses it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// One thing done to the world.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deed {
    /// `model` or the tool's name.
    pub(super) what: String,
    /// The idempotency key it came with.
    pub(super) key: String,
}

/// What the server remembers.
#[derive(Debug, Default)]
struct Memory {
    deeds: Vec<Deed>,
    /// Requests that ever arrived, by kind.
    arrived: BTreeMap<String, u64>,
    /// What the last one of each kind brought.
    brought: BTreeMap<String, Value>,
}

/// A running counting server.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) address: String,
    memory: Arc<Mutex<Memory>>,
    /// Open connections, and a bell for when one closes.
    open: Arc<(Mutex<u64>, Condvar)>,
    delay_ms: Arc<AtomicU64>,
    /// By how much longer the second, the third and the fourth of four answers takes.
    spread_ms: Arc<AtomicU64>,
    /// A kind of deed, and how long its answers take instead.
    lingers: Arc<Mutex<(String, u64)>>,
    /// While it is shut, nothing is answered.
    gate: Arc<(Mutex<bool>, Condvar)>,
    /// Further headers of every answer.
    headers: Arc<Mutex<String>>,
    /// Answers that were streams.
    streams: Arc<AtomicU64>,
    /// Requests whose signature by access keys of AWS holds.
    signed: Arc<AtomicU64>,
}

impl World {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let world = Self {
            address,
            memory: Arc::default(),
            open: Arc::default(),
            delay_ms: Arc::default(),
            spread_ms: Arc::default(),
            lingers: Arc::default(),
            gate: Arc::default(),
            headers: Arc::default(),
            streams: Arc::default(),
            signed: Arc::default(),
        };
        let server = world.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                *server.open.0.lock().expect("connections") += 1;
                let server = server.clone();
                std::thread::spawn(move || {
                    server.serve(stream);
                    *server.open.0.lock().expect("connections") -= 1;
                    server.open.1.notify_all();
                });
            }
        });
        world
    }

    /// How long every answer takes from here on.
    pub(super) fn delay(&self, ms: u64) {
        self.delay_ms.store(ms, Ordering::Relaxed);
    }

    /// By how much longer than the one before each but the first of four answers takes from here on, so that some calls are
    /// out when others have been answered.
    pub(super) fn spread(&self, ms: u64) {
        self.spread_ms.store(ms, Ordering::Relaxed);
    }

    /// How long the answers to deeds of one kind take from here on: a tool, `model`, or `child` and `launch` for the models
    /// of those runs.
    pub(super) fn linger(&self, what: &str, ms: u64) {
        *self.lingers.lock().expect("a kind") = (what.to_owned(), ms);
    }

    /// Says this in every answer from here on: lines of headers, each with its end.
    pub(super) fn say(&self, headers: &str) {
        headers.clone_into(&mut self.headers.lock().expect("headers"));
    }

    /// Answers nothing, or everything.
    pub(super) fn shut(&self, shut: bool) {
        *self.gate.0.lock().expect("the gate") = shut;
        self.gate.1.notify_all();
    }

    /// How many requests of a kind have ever arrived.
    pub(super) fn arrivals(&self, kind: &str) -> u64 {
        self.memory.lock().expect("memory").arrived.get(kind).copied().unwrap_or(0)
    }

    /// What the last request of a kind brought.
    pub(super) fn brought(&self, kind: &str) -> Value {
        self.memory.lock().expect("memory").brought.get(kind).cloned().unwrap_or_default()
    }

    /// Takes note of a request, and says how long its answer takes.
    fn pause(&self, path: &str, body: &Value) -> Duration {
        let name = path.rsplit('/').next().unwrap_or_default();
        let what = match super::wires::format(path) {
            None if path.ends_with("/chat/completions") => who(body),
            None => name,
            Some(_) => "model",
        };
        let arrived = {
            let mut memory = self.memory.lock().expect("memory");
            memory.brought.insert(what.to_owned(), body.clone());
            let count = memory.arrived.entry(what.to_owned()).or_default();
            *count += 1;
            *count
        };
        let lingers = self.lingers.lock().expect("a kind");
        let ms = if lingers.0 == what { lingers.1 } else { self.delay_ms.load(Ordering::Relaxed) };
        Duration::from_millis(ms + arrived % 4 * self.spread_ms.load(Ordering::Relaxed))
    }

    /// Waits until everything that dead processes had sent has been read. Connections are taken in the order they
    /// were made, so one of our own comes after all of theirs.
    pub(super) fn settle(&self) {
        let mut stream = TcpStream::connect(&self.address).expect("the server listens");
        stream.write_all(b"GET /quiet HTTP/1.1\r\nconnection: close\r\n\r\n").expect("a request");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        let (count, bell) = &*self.open;
        let open = count.lock().expect("connections");
        drop(bell.wait_while(open, |open| *open > 0).expect("connections"));
    }

    /// How many answers were streams.
    pub(super) fn streamed(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// How many requests had a signature by access keys of AWS that holds.
    #[cfg(feature = "sigv4")]
    pub(super) fn signed(&self) -> u64 {
        self.signed.load(Ordering::Relaxed)
    }

    /// How often each kind of deed was done so far.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for deed in &self.memory.lock().expect("memory").deeds {
            *counts.entry(deed.what.clone()).or_default() += 1;
        }
        counts
    }

    /// Everything done so far, and forgets it.
    pub(super) fn take(&self) -> Vec<Deed> {
        std::mem::take(&mut self.memory.lock().expect("memory").deeds)
    }

    /// Whether a call of this key was made.
    pub(super) fn has(&self, key: &str) -> bool {
        self.memory.lock().expect("memory").deeds.iter().any(|deed| deed.key == key)
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some((path, headers, body)) = read_request(&mut reader) {
            let key = headers.get("idempotency-key").cloned().unwrap_or_default();
            self.signed.fetch_add(u64::from(super::signature::holds(&path, &headers, &body)), Ordering::Relaxed);
            let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let reply = self.answer(&path, &key, &body);
            // Slow on purpose: a call has to last long enough to be interrupted.
            std::thread::sleep(self.pause(&path, &body));
            let shut = self.gate.0.lock().expect("the gate");
            drop(self.gate.1.wait_while(shut, |shut| *shut).expect("the gate"));
            let status = if body["model"] == super::wires::DOWN { "503 Service Unavailable" } else { "200 OK" };
            let is_stream = body["stream"] == true && path.ends_with("/chat/completions");
            let (kind, text) = match is_stream {
                true => ("text/event-stream", super::wires::streamed(&reply)),
                false => ("application/json", reply.to_string()),
            };
            self.streams.fetch_add(u64::from(is_stream), Ordering::Relaxed);
            let more = self.headers.lock().expect("headers").clone();
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{more}content-length: {}\r\n\r\n", text.len());
            let stream = reader.get_mut();
            if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes())).is_err() {
                return;
            }
        }
    }

    fn answer(&self, path: &str, key: &str, body: &Value) -> Value {
        let name = path.rsplit('/').next().unwrap_or_default();
        if name == "quiet" {
            return Value::Null;
        }
        if path.ends_with("/chat/completions") {
            self.note("model", &conversation_key(body));
            return model_reply(body);
        }
        if let Some(kind) = super::wires::format(path) {
            self.note("model", &format!("\"{}\"/2", super::wires::asked(body)));
            return super::wires::reply(kind);
        }
        if name == "happened" {
            let asked = body["effect_id"].as_str().unwrap_or_default();
            return json!({"happened": self.has(asked), "result": {"done": body["tool"]}});
        }
        self.note(name, key);
        json!({"done": name})
    }

    fn note(&self, what: &str, key: &str) {
        let deed = Deed { what: what.to_owned(), key: key.to_owned() };
        self.memory.lock().expect("memory").deeds.push(deed);
    }
}

/// Whose model call it is: that of a child, of the launched run, or of the run itself.
fn who(body: &Value) -> &'static str {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let user = messages.iter().find(|message| message["role"] == "user").map(|message| message["content"].to_string());
    match user.as_deref().map(|text| text.trim_matches('"').split(' ').next()) {
        Some(Some("leaf")) => "child",
        Some(Some("side")) => "launch",
        _ => "model",
    }
}

/// What tells one model call from another: the conversation itself.
fn conversation_key(body: &Value) -> String {
    let messages = body["messages"].as_array().cloned().unwrap_or_default();
    let user = messages.iter().find(|m| m["role"] == "user").map(|m| m["content"].to_string()).unwrap_or_default();
    format!("{user}/{}", messages.len())
}

/// The model: a pure function of the conversation. The worker asks for every tool that it has once, then is done.
fn model_reply(body: &Value) -> Value {
    let messages = body["messages"].as_array().cloned().unwrap_or_default();
    let tools = body["tools"].as_array().cloned().unwrap_or_default();
    let answered = messages.iter().any(|m| m["role"] == "tool");
    let message = if !tools.is_empty() && !answered {
        let calls: Vec<Value> = tools
            .iter()
            .map(|tool| {
                let tool = tool["function"]["name"].as_str().unwrap_or_default();
                let arguments = json!({"order": 7, "tool": tool}).to_string();
                json!({"id": format!("call-{tool}"), "type": "function", "function": {"name": tool, "arguments": arguments}})
            })
            .collect();
        json!({"role": "assistant", "content": null, "tool_calls": calls})
    } else {
        json!({"role": "assistant", "content": format!("answer after {} messages", messages.len())})
    };
    let finish = if message.get("tool_calls").is_some() { "tool_calls" } else { "stop" };
    json!({
        "id": "reply", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    })
}

type Request = (String, BTreeMap<String, String>, Vec<u8>);

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|n| *n > 0)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, headers, body))
}
