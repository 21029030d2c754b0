//! What was removed of the trail of a tenant: how far, as the act that says so.

use serde::{Deserialize, Serialize};
use windlass_core::audit::{Act, Chain};
use windlass_core::seal::Last;
use windlass_core::time::Timestamp;

/// What was removed of a trail. Only the beginning of it can be: the rest says what it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Everything removed was written before.
    pub before_ms: Timestamp,
    /// Segments up to this one.
    pub segments: Last,
    /// Acts up to this one.
    pub acts: Chain,
    /// Rows of removed runs up to this removal, unless a later segment has the end of their chain.
    pub removals: u64,
}

impl Cut {
    /// The action of the act that says so.
    pub const ACTION: &'static str = "audit.prune";

    /// What an act says was removed; none when it says something else.
    #[must_use]
    pub fn of(act: &Act) -> Option<Self> {
        let is_one = *act.action == *Self::ACTION;
        act.detail.as_deref().filter(|_| is_one).and_then(|detail| serde_json::from_str(detail).ok())
    }

    /// The detail of the act that says so.
    #[must_use]
    pub fn detail(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Both together: what is removed stays removed.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let segments = if other.segments.number > self.segments.number { other.segments } else { self.segments };
        let acts = if other.acts.rows > self.acts.rows { other.acts } else { self.acts };
        let (before_ms, removals) = (self.before_ms.max(other.before_ms), self.removals.max(other.removals));
        Self { before_ms, segments, acts, removals }
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::ids::Digest;

    use super::*;

    #[test]
    fn an_act_says_what_was_removed_and_no_other_does() {
        let last = Last { number: 7, hash: Digest::of(b"7") };
        let acts = Chain { rows: 3, head: Digest::of(b"3") };
        let cut = Cut { before_ms: Timestamp(9), segments: last, acts, removals: 5 };
        let act = |action: &str| Act {
            number: 4,
            at: Timestamp(1),
            actor: "anna".into(),
            action: action.into(),
            subject: "t".into(),
            detail: Some(cut.detail().into()),
            previous: Digest::ZERO,
        };
        assert_eq!(Cut::of(&act(Cut::ACTION)), Some(cut));
        assert_eq!(Cut::of(&act("run.cancel")), None);
        assert_eq!(cut.and(Cut::default()), cut);
        assert_eq!(Cut::default().and(cut), cut);
    }
}
