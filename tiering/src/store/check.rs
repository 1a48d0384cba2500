//! `firn check`: every segment's structure, copies of the index and checksums, and with data every
//! frame; what is damaged is named block by block. Changes nothing.

use std::collections::BTreeSet;

use crate::block::BlockId;
use crate::catalog::ColdCopy;
use crate::error::{Error, Result};
use crate::segment::{Damage, Repair, SegmentId, SegmentIndex, check_frame, check_frames, repair};

use super::Inner;
use super::cold::Cold;
use super::object::ColdObject;
use super::read::chain;
use super::upload::CALL_DEADLINE;

/// What to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Read and decode every frame of hot segments, beyond their shards' checksums.
    pub data: bool,
    /// Read every object of the cold tier, instead of asking for its length.
    pub cold_data: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The segment.
    pub segment: SegmentId,
    /// Whether it is the copy in cold.
    pub in_cold: bool,
    /// What is wrong, in words.
    pub what: String,
    /// Blocks of which this copy is damaged.
    pub blocks: Vec<BlockId>,
    /// Whether parity can rebuild all of it.
    pub repairable: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Segments looked at.
    pub segments: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Blocks in those segments.
    pub blocks: u64,
    /// What is wrong, copy by copy.
    pub findings: Vec<Finding>,
    /// Blocks that no tier holds undamaged, as far as was looked.
    pub lost: BTreeSet<BlockId>,
}

impl Inner {
    /// Looks at every segment. `progress` gets segments done and in all.
    pub(super) fn check(
        &self,
        options: CheckOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let ids = self.table.ids(|_| true);
        for (done, id) in ids.iter().enumerate() {
            progress(done, ids.len());
            self.check_one(*id, options, &mut report);
        }
        for id in self.unsealed_ids() {
            self.check_unsealed(id, options, &mut report)?;
        }
        progress(ids.len(), ids.len());
        Ok(report)
    }

    /// Looks at the frames of a segment that is not sealed yet: nothing but their own checksums tells
    /// of them, and only hot has them.
    fn check_unsealed(
        &self,
        id: SegmentId,
        options: CheckOptions,
        report: &mut CheckReport,
    ) -> Result<()> {
        let Some((file, entries)) = self.unsealed_entries(id) else { return Ok(()) };
        report.segments += 1;
        report.blocks += entries.len() as u64;
        if !options.data {
            return Ok(());
        }
        let name = self.name(id);
        for entry in &entries {
            report.bytes += entry.frame_len();
            let Err(error) = check_frame(file.as_ref(), &name, entry) else { continue };
            report.findings.push(Finding {
                segment: id,
                in_cold: false,
                what: format!("block {}, not sealed yet: {}", entry.id, chain(&error)),
                blocks: vec![entry.id],
                repairable: false,
            });
            if self.with_catalog(|catalog| catalog.lookup(entry.id))?.is_none() {
                report.lost.insert(entry.id);
            }
        }
        Ok(())
    }

    fn check_one(&self, id: SegmentId, options: CheckOptions, report: &mut CheckReport) {
        let Some(record) = self.table.record(id) else { return };
        report.segments += 1;
        let index = match self.load_index(id, CALL_DEADLINE) {
            Ok(index) => index,
            Err(error) => {
                let mut what = format!("its index cannot be read: {}", chain(&error));
                let blocks = self.needed_without_index(&record).unwrap_or_else(|error| {
                    what = format!("{what}; what it held is not known: {}", chain(&error));
                    Vec::new()
                });
                // A tier that does not answer has lost nothing.
                if is_loss(&error) {
                    report.lost.extend(&blocks);
                }
                report.findings.push(Finding {
                    segment: id,
                    in_cold: !record.hot,
                    what,
                    blocks,
                    repairable: false,
                });
                return;
            }
        };
        report.blocks += index.entries().len() as u64;
        let all: BTreeSet<BlockId> = index.entries().iter().map(|entry| entry.id).collect();
        let mut bad_hot = all.clone();
        if record.hot {
            let found = self.check_hot(&index, options, report);
            let in_holes = index.entries().iter().filter(|entry| {
                let frame = entry.frame_range();
                record.holes.touches(frame.start, frame.end)
            });
            bad_hot = in_holes.map(|entry| entry.id).chain(found).collect();
        }
        let mut bad_cold = all;
        if record.cold != ColdCopy::Absent {
            bad_cold = self.check_cold(&index, options, report);
        }
        // What was saved of a damaged segment is read elsewhere.
        let is_lost = |block: &&BlockId| {
            !index.find(**block).iter().any(|entry| self.stands_elsewhere(id, entry))
        };
        report.lost.extend(bad_hot.intersection(&bad_cold).filter(is_lost));
    }

    fn check_hot(
        &self,
        index: &SegmentIndex,
        options: CheckOptions,
        report: &mut CheckReport,
    ) -> BTreeSet<BlockId> {
        let id = index.name().id;
        let holes = self.table.record(id).map(|record| record.holes).unwrap_or_default();
        let copy = match self.hot.open_copy(id) {
            Ok(copy) => copy,
            Err(error) => {
                return report.note(index, false, format!("it cannot be opened: {error}"));
            }
        };
        // A file with holes cannot have intact shards; its frames are what counts.
        let mut bad = BTreeSet::new();
        if holes.is_empty() {
            report.bytes += index.trailer().file_len + index.trailer().sidecar_len();
            bad.extend(report.judge(index, false, repair(&copy, &index.name())));
        }
        if options.data || !holes.is_empty() {
            for (block, error) in check_frames(&copy, index) {
                let released = index.find(block).iter().any(|entry| {
                    let frame = entry.frame_range();
                    holes.touches(frame.start, frame.end)
                });
                if !released && bad.insert(block) {
                    report.findings.push(Finding {
                        segment: id,
                        in_cold: false,
                        what: format!("block {block}: {}", chain(&error)),
                        blocks: vec![block],
                        repairable: false,
                    });
                }
            }
        }
        bad
    }

