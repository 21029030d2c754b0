//! What workers of this host know of each other without asking the database: each holds a lock on a file of its own,
//! which dies with its process, and notes in it which calls are about to leave.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use windlass_core::ids::{EffectId, RunId};
use windlass_core::input::Sent;
use windlass_ports::store::{StoreError, WorkerId};

use crate::sqlite::marks::{self, Marks};

/// How long the file of a dead worker is kept for those who took over its runs and are about to ask.
const KEPT: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug)]
struct Mine {
    id: WorkerId,
    file: File,
    marks: Marks,
}

/// The workers of one database on this host.
#[derive(Debug)]
pub(super) struct Local {
    dir: PathBuf,
    mine: Mutex<Vec<Mine>>,
    /// Dead workers that the database knows of as such.
    settled: Mutex<HashSet<WorkerId>>,
}

fn unavailable(what: &str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("cannot {what} `{}`: {error}", path.display()))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Local {
    /// The workers of the database of this id, in a folder below `base`, or below the folder for temporary files: notes
    /// need not outlive the system, and those of another boot say nothing.
    pub(super) fn open(base: Option<&Path>, database: &str) -> Result<Self, StoreError> {
        let own = fs::metadata("/proc/self").map(|meta| meta.uid()).ok();
        let user = own.map_or_else(String::new, |uid| format!("-{uid}"));
        let of_user = || std::env::temp_dir().join(format!("windlass-workers{user}"));
        let base = base.map_or_else(of_user, Path::to_path_buf);
        let dir = base.join(database);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|error| unavailable("make the folder", &dir, &error))?;
        let meta = fs::metadata(&dir).map_err(|error| unavailable("read the folder", &dir, &error))?;
        if own.is_some_and(|own| own != meta.uid()) || meta.mode() & 0o022 != 0 {
            // Whoever else can write there could make a sent call look unsent.
            let path = dir.display();
            return Err(StoreError::Unavailable(format!(
                "others can write to `{path}`, where sent calls are noted; name another folder with `marks` in the address"
            )));
        }
        let local = Self { dir, mine: Mutex::default(), settled: Mutex::default() };
        local.remove_old();
        Ok(local)
    }

    /// Of a handle that has no workers and knows nothing of others on this host.
    pub(super) fn absent() -> Self {
        Self { dir: PathBuf::new(), mine: Mutex::default(), settled: Mutex::default() }
    }

    /// Makes and locks the file of a new worker before anyone can see it.
    pub(super) fn join(&self, id: &WorkerId) -> Result<(), StoreError> {
        let (hidden, path) = (self.dir.join(format!(".{id}")), self.dir.join(&*id.0));
        let open = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&hidden);
        let file = open.map_err(|error| unavailable("make", &hidden, &error))?;
        file.lock().map_err(|error| unavailable("lock", &hidden, &error))?;
        let marks = Marks::begin(&file).map_err(|error| unavailable("write", &hidden, &error))?;
        fs::rename(&hidden, &path).map_err(|error| unavailable("make", &path, &error))?;
        locked(&self.mine).push(Mine { id: id.clone(), file, marks });
        Ok(())
    }

    /// A worker of this handle is one no more. Its file stays, for those who ask what it has sent.
    pub(super) fn leave(&self, id: &WorkerId) {
        locked(&self.mine).retain(|mine| mine.id != *id);
    }

    pub(super) fn is_mine(&self, worker: &WorkerId) -> bool {
        locked(&self.mine).iter().any(|mine| mine.id == *worker)
    }

    fn opened(&self, worker: &WorkerId) -> Option<File> {
        // A name with a path in it is no worker of ours.
        let is_name = !worker.0.is_empty() && !worker.0.contains(['/', '.']);
        is_name.then(|| File::open(self.dir.join(&*worker.0)).ok()).flatten()
    }

    /// Workers of this host whose processes are gone for certain, and that the database may not know to be.
    pub(super) fn dead(&self) -> Vec<WorkerId> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let workers = names.filter(|name| name.starts_with("w-")).map(|name| WorkerId(name.into()));
        let new: Vec<_> = {
            let settled = locked(&self.settled);
            workers.filter(|worker| !settled.contains(worker)).collect()
        };
        new.into_iter()
            .filter(|worker| !self.is_mine(worker))
            .filter(|worker| {
                let gone = |file: File| marks::is_of_this_boot(&file) && file.try_lock_shared().is_ok();
                self.opened(worker).is_some_and(gone)
            })
            .collect()
    }

    /// The database knows that these are dead.
    pub(super) fn settle(&self, workers: impl IntoIterator<Item = WorkerId>) {
        locked(&self.settled).extend(workers);
    }

    fn remove_old(&self) {
        for worker in self.dead() {
            let path = self.dir.join(&*worker.0);
            let age = fs::metadata(&path).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > KEPT) {
                // What cannot be removed now is removed another time.
                let _later = fs::remove_file(path);
            }
        }
    }

    /// Notes that a call is about to leave.
    pub(super) fn mark_sent(&self, run: &RunId, effect: EffectId, attempt: u32) -> Result<(), StoreError> {
        let mark = marks::mark(run, effect, attempt);
        let mut mine = locked(&self.mine);
        if mine.is_empty() {
            return Err(StoreError::Invalid("this process has not joined the store".into()));
        }
        for worker in mine.iter_mut() {
            let set = worker.marks.set(&worker.file, mark);
            set.map_err(|error| unavailable("write", &self.dir.join(&*worker.id.0), &error))?;
        }
        Ok(())
    }

    /// Frees the note of a settled call.
    pub(super) fn clear_sent(&self, run: &RunId, effect: EffectId, attempt: u32) {
        let mark = marks::mark(run, effect, attempt);
        for worker in locked(&self.mine).iter_mut() {
            worker.marks.clear(&mark);
        }
    }

    /// Whether a call may have left a worker. Certain only of a dead one of this host and this boot.
    pub(super) fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent {
        let absent = || {
            let file = self.opened(worker)?;
            file.try_lock_shared().ok()?;
            marks::is_absent(&file, &marks::mark(run, effect, attempt)).then_some(())
        };
        if !self.is_mine(worker) && absent().is_some() { Sent::No } else { Sent::Maybe }
    }
}
