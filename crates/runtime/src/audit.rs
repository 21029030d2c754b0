//! Audit rows as they are shown and exported, and the check that they are those that were written and sealed.
//!
//! No I/O: rows and segments come from a store or from a file.

mod check;
mod cut;
mod reading;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_core::audit::{Act, Owner, Row};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::policy::Ruled;
use windlass_core::resource::Resource;
use windlass_core::seal::{Last, Leaf, Seal, Segment, Sibling};
use windlass_core::time::Timestamp;

pub use check::Checker;
pub use cut::{Cut, Cuts, Gone};
pub use reading::Reading;

/// Version of the lines that this build writes.
pub const FORMAT: u32 = 2;

/// Whose run a row is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// The run.
    pub run: RunId,
    /// Its tenant.
    pub tenant: Name,
    /// For whom it runs, when that is known.
    pub user: Option<Name>,
    /// Its machine, when that is known.
    pub machine: Option<Name>,
    /// 0 for a run that is there; of one that was removed, the number of its removal.
    pub life: u64,
}

impl Whose {
    /// Whose a chain is as its first row says, which is under its hashes; as `self` says for a run that began before there
    /// was such a row.
    #[must_use]
    pub fn proven(self, rows: &[Row]) -> Self {
        match owner(rows) {
            Some(Owner { tenant, user, machine, .. }) => {
                Self { tenant: tenant.clone(), user: user.clone(), machine: Some(machine.clone()), ..self }
            }
            None => self,
        }
    }
}

/// Whose a chain is, as its first row says.
#[must_use]
pub fn owner(rows: &[Row]) -> Option<&Owner> {
    rows.first().and_then(|row| row.owner.as_deref())
}

const fn first_version() -> u32 {
    1
}

/// The id of one thing that a call touches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Touched {
    /// The argument, as keys inwards with dots between them.
    pub name: Name,
    /// Its value; `[redacted]` where that is not shown.
    pub id: Name,
}

/// One audit row of a run or a call: who, what, when, with which result. Bodies are hashes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CallLine {
    /// Version of the row, by which it is hashed.
    #[serde(default = "first_version")]
    pub v: u32,
    /// Tenant of the run.
    pub tenant: Name,
    /// For whom it runs; absent when nobody was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Name>,
    /// Name of its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Name>,
    /// The run.
    pub run: Name,
    /// 0 for a run that is there; of one that was removed, the number of its removal.
    pub life: u64,
    /// Number within the run, from 1.
    pub number: u64,
    /// Number of the call within the run, or of the question about a transition; joins its rows. 0 for what is about
    /// none: `started`, `overridden`, and `denied` before a call was committed.
    pub effect: u64,
    /// Its attempt.
    pub attempt: u32,
    /// `started` for the first row of a run; else of a call: `denied`, `allowed` where it waited and goes by another rule or
    /// rule set than its `intended` row names, and of a child that starts, `intended`, `shadowed` where it is recorded and not
    /// made, `asked`, `escalated`, `approved`, `rejected`, `expired`, `doubted`, `resolved`, `failed` for an attempt that is
    /// followed by another, and one of `settled` and `abandoned` as the last; `overridden` for what a person put in the place
    /// of what was written. In rows of before version 4 `failed` is also that of a call that failed for good.
    pub stage: Name,
    /// `run` for `started`, else `model`, `tool`, `hook`, `action`, `verify`; `transition` and `machine` for decisions about
    /// these; of `overridden` `model`, `ceilings`, `state`.
    pub kind: Name,
    /// Agent, tool, hook, action or machine; `FROM->TO` of a transition; of `overridden` the agent or `*`, `run`, the state.
    pub target: Name,
    /// `read`, `write`, `danger`; empty where none is known.
    pub class: Name,
    /// Hash of the arguments; of the input for `started`, of that of a child for `allowed`.
    #[schemars(with = "String")]
    pub arguments: Digest,
    /// Hash of the result, or code of the failure or denial; `verify`, `ask` or `fail` of `doubted`, `happened`,
    /// `not_happened` or `unknown` of `resolved`; whom `escalated` asks; the id of a child that is `allowed`; what `overridden` put
    /// in place. In rows of before version 4 also the rule that asked. Absent before there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Name>,
    /// The rule that let it go, asked about it or denied it; `contract`, `budget` or `ceiling` where one of these asked.
    /// Absent where no rule was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Name>,
    /// Version of the rule set of that rule, as `windlass policy check` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_set: Option<Name>,
    /// The agent whose model asked for the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Name>,
    /// What the call touches, where its contract says which arguments are ids: of `intended`, `shadowed` and `denied`, and of
    /// `approved` with other arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Touched>,
    /// Of `started`: hash of the bundle that the run began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub bundle: Option<Digest>,
    /// Who answered or overrode; of `resolved` a person, a tool, `contract` or `policy`; of `started`, who started the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Name>,
    /// Why, as whoever answered or overrode said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Name>,
    /// The idempotency key that the call is sent with; absent in rows that are about no call, such as `denied` before one was
    /// committed. Exports of earlier builds have `RUN#0` there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<Name>,
    /// The plan that the call applies, of a tool that goes by plans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Name>,
    /// The worker that decided it; absent in rows of before version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Name>,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// Hash of the row before; all zeroes before the first.
    #[schemars(with = "String")]
    pub previous: Digest,
    /// Hash of this row.
    #[schemars(with = "String")]
    pub hash: Digest,
}

