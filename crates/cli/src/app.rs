//! What every command has at hand: output, configuration, store and clock.

use std::path::Path;
use std::sync::Arc;

use windlass::wire;
use windlass_core::ids::RunId;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, Store};

use crate::args::Global;
use crate::config::{self, Loaded};
use crate::exit::{Exit, Problem};
use crate::output::Output;

/// The surroundings of one command.
#[derive(Debug)]
pub(crate) struct App {
    /// Where results go.
    pub output: Output,
    /// The options that every command takes.
    pub global: Global,
    /// The configuration.
    pub loaded: Loaded,
}

impl App {
    /// Loads the configuration. `beside` is the machine document that the command is about.
    ///
    /// # Errors
    /// A configuration that is not valid.
    pub(crate) fn load(output: Output, global: &Global, beside: Option<&Path>) -> Result<Self, Problem> {
        Ok(Self { output, global: global.clone(), loaded: config::load(global, beside)? })
    }

    /// The same with the configuration beside a machine, when no other one was found.
    ///
    /// # Errors
    /// A configuration that is not valid.
    pub(crate) fn beside(&self, machine: &Path) -> Result<Self, Problem> {
        match &self.loaded.file {
            Some(_) => Ok(Self { output: self.output, global: self.global.clone(), loaded: self.loaded.clone() }),
            None => Self::load(self.output, &self.global, Some(machine)),
        }
    }

    /// The store's address.
    #[must_use]
    pub(crate) fn store_url(&self) -> &str {
        &self.loaded.config.store.0
    }

    /// Opens the store; creates it when there is none.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) async fn store(&self) -> Result<Arc<dyn Store>, Problem> {
        wire::open_store(self.store_url()).await.map_err(|error| {
            let problem = Problem::from(error);
            Problem { message: format!("`{}`: {}", self.store_url(), problem.message), ..problem }
        })
    }

    /// Opens the store if there is one; looking creates nothing.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) async fn existing_store(&self) -> Result<Option<Arc<dyn Store>>, Problem> {
        match wire::store_path(self.store_url()) {
            Some(path) if !path.exists() => Ok(None),
            _ => self.store().await.map(Some),
        }
    }

    /// There is no store.
    #[must_use]
    pub(crate) fn no_store(&self) -> Problem {
        Problem::new(Exit::Rejected, "cli.not_found", format!("there is no store at `{}`", self.store_url()))
            .hint("`windlass run` creates it; `--store` names another one")
    }

    /// Opens the store and finds a run in it.
    ///
    /// # Errors
    /// The store cannot be opened, or has no such run.
    pub(crate) async fn run(&self, run: &str) -> Result<(Arc<dyn Store>, Head), Problem> {
        let store = self.existing_store().await?.ok_or_else(|| Problem::unknown_run(run))?;
        match store.load(RunId::stored(run)).await? {
            Some(stored) => Ok((store, stored.head)),
            None => Err(Problem::unknown_run(run)),
        }
    }

    /// The present, as this computer sees it.
    #[must_use]
    pub(crate) fn now(&self) -> Timestamp {
        wire::now()
    }
}
