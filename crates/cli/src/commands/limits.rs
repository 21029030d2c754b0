//! `windlass limits`: what limits of rates are configured, what is left of them for all workers, and who waits.

use serde_json::{Value as Json, json};
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_ports::quota::Rest;
use windlass_ports::store::rates::{BucketRow, Rate, Waiting};
use windlass_runtime::quota::Notice;
use windlass_runtime::quotas;
use windlass_runtime::rates::{Limit, Pick};

use crate::app::App;
use crate::args::LimitsShow;
use crate::config::{Span, rate_limits};
use crate::exit::{Exit, Problem};
use crate::output::time;

/// Buckets read at a time.
const PAGE: usize = 500;

/// Lists limits and buckets.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn limits(app: &App, args: LimitsShow) -> Result<Exit, Problem> {
    let limits = rate_limits(&app.loaded.config.limits.rates).unwrap_or_default();
    let (rows, next) = match app.store_to_list().await? {
        Some(store) => buckets(&*store, &args).await?,
        None => (Vec::new(), None),
    };
    let (rests, now) = (rests(app).await?, app.now());
    let value = json!({
        "limits": limits.all().iter().map(limit).collect::<Vec<_>>(),
        "buckets": rows.iter().map(bucket).collect::<Vec<_>>(),
        "quotas": rests.iter().map(|(model, notice)| quota(model, notice, now)).collect::<Vec<_>>(),
        "next": next.as_deref(),
    });
    let header = ["limit or bucket", "rate", "burst", "left", "waiting", "since"];
    let limits = limits.all().iter().filter(|_| args.cursor.is_none() && !args.waiting).map(|limit| {
        let rate = amount(limit.rate, limit.unit.as_str());
        vec![limit.to_string(), rate, limit.rate.burst.to_string(), String::new(), String::new(), String::new()]
    });
    let quotas = rests.iter().filter(|_| args.cursor.is_none() && !args.waiting).map(|(model, notice)| {
        let rests = if notice.rests_until > now {
            format!("rests until {}", time(notice.rests_until))
        } else {
            "is looked at".into()
        };
        vec![format!("quota of {model}"), rests, String::new(), String::new(), String::new(), String::new()]
    });
    let lines: Vec<Vec<String>> = limits.chain(rows.iter().map(line)).chain(quotas).collect();
    app.output.table(&value, &header, &lines);
    if let Some(next) = next {
        app.output.note(&format!("more follow: --cursor '{next}'"));
    }
    Ok(Exit::Ok)
}

/// Quotas of providers that are used up, or were a moment ago.
async fn rests(app: &App) -> Result<Vec<(Name, Notice)>, Problem> {
    let Some(store) = app.store_to_read().await? else { return Ok(Vec::new()) };
    let now = app.now();
    let mut found = quotas(&*store).await?;
    found.retain(|(_, notice)| notice.rest(now) != Rest::default());
    Ok(found)
}

fn quota(model: &Name, notice: &Notice, now: Timestamp) -> Json {
    json!({
        "model": &**model,
        "rests_ms": notice.rest(now).ms,
        "refusals": notice.refusals,
        "refused_at": time(notice.refused_at),
        "one_looks": notice.alone,
    })
}

/// The buckets that are asked for, and the last of them when more follow.
async fn buckets(
    store: &dyn windlass_ports::store::Store,
    args: &LimitsShow,
) -> Result<(Vec<BucketRow>, Option<Name>), Problem> {
    let limit = args.limit as usize;
    let mut after: Option<Name> = args.cursor.as_deref().map(Into::into);
    let mut found: Vec<BucketRow> = Vec::new();
    loop {
        let page = store.rates().buckets(after, PAGE).await?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|row| row.bucket.clone());
        found.extend(page.into_iter().filter(|row| !args.waiting || calls(row) > 0));
        if found.len() > limit {
            found.truncate(limit);
            let next = found.last().map(|row| row.bucket.clone());
            return Ok((found, next));
        }
        if is_last {
            return Ok((found, None));
        }
    }
}

fn calls(row: &BucketRow) -> u64 {
    row.waiting.values().map(|waiting| waiting.calls).sum()
}

fn amount(rate: Rate, unit: &str) -> String {
    format!("{} {unit}/{}", rate.amount, Span(rate.per_ms))
}

fn limit(limit: &Limit) -> Json {
    let word = |pick: &Option<Pick>| match pick {
        None => Json::Null,
        Some(Pick::Each) => json!("*"),
        Some(Pick::One(name)) => json!(&**name),
    };
    let picks = &limit.picks;
    json!({
        "tenant": word(&picks.tenant),
        "user": word(&picks.user),
        "model": word(&picks.model),
        "tool": word(&picks.tool),
        "unit": limit.unit.as_str(),
        "amount": limit.rate.amount,
        "per_ms": limit.rate.per_ms,
        "burst": limit.rate.burst,
        "wait_ms": limit.wait_ms,
    })
}

fn bucket(row: &BucketRow) -> Json {
    let waiting = |(worker, waiting): (&Name, &Waiting)| {
        let [high, normal, low] = waiting.permits;
        json!({
            "worker": &**worker,
            "calls": waiting.calls,
            "permits": {"high": high, "normal": normal, "low": low},
            "since": time(waiting.since),
            "runs": waiting.runs.iter().map(|run| run.as_str()).collect::<Vec<_>>(),
        })
    };
    json!({
        "bucket": &*row.bucket,
        "amount": row.rate.amount,
        "per_ms": row.rate.per_ms,
        "burst": row.rate.burst,
        "left": row.left,
        "waiting": row.waiting.iter().map(waiting).collect::<Vec<_>>(),
    })
}

fn line(row: &BucketRow) -> Vec<String> {
    let unit = row.bucket.split('/').next().unwrap_or_default();
    let since = row.waiting.values().map(|waiting| waiting.since).min();
    vec![
        row.bucket.to_string(),
        amount(row.rate, unit),
        row.rate.burst.to_string(),
        row.left.to_string(),
        calls(row).to_string(),
        since.map(time).unwrap_or_default(),
    ]
}