/// Stages whose result is who answered, in rows of before there was a place for that.
const ANSWERED: [&str; 2] = ["approved", "rejected"];
/// Version of the first rows with that place.
const RULED_VERSION: u32 = 4;

impl Touched {
    fn of(resource: &Resource) -> Self {
        Self { name: resource.name.clone(), id: resource.id.clone() }
    }

    fn resource(&self) -> Resource {
        Resource { name: self.name.clone(), id: self.id.clone() }
    }
}

impl CallLine {
    /// The line of a row.
    #[must_use]
    pub fn of(whose: &Whose, row: &Row) -> Self {
        let answered = row.v < RULED_VERSION && ANSWERED.contains(&&*row.stage);
        let result = row.result.clone();
        let actor = || row.by.clone().or_else(|| result.clone().filter(|_| answered));
        Self {
            v: row.v,
            tenant: whose.tenant.clone(),
            user: whose.user.clone(),
            machine: whose.machine.clone(),
            run: whose.run.as_str().into(),
            life: whose.life,
            number: row.number,
            effect: row.effect.0,
            attempt: row.attempt,
            stage: row.stage.clone(),
            kind: row.kind.clone(),
            target: row.target.clone(),
            class: row.class.clone(),
            arguments: row.arguments,
            bundle: row.owner.as_ref().map(|owner| owner.bundle),
            actor: row.owner.as_ref().map_or_else(actor, |owner| owner.by.clone()),
            reason: row.reason.clone(),
            rule: row.ruled.as_ref().map(|ruled| ruled.rule.clone()),
            rule_set: row.ruled.as_ref().map(|ruled| ruled.version.clone()).filter(|version| !version.is_empty()),
            agent: row.agent.clone(),
            resources: row.resources.iter().map(Touched::of).collect(),
            result: result.filter(|_| !answered),
            idempotency_key: (row.effect != EffectId(0)).then(|| row.effect.key(&whose.run).into()),
            plan: row.plan.clone(),
            worker: row.worker.clone(),
            at_ms: row.at.0,
            previous: row.previous,
            hash: row.hash(),
        }
    }

    /// The row of the line.
    #[must_use]
    pub fn row(&self) -> Row {
        let owner = |bundle| Owner {
            tenant: self.tenant.clone(),
            user: self.user.clone(),
            machine: self.machine.clone().unwrap_or_default(),
            bundle,
            by: self.actor.clone(),
        };
        let actor = self.actor.clone().filter(|_| self.bundle.is_none());
        let (by, answered) = if self.v < RULED_VERSION { (None, actor) } else { (actor, None) };
        let ruled = |rule| Ruled { rule, version: self.rule_set.clone().unwrap_or_default() };
        Row {
            v: self.v,
            number: self.number,
            effect: EffectId(self.effect),
            attempt: self.attempt,
            stage: self.stage.clone(),
            kind: self.kind.clone(),
            target: self.target.clone(),
            class: self.class.clone(),
            arguments: self.arguments,
            result: answered.or_else(|| self.result.clone()),
            ruled: self.rule.clone().map(ruled),
            by,
            reason: self.reason.clone(),
            agent: self.agent.clone(),
            resources: self.resources.iter().map(Touched::resource).collect(),
            owner: self.bundle.map(|bundle| Box::new(owner(bundle))),
            plan: self.plan.clone(),
            worker: self.worker.clone(),
            at: Timestamp(self.at_ms),
            previous: self.previous,
        }
    }
}

