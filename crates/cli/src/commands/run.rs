//! `windlass run` and `resume`: the two commands that drive a run to its end.

mod key;

use serde_json::json;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::machine::Priority;
use windlass_core::run::{Caller, TenantScope};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::{Head, Queueing};
use windlass_runtime::Submission;
use windlass_runtime::{schedule, versions};

use crate::app::App;
use crate::args;
use crate::caller;
use crate::commands::preflight;
use crate::config::Span;
use crate::documents::{self, Meant};
use crate::exit::{Exit, Problem};
use crate::files;
use crate::input;
use crate::outcome;
use crate::places::{self, Place};
use crate::session::{self, Materials, Session};

/// Runs a machine.
pub(crate) async fn run(app: &App, args: args::Run) -> Result<Exit, Problem> {
    let run_id = args
        .run_id
        .as_deref()
        .map(RunId::new)
        .transpose()
        .map_err(|error| Problem::invalid(format!("`--run-id`: {error}")))?;
    let input = match &args.input {
        Some(given) => input::mapping("--input", given)?,
        None => Value::empty_map(),
    };
    let is_typed = args.input.as_deref().is_none_or(|given| given != "-" && !given.starts_with('@'));
    let input = files::into_input(input, is_typed, &args.file)?;
    let scope = scope(app, &args.whose)?;
    let folder = documents::folder(app, &args.machine);
    let wiring = session::wiring(app, &folder);
    let catalog = wiring.catalog().map_err(session::setting)?;
    let Meant { loaded, version } = documents::meant_to_run(app, &args.machine, &catalog)?;
    preflight::require(app, &wiring, &loaded)?;
    let store = app.store().await?;
    let digest = loaded.program.bundle;
    let machine = loaded.program.machines.get(&loaded.program.entry).map(|machine| machine.name.clone());
    let rules = session::rules(app, &wiring).await?;
    let materials = Materials { store, catalog, secrets: loaded.secrets, program: Some(&loaded.program), rules };
    let session = Session::new(app, &wiring, materials, &args.follow)?;
    let mut ceilings = app.loaded.config.limits.ceilings();
    if let Some(steps) = args.max_steps {
        ceilings.steps = Some(ceilings.steps.map_or(steps, |configured| configured.min(steps)));
    }
    let tenant = scope.tenant.clone();
    let submission = Submission {
        bundle: loaded.bundle,
        program: loaded.program,
        input,
        run_id,
        ceilings,
        scope,
        origin: None,
        queueing: queueing(app, &args.queueing)?,
        caller: Caller { version: version.map(|it| it.id().into()), ..caller::caller(args.traceparent.as_deref())? },
    };
    let config = app.loaded.file.as_deref().map(places::absolute);
    let place = Place { config, folder: places::absolute(&folder) };
    let submitted = match &args.keyed.key {
        Some(key) => match key::submit(app, &session, submission, key, &args).await? {
            key::Under::Submitted(submitted) => submitted,
            key::Under::Answered(exit) => {
                places::remember(app.store_url(), digest, &place);
                return Ok(exit);
            }
        },
        None => session.engine.submit(submission).await.map_err(outcome::submit_problem)?,
    };
    if let Some(head) = &submitted.existing {
        check_same(app, head, machine.as_deref().unwrap_or_default(), digest, &tenant)?;
    }
    places::remember(app.store_url(), digest, &place);
    if args.detach {
        let status = submitted.existing.as_ref().map_or("queued", |head| head.status.as_str());
        let run = submitted.run_id.as_str();
        app.output.sentence(&json!({ "run_id": run, "status": status }), &format!("{run} is {status}"));
        return Ok(Exit::Ok);
    }
    session.follow(app, &submitted.run_id).await
}

/// Bytes of a tenant's or a user's name.
const OWNER_BYTES_MAX: usize = 128;

/// The name of a tenant or a user.
///
/// # Errors
/// A name that cannot be used.
pub(crate) fn owner(place: &str, name: &str) -> Result<Name, Problem> {
    let fits =
        !name.is_empty() && name.len() <= OWNER_BYTES_MAX && name.trim() == name && !name.contains(char::is_control);
    if fits {
        return Ok(name.into());
    }
    Err(Problem::invalid(format!("`{place}`: {name:?} cannot be a name"))
        .hint(format!("1 to {OWNER_BYTES_MAX} bytes, without control characters and without spaces around it")))
}

