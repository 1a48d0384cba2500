//! Comparing what was received with what was sent, before it shows: a difference leaves nothing of it.
//!
//! Whatever lies in hot is read. Content that went to the cold tier in the meantime is not fetched for
//! this: the snapshot then keeps the sender's root, and is compared with it when it gets its digest,
//! as it is whenever somebody verifies it.

use std::ops::Range;

use blake3::Hash;
use bytes::Bytes;
use firn_tiering::BlockRef;

use super::super::Volume;
use crate::error::FsResult;
use crate::file::{Files, chain};
use crate::namespace::{ContentSource, ReceivedContent, ReceivedSum, Receiving, Snapshot};
use crate::stream::{Agreement, Progress, ReceiveError, ReceiveWatch};

/// The content of files that were received, as far as it lies in hot.
struct AtHand<'a> {
    files: &'a Files,
    progress: &'a Progress,
    watch: &'a mut dyn ReceiveWatch,
    is_stopped: bool,
}

impl ContentSource for AtHand<'_> {
    fn bytes(&mut self, block: &BlockRef, range: Range<u32>) -> FsResult<Option<Bytes>> {
        Ok(self.files.bytes_at_hand(block, range))
    }

    fn goes_on(&mut self) -> bool {
        self.is_stopped |= !self.watch.progress(self.progress);
        !self.is_stopped
    }
}

impl Volume {
    /// Fails when what was received is not what was sent.
    pub(super) fn compare_received(
        &self,
        receiving: &Receiving,
        sent_root: Option<Hash>,
        progress: &Progress,
        watch: &mut dyn ReceiveWatch,
    ) -> Result<(ReceivedContent, Agreement), ReceiveError> {
        let Some(sent) = sent_root else {
            return Ok((ReceivedContent::default(), Agreement::NotSaid));
        };
        let mut at_hand = AtHand { files: &self.files, progress, watch, is_stopped: false };
        match self.names.sum_received(receiving, &mut at_hand)? {
            _ if at_hand.is_stopped => Err(ReceiveError::Stopped),
            ReceivedSum::Stopped => Err(ReceiveError::Stopped),
            ReceivedSum::Lacks(files) => {
                Ok((ReceivedContent { sent_root, lanes: None }, Agreement::Lacks(files)))
            }
            ReceivedSum::Whole(lanes) => {
                let here = self.names.received_root(receiving, &lanes);
                if here != sent {
                    return Err(ReceiveError::ContentDiffers { here, sent });
                }
                let content = ReceivedContent { sent_root, lanes: Some(lanes) };
                Ok((content, Agreement::Equal))
            }
        }
    }

    /// Gives a snapshot that was compared its digest. The next round tries again where that fails.
    pub(super) fn seal_received(&self, snapshot: &Snapshot) {
        if let Err(error) = self.names.seal(snapshot.node) {
            let snapshot = &snapshot.name;
            tracing::warn!(snapshot, error = chain(&error), "digest of a received snapshot");
        }
    }
}
