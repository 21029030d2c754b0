//! What client and server of one connection are saying: which message makes the server commit, and which answer says
//! that it has. No I/O: the tasks that carry the bytes ask here what to do with each message.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::statement::{self, Does};
use super::wire::{Frame, text};

/// Bytes that are kept of the statements of one transaction.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// What a message of the client does once it reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing that lasts.
    Plain,
    /// It makes a transaction that wrote something durable.
    Commits,
}

/// What to do with a message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The client gets it.
    Pass(Bytes),
    /// It is kept back.
    Kept,
    /// The transaction whose answer is kept back is durable.
    Committed,
    /// It is not: the server refused it. The client gets all of this.
    Released(Vec<Bytes>),
}

/// The answer that is kept back.
#[derive(Debug)]
struct Kept {
    /// The exchange it belongs to.
    exchange: u64,
    failed: bool,
    frames: Vec<Bytes>,
}

#[derive(Clone, Debug, Default)]
struct Statement {
    does: Vec<Does>,
    text: String,
}

/// One connection, from the end of its opening.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    statements: BTreeMap<String, Statement>,
    /// Which statement a portal executes.
    portals: BTreeMap<String, String>,
    /// Exchanges asked for: each ends with an answer that the server is ready for the next.
    asked: u64,
    answered: u64,
    /// The server was ready once.
    is_open: bool,
    in_block: bool,
    wrote: bool,
    /// The statements of the open transaction.
    text: String,
    kept: Option<Kept>,
}

impl Conversation {
    /// Takes note of a message of the client, which is about to reach the server.
    pub(crate) fn said(&mut self, frame: &Frame) -> Said {
        let body = frame.body();
        match frame.tag {
            b'Q' => {
                let (sql, _) = text(body);
                let commits = self.executes(&Statement { does: statement::of(&sql), text: sql });
                let commits = self.ends_exchange() || commits;
                if commits { Said::Commits } else { Said::Plain }
            }
            b'P' => {
                let (name, rest) = text(body);
                let (sql, _) = text(rest);
                self.statements.insert(name, Statement { does: statement::of(&sql), text: sql });
                Said::Plain
            }
            b'B' => {
                let (portal, rest) = text(body);
                let (name, _) = text(rest);
                self.portals.insert(portal, name);
                Said::Plain
            }
            b'E' => {
                let (portal, _) = text(body);
                let name = self.portals.get(&portal).cloned().unwrap_or_default();
                let statement = self.statements.get(&name).cloned().unwrap_or_default();
                if self.executes(&statement) { Said::Commits } else { Said::Plain }
            }
            b'S' => {
                if self.ends_exchange() {
                    Said::Commits
                } else {
                    Said::Plain
                }
            }
            b'F' => {
                self.asked += 1;
                Said::Plain
            }
            _ => Said::Plain,
        }
    }

    /// Whether a statement commits a transaction that was begun.
    fn executes(&mut self, statement: &Statement) -> bool {
        if !self.in_block && !self.wrote {
            self.text.clear();
        }
        if self.text.len() < TEXT_BYTES_MAX {
            self.text.push_str(&statement.text);
            self.text.push('\n');
        }
        let mut commits = false;
        for does in &statement.does {
            match does {
                Does::Begin => self.in_block = true,
                Does::Write => self.wrote = true,
                Does::Commit => {
                    commits |= self.in_block && self.wrote;
                    (self.in_block, self.wrote) = (false, false);
                }
                Does::RollBack => (self.in_block, self.wrote) = (false, false),
                Does::Other => {}
            }
        }
        commits
    }

    /// Whether the end of an exchange commits what was written outside of a transaction block.
    fn ends_exchange(&mut self) -> bool {
        self.asked += 1;
        !self.in_block && std::mem::take(&mut self.wrote)
    }

    /// The statements of the transaction that was committed last, or is open.
    pub(crate) fn transaction(&self) -> &str {
        &self.text
    }

    /// Keeps the answer to the message that commits back. `said` is the tag of that message.
    pub(crate) fn keep(&mut self, said: u8) {
        // A message that is executed belongs to the exchange that is still open.
        let exchange = if said == b'E' { self.asked } else { self.asked.saturating_sub(1) };
        self.kept = Some(Kept { exchange, failed: false, frames: Vec::new() });
    }

    /// Whether the client has said all that belongs to the answer that is kept back.
    pub(crate) fn is_waiting(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| self.asked > kept.exchange)
    }

    /// Takes note of a message of the server.
    pub(crate) fn heard(&mut self, frame: &Frame) -> Heard {
        let is_ready = frame.tag == b'Z';
        let is_kept = self.kept.as_ref().is_some_and(|kept| self.answered >= kept.exchange) && self.is_open;
        if is_ready {
            self.ready(frame.body().first().copied());
        }
        let Some(kept) = self.kept.as_mut().filter(|_| is_kept) else { return Heard::Pass(frame.bytes.clone()) };
        kept.frames.push(frame.bytes.clone());
        kept.failed |= frame.tag == b'E' || (frame.tag == b'C' && frame.body().starts_with(b"ROLLBACK"));
        if !is_ready {
            return Heard::Kept;
        }
        match self.kept.take() {
            Some(kept) if kept.failed => Heard::Released(kept.frames),
            _ => Heard::Committed,
        }
    }

    fn ready(&mut self, status: Option<u8>) {
        if !self.is_open {
            self.is_open = true;
            return;
        }
        self.answered += 1;
        // What the server says counts, when nothing is on its way that it has not heard yet.
        if self.answered == self.asked {
            self.in_block = status != Some(b'I');
            self.wrote &= self.in_block;
        }
    }
}

#[cfg(test)]
mod tests;
