//! The port's part of budgets: as which objects they are kept, and what a store does with them in one transaction.
//!
//! A budget is an object that people change; accounts and allotments are objects that only [`Store::draw`] changes. How
//! they are reckoned is in [`windlass_core::escrow::books`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_core::escrow::books::{Account, Allotted, Books, settle};
use windlass_core::escrow::{BUDGETS_MAX, Budget, Draw, Drawn, Known};
use windlass_core::ids::{Name, RunId};
use windlass_core::time::Timestamp;

use super::{Object, Put, Store, StoreError};

/// Kind of the objects that say what a budget allows: scope to [`Budget`].
pub const BUDGET: &str = "budget";
/// Kind of the objects that say what was taken from a budget: scope to [`Account`]. Those of budgets that were removed
/// stay.
pub const ACCOUNT: &str = "account";
/// Kind of the objects that say what a run holds of budgets: run to [`Allotted`].
pub const ALLOTMENT: &str = "allotment";
/// The same of runs that hold nothing. They stay as long as their runs, so that no draw counts twice.
pub const RETURNED: &str = "allotment_returned";

/// Objects read at a time.
const PAGE: usize = 500;

/// What the draws of one transaction look at and change. Each object is read once, and written once at the end.
#[derive(Debug, Default)]
pub struct Sheet {
    /// What was asked for.
    read: BTreeSet<(&'static str, Name)>,
    books: Books,
    /// What the runs have that drew.
    allotted: BTreeMap<RunId, Allotted>,
    /// Scopes of accounts and runs that changed.
    changed: BTreeSet<Changed>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Changed {
    Account(Name),
    Allotted(RunId),
}

/// A change that draws make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The kind of the object.
    pub kind: &'static str,
    /// Its key.
    pub key: Name,
    /// The new bytes; none removes it, if it is there.
    pub bytes: Option<Vec<u8>>,
}

impl Sheet {
    /// The objects that a store reads before these draws, kind and key, accounts first and in one order for all: whoever
    /// locks them in this order waits for nobody that waits for it. What was read before is not named again.
    #[must_use]
    pub fn unread<'a>(&mut self, draws: impl IntoIterator<Item = &'a Draw>) -> BTreeSet<(&'static str, Name)> {
        let mut wanted = BTreeSet::new();
        for draw in draws {
            let run: Name = draw.run.as_str().into();
            let scopes =
                draw.lines.iter().flat_map(|line| [(ACCOUNT, line.scope.clone()), (BUDGET, line.scope.clone())]);
            wanted.extend(scopes.chain([(ALLOTMENT, run.clone()), (RETURNED, run)]));
        }
        wanted.retain(|object| self.read.insert(object.clone()));
        wanted
    }

    /// Adds an object that was [`unread`](Self::unread) and is there.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for bytes that are not what the kind says.
    pub fn add(&mut self, kind: &str, key: Name, bytes: &[u8]) -> Result<(), StoreError> {
        match kind {
            BUDGET => {
                self.books.budgets.insert(key.clone(), read(kind, &key, bytes)?);
            }
            ACCOUNT => {
                self.books.accounts.insert(key.clone(), read(kind, &key, bytes)?);
            }
            _ => {
                self.allotted.insert(RunId::stored(&key), read(kind, &key, bytes)?);
            }
        }
        Ok(())
    }

    /// Answers a draw whose objects were added.
    pub fn settle(&mut self, draw: &Draw) -> Drawn {
        let before = self.allotted.remove(&draw.run);
        self.books.allotted.clone_from(&before);
        let accounts = |books: &Books| draw.lines.iter().map(|line| books.accounts.get(&line.scope).cloned()).collect();
        let accounts_before: Vec<Option<Account>> = accounts(&self.books);
        let answer = settle(&mut self.books, draw);
        let accounts_after: Vec<Option<Account>> = accounts(&self.books);
        for (line, (before, after)) in draw.lines.iter().zip(accounts_before.iter().zip(&accounts_after)) {
            if before != after {
                self.changed.insert(Changed::Account(line.scope.clone()));
            }
        }
        let after = self.books.allotted.take();
        if after != before {
            self.changed.insert(Changed::Allotted(draw.run.clone()));
        }
        self.allotted.extend(after.map(|after| (draw.run.clone(), after)));
        answer
    }

    /// What is to be written with the answers, accounts in the order of their names first. Says each change once.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when something cannot be written down.
    pub fn writes(&mut self) -> Result<Vec<Write>, StoreError> {
        let mut writes = Vec::new();
        for changed in std::mem::take(&mut self.changed) {
            match changed {
                Changed::Account(scope) => {
                    let bytes = self.books.accounts.get(&scope).map(written).transpose()?;
                    writes.push(Write { kind: ACCOUNT, key: scope, bytes });
                }
                Changed::Allotted(run) => {
                    let Some(allotted) = self.allotted.get(&run) else { continue };
                    let key: Name = run.as_str().into();
                    let (kind, other) = if allotted.holds() { (ALLOTMENT, RETURNED) } else { (RETURNED, ALLOTMENT) };
                    writes.push(Write { kind, key: key.clone(), bytes: Some(written(allotted)?) });
                    writes.push(Write { kind: other, key, bytes: None });
                }
            }
        }
        Ok(writes)
    }
}

