//! What policy, budgets and the audit trail add to a tool call, measured beside the same call without them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use windlass_core::budget::Meter;
use windlass_core::effect::Spent;
use windlass_core::escrow::{Beyond, Budget, Draw, Drawn, NEAR_PERCENT_DEFAULT, Period};
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
use windlass_ports::store::{Answer, Commit, Committed, Layer, Store, escrow};
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
/// The same of a user whose budgets are nearly used up.
const BOUND: [&str; 3] = ["tenant:brim", "user:brim/bob", "tool:brim/noop"];

/// One of the two kinds of runs that take turns.
struct Kind {
    store: Arc<dyn Store>,
    /// Draws so far, each a transaction of its own: one run is driven at a time.
    draws: Arc<AtomicU64>,
    engine: Engine,
    asker: Arc<Asker>,
    scope: TenantScope,
}

impl Kind {
    fn new(store: Arc<dyn Store>, scope: TenantScope, policy: Arc<dyn Policy>, calls: u32) -> Self {
        let (asker, draws) = (Arc::new(Asker::new(calls)), Arc::<AtomicU64>::default());
        let store: Arc<dyn Store> = Arc::new(Drawing { below: store, draws: Arc::clone(&draws) });
        Self { engine: engine(Arc::clone(&store), &asker, policy), store, draws, asker, scope }
    }

    async fn drive(&self, loaded: &Loaded) -> Result<(), Problem> {
        drive(&self.engine, loaded, self.scope.clone()).await
    }

    /// What the store did for one more run.
    async fn work(&self, loaded: &Loaded) -> Result<Work, Problem> {
        let (before, drawn) = (self.store.stats().await?, self.draws.load(Ordering::Relaxed));
        self.drive(loaded).await?;
        let (after, draws) = (self.store.stats().await?, self.draws.load(Ordering::Relaxed).saturating_sub(drawn));
        let of = |now: u64, before: u64| now.saturating_sub(before) as f64;
        Ok(Work {
            commits: of(after.commits, before.commits).max(1.0),
            statements: of(after.statements, before.statements),
            transactions: of(after.transactions, before.transactions),
            draws: draws as f64,
        })
    }
}

/// What a store did.
struct Work {
    commits: f64,
    statements: f64,
    /// Those of commits.
    transactions: f64,
    /// Draws on budgets.
    draws: f64,
}

/// Measures tool calls with everything on and tool calls with nothing on, run after run in turn; or those whose budgets are
/// nearly used up and those whose budgets have room.
pub(crate) async fn governed(field: &Field, args: &BenchGoverned) -> Result<Measured, Problem> {
    let floor = field.floor(1, Duration::from_millis(args.floor.0)).await?;
    let loaded = load::asking(args.calls)?;
    let store = field.open().await?;
    budgets(&*store).await?;
    bind(&*store, args).await?;
    let policy = policy(field)?;
    let of = |tenant: &str, user: &str| TenantScope { tenant: tenant.into(), user: Some(user.into()) };
    let (plain, full) = if args.binding {
        let plain = Kind::new(field.open().await?, of("acme", "ada"), Arc::clone(&policy), args.calls);
        (plain, Kind::new(Arc::clone(&store), of("brim", "bob"), policy, args.calls))
    } else {
        let bare: Arc<dyn Store> = Arc::new(Unaudited(field.open().await?));
        // No budget applies to runs of nobody.
        let plain = Kind::new(bare, TenantScope::default(), Arc::new(AllowAll), args.calls);
        (plain, Kind::new(Arc::clone(&store), of("acme", "ada"), policy, args.calls))
    };
    for round in 0..=args.runs {
        if round == 1 {
            // The first run of each warms caches.
            plain.asker.forget();
            full.asker.forget();
        }
        plain.drive(&loaded).await?;
        bind(&*store, args).await?;
        full.drive(&loaded).await?;
    }
    let before = plain.work(&loaded).await?;
    bind(&*store, args).await?;
    let work = full.work(&loaded).await?;
    plain.engine.leave().await;
    full.engine.leave().await;
    Ok(measured(field, args, [&plain.asker.sorted(), &full.asker.sorted()], [&before, &work], floor.p50_ms))
}

/// The numbers of a measurement: times and work of the plain runs and of the others.
fn measured(
    field: &Field,
    args: &BenchGoverned,
    [plain, full]: [&[u32]; 2],
    [before, work]: [&Work; 2],
    synced_write_ms: f64,
) -> Measured {
    let added = |share| Some(rounded(percentile_ms(full, share)? - percentile_ms(plain, share)?));
    let per_call = |number: f64| rounded(number / f64::from(args.calls));
    Measured {
        p50_ms: percentile_ms(full, 0.5),
        p99_ms: percentile_ms(full, 0.99),
        ..Measured::new("governed", field.kind())
    }
    .with("binding", args.binding)
    .with("plain_p50_ms", percentile_ms(plain, 0.5))
    .with("plain_p99_ms", percentile_ms(plain, 0.99))
    .with("added_p50_ms", added(0.5))
    .with("added_p90_ms", added(0.9))
    .with("synced_write_p50_ms", rounded(synced_write_ms))
    .with("calls", full.len())
    .with("rules", RULES + 2)
    .with("budgets", SCOPES.len())
    .with("transactions_per_call", per_call(work.transactions + work.draws))
    .with("plain_transactions_per_call", per_call(before.transactions + before.draws))
    .with("draws_per_call", per_call(work.draws))
    .with("plain_draws_per_call", per_call(before.draws))
    .with("statements_per_commit", rounded(work.statements / work.commits))
    .with("transactions_per_commit", rounded(work.transactions / work.commits))
}

/// Leaves in the budgets that are to bind what one run uses of calls, and so little more that no draw takes more than the
/// call needs that it is for. Does nothing for other measurements.
async fn bind(store: &dyn Store, args: &BenchGoverned) -> Result<(), Problem> {
    if !args.binding {
        return Ok(());
    }
    for scope in BOUND {
        let name = Name::from(scope);
        let row = escrow::budget(store, &name, windlass::wire::now()).await?;
        let (expected, account) = row.map_or_else(Default::default, |row| (row.known.revision, row.account));
        let meters: &[Meter] =
            if scope.starts_with("tool:") { &[Meter::ToolCalls] } else { &[Meter::ToolCalls, Meter::ModelCalls] };
        // A run asks the model once more than it calls the tool.
        let left = u64::from(args.calls) + 1;
        let cap = |meter: Meter| account.spent.get(meter) + account.drawn.get(meter) + left;
        let caps = meters.iter().map(|meter| (*meter, cap(*meter))).collect();
        let budget = Budget { caps, period: Period::None, near_percent: NEAR_PERCENT_DEFAULT, beyond: Beyond::Fail };
        if !escrow::put_budget(store, &name, expected, Some(&budget)).await? {
            return Err(Problem::bug(format!("somebody else sets the budget `{scope}` of the measurement")));
        }
    }
    Ok(())
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

/// A store that counts what is drawn from it.
#[derive(Debug)]
struct Drawing {
    below: Arc<dyn Store>,
    draws: Arc<AtomicU64>,
}

impl Layer for Drawing {
    fn below(&self) -> &dyn Store {
        &*self.below
    }

    fn draw(&self, draw: Draw) -> Answer<'_, Drawn> {
        self.draws.fetch_add(1, Ordering::Relaxed);
        self.below.draw(draw)
    }
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
