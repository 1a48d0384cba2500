//! Reading a stream: records are checked, blocks are appended as they come and kept in hand, and
//! steps are applied in batches, each after its blocks are durable.
//!
//! *Memory*: the remembered blocks' references, and one batch of bounded size. *Failure*: nothing of
//! the batch in hand is applied; what was applied before is the caller's to keep or to undo. Blocks
//! that nothing refers to in the end are freed when they leave the hand.

use std::io::Read;
use std::sync::Arc;

use blake3::Hash;
use firn_tiering::Error as TieringError;

use super::chain::{ChainReader, Record};
use super::header::Header;
use super::order::Order;
use super::window::ReceivedBlocks;
use super::{Progress, ReceiveError, ReceiveWatch, format};
use crate::error::{FsError, FsResult};
use crate::file::Files;
use crate::file::pins::StoredBlock;
use crate::namespace::{ApplyError, Namespace, Position, Receiving, RecordError, SlotRange, Step};

/// Steps in one batch.
const BATCH_STEPS: usize = 512;
/// Bytes of records in one batch, and of what they become in memory.
const BATCH_BYTES: usize = 4 << 20;
/// Stored bytes of blocks that came with one batch: what a crash costs a receive that goes on.
const BATCH_STORED: usize = 64 << 20;
/// References to blocks in one batch.
const BATCH_BLOCKS: usize = 16 << 10;

/// Reads one stream.
pub(crate) struct Receiver<'a> {
    names: &'a Namespace,
    files: &'a Files,
    chain: ChainReader<'a>,
    order: Order,
    blocks: ReceivedBlocks<Arc<StoredBlock>>,
    batch: Batch,
    admit: &'a Admit<'a>,
    records: u64,
    may_have_root: bool,
    /// What stood for all of the snapshot where it was sent, once the stream has ended.
    pub(crate) sent_root: Option<Hash>,
    /// How far it is.
    pub(crate) progress: Progress,
}

/// Fails when what was received so far is more than may be.
pub(crate) type Admit<'a> = dyn Fn(&Receiving) -> FsResult<()> + 'a;

/// Steps that are not applied yet.
#[derive(Default)]
struct Batch {
    steps: Vec<Step>,
    bytes: usize,
    stored: usize,
    held: Vec<Arc<StoredBlock>>,
    behind: Option<Position>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.steps.len() >= BATCH_STEPS
            || self.bytes >= BATCH_BYTES
            || self.stored >= BATCH_STORED
            || self.held.len() >= BATCH_BLOCKS
    }
}

/// Reads what a stream says of itself.
pub(crate) fn begin(input: &mut dyn Read) -> Result<(ChainReader<'_>, Header), ReceiveError> {
    let (chain, flags, body) = ChainReader::begin(input)?;
    Ok((chain, Header::decode(flags, &body)?))
}