/// One thing that a person or a process did beside runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActLine {
    /// The tenant.
    pub tenant: Name,
    /// Number within the tenant, from 1.
    pub number: u64,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// Who.
    pub actor: Name,
    /// What, as `noun.verb`.
    pub action: Name,
    /// To what.
    pub subject: Name,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Name>,
    /// Hash of the row before; all zeroes before the first.
    #[schemars(with = "String")]
    pub previous: Digest,
    /// Hash of this row.
    #[schemars(with = "String")]
    pub hash: Digest,
}

impl ActLine {
    /// The line of an act.
    #[must_use]
    pub fn of(tenant: &Name, act: &Act) -> Self {
        Self {
            tenant: tenant.clone(),
            number: act.number,
            at_ms: act.at.0,
            actor: act.actor.clone(),
            action: act.action.clone(),
            subject: act.subject.clone(),
            detail: act.detail.clone(),
            previous: act.previous,
            hash: act.hash(),
        }
    }

    /// The act of the line.
    #[must_use]
    pub fn act(&self) -> Act {
        Act {
            number: self.number,
            at: Timestamp(self.at_ms),
            actor: self.actor.clone(),
            action: self.action.clone(),
            subject: self.subject.clone(),
            detail: self.detail.clone(),
            previous: self.previous,
        }
    }
}

/// A line of a list or an export that is a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RowLine {
    /// Of a call.
    Call(Box<CallLine>),
    /// Of something done beside runs.
    Act(ActLine),
}

/// The JSON Schema of rows.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(RowLine).to_value()
}

/// A line of an export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// The first one.
    Export {
        /// Version of the lines.
        v: u32,
        /// The tenant.
        tenant: Name,
        /// Only this run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
        /// When it was made, in milliseconds since 1970-01-01 UTC.
        at_ms: u64,
    },
    /// What was removed before, so that what follows begins after it.
    Cut(Cut),
    /// A segment with its leaves: of an export of a tenant.
    Segment(Segment),
    /// A segment without its leaves: of an export of one run.
    Seal(Seal),
    /// That the end of a chain is a leaf of a segment.
    Proof {
        /// The leaf.
        leaf: Leaf,
        /// The segment.
        segment: u64,
        /// From the leaf to the root.
        way: Vec<Sibling>,
    },
    /// A row of a run or a call.
    Call(Box<CallLine>),
    /// An act.
    Act(ActLine),
    /// That the rows of a chain cannot be read, and are left out.
    Unread {
        /// The run, or [`windlass_core::seal::ACTS`].
        run: RunId,
        /// 0 for a run that is there; of one that was removed, the number of its removal.
        life: u64,
        /// Why.
        message: String,
    },
    /// The last one.
    End {
        /// Lines before it.
        lines: u64,
        /// BLAKE3 hash of the bytes before it.
        digest: Digest,
        /// The last segment.
        last: Last,
    },
    /// After the last one: who says so.
    Signature {
        /// `ed25519`.
        algorithm: Name,
        /// The public key, in hexadecimal digits.
        public_key: Name,
        /// Over the bytes of the last line, without its line feed, in hexadecimal digits.
        signature: Name,
    },
}

/// Something wrong with an audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The run, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The first row that is not right, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// What is wrong.
    pub message: String,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The tenant.
    pub tenant: Name,
    /// Its segments.
    pub segments: u64,
    /// The last one: kept elsewhere, it shows later that none was cut off.
    pub last: Last,
    /// Runs with audit rows, removed ones included.
    pub runs: u64,
    /// Their rows.
    pub rows: u64,
    /// Rows up to the last seal of their run.
    pub sealed: u64,
    /// Rows after it: chained, and not sealed.
    pub tail: u64,
    /// Acts.
    pub acts: u64,
    /// Acts after the last seal.
    pub acts_tail: u64,
    /// What was removed of it on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}
