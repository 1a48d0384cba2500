//! Decision trees as flat arrays, and the forest that averages them.

use super::bytes::{Reader, damaged};
use crate::error::Result;
use crate::heat::features::{COUNT, Features};

/// Nodes of the largest tree: depth 10, complete.
pub(super) const MAX_NODES: usize = 2047;
/// Trees of the largest forest.
pub(super) const MAX_TREES: usize = 256;

/// A tree in preorder: the left child of a node stands right behind it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    /// Up to this the feature leads to the left.
    threshold: f32,
    /// Share of the samples that came by here and were reused.
    value: f32,
    feature: u16,
    /// Where the right child stands; 0 in a leaf.
    right: u16,
}

/// A tree as it is being copied: a leaf, or a split of what reaches it.
#[derive(Clone, Debug)]
pub(super) enum Grown {
    Leaf,
    Split { feature: usize, threshold: f32, below: Box<Grown>, above: Box<Grown> },
}

/// One sample that leaf counts come from.
pub(super) type Labelled<'a> = (&'a Features, bool);

impl Tree {
    /// Lays a grown tree flat. Each node's value comes from the samples that reach it, drawn
    /// towards that of its parent by `smoothing` samples, so that a thin leaf is no certainty.
    pub(super) fn lay(grown: &Grown, samples: &[Labelled<'_>], prior: f32, smoothing: f32) -> Self {
        let mut tree = Self { nodes: Vec::new() };
        let mut all: Vec<_> = samples.to_vec();
        tree.lay_node(grown, &mut all, prior, smoothing);
        tree
    }

    fn lay_node(&mut self, grown: &Grown, here: &mut [Labelled<'_>], prior: f32, smoothing: f32) {
        let reused = here.iter().filter(|(_, reused)| *reused).count() as f32;
        let value = (reused + smoothing * prior) / (here.len() as f32 + smoothing);
        let at = self.nodes.len();
        self.nodes.push(Node { threshold: 0.0, value, feature: 0, right: 0 });
        let Grown::Split { feature, threshold, below, above } = grown else { return };
        if here.is_empty() || self.nodes.len() + 2 > MAX_NODES {
            return;
        }
        here.sort_by_key(|(features, _)| features[*feature] > *threshold);
        let split = here.partition_point(|(features, _)| features[*feature] <= *threshold);
        let (left, right) = here.split_at_mut(split);
        self.lay_node(below, left, value, smoothing);
        let right_at = self.nodes.len();
        if right_at >= MAX_NODES {
            self.nodes.truncate(at + 1);
            return;
        }
        self.lay_node(above, right, value, smoothing);
        let node = &mut self.nodes[at];
        (node.threshold, node.feature, node.right) = (*threshold, *feature as u16, right_at as u16);
    }

    fn leaf(&self, features: &Features, mut passed: impl FnMut(&Node, &Node)) -> f32 {
        let mut at = 0;
        loop {
            let node = &self.nodes[at];
            if node.right == 0 {
                return node.value;
            }
            let left = features[usize::from(node.feature)] <= node.threshold;
            at = if left { at + 1 } else { usize::from(node.right) };
            passed(node, &self.nodes[at]);
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.nodes.len() as u16).to_le_bytes());
        for node in &self.nodes {
            out.extend_from_slice(&node.threshold.to_le_bytes());
            out.extend_from_slice(&node.value.to_le_bytes());
            out.extend_from_slice(&node.feature.to_le_bytes());
            out.extend_from_slice(&node.right.to_le_bytes());
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self> {
        let count = usize::from(input.u16()?);
        if count == 0 || count > MAX_NODES {
            return Err(damaged(format!("a tree of {count} nodes")));
        }
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            let (threshold, value) = (input.finite()?, input.share()?);
            nodes.push(Node { threshold, value, feature: input.u16()?, right: input.u16()? });
        }
        // Children stand behind their parents: every walk ends.
        let sound = nodes.iter().enumerate().all(|(at, node)| {
            let right = usize::from(node.right);
            let is_split = right > at + 1 && right < count;
            usize::from(node.feature) < COUNT && (right == 0 || is_split)
        });
        if !sound {
            return Err(damaged("a tree leads nowhere".to_owned()));
        }
        Ok(Self { nodes })
    }
}

/// The mean of many trees.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Forest {
    trees: Vec<Tree>,
}

impl Forest {
    /// `None` without a tree.
    pub(super) fn new(trees: Vec<Tree>) -> Option<Self> {
        (!trees.is_empty()).then_some(Self { trees })
    }

    /// Share of reuse, 0 to 1; not calibrated.
    pub(super) fn score(&self, features: &Features) -> f32 {
        let sum: f32 = self.trees.iter().map(|tree| tree.leaf(features, |_, _| {})).sum();
        sum / self.trees.len() as f32
    }

    /// How much each feature moved the score from the mean of all samples: the changes of value
    /// along the paths taken (Saabas 2014).
    pub(super) fn contributions(&self, features: &Features) -> Features {
        let mut moved = [0.0; COUNT];
        for tree in &self.trees {
            tree.leaf(features, |node, child| {
                moved[usize::from(node.feature)] += child.value - node.value;
            });
        }
        moved.map(|sum| sum / self.trees.len() as f32)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.trees.len() as u16).to_le_bytes());
        self.trees.iter().for_each(|tree| tree.encode(out));
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Self> {
        let count = usize::from(input.u16()?);
        if count == 0 || count > MAX_TREES {
            return Err(damaged(format!("a forest of {count} trees")));
        }
        let trees = (0..count).map(|_| Tree::decode(input)).collect::<Result<_>>()?;
        Ok(Self { trees })
    }
}
