//! Whether every digest that is stored for a whole file, now or in a snapshot, is that of its
//! content: what blocks say of themselves does not tell that they are the right ones.

use std::ops::Range;

use anyhow::Context;
use bytes::Bytes;
use firn_mount::FsResult;
use firn_mount::namespace::{ContentSource, Inode};
use firn_tiering::{BlockRef, BlockStore, Blocks, Clock, Error, Wait};

use super::{Checker, Damage, MAX_DAMAGE, REBUILD_DEADLINE};
use crate::control::protocol::Progress;
use crate::report::progress::Follower;

/// Reads for a check, and shows how far it is.
struct Content<'a> {
    store: &'a BlockStore,
    follower: &'a mut Follower,
    wait: Wait,
    done_bytes: u64,
    total_bytes: u64,
}

impl ContentSource for Content<'_> {
    fn bytes(&mut self, block: &BlockRef, range: Range<u32>) -> FsResult<Option<Bytes>> {
        match self.store.read(block, range, self.wait) {
            Ok(bytes) => {
                self.done_bytes += bytes.len() as u64;
                Ok(Some(bytes))
            }
            // That is told where blocks are looked for.
            Err(Error::Lost { .. } | Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn goes_on(&mut self) -> bool {
        self.follower.show_quietly(&Progress {
            doing: "comparing files with their digests".to_owned(),
            done_bytes: self.done_bytes,
            total_bytes: self.total_bytes.max(self.done_bytes),
        });
        true
    }
}

impl Checker<'_> {
    pub(super) fn digests(&mut self, clock: &dyn Clock) -> anyhow::Result<()> {
        let (namespace, store) = (self.namespace, self.store);
        let mut total_bytes = 0;
        let mut add = |inode: &Inode| {
            total_bytes += inode.allocated.min(inode.size);
            Ok(())
        };
        namespace.for_each_digest(&mut add).context("reading inodes")?;
        let (mut wrong, mut more) = (Vec::new(), 0);
        let wait = Wait::Until(clock.instant() + REBUILD_DEADLINE);
        let follower = &mut self.follower;
        let mut content = Content { store, follower, wait, done_bytes: 0, total_bytes };
        let mut compared = 0;
        let mut compare = |inode: &Inode| {
            let found = namespace.digest_content(inode, &mut content)?;
            compared += u64::from(found.is_some());
            if let (Some(found), Some(stored)) = (found, inode.digest)
                && found != stored
            {
                match wrong.len() < MAX_DAMAGE {
                    true => wrong.push((inode.ino, stored, found)),
                    false => more += 1,
                }
            }
            Ok(())
        };
        namespace.for_each_digest(&mut compare).context("comparing files with their digests")?;
        self.report.digests = compared;
        self.report.found += more;
        for (ino, stored, found) in wrong {
            let paths = vec![self.path(ino)];
            self.note(Damage {
                part: "file".to_owned(),
                place: format!("inode {}", ino.0),
                what: format!("its BLAKE3 was {stored}, and that of its content is {found}"),
                paths,
                repairable: false,
            });
        }
        Ok(())
    }
}
