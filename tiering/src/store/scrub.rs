//! Looking for damage before a reader meets it, one segment at a time, while the store is in use.
//!
//! Of a segment in hot every shard, both indexes, both tables of checksums and the frames against
//! the index are verified, and the catalog against the index; of one in cold what the listing says
//! of its object, and, when asked, every byte. What is damaged is repaired on the spot as in
//! `repair`. *Crash*: nothing of its own is kept here; whoever drives it begins at any segment.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::blocks::Wait;
use crate::catalog::{ColdCopy, SegmentRecord};
use crate::error::{Error, Result};
use crate::segment::{FileKind, SIDECARS, SegmentId, SegmentIndex};
use crate::throttle::Priority;
use crate::tier::is_retriable;

use super::job::Cancel;
use super::mover::ids_of;
use super::pieces::MendedPieces;
use super::repair::{DamageReport, Mended, Suspect};
use super::upload::CALL_DEADLINE;
use super::urgency::acting_as;
use super::{BlockStore, Inner};

/// How long a segment that is being moved is waited for, before it is left for the next time.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// What a listing of the cold tier says about every segment.
#[derive(Clone, Debug, Default)]
pub struct ColdListing {
    lens: BTreeMap<SegmentId, u64>,
    sidecar_lens: BTreeMap<SegmentId, u64>,
}

/// What was found in one segment.
#[derive(Clone, Debug, Default)]
pub struct Scrubbed {
    /// Bytes read in hot.
    pub hot_bytes: u64,
    /// Bytes read in cold.
    pub cold_bytes: u64,
    /// Whether its object was read throughout.
    pub cold_read: bool,
    /// What was damaged and how that ended.
    pub damage: Vec<DamageReport>,
    /// Blocks that the catalog did not know, or knew wrongly, and knows now.
    pub recorded_blocks: u64,
    /// Its object in cold has pieces on stores that are away, or lacks some still.
    pub is_incomplete: bool,
}

impl BlockStore {
    /// Segments in the order of their ids, behind `after`.
    pub fn segments_after(&self, after: Option<SegmentId>) -> Vec<SegmentId> {
        self.inner.table.ids(|segment| after.is_none_or(|after| segment.record.id > after))
    }

    /// The first segment behind `after`.
    pub fn segment_after(&self, after: Option<SegmentId>) -> Option<SegmentId> {
        self.inner.table.next(after)
    }

    /// Segments that have a copy in cold.
    pub fn segments_in_cold(&self) -> Vec<SegmentId> {
        self.inner.table.ids(|segment| segment.record.cold != ColdCopy::Absent)
    }

    /// Whether somebody waits for the store, so that work for which nobody waits should pause.
    pub fn is_pressed(&self) -> bool {
        self.inner.is_busy()
    }

    /// Lists the cold tier; `None` without one.
    pub fn cold_listing(&self) -> Result<Option<ColdListing>> {
        let _acting = acting_as(Priority::Scrub);
        let inner = &self.inner;
        let Some(cold) = &inner.cold else { return Ok(None) };
        let deadline = inner.config.clock.instant() + CALL_DEADLINE;
        let mut listing = ColdListing::default();
        cold.list("segments/", deadline, |object| {
            let name = object.key.strip_prefix("segments/").unwrap_or_default();
            if let Some((id, FileKind::Sealed)) = SegmentId::parse_file_name(name) {
                listing.lens.insert(id, object.len);
            }
        })?;
        cold.list(SIDECARS, deadline, |object| {
            if let Some(id) = SegmentId::of_sidecar_key(&object.key) {
                listing.sidecar_lens.insert(id, object.len);
            }
        })?;
        Ok(Some(listing))
    }

    /// Waits until the cold tier has verified copies of these segments.
    pub fn wait_copied(&self, segments: &[SegmentId], wait: Wait) -> Result<()> {
        self.inner.wait_copied(segments, wait, &Cancel::default(), |_, _| ())
    }

