//! Machines, tools and engines for the tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use indexmap::IndexMap;
use tokio::time::Instant;
use windlass_core::budget::Ceilings;
use windlass_core::contract::{Class, Contract, Idempotency, OnUnknown};
use windlass_core::effect::Spent;
use windlass_core::eval::{Evaluator, Scope as Names};
use windlass_core::failure::Failure;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::input::{Ending, Input, Quote};
use windlass_core::journal::Entry;
use windlass_core::machine::{
    Agent, Condition, Dialect, Engine as Language, Machine, ModelSettings, OnError, Placement, Program, State,
    Template, Transition, VotingRules,
};
use windlass_core::policy::{self, Question, Verdict};
use windlass_core::request::ModelRequest;
use windlass_core::run::{Run, Status};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::clock::Clock;
use windlass_ports::compile::{Bundle, CompileError, Compiler};
use windlass_ports::fake::MemoryStore;
use windlass_ports::model::{Model, ModelResult};
use windlass_ports::policy::{AllowAll, Asker, Policy};
use windlass_ports::store::{Delivered, Message, Signal, Signalled, Store};
use windlass_ports::tool::{Catalog, Invocation, Tool};
use windlass_runtime::{Driven, Engine, Observer, Parts, Report, Scope, Settings, Stop, Submission, events};

/// Time that follows the paused time of the async runtime.
#[derive(Debug)]
pub(crate) struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000 + self.0.elapsed().as_millis() as u64)
    }

    fn seed(&self) -> u64 {
        windlass_runtime::SystemClock::new().seed()
    }
}

/// An evaluator that knows one condition: `panic`.
#[derive(Debug)]
struct Evaluation;

impl Evaluator for Evaluation {
    fn render(&self, _: Dialect, source: &Name, _: &Names) -> Result<Value, Failure> {
        Ok(Value::Str(source.clone()))
    }

    fn holds(&self, condition: &Condition, _: &Names) -> Result<bool, Failure> {
        assert_ne!(&*condition.source, "panic", "asked to panic");
        Ok(true)
    }

    fn fit(&self, _: &Value, value: &Value) -> Result<Value, Vec<String>> {
        Ok(value.clone())
    }

    fn capture(&self, _: &str, _: &str) -> Result<Option<String>, Failure> {
        Ok(None)
    }
}

#[derive(Debug)]
struct Programs(Arc<Program>);

impl Compiler for Programs {
    fn compile(&self, _: &Bundle) -> Result<Arc<Program>, CompileError> {
        Ok(Arc::clone(&self.0))
    }

    fn evaluator(&self) -> Arc<dyn Evaluator> {
        Arc::new(Evaluation)
    }
}

type Act = dyn Fn(Invocation) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync;

/// A tool made of a closure, that counts its calls.
pub(crate) struct FnTool {
    contract: Contract,
    act: Box<Act>,
}

impl std::fmt::Debug for FnTool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FnTool")
    }
}

impl Tool for FnTool {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        (self.act)(invocation)
    }
}

type Answer = dyn Fn(ModelRequest) -> BoxFuture<'static, ModelResult> + Send + Sync;

/// A model made of a closure.
pub(crate) struct FnModel(pub(crate) Box<Answer>);

impl std::fmt::Debug for FnModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FnModel")
    }
}

impl Model for FnModel {
    fn call(&self, request: ModelRequest) -> BoxFuture<'_, ModelResult> {
        (self.0)(request)
    }

    fn quote(&self, _: &ModelSettings) -> Option<Quote> {
        Some(Quote {
            input: 1_000_000,
            output: 1_000_000,
            version: "1".into(),
            beyond: windlass_core::budget::Amounts::ZERO,
        })
    }
}

/// Keeps the events of everything that was committed.
#[derive(Debug, Default)]
pub(crate) struct Events(pub(crate) Mutex<Vec<serde_json::Value>>);

impl Observer for Events {
    fn committed(&self, _: &Run, _: &[Entry]) {}

    fn seen(&self, seen: windlass_runtime::Seen<'_>) {
        let events = events::of(seen).into_iter().map(|event| serde_json::to_value(event).expect("JSON"));
        self.0.lock().expect("lock").extend(events);
    }
}

/// Rules that deny what is said here, and allow everything else. They can be changed while everything runs.
#[derive(Debug)]
pub(crate) struct Rules(pub(crate) Mutex<fn(&Question) -> bool>);

impl Rules {
    pub(crate) fn denying(what: fn(&Question) -> bool) -> Arc<Self> {
        Arc::new(Self(Mutex::new(what)))
    }
}

impl Policy for Rules {
    fn answer(&self, _: &Asker<'_>, questions: &[Question]) -> Vec<Verdict> {
        let denied = *self.0.lock().expect("lock");
        let verdict = |question: &Question| {
            let answer = if denied(question) { policy::Answer::Deny } else { policy::Answer::Allow };
            let (rule, reason, version) = ("rule-7".into(), "not today".into(), "3".into());
            let (question, origins) = (question.clone(), Vec::new());
            Verdict {
                question,
                answer,
                rule,
                reason,
                version,
                origins,
                asking: None,
                trust: None,
                choice: None,
                other: None,
            }
        };
        questions.iter().map(verdict).collect()
    }

