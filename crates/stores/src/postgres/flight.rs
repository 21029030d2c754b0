//! One transaction of many requests: which statements it takes, with which rows, and what their answers mean.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;
use uuid::Uuid;
use windlass_core::ids::RunId;
use windlass_core::run::Status;
use windlass_ports::store::{Committed, Delivered, Keep, OpId, Signalled, StoreError};

use super::connect::{Part, REFUSAL, Sql, Value};
use super::request::{Answer, Creation, Delivery, Made, Request, Sending, Step, int};
use super::statements as sql;
use super::text::unshield;

/// A status as stored.
pub(super) fn status_code(status: Status) -> i16 {
    Status::ALL.iter().position(|known| *known == status).map_or(-1, |place| place as i16)
}

/// A channel as a number to be locked. Two channels with one number only wait for each other.
fn lock_key(channel: &str) -> i64 {
    let hash = blake3::hash(channel.as_bytes());
    let mut key = [0; 8];
    key.copy_from_slice(&hash.as_bytes()[..8]);
    i64::from_le_bytes(key)
}

fn uuid(op: OpId) -> Uuid {
    Uuid::from_u128(op.0)
}

/// Whom a row belongs to, when it belongs to a decision.
#[derive(Clone, Copy)]
struct Of<'a> {
    step: &'a Step,
}

impl Of<'_> {
    fn version(self) -> i64 {
        int(self.step.expected.saturating_add(1))
    }
}

/// Columns of rows that belong to decisions.
#[derive(Default)]
struct Owners {
    runs: Vec<String>,
    versions: Vec<i64>,
    ops: Vec<Uuid>,
}

impl Owners {
    fn push(&mut self, of: Of<'_>) {
        self.runs.push(of.step.run.clone());
        self.versions.push(of.version());
        self.ops.push(uuid(of.step.op));
    }

    fn part(self, sql: &'static Sql, rest: Vec<Value>) -> Option<Part> {
        if self.runs.is_empty() {
            return None;
        }
        let mut values: Vec<Value> = vec![Box::new(self.runs), Box::new(self.versions), Box::new(self.ops)];
        values.extend(rest);
        Some((sql, values))
    }
}

/// What a statement's answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Steps,
    Finished,
    Made,
    Put,
    Noted,
    Sent,
    Nothing,
}

/// The statements of a transaction, in order.
#[derive(Default)]
pub(super) struct Flight {
    parts: Vec<Part>,
    reads: Vec<Reads>,
}

/// What came of a transaction.
pub(super) struct Landed {
    pub(super) answers: Vec<Answer>,
    /// Something came into the queue, or into the inbox of a run that a worker of another process may hold.
    pub(super) woke: bool,
}

