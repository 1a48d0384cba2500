//! One plain copy: written, proven, and proven again.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags, Mode, OFlags};

use super::Charge;
use crate::error::{FsError, FsResult};

/// Bytes read, hashed and written at a time.
const STEP: usize = 1 << 20;

/// A plain copy of a file that nothing can change. It ends with the last who holds it.
#[derive(Debug)]
pub struct Plain {
    file: File,
    len: u64,
    digest: blake3::Hash,
    stamp: Stamp,
    is_damaged: AtomicBool,
    is_told: AtomicBool,
    _charge: Charge,
}

/// What changes when somebody writes to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            len: meta.len(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// What a copy is made from.
pub(crate) trait Source {
    /// The next bytes from `offset` on, `len` of them, verified; `None` when it is not to go on.
    fn read(&mut self, offset: u64, len: u32) -> FsResult<Option<Bytes>>;

    /// Whether proving the copy is to go on.
    fn goes_on(&mut self) -> bool {
        true
    }
}

/// What comparing a copy with what had been written came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Whole,
    Damaged,
    /// It was not to go on.
    GivenUp,
}

/// Writes a copy of `len` bytes into `dir` and proves it; `None` when the source gave up.
pub(crate) fn write(
    dir: &Path,
    len: u64,
    mut charge: Charge,
    source: &mut dyn Source,
) -> FsResult<Option<Plain>> {
    let failed = |error: rustix::io::Errno| FsError::io("thawing a file", io::Error::from(error));
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    let file = File::from(file);
    if len > 0 {
        // A full disk is found out before anything is read.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len).map_err(failed)?;
    }
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < len {
        let step = (len - at).min(STEP as u64) as u32;
        let Some(bytes) = source.read(at, step)? else { return Ok(None) };
        if bytes.len() != step as usize {
            return Ok(None);
        }
        hasher.update(&bytes);
        file.write_all_at(&bytes, at).map_err(|error| FsError::io("thawing a file", error))?;
        at += u64::from(step);
    }
    let digest = hasher.finalize();
    let io_failed = |error| FsError::io("proving a thawed file", error);
    file.sync_data().map_err(io_failed)?;
    let Some(read) = hash(&file, len, || source.goes_on()).map_err(io_failed)? else {
        return Ok(None);
    };
    if read != digest {
        return Err(FsError::io("thawing a file", "it reads otherwise than it was written"));
    }
    let stamp = Stamp::of(&file).map_err(io_failed)?;
    charge.is_written();
    let (is_damaged, is_told) = (AtomicBool::new(false), AtomicBool::new(false));
    Ok(Some(Plain { file, len, digest, stamp, is_damaged, is_told, _charge: charge }))
}

impl Plain {
    /// The copy, open; to be read only.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether it was seen to differ from what was written.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Acquire)
    }

    /// Whether its damage is to be told: once, however often it is seen.
    pub(crate) fn is_news(&self) -> bool {
        !self.is_told.swap(true, Ordering::Relaxed)
    }

    /// Whether nobody wrote to it, as far as its times and length tell. Once it was not so, never again.
    pub(crate) fn is_untouched(&self) -> bool {
        let same = Stamp::of(&self.file).is_ok_and(|now| now == self.stamp);
        if !same {
            self.is_damaged.store(true, Ordering::Release);
        }
        !self.is_damaged()
    }

    /// Whether it still is what was written, by its bytes; as long as it `goes_on`.
    pub(crate) fn prove(&self, goes_on: impl FnMut() -> bool) -> Proof {
        match hash(&self.file, self.len, goes_on) {
            Ok(None) => return Proof::GivenUp,
            Ok(Some(now)) if now == self.digest => {}
            Ok(Some(_)) | Err(_) => self.is_damaged.store(true, Ordering::Release),
        }
        if self.is_untouched() { Proof::Whole } else { Proof::Damaged }
    }
}

/// Hashes what the disk gives, not what memory still has; `None` when it was not to go on.
fn hash(
    file: &File,
    len: u64,
    mut goes_on: impl FnMut() -> bool,
) -> io::Result<Option<blake3::Hash>> {
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; len.min(STEP as u64) as usize];
    let mut at = 0;
    while at < len {
        if !goes_on() {
            return Ok(None);
        }
        let step = (len - at).min(STEP as u64) as usize;
        file.read_exact_at(&mut buffer[..step], at)?;
        hasher.update(&buffer[..step]);
        at += step as u64;
    }
    Ok(Some(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use super::super::ThawCounts;
    use super::super::testing::copy;
    use super::*;

    #[test]
    fn a_copy_has_no_name_and_reads_as_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let counts = Arc::new(ThawCounts::default());
        let bytes: Vec<u8> = (0..3 * STEP + 5).map(|at| (at / 7) as u8).collect();
        let len = bytes.len() as u64;
        let plain = write(dir.path(), len, counts.charge(len), &mut &bytes[..]).unwrap().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing to clear away");
        let mut read = vec![0; bytes.len()];
        plain.file().read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes);
        assert!(plain.is_untouched());
        assert_eq!(plain.prove(|| true), Proof::Whole);
        assert_eq!(plain.prove(|| false), Proof::GivenUp);
        assert_eq!(counts.bytes(), len);
        drop(plain);
        assert_eq!(counts.bytes(), 0);
    }

    #[test]
    fn a_source_that_ends_early_or_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let counts = Arc::new(ThawCounts::default());
        let short = write(dir.path(), 10, counts.charge(10), &mut &b"nine byte"[..]).unwrap();
        assert!(short.is_none());
        let nowhere = dir.path().join("nowhere");
        write(&nowhere, 4, counts.charge(4), &mut &b"four"[..]).unwrap_err();
        assert_eq!(counts.now(), crate::thaw::Thawed::default());
    }

    #[test]
    fn damage_is_seen_by_the_times_and_by_the_bytes_and_is_not_forgotten() {
        let counts = Arc::new(ThawCounts::default());
        let plain = copy(b"ice and snow", &counts);
        plain.file().write_all_at(b"I", 0).unwrap();
        assert!(!plain.is_untouched() && plain.is_damaged());
        plain.file().write_all_at(b"i", 0).unwrap();
        assert!(!plain.is_untouched());
        assert_eq!(plain.prove(|| true), Proof::Damaged, "as it was before, but no longer trusted");

        let shorter = copy(b"ice and snow", &counts);
        shorter.file().set_len(3).unwrap();
        assert!(shorter.is_news() && !shorter.is_news());
        assert_eq!(shorter.prove(|| true), Proof::Damaged);
        assert!(shorter.is_damaged());
    }
}
