//! The check of the trail of one tenant: its segments first, in order, then its chains.
//!
//! What is held at once is bounded: when there are too many leaves, the chains are divided by the hash of their runs, and
//! everything is to be given once more for each part.

use std::collections::BTreeMap;
use std::fmt;

use windlass_core::audit::{Act, Broken, Chain, Owner, Row, VERSION};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::seal::{ACTS, Last, Leaf, Seal, Segment, Sibling, climb};
use windlass_core::time::Timestamp;

use super::{Cut, Finding, Verdict, Whose};

/// Leaves that are held at once.
const LEAVES_MAX: usize = 1_000_000;
/// Parts into which chains are divided at most.
const PARTS_MAX: u64 = 4_096;
/// How long rows may be under no seal, in milliseconds: whoever works seals within a second.
const TAIL_MS_MAX: u64 = 60_000;
/// Findings that are told.
const FINDINGS_MAX: usize = 1_000;

/// Where a chain was sealed.
#[derive(Debug)]
struct Point {
    rows: u64,
    head: Digest,
    segment: u64,
    met: bool,
}

/// A chain that is being given.
#[derive(Debug)]
struct Walk {
    run: RunId,
    life: u64,
    chain: Chain,
    /// Rows that were given.
    count: u64,
    sealed: u64,
    /// When the first one after the last seal was written.
    tail_at: Option<Timestamp>,
    owner: Option<Box<Owner>>,
}

/// Checks the trail of one tenant.
#[derive(Debug)]
pub struct Checker {
    verdict: Verdict,
    /// Only chains of this run are to be there.
    only: Option<RunId>,
    now: Timestamp,
    /// Of so many parts of the chains the one that is looked at.
    part: u64,
    parts: u64,
    /// Parts that are still to be looked at, with the number of parts that they are of.
    pending: Vec<(u64, u64)>,
    /// Everything is given for the first time.
    is_first: bool,
    leaves_max: usize,
    leaves: usize,
    /// Segments could not all be read, so that what is sealed is not known.
    has_gaps: bool,
    sealed: BTreeMap<RunId, Vec<Point>>,
    /// Of segments without their leaves.
    roots: BTreeMap<u64, Digest>,
    /// Segments that were noted elsewhere and did not come yet.
    noted: Vec<(u64, Digest)>,
    /// The longest chain of each run that was sealed.
    longest: BTreeMap<RunId, u64>,
    walk: Option<Walk>,
    /// What acts say was removed, of what is gone.
    told: Option<Cut>,
}

