//! What all processes of a store know together of the quotas of providers, as a port.

use std::fmt;

use crate::BoxFuture;

/// What is known of the quota of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Milliseconds for which nothing is to be sent.
    pub ms: u64,
    /// Whether one call goes alone after that, to see whether the quota is back.
    pub alone: bool,
}

/// What a process has learnt of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A call was refused for its rate.
    Refused {
        /// How long ago that call left, in milliseconds. One that left before the last refusal says nothing new.
        left_ago_ms: u64,
        /// How long the provider wants to be left alone, when it says so, in milliseconds.
        asked_ms: Option<u64>,
    },
    /// An answer said that nothing more is left for so many milliseconds.
    Empty(u64),
    /// The call that went alone was answered: the quota is back.
    Back,
    /// The call that went alone ended and says nothing about the quota.
    Unsure,
}

/// The quotas of models, each under a name that says which model where, and with which key.
pub trait Quotas: Send + Sync + fmt::Debug {
    /// What is known, from memory.
    fn known(&self, target: &str) -> Rest;

    /// The same, after a look at what other processes have learnt when the last one was too long ago. Never fails: what
    /// cannot be looked up is as it was.
    fn look<'a>(&'a self, target: &'a str) -> BoxFuture<'a, Rest>;

    /// Whether this process may send the one call that goes alone, for so many milliseconds; otherwise, in how many to ask
    /// again.
    fn probe<'a>(&'a self, target: &'a str, for_ms: u64) -> BoxFuture<'a, Result<(), u64>>;

    /// Takes note, for this process at once and for others soon.
    fn tell(&self, target: &str, news: News);
}
