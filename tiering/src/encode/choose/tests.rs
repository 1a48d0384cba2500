#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use super::*;
use crate::block::MAX_BLOCK_LEN;
use crate::encode::tests::{Random, decode_block, field, text};
use crate::encode::{EncodedBlock, encode_block};

fn floats(big_endian: bool) -> Vec<u8> {
    field(MAX_BLOCK_LEN / 4)
        .flat_map(|value| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() })
        .collect()
}

fn delta(width: u8, big_endian: bool) -> Filter {
    Filter::DeltaShuffle { width, big_endian }
}

#[test]
fn a_float_field_picks_the_delta_of_its_byte_order() {
    for effort in [Effort::Normal, Effort::High] {
        for big_endian in [false, true] {
            let choice = probe(&floats(big_endian), effort).choice;
            assert_eq!((choice.codec, choice.filter), (Codec::Zstd, delta(4, big_endian)));
            assert!(choice.sample_stored * 5 < choice.unfiltered_stored * 4, "{choice:?}");
        }
    }
}

#[test]
fn what_was_asked_for_is_what_encodes() {
    let plain = floats(false);
    let noise = Random::new(9).bytes(MAX_BLOCK_LEN);
    for (asked, codec, level) in [
        (Compression::OFF, Codec::None, 0),
        (Compression::LZ4, Codec::Lz4, 0),
        (Compression::ZSTD, Codec::Zstd, 3),
        (Compression::zstd(12).unwrap(), Codec::Zstd, 12),
    ] {
        let mut memory = EncodeMemory::new(asked);
        for effort in [Effort::Fast, Effort::Normal, Effort::High, Effort::Fast] {
            let block = encode_block(&plain, &mut memory, effort);
            assert_eq!((block.codec, block.level), (codec, level), "{asked} {effort:?}");
            assert_eq!(decode_block(&block).unwrap(), plain);
        }
        assert_eq!(encode_block(&noise, &mut memory, Effort::Normal).codec, Codec::None);
    }
}

#[test]
fn what_is_asked_for_may_change_within_a_stream() {
    let plain = floats(true);
    let mut memory = EncodeMemory::new(Compression::OFF);
    let len =
        |memory: &mut EncodeMemory| encode_block(&plain, memory, Effort::Normal).payload.len();
    assert_eq!(len(&mut memory), plain.len());
    assert_eq!(memory.last_choice().unwrap().to_string(), "raw: compression is off");
    memory.set_compression(Compression::AUTO);
    let best = len(&mut memory);
    assert!(best < plain.len() / 2);
    memory.set_compression(Compression::LZ4);
    assert!(len(&mut memory) > best);
    memory.set_compression(Compression::OFF);
    assert_eq!(len(&mut memory), plain.len());
}

#[test]
fn a_double_series_picks_eight_bytes() {
    for big_endian in [false, true] {
        let mut random = Random::new(5);
        let mut time = 2_459_000.5_f64;
        let plain: Vec<u8> = (0..100_000)
            .flat_map(|_| {
                time += 1.0 / 86_400.0 * (1.0 + 0.001 * random.unit());
                if big_endian { time.to_be_bytes() } else { time.to_le_bytes() }
            })
            .collect();
        assert_eq!(probe(&plain, Effort::Normal).choice.filter, delta(8, big_endian));
    }
}

#[test]
fn a_sampled_signal_picks_two_bytes() {
    for big_endian in [false, true] {
        let mut random = Random::new(6);
        let plain: Vec<u8> = (0..200_000)
            .flat_map(|i| {
                let value = 9000.0 * (f64::from(i) / 90.0).sin() + 40.0 * random.unit();
                if big_endian { (value as i16).to_be_bytes() } else { (value as i16).to_le_bytes() }
            })
            .collect();
        assert_eq!(probe(&plain, Effort::Normal).choice.filter, delta(2, big_endian));
    }
}

