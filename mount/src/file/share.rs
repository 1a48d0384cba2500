//! `copy_file_range`: the target refers to the source's blocks, nothing is copied but what no
//! block holds yet and is small.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use firn_tiering::{BlockRef, Wait};

use super::commit::Mode;
use super::gate::Pass;
use super::node::FileNode;
use super::overlay::Fill;
use super::piece::Content;
use super::pins::DURABLE;
use super::write::check_end;
use super::{Files, SLOT_LEN};
use crate::error::{FsError, FsResult};

/// Most bytes that one call covers; callers go on behind a short answer.
const MAX_SHARED: u64 = 1 << 30;

/// Most parts that one call makes in the target, which bounds the memory they take.
const MAX_PARTS: usize = 8192;

/// Uncommitted bytes up to this many are copied; more are made blocks first.
const MAX_COPIED: u64 = 256 << 10;

/// Memory charged for each, as the overlay does; one that crosses a slot becomes two.
const PART_OVERHEAD: u64 = 256;

/// What a range of the source becomes in the target.
struct Shared {
    range: Range<u64>,
    fill: Fill,
}

impl Files {
    /// Makes `len` bytes of `target` from `to` on the same as those of `source` from `from` on.
    /// Returns how many it was, fewer at the end of the source or when there are very many; what
    /// belongs to the same change is to be done before the pass is dropped.
    pub(crate) fn copy_range(
        &self,
        (source, from): (&Arc<FileNode>, u64),
        (target, to): (&Arc<FileNode>, u64),
        len: u64,
        now: SystemTime,
        wait: Wait,
    ) -> FsResult<(u64, Pass<'_>)> {
        self.health.check()?;
        check_end(to, len)?;
        let size = source.live_state()?.size;
        let len = len.min(size.saturating_sub(from)).min(MAX_SHARED);
        if len == 0 {
            let pass = self.gate.pass_as(wait)?;
            self.names.check_changeable(target.ino)?;
            return Ok((0, pass));
        }
        if source.ino == target.ino && from < to + len && to < from + len {
            return Err(FsError::Invalid("source and target overlap"));
        }
        if self.unencoded(source, from..from + len) > MAX_COPIED {
            if matches!(wait, Wait::No) {
                return Err(FsError::WouldWait);
            }
            self.commit(std::slice::from_ref(source), Mode::Group)?;
        }
        // The source's commits rest, so that no block that is found is freed before it is held.
        let guard = match wait {
            Wait::No => source.commit.try_lock().ok_or(FsError::WouldWait)?,
            Wait::Until(_) | Wait::Progress(_) => source.commit.lock(),
        };
        let found = self.collect(source, from..from + len)?;
        drop(guard);
        let len = found.last().map_or(0, |part| part.range.end - from);
        let memory = found.len() as u64 * PART_OVERHEAD;
        let (pass, mut state) = self.lock_with_memory(target, memory, wait)?;
        for part in found {
            put_in_slots(&mut state.overlay, to + (part.range.start - from), part);
        }
        state.size = state.size.max(to + len);
        state.touch_content(now);
        self.settle_held(target, &mut state);
        drop(state);
        self.note_dirty(target, memory + len.min(MAX_COPIED));
        Ok((len, pass))
    }

    fn unencoded(&self, node: &FileNode, range: Range<u64>) -> u64 {
        let state = node.state.read();
        let (mut pos, mut bytes) = (range.start, 0);
        while pos < range.end {
            let (end, fill) = state.overlay.at(pos, range.end);
            if matches!(fill, Some(Fill::Active { .. } | Fill::Buffered(_) | Fill::Encoding { .. }))
            {
                bytes += end - pos;
            }
            pos = end;
        }
        bytes
    }

    fn collect(&self, node: &FileNode, range: Range<u64>) -> FsResult<Vec<Shared>> {
        let state = node.live_state()?;
        let mut shared = Vec::new();
        for found in state.overlay.lookup(range) {
            let range = found.range;
            if shared.len() >= MAX_PARTS {
                break;
            }
            let fill = match found.fill {
                None => {
                    self.collect_committed(node, range, &mut shared)?;
                    continue;
                }
                // The target's commit must not depend on another file's job.
                Some(Fill::Encoding { job, at }) => {
                    let len = (range.end - range.start) as usize;
                    Fill::Buffered(job.plain.slice(at as usize..at as usize + len))
                }
                Some(Fill::Unwritten) => Fill::Hole,
                Some(fill) => fill,
            };
            shared.push(Shared { range, fill });
        }
        Ok(shared)
    }

    fn collect_committed(
        &self,
        node: &FileNode,
        range: Range<u64>,
        shared: &mut Vec<Shared>,
    ) -> FsResult<()> {
        let mut pos = range.start;
        let mut next = Some(pos / SLOT_LEN);
        while let Some(slot) = next.filter(|slot| slot * SLOT_LEN < range.end) {
            let base = slot * SLOT_LEN;
            // What is missing behind the last part is left to the next call.
            if shared.len() >= MAX_PARTS {
                return Ok(());
            }
            let clip = (pos.max(base) - base) as u32..(range.end - base).min(SLOT_LEN) as u32;
            for piece in self.slot(node, slot)?.iter().filter_map(|piece| piece.clip(&clip)) {
                let start = base + u64::from(piece.start);
                let end = base + u64::from(piece.end());
                let fill = match piece.content {
                    Content::Unwritten => continue,
                    Content::Inline(bytes) => Fill::Buffered(Bytes::copy_from_slice(&bytes)),
                    Content::Block { block, offset } => self.held(block, offset),
                };
                if pos < start {
                    shared.push(Shared { range: pos..start, fill: Fill::Hole });
                }
                shared.push(Shared { range: start..end, fill });
                pos = end;
            }
            next = self.names.next_slot(node.ino, slot + 1)?;
        }
        if pos < range.end {
            shared.push(Shared { range: pos..range.end, fill: Fill::Hole });
        }
        Ok(())
    }

    fn held(&self, block: BlockRef, at: u32) -> Fill {
        Fill::Stored { block: self.pins.hold(block, DURABLE), at }
    }
}

/// Puts a part where it belongs in the target, whose slots may begin elsewhere.
fn put_in_slots(overlay: &mut super::overlay::Overlay, start: u64, part: Shared) {
    let len = part.range.end - part.range.start;
    if !part.fill.is_data() {
        overlay.put(start..start + len, part.fill);
        return;
    }
    let boundary = (start / SLOT_LEN + 1) * SLOT_LEN;
    if start + len <= boundary {
        overlay.put(start..start + len, part.fill);
    } else {
        let (head, tail) = part.fill.split_at(boundary - start);
        overlay.put(start..boundary, head);
        overlay.put(boundary..start + len, tail);
    }
}
