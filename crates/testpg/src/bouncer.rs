//! A connection pooler in transaction mode before a server.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Instant;

use crate::host::{command, free_port, make_dir, unique};
use crate::keeper::{PATIENCE, ROLE, base};
use crate::must;

/// PgBouncer in transaction mode.
#[derive(Debug)]
pub struct Bouncer {
    port: u16,
    home: PathBuf,
    child: Child,
}

impl Bouncer {
    /// Starts one before a port of the loopback address.
    ///
    /// # Panics
    /// The program `pgbouncer` is missing, or does not start.
    #[must_use]
    pub fn start(server: u16) -> Self {
        let home = base().join(format!("bouncer_{}", unique()));
        make_dir(&home, 0o755);
        let (port, path) = (free_port(), |name: &str| home.join(name).display().to_string());
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 4\n\
             max_client_conn = 200\nlogfile = {}\nserver_check_delay = 0\n",
            path("users"),
            path("log")
        );
        must(fs::write(path("users"), format!("\"{ROLE}\" \"\"\n")), "cannot write the users of a pooler");
        must(fs::write(path("config"), config), "cannot write the settings of a pooler");
        let program =
            ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| fs::exists(path).unwrap_or(false));
        let Some(program) = program else { panic!("`pgbouncer` is missing; install the package `pgbouncer`") };
        let mut start = command("setpriv");
        start.args(["--pdeathsig", "KILL", program, "-q"]).arg(path("config"));
        start.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = must(start.spawn(), "cannot start a pooler");
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = child.try_wait().ok().flatten();
            let log = || fs::read_to_string(home.join("log")).unwrap_or_default();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "the pooler does not start: {ended:?}\n{}", log());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Self { port, home, child }
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        // One that has ended by itself is what was wanted.
        let _ended = (self.child.kill(), self.child.wait());
        let _later = fs::remove_dir_all(&self.home);
    }
}
