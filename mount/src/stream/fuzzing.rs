//! Streams of snapshots for fuzzers.

use std::str::FromStr;

use firn_tiering::{BlockDigest, BlockId, BlockRef};

use super::chain::{BODY_MAX, ChainReader, ChainWriter};
use super::header::{Header, WINDOW_MAX};
use super::order::Order;
use super::token::ResumeToken;
use super::{begin, format};
use crate::namespace::{OBJECTS_END, Position, SLOT_LEN, Step};

/// Blocks that count as sent: number `n` is this one with id `n`.
const BLOCK_LEN: u32 = 1 << 20;
const BLOCKS: u64 = 8;

/// A stream as it is, and one that is put together of these bytes: flags (2), length of the header's
/// body (2), the body; then records of type (1), length (2), body.
pub fn stream(data: &[u8]) {
    read(data);
    if let Some(wrapped) = wrap(data) {
        read(&wrapped);
    }
    if let Ok(token) = std::str::from_utf8(data).unwrap_or_default().parse::<ResumeToken>() {
        assert_eq!(ResumeToken::from_str(&token.to_string()), Ok(token));
    }
}

/// The stream with lengths and checks that are right.
fn wrap(data: &[u8]) -> Option<Vec<u8>> {
    let (head, rest) = data.split_first_chunk::<4>()?;
    let (flags, len) = (u16::from_le_bytes([head[0], head[1]]), [head[2], head[3]]);
    let (body, mut rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(len)))?;
    let mut out = Vec::new();
    let mut chain = ChainWriter::begin(&mut out, flags, body).expect("memory takes all");
    while let Some(([kind, low, high], more)) = rest.split_first_chunk() {
        let (body, more) = more.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
        chain.record(*kind, [body, &[]]).expect("memory takes all");
        rest = more;
    }
    chain.flush().expect("memory takes all");
    drop(chain);
    Some(out)
}

fn read(mut data: &[u8]) {
    let mut input: &mut dyn std::io::Read = &mut data;
    let Ok((mut chain, header)) = begin(&mut input) else { return };
    check_header(&header);
    let mut order = Order::new(header.resumed.unwrap_or(Position::START), header.objects_end);
    while let Ok(record) = chain.record() {
        assert!(record.body.len() <= BODY_MAX);
        match record.kind {
            format::BLOCK => drop(format::split_block(&record.body)),
            format::END => end(&record.body, header.ends_with_root),
            kind => step(kind, &record.body, &mut order),
        }
    }
    at_the_end(&mut chain);
}

fn end(body: &[u8], may_have_root: bool) {
    let Ok((records, root)) = format::read_end(body, may_have_root) else { return };
    assert!(may_have_root || root.is_none());
    let again = format::read_end(&format::end(records, root), may_have_root);
    assert_eq!(again.expect("what was written is read"), (records, root));
}

fn at_the_end(chain: &mut ChainReader<'_>) {
    let read = chain.read();
    let _ = chain.end();
    assert!(chain.read() >= read);
}

fn check_header(header: &Header) {
    assert!((1..=WINDOW_MAX).contains(&header.window));
    assert!(header.objects_end <= OBJECTS_END && header.root < header.objects_end);
    let (flags, body) = header.encode();
    assert_eq!(Header::decode(flags, &body).expect("what was written is read"), *header);
}

fn find(number: u64) -> Option<BlockRef> {
    let digest = BlockDigest([0; 16]);
    (number < BLOCKS).then(|| BlockRef { id: BlockId::from_raw(number), digest, len: BLOCK_LEN })
}

fn step(kind: u8, body: &[u8], order: &mut Order) {
    let Ok(Some(step)) = format::decode(kind, body, &mut find) else { return };
    if let Step::Slot { ranges, .. } = &step {
        assert!(ranges.iter().all(|range| range.len > 0 && range.start + range.len <= SLOT_LEN));
    }
    let _ = order.next(&step);
    let (kind, stored) = format::encode(&step, &|block| block.id.raw());
    let again = format::decode(kind, &stored, &mut find).expect("what was written is read");
    assert_eq!(again, Some(step));
}
