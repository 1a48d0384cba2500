//! What a store says about itself, for `statfs`, `firn status` and the tests. Snapshots of
//! counters; none of it is used for decisions.

use crate::catalog::ColdCopy;
use crate::segment::ParityPlace;

use super::Inner;
use super::signals::get;

/// Bytes of parity and its checksums, by where they lie: what protection costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParityUsage {
    /// Bytes of frames in segments that carry their parity.
    pub inside_data_bytes: u64,
    /// Bytes of that parity, once; a copy of the segment has it once more.
    pub inside_bytes: u64,
    /// Bytes of frames in segments whose parity lies in a file or object of its own.
    pub object_data_bytes: u64,
    /// Bytes of that parity, likewise.
    pub object_bytes: u64,
    /// Bytes of frames in segments that rely on the stores of the cold tier.
    pub stores_data_bytes: u64,
    /// Bytes that spreading adds to all objects of segments in cold, wherever their parity lies.
    pub stores_bytes: u64,
}

/// Bytes, for `statfs` and `firn status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes really used on the hot tier by segments, indexes and staging.
    pub hot_bytes: u64,
    /// Bytes used there by others, such as the databases.
    pub other_bytes: u64,
    /// Bytes of sealed segments whose only copy is hot.
    pub hot_only_bytes: u64,
    /// Bound of both together: what was configured, or less when the disk has less.
    pub hot_capacity: Option<u64>,
    /// Bytes of segments in the cold tier.
    pub cold_bytes: u64,
    /// Its bound; `None` is unlimited.
    pub cold_capacity: Option<u64>,
    /// Whether there is a cold tier.
    pub has_cold: bool,
    /// Bytes of all segments, each counted once wherever it is.
    pub stored_bytes: u64,
    /// Frame bytes that were freed and are not collected yet.
    pub dead_bytes: u64,
    /// Sealed segments.
    pub segments: u64,
    /// Segments that are not sealed yet.
    pub open_segments: u64,
    /// Segments with bytes in hot.
    pub hot_segments: u64,
    /// Segments verified in cold.
    pub cold_segments: u64,
    /// Bytes of parity.
    pub parity: ParityUsage,
}

/// What goes on and what went wrong since the store was opened.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Why nothing may be written any more.
    pub read_only: Option<String>,
    /// The catalog holds every segment.
    pub catalog_caught_up: bool,
    /// The catalog failed and is rebuilt at the next open.
    pub catalog_broken: bool,
    /// Segments that still have to be copied to cold.
    pub uploads_waiting: u64,
    /// Segments copied and verified.
    pub uploaded_segments: u64,
    /// Bytes of those.
    pub uploaded_bytes: u64,
    /// Uploads that failed.
    pub upload_failures: u64,
    /// Segments of those that wait because the cold tier takes no copies now.
    pub parked_uploads: u64,
    /// Why.
    pub parked_why: Option<String>,
    /// Why writers get no room, while that is so.
    pub full_why: Option<String>,
    /// The last failure of a move.
    pub last_error: Option<String>,
    /// Appenders waiting for space.
    pub waiting_for_space: u64,
    /// Blocks appended, their plaintext and stored bytes.
    pub appended_blocks: u64,
    /// Plaintext bytes of those.
    pub appended_plain_bytes: u64,
    /// Stored bytes of those.
    pub appended_stored_bytes: u64,
    /// Segments sealed.
    pub sealed_segments: u64,
    /// Segments whose index was read to record them in the catalog again.
    pub caught_up_segments: u64,
    /// Reads answered from hot files.
    pub hot_reads: u64,
    /// Reads answered from cold.
    pub cold_reads: u64,
    /// Ranged requests made of the cold tier.
    pub cold_requests: u64,
    /// Reads answered from memory.
    pub cache_hits: u64,
    /// Bytes that reads got from hot files, as they asked for them.
    pub hot_read_bytes: u64,
    /// Bytes that reads got from cold.
    pub cold_read_bytes: u64,
    /// Bytes that reads got from memory.
    pub cache_read_bytes: u64,
    /// Stored bytes brought back to hot.
    pub recalled_bytes: u64,
    /// Stored copies that failed verification or reading.
    pub damaged_reads: u64,
    /// Reads that no copy could answer and parity did.
    pub rescued_reads: u64,
    /// Damaged copies of segments that were replaced by whole ones.
    pub repaired_segments: u64,
    /// Segments with a copy that waits to be looked at or repaired.
    pub suspect_segments: u64,
    /// Segments of which blocks are in no copy and cannot be computed.
    pub lost_segments: u64,
    /// Bytes dropped from hot.
    pub dropped_bytes: u64,
    /// Of these, bytes of segments with pinned data, which went since writers had no other room.
    pub unpinned_bytes: u64,
    /// Segments that were dead and removed.
    pub reclaimed_segments: u64,
    /// Segments compacted.
    pub compacted_segments: u64,
    /// Segments written again in their smallest form.
    pub recoded_segments: u64,
    /// Frame bytes that this saved.
    pub recoded_saved_bytes: u64,
}

