//! `windlass fsck` and `windlass backup`: the store as a whole.

use serde_json::json;
use windlass_ports::store::StoreError;

use crate::app::{App, RESTORE};
use crate::args;
use crate::exit::{Exit, Problem};

/// Checks everything that can be checked without a machine.
pub(crate) async fn fsck(app: &App, _: args::Fsck) -> Result<Exit, Problem> {
    let store = app.existing_store().await?.ok_or_else(|| app.no_store())?;
    let findings = store.fsck().await.map_err(|error| match error {
        StoreError::Corrupt(_) => Problem::from(error).hint(RESTORE),
        other => other.into(),
    })?;
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|f| {
            vec![f.run.as_ref().map_or_else(String::new, ToString::to_string), f.rule.to_string(), f.message.clone()]
        })
        .collect();
    let value = json!({ "ok": findings.is_empty(), "findings": findings });
    if findings.is_empty() {
        app.output.sentence(&value, "nothing is wrong");
        return Ok(Exit::Ok);
    }
    app.output.table(&value, &["run", "rule", "finding"], &rows);
    Ok(Exit::Failed)
}

/// Copies the store.
pub(crate) async fn backup(app: &App, args: args::Backup) -> Result<Exit, Problem> {
    let store = app.existing_store().await?.ok_or_else(|| app.no_store())?;
    if args.file.exists() {
        return Err(Problem::rejected(format!("`{}` exists already", args.file.display()))
            .hint("name a new file; a backup never replaces one"));
    }
    store.backup(&args.file).await.map_err(|error| match error {
        StoreError::Invalid(text) => Problem::invalid(text),
        other => other.into(),
    })?;
    let bytes = std::fs::metadata(&args.file).map(|meta| meta.len()).unwrap_or_default();
    app.output.sentence(
        &json!({ "file": args.file.display().to_string(), "bytes": bytes }),
        &format!("wrote `{}`, {bytes} bytes", args.file.display()),
    );
    Ok(Exit::Ok)
}
