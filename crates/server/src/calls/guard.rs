//! Before any route: where a request came in, whose it is, and whether there is room for it. Everything is behind it but the
//! paths of [`OPEN`], also what nobody has thought of yet.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use windlass_core::ids::Name;

use super::body::once;
use super::metadata::METADATA;
use super::problem::Problem;
use super::{Api, gate};
use crate::auth::{Caller, Refusal, revocations};
use crate::request::RequestId;

/// Paths that anybody may ask for: what they say is about the process, and they change nothing.
pub const OPEN: [&str; 4] = ["/healthz", "/readyz", "/metrics", METADATA];

/// How long the store may take to say what is revoked.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// How a token begins in its header.
const SCHEME: &str = "bearer ";

/// Lets a request through to its route, or answers it.
pub(crate) async fn guard(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let metadata = api.metadata_url(&request);
    let said = api.place_of(&request).map(|()| (api.authenticated(&request), request.uri().path().to_owned()));
    let admitted = match said {
        Ok((token, path)) => api.admit(token, &path).await,
        Err(problem) => Err(problem),
    };
    let mut response = match admitted {
        Ok((caller, _place)) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => {
            let id = request.extensions().get().map(|RequestId(id)| id.as_str()).unwrap_or_default();
            metadata.map_or(problem.clone(), |url| problem.naming(&url)).answer(id)
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl Api {
    async fn admit(&self, token: Result<Caller, Refusal>, path: &str) -> Result<(Caller, gate::Place), Problem> {
        let caller = self.caller(token).await?;
        // Whoever may not speak for a tenant takes the places of none: the name of a tenant has no control characters.
        let foreign = || Name::from(format!("\u{0}{}", caller.issuer));
        let whose = if caller.may_speak { caller.tenant.clone() } else { foreign() };
        let place = self.gate.enter(&whose).inspect_err(|_| self.metrics.requests.decided("busy"))?;
        if !caller.may_speak {
            self.metrics.requests.decided("tenant");
            let why = format!("its issuer may not speak for the tenant `{}`", caller.tenant);
            self.decided(&caller, false, path, &why).await?;
            let detail = "the issuer of the token may not speak for its tenant";
            return Err(Problem::new(StatusCode::FORBIDDEN, "auth.tenant", detail));
        }
        Ok((caller, place))
    }

    /// Refuses what a browser sends for a page, and what was meant for another server.
    pub(super) fn place_of(&self, request: &Request) -> Result<(), Problem> {
        let refused = |why, problem| {
            self.metrics.requests.refused(why);
            self.records.refused(why);
            Err(problem)
        };
        if request.headers().contains_key(header::ORIGIN) {
            let detail = "requests of web pages are not taken: they have an `Origin`";
            return refused("origin", Problem::new(StatusCode::FORBIDDEN, "request.origin", detail));
        }
        let host = match once(request.headers(), &header::HOST) {
            Ok(Some(host)) => host,
            Ok(None) => return refused("host", Problem::bad("there is no `Host`")),
            Err(problem) => return refused("host", problem),
        };
        let is_same = request.uri().authority().is_none_or(|target| target.as_str().eq_ignore_ascii_case(host));
        if !is_same {
            return refused("host", Problem::bad("`Host` is another one than that of the address"));
        }
        if !self.is_here(host) {
            let detail = "this server has another name; `serve.hosts` has its names";
            return refused("host", Problem::new(StatusCode::MISDIRECTED_REQUEST, "request.host", detail));
        }
        Ok(())
    }

    fn is_here(&self, host: &str) -> bool {
        let name = host_name(host);
        let named = |known: &String| known.eq_ignore_ascii_case(name);
        self.hosts.is_empty() || self.hosts.iter().any(named)
    }

    /// Whose the token of a request is, unless it was revoked.
    async fn caller(&self, token: Result<Caller, Refusal>) -> Result<Caller, Problem> {
        let caller = token.map_err(|refusal| self.unauthenticated(refusal))?;
        let now = self.engine.parts().clock.now();
        match tokio::time::timeout(STORE_PATIENCE, revocations(&*self.engine.parts().store)).await {
            Ok(Ok(revoked)) if revoked.holds(&caller, now) => Err(self.unauthenticated(Refusal::Revoked)),
            Ok(Ok(_)) => {
                self.metrics.requests.authenticated();
                Ok(caller)
            }
            Ok(Err(error)) => Err(Problem::store(&error)),
            Err(_) => Err(Problem::away()),
        }
    }

    fn authenticated(&self, request: &Request) -> Result<Caller, Refusal> {
        let mut all = request.headers().get_all(header::AUTHORIZATION).iter();
        let first = all.next().ok_or(Refusal::Missing)?;
        if all.next().is_some() {
            return Err(Refusal::Malformed);
        }
        let text = first.to_str().map_err(|_| Refusal::Malformed)?;
        let is_bearer = text.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
        let token = if is_bearer { text[SCHEME.len()..].trim() } else { return Err(Refusal::Malformed) };
        self.authority.load().authenticate(token, self.engine.parts().clock.now().0 / 1_000)
    }

    fn unauthenticated(&self, refusal: Refusal) -> Problem {
        self.metrics.requests.refused(refusal.as_str());
        self.records.refused(refusal.as_str());
        Problem::unauthenticated(refusal)
    }
}

/// A host without its port.
fn host_name(host: &str) -> &str {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(inside, _)| inside);
    if let Some(inside) = bracketed {
        return inside;
    }
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The names that a server on this address has when none are configured: on the loopback only those of the loopback, so that
/// no name of a web page leads here; any elsewhere.
#[must_use]
pub fn hosts_of(address: IpAddr) -> Vec<String> {
    if !address.is_loopback() {
        return Vec::new();
    }
    let own = address.to_string();
    ["localhost", "127.0.0.1", "::1"].into_iter().map(str::to_owned).chain([own]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_without_its_port() {
        for (host, name) in
            [("a.io", "a.io"), ("a.io:80", "a.io"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("127.0.0.1:1", "127.0.0.1")]
        {
            assert_eq!(host_name(host), name);
        }
        assert!(hosts_of("0.0.0.0".parse().expect("an address")).is_empty());
        assert!(hosts_of("127.0.0.2".parse().expect("an address")).contains(&"127.0.0.2".to_owned()));
    }
}