impl Checker {
    /// The checker of a tenant, or of one run in it, at a time of the store.
    #[must_use]
    pub fn new(tenant: Name, only: Option<RunId>, now: Timestamp) -> Self {
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
            cut: None,
            findings: Vec::new(),
        };
        Self {
            verdict,
            only,
            now,
            part: 0,
            parts: 1,
            pending: Vec::new(),
            is_first: true,
            leaves_max: LEAVES_MAX,
            leaves: 0,
            has_gaps: false,
            sealed: BTreeMap::new(),
            roots: BTreeMap::new(),
            noted: Vec::new(),
            longest: BTreeMap::new(),
            walk: None,
            told: None,
        }
    }

    /// Adds something that is wrong.
    pub fn find(&mut self, run: Option<&RunId>, row: Option<u64>, message: impl fmt::Display) {
        let findings = &mut self.verdict.findings;
        if findings.len() < FINDINGS_MAX {
            findings.push(Finding { run: run.cloned(), row, message: message.to_string() });
        } else if findings.len() == FINDINGS_MAX {
            let message = "there is more that is wrong, which is not told".to_owned();
            findings.push(Finding { run: None, row: None, message });
        }
    }

    /// Whose trail it is.
    pub(super) fn tenant(&self) -> &str {
        &self.verdict.tenant
    }

    /// Whether the chains of a run are in the part that is looked at.
    #[must_use]
    pub fn wants(&self, run: &RunId) -> bool {
        self.parts == 1 || part_of(run, self.parts) == self.part
    }

    /// Takes what was removed on purpose, before anything else: what comes begins after it.
    pub fn cut(&mut self, cut: Cut) {
        if self.is_first && self.verdict.cut.is_none() {
            self.verdict.last = cut.segments;
            self.verdict.cut = Some(cut);
            self.compare(cut.segments);
            let gone = |(number, _): &mut (u64, Digest)| *number < cut.segments.number;
            for (number, _) in self.noted.extract_if(.., gone).collect::<Vec<_>>() {
                let message =
                    format!("segment {number} was noted, and was removed by `audit prune`: it cannot be compared");
                self.find(None, None, message);
            }
        }
    }

    /// Compares with a segment that was noted elsewhere, once it comes.
    pub fn anchor(&mut self, number: u64, hash: Digest) {
        self.noted.push((number, hash));
    }

    /// Takes the next segment.
    pub fn segment(&mut self, segment: &Segment) {
        if self.is_first {
            let checked = segment.check(&self.verdict.tenant, self.verdict.last);
            if let Err(error) = &checked {
                self.find(None, None, error);
            }
            self.follow(&segment.seal);
        }
        for leaf in &segment.chains {
            self.point(leaf, segment.seal.number);
        }
    }

    /// Segments after the last one cannot be read.
    pub fn unread_segments(&mut self, error: &dyn fmt::Display) {
        self.has_gaps = true;
        if self.is_first {
            let next = self.verdict.last.number + 1;
            self.find(None, None, format!("segments from {next} on cannot be read: {error}"));
        }
    }

    /// Takes the next segment without its leaves.
    pub fn seal(&mut self, seal: &Seal) {
        if !self.is_first {
            return;
        }
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
        self.roots.insert(seal.number, seal.root);
    }

    fn follow(&mut self, seal: &Seal) {
        self.verdict.segments += 1;
        self.verdict.last = Last { number: seal.number, hash: seal.hash() };
        self.compare(self.verdict.last);
    }

    /// Compares a segment with what was noted of it elsewhere.
    fn compare(&mut self, last: Last) {
        for (number, noted) in self.noted.extract_if(.., |(number, _)| *number == last.number).collect::<Vec<_>>() {
            if noted != last.hash {
                self.find(None, None, format!("segment {number} is not the one that was noted"));
            }
        }
    }

    fn point(&mut self, leaf: &Leaf, segment: u64) {
        if self.only.as_ref().is_some_and(|only| *only != leaf.run) || !self.wants(&leaf.run) {
            return;
        }
        let point = Point { rows: leaf.rows, head: leaf.head, segment, met: false };
        self.sealed.entry(leaf.run.clone()).or_default().push(point);
        self.leaves += 1;
        if self.leaves > self.leaves_max && self.parts < PARTS_MAX {
            // Of twice as many parts two are what this one was: the other one comes later.
            self.pending.push((self.part + self.parts, self.parts * 2));
            self.parts *= 2;
            let (part, parts) = (self.part, self.parts);
            self.sealed.retain(|run, _| part_of(run, parts) == part);
            self.leaves = self.sealed.values().map(Vec::len).sum();
        }
    }

    /// Takes the proof that a leaf is in a segment.
    pub fn proof(&mut self, leaf: &Leaf, segment: u64, way: &[Sibling]) {
        if self.roots.get(&segment) == Some(&climb(leaf, way)) {
            self.point(leaf, segment);
        } else {
            self.find(Some(&leaf.run), Some(leaf.rows), format!("its proof does not lead to segment {segment}"));
        }
    }

    /// Takes the next row of a chain; a chain ends when a row of another one comes.
    pub fn row(&mut self, whose: &Whose, row: &Row) {
        if !self.wants(&whose.run) {
            return;
        }
        if self.follows(&whose.run, whose.life, row.at, (row.number, row.previous, row.hash())) {
            self.verdict.runs += 1;
        }
        self.verdict.rows += 1;
        if row.is_ambiguous() || row.v > VERSION {
            self.find(Some(&whose.run), Some(row.number), "its hash does not tell it from another row");
        }
        let Some(walk) = &mut self.walk else { return };
        if row.number == 1 {
            walk.owner.clone_from(&row.owner);
        }
        let is_first = row.number == 1 && row.v > 1;
        let differs = walk.owner.as_ref().is_some_and(|owner| {
            owner.tenant != whose.tenant
                || owner.user != whose.user
                || whose.machine.as_ref().is_some_and(|machine| *machine != owner.machine)
        });
        if is_first != row.owner.is_some() {
            self.find(Some(&whose.run), Some(row.number), "the first row of a run, and no other, says whose it is");
        }
        if differs {
            let message = "its tenant, user or machine is not the one in the first row of the run";
            self.find(Some(&whose.run), Some(row.number), message);
        }
    }

    /// Takes the next act.
    pub fn act(&mut self, act: &Act) {
        let run = RunId::stored(ACTS);
        if !self.wants(&run) {
            return;
        }
        self.follows(&run, 0, act.at, (act.number, act.previous, act.hash()));
        self.verdict.acts += 1;
        // An act of what has not gone yet says nothing of what has.
        let gone = self.verdict.cut.map(|cut| cut.segments.number);
        let said = Cut::of(act).filter(|said| gone.is_some_and(|gone| said.segments.number <= gone));
        if let Some(said) = said {
            self.told = Some(self.told.map_or(said, |told| told.and(said)));
        }
        if act.detail.as_deref() == Some("") {
            self.find(Some(&run), Some(act.number), "its hash does not tell it from another row");
        }
    }

    /// The rows of a chain cannot be read.
    pub fn unread(&mut self, run: &RunId, error: &dyn fmt::Display) {
        if self.wants(run) {
            // What was sealed of it is not there to be compared: one finding is enough.
            self.sealed.get_mut(run).into_iter().flatten().for_each(|point| point.met = true);
            self.find(Some(run), None, format!("its rows cannot be read: {error}"));
        }
    }

    /// Takes a link of a chain. True for its first one.
    fn follows(&mut self, run: &RunId, life: u64, at: Timestamp, link: (u64, Digest, Digest)) -> bool {
        let is_first = self.walk.as_ref().is_none_or(|walk| walk.run != *run || walk.life != life);
        if is_first {
            self.end();
            // What was removed of the acts is what the first of them follows.
            let is_acts = run.as_str() == ACTS;
            let chain = self.verdict.cut.filter(|_| is_acts).map_or_else(Chain::default, |cut| cut.acts);
            let count = chain.rows;
            if let Some(points) = self.sealed.get_mut(run) {
                points.sort_by_key(|point| point.rows);
            }
            self.walk = Some(Walk { run: run.clone(), life, chain, count, sealed: count, tail_at: None, owner: None });
        }
        let (number, previous, hash) = link;
        let Some(walk) = &mut self.walk else { return is_first };
        walk.count += 1;
        let mut broken = None;
        walk.chain = walk.chain.then(number, previous, hash).unwrap_or_else(|found| {
            let row = match found {
                Broken::Gap { expected, .. } => expected,
                Broken::Order(number) => number.saturating_sub(1),
            };
            broken = Some((row, found));
            Chain { rows: number, head: hash }
        });
        let mut is_sealed = false;
        if let Some(points) = self.sealed.get_mut(run) {
            let from = points.partition_point(|point| point.rows < walk.count);
            let here = points[from..].iter_mut().take_while(|point| point.rows == walk.count);
            for point in here.filter(|point| point.head == hash) {
                (point.met, is_sealed) = (true, true);
            }
        }
        if is_sealed {
            (walk.sealed, walk.tail_at) = (walk.count, None);
        } else {
            walk.tail_at.get_or_insert(at);
        }
        if let Some((row, broken)) = broken {
            self.find(Some(run), Some(row), broken);
        }
        is_first
    }

    /// The chain that was given is whole.
    fn end(&mut self) {
        let Some(walk) = self.walk.take() else { return };
        if self.sealed.contains_key(&walk.run) {
            let longest = self.longest.entry(walk.run.clone()).or_default();
            *longest = (*longest).max(walk.chain.rows);
        }
        let tail = walk.count - walk.sealed;
        if walk.run.as_str() == ACTS {
            self.verdict.acts_tail += tail;
        } else {
            self.verdict.sealed += walk.sealed;
            self.verdict.tail += tail;
        }
        let (Some(at), false) = (walk.tail_at, self.has_gaps) else { return };
        let age = self.now.0.abs_diff(at.0);
        let message = if walk.life > 0 {
            "rows that were kept of a removed run are under no seal".to_owned()
        } else if age > TAIL_MS_MAX {
            let seconds = age / 1_000;
            let when = if at < self.now { "ago" } else { "in the future" };
            format!(
                "they are under no seal, and were written {seconds} s {when}: `windlass audit seal` seals what there is"
            )
        } else {
            return;
        };
        self.find(Some(&walk.run), Some(walk.sealed + 1), message);
    }

    /// Goes on to the next part of the chains, for which everything is to be given again; false when that was the last.
    pub fn next_part(&mut self) -> bool {
        self.end();
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
        self.longest.clear();
        self.leaves = 0;
        self.is_first = false;
        match self.pending.pop() {
            Some((part, parts)) => (self.part, self.parts) = (part, parts),
            None => return false,
        }
        true
    }

    /// What was found, after the last part.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        if self.verdict.cut.is_some() && self.told != self.verdict.cut && self.only.is_none() {
            self.find(None, None, "the beginning is gone, and no act says that it was removed");
        }
        for (number, _) in std::mem::take(&mut self.noted) {
            self.find(None, None, format!("segment {number} was noted and is gone: the end was cut off"));
        }
        self.verdict
    }
}

/// In which of as many parts a run is.
fn part_of(run: &RunId, parts: u64) -> u64 {
    let digest = Digest::of(run.as_str().as_bytes());
    digest.0[..8].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)) % parts
}

#[cfg(test)]
mod tests;
