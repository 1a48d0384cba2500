//! Growing trees and fitting weights: the only module that names linfa and ndarray.
//!
//! `linfa_trees` honours the weights of samples in a single tree, and prunes what would vote the same
//! way: with one class rare a tree would shrink to a leaf, whatever its leaves know about
//! probabilities. So each tree is grown on a bootstrap of its own and at another balance of the
//! classes; where one tree sees no difference another does.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use linfa_trees::{DecisionTree, SplitQuality, TreeNode};
use ndarray::{Array1, Array2};

use super::logistic::{Logistic, Scale};
use super::tree::{Forest, Grown, Labelled, Tree};
use crate::heat::features::COUNT;
use crate::mix::Chance;

const TREES: usize = 20;
const DEPTH: usize = 6;

/// Samples that one tree is grown from. linfa looks at every sample in every node.
const BOOTSTRAP: usize = 1000;

/// Features that one tree sees: about a third, so that trees differ.
const SEEN: usize = 15;

/// Share of a tree's weight below which no leaf is split off.
const LEAF_SHARE: f32 = 0.008;

/// Weight of what is reused in a tree, as a share of all weight; trees take turns.
const BALANCES: [f32; 5] = [0.5, 0.25, 0.75, 0.1, 0.9];

/// Samples by which a node's value is drawn towards its parent's.
const SMOOTHING: f32 = 4.0;

/// linfa takes values closer than 1e-5 for one, and looks for a split only where the next sample of
/// the whole tree, not of the node, has another value: values are stretched and set apart by chance.
const STRETCH: f64 = 1000.0;

/// Strength of the penalty on weights, per sample.
const PENALTY: f64 = 0.002;

/// Grows a forest; `None` unless there are samples of both classes.
pub(super) fn forest(samples: &[Labelled<'_>], chance: &mut Chance) -> Option<Forest> {
    let (reused, cold): (Vec<usize>, Vec<usize>) =
        (0..samples.len()).partition(|&at| samples[at].1);
    if reused.is_empty() || cold.is_empty() {
        return None;
    }
    let prior = reused.len() as f32 / samples.len() as f32;
    let trees = (0..TREES).filter_map(|n| {
        let grown = grow(samples, [&cold, &reused], BALANCES[n % BALANCES.len()], chance)?;
        Some(Tree::lay(&grown, samples, prior, SMOOTHING))
    });
    Forest::new(trees.collect())
}

/// Grows one tree on a bootstrap in which each class has the share `balance` gives it, as weight
/// where there are enough samples of it and by drawing again where there are few.
fn grow(
    samples: &[Labelled<'_>],
    classes: [&[usize]; 2],
    balance: f32,
    chance: &mut Chance,
) -> Option<Grown> {
    let size = BOOTSTRAP.min(samples.len());
    let mut rows: Vec<usize> = Vec::with_capacity(size);
    let mut weights = Vec::with_capacity(size);
    for (class, share) in classes.into_iter().zip([1.0 - balance, balance]) {
        // Half of the draws follow the weight, half the classes as they are.
        let natural = class.len() as f32 / samples.len() as f32;
        let draws = ((0.5 * (share + natural) * size as f32).ceil() as usize).max(1);
        let weight = share * size as f32 / draws as f32;
        for _ in 0..draws {
            rows.push(class[chance.below(class.len() as u64) as usize]);
            weights.push(weight);
        }
    }
    let seen = choose(COUNT, SEEN, chance);
    let records = Array2::from_shape_fn((rows.len(), seen.len()), |(row, column)| {
        f64::from(samples[rows[row]].0[seen[column]]) * STRETCH + unit(chance)
    });
    let targets: Array1<bool> = rows.iter().map(|&row| samples[row].1).collect();
    let dataset = DatasetBase::new(records, targets).with_weights(Array1::from_vec(weights));
    let least = (LEAF_SHARE * size as f32).max(2.0);
    let tree = DecisionTree::params()
        .split_quality(SplitQuality::Gini)
        .max_depth(Some(DEPTH))
        .min_weight_leaf(least)
        .min_weight_split(2.0 * least)
        .min_impurity_decrease(1e-3)
        .fit(&dataset)
        .ok()?;
    Some(copy(tree.root_node(), &seen))
}

fn copy(node: &TreeNode<f64, bool>, seen: &[usize]) -> Grown {
    let children = node.children();
    let (false, [Some(below), Some(above)]) = (node.is_leaf(), children.as_slice()) else {
        return Grown::Leaf;
    };
    let (column, threshold, _) = node.split();
    Grown::Split {
        feature: seen[column],
        threshold: (threshold / STRETCH) as f32,
        below: Box::new(copy(below, seen)),
        above: Box::new(copy(above, seen)),
    }
}

/// Fits a logistic regression; `None` unless there are samples of both classes.
pub(super) fn logistic(samples: &[Labelled<'_>]) -> Option<Logistic> {
    let scale = Scale::of(samples.iter().map(|(features, _)| *features));
    let scaled: Vec<_> = samples.iter().map(|(features, _)| scale.apply(features)).collect();
    let records = Array2::from_shape_fn((samples.len(), COUNT), |(row, column)| {
        f64::from(scaled[row][column])
    });
    let targets: Array1<bool> = samples.iter().map(|(_, reused)| *reused).collect();
    let fitted = LogisticRegression::default()
        .alpha(PENALTY * samples.len() as f64)
        .max_iterations(60)
        .fit(&DatasetBase::new(records, targets))
        .ok()?;
    // linfa calls the more frequent class positive.
    let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
    let mut weights = [0.0; COUNT];
    for (weight, fitted) in weights.iter_mut().zip(fitted.params()) {
        *weight = (sign * fitted) as f32;
    }
    let intercept = (sign * fitted.intercept()) as f32;
    let sound = weights.iter().chain([&intercept]).all(|value| value.is_finite());
    sound.then_some(Logistic { scale, weights, intercept })
}

/// `take` of the numbers below `count`, in growing order.
fn choose(count: usize, take: usize, chance: &mut Chance) -> Vec<usize> {
    let mut all: Vec<usize> = (0..count).collect();
    for at in 0..take.min(count) {
        let other = at + chance.below((count - at) as u64) as usize;
        all.swap(at, other);
    }
    all.truncate(take);
    all.sort_unstable();
    all
}

/// From 0 to 1.
fn unit(chance: &mut Chance) -> f64 {
    (chance.draw() >> 11) as f64 / (1_u64 << 53) as f64
}
