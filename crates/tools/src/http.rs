//! An HTTP request as a tool or an action.
//!
//! The host is fixed by configuration; arguments reach the path and the query percent-encoded, or a JSON body.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt;
use reqwest::header::HeaderMap;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use windlass_core::contract::{Class, Contract};
use windlass_core::failure::{Code, Failure};
use windlass_core::value::{Map, Value};
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Invocation, Tool};

use crate::address::{self, AddressTemplate};
use crate::answer;
use crate::build::Site;
use crate::client::{self, Clients, Message, Waits};
use crate::config::{ArgumentPlace, ToolConfig};
use crate::headers::{headers, with_key};
use crate::kind::{Kind, Make};
use crate::role::{Caller, Role};

/// `http` for tools and actions.
pub(crate) const KIND: Kind = Kind {
    name: "http",
    summary: "An HTTP request for each call, with the arguments in its address or its JSON body.",
    keys: &[
        "method",
        "url",
        "arguments",
        "api_key",
        "headers",
        "secret_headers",
        "header_timeout_ms",
        "idle_timeout_ms",
    ],
    make: Make::Tool(make),
};

fn make(site: &mut Site<'_>, table: &ToolConfig, contract: Contract, role: Role) -> Option<Arc<dyn Tool>> {
    let method = method(site, table, contract.class);
    let base = &[(ACCEPT, "application/json, text/*;q=0.5")];
    let headers = headers(site, table.api_key.as_ref(), table.headers.as_ref(), table.secret_headers.as_ref(), base);
    let text = site.need("url", table.url.as_deref())?;
    address::address(site, text)?;
    let address = match AddressTemplate::parse(text) {
        Ok(address) => address,
        Err(why) => {
            site.wrong("url", format!("the address is no template: {why}"), None);
            return None;
        }
    };
    let method = method?;
    let in_query = matches!(method, Method::GET | Method::HEAD | Method::DELETE);
    let default = if in_query { ArgumentPlace::Query } else { ArgumentPlace::Body };
    let place = table.arguments.unwrap_or(default);
    if place == ArgumentPlace::Body && matches!(method, Method::GET | Method::HEAD) {
        site.wrong("arguments", format!("{method} has no body"), None);
    }
    let caller = Caller::of(&contract, role);
    for (key, ms) in [("header_timeout_ms", table.header_timeout_ms), ("idle_timeout_ms", table.idle_timeout_ms)] {
        if ms == Some(0) {
            site.wrong(key, "must be at least 1", None);
        }
    }
    let waits = Waits { header_ms: table.header_timeout_ms, idle_ms: table.idle_timeout_ms };
    Some(Arc::new(HttpTool { contract, caller, method, address, place, headers, waits, clients: site.clients() }))
}

fn method(site: &mut Site<'_>, table: &ToolConfig, class: Class) -> Option<Method> {
    let default = if class == Class::Read { "GET" } else { "POST" };
    let word = table.method.as_deref().unwrap_or(default);
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let found = known.into_iter().find(|method| method.as_str() == word);
    if found.is_none() {
        site.wrong("method", format!("`{}` is no method", answer::printable(word)), Some("write it in capitals"));
    }
    found
}

#[derive(Debug)]
struct HttpTool {
    contract: Contract,
    caller: Caller,
    method: Method,
    address: AddressTemplate,
    place: ArgumentPlace,
    headers: HeaderMap,
    waits: Waits,
    clients: Arc<Clients>,
}

impl Tool for HttpTool {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        async move {
            let message = self.message(&invocation)?;
            let timeout_ms = invocation.timeout_ms.min(self.contract.timeout_ms);
            let bytes_max = invocation.output_bytes_max.min(self.contract.output_bytes_max);
            let answer = client::exchange(&self.clients, &self.caller, message, timeout_ms, bytes_max).await?;
            if !answer.status.is_success() {
                return Err(answer.failure(&self.caller));
            }
            let value = if answer.is_json() { answer::json_of(&answer.body) } else { answer::value_of(&answer.body) };
            value.map_err(|why| {
                let message = format!("the answer of `{}` cannot be read: {why}", self.caller.name);
                self.caller.failed(message).status(answer.status.as_u16().into())
            })
        }
        .boxed()
    }
}

impl HttpTool {
    fn message(&self, invocation: &Invocation) -> Result<Message, Failure> {
        let empty = Map::new();
        let arguments = match &invocation.arguments {
            Value::Map(map) => map,
            Value::Null => &empty,
            other => {
                let message = format!("the arguments are a {}, not a mapping", other.type_name());
                return Err(Failure::new(Code::ToolBadArguments, message));
            }
        };
        let used = self.address.names();
        let mut url = self.address.fill(arguments)?;
        let mut headers = with_key(&self.headers, &invocation.idempotency_key, invocation.trace.as_ref());
        let body = match self.place {
            ArgumentPlace::Query => {
                self.query(&mut url, arguments, &used)?;
                None
            }
            ArgumentPlace::Body => {
                if !headers.contains_key(CONTENT_TYPE) {
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                }
                Some(rest(arguments, &used).to_json().into_bytes())
            }
        };
        address::fits(&url)?;
        Ok(Message {
            method: self.method.clone(),
            url,
            headers,
            body,
            permit: invocation.permit.clone(),
            waits: self.waits,
        })
    }

    fn query(&self, url: &mut Url, arguments: &Map, used: &BTreeSet<&str>) -> Result<(), Failure> {
        let unused = arguments.iter().map(|(name, value)| (&**name, value)).filter(|(name, _)| !used.contains(name));
        address::append_query(url, unused)
    }
}

/// The arguments that the address does not use.
fn rest(arguments: &Map, used: &BTreeSet<&str>) -> Value {
    let unused = arguments.iter().filter(|(name, _)| !used.contains(&***name));
    Value::map(unused.map(|(name, value)| (name.clone(), value.clone())).collect())
}
