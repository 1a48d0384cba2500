//! Snapshots, clones and rollbacks on both sides.

use super::*;

impl Pair {
    pub(super) fn snapshot(&mut self) {
        if self.zoo.is_some() {
            // What a clone finds without a name it cannot clear away.
            self.purge();
        }
        let name = format!("s{}", self.taken);
        self.taken += 1;
        self.world.ns.snapshot(&[self.branch.dataset], &name, "").unwrap();
        self.branch.snapshots.push((name, self.branch.tree.clone()));
    }

    pub(super) fn destroy(&mut self, which: usize) {
        if self.branch.snapshots.is_empty() {
            return;
        }
        let which = which % self.branch.snapshots.len();
        let name = self.branch.snapshots[which].0.clone();
        if self.is_origin(&name) {
            let refused = self.world.ns.destroy_snapshots(&[(self.branch.dataset, &name)], false);
            assert!(matches!(refused, Err(TreeError::Cloned(_))));
            return;
        }
        self.branch.snapshots.remove(which);
        let root = self.world.ns.snapshot_root(self.branch.dataset, &name).unwrap();
        self.world.ns.destroy_snapshots(&[(self.branch.dataset, &name)], false).unwrap();
        assert_eq!(fails(self.world.ns.getattr(root)), "ESTALE");
        self.is_swept = false;
    }

    pub(super) fn rollback(&mut self, which: usize) {
        if self.branch.snapshots.is_empty() {
            return;
        }
        let which = which % self.branch.snapshots.len();
        let (name, tree) = self.branch.snapshots[which].clone();
        let newer: Vec<_> =
            self.branch.snapshots[which + 1..].iter().map(|(name, _)| name.clone()).collect();
        if newer.iter().any(|name| self.is_origin(name)) {
            let refused = self.world.ns.rollback(self.branch.dataset, &name, true);
            assert!(matches!(refused, Err(TreeError::Cloned(_))));
            return;
        }
        self.branch.snapshots.truncate(which + 1);
        let ns = &self.world.ns;
        if !newer.is_empty() {
            let refused = ns.rollback(self.branch.dataset, &name, false);
            assert!(matches!(refused, Err(TreeError::InTheWay(names)) if names == newer));
            self.is_swept = false;
        }
        let old = self.live(self.any(which));
        let before = self.referenced();
        let done = ns.rollback(self.branch.dataset, &name, true).unwrap();
        assert_eq!(done.root, self.live(Ino::ROOT));
        let freed: BTreeSet<_> = done.unreferenced.into_iter().collect();
        assert_eq!(freed, before.difference(&self.referenced()).copied().collect());
        if old != Ino::ROOT {
            assert_eq!(fails(ns.getattr(old)), "ESTALE");
        }
        self.branch.tree = tree;
    }

    pub(super) fn is_origin(&self, name: &str) -> bool {
        self.branches().any(|branch| branch.origin.as_deref() == Some(name))
    }

    pub(super) fn clone_some(&mut self, which: usize) {
        let Some((zoo, _)) = self.zoo.filter(|_| self.others.len() < 3) else { return };
        if self.branch.snapshots.is_empty() {
            return;
        }
        let (name, mut tree) = self.branch.snapshots[which % self.branch.snapshots.len()].clone();
        let place = format!("c{}", self.taken);
        self.taken += 1;
        let from = (self.branch.dataset, &name[..]);
        let made = self.world.ns.clone_snapshot(&ROOT_CALLER, from, zoo, place.as_bytes());
        tree.nodes.values_mut().for_each(|node| node.is_junction = false);
        self.others.push(Branch {
            dataset: made.unwrap(),
            path: format!("/zoo/{place}").into_bytes(),
            tree,
            snapshots: Vec::new(),
            origin: Some(name),
        });
    }

    pub(super) fn switch(&mut self, which: usize) {
        if !self.others.is_empty() {
            let which = which % self.others.len();
            std::mem::swap(&mut self.branch, &mut self.others[which]);
        }
    }

    pub(super) fn destroy_clone(&mut self) -> bool {
        if self.branch.dataset == Dataset::ROOT {
            return false;
        }
        let done = self.world.ns.destroy_dataset(self.branch.dataset, true);
        if self.branch.snapshots.iter().any(|(name, _)| self.is_origin(name)) {
            assert!(matches!(done, Err(TreeError::Cloned(_))));
            return false;
        }
        self.world.ns.purged(&[done.unwrap().inode.ino]).unwrap();
        self.branch = self.others.remove(0);
        self.is_swept = false;
        true
    }

    pub(super) fn promote(&mut self) {
        let Some(origin) = self.branch.origin.clone() else {
            let refused = self.world.ns.promote(self.branch.dataset);
            assert!(matches!(refused, Err(TreeError::NotAClone)));
            return;
        };
        self.world.ns.promote(self.branch.dataset).unwrap();
        let has = |branch: &Branch| branch.snapshots.iter().position(|(name, _)| *name == origin);
        let owner = self.others.iter().position(|other| has(other).is_some()).unwrap();
        let owner = &mut self.others[owner];
        let mut moved: Vec<_> = owner.snapshots.drain(..=has(owner).unwrap()).collect();
        moved.append(&mut self.branch.snapshots);
        self.branch.snapshots = moved;
        self.branch.origin = owner.origin.replace(origin);
        self.is_exact = false;
    }

    pub(super) fn end_all_but_the_root(&mut self) {
        while let Some(at) = self.others.iter().position(|other| other.dataset == Dataset::ROOT) {
            self.switch(at);
        }
        while self.branch.origin.is_some() {
            self.promote();
        }
        while !self.others.is_empty() {
            let before = self.others.len();
            for at in 0..before {
                self.switch(at);
                if self.destroy_clone() {
                    break;
                }
                self.switch(at);
            }
            assert!(self.others.len() < before, "one of them has no clones");
            while let Some(at) = self.others.iter().position(|o| o.dataset == Dataset::ROOT) {
                self.switch(at);
            }
        }
        while !self.branch.snapshots.is_empty() {
            self.destroy(0);
        }
        self.is_exact = true;
        self.sweep_all();
    }
}
