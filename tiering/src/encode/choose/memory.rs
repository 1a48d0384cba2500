//! Memory of a stream: the last winner and what it achieved, so that most blocks are encoded
//! without a probe.
//!
//! A remembered choice is dropped after [`PROBE_EVERY`] blocks, and at once when a block comes
//! out far from what the choice promised; that block is then encoded again if the new choice is
//! another. A stream of noise has no ratio that could drift, so its cells are looked at instead.

use super::{Choice, estimate, probe_as};
use crate::block::CELL_LEN;
use crate::encode::{Codec, Compression, Effort, EncodedBlock, encode_block_as};
use crate::segment::ParityPlace;

/// Blocks that follow a probe before the next.
const PROBE_EVERY: u32 = 16;

/// What encoding remembers along one stream (usually a file), so that not every block is probed.
#[derive(Clone, Debug, Default)]
pub struct EncodeMemory {
    /// What was asked for.
    compression: Compression,
    /// Where the parity of its blocks is to lie. Nothing to the encoder; it goes with the blocks.
    parity: ParityPlace,
    /// One slot per effort, since load makes it go up and down within a stream.
    remembered: [Option<Remembered>; 4],
    last: Option<Choice>,
    probes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    choice: Choice,
    /// Stored parts per 1024 of plaintext of the block that was probed.
    expected: u32,
    /// Some cell looked compressible and was not, so that looking again tells nothing.
    deceptive: bool,
    /// Blocks encoded with it since the probe.
    age: u32,
}

impl EncodeMemory {
    /// Nothing is known of the stream yet but how it is to be compressed.
    pub fn new(compression: Compression) -> Self {
        Self { compression, ..Self::default() }
    }

    /// How the blocks to come are to be compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Has the blocks to come compressed in this way; whatever was learnt of another is forgotten.
    pub fn set_compression(&mut self, compression: Compression) {
        if self.compression != compression {
            *self = Self { probes: self.probes, parity: self.parity, ..Self::new(compression) };
        }
    }

    /// Where the parity of the blocks to come is to lie.
    pub fn parity(&self) -> ParityPlace {
        self.parity
    }

    /// Has the parity of the blocks to come lie there.
    pub fn set_parity(&mut self, parity: ParityPlace) {
        self.parity = parity;
    }

    /// How the last block was encoded and why; `None` before the first.
    pub fn last_choice(&self) -> Option<&Choice> {
        self.last.as_ref()
    }

    /// Blocks that were probed so far.
    pub fn probes(&self) -> u64 {
        self.probes
    }

    pub(in crate::encode) fn encode(&mut self, plain: &[u8], effort: Effort) -> EncodedBlock {
        let mut tried = None;
        if let Some(remembered) = &mut self.remembered[effort as usize]
            && remembered.age < PROBE_EVERY
        {
            remembered.age += 1;
            let remembered = *remembered;
            if !remembered.has_turned(plain) {
                let block = encode_as(plain, &remembered.choice);
                if !remembered.has_drifted(&block) {
                    self.last = Some(remembered.choice);
                    return block;
                }
                tried = Some((remembered.choice, block));
            }
        }
        self.probes += 1;
        let choice = probe_as(plain, self.compression, effort);
        let (choice, block) = match tried {
            Some((old, block)) if old.same_encoding(&choice) => (choice, block),
            Some((old, block)) => {
                let again = encode_as(plain, &choice);
                if again.payload.len() <= block.payload.len() {
                    (choice, again)
                } else {
                    (old, block)
                }
            }
            None => (choice, encode_as(plain, &choice)),
        };
        self.last = Some(choice);
        self.remembered[effort as usize] = Some(Remembered {
            choice,
            expected: stored_per_1024(&block),
            deceptive: plain.chunks(CELL_LEN).any(estimate::looks_compressible),
            age: 0,
        });
        block
    }
}

impl Remembered {
    /// Whether a stream of noise has begun to be something else.
    fn has_turned(&self, plain: &[u8]) -> bool {
        self.choice.codec == Codec::None
            && !self.deceptive
            && self.choice.sample_len > 0
            && plain.chunks(CELL_LEN).any(estimate::looks_compressible)
    }

    /// Whether the block came out at another ratio than the choice promised.
    fn has_drifted(&self, block: &EncodedBlock) -> bool {
        const SLACK: u32 = 16;
        let stored = stored_per_1024(block);
        stored > self.expected + self.expected / 8 + SLACK
            || stored + SLACK < self.expected - self.expected / 4
    }
}

impl Choice {
    fn same_encoding(&self, other: &Self) -> bool {
        (self.codec, self.filter, self.level) == (other.codec, other.filter, other.level)
    }
}

fn encode_as(plain: &[u8], choice: &Choice) -> EncodedBlock {
    encode_block_as(plain, choice.codec, choice.filter, choice.level)
}

fn stored_per_1024(block: &EncodedBlock) -> u32 {
    (block.payload.len() as u64 * 1024 / u64::from(block.plain_len)) as u32
}
