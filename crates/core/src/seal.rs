//! Seals over audit rows: the ends of chains as the leaves of a Merkle tree, one segment after another for each tenant.
//!
//! Hashing and comparing only. Who seals when, and where segments are kept, is not known here.

use serde::{Deserialize, Serialize};

use crate::audit::Chain;
use crate::ids::{Digest, Name, RunId};
use crate::time::Timestamp;

/// Chains in one segment at most.
pub const LEAVES_MAX: usize = 4_096;

/// The chain of what people did in a tenant beside its runs; no run has such an id.
pub const ACTS: &str = "@acts";

/// The end of a chain when it was sealed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Leaf {
    /// The run whose chain it is, or [`ACTS`].
    pub run: RunId,
    /// Rows so far.
    pub rows: u64,
    /// Hash of the last one.
    pub head: Digest,
}

impl Leaf {
    /// The leaf of a chain.
    #[must_use]
    pub fn of(run: RunId, chain: Chain) -> Self {
        Self { run, rows: chain.rows, head: chain.head }
    }

    /// Its hash in the tree. Leaves and nodes begin with another byte, so that neither can stand for the other.
    #[must_use]
    pub fn hash(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[0]);
        hasher.update(&self.rows.to_le_bytes());
        hasher.update(&self.head.0);
        hasher.update(self.run.as_str().as_bytes());
        Digest(*hasher.finalize().as_bytes())
    }
}

fn node(left: Digest, right: Digest) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[1]);
    hasher.update(&left.0);
    hasher.update(&right.0);
    Digest(*hasher.finalize().as_bytes())
}

/// The level above: pairs are joined, one without a partner goes up as it is.
fn above(level: &[Digest]) -> Vec<Digest> {
    level.chunks(2).map(|pair| if let [left, right] = pair { node(*left, *right) } else { pair[0] }).collect()
}

/// The root of a tree over these; all zeroes without any.
#[must_use]
pub fn root(leaves: &[Leaf]) -> Digest {
    let mut level: Vec<Digest> = leaves.iter().map(Leaf::hash).collect();
    while level.len() > 1 {
        level = above(&level);
    }
    level.first().copied().unwrap_or(Digest::ZERO)
}

/// One step from a leaf to the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sibling {
    /// The other one is to the left.
    Left(Digest),
    /// The other one is to the right.
    Right(Digest),
}

/// The way from the leaf at `place` to the root; none without such a leaf.
#[must_use]
pub fn proof(leaves: &[Leaf], place: usize) -> Option<Vec<Sibling>> {
    leaves.get(place)?;
    let mut level: Vec<Digest> = leaves.iter().map(Leaf::hash).collect();
    let (mut place, mut way) = (place, Vec::new());
    while level.len() > 1 {
        let other = place ^ 1;
        if let Some(hash) = level.get(other) {
            way.push(if other < place { Sibling::Left(*hash) } else { Sibling::Right(*hash) });
        }
        level = above(&level);
        place /= 2;
    }
    Some(way)
}

/// Where a way from a leaf ends.
#[must_use]
pub fn climb(leaf: &Leaf, way: &[Sibling]) -> Digest {
    way.iter().fold(leaf.hash(), |hash, step| match step {
        Sibling::Left(left) => node(*left, hash),
        Sibling::Right(right) => node(hash, *right),
    })
}

/// What is sealed of a segment: everything but its leaves, for which the root stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The tenant.
    pub tenant: Name,
    /// Number within the tenant, from 1.
    pub number: u64,
    /// When it was sealed, by the store's time.
    pub at: Timestamp,
    /// How many leaves it has.
    pub leaves: u64,
    /// Root of the tree over them.
    pub root: Digest,
    /// Hash of the seal before; all zeroes before the first.
    pub previous: Digest,
}

impl Seal {
    /// Its hash, which the next one has as its `previous`.
    #[must_use]
    pub fn hash(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[2]);
        for number in [self.number, self.at.0, self.leaves] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&self.root.0);
        hasher.update(&self.previous.0);
        hasher.update(self.tenant.as_bytes());
        Digest(*hasher.finalize().as_bytes())
    }
}