struct Sorted<'a> {
    steps: Vec<(usize, &'a Step)>,
    creations: Vec<(usize, &'a Creation)>,
    deliveries: Vec<(usize, &'a Delivery)>,
    sendings: Vec<(usize, &'a Sending)>,
}

impl<'a> Sorted<'a> {
    fn of(requests: &'a [Request]) -> Self {
        let mut sorted =
            Self { steps: Vec::new(), creations: Vec::new(), deliveries: Vec::new(), sendings: Vec::new() };
        for (place, request) in requests.iter().enumerate() {
            match request {
                Request::Commit(step) => sorted.steps.push((place, step)),
                Request::Create(creation) => sorted.creations.push((place, creation)),
                Request::Deliver(delivery) => sorted.deliveries.push((place, delivery)),
                Request::Signal(sending) => sorted.sendings.push((place, sending)),
            }
        }
        // Rows are visited, and so locked, in this order everywhere.
        sorted.steps.sort_by(|(_, a), (_, b)| a.run.cmp(&b.run));
        sorted
    }
}

impl Flight {
    /// The transaction of these requests: at most one decision for a run, one sending on a channel.
    pub(super) fn plan(requests: &[Request]) -> Self {
        let sorted = Sorted::of(requests);
        let mut flight = Self::default();
        flight.locks(&sorted);
        flight.push(Reads::Steps, steps(&sorted.steps));
        flight.blobs(&sorted.steps);
        flight.push(Reads::Made, creations(&sorted));
        flight.push(Reads::Nothing, taken(&sorted.steps));
        flight.push(Reads::Nothing, closed(&sorted.steps));
        flight.push(Reads::Put, put(&sorted));
        flight.openings(&sorted.steps);
        flight.signals(&sorted.sendings);
        flight.endings(&sorted.steps);
        flight.push(Reads::Nothing, pools(&sorted.steps));
        flight.push(Reads::Nothing, snapshots(&sorted.steps));
        flight
    }

    fn push(&mut self, reads: Reads, part: Option<Part>) {
        if let Some(part) = part {
            self.parts.push(part);
            self.reads.push(reads);
        }
    }

    pub(super) fn take_parts(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }

    fn locks(&mut self, sorted: &Sorted<'_>) {
        let opened = sorted.steps.iter().flat_map(|(_, step)| &step.opened).filter(|opening| opening.kind.is_none());
        let channels = opened.map(|opening| opening.channel.as_str());
        let mut keys: Vec<i64> =
            channels.chain(sorted.sendings.iter().map(|(_, sent)| sent.channel.as_str())).map(lock_key).collect();
        keys.sort_unstable();
        keys.dedup();
        if !keys.is_empty() {
            self.push(Reads::Nothing, Some((&sql::LOCK_CHANNELS, vec![Box::new(keys)])));
        }
        let messages = sorted.steps.iter().flat_map(|(_, step)| &step.messages);
        let mut runs: Vec<String> = messages.map(|message| message.to.clone()).collect();
        runs.extend(sorted.deliveries.iter().map(|(_, delivery)| delivery.to.clone()));
        runs.extend(sorted.sendings.iter().filter_map(|(_, sent)| sent.run.clone()));
        if runs.is_empty() && sorted.sendings.is_empty() {
            // The guarded change itself locks the rows of decisions, in order.
            return;
        }
        runs.extend(sorted.steps.iter().map(|(_, step)| step.run.clone()));
        let channels: Vec<String> = sorted.sendings.iter().map(|(_, sent)| sent.channel.clone()).collect();
        let only: Vec<Option<String>> = sorted.sendings.iter().map(|(_, sent)| sent.run.clone()).collect();
        self.push(Reads::Nothing, Some((&sql::LOCK_RUNS, vec![Box::new(runs), Box::new(channels), Box::new(only)])));
    }

    fn blobs(&mut self, steps: &[(usize, &Step)]) {
        let (mut owners, mut digests, mut bytes) = (Owners::default(), Vec::new(), Vec::new());
        let (mut users, mut used, mut words) = (Owners::default(), Vec::new(), Vec::new());
        for (_, step) in steps {
            for (digest, packed) in &step.blobs {
                owners.push(Of { step });
                digests.push(digest.0.to_vec());
                bytes.push(packed.clone());
            }
            let new = step.blobs.iter().map(|(digest, _)| digest).filter(|digest| !step.uses.contains(digest));
            for digest in step.uses.iter().chain(new) {
                users.push(Of { step });
                used.push(digest.0.to_vec());
                words.push(format!("{REFUSAL}blob `{}` of `{}` is not stored", digest.short(), step.run));
            }
        }
        self.push(Reads::Nothing, owners.part(&sql::BLOBS, vec![Box::new(digests), Box::new(bytes)]));
        self.push(Reads::Nothing, users.part(&sql::BLOB_USES, vec![Box::new(used), Box::new(words)]));
    }

    fn openings(&mut self, steps: &[(usize, &Step)]) {
        let mut owners = Owners::default();
        let (mut effects, mut channels, mut kinds, mut dues) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (_, step) in steps {
            for opening in &step.opened {
                owners.push(Of { step });
                effects.push(int(opening.effect.0));
                channels.push(opening.channel.clone());
                kinds.push(opening.kind.clone());
                dues.push(opening.due.map(|at| int(at.0)));
            }
        }
        let rest: Vec<Value> = vec![Box::new(effects), Box::new(channels), Box::new(kinds), Box::new(dues)];
        self.push(Reads::Nothing, owners.part(&sql::OPEN_WAITS, rest));
    }

    fn signals(&mut self, sendings: &[(usize, &Sending)]) {
        if sendings.is_empty() {
            return;
        }
        let column = |read: fn(&Sending) -> String| -> Vec<String> { sendings.iter().map(|(_, s)| read(s)).collect() };
        let places: Vec<i64> = sendings.iter().map(|(place, _)| *place as i64).collect();
        let only: Vec<Option<String>> = sendings.iter().map(|(_, sent)| sent.run.clone()).collect();
        let ops: Vec<Uuid> = sendings.iter().map(|(_, sent)| uuid(sent.op)).collect();
        let note: Vec<Value> = vec![
            Box::new(places.clone()),
            Box::new(column(|sent| sent.id.clone())),
            Box::new(column(|sent| sent.channel.clone())),
            Box::new(only.clone()),
            Box::new(sendings.iter().map(|(_, sent)| sent.at).collect::<Vec<i64>>()),
            Box::new(ops.clone()),
            Box::new(sendings.iter().map(|(_, sent)| sent.data.clone()).collect::<Vec<_>>()),
        ];
        let send: Vec<Value> = vec![
            Box::new(places),
            Box::new(column(|sent| sent.id.clone())),
            Box::new(column(|sent| sent.channel.clone())),
            Box::new(only),
            Box::new(ops),
        ];
        self.push(Reads::Noted, Some((&sql::NOTE_SIGNALS, note)));
        self.push(Reads::Sent, Some((&sql::SEND_SIGNALS, send)));
    }

    fn endings(&mut self, steps: &[(usize, &Step)]) {
        let ended: Vec<String> =
            steps.iter().filter(|(_, step)| step.keep == Keep::End).map(|(_, step)| step.run.clone()).collect();
        if !ended.is_empty() {
            self.push(Reads::Nothing, Some((&sql::CLEAR_ENDED, vec![Box::new(ended)])));
        }
        let (mut owners, mut keeps, mut wakes) = (Owners::default(), Vec::new(), Vec::new());
        for (_, step) in steps.iter().filter(|(_, step)| !step.is_plain()) {
            let (keep, wake_at) = keep_code(step.keep);
            owners.push(Of { step });
            keeps.push(keep);
            wakes.push(wake_at);
        }
        self.push(Reads::Finished, owners.part(&sql::FINISH, vec![Box::new(keeps), Box::new(wakes)]));
    }

    /// Reads the answers of the statements.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for answers that do not fit the questions.
    pub(super) fn land(&self, requests: &[Request], rows: &[Vec<Row>]) -> Result<Landed, StoreError> {
        let failed = |error: tokio_postgres::Error| StoreError::Corrupt(format!("an answer cannot be read: {error}"));
        let read = self.read(rows).map_err(failed)?;
        let mut woke = read.woke;
        let answers = requests.iter().enumerate().map(|(place, request)| match request {
            Request::Commit(step) => {
                let applied = read.steps.get(step.run.as_str());
                let committed = match applied {
                    None => Committed::Stale,
                    Some((pending, held)) => Committed::Applied {
                        held: *held,
                        inbox: *pending > 0,
                        switched: read.switched.contains(step.run.as_str()),
                    },
                };
                woke |= applied.is_some() && (step.keep == Keep::HandBack || !step.children.is_empty());
                Answer::Committed(committed)
            }
            Request::Create(creation) => {
                let made = read.made.get(&place);
                woke |= matches!(made, Some((None, true, true))) && creation.wake_at.is_none();
                let (missing, room, made) = made.cloned().unwrap_or((None, true, false));
                Answer::Created(Made { missing: missing.map(|run| unshield(&run)), room, made })
            }
            Request::Deliver(_) => Answer::Delivered(match read.put.get(&place) {
                None => Delivered::NotFound,
                Some((true, _)) => Delivered::Finished,
                Some((false, true)) => Delivered::Accepted,
                Some((false, false)) => Delivered::Duplicate,
            }),
            Request::Signal(_) => Answer::Signalled(read.signalled(place)),
        });
        let answers = answers.collect();
        Ok(Landed { answers, woke })
    }

    fn read(&self, rows: &[Vec<Row>]) -> Result<Read, tokio_postgres::Error> {
        let mut read = Read::default();
        for (reads, rows) in self.reads.iter().zip(rows) {
            for row in rows {
                match reads {
                    // What is finished later replaces what the guarded change said.
                    Reads::Steps | Reads::Finished => {
                        if *reads == Reads::Steps && row.try_get(3)? {
                            read.switched.insert(row.try_get(0)?);
                        }
                        read.steps.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
                    }
                    Reads::Made => {
                        let made = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
                        read.made.insert(place(row)?, made);
                    }
                    Reads::Put => {
                        let is_new = row.try_get(2)?;
                        read.put.insert(place(row)?, (row.try_get(1)?, is_new));
                        read.woke |= is_new;
                    }
                    Reads::Noted => {
                        let noted = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
                        read.noted.insert(place(row)?, noted);
                    }
                    Reads::Sent => {
                        let run: String = row.try_get(1)?;
                        read.sent.entry(place(row)?).or_default().push(RunId::stored(&unshield(&run)));
                        read.woke = true;
                    }
                    Reads::Nothing => {}
                }
            }
        }
        Ok(read)
    }
}

fn place(row: &Row) -> Result<usize, tokio_postgres::Error> {
    row.try_get::<_, i64>(0).map(|place| usize::try_from(place).unwrap_or(usize::MAX))
}

/// What the statements answered.
#[derive(Default)]
struct Read {
    /// By run: rows in its inbox, and whether it is still held.
    steps: HashMap<String, (i64, bool)>,
    /// Runs whose read-only switches were changed.
    switched: HashSet<String>,
    /// By place: who is missing above it, whether there was room, whether it was made.
    made: HashMap<usize, (Option<String>, bool, bool)>,
    /// By place: whether the run is over, whether the input is new.
    put: HashMap<usize, (bool, bool)>,
    /// By place: whether the signal was known, its run is known, its run is over, it was noted.
    noted: HashMap<usize, (bool, bool, bool, bool)>,
    sent: HashMap<usize, Vec<RunId>>,
    woke: bool,
}

impl Read {
    fn signalled(&self, place: usize) -> Signalled {
        match self.noted.get(&place) {
            Some((false, false, ..)) => Signalled::NotFound,
            Some((false, true, true, _)) => Signalled::Finished,
            Some((false, true, false, true)) => match self.sent.get(&place) {
                Some(runs) => Signalled::Delivered(runs.clone()),
                None => Signalled::Buffered,
            },
            Some((true, ..) | (false, true, false, false)) | None => Signalled::Duplicate,
        }
    }
}

fn keep_code(keep: Keep) -> (i16, Option<i64>) {
    match keep {
        Keep::Hold => (sql::HOLD, None),
        Keep::Park { wake_at } => (sql::PARK, wake_at.map(|at| int(at.0))),
        Keep::HandBack => (sql::HAND_BACK, None),
        Keep::End => (sql::END, None),
    }
}

fn steps(steps: &[(usize, &Step)]) -> Option<Part> {
    if steps.is_empty() {
        return None;
    }
    fn column<T>(steps: &[(usize, &Step)], read: impl Fn(&Step) -> T) -> Vec<T> {
        steps.iter().map(|(_, step)| read(step)).collect()
    }
    let keep = |step: &Step| if step.is_plain() { keep_code(step.keep) } else { (sql::LATER, None) };
    let state = |step: &Step| step.head.state.as_deref().map(|state| super::text::shield(state).into_owned());
    let values: Vec<Value> = vec![
        Box::new(column(steps, |step| step.run.clone())),
        Box::new(column(steps, |step| int(step.expected))),
        Box::new(column(steps, |step| int(step.epoch))),
        Box::new(column(steps, |step| step.worker.clone())),
        Box::new(column(steps, |step| status_code(step.head.status))),
        Box::new(column(steps, state)),
        Box::new(column(steps, |step| int(step.head.step))),
        Box::new(column(steps, |step| int(step.head.tokens))),
        Box::new(column(steps, |step| int(step.head.cost_micros))),
        Box::new(column(steps, |step| step.head.bundle.0.to_vec())),
        Box::new(column(steps, |step| int(step.at.0))),
        Box::new(column(steps, |step| keep(step).0)),
        Box::new(column(steps, |step| keep(step).1)),
        Box::new(column(steps, |step| uuid(step.op))),
        Box::new(column(steps, |step| step.record.clone())),
        Box::new(column(steps, |step| step.uses_packed.clone())),
        Box::new(column(steps, |step| step.audit.clone())),
        Box::new(column(steps, |step| i32::try_from(step.head.strikes).unwrap_or(i32::MAX))),
        Box::new(column(steps, |step| step.begins.map(int))),
    ];
    Some((&sql::STEPS, values))
}

fn creations(sorted: &Sorted<'_>) -> Option<Part> {
    let children =
        sorted.steps.iter().flat_map(|(_, step)| step.children.iter().map(move |child| (Some(Of { step }), child)));
    // Those of callers come first, so that their numbers are their places.
    let mut all: Vec<(i64, Option<Of<'_>>, &Creation)> =
        sorted.creations.iter().map(|(place, creation)| (*place as i64, None, *creation)).collect();
    let after = all.iter().map(|(place, ..)| place + 1).max().unwrap_or_default();
    all.extend(children.enumerate().map(|(n, (of, child))| (after + n as i64, of, child)));
    if all.is_empty() {
        return None;
    }
    fn column<T>(all: &[(i64, Option<Of<'_>>, &Creation)], read: impl Fn(&Creation) -> T) -> Vec<T> {
        all.iter().map(|(_, _, creation)| read(creation)).collect()
    }
    let json = |texts: &[String]| serde_json::Value::from(texts.to_vec()).to_string();
    let of = || all.iter().map(|(_, of, _)| *of);
    // A child is never refused because the queue is full.
    let bound: Vec<Option<i64>> =
        all.iter().map(|(_, of, creation)| creation.queued_max.filter(|_| of.is_none())).collect();
    let values: Vec<Value> = vec![
        Box::new(all.iter().map(|(number, ..)| *number).collect::<Vec<i64>>()),
        Box::new(column(&all, |creation| creation.id.clone())),
        Box::new(column(&all, |creation| creation.parent.clone())),
        Box::new(column(&all, |creation| creation.root.clone())),
        Box::new(column(&all, |creation| creation.machine.clone())),
        Box::new(column(&all, |creation| creation.tenant.clone())),
        Box::new(column(&all, |creation| creation.depth)),
        Box::new(column(&all, |creation| creation.input.0.to_vec())),
        Box::new(column(&all, |creation| creation.bundle.0.to_vec())),
        Box::new(column(&all, |creation| creation.at)),
        Box::new(column(&all, |creation| creation.pool.clone())),
        Box::new(column(&all, |creation| creation.priority)),
        Box::new(column(&all, |creation| creation.wake_at)),
        Box::new(column(&all, |creation| creation.tags.as_deref().map(json))),
        Box::new(column(&all, |creation| json(&creation.keys))),
        Box::new(bound),
        Box::new(column(&all, |creation| creation.start.clone())),
        Box::new(of().map(|of| of.map(|of| of.step.run.clone())).collect::<Vec<_>>()),
        Box::new(of().map(|of| of.map(Of::version)).collect::<Vec<_>>()),
        Box::new(of().map(|of| of.map(|of| uuid(of.step.op))).collect::<Vec<_>>()),
    ];
    Some((&sql::CREATE, values))
}

fn taken(steps: &[(usize, &Step)]) -> Option<Part> {
    let (mut owners, mut numbers) = (Owners::default(), Vec::new());
    for (_, step) in steps {
        for number in &step.taken {
            owners.push(Of { step });
            numbers.push(int(*number));
        }
    }
    owners.part(&sql::TAKE, vec![Box::new(numbers)])
}

fn closed(steps: &[(usize, &Step)]) -> Option<Part> {
    let (mut owners, mut effects) = (Owners::default(), Vec::new());
    for (_, step) in steps {
        for effect in &step.closed {
            owners.push(Of { step });
            effects.push(int(effect.0));
        }
    }
    owners.part(&sql::CLOSE_WAITS, vec![Box::new(effects)])
}

fn put(sorted: &Sorted<'_>) -> Option<Part> {
    let messages = sorted.steps.iter().flat_map(|(_, step)| step.messages.iter().map(move |m| (Some(Of { step }), m)));
    let mut all: Vec<(i64, Option<Of<'_>>, &Delivery)> =
        sorted.deliveries.iter().map(|(place, delivery)| (*place as i64, None, *delivery)).collect();
    let after = all.iter().map(|(place, ..)| place + 1).max().unwrap_or_default();
    all.extend(messages.enumerate().map(|(n, (of, message))| (after + n as i64, of, message)));
    if all.is_empty() {
        return None;
    }
    let values: Vec<Value> = vec![
        Box::new(all.iter().map(|(number, ..)| *number).collect::<Vec<i64>>()),
        Box::new(all.iter().map(|(_, _, message)| message.to.clone()).collect::<Vec<_>>()),
        Box::new(all.iter().map(|(_, _, message)| message.id.clone()).collect::<Vec<_>>()),
        Box::new(all.iter().map(|(_, _, message)| message.packed.clone()).collect::<Vec<_>>()),
        Box::new(all.iter().map(|(_, of, _)| of.map(|of| of.step.run.clone())).collect::<Vec<_>>()),
        Box::new(all.iter().map(|(_, of, _)| of.map(Of::version)).collect::<Vec<_>>()),
        Box::new(all.iter().map(|(_, of, _)| of.map(|of| uuid(of.step.op))).collect::<Vec<_>>()),
    ];
    Some((&sql::PUT, values))
}

fn pools(steps: &[(usize, &Step)]) -> Option<Part> {
    let (mut owners, mut pools) = (Owners::default(), Vec::new());
    for (_, step) in steps {
        if let Some(pool) = &step.head.pool {
            owners.push(Of { step });
            pools.push(super::text::shield(pool).into_owned());
        }
    }
    owners.part(&sql::CHANGE_POOLS, vec![Box::new(pools)])
}

fn snapshots(steps: &[(usize, &Step)]) -> Option<Part> {
    let (mut owners, mut bytes) = (Owners::default(), Vec::new());
    for (_, step) in steps {
        if let Some(snapshot) = &step.snapshot {
            owners.push(Of { step });
            bytes.push(snapshot.clone());
        }
    }
    owners.part(&sql::SNAPSHOTS, vec![Box::new(bytes)])
}
