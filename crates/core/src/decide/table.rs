//! Decision tables that states ask by their action: the inputs are read, the row that fits is recorded, and what it says is
//! the output of the state and stands in the context under the table's name.

use super::Turn;
use crate::failure::Failure;
use crate::journal::Entry;
use crate::label::{Marks, Tags, path};
use crate::table::{Fired, Table};

impl Turn<'_> {
    /// Finds the row of a table that fits the run.
    pub(super) fn fire(&mut self, table: &Table) -> Result<(), Failure> {
        let (view, mut labels) = (self.view(), Tags::new());
        let mut inputs = Vec::with_capacity(table.inputs.len());
        for column in &table.inputs {
            inputs.push(self.fill(&format!("tables.{}.inputs.{}", table.name, column.name), &column.from)?);
            labels.extend(self.labels_of(&column.from, &view).all());
        }
        let Fired { row, id, output, to } = table.fire(&inputs)?;
        let name = table.name.clone();
        self.emit(Entry::RowFired { table: name.clone(), row, id, inputs: table.named(&inputs), to });
        self.emit(Entry::OutputProduced { output: output.clone() });
        // Which row fits says something about what was read.
        let marks = Marks::whole(labels);
        self.label(path(["output"]), marks.clone());
        self.set_context(vec![(name.clone(), output)]);
        self.label_context(vec![(name, marks)]);
        Ok(())
    }
}
