//! Workers that are processes of their own, each with one store and one server of models. They begin together, on a word.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};
use windlass_ports::store::rates::Rate;
use windlass_runtime::rates::{Limit, Limits, Pick, Picks, Unit};

use crate::rates::Fleet;

/// What a worker is to do, as JSON.
const ORDERS: &str = "WINDLASS_TEST_ORDERS";
/// What it says when it can begin.
const READY: &str = "ready to begin";

/// What a worker is to do: everything in the store that is not done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) store: String,
    /// The address of the server of models.
    pub(crate) server: String,
    pub(crate) slots: usize,
    /// Tokens of each model, if there is a limit.
    pub(crate) tokens: Option<Rate>,
}

impl Orders {
    fn limits(&self) -> Limits {
        let picks = Picks { model: Some(Pick::Each), ..Picks::default() };
        let limit = |rate: &Rate| Limit { picks: picks.clone(), unit: Unit::Tokens, rate: *rate, wait_ms: None };
        Limits::new(self.tokens.iter().map(limit).collect()).expect("limits")
    }

    /// The store of these orders, without anybody who works.
    pub(crate) async fn office(&self) -> Fleet {
        Fleet::with_slots(&self.store, &self.server, 1, &self.limits(), self.slots).await
    }
}

/// Not a test by itself: does nothing unless [`Worker::hire`] started it.
#[test]
fn a_worker_of_a_crew() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Orders = serde_json::from_str(&orders).expect("orders");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    runtime.block_on(async {
        let fleet = orders.office().await;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{READY}").and_then(|()| stdout.flush()).expect("told");
        let mut word = String::new();
        std::io::stdin().read_line(&mut word).expect("the word");
        fleet.drive().await;
        fleet.workers[0].engine().leave().await;
    });
}

/// A worker that waits for the word. Killed when it is dropped before it has ended.
pub(crate) struct Worker(Child);

impl Worker {
    pub(crate) fn hire(orders: &Orders) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", "crew::a_worker_of_a_crew", "--nocapture"]).env_remove("RUST_BACKTRACE");
        command.env(ORDERS, serde_json::to_string(orders).expect("orders"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("a worker starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(READY)), "it ended before it was ready");
        // What it says from here on is nobody's.
        std::thread::spawn(move || lines.count());
        Self(child)
    }

    /// Lets it begin.
    pub(crate) fn begin(&mut self) {
        writeln!(self.0.stdin.as_mut().expect("its input"), "go").expect("it is told");
    }

    /// Waits until it has ended well.
    pub(crate) fn end(mut self) {
        assert!(self.0.wait().expect("waited for").success(), "a worker ended badly");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Nobody is there to kill once it has ended.
        let _ended = self.0.kill();
        let _waited = self.0.wait();
    }
}
