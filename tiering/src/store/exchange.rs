//! Blocks on their way to another store and from one: frames of a segment that is nobody's, so
//! that the bytes say what they are and not where they lay.
//!
//! *Consistency*: a frame is verified as a whole before it leaves, and again, decoded and all,
//! before it is appended here; what it is called is decided here.
//! *Crash*: as for `append`: an imported block that nothing refers to yet is a leak for the sweep.

use bytes::Bytes;

use crate::block::{BlockId, BlockRef, MAX_EXPORT_LEN};
use crate::blocks::Wait;
use crate::encode::{EncodeMemory, encode_block};
use crate::error::{Error, Result};
use crate::segment::{Frame, SegmentId, SegmentName, VolumeId, hash_block};

use super::Inner;
use super::append::charge_of;

/// The segment whose frames exported blocks are.
fn nowhere() -> SegmentName {
    SegmentName { volume: VolumeId([0; 16]), id: SegmentId::from_raw(0) }
}

/// What an exported block is called.
const NAMELESS: BlockId = BlockId::from_raw(0);

impl Inner {
    pub(super) fn export(&self, block: &BlockRef, wait: Wait) -> Result<Bytes> {
        let frame = match self.stored_frame(block) {
            Some(frame) => frame,
            None => {
                // Every copy there is, and what parity and cold know besides.
                let plain = self.read(block, 0..block.len, wait)?;
                let encoded = encode_block(&plain, &mut EncodeMemory::default(), self.effort());
                Frame::build(NAMELESS, &hash_block(&plain), &encoded)
            }
        };
        Ok(Bytes::copy_from_slice(frame.renamed(NAMELESS).stamp(&nowhere())))
    }

    /// The verified frame of a block, if one lies in hot undamaged.
    fn stored_frame(&self, block: &BlockRef) -> Option<Frame> {
        let (file, segment, entry) = match self.find_unsealed(block.id) {
            Some(found) => found,
            None => {
                let record = self.with_catalog(|catalog| catalog.lookup(block.id)).ok()??;
                let file = self.hot.open_sealed(record.segment).ok()?;
                (file, record.segment, record.entry)
            }
        };
        // Damage here is no error yet: a read tries the other copies and tells what was wrong.
        let frame = self.frame_of(&self.name(segment), &file, &entry).ok()?;
        let found = frame.entry().block_ref();
        (found.digest == block.digest && found.len == block.len).then_some(frame)
    }

    pub(super) fn import(&self, stored: &[u8], wait: Wait) -> Result<BlockRef> {
        if stored.len() > MAX_EXPORT_LEN {
            let reason = format!("{} bytes, more than a block has", stored.len());
            return Err(Error::Damaged { what: "exported block", reason });
        }
        self.check_writable()?;
        let frame = Frame::from_stored(&nowhere(), stored)?;
        if frame.len() != stored.len() as u64 {
            let reason = "bytes follow the frame".to_owned();
            return Err(Error::Damaged { what: "exported block", reason });
        }
        let charge = self.capacity.charge(self, charge_of(frame.len()), wait)?;
        let mut frame = frame.renamed(self.ids.block()?);
        self.append_charged(&mut frame, charge, wait)
    }
}
