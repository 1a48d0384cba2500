//! Estimates: how small a filter could make a sample, from byte counts alone.
//!
//! The estimate of a filter is the sum of the order-0 entropies of its byte planes, which is
//! what an entropy coder makes of them when there is nothing to match. It ranks candidates; it
//! never decides, since it sees no repetition.

use super::{FILTERS, WINDOW_LEN};
use crate::encode::{Filter, filter};

/// Bytes counted of each window of the sample.
const COUNTED_LEN: usize = WINDOW_LEN / 4;

type Counts = [u32; 256];

/// Estimated stored bytes per byte of plaintext.
pub(super) struct Estimates {
    pub(super) unfiltered: f32,
    pub(super) filtered: Vec<(Filter, f32)>,
}

pub(super) fn filters(sample: &[u8]) -> Estimates {
    let mut counted = Vec::with_capacity(sample.len());
    for window in sample.chunks(WINDOW_LEN) {
        counted.extend_from_slice(&window[..window.len().min(COUNTED_LEN)]);
    }
    let len = counted.len() as f32;
    // The planes of the narrower shuffles are unions of those of the widest.
    let residues = residue_counts(&counted);
    let mut filtered = vec![0; counted.len()];
    let estimate = |filter: Filter| match filter {
        Filter::None => merged_entropy(&residues, 1),
        Filter::Shuffle { width } => merged_entropy(&residues, usize::from(width)),
        Filter::DeltaShuffle { width, .. } => {
            filter::apply(filter, &counted, &mut filtered);
            let plane_len = (counted.len() / usize::from(width)).max(1);
            let planes = filtered.chunks_exact(plane_len).take(usize::from(width));
            planes.map(|plane| entropy_bytes(&counts(plane))).sum()
        }
    };
    let estimates: Vec<f32> = [Filter::None].into_iter().chain(FILTERS).map(estimate).collect();
    Estimates {
        unfiltered: estimates[0] / len,
        filtered: FILTERS.into_iter().zip(estimates[1..].iter().map(|bytes| bytes / len)).collect(),
    }
}

/// Whether a few bytes of the cell are far from noise. Cheap enough for every cell: 1 KiB of
/// noise measures 7.8 bits per byte give or take 0.03, so 7.2 is never noise.
pub(super) fn looks_compressible(cell: &[u8]) -> bool {
    const PIECES: usize = 4;
    const PIECE_LEN: usize = 256;
    let mut all = [0; 256];
    let mut len = 0;
    for piece in 0..PIECES {
        let start = cell.len() * piece / PIECES;
        let piece = &cell[start..cell.len().min(start + PIECE_LEN)];
        len += piece.len();
        for byte in piece {
            all[usize::from(*byte)] += 1;
        }
    }
    len == PIECES * PIECE_LEN && plain_entropy_bytes(&all) < len as f32 * (7.2 / 8.0)
}

/// Bytes that an ideal order-0 coder needs for bytes with these counts.
fn plain_entropy_bytes(counts: &Counts) -> f32 {
    let total = counts.iter().sum::<u32>() as f32;
    let weighted: f32 = counts.iter().map(|count| *count as f32).map(|c| c * log2(c)).sum();
    (total * log2(total.max(1.0)) - weighted) / 8.0
}

/// Binary logarithm of a positive number to within 0.01, and something finite for zero. Thousands
/// are taken per probe, and unlike the exact one it vectorises. Within a power of two it
/// is the parabola `(2 - m/3) m - 5/3`, exact at both ends.
fn log2(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    exponent as f32 + (2.0 - mantissa / 3.0) * mantissa - 5.0 / 3.0
}

/// The same with what the count itself gets wrong: `(distinct - 1) / (2 ln 2)` bits, the bias of
/// a measured entropy (Miller 1955), and about as much for the coder's table.
fn entropy_bytes(counts: &Counts) -> f32 {
    let distinct = counts.iter().filter(|count| **count > 0).count();
    plain_entropy_bytes(counts) + 0.18 * distinct.saturating_sub(1) as f32
}

/// How often each byte occurs. Four counters in turn, because runs of one byte would otherwise
/// wait for the counter just written.
fn counts(bytes: &[u8]) -> Counts {
    let mut lanes = [[0_u32; 256]; 4];
    let chunks = bytes.chunks_exact(4);
    for byte in chunks.remainder() {
        lanes[0][usize::from(*byte)] += 1;
    }
    for chunk in chunks {
        for (lane, byte) in lanes.iter_mut().zip(chunk) {
            lane[usize::from(*byte)] += 1;
        }
    }
    let [mut all, rest @ ..] = lanes;
    for lane in rest {
        for (sum, count) in all.iter_mut().zip(lane) {
            *sum += count;
        }
    }
    all
}

/// How often each byte occurs at each offset modulo 8.
fn residue_counts(bytes: &[u8]) -> [Counts; 8] {
    let mut residues = [[0; 256]; 8];
    for chunk in bytes.chunks(8) {
        for (counts, byte) in residues.iter_mut().zip(chunk) {
            counts[usize::from(*byte)] += 1;
        }
    }
    residues
}

fn merged_entropy(residues: &[Counts; 8], width: usize) -> f32 {
    let plane = |residue: usize| {
        let mut counts = [0; 256];
        for residue in residues.iter().skip(residue).step_by(width) {
            for (sum, count) in counts.iter_mut().zip(residue) {
                *sum += count;
            }
        }
        entropy_bytes(&counts)
    };
    (0..width).map(plane).sum()
}
