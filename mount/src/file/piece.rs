//! Committed extents of one slot, and how an overlay's spans replace parts of them.
//!
//! Pure functions on lists that are sorted by position and never overlap; offsets are relative
//! to the slot. What no piece covers is a hole.

use std::ops::Range;

use super::SLOT_LEN;
pub(crate) use crate::namespace::{Content, Piece};

/// Inline neighbours are joined up to this length.
const MAX_INLINE_RUN: usize = 64 << 10;

impl Content {
    /// The content from `by` bytes on.
    fn skip(&self, by: u32) -> Self {
        match self {
            Self::Block { block, offset } => Self::Block { block: *block, offset: offset + by },
            Self::Inline(bytes) => Self::Inline(bytes.slice(by as usize..)),
            Self::Unwritten => Self::Unwritten,
        }
    }

    fn shorten(&mut self, len: u32) {
        if let Self::Inline(bytes) = self {
            bytes.truncate(len as usize);
        }
    }
}

impl Piece {
    /// The part of it within `range`, if any.
    pub(crate) fn clip(&self, range: &Range<u32>) -> Option<Self> {
        let start = self.start.max(range.start);
        let end = self.end().min(range.end);
        (start < end).then(|| {
            let mut content = self.content.skip(start - self.start);
            content.shorten(end - start);
            Self { start, len: end - start, content }
        })
    }

    /// Takes up `next` when it continues this piece.
    fn join(&mut self, next: &Self) -> bool {
        if self.end() != next.start {
            return false;
        }
        match (&mut self.content, &next.content) {
            (Content::Block { block, offset }, Content::Block { block: other, offset: behind })
                if block == other && *offset + self.len == *behind => {}
            (Content::Inline(bytes), Content::Inline(more))
                if bytes.len() + more.len() <= MAX_INLINE_RUN =>
            {
                let mut joined = Vec::with_capacity(bytes.len() + more.len());
                joined.extend_from_slice(bytes);
                joined.extend_from_slice(more);
                *bytes = joined.into();
            }
            (Content::Unwritten, Content::Unwritten) => {}
            _ => return false,
        }
        self.len += next.len;
        true
    }
}

/// What a commit does to part of a slot: `None` makes a hole.
#[derive(Clone, Debug)]
pub(crate) struct Patch {
    /// Bytes of the slot.
    pub(crate) range: Range<u32>,
    /// What they become.
    pub(crate) content: Option<Content>,
}

/// `old` with `patches`, which are sorted and do not overlap, over it.
pub(crate) fn merge(old: &[Piece], patches: &[Patch]) -> Vec<Piece> {
    let mut new: Vec<Piece> = Vec::with_capacity(old.len() + patches.len());
    let mut push = |piece: Piece| {
        if !new.last_mut().is_some_and(|last| last.join(&piece)) {
            new.push(piece);
        }
    };
    let mut old = old.iter().peekable();
    let mut pos = 0;
    let whole = SLOT_LEN as u32..SLOT_LEN as u32;
    let ends = std::iter::once((whole, None));
    for (range, content) in
        patches.iter().map(|p| (p.range.clone(), p.content.as_ref())).chain(ends)
    {
        // What lies between the last patch and this one stays.
        let gap = pos..range.start;
        while let Some(piece) = old.peek() {
            if let Some(kept) = piece.clip(&gap) {
                push(kept);
            }
            if piece.end() > range.start {
                break;
            }
            old.next();
        }
        if let Some(content) = content {
            let (start, len) = (range.start, range.end - range.start);
            push(Piece { start, len, content: content.clone() });
        }
        pos = range.end;
        while old.peek().is_some_and(|piece| piece.end() <= pos) {
            old.next();
        }
    }
    new
}

/// Bytes kept inline.
pub(crate) fn inline_len(pieces: &[Piece]) -> u64 {
    pieces
        .iter()
        .filter(|piece| matches!(piece.content, Content::Inline(_)))
        .map(|piece| u64::from(piece.len))
        .sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use firn_tiering::{BlockDigest, BlockId, BlockRef};
    use proptest::prelude::*;

    use super::*;

    fn content(kind: u8, len: u32) -> Option<Content> {
        let block =
            BlockRef { id: BlockId::from_raw(7), digest: BlockDigest([1; 16]), len: 1 << 20 };
        match kind {
            0 => None,
            1 => Some(Content::Unwritten),
            2 => Some(Content::Inline(vec![9; len as usize].into())),
            _ => Some(Content::Block { block, offset: u32::from(kind) * 1000 }),
        }
    }

    /// Per byte of the slot's beginning: a value that tells sources and offsets apart.
    fn paint(cells: &mut [u64], range: Range<u32>, content: Option<&Content>) {
        for (n, pos) in range.enumerate() {
            let Some(cell) = cells.get_mut(pos as usize) else { continue };
            *cell = match content {
                None => 0,
                Some(Content::Unwritten) => 1,
                Some(Content::Inline(bytes)) => 2 + u64::from(bytes[n]),
                Some(Content::Block { offset, .. }) => 1000 + u64::from(*offset) + n as u64,
            };
        }
    }

    proptest! {
        #[test]
        fn merging_equals_painting_bytes(
            rounds in prop::collection::vec(
                prop::collection::vec((0_u32..60, 1_u32..20, 0_u8..5), 0..6), 1..6),
        ) {
            let mut pieces = Vec::new();
            let mut cells = vec![0_u64; 100];
            for round in rounds {
                let mut patches: Vec<Patch> = Vec::new();
                let mut pos = 0;
                for (gap, len, kind) in round {
                    let start = pos + gap % 20;
                    let end = (start + len).min(100);
                    if start >= end { continue; }
                    patches.push(Patch { range: start..end, content: content(kind, end - start) });
                    pos = end;
                }
                pieces = merge(&pieces, &patches);
                for patch in &patches {
                    paint(&mut cells, patch.range.clone(), patch.content.as_ref());
                }
                let mut seen = vec![0_u64; 100];
                let mut last_end = 0;
                for piece in &pieces {
                    prop_assert!(piece.len > 0 && piece.start >= last_end);
                    last_end = piece.end();
                    paint(&mut seen, piece.start..piece.end(), Some(&piece.content));
                }
                prop_assert_eq!(&seen, &cells);
                prop_assert_eq!(
                    crate::namespace::record::allocated(&pieces), cells.iter().filter(|cell| **cell != 0).count() as u64);
            }
        }
    }

    #[test]
    fn neighbours_that_continue_each_other_become_one() {
        let patches = [
            Patch { range: 0..10, content: content(3, 10) },
            Patch { range: 20..30, content: content(1, 10) },
        ];
        let old = merge(&[], &patches);
        let Some(Content::Block { block, offset }) = content(3, 1) else { unreachable!() };
        let next =
            [Patch { range: 10..20, content: Some(Content::Block { block, offset: offset + 10 }) }];
        let new = merge(&old, &next);
        assert_eq!(new.len(), 2);
        assert_eq!((new[0].start, new[0].len), (0, 20));
    }
}
