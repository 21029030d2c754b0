//! The hook `webhook` whose address a document gives: `{name: webhook, args: {url, timeout}}`.
//!
//! The address goes through the guard: a document reaches the public Internet, and what the operator lets through. A key
//! is never taken from a document; a webhook that needs one is configured.

use std::sync::Arc;

use futures::FutureExt;
use reqwest::header::HeaderMap;
use windlass_core::failure::{Code, Failure};
use windlass_core::machine::HookKind;
use windlass_core::value::{Map, Value};
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Hook, HookEvent};

use crate::address;
use crate::client::{Author, Clients};
use crate::headers::json_headers;
use crate::role::Caller;
use crate::webhook;

/// The hook behind [`windlass_ports::tool::Catalog::ADDRESSED`].
#[derive(Debug)]
pub(crate) struct Addressed {
    clients: Arc<Clients>,
    headers: HeaderMap,
    /// Takes what has no address.
    catch_all: Option<Arc<dyn Hook>>,
}

impl Addressed {
    pub(crate) fn new(clients: Arc<Clients>, catch_all: Option<Arc<dyn Hook>>) -> Self {
        Self { clients, headers: json_headers(), catch_all }
    }
}

impl Hook for Addressed {
    fn events(&self) -> &[HookKind] {
        &[]
    }

    fn include_machine(&self) -> bool {
        self.catch_all.as_ref().is_some_and(|hook| hook.include_machine())
    }

    fn call(&self, mut event: HookEvent) -> BoxFuture<'_, Result<Value, Failure>> {
        async move {
            let args = event.body.get("args").and_then(Value::as_map).cloned().unwrap_or_default();
            let Some(url) = args.get("url").or_else(|| args.get("endpoint")) else {
                return match &self.catch_all {
                    Some(hook) => hook.call(event).await,
                    None => Err(wrong("a webhook needs an address: `args: {url: ...}`")),
                };
            };
            check(&args)?;
            let url = address::checked(url.as_str().unwrap_or_default()).map_err(|(why, _)| wrong(why))?;
            if let Some(ms) = timeout_ms(&args)? {
                event.timeout_ms = event.timeout_ms.min(ms);
            }
            event.body = without_args(&event.body);
            let caller = Caller::hook(&event.hook, event.kind);
            let tenant = event.tenant.clone();
            webhook::post(Author::Anyone(&tenant), &self.clients, &caller, url, &self.headers, event).await
        }
        .boxed()
    }
}

fn check(args: &Map) -> Result<(), Failure> {
    for key in args.keys() {
        match &**key {
            "url" | "endpoint" | "timeout" => {}
            "api_key" => {
                let way_out = "configure `[hooks.webhook]` with `url` and `api_key` instead";
                return Err(wrong(format!("a webhook takes no key from a document: {way_out}")));
            }
            other => return Err(wrong(format!("a webhook has no argument `{other}`"))),
        }
    }
    Ok(())
}

/// `timeout` in seconds, as milliseconds.
fn timeout_ms(args: &Map) -> Result<Option<u64>, Failure> {
    match args.get("timeout") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if seconds > 0.0 => Ok(Some((seconds * 1_000.0).ceil() as u64)),
            Some(_) | None => Err(wrong(format!("`timeout` of a webhook is a number of seconds, not {value}"))),
        },
    }
}

/// The arguments address the hook; they are no part of what it is told.
fn without_args(body: &Value) -> Value {
    let rest = body.as_map().into_iter().flatten().filter(|(key, _)| &***key != "args");
    Value::map(rest.map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn wrong(message: impl AsRef<str>) -> Failure {
    Failure::new(Code::SpecInvalid, message)
}
