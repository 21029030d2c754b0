//! `windlass store compact`: the file of the store is written anew.

use serde_json::json;
use windlass_stores::Compacted;

use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};

/// Writes the file of the store anew.
pub(crate) async fn compact(app: &App, _: args::StoreCompact) -> Result<Exit, Problem> {
    app.store_to_read().await?.ok_or_else(|| app.no_store())?;
    let compacted = windlass_stores::compact(app.store_url(), app.options()?).await?;
    let Compacted { before, after, remains } = compacted;
    let value = json!({ "store": app.shown_store(), "before": before, "after": after, "remains": remains });
    let Some(remains) = remains else {
        let text = format!("`{}` has {after} bytes, {before} before", app.shown_store());
        app.output.sentence(&value, &text);
        return Ok(Exit::Ok);
    };
    app.output.sentence(&value, &format!("the file or its log may still hold what was removed: {remains}"));
    app.output.note("stop what uses the store, or make room on the disk, and run it again");
    Ok(Exit::Rejected)
}
