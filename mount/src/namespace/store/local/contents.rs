//! A look at the tables of contents of fjall's files before fjall reads them: it takes the number of
//! their entries for granted, and a damaged one would end the process for want of memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What such a file ends with: magic, version, kind and value of a checksum, and where the table of
/// contents begins and how long it is, little-endian.
const TRAILER_LEN: u64 = 38;
const TRAILER_MAGIC: &[u8] = b"SFA!";
const START_AT: usize = 22;

/// What the table of contents begins with, and the number of entries behind it.
const CONTENTS_MAGIC: &[u8] = b"TOC!";

/// Deepest directory of a database.
const MAX_DEPTH: usize = 8;

/// Fails for a file below `path` whose table of contents claims more than the file can hold.
pub(super) fn check(path: &Path) -> io::Result<()> {
    check_below(path, MAX_DEPTH)
}

fn check_below(path: &Path, depth: usize) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && depth > 0 {
            check_below(&entry.path(), depth - 1)?;
        } else if kind.is_file() && !is_sane(&File::open(entry.path())?)? {
            let place = entry.path();
            return Err(io::Error::other(format!("{} is damaged", place.display())));
        }
    }
    Ok(())
}

/// Whether the file is of another kind, or claims no more entries than it has bytes for.
fn is_sane(file: &File) -> io::Result<bool> {
    let len = file.metadata()?.len();
    let Some(trailer_at) = len.checked_sub(TRAILER_LEN) else { return Ok(true) };
    let mut trailer = [0; TRAILER_LEN as usize];
    file.read_exact_at(&mut trailer, trailer_at)?;
    let start = trailer[START_AT..].first_chunk().map_or(0, |start| u64::from_le_bytes(*start));
    if !trailer.starts_with(TRAILER_MAGIC) || start >= trailer_at.saturating_sub(7) {
        // Of another kind, or refused by fjall itself.
        return Ok(true);
    }
    let mut head = [0; 8];
    file.read_exact_at(&mut head, start)?;
    let count = head[4..].first_chunk().map_or(0, |count| u32::from_le_bytes(*count));
    Ok(!head.starts_with(CONTENTS_MAGIC) || u64::from(count) <= trailer_at - start)
}
