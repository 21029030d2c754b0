//! A server with its tools: what it shows now against what was accepted.
//!
//! Before every call the definition is compared. A tool that is shown otherwise is blocked until a person has looked, in
//! every process of the store: its server may change back as often as it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_core::failure::{Code, Failure};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;

use crate::mcp::client::{Client, McpError};
use crate::mcp::definition::Definition;
use crate::mcp::diff::{Change, diff};
use crate::mcp::exchange::Trouble;
use crate::mcp::listing::Listing;
use crate::mcp::pins::Pins;
use crate::mcp::quarantine::{Blocked, CHANGES_MAX, Quarantine};
use crate::role::Caller;

/// How long a list of tools may count that the server gave a time to live, in milliseconds.
pub(crate) const LIST_TTL_MS_MAX: u64 = 60_000;

/// A configured server.
#[derive(Debug)]
pub struct Server {
    /// Its name in the configuration.
    pub name: String,
    /// Asks it.
    pub client: Client,
    list_ttl_ms_max: u64,
    cached: tokio::sync::Mutex<Option<Cached>>,
    quarantine: Quarantine,
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
    pub(crate) fn new(name: &str, client: Client, list_ttl_ms_max: Option<u64>, quarantine: Quarantine) -> Self {
        Self {
            name: name.to_owned(),
            client,
            list_ttl_ms_max: list_ttl_ms_max.unwrap_or(LIST_TTL_MS_MAX),
            cached: tokio::sync::Mutex::new(None),
            quarantine,
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
    pub(crate) async fn check(&self, caller: &Caller, accepted: &Definition, attempt: u32) -> Result<(), Failure> {
        // A call that is made again may have waited for what a person has decided just now.
        let blocked = self.quarantine.find((&self.name, &accepted.name, accepted.hash), attempt <= 1).await;
        if let Some(blocked) = blocked.map_err(|error| caller.unreachable(error))? {
            return Err(Self::blocked(caller, &blocked));
        }
        let mut listing = self.listing(caller.read).await.map_err(|error| error.before(caller))?;
        let is_shown =
            |listing: &Listing| listing.tools.get(&accepted.name).map(|shown| shown.hash) == Some(accepted.hash);
        if caller.read && !is_shown(&listing) {
            // A kept list may be older than the look of the person who let the tool run again.
            listing = self.listing(false).await.map_err(|error| error.before(caller))?;
        }
        let (shown, changes) = match listing.tools.get(&accepted.name) {
            Some(shown) if shown.hash == accepted.hash => return Ok(()),
            Some(shown) => (Some(shown.hash), diff(&accepted.wire, &shown.wire)),
            None => match listing.refused.iter().find(|refused| refused.name == accepted.name) {
                Some(refused) => {
                    (None, vec![Change { place: String::new(), accepted: None, shown: Some(refused.why.clone()) }])
                }
                None => {
                    let message = format!("the server `{}` does not show `{}` any more", self.name, accepted.name);
                    return Err(Failure::new(Code::ToolUnknown, message));
                }
            },
        };
        let places: Vec<&str> = changes.iter().take(CHANGES_MAX).map(|change| change.place.as_str()).collect();
        tracing::warn!(
            server = self.name,
            tool = accepted.name,
            ?places,
            "a tool is not what was accepted and is blocked"
        );
        let (server, tool) = (self.name.clone(), accepted.name.clone());
        let blocked = Blocked { server, tool, accepted: accepted.hash, shown, since: Timestamp(0), changes };
        Err(Self::blocked(caller, &self.quarantine.block(blocked).await))
    }

    fn blocked(caller: &Caller, blocked: &Blocked) -> Failure {
        let Blocked { server, tool, changes, .. } = blocked;
        let first = changes.first().map_or("its text", |change| change.place.as_str());
        let message = format!(
            "the definition of `{}` was not the one that was accepted: `{first}` differed; `windlass tools blocked {server}` \
             shows how, `windlass tools accept` accepts what is shown, `windlass tools release {server} {tool}` lets the \
             accepted one run again",
            caller.name
        );
        let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::str);
        let changes = changes.iter().map(|change| {
            Value::object([
                ("place", Value::str(change.place.as_str())),
                ("accepted", text(&change.accepted)),
                ("shown", text(&change.shown)),
            ])
        });
        let detail = Value::object([
            ("server", Value::str(server.as_str())),
            ("tool", Value::str(tool.as_str())),
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
