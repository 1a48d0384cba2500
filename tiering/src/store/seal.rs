//! Sealing in the background: footer, parity and index behind the frames, then publishing.
//!
//! *Order*: frames are synced, the footer is written and synced, the file is renamed, the name is
//! synced; then table and catalog learn of the segment; then its blocks leave the map of unsealed
//! ones. A reader finds each block at every moment.
//! *Crash*: before the rename there is an open segment, whose footer the next open ignores; after
//! it a sealed one without a record, which is caught up.
//! *Retry*: a full disk is tried again after a pause; every other failure makes the store
//! read-only, with the blocks readable where they are.

use std::collections::VecDeque;
use std::time::Duration;

use crate::blocks::Wait;
use crate::catalog::{ColdCopy, Holes, SegmentHeat, SegmentRecord};
use crate::error::{Error, Result};
use crate::segment::{FileKind, IndexEntry, ParityPlace, SealedInfo, SegmentId, SegmentWriter};

use super::Inner;
use super::append::{Lane, Unsealed, Warmth, discard, is_full};
use super::heat::fresh;
use super::open::first_block;
use super::steps::Step;
use super::table::Segment;

/// Pause before sealing is tried again on a full disk.
const SEAL_RETRY: Duration = Duration::from_millis(500);

/// Segments that wait for the sealer.
#[derive(Default)]
pub(super) struct SealQueue {
    pub(super) waiting: VecDeque<SegmentWriter>,
    pub(super) sealing: Option<SegmentId>,
}

impl Inner {
    /// The sealer's loop; ends when the store stops.
    pub(super) fn run_sealer(&self) {
        loop {
            let mut queue = self.sealing.lock();
            let writer = loop {
                if self.is_stopping() {
                    return;
                }
                if let Some(writer) = queue.waiting.pop_front() {
                    break writer;
                }
                self.seal_changed.wait(&mut queue);
            };
            queue.sealing = Some(writer.name().id);
            drop(queue);
            let again = self.seal_one(writer);
            let mut queue = self.sealing.lock();
            queue.sealing = None;
            if let Some(writer) = again {
                queue.waiting.push_front(writer);
                self.seal_changed.wait_for(&mut queue, SEAL_RETRY);
            }
            drop(queue);
            self.seal_changed.notify_all();
        }
    }

    /// Seals and publishes; gives the segment back when the disk was full.
    fn seal_one(&self, mut writer: SegmentWriter) -> Option<SegmentWriter> {
        let id = writer.name().id;
        if writer.is_empty() {
            self.unsealed.write().files.remove(&id);
            discard(Some(writer));
            return None;
        }
        // Frames first and apart: once they are durable, a footer that did not fit on a full disk
        // may be written again, whichever of its calls failed.
        let synced = self.faults.before_sync().and_then(|()| writer.file().sync_data());
        if let Err(error) = synced {
            self.poison(format!("fdatasync of segment {id} failed: {error}"));
            return None;
        }
        let sealed = self
            .reached(Step::SealBeforeFooter)
            .and_then(|()| writer.seal())
            .and_then(|info| self.reached(Step::SealAfterRenameBeforeRecord).map(|()| info));
        match sealed {
            Ok(info) => {
                self.publish(id, &info, 0);
                None
            }
            Err(Error::Io { source, action }) if is_full(&source) => {
                tracing::warn!(%id, action, "the disk is full, sealing waits");
                Some(writer)
            }
            Err(error) => {
                self.poison(format!("segment {id} could not be sealed: {error}"));
                // Its blocks stay readable through the map of unsealed blocks.
                None
            }
        }
    }

    /// Makes a sealed segment known: table and catalog first, then its blocks leave the map of
    /// unsealed ones, so that a reader finds each block at every moment. `charged` bytes were
    /// counted for it until now, beside those of an unsealed file.
    pub(super) fn publish(&self, id: SegmentId, info: &SealedInfo, charged: u64) {
        let entries = info.index.entries();
        let open =
            |unsealed: &Unsealed| unsealed.files.get(&id).map(|file| (file.lane, file.charged));
        let (lane, open) =
            open(&self.unsealed.read()).unwrap_or((Lane::cold(ParityPlace::Inside), 0));
        let record = SegmentRecord {
            id,
            len: info.file_len,
            blocks: entries.len() as u32,
            data_bytes: entries.iter().map(IndexEntry::frame_len).sum(),
            first_block: first_block(entries),
            hot: true,
            cold: ColdCopy::Absent,
            dead_bytes: 0,
            holes: Holes::default(),
            settled: false,
            heat: match lane.warmth {
                Warmth::Fresh => fresh(self.now_s()),
                Warmth::Cold => SegmentHeat::default(),
            },
            offered: false,
            place: info.index.trailer().place,
            parity_bytes: info.index.trailer().parity_bytes(),
        };
        let disk_bytes =
            self.hot.disk_bytes(id, FileKind::Sealed) + self.hot.disk_bytes(id, FileKind::Sidecar);
        self.table.insert(Segment::new(record.clone(), false, disk_bytes));
        let recorded = self.with_catalog(|catalog| catalog.record_segment(&record, entries));
        self.table.update(id, |segment| segment.recorded = recorded.is_ok());
        self.capacity.exchange(charged + open, disk_bytes);
        let mut unsealed = self.unsealed.write();
        for entry in entries {
            if unsealed.blocks.get(&entry.id).is_some_and(|(segment, _)| *segment == id) {
                unsealed.blocks.remove(&entry.id);
            }
        }
        let file = unsealed.files.remove(&id);
        drop(unsealed);
        if let Some(file) = file {
            self.table.update(id, |segment| {
                segment.record.dead_bytes += file.dead_bytes;
                segment.unsaved |= file.dead_bytes > 0;
                segment.freed.extend(file.freed);
            });
        }
        self.counters.sealed();
        self.signals.kick_all();
    }

    /// Waits until none of `segments` is unsealed. The caller has rotated.
    pub(super) fn wait_sealed(&self, segments: &[SegmentId], wait: Wait) -> Result<()> {
        let mut queue = self.sealing.lock();
        loop {
            if !segments.iter().any(|id| self.is_unsealed(*id)) {
                return Ok(());
            }
            self.check_writable()?;
            self.check_wait(wait, "waiting for a segment to be sealed")?;
            self.seal_changed.wait_for(&mut queue, super::CLOCK_SLICE);
        }
    }
}
