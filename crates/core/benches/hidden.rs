//! What it costs to find hidden values in what is shown, and to make what finds them.

use divan::{Bencher, black_box};
use windlass_core::hidden::Hidden;
use windlass_core::limits;
use windlass_core::value::Value;

fn main() {
    divan::main();
}

/// So many values of the length of keys.
fn values(count: usize) -> Hidden {
    let values = (0..count).map(|n| Value::str(format!("key-{:016x}", (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))));
    Hidden::of(&Value::list(values.collect()), &[Vec::new()])
}

/// A text of 64 KiB with a hidden value in each KiB.
fn text() -> String {
    let noise = "a word or two about key-0 and others; ".repeat(27);
    (0..64_u64).map(|n| format!("{noise}key-{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

#[divan::bench(args = [1, 64, limits::HIDDEN_MAX])]
fn look_in_64_kib(bencher: Bencher<'_, '_>, count: usize) {
    let (veil, text) = (values(count).veil(), text());
    assert!(veil.text(&text).is_some());
    bencher.bench_local(|| veil.text(black_box(&text)));
}

#[divan::bench(args = [1, 64, limits::HIDDEN_MAX], sample_count = 20)]
fn make(bencher: Bencher<'_, '_>, count: usize) {
    bencher.with_inputs(|| values(count)).bench_local_values(|values| values.veil().text("a word").is_some());
}

/// What a run pays that shows something after each value, over all of them.
#[divan::bench(args = [64, limits::HIDDEN_MAX], sample_count = 5)]
fn make_one_by_one(bencher: Bencher<'_, '_>, count: usize) {
    let all: Vec<Hidden> =
        (0..count).map(|n| Hidden::of(&Value::str(format!("key-{n:016x}")), &[Vec::new()])).collect();
    bencher.bench_local(|| {
        let mut run = Hidden::default();
        all.iter()
            .filter(|one| {
                run.join((*one).clone());
                run.veil().text("a word").is_some()
            })
            .count()
    });
}
