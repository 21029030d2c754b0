//! One request of OTLP: written as its protocol wants it, and what became of it.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};

use crate::export::{Config, SetupError, shown};

/// The method of the collector's service, after the address.
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How spans are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over HTTP, as protobuf.
    #[default]
    HttpProtobuf,
    /// OTLP over gRPC.
    Grpc,
}

impl Protocol {
    /// The word that names it, as OpenTelemetry has it.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "http/protobuf" => Some(Self::HttpProtobuf),
            "grpc" => Some(Self::Grpc),
            _ => None,
        }
    }
}

/// Carries requests to a collector.
pub(crate) struct Carrier {
    client: reqwest::Client,
    url: reqwest::Url,
    headers: HeaderMap,
    protocol: Protocol,
    timeout: Duration,
}

impl Carrier {
    pub(crate) fn new(config: &Config) -> Result<Self, SetupError> {
        let url = reqwest::Url::parse(&config.endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let mut url = url.ok_or_else(|| SetupError::Endpoint(shown(&config.endpoint)))?;
        let mut headers = HeaderMap::new();
        let protocol = config.protocol;
        match protocol {
            Protocol::HttpProtobuf => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            }
            Protocol::Grpc => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert(TE, HeaderValue::from_static("trailers"));
                url.set_path(METHOD);
            }
        }
        for (name, value) in &config.headers {
            let parsed = HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::from_str(value).ok());
            let (key, mut value) = parsed.ok_or_else(|| SetupError::Header(name.clone()))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        // Fails only when the process has chosen a provider before, which is as good.
        let _chosen_before = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder();
        let builder = match protocol {
            Protocol::HttpProtobuf => builder.http1_only(),
            Protocol::Grpc => builder.http2_prior_knowledge(),
        };
        let client = builder
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(config.timeout)
            .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| SetupError::Client(error.to_string()))?;
        Ok(Self { client, url, headers, protocol, timeout: config.timeout })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Why it was not taken, in words that hold nothing of the address.
    pub(crate) async fn carry(&self, request: &ExportTraceServiceRequest) -> Result<(), String> {
        let body = match self.protocol {
            Protocol::HttpProtobuf => request.encode_to_vec(),
            Protocol::Grpc => framed(request),
        };
        let sent = self.client.post(self.url.clone()).headers(self.headers.clone()).body(body).send().await;
        let response = sent.map_err(|error| error.without_url().to_string())?;
        if !response.status().is_success() {
            return Err(response.status().to_string());
        }
        match self.protocol {
            Protocol::HttpProtobuf => Ok(()),
            Protocol::Grpc => self.status(response).await,
        }
    }

    /// What a service says of a request after its answer, or before it where there is no answer.
    async fn status(&self, response: reqwest::Response) -> Result<(), String> {
        let (head, body) = http::Response::<reqwest::Body>::from(response).into_parts();
        let read = tokio::time::timeout(self.timeout, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        let read = read.map_err(|_| "the answer did not end in time".to_owned())?;
        let read = read.map_err(|error| format!("the answer could not be read: {error}"))?;
        let said = read.trailers().filter(|trailers| trailers.contains_key("grpc-status")).unwrap_or(&head.headers);
        let word = |name: &str| said.get(name).and_then(|value| value.to_str().ok());
        match word("grpc-status") {
            Some("0") => Ok(()),
            Some(code) => Err(format!("gRPC status {code}: {}", word("grpc-message").unwrap_or("no reason given"))),
            None => Err("the answer has no gRPC status: is it a collector that speaks gRPC?".to_owned()),
        }
    }
}

/// A message as gRPC frames it: not compressed, its length, itself.
fn framed(request: &ExportTraceServiceRequest) -> Vec<u8> {
    let length = request.encoded_len();
    let mut framed = Vec::with_capacity(length + 5);
    framed.push(0);
    framed.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(request.encode_to_vec());
    framed
}
