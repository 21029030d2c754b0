//! The connections that write: each takes whatever requests wait, makes them one transaction, and answers when it is
//! durable. A request that cannot be written is answered alone; those that came with it are written without it.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use windlass_ports::store::{Committed, StoreError};

use super::connect::{Connector, Link, Purpose, Sql, Trouble};
use super::flight::Flight;
use super::hints::Hints;
use super::pool::{TRIES_MAX, pause};
use super::request::{Answer, Request};

/// Requests in one transaction: enough to share a round trip and a sync widely, few enough to answer soon.
const BATCH_MAX: usize = 256;
/// Bytes of payload in one transaction, about.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// So many requests are worth a second transaction beside one that is under way.
const BESIDE_MIN: usize = 128;
/// A request that has waited for so long is, too.
const BESIDE_AFTER: Duration = Duration::from_millis(10);

/// What the lanes did, for everyone to read.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) statements: AtomicU64,
    pub(super) transactions: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) claims: AtomicU64,
    pub(super) reaped: AtomicU64,
}

/// A request and where its answer goes.
#[derive(Debug)]
struct Job {
    request: Request,
    answer: oneshot::Sender<Result<Answer, StoreError>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// Lanes that have a transaction under way.
    busy: usize,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    bell: Notify,
    connector: Arc<Connector>,
    hints: Arc<Hints>,
    counters: Arc<Counters>,
}

/// The lanes of one handle. They end when it is dropped, after what they were asked before.
#[derive(Debug)]
pub(super) struct Lanes {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    pub(super) fn start(connector: &Arc<Connector>, hints: &Arc<Hints>, counters: &Arc<Counters>) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            bell: Notify::new(),
            connector: Arc::clone(connector),
            hints: Arc::clone(hints),
            counters: Arc::clone(counters),
        });
        let count = connector.address.settings.lanes;
        let tasks = (0..count).map(|_| tokio::spawn(Lane { shared: Arc::clone(&shared), link: None }.run())).collect();
        Self { shared, tasks }
    }

    /// Asks for a change, and waits until it is durable.
    pub(super) async fn ask(&self, request: Request) -> Result<Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        let wakes = {
            let mut queue = self.shared.queue();
            queue.waiting.push_back(Job { request, answer });
            queue.busy == 0 || queue.waiting.len() >= BESIDE_MIN
        };
        if wakes {
            self.shared.bell.notify_one();
        }
        let gone = || StoreError::Unavailable("the writers of the store have stopped".into());
        answered.await.map_err(|_| gone())?
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        for _ in &self.tasks {
            self.shared.bell.notify_one();
        }
        self.shared.bell.notify_waiters();
    }
}

struct Lane {
    shared: Arc<Shared>,
    link: Option<Link>,
}

impl Lane {
    async fn run(mut self) {
        while let Some(jobs) = self.wait().await {
            let (requests, answers): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.request, job.answer)).unzip();
            let results = self.write(&requests).await;
            for (answer, result) in answers.into_iter().zip(results) {
                // Whoever asked may have gone; what was written stays written.
                let _gone = answer.send(result);
            }
            self.shared.queue().busy -= 1;
        }
    }

    /// The next requests for one transaction; none when the handle is gone and nothing waits.
    async fn wait(&mut self) -> Option<Vec<Job>> {
        loop {
            let patience = {
                let mut queue = self.shared.queue();
                let is_due = queue.busy == 0 || queue.waiting.len() >= BESIDE_MIN || queue.closed;
                match (queue.waiting.is_empty(), is_due) {
                    (true, _) if queue.closed => return None,
                    (false, true) => {
                        queue.busy += 1;
                        let jobs = pick(&mut queue.waiting);
                        if !queue.waiting.is_empty() {
                            self.shared.bell.notify_one();
                        }
                        return Some(jobs);
                    }
                    (true, _) => None,
                    (false, false) => Some(BESIDE_AFTER),
                }
            };
            match patience {
                None => self.shared.bell.notified().await,
                Some(after) => {
                    if tokio::time::timeout(after, self.shared.bell.notified()).await.is_err() {
                        let mut queue = self.shared.queue();
                        if !queue.waiting.is_empty() {
                            queue.busy += 1;
                            return Some(pick(&mut queue.waiting));
                        }
                    }
                }
            }
        }
    }

    /// Writes requests, apart when one of them cannot be written.
    async fn write(&mut self, requests: &[Request]) -> Vec<Result<Answer, StoreError>> {
        let mut parts = vec![requests];
        let mut results = Vec::with_capacity(requests.len());
        while let Some(part) = parts.pop() {
            match self.transact(part).await {
                Ok(answers) => results.extend(answers.into_iter().map(Ok)),
                Err(Trouble::Refused(_)) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(trouble) => {
                    let error = trouble.error();
                    results.extend(part.iter().map(|_| Err(copy(&error))));
                }
            }
        }
        results
    }

    async fn transact(&mut self, requests: &[Request]) -> Result<Vec<Answer>, Trouble> {
        let mut tries = 0;
        loop {
            let mut flight = Flight::plan(requests);
            let parts = flight.take_parts();
            let statements = parts.len() as u64;
            match self.fly(parts).await {
                Ok(rows) => {
                    let landed = flight.land(requests, &rows).map_err(Trouble::Passing)?;
                    self.count(&landed.answers, statements);
                    self.shared.hints.tell(landed.woke);
                    return Ok(landed.answers);
                }
                Err(Trouble::Again(error)) => {
                    tries += 1;
                    if tries >= TRIES_MAX {
                        return Err(Trouble::Passing(error));
                    }
                    tracing::debug!(%error, tries, "a transaction is tried again");
                    pause(tries).await;
                }
                Err(other) => return Err(other),
            }
        }
    }

    async fn fly(&mut self, parts: Vec<super::connect::Part>) -> Result<Vec<Vec<tokio_postgres::Row>>, Trouble> {
        let kept = self.link.take().filter(|link| !link.is_lost());
        let mut link = match kept {
            Some(link) => link,
            None => self.shared.connector.link(Purpose::Lane).await.map_err(Trouble::Passing)?,
        };
        let flown = link.fly(parts).await;
        match &flown {
            Err(Trouble::Passing(_)) => {
                let backend = link.backend;
                drop(link);
                self.end(backend).await;
            }
            Ok(_) | Err(Trouble::Again(_) | Trouble::Refused(_)) => self.link = Some(link),
        }
        flown
    }

    /// Sees to it that the server's process of a lost connection does nothing more: what it has not committed by now it
    /// never will, so that a look at what is stored tells the outcome.
    async fn end(&mut self, backend: Option<i32>) {
        let Some(backend) = backend else { return };
        let Ok(mut link) = self.shared.connector.link(Purpose::Lane).await else { return };
        for _ in 0..100 {
            match link.query(&END_BACKEND, vec![Box::new(backend)]).await {
                Ok(rows) if rows.is_empty() => break,
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(_) => return,
            }
        }
        self.link = Some(link);
    }

    fn count(&self, answers: &[Answer], statements: u64) {
        let counters = &self.shared.counters;
        let of = |wanted: fn(&Committed) -> bool| {
            let committed = answers.iter().filter(|answer| matches!(answer, Answer::Committed(c) if wanted(c)));
            committed.count() as u64
        };
        let stale = of(|committed| *committed == Committed::Stale);
        let commits = of(|committed| *committed != Committed::Stale);
        counters.commits.fetch_add(commits, Ordering::Relaxed);
        counters.stale.fetch_add(stale, Ordering::Relaxed);
        if commits + stale > 0 {
            counters.statements.fetch_add(statements, Ordering::Relaxed);
            counters.transactions.fetch_add(1, Ordering::Relaxed);
        }
    }
}

