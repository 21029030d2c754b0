//! How the run of a folder is carried on: by one worker process after another, with what it waits for answered in between.

use std::path::Path;
use std::process::Child;

use super::cuts::answer_waits;
use super::worker::{End, wait};
use super::world::World;

/// Workers of one run before there is something wrong.
const WORKERS_MAX: usize = 20;

/// The run of a folder, and who looks after it.
pub(super) struct Course<'a> {
    pub(super) folder: &'a Path,
    pub(super) world: &'a World,
    /// Starts a worker that aborts at a point, or at none.
    pub(super) spawn: fn(&Path, Option<u64>) -> Child,
    /// Answers what the run asks, beside what [`answer_waits`] answers.
    pub(super) answer: &'a dyn Fn(&Path),
}

impl Course<'_> {
    /// Carries on, untouched, to the end.
    pub(super) fn finish(&self) {
        for _ in 0..WORKERS_MAX {
            if answer_waits(self.folder, self.world) {
                return;
            }
            (self.answer)(self.folder);
            match wait(self.folder, (self.spawn)(self.folder, None)) {
                End::Done => {}
                other => panic!("an untouched worker ended by {other:?}"),
            }
        }
        panic!("the run does not end: {}", super::cuts::standing(self.folder));
    }

    /// Carries on until the `cut`-th point that the run passes, over as many workers as that takes. None when it ended
    /// before.
    pub(super) fn cut(&self, cut: u64) -> Option<String> {
        let mut left = cut;
        for _ in 0..WORKERS_MAX {
            match wait(self.folder, (self.spawn)(self.folder, Some(left))) {
                End::Cut(point) => return Some(point),
                End::Done => {
                    let points = std::fs::read_to_string(self.folder.join("points")).expect("a count");
                    left -= points.trim().parse::<u64>().expect("a number");
                }
                End::Killed => panic!("nobody kills here"),
            }
            if answer_waits(self.folder, self.world) {
                return None;
            }
            (self.answer)(self.folder);
        }
        panic!("the run does not end: {}", super::cuts::standing(self.folder));
    }
}
