//! What the check of both stores asks of a journal.

use windlass_core::audit::Chain;

use crate::cipher::{Cipher, Place};

/// What has been seen of one journal.
#[derive(Default)]
pub(crate) struct Seen {
    version: i64,
    chain: Chain,
    broken: bool,
    gap: bool,
}

impl Seen {
    /// The next version of the journal; what is wrong with it, told once for each journal.
    pub(crate) fn version(&mut self, version: i64) -> Option<String> {
        let missing = self.version + 1;
        self.version = version;
        let is_first = version != missing && !self.gap;
        self.gap |= is_first;
        is_first.then(|| format!("version {missing} is missing"))
    }

    /// The audit rows of the version that was seen last; what is wrong with them. A chain that breaks is told once.
    pub(crate) fn audit(&mut self, cipher: &Cipher, id: &str, stored: &[u8]) -> Option<String> {
        let rows = match crate::trail::rows_of(cipher, Place::Audit { run: id, version: self.version }, stored) {
            Ok(rows) => rows,
            Err(error) => return Some(format!("audit rows of version {}: {error}", self.version)),
        };
        let mut wrong = None;
        for row in rows {
            let follows = row.number == self.chain.rows + 1 && row.previous == self.chain.head;
            if !follows && !self.broken {
                self.broken = true;
                wrong = Some(format!("audit row {} does not follow row {}", row.number, self.chain.rows));
            }
            self.chain = Chain { rows: row.number, head: row.hash() };
        }
        wrong
    }
}
