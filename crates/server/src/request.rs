//! What every request gets before anything looks at it: an id, under which it is answered and logged.

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use windlass_runtime::Engine;

/// The header that has the id of the request in its answer.
const HEADER: &str = "x-request-id";

/// The id under which a request is answered. One that the caller sends is not taken: it could be that of another request.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// Gives a request its id. Whatever is logged while it is dealt with has that as `request_id`.
pub(crate) async fn identified(State(engine): State<Engine>, mut request: Request, next: Next) -> Response {
    let id = format!("{:016x}", engine.parts().clock.seed());
    request.extensions_mut().insert(RequestId(id.clone()));
    // An error's, so that it is there for whatever is logged: a span below the level of the log is left out.
    let span = tracing::error_span!("request", request_id = %id);
    let answering = async {
        let response = next.run(request).await;
        tracing::debug!(status = response.status().as_u16(), "a request was answered");
        response
    };
    let mut response = answering.instrument(span).await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, id);
    }
    response
}
