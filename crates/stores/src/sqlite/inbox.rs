//! Inputs from those who do not hold a run: inboxes and signals.

use rusqlite::params;
use windlass_core::ids::{EffectId, Name, RunId};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::{Delivered, Signal, Signalled, StoreError};

use super::request::{Delivery, Opening, encode};
use super::tx::{FINAL, Told, Trouble, Tx, count, int};
use crate::cipher::Place;

impl Tx<'_> {
    pub(super) fn deliver(&mut self, delivery: &Delivery) -> Result<Delivered, Trouble> {
        let sql = "SELECT key, status, owner, ready, quarantine IS NOT NULL FROM runs WHERE id = ?1";
        let found = self.row(sql, [delivery.to.as_str()], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, Option<i64>>(2)?,
                row.get::<_, Option<i64>>(3)?,
                row.get::<_, bool>(4)?,
            ))
        })?;
        let Some((run, status, owner, ready, quarantined)) = found else { return Ok(Delivered::NotFound) };
        if status >= FINAL {
            return Ok(Delivered::Finished);
        }
        if !self.add_to_inbox(run, &delivery.id, &delivery.packed)? {
            return Ok(Delivered::Duplicate);
        }
        match owner {
            Some(owner) => {
                self.run("UPDATE runs SET pending = pending + 1 WHERE key = ?1", [run])?;
                self.told = Told { here: true, elsewhere: self.told.elsewhere || !self.is_own(owner) };
            }
            None if quarantined => {
                self.run("UPDATE runs SET pending = pending + 1 WHERE key = ?1", [run])?;
            }
            None => {
                let ready = match ready {
                    Some(ready) => ready,
                    None => self.next_ready(),
                };
                self.told = Told { here: true, elsewhere: true };
                let sql = "UPDATE runs SET pending = pending + 1, ready = ?2, wake_at = NULL WHERE key = ?1";
                self.run(sql, [run, ready])?;
            }
        }
        Ok(Delivered::Accepted)
    }

    /// Adds a row, unless there was one of this id. The run's count is for the caller to raise.
    pub(super) fn add_to_inbox(&mut self, run: i64, id: &Name, packed: &[u8]) -> Result<bool, Trouble> {
        let sql = "INSERT INTO inbox (run, id, input) VALUES (?1, ?2, ?3) ON CONFLICT (run, id) DO NOTHING";
        Ok(self.run(sql, params![run, &**id, packed])? == 1)
    }

    /// Opens a wait; a buffered signal goes to the run's inbox at once. Tells whether one did.
    pub(super) fn open_wait(&mut self, wait: &Opening, run: i64, name: &RunId) -> Result<bool, Trouble> {
        let signal = match wait.kind {
            None => self.buffered(&wait.channel, run)?,
            Some(_) => None,
        };
        let sql = "INSERT INTO waits (run, effect, channel, kind, due, answered) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (run, effect) DO UPDATE SET channel = excluded.channel, kind = excluded.kind, \
             due = excluded.due, answered = excluded.answered";
        let due = wait.due.map(|at| int(at.0));
        self.run(sql, params![run, int(wait.effect.0), &*wait.channel, wait.kind, due, signal.is_some()])?;
        match signal {
            None => Ok(false),
            Some(signal) => {
                let delivery = Delivery::prepare(signal.message(name, wait.effect), self.cipher)?;
                self.add_to_inbox(run, &delivery.id, &delivery.packed)
            }
        }
    }

    /// Takes the oldest buffered signal of a channel that names this run, or else the oldest that names none.
    fn buffered(&mut self, channel: &Name, run: i64) -> Result<Option<Signal>, Trouble> {
        let sql = "SELECT number, id, data FROM signals WHERE number = coalesce( \
             (SELECT min(number) FROM signals WHERE run = ?2 AND data IS NOT NULL AND channel = ?1), \
             (SELECT min(number) FROM signals INDEXED BY signals_unnamed \
             WHERE channel = ?1 AND data IS NOT NULL AND run IS NULL))";
        let found = self.row(sql, params![&**channel, run], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
        })?;
        let Some((number, id, packed)) = found else { return Ok(None) };
        self.run("UPDATE signals SET data = NULL WHERE number = ?1", [number])?;
        let data: Value = serde_json::from_slice(&self.cipher.unpack(Place::Signal { id: &id }, &packed)?)
            .map_err(|error| StoreError::Corrupt(format!("the data of signal `{id}` cannot be read: {error}")))?;
        Ok(Some(Signal { id: id.into(), channel: channel.clone(), run: None, data, at: Timestamp(0) }))
    }

    pub(super) fn signal(&mut self, signal: &Signal) -> Result<Signalled, Trouble> {
        if self.row("SELECT 1 FROM signals WHERE id = ?1", [&*signal.id], |_| Ok(()))?.is_some() {
            return Ok(Signalled::Duplicate);
        }
        let only = match &signal.run {
            None => None,
            Some(run) => {
                let sql = "SELECT key, status FROM runs WHERE id = ?1";
                match self.row(sql, [run.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))? {
                    None => return Ok(Signalled::NotFound),
                    Some((_, status)) if status >= FINAL => return Ok(Signalled::Finished),
                    Some((key, _)) => Some(key),
                }
            }
        };
        // One that names its run finds its waits by the run: many may wait on its channel.
        let sql = "SELECT waits.run, effect, runs.id FROM waits INDEXED BY waits_channel \
             JOIN runs ON runs.key = waits.run \
             WHERE ?2 IS NULL AND channel = ?1 AND answered = 0 \
             UNION ALL SELECT waits.run, effect, runs.id FROM waits NOT INDEXED JOIN runs ON runs.key = waits.run \
             WHERE waits.run = ?2 AND channel = ?1 AND answered = 0 ORDER BY waits.run, effect";
        let waiting = self.rows(sql, params![&*signal.channel, only], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, RunId::stored(row.get_ref(2)?.as_str()?)))
        })?;
        let data = match waiting.is_empty() {
            true => Some(self.cipher.pack(Place::Signal { id: &signal.id }, &encode(&signal.data)?)?),
            false => None,
        };
        let sql = "INSERT INTO signals (id, channel, run, sent_at, data) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.run(sql, params![&*signal.id, &*signal.channel, only, int(signal.at.0), data])?;
        if waiting.is_empty() {
            return Ok(Signalled::Buffered);
        }
        let mut runs: Vec<RunId> = Vec::new();
        for (run, effect, name) in waiting {
            self.run("UPDATE waits SET answered = 1 WHERE run = ?1 AND effect = ?2", [run, effect])?;
            self.deliver(&Delivery::prepare(signal.message(&name, EffectId(count(effect))), self.cipher)?)?;
            if runs.last() != Some(&name) {
                runs.push(name);
            }
        }
        Ok(Signalled::Delivered(runs))
    }

    pub(super) fn forget_signals(&mut self, before: Timestamp) -> Result<(), Trouble> {
        let sql = "DELETE FROM signals WHERE data IS NULL AND sent_at < ?1";
        self.run(sql, [int(before.0)])?;
        Ok(())
    }
}