/// The return of a run that is removed, from what it has as an object of [`ALLOTMENT`].
///
/// # Errors
/// [`StoreError::Corrupt`] for bytes that are no allotment.
pub fn forfeited(run: &RunId, bytes: &[u8]) -> Result<Draw, StoreError> {
    let allotted: Allotted = read(ALLOTMENT, run.as_str(), bytes)?;
    // In the period that the account is in: a removal begins none.
    Ok(allotted.forfeit(run, Timestamp(0)))
}

fn read<T: DeserializeOwned>(kind: &str, key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Corrupt(format!("{kind} `{key}` cannot be read: {error}")))
}

fn written<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Invalid(format!("a value cannot be written: {error}")))
}

/// A budget with its version and its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRow {
    /// Its scope.
    pub scope: Name,
    /// Its version, and what it says.
    pub known: Known,
    /// What was taken from it in the present period.
    pub account: Account,
}

/// Every budget, in the order of their scopes.
///
/// # Errors
/// A store that fails.
pub async fn budgets(store: &dyn Store, now: Timestamp) -> Result<Vec<BudgetRow>, StoreError> {
    let objects = all(store, BUDGET).await?;
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let accounts = all(store, ACCOUNT).await?;
    let row = |object: Object| {
        let budget: Budget = read(BUDGET, &object.key, &object.bytes)?;
        let account = accounts.binary_search_by(|account| account.key.cmp(&object.key)).ok();
        let account = account.and_then(|place| accounts.get(place));
        let account = account.map(|account| read(ACCOUNT, &account.key, &account.bytes)).transpose()?;
        Ok(row(object.key, budget, object.revision, account.unwrap_or_default(), now))
    };
    objects.into_iter().map(row).collect()
}

/// One budget.
///
/// # Errors
/// A store that fails.
pub async fn budget(store: &dyn Store, scope: &Name, now: Timestamp) -> Result<Option<BudgetRow>, StoreError> {
    let Some(object) = store.object(BUDGET.into(), scope.clone()).await? else { return Ok(None) };
    let budget: Budget = read(BUDGET, scope, &object.bytes)?;
    let account = store.object(ACCOUNT.into(), scope.clone()).await?;
    let account = account.map(|account| read(ACCOUNT, scope, &account.bytes)).transpose()?;
    Ok(Some(row(scope.clone(), budget, object.revision, account.unwrap_or_default(), now)))
}

fn row(scope: Name, budget: Budget, revision: u64, account: Account, now: Timestamp) -> BudgetRow {
    let account = account.at(&budget, now);
    let is_near = account.is_near(&budget);
    BudgetRow { scope, known: Known { budget, revision, is_near }, account }
}

/// Makes or replaces a budget whose version is `expected`, 0 for none, or removes it. False when it has another one.
///
/// # Errors
/// [`StoreError::Invalid`] for something that is no budget, or one too many. A store that fails.
pub async fn put_budget(
    store: &dyn Store,
    scope: &Name,
    expected: u64,
    budget: Option<&Budget>,
) -> Result<bool, StoreError> {
    if let Some(budget) = budget {
        budget.check(scope).map_err(|error| StoreError::Invalid(error.to_string()))?;
        if expected == 0 && all(store, BUDGET).await?.len() >= BUDGETS_MAX {
            return Err(StoreError::Invalid(format!("there are {BUDGETS_MAX} budgets already, the most there can be")));
        }
    }
    let bytes = budget.map(written).transpose()?;
    store.put_object(Put { kind: BUDGET.into(), key: scope.clone(), expected, bytes }).await
}

/// What runs hold of budgets.
///
/// # Errors
/// A store that fails.
pub async fn allotments(store: &dyn Store) -> Result<Vec<(RunId, Allotted)>, StoreError> {
    let row = |object: Object| Ok((RunId::stored(&object.key), read(ALLOTMENT, &object.key, &object.bytes)?));
    all(store, ALLOTMENT).await?.into_iter().map(row).collect()
}

/// What one run told and holds, as the store knows it; none when it never drew.
///
/// # Errors
/// A store that fails.
pub async fn allotted(store: &dyn Store, run: &RunId) -> Result<Option<Allotted>, StoreError> {
    let key: Name = run.as_str().into();
    for kind in [ALLOTMENT, RETURNED] {
        if let Some(object) = store.object(kind.into(), key.clone()).await? {
            return read(kind, &key, &object.bytes).map(Some);
        }
    }
    Ok(None)
}

/// Every account, of budgets that were removed too, by scope.
///
/// # Errors
/// A store that fails.
pub async fn accounts(store: &dyn Store) -> Result<Vec<(Name, Account)>, StoreError> {
    let row = |object: Object| {
        let account = read(ACCOUNT, &object.key, &object.bytes)?;
        Ok((object.key, account))
    };
    all(store, ACCOUNT).await?.into_iter().map(row).collect()
}

async fn all(store: &dyn Store, kind: &str) -> Result<Vec<Object>, StoreError> {
    let mut found: Vec<Object> = Vec::new();
    loop {
        let after = found.last().map(|object| object.key.clone());
        let page = store.objects(kind.into(), after, PAGE).await?;
        let is_last = page.len() < PAGE;
        found.extend(page);
        if is_last {
            return Ok(found);
        }
    }
}
