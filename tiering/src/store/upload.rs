//! Copies of sealed segments to the cold tier: ahead of need, on demand, under pressure.
//!
//! *Move, first half*: the local file is verified, copied, read back and compared byte by byte, and
//! verified once more, since what it was compared with may have changed in between; only then the
//! table says `Verified`. Nothing here removes anything local.
//! A sidecar goes before its segment. *Crash*: an object that was not recorded is found again (same key, same bytes) and compared.
//! *Retry*: a failed upload is tried again after a growing pause; so is the tier as a whole, by one
//! segment, unless the segment was to blame. What waits is parked, visible with its reason in
//! [`super::BlockStore::health`], and so is what a full cold tier has no room for. An ambiguous
//! failure is settled by reading back. That a copy was begun is recorded first, so that an object
//! nobody came to record is found when its segment dies.
//! *Replacement*: an object that differs from the local file is deleted and written again only
//! when it was read throughout, names no other volume or segment and no other content, its own
//! checksums fail, and every shard of the local file, checked again, is intact.
//! *Sameness*: an object counts as the copy of a segment only if its trailer, which holds the
//! checksums of index and shards, is the local one. Another instance of the volume, recovered
//! elsewhere, writes sound objects under the same keys.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::blocks::Wait;
use crate::catalog::{Catalog, ColdCopy};
use crate::error::{Error, Result};
use crate::segment::{FileKind, ReadAt, Repair, SegmentId, SegmentName, repair};
use crate::throttle::Priority;
use crate::tier::Content;

use super::cold::Cold;
use super::job::Cancel;
use super::repair::Suspect;
use super::sidecar::HotCopy;
use super::signals::{add, get};
use super::steps::Step;
use super::table::Segment;
use super::urgency::acting_as;
use super::verdict::InCold;
use super::{CLOCK_SLICE, Inner, TICK};

/// Bytes compared at once when a copy is read back.
pub(super) const COMPARE_BYTES: u64 = 4 << 20;

/// Longest time of one call of the cold tier in the background.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(300);

/// Pause after the first failure; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Failures in a row after which a caller that waits for an upload is told why.
const PATIENT_FAILURES: u32 = 3;

/// What the uploader was asked for beyond its habit.
#[derive(Default)]
pub(super) struct Wanted {
    /// By how many.
    pub(super) segments: BTreeMap<SegmentId, u32>,
    /// Everything: the volume is being unmounted.
    pub(super) all: bool,
    pub(super) last_error: Option<String>,
    /// Failures in a row that were the tier's, and when it is tried again.
    tier_failures: u32,
    tier_retry_at: Option<Instant>,
}

impl Inner {
    /// An uploader's loop; several run.
    pub(super) fn run_uploader(&self) {
        let _acting = acting_as(Priority::WriteBack);
        while !self.is_stopping() {
            match self.next_upload() {
                Some(id) => self.upload(id),
                None => self.signals.uploader.wait(TICK),
            }
        }
    }

    /// Whether a segment is to be copied, now or later.
    pub(super) fn needs_copy(segment: &Segment) -> bool {
        segment.record.hot
            && segment.record.cold != ColdCopy::Verified
            && !segment.unreadable
            && !segment.ruined
    }

