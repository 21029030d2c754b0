//! `windlass debug`: captures of what calls say, asked for, listed, shown and ended.

use serde_json::{Value as Json, json};
use windlass_core::ids::{Name, RunId};
use windlass_core::time::Timestamp;
use windlass_ports::store::Store;
use windlass_runtime::capture::{Capture, Captured, FOR_MS_MAX, KEEP_MS_MAX, Of};
use windlass_runtime::captures;

use crate::app::App;
use crate::args::{Debug, DebugCapture, DebugOne, DebugShow};
use crate::config::Span;
use crate::exit::{Exit, Problem};
use crate::journal;
use crate::output::{printable, time};

/// Carries one of the commands out.
pub(crate) async fn perform(app: &App, command: Debug) -> Result<Exit, Problem> {
    match command {
        Debug::Capture(args) => capture(app, args).await,
        Debug::List => list(app).await,
        Debug::Show(args) => show(app, args).await,
        Debug::Stop(args) => stop(app, &args).await,
        Debug::Remove(args) => remove(app, &args).await,
    }
}

async fn capture(app: &App, args: DebugCapture) -> Result<Exit, Problem> {
    if args.by.trim().is_empty() {
        return Err(Problem::invalid("a capture is asked for by somebody: `--by NAME`"));
    }
    for (flag, given, most) in [("--for", args.span, FOR_MS_MAX), ("--keep", args.keep, KEEP_MS_MAX)] {
        if given.0 == 0 || given.0 > most {
            return Err(Problem::invalid(format!("`{flag}`: {given} is not between 1ms and {}", Span(most))));
        }
    }
    let tenant = args.tenant.as_ref().map(|name| super::run::owner("--tenant", name)).transpose()?;
    let user = args.user.as_ref().map(|name| super::run::owner("--user", name)).transpose()?;
    let store = app.store().await?;
    let at = app.now();
    let (until, id) = (at.plus_ms(args.span.0), format!("c{:011x}", at.0));
    let capture = Capture {
        id: id.into(),
        of: Of {
            run: args.run.as_deref().map(RunId::stored),
            machine: args.machine.as_deref().map(Into::into),
            tenant,
            user,
        },
        at,
        until,
        keep_until: until.plus_ms(args.keep.0),
        calls_max: args.calls,
        by: args.by.as_str().into(),
        reason: args.reason.as_str().into(),
    };
    captures::start(&*store, &capture).await.map_err(|error| Problem::rejected(error.to_string()))?;
    let text = format!("`{}` keeps up to {} calls until {}", capture.id, capture.calls_max, time(until));
    app.output.sentence(&described(&capture, at), &printable(&text));
    Ok(Exit::Ok)
}

async fn list(app: &App) -> Result<Exit, Problem> {
    let now = app.now();
    let mut all = match app.store_to_list().await? {
        Some(store) => captures::captures(&*store).await?,
        None => Vec::new(),
    };
    all.retain(|capture| !capture.is_expired(now));
    let value = json!({ "captures": all.iter().map(|one| described(one, now)).collect::<Vec<_>>() });
    let cells = |one: &Capture| {
        let state = if one.is_on(now) { "on" } else { "ended" };
        [&*one.id, state, &words(&one.of), &time(one.until), &time(one.keep_until), &one.by, &one.reason]
            .map(printable)
            .into()
    };
    let rows: Vec<Vec<String>> = all.iter().map(cells).collect();
    app.output.table(&value, &["capture", "is", "of", "until", "kept until", "by", "reason"], &rows);
    Ok(Exit::Ok)
}

async fn show(app: &App, args: DebugShow) -> Result<Exit, Problem> {
    let (store, capture) = found(app, &args.capture).await?;
    let mut calls = captures::captured(&*store, &capture.id, args.cursor, args.limit as usize).await?;
    for call in &mut calls {
        let (mut asked, mut answered) = (Json::from(&call.asked), Json::from(&call.answered));
        journal::cover(app, &store, &call.run, [&mut asked, &mut answered]).await;
        (call.asked, call.answered) = (asked.into(), answered.into());
    }
    let next = (calls.len() == args.limit as usize).then(|| args.cursor + args.limit);
    let value = json!({ "capture": described(&capture, app.now()), "calls": calls, "next": next });
    let cells = |call: &Captured| {
        vec![
            time(call.at),
            printable(call.run.as_str()),
            printable(&call.key),
            call.kind.to_string(),
            printable(&call.target),
            printable(&call.asked.to_json()),
            printable(&call.answered.to_json()),
        ]
    };
    let rows: Vec<Vec<String>> = calls.iter().map(cells).collect();
    app.output.table(&value, &["at", "run", "call", "kind", "target", "asked", "answered"], &rows);
    if let Some(next) = next {
        app.output.note(&format!("more: --cursor {next}"));
    }
    Ok(Exit::Ok)
}

async fn stop(app: &App, args: &DebugOne) -> Result<Exit, Problem> {
    let (store, capture) = found(app, &args.capture).await?;
    let now = app.now();
    let stopped = captures::stop(&*store, &capture.id, now).await?.unwrap_or(capture);
    let text = format!("`{}` has ended; what it took is kept until {}", stopped.id, time(stopped.keep_until));
    app.output.sentence(&described(&stopped, now), &printable(&text));
    Ok(Exit::Ok)
}

async fn remove(app: &App, args: &DebugOne) -> Result<Exit, Problem> {
    let (store, capture) = found(app, &args.capture).await?;
    // Whoever writes what it takes is told first.
    captures::stop(&*store, &capture.id, app.now()).await?;
    let removed = captures::forget(&*store, &capture.id).await?;
    let value = json!({ "capture": capture.id, "removed": removed });
    app.output.sentence(&value, &printable(&format!("`{}` and everything it took is removed", capture.id)));
    Ok(Exit::Ok)
}

/// A capture of which anything is left.
async fn found(app: &App, id: &str) -> Result<(std::sync::Arc<dyn Store>, Capture), Problem> {
    let store = app.store_to_change().await?.ok_or_else(|| app.no_store())?;
    captures::forget_expired(&*store, app.now()).await?;
    let capture = captures::captures(&*store).await?.into_iter().find(|capture| *capture.id == *id);
    let capture = capture.ok_or_else(|| {
        Problem::not_found(format!("there is no capture `{id}`"))
            .hint("`windlass debug list` shows those that there are")
    })?;
    Ok((store, capture))
}

fn words(of: &Of) -> String {
    let named = [
        of.run.as_ref().map(|run| format!("run {run}")),
        of.machine.as_ref().map(|machine| format!("machine {machine}")),
        of.tenant.as_ref().map(|tenant| format!("tenant {tenant}")),
        of.user.as_ref().map(|user| format!("user {user}")),
    ];
    named.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What an act says of a capture that is asked for.
pub(super) fn subject(args: &DebugCapture) -> String {
    let name = |name: &Option<String>| name.as_deref().map(Name::from);
    words(&Of {
        run: args.run.as_deref().map(RunId::stored),
        machine: name(&args.machine),
        tenant: name(&args.tenant),
        user: name(&args.user),
    })
}

fn described(capture: &Capture, now: Timestamp) -> Json {
    json!({
        "capture": capture.id,
        "on": capture.is_on(now),
        "of": capture.of,
        "at": time(capture.at),
        "until": time(capture.until),
        "kept_until": time(capture.keep_until),
        "calls_max": capture.calls_max,
        "by": capture.by,
        "reason": capture.reason,
    })
}
