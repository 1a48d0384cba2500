//! The version tree: what its records say of each other beyond what it takes to load it.

use super::{Check, FindingKind};
use crate::namespace::tree::Tree;
use crate::types::Ino;

impl Check<'_> {
    /// Records of the version tree that are gone. Of a snapshot that is, its digest tells.
    pub(super) fn tree(&mut self) {
        let flaws = self.namespace.tree.read().flaws();
        for flaw in flaws {
            self.finding_at(FindingKind::VersionTree, Ino(0), Vec::new(), flaw);
        }
    }
}

impl Tree {
    /// What is wrong with a tree that was loaded, for people.
    fn flaws(&self) -> Vec<String> {
        let mut flaws = Vec::new();
        for (dataset, record) in &self.datasets {
            let newest = self.nodes.iter().rev().find(|(_, line)| *line == dataset);
            if newest.is_some_and(|(newest, _)| *newest > record.node) {
                flaws.push(format!("dataset {} does not write under its newest node", dataset.0));
            }
            if *dataset != self.volume.dataset && !self.lines.contains_key(dataset) {
                flaws.push(format!("where dataset {} began is not known any more", dataset.0));
            }
            if record.origin.is_some_and(|origin| !self.snapshots.contains_key(&origin)) {
                flaws.push(format!("the snapshot that dataset {} began at is gone", dataset.0));
            }
        }
        flaws
    }
}
