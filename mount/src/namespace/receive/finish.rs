//! Ending a receive: with the snapshot, or as if it had never begun.

use blake3::Hash;

use super::Receiving;
use crate::error::{FsError, FsResult};
use crate::namespace::Namespace;
use crate::namespace::create::NewFile;
use crate::namespace::key::{self, Dataset, Node};
use crate::namespace::record::{Lanes, Place, RollbackRecord, SnapshotRecord, SumRecord};
use crate::namespace::snapshots::Snapshot;
use crate::namespace::store::Space;
use crate::namespace::tree::{Change, TreeError, TreeResult};
use crate::types::{Caller, FileKind, Ino};

/// What is known of the content that was received.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// What stood for all of it where it was sent from.
    pub(crate) sent_root: Option<Hash>,
    /// Its sum here, if that was computed.
    pub(crate) lanes: Option<Lanes>,
}

/// What is left to do after a receive was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    /// The new dataset is gone, to be swept.
    Gone,
    /// The dataset is to be rolled back.
    RollBack,
}

impl Namespace {
    /// Makes the snapshot that was received, and shows it. What was received was verified, and
    /// nothing changes meanwhile.
    pub(crate) fn finish_receive(
        &self,
        caller: &Caller,
        receiving: &Receiving,
        content: &Content,
    ) -> TreeResult<Snapshot> {
        let (alone, mut change) = self.change_tree()?;
        let receive = change.tree.receives.get(&receiving.dataset).cloned();
        let receive = receive.ok_or(TreeError::NoDataset)?;
        change.remove_receive(receiving.dataset);
        let dataset = receiving.dataset;
        let mut record = change.dataset(dataset)?;
        let taken = record.node;
        let snapshot = SnapshotRecord {
            dataset,
            line: dataset,
            view: change.add_view()?,
            created: receive.created,
            name: receive.name.clone(),
            message: receive.message.clone(),
            holds: Vec::new(),
            deferred: false,
            referenced: self.gate.ledger().part(dataset, Node::MAX).map(|part| part.referenced),
            guid: Some(receive.to),
            sent_root: content.sent_root,
        };
        change.entries.split(dataset, taken);
        change.put_snapshot(taken, snapshot);
        if let Some(lanes) = &content.lanes {
            let sum = SumRecord { base: None, next: None, lanes: lanes.clone() };
            change.batch.put(Space::Meta, &key::meta_number(key::SUMS, taken.0), sum.encode());
        }
        record.node = change.add_node(dataset)?;
        record.view = change.add_view()?;
        let mut txn = self.begin();
        if let Some(place) = &receive.place {
            let parent = self.live_view(place.parent)?.lift(Ino(place.dir));
            let kind = FileKind::Directory;
            let new = NewFile { kind, perm: 0o755, umask: 0, rdev: 0, target: b"" };
            let (staged, junction) = match self.stage_entry(caller, parent, &place.name, &new) {
                Err(FsError::Exists) => {
                    let name = String::from_utf8_lossy(&place.name).into_owned();
                    return Err(TreeError::Exists(name));
                }
                staged => staged?,
            };
            txn = staged;
            record.place = Some(Place { parent: place.parent, junction: junction.ino.object() });
        }
        change.put_dataset(dataset, record);
        if let Some(base) = receive.base {
            change.end_deferred(base.at.node);
        }
        self.commit_tree_with(txn, &alone, change)?;
        drop(alone);
        self.gate.sync()?;
        self.snapshot_of(taken)
    }

    /// Gives up what was received. The new dataset is gone afterwards; the live view of an old
    /// one is, until [`Namespace::finish_rollback`] was called.
    pub(crate) fn undo_receive(&self, dataset: Dataset) -> TreeResult<Undone> {
        let (alone, mut change) = self.change_tree()?;
        let receive = change.tree.receives.get(&dataset).cloned().ok_or(TreeError::NoDataset)?;
        change.remove_receive(dataset);
        let undone = match (&receive.place, receive.base) {
            (None, Some(base)) => {
                change.put_rollback(dataset, RollbackRecord { to: base.at });
                Undone::RollBack
            }
            _ => {
                change.remove_hidden(dataset)?;
                Undone::Gone
            }
        };
        self.commit_tree(&alone, change)?;
        drop(alone);
        self.gate.sync()?;
        Ok(undone)
    }

    /// Undoes receives that a crash interrupted and that are not resumable. Rollbacks are left to
    /// be finished.
    pub(in crate::namespace) fn undo_interrupted(&self) -> FsResult<()> {
        let interrupted: Vec<Dataset> = {
            let tree = self.tree.read();
            let lost = tree.receives.iter().filter(|(_, record)| !record.resumable);
            lost.map(|(&dataset, _)| dataset).collect()
        };
        for dataset in interrupted {
            self.undo_receive(dataset).map_err(|error| match error {
                TreeError::Fs(error) => error,
                other => FsError::io("undo a receive", other),
            })?;
        }
        Ok(())
    }
}

impl Change {
    /// Destroys a dataset that shows nowhere.
    fn remove_hidden(&mut self, dataset: Dataset) -> TreeResult<()> {
        let record = self.dataset(dataset)?;
        self.remove_dataset(dataset);
        self.reader_gone(dataset, Node::MAX);
        if let Some(origin) = record.origin {
            self.end_deferred(origin);
        }
        Ok(())
    }
}
