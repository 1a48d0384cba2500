//! Filters: reversible rearrangements that make arrays of numbers compressible.
//!
//! They run on every cell on the way in and out, so the loops are written for the vectoriser:
//! a short run of elements is gathered in an array, and each byte plane is one narrowing pass
//! over it. The output bytes are a stored format, pinned by golden tests.
//!
//! With `n = len / width` whole elements, the output is `width` planes of `n` bytes and then the
//! `len % width` tail bytes unchanged. Plane `p` of a shuffle holds byte `p` of each element in
//! file order. Plane `p` of a delta-shuffle holds byte `p`, least significant first, of
//! `zigzag(x[i] - x[i-1])` with `x[-1] = 0`, wrapping at the width, whatever the byte order of
//! the elements.

use super::Filter;

/// Elements gathered at a time: 4 KiB of the widest, which stays in the first-level cache.
const RUN: usize = 512;

/// An unsigned integer as wide as an array element.
trait Element: Copy + Default {
    const WIDTH: usize;
    fn load<const BIG: bool>(bytes: &[u8]) -> Self;
    fn store<const BIG: bool>(self, bytes: &mut [u8]);
    /// Byte `plane`, counted from the least significant.
    fn byte(self, plane: usize) -> u8;
    /// `self` with byte `plane`, zero until now, set.
    fn with_byte(self, plane: usize, byte: u8) -> Self;
    fn zigzag_from(self, previous: Self) -> Self;
    fn unzigzag_onto(self, previous: Self) -> Self;
}

macro_rules! element {
    ($int:ty, $signed:ty) => {
        impl Element for $int {
            const WIDTH: usize = size_of::<$int>();

            #[inline(always)]
            fn load<const BIG: bool>(bytes: &[u8]) -> Self {
                let bytes = bytes.try_into().expect("callers cut exact elements");
                if BIG { Self::from_be_bytes(bytes) } else { Self::from_le_bytes(bytes) }
            }

            #[inline(always)]
            fn store<const BIG: bool>(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&if BIG { self.to_be_bytes() } else { self.to_le_bytes() });
            }

            #[inline(always)]
            fn byte(self, plane: usize) -> u8 {
                (self >> (8 * plane)) as u8
            }

            #[inline(always)]
            fn with_byte(self, plane: usize, byte: u8) -> Self {
                self | Self::from(byte) << (8 * plane)
            }

            #[inline(always)]
            fn zigzag_from(self, previous: Self) -> Self {
                let delta = self.wrapping_sub(previous);
                delta << 1 ^ (delta as $signed >> (Self::BITS - 1)) as Self
            }

            #[inline(always)]
            fn unzigzag_onto(self, previous: Self) -> Self {
                previous.wrapping_add(self >> 1 ^ (self & 1).wrapping_neg())
            }
        }
    };
}

element!(u16, i16);
element!(u32, i32);
element!(u64, i64);

/// Writes `plain` filtered to `out`, which has the same length.
///
/// A width other than 2, 4 and 8 leaves the bytes as they are.
pub(super) fn apply(filter: Filter, plain: &[u8], out: &mut [u8]) {
    assert_eq!(plain.len(), out.len(), "a filter keeps the length");
    match filter {
        Filter::Shuffle { width: 2 } => forward::<u16, false, false>(plain, out),
        Filter::Shuffle { width: 4 } => forward::<u32, false, false>(plain, out),
        Filter::Shuffle { width: 8 } => forward::<u64, false, false>(plain, out),
        Filter::DeltaShuffle { width: 2, big_endian: false } => {
            forward::<u16, true, false>(plain, out);
        }
        Filter::DeltaShuffle { width: 4, big_endian: false } => {
            forward::<u32, true, false>(plain, out);
        }
        Filter::DeltaShuffle { width: 8, big_endian: false } => {
            forward::<u64, true, false>(plain, out);
        }
        Filter::DeltaShuffle { width: 2, big_endian: true } => {
            forward::<u16, true, true>(plain, out);
        }
        Filter::DeltaShuffle { width: 4, big_endian: true } => {
            forward::<u32, true, true>(plain, out);
        }
        Filter::DeltaShuffle { width: 8, big_endian: true } => {
            forward::<u64, true, true>(plain, out);
        }
        Filter::None | Filter::Shuffle { .. } | Filter::DeltaShuffle { .. } => {
            out.copy_from_slice(plain);
        }
    }
}

/// Undoes [`apply`]: writes the plaintext of `filtered` to `out`, which has the same length.
pub(super) fn undo(filter: Filter, filtered: &[u8], out: &mut [u8]) {
    assert_eq!(filtered.len(), out.len(), "a filter keeps the length");
    match filter {
        Filter::Shuffle { width: 2 } => backward::<u16, false, false>(filtered, out),
        Filter::Shuffle { width: 4 } => backward::<u32, false, false>(filtered, out),
        Filter::Shuffle { width: 8 } => backward::<u64, false, false>(filtered, out),
        Filter::DeltaShuffle { width: 2, big_endian: false } => {
            backward::<u16, true, false>(filtered, out);
        }
        Filter::DeltaShuffle { width: 4, big_endian: false } => {
            backward::<u32, true, false>(filtered, out);
        }
        Filter::DeltaShuffle { width: 8, big_endian: false } => {
            backward::<u64, true, false>(filtered, out);
        }
        Filter::DeltaShuffle { width: 2, big_endian: true } => {
            backward::<u16, true, true>(filtered, out);
        }
        Filter::DeltaShuffle { width: 4, big_endian: true } => {
            backward::<u32, true, true>(filtered, out);
        }
        Filter::DeltaShuffle { width: 8, big_endian: true } => {
            backward::<u64, true, true>(filtered, out);
        }
        Filter::None | Filter::Shuffle { .. } | Filter::DeltaShuffle { .. } => {
            out.copy_from_slice(filtered);
        }
    }
}