#[test]
fn scattered_floats_of_one_magnitude_pick_a_shuffle() {
    let mut random = Random::new(8);
    let plain: Vec<u8> =
        (0..200_000).flat_map(|_| (1.0 + random.unit() as f32).to_le_bytes()).collect();
    let choice = probe(&plain, Effort::Normal).choice;
    assert!(matches!(choice.filter, Filter::Shuffle { width: 4 | 8 }), "{choice:?}");
}

#[test]
fn text_is_compressed_without_a_filter() {
    for effort in [Effort::Fast, Effort::Normal, Effort::High, Effort::Archive] {
        let choice = probe(&text(300_000), effort).choice;
        assert_eq!(choice.filter, Filter::None, "{effort:?}");
        let fast = effort == Effort::Fast;
        assert_eq!(choice.codec, if fast { Codec::Lz4 } else { Codec::Zstd });
    }
}

#[test]
fn more_effort_stores_less() {
    for plain in [floats(true), text(400_000)] {
        let stored = [Effort::Fast, Effort::Normal, Effort::High, Effort::Archive]
            .map(|effort| encode_block(&plain, &mut EncodeMemory::default(), effort).payload.len());
        assert!(stored.is_sorted_by(|a, b| a > b), "{stored:?}");
    }
}

/// Words of noise said twice over: nothing for an entropy coder, everything for a matcher.
#[test]
fn lz4_wins_a_tie() {
    let mut random = Random::new(9);
    let words: Vec<Vec<u8>> = (0..64).map(|_| random.bytes(512)).collect();
    let plain: Vec<u8> =
        (0..600).flat_map(|_| words[random.next() as usize % words.len()].clone()).collect();
    assert_eq!(probe(&plain, Effort::Normal).choice.codec, Codec::Lz4);
}

#[test]
fn text_between_the_windows_of_noise_is_found() {
    let mut plain = Random::new(10).bytes(MAX_BLOCK_LEN);
    plain[3 * CELL_LEN..5 * CELL_LEN].copy_from_slice(&text(2 * CELL_LEN));
    let block = encode_block(&plain, &mut EncodeMemory::default(), Effort::Normal);
    assert_eq!(block.codec, Codec::Zstd);
    assert!((block.cell_lens[3] as usize) < CELL_LEN / 2);
    assert_eq!(block.cell_lens[0] as usize, CELL_LEN);
    assert_eq!(decode_block(&block).unwrap(), plain);
}

#[test]
fn a_few_bytes_are_encoded_without_trying_filters() {
    let probe = probe(&[7; 300], Effort::Normal);
    assert!(probe.candidates.iter().all(|candidate| candidate.filter == Filter::None));
    assert_ne!(probe.choice.codec, Codec::None);
}

#[test]
fn a_choice_explains_itself() {
    let explain = |plain: &[u8]| probe(plain, Effort::Normal).choice.to_string();
    assert!(explain(&Random::new(1).bytes(99_999)).starts_with("raw: "));
    assert!(explain(&text(99_999)).starts_with("zstd-1: ratio "));
    let field = explain(&floats(true));
    assert!(field.starts_with("delta4be zstd-1: ratio "), "{field}");
    assert!(field.ends_with(" without the filter"), "{field}");
}

#[test]
fn a_steady_stream_is_probed_once_in_seventeen_blocks() {
    for plain in [floats(false), text(200_000), Random::new(3).bytes(200_000)] {
        let mut memory = EncodeMemory::default();
        for _ in 0..17 {
            encode_block(&plain, &mut memory, Effort::Normal);
        }
        assert_eq!(memory.probes(), 1);
        encode_block(&plain, &mut memory, Effort::Normal);
        assert_eq!(memory.probes(), 2);
    }
}

#[test]
fn a_stream_that_changes_is_probed_at_once() {
    let kinds = [floats(true), text(MAX_BLOCK_LEN), Random::new(3).bytes(MAX_BLOCK_LEN)];
    for first in &kinds {
        for second in kinds.iter().filter(|second| *second != first) {
            let mut memory = EncodeMemory::default();
            encode_block(first, &mut memory, Effort::Normal);
            let block = encode_block(second, &mut memory, Effort::Normal);
            let fresh = encode_block(second, &mut EncodeMemory::default(), Effort::Normal);
            assert_eq!((block.codec, block.filter), (fresh.codec, fresh.filter));
            assert_eq!(block.payload, fresh.payload);
        }
    }
}

