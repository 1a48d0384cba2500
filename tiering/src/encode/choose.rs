//! Choosing: which codec, filter and level a block deserves, found out on a sample of it.
//!
//! Compressing a sample with every candidate would cost as much as the block itself, so the
//! filters are ranked first by the entropy of the byte planes they would make, which is cheap,
//! and only the most promising are compressed. [`EncodeMemory`] carries the winner along a
//! stream and notices when the stream has become something else.

mod estimate;
mod memory;

use std::borrow::Cow;
use std::fmt;

pub use memory::EncodeMemory;

use super::{Codec, Compression, Effort, Filter, codec, filter};
use crate::block::CELL_LEN;

/// Bytes in one window of the sample.
const WINDOW_LEN: usize = 16 << 10;

/// Windows in the sample of a whole block.
const WINDOWS: usize = 3;

/// Below this a filter's gain is a few bytes.
const LEAST_FILTERED_LEN: usize = 512;

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

/// How an [`Effort`] goes about it.
struct Strategy {
    /// Codec and level that candidates are compared with.
    scout: (Codec, u8),
    /// Filters to compress the sample with, the most promising first.
    filters: usize,
    /// Whether a filter must look promising to be compressed at all.
    picky: bool,
    /// Winners of the scouting that are compressed again with the last level.
    finalists: usize,
    /// zstd level that is used in the end; the scout's when there are no finalists.
    level: u8,
}

impl Strategy {
    fn of(effort: Effort) -> Self {
        let normal =
            Self { scout: (Codec::Zstd, 1), filters: 2, picky: true, finalists: 0, level: 1 };
        match effort {
            Effort::Fast => Self { scout: (Codec::Lz4, 0), ..normal },
            Effort::Normal => normal,
            Effort::High => {
                Self { filters: FILTERS.len(), picky: false, finalists: 2, level: 9, ..normal }
            }
            Effort::Archive => {
                Self { filters: FILTERS.len(), picky: false, finalists: 3, level: 19, ..normal }
            }
        }
    }

    /// With the one codec and level that were asked for; only the filter is looked for.
    fn fixed(codec: Codec, level: u8) -> Self {
        match codec {
            Codec::Zstd => Self { finalists: 1, level, ..Self::of(Effort::Normal) },
            _ => Self::of(Effort::Fast),
        }
    }
}

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
    /// What the sample took with the same effort and no filter.
    pub unfiltered_stored: u32,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = |stored: u32| f64::from(self.sample_len) / f64::from(stored.max(1));
        if self.codec == Codec::None && self.sample_len == 0 {
            return f.write_str("raw: compression is off");
        }
        if self.codec == Codec::None {
            return f.write_str("raw: nothing that was tried shrinks the sample");
        }
        if self.filter != Filter::None {
            write!(f, "{} ", self.filter)?;
        }
        write!(f, "{}", self.codec)?;
        if self.codec != Codec::Lz4 {
            write!(f, "-{}", self.level)?;
        }
        write!(f, ": ratio {:.2} on the sample, ", ratio(self.sample_stored))?;
        if self.filter == Filter::None {
            f.write_str("no filter is clearly better")
        } else {
            write!(f, "{:.2} without the filter", ratio(self.unfiltered_stored))
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
    let strategy = Strategy::of(effort);
    probe_by(plain, &strategy, strategy.scout)
}

/// As [`probe`], as far as `compression` leaves a choice.
fn probe_as(plain: &[u8], compression: Compression, effort: Effort) -> Choice {
    match compression.fixed() {
        None => probe(plain, effort).choice,
        Some((Codec::None, _)) => Choice::raw(),
        Some((codec, level)) => {
            probe_by(plain, &Strategy::fixed(codec, level), (codec, level)).choice
        }
    }
}

/// `blind` is what encodes a block of which only the sample is noise.
fn probe_by(plain: &[u8], strategy: &Strategy, blind: (Codec, u8)) -> Probe {
    let mut prober = Prober::new(sample(plain));
    let mut choice = prober.decide(strategy);
    if choice.codec == Codec::None && !prober.cells_are_noise(plain, strategy.scout) {
        let (codec, level) = blind;
        choice = Choice { codec, level, ..choice };
    }
    Probe { choice, candidates: prober.tried }
}

impl Choice {
    /// Nothing was tried.
    fn raw() -> Self {
        Self {
            codec: Codec::None,
            filter: Filter::None,
            level: 0,
            sample_len: 0,
            sample_stored: 0,
            unfiltered_stored: 0,
        }
    }
}

/// Windows spread over the block, joined. They begin at multiples of their length, so that
/// elements keep the phase they have in their cells.
fn sample(plain: &[u8]) -> Cow<'_, [u8]> {
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

/// Compresses the sample with one candidate after the other.
struct Prober<'a> {
    sample: Cow<'a, [u8]>,
    tried: Vec<Candidate>,
    filtered: Vec<u8>,
    out: Vec<u8>,
}

