//! What a store keeps beside a run's journal and the journal alone decides: its row, its waits, its audit rows, its
//! snapshot. Says where these differ from what folding the journal gives.
//!
//! Not looked at: what the queue, leases and people change without a decision (owner, epoch, place, losses, pool, tags).

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use windlass_core::ids::RunId;
use windlass_core::journal::{Entry, Record};
use windlass_core::run::{Hold, Run, Stage, Start, Status};
use windlass_core::time::Timestamp;
use windlass_core::{apply, audit, snapshot};
use windlass_ports::store::{Head, WaitRow};

/// How far ahead a worker that cannot drive a run puts its next look, in milliseconds, at most: until then the time in
/// the row is that worker's and not the journal's.
const LEFT_MS_MAX: u64 = 600_000;

/// Something that is stored and that the journal says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What differs: the name of a column, or of what lies beside the row.
    pub what: String,
    /// What the journal gives.
    pub expected: String,
    /// What is stored.
    pub actual: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, expected, actual } = self;
        write!(f, "{what} is {actual}, and the journal says {expected}")
    }
}

impl Difference {
    fn of(what: impl Into<String>, expected: impl Into<String>, actual: impl Into<String>) -> Self {
        Self { what: what.into(), expected: expected.into(), actual: actual.into() }
    }
}

fn word(value: impl fmt::Display) -> String {
    format!("`{value}`")
}

fn maybe<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "none".to_owned(), show)
}

/// A run that is folded, record by record.
#[derive(Debug)]
pub struct Folding {
    /// The run as far as it was folded.
    pub run: Run,
    /// The runs that it started.
    pub children: BTreeSet<RunId>,
    rows: u64,
}

impl Folding {
    /// Before the first record.
    #[must_use]
    pub fn new(start: Start) -> Self {
        Self { run: Run::blank(start), children: BTreeSet::new(), rows: 0 }
    }

    /// Takes the next record. `audit` gives the stored audit row of a place, counted from 0.
    pub fn record(&mut self, record: &Record, audit: &[audit::Row]) -> Option<Difference> {
        let mut first = None;
        for entry in &record.entries {
            if let Entry::ChildStarted { child, .. } = entry {
                self.children.insert(child.id.clone());
            }
            if let Some(row) = apply(&mut self.run, entry) {
                let place = usize::try_from(self.rows).unwrap_or(usize::MAX);
                self.rows += 1;
                first = first.or_else(|| audit_difference(&row, audit.get(place)));
            }
        }
        first
    }

    /// Audit rows so far.
    #[must_use]
    pub fn audit_rows(&self) -> u64 {
        self.rows
    }

    /// Compares a stored snapshot, when this is the version that it is of.
    #[must_use]
    pub fn snapshot(&self, version: u64, stored: &[u8]) -> Option<Difference> {
        if self.run.version != version {
            return None;
        }
        let folded = snapshot::encode(&self.run);
        (folded != stored).then(|| {
            let place = folded.iter().zip(stored).position(|(a, b)| a != b).unwrap_or(folded.len().min(stored.len()));
            let shown = |bytes: &[u8]| {
                let part = bytes.get(place..).unwrap_or_default();
                word(String::from_utf8_lossy(&part[..part.len().min(40)]))
            };
            let what = format!("the snapshot of version {version} from byte {place}");
            Difference::of(what, shown(&folded), shown(stored))
        })
    }
}

/// What differs of one audit row.
fn audit_difference(folded: &audit::Row, stored: Option<&audit::Row>) -> Option<Difference> {
    let Some(stored) = stored else {
        return Some(Difference::of(format!("audit row {}", folded.number), shown_row(folded), "missing"));
    };
    (stored != folded)
        .then(|| Difference::of(format!("audit row {}", folded.number), shown_row(folded), shown_row(stored)))
}

fn shown_row(row: &audit::Row) -> String {
    let result = row.result.as_deref().map(|result| format!(", result {result}")).unwrap_or_default();
    let (arguments, previous) = (row.arguments.short(), row.previous.short());
    format!(
        "`{} {} {} {} of effect {}, attempt {}, at {}, arguments {arguments}, after {previous}{result}`",
        row.number, row.stage, row.kind, row.target, row.effect, row.attempt, row.at.0
    )
}

/// Where the row of a run, its waits and its start differ from the run that was folded up to the row's version. `now` is
/// the present.
#[must_use]
pub fn differences(run: &Run, head: &Head, waits: &[WaitRow], now: Timestamp) -> Vec<Difference> {
    let mut found = Vec::new();
    row(run, head, &mut found);
    time(run, head, now, &mut found);
    waiting(run, waits, &mut found);
    found
}

