//! Segments whose parity lies apart, or nowhere: what is damaged in one of both files is made right
//! from the other, and a lost sidecar costs nothing but protection.

use super::*;

/// A segment and its sidecar in memory.
struct Pair {
    segment: Vec<u8>,
    sidecar: Vec<u8>,
    index: SegmentIndex,
}

fn sealed(lens: &[usize], place: ParityPlace) -> (tempfile::TempDir, SealedInfo) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::create(dir.path(), NAME, place).unwrap();
    for (i, &len) in lens.iter().enumerate() {
        writer.append(&mut raw_frame(1000 + i as u64, &noise(i as u64, len))).unwrap();
    }
    let sealed = writer.seal().unwrap();
    (dir, sealed)
}

fn pair(lens: &[usize]) -> Pair {
    let (dir, sealed) = sealed(lens, ParityPlace::Object);
    let sidecar = std::fs::read(dir.path().join(NAME.id.file_name(FileKind::Sidecar))).unwrap();
    Pair { segment: std::fs::read(&sealed.path).unwrap(), sidecar, index: sealed.index }
}

fn mixed() -> Pair {
    pair(&[1, 100, 4096, CELL_LEN, CELL_LEN + 1, 3 * CELL_LEN + 5, 200, 200, 70_000])
}

impl Pair {
    /// Both files behind one another, as the trailer counts.
    fn joined(&self) -> Vec<u8> {
        [&self.segment[..], &self.sidecar].concat()
    }

    fn look(&self, segment: &[u8], sidecar: Option<&[u8]>) -> Repair {
        let (segment, sidecar) = (Held(segment), sidecar.map(Held));
        let sidecar = sidecar.as_ref().map(|sidecar| sidecar as &dyn ReadAt);
        repair(&WithSidecar::new(&segment, sidecar), &NAME).unwrap()
    }

    /// Repairs both and expects them as they were sealed.
    #[track_caller]
    fn expect_repaired(&self, segment: &[u8], sidecar: Option<&[u8]>) {
        let found = self.look(segment, sidecar);
        assert_eq!(found.lost, [], "lost after {:?}", found.damage);
        let mut fixed = segment.to_vec();
        fixed.resize(self.segment.len(), 0);
        fixed.extend_from_slice(sidecar.unwrap_or_default());
        fixed.resize((found.file_len + found.sidecar_len) as usize, 0);
        for patch in &found.patches {
            fixed[patch.offset as usize..][..patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        assert!(fixed == self.joined(), "repaired to other bytes: {:?}", found.damage);
        assert_eq!(found.is_segment_intact(), segment == self.segment);
        assert_eq!(found.is_sidecar_intact(), sidecar == Some(&self.sidecar[..]));
    }
}

/// Bytes in memory as a trait object reads them.
struct Held<'a>(&'a [u8]);

impl ReadAt for Held<'_> {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len().try_into().map_err(std::io::Error::other)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn what_lies_apart_is_not_in_the_segment_and_costs_the_same() {
    let lens = vec![1 << 20; 20];
    let apart = pair(&lens);
    let (_dir, inside) = sealed(&lens, ParityPlace::Inside);
    let trailer = apart.index.trailer();
    assert_eq!(trailer.file_len, apart.segment.len() as u64);
    assert_eq!(trailer.sidecar_len(), apart.sidecar.len() as u64);
    assert_eq!(trailer.geometry, inside.index.trailer().geometry);
    let whole = apart.joined().len() as u64;
    assert!(whole.abs_diff(inside.file_len) < 512, "{whole} and {}", inside.file_len);
    assert_eq!(SegmentIndex::from_file(&apart.segment[..], &NAME).unwrap(), apart.index);
    assert_eq!(
        SegmentIndex::from_idx_bytes(&apart.index.to_idx_bytes(), &NAME).unwrap(),
        apart.index
    );
}

#[test]
fn every_byte_of_both_files_is_watched_and_made_right() {
    let pair = mixed();
    pair.expect_repaired(&pair.segment, Some(&pair.sidecar));
    let mut dice = Dice::new(11);
    for _ in 0..60 {
        let mut segment = pair.segment.clone();
        let at = dice.roll(segment.len());
        segment[at] ^= 1 << dice.roll(8);
        pair.expect_repaired(&segment, Some(&pair.sidecar));
        let mut sidecar = pair.sidecar.clone();
        let at = dice.roll(sidecar.len());
        sidecar[at] ^= 1 << dice.roll(8);
        pair.expect_repaired(&pair.segment, Some(&sidecar));
        pair.expect_repaired(&segment, Some(&sidecar));
    }
}

