//! `windlass schedules`: adds, shows and steers schedules. `windlass serve` starts their runs.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::{Queueing, Store};
use windlass_runtime::schedule::{self, CatchUp, Overlap, Schedule, SpecError, Ticks, Timing};
use windlass_runtime::{Plan, ScheduleError, Schedules, Submission};

use crate::app::App;
use crate::args;
use crate::config::Span;
use crate::documents::{self, Meant};
use crate::exit::{Exit, Problem};
use crate::filter;
use crate::input;
use crate::outcome;
use crate::output::{Form, time};
use crate::places::{self, Place};
use crate::session;

/// How late the next tick may be before a person is told that nobody seems to start it, in milliseconds.
const OVERDUE_MS: u64 = 60_000;
/// Schedules that are read at a time.
const PAGE: usize = 500;

/// Adds a schedule.
pub(crate) async fn add(app: &App, args: args::SchedulesAdd) -> Result<Exit, Problem> {
    let plan = plan(app, &args)?;
    let (digest, folder) = (plan.work.program.bundle, places::absolute(&documents::folder(app, &args.machine)));
    let schedules = Schedules::new(&session::observer(app.store().await?));
    let name = plan.name.clone();
    let mut added = schedules.add(plan, args.replace).await.map_err(problem)?;
    if args.paused {
        added = schedules.pause(&name, "added paused").await.map_err(problem)?;
    }
    let config = app.loaded.file.as_deref().map(places::absolute);
    places::remember(app.store_url(), digest, &Place { config, folder });
    let next = added.next.map(|next| schedule::in_zone(next.tick, &added.spec.zone));
    let text = match (&added.paused, next) {
        (Some(_), _) => format!("{name} is paused; go on with: windlass schedules resume {name}"),
        (None, next) => format!("{name} ticks next at {}", next.unwrap_or_else(|| "no time".into())),
    };
    app.output.sentence(&document(&added, None), &text);
    Ok(Exit::Ok)
}

fn plan(app: &App, args: &args::SchedulesAdd) -> Result<Plan, Problem> {
    let timing = match (&args.cron, args.every) {
        (Some(cron), _) => Timing::Cron(cron.as_str().into()),
        (None, Some(every)) => Timing::EveryMs(every.0),
        (None, None) => return Err(Problem::invalid("a schedule needs `--cron` or `--every`")),
    };
    let overlap = word("--overlap", &args.overlap, Overlap::parse, Overlap::ALL.map(Overlap::as_str))?;
    let catch_up = word("--catch-up", &args.catch_up, CatchUp::parse, CatchUp::ALL.map(CatchUp::as_str))?;
    let input = match &args.input {
        Some(given) => input::mapping("--input", given)?,
        None => Value::empty_map(),
    };
    let queued = args::Queued {
        pool: args.pool.clone(),
        priority: args.priority.clone(),
        tag: args.tag.clone(),
        not_before: None,
    };
    let queueing: Queueing = super::run::queueing(app, &queued)?;
    let folder = documents::folder(app, &args.machine);
    let catalog = session::wiring(app, &folder).catalog().map_err(session::setting)?;
    let Meant { loaded, version } = documents::meant_to_run(app, &args.machine, &catalog)?;
    // A name without a number is looked up again at each tick.
    let follows = documents::reference(&args.machine).filter(|reference| reference.number.is_none());
    let pinned: Option<Name> = version.filter(|_| follows.is_none()).map(|version| version.id().into());
    let version = follows.map(|reference| reference.to_string().into()).or_else(|| pinned.clone());
    let mut ceilings = app.loaded.config.limits.ceilings();
    if let Some(steps) = args.max_steps {
        ceilings.steps = Some(ceilings.steps.map_or(steps, |configured| configured.min(steps)));
    }
    let work = Submission {
        bundle: loaded.bundle,
        program: loaded.program,
        input,
        run_id: None,
        ceilings,
        scope: super::run::scope(app, &args.whose)?,
        origin: None,
        queueing,
        // A schedule starts what is due itself, and within no trace.
        caller: windlass_core::run::Caller { version: pinned, ..windlass_core::run::Caller::default() },
    };
    Ok(Plan {
        name: args.name.as_str().into(),
        work,
        timing,
        zone: args.zone.as_str().into(),
        overlap,
        catch_up,
        window_ms: args.window.0,
        jitter_ms: args.jitter.0,
        start: args.start.as_deref().map(|text| filter::time("--start", text)).transpose()?,
        end: args.end.as_deref().map(|text| filter::time("--end", text)).transpose()?,
        version,
    })
}

