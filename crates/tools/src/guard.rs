//! Which addresses a call may go to when nobody who runs this process wrote them: documents, tenants, models and redirects
//! name addresses too, and must not reach what only this host can.
//!
//! A name is resolved once, every address it has is checked, and the connection goes to an address that was checked. What
//! the operator wrote is let through by exact host and port.

mod hosts;
mod range;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use windlass_ports::BoxFuture;

pub use hosts::{Host, Hosts};
pub use range::{is_public, range_of};

use crate::answer;

/// Addresses of one name that are looked at; a name with more is refused.
const ADDRESSES_MAX: usize = 64;

/// Why an address is refused. Nothing was connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not HTTP.
    #[error("the scheme `{0}` is not `http` or `https`")]
    Scheme(String),
    /// A name or a password within the address, which hides the host from readers.
    #[error("an address must not hold credentials")]
    Credentials,
    /// No host.
    #[error("the address has no host")]
    NoHost,
    /// An address that is not of the public Internet.
    #[error("`{host}` leads to {range}, which only this side of the network can reach")]
    Private {
        /// The host as written.
        host: String,
        /// What the address is part of.
        range: &'static str,
    },
    /// A host that the documents of a tenant may not name.
    #[error("`{host}` is none of the hosts that documents of tenant `{tenant}` may name")]
    NotListed {
        /// The host as written.
        host: String,
        /// The tenant.
        tenant: String,
    },
    /// A name that is not found.
    #[error("`{host}` cannot be resolved: {why}")]
    Unresolved {
        /// The host.
        host: String,
        /// Why.
        why: String,
    },
}

impl Refused {
    /// What lets the address through.
    #[must_use]
    pub fn way_out(&self) -> &'static str {
        match self {
            Self::NotListed { .. } => "`hosts` or `tenants` under `[outbound]` names the hosts",
            _ => "`allow = [\"HOST:PORT\"]` under `[outbound]` lets it through",
        }
    }
}

/// Finds the addresses of a name.
pub trait Lookup: Send + Sync {
    /// Every address of `host`.
    fn lookup(&self, host: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>>;
}

/// The resolver of the operating system.
struct System;

impl Lookup for System {
    fn lookup(&self, host: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let host = host.to_owned();
        async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        }
        .boxed()
    }
}

/// Decides about addresses.
#[derive(Clone)]
pub struct Guard {
    allowed: Arc<BTreeSet<(String, u16)>>,
    hosts: Arc<Hosts>,
    lookup: Arc<dyn Lookup>,
}

impl Default for Guard {
    fn default() -> Self {
        Self { allowed: Arc::default(), hosts: Arc::default(), lookup: Arc::new(System) }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

/// How a call to an address that may be called is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// The operator wrote this host and port.
    Written,
    /// The host is public, or a name that is checked when it is resolved.
    Checked,
}

impl Guard {
    /// Lets the hosts and ports that the operator wrote through.
    #[must_use]
    pub fn allowing(self, written: impl IntoIterator<Item = (String, u16)>) -> Self {
        let allowed = self.allowed.iter().cloned().chain(written).collect();
        Self { allowed: Arc::new(allowed), ..self }
    }

    /// Lets documents name these hosts alone.
    #[must_use]
    pub fn among(self, hosts: Hosts) -> Self {
        Self { hosts: Arc::new(hosts), ..self }
    }

    /// Resolves names otherwise than the operating system does.
    #[must_use]
    pub fn resolving(self, lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup, ..self }
    }

