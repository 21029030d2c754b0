//! Lists of runs, and numbers about all of them.

use tokio_postgres::types::{ToSql, Type};
use windlass_core::ids::{Name, RunId};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Depth, Page, Query, Stats, StoreError};

use super::connect::{Sql, Value, trouble};
use super::flight::status_code;
use super::pool::Pool;
use super::read::{HEAD_COLUMNS, head_columns, head_of, unread};
use super::request::{count, int, tag_key, tag_pair};
use super::text::{shield, unshield};
use super::workers::FRONT;

/// The word that a run's status reads as, as a number.
const SHOWN: &str = "CASE WHEN r.quarantine IS NOT NULL THEN 5 WHEN r.ready IS NOT NULL \
     OR (r.version = 0 AND r.owner IS NULL) THEN 0 ELSE r.status END";

static SIZE: Sql = Sql { text: "SELECT pg_database_size(current_database())", types: &[] };

static WORDS: Sql = Sql {
    text: "SELECT CASE WHEN r.quarantine IS NOT NULL THEN 5 WHEN r.ready IS NOT NULL \
         OR (r.version = 0 AND r.owner IS NULL) THEN 0 ELSE r.status END::smallint AS word, count(*) \
         FROM runs r GROUP BY 1 ORDER BY 1",
    types: &[],
};

static HELD: Sql = Sql { text: "SELECT min(updated_at) FROM runs WHERE owner IS NOT NULL", types: &[] };

static DEPTHS: Sql = Sql {
    text: "SELECT pool, priority, count(*), min(CASE WHEN ready < 0 THEN ready - $1 ELSE ready END) FROM runs \
         WHERE ready IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2",
    types: &[Type::INT8],
};

/// Conditions, and the values that they name.
#[derive(Default)]
struct Filter {
    clauses: Vec<String>,
    values: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
}

impl Filter {
    /// Adds a condition; `?` stands for the value.
    fn add(&mut self, clause: &str, value: impl ToSql + Sync + Send + 'static, kind: Type) {
        self.values.push((Box::new(value), kind));
        self.clauses.push(clause.replace('?', &format!("${}", self.values.len())));
    }

    fn of(query: &Query) -> Result<Self, StoreError> {
        let mut filter = Self::default();
        if let Some(text) = &query.cursor {
            let place = text.split_once(':').and_then(|(us, run)| Some((us.parse::<i64>().ok()?, run)));
            let Some((us, run)) = place else {
                return Err(StoreError::Invalid(format!("`{text}` is not a cursor of this store")));
            };
            filter.add("(s.created_us, s.run) < (?, ", us, Type::INT8);
            let last = filter.clauses.pop().unwrap_or_default();
            filter.add("?)", shield(run).into_owned(), Type::TEXT);
            let second = filter.clauses.pop().unwrap_or_default();
            filter.clauses.push(last + &second);
        }
        for (value, clause) in
            [(&query.machine, "s.machine = ?"), (&query.tenant, "r.tenant = ?"), (&query.pool, "r.pool = ?")]
        {
            if let Some(value) = value {
                filter.add(clause, shield(value).into_owned(), Type::TEXT);
            }
        }
        if let Some(parent) = &query.parent {
            let clause = "(r.parent = ? AND r.root = (SELECT root FROM runs WHERE id = ?))";
            filter.add(clause, shield(parent.as_str()).into_owned(), Type::TEXT);
        }
        if let Some(root) = &query.root {
            filter.add("r.root = ?", shield(root.as_str()).into_owned(), Type::TEXT);
        }
        if query.roots_only {
            filter.clauses.push("r.parent IS NULL".into());
        }
        if !query.statuses.is_empty() {
            let codes: Vec<i16> = query.statuses.iter().map(|status| status_code(*status)).collect();
            filter.add(&format!("{SHOWN} = ANY(?)"), codes, Type::INT2_ARRAY);
        }
        if !query.tags.is_empty() {
            let tag = |(key, value): &(Name, Option<Name>)| match value {
                Some(value) => tag_pair(key, value),
                None => tag_key(key),
            };
            let tags: Vec<String> = query.tags.iter().map(tag).collect();
            filter.add("s.tags @> ?", tags, Type::TEXT_ARRAY);
        }
        for (at, clause) in [(query.created_from, "s.created_at >= ?"), (query.created_before, "s.created_at < ?")] {
            if let Some(at) = at {
                filter.add(clause, int(at.0), Type::INT8);
            }
        }
        Ok(filter)
    }
}

