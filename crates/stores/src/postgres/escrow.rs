//! Draws on budgets: one transaction that locks the accounts in the order of their names.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::RunId;
use windlass_ports::store::StoreError;
use windlass_ports::store::escrow::{ACCOUNT, ALLOTMENT, RETURNED, Sheet, forfeited, wanted};

use super::connect::{Link, Sql, Trouble, Value};
use super::pool::{Pool, TRIES_MAX, pause};
use super::read::unread;
use super::schema::run;
use super::text::{indexed, unshield};
use crate::pack::{pack, unpack};

/// Makes the accounts that are not there, and locks all of them.
static LOCK: Sql = Sql {
    text: "INSERT INTO objects (kind, key, revision, bytes) SELECT $1, key, 1, $3 FROM unnest($2::text[]) AS key \
         ON CONFLICT (kind, key) DO UPDATE SET revision = objects.revision RETURNING kind, key, bytes",
    types: &[Type::TEXT, Type::TEXT_ARRAY, Type::BYTEA],
};

static READ: Sql = Sql {
    text: "SELECT o.kind, o.key, o.bytes FROM objects o JOIN unnest($1::text[], $2::text[]) AS w (kind, key) \
         ON o.kind = w.kind AND o.key = w.key",
    types: &[Type::TEXT_ARRAY, Type::TEXT_ARRAY],
};

static WRITE: Sql = Sql {
    text: "WITH gone AS (DELETE FROM objects WHERE kind = ANY($4) AND key = $5) \
         INSERT INTO objects (kind, key, revision, bytes) SELECT w.kind, w.key, 1, w.bytes \
         FROM unnest($1::text[], $2::text[], $3::bytea[]) AS w (kind, key, bytes) \
         ON CONFLICT (kind, key) DO UPDATE SET revision = objects.revision + 1, bytes = excluded.bytes",
    types: &[Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::BYTEA_ARRAY, Type::TEXT_ARRAY, Type::TEXT],
};

pub(super) async fn draw(pool: &Pool, draw: &Draw) -> Result<Drawn, StoreError> {
    let mut tries = 0;
    loop {
        let mut link = pool.lend().await?;
        run(&link, "BEGIN").await?;
        match draw_within(&mut link, draw).await {
            Ok(answer) => {
                run(&link, "COMMIT").await?;
                link.put_back();
                return Ok(answer);
            }
            Err(Trouble::Again(_)) if tries < TRIES_MAX => {
                // The connection ends with its transaction.
                drop(link);
                tries += 1;
                pause(tries).await;
            }
            Err(trouble) => return Err(trouble.error()),
        }
    }
}

fn add(sheet: &mut Sheet, row: &Row) -> Result<(), StoreError> {
    let (kind, key): (&str, &str) = (row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?);
    sheet.add(kind, unshield(key), &unpack(row.try_get(2).map_err(unread)?)?)
}

async fn draw_within(link: &mut Link, draw: &Draw) -> Result<Drawn, Trouble> {
    let refused = Trouble::Refused;
    let (mut accounts, mut kinds, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, key) in wanted(draw) {
        let key = indexed("the scope of a budget", &key).map_err(refused)?;
        if kind == ACCOUNT {
            accounts.push(key);
        } else {
            kinds.push(kind.to_owned());
            keys.push(key);
        }
    }
    let mut sheet = Sheet::default();
    let nothing = pack(b"{}");
    let locked: Vec<Value> = vec![Box::new(ACCOUNT.to_owned()), Box::new(accounts), Box::new(nothing)];
    for row in &link.query(&LOCK, locked).await? {
        add(&mut sheet, row).map_err(refused)?;
    }
    // Only now, so that what is read is what the last holder of the locks wrote.
    for row in &link.query(&READ, vec![Box::new(kinds), Box::new(keys)]).await? {
        add(&mut sheet, row).map_err(refused)?;
    }
    let (answer, writes) = sheet.settle(draw).map_err(refused)?;
    let run = indexed("the id of a run", draw.run.as_str()).map_err(refused)?;
    let (mut kinds, mut keys, mut bytes, mut gone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for write in writes {
        match write.bytes {
            Some(new) => {
                kinds.push(write.kind.to_owned());
                keys.push(indexed("the scope of a budget", &write.key).map_err(refused)?);
                bytes.push(pack(&new));
            }
            None => gone.push(write.kind.to_owned()),
        }
    }
    if !kinds.is_empty() {
        let values: Vec<Value> = vec![Box::new(kinds), Box::new(keys), Box::new(bytes), Box::new(gone), Box::new(run)];
        link.query(&WRITE, values).await?;
    }
    Ok(answer)
}

static HELD: Sql = Sql {
    text: "SELECT key, bytes FROM objects WHERE kind = $1 AND key = ANY($2) ORDER BY key",
    types: &[Type::TEXT, Type::TEXT_ARRAY],
};

static FORGET_RETURNED: Sql =
    Sql { text: "DELETE FROM objects WHERE kind = $1 AND key = ANY($2)", types: &[Type::TEXT, Type::TEXT_ARRAY] };

/// Closes the books of runs that are removed: what they still hold counts as used, and a run that gets the name of one
/// draws anew.
pub(super) async fn forfeit(link: &mut Link, runs: &[String]) -> Result<(), Trouble> {
    let refused = |error: tokio_postgres::Error| Trouble::Refused(unread(error));
    let held = link.query(&HELD, vec![Box::new(ALLOTMENT.to_owned()), Box::new(runs.to_vec())]).await?;
    for row in &held {
        let (run, packed): (&str, &[u8]) = (row.try_get(0).map_err(refused)?, row.try_get(1).map_err(refused)?);
        let bytes = unpack(packed).map_err(Trouble::Refused)?;
        let draw = forfeited(&RunId::stored(&unshield(run)), &bytes).map_err(Trouble::Refused)?;
        draw_within(link, &draw).await?;
    }
    link.query(&FORGET_RETURNED, vec![Box::new(RETURNED.to_owned()), Box::new(runs.to_vec())]).await.map(|_| ())
}
