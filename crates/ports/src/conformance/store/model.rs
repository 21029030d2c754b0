//! One case: a long random history has the same answers and leaves the same data as in the store in memory.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;

use super::Harness;
use super::setup::{BUNDLE, Process, audit_row, child, commit, id, message, run, signal, wait};
use crate::fake::MemoryStore;
use crate::store::{
    Claim, Commit, Created, FENCED, Head, Keep, Lease, NewRun, Priority, Put, Query, Queueing, Registration, Retention,
    Signal, Signalled, Store, WorkerId,
};

const SEEDS: u64 = 4;
const STEPS: u64 = 250;

/// SplitMix64: the seed names the whole history.
struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    /// A channel of this history: another one leaves its buffered signals alone.
    fn channel(&mut self) -> String {
        let number = self.below(3);
        format!("{}.{number}", self.seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// One of the two stores, with its processes.
struct Side {
    processes: Vec<Process>,
    /// Workers by the place of their process, the dead ones too.
    workers: Vec<WorkerId>,
    /// The latest lease of each run, as this store gave it.
    leases: BTreeMap<RunId, (usize, Lease)>,
}

impl Side {
    fn name(&self, worker: Option<&WorkerId>) -> Option<usize> {
        let place = |id: &WorkerId| self.workers.iter().position(|known| known == id).expect("a known worker");
        worker.map(|id| if &*id.0 == FENCED { usize::MAX } else { place(id) })
    }

    fn plain(&self, head: Head) -> (Head, Option<usize>) {
        let owner = self.name(head.owner.as_ref());
        let plain = |(place, id): (usize, &WorkerId)| (id.to_string(), format!("worker {place}"));
        let names: Vec<_> = self.workers.iter().enumerate().map(plain).collect();
        let quarantine = head.quarantine.map(|text| {
            names.iter().fold(text.to_string(), |text, (id, plain)| text.replace(&format!("`{id}`"), plain)).into()
        });
        (Head { owner: None, quarantine, ..head }, owner)
    }

    fn take(&mut self, place: usize, mut leases: Vec<Lease>) -> Vec<(RunId, u64, Option<usize>, u32)> {
        leases.sort_by(|a, b| a.run.cmp(&b.run));
        let plain = leases
            .iter()
            .map(|lease| (lease.run.clone(), lease.epoch, self.name(lease.taken_from.as_ref()), lease.strikes));
        let plain = plain.collect();
        for lease in leases {
            self.leases.insert(lease.run.clone(), (place, lease));
        }
        plain
    }
}

/// What happens, named so that both stores can be told the same.
#[derive(Clone, Debug)]
enum Event {
    Create(usize, Box<NewRun>),
    Claim(usize, u64, Option<RunId>, Vec<Name>),
    TakeOver(usize, RunId, Option<Status>),
    Commit(RunId, Box<Plan>),
    Release(RunId, Keep),
    Deliver(usize, String, String),
    Signal(usize, Signal),
    Due(usize, Option<RunId>),
    List(usize, Query),
    Prune(usize, Retention),
    Requeue(usize, RunId),
    Reap(usize),
    Put(usize, Put),
    Objects(usize, Name, Option<Name>, usize),
    Leave(usize),
    Fence(usize),
    Die(usize),
}

impl Event {
    /// Whether processes have to become workers again after it.
    fn ends(&self, place: usize) -> bool {
        match self {
            Self::Fence(_) => true,
            Self::Leave(left) => *left == place,
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
struct Plan {
    /// Off from the current version, for a stale one.
    off: u64,
    at: u64,
    status: Status,
    keep: Keep,
    opened: Vec<(u64, String)>,
    closed: Vec<u64>,
    pool: Option<Name>,
    children: Vec<(String, Queueing)>,
    messages: Vec<(String, String)>,
    take: u64,
    snapshot: bool,
    blob: Option<u8>,
    audit: bool,
}

fn names() -> Vec<String> {
    (0..8).map(|n| format!("r{n}")).collect()
}

fn pool(chance: &mut Chance) -> Option<Name> {
    (chance.below(4) == 0).then(|| (*chance.pick(&["default", "gpu"])).into())
}

fn tag(chance: &mut Chance) -> (Name, Name) {
    ((*chance.pick(&["k", "l"])).into(), (*chance.pick(&["v", "w"])).into())
}

fn queueing(chance: &mut Chance) -> Queueing {
    Queueing {
        pool: pool(chance),
        priority: (chance.below(3) == 0).then(|| *chance.pick(&Priority::ALL)),
        not_before: (chance.below(4) == 0).then(|| Timestamp(900 + chance.below(500))),
        tags: (0..chance.below(3)).map(|_| tag(chance)).collect(),
        queued_max: (chance.below(6) == 0).then(|| chance.below(4) as u32),
    }
}

fn new_run(chance: &mut Chance) -> NewRun {
    let mut new = run(chance.pick(names().as_slice()).as_str());
    new.start.scope.tenant = (*chance.pick(&["t", "u"])).into();
    NewRun { queueing: queueing(chance), ..new }
}

fn plan(chance: &mut Chance, run: &RunId, seen: u64) -> Plan {
    let (keep, status) = match chance.below(8) {
        0..=2 => (Keep::Hold, Status::Running),
        3 => (Keep::Park { wake_at: None }, Status::Waiting),
        4 => (Keep::Park { wake_at: Some(Timestamp(1_000 + chance.below(400))) }, Status::Waiting),
        5 => (Keep::Park { wake_at: None }, Status::Paused),
        6 => (Keep::HandBack, Status::Running),
        _ => (Keep::End, *chance.pick(&[Status::Completed, Status::Failed, Status::Cancelled])),
    };
    Plan {
        off: u64::from(chance.below(9) == 0),
        at: 1_000 + seen,
        status,
        keep,
        opened: (0..chance.below(3)).map(|n| (seen * 10 + n, chance.channel())).collect(),
        closed: (0..chance.below(3)).map(|_| chance.below(seen + 1) * 10 + chance.below(2)).collect(),
        pool: pool(chance),
        children: (0..chance.below(5).saturating_sub(2))
            .map(|n| (format!("{run}~{}.{n}", seen % 7), queueing(chance)))
            .collect(),
        messages: (0..chance.below(3))
            .map(|_| (chance.pick(&names()).clone(), format!("m{}", chance.below(40))))
            .collect(),
        take: chance.below(4),
        snapshot: chance.below(6) == 0,
        blob: (chance.below(5) == 0).then(|| chance.below(4) as u8),
        audit: chance.below(3) == 0,
    }
}

fn query(chance: &mut Chance, any: &RunId) -> Query {
    Query {
        statuses: if chance.below(2) == 0 { vec![*chance.pick(&Status::ALL)] } else { Vec::new() },
        parent: (chance.below(4) == 0).then(|| any.clone()),
        root: (chance.below(4) == 0).then(|| any.clone()),
        roots_only: chance.below(3) == 0,
        tenant: (chance.below(4) == 0).then(|| "t".into()),
        pool: pool(chance),
        tags: (0..chance.below(6).saturating_sub(3))
            .map(|_| (tag(chance), chance.below(2) == 0))
            .map(|((key, value), exact)| (key, exact.then_some(value)))
            .collect(),
        limit: 1 + chance.below(9) as usize,
        ..Query::default()
    }
}

fn fleet_event(chance: &mut Chance, place: usize, run: RunId) -> Event {
    match chance.below(4) {
        0 => Event::Requeue(place, run),
        1 if chance.below(3) == 0 => Event::Leave(place),
        1 if chance.below(10) == 0 => Event::Fence(place),
        1 => Event::Reap(place),
        2 => {
            let bytes = (chance.below(4) > 0).then(|| vec![chance.below(256) as u8; chance.below(9) as usize]);
            let (kind, key) = tag(chance);
            Event::Put(place, Put { kind, key, expected: chance.below(3), bytes })
        }
        _ => {
            let (kind, after) = tag(chance);
            Event::Objects(place, kind, (chance.below(2) == 0).then_some(after), chance.below(3) as usize)
        }
    }
}

fn event(chance: &mut Chance, side: &Side, seen: u64) -> Event {
    let place = chance.below(2) as usize;
    let held: Vec<RunId> = side.leases.keys().cloned().collect();
    let any = |chance: &mut Chance| match chance.below(4) {
        0 if !held.is_empty() => chance.pick(&held).clone(),
        _ => id(chance.pick(names().as_slice()).as_str()),
    };
    match chance.below(28) {
        0..=2 => Event::Create(place, Box::new(new_run(chance))),
        3..=6 => {
            let within = (chance.below(4) == 0).then(|| any(chance));
            Event::Claim(place, 1_000 + chance.below(400), within, pool(chance).into_iter().collect())
        }
        7 => {
            let expected = (chance.below(2) == 0).then(|| *chance.pick(&Status::ALL));
            Event::TakeOver(place, any(chance), expected)
        }
        8..=14 if !held.is_empty() => {
            let run = chance.pick(&held).clone();
            let plan = plan(chance, &run, seen);
            Event::Commit(run, Box::new(plan))
        }
        15 if !held.is_empty() => {
            let keep = *chance.pick(&[Keep::HandBack, Keep::Park { wake_at: Some(Timestamp(1_200)) }]);
            Event::Release(chance.pick(&held).clone(), keep)
        }
        16 | 17 => Event::Deliver(place, any(chance).to_string(), format!("m{}", chance.below(40))),
        18 | 19 => {
            let number = chance.below(60);
            let sent = signal(&format!("{}.{number}", chance.seed), &chance.channel());
            let run = (chance.below(3) == 0).then(|| any(chance));
            Event::Signal(place, Signal { run, ..sent })
        }
        20 => Event::Due(place, (chance.below(2) == 0).then(|| any(chance))),
        21 => {
            let run = any(chance);
            Event::List(place, query(chance, &run))
        }
        22 if chance.below(3) == 0 => Event::Prune(
            place,
            Retention {
                ended_before: (chance.below(2) == 0).then(|| Timestamp(1_000 + chance.below(seen + 1))),
                keep_per_machine: (chance.below(2) == 0).then(|| chance.below(3)),
                machine: None,
                tags: (0..chance.below(2)).map(|_| tag(chance)).map(|(key, value)| (key, Some(value))).collect(),
                trees: None,
                dry_run: chance.below(2) == 0,
            },
        ),
        23 if chance.below(3) == 0 => Event::Die(place),
        24..=27 => {
            let run = any(chance);
            fleet_event(chance, place, run)
        }
        _ => Event::Claim(place, 1_400, None, Vec::new()),
    }
}

async fn planned(side: &Side, run: &RunId, plan: &Plan) -> Option<Commit> {
    let (place, lease) = side.leases.get(run)?;
    let process = &side.processes[*place % 2];
    let stored = process.store.load(run.clone()).await.expect("read");
    let version = stored.map_or(0, |stored| stored.head.version);
    let rows = process.store.audit(run.clone()).await.expect("read");
    let inbox = process.store.inbox(run.clone()).await.expect("read");
    let mut step = commit(lease, &side.workers[*place], version + plan.off);
    step.at = Timestamp(plan.at);
    step.head.status = plan.status;
    step.keep = plan.keep;
    step.waits_opened = plan.opened.iter().map(|(effect, channel)| wait(*effect, channel)).collect();
    step.waits_closed = plan.closed.iter().map(|effect| EffectId(*effect)).collect();
    let root = run.as_str().split('~').next().unwrap_or_default();
    step.head.pool = plan.pool.clone();
    let created = |(name, queueing): &(String, Queueing)| NewRun {
        queueing: queueing.clone(),
        ..child(name, run.as_str(), root)
    };
    step.children = plan.children.iter().map(created).collect();
    step.messages = plan.messages.iter().map(|(to, text)| message(to, text)).collect();
    step.taken = inbox.iter().take(plan.take as usize).map(|item| item.number).collect();
    step.snapshot = plan.snapshot.then(|| format!("snapshot at {}", plan.at).into_bytes());
    if let Some(blob) = plan.blob {
        let bytes = vec![blob; 30_000];
        step.record.blobs = vec![Digest::of(&bytes)];
        step.blobs = vec![(Digest::of(&bytes), bytes)];
    }
    if plan.audit {
        let previous = rows.last().map_or(Digest::ZERO, windlass_core::audit::Row::hash);
        step.audit = vec![audit_row(rows.len() as u64 + 1, previous)];
    }
    Some(step)
}

fn told(answer: impl Debug) -> String {
    format!("{answer:?}")
}

/// The part of what happens that concerns workers and objects.
async fn happen_to_fleet(side: &Side, event: &Event) -> String {
    let store = |place: usize| &side.processes[place].store;
    match event.clone() {
        Event::Requeue(place, run) => told(store(place).requeue(run).await.expect("answered")),
        Event::Reap(place) => {
            let mut reaped = store(place).reap().await.expect("answered");
            reaped.quarantined.sort();
            told((reaped.runs, reaped.quarantined))
        }
        Event::Put(place, put) => {
            // Which numbers revisions have is each store's own: none, the one that is there, and another one are meant.
            let there = store(place).object(put.kind.clone(), put.key.clone()).await.expect("read");
            let there = there.map(|object| object.revision);
            let expected = match put.expected {
                0 => 0,
                1 => there.unwrap_or(1),
                _ => there.unwrap_or_default() + 1,
            };
            told(store(place).put_object(Put { expected, ..put }).await.expect("answered"))
        }
        Event::Objects(place, kind, after, limit) => {
            let objects = store(place).objects(kind, after, limit).await.expect("read");
            told(objects.into_iter().map(|object| (object.key, object.bytes)).collect::<Vec<_>>())
        }
        Event::Leave(place) => told(store(place).leave(side.processes[place].worker.clone()).await.is_ok()),
        Event::Fence(place) => told(store(place).fence("fenced".into()).await.expect("fenced")),
        other => panic!("{other:?} concerns runs"),
    }
}

/// A whole list, page by page.
async fn listed(side: &Side, place: usize, query: Query) -> String {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let page = side.processes[place].store.list(Query { cursor, ..query.clone() }).await.expect("listed");
        all.extend(page.heads.into_iter().map(|head| side.plain(head)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    told(all)
}

/// Tells one store what happens; the answer is free of names that differ between stores.
async fn happen(side: &mut Side, event: &Event, reopened: Option<Process>) -> String {
    match event.clone() {
        Event::Create(place, new) => match side.processes[place].store.create(*new).await.expect("created") {
            Created::New => told("new"),
            Created::Exists(head) => told(side.plain(*head)),
            Created::Full => told("full"),
        },
        Event::Claim(place, now, within, pools) => {
            let claim = Claim { within, pools, ..side.processes[place].wanted(10_000, now) };
            let leases = side.processes[place].store.claim(claim).await.expect("claimed");
            let worker = side.processes[place].worker.clone();
            let place = side.name(Some(&worker)).expect("a worker");
            told(side.take(place, leases))
        }
        Event::TakeOver(place, run, expected) => {
            let worker = side.processes[place].worker.clone();
            let lease = side.processes[place].store.take_over(run, worker.clone(), expected).await.expect("answered");
            let place = side.name(Some(&worker)).expect("a worker");
            told(side.take(place, lease.into_iter().collect()))
        }
        Event::Commit(run, plan) => match planned(side, &run, &plan).await {
            None => told("no lease"),
            // A refused commit has the same reason in both, in the same words.
            Some(step) => told(side.processes[0].store.commit(step).await.map_err(|error| error.to_string())),
        },
        Event::Release(run, keep) => match side.leases.get(&run) {
            None => told("no lease"),
            Some((place, lease)) => {
                let worker = side.workers[*place].clone();
                told(side.processes[0].store.release(lease.clone(), worker, keep).await.is_ok())
            }
        },
        Event::Deliver(place, to, text) => {
            told(side.processes[place].store.deliver(message(&to, &text)).await.expect("answered"))
        }
        Event::Signal(place, sent) => {
            let mut answer = side.processes[place].store.signal(sent).await.expect("answered");
            if let Signalled::Delivered(runs) = &mut answer {
                runs.sort();
            }
            told(answer)
        }
        Event::Due(place, within) => told(side.processes[place].store.next_due(within).await.expect("read")),
        Event::List(place, query) => listed(side, place, query).await,
        Event::Prune(place, retention) => {
            super::trail::seal_all(&*side.processes[place].store).await;
            let pruned = side.processes[place].store.prune(retention).await.expect("pruned");
            told((pruned.runs, pruned.records, pruned.blobs))
        }
        Event::Requeue(..)
        | Event::Reap(_)
        | Event::Put(..)
        | Event::Objects(..)
        | Event::Leave(_)
        | Event::Fence(_) => happen_to_fleet(side, event).await,
        Event::Die(place) => {
            let process = reopened.expect("a process to go on with");
            side.workers.push(process.worker.clone());
            side.processes[place] = process;
            told("dead")
        }
    }
}

/// Everything that can be read, free of names that differ between stores.
async fn picture(side: &Side) -> String {
    let store = &side.processes[1].store;
    let mut out = Vec::new();
    for head in store.list(Query { limit: 10_000, ..Query::default() }).await.expect("listed").heads {
        let run = head.id.clone();
        let stored = store.load(run.clone()).await.expect("read").expect("it exists");
        let inbox: Vec<_> =
            store.inbox(run.clone()).await.expect("read").into_iter().map(|item| (item.id, item.input)).collect();
        out.push(told((
            side.plain(head),
            (stored.start, stored.snapshot, stored.records),
            inbox,
            store.waits(run.clone(), true).await.expect("read"),
            store.journal(run.clone(), 1, 5).await.expect("read"),
            store.audit(run).await.expect("read"),
        )));
    }
    let mut stats = store.stats().await.expect("counted");
    stats.runs.sort();
    let mut queue: Vec<_> = stats.queue.into_iter().map(|depth| (depth.pool, depth.priority, depth.runs)).collect();
    queue.sort();
    out.push(told((stats.runs, queue)));
    let mut findings: Vec<_> =
        store.fsck().await.expect("checked").into_iter().map(|finding| (finding.run, finding.rule)).collect();
    findings.sort();
    findings.dedup();
    for value in 0..4 {
        out.push(told(store.blob(Digest::of(&vec![value; 30_000])).await.expect("read").map(|bytes| bytes.len())));
    }
    out.push(told(findings));
    out.join("\n")
}

/// Those who can do nothing more as workers become new ones.
async fn rejoin(side: &mut Side, event: &Event) {
    let ended = side.processes.iter_mut().enumerate().filter(|(place, _)| event.ends(*place));
    for (_, process) in ended {
        process.worker = process.store.join(Registration::default()).await.expect("joined");
        side.workers.push(process.worker.clone());
    }
}

async fn side(open: impl AsyncFn() -> Process) -> Side {
    let processes = vec![open().await, open().await];
    let workers = processes.iter().map(|process| process.worker.clone()).collect();
    Side { processes, workers, leases: BTreeMap::new() }
}

pub(super) async fn behaves_like_the_store_in_memory(harness: Arc<dyn Harness>) {
    for seed in 0..SEEDS {
        let memory = MemoryStore::new();
        let open = async || {
            let store: Arc<dyn Store> = Arc::new(memory.another());
            let worker = store.join(Registration::default()).await.expect("joined");
            store.put_bundle(Digest::of(BUNDLE), BUNDLE.to_vec()).await.expect("stored");
            Process { store, worker }
        };
        let mut reference = side(open).await;
        let mut tested = side(async || Process::open(&harness).await).await;
        let mut history = Vec::new();
        let mut chance = Chance { seed, state: seed };
        for seen in 0..STEPS {
            let event = event(&mut chance, &reference, seen);
            let (one, two) = match event {
                Event::Die(_) => (Some(open().await), Some(Process::open(&harness).await)),
                _ => (None, None),
            };
            let expected = happen(&mut reference, &event, one).await;
            let found = happen(&mut tested, &event, two).await;
            for side in [&mut reference, &mut tested] {
                rejoin(side, &event).await;
            }
            assert_eq!(found, expected, "seed {seed}, event {seen}: {event:?}, after {history:#?}");
            history.push(format!("{event:?} -> {found}"));
            if seen % 10 == 9 {
                let (expected, found) = (picture(&reference).await, picture(&tested).await);
                assert_eq!(found, expected, "seed {seed}, after event {seen}: {event:?}");
            }
        }
        empty(&mut tested).await;
    }
}

/// Ends and removes everything, so that the next seed starts from nothing.
async fn empty(side: &mut Side) {
    let one = &side.processes[0];
    let page = one.store.list(Query { limit: 10_000, ..Query::default() }).await.expect("listed");
    for head in page.heads.into_iter().filter(|head| !head.status.is_final()) {
        let lease = one.store.take_over(head.id, one.worker.clone(), None).await.expect("answered").expect("taken");
        let mut last = super::setup::end(&lease, &one.worker, head.version);
        last.at = Timestamp(1);
        one.apply(last).await;
    }
    super::trail::seal_all(&*one.store).await;
    one.store.prune(Retention::default()).await.expect("pruned");
    for kind in ["k", "l"] {
        for object in one.store.objects(kind.into(), None, 9).await.expect("read") {
            let put = Put { kind: kind.into(), key: object.key, expected: object.revision, bytes: None };
            assert!(one.store.put_object(put).await.expect("removed"));
        }
    }
    let left = one.store.list(Query { limit: 1, ..Query::default() }).await.expect("listed");
    assert!(left.heads.is_empty());
}
