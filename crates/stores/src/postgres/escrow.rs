//! Draws on budgets: one transaction for all that wait, which locks the accounts in the order of their names.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Name, RunId};
use windlass_ports::store::StoreError;
use windlass_ports::store::escrow::{ACCOUNT, ALLOTMENT, RETURNED, Sheet, forfeited};

use super::connect::{Link, Sql, Trouble, Value};
use super::held::Held;
use super::lanes::copy;
use super::pool::{Pool, pause};
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

/// The accounts of these that somebody holds.
static LOOK: Sql = Sql {
    text: "WITH free AS MATERIALIZED (SELECT key FROM objects WHERE kind = $1 AND key = ANY($2) \
         FOR NO KEY UPDATE SKIP LOCKED) SELECT key FROM objects WHERE kind = $1 AND key = ANY($2) \
         AND key NOT IN (SELECT key FROM free)",
    types: &[Type::TEXT, Type::TEXT_ARRAY],
};

/// Begins a transaction that does not wait long for accounts that somebody else holds.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '500ms'";
/// Connections that draws use at a time, where the pool has so many that one is left: of those that are answered together,
/// of one that is answered by itself, and of whoever waits for accounts that somebody holds.
const LINKS_MAX: usize = 3;
/// How long a draw waits for accounts that somebody holds.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Draws in one transaction: enough to share a sync widely, few enough to answer soon.
const TOGETHER_MAX: usize = 128;

/// Draws of one handle, which share transactions: draws on one budget come one after another, and each by itself would
/// hold its account for as long as a synced write takes.
///
/// Those on an account that somebody else holds for long wait aside until it is let go, so that they keep back no others.
#[derive(Debug)]
pub(super) struct Draws {
    waiting: Mutex<Vec<Waiting>>,
    /// Held by whoever draws for all that wait.
    turn: tokio::sync::Mutex<()>,
    /// Held by whoever draws by itself.
    alone: tokio::sync::Mutex<()>,
    held: Held,
    /// Held by whoever waits for the accounts that are held.
    watch: tokio::sync::Mutex<()>,
    /// Tells that an account was let go.
    let_go: Notify,
    links: Semaphore,
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
    /// Not answered: somebody holds an account of one of them.
    Held,
    /// Not answered with the others.
    Alone,
}

impl Draws {
    /// Draws of a handle whose pool has so many connections.
    pub(super) fn new(size: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            alone: tokio::sync::Mutex::default(),
            held: Held::default(),
            watch: tokio::sync::Mutex::default(),
            let_go: Notify::new(),
            links: Semaphore::new(size.saturating_sub(1).clamp(1, LINKS_MAX)),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws, with all others that wait. Where whoever draws for all goes away, what became of the draws of others is
    /// not known: the same draw again gets the same answer.
    pub(super) async fn draw(&self, pool: &Pool, draw: Draw) -> Result<Drawn, StoreError> {
        let (deadline, mut tries, mut is_alone) = (Instant::now() + WAIT_MAX, 0, false);
        while Instant::now() < deadline {
            if !self.is_free(pool, &draw, deadline).await? {
                break;
            }
            match if is_alone { self.alone(pool, &draw).await } else { self.together(pool, &draw).await } {
                Told::Answer(answer) => return answer,
                Told::Held => {}
                Told::Alone => {
                    if is_alone {
                        tries += 1;
                        pause(tries).await;
                    }
                    is_alone = true;
                }
            }
        }
        let seconds = WAIT_MAX.as_secs();
        let text = format!("others held a budget that run `{}` draws on for {seconds} s; draw again", draw.run);
        Err(StoreError::Unavailable(text))
    }

    async fn together(&self, pool: &Pool, draw: &Draw) -> Told {
        let (told, mut hears) = oneshot::channel();
        self.waiting().push(Waiting { draw: draw.clone(), told });
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
            let next: Vec<Waiting> = {
                let mut waiting = self.waiting();
                let count = waiting.len().min(TOGETHER_MAX);
                waiting.drain(..count).collect()
            };
            // What is held may have become known after they came.
            let (held, together): (Vec<_>, Vec<_>) =
                next.into_iter().partition(|one| self.held.any_of(&one.draw, Instant::now()));
            held.into_iter().for_each(|one| drop(one.told.send(Told::Held)));
            if together.is_empty() {
                continue;
            }
            let draws: Vec<Draw> = together.iter().map(|one| one.draw.clone()).collect();
            let settled = self.settle(pool, &draws).await;
            drop(turn);
            tell(together, settled);
        }
    }

    /// Answers a draw by itself.
    async fn alone(&self, pool: &Pool, draw: &Draw) -> Told {
        let _turn = self.alone.lock().await;
        match self.settle(pool, std::slice::from_ref(draw)).await {
            Settled::Held => Told::Held,
            Settled::Once(Err(Trouble::Again(_))) => Told::Alone,
            Settled::Once(Err(trouble)) => Told::Answer(Err(trouble.error())),
            Settled::Once(Ok(mut answers)) => answers.pop().map_or_else(unknown, |answer| Told::Answer(Ok(answer))),
        }
    }

    /// Answers draws in one transaction, or finds out whose accounts somebody else holds.
    async fn settle(&self, pool: &Pool, draws: &[Draw]) -> Settled {
        let _link = self.links.acquire().await;
        let settled = settle_once(pool, draws).await;
        if matches!(settled, Err(Trouble::Again(_))) {
            // Where that cannot be told, whoever draws again is told why.
            let held = look(pool, draws).await.unwrap_or_default();
            let is_held = !held.is_empty();
            held.into_iter().for_each(|scope| self.held.remember(scope, Instant::now()));
            if is_held {
                return Settled::Held;
            }
        }
        Settled::Once(settled)
    }

