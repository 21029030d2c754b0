//! Headers of calls over HTTP: from the configuration, with secrets marked, and with the key of each call.

use std::collections::BTreeMap;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use windlass_core::trace::{self, Incoming};

use crate::answer;
use crate::build::Site;
use crate::config::SecretRef;

/// Header by which the other side knows a repeat.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Headers of a call whose body and answer are JSON.
pub(crate) const JSON_HEADERS: &[(HeaderName, &str)] =
    &[(CONTENT_TYPE, "application/json"), (ACCEPT, "application/json")];

/// [`JSON_HEADERS`] as a map.
pub(crate) fn json_headers() -> HeaderMap {
    JSON_HEADERS.iter().map(|(k, v)| (k.clone(), HeaderValue::from_static(v))).collect()
}

/// Headers that the engine or the connection owns.
const OWN_HEADERS: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "expect",
    "te",
    "trailer",
    IDEMPOTENCY_KEY,
    trace::TRACEPARENT,
];

/// The headers with the key of one call, and its place in a trace.
pub(crate) fn with_key(headers: &HeaderMap, key: &str, incoming: Option<&Incoming>) -> HeaderMap {
    let mut headers = headers.clone();
    if let Ok(value) = HeaderValue::from_str(key) {
        headers.insert(IDEMPOTENCY_KEY, value);
    }
    for (name, value) in trace::carried(key, incoming) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    headers
}

/// The headers of a table over the given ones.
pub(crate) fn headers(
    site: &mut Site<'_>,
    api_key: Option<&SecretRef>,
    plain: Option<&BTreeMap<String, String>>,
    secret: Option<&BTreeMap<String, SecretRef>>,
    base: &[(HeaderName, &'static str)],
) -> HeaderMap {
    let mut headers: HeaderMap = base.iter().map(|(k, v)| (k.clone(), HeaderValue::from_static(v))).collect();
    for (name, value) in plain.into_iter().flatten() {
        let key = format!("headers.{name}");
        if let (Some(name), Some(value)) = (header_name(site, &key, name), header_value(site, &key, value)) {
            headers.insert(name, value);
        }
    }
    for (name, reference) in secret.into_iter().flatten() {
        let key = format!("secret_headers.{name}");
        if let (Some(name), Some(secret)) = (header_name(site, &key, name), site.secret(&key, reference))
            && let Some(mut value) = header_value(site, &key, secret.expose_secret())
        {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    if let Some(reference) = api_key
        && let Some(secret) = site.secret("api_key", reference)
        && let Some(mut value) = header_value(site, "api_key", &format!("Bearer {}", secret.expose_secret()))
    {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    headers
}

fn header_name(site: &mut Site<'_>, key: &str, name: &str) -> Option<HeaderName> {
    let parsed = HeaderName::try_from(name).ok();
    match &parsed {
        None => site.wrong(key, format!("`{}` is no name of a header", answer::printable(name)), None),
        Some(name) if OWN_HEADERS.contains(&name.as_str()) => {
            site.wrong(key, format!("the header `{name}` is set by the engine"), None);
        }
        Some(_) => {}
    }
    parsed
}

fn header_value(site: &mut Site<'_>, key: &str, text: &str) -> Option<HeaderValue> {
    let parsed = HeaderValue::from_str(text).ok();
    if parsed.is_none() {
        site.wrong(key, "the value has characters that no header may have", None);
    }
    parsed
}
