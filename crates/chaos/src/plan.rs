//! The plan of faults: what is done to whom and when, drawn from one seed before anything starts, so that it can be
//! printed and done again. What a fault meets is the world's affair.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use windlass_sim::history::DATABASE_RESTARTED;

use crate::proxy::Cut;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// SIGKILL; another worker takes the place at once.
    Kill,
    /// SIGSTOP, and SIGCONT some time later.
    Stop,
    /// SIGTERM; another worker takes the place when it has ended.
    Restart,
    /// A connection to the database is cut before a COMMIT reaches the server.
    CutBeforeCommit,
    /// One is cut after the server has executed a COMMIT and before the worker hears of it.
    CutAfterCommit,
    /// Nothing passes between a worker and the database for a while, then its connections are cut.
    Partition,
    /// The database is restarted.
    Database,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Kill,
        Self::Stop,
        Self::Restart,
        Self::CutBeforeCommit,
        Self::CutAfterCommit,
        Self::Partition,
        Self::Database,
    ];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::CutBeforeCommit => "cut-before-commit",
            Self::CutAfterCommit => "cut-after-commit",
            Self::Partition => "partition",
            Self::Database => "database",
        }
    }

    /// Whether it needs connections that a proxy can stand between.
    #[must_use]
    pub fn needs_proxy(self) -> bool {
        matches!(self, Self::CutBeforeCommit | Self::CutAfterCommit | Self::Partition)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no kind of fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of fault")]
pub struct UnknownKind(String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| UnknownKind(word.to_owned()))
    }
}

/// What is done, and to which worker's place, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    /// See [`Kind::Kill`].
    Kill {
        /// The place.
        place: usize,
    },
    /// See [`Kind::Stop`].
    Stop {
        /// The place.
        place: usize,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// See [`Kind::Restart`].
    Restart {
        /// The place.
        place: usize,
    },
    /// See [`Kind::CutBeforeCommit`] and [`Kind::CutAfterCommit`].
    Cut {
        /// The place.
        place: usize,
        /// Where.
        cut: Cut,
    },
    /// See [`Kind::Partition`].
    Partition {
        /// The place.
        place: usize,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// See [`Kind::Database`].
    Database,
}

impl Fault {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Kill { .. } => Kind::Kill,
            Self::Stop { .. } => Kind::Stop,
            Self::Restart { .. } => Kind::Restart,
            Self::Cut { cut: Cut::Before, .. } => Kind::CutBeforeCommit,
            Self::Cut { cut: Cut::After, .. } => Kind::CutAfterCommit,
            Self::Partition { .. } => Kind::Partition,
            Self::Database => Kind::Database,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Kill { place } | Self::Restart { place } | Self::Cut { place, .. } => {
                write!(f, "{kind} worker {}", place + 1)
            }
            Self::Stop { place, for_ms } | Self::Partition { place, for_ms } => {
                write!(f, "{kind} worker {} for {for_ms} ms", place + 1)
            }
            Self::Database => f.write_str(DATABASE_RESTARTED),
        }
    }
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Milliseconds after the beginning.
    pub at_ms: u64,
    /// What is done.
    #[serde(flatten)]
    pub fault: Fault,
}

/// What a plan is drawn from.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The seed: the same outline gives the same plan.
    pub seed: u64,
    /// How long faults are made.
    pub duration: Duration,
    /// Time from one fault to the next.
    pub every: Duration,
    /// Places of workers.
    pub workers: usize,
    /// The kinds of faults; every kind comes up as often as the others.
    pub kinds: Vec<Kind>,
    /// How long the lease of a worker lasts that gives no sign of life. Stops are drawn up to three times as long.
    pub lease: Duration,
}

/// The faults of one run of chaos, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// The faults.
    pub faults: Vec<Planned>,
}

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn draw(outline: &Outline) -> Self {
        let mut random = fastrand::Rng::with_seed(outline.seed);
        let every = millis(outline.every).max(1);
        let mut draft =
            Draft { random: &mut random, lease_ms: millis(outline.lease), stopped_until: vec![0; outline.workers] };
        let mut faults = Vec::new();
        let (mut at_ms, mut bag) = (every, Vec::new());
        while at_ms <= millis(outline.duration) && outline.workers > 0 && !outline.kinds.is_empty() {
            if bag.is_empty() {
                // Every kind once before any comes again, in an order of its own each time.
                bag.clone_from(&outline.kinds);
                draft.random.shuffle(&mut bag);
            }
            if let Some(kind) = bag.pop() {
                faults.push(Planned { at_ms, fault: draft.fault(kind, at_ms) });
            }
            at_ms += every;
        }
        Self { seed: outline.seed, faults }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Planned { at_ms, fault } in &self.faults {
            writeln!(f, "{:>8.3} s  {fault}", *at_ms as f64 / 1000.0)?;
        }
        Ok(())
    }
}

