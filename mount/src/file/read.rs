//! Reading: overlay first, committed extents for what it does not know, zeros for the rest.
//!
//! Which bytes come from where is decided under the file's lock, blocks are read without it. A
//! block that vanished in between was replaced and freed; then the decision is made anew.
//!
//! While a reader goes through a file of which blocks are in cold, the block store is told which
//! blocks come next; only the file knows where they are.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use firn_tiering::{BlockRef, Error as TieringError, Intent, Source, Wait};

use super::node::{FileNode, FileState};
use super::overlay::Fill;
use super::piece::{Content, Piece};
use super::pins::StoredBlock;
use super::stream::ReadStream;
use super::{Files, SLOT_LEN};
use crate::error::{FsError, FsResult};

/// How often the decision is made anew.
const ATTEMPTS: usize = 3;

static ZEROS: [u8; SLOT_LEN as usize] = [0; SLOT_LEN as usize];

/// Where a run of bytes comes from.
#[derive(Clone, Debug)]
enum From {
    Zeros,
    Memory(Bytes),
    Block { block: BlockRef, offset: u32, _pin: Option<Arc<StoredBlock>> },
}

#[derive(Clone, Debug)]
struct Part {
    range: Range<u64>,
    from: From,
}

impl Part {
    fn len(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }

    /// Takes up `next` where it continues in the same block.
    fn join(&mut self, next: &Self) -> bool {
        if let From::Block { block, offset, .. } = &self.from
            && let From::Block { block: other, offset: behind, .. } = &next.from
            && block == other
            && u64::from(*offset) + self.len() as u64 == u64::from(*behind)
        {
            self.range.end = next.range.end;
            return true;
        }
        matches!((&self.from, &next.from), (From::Zeros, From::Zeros)) && {
            self.range.end = next.range.end;
            true
        }
    }

    fn same_source(&self, other: &Self) -> bool {
        let block = |part: &Self| match &part.from {
            From::Block { block, offset, .. } => Some((*block, *offset)),
            _ => None,
        };
        self.range == other.range && block(self) == block(other)
    }
}

/// What a read brought.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) bytes: Bytes,
    /// Some of it came from the cold tier.
    pub(crate) from_cold: bool,
}

/// How a read goes about it.
#[derive(Clone, Copy)]
pub(crate) struct Manner<'a> {
    /// The handle's reader, where there is one.
    pub(crate) stream: Option<&'a ReadStream>,
    /// Nobody needs it: it says nothing of how the file is used.
    pub(crate) is_upkeep: bool,
    /// Whether what is likely to be read next may be fetched as well; asked only where that is
    /// about to be done.
    pub(crate) may_look_ahead: &'a dyn Fn() -> bool,
}

impl Files {
    /// Up to `len` bytes from `offset`, fewer only at the end of the file.
    pub(crate) fn read(
        &self,
        node: &FileNode,
        manner: Manner<'_>,
        offset: u64,
        len: u32,
        wait: Wait,
    ) -> FsResult<Outcome> {
        let waits = !matches!(wait, Wait::No);
        if let Some(stream) = manner.stream {
            stream.note(offset, offset.saturating_add(u64::from(len)));
            if waits {
                // Before waiting, so that both are under way together.
                self.look_ahead(node, stream, manner.may_look_ahead);
            }
        }
        let read = self.read_now(node, manner, offset, len, wait);
        let Some(stream) = manner.stream else { return read };
        match &read {
            Ok(outcome) if outcome.from_cold && waits => stream.waited(),
            Ok(outcome) => stream.set_cold(outcome.from_cold),
            Err(FsError::WouldWait) => stream.set_cold(true),
            Err(_) => {}
        }
        if read.is_ok() {
            self.look_ahead(node, stream, manner.may_look_ahead);
        }
        read
    }

