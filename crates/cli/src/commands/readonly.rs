//! `windlass readonly`: the switch for incidents, on, off, and how it is.

use serde_json::{Value as Json, json};
use windlass_core::ids::Name;
use windlass_runtime::switch::{Change, Switch};
use windlass_runtime::{set_switch, switches, tell_held};

use crate::app::App;
use crate::args::{Readonly, ReadonlyOff, ReadonlyOn, ReadonlyStatus, Switched};
use crate::exit::{Exit, Problem};
use crate::output::{printable, time};

/// Turns a switch, or shows the switches.
pub(crate) async fn perform(app: &App, command: Readonly) -> Result<Exit, Problem> {
    match command {
        Readonly::On(args) => on(app, args).await,
        Readonly::Off(args) => off(app, args).await,
        Readonly::Status(args) => status(app, args).await,
    }
}

/// Lets nothing be changed.
async fn on(app: &App, args: ReadonlyOn) -> Result<Exit, Problem> {
    turn(app, args.what, true).await
}

/// Lets things be changed again.
async fn off(app: &App, args: ReadonlyOff) -> Result<Exit, Problem> {
    turn(app, args.what, false).await
}

async fn turn(app: &App, what: Switched, on: bool) -> Result<Exit, Problem> {
    if what.by.trim().is_empty() {
        return Err(Problem::invalid("a switch is changed by somebody: `--by NAME`"));
    }
    let tenant = what.tenant.as_ref().map(|name| super::run::owner("--tenant", name)).transpose()?;
    let store = app.store().await?;
    let change = Change { on, by: what.by.as_str().into(), reason: what.reason.as_str().into(), at: app.now() };
    let (switch, changed) = set_switch(&*store, tenant.as_ref(), change).await?;
    // Also when it was off already: whoever turned it off may not have come so far.
    let told = if on { 0 } else { tell_held(&*store, tenant.as_ref()).await? };
    let mut value = described(tenant.as_ref(), &switch);
    value["changed"] = json!(changed);
    value["told"] = json!(told);
    let whose = tenant.as_ref().map_or_else(|| "the environment".to_owned(), |tenant| format!("tenant `{tenant}`"));
    let word = if on { "read-only" } else { "writable" };
    let already = if changed { "" } else { " already" };
    let goes_on = if told > 0 { format!("; {told} runs look whether they go on") } else { String::new() };
    app.output.sentence(&value, &printable(&format!("{whose} is {word}{already}{goes_on}")));
    Ok(Exit::Ok)
}

/// Shows the switches.
async fn status(app: &App, args: ReadonlyStatus) -> Result<Exit, Problem> {
    let tenant: Option<Name> = args.tenant.as_deref().map(Into::into);
    let mut all = match app.store_to_list().await? {
        Some(store) => switches(&*store).await?,
        None => std::collections::BTreeMap::new(),
    };
    all.retain(|key, _| key.is_none() || tenant.is_none() || *key == tenant);
    let is_on = all.values().any(|switch| switch.on().is_some());
    let value = json!({
        "read_only": is_on,
        "switches": all.iter().map(|(key, switch)| described(key.as_ref(), switch)).collect::<Vec<_>>(),
    });
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|(key, switch)| {
            let last = switch.changes.last();
            vec![
                key.as_ref().map_or_else(|| "(all)".to_owned(), |tenant| printable(tenant)),
                if switch.on().is_some() { "on" } else { "off" }.to_owned(),
                last.map(|change| time(change.at)).unwrap_or_default(),
                last.map(|change| printable(&change.by)).unwrap_or_default(),
                last.map(|change| printable(&change.reason)).unwrap_or_default(),
            ]
        })
        .collect();
    app.output.table(&value, &["tenant", "read-only", "since", "by", "reason"], &rows);
    Ok(if is_on { Exit::Failed } else { Exit::Ok })
}

fn described(tenant: Option<&Name>, switch: &Switch) -> Json {
    let changes: Vec<Json> = switch
        .changes
        .iter()
        .map(|change| json!({"on": change.on, "by": &*change.by, "reason": &*change.reason, "at": time(change.at)}))
        .collect();
    json!({"tenant": tenant.map(|tenant| &**tenant), "on": switch.on().is_some(), "changes": changes})
}
