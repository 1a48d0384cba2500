#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const CODECS: [Codec; 5] = [Codec::None, Codec::Lz4, Codec::Zstd, Codec::Gzip, Codec::Bzip2];

const FILTERS: [Filter; 10] = [
    Filter::None,
    Filter::Shuffle { width: 2 },
    Filter::Shuffle { width: 4 },
    Filter::Shuffle { width: 8 },
    Filter::DeltaShuffle { width: 2, big_endian: false },
    Filter::DeltaShuffle { width: 4, big_endian: false },
    Filter::DeltaShuffle { width: 8, big_endian: false },
    Filter::DeltaShuffle { width: 2, big_endian: true },
    Filter::DeltaShuffle { width: 4, big_endian: true },
    Filter::DeltaShuffle { width: 8, big_endian: true },
];

/// A seeded stream of random numbers.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// splitmix64.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// In `[0, 1)`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 56) as u8).collect()
    }
}

/// A smooth field with noise, like a climate model's output.
pub(super) fn field(len: usize) -> impl Iterator<Item = f32> {
    let mut random = Random::new(7);
    (0..len).map(move |i| {
        let x = i as f64 / 300.0;
        (280.0 + 15.0 * x.sin() + 4.0 * (x * 5.3).cos() + 0.01 * random.unit()) as f32
    })
}

pub(super) fn text(len: usize) -> Vec<u8> {
    let mut random = Random::new(3);
    let words = ["snow", "firn", "ice", "névé", "glacier", "melt", "1984", "\n", "accumulation"];
    let mut text = Vec::new();
    while text.len() < len {
        text.extend_from_slice(words[random.next() as usize % words.len()].as_bytes());
        text.push(b' ');
    }
    text.truncate(len);
    text
}

pub(super) fn decode_block(block: &EncodedBlock) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    let mut stored = &block.payload[..];
    for len in &block.cell_lens {
        let (cell, rest) = stored.split_at(*len as usize);
        let plain_len = CELL_LEN.min(block.plain_len as usize - plain.len());
        plain.extend(decode_cell(cell, block.codec, block.filter, plain_len)?);
        stored = rest;
    }
    assert!(stored.is_empty(), "cell lengths add up to the payload");
    Ok(plain)
}

fn check_shape(block: &EncodedBlock, plain: &[u8]) {
    assert_eq!(block.plain_len as usize, plain.len());
    assert_eq!(block.cell_lens.len(), plain.len().div_ceil(CELL_LEN));
    for (len, cell) in block.cell_lens.iter().zip(plain.chunks(CELL_LEN)) {
        assert!((1..=cell.len()).contains(&(*len as usize)));
    }
}

#[test]
fn every_codec_and_filter_brings_back_every_kind_of_block() {
    let inputs: [Vec<u8>; 5] = [
        field(50_000).flat_map(f32::to_le_bytes).collect(),
        text(130_001),
        Random::new(1).bytes(70_003),
        vec![0; 65_537],
        vec![9],
    ];
    for plain in &inputs {
        for codec in CODECS {
            for filter in FILTERS {
                let block = encode_block_as(plain, codec, filter, 5);
                check_shape(&block, plain);
                assert!(decode_block(&block).unwrap() == *plain, "{codec} {filter}");
            }
        }
    }
}

#[test]
fn every_zstd_level_brings_the_bytes_back() {
    let plain = text(CELL_LEN + 11);
    for level in 1..=19 {
        let block = encode_block_as(&plain, Codec::Zstd, Filter::None, level);
        assert_eq!((block.codec, block.level), (Codec::Zstd, level));
        assert_eq!(decode_block(&block).unwrap(), plain);
    }
}

#[test]
fn random_bytes_are_stored_raw_at_every_effort() {
    let plain = Random::new(2).bytes(MAX_BLOCK_LEN);
    for effort in [Effort::Fast, Effort::Normal, Effort::High, Effort::Archive] {
        let block = encode_block(&plain, &mut EncodeMemory::default(), effort);
        assert_eq!((block.codec, block.filter), (Codec::None, Filter::None));
        assert_eq!(block.payload, plain);
    }
}

#[test]
fn a_cell_that_does_not_shrink_is_raw_beside_cells_that_do() {
    let mut plain = text(3 * CELL_LEN);
    plain[CELL_LEN..2 * CELL_LEN].copy_from_slice(&Random::new(4).bytes(CELL_LEN));
    let block = encode_block_as(&plain, Codec::Zstd, Filter::Shuffle { width: 2 }, 3);
    assert_eq!(block.cell_lens[1] as usize, CELL_LEN);
    assert!((block.cell_lens[0] as usize) < CELL_LEN / 2);
    let start = block.cell_lens[0] as usize;
    assert_eq!(block.payload[start..start + CELL_LEN], plain[CELL_LEN..2 * CELL_LEN]);
    assert_eq!(decode_block(&block).unwrap(), plain);
}

#[test]
fn codec_and_filter_numbers_are_what_is_stored() {
    let codecs = [Codec::None, Codec::Lz4, Codec::Zstd, Codec::Gzip, Codec::Bzip2];
    for (number, codec) in codecs.into_iter().enumerate() {
        assert_eq!(codec.to_byte(), number as u8);
        assert_eq!(Codec::from_byte(number as u8).unwrap(), codec);
    }
    assert!(Codec::from_byte(5).is_err());

    let numbers = [0x00, 0x11, 0x21, 0x31, 0x12, 0x22, 0x32, 0x92, 0xa2, 0xb2];
    assert_eq!(FILTERS.map(Filter::to_byte), numbers);
    for byte in 0..=u8::MAX {
        match Filter::from_byte(byte) {
            Ok(filter) => assert_eq!(filter.to_byte(), byte),
            Err(_) => assert!(!numbers.contains(&byte), "{byte:#x}"),
        }
    }
}

