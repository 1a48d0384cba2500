//! Beginning a receive, or going on with one.

use std::sync::Arc;

use blake3::Hash;

use super::{Base, NewPlace, Receiving};
use crate::error::{FsError, FsResult};
use crate::namespace::Namespace;
use crate::namespace::key::{self, Dataset, Node};
use crate::namespace::names::check_name;
use crate::namespace::position::Position;
use crate::namespace::record::{
    DatasetRecord, LineRecord, MESSAGE_MAX, Origin, ReceiveProgress, ReceiveRecord, Referenced,
    Timestamp,
};
use crate::namespace::snapshots::check_snapshot_name;
use crate::namespace::store::{NamespaceReader, Space};
use crate::namespace::tree::{Change, TreeError, TreeResult};
use crate::types::{Guid, Ino};

/// The snapshot that a stream brings.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    /// Its name in all volumes.
    pub(crate) to: Guid,
    /// When it was taken.
    pub(crate) created: Timestamp,
    /// Its name.
    pub(crate) name: String,
    /// What its maker said about it.
    pub(crate) message: String,
    /// The object of its root directory.
    pub(crate) root: u64,
    /// What stood for all that its base showed where it was sent from, if the stream says so.
    pub(crate) base_root: Option<Hash>,
}

/// Where it goes.
#[derive(Clone, Debug)]
pub(crate) enum Beginning<'a> {
    /// A dataset that will show as `name` in `parent`, and begins as `base` or as nothing.
    New {
        /// The directory above.
        parent: Ino,
        /// The name there.
        name: &'a [u8],
        /// The snapshot that it begins as.
        base: Option<Guid>,
    },
    /// A dataset whose newest snapshot is `base`.
    Existing {
        /// The dataset.
        dataset: Dataset,
        /// Its newest snapshot.
        base: Guid,
    },
}

/// What became of a beginning.
#[derive(Debug)]
pub(crate) enum Start {
    /// It has begun.
    Begun(Receiving),
    /// The base is not there.
    NoBase,
    /// The base of this name shows something else than where it was sent from.
    BaseDiffers(String, Hash),
    /// There are snapshots after the base.
    Newer(Vec<String>),
    /// The dataset changed since its base, of this name.
    Modified(String),
    /// Another one waits there to be continued.
    Pending(Dataset),
}

impl Namespace {
    /// Begins to receive a snapshot. What was written must be committed, and for an existing
    /// dataset nothing may change meanwhile.
    pub(crate) fn begin_receive(
        &self,
        incoming: &Incoming,
        to: &Beginning<'_>,
        resumable: bool,
    ) -> TreeResult<Start> {
        check_snapshot_name(&incoming.name)?;
        if incoming.message.len() > MESSAGE_MAX {
            return Err(TreeError::InvalidName("the message is too long"));
        }
        if let Beginning::New { base: Some(guid), .. } = *to
            && let Some(base) = self.snapshot_with_guid(guid)?
        {
            // Counted now, without keeping anybody out.
            self.referenced(base.dataset, &base.name)?;
        }
        let (alone, mut change) = self.change_tree()?;
        let mut record = ReceiveRecord {
            resumable,
            view: change.add_view()?,
            to: incoming.to,
            created: incoming.created,
            name: incoming.name.clone(),
            message: incoming.message.clone(),
            base: None,
            place: None,
        };
        let dataset = match *to {
            Beginning::New { parent, name, base } => {
                let above = self.writable(parent)?;
                check_name(name)?;
                self.directory(parent)?;
                let place = NewPlace {
                    parent: above.dataset,
                    dir: parent.object_in(above.root),
                    name: name.to_vec(),
                };
                if let Some(dataset) = change.receive_at(&place) {
                    return Ok(Start::Pending(dataset));
                }
                if self.place(parent, name)?.bucket.find(name).is_some() {
                    return Err(TreeError::Exists(String::from_utf8_lossy(name).into_owned()));
                }
                let mut referenced = Referenced::default();
                if let Some(guid) = base {
                    let Some(at) = change.find_guid(guid) else { return Ok(Start::NoBase) };
                    if let Some(start) = check_root(&change, at.node, incoming) {
                        return Ok(start);
                    }
                    record.base = Some(Base { guid, at });
                    let known = change.tree.snapshots.get(&at.node);
                    // Only another one of the same name could not have been counted yet.
                    referenced = known.and_then(|known| known.referenced).ok_or(TreeError::Busy)?;
                }
                record.place = Some(place);
                change.add_hidden(&record, (incoming.root, referenced), self.now())?
            }
            Beginning::Existing { dataset, base } => {
                if change.tree.receives.contains_key(&dataset) {
                    return Ok(Start::Pending(dataset));
                }
                let mut shown = change.dataset(dataset)?;
                change.check_awaits_none(dataset)?;
                // Handles that may write are stale from now on.
                shown.view = change.add_view()?;
                if shown.view == record.view {
                    return Err(TreeError::TooMany);
                }
                if let Err(start) =
                    self.check_base(&change, dataset, (base, incoming), &mut record)?
                {
                    return Ok(start);
                }
                change.put_dataset(dataset, shown);
                dataset
            }
        };
        change.put_receive(dataset, record);
        self.commit_tree(&alone, change)?;
        drop(alone);
        self.gate.sync()?;
        Ok(Start::Begun(self.receiving(dataset)?))
    }

