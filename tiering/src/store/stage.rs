//! Bringing cold blocks back to hot.
//!
//! Verified frames are written into the holes of the hot file and synced, and only then the holes
//! are forgotten; a file that is gone is made aside, synced and renamed. *Crash*: before that
//! there is what there was; bytes half written into a hole fail verification like the hole did.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::block::BlockId;
use crate::blocks::Wait;
use crate::catalog::{ColdCopy, Holes};
use crate::error::{Error, Result};
use crate::segment::{DATA_START, FileKind, IndexEntry, SegmentId, SegmentIndex, verify_frame};

use super::Inner;
use super::append::full_disk;
use super::hotdir::sync_dir;
use super::residence::{Moved, runs};
use super::upload::{CALL_DEADLINE, COMPARE_BYTES};

impl Inner {
    /// Brings cold blocks back to hot.
    pub(super) fn stage(
        &self,
        blocks: &[BlockId],
        wait: Wait,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Moved> {
        let mut moved = Moved::default();
        let groups = self.group(blocks, wait)?;
        let total = groups.values().map(Vec::len).sum();
        let mut done = 0;
        for (id, entries) in groups {
            self.claim_waiting(id, wait)?;
            let count = entries.len();
            let result = self.stage_in(id, entries, wait, &mut moved);
            self.table.unclaim(id);
            result?;
            done += count;
            progress(done, total);
        }
        Ok(moved)
    }

    fn stage_in(
        &self,
        id: SegmentId,
        mut entries: Vec<IndexEntry>,
        wait: Wait,
        moved: &mut Moved,
    ) -> Result<()> {
        let Some(record) = self.table.record(id) else { return Ok(()) };
        if record.hot {
            entries.retain(|entry| {
                let frame = entry.frame_range();
                record.holes.touches(frame.start, frame.end)
            });
        }
        if entries.is_empty() {
            return Ok(());
        }
        if record.cold == ColdCopy::Absent {
            moved.refuse(&entries, "no copy in cold is known");
            return Ok(());
        }
        let bytes: u64 = entries.iter().map(IndexEntry::frame_len).sum();
        let charge = self.capacity.charge(self, bytes, wait)?;
        let staged = self.bring(id, record.hot, &entries).map_err(full_disk);
        self.hot.forget(id);
        self.record_state(id);
        drop(charge);
        // Also after a failure: what was written until then lies there.
        self.recount(id);
        staged?;
        moved.blocks += entries.len();
        moved.bytes += bytes;
        Ok(())
    }

    fn bring(&self, id: SegmentId, hot: bool, entries: &[IndexEntry]) -> Result<()> {
        if !hot {
            return self.rebuild_file(id, entries);
        }
        self.fill(id, &self.hot.path(id, FileKind::Sealed), entries)?;
        self.table.update(id, |segment| {
            for entry in entries {
                let frame = entry.frame_range();
                segment.record.holes.remove(frame.start, frame.end);
            }
        });
        Ok(())
    }

    /// Fetches frames, verifies them and writes them to their places, durably.
    fn fill(&self, id: SegmentId, path: &Path, entries: &[IndexEntry]) -> Result<()> {
        let cold = self.cold_tier()?;
        let name = self.name(id);
        let failed = || Error::io(format!("stage into {}", path.display()));
        let file = OpenOptions::new().write(true).open(path).map_err(failed())?;
        for run in runs(entries, COMPARE_BYTES) {
            let deadline = self.config.clock.instant() + CALL_DEADLINE;
            let fetch = || cold.get_range(id.object_key(), run.clone(), deadline);
            let inside = entries.iter().filter(|entry| run.contains(&entry.offset));
            let verify = |bytes: &[u8]| {
                inside.clone().try_for_each(|entry| {
                    let frame = &bytes[(entry.offset - run.start) as usize..];
                    let header = verify_frame(&name, entry.offset, frame)?;
                    if header.entry.block_ref() == entry.block_ref() {
                        return Ok(());
                    }
                    Err(Error::Damaged { what: "frame", reason: "it contradicts the index".into() })
                })
            };
            let mut bytes = fetch()?;
            if verify(&bytes).is_err() {
                // What arrived damaged once may be sound where it is stored.
                bytes = fetch()?;
                verify(&bytes)?;
            }
            file.write_all_at(&bytes, run.start).map_err(failed())?;
        }
        file.sync_all().map_err(failed())
    }

    /// Makes the hot file of a segment that has none, with these frames and the footer.
    fn rebuild_file(&self, id: SegmentId, entries: &[IndexEntry]) -> Result<()> {
        let index = self.load_index(id, CALL_DEADLINE)?;
        let aside = self.hot.staged_path(id, FileKind::Sealed);
        let failed = || Error::io(format!("stage into {}", aside.display()));
        let made = self.build_aside(id, &aside, &index, entries).and_then(|()| {
            std::fs::rename(&aside, self.hot.path(id, FileKind::Sealed)).map_err(failed())
        });
        if let Err(error) = made {
            // Nobody counts it there.
            if let Err(error) = std::fs::remove_file(&aside) {
                tracing::warn!(%error, "{} stays until the next open", aside.display());
            }
            return Err(error);
        }
        sync_dir(&self.hot.segments())?;
        self.table.update(id, |segment| {
            let mut holes = Holes::default();
            holes.insert(DATA_START, index.trailer().frames_end);
            for entry in entries {
                let frame = entry.frame_range();
                holes.remove(frame.start, frame.end);
            }
            segment.record.hot = true;
            segment.record.holes = holes;
        });
        Ok(())
    }

    /// Makes that file at `aside`, durably.
    fn build_aside(
        &self,
        id: SegmentId,
        aside: &Path,
        index: &SegmentIndex,
        entries: &[IndexEntry],
    ) -> Result<()> {
        let cold = self.cold_tier()?;
        let trailer = index.trailer();
        let failed = || Error::io(format!("stage into {}", aside.display()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(aside)
            .map_err(failed())?;
        file.set_len(trailer.file_len).map_err(failed())?;
        for part in [0..DATA_START, trailer.frames_end..trailer.file_len] {
            let mut at = part.start;
            while at < part.end {
                let end = part.end.min(at + COMPARE_BYTES);
                let deadline = self.config.clock.instant() + CALL_DEADLINE;
                let bytes = cold.get_range(id.object_key(), at..end, deadline)?;
                file.write_all_at(&bytes, at).map_err(failed())?;
                at = end;
            }
        }
        // Its head and footer came unverified: they must at least lead to the same index.
        if SegmentIndex::from_file(&file, &self.name(id))?.entries() != index.entries() {
            let reason = "its footer leads to another index".to_owned();
            return Err(Error::Damaged { what: "cold object", reason });
        }
        self.fill(id, aside, entries)
    }
}
