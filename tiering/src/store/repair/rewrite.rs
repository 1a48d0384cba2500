//! Making a damaged segment whole: a new file is made aside out of what is left of all copies,
//! checked in every part, and put in the place of the damaged one.
//!
//! *Order*: the new file is written, synced, and every checksum of it verified; the damaged one
//! gets a second name in staging; the new one takes its place, durably; it is verified once more
//! through its name, and only then the damaged one goes. A damaged object in cold is replaced by
//! an upload of the whole file, by the rules of `upload`; where there is no whole file, one is made
//! first, and stays in hot until the object is verified.
//! *Crash*: what lies in staging is removed at the next open; the name leads to the damaged file or
//! to the whole one.
//! *No whole copy*: where nothing makes one, the object does not count as verified any more, and the
//! local file stays, damaged as it is.
//! *A file with holes* is repaired frame by frame: what is damaged becomes a hole and is brought
//! back, since cold holds the segment. Only where cold is damaged as well the whole file is made.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::block::BlockId;
use crate::blocks::Wait;
use crate::catalog::{Catalog, ColdCopy, Holes, SegmentRecord};
use crate::error::{Error, Result};
use crate::segment::{
    Damage, FileKind, IndexEntry, Joined, Part, Patched, ReadAt, Repair, SegmentId, SegmentIndex,
    check_frames, repair,
};

use super::super::Inner;
use super::super::append::full_disk;
use super::super::check::{blocks_in, shorten};
use super::super::hotdir::sync_dir;
use super::super::job::JobProgress;
use super::super::read::chain;
use super::super::sidecar::HotCopy;
use super::super::stage::Progress;
use super::super::steps::Step;
use super::super::upload::CALL_DEADLINE;
use super::super::verdict::{InCold, is_stranger, unsound};
use super::{DamageReport, Mended, Remainder, Suspect};

/// Bytes copied at once.
const PIECE: usize = 4 << 20;

/// Blocks of a segment without an index that are named at most.
const MOST_NAMED: usize = 1 << 16;

impl Inner {
    /// Looks at the suspect copies of a claimed segment; says of each damaged one how it ended. It is
    /// noted at once: an error of the copy in cold takes nothing of what became of that in hot.
    pub(super) fn rewrite(&self, id: SegmentId, suspect: Suspect) -> Result<Vec<DamageReport>> {
        let mut reports = Vec::new();
        let Some(record) = self.table.record(id) else { return Ok(reports) };
        if suspect.hot && record.hot {
            reports.extend(self.mend_hot(&record)?.inspect(|report| self.note_mended(report)));
        }
        if suspect.cold
            && let Some(record) = self.table.record(id)
            && record.cold != ColdCopy::Absent
        {
            reports.extend(self.mend_cold(&record)?.inspect(|report| self.note_mended(report)));
        }
        Ok(reports)
    }

    fn mend_hot(&self, record: &SegmentRecord) -> Result<Option<DamageReport>> {
        let id = record.id;
        if !self.hot.has(id) {
            // It may still be open here, and then it is made of what that holds.
            return self.make_anew(record, "its file is gone".to_owned(), false).map(Some);
        }
        if !record.holes.is_empty() {
            return self.mend_frames(record);
        }
        let what = match self.look_at_hot(id) {
            Ok((_, found)) if found.is_intact() => {
                self.table.update(id, |segment| segment.ruined = false);
                self.repairs.is_whole(id, false);
                return Ok(None);
            }
            Ok((copy, found)) if self.renew_hot_sidecar(id, &copy, &found)? => {
                return Ok(Some(renewed(id, false)));
            }
            Ok((_, found)) => parts(&found.damage),
            Err(error) => chain(&error),
        };
        self.make_anew(record, what, false).map(Some)
    }

    /// Checks every part of a hot segment and its sidecar.
    fn look_at_hot(&self, id: SegmentId) -> Result<(HotCopy, Repair)> {
        let copy = self.hot.open_copy(id).map_err(Error::io(format!("open segment {id}")))?;
        let found = repair(&copy, &self.name(id))?;
        if !copy.has_failed() {
            self.table.update(id, |segment| segment.unread_since = None);
        }
        Ok((copy, found))
    }

