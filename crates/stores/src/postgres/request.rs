//! What the store is asked to write, prepared as far as possible before it waits: packed, checked, ready to be sent
//! again.

use windlass_core::effect::WaitKind;
use windlass_core::ids::{Digest, EffectId, Name};
use windlass_core::time::Timestamp;
use windlass_ports::store::{
    Commit, Committed, Delivered, HeadUpdate, Keep, Message, NewRun, OpId, Signal, Signalled, StoreError,
};

use super::text::{indexed, shield};
use crate::cipher::{Cipher, Place};
use crate::pack::{pack_audit, pack_record, pack_start};

/// One change.
#[derive(Debug)]
pub(super) enum Request {
    Commit(Box<Step>),
    Create(Box<Creation>),
    Deliver(Delivery),
    Signal(Box<Sending>),
}

/// What is answered.
#[derive(Debug)]
pub(super) enum Answer {
    Committed(Committed),
    Created(Made),
    Delivered(Delivered),
    Signalled(Signalled),
}

/// Whether a run was made.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// The run that it is to be below, which does not exist.
    pub(super) missing: Option<Name>,
    /// Whether there was room in the queue.
    pub(super) room: bool,
    pub(super) made: bool,
}

/// A number as stored. What is beyond 2^63-1 stands for the end of time or of counting, and stays there.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number as read.
pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// A run to be created.
#[derive(Clone, Debug)]
pub(super) struct Creation {
    pub(super) id: String,
    pub(super) parent: Option<String>,
    pub(super) root: String,
    pub(super) machine: String,
    pub(super) tenant: String,
    pub(super) depth: i32,
    pub(super) input: Digest,
    pub(super) bundle: Digest,
    pub(super) at: i64,
    pub(super) pool: Option<String>,
    pub(super) priority: Option<i16>,
    pub(super) wake_at: Option<i64>,
    pub(super) tags: Option<Vec<String>>,
    /// Of each tag, its key alone.
    pub(super) keys: Vec<String>,
    pub(super) queued_max: Option<i64>,
    pub(super) start: Vec<u8>,
}

/// A tag's key, as it stands among a run's tags.
pub(super) fn tag_key(key: &str) -> String {
    let key = shield(key);
    format!("{}:{key}", key.len())
}

/// A tag, as it stands among a run's tags.
pub(super) fn tag_pair(key: &str, value: &str) -> String {
    format!("{}={}", tag_key(key), shield(value))
}

impl Creation {
    pub(super) fn prepare(new: NewRun, cipher: &Cipher) -> Result<Self, StoreError> {
        let (start, queueing) = (new.start, new.queueing);
        let tags: Vec<String> =
            queueing.tags.iter().flat_map(|(key, value)| [tag_key(key), tag_pair(key, value)]).collect();
        for tag in &tags {
            indexed("a tag", tag)?;
        }
        let pool = queueing.pool.map(|pool| indexed("a pool", &pool)).transpose()?;
        let id = indexed("a run id", start.id.as_str())?;
        let packed = cipher.encrypt(Place::Start { run: &id }, pack_start(&encode(&start)?))?;
        Ok(Self {
            id,
            parent: start.parent.as_ref().map(|parent| shield(parent.run.as_str()).into_owned()),
            root: shield(start.root.as_str()).into_owned(),
            machine: indexed("the name of a machine", &start.machine_name)?,
            tenant: indexed("the name of a tenant", &start.scope.tenant)?,
            depth: i32::try_from(start.depth).unwrap_or(i32::MAX),
            input: start.input.digest(),
            bundle: start.bundle,
            at: int(new.at.0),
            pool,
            priority: queueing.priority.map(|priority| priority as i16),
            wake_at: queueing.not_before.filter(|then| *then > new.at).map(|then| int(then.0)),
            keys: queueing.tags.keys().map(|key| tag_key(key)).collect(),
            tags: (!tags.is_empty()).then_some(tags),
            queued_max: queueing.queued_max.map(i64::from),
            start: packed,
        })
    }
}

/// An input for a run.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) to: String,
    pub(super) id: String,
    pub(super) packed: Vec<u8>,
}

