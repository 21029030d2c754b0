//! The faults that can be switched on, and how often each one strikes under a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A process dies, at a point where it decides, commits or sends, or at any moment in between.
    Crash,
    /// Signals, messages and commits arrive twice.
    Duplicate,
    /// Hints that there is work come late, are lost until the store is looked at, or come for nothing.
    Reorder,
    /// Messages and signals take long.
    Delay,
    /// The store takes seconds to answer.
    SlowStore,
    /// The store cannot be reached; nothing was written.
    FailStore,
    /// The store does what was asked, and its answer is lost.
    AmbiguousCommit,
    /// Clocks of processes are wrong by up to an hour, and jump.
    ClockJump,
    /// A process stands still for longer than its lease lasts, and goes on.
    Zombie,
    /// Models and tools take long, some longer than they may.
    SlowCall,
    /// Models and tools fail: before, after or in the middle of what they do.
    FailCall,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Crash,
        Self::Duplicate,
        Self::Reorder,
        Self::Delay,
        Self::SlowStore,
        Self::FailStore,
        Self::AmbiguousCommit,
        Self::ClockJump,
        Self::Zombie,
        Self::SlowCall,
        Self::FailCall,
    ];

    /// The word on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Delay => "delay",
            Self::SlowStore => "slow-store",
            Self::FailStore => "fail-store",
            Self::AmbiguousCommit => "ambiguous-commit",
            Self::ClockJump => "clock-jump",
            Self::Zombie => "zombie",
            Self::SlowCall => "slow-call",
            Self::FailCall => "fail-call",
        }
    }

    /// How often it may strike where it can, when it is drawn: seldom, sometimes, often.
    fn rates(self) -> [f64; 3] {
        match self {
            Self::Crash => [0.001, 0.004, 0.015],
            Self::Duplicate | Self::Reorder | Self::Delay | Self::Zombie => [0.05, 0.2, 0.5],
            Self::SlowStore => [0.02, 0.1, 0.3],
            Self::FailStore | Self::AmbiguousCommit => [0.02, 0.08, 0.2],
            Self::ClockJump => [0.01, 0.05, 0.2],
            Self::SlowCall | Self::FailCall => [0.03, 0.1, 0.25],
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no fault")]
pub struct UnknownFault(pub String);

/// The faults that may strike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(BTreeSet<Fault>);

impl Faults {
    /// Every fault.
    #[must_use]
    pub fn all() -> Self {
        Self(Fault::ALL.into_iter().collect())
    }

    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether a fault may strike.
    #[must_use]
    pub fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }

    /// Whether none may.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Fault> for Faults {
    fn from_iter<T: IntoIterator<Item = Fault>>(faults: T) -> Self {
        Self(faults.into_iter().collect())
    }
}

impl FromStr for Faults {
    type Err = UnknownFault;

    /// Words with commas between them: those of [`Fault::as_str`], `all`, and `none`.
    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let mut faults = Self::none();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "all" => faults.0.extend(Fault::ALL),
                "none" => {}
                _ => {
                    let known = Fault::ALL.into_iter().find(|fault| fault.as_str() == word);
                    faults.0.insert(known.ok_or_else(|| UnknownFault(word.to_owned()))?);
                }
            }
        }
        Ok(faults)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0 => f.write_str("none"),
            n if n == Fault::ALL.len() => f.write_str("all"),
            _ => f.write_str(&self.0.iter().map(|fault| fault.as_str()).collect::<Vec<_>>().join(",")),
        }
    }
}

/// How often each fault strikes under one seed. Most seeds have a part of the faults only, at different rates: bugs that
/// one fault hides show under another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates(BTreeMap<Fault, f64>);

impl Rates {
    pub(crate) fn draw(faults: &Faults, rng: &mut fastrand::Rng) -> Self {
        let mut rates = BTreeMap::new();
        let share = [0.3, 0.6, 1.0][rng.usize(..3)];
        for fault in &faults.0 {
            let is_in = rng.f64() < share;
            let rate = fault.rates()[rng.usize(..3)];
            if is_in {
                rates.insert(*fault, rate);
            }
        }
        if let (true, Some(fault)) = (rates.is_empty(), rng.choice(&faults.0)) {
            rates.insert(*fault, fault.rates()[1]);
        }
        Self(rates)
    }

    /// How often a fault strikes where it can, from 0 to 1.
    pub(crate) fn of(&self, fault: Fault) -> f64 {
        self.0.get(&fault).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_by_words() {
        assert_eq!("all".parse(), Ok(Faults::all()));
        assert_eq!("crash, zombie".parse::<Faults>().expect("known").to_string(), "crash,zombie");
        assert_eq!("none".parse(), Ok(Faults::none()));
        assert_eq!("crash,tea".parse::<Faults>(), Err(UnknownFault("tea".into())));
        for fault in Fault::ALL {
            assert_eq!(fault.as_str().parse(), Ok(Faults::from_iter([fault])));
        }
    }

    #[test]
    fn something_strikes_under_every_seed() {
        let faults = Faults::all();
        for seed in 0..100 {
            let rates = Rates::draw(&faults, &mut fastrand::Rng::with_seed(seed));
            assert!(Fault::ALL.into_iter().any(|fault| rates.of(fault) > 0.0), "seed {seed}");
        }
    }
}
