//! A store that writes down what a process asks of it and how that ended, as the records of a history, one JSON object a
//! line. It changes nothing else. Each line is one write, so that a process that is killed leaves whole lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use nix::time::{ClockId, clock_gettime};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::run::{Start, Status};
use windlass_ports::store::{
    Answer, Claim, Commit, Committed, Created, Delivered, Layer, Lease, Message, NewRun, Object, Put, Signal,
    Signalled, Store, StoreError, Stored, WorkerId,
};
use windlass_sim::history::{Granted, Op, Record, Result as Ended};

/// Milliseconds on a clock that all processes of a host share, that never goes back, and that goes on while a process
/// or the host sleeps.
#[must_use]
pub fn now_ms() -> u64 {
    // Every Linux since 2.6.39 has this clock.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("a clock since boot");
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    seconds * 1_000 + u64::try_from(now.tv_nsec()).unwrap_or(0) / 1_000_000
}

/// Where records go.
#[derive(Debug)]
pub struct Journalist {
    process: Name,
    file: File,
}

impl Journalist {
    /// Appends to a file, which is made when it is not there, in the name of a process.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(process: impl Into<Name>, path: &Path) -> io::Result<Self> {
        Ok(Self { process: process.into(), file: OpenOptions::new().create(true).append(true).open(path)? })
    }

    /// Writes down an operation that has ended.
    pub fn note(&self, op: Op, op_id: Option<Name>, start: u64, result: Ended) {
        let record = Record { process: self.process.clone(), op, op_id, start, end: now_ms(), result };
        // Records are plain data with text keys, for which serialisation cannot fail.
        let mut line = serde_json::to_vec(&record).unwrap_or_default();
        line.push(b'\n');
        // A history with a gap finds less, never something that is not there.
        let _gap = (&self.file).write_all(&line);
    }
}

/// A store that writes down what is asked of it.
#[derive(Debug)]
pub struct Recorded {
    inner: Arc<dyn Store>,
    to: Journalist,
}

/// How an operation ended whose success is told apart by `is_done`.
fn ended<T>(answer: &Result<T, StoreError>, is_done: impl FnOnce(&T) -> bool) -> Ended {
    match answer {
        Ok(value) if is_done(value) => Ended::Ok,
        Ok(_) => Ended::Fail,
        // Nobody knows what an unavailable store did.
        Err(StoreError::Unavailable(_)) => Ended::Info,
        Err(_) => Ended::Fail,
    }
}

fn granted(lease: &Lease) -> Granted {
    let taken_from = lease.taken_from.as_ref().map(|worker| worker.0.clone());
    Granted { run: lease.run.clone(), epoch: lease.epoch, taken_from }
}

impl Recorded {
    /// Writes down what is asked of a store.
    #[must_use]
    pub fn over(inner: Arc<dyn Store>, to: Journalist) -> Self {
        Self { inner, to }
    }

    async fn claim_noted(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        let (start, worker) = (now_ms(), claim.worker.0.clone());
        let answer = self.inner.claim(claim).await;
        if let Ok(leases) = &answer
            && !leases.is_empty()
        {
            let leases = leases.iter().map(granted).collect();
            self.to.note(Op::Claim { worker, leases }, None, start, Ended::Ok);
        }
        answer
    }

    async fn take_over_noted(
        &self,
        run: RunId,
        worker: WorkerId,
        expected: Option<Status>,
    ) -> Result<Option<Lease>, StoreError> {
        let start = now_ms();
        let answer = self.inner.take_over(run, worker, expected).await;
        if let Ok(Some(lease)) = &answer {
            self.to.note(Op::TakeOver { lease: granted(lease) }, None, start, Ended::Ok);
        }
        answer
    }

    async fn commit_noted(&self, commit: Commit) -> Result<Committed, StoreError> {
        let start = now_ms();
        let op = Op::Commit {
            run: commit.lease.run.clone(),
            epoch: commit.lease.epoch,
            version: commit.record.version,
            row: Digest::of(&commit.record.bytes),
        };
        let id = format!("{:032x}", commit.op.0);
        let answer = self.inner.commit(commit).await;
        let result = ended(&answer, |answer| matches!(answer, Committed::Applied { .. }));
        self.to.note(op, Some(id.into()), start, result);
        answer
    }

