//! Keeping the hot tier inside its capacity: collect what is dead, drop what is safe in cold,
//! and tell waiting appenders when neither can help any more.
//!
//! Runs ahead of need: the mover begins when usage exceeds the high mark and goes on down to the
//! low one, so that appenders seldom wait. Who goes first is decided in `victims`. Every drop
//! follows the rules of `residence`; a crash between any two steps leaves a volume that merely uses
//! more space.

use std::time::Duration;

use crate::block::BlockId;
use crate::error::{Error, Result};
use crate::segment::{IndexEntry, SegmentId, SegmentIndex};
use crate::throttle::Priority;
use crate::tier::is_retriable;

use super::reclaim::ASIDE_DEADLINE;
use super::residence::Moved;
use super::signals::add;
use super::upload::CALL_DEADLINE;
use super::urgency::acting_as;
use super::victims::{Part, Victim};
use super::{Inner, TICK};

/// Bytes for which one backup is asked: a backup costs, so many segments share it.
const BATCH_BYTES: u64 = 1 << 30;

/// Pause before a segment that could not be dropped is tried again.
const FAILED_PAUSE: Duration = Duration::from_secs(2);

impl Inner {
    /// The mover's loop.
    pub(super) fn run_mover(&self) {
        let _acting = acting_as(Priority::Demote);
        while !self.is_stopping() {
            self.look_at_disk();
            if let Some(cold) = &self.cold {
                cold.hurry(self.capacity.waiters() > 0);
            }
            self.collect();
            self.relieve();
            self.end_idle_lanes();
            self.save_some_heat();
            self.sweep_some();
            if !self.is_stopping() {
                self.signals.mover.wait(TICK);
            }
        }
    }

    /// Brings usage down to its mark, as far as it can.
    pub(super) fn relieve(&self) {
        let mut progress = true;
        while progress && self.capacity.excess() > 0 && !self.is_stopping() {
            progress = match self.drop_some(self.capacity.excess()) {
                Ok(Some(0)) => true,
                Ok(Some(_)) => {
                    self.capacity.progressed();
                    true
                }
                Ok(None) => false,
                Err(error) => {
                    let error = super::read::chain(&error);
                    tracing::warn!(error, "hot copies could not be dropped");
                    self.wanted.lock().last_error = Some(error);
                    false
                }
            };
        }
        if self.capacity.excess() > 0 && self.capacity.waiters() > 0 && !self.can_help() {
            // What others keep may have become less since they were asked.
            self.count_others();
            if self.capacity.excess() > 0 {
                self.capacity.declare_full();
            }
        }
    }

    /// Drops hot copies worth `excess` bytes; returns the bytes that became free, `None` when
    /// there was nothing to try. What frees nothing is not tried again at once.
    fn drop_some(&self, excess: u64) -> Result<Option<u64>> {
        let Some(gate) = &self.config.backup else { return Ok(None) };
        let victims = self.victims(excess.min(BATCH_BYTES))?;
        if victims.is_empty() {
            return Ok(None);
        }
        let disk_bytes = |id: SegmentId| self.table.with(id, |s| s.disk_bytes).unwrap_or(0);
        let before: Vec<u64> = victims.iter().map(|victim| disk_bytes(victim.id)).collect();
        let result = self.drop_victims(&victims, |blocks| {
            self.require_cold(victims[0].id)?;
            gate.ensure_backed_up(blocks)
        });
        let retry_at = self.config.clock.instant() + FAILED_PAUSE;
        let mut freed = 0;
        for (Victim { id, part }, before) in victims.into_iter().zip(before) {
            let won = before.saturating_sub(disk_bytes(id));
            self.table.update(id, |segment| {
                segment.verdict = None;
                if result.is_err() || won == 0 {
                    segment.retry_at = Some(retry_at);
                }
            });
            self.table.unclaim(id);
            freed += won;
            if part == Part::Pinned && won > 0 {
                tracing::warn!(%id, bytes = won, "pinned data left hot: writers had no other room");
                add(&self.counters.unpinned_bytes, won);
            }
        }
        result.map(|()| Some(freed))
    }

