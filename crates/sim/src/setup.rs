//! What is simulated: a machine with its input, and how the world around it answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use windlass_core::contract::Contract;
use windlass_core::eval::Evaluator;
use windlass_core::ids::Name;
use windlass_core::machine::Program;
use windlass_core::value::Value;
use windlass_models::Models;
use windlass_models::scripted::{Script, Scripts};
use windlass_ports::compile::{Bundle, CompileError, Compiler};
use windlass_ports::tool::Catalog;
use windlass_spec::Loaded;
use windlass_spec::compile::SpecCompiler;

use crate::outside::{SimHook, SimModel, SimTool, Way, verifies};
use crate::placeholder::placeholder;
use crate::world::World;

/// A script that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the script cannot be used: {0}")]
pub struct SetupError(String);

/// A machine and the world around it.
#[derive(Clone, Debug)]
pub struct Setup {
    bundle: Bundle,
    program: Arc<Program>,
    compiler: SpecCompiler,
    input: Value,
    /// What tools and actions return; without one, what their contract declares, else a fixed value.
    answers: BTreeMap<Name, Value>,
    /// What signals carry, by channel.
    signals: BTreeMap<Name, Value>,
    script: Option<String>,
    folder: Option<PathBuf>,
}

impl Setup {
    /// A machine with its input. Models answer with a placeholder that fits the schema asked for; so do tools with a
    /// declared result, and others return `{"ok": true}`. Signals carry null.
    #[must_use]
    pub fn new(loaded: &Loaded, input: Value) -> Self {
        Self {
            bundle: loaded.bundle.clone(),
            program: Arc::clone(&loaded.program),
            compiler: SpecCompiler::default(),
            input,
            answers: BTreeMap::new(),
            signals: BTreeMap::new(),
            script: None,
            folder: None,
        }
    }

    /// With a script from which models answer.
    ///
    /// # Errors
    /// Text that is no script.
    pub fn script(mut self, text: &str) -> Result<Self, SetupError> {
        Script::parse(text).map_err(|error| SetupError(error.to_string()))?;
        self.script = Some(text.to_owned());
        Ok(self)
    }

    /// With a folder for the scripts that documents name.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// With what a tool or an action returns.
    #[must_use]
    pub fn answer(mut self, name: impl Into<Name>, value: Value) -> Self {
        self.answers.insert(name.into(), value);
        self
    }

    /// With what signals on a channel carry.
    #[must_use]
    pub fn signal(mut self, channel: impl Into<Name>, data: Value) -> Self {
        self.signals.insert(channel.into(), data);
        self
    }

    /// The machine, compiled.
    #[must_use]
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    pub(crate) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    pub(crate) fn input(&self) -> &Value {
        &self.input
    }

    /// What a signal on a channel carries.
    pub(crate) fn data(&self, channel: &str) -> Value {
        self.signals.get(channel).cloned().unwrap_or_default()
    }

    /// What a tool or an action returns.
    fn returns(&self, contract: &Contract) -> Value {
        let declared = || match &contract.output_schema {
            Value::Null => Value::object([("ok", Value::Bool(true))]),
            schema => placeholder(schema),
        };
        self.answers.get(&contract.name).cloned().unwrap_or_else(declared)
    }

    /// What a tool that was called returned, by its name.
    pub(crate) fn all_returns(&self) -> BTreeMap<Name, Value> {
        self.bundle.tools.iter().map(|contract| (contract.name.clone(), self.returns(contract))).collect()
    }

    /// What the tool behind a key returned.
    pub(crate) fn result(&self, world: &World, key: &str) -> Option<Value> {
        let target = world.target_of(key)?;
        let contract = self.bundle.tools.iter().find(|contract| contract.name == target)?;
        Some(self.returns(contract))
    }

    /// The models that one simulation's processes share.
    pub(crate) fn models(&self) -> Option<Arc<Models>> {
        if self.script.is_none() && self.folder.is_none() {
            return None;
        }
        let mut scripts = Scripts::default();
        if let Some(folder) = &self.folder {
            scripts = scripts.folder(folder);
        }
        if let Some(script) = self.script.as_deref().and_then(|text| Script::parse(text).ok()) {
            scripts = scripts.default_script(script);
        }
        Some(Arc::new(Models::builder().scripts(scripts).script_everything(true).build()))
    }

    /// The models as one process reaches them.
    pub(crate) fn model(&self, way: Way, scripts: Option<Arc<Models>>) -> SimModel {
        SimModel { way, scripts, has_default: self.script.is_some() }
    }

    /// Tools, actions and hooks as one process reaches them.
    pub(crate) fn catalog(&self, way: &Way) -> Catalog {
        let mut catalog = Catalog::default();
        let answers = Arc::new(self.all_returns());
        for contract in &self.bundle.tools {
            let tool = SimTool {
                way: way.clone(),
                answer: self.returns(contract),
                verifies: verifies(&self.bundle.tools, &contract.name),
                answers: Arc::clone(&answers),
                contract: contract.clone(),
            };
            catalog.tools.insert(contract.name.clone(), Arc::new(tool));
        }
        for (name, events) in &self.bundle.hooks {
            catalog.hooks.insert(name.as_str().into(), Arc::new(SimHook { way: way.clone(), events: events.clone() }));
        }
        catalog
    }

    pub(crate) fn compiler(&self) -> Arc<dyn Compiler> {
        Arc::new(Compiled { program: Arc::clone(&self.program), compiler: self.compiler.clone() })
    }
}

/// The one program of a simulation, compiled already.
#[derive(Debug)]
struct Compiled {
    program: Arc<Program>,
    compiler: SpecCompiler,
}

impl Compiler for Compiled {
    fn compile(&self, _: &Bundle) -> Result<Arc<Program>, CompileError> {
        Ok(Arc::clone(&self.program))
    }

    fn evaluator(&self) -> Arc<dyn Evaluator> {
        self.compiler.evaluator()
    }
}
