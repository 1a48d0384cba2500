//! Damage as a table: what is done x where, and each ends in the right bytes or a named error.

use super::*;
use std::ops::Range;

fn mixed() -> Sample {
    Sample::raw(&[1, 100, 4096, CELL_LEN, CELL_LEN + 1, 3 * CELL_LEN + 5, 200, 200, 70_000])
}

/// Every part of a segment, by name, and whether a block's bytes are in it.
fn places(sample: &Sample) -> Vec<(&'static str, Range<u64>, bool)> {
    let trailer = sample.index.trailer();
    let entry = sample.entry(BlockId::from_raw(1005));
    let cell = entry.cell_range(0..1).unwrap().stored();
    let tag = cell.end - TAG_LEN as u64..cell.end;
    vec![
        ("header", 0..128, false),
        ("head trailer", 128..384, false),
        ("frame header", entry.offset..entry.payload_range().start, false),
        ("cell", cell.start..tag.start, true),
        ("tag", tag, false),
        ("index A", trailer.index_a.clone(), false),
        ("table A", trailer.table_a.clone(), false),
        ("parity", trailer.parity.clone(), false),
        ("table B", trailer.table_b.clone(), false),
        ("index B", trailer.index_b.clone(), false),
        ("end trailer", trailer.file_len - TRAILER_LEN as u64..trailer.file_len, false),
    ]
}

