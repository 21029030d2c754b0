//! Audit rows: `started` first, then two for each call, `intended` before and `settled` after, and what was decided about it
//! in between, chained by hash within a run.
//!
//! Rows are derived from entries and written in the same transaction, so they cannot tell another story. What people do
//! beside runs has rows of its own, chained per tenant.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, EffectId, Name};
use crate::policy::Ruled;
use crate::resource::Resource;
use crate::time::Timestamp;

/// Version of the rows of runs that this build starts. The rows of one run all have one version.
pub const VERSION: u32 = 5;
/// Rows of before a run had a first row of its own, and texts had their lengths in the hash.
const FIRST_VERSION: u32 = 1;
/// From here on rows say by which worker, and by which plan.
pub(crate) const WHERE_VERSION: u32 = 3;
/// From here on rows say by which rule, who answered and why, and what is touched; a call that failed for good is `settled`,
/// and what was denied, doubted and overridden has rows.
pub(crate) const RULED_VERSION: u32 = 4;
/// From here on children that rules let start have rows, and calls that waited and were let go by other rules than before.
pub(crate) const ALLOWED_VERSION: u32 = 5;

const fn first_version() -> u32 {
    FIRST_VERSION
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_first_version(v: &u32) -> bool {
    *v == FIRST_VERSION
}

/// Whose a run is, of its first row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The tenant.
    pub tenant: Name,
    /// For whom it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Name>,
    /// Name of its machine.
    pub machine: Name,
    /// Hash of the bundle it began with.
    pub bundle: Digest,
    /// Who started it, or the run above it: a person or a schedule, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Name>,
}

/// The end of a run's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Rows so far.
    pub rows: u64,
    /// Hash of the last one.
    pub head: Digest,
}