    /// Makes holes of the damaged frames of a file that has holes already, and fills them from
    /// cold.
    fn mend_frames(&self, record: &SegmentRecord) -> Result<Option<DamageReport>> {
        let id = record.id;
        let index = self.load_index(id, CALL_DEADLINE)?;
        let bad = self.bad_frames(record, &index)?;
        if bad.is_empty() {
            return Ok(None);
        }
        let what = format!("{} frames", bad.len());
        self.table.update(id, |segment| {
            for entry in &bad {
                let frame = entry.frame_range();
                segment.record.holes.insert(frame.start, frame.end);
            }
        });
        self.record_state(id);
        let deadline = self.config.clock.instant() + CALL_DEADLINE;
        let mut tell = |_: JobProgress| ();
        let mut progress = Progress::silent(&mut tell, Wait::Until(deadline));
        match self.bring(id, true, &bad, &mut progress).map_err(full_disk) {
            Ok(()) => {
                self.hot.forget(id);
                self.record_state(id);
                let blocks = bad.iter().map(|entry| entry.id).collect();
                let report = DamageReport {
                    segment: id,
                    in_cold: false,
                    what,
                    blocks,
                    mended: Mended::Whole,
                };
                Ok(Some(report))
            }
            Err(error) => {
                // What lies there is damaged, and nothing better came in its place.
                self.table.update(id, |segment| segment.record.holes = record.holes.clone());
                self.record_state(id);
                match error {
                    Error::Damaged { .. } | Error::NotFound(_) => {
                        self.make_anew(record, what, false).map(Some)
                    }
                    error => Err(error),
                }
            }
        }
    }

    /// Entries whose frames in hot do not verify, but for those in holes.
    pub(in super::super) fn bad_frames(
        &self,
        record: &SegmentRecord,
        index: &SegmentIndex,
    ) -> Result<Vec<IndexEntry>> {
        let id = record.id;
        let copy = self.hot.open_copy(id).map_err(Error::io(format!("open segment {id}")))?;
        let bad: HashSet<BlockId> =
            check_frames(&copy, index).into_iter().map(|(block, _)| block).collect();
        match copy.failure() {
            Some(error) if self.is_to_be_read_later(id) => return Err(error),
            Some(_) => {}
            None => drop(self.table.update(id, |segment| segment.unread_since = None)),
        }
        let is_bad = |entry: &&IndexEntry| {
            let frame = entry.frame_range();
            bad.contains(&entry.id) && !record.holes.touches(frame.start, frame.end)
        };
        Ok(index.entries().iter().filter(is_bad).cloned().collect())
    }

    fn mend_cold(&self, record: &SegmentRecord) -> Result<Option<DamageReport>> {
        let id = record.id;
        // Not by `verify_cold`, which makes the object suspect again: it would be looked at for ever,
        // and no upload come to replace it.
        let what = match self.look_in_cold(self.cold_tier()?, &self.name(id)) {
            Ok(InCold::Whole | InCold::Bare) => {
                self.trust_cold(id);
                return Ok(None);
            }
            Ok(InCold::Renewed) => {
                // Nothing is left to be copied for which somebody may wait.
                self.trust_cold(id);
                return Ok(Some(renewed(id, true)));
            }
            Ok(InCold::Damaged) => chain(&unsound()),
            Err(error @ (Error::Damaged { .. } | Error::NotFound(_))) => chain(&error),
            Err(error) if is_stranger(&error) => {
                return self.report_displaced(record, error);
            }
            Err(error) => return Err(error),
        };
        let is_whole = |(_, found): (HotCopy, Repair)| found.is_segment_intact();
        if record.hot && record.holes.is_empty() && self.look_at_hot(id).is_ok_and(is_whole) {
            self.copy_again(id);
            let blocks = Vec::new();
            let mended = Mended::Whole;
            return Ok(Some(DamageReport { segment: id, in_cold: true, what, blocks, mended }));
        }
        self.make_anew(record, what, true).map(Some)
    }

