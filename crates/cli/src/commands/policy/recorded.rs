//! What runs asked, from their journals: every recorded verdict, and what was done without one.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_core::apply;
use windlass_core::effect::Call;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::journal::Entry;
use windlass_core::label::{of_arguments, set_of};
use windlass_core::machine::{Machine, Program};
use windlass_core::policy::{Question, Verdict};
use windlass_core::run::{Run, Start, TenantScope};
use windlass_ports::compile::{Bundle, Compiler};
use windlass_ports::store::Store;

use super::unasked;
use crate::exit::{Exit, Problem};
use crate::journal::{self, Reader};

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
}

/// Reads decisions of runs; programs are compiled once.
pub(super) struct Recorded {
    store: Arc<dyn Store>,
    compiler: Arc<dyn Compiler>,
    programs: BTreeMap<Digest, Arc<Program>>,
}

impl Recorded {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, compiler: windlass::wire::compiler(), programs: BTreeMap::new() }
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
                return Ok(found);
            }
            for record in records {
                let machine = self.machine(&run).await?;
                let mut given: Vec<Verdict> = Vec::new();
                let mut stuck_at = None;
                for entry in &record.entries {
                    if let Entry::Decided { verdicts, .. } = entry {
                        given = verdicts.clone();
                    }
                    let question = question(&machine, &run, entry);
                    let _audited = apply(&mut run, entry);
                    if matches!(entry, Entry::FailureRaised { .. } | Entry::ToolAnswered { .. }) {
                        stuck_at.get_or_insert(run.step);
                    }
                    let Some(question) = question else { continue };
                    let at = given.iter().position(|verdict| verdict.question == question);
                    let was_asked = at.is_some();
                    let verdict = at.map_or_else(|| unasked(question), |at| given.swap_remove(at));
                    found.push(decided(record.version, run.step, &machine, &run, verdict, was_asked));
                }
                // What was denied led to nothing that could be matched.
                let step = stuck_at.unwrap_or(run.step);
                found.extend(given.into_iter().map(|v| decided(record.version, step, &machine, &run, v, true)));
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

fn decided(version: u64, step: u64, machine: &Arc<Machine>, run: &Run, verdict: Verdict, was_asked: bool) -> Decided {
    let Start { scope, root, .. } = run.start.clone();
    Decided { version, step, machine: Arc::clone(machine), scope, root, verdict, was_asked }
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
        Entry::TransitionTaken { from, to, index: Some(_) } => {
            Some(Question::TakeTransition { from: from.clone(), to: to.clone() })
        }
        _ => None,
    }
}
