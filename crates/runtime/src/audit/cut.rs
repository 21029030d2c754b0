//! What was removed of the trail of a tenant: how far, as the act that says so.

use serde::{Deserialize, Serialize};
use windlass_core::audit::{Act, Chain};
use windlass_core::ids::Digest;
use windlass_core::seal::{Last, Leaf, root};
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
    /// The last removal of a run whose rows went too. What goes of them is named by `removed`, and nothing is let pass for
    /// the sake of this number.
    pub removals: u64,
    /// Which rows of removed runs this removed; none where an older build removed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Gone>,
}

/// Chains of removed runs that were removed together: who has a copy of them can tell that they are those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// How many.
    pub chains: u64,
    /// Root of the tree over the ends of these chains, in the order in which the runs were removed.
    pub root: Digest,
}

impl Gone {
    /// Names the chains with these ends.
    #[must_use]
    pub fn of(ends: &[Leaf]) -> Self {
        Self { chains: ends.len() as u64, root: root(ends) }
    }
}

/// What the acts of a tenant say of its trail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// What is gone.
    pub gone: Option<Cut>,
    /// What was to be removed, and is all there: somebody was stopped.
    pub begun: Option<Cut>,
}

impl Cuts {
    /// Takes the next act. `first` is the number of the first segment that is there: it all goes at once, so whether a
    /// segment is there tells whether the rest is.
    pub fn take(&mut self, act: &Act, first: Option<u64>) {
        let Some(said) = Cut::of(act) else { return };
        let place = match first {
            Some(first) if first <= said.segments.number => &mut self.begun,
            _ => &mut self.gone,
        };
        *place = Some(place.map_or(said, |known| known.and(said)));
    }
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
        Self { before_ms, segments, acts, removals, removed: other.removed.or(self.removed) }
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::ids::RunId;

    use super::*;

    #[test]
    fn an_act_says_what_was_removed_and_no_other_does() {
        let last = Last { number: 7, hash: Digest::of(b"7") };
        let acts = Chain { rows: 3, head: Digest::of(b"3") };
        let cut = Cut { before_ms: Timestamp(9), segments: last, acts, removals: 5, removed: Some(Gone::of(&[])) };
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
    #[test]
    fn what_is_there_is_not_gone_and_what_an_older_build_said_is_read() {
        let cut = |number: u64| Cut { segments: Last { number, hash: Digest::ZERO }, ..Cut::default() };
        let act = |cut: Cut| Act {
            number: 1,
            at: Timestamp(1),
            actor: "anna".into(),
            action: Cut::ACTION.into(),
            subject: "t".into(),
            detail: Some(cut.detail().into()),
            previous: Digest::ZERO,
        };
        let mut cuts = Cuts::default();
        for number in [3, 5] {
            cuts.take(&act(cut(number)), Some(4));
        }
        assert_eq!(cuts, Cuts { gone: Some(cut(3)), begun: Some(cut(5)) });
        assert!(!cut(3).detail().contains("removed\""), "as an older build wrote it: {}", cut(3).detail());
        let leaf = |rows| Leaf { run: RunId::stored("r"), rows, head: Digest::ZERO };
        assert_ne!(Gone::of(&[leaf(1)]), Gone::of(&[leaf(2)]));
    }
}
