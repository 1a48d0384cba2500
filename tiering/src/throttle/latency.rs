//! How long a request of a length takes a store that has nothing else to do, learned from the
//! requests themselves, so that 8 MiB and 4 KiB can be compared: each is measured against its own
//! baseline, and the quotients have one scale.
//!
//! A cell for each quarter of an octave of length, by direction. Neighbours share what they know by
//! two rules that hold for every store: a longer request takes no less time than a shorter one, and
//! one of twice the length takes no more than twice the time. What was measured while the store had
//! little to do is followed in both directions; under load a baseline hardly rises, or a queue of
//! our own making would become normal (the drift of Gradient2's long-term average), and falls
//! slowly, or the luckiest answer would become the measure.

use std::time::Duration;

use super::Kind;

/// Cells per doubling of the length.
const PER_OCTAVE: f64 = 4.0;
/// Lengths from 1 KiB to 1 GiB.
const OCTAVES: usize = 20;
const CELLS: usize = OCTAVES * PER_OCTAVE as usize + 1;

/// How far a baseline follows one measurement.
const UNLOADED_UP: f64 = 0.2;
const UNLOADED_DOWN: f64 = 0.3;
const LOADED_UP: f64 = 0.0;
const LOADED_DOWN: f64 = 0.1;

/// Shortest latency that is believed, in seconds.
const SHORTEST: f64 = 1e-5;

#[derive(Debug)]
pub(super) struct Baselines {
    read: [Option<f64>; CELLS],
    write: [Option<f64>; CELLS],
    small: [Option<f64>; 1],
}

impl Baselines {
    pub(super) fn new() -> Self {
        Self { read: [None; CELLS], write: [None; CELLS], small: [None; 1] }
    }

    fn cells(&self, kind: Kind) -> &[Option<f64>] {
        match kind {
            Kind::Read => &self.read,
            Kind::Write => &self.write,
            Kind::Small | Kind::Untimed => &self.small,
        }
    }

    fn cell(kind: Kind, bytes: u64) -> usize {
        match kind {
            Kind::Read | Kind::Write => {
                let octaves = (bytes.max(1) as f64 / 1024.0).log2();
                ((octaves * PER_OCTAVE).max(0.0) as usize).min(CELLS - 1)
            }
            Kind::Small | Kind::Untimed => 0,
        }
    }

    /// The expected latency in seconds; `None` as long as nothing like it was measured.
    pub(super) fn expected(&self, kind: Kind, bytes: u64) -> Option<f64> {
        let cell = Self::cell(kind, bytes);
        let bound = |(other, known): (usize, &Option<f64>)| {
            let known = (*known)?;
            let octaves = cell.saturating_sub(other) as f64 / PER_OCTAVE;
            Some(known * octaves.exp2())
        };
        self.cells(kind).iter().enumerate().filter_map(bound).min_by(f64::total_cmp)
    }

    /// Takes in a measurement; returns it as a multiple of what was expected before.
    pub(super) fn note(
        &mut self,
        kind: Kind,
        bytes: u64,
        latency: Duration,
        is_unloaded: bool,
    ) -> f64 {
        let seconds = latency.as_secs_f64().max(SHORTEST);
        let Some(expected) = self.expected(kind, bytes) else {
            self.put(kind, bytes, seconds);
            return 1.0;
        };
        let rate = match (seconds > expected, is_unloaded) {
            (true, true) => UNLOADED_UP,
            (false, true) => UNLOADED_DOWN,
            (true, false) => LOADED_UP,
            (false, false) => LOADED_DOWN,
        };
        self.put(kind, bytes, expected + (seconds - expected) * rate);
        seconds / expected
    }

    /// Sets a cell, and lifts those that would contradict it: they are older.
    fn put(&mut self, kind: Kind, bytes: u64, seconds: f64) {
        let cell = Self::cell(kind, bytes);
        let cells: &mut [Option<f64>] = match kind {
            Kind::Read => &mut self.read,
            Kind::Write => &mut self.write,
            Kind::Small | Kind::Untimed => &mut self.small,
        };
        for (other, known) in cells.iter_mut().enumerate() {
            let octaves = cell.saturating_sub(other) as f64 / PER_OCTAVE;
            let least = seconds / octaves.exp2();
            if let Some(known) = known.as_mut().filter(|known| **known < least) {
                *known = least;
            }
        }
        cells[cell] = Some(seconds);
    }
}
