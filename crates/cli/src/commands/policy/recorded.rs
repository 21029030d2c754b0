//! What runs asked, from their journals: every recorded verdict, and what was done without one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use windlass_core::effect::Call;
use windlass_core::hidden::{Hidden, Veil};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::journal::Entry;
use windlass_core::label::{of_arguments, set_of};
use windlass_core::machine::{Machine, Program};
use windlass_core::near::ON_NEAR;
use windlass_core::policy::{Question, Verdict};
use windlass_core::run::{Run, Start, TenantScope};
use windlass_core::value::Value;
use windlass_core::{apply, arguments};
use windlass_policy::Asked;
use windlass_ports::compile::{Bundle, Compiler};
use windlass_ports::store::{Query, Store};

use super::unasked;
use crate::exit::{Exit, Problem};
use crate::journal::{self, Reader};

/// Runs read from the store at a time.
const PAGE_RUNS: usize = 200;

/// One decision of a run.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    /// The version of the run that it led to.
    pub(super) version: u64,
    /// The step it was about.
    pub(super) step: u64,
    /// The machine as the run had it.
    pub(super) machine: Arc<Machine>,
    /// Whose run it is.
    pub(super) scope: TenantScope,
    /// The run that a caller started.
    pub(super) root: RunId,
    /// What was answered; allowed when nobody was asked.
    pub(super) verdict: Verdict,
    /// Whether the rules were asked.
    pub(super) was_asked: bool,
    /// What was asked, as rules see it. Without the arguments of a call where nobody looks at them.
    pub(super) asked: Asked,
}

/// Reads decisions of runs; programs are compiled once.
pub(super) struct Recorded {
    store: Arc<dyn Store>,
    compiler: Arc<dyn Compiler>,
    programs: BTreeMap<Digest, Arc<Program>>,
    /// Whether somebody looks at arguments of calls.
    with_arguments: bool,
    /// Over what is shown of the run that was read last.
    veil: Veil,
}

impl Recorded {
    pub(super) fn new(store: Arc<dyn Store>, with_arguments: bool) -> Self {
        let (compiler, veil) = (windlass::wire::compiler(), Hidden::default().veil());
        Self { store, compiler, programs: BTreeMap::new(), with_arguments, veil }
    }

    /// What hides values of the run that was read last.
    pub(super) fn veil(&self) -> &Veil {
        &self.veil
    }

    /// The decisions of a run, in order.
    ///
    /// # Errors
    /// The store cannot be read, or its content is damaged.
    pub(super) async fn of(&mut self, id: &RunId) -> Result<Vec<Decided>, Problem> {
        let mut run = Run::blank(journal::start(&*self.store, id).await?);
        let mut reader = Reader::new(Arc::clone(&self.store), id.clone(), 0);
        let mut found = Vec::new();
        loop {
            let records = reader.next(usize::MAX).await?;
            if records.is_empty() {
                self.veil = run.hidden.veil();
                return Ok(found);
            }
            for record in records {
                let machine = self.machine(&run).await?;
                let mut given: Vec<Verdict> = Vec::new();
                let mut stuck_at = None;
                let mut known = BTreeMap::new();
                if self.with_arguments {
                    known = arguments(&machine, &run, None);
                }
                for entry in &record.entries {
                    if let Entry::Decided { verdicts, .. } = entry {
                        given = verdicts.clone();
                    }
                    let question = question(&machine, &run, entry);
                    let _audited = apply(&mut run, entry);
                    if self.with_arguments {
                        known.extend(arguments(&machine, &run, None));
                    }
                    if matches!(entry, Entry::FailureRaised { .. } | Entry::ToolAnswered { .. }) {
                        stuck_at.get_or_insert(run.step);
                    }
                    let Some(question) = question else { continue };
                    let at = given.iter().position(|verdict| is_same(&verdict.question, &question));
                    let was_asked = at.is_some();
                    let asked = asked(&question, &machine, &known);
                    let verdict = at.map_or_else(|| unasked(question), |at| given.swap_remove(at));
                    found.push(decided(record.version, run.step, &machine, &run, (verdict, asked), was_asked));
                }
                // What was denied led to nothing that could be matched.
                let step = stuck_at.unwrap_or(run.step);
                found.extend(given.into_iter().map(|verdict| {
                    let question = &verdict.question;
                    let asked = match is_filled(question, &machine, &run) {
                        true => asked(question, &machine, &known).with_unknown_arguments(),
                        false => asked(question, &machine, &known),
                    };
                    decided(record.version, step, &machine, &run, (verdict, asked), true)
                }));
            }
        }
    }

    async fn machine(&mut self, run: &Run) -> Result<Arc<Machine>, Problem> {
        let bundle = run.start.bundle;
        if !self.programs.contains_key(&bundle) {
            let missing = || {
                let message = format!("the bundle {} is missing", bundle.short());
                Problem::new(Exit::Unreachable, "store.corrupt", message)
            };
            let bytes = self.store.blob(bundle).await?.ok_or_else(missing)?;
            let decoded = Bundle::decode(&bytes).map_err(|_| missing())?;
            let program = self
                .compiler
                .compile(&decoded)
                .map_err(|error| Problem::new(Exit::Rejected, "spec.invalid", error.to_string()))?;
            self.programs.insert(bundle, program);
        }
        let machine = self.programs.get(&bundle).and_then(|program| program.machines.get(&run.start.machine));
        machine.cloned().ok_or_else(|| {
            let message = format!("the documents of run `{}` have no machine `{}`", run.id(), run.start.machine);
            Problem::new(Exit::Unreachable, "store.corrupt", message)
        })
    }
}

