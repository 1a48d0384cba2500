//! What a segment costs beside its frames, measured on the bytes it writes.

use super::*;

/// A segment whose frames have cells of that stored length; nobody decodes them.
fn sealed_with_cells(cell_len: usize, frames: usize) -> SegmentIndex {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::create(dir.path(), NAME, ParityPlace::Inside).unwrap();
    let mut dice = Dice::new(5);
    let hash = hash_block(&noise(0, 1 << 20));
    for i in 0..frames {
        let root = blake3::hash(&i.to_le_bytes());
        let hash = BlockHash { root, ..hash.clone() };
        let spread = (cell_len / 8).max(1);
        let cell_lens: Vec<u32> =
            (0..16).map(|_| (cell_len - dice.roll(spread)).min(CELL_LEN) as u32).collect();
        let payload = vec![i as u8; cell_lens.iter().sum::<u32>() as usize];
        let encoded = EncodedBlock {
            codec: Codec::Zstd,
            filter: Filter::None,
            level: 3,
            plain_len: 1 << 20,
            cell_lens,
            payload: Bytes::from(payload),
        };
        writer.append(&mut Frame::build(BlockId::from_raw(i as u64), &hash, &encoded)).unwrap();
    }
    writer.seal().unwrap().index
}

/// Thousandths of the frames' bytes: parity, and index with tables and all else.
fn per_mille(index: &SegmentIndex) -> (f64, f64) {
    let trailer = index.trailer();
    let frames = (trailer.frames_end - DATA_START) as f64;
    let parity = (trailer.parity.end - trailer.parity.start) as f64;
    let rest = trailer.file_len as f64 - frames - parity;
    (parity / frames * 1000.0, rest / frames * 1000.0)
}

#[test]
fn parity_and_footer_keep_to_their_share_from_32_mib_on() {
    // Cell length and frames: incompressible, halved, ratio 16, 40 and 80.
    for (cell_len, frames) in [
        (CELL_LEN, 35),
        (CELL_LEN, 60),
        (32_000, 72),
        (32_000, 120),
        (4000, 580),
        (1600, 1500),
        (800, 3000),
    ] {
        let index = sealed_with_cells(cell_len, frames);
        assert!(index.trailer().frames_end >= 32 << 20, "{cell_len} x {frames} is too small");
        assert_eq!(index.trailer().geometry.unwrap().stripes, 4);
        let (parity, footer) = per_mille(&index);
        assert!(parity <= 20.0, "parity {parity} per mille with cells of {cell_len}");
        assert!(footer <= 3.0, "footer {footer} per mille with cells of {cell_len}");
    }
}

#[test]
fn dense_segments_leave_out_cell_lengths_first_and_then_the_second_index() {
    let roomy = sealed_with_cells(4000, 550);
    assert!(!roomy.trailer().index_b.is_empty());
    let dense = sealed_with_cells(800, 2600);
    assert!(dense.trailer().index_b.is_empty());
    assert!(
        dense.entries().iter().all(|entry| !entry.cell_lens.is_empty()),
        "the writer knows them"
    );
}

#[test]
fn a_segment_is_full_when_index_and_frames_reach_the_target() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::create(dir.path(), NAME, ParityPlace::Inside).unwrap();
    let plain = noise(0, 1 << 20);
    let mut frame = raw_frame(0, &plain);
    while writer.has_room(frame.len()) {
        writer.append(&mut frame).unwrap();
    }
    assert_eq!(writer.entries().len(), 62);
    let sealed = writer.seal().unwrap();
    let trailer = sealed.index.trailer();
    assert!(trailer.protected_end <= SEGMENT_TARGET);
    assert!(trailer.geometry.unwrap().shard_len <= 64 << 10);
}

#[test]
fn one_frame_always_has_room() {
    let dir = tempfile::tempdir().unwrap();
    let writer = SegmentWriter::create(dir.path(), NAME, ParityPlace::Inside).unwrap();
    assert!(writer.has_room(SEGMENT_TARGET * 2));
}
