//! Notices to people: what a stored run gives cause to, and the record of one being sent, without I/O.
//!
//! Everything is derived from what was committed, so that whoever looks at a run comes to the same notices with the same
//! ids, and a crash loses none.

use serde::{Deserialize, Serialize};
use windlass_core::approval;
use windlass_core::effect::WaitKind;
use windlass_core::failure::{Code, Retry};
use windlass_core::ids::{Digest, EffectId, Name};
use windlass_core::input::Ending;
use windlass_core::journal::Entry;
use windlass_core::run::{Hold, Run, Status};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::notify::{Notice, NoticeKind, NoticeQuestion};
use windlass_ports::store::Head;

/// The statuses of runs that may give cause to a notice.
pub const TROUBLED: [Status; 4] = [Status::Attention, Status::Paused, Status::Quarantined, Status::Failed];

/// How long whoever sends a notice has it to itself, in milliseconds. More than a channel may take.
pub const CLAIM_MS: u64 = 20_000;
/// The first pause after a notice was not taken, in milliseconds; each is twice the one before.
const PAUSE_MS_MIN: u64 = 2_000;
/// The longest pause, in milliseconds.
const PAUSE_MS_MAX: u64 = 15 * 60_000;
/// How long a notice is tried before it is given up, in milliseconds: three days.
const GIVE_UP_MS: u64 = 3 * 86_400_000;

/// Whether a decision may give cause to a notice.
#[must_use]
pub fn concerns(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| match entry {
        Entry::WaitOpened { wait, .. } => wait.kind != WaitKind::Signal,
        Entry::HoldPlaced { hold } => matches!(hold, Hold::Attention { .. }),
        Entry::EndingDecided { ending } => matches!(ending, Ending::Failed { .. }),
        Entry::RunEnded | Entry::ApprovalEscalated { .. } => true,
        _ => false,
    })
}

/// The notices that a run gives cause to as it is.
#[must_use]
pub fn of(head: &Head, run: &Run) -> Vec<Notice> {
    let cause = Cause { head };
    match head.status {
        Status::Quarantined => vec![cause.plain(NoticeKind::Quarantined, &[u64::from(head.helped)])],
        Status::Failed => failed(&cause, run).into_iter().collect(),
        _ => {
            let mut found: Vec<Notice> = run.waits.keys().flat_map(|wait| question(&cause, run, *wait)).collect();
            found.extend(run.waits.values().filter_map(|wait| changed(&cause, &wait.kind)));
            if let Some(Hold::Attention { .. }) = &run.hold {
                found.push(cause.plain(NoticeKind::Attention, &[head.step, u64::from(head.helped)]));
            }
            found
        }
    }
}

/// A call waits because its tool is not what was accepted. It is told once for each call, however often it is judged again.
fn changed(cause: &Cause<'_>, kind: &WaitKind) -> Option<Notice> {
    let WaitKind::ToolChanged { effect, server, tool } = kind else { return None };
    let mut notice = cause.plain(NoticeKind::Attention, &[effect.0]);
    notice.code = Some(Code::ToolChanged.as_str().into());
    notice.text = format!(
        "the run `{}` of `{}` waits for a decision: `{tool}` of `{server}` is not what was accepted: \
         windlass tools blocked {server}",
        cause.head.id, cause.head.machine
    );
    Some(notice)
}

/// A run that nobody waits for has failed. One that a parent waits for is the parent's to deal with.
fn failed(cause: &Cause<'_>, run: &Run) -> Option<Notice> {
    if run.start.parent.as_ref().is_some_and(|parent| parent.awaited) {
        return None;
    }
    let mut notice = cause.plain(NoticeKind::Failed, &[cause.head.version]);
    if let Some(Ending::Failed { failure, .. }) = &run.ending {
        notice.code = Some(failure.code.as_str().into());
        notice.text = format!("{} with `{}`", notice.text, failure.code.as_str());
    }
    Some(notice)
}

/// The notice of a question, and one for each time that it was escalated.
fn question(cause: &Cause<'_>, run: &Run, wait: EffectId) -> Vec<Notice> {
    let Some((kind, asked)) = first(run, wait) else { return Vec::new() };
    let mut notices = vec![cause.asked(kind, asked.clone())];
    if let Some(escalating) = run.escalating.get(&wait) {
        let reached = escalating.terms.to.iter().take(escalating.level as usize);
        notices.extend(reached.zip(1..).map(|(to, level)| {
            let asked = NoticeQuestion { level, escalated_to: Some(to.clone()), ..asked.clone() };
            cause.asked(NoticeKind::Escalation, asked)
        }));
    }
    notices
}

