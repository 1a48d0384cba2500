//! Bytes of a shard: as specified, and refused when they are anything else.

use proptest::prelude::*;

use super::super::layout::{HEADER_LEN, Layout, Shape, sum};
use super::*;

fn layout(len: u64) -> Layout {
    let digest = *blake3::hash(b"content").as_bytes();
    Layout { shape: Shape::of(len, 3, 2), digest, key: sum(&[b"segments/a"]) }
}

/// `FORMAT.md`, "Spread objects". A change of these bytes is a new version.
#[tokio::test]
async fn the_bytes_of_a_shard_are_those_of_version_1() {
    let set = Set::new(2, 1).await;
    set.spread.put("golden", Bytes::from_static(b"Firn turns to ice.")).await.unwrap();
    let hex = |bytes: &Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let digest: String = blake3::hash(b"Firn turns to ice.").to_hex().chars().collect();
    let shards: Vec<Bytes> =
        set.memories.iter().map(|memory| memory.peek("golden").unwrap()).collect();
    for (index, shard) in shards.iter().enumerate() {
        let text = hex(shard);
        assert!(text.starts_with("f1536861726 40d0a".replace(' ', "").as_str()), "{text}");
        assert_eq!(text[48..64], format!("010000000201{index:02x}10"), "version, k, m, index");
        assert_eq!(text[64..96], *"40000000000000001200000000000000", "chunk and length");
        assert_eq!(text[96..160], digest);
        assert_eq!(shard.len(), HEADER_LEN + [18, 0, 18][index] + 4 * 16);
    }
    let whole: Vec<u8> = shards.iter().flat_map(|shard| shard.to_vec()).collect();
    assert_eq!(blake3::hash(&whole).to_hex().as_str(), GOLDEN, "every byte");
}

const GOLDEN: &str = "990b3a22fcdc0f0bae3ebd8385a287d31f00eff6de6389726a0f7c9561e6bc5a";

#[test]
fn every_flipped_bit_of_a_header_is_noticed() {
    let header = layout(1_000_000).header(3);
    assert_eq!(Layout::parse(&header).unwrap(), (layout(1_000_000), 3));
    for bit in 0..HEADER_LEN * 8 {
        let mut wrong = header;
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(Layout::parse(&wrong).is_err(), "bit {bit}");
    }
    assert!(Layout::parse(&header[..100]).is_err());
}

/// With a checksum that is right all the same.
#[test]
fn headers_that_make_no_sense_are_refused() {
    for (at, byte) in
        [(24, 2), (26, 1), (28, 0), (29, 0), (29, 200), (30, 5), (31, 8), (35, 1), (46, 1)]
    {
        let mut wrong = layout(1_000_000).header(3);
        wrong[at] = byte;
        let checksum = sum(&[&wrong[24..]]);
        wrong[8..24].copy_from_slice(&checksum);
        assert!(Layout::parse(&wrong).is_err(), "byte {at}");
    }
}

/// Every chunk takes a checksum for each shard: short ones would fill the memory of a reader.
#[tokio::test]
async fn an_object_is_never_cut_otherwise_than_its_length_says() {
    let len = 1_000_000;
    for chunk_len in [1, 64, 32 << 10, 128 << 10, 1 << 20] {
        let mut layout = layout(len);
        layout.shape.chunk_len = chunk_len;
        let refused = Layout::parse(&layout.header(0)).unwrap_err();
        assert!(refused.to_string().contains("chunk length"), "{chunk_len}: {refused}");
        let set = Set::new(3, 2).await;
        layout.key = sum(&[b"k"]);
        for (at, memory) in set.memories.iter().enumerate() {
            memory.overwrite("k", layout.header(at).to_vec());
        }
        let read = set.spread.get_range("k", 0..10).await.unwrap_err();
        assert!(matches!(read, Error::Damaged { .. }), "{read:?}");
    }
}

proptest! {
    #[test]
    fn lengths_of_shards_give_the_length_of_the_object(
        len in prop_oneof![0_u64..2000, 0_u64..2_000_000, Just(65_536 * 3), Just(65_536 * 6 + 1)],
        data in 1_u8..9,
        parity in 1_u8..4,
    ) {
        let shape = Shape::of(len, data, parity);
        let lens: Vec<u64> = (0..usize::from(data)).map(|shard| shape.shard_len(shard)).collect();
        prop_assert_eq!(Shape::len_from(&lens, data, parity), Some(len));
        let payload: u64 = (0..shape.stripes())
            .flat_map(|stripe| (0..usize::from(data)).map(move |shard| shape.chunk(shard, stripe) as u64))
            .sum();
        prop_assert_eq!(payload, len);
        let longest = (0..shape.shards()).map(|shard| shape.shard_len(shard)).max().unwrap();
        prop_assert_eq!(longest, shape.shard_len(0));
    }
}
