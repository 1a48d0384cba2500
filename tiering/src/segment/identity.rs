//! Whose segment some bytes are: told by any one of the pages at both ends. Asked before a copy
//! is taken for another's equal, and before one is replaced.

use std::ops::Range;

use crate::error::{Error, Result};

use super::SegmentName;
use super::bytes_at::ReadAt;
use super::header::{DATA_START, HEAD_TRAILER, SegmentHeader, TRAILER_LEN, Trailer, page_name};

/// What the pages of some bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// They are the segment that was asked about, with this content.
    Same(Trailer),
    /// They belong to another volume or segment.
    Foreign(SegmentName),
    /// No page is whole.
    Unknown,
}

/// Looks at header and trailers of what should be the segment `name`.
///
/// [`Error::Io`] when a page cannot be read, [`Error::TooNew`] for a later format: both say
/// nothing about whose it is.
pub fn identify<R: ReadAt + ?Sized>(bytes: &R, name: &SegmentName) -> Result<Identity> {
    let failed = || Error::io(format!("read the pages of segment {}", name.id));
    let len = bytes.len().map_err(failed())?;
    let page = |range: Range<u64>| {
        let mut page = vec![0; (range.end.min(len).saturating_sub(range.start)) as usize];
        bytes.read_exact_at(&mut page, range.start.min(len)).map_err(failed())?;
        Ok::<_, Error>(page)
    };
    let head = page(0..DATA_START)?;
    let tail = page(len.saturating_sub(TRAILER_LEN as u64)..len)?;
    let trailers = [head.get(HEAD_TRAILER..).unwrap_or_default(), &tail];
    let header = SegmentHeader::from_bytes(&head).ok().map(|header| header.name);
    let named = trailers.into_iter().filter_map(page_name).chain(header);
    if let Some(other) = named.into_iter().find(|found| found != name) {
        return Ok(Identity::Foreign(other));
    }
    for trailer in trailers {
        match Trailer::from_bytes(trailer, name) {
            Ok(trailer) => return Ok(Identity::Same(trailer)),
            Err(Error::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Identity::Unknown)
}