impl Default for Chain {
    fn default() -> Self {
        Self { rows: 0, head: Digest::ZERO }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Version: how it is hashed.
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    pub v: u32,
    /// Number within the run, from 1.
    pub number: u64,
    /// The call, or the wait of a question about a transition; 0 for what is about none.
    pub effect: EffectId,
    /// The attempt; 0 for what is about no call.
    pub attempt: u32,
    /// `started`, `denied`, `allowed` for a child that starts and for a call that waited and goes by other rules than its
    /// `intended` row names, `intended`, `shadowed` for a call that is recorded and not made, `asked`, `escalated`, `approved`,
    /// `rejected`, `expired`, `doubted`, `resolved`, `failed` for an attempt that is followed by another, `settled`,
    /// `abandoned`, `overridden`. Before version 4 `failed` is also that of a call that failed for good.
    pub stage: Name,
    /// `run` for `started`, else `model`, `tool`, `hook`, `action`, `verify`, `machine` for a child;
    /// `transition` for a decision about one; of `overridden` `model`, `ceilings`, `state`.
    pub kind: Name,
    /// Agent, tool, hook, action or machine; of a transition `FROM->TO`; of `overridden` what was changed.
    pub target: Name,
    /// `read`, `write`, `danger`; empty where none is known.
    pub class: Name,
    /// Hash of the arguments; of the run's input for `started`, of a child's for `allowed`.
    pub arguments: Digest,
    /// Hash of the result, once settled; the failure's code when it failed or was denied; of `doubted` how it is resolved
    /// (`verify`, `ask`, `fail`), of `resolved` what was said (`happened`, `not_happened`, `unknown`); to whom it was
    /// `escalated`; the id of a child that is `allowed`. Before version 4 the rule that asked, or who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Name>,
    /// The rule that decided: let it go, asked about it or denied it. None where no rule was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ruled: Option<Ruled>,
    /// Who answered or overrode: a person; of `resolved` also a tool, `contract` or `policy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Name>,
    /// Why, as whoever answered or overrode said it. At most [`REASON_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Name>,
    /// The agent whose model asked for the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Name>,
    /// What it touches, of `intended`, `shadowed` and `denied`, and of `approved` with other arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// Whose the run is: of `started` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Box<Owner>>,
    /// The plan that a call applies, of a tool that goes by plans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Name>,
    /// The worker that decided it; none in rows of before version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Name>,
    /// When.
    pub at: Timestamp,
    /// Hash of the row before.
    pub previous: Digest,
}

/// Bytes of a reason in a row; the rest is cut with a mark.
pub const REASON_BYTES_MAX: usize = 512;

/// Rows of one version cannot have the hash of one of another: they are hashed under another key.
static KEYED: LazyLock<blake3::Hasher> = LazyLock::new(|| blake3::Hasher::new_derive_key("windlass audit row 2"));

/// A text that may be missing: a missing one is not an empty one.
fn text(hasher: &mut blake3::Hasher, text: Option<&str>) {
    hasher.update(&[u8::from(text.is_some())]);
    let text = text.unwrap_or_default();
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

impl Row {
    /// A row that says nothing yet but its stage, and stands nowhere.
    #[must_use]
    pub fn blank(effect: EffectId, stage: &str) -> Self {
        let none = || Name::from("");
        Self {
            v: VERSION,
            number: 0,
            effect,
            attempt: 0,
            stage: stage.into(),
            kind: none(),
            target: none(),
            class: none(),
            arguments: Digest::ZERO,
            result: None,
            ruled: None,
            by: None,
            reason: None,
            agent: None,
            resources: Vec::new(),
            owner: None,
            plan: None,
            worker: None,
            at: Timestamp(0),
            previous: Digest::ZERO,
        }
    }

    /// The hash of this row: over every field, each text with its length before it.
    #[must_use]
    pub fn hash(&self) -> Digest {
        if self.v == FIRST_VERSION {
            return self.first_hash();
        }
        let mut hasher = KEYED.clone();
        for number in [u64::from(self.v), self.number, self.effect.0, u64::from(self.attempt), self.at.0] {
            hasher.update(&number.to_le_bytes());
        }
        for part in [&self.stage, &self.kind, &self.target, &self.class] {
            text(&mut hasher, Some(part));
        }
        text(&mut hasher, self.result.as_deref());
        hasher.update(&[u8::from(self.owner.is_some())]);
        if let Some(owner) = &self.owner {
            text(&mut hasher, Some(&owner.tenant));
            text(&mut hasher, owner.user.as_deref());
            text(&mut hasher, Some(&owner.machine));
            hasher.update(&owner.bundle.0);
            // Nothing is added for rows of before it was known: what follows has one length, so that neither is the other.
            if owner.by.is_some() {
                text(&mut hasher, owner.by.as_deref());
            }
        }
        if self.v >= WHERE_VERSION {
            text(&mut hasher, self.plan.as_deref());
            text(&mut hasher, self.worker.as_deref());
        }
        if self.v >= RULED_VERSION {
            text(&mut hasher, self.ruled.as_ref().map(|ruled| &*ruled.rule));
            text(&mut hasher, self.ruled.as_ref().map(|ruled| &*ruled.version));
            for part in [&self.by, &self.reason, &self.agent] {
                text(&mut hasher, part.as_deref());
            }
            hasher.update(&(self.resources.len() as u64).to_le_bytes());
            for resource in &self.resources {
                text(&mut hasher, Some(&resource.name));
                text(&mut hasher, Some(&resource.id));
            }
        }
        hasher.update(&self.arguments.0);
        hasher.update(&self.previous.0);
        Digest(*hasher.finalize().as_bytes())
    }

    /// Whether another row could have its hash: in the first version texts were only set apart by line feeds, before the
    /// third one nothing said by which worker and plan, and before the fourth nothing by which rule, by whom, and on what.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        let more = [&self.by, &self.reason, &self.agent].into_iter().any(Option::is_some);
        if self.v < RULED_VERSION && (more || self.ruled.is_some() || !self.resources.is_empty()) {
            return true;
        }
        if self.v < WHERE_VERSION && (self.plan.is_some() || self.worker.is_some()) {
            return true;
        }
        let texts = [&self.stage, &self.kind, &self.target, &self.class];
        self.v == FIRST_VERSION
            && (texts.into_iter().chain(&self.result).any(|text| text.contains('\n'))
                || self.result.as_deref() == Some("")
                || self.owner.is_some())
    }

    /// The hash of the first version: texts ended by line feeds.
    fn first_hash(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let result = self.result.as_deref().unwrap_or_default();
        for part in [&self.stage as &str, &self.kind, &self.target, &self.class, result] {
            hasher.update(part.as_bytes());
            hasher.update(b"\n");
        }
        for number in [self.number, self.effect.0, u64::from(self.attempt), self.at.0] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&self.arguments.0);
        hasher.update(&self.previous.0);
        Digest(*hasher.finalize().as_bytes())
    }
}

