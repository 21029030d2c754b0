//! The builder for embedding: a store, models, tools and functions of the program become an engine that runs machines.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use windlass_core::budget::Ceilings;
use windlass_core::contract::Contract;
use windlass_core::failure::Failure;
use windlass_core::ids::{Name, RunId};
use windlass_core::input::Ending;
use windlass_core::value::Value;
use windlass_models::scripted::{Script, Scripts};
use windlass_policy::{CandidateConfig, TrustConfig};
use windlass_ports::model::Model;
use windlass_ports::store::{Signal, Signalled, StoreError};
use windlass_ports::tool::{Catalog, Hook, Tool};
use windlass_runtime::{
    Driven, Engine, EngineError, Observer, Parts, Scope, Settings, Silent, Stop, Submission, SubmitError, SystemClock,
    Waiting,
};
use windlass_spec::diagnostics::Diagnostic;
use windlass_spec::skill::Pack;
use windlass_spec::source::{DirFiles, Files, MemoryFiles};
use windlass_spec::{LoadOptions, ModelNames, load};
use windlass_tools::FnTool;

use crate::wire::{self, ProviderConfig, WireError, Wiring};

/// The name of a document that is given as text.
const TEXT_ENTRY: &str = "machine.yml";

/// What can go wrong between a program and its runs. A run that fails is not an error: see [`Outcome`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(#[from] WireError),
    /// The document is not valid.
    #[error("the machine is not valid: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Document(Vec<Diagnostic>),
    /// The script is not valid.
    #[error("the script is not valid: {0}")]
    Script(String),
    /// The run cannot be submitted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The engine cannot go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run did not end with an output.
    #[error("run `{run_id}` {how}")]
    NoOutput {
        /// The run.
        run_id: RunId,
        /// What it did instead.
        how: String,
    },
}

/// How a run stands when driving it ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It ended with an output.
    Completed {
        /// The run.
        run_id: RunId,
        /// Its output.
        output: Value,
    },
    /// It ended with a failure.
    Failed {
        /// The run.
        run_id: RunId,
        /// The failure.
        failure: Failure,
        /// The state it happened in.
        state: Option<Name>,
    },
    /// It was cancelled.
    Cancelled {
        /// The run.
        run_id: RunId,
        /// Why.
        reason: Name,
    },
    /// It waits; [`Windlass::resume`] goes on with it.
    Parked {
        /// The run.
        run_id: RunId,
        /// What it and everything below it waits for.
        waits: Vec<Waiting>,
    },
}

impl Outcome {
    /// The run.
    #[must_use]
    pub fn run_id(&self) -> &RunId {
        match self {
            Self::Completed { run_id, .. }
            | Self::Failed { run_id, .. }
            | Self::Cancelled { run_id, .. }
            | Self::Parked { run_id, .. } => run_id,
        }
    }

    /// The output.
    ///
    /// # Errors
    /// The run did not complete.
    pub fn output(self) -> Result<Value, Error> {
        match self {
            Self::Completed { output, .. } => Ok(output),
            Self::Failed { run_id, failure, .. } => Err(Error::NoOutput { run_id, how: format!("failed: {failure}") }),
            Self::Cancelled { run_id, reason } => {
                Err(Error::NoOutput { run_id, how: format!("was cancelled: {reason}") })
            }
            Self::Parked { run_id, .. } => Err(Error::NoOutput { run_id, how: "is parked".into() }),
        }
    }
}

/// Builds a [`Windlass`].
#[derive(Debug)]
pub struct Builder {
    store: String,
    keys: Option<windlass_stores::Keyring>,
    wiring: Wiring,
    tools: Vec<Arc<dyn Tool>>,
    hooks: Vec<(String, Arc<dyn Hook>)>,
    script: Option<String>,
    model: Option<Arc<dyn Model>>,
    observer: Arc<dyn Observer>,
    settings: Settings,
    ceilings: Ceilings,
    strict: bool,
    skills: Vec<Arc<Pack>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            store: "memory:".into(),
            keys: None,
            wiring: Wiring::default(),
            tools: Vec::new(),
            hooks: Vec::new(),
            script: None,
            model: None,
            observer: Arc::new(Silent),
            settings: Settings::default(),
            ceilings: Ceilings::default(),
            strict: false,
            skills: Vec::new(),
        }
    }
}

