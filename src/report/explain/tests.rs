#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn block(id: &str, stored_bytes: u64) -> BlockFacts {
    BlockFacts {
        id: id.to_owned(),
        digest: "00ff".to_owned(),
        offset_bytes: 0,
        plain_bytes: 1000,
        stored: Some(StoredFacts {
            stored_bytes,
            codec: "zstd".to_owned(),
            filter: "shuffle4".to_owned(),
            level: 3,
            why: "because".to_owned(),
            segment: "s1".to_owned(),
            segment_offset_bytes: 64,
        }),
        residence: "dual".to_owned(),
        trouble: None,
    }
}

fn run(offset_bytes: u64, kind: RunKind, block: Option<BlockFacts>) -> Run {
    Run { offset_bytes, len_bytes: 500, kind, block }
}

fn sample() -> Explanation {
    let file = FileFacts {
        ino: 7,
        kind: "file".to_owned(),
        size_bytes: 2000,
        state: Some("dual".to_owned()),
        resident_pct: Some(100),
        blake3: Some("d1".repeat(32)),
    };
    let runs = vec![
        run(0, RunKind::Block, Some(block("b1", 100))),
        run(500, RunKind::Block, Some(block("b1", 100))),
        run(1000, RunKind::Inline, None),
        run(1500, RunKind::Block, Some(block("b2", 300))),
    ];
    Explanation { path: "/data/x".to_owned(), file, runs }
}

#[test]
fn blocks_shared_by_runs_are_counted_once() {
    let text = sample().text();
    assert!(text.starts_with("/data/x: file, 1.95 KiB, dual, 100 % in hot"), "{text}");
    assert!(text.contains("blocks of 1.95 KiB stored in 400 B (ratio 5.00)"), "{text}");
    assert!(text.contains("2 blocks: because"), "{text}");
    assert!(text.contains(&format!("\nblake3 {}\n", "d1".repeat(32))), "{text}");
    assert!(text.contains("shuffle4+zstd-3"), "{text}");
    assert!(text.contains("namespace"), "{text}");
}

#[test]
fn the_object_is_flat_and_documented_names_stay() {
    let value = serde_json::to_value(sample()).unwrap();
    assert_eq!(value["path"], "/data/x");
    assert_eq!(value["state"], "dual");
    assert_eq!(value["runs"][0]["kind"], "block");
    assert_eq!(value["runs"][0]["block"]["stored"]["codec"], "zstd");
    assert!(value["runs"][2].get("block").is_none());
}
