//! What is found again of a segment that a crash left open.

use super::*;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open segment with blocks of those lengths.
fn open_segment(dir: &Path, lens: &[usize]) -> (PathBuf, Vec<IndexEntry>) {
    let mut writer = SegmentWriter::create(dir, NAME, ParityPlace::Inside).unwrap();
    let entries = lens
        .iter()
        .enumerate()
        .map(|(i, &len)| writer.append(&mut raw_frame(i as u64, &noise(i as u64, len))).unwrap())
        .collect();
    writer.sync().unwrap();
    (writer.path(), entries)
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn ids(entries: &[IndexEntry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.id.raw()).collect()
}

const LENS: [usize; 6] = [100, 70_000, 5000, 3 * CELL_LEN, 17, 40_000];

#[test]
fn an_undamaged_open_segment_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (_, entries) = open_segment(dir.path(), &LENS);
    let recovered = SegmentWriter::recover(dir.path(), NAME).unwrap();
    assert_eq!(recovered.writer.entries(), entries);
    assert!(recovered.damaged.is_empty() && recovered.gaps.is_empty());
    assert_eq!(recovered.torn_bytes, 0);
    let mut writer = recovered.writer;
    let sealed = writer.seal().unwrap();
    let file = std::fs::File::open(sealed.path).unwrap();
    assert!(check_frames(&file, &sealed.index).is_empty());
    assert!(repair(&file, &NAME).unwrap().is_intact());
    assert!(writer.append(&mut raw_frame(9, b"late")).is_err());
}

#[test]
fn a_torn_last_append_is_cut_off_wherever_it_tore() {
    let dir = tempfile::tempdir().unwrap();
    let (path, entries) = open_segment(dir.path(), &LENS);
    let whole = std::fs::read(&path).unwrap();
    let last = entries.last().unwrap().offset as usize;
    for cut in [last + 1, last + 50, last + 200, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let recovered = SegmentWriter::recover(dir.path(), NAME).unwrap();
        assert_eq!(ids(recovered.writer.entries()), [0, 1, 2, 3, 4], "cut at {cut}");
        assert_eq!(recovered.writer.len(), last as u64);
        assert_eq!(recovered.torn_bytes, (cut - last) as u64);
    }
    // The length was written but not the data: zeros to the end.
    std::fs::write(&path, &whole[..last + 100]).unwrap();
    change(&path, |bytes| bytes.resize(whole.len() + 8192, 0));
    let recovered = SegmentWriter::recover(dir.path(), NAME).unwrap();
    assert_eq!(ids(recovered.writer.entries()), [0, 1, 2, 3, 4]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), last as u64);
}

#[test]
fn frames_after_damage_in_the_middle_are_found() {
    for (from, len) in [(0, 40), (8, 8), (30, 90), (0, 70_144), (60, 70_000)] {
        let dir = tempfile::tempdir().unwrap();
        let (path, entries) = open_segment(dir.path(), &LENS);
        let at = entries[1].offset as usize + from;
        change(&path, |bytes| bytes[at..at + len].iter_mut().for_each(|b| *b ^= 0x55));
        let recovered = SegmentWriter::recover(dir.path(), NAME).unwrap();
        assert_eq!(ids(recovered.writer.entries()), [0, 2, 3, 4, 5], "damage {from}+{len}");
        assert_eq!(recovered.gaps, [entries[1].frame_range()]);
        let mut writer = recovered.writer;
        let sealed = writer.seal().unwrap();
        assert_eq!(sealed.index.gaps(), [entries[1].frame_range()]);
        let file = std::fs::File::open(&sealed.path).unwrap();
        assert_eq!(SegmentIndex::from_file(&file, &NAME).unwrap(), sealed.index);
        assert!(repair(&file, &NAME).unwrap().is_intact());
    }
}

#[test]
fn a_block_with_one_bad_cell_is_kept_for_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (path, entries) = open_segment(dir.path(), &LENS);
    let second = entries[3].cell_range(CELL_LEN as u32..CELL_LEN as u32 + 1).unwrap().stored();
    change(&path, |bytes| bytes[second.start as usize] ^= 1);
    let recovered = SegmentWriter::recover(dir.path(), NAME).unwrap();
    assert_eq!(recovered.writer.entries(), entries);
    let [bad] = recovered.damaged.as_slice() else { panic!("one frame is damaged") };
    assert_eq!((bad.header.entry.id.raw(), bad.readable), (3, 0b101));
}

