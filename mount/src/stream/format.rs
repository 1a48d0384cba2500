//! The bodies of records.

use blake3::Hash;
use bytes::Bytes;
use firn_tiering::{BlockDigest, BlockRef};

use crate::namespace::{
    Content, Inode, Node, Reader, RecordError, SLOT_LEN, SLOT_RANGES_MAX, SlotRange, Step, Version,
    kind_of_byte, mode_of_kind, put_varint,
};
use crate::types::FileKind;

/// A block, as stored.
pub(super) const BLOCK: u8 = 1;
const OBJECT: u8 = 2;
const TARGET: u8 = 3;
const XATTR: u8 = 4;
const SLOT: u8 = 5;
const UNLINK: u8 = 6;
const LINK: u8 = 7;
const REMOVE: u8 = 8;
/// The end.
pub(super) const END: u8 = 9;
/// The largest kind of record that this program knows.
pub(super) const KNOWN: u8 = END;

// Contents of a range.
const IN_BLOCK: u64 = 0;
const INLINE: u64 = 1;
const UNWRITTEN: u64 = 2;
const KEPT: u64 = 3;
const TAG_BITS: u32 = 2;

const ATTRIBUTE_SET: u8 = 1;

/// The record of a step. `number` says which of the blocks sent so far a block is.
pub(super) fn encode(step: &Step, number: &dyn Fn(&BlockRef) -> u64) -> (u8, Vec<u8>) {
    let mut out = Vec::with_capacity(96);
    let kind = match step {
        Step::Object(inode) => {
            put_varint(&mut out, inode.ino.0);
            out.extend_from_slice(&inode.encode());
            OBJECT
        }
        Step::Target { object, target } => {
            put_varint(&mut out, *object);
            out.extend_from_slice(target);
            TARGET
        }
        Step::Xattr { object, name, value } => {
            put_varint(&mut out, *object);
            out.push(if value.is_some() { ATTRIBUTE_SET } else { 0 });
            put_varint(&mut out, name.len() as u64);
            out.extend_from_slice(name);
            out.extend_from_slice(value.as_ref().map_or(&[][..], |value| value));
            XATTR
        }
        Step::Slot { object, slot, ranges } => {
            put_varint(&mut out, *object);
            put_varint(&mut out, *slot);
            put_ranges(&mut out, ranges, number);
            SLOT
        }
        Step::Unlink { dir, name, child } => {
            put_varint(&mut out, *dir);
            put_varint(&mut out, *child);
            out.extend_from_slice(name);
            UNLINK
        }
        Step::Link { dir, name, child, kind, is_home } => {
            put_varint(&mut out, *dir);
            put_varint(&mut out, *child);
            out.push((mode_of_kind(*kind) >> 12) as u8);
            out.push(u8::from(*is_home));
            out.extend_from_slice(name);
            LINK
        }
        Step::Remove { object } => {
            put_varint(&mut out, *object);
            REMOVE
        }
    };
    (kind, out)
}

fn put_ranges(out: &mut Vec<u8>, ranges: &[SlotRange], number: &dyn Fn(&BlockRef) -> u64) {
    let mut at = 0;
    for range in ranges {
        put_varint(out, u64::from(range.start - at));
        at = range.start + range.len;
        let tag = match &range.content {
            None => KEPT,
            Some(Content::Block { .. }) => IN_BLOCK,
            Some(Content::Inline(_)) => INLINE,
            Some(Content::Unwritten) => UNWRITTEN,
        };
        put_varint(out, u64::from(range.len) << TAG_BITS | tag);
        match &range.content {
            Some(Content::Block { block, offset }) => {
                put_varint(out, number(block));
                put_varint(out, u64::from(*offset));
            }
            Some(Content::Inline(bytes)) => out.extend_from_slice(bytes),
            Some(Content::Unwritten) | None => {}
        }
    }
}

/// Finds a block by its number, if it is remembered.
pub(super) type Find<'a> = dyn FnMut(u64) -> Option<BlockRef> + 'a;

