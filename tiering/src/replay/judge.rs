//! Decides from counted hits whether the model may decide: a state machine without clock or cache.
//!
//! For each read it is told who would have hit: the model, LRU, S3-FIFO. At the end of each window it
//! looks at the reads on which they differed, older windows counting half as much each (a paired
//! test, as McNemar's: reads that all of them hit say nothing). The model is *worse* when it lost more
//! than it won against either, by more than the margin and by more than chance explains. What is too
//! little for that and lasts adds up in a second tally, which begins anew with each switch and in which
//! older windows fade slowly. The model goes off after some worse windows in a row, and on again after some in which it won against LRU and
//! lost to S3-FIFO by no more than half of the margin. Windows without a difference change nothing.
//!
//! *Back-off*: where the model is about as good as what it is compared with, chance would switch it again
//! and again. Each time it goes off it stays off at least twice as long as the time before, up to a
//! bound; as long on without going off takes one doubling back.
//!
//! What is stored is small and specified in `tiering/FORMAT.md`, "Guardrail"; losing it means that the
//! model starts on.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use crate::envelope::{self, Kind};
use crate::error::{Error, Result};

const KIND: Kind = Kind { tag: *b"grdl", name: "guardrail", version: 2, max_plain_len: 1024 };

/// State (1), baseline (1), streak (4), since (8), reason (4 x 8), tally (8 x 8): the first version.
const FIRST_LEN: usize = 14 + 4 * 8 + COUNTS * 8;

/// Switches (4), setbacks (4), windows since the last switch (4), lasting tally (8 x 8).
const ADDED_LEN: usize = 3 * 4 + COUNTS * 8;

const COUNTS: usize = 8;

/// Weight of everything before the window that just ended: in what is recent, and in what lasts.
const FADE: f64 = 0.5;
const SLOW_FADE: f64 = 0.9;

