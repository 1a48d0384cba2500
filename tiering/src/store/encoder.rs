//! A thread that encodes one block after the other for `recode`, and holds no lock and no claim. In the
//! background it has the lowest priority, so that on a machine where all processors are busy it may stand
//! still for minutes: whoever wants the segment meanwhile does not wait for it. A block that is left
//! under way keeps its memory, and nothing else is begun before it is done. The thread ends with its last
//! block once nobody asks it any more. Nothing is stored here.

use std::fs::File;
use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use crate::budget::Permit;
use crate::error::{Error, Result};
use crate::segment::{Frame, IndexEntry, ReadAt, SegmentName};

use super::CLOCK_SLICE;
use super::idle::lower_priority;
use super::read::bounded_len;
use super::recode::{harder, verified};

/// A block of a segment's file.
pub(super) struct Block {
    pub(super) name: SegmentName,
    pub(super) file: Arc<File>,
    pub(super) entry: IndexEntry,
}

/// Who asks the thread.
pub(super) struct Encoder {
    blocks: Sender<Block>,
    frames: Receiver<Result<Frame>>,
    /// Memory of a block that nobody waits for any more.
    under_way: Option<Permit>,
}

impl Encoder {
    /// Starts the thread, in the background at the lowest priority.
    pub(super) fn start(is_background: bool) -> Result<Self> {
        let (blocks, asked) = bounded::<Block>(1);
        let (told, frames) = bounded(1);
        let encode = move || {
            if is_background {
                lower_priority();
            }
            for Block { name, file, entry } in asked {
                if told.send(read_frame(&name, &*file, &entry).and_then(harder)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("firn-encoder".to_owned());
        thread.spawn(encode).map_err(Error::io("start a thread that encodes"))?;
        Ok(Self { blocks, frames, under_way: None })
    }

    /// Whether the block that was left under way, if there is one, is done.
    pub(super) fn is_free(&mut self) -> bool {
        // One whose thread is gone says so to whoever asks it next.
        if self.under_way.is_some() && !matches!(self.frames.try_recv(), Err(TryRecvError::Empty)) {
            self.under_way = None;
        }
        self.under_way.is_none()
    }

    /// The block in its smallest form; `None` when `goes_on` says no before it is there, and then
    /// [`Encoder::leave`] must follow.
    pub(super) fn encode(&self, block: Block, goes_on: impl Fn() -> bool) -> Option<Result<Frame>> {
        let gone = || Error::Config("the thread that encodes is gone".to_owned());
        if self.blocks.send(block).is_err() {
            return Some(Err(gone()));
        }
        loop {
            match self.frames.recv_timeout(CLOCK_SLICE) {
                Ok(frame) => return Some(frame),
                Err(RecvTimeoutError::Timeout) if goes_on() => {}
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => return Some(Err(gone())),
            }
        }
    }

    /// Leaves a block under way, with the memory that it takes.
    pub(super) fn leave(&mut self, memory: Permit) {
        self.under_way = Some(memory);
    }

    /// One whose blocks and frames are a test's.
    #[cfg(test)]
    pub(super) fn by_hand(blocks: Sender<Block>, frames: Receiver<Result<Frame>>) -> Self {
        Self { blocks, frames, under_way: None }
    }
}

/// The verified frame of a block.
pub(super) fn read_frame<R: ReadAt + ?Sized>(
    name: &SegmentName,
    file: &R,
    entry: &IndexEntry,
) -> Result<Frame> {
    let range = entry.frame_range();
    let mut stored = vec![0; bounded_len(&range)?];
    file.read_exact_at(&mut stored, range.start)
        .map_err(Error::io(format!("read block {}", entry.id)))?;
    verified(name, &stored, entry)
}
