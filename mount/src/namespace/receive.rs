//! Making a snapshot from what was read of another.
//!
//! *Begin*: one batch makes a receive record. A whole snapshot goes into a new dataset that has no
//! place yet, so that nothing shows it; changes go into the dataset that has their base, which
//! from then on shows the base and refuses changes, while a view that nobody knows writes to its
//! line. *Apply*: batches of bounded size, each with how far the receive is; links, entries and
//! bytes are counted here, not believed. *End*: everything that was written is looked at once
//! more; then one batch closes the node as the snapshot, gives the dataset its place or a new
//! view, and removes the record.
//!
//! *Crash*: [`Namespace::open`] undoes a receive that is not resumable: the new dataset is destroyed,
//! or the old one rolled back to the base. A resumable one stays as it is, and what is applied
//! again changes nothing. *Order*: blocks are durable before [`Namespace::apply`] is called with
//! them, and inode numbers are durably taken before what has them is applied. *Others*: until its end a receive keeps everything but reading off its dataset, and its
//! base from being destroyed.

mod begin;
mod finish;
mod group;
mod sum;
mod verify;

use firn_tiering::BlockId;

use super::key::Dataset;
use super::ledger::Entries;
use super::position::Position;
use super::record::{Base, NewPlace, ReceiveProgress, ReceiveRecord, RecordError};
use super::send::Step;
use super::store::{Batch, Durability, Space, StoreError};
use super::tree::View;
use super::{Namespace, key};
use crate::error::FsError;
use crate::types::Ino;

pub(crate) use begin::{Beginning, Incoming, Start};
pub(crate) use finish::{Content as ReceivedContent, Undone};
pub(crate) use sum::ReceivedSum;

use group::Group;

/// Inode numbers that can be received are below; as many are left to be handed out here,
/// whatever a stream says.
pub(crate) const OBJECTS_END: u64 = 1 << 47;

/// Why something that was received cannot be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The namespace failed.
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl From<RecordError> for ApplyError {
    fn from(error: RecordError) -> Self {
        Self::Fs(error.into())
    }
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> Self {
        Self::Fs(error.into())
    }
}

/// An [`ApplyError::Invalid`].
fn invalid<T>(reason: impl Into<String>) -> Result<T, ApplyError> {
    Err(ApplyError::Invalid(reason.into()))
}

/// A receive under way.
#[derive(Clone, Debug)]
pub(crate) struct Receiving {
    /// The dataset.
    pub(crate) dataset: Dataset,
    /// The object of its root directory.
    pub(crate) root: u64,
    /// Everything before is applied.
    pub(crate) position: Position,
    /// How it is written.
    view: View,
    /// What the base shows.
    base: Option<View>,
    record: std::sync::Arc<ReceiveRecord>,
}

impl Receiving {
    /// Whether what was received outlives an interruption.
    pub(crate) fn is_resumable(&self) -> bool {
        self.record.resumable
    }

    /// What is received where.
    pub(crate) fn record(&self) -> &ReceiveRecord {
        &self.record
    }

    /// An object as the private view names it.
    fn ino(&self, object: u64) -> Ino {
        self.view.lift(Ino(object))
    }
}

impl Namespace {
    /// Applies steps in one batch, with the place behind them. Takes locks itself. Applying the
    /// same again changes nothing. Adds blocks to which nothing refers any more to `unreferenced`,
    /// as far as it got.
    pub(crate) fn apply(
        &self,
        receiving: &mut Receiving,
        steps: &[Step],
        position: Position,
        unreferenced: &mut Vec<BlockId>,
    ) -> Result<(), ApplyError> {
        let mut objects: Vec<Ino> = Vec::with_capacity(steps.len());
        for step in steps {
            objects.extend(step.objects().into_iter().flatten().map(Ino));
        }
        let numbers = steps.iter().filter_map(|step| match step {
            Step::Object(inode) => Some(inode.ino.0.saturating_add(1)),
            _ => None,
        });
        self.ids.reserve_inodes(numbers.max().unwrap_or(0))?;
        let guard = self.lock(&objects);
        let mut group = Group::new(self, receiving);
        steps.iter().try_for_each(|step| group.step(step))?;
        let (mut txn, removed) = group.finish()?;
        if removed.is_empty() {
            txn.append(progress(receiving.dataset, position), Entries::default());
        }
        unreferenced.extend(txn.commit(Durability::Buffered)?.unreferenced);
        drop(guard);
        if !removed.is_empty() {
            // Only when they are gone as a whole may the stream go on behind them.
            self.purge(&removed, unreferenced)?;
            self.gate.commit(progress(receiving.dataset, position), Durability::Buffered)?;
        }
        receiving.position = position;
        Ok(())
    }
}

fn progress(dataset: Dataset, position: Position) -> Batch {
    let mut batch = Batch::new();
    let key = key::meta_number(key::RECEIVED, dataset.0);
    batch.put(Space::Meta, &key, ReceiveProgress { position }.encode());
    batch
}

impl Step {
    /// The objects whose records it changes.
    fn objects(&self) -> [Option<u64>; 2] {
        match *self {
            Self::Object(ref inode) => [Some(inode.ino.0), None],
            Self::Target { object, .. }
            | Self::Xattr { object, .. }
            | Self::Slot { object, .. }
            | Self::Remove { object } => [Some(object), None],
            Self::Unlink { dir, child, .. } | Self::Link { dir, child, .. } => {
                [Some(dir), Some(child)]
            }
        }
    }
}
