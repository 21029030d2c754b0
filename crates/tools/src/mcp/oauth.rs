//! Authorization to an MCP server, as it asks for it: finds out who gives tokens, becomes known there, gets one.
//!
//! What a server says about where to go is a stranger's word: nothing is asked of a host other than the server's own and
//! those that the configuration names. Client credentials belong to the issuer that gave them and go to no other.

mod discovery;
mod grant;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use windlass_ports::BoxFuture;

use crate::client::{self, Clients};
use crate::config::SecretRef;
use discovery::{Challenge, Issuer};
use grant::{Method, Registered};

/// Bytes of a document about authorization.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// How often one request may be authorized anew.
pub(crate) const AUTHORIZATIONS_MAX: u32 = 3;

/// How an MCP server's authorization is met.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OauthConfig {
    /// The id under which this client is known to the issuer.
    pub client_id: Option<String>,
    /// Its secret, named as `env:NAME`, `file:PATH` or `secret:NAME`.
    pub client_secret: Option<SecretRef>,
    /// The issuer that knows it. Default: the first one that the server names.
    pub issuer: Option<String>,
    /// Further hosts that may be asked, each as `HOST` or `HOST:PORT`. Default: only the server's own.
    pub hosts: Option<Vec<String>>,
    /// Scopes to ask for when the server names none.
    pub scopes: Option<Vec<String>>,
}

/// Someone who can give consent at an address.
pub trait Person: Send + Sync + fmt::Debug {
    /// The address of ours to which the issuer sends them back.
    fn redirect_uri(&self) -> String;

    /// The address of a document that describes this client, where there is one.
    fn client_metadata_url(&self) -> Option<String>;

    /// Sends them to an address and gives the whole address that they came back to.
    fn visit(&self, address: String) -> BoxFuture<'_, Result<String, String>>;
}

/// The authorization of one server.
#[derive(Debug)]
pub(crate) struct Oauth {
    clients: Arc<Clients>,
    server: Url,
    settings: Settings,
    person: Mutex<Option<Arc<dyn Person>>>,
    state: tokio::sync::Mutex<State>,
}

/// What the configuration says, with the secret behind its reference.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) client_id: Option<String>,
    pub(crate) client_secret: Option<SecretString>,
    pub(crate) issuer: Option<String>,
    pub(crate) hosts: Vec<String>,
    pub(crate) scopes: Vec<String>,
}

#[derive(Debug, Default)]
struct State {
    /// Who we are at each issuer.
    registered: BTreeMap<String, Registered>,
    /// The issuer to which the configured credentials belong.
    owner: Option<String>,
    /// What was asked for so far.
    scopes: Vec<String>,
    refresh: Option<(String, SecretString)>,
}

impl Oauth {
    pub(crate) fn new(clients: Arc<Clients>, server: Url, settings: Settings) -> Self {
        Self { clients, server, settings, person: Mutex::default(), state: tokio::sync::Mutex::default() }
    }

    /// Whoever can be asked for consent from now on.
    pub(crate) fn meet(&self, person: Arc<dyn Person>) {
        *self.person.lock().unwrap_or_else(PoisonError::into_inner) = Some(person);
    }

    fn person(&self) -> Option<Arc<dyn Person>> {
        self.person.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there is any way to get a token.
    pub(crate) fn is_possible(&self) -> bool {
        self.settings.client_secret.is_some() || self.person().is_some()
    }

    /// Gets a token after an answer of 401 or 403 with these headers.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn authorize(&self, status: u16, headers: &HeaderMap) -> Result<HeaderValue, String> {
        let challenge = Challenge::read(headers.get_all(WWW_AUTHENTICATE));
        let mut state = self.state.lock().await;
        let resource = self.resource(&challenge).await?;
        let issuer = self.issuer(&resource).await?;
        if status == 401
            && let Some(token) = self.refreshed(&mut state, &issuer).await
        {
            return bearer(&token);
        }
        let scopes = self.scopes(&mut state, &challenge, &resource, &issuer);
        let registered = self.registered(&mut state, &issuer).await?;
        let granted = match self.person() {
            Some(person) => self.with_consent(&*person, &issuer, &registered, &resource.name, &scopes).await?,
            None => self.with_credentials(&issuer, &registered, &resource.name, &scopes).await?,
        };
        state.refresh = granted.refresh.map(|token| (issuer.name.clone(), token));
        bearer(&granted.access)
    }

