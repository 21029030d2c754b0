//! What policy, budgets and the audit trail add to a tool call, measured beside the same call without them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use windlass_chaos::layer::{Answer, Layer, Layered};
use windlass_core::budget::Meter;
use windlass_core::effect::Spent;
use windlass_core::escrow::{Beyond, Budget, NEAR_PERCENT_DEFAULT, Period};
use windlass_core::ids::Name;
use windlass_core::input::Quote;
use windlass_core::machine::ModelSettings;
use windlass_core::request::ModelRequest;
use windlass_core::run::TenantScope;
use windlass_core::transcript::{Finish, Message, Reply, ToolRequest, Usage};
use windlass_core::value::Value;
use windlass_policy::LivePolicy;
use windlass_ports::BoxFuture;
use windlass_ports::model::{Model, ModelResult};
use windlass_ports::policy::{AllowAll, Policy};
use windlass_ports::store::{Commit, Committed, Store, escrow};
use windlass_runtime::{Engine, Scope, Silent, Stop};
use windlass_spec::Loaded;

use super::field::Field;
use super::load::{self, ACTION, Shape};
use super::{Measured, micros, percentile_ms, rounded};
use crate::args::BenchGoverned;
use crate::exit::Problem;
use crate::outcome;

/// Rules of the rule set that is measured, besides those that allow.
const RULES: usize = 20;
/// What each budget allows of each meter: more than any measurement uses.
const CAP: u64 = 1_000_000_000_000;
/// Budgets that apply to the tool call of a user.
const SCOPES: [&str; 3] = ["tenant:acme", "user:acme/ada", "tool:acme/noop"];

/// Measures tool calls with everything on and tool calls with nothing on, run after run in turn.
pub(crate) async fn governed(field: &Field, args: &BenchGoverned) -> Result<Measured, Problem> {
    let floor = field.floor(1, Duration::from_millis(args.floor.0)).await?;
    let loaded = load::asking(args.calls)?;
    let store = field.open().await?;
    budgets(&*store).await?;
    let (plain, full) = (Arc::new(Asker::new(args.calls)), Arc::new(Asker::new(args.calls)));
    let bare: Arc<dyn Store> = Arc::new(Layered(Unaudited(field.open().await?)));
    let without = engine(bare, &plain, Arc::new(AllowAll));
    let with = engine(Arc::clone(&store), &full, policy(field)?);
    // No budget applies to runs of nobody.
    let nobody = TenantScope::default();
    let ada = TenantScope { tenant: "acme".into(), user: Some("ada".into()) };
    for round in 0..=args.runs {
        if round == 1 {
            // The first run of each warms caches.
            plain.forget();
            full.forget();
        }
        drive(&without, &loaded, nobody.clone()).await?;
        drive(&with, &loaded, ada.clone()).await?;
    }
    let before = store.stats().await?;
    drive(&with, &loaded, ada).await?;
    let after = store.stats().await?;
    without.leave().await;
    with.leave().await;
    let (plain, full) = (plain.sorted(), full.sorted());
    let commits = after.commits.saturating_sub(before.commits).max(1) as f64;
    let per_commit = |now: u64, before: u64| rounded(now.saturating_sub(before) as f64 / commits);
    let added = |share| Some(rounded(percentile_ms(&full, share)? - percentile_ms(&plain, share)?));
    Ok(Measured {
        p50_ms: percentile_ms(&full, 0.5),
        p99_ms: percentile_ms(&full, 0.99),
        ..Measured::new("governed", field.kind())
    }
    .with("plain_p50_ms", percentile_ms(&plain, 0.5))
    .with("plain_p99_ms", percentile_ms(&plain, 0.99))
    .with("added_p50_ms", added(0.5))
    .with("added_p90_ms", added(0.9))
    .with("synced_write_p50_ms", rounded(floor.p50_ms))
    .with("calls", full.len())
    .with("rules", RULES + 2)
    .with("budgets", SCOPES.len())
    .with("statements_per_commit", per_commit(after.statements, before.statements))
    .with("transactions_per_commit", per_commit(after.transactions, before.transactions)))
}

fn engine(store: Arc<dyn Store>, asker: &Arc<Asker>, policy: Arc<dyn Policy>) -> Engine {
    let model = Arc::clone(asker) as Arc<dyn Model>;
    load::engine(store, Arc::new(Silent), &Shape { policy: Some(policy), model: Some(model), ..Shape::default() })
}

async fn drive(engine: &Engine, loaded: &Loaded, scope: TenantScope) -> Result<(), Problem> {
    let submission = load::submission(loaded, &Value::Null, None);
    let submission = windlass_runtime::Submission { scope, ..submission };
    let run = engine.submit(submission).await.map_err(outcome::submit_problem)?.run_id;
    engine.drive(Scope::Tree(run.clone()), Stop::new()).await.map_err(outcome::engine_problem)?;
    match engine.status(&run).await.map_err(outcome::engine_problem)? {
        Some(report) if report.head.status == windlass_core::run::Status::Completed => Ok(()),
        _ => Err(Problem::bug(format!("run `{run}` of the measurement did not complete"))),
    }
}

