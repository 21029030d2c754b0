//! The connections of the counting server.
//!
//! Sockets are read without asking the event loop whether they are ready when a verifying tool asks what happened:
//! everything that dead workers had sent by then lies in the kernel, and is read and written down before the answer.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::http::{self, Request};
use super::{Fate, Kind, World, answer};

/// What a connection has read.
#[derive(Debug, Default)]
struct Inbound {
    buffer: Vec<u8>,
    /// Requests that have arrived and have no answer.
    requests: VecDeque<(Request, Fate, Duration)>,
    is_over: bool,
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    inbound: Mutex<Inbound>,
    arrived: Notify,
}

impl Connection {
    fn inbound(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is there now, whatever the event loop knows.
    fn pump(&self, world: &World) {
        let mut inbound = self.inbound();
        let mut bytes = [0; 16 * 1024];
        while !inbound.is_over {
            match (&mut &*SockRef::from(&self.socket)).read(&mut bytes) {
                Ok(0) => inbound.is_over = true,
                Ok(size) => inbound.buffer.extend_from_slice(&bytes[..size]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => inbound.is_over = true,
            }
            loop {
                match http::next(&mut inbound.buffer) {
                    Ok(Some(mut request)) => {
                        let (fate, delay) = world.arrived(&mut request);
                        inbound.requests.push_back((request, fate, delay));
                    }
                    Ok(None) => break,
                    Err(http::Malformed) => {
                        inbound.is_over = true;
                        break;
                    }
                }
            }
        }
        self.arrived.notify_one();
    }
}

/// All connections of a server, and the place where new ones arrive.
#[derive(Debug)]
struct Site {
    listener: TcpListener,
    open: Mutex<(u64, BTreeMap<u64, Weak<Connection>>)>,
    world: Arc<World>,
    stop: CancellationToken,
}

/// Serves until it is told to stop.
pub(super) fn start(listener: std::net::TcpListener, world: Arc<World>, stop: CancellationToken) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let site = Arc::new(Site { listener, open: Mutex::default(), world, stop });
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = site.stop.cancelled() => return,
                accepted = site.listener.accept() => {
                    // One that is gone before it is taken is its own affair.
                    if let Ok((stream, _)) = accepted {
                        admit(&site, stream);
                    }
                }
            }
        }
    });
    Ok(())
}

/// Takes every connection that has been made, whatever the event loop knows.
fn accept_all(site: &Arc<Site>) {
    // Errors are those of connections that are gone already, and the end of what is there.
    while let Ok((socket, _)) = SockRef::from(&site.listener).accept() {
        let stream = std::net::TcpStream::from(socket);
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            admit(site, stream);
        }
    }
}

fn admit(site: &Arc<Site>, socket: TcpStream) {
    // Answers leave at once; a delay is made on purpose or not at all.
    let _at_once = socket.set_nodelay(true);
    let connection = Arc::new(Connection { socket, inbound: Mutex::default(), arrived: Notify::new() });
    let number = {
        let mut open = site.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, Arc::downgrade(&connection));
        number
    };
    let site = Arc::clone(site);
    tokio::spawn(async move {
        let stop = site.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = converse(&site, &connection) => {}
        }
        site.open.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&number);
    });
}

/// Reads everything that was sent before now.
fn settle(site: &Arc<Site>) {
    accept_all(site);
    let open: Vec<_> = {
        let open = site.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.1.values().filter_map(Weak::upgrade).collect()
    };
    for connection in open {
        connection.pump(&site.world);
    }
}

/// One connection: its requests are answered one after another, and read at once.
async fn converse(site: &Arc<Site>, connection: &Connection) {
    tokio::select! {
        () = listen(site, connection) => {}
        () = reply(site, connection) => {}
    }
    // What has arrived and gets no answer is over as well.
    let left = std::mem::take(&mut connection.inbound().requests);
    for (request, _, _) in left {
        site.world.over(&request.worker);
    }
}

async fn listen(site: &Arc<Site>, connection: &Connection) {
    loop {
        if connection.socket.readable().await.is_err() {
            return;
        }
        // Reads until there is nothing more, and tells the event loop so.
        let _nothing_more = connection.socket.try_io(Interest::READABLE, || -> io::Result<()> {
            connection.pump(&site.world);
            Err(ErrorKind::WouldBlock.into())
        });
        if connection.inbound().is_over {
            // What was asked for is answered nevertheless: the other direction may be open.
            std::future::pending::<()>().await;
        }
    }
}

async fn reply(site: &Arc<Site>, connection: &Connection) {
    loop {
        let next = connection.inbound().requests.pop_front();
        let Some((request, fate, delay)) = next else {
            if connection.inbound().is_over {
                return;
            }
            connection.arrived.notified().await;
            continue;
        };
        tokio::time::sleep(delay).await;
        if request.kind == Kind::Verify {
            settle(site);
        }
        let sent = match answer::of(&site.world, &request, fate) {
            Some((status, body)) => write(&connection.socket, &http::answer(status, &body)).await,
            None => Err(ErrorKind::ConnectionAborted.into()),
        };
        site.world.over(&request.worker);
        if sent.is_err() {
            return;
        }
    }
}

async fn write(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(size) => bytes = &bytes[size..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