    /// What it means that a sound object of another stands under the key of this segment.
    fn report_displaced(
        &self,
        record: &SegmentRecord,
        error: Error,
    ) -> Result<Option<DamageReport>> {
        let (id, what) = (record.id, chain(&error));
        // Without an index here nobody can tell whose the object is: it may be ours.
        let Ok(index) = self.hot.read_index(&self.name(id)) else { return Err(error) };
        if record.hot && !self.bad_frames(record, &index)?.is_empty() {
            return self.make_anew(record, what, true).map(Some);
        }
        let is_here = |entry: &&IndexEntry| {
            let frame = entry.frame_range();
            record.hot && !record.holes.touches(frame.start, frame.end)
        };
        let gone: Vec<BlockId> =
            index.entries().iter().filter(|e| !is_here(e)).map(|entry| entry.id).collect();
        let lost = self.needed_of(&index, &gone)?;
        let mended = match (lost.is_empty(), record.hot) {
            (true, true) => {
                self.table.update(id, |segment| segment.record.cold = ColdCopy::Absent);
                self.record_state(id);
                Mended::Displaced
            }
            // Nobody needs what is left of it.
            (true, false) => return Ok(None),
            (false, _) => Mended::Lost(lost),
        };
        Ok(Some(DamageReport { segment: id, in_cold: true, what, blocks: gone, mended }))
    }

    /// Has the object in cold compared with the whole local file, and replaced.
    fn copy_again(&self, id: SegmentId) {
        self.table.update(id, |segment| {
            segment.record.cold = ColdCopy::Listed;
            (segment.failures, segment.retry_at) = (0, None);
        });
        self.record_state(id);
        self.want_copies(&[id]);
    }

    /// Makes the segment out of what is left of its copies, as a local file.
    fn make_anew(
        &self,
        record: &SegmentRecord,
        what: String,
        in_cold: bool,
    ) -> Result<DamageReport> {
        let id = record.id;
        let deadline = self.config.clock.instant() + CALL_DEADLINE;
        let charge = self.capacity.charge_reserve(record.stored_bytes())?;
        let mut best: Option<Repair> = None;
        let looked = self.for_each_remainder(id, deadline, &mut |left| {
            if left.found.lost.is_empty() {
                return Some(self.build(id, &left));
            }
            let lost = bytes_of(&left.found.lost);
            if left.complete && best.as_ref().is_none_or(|best| lost < bytes_of(&best.lost)) {
                best = Some(left.found);
            }
            None
        });
        let made = match looked {
            // Of no copy that there is anything can be made.
            Err(Error::Damaged { .. }) => None,
            looked => looked?,
        };
        let Some(built) = made else {
            // That something is lost is to be told in any case, whatever becomes of the rest.
            let rest = self.save_the_rest(record, deadline);
            drop(charge);
            let saved = self.salvage(id);
            for error in [rest.err().as_ref(), saved.as_ref().err()].into_iter().flatten() {
                let error = chain(error);
                tracing::warn!(%id, error, "what is left of a segment stays as it is");
            }
            let report = self.report_lost(record, what, in_cold, &best.unwrap_or_default())?;
            self.distrust_cold(id, matches!(report.mended, Mended::Lost(_)));
            return saved.unwrap_or_default().judge(report);
        };
        let found = built?;
        self.install(id)?;
        drop(charge);
        self.recount(id);
        if in_cold {
            self.copy_again(id);
        }
        let blocks = self.blocks_of(id, &found.damage)?;
        Ok(DamageReport { segment: id, in_cold, what, blocks, mended: Mended::Whole })
    }

    /// No copy of a segment is whole: what is in cold is no reason any more to let go of what is in
    /// hot. A file with holes can neither be saved nor copied.
    fn distrust_cold(&self, id: SegmentId, is_lost: bool) {
        let changed = self.table.update(id, |segment| {
            let record = &mut segment.record;
            // Also where the object does not count any more: that the file is hopeless is not stored.
            segment.ruined |= record.hot && !record.holes.is_empty();
            if record.cold != ColdCopy::Verified || !record.hot && !is_lost {
                return false;
            }
            record.cold = ColdCopy::Listed;
            segment.verdict = None;
            true
        });
        if changed == Some(true) {
            self.record_state(id);
        }
    }

    /// Every byte of an object was read and is as it was sealed. It counts again if it was
    /// distrusted, and what it can make of a ruined file in hot is made.
    fn trust_cold(&self, id: SegmentId) {
        self.repairs.is_whole(id, true);
        let was = self.table.update(id, |segment| {
            let was_ruined = std::mem::take(&mut segment.ruined);
            (was_ruined, std::mem::replace(&mut segment.record.cold, ColdCopy::Verified))
        });
        if let Some((_, ColdCopy::Listed | ColdCopy::Absent)) = was {
            self.record_state(id);
        }
        if let Some((true, _)) = was {
            self.look_again(id);
        }
    }

