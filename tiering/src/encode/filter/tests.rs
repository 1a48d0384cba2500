#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::encode::tests::any_filter;

fn filtered(filter: Filter, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0xee; plain.len()];
    apply(filter, plain, &mut out);
    out
}

fn undone(filter: Filter, filtered: &[u8]) -> Vec<u8> {
    let mut out = vec![0xee; filtered.len()];
    undo(filter, filtered, &mut out);
    out
}

// The filtered bytes are stored on disk: these may never change.

#[test]
fn golden_shuffle() {
    let plain: Vec<u8> = (0..19).collect();
    assert_eq!(
        filtered(Filter::Shuffle { width: 2 }, &plain),
        [0, 2, 4, 6, 8, 10, 12, 14, 16, 1, 3, 5, 7, 9, 11, 13, 15, 17, 18]
    );
    assert_eq!(
        filtered(Filter::Shuffle { width: 4 }, &plain),
        [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 16, 17, 18]
    );
    assert_eq!(
        filtered(Filter::Shuffle { width: 8 }, &plain),
        [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15, 16, 17, 18]
    );
}

#[test]
fn golden_delta_shuffle_little_endian() {
    // 0x0100, 0x0102, 0x00ff: differences +0x100, +2, -3 zigzag to 0x200, 4, 5.
    assert_eq!(
        filtered(
            Filter::DeltaShuffle { width: 2, big_endian: false },
            &[0x00, 0x01, 0x02, 0x01, 0xff, 0x00, 0xaa]
        ),
        [0x00, 0x04, 0x05, 0x02, 0x00, 0x00, 0xaa]
    );
    // 1, 0xffff_ffff: +1, -2 zigzag to 2, 3.
    assert_eq!(
        filtered(
            Filter::DeltaShuffle { width: 4, big_endian: false },
            &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xaa, 0xbb, 0xcc]
        ),
        [2, 3, 0, 0, 0, 0, 0, 0, 0xaa, 0xbb, 0xcc]
    );
    // i64::MIN, 0: the difference i64::MIN zigzags to u64::MAX, twice.
    assert_eq!(
        filtered(
            Filter::DeltaShuffle { width: 8, big_endian: false },
            &[0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0xaa]
        ),
        [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xff, 0xaa
        ]
    );
}

#[test]
fn golden_delta_shuffle_big_endian() {
    assert_eq!(
        filtered(
            Filter::DeltaShuffle { width: 2, big_endian: true },
            &[0x01, 0x00, 0x01, 0x02, 0x00, 0xff, 0xaa]
        ),
        [0x00, 0x04, 0x05, 0x02, 0x00, 0x00, 0xaa]
    );
    // 0x01020304, 0x01020305.
    assert_eq!(
        filtered(
            Filter::DeltaShuffle { width: 4, big_endian: true },
            &[1, 2, 3, 4, 1, 2, 3, 5, 0xaa]
        ),
        [8, 2, 6, 0, 4, 0, 2, 0, 0xaa]
    );
    // 0x0102030405060708, one less.
    assert_eq!(
        filtered(
            Filter::DeltaShuffle { width: 8, big_endian: true },
            &[1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 7]
        ),
        [0x10, 1, 0x0e, 0, 0x0c, 0, 0x0a, 0, 8, 0, 6, 0, 4, 0, 2, 0]
    );
}

#[test]
fn big_endian_elements_filter_to_the_same_bytes_as_little_endian_ones() {
    let values: Vec<u32> = (0..1000_u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
    let little: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let big: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
    assert_eq!(
        filtered(Filter::DeltaShuffle { width: 4, big_endian: false }, &little),
        filtered(Filter::DeltaShuffle { width: 4, big_endian: true }, &big)
    );
}

#[test]
fn inputs_shorter_than_an_element_pass_through() {
    for width in [2, 4, 8] {
        for len in 0..width {
            let plain: Vec<u8> = (1..=len).collect();
            for filter in [
                Filter::Shuffle { width },
                Filter::DeltaShuffle { width, big_endian: false },
                Filter::DeltaShuffle { width, big_endian: true },
            ] {
                assert_eq!(filtered(filter, &plain), plain);
                assert_eq!(undone(filter, &plain), plain);
            }
        }
    }
}

proptest! {
    #[test]
    fn undo_is_the_inverse_of_apply(
        filter in any_filter(),
        plain in prop::collection::vec(any::<u8>(), 0..9000),
    ) {
        prop_assert_eq!(undone(filter, &filtered(filter, &plain)), plain);
    }

    #[test]
    fn runs_join_without_a_seam(
        filter in any_filter(),
        // Lengths around multiples of the run, where the previous element is carried over.
        len in prop::sample::select(vec![RUN, 2 * RUN, 4 * RUN, 8 * RUN, 16 * RUN]),
        more in 0_usize..17,
        step in any::<u64>(),
    ) {
        let mut state = step;
        let plain: Vec<u8> = (0..len + more).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step | 1);
            (state >> 56) as u8
        }).collect();
        let out = filtered(filter, &plain);
        if let Filter::DeltaShuffle { width, big_endian } = filter {
            prop_assert_eq!(&out, &slow_delta_shuffle(&plain, usize::from(width), big_endian));
        }
        prop_assert_eq!(undone(filter, &out), plain);
    }
}

/// The definition in the module's head, followed word by word.
fn slow_delta_shuffle(plain: &[u8], width: usize, big_endian: bool) -> Vec<u8> {
    let count = plain.len() / width;
    let bits = 8 * width as u32;
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let mut out = vec![0; plain.len()];
    out[count * width..].copy_from_slice(&plain[count * width..]);
    let mut previous = 0_u64;
    for i in 0..count {
        let bytes = &plain[i * width..(i + 1) * width];
        let value = (0..width).fold(0_u64, |value, byte| {
            let shift = if big_endian { width - 1 - byte } else { byte };
            value | u64::from(bytes[byte]) << (8 * shift)
        });
        let delta = value.wrapping_sub(previous) & mask;
        let negative = delta >> (bits - 1) == 1;
        let zigzag = (delta << 1 & mask) ^ if negative { mask } else { 0 };
        for plane in 0..width {
            out[plane * count + i] = (zigzag >> (8 * plane)) as u8;
        }
        previous = value;
    }
    out
}

#[test]
fn the_portable_loops_agree_with_the_dispatched_ones() {
    fn agree<E: Element, const DELTA: bool, const BIG: bool>(plain: &[u8]) {
        let mut portable = vec![0; plain.len()];
        let mut dispatched = vec![0; plain.len()];
        forward_loops::<E, DELTA, BIG>(plain, &mut portable);
        forward::<E, DELTA, BIG>(plain, &mut dispatched);
        assert_eq!(portable, dispatched);
        backward_loops::<E, DELTA, BIG>(&dispatched, &mut portable);
        assert_eq!(portable, plain);
    }
    let plain = crate::encode::tests::Random::new(11).bytes(20_011);
    agree::<u16, false, false>(&plain);
    agree::<u16, true, false>(&plain);
    agree::<u16, true, true>(&plain);
    agree::<u32, false, false>(&plain);
    agree::<u32, true, false>(&plain);
    agree::<u32, true, true>(&plain);
    agree::<u64, false, false>(&plain);
    agree::<u64, true, false>(&plain);
    agree::<u64, true, true>(&plain);
}
