//! Looking over storage for damage while it is in use: one thread that goes from segment to
//! segment, in the order of their ids, and repairs what it finds. It begins by hand or when the
//! policy says so, reads no faster than the policy allows, and steps aside while somebody waits
//! for the store. Its thread has the priority of all others, since it holds locks that readers need.
//! Behind the last segment it restores the newest backup of the namespace, to see that it can be.
//! Beside that it reads some objects in cold throughout each day.
//!
//! *Crash*: how far it came is kept every few seconds; what was looked at since is looked at again.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use firn_tiering::BlockStore;
use firn_tiering::segment::SegmentId;
use firn_tiering::store::{ColdListing, Mended, Scrubbed};
use firn_tiering::tier::Care;
use parking_lot::Mutex;

use super::assemble::Parts;
use super::automatic::secs;
use super::schedule::Stop;
use crate::policy::settings::Scrub as Settings;
use crate::report::scrub::ScrubReport;
use crate::utc;
use misses::Misses;
use record::{Pass, Record, RecordFile};

mod backup;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod misses;
mod record;

/// How often the policy and the time are looked at while there is nothing to do.
const TICK: Duration = Duration::from_secs(2);

/// How often it is kept how far a pass came.
const KEPT_EVERY: Duration = Duration::from_secs(10);

/// How long somebody else's work may hold a pass up at one segment: it must come forward on a store
/// that is never idle, too.
const GIVES_WAY: Duration = Duration::from_secs(5);

/// After a mount, before objects are read of its own accord.
const SETTLES: Duration = Duration::from_secs(3600);

/// How long an unmount waits for a segment that is being looked at, and how often it looks.
const END_PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(30);

const DAY_S: i64 = 86_400;

/// What a pass looks at next.
enum Next {
    Segment { id: SegmentId, cold_data: bool },
    Backup,
}

/// Looks over one volume.
#[derive(Debug)]
pub(super) struct Scrub {
    file: RecordFile,
    stop: Stop,
    shared: Mutex<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    record: Record,
    next_s: Option<i64>,
    failure: Option<String>,
}

/// What the thread keeps to itself.
struct Worker<'a> {
    scrub: &'a Scrub,
    mounted: Instant,
    kept: Instant,
    listing: Option<ColdListing>,
    misses: Misses,
}

impl Scrub {
    /// As it was left.
    pub(super) fn open(parts_dir: &std::path::Path, now: std::time::SystemTime) -> Self {
        let file = RecordFile::new(parts_dir);
        let shared = Shared { record: file.load(secs(now)), ..Shared::default() };
        let (shared, thread) = (Mutex::new(shared), Mutex::default());
        Self { file, stop: Stop::default(), shared, thread }
    }

    pub(super) fn start(self: &Arc<Self>, parts: &Arc<Parts>) {
        backup::clear_leftovers(parts);
        let scrub = Arc::clone(self);
        let mounted = parts.clock.instant();
        // The thread must not keep the parts open.
        let parts = Arc::downgrade(parts);
        let thread = std::thread::Builder::new().name("firn-scrub".into()).spawn(move || {
            let misses = Misses::default();
            Worker { scrub: &scrub, mounted, kept: mounted, listing: None, misses }.run(&parts);
        });
        match thread {
            Ok(thread) => *self.thread.lock() = Some(thread),
            Err(error) => {
                tracing::error!(%error, "no thread for scrubbing");
                self.shared.lock().failure = Some(format!("no thread for scrubbing: {error}"));
            }
        }
    }

    /// Ends the thread. The segment it is at is waited for, but not a cold tier that does not answer:
    /// the block store ends that call when it is closed.
    pub(super) fn end(&self) {
        self.stop.stop();
        let Some(thread) = self.thread.lock().take() else { return };
        let mut looks = 0..END_PATIENCE.as_millis() / LOOK.as_millis();
        while !thread.is_finished() && looks.next().is_some() {
            std::thread::sleep(LOOK);
        }
        if thread.is_finished() && thread.join().is_err() {
            tracing::error!("the thread for scrubbing panicked");
        }
    }

    /// Begins a pass, or goes on with the one that was stopped. Whether one was running already.
    pub(super) fn begin(&self, cold_data: bool, afresh: bool, now_s: i64) -> bool {
        let mut shared = self.shared.lock();
        let record = &mut shared.record;
        if record.is_running && !afresh {
            return true;
        }
        if afresh || record.pass.is_none() {
            record.pass = Some(Pass { started_s: now_s, cold_data, ..Pass::default() });
            record.counted_from_s = now_s;
        }
        if let Some(pass) = &mut record.pass {
            pass.cold_data |= cold_data;
        }
        record.is_running = true;
        shared.failure = None;
        self.file.store(&shared.record);
        self.stop.wake();
        false
    }