    async fn load_noted(&self, run: RunId) -> Result<Option<Stored>, StoreError> {
        let start = now_ms();
        let answer = self.inner.load(run).await;
        if let Ok(Some(stored)) = &answer {
            let (run, version) = (stored.head.id.clone(), stored.head.version);
            self.to.note(Op::Read { run, version }, None, start, Ended::Ok);
        }
        answer
    }

    async fn create_noted(&self, run: NewRun) -> Result<Created, StoreError> {
        let (start, op) = (now_ms(), Op::Create { run: run.start.id.clone() });
        let answer = self.inner.create(run).await;
        self.to.note(op, None, start, ended(&answer, |answer| *answer != Created::Full));
        answer
    }

    async fn deliver_noted(&self, message: Message) -> Result<Delivered, StoreError> {
        let (start, op) = (now_ms(), Op::Deliver { run: message.to.clone(), id: message.id.clone() });
        let answer = self.inner.deliver(message).await;
        let done = |answer: &Delivered| matches!(answer, Delivered::Accepted | Delivered::Duplicate);
        self.to.note(op, None, start, ended(&answer, done));
        answer
    }

    async fn signal_noted(&self, signal: Signal) -> Result<Signalled, StoreError> {
        let (start, op) = (now_ms(), Op::Signal { id: signal.id.clone(), channel: signal.channel.clone() });
        let answer = self.inner.signal(signal).await;
        let done = |answer: &Signalled| !matches!(answer, Signalled::NotFound | Signalled::Finished);
        self.to.note(op, None, start, ended(&answer, done));
        answer
    }

    async fn put_object_noted(&self, put: Put) -> Result<bool, StoreError> {
        let (start, expected) = (now_ms(), put.expected);
        let object: Name = format!("{}/{}", put.kind, put.key).into();
        let answer = self.inner.put_object(put).await;
        self.to.note(Op::Put { object, expected }, None, start, ended(&answer, |changed| *changed));
        answer
    }

    async fn object_noted(&self, kind: Name, key: Name) -> Result<Option<Object>, StoreError> {
        let start = now_ms();
        let object: Name = format!("{kind}/{key}").into();
        let answer = self.inner.object(kind, key).await;
        if let Ok(found) = &answer {
            let revision = found.as_ref().map_or(0, |object| object.revision);
            self.to.note(Op::Get { object, revision }, None, start, Ended::Ok);
        }
        answer
    }
}

impl Layer for Recorded {
    fn below(&self) -> &dyn Store {
        &*self.inner
    }

    fn create(&self, run: NewRun) -> Answer<'_, Created> {
        Box::pin(self.create_noted(run))
    }

    fn claim(&self, claim: Claim) -> Answer<'_, Vec<Lease>> {
        Box::pin(self.claim_noted(claim))
    }

    fn take_over(&self, run: RunId, worker: WorkerId, expected: Option<Status>) -> Answer<'_, Option<Lease>> {
        Box::pin(self.take_over_noted(run, worker, expected))
    }

    fn load(&self, run: RunId) -> Answer<'_, Option<Stored>> {
        Box::pin(self.load_noted(run))
    }

    /// A newborn run is loaded like any other, so that what was read of it is on record.
    fn newborn(&self, _: &Lease) -> Option<Start> {
        None
    }

    fn commit(&self, commit: Commit) -> Answer<'_, Committed> {
        Box::pin(self.commit_noted(commit))
    }

    fn deliver(&self, message: Message) -> Answer<'_, Delivered> {
        Box::pin(self.deliver_noted(message))
    }

    fn signal(&self, signal: Signal) -> Answer<'_, Signalled> {
        Box::pin(self.signal_noted(signal))
    }

    fn object(&self, kind: Name, key: Name) -> Answer<'_, Option<Object>> {
        Box::pin(self.object_noted(kind, key))
    }

    fn put_object(&self, put: Put) -> Answer<'_, bool> {
        Box::pin(self.put_object_noted(put))
    }
}

/// Reads the records of a process. A last line that is not whole, because the host died, is left out.
///
/// # Errors
/// The file cannot be read, or has a line in it that is no record.
pub fn read(path: &Path) -> io::Result<Vec<Record>> {
    let bytes = std::fs::read(path)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(io::Error::from)).collect()
}
