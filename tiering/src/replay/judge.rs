//! Decides from counted hits whether the model may decide: a state machine without clock or cache.
//!
//! For each read it is told who would have hit: the model, LRU, S3-FIFO. At the end of each window it
//! looks at the reads on which they differed, older windows counting half as much each (a paired
//! test, as McNemar's: reads that all of them hit say nothing). The model is *worse* when it lost more
//! than it won against either, by more than the margin and by more than chance explains. It goes off
//! after some worse windows in a row, and on again after some in which it won against LRU and lost to
//! S3-FIFO by no more than half of the margin. Windows without a difference change nothing. What is stored is small and
//! specified in `tiering/FORMAT.md`, "Guardrail"; losing it means that the model starts on.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use crate::envelope::{self, Kind};
use crate::error::{Error, Result};

const KIND: Kind = Kind { tag: *b"grdl", name: "guardrail", version: 1, max_plain_len: 1024 };

/// State (1), baseline (1), streak (4), since (8), reason (4 x 8), tally (8 x 8).
const ENCODED_LEN: usize = 14 + 4 * 8 + COUNTS * 8;

const COUNTS: usize = 8;

/// Weight of everything before the window that just ended.
const FADE: f64 = 0.5;

/// Counts stop here.
const MOST: f64 = 1e15;

/// When the model goes off and on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgeConfig {
    /// Reads after which a window ends.
    pub window_reads: u64,
    /// Milliseconds after which it ends with fewer.
    pub window_ms: u64,
    /// Reads without which it does not end.
    pub least_reads: u64,
    /// Share of the reads by which losses must exceed gains.
    pub margin: f64,
    /// How many standard deviations of chance they must exceed them by.
    pub sigmas: f64,
    /// Worse windows in a row that switch the model off.
    pub off_after: u32,
    /// Better windows in a row that switch it on again.
    pub on_after: u32,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self {
            window_reads: 2000,
            window_ms: 3_600_000,
            least_reads: 200,
            margin: 0.005,
            sigmas: 3.0,
            off_after: 2,
            on_after: 4,
        }
    }
}

/// Who would have hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hits {
    /// The model.
    pub model: bool,
    /// LRU.
    pub lru: bool,
    /// S3-FIFO.
    pub s3fifo: bool,
}

/// What the model is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// Least recently used.
    Lru,
    /// S3-FIFO.
    #[serde(rename = "s3-fifo")]
    S3Fifo,
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lru => "lru",
            Self::S3Fifo => "s3-fifo",
        })
    }
}

/// Hit ratios in shadow over the recent windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Reads that they are of, older windows counting less.
    pub reads: f64,
    /// The model's.
    pub model: f64,
    /// LRU's.
    pub lru: f64,
    /// S3-FIFO's.
    pub s3fifo: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reads, model, lru, s3fifo } = self;
        write!(
            f,
            "hit ratio {model:.3}, lru {lru:.3}, s3-fifo {s3fifo:.3} over {reads:.0} sampled reads"
        )
    }
}

/// Whether the model decides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum State {
    /// It does.
    On {
        /// Since when, in milliseconds since 1970; 0 before the first window.
        since_ms: u64,
    },
    /// It does not, because it did worse.
    Off {
        /// Since when, in milliseconds since 1970.
        since_ms: u64,
        /// Than what.
        baseline: Baseline,
        /// How much.
        figures: Figures,
    },
}

impl State {
    /// Whether the model decides.
    pub fn is_on(&self) -> bool {
        matches!(self, Self::On { .. })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On { .. } => f.write_str("on"),
            Self::Off { baseline, figures, .. } => {
                write!(f, "off: worse than {baseline}: {figures}")
            }
        }
    }
}

/// Reads and hits, and against each baseline the reads won and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    reads: f64,
    hits: [f64; 3],
    won: [f64; 2],
    lost: [f64; 2],
}

