//! What the writer is asked to do, prepared as far as possible before it is asked: packed, and ready to be run again.

use std::sync::Arc;

use windlass_core::audit::Act;
use windlass_core::effect::WaitKind;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::run::{Start, Status};
use windlass_core::time::Timestamp;
use windlass_ports::store::rates::Take;
use windlass_ports::store::{
    Claim, Commit, Committed, Created, Delivered, HeadUpdate, Keep, Lease, Message, NewRun, OpId, Pruned, Pruning,
    Queueing, Reaped, Sealing, Signal, Signalled, StoreError, WorkerId,
};

use super::claim::Taken;
use super::newborn::Newborn;
use super::prune::Mode;
use super::tx::int;
use crate::cipher::{Cipher, Place};
use crate::pack::{pack_audit, pack_record, pack_start};

/// One change, or a question that must come after all changes before it.
#[derive(Debug)]
pub(super) enum Request {
    PutBundle(Digest, Vec<u8>),
    Create(Box<Creation>),
    Claim(Claim),
    TakeOver(RunId, WorkerId, Option<Status>),
    Commit(Box<Step>),
    WasCommitted(RunId, OpId),
    Release(Lease, WorkerId, Keep),
    Leave(WorkerId),
    Reap,
    Requeue(RunId),
    Fence(Name),
    PutObject(Replacement),
    Draw(Box<Draw>),
    Take(Box<Take>),
    Deliver(Delivery),
    Signal(Signal),
    /// Trees by the keys of their roots.
    Prune(Vec<i64>, Mode),
    /// Ids of signals sent before this are forgotten.
    ForgetSignals(Timestamp),
    ForgetWorkers(Vec<WorkerId>),
    Seal(Sealing),
    Act(Name, Act),
    PruneTrail(Pruning),
}

/// What the writer answers.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Created(Created),
    Leases(Vec<Taken>),
    Committed(Committed),
    /// Whether it is so, or was done.
    Is(bool),
    Reaped(Reaped),
    Fenced(u64),
    Delivered(Delivered),
    Signalled(Signalled),
    Pruned(Pruned),
    Drawn(Drawn),
    Taken(windlass_ports::store::rates::Taken),
    Forgotten(Vec<WorkerId>),
}

/// A run to be created.
#[derive(Debug)]
pub(super) struct Creation {
    pub(super) start: Arc<Start>,
    pub(super) text: Arc<[u8]>,
    pub(super) at: Timestamp,
    pub(super) queueing: Queueing,
    /// Hash of the input.
    pub(super) input: Digest,
    pub(super) packed: Vec<u8>,
}

/// A change of an object.
#[derive(Debug)]
pub(super) struct Replacement {
    pub(super) kind: Name,
    pub(super) key: Name,
    pub(super) expected: u64,
    pub(super) packed: Option<Vec<u8>>,
}

impl Creation {
    pub(super) fn prepare(new: NewRun, cipher: &Cipher) -> Result<Self, StoreError> {
        let text = encode(&new.start)?;
        let packed = cipher.encrypt(Place::Start { run: new.start.id.as_str() }, pack_start(&text))?;
        let input = new.start.input.digest();
        Ok(Self { start: Arc::new(new.start), text: text.into(), at: new.at, queueing: new.queueing, input, packed })
    }

    pub(super) fn newborn(&self) -> Newborn {
        Newborn { start: Arc::clone(&self.start), text: Arc::clone(&self.text) }
    }
}

/// An input for a run.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) to: RunId,
    pub(super) id: Name,
    pub(super) packed: Vec<u8>,
}

impl Delivery {
    pub(super) fn prepare(message: Message, cipher: &Cipher) -> Result<Self, StoreError> {
        let Message { to, id, input } = message;
        Ok(Self { packed: cipher.pack(Place::Input { run: to.as_str(), id: &id }, &encode(&input)?)?, to, id })
    }
}

/// A wait that opens.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) effect: EffectId,
    pub(super) channel: Name,
    /// None for a signal wait.
    pub(super) kind: Option<Vec<u8>>,
    pub(super) due: Option<Timestamp>,
}

/// A decision.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) op: OpId,
    pub(super) lease: Lease,
    pub(super) worker: WorkerId,
    pub(super) expected: u64,
    pub(super) head: HeadUpdate,
    pub(super) at: Timestamp,
    pub(super) record: Vec<u8>,
    pub(super) uses: Vec<Digest>,
    pub(super) uses_packed: Option<Vec<u8>>,
    pub(super) audit: Option<Vec<u8>>,
    pub(super) snapshot: Option<Vec<u8>>,
    pub(super) blobs: Vec<(Digest, Vec<u8>)>,
    pub(super) opened: Vec<Opening>,
    pub(super) closed: Vec<EffectId>,
    pub(super) children: Vec<Creation>,
    pub(super) messages: Vec<Delivery>,
    pub(super) taken: Vec<u64>,
    pub(super) keep: Keep,
    pub(super) begins: Option<u64>,
}

impl Step {
    /// Packs a commit. `primer` is the stored start of the run, for its first record, which repeats it.
    pub(super) fn prepare(commit: Commit, primer: &[u8], cipher: &Cipher) -> Result<Self, StoreError> {
        commit.check()?;
        let (id, version) = (commit.lease.run.clone(), int(commit.record.version));
        let run = id.as_str();
        let uses = commit.record.blobs;
        let opened = commit.waits_opened.into_iter().filter(|wait| !commit.waits_closed.contains(&wait.effect));
        let opened = opened.map(|wait| {
            let place = Place::Wait { run, effect: int(wait.effect.0) };
            let kind =
                (wait.kind != WaitKind::Signal).then(|| cipher.encrypt(place, encode(&wait.kind)?)).transpose()?;
            Ok(Opening { effect: wait.effect, channel: wait.channel, kind, due: wait.due })
        });
        let audit = match commit.audit.is_empty() {
            true => None,
            false => Some(cipher.encrypt(Place::Audit { run, version }, pack_audit(&encode(&commit.audit)?))?),
        };
        let blob = |(digest, bytes): (Digest, Vec<u8>)| Ok((digest, cipher.pack(Place::Blob(digest), &bytes)?));
        let snapshot = |bytes: Vec<u8>| cipher.pack(Place::Snapshot { run, version }, &bytes);
        let child = |new: NewRun| Creation::prepare(new, cipher);
        let message = |message: Message| Delivery::prepare(message, cipher);
        Ok(Self {
            op: commit.op,
            expected: commit.expected,
            head: commit.head,
            at: commit.at,
            record: cipher.encrypt(Place::Record { run, version }, pack_record(&commit.record.bytes, primer))?,
            uses_packed: (!uses.is_empty()).then(|| uses.iter().flat_map(|digest| digest.0).collect()),
            uses,
            audit,
            snapshot: commit.snapshot.map(snapshot).transpose()?,
            blobs: commit.blobs.into_iter().map(blob).collect::<Result<_, StoreError>>()?,
            opened: opened.collect::<Result<_, StoreError>>()?,
            closed: commit.waits_closed,
            children: commit.children.into_iter().map(child).collect::<Result<_, _>>()?,
            messages: commit.messages.into_iter().map(message).collect::<Result<_, _>>()?,
            taken: commit.taken,
            keep: commit.keep,
            begins: commit.begins,
            lease: commit.lease,
            worker: commit.worker,
        })
    }
}

/// The JSON text of plain data.
pub(super) fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Invalid(format!("a value cannot be written: {error}")))
}
