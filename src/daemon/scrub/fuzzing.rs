//! Where a scrub is, for fuzzers.

use super::record::parse;

/// A record, and what is told of it.
pub(in crate::daemon) fn record(data: &[u8]) {
    let Ok(record) = parse(data) else { return };
    let told = record.sample.report(1000);
    assert!((0.0..=1.0).contains(&told.damaged_at_most), "a share");
    for pass in record.pass.iter().chain(&record.last) {
        pass.report(0);
    }
    let stored = serde_json::to_vec(&record).expect("a record is JSON");
    assert_eq!(parse(&stored).expect("what was written is read"), record);
}
