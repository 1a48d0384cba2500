//! Damaged copies of segments: reading through the damage at once, and putting it right behind the
//! reader's back.
//!
//! Whoever meets damage (a reader, an upload, a scrub) notes which copy of which segment is
//! suspect. A reader whom no copy of the block serves gets it by `rescue`, from what parity and the
//! other copy make of the segment, in memory. One thread works off the suspects by `rewrite`: it
//! makes the whole segment anew beside the damaged one and replaces that only when every checksum
//! of the new one is right.
//! *Unread*: what the disk does not give is no damage yet: as long as it would count as lost, it is
//! tried again with growing pauses, for [`UNREAD_PATIENCE`].
//! *Crash*: suspects are forgotten, and found again by the next reader or scrub; for the files see
//! `rewrite`.
//! *Bounds*: one rescue and one rewrite at a time; of the segments that were rescued last a few
//! keep their patches, which never become wrong, since a segment never changes.

mod rescue;
mod rewrite;
mod salvage;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::block::BlockId;
use crate::error::{Error, Result};
use crate::segment::{ReadAt, Repair, SegmentId, SegmentIndex};
use crate::throttle::Priority;

use super::object::ColdObject;
use super::sidecar::HotCopy;
use super::signals::add;
use super::urgency::acting_as;
use super::verdict::is_stranger;
use super::{CLOCK_SLICE, Inner, TICK};
use rescue::Rescued;

/// Most suspects that are remembered: more are found again by whoever meets them.
const MOST_SUSPECTS: usize = 1 << 16;

/// Pause after a repair that could not be done now; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Pause before a segment that nothing there can make whole is looked at again: a copy may come
/// back, but not because somebody reads.
const BEYOND_PAUSE: Duration = Duration::from_secs(3600);

/// How long a disk may fail to give what is nowhere else before that counts as lost.
const UNREAD_PATIENCE: Duration = Duration::from_secs(60);

/// Which copies of a segment are suspect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) hot: bool,
    pub(super) cold: bool,
}

impl Suspect {
    pub(super) const HOT: Self = Self { hot: true, cold: false };
    pub(super) const COLD: Self = Self { hot: false, cold: true };

    fn has(self, copy: Self) -> bool {
        self.hot && copy.hot || self.cold && copy.cold
    }

    fn add(&mut self, other: Self) {
        self.hot |= other.hot;
        self.cold |= other.cold;
    }
}

/// What became of a suspect segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mended {
    /// All that was looked at is as it was sealed.
    Sound,
    /// The damaged copy was replaced by a whole one, or is about to be by an upload.
    Whole,
    /// These blocks are in no copy and cannot be computed.
    Lost(Vec<BlockId>),
    /// What is damaged stays so, and nobody needs it: dead blocks, or parity that cannot be made
    /// anew. What is sound is written elsewhere.
    Unneeded,
    /// Nothing is lost, but a sound object of another stands where the copy in cold should; it is
    /// left alone, and the segment counts as one that is in hot only.
    Displaced,
}

/// What was found and done about one segment, for whoever knows the files.
#[derive(Clone, Debug)]
pub struct DamageReport {
    /// The segment.
    pub segment: SegmentId,
    /// Whether its copy in cold was the damaged one.
    pub in_cold: bool,
    /// Parts that were damaged, in words.
    pub what: String,
    /// Blocks in those parts.
    pub blocks: Vec<BlockId>,
    /// How it ended.
    pub mended: Mended,
}

/// What is left of one copy of a segment.
struct Remainder<'a> {
    bytes: &'a dyn ReadAt,
    in_cold: bool,
    /// What belongs over the bytes, and what is lost all the same.
    found: Repair,
    /// Everything that could help was looked at.
    complete: bool,
    /// The local file, when it opened.
    hot: Option<&'a HotCopy>,
    /// It did not open, for another reason than not being there.
    is_unopened: bool,
}

impl Remainder<'_> {
    /// Whether some of the local file was not read so far, which may be as good as the rest.
    fn is_unread(&self) -> bool {
        self.is_unopened || self.hot.is_some_and(HotCopy::has_failed)
    }
}

