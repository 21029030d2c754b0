//! Audit rows as they are shown and exported, and the check that they are those that were written and sealed.
//!
//! No I/O: rows and segments come from a store or from a file.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_core::audit::{Act, Broken, Chain, Row};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::seal::{ACTS, Last, Leaf, Seal, Segment, Sibling, climb};
use windlass_core::time::Timestamp;

/// Version of the lines that this build writes.
pub const FORMAT: u32 = 1;

/// Whose run a row is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// The run.
    pub run: RunId,
    /// Its tenant.
    pub tenant: Name,
    /// For whom it runs, when that is known.
    pub user: Option<Name>,
    /// Its machine, when that is known.
    pub machine: Option<Name>,
    /// 0 for a run that is there; of one that was removed, the number of its removal.
    pub life: u64,
}

/// One audit row of a call: who, what, when, with which result. Bodies are hashes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CallLine {
    /// Tenant of the run.
    pub tenant: Name,
    /// For whom it runs; absent when nobody was named, and for a run that was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Name>,
    /// Name of its machine; absent for a run that was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Name>,
    /// The run.
    pub run: Name,
    /// 0 for a run that is there; of one that was removed, the number of its removal.
    pub life: u64,
    /// Number within the run, from 1.
    pub number: u64,
    /// Number of the call within the run; joins its rows.
    pub effect: u64,
    /// Its attempt.
    pub attempt: u32,
    /// `intended`, `asked`, `approved`, `rejected`, `expired`, `settled`, `failed`, `lost`, `abandoned`.
    pub stage: Name,
    /// `model`, `tool`, `hook`, `action`, `verify`.
    pub kind: Name,
    /// Agent, tool, hook or action.
    pub target: Name,
    /// `read`, `write`, `danger`.
    pub class: Name,
    /// Hash of the arguments.
    #[schemars(with = "String")]
    pub arguments: Digest,
    /// Hash of the result, code of the failure, or rule that asked; absent before there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Name>,
    /// Who answered an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Name>,
    /// The idempotency key that the call is sent with.
    pub idempotency_key: Name,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// Hash of the row before; all zeroes before the first.
    #[schemars(with = "String")]
    pub previous: Digest,
    /// Hash of this row.
    #[schemars(with = "String")]
    pub hash: Digest,
}

/// Stages whose result is who answered.
const ANSWERED: [&str; 2] = ["approved", "rejected"];

impl CallLine {
    /// The line of a row.
    #[must_use]
    pub fn of(whose: &Whose, row: &Row) -> Self {
        let answered = ANSWERED.contains(&&*row.stage);
        let result = row.result.clone();
        Self {
            tenant: whose.tenant.clone(),
            user: whose.user.clone(),
            machine: whose.machine.clone(),
            run: whose.run.as_str().into(),
            life: whose.life,
            number: row.number,
            effect: row.effect.0,
            attempt: row.attempt,
            stage: row.stage.clone(),
            kind: row.kind.clone(),
            target: row.target.clone(),
            class: row.class.clone(),
            arguments: row.arguments,
            actor: result.clone().filter(|_| answered),
            result: result.filter(|_| !answered),
            idempotency_key: row.effect.key(&whose.run).into(),
            at_ms: row.at.0,
            previous: row.previous,
            hash: row.hash(),
        }
    }

    /// The row of the line.
    #[must_use]
    pub fn row(&self) -> Row {
        Row {
            number: self.number,
            effect: EffectId(self.effect),
            attempt: self.attempt,
            stage: self.stage.clone(),
            kind: self.kind.clone(),
            target: self.target.clone(),
            class: self.class.clone(),
            arguments: self.arguments,
            result: self.actor.clone().or_else(|| self.result.clone()),
            at: Timestamp(self.at_ms),
            previous: self.previous,
        }
    }
}

/// One thing that a person or a process did beside runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActLine {
    /// The tenant.
    pub tenant: Name,
    /// Number within the tenant, from 1.
    pub number: u64,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// Who.
    pub actor: Name,
    /// What, as `noun.verb`.
    pub action: Name,
    /// To what.
    pub subject: Name,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Name>,
    /// Hash of the row before; all zeroes before the first.
    #[schemars(with = "String")]
    pub previous: Digest,
    /// Hash of this row.
    #[schemars(with = "String")]
    pub hash: Digest,
}

