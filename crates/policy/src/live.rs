//! The rule sets in use: answer from memory, follow their files, and keep the last good ones when files are broken.
//!
//! One set is in force. Another may be tried beside it; what it cannot answer, because its files are broken from the start
//! or because it was withdrawn, the set in force answers.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use windlass_core::ids::Name;
use windlass_core::policy::{Choice, Other, Question, Verdict};
use windlass_core::run::Run;
use windlass_core::time::Timestamp;
use windlass_ports::policy::{Asker, Policy};
use windlass_ports::store::{Store, StoreError};

use crate::candidate::CandidateConfig;
use crate::diagnostic::Findings;
use crate::judge::Judge;
use crate::question::{Asked, Subject};
use crate::set::{RuleSet, Ruling};
use crate::source::Fingerprint;
use crate::trial::{Counts, Ledger, Trial};
use crate::trust::{Scores, TrustBook};

/// Pause between two looks at the files: a rule that was changed counts this much later at most.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Snapshots made so far.
static SNAPSHOTS: AtomicU64 = AtomicU64::new(0);

/// What answers at one moment: it never changes, so the same question of the same side has the same answer.
#[derive(Debug)]
struct Snapshot {
    /// Its number in this process.
    epoch: u64,
    scores: Arc<Scores>,
    in_force: Judge,
    candidate: Option<Judge>,
}

impl Snapshot {
    fn new(set: Arc<RuleSet>, candidate: Option<Arc<RuleSet>>, scores: Arc<Scores>) -> Arc<Self> {
        let epoch = SNAPSHOTS.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { epoch, scores, in_force: Judge::new(set), candidate: candidate.map(Judge::new) })
    }
}

/// What became of the files of a rule set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// The set of this version is in force from here on.
    InForce(Name),
    /// What the files say is not good, for this reason. The set before stays in force, when there is one.
    Refused(String),
    /// The candidate of this version is tried from here on, unless it was withdrawn; none where there is none, or where it is
    /// the set in force.
    Candidate(Option<Name>),
    /// What the files of the candidate say is not good, for this reason. What was tried before still is.
    CandidateRefused(String),
}

/// The files of a rule set.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    /// What they were when they were last read.
    seen: Fingerprint,
    /// What was wrong with them then.
    broken: Option<Findings>,
    /// The last good set.
    set: Option<Arc<RuleSet>>,
}

impl Files {
    fn read(folder: &Path) -> Self {
        let seen = Fingerprint::of(folder);
        let (set, broken) = match RuleSet::load(folder) {
            Ok(set) => (Some(Arc::new(set)), None),
            Err(findings) => (None, Some(findings)),
        };
        set.iter().for_each(|set| warn(set));
        Self { folder: folder.to_owned(), seen, broken, set }
    }

    /// Reads them again when they have changed. True when what is known of them has.
    fn look(&mut self) -> bool {
        let now = Fingerprint::of(&self.folder);
        if self.seen == now {
            return false;
        }
        let next = Self::read(&self.folder);
        let changed = next.broken.is_some() || self.broken.is_some() || next.version() != self.version();
        *self = Self { seen: now, set: next.set.or(self.set.take()), ..next };
        changed
    }

    fn version(&self) -> Option<Name> {
        self.set.as_ref().map(|set| set.version())
    }
}

/// The files of the set in force and of the candidate.
#[derive(Debug)]
struct Folders {
    in_force: Files,
    candidate: Option<Files>,
}

/// What is known of the trial of a candidate.
#[derive(Debug)]
struct Tried {
    config: CandidateConfig,
    /// Of the candidate of this version.
    ledger: Mutex<(Name, Ledger)>,
    /// Held while what was counted is stored, so that it is stored once.
    storing: futures::lock::Mutex<()>,
}

impl Tried {
    fn ledger(&self) -> MutexGuard<'_, (Name, Ledger)> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this candidate may be asked. Another one than before is tried anew.
    fn is_open(&self, candidate: &Name) -> bool {
        let mut ledger = self.ledger();
        if ledger.0 != *candidate {
            *ledger = (candidate.clone(), Ledger::default());
        }
        ledger.1.is_open()
    }
}

/// The policy of a process.
#[derive(Debug)]
pub struct LivePolicy {
    folder: PathBuf,
    current: ArcSwap<Snapshot>,
    /// Scores of versions of agents, as last read from the store.
    trust: TrustBook,
    files: Mutex<Folders>,
    tried: Option<Tried>,
    /// Who is told what becomes of the files.
    told: Mutex<Vec<UnboundedSender<Load>>>,
}

impl LivePolicy {
    /// Reads the rule set of a folder.
    ///
    /// # Errors
    /// The set is not good: there is nothing to fall back on yet.
    pub fn open(folder: &Path) -> Result<Arc<Self>, Findings> {
        Self::open_with(folder, TrustBook::default(), None)
    }

