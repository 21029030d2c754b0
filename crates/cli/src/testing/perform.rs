//! Runs one case: memory store, scripted models, scripted tools, and a clock that jumps to the next timer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use windlass::wire;
use windlass_core::approval::{self, Reply};
use windlass_core::budget::Amounts;
use windlass_core::contract::Contract;
use windlass_core::effect::Call;
use windlass_core::failure::{Code, Failure};
use windlass_core::ids::{EffectId, Name, RunId};
use windlass_core::input::{Ending, Input};
use windlass_core::journal::Entry;
use windlass_core::machine::{HookKind, Program};
use windlass_core::run::{Run, Status};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_models::scripted::{Script, Scripts};
use windlass_ports::BoxFuture;
use windlass_ports::clock::Clock;
use windlass_ports::fake::MemoryStore;
use windlass_ports::policy::AllowAll;
use windlass_ports::store::{Message, Signal, Store};
use windlass_ports::tool::{Catalog, Hook, HookEvent, Invocation, Tool};
use windlass_runtime::{Engine, Observer, Parts, Report, Scope, Settings, Stop, Submission, Waiting};
use windlass_spec::Loaded;

use super::Performed;
use super::case::{Answers, Case, CaseApproval, TestFile};

use super::compare::Seen;
use super::served::Served;
use crate::exit::Problem;
use crate::outcome;

/// The longest a case may take, on its own clock: a year.
const WAIT_MS: u64 = 365 * 24 * 3_600_000;
/// How long a case that is expected to wait looks at timers: as long as `windlass run` does.
const PARKED_MS: u64 = 60_000;
/// When every case begins, in milliseconds since 1970: a fixed time, so that cases are the same each time.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// Runs a case of a machine.
///
/// # Errors
/// A script or an input that cannot be used, or a fault of the engine.
pub(crate) fn perform(
    loaded: &Loaded,
    file: &TestFile,
    case: &Case,
    folder: &Path,
    served: &Served,
) -> Result<Performed, Problem> {
    let begun = std::time::Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| Problem::bug(format!("a test cannot be started: {error}")))?;
    let seen = runtime.block_on(run(loaded, file, case, folder, served))?;
    Ok(Performed { seen, seconds: begun.elapsed().as_secs_f64() })
}

async fn run(loaded: &Loaded, file: &TestFile, case: &Case, folder: &Path, served: &Served) -> Result<Seen, Problem> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = Arc::new(CaseClock::new());
    let people = People { store: Arc::clone(&store), answers: Mutex::new(case.approvals.clone()) };
    let tally = Arc::new(Tally::new(Arc::clone(&loaded.program), people));
    let models = served.models(scripts(file, case, folder)?);
    let engine = Engine::new(Parts {
        store: Arc::clone(&store),
        compiler: wire::compiler(),
        model: models,
        catalog: Arc::new(catalog(loaded, file, case)),
        policy: Arc::new(AllowAll),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        observer: Arc::clone(&tally) as Arc<dyn Observer>,
        settings: Settings {
            wait_ms: if case.expect.status() == Status::Waiting.as_str() { PARKED_MS } else { WAIT_MS },
            ..Settings::default()
        },
    });
    for (number, signal) in case.signals.iter().enumerate() {
        let signal = Signal {
            id: format!("case-{number}").into(),
            channel: signal.channel.as_str().into(),
            run: None,
            data: Value::from(signal.data.clone()),
            at: clock.now(),
        };
        store.signal(signal).await?;
    }
    let submission = Submission {
        run_id: Some(RunId::stored("case")),
        ceilings: windlass_core::budget::Ceilings { steps: case.max_steps, ..Default::default() },
        ..Submission::new(
            loaded.bundle.clone(),
            Arc::clone(&loaded.program),
            if case.input.is_null() { Value::empty_map() } else { Value::from(case.input.clone()) },
        )
    };
    let run = engine.submit(submission).await.map_err(outcome::submit_problem)?.run_id;
    engine.drive(Scope::Tree(run.clone()), Stop::new()).await.map_err(outcome::engine_problem)?;
    let report = engine.status(&run).await.map_err(outcome::engine_problem)?;
    let report = report.ok_or_else(|| Problem::bug("the run of a case is gone"))?;
    let counted = tally.counted();
    let error = match &report.run.ending {
        Some(Ending::Failed { failure, .. }) => Some((failure.code.to_string(), failure.message.to_string())),
        _ => None,
    };
    let output = match &report.run.ending {
        Some(Ending::Completed { output }) => output.into(),
        _ => serde_json::Value::Null,
    };
    Ok(Seen {
        status: status(&report).to_owned(),
        output,
        error,
        states: counted.states.clone(),
        effects: counted.effects.clone(),
        waits: report.waits.iter().filter_map(waited_on).map(str::to_owned).collect(),
        cost_micros: report.run.used().cost_micros,
        tokens: report.run.used().tokens,
        steps: report.run.step,
    })
}

