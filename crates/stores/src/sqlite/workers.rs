//! Who lives: each worker holds a lock on its own file beside the database, which dies with its process.
//!
//! The same directory has the sockets by which processes tell each other that there is something to do.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use windlass_core::ids::{EffectId, RunId};
use windlass_core::input::Sent;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Load, Registration, StoreError, WorkerId, WorkerRow};

use super::marks::{self, Marks};
use super::request::encode;

/// How long the file of a dead worker is kept for those who took over its runs and are about to ask.
const KEPT: Duration = Duration::from_secs(3_600);
/// Longest path that a socket address takes on every system.
const SOCKET_PATH_BYTES_MAX: usize = 100;
/// A directory that changed this recently may change again without a new time.
const SETTLED: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Mine {
    id: WorkerId,
    file: File,
    marks: Marks,
    /// Its card, which says what it is and does.
    card: File,
    /// Where the load begins on the card.
    load_at: u64,
    /// Ends the thread that waits for hints; none where there is no such thread.
    closed: Option<Arc<AtomicBool>>,
}

/// What the files of a worker say about it.
#[derive(Debug)]
pub(super) struct Card {
    pub(super) registration: Registration,
    pub(super) load: Load,
    pub(super) seen_at: Timestamp,
}

/// The load as it is on a card: always as long, so that it is overwritten in place.
fn load_line(load: Load) -> String {
    format!("{:>10} {:>10} {}\n", load.held, load.calls, u8::from(load.draining))
}

fn read_load(line: &str) -> Option<Load> {
    let mut words = line.split_ascii_whitespace();
    let (held, calls) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Load { held, calls, draining: words.next()? == "1" })
}

#[derive(Debug, Default)]
struct Peers {
    changed_at: Option<SystemTime>,
    sockets: Vec<String>,
}

/// The workers of one database, as one handle sees them.
#[derive(Debug)]
pub(super) struct Workers {
    dir: PathBuf,
    mine: Mutex<Vec<Mine>>,
    peers: Mutex<Peers>,
    sender: Option<UnixDatagram>,
    hint: Arc<Notify>,
}