impl ActLine {
    /// The line of an act.
    #[must_use]
    pub fn of(tenant: &Name, act: &Act) -> Self {
        Self {
            tenant: tenant.clone(),
            number: act.number,
            at_ms: act.at.0,
            actor: act.actor.clone(),
            action: act.action.clone(),
            subject: act.subject.clone(),
            detail: act.detail.clone(),
            previous: act.previous,
            hash: act.hash(),
        }
    }

    /// The act of the line.
    #[must_use]
    pub fn act(&self) -> Act {
        Act {
            number: self.number,
            at: Timestamp(self.at_ms),
            actor: self.actor.clone(),
            action: self.action.clone(),
            subject: self.subject.clone(),
            detail: self.detail.clone(),
            previous: self.previous,
        }
    }
}

/// A line of a list or an export that is a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RowLine {
    /// Of a call.
    Call(Box<CallLine>),
    /// Of something done beside runs.
    Act(ActLine),
}

/// The JSON Schema of rows.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(RowLine).to_value()
}

/// A line of an export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// The first one.
    Export {
        /// Version of the lines.
        v: u32,
        /// The tenant.
        tenant: Name,
        /// Only this run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
        /// When it was made, in milliseconds since 1970-01-01 UTC.
        at_ms: u64,
    },
    /// A segment with its leaves: of an export of a tenant.
    Segment(Segment),
    /// A segment without its leaves: of an export of one run.
    Seal(Seal),
    /// That the end of a chain is a leaf of a segment.
    Proof {
        /// The leaf.
        leaf: Leaf,
        /// The segment.
        segment: u64,
        /// From the leaf to the root.
        way: Vec<Sibling>,
    },
    /// A row of a call.
    Call(Box<CallLine>),
    /// An act.
    Act(ActLine),
    /// The last one.
    End {
        /// Lines before it.
        lines: u64,
        /// BLAKE3 hash of the bytes before it.
        digest: Digest,
        /// The last segment.
        last: Last,
    },
    /// After the last one: who says so.
    Signature {
        /// `ed25519`.
        algorithm: Name,
        /// The public key, in hexadecimal digits.
        public_key: Name,
        /// Over the bytes of the last line, without its line feed, in hexadecimal digits.
        signature: Name,
    },
}

/// Something wrong with an audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The run, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The first row that is not right, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// What is wrong.
    pub message: String,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The tenant.
    pub tenant: Name,
    /// Its segments.
    pub segments: u64,
    /// The last one: kept elsewhere, it shows later that none was cut off.
    pub last: Last,
    /// Runs with audit rows, removed ones included.
    pub runs: u64,
    /// Their rows.
    pub rows: u64,
    /// Rows up to the last seal of their run.
    pub sealed: u64,
    /// Rows after it: chained, and not sealed.
    pub tail: u64,
    /// Acts.
    pub acts: u64,
    /// Acts after the last seal.
    pub acts_tail: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Where a chain was sealed.
#[derive(Debug)]
struct Point {
    rows: u64,
    head: Digest,
    segment: u64,
    met: bool,
}

/// Checks the trail of one tenant: first its segments, in order, then its chains.
#[derive(Debug)]
pub struct Checker {
    verdict: Verdict,
    /// Only chains of this run are to be there.
    only: Option<RunId>,
    sealed: BTreeMap<RunId, Vec<Point>>,
    roots: BTreeMap<u64, Digest>,
    hashes: BTreeMap<u64, Digest>,
    /// The longest chain of each run.
    longest: BTreeMap<RunId, u64>,
}

impl Checker {
    /// The checker of a tenant, or of one run in it.
    #[must_use]
    pub fn new(tenant: Name, only: Option<RunId>) -> Self {
        let verdict = Verdict {
            tenant,
            segments: 0,
            last: Last::default(),
            runs: 0,
            rows: 0,
            sealed: 0,
            tail: 0,
            acts: 0,
            acts_tail: 0,
            findings: Vec::new(),
        };
        Self {
            verdict,
            only,
            sealed: BTreeMap::new(),
            roots: BTreeMap::new(),
            hashes: BTreeMap::new(),
            longest: BTreeMap::new(),
        }
    }

    fn find(&mut self, run: Option<&RunId>, row: Option<u64>, message: impl fmt::Display) {
        self.verdict.findings.push(Finding { run: run.cloned(), row, message: message.to_string() });
    }