    /// Waits until no account of a draw is known to be held; false when that takes too long.
    async fn is_free(&self, pool: &Pool, draw: &Draw, deadline: Instant) -> Result<bool, StoreError> {
        while self.held.any_of(draw, Instant::now()) {
            let let_go = self.let_go.notified();
            tokio::pin!(let_go);
            // Before it is looked at again, so that nothing is missed in between.
            let_go.as_mut().enable();
            if !self.held.any_of(draw, Instant::now()) {
                return Ok(true);
            }
            tokio::select! {
                biased;
                () = let_go => {}
                () = tokio::time::sleep_until(deadline) => return Ok(false),
                _watch = self.watch.lock() => self.watch(pool, draw, deadline).await?,
            }
        }
        Ok(true)
    }

    /// Waits once for each account that is held, for one after another and for the draw's own first, as long as one of them is
    /// the draw's: each is locked as others lock it, in its turn, and let go at once.
    async fn watch(&self, pool: &Pool, draw: &Draw, deadline: Instant) -> Result<(), StoreError> {
        let mut held = self.held.all(Instant::now());
        held.sort_by_key(|scope| draw.lines.iter().all(|line| line.scope != *scope));
        for scope in held {
            if Instant::now() >= deadline || !self.held.any_of(draw, Instant::now()) {
                break;
            }
            let _link = self.links.acquire().await;
            match until_let_go(pool, &scope).await {
                Ok(()) => {
                    self.held.forget(&scope, Instant::now());
                    self.let_go.notify_waiters();
                }
                Err(Trouble::Again(_)) => self.held.remember(scope, Instant::now()),
                Err(trouble) => return Err(trouble.error()),
            }
        }
        Ok(())
    }
}

/// What became of draws in one transaction.
enum Settled {
    /// Somebody holds accounts of theirs, which are remembered.
    Held,
    Once(Result<Vec<Drawn>, Trouble>),
}

fn tell(together: Vec<Waiting>, settled: Settled) {
    let one_of_many = together.len() > 1;
    let tell_all = |told: fn() -> Told, all: Vec<Waiting>| all.into_iter().for_each(|one| drop(one.told.send(told())));
    match settled {
        Settled::Held => tell_all(|| Told::Held, together),
        Settled::Once(Ok(answers)) => {
            together.into_iter().zip(answers).for_each(|(one, answer)| drop(one.told.send(Told::Answer(Ok(answer)))));
        }
        Settled::Once(Err(Trouble::Again(_))) => tell_all(|| Told::Alone, together),
        Settled::Once(Err(Trouble::Refused(_))) if one_of_many => tell_all(|| Told::Alone, together),
        Settled::Once(Err(trouble)) => {
            let error = trouble.error();
            together.into_iter().for_each(|one| drop(one.told.send(Told::Answer(Err(copy(&error))))));
        }
    }
}

fn unknown() -> Told {
    let text = "whoever drew on budgets for several runs at once was stopped; draw again";
    Told::Answer(Err(StoreError::Unavailable(text.into())))
}

async fn settle_once(pool: &Pool, draws: &[Draw]) -> Result<Vec<Drawn>, Trouble> {
    let mut link = pool.lend().await.map_err(Trouble::Passing)?;
    run(&link, BEGIN).await.map_err(Trouble::Passing)?;
    // The connection ends with a transaction that fails.
    let answers = settle_within(&mut link, &pool.cipher, draws).await?;
    run(&link, "COMMIT").await.map_err(Trouble::Passing)?;
    link.put_back();
    Ok(answers)
}

fn key_of(scope: &Name) -> Result<String, StoreError> {
    indexed("the scope of a budget", scope)
}

/// The accounts of draws that somebody holds.
async fn look(pool: &Pool, draws: &[Draw]) -> Result<Vec<Name>, StoreError> {
    let scopes: BTreeSet<&Name> = draws.iter().flat_map(|draw| &draw.lines).map(|line| &line.scope).collect();
    let keys = scopes.into_iter().map(key_of).collect::<Result<Vec<_>, _>>()?;
    let rows = pool.rows(&LOOK, || vec![Box::new(ACCOUNT.to_owned()), Box::new(keys.clone())]).await?;
    rows.iter().map(|row| Ok(unshield(row.try_get(0).map_err(unread)?))).collect()
}

/// Waits for an account that somebody holds, and holds nothing else meanwhile.
async fn until_let_go(pool: &Pool, scope: &Name) -> Result<(), Trouble> {
    let key = key_of(scope).map_err(Trouble::Refused)?;
    let mut link = pool.lend().await.map_err(Trouble::Passing)?;
    run(&link, BEGIN).await.map_err(Trouble::Passing)?;
    let locked = lock(&mut link, &pool.cipher, vec![key]).await;
    run(&link, "ROLLBACK").await.map_err(Trouble::Passing)?;
    link.put_back();
    locked.map(|_| ())
}

/// Locks accounts in the order of their keys, after making those that are not there.
async fn lock(link: &mut Link, cipher: &Cipher, keys: Vec<String>) -> Result<Vec<Row>, Trouble> {
    let nothing = |key: &String| cipher.pack(Place::Object { kind: ACCOUNT, key }, b"{}");
    let nothing = keys.iter().map(nothing).collect::<Result<Vec<_>, _>>().map_err(Trouble::Refused)?;
    link.query(&LOCK, vec![Box::new(ACCOUNT.to_owned()), Box::new(keys), Box::new(nothing)]).await
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
        let key = key_of(&key).map_err(refused)?;
        if kind == ACCOUNT {
            accounts.push(key);
        } else {
            kinds.push(kind.to_owned());
            keys.push(key);
        }
    }
    for row in &lock(link, cipher, accounts).await? {
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
        let key = key_of(&write.key).map_err(refused)?;
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