fn row(run: &Run, head: &Head, found: &mut Vec<Difference>) {
    let start = &run.start;
    let parent = start.parent.as_ref().map(|parent| &parent.run);
    let used = run.used();
    let updated = if run.version == 0 { head.created_at } else { run.now };
    let number = |value: u64| value.to_string();
    let pairs = [
        ("`version`", number(run.version), number(head.version)),
        ("`state`", maybe(run.state.as_deref(), word), maybe(head.state.as_deref(), word)),
        ("`step`", number(run.step), number(head.step)),
        ("`tokens`", number(used.tokens), number(head.tokens)),
        ("`cost_micros`", number(used.cost_micros), number(head.cost_micros)),
        ("`updated_at`", number(updated.0), number(head.updated_at.0)),
        ("`bundle`", word(start.bundle), word(head.bundle)),
        ("`id`", word(&start.id), word(&head.id)),
        ("`machine`", word(&start.machine_name), word(&head.machine)),
        ("`parent`", maybe(parent, word), maybe(head.parent.as_ref(), word)),
        ("`root`", word(&start.root), word(&head.root)),
        ("`depth`", start.depth.to_string(), head.depth.to_string()),
        ("`tenant`", word(&start.scope.tenant), word(&head.tenant)),
        ("`input`", word(start.input.digest()), word(head.input)),
    ];
    let expected = run.status();
    // In the queue and in quarantine the row shows another word than the decided one.
    let is_shown = !matches!(head.status, Status::Queued | Status::Quarantined);
    if is_shown && head.status != expected && Some(head.status) != held(run) {
        found.push(Difference::of("`status`", word(expected.as_str()), word(head.status.as_str())));
    }
    let differs = pairs.into_iter().filter(|(_, expected, actual)| expected != actual);
    found.extend(differs.map(|(what, expected, actual)| Difference::of(what, expected, actual)));
}

/// The word of a run that was parked on hold, although calls that were never sent may be open.
fn held(run: &Run) -> Option<Status> {
    match run.hold.as_ref().filter(|_| run.stage != Stage::Ended)? {
        Hold::Paused { .. } | Hold::ReadOnly { .. } => Some(Status::Paused),
        Hold::Attention { .. } => Some(Status::Attention),
    }
}

/// The time at which a parked run is looked at again.
fn time(run: &Run, head: &Head, now: Timestamp, found: &mut Vec<Difference>) {
    let is_elsewhere = matches!(head.status, Status::Queued | Status::Quarantined) || head.status.is_final();
    if is_elsewhere || head.owner.is_some() || head.version == 0 {
        return;
    }
    let expected = if run.stage == Stage::Ended { None } else { run.wake_at() };
    // A worker that cannot drive a run leaves it with a time of its own, soon.
    let is_left = head.wake_at.is_some_and(|at| at <= now.plus_ms(LEFT_MS_MAX));
    if head.wake_at != expected && !is_left {
        let shown = |at: Option<Timestamp>| maybe(at, |at| at.0.to_string());
        found.push(Difference::of("`wake_at`", shown(expected), shown(head.wake_at)));
    }
}

fn waiting(run: &Run, waits: &[WaitRow], found: &mut Vec<Difference>) {
    let shown = |row: &WaitRow| {
        let kind = serde_json::to_string(&row.kind).unwrap_or_default();
        format!("channel `{}`, kind {kind}, due {}", row.channel, maybe(row.due, |due| due.0.to_string()))
    };
    let is_over = run.stage == Stage::Ended;
    let open: Vec<WaitRow> = run
        .waits
        .iter()
        .filter(|_| !is_over)
        .map(|(effect, wait)| WaitRow {
            effect: *effect,
            channel: wait.channel.clone(),
            kind: wait.kind.clone(),
            due: wait.due,
        })
        .collect();
    let effects: BTreeSet<_> = open.iter().chain(waits).map(|row| row.effect).collect();
    for effect in effects {
        let of = |rows: &[WaitRow]| rows.iter().find(|row| row.effect == effect).cloned();
        let (expected, actual) = (of(&open), of(waits));
        if expected != actual {
            let show = |row: Option<WaitRow>| row.map_or_else(|| "missing".to_owned(), |row| shown(&row));
            found.push(Difference::of(format!("wait {effect}"), show(expected), show(actual)));
        }
    }
}

