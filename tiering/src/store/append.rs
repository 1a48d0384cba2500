//! The way in: encode on the caller's thread, one short critical section to append, group sync.
//!
//! *Consistency*: a block may be read as soon as `append` returned; until its segment is sealed
//! and recorded, the map of unsealed blocks is what finds it.
//! *Durability*: `sync` covers every unsealed segment, also those that wait for sealing or are
//! being sealed; a segment leaves the set only after its rename was made durable.
//! *Lanes*: fresh blocks go into one open segment; what compaction finds cold goes into another, so
//! that it is not mixed with what is still in use, and may leave hot as a whole. Blocks whose parity
//! is to lie elsewhere go apart as well; such a lane is made when its first block comes. A block that
//! stands in a sealed segment is only appended to one with a higher id, since the higher one counts.
//! *Crash*: whatever a crash leaves is `<id>.open`; opening scans it, keeps the verified frames
//! and seals it under its own id, with its parity where its header says, or inside if that is lost.
//! Frames that no sync covered may be lost or kept.
//! *Failure*: a failed `fdatasync` leaves unknown what is on the disk; trying again would lie
//! about it, so the store is read-only until it is opened again. A full disk is not a failure:
//! the frame was not added, and the caller waits for room as at the configured capacity.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::block::{BlockId, BlockRef, MAX_BLOCK_LEN};
use crate::blocks::Wait;
use crate::encode::{Effort, EncodeMemory, encode_block};
use crate::error::{Error, Result};
use crate::segment::{
    Frame, IndexEntry, ParityPlace, SegmentId, SegmentName, SegmentWriter, hash_block,
};

use super::Inner;
use super::capacity::Charge;
use super::status::Usage;

/// The share of a frame that footer and parity add at sealing, as a divisor: 1/32 is above 2.3 %.
const FOOTER_DIVISOR: u64 = 32;

/// Bytes that a segment takes beside that, however small it is: header, trailer, and the sums of
/// its shards, of which there are up to a thousand from a few hundred kilobytes on.
const SEGMENT_CHARGE: u64 = 48 << 10;

/// Pause before the next segment is made ahead again, after that failed.
const AHEAD_RETRY: Duration = Duration::from_secs(10);

/// How long a lane of cold blocks stays open without getting any: open segments can neither be
/// copied nor dropped.
const LANE_PAUSE: Duration = Duration::from_secs(10);

/// How long a lane of fresh blocks beside the first stays open: where it is seldom written, its blocks
/// would be without parity and without a copy for as long.
const LANE_AGE: Duration = Duration::from_secs(900);

/// The share of a configured capacity that any lane but the first may take before it is sealed, as
/// a divisor: at a small capacity a third open segment would be missed.
const LANE_DIVISOR: u64 = 16;

/// Smallest segment that such a lane is sealed at for that reason.
const LANE_LEAST: u64 = 256 << 10;

/// How warm the blocks of a lane are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Warmth {
    /// Just written, or still in use.
    Fresh,
    /// Found to be cold.
    Cold,
}

/// Which open segment takes a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) warmth: Warmth,
    /// Where the parity of its segments lies.
    pub(super) place: ParityPlace,
}

impl Lane {
    /// Where most blocks go.
    const FIRST: Self = Self::fresh(ParityPlace::Inside);

    pub(super) const fn fresh(place: ParityPlace) -> Self {
        Self { warmth: Warmth::Fresh, place }
    }

    pub(super) const fn cold(place: ParityPlace) -> Self {
        Self { warmth: Warmth::Cold, place }
    }
}

/// A lane that was used: one at most of each warmth and place.
struct LaneState {
    lane: Lane,
    writer: Option<SegmentWriter>,
    /// When it took a frame last or, if they are fresh, its first one; never in the first lane.
    at: Option<Instant>,
}

