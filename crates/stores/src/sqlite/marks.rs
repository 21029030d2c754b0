//! Notes that calls are about to leave this process: slots in the worker's own file, written without a sync.
//!
//! What was written survives the death of the process, because the operating system has it. It does not survive the
//! end of the system, so the file names the boot it was written in, and notes of another boot say nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use windlass_core::ids::{EffectId, RunId};

const MAGIC: &[u8; 16] = b"windlass-marks-1";
/// Magic and boot.
const HEADER_BYTES: u64 = 64;
const BOOT_BYTES: usize = 48;
const SLOT_BYTES: usize = 16;

/// Stands for one attempt at one call.
pub(crate) type Mark = [u8; SLOT_BYTES];

/// The mark of an attempt. Two attempts with one mark would only be taken for sent when they were not.
pub(crate) fn mark(run: &RunId, effect: EffectId, attempt: u32) -> Mark {
    let hash = blake3::hash(format!("{}#{attempt}", effect.key(run)).as_bytes());
    let mut mark = [0; SLOT_BYTES];
    mark.copy_from_slice(&hash.as_bytes()[..SLOT_BYTES]);
    mark
}

/// Names the present boot of the system; none where that cannot be told.
fn boot() -> Option<[u8; BOOT_BYTES]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let text = text.trim().as_bytes();
    let mut boot = [0; BOOT_BYTES];
    boot.get_mut(..text.len())?.copy_from_slice(text);
    (!text.is_empty()).then_some(boot)
}

/// The slots of one file.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    used: HashMap<Mark, u64>,
    free: Vec<u64>,
    slots: u64,
}

impl Marks {
    /// Writes the header of a new file.
    pub(crate) fn begin(file: &File) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES as usize];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[MAGIC.len()..].copy_from_slice(&boot().unwrap_or([0; BOOT_BYTES]));
        file.write_all_at(&header, 0)?;
        Ok(Self::default())
    }

    /// Writes a mark into a free slot, or a new one.
    pub(crate) fn set(&mut self, file: &File, mark: Mark) -> io::Result<()> {
        if self.used.contains_key(&mark) {
            return Ok(());
        }
        let slot = self.free.pop().unwrap_or(self.slots);
        if let Err(error) = file.write_all_at(&mark, HEADER_BYTES + slot * SLOT_BYTES as u64) {
            if slot < self.slots {
                self.free.push(slot);
            }
            return Err(error);
        }
        self.slots = self.slots.max(slot + 1);
        self.used.insert(mark, slot);
        Ok(())
    }

    /// Frees the slot of a mark. It stays written until the slot is used again: nobody asks for a settled call.
    pub(crate) fn clear(&mut self, mark: &Mark) {
        self.free.extend(self.used.remove(mark));
    }
}

/// Whether the file was begun on this host, since its system started.
pub(crate) fn is_of_this_boot(file: &File) -> bool {
    let mut header = [0; HEADER_BYTES as usize];
    let is_read = file.read_exact_at(&mut header, 0).is_ok();
    is_read && header.starts_with(MAGIC) && boot().is_some_and(|boot| header.ends_with(&boot))
}

/// Whether the file certainly does not have this mark: written in this boot, whole, and without it.
pub(crate) fn is_absent(file: &File, mark: &Mark) -> bool {
    let Some(boot) = boot() else { return false };
    let Ok(length) = file.metadata().map(|meta| meta.len()) else { return false };
    let Ok(length) = usize::try_from(length) else { return false };
    let mut bytes = vec![0; length];
    if length < HEADER_BYTES as usize || file.read_exact_at(&mut bytes, 0).is_err() {
        return false;
    }
    let (header, slots) = bytes.split_at(HEADER_BYTES as usize);
    header.starts_with(MAGIC)
        && header.ends_with(&boot)
        && slots.len() % SLOT_BYTES == 0
        && slots.chunks_exact(SLOT_BYTES).all(|slot| slot != mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_and_what_cannot_be_read_is_not_absent() {
        let file = tempfile::tempfile().unwrap();
        let mut marks = Marks::begin(&file).unwrap();
        let run = RunId::stored("r");
        for effect in 0..1_000 {
            let mark = mark(&run, EffectId(effect), 1);
            marks.set(&file, mark).unwrap();
            assert!(!is_absent(&file, &mark));
            marks.clear(&mark);
        }
        assert_eq!(file.metadata().unwrap().len(), HEADER_BYTES + SLOT_BYTES as u64);
        let other = mark(&run, EffectId(7_000), 1);
        assert!(is_absent(&file, &other));
        file.write_all_at(b"another boot", MAGIC.len() as u64).unwrap();
        assert!(!is_absent(&file, &other), "of another boot nothing is known");
    }
}
