//! The version tree in memory: which views there are, and where each reads and writes.

use std::collections::HashMap;

use super::key::{Line, Node};
use super::record::VolumeRecord;
use crate::types::Ino;

/// A state of a dataset that inode numbers name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// The upper bits of its inode numbers.
    pub(super) index: u16,
    /// Where its records lie.
    pub(super) line: Line,
    /// Under which node changes are written.
    pub(super) node: Node,
    /// Its root directory shows as [`Ino::ROOT`].
    pub(super) is_mount: bool,
}

impl View {
    /// A stored object as this view shows it.
    pub(super) fn lift(&self, object: Ino) -> Ino {
        match self.is_mount && object == Ino::ROOT {
            true => Ino::ROOT,
            false => Ino::in_view(self.index, object.0),
        }
    }

    /// Its root directory.
    pub(super) fn root(&self) -> Ino {
        self.lift(Ino::ROOT)
    }
}

/// All views.
#[derive(Debug)]
pub(super) struct Tree {
    views: HashMap<u16, View>,
    mount: View,
}

impl Tree {
    /// The tree of a volume that never had a snapshot.
    pub(super) fn new(volume: &VolumeRecord) -> Self {
        let mount = View { index: 0, line: volume.dataset, node: volume.node, is_mount: true };
        Self { views: HashMap::from([(mount.index, mount)]), mount }
    }

    /// The view that a number belongs to; `None` when there is none any more.
    pub(super) fn view(&self, ino: Ino) -> Option<View> {
        if ino == Ino::ROOT {
            return Some(self.mount);
        }
        let view = *self.views.get(&ino.view_index())?;
        // The root of the mount has one number only.
        (!view.is_mount || ino.object() != Ino::ROOT.0).then_some(view)
    }

    /// The live views, each with its line.
    pub(super) fn live_views(&self) -> Vec<View> {
        vec![self.mount]
    }

    /// The live view of a line.
    pub(super) fn live_view(&self, line: Line) -> Option<View> {
        (self.mount.line == line).then_some(self.mount)
    }

    /// Goes on under another node, as a snapshot does.
    #[cfg(test)]
    pub(super) fn advance(&mut self, node: Node) {
        self.mount.node = node;
        self.views.insert(self.mount.index, self.mount);
    }
}
