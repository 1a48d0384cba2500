//! A tree of files made by a seeded generator: half of the bytes in large files, a third in middling
//! ones, the rest in small ones; half of each compresses well, half not at all. Every page of 4 KiB
//! names its file and place, so that nothing passes for something else.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

const PAGE: usize = 4096;

/// Bytes that files are cut from.
const POOL: usize = 16 << 20;

/// A tree on disk.
pub struct Tree {
    pub dir: PathBuf,
    /// Paths of its files from there.
    pub files: Vec<PathBuf>,
}

/// A seeded sequence (splitmix64, Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// What files are cut from.
struct Pools {
    noise: Vec<u8>,
    letters: Vec<u8>,
}

impl Pools {
    fn new(random: &mut Random) -> Self {
        let noise: Vec<u8> = (0..POOL / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        let letters = noise.iter().map(|byte| b"ACGT"[usize::from(byte & 3)]).collect();
        Self { noise, letters }
    }

    fn write(&self, path: &Path, number: u64, len: u64, compresses: bool, random: &mut Random) {
        let pool = if compresses { &self.letters } else { &self.noise };
        let mut file = File::create(path).unwrap();
        let mut at = random.below((POOL / PAGE) as u64) as usize * PAGE;
        let mut left = len as usize;
        let mut chunk = Vec::new();
        let mut page = 0_u64;
        while left > 0 {
            let part = left.min(1 << 20).min(POOL - at);
            chunk.clear();
            chunk.extend_from_slice(&pool[at..at + part]);
            for stamp in chunk.chunks_mut(PAGE).filter(|stamp| stamp.len() >= 16) {
                stamp[..8].copy_from_slice(&number.to_le_bytes());
                stamp[8..16].copy_from_slice(&page.to_le_bytes());
                page += 1;
            }
            file.write_all(&chunk).unwrap();
            left -= part;
            at = (at + part) % POOL;
        }
    }
}

impl Tree {
    pub fn generate(dir: &Path, bytes: u64) -> Self {
        let mut random = Random(20_261_126);
        let pools = Pools::new(&mut random);
        let mut files = Vec::new();
        let mut left = [bytes / 2, bytes / 3, bytes - bytes / 2 - bytes / 3];
        let mut number = 0;
        let mut compresses = [false; 3];
        while left.iter().any(|left| *left > 0) {
            // Large, middling and small ones take turns, so that all of the time all are written.
            let kind = [2, 2, 2, 1, 2, 2, 2, 0][number as usize % 8];
            let kind =
                (0..3).map(|k| (kind + k) % 3).find(|kind| left[*kind] > 0).expect("some left");
            let len = match kind {
                0 => (8 << 20) + random.below(24 << 20),
                1 => (256 << 10) + random.below(3 << 20),
                _ => 1 + random.below(96 << 10),
            };
            let len = len.min(left[kind]);
            left[kind] -= len;
            compresses[kind] = !compresses[kind];
            let parent = dir.join(format!("d{}", number / 64));
            fs::create_dir_all(&parent).unwrap();
            let path = parent.join(format!("f{number}"));
            pools.write(&path, number, len, compresses[kind], &mut random);
            files.push(path.strip_prefix(dir).unwrap().to_owned());
            number += 1;
        }
        Self { dir: dir.to_owned(), files }
    }
}