    /// Whether a dataset is as its newest snapshot, which is `guid`. That it changed is said last:
    /// the changes may be given up for what nothing else forbids.
    fn check_base(
        &self,
        change: &Change,
        dataset: Dataset,
        (guid, incoming): (Guid, &Incoming),
        record: &mut ReceiveRecord,
    ) -> TreeResult<Result<(), Start>> {
        let all: Vec<_> = change.tree.snapshots_of(dataset).collect();
        let Some(found) = all.iter().position(|(node, own)| change.tree.guid(*node, own) == guid)
        else {
            return Ok(Err(Start::NoBase));
        };
        if let Some(start) = check_root(change, all[found].0, incoming) {
            return Ok(Err(start));
        }
        if found + 1 < all.len() {
            let newer = all[found + 1..].iter().map(|(_, record)| record.name.clone());
            return Ok(Err(Start::Newer(newer.collect())));
        }
        if all.iter().any(|(_, other)| other.name == record.name) {
            return Err(TreeError::Exists(record.name.clone()));
        }
        let (node, base) = all[found];
        let at = Origin { line: base.line, node };
        let live = change.tree.live_view(dataset).ok_or(TreeError::NoDataset)?;
        let view = change.tree.view_at(dataset, at).ok_or(TreeError::NoDataset)?;
        let mut is_modified = false;
        self.changed_objects(&view, &live, &mut |_, _| {
            is_modified = true;
            Ok(false)
        })?;
        if is_modified {
            return Ok(Err(Start::Modified(base.name.clone())));
        }
        record.base = Some(Base { guid, at });
        Ok(Ok(()))
    }

    /// A receive as the last batch left it.
    pub(crate) fn receiving(&self, dataset: Dataset) -> TreeResult<Receiving> {
        let tree = self.tree.read();
        let record = Arc::clone(tree.receives.get(&dataset).ok_or(TreeError::NoDataset)?);
        let own = tree.datasets.get(&dataset).ok_or(TreeError::NoDataset)?;
        let view = tree.view(Ino::in_view(record.view, 0)).ok_or(TreeError::NoDataset)?;
        let base = match record.base {
            Some(base) => Some(tree.view_at(dataset, base.at).ok_or(TreeError::NoDataset)?),
            None => None,
        };
        let (root, position) = (own.root, self.received_to(dataset)?);
        Ok(Receiving { dataset, root, position, view, base, record })
    }

    fn received_to(&self, dataset: Dataset) -> FsResult<Position> {
        let key = key::meta_number(key::RECEIVED, dataset.0);
        let value = NamespaceReader::get(&**self.gate.store(), Space::Meta, &key)?;
        let progress = value.map(|value| ReceiveProgress::decode(&value)).transpose()?;
        Ok(progress.map_or(Position::START, |progress| progress.position))
    }