#[derive(Default)]
struct Case {
    suspect: Suspect,
    failures: u32,
    beyond: bool,
    retry_at: Option<Instant>,
}

/// Who is suspect, and what was rescued last.
#[derive(Default)]
pub(super) struct Repairs {
    cases: Mutex<BTreeMap<SegmentId, Case>>,
    /// What was told of segments that stay damaged, by segment and whether it is the copy in cold:
    /// it is told once, and not by everybody who looks. Lists of blocks are only hashes of them.
    told: Mutex<BTreeMap<(SegmentId, bool), blake3::Hash>>,
    rescuing: Mutex<Rescued>,
}

impl Repairs {
    /// Whether a report says what was not told of this segment before.
    fn is_news(&self, report: &DamageReport) -> bool {
        let key = (report.segment, report.in_cold);
        let mut told = self.told.lock();
        let lost = match &report.mended {
            Mended::Lost(blocks) => &blocks[..],
            Mended::Unneeded => &[],
            Mended::Sound | Mended::Whole | Mended::Displaced => {
                told.remove(&key);
                return true;
            }
        };
        if told.len() >= MOST_SUSPECTS {
            told.clear();
        }
        let mut hasher = blake3::Hasher::new();
        for block in lost {
            hasher.update(&block.raw().to_le_bytes());
        }
        let hash = hasher.finalize();
        told.insert(key, hash) != Some(hash)
    }

    /// A copy is whole: what is found of it from now on is news, and what was beyond repair may not
    /// be so any more.
    fn is_whole(&self, id: SegmentId, in_cold: bool) {
        self.told.lock().remove(&(id, in_cold));
        if let Some(case) = self.cases.lock().get_mut(&id) {
            case.retry_at = None;
        }
    }

    /// Suspects that wait, and segments of which something is lost.
    pub(super) fn counts(&self) -> (u64, u64) {
        let cases = self.cases.lock();
        let beyond = cases.values().filter(|case| case.beyond).count();
        ((cases.len() - beyond) as u64, beyond as u64)
    }

    fn turn(
        &self,
        clock: impl Fn() -> Instant,
        deadline: Instant,
    ) -> Option<MutexGuard<'_, Rescued>> {
        while clock() < deadline {
            if let Some(turn) = self.rescuing.try_lock_for(CLOCK_SLICE) {
                return Some(turn);
            }
        }
        None
    }
}

impl Inner {
    /// Has the copies of a segment looked at by the thread that repairs.
    pub(super) fn suspect(&self, id: SegmentId, which: Suspect) {
        if self.config.read_only {
            return;
        }
        let mut cases = self.repairs.cases.lock();
        if cases.len() >= MOST_SUSPECTS && !cases.contains_key(&id) {
            return;
        }
        let case = cases.entry(id).or_default();
        case.suspect.add(which);
        drop(cases);
        self.signals.mender.ring();
    }

    /// Has the hot copy of a segment looked at now, though it was found to be beyond repair.
    pub(super) fn look_again(&self, id: SegmentId) {
        if let Some(case) = self.repairs.cases.lock().get_mut(&id) {
            case.retry_at = None;
        }
        self.suspect(id, Suspect::HOT);
    }

    /// The loop of the thread that repairs.
    pub(super) fn run_mender(&self) {
        let _acting = acting_as(Priority::Scrub);
        while !self.is_stopping() {
            match self.next_suspect() {
                Some((id, suspect)) => self.work_off(id, suspect),
                None => self.signals.mender.wait(TICK),
            }
        }
    }

    /// Claims a segment that is due. What is met while it is worked off counts anew.
    fn next_suspect(&self) -> Option<(SegmentId, Suspect)> {
        let now = self.config.clock.instant();
        let mut cases = self.repairs.cases.lock();
        cases.retain(|id, _| self.table.contains(*id));
        cases
            .iter_mut()
            .filter(|(_, case)| case.retry_at.is_none_or(|at| at <= now))
            .find(|(id, _)| self.table.claim(**id))
            .map(|(id, case)| (*id, std::mem::take(&mut case.suspect)))
    }

