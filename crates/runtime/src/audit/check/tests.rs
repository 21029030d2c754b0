//! Edits, cuts and forgeries of a trail, and what is found of them.

use windlass_core::ids::EffectId;
use windlass_core::policy::Ruled;
use windlass_core::resource::Resource;

use super::*;
use crate::audit::{CallLine, Line, Reading};

fn rows(count: u64) -> Vec<Row> {
    let (mut rows, mut previous) = (Vec::new(), Digest::ZERO);
    for number in 1..=count {
        let owner = Owner {
            tenant: "t".into(),
            user: Some("anna".into()),
            machine: "m".into(),
            bundle: Digest::ZERO,
            by: Some("bob".into()),
        };
        let row = Row {
            v: 2,
            number,
            attempt: 1,
            kind: "tool".into(),
            target: "pay".into(),
            class: "danger".into(),
            arguments: Digest::of(b"{}"),
            result: (number % 2 == 0).then(|| "anna".into()),
            owner: (number == 1).then(|| Box::new(owner)),
            at: Timestamp(number),
            previous,
            ..Row::blank(EffectId(number.div_ceil(2)), if number % 2 == 1 { "intended" } else { "approved" })
        };
        previous = row.hash();
        rows.push(row);
    }
    rows
}

fn run() -> RunId {
    RunId::stored("r")
}

fn whose() -> Whose {
    Whose { run: run(), tenant: "t".into(), user: Some("anna".into()), machine: Some("m".into()), life: 0 }
}

const NOW: Timestamp = Timestamp(1_000);

/// Sealed after `sealed` rows.
fn checked(sealed: &[Row], found: &[Row]) -> Verdict {
    checked_at(NOW, sealed, &whose(), found)
}

fn checked_at(now: Timestamp, sealed: &[Row], whose: &Whose, found: &[Row]) -> Verdict {
    let mut checker = Checker::new("t".into(), None, now);
    let mut segments = Vec::new();
    let mut last = Last::default();
    for end in [2, sealed.len()] {
        let leaf = Leaf { run: run(), rows: end as u64, head: sealed[end - 1].hash() };
        let segment = Segment::after(last, "t".into(), Timestamp(1), vec![leaf]);
        last = Last { number: segment.seal.number, hash: segment.seal.hash() };
        segments.push(segment);
    }
    checker.anchor(2, last.hash);
    segments.iter().for_each(|segment| checker.segment(segment));
    found.iter().for_each(|row| checker.row(whose, row));
    assert!(!checker.next_part());
    checker.finish()
}

#[test]
fn what_was_sealed_is_told_from_the_tail() {
    let all = rows(7);
    let verdict = checked(&all[..5], &all);
    assert_eq!((verdict.sealed, verdict.tail, verdict.segments), (5, 2, 2));
    assert_eq!(verdict.findings, []);
}

#[test]
fn an_edit_a_delete_a_reorder_and_a_cut_are_found() {
    let all = rows(6);
    let mut edited = all.clone();
    edited[2].target = "other".into();
    assert_eq!(checked(&all, &edited).findings[0].row, Some(3));
    let mut deleted = all.clone();
    deleted.remove(2);
    assert_eq!(checked(&all, &deleted).findings[0].row, Some(3));
    let mut moved = all.clone();
    moved.swap(2, 3);
    assert_eq!(checked(&all, &moved).findings[0].row, Some(3));
    let cut = checked(&all, &all[..4]);
    assert_eq!(cut.findings[0].row, Some(5));
    assert!(cut.findings[0].message.contains("only 4 are there"), "{:?}", cut.findings);
    assert_eq!(checked(&all, &[]).findings[0].row, Some(1));
    // All hashes made anew: the seals do not fit.
    let mut forged = all.clone();
    forged[3].target = "other".into();
    for place in 4..6 {
        forged[place].previous = forged[place - 1].hash();
    }
    let verdict = checked(&all, &forged);
    assert_eq!(verdict.findings.len(), 1);
    assert_eq!(verdict.findings[0].row, Some(3), "the first row after what is known to be right");
}