    fn check_cold(
        &self,
        index: &SegmentIndex,
        options: CheckOptions,
        report: &mut CheckReport,
    ) -> BTreeSet<BlockId> {
        let id = index.name().id;
        let Ok(cold) = self.cold_tier() else {
            return report.note(index, true, "no cold tier is configured".into());
        };
        let expected = index.trailer().file_len;
        match self.cold_len(cold, id) {
            Ok(len) if len == expected => {}
            Ok(len) => {
                return report.note(index, true, format!("it has {len} bytes, not {expected}"));
            }
            Err(error) => return report.unread(index, &error),
        }
        match self.lacking_pieces(id, options.cold_data) {
            Ok(None) => {}
            Ok(Some(what)) => report.findings.push(Finding {
                segment: id,
                in_cold: true,
                what,
                blocks: Vec::new(),
                repairable: true,
            }),
            Err(error) => return report.unread(index, &error),
        }
        if !options.cold_data {
            self.check_cold_sidecar(cold, index, report);
            return BTreeSet::new();
        }
        report.bytes += expected + index.trailer().sidecar_len();
        let object = ColdObject::new(self, cold, id, expected);
        match object.verdict(repair(&object, &index.name())) {
            Ok(found) => report.judge(index, true, Ok(found)),
            Err(error) => report.unread(index, &error),
        }
    }
}

impl Inner {
    /// Looks whether the sidecar of a segment is in cold, in its length.
    fn check_cold_sidecar(&self, cold: &Cold, index: &SegmentIndex, report: &mut CheckReport) {
        let expected = index.trailer().sidecar_len();
        if expected == 0 {
            return;
        }
        let id = index.name().id;
        let deadline = self.config.clock.instant() + CALL_DEADLINE;
        let (what, repairable) = match self.object_len(cold, &id.sidecar_key(), deadline) {
            Ok(len) if len == expected => return,
            Ok(len) => (format!("its sidecar has {len} bytes, not {expected}"), true),
            Err(error) if is_loss(&error) => (format!("its sidecar: {}", chain(&error)), true),
            Err(error) => (format!("its sidecar could not be looked at: {}", chain(&error)), false),
        };
        let (segment, blocks) = (id, Vec::new());
        report.findings.push(Finding { segment, in_cold: true, what, blocks, repairable });
    }
}

/// Whether what could not be read like this is gone or damaged.
fn is_loss(error: &Error) -> bool {
    use Error::{Damaged, Io, NotFound, TooNew};
    matches!(error, NotFound(_) | Damaged { .. } | TooNew { .. } | Io { .. })
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.lost.is_empty()
    }

    /// Notes that a whole copy is unusable; returns its blocks.
    fn note(&mut self, index: &SegmentIndex, in_cold: bool, what: String) -> BTreeSet<BlockId> {
        let blocks: BTreeSet<_> = index.entries().iter().map(|entry| entry.id).collect();
        self.findings.push(Finding {
            segment: index.name().id,
            in_cold,
            what,
            blocks: blocks.iter().copied().collect(),
            repairable: false,
        });
        blocks
    }

    /// Notes why a copy in cold could not be looked at. A tier that does not answer has lost
    /// nothing; one that has no such object has.
    fn unread(&mut self, index: &SegmentIndex, error: &Error) -> BTreeSet<BlockId> {
        if is_loss(error) {
            return self.note(index, true, chain(error));
        }
        self.findings.push(Finding {
            segment: index.name().id,
            in_cold: true,
            what: format!("it could not be looked at: {}", chain(error)),
            blocks: Vec::new(),
            repairable: false,
        });
        BTreeSet::new()
    }

    /// Notes what a look at every part of a copy found; returns the blocks that are damaged
    /// beyond repair.
    fn judge(
        &mut self,
        index: &SegmentIndex,
        in_cold: bool,
        found: Result<Repair>,
    ) -> BTreeSet<BlockId> {
        let found = match found {
            Ok(found) if found.is_intact() => return BTreeSet::new(),
            Ok(found) => found,
            Err(error) => return self.note(index, in_cold, chain(&error)),
        };
        let parts: Vec<String> = found
            .damage
            .iter()
            .map(|damage| format!("{:?} {:?}", damage.part, damage.range))
            .collect();
        self.findings.push(Finding {
            segment: index.name().id,
            in_cold,
            what: if found.is_segment_intact() {
                format!("its sidecar is missing or damaged: {}", shorten(&parts))
            } else {
                format!("damaged: {}", shorten(&parts))
            },
            blocks: blocks_in(index, &found.damage).into_iter().collect(),
            repairable: found.lost.is_empty(),
        });
        blocks_in(index, &found.lost)
    }
}

pub(super) fn shorten(parts: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = parts.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if parts.len() > SHOWN {
        text.push_str(&format!(" and {} more", parts.len() - SHOWN));
    }
    text
}

/// Blocks whose frames lie in damaged parts.
pub(super) fn blocks_in(index: &SegmentIndex, damage: &[Damage]) -> BTreeSet<BlockId> {
    let hit = |entry: &&crate::segment::IndexEntry| {
        let frame = entry.frame_range();
        damage.iter().any(|d| d.range.start < frame.end && d.range.end > frame.start)
    };
    index.entries().iter().filter(hit).map(|entry| entry.id).collect()
}
