//! A tiny HTTP server on a free port that answers as a test wants: whole, cut, standing still, or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use windlass_core::value::Value;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

/// How an answer ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// As it should.
    Whole,
    /// After so many bytes, although more are announced.
    Cut(usize),
    /// After so many bytes, although more are announced, with a reset of the connection.
    Reset(usize),
    /// Within the headers, after so many of their bytes.
    Head(usize),
    /// After so many bytes, with nothing announced: the end of the connection is the end of the body.
    Closed(usize),
    /// Never: it stands still after so many bytes.
    Still(usize),
    /// Whole, but one byte at a time with so many milliseconds between.
    Drip(u64),
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answers.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8>, end: End },
    /// Closes the connection.
    Drop,
    /// Resets the connection.
    Reset,
    /// Waits until the other side goes.
    Hang,
}

impl Act {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self::Answer { status, headers, body: body.into(), end: End::Whole }
    }

    pub(crate) fn stream(body: &[u8]) -> Self {
        let headers = vec![("content-type", "text/event-stream".to_owned())];
        Self::Answer { status: 200, headers, body: body.to_vec(), end: End::Whole }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }

    pub(crate) fn end(mut self, how: End) -> Self {
        if let Self::Answer { end, .. } = &mut self {
            *end = how;
        }
        self
    }
}

type Handler = dyn Fn(&Seen) -> Act + Send + Sync;

/// A running server; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    hanging: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts one that does with every request what the function says.
    pub(crate) fn start(handler: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let listener = TcpListener::from_std(listener).expect("a runtime");
        let (seen, handler): (Arc<Mutex<Vec<Seen>>>, Arc<Handler>) = (Arc::default(), Arc::new(handler));
        let (count, hanging) = watch::channel(0);
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, log, count) = (Arc::clone(&handler), Arc::clone(&log), count.clone());
                tokio::spawn(async move { serve(stream, &*handler, &log, &count).await });
            }
        });
        Self { url, seen, hanging, task }
    }

    /// One that always does the same.
    pub(crate) fn always(act: Act) -> Self {
        Self::start(move |_| act.clone())
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends when a request hangs.
    pub(crate) async fn arrived(&self) {
        self.hanging.clone().wait_for(|n| *n > 0).await.expect("a running server");
    }

    /// Ends when no request hangs.
    pub(crate) async fn quiet(&self) {
        self.hanging.clone().wait_for(|n| *n == 0).await.expect("a running server");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Seen>>, count: &watch::Sender<usize>) {
    let Some(seen) = read(&mut stream).await else { return };
    log.lock().unwrap_or_else(PoisonError::into_inner).push(seen.clone());
    let (status, headers, body, end) = match handler(&seen) {
        Act::Drop => return,
        Act::Reset => return stream.set_zero_linger().expect("a socket"),
        Act::Hang => return hang(&mut stream, count).await,
        Act::Answer { status, headers, body, end } => (status, headers, body, end),
    };
    let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
    if !matches!(end, End::Closed(_)) {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let upto = |k: usize| &body[..k.min(body.len())];
    if let End::Head(k) = end {
        head.truncate(k);
    }
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let written = match end {
        End::Whole => stream.write_all(&body).await,
        End::Head(_) => Ok(()),
        End::Reset(k) => {
            let written = stream.write_all(upto(k)).await;
            return stream.set_zero_linger().and(written).unwrap_or_default();
        }
        End::Cut(k) | End::Closed(k) => stream.write_all(upto(k)).await,
        End::Still(k) => {
            let written = stream.write_all(upto(k)).await;
            hang(&mut stream, count).await;
            written
        }
        End::Drip(every_ms) => drip(&mut stream, &body, every_ms).await,
    };
    if written.is_ok() {
        let _closed_already = stream.shutdown().await;
    }
}

async fn drip(stream: &mut TcpStream, body: &[u8], every_ms: u64) -> std::io::Result<()> {
    let mut pace = tokio::time::interval(Duration::from_millis(every_ms));
    for byte in body {
        pace.tick().await;
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
    }
    Ok(())
}

async fn hang(stream: &mut TcpStream, count: &watch::Sender<usize>) {
    count.send_modify(|n| *n += 1);
    let mut rest = [0; 256];
    while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
    count.send_modify(|n| *n -= 1);
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: BTreeMap<String, String> =
        lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    while bytes.len() < end + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = Value::from_json(std::str::from_utf8(&bytes[end + 4..]).ok()?).ok()?;
    Some(Seen { path, headers, body })
}
