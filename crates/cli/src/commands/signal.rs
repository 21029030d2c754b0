//! `windlass signal`: one message to whoever waits on a channel.

use serde_json::json;
use windlass_core::ids::RunId;
use windlass_core::limits::CHANNEL_BYTES_MAX;
use windlass_core::value::Value;
use windlass_ports::store::{Signal, Signalled, Store};

use crate::app::App;
use crate::args;
use crate::caller::actor;
use crate::exit::{Exit, Problem};
use crate::input;

/// What channels begin with on which somebody says whether a call happened.
const OUTCOME: &str = "outcome/";

/// Sends the signal and says what became of it.
pub(crate) async fn signal(app: &App, args: args::Signal) -> Result<Exit, Problem> {
    if args.channel.is_empty() || args.channel.len() > CHANNEL_BYTES_MAX {
        return Err(Problem::invalid(format!("a channel has 1 to {CHANNEL_BYTES_MAX} bytes")));
    }
    let data = input::value("--data", args.data.as_deref())?;
    check_outcome(&args.channel, &data)?;
    let data = signed(&args.channel, data);
    let store = app.store().await?;
    let run = match args.run.as_deref().map(RunId::stored) {
        Some(run) => Some(listener(&*store, run, &args.channel).await?),
        None => None,
    };
    let id = args.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let signal =
        Signal { id: id.as_str().into(), channel: args.channel.as_str().into(), run: run.clone(), data, at: app.now() };
    let (result, runs, text) = match store.signal(signal).await? {
        Signalled::Delivered(runs) => {
            let text = format!("delivered to {}", runs.iter().map(RunId::as_str).collect::<Vec<_>>().join(", "));
            ("delivered", runs, text)
        }
        Signalled::Buffered => ("buffered", Vec::new(), "kept for the next run that waits on this channel".to_owned()),
        Signalled::Duplicate => ("duplicate", Vec::new(), "a signal of this id was sent before".to_owned()),
        Signalled::NotFound => return Err(Problem::unknown_run(run.as_ref().map_or("", RunId::as_str))),
        Signalled::Finished => {
            return Err(Problem::rejected(format!("run `{}` has ended", run.as_ref().map_or("", RunId::as_str))));
        }
    };
    app.output.sentence(
        &json!({ "signal": result, "id": id, "channel": args.channel, "runs": runs.iter().map(RunId::as_str).collect::<Vec<_>>() }),
        &text,
    );
    Ok(Exit::Ok)
}

/// An answer about a call in doubt has to say whether it happened: the run would ask again otherwise.
fn check_outcome(channel: &str, data: &Value) -> Result<(), Problem> {
    if !channel.starts_with(OUTCOME) || data.get("happened").is_some_and(|said| matches!(said, Value::Bool(_))) {
        return Ok(());
    }
    Err(Problem::invalid(format!("`{channel}` asks whether a call happened, and `--data` does not say"))
        .hint("--data '{\"happened\": true, \"result\": ...}', or '{\"happened\": false}' to have it made again"))
}

/// The same with whoever says it: the audit row of the answer names them.
fn signed(channel: &str, mut data: Value) -> Value {
    if let Value::Map(map) = &mut data
        && channel.starts_with(OUTCOME)
    {
        std::sync::Arc::make_mut(map).insert("by".into(), Value::str(actor()));
    }
    data
}

/// Whom a signal for a run is for: the run itself, unless it is one below it that waits on the channel.
async fn listener(store: &dyn Store, run: RunId, channel: &str) -> Result<RunId, Problem> {
    let waits = store.waits(run.clone(), true).await?;
    let mut waiting: Vec<RunId> =
        waits.into_iter().filter(|(_, wait)| *wait.channel == *channel).map(|(id, _)| id).collect();
    waiting.dedup();
    match &waiting[..] {
        [one] => Ok(one.clone()),
        several if several.is_empty() || several.contains(&run) => Ok(run),
        several => {
            let named: Vec<&str> = several.iter().map(RunId::as_str).take(5).collect();
            let message = format!("{} runs below `{run}` wait on `{channel}`: {}", several.len(), named.join(", "));
            Err(Problem::rejected(message).hint("name one of them with `--run`, or leave it out"))
        }
    }
}
