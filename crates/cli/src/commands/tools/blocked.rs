//! Tools of MCP servers that are blocked: which and why, and letting them run again.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use windlass_core::effect::WaitKind;
use windlass_core::ids::Digest;
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::{Query, Signal};
use windlass_tools::mcp::quarantine::{self, Blocked, Decided, Decision, Verdict};

use super::places;
use crate::app::App;
use crate::args;
use crate::caller::actor;
use crate::exit::{Exit, Problem};
use crate::output::{Form, printable, time};

/// Runs read at a time.
const PAGE: usize = 200;

/// Blocked definitions by server, tool and hash.
pub(super) type All = BTreeMap<(String, String, Digest), Blocked>;

/// What is blocked, where there is a store.
///
/// # Errors
/// A store that cannot be read.
pub(super) async fn known(app: &App) -> Result<All, Problem> {
    let Some(store) = app.readable_store().await? else { return Ok(All::new()) };
    let found = quarantine::blocked(&*store).await?;
    Ok(found.into_iter().map(|one| ((one.server.clone(), one.tool.clone(), one.accepted), one)).collect())
}

/// Shows which tools are blocked, and why.
///
/// # Errors
/// A store that cannot be read.
pub(super) async fn show(app: &App, args: args::ToolsBlocked) -> Result<Exit, Problem> {
    let store = app.store_to_list().await?;
    let mut found = match &store {
        Some(store) => quarantine::blocked(&**store).await?,
        None => Vec::new(),
    };
    let is_wanted = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    found.retain(|one| is_wanted(&args.server, &one.server) && is_wanted(&args.tool, &one.tool));
    let decided = match &store {
        Some(store) if !found.is_empty() => quarantine::decided(&**store).await?,
        _ => Vec::new(),
    };
    let of = |one: &Blocked| {
        let is_of = |decided: &&Decided| {
            (&decided.server, &decided.tool, decided.hash) == (&one.server, &one.tool, one.accepted)
        };
        decided.iter().find(is_of).map(|decided| decided.decisions.clone()).unwrap_or_default()
    };
    let documents: Vec<Json> = found.iter().map(|one| described(one, &of(one))).collect();
    let value = json!({ "blocked": documents });
    if app.output.form() == Form::Text && args.server.is_some() {
        let text: String = found.iter().map(|one| paragraph(one, &of(one))).collect();
        app.output.text(if text.is_empty() { "no tool of it is blocked" } else { text.trim_end() });
    } else {
        let row = |one: &Blocked| {
            let first = one.changes.first().map(|change| printable(&change.place)).unwrap_or_default();
            vec![one.server.clone(), one.tool.clone(), time(one.since), one.changes.len().to_string(), first]
        };
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        app.output.table(&value, &["server", "tool", "since", "places", "first"], &rows);
    }
    if found.is_empty() {
        return Ok(Exit::Ok);
    }
    app.output
        .note("`windlass tools accept SERVER TOOL` accepts what is shown, `windlass tools release` what was accepted");
    Ok(Exit::Failed)
}

/// Lets a blocked tool run again, as it was accepted.
///
/// # Errors
/// A tool that is not blocked, or a store that fails.
pub(super) async fn release(app: &App, args: args::ToolsRelease) -> Result<Exit, Problem> {
    let blocked = || {
        let message = format!("no tool `{}` of `{}` is blocked", args.tool, args.server);
        Problem::not_found(message).hint("`windlass tools blocked` shows those that are")
    };
    if args.reason.trim().is_empty() {
        return Err(Problem::invalid("a tool is released for a reason: `--reason TEXT`"));
    }
    let store = app.store_to_change().await?.ok_or_else(blocked)?;
    let (by, reason) = (args.by.as_str().into(), args.reason.as_str().into());
    let decision = Decision { what: Verdict::Released, by, at: app.now(), reason };
    let released = quarantine::release(&*store, &args.server, &args.tool, &decision).await?;
    if released.is_empty() {
        return Err(blocked());
    }
    wake(app, &args.server, std::slice::from_ref(&args.tool)).await?;
    let value = json!({ "server": args.server, "tool": args.tool, "by": args.by, "reason": args.reason,
        "released": released.iter().map(|one| described(one, &[])).collect::<Vec<_>>() });
    let sentence = format!("{} / {} runs again as it was accepted", args.server, args.tool);
    app.output.sentence(&value, &printable(&sentence));
    Ok(Exit::Ok)
}

/// Remembers who accepted definitions, where there is a store, and unblocks them.
///
/// # Errors
/// A store that fails.
pub(super) async fn accepted(app: &App, server: &str, taken: &[(String, Digest)]) -> Result<(), Problem> {
    let Some(store) = app.existing_store().await? else { return Ok(()) };
    let (by, reason) = (actor().into(), "".into());
    let decision = Decision { what: Verdict::Accepted, by, at: app.now(), reason };
    for (tool, hash) in taken {
        quarantine::accept(&*store, (server, tool, *hash), &decision).await?;
    }
    Ok(())
}

/// Tells the runs that wait for a decision about these tools that there is one.
///
/// # Errors
/// A store that fails.
pub(super) async fn wake(app: &App, server: &str, tools: &[String]) -> Result<(), Problem> {
    let Some(store) = app.existing_store().await? else { return Ok(()) };
    let at = app.now();
    let statuses = vec![Status::Attention, Status::Paused, Status::Running];
    let mut query = Query { statuses, limit: PAGE, ..Query::default() };
    loop {
        let page = store.list(query.clone()).await?;
        for head in &page.heads {
            for (run, wait) in store.waits(head.id.clone(), false).await? {
                let WaitKind::ToolChanged { server: of, tool, .. } = &wait.kind else { continue };
                if **of == *server && tools.iter().any(|one| **one == **tool) {
                    let id = format!("tool_changed:{}:{}", at.0, wait.effect.key(&run)).into();
                    let (channel, data) = (wait.channel.clone(), Value::Null);
                    store.signal(Signal { id, channel, run: Some(run), data, at }).await?;
                }
            }
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(()),
        }
    }
}

fn described(one: &Blocked, decisions: &[Decision]) -> Json {
    let decision =
        |one: &Decision| json!({ "what": one.what, "by": &*one.by, "at": time(one.at), "reason": &*one.reason });
    json!({
        "server": one.server, "tool": one.tool, "since": time(one.since), "accepted": one.accepted, "shown": one.shown,
        "changes": one.changes, "decisions": decisions.iter().map(decision).collect::<Vec<_>>(),
    })
}

fn paragraph(one: &Blocked, decisions: &[Decision]) -> String {
    let mut text = format!("{} / {}: blocked since {}\n", one.server, one.tool, time(one.since));
    for decision in decisions {
        let word = match decision.what {
            Verdict::Accepted => "accepted",
            Verdict::Released => "released",
        };
        let why = if decision.reason.is_empty() { String::new() } else { format!(": {}", decision.reason) };
        text.push_str(&printable(&format!("    {word} {} by {}{why}\n", time(decision.at), decision.by)));
    }
    text + &places(&one.changes)
}