    fn allow_unasked(&self) -> bool {
        false
    }
}

/// What a test is made of.
pub(crate) struct Kit {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) events: Arc<Events>,
    pub(crate) settings: Settings,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) policy: Arc<dyn Policy>,
    machines: BTreeMap<Name, Arc<Machine>>,
    tools: BTreeMap<Name, Arc<dyn Tool>>,
    contracts: BTreeMap<Name, Arc<Contract>>,
    clock: Arc<PausedClock>,
}

pub(crate) fn contract(name: &str, class: Class, idempotency: Idempotency) -> Contract {
    Contract { class, idempotency, on_unknown: OnUnknown::Ask, ..Contract::undeclared(name) }
}

/// A read that answers `{"output": 1}` at once, or as the closure says.
pub(crate) fn answer(value: i64) -> Result<Value, Failure> {
    Ok(Value::object([("output", Value::Int(value))]))
}

impl Kit {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(PausedClock(Instant::now()));
        Self {
            store: Arc::new(MemoryStore::with_clock(Arc::clone(&clock) as Arc<dyn Clock>)),
            events: Arc::default(),
            settings: Settings::default(),
            model: Arc::new(FnModel(Box::new(|_| {
                let outcome = Err(Failure::new(windlass_core::failure::Code::ProviderUnknown, "no model"));
                Box::pin(async { ModelResult { outcome, spent: Spent::Nothing } })
            }))),
            policy: Arc::new(AllowAll),
            machines: BTreeMap::new(),
            tools: BTreeMap::new(),
            contracts: BTreeMap::new(),
            clock,
        }
    }

    pub(crate) fn tool<F>(&mut self, contract: Contract, act: impl Fn(Invocation) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Value, Failure>> + Send + 'static,
    {
        let name = contract.name.clone();
        self.contracts.insert(name.clone(), Arc::new(contract.clone()));
        let act: Box<Act> = Box::new(move |invocation| Box::pin(act(invocation)));
        self.tools.insert(name, Arc::new(FnTool { contract, act }));
    }

    /// A tool that is no closure.
    pub(crate) fn own_tool(&mut self, tool: Arc<dyn Tool>) {
        let contract = tool.contract().clone();
        self.tools.insert(contract.name.clone(), tool);
        self.contracts.insert(contract.name.clone(), Arc::new(contract));
    }

    /// A read tool that answers at once.
    pub(crate) fn read(&mut self, name: &str) {
        self.tool(contract(name, Class::Read, Idempotency::None), |_| async { answer(1) });
    }

    /// Adds a machine. The first is the one that runs start with; later ones are known to all by their name.
    pub(crate) fn machine(&mut self, name: &str, states: Vec<State>) {
        self.machine_with(name, states, Ceilings::default());
    }

    pub(crate) fn machine_with(&mut self, name: &str, states: Vec<State>, ceilings: Ceilings) {
        let initial = states[0].name.clone();
        let states: IndexMap<Name, State> = states.into_iter().map(|state| (state.name.clone(), state)).collect();
        let machine = Machine {
            key: name.into(),
            name: name.into(),
            spec_version: "4.2".into(),
            bundle: Digest::ZERO,
            engine: Language::Simple,
            context: Vec::new(),
            states,
            initial,
            agents: BTreeMap::new(),
            machines: ["child", "other"].map(|name| (name.into(), name.into())).into_iter().collect(),
            tools: self.contracts.clone(),
            offered_tools: Vec::new(),
            searched_tools: Vec::new(),
            lifecycle: Vec::new(),
            ceilings,
            input_schema: None,
            output_schema: None,
            skills: windlass_core::skill::Skills::default(),
            tool_index: windlass_core::select::Indexed::default(),
            child_contracts: BTreeMap::new(),
            placement: Placement::default(),
            provenance: windlass_core::machine::Provenance::default(),
            conversation: windlass_core::near::Conversation::default(),
            near_percent: windlass_core::near::NEAR_PERCENT,
            tables: BTreeMap::new(),
        };
        self.machines.insert(name.into(), Arc::new(machine));
    }

    /// Says which workers take the runs of a machine.
    pub(crate) fn place(&mut self, name: &str, placement: Placement) {
        let machine = self.machines.get_mut(name).expect("a machine");
        Arc::make_mut(machine).placement = placement;
    }

    /// Gives a machine an agent with a model of some provider.
    pub(crate) fn agent(&mut self, name: &str) {
        let template = || Template::Path(vec!["input".into()]);
        let model = ModelSettings {
            provider: "somebody".into(),
            model: "small".into(),
            base_url: None,
            key: None,
            max_tokens: None,
            stream: false,
            params: Value::Null,
            timeout_ms: 1_000,
        };
        let agent = Agent {
            name: "writer".into(),
            document: "writer.yml".into(),
            hash: Digest::ZERO,
            model,
            system: template(),
            user: template(),
            instruction_suffix: template(),
            post_history: template(),
            output_schema: None,
            tools: Vec::new(),
            voting: VotingRules::default(),
        };
        let machine = self.machines.get_mut(name).expect("a machine");
        Arc::make_mut(machine).agents.insert("writer".into(), Arc::new(agent));
    }

    /// An engine of another process whose configuration lacks a tool.
    pub(crate) fn without(&mut self, tool: &str) -> Engine {
        let tool = self.tools.remove_entry(tool).expect("a tool");
        let engine = self.another();
        self.tools.insert(tool.0, tool.1);
        engine
    }

    pub(crate) fn program(&self) -> Arc<Program> {
        Arc::new(Program {
            bundle: Digest::ZERO,
            entry: "main".into(),
            machines: self.machines.clone(),
            tools: self.contracts.clone(),
        })
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine_on(Arc::clone(&self.store) as Arc<dyn Store>)
    }

    /// An engine as another process would have it: with its own handle on the store.
    pub(crate) fn another(&self) -> Engine {
        self.engine_on(Arc::new(self.store.another()))
    }

    pub(crate) fn engine_on(&self, store: Arc<dyn Store>) -> Engine {
        Engine::new(Parts {
            store,
            compiler: Arc::new(Programs(self.program())),
            model: Arc::clone(&self.model),
            catalog: Arc::new(Catalog { tools: self.tools.clone(), hooks: BTreeMap::new() }),
            policy: Arc::clone(&self.policy),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            observer: Arc::clone(&self.events) as Arc<dyn Observer>,
            settings: self.settings.clone(),
        })
    }

    pub(crate) async fn submit(&self, engine: &Engine, id: &str) -> RunId {
        self.submit_with(engine, id, Value::Null).await
    }

    pub(crate) async fn submit_with(&self, engine: &Engine, id: &str, input: Value) -> RunId {
        engine.submit(self.submission(id, input)).await.expect("submitted").run_id
    }

    pub(crate) fn submission(&self, id: &str, input: Value) -> Submission {
        Submission { run_id: Some(RunId::stored(id)), ..Submission::new(Bundle::default(), self.program(), input) }
    }

    pub(crate) async fn signal(&self, channel: &str, data: Value) -> Signalled {
        let signal = Signal {
            id: format!("{channel}-{data}").into(),
            channel: channel.into(),
            run: None,
            data,
            at: self.clock.now(),
        };
        self.store.signal(signal).await.expect("signal")
    }

    pub(crate) async fn deliver(&self, run: &RunId, id: &str, input: Input) -> Delivered {
        self.store.deliver(Message { to: run.clone(), id: id.into(), input }).await.expect("deliver")
    }

    pub(crate) async fn fsck(&self) {
        assert_eq!(self.store.fsck().await.expect("fsck"), Vec::new());
    }

    /// Kinds of all events so far, of one run.
    pub(crate) fn kinds(&self, run: &RunId) -> Vec<String> {
        let events = self.events.0.lock().expect("lock");
        let of_run = events.iter().filter(|event| event["run_id"] == run.as_str());
        of_run.map(|event| event["event"].as_str().expect("kind").to_owned()).collect()
    }
}

