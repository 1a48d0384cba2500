//! The inputs that were worth keeping, for the unit tests of the crates whose decoders they reach:
//! what a fuzzer found once is tried in every run, without a fuzzer.

use std::path::Path;

/// Gives every input that was kept of a target to its function.
pub(crate) fn replay(target: &str, entry: impl Fn(&[u8])) {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("crates are folders");
    let dir = crates.join("tests/fuzz/corpus").join(target);
    let inputs = std::fs::read_dir(&dir).expect("every target has a corpus");
    let mut count = 0;
    for input in inputs {
        let path = input.expect("a directory can be listed").path();
        entry(&std::fs::read(path).expect("an input can be read"));
        count += 1;
    }
    assert!(count > 0, "no input in {}", dir.display());
}
