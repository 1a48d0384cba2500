//! Snapshots: taking, listing, naming and holding them.
//!
//! *Taking one* closes the dataset's node and opens the next, in one batch: it touches no file.
//! All changes wait for it, so that each is wholly in or out. *Crash*: the batch is kept or not.

use std::sync::Arc;

use blake3::Hash;

use super::key::{Dataset, Node};
use super::locks::TreeGuard;
use super::record::{
    HOLDS_MAX, Hold, MESSAGE_MAX, Referenced, Seal, SnapshotRecord, TAG_MAX, Timestamp,
};
use super::store::Durability;
use super::tree::{Change, Tree, TreeError, TreeResult};
use super::{Namespace, Txn};
use crate::types::{Guid, Ino};

/// A snapshot, as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The node that it closed: younger snapshots have higher ones.
    pub node: Node,
    /// Whose snapshot it is.
    pub dataset: Dataset,
    /// Its name, without the dataset's.
    pub name: String,
    /// What its maker said about it.
    pub message: String,
    /// When it was taken.
    pub created: Timestamp,
    /// Its root directory.
    pub root: Ino,
    /// Who wants it kept.
    pub holds: Vec<Hold>,
    /// Datasets that are clones of it.
    pub clones: Vec<Dataset>,
    /// It goes with its last clone and hold.
    pub deferred: bool,
    /// What it refers to, if that was counted.
    pub referenced: Option<Referenced>,
    /// Its name in all volumes that have it.
    pub guid: Guid,
    /// Its digest, once that was computed.
    pub seal: Option<Seal>,
    /// What stood for all that it showed where it was sent from, if the stream said so.
    pub sent_root: Option<Hash>,
}

impl Namespace {
    /// Keeps all changes out and works on a copy of the tree.
    pub(super) fn change_tree(&self) -> TreeResult<(TreeGuard<'_>, Change)> {
        let alone = self.locks.alone();
        self.gate.check()?;
        let change = Change::new(self.tree.read().clone());
        Ok((alone, change))
    }

    /// Stores a changed tree and goes on with it. Not durable before the next sync.
    pub(super) fn commit_tree(&self, alone: &TreeGuard<'_>, change: Change) -> TreeResult<()> {
        let (tree, batch, entries) = change.finish();
        self.gate.commit_counted(batch, &entries, Durability::Buffered)?;
        self.replace_tree(alone, tree);
        Ok(())
    }

    /// [`Namespace::commit_tree`] together with changes of entries.
    pub(super) fn commit_tree_with(
        &self,
        mut txn: Txn<'_>,
        alone: &TreeGuard<'_>,
        change: Change,
    ) -> TreeResult<()> {
        let (tree, batch, entries) = change.finish();
        txn.append(batch, entries);
        txn.commit(Durability::Buffered)?;
        self.replace_tree(alone, tree);
        Ok(())
    }

    /// Goes on with a tree that was stored.
    pub(super) fn replace_tree(&self, _: &TreeGuard<'_>, tree: Tree) {
        let (gone, root_changed) = {
            let old = self.tree.read();
            let shown = |tree: &Tree| tree.view(Ino::ROOT).map(|view| view.index);
            (old.has_view_outside(&tree), shown(&old) != shown(&tree))
        };
        self.gate.ledger().adopt(&tree);
        *self.tree.write() = tree;
        if gone {
            // The root of the mount keeps its number, whatever it shows.
            let keep = |ino| self.tree.read().view(ino).is_some();
            self.cache.retain(|ino| keep(ino) && !(root_changed && ino == Ino::ROOT));
        }
    }

    /// Takes a snapshot of each dataset, all of the same instant, and makes them durable.
    pub fn snapshot(
        &self,
        datasets: &[Dataset],
        name: &str,
        message: &str,
    ) -> TreeResult<Vec<Snapshot>> {
        check_snapshot_name(name)?;
        if message.len() > MESSAGE_MAX {
            return Err(TreeError::InvalidName("the message is too long"));
        }
        let (alone, mut change) = self.change_tree()?;
        let mut taken = Vec::with_capacity(datasets.len());
        for &dataset in datasets {
            let mut record = change.dataset(dataset)?;
            if change.tree.snapshots_of(dataset).any(|(_, other)| other.name == name) {
                return Err(TreeError::Exists(name.to_owned()));
            }
            taken.push(record.node);
            let snapshot = SnapshotRecord {
                dataset,
                line: dataset,
                view: change.add_view()?,
                created: self.now(),
                name: name.to_owned(),
                message: message.to_owned(),
                holds: Vec::new(),
                deferred: false,
                referenced: self.gate.ledger().part(dataset, Node::MAX).map(|part| part.referenced),
                guid: None,
                sent_root: None,
            };
            change.entries.split(dataset, record.node);
            change.put_snapshot(record.node, snapshot);
            record.node = change.add_node(dataset)?;
            change.put_dataset(dataset, record);
        }
        self.commit_tree(&alone, change)?;
        drop(alone);
        self.gate.sync()?;
        taken.into_iter().map(|node| self.snapshot_of(node)).collect()
    }

