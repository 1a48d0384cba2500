//! Digests of snapshots against each other, and against the sums that they were made from.

use super::{Check, FindingKind};
use crate::error::FsResult;
use crate::namespace::tree::chain::root_of;
use crate::types::Ino;

impl Check<'_> {
    pub(super) fn seals(&mut self) -> FsResult<()> {
        let tree = self.namespace.tree.read().clone();
        for &node in tree.seals.keys().chain(&tree.unreadable_seals) {
            let Some(view) = tree.snapshot_view(node) else {
                let detail = format!("a digest of the snapshot of node {}, which is gone", node.0);
                self.finding_at(FindingKind::SnapshotDigest, Ino(0), Vec::new(), detail);
                continue;
            };
            let name = tree.snapshots.get(&node).map_or("", |record| &record.name);
            if tree.unreadable_seals.contains(&node) {
                let detail = format!("@{name}: its digest cannot be read");
                self.finding(FindingKind::SnapshotDigest, view.root(), detail);
            }
            let Some(seal) = tree.seal(node) else { continue };
            let sum = self.namespace.sum_of(node)?;
            let detail = if tree.is_behind_unreadable(node) {
                "its digest does not follow from the one before it, which cannot be read"
            } else if tree.sealed_as(node, seal.root) != Some(seal) {
                "its digest does not follow from those before it"
            } else if !sum.is_some_and(|sum| {
                sum.next.is_none() && root_of(view.root, &sum.lanes) == seal.root
            }) {
                "its sum is not the one that was sealed"
            } else {
                continue;
            };
            self.finding(FindingKind::SnapshotDigest, view.root(), format!("@{name}: {detail}"));
        }
        Ok(())
    }
}
