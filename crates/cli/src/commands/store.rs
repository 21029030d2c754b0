//! `windlass store` and `windlass fsck`: the store as a whole.

mod accounts;
mod compact;
mod copy;
mod fsck;
mod rekey;
mod status;

use serde_json::json;
use windlass::wire;
use windlass_runtime::schedule;
use windlass_stores::Held;

use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};

pub(crate) use compact::compact;
pub(crate) use copy::{backup, restore};
pub(crate) use fsck::{fsck, waits};
pub(crate) use rekey::rekey;
pub(crate) use status::{migrate, status};

/// Voids every lease and holds back every unfinished run.
pub(crate) async fn fence(app: &App, args: args::StoreFence) -> Result<Exit, Problem> {
    let reason = args.reason.trim();
    if reason.is_empty() {
        return Err(Problem::invalid("`--reason` is empty").hint("say why; it is shown with every run"));
    }
    let store = app.existing_store().await?.ok_or_else(|| app.no_store())?;
    let quarantined = store.fence(reason.into()).await?;
    let hold = |bytes: &[u8]| schedule::held_back(bytes, wire::now(), reason);
    let paused = Held { kind: schedule::KIND, change: &hold }.apply(&*store).await?;
    let steps = steps(quarantined, paused);
    app.output.sentence(
        &json!({ "quarantined": quarantined, "schedules_paused": paused, "reason": reason, "next": steps }),
        &format!(
            "{quarantined} unfinished runs are quarantined, {paused} schedules are paused, and no lease is valid any \
             more{}",
            next(&steps)
        ),
    );
    Ok(Exit::Ok)
}

/// What a person does with runs that are held back.
const NEXT: [&str; 4] = [
    "windlass runs list --status quarantined --all",
    "windlass runs show RUN",
    "windlass runs requeue RUN",
    "windlass runs cancel RUN",
];

/// What a person does with schedules that are held back.
const NEXT_OF_SCHEDULES: [&str; 2] = ["windlass schedules list", "windlass schedules resume NAME"];

/// What a person does next.
fn steps(quarantined: u64, paused: u64) -> Vec<&'static str> {
    let runs = NEXT.into_iter().filter(|_| quarantined > 0);
    runs.chain(NEXT_OF_SCHEDULES.into_iter().filter(|_| paused > 0)).collect()
}

fn next(steps: &[&str]) -> String {
    if steps.is_empty() { String::new() } else { format!("\nnext: {}", steps.join("\n      ")) }
}