impl Tally {
    fn add(&mut self, hits: Hits) {
        self.reads += 1.0;
        for (count, hit) in self.hits.iter_mut().zip([hits.model, hits.lru, hits.s3fifo]) {
            *count += f64::from(u8::from(hit));
        }
        for (at, other) in [hits.lru, hits.s3fifo].into_iter().enumerate() {
            self.won[at] += f64::from(u8::from(hits.model && !other));
            self.lost[at] += f64::from(u8::from(!hits.model && other));
        }
    }

    fn counts(&self) -> [f64; COUNTS] {
        let ([model, lru, s3fifo], [won_lru, won_s3], [lost_lru, lost_s3]) =
            (self.hits, self.won, self.lost);
        [self.reads, model, lru, s3fifo, won_lru, won_s3, lost_lru, lost_s3]
    }

    fn of(counts: [f64; COUNTS]) -> Self {
        let [reads, model, lru, s3fifo, won_lru, won_s3, lost_lru, lost_s3] = counts;
        Self {
            reads,
            hits: [model, lru, s3fifo],
            won: [won_lru, won_s3],
            lost: [lost_lru, lost_s3],
        }
    }

    /// With an older one, which counts less.
    fn after(&self, older: &Self) -> Self {
        let older = older.counts();
        let mut counts = self.counts();
        for (count, older) in counts.iter_mut().zip(older) {
            *count = (*count + FADE * older).min(MOST);
        }
        Self::of(counts)
    }

    fn figures(&self) -> Figures {
        let [model, lru, s3fifo] = self.hits.map(|hits| hits / self.reads.max(1.0));
        Figures { reads: self.reads, model, lru, s3fifo }
    }

    fn differs(&self) -> bool {
        self.won.iter().chain(&self.lost).any(|&reads| reads > 0.0)
    }

    /// Reads lost against a baseline, if they are more than margin and chance.
    fn deficit(&self, at: usize, config: &JudgeConfig) -> Option<f64> {
        let deficit = self.lost[at] - self.won[at];
        let chance = config.sigmas * (self.lost[at] + self.won[at]).sqrt();
        (deficit > config.margin * self.reads && deficit > chance).then_some(deficit)
    }

    /// The baseline that the model is worse than, the better one if it is both.
    fn worse_than(&self, config: &JudgeConfig) -> Option<Baseline> {
        match (self.deficit(0, config), self.deficit(1, config)) {
            (None, None) => None,
            (Some(lru), s3fifo) if s3fifo.is_none_or(|s3fifo| lru >= s3fifo) => Some(Baseline::Lru),
            _ => Some(Baseline::S3Fifo),
        }
    }

    /// Whether it won against LRU, and lost against S3-FIFO by half of the margin at most: what faded
    /// never quite goes, and where both are perfect neither wins.
    fn is_better(&self, config: &JudgeConfig) -> bool {
        let allowed = config.margin / 2.0 * self.reads;
        self.won[0] > self.lost[0] && self.lost[1] - self.won[1] <= allowed
    }
}

/// The state machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Judge {
    config: JudgeConfig,
    state: State,
    /// Windows in a row that speak for a change.
    streak: u32,
    recent: Tally,
    window: Tally,
    window_began_ms: Option<u64>,
}

impl Judge {
    /// The model is on.
    pub fn new(config: JudgeConfig) -> Self {
        Self {
            config,
            state: State::On { since_ms: 0 },
            streak: 0,
            recent: Tally::default(),
            window: Tally::default(),
            window_began_ms: None,
        }
    }

    /// Whether the model decides.
    pub fn state(&self) -> State {
        self.state
    }

    /// Hit ratios over the recent windows, the present one included.
    pub fn figures(&self) -> Figures {
        self.window.after(&self.recent).figures()
    }

    /// Takes note of a read; true when that changed the state.
    pub fn note(&mut self, at_ms: u64, hits: Hits) -> bool {
        let began_ms = *self.window_began_ms.get_or_insert(at_ms);
        self.window.add(hits);
        let reads = self.window.reads as u64;
        let late = at_ms.saturating_sub(began_ms) >= self.config.window_ms;
        if reads < self.config.least_reads || reads < self.config.window_reads && !late {
            return false;
        }
        self.end_window(at_ms)
    }

