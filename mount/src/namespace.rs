//! The namespace: inodes, directory entries, extended attributes, extents and back-references.
//!
//! *Crash rules.* Every mutation is one atomic batch of a [`NamespaceStore`]; what a crash keeps
//! is a prefix of the committed batches. A removed file that is still in use, or whose extents
//! are too many for one batch, is an orphan record in the batch that removed it, and
//! [`Namespace::purge`] clears it away in bounded batches. A truncation of many extents first
//! commits the new size with a truncation record; [`Namespace::open`] finishes it, so that bytes
//! behind an old end never come back. Taking, destroying and cloning snapshots and promoting are
//! one batch each; what is left of a destroyed one is a sweep record that
//! [`Namespace::sweep_some`] works off. A rollback is a record first, which `open` finishes. A change
//! of content takes the file's digest away and notes in the same batch that it needs one.
//!
//! *Ids.* Inode, block and segment numbers are leased durably and never used twice; an unclean
//! open begins a new epoch.
//!
//! *Locking.* [`Namespace::lock`] guards the read-modify-write of inodes and their extents. The
//! metadata operations take it themselves, in one global order; a caller that holds a guard must
//! not call them. Every change is made under such a guard, which also keeps the version tree as
//! it is: what changes the tree waits for all guards. Reads take no lock.
//!
//! *Failure.* After a failed commit every later one is [`FsError::ReadOnly`] until the namespace
//! is opened again.
//!
//! *What may leak.* Blocks whose last reference went just before a crash are reported to nobody;
//! the sweeper finds them. Leased numbers of a crashed process are skipped. A born entry of an inode
//! that was cleared away while nobody read an older state goes with its node.

mod acl;
mod attr;
mod cache;
mod check;
mod create;
mod datasets;
mod diff;
mod digests;
mod directory;
mod extents;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gate;
mod groups;
mod ids;
pub mod key;
mod ledger;
mod links;
mod locks;
mod names;
mod orphans;
mod owners;
mod pair;
mod places;
mod position;
mod properties;
mod prune;
mod quota;
mod receive;
pub mod record;
mod remove;
mod rename;
mod repair;
mod rollback;
mod seals;
mod send;
mod snapshots;
pub mod store;
mod sweep;
mod tree;
mod txn;
mod usage;
mod view;
mod xattr;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use firn_tiering::Clock;
use parking_lot::{Mutex, RwLock};

use crate::error::{FsError, FsResult};
use crate::types::{FileKind, Ino};

pub use attr::{cleared_privileges, in_group};
pub use check::{CheckOptions, Finding, FindingKind, Report};
pub use create::NewFile;
pub use datasets::DatasetInfo;
pub use diff::{ChangeKind, Difference};
pub(crate) use digests::MOST_HOLES;
pub use digests::{ContentSource, Undigested};
pub use extents::SlotPage;
pub use ids::Ids;
pub use key::{Backref, Dataset, Node};
pub use locks::InodeGuard;
pub use owners::Owner;
pub use position::{Position, Stage};
pub use properties::{Properties, Source};
pub use quota::Quota;
pub(crate) use receive::{
    ApplyError, Beginning, Incoming, OBJECTS_END, ReceivedContent, ReceivedSum, Receiving, Start,
    Undone,
};
pub use record::{CLASS_MAX, Property, Setting, is_class_name};
pub use record::{Content, Inode, Piece, SLOT_LEN, SlotRecord, Timestamp};
pub use record::{Hold, Referenced, Seal};
pub(crate) use record::{Reader, RecordError, kind_of_byte, mode_of_kind, put_varint};
pub use remove::Removed;
pub use rename::Renamed;
pub use repair::{Fate, Keeper, Repair, Repaired};
pub use rollback::RolledBack;
pub use seals::{
    Awaited, Content as ProofContent, Flaw, FlawKind, Pending, Proof, Sealing, Unread,
};
pub(crate) use send::{SLOT_RANGES_MAX, SendSource, SlotRange, Step};
pub use snapshots::Snapshot;
pub use store::{
    Batch, Durability, LocalStore, MemoryStore, NamespaceReader, NamespaceStore, Space,
    StoreOptions,
};
pub use sweep::Swept;
pub use tree::{TreeError, TreeResult};
pub use txn::{Committed, Txn};
pub use usage::DatasetSpace;

use cache::InodeCache;
use gate::Gate;
use key::Kind;
use locks::Locks;
use names::NameHash;
pub(crate) use record::Version;
use record::{Leases, Usage, VolumeRecord};
use tree::Tree;

/// Features that a volume has as soon as it may be changed.
const ANNOUNCED: u64 = VolumeRecord::LINKS | VolumeRecord::DIGESTS | VolumeRecord::SEALS;

/// Settings of an open namespace.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceOptions {
    /// Inodes kept decoded in memory, about 280 bytes each.
    pub cached_inodes: usize,
    /// Refuse every change.
    pub read_only: bool,
}

impl Default for NamespaceOptions {
    fn default() -> Self {
        Self { cached_inodes: 64 << 10, read_only: false }
    }
}