/// The segments that take frames, and the one after that of the first lane.
#[derive(Default)]
pub(super) struct Active {
    lanes: Vec<LaneState>,
    /// Made ahead of time, since making a name durable takes long.
    next: Option<SegmentWriter>,
    /// When making it may be tried again after a failure.
    next_at: Option<Instant>,
    /// The highest segment of the first lane. No lower one may follow: where a block stands
    /// in two segments, the one with the higher id counts.
    newest: Option<SegmentId>,
    /// Frames appended so far.
    appended: u64,
    /// The store is being closed.
    ended: bool,
}

impl Active {
    fn state(&mut self, lane: Lane) -> &mut LaneState {
        let known = self.lanes.iter().position(|state| state.lane == lane);
        let at = known.unwrap_or_else(|| {
            self.lanes.push(LaneState { lane, writer: None, at: None });
            self.lanes.len() - 1
        });
        &mut self.lanes[at]
    }

    fn lane(&mut self, lane: Lane) -> &mut Option<SegmentWriter> {
        &mut self.state(lane).writer
    }

    /// Whether the first lane has an open segment.
    fn has_first(&self) -> bool {
        self.lanes.iter().any(|state| state.lane == Lane::FIRST && state.writer.is_some())
    }

    /// The segments that take frames.
    fn open(&self) -> impl Iterator<Item = &SegmentWriter> {
        self.lanes.iter().filter_map(|state| state.writer.as_ref())
    }

    /// Takes out every open segment that `which` picks.
    fn take(&mut self, which: impl Fn(&SegmentWriter) -> bool) -> Vec<SegmentWriter> {
        let lanes = self.lanes.iter_mut();
        lanes.filter_map(|state| state.writer.take_if(|writer| which(writer))).collect()
    }
}

/// Blocks and files of segments that are not sealed yet.
#[derive(Default)]
pub(super) struct Unsealed {
    pub(super) blocks: HashMap<BlockId, (SegmentId, IndexEntry)>,
    pub(super) files: HashMap<SegmentId, UnsealedFile>,
}

pub(super) struct UnsealedFile {
    file: Arc<File>,
    /// What it holds.
    pub(super) lane: Lane,
    /// Frames were added since the last sync began.
    dirty: bool,
    /// Bytes counted against the hot capacity.
    pub(super) charged: u64,
    pub(super) freed: HashSet<BlockId>,
    pub(super) dead_bytes: u64,
}

/// Who syncs, and how far it is done.
#[derive(Default)]
pub(super) struct SyncState {
    running: bool,
    /// Frames that are durable, as [`Active::appended`] counts them.
    done: u64,
}

/// Bytes counted against the capacity for frames of that length.
pub(super) fn charge_of(frame_len: u64) -> u64 {
    frame_len + frame_len / FOOTER_DIVISOR
}

impl Inner {
    pub(super) fn append(
        &self,
        plain: &[u8],
        memory: &mut EncodeMemory,
        wait: Wait,
    ) -> Result<BlockRef> {
        if plain.is_empty() || plain.len() > MAX_BLOCK_LEN {
            return Err(Error::Config(format!(
                "a block has 1 to {MAX_BLOCK_LEN} bytes, this one {}",
                plain.len()
            )));
        }
        self.check_writable()?;
        // Asked for before the work of encoding, and with the most it can come to.
        let mut charge = self.capacity.charge(self, charge_of(plain.len() as u64 + 4096), wait)?;
        let encoding = self.load.enter(plain.len() as u64);
        let hash = hash_block(plain);
        let encoded = encode_block(plain, memory, self.effort());
        let mut frame = Frame::build(self.ids.block()?, &hash, &encoded);
        drop(encoding);
        charge.shrink_to(charge_of(frame.len()));
        let lane = Lane::fresh(self.possible(memory.parity()));
        self.append_charged(&mut frame, lane, charge, wait)
    }

