//! Numbers that are never used twice: blocks, segments, inodes, and the epoch.
//!
//! The stored lease is durable before a number of its range is handed out.

use std::ops::Range;
use std::sync::Arc;

use firn_tiering::{Epoch, Error as TieringError, IdSource};
use parking_lot::Mutex;

use super::gate::Gate;
use super::key;
use super::record::Leases;
use super::store::{Batch, Durability, Space};
use crate::error::{FsError, FsResult};
use crate::types::Ino;

const COUNTER_END: u64 = 1 << 48;

/// Inode numbers end here; those above are not stored, and the bits above are a view's.
const INODE_END: u64 = Ino::RESERVED;

/// One fsync for so many new files.
const INODES_PER_LEASE: u64 = 16_384;

/// Lends numbers.
#[derive(Debug)]
pub struct Ids {
    gate: Arc<Gate>,
    epoch: Epoch,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stored: Leases,
    inodes: Range<u64>,
}

impl Ids {
    pub(super) fn open(gate: Arc<Gate>, read_only: bool) -> FsResult<Self> {
        let value = gate
            .store()
            .get(Space::Meta, key::LEASES)?
            .ok_or_else(|| FsError::io("open the namespace", "there are no id leases"))?;
        let mut leases = Leases::decode(&value)?;
        if !read_only {
            if !leases.clean {
                leases.epoch = leases
                    .epoch
                    .checked_add(1)
                    .ok_or_else(|| FsError::io("open the namespace", "no epoch is left"))?;
                leases.blocks = 0;
                leases.segments = 0;
            }
            leases.clean = false;
            gate.commit(stored(leases), Durability::Durable)?;
        }
        let state = State { stored: leases, inodes: leases.inodes..leases.inodes };
        Ok(Self { gate, epoch: Epoch(leases.epoch), state: Mutex::new(state) })
    }

    /// Gives back what is left of the inode lease and notes that the epoch may go on.
    pub(super) fn close(&self) -> FsResult<()> {
        let state = self.state.lock();
        let inodes = if state.inodes.is_empty() { state.stored.inodes } else { state.inodes.start };
        let leases = Leases { clean: true, inodes, ..state.stored };
        self.gate.commit(stored(leases), Durability::Durable)
    }

    /// A new inode number, still without a view.
    pub(super) fn inode(&self) -> FsResult<u64> {
        let mut state = self.state.lock();
        if state.inodes.is_empty() {
            let next = state.stored.inodes;
            let end = next + INODES_PER_LEASE;
            if end > INODE_END {
                return Err(FsError::NoSpace);
            }
            let leases = Leases { inodes: end, ..state.stored };
            self.gate.commit(stored(leases), Durability::Durable)?;
            state.stored = leases;
            state.inodes = next..end;
        }
        let ino = state.inodes.start;
        state.inodes.start += 1;
        Ok(ino)
    }

    /// Numbers below `end` are in use by inodes that are being received, and are never handed out,
    /// whatever happens next.
    pub(super) fn reserve_inodes(&self, end: u64) -> FsResult<()> {
        let mut state = self.state.lock();
        if state.stored.inodes < end {
            // With room for those that come next.
            let lease_end = end.saturating_add(INODES_PER_LEASE).min(INODE_END);
            let leases = Leases { inodes: lease_end.max(end), ..state.stored };
            self.gate.commit(stored(leases), Durability::Durable)?;
            state.stored = leases;
            state.inodes = end..leases.inodes;
        } else if state.inodes.start < end {
            state.inodes.start = end.min(state.inodes.end);
        }
        Ok(())
    }

    /// Inode numbers from this one on were never handed out.
    pub(crate) fn inodes_end(&self) -> u64 {
        self.state.lock().stored.inodes
    }

    fn lease(
        &self,
        count: u64,
        counter: impl Fn(&mut Leases) -> &mut u64,
    ) -> firn_tiering::Result<Range<u64>> {
        let mut state = self.state.lock();
        let mut leases = state.stored;
        let next = counter(&mut leases);
        let start = *next;
        let end = start
            .checked_add(count)
            .filter(|&end| end <= COUNTER_END)
            .ok_or_else(|| TieringError::ReadOnly("no id is left in this epoch".to_owned()))?;
        *next = end;
        self.gate
            .commit(stored(leases), Durability::Durable)
            .map_err(|error| TieringError::ReadOnly(format!("lease ids: {error}")))?;
        state.stored = leases;
        Ok(start..end)
    }
}

fn stored(leases: Leases) -> Batch {
    let mut batch = Batch::new();
    batch.put(Space::Meta, key::LEASES, leases.encode());
    batch
}

impl IdSource for Ids {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn lease_blocks(&self, count: u64) -> firn_tiering::Result<Range<u64>> {
        self.lease(count, |leases| &mut leases.blocks)
    }

    fn lease_segments(&self, count: u64) -> firn_tiering::Result<Range<u64>> {
        self.lease(count, |leases| &mut leases.segments)
    }
}
