//! The stored bytes themselves: golden values, fixtures of every version, round trips, and decoders
//! that meet anything.

use super::*;
use crate::encode::{Effort, EncodeMemory, encode_block, encode_block_as};
use proptest::prelude::*;
use std::path::PathBuf;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The blocks of the fixtures: every codec and filter, one cell and several.
fn fixture_blocks() -> [(Vec<u8>, Codec, Filter, u8); 8] {
    let ramp = |len: usize| -> Vec<u8> {
        (0..len / 4).flat_map(|i| (i as u32 * 3 + 1000).to_be_bytes()).collect()
    };
    let text =
        |len: usize| b"firn is old snow on its way to ice. ".iter().copied().cycle().take(len);
    let text = |len: usize| text(len).collect::<Vec<u8>>();
    let delta = |width, big_endian| Filter::DeltaShuffle { width, big_endian };
    [
        (noise(1, 700), Codec::None, Filter::None, 0),
        (text(3000), Codec::Lz4, Filter::None, 0),
        (ramp(70_000), Codec::Zstd, delta(4, true), 3),
        (ramp(8000), Codec::Zstd, Filter::Shuffle { width: 4 }, 3),
        (ramp(8000), Codec::Zstd, delta(2, false), 19),
        (ramp(8000), Codec::Lz4, delta(8, false), 0),
        (text(66_000), Codec::Gzip, Filter::None, 6),
        (text(5000), Codec::Bzip2, Filter::Shuffle { width: 8 }, 9),
    ]
}

/// Every form that segments were sealed in: the directory of its fixture, the version of its pages,
/// where its parity lies, and how its shards are summed.
const FORMS: [(&str, u16, ParityPlace, ShardSum); 3] = [
    ("scheme2", 1, ParityPlace::Inside, ShardSum::Xxh3),
    ("v1", 1, ParityPlace::Inside, ShardSum::Blake3),
    ("v2", 2, ParityPlace::Object, ShardSum::Blake3),
];

/// Writes the fixture of a new form. Run once for each, then never again:
/// `cargo test -p firn-tiering write_fixtures -- --ignored`.
#[test]
#[ignore = "writes the fixtures of a new form"]
fn write_fixtures() {
    let (form, _, place, sum) = FORMS[0];
    assert_eq!(sum, ShardSum::Xxh3, "what is written now");
    let to = fixtures().join(form);
    assert!(!to.exists(), "fixtures of this form exist; they never change");
    std::fs::create_dir_all(&to).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::create(dir.path(), NAME, place).unwrap();
    for (i, (plain, codec, filter, level)) in fixture_blocks().into_iter().enumerate() {
        let id = BlockId::from_raw(0x0001_0000_0000_0100 + i as u64);
        let encoded = encode_block_as(&plain, codec, filter, level);
        writer.append(&mut Frame::build(id, &hash_block(&plain), &encoded)).unwrap();
    }
    std::fs::copy(writer.path(), to.join(NAME.id.file_name(FileKind::Open))).unwrap();
    let sealed = writer.seal().unwrap();
    std::fs::copy(&sealed.path, to.join(NAME.id.file_name(FileKind::Sealed))).unwrap();
    let idx = to.join(NAME.id.file_name(FileKind::Index));
    std::fs::write(idx, sealed.index.to_idx_bytes()).unwrap();
    if place == ParityPlace::Object {
        let sidecar = NAME.id.file_name(FileKind::Sidecar);
        std::fs::copy(dir.path().join(&sidecar), to.join(sidecar)).unwrap();
    }
}

