//! What every command has at hand: output, configuration, store and clock.

use std::path::Path;
use std::sync::Arc;

use windlass::{Keyring, wire};
use windlass_core::ids::RunId;
use windlass_core::redact;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, Store, StoreError};

use crate::args::Global;
use crate::config::{self, Loaded};
use crate::exit::Problem;
use crate::output::Output;

/// What to do about a store that cannot be read at all.
pub(crate) const RESTORE: &str =
    "restore a copy made by `windlass store backup`, or name the file of a store with `--store sqlite:PATH`";

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

    /// The store's address for people, without the password that may be in it.
    #[must_use]
    pub(crate) fn shown_store(&self) -> String {
        redact::address(self.store_url())
    }

    /// Opens the store to write; creates it when there is none.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) async fn store(&self) -> Result<Arc<dyn Store>, Problem> {
        wire::open_store_with(self.store_url(), self.keys()?).await.map_err(|error| self.unopened(error))
    }

    /// The keys that the store is encrypted with; none when nothing is.
    ///
    /// # Errors
    /// A key that is not there, or is none.
    pub(crate) fn keys(&self) -> Result<Option<Keyring>, Problem> {
        let keys = self.loaded.config.encryption.keyring(&self.loaded.folder, &|name| std::env::var_os(name));
        keys.map_err(crate::session::setting)
    }

    /// How the store is opened.
    ///
    /// # Errors
    /// As [`App::keys`].
    pub(crate) fn options(&self) -> Result<windlass_stores::Options, Problem> {
        Ok(windlass_stores::Options { keys: self.keys()?, ..windlass_stores::Options::default() })
    }

    fn unopened(&self, error: StoreError) -> Problem {
        let is_corrupt = matches!(error, StoreError::Corrupt(_));
        let problem = Problem::from(error);
        let problem = Problem { message: format!("`{}`: {}", self.shown_store(), problem.message), ..problem };
        // What cannot be opened cannot be checked either.
        if is_corrupt { problem.hint(RESTORE) } else { problem }
    }

    /// Opens the store to write if there is one; looking creates nothing.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) async fn existing_store(&self) -> Result<Option<Arc<dyn Store>>, Problem> {
        self.existing_store_with(self.keys()?).await
    }

    /// The same with other keys than the configured ones.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) async fn existing_store_with(&self, keys: Option<Keyring>) -> Result<Option<Arc<dyn Store>>, Problem> {
        let is_kept = self.store_url() != "memory:";
        if is_kept && windlass_stores::schema(self.store_url()).await.map_err(|error| self.unopened(error))?.is_none() {
            return Ok(None);
        }
        wire::open_store_with(self.store_url(), keys).await.map(Some).map_err(|error| self.unopened(error))
    }

    /// Opens the store to read if there is one. Nothing is created, migrated or written, and it may be one that takes no
    /// writes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn readable_store(&self) -> Result<Option<Arc<dyn Store>>, Problem> {
        wire::open_store_to_read(self.store_url(), self.keys()?).await.map_err(|error| self.unopened(error))
    }

    /// The same for what is done before a store is encrypted for the first time: one that is plain still is read although
    /// there are keys.
    ///
    /// # Errors
    /// As [`App::readable_store`].
    pub(crate) async fn store_as_it_is(&self) -> Result<Option<Arc<dyn Store>>, Problem> {
        let keys = self.keys_as_it_is().await?;
        if keys.is_none() && self.keys()?.is_some() {
            self.output
                .note("the store is not encrypted, and there are keys for it: `windlass store rekey` encrypts it");
        }
        wire::open_store_to_read(self.store_url(), keys).await.map_err(|error| self.unopened(error))
    }

    /// The keys of the store; none of one that is plain still.
    ///
    /// # Errors
    /// A key that is not there, or a store that cannot be read.
    pub(crate) async fn keys_as_it_is(&self) -> Result<Option<Keyring>, Problem> {
        let Some(keys) = self.keys()? else { return Ok(None) };
        if self.store_url() == "memory:" {
            return Ok(Some(keys));
        }
        let found = windlass_stores::encryption(self.store_url(), false).await.map_err(|error| self.unopened(error))?;
        Ok(Some(keys).filter(|_| found.is_none_or(|found| found.began_at.is_some())))
    }

    /// The store to look into. None when it is the default one and was not made yet, which is no mistake.
    ///
    /// # Errors
    /// The store cannot be opened, or another one was named and is not there.
    pub(crate) async fn store_to_read(&self) -> Result<Option<Arc<dyn Store>>, Problem> {
        self.unless_named(self.readable_store().await?)
    }

    /// The store to list something of. None as for [`App::store_to_read`], which is said: an empty list reads as if nothing
    /// were there, and there may be a store elsewhere.
    ///
    /// # Errors
    /// As [`App::store_to_read`].
    pub(crate) async fn store_to_list(&self) -> Result<Option<Arc<dyn Store>>, Problem> {
        let store = self.store_to_read().await?;
        if store.is_none() {
            self.output
                .note(&format!("note: there is no store at `{}` yet; `windlass run` creates it", self.shown_store()));
        }
        Ok(store)
    }

    /// The store to change something in. None when it is the default one and was not made yet.
    ///
    /// # Errors
    /// As [`App::store_to_read`].
    pub(crate) async fn store_to_change(&self) -> Result<Option<Arc<dyn Store>>, Problem> {
        self.unless_named(self.existing_store().await?)
    }

    /// None when the store is the default one and was not made yet, which is no mistake.
    ///
    /// # Errors
    /// Another one was named and is not there.
    pub(crate) fn unless_named(&self, found: Option<Arc<dyn Store>>) -> Result<Option<Arc<dyn Store>>, Problem> {
        match found {
            None if self.store_url() != config::StoreUrl::default().0 => Err(self.no_store()),
            found => Ok(found),
        }
    }

    /// There is no store.
    #[must_use]
    pub(crate) fn no_store(&self) -> Problem {
        Problem::not_found(format!("there is no store at `{}`", self.shown_store()))
            .hint("`windlass run` and `windlass store migrate` create it; `--store` names another one")
    }

    /// Finds a run to look at.
    ///
    /// # Errors
    /// The store cannot be read, or has no such run.
    pub(crate) async fn run(&self, run: &str) -> Result<(Arc<dyn Store>, Head), Problem> {
        Self::found(self.store_to_read().await?, run).await
    }

    /// Finds a run to change.
    ///
    /// # Errors
    /// The store cannot be written, or has no such run.
    pub(crate) async fn run_to_change(&self, run: &str) -> Result<(Arc<dyn Store>, Head), Problem> {
        Self::found(self.store_to_change().await?, run).await
    }

    async fn found(store: Option<Arc<dyn Store>>, run: &str) -> Result<(Arc<dyn Store>, Head), Problem> {
        let store = store.ok_or_else(|| Problem::unknown_run(run))?;
        match store.load(RunId::stored(run)).await? {
            Some(stored) => Ok((store, stored.head)),
            None => Err(Problem::unknown_run(run)),
        }
    }

    /// Whether what models thought is shown, rather than its size and hash.
    #[must_use]
    pub(crate) fn shows_thinking(&self) -> bool {
        self.loaded.config.policy.show_thinking
    }

    /// The present, as this computer sees it.
    #[must_use]
    pub(crate) fn now(&self) -> Timestamp {
        wire::now()
    }
}
