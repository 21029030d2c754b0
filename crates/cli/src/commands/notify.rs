//! `windlass notify`: what is sent to people, and whether a channel works.

use std::path::Path;

use serde_json::{Value as Json, json};
use windlass_core::ids::{Name, RunId};
use windlass_core::value::Value;
use windlass_ports::notify::{Notice, NoticeKind};
use windlass_runtime::NOTICES;
use windlass_runtime::notice::{Delivery, Standing};

use crate::app::App;
use crate::args::{Notify, NotifyList, NotifyTest};
use crate::exit::{Exit, Problem};
use crate::output::{printable, time};
use crate::session;

/// Records read from the store at a time.
const PAGE: usize = 500;

/// Lists notices, or tries a channel.
pub(crate) async fn perform(app: &App, command: Notify) -> Result<Exit, Problem> {
    match command {
        Notify::List(args) => list(app, &args).await,
        Notify::Test(args) => test(app, &args).await,
    }
}

async fn list(app: &App, args: &NotifyList) -> Result<Exit, Problem> {
    let (mut found, mut after): (Vec<Delivery>, Option<Name>) = (Vec::new(), None);
    let store = app.store_to_read().await?;
    while let Some(store) = &store {
        let objects = store.objects(NOTICES.into(), after.take(), PAGE).await?;
        let is_last = objects.len() < PAGE;
        for object in objects {
            let delivery: Delivery = serde_json::from_slice(&object.bytes).map_err(|error| {
                Problem::new(Exit::Unreachable, "store.corrupt", format!("the notice `{}`: {error}", object.key))
            })?;
            after = Some(object.key);
            if !args.waiting || matches!(delivery.standing, Standing::Pending { .. }) {
                found.push(delivery);
            }
        }
        if is_last || found.len() >= args.limit as usize {
            break;
        }
    }
    found.truncate(args.limit as usize);
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|delivery| {
            let (word, at, why) = standing(&delivery.standing);
            let notice = &delivery.notice;
            vec![
                delivery.channel.to_string(),
                notice.kind.as_str().to_owned(),
                notice.run_id.to_string(),
                word.to_owned(),
                at,
                delivery.attempts.to_string(),
                printable(&why),
            ]
        })
        .collect();
    let value = json!({ "notices": found.iter().map(described).collect::<Vec<_>>() });
    app.output.table(&value, &["channel", "kind", "run", "standing", "at", "attempts", "why"], &rows);
    Ok(Exit::Ok)
}

/// Where a delivery stands: the word, since when or until when, and why.
fn standing(standing: &Standing) -> (&'static str, String, String) {
    match standing {
        Standing::Pending { until, error, .. } => ("waiting", time(*until), error.clone().unwrap_or_default()),
        Standing::Sent { at } => ("sent", time(*at), String::new()),
        Standing::Dropped { at, why } => ("dropped", time(*at), why.clone()),
    }
}

fn described(delivery: &Delivery) -> Json {
    let (word, at, why) = standing(&delivery.standing);
    json!({
        "channel": &*delivery.channel,
        "notice": delivery.notice,
        "since": time(delivery.since),
        "standing": word,
        "at": at,
        "attempts": delivery.attempts,
        "error": (!why.is_empty()).then_some(why),
    })
}

async fn test(app: &App, args: &NotifyTest) -> Result<Exit, Problem> {
    let channels = session::wiring(app, Path::new("")).channels().map_err(session::setting)?;
    let Some(channel) = channels.iter().find(|channel| **channel.name() == *args.channel) else {
        return Err(Problem::not_found(format!("there is no channel `{}`", args.channel))
            .hint(format!("configure it as `[notify.{}]`", args.channel)));
    };
    let now = app.now();
    let id = Value::list(vec![Value::str("windlass.notice.test"), Value::count(now.0)]).digest().to_string();
    let run = RunId::stored("none");
    let notice = Notice {
        id: id[..32].into(),
        kind: NoticeKind::Attention,
        at_ms: now.0,
        tenant: "none".into(),
        machine: "none".into(),
        run_id: run.clone(),
        root_run_id: run,
        state: None,
        text: format!("a test of the channel `{}`: there is nothing to do", args.channel),
        question: None,
        code: None,
    };
    channel.send(&notice, now).await.map_err(|failure| {
        let message = format!("the channel `{}` did not take it: {}", args.channel, printable(&failure.message));
        Problem::new(Exit::Unreachable, failure.code.as_str(), message)
    })?;
    let value = json!({ "channel": args.channel, "id": &*notice.id });
    app.output.sentence(&value, &format!("the channel {} took it", args.channel));
    Ok(Exit::Ok)
}
