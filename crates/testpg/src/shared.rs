//! One server for all test processes: whoever comes first starts it, and it ends some seconds after the last has gone.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::host::lock_file;
use crate::keeper::{Launch, base};
use crate::server::{Address, Hold};
use crate::{Options, must};

/// The shared server, which stays while this process lives.
pub(crate) fn attach() -> Arc<Address> {
    static SHARED: OnceLock<Arc<Address>> = OnceLock::new();
    Arc::clone(SHARED.get_or_init(|| {
        let base = base().join("shared");
        crate::host::make_dir(&base, 0o755);
        let start = lock_file(&base.join("start.lock"));
        must(start.lock(), "cannot lock the shared server");
        let used = lock_file(&base.join("use.lock"));
        // Waits while a server that nobody used is being ended.
        must(used.lock_shared(), "cannot lock the shared server");
        let (port, socket) = running(&base).unwrap_or_else(|| launch(&base));
        Arc::new(Address { port, socket: socket.into(), hold: Hold::Shared(used) })
    }))
}

fn running(base: &Path) -> Option<(u16, String)> {
    let text = fs::read_to_string(base.join("address")).ok()?;
    let (port, home) = text.trim_end().split_once(' ')?;
    let port = port.parse().ok()?;
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    Some((port, format!("{home}/socket")))
}

fn launch(base: &Path) -> (u16, String) {
    let parent = base.parent().unwrap_or(base);
    let launch = Launch {
        home: Launch::prepare(parent, Options::default()).home,
        port: crate::host::free_port(),
        options: Options::default(),
    };
    launch.start_while_used(base);
    let home = launch.home.to_string_lossy().into_owned();
    let address = base.join("address");
    must(fs::write(&address, format!("{} {home}\n", launch.port)), "cannot note the address of the shared server");
    (launch.port, format!("{home}/socket"))
}
