//! What a call came to, as its caller reads it. Values that contracts hide are not in it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};
use windlass_core::failure::{Code, Failure};
use windlass_core::input::Ending;
use windlass_core::run::Status;
use windlass_runtime::Report;

use super::problem::Problem;

/// A document with its status.
pub(super) fn document(status: StatusCode, body: &Json) -> Response {
    let mut response = (status, format!("{body}\n")).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What a run came to.
pub(super) enum Became {
    /// It has ended well.
    Result(Json),
    /// It has failed: with what, and whether that is the caller's.
    Failed(Box<Failed>),
    /// It has not ended.
    Open,
}

/// Why a run failed.
pub(super) struct Failed {
    code: &'static str,
    message: Json,
    rule: Option<Json>,
}

impl Became {
    pub(super) fn of(report: &Report) -> Self {
        let veil = report.run.hidden.veil();
        let shown = |mut value: Json| {
            veil.json(&mut value);
            value
        };
        match &report.run.ending {
            Some(_) if !report.head.status.is_final() => Self::Open,
            None => Self::Open,
            Some(Ending::Completed { output }) => {
                let result = output.get("result").map_or(Json::Null, Json::from);
                Self::Result(shown(result))
            }
            Some(Ending::Failed { failure, .. }) => Self::Failed(Box::new(Failed {
                code: failure.code.as_str(),
                message: shown(json!(&*failure.message)),
                rule: rule(failure),
            })),
            Some(Ending::Cancelled { reason }) => Self::Failed(Box::new(Failed {
                code: Code::RunCancelled.as_str(),
                message: shown(json!(&**reason)),
                rule: None,
            })),
        }
    }
}

/// The rule that denied, when one did.
fn rule(failure: &Failure) -> Option<Json> {
    (failure.code == Code::PolicyDenied).then(|| failure.detail.get("rule").map(Json::from)).flatten()
}

/// A run as its caller sees it.
pub(super) fn run(report: &Report, tool: &str) -> Json {
    let mut body = json!({ "run_id": report.head.id.as_str(), "tool": tool, "status": word(report.head.status) });
    body["bundle"] = json!(report.run.start.bundle);
    if let Some(basis) = &report.run.basis {
        body["under"] = json!(basis);
    }
    match Became::of(report) {
        Became::Open => body["waits"] = waits(report),
        Became::Result(result) => body["result"] = result,
        Became::Failed(failed) => {
            body["error"] = json!({ "code": failed.code, "message": failed.message });
            if let Some(rule) = failed.rule {
                body["error"]["rule"] = rule;
            }
        }
    }
    body
}

/// For what a run waits: the kind, and until when.
fn waits(report: &Report) -> Json {
    let one = |wait: &windlass_runtime::Waiting| {
        let kind = if wait.approval.is_some() { "approval" } else { &*wait.kind };
        json!({ "kind": kind, "until_ms": wait.at.map(|at| at.0) })
    };
    report.waits.iter().map(one).collect()
}

fn word(status: Status) -> &'static str {
    status.as_str()
}

/// What a call is answered: its result, why it failed, or that it goes on.
pub(super) fn call(report: &Report, tool: &str) -> Result<Response, Problem> {
    let run_id = report.head.id.as_str();
    match Became::of(report) {
        Became::Result(_) => Ok(document(StatusCode::OK, &run(report, tool))),
        Became::Open => {
            let mut response = document(StatusCode::ACCEPTED, &run(report, tool));
            if let Ok(place) = HeaderValue::from_str(&format!("/v1/runs/{run_id}")) {
                response.headers_mut().insert(header::LOCATION, place);
            }
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            Ok(response)
        }
        Became::Failed(failed) => {
            let Failed { code, message, rule } = *failed;
            let detail = message.as_str().unwrap_or_default();
            let problem = Problem::new(status_of(code), code, detail).with("run_id", run_id);
            let problem = match code == Code::ToolOverloaded.as_str() {
                true => problem.retry_after(1),
                false => problem,
            };
            Err(rule.map_or(problem.clone(), |rule| problem.with("rule", rule)))
        }
    }
}

/// The status of a call that failed.
fn status_of(code: &str) -> StatusCode {
    match Code::parse(code) {
        Some(Code::PolicyDenied | Code::ApprovalRejected) => StatusCode::FORBIDDEN,
        Some(Code::BudgetExceeded) => StatusCode::PAYMENT_REQUIRED,
        Some(Code::ToolDenied | Code::ToolBadArguments | Code::RunBreaker) => StatusCode::UNPROCESSABLE_ENTITY,
        Some(Code::ToolOverloaded) => StatusCode::SERVICE_UNAVAILABLE,
        Some(Code::ToolTimeout | Code::RunTimeout) => StatusCode::GATEWAY_TIMEOUT,
        Some(Code::RunCancelled) => StatusCode::CONFLICT,
        _ => StatusCode::BAD_GATEWAY,
    }
}