    /// Takes the next segment.
    pub fn segment(&mut self, segment: &Segment) {
        let checked = segment.check(&self.verdict.tenant, self.verdict.last);
        if let Err(error) = &checked {
            self.find(None, None, error);
        }
        self.follow(&segment.seal);
        for leaf in &segment.chains {
            self.point(leaf, segment.seal.number);
        }
    }

    /// Takes the next segment without its leaves.
    pub fn seal(&mut self, seal: &Seal) {
        let last = self.verdict.last;
        if seal.tenant != self.verdict.tenant {
            self.find(None, None, format!("segment {} is of another tenant", seal.number));
        }
        if seal.number != last.number + 1 {
            let missing = last.number + 1;
            self.find(None, None, format!("segment {missing} is missing, segment {} comes next", seal.number));
        } else if seal.previous != last.hash {
            self.find(None, None, format!("segment {} does not follow the one before it", seal.number));
        }
        self.follow(seal);
    }

    fn follow(&mut self, seal: &Seal) {
        self.verdict.segments += 1;
        self.verdict.last = Last { number: seal.number, hash: seal.hash() };
        self.roots.insert(seal.number, seal.root);
        self.hashes.insert(seal.number, seal.hash());
    }

    fn point(&mut self, leaf: &Leaf, segment: u64) {
        if self.only.as_ref().is_some_and(|only| *only != leaf.run) {
            return;
        }
        let point = Point { rows: leaf.rows, head: leaf.head, segment, met: false };
        self.sealed.entry(leaf.run.clone()).or_default().push(point);
    }

    /// Takes the proof that a leaf is in a segment.
    pub fn proof(&mut self, leaf: &Leaf, segment: u64, way: &[Sibling]) {
        if self.roots.get(&segment) == Some(&climb(leaf, way)) {
            self.point(leaf, segment);
        } else {
            self.find(Some(&leaf.run), Some(leaf.rows), format!("its proof does not lead to segment {segment}"));
        }
    }

    /// Compares with a segment that was noted elsewhere.
    pub fn anchor(&mut self, number: u64, hash: Digest) {
        match self.hashes.get(&number) {
            Some(found) if *found == hash => {}
            Some(_) => self.find(None, None, format!("segment {number} is not the one that was noted")),
            None => self.find(None, None, format!("segment {number} was noted and is gone: the end was cut off")),
        }
    }

    /// Takes a whole chain of a run: one for each life that it had.
    pub fn rows(&mut self, run: &RunId, rows: &[Row]) {
        if rows.is_empty() {
            return;
        }
        self.verdict.runs += 1;
        self.verdict.rows += rows.len() as u64;
        let links = rows.iter().map(|row| (row.number, row.previous, row.hash()));
        let sealed = self.chain(run, links);
        self.verdict.sealed += sealed;
        self.verdict.tail += rows.len() as u64 - sealed;
    }

    /// Takes all acts.
    pub fn acts(&mut self, acts: &[Act]) {
        self.verdict.acts = acts.len() as u64;
        let links = acts.iter().map(|act| (act.number, act.previous, act.hash()));
        let sealed = self.chain(&RunId::stored(ACTS), links);
        self.verdict.acts_tail = acts.len() as u64 - sealed;
    }

    /// How many of these are sealed.
    fn chain(&mut self, run: &RunId, links: impl Iterator<Item = (u64, Digest, Digest)>) -> u64 {
        let (mut chain, mut hashes) = (Chain::default(), Vec::new());
        for (number, previous, hash) in links {
            hashes.push(hash);
            match chain.then(number, previous, hash) {
                Ok(next) => chain = next,
                Err(broken) => {
                    let row = match broken {
                        Broken::Gap { expected, .. } => expected,
                        Broken::Order(number) => number.saturating_sub(1),
                    };
                    self.find(Some(run), Some(row), &broken);
                    chain = Chain { rows: number, head: hash };
                }
            }
        }
        let longest = self.longest.entry(run.clone()).or_default();
        *longest = (*longest).max(chain.rows);
        let mut sealed = 0;
        for point in self.sealed.get_mut(run).into_iter().flatten() {
            let place = usize::try_from(point.rows).unwrap_or(usize::MAX).wrapping_sub(1);
            if hashes.get(place) == Some(&point.head) {
                point.met = true;
                sealed = sealed.max(point.rows);
            }
        }
        sealed
    }

