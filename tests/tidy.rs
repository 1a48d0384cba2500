//! Keeps the house tidy: layers point one way, files stay small, nothing is left half-done.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// A dependency and the only places that may name it. See the layers in `README.md`.
const LAYERS: &[(&str, &[&str])] = &[
    ("fuser", &["mount/src/fuse"]),
    ("fjall", &["mount/src/namespace/store/local"]),
    ("sled", &["tiering/src/catalog"]),
    ("object_store", &["tiering/src/tier/object"]),
    ("aws_lc_rs", &["tiering/src/crypt"]),
    ("argon2", &["tiering/src/crypt"]),
    ("reed_solomon_erasure", &["tiering/src/segment/"]),
    ("lz4_flex", &["tiering/src/encode"]),
    ("zstd", &["tiering/src/encode", "tiering/src/segment/", "tiering/src/envelope"]),
    ("linfa", &["tiering/src/classifier/learn"]),
    ("linfa_trees", &["tiering/src/classifier/learn"]),
    ("linfa_logistic", &["tiering/src/classifier/learn"]),
    ("ndarray", &["tiering/src/classifier/learn"]),
    ("clap", &["src/"]),
    ("anyhow", &["src/"]),
    ("axum", &["src/daemon/metrics"]),
    ("prometheus_client", &["src/daemon/metrics"]),
];

/// Lines of production code in one file; tests live in siblings.
const FILE_LINES: usize = 650;

/// Lines of one function.
const FUNCTION_LINES: usize = 90;

struct Source {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    for top in ["src", "mount", "tiering", "tests"] {
        collect(&root.join(top), &mut paths);
    }
    paths
        .into_iter()
        .map(|path| Source {
            text: fs::read_to_string(&path).unwrap(),
            path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
        })
        .collect()
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests") || path.ends_with("tests.rs")
}

/// The part before the unit tests.
fn production(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap()
}

/// Whether a line of code uses the crate: `name::`, `use name;`, `extern crate name`.
fn names(text: &str, krate: &str) -> bool {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(krate).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = &line[at + krate.len()..];
            !before.is_some_and(|c| c.is_alphanumeric() || "_:\"".contains(c))
                && after.starts_with("::")
        })
    })
}

#[test]
fn each_dependency_is_named_by_its_own_layer_only() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| !is_test(&s.path)) {
        for (krate, places) in LAYERS {
            let allowed = places.iter().any(|place| source.path.starts_with(place));
            if !allowed && names(production(&source.text), krate) {
                wrong.push(format!("{} names {krate}", source.path));
            }
        }
        for (layer, never) in
            [("tiering/", ["firn_mount", "fuser"]), ("mount/", ["clap", "object_store"])]
        {
            for krate in never {
                if source.path.starts_with(layer) && names(&source.text, krate) {
                    wrong.push(format!("{} names {krate}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "layers are one-way:\n{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_stay_small() {
    let mut long = Vec::new();
    for source in sources().iter().filter(|s| !is_test(&s.path)) {
        let text = production(&source.text);
        let lines = text.lines().count();
        if lines > FILE_LINES {
            long.push(format!("{}: {lines} lines", source.path));
        }
        long.extend(long_functions(&source.path, text));
    }
    assert!(long.is_empty(), "split by noun:\n{}", long.join("\n"));
}

/// Functions as rustfmt lays them out: from `fn` to the brace at the same indentation.
fn long_functions(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_fn =
            ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub async fn "]
                .iter()
                .any(|head| code.starts_with(head));
        if !is_fn {
            continue;
        }
        let end = format!("{}}}", " ".repeat(line.len() - code.len()));
        let length = lines[start..].iter().take_while(|l| **l != end).count();
        let has_body = lines[start..start + length].iter().any(|l| l.ends_with('{'));
        if has_body && length > FUNCTION_LINES {
            long.push(format!("{path}:{}: function of {length} lines", start + 1));
        }
    }
    long
}

#[test]
fn nothing_is_left_half_done() {
    let marks = ["todo!(", "unimplemented!(", "FIXME", "XXX:", "HACK", "#[ignore]", "dbg!("];
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| s.path != "tests/tidy.rs") {
        for (number, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) || line.contains("// TODO") {
                found.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "unfinished:\n{}", found.join("\n"));
}

#[test]
fn the_visible_top_level_is_what_the_readme_says() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "README.md",
        "src",
        "mount",
        "tiering",
        "tests",
        "scripts",
        "target",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || allowed.contains(&name.as_str()),
            "{name} is new at the top"
        );
    }
}
