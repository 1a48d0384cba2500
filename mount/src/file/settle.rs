//! Settling: slots in many pieces, and bytes that an `fsync` put into the namespace's log, are
//! written anew as one run when nothing else happens.
//!
//! A slot is settled by making its committed bytes uncommitted ones of the same value; the next
//! commit then packs and replaces them like any others. Work that is lost in a crash is merely
//! not done.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use firn_tiering::{BlockRef, Intent, Wait};
use parking_lot::Mutex;

use super::commit::MANY_PIECES;
use super::node::FileNode;
use super::piece::{Content, Piece};
use super::{Files, SLOT_LEN};
use crate::error::{FsError, FsResult};
use crate::types::Ino;

/// Slots remembered; more wait until their file is written again.
const MAX_QUEUED: usize = 16_384;

/// Bytes settled in one round.
const ROUND_BYTES: u64 = 32 << 20;

/// Rounds before a volume is closed.
const CLOSING_ROUNDS: usize = 16;

/// Slots worth settling.
#[derive(Debug, Default)]
pub(crate) struct SettleQueue {
    slots: Mutex<BTreeMap<(Ino, u64), Arc<FileNode>>>,
}

impl SettleQueue {
    /// Remembers a slot.
    pub(super) fn add(&self, node: &Arc<FileNode>, slot: u64) {
        let mut slots = self.slots.lock();
        if slots.len() < MAX_QUEUED {
            slots.insert((node.ino, slot), Arc::clone(node));
        }
    }

    fn take(&self) -> Option<(u64, Arc<FileNode>)> {
        self.slots.lock().pop_first().map(|((_, slot), node)| (slot, node))
    }
}

impl Files {
    /// Settles some slots and commits them.
    pub(crate) fn settle_some(&self) -> FsResult<()> {
        let mut bytes = 0;
        let mut any = false;
        while bytes < ROUND_BYTES && !self.memory.is_tight() {
            let Some((slot, node)) = self.settle.take() else { break };
            bytes += self.settle_slot(&node, slot)?;
            any = true;
        }
        if any { self.flush_all() } else { Ok(()) }
    }

    /// Settles a bounded part of what is queued, for an orderly end. What fails is merely not
    /// settled.
    pub(crate) fn settle_all(&self) {
        for _ in 0..CLOSING_ROUNDS {
            if self.settle.slots.lock().is_empty() {
                break;
            }
            if let Err(error) = self.settle_some() {
                tracing::warn!(error = super::chain(&error), "settling");
                break;
            }
        }
        self.settle.slots.lock().clear();
    }

    /// Makes the committed bytes of a slot uncommitted again; returns how many.
    fn settle_slot(&self, node: &Arc<FileNode>, slot: u64) -> FsResult<u64> {
        let _guard = node.commit.lock();
        let pieces = match self.names.slot(node.ino, slot) {
            Err(FsError::Stale) => return Ok(0),
            found => found?,
        };
        let fragmented = pieces.len() > MANY_PIECES;
        let mut lifted = 0;
        let mut run = BytesMut::new();
        let mut start = 0;
        let mut runs = Vec::new();
        for piece in &pieces {
            let inline = matches!(piece.content, Content::Inline(_));
            if piece.content == Content::Unwritten || !(fragmented || inline) {
                continue;
            }
            if start + run.len() as u64 != u64::from(piece.start) && !run.is_empty() {
                runs.push((start, run.split().freeze()));
            }
            if run.is_empty() {
                start = u64::from(piece.start);
            }
            match self.piece_bytes(piece) {
                Some(bytes) => run.extend_from_slice(&bytes),
                // Lies in the cold tier, or is damaged: not worth it, or for others to report.
                None => return Ok(0),
            }
        }
        if !run.is_empty() {
            runs.push((start, run.freeze()));
        }
        let mut state = node.state.write();
        if state.gone {
            return Ok(0);
        }
        for (start, bytes) in runs {
            lifted += bytes.len() as u64;
            state.overlay.fill_gaps(slot * SLOT_LEN + start, &bytes);
        }
        self.settle_held(node, &mut state);
        drop(state);
        if lifted > 0 && node.must_list() {
            self.dirty.lock().push(Arc::clone(node));
        }
        Ok(lifted)
    }

    /// Bytes of a block that lies in hot, for work that says nothing of who needs it.
    pub(crate) fn bytes_at_hand(
        &self,
        block: &BlockRef,
        range: Range<u32>,
    ) -> Option<bytes::Bytes> {
        let read = self.blocks.read_for(block, range, Intent::Upkeep, Wait::No);
        read.map(|served| served.bytes).ok()
    }

    fn piece_bytes(&self, piece: &Piece) -> Option<bytes::Bytes> {
        match &piece.content {
            Content::Inline(bytes) => Some(bytes.clone()),
            Content::Block { block, offset } => {
                self.bytes_at_hand(block, *offset..*offset + piece.len)
            }
            Content::Unwritten => None,
        }
    }
}
