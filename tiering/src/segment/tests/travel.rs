//! Blocks between volumes: every kind arrives, golden bytes, and nothing else is taken for one.

use proptest::prelude::*;

use super::*;
use crate::block::BlockRef;
use crate::encode::encode_block_as;
use crate::segment::frame::header_checksum;

/// The frame of a block and its bytes in a segment.
fn stored(plain: &[u8], encoded: &EncodedBlock) -> (IndexEntry, Vec<u8>) {
    let mut frame = Frame::build(BlockId::from_raw(42), &hash_block(plain), encoded);
    let bytes = frame.stamp(&NAME).to_vec();
    (frame.entry().clone(), bytes)
}

fn export(entry: &IndexEntry, frame: &[u8]) -> crate::Result<Vec<u8>> {
    let read = entry.whole();
    let at = read.stored();
    read.export(&entry.block_ref(), &frame[at.start as usize..at.end as usize]).map(Vec::from)
}

fn import(stored: &[u8]) -> crate::Result<Frame> {
    Frame::import(stored, || Ok(BlockId::from_raw(77)))
}

fn sample(len: usize) -> Vec<u8> {
    (0..len / 4).flat_map(|i| (i as u32 * 3 + 1000).to_be_bytes()).collect()
}

fn samples() -> Vec<(Vec<u8>, EncodedBlock)> {
    let delta = Filter::DeltaShuffle { width: 4, big_endian: true };
    let kinds = [
        (Codec::None, Filter::None, 0),
        (Codec::Lz4, Filter::None, 0),
        (Codec::Zstd, delta, 3),
        (Codec::Gzip, Filter::None, 6),
        (Codec::Bzip2, Filter::Shuffle { width: 8 }, 9),
    ];
    let lens = [4, 4000, CELL_LEN, CELL_LEN + 4, 5 * CELL_LEN, 1 << 20];
    let each = kinds.into_iter().flat_map(|kind| lens.map(|len| (kind, len)));
    each.map(|((codec, filter, level), len)| {
        let plain = sample(len);
        let encoded = encode_block_as(&plain, codec, filter, level);
        (plain, encoded)
    })
    .collect()
}

/// Blocks as they travel, small enough to be tried many times.
fn small_sent() -> &'static [Vec<u8>] {
    static SENT: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    SENT.get_or_init(|| {
        let small = samples().into_iter().filter(|(plain, _)| plain.len() <= CELL_LEN + 4);
        let sent = small.map(|(plain, encoded)| {
            let (entry, frame) = stored(&plain, &encoded);
            export(&entry, &frame).unwrap()
        });
        sent.collect()
    })
}

#[test]
fn a_block_of_every_kind_arrives_as_it_was_stored() {
    for (plain, encoded) in samples() {
        let (entry, frame) = stored(&plain, &encoded);
        let sent = export(&entry, &frame).unwrap();
        // The index of small blocks has no cell lengths.
        let short = IndexEntry { cell_lens: CellLens::NONE, ..entry.clone() };
        assert_eq!(export(&short, &frame).unwrap(), sent);
        let mut arrived = import(&sent).unwrap();
        assert_eq!(*arrived.entry(), IndexEntry { id: BlockId::from_raw(77), ..entry.clone() });
        assert_eq!(arrived.plain().unwrap().bytes(), &plain);
        let there = arrived.stamp(&NAME).to_vec();
        assert_eq!(there[usize::from(entry.header_len)..], frame[usize::from(entry.header_len)..]);
        assert_eq!(verify_frame(&NAME, 0, &there).unwrap().entry, *arrived.entry());
    }
}

#[test]
fn a_travelling_block_has_its_golden_bytes() {
    let (entry, frame) = stored(b"firn", &raw_block(b"firn"));
    let sent = export(&entry, &frame).unwrap();
    // By FORMAT.md, "Block in a stream": a frame of volume 0, segment 0 and id 0.
    let sum = blake3::keyed_hash(&[0; 32], &sent[24..112]);
    assert_eq!(&sent[0..8], b"\xf1Frame\r\n");
    assert_eq!(sent[8..24], sum.as_bytes()[..16]);
    assert_eq!(sent[24..32], [1, 7, 0, 0, 0, 0, 0, 0]);
    assert_eq!(sent[32..48], [0; 16]);
    assert_eq!(&sent[48..80], blake3::hash(b"firn").as_bytes());
    assert_eq!(sent[80..96], [4, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 1, 16, 16, 0, 0]);
    assert_eq!(sent[96..], frame[96..]);
    assert_eq!(sent.len(), 144);
}

#[test]
fn what_informs_travels_and_wrong_tags_are_written_anew() {
    let plain = sample(3 * CELL_LEN);
    let encoded = raw_block(&plain);
    let mut packed = Frame::build(BlockId::from_raw(42), &hash_block(&plain), &encoded);
    packed.mark_packed();
    let entry = packed.entry().clone();
    let mut bytes = packed.stamp(&NAME).to_vec();
    let good = export(&entry, &bytes).unwrap();
    assert_eq!(import(&good).unwrap().entry().flags, entry.flags);
    let tag = entry.header_len as usize + CELL_LEN;
    bytes[tag] ^= 1;
    assert_eq!(export(&entry, &bytes).unwrap(), good);
    bytes[tag - 1] ^= 1;
    assert!(export(&entry, &bytes).is_err(), "wrong bytes left");
}