    /// What to ask for: what the server names, else what it says exists, else what is configured; and what was asked for
    /// before, so that one thing does not cost another.
    fn scopes(
        &self,
        state: &mut State,
        challenge: &Challenge,
        resource: &discovery::Resource,
        issuer: &Issuer,
    ) -> Vec<String> {
        let named = challenge.scopes.clone().or_else(|| resource.scopes.clone());
        let mut wanted = named.unwrap_or_else(|| self.settings.scopes.clone());
        for scope in &state.scopes {
            if !wanted.contains(scope) {
                wanted.push(scope.clone());
            }
        }
        state.scopes.clone_from(&wanted);
        let lasting = "offline_access".to_owned();
        if self.person().is_some() && issuer.scopes.contains(&lasting) && !wanted.contains(&lasting) {
            wanted.push(lasting);
        }
        wanted
    }

    /// Who we are at an issuer.
    async fn registered(&self, state: &mut State, issuer: &Issuer) -> Result<Registered, String> {
        if let Some(id) = &self.settings.client_id {
            let owner = self.settings.issuer.clone().or_else(|| state.owner.clone());
            if let Some(owner) = owner.filter(|owner| *owner != issuer.name) {
                return Err(format!(
                    "the configured client belongs to `{owner}`, and the server now names `{}`",
                    issuer.name
                ));
            }
            state.owner = Some(issuer.name.clone());
            let secret = self.settings.client_secret.clone();
            let method = Method::choose(&issuer.methods, secret.is_some());
            return Ok(Registered { id: id.clone(), secret, method });
        }
        if let Some(known) = state.registered.get(&issuer.name) {
            return Ok(known.clone());
        }
        let person = self.person().ok_or("no `client_id` is configured")?;
        let registered = match person.client_metadata_url().filter(|_| issuer.takes_metadata_urls) {
            Some(id) => Registered { id, secret: None, method: Method::None },
            None => self.register(&*person, issuer).await?,
        };
        state.registered.insert(issuer.name.clone(), registered.clone());
        Ok(registered)
    }

    /// An address that may be asked.
    fn allowed(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|_| format!("`{}` is no address", crate::answer::printable(text)))?;
        let host = url.host_str().unwrap_or_default();
        let with_port = url.port_or_known_default().map(|port| format!("{host}:{port}"));
        let own = Some(host) == self.server.host_str();
        let named = self.settings.hosts.iter().any(|named| named == host || Some(named) == with_port.as_ref());
        if !own && !named {
            let host = crate::answer::printable(host);
            return Err(format!("`{host}` is not the server's host; name it in `oauth.hosts` if it may be asked"));
        }
        // In the clear only where the server itself is.
        let clear = url.scheme() == "http" && self.server.scheme() == "http" && own;
        if url.scheme() != "https" && !clear {
            return Err(format!("`{}` is not asked in the clear", crate::answer::printable(host)));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an address holds credentials".into());
        }
        Ok(url)
    }

    /// A document; none when the answer is not 200.
    async fn document(&self, url: Url) -> Result<Option<serde_json::Value>, String> {
        let client = self.clients.client(true)?;
        let response = client.get(url).header("accept", "application/json").send().await;
        let response = response.map_err(|error| client::chain(&error))?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let bytes = bounded(response).await?;
        Ok(serde_json::from_slice(&bytes).ok())
    }
}

/// The body of an answer about authorization.
async fn bounded(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| client::chain(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(format!("an answer has more than {DOCUMENT_BYTES_MAX} bytes"));
        }
    }
    Ok(bytes)
}

fn bearer(token: &SecretString) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
        .map_err(|_| "the token has characters that no header may have".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_host_and_named_ones_are_asked() {
        let oauth = |server: &str, hosts: &[&str]| {
            let settings = Settings { hosts: hosts.iter().map(ToString::to_string).collect(), ..Settings::default() };
            Oauth::new(Arc::default(), Url::parse(server).unwrap(), settings)
        };
        let own = oauth("https://mcp.example/mcp", &["login.example", "other.example:8443"]);
        assert!(own.allowed("https://mcp.example/token").is_ok());
        assert!(own.allowed("https://login.example/token").is_ok());
        assert!(own.allowed("https://other.example:8443/token").is_ok());
        for address in [
            "https://other.example/token",
            "http://mcp.example/token",
            "http://169.254.169.254/latest/meta-data",
            "https://127.0.0.1/",
            "https://mcp.example.evil.test/",
            "https://mcp.example@evil.test/",
            "https://evil.test/?mcp.example",
            "https://user:pw@mcp.example/",
            "file:///etc/passwd",
            "gopher://mcp.example/",
            "//mcp.example/token",
        ] {
            assert!(own.allowed(address).is_err(), "{address}");
        }
        assert!(oauth("http://localhost:1/mcp", &[]).allowed("http://localhost:2/token").is_ok());
        assert!(oauth("http://localhost:1/mcp", &["h"]).allowed("http://h/token").is_err());
    }
}
