//! What of a slot is still as it was.

use super::SlotRange;
use crate::namespace::record::{Content, Piece};

/// The new pieces; what lies at the same place of the same block as before is named, not sent.
pub(super) fn ranges(old: &[Piece], new: &[Piece]) -> Vec<SlotRange> {
    let mut ranges = Vec::with_capacity(new.len());
    // Both are in order, so that one pass is enough.
    let mut next = 0;
    for piece in new {
        next += old[next..].iter().take_while(|old| old.end() <= piece.start).count();
        let Content::Block { block, offset } = &piece.content else {
            let content = Some(piece.content.clone());
            ranges.push(SlotRange { start: piece.start, len: piece.len, content });
            continue;
        };
        let mut at = piece.start;
        // A block's bytes lie at one distance from where they are in the slot.
        let distance = i64::from(*offset) - i64::from(piece.start);
        let there = old[next..].iter().take_while(|old| old.start < piece.end());
        let same = there.filter(|old| match &old.content {
            Content::Block { block: other, offset } => {
                other == block && i64::from(*offset) - i64::from(old.start) == distance
            }
            _ => false,
        });
        let sent = |from: u32, to: u32| SlotRange {
            start: from,
            len: to - from,
            content: Some(Content::Block { block: *block, offset: offset + (from - piece.start) }),
        };
        for kept in same {
            let (from, to) = (kept.start.max(at), kept.end().min(piece.end()));
            if from >= to {
                continue;
            }
            if at < from {
                ranges.push(sent(at, from));
            }
            ranges.push(SlotRange { start: from, len: to - from, content: None });
            at = to;
        }
        if at < piece.end() {
            ranges.push(sent(at, piece.end()));
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use firn_tiering::{BlockDigest, BlockId, BlockRef};

    use super::*;

    fn piece(start: u32, len: u32, id: u64, offset: u32) -> Piece {
        let block = BlockRef {
            id: BlockId::from_raw(id),
            digest: BlockDigest([id as u8; 16]),
            len: 1 << 20,
        };
        Piece { start, len, content: Content::Block { block, offset } }
    }

    /// Start, length and whether it is kept.
    fn shape(ranges: &[SlotRange]) -> Vec<(u32, u32, bool)> {
        ranges.iter().map(|r| (r.start, r.len, r.content.is_none())).collect()
    }

    #[test]
    fn an_overwrite_in_the_middle_keeps_both_sides() {
        let old = [piece(0, 1000, 1, 0)];
        let new = [piece(0, 400, 1, 0), piece(400, 100, 2, 7), piece(500, 500, 1, 500)];
        let found = ranges(&old, &new);
        assert_eq!(shape(&found), [(0, 400, true), (400, 100, false), (500, 500, true)]);
        assert_eq!(found[1].content, Some(new[1].content.clone()));
    }

    #[test]
    fn as_many_pieces_as_a_slot_can_have_take_one_pass() {
        let pieces: Vec<Piece> = (0..1 << 19).map(|at| piece(at * 2, 1, 1, at * 2)).collect();
        let found = ranges(&pieces, &pieces);
        assert_eq!(found.len(), pieces.len());
        assert!(found.iter().all(|range| range.content.is_none()));
    }

    #[test]
    fn the_same_block_at_another_place_is_not_kept() {
        let old = [piece(0, 100, 1, 0), piece(200, 100, 1, 200)];
        let new = [piece(100, 100, 1, 0), piece(200, 150, 1, 200)];
        let found = ranges(&old, &new);
        assert_eq!(shape(&found), [(100, 100, false), (200, 100, true), (300, 50, false)]);
        let Some(Content::Block { offset, .. }) = &found[2].content else { panic!() };
        assert_eq!(*offset, 300);
    }
}