impl Builder {
    /// Where runs are stored: `sqlite:PATH`, `postgres://HOST/DATABASE`, or `memory:` for nothing that lasts. Default:
    /// `memory:`.
    #[must_use]
    pub fn store(mut self, url: impl Into<String>) -> Self {
        self.store = url.into();
        self
    }

    /// Keys that the store is encrypted with. One that holds nothing is encrypted from then on; `windlass store rekey`
    /// encrypts one that does. Default: nothing is encrypted.
    #[must_use]
    pub fn keys(mut self, keys: windlass_stores::Keyring) -> Self {
        self.keys = Some(keys);
        self
    }

    /// A function as the action `name`: takes the run's context, gives the action's output. Its contract is that of an
    /// undeclared action, which is never repeated blindly; [`Builder::tool`] takes a [`FnTool`] with a contract.
    #[must_use]
    pub fn action<F>(self, name: &str, function: F) -> Self
    where
        F: Fn(&Value) -> Result<Value, Failure> + Send + Sync + 'static,
    {
        self.tool(FnTool::sync(Contract::undeclared(name), move |invocation| {
            let context = invocation.arguments.get("context").cloned().unwrap_or_default();
            // Any other mapping would be read as `{"context", "output"}` when it has these keys.
            function(&context).map(|output| Value::object([("output", output)]))
        }))
    }

    /// A tool or action. One of the same name that was given before is replaced.
    #[must_use]
    pub fn tool(mut self, tool: impl Tool + 'static) -> Self {
        self.tools.push(Arc::new(tool));
        self
    }

    /// A skill that machines may use. [`crate::skills`] reads packs from folders and from the registry of a store.
    #[must_use]
    pub fn skill(mut self, pack: Pack) -> Self {
        self.skills.push(Arc::new(pack));
        self
    }

    /// A hook; `*` catches every name that has none.
    #[must_use]
    pub fn hook(mut self, name: impl Into<String>, hook: impl Hook + 'static) -> Self {
        self.hooks.push((name.into(), Arc::new(hook)));
        self
    }

    /// A provider of models, by the name that documents use.
    #[must_use]
    pub fn provider(mut self, name: impl Into<String>, provider: ProviderConfig) -> Self {
        self.wiring.providers.insert(name.into(), provider);
        self
    }

    /// A script that answers for every model: nothing leaves the process.
    #[must_use]
    pub fn script(mut self, text: impl Into<String>) -> Self {
        self.script = Some(text.into());
        self
    }

    /// Models of the program's own, instead of providers and scripts.
    #[must_use]
    pub fn model(mut self, model: Arc<dyn Model>) -> Self {
        self.model = Some(model);
        self
    }

    /// Tools, hooks, prices and keys as a configuration names them.
    #[must_use]
    pub fn wiring(mut self, wiring: Wiring) -> Self {
        self.wiring = wiring;
        self
    }

    /// A folder with Cedar rules: what they do not permit is denied. Without, everything is allowed.
    #[must_use]
    pub fn policy(mut self, folder: impl Into<std::path::PathBuf>) -> Self {
        self.wiring.policy = Some(folder.into());
        self
    }

    /// A rule set that is tried beside the one of [`Builder::policy`].
    #[must_use]
    pub fn candidate(mut self, candidate: CandidateConfig) -> Self {
        self.wiring.candidate = Some(candidate);
        self
    }

    /// Who is told what is committed.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Numbers of the engine.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Ceilings of every run; those of the machine apply as well.
    #[must_use]
    pub fn ceilings(mut self, ceilings: Ceilings) -> Self {
        self.ceilings = ceilings;
        self
    }

