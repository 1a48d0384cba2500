//! What was received as one sum, as that of a snapshot, before anything shows it: so that it can be
//! compared with what the sender had.
//!
//! It is that of the base, less what went and more what came; without one, or where that is not what
//! was sealed, everything is added up. A file whose content has no digest yet is read for it, and keeps
//! the digest. *Crash*: nothing of a sum is stored before the end of the receive is, in whose batch it
//! goes, so that the snapshot has its digest at once.

use super::Receiving;
use crate::error::FsResult;
use crate::namespace::Namespace;
use crate::namespace::digests::{ContentSource, MOST_HOLES};
use crate::namespace::pair::Pair;
use crate::namespace::record::{Inode, Lanes};
use crate::namespace::seals::{Changes, items};
use crate::namespace::tree::TreeResult;
use crate::namespace::tree::chain::root_of;
use crate::types::Ino;

/// Records that are added up before the source is asked whether to go on, about.
const PAGE: usize = 4096;

/// What adding up came to.
#[derive(Debug)]
pub(crate) enum ReceivedSum {
    /// Everything is in it.
    Whole(Lanes),
    /// The content of so many files is not at hand.
    Lacks(u64),
    /// The source ended it.
    Stopped,
}

impl Namespace {
    /// Adds up what was received, which nobody else changes.
    pub(crate) fn sum_received(
        &self,
        receiving: &Receiving,
        source: &mut dyn ContentSource,
    ) -> TreeResult<ReceivedSum> {
        let base = receiving.record.base.zip(receiving.base);
        let base = base.and_then(|(base, view)| {
            let seal = self.seal_of(base.at.node)?;
            Some((view, base.at.node, seal))
        });
        if let Some((older, node, seal)) = base
            && let Some(lanes) = self.sealed_lanes(&older, node, seal)?
        {
            let pair = Pair { older: Some(older), newer: receiving.view };
            if let Some(sum) = self.sum_by(receiving, Changes::new(lanes), Some(&pair), source)? {
                return Ok(sum);
            }
        }
        let sum = self.sum_by(receiving, Changes::default(), None, source)?;
        Ok(sum.unwrap_or(ReceivedSum::Stopped))
    }

    /// What stands for all that a sum of what was received was made from.
    pub(crate) fn received_root(&self, receiving: &Receiving, lanes: &Lanes) -> blake3::Hash {
        root_of(receiving.view.root, lanes)
    }

    /// Adds up what is different in a pair, or everything; `None` when the older of them is not what
    /// was added up for it.
    fn sum_by(
        &self,
        receiving: &Receiving,
        mut changes: Changes,
        pair: Option<&Pair>,
        source: &mut dyn ContentSource,
    ) -> TreeResult<Option<ReceivedSum>> {
        let (mut from, mut lacking) = (Some(0), 0);
        while let Some(first) = from {
            let view = &receiving.view;
            let goes_on = &mut || source.goes_on();
            let walked = match pair {
                Some(pair) => self.walk_changes(pair, first, PAGE, goes_on, &mut changes)?,
                None => self.walk_all(view, first, PAGE, goes_on, &mut changes)?,
            };
            if walked.is_stopped {
                return Ok(Some(ReceivedSum::Stopped));
            }
            if changes.is_without_base {
                return Ok(None);
            }
            for object in std::mem::take(&mut changes.awaited) {
                match self.item_of_received(receiving, Ino(object), source)? {
                    Some(item) => changes.lanes.add(&item),
                    None => lacking += 1,
                }
                if !source.goes_on() {
                    return Ok(Some(ReceivedSum::Stopped));
                }
            }
            from = walked.next;
        }
        Ok(Some(match lacking {
            0 => ReceivedSum::Whole(changes.lanes),
            lacking => ReceivedSum::Lacks(lacking),
        }))
    }

    /// The item of a file without a digest, which it gets; `None` when its content is not at hand, or
    /// is mostly holes.
    fn item_of_received(
        &self,
        receiving: &Receiving,
        object: Ino,
        source: &mut dyn ContentSource,
    ) -> FsResult<Option<Vec<u8>>> {
        let Some(inode) = self.stored_in(&receiving.view, object)? else { return Ok(None) };
        if inode.size.saturating_sub(inode.allocated) > MOST_HOLES {
            return Ok(None);
        }
        let ino = receiving.view.lift(object);
        let lifted = Inode { ino, ..inode.clone() };
        let Some(digest) = self.digest_content(&lifted, source)? else { return Ok(None) };
        let guard = self.lock(&[ino]);
        self.store_digest(&receiving.view, &inode, digest)?;
        drop(guard);
        Ok(items::inode(&Inode { digest: Some(digest), ..inode }, None))
    }
}
