//! Buckets: runs of neighbouring keys that are marked and copied together. In most spaces a
//! bucket is 1024 consecutive objects (or blocks); the meta space is one.

use std::ops::RangeInclusive;

use crate::namespace::Space;

/// log2 of the objects in a bucket.
const OBJECTS_BITS: u32 = 10;
/// Bytes of a stored bucket.
pub(super) const BUCKET_LEN: usize = 1 + NUMBER_LEN;
const NUMBER_LEN: usize = 12;

/// A run of neighbouring keys of one space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Bucket {
    space: u8,
    /// The key's leading bytes as a big-endian number, without its low bits.
    number: u128,
}

/// Leading bytes of a space's keys that end with the object's number.
const fn width(space: Space) -> usize {
    match space {
        Space::Head | Space::Born => 12,
        Space::History | Space::Backrefs => 8,
        Space::Meta => 0,
    }
}

fn space_of(raw: u8) -> Option<Space> {
    Space::ALL.get(usize::from(raw)).copied()
}

impl Bucket {
    /// The bucket that a key belongs to.
    pub(super) fn of(space: Space, key: &[u8]) -> Self {
        // A key that is too short counts as if zeros followed; `range` agrees.
        let byte = |at| u128::from(key.get(at).copied().unwrap_or(0));
        let number = (0..width(space)).fold(0, |number, at| number << 8 | byte(at));
        Self { space: space as u8, number: number >> OBJECTS_BITS << OBJECTS_BITS }
    }

    /// The space it lies in.
    pub(super) fn space(self) -> Space {
        space_of(self.space).expect("made from a space")
    }

    /// Its first possible key, and the first that is behind it (`None`: the space's end).
    pub(super) fn range(self) -> (Vec<u8>, Option<Vec<u8>>) {
        let width = width(self.space());
        let bytes = |number: u128| {
            let mut key = number.to_be_bytes()[16 - width..].to_vec();
            // So that short keys, which sort before their zero-filled form, are inside.
            while key.last() == Some(&0) {
                key.pop();
            }
            key
        };
        let next = self.number + (1 << OBJECTS_BITS);
        let fits = width > 0 && next >> (8 * width) == 0;
        (bytes(self.number), fits.then(|| bytes(next)))
    }

    /// What stands in front of the object's number in its keys: a line, or a node.
    pub(super) fn group(self) -> u32 {
        (self.number >> 64) as u32
    }

    /// The numbers of the objects (or blocks) that lie in it.
    pub(super) fn objects(self) -> RangeInclusive<u64> {
        let first = self.number as u64;
        first..=first | ((1 << OBJECTS_BITS) - 1)
    }

    /// The stored form.
    pub(super) fn encode(self) -> [u8; BUCKET_LEN] {
        let mut out = [self.space; BUCKET_LEN];
        out[1..].copy_from_slice(&self.number.to_be_bytes()[16 - NUMBER_LEN..]);
        out
    }

    /// The stored form again; `None` for what no key belongs to.
    pub(super) fn decode(stored: &[u8]) -> Option<Self> {
        if stored.len() != BUCKET_LEN {
            return None;
        }
        let space = space_of(stored[0])?;
        let number = stored[1..].iter().fold(0, |number, b| number << 8 | u128::from(*b));
        let is_aligned = number & ((1 << OBJECTS_BITS) - 1) == 0;
        let fits = number >> (8 * width(space)) == 0;
        (is_aligned && fits).then_some(Self { space: stored[0], number })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn is_inside(bucket: Bucket, key: &[u8]) -> bool {
        let (from, to) = bucket.range();
        key >= from.as_slice() && to.is_none_or(|to| key < to.as_slice())
    }

    proptest! {
        #[test]
        fn a_key_lies_in_the_range_of_its_bucket_and_of_no_other(
            space in 0..5_usize,
            one in proptest::collection::vec(prop_oneof![Just(0), Just(255), any::<u8>()], 0..16),
            two in proptest::collection::vec(prop_oneof![Just(0), Just(255), any::<u8>()], 0..16),
        ) {
            let space = Space::ALL[space];
            let (a, b) = (Bucket::of(space, &one), Bucket::of(space, &two));
            prop_assert!(is_inside(a, &one));
            prop_assert_eq!(a == b, is_inside(a, &two));
            prop_assert_eq!(Bucket::decode(&a.encode()), Some(a));
            prop_assert_eq!(a.space(), space);
        }
    }

    #[test]
    fn stored_nonsense_is_refused() {
        let good = Bucket::of(Space::Head, &[7; 12]).encode();
        assert!(Bucket::decode(&good).is_some());
        for (at, byte) in [(0, 5), (BUCKET_LEN - 1, 1)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(Bucket::decode(&bad), None);
        }
        assert_eq!(Bucket::decode(&good[1..]), None);
        let mut too_wide = Bucket::of(Space::History, &[7; 12]).encode();
        too_wide[1] = 1;
        assert_eq!(Bucket::decode(&too_wide), None);
    }
}