#[test]
fn a_half_written_footer_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let (open, entries) = open_segment(dir.path(), &LENS);
    let mut writer = SegmentWriter::recover(dir.path(), NAME).unwrap().writer;
    let sealed = writer.seal().unwrap();
    let complete = std::fs::read(&sealed.path).unwrap();
    std::fs::remove_file(&sealed.path).unwrap();
    let frames_end = entries.last().unwrap().frame_range().end as usize;
    for cut in [frames_end, frames_end + 10, (frames_end + complete.len()) / 2, complete.len()] {
        std::fs::write(&open, &complete[..cut]).unwrap();
        let mut recovered = SegmentWriter::recover(dir.path(), NAME).unwrap();
        assert_eq!(recovered.writer.entries(), entries);
        let again = recovered.writer.seal().unwrap();
        assert_eq!(std::fs::read(&again.path).unwrap(), complete, "cut at {cut}");
        std::fs::remove_file(&again.path).unwrap();
    }
}

#[test]
fn files_that_hold_nothing_are_recovered_as_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = open_segment(dir.path(), &[]);
    for len in [0, 1, 511, 512] {
        let header = std::fs::read(&path).unwrap();
        std::fs::write(&path, &header[..len]).unwrap();
        let recovered = SegmentWriter::recover(dir.path(), NAME).unwrap();
        assert!(recovered.writer.is_empty());
        assert_eq!(std::fs::read(&path).unwrap().len(), 512);
    }
    let mut writer = SegmentWriter::recover(dir.path(), NAME).unwrap().writer;
    assert!(writer.seal().is_err());
    writer.discard().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_damaged_header_page_loses_no_frame() {
    let dir = tempfile::tempdir().unwrap();
    let (path, entries) = open_segment(dir.path(), &LENS);
    let before = std::fs::read(&path).unwrap();
    change(&path, |bytes| bytes[..512].fill(0xee));
    let recovered = SegmentWriter::recover(dir.path(), NAME).unwrap();
    assert_eq!(recovered.writer.entries(), entries);
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn a_segment_stored_inside_a_block_is_not_taken_for_frames() {
    let dir = tempfile::tempdir().unwrap();
    let inner = tempfile::tempdir().unwrap();
    let (path, _) = open_segment(inner.path(), &[300, 400]);
    let nested = std::fs::read(path).unwrap();
    let other = SegmentName { id: SegmentId::from_raw(99), ..NAME };
    let mut writer = SegmentWriter::create(dir.path(), other, ParityPlace::Inside).unwrap();
    writer.append(&mut raw_frame(50, &noise(1, 1000))).unwrap();
    // Padded so that the nested frames lie at multiples of 16 of the outer file.
    writer.append(&mut raw_frame(51, &nested)).unwrap();
    writer.append(&mut raw_frame(52, &noise(2, 1000))).unwrap();
    let second = writer.entries()[1].clone();
    let nested_at = second.payload_range().start + DATA_START;
    assert!(nested_at.is_multiple_of(16));
    let file = std::fs::File::options().write(true).open(writer.path()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 16], second.offset).unwrap();
    drop(writer);
    let recovered = SegmentWriter::recover(dir.path(), other).unwrap();
    assert_eq!(ids(recovered.writer.entries()), [50, 52]);
}

#[test]
fn a_failed_append_leaves_the_segment_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::create(dir.path(), NAME, ParityPlace::Inside).unwrap();
    writer.append(&mut raw_frame(1, &noise(1, 9000))).unwrap();
    let end = writer.len();
    // What a write that failed half-way leaves behind the end.
    let path = writer.path();
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(&[7; 5000]).unwrap();
    let entry = writer.append(&mut raw_frame(2, &noise(2, 30))).unwrap();
    assert_eq!(entry.offset, end);
    drop(writer);
    let recovered = SegmentWriter::recover(dir.path(), NAME).unwrap();
    assert_eq!(ids(recovered.writer.entries()), [1, 2]);
}