struct Draft<'a> {
    random: &'a mut fastrand::Rng,
    lease_ms: u64,
    /// Until when each place does nothing.
    stopped_until: Vec<u64>,
}

impl Draft<'_> {
    fn fault(&mut self, kind: Kind, at_ms: u64) -> Fault {
        let place = self.place(at_ms);
        match kind {
            Kind::Kill => self.killed(place),
            // With nobody else awake a stop would only pause the world.
            Kind::Stop if self.awake(at_ms).count() < 2.min(self.stopped_until.len()) => self.killed(place),
            Kind::Stop => {
                let for_ms = self.stop_ms();
                self.stopped_until[place] = at_ms + for_ms;
                Fault::Stop { place, for_ms }
            }
            Kind::Restart => Fault::Restart { place },
            Kind::CutBeforeCommit => Fault::Cut { place, cut: Cut::Before },
            Kind::CutAfterCommit => Fault::Cut { place, cut: Cut::After },
            Kind::Partition => Fault::Partition { place, for_ms: self.random.u64(50..=self.lease_ms.max(51)) },
            Kind::Database => Fault::Database,
        }
    }

    fn killed(&mut self, place: usize) -> Fault {
        self.stopped_until[place] = 0;
        Fault::Kill { place }
    }

    /// Half of the stops are shorter than a lease, half of them longer.
    fn stop_ms(&mut self) -> u64 {
        let lease = self.lease_ms.max(2);
        if self.random.bool() { self.random.u64(lease / 4..lease) } else { self.random.u64(lease * 3 / 2..=lease * 3) }
    }

    fn awake(&self, at_ms: u64) -> impl Iterator<Item = usize> {
        self.stopped_until.iter().enumerate().filter(move |(_, until)| **until <= at_ms).map(|(place, _)| place)
    }

    /// A place whose worker is awake, or any when none is.
    fn place(&mut self, at_ms: u64) -> usize {
        let awake: Vec<usize> = self.awake(at_ms).collect();
        match awake.get(self.random.usize(..awake.len().max(1))) {
            Some(place) => *place,
            None => self.random.usize(..self.stopped_until.len()),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(seed: u64) -> Outline {
        Outline {
            seed,
            duration: Duration::from_secs(120),
            every: Duration::from_secs(1),
            workers: 3,
            kinds: Kind::ALL.to_vec(),
            lease: Duration::from_secs(2),
        }
    }

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(Plan::draw(&outline(7)), Plan::draw(&outline(7)));
        assert_ne!(Plan::draw(&outline(7)), Plan::draw(&outline(8)));
    }

    #[test]
    fn every_kind_comes_up_and_each_second_has_its_fault() {
        let plan = Plan::draw(&outline(1));
        assert_eq!(plan.faults.len(), 120);
        for kind in Kind::ALL {
            let times = plan.faults.iter().filter(|planned| planned.fault.kind() == kind).count();
            assert!(times >= 10, "{kind} {times} times");
        }
    }

    #[test]
    fn somebody_is_always_awake_when_a_worker_is_stopped() {
        for seed in 0..50 {
            let mut until = [0; 3];
            for Planned { at_ms, fault } in Plan::draw(&Outline { kinds: vec![Kind::Stop], ..outline(seed) }).faults {
                match fault {
                    Fault::Stop { place, for_ms } => {
                        assert!(until[place] <= at_ms, "a stopped worker is not stopped again");
                        until[place] = at_ms + for_ms;
                    }
                    Fault::Kill { place } => until[place] = 0,
                    other => panic!("{other} was not asked for"),
                }
                assert!(until.iter().any(|until| *until <= at_ms), "seed {seed}, {at_ms} ms");
            }
        }
    }

    #[test]
    fn words_are_kinds_both_ways() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("flood".parse::<Kind>().is_err());
    }
}