/// The root directory of a new namespace.
#[derive(Clone, Copy, Debug)]
pub struct NewRoot {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub perm: u16,
}

/// A namespace. All methods may be called from any number of threads at once.
#[derive(Debug)]
pub struct Namespace {
    gate: Arc<Gate>,
    clock: Arc<dyn Clock>,
    /// Changed only by who holds the tree's lock alone; read for an instant at a time.
    tree: RwLock<Tree>,
    names: NameHash,
    cache: InodeCache,
    locks: Locks,
    ids: Arc<Ids>,
    sweeping: Mutex<sweep::Sweeping>,
    /// What only some snapshots hold, as it was found.
    known_used: Mutex<HashMap<Node, usage::KnownUsed>>,
    /// Held while a directory moves to another parent, so that the tree stays a tree.
    moving: Mutex<()>,
    digests: digests::Digests,
    /// Held while a page of a snapshot's sum is computed and stored.
    sealing: Mutex<()>,
}

impl Namespace {
    /// Fills an empty store with a namespace that holds a root directory. `name_seed` must be
    /// random: it keeps others from choosing names that collide.
    pub fn create(
        store: &dyn NamespaceStore,
        clock: &dyn Clock,
        root: NewRoot,
        name_seed: [u8; 32],
    ) -> FsResult<()> {
        if store.get(Space::Meta, key::VOLUME)?.is_some() {
            return Err(FsError::Exists);
        }
        let (dataset, node) = (Dataset::ROOT, Node::FIRST);
        let features = VolumeRecord::USAGE | ANNOUNCED;
        let volume = VolumeRecord { name_seed, dataset, node, has_tree: true, features };
        let leases =
            Leases { clean: true, epoch: 1, blocks: 0, segments: 0, inodes: Ino::ROOT.0 + 1 };
        let now = Timestamp::from(clock.now());
        let inode = Inode {
            kind: FileKind::Directory,
            perm: root.perm,
            nlink: 2,
            uid: root.uid,
            gid: root.gid,
            ..Inode::new(Ino::ROOT, Version::first(volume.node), now)
        };
        let mut batch = Batch::new();
        batch.put(Space::Meta, key::VOLUME, volume.encode());
        batch.put(Space::Meta, key::LEASES, leases.encode());
        let inode_key = key::head(volume.dataset, Ino::ROOT, Kind::Inode);
        batch.put(Space::Head, &inode_key, inode.encode());
        let usage = Usage { charged: 0, referenced: Referenced { bytes: 0, files: 1 } };
        let usage_key = key::usage(volume.dataset, Node::MAX);
        batch.put(Space::Meta, &usage_key, usage.encode());
        store.commit(batch, Durability::Durable)?;
        Ok(())
    }

    /// Opens the namespace in a store: begins a new epoch when it was not closed in order, and
    /// finishes rollbacks and truncations that a crash cut short. Orphans are left to
    /// [`Namespace::orphans`] and [`Namespace::purge`].
    pub fn open(
        store: Arc<dyn NamespaceStore>,
        clock: Arc<dyn Clock>,
        options: NamespaceOptions,
    ) -> FsResult<Self> {
        let namespace = Self::open_unfinished(store, clock, options)?;
        if !options.read_only {
            namespace.finish_truncations()?;
        }
        Ok(namespace)
    }

    /// [`Namespace::open`] with truncations left to [`Namespace::repair`], since damage may be in
    /// their way, and records of nodes made anew that the version tree is not loaded without. Only
    /// for a repair: bytes behind an old end may still be there.
    pub fn open_to_repair(
        store: Arc<dyn NamespaceStore>,
        clock: Arc<dyn Clock>,
        options: NamespaceOptions,
    ) -> FsResult<Self> {
        if !options.read_only {
            repair::restore_nodes(&*store)?;
        }
        Self::open_unfinished(store, clock, options)
    }

    fn open_unfinished(
        store: Arc<dyn NamespaceStore>,
        clock: Arc<dyn Clock>,
        options: NamespaceOptions,
    ) -> FsResult<Self> {
        let volume = store
            .get(Space::Meta, key::VOLUME)?
            .ok_or_else(|| FsError::io("open the namespace", "there is no volume record"))?;
        let volume = VolumeRecord::decode(&volume)?;
        let tree = Tree::load(&*store, &volume)?;
        let gate = Arc::new(Gate::new(store));
        let ids = Arc::new(Ids::open(Arc::clone(&gate), options.read_only)?);
        if options.read_only {
            gate.refuse(gate::READ_ONLY);
        }
        let namespace = Self {
            clock,
            tree: RwLock::new(tree),
            names: NameHash::new(volume.name_seed),
            cache: InodeCache::new(options.cached_inodes),
            locks: Locks::new(),
            ids,
            sweeping: Mutex::default(),
            known_used: Mutex::default(),
            moving: Mutex::new(()),
            digests: digests::Digests::default(),
            sealing: Mutex::default(),
            gate,
        };
        namespace.open_ledger(&volume, !options.read_only)?;
        if !options.read_only {
            namespace.announce(ANNOUNCED)?;
            namespace.undo_interrupted()?;
            namespace.finish_rollbacks()?;
        } else if !namespace.tree.read().rollbacks.is_empty() {
            let reason = "a rollback was interrupted, which only a writable open can finish";
            return Err(FsError::io("open the namespace", reason));
        }
        Ok(namespace)
    }