static IDS: Sql = Sql {
    text: "SELECT id FROM runs WHERE $1::text IS NULL OR id > $1 ORDER BY id LIMIT $2",
    types: &[Type::TEXT, Type::INT8],
};

/// Ids of runs after one.
pub(super) async fn ids(pool: &Pool, after: Option<&RunId>, limit: usize) -> Result<Vec<RunId>, StoreError> {
    let values = || -> Vec<Value> {
        vec![Box::new(after.map(|run| shield(run.as_str()).into_owned())), Box::new(int(limit as u64))]
    };
    let rows = pool.rows(&IDS, values).await?;
    rows.iter().map(|row| Ok(RunId::stored(&unshield(row.try_get(0).map_err(unread)?)))).collect()
}

/// Runs, newest first.
pub(super) async fn list(pool: &Pool, query: &Query) -> Result<Page, StoreError> {
    let filter = Filter::of(query)?;
    let conditions = match filter.clauses.is_empty() {
        true => String::new(),
        false => format!("WHERE {}", filter.clauses.join(" AND ")),
    };
    let limit = int((query.limit as u64).saturating_add(1));
    let text = format!(
        "SELECT {}, s.created_us FROM starts s JOIN runs r ON r.id = s.run {conditions} \
         ORDER BY s.created_us DESC, s.run DESC LIMIT {limit}",
        head_columns!()
    );
    let values: Vec<(&(dyn ToSql + Sync), Type)> =
        filter.values.iter().map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone())).collect();
    let link = pool.lend().await?;
    let rows = link.client.query_typed(&text, &values).await.map_err(|error| trouble(&error).error())?;
    link.put_back();
    let more = rows.len() > query.limit;
    let rows = &rows[..rows.len().min(query.limit)];
    let heads = rows.iter().map(head_of).collect::<Result<Vec<_>, _>>()?;
    let next = match rows.last().filter(|_| more) {
        None => None,
        Some(row) => {
            let (us, run): (i64, &str) = (row.try_get(HEAD_COLUMNS).map_err(unread)?, row.try_get(0).map_err(unread)?);
            Some(format!("{us}:{}", unshield(run)))
        }
    };
    Ok(Page { heads, next })
}

/// Size, runs by status, and the queue.
pub(super) async fn stats(pool: &Pool) -> Result<Stats, StoreError> {
    let rows = pool
        .run(|| vec![(&SIZE, Vec::new()), (&WORDS, Vec::new()), (&HELD, Vec::new()), (&DEPTHS, vec![Box::new(FRONT)])])
        .await?;
    let [size, words, held, depths] = rows.as_slice() else {
        return Err(StoreError::Corrupt("the numbers of the store are not there".into()));
    };
    let number = |row: &tokio_postgres::Row, column: usize| row.try_get::<_, i64>(column).map(count).map_err(unread);
    let bytes = size.first().map_or(Ok(0), |row| number(row, 0))?;
    let mut runs = Vec::new();
    for row in words {
        let code: i16 = row.try_get(0).map_err(unread)?;
        let status = usize::try_from(code).ok().and_then(|place| Status::ALL.get(place));
        runs.push((status.map_or("?", |status| status.as_str()).to_owned(), number(row, 1)?));
    }
    let held = held.first().map(|row| row.try_get::<_, Option<i64>>(0).map_err(unread)).transpose()?.flatten();
    let held_since = held.map(|at| Timestamp(count(at)));
    let mut queue = Vec::new();
    for row in depths {
        let class: i16 = row.try_get(1).map_err(unread)?;
        queue.push(Depth {
            pool: unshield(row.try_get(0).map_err(unread)?),
            priority: crate::priority_of(i64::from(class)),
            runs: number(row, 2)?,
            oldest: Timestamp(number(row, 3)? / 1_000),
        });
    }
    Ok(Stats { bytes, runs, held_since, queue, ..Stats::default() })
}