/// A reason as rows have it; none for an empty one.
#[must_use]
pub fn reason(text: &str) -> Option<Name> {
    let cut = text.floor_char_boundary(REASON_BYTES_MAX);
    match text.trim() {
        "" => None,
        _ if cut < text.len() => Some(format!("{}…", &text[..cut]).into()),
        _ => Some(text.into()),
    }
}

/// Something that a person or a process did to runs, rules or the store, or an attempt at it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// Number within the tenant, from 1.
    pub number: u64,
    /// When, by the clock of whoever did it.
    pub at: Timestamp,
    /// Who: the name given, else the user of the operating system.
    pub actor: Name,
    /// What, as `noun.verb`: `run.cancel`, `tenant.erase`, `policy.load`.
    pub action: Name,
    /// To what: a run, a tenant, a file's name.
    pub subject: Name,
    /// More about it, such as a reason or a hash. No body of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Name>,
    /// Hash of the row before.
    pub previous: Digest,
}

impl Act {
    /// The hash of this row: over every field, each text with its length before it.
    #[must_use]
    pub fn hash(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[3]);
        for number in [self.number, self.at.0] {
            hasher.update(&number.to_le_bytes());
        }
        let detail = self.detail.as_deref().unwrap_or_default();
        for part in [&*self.actor, &*self.action, &*self.subject, detail] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&self.previous.0);
        Digest(*hasher.finalize().as_bytes())
    }
}

/// What a check of a chain found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A row is not the next one.
    #[error("row {expected} is missing, row {found} comes next")]
    Gap {
        /// The number that was to come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// A row does not follow the one before, which was another one when it was written.
    #[error("row {0} does not follow the row before it, which is not what was written")]
    Order(u64),
}