    /// Repairs a claimed segment and lets go of it.
    fn work_off(&self, id: SegmentId, suspect: Suspect) {
        // One by one: a tier that does not answer must not hide what is known of the other.
        let copies = [Suspect::HOT, Suspect::COLD].into_iter().filter(|copy| suspect.has(*copy));
        let results: Vec<_> = copies.map(|copy| (copy, self.mend(id, copy))).collect();
        self.table.unclaim(id);
        let now = self.config.clock.instant();
        let is_unread = self.is_unread(id);
        let mut cases = self.repairs.cases.lock();
        let case = cases.entry(id).or_default();
        let before = std::mem::take(case);
        case.suspect = before.suspect;
        for (copy, result) in results {
            let pause = FIRST_PAUSE * 2_u32.saturating_pow(before.failures.min(16));
            let soon = Some(now + pause.min(LONGEST_PAUSE));
            match result {
                // Some of it could not be saved for now, since it could not be read.
                Ok(mended) if copy.hot && is_unread => {
                    case.suspect.add(copy);
                    case.beyond = matches!(mended, Mended::Lost(_));
                    (case.failures, case.retry_at) = (before.failures + 1, soon);
                }
                Ok(Mended::Sound | Mended::Whole | Mended::Unneeded | Mended::Displaced) => {}
                Ok(Mended::Lost(_)) => {
                    case.suspect.add(copy);
                    case.beyond = true;
                    case.retry_at.get_or_insert(now + BEYOND_PAUSE);
                }
                Err(error) => {
                    case.suspect.add(copy);
                    (case.failures, case.retry_at) = (before.failures + 1, soon);
                    if !self.is_stopping() {
                        let error = super::read::chain(&error);
                        tracing::warn!(%id, error, "a damaged segment could not be repaired yet");
                    }
                }
            }
        }
        if case.suspect == Suspect::default() {
            cases.remove(&id);
        }
    }

    /// Whether parts of a hot segment that nothing replaces could not be read, and may be later.
    pub(super) fn is_unread(&self, id: SegmentId) -> bool {
        let since = self.table.with(id, |segment| segment.unread_since).flatten();
        let now = self.config.clock.instant();
        since.is_some_and(|since| now.saturating_duration_since(since) < UNREAD_PATIENCE)
    }

    /// A part of a hot segment that nothing replaces could not be read: whether it is to be tried
    /// again, which is seen to, and not to be taken for damaged yet.
    fn is_to_be_read_later(&self, id: SegmentId) -> bool {
        let now = self.config.clock.instant();
        self.table.update(id, |segment| segment.unread_since.get_or_insert(now).to_owned());
        let is_unread = self.is_unread(id);
        if is_unread {
            self.suspect(id, Suspect::HOT);
        }
        is_unread
    }

    /// Looks at the suspect copies of a claimed segment and puts right what can be.
    pub(super) fn mend(&self, id: SegmentId, suspect: Suspect) -> Result<Mended> {
        let reports = self.look_and_mend(id, suspect)?;
        Ok(reports.into_iter().next_back().map_or(Mended::Sound, |report| report.mended))
    }

    /// As [`Inner::mend`]; says what was damaged.
    pub(super) fn look_and_mend(
        &self,
        id: SegmentId,
        suspect: Suspect,
    ) -> Result<Vec<DamageReport>> {
        self.check_writable()?;
        self.rewrite(id, suspect)
    }

    pub(super) fn note_mended(&self, report: &DamageReport) {
        let DamageReport { segment, in_cold, what, mended, .. } = report;
        if !self.repairs.is_news(report) {
            tracing::debug!(%segment, in_cold, what, "a segment is as damaged as it was");
            return;
        }
        match mended {
            Mended::Sound => {}
            Mended::Whole => {
                add(&self.counters.repaired_segments, 1);
                tracing::warn!(%segment, in_cold, what, "a damaged segment was made whole");
            }
            Mended::Lost(blocks) => {
                let lost = blocks.len();
                tracing::error!(%segment, in_cold, what, lost, "blocks are in no copy any more");
            }
            Mended::Unneeded => {
                tracing::warn!(%segment, in_cold, what, "damage that nobody needs to be put right");
            }
            Mended::Displaced => {
                tracing::error!(%segment, what, "another's object is where the copy in cold was");
            }
        }
        if *mended != Mended::Sound
            && let Some(log) = &self.config.damage
        {
            log.report(report);
        }
    }

