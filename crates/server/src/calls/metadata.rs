//! Whose tokens are taken, for whoever has none: the metadata of a protected resource (RFC 9728).

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::json;

use super::{Api, answer};
use crate::request::RequestId;

/// Where it is.
pub const METADATA: &str = "/.well-known/oauth-protected-resource";

impl Api {
    /// How callers reach this server: as configured, or by the name that a request has for it. None when that is no name.
    fn reached(&self, request: &Request) -> Option<String> {
        if let Some(url) = &self.url {
            return Some(url.clone());
        }
        let host = request.headers().get(header::HOST)?.to_str().ok()?;
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
        (!host.is_empty() && host.bytes().all(is_host)).then(|| format!("http://{host}"))
    }

    /// The address of the metadata, for the challenge to whoever sends no token that is taken.
    pub(super) fn metadata_url(&self, request: &Request) -> Option<String> {
        self.reached(request).map(|url| format!("{url}{METADATA}"))
    }
}

/// What the server is called and who makes tokens for it. Which tools there are is not said.
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    if let Err(problem) = api.place_of(&request) {
        return problem.answer(&id.0);
    }
    let mut body = json!({ "resource": api.reached(&request), "bearer_methods_supported": ["header"] });
    let authority = api.authority.load();
    let servers = authority.servers();
    // A list that is empty is left out, as its specification says.
    if !servers.is_empty() {
        body["authorization_servers"] = json!(servers);
    }
    answer::document(StatusCode::OK, &body)
}
