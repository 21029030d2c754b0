//! A hook over HTTP: each event is one POST with a JSON body.

use std::sync::Arc;

use futures::FutureExt;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use windlass_core::failure::{Code, Failure};
use windlass_core::machine::HookKind;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Hook, HookEvent};

use crate::address;
use crate::answer;
use crate::build::{Site, hook_bounds, hook_events};
use crate::client::{self, Author, Clients, Message, Waits};
use crate::config::HookConfig;
use crate::headers::{JSON_HEADERS, headers, with_key};
use crate::kind::{Kind, Make};
use crate::role::Caller;

/// `webhook`.
pub(crate) const KIND: Kind = Kind {
    name: "webhook",
    summary: "Posts each event as JSON to an address.",
    keys: &[
        "events",
        "include_machine",
        "timeout_ms",
        "output_bytes_max",
        "url",
        "endpoint",
        "api_key",
        "headers",
        "secret_headers",
    ],
    make: Make::Hook(make),
};

fn make(site: &mut Site<'_>, table: &HookConfig) -> Option<Arc<dyn Hook>> {
    if table.url.is_some() && table.endpoint.is_some() {
        site.wrong("endpoint", "`url` and `endpoint` are the same: give one", None);
    }
    let headers =
        headers(site, table.api_key.as_ref(), table.headers.as_ref(), table.secret_headers.as_ref(), JSON_HEADERS);
    let text = site.need("url", table.url.as_deref().or(table.endpoint.as_deref()))?;
    let url = address::address(site, text)?;
    let (timeout_ms, bytes_max) = hook_bounds(table);
    Some(Arc::new(Webhook {
        url,
        headers,
        events: hook_events(table),
        include_machine: table.include_machine.unwrap_or(false),
        timeout_ms,
        bytes_max,
        clients: site.clients(),
    }))
}

#[derive(Debug)]
struct Webhook {
    url: Url,
    headers: HeaderMap,
    events: Vec<HookKind>,
    include_machine: bool,
    timeout_ms: u64,
    bytes_max: u64,
    clients: Arc<Clients>,
}

impl Hook for Webhook {
    fn events(&self) -> &[HookKind] {
        &self.events
    }

    fn include_machine(&self) -> bool {
        self.include_machine
    }

    fn call(&self, event: HookEvent) -> BoxFuture<'_, Result<Value, Failure>> {
        async move {
            let caller = Caller::hook(&event.hook, event.kind);
            let timeout_ms = event.timeout_ms.min(self.timeout_ms);
            let bytes_max = event.output_bytes_max.min(self.bytes_max);
            let event = HookEvent { timeout_ms, output_bytes_max: bytes_max, ..event };
            post(Author::Operator, &self.clients, &caller, self.url.clone(), &self.headers, event).await
        }
        .boxed()
    }
}

/// Posts one event within its bounds and reads the answer.
pub(crate) async fn post(
    author: Author<'_>,
    clients: &Clients,
    caller: &Caller,
    url: Url,
    headers: &HeaderMap,
    event: HookEvent,
) -> Result<Value, Failure> {
    let message = Message {
        method: Method::POST,
        url,
        headers: with_key(headers, &event.idempotency_key, event.trace.as_ref()),
        body: Some(event.body.to_json().into_bytes()),
        permit: event.permit.clone(),
        waits: Waits::default(),
    };
    let (timeout_ms, bytes_max) = (event.timeout_ms, event.output_bytes_max);
    let answer = client::exchange_for(author, clients, caller, message, timeout_ms, bytes_max).await?;
    if !answer.status.is_success() {
        return Err(answer.failure(caller));
    }
    let body = answer::json_of(&answer.body).map_err(|why| {
        let message = format!("the answer of `{}` cannot be read: {why}", event.hook);
        Failure::new(Code::HookBadAnswer, message).status(answer.status.as_u16().into())
    })?;
    answer::hook_answer(caller, event.kind, body)
}
