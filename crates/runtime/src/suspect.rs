//! Runs that took workers down: each is driven alone, so that what it takes down next time is nothing but itself.
//!
//! Owns the order and the patience. Who else is held, and letting them go, is the shell's part.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_core::time::Timestamp;

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// Wait, or nothing is there.
    Nothing,
    /// Drive this one; nothing else is held.
    Drive(T),
    /// Others are held for too long: let go of these, and go on with other work.
    GiveUp(Vec<T>),
}

/// The suspects that one worker holds.
#[derive(Debug)]
pub struct Suspects<T> {
    waiting: VecDeque<T>,
    patience_ms: u64,
    gives_up_at: Option<Timestamp>,
    /// Set by the task of the one that is driven, once progress of it is durable: it is no suspect from then on.
    driven: Option<Arc<AtomicBool>>,
}

impl<T> Default for Suspects<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), patience_ms: 0, gives_up_at: None, driven: None }
    }
}

impl<T> Suspects<T> {
    /// One more. Others are given so long to be let go, in milliseconds.
    pub fn push(&mut self, suspect: T, now: Timestamp, patience_ms: u64) {
        self.waiting.push_back(suspect);
        self.patience_ms = patience_ms;
        self.gives_up_at.get_or_insert(now.plus_ms(patience_ms));
    }

    /// Whether nothing else may be begun.
    #[must_use]
    pub fn are_there(&self) -> bool {
        !self.waiting.is_empty() || self.is_driven()
    }

    fn is_driven(&self) -> bool {
        self.driven.as_ref().is_some_and(|progressed| !progressed.load(Ordering::Acquire))
    }

    /// What to do, with so many other runs held.
    pub fn next(&mut self, now: Timestamp, others: usize) -> Next<T> {
        if self.waiting.is_empty() || self.is_driven() {
            return Next::Nothing;
        }
        if others == 0
            && let Some(suspect) = self.waiting.pop_front()
        {
            self.gives_up_at = None;
            self.driven = Some(Arc::default());
            return Next::Drive(suspect);
        }
        match self.gives_up_at {
            // The one before has ended or is no suspect any more: the patience for the next one begins.
            None => {
                self.gives_up_at = Some(now.plus_ms(self.patience_ms));
                Next::Nothing
            }
            Some(then) if then <= now => Next::GiveUp(self.take()),
            Some(_) => Next::Nothing,
        }
    }

    /// All that wait.
    pub fn take(&mut self) -> Vec<T> {
        self.gives_up_at = None;
        self.waiting.drain(..).collect()
    }

    /// The flag that the task of the one that is driven sets.
    #[must_use]
    pub fn progress(&self) -> Arc<AtomicBool> {
        self.driven.clone().unwrap_or_default()
    }

    /// When patience ends.
    #[must_use]
    pub fn gives_up_at(&self) -> Option<Timestamp> {
        self.gives_up_at.filter(|_| !self.waiting.is_empty() && !self.is_driven())
    }

    /// Nothing is driven any more.
    pub fn ended(&mut self) {
        self.driven = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_is_driven_when_nothing_else_is_held() {
        let mut suspects = Suspects::default();
        assert!(!suspects.are_there());
        suspects.push("a", Timestamp(0), 10);
        suspects.push("b", Timestamp(1), 10);
        assert_eq!(suspects.gives_up_at(), Some(Timestamp(10)));
        assert_eq!(suspects.next(Timestamp(1), 3), Next::Nothing);
        assert_eq!(suspects.next(Timestamp(2), 0), Next::Drive("a"));
        assert_eq!(suspects.next(Timestamp(3), 0), Next::Nothing, "one at a time");
        suspects.ended();
        assert_eq!(suspects.next(Timestamp(4), 0), Next::Drive("b"));
        assert!(suspects.are_there());
        suspects.progress().store(true, Ordering::Release);
        assert!(!suspects.are_there(), "a decision is durable: it is like any other");
    }

    #[test]
    fn patience_with_the_others_ends() {
        let mut suspects = Suspects::default();
        suspects.push("a", Timestamp(0), 10);
        assert_eq!(suspects.next(Timestamp(9), 1), Next::Nothing);
        assert_eq!(suspects.next(Timestamp(10), 1), Next::GiveUp(vec!["a"]));
        assert!(!suspects.are_there());
    }
}
