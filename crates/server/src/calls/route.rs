//! The routes: which tools a caller may use, a call of one, and what became of it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use serde_json::{Value as Json, json};
use tokio::time::Instant;
use windlass_core::contract::Class;
use windlass_core::failure::Code;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::policy::{ARGUMENTS_UNKNOWN, Answer};
use windlass_core::run::{self, Status};
use windlass_core::trace::Incoming;
use windlass_core::value::Value;
use windlass_ports::store::{Head, Query, Queueing};
use windlass_runtime::{Report, Submission};

use super::metadata::{self, METADATA};
use super::problem::Problem;
use super::{Api, Callable, TAG_TOOL, TAG_USER, answer, body, scope};
use crate::auth::Caller;
use crate::request::RequestId;

/// Tools of one page.
const PAGE: usize = 200;
/// The first and the longest pause between two looks at a run that another process drives, which says nothing here.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
/// How long the store may take to say how a run is.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// One route. The router is made of them, so that there is no other.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Its method.
    pub method: &'static str,
    /// Its path, with `{NAME}` for what varies.
    pub path: &'static str,
    serve: fn() -> MethodRouter<Arc<Api>>,
}

/// Every route that needs a token.
pub const ROUTES: [Route; 3] = [
    Route { method: "GET", path: "/v1/tools", serve: || get(list) },
    Route { method: "POST", path: "/v1/tools/{name}/call", serve: || post(call) },
    Route { method: "GET", path: "/v1/runs/{id}", serve: || get(show) },
];

/// The routes, and an answer for everything that is none.
pub(crate) fn routes(api: Arc<Api>) -> Router {
    let all = ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.serve)()));
    let all = all.route(METADATA, get(metadata::show));
    all.method_not_allowed_fallback(not_so).fallback(nothing).with_state(api)
}

async fn nothing(id: Option<Extension<RequestId>>) -> Response {
    Problem::not_found().answer(&told(id))
}

async fn not_so(id: Option<Extension<RequestId>>) -> Response {
    let detail = "this path does not take this method";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "request.method", detail).answer(&told(id))
}

fn told(id: Option<Extension<RequestId>>) -> String {
    id.map(|id| id.0.0).unwrap_or_default()
}

fn answered(result: Result<Response, Problem>, id: &RequestId) -> Response {
    result.unwrap_or_else(|problem| problem.answer(&id.0))
}

/// A name of a path.
fn named(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|name| name.0).map_err(|_| Problem::bad("the path is not UTF-8"))
}

/// The tools that token and rules let this caller use, in the order of their names.
async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    answered(api.list(&caller, request.uri().query()), &id)
}

async fn call(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(id): Extension<RequestId>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let result = async { api.call(&caller, &named(name)?, request).await };
    answered(result.await, &id)
}

async fn show(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(id): Extension<RequestId>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let query = request.uri().query().map(str::to_owned);
    drop(request);
    let result = async { api.show(&caller, &named(name)?, query.as_deref()).await };
    answered(result.await, &id)
}

/// What a call of a tool is about, once it has been read.
struct Asked<'a> {
    name: &'a str,
    /// The run that it becomes, or was before.
    run: RunId,
    /// Whether the same request can be told from another one.
    has_key: bool,
    wait: Duration,
    trace: Option<Incoming>,
    arguments: Value,
}

impl Api {
    fn list(&self, caller: &Caller, query: Option<&str>) -> Result<Response, Problem> {
        let after = match query.filter(|query| !query.is_empty()) {
            None => None,
            Some(query) => Some(query.strip_prefix("after=").ok_or_else(|| Problem::bad("the query is `after=NAME`"))?),
        };
        let rest = self.tools.iter().filter(|(name, _)| after.is_none_or(|after| &***name > after));
        // No run: what a candidate of the rules says to some is not told of.
        let none = RunId::stored("");
        let mut shown = Vec::new();
        let mut next = Json::Null;
        for (name, tool) in rest.filter(|(name, tool)| caller.scopes.allow(name) && tool.contract.plan.is_none()) {
            let verdict = self.verdict(caller, tool, &none, None);
            let by_arguments = verdict.as_ref().is_some_and(|verdict| &*verdict.rule == ARGUMENTS_UNKNOWN);
            let answer = verdict.map_or(Answer::Allow, |verdict| verdict.answer);
            if answer == Answer::Deny && !by_arguments {
                continue;
            }
            if shown.len() == PAGE {
                next = shown.last().map_or(Json::Null, |last: &Json| last["name"].clone());
                break;
            }
            let contract = &tool.contract;
            shown.push(json!({
                "name": &**name,
                "description": &*contract.description,
                "class": contract.class,
                "idempotency": contract.idempotency,
                "input_schema": Json::from(&contract.input_schema),
                "output_schema": Json::from(&contract.output_schema),
                "asks": contract.approval.always || answer == Answer::Ask,
                "by_arguments": by_arguments,
            }));
        }
        Ok(answer::document(StatusCode::OK, &json!({ "tools": shown, "next": next })))
    }

