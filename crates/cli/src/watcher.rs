//! Tells what is committed: to the events file, before any effect leaves, and to a person on stderr.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use windlass_core::journal::Entry;
use windlass_core::run::Run;
use windlass_runtime::Observer;
use windlass_runtime::events::{self, Seen};

use crate::exit::{Exit, Problem};
use crate::output::{self, Output};
use crate::story;

/// Observes the runs of a command.
#[derive(Debug)]
pub(crate) struct Watcher {
    events: Option<Mutex<EventsFile>>,
    telling: bool,
    bar: Option<ProgressBar>,
}

#[derive(Debug)]
struct EventsFile {
    file: File,
    broken: bool,
}

impl Watcher {
    /// Writes events to a file, when there is one, and tells the story on stderr unless that is not wanted.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn new(output: Output, events: Option<&Path>) -> Result<Self, Problem> {
        let events = match events {
            None => None,
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
                    Problem::new(Exit::Unreachable, "cli.io", format!("cannot write `{}`: {error}", path.display()))
                        .hint("`--events` needs a file that can be written")
                })?;
                Some(Mutex::new(EventsFile { file, broken: false }))
            }
        };
        let telling = !output.quiet();
        let bar = (telling && std::io::stderr().is_terminal()).then(bar);
        Ok(Self { events, telling, bar })
    }

    /// Ends the live display.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn write(&self, seen: Seen<'_>) {
        let Some(events) = &self.events else { return };
        let mut lines = Vec::new();
        let veil = seen.run.hidden.veil();
        for event in events::of(seen) {
            // Every event is plain data with text keys, for which serialisation cannot fail.
            let _ = if veil.is_empty() {
                serde_json::to_writer(&mut lines, &event)
            } else {
                serde_json::to_writer(&mut lines, &veil.document(&event))
            };
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return;
        }
        let mut events: MutexGuard<'_, EventsFile> = events.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = events.file.write_all(&lines)
            && !events.broken
        {
            events.broken = true;
            output::note(&format!("warning: the events file cannot be written: {error}"));
        }
    }

    fn tell(&self, seen: Seen<'_>) {
        for line in story::lines(seen) {
            match &self.bar {
                Some(bar) => bar.println(line),
                None => output::note(&line),
            }
        }
        if let Some(bar) = &self.bar {
            let (run, used) = (seen.run, seen.run.used());
            let state = run.state.as_deref().unwrap_or("starting");
            let agent = run.exec.as_ref().map(|exec| format!(" · {}", exec.agent)).unwrap_or_default();
            bar.set_message(format!("{state}{agent} · {} tokens{}", used.tokens, story::cost(used.cost_micros)));
        }
    }
}

impl Observer for Watcher {
    fn committed(&self, run: &Run, entries: &[Entry]) {
        self.seen(Seen { run, entries, audit: &[] });
    }

    fn seen(&self, seen: Seen<'_>) {
        self.write(seen);
        if self.telling {
            self.tell(seen);
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{spinner} {msg} · {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
