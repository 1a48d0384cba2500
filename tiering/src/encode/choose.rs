//! Choosing: which codec, filter and level a block deserves, found out on a sample of it.
//!
//! Compressing a sample with every candidate would cost more than the block itself, so the
//! filters are ranked first by the entropy of their byte planes, which is cheap, and only the
//! best few are compressed. [`EncodeMemory`] carries the winner along a stream and notices when
//! the stream has become something else.

use std::fmt;

use super::{Codec, Effort, EncodedBlock, Filter, codec, encode_block_as, filter};

/// Bytes in one window of the sample.
const WINDOW_LEN: usize = 16 << 10;

/// Windows in the sample of a whole block.
const WINDOWS: usize = 3;

/// Blocks that follow a probed choice before the next probe.
const PROBE_EVERY: u32 = 16;

/// Every filter there is, `None` left out.
const FILTERS: [Filter; 9] = [
    Filter::Shuffle { width: 2 },
    Filter::Shuffle { width: 4 },
    Filter::Shuffle { width: 8 },
    Filter::DeltaShuffle { width: 2, big_endian: false },
    Filter::DeltaShuffle { width: 4, big_endian: false },
    Filter::DeltaShuffle { width: 8, big_endian: false },
    Filter::DeltaShuffle { width: 2, big_endian: true },
    Filter::DeltaShuffle { width: 4, big_endian: true },
    Filter::DeltaShuffle { width: 8, big_endian: true },
];

/// What was decided for a block, and the measurements that decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The codec; `None` stores raw.
    pub codec: Codec,
    /// The filter before it.
    pub filter: Filter,
    /// The codec's level.
    pub level: u8,
    /// Bytes looked at.
    pub sample_len: u32,
    /// What the sample took with this choice.
    pub sample_stored: u32,
    /// What the sample took with the best codec and no filter.
    pub unfiltered_stored: u32,
}

impl Choice {
    fn raw(sample_len: usize) -> Self {
        Self {
            codec: Codec::None,
            filter: Filter::None,
            level: 0,
            sample_len: sample_len as u32,
            sample_stored: sample_len as u32,
            unfiltered_stored: sample_len as u32,
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = |stored: u32| f64::from(self.sample_len) / f64::from(stored.max(1));
        match (self.codec, self.filter) {
            (Codec::None, _) => write!(f, "raw: no codec or filter shrinks the sample"),
            (codec, Filter::None) => write!(
                f,
                "{codec}-{}: ratio {:.2} on the sample, no filter does clearly better",
                self.level,
                ratio(self.sample_stored)
            ),
            (codec, filter) => write!(
                f,
                "{filter} {codec}-{}: ratio {:.2} on the sample, {:.2} unfiltered",
                self.level,
                ratio(self.sample_stored),
                ratio(self.unfiltered_stored)
            ),
        }
    }
}

/// One combination that was tried on the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The codec.
    pub codec: Codec,
    /// The filter before it.
    pub filter: Filter,
    /// The codec's level.
    pub level: u8,
    /// What the sample took; the sample's length when it did not shrink.
    pub stored: u32,
}

/// What a look at a block found.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What was decided.
    pub choice: Choice,
    /// What was tried, in order.
    pub candidates: Vec<Candidate>,
}

/// Looks at a sample of `plain` and decides how to encode it.
pub fn probe(plain: &[u8], effort: Effort) -> Probe {
    let sample = sample(plain);
    let mut candidates = Candidates { sample: &sample, tried: Vec::new(), scratch: Vec::new() };
    let choice = candidates.decide(effort);
    Probe { choice, candidates: candidates.tried }
}

/// Windows spread over the block, joined. They begin at multiples of their length, so that
/// elements keep the phase they have in their cells.
fn sample(plain: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if plain.len() <= WINDOWS * WINDOW_LEN {
        return plain.into();
    }
    let mut sample = Vec::with_capacity(WINDOWS * WINDOW_LEN);
    for window in 0..WINDOWS {
        let middle = plain.len() * (2 * window + 1) / (2 * WINDOWS);
        let start = middle / WINDOW_LEN * WINDOW_LEN;
        sample.extend_from_slice(&plain[start..plain.len().min(start + WINDOW_LEN)]);
    }
    sample.into()
}

