//! Sends spans over OTLP, some at a time. The queue has an end: while the other side is slow or away, what
//! comes is dropped and counted, and nobody waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use tokio::sync::{mpsc, oneshot};
use windlass_core::trace::Incoming;

use crate::carrier::{Carrier, Protocol};
use crate::spans::{Field, Taken};

/// Spans that wait to be sent.
pub const QUEUE_MAX: usize = 2_048;
/// Spans of one request.
const BATCH_MAX: usize = 512;
/// How long spans wait for others.
const PACE: Duration = Duration::from_millis(1_000);
/// Flags of a span whose parent is of another process: it is sampled.
const SAMPLED: u32 = 1;

/// Where spans go.
#[derive(Clone)]
pub struct Config {
    /// The whole address, with its path; of one for gRPC the path is not looked at.
    pub endpoint: String,
    /// Headers of every request; their values are secrets.
    pub headers: Vec<(String, String)>,
    /// What the process is called.
    pub service: String,
    /// More about it.
    pub resource: Vec<(String, String)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// How they are written.
    pub protocol: Protocol,
    /// Whether spans of a run are left out whose caller records none of its own.
    pub parent_based: bool,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Config")
            .field("endpoint", &shown(&self.endpoint))
            .field("headers", &headers)
            .field("service", &self.service)
            .field("timeout", &self.timeout)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// An address as it may be shown: without a user, a password and what is asked, which may be secrets. Of what is no address
/// nothing is known, and nothing is shown.
pub(crate) fn shown(endpoint: &str) -> String {
    match reqwest::Url::parse(endpoint) {
        Ok(url) if url.has_host() => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
        }
        _ => "…".to_owned(),
    }
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address is none; it is given without what may be secret in it.
    #[error("`{0}` is no address that spans can be sent to: `http://` or `https://` is wanted")]
    Endpoint(String),
    /// A header cannot be sent.
    #[error("the header `{0}` for spans cannot be sent")]
    Header(String),
    /// The client cannot be made.
    #[error("spans cannot be sent: {0}")]
    Client(String),
}

/// What became of spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The other side took them.
    pub sent: u64,
    /// The queue was full, or the other side did not take them.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
    /// It was said that too many wait.
    is_full: AtomicBool,
}

enum Order {
    Span(Box<Taken>),
    Flush(oneshot::Sender<()>),
}

/// Takes spans and sends them from a task of its own. Clones share it.
#[derive(Clone, Debug)]
pub struct Exporter {
    queue: mpsc::Sender<Order>,
    counts: Arc<Counts>,
    parent_based: bool,
}

impl Exporter {
    /// Starts to send. Needs an async runtime.
    ///
    /// # Errors
    /// An address or a header that cannot be used.
    pub fn start(config: Config) -> Result<Self, SetupError> {
        let carrier = Carrier::new(&config)?;
        let named = [("service.name".to_owned(), config.service)];
        let attributes = named.into_iter().chain(config.resource).map(|(key, value)| text(&key, value)).collect();
        let resource = Resource { attributes, ..Resource::default() };
        let (queue, orders) = mpsc::channel(QUEUE_MAX);
        let counts = Arc::new(Counts::default());
        let sender = Sender { carrier, resource, counts: Arc::clone(&counts), warned: false };
        tokio::spawn(sender.run(orders));
        Ok(Self { queue, counts, parent_based: config.parent_based })
    }

    /// Whether it wants spans of a run that was started within this trace.
    #[must_use]
    pub fn wants(&self, trace: Option<&Incoming>) -> bool {
        !self.parent_based || trace.is_none_or(Incoming::is_sampled)
    }

    /// Takes a span, or drops it when too many wait.
    pub fn send(&self, span: Taken) {
        if self.queue.try_send(Order::Span(Box::new(span))).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            if !self.counts.is_full.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    wait = QUEUE_MAX,
                    "too many spans wait, and further ones are dropped; runs are not affected"
                );
            }
        }
    }

    /// Waits until what was taken is sent, for so long at most.
    pub async fn flush(&self, patience: Duration) {
        let (done, is_done) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Order::Flush(done)).await.is_ok() {
                // The task may end first: then there is nothing to wait for.
                let _ended = is_done.await;
            }
        };
        // What could not be sent by then may be lost.
        let _in_time = tokio::time::timeout(patience, flushed).await;
    }

    /// What became of spans so far.
    #[must_use]
    pub fn told(&self) -> Told {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Told { sent: count(&self.counts.sent), dropped: count(&self.counts.dropped) }
    }
}

