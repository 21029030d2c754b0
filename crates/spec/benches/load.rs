//! How long documents take to load.

fn main() {
    divan::main();
}