/// Part of the margin that counts in what lasts.
const LASTING_MARGIN: f64 = 0.2;

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
    /// Better windows in a row that switch it on again; it stays off for at least as many.
    pub on_after: u32,
    /// Times that the least stay off doubles, at most.
    pub doublings: u32,
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
            doublings: 5,
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
    fn after(&self, older: &Self, fade: f64) -> Self {
        let older = older.counts();
        let mut counts = self.counts();
        for (count, older) in counts.iter_mut().zip(older) {
            *count = (*count + fade * older).min(MOST);
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
    fn deficit(&self, at: usize, margin: f64, sigmas: f64) -> Option<f64> {
        let deficit = self.lost[at] - self.won[at];
        let chance = sigmas * (self.lost[at] + self.won[at]).sqrt();
        (deficit > margin * self.reads && deficit > chance).then_some(deficit)
    }

    /// The baseline that the model is worse than, the better one if it is both.
    fn worse_than(&self, margin: f64, sigmas: f64) -> Option<Baseline> {
        match (self.deficit(0, margin, sigmas), self.deficit(1, margin, sigmas)) {
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
    /// Times that it was switched.
    switches: u32,
    /// Times that it went off and that were not made good for since.
    setbacks: u32,
    /// Windows since the last switch, or since a setback was made good for.
    windows: u32,
    recent: Tally,
    lasting: Tally,
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
            switches: 0,
            setbacks: 0,
            windows: 0,
            recent: Tally::default(),
            lasting: Tally::default(),
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
        self.window.after(&self.recent, FADE).figures()
    }

    /// How often the model was switched off or on.
    pub fn switches(&self) -> u32 {
        self.switches
    }

    /// The one of both that hit more often since the last switch and shortly before.
    pub fn better_baseline(&self) -> Baseline {
        let [lru, s3fifo] = [1, 2].map(|at| self.lasting.hits[at] + self.recent.hits[at]);
        if s3fifo > lru { Baseline::S3Fifo } else { Baseline::Lru }
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
        let window = std::mem::take(&mut self.window);
        self.recent = window.after(&self.recent, FADE);
        self.lasting = window.after(&self.lasting, SLOW_FADE);
        self.window_began_ms = None;
        if !window.differs() {
            return false;
        }
        self.windows = self.windows.saturating_add(1);
        let (speaks, needed, next) = match self.state {
            State::On { .. } => {
                let worse = self.worse_than();
                let figures = self.recent.figures();
                let off = |baseline| State::Off { since_ms: at_ms, baseline, figures };
                (worse.is_some(), self.config.off_after, worse.map(off))
            }
            State::Off { .. } => {
                let on = State::On { since_ms: at_ms };
                let better = self.recent.is_better(&self.config);
                let next = (better && self.windows >= self.stay()).then_some(on);
                (better, self.config.on_after, next)
            }
        };
        self.streak = if speaks { self.streak.saturating_add(1) } else { 0 };
        let next = next.filter(|_| self.streak >= needed);
        match next {
            Some(next) => self.switch(next),
            None => self.make_good(),
        }
        next.is_some()
    }

    /// The baseline that it is worse than, clearly of late or by a little for long.
    fn worse_than(&self) -> Option<Baseline> {
        let JudgeConfig { margin, sigmas, .. } = self.config;
        let lately = self.recent.worse_than(margin, sigmas);
        lately.or_else(|| self.lasting.worse_than(LASTING_MARGIN * margin, sigmas))
    }

    fn switch(&mut self, next: State) {
        if !next.is_on() {
            self.setbacks = (self.setbacks + 1).min(self.config.doublings.saturating_add(1));
        }
        self.state = next;
        self.switches = self.switches.saturating_add(1);
        (self.streak, self.windows) = (0, 0);
        // What led to this has had its effect.
        self.lasting = Tally::default();
    }

    /// Windows that it stays off at least.
    fn stay(&self) -> u32 {
        let doublings = self.setbacks.saturating_sub(1).min(self.config.doublings);
        self.config.on_after.saturating_mul(2_u32.saturating_pow(doublings))
    }

    fn make_good(&mut self) {
        if self.state.is_on() && self.setbacks > 0 && self.windows >= self.stay() {
            self.setbacks -= 1;
            self.windows = 0;
        }
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
        let mut plain = Vec::with_capacity(FIRST_LEN + ADDED_LEN);
        plain.extend_from_slice(&[state, baseline]);
        plain.extend_from_slice(&self.streak.to_le_bytes());
        plain.extend_from_slice(&since_ms.to_le_bytes());
        let Figures { reads, model, lru, s3fifo } = figures;
        for number in [reads, model, lru, s3fifo].into_iter().chain(self.recent.counts()) {
            plain.extend_from_slice(&number.to_le_bytes());
        }
        for count in [self.switches, self.setbacks, self.windows] {
            plain.extend_from_slice(&count.to_le_bytes());
        }
        self.lasting
            .counts()
            .iter()
            .for_each(|count| plain.extend_from_slice(&count.to_le_bytes()));
        envelope::seal(KIND, &plain).map(|(sealed, _)| sealed)
    }

    /// Goes on from what [`Judge::encode`] gave, or an earlier version of it.
    pub fn decode(config: JudgeConfig, sealed: &[u8]) -> Result<Self> {
        let (plain, version, _) = envelope::open(KIND, sealed)?;
        let Some((first, added)) = plain.split_first_chunk::<FIRST_LEN>() else {
            return Err(damaged("its length is wrong"));
        };
        let judge = Self::decode_first(config, first)?;
        match (version, added.split_first_chunk::<12>()) {
            (1, None) if added.is_empty() => {
                // What lasts was not kept: what is recent is all that is known of it.
                let setbacks = u32::from(!judge.state.is_on());
                Ok(Self { lasting: judge.recent, setbacks, switches: setbacks, ..judge })
            }
            (2, Some((counts, lasting))) if added.len() == ADDED_LEN => {
                let count = |at: usize| {
                    u32::from_le_bytes(std::array::from_fn(|byte| counts[at * 4 + byte]))
                };
                let (switches, setbacks, windows) = (count(0), count(1), count(2));
                let setbacks = setbacks.min(config.doublings.saturating_add(1));
                let lasting = Tally::of(numbers(lasting)?);
                Ok(Self { switches, setbacks, windows, lasting, ..judge })
            }
            _ => Err(damaged("its length is wrong")),
        }
    }

    fn decode_first(config: JudgeConfig, plain: &[u8; FIRST_LEN]) -> Result<Self> {
        let Some((head, rest)) = plain.split_first_chunk::<14>() else {
            return Err(damaged("its length is wrong"));
        };
        let [state, baseline, s0, s1, s2, s3, since @ ..] = *head;
        let [reads, model, lru, s3fifo, counts @ ..] = numbers::<{ 4 + COUNTS }>(rest)?;
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

fn numbers<const N: usize>(bytes: &[u8]) -> Result<[f64; N]> {
    let mut numbers = [0.0; N];
    for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *number = f64::from_le_bytes(*bytes);
        if !(0.0..=MOST).contains(number) {
            return Err(damaged("a count is out of bounds"));
        }
    }
    Ok(numbers)
}

fn damaged(reason: &str) -> Error {
    Error::Damaged { what: KIND.name, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
