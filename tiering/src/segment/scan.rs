//! Finding frames without an index: after a crash, or where every copy of the index is damaged.
//!
//! Frames follow each other, so a good header says where the next one is. Where none is, the scan
//! looks on at every possible place for the magic and a header whose checksum is right under this
//! segment's name; bytes inside a block that look like a frame of another segment do not count.
//! What cannot be read counts as zeros, so that a bad sector costs the cells that lie in it.

use std::ops::Range;

use crate::error::{Error, Result};

use super::SegmentName;
use super::bytes_at::{ReadAt, ZeroFilled};
use super::frame::{
    FRAME_ALIGN, FRAME_MAX_HEADER_LEN, FrameHeader, MAGIC, UnverifiedFrameHeader, readable_cells,
    verify_frame,
};

/// Bytes looked at at once while searching for the next frame.
const WINDOW: usize = 256 << 10;

/// A frame that was found.
#[derive(Clone, Debug)]
pub struct ScannedFrame {
    /// Its header, whose checksum is right.
    pub header: FrameHeader,
    /// Whether every byte of the block was verified too. Always false for a scan of headers only.
    pub intact: bool,
    /// Which cells can be read, as a bit per cell. Zero for a scan of headers only.
    pub readable: u32,
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// In the order of the file.
    pub frames: Vec<ScannedFrame>,
    /// Ranges where frames should be and none is.
    pub gaps: Vec<Range<u64>>,
    /// Ranges that could not be read.
    pub unreadable: Vec<Range<u64>>,
}

/// Looks for frames of the segment `name` in `range` of `bytes`; `data` verifies the cells of each
/// as well. Memory: one frame.
pub fn scan_frames<R: ReadAt + ?Sized>(
    bytes: &R,
    name: &SegmentName,
    range: Range<u64>,
    data: bool,
) -> Result<Scan> {
    let bytes = &ZeroFilled::new(bytes);
    let mut scan = Scan::default();
    let mut at = range.start;
    while at < range.end {
        if let Some(frame) = frame_at(bytes, name, at, range.end, data)? {
            at = frame.header.entry.frame_range().end;
            scan.frames.push(frame);
            continue;
        }
        let next = resync(bytes, name, at + FRAME_ALIGN as u64, range.end)?.unwrap_or(range.end);
        scan.gaps.push(at..next);
        at = next;
    }
    scan.unreadable = bytes.unreadable();
    Ok(scan)
}

/// The frame at `at`, if one begins there and ends before `end`.
fn frame_at<R: ReadAt + ?Sized>(
    bytes: &R,
    name: &SegmentName,
    at: u64,
    end: u64,
    data: bool,
) -> Result<Option<ScannedFrame>> {
    let Some(header) = header_at(bytes, name, at, end)? else { return Ok(None) };
    if !data {
        return Ok(Some(ScannedFrame { header, intact: false, readable: 0 }));
    }
    let mut frame = vec![0; header.entry.frame_len() as usize];
    read(bytes, &mut frame, at)?;
    let intact = verify_frame(name, at, &frame).is_ok();
    let readable = readable_cells(&header.entry, &frame);
    Ok(Some(ScannedFrame { header, intact, readable }))
}

fn header_at<R: ReadAt + ?Sized>(
    bytes: &R,
    name: &SegmentName,
    at: u64,
    end: u64,
) -> Result<Option<FrameHeader>> {
    let mut start = [0; FRAME_MAX_HEADER_LEN];
    let len = (end - at).min(start.len() as u64) as usize;
    let start = &mut start[..len];
    read(bytes, start, at)?;
    match UnverifiedFrameHeader::read(start).and_then(|header| header.verify(name, at)) {
        Ok(header) => Ok(Some(header).filter(|header| header.entry.frame_range().end <= end)),
        Err(error @ Error::TooNew { .. }) => Err(error),
        Err(_) => Ok(None),
    }
}

/// The next place from `at` on where a good header stands.
fn resync<R: ReadAt + ?Sized>(
    bytes: &R,
    name: &SegmentName,
    mut at: u64,
    end: u64,
) -> Result<Option<u64>> {
    let mut window = vec![0; WINDOW];
    while at < end {
        let len = (end - at).min(WINDOW as u64) as usize;
        read(bytes, &mut window[..len], at)?;
        for (index, place) in window[..len].chunks_exact(FRAME_ALIGN).enumerate() {
            let found = at + (index * FRAME_ALIGN) as u64;
            if place[..MAGIC.len()] == MAGIC && header_at(bytes, name, found, end)?.is_some() {
                return Ok(Some(found));
            }
        }
        at += len as u64;
    }
    Ok(None)
}

fn read<R: ReadAt + ?Sized>(bytes: &R, buf: &mut [u8], at: u64) -> Result<()> {
    bytes.read_exact_at(buf, at).map_err(Error::io("scan a segment for frames"))
}