    /// What was found.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        for (run, points) in std::mem::take(&mut self.sealed) {
            let Some(first) = points.iter().filter(|point| !point.met).min_by_key(|point| point.rows) else { continue };
            let there = self.longest.get(&run).copied().unwrap_or_default();
            let (rows, segment) = (first.rows, first.segment);
            let message = if there < rows {
                format!("rows up to {rows} were sealed in segment {segment}, and only {there} are there")
            } else {
                format!("rows up to {rows} were sealed in segment {segment}, and are not what was sealed")
            };
            let known = points.iter().filter(|point| point.met).map(|point| point.rows).max().unwrap_or_default();
            let row = if there < rows { there + 1 } else { known + 1 };
            self.find(Some(&run), Some(row), message);
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: u64) -> Vec<Row> {
        let (mut rows, mut previous) = (Vec::new(), Digest::ZERO);
        for number in 1..=count {
            let row = Row {
                number,
                effect: EffectId(number.div_ceil(2)),
                attempt: 1,
                stage: if number % 2 == 1 { "intended" } else { "approved" }.into(),
                kind: "tool".into(),
                target: "pay".into(),
                class: "danger".into(),
                arguments: Digest::of(b"{}"),
                result: (number % 2 == 0).then(|| "anna".into()),
                at: Timestamp(number),
                previous,
            };
            previous = row.hash();
            rows.push(row);
        }
        rows
    }

    fn run() -> RunId {
        RunId::stored("r")
    }

    /// Sealed after `sealed` rows.
    fn checked(sealed: &[Row], found: &[Row]) -> Verdict {
        let mut checker = Checker::new("t".into(), None);
        let mut last = Last::default();
        for end in [2, sealed.len()] {
            let leaf = Leaf { run: run(), rows: end as u64, head: sealed[end - 1].hash() };
            let segment = Segment::after(last, "t".into(), Timestamp(1), vec![leaf]);
            last = Last { number: segment.seal.number, hash: segment.seal.hash() };
            checker.segment(&segment);
        }
        checker.anchor(2, last.hash);
        checker.rows(&run(), found);
        checker.finish()
    }

    #[test]
    fn lines_are_rows() {
        let whose = Whose { run: run(), tenant: "t".into(), user: None, machine: None, life: 0 };
        for row in rows(4) {
            let line = CallLine::of(&whose, &row);
            assert_eq!(line.row(), row);
            let text = serde_json::to_string(&Line::Call(Box::new(line.clone()))).expect("JSON");
            assert_eq!(serde_json::from_str::<Line>(&text).expect("JSON"), Line::Call(Box::new(line)));
        }
    }

    #[test]
    fn what_was_sealed_is_told_from_the_tail() {
        let all = rows(7);
        let verdict = checked(&all[..5], &all);
        assert_eq!((verdict.sealed, verdict.tail, verdict.segments), (5, 2, 2));
        assert_eq!(verdict.findings, []);
    }

    #[test]
    fn an_edit_a_delete_a_reorder_and_a_cut_are_found() {
        let all = rows(6);
        let mut edited = all.clone();
        edited[2].target = "other".into();
        assert_eq!(checked(&all, &edited).findings[0].row, Some(3));
        let mut deleted = all.clone();
        deleted.remove(2);
        assert_eq!(checked(&all, &deleted).findings[0].row, Some(3));
        let mut moved = all.clone();
        moved.swap(2, 3);
        assert_eq!(checked(&all, &moved).findings[0].row, Some(3));
        let cut = checked(&all, &all[..4]);
        assert_eq!(cut.findings[0].row, Some(5));
        assert!(cut.findings[0].message.contains("only 4 are there"), "{:?}", cut.findings);
        assert_eq!(checked(&all, &[]).findings[0].row, Some(1));
        // All hashes made anew: the seals do not fit.
        let mut forged = all.clone();
        forged[3].target = "other".into();
        for place in 4..6 {
            forged[place].previous = forged[place - 1].hash();
        }
        let verdict = checked(&all, &forged);
        assert_eq!(verdict.findings.len(), 1);
        assert_eq!(verdict.findings[0].row, Some(3), "the first row after what is known to be right");
    }

    #[test]
    fn a_cut_tail_of_segments_is_found_by_what_was_noted() {
        let all = rows(2);
        let mut checker = Checker::new("t".into(), None);
        checker.rows(&run(), &all);
        checker.anchor(4, Digest::ZERO);
        assert!(checker.finish().findings[0].message.contains("cut off"));
    }
}
