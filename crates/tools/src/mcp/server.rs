//! A server with its tools: what it shows now against what was accepted.
//!
//! Before every call the definition is compared. A server that shows another one is blocked for that tool until a person
//! has looked: it may change back as often as it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use windlass_core::failure::{Code, Failure};
use windlass_core::value::Value;

use crate::mcp::client::{Client, McpError};
use crate::mcp::definition::Definition;
use crate::mcp::diff::{Change, diff};
use crate::mcp::exchange::Trouble;
use crate::mcp::listing::Listing;
use crate::mcp::pins::Pins;
use crate::role::Caller;

/// How long a list of tools may count that the server gave a time to live, in milliseconds.
pub(crate) const LIST_TTL_MS_MAX: u64 = 60_000;
/// Places of a difference that a failure carries.
const CHANGES_MAX: usize = 20;

/// A configured server.
#[derive(Debug)]
pub struct Server {
    /// Its name in the configuration.
    pub name: String,
    /// Asks it.
    pub client: Client,
    list_ttl_ms_max: u64,
    cached: tokio::sync::Mutex<Option<Cached>>,
    quarantine: Mutex<BTreeMap<String, Vec<Change>>>,
}

#[derive(Debug)]
struct Cached {
    listing: Arc<Listing>,
    until: Instant,
    changes: u64,
}

/// How a tool of a server stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// It is shown as it was accepted.
    Accepted,
    /// It is shown and was never accepted.
    New(Definition),
    /// It is shown otherwise than it was accepted.
    Changed(Definition, Vec<Change>),
    /// It was accepted and is not shown any more.
    Gone,
    /// It is shown and cannot be used.
    Refused(String),
}

impl Server {
    pub(crate) fn new(name: &str, client: Client, list_ttl_ms_max: Option<u64>) -> Self {
        Self {
            name: name.to_owned(),
            client,
            list_ttl_ms_max: list_ttl_ms_max.unwrap_or(LIST_TTL_MS_MAX),
            cached: tokio::sync::Mutex::new(None),
            quarantine: Mutex::default(),
        }
    }

    /// What the server shows. A list that the server gave a time to live is not asked for again while that lasts and the
    /// server did not say that its tools changed, where such a list will do.
    async fn listing(&self, kept_will_do: bool) -> Result<Arc<Listing>, McpError> {
        // Before asking: what is said while the list is on its way makes it old.
        let changes = self.client.changes();
        if let Some(cached) = &*self.cached.lock().await
            && cached.changes == changes
            && cached.until > Instant::now()
            && kept_will_do
        {
            return Ok(cached.listing.clone());
        }
        let listing = Arc::new(self.client.list_tools().await?);
        let ttl = Duration::from_millis(listing.ttl_ms.unwrap_or(0).min(self.list_ttl_ms_max));
        *self.cached.lock().await = Some(Cached { listing: listing.clone(), until: Instant::now() + ttl, changes });
        Ok(listing)
    }

    /// Whether a tool is still what was accepted. Called before every call. A server that wants to show a write something
    /// else would give its list a long life, so that counts for reads only.
    ///
    /// # Errors
    /// It is not, or nobody can tell.
    pub(crate) async fn check(&self, caller: &Caller, accepted: &Definition) -> Result<(), Failure> {
        if let Some(changes) = self.quarantined(&accepted.name) {
            return Err(self.blocked(caller, &changes));
        }
        let listing = self.listing(caller.read).await.map_err(|error| error.before(caller))?;
        let Some(shown) = listing.tools.get(&accepted.name) else {
            let refused = listing.refused.iter().find(|refused| refused.name == accepted.name);
            return Err(match refused {
                Some(refused) => {
                    let changes =
                        vec![Change { place: String::new(), accepted: None, shown: Some(refused.why.clone()) }];
                    self.put_in_quarantine(&accepted.name, &changes);
                    self.blocked(caller, &changes)
                }
                None => {
                    let message = format!("the server `{}` does not show `{}` any more", self.name, accepted.name);
                    Failure::new(Code::ToolUnknown, message)
                }
            });
        };
        if shown.hash == accepted.hash {
            return Ok(());
        }
        let changes = diff(&accepted.wire, &shown.wire);
        self.put_in_quarantine(&accepted.name, &changes);
        Err(self.blocked(caller, &changes))
    }

    fn quarantined(&self, tool: &str) -> Option<Vec<Change>> {
        self.quarantine.lock().unwrap_or_else(PoisonError::into_inner).get(tool).cloned()
    }

    fn put_in_quarantine(&self, tool: &str, changes: &[Change]) {
        let places: Vec<&str> = changes.iter().take(CHANGES_MAX).map(|change| change.place.as_str()).collect();
        tracing::warn!(server = self.name, tool, ?places, "a tool is not what was accepted and is blocked");
        let mut quarantine = self.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        quarantine.insert(tool.to_owned(), changes.to_vec());
    }

    fn blocked(&self, caller: &Caller, changes: &[Change]) -> Failure {
        let first = changes.first().map_or("its text", |change| change.place.as_str());
        let message = format!(
            "the definition of `{}` is not the one that was accepted: `{first}` differs; \
             `windlass tools diff {}` shows how, `windlass tools accept` accepts it",
            caller.name, self.name
        );
        let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::str);
        let changes = changes.iter().take(CHANGES_MAX).map(|change| {
            Value::object([
                ("place", Value::str(change.place.as_str())),
                ("accepted", text(&change.accepted)),
                ("shown", text(&change.shown)),
            ])
        });
        let detail = Value::object([
            ("server", Value::str(self.name.as_str())),
            ("changes", changes.collect::<Vec<_>>().into()),
        ]);
        Failure::new(Code::ToolChanged, message).detail(detail)
    }

    /// How every tool that the server shows, or that was accepted, stands.
    ///
    /// # Errors
    /// The server cannot be reached in this time, in milliseconds, or its list cannot be read.
    pub async fn standings(&self, pins: &Pins, timeout_ms: u64) -> Result<BTreeMap<String, Standing>, McpError> {
        let asked = tokio::time::timeout(Duration::from_millis(timeout_ms), self.client.list_tools()).await;
        let listing = asked.unwrap_or(Err(McpError(Trouble::TimedOut(timeout_ms))))?;
        let none = BTreeMap::new();
        let accepted = pins.servers.get(&self.name).unwrap_or(&none);
        let names: BTreeSet<&String> = listing.tools.keys().chain(accepted.keys()).collect();
        let mut standings: BTreeMap<String, Standing> = names
            .into_iter()
            .map(|name| {
                let standing = match (accepted.get(name), listing.tools.get(name)) {
                    (Some(old), Some(new)) if old.hash == new.hash => Standing::Accepted,
                    (Some(old), Some(new)) => Standing::Changed(new.clone(), diff(&old.wire, &new.wire)),
                    (None, Some(new)) => Standing::New(new.clone()),
                    (_, None) => Standing::Gone,
                };
                (name.clone(), standing)
            })
            .collect();
        for refused in &listing.refused {
            standings.insert(refused.name.clone(), Standing::Refused(refused.why.clone()));
        }
        Ok(standings)
    }
}