    /// Puts right what can be of a local file of which something is lost, so that the rest does not
    /// have to be computed for every reader.
    fn save_the_rest(&self, record: &SegmentRecord, deadline: Instant) -> Result<()> {
        if !record.hot || !record.holes.is_empty() {
            return Ok(());
        }
        let made = self.for_each_remainder(record.id, deadline, &mut |left| {
            let gains = !left.in_cold && !left.found.patches.is_empty() && !left.is_unread();
            gains.then(|| self.build(record.id, &left))
        })?;
        let Some(built) = made else { return Ok(()) };
        built?;
        self.install(record.id)
    }

    /// The end of a segment of which there is no copy, if somebody needs it.
    pub(in super::super) fn look_for_lost(
        &self,
        record: &SegmentRecord,
    ) -> Result<Option<DamageReport>> {
        let is_listed = !self.cold_unlisted.load(Ordering::Relaxed);
        if record.hot || !is_listed || self.settle_offer(record)? != ColdCopy::Absent {
            return Ok(None);
        }
        let report =
            self.report_lost(record, "its file is gone".to_owned(), false, &Repair::default())?;
        let is_lost = matches!(report.mended, Mended::Lost(_));
        Ok(is_lost.then_some(report))
    }

    /// Which blocks that somebody needs are gone with what was lost.
    fn report_lost(
        &self,
        record: &SegmentRecord,
        what: String,
        in_cold: bool,
        found: &Repair,
    ) -> Result<DamageReport> {
        let id = record.id;
        // Without a trailer in any copy nothing can be said of its parts: all of it is lost.
        let all = [Damage { part: Part::Data, range: 0..u64::MAX }];
        let nothing_left = found.file_len == 0;
        let damage = if nothing_left { &all[..] } else { &found.damage };
        let blocks = self.blocks_of(id, damage)?;
        let lost = if nothing_left { &all[..] } else { &found.lost };
        let lost = self.blocks_of(id, lost)?;
        let lost = match self.load_index(id, CALL_DEADLINE) {
            Ok(index) => self.needed_of(&index, &lost)?,
            Err(_) => self.needed_without_index(record)?,
        };
        let mended = if lost.is_empty() { Mended::Unneeded } else { Mended::Lost(lost) };
        Ok(DamageReport { segment: id, in_cold, what, blocks, mended })
    }

    /// Those of a segment's blocks that somebody needs and no other segment holds.
    pub(in super::super) fn needed_of(
        &self,
        index: &SegmentIndex,
        blocks: &[BlockId],
    ) -> Result<Vec<BlockId>> {
        let id = index.name().id;
        let live = self.live_among(id, blocks)?;
        let is_elsewhere =
            |block: BlockId| index.find(block).iter().any(|entry| self.is_superseded(id, entry));
        let needed = blocks.iter().copied().filter(|b| live.contains(b) && !is_elsewhere(*b));
        Ok(needed.collect())
    }

    /// What somebody needs of a segment of which no index is left, as far as the catalog knows.
    pub(in super::super) fn needed_without_index(
        &self,
        record: &SegmentRecord,
    ) -> Result<Vec<BlockId>> {
        let known = self.known_of(record)?;
        let live = self.live_among(record.id, &known)?;
        Ok(known.into_iter().filter(|block| live.contains(block)).collect())
    }

    fn known_of(&self, record: &SegmentRecord) -> Result<Vec<BlockId>> {
        let found = self.with_catalog(|catalog: &Catalog| {
            let mut found: Vec<_> = catalog.lookup(record.first_block)?.into_iter().collect();
            let rest = (record.blocks as usize).saturating_sub(1).min(MOST_NAMED);
            found.extend(catalog.following(record.first_block, rest)?);
            Ok(found)
        })?;
        let found = found.into_iter().filter(|found| found.segment == record.id);
        Ok(found.map(|found| found.entry.id).collect())
    }

    /// Blocks with bytes in those parts: by the index, or, where none is left, all that the catalog
    /// knows of the segment.
    fn blocks_of(&self, id: SegmentId, damage: &[Damage]) -> Result<Vec<BlockId>> {
        if let Ok(index) = self.load_index(id, CALL_DEADLINE) {
            return Ok(blocks_in(&index, damage).into_iter().collect());
        }
        let Some(record) = self.table.record(id) else { return Ok(Vec::new()) };
        self.known_of(&record)
    }