    /// Tells the store what a sequential reader of cold data wants next.
    fn look_ahead(&self, node: &FileNode, stream: &ReadStream, may: &dyn Fn() -> bool) {
        stream.look_ahead(|reader, ahead, from| {
            if !may() {
                return from;
            }
            let mut comes = Comes { files: self, node, at: from, slot: None };
            self.blocks.will_read(reader, ahead, &mut || comes.next());
            comes.at
        });
    }

    fn read_now(
        &self,
        node: &FileNode,
        manner: Manner<'_>,
        offset: u64,
        len: u32,
        wait: Wait,
    ) -> FsResult<Outcome> {
        let (mut parts, covers_file) = self.locate(node, offset, len)?;
        let mut from_cold = false;
        let intent = if manner.is_upkeep {
            Intent::Upkeep
        } else if covers_file && is_one_block(&parts) && (manner.may_look_ahead)() {
            Intent::SmallFile
        } else {
            Intent::Part
        };
        for _ in 1..ATTEMPTS {
            match self.assemble(&parts, intent, &mut from_cold, wait) {
                Err(error) if was_replaced(&error) => {
                    let (again, _) = self.locate(node, offset, len)?;
                    let same = again.len() == parts.len()
                        && again.iter().zip(&parts).all(|(new, old)| new.same_source(old));
                    if same {
                        return Err(read_error(node, offset, error));
                    }
                    parts = again;
                }
                done => {
                    return done
                        .map(|bytes| Outcome { bytes, from_cold })
                        .map_err(|error| read_error(node, offset, error));
                }
            }
        }
        self.assemble(&parts, intent, &mut from_cold, wait)
            .map(|bytes| Outcome { bytes, from_cold })
            .map_err(|error| read_error(node, offset, error))
    }

    /// Where the bytes come from, and whether they are all of the file.
    fn locate(&self, node: &FileNode, offset: u64, len: u32) -> FsResult<(Vec<Part>, bool)> {
        let state = node.live_state()?;
        let end = offset.saturating_add(u64::from(len)).min(state.size);
        if offset >= end {
            return Ok((Vec::new(), false));
        }
        let is_all = offset == 0 && end == state.size;
        Ok((self.parts(node, &state, offset..end)?, is_all))
    }