/// The status as `windlass run` says it: a run that asks for an approval waits.
fn status(report: &Report) -> &'static str {
    match report.run.status() {
        Status::Attention if report.waits.iter().any(|wait| wait.approval.is_some()) => Status::Waiting.as_str(),
        status => status.as_str(),
    }
}

fn waited_on(wait: &Waiting) -> Option<&str> {
    wait.channel.as_deref().or_else(|| wait.approval.as_ref().map(|_| "approval"))
}

fn scripts(file: &TestFile, case: &Case, folder: &Path) -> Result<Scripts, Problem> {
    let scripts = Scripts::default().folder(folder);
    let Some(given) = case.script.as_ref().or(file.script.as_ref()) else { return Ok(scripts) };
    let (text, name) = match given.as_str() {
        Some(path) => {
            let path = folder.join(path);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Problem::invalid(format!("cannot read `{}`: {error}", path.display())))?;
            (text, path.display().to_string())
        }
        None => (super::as_text(given), format!("the script of case `{}`", case.name)),
    };
    let script = Script::parse(&text).map_err(|error| {
        let place = if given.is_string() && error.line > 0 { format!(", line {}", error.line) } else { String::new() };
        Problem::invalid(format!("{name}{place}: {}", error.message))
    })?;
    Ok(scripts.default_script(script))
}

/// Scripted tools and actions, and hooks that answer nothing.
fn catalog(loaded: &Loaded, file: &TestFile, case: &Case) -> Catalog {
    let mut catalog = Catalog::default();
    let answered: BTreeSet<&String> = file.answers.keys().chain(case.answers.keys()).collect();
    let known: BTreeSet<&str> = loaded.bundle.tools.iter().map(|tool| &*tool.name).collect();
    let added = answered.iter().filter(|name| !known.contains(name.as_str())).map(|name| Contract::undeclared(name));
    for contract in loaded.bundle.tools.iter().cloned().chain(added) {
        let name = contract.name.clone();
        let answers = case.answers.get(&*name).or_else(|| file.answers.get(&*name)).cloned();
        catalog.tools.insert(name, Arc::new(Double { contract, answers, calls: AtomicUsize::new(0) }));
    }
    for (name, events) in &loaded.bundle.hooks {
        catalog.hooks.insert(name.as_str().into(), Arc::new(Quiet { events: events.clone() }));
    }
    catalog
}

/// A tool or action that answers what the case says.
#[derive(Debug)]
struct Double {
    contract: Contract,
    answers: Option<Answers>,
    calls: AtomicUsize,
}

impl Tool for Double {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn call(&self, _: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let name = &self.contract.name;
        let result = match self.answers.as_ref().and_then(|answers| answers.nth(number)) {
            None => Err(Failure::new(
                Code::ToolFailed,
                format!("the test has no answer for `{name}`; add it under `answers`"),
            )),
            Some(answer) => match (&answer.returns, &answer.fails) {
                (_, Some(message)) => Err(Failure::new(Code::ToolFailed, message)),
                (returns, None) => Ok(returns.clone().map(Value::from).unwrap_or_default()),
            },
        };
        Box::pin(std::future::ready(result))
    }
}

/// A hook that answers nothing.
#[derive(Debug)]
struct Quiet {
    events: Vec<HookKind>,
}

impl Hook for Quiet {
    fn events(&self) -> &[HookKind] {
        &self.events
    }

    fn include_machine(&self) -> bool {
        false
    }

    fn call(&self, _: HookEvent) -> BoxFuture<'_, Result<Value, Failure>> {
        Box::pin(std::future::ready(Ok(Value::Null)))
    }
}

