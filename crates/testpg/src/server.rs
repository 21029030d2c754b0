//! A server of one test, which may break it.

use std::fs;
use std::io::PipeWriter;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::keeper::{Launch, PATIENCE, ROLE, base};
use crate::{Database, Rows, SqlError, must, sql};

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether what it acknowledges is on the device: for benchmarks. Otherwise it is fast and survives only the death
    /// of its processes.
    pub durable: bool,
    /// Settings by name, such as `max_connections`.
    pub settings: Vec<(String, String)>,
    /// Lines of `pg_hba.conf`, in place of trust for everyone.
    pub hba: Vec<String>,
    /// How far its clock is off, in the words of libfaketime, such as `-1h`. [`Server::set_clock`] changes it.
    pub faketime: Option<String>,
    /// Whether the disk of its tables can be made full, by [`Server::fill_disk`].
    pub fillable: bool,
    /// The port of a server that it follows, as a standby: with all of its databases as they are now.
    pub standby_of: Option<u16>,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Connections are closed, and everything is written.
    Fast,
    /// At once; the next start recovers.
    Immediate,
    /// The main process is killed without a word.
    Kill,
}

/// Where a server listens, and what keeps it alive.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) port: u16,
    pub(crate) socket: PathBuf,
    pub(crate) hold: Hold,
}

/// What keeps a server alive.
#[derive(Debug)]
pub(crate) enum Hold {
    /// A lock on a file.
    Shared(#[expect(dead_code, reason = "the lock is held as long as the file is open")] fs::File),
    /// A pipe that this process holds.
    Own(Box<Own>),
}

/// A server of this process.
#[derive(Debug)]
pub(crate) struct Own {
    launch: Launch,
    keeper: Mutex<Option<(Child, PipeWriter)>>,
}

impl Address {
    /// The address of a database for the store.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{ROLE}@127.0.0.1:{}/{database}", self.port)
    }
}

/// A server that belongs to one test.
#[derive(Debug)]
pub struct Server {
    address: Arc<Address>,
}

impl Server {
    /// Starts one.
    ///
    /// # Panics
    /// It does not start; the text has its log.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let launch = Launch::prepare(&base(), options);
        let keeper = Mutex::new(Some(launch.start_for_test()));
        let (port, socket) = (launch.port, launch.home.join("socket"));
        let hold = Hold::Own(Box::new(Own { launch, keeper }));
        Self { address: Arc::new(Address { port, socket, hold }) }
    }

    fn own(&self) -> &Own {
        match &self.address.hold {
            Hold::Own(own) => own,
            Hold::Shared(_) => unreachable!("a server of a test is its own"),
        }
    }

    /// A new, empty database.
    #[must_use]
    pub fn database(&self) -> Database {
        Database::create(Arc::clone(&self.address))
    }

    /// The address of a database, whether it exists or not.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.address.url(database)
    }

    /// The port of the loopback address that it listens on, also after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port
    }

    /// Runs statements as the owner of everything, in the database `postgres`.
    ///
    /// # Errors
    /// What the server says.
    pub fn execute(&self, statements: &str) -> Result<Rows, SqlError> {
        sql::run(&self.url("postgres"), statements)
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.own().launch.home.join("log")).unwrap_or_default()
    }

    /// The folder of its data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.own().launch.home.join("data")
    }

    /// Sets its clock: how far it is off, in the words of libfaketime. It must have been started with
    /// [`Options::faketime`].
    ///
    /// # Panics
    /// The file that tells it cannot be written.
    pub fn set_clock(&self, faketime: &str) {
        self.own().launch.set_clock(faketime);
    }

    /// Makes the disk of its tables full, or lets it have room again. It must have been started with
    /// [`Options::fillable`].
    ///
    /// # Panics
    /// The file that tells it cannot be made or removed.
    pub fn fill_disk(&self, is_full: bool) {
        let flag = self.own().launch.full_flag();
        if is_full {
            must(fs::write(&flag, b""), "cannot fill a disk");
        } else {
            must(fs::remove_file(&flag), "cannot make room on a disk");
        }
    }

    /// Writes a file into the folder of its data, for its user only.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn give(&self, name: &str, content: &[u8]) {
        let path = self.data().join(name);
        must(fs::write(&path, content), "cannot write a file for a server");
        crate::host::own(&path, 0o600);
    }

    /// Stops it, and waits until its processes are gone.
    ///
    /// # Panics
    /// It does not stop.
    pub fn stop(&self, how: Stop) {
        self.own().stop(how);
    }

    /// Starts it again, on the same port.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_again(&self) {
        let own = self.own();
        let mut keeper = own.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(keeper.is_none(), "the server runs already");
        *keeper = Some(own.launch.start_for_test());
    }

    /// Stops it and starts it again.
    pub fn restart(&self, how: Stop) {
        self.stop(how);
        self.start_again();
    }

    /// Sends a signal to its main process.
    ///
    /// # Panics
    /// It does not run.
    pub fn signal(&self, signal: Signal) {
        let Some(pid) = self.own().launch.pid() else { panic!("the server does not run") };
        must(kill(Pid::from_raw(pid), signal), "cannot signal the server");
    }
}

impl Own {
    fn stop(&self, how: Stop) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((mut child, pipe)) = keeper.take() else { return };
        let signal = match how {
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGQUIT,
            Stop::Kill => Signal::SIGKILL,
        };
        if let Some(pid) = self.launch.pid() {
            // One that has ended by itself is what was wanted.
            let _ended = kill(Pid::from_raw(pid), signal);
        }
        let began = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            assert!(began.elapsed() < PATIENCE, "the server does not stop");
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(pipe);
        if how == Stop::Kill {
            self.wait_for_orphans(began);
        }
    }

    /// Processes of a killed server end by themselves, and a new one does not start before they have.
    fn wait_for_orphans(&self, began: Instant) {
        let pid_file = self.launch.home.join("data/postmaster.pid");
        let segment = fs::read_to_string(&pid_file).unwrap_or_default();
        let segment = segment.lines().nth(6).and_then(|line| line.split_whitespace().nth(1).map(str::to_owned));
        let attached = || {
            let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
            table.lines().skip(1).any(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                fields.get(1).copied() == segment.as_deref() && fields.get(6).is_some_and(|count| *count != "0")
            })
        };
        while attached() {
            assert!(began.elapsed() < PATIENCE, "processes of the killed server do not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        // It tells of the killed server, and would be taken for that of the next one.
        let _none = fs::remove_file(&pid_file);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop(Stop::Immediate);
        // What cannot be removed is removed with the folder of temporary files.
        let _later = fs::remove_dir_all(&self.launch.home);
    }
}