    /// The same with the scores of versions of agents that a process keeps, and a candidate whose folder is found from here.
    /// A candidate that is not good is not tried until its files are.
    ///
    /// # Errors
    /// As [`LivePolicy::open`].
    pub fn open_with(
        folder: &Path,
        trust: TrustBook,
        candidate: Option<CandidateConfig>,
    ) -> Result<Arc<Self>, Findings> {
        let mut in_force = Files::read(folder);
        let Some(set) = in_force.set.clone() else { return Err(in_force.broken.take().unwrap_or_default()) };
        let files = Folders { in_force, candidate: candidate.as_ref().map(|candidate| Files::read(&candidate.path)) };
        let current = ArcSwap::new(Snapshot::new(set, None, trust.scores()));
        let tried = candidate.map(|config| Tried {
            config,
            ledger: Mutex::default(),
            storing: futures::lock::Mutex::default(),
        });
        let (folder, files) = (folder.to_owned(), Mutex::new(files));
        let policy = Self { folder, current, trust, files, tried, told: Mutex::default() };
        {
            let files = policy.files();
            if let Some(findings) = files.candidate.as_ref().and_then(|files| files.broken.as_ref()) {
                tracing::error!(policy = %policy.folder.display(), %findings, "the candidate is broken and is not tried");
            }
            policy.take_up(&files);
        }
        Ok(Arc::new(policy))
    }

    fn files(&self) -> MutexGuard<'_, Folders> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what the files say into use.
    fn take_up(&self, files: &Folders) {
        let Some(set) = &files.in_force.set else { return };
        let tried = || {
            let candidate = files.candidate.as_ref()?.set.as_ref().filter(|other| other.version() != set.version())?;
            self.tried.as_ref()?.is_open(&candidate.version()).then(|| Arc::clone(candidate))
        };
        loop {
            let candidate = tried();
            let is_tried = candidate.is_some();
            self.current.store(Snapshot::new(Arc::clone(set), candidate, self.trust.scores()));
            // It may have been withdrawn in between, which did not see this snapshot.
            if tried().is_some() == is_tried {
                return;
            }
        }
    }

    /// Reads the files again when they have changed. True when another set is in use from here on.
    ///
    /// # Errors
    /// The new set is not good; the old one stays in use.
    pub fn refresh(&self) -> Result<bool, Findings> {
        let mut files = self.files();
        let (before, tried) = (self.version(), self.candidate());
        let changed = files.in_force.look();
        let candidate_changed = files.candidate.as_mut().is_some_and(Files::look);
        if changed || candidate_changed {
            self.take_up(&files);
        }
        let now = self.version();
        let folder = self.folder.display();
        match &files.in_force.broken {
            Some(findings) if changed => {
                tracing::error!(policy = %folder, version = %now, %findings, "the rule set is broken; the last good one stays in use");
                self.tell(&Load::Refused(findings.to_string()));
            }
            None if changed => {
                tracing::info!(policy = %folder, from = %before, to = %now, "another rule set is in use");
                self.tell(&Load::InForce(now.clone()));
            }
            Some(_) | None => {}
        }
        match files.candidate.as_ref().and_then(|files| files.broken.as_ref()) {
            Some(findings) if candidate_changed => {
                tracing::error!(policy = %folder, %findings, "the candidate is broken; what was tried before still is");
                self.tell(&Load::CandidateRefused(findings.to_string()));
            }
            None if candidate_changed || self.candidate() != tried => self.tell(&self.candidate_load(&files)),
            Some(_) | None => {}
        }
        files.in_force.broken.clone().map_or(Ok(now != before), Err)
    }

    fn candidate_load(&self, files: &Folders) -> Load {
        let version = files.candidate.as_ref().and_then(Files::version);
        Load::Candidate(version.filter(|version| *version != self.version()))
    }