fn decided(
    version: u64,
    step: u64,
    machine: &Arc<Machine>,
    run: &Run,
    (verdict, asked): (Verdict, Asked),
    was_asked: bool,
) -> Decided {
    let Start { scope, root, .. } = run.start.clone();
    Decided { version, step, machine: Arc::clone(machine), scope, root, verdict, was_asked, asked }
}

/// A question as rules see it, with what is known of arguments.
fn asked(question: &Question, machine: &Machine, known: &BTreeMap<Digest, Value>) -> Asked {
    let arguments = match question {
        Question::CallTool { arguments, .. } => known.get(arguments),
        _ => None,
    };
    Asked::of(question, machine, arguments)
}

/// Whether what was asked is what an entry needed an answer to. Of a tool that a state calls, rules that look at no
/// arguments are not told them.
fn is_same(asked: &Question, needed: &Question) -> bool {
    match (asked, needed) {
        (
            Question::CallTool { tool, arguments, agent: None, labels },
            Question::CallTool { tool: needed, agent: None, labels: of_needed, .. },
        ) if *arguments == Digest::ZERO => tool == needed && labels == of_needed,
        (asked, needed) => asked == needed,
    }
}

/// Whether a question about a tool left out arguments that the state of a run had filled in.
fn is_filled(question: &Question, machine: &Machine, run: &Run) -> bool {
    let Question::CallTool { tool, arguments, agent: None, .. } = question else { return false };
    let state = run.state.as_ref().and_then(|state| machine.states.get(state));
    *arguments == Digest::ZERO
        && state.is_some_and(|state| state.arguments.is_some() && state.action.as_ref() == Some(tool))
}

/// Decisions of the newest runs, one run after another.
pub(super) struct Newest {
    recorded: Recorded,
    machine: Option<Name>,
    /// Runs that are still to be read.
    left: usize,
    page: VecDeque<RunId>,
    cursor: Option<String>,
    /// No page comes after this one.
    is_last: bool,
}

impl Newest {
    /// Of at most `last` runs, newest first; of this machine, where one is named.
    pub(super) fn new(recorded: Recorded, last: usize, machine: Option<&str>) -> Self {
        let machine = machine.map(Name::from);
        Self { recorded, machine, left: last, page: VecDeque::new(), cursor: None, is_last: false }
    }

    /// The decisions of the next run.
    ///
    /// # Errors
    /// The store cannot be read, or its content is damaged.
    pub(super) async fn next(&mut self) -> Result<Option<(RunId, Vec<Decided>)>, Problem> {
        while self.page.is_empty() && !self.is_last && self.left > 0 {
            let (machine, cursor) = (self.machine.clone(), self.cursor.take());
            let limit = PAGE_RUNS.min(self.left);
            let page = self.recorded.store.list(Query { machine, cursor, limit, ..Query::default() }).await?;
            self.page.extend(page.heads.into_iter().map(|head| head.id).take(self.left));
            self.is_last = page.next.is_none();
            self.cursor = page.next;
        }
        let Some(run) = self.page.pop_front() else { return Ok(None) };
        self.left -= 1;
        let decisions = self.recorded.of(&run).await?;
        Ok(Some((run, decisions)))
    }
}

/// What an entry needed an answer to. The run is as it was before the entry.
fn question(machine: &Machine, run: &Run, entry: &Entry) -> Option<Question> {
    let tool = |tool: &Name, arguments: Digest, agent: Option<Name>| {
        let labels = set_of(&of_arguments(run, agent.is_some()));
        Some(Question::CallTool { tool: tool.clone(), arguments, agent, labels })
    };
    match entry {
        Entry::CallIntended { call, .. } => match &call.call {
            Call::Model { agent, .. } => {
                let model = machine.agents.get(agent)?.model.model.clone();
                Some(Question::CallModel { agent: agent.clone(), model })
            }
            Call::Tool { tool: name, arguments, .. } => {
                tool(name, arguments.digest(), run.exec.as_ref().map(|exec| exec.agent.clone()))
            }
            Call::Action { action } => tool(action, Digest::ZERO, None),
            // A tool that settles doubts is named by the contract of the tool in doubt; hooks are configured.
            Call::Verify { .. } | Call::Hook { .. } => None,
        },
        Entry::ChildStarted { child, .. } => Some(Question::StartMachine { machine: child.machine.clone() }),
        // Where a hook leads nobody asks, nor where a conversation is shortened.
        Entry::FailureRouted { from, to, by } if &**by != "hook" && &**by != ON_NEAR => {
            Some(Question::TakeTransition { from: from.clone(), to: to.clone() })
        }
        Entry::TransitionTaken { from, to, index: Some(_) } => {
            Some(Question::TakeTransition { from: from.clone(), to: to.clone() })
        }
        _ => None,
    }
}