fn word<T, const N: usize>(
    flag: &str,
    given: &str,
    parse: impl Fn(&str) -> Option<T>,
    words: [&str; N],
) -> Result<T, Problem> {
    parse(given).ok_or_else(|| {
        Problem::invalid(format!("`{flag}`: `{given}` is no policy")).hint(format!("one of {}", words.join(", ")))
    })
}

/// Lists schedules by name.
pub(crate) async fn list(app: &App, args: args::SchedulesList) -> Result<Exit, Problem> {
    let page = match app.store_to_read().await? {
        Some(store) => {
            let after = args.cursor.as_deref().map(Into::into);
            Schedules::new(&session::observer(store)).list(after, args.limit as usize).await?
        }
        None => windlass_runtime::SchedulePage::default(),
    };
    let documents: Vec<Json> = page.schedules.iter().map(|schedule| document(schedule, None)).collect();
    let rows: Vec<Vec<String>> = page.schedules.iter().map(row).collect();
    let value = json!({ "schedules": documents, "next": page.next.as_deref() });
    let header =
        ["schedule", "state", "ticks", "machine", "next", "last run", "started", "skipped", "missed", "problem"];
    app.output.table(&value, &header, &rows);
    if let (Form::Text, Some(next)) = (app.output.form(), &page.next) {
        app.output.note(&format!("more: --cursor {next}"));
    }
    Ok(Exit::Ok)
}

/// Shows one schedule.
pub(crate) async fn show(app: &App, args: args::SchedulesShow) -> Result<Exit, Problem> {
    let (store, schedules) = open(app, &args.name).await?;
    let found = schedules.find(&args.name).await.map_err(problem)?;
    let status = match &found.last {
        Some(last) => Some(store.load(last.run.clone()).await?.map_or("gone", |stored| stored.head.status.as_str())),
        None => None,
    };
    let document = document(&found, status);
    match app.output.form() {
        Form::Json => app.output.document(&document),
        Form::Text => app.output.text(&lines(&document)),
    }
    let due = found.next.filter(|_| found.paused.is_none()).map(|next| next.due);
    if due.is_some_and(|due| app.now().since_ms(due) > OVERDUE_MS) {
        app.output.note("note: its next tick is overdue; `windlass serve` starts the runs of schedules");
    }
    Ok(Exit::Ok)
}

/// Lets schedules start nothing.
pub(crate) async fn pause(app: &App, args: args::SchedulesPause) -> Result<Exit, Problem> {
    steer(app, args.name, async |schedules: &Schedules, name: &str| schedules.pause(name, &args.reason).await).await
}

/// Lets schedules go on.
pub(crate) async fn resume(app: &App, args: args::SchedulesResume) -> Result<Exit, Problem> {
    steer(app, args.name, async |schedules: &Schedules, name: &str| schedules.resume(name).await).await
}

/// Does something to one schedule, or to every one.
async fn steer(
    app: &App,
    name: Option<String>,
    act: impl AsyncFn(&Schedules, &str) -> Result<Schedule, ScheduleError>,
) -> Result<Exit, Problem> {
    let (_, schedules) = open_to_change(app, name.as_deref().unwrap_or("*")).await?;
    if let Some(name) = name {
        let changed = act(&schedules, &name).await.map_err(problem)?;
        app.output.sentence(&document(&changed, None), &format!("{name} is {}", state(&changed)));
        return Ok(Exit::Ok);
    }
    let (mut changed, mut after): (u64, Option<Name>) = (0, None);
    loop {
        let page = schedules.list(after, PAGE).await?;
        for found in page.schedules {
            match act(&schedules, &found.spec.name).await {
                // Removed meanwhile.
                Err(ScheduleError::NotFound(_)) => {}
                done => {
                    done.map_err(problem)?;
                    changed += 1;
                }
            }
        }
        after = page.next;
        if after.is_none() {
            app.output.sentence(&json!({ "schedules": changed }), &format!("{changed} schedules"));
            return Ok(Exit::Ok);
        }
    }
}

/// Removes a schedule.
pub(crate) async fn remove(app: &App, args: args::SchedulesRemove) -> Result<Exit, Problem> {
    let (_, schedules) = open_to_change(app, &args.name).await?;
    schedules.remove(&args.name).await.map_err(problem)?;
    let name = &args.name;
    app.output.sentence(&json!({ "name": name, "state": "removed" }), &format!("{name} is removed; its runs stay"));
    Ok(Exit::Ok)
}

