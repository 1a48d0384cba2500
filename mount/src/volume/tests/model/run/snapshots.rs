//! Taking, destroying and rolling back to snapshots; each shows for ever what it showed once.

use std::collections::BTreeMap;

use super::super::observe::observe_below;
use super::super::ops::SNAPSHOTS;
use super::super::reference::{FileState, Meta, Tree};
use super::{Runner, Subject};
use crate::core::Core;
use crate::error::FsError;
use crate::namespace::{Dataset, TreeError};
use crate::types::{FileKind, Ino};

/// What a snapshot shows. Numbers are objects, without a view.
pub(super) struct Saved {
    pub(super) name: String,
    pub(super) tree: Tree,
    pub(super) files: BTreeMap<Ino, FileState>,
}

pub(super) fn object(ino: Ino) -> Ino {
    Ino(ino.object())
}

pub(super) fn objects(listing: BTreeMap<String, Meta>) -> BTreeMap<String, Meta> {
    let known = listing.into_iter();
    known.map(|(path, meta)| (path, Meta { ino: object(meta.ino), ..meta })).collect()
}

impl<S: Subject> Runner<'_, S> {
    pub(super) fn snapshot(&mut self) {
        if self.saved.len() == SNAPSHOTS {
            return;
        }
        self.taken += 1;
        let name = format!("s{}", self.taken);
        drop(self.volume().snapshot(&[Dataset::ROOT], &name, "").unwrap());
        self.reference.all_committed();
        self.reference.namespace_synced();
        let tree = self.reference.tree.clone();
        let files = tree.listing().into_values().filter(|meta| meta.kind == FileKind::File);
        let files = files.map(|meta| (object(meta.ino), self.reference.file(meta.ino).clone()));
        let files = files.collect();
        self.saved.push(Saved { name, tree: tree.renumbered(object), files });
    }

    pub(super) fn destroy(&mut self, which: usize) {
        if self.saved.is_empty() {
            return;
        }
        let Saved { name, .. } = self.saved.remove(which % self.saved.len());
        drop(self.volume().destroy_snapshots(&[(Dataset::ROOT, &name)], false).unwrap());
        self.reference.namespace_synced();
    }

    pub(super) fn rollback(&mut self, which: usize) {
        if self.saved.is_empty() {
            return;
        }
        let which = which % self.saved.len();
        let saved = &self.saved[which];
        let volume = self.subject.volume();
        if which + 1 < self.saved.len() {
            let refused = volume.rollback(Dataset::ROOT, &saved.name, false);
            assert!(matches!(refused, Err(TreeError::InTheWay(_))));
        }
        drop(volume.rollback(Dataset::ROOT, &saved.name, true).unwrap());
        let live = |object: Ino| volume.names().in_live_view(Dataset::ROOT, object.0).unwrap();
        let tree = saved.tree.renumbered(live);
        let files = saved.files.iter().map(|(&ino, state)| (live(ino), state.clone())).collect();
        let wait = self.wait();
        for (ino, handle) in self.open.iter_mut().filter_map(Option::take) {
            let late = volume.write(&super::ROOT, ino, handle, 0, b"late", true, false, wait);
            assert!(matches!(late, Err(FsError::Stale)), "{late:?}");
            let read = volume.read(ino, handle, 0, 1, wait);
            assert!(matches!(read, Err(FsError::Stale)), "{read:?}");
            volume.release(ino, handle);
        }
        self.reference.rolled_back(tree, files);
        self.saved.truncate(which + 1);
    }

    /// Brings snapshots to their digests, and verifies those that have one.
    pub(super) fn seal(&self) {
        let volume = self.subject.volume();
        volume.digester.seal_snapshots().unwrap();
        for Saved { name, .. } in &self.saved {
            let of = (Dataset::ROOT, &name[..]);
            let proof = volume.names().prove(of, None, &mut |_| true).unwrap();
            assert_eq!(proof.flaws, [], "{name}");
            assert!(proof.seal.is_some() || !S::IS_HOT, "{name}: {:?}", proof.pending);
        }
    }

    /// Compares each snapshot with what it showed first.
    pub(super) fn check_snapshots(&self) {
        let volume = self.subject.volume();
        let control = volume.lookup(Ino::ROOT, b".firn").unwrap().ino;
        let snapshots = volume.lookup(control, b"snapshot").unwrap().ino;
        for saved in &self.saved {
            let root = volume.lookup(snapshots, saved.name.as_bytes()).unwrap().ino;
            let view = observe_below(volume, root, self.wait());
            assert_eq!(objects(view.listing), saved.tree.listing(), "{}", saved.name);
            for (ino, seen) in &view.files {
                let state = &saved.files[&object(*ino)];
                assert!(seen.is(state), "{ino:?} of {} shows not {state:#?}", saved.name);
                assert_eq!(seen.blocks(), state.allocated().div_ceil(512), "{ino:?}: {state:#?}");
            }
            volume.forget(root, 1);
        }
        volume.forget(snapshots, 1);
        volume.forget(control, 1);
    }
}
