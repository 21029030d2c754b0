//! Servers that are child processes: one message a line on their standard input and output.
//!
//! Owns the process: it is started when first needed, again after it died, ever more slowly when it keeps dying, and is
//! killed with everything that it started when nobody needs it any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use windlass_ports::tool::Permit;

use crate::answer;
use crate::group::Group;
use crate::mcp::exchange::{Answered, Local, Outgoing, Trouble};
use crate::mcp::protocol::{self, Incoming};
use crate::process::Program;

/// Messages that wait to be written.
const WRITES_MAX: usize = 256;
/// Characters of a foreign line that the log quotes.
const QUOTE_CHARS_MAX: usize = 400;
/// Foreign lines of one process that the log shows.
const QUOTES_MAX: u64 = 100;
/// The pause before a process that died is started again, in milliseconds; it doubles.
const PAUSE_MS_MIN: u64 = 100;
/// The longest such pause, in milliseconds.
const PAUSE_MS_MAX: u64 = 30_000;
/// How long a process must have lived for the next pause to be short again, in milliseconds.
const STEADY_MS: u64 = 60_000;
/// How long a process may take nothing of what is written to it, in milliseconds. One that takes nothing answers nothing either,
/// and whoever comes next waits behind what is being written.
const WRITE_MS_MAX: u64 = 30_000;
/// How long a process that was told to end may take, in milliseconds.
const GRACE_MS: u64 = 2_000;

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Answered>>>>;

/// The connection to one server.
#[derive(Debug)]
pub(crate) struct Stdio {
    program: Program,
    local: Arc<Local>,
    line_bytes_max: u64,
    link: tokio::sync::Mutex<Option<Link>>,
    starts: AtomicU64,
    pause: Mutex<Pause>,
}

#[derive(Debug, Default)]
struct Pause {
    ms: u64,
    until: Option<Instant>,
}

/// One process.
#[derive(Debug)]
struct Link {
    generation: u64,
    writer: mpsc::Sender<Line>,
    pending: Pending,
    closed: watch::Receiver<bool>,
    started: Instant,
    group: Arc<Group>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.group.finish();
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    permit: Permit,
    sent: Option<oneshot::Sender<Result<(), Trouble>>>,
}

impl Stdio {
    /// A server of this program, whose lines have at most so many bytes.
    pub(crate) fn new(program: Program, local: Arc<Local>, line_bytes_max: u64) -> Self {
        Self {
            program,
            local,
            line_bytes_max,
            link: tokio::sync::Mutex::new(None),
            starts: AtomicU64::new(0),
            pause: Mutex::default(),
        }
    }

    /// The process that is there, started if there is none. Its number grows with each start.
    pub(crate) async fn connect(&self) -> Result<u64, Trouble> {
        let mut slot = self.link.lock().await;
        if let Some(link) = &*slot {
            if !*link.closed.borrow() {
                return Ok(link.generation);
            }
            self.died(link.started);
            *slot = None;
        }
        let wait = self.pause().until.filter(|until| *until > Instant::now());
        if let Some(until) = wait {
            let ms = until.duration_since(Instant::now()).as_millis();
            return Err(Trouble::NotSent(format!("its process died and is started again in {ms} ms")));
        }
        let link = self.start()?;
        let generation = link.generation;
        *slot = Some(link);
        Ok(generation)
    }

    fn pause(&self) -> std::sync::MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn died(&self, started: Instant) {
        let mut pause = self.pause();
        let steady = started.elapsed() >= Duration::from_millis(STEADY_MS);
        pause.ms = if steady { PAUSE_MS_MIN } else { (pause.ms * 2).clamp(PAUSE_MS_MIN, PAUSE_MS_MAX) };
        pause.until = Some(Instant::now() + Duration::from_millis(pause.ms));
    }