#[test]
fn rows_of_every_version_come_back_from_their_lines_and_verify() {
    for v in 1..=VERSION {
        let mut all = rows(4);
        let mut previous = Digest::ZERO;
        for row in &mut all {
            row.v = v;
            if v == 1 {
                row.owner = None;
            }
            if v >= 3 {
                (row.plan, row.worker) = (Some("p".into()), Some("w".into()));
            }
            if v >= 4 {
                row.ruled = Some(Ruled { rule: "r".into(), version: if row.number == 2 { "" } else { "s" }.into() });
                row.agent = Some("a".into());
                row.resources = vec![Resource { name: "id".into(), id: "7".into() }];
                if row.number % 2 == 0 {
                    (row.by, row.reason, row.result) = (row.result.take(), Some("because".into()), None);
                }
            }
            row.previous = previous;
            previous = row.hash();
        }
        let lines: Vec<CallLine> = all.iter().map(|row| CallLine::of(&whose(), row)).collect();
        let back: Vec<Row> = lines.iter().map(CallLine::row).collect();
        assert_eq!(back, all, "version {v}");
        assert_eq!(lines[1].actor.as_deref(), Some("anna"), "version {v}");
        let verdict = checked(&all, &back);
        assert_eq!((verdict.findings, verdict.sealed), (Vec::new(), 4), "version {v}");
    }
}

#[test]
fn a_cut_tail_of_segments_is_found_by_what_was_noted() {
    let mut checker = Checker::new("t".into(), None, NOW);
    checker.anchor(4, Digest::ZERO);
    rows(2).iter().for_each(|row| checker.row(&whose(), row));
    checker.next_part();
    assert!(checker.finish().findings[0].message.contains("cut off"));
}

#[test]
fn what_is_under_no_seal_for_long_is_found() {
    let all = rows(7);
    let late = Timestamp(7 + TAIL_MS_MAX);
    assert_eq!(checked_at(late, &all[..5], &whose(), &all).findings[0].row, Some(6));
    assert_eq!(checked_at(late, &all, &whose(), &all).findings, []);
    let mut ahead = all.clone();
    ahead[5].at = Timestamp(TAIL_MS_MAX * 2);
    ahead[6].previous = ahead[5].hash();
    assert!(checked(&all[..5], &ahead).findings[0].message.contains("in the future"));
    // Rows that were kept are looked at by no sealer.
    let removed = Whose { life: 1, ..whose() };
    assert_eq!(checked_at(NOW, &all[..5], &removed, &all).findings[0].row, Some(6));
    assert_eq!(checked_at(NOW, &all, &removed, &all).findings, []);
}

#[test]
fn rows_that_are_of_somebody_else_are_found() {
    let all = rows(2);
    for other in [
        Whose { user: Some("eve".into()), ..whose() },
        Whose { machine: Some("n".into()), ..whose() },
        Whose { tenant: "u".into(), ..whose() },
    ] {
        let verdict = checked_at(NOW, &all, &other, &all);
        assert!(verdict.findings[0].message.contains("first row"), "{:?}", verdict.findings);
    }
    let mut nobodys = all.clone();
    nobodys[0].owner = None;
    assert!(checked(&nobodys, &nobodys).findings[0].message.contains("says whose it is"));
    let mut ambiguous = all;
    for row in &mut ambiguous {
        (row.v, row.owner) = (1, None);
    }
    ambiguous[1].result = Some("x\nboss".into());
    ambiguous[1].previous = ambiguous[0].hash();
    let verdict = checked(&ambiguous, &ambiguous);
    assert_eq!(verdict.findings.len(), 1, "rows of the first version need no first row: {:?}", verdict.findings);
    assert_eq!(verdict.findings[0].row, Some(2));
}

/// A trail of which everything up to segment 3 and act 1 was removed, as an older build says it; `rows` are there of a run
/// that was removed before.
fn pruned(rows: &[Row]) -> Verdict {
    let segments = Last { number: 3, hash: Digest::of(b"3") };
    let acts = Chain { rows: 1, head: Digest::of(b"1") };
    let cut = Cut { before_ms: Timestamp(9), segments, acts, removals: 5, removed: None };
    let act = Act {
        number: 2,
        at: Timestamp(10),
        actor: "anna".into(),
        action: Cut::ACTION.into(),
        subject: "t".into(),
        detail: Some(cut.detail().into()),
        previous: acts.head,
    };
    let leaf = Leaf { run: RunId::stored(ACTS), rows: 2, head: act.hash() };
    let mut checker = Checker::new("t".into(), None, NOW);
    checker.cut(cut);
    checker.segment(&Segment::after(segments, "t".into(), Timestamp(10), vec![leaf]));
    rows.iter().for_each(|row| checker.row(&Whose { life: 1, ..whose() }, row));
    checker.act(&act);
    checker.next_part();
    checker.finish()
}

#[test]
fn a_pruning_lets_nothing_pass_that_is_under_no_seal() {
    assert_eq!(pruned(&[]).findings, []);
    let findings = pruned(&rows(2)).findings;
    assert_eq!((findings.len(), &findings[0].run), (1, &Some(run())), "{findings:?}");
}

