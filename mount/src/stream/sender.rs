//! Writing a stream: steps of the namespace become records, and each block goes before the first
//! record that refers to it, as it is stored.

use std::collections::HashSet;
use std::io::Write;

use blake3::Hash;
use bytes::Bytes;
use firn_tiering::BlockRef;

use super::chain::ChainWriter;
use super::header::{From, Header, WINDOW_MAX};
use super::window::SentBlocks;
use super::{Progress, SendError, Sent, format};
use crate::error::{FsError, FsResult};
use crate::file::Files;
use crate::namespace::{
    Content, OBJECTS_END, Position, SLOT_RANGES_MAX, SendSource, SlotRange, Step,
};

/// Blocks that both ends remember. With the receiver's books some 20 MB.
const WINDOW: u64 = 1 << 16;

const _: () = assert!(WINDOW <= WINDOW_MAX);

/// Told how far a send is; it ends when this returns `false`.
pub(crate) type Watch<'a> = dyn FnMut(&Progress) -> bool + 'a;

/// Writes one stream.
pub(crate) struct Sender<'a> {
    files: &'a Files,
    source: &'a SendSource<'a>,
    resumed: Option<Position>,
    window: u64,
}

/// A stream that is being written.
struct Stream<'a> {
    files: &'a Files,
    chain: ChainWriter<'a>,
    sent: SentBlocks,
    records: u64,
    progress: Progress,
}

impl<'a> Sender<'a> {
    /// A stream of a snapshot, or its rest from a place on.
    pub(crate) fn new(
        files: &'a Files,
        source: &'a SendSource<'a>,
        resumed: Option<Position>,
    ) -> Self {
        Self { files, source, resumed, window: WINDOW }
    }

    /// Lets both ends remember fewer blocks, for tests.
    #[cfg(test)]
    pub(crate) fn with_window(self, window: u64) -> Self {
        Self { window, ..self }
    }

    /// Writes it. `root` is asked at the end for what stands for all of the snapshot.
    pub(crate) fn send(
        &self,
        root: &dyn Fn() -> Option<Hash>,
        out: &mut dyn Write,
        watch: &mut Watch<'_>,
    ) -> Result<Sent, SendError> {
        let header = self.header()?;
        let (flags, body) = header.encode();
        let chain = ChainWriter::begin(out, flags, &body).map_err(SendError::Write)?;
        let estimated_bytes = Some(header.estimated_bytes).filter(|bytes| *bytes > 0);
        let mut stream = Stream {
            files: self.files,
            chain,
            sent: SentBlocks::new(self.window),
            records: 0,
            progress: Progress { estimated_bytes, ..Progress::default() },
        };
        let mut failure = None;
        let from = self.resumed.unwrap_or(Position::START);
        self.source.walk(from, &mut |step| {
            let sent = stream.step(step);
            failure = match sent {
                Ok(()) if watch(&stream.progress) => None,
                Ok(()) => Some(SendError::Stopped),
                Err(error) => Some(error),
            };
            Ok(failure.is_none())
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let root = root();
        stream.end(root)?;
        Ok(Sent { guid: header.to, root, progress: stream.progress })
    }

    fn header(&self) -> Result<Header, SendError> {
        let snapshot = &self.source.snapshot;
        // Where larger numbers are in use, what is sent may still have none of them.
        let objects_end = self.source.objects_end().min(OBJECTS_END);
        if self.source.root() >= objects_end {
            return Err(SendError::NumbersTooLarge(OBJECTS_END));
        }
        let from = self.source.base.as_ref().map(|base| From {
            guid: base.guid,
            name: base.name.clone(),
            is_origin: base.dataset != snapshot.dataset,
            root: base.seal.map(|seal| seal.root),
        });
        let counted = snapshot.referenced.filter(|_| from.is_none() && self.resumed.is_none());
        Ok(Header {
            to: snapshot.guid,
            from,
            created: snapshot.created,
            name: snapshot.name.clone(),
            message: snapshot.message.clone(),
            root: self.source.root(),
            objects_end,
            window: self.window,
            estimated_bytes: counted.map_or(0, |counted| counted.bytes),
            resumed: self.resumed,
            ends_with_root: true,
        })
    }
}

impl Stream<'_> {
    fn step(&mut self, step: Step) -> Result<(), SendError> {
        if step.position().object >= OBJECTS_END {
            return Err(SendError::NumbersTooLarge(OBJECTS_END));
        }
        let Step::Slot { object, slot, mut ranges } = step else { return self.record(&step) };
        if ranges.len() > SLOT_RANGES_MAX {
            let read = |block: &BlockRef, of| self.files.read_block(block, of);
            ranges = as_bytes(&ranges, &read)?;
        }
        let blocks = self.bound(&mut ranges)?;
        // What is sent may push out what was there; then that comes again, once.
        while let Some(block) = blocks.iter().find(|block| self.sent.number(block.id).is_none()) {
            self.block(block)?;
        }
        self.record(&Step::Slot { object, slot, ranges })
    }

    /// The blocks of some ranges, each once; where these are more than both ends remember, the
    /// others' bytes travel by themselves.
    fn bound(&self, ranges: &mut [SlotRange]) -> FsResult<Vec<BlockRef>> {
        let mut blocks: Vec<BlockRef> = Vec::new();
        let mut known = HashSet::new();
        for range in ranges {
            let Some(Content::Block { block, offset }) = &range.content else { continue };
            if known.contains(&block.id) {
                continue;
            }
            if (known.len() as u64) < self.sent.window() {
                known.insert(block.id);
                blocks.push(*block);
                continue;
            }
            let bytes = self.files.read_block(block, *offset..*offset + range.len)?;
            range.content = Some(Content::Inline(bytes));
        }
        Ok(blocks)
    }

    fn record(&mut self, step: &Step) -> Result<(), SendError> {
        let sent = &self.sent;
        let (kind, body) = format::encode(step, &|block| sent.number(block.id).unwrap_or(u64::MAX));
        self.put(kind, [&body, &[]])
    }

    fn block(&mut self, block: &BlockRef) -> Result<(), SendError> {
        let stored = self.files.export(block)?;
        self.put(format::BLOCK, [&format::block_head(block), &stored])?;
        self.sent.push(block.id);
        self.progress.block_bytes += stored.len() as u64;
        self.progress.plain_bytes += u64::from(block.len);
        Ok(())
    }

    fn put(&mut self, kind: u8, body: [&[u8]; 2]) -> Result<(), SendError> {
        self.chain.record(kind, body).map_err(SendError::Write)?;
        self.records += 1;
        self.progress.bytes = self.chain.written();
        Ok(())
    }

    fn end(&mut self, root: Option<Hash>) -> Result<(), SendError> {
        let body = format::end(self.records, root);
        self.put(format::END, [&body, &[]])?;
        self.chain.flush().map_err(SendError::Write)
    }
}

/// Ranges as one that reads the same: holes among them become zeros.
fn as_bytes(
    ranges: &[SlotRange],
    read: &dyn Fn(&BlockRef, std::ops::Range<u32>) -> FsResult<Bytes>,
) -> FsResult<Vec<SlotRange>> {
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Ok(Vec::new()) };
    let len = last.start + last.len - first.start;
    let mut bytes = vec![0; len as usize];
    for range in ranges {
        let at = (range.start - first.start) as usize;
        let into = &mut bytes[at..at + range.len as usize];
        match &range.content {
            Some(Content::Block { block, offset }) => {
                into.copy_from_slice(&read(block, *offset..*offset + range.len)?);
            }
            Some(Content::Inline(inline)) => into.copy_from_slice(inline),
            Some(Content::Unwritten) => {}
            None => return Err(FsError::io("send", "bytes that only the base has")),
        }
    }
    let content = Some(Content::Inline(bytes.into()));
    Ok(vec![SlotRange { start: first.start, len, content }])
}