    /// Stops where it is.
    pub(super) fn halt(&self) {
        let mut shared = self.shared.lock();
        shared.record.is_running = false;
        self.file.store(&shared.record);
    }

    /// What `firn scrub status` says.
    pub(super) fn report(&self, store: &BlockStore) -> ScrubReport {
        let shared = self.shared.lock();
        let record = &shared.record;
        let state = match (record.is_running, &record.pass) {
            (true, _) => "running",
            (false, Some(_)) => "stopped",
            (false, None) => "idle",
        };
        let left = |pass: &Pass| store.segments_after(pass.cursor()).len() as u64;
        let objects = store.segments_in_cold().len() as u64;
        ScrubReport {
            state: state.to_owned(),
            pass: record.pass.as_ref().map(|pass| pass.report(left(pass))),
            last: record.last.as_ref().map(|last| last.report(0)),
            next: shared.next_s.map(utc::rfc3339),
            cold: store.usage().has_cold.then(|| record.sample.report(objects)),
            failure: shared.failure.clone(),
        }
    }
}

impl Worker<'_> {
    fn run(&mut self, parts: &Weak<Parts>) {
        loop {
            let Some(parts) = parts.upgrade() else { break };
            let settings = parts.placement.scrub_settings();
            self.schedule(&parts, &settings);
            let pause = match self.step(&parts, &settings) {
                Ok(Some(pause)) => pause,
                Ok(None) => TICK,
                Err(error) => {
                    tracing::warn!("scrubbing: {error:#}");
                    self.scrub.shared.lock().failure = Some(format!("{error:#}"));
                    self.listing = None;
                    RETRY
                }
            };
            drop(parts);
            if !self.scrub.stop.sleep(pause) {
                break;
            }
        }
        let shared = self.scrub.shared.lock();
        self.scrub.file.store(&shared.record);
    }

    /// Begins what the policy wants to begin now.
    fn schedule(&self, parts: &Parts, settings: &Settings) {
        let now_s = secs(parts.clock.now());
        let every_s = settings.every.0.as_secs();
        let mut shared = self.scrub.shared.lock();
        let due = shared.record.counted_from_s.saturating_add_unsigned(every_s);
        shared.next_s = (every_s > 0).then_some(due);
        let is_due = every_s > 0 && due <= now_s && !shared.record.is_running;
        drop(shared);
        if is_due {
            tracing::info!("looking over storage, as the policy wants");
            self.scrub.begin(false, false, now_s);
        }
    }

    /// One segment, or one object; how long to rest afterwards, `None` when there was nothing to do.
    fn step(&mut self, parts: &Parts, settings: &Settings) -> anyhow::Result<Option<Duration>> {
        let began = parts.clock.instant();
        let read = match self.next_of_pass(parts) {
            Some(Next::Segment { id, cold_data }) => self.look_at(parts, id, cold_data)?,
            Some(Next::Backup) => self.look_at_backup(parts)?,
            None => match self.next_of_sample(parts, settings) {
                Some((place, id)) => self.sample(parts, place, id)?,
                None => return Ok(None),
            },
        };
        self.scrub.shared.lock().failure = None;
        self.keep(parts);
        let took = parts.clock.instant().saturating_duration_since(began);
        let fair = settings.rate.0.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(read as f64 / rate.max(1) as f64)
        });
        Ok(Some(fair.saturating_sub(took)))
    }

    /// What the pass that is running looks at next; ends the pass when there is nothing left.
    fn next_of_pass(&mut self, parts: &Parts) -> Option<Next> {
        let mut shared = self.scrub.shared.lock();
        let record = &mut shared.record;
        let pass = record.pass.as_mut().filter(|_| record.is_running)?;
        if let Some(id) = parts.store.segment_after(pass.cursor()) {
            return Some(Next::Segment { id, cold_data: pass.cold_data });
        }
        if pass.backup.is_none() && parts.has_writable_cold() {
            return Some(Next::Backup);
        }
        pass.finished_s = Some(secs(parts.clock.now()));
        let Pass { segments, hot_bytes, cold_bytes, repaired, lost, .. } = *pass;
        tracing::info!(segments, hot_bytes, cold_bytes, repaired, lost, "storage was looked over");
        record.last = record.pass.take();
        record.is_running = false;
        self.scrub.file.store(&shared.record);
        self.listing = None;
        None
    }

    /// Looks at one segment; returns the bytes that were read.
    fn look_at(&mut self, parts: &Parts, id: SegmentId, cold_data: bool) -> anyhow::Result<u64> {
        if self.listing.is_none() {
            self.listing = parts.store.cold_listing()?;
            self.mend_objects(parts, cold_data)?;
        }
        self.give_way(parts);
        let found = parts.store.scrub_segment(id, self.listing.as_ref(), cold_data);
        let found = self.misses.judge(id, found)?;
        let mut shared = self.scrub.shared.lock();
        let Some(pass) = &mut shared.record.pass else { return Ok(0) };
        pass.cursor = Some(id.raw());
        match &found {
            None => pass.skipped += 1,
            Some(found) => pass.add(found),
        }
        Ok(found.map_or(0, |found| found.hot_bytes + found.cold_bytes))
    }

    /// The next object to be read throughout today, and its place in the order.
    fn next_of_sample(&self, parts: &Parts, settings: &Settings) -> Option<(u64, SegmentId)> {
        let is_settled = parts.clock.instant().saturating_duration_since(self.mounted) >= SETTLES;
        if settings.cold_per_day <= 0.0 || !is_settled {
            return None;
        }
        let objects = parts.store.segments_in_cold();
        let now_s = secs(parts.clock.now());
        let mut shared = self.scrub.shared.lock();
        let sample = &mut shared.record.sample;
        if sample.day != now_s / DAY_S {
            (sample.day, sample.today) = (now_s / DAY_S, 0);
        }
        let quota = (settings.cold_per_day * objects.len() as f64).ceil() as u64;
        if sample.today >= quota {
            return None;
        }
        if sample.since_s == 0 || sample.next(&objects).is_none() {
            sample.begin(now_s);
        }
        sample.next(&objects)
    }

    /// Makes whole what lies in pieces in cold and is no segment.
    fn mend_objects(&self, parts: &Parts, content: bool) -> anyhow::Result<()> {
        let found = parts.store.mend_objects(Care { content, repair: true })?;
        for object in &found.found {
            tracing::warn!(key = object.key, renewed = object.renewed, "{}", object.what);
        }
        let mut shared = self.scrub.shared.lock();
        if let Some(pass) = &mut shared.record.pass {
            let renewed = found.found.iter().filter(|object| object.renewed).count();
            pass.repaired += renewed as u64;
            pass.incomplete += found.out_of_reach + (found.found.len() - renewed) as u64;
        }
        Ok(())
    }

    fn sample(&self, parts: &Parts, place: u64, id: SegmentId) -> anyhow::Result<u64> {
        self.give_way(parts);
        let found = parts.store.scrub_segment(id, None, true)?;
        let mut shared = self.scrub.shared.lock();
        let sample = &mut shared.record.sample;
        sample.position = Some(place);
        sample.today += 1;
        let Some(found) = found else { return Ok(0) };
        sample.checked += u64::from(found.cold_read);
        sample.damaged += u64::from(found.damage.iter().any(|damage| damage.in_cold));
        Ok(found.hot_bytes + found.cold_bytes)
    }

    /// Waits while others wait for the store.
    fn give_way(&self, parts: &Parts) {
        let until = parts.clock.instant() + GIVES_WAY;
        let pause = Duration::from_millis(50);
        while parts.store.is_pressed()
            && parts.clock.instant() < until
            && self.scrub.stop.sleep(pause)
        {}
    }

    fn keep(&mut self, parts: &Parts) {
        let now = parts.clock.instant();
        if now.saturating_duration_since(self.kept) >= KEPT_EVERY {
            self.kept = now;
            let record = self.scrub.shared.lock().record.clone();
            self.scrub.file.store(&record);
        }
    }
}

impl Pass {
    fn add(&mut self, found: &Scrubbed) {
        self.segments += 1;
        self.hot_bytes += found.hot_bytes;
        self.cold_bytes += found.cold_bytes;
        self.recorded_blocks += found.recorded_blocks;
        self.incomplete += u64::from(found.is_incomplete);
        for damage in &found.damage {
            match damage.mended {
                Mended::Sound | Mended::Unneeded => {}
                Mended::Whole => self.repaired += 1,
                Mended::Lost(_) => self.lost += 1,
                Mended::Displaced => self.displaced += 1,
            }
        }
    }
}