/// Whether the runs that a run started are there, and no others. `there` are those that the store has below it.
#[must_use]
pub fn children(started: &BTreeSet<RunId>, there: &BTreeSet<RunId>) -> Vec<Difference> {
    let missing =
        started.difference(there).map(|id| Difference::of(format!("child `{id}`"), "that it was started", "missing"));
    let more = there.difference(started).map(|id| Difference::of(format!("child `{id}`"), "nothing of it", "there"));
    missing.chain(more).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use windlass_core::effect::{OpenTimer, OpenWait, TimerPurpose, WaitKind};
    use windlass_core::ids::{Digest, EffectId};
    use windlass_ports::store::{Priority, WorkerId};

    use super::*;
    use crate::recover::tests::run;

    fn head(run: &Run) -> Head {
        Head {
            id: run.id().clone(),
            status: run.status(),
            machine: run.start.machine_name.clone(),
            state: run.state.clone(),
            step: run.step,
            version: run.version,
            epoch: 1,
            owner: None,
            parent: None,
            root: run.start.root.clone(),
            depth: 0,
            tenant: run.start.scope.tenant.clone(),
            bundle: run.start.bundle,
            input: run.start.input.digest(),
            wake_at: run.wake_at(),
            pool: "default".into(),
            priority: Priority::Normal,
            tags: BTreeMap::new(),
            strikes: 0,
            quarantine: None,
            helped: 0,
            tokens: 0,
            cost_micros: 0,
            created_at: Timestamp(1),
            updated_at: run.now,
        }
    }

    fn parked() -> (Run, Vec<WaitRow>) {
        let mut run = run();
        run.version = 3;
        let wait = OpenWait::new("c".into(), WaitKind::Signal, Some(Timestamp(1 << 40)));
        run.waits.insert(EffectId(1), wait);
        let timer = OpenTimer { due: Timestamp(1 << 40), purpose: TimerPurpose::StateTimeout };
        run.timers.insert(EffectId(2), timer);
        let row =
            WaitRow { effect: EffectId(1), channel: "c".into(), kind: WaitKind::Signal, due: Some(Timestamp(1 << 40)) };
        (run, vec![row])
    }

    /// Something done to a row.
    type Damage = fn(&mut Head);

    #[test]
    fn every_column_that_is_derived_is_compared() {
        let (run, waits) = parked();
        let now = Timestamp(5);
        assert_eq!(differences(&run, &head(&run), &waits, now), []);
        let damages: [(&str, Damage); 15] = [
            ("`version`", |head| head.version = 9),
            ("`status`", |head| head.status = Status::Running),
            ("`state`", |head| head.state = Some("x".into())),
            ("`step`", |head| head.step = 77),
            ("`tokens`", |head| head.tokens = 1),
            ("`cost_micros`", |head| head.cost_micros = 1),
            ("`updated_at`", |head| head.updated_at = Timestamp(77)),
            ("`bundle`", |head| head.bundle = Digest::of(b"x")),
            ("`machine`", |head| head.machine = "x".into()),
            ("`parent`", |head| head.parent = Some(RunId::stored("x"))),
            ("`root`", |head| head.root = RunId::stored("x")),
            ("`depth`", |head| head.depth = 3),
            ("`tenant`", |head| head.tenant = "x".into()),
            ("`input`", |head| head.input = Digest::of(b"x")),
            ("`wake_at`", |head| head.wake_at = None),
        ];
        for (what, damage) in damages {
            let mut head = head(&run);
            damage(&mut head);
            let found = differences(&run, &head, &waits, now);
            assert_eq!(found.iter().map(|found| found.what.as_str()).collect::<Vec<_>>(), [what]);
        }
    }

    #[test]
    fn the_time_of_a_worker_that_left_it_is_no_difference_and_a_late_one_is() {
        let (run, waits) = parked();
        let (mut soon, mut late) = (head(&run), head(&run));
        soon.wake_at = Some(Timestamp(1_000));
        late.wake_at = Some(Timestamp(1 << 41));
        assert_eq!(differences(&run, &soon, &waits, Timestamp(5)), []);
        assert_eq!(differences(&run, &late, &waits, Timestamp(5))[0].actual, (1_u64 << 41).to_string());
        late.owner = Some(WorkerId("w".into()));
        assert_eq!(differences(&run, &late, &waits, Timestamp(5)), [], "who holds it knows better");
    }

    #[test]
    fn waits_are_compared_one_by_one() {
        let (run, waits) = parked();
        let head = head(&run);
        let told = |waits: &[WaitRow]| -> Vec<String> {
            differences(&run, &head, waits, Timestamp(5)).iter().map(ToString::to_string).collect()
        };
        assert!(told(&[])[0].starts_with("wait #1 is missing, and the journal says channel `c`"));
        let mut other = waits.clone();
        other[0].channel = "d".into();
        assert!(told(&other)[0].starts_with("wait #1 is channel `d`"));
        other[0] = waits[0].clone();
        other.push(WaitRow { effect: EffectId(9), ..waits[0].clone() });
        assert!(told(&other)[0].ends_with("and the journal says missing"));
    }

    #[test]
    fn a_held_run_may_read_as_held_while_calls_are_open() {
        let (mut run, _) = parked();
        run.waits.clear();
        run.timers.clear();
        run.hold = Some(Hold::Paused { reason: "x".into(), since: None });
        let call = windlass_core::effect::Call::Action { action: "a".into() };
        let (class, idempotency) = (windlass_core::contract::Class::Read, windlass_core::contract::Idempotency::None);
        run.calls.insert(EffectId(3), crate::recover::tests::call(call, class, idempotency));
        for status in [Status::Running, Status::Paused] {
            let head = Head { status, ..head(&run) };
            assert_eq!(differences(&run, &head, &[], Timestamp(5)), []);
        }
        let head = Head { status: Status::Attention, ..head(&run) };
        assert_eq!(differences(&run, &head, &[], Timestamp(5)).len(), 1);
    }

    #[test]
    fn children_are_those_that_were_started() {
        let set = |names: &[&str]| names.iter().map(|name| RunId::stored(name)).collect::<BTreeSet<_>>();
        assert_eq!(children(&set(&["a"]), &set(&["a"])), []);
        let found = children(&set(&["a", "b"]), &set(&["b", "c"]));
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].to_string(), "child `a` is missing, and the journal says that it was started");
    }
}
