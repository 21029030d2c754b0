//! `windlass store backup` and `restore`: a copy of the store, and a store from a copy.

use std::path::Path;

use serde_json::json;
use windlass::wire;
use windlass_core::time::Timestamp;
use windlass_ports::store::StoreError;
use windlass_runtime::schedule;
use windlass_stores::{Held, RestoreError, Restored};

use super::{next, steps};
use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::output::time;

/// Copies the store.
pub(crate) async fn backup(app: &App, args: args::StoreBackup) -> Result<Exit, Problem> {
    let store = app.store_as_it_is().await?.ok_or_else(|| app.no_store())?;
    if args.file.exists() {
        return Err(Problem::rejected(format!("`{}` exists already", args.file.display()))
            .hint("name a new file; a backup never replaces one"));
    }
    let begun = wire::now();
    store.backup(&args.file).await.map_err(|error| match error {
        StoreError::Invalid(text) => Problem::invalid(text),
        other => other.into(),
    })?;
    let noted = match wire::open_store_with(app.store_url(), app.keys_as_it_is().await?).await {
        Ok(store) => windlass_server::backup::note(&*store, begun).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = noted {
        tracing::warn!(error, "the backup is complete, and its time could not be noted in the store");
    }
    let bytes = std::fs::metadata(&args.file).map(|meta| meta.len()).unwrap_or_default();
    app.output.sentence(
        &json!({ "file": args.file.display().to_string(), "bytes": bytes }),
        &format!("wrote `{}`, {bytes} bytes", args.file.display()),
    );
    Ok(Exit::Ok)
}

/// Makes a store from a backup.
pub(crate) async fn restore(app: &App, args: args::StoreRestore) -> Result<Exit, Problem> {
    if args.replace && wire::store_path(app.store_url()).is_none() {
        return Err(Problem::invalid("`--replace` is for SQLite: a database is never replaced")
            .hint("restore into a new, empty database, see docs/operations/restore.md"));
    }
    let hold = |bytes: &[u8]| schedule::held_back(bytes, wire::now(), SCHEDULES_HELD);
    let held = Held { kind: schedule::KIND, change: &hold };
    let restored =
        windlass_stores::restore(&args.file, app.store_url(), app.options()?, args.replace, reason, held).await;
    let restored = restored.map_err(|error| refused(&args.file, error))?;
    let Restored { aside, quarantined, held, taken_at } = restored;
    let aside = aside.map(|path| path.display().to_string());
    let value = json!({
        "store": app.shown_store(),
        "backup": args.file.display().to_string(),
        "taken_at": taken_at.map(time),
        "quarantined": quarantined,
        "schedules_paused": held,
        "aside": aside,
        "next": steps(quarantined, held),
    });
    let state = taken_at.map_or_else(|| "without runs".to_owned(), |at| format!("as of {}", time(at)));
    let mut text = format!("`{}` is the backup, {state}", app.shown_store());
    if let Some(aside) = aside {
        text.push_str(&format!("\nthe store that was there is `{aside}`"));
    }
    if quarantined > 0 {
        text.push_str(&format!("\n{quarantined} unfinished runs are quarantined"));
    }
    if held > 0 {
        text.push_str(&format!("\n{held} schedules are paused, and start nothing until they are resumed"));
    }
    text.push_str(&next(&steps(quarantined, held)));
    app.output.sentence(&value, &text);
    Ok(Exit::Ok)
}

/// What is said of every schedule that is held back.
const SCHEDULES_HELD: &str = "restored from a backup";

/// What is said of every run that is held back.
fn reason(taken_at: Option<Timestamp>) -> String {
    let of = taken_at.map_or_else(String::new, |at| format!(" of {}", time(at)));
    format!("restored from a backup{of}: what it did since is not known")
}

fn refused(file: &Path, error: RestoreError) -> Problem {
    let text = error.to_string();
    match error {
        RestoreError::NotEmpty { .. } => Problem::rejected(text)
            .hint("name another store with `--store`, or replace the one that is there with `--replace` (SQLite only)"),
        RestoreError::Damaged(findings) => Problem::new(Exit::Failed, "store.corrupt", text)
            .detail("findings", serde_json::to_value(findings).unwrap_or_default())
            .hint("take an older backup; nothing was changed"),
        RestoreError::Store(StoreError::Invalid(text)) => {
            Problem::invalid(text).hint("`windlass store backup` makes a backup")
        }
        RestoreError::Store(error @ StoreError::Corrupt(_)) => {
            Problem::new(Exit::Failed, "store.corrupt", format!("`{}`: {error}", file.display()))
                .hint("take an older backup; nothing was changed")
        }
        RestoreError::Store(error) => error.into(),
    }
}
