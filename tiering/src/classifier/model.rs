//! One trained model: what it says about an item, why, and its bytes.

use super::band::Band;
use super::bytes::{Reader, damaged};
use super::calibrate::Calibration;
use super::logistic::Logistic;
use super::tree::Forest;
use crate::envelope::{self, Kind};
use crate::error::Result;
use crate::heat::features::{COUNT, FEATURES, Features, KIND_AT, KIND_BUCKETS, bounded};

/// Bytes of the longest model.
pub const MAX_MODEL_LEN: usize = 8 << 20;

/// How a model is wrapped. Its version also stands for the list of features: another list, another
/// version.
const KIND: Kind = Kind { tag: *b"clsf", name: "model", version: 1, max_plain_len: MAX_MODEL_LEN };

/// Features that an explanation names.
const REASONS: usize = 5;

/// What the classifier says about an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It will not be accessed within the horizon: right at least 95 times in 100.
    StaysCold,
    /// It will be.
    Reused,
    /// Too close to call: the age rule decides.
    Unsure,
}

/// What the classifier says about an item, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Probability that it is accessed within the horizon, calibrated on later time.
    pub p_reuse: f32,
    /// What follows.
    pub decision: Decision,
    /// The likelier answer, however close: whether it will be accessed.
    pub reuse: bool,
    /// What the items are ranked by: as the probability, with fewer ties.
    pub score: f32,
    /// What made the score; those of different scorers do not compare.
    pub scorer: Scorer,
}

/// A feature that moved a prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reason {
    /// Its name.
    pub feature: &'static str,
    /// What it was for this item; times are logarithms to the base of 2 of ms.
    pub value: f32,
    /// How far it moved the score, and in which direction: above 0 towards reuse. In probability
    /// for a forest, in logarithms of the odds for a logistic regression.
    pub effect: f32,
}

/// How scores are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scorer {
    /// By bagged trees.
    Forest,
    /// By logistic regression, while samples are few or where it is better.
    Logistic,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scores {
    Forest(Forest),
    Logistic(Box<Logistic>),
}

impl Scores {
    pub(super) fn scorer(&self) -> Scorer {
        match self {
            Self::Forest(_) => Scorer::Forest,
            Self::Logistic(_) => Scorer::Logistic,
        }
    }

    pub(super) fn score(&self, features: &Features) -> f32 {
        match self {
            Self::Forest(forest) => forest.score(features),
            Self::Logistic(logistic) => logistic.score(features),
        }
    }
}

/// How often each kind of item was reused, as the share of samples: stands in for its number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KindRates(pub(super) Vec<f32>);

impl KindRates {
    /// The features with the kind's rate in place of its number, all finite.
    pub(super) fn apply(&self, features: &Features) -> Features {
        let mut features = features.map(bounded);
        let bucket = features[KIND_AT].clamp(0.0, (KIND_BUCKETS - 1) as f32) as usize;
        features[KIND_AT] = self.0[bucket];
        features
    }
}

/// A trained model. Nothing in it changes any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub(super) horizon_ms: u64,
    pub(super) trained_ms: u64,
    pub(super) samples: u32,
    pub(super) kinds: KindRates,
    pub(super) scores: Scores,
    pub(super) calibration: Calibration,
    pub(super) band: Band,
}

impl Model {
    /// What becomes of an item with these features. Features that are no numbers count as 0.
    pub fn predict(&self, features: &Features) -> Verdict {
        let score = self.scores.score(&self.kinds.apply(features));
        let (decision, reuse) = self.band.says(score);
        let p_reuse = self.calibration.apply(score);
        Verdict { p_reuse, decision, reuse, score, scorer: self.scorer() }
    }

    /// The features that mattered most for this item, the strongest first.
    pub fn reasons(&self, features: &Features) -> Vec<Reason> {
        let known = self.kinds.apply(features);
        let effects = match &self.scores {
            Scores::Forest(forest) => forest.contributions(&known),
            Scores::Logistic(logistic) => logistic.contributions(&known),
        };
        let mut reasons: Vec<_> = (0..COUNT)
            .map(|at| Reason { feature: FEATURES[at], value: known[at], effect: effects[at] })
            .filter(|reason| reason.effect != 0.0)
            .collect();
        reasons.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
        reasons.truncate(REASONS);
        reasons
    }

    /// How far it looks ahead, in ms.
    pub fn horizon_ms(&self) -> u64 {
        self.horizon_ms
    }

    /// The time of the latest sample it knows, in ms since 1970.
    pub fn trained_ms(&self) -> u64 {
        self.trained_ms
    }

    /// Samples it was learned and calibrated from.
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// How it makes scores.
    pub fn scorer(&self) -> Scorer {
        self.scores.scorer()
    }

    /// Where it decides.
    pub fn band(&self) -> Band {
        self.band
    }

    /// Its bytes, as `tiering/FORMAT.md` says under "Model".
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.horizon_ms.to_le_bytes());
        out.extend_from_slice(&self.trained_ms.to_le_bytes());
        out.extend_from_slice(&self.samples.to_le_bytes());
        out.extend_from_slice(&(COUNT as u16).to_le_bytes());
        self.band.encode(&mut out);
        self.calibration.encode(&mut out);
        self.kinds.0.iter().for_each(|rate| out.extend_from_slice(&rate.to_le_bytes()));
        match &self.scores {
            Scores::Forest(forest) => {
                out.push(0);
                forest.encode(&mut out);
            }
            Scores::Logistic(logistic) => {
                out.push(1);
                logistic.encode(&mut out);
            }
        }
        Ok(envelope::seal(KIND, &out)?.0.to_vec())
    }

    /// The model of some bytes. `Error::Damaged` or `Error::TooNew` for any that are not one.
    pub fn decode(sealed: &[u8]) -> Result<Self> {
        let (plain, version, _) = envelope::open(KIND, sealed)?;
        if version != KIND.version {
            return Err(damaged(format!("version {version}")));
        }
        let mut input = Reader::new(&plain);
        let (horizon_ms, trained_ms, samples) = (input.u64()?, input.u64()?, input.u32()?);
        let count = input.u16()?;
        if usize::from(count) != COUNT {
            return Err(damaged(format!("{count} features instead of {COUNT}")));
        }
        let band = Band::decode(&mut input)?;
        let calibration = Calibration::decode(&mut input)?;
        let kinds = KindRates((0..KIND_BUCKETS).map(|_| input.share()).collect::<Result<_>>()?);
        let scores = match input.u8()? {
            0 => Scores::Forest(Forest::decode(&mut input)?),
            1 => Scores::Logistic(Box::new(Logistic::decode(&mut input)?)),
            other => return Err(damaged(format!("a scorer of type {other}"))),
        };
        input.end()?;
        Ok(Self { horizon_ms, trained_ms, samples, kinds, scores, calibration, band })
    }
}