    /// What becomes of the files, from the sets in use now on.
    #[must_use]
    pub fn loads(&self) -> UnboundedReceiver<Load> {
        // Nothing is loaded meanwhile.
        let files = self.files();
        let (teller, loads) = mpsc::unbounded();
        // The other end is held here.
        let _sent = teller.unbounded_send(Load::InForce(self.version()));
        let _sent = match files.candidate.as_ref().and_then(|files| files.broken.as_ref()) {
            Some(findings) => teller.unbounded_send(Load::CandidateRefused(findings.to_string())),
            None => teller.unbounded_send(self.candidate_load(&files)),
        };
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

    /// What answers now: the rule sets in use with the scores of this moment.
    fn snapshot(&self) -> Arc<Snapshot> {
        let snapshot = self.current.load_full();
        let scores = self.trust.scores();
        if Arc::ptr_eq(&snapshot.scores, &scores) {
            return snapshot;
        }
        let candidate = snapshot.candidate.as_ref().map(Judge::set);
        let next = Snapshot::new(snapshot.in_force.set(), candidate, scores);
        // Where the files have changed meanwhile, the next question sees both.
        self.current.compare_and_swap(&snapshot, Arc::clone(&next));
        next
    }

    /// The version in force.
    #[must_use]
    pub fn version(&self) -> Name {
        self.current.load().in_force.version()
    }

    /// The version of the candidate that is asked; none where there is none, or it was withdrawn.
    #[must_use]
    pub fn candidate(&self) -> Option<Name> {
        self.current.load().candidate.as_ref().map(Judge::version)
    }

    /// The version of the candidate as its files have it, withdrawn or not.
    #[must_use]
    pub fn offered(&self) -> Option<Name> {
        let files = self.files();
        let version = files.candidate.as_ref()?.version()?;
        (files.in_force.version().as_ref() != Some(&version)).then_some(version)
    }

    /// Whether a candidate is configured.
    #[must_use]
    pub fn is_trying(&self) -> bool {
        self.tried.is_some()
    }

    /// Stores what was counted of the trial of the candidate, and takes over what others did. Gives back the candidate and
    /// its trial, where there is one.
    ///
    /// # Errors
    /// The store fails; what was counted is stored the next time.
    pub async fn sync_trial(
        &self,
        store: &dyn Store,
        by: &Name,
        at: Timestamp,
    ) -> Result<Option<(Name, Trial)>, StoreError> {
        let (Some(tried), Some(candidate)) = (&self.tried, self.offered()) else { return Ok(None) };
        let _alone = tried.storing.lock().await;
        tried.is_open(&candidate);
        let draft = tried.ledger().1.draft();
        let trial = draft.store(store, (&candidate, &tried.config), (by, at)).await?;
        let turned = {
            let mut ledger = tried.ledger();
            // The files may have come to hold another candidate meanwhile.
            if ledger.0 == candidate {
                let was_open = ledger.1.is_open();
                ledger.1.stored(&draft, trial.clone());
                was_open != ledger.1.is_open()
            } else {
                false
            }
        };
        if turned || self.candidate().is_some() != trial.withdrawn.is_none() {
            self.take_up(&self.files());
        }
        Ok(Some((candidate, trial)))
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

    /// The side of a run by a snapshot.
    fn side(&self, snapshot: &Snapshot, asker: &Asker<'_>) -> Option<Choice> {
        let candidate = snapshot.candidate.as_ref()?.version();
        let config = &self.tried.as_ref()?.config;
        Some(config.choice(&candidate, asker.root, asker.scope, asker.kept))
    }
}

impl Policy for LivePolicy {
    fn answer(&self, asker: &Asker<'_>, questions: &[Question]) -> Vec<Verdict> {
        let snapshot = self.snapshot();
        let subject = Subject::of(asker.scope, asker.machine);
        self.trust.know(asker.machine);
        let choice = self.side(&snapshot, asker);
        let beside = choice.as_ref().filter(|choice| choice.chosen).and(snapshot.candidate.as_ref());
        let (judge, other) = match (&choice, beside) {
            (Some(choice), Some(candidate)) if choice.is_candidates() => (candidate, Some(&snapshot.in_force)),
            (_, other) => (&snapshot.in_force, other),
        };
        let version = judge.version();
        let verdict = |question: &Question| {
            let arguments = match question {
                Question::CallTool { arguments, .. } => asker.arguments.get(arguments),
                _ => None,
            };
            let asked = Asked::of(question, asker.machine, arguments);
            let other = other.map(|other| {
                let Ruling { answer, rule, .. } = other.ruling(&subject, asked.clone(), &snapshot.scores);
                Box::new(Other { answer, rule, version: other.version() })
            });
            let Ruling { answer, rule, reason, asking, trust } = judge.ruling(&subject, asked, &snapshot.scores);
            let (question, version, choice) = (question.clone(), version.clone(), choice.clone().map(Box::new));
            let origins = Vec::new();
            Verdict { question, answer, rule, reason, version, origins, asking, trust, choice, other }
        };
        questions.iter().map(verdict).collect()
    }

    fn choice(&self, asker: &Asker<'_>) -> Option<Choice> {
        self.side(&self.snapshot(), asker)
    }

    fn reads_arguments(&self) -> bool {
        let snapshot = self.snapshot();
        std::iter::once(&snapshot.in_force).chain(&snapshot.candidate).any(|judge| judge.set().reads_arguments())
    }

    fn judged(&self, run: &Run, verdicts: &[Verdict]) {
        let Some(tried) = &self.tried else { return };
        let is_withdrawn = {
            let mut ledger = tried.ledger();
            let counts = Counts::of(&ledger.0, verdicts);
            counts.decisions > 0 && ledger.1.count(&tried.config, counts, run)
        };
        if is_withdrawn {
            tracing::error!(policy = %self.folder.display(), "the candidate differs too much and is withdrawn");
            self.current.rcu(|snapshot| Snapshot::new(snapshot.in_force.set(), None, Arc::clone(&snapshot.scores)));
        }
    }

    fn epoch(&self) -> Option<u64> {
        Some(self.snapshot().epoch)
    }

    fn version(&self) -> Option<Name> {
        Some(Self::version(self))
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