    /// Reads what is asked, decides whether it is allowed, writes that down, and only then makes a run of it.
    async fn call(&self, caller: &Caller, name: &str, request: Request) -> Result<Response, Problem> {
        if self.stop.is_stopping() {
            return Err(Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "this process is about to end"));
        }
        let headers = request.headers();
        let key = body::key(headers)?.map(str::to_owned);
        let wait = body::wait(request.uri().query())?;
        let trace = trace(headers);
        let arguments = body::arguments(request).await?;
        let run = match &key {
            Some(key) => run_of(caller, name, key),
            None => self.fresh_run(),
        };
        let asked = Asked { name, run, has_key: key.is_some(), wait, trace, arguments };
        let tool = self.allowed(caller, &asked).await?;
        let wait = asked.wait;
        let run = self.submit(caller, tool, asked).await?;
        self.wait(&run, wait, is_held).await?;
        answer::call(&self.report(&run).await?, name)
    }

    /// The tool, when this caller may call it like that.
    async fn allowed<'s>(&'s self, caller: &Caller, asked: &Asked<'_>) -> Result<&'s Callable, Problem> {
        let name = asked.name;
        if !caller.scopes.allow(name) {
            self.metrics.requests.decided("scope");
            let why = format!("the token has no scope for it: {}", crate::auth::Scopes::needed(name));
            self.decided(caller, false, name, &why).await?;
            return Err(Problem::scope(name));
        }
        let tool = self.tools.get(name).ok_or_else(Problem::not_found)?;
        let verdict = self.verdict(caller, tool, &asked.run, Some(&asked.arguments));
        if let Some(verdict) = verdict.as_ref().filter(|verdict| verdict.answer == Answer::Deny) {
            self.metrics.requests.decided("policy");
            self.decided(caller, false, name, &format!("rule {}: {}", verdict.rule, verdict.reason)).await?;
            return Err(Problem::policy(&verdict.rule, &verdict.reason));
        }
        fits(&self.engine.parts().compiler.evaluator(), tool, asked)?;
        let rule = verdict.map_or_else(|| "no rules".to_owned(), |verdict| format!("rule {}", verdict.rule));
        self.metrics.requests.decided("allow");
        self.decided(caller, true, name, &rule).await?;
        Ok(tool)
    }

    /// Makes a run of a call. The same key of the same caller for the same tool gives the same run.
    async fn submit(&self, caller: &Caller, tool: &Callable, asked: Asked<'_>) -> Result<RunId, Problem> {
        let name = &tool.contract.name;
        let tags = [(TAG_TOOL, name), (TAG_USER, &caller.user)];
        let tags = tags.into_iter().map(|(tag, value)| (Name::from(tag), value.clone())).collect();
        let submission = Submission {
            bundle: tool.bundle.clone(),
            program: Arc::clone(&tool.program),
            input: Value::object([("arguments", asked.arguments)]),
            run_id: Some(asked.run),
            ceilings: self.ceilings,
            scope: scope(caller),
            origin: None,
            queueing: Queueing { tags, ..Queueing::default() },
            caller: run::Caller { by: Some(caller.user.clone()), trace: asked.trace, version: None },
        };
        let submitting = tokio::time::timeout(STORE_PATIENCE, self.engine.submit(submission));
        let submitted = submitting.await.map_err(|_| Problem::away())?.map_err(|error| Problem::submit(&error))?;
        Ok(submitted.run_id)
    }

    /// The id of a run that no other request comes to.
    fn fresh_run(&self) -> RunId {
        let clock = &self.engine.parts().clock;
        RunId::stored(&format!("call-{:016x}{:016x}", clock.seed(), clock.seed()))
    }

    /// Waits until a run has ended, until its status is one that is enough, or until the time is over.
    async fn wait(&self, run: &RunId, wait: Duration, enough: fn(Status) -> bool) -> Result<(), Problem> {
        let until = Instant::now() + wait;
        let watched = self.commits.watch(run);
        let mut pause = LOOKS.0;
        loop {
            // Listened for before the look, so that what is committed in between is not missed.
            let mut committed = pin!(watched.committed());
            committed.as_mut().enable();
            let status = self.head(Query { root: Some(run.clone()), ..Query::default() }).await?.status;
            if status.is_final() || enough(status) || Instant::now() >= until || self.stop.is_stopping() {
                return Ok(());
            }
            tokio::select! {
                () = committed => {}
                () = tokio::time::sleep_until((Instant::now() + pause).min(until)) => {}
                () = self.stop.graceful.cancelled() => {}
            }
            pause = (pause * 2).min(LOOKS.1);
        }
    }

    /// The run that nobody started but a caller, of this query, as its row has it: nothing of what it did is read.
    async fn head(&self, query: Query) -> Result<Head, Problem> {
        let listing = self.engine.parts().store.list(Query { roots_only: true, limit: 1, ..query });
        let listed = tokio::time::timeout(STORE_PATIENCE, listing).await.map_err(|_| Problem::away())?;
        listed.map_err(|error| Problem::store(&error))?.heads.pop().ok_or_else(Problem::not_found)
    }

    async fn report(&self, run: &RunId) -> Result<Report, Problem> {
        let asking = tokio::time::timeout(STORE_PATIENCE, self.engine.status(run)).await;
        let report = asking.map_err(|_| Problem::away())?.map_err(|error| Problem::engine(&error))?;
        report.ok_or_else(Problem::not_found)
    }

    /// A run of a call of this caller's. Whatever else there is looks as if it were not there.
    async fn show(&self, caller: &Caller, id: &str, query: Option<&str>) -> Result<Response, Problem> {
        let wait = match query.filter(|query| !query.is_empty()) {
            None => Duration::ZERO,
            query => body::wait(query)?,
        };
        let id = RunId::new(id).map_err(|_| Problem::not_found())?;
        let own = Query {
            root: Some(id.clone()),
            tenant: Some(caller.tenant.clone()),
            tags: vec![(TAG_USER.into(), Some(caller.user.clone()))],
            ..Query::default()
        };
        // Whose it is comes first: that a run cannot be read is nothing to others.
        let head = self.head(own).await?;
        let tool = head.tags.get(TAG_TOOL).filter(|tool| caller.scopes.allow(tool)).cloned();
        let tool = tool.ok_or_else(Problem::not_found)?;
        if !wait.is_zero() {
            self.wait(&id, wait, |_| false).await?;
        }
        Ok(answer::document(StatusCode::OK, &answer::run(&self.report(&id).await?, &tool)))
    }
}

