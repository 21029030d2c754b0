//! What the answer to a commit means for the right to a run, and how to settle a commit whose outcome is unknown.
//!
//! Owns no lease: the shell holds those and asks here what to do next.

use windlass_ports::store::{Committed, Keep};

/// Where a worker stands after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds the run.
    Held {
        /// The inbox has something.
        inbox: bool,
        /// The read-only switches have to be looked at before a call leaves that changes something.
        switched: bool,
    },
    /// It let the run go, as decided.
    Parted,
    /// It may or may not have let go; giving the run back to the queue is right in both cases.
    Unsure,
    /// Someone else holds the run: what is in memory is void.
    Lost,
}

/// Where a worker stands after an answer.
#[must_use]
pub fn standing(answer: Committed) -> Standing {
    match answer {
        Committed::Applied { held: true, inbox, switched } => Standing::Held { inbox, switched },
        Committed::Applied { held: false, .. } => Standing::Parted,
        Committed::Stale => Standing::Lost,
    }
}

/// Where a worker stands when no answer came but the commit turned out to be durable. The answer would have said
/// whether the inbox kept the run from parking.
#[must_use]
pub fn standing_unanswered(keep: Keep) -> Standing {
    match keep {
        Keep::Hold => Standing::Held { inbox: true, switched: true },
        Keep::Park { .. } => Standing::Unsure,
        Keep::HandBack | Keep::End => Standing::Parted,
    }
}

/// What to do about a commit next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send it.
    Send,
    /// Ask whether it is durable, after so many milliseconds.
    Ask {
        /// The pause.
        after_ms: u64,
    },
    /// It is settled.
    Done(Standing),
}

/// One commit on its way. The store may not answer; then only the store knows, and it is asked until it tells.
#[derive(Clone, Debug)]
pub struct Settling {
    keep: Keep,
    uncertain: bool,
    backoff: Backoff,
}

impl Settling {
    /// A commit that is to be sent.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        Self { keep, uncertain: false, backoff: Backoff::default() }
    }

    /// It was answered.
    #[must_use]
    pub fn answered(&mut self, answer: Committed) -> Next {
        match answer {
            // A sending that was not answered may be what made this one stale.
            Committed::Stale if self.uncertain => Next::Ask { after_ms: 0 },
            Committed::Stale | Committed::Applied { .. } => Next::Done(standing(answer)),
        }
    }

    /// No answer came, to the commit or to the question.
    #[must_use]
    pub fn unanswered(&mut self) -> Next {
        self.uncertain = true;
        Next::Ask { after_ms: self.backoff.next_ms() }
    }

    /// The store told whether it is durable. `stale` says that the last sending was refused.
    #[must_use]
    pub fn told(&mut self, durable: bool, stale: bool) -> Next {
        match (durable, stale) {
            (true, _) => Next::Done(standing_unanswered(self.keep)),
            (false, true) => Next::Done(Standing::Lost),
            (false, false) => Next::Send,
        }
    }
}

/// Growing pauses between tries, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    ms: u64,
}

/// The first pause.
const BACKOFF_MS_MIN: u64 = 20;
/// The longest pause.
const BACKOFF_MS_MAX: u64 = 5_000;

impl Default for Backoff {
    fn default() -> Self {
        Self { ms: BACKOFF_MS_MIN }
    }
}

impl Backoff {
    /// The next pause; each is twice as long as the one before, up to a bound.
    pub fn next_ms(&mut self) -> u64 {
        let now = self.ms;
        self.ms = (now * 2).min(BACKOFF_MS_MAX);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_settles_a_commit() {
        let mut settling = Settling::new(Keep::Hold);
        let held = Committed::Applied { held: true, inbox: false, switched: false };
        assert_eq!(settling.answered(held), Next::Done(Standing::Held { inbox: false, switched: false }));
        assert_eq!(settling.answered(Committed::Stale), Next::Done(Standing::Lost));
    }

    #[test]
    fn without_an_answer_the_store_is_asked_and_never_guessed() {
        let mut settling = Settling::new(Keep::End);
        assert_eq!(settling.unanswered(), Next::Ask { after_ms: 20 });
        assert_eq!(settling.unanswered(), Next::Ask { after_ms: 40 });
        assert_eq!(settling.told(false, false), Next::Send);
        assert_eq!(settling.answered(Committed::Stale), Next::Ask { after_ms: 0 });
        assert_eq!(settling.told(true, true), Next::Done(Standing::Parted));
        assert_eq!(settling.told(false, true), Next::Done(Standing::Lost));
    }

    #[test]
    fn a_park_without_an_answer_leaves_doubt() {
        let mut settling = Settling::new(Keep::Park { wake_at: None });
        assert_eq!(settling.unanswered(), Next::Ask { after_ms: 20 });
        assert_eq!(settling.told(true, false), Next::Done(Standing::Unsure));
    }

    #[test]
    fn pauses_are_bounded() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..12).map(|_| backoff.next_ms()).collect();
        assert_eq!(pauses[..3], [20, 40, 80]);
        assert_eq!(pauses.last(), Some(&5_000));
    }
}
