//! `windlass signal`: one message to whoever waits on a channel.

use serde_json::json;
use windlass_core::ids::RunId;
use windlass_core::limits::CHANNEL_BYTES_MAX;
use windlass_ports::store::{Signal, Signalled};

use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::input;

/// Sends the signal and says what became of it.
pub(crate) async fn signal(app: &App, args: args::Signal) -> Result<Exit, Problem> {
    if args.channel.is_empty() || args.channel.len() > CHANNEL_BYTES_MAX {
        return Err(Problem::invalid(format!("a channel has 1 to {CHANNEL_BYTES_MAX} bytes")));
    }
    let data = input::value("--data", args.data.as_deref())?;
    let run = args.run.as_deref().map(RunId::stored);
    let store = app.store().await?;
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
