//! Spans over gRPC, to a collector that is made of the parts that OpenTelemetry gives.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use windlass_telemetry::{Config, Exporter, Protocol, Told};

use crate::collector::{Collector, Manner};
use crate::export::{config, span};

#[derive(Clone, Default)]
struct Takes {
    spans: Arc<Mutex<Vec<String>>>,
    refuses: bool,
}

#[tonic::async_trait]
impl TraceService for Takes {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.refuses {
            return Err(Status::unauthenticated("who are you?"));
        }
        assert_eq!(request.metadata().get("api-key").and_then(|value| value.to_str().ok()), Some("s3cret"));
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|of| of.scope_spans);
        let names = spans.flat_map(|of| of.spans).map(|span| span.name);
        self.spans.lock().expect("kept").extend(names);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Starts a collector, and gives what to send to it.
async fn collector(takes: Takes) -> Config {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let served = Server::builder().add_service(TraceServiceServer::new(takes));
    tokio::spawn(served.serve_with_incoming(TcpIncoming::from(listener)));
    Config { protocol: Protocol::Grpc, timeout: Duration::from_secs(10), ..config(&format!("http://{address}")) }
}

async fn sent(config: Config, spans: u64) -> Told {
    let exporter = Exporter::start(config).expect("started");
    for number in 0..spans {
        exporter.send(span(number));
    }
    exporter.flush(Duration::from_secs(20)).await;
    exporter.told()
}

#[tokio::test]
async fn spans_are_taken_by_a_collector_that_speaks_grpc() {
    let takes = Takes::default();
    let told = sent(collector(takes.clone()).await, 600).await;
    assert_eq!(told, Told { sent: 600, dropped: 0 });
    let came = takes.spans.lock().expect("kept");
    assert!(came.len() == 600 && came.iter().all(|name| name == "tool.call"), "{} spans", came.len());
}

#[tokio::test]
async fn what_a_service_refuses_counts_as_dropped() {
    let refuses = collector(Takes { refuses: true, ..Takes::default() }).await;
    assert_eq!(sent(refuses, 3).await, Told { sent: 0, dropped: 3 });
}

#[tokio::test]
async fn a_collector_that_speaks_http_alone_takes_nothing_over_grpc() {
    let http = Collector::start(Manner::Refuses);
    let config = Config { protocol: Protocol::Grpc, ..config(&http.endpoint) };
    assert_eq!(sent(config, 3).await, Told { sent: 0, dropped: 3 });
}
