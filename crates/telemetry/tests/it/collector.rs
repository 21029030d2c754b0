//! A collector: takes requests over HTTP and keeps their spans.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::http::listen;

/// How it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Takes,
    Refuses,
    /// Reads, and never answers.
    Hangs,
}

/// What came.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    pub(crate) requests: Arc<Mutex<Vec<(String, ExportTraceServiceRequest)>>>,
}

impl Collector {
    pub(crate) fn start(manner: Manner) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (kept, mut open) = (Arc::clone(&requests), Vec::new());
        let address = listen(move |request| {
            if manner == Manner::Hangs {
                open.push(request);
                return;
            }
            let came = ExportTraceServiceRequest::decode(&*request.body).expect("a request of OTLP");
            kept.lock().expect("kept").push((request.head.clone(), came));
            request.answer(if manner == Manner::Takes { "200 OK" } else { "500 No" }, "");
        });
        Self { endpoint: format!("http://{address}/v1/traces"), requests }
    }
}