/// What a stream that nobody honest sends is made from.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(crate) struct Forged<'a> {
    pub(crate) to: super::Guid,
    pub(crate) from: Option<super::Guid>,
    pub(crate) root: u64,
    pub(crate) objects_end: u64,
    pub(crate) steps: &'a [Step],
    pub(crate) resumed: Option<Position>,
    /// Of the base; the stream is as an older program makes it where it and `sent_root` are `None`.
    pub(crate) base_root: Option<Hash>,
    pub(crate) sent_root: Option<Hash>,
}

/// A stream of any steps, with right checksums.
#[cfg(test)]
pub(crate) fn forge(forged: &Forged<'_>) -> Vec<u8> {
    let header = Header {
        to: forged.to,
        from: forged.from.map(|guid| From {
            guid,
            name: "base".into(),
            is_origin: false,
            root: forged.base_root,
        }),
        created: Default::default(),
        name: "forged".into(),
        message: String::new(),
        root: forged.root,
        objects_end: forged.objects_end,
        window: WINDOW,
        estimated_bytes: 0,
        resumed: forged.resumed,
        ends_with_root: forged.sent_root.is_some(),
    };
    let (flags, body) = header.encode();
    let mut out = Vec::new();
    let mut put = || -> std::io::Result<()> {
        let mut chain = ChainWriter::begin(&mut out, flags, &body)?;
        for step in forged.steps {
            let (kind, body) = format::encode(step, &|block| block.id.raw());
            chain.record(kind, [&body, &[]])?;
        }
        let end = format::end(forged.steps.len() as u64, forged.sent_root);
        chain.record(format::END, [&end, &[]])?;
        chain.flush()
    };
    put().unwrap_or_default();
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use firn_tiering::{BlockDigest, BlockId};

    use super::*;

    #[test]
    fn what_lies_in_too_many_pieces_travels_as_its_bytes() {
        let id = BlockId::from_raw(7);
        let block = BlockRef { id, digest: BlockDigest([7; 16]), len: 100 };
        let range = |start, len, content| SlotRange { start, len, content: Some(content) };
        let ranges = [
            range(10, 2, Content::Block { block, offset: 5 }),
            range(13, 1, Content::Unwritten),
            range(14, 1, Content::Inline(Bytes::from_static(b"i"))),
            range(17, 1, Content::Block { block, offset: 9 }),
        ];
        let read = |of: &BlockRef, range: std::ops::Range<u32>| {
            assert_eq!(of.id, id);
            Ok(range.map(|at| b'a' + at as u8).collect())
        };
        let one = as_bytes(&ranges, &read).unwrap();
        let content = Some(Content::Inline(Bytes::from_static(b"fg\0\0i\0\0j")));
        assert_eq!(one, [SlotRange { start: 10, len: 8, content }]);
        let kept = SlotRange { content: None, ..one[0].clone() };
        as_bytes(&[kept], &read).unwrap_err();
    }
}