impl<'a> Prober<'a> {
    fn new(sample: Cow<'a, [u8]>) -> Self {
        let filtered = vec![0; sample.len()];
        let out = vec![0; codec::bound(sample.len())];
        Self { sample, tried: Vec::new(), filtered, out }
    }

    fn decide(&mut self, strategy: &Strategy) -> Choice {
        let len = self.sample.len() as u32;
        let (scout, scout_level) = strategy.scout;
        let unfiltered = self.measure(scout, Filter::None, scout_level);
        let mut scouted = vec![unfiltered];
        for filter in self.promising_filters(strategy, unfiltered.stored) {
            scouted.push(self.measure(scout, filter, scout_level));
        }
        scouted.sort_by_key(|candidate| candidate.stored);

        let mut best = best_of(&scouted);
        let mut reference = unfiltered;
        if strategy.finalists > 0 {
            let finalists = scouted.iter().take(strategy.finalists).map(|found| found.filter);
            let others: Vec<Filter> = finalists.filter(|filter| *filter != Filter::None).collect();
            reference = self.measure(scout, Filter::None, strategy.level);
            let mut finals = vec![reference];
            for filter in others {
                finals.push(self.measure(scout, filter, strategy.level));
            }
            finals.sort_by_key(|candidate| candidate.stored);
            best = best_of(&finals);
        } else if scout == Codec::Zstd {
            // Decoding lz4 is so much cheaper that it wins a tie.
            let lz4 = self.measure(Codec::Lz4, best.filter, 0);
            if lz4.stored <= best.stored + best.stored / 64 {
                best = lz4;
            }
        }
        let choice = Choice {
            codec: best.codec,
            filter: best.filter,
            level: best.level,
            sample_len: len,
            sample_stored: best.stored,
            unfiltered_stored: reference.stored,
        };
        if shrinks(best.stored, len) {
            choice
        } else {
            Choice {
                codec: Codec::None,
                filter: Filter::None,
                level: 0,
                sample_stored: len,
                ..choice
            }
        }
    }

    fn promising_filters(&self, strategy: &Strategy, unfiltered_stored: u32) -> Vec<Filter> {
        if self.sample.len() < LEAST_FILTERED_LEN {
            return Vec::new();
        }
        if !strategy.picky {
            return FILTERS.to_vec();
        }
        let estimates = estimate::filters(&self.sample);
        let unfiltered = unfiltered_stored as f32 / self.sample.len() as f32;
        let mut promising: Vec<(Filter, f32)> = estimates
            .filtered
            .into_iter()
            .filter(|(_, estimate)| {
                // An estimate knows nothing of matches, which are most of what unfiltered text
                // lives on and still part of what a filtered array does; the margins were set on
                // the sample files so that the best filter is rarely missed.
                *estimate < 0.97
                    && (*estimate < 1.3 * unfiltered || *estimate < 0.8 * estimates.unfiltered)
            })
            .collect();
        promising.sort_by(|a, b| a.1.total_cmp(&b.1));
        promising.truncate(strategy.filters);
        promising.into_iter().map(|(filter, _)| filter).collect()
    }

    fn measure(&mut self, codec: Codec, filter: Filter, level: u8) -> Candidate {
        let len = self.sample.len();
        let input = if filter == Filter::None {
            &*self.sample
        } else {
            filter::apply(filter, &self.sample, &mut self.filtered);
            &self.filtered
        };
        let stored = codec::compress(codec, level, filter.planes(), input, &mut self.out);
        let stored = stored.unwrap_or(len) as u32;
        let candidate = Candidate { codec, filter, level, stored };
        self.tried.push(candidate);
        candidate
    }

    /// Whether the cells between the windows of an incompressible sample are noise as well: of a
    /// tar of images and texts the sample may have met only images.
    fn cells_are_noise(&mut self, plain: &[u8], (codec, level): (Codec, u8)) -> bool {
        self.out.resize(codec::bound(CELL_LEN), 0);
        plain.chunks(CELL_LEN).filter(|cell| estimate::looks_compressible(cell)).take(2).all(
            |cell| {
                let stored = codec::compress(codec, level, 1, cell, &mut self.out);
                stored.is_none_or(|stored| !shrinks(stored as u32, cell.len() as u32))
            },
        )
    }
}

/// The smallest, given in order of size, if its filter gains enough to be worth undoing it on
/// every read; otherwise the smallest without one.
fn best_of(sorted: &[Candidate]) -> Candidate {
    let best = sorted[0];
    let unfiltered = sorted.iter().find(|candidate| candidate.filter == Filter::None);
    match unfiltered {
        Some(unfiltered) if best.stored + best.stored / 32 >= unfiltered.stored => *unfiltered,
        _ => best,
    }
}

/// Whether compressing gains at least a fortieth, the price of decoding.
fn shrinks(stored: u32, len: u32) -> bool {
    stored + len / 40 < len
}

#[cfg(test)]
mod tests;