/// The clock of a case: the paused clock of its async runtime, which jumps to the next timer when all else waits.
#[derive(Debug)]
struct CaseClock {
    begun: Instant,
    seed: AtomicU64,
}

impl CaseClock {
    fn new() -> Self {
        Self { begun: Instant::now(), seed: AtomicU64::new(1) }
    }
}

impl Clock for CaseClock {
    fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp(BEGIN_MS).plus_ms(passed)
    }

    fn seed(&self) -> u64 {
        self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst)
    }
}

/// Counts what happens.
#[derive(Debug)]
struct Tally {
    program: Arc<Program>,
    counted: Mutex<Counted>,
    people: People,
}

/// Those who answer what calls ask.
#[derive(Debug)]
struct People {
    store: Arc<dyn Store>,
    answers: Mutex<Vec<CaseApproval>>,
}

impl People {
    /// Answers a question, if the case says how.
    fn asked(&self, run: &Run, effect: EffectId, wait: EffectId) {
        let Some(open) = run.calls.get(&effect) else { return };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |answer: &CaseApproval| answer.call.as_deref().is_none_or(|call| call == &**open.call.target());
        let Some(place) = answers.iter().position(fits) else { return };
        let answer = answers.remove(place);
        let reply = Reply {
            wait,
            approve: answer.approve,
            by: answer.by.into(),
            reason: answer.reason.into(),
            shown: approval::shown(run.id(), wait, effect, open),
            arguments: answer.arguments.map(Value::from),
            raise: Amounts::ZERO,
            at: None,
        };
        let message =
            Message { to: run.id().clone(), id: reply.delivery_id(), input: Input::Approved(Box::new(reply)) };
        let store = Arc::clone(&self.store);
        tokio::spawn(async move { store.deliver(message).await });
    }
}

#[derive(Debug, Default)]
struct Counted {
    states: Vec<String>,
    effects: BTreeMap<String, u64>,
}

impl Counted {
    fn of(&mut self, name: &str) -> Option<&mut u64> {
        self.effects.get_mut(name)
    }
}

impl Tally {
    fn new(program: Arc<Program>, people: People) -> Self {
        Self { program, counted: Mutex::default(), people }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `kind.name` of a call. An action that no catalog implements is a hook's: it is an action all the same.
    fn call_name(&self, run: &Run, call: &Call) -> String {
        if let Call::Hook { event: HookKind::Action, .. } = call {
            let machine = self.program.machines.get(&run.start.machine);
            let action = machine.zip(run.state.as_ref()).and_then(|(m, s)| m.states.get(s)?.action.clone());
            return format!("action.{}", action.as_deref().unwrap_or_default());
        }
        format!("{}.{}", call.kind(), call.target())
    }

    /// The name by which a run knows the machine of a child.
    fn machine_name(&self, run: &Run, key: &Name) -> String {
        let machine = self.program.machines.get(&run.start.machine);
        let known = machine.and_then(|machine| machine.machines.iter().find(|(_, child)| *child == key));
        known.map_or_else(|| key.to_string(), |(name, _)| name.to_string())
    }
}

impl Observer for Tally {
    fn committed(&self, run: &Run, entries: &[Entry]) {
        let mut counted = self.counted();
        for entry in entries {
            let name = match entry {
                Entry::StateEntered { state } if run.start.parent.is_none() => {
                    counted.states.push(state.to_string());
                    continue;
                }
                Entry::CallIntended { call, .. } => self.call_name(run, &call.call),
                Entry::ApprovalAsked { effect, wait, .. } => {
                    self.people.asked(run, *effect, *wait);
                    // It has not left, and counts once somebody agrees.
                    if let Some(count) =
                        run.calls.get(effect).and_then(|open| counted.of(&self.call_name(run, &open.call)))
                    {
                        *count -= 1;
                    }
                    continue;
                }
                Entry::ApprovalAnswered { effect, answer: approval::Answer::Approved, .. } => {
                    match run.calls.get(effect) {
                        Some(open) => self.call_name(run, &open.call),
                        None => continue,
                    }
                }
                Entry::ChildStarted { child, .. } => format!("machine.{}", self.machine_name(run, &child.machine)),
                _ => continue,
            };
            *counted.effects.entry(name).or_default() += 1;
        }
    }
}