    /// Says that there may be records with these features, before there are any.
    fn announce(&self, features: u64) -> FsResult<()> {
        let volume = self.tree.read().volume.clone();
        if volume.features & features == features {
            return Ok(());
        }
        let features = volume.features | features;
        let volume = VolumeRecord { has_tree: true, features, ..volume };
        let mut batch = Batch::new();
        batch.put(Space::Meta, key::VOLUME, volume.encode());
        self.gate.commit(batch, Durability::Durable)?;
        self.tree.write().volume = volume;
        Ok(())
    }

    /// Makes everything durable, notes that the next open needs no new epoch, and lets the store
    /// settle. Nothing may be committed afterwards.
    pub fn close(&self) -> FsResult<()> {
        let _alone = self.locks.alone();
        if self.gate.refused().is_none() {
            self.ids.close()?;
        }
        self.gate.refuse(gate::CLOSED);
        self.gate.store().rest()?;
        Ok(())
    }

    /// Why changes are refused, if they are.
    pub fn read_only(&self) -> Option<String> {
        self.gate.refused()
    }

    /// Refuses every further change, as after a failed commit.
    pub fn refuse_changes(&self, reason: &str) {
        self.gate.refuse(reason);
    }

    /// Everything committed before the call is durable when it returns.
    pub fn sync(&self) -> FsResult<()> {
        self.gate.sync()
    }

    /// The store below, for backup.
    pub fn store(&self) -> &Arc<dyn NamespaceStore> {
        self.gate.store()
    }

    /// The lender of block, segment and inode numbers.
    pub fn ids(&self) -> &Arc<Ids> {
        &self.ids
    }

    /// The time of a change that happens now.
    pub fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    /// Begins an atomic change.
    pub fn begin(&self) -> Txn<'_> {
        Txn::new(self)
    }

    /// Locks inodes for a read-modify-write, in an order that cannot deadlock. Locks are shared
    /// by unrelated inodes: take all at once, hold them briefly.
    pub fn lock(&self, inodes: &[Ino]) -> InodeGuard<'_> {
        self.locks.lock(inodes)
    }

    /// Lets others have the locks of a guard between two batches of one change: inodes must be
    /// read again. No snapshot comes in between, which would keep half of the change.
    pub fn give_turn<'a>(&'a self, guard: &mut InodeGuard<'a>) {
        self.locks.give_turn(guard);
    }

    /// An inode, from memory or the store; [`FsError::Stale`] when there is none.
    pub fn inode(&self, ino: Ino) -> FsResult<Arc<Inode>> {
        self.find_inode(ino)?.ok_or(FsError::Stale)
    }

    fn find_inode(&self, ino: Ino) -> FsResult<Option<Arc<Inode>>> {
        let state = match self.cache.get(ino) {
            Ok(inode) => return Ok(Some(inode)),
            Err(state) => state,
        };
        // After the cache was asked: what is read for a view that goes meanwhile is not kept.
        let Some(view) = self.tree.read().view(ino) else { return Ok(None) };
        let Some((version, record)) = self.read(&view, &key::head(view.line, ino, Kind::Inode))?
        else {
            return Ok(None);
        };
        if version.whiteout {
            return Ok(None);
        }
        let inode = Arc::new(view.inode(ino, version, &record)?);
        // The digest of what others see as well comes without word to each of them.
        let is_own = view.is_live() && version.node >= view.first;
        if is_own || !inode.awaits_digest() {
            self.cache.insert(Arc::clone(&inode), state);
        }
        Ok(Some(inode))
    }

    /// A directory that may get entries; [`FsError::NotFound`] when it was removed.
    fn directory(&self, ino: Ino) -> FsResult<Arc<Inode>> {
        // Whoever looked it up before it became a dataset looks again.
        self.check_not_junction(ino).map_err(|_| FsError::Stale)?;
        let inode = self.inode(ino)?;
        if !inode.is_dir() {
            return Err(FsError::NotDirectory);
        }
        if inode.nlink == 0 {
            return Err(FsError::NotFound);
        }
        Ok(inode)
    }

    /// Reads what another layer keeps in the namespace under `name`.
    pub fn note(&self, name: &str) -> FsResult<Option<Bytes>> {
        Ok(self.gate.store().get(Space::Meta, &key::note(name))?)
    }

    /// Keeps something small for another layer under `name`.
    pub fn set_note(&self, name: &str, value: &[u8], durability: Durability) -> FsResult<()> {
        let mut batch = Batch::new();
        batch.put(Space::Meta, &key::note(name), value.to_vec());
        self.gate.commit(batch, durability)
    }
}

#[cfg(test)]
mod tests;