/// A question as it was put at first.
fn first(run: &Run, wait: EffectId) -> Option<(NoticeKind, NoticeQuestion)> {
    let open = run.waits.get(&wait)?;
    let asked = NoticeQuestion {
        id: wait.key(run.id()).into(),
        about: "transition".into(),
        target: "".into(),
        class: None,
        rule: "outcome".into(),
        shown: None,
        expires_at_ms: approval::due(run, wait).map(|due| due.0),
        level: 0,
        escalated_to: None,
    };
    let (kind, shown, effect) = match &open.kind {
        // One of these is told of as what the run needs.
        WaitKind::Signal | WaitKind::ToolChanged { .. } => return None,
        WaitKind::Transition { from, to, rule, shown, .. } => {
            let target = format!("{from}->{to}").into();
            let asked = NoticeQuestion { target, rule: rule.clone(), shown: Some(*shown), ..asked };
            return Some((NoticeKind::Approval, asked));
        }
        WaitKind::Outcome { effect } => (NoticeKind::Outcome, None, *effect),
        WaitKind::Approval { effect, shown } => (NoticeKind::Approval, Some(*shown), *effect),
        WaitKind::Budget { effect, shown, .. } | WaitKind::Ceiling { effect, shown, .. } => {
            (NoticeKind::Budget, Some(*shown), *effect)
        }
    };
    let call = run.calls.get(&effect)?;
    let asked = NoticeQuestion {
        about: call.call.kind().into(),
        target: call.call.target().clone(),
        class: Some(call.class.as_str().into()),
        rule: call.approval.as_deref().map_or(asked.rule, |why| why.rule.clone()),
        shown,
        ..asked
    };
    Some((kind, asked))
}

/// What notices about one run have in common.
struct Cause<'a> {
    head: &'a Head,
}

impl Cause<'_> {
    fn notice(&self, kind: NoticeKind, id: Name, text: String) -> Notice {
        let head = self.head;
        Notice {
            id,
            kind,
            at_ms: head.updated_at.0,
            tenant: head.tenant.clone(),
            machine: head.machine.clone(),
            run_id: head.id.clone(),
            root_run_id: head.root.clone(),
            state: head.state.clone(),
            text,
            question: None,
            code: None,
        }
    }

    /// A notice about the run itself. `episode` tells one time from the next.
    fn plain(&self, kind: NoticeKind, episode: &[u64]) -> Notice {
        let run = &self.head.id;
        let text = match kind {
            NoticeKind::Quarantined => format!("the run `{run}` of `{}` is quarantined", self.head.machine),
            NoticeKind::Failed => format!("the run `{run}` of `{}` has failed", self.head.machine),
            _ => format!("the run `{run}` of `{}` needs a person's attention", self.head.machine),
        };
        self.notice(kind, self.id(kind, run.as_str(), episode), text)
    }

    fn asked(&self, kind: NoticeKind, asked: NoticeQuestion) -> Notice {
        let NoticeQuestion { id: key, about, target, level, .. } = &asked;
        let machine = &self.head.machine;
        let text = match kind {
            NoticeKind::Outcome => {
                format!("somebody has to say whether the {about} `{target}` of `{machine}` was called: `{key}`")
            }
            NoticeKind::Budget => {
                format!(
                    "the {about} `{target}` of `{machine}` waits for more of a budget: windlass approvals show '{key}'"
                )
            }
            NoticeKind::Escalation => format!(
                "the {about} `{target}` of `{machine}` still waits for an approval, escalated to `{}`: \
                 windlass approvals show '{key}'",
                asked.escalated_to.as_deref().unwrap_or_default()
            ),
            _ => {
                format!("the {about} `{target}` of `{machine}` waits for an approval: windlass approvals show '{key}'")
            }
        };
        let notice = self.notice(kind, self.id(kind, key, &[u64::from(*level)]), text);
        Notice { question: Some(asked), ..notice }
    }

    fn id(&self, kind: NoticeKind, about: &str, episode: &[u64]) -> Name {
        id(kind, about, self.head.created_at, episode)
    }
}

/// The id of a notice: the same for the same cause, whoever derives it. `born` tells a run from one of the same id that was
/// removed.
fn id(kind: NoticeKind, about: &str, born: Timestamp, episode: &[u64]) -> Name {
    let parts = [Value::str("windlass.notice.v2"), Value::str(kind.as_str()), Value::str(about), Value::count(born.0)];
    let digest: Digest =
        Value::list(parts.into_iter().chain(episode.iter().map(|n| Value::count(*n))).collect()).digest();
    digest.to_string()[..32].into()
}

/// The record of one notice on one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The channel.
    pub channel: Name,
    /// What is sent.
    pub notice: Notice,
    /// When it was first to be sent.
    pub since: Timestamp,
    /// Times that it was sent, or was about to be.
    pub attempts: u32,
    /// Where it stands.
    pub standing: Standing,
}

/// Where a delivery stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Somebody is sending it, or waits to try again; anybody may from then on.
    Pending {
        /// When.
        until: Timestamp,
        /// Tells who claimed it.
        claim: u64,
        /// Why it was not taken the last time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// It was taken.
    Sent {
        /// When.
        at: Timestamp,
    },
    /// It is no longer sent.
    Dropped {
        /// When.
        at: Timestamp,
        /// Why.
        why: String,
    },
}

impl Delivery {
    /// One that is about to be sent for the first time.
    #[must_use]
    pub fn first(channel: &Name, notice: &Notice, now: Timestamp, claim: u64) -> Self {
        let standing = Standing::Pending { until: now.plus_ms(CLAIM_MS), claim, error: None };
        Self { channel: channel.clone(), notice: notice.clone(), since: now, attempts: 1, standing }
    }