    fn start(&self) -> Result<Link, Trouble> {
        let started = |error: std::io::Error| {
            Trouble::NotSent(format!("its program or its working directory cannot be used: {error}"))
        };
        let (mut child, group) = self.program.start(&[]).map_err(started)?;
        let group = Arc::new(group);
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(Trouble::NotSent("its process has no pipes".into()));
        };
        let (writer, lines) = mpsc::channel(WRITES_MAX);
        let (close, closed) = watch::channel(false);
        let pending = Pending::default();
        let reader = Reader {
            local: self.local.clone(),
            pending: pending.clone(),
            // Weak, so that the writer ends with the link and closes the pipe.
            writer: writer.downgrade(),
            line_bytes_max: self.line_bytes_max,
        };
        let generation = self.starts.fetch_add(1, Ordering::AcqRel) + 1;
        let tasks = vec![
            tokio::spawn(feed(stdin, lines, group.clone())),
            tokio::spawn(pass_on(stderr, self.local.clone(), self.program.clone())),
            tokio::spawn(reader.run(child, group.clone(), stdout, close)),
        ];
        Ok(Link { generation, writer, pending, closed, started: Instant::now(), group, tasks })
    }

    /// Sends a request to the process of this number and waits for its answer. Dropping it tells the server that nobody
    /// waits any more.
    pub(crate) async fn request(&self, generation: u64, outgoing: Outgoing) -> Answered {
        let (answer, waiting) = oneshot::channel();
        let (writer, pending, closed) = {
            let slot = self.link.lock().await;
            let link = slot.as_ref().filter(|link| link.generation == generation && !*link.closed.borrow());
            let link = link.ok_or_else(|| Trouble::NotSent("its process is gone".into()))?;
            (link.writer.clone(), link.pending.clone(), link.closed.clone())
        };
        lock(&pending).insert(outgoing.id, answer);
        let mut guard = Guard { id: outgoing.id, pending, writer: writer.clone(), sent: false };
        if *closed.borrow() {
            return Err(Trouble::NotSent("its process is gone".into()));
        }
        let (sent, written) = oneshot::channel();
        let line = Line { bytes: line(&outgoing.message), permit: outgoing.permit, sent: Some(sent) };
        writer.send(line).await.map_err(|_| Trouble::NotSent("its process is gone".into()))?;
        drop(writer);
        // From here on dropping this future has to tell the server: the line may be on its way.
        guard.sent = outgoing.message.get("method").and_then(Value::as_str) != Some("initialize");
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(trouble)) => {
                guard.sent = false;
                return Err(trouble);
            }
            Err(_) => return Err(Trouble::Broken("its process ended".into())),
        }
        let answered = waiting.await.unwrap_or_else(|_| Err(Trouble::Broken("its process ended".into())));
        guard.sent = false;
        answered
    }

    /// Sends a notification.
    pub(crate) async fn tell(&self, message: &Value) {
        let writer = self.link.lock().await.as_ref().map(|link| link.writer.clone());
        if let Some(writer) = writer {
            let _ = writer.send(Line { bytes: line(message), permit: Permit::default(), sent: None }).await;
        }
    }

    /// Closes the server's input, waits a little for it to end, and kills what is left.
    pub(crate) async fn end(&self) {
        let Some(mut link) = self.link.lock().await.take() else { return };
        let (writer, _) = mpsc::channel(1);
        // The last sender goes: the writer ends and the pipe closes.
        drop(std::mem::replace(&mut link.writer, writer));
        let mut closed = link.closed.clone();
        let _ = tokio::time::timeout(Duration::from_millis(GRACE_MS), closed.wait_for(|closed| *closed)).await;
    }
}

