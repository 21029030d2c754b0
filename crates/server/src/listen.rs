//! Takes connections and serves them, with a bound on how many there are and how long they may take to ask.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// Connections at the same time. More wait in the backlog of the socket.
const CONNECTIONS_MAX: usize = 256;
/// Time in which a request's head must have come.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// Time for which an answer waits for a client that takes nothing of it.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// Time for which answers that are on their way are waited for at the end.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Pause after the system had no room for a connection.
const CROWDED_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`, then lets answers that are on their way end.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&room).acquire_owned() => place,
        };
        // The semaphore is never closed.
        let Ok(place) = place else { return };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            stream = accept(&listener) => stream,
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            converse(Pressed { stream, patience: WRITE_PATIENCE, stalled: None }, router, stop).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(END_PATIENCE, ended).await.is_err() {
        tracing::debug!("connections were cut off at the end");
    }
}

/// The next connection. One that is gone before it is taken is no fault, and no room is waited for.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(CROWDED_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: Pressed, router: Router, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(HEAD_BYTES_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// A connection that ends when the other side takes nothing of an answer for so long. Without it, whoever asks and
/// never reads would keep a place for good.
struct Pressed {
    stream: TcpStream,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Pressed {
    fn pressed<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let patience = self.patience;
        let late = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(late.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Pressed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Pressed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.pressed(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.pressed(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.pressed(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.pressed(cx, done)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    use super::*;

    /// Pieces of an answer, and more than any socket keeps of one.
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 1_024;

    /// Serves one answer of many pieces. What comes from the channel ends with the answer: it says how far that came.
    async fn serving(patience: Duration) -> (TcpStream, mpsc::Receiver<usize>) {
        let (count, counted) = mpsc::channel(PIECES);
        let answer = move || {
            let count = count.clone();
            let pieces = futures::stream::iter(0..PIECES).map(move |piece| {
                // Nobody may look any more.
                let _told = count.try_send(piece);
                Ok::<_, io::Error>(Bytes::from(vec![b'x'; PIECE]))
            });
            async { Body::from_stream(pieces) }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let router = Router::new().route("/", get(answer));
        // One connection is all that the router is for: it goes with it.
        let (taken, _) = listener.accept().await.expect("taken");
        let stream_of = Pressed { stream: taken, patience, stalled: None };
        tokio::spawn(converse(stream_of, router, CancellationToken::new()));
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("sent");
        (stream, counted)
    }

    #[tokio::test]
    async fn a_connection_whose_answer_nobody_takes_ends() {
        let (stream, mut counted) = serving(Duration::from_millis(1)).await;
        let mut sent = 0;
        while counted.recv().await.is_some() {
            sent += 1;
        }
        assert!((1..PIECES).contains(&sent), "{sent} pieces were taken by nobody");
        drop(stream);
    }

    #[tokio::test]
    async fn a_connection_whose_answer_is_taken_gets_all_of_it() {
        let (mut stream, _counted) = serving(Duration::from_secs(3_600)).await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("read");
        assert!(bytes.len() > PIECE * PIECES, "{} bytes came", bytes.len());
        assert!(bytes.ends_with(b"\r\n0\r\n\r\n"), "it came to its end");
    }
}
