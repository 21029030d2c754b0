//! A small HTTP server on the loopback whose answers a test decides, broken ones included.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A request as it arrived; names of headers in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status, further header lines, body.
    Full(u16, &'static str, String),
    /// Nothing, until the other side goes away.
    Hang,
    /// Closes the connection without an answer.
    Close,
    /// These bytes, then closes.
    Raw(Vec<u8>),
    /// These bytes, and then nothing until the other side goes away.
    Still(Vec<u8>),
    /// A 200 without a length and a body without an end.
    Flood,
}

/// A server that runs as long as the test.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    count: watch::Sender<usize>,
    open: watch::Sender<usize>,
    /// Requests that were left without an answer: how many, and how many of them wait yet.
    left: watch::Sender<(usize, usize)>,
}

impl Server {
    pub(crate) async fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (count, open, left) = (watch::Sender::new(0), watch::Sender::new(0), watch::Sender::new((0, 0)));
        let reply = Arc::new(reply);
        let server = Self { url, seen: seen.clone(), count: count.clone(), open: open.clone(), left: left.clone() };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, count, open, reply) = (seen.clone(), count.clone(), open.clone(), reply.clone());
                let left = left.clone();
                open.send_modify(|n| *n += 1);
                tokio::spawn(async move {
                    while let Some(request) = read(&mut stream).await {
                        let answer = reply(&request);
                        seen.lock().expect("the log").push(request);
                        count.send_modify(|n| *n += 1);
                        let is_left = usize::from(matches!(answer, Reply::Hang | Reply::Still(_)));
                        left.send_modify(|(all, now)| (*all, *now) = (*all + is_left, *now + is_left));
                        let goes_on = write(&mut stream, answer).await;
                        left.send_modify(|(_, now)| *now -= is_left);
                        if !goes_on {
                            break;
                        }
                    }
                    open.send_modify(|n| *n -= 1);
                });
            }
        });
        server
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("the log").clone()
    }

    /// Ends when a request has arrived.
    pub(crate) async fn arrived(&self) {
        self.count.subscribe().wait_for(|n| *n > 0).await.expect("a server");
    }

    /// Ends when so many requests have been left without an answer.
    pub(crate) async fn left(&self, count: usize) {
        self.left.subscribe().wait_for(|(all, _)| *all >= count).await.expect("a server");
    }

    /// Ends when the other side has closed the connection of each of so many requests that were left without an answer.
    pub(crate) async fn given_up(&self, count: usize) {
        self.left.subscribe().wait_for(|(all, now)| *all >= count && *now == 0).await.expect("a server");
    }

    /// Ends when no connection is open.
    pub(crate) async fn quiet(&self) {
        self.open.subscribe().wait_for(|n| *n == 0).await.expect("a server");
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> =
        lines.filter_map(|l| l.split_once(':')).map(|(k, v)| (k.to_lowercase(), v.trim().to_owned())).collect();
    let length: usize = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    while bytes.len() < head + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8_lossy(&bytes[head + 4..]).into_owned();
    Some(Request { method, target, headers, body })
}

/// Writes a reply; false when the connection is over.
async fn write(stream: &mut TcpStream, reply: Reply) -> bool {
    match reply {
        Reply::Full(status, headers, body) => {
            let length = body.len();
            let text = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
            stream.write_all(text.as_bytes()).await.is_ok()
        }
        Reply::Hang | Reply::Still(_) => {
            if let Reply::Still(bytes) = &reply
                && stream.write_all(bytes).await.is_err()
            {
                return false;
            }
            let mut byte = [0];
            while stream.read(&mut byte).await.is_ok_and(|n| n > 0) {}
            false
        }
        Reply::Close => false,
        Reply::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            false
        }
        Reply::Flood => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
            false
        }
    }
}