#[test]
fn a_run_of_one_percent_of_either_file_is_rebuilt() {
    let mut dice = Dice::new(12);
    let full = vec![1 << 20; 60];
    let cases: [(&[usize], usize); 4] =
        [(&[1], 20), (&[100_000], 20), (&[1 << 20, 1 << 20, 777_777], 8), (&full, 2)];
    for (lens, rounds) in cases {
        let pair = pair(lens);
        for _ in 0..rounds {
            let (mut segment, mut sidecar) = (pair.segment.clone(), pair.sidecar.clone());
            for file in [&mut segment, &mut sidecar] {
                let run = file.len() / 100;
                let start = dice.roll(file.len() - run + 1);
                file[start..start + run].iter_mut().for_each(|byte| *byte ^= 0xa5);
            }
            pair.expect_repaired(&segment, Some(&pair.sidecar));
            pair.expect_repaired(&pair.segment, Some(&sidecar));
        }
    }
}

#[test]
fn a_sidecar_that_is_gone_cut_grown_or_anothers_is_made_anew_from_a_sound_segment() {
    let pair = mixed();
    let other = self::pair(&[9, 9]);
    let half = &pair.sidecar[..pair.sidecar.len() / 2];
    let grown = [&pair.sidecar[..], b"more"].concat();
    pair.expect_repaired(&pair.segment, None);
    for sidecar in [&[][..], half, &other.sidecar, &vec![0; pair.sidecar.len()]] {
        pair.expect_repaired(&pair.segment, Some(sidecar));
    }
    let found = pair.look(&pair.segment, Some(&grown));
    assert!(!found.is_sidecar_intact() && found.is_segment_intact() && found.lost.is_empty());
}

#[test]
fn a_segment_that_was_cut_off_keeps_every_byte_that_is_left() {
    let pair = mixed();
    let cut = pair.segment.len() - 300;
    pair.expect_repaired(&pair.segment[..cut], Some(&pair.sidecar));
    // Also as one run of bytes, from which a file is made.
    let (segment, sidecar) = (Held(&pair.segment[..cut]), Held(&pair.sidecar));
    let both = WithSidecar::new(&segment, Some(&sidecar));
    let (file_len, sidecar_len) = (pair.segment.len() as u64, pair.sidecar.len() as u64);
    let joined = Joined::new(&both, file_len, sidecar_len);
    let mut bytes = vec![1; pair.joined().len()];
    Patched::new(&joined, &[], file_len + sidecar_len).read_exact_at(&mut bytes, 0).unwrap();
    let mut expected = pair.joined();
    expected[cut..pair.segment.len()].fill(0);
    assert!(bytes == expected);
}

#[test]
fn without_its_sidecar_a_damaged_segment_loses_the_damaged_block_and_no_other() {
    let pair = mixed();
    let [entry] = pair.index.find(BlockId::from_raw(1005)) else { panic!() };
    let mut segment = pair.segment.clone();
    segment[entry.payload_range().start as usize + 5] ^= 1;
    let found = pair.look(&segment, None);
    let data: Vec<_> = found.lost.iter().filter(|lost| lost.part == Part::Data).collect();
    assert_eq!(data.len(), 1);
    assert_eq!(data[0].range, entry.frame_range());
    assert!(!found.is_segment_intact() && !found.is_sidecar_intact());
    // The first index damaged as well, the second whole.
    segment[pair.index.trailer().index_a.start as usize + 70] ^= 1;
    let found = pair.look(&segment, None);
    assert_eq!(found.lost.iter().filter(|lost| lost.part == Part::Data).count(), 1);
    assert!(found.patches.iter().any(|p| p.offset == pair.index.trailer().index_a.start));
}

#[test]
fn a_segment_that_relies_on_stores_has_no_parity_and_tells_what_is_damaged() {
    let (dir, sealed) = sealed(&[300, CELL_LEN + 9, 70_000], ParityPlace::Stores);
    assert!(!dir.path().join(NAME.id.file_name(FileKind::Sidecar)).exists());
    let trailer = sealed.index.trailer();
    assert_eq!((trailer.geometry, trailer.place), (None, ParityPlace::Stores));
    assert_eq!((trailer.sidecar_len(), trailer.parity_bytes()), (0, 0));
    let mut bytes = std::fs::read(&sealed.path).unwrap();
    assert!(repair(bytes.as_slice(), &NAME).unwrap().is_intact());
    let [entry] = sealed.index.find(BlockId::from_raw(1001)) else { panic!() };
    bytes[entry.payload_range().start as usize + 5] ^= 1;
    let found = repair(bytes.as_slice(), &NAME).unwrap();
    let lost = Damage { part: Part::Data, range: entry.frame_range() };
    assert_eq!((&found.lost[..], &found.damage[..]), (&[lost.clone()][..], &[lost][..]));
    // Pages and indexes stand twice and are mended.
    bytes[entry.payload_range().start as usize + 5] ^= 1;
    bytes[130] ^= 1;
    bytes[trailer.index_b.start as usize + 3] ^= 1;
    let found = repair(bytes.as_slice(), &NAME).unwrap();
    assert_eq!((found.lost.len(), found.damage.len(), found.patches.len()), (0, 2, 2));
}

