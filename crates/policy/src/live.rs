//! The rule set in use: answers from memory, follows its files, and keeps the last good one when they are broken.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use windlass_core::ids::Name;
use windlass_core::machine::Machine;
use windlass_core::policy::{Question, Verdict};
use windlass_core::run::TenantScope;
use windlass_ports::policy::Policy;

use crate::diagnostic::Findings;
use crate::question::{Asked, Subject};
use crate::set::{RuleSet, Ruling};
use crate::source::Fingerprint;
use crate::trust::{Scores, TrustBook};

/// Answers kept in memory; the oldest are not known, so all are dropped when there are more.
const REMEMBERED_MAX: usize = 20_000;
/// Pause between two looks at the files: a rule that was changed counts this much later at most.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Snapshots made so far.
static SNAPSHOTS: AtomicU64 = AtomicU64::new(0);

/// A rule set with the answers it gave: it never changes, so the same question has the same answer.
#[derive(Debug)]
struct Snapshot {
    /// Its number in this process.
    epoch: u64,
    set: Arc<RuleSet>,
    scores: Arc<Scores>,
    given: Mutex<HashMap<(Subject, Asked), Ruling>>,
}

impl Snapshot {
    fn new(set: Arc<RuleSet>, scores: Arc<Scores>) -> Arc<Self> {
        let epoch = SNAPSHOTS.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { epoch, set, scores, given: Mutex::default() })
    }

    fn ruling(&self, subject: &Subject, asked: Asked) -> Ruling {
        // Where no rule looks at labels, one answer serves all of them.
        let asked = if self.set.reads_labels() { asked } else { asked.without_labels() };
        let key = (subject.clone(), asked);
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(ruling) = given {
            return ruling;
        }
        let ruling = self.set.rule_on(&key.0, &key.1, &self.scores);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= REMEMBERED_MAX {
            given.clear();
        }
        given.insert(key, ruling.clone());
        ruling
    }
}

/// What became of the files of a rule set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// The set of this version is in force from here on.
    InForce(Name),
    /// What the files say is not good, for this reason. The set before stays in force, when there is one.
    Refused(String),
}

/// The policy of a process.
#[derive(Debug)]
pub struct LivePolicy {
    folder: PathBuf,
    current: ArcSwap<Snapshot>,
    /// Scores of versions of agents, as last read from the store.
    trust: TrustBook,
    /// What the files were when they were last read, and what was wrong with them.
    seen: Mutex<(Fingerprint, Option<Findings>)>,
    /// Who is told what becomes of the files.
    told: Mutex<Vec<UnboundedSender<Load>>>,
}

impl LivePolicy {
    /// Reads the rule set of a folder.
    ///
    /// # Errors
    /// The set is not good: there is nothing to fall back on yet.
    pub fn open(folder: &Path) -> Result<Arc<Self>, Findings> {
        Self::open_with(folder, TrustBook::default())
    }

    /// The same with the scores of versions of agents that a process keeps.
    ///
    /// # Errors
    /// As [`LivePolicy::open`].
    pub fn open_with(folder: &Path, trust: TrustBook) -> Result<Arc<Self>, Findings> {
        let seen = Fingerprint::of(folder);
        let set = RuleSet::load(folder)?;
        warn(&set);
        let current = ArcSwap::new(Snapshot::new(Arc::new(set), trust.scores()));
        Ok(Arc::new(Self {
            folder: folder.to_owned(),
            current,
            trust,
            seen: Mutex::new((seen, None)),
            told: Mutex::default(),
        }))
    }

    /// Reads the files again when they have changed. True when another set is in use from here on.
    ///
    /// # Errors
    /// The new set is not good; the old one stays in use.
    pub fn refresh(&self) -> Result<bool, Findings> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Fingerprint::of(&self.folder);
        if seen.0 == now {
            return seen.1.clone().map_or(Ok(false), Err);
        }
        seen.0 = now;
        match RuleSet::load(&self.folder) {
            Ok(set) => {
                let was_broken = seen.1.take().is_some();
                let old = self.version();
                if set.version() == old {
                    if was_broken {
                        self.tell(&Load::InForce(old));
                    }
                    return Ok(false);
                }
                warn(&set);
                tracing::info!(policy = %self.folder.display(), from = %old, to = %set.version(), "another rule set is in use");
                let version = set.version();
                self.current.store(Snapshot::new(Arc::new(set), self.trust.scores()));
                self.tell(&Load::InForce(version));
                Ok(true)
            }
            Err(findings) => {
                tracing::error!(
                    policy = %self.folder.display(), version = %self.version(), %findings,
                    "the rule set is broken; the last good one stays in use"
                );
                seen.1 = Some(findings.clone());
                self.tell(&Load::Refused(findings.to_string()));
                Err(findings)
            }
        }
    }

    /// What becomes of the files, from the set in force now on.
    #[must_use]
    pub fn loads(&self) -> UnboundedReceiver<Load> {
        // Nothing is loaded meanwhile.
        let _seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (teller, loads) = mpsc::unbounded();
        // The other end is held here.
        let _sent = teller.unbounded_send(Load::InForce(self.version()));
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(teller);
        loads
    }

    fn tell(&self, load: &Load) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|teller| teller.unbounded_send(load.clone()).is_ok());
    }

    /// The folder of its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What answers now: the rule set in use with the scores of this moment.
    fn snapshot(&self) -> Arc<Snapshot> {
        let snapshot = self.current.load_full();
        let scores = self.trust.scores();
        if Arc::ptr_eq(&snapshot.scores, &scores) {
            return snapshot;
        }
        let next = Snapshot::new(Arc::clone(&snapshot.set), scores);
        // Where the files have changed meanwhile, the next question sees both.
        self.current.compare_and_swap(&snapshot, Arc::clone(&next));
        next
    }

    /// The version in use.
    #[must_use]
    pub fn version(&self) -> Name {
        self.current.load().set.version()
    }

    /// Looks at the files again and again for as long as the policy lives.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn follow(self: &Arc<Self>) -> std::io::Result<()> {
        let policy = Arc::downgrade(self);
        let look = move || {
            loop {
                std::thread::sleep(LOOK_EVERY);
                let Some(policy) = policy.upgrade() else { return };
                // What is wrong has been logged, and the last good set answers.
                let _known = policy.refresh();
            }
        };
        std::thread::Builder::new().name("policy-files".into()).spawn(look).map(|_| ())
    }
}

impl Policy for LivePolicy {
    fn answer(&self, scope: &TenantScope, machine: &Machine, questions: &[Question]) -> Vec<Verdict> {
        let snapshot = self.snapshot();
        let (subject, version) = (Subject::of(scope, machine), snapshot.set.version());
        let verdict = |question: &Question| {
            let Ruling { answer, rule, reason, asking, trust } =
                snapshot.ruling(&subject, Asked::of(question, machine));
            let (question, version) = (question.clone(), version.clone());
            Verdict { question, answer, rule, reason, version, origins: Vec::new(), asking, trust }
        };
        questions.iter().map(verdict).collect()
    }

    fn epoch(&self) -> Option<u64> {
        Some(self.snapshot().epoch)
    }

    fn allow_unasked(&self) -> bool {
        false
    }
}

fn warn(set: &RuleSet) {
    for finding in set.warnings() {
        tracing::warn!(policy = %set.folder().display(), "{finding}");
    }
}