    fn end_window(&mut self, at_ms: u64) -> bool {
        let differs = self.window.differs();
        self.recent = std::mem::take(&mut self.window).after(&self.recent);
        self.window_began_ms = None;
        if !differs {
            return false;
        }
        let (speaks, needed, next) = match self.state {
            State::On { .. } => {
                let worse = self.recent.worse_than(&self.config);
                let figures = self.recent.figures();
                let off = |baseline| State::Off { since_ms: at_ms, baseline, figures };
                (worse.is_some(), self.config.off_after, worse.map(off))
            }
            State::Off { .. } => {
                let on = State::On { since_ms: at_ms };
                let better = self.recent.is_better(&self.config);
                (better, self.config.on_after, better.then_some(on))
            }
        };
        self.streak = if speaks { self.streak.saturating_add(1) } else { 0 };
        let Some(next) = next.filter(|_| self.streak >= needed) else { return false };
        self.state = next;
        self.streak = 0;
        true
    }

    /// Starts afresh and on, for a model that is new.
    pub fn restart(&mut self, now_ms: u64) {
        *self = Self { state: State::On { since_ms: now_ms }, ..Self::new(self.config) };
    }

    /// The state as stored; the window that has not ended is left out.
    pub fn encode(&self) -> Result<Bytes> {
        let (state, since_ms, baseline, figures) = match self.state {
            State::On { since_ms } => (0, since_ms, 0, Figures::default()),
            State::Off { since_ms, baseline, figures } => {
                (1, since_ms, u8::from(baseline == Baseline::S3Fifo), figures)
            }
        };
        let mut plain = Vec::with_capacity(ENCODED_LEN);
        plain.extend_from_slice(&[state, baseline]);
        plain.extend_from_slice(&self.streak.to_le_bytes());
        plain.extend_from_slice(&since_ms.to_le_bytes());
        let Figures { reads, model, lru, s3fifo } = figures;
        for number in [reads, model, lru, s3fifo].into_iter().chain(self.recent.counts()) {
            plain.extend_from_slice(&number.to_le_bytes());
        }
        envelope::seal(KIND, &plain).map(|(sealed, _)| sealed)
    }

    /// Goes on from what [`Judge::encode`] gave.
    pub fn decode(config: JudgeConfig, sealed: &[u8]) -> Result<Self> {
        let (plain, ..) = envelope::open(KIND, sealed)?;
        let damaged = |reason: &str| Error::Damaged { what: KIND.name, reason: reason.to_owned() };
        let (Some((head, numbers)), true) =
            (plain.split_first_chunk::<14>(), plain.len() == ENCODED_LEN)
        else {
            return Err(damaged("its length is wrong"));
        };
        let [state, baseline, s0, s1, s2, s3, since @ ..] = *head;
        let mut decoded = [0.0; 4 + COUNTS];
        for (number, bytes) in decoded.iter_mut().zip(numbers.as_chunks::<8>().0) {
            *number = f64::from_le_bytes(*bytes);
            if !(0.0..=MOST).contains(number) {
                return Err(damaged("a count is out of bounds"));
            }
        }
        let [reads, model, lru, s3fifo, counts @ ..] = decoded;
        let since_ms = u64::from_le_bytes(since);
        let state = match (state, baseline) {
            (0, 0) => State::On { since_ms },
            (1, 0 | 1) => State::Off {
                since_ms,
                baseline: if baseline == 0 { Baseline::Lru } else { Baseline::S3Fifo },
                figures: Figures { reads, model, lru, s3fifo },
            },
            _ => return Err(damaged("its state is unknown")),
        };
        let streak = u32::from_le_bytes([s0, s1, s2, s3]);
        Ok(Self { state, streak, recent: Tally::of(counts), ..Self::new(config) })
    }
}

#[cfg(test)]
mod tests;