    /// Appends a block that travelled here from another volume, as stored, under an id of its own.
    pub(super) fn import(&self, stored: &[u8], wait: Wait) -> Result<BlockRef> {
        self.check_writable()?;
        let mut frame = Frame::import(stored, || self.ids.block())?;
        let charge = self.capacity.charge(self, charge_of(frame.len()), wait)?;
        self.append_charged(&mut frame, Lane::FIRST, charge, wait)
    }

    /// Where parity may lie that is wanted there: stores protect nothing where there is only one.
    pub(super) fn possible(&self, wanted: ParityPlace) -> ParityPlace {
        if wanted == ParityPlace::Stores && self.config.cold_spread.is_none() {
            if !self.warned_of_stores.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "parity across stores was asked for, and the cold tier is not spread over \
                     several: it lies inside the segments"
                );
            }
            return ParityPlace::Inside;
        }
        wanted
    }

    fn append_charged<'a>(
        &'a self,
        frame: &mut Frame,
        lane: Lane,
        mut charge: Charge<'a>,
        wait: Wait,
    ) -> Result<BlockRef> {
        let entry = loop {
            match self.append_frame(frame, lane, None) {
                Err(Error::NoSpace) => {
                    // The disk is fuller than it said: this is the bound, and it is waited for
                    // like any other.
                    drop(charge);
                    self.capacity.disk_refused(self.config.clock.instant());
                    charge = self.capacity.charge(self, charge_of(frame.len()), wait)?;
                }
                other => break other?,
            }
        };
        // From here on the segment's own count holds it.
        charge.keep();
        self.counters.appended(u64::from(entry.plain_len), frame.len());
        Ok(entry.block_ref())
    }

    /// What the load allows: writers that wait for memory wait for the encoders.
    fn effort(&self) -> Effort {
        if self.config.budget.waiters() > 0 { Effort::Fast } else { Effort::Normal }
    }

    /// Adds a frame whose bytes were charged to the capacity. `behind` is the sealed segment in
    /// which the block stands already.
    pub(super) fn append_frame(
        &self,
        frame: &mut Frame,
        lane: Lane,
        behind: Option<SegmentId>,
    ) -> Result<IndexEntry> {
        let mut active = self.active.lock();
        self.check_writable()?;
        if active.ended {
            return Err(Error::ReadOnly("it is being closed".into()));
        }
        let target = self.target_bytes(lane);
        let fits = |writer: &SegmentWriter| {
            let has_room = writer.is_empty()
                || (writer.has_room(frame.len()) && writer.len() + frame.len() <= target);
            has_room && Some(writer.name().id) > behind
        };
        if !active.lane(lane).as_ref().is_some_and(fits) {
            self.rotate(&mut active, lane, behind)?;
        }
        let Some(writer) = active.lane(lane) else {
            return Err(Error::ReadOnly("no segment takes frames".into()));
        };
        let is_first = writer.is_empty();
        let entry = writer.append(frame).map_err(full_disk)?;
        let id = writer.name().id;
        let half_full = lane == Lane::FIRST && writer.len() > self.config.segment_bytes / 2;
        active.appended += 1;
        if lane.warmth == Warmth::Cold || (lane != Lane::FIRST && is_first) {
            active.state(lane).at = Some(self.config.clock.instant());
        }
        let mut unsealed = self.unsealed.write();
        unsealed.blocks.insert(entry.id, (id, entry.clone()));
        if let Some(file) = unsealed.files.get_mut(&id) {
            file.dirty = true;
            file.charged += charge_of(frame.len());
            if is_first {
                file.charged += SEGMENT_CHARGE;
                self.capacity.add(SEGMENT_CHARGE);
            }
        }
        drop(unsealed);
        if (half_full && active.next.is_none()) || self.ids.are_low() {
            self.signals.kick_helper();
        }
        Ok(entry)
    }

    /// Bytes at which a lane's segment is sealed.
    fn target_bytes(&self, lane: Lane) -> u64 {
        match (lane == Lane::FIRST, self.config.hot_capacity) {
            (false, Some(capacity)) => {
                (capacity / LANE_DIVISOR).max(LANE_LEAST).min(self.config.segment_bytes)
            }
            _ => self.config.segment_bytes,
        }
    }

    /// Hands a lane's full segment to the sealer and opens the next, which is higher than
    /// `behind`.
    fn rotate(&self, active: &mut Active, lane: Lane, behind: Option<SegmentId>) -> Result<()> {
        let ahead = if lane == Lane::FIRST { active.next.take() } else { None };
        let next = match ahead {
            Some(next) if Some(next.name().id) > behind => next,
            late => {
                // Empty, so that the sealer removes it.
                late.into_iter().for_each(|late| self.enqueue_seal(late));
                self.create_writer(lane.place)?
            }
        };
        let unsealed = UnsealedFile {
            file: Arc::clone(next.file()),
            lane,
            dirty: false,
            charged: 0,
            freed: HashSet::new(),
            dead_bytes: 0,
        };
        self.unsealed.write().files.insert(next.name().id, unsealed);
        if lane == Lane::FIRST {
            active.newest = Some(next.name().id);
        }
        if let Some(full) = active.lane(lane).replace(next) {
            self.enqueue_seal(full);
        }
        Ok(())
    }

    pub(super) fn create_writer(&self, place: ParityPlace) -> Result<SegmentWriter> {
        let name = SegmentName { volume: self.config.volume, id: self.ids.segment()? };
        SegmentWriter::create(&self.hot.segments(), name, place).map_err(full_disk)
    }

    /// Makes the next segment's file and fetches leases, off the appenders' way.
    pub(super) fn prepare_ahead(&self) {
        if let Err(error) = self.ids.refill() {
            tracing::warn!(%error, "ids could not be leased ahead");
        }
        let wanted = {
            let active = self.active.lock();
            let due = active.next_at.is_none_or(|at| at <= self.config.clock.instant());
            active.next.is_none() && active.has_first() && !active.ended && due
        };
        if !wanted || self.check_writable().is_err() {
            return;
        }
        match self.create_writer(ParityPlace::Inside) {
            Ok(writer) => discard(self.install_next(writer)),
            Err(error) => {
                tracing::warn!(%error, "the next segment could not be made ahead");
                let retry_at = self.config.clock.instant() + AHEAD_RETRY;
                self.active.lock().next_at = Some(retry_at);
            }
        }
    }

    /// Takes a segment made ahead as the next one, or gives it back: an appender may have made its
    /// own meanwhile, with a higher id.
    pub(super) fn install_next(&self, writer: SegmentWriter) -> Option<SegmentWriter> {
        let mut active = self.active.lock();
        let late = active.newest > Some(writer.name().id);
        if active.next.is_some() || active.ended || late {
            return Some(writer);
        }
        active.next.replace(writer)
    }

    /// Ends the segments that take frames, if they have any. What was appended before the call is
    /// in segments that are sealed or wait for it. Whether there was anything to end.
    pub(super) fn rotate_now(&self) -> bool {
        self.end_open(|_| true)
    }

    /// Ends those of `segments` that take frames.
    pub(super) fn rotate_those(&self, segments: &[SegmentId]) {
        self.end_open(|id| segments.contains(&id));
    }

    fn end_open(&self, which: impl Fn(SegmentId) -> bool) -> bool {
        let mut active = self.active.lock();
        let full = active.take(|writer| !writer.is_empty() && which(writer.name().id));
        let any = !full.is_empty();
        // Under the lock: what is not open any more waits for the sealer.
        full.into_iter().for_each(|full| self.enqueue_seal(full));
        any
    }

    /// Ends lanes of cold blocks to which nothing was added for a while, and old ones of fresh blocks.
    pub(super) fn end_idle_lanes(&self) {
        let mut active = self.active.lock();
        let now = self.config.clock.instant();
        let ends = |state: &LaneState| {
            let most = if state.lane.warmth == Warmth::Cold { LANE_PAUSE } else { LANE_AGE };
            state.at.is_some_and(|at| now.saturating_duration_since(at) >= most)
        };
        for state in active.lanes.iter_mut().filter(|state| ends(state)) {
            if let Some(full) = state.writer.take_if(|writer| !writer.is_empty()) {
                self.enqueue_seal(full);
            }
        }
    }

    /// Dead and all bytes of the segments that take frames.
    pub(super) fn open_waste(&self) -> (u64, u64) {
        let open: Vec<_> = self.active.lock().open().map(|writer| writer.name().id).collect();
        let unsealed = self.unsealed.read();
        let files = open.iter().filter_map(|id| unsealed.files.get(id));
        files.fold((0, 0), |(dead, all), file| (dead + file.dead_bytes, all + file.charged))
    }

    /// Whether a segment that waits for sealing has dead blocks.
    pub(super) fn is_sealing_waste(&self) -> bool {
        let full = self.unsealed_full();
        let unsealed = self.unsealed.read();
        full.iter().any(|id| unsealed.files.get(id).is_some_and(|file| file.dead_bytes > 0))
    }

    /// Lets nothing more be appended and hands what there is to the sealer.
    pub(super) fn end_appends(&self) {
        self.active.lock().ended = true;
        self.rotate_now();
    }

    /// Whether a segment is being sealed or waits for it.
    pub(super) fn is_sealing(&self) -> bool {
        let queue = self.sealing.lock();
        queue.sealing.is_some() || !queue.waiting.is_empty()
    }

    /// Removes the empty files that only waited to be used.
    pub(super) fn discard_empty(&self) {
        let (empty, next) = {
            let mut active = self.active.lock();
            (active.take(SegmentWriter::is_empty), active.next.take())
        };
        for writer in empty {
            self.unsealed.write().files.remove(&writer.name().id);
            discard(Some(writer));
        }
        discard(next);
    }

    /// Takes over a segment that a crash left open, to be sealed.
    pub(super) fn adopt_open(&self, writer: SegmentWriter) {
        let file = Arc::clone(writer.file());
        self.adopt_frames(writer.name().id, file, writer.entries().to_vec(), writer.len());
        self.enqueue_seal(writer);
    }

    /// Serves the frames of a segment that is not sealed.
    pub(super) fn adopt_frames(
        &self,
        id: SegmentId,
        file: Arc<File>,
        entries: Vec<IndexEntry>,
        len: u64,
    ) {
        let charged = charge_of(len) + SEGMENT_CHARGE;
        self.capacity.add(charged);
        // Whether the crash came before or after a sync is not known.
        let file = UnsealedFile {
            file,
            // What it holds was not found cold, and where its parity goes its writer knows.
            lane: Lane::FIRST,
            dirty: true,
            charged,
            freed: HashSet::new(),
            dead_bytes: 0,
        };
        let mut unsealed = self.unsealed.write();
        unsealed.files.insert(id, file);
        unsealed.blocks.extend(entries.into_iter().map(|entry| (entry.id, (id, entry))));
    }

    fn enqueue_seal(&self, writer: SegmentWriter) {
        self.sealing.lock().waiting.push_back(writer);
        self.seal_changed.notify_all();
    }

    /// Makes everything appended before the call durable; callers at the same time share.
    pub(super) fn sync(&self) -> Result<()> {
        let target = self.active.lock().appended;
        let mut state = self.syncing.lock();
        loop {
            self.check_writable()?;
            if state.done >= target {
                return Ok(());
            }
            if !state.running {
                break;
            }
            self.sync_changed.wait(&mut state);
        }
        state.running = true;
        drop(state);
        let result = self.sync_files();
        let mut state = self.syncing.lock();
        state.running = false;
        let result = result.map(|upto| state.done = state.done.max(upto));
        drop(state);
        self.sync_changed.notify_all();
        result
    }

    /// One round of `fdatasync`; returns how many frames it covers.
    fn sync_files(&self) -> Result<u64> {
        // Counted before the files are listed: what is appended later may be covered as well, but
        // is not counted. The append lock orders both against an append in progress.
        let (upto, dirty) = {
            let active = self.active.lock();
            let mut unsealed = self.unsealed.write();
            let dirty: Vec<_> = unsealed
                .files
                .iter_mut()
                .filter_map(|(id, unsealed)| {
                    std::mem::take(&mut unsealed.dirty).then(|| (*id, Arc::clone(&unsealed.file)))
                })
                .collect();
            (active.appended, dirty)
        };
        for (id, file) in dirty {
            let synced = self.faults.before_sync().and_then(|()| file.sync_data());
            if let Err(error) = synced {
                self.poison(format!("fdatasync of segment {id} failed: {error}"));
                return Err(self.check_writable().expect_err("the store was just poisoned"));
            }
        }
        Ok(upto)
    }

    /// The file and entry of a block whose segment is not sealed yet.
    pub(super) fn find_unsealed(
        &self,
        block: BlockId,
    ) -> Option<(Arc<File>, SegmentId, IndexEntry)> {
        let unsealed = self.unsealed.read();
        let (segment, entry) = unsealed.blocks.get(&block)?;
        let file = Arc::clone(&unsealed.files.get(segment)?.file);
        Some((file, *segment, entry.clone()))
    }

    /// The file of an unsealed segment and what it holds.
    pub(super) fn unsealed_entries(&self, id: SegmentId) -> Option<(Arc<File>, Vec<IndexEntry>)> {
        let unsealed = self.unsealed.read();
        let file = Arc::clone(&unsealed.files.get(&id)?.file);
        let held = unsealed.blocks.values().filter(|(segment, _)| *segment == id);
        Some((file, held.map(|(_, entry)| entry.clone()).collect()))
    }

    /// Notes that a block of an unsealed segment was freed; `false` when it is in none.
    pub(super) fn free_unsealed(&self, block: BlockId) -> bool {
        let mut unsealed = self.unsealed.write();
        let Unsealed { blocks, files } = &mut *unsealed;
        let Some((segment, entry)) = blocks.get(&block) else { return false };
        if let Some(file) = files.get_mut(segment)
            && file.freed.insert(block)
        {
            file.dead_bytes += entry.frame_len();
        }
        true
    }

    /// Unsealed segments as far as `usage` goes: their bytes, the dead ones, and how many there are.
    pub(super) fn unsealed_usage(&self) -> Usage {
        let unsealed = self.unsealed.read();
        let mut usage = Usage { open_segments: unsealed.files.len() as u64, ..Usage::default() };
        for file in unsealed.files.values() {
            usage.stored_bytes += file.charged;
            usage.dead_bytes += file.dead_bytes;
        }
        usage
    }

    /// Whether any of these segments still waits for sealing.
    pub(super) fn is_unsealed(&self, id: SegmentId) -> bool {
        self.unsealed.read().files.contains_key(&id)
    }

    /// Every unsealed segment.
    pub(super) fn unsealed_ids(&self) -> Vec<SegmentId> {
        self.unsealed.read().files.keys().copied().collect()
    }

    /// Every unsealed segment that no longer takes frames.
    pub(super) fn unsealed_full(&self) -> Vec<SegmentId> {
        let open: Vec<_> = self.active.lock().open().map(|writer| writer.name().id).collect();
        let mut ids = self.unsealed_ids();
        ids.retain(|id| !open.contains(id));
        ids
    }
}

pub(super) fn discard(writer: Option<SegmentWriter>) {
    if let Some(writer) = writer
        && let Err(error) = writer.discard()
    {
        tracing::warn!(%error, "an empty segment stays until the next open");
    }
}

pub(super) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// A full disk is the tier being full.
pub(super) fn full_disk(error: Error) -> Error {
    match error {
        Error::Io { source, .. } if is_full(&source) => Error::NoSpace,
        other => other,
    }
}
