//! `windlass runs tree`: a run and everything below it, with what each used.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use windlass_core::ids::RunId;
use windlass_ports::store::{Head, Query, Store};

use super::list::head;
use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::output::Form;
use crate::story::dollars;

/// Runs read at a time.
const PAGE: usize = 200;

/// Prints a run and everything below it.
pub(crate) async fn tree(app: &App, args: args::RunsTree) -> Result<Exit, Problem> {
    let (store, top) = app.run(&args.run).await?;
    let (heads, more) = below(&*store, &top, args.limit as usize).await?;
    let mut children: BTreeMap<&RunId, Vec<&Head>> = BTreeMap::new();
    for head in &heads {
        if let Some(parent) = &head.parent {
            children.entry(parent).or_default().push(head);
        }
    }
    let mut rows = Vec::new();
    let mut nodes = Vec::new();
    let mut left = vec![(&top, 0)];
    while let Some((run, depth)) = left.pop() {
        rows.push(row(run, depth));
        nodes.push(node(run, depth));
        left.extend(children.get(&run.id).into_iter().flatten().rev().map(|child| (*child, depth + 1)));
    }
    let value = json!({ "run": top.id.as_str(), "runs": nodes, "more": more });
    app.output.table(&value, &["run", "machine", "status", "steps", "tokens", "cost", "took"], &rows);
    if app.output.form() == Form::Text && more {
        app.output.note("there are more runs below it: `--limit` says how many are read");
    }
    Ok(Exit::Ok)
}

/// The runs below one, those that began first before the others, and whether there are more.
async fn below(store: &dyn Store, top: &Head, limit: usize) -> Result<(Vec<Head>, bool), Problem> {
    let mut heads = Vec::new();
    let mut query = Query { root: Some(top.root.clone()), limit: PAGE, ..Query::default() };
    loop {
        let page = store.list(query.clone()).await?;
        heads.extend(page.heads.into_iter().filter(|head| head.id != top.id && head.id.is_within(&top.id)));
        match page.next {
            Some(next) if heads.len() <= limit => query.cursor = Some(next),
            rest => {
                let more = rest.is_some() || heads.len() > limit;
                heads.truncate(limit);
                heads.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
                return Ok((heads, more));
            }
        }
    }
}

fn node(run: &Head, depth: usize) -> Json {
    let mut value = head(run);
    value["below"] = json!(depth);
    value["took_ms"] = json!(run.updated_at.since_ms(run.created_at));
    value
}

fn row(run: &Head, depth: usize) -> Vec<String> {
    vec![
        format!("{}{}", "  ".repeat(depth), run.id),
        run.machine.to_string(),
        run.status.as_str().to_owned(),
        run.step.to_string(),
        run.tokens.to_string(),
        dollars(run.cost_micros),
        format!("{:.1} s", run.updated_at.since_ms(run.created_at) as f64 / 1_000.0),
    ]
}
