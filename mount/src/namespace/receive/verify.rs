//! The last look at what was received: everything has a name, directories form a tree.

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

impl Namespace {
    /// Fails unless what was received is a namespace.
    pub(crate) fn verify_received(&self, receiving: &Receiving) -> Result<(), ApplyError> {
        let Some(root) = self.find_inode(receiving.ino(receiving.root))? else {
            return invalid("there is no root directory");
        };
        if root.parent != root.ino || root.cookie != 0 || !root.is_dir() {
            return invalid("the root directory lies in another");
        }
        let mut outcome = Ok(());
        self.each_received(receiving, &mut |object| {
            outcome = self.verify_object(receiving, object);
            Ok(outcome.is_ok())
        })?;
        outcome?;
        let children = self.tree.read().children_of(receiving.dataset);
        for child in children {
            let place = self.tree.read().datasets.get(&child).and_then(|record| record.place);
            let Some(place) = place else { continue };
            let junction = self.find_inode(receiving.ino(place.junction))?;
            if !junction.is_some_and(|inode| inode.is_dir() && inode.size == 0) {
                return invalid("it takes away the directory of a dataset below");
            }
        }
        Ok(())
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

    fn verify_object(&self, receiving: &Receiving, object: Ino) -> Result<(), ApplyError> {
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
        match self.is_within(inode.ino, receiving.ino(receiving.root)) {
            Ok(true) => Ok(()),
            Ok(false) | Err(FsError::Stale | FsError::Io { .. }) => {
                invalid(format!("directory {} is not below the root", object.0))
            }
            Err(error) => Err(error.into()),
        }
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
