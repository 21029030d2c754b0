//! Draws on budgets: one transaction for all that wait, which locks the accounts in the order of their names.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Semaphore, oneshot};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::RunId;
use windlass_ports::store::StoreError;
use windlass_ports::store::escrow::{ACCOUNT, ALLOTMENT, RETURNED, Sheet, forfeited};

use super::connect::{Link, Sql, Trouble, Value};
use super::lanes::copy;
use super::pool::{Pool, TRIES_MAX, pause};
use super::read::unread;
use super::schema::run;
use super::text::{indexed, unshield};
use crate::cipher::{Cipher, Place};

/// Makes the accounts that are not there, and locks all of them.
static LOCK: Sql = Sql {
    text: "INSERT INTO objects (kind, key, revision, bytes) SELECT $1, key, 1, bytes \
         FROM unnest($2::text[], $3::bytea[]) AS i (key, bytes) \
         ON CONFLICT (kind, key) DO UPDATE SET revision = objects.revision RETURNING kind, key, bytes",
    types: &[Type::TEXT, Type::TEXT_ARRAY, Type::BYTEA_ARRAY],
};

static READ: Sql = Sql {
    text: "SELECT o.kind, o.key, o.bytes FROM objects o JOIN unnest($1::text[], $2::text[]) AS w (kind, key) \
         ON o.kind = w.kind AND o.key = w.key",
    types: &[Type::TEXT_ARRAY, Type::TEXT_ARRAY],
};

static WRITE: Sql = Sql {
    text: "WITH gone AS (DELETE FROM objects o USING unnest($4::text[], $5::text[]) AS g (kind, key) \
         WHERE o.kind = g.kind AND o.key = g.key) \
         INSERT INTO objects (kind, key, revision, bytes) SELECT w.kind, w.key, 1, w.bytes \
         FROM unnest($1::text[], $2::text[], $3::bytea[]) AS w (kind, key, bytes) \
         ON CONFLICT (kind, key) DO UPDATE SET revision = objects.revision + 1, bytes = excluded.bytes",
    types: &[Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::BYTEA_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY],
};

/// Begins a transaction that does not wait long for accounts that somebody else holds.
const TOGETHER: &str = "BEGIN; SET LOCAL lock_timeout = '500ms'";
/// Connections that draws use at a time which cannot be answered together, for half a second at most.
const APART_MAX: usize = 2;
/// Those of draws that wait for an account which somebody holds: others need connections of the same pool, of which there
/// are four where nothing else is said.
const PATIENT_MAX: usize = 1;
/// Begins a transaction that waits for an account, and gives its connection to others between two tries.
const PATIENT: &str = "BEGIN; SET LOCAL lock_timeout = '2s'";
/// Draws in one transaction: enough to share a sync widely, few enough to answer soon.
const TOGETHER_MAX: usize = 128;

/// Draws of one handle, which share transactions: draws on one budget come one after another, and each by itself would
/// hold its account for as long as a synced write takes.
#[derive(Debug)]
pub(super) struct Draws {
    waiting: Mutex<Vec<Waiting>>,
    /// Held by whoever draws for all that wait.
    turn: tokio::sync::Mutex<()>,
    apart: Semaphore,
    patient: Semaphore,
}

impl Default for Draws {
    fn default() -> Self {
        let (apart, patient) = (Semaphore::new(APART_MAX), Semaphore::new(PATIENT_MAX));
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::default(), apart, patient }
    }
}

#[derive(Debug)]
struct Waiting {
    draw: Draw,
    told: oneshot::Sender<Told>,
}

/// What whoever draws for all tells one that waits. Whoever waits may have gone: what was written stays written.
#[derive(Debug)]
enum Told {
    Answer(Result<Drawn, StoreError>),
    /// Not answered with the others.
    Apart(Draw),
}