    fn parts(&self, node: &FileNode, state: &FileState, range: Range<u64>) -> FsResult<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::with_capacity(4);
        let mut push = |part: Part| {
            if !parts.last_mut().is_some_and(|last| last.join(&part)) {
                parts.push(part);
            }
        };
        for found in state.overlay.lookup(range) {
            let range = found.range;
            let from = match found.fill {
                None => {
                    self.committed(node, range, &mut push)?;
                    continue;
                }
                Some(Fill::Hole | Fill::Unwritten) => From::Zeros,
                Some(Fill::Buffered(bytes)) => From::Memory(bytes),
                Some(Fill::Encoding { job, at }) => {
                    let at = at as usize;
                    let len = (range.end - range.start) as usize;
                    From::Memory(job.plain.slice(at..at + len))
                }
                Some(Fill::Stored { block, at }) => {
                    From::Block { block: block.block, offset: at, _pin: Some(block) }
                }
                Some(Fill::Active { .. }) => unreachable!("a lookup copies active bytes"),
            };
            push(Part { range, from });
        }
        Ok(parts)
    }

    /// The parts of a range that the overlay does not know.
    fn committed(
        &self,
        node: &FileNode,
        range: Range<u64>,
        push: &mut impl FnMut(Part),
    ) -> FsResult<()> {
        let mut pos = range.start;
        while pos < range.end {
            let slot = pos / SLOT_LEN;
            let base = slot * SLOT_LEN;
            let end = range.end.min(base + SLOT_LEN);
            let pieces = self.slot(node, slot)?;
            let clip = (pos - base) as u32..(end - base) as u32;
            let first = pieces.partition_point(|piece| piece.end() <= clip.start);
            for piece in pieces[first..].iter().map_while(|piece| piece.clip(&clip)) {
                let start = base + u64::from(piece.start);
                let stop = base + u64::from(piece.end());
                if pos < start {
                    push(Part { range: pos..start, from: From::Zeros });
                }
                let from = match piece.content {
                    Content::Block { block, offset } => From::Block { block, offset, _pin: None },
                    Content::Inline(bytes) => From::Memory(bytes),
                    Content::Unwritten => From::Zeros,
                };
                push(Part { range: start..stop, from });
                pos = stop;
            }
            if pos < end {
                push(Part { range: pos..end, from: From::Zeros });
            }
            pos = end;
        }
        Ok(())
    }

    fn assemble(
        &self,
        parts: &[Part],
        intent: Intent,
        from_cold: &mut bool,
        wait: Wait,
    ) -> Result<Bytes, TieringError> {
        match parts {
            [] => Ok(Bytes::new()),
            [part] => self.fetch(part, intent, from_cold, wait),
            parts => {
                let mut all = BytesMut::with_capacity(parts.iter().map(Part::len).sum());
                for part in parts {
                    all.extend_from_slice(&self.fetch(part, intent, from_cold, wait)?);
                }
                Ok(all.freeze())
            }
        }
    }

    fn fetch(
        &self,
        part: &Part,
        intent: Intent,
        from_cold: &mut bool,
        wait: Wait,
    ) -> Result<Bytes, TieringError> {
        let len = part.len();
        match &part.from {
            From::Zeros if len <= ZEROS.len() => Ok(Bytes::from_static(&ZEROS[..len])),
            From::Zeros => Ok(Bytes::from(vec![0; len])),
            From::Memory(bytes) => Ok(bytes.clone()),
            From::Block { block, offset, .. } => {
                let range = *offset..*offset + len as u32;
                let served = self.blocks.read_for(block, range, intent, wait)?;
                *from_cold |= served.source == Source::Cold;
                let bytes = served.bytes;
                if bytes.len() != len {
                    let reason = format!("gave {} bytes of {len}", bytes.len());
                    return Err(TieringError::Lost { id: block.id, reason });
                }
                Ok(bytes)
            }
        }
    }
}

/// The blocks that committed extents name from an offset on, in the order of the file.
struct Comes<'a> {
    files: &'a Files,
    node: &'a FileNode,
    at: u64,
    /// The slot looked at last.
    slot: Option<(u64, Arc<[Piece]>)>,
}

impl Comes<'_> {
    /// The next block that begins at or behind where this has come to; `None` at the end of the
    /// file, or where it cannot be read now.
    fn next(&mut self) -> Option<BlockRef> {
        let state = self.node.live_state().ok()?;
        while self.at < state.size {
            let slot = self.at / SLOT_LEN;
            if self.slot.as_ref().is_none_or(|(known, _)| *known != slot) {
                self.slot = Some((slot, self.files.slot(self.node, slot).ok()?));
            }
            let (_, pieces) = self.slot.as_ref()?;
            let base = slot * SLOT_LEN;
            let within = (self.at - base) as u32;
            let first = pieces.partition_point(|piece| piece.end() <= within);
            for piece in &pieces[first..] {
                self.at = base + u64::from(piece.end());
                if let Content::Block { block, .. } = &piece.content {
                    return Some(*block);
                }
            }
            self.at = base + SLOT_LEN;
        }
        None
    }
}

/// Whether all of it is in one block, which then holds other files as well.
fn is_one_block(parts: &[Part]) -> bool {
    match parts {
        [part] => {
            matches!(&part.from, From::Block { block, .. } if part.len() < block.len as usize)
        }
        _ => false,
    }
}

fn was_replaced(error: &TieringError) -> bool {
    matches!(error, TieringError::Lost { .. } | TieringError::Damaged { .. })
}

fn read_error(node: &FileNode, offset: u64, error: TieringError) -> FsError {
    match FsError::from(error) {
        FsError::Io { source, .. } => {
            FsError::Io { what: format!("reading inode {} at {offset}", node.ino.0), source }
        }
        other => other,
    }
}