#[test]
fn a_stored_cell_longer_than_its_plaintext_is_damage() {
    for codec in CODECS {
        assert!(decode_cell(&[0; 11], codec, Filter::None, 10).is_err());
    }
}

#[test]
fn a_plaintext_length_beyond_a_cell_is_damage() {
    assert!(decode_cell(&[0; 10], Codec::Zstd, Filter::None, CELL_LEN + 1).is_err());
    assert!(decode_cell(&[0; 10], Codec::Lz4, Filter::None, usize::MAX).is_err());
}

#[test]
fn a_stream_with_another_length_than_recorded_is_damage() {
    let plain = text(5000);
    for codec in &CODECS[1..] {
        let block = encode_block_as(&plain, *codec, Filter::None, 5);
        for wrong in [plain.len() - 1, plain.len() + 1, block.payload.len() + 1] {
            assert!(decode_cell(&block.payload, *codec, Filter::None, wrong).is_err(), "{codec}");
        }
    }
}

#[test]
fn bytes_after_a_stream_are_damage() {
    let plain = text(5000);
    for codec in &CODECS[1..] {
        let mut stored = encode_block_as(&plain, *codec, Filter::None, 5).payload.to_vec();
        stored.extend_from_slice(b"more");
        assert!(decode_cell(&stored, *codec, Filter::None, plain.len()).is_err(), "{codec}");
    }
}

#[test]
fn a_filter_of_unknown_width_does_not_decode() {
    let stored = encode_block_as(&text(500), Codec::Zstd, Filter::None, 1).payload;
    assert!(decode_cell(&stored, Codec::Zstd, Filter::Shuffle { width: 3 }, 500).is_err());
}

pub(super) fn any_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        Just(Filter::None),
        prop::sample::select(vec![2, 4, 8]).prop_map(|width| Filter::Shuffle { width }),
        (prop::sample::select(vec![2, 4, 8]), any::<bool>())
            .prop_map(|(width, big_endian)| Filter::DeltaShuffle { width, big_endian }),
    ]
}

/// Bytes with the structures that codecs and filters are made for.
fn any_plain() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![1_usize..300, CELL_LEN - 9..CELL_LEN + 9, 1..3 * CELL_LEN];
    prop_oneof![
        (len.clone(), any::<u64>()).prop_map(|(len, seed)| Random::new(seed).bytes(len)),
        len.clone().prop_map(text),
        (len.clone(), any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        (len.clone(), any::<bool>()).prop_map(|(len, big)| {
            let mut bytes: Vec<u8> = field(len / 4 + 1)
                .flat_map(|value| if big { value.to_be_bytes() } else { value.to_le_bytes() })
                .collect();
            bytes.truncate(len);
            bytes
        }),
        (len, 0_u64..1000, 1_usize..9).prop_map(|(len, step, width)| {
            (0..)
                .flat_map(|i: u64| (i * step).to_le_bytes().into_iter().take(width))
                .take(len)
                .collect()
        }),
    ]
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(CODECS.to_vec())
}

fn any_effort() -> impl Strategy<Value = Effort> {
    prop::sample::select(vec![Effort::Fast, Effort::Normal, Effort::High])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_encoded_decodes(
        plain in any_plain(), codec in any_codec(), filter in any_filter(), level in 1_u8..8,
    ) {
        let block = encode_block_as(&plain, codec, filter, level);
        check_shape(&block, &plain);
        prop_assert!(decode_block(&block).unwrap() == plain);
    }

    #[test]
    fn a_stream_of_anything_decodes(
        blocks in prop::collection::vec((any_plain(), any_effort()), 1..6),
    ) {
        let mut memory = EncodeMemory::default();
        for (plain, effort) in blocks {
            let block = encode_block(&plain, &mut memory, effort);
            check_shape(&block, &plain);
            prop_assert!(decode_block(&block).unwrap() == plain);
        }
    }

    /// Damage may go unnoticed here, since cells carry their checksum outside; it must only not
    /// panic and not change the length.
    #[test]
    fn damaged_cells_never_panic_and_never_grow(
        plain in any_plain(), codec in any_codec(), filter in any_filter(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 0..4),
        cut in any::<prop::sample::Index>(), truncate in any::<bool>(),
    ) {
        let plain = &plain[..plain.len().min(CELL_LEN)];
        let mut stored = encode_block_as(plain, codec, filter, 3).payload.to_vec();
        for (at, mask) in flips {
            let at = at.index(stored.len());
            stored[at] ^= mask;
        }
        if truncate {
            stored.truncate(cut.index(stored.len()));
        }
        if let Ok(decoded) = decode_cell(&stored, codec, filter, plain.len()) {
            prop_assert_eq!(decoded.len(), plain.len());
        }
    }

    #[test]
    fn random_cells_never_panic_and_never_grow(
        stored in prop::collection::vec(any::<u8>(), 0..2000),
        codec in any_codec(), filter in any_filter(), plain_len in 0_usize..=CELL_LEN,
    ) {
        if let Ok(decoded) = decode_cell(&stored, codec, filter, plain_len) {
            prop_assert_eq!(decoded.len(), plain_len);
        }
    }
}