#[test]
fn a_segment_is_created_once() {
    let dir = tempfile::tempdir().unwrap();
    let _writer = SegmentWriter::create(dir.path(), NAME, ParityPlace::Inside).unwrap();
    assert!(SegmentWriter::create(dir.path(), NAME, ParityPlace::Inside).is_err());
}

/// A file on a disk with a bad sector, which fails by the page.
struct BadSector {
    bytes: Vec<u8>,
    bad: std::ops::Range<u64>,
}

impl ReadAt for BadSector {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        if offset < self.bad.end && offset + buf.len() as u64 > self.bad.start {
            return Err(std::io::Error::from_raw_os_error(5));
        }
        ReadAt::read_exact_at(self.bytes.as_slice(), buf, offset)
    }
}

#[test]
fn a_bad_sector_costs_the_cells_in_it_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (path, entries) = open_segment(dir.path(), &LENS);
    let bytes = std::fs::read(&path).unwrap();
    let len = bytes.len() as u64;
    // In the second of three cells of block 3.
    let bad = (entries[3].offset + 100_000) & !4095;
    let file = BadSector { bytes, bad: bad..bad + 4096 };
    let scan = scan_frames(&file, &NAME, DATA_START..len, true).unwrap();
    let found: Vec<_> = scan.frames.iter().map(|f| (f.header.entry.id.raw(), f.readable)).collect();
    assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(found[3].1, 0b101);
    assert_eq!(scan.unreadable, std::slice::from_ref(&(bad..bad + 4096)));
    // Sealed like that, it is whole by its own checksums.
    let geometry = parity::Geometry::plan(len - DATA_START, 4096);
    let sealed = parity::protect(&file, DATA_START, len - DATA_START, &geometry).unwrap();
    let mut zeros = file.bytes.clone();
    zeros[bad as usize..bad as usize + 4096].fill(0);
    let same = parity::protect(zeros.as_slice(), DATA_START, len - DATA_START, &geometry).unwrap();
    assert!(sealed.table == same.table && *sealed.parity == *same.parity);
}

#[test]
fn nothing_behind_a_bad_sector_at_the_start_of_a_frame_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (path, entries) = open_segment(dir.path(), &LENS);
    let bytes = std::fs::read(&path).unwrap();
    let len = bytes.len() as u64;
    let bad = entries[1].offset..entries[1].offset + 1;
    let scan = scan_frames(&BadSector { bytes, bad }, &NAME, DATA_START..len, true).unwrap();
    let found: Vec<_> = scan.frames.iter().map(|f| f.header.entry.id.raw()).collect();
    assert!(found.ends_with(&[2, 3, 4, 5]), "{found:?}");
}

#[test]
fn an_index_is_read_from_the_copy_that_the_disk_gives() {
    let dir = tempfile::tempdir().unwrap();
    open_segment(dir.path(), &LENS);
    let sealed = SegmentWriter::recover(dir.path(), NAME).unwrap().writer.seal().unwrap();
    let bytes = std::fs::read(&sealed.path).unwrap();
    let len = bytes.len() as u64;
    let mut file = BadSector { bytes, bad: len - 100..len };
    assert_eq!(SegmentIndex::from_file(&file, &NAME).unwrap(), sealed.index);
    file.bad = 0..len;
    let failed = SegmentIndex::from_file(&file, &NAME);
    assert!(matches!(failed, Err(crate::Error::Io { .. })), "{failed:?}");
}

/// Sums of zeros would have a repair write zeros over it once the disk gives it again.
#[test]
fn what_cannot_be_read_back_is_not_sealed_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::create(dir.path(), NAME, ParityPlace::Inside).unwrap();
    writer.append(&mut raw_frame(42, &noise(1, 100_000))).unwrap();
    let blind = std::fs::OpenOptions::new().write(true).open(writer.path()).unwrap();
    let readable = std::mem::replace(&mut writer.file, Arc::new(blind));
    let refused = writer.seal().unwrap_err();
    assert!(refused.to_string().contains("read bytes"), "{refused}");
    writer.file = readable;
    let sealed = writer.seal().unwrap();
    let bytes = std::fs::read(&sealed.path).unwrap();
    assert!(check_frames(bytes.as_slice(), &sealed.index).is_empty());
    assert!(repair(bytes.as_slice(), &NAME).unwrap().is_intact());
}