/// Reads the record of a step; `None` for a kind that this program does not know.
pub(super) fn decode(
    kind: u8,
    body: &[u8],
    find: &mut Find<'_>,
) -> Result<Option<Step>, RecordError> {
    let mut reader = Reader::new("record", body);
    let rest = |reader: &mut Reader<'_>| Bytes::copy_from_slice(reader.rest());
    let step = match kind {
        OBJECT => read_object(&mut reader)?,
        TARGET => Step::Target { object: reader.object()?.0, target: rest(&mut reader) },
        XATTR => {
            let object = reader.object()?.0;
            let is_set = flag(&mut reader)?;
            let len = reader.varint()? as usize;
            let name = Bytes::copy_from_slice(reader.bytes(len)?);
            let value = is_set.then(|| rest(&mut reader));
            Step::Xattr { object, name, value }
        }
        SLOT => {
            let (object, slot) = (reader.object()?.0, reader.varint()?);
            Step::Slot { object, slot, ranges: read_ranges(&mut reader, find)? }
        }
        UNLINK => {
            let (dir, child) = (reader.object()?.0, reader.object()?.0);
            Step::Unlink { dir, name: rest(&mut reader), child }
        }
        LINK => {
            let (dir, child) = (reader.object()?.0, reader.object()?.0);
            let kind = file_kind(&mut reader)?;
            let is_home = flag(&mut reader)?;
            Step::Link { dir, name: rest(&mut reader), child, kind, is_home }
        }
        REMOVE => Step::Remove { object: reader.object()?.0 },
        _ => return Ok(None),
    };
    reader.end()?;
    Ok(Some(step))
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, RecordError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.error("unknown flag")),
    }
}

fn file_kind(reader: &mut Reader<'_>) -> Result<FileKind, RecordError> {
    kind_of_byte(reader.u8()?).ok_or_else(|| reader.error("unknown file type"))
}

fn read_object(reader: &mut Reader<'_>) -> Result<Step, RecordError> {
    let object = reader.object()?;
    let (version, record) = Version::split(reader.rest())?;
    let inode = Inode::decode(object, version, record)?;
    if version != Version::first(Node(0)) || !Step::is_bare(&inode) {
        return Err(reader.error("an inode that counts itself"));
    }
    Ok(Step::Object(inode))
}

fn read_ranges(
    reader: &mut Reader<'_>,
    find: &mut Find<'_>,
) -> Result<Vec<SlotRange>, RecordError> {
    let mut ranges = Vec::new();
    let mut at = 0_u32;
    while !reader.is_empty() {
        let start = at.checked_add(reader.varint32()?);
        let head = reader.varint32()?;
        let len = head >> TAG_BITS;
        let end = start.and_then(|start| start.checked_add(len));
        let (Some(start), Some(end)) = (start, end.filter(|end| len > 0 && *end <= SLOT_LEN))
        else {
            return Err(reader.error("range exceeds its slot"));
        };
        at = end;
        let content = match u64::from(head) & ((1 << TAG_BITS) - 1) {
            IN_BLOCK => {
                let block = find(reader.varint()?);
                let block = block.ok_or_else(|| reader.error("a block that was not sent"))?;
                Some(Content::Block { block, offset: reader.varint32()? })
            }
            INLINE => Some(Content::Inline(Bytes::copy_from_slice(reader.bytes(len as usize)?))),
            UNWRITTEN => Some(Content::Unwritten),
            _ => None,
        };
        if ranges.len() == SLOT_RANGES_MAX {
            return Err(reader.error("too many ranges"));
        }
        ranges.push(SlotRange { start, len, content });
    }
    Ok(ranges)
}

/// The head of a block's record; what is stored follows.
pub(super) fn block_head(block: &BlockRef) -> Vec<u8> {
    let mut out = block.digest.0.to_vec();
    put_varint(&mut out, u64::from(block.len));
    out
}

/// Takes a block's record apart: digest, plaintext length, and what is stored.
pub(super) fn split_block(body: &[u8]) -> Result<(BlockDigest, u32, &[u8]), RecordError> {
    let mut reader = Reader::new("record", body);
    let mut digest = [0; 16];
    digest.copy_from_slice(reader.bytes(16)?);
    let len = reader.varint32()?;
    Ok((BlockDigest(digest), len, reader.rest()))
}

/// The body of the last record: how many came before it, and what stands for all of the snapshot.
pub(super) fn end(records: u64, root: Option<Hash>) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, records);
    out.extend(root.iter().flat_map(Hash::as_bytes));
    out
}

/// Reads [`end`]; a root is there only where the header says that it may be.
pub(super) fn read_end(
    body: &[u8],
    may_have_root: bool,
) -> Result<(u64, Option<Hash>), RecordError> {
    let mut reader = Reader::new("record", body);
    let records = reader.varint()?;
    let root = match may_have_root && !reader.is_empty() {
        true => Some(Hash::from_bytes(reader.array()?)),
        false => None,
    };
    reader.end()?;
    Ok((records, root))
}
