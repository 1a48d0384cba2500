//! `mount/SEMANTICS.md`, paragraph by paragraph, on a real mount.
//!
//! Each test says in its first line of documentation, in quotes, which paragraph it holds to.

mod content;
mod durability;
mod metadata;
mod mounts;
mod snapshots;

use std::collections::BTreeSet;
use std::path::Path;

/// The headings of the page.
fn headings(page: &str) -> BTreeSet<&str> {
    page.lines().filter_map(|line| line.strip_prefix("### ")).collect()
}

/// What the tests of one file quote: a doc comment in quotes, right before `#[test]`.
fn quoted(source: &str) -> BTreeSet<String> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines
        .windows(2)
        .filter(|pair| pair[1] == "#[test]")
        .filter_map(|pair| pair[0].strip_prefix("/// \"")?.strip_suffix('"').map(str::to_owned))
        .collect()
}

#[test]
fn each_paragraph_has_a_test_and_each_test_a_paragraph() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("mount/SEMANTICS.md")).unwrap();
    let promised: BTreeSet<String> = headings(&page).into_iter().map(str::to_owned).collect();
    let mut tested = BTreeSet::new();
    for entry in std::fs::read_dir(root.join("tests/semantics")).unwrap() {
        tested.extend(quoted(&std::fs::read_to_string(entry.unwrap().path()).unwrap()));
    }
    assert!(promised.len() > 30, "the page was not understood: {promised:?}");
    assert_eq!(promised, tested, "left: paragraphs, right: tests");
}