#[test]
fn an_export_that_names_somebody_else_is_found() {
    let export = Line::Export { v: 1, tenant: "t".into(), run: None, at_ms: NOW.0 };
    let wrong = |edit: &dyn Fn(&mut CallLine)| {
        let mut reading = Reading::default();
        reading.line(export.clone()).expect("a line");
        for row in rows(2) {
            let mut line = CallLine::of(&whose(), &row);
            edit(&mut line);
            reading.line(Line::Call(Box::new(line))).expect("a line");
        }
        reading.next_part();
        !reading.finish(Vec::new()).expect("a verdict").findings.is_empty()
    };
    assert!(!wrong(&|_| {}));
    assert!(wrong(&|line| line.user = Some("eve".into())));
    assert!(wrong(&|line| line.machine = Some("n".into())));
    assert!(wrong(&|line| line.tenant = "u".into()));
    assert!(wrong(&|line| line.idempotency_key = Some("x".into())));
    assert!(wrong(&|line| line.idempotency_key = None));
    assert!(wrong(&|line| if line.number == 2 {
        line.user = None
    }));
}

#[test]
fn what_is_about_no_call_has_no_key_and_one_of_an_older_build_is_no_finding() {
    let mut line = CallLine::of(&whose(), &Row { effect: EffectId(0), ..rows(1)[0].clone() });
    assert_eq!(line.idempotency_key, None);
    assert!(!serde_json::to_string(&line).expect("JSON").contains("idempotency_key"));
    for key in [None, Some("r#0")] {
        line.idempotency_key = key.map(Into::into);
        let mut reading = Reading::default();
        reading.line(Line::Export { v: 1, tenant: "t".into(), run: None, at_ms: NOW.0 }).expect("a line");
        reading.line(Line::Call(Box::new(line.clone()))).expect("a line");
        reading.next_part();
        let findings = reading.finish(Vec::new()).expect("a verdict").findings;
        assert!(!findings.iter().any(|found| found.message.contains("key")), "{findings:?}");
    }
}

#[test]
fn what_cannot_be_read_is_one_finding_and_the_rest_is_checked() {
    let all = rows(2);
    let leaf = |run: &str| Leaf { run: RunId::stored(run), rows: 2, head: all[1].hash() };
    let segment = Segment::after(Last::default(), "t".into(), NOW, vec![leaf("r"), leaf("s")]);
    let mut checker = Checker::new("t".into(), None, NOW);
    checker.segment(&segment);
    checker.unread(&RunId::stored("s"), &"no JSON");
    all.iter().for_each(|row| checker.row(&whose(), row));
    checker.next_part();
    let verdict = checker.finish();
    assert_eq!((verdict.sealed, verdict.findings.len()), (2, 1));
    assert_eq!(verdict.findings[0].run, Some(RunId::stored("s")));
}

#[test]
fn many_leaves_are_looked_at_in_parts() {
    let all = rows(2);
    let runs: Vec<RunId> = (0..64).map(|n| RunId::stored(&format!("r{n}"))).collect();
    let leaves = runs.iter().map(|run| Leaf { run: run.clone(), rows: 2, head: all[1].hash() }).collect();
    let segment = Segment::after(Last::default(), "t".into(), NOW, leaves);
    let mut checker = Checker::new("t".into(), None, NOW);
    checker.leaves_max = 10;
    let mut parts = 0;
    loop {
        checker.segment(&segment);
        assert!(checker.leaves <= 10, "{} are held", checker.leaves);
        // One run is gone.
        for run in &runs[1..] {
            all.iter().for_each(|row| checker.row(&Whose { run: run.clone(), ..whose() }, row));
        }
        parts += 1;
        if !checker.next_part() {
            break;
        }
    }
    assert!(parts > 4, "{parts} parts");
    let verdict = checker.finish();
    assert_eq!((verdict.runs, verdict.rows, verdict.sealed, verdict.segments), (63, 126, 126, 1));
    assert_eq!(verdict.findings.len(), 1, "{:?}", verdict.findings);
    assert_eq!(verdict.findings[0].run.as_ref(), Some(&runs[0]));
}

#[test]
fn lines_are_rows() {
    for row in rows(4) {
        let line = CallLine::of(&whose(), &row);
        assert_eq!(line.row(), row);
        let text = serde_json::to_string(&Line::Call(Box::new(line.clone()))).expect("JSON");
        assert_eq!(serde_json::from_str::<Line>(&text).expect("JSON"), Line::Call(Box::new(line)));
    }
}
