//! Records of the catalog for fuzzers.

use super::record::{
    BlockRecord, bucket_of, decode_bucket, decode_segment, encode_bucket, encode_segment,
    find_in_bucket,
};
use crate::block::{BlockId, MAX_BLOCK_LEN};
use crate::segment::SegmentId;

/// The records of bucket and segment 7.
pub fn catalog(data: &[u8]) {
    const NUMBER: u64 = 7;
    if let Ok(bucket) = decode_bucket(NUMBER, data) {
        for record in bucket.values() {
            check_block(record, NUMBER);
            let found = find_in_bucket(record.entry.id, data).expect("all of it was decoded");
            assert!(found.is_some(), "a record is found by its id");
        }
        let stored = encode_bucket(&bucket).expect("offsets were stored before");
        assert_eq!(decode_bucket(NUMBER, &stored).expect("what was written is read"), bucket);
    }
    let id = SegmentId::from_raw(NUMBER);
    if let Ok(record) = decode_segment(id, data) {
        let holes: Vec<_> = record.holes.ranges().collect();
        assert!(holes.windows(2).all(|pair| pair[0].end < pair[1].start), "holes do not touch");
        assert!(holes.iter().all(|hole| hole.start < hole.end), "no hole is empty");
        let stored = encode_segment(&record);
        assert_eq!(decode_segment(id, &stored).expect("what was written is read"), record);
    }
}

/// A reader may do arithmetic on all that a record says.
fn check_block(record: &BlockRecord, number: u64) {
    let entry = &record.entry;
    assert_eq!(bucket_of(entry.id), number);
    assert!((1..=MAX_BLOCK_LEN).contains(&(entry.plain_len as usize)));
    let frame = entry.frame_range();
    for end in [1, entry.plain_len] {
        let read = entry.cell_range(end - 1..end).expect("within the block");
        let stored = read.stored();
        assert!(frame.start <= stored.start && stored.end <= frame.end);
        // Nonsense of that length is refused or verified, never taken for the block.
        let zeros = vec![0; (stored.end - stored.start) as usize];
        let _ = read.open(&entry.block_ref(), &zeros);
    }
    assert_eq!(BlockId::from_raw(entry.id.raw()), entry.id);
}
