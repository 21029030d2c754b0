//! `windlass store status` and `migrate`: what the store is, and what its schema has to become.

use serde_json::{Value as Json, json};
use windlass_ports::store::{Depth, Stats, StoreError, WorkerRow};
use windlass_stores::{Counted, Encryption, Schema};

use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::output::{Form, time};

/// Prints schema, size, runs, queue and workers.
pub(crate) async fn status(app: &App, args: args::StoreStatus) -> Result<Exit, Problem> {
    let schema = schema(app).await?;
    let mut value = json!({ "store": app.shown_store(), "schema": shown(schema) });
    let mut rows = vec![pair("store", app.shown_store()), pair("schema", words(schema))];
    if schema.found == schema.known {
        let encryption =
            windlass_stores::encryption(app.store_url(), args.keys).await.map_err(|error| failed(app, error))?;
        let encryption = encryption.ok_or_else(|| app.no_store())?;
        value["encryption"] = encrypted(&encryption);
        rows.push(pair("encryption", in_words(&encryption)));
        let store = app.store_as_it_is().await?.ok_or_else(|| app.no_store())?;
        let stats = store.stats().await?;
        let workers = store.workers().await?;
        if let Json::Object(map) = &mut value {
            map.extend(numbers(&stats, &workers));
        }
        rows.extend(lines(&stats, &workers));
    }
    match app.output.form() {
        Form::Json => app.output.document(&value),
        Form::Text => app.output.text(&crate::output::table(&["", ""], &rows)),
    }
    if schema.found < schema.known {
        app.output.note("a migration is due: windlass store migrate");
        return Ok(Exit::Failed);
    }
    Ok(Exit::Ok)
}

/// How far the store is encrypted.
fn encrypted(found: &Encryption) -> Json {
    let values = found.values.as_ref().map(|all| {
        let counted = |one: &Counted| json!({ "key": one.key, "values": one.values });
        all.iter().map(counted).collect::<Json>()
    });
    json!({
        "state": state(found), "keys": found.keys, "began_at": found.began_at.map(time),
        "complete_at": found.complete_at.map(time), "values": values,
    })
}

fn state(found: &Encryption) -> &'static str {
    match (found.began_at, found.complete_at) {
        (None, _) => "none",
        (Some(_), None) => "partial",
        (Some(_), Some(_)) => "complete",
    }
}

fn in_words(found: &Encryption) -> String {
    let keys: Vec<String> = found.keys.iter().map(|key| format!("`{key}`")).collect();
    let mut text = match state(found) {
        "none" => "none".to_owned(),
        "partial" => format!("with key {}; values from before are plain: windlass store rekey", keys.join(", ")),
        _ => format!("everything, with key {}", keys.join(", ")),
    };
    for counted in found.values.iter().flatten() {
        let of = counted.key.as_ref().map_or_else(|| "plain".to_owned(), |key| format!("of key `{key}`"));
        text.push_str(&format!("; {} values {of}", counted.values));
    }
    text
}

/// Brings the schema up to date.
pub(crate) async fn migrate(app: &App, _: args::StoreMigrate) -> Result<Exit, Problem> {
    let before = windlass_stores::migrate(app.store_url(), app.options()?).await.map_err(|error| failed(app, error))?;
    let Schema { found, known } = before;
    let text = match found {
        found if found == known => format!("schema {known} is up to date; nothing was changed"),
        0 => format!("made a store of schema {known}"),
        found => format!("migrated from schema {found} to {known}"),
    };
    app.output.sentence(&json!({ "store": app.shown_store(), "from": found, "to": known }), &text);
    Ok(Exit::Ok)
}

async fn schema(app: &App) -> Result<Schema, Problem> {
    let schema = windlass_stores::schema(app.store_url()).await.map_err(|error| failed(app, error))?;
    let schema = schema.ok_or_else(|| app.no_store())?;
    let Schema { found, known } = schema;
    if found > known {
        return Err(StoreError::NewerSchema { found, known }.into());
    }
    Ok(schema)
}

fn failed(app: &App, error: StoreError) -> Problem {
    let problem = Problem::from(error);
    Problem { message: format!("`{}`: {}", app.shown_store(), problem.message), ..problem }
}

fn shown(schema: Schema) -> Json {
    json!({ "found": schema.found, "known": schema.known, "migration_due": schema.found < schema.known })
}

fn words(schema: Schema) -> String {
    let Schema { found, known } = schema;
    if found == known { format!("{found}, up to date") } else { format!("{found}, this build knows {known}") }
}

fn numbers(stats: &Stats, workers: &[WorkerRow]) -> serde_json::Map<String, Json> {
    let runs: serde_json::Map<String, Json> = stats.runs.iter().map(|(word, n)| (word.clone(), json!(n))).collect();
    let queue: Vec<Json> = stats
        .queue
        .iter()
        .map(|depth| {
            json!({
                "pool": &*depth.pool, "priority": depth.priority, "runs": depth.runs,
                "oldest": time(depth.oldest),
            })
        })
        .collect();
    let mut map = serde_json::Map::new();
    map.insert("bytes".into(), stats.bytes.into());
    map.insert("runs".into(), runs.into());
    map.insert("queue".into(), queue.into());
    map.insert("oldest_queued_at".into(), json!(oldest(&stats.queue).map(time)));
    map.insert("workers_alive".into(), stats.workers.into());
    map.insert("workers".into(), workers.iter().map(worker).collect());
    map
}

fn worker(row: &WorkerRow) -> Json {
    json!({
        "id": row.id.to_string(),
        "host": row.registration.host,
        "pid": row.registration.pid,
        "build": row.registration.build,
        "pools": row.registration.pools,
        "alive": row.is_alive,
        "draining": row.load.draining,
        "runs": row.runs,
        "calls": row.load.calls,
        "seen_at": time(row.seen_at),
    })
}

fn oldest(queue: &[Depth]) -> Option<windlass_core::time::Timestamp> {
    queue.iter().map(|depth| depth.oldest).min()
}

fn lines(stats: &Stats, workers: &[WorkerRow]) -> Vec<Vec<String>> {
    let runs: Vec<String> = stats.runs.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let queued: u64 = stats.queue.iter().map(|depth| depth.runs).sum();
    let gone = workers.iter().filter(|row| !row.is_alive).count();
    let mut rows = vec![
        pair("size", format!("{} bytes", stats.bytes)),
        pair("runs", if runs.is_empty() { "none".to_owned() } else { runs.join(", ") }),
        pair("workers", format!("{} alive, {gone} gone", stats.workers)),
    ];
    rows.push(match oldest(&stats.queue) {
        Some(at) => pair("queue", format!("{queued} runs, the oldest since {}", time(at))),
        None => pair("queue", "empty".to_owned()),
    });
    rows
}

fn pair(name: &str, value: impl Into<String>) -> Vec<String> {
    vec![name.to_owned(), value.into()]
}