    /// Passes what can be made of a segment: of the local copy first, then of the object in cold,
    /// each helped by the other. Ends when `seen` has what it wants.
    fn for_each_remainder<T>(
        &self,
        id: SegmentId,
        deadline: Instant,
        seen: &mut dyn FnMut(Remainder<'_>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(record) = self.table.record(id) else { return Ok(None) };
        let (copy, unopened) = match record.hot.then(|| self.hot.open_copy(id)) {
            Some(Ok(copy)) => (Some(copy), None),
            Some(Err(error)) if error.kind() != ErrorKind::NotFound => {
                (None, Some(Error::io(format!("open segment {id}"))(error)))
            }
            _ => (None, None),
        };
        // A tier that does not answer may have the rest.
        let (object, unanswered) = match self.object_of(id, deadline) {
            Ok(object) => (object, None),
            Err(error) => (None, Some(error)),
        };
        let name = self.name(id);
        let hot = copy.as_ref().map(|copy| copy as &dyn ReadAt);
        let cold = object.as_ref().map(|object| object as &dyn ReadAt);
        let mut last = None;
        for (in_cold, one, other) in [(false, hot, cold), (true, cold, hot)] {
            let Some(one) = one else { continue };
            match rescue::put_together(one, other, &name) {
                Ok(found) => {
                    let needs_parity = !found.is_segment_intact();
                    let has_failed = object.as_ref().is_some_and(|object| {
                        object.has_failed() || needs_parity && object.sidecar_has_failed()
                    });
                    let is_answered = unanswered.is_none() && !has_failed;
                    if in_cold && !is_answered {
                        break;
                    }
                    let (hot, is_unopened) = (copy.as_ref(), unopened.is_some());
                    let complete = is_answered;
                    let mut left =
                        Remainder { bytes: one, in_cold, found, complete, hot, is_unopened };
                    let is_needed = !left.found.lost.is_empty() && left.is_unread();
                    left.complete &= !(is_needed && self.is_to_be_read_later(id));
                    if let Some(done) = seen(left) {
                        return Ok(Some(done));
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        if let Some(object) = &object {
            object.verdict(Ok(()))?;
        }
        let unread = unopened.or_else(|| copy.and_then(|copy| copy.failure()));
        if let Some(error) = unread.filter(|_| self.is_to_be_read_later(id)) {
            return Err(error);
        }
        unanswered.or(last).map_or(Ok(None), Err)
    }

    /// The object in cold, if there is one and it is the copy of this segment.
    fn object_of(&self, id: SegmentId, deadline: Instant) -> Result<Option<ColdObject<'_>>> {
        let Some(cold) = &self.cold else { return Ok(None) };
        let len = match self.cold_len_by(cold, id, deadline) {
            // Nothing of it can be read.
            Err(Error::Damaged { .. }) => return Ok(None),
            len => len,
        };
        let found = len.and_then(|len| {
            let object = ColdObject::until(self, cold, id, len, deadline);
            self.check_ours(&object, id).map(|()| object)
        });
        match found {
            Ok(object) => Ok(Some(object)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) if is_stranger(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Refuses the object of another instance of the volume, sound as it may be. Where no local
    /// index is left to compare with, the catalog tells.
    fn check_ours(&self, object: &ColdObject<'_>, id: SegmentId) -> Result<()> {
        let name = self.name(id);
        let Err(error) = self.recognise(object, &name) else { return Ok(()) };
        if object.has_failed() || self.hot.read_index(&name).is_ok() {
            return Err(error);
        }
        let index = object.verdict(SegmentIndex::from_file(object, &name))?;
        for entry in index.entries() {
            match self.with_catalog(|catalog| catalog.lookup(entry.id))? {
                Some(known) if known.segment == id && known.entry == *entry => {}
                Some(known) if known.segment != id => {}
                _ => return Err(error),
            }
        }
        Ok(())
    }
}