impl Draws {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws, with all others that wait. Where whoever draws for all goes away, what became of the draws of others is
    /// not known: the same draw again gets the same answer.
    pub(super) async fn draw(&self, pool: &Pool, draw: Draw) -> Result<Drawn, StoreError> {
        match self.together(pool, draw).await {
            Told::Answer(answer) => answer,
            Told::Apart(draw) => self.apart(pool, &[draw]).await.map_err(Trouble::error),
        }
    }

    async fn together(&self, pool: &Pool, draw: Draw) -> Told {
        let (told, mut hears) = oneshot::channel();
        self.waiting().push(Waiting { draw, told });
        loop {
            let turn = tokio::select! {
                biased;
                told = &mut hears => return told.unwrap_or_else(|_| unknown()),
                turn = self.turn.lock() => turn,
            };
            match hears.try_recv() {
                Ok(told) => return told,
                Err(TryRecvError::Closed) => return unknown(),
                Err(TryRecvError::Empty) => {}
            }
            let together: Vec<Waiting> = {
                let mut waiting = self.waiting();
                let count = waiting.len().min(TOGETHER_MAX);
                waiting.drain(..count).collect()
            };
            let draws: Vec<Draw> = together.iter().map(|one| one.draw.clone()).collect();
            let settled = settle_once(pool, &draws, TOGETHER).await;
            drop(turn);
            tell(together, settled);
        }
    }

    /// Answers a draw by itself. Those whose accounts nobody else holds do not queue behind those that wait for one, so that
    /// an account that is held for long keeps back its own draws only.
    async fn apart(&self, pool: &Pool, draw: &[Draw; 1]) -> Result<Drawn, Trouble> {
        let settled = {
            let _one = self.apart.acquire().await;
            settle_once(pool, draw, TOGETHER).await
        };
        let mut answers = match settled {
            Err(Trouble::Again(_)) => {
                let _one = self.patient.acquire().await;
                settle(pool, draw).await?
            }
            settled => settled?,
        };
        answers.pop().ok_or_else(|| Trouble::Passing(StoreError::Unavailable("no answer to a draw; draw again".into())))
    }
}

fn tell(together: Vec<Waiting>, settled: Result<Vec<Drawn>, Trouble>) {
    let one_of_many = together.len() > 1;
    let apart = |one: Waiting| drop(one.told.send(Told::Apart(one.draw)));
    match settled {
        Ok(answers) => {
            together.into_iter().zip(answers).for_each(|(one, answer)| drop(one.told.send(Told::Answer(Ok(answer)))));
        }
        Err(Trouble::Again(_)) => together.into_iter().for_each(apart),
        Err(Trouble::Refused(_)) if one_of_many => together.into_iter().for_each(apart),
        Err(trouble) => {
            let error = trouble.error();
            together.into_iter().for_each(|one| drop(one.told.send(Told::Answer(Err(copy(&error))))));
        }
    }
}

fn unknown() -> Told {
    let text = "whoever drew on budgets for several runs at once was stopped; draw again";
    Told::Answer(Err(StoreError::Unavailable(text.into())))
}

/// Answers draws in one transaction, tried again when that may help.
async fn settle(pool: &Pool, draws: &[Draw]) -> Result<Vec<Drawn>, Trouble> {
    let mut tries = 0;
    loop {
        match settle_once(pool, draws, PATIENT).await {
            Err(Trouble::Again(_)) if tries < TRIES_MAX => {
                tries += 1;
                pause(tries).await;
            }
            settled => return settled,
        }
    }
}

async fn settle_once(pool: &Pool, draws: &[Draw], begin: &str) -> Result<Vec<Drawn>, Trouble> {
    let mut link = pool.lend().await.map_err(Trouble::Passing)?;
    run(&link, begin).await.map_err(Trouble::Passing)?;
    // The connection ends with a transaction that fails.
    let answers = settle_within(&mut link, &pool.cipher, draws).await?;
    run(&link, "COMMIT").await.map_err(Trouble::Passing)?;
    link.put_back();
    Ok(answers)
}