    /// Verifies one segment and repairs it: its file, what `listing` says of its object, and, with
    /// `cold_content`, every byte of that. `None` when it is gone or somebody moves it now.
    pub fn scrub_segment(
        &self,
        id: SegmentId,
        listing: Option<&ColdListing>,
        cold_content: bool,
    ) -> Result<Option<Scrubbed>> {
        let _acting = acting_as(Priority::Scrub);
        let inner = &self.inner;
        let patience = inner.config.clock.instant() + BUSY_PATIENCE;
        match inner.claim_waiting(id, Wait::Until(patience)) {
            Ok(()) => {}
            Err(Error::NotFound(_) | Error::TimedOut(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        let scrubbed = inner.scrub_claimed(id, listing, cold_content);
        inner.table.unclaim(id);
        inner.signals.kick_uploader();
        scrubbed
    }
}

impl Inner {
    fn scrub_claimed(
        &self,
        id: SegmentId,
        listing: Option<&ColdListing>,
        cold_content: bool,
    ) -> Result<Option<Scrubbed>> {
        let seen = self.table.with(id, |s| (s.record.clone(), s.recorded));
        let Some((record, recorded)) = seen else { return Ok(None) };
        let in_cold = self.cold.is_some() && record.cold != ColdCopy::Absent;
        let listed = listing.map(|listing| listing.lens.get(&id));
        // An object that came after the listing is none that is missing.
        let is_wrong = in_cold
            && recorded
            && listed.is_some_and(|len| len != Some(&record.len))
            && match self.cold_tier().and_then(|cold| self.cold_len(cold, id)) {
                Ok(len) => len != record.len,
                Err(Error::NotFound(_) | Error::Damaged { .. }) => true,
                Err(_) => false,
            };
        let lacks_sidecar = in_cold
            && recorded
            && listing.is_some_and(|listing| self.lacks_cold_sidecar(&record, listing));
        let mut cold_read = in_cold && (cold_content || is_wrong || lacks_sidecar);
        let mut found = Scrubbed {
            hot_bytes: if record.hot { record.stored_bytes() } else { 0 },
            ..Scrubbed::default()
        };
        if in_cold && (listing.is_some() || cold_content) {
            let pieces = match self.mend_pieces(id, cold_read) {
                // What is out of reach holds up nothing that is not.
                Err(error) if is_retriable(&error) => {
                    let error = super::read::chain(&error);
                    tracing::warn!(%id, error, "the shards of an object could not be looked at");
                    MendedPieces { are_incomplete: true, ..MendedPieces::default() }
                }
                mended => mended?,
            };
            found.damage.extend(pieces.report);
            found.is_incomplete = pieces.are_incomplete || pieces.are_too_few;
            cold_read |= pieces.are_too_few;
        }
        found.cold_read = cold_read;
        found.cold_bytes = if cold_read { record.stored_bytes() } else { 0 };
        found.damage.extend(self.look_and_mend(id, Suspect { hot: true, cold: cold_read })?);
        if let Some(report) = self.look_for_lost(&record)? {
            self.note_mended(&report);
            found.damage.push(report);
        }
        if let Ok(index) = self.load_index(id, CALL_DEADLINE) {
            // What is damaged in hot was told already.
            if found.damage.iter().all(|damage| damage.in_cold) {
                found.damage.extend(self.check_against(&index)?);
            }
            found.recorded_blocks = self.record_again(&index)?;
        }
        Ok(Some(found))
    }

    /// Whether a segment's sidecar is not in cold as it should be; one that came after the listing is.
    fn lacks_cold_sidecar(&self, record: &SegmentRecord, listing: &ColdListing) -> bool {
        let (id, expected) = (record.id, record.sidecar_bytes());
        if expected == 0 || listing.sidecar_lens.get(&id) == Some(&expected) {
            return false;
        }
        let deadline = self.config.clock.instant() + CALL_DEADLINE;
        let asked = self.cold_tier().and_then(|c| self.object_len(c, &id.sidecar_key(), deadline));
        match asked {
            Ok(len) => len != expected,
            Err(Error::NotFound(_) | Error::Damaged { .. }) => true,
            Err(_) => false,
        }
    }

    /// Frames that contradict the index although every shard is as it was sealed: nothing that is
    /// stored makes them right.
    fn check_against(&self, index: &SegmentIndex) -> Result<Option<DamageReport>> {
        let id = index.name().id;
        let Some(record) = self.table.record(id).filter(|record| record.hot) else {
            return Ok(None);
        };
        let bad = ids_of(&self.bad_frames(&record, index)?);
        if bad.is_empty() {
            return Ok(None);
        }
        let lost = self.needed_of(index, &bad)?;
        let mended = if lost.is_empty() { Mended::Unneeded } else { Mended::Lost(lost) };
        let what = "frames that contradict the index".to_owned();
        let report = DamageReport { segment: id, in_cold: false, what, blocks: bad, mended };
        self.note_mended(&report);
        Ok(Some(report))
    }

    /// Makes the catalog know what the index of a segment lists; says how many blocks it did not.
    fn record_again(&self, index: &SegmentIndex) -> Result<u64> {
        let id = index.name().id;
        let mut unknown = 0;
        for entry in index.entries() {
            let known = self.with_catalog(|catalog| catalog.lookup(entry.id))?;
            let is_right = known.is_some_and(|known| {
                known.entry.digest == entry.digest && (known.entry == *entry || known.segment != id)
            });
            unknown += u64::from(!is_right && self.find_unsealed(entry.id).is_none());
        }
        if unknown > 0 {
            let Some(record) = self.table.record(id) else { return Ok(0) };
            self.with_catalog(|catalog| catalog.record_segment(&record, index.entries()))?;
            tracing::warn!(%id, unknown, "the catalog did not know all blocks of a segment");
        }
        Ok(unknown)
    }
}
