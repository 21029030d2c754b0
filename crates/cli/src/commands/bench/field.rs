//! Where a measurement takes place: a SQLite file in a folder of its own, or a schema of a PostgreSQL database.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use uuid::Uuid;
use windlass::{Keyring, wire};
use windlass_core::redact;
use windlass_core::run::Status;
use windlass_ports::store::{Query, Store};
use windlass_stores::floor::{self, Floor, Ground};

use super::Scratch;
use crate::app::App;
use crate::args::BenchPlace;
use crate::exit::Problem;

/// Time between two looks whether everything has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A place to measure in, empty at first.
#[derive(Debug)]
pub(crate) struct Field {
    scratch: Scratch,
    database: Option<Database>,
    url: String,
    /// Keys of an encrypted store.
    keys: OnceLock<Keyring>,
}

#[derive(Debug)]
struct Database {
    ground: Ground,
    /// The address as it was given.
    url: String,
}

/// Measures in a new place, which is removed afterwards, however the measurement ended.
///
/// # Errors
/// A place that cannot be measured in, or what the measurement says.
pub(crate) async fn within<T>(
    app: &App,
    place: &BenchPlace,
    work: impl AsyncFnOnce(&Field) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let field = Field::new(app, place.dir.as_deref()).await?;
    let measured = work(&field).await;
    if let Some(Database { ground, .. }) = field.database
        && let Err(error) = ground.remove().await
    {
        tracing::warn!(%error, "what was measured in the database was not removed; the next measurement does");
    }
    measured
}

impl Field {
    async fn new(app: &App, dir: Option<&Path>) -> Result<Self, Problem> {
        // The store of the configuration is that of somebody's runs: it is measured only when it is named.
        let Some(url) = app.global.store.as_deref() else {
            let scratch = Scratch::new(dir)?;
            let url = format!("sqlite:{}", scratch.path("bench.db").display());
            return Ok(Self { scratch, database: None, url, keys: OnceLock::new() });
        };
        let kind = url.split_once(':').map_or("", |(kind, _)| kind);
        if !matches!(kind, "postgres" | "postgresql") {
            return Err(Problem::invalid(format!("a measurement cannot use the store `{}`", redact::address(url)))
                .hint("without `--store` it has a SQLite file of its own, in the folder that `--dir` names"));
        }
        let ground = Ground::prepare(url).await.map_err(|error| {
            let problem = Problem::from(error);
            let message = format!("`{}`: {}", redact::address(url), problem.message);
            Problem { message, ..problem }.hint("make a database for it, such as with `createdb scratch`")
        })?;
        let own = ground.url().to_owned();
        let database = Some(Database { ground, url: url.to_owned() });
        Ok(Self { scratch: Scratch::new(dir)?, database, url: own, keys: OnceLock::new() })
    }

    /// The address of the store.
    #[must_use]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// `sqlite` or `postgres`.
    #[must_use]
    pub(crate) fn kind(&self) -> &'static str {
        if self.database.is_some() { "postgres" } else { "sqlite" }
    }

    /// A path in the folder of the measurement.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// The store is to be encrypted, with a key that nobody keeps. Called before it is opened.
    ///
    /// # Errors
    /// No key can be made.
    pub(crate) fn encrypt(&self) -> Result<(), Problem> {
        let key = [Uuid::now_v7(), Uuid::now_v7()].map(|half| half.simple().to_string()).concat();
        let keys = Keyring::new("bench", [("bench".to_owned(), key.into())]);
        let keys = keys.map_err(|error| Problem::bug(error.to_string()))?;
        self.keys.get_or_init(|| keys);
        Ok(())
    }

    /// A handle on the store, with connections of its own.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>, Problem> {
        Ok(wire::open_store_with(&self.url, self.keys.get().cloned()).await?)
    }

    /// How long a dead worker of another host keeps its runs; none where a store knows at once.
    #[must_use]
    pub(crate) fn lease(&self) -> Option<Duration> {
        self.database.as_ref().map(|database| database.ground.lease())
    }

    /// Transactions that the database has counted so far, whoever made them; none of a SQLite file.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub(crate) async fn transactions(&self) -> Result<Option<u64>, Problem> {
        match &self.database {
            Some(database) => Ok(Some(database.ground.transactions().await?)),
            None => Ok(None),
        }
    }

    /// What the database gives without Windlass.
    ///
    /// # Errors
    /// It cannot be measured.
    pub(crate) async fn floor(&self, submitters: usize, duration: Duration) -> Result<Floor, Problem> {
        let floor = match &self.database {
            Some(database) => floor::measure_postgres(&database.url, submitters, duration).await,
            None => floor::measure(&self.path("floor.db"), submitters, duration).await,
        };
        Ok(floor?)
    }
}

/// Waits until every run of a store has ended.
///
/// # Errors
/// The store fails, or nothing has changed for as long as `patience`.
pub(crate) async fn until_ended(store: &dyn Store, patience: Duration) -> Result<(), Problem> {
    let open = Status::ALL.iter().copied().filter(|status| !status.is_final());
    let query = Query { statuses: open.collect(), limit: 1, ..Query::default() };
    let (mut seen, mut since) = (None, std::time::Instant::now());
    loop {
        let heads = store.list(query.clone()).await?.heads;
        let Some(head) = heads.first() else { return Ok(()) };
        let now = Some((head.id.clone(), head.version));
        if seen != now {
            (seen, since) = (now, std::time::Instant::now());
        } else if since.elapsed() > patience {
            let (run, status, seconds) = (&head.id, head.status.as_str(), patience.as_secs());
            return Err(Problem::bug(format!("run `{run}` of the measurement is `{status}` for {seconds} s")));
        }
        tokio::time::sleep(LOOK).await;
    }
}