    /// Writes what is left, with everything that belongs over it, to a file in staging, durably,
    /// and checks it.
    fn build(&self, id: SegmentId, left: &Remainder<'_>) -> Result<Repair> {
        let path = self.hot.staged_path(id, FileKind::Sealed);
        let apart = self.hot.staged_path(id, FileKind::Sidecar);
        let found = &left.found;
        let end = found.file_len + found.sidecar_len;
        let joined = Joined::new(left.bytes, found.file_len, found.sidecar_len);
        let bytes = Patched::new(&joined, &found.patches, end);
        let built = copy_durably(&bytes, 0..found.file_len, &path).and_then(|()| {
            if found.sidecar_len > 0 {
                copy_durably(&bytes, found.file_len..end, &apart)?;
            }
            if !found.lost.is_empty() && left.is_unread() {
                // Zeros stand for it in what was made, and would be all that is left of it.
                let reason = "a part of it could not be read, and may be later".to_owned();
                return Err(Error::Damaged { what: "segment", reason });
            }
            let opened = HotCopy::at(&path, &apart);
            let copy = opened.map_err(Error::io(format!("open {}", path.display())))?;
            let again = repair(&copy, &self.name(id))?;
            if again.lost == found.lost && again.damage.len() == again.lost.len() {
                return Ok(found.clone());
            }
            let reason = format!("{} parts of what was made are wrong", again.damage.len());
            Err(Error::Damaged { what: "segment", reason })
        });
        if built.is_err() {
            for path in [path, apart] {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        tracing::warn!(%error, "{} stays until the next open", path.display());
                    }
                    _ => {}
                }
            }
        }
        built
    }

    /// Puts the file that was made in the place of the damaged one.
    fn install(&self, id: SegmentId) -> Result<()> {
        let damaged = self.hot.staging().join(format!("{id}.damaged"));
        let path = self.hot.path(id, FileKind::Sealed);
        self.reached(Step::MendBeforeRename)?;
        match fs::hard_link(&path, &damaged) {
            Ok(()) => {}
            // There was no file, or the disk knows no second names: the new one was verified.
            Err(error) => tracing::debug!(%error, "{} is not kept aside", path.display()),
        }
        self.hot.name_staged(id)?;
        self.hot.forget(id);
        self.reached(Step::MendAfterRenameBeforeTable)?;
        self.table.update(id, |segment| {
            segment.record.hot = true;
            segment.record.holes = Holes::default();
            segment.unreadable = false;
            segment.ruined = false;
            segment.verdict = None;
            (segment.failures, segment.retry_at) = (0, None);
        });
        self.record_state(id);
        let (_, again) = self.look_at_hot(id)?;
        if again.damage.len() > again.lost.len() {
            let reason = "it is damaged again where it was just written".to_owned();
            return Err(Error::Damaged { what: "segment", reason });
        }
        match fs::remove_file(&damaged) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, "{} stays until the next open", damaged.display());
            }
            _ => {}
        }
        sync_dir(&self.hot.staging())?;
        self.recount(id);
        Ok(())
    }
}

pub(super) fn bytes_of(damage: &[Damage]) -> u64 {
    damage.iter().map(|damage| damage.range.end - damage.range.start).sum()
}

fn parts(damage: &[Damage]) -> String {
    let parts: Vec<String> =
        damage.iter().map(|damage| format!("{:?} {:?}", damage.part, damage.range)).collect();
    shorten(&parts)
}

/// What is told of a copy of which only the sidecar was damaged.
fn renewed(segment: SegmentId, in_cold: bool) -> DamageReport {
    let what = "its sidecar was missing or damaged".to_owned();
    DamageReport { segment, in_cold, what, blocks: Vec::new(), mended: Mended::Whole }
}

fn copy_durably<R: ReadAt + ?Sized>(bytes: &R, range: Range<u64>, path: &Path) -> Result<()> {
    let failed = || Error::io(format!("write {}", path.display()));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(failed())
        .map_err(full_disk)?;
    let mut piece = vec![0; PIECE.min((range.end - range.start) as usize)];
    let mut at = range.start;
    while at < range.end {
        let take = (range.end - at).min(PIECE as u64) as usize;
        bytes.read_exact_at(&mut piece[..take], at).map_err(failed())?;
        let place = at - range.start;
        file.write_all_at(&piece[..take], place).map_err(failed()).map_err(full_disk)?;
        at += take as u64;
    }
    file.sync_all().map_err(failed())
}