/// Seven-bit noise looks compressible to a glance and is so for zstd, but not for lz4.
#[test]
fn noise_that_looks_compressible_is_not_probed_again_and_again() {
    let plain: Vec<u8> = Random::new(3).bytes(300_000).iter().map(|byte| byte & 0x3f).collect();
    let mut memory = EncodeMemory::default();
    for _ in 0..10 {
        let block = encode_block(&plain, &mut memory, Effort::Fast);
        assert_eq!(block.codec, Codec::None);
    }
    assert_eq!(memory.probes(), 1);
}

#[test]
fn each_effort_is_remembered_apart() {
    let plain = floats(true);
    let mut memory = EncodeMemory::default();
    for _ in 0..4 {
        assert_eq!(encode_block(&plain, &mut memory, Effort::Normal).codec, Codec::Zstd);
        assert_eq!(encode_block(&plain, &mut memory, Effort::Fast).codec, Codec::Lz4);
    }
    assert_eq!(memory.probes(), 2);
    assert_eq!(memory.last_choice().unwrap().codec, Codec::Lz4);
}

fn files_below(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, files) } else { files.push(path) }
    }
}

fn stored_len(block: &EncodedBlock) -> u64 {
    block.payload.len() as u64 + 16 * block.cell_lens.len() as u64
}

/// Measures real files: `FIRN_SCIDATA=<dir> cargo test -p firn-tiering real_files -- --nocapture`.
/// The bounds are those of the sample files that the margins were set on.
#[test]
#[allow(clippy::print_stderr, reason = "it is a measurement")]
fn real_files_reach_their_ratio() {
    let Some(dir) = std::env::var_os("FIRN_SCIDATA").map(PathBuf::from) else {
        eprintln!("FIRN_SCIDATA names no directory: nothing measured");
        return;
    };
    let mut files = Vec::new();
    files_below(&dir, &mut files);
    for (effort, least_ratio) in [(Effort::Normal, 2.9), (Effort::High, 3.0)] {
        let mut folders = std::collections::BTreeMap::<PathBuf, (u64, u64)>::new();
        for file in &files {
            let plain = std::fs::read(file).unwrap();
            let mut memory = EncodeMemory::default();
            let relative = file.strip_prefix(&dir).unwrap();
            let folder = folders.entry(relative.parent().unwrap().to_owned()).or_default();
            for block in plain.chunks(MAX_BLOCK_LEN) {
                let encoded = encode_block(block, &mut memory, effort);
                assert!(decode_block(&encoded).unwrap() == block, "{}", file.display());
                folder.0 += block.len() as u64;
                folder.1 += stored_len(&encoded);
            }
        }
        let mut total = (0, 0);
        for (folder, (plain, stored)) in folders {
            let ratio = plain as f64 / stored as f64;
            eprintln!("{effort:?} {:12} {plain:>10} {ratio:.3}", folder.display());
            total = (total.0 + plain, total.1 + stored);
        }
        let ratio = total.0 as f64 / total.1 as f64;
        eprintln!("{effort:?} {:12} {:>10} {ratio:.4}", "total", total.0);
        assert!(ratio >= least_ratio);
    }
}

#[test]
fn estimates_are_close_to_the_entropy() {
    let measured = |bytes: &[u8]| estimate::filters(bytes).unfiltered;
    assert!((measured(&Random::new(1).bytes(16_384)) - 1.0).abs() < 0.02);
    let half: Vec<u8> = Random::new(1).bytes(16_384).iter().map(|byte| byte & 15).collect();
    assert!((measured(&half) - 0.5).abs() < 0.02);
    assert!(measured(&[9; 16_384]) < 0.01);
}
