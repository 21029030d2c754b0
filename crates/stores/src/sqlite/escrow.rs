//! Draws on budgets: what is read, reckoned and written in the transaction of the writer.

use rusqlite::params;
use windlass_core::escrow::{Draw, Drawn};
use windlass_ports::store::escrow::{Sheet, wanted};

use super::tx::{Trouble, Tx};
use crate::pack::{pack, unpack};

impl Tx<'_> {
    pub(super) fn draw(&mut self, draw: &Draw) -> Result<Drawn, Trouble> {
        let mut sheet = Sheet::default();
        for (kind, key) in wanted(draw) {
            let sql = "SELECT bytes FROM objects WHERE kind = ?1 AND key = ?2";
            if let Some(packed) = self.row(sql, [kind, &*key], |row| row.get::<_, Vec<u8>>(0))? {
                sheet.add(kind, key, &unpack(&packed)?)?;
            }
        }
        let (answer, writes) = sheet.settle(draw)?;
        for write in writes {
            let (kind, key) = (write.kind, &*write.key);
            match write.bytes {
                Some(bytes) => {
                    let sql = "INSERT INTO objects (kind, key, revision, bytes) VALUES (?1, ?2, 1, ?3) \
                         ON CONFLICT (kind, key) DO UPDATE SET revision = revision + 1, bytes = excluded.bytes";
                    self.run(sql, params![kind, key, pack(&bytes)])?;
                }
                None => {
                    self.run("DELETE FROM objects WHERE kind = ?1 AND key = ?2", [kind, key])?;
                }
            }
        }
        Ok(answer)
    }

    /// Forgets what runs returned that are no longer there.
    pub(super) fn forget_returns(&mut self) -> Result<(), Trouble> {
        let sql = "DELETE FROM objects WHERE kind = ?1 AND NOT EXISTS (SELECT 1 FROM runs WHERE id = objects.key)";
        self.run(sql, [windlass_ports::store::escrow::RETURNED])?;
        Ok(())
    }
}