/// A request whose answer is waited for.
#[derive(Debug)]
struct Guard {
    id: u64,
    pending: Pending,
    writer: mpsc::Sender<Line>,
    sent: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let waited = lock(&self.pending).remove(&self.id).is_some();
        if waited && self.sent {
            let params = json!({ "requestId": self.id, "reason": "nobody waits for the answer any more" });
            let message = protocol::message(None, "notifications/cancelled", Some(params));
            // When the queue is full the server is not reading anyway.
            let _ = self.writer.try_send(Line { bytes: line(&message), permit: Permit::default(), sent: None });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn line(message: &Value) -> Vec<u8> {
    let mut bytes = message.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// Writes to a process for as long as it takes what is written. One that does not is ended, so that the next call starts another.
async fn feed(pipe: impl AsyncWrite + Unpin, lines: mpsc::Receiver<Line>, group: Arc<Group>) {
    if !write(pipe, lines).await {
        group.finish();
    }
}

/// Writes line after line. Whether one may still leave is asked right before it does. False when one could not be written.
async fn write(mut pipe: impl AsyncWrite + Unpin, mut lines: mpsc::Receiver<Line>) -> bool {
    while let Some(line) = lines.recv().await {
        let result = if line.permit.holds() {
            // A part of it may have been read.
            push(&mut pipe, &line.bytes).await.map_err(Trouble::Broken)
        } else {
            Err(Trouble::NotSent("this worker may no longer send it".into()))
        };
        let is_broken = matches!(result, Err(Trouble::Broken(_)));
        if let Some(sent) = line.sent {
            let _ = sent.send(result);
        }
        if is_broken {
            return false;
        }
    }
    true
}

/// Writes it all, and gives up when nothing of it is taken for too long.
async fn push(pipe: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> Result<(), String> {
    let patience = Duration::from_millis(WRITE_MS_MAX);
    let unread = |_| format!("its process took nothing of what was written to it for {WRITE_MS_MAX} ms");
    while !bytes.is_empty() {
        let written = tokio::time::timeout(patience, pipe.write(bytes)).await.map_err(unread)?;
        match written.map_err(|error| error.to_string())? {
            0 => return Err("its process takes nothing any more".into()),
            count => bytes = &bytes[count..],
        }
    }
    tokio::time::timeout(patience, pipe.flush()).await.map_err(unread)?.map_err(|error| error.to_string())
}

/// What a server says on its standard error goes to the log.
async fn pass_on(pipe: impl AsyncRead + Unpin, local: Arc<Local>, program: Program) {
    let mut pipe = BufReader::new(pipe);
    let mut buffer = Vec::new();
    let mut quoted = 0;
    while let Ok(Some(line)) = read_line(&mut pipe, &mut buffer, 64 * 1024).await {
        quoted += 1;
        if quoted <= QUOTES_MAX {
            let text: String = program.shown(line).chars().take(QUOTE_CHARS_MAX).collect();
            tracing::debug!(server = local.name, text, "an MCP server wrote to its standard error");
        }
    }
    // Beyond a line of that size nothing is worth reading, but the pipe must not fill up.
    let mut rest = [0; 4 * 1024];
    while pipe.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}

/// The next line without its end; none at the end of the stream.
async fn read_line<'b>(
    pipe: &mut (impl AsyncBufReadExt + Unpin),
    buffer: &'b mut Vec<u8>,
    bytes_max: u64,
) -> Result<Option<&'b [u8]>, Trouble> {
    buffer.clear();
    let mut bounded = pipe.take(bytes_max.saturating_add(1));
    let read = bounded.read_until(b'\n', buffer).await.map_err(|error| Trouble::Broken(error.to_string()))?;
    if read == 0 {
        return Ok(None);
    }
    if buffer.last() == Some(&b'\n') {
        buffer.pop();
    } else if buffer.len() as u64 > bytes_max {
        return Err(Trouble::TooLarge);
    }
    Ok(Some(buffer))
}

/// What reads a process' output.
struct Reader {
    local: Arc<Local>,
    pending: Pending,
    writer: mpsc::WeakSender<Line>,
    line_bytes_max: u64,
}

impl Reader {
    async fn run(
        self,
        mut child: Child,
        group: Arc<Group>,
        stdout: impl AsyncRead + Unpin,
        close: watch::Sender<bool>,
    ) {
        let mut stdout = BufReader::new(stdout);
        let mut buffer = Vec::new();
        let junk = AtomicBool::new(false);
        let too_large = loop {
            match read_line(&mut stdout, &mut buffer, self.line_bytes_max).await {
                Ok(Some(line)) => self.take(line, &junk).await,
                Ok(None) | Err(Trouble::Broken(_)) => break false,
                Err(_) => break true,
            }
        };
        group.finish();
        let how = child.wait().await.map_or_else(|_| String::new(), |status| format!(" with {status}"));
        // First closed, then emptied: whoever waits after this sees one or the other.
        let _ = close.send(true);
        let waiting: Vec<_> = lock(&self.pending).drain().collect();
        tracing::info!(server = self.local.name, waiting = waiting.len(), "the process of an MCP server ended{how}");
        let alone = waiting.len() == 1;
        for (_, answer) in waiting {
            let trouble = if too_large && alone {
                Trouble::TooLarge
            } else if too_large {
                Trouble::Broken("its process wrote an endless line and was killed".into())
            } else {
                Trouble::Broken(format!("its process ended{how}"))
            };
            let _ = answer.send(Err(trouble));
        }
    }

    async fn take(&self, line: &[u8], junk: &AtomicBool) {
        let text = String::from_utf8_lossy(line);
        if text.trim().is_empty() {
            return;
        }
        match Incoming::parse(&text) {
            Ok(Incoming::Answer { id, answer }) => {
                let waiting = id.and_then(|id| lock(&self.pending).remove(&id));
                match waiting {
                    Some(waiting) => {
                        id.into_iter().for_each(|id| self.local.heard.answered(id));
                        let _ = waiting.send(answer.map_err(|error| Trouble::Rpc(error, None)));
                    }
                    None => self.local.late(id, &answer),
                }
            }
            Ok(Incoming::Notification { method, .. }) => self.local.notified(&method),
            Ok(Incoming::Request { id, method, params }) => {
                let reply = protocol::reply(&id, self.local.answer(&method, &params));
                if let Some(writer) = self.writer.upgrade() {
                    // A server that does not read its answers does not get them.
                    let _ = writer.try_send(Line { bytes: self::line(&reply), permit: Permit::default(), sent: None });
                }
            }
            Err(why) => {
                if !junk.swap(true, Ordering::Relaxed) {
                    let line = answer::quote(line);
                    tracing::warn!(
                        server = self.local.name,
                        why,
                        line,
                        "an MCP server wrote a line that is no message"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn queued(lines: &mpsc::Sender<Line>, bytes: usize) -> oneshot::Receiver<Result<(), Trouble>> {
        let (sent, written) = oneshot::channel();
        let line = Line { bytes: vec![b'x'; bytes], permit: Permit::default(), sent: Some(sent) };
        lines.send(line).await.expect("it is written");
        written
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_takes_nothing_is_given_up_and_holds_nobody_else() {
        let (pipe, other) = duplex(64);
        let (writer, lines) = mpsc::channel(WRITES_MAX);
        let writing = tokio::spawn(write(pipe, lines));
        let fits = queued(&writer, 64).await;
        assert!(fits.await.expect("an answer").is_ok(), "what the pipe has room for is written");
        let (stuck, behind) = (queued(&writer, 1).await, queued(&writer, 1).await);
        let why = stuck.await.expect("an answer").expect_err("nobody reads");
        assert!(matches!(&why, Trouble::Broken(why) if why.contains("took nothing")), "{why:?}");
        assert!(!writing.await.expect("it ends"), "the process is to be ended");
        behind.await.expect_err("nobody writes any more");
        drop(other);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_takes_a_little_at_a_time_gets_all_of_it() {
        let (pipe, mut other) = duplex(1);
        let (writer, lines) = mpsc::channel(WRITES_MAX);
        let writing = tokio::spawn(write(pipe, lines));
        let long = queued(&writer, 10).await;
        for _ in 0..10 {
            // All of it together takes far longer than any part of it may.
            tokio::time::sleep(Duration::from_millis(WRITE_MS_MAX - 1)).await;
            assert_eq!(other.read_u8().await.expect("a byte"), b'x');
        }
        assert!(long.await.expect("an answer").is_ok());
        drop(writer);
        assert!(writing.await.expect("it ends"));
    }
}
