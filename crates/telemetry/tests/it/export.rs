//! What is sent, and that nobody waits for it.

use std::time::Duration;

use windlass_core::ids::RunId;
use windlass_core::trace::{SpanId, TraceId};
use windlass_telemetry::{Config, Exporter, Field, Protocol, QUEUE_MAX, SetupError, Taken, Told};

use crate::collector::{Collector, Manner};

pub(crate) fn config(endpoint: &str) -> Config {
    Config {
        endpoint: endpoint.to_owned(),
        headers: vec![("api-key".to_owned(), "s3cret".to_owned())],
        service: "pay".to_owned(),
        resource: vec![("env".to_owned(), "test".to_owned())],
        timeout: Duration::from_millis(200),
        protocol: Protocol::HttpProtobuf,
        parent_based: true,
    }
}

pub(crate) fn span(number: u64) -> Taken {
    let run = RunId::stored("r");
    Taken {
        trace: TraceId::of(&run),
        id: SpanId::of_part(&run, &number.to_string()),
        parent: Some(SpanId::of_run(&run)),
        name: "tool.call",
        leaves: true,
        began_ns: 1_000,
        ended_ns: 2_000,
        fields: vec![("gen_ai.tool.name", Field::Text("pay".to_owned())), ("n", number.into())],
        failed: Some("tool.failed".to_owned()),
    }
}

#[tokio::test]
async fn spans_are_sent_with_the_resource_and_the_headers() {
    let collector = Collector::start(Manner::Takes);
    let exporter = Exporter::start(config(&collector.endpoint)).expect("started");
    for number in 0..600 {
        exporter.send(span(number));
    }
    exporter.flush(Duration::from_secs(20)).await;
    assert_eq!(exporter.told(), Told { sent: 600, dropped: 0 });
    let requests = collector.requests.lock().expect("kept");
    let (head, first) = &requests[0];
    assert!(head.starts_with("POST /v1/traces ") && head.contains("api-key: s3cret"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let resource = first.resource_spans[0].resource.as_ref().expect("a resource");
    let names: Vec<&str> = resource.attributes.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(names, ["service.name", "env"]);
    let spans: usize = requests.iter().map(|(_, one)| one.resource_spans[0].scope_spans[0].spans.len()).sum();
    assert_eq!(spans, 600);
    let sent = &first.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((sent.trace_id.len(), sent.span_id.len(), sent.parent_span_id.len()), (16, 8, 8));
    assert_eq!((sent.name.as_str(), sent.kind, sent.start_time_unix_nano), ("tool.call", 3, 1_000));
    assert_eq!(sent.status.as_ref().map(|status| status.code), Some(2));
}

#[tokio::test]
async fn a_collector_that_is_away_slow_or_refuses_blocks_nothing() {
    let away = "http://127.0.0.1:9/v1/traces".to_owned();
    let refuses = Collector::start(Manner::Refuses);
    let hangs = Collector::start(Manner::Hangs);
    for endpoint in [&away, &refuses.endpoint, &hangs.endpoint] {
        let exporter = Exporter::start(config(endpoint)).expect("started");
        let all = 4 * QUEUE_MAX as u64;
        let began = std::time::Instant::now();
        for number in 0..all {
            exporter.send(span(number));
        }
        assert!(began.elapsed() < Duration::from_secs(2), "taking a span waits for nobody");
        exporter.flush(Duration::from_secs(20)).await;
        assert_eq!(exporter.told(), Told { sent: 0, dropped: all }, "{endpoint}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused() {
    for endpoint in ["localhost:4318", "ftp://a", ""] {
        assert!(matches!(Exporter::start(config(endpoint)), Err(SetupError::Endpoint(_))), "{endpoint}");
    }
    let mut bad = config("http://a");
    bad.headers = vec![("bad name".to_owned(), "s3cret".to_owned())];
    let error = Exporter::start(bad).expect_err("refused").to_string();
    assert!(error.contains("bad name") && !error.contains("s3cret"), "{error}");
}
