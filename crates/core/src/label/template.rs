//! Labels through templates: a result has the labels of everything that its template reads.

use super::{Marks, Tags};
use crate::eval::Evaluator;
use crate::ids::Name;
use crate::machine::Template;

/// The labels of the names that a template may read.
#[derive(Clone, Debug, Default)]
pub struct View {
    names: Vec<(Name, Marks)>,
}

impl View {
    /// The view with one more name; a later one hides an earlier one.
    #[must_use]
    pub fn with(mut self, name: impl Into<Name>, marks: Marks) -> Self {
        let name = name.into();
        self.names.retain(|(known, _)| *known != name);
        if !marks.is_empty() {
            self.names.push((name, marks));
        }
        self
    }

    fn below(&self, path: &[Name]) -> Marks {
        let Some((root, rest)) = path.split_first() else {
            let mut all = Marks::default();
            self.names.iter().for_each(|(_, marks)| all.tag(marks.all()));
            return all;
        };
        self.names.iter().find(|(name, _)| name == root).map(|(_, marks)| marks.below(rest)).unwrap_or_default()
    }

    fn at(&self, path: &[Name]) -> Tags {
        self.below(path).all()
    }
}

/// The labels of what a template gives. A text counts as reading everything that is named anywhere in it, also in a
/// branch that is not taken: which branch that is depends on what its condition read.
#[must_use]
pub fn of_template(template: &Template, view: &View, evaluator: &dyn Evaluator) -> Marks {
    if view.names.is_empty() {
        return Marks::default();
    }
    match template {
        Template::Literal(_) => Marks::default(),
        Template::Path(path) => view.below(path),
        Template::Text { dialect, source } => {
            let mut marks = Marks::default();
            for path in evaluator.reads(*dialect, source) {
                marks.tag(view.at(&path));
            }
            marks
        }
        Template::List(items) => {
            let mut marks = Marks::default();
            items.iter().for_each(|item| marks.tag(of_template(item, view, evaluator).all()));
            marks
        }
        Template::Map(entries) => {
            let mut marks = Marks::default();
            for (key, item) in entries {
                marks.join(of_template(item, view, evaluator).within(std::slice::from_ref(key)));
            }
            marks
        }
    }
}
