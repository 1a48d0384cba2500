//! Bringing snapshots to their digests: what the namespace adds up page by page, and the content of
//! files that were not at rest when the snapshot was taken.
//!
//! A snapshot's file is read as soon as its snapshot asks for it, since it never changes; otherwise as
//! any other: only what lies hot, with rests. One that cannot be read now keeps its snapshot, and
//! those behind it, waiting until it can; what is damaged is tried again after some hours, or after the
//! next mount, and a verification says which file it is. *Crash*: goes on behind the last page.

use std::time::Duration;

use super::{Content, LONGEST_REST, Reader, Work, is_resident};
use crate::error::{FsError, FsResult};
use crate::file::chain;
use crate::namespace::{MOST_HOLES, Node, Sealing, TreeError, TreeResult};
use crate::types::Ino;

impl Work {
    /// Brings every snapshot nearer to its digest; returns how many steps that took.
    pub(super) fn seal_snapshots(&self) -> FsResult<usize> {
        let Reader { names, files, .. } = &self.reader;
        files.health.check()?;
        let mut done = 0;
        for node in names.unsealed()? {
            let now = self.reader.clock.instant();
            if !self.bell.rest(Duration::ZERO) || self.unsealable.lock().holds(node, now) {
                continue;
            }
            match self.seal_snapshot(node) {
                Ok(steps) => done += steps,
                Err(TreeError::Fs(error)) if self.is_refused() => return Err(error),
                Err(error) => {
                    // Whoever verifies it is told what is wrong with it.
                    tracing::warn!(node = node.0, error = chain(&error), "digest of a snapshot");
                    self.unsealable.lock().add(node, now);
                }
            }
        }
        Ok(done)
    }

    fn seal_snapshot(&self, node: Node) -> TreeResult<usize> {
        let Reader { names, files, .. } = &self.reader;
        let mut steps = 0;
        loop {
            files.health.check()?;
            let mut since = self.reader.clock.instant();
            let mut goes_on = || self.rest_since(&mut since);
            match names.sum_some(node, &mut goes_on)? {
                Sealing::More if goes_on() => steps += 1,
                Sealing::Summed => break,
                Sealing::More | Sealing::Done | Sealing::Behind | Sealing::Stopped => {
                    return Ok(steps);
                }
            }
        }
        let mut is_found = false;
        self.each_awaited(node, &mut |ino| {
            is_found |= self.give_shown(node, ino)?;
            Ok(())
        })?;
        if is_found {
            steps += self.each_awaited(node, &mut |_| Ok(()))?;
        }
        if self.bell.rest(Duration::ZERO) && names.seal(node)? == Sealing::Done {
            steps += 1;
            if names.is_as_sent(node) == Some(false) {
                tracing::error!(node = node.0, "a received snapshot is not what was sent");
            }
        }
        Ok(steps)
    }

    /// Passes the files for which a snapshot waits; returns how many joined it.
    fn each_awaited(
        &self,
        node: Node,
        visit: &mut dyn FnMut(Ino) -> FsResult<()>,
    ) -> TreeResult<usize> {
        let (mut from, mut settled) = (Some(Ino(0)), 0);
        while let Some(first) = from {
            let page = self.reader.names.settle_awaited(node, first)?;
            settled += page.settled;
            for ino in page.inodes {
                if !self.bell.rest(Duration::ZERO) {
                    return Ok(settled);
                }
                visit(ino)?;
            }
            from = page.next;
        }
        Ok(settled)
    }

    /// Finds the digest of a file that a snapshot shows; says whether it has one now.
    fn give_shown(&self, node: Node, ino: Ino) -> FsResult<bool> {
        self.reader.files.health.check()?;
        if self.is_given_up(ino) {
            return Ok(false);
        }
        match self.digest_shown(node, ino) {
            Ok(found) => Ok(found),
            Err(FsError::Stale) => Ok(false),
            Err(error) if self.is_refused() => Err(error),
            Err(error) => {
                self.give_up(ino, Some(&error));
                Ok(false)
            }
        }
    }

    fn digest_shown(&self, node: Node, ino: Ino) -> FsResult<bool> {
        let Reader { names, storage, clock, .. } = &self.reader;
        if let Some(digest) = names.digest_of_later(ino)? {
            return names.give_digest(node, ino, digest);
        }
        let inode = names.inode(ino)?;
        let is_sparse = inode.size.saturating_sub(inode.allocated) > MOST_HOLES;
        if is_sparse || !is_resident(names, &**storage, ino)? {
            return Ok(false);
        }
        let since = clock.instant();
        let mut content = Content { work: self, since, is_live: false, is_missing: false };
        let found = names.digest_content(&inode, &mut content)?;
        // What went to cold meanwhile is no damage.
        if found.is_none() && content.is_missing && is_resident(names, &**storage, ino)? {
            self.give_up(ino, None);
        }
        match found {
            Some(digest) => names.give_digest(node, ino, digest),
            None => Ok(false),
        }
    }

    /// Whether nothing can be changed any more.
    fn is_refused(&self) -> bool {
        self.reader.names.read_only().is_some() || self.reader.files.health.check().is_err()
    }

    /// Rests as long as the work since then took; `false` when it is to end.
    fn rest_since(&self, since: &mut std::time::Instant) -> bool {
        let took = self.reader.clock.instant() - *since;
        let goes_on = self.bell.rest(took.min(LONGEST_REST));
        *since = self.reader.clock.instant();
        goes_on && self.reader.files.health.check().is_ok()
    }
}
