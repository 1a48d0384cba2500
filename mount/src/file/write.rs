//! Changing a file: writes and lengths. Nothing here touches a disk; whoever must wait, waits for
//! memory before anything has changed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use firn_tiering::Wait;
use parking_lot::RwLockWriteGuard;

use super::gate::Pass;
use super::job::{EncodeJob, Work};
use super::memory::Charge;
use super::node::{FileNode, FileState, SPARE_MEMORY};
use super::overlay::{Fill, Span};
use super::{Files, MAX_FILE_LEN, SLOT_LEN};
use crate::error::{FsError, FsResult};

/// Charged beside the bytes of a write, for the spans that it splits.
const WRITE_OVERHEAD: u64 = 512;

/// How often a writer that waits for memory asks whether there is space at all.
const SPACE_SLICE: Duration = Duration::from_millis(250);

/// Where a write goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// From this offset on.
    At(u64),
    /// To the end of the file.
    End,
}

impl Files {
    /// Writes all of `data`. `stamp` is the time to set, none when the kernel sends times itself.
    /// What belongs to the same change is to be done before the pass is dropped.
    pub(crate) fn write(
        &self,
        node: &Arc<FileNode>,
        place: Place,
        data: &[u8],
        stamp: Option<SystemTime>,
        wait: Wait,
    ) -> FsResult<(u32, Pass<'_>)> {
        self.health.check()?;
        if data.is_empty() {
            let pass = self.gate.pass_as(wait)?;
            self.names.check_changeable(node.ino)?;
            return Ok((0, pass));
        }
        if let Place::At(offset) = place {
            check_end(offset, data.len() as u64)?;
        }
        let needed = data.len() as u64 + WRITE_OVERHEAD;
        let (pass, mut state) = self.lock_with_memory(node, needed, wait)?;
        let offset = match place {
            Place::At(offset) => offset,
            Place::End => {
                check_end(state.size, data.len() as u64)?;
                state.size
            }
        };
        let full = state.overlay.write(offset, data);
        let end = offset + data.len() as u64;
        if end > state.size {
            state.size = end;
            state.touch();
        }
        if let Some(now) = stamp {
            state.touch_content(now);
        }
        self.settle_held(node, &mut state);
        for slot in full {
            self.encode_early(node, &mut state, slot);
        }
        drop(state);
        self.note_dirty(node, data.len() as u64);
        Ok((data.len() as u32, pass))
    }

    /// Locks the state of a file that may be changed, once it holds memory for `bytes` more. Never
    /// waits for memory behind the gate.
    pub(super) fn lock_with_memory<'f, 'n>(
        &'f self,
        node: &'n FileNode,
        bytes: u64,
        wait: Wait,
    ) -> FsResult<(Pass<'f>, RwLockWriteGuard<'n, FileState>)> {
        let mut pass = self.gate.pass_as(wait)?;
        self.names.check_changeable(node.ino)?;
        let mut state = node.state.write();
        if state.gone {
            return Err(FsError::Stale);
        }
        let spare = state.spare();
        if spare >= bytes {
            return Ok((pass, state));
        }
        // A stream takes more at a time, so that not every write goes to the budget.
        let ahead = if state.overlay.weight() >= SPARE_MEMORY { SPARE_MEMORY } else { 0 };
        let charge = match self.memory.try_acquire(bytes - spare + ahead) {
            Some(charge) => charge,
            None => {
                drop(state);
                drop(pass);
                self.bell.ring();
                let charge = self.wait_for_memory(bytes, wait)?;
                pass = self.gate.pass_as(wait)?;
                self.names.check_changeable(node.ino)?;
                state = node.state.write();
                if state.gone {
                    return Err(FsError::Stale);
                }
                charge
            }
        };
        state.add_charge(charge);
        Ok((pass, state))
    }

    /// Waits for memory as `wait` allows, but not on while what would free it has no space.
    fn wait_for_memory(&self, bytes: u64, wait: Wait) -> FsResult<Charge> {
        loop {
            self.health.check()?;
            let slice = match wait {
                Wait::No => Wait::No,
                Wait::Until(deadline) => {
                    Wait::Until(deadline.min(self.clock.instant() + SPACE_SLICE))
                }
                Wait::Progress(patience) => Wait::Progress(patience),
            };
            match self.memory.acquire(bytes, slice) {
                Err(FsError::Io { .. }) if self.flush_found_no_space() => {
                    return Err(FsError::NoSpace);
                }
                Err(error @ FsError::Io { .. }) => match wait {
                    Wait::Until(deadline) if self.clock.instant() < deadline => {}
                    _ => return Err(error),
                },
                outcome => return outcome,
            }
        }
    }

    /// A slot that was just filled becomes a block without waiting for a flush, when encoders
    /// have time. The state stays locked, so that nobody sees a job that the queue refused.
    fn encode_early(&self, node: &Arc<FileNode>, state: &mut FileState, slot: u64) {
        let Some(spans) = state.overlay.full_slot(slot) else { return };
        let mut parts = spans.iter().filter_map(|(_, span)| match &span.fill {
            Fill::Buffered(bytes) => Some(bytes),
            _ => None,
        });
        let plain = match (parts.next(), parts.next()) {
            (Some(only), None) => only.clone(),
            _ => join(&spans),
        };
        let job = EncodeJob::new(plain);
        let range = slot * SLOT_LEN..(slot + 1) * SLOT_LEN;
        let work = Work {
            job: Arc::clone(&job),
            targets: vec![(Arc::downgrade(node), range)],
            memory: Arc::clone(&node.encode_memory),
            form: self.names.form(node.ino, state.size),
            patience: self.settings.write_deadline,
            given_up: Arc::default(),
        };
        if !self.encoders.offer(work) {
            return;
        }
        let mut at = 0;
        for (start, span) in &spans {
            let fill = Fill::Encoding { job: Arc::clone(&job), at };
            state.overlay.replace(*start, span.len, span.seq, fill);
            at += span.len as u32;
        }
    }

    /// Sets the length: shorter drops bytes, longer adds a hole. The caller has passed the gate.
    pub(crate) fn set_size(
        &self,
        node: &Arc<FileNode>,
        size: u64,
        now: SystemTime,
    ) -> FsResult<()> {
        self.health.check()?;
        if size > MAX_FILE_LEN {
            return Err(FsError::TooLarge);
        }
        let mut state = node.state.write();
        if state.gone {
            return Err(FsError::Stale);
        }
        let nothing_behind =
            size >= state.size && state.overlay.is_empty() && state.committed_allocated == 0;
        // Preallocation behind the end goes as well, as on other file systems.
        if !nothing_behind && size <= state.size {
            state.overlay.truncate(size);
        }
        state.size = size;
        state.touch_content(now);
        self.settle_held(node, &mut state);
        drop(state);
        self.note_dirty(node, 0);
        Ok(())
    }
}

fn join(spans: &[(u64, Span)]) -> Bytes {
    let mut joined = BytesMut::with_capacity(SLOT_LEN as usize);
    for (_, span) in spans {
        if let Fill::Buffered(bytes) = &span.fill {
            joined.extend_from_slice(bytes);
        }
    }
    joined.freeze()
}

/// `EFBIG` where a range leaves what a file can hold.
pub(crate) fn check_end(offset: u64, len: u64) -> FsResult<()> {
    match offset.checked_add(len) {
        Some(end) if end <= MAX_FILE_LEN => Ok(()),
        _ => Err(FsError::TooLarge),
    }
}