impl Delivery {
    pub(super) fn prepare(message: Message, cipher: &Cipher) -> Result<Self, StoreError> {
        let (to, id) = (shield(message.to.as_str()).into_owned(), indexed("the id of a message", &message.id)?);
        Ok(Self { packed: cipher.pack(Place::Input { run: &to, id: &id }, &encode(&message.input)?)?, to, id })
    }
}

/// A signal to be sent.
#[derive(Clone, Debug)]
pub(super) struct Sending {
    pub(super) id: String,
    pub(super) channel: String,
    pub(super) run: Option<String>,
    pub(super) at: i64,
    pub(super) op: OpId,
    pub(super) data: Vec<u8>,
}

impl Sending {
    pub(super) fn prepare(signal: &Signal, cipher: &Cipher) -> Result<Self, StoreError> {
        let id = indexed("the id of a signal", &signal.id)?;
        let data = cipher.pack(Place::Signal { id: &id }, &encode(&signal.data)?)?;
        Ok(Self {
            id,
            channel: indexed("a channel", &signal.channel)?,
            run: signal.run.as_ref().map(|run| shield(run.as_str()).into_owned()),
            at: int(signal.at.0),
            op: OpId(uuid::Uuid::now_v7().as_u128()),
            data,
        })
    }
}

/// A wait that opens.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) effect: EffectId,
    pub(super) channel: String,
    /// None for a signal wait.
    pub(super) kind: Option<Vec<u8>>,
    pub(super) due: Option<Timestamp>,
}

/// A decision.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) run: String,
    pub(super) op: OpId,
    pub(super) epoch: u64,
    pub(super) worker: String,
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
        let (id, version) = (shield(commit.lease.run.as_str()).into_owned(), int(commit.record.version));
        let run = id.as_str();
        let uses = commit.record.blobs;
        let opened = commit.waits_opened.into_iter().filter(|wait| !commit.waits_closed.contains(&wait.effect));
        let opened = opened.filter(|_| commit.keep != Keep::End).map(|wait| {
            let place = Place::Wait { run, effect: int(wait.effect.0) };
            let kind =
                (wait.kind != WaitKind::Signal).then(|| cipher.encrypt(place, encode(&wait.kind)?)).transpose()?;
            Ok(Opening { effect: wait.effect, channel: indexed("a channel", &wait.channel)?, kind, due: wait.due })
        });
        let opened = opened.collect::<Result<_, StoreError>>()?;
        let audit = match commit.audit.is_empty() {
            true => None,
            false => Some(cipher.encrypt(Place::Audit { run, version }, pack_audit(&encode(&commit.audit)?))?),
        };
        let record = cipher.encrypt(Place::Record { run, version }, pack_record(&commit.record.bytes, primer))?;
        let blob = |(digest, bytes): (Digest, Vec<u8>)| Ok((digest, cipher.pack(Place::Blob(digest), &bytes)?));
        let blobs = commit.blobs.into_iter().map(blob).collect::<Result<_, StoreError>>()?;
        let snapshot =
            commit.snapshot.map(|bytes| cipher.pack(Place::Snapshot { run, version }, &bytes)).transpose()?;
        let child = |new: NewRun| Creation::prepare(new, cipher);
        let message = |message: Message| Delivery::prepare(message, cipher);
        Ok(Self {
            run: id,
            op: commit.op,
            epoch: commit.lease.epoch,
            worker: shield(&commit.worker.0).into_owned(),
            expected: commit.expected,
            at: commit.at,
            record,
            uses_packed: (!uses.is_empty()).then(|| uses.iter().flat_map(|digest| digest.0).collect()),
            uses,
            audit,
            snapshot,
            blobs,
            opened,
            closed: commit.waits_closed,
            children: commit.children.into_iter().map(child).collect::<Result<_, _>>()?,
            messages: commit.messages.into_iter().map(message).collect::<Result<_, _>>()?,
            taken: commit.taken,
            keep: commit.keep,
            begins: commit.begins,
            head: commit.head,
        })
    }

    /// Whether it changes nothing but its own row and its journal, and goes on or parks.
    pub(super) fn is_plain(&self) -> bool {
        self.keep != Keep::End && self.opened.is_empty() && self.messages.is_empty() && self.taken.is_empty()
    }
}

/// The JSON text of plain data.
pub(super) fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Invalid(format!("a value cannot be written: {error}")))
}