impl Inner {
    pub(super) fn usage(&self) -> Usage {
        let start = Usage {
            hot_bytes: self.capacity.used_bytes(),
            other_bytes: self.capacity.other_bytes(),
            hot_capacity: self.capacity.limit(),
            cold_capacity: self.config.cold_capacity,
            has_cold: self.cold.is_some(),
            ..self.unsealed_usage()
        };
        let mut usage = self.table.fold(start, |mut usage, segment| {
            let record = &segment.record;
            usage.segments += 1;
            usage.stored_bytes += record.stored_bytes();
            usage.dead_bytes += record.dead_bytes;
            usage.hot_segments += u64::from(record.hot);
            if record.hot && record.cold != ColdCopy::Verified {
                usage.hot_only_bytes += record.stored_bytes();
            }
            usage.cold_segments += u64::from(record.cold == ColdCopy::Verified);
            if record.cold != ColdCopy::Absent {
                usage.cold_bytes += record.stored_bytes();
            }
            let parity = &mut usage.parity;
            let (data, bytes) = match record.place {
                ParityPlace::Inside => (&mut parity.inside_data_bytes, &mut parity.inside_bytes),
                ParityPlace::Object => (&mut parity.object_data_bytes, &mut parity.object_bytes),
                ParityPlace::Stores => (&mut parity.stores_data_bytes, &mut parity.stores_bytes),
            };
            *data += record.data_bytes;
            *bytes += record.parity_bytes;
            usage
        });
        if let Some((data, parity)) = self.config.cold_spread {
            // As the spread tier cuts: each object into `data` parts, and `parity` more of that length.
            usage.parity.stores_bytes +=
                usage.cold_bytes * u64::from(parity) / u64::from(data.max(1));
        }
        usage
    }

    pub(super) fn health(&self) -> Health {
        let counters = &self.counters;
        let uploads_waiting = if self.cold.is_some() {
            self.table.fold(0, |sum, segment| sum + u64::from(Self::needs_copy(segment)))
        } else {
            0
        };
        let (parked_uploads, parked_why) = self.parked_uploads();
        let (suspect_segments, lost_segments) = self.repairs.counts();
        let full_why = self.capacity.is_full().then(|| {
            let why = if self.pins_fill_hot() {
                "pinned data fills the hot tier"
            } else {
                "nothing in the hot tier can be collected, copied or dropped"
            };
            why.to_owned()
        });
        Health {
            read_only: self.poisoned.lock().clone(),
            catalog_caught_up: self.is_caught_up(),
            catalog_broken: self.catalog.read().as_ref().is_some_and(|catalog| catalog.is_broken()),
            uploads_waiting,
            uploaded_segments: get(&counters.uploaded_segments),
            uploaded_bytes: get(&counters.uploaded_bytes),
            upload_failures: get(&counters.upload_failures),
            parked_uploads,
            parked_why,
            full_why,
            last_error: self.wanted.lock().last_error.clone(),
            waiting_for_space: self.capacity.waiters() as u64,
            appended_blocks: get(&counters.appended_blocks),
            appended_plain_bytes: get(&counters.appended_plain_bytes),
            appended_stored_bytes: get(&counters.appended_stored_bytes),
            sealed_segments: get(&counters.sealed_segments),
            caught_up_segments: get(&counters.caught_up_segments),
            hot_reads: get(&counters.hot_reads),
            cold_reads: get(&counters.cold_reads),
            cold_requests: self.cold.as_ref().map_or(0, |cold| cold.requests()),
            cache_hits: get(&counters.cache_hits),
            hot_read_bytes: get(&counters.hot_read_bytes),
            cold_read_bytes: get(&counters.cold_read_bytes),
            cache_read_bytes: get(&counters.cache_read_bytes),
            recalled_bytes: get(&counters.recalled_bytes),
            damaged_reads: get(&counters.damaged_reads),
            rescued_reads: get(&counters.rescued_reads),
            repaired_segments: get(&counters.repaired_segments),
            suspect_segments,
            lost_segments,
            dropped_bytes: get(&counters.dropped_bytes),
            unpinned_bytes: get(&counters.unpinned_bytes),
            reclaimed_segments: get(&counters.reclaimed_segments),
            compacted_segments: get(&counters.compacted_segments),
            recoded_segments: get(&counters.recoded_segments),
            recoded_saved_bytes: get(&counters.recoded_saved_bytes),
        }
    }
}