    /// Makes sure that cold answers at all, by a question about any segment: a backup waits for it for
    /// minutes, and meanwhile nothing would be collected, which needs no cold.
    fn require_cold(&self, id: SegmentId) -> Result<()> {
        let cold = self.cold_tier()?;
        match self.cold_len_by(cold, id, self.config.clock.instant() + ASIDE_DEADLINE) {
            Err(error) if is_retriable(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn drop_victims(
        &self,
        victims: &[Victim],
        prove: impl Fn(&[BlockId]) -> Result<super::BackupProof>,
    ) -> Result<()> {
        let mut blocks = Vec::new();
        for victim in victims {
            blocks.extend(ids_of(&self.entries_to_drop(victim)?.1));
        }
        let proof = prove(&blocks)?;
        let mut moved = Moved::default();
        for victim in victims {
            // Asked again: much may have happened during a backup.
            let (index, entries) = self.entries_to_drop(victim)?;
            let nothing_lives = || {
                let live = self.live_among(victim.id, &ids_of(index.entries()))?;
                Ok::<_, Error>(live.is_empty())
            };
            if entries.is_empty() && nothing_lives()? && self.is_verified(victim.id) {
                self.drop_hot(&index)?;
            } else {
                self.release_in(victim.id, entries, &proof, &mut moved)?;
            }
        }
        if let Some((block, reason)) = moved.refused.first() {
            let count = moved.refused.len();
            tracing::warn!(count, %block, reason, "blocks were kept in hot");
            // A copy that is gone or unnamed must not be the victim again at once.
            let retry_at = self.config.clock.instant() + FAILED_PAUSE;
            for victim in victims {
                self.table.update(victim.id, |segment| segment.retry_at = Some(retry_at));
            }
        }
        Ok(())
    }

    /// A segment's index, and those of its living entries that are to go.
    fn entries_to_drop(&self, victim: &Victim) -> Result<(SegmentIndex, Vec<IndexEntry>)> {
        let index = self.load_index(victim.id, CALL_DEADLINE)?;
        let live = self.live_among(victim.id, &ids_of(index.entries()))?;
        let living = index.entries().iter().filter(|entry| live.contains(&entry.id));
        let entries = self.not_kept(living.cloned().collect(), victim.part)?;
        Ok((index, entries))
    }

    fn is_verified(&self, id: SegmentId) -> bool {
        self.table.record(id).is_some_and(|record| self.is_safe_in_cold(&record).is_ok())
    }

    /// Whether waiting may still bring space: something can be collected, copied, dropped or
    /// sealed, or others give some back.
    fn can_help(&self) -> bool {
        let others_yield = || self.config.others_yield.as_ref().is_some_and(|yields| yields());
        if self.can_collect() || others_yield() {
            return true;
        }
        if self.cold.is_none() {
            return false;
        }
        let (droppable, now) = (self.config.backup.is_some(), self.config.clock.instant());
        let writers = self.capacity.writers_wait();
        let (victims, copies) = self.table.fold((false, None), |(victims, copies), segment| {
            let smallest = if Self::needs_copy(segment) {
                Some(copies.map_or(segment.record.len, |len: u64| len.min(segment.record.len)))
            } else {
                copies
            };
            let may_go =
                droppable && Self::may_drop(segment) && (writers || !self.is_spent(segment, now));
            (victims || may_go, smallest)
        });
        if victims {
            return true;
        }
        if !droppable {
            return false;
        }
        match copies {
            Some(len) => self.cold_has_room(len),
            None if !self.cold_has_room(1) => false,
            None if self.is_sealing() => true,
            // All that is left to move is in the segment that takes frames.
            None => self.rotate_now(),
        }
    }

    /// Takes in what was freed and collects what is mostly dead.
    fn collect(&self) {
        self.count_freed();
        self.end_wasteful();
        match self.reclaim_candidates() {
            Ok(0) => {}
            Ok(_) => self.capacity.progressed(),
            Err(error) => tracing::warn!(%error, "dead segments could not be collected"),
        }
    }

    /// Adds freed blocks to their segments' dead bytes.
    pub(super) fn count_freed(&self) {
        let freed = std::mem::take(&mut *self.freed.lock());
        for block in freed {
            if self.free_unsealed(block) {
                continue;
            }
            let Ok(Some(record)) = self.with_catalog(|catalog| catalog.lookup(block)) else {
                continue;
            };
            let bytes = record.entry.frame_len();
            self.table.update(record.segment, |segment| {
                if segment.freed.insert(block) {
                    segment.record.dead_bytes += bytes;
                    segment.unsaved = true;
                }
            });
            // It may have been appended again between both looks.
            self.free_unsealed(block);
            add(&self.counters.freed_bytes, bytes);
        }
    }
}

/// The ids of entries.
pub(super) fn ids_of(entries: &[IndexEntry]) -> Vec<BlockId> {
    entries.iter().map(|entry| entry.id).collect()
}