impl<'a> Receiver<'a> {
    /// Goes on behind the header.
    pub(crate) fn new(
        names: &'a Namespace,
        files: &'a Files,
        (chain, header): (ChainReader<'a>, &Header),
        admit: &'a Admit<'a>,
    ) -> Self {
        let estimated_bytes = Some(header.estimated_bytes).filter(|bytes| *bytes > 0);
        let position = header.resumed.unwrap_or(Position::START);
        Self {
            names,
            files,
            order: Order::new(position, header.objects_end),
            blocks: ReceivedBlocks::new(header.window),
            batch: Batch::default(),
            admit,
            records: 0,
            may_have_root: header.ends_with_root,
            sent_root: None,
            progress: Progress { bytes: chain.read(), estimated_bytes, ..Progress::default() },
            chain,
        }
    }

    /// Applies everything up to the end.
    pub(crate) fn receive(
        &mut self,
        receiving: &mut Receiving,
        watch: &mut dyn ReceiveWatch,
    ) -> Result<(), ReceiveError> {
        loop {
            let record = self.chain.record()?;
            self.progress.bytes = self.chain.read();
            match record.kind {
                format::BLOCK => self.block(&record)?,
                format::END => {
                    let read = format::read_end(&record.body, self.may_have_root);
                    let (records, root) = read.map_err(senseless(record.at))?;
                    self.sent_root = root;
                    if records != self.records {
                        return Err(invalid(record.at, "records are missing"));
                    }
                    self.flush(receiving, record.at)?;
                    return self.chain.end();
                }
                _ => self.step(&record)?,
            }
            self.records += 1;
            if self.batch.is_full() {
                self.flush(receiving, record.at)?;
            }
            if !watch.progress(&self.progress) {
                // What came so far need not come again.
                self.flush(receiving, record.at)?;
                return Err(ReceiveError::Stopped);
            }
        }
    }

    /// Applies what a cut stream has brought.
    pub(crate) fn keep(&mut self, receiving: &mut Receiving) -> Result<(), ReceiveError> {
        let at = self.chain.read();
        self.flush(receiving, at)
    }

    fn block(&mut self, record: &Record) -> Result<(), ReceiveError> {
        let (digest, len, stored) =
            format::split_block(&record.body).map_err(senseless(record.at))?;
        let held = self.files.import(stored).map_err(|error| match error {
            TieringError::Damaged { .. } => {
                let reason = format!("a block: {error}");
                ReceiveError::Invalid { at: record.at, reason }
            }
            TieringError::TooNew { what, found, known } => {
                ReceiveError::TooNew { what, found, known }
            }
            other => ReceiveError::from(FsError::from(other)),
        })?;
        if (held.block.digest, held.block.len) != (digest, len) {
            return Err(invalid(record.at, "a block is another one"));
        }
        self.batch.stored += stored.len();
        self.progress.block_bytes += stored.len() as u64;
        self.progress.plain_bytes += u64::from(len);
        self.blocks.push(held);
        Ok(())
    }

    fn step(&mut self, record: &Record) -> Result<(), ReceiveError> {
        let (blocks, held) = (&self.blocks, &mut self.batch.held);
        let mut find = |number| {
            let block = blocks.get(number)?;
            held.push(Arc::clone(block));
            Some(block.block)
        };
        let step = format::decode(record.kind, &record.body, &mut find);
        let Some(step) = step.map_err(senseless(record.at))? else {
            let (found, known) = (u32::from(record.kind), u32::from(format::KNOWN));
            return Err(ReceiveError::TooNew { what: "record type", found, known });
        };
        let behind = self.order.next(&step).map_err(|reason| invalid(record.at, reason))?;
        self.batch.behind = Some(behind);
        self.batch.bytes += record.body.len();
        if let Step::Slot { ranges, .. } = &step {
            self.batch.bytes += ranges.len() * size_of::<SlotRange>();
        }
        self.batch.steps.push(step);
        Ok(())
    }

    fn flush(&mut self, receiving: &mut Receiving, at: u64) -> Result<(), ReceiveError> {
        let batch = std::mem::take(&mut self.batch);
        let Some(behind) = batch.behind else { return Ok(()) };
        self.files.ensure_durable(&batch.held)?;
        let mut unreferenced = Vec::new();
        let applied = self.names.apply(receiving, &batch.steps, behind, &mut unreferenced);
        self.files.report_unreferenced(unreferenced);
        applied.map_err(|error| apply_error(error, at))?;
        Ok((self.admit)(receiving)?)
    }
}

/// What was wrong with steps that came before `at`.
pub(crate) fn apply_error(error: ApplyError, at: u64) -> ReceiveError {
    match error {
        ApplyError::Invalid(reason) => ReceiveError::Invalid { at, reason },
        ApplyError::Fs(error) => error.into(),
    }
}

fn invalid(at: u64, reason: &str) -> ReceiveError {
    ReceiveError::Invalid { at, reason: reason.to_owned() }
}

fn senseless(at: u64) -> impl Fn(RecordError) -> ReceiveError {
    move |error| invalid(at, error.reason)
}
