//! `fallocate`: allocated ranges, holes and zeros, as edits of the overlay.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use super::node::{FileNode, FileState};
use super::overlay::Fill;
use super::write::check_end;
use super::{Files, SLOT_LEN};
use crate::error::{FsError, FsResult};
use crate::types::Fallocate;

/// Bytes that one call preallocates; what lies behind becomes a hole, which reads the same, so
/// that no call asks for more records than a commit can write.
const MAX_ALLOCATED: u64 = 64 << 30;

impl Files {
    /// Allocates, punches or zeroes `len` bytes from `offset` on. The caller has passed the gate.
    pub(crate) fn fallocate(
        &self,
        node: &Arc<FileNode>,
        offset: u64,
        len: u64,
        what: Fallocate,
        now: SystemTime,
    ) -> FsResult<()> {
        self.health.check()?;
        if len == 0 {
            return Err(FsError::Invalid("length of zero"));
        }
        check_end(offset, len)?;
        let range = offset..offset + len;
        let mut state = node.state.write();
        if state.gone {
            return Err(FsError::Stale);
        }
        let keep_size = match what {
            Fallocate::Allocate { keep_size } => {
                let allocated = range.start..range.end.min(range.start + MAX_ALLOCATED);
                for hole in self.holes(node, &state, allocated)? {
                    state.overlay.put(hole, Fill::Unwritten);
                }
                keep_size
            }
            Fallocate::PunchHole => {
                state.overlay.put(range.clone(), Fill::Hole);
                true
            }
            Fallocate::ZeroRange { keep_size } => {
                let allocated = range.end.min(range.start + MAX_ALLOCATED);
                state.overlay.put(range.start..allocated, Fill::Unwritten);
                state.overlay.put(allocated..range.end, Fill::Hole);
                keep_size
            }
        };
        if !keep_size && range.end > state.size {
            state.size = range.end;
        }
        state.touch_content(now);
        self.settle_held(node, &mut state);
        drop(state);
        self.note_dirty(node, 0);
        Ok(())
    }

    /// Bytes of a range that lie in holes.
    pub(crate) fn unallocated(&self, node: &FileNode, offset: u64, len: u64) -> FsResult<u64> {
        check_end(offset, len)?;
        let holes = self.holes(node, &node.state.read(), offset..offset + len)?;
        Ok(holes.iter().map(|hole| hole.end - hole.start).sum())
    }

    /// Ranges of holes, neighbours joined.
    fn holes(
        &self,
        node: &FileNode,
        state: &FileState,
        range: Range<u64>,
    ) -> FsResult<Vec<Range<u64>>> {
        let mut holes: Vec<Range<u64>> = Vec::new();
        let mut push = |hole: Range<u64>| match holes.last_mut() {
            _ if hole.is_empty() => {}
            Some(last) if last.end == hole.start => last.end = hole.end,
            _ => holes.push(hole),
        };
        for found in state.overlay.lookup(range) {
            match found.fill {
                Some(Fill::Hole) => push(found.range),
                Some(_) => {}
                None => self.committed_holes(node, found.range, &mut push)?,
            }
        }
        Ok(holes)
    }

    fn committed_holes(
        &self,
        node: &FileNode,
        range: Range<u64>,
        push: &mut impl FnMut(Range<u64>),
    ) -> FsResult<()> {
        let mut pos = range.start;
        let mut next = Some(range.start / SLOT_LEN);
        while let Some(slot) = next.filter(|slot| slot * SLOT_LEN < range.end) {
            let base = slot * SLOT_LEN;
            for piece in self.slot(node, slot)?.iter() {
                let start = (base + u64::from(piece.start)).clamp(pos, range.end);
                push(pos..start);
                pos = pos.max(base + u64::from(piece.end())).min(range.end);
            }
            next = self.names.next_slot(node.ino, slot + 1)?;
        }
        push(pos..range.end);
        Ok(())
    }
}