    /// Claims the oldest segment that should be copied now.
    fn next_upload(&self) -> Option<SegmentId> {
        let now = self.config.clock.instant();
        let under_pressure = self.capacity.excess() > 0;
        let ahead = self.config.copy_ahead && self.capacity.wants_copies();
        let wanted = self.wanted.lock();
        if wanted.tier_retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let everything = ahead || wanted.all || under_pressure;
        // That a copy was begun must be recorded first, where anything can be.
        let broken = self.catalog.read().as_ref().is_none_or(Catalog::is_broken);
        let mut due = self.table.ids(|segment| {
            Self::needs_copy(segment)
                && !segment.busy
                && (segment.recorded || broken)
                && segment.retry_at.is_none_or(|at| at <= now)
                && (everything || wanted.segments.contains_key(&segment.record.id))
        });
        // What failed does not hold up what has not.
        let failures = |id: &SegmentId| self.table.with(*id, |segment| segment.failures);
        due.sort_by_cached_key(|id| (failures(id), *id));
        let len_of = |id| self.table.with(id, |segment| segment.record.stored_bytes()).unwrap_or(0);
        // Under the lock, so that two uploaders do not see the same room.
        let under_way = self.table.fold(0, |sum, segment| {
            sum + if segment.busy && Self::needs_copy(segment) {
                segment.record.stored_bytes()
            } else {
                0
            }
        });
        let fits = |id| self.cold_has_room(under_way + len_of(id));
        // A tier that failed is tried by one at a time.
        let probing = wanted.tier_failures > 0 && under_way > 0;
        let next = due.into_iter().find(|&id| !probing && fits(id) && self.table.claim(id));
        drop(wanted);
        next
    }

    /// Asks for copies now, not when a pause is over.
    pub(super) fn want_copies(&self, segments: &[SegmentId]) {
        let mut wanted = self.wanted.lock();
        for id in segments {
            *wanted.segments.entry(*id).or_default() += 1;
        }
        wanted.tier_retry_at = None;
        drop(wanted);
        for id in segments {
            let ruined = self.table.update(*id, |segment| {
                segment.retry_at = None;
                segment.ruined
            });
            if ruined == Some(true) {
                // What was beyond repair may have come back.
                self.look_again(*id);
            }
        }
        self.signals.kick_uploader();
    }