    /// The same, claimed to be sent once more. None while somebody else has it, or when it is over; `Err` says when it
    /// may be claimed.
    ///
    /// # Errors
    /// The time before which it is somebody else's, or waits.
    pub fn again(mut self, now: Timestamp, by: u64) -> Result<Option<Self>, Timestamp> {
        match &mut self.standing {
            Standing::Sent { .. } | Standing::Dropped { .. } => Ok(None),
            Standing::Pending { until, .. } if *until > now => Err(*until),
            Standing::Pending { until, claim, .. } => {
                (*until, *claim) = (now.plus_ms(CLAIM_MS), by);
                self.attempts = self.attempts.saturating_add(1);
                Ok(Some(self))
            }
        }
    }

    /// Whether it was claimed by this one and is still its own.
    #[must_use]
    pub fn is_claimed_by(&self, by: u64) -> bool {
        matches!(&self.standing, Standing::Pending { claim, .. } if *claim == by)
    }

    /// Whether it has been tried for so long that it is given up.
    #[must_use]
    pub fn is_old(&self, now: Timestamp) -> bool {
        now.since_ms(self.since) >= GIVE_UP_MS
    }

    /// The same after it was not taken.
    #[must_use]
    pub fn refused(mut self, now: Timestamp, error: &str, retry: Retry) -> Self {
        let doubled = PAUSE_MS_MIN.saturating_mul(1 << self.attempts.saturating_sub(1).min(16)).min(PAUSE_MS_MAX);
        let pause = match retry {
            Retry::After(ms) => ms.clamp(PAUSE_MS_MIN, PAUSE_MS_MAX),
            Retry::Backoff | Retry::Never | Retry::Unknown => doubled,
        };
        self.standing = if self.is_old(now) {
            Standing::Dropped { at: now, why: format!("not taken for three days: {error}") }
        } else {
            Standing::Pending { until: now.plus_ms(pause), claim: 0, error: Some(error.to_owned()) }
        };
        self
    }

    /// The key of its record.
    #[must_use]
    pub fn key(channel: &str, id: &str) -> Name {
        format!("{channel}/{id}").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice() -> Notice {
        Notice {
            id: id(NoticeKind::Failed, "r", Timestamp(1), &[3]),
            kind: NoticeKind::Failed,
            at_ms: 5,
            tenant: "t".into(),
            machine: "m".into(),
            run_id: windlass_core::ids::RunId::stored("r"),
            root_run_id: windlass_core::ids::RunId::stored("r"),
            state: None,
            text: "the run `r` of `m` has failed".into(),
            question: None,
            code: None,
        }
    }

    #[test]
    fn an_id_is_the_same_for_the_same_cause_and_no_other() {
        assert_eq!(id(NoticeKind::Failed, "r", Timestamp(1), &[3]), id(NoticeKind::Failed, "r", Timestamp(1), &[3]));
        for other in [
            id(NoticeKind::Failed, "r", Timestamp(1), &[4]),
            id(NoticeKind::Failed, "s", Timestamp(1), &[3]),
            id(NoticeKind::Approval, "r", Timestamp(1), &[3]),
            id(NoticeKind::Failed, "r", Timestamp(2), &[3]),
        ] {
            assert_ne!(other, id(NoticeKind::Failed, "r", Timestamp(1), &[3]));
        }
    }

    #[test]
    fn a_claim_keeps_others_away_until_it_is_over() {
        let now = Timestamp(1_000);
        let first = Delivery::first(&"ops".into(), &notice(), now, 7);
        assert_eq!(first.clone().again(now.plus_ms(1), 8), Err(now.plus_ms(CLAIM_MS)));
        let second = first.again(now.plus_ms(CLAIM_MS), 8).expect("free").expect("pending");
        assert_eq!((second.attempts, second.is_claimed_by(8), second.is_claimed_by(7)), (2, true, false));
        let sent = Delivery { standing: Standing::Sent { at: now }, ..second };
        assert_eq!(sent.again(now.plus_ms(1 << 40), 9), Ok(None));
    }

    #[test]
    fn pauses_grow_and_end() {
        let now = Timestamp(1_000);
        let mut delivery = Delivery::first(&"ops".into(), &notice(), now, 7);
        let until = |delivery: &Delivery| match &delivery.standing {
            Standing::Pending { until, .. } => until.since_ms(now),
            other => panic!("{other:?}"),
        };
        let mut last = 0;
        for attempt in 1..20 {
            delivery.attempts = attempt;
            delivery = delivery.refused(now, "503", Retry::Backoff);
            assert!(until(&delivery) > last || until(&delivery) == PAUSE_MS_MAX);
            last = until(&delivery);
        }
        assert_eq!(until(&delivery.clone().refused(now, "429", Retry::After(60_000))), 60_000);
        let late = delivery.refused(now.plus_ms(GIVE_UP_MS), "503", Retry::Backoff);
        assert!(matches!(late.standing, Standing::Dropped { .. }), "{late:?}");
    }
}