    /// Whether warnings about documents are errors.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Opens the store and wires the engine.
    ///
    /// # Errors
    /// A setting that cannot be used, or a store that cannot be opened.
    pub async fn build(self) -> Result<Windlass, Error> {
        let mut catalog = self.wiring.catalog()?;
        let own = Catalog {
            tools: self.tools.into_iter().map(|tool| (tool.contract().name.clone(), tool)).collect(),
            hooks: self.hooks.into_iter().map(|(name, hook)| (name.as_str().into(), hook)).collect(),
        };
        let own = self.wiring.scanned_tools(own);
        catalog.tools.extend(own.tools);
        catalog.hooks.extend(own.hooks);
        let owned = self.model.is_some() || self.script.is_some();
        let models = if owned { None } else { self.wiring.model_names()? };
        let model: Arc<dyn Model> = match (self.model, self.script) {
            (Some(model), _) => model,
            (None, Some(text)) => {
                let script =
                    Script::parse(&text).map_err(|e| Error::Script(format!("line {}: {}", e.line, e.message)))?;
                let scripts = Scripts::default().default_script(script);
                Arc::new(windlass_models::Models::builder().scripts(scripts).script_everything(true).build())
            }
            (None, None) => Arc::new(self.wiring.models(&BTreeMap::new(), None)?),
        };
        let model = self.wiring.scanned(model);
        let catalog = Arc::new(catalog);
        let store = wire::open_store_with(&self.store, self.keys).await?;
        let rules = self.wiring.rules()?;
        if let Some(rules) = &rules {
            tokio::spawn(wire::follow_trust(&self.wiring.trust, &store, TrustConfig::default()).await?);
            tokio::spawn(wire::follow_trial(rules, &store, "windlass".into()).await?);
        }
        let basis = self.wiring.basis(None)?;
        let engine = Engine::new(Parts {
            store,
            compiler: wire::compiler(),
            model,
            catalog: Arc::clone(&catalog),
            policy: wire::answering(rules.as_ref()),
            clock: Arc::new(SystemClock::new()),
            observer: self.observer,
            settings: Settings { basis: self.settings.basis.or(Some(basis)), ..self.settings },
        });
        self.wiring.bind(&engine);
        Ok(Windlass { engine, catalog, models, ceilings: self.ceilings, strict: self.strict, skills: self.skills })
    }
}

/// Runs machines durably. Clones share everything.
#[derive(Clone, Debug)]
pub struct Windlass {
    engine: Engine,
    catalog: Arc<Catalog>,
    models: Option<ModelNames>,
    ceilings: Ceilings,
    strict: bool,
    skills: Vec<Arc<Pack>>,
}

impl Windlass {
    /// Starts with a store in memory, no tools and no configured provider.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The engine, for what this type has no method for.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Runs a machine document and everything it refers to, to its end or until it parks.
    ///
    /// # Errors
    /// A document that is not valid, an input beyond the bounds, a store that fails.
    pub async fn run_file(&self, path: impl AsRef<Path>, input: Value) -> Result<Outcome, Error> {
        let (files, entry) = DirFiles::of_entry(path.as_ref());
        let run = self.submit(&files, &entry, input, None).await?;
        self.resume(&run).await
    }

    /// Runs a machine document given as text, to its end or until it parks.
    ///
    /// # Errors
    /// See [`Windlass::run_file`].
    pub async fn run_text(&self, document: &str, input: Value) -> Result<Outcome, Error> {
        let files = MemoryFiles::new().with(TEXT_ENTRY, document);
        let run = self.submit(&files, TEXT_ENTRY, input, None).await?;
        self.resume(&run).await
    }

    /// Puts a run into the queue. The same id with the same input is the same run.
    ///
    /// # Errors
    /// See [`Windlass::run_file`]; an id that is taken by a run with another input.
    pub async fn submit(
        &self,
        files: &(dyn Files + std::marker::Sync),
        entry: &str,
        input: Value,
        run_id: Option<RunId>,
    ) -> Result<RunId, Error> {
        let options = LoadOptions {
            hooks: wire::hook_events(&self.catalog),
            tools: wire::contracts(&self.catalog),
            strict: self.strict,
            refuse_inline_keys: true,
            models: self.models.clone(),
            skills: self.skills.clone(),
        };
        let loaded = load(files, entry, &options).map_err(Error::Document)?;
        let submission =
            Submission { run_id, ceilings: self.ceilings, ..Submission::new(loaded.bundle, loaded.program, input) };
        Ok(self.engine.submit(submission).await?.run_id)
    }