    /// Datasets into which something is being received, or was until it was interrupted.
    pub(crate) fn receives(&self) -> Vec<Dataset> {
        self.tree.read().receives.keys().copied().collect()
    }

    /// The dataset that an interrupted receive makes at a place.
    pub(crate) fn receive_at(&self, parent: Ino, name: &[u8]) -> Option<Dataset> {
        let above = self.view(parent).ok()?;
        let dir = parent.object_in(above.root);
        let place = NewPlace { parent: above.dataset, dir, name: name.to_vec() };
        Change::new(self.tree.read().clone()).receive_at(&place)
    }

    /// Fails where a dataset that is being received will show: its directory must stay.
    pub(in crate::namespace) fn check_awaits_no_entry(&self, dir: Ino) -> FsResult<()> {
        let view = self.view(dir)?;
        let tree = self.tree.read();
        let mut places = tree.receives.values().filter_map(|receive| receive.place.as_ref());
        let object = dir.object_in(view.root);
        match places.any(|place| place.parent == view.dataset && place.dir == object) {
            true => Err(FsError::Busy),
            false => Ok(()),
        }
    }

    /// Where a dataset that does not show yet will, from the root of the mount: `/a/b`.
    pub fn awaited_path(&self, dataset: Dataset) -> Option<Vec<u8>> {
        let (parent, name) = self.place_of_receive(&self.receiving(dataset).ok()?)?;
        let mut path = self.path(parent);
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        Some(path)
    }

    /// Where the dataset of a receive will show.
    pub(crate) fn place_of_receive(&self, receiving: &Receiving) -> Option<(Ino, Vec<u8>)> {
        let place = receiving.record.place.as_ref()?;
        let above = self.live_view(place.parent).ok()?;
        Some((above.lift(Ino(place.dir)), place.name.clone()))
    }
}

/// That a base is another one than where it was sent from, if both have digests.
fn check_root(change: &Change, node: Node, incoming: &Incoming) -> Option<Start> {
    let (sent, seal) = (incoming.base_root?, change.tree.seal(node)?);
    let name = || change.tree.snapshots.get(&node).map_or_else(String::new, |r| r.name.clone());
    (sent != seal.root).then(|| Start::BaseDiffers(name(), seal.root))
}

impl Change {
    fn receive_at(&self, place: &NewPlace) -> Option<Dataset> {
        let mut receives = self.tree.receives.iter();
        receives.find(|(_, record)| record.place.as_ref() == Some(place)).map(|(of, _)| *of)
    }

    fn find_guid(&self, guid: Guid) -> Option<Origin> {
        let mut all = self.tree.snapshots.iter();
        let (&node, record) = all.find(|(node, record)| self.tree.guid(**node, record) == guid)?;
        Some(Origin { line: record.line, node })
    }

    fn put_receive(&mut self, dataset: Dataset, record: ReceiveRecord) {
        let key = key::meta_number(key::RECEIVES, dataset.0);
        self.batch.put(Space::Meta, &key, record.encode());
        self.tree.receives.insert(dataset, Arc::new(record));
    }

    pub(super) fn remove_receive(&mut self, dataset: Dataset) {
        for start in [key::RECEIVES, key::RECEIVED] {
            self.batch.delete(Space::Meta, &key::meta_number(start, dataset.0));
        }
        self.tree.receives.remove(&dataset);
    }

    /// A dataset that shows nowhere.
    fn add_hidden(
        &mut self,
        receive: &ReceiveRecord,
        (root, referenced): (u64, Referenced),
        created: Timestamp,
    ) -> TreeResult<Dataset> {
        let dataset = self.add_number()?;
        let node = self.add_node(dataset)?;
        let origin = receive.base.map(|base| base.at);
        self.put_line(dataset, LineRecord { first: node, origin });
        self.entries.begin(dataset, referenced);
        let origin = origin.map(|origin| origin.node);
        let record = DatasetRecord { node, view: receive.view, root, place: None, origin, created };
        self.put_dataset(dataset, record);
        Ok(dataset)
    }
}

impl Ino {
    /// The stored object of a directory in a view whose root is `root`.
    fn object_in(self, root: u64) -> u64 {
        if self == Self::ROOT { root } else { self.object() }
    }
}