#[test]
fn there_is_a_fixture_of_every_form_and_each_reads() {
    let mut forms: Vec<_> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    forms.sort();
    assert_eq!(forms, FORMS.map(|(form, ..)| form));
    assert!((1..=SEGMENT_VERSION).all(|version| FORMS.iter().any(|form| form.1 == version)));
    for (form, version, place, sum) in FORMS {
        let dir = fixtures().join(form);
        let file = |kind| std::fs::read(dir.join(NAME.id.file_name(kind))).unwrap();
        let sealed = file(FileKind::Sealed);
        let index = SegmentIndex::from_file(sealed.as_slice(), &NAME).unwrap();
        assert_eq!(SegmentIndex::from_idx_bytes(&file(FileKind::Index), &NAME).unwrap(), index);
        assert_eq!(sealed[24..26], version.to_le_bytes());
        assert_eq!(index.trailer().geometry.map(|geometry| geometry.sum), Some(sum));
        assert!(check_frames(sealed.as_slice(), &index).is_empty());
        let segment = std::fs::File::open(dir.join(NAME.id.file_name(FileKind::Sealed))).unwrap();
        let sidecar = std::fs::File::open(dir.join(NAME.id.file_name(FileKind::Sidecar))).ok();
        let sidecar = sidecar.as_ref().map(|sidecar| sidecar as &dyn ReadAt);
        assert_eq!(sidecar.is_some(), place == ParityPlace::Object);
        assert!(repair(&WithSidecar::new(&segment, sidecar), &NAME).unwrap().is_intact());
        let blocks = fixture_blocks();
        assert_eq!(index.entries().len(), blocks.len());
        for (entry, (plain, codec, filter, level)) in index.entries().iter().zip(&blocks) {
            assert_eq!((entry.codec, entry.filter, entry.level), (*codec, *filter, *level));
            let read = entry.whole();
            let stored = &sealed[read.stored().start as usize..read.stored().end as usize];
            let block = crate::BlockRef { digest: hash_block(plain).digest(), ..entry.block_ref() };
            assert_eq!(read.open(&block, stored).unwrap().bytes(), plain);
        }
        let open = tempfile::tempdir().unwrap();
        let name = NAME.id.file_name(FileKind::Open);
        std::fs::write(open.path().join(name), file(FileKind::Open)).unwrap();
        let recovered = SegmentWriter::recover(open.path(), NAME).unwrap();
        assert_eq!(recovered.writer.entries(), index.entries());
        assert_eq!(recovered.writer.place(), place);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_frame_has_its_golden_bytes() {
    let mut frame = raw_frame(0x0001_0000_0000_002a, b"firn");
    let bytes = frame.stamp(&NAME).to_vec();
    // By FORMAT.md, "Frame header"; offsets are written out on purpose.
    assert_eq!(&bytes[0..8], b"\xf1Frame\r\n");
    let key = [&[0x5a; 16][..], &7_u64.to_le_bytes()[..6], &[1, 0], &[0; 8]].concat();
    let sum = blake3::keyed_hash(&key.try_into().unwrap(), &bytes[24..112]);
    assert_eq!(bytes[8..24], sum.as_bytes()[..16]);
    assert_eq!(hex(&bytes[24..32]), "0107000000000000");
    assert_eq!(hex(&bytes[32..40]), "0700000000000100");
    assert_eq!(hex(&bytes[40..48]), "2a00000000000100");
    assert_eq!(&bytes[48..80], blake3::hash(b"firn").as_bytes());
    assert_eq!(hex(&bytes[80..96]), "0400000014000000".to_owned() + "0000000110100000");
    assert_eq!(hex(&bytes[96..112]), "03000000000000000000000000000000");
    assert_eq!(&bytes[112..116], b"firn");
    let root = blake3::hash(b"firn");
    let digest = &root.as_bytes()[..16];
    let key = [digest, digest].concat().try_into().unwrap();
    let input = [&[0; 4][..], root.as_bytes()].concat();
    assert_eq!(bytes[116..132], blake3::keyed_hash(&key, &input).as_bytes()[..16]);
    assert_eq!(hex(&bytes[132..]), "000000000000000000000000");
}

#[test]
fn pages_have_their_golden_bytes() {
    let sample = Sample::raw(&[300]);
    let page = &sample.bytes[..512];
    assert_eq!(&page[0..8], b"\xf1Segmt\r\n");
    assert_eq!(page[8..24], blake3::hash(&page[24..128]).as_bytes()[..16]);
    assert_eq!(hex(&page[24..32]), "0100000000020000");
    assert_eq!(page[32..48], [0x5a; 16]);
    assert_eq!(hex(&page[48..56]), "0700000000000100");
    assert!(page[56..128].iter().chain(&page[384..512]).all(|&byte| byte == 0));
    let end = &sample.bytes[sample.bytes.len() - 256..];
    assert_eq!(&page[128..384], end);
    assert_eq!(&end[0..8], b"\xf1Trail\r\n");
    assert_eq!(end[8..24], blake3::hash(&end[24..]).as_bytes()[..16]);
    let number = |at: usize| u64::from_le_bytes(end[at..at + 8].try_into().unwrap());
    assert_eq!(number(56), sample.bytes.len() as u64);
    let frames_end = number(64);
    assert_eq!(frames_end, 512 + 112 + 320);
    assert_eq!(number(80), frames_end);
    let index_len = u64::from(u32::from_le_bytes(end[120..124].try_into().unwrap()));
    assert_eq!(number(72), frames_end + index_len);
    let index_b = number(88) as usize;
    assert_eq!(&sample.bytes[index_b..index_b + 8], b"\xf1Index\r\n");
    // Shards of 256 bytes; every stripe has one and five of parity.
    assert_eq!(hex(&end[124..128]), "01000000");
    let shards = (number(72) - 512).div_ceil(256) as u32;
    assert_eq!(
        end[128..140],
        [256_u32.to_le_bytes(), shards.to_le_bytes(), [4.min(shards as u8), 0, 5, 0]].concat()[..]
    );
    assert_eq!(hex(&end[140..144]), "02100000");
    assert!(end[176..].iter().all(|&byte| byte == 0));
}

#[test]
fn an_index_in_an_idx_file_is_the_one_of_the_segment() {
    let sample = Sample::raw(&[1, 2, 3, 100_000]);
    let idx = sample.index.to_idx_bytes();
    assert_eq!(&idx[..8], b"\xf1IdxFl\r\n");
    let index = sample.index.trailer().index_a.clone();
    assert_eq!(idx[16 + 256..], sample.bytes[index.start as usize..index.end as usize]);
}

#[test]
fn newer_versions_are_named_not_guessed() {
    let sample = Sample::raw(&[300]);
    let mut idx = sample.index.to_idx_bytes();
    idx[8] = 9;
    let error = SegmentIndex::from_idx_bytes(&idx, &NAME).unwrap_err();
    assert!(matches!(error, crate::Error::TooNew { found: 9, known: 1, .. }), "{error}");
    let mut bytes = sample.bytes.clone();
    for start in [128, bytes.len() - 256] {
        bytes[start + 24] = 3;
        let sum = short(&blake3::hash(&bytes[start + 24..start + 256]));
        le::put(&mut bytes, start + 8, &sum);
    }
    for error in [
        SegmentIndex::from_file(bytes.as_slice(), &NAME).unwrap_err(),
        repair(bytes.as_slice(), &NAME).unwrap_err(),
    ] {
        assert!(matches!(error, crate::Error::TooNew { found: 3, known: 2, .. }), "{error}");
    }
    let mut page = sample.bytes[128..384].to_vec();
    page[140] = 3;
    let sum = short(&blake3::hash(&page[24..]));
    le::put(&mut page, 8, &sum);
    let error = Trailer::from_bytes(&page, &NAME).unwrap_err();
    assert!(error.to_string().contains("parity scheme"), "{error}");
}

/// What was sealed with other checksums is mended with them, to the same bytes.
#[test]
fn damage_in_a_fixture_of_every_form_is_mended_to_the_same_bytes() {
    for (form, ..) in FORMS.iter().filter(|form| form.2 == ParityPlace::Inside) {
        let path = fixtures().join(form).join(NAME.id.file_name(FileKind::Sealed));
        let sealed = std::fs::read(path).unwrap();
        let index = SegmentIndex::from_file(sealed.as_slice(), &NAME).unwrap();
        let trailer = index.trailer();
        for at in [600, trailer.parity.start + 9, trailer.table_a.start + 3, trailer.index_a.start]
        {
            let mut bytes = sealed.clone();
            bytes[at as usize] ^= 0x40;
            let found = repair(bytes.as_slice(), &NAME).unwrap();
            assert!(!found.is_intact() && found.lost.is_empty(), "{form} at {at}: {found:?}");
            for patch in &found.patches {
                le::put(&mut bytes, patch.offset as usize, &patch.bytes);
            }
            assert_eq!(bytes, sealed, "{form} at {at}");
        }
    }
}

#[test]
fn shards_that_no_writer_cuts_are_refused() {
    let sample = Sample::raw(&[300, 100_000]);
    for (at, value) in [(128, 100_u32), (128, 0), (128, 4 << 20), (132, 1 << 20)] {
        let mut page = sample.bytes[128..384].to_vec();
        le::put(&mut page, at, &value.to_le_bytes());
        let sum = short(&blake3::hash(&page[24..]));
        le::put(&mut page, 8, &sum);
        let refused = Trailer::from_bytes(&page, &NAME);
        assert!(matches!(refused, Err(crate::Error::Damaged { .. })), "{value} at {at}");
    }
    // What is held of each stripe at once is bounded.
    let sum = ShardSum::Xxh3;
    let of = |stripes| Geometry {
        shard_len: 1 << 18,
        data_shards: 600,
        stripes,
        parity_per_stripe: 5,
        sum,
    };
    assert_eq!((of(4).check().is_ok(), of(64).check().is_ok()), (true, true));
    assert!(of(65).check().is_err());
}

#[test]
fn another_segments_parts_are_refused() {
    let sample = Sample::raw(&[300, 400]);
    let other = SegmentName { id: SegmentId::from_raw(8), ..NAME };
    let volume = SegmentName { volume: VolumeId([1; 16]), ..NAME };
    for name in [other, volume] {
        assert!(SegmentIndex::from_file(sample.bytes.as_slice(), &name).is_err());
        assert!(SegmentIndex::from_idx_bytes(&sample.index.to_idx_bytes(), &name).is_err());
        assert!(repair(sample.bytes.as_slice(), &name).is_err());
        assert!(verify_frame(&name, 512, &sample.bytes[512..]).is_err());
    }
    assert!(verify_frame(&NAME, 512, &sample.bytes[512..]).is_ok());
}

#[test]
fn a_frame_moves_to_another_segment_only_when_intact() {
    let sample = Sample::raw(&[300, CELL_LEN + 9]);
    let range = sample.entry(BlockId::from_raw(1001)).frame_range();
    let stored = &sample.bytes[range.start as usize..];
    let mut frame = Frame::from_stored(&NAME, stored).unwrap();
    let other = SegmentName { id: SegmentId::from_raw(8), ..NAME };
    let moved = frame.stamp(&other).to_vec();
    assert_eq!(verify_frame(&other, 0, &moved).unwrap().entry.digest, frame.entry().digest);
    let mut broken = stored.to_vec();
    broken[300] ^= 1;
    assert!(Frame::from_stored(&NAME, &broken).is_err());
}

#[test]
fn entries_without_cell_lengths_are_read_by_the_whole_frame() {
    let sample = Sample::raw(&[300, 3 * CELL_LEN]);
    let short = index::encode_index(&NAME, sample.index.entries(), false);
    let entries = index::decode_index(&short, sample.index.trailer()).unwrap();
    let entry = &entries[1];
    assert!(entry.cell_lens.is_empty());
    let read = entry.cell_range(70_000..70_001).unwrap();
    assert_eq!(read.stored(), entry.frame_range());
    let stored = read.stored();
    let mut stored = sample.bytes[stored.start as usize..stored.end as usize].to_vec();
    let got = read.open(&entry.block_ref(), &stored).unwrap();
    assert_eq!(got.range(), CELL_LEN as u32..2 * CELL_LEN as u32);
    assert_eq!(got.bytes(), &sample.blocks[1].1[CELL_LEN..2 * CELL_LEN]);
    for at in [0, 25, 80, 97, 70_000] {
        stored[at] ^= 0x11;
        if let Ok(read) = read.open(&entry.block_ref(), &stored) {
            assert_eq!(read.bytes(), got.bytes(), "byte {at}");
        }
        stored[at] ^= 0x11;
    }
}

#[test]
fn names_of_files_round_trip() {
    let id = SegmentId::new(crate::Epoch(3), 0xabc).unwrap();
    assert_eq!(id.object_key(), "segments/0003000000000abc.seg");
    for kind in [FileKind::Open, FileKind::Sealed, FileKind::Index] {
        assert_eq!(SegmentId::parse_file_name(&id.file_name(kind)), Some((id, kind)));
    }
    for bad in ["", "x.seg", "0003000000000abc", "0003000000000ABC.seg", "0003000000000abc.tmp"] {
        assert_eq!(SegmentId::parse_file_name(bad), None);
    }
    assert_eq!(SegmentId::new(crate::Epoch(3), 1 << 48), None);
}

fn any_block() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![
        1_usize..50,
        1_usize..10_000,
        CELL_LEN - 2..CELL_LEN + 3,
        1_usize..3 * CELL_LEN
    ];
    (len, 0_u8..4, any::<u64>()).prop_map(|(len, kind, seed)| match kind {
        0 => noise(seed, len),
        1 => vec![seed as u8; len],
        2 => (0..len).map(|i| ((i / 4 * 3) >> (8 * (i % 4))) as u8).collect(),
        _ => noise(seed, 97).into_iter().cycle().take(len).collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_blocks_read_back_in_any_range(
        blocks in prop::collection::vec(any_block(), 1..6),
        cuts in prop::collection::vec((any::<u32>(), any::<u32>()), 4),
    ) {
        let encode = |plain: &[u8]| encode_block(plain, &mut EncodeMemory::default(), Effort::Normal);
        let sample = Sample::of(blocks, encode);
        let index = SegmentIndex::from_file(sample.bytes.as_slice(), &NAME).unwrap();
        prop_assert_eq!(&index, &sample.index);
        prop_assert_eq!(sample.count_damaged(&sample.bytes), 0);
        prop_assert!(check_frames(sample.bytes.as_slice(), &index).is_empty());
        for (id, plain) in &sample.blocks {
            let entry = sample.entry(*id);
            for (a, b) in &cuts {
                let a = a % plain.len() as u32;
                let b = a + 1 + b % (plain.len() as u32 - a);
                let read = entry.cell_range(a..b).unwrap();
                let stored = read.stored();
                let stored = &sample.bytes[stored.start as usize..stored.end as usize];
                let got = read.open(&entry.block_ref(), stored).unwrap();
                prop_assert_eq!(got.range(), read.plain());
                prop_assert_eq!(&got.slice(a..b).unwrap()[..], &plain[a as usize..b as usize]);
            }
        }
    }

    /// Pages whose checksum is right but whose fields are anything: bounded, and never a panic.
    #[test]
    fn decoders_survive_any_fields(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        which in 0..4_u8,
    ) {
        let sample = Sample::raw(&[300, 70_000]);
        let mut bytes = sample.bytes.clone();
        let len = bytes.len();
        let index_a = sample.index.trailer().index_a.clone();
        let (from, to) = match which {
            0 => (128, 384),
            1 => (len - 256, len),
            2 => (512, 512 + 112),
            _ => (index_a.start as usize, index_a.end as usize),
        };
        for (at, byte) in changes {
            bytes[from + 24 + at.index(to - from - 24)] = byte;
        }
        let sum = if which == 2 {
            short(&blake3::keyed_hash(&NAME.frame_key(), &bytes[from + 24..to]))
        } else {
            short(&blake3::hash(&bytes[from + 24..to]))
        };
        le::put(&mut bytes, from + 8, &sum);
        let _ = SegmentIndex::from_file(bytes.as_slice(), &NAME);
        let _ = repair(bytes.as_slice(), &NAME);
        let _ = Trailer::from_bytes(&bytes[128..], &NAME);
        let _ = index::decode_index(&bytes[index_a.start as usize..index_a.end as usize], sample.index.trailer());
        let _ = scan_frames(bytes.as_slice(), &NAME, DATA_START..len as u64, true);
        sample.count_damaged(&bytes);
    }

    #[test]
    fn index_columns_survive_any_bytes(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        cells in any::<bool>(),
    ) {
        let sample = Sample::raw(&[1, 300, 70_000]);
        let entries: Vec<_> = sample.index.entries().iter().collect();
        let mut raw = index::encode_columns(&entries, cells);
        let end = sample.index.trailer().frames_end;
        prop_assert_eq!(index::decode_columns(&raw, 3, cells, end).unwrap().len(), 3);
        prop_assert!(index::decode_columns(&raw[..cut.index(raw.len())], 3, cells, end).is_err());
        for (at, byte) in changes {
            let at = at.index(raw.len());
            raw[at] = byte;
        }
        let _ = index::decode_columns(&raw, 3, cells, end);
        let _ = index::decode_columns(&raw, 4, cells, end);
    }

    #[test]
    fn decoders_survive_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = SegmentIndex::from_file(bytes.as_slice(), &NAME);
        let _ = SegmentIndex::from_idx_bytes(&bytes, &NAME);
        let _ = repair(bytes.as_slice(), &NAME);
        let _ = verify_frame(&NAME, 0, &bytes);
    }
}
