//! A proxy that cuts connections to a server at a chosen place in the conversation.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::must;

/// Where the next matching connection is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// These bytes from the client do not reach the server, and nothing after them; what came before them does.
    Before(Vec<u8>),
    /// What holds these bytes reaches the server and is carried out, and its answer is lost.
    After(Vec<u8>),
}

#[derive(Debug, Default)]
struct State {
    cut: Mutex<Option<Cut>>,
    cuts: AtomicU64,
    refuses: AtomicBool,
    closed: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// A proxy before a server. Knows just enough of the protocol to find a place to cut.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

impl Proxy {
    /// Starts one before a port of the loopback address.
    ///
    /// # Panics
    /// It cannot listen.
    #[must_use]
    pub fn start(server: u16) -> Self {
        let listener = must(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), "cannot listen");
        let port = must(listener.local_addr(), "cannot listen").port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.closed.load(Ordering::Acquire) {
                    return;
                }
                if shared.refuses.load(Ordering::Acquire) {
                    continue;
                }
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                carry(client, server, &shared);
            }
        });
        Self { port, state }
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the next connection that says what is to be looked for, once.
    pub fn cut(&self, cut: Cut) {
        *self.state.cut.lock().unwrap_or_else(PoisonError::into_inner) = Some(cut);
    }

    /// How many connections were cut in the middle of a conversation.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::Acquire)
    }

    /// Closes every connection.
    pub fn cut_all(&self) {
        for stream in self.state.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // One that is closed already is what was wanted.
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether new connections are refused.
    pub fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::Release);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::Release);
        self.cut_all();
        // Wakes the listener, which then ends.
        let _wake = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn carry(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let clone = |stream: &TcpStream| must(stream.try_clone(), "cannot share a connection");
    let _at_once = (client.set_nodelay(true), server.set_nodelay(true));
    state.open.lock().unwrap_or_else(PoisonError::into_inner).extend([clone(&client), clone(&server)]);
    let muted = Arc::new(AtomicBool::new(false));
    let (from, to, mute) = (clone(&server), clone(&client), Arc::clone(&muted));
    std::thread::spawn(move || answers(from, to, &mute));
    let state = Arc::clone(state);
    std::thread::spawn(move || questions(client, server, &state, &muted));
}

fn answers(mut server: TcpStream, mut client: TcpStream, muted: &AtomicBool) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(size @ 1..) = server.read(&mut bytes) {
        if muted.load(Ordering::Acquire) {
            // Read to the end of the answer, so that the server has done what it was asked for.
            if bytes[..size].ends_with(b"Z\0\0\0\x05I") {
                break;
            }
            continue;
        }
        if client.write_all(&bytes[..size]).is_err() {
            break;
        }
    }
    let _closed = (server.shutdown(Shutdown::Both), client.shutdown(Shutdown::Both));
}

fn questions(mut client: TcpStream, mut server: TcpStream, state: &State, muted: &AtomicBool) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(size @ 1..) = client.read(&mut bytes) {
        let said = &bytes[..size];
        let holds = |what: &[u8]| said.windows(what.len()).position(|window| window == what);
        let mut cut = state.cut.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cut {
            Some(Cut::Before(what)) if let Some(place) = holds(what) => {
                *cut = None;
                state.cuts.fetch_add(1, Ordering::AcqRel);
                // The connection ends anyway.
                let _sent = server.write_all(&bytes[..place]);
                break;
            }
            Some(Cut::After(what)) if holds(what).is_some() => {
                *cut = None;
                state.cuts.fetch_add(1, Ordering::AcqRel);
                muted.store(true, Ordering::Release);
            }
            _ => {}
        }
        drop(cut);
        if server.write_all(&bytes[..size]).is_err() {
            break;
        }
    }
    if !muted.load(Ordering::Acquire) {
        let _closed = server.shutdown(Shutdown::Both);
    }
    let _closed = client.shutdown(Shutdown::Both);
}