/// Whose a new run is: as the command line says, else as configured.
///
/// # Errors
/// A name that cannot be used.
pub(crate) fn scope(app: &App, given: &args::Whose) -> Result<TenantScope, Problem> {
    let configured = &app.loaded.config.run;
    let of = |flag: &str, key: &str, given: &Option<String>, configured: &Option<String>| {
        let (place, name) = match (given, configured) {
            (Some(name), _) => (flag, name),
            (None, Some(name)) => (key, name),
            (None, None) => return Ok(None),
        };
        owner(place, name).map(Some)
    };
    let standard = TenantScope::default();
    Ok(TenantScope {
        tenant: of("--tenant", "run.tenant", &given.tenant, &configured.tenant)?.unwrap_or(standard.tenant),
        user: of("--user", "run.user", &given.user, &configured.user)?,
    })
}

/// How the run waits for a worker, as the command line says.
///
/// # Errors
/// A class, pool, tag or time that cannot be used.
pub(crate) fn queueing(app: &App, given: &args::Queued) -> Result<Queueing, Problem> {
    let priority = match &given.priority {
        None => None,
        Some(word) => Some(Priority::parse(word).ok_or_else(|| {
            Problem::invalid(format!("`--priority`: `{word}` is no class")).hint("one of high, normal, low")
        })?),
    };
    let tags = given.tag.iter().map(|text| tag(text)).collect::<Result<_, _>>()?;
    let not_before = given.not_before.as_deref().map(|text| not_before(app, text)).transpose()?;
    let pool = given.pool.as_deref().map(super::serve::pool).transpose()?;
    Ok(Queueing { pool, priority, not_before, tags, queued_max: None })
}

/// Bytes of a tag's key and of its value.
const TAG_BYTES_MAX: usize = 256;
/// Tags that say what a run is, by which runs of versions, of schedules and of calls over HTTP are found, and how such keys
/// begin that nobody else gives.
const OWN_TAGS: [&str; 2] = [versions::TAG, schedule::TAG];
const OWN_TAGS_START: &str = "windlass.";

fn tag(text: &str) -> Result<(Name, Name), Problem> {
    match text.split_once('=') {
        Some((key, _)) if OWN_TAGS.contains(&key) || key.starts_with(OWN_TAGS_START) => {
            Err(Problem::invalid(format!("`--tag`: `{key}` is given by windlass alone, so that it says what a run is"))
                .hint("give your tag another key"))
        }
        Some((key, value)) if !key.is_empty() && key.len() <= TAG_BYTES_MAX && value.len() <= TAG_BYTES_MAX => {
            Ok((key.into(), value.into()))
        }
        _ => Err(Problem::invalid(format!("`--tag`: `{text}` is no tag"))
            .hint(format!("write KEY=VALUE, each of {TAG_BYTES_MAX} bytes at most"))),
    }
}

fn not_before(app: &App, text: &str) -> Result<Timestamp, Problem> {
    if let Ok(span) = text.parse::<Span>() {
        return Ok(app.now().plus_ms(span.0));
    }
    let time = text.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_millisecond()).ok());
    time.map(Timestamp).ok_or_else(|| {
        Problem::invalid(format!("`--not-before`: `{text}` is no time"))
            .hint("write a time such as `2027-01-31T08:00:00Z`, or how long from now, such as `10m`")
    })
}

/// A run id that is used again means the run that is there: it has to be one of this machine, and stays with the
/// documents that it was started with.
fn check_same(app: &App, head: &Head, machine: &str, bundle: Digest, tenant: &str) -> Result<(), Problem> {
    if *head.tenant != *tenant {
        return Err(Problem::rejected(format!("run `{}` exists already and is not of the tenant `{tenant}`", head.id))
            .hint("use another `--run-id`"));
    }
    if *head.machine != *machine {
        return Err(Problem::rejected(format!(
            "run `{}` exists already and is a run of `{}`, not of `{machine}`",
            head.id, head.machine
        ))
        .hint("use another `--run-id`, or `windlass resume` to go on with the run that is there"));
    }
    if head.bundle != bundle {
        app.output.note(&format!(
            "note: run `{}` exists already and stays with the documents and tools it was started with, which differ from those here",
            head.id
        ));
    }
    Ok(())
}

/// Continues a run.
pub(crate) async fn resume(app: &mut App, args: args::Resume) -> Result<Exit, Problem> {
    let (store, head) = app.run_to_change(&args.run).await?;
    if head.root != head.id {
        return Err(Problem::rejected(format!("run `{}` is a child and goes on with run `{}`", head.id, head.root))
            .hint(format!("windlass resume {}", head.root)));
    }
    let session = session::of_run(app, store, head.bundle, &args.follow).await?;
    if args.takeover {
        session.engine.take_over(&head.id).await.map_err(outcome::engine_problem)?;
    }
    session.follow(app, &head.id).await
}