pub(crate) fn state(name: &str) -> State {
    State {
        name: name.into(),
        is_final: false,
        wait: None,
        action: None,
        arguments: None,
        launch: None,
        call: None,
        agent: None,
        output: None,
        output_to_context: Vec::new(),
        hooks: Vec::new(),
        on_error: OnError::default(),
        transitions: Vec::new(),
        timeout_ms: None,
    }
}

pub(crate) fn to(next: &str) -> Vec<Transition> {
    vec![Transition { condition: None, to: next.into() }]
}

/// A state that performs an action and keeps its output in the context.
pub(crate) fn acting(name: &str, action: &str, next: &str) -> State {
    let kept = (Name::from(name), Template::Path(vec!["output".into()]));
    State { action: Some(action.into()), output_to_context: vec![kept], transitions: to(next), ..state(name) }
}

/// A final state whose output is the context.
pub(crate) fn done() -> State {
    State { is_final: true, output: Some(Template::Path(vec!["context".into()])), ..state("done") }
}

pub(crate) async fn tree(engine: &Engine, run: &RunId) -> Driven {
    engine.drive(Scope::Tree(run.clone()), Stop::new()).await.expect("driven")
}

pub(crate) async fn report(engine: &Engine, run: &RunId) -> Report {
    engine.status(run).await.expect("status").expect("exists")
}

pub(crate) async fn output(engine: &Engine, run: &RunId) -> Value {
    let report = report(engine, run).await;
    assert_eq!(report.head.status, Status::Completed, "{:?}", report.run.ending);
    match report.run.ending {
        Some(Ending::Completed { output }) => output,
        other => panic!("{other:?}"),
    }
}
