//! Where data and holes are, to the byte. Preallocated ranges count as holes, since they read as
//! zeros and need not be copied.

use super::node::FileNode;
use super::piece::Content;
use super::{Files, SLOT_LEN};
use crate::error::{FsError, FsResult};
use crate::types::Seek;

impl Files {
    /// The next data or hole at or behind `offset`. The end of the file is a hole.
    pub(crate) fn seek(&self, node: &FileNode, offset: u64, what: Seek) -> FsResult<u64> {
        let state = node.live_state()?;
        let size = state.size;
        if offset >= size {
            return Err(FsError::NoOffset);
        }
        let mut pos = offset;
        while pos < size {
            let (end, fill) = state.overlay.at(pos, size);
            let found = match fill {
                Some(fill) => (fill.is_data() == (what == Seek::Data)).then_some(pos),
                None => match what {
                    Seek::Data => self.committed_data(node, pos, end)?,
                    Seek::Hole => self.committed_hole(node, pos, end)?,
                },
            };
            if let Some(found) = found {
                return Ok(found);
            }
            pos = end;
        }
        match what {
            Seek::Data => Err(FsError::NoOffset),
            Seek::Hole => Ok(size),
        }
    }

    /// The first committed data byte from `pos` on, before `end`.
    fn committed_data(&self, node: &FileNode, pos: u64, end: u64) -> FsResult<Option<u64>> {
        let mut next = Some(pos / SLOT_LEN);
        while let Some(slot) = next.filter(|slot| slot * SLOT_LEN < end) {
            let base = slot * SLOT_LEN;
            for piece in self.slot(node, slot)?.iter() {
                let start = base + u64::from(piece.start);
                let stop = base + u64::from(piece.end());
                if stop > pos && start < end && piece.content != Content::Unwritten {
                    return Ok(Some(start.max(pos)));
                }
            }
            next = self.names.next_slot(node.ino, slot + 1)?;
        }
        Ok(None)
    }

    /// The first committed byte of a hole from `pos` on, before `end`.
    fn committed_hole(&self, node: &FileNode, pos: u64, end: u64) -> FsResult<Option<u64>> {
        let mut pos = pos;
        while pos < end {
            let base = pos / SLOT_LEN * SLOT_LEN;
            let stop = end.min(base + SLOT_LEN);
            for piece in self.slot(node, pos / SLOT_LEN)?.iter() {
                let covers = base + u64::from(piece.start) <= pos;
                if covers && piece.content != Content::Unwritten {
                    pos = pos.max(base + u64::from(piece.end()));
                }
            }
            if pos < stop {
                return Ok(Some(pos));
            }
        }
        Ok(None)
    }
}