fn add(sheet: &mut Sheet, cipher: &Cipher, row: &Row) -> Result<(), StoreError> {
    let (kind, key): (&str, &str) = (row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?);
    let bytes = cipher.unpack(Place::Object { kind, key }, row.try_get(2).map_err(unread)?)?;
    sheet.add(kind, unshield(key), &bytes)
}

async fn settle_within(link: &mut Link, cipher: &Cipher, draws: &[Draw]) -> Result<Vec<Drawn>, Trouble> {
    let refused = Trouble::Refused;
    let mut sheet = Sheet::default();
    let (mut accounts, mut kinds, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, key) in sheet.unread(draws) {
        let key = indexed("the scope of a budget", &key).map_err(refused)?;
        if kind == ACCOUNT {
            accounts.push(key);
        } else {
            kinds.push(kind.to_owned());
            keys.push(key);
        }
    }
    let nothing = |key: &String| cipher.pack(Place::Object { kind: ACCOUNT, key }, b"{}");
    let nothing = accounts.iter().map(nothing).collect::<Result<Vec<_>, _>>().map_err(refused)?;
    let locked: Vec<Value> = vec![Box::new(ACCOUNT.to_owned()), Box::new(accounts), Box::new(nothing)];
    for row in &link.query(&LOCK, locked).await? {
        add(&mut sheet, cipher, row).map_err(refused)?;
    }
    // Only now, so that what is read is what the last holder of the locks wrote.
    for row in &link.query(&READ, vec![Box::new(kinds), Box::new(keys)]).await? {
        add(&mut sheet, cipher, row).map_err(refused)?;
    }
    let answers = draws.iter().map(|draw| sheet.settle(draw)).collect();
    let (mut kinds, mut keys, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut gone_kinds, mut gone_keys) = (Vec::new(), Vec::new());
    for write in sheet.writes().map_err(refused)? {
        let key = indexed("the scope of a budget", &write.key).map_err(refused)?;
        match write.bytes {
            Some(new) => {
                bytes.push(cipher.pack(Place::Object { kind: write.kind, key: &key }, &new).map_err(refused)?);
                kinds.push(write.kind.to_owned());
                keys.push(key);
            }
            None => {
                gone_kinds.push(write.kind.to_owned());
                gone_keys.push(key);
            }
        }
    }
    if !kinds.is_empty() {
        let values: Vec<Value> =
            vec![Box::new(kinds), Box::new(keys), Box::new(bytes), Box::new(gone_kinds), Box::new(gone_keys)];
        link.query(&WRITE, values).await?;
    }
    Ok(answers)
}

static HELD: Sql = Sql {
    text: "SELECT key, bytes FROM objects WHERE kind = $1 AND key = ANY($2) ORDER BY key",
    types: &[Type::TEXT, Type::TEXT_ARRAY],
};

static FORGET_RETURNED: Sql =
    Sql { text: "DELETE FROM objects WHERE kind = $1 AND key = ANY($2)", types: &[Type::TEXT, Type::TEXT_ARRAY] };

/// Closes the books of runs that are removed: what they still hold counts as used, and a run that gets the name of one
/// draws anew.
pub(super) async fn forfeit(link: &mut Link, cipher: &Cipher, runs: &[String]) -> Result<(), Trouble> {
    let refused = |error: tokio_postgres::Error| Trouble::Refused(unread(error));
    let held = link.query(&HELD, vec![Box::new(ALLOTMENT.to_owned()), Box::new(runs.to_vec())]).await?;
    for row in &held {
        let (run, packed): (&str, &[u8]) = (row.try_get(0).map_err(refused)?, row.try_get(1).map_err(refused)?);
        let bytes = cipher.unpack(Place::Object { kind: ALLOTMENT, key: run }, packed).map_err(Trouble::Refused)?;
        let draw = forfeited(&RunId::stored(&unshield(run)), &bytes).map_err(Trouble::Refused)?;
        settle_within(link, cipher, std::slice::from_ref(&draw)).await?;
    }
    link.query(&FORGET_RETURNED, vec![Box::new(RETURNED.to_owned()), Box::new(runs.to_vec())]).await.map(|_| ())
}