/// Whether a person has to do something before a run goes on, which may take any time.
fn is_held(status: Status) -> bool {
    matches!(status, Status::Attention | Status::Paused | Status::Quarantined)
}

/// Whether a call can be made at all: not of a tool that goes by plans, with arguments that fit, and with a key where a
/// second call would do something a second time.
fn fits(
    evaluator: &Arc<dyn windlass_core::eval::Evaluator>,
    tool: &Callable,
    asked: &Asked<'_>,
) -> Result<(), Problem> {
    let contract = &tool.contract;
    let refused = |code: Code, detail: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code.as_str(), detail);
    if contract.plan.is_some() {
        return Err(refused(
            Code::ToolDenied,
            "the tool goes by plans, which only runs with a model can make and apply",
        ));
    }
    if contract.class != Class::Read && !asked.has_key {
        let detail =
            "the tool changes something: send an `Idempotency-Key`, so that the same request can be sent again";
        return Err(Problem::bad(detail));
    }
    if contract.input_schema.is_null() {
        return Ok(());
    }
    match evaluator.fit(&contract.input_schema, &asked.arguments) {
        Ok(_) => Ok(()),
        Err(problems) => {
            Err(refused(Code::ToolBadArguments, "the arguments do not fit the schema of the tool")
                .with("errors", problems))
        }
    }
}

/// The trace within which a request is made. One that cannot be read counts for nothing, as its specification says.
fn trace(headers: &HeaderMap) -> Option<Incoming> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    Incoming::parse(text("traceparent")?, text("tracestate")).ok()
}

/// The run of a key: of one tenant, one user and one tool, so that nobody comes by another one's.
fn run_of(caller: &Caller, tool: &str, key: &str) -> RunId {
    let parts = ["windlass.call.v1", &caller.tenant, &caller.user, tool, key];
    let digest: Digest = Value::list(parts.map(Value::str).to_vec()).digest();
    RunId::stored(&format!("call-{}", &digest.to_string()[..40]))
}
