//! The last look at what was received: everything has a name, directories form a tree.
//!
//! A directory whose way up was walked once ends the ways of those below it, so that the cost does
//! not grow with how deep they lie. *Memory*: as many of them as [`KNOWN`].

use std::collections::HashSet;

use super::{ApplyError, Receiving, invalid};
use crate::error::{FsError, FsResult};
use crate::namespace::Namespace;
use crate::namespace::key::{self, HeadKey, Kind};
use crate::namespace::record::Inode;
use crate::namespace::tree::TreeError;
use crate::namespace::xattr::XATTR_LIST_MAX;
use crate::types::{FileKind, Ino};

/// Inodes read at once.
const PAGE: usize = 256;

/// Directories remembered to lie below the root; without room, they are walked up from again.
const KNOWN: usize = 1 << 16;

/// Inodes looked at before it is asked whether to go on.
const STOP_EVERY: u64 = 256;

impl Namespace {
    /// Fails unless what was received is a namespace; `false` when `goes_on` ended it.
    pub(crate) fn verify_received(
        &self,
        receiving: &Receiving,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, ApplyError> {
        let Some(root) = self.find_inode(receiving.ino(receiving.root))? else {
            return invalid("there is no root directory");
        };
        if root.parent != root.ino || root.cookie != 0 || !root.is_dir() {
            return invalid("the root directory lies in another");
        }
        let mut outcome = Ok(());
        let mut known = HashSet::new();
        let (mut seen, mut is_stopped) = (0_u64, false);
        self.each_received(receiving, &mut |object| {
            seen += 1;
            is_stopped = seen.is_multiple_of(STOP_EVERY) && !goes_on();
            outcome = self.verify_object(receiving, object, &mut known);
            Ok(outcome.is_ok() && !is_stopped)
        })?;
        outcome?;
        if is_stopped {
            return Ok(false);
        }
        let children = self.tree.read().children_of(receiving.dataset);
        for child in children {
            let place = self.tree.read().datasets.get(&child).and_then(|record| record.place);
            let Some(place) = place else { continue };
            let junction = self.find_inode(receiving.ino(place.junction))?;
            if !junction.is_some_and(|inode| inode.is_dir() && inode.size == 0) {
                return invalid("it takes away the directory of a dataset below");
            }
        }
        Ok(true)
    }

    /// Passes every object that was written, once.
    fn each_received(
        &self,
        receiving: &Receiving,
        visit: &mut dyn FnMut(Ino) -> FsResult<bool>,
    ) -> FsResult<()> {
        let view = &receiving.view;
        if let Some(base) = &receiving.base {
            let changed = self.changed_objects(base, view, &mut |object, _| visit(object));
            return changed.map_err(|error| match error {
                TreeError::Fs(error) => error,
                other => FsError::io("look at what was received", other),
            });
        }
        let mut from = key::line(view.line).to_vec();
        let end = key::line_end(view.line);
        loop {
            let page = self.scan(view, &from, &end, PAGE)?;
            for item in &page.items {
                let head = HeadKey::decode(&item.key)?;
                if head.kind == Kind::Inode && !visit(head.object)? {
                    return Ok(());
                }
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    fn verify_object(
        &self,
        receiving: &Receiving,
        object: Ino,
        known: &mut HashSet<Ino>,
    ) -> Result<(), ApplyError> {
        let Some(inode) = self.find_inode(receiving.ino(object.0))? else { return Ok(()) };
        if inode.xattr_names > XATTR_LIST_MAX {
            return invalid(format!("inode {} has too many attributes", object.0));
        }
        if inode.kind == FileKind::Symlink {
            self.verify_target(&inode)?;
        }
        if !inode.is_dir() {
            return match inode.nlink {
                0 => invalid(format!("inode {} has no name", object.0)),
                _ => Ok(()),
            };
        }
        if object.0 == receiving.root {
            return Ok(());
        }
        if inode.cookie == 0 || self.name_in_parent(&inode)?.is_none() {
            return invalid(format!("directory {} has no name", object.0));
        }
        match self.is_below(inode.ino, receiving.ino(receiving.root), known)? {
            true => Ok(()),
            false => invalid(format!("directory {} is not below the root", object.0)),
        }
    }

    /// Whether the way up from a directory ends at the root, or at one from which it does.
    fn is_below(&self, dir: Ino, root: Ino, known: &mut HashSet<Ino>) -> FsResult<bool> {
        let mut way = Vec::new();
        let (mut at, mut steps) = (dir, 0_u64);
        // Brent: a loop meets the mark, which moves ever more rarely.
        let (mut mark, mut next_mark) = (dir, 1);
        while at != root && !known.contains(&at) {
            if way.len() < KNOWN {
                way.push(at);
            }
            at = match self.find_inode(at)? {
                Some(inode) if inode.is_dir() => inode.parent,
                _ => return Ok(false),
            };
            if at == mark {
                return Ok(false);
            }
            steps += 1;
            if steps == next_mark {
                (mark, next_mark) = (at, next_mark * 2);
            }
        }
        if known.len() + way.len() > KNOWN {
            known.clear();
        }
        known.extend(way);
        Ok(true)
    }

    fn verify_target(&self, inode: &Inode) -> Result<(), ApplyError> {
        match self.readlink(inode.ino) {
            Ok(target) if target.len() as u64 == inode.size => Ok(()),
            Ok(_) | Err(FsError::Io { .. }) => {
                invalid(format!("symbolic link {} has no target", inode.ino.object()))
            }
            Err(error) => Err(error.into()),
        }
    }
}