static END_BACKEND: Sql = Sql {
    text: "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND usename = current_user \
         AND datname = current_database() AND application_name = current_setting('application_name')",
    types: &[tokio_postgres::types::Type::INT4],
};

/// Takes requests that can be one transaction, in the order they came.
fn pick(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let mut picked = Vec::new();
    let mut left = VecDeque::new();
    let (mut bytes, mut apart) = (0, Apart::default());
    while let Some(job) = waiting.pop_front() {
        let is_full = picked.len() >= BATCH_MAX || bytes >= BATCH_BYTES_MAX;
        if is_full {
            left.push_back(job);
            break;
        }
        if apart.admit(&job.request) {
            bytes += size(&job.request);
            picked.push(job);
        } else {
            left.push_back(job);
        }
    }
    left.append(waiting);
    *waiting = left;
    picked
}

fn size(request: &Request) -> usize {
    match request {
        Request::Commit(step) => {
            let blobs: usize = step.blobs.iter().map(|(_, bytes)| bytes.len()).sum();
            let children: usize = step.children.iter().map(|child| child.start.len()).sum();
            step.record.len() + blobs + children + step.snapshot.as_ref().map_or(0, Vec::len)
        }
        Request::Create(creation) => creation.start.len(),
        Request::Deliver(delivery) => delivery.packed.len(),
        Request::Signal(sending) => sending.data.len(),
    }
}

/// What must not be in one transaction twice.
#[derive(Default)]
struct Apart {
    /// Runs decided on.
    decided: HashSet<String>,
    /// Runs created.
    made: HashSet<String>,
    /// Ids of signals.
    signals: HashSet<String>,
    /// Channels on which waits for signals open.
    opened: HashSet<String>,
    /// Channels with the run that a signal on it is for; none when it is for all.
    sent: HashSet<(String, Option<String>)>,
    /// Channels with signals.
    used: HashSet<String>,
}

impl Apart {
    fn admit(&mut self, request: &Request) -> bool {
        match request {
            Request::Commit(step) => {
                let signals = || step.opened.iter().filter(|opening| opening.kind.is_none());
                let fits = !self.decided.contains(&step.run)
                    && !step.children.iter().any(|child| self.made.contains(&child.id))
                    && !signals().any(|opening| self.used.contains(&opening.channel));
                if fits {
                    self.decided.insert(step.run.clone());
                    self.made.extend(step.children.iter().map(|child| child.id.clone()));
                    self.opened.extend(signals().map(|opening| opening.channel.clone()));
                }
                fits
            }
            Request::Create(creation) => self.made.insert(creation.id.clone()),
            Request::Deliver(_) => true,
            Request::Signal(sending) => {
                let own = (sending.channel.clone(), sending.run.clone());
                let for_all = (sending.channel.clone(), None);
                let fits = !self.signals.contains(&sending.id)
                    && !self.opened.contains(&sending.channel)
                    && !self.sent.contains(&own)
                    && !self.sent.contains(&for_all)
                    && (sending.run.is_some() || !self.used.contains(&sending.channel));
                if fits {
                    self.signals.insert(sending.id.clone());
                    self.used.insert(sending.channel.clone());
                    self.sent.insert(own);
                }
                fits
            }
        }
    }
}

pub(super) fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(text) => StoreError::Unavailable(text.clone()),
        StoreError::Corrupt(text) => StoreError::Corrupt(text.clone()),
        StoreError::Invalid(text) => StoreError::Invalid(text.clone()),
        StoreError::Key(text) => StoreError::Key(text.clone()),
        StoreError::NewerSchema { found, known } => StoreError::NewerSchema { found: *found, known: *known },
    }
}