struct Candidates<'a> {
    sample: &'a [u8],
    tried: Vec<Candidate>,
    scratch: Vec<u8>,
}

impl Candidates<'_> {
    fn decide(&mut self, effort: Effort) -> Choice {
        let (scout, scout_level) = match effort {
            Effort::Fast => (Codec::Lz4, 1),
            Effort::Normal | Effort::High | Effort::Archive => (Codec::Zstd, 1),
        };
        let unfiltered = self.measure(scout, Filter::None, scout_level);
        let mut best = unfiltered;
        for filter in FILTERS {
            let candidate = self.measure(scout, filter, scout_level);
            // Undoing a filter costs time on every read, so it must clearly gain.
            if candidate.stored * 33 / 32 < unfiltered.stored && candidate.stored < best.stored {
                best = candidate;
            }
        }
        let final_level = match effort {
            Effort::Fast | Effort::Normal => 3,
            Effort::High => 9,
            Effort::Archive => 19,
        };
        if scout == Codec::Zstd && best.stored as usize * 40 / 39 < self.sample.len() {
            best = self.measure(Codec::Zstd, best.filter, final_level);
        }
        if best.stored as usize * 40 / 39 >= self.sample.len() {
            return Choice::raw(self.sample.len());
        }
        Choice {
            codec: best.codec,
            filter: best.filter,
            level: best.level,
            sample_len: self.sample.len() as u32,
            sample_stored: best.stored,
            unfiltered_stored: unfiltered.stored,
        }
    }

    fn measure(&mut self, codec: Codec, filter: Filter, level: u8) -> Candidate {
        let len = self.sample.len();
        self.scratch.resize(len + codec::bound(len), 0);
        let (filtered, out) = self.scratch.split_at_mut(len);
        let input = if filter == Filter::None {
            self.sample
        } else {
            filter::apply(filter, self.sample, filtered);
            filtered
        };
        let stored = codec::compress(codec, level, input, out).unwrap_or(len) as u32;
        let candidate = Candidate { codec, filter, level, stored };
        self.tried.push(candidate);
        candidate
    }
}

/// What encoding remembers along one stream (usually a file), so that not every block is probed.
#[derive(Clone, Debug, Default)]
pub struct EncodeMemory {
    remembered: Option<Remembered>,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    choice: Choice,
    effort: Effort,
    /// Stored bytes per 1024 of plaintext when the choice was made.
    permille: u32,
    /// Blocks encoded with it since.
    age: u32,
}

impl EncodeMemory {
    /// How the last block was encoded and why; `None` before the first.
    pub fn last_choice(&self) -> Option<&Choice> {
        self.remembered.as_ref().map(|remembered| &remembered.choice)
    }

    pub(super) fn encode(&mut self, plain: &[u8], effort: Effort) -> EncodedBlock {
        if let Some(remembered) = &mut self.remembered
            && remembered.effort == effort
            && remembered.age < PROBE_EVERY
            && remembered.choice.codec != Codec::None
        {
            remembered.age += 1;
            let Choice { codec, filter, level, .. } = remembered.choice;
            let block = encode_block_as(plain, codec, filter, level);
            let permille = permille(&block);
            if permille <= remembered.permille + 128 && permille + 128 >= remembered.permille {
                return block;
            }
        }
        let choice = probe(plain, effort).choice;
        let block = encode_block_as(plain, choice.codec, choice.filter, choice.level);
        self.remembered = Some(Remembered { choice, effort, permille: permille(&block), age: 0 });
        block
    }
}

fn permille(block: &EncodedBlock) -> u32 {
    (block.payload.len() as u64 * 1024 / u64::from(block.plain_len)) as u32
}