    /// Drives a run and everything below it, to its end or until it parks.
    ///
    /// # Errors
    /// No such run, a run that this build cannot read, a store that fails.
    pub async fn resume(&self, run: &RunId) -> Result<Outcome, Error> {
        let driven = self.engine.drive(Scope::Tree(run.clone()), Stop::new()).await;
        self.engine.seal_now().await;
        let driven = driven?;
        let report = self.engine.status(run).await?.ok_or_else(|| EngineError::NotFound(run.clone()))?;
        let run_id = run.clone();
        Ok(match (report.run.ending, driven) {
            (Some(Ending::Completed { output }), _) if report.head.status.is_final() => {
                Outcome::Completed { run_id, output }
            }
            (Some(Ending::Failed { failure, state }), _) if report.head.status.is_final() => {
                Outcome::Failed { run_id, failure, state }
            }
            (Some(Ending::Cancelled { reason }), _) if report.head.status.is_final() => {
                Outcome::Cancelled { run_id, reason }
            }
            (_, Driven::Parked { waits }) => Outcome::Parked { run_id, waits },
            _ => Outcome::Parked { run_id, waits: report.waits },
        })
    }

    /// Sends a signal to whoever waits on a channel; it is kept until somebody does.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn signal(&self, channel: &str, data: Value) -> Result<Signalled, Error> {
        let parts = self.engine.parts();
        let now = parts.clock.now();
        let signal =
            Signal { id: uuid::Uuid::now_v7().to_string().into(), channel: channel.into(), run: None, data, at: now };
        Ok(parts.store.signal(signal).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPROVAL: &str = r#"
spec: flatmachine
spec_version: "4.2.1"
data:
  name: approval
  states:
    ask:
      type: initial
      wait_for: approvals/1
      output_to_context:
        approved: "{{ output.approved }}"
      transitions:
        - to: done
    done:
      type: final
      output:
        approved: "{{ context.approved }}"
"#;

    #[tokio::test]
    async fn a_run_parks_and_goes_on_after_a_signal() {
        let windlass = Windlass::builder().build().await.expect("built");
        let parked = windlass.run_text(APPROVAL, Value::empty_map()).await.expect("runs");
        let Outcome::Parked { run_id, waits } = parked else { panic!("{parked:?}") };
        assert_eq!(waits[0].channel.as_deref(), Some("approvals/1"));
        let data = Value::object([("approved", Value::Bool(true))]);
        let sent = windlass.signal("approvals/1", data).await.expect("sent");
        assert_eq!(sent, Signalled::Delivered(vec![run_id.clone()]));
        let output = windlass.resume(&run_id).await.expect("resumed").output().expect("output");
        assert_eq!(output.get("approved"), Some(&Value::Bool(true)));
    }

    #[tokio::test]
    async fn a_document_that_is_not_valid_says_where() {
        let windlass = Windlass::builder().build().await.expect("built");
        let error = windlass.run_text("spec: flatmachine\ndata: 3\n", Value::empty_map()).await.expect_err("refused");
        assert!(error.to_string().contains("machine.yml:2:"), "{error}");
    }

    #[tokio::test]
    async fn a_script_answers_for_every_model() {
        let machine = r#"
spec: flatmachine
spec_version: "4.2.1"
data:
  name: asks
  agents:
    writer:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: writer
        model: { provider: openai, name: gpt-5 }
        system: You write.
        user: Write.
  states:
    write:
      type: initial
      agent: writer
      output_to_context:
        text: "{{ output.content }}"
      transitions:
        - to: done
    done:
      type: final
      output:
        text: "{{ context.text }}"
"#;
        let windlass = Windlass::builder().script("default: {content: hello}").build().await.expect("built");
        let outcome = windlass.run_text(machine, Value::empty_map()).await.expect("runs");
        assert_eq!(outcome.output().expect("output").get("text"), Some(&Value::from("hello")));
    }
}
