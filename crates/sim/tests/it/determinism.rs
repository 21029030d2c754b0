//! One seed is one schedule.

use windlass_sim::Options;

use crate::kit::{GOLDEN, simulation};

#[test]
fn the_same_seed_is_the_same_history() {
    for name in GOLDEN {
        let (one, other) = (simulation(name, Options::default()), simulation(name, Options::default()));
        let mut hashes = std::collections::BTreeSet::new();
        for seed in 0..10 {
            let (first, second) = (one.play(seed).expect("played"), other.play(seed).expect("played"));
            assert_eq!(first.hash, second.hash, "`{name}` seed {seed}");
            hashes.insert(first.hash);
        }
        assert!(hashes.len() > 5, "`{name}`: seeds hardly differ");
    }
}
