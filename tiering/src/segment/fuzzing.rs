//! Frames, indexes and whole segments for fuzzers.

use super::entry::IndexEntry;
use super::frame::{FRAME_ALIGN, Frame, UnverifiedFrameHeader, header_checksum, verify_frame};
use super::hash::hash_block;
use super::header::{HEAD_TRAILER, SegmentHeader, TRAILER_LEN, Trailer};
use super::index::{
    SegmentIndex, decode_columns, decode_index, encode_columns, encode_index, index_sum,
};
use super::le::put;
use super::repair::{check_frames, repair};
use super::scan::scan_frames;
use super::{SegmentId, SegmentName, VolumeId, short};
use crate::block::{BlockId, MAX_BLOCK_LEN};

/// Whose segment the inputs are of: the one of `tests/fixtures`.
const NAME: SegmentName =
    SegmentName { volume: VolumeId([0x5a; 16]), id: SegmentId::from_raw(1 << 48 | 7) };

/// Where a frame header has its checksum, its length in units and its segment.
const FRAME_CHECKSUM: usize = 8;
const FRAME_UNITS: usize = 25;
const FRAME_SEGMENT: usize = 32;
/// Where pages have their checksum, their volume and their segment.
const PAGE_CHECKSUM: usize = 8;
const PAGE_BODY: usize = 24;
const PAGE_VOLUME: usize = 32;

/// Frames: one at the start of the bytes, as it is and with its checksum put right, and all that a
/// scan finds.
pub fn frames(data: &[u8]) {
    let mut stamped = data.to_vec();
    if UnverifiedFrameHeader::read(data).is_ok() {
        let len = usize::from(data[FRAME_UNITS]) * FRAME_ALIGN;
        put(&mut stamped, FRAME_SEGMENT, &NAME.id.raw().to_le_bytes());
        let checksum = header_checksum(&NAME, &stamped[..len]);
        put(&mut stamped, FRAME_CHECKSUM, &checksum);
    }
    for bytes in [data, &stamped] {
        frame(bytes);
        let _ = Frame::import(bytes, || Ok(BlockId::from_raw(9))).map(travel);
        let scan = scan_frames(bytes, &NAME, 0..bytes.len() as u64, true);
        let Ok(scan) = scan else { continue };
        let ends = scan.frames.iter().map(|frame| frame.header.entry.frame_range().end);
        assert!(ends.clone().is_sorted(), "frames do not overlap");
        assert!(ends.max().is_none_or(|end| end <= bytes.len() as u64));
    }
}

fn frame(bytes: &[u8]) {
    if let Ok(header) = UnverifiedFrameHeader::read(bytes)
        && let Ok(entry) = header.hint(0)
    {
        check_entry(&entry);
        read_cells(&entry, bytes);
    }
    if verify_frame(&NAME, 0, bytes).is_ok() {
        travel(Frame::from_stored(&NAME, bytes).expect("it was verified"));
    }
}

/// A frame that was verified can be read, and sent and received again.
fn travel(frame: Frame) {
    let plain = frame.plain().expect("a verified frame can be read").into_bytes();
    assert!(plain.len() <= MAX_BLOCK_LEN);
    assert_eq!(hash_block(&plain).digest(), frame.entry().digest);
    let again = Frame::import(&frame.export(), || Ok(BlockId::from_raw(9)));
    let again = again.expect("what was sent is received");
    assert_eq!(again.plain().expect("it was verified").into_bytes(), plain);
}

/// What reads decode is verified, or an error.
fn read_cells(entry: &IndexEntry, bytes: &[u8]) {
    for range in [0..entry.plain_len, 0..1, entry.plain_len - 1..entry.plain_len] {
        let read = entry.cell_range(range.clone()).expect("within the block");
        let at = read.stored();
        let Some(stored) = bytes.get(at.start as usize..at.end as usize) else { continue };
        let Ok(verified) = read.open(&entry.block_ref(), stored) else { continue };
        assert!(verified.slice(range).is_some(), "what was asked for is there");
    }
}

fn check_entry(entry: &IndexEntry) {
    assert_eq!(entry.check(), Ok(()));
    let frame = entry.frame_range();
    assert!(entry.payload_range().end <= frame.end && entry.frame_len() <= 2 << 20);
}