/// A rule set as large as those of real environments.
///
/// # Errors
/// It cannot be written or read.
pub(super) fn policy(field: &Field) -> Result<Arc<dyn Policy>, Problem> {
    let folder = field.path("policies");
    let mut rules = String::from(
        "@id(\"flow\") permit (principal, action in [Action::\"CallModel\", Action::\"StartMachine\", \
         Action::\"TakeTransition\"], resource);\n\
         @id(\"tools\") permit (principal, action == Action::\"CallTool\", resource) when { resource.class == \"read\" };\n",
    );
    for number in 0..RULES {
        rules.push_str(&format!(
            "@id(\"not-{number}\") forbid (principal, action == Action::\"CallTool\", resource) \
             when {{ principal.tier == \"tier-{number}\" && resource.class == \"danger\" }};\n"
        ));
    }
    let entities = r#"[{"uid": {"type": "Tenant", "id": "acme"}, "attrs": {"tier": "pro", "locale": "de"}}]"#;
    let written = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(folder.join("rules.cedar"), rules))
        .and_then(|()| std::fs::write(folder.join("entities.json"), entities));
    written.map_err(|error| Problem::bug(format!("the rules of the measurement cannot be written: {error}")))?;
    let policy = LivePolicy::open(&folder)
        .map_err(|findings| Problem::bug(format!("the rules of the measurement are not valid: {findings}")))?;
    Ok(policy)
}

/// Budgets for everything that a call of a user draws on.
///
/// # Errors
/// The store fails.
pub(super) async fn budgets(store: &dyn Store) -> Result<(), Problem> {
    for scope in SCOPES {
        let meters: &[Meter] =
            if scope.starts_with("tool:") { &[Meter::ToolCalls] } else { &windlass_core::escrow::METERS };
        let caps = meters.iter().map(|meter| (*meter, CAP)).collect();
        let budget = Budget { caps, period: Period::Day, near_percent: NEAR_PERCENT_DEFAULT, beyond: Beyond::Fail };
        escrow::put_budget(store, &Name::from(scope), 0, Some(&budget)).await?;
    }
    Ok(())
}

/// A store that writes no audit rows.
#[derive(Debug)]
struct Unaudited(Arc<dyn Store>);

impl Layer for Unaudited {
    fn below(&self) -> &dyn Store {
        &*self.0
    }

    fn commit(&self, mut commit: Commit) -> Answer<'_, Committed> {
        commit.audit.clear();
        self.0.commit(commit)
    }
}

/// A model that asks for one tool call after another, and takes the time from its request to the next question.
#[derive(Debug)]
struct Asker {
    calls: u32,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    at: Option<Instant>,
    micros: Vec<u32>,
}

impl Asker {
    fn new(calls: u32) -> Self {
        Self { calls, asked: Mutex::default() }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        *self.asked() = Asked::default();
    }

    fn sorted(&self) -> Vec<u32> {
        let mut micros = self.asked().micros.clone();
        micros.sort_unstable();
        micros
    }

    fn answer(&self, request: &ModelRequest) -> Reply {
        let answered = request.messages.iter().filter(|message| matches!(message, Message::Tool { .. })).count();
        let asks = answered < self.calls as usize;
        let mut asked = self.asked();
        if let Some(at) = asked.at.take() {
            asked.micros.push(micros(at.elapsed()));
        }
        let call = |number: usize| ToolRequest {
            id: format!("call-{number}").into(),
            name: ACTION.into(),
            arguments: Value::object([("number", Value::Int(i64::try_from(number).unwrap_or(i64::MAX)))]),
        };
        asked.at = asks.then(Instant::now);
        Reply {
            content: Name::from(if asks { "" } else { "done" }),
            has_content: !asks,
            tool_calls: asks.then(|| call(answered)).into_iter().collect(),
            finish: if asks { Finish::ToolUse } else { Finish::Stop },
            usage: Usage { input: Some(100), output: Some(10), ..Usage::default() },
            cost_micros: Some(10),
            prices: None,
            attachments: Value::Null,
            provider_data: Value::Null,
        }
    }
}

impl Model for Asker {
    fn call(&self, request: ModelRequest) -> BoxFuture<'_, ModelResult> {
        let reply = self.answer(&request);
        std::future::ready(ModelResult { outcome: Ok(reply), spent: Spent::Known { tokens: 110, cost_micros: 10 } })
            .boxed()
    }

    fn quote(&self, _: &ModelSettings) -> Option<Quote> {
        Some(Quote {
            input: 100_000,
            output: 100_000,
            version: "bench".into(),
            beyond: windlass_core::budget::Amounts::ZERO,
        })
    }
}
