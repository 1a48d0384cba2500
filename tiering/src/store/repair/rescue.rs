//! Reading a block that no copy holds undamaged: the segment is put together in memory, as far as
//! it is damaged, and the block is read out of that and verified like any other.
//!
//! Nothing is written, so that it works on a full disk and on a volume opened read-only.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::block::BlockRef;
use crate::blocks::{Served, Source};
use crate::catalog::BlockRecord;
use crate::error::{Error, Result};
use crate::segment::{
    Damage, Joined, Patch, Patched, ReadAt, Repair, SegmentId, SegmentName, repair,
};

use super::super::Inner;
use super::super::read::{Tried, Want, bounded_len};
use super::super::signals::add;
use super::{Remainder, rewrite};

/// Bytes that one copy may borrow from the other at once; what lacks more is better read from the
/// other one in the first place.
const MOST_BORROWED: u64 = 16 << 20;

/// Segments of which the patches are kept.
const KEPT: usize = 4;

/// Bytes of patches above which they are not kept.
const MOST_KEPT: u64 = 8 << 20;

/// How long it is believed that something is lost: a copy may come back.
const LOST_FOR: Duration = Duration::from_secs(30);

/// What was made of the segments that were rescued last.
#[derive(Default)]
pub(in super::super) struct Rescued {
    kept: VecDeque<Kept>,
}

struct Kept {
    segment: SegmentId,
    in_cold: bool,
    found: Repair,
    until: Instant,
}

impl Rescued {
    fn keep(&mut self, kept: Kept) {
        if bytes_of(&kept.found.patches) <= MOST_KEPT {
            self.kept.retain(|old| (old.segment, old.in_cold) != (kept.segment, kept.in_cold));
            self.kept.push_back(kept);
        }
        while self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }
}

fn bytes_of(patches: &[Patch]) -> u64 {
    patches.iter().map(|patch| patch.bytes.len() as u64).sum()
}

fn touches(damage: &[Damage], range: &Range<u64>) -> bool {
    damage.iter().any(|damage| damage.range.start < range.end && range.start < damage.range.end)
}

/// What makes `one` whole, as far as parity and `other`, another copy of the same segment, do. The
/// other's bytes are borrowed where parity does not help, and count only if their checksums are
/// right.
pub(super) fn put_together(
    one: &dyn ReadAt,
    other: Option<&dyn ReadAt>,
    name: &SegmentName,
) -> Result<Repair> {
    let found = repair(one, name)?;
    let missing = rewrite::bytes_of(&found.lost);
    let Some(other) = other.filter(|_| missing > 0 && missing <= MOST_BORROWED) else {
        return Ok(found);
    };
    let other = Joined::new(other, found.file_len, found.sidecar_len);
    let mut borrowed = Vec::new();
    for lost in &found.lost {
        let mut bytes = vec![0; (lost.range.end - lost.range.start) as usize];
        if other.read_exact_at(&mut bytes, lost.range.start).is_ok() {
            borrowed.push(Patch { offset: lost.range.start, bytes });
        }
    }
    let second = repair(&Patched::new(one, &borrowed, found.file_len), name)?;
    // What is lost either way stays as it is: parts of it may be sound.
    borrowed.retain(|patch| {
        let range = patch.offset..patch.offset + patch.bytes.len() as u64;
        !touches(&second.lost, &range)
    });
    borrowed.extend(second.patches);
    Ok(Repair { patches: borrowed, damage: found.damage, ..second })
}

impl Inner {
    /// Reads a block out of the damaged segments that list it.
    pub(in super::super) fn rescue(
        &self,
        block: &BlockRef,
        want: &Want,
        deadline: Instant,
        tried: &mut Tried,
    ) -> Option<Served> {
        let damaged = std::mem::take(&mut tried.damaged);
        if damaged.is_empty() {
            return None;
        }
        // One at a time: whoever waits will find the patches made.
        let clock = || self.config.clock.instant();
        let mut rescued = self.repairs.turn(clock, deadline)?;
        for record in damaged {
            match self.rescue_from(&mut rescued, &record, (block, want), deadline) {
                Ok(Some(served)) => {
                    add(&self.counters.rescued_reads, 1);
                    return Some(served);
                }
                Ok(None) => {}
                Err(error) => {
                    tried.note(&format!("parity of segment {}", record.segment), error);
                }
            }
        }
        None
    }

    fn rescue_from(
        &self,
        rescued: &mut Rescued,
        record: &BlockRecord,
        (block, want): (&BlockRef, &Want),
        deadline: Instant,
    ) -> Result<Option<Served>> {
        let (id, now) = (record.segment, self.config.clock.instant());
        let read = want.plan(&record.entry)?;
        let stored = read.stored();
        let mut bytes = vec![0; bounded_len(&stored)?];
        let mut take = |one: &dyn ReadAt, in_cold: bool, found: &Repair| {
            Patched::new(one, &found.patches, found.file_len)
                .read_exact_at(&mut bytes, stored.start)
                .map_err(Error::io(format!("read block {}", block.id)))?;
            let bytes = self.take(block, &read, want, &bytes)?;
            let source = if in_cold { Source::Cold } else { Source::Hot };
            Ok::<_, Error>(Served { bytes, source })
        };
        for kept in rescued.kept.iter().filter(|kept| kept.segment == id) {
            let file = if kept.in_cold { None } else { self.hot.open_sealed(id).ok() };
            let object = match kept.in_cold {
                true => self.object_of(id, deadline).ok().flatten(),
                false => None,
            };
            let file = file.as_deref().map(|file| file as &dyn ReadAt);
            let one = file.or(object.as_ref().map(|object| object as &dyn ReadAt));
            if let Some(served) = one.and_then(|one| take(one, kept.in_cold, &kept.found).ok()) {
                return Ok(Some(served));
            }
        }
        if rescued.kept.iter().any(|kept| {
            kept.segment == id && kept.until > now && touches(&kept.found.lost, &stored)
        }) {
            return Ok(None);
        }
        let mut last = None;
        let served = self.for_each_remainder(id, deadline, &mut |left| {
            let Remainder { bytes, in_cold, found, complete, .. } = left;
            let served = take(bytes, in_cold, &found);
            let until = if complete { now + LOST_FOR } else { now };
            rescued.keep(Kept { segment: id, in_cold, found, until });
            served.map_err(|error| last = Some(error)).ok()
        })?;
        match (served, last) {
            (None, Some(error)) => Err(error),
            (served, _) => Ok(served),
        }
    }
}