    /// Ends [`Inner::want_copies`].
    pub(super) fn unwant_copies(&self, segments: &[SegmentId]) {
        let mut wanted = self.wanted.lock();
        for id in segments {
            if let Some(count) = wanted.segments.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    wanted.segments.remove(id);
                }
            }
        }
    }

    /// How many segments wait for the cold tier to take copies again, and why.
    pub(super) fn parked_uploads(&self) -> (u64, Option<String>) {
        if self.cold.is_none() {
            return (0, None);
        }
        let now = self.config.clock.instant();
        let (tier_rests, last_error) = {
            let wanted = self.wanted.lock();
            (wanted.tier_retry_at.is_some_and(|at| at > now), wanted.last_error.clone())
        };
        let used = self.cold_used();
        let fits = |len| self.config.cold_capacity.is_none_or(|capacity| used + len <= capacity);
        let (parked, full) = self.table.fold((0, false), |(parked, full), segment| {
            if !Self::needs_copy(segment) {
                return (parked, full);
            }
            let has_room = fits(segment.record.stored_bytes());
            let rests = segment.retry_at.is_some_and(|at| at > now);
            (parked + u64::from(!has_room || rests || tier_rests), full || !has_room)
        });
        let why = match (parked, full) {
            (0, _) => None,
            (_, true) => Some("the cold tier is full: no room within its capacity".to_owned()),
            _ => last_error,
        };
        (parked, why)
    }

    /// Whether the cold tier's configured capacity takes another `bytes`.
    pub(super) fn cold_has_room(&self, bytes: u64) -> bool {
        self.config.cold_capacity.is_none_or(|capacity| self.cold_used() + bytes <= capacity)
    }

    /// Bytes of segments in the cold tier.
    pub(super) fn cold_used(&self) -> u64 {
        self.table.fold(0, |sum, segment| {
            sum + if segment.record.cold == ColdCopy::Absent {
                0
            } else {
                segment.record.stored_bytes()
            }
        })
    }

    /// Copies one claimed segment and lets go of it.
    fn upload(&self, id: SegmentId) {
        let result = self.copy_to_cold(id).and_then(|()| self.reached(Step::VerifiedBeforeRecord));
        match &result {
            Ok(()) => {
                let record = self.table.update(id, |segment| {
                    segment.record.cold = ColdCopy::Verified;
                    segment.failures = 0;
                    segment.retry_at = None;
                    segment.record.clone()
                });
                if let Some(record) = record {
                    add(&self.counters.uploaded_segments, 1);
                    add(&self.counters.uploaded_bytes, record.stored_bytes());
                    self.record_state(id);
                }
                let fails = self.table.fold(false, |found, other| found || other.failures > 0);
                let mut wanted = self.wanted.lock();
                (wanted.tier_failures, wanted.tier_retry_at) = (0, None);
                if !fails {
                    // What went wrong is over.
                    wanted.last_error = None;
                }
                wanted.segments.remove(&id);
                drop(wanted);
                self.capacity.progressed();
            }
            Err(error) => self.upload_failed(id, error),
        }
        self.table.unclaim(id);
        self.upload_changed.notify_all();
        self.signals.kick_mover();
    }

    fn upload_failed(&self, id: SegmentId, error: &Error) {
        if self.is_stopping() {
            return;
        }
        add(&self.counters.upload_failures, 1);
        let now = self.config.clock.instant();
        // Its own bytes are damaged, or the disk does not give them.
        let is_unread = matches!(error, Error::Io { .. }) && self.is_unread(id);
        let damaged = is_unread || matches!(error, Error::Damaged { .. });
        if self.table.with(id, |segment| segment.ruined) == Some(true) {
            // What is lost was told, and what was sound goes to cold from elsewhere.
            self.table.update(id, |segment| (segment.failures, segment.retry_at) = (0, None));
            return;
        }
        let failures = self.table.update(id, |segment| {
            segment.failures = segment.failures.saturating_add(1);
            segment.retry_at = Some(now + pause_after(segment.failures));
            segment.failures
        });
        let text = super::read::chain(error);
        tracing::warn!(%id, error = text, failures, damaged, "a segment was not copied to cold");
        let mut wanted = self.wanted.lock();
        wanted.last_error = Some(format!("segment {id}: {text}"));
        if !damaged {
            // The next segment would only fail as well, after all of it was read to be checked.
            wanted.tier_failures = wanted.tier_failures.saturating_add(1);
            wanted.tier_retry_at = Some(now + pause_after(wanted.tier_failures));
        }
    }

    /// Writes a segment's record to the catalog, where it is a hint.
    pub(super) fn record_state(&self, id: SegmentId) {
        let record = self.table.update(id, |segment| {
            segment.record.heat = segment.heat.load();
            segment.recorded.then(|| segment.record.clone())
        });
        if let Some(Some(record)) = record
            && let Err(error) = self.with_catalog(|catalog| catalog.put_segment(&record))
        {
            tracing::warn!(%id, %error, "the catalog did not take a segment's state");
        }
    }

    /// Copies, reads back and compares; `Ok` means verified.
    fn copy_to_cold(&self, id: SegmentId) -> Result<()> {
        let cold = self.cold_tier()?;
        let name = SegmentName { volume: self.config.volume, id };
        let (mut copy, found) = match self.whole_file(&name) {
            Ok(whole) => whole,
            // Released in part, or damaged: if cold holds it already, its own checksums tell.
            Err(error) => {
                return self.verify_cold(id).map(drop).map_err(|cold_error| {
                    tracing::warn!(%id, %cold_error, "neither copy of a segment is whole");
                    self.suspect(id, Suspect { hot: true, cold: true });
                    error
                });
            }
        };
        let key = id.object_key();
        let path = self.hot.path(id, FileKind::Sealed);
        self.reached(Step::UploadBeforePut)?;
        self.note_offer(id)?;
        self.copy_sidecar(cold, &copy, &found, id)?;
        for attempt in 0..2 {
            let (put_key, put_path) = (key.clone(), path.clone());
            let deadline = self.config.clock.instant() + CALL_DEADLINE;
            let put = if attempt == 0 {
                cold.call(deadline, "copying a segment to cold", move |tier| {
                    Box::pin(async move { tier.put_file(&put_key, &put_path).await })
                })
            } else {
                let file = Arc::clone(copy.file());
                let len =
                    file.metadata().map_err(Error::io(format!("length of segment {id}")))?.len();
                let content = Content::File { path: put_path, file, len };
                cold.call(deadline, "replacing a copy in cold", move |tier| {
                    Box::pin(async move { tier.replace(&put_key, &content).await })
                })
            };
            match put {
                Ok(()) | Err(Error::Exists(_)) => {}
                Err(error) => return Err(error),
            }
            self.reached(Step::UploadAfterPut)?;
            if self.compare(cold, id, copy.file())? && self.is_still_whole(&name, &copy)? {
                return Ok(());
            }
            if self.look_in_cold(cold, &name)? != InCold::Damaged {
                // The object is sound by its own checksums: whatever differs is local.
                tracing::warn!(%id, "the local segment changed after it was checked");
                return Ok(());
            }
            // Replaced in one step where the tier can: should the local file go now, its own parity
            // may still help.
            (copy, _) = self.whole_file(&name)?;
            tracing::warn!(%id, attempt, "the copy in cold is damaged, the local segment is not");
        }
        Err(Error::Damaged { what: "cold object", reason: format!("{key} reads back differently") })
    }

    /// Whether a file that was copied is sound after it was read for that: what changed since it was
    /// checked lies in the copy as well, which is equal to it.
    fn is_still_whole(&self, name: &SegmentName, copy: &HotCopy) -> Result<bool> {
        let found = repair(copy, name)?;
        if found.is_segment_intact() && !found.is_intact() {
            self.suspect(name.id, Suspect { hot: true, cold: true });
        }
        Ok(found.is_segment_intact())
    }

    /// Records that an object may come to be in cold, so that the process may die at once.
    fn note_offer(&self, id: SegmentId) -> Result<()> {
        let was = self.table.update(id, |s| std::mem::replace(&mut s.record.offered, true));
        if was != Some(false) {
            return Ok(());
        }
        self.record_state(id);
        // A catalog that failed is made again from both tiers.
        match self.with_catalog(Catalog::flush) {
            Err(error @ Error::ReadOnly(_)) => Err(error),
            _ => Ok(()),
        }
    }

    /// The file of a claimed segment once every shard of it was checked, made anew if it must be.
    fn whole_file(&self, name: &SegmentName) -> Result<(HotCopy, Repair)> {
        let id = name.id;
        let open = || {
            let opened = self.hot.open_copy(id);
            opened.map_err(Error::io(format!("open segment {id} for copying")))
        };
        let copy = open()?;
        let looked = match self.hot.has(id) {
            true => repair(&copy, name),
            false => Err(Error::NotFound(format!("the file of segment {id}"))),
        };
        let error = match looked {
            Ok(found) if found.is_intact() => return Ok((copy, found)),
            Ok(found) => damaged_parts(&found),
            Err(error) => error,
        };
        if self.table.with(id, |s| !s.record.holes.is_empty()).unwrap_or(true) {
            return Err(error);
        }
        let mended = self.mend(id, Suspect::HOT);
        let copy = open()?;
        let found = repair(&copy, name)?;
        // Where only the sidecar could not be made, as on a full disk, the segment goes nevertheless.
        if found.is_segment_intact() {
            return Ok((copy, found));
        }
        mended.and(Err(damaged_parts(&found)))
    }

    /// Whether the object holds exactly the file's bytes.
    fn compare(&self, cold: &Cold, id: SegmentId, file: &File) -> Result<bool> {
        let failed = || Error::io(format!("read segment {id} for comparing"));
        let len = file.metadata().map_err(failed())?.len();
        let key = id.object_key();
        let deadline = || self.config.clock.instant() + CALL_DEADLINE;
        if self.cold_len(cold, id)? != len {
            return Ok(false);
        }
        self.reached(Step::UploadBeforeVerify)?;
        let mut local = vec![0; COMPARE_BYTES.min(len) as usize];
        let mut at = 0;
        while at < len {
            if self.is_stopping() {
                return Err(Error::ReadOnly("it is being closed".into()));
            }
            let end = len.min(at + COMPARE_BYTES);
            let part = &mut local[..(end - at) as usize];
            ReadAt::read_exact_at(file, part, at).map_err(failed())?;
            let mut same = false;
            // A damaged answer is not a damaged object: ask again before judging.
            for _ in 0..2 {
                same = match cold.get_range(key.clone(), at..end, deadline()) {
                    Ok(bytes) => *bytes == *part,
                    Err(Error::Damaged { .. }) => false,
                    Err(error) => return Err(error),
                };
                if same {
                    break;
                }
            }
            if !same {
                return Ok(false);
            }
            at = end;
        }
        Ok(true)
    }

    /// Length of a segment's object.
    pub(super) fn cold_len(&self, cold: &Cold, id: SegmentId) -> Result<u64> {
        self.cold_len_by(cold, id, self.config.clock.instant() + CALL_DEADLINE)
    }

    /// [`Inner::cold_len`] until `deadline`.
    pub(super) fn cold_len_by(&self, cold: &Cold, id: SegmentId, deadline: Instant) -> Result<u64> {
        self.object_len(cold, &id.object_key(), deadline)
    }

    /// Length of an object.
    pub(super) fn object_len(&self, cold: &Cold, key: &str, deadline: Instant) -> Result<u64> {
        let key = key.to_owned();
        let head = cold.call(deadline, "reading from the cold tier", move |tier| {
            Box::pin(async move { tier.head(&key).await })
        })?;
        Ok(head.len)
    }

    pub(super) fn cold_tier(&self) -> Result<&Cold> {
        self.cold.as_ref().ok_or_else(|| Error::Config("the volume has no cold tier".into()))
    }

    /// Seals and copies everything; returns how many segments were left when `wait` ended.
    pub(super) fn drain_uploads(&self, wait: Wait) -> Result<u64> {
        if self.cold.is_none() {
            return Ok(0);
        }
        self.rotate_now();
        let unsealed = self.unsealed_full();
        match self.wait_sealed(&unsealed, wait) {
            Err(Error::TimedOut(_)) => return Ok(self.health().uploads_waiting.max(1)),
            other => other?,
        }
        {
            let mut wanted = self.wanted.lock();
            (wanted.all, wanted.tier_retry_at) = (true, None);
        }
        for id in self.table.ids(Self::needs_copy) {
            self.table.update(id, |segment| segment.retry_at = None);
        }
        self.signals.kick_uploader();
        let left = || {
            let smallest = self.table.fold(None, |least: Option<u64>, segment| {
                if Self::needs_copy(segment) {
                    let len = segment.record.stored_bytes();
                    Some(least.map_or(len, |least| least.min(len)))
                } else {
                    least
                }
            });
            smallest.is_some_and(|len| self.cold_has_room(len))
        };
        while left() && !self.is_stopping() && self.check_wait(wait, "copying to cold").is_ok() {
            let mut wanted = self.wanted.lock();
            self.upload_changed.wait_for(&mut wanted, CLOCK_SLICE);
        }
        self.wanted.lock().all = false;
        Ok(self.health().uploads_waiting)
    }

    /// Whether a segment is in cold, or will not be copied since all of it is dead: it has left hot,
    /// and what cold has of it is kept for others.
    fn is_settled(segment: &Segment) -> bool {
        let record = &segment.record;
        let is_dead = segment.recorded && record.dead_bytes >= record.data_bytes;
        record.cold == ColdCopy::Verified
            || record.cold == ColdCopy::Listed && !record.hot && is_dead
    }

    /// Why a segment will not get to cold by itself, if that is so.
    pub(super) fn is_beyond_copying(segment: &Segment) -> Option<String> {
        let record = &segment.record;
        if record.cold == ColdCopy::Verified || Self::needs_copy(segment) {
            return None;
        }
        let why = match (segment.unreadable, segment.ruined, record.cold) {
            (true, _, _) => "its index is damaged wherever it was looked for",
            (false, true, _) => "what still lives in it is damaged beyond repair",
            (false, false, ColdCopy::Absent) => "its file is gone from the hot tier",
            (false, false, _) => return None,
        };
        Some(format!("segment {} cannot be copied: {why}", record.id))
    }

    /// Waits until every one of `segments` is verified in cold, or failed often, or cannot get
    /// there. `progress` gets the segments that are, and their bytes.
    pub(super) fn wait_copied(
        &self,
        segments: &[SegmentId],
        wait: Wait,
        cancel: &Cancel,
        mut progress: impl FnMut(usize, u64),
    ) -> Result<()> {
        let failures = |id: SegmentId| self.table.with(id, |s| s.failures).unwrap_or(0);
        let before: Vec<u32> = segments.iter().map(|id| failures(*id)).collect();
        let all_before = get(&self.counters.upload_failures);
        loop {
            // Gone from the table means collected: nothing is left to copy.
            let state =
                |id: &SegmentId| self.table.with(*id, |s| (Self::is_settled(s), s.record.len));
            let states = segments.iter().map(|id| state(id).unwrap_or((true, 0)));
            let (copied, bytes) = states
                .filter(|(verified, _)| *verified)
                .fold((0, 0), |(count, bytes), (_, len)| (count + 1, bytes + len));
            progress(copied, bytes);
            if copied == segments.len() {
                return Ok(());
            }
            let beyond = |segment: &Segment| {
                let reason = Self::is_beyond_copying(segment)?;
                Some(Error::Lost { id: segment.record.first_block, reason })
            };
            let beyond = segments.iter().find_map(|id| self.table.with(*id, beyond).flatten());
            if let Some(error) = beyond {
                return Err(error);
            }
            let often = segments
                .iter()
                .zip(&before)
                .any(|(id, before)| failures(*id).saturating_sub(*before) >= PATIENT_FAILURES);
            let by_tier = self.wanted.lock().tier_failures >= PATIENT_FAILURES
                && get(&self.counters.upload_failures) - all_before >= PATIENT_FAILURES.into();
            if often || by_tier {
                let reason = self.wanted.lock().last_error.clone().unwrap_or_default();
                return Err(Error::Cold {
                    action: "copy",
                    object: "segments".into(),
                    source: reason.into(),
                });
            }
            let lens = segments.iter().filter_map(|id| {
                self.table.with(*id, |s| {
                    (s.record.cold != ColdCopy::Verified).then_some(s.record.stored_bytes())
                })
            });
            if !self.cold_has_room(lens.flatten().min().unwrap_or(0)) {
                return Err(Error::NoSpace);
            }
            if self.is_stopping() {
                return Err(Error::ReadOnly("it is being closed".into()));
            }
            cancel.check()?;
            self.check_wait(wait, "waiting for segments to be copied to cold")?;
            let mut wanted = self.wanted.lock();
            self.upload_changed.wait_for(&mut wanted, CLOCK_SLICE);
        }
    }
}

/// Pause after so many failures in a row.
fn pause_after(failures: u32) -> Duration {
    let pause = FIRST_PAUSE * 2_u32.saturating_pow(failures.clamp(1, 16) - 1);
    pause.min(LONGEST_PAUSE)
}

fn damaged_parts(found: &Repair) -> Error {
    let count = found.damage.len();
    Error::Damaged { what: "segment", reason: format!("{count} parts are not as they were sealed") }
}