    /// Looks at an address as a document of a tenant has it. Names are looked at again when they are resolved, by [`Guard::resolver`].
    ///
    /// # Errors
    /// Why nothing may be sent there.
    pub fn check(&self, url: &Url, tenant: &str) -> Result<Passage, Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused::Scheme(answer::printable(url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        if !self.hosts.hold(url, tenant) {
            let host = answer::printable(url.host_str().unwrap_or("nowhere"));
            return Err(Refused::NotListed { host, tenant: answer::printable(tenant) });
        }
        if place(url).is_some_and(|place| self.allowed.contains(&place)) {
            return Ok(Passage::Written);
        }
        // Every spelling of an IP address, such as `0x7f.1`, has become one here.
        let literal = match url.host() {
            None => return Err(Refused::NoHost),
            Some(url::Host::Ipv4(address)) => IpAddr::V4(address),
            Some(url::Host::Ipv6(address)) => IpAddr::V6(address),
            Some(url::Host::Domain(name)) => {
                return match local_name(name) {
                    Some(range) => Err(Refused::Private { host: answer::printable(name), range }),
                    None => Ok(Passage::Checked),
                };
            }
        };
        match range_of(literal) {
            None => Ok(Passage::Checked),
            Some(range) => Err(Refused::Private { host: literal.to_string(), range }),
        }
    }

    /// Resolves names for a client, and gives addresses only when all of a name's may be connected to.
    #[must_use]
    pub fn resolver(&self) -> Arc<dyn Resolve> {
        Arc::new(Checking(Arc::clone(&self.lookup)))
    }
}

/// Host and port of an address, the host without the dot that may end it.
#[must_use]
pub fn place(url: &Url) -> Option<(String, u16)> {
    let host = url.host_str()?.trim_end_matches('.').to_ascii_lowercase();
    Some((host, url.port_or_known_default()?))
}

/// Whether an address means the host that this process runs on, as it is written.
#[must_use]
pub fn is_this_host(url: &Url) -> bool {
    match url.host() {
        None => false,
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => local_name(name).is_some(),
    }
}

/// Names that mean this host, whatever a resolver says.
fn local_name(name: &str) -> Option<&'static str> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    (name == "localhost" || name.ends_with(".localhost") || name == "localhost.localdomain").then_some("this host")
}

struct Checking(Arc<dyn Lookup>);

impl Resolve for Checking {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let found = self.0.lookup(&host);
        async move {
            let addresses = checked(&host, found.await)?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        }
        .boxed()
    }
}

/// All addresses of a name, or none: one that is private makes the name one that may point anywhere.
fn checked(host: &str, found: std::io::Result<Vec<IpAddr>>) -> Result<Vec<IpAddr>, Refused> {
    let shown = answer::printable(host);
    let unresolved = |why: String| Refused::Unresolved { host: shown.clone(), why };
    let addresses = found.map_err(|error| unresolved(error.to_string()))?;
    if addresses.is_empty() {
        return Err(unresolved("it has no address".into()));
    }
    if addresses.len() > ADDRESSES_MAX {
        return Err(unresolved(format!("it has more than {ADDRESSES_MAX} addresses")));
    }
    match addresses.iter().find_map(|address| range_of(*address)) {
        Some(range) => Err(Refused::Private { host: shown, range }),
        None => Ok(addresses),
    }
}

/// The refusal behind an error of a client.
#[must_use]
pub fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<Refused> {
    let mut cause = error.source();
    while let Some(next) = cause {
        if let Some(refused) = next.downcast_ref::<Refused>() {
            return Some(refused.clone());
        }
        cause = next.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_private_address_among_many_refuses_the_name() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(checked("a.io", Ok(vec![ip("93.184.215.14")])), Ok(vec![ip("93.184.215.14")]));
        let mixed = checked("a.io", Ok(vec![ip("93.184.215.14"), ip("10.0.0.1")]));
        assert!(matches!(mixed, Err(Refused::Private { .. })), "{mixed:?}");
        assert!(matches!(checked("a.io", Ok(Vec::new())), Err(Refused::Unresolved { .. })));
    }

    #[test]
    fn what_the_operator_wrote_is_let_through_by_host_and_port() {
        let guard = Guard::default().allowing([("localhost".to_owned(), 8080), ("10.0.0.5".to_owned(), 443)]);
        let check = |text: &str| guard.check(&Url::parse(text).expect("an address"), "acme").ok();
        assert_eq!(check("http://localhost:8080/x"), Some(Passage::Written));
        assert_eq!(check("http://LOCALHOST.:8080/x"), Some(Passage::Written));
        assert_eq!(check("https://10.0.0.5/x"), Some(Passage::Written));
        for refused in ["http://localhost:8081/", "http://10.0.0.5/", "https://10.0.0.6/", "http://a@localhost:8080/"] {
            assert_eq!(check(refused), None, "{refused}");
        }
        assert_eq!(check("https://acme.io/"), Some(Passage::Checked));
    }
}