fn unavailable(what: &str, path: &Path, error: &io::Error) -> StoreError {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return StoreError::disk_full(format_args!("`{}`", path.display()), error);
    }
    StoreError::Unavailable(format!("cannot {what} `{}`: {error}", path.display()))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workers {
    /// The workers of the database at `path`.
    pub(super) fn beside(path: &Path, hint: Arc<Notify>) -> Self {
        let mut dir = path.as_os_str().to_owned();
        dir.push(".workers");
        let sender = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket)).ok();
        Self { dir: dir.into(), mine: Mutex::default(), peers: Mutex::default(), sender, hint }
    }

    /// Makes the directory, for this user only.
    pub(super) fn make_dir(&self) -> Result<(), StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|error| unavailable("make the directory", &self.dir, &error))
    }

    /// Waits for the right to open the database, which ends when the file is dropped.
    pub(super) fn opening_lock(&self) -> Result<File, StoreError> {
        self.make_dir()?;
        let path = self.dir.join("open.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|error| unavailable("open", &path, &error))?;
        file.lock().map_err(|error| unavailable("lock", &path, &error))?;
        Ok(file)
    }

    /// Waits until nobody opens the database or replaces it, while the file is held. None when that cannot be known.
    pub(super) fn closing_lock(&self) -> Option<File> {
        let file = File::open(self.dir.join("open.lock")).ok()?;
        file.lock_shared().ok()?;
        Some(file)
    }

    /// Becomes a worker: makes its file and locks it before anyone can see it.
    pub(super) fn join(&self, registration: &Registration) -> Result<WorkerId, StoreError> {
        self.make_dir()?;
        let id = WorkerId(format!("w-{}", uuid::Uuid::now_v7().simple()).into());
        let (hidden, path) = (self.dir.join(format!(".{id}")), self.dir.join(&*id.0));
        let open = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&hidden);
        let file = open.map_err(|error| unavailable("make", &hidden, &error))?;
        file.lock().map_err(|error| unavailable("lock", &hidden, &error))?;
        let marks = Marks::begin(&file).map_err(|error| unavailable("write", &hidden, &error))?;
        let card_path = self.dir.join(format!("{id}.card"));
        let (card, load_at) = write_card(&card_path, registration)?;
        let closed = self.listen(&id);
        fs::rename(&hidden, &path).map_err(|error| unavailable("make", &path, &error))?;
        locked(&self.mine).push(Mine { id: id.clone(), file, marks, card, load_at, closed });
        // Whoever thought that it was alone looks for lost workers from now on.
        self.tell(true);
        Ok(id)
    }

    /// Waits for hints on a thread that sleeps in the kernel. Without a socket or a thread there are no hints, and
    /// nothing fails.
    fn listen(&self, id: &WorkerId) -> Option<Arc<AtomicBool>> {
        let closed = Arc::new(AtomicBool::new(false));
        let socket = self.address(&format!("{id}.sock")).and_then(|path| UnixDatagram::bind(path).ok())?;
        let (hint, ended) = (Arc::clone(&self.hint), Arc::clone(&closed));
        let listener = move || {
            let mut byte = [0];
            while socket.recv(&mut byte).is_ok() && !ended.load(Ordering::Acquire) {
                tell(&hint);
            }
        };
        std::thread::Builder::new().name("windlass-hints".into()).spawn(listener).ok().map(|_| closed)
    }

    /// Notes what a worker of this handle does. False when it is none.
    pub(super) fn beat(&self, worker: &WorkerId, load: Load) -> bool {
        let mine = locked(&self.mine);
        let Some(mine) = mine.iter().find(|mine| mine.id == *worker) else { return false };
        if let Err(error) = mine.card.write_all_at(load_line(load).as_bytes(), mine.load_at) {
            tracing::debug!(%error, "the card of a worker is not up to date");
        }
        true
    }

    /// A worker of this handle ends: others see it dead from now on. False when it is none.
    pub(super) fn leave(&self, worker: &WorkerId) -> bool {
        let left = {
            let mut mine = locked(&self.mine);
            mine.iter().position(|mine| mine.id == *worker).map(|place| mine.remove(place))
        };
        left.map(|mine| self.close(&mine)).is_some()
    }

    /// Every worker of this handle ends.
    pub(super) fn leave_all(&self) {
        let all = std::mem::take(&mut *locked(&self.mine));
        for mine in &all {
            self.close(mine);
        }
    }

    /// Ends the thread of a worker and removes its socket. Its file stays, for those who take over its runs.
    fn close(&self, mine: &Mine) {
        if let Some(closed) = &mine.closed {
            closed.store(true, Ordering::Release);
        }
        let name = format!("{}.sock", mine.id);
        if let (Some(sender), Some(path)) = (&self.sender, self.address(&name)) {
            // Wakes the listener, which then ends; a full socket wakes it as well.
            let _wake = sender.send_to(&[0], path);
        }
        let _later = fs::remove_file(self.dir.join(name));
    }

    /// What a worker says about itself; none when it says nothing that can be read.
    pub(super) fn card(&self, worker: &WorkerId) -> Option<Card> {
        self.opened(worker).ok()?;
        let mut file = File::open(self.dir.join(format!("{worker}.card"))).ok()?;
        let changed = file.metadata().and_then(|meta| meta.modified()).ok()?;
        let seen_at = changed.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        let (registration, load) = text.split_once('\n')?;
        Some(Card {
            registration: serde_json::from_str(registration).ok()?,
            load: read_load(load).unwrap_or_default(),
            seen_at: Timestamp(seen_at),
        })
    }

    /// A worker, as its files show it.
    pub(super) fn row(&self, id: WorkerId, runs: u64) -> WorkerRow {
        let is_alive = !self.is_dead(&id);
        let (registration, load, seen_at) =
            self.card(&id).map(|card| (card.registration, card.load, card.seen_at)).unwrap_or_default();
        WorkerRow { id, registration, load, seen_at, is_alive, runs }
    }

    /// A path of a socket that is short enough: through an open directory when it is not.
    fn address(&self, name: &str) -> Option<PathBuf> {
        let path = self.dir.join(name);
        if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return Some(path);
        }
        static DIRS: Mutex<Vec<(PathBuf, File)>> = Mutex::new(Vec::new());
        let mut dirs = locked(&DIRS);
        if !dirs.iter().any(|(dir, _)| *dir == self.dir) {
            dirs.push((self.dir.clone(), File::open(&self.dir).ok()?));
        }
        let (_, open) = dirs.iter().find(|(dir, _)| *dir == self.dir)?;
        Some(PathBuf::from(format!("/proc/self/fd/{}/{name}", open.as_raw_fd())))
    }

    /// Whether this is a worker of this handle.
    pub(super) fn is_mine(&self, worker: &WorkerId) -> bool {
        locked(&self.mine).iter().any(|mine| mine.id == *worker)
    }

    fn opened(&self, worker: &WorkerId) -> io::Result<File> {
        // A name with a path in it is no worker of ours.
        if worker.0.is_empty() || worker.0.contains(['/', '.']) {
            return Err(io::ErrorKind::NotFound.into());
        }
        File::open(self.dir.join(&*worker.0))
    }

    /// Whether the process of a worker is gone. A worker without a file is.
    pub(super) fn is_dead(&self, worker: &WorkerId) -> bool {
        if self.is_mine(worker) {
            return false;
        }
        match self.opened(worker) {
            Ok(file) => file.try_lock_shared().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Ids of all workers that have a file.
    pub(super) fn all(&self) -> Vec<WorkerId> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with("w-") && !name.contains('.')).map(|name| WorkerId(name.into())).collect()
    }

    /// Whether every living worker is one of this handle, and one that joins will be heard of.
    pub(super) fn are_alone(&self) -> bool {
        let hears = locked(&self.mine).iter().all(|mine| mine.closed.is_some());
        hears && self.all().iter().all(|worker| self.is_mine(worker) || self.is_dead(worker))
    }

    /// How many live.
    pub(super) fn alive(&self) -> u64 {
        self.all().iter().filter(|worker| !self.is_dead(worker)).count() as u64
    }

    /// Workers that have been dead for long: their files can go when no run refers to them.
    pub(super) fn long_dead(&self) -> Vec<WorkerId> {
        let old = |worker: &WorkerId| {
            let changed = fs::metadata(self.dir.join(&*worker.0)).and_then(|meta| meta.modified());
            changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT))
        };
        self.all().into_iter().filter(|worker| old(worker) && self.is_dead(worker)).collect()
    }

    /// Removes the files of a worker.
    pub(super) fn forget(&self, worker: &WorkerId) {
        for name in [worker.0.to_string(), format!("{worker}.sock"), format!("{worker}.card")] {
            // What cannot be removed now is removed another time.
            let _later = fs::remove_file(self.dir.join(name));
        }
    }

    /// Tells this process, and when `others` may have something to do, them too.
    pub(super) fn tell(&self, others: bool) {
        tell(&self.hint);
        let (true, Some(sender)) = (others, &self.sender) else { return };
        let mut peers = locked(&self.peers);
        let changed_at = fs::metadata(&self.dir).and_then(|meta| meta.modified()).ok();
        if changed_at.is_none() {
            return;
        }
        if peers.changed_at != changed_at {
            peers.sockets = self.others();
            let settled = changed_at.is_some_and(|at| at.elapsed().is_ok_and(|age| age > SETTLED));
            peers.changed_at = changed_at.filter(|_| settled);
        }
        for path in peers.sockets.iter().filter_map(|name| self.address(name)) {
            // A full or abandoned socket needs no hint.
            let _hint = sender.send_to(&[1], path);
        }
    }

    fn others(&self) -> Vec<String> {
        let own: HashSet<String> = locked(&self.mine).iter().map(|mine| format!("{}.sock", mine.id)).collect();
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.ends_with(".sock") && !own.contains(name)).collect()
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

    /// Whether a call may have left a worker. Certain only of a dead one of this boot.
    pub(super) fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent {
        let absent = || {
            let file = self.opened(worker).ok()?;
            file.try_lock_shared().ok()?;
            marks::is_absent(&file, &marks::mark(run, effect, attempt)).then_some(())
        };
        if !self.is_mine(worker) && absent().is_some() { Sent::No } else { Sent::Maybe }
    }
}

fn tell(hint: &Notify) {
    hint.notify_waiters();
    hint.notify_one();
}

/// Makes the card of a worker; tells where its load begins.
fn write_card(path: &Path, registration: &Registration) -> Result<(File, u64), StoreError> {
    let mut text = encode(registration)?;
    text.push(b'\n');
    let load_at = text.len() as u64;
    text.extend_from_slice(load_line(Load::default()).as_bytes());
    let open = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    let card = open.map_err(|error| unavailable("make", path, &error))?;
    card.write_all_at(&text, 0).map_err(|error| unavailable("write", path, &error))?;
    Ok((card, load_at))
}

impl Drop for Workers {
    fn drop(&mut self) {
        for mine in locked(&self.mine).iter() {
            self.close(mine);
        }
    }
}