/// A trailer, and what is behind it as an index or as the columns in one; and all of it as an index
/// file and as a segment.
pub fn segment_index(data: &[u8]) {
    let mut bytes = data.to_vec();
    seal_trailer(&mut bytes, 0);
    if let Ok(trailer) = Trailer::from_bytes(&bytes, &NAME) {
        check_trailer(&trailer);
        let rest = &bytes[TRAILER_LEN..];
        let mut sealed = rest.to_vec();
        seal_index(&mut sealed, &trailer);
        for stored in [rest, &sealed] {
            let _ = decode_index(stored, &trailer).map(|entries| index(&trailer, &entries));
        }
        for cells in [false, true] {
            columns(rest, &trailer, cells);
        }
    }
    let _ = SegmentHeader::from_bytes(data);
    let mut file = data.to_vec();
    seal_trailer(&mut file, FRAME_ALIGN);
    let _ = SegmentIndex::from_idx_bytes(&file, &NAME).map(|found| file_again(&found));
    segment(data);
}

fn segment(data: &[u8]) {
    let mut bytes = data.to_vec();
    let end = bytes.len().saturating_sub(TRAILER_LEN);
    seal_trailer(&mut bytes, HEAD_TRAILER);
    seal_trailer(&mut bytes, end);
    if let Ok(found) = SegmentIndex::from_file(bytes.as_slice(), &NAME) {
        file_again(&found);
        check_frames(bytes.as_slice(), &found);
        found.gaps();
    }
    if let Ok(found) = repair(bytes.as_slice(), &NAME) {
        assert!(found.patches.iter().all(|patch| {
            let end = found.file_len + found.sidecar_len;
            patch.offset + patch.bytes.len() as u64 <= end.max(bytes.len() as u64)
        }));
    }
}

fn file_again(found: &SegmentIndex) {
    found.entries().iter().for_each(check_entry);
    let again = SegmentIndex::from_idx_bytes(&found.to_idx_bytes(), &NAME);
    let again = again.expect("what was written is read");
    assert_eq!(again.entries(), found.entries());
}

fn check_trailer(trailer: &Trailer) {
    let parts = [&trailer.index_a, &trailer.index_b, &trailer.table_a, &trailer.table_b];
    assert!(trailer.file_len <= 1 << 30);
    let end = trailer.file_len + trailer.sidecar_len();
    assert!(end <= 1 << 30 && parts.iter().all(|part| part.start <= part.end && part.end <= end));
    let again = Trailer::from_bytes(&trailer.to_bytes(), &NAME);
    assert_eq!(again.expect("what was written is read"), *trailer);
}

fn index(trailer: &Trailer, entries: &[IndexEntry]) {
    entries.iter().for_each(check_entry);
    assert!(entries.iter().all(|entry| entry.frame_range().end <= trailer.frames_end));
}

fn columns(raw: &[u8], trailer: &Trailer, cells: bool) {
    let count = trailer.blocks as usize;
    if count > raw.len() {
        return;
    }
    let Ok(entries) = decode_columns(raw, count, cells, trailer.frames_end) else { return };
    index(trailer, &entries);
    let ordered: Vec<_> = entries.iter().collect();
    let again = decode_columns(&encode_columns(&ordered, cells), count, cells, trailer.frames_end);
    assert_eq!(again.expect("what was written is read"), entries);
    // Frames that lie over each other may be more than there is room for.
    let stored = encode_index(&NAME, &entries, cells);
    if let Ok(read) = decode_index(&stored, trailer) {
        assert_eq!(read.len(), entries.len());
    }
}

/// Makes what lies there a trailer of the segment, with a checksum that is right.
fn seal_trailer(bytes: &mut [u8], at: usize) {
    let Some(page) = bytes.get_mut(at..at + TRAILER_LEN) else { return };
    put(page, 0, b"\xf1Trail\r\n");
    put(page, PAGE_VOLUME, &NAME.volume.0);
    put(page, PAGE_VOLUME + 16, &NAME.id.raw().to_le_bytes());
    let checksum = short(&blake3::hash(&page[PAGE_BODY..]));
    put(page, PAGE_CHECKSUM, &checksum);
}

/// Makes it the index of the segment that the trailer speaks of, with a checksum that is right.
fn seal_index(bytes: &mut [u8], trailer: &Trailer) {
    const HEADER_LEN: usize = 64;
    let Some(body_len) = bytes.len().checked_sub(HEADER_LEN) else { return };
    put(bytes, 0, b"\xf1Index\r\n");
    put(bytes, 28, &trailer.blocks.to_le_bytes());
    put(bytes, PAGE_VOLUME, &NAME.volume.0);
    put(bytes, PAGE_VOLUME + 16, &NAME.id.raw().to_le_bytes());
    put(bytes, HEADER_LEN - 4, &(body_len as u32).to_le_bytes());
    let checksum = index_sum(bytes);
    put(bytes, PAGE_CHECKSUM, &checksum);
}
