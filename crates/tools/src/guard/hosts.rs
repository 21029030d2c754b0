//! Hosts that documents may name, where they may not name every public one.

use std::collections::BTreeMap;

use reqwest::Url;
use windlass_core::ids::Name;

use super::place;

/// Bytes of a host's name.
const HOST_BYTES_MAX: usize = 253;

/// A host, or all below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    name: String,
    /// Whether all names below it are meant, and not itself.
    below: bool,
    /// None for those of `http` and `https`.
    port: Option<u16>,
}

impl Host {
    /// `api.acme.com`, `api.acme.com:8443`, or `*.acme.com` for all names below one. None for what is no host.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.contains(['/', '@', '?', '#', '*', '\\']) || rest.len() > HOST_BYTES_MAX {
            return None;
        }
        // The parser drops the port that belongs to the scheme.
        let port = match rest.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']')) {
            Some((_, port)) => Some(port.parse::<u16>().ok().filter(|port| *port > 0)?),
            None => None,
        };
        let url = Url::parse(&format!("http://{rest}")).ok()?;
        let is_name = matches!(url.host(), Some(url::Host::Domain(_)));
        let (name, _) = place(&url)?;
        (is_name || !below).then_some(Self { name, below, port })
    }

    fn is(&self, name: &str, port: u16) -> bool {
        let names = match self.below {
            true => name.strip_suffix(&self.name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            false => name == self.name,
        };
        names && self.port.map_or(matches!(port, 80 | 443), |own| own == port)
    }
}

/// Which hosts the documents of whom may name.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// None for all that are public.
    pub all: Option<Vec<Host>>,
    /// Those of tenants, in place of the others.
    pub of_tenants: BTreeMap<Name, Vec<Host>>,
}

impl Hosts {
    pub(super) fn hold(&self, url: &Url, tenant: &str) -> bool {
        let Some(hosts) = self.of_tenants.get(tenant).or(self.all.as_ref()) else { return true };
        place(url).is_some_and(|(name, port)| hosts.iter().any(|host| host.is(&name, port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_exact_or_below_one_and_of_a_port() {
        let hosts = ["api.acme.com", "*.acme.io", "acme.net:8443", "93.184.215.14", "[2606:2800::1]:81"];
        let hosts: Vec<Host> = hosts.into_iter().map(|text| Host::parse(text).expect(text)).collect();
        let all = Hosts { all: Some(hosts), of_tenants: BTreeMap::new() };
        let holds = |text: &str| all.hold(&Url::parse(text).expect("an address"), "acme");
        for held in [
            "https://api.acme.com/x",
            "http://API.acme.com./",
            "https://a.b.acme.io/",
            "https://acme.net:8443/",
            "http://93.184.215.14/",
            "http://[2606:2800::1]:81/",
        ] {
            assert!(holds(held), "{held}");
        }
        for other in [
            "https://acme.com/",
            "https://acme.io/",
            "https://evilacme.io/",
            "https://api.acme.com.evil.io/",
            "https://api.acme.com:8443/",
            "https://acme.net/",
            "https://api.acme.com@evil.io/",
        ] {
            assert!(!holds(other), "{other}");
        }
    }

    #[test]
    fn a_tenant_with_hosts_of_its_own_has_those_alone() {
        let hosts = |text: &str| vec![Host::parse(text).expect("a host")];
        let of_tenants = [("acme".into(), hosts("acme.com")), ("none".into(), Vec::new())].into();
        let some = Hosts { all: Some(hosts("shared.io")), of_tenants };
        let holds = |text: &str, tenant: &str| some.hold(&Url::parse(text).expect("an address"), tenant);
        assert!(holds("https://acme.com/", "acme") && !holds("https://shared.io/", "acme"));
        assert!(holds("https://shared.io/", "globex") && !holds("https://acme.com/", "globex"));
        assert!(!holds("https://shared.io/", "none"));
        assert!(Hosts::default().hold(&Url::parse("https://any.io/").expect("an address"), "acme"));
    }

    #[test]
    fn what_is_no_host_is_none() {
        for text in
            ["", "*", "*.", "a/b", "http://a.com", "a@b", "a:0", "a:99999", "*.1.2.3.4", "a b", "*.*.a.com", "a?b"]
        {
            assert_eq!(Host::parse(text), None, "{text}");
        }
    }
}