/// Chains that were sealed together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The seal.
    #[serde(flatten)]
    pub seal: Seal,
    /// What it is over, by run.
    pub chains: Vec<Leaf>,
}

/// What is wrong with a segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// A number is missing, or comes twice.
    #[error("segment {expected} is missing, segment {found} comes next")]
    Gap {
        /// The number that was to come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// It does not follow the one before.
    #[error("segment {0} does not follow the one before it")]
    Order(u64),
    /// Its leaves are not those that were sealed.
    #[error("segment {0} is not what was sealed")]
    Leaves(u64),
    /// It is of another tenant.
    #[error("segment {0} is of another tenant")]
    Tenant(u64),
}

/// The last seal of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Its number; 0 before the first.
    pub number: u64,
    /// Its hash.
    pub hash: Digest,
}

impl Default for Last {
    fn default() -> Self {
        Self { number: 0, hash: Digest::ZERO }
    }
}

impl Segment {
    /// Seals chains of a tenant after its last segment.
    #[must_use]
    pub fn after(last: Last, tenant: Name, at: Timestamp, mut chains: Vec<Leaf>) -> Self {
        chains.sort();
        let seal = Seal {
            tenant,
            number: last.number + 1,
            at,
            leaves: chains.len() as u64,
            root: root(&chains),
            previous: last.hash,
        };
        Self { seal, chains }
    }

    /// Checks that it is whole and follows `last`, and gives what the next one follows.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self, tenant: &str, last: Last) -> Result<Last, SealError> {
        let Seal { number, leaves, root: sealed, previous, .. } = self.seal;
        if *self.seal.tenant != *tenant {
            return Err(SealError::Tenant(number));
        }
        if number != last.number + 1 {
            return Err(SealError::Gap { expected: last.number + 1, found: number });
        }
        if leaves != self.chains.len() as u64 || root(&self.chains) != sealed {
            return Err(SealError::Leaves(number));
        }
        if previous != last.hash {
            return Err(SealError::Order(number));
        }
        Ok(Last { number, hash: self.seal.hash() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u64) -> Vec<Leaf> {
        let leaf =
            |n: u64| Leaf { run: RunId::stored(&format!("run-{n:03}")), rows: n, head: Digest::of(&n.to_le_bytes()) };
        (0..count).map(leaf).collect()
    }

    #[test]
    fn every_leaf_has_a_way_to_the_root_and_no_other_leaf_takes_it() {
        for count in 1..40 {
            let leaves = leaves(count);
            let root = root(&leaves);
            for place in 0..leaves.len() {
                let way = proof(&leaves, place).expect("a way");
                assert_eq!(climb(&leaves[place], &way), root, "{place} of {count}");
                let mut other = leaves[place].clone();
                other.rows += 1;
                assert_ne!(climb(&other, &way), root);
            }
            assert_eq!(proof(&leaves, leaves.len()), None);
        }
        assert_eq!(root(&[]), Digest::ZERO);
    }

    #[test]
    fn segments_follow_one_another() {
        let first = Segment::after(Last::default(), "t".into(), Timestamp(1), leaves(3));
        let last = first.check("t", Last::default()).expect("whole");
        let second = Segment::after(last, "t".into(), Timestamp(2), leaves(5));
        assert_eq!(second.check("t", last).expect("whole").number, 2);
        assert_eq!(second.check("t", Last::default()), Err(SealError::Gap { expected: 1, found: 2 }));
        assert_eq!(second.check("u", last), Err(SealError::Tenant(2)));
        let mut cut = second.clone();
        cut.chains.pop();
        assert_eq!(cut.check("t", last), Err(SealError::Leaves(2)));
        let mut edited = second.clone();
        edited.chains[0].rows = 99;
        assert_eq!(edited.check("t", last), Err(SealError::Leaves(2)));
        let mut moved = second.clone();
        moved.seal.previous = Digest::ZERO;
        assert_eq!(moved.check("t", last), Err(SealError::Order(2)));
        let text = serde_json::to_string(&second).expect("JSON");
        assert_eq!(serde_json::from_str::<Segment>(&text).expect("JSON"), second);
    }
}