/// Starts a run now.
pub(crate) async fn run_now(app: &App, args: args::SchedulesRunNow) -> Result<Exit, Problem> {
    let (_, schedules) = open_to_change(app, &args.name).await?;
    let run = schedules.run_now(&args.name).await.map_err(problem)?;
    let value = json!({ "run_id": run.as_str(), "status": "queued", "schedule": args.name });
    app.output.sentence(&value, &format!("{run} is queued"));
    Ok(Exit::Ok)
}

/// Prints coming ticks.
pub(crate) async fn next(app: &App, args: args::SchedulesNext) -> Result<Exit, Problem> {
    let from = args.from.as_deref().map(|text| filter::time("--from", text)).transpose()?;
    let (zone, ticks, from) = match (&args.cron, &args.name) {
        (Some(cron), _) => {
            let timing = Timing::Cron(cron.as_str().into());
            let ticks = Ticks::new(&timing, &args.zone, Timestamp(0), None).map_err(|error| timing_problem(&error))?;
            (args.zone.clone(), ticks, from.unwrap_or_else(|| app.now()))
        }
        (None, name) => {
            let name = name.as_deref().unwrap_or_default();
            let found = open(app, name).await?.1.find(name).await.map_err(problem)?;
            let ticks = found.spec.ticks().map_err(|error| timing_problem(&error))?;
            let from = from.unwrap_or_else(|| app.now()).max(found.dealt_with);
            (found.spec.zone.to_string(), ticks, from)
        }
    };
    let coming: Vec<Timestamp> =
        std::iter::successors(ticks.after(from), |tick| ticks.after(*tick)).take(args.count as usize).collect();
    let rows: Vec<Vec<String>> = coming.iter().map(|tick| vec![schedule::in_zone(*tick, &zone), time(*tick)]).collect();
    let value: Vec<Json> =
        coming.iter().map(|tick| json!({ "tick": time(*tick), "local": schedule::in_zone(*tick, &zone) })).collect();
    app.output.table(&json!({ "zone": zone, "ticks": value }), &["tick", "utc"], &rows);
    Ok(Exit::Ok)
}

async fn open(app: &App, name: &str) -> Result<(Arc<dyn Store>, Schedules), Problem> {
    Ok(of_store(app.store_to_read().await?.ok_or_else(|| unknown(name))?))
}

async fn open_to_change(app: &App, name: &str) -> Result<(Arc<dyn Store>, Schedules), Problem> {
    Ok(of_store(app.store_to_change().await?.ok_or_else(|| unknown(name))?))
}

fn of_store(store: Arc<dyn Store>) -> (Arc<dyn Store>, Schedules) {
    let schedules = Schedules::new(&session::observer(Arc::clone(&store)));
    (store, schedules)
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(format!("there is no schedule `{name}` in this store"))
        .hint("`windlass schedules list` shows the schedules; `--store` chooses the store")
}

/// What a person is told about a schedule that cannot be made or changed.
fn problem(error: ScheduleError) -> Problem {
    let text = error.to_string();
    match error {
        ScheduleError::Store(error) => error.into(),
        ScheduleError::Spec(SpecError::Timing(error)) => timing_problem(&error),
        ScheduleError::Spec(SpecError::Name(_) | SpecError::Ends) | ScheduleError::TooLarge { .. } => {
            Problem::invalid(text)
        }
        ScheduleError::Submit(error) => outcome::submit_problem(error),
        ScheduleError::Exists(name) => Problem::rejected(text)
            .hint(format!("`--replace` gives it this plan; `windlass schedules show {name}` tells what it does")),
        ScheduleError::NotFound(name) => unknown(&name),
        ScheduleError::Read { source, .. } => {
            Problem::new(Exit::Unreachable, "store.corrupt", format!("{text}: {source}"))
                .hint("use the build that wrote it, or a newer one")
        }
        ScheduleError::Busy { run, .. } => {
            Problem::rejected(text).hint(format!("windlass runs show {run}")).detail("run_id", run.as_str())
        }
        ScheduleError::Refused { .. } | ScheduleError::Contended(_) => Problem::rejected(text),
    }
}