#[test]
fn after_a_crash_the_parity_lies_where_the_header_says_or_else_inside() {
    for place in ParityPlace::ALL {
        for is_header_damaged in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = SegmentWriter::create(dir.path(), NAME, place).unwrap();
            writer.append(&mut raw_frame(1, &noise(1, 5000))).unwrap();
            let path = writer.path();
            drop(writer);
            // A sidecar of an attempt at sealing that did not come to its end.
            let sidecar = dir.path().join(NAME.id.file_name(FileKind::Sidecar));
            std::fs::write(&sidecar, b"torn").unwrap();
            if is_header_damaged {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[60] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
            let mut recovered = SegmentWriter::recover(dir.path(), NAME).unwrap().writer;
            let expected = if is_header_damaged { ParityPlace::Inside } else { place };
            assert_eq!(recovered.place(), expected);
            let sealed = recovered.seal().unwrap();
            assert_eq!(sealed.index.trailer().place, expected);
            let file = std::fs::File::open(&sealed.path).unwrap();
            let apart = std::fs::File::open(&sidecar).unwrap();
            assert!(repair(&WithSidecar::new(&file, Some(&apart)), &NAME).unwrap().is_intact());
        }
    }
}

#[test]
fn pages_that_contradict_their_version_or_place_are_refused() {
    let pair = mixed();
    let reseal = |page: &mut [u8]| {
        let sum = short(&blake3::hash(&page[24..]));
        le::put(page, 8, &sum);
    };
    let trailer = |at: usize, byte: u8| {
        let mut page = pair.segment[pair.segment.len() - TRAILER_LEN..].to_vec();
        page[at] = byte;
        reseal(&mut page);
        Trailer::from_bytes(&page, &NAME)
    };
    assert!(trailer(142, 1).is_ok());
    // Version 2 and inside; parity where there is none; version 1 with parity behind the end.
    for (at, byte) in [(142, 0), (142, 2), (24, 1)] {
        let error = trailer(at, byte).unwrap_err();
        assert!(matches!(error, crate::Error::Damaged { .. }), "{at} {byte}: {error}");
    }
    for (at, byte) in [(142, 3), (24, 3)] {
        let error = trailer(at, byte).unwrap_err();
        assert!(matches!(error, crate::Error::TooNew { .. }), "{at} {byte}: {error}");
    }
    let mut header = pair.segment[..128].to_vec();
    assert_eq!(SegmentHeader::from_bytes(&header).unwrap().place, ParityPlace::Object);
    header[56] = 0;
    reseal(&mut header);
    SegmentHeader::from_bytes(&header).unwrap_err();
}

#[test]
fn a_sidecar_has_its_golden_bytes() {
    let pair = pair(&[300]);
    let head = &pair.sidecar[..128];
    // By FORMAT.md, "Sidecar"; offsets are written out on purpose.
    assert_eq!(&head[0..8], b"\xf1Parit\r\n");
    assert_eq!(head[8..24], blake3::hash(&head[24..]).as_bytes()[..16]);
    assert_eq!(head[24..28], [1, 0, 0, 0]);
    let trailer = &pair.segment[pair.segment.len() - 256..];
    assert_eq!(head[32..56], trailer[32..56]);
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
    let table_len = u32::from_le_bytes(head[28..32].try_into().unwrap()) as usize;
    assert_eq!(number(56), pair.segment.len() as u64);
    assert_eq!(number(64), pair.sidecar.len() as u64);
    let parity_len = number(72) as usize;
    assert_eq!(head[80..96], trailer[160..176]);
    assert_eq!(head[96..], [0; 32]);
    let parity_at = (128 + table_len).next_multiple_of(64);
    let table_b = (parity_at + parity_len).next_multiple_of(64);
    assert_eq!(pair.sidecar.len(), table_b + table_len);
    let table = &pair.sidecar[128..128 + table_len];
    assert_eq!(table, &pair.sidecar[table_b..]);
    assert_eq!(blake3::hash(table).as_bytes()[..16], head[80..96]);
    let at = |at: usize| u64::from_le_bytes(trailer[at..at + 8].try_into().unwrap()) as usize;
    let end = pair.segment.len();
    assert_eq!((at(96), at(112), at(104)), (end + 128, end + parity_at, end + table_b));
    assert_eq!((trailer[24], trailer[142], pair.segment[24], pair.segment[56]), (2, 1, 2, 1));
}