#[test]
fn only_the_block_that_was_asked_for_leaves() {
    let (entry, frame) = stored(&sample(4000), &raw_block(&sample(4000)));
    let block = entry.block_ref();
    let cells = &frame[entry.payload_range().start as usize..entry.payload_range().end as usize];
    let read = entry.whole();
    assert!(read.export(&block, cells).is_ok());
    let others = [
        BlockRef { digest: crate::BlockDigest([9; 16]), ..block },
        BlockRef { id: BlockId::from_raw(43), ..block },
        BlockRef { len: 3999, ..block },
    ];
    for other in others {
        assert!(read.export(&other, cells).is_err(), "{other:?}");
    }
    assert!(read.export(&block, &cells[1..]).is_err());
    assert!(read.export(&block, &[cells, &[0]].concat()).is_err());
    let (two, frame) = stored(&sample(2 * CELL_LEN), &raw_block(&sample(2 * CELL_LEN)));
    let half = two.cell_range(0..10).unwrap();
    let at = half.stored();
    let part = &frame[at.start as usize..at.end as usize];
    assert!(half.export(&two.block_ref(), part).is_err(), "a part is not the block");
}

/// Sets bytes of a header and makes its checksum right again, as somebody hostile would.
fn forged(sent: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut forged = sent.to_vec();
    forged[at..at + bytes.len()].copy_from_slice(bytes);
    let len = (usize::from(forged[25]) * 16).min(forged.len());
    if len > 24 {
        let sum = header_checksum(&NOWHERE, &forged[..len]);
        forged[8..24].copy_from_slice(&sum);
    }
    forged
}

const NOWHERE: SegmentName = SegmentName { volume: VolumeId([0; 16]), id: SegmentId::from_raw(0) };

#[test]
fn a_forged_header_with_a_right_checksum_is_refused_field_by_field() {
    // Both cells shrink, so that codec and filter count.
    let plain: Vec<u8> = b"snow to ice ".iter().copied().cycle().take(CELL_LEN + 4000).collect();
    let (entry, frame) = stored(&plain, &encode_block_as(&plain, Codec::Lz4, Filter::None, 0));
    let sent = export(&entry, &frame).unwrap();
    assert!(import(&forged(&sent, 90, &[9])).is_ok(), "the level is for people");
    let fields: [(&str, usize, &[u8]); 17] = [
        ("magic", 0, b"\xf1Trail"),
        ("version", 24, &[2]),
        ("header length", 25, &[6]),
        ("header length beyond the end", 25, &[255]),
        ("must-know flag", 26, &[1]),
        ("segment", 32, &[1]),
        ("block id", 40, &[1]),
        ("digest, first half", 48, &[0; 4]),
        ("digest, second half", 64, &[0; 4]),
        ("plaintext length", 80, &[1, 0, 0, 0]),
        ("plaintext length beyond a block", 80, &[0xff; 4]),
        ("stored length", 84, &[0xff; 4]),
        ("codec", 88, &[2]),
        ("filter", 89, &[0x11]),
        ("cells", 91, &[16]),
        ("extension beyond the header", 94, &[0xff, 0xff]),
        ("cell lengths", 96, &[0, 0, 0, 0]),
    ];
    for (field, at, bytes) in fields {
        let taken = import(&forged(&sent, at, bytes));
        assert!(
            taken.is_err(),
            "{field} was believed: {:?}",
            taken.map(|frame| frame.entry().clone())
        );
    }
    assert!(matches!(import(&forged(&sent, 24, &[2])), Err(crate::Error::TooNew { .. })));
    let of_a_segment = import(&frame);
    assert!(of_a_segment.is_err(), "a frame of a segment does not travel");
    assert!(import(&[&sent[..], &[0; 16]].concat()).is_err(), "bytes behind it");
    for cut in [0, 1, 24, 95, 112, sent.len() - 16, sent.len() - 1] {
        assert!(import(&sent[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn an_extension_does_not_come_along() {
    let (entry, frame) = stored(b"firn", &raw_block(b"firn"));
    let sent = export(&entry, &frame).unwrap();
    // The cell table moves behind 32 bytes of something.
    let longer = [&sent[..96], &[0xee; 32], &sent[96..]].concat();
    let longer = forged(&forged(&longer, 25, &[9]), 94, &[32, 0]);
    let mut arrived = import(&longer).unwrap();
    assert_eq!(arrived.entry().header_len, 112);
    let bytes = arrived.stamp(&NAME).to_vec();
    assert!(!bytes.contains(&0xee));
    assert!(verify_frame(&NAME, 0, &bytes).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damage_anywhere_is_found(
        which in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
        honest in any::<bool>(),
    ) {
        let sent = which.get(small_sent());
        let mut wrong = sent.clone();
        for (at, flip) in &flips {
            wrong[at.index(sent.len())] ^= flip;
        }
        prop_assume!(wrong != *sent);
        if honest {
            prop_assert!(import(&wrong).is_err());
        } else {
            // With a right checksum, what is taken must still be the block it says it is.
            let forged = forged(&wrong, 24, &wrong[24..25]);
            if let Ok(arrived) = import(&forged) {
                let digest = arrived.entry().digest;
                let plain = arrived.plain().unwrap();
                prop_assert_eq!(crate::BlockDigest::of(plain.bytes()), digest);
            }
        }
    }

    #[test]
    fn anything_is_no_block(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(import(&bytes).is_err());
        let begun = [b"\xf1Frame\r\n".as_slice(), &[0; 16], &[1, 7], &bytes].concat();
        if begun.len() >= 112 {
            prop_assert!(import(&forged(&begun, 24, &[1])).is_err());
        }
    }
}