    /// Snapshots of a dataset, oldest first.
    pub fn snapshots(&self, dataset: Dataset) -> TreeResult<Vec<Snapshot>> {
        let nodes: Vec<Node> = {
            let tree = self.tree.read();
            if !tree.datasets.contains_key(&dataset) {
                return Err(TreeError::NoDataset);
            }
            tree.snapshots_of(dataset).map(|(node, _)| node).collect()
        };
        nodes.into_iter().map(|node| self.snapshot_of(node)).collect()
    }

    /// A snapshot of a dataset by its name.
    pub fn find_snapshot(&self, dataset: Dataset, name: &str) -> TreeResult<Snapshot> {
        let found =
            self.tree.read().snapshots_of(dataset).find(|(_, r)| r.name == name).map(|s| s.0);
        self.snapshot_of(found.ok_or_else(|| TreeError::NoSnapshot(name.to_owned()))?)
    }

    pub(super) fn snapshot_of(&self, node: Node) -> TreeResult<Snapshot> {
        let tree = self.tree.read();
        let missing = || TreeError::NoSnapshot(format!("node {}", node.0));
        let record: &Arc<SnapshotRecord> = tree.snapshots.get(&node).ok_or_else(missing)?;
        let view = tree.snapshot_view(node).ok_or_else(missing)?;
        Ok(Snapshot {
            node,
            dataset: record.dataset,
            name: record.name.clone(),
            message: record.message.clone(),
            created: record.created,
            root: view.root(),
            holds: record.holds.clone(),
            clones: tree.clones_of(node),
            deferred: record.deferred,
            referenced: record.referenced,
            guid: tree.guid(node, record),
            seal: tree.seal(node),
            sent_root: record.sent_root,
        })
    }

    /// The root directory of a snapshot.
    pub fn snapshot_root(&self, dataset: Dataset, name: &str) -> TreeResult<Ino> {
        Ok(self.find_snapshot(dataset, name)?.root)
    }

    /// The dataset that an inode belongs to, also that of a snapshot.
    pub fn dataset_of(&self, ino: Ino) -> TreeResult<Dataset> {
        Ok(self.view(ino)?.dataset)
    }

    /// Whether an inode is in a snapshot, where nothing can be changed. What a dataset shows while
    /// it is received into is not: its end gives way to what was received.
    pub fn is_in_snapshot(&self, ino: Ino) -> bool {
        self.view(ino).is_ok_and(|view| !view.is_live() && !view.is_head)
    }

    /// Gives the snapshot of this name of each dataset another one, all or none.
    pub fn rename_snapshots(&self, datasets: &[Dataset], name: &str, new: &str) -> TreeResult<()> {
        check_snapshot_name(new)?;
        let (alone, mut change) = self.change_tree()?;
        for &dataset in datasets {
            let (node, mut record) = change.snapshot(dataset, name)?;
            if name != new && change.tree.snapshots_of(dataset).any(|(_, r)| r.name == new) {
                return Err(TreeError::Exists(new.to_owned()));
            }
            record.name = new.to_owned();
            change.put_snapshot(node, record);
        }
        self.commit_tree(&alone, change)?;
        drop(alone);
        Ok(self.gate.sync()?)
    }

    /// Keeps a snapshot from being destroyed.
    pub fn hold(&self, dataset: Dataset, name: &str, tag: &str) -> TreeResult<()> {
        check_snapshot_name(tag)?;
        let created = self.now();
        self.edit_snapshot(dataset, name, |_, record| {
            if record.holds.iter().any(|hold| hold.tag == tag) {
                return Err(TreeError::Exists(tag.to_owned()));
            }
            if record.holds.len() >= HOLDS_MAX {
                return Err(TreeError::TooMany);
            }
            record.holds.push(Hold { tag: tag.to_owned(), created });
            Ok(())
        })
    }

    pub(super) fn edit_snapshot(
        &self,
        dataset: Dataset,
        name: &str,
        edit: impl FnOnce(&Change, &mut SnapshotRecord) -> TreeResult<()>,
    ) -> TreeResult<()> {
        let (alone, mut change) = self.change_tree()?;
        let (node, mut record) = change.shown_snapshot(dataset, name)?;
        edit(&change, &mut record)?;
        change.put_snapshot(node, record);
        self.commit_tree(&alone, change)?;
        drop(alone);
        Ok(self.gate.sync()?)
    }
}

/// Fails unless a snapshot or a hold can have this name.
pub(super) fn check_snapshot_name(name: &str) -> TreeResult<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.: ".contains(&byte);
    if name.is_empty() || name.len() > TAG_MAX {
        return Err(TreeError::InvalidName("1 to 255 bytes"));
    }
    if name == "." || name == ".." || !name.bytes().all(fits) {
        return Err(TreeError::InvalidName("letters, digits, - _ . : and space"));
    }
    Ok(())
}
