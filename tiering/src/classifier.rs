//! Predicts whether an item will be accessed again within the horizon, for what is hot and might go.
//!
//! [`Samples`] collects what candidates looked like and, a horizon later, whether they were accessed;
//! [`train`] makes a [`Model`] of that, and says how good it is on later time than it learned from;
//! [`Registry`] keeps the current and the previous model, and whether they may be used. All of it is
//! pure but for [`Registry::save`] and [`Registry::load`]: times come with each call, chance is
//! seeded, the same input gives the same model, byte for byte.
//!
//! The trees are grown by `linfa_trees` and the fallback by `linfa_logistic`, both named by `learn`
//! alone. linfa 0.8 gives no probabilities, no votes with weights and nothing to store, so a tree is
//! copied into nodes of our own, whose leaves count the samples that reach them.

mod band;
mod bytes;
mod calibrate;
pub mod eval;
mod learn;
mod learner;
mod logistic;
mod metrics;
mod model;
mod registry;
mod samples;
mod strategy;
mod train;
mod tree;

pub use band::Band;
pub use learner::Learner;
pub use metrics::{Confusion, Metrics};
pub use model::{Decision, MAX_MODEL_LEN, Model, Reason, Scorer, Verdict};
pub use registry::{MODEL_FILE, Registry, State, Version};
pub use samples::{Limits, Outcome, Sample, Samples};
pub use strategy::ModelStrategy;
pub use train::{AgeRule, Report, Trained, Why, train};

#[cfg(test)]
mod tests;
