//! Draws on budgets: what is read, reckoned and written in the transaction of the writer.

use rusqlite::params;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::RunId;
use windlass_ports::store::escrow::{ALLOTMENT, RETURNED, forfeited};

use super::tx::{Trouble, Tx};
use crate::cipher::Place;

impl Tx<'_> {
    /// Answers a draw from what the transaction has read. What it changes is written with all others, by
    /// [`close_books`](Self::close_books).
    pub(super) fn draw(&mut self, draw: &Draw) -> Result<Drawn, Trouble> {
        for (kind, key) in self.sheet.unread([draw]) {
            let sql = "SELECT bytes FROM objects WHERE kind = ?1 AND key = ?2";
            if let Some(packed) = self.row(sql, [kind, &*key], |row| row.get::<_, Vec<u8>>(0))? {
                let bytes = self.cipher.unpack(Place::Object { kind, key: &key }, &packed)?;
                self.sheet.add(kind, key, &bytes)?;
            }
        }
        Ok(self.sheet.settle(draw))
    }

    /// Writes what draws changed, and reads anew from here on: before anything else looks at these objects, and at the end.
    pub(super) fn close_books(&mut self) -> Result<(), Trouble> {
        for write in std::mem::take(&mut self.sheet).writes()? {
            let (kind, key) = (write.kind, &*write.key);
            match write.bytes {
                Some(bytes) => {
                    let sql = "INSERT INTO objects (kind, key, revision, bytes) VALUES (?1, ?2, 1, ?3) \
                         ON CONFLICT (kind, key) DO UPDATE SET revision = revision + 1, bytes = excluded.bytes";
                    let packed = self.cipher.pack(Place::Object { kind, key }, &bytes)?;
                    self.run(sql, params![kind, key, packed])?;
                }
                None => {
                    self.run("DELETE FROM objects WHERE kind = ?1 AND key = ?2", [kind, key])?;
                }
            }
        }
        Ok(())
    }

    /// Closes the books of a run that is removed: what it still holds counts as used, and a run that gets its name draws
    /// anew.
    pub(super) fn forfeit(&mut self, run: i64) -> Result<(), Trouble> {
        let named = "SELECT objects.key, objects.bytes FROM objects JOIN runs ON runs.id = objects.key \
             WHERE runs.key = ?1 AND objects.kind = ?2";
        let found =
            self.row(named, params![run, ALLOTMENT], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        if let Some((id, packed)) = found {
            let bytes = self.cipher.unpack(Place::Object { kind: ALLOTMENT, key: &id }, &packed)?;
            self.draw(&forfeited(&RunId::stored(&id), &bytes)?)?;
            self.close_books()?;
        }
        let returned = "DELETE FROM objects WHERE kind = ?2 AND key = (SELECT id FROM runs WHERE key = ?1)";
        self.run(returned, params![run, RETURNED])?;
        Ok(())
    }
}