/// Calls the same loops compiled for the widest vectors that the processor has: 2 to 6 times as
/// fast as with the baseline of x86-64.
macro_rules! dispatch {
    ($name:ident, $loops:ident, $avx2:ident, $avx512:ident) => {
        fn $name<E: Element, const DELTA: bool, const BIG: bool>(input: &[u8], out: &mut [u8]) {
            #[cfg(target_arch = "x86_64")]
            {
                if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
                    // SAFETY: the processor has the features that the function requires.
                    return unsafe { $avx512::<E, DELTA, BIG>(input, out) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has the feature that the function requires.
                    return unsafe { $avx2::<E, DELTA, BIG>(input, out) };
                }
            }
            $loops::<E, DELTA, BIG>(input, out);
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512bw,avx512vl")]
        fn $avx512<E: Element, const DELTA: bool, const BIG: bool>(input: &[u8], out: &mut [u8]) {
            $loops::<E, DELTA, BIG>(input, out);
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn $avx2<E: Element, const DELTA: bool, const BIG: bool>(input: &[u8], out: &mut [u8]) {
            $loops::<E, DELTA, BIG>(input, out);
        }
    };
}

dispatch!(forward, forward_loops, forward_avx2, forward_avx512);
dispatch!(backward, backward_loops, backward_avx2, backward_avx512);

#[inline(always)]
fn forward_loops<E: Element, const DELTA: bool, const BIG: bool>(plain: &[u8], out: &mut [u8]) {
    let count = plain.len() / E::WIDTH;
    let (elements, tail) = plain.split_at(count * E::WIDTH);
    let (planes, out_tail) = out.split_at_mut(count * E::WIDTH);
    out_tail.copy_from_slice(tail);

    let mut run = [E::default(); RUN];
    let mut previous = E::default();
    for (index, bytes) in elements.chunks(RUN * E::WIDTH).enumerate() {
        let run = &mut run[..bytes.len() / E::WIDTH];
        if DELTA {
            delta_run::<E, BIG>(bytes, previous, run);
            previous = E::load::<BIG>(&bytes[bytes.len() - E::WIDTH..]);
        } else {
            for (element, bytes) in run.iter_mut().zip(bytes.chunks_exact(E::WIDTH)) {
                *element = E::load::<BIG>(bytes);
            }
        }
        for plane in 0..E::WIDTH {
            let start = plane * count + index * RUN;
            let out = &mut planes[start..start + run.len()];
            for (out, element) in out.iter_mut().zip(run.iter()) {
                *out = element.byte(plane);
            }
        }
    }
}

/// Both operands are loaded from memory instead of carrying the previous element along, which
/// would chain the iterations and keep the loop scalar.
#[inline(always)]
fn delta_run<E: Element, const BIG: bool>(bytes: &[u8], previous: E, run: &mut [E]) {
    let Some((first, rest)) = run.split_first_mut() else { return };
    *first = E::load::<BIG>(&bytes[..E::WIDTH]).zigzag_from(previous);
    let current = bytes[E::WIDTH..].chunks_exact(E::WIDTH);
    let before = bytes.chunks_exact(E::WIDTH);
    for ((element, current), before) in rest.iter_mut().zip(current).zip(before) {
        *element = E::load::<BIG>(current).zigzag_from(E::load::<BIG>(before));
    }
}

#[inline(always)]
fn backward_loops<E: Element, const DELTA: bool, const BIG: bool>(filtered: &[u8], out: &mut [u8]) {
    let count = filtered.len() / E::WIDTH;
    let (planes, tail) = filtered.split_at(count * E::WIDTH);
    let (elements, out_tail) = out.split_at_mut(count * E::WIDTH);
    out_tail.copy_from_slice(tail);

    let mut run = [E::default(); RUN];
    let mut previous = E::default();
    for (index, bytes) in elements.chunks_mut(RUN * E::WIDTH).enumerate() {
        let run = &mut run[..bytes.len() / E::WIDTH];
        run.fill(E::default());
        for plane in 0..E::WIDTH {
            let start = plane * count + index * RUN;
            let plane_bytes = &planes[start..start + run.len()];
            for (element, byte) in run.iter_mut().zip(plane_bytes) {
                *element = element.with_byte(plane, *byte);
            }
        }
        for (element, bytes) in run.iter().zip(bytes.chunks_exact_mut(E::WIDTH)) {
            if DELTA {
                previous = element.unzigzag_onto(previous);
                previous.store::<BIG>(bytes);
            } else {
                element.store::<BIG>(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests;
