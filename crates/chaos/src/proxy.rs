//! A proxy for PostgreSQL connections that breaks them on purpose: it understands the protocol well enough to cut a
//! connection right before a COMMIT reaches the server, or right after the server has executed it and before the client
//! hears of it. It never repeats, reorders or changes what passes.

mod address;
mod carry;
mod conversation;
mod statement;
mod wire;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use address::{Address, AddressError};

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Before a COMMIT reaches the server: the transaction is rolled back.
    Before,
    /// After the server has executed it, before the client hears of it: the transaction is durable.
    After,
}

/// A cut that waits for a commit that it fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Armed {
    /// Where.
    pub cut: Cut,
    /// Only a transaction of which a statement contains this; every one that wrote something when empty.
    pub mentions: String,
}

/// What to do with connections that ask for encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// They are told that there is none, so that the messages can be read.
    #[default]
    Refuse,
    /// The server decides. What is encrypted is carried blindly: no cut at a commit lands there.
    Pass,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Connections taken.
    pub connections: u64,
    /// Connections refused.
    pub refused: u64,
    /// Connections that are open.
    pub open: u64,
    /// Commits of transactions that wrote something.
    pub commits: u64,
    /// Connections cut before a commit.
    pub cut_before: u64,
    /// Connections cut after one.
    pub cut_after: u64,
    /// Commits that were to be cut after and were refused by the server.
    pub missed: u64,
    /// Connections cut without looking at what they said.
    pub cut_open: u64,
}

/// How connections fare at the moment.
#[derive(Clone, Debug, Default)]
struct Weather {
    is_stalled: bool,
    refuses: bool,
    delay: Duration,
    /// Grows when every connection is cut.
    cuts: u64,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    tls: Tls,
    weather: watch::Sender<Weather>,
    counts: watch::Sender<Counts>,
    armed: Mutex<VecDeque<Armed>>,
}

impl Shared {
    fn armed(&self) -> std::sync::MutexGuard<'_, VecDeque<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first cut that fits a transaction.
    fn take(&self, transaction: &str) -> Option<Cut> {
        let mut armed = self.armed();
        let at = armed.iter().position(|armed| transaction.contains(&armed.mentions))?;
        armed.remove(at).map(|armed| armed.cut)
    }

    fn landed(&self, cut: Cut) {
        self.counts.send_modify(|counts| match cut {
            Cut::Before => counts.cut_before += 1,
            Cut::After => counts.cut_after += 1,
        });
    }

    fn missed(&self) {
        self.counts.send_modify(|counts| counts.missed += 1);
    }
}

/// A running proxy. It ends, with all its connections, when the value is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Ends the listener and all connections when dropped.
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port of the loopback address, for the server at `upstream`, which is `HOST:PORT`.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start(upstream: impl Into<String>, tls: Tls) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            tls,
            weather: watch::Sender::default(),
            counts: watch::Sender::default(),
            armed: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the next connection that commits a transaction which fits. Several may wait; each lands once.
    pub fn arm(&self, armed: Armed) {
        self.shared.armed().push_back(armed);
    }

    /// Takes back the cuts that still wait. Gives how many.
    pub fn disarm(&self) -> usize {
        std::mem::take(&mut *self.shared.armed()).len()
    }

    /// Closes every connection. Gives how many were open.
    pub fn cut_all(&self) -> u64 {
        let open = self.counts().open;
        self.shared.weather.send_modify(|weather| weather.cuts += 1);
        open
    }

    /// Lets bytes take this long in each direction.
    pub fn delay(&self, delay: Duration) {
        self.shared.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Lets no byte pass until told otherwise; nothing is lost, and nobody is told.
    pub fn stall(&self, is_stalled: bool) {
        self.shared.weather.send_modify(|weather| weather.is_stalled = is_stalled);
    }

    /// Whether new connections are refused.
    pub fn refuse(&self, refuses: bool) {
        self.shared.weather.send_modify(|weather| weather.refuses = refuses);
    }

    /// Lets nothing pass for a while, then cuts what was open: nobody can tell what of it had arrived. Gives how many
    /// connections were open.
    pub async fn partition(&self, time: Duration) -> u64 {
        self.stall(true);
        tokio::time::sleep(time).await;
        let open = self.cut_all();
        self.stall(false);
        open
    }

    /// Everything passes again, and no cut waits.
    pub fn heal(&self) {
        self.disarm();
        self.shared.weather.send_modify(|weather| {
            *weather = Weather { cuts: weather.cuts, ..Weather::default() };
        });
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Tells of every change of the counts.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Counts> {
        self.shared.counts.subscribe()
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that is gone before it is taken, or one too many for this process, is its own affair.
                let Ok((client, _)) = accepted else { continue };
                if shared.weather.borrow().refuses {
                    carry::reset(&client);
                    shared.counts.send_modify(|counts| counts.refused += 1);
                    continue;
                }
                shared.counts.send_modify(|counts| { counts.connections += 1; counts.open += 1; });
                connections.spawn(connection(client, Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(client: TcpStream, shared: Arc<Shared>) {
    let mut weather = shared.weather.subscribe();
    let cuts = weather.borrow().cuts;
    let is_cut = tokio::select! {
        biased;
        _ = weather.wait_for(|weather| weather.cuts > cuts) => true,
        () = carry::carry(client, &shared) => false,
    };
    shared.counts.send_modify(|counts| {
        counts.open -= 1;
        counts.cut_open += u64::from(is_cut);
    });
}