struct Sender {
    carrier: Carrier,
    resource: Resource,
    counts: Arc<Counts>,
    /// It was said that the other side takes nothing.
    warned: bool,
}

impl Sender {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut batch = Vec::new();
        while let Some(order) = orders.recv().await {
            let mut flush = None;
            match order {
                Order::Span(span) => batch.push(*span),
                Order::Flush(done) => flush = Some(done),
            }
            let full = tokio::time::sleep(PACE);
            tokio::pin!(full);
            while flush.is_none() && batch.len() < BATCH_MAX {
                tokio::select! {
                    order = orders.recv() => match order {
                        Some(Order::Span(span)) => batch.push(*span),
                        Some(Order::Flush(done)) => flush = Some(done),
                        None => break,
                    },
                    () = &mut full => break,
                }
            }
            self.send(std::mem::take(&mut batch)).await;
            if let Some(done) = flush {
                // Whoever asked may have given up.
                let _gone = done.send(());
            }
        }
    }

    async fn send(&mut self, batch: Vec<Taken>) {
        if batch.is_empty() {
            return;
        }
        let count = batch.len() as u64;
        let Err(refused) = self.carrier.carry(&self.request(batch)).await else {
            self.counts.sent.fetch_add(count, Ordering::Relaxed);
            if self.counts.is_full.swap(false, Ordering::Relaxed) {
                tracing::info!("spans are sent again");
            }
            if std::mem::take(&mut self.warned) {
                tracing::info!("spans are taken again");
            }
            return;
        };
        self.counts.dropped.fetch_add(count, Ordering::Relaxed);
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(why = refused, "spans are not taken, and are dropped; runs are not affected");
        }
    }

    fn request(&self, batch: Vec<Taken>) -> ExportTraceServiceRequest {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let scope = InstrumentationScope { name: "windlass".to_owned(), version, ..InstrumentationScope::default() };
        let spans = batch.into_iter().map(wire).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
        let resource = Some(self.resource.clone());
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, schema_url: String::new() }],
        }
    }
}

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, Value::StringValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn wire(span: Taken) -> Span {
    let field = |(key, field): (&str, Field)| match field {
        Field::Text(value) => text(key, value),
        Field::Number(number) => attribute(key, Value::IntValue(number)),
    };
    let kind = if span.leaves { SpanKind::Client } else { SpanKind::Internal };
    let status = span.failed.map(|message| Status { message, code: StatusCode::Error.into() });
    Span {
        trace_id: span.trace.0.to_vec(),
        span_id: span.id.0.to_vec(),
        parent_span_id: span.parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
        flags: SAMPLED,
        name: span.name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: span.began_ns,
        end_time_unix_nano: span.ended_ns,
        attributes: span.fields.into_iter().map(field).collect(),
        status,
        ..Span::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoint: &str) -> Config {
        Config {
            endpoint: endpoint.to_owned(),
            headers: vec![("api-key".to_owned(), "s3cret".to_owned())],
            service: "windlass".to_owned(),
            resource: Vec::new(),
            timeout: Duration::from_secs(1),
            protocol: Protocol::HttpProtobuf,
            parent_based: true,
        }
    }

    #[tokio::test]
    async fn secrets_of_an_address_are_not_shown() {
        for endpoint in ["ftp://user:s3cret@host:9/in?token=s3cret", "user:s3cret@host", "https//user:s3cret@host"] {
            let error = Exporter::start(config(endpoint)).expect_err("refused");
            assert!(!error.to_string().contains("s3cret"), "{error}");
            let debugged = format!("{:?} {error:?}", config(endpoint));
            assert!(!debugged.contains("s3cret") && debugged.contains("api-key"), "{debugged}");
        }
        assert_eq!(shown("ftp://user:s3cret@host:9/in?token=s3cret"), "ftp://host:9/in");
    }
}