fn timing_problem(error: &schedule::TimingError) -> Problem {
    let problem = Problem::invalid(error.to_string());
    match error {
        schedule::TimingError::Cron { .. } => {
            problem.hint("fields are minute, hour, day, month, weekday: `30 2 * * 1-5`; seconds may stand in front")
        }
        schedule::TimingError::Zone(_) => problem.hint("write a name such as `Europe/Berlin`, or `UTC`"),
        schedule::TimingError::TooShort(_) => problem.hint("a machine with a loop and a timer can act more often"),
        schedule::TimingError::Never => problem.hint("`windlass schedules next --cron EXPRESSION` shows what it means"),
    }
}

/// The word for where a schedule stands.
fn state(schedule: &Schedule) -> &'static str {
    match (&schedule.paused, schedule.next) {
        (Some(_), _) => "paused",
        (None, Some(_)) => "active",
        (None, None) => "over",
    }
}

fn ticks(schedule: &Schedule) -> String {
    match &schedule.spec.timing {
        Timing::Cron(cron) => format!("{cron} {}", schedule.spec.zone),
        Timing::EveryMs(ms) => format!("every {}", Span(*ms)),
    }
}

fn row(schedule: &Schedule) -> Vec<String> {
    let next = schedule.next.filter(|_| schedule.paused.is_none());
    vec![
        schedule.spec.name.to_string(),
        state(schedule).to_owned(),
        ticks(schedule),
        schedule.spec.version.as_ref().unwrap_or(&schedule.spec.machine).to_string(),
        next.map_or_else(|| "-".into(), |next| schedule::in_zone(next.tick, &schedule.spec.zone)),
        schedule.last.as_ref().map_or_else(|| "-".into(), |last| last.run.to_string()),
        schedule.counts.started.to_string(),
        schedule.counts.skipped.to_string(),
        schedule.counts.missed.to_string(),
        schedule.problem.as_deref().unwrap_or("-").to_owned(),
    ]
}

/// A schedule as JSON, with the status of its last run where that is known.
fn document(schedule: &Schedule, last_status: Option<&str>) -> Json {
    let spec = &schedule.spec;
    let (cron, every_ms) = match &spec.timing {
        Timing::Cron(cron) => (Some(&**cron), None),
        Timing::EveryMs(ms) => (None, Some(*ms)),
    };
    let tick = |next: &schedule::Next| json!({ "tick": time(next.tick), "due": time(next.due), "local": schedule::in_zone(next.tick, &spec.zone) });
    let last = schedule.last.as_ref().map(|last| {
        json!({
            "run_id": last.run.as_str(),
            "tick": time(last.tick),
            "at": time(last.at),
            "late_ms": last.late_ms,
            "status": last_status,
        })
    });
    json!({
        "name": &*spec.name,
        "state": state(schedule),
        "machine": &*spec.machine,
        "tenant": &*spec.tenant,
        "bundle": spec.bundle,
        "version": spec.version.as_deref(),
        "cron": cron,
        "every_ms": every_ms,
        "zone": &*spec.zone,
        "overlap": spec.overlap.as_str(),
        "catch_up": spec.catch_up.as_str(),
        "window_ms": spec.window_ms,
        "jitter_ms": spec.jitter_ms,
        "start": time(spec.start),
        "end": spec.end.map(time),
        "tags": spec.tags,
        "pool": spec.pool.as_deref(),
        "priority": spec.priority.map(windlass_core::machine::Priority::as_str),
        "paused": schedule.paused.as_ref().map(|paused| json!({ "at": time(paused.at), "reason": &*paused.reason })),
        "next": schedule.next.as_ref().map(tick),
        "waiting": schedule.waiting.iter().map(tick).collect::<Vec<_>>(),
        "last": last,
        "counts": schedule.counts,
        "problem": schedule.problem.as_deref(),
        "created_at": time(schedule.created_at),
    })
}

/// The members of a document that say something, one on a line.
fn lines(document: &Json) -> String {
    let mut text = String::new();
    for (key, value) in document.as_object().into_iter().flatten() {
        let value = match value {
            Json::Null => continue,
            Json::Array(items) if items.is_empty() => continue,
            Json::Object(items) if items.is_empty() => continue,
            Json::Array(items) => items.len().to_string(),
            Json::Object(items) => {
                let part = |(key, value): (&String, &Json)| match value {
                    Json::Null => None,
                    Json::String(text) => Some(format!("{key} {text}")),
                    other => Some(format!("{key} {other}")),
                };
                items.iter().filter_map(part).collect::<Vec<_>>().join(", ")
            }
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        text.push_str(&format!("{key:<11} {}\n", crate::output::printable(&value)));
    }
    text
}
