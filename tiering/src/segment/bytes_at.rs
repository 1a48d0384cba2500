//! Bytes at an offset: what the readers of this module need of a file, or of an object that was
//! fetched whole.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// What a disk fails to read at once: pages around a bad sector.
const PAGE_LEN: u64 = 4096;

/// Random access for reading.
pub trait ReadAt {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether there is nothing at all.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from `offset`; ending before that is `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Length of the sidecar of these bytes, which are a segment; `NotFound` without one.
    fn sidecar_len(&self) -> io::Result<u64> {
        Err(io::ErrorKind::NotFound.into())
    }

    /// As [`ReadAt::read_exact_at`], of the sidecar.
    fn read_sidecar_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl ReadAt for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }
}

impl ReadAt for [u8] {
    fn len(&self) -> io::Result<u64> {
        Ok(<[u8]>::len(self) as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Bytes of which those that cannot be read are zeros, page by page, so that one bad sector costs
/// what lies in it and no more. The end of the bytes is still an error.
pub(super) struct ZeroFilled<'a, R: ?Sized> {
    bytes: &'a R,
    unreadable: RefCell<Vec<Range<u64>>>,
    failure: RefCell<Option<io::Error>>,
}

impl<'a, R: ReadAt + ?Sized> ZeroFilled<'a, R> {
    pub(super) fn new(bytes: &'a R) -> Self {
        Self { bytes, unreadable: RefCell::default(), failure: RefCell::default() }
    }

    /// Why the last part that could not be read could not be.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.failure.take()
    }

    /// What could not be read so far, in order and without overlaps.
    pub(super) fn unreadable(&self) -> Vec<Range<u64>> {
        let mut ranges = self.unreadable.borrow().clone();
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        ranges.dedup_by(|next, range| {
            let joined = next.start <= range.end;
            if joined {
                range.end = range.end.max(next.end);
            }
            joined
        });
        ranges
    }
}

impl<R: ReadAt + ?Sized> ReadAt for ZeroFilled<'_, R> {
    fn len(&self) -> io::Result<u64> {
        self.bytes.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self.bytes.read_exact_at(buf, offset) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {}
            done => return done,
        }
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let len = rest.len().min((PAGE_LEN - at % PAGE_LEN) as usize);
            let (page, behind) = rest.split_at_mut(len);
            match self.bytes.read_exact_at(page, at) {
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    page.fill(0);
                    self.unreadable.borrow_mut().push(at..at + len as u64);
                    self.failure.replace(Some(error));
                }
                done => done?,
            }
            at += len as u64;
            rest = behind;
        }
        Ok(())
    }
}
