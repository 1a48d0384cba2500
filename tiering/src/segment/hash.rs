//! A block's BLAKE3 and its cells' places in that tree, from one pass over the bytes.
//!
//! A cell of 64 KiB is a complete subtree of the block's BLAKE3, so a cell's chaining value is
//! computed on the way to the root. The tag stored behind a cell ties that value to the digest an
//! extent names: one cell read alone is verified as strictly as the whole block.

use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::block::{BlockDigest, CELL_LEN};

use super::verified::TAG_LEN;

/// What hashing a block yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockHash {
    /// BLAKE3 of the plaintext.
    pub root: blake3::Hash,
    /// Chaining value of each cell; for a block of one cell, the bytes of the root.
    pub cells: Vec<[u8; 32]>,
}

impl BlockHash {
    /// What extents name the block by.
    pub fn digest(&self) -> BlockDigest {
        BlockDigest::from_hash(&self.root)
    }
}

/// Hashes a block's plaintext, each byte once.
pub fn hash_block(plain: &[u8]) -> BlockHash {
    let count = plain.len().div_ceil(CELL_LEN).max(1);
    if count == 1 {
        let root = blake3::hash(plain);
        return BlockHash { root, cells: vec![*root.as_bytes()] };
    }
    let cells: Vec<_> = plain
        .chunks(CELL_LEN)
        .enumerate()
        .map(|(index, cell)| cell_cv(index, count, cell))
        .collect();
    BlockHash { root: root_of(&cells), cells }
}

/// Chaining value of cell `index` of a block of `count` cells.
pub(super) fn cell_cv(index: usize, count: usize, plain: &[u8]) -> [u8; 32] {
    if count == 1 {
        return *blake3::hash(plain).as_bytes();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset((index * CELL_LEN) as u64);
    hasher.update(plain).finalize_non_root()
}

/// The block's BLAKE3 from the chaining values of all its cells.
pub(super) fn root_of(cells: &[[u8; 32]]) -> blake3::Hash {
    if let [only] = cells {
        return blake3::Hash::from_bytes(*only);
    }
    let (left, right) = halves(cells);
    merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash)
}

fn subtree(cells: &[[u8; 32]]) -> [u8; 32] {
    if let [only] = cells {
        return *only;
    }
    let (left, right) = halves(cells);
    merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// BLAKE3 puts the largest power of two that leaves something over on the left.
fn halves(cells: &[[u8; 32]]) -> (&[[u8; 32]], &[[u8; 32]]) {
    cells.split_at(cells.len().next_power_of_two() / 2)
}

/// The tag stored behind a cell: BLAKE3 keyed with the digest twice, of the cell's number and
/// chaining value.
pub(super) fn cell_tag(digest: &BlockDigest, index: usize, cv: &[u8; 32]) -> [u8; TAG_LEN] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&digest.0);
    key[16..].copy_from_slice(&digest.0);
    let mut input = [0; 36];
    input[..4].copy_from_slice(&(index as u32).to_le_bytes());
    input[4..].copy_from_slice(cv);
    super::short(&blake3::keyed_hash(&key, &input))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_plain_blake3_at_every_shape() {
        let data: Vec<u8> =
            (0..17 * CELL_LEN as u32).map(|i| (i ^ i >> 7 ^ i >> 13) as u8).collect();
        let mut lens = vec![1, 2, 1023, 1024, 1025];
        for cells in 1..=16 {
            let full = cells * CELL_LEN;
            lens.extend([full - 1, full, full + 1, full + 1024, full + CELL_LEN / 2]);
        }
        for len in lens {
            let hash = hash_block(&data[..len]);
            assert_eq!(hash.root, blake3::hash(&data[..len]), "length {len}");
            assert_eq!(hash.cells.len(), len.div_ceil(CELL_LEN));
            assert_eq!(root_of(&hash.cells), hash.root);
        }
    }

    #[test]
    fn a_tag_depends_on_digest_number_and_content() {
        let digest = BlockDigest([7; 16]);
        let tag = cell_tag(&digest, 3, &[9; 32]);
        assert_ne!(tag, cell_tag(&BlockDigest([8; 16]), 3, &[9; 32]));
        assert_ne!(tag, cell_tag(&digest, 4, &[9; 32]));
        assert_ne!(tag, cell_tag(&digest, 3, &[8; 32]));
    }
}