type Action = (&'static str, fn(&mut [u8], &mut Dice));

const ACTIONS: [Action; 5] = [
    ("flip a bit", |bytes, dice| {
        let at = dice.roll(bytes.len());
        bytes[at] ^= 1 << dice.roll(8);
    }),
    ("overwrite all", |bytes, _| bytes.iter_mut().for_each(|byte| *byte = !*byte)),
    ("zero the end", |bytes, _| {
        let half = bytes.len() / 2;
        bytes[half..].fill(0);
        bytes[half] ^= 0x80;
    }),
    ("shift by one", |bytes, _| bytes.rotate_right(1)),
    ("swap halves", |bytes, _| {
        let half = bytes.len() / 2;
        bytes.rotate_left(half);
    }),
];

#[test]
fn each_part_damaged_in_each_way_is_noticed_and_rebuilt() {
    let sample = mixed();
    assert_eq!(sample.count_damaged(&sample.bytes), 0);
    sample.expect_repaired(&sample.bytes);
    let mut dice = Dice::new(1);
    for (place, range, in_block) in places(&sample) {
        for (action, act) in ACTIONS {
            let mut bytes = sample.bytes.clone();
            act(&mut bytes[range.start as usize..range.end as usize], &mut dice);
            if bytes == sample.bytes {
                continue;
            }
            let what = format!("{action} in {place}");
            let index = SegmentIndex::from_file(bytes.as_slice(), &NAME).expect(&what);
            assert_eq!(index, sample.index, "{what}");
            assert_eq!(sample.count_damaged(&bytes), usize::from(in_block), "{what}");
            assert!(!repair(bytes.as_slice(), &NAME).unwrap().is_intact(), "{what}");
            // The bytes under all parity shards are more than can be missing at once.
            if place == "parity" || place == "cell" {
                let report = repair(bytes.as_slice(), &NAME).unwrap();
                if !report.lost.is_empty() {
                    assert_ne!(action, "flip a bit");
                    continue;
                }
            }
            sample.expect_repaired(&bytes);
        }
    }
}

#[test]
fn a_damaged_cell_leaves_the_other_cells_readable() {
    let sample = mixed();
    let entry = sample.entry(BlockId::from_raw(1005)).clone();
    let (_, plain) = &sample.blocks[5];
    let mut bytes = sample.bytes.clone();
    let second = entry.cell_range(CELL_LEN as u32..CELL_LEN as u32 + 1).unwrap();
    bytes[second.stored().start as usize + 9] ^= 4;
    for (index, cell) in plain.chunks(CELL_LEN).enumerate() {
        let start = (index * CELL_LEN) as u32;
        let read = entry.cell_range(start..start + 1).unwrap();
        let stored = &bytes[read.stored().start as usize..read.stored().end as usize];
        match read.open(&entry.block_ref(), stored) {
            Ok(read) => assert!(index != 1 && read.bytes() == cell),
            Err(error) => assert!(index == 1 && error.to_string().contains("cell 1"), "{error}"),
        }
    }
}

#[test]
fn frames_that_changed_places_are_not_each_other() {
    let sample = mixed();
    let (a, b) = (sample.entry(BlockId::from_raw(1006)), sample.entry(BlockId::from_raw(1007)));
    let mut bytes = sample.bytes.clone();
    let frame = |range: Range<u64>| sample.bytes[range.start as usize..range.end as usize].to_vec();
    super::super::le::put(&mut bytes, a.offset as usize, &frame(b.frame_range()));
    super::super::le::put(&mut bytes, b.offset as usize, &frame(a.frame_range()));
    assert_eq!(sample.count_damaged(&bytes), 2);
    let failures = check_frames(bytes.as_slice(), &sample.index);
    assert_eq!(failures.iter().map(|(id, _)| id.raw()).collect::<Vec<_>>(), [1006, 1007]);
    sample.expect_repaired(&bytes);
}

#[test]
fn bytes_of_another_digest_or_length_are_refused() {
    let sample = mixed();
    let entry = sample.entry(BlockId::from_raw(1005));
    let read = entry.whole();
    let stored = &sample.bytes[read.stored().start as usize..read.stored().end as usize];
    let good = entry.block_ref();
    assert!(read.open(&good, stored).is_ok());
    let mut other = good;
    other.digest.0[15] ^= 1;
    assert!(read.open(&other, stored).is_err());
    let one = entry.cell_range(0..1).unwrap();
    let first = &sample.bytes[one.stored().start as usize..one.stored().end as usize];
    assert!(one.open(&good, first).is_ok());
    assert!(one.open(&other, first).is_err());
    assert!(read.open(&crate::BlockRef { len: good.len - 1, ..good }, stored).is_err());
    assert!(read.open(&crate::BlockRef { id: BlockId::from_raw(1), ..good }, stored).is_err());
    assert!(read.open(&good, &stored[..stored.len() - 1]).is_err());
    assert!(read.open(&good, &[stored, &[0]].concat()).is_err());
    assert!(entry.cell_range(0..good.len + 1).is_err());
    assert!(entry.cell_range(5..5).is_err());
}

#[test]
fn a_cut_segment_ends_in_right_bytes_or_an_error() {
    let sample = mixed();
    let len = sample.bytes.len();
    let mut dice = Dice::new(7);
    let mut cuts: Vec<_> = (0..40).map(|_| dice.roll(len)).collect();
    cuts.extend([0, 1, 127, 128, 383, 384, 511, 512, 513, len - 1, len - 256, len - 257]);
    for cut in cuts {
        let bytes = &sample.bytes[..cut];
        if let Ok(index) = SegmentIndex::from_file(bytes, &NAME) {
            assert_eq!(index, sample.index);
        }
        sample.count_damaged(bytes);
        match repair(bytes, &NAME) {
            Ok(report) if report.lost.is_empty() => sample.expect_repaired(bytes),
            Ok(report) => assert!(!report.damage.is_empty()),
            Err(error) => assert!(matches!(error, crate::Error::Damaged { .. }), "{error}"),
        }
    }
    sample.expect_repaired(&sample.bytes[..len - 1]);
    sample.expect_repaired(&[&sample.bytes[..], &[1, 2, 3]].concat());
}

#[test]
fn five_hundred_bit_flips_never_give_a_wrong_byte() {
    let sample = mixed();
    let mut dice = Dice::new(42);
    let mut all = sample.bytes.clone();
    for round in 0..500 {
        let at = dice.roll(sample.bytes.len());
        let bit = 1 << dice.roll(8);
        all[at] ^= bit;
        let mut bytes = sample.bytes.clone();
        bytes[at] ^= bit;
        assert_eq!(SegmentIndex::from_file(bytes.as_slice(), &NAME).unwrap(), sample.index);
        assert!(sample.count_damaged(&bytes) <= 1);
        if round % 10 == 0 {
            sample.expect_repaired(&bytes);
        }
    }
    assert!(sample.count_damaged(&all) > 0, "500 flips hit no block");
}

/// Destroys a run of 1 % at `start`, and two more shards of each stripe.
fn wound(sample: &Sample, start: usize, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = sample.bytes.clone();
    let run = bytes.len() / 100;
    bytes[start..start + run].iter_mut().for_each(|byte| *byte ^= 0xa5);
    let trailer = sample.index.trailer();
    let geometry = trailer.geometry.unwrap();
    let shard_len = u64::from(geometry.shard_len);
    for stripe in 0..u32::from(geometry.stripes) {
        let members: Vec<_> = geometry.members(stripe).collect();
        for _ in 0..2 {
            let number = u64::from(members[dice.roll(members.len())]);
            let data = u64::from(geometry.data_shards);
            let at = if number < data {
                DATA_START + number * shard_len
            } else {
                trailer.parity.start + (number - data) * shard_len
            };
            bytes[at as usize] ^= 0xff;
        }
    }
    bytes
}

#[test]
fn a_run_of_one_percent_and_two_more_shards_of_each_stripe_are_rebuilt() {
    let mut dice = Dice::new(3);
    let full = vec![1 << 20; 60];
    let small: Vec<usize> = vec![300; 3000];
    let cases: [(&[usize], usize); 7] = [
        (&[1], 20),
        (&[5000, 5000], 20),
        (&[100_000], 20),
        (&[200_000, 50_000, 3], 20),
        (&small, 12),
        (&[1 << 20, 1 << 20, 777_777], 12),
        (&full, 2),
    ];
    for (lens, rounds) in cases {
        let sample = Sample::raw(lens);
        let trailer = sample.index.trailer().clone();
        let run = sample.bytes.len() / 100;
        let last = sample.bytes.len() - run;
        let seam = (trailer.protected_end as usize - run / 2).min(last);
        let mut starts = vec![seam, 0, last, trailer.parity.start as usize];
        starts.extend((0..rounds).map(|_| dice.roll(last + 1)));
        for start in starts.into_iter().take(rounds) {
            let bytes = wound(&sample, start.min(last), &mut dice);
            sample.expect_repaired(&bytes);
            // Dense indexes leave the cell lengths out.
            let refs = |index: &SegmentIndex| -> Vec<_> {
                index.entries().iter().map(|e| (e.block_ref(), e.frame_range())).collect()
            };
            if let Ok(index) = SegmentIndex::from_file(bytes.as_slice(), &NAME) {
                assert!(refs(&index) == refs(&sample.index));
            }
        }
    }
}

#[test]
fn more_than_parity_can_mend_is_said_and_the_rest_is_mended() {
    let sample = mixed();
    let trailer = sample.index.trailer();
    let geometry = trailer.geometry.unwrap();
    let mut bytes = sample.bytes.clone();
    for number in geometry.members(1).take(6) {
        bytes[(DATA_START + u64::from(number) * u64::from(geometry.shard_len)) as usize] ^= 1;
    }
    bytes[trailer.index_b.start as usize] ^= 1;
    let report = repair(bytes.as_slice(), &NAME).unwrap();
    assert_eq!(report.lost.len(), 6);
    assert!(report.lost.iter().all(|lost| lost.part == Part::Data));
    assert!(report.patches.iter().any(|patch| patch.offset == trailer.index_b.start));
    for patch in &report.patches {
        let right = &sample.bytes[patch.offset as usize..][..patch.bytes.len()];
        assert!(right == patch.bytes, "a patch holds unverified bytes");
    }
}

#[test]
fn damage_to_both_tables_still_leaves_good_shards_usable() {
    let sample = mixed();
    let trailer = sample.index.trailer();
    let mut bytes = sample.bytes.clone();
    bytes[trailer.table_a.start as usize + 3] ^= 1;
    bytes[trailer.table_b.end as usize - 3] ^= 1;
    let entry = sample.entry(BlockId::from_raw(1003));
    bytes[entry.payload_range().start as usize] ^= 1;
    sample.expect_repaired(&bytes);
}

#[test]
fn a_shard_with_a_forged_checksum_is_not_trusted() {
    // One shard and both tables' entries of it changed alike: the tables no longer match the
    // trailer, and the frame's own digest still tells.
    let sample = mixed();
    let trailer = sample.index.trailer();
    let geometry = trailer.geometry.unwrap();
    let entry = sample.entry(BlockId::from_raw(1003));
    let mut bytes = sample.bytes.clone();
    let at = entry.payload_range().start;
    bytes[at as usize] ^= 1;
    let number = (at - DATA_START) / u64::from(geometry.shard_len);
    let from = (DATA_START + number * u64::from(geometry.shard_len)) as usize;
    let sum = short(&blake3::hash(&bytes[from..from + geometry.shard_len as usize]));
    for table in [&trailer.table_a, &trailer.table_b] {
        le::put(&mut bytes, table.start as usize + number as usize * 16, &sum);
    }
    assert_eq!(sample.count_damaged(&bytes), 1);
    let report = repair(bytes.as_slice(), &NAME).unwrap();
    assert!(report.lost.iter().any(|lost| lost.part == Part::TableA));
}
