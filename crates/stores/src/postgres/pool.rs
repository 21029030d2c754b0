//! A few connections that callers share: enough that a slow question delays no other, few enough for a large fleet.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use windlass_ports::store::StoreError;

use super::connect::{Connector, Link, Part, Purpose, Trouble};
use super::encryption::refresh;
use crate::cipher::Cipher;

/// How often something that failed for a reason that passes is tried again.
pub(super) const TRIES_MAX: u32 = 8;

/// Connections, made when they are needed.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Arc<Connector>,
    purpose: Purpose,
    idle: Mutex<Vec<Link>>,
    room: Arc<Semaphore>,
    size: usize,
    patience: Duration,
    /// How values are read and written.
    pub(super) cipher: Cipher,
}

/// A connection for one caller. It goes back when it is dropped between transactions.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    pool: &'a Pool,
    link: Option<Link>,
    _room: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(connector: &Arc<Connector>, purpose: Purpose, size: usize, cipher: &Cipher) -> Self {
        let patience = connector.address.settings.patience;
        Self {
            connector: Arc::clone(connector),
            purpose,
            idle: Mutex::default(),
            room: Arc::new(Semaphore::new(size)),
            size,
            patience,
            cipher: cipher.clone(),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`StoreError::Unavailable`] when all are in use for too long, or none can be made.
    pub(super) async fn lend(&self) -> Result<Lent<'_>, StoreError> {
        let room = tokio::time::timeout(self.patience, Arc::clone(&self.room).acquire_owned()).await;
        let Ok(Ok(room)) = room else {
            let (size, seconds) = (self.size, self.patience.as_secs_f64());
            let advice = match self.purpose {
                Purpose::Any => "; raise `readers` in its address",
                Purpose::Lane | Purpose::Queue => "",
            };
            return Err(StoreError::Unavailable(format!(
                "all {size} connections to the database were in use for {seconds} s{advice}"
            )));
        };
        let kept = {
            let mut idle = self.idle();
            idle.retain(|link| !link.is_lost());
            idle.pop()
        };
        let mut link = match kept {
            Some(link) => link,
            None => self.connector.link(self.purpose).await?,
        };
        refresh(&mut link, &self.cipher).await?;
        Ok(Lent { pool: self, link: Some(link), _room: room })
    }

    /// Statements in one go, tried again when that may help and does no harm.
    pub(super) async fn run(&self, parts: impl Fn() -> Vec<Part>) -> Result<Vec<Vec<tokio_postgres::Row>>, StoreError> {
        let mut tries = 0;
        loop {
            let mut link = self.lend().await?;
            match link.fly(parts()).await {
                Ok(rows) => {
                    link.put_back();
                    return Ok(rows);
                }
                Err(Trouble::Again(error)) => {
                    link.put_back();
                    tries += 1;
                    if tries >= TRIES_MAX {
                        return Err(error);
                    }
                    pause(tries).await;
                }
                Err(other) => return Err(other.error()),
            }
        }
    }

    /// One statement.
    pub(super) async fn rows(
        &self,
        sql: &'static super::connect::Sql,
        values: impl Fn() -> Vec<super::connect::Value>,
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let mut answers = self.run(|| vec![(sql, values())]).await?;
        Ok(answers.pop().unwrap_or_default())
    }
}

/// Waits before another try: longer each time, and never the same.
pub(super) async fn pause(tries: u32) {
    let most = 2_u64 << tries.min(8);
    let jitter = uuid::Uuid::now_v7().as_u128() as u64 % most;
    tokio::time::sleep(Duration::from_millis(1 + jitter)).await;
}

impl Lent<'_> {
    /// Gives the connection back: no transaction is open on it.
    pub(super) fn put_back(mut self) {
        if let Some(link) = self.link.take().filter(|link| !link.is_lost()) {
            self.pool.idle().push(link);
        }
    }
}

impl Deref for Lent<'_> {
    type Target = Link;

    fn deref(&self) -> &Link {
        self.link.as_ref().expect("a connection is lent until it is put back")
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Link {
        self.link.as_mut().expect("a connection is lent until it is put back")
    }
}