impl Chain {
    /// The chain with one row more.
    ///
    /// # Errors
    /// The row is not the next one.
    pub fn then(self, number: u64, previous: Digest, hash: Digest) -> Result<Self, Broken> {
        if number != self.rows + 1 {
            return Err(Broken::Gap { expected: self.rows + 1, found: number });
        }
        if previous != self.head {
            return Err(Broken::Order(number));
        }
        Ok(Self { rows: number, head: hash })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn row(v: u32) -> Row {
        Row {
            v,
            number: 3,
            attempt: 1,
            kind: "tool".into(),
            target: "pay".into(),
            class: "write".into(),
            arguments: Digest::of(b"{}"),
            result: Some("x\nboss".into()),
            at: Timestamp(7),
            ..Row::blank(EffectId(1), "approved")
        }
    }

    #[test]
    fn no_two_rows_have_one_hash() {
        // Who approved is moved from one text into another.
        let moved = |v| Row { class: "write\nx".into(), result: Some("boss".into()), ..row(v) };
        assert_eq!(row(1).hash(), moved(1).hash(), "the first version does not tell them apart");
        assert!(row(1).is_ambiguous() && moved(1).is_ambiguous(), "so that such a row is none");
        assert_ne!(row(2).hash(), moved(2).hash());
        let without = |result: Option<Name>| Row { result, ..row(2) };
        assert_ne!(without(None).hash(), without(Some("".into())).hash());
        assert_ne!(row(1).hash(), row(2).hash());
        assert!(!row(2).is_ambiguous());
    }

    #[test]
    fn whose_a_run_is_is_hashed() {
        let owner = Owner {
            tenant: "t".into(),
            user: Some("anna".into()),
            machine: "m".into(),
            bundle: Digest::ZERO,
            by: Some("bob".into()),
        };
        let started = |owner: Owner| Row { owner: Some(Box::new(owner)), ..row(2) }.hash();
        let hash = started(owner.clone());
        for other in [
            Owner { tenant: "u".into(), ..owner.clone() },
            Owner { user: Some("eve".into()), ..owner.clone() },
            Owner { user: None, ..owner.clone() },
            Owner { machine: "n".into(), ..owner.clone() },
            Owner { bundle: Digest::of(b"x"), ..owner.clone() },
            Owner { by: Some("eve".into()), ..owner.clone() },
            Owner { by: None, ..owner },
        ] {
            assert_ne!(hash, started(other));
        }
    }

    #[test]
    fn by_which_worker_and_plan_is_hashed_from_the_third_version_on() {
        let with = |v, plan: Option<&str>, worker: Option<&str>| Row {
            plan: plan.map(Name::from),
            worker: worker.map(Name::from),
            ..row(v)
        };
        let all =
            [with(3, None, None), with(3, Some("p"), None), with(3, None, Some("p")), with(3, Some("p"), Some("w"))];
        for (at, one) in all.iter().enumerate() {
            assert!(!one.is_ambiguous());
            assert!(all[at + 1..].iter().all(|other| other.hash() != one.hash()), "{one:?}");
        }
        for v in [1, 2] {
            let added = with(v, None, Some("w"));
            assert_eq!(added.hash(), row(v).hash(), "an older hash does not cover it");
            assert!(added.is_ambiguous(), "so that such a row is none");
        }
        assert_ne!(row(2).hash(), row(3).hash());
        let text = serde_json::to_string(&row(2)).expect("JSON");
        assert!(!text.contains("worker") && !text.contains("plan"), "{text}");
    }

    #[test]
    fn what_decided_is_hashed_from_the_fourth_version_on() {
        let ruled = |rule: &str, version: &str| Some(Ruled { rule: rule.into(), version: version.into() });
        let touched = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, id)| Resource { name: (*name).into(), id: (*id).into() }).collect()
        };
        let (by, none) = (Some(Name::from("x")), Vec::new());
        let all = |v| {
            [
                row(v),
                Row { ruled: ruled("x", "y"), ..row(v) },
                Row { ruled: ruled("xy", ""), ..row(v) },
                Row { by: by.clone(), ..row(v) },
                Row { reason: by.clone(), ..row(v) },
                Row { agent: by.clone(), ..row(v) },
                Row { resources: touched(&[("x", "y")]), ..row(v) },
                Row { resources: touched(&[("x", "y"), ("", "")]), ..row(v) },
                Row { resources: touched(&[("xy", "")]), ..row(v) },
            ]
        };
        let hashes: BTreeSet<Digest> = all(4).iter().map(Row::hash).collect();
        assert_eq!(hashes.len(), all(4).len());
        assert!(all(4).iter().all(|row| !row.is_ambiguous()));
        for added in &all(3)[1..] {
            assert_eq!(added.hash(), row(3).hash(), "an older hash does not cover it");
            assert!(added.is_ambiguous(), "so that such a row is none: {added:?}");
        }
        assert_ne!(row(3).hash(), row(4).hash());
        let text = serde_json::to_string(&Row { resources: none, ..row(4) }).expect("JSON");
        assert!(["ruled", "by", "reason", "agent", "resources"].iter().all(|key| !text.contains(key)), "{text}");
    }

    /// Hashes of rows as builds wrote them whose newest version was that of the row.
    #[test]
    fn rows_of_every_version_keep_their_hashes() {
        let shared = |v| Row { plan: None, worker: None, result: Some("boss".into()), ..row(v) };
        let placed = Row { plan: Some("p".into()), worker: Some("w".into()), ..shared(3) };
        for (row, hash) in [
            (shared(1), "67399457346038d7f1bf981eb443d341ea3a1803593f28210fe69a79c75f9ffa"),
            (shared(2), "fc3bfc276d259adf87055047016b673467a449aff09cf30353a92f128c06f96e"),
            (placed, "3e37669c35a5b2d86df8f1e4aa833ce4e8763f49a61f363a5609d376c5d975b5"),
        ] {
            assert_eq!(row.hash().to_string(), hash, "version {}", row.v);
        }
    }

    #[test]
    fn a_reason_is_bounded_and_never_empty() {
        assert_eq!((reason(""), reason("  ")), (None, None));
        assert_eq!(reason("because").as_deref(), Some("because"));
        let long = reason(&"é".repeat(REASON_BYTES_MAX)).expect("a reason");
        assert!(long.ends_with("é…") && long.len() <= REASON_BYTES_MAX + "…".len(), "{long}");
    }

    #[test]
    fn rows_of_the_first_version_are_read_and_written_as_they_were() {
        let text = serde_json::to_string(&row(1)).expect("JSON");
        assert!(!text.contains("\"v\"") && !text.contains("owner"), "{text}");
        assert_eq!(serde_json::from_str::<Row>(&text).expect("read"), row(1));
        let text = serde_json::to_string(&row(2)).expect("JSON");
        assert_eq!(serde_json::from_str::<Row>(&text).expect("read"), row(2));
    }
}
