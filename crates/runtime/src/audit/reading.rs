//! The lines of an export, checked one after another.

use windlass_core::audit::Row;
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::seal::ACTS;
use windlass_core::time::Timestamp;

use super::{CallLine, Checker, FORMAT, Finding, Line, Verdict, Whose};

/// Checks the lines of an export.
#[derive(Debug, Default)]
pub struct Reading {
    checker: Option<Checker>,
    anchors: Vec<(Name, u64, Digest)>,
}

impl Reading {
    /// What is to be compared with segments that were noted elsewhere: tenant, number, hash.
    #[must_use]
    pub fn new(anchors: Vec<(Name, u64, Digest)>) -> Self {
        Self { checker: None, anchors }
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// It cannot come here.
    pub fn line(&mut self, line: Line) -> Result<(), String> {
        if let Line::Export { v, tenant, run, at_ms } = line {
            if v > FORMAT {
                return Err(format!("the export has version {v}, this build reads up to {FORMAT}"));
            }
            if self.checker.is_none() {
                let mut checker = Checker::new(tenant, run, Timestamp(at_ms));
                self.anchors.iter().for_each(|(_, number, hash)| checker.anchor(*number, *hash));
                self.checker = Some(checker);
            }
            return Ok(());
        }
        let checker = self.checker.as_mut().ok_or("the first line is not that of an export")?;
        match line {
            Line::Cut(cut) => checker.cut(cut),
            Line::Segment(segment) => checker.segment(&segment),
            Line::Seal(seal) => checker.seal(&seal),
            Line::Proof { leaf, segment, way } => checker.proof(&leaf, segment, &way),
            Line::Call(call) => take_call(checker, &call),
            Line::Act(act) => {
                let row = act.act();
                checker.act(&row);
                if row.hash() != act.hash {
                    checker.find(Some(&RunId::stored(ACTS)), Some(act.number), "it does not have its hash");
                }
            }
            Line::Unread { run, message, .. } => checker.unread(&run, &message),
            Line::Export { .. } | Line::End { .. } | Line::Signature { .. } => {}
        }
        Ok(())
    }

    /// Whether all lines are to be given once more, for another part of the chains.
    pub fn next_part(&mut self) -> bool {
        self.checker.as_mut().is_some_and(Checker::next_part)
    }

    /// What was found, after the last part.
    ///
    /// # Errors
    /// There was no first line.
    pub fn finish(self, wrong: Vec<String>) -> Result<Verdict, String> {
        let mut verdict = self.checker.ok_or("there is no line of an export")?.finish();
        verdict.findings.extend(wrong.into_iter().map(|message| Finding { run: None, row: None, message }));
        Ok(verdict)
    }
}

/// Whether a line has the key of its call. One about no call has none; older builds wrote one all the same.
fn has_its_key(run: &RunId, row: &Row, key: Option<&str>) -> bool {
    match key {
        Some(key) => *row.effect.key(run) == *key,
        None => row.effect == EffectId(0),
    }
}

fn take_call(checker: &mut Checker, call: &CallLine) {
    let run = RunId::stored(&call.run);
    if !checker.wants(&run) {
        return;
    }
    let (tenant, user, machine) = (call.tenant.clone(), call.user.clone(), call.machine.clone());
    let whose = Whose { run, tenant, user, machine, life: call.life };
    let row = call.row();
    checker.row(&whose, &row);
    let wrong = if row.hash() != call.hash {
        "it does not have its hash"
    } else if !has_its_key(&whose.run, &row, call.idempotency_key.as_deref()) {
        "it does not have the idempotency key of its call"
    } else if checker.tenant() != &*call.tenant {
        "it is of another tenant"
    } else {
        return;
    };
    checker.find(Some(&whose.run), Some(call.number), wrong);
}
